
/*
 * Waiting for the end of a step, whoever runs it: for who has posted it, and
 * for who reads it with "Prefer: wait=N".
 */

#ifndef _NGX_HTTP_AGENT_WAIT_H_INCLUDED_
#define _NGX_HTTP_AGENT_WAIT_H_INCLUDED_


#include "ngx_http_agent_edge.h"


/*
 * In r->pool, as web->op, zeroed, with "web" and the first group filled in.
 * "pool" has all that is needed before the waiting: it is gone meanwhile,
 * which may take minutes and is to cost little.
 */

typedef struct {
    ngx_http_agent_web_t      *web;
    ngx_pool_t                *pool;         /* or NULL */
    ngx_agent_post_t          *post;         /* in pool; the store is asked */
    ngx_uint_t                 seconds;      /* at most, if limited */
    unsigned                   limited:1;
    unsigned                   posted:1;     /* by this request */
    unsigned                   async:1;      /* ... which prefers no waiting */

    /* private */
    unsigned                   active:1;
    unsigned                   busy:1;       /* the worker goes */
    ngx_agent_watch_t          watch;
    ngx_event_t                timer;
} ngx_http_agent_wait_t;


/* One with its pool and cleanup; NULL: no memory. */
ngx_http_agent_wait_t *ngx_http_agent_wait_create(ngx_http_agent_web_t *web);

/*
 * Frees wait->pool and waits for the step in web->ctx.  NGX_DONE: the request
 * is held, with its count raised, and will be answered; else a code to end it
 * with.
 */
ngx_int_t ngx_http_agent_wait(ngx_http_agent_wait_t *wait);

/* Frees what was needed before the waiting. */
void ngx_http_agent_wait_pool(ngx_http_agent_wait_t *wait);


#endif /* _NGX_HTTP_AGENT_WAIT_H_INCLUDED_ */
