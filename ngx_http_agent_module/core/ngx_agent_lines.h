
/*
 * Who waits before an agent: a line for each tenant that may have steps in
 * the queue, so that each has its turn however many another has sent.  Lists
 * only: no calls, no places.
 */

#ifndef _NGX_AGENT_LINES_H_INCLUDED_
#define _NGX_AGENT_LINES_H_INCLUDED_


#include "ngx_agent.h"
#include "ngx_agent_store.h"
#include <ngx_event.h>


/* tenants that one claim asks for: what the store takes */
#define NGX_AGENT_LINES_CLAIM    64


/* of one agent */

typedef struct {
    ngx_rbtree_t               rbtree;       /* all, by tenant */
    ngx_rbtree_node_t          sentinel;
    ngx_queue_t                all;          /* agents */
    ngx_queue_t                hungry;       /* the next one in turn first */
    ngx_queue_t                asked;        /* as in the call's lines */
    ngx_uint_t                 nhungry;
} ngx_agent_lines_t;


#define ngx_agent_lines_hungry(lines)  ((lines)->nhungry)

/* wake: posted when one that had to wait may be asked for again */
void ngx_agent_lines_init(ngx_cycle_t *cycle, ngx_event_t *wake);
void ngx_agent_lines_exit(void);
void ngx_agent_lines_add(ngx_agent_lines_t *lines);

/* There may be steps of this tenant; "again": also from of old. */
void ngx_agent_lines_news(ngx_agent_lines_t *lines, ngx_str_t *tenant,
    ngx_uint_t again);

/*
 * Makes call->lines of those whose turn it is, with call->limit shared among
 * them.  NGX_OK or NGX_ERROR.  One claim of an agent at a time: it ends with
 * told(), when the store has answered, or unasked(), when it was not sent.
 */
ngx_int_t ngx_agent_lines_ask(ngx_agent_lines_t *lines,
    ngx_agent_store_call_t *call);
void ngx_agent_lines_told(ngx_agent_lines_t *lines,
    ngx_agent_store_call_t *call);
void ngx_agent_lines_unasked(ngx_agent_lines_t *lines);

/* A step of the tenant's has ended: it may run another one. */
void ngx_agent_lines_ended(ngx_str_t *tenant);

/* Tenants of whom nothing was heard for long have no line any more. */
void ngx_agent_lines_forget(void);


#endif /* _NGX_AGENT_LINES_H_INCLUDED_ */
