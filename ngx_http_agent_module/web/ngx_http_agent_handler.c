
/*
 * Entry of the HTTP edge: the content handler, the table of operations, and
 * the life of a request that waits for a call.  Knows no operation's inside.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_agent_id.h"
#include "ngx_agent_stat.h"
#include "ngx_http_agent_auth.h"
#include "ngx_http_agent_web.h"
#include "ngx_http_agent_edge.h"
#include "ngx_http_agent_reply.h"


typedef ngx_int_t (*ngx_http_agent_op_pt)(ngx_http_agent_web_t *web);

/* NULL: the place does not allow the method; GET and HEAD are one */

typedef struct {
    ngx_http_agent_op_pt       get;
    ngx_http_agent_op_pt       post;
    ngx_http_agent_op_pt       remove;
    unsigned                   bodiless:1;   /* what is posted is ignored */
} ngx_http_agent_place_t;


static ngx_http_agent_op_pt ngx_http_agent_op(ngx_http_request_t *r,
    ngx_http_agent_place_t *place);
static ngx_int_t ngx_http_agent_not_allowed(ngx_http_agent_web_t *web,
    ngx_http_agent_place_t *place);
static ngx_int_t ngx_http_agent_web_ids(ngx_http_agent_web_t *web,
    ngx_int_t *rc);
static void ngx_http_agent_web_cleanup(void *data);
static void ngx_http_agent_web_count(ngx_http_request_t *r);
static void ngx_http_agent_call_handler(ngx_agent_store_call_t *call);


static ngx_http_agent_place_t
    ngx_http_agent_places[NGX_HTTP_AGENT_PLACES] =
{
    [NGX_HTTP_AGENT_AGENTS] = {
        ngx_http_agent_agents_list, NULL, NULL, 0 },

    [NGX_HTTP_AGENT_USAGE] = {
        ngx_http_agent_usage_get, NULL, NULL, 0 },

    [NGX_HTTP_AGENT_TASKS] = {
        ngx_http_agent_task_list, ngx_http_agent_task_create, NULL, 0 },

    [NGX_HTTP_AGENT_TASK] = {
        ngx_http_agent_task_get, NULL, ngx_http_agent_task_delete, 0 },

    [NGX_HTTP_AGENT_TASK_CANCEL] = {
        NULL, ngx_http_agent_task_cancel, NULL, 1 },

    [NGX_HTTP_AGENT_STEPS] = {
        ngx_http_agent_step_list, ngx_http_agent_step_create, NULL, 0 },

    [NGX_HTTP_AGENT_STEP] = {
        ngx_http_agent_step_get, NULL, NULL, 0 },

    [NGX_HTTP_AGENT_STEP_CANCEL] = {
        NULL, ngx_http_agent_step_cancel, NULL, 1 },

    [NGX_HTTP_AGENT_STEP_TRACE] = {
        ngx_http_agent_step_trace, NULL, NULL, 0 },

    [NGX_HTTP_AGENT_ARTIFACTS] = {
        ngx_http_agent_artifact_list, ngx_http_agent_artifact_upload,
        NULL, 0 },

    [NGX_HTTP_AGENT_ARTIFACT] = {
        ngx_http_agent_artifact_download, NULL, NULL, 0 }
};


ngx_int_t
ngx_http_agent_handler(ngx_http_request_t *r)
{
    ngx_int_t                rc;
    ngx_http_agent_op_pt     op;
    ngx_http_agent_web_t    *web;
    ngx_http_agent_place_t  *place;

    web = ngx_http_agent_web(r);
    if (web == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_agent_route(r, &web->route);

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "agent web: %V \"%V\", place %ui",
                   &r->method_name, &r->uri, web->route.place);

    if (web->route.place == NGX_HTTP_AGENT_NOWHERE) {
        return ngx_http_agent_reply_error(r, NGX_HTTP_NOT_FOUND,
                                          "no such path; the Agent Protocol "
                                          "starts at \"tasks\" below this "
                                          "location");
    }

    place = &ngx_http_agent_places[web->route.place];

    op = ngx_http_agent_op(r, place);

    if (op == NULL) {
        return ngx_http_agent_not_allowed(web, place);
    }

    if (ngx_http_agent_auth_enter(web, &rc) != NGX_OK
        || ngx_http_agent_web_ids(web, &rc) != NGX_OK)
    {
        return rc;
    }

    if (!(r->method & NGX_HTTP_POST) || place->bodiless) {

        rc = ngx_http_discard_request_body(r);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (ngx_http_agent_auth_limited(web) && web->ctx->has_task) {
        return ngx_http_agent_auth_task(web, op);
    }

    return op(web);
}


static ngx_http_agent_op_pt
ngx_http_agent_op(ngx_http_request_t *r, ngx_http_agent_place_t *place)
{
    switch (r->method) {

    case NGX_HTTP_GET:
    case NGX_HTTP_HEAD:
        return place->get;

    case NGX_HTTP_POST:
        return place->post;

    case NGX_HTTP_DELETE:
        return place->remove;

    default:
        return NULL;
    }
}


static ngx_int_t
ngx_http_agent_not_allowed(ngx_http_agent_web_t *web,
    ngx_http_agent_place_t *place)
{
    static ngx_str_t  read = ngx_string("GET, HEAD");
    static ngx_str_t  post = ngx_string("POST");
    static ngx_str_t  both = ngx_string("GET, HEAD, POST");
    static ngx_str_t  remove = ngx_string("GET, HEAD, DELETE");

    ngx_str_t  *allow;

    if (place->get == NULL) {
        allow = &post;

    } else if (place->remove) {
        allow = &remove;

    } else {
        allow = place->post ? &both : &read;
    }

    if (ngx_http_agent_reply_header(web->request, "Allow", allow) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_agent_reply_error(web->request, NGX_HTTP_NOT_ALLOWED,
                                      "this path allows %V only", allow);
}


/*
 * An id that is no uuid is a 404 like any unknown one.  NGX_OK, or
 * NGX_DECLINED: answered, *rc is the code to return.
 */

static ngx_int_t
ngx_http_agent_web_ids(ngx_http_agent_web_t *web, ngx_int_t *rc)
{
    ngx_http_agent_ctx_t    *ctx;
    ngx_http_agent_route_t  *route;

    ctx = web->ctx;
    route = &web->route;

    if (route->task.data == NULL) {
        return NGX_OK;
    }

    if (ngx_agent_id_parse(&route->task, &ctx->task_id) != NGX_OK) {
        *rc = ngx_http_agent_reply_unknown(web->request, "task",
                                           &route->task);
        return NGX_DECLINED;
    }

    ctx->has_task = 1;

    if (route->place == NGX_HTTP_AGENT_STEP
        || route->place == NGX_HTTP_AGENT_STEP_CANCEL
        || route->place == NGX_HTTP_AGENT_STEP_TRACE)
    {

        if (ngx_agent_id_parse(&route->item, &ctx->step_id) != NGX_OK) {
            *rc = ngx_http_agent_reply_unknown(web->request, "step",
                                               &route->item);
            return NGX_DECLINED;
        }

        ctx->has_step = 1;
    }

    return NGX_OK;
}


ngx_http_agent_web_t *
ngx_http_agent_web(ngx_http_request_t *r)
{
    ngx_http_cleanup_t    *cln;
    ngx_http_agent_ctx_t  *ctx;
    ngx_http_agent_web_t  *web;

    ctx = ngx_http_get_module_ctx(r, ngx_http_agent_module);

    if (ctx == NULL) {
        ctx = ngx_pcalloc(r->pool, sizeof(ngx_http_agent_ctx_t));
        if (ctx == NULL) {
            return NULL;
        }

        ngx_http_set_ctx(r, ctx, ngx_http_agent_module);
    }

    if (ctx->web) {
        return ctx->web;
    }

    web = ngx_pcalloc(r->pool, sizeof(ngx_http_agent_web_t));
    if (web == NULL) {
        return NULL;
    }

    cln = ngx_http_cleanup_add(r, 0);
    if (cln == NULL) {
        return NULL;
    }

    cln->handler = ngx_http_agent_web_cleanup;
    cln->data = web;

    web->request = r;
    web->ctx = ctx;
    ctx->web = web;

    return web;
}


/*
 * nginx ends the request: normally, or early, because the client left or the
 * worker must go.  Runs before the pool is destroyed.
 */

static void
ngx_http_agent_web_cleanup(void *data)
{
    ngx_http_agent_web_t  *web = data;

    if (web->calling) {
        ngx_log_debug0(NGX_LOG_DEBUG_HTTP, web->request->connection->log, 0,
                       "agent web: request ends before its call");

        web->calling = 0;
        ngx_agent_store_detach(web->call);
    }

    if (web->cancel) {
        web->cancel(web);
        web->cancel = NULL;
    }

    ngx_http_agent_web_count(web->request);
}


/* what the client was answered, if it was */

static void
ngx_http_agent_web_count(ngx_http_request_t *r)
{
    if (r != r->main || r->headers_out.status == 0
        || r->headers_out.status == NGX_HTTP_CLIENT_CLOSED_REQUEST)
    {
        return;
    }

    if (r->headers_out.status < NGX_HTTP_BAD_REQUEST) {
        ngx_agent_stat_add(2XX, 1);

    } else if (r->headers_out.status < NGX_HTTP_INTERNAL_SERVER_ERROR) {
        ngx_agent_stat_add(4XX, 1);

    } else {
        ngx_agent_stat_add(5XX, 1);
    }
}


ngx_agent_store_call_t *
ngx_http_agent_call(ngx_http_agent_web_t *web)
{
    ngx_http_request_t      *r;
    ngx_agent_store_call_t  *call;

    r = web->request;

    call = ngx_pcalloc(r->pool, sizeof(ngx_agent_store_call_t));
    if (call == NULL) {
        return NULL;
    }

    call->pool = r->pool;
    call->log = r->connection->log;
    call->handler = ngx_http_agent_call_handler;
    call->data = web;
    call->tenant = web->tenant;

    web->call = call;

    return call;
}


ngx_agent_store_call_t *
ngx_http_agent_call_task(ngx_http_agent_web_t *web)
{
    ngx_agent_store_call_t  *call;

    call = ngx_http_agent_call(web);
    if (call == NULL) {
        return NULL;
    }

    call->task = ngx_pcalloc(call->pool, sizeof(ngx_agent_task_t));
    if (call->task == NULL) {
        return NULL;
    }

    call->task->id = web->ctx->task_id;

    return call;
}


ngx_agent_store_call_t *
ngx_http_agent_call_step(ngx_http_agent_web_t *web)
{
    ngx_agent_store_call_t  *call;

    call = ngx_http_agent_call(web);
    if (call == NULL) {
        return NULL;
    }

    call->step = ngx_pcalloc(call->pool, sizeof(ngx_agent_step_t));
    if (call->step == NULL) {
        return NULL;
    }

    call->step->id = web->ctx->step_id;
    call->step->task_id = web->ctx->task_id;

    return call;
}


ngx_int_t
ngx_http_agent_call_start(ngx_http_agent_web_t *web,
    ngx_http_agent_call_pt start, ngx_http_agent_done_pt done)
{
    if (ngx_http_agent_call_try(web, start, done) == NGX_DONE) {
        return NGX_DONE;
    }

    return ngx_http_agent_reply_store(web->request, NGX_ABORT);
}


ngx_int_t
ngx_http_agent_call_try(ngx_http_agent_web_t *web,
    ngx_http_agent_call_pt start, ngx_http_agent_done_pt done)
{
    ngx_http_request_t  *r;

    r = web->request;

    web->done = done;

    if (start(web->call) != NGX_AGAIN) {
        return NGX_ABORT;
    }

    web->calling = 1;

    r->connection->log->action = "waiting for the agent database";

    r->main->count++;
    ngx_http_agent_hold(r);

    return NGX_DONE;
}


static void
ngx_http_agent_call_handler(ngx_agent_store_call_t *call)
{
    ngx_http_agent_web_t  *web = call->data;

    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = web->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, c->log, 0,
                   "agent web: call ended: %i", call->rc);

    web->calling = 0;

    ngx_http_agent_finalize(r, web->done(web));
}


/*
 * A call comes back within seconds, so the client is not listened to
 * meanwhile; but a body that is being discarded needs its own handler.
 */

void
ngx_http_agent_hold(ngx_http_request_t *r)
{
    if (!r->discard_body) {
        r->read_event_handler = ngx_http_block_reading;
    }

    r->write_event_handler = ngx_http_request_empty_handler;
}


void
ngx_http_agent_finalize(ngx_http_request_t *r, ngx_int_t rc)
{
    ngx_connection_t  *c;

    c = r->connection;

    ngx_http_finalize_request(r, rc);
    ngx_http_run_posted_requests(c);
}
