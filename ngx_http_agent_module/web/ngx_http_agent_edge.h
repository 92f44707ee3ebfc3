
/*
 * What the files of web/ share: the state of one client's request, the calls
 * it makes, and the operations.  Nobody outside web/ includes this.
 */

#ifndef _NGX_HTTP_AGENT_EDGE_H_INCLUDED_
#define _NGX_HTTP_AGENT_EDGE_H_INCLUDED_


#include "ngx_http_agent_module.h"
#include "ngx_agent_core.h"
#include "ngx_http_agent_route.h"


typedef struct ngx_http_agent_web_s  ngx_http_agent_web_t;

/* what a store call's end leads to: a code for ngx_http_finalize_request() */
typedef ngx_int_t (*ngx_http_agent_done_pt)(ngx_http_agent_web_t *web);

/* starts a call: ngx_agent_store_get_task() and its like */
typedef ngx_int_t (*ngx_http_agent_call_pt)(ngx_agent_store_call_t *call);


/*
 * One client's request; in r->pool, found by ctx->web.  It outlives nothing:
 * when nginx ends the request early, "cancel" lets go of whatever the request
 * still waits for (the store's and core's work goes on without it).
 */

struct ngx_http_agent_web_s {
    ngx_http_request_t        *request;
    ngx_http_agent_ctx_t      *ctx;
    ngx_http_agent_route_t     route;

    ngx_str_t                  tenant;       /* whose data it is about */
    ngx_agent_key_t           *key;          /* it came with, or NULL */

    ngx_str_t                  agent_id;     /* named in the body */

    ngx_agent_store_call_t    *call;         /* last or running call */
    ngx_http_agent_done_pt     done;
    ngx_http_agent_done_pt     next;         /* ngx_http_agent_auth_task() */

    void                      *op;           /* state of the operation */
    void                     (*cancel)(ngx_http_agent_web_t *web);

    ngx_str_t                 *error;        /* in place of nginx's own page;
                                                NULL: there is none */

    ngx_http_event_handler_pt  reader;       /* nginx's, of the body */

    unsigned                   calling:1;
};


/* The web state of a request, made when there is none; NULL: no memory. */
ngx_http_agent_web_t *ngx_http_agent_web(ngx_http_request_t *r);

/*
 * A zeroed call with pool, log, handler and data filled in, as web->call;
 * NULL: no memory.
 */
ngx_agent_store_call_t *ngx_http_agent_call(ngx_http_agent_web_t *web);

/*
 * Starts web->call.  NGX_DONE: "done" will run, from an event, and what it
 * returns ends the request, for which r->main->count was raised; else the
 * code for ngx_http_finalize_request(): the store is away, the client has
 * been told so.
 */
ngx_int_t ngx_http_agent_call_start(ngx_http_agent_web_t *web,
    ngx_http_agent_call_pt start, ngx_http_agent_done_pt done);

/* The same with call->task, or call->step, of the ids in the path. */
ngx_agent_store_call_t *ngx_http_agent_call_task(ngx_http_agent_web_t *web);
ngx_agent_store_call_t *ngx_http_agent_call_step(ngx_http_agent_web_t *web);

/* The same, but nobody has been told so: NGX_ABORT. */
ngx_int_t ngx_http_agent_call_try(ngx_http_agent_web_t *web,
    ngx_http_agent_call_pt start, ngx_http_agent_done_pt done);

/*
 * Fills web->call->page from the query.  NGX_OK; NGX_DECLINED: the client has
 * been told what is wrong, *rc is the code to return (which may be NGX_OK:
 * the refusal was sent).
 */
ngx_int_t ngx_http_agent_list_page(ngx_http_agent_web_t *web, ngx_int_t *rc);

/* Keeps the request alive and quiet until something else ends it. */
void ngx_http_agent_hold(ngx_http_request_t *r);

/* Ends a held request from an event of ours. */
void ngx_http_agent_finalize(ngx_http_request_t *r, ngx_int_t rc);


/*
 * The operations.  Each returns what a content handler returns: NGX_DONE when
 * it holds the request (count raised), else the code that ends it.
 */

ngx_int_t ngx_http_agent_agents_list(ngx_http_agent_web_t *web);

ngx_int_t ngx_http_agent_usage_get(ngx_http_agent_web_t *web);

ngx_int_t ngx_http_agent_task_create(ngx_http_agent_web_t *web);
ngx_int_t ngx_http_agent_task_get(ngx_http_agent_web_t *web);
ngx_int_t ngx_http_agent_task_list(ngx_http_agent_web_t *web);
ngx_int_t ngx_http_agent_task_cancel(ngx_http_agent_web_t *web);
ngx_int_t ngx_http_agent_task_delete(ngx_http_agent_web_t *web);

ngx_int_t ngx_http_agent_step_create(ngx_http_agent_web_t *web);
ngx_int_t ngx_http_agent_step_get(ngx_http_agent_web_t *web);
ngx_int_t ngx_http_agent_step_list(ngx_http_agent_web_t *web);
ngx_int_t ngx_http_agent_step_cancel(ngx_http_agent_web_t *web);
ngx_int_t ngx_http_agent_step_trace(ngx_http_agent_web_t *web);

ngx_int_t ngx_http_agent_artifact_upload(ngx_http_agent_web_t *web);
ngx_int_t ngx_http_agent_artifact_download(ngx_http_agent_web_t *web);
ngx_int_t ngx_http_agent_artifact_list(ngx_http_agent_web_t *web);


#endif /* _NGX_HTTP_AGENT_EDGE_H_INCLUDED_ */
