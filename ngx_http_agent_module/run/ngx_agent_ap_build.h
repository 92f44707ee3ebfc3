
/*
 * The agent_protocol dialect, outward: the uris and bodies of requests to a
 * container, and what a step remembers of it, as it is stored.  Bytes only:
 * no request, no I/O.
 */

#ifndef _NGX_AGENT_AP_BUILD_H_INCLUDED_
#define _NGX_AGENT_AP_BUILD_H_INCLUDED_


#include "ngx_agent.h"
#include "ngx_agent_ap_parse.h"


/* bytes of a boundary, and of what it looks like at the end of a form */
#define NGX_AGENT_AP_BOUNDARY_LEN  (sizeof("agent-") - 1 + 32)
#define NGX_AGENT_AP_TAIL_LEN      (NGX_AGENT_AP_BOUNDARY_LEN + 8)

/* bytes of a uri beyond the agent's "pass" */
#define NGX_AGENT_AP_URI_LEN       (2 * NGX_AGENT_AP_ID_MAX + 128)


/*
 * What is remembered of the container, from step to step, on record as the
 * step's turns.  Ids of ours are of artifacts that the container was given,
 * ids of its own of those that were taken from it.
 */

typedef struct {
    ngx_pool_t                *pool;
    ngx_str_t                  task_id;      /* len 0: there is none yet */
    ngx_str_t                  step_id;      /* of the step that is run; len
                                                0: it has none so far */
    ngx_uint_t                 tries;        /* of it that are known to have
                                                failed: its key has them */
    ngx_array_t                sent;         /* of ngx_agent_id_t */
    ngx_array_t                got;          /* of ngx_str_t */
    ngx_uint_t                 sent_before;  /* as many were so in earlier */
    ngx_uint_t                 got_before;   /* steps */
} ngx_agent_ap_memory_t;


/* NGX_OK or NGX_ERROR: no memory; so do the others that return ngx_int_t. */
ngx_int_t ngx_agent_ap_memory_init(ngx_agent_ap_memory_t *m,
    ngx_pool_t *pool);

/*
 * Adds what is on record of a step: an earlier one, or, "own", of the one
 * that is to be run, by those who have run it before.
 */
ngx_int_t ngx_agent_ap_memory_add(ngx_agent_ap_memory_t *m,
    ngx_agent_step_t *step, ngx_uint_t own);

/* The turns of the step that is run; len 0: there is nothing to remember. */
ngx_int_t ngx_agent_ap_memory_print(ngx_agent_ap_memory_t *m,
    ngx_pool_t *pool, ngx_str_t *turns);

ngx_uint_t ngx_agent_ap_memory_sent(ngx_agent_ap_memory_t *m,
    ngx_agent_id_t *id);
ngx_uint_t ngx_agent_ap_memory_got(ngx_agent_ap_memory_t *m, ngx_str_t *id);


/*
 * pass, without its arguments, then the texts up to NULL, then its arguments
 * and "args" (may be NULL).  buf has pass->len + NGX_AGENT_AP_URI_LEN bytes.
 */
void ngx_agent_ap_uri(u_char *buf, ngx_str_t *uri, ngx_str_t *pass,
    ngx_str_t **texts, ngx_str_t *args);

/* the body of a task or of a step; input: data NULL: there is none */
ngx_int_t ngx_agent_ap_input(ngx_pool_t *pool, ngx_str_t *input,
    ngx_str_t *additional_input, ngx_str_t *body);

/* Writes NGX_AGENT_AP_BOUNDARY_LEN bytes that no file will have in it. */
void ngx_agent_ap_boundary(u_char *p);

/*
 * What stands before the bytes of a file in a multipart form; what stands
 * behind them is written to tail, which has NGX_AGENT_AP_TAIL_LEN bytes.
 */
ngx_int_t ngx_agent_ap_form(ngx_pool_t *pool, u_char *boundary,
    ngx_agent_artifact_t *artifact, ngx_str_t *head, ngx_str_t *tail);


#endif /* _NGX_AGENT_AP_BUILD_H_INCLUDED_ */
