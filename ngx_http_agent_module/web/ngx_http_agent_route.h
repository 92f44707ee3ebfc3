
/*
 * Routes: from a request's path to an operation of the Agent Protocol and the
 * ids in it, and the page that a list's query asks for.  Reads the request
 * and its location only.
 */

#ifndef _NGX_HTTP_AGENT_ROUTE_H_INCLUDED_
#define _NGX_HTTP_AGENT_ROUTE_H_INCLUDED_


#include <ngx_http.h>
#include "ngx_agent.h"


typedef enum {
    NGX_HTTP_AGENT_NOWHERE = 0,
    NGX_HTTP_AGENT_AGENTS,           /* agents */
    NGX_HTTP_AGENT_USAGE,            /* usage */
    NGX_HTTP_AGENT_TASKS,            /* tasks */
    NGX_HTTP_AGENT_TASK,             /* tasks/{task} */
    NGX_HTTP_AGENT_TASK_CANCEL,      /* tasks/{task}/cancel */
    NGX_HTTP_AGENT_STEPS,            /* tasks/{task}/steps */
    NGX_HTTP_AGENT_STEP,             /* tasks/{task}/steps/{item} */
    NGX_HTTP_AGENT_STEP_CANCEL,      /* tasks/{task}/steps/{item}/cancel */
    NGX_HTTP_AGENT_STEP_TRACE,       /* tasks/{task}/steps/{item}/trace */
    NGX_HTTP_AGENT_ARTIFACTS,        /* tasks/{task}/artifacts */
    NGX_HTTP_AGENT_ARTIFACT,         /* tasks/{task}/artifacts/{item} */
    NGX_HTTP_AGENT_PLACES
} ngx_http_agent_place_e;


/* "task" and "item" are the ids as the client wrote them; point into r->uri */

typedef struct {
    ngx_http_agent_place_e     place;
    ngx_str_t                  task;
    ngx_str_t                  item;
} ngx_http_agent_route_t;


/* route->place tells: NOWHERE when the path is none of ours */
void ngx_http_agent_route(ngx_http_request_t *r,
    ngx_http_agent_route_t *route);

/*
 * current_page, page_size and order.  NGX_OK, or NGX_DECLINED with *arg set
 * to the argument that is wrong and *why to a text that reads on from it.
 */
ngx_int_t ngx_http_agent_route_page(ngx_http_request_t *r,
    ngx_agent_page_t *page, const char **arg, const char **why);

/*
 * A decoded query argument.  NGX_OK; NGX_DECLINED: there is none; NGX_ERROR:
 * no memory.
 */
ngx_int_t ngx_http_agent_route_arg(ngx_http_request_t *r, const char *name,
    ngx_str_t *value);


#endif /* _NGX_HTTP_AGENT_ROUTE_H_INCLUDED_ */
