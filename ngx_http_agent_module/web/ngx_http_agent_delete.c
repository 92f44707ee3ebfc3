
/*
 * Deleting a task: its rows in one statement, then, when the client has been
 * answered, the bytes of its artifacts.  The rows are gone whether the client
 * still waits or not, so the bytes must go in any case: all this has a pool
 * of its own.
 *
 *   ASKED -> REMOVING    the rows are gone; the client, if there is one, is
 *                        told so
 *   ASKED -> over        they are not: the client is told why
 *   REMOVING -> over     there are no bytes left
 *
 * What is still to be removed when a worker is killed stays on the disk, with
 * nobody who names it.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_agent_blob.h"
#include "ngx_http_agent_artifacts.h"
#include "ngx_http_agent_reply.h"


/* files removed before others get their turn, and the pause till the next */
#define NGX_HTTP_AGENT_DELETE_TURN   16
#define NGX_HTTP_AGENT_DELETE_PAUSE  1       /* ms */


typedef struct {
    ngx_pool_t                *pool;
    ngx_http_agent_web_t      *web;          /* NULL: the client left */
    ngx_agent_task_t           task;
    ngx_agent_store_call_t     call;
    ngx_uint_t                 removed;      /* of call.list */
    ngx_event_t                turn;
    unsigned                   blobs:1;      /* there is a place for them */
} ngx_http_agent_delete_t;


static ngx_http_agent_delete_t *ngx_http_agent_delete_create(
    ngx_http_agent_web_t *web);
static void ngx_http_agent_deleted(ngx_agent_store_call_t *call);
static ngx_int_t ngx_http_agent_delete_reply(ngx_http_agent_delete_t *del);
static void ngx_http_agent_delete_turn(ngx_event_t *ev);
static void ngx_http_agent_delete_cancel(ngx_http_agent_web_t *web);


ngx_int_t
ngx_http_agent_task_delete(ngx_http_agent_web_t *web)
{
    ngx_http_request_t       *r;
    ngx_http_agent_delete_t  *del;

    r = web->request;

    del = ngx_http_agent_delete_create(web);
    if (del == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_agent_store_delete_task(&del->call) != NGX_AGAIN) {
        ngx_destroy_pool(del->pool);
        return ngx_http_agent_reply_store(r, NGX_ABORT);
    }

    web->op = del;
    web->cancel = ngx_http_agent_delete_cancel;

    r->connection->log->action = "waiting for the agent database";

    r->main->count++;
    ngx_http_agent_hold(r);

    return NGX_DONE;
}


static ngx_http_agent_delete_t *
ngx_http_agent_delete_create(ngx_http_agent_web_t *web)
{
    ngx_pool_t               *pool;
    ngx_http_agent_delete_t  *del;

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    del = ngx_pcalloc(pool, sizeof(ngx_http_agent_delete_t));
    if (del == NULL) {
        ngx_destroy_pool(pool);
        return NULL;
    }

    del->pool = pool;
    del->web = web;
    del->task.id = web->ctx->task_id;
    del->blobs = ngx_http_agent_artifacts_on(web->request) ? 1 : 0;

    /* it outlives the request, and all that is in its pool */

    del->call.tenant.len = web->tenant.len;
    del->call.tenant.data = ngx_pstrdup(pool, &web->tenant);
    if (del->call.tenant.data == NULL) {
        ngx_destroy_pool(pool);
        return NULL;
    }

    del->call.pool = pool;
    del->call.log = ngx_cycle->log;
    del->call.handler = ngx_http_agent_deleted;
    del->call.data = del;
    del->call.task = &del->task;

    del->turn.handler = ngx_http_agent_delete_turn;
    del->turn.data = del;
    del->turn.log = ngx_cycle->log;

    return del;
}


static void
ngx_http_agent_deleted(ngx_agent_store_call_t *call)
{
    ngx_http_agent_delete_t  *del = call->data;

    ngx_int_t                  rc;
    ngx_uint_t                 more;
    ngx_http_request_t        *r;
    ngx_http_agent_web_t      *web;

    web = del->web;

    more = (call->rc == NGX_OK && call->list->nelts && del->blobs);

    if (web) {
        r = web->request;

        ngx_http_set_log_request(r->connection->log, r);

        web->cancel = NULL;
        rc = ngx_http_agent_delete_reply(del);

        ngx_http_agent_finalize(r, rc);
    }

    if (more) {
        /* a timer, so that a worker which quits sees this through */
        ngx_add_timer(&del->turn, NGX_HTTP_AGENT_DELETE_PAUSE);
        return;
    }

    ngx_destroy_pool(del->pool);
}


static ngx_int_t
ngx_http_agent_delete_reply(ngx_http_agent_delete_t *del)
{
    ngx_agent_json_t       j;
    ngx_http_agent_web_t  *web;

    web = del->web;

    if (del->call.rc != NGX_OK) {
        return ngx_http_agent_reply_failed(web->request, del->call.rc,
                                           "task", &web->route.task);
    }

    ngx_agent_json_init(&j, web->request->pool, 64);

    ngx_agent_json_object(&j);
    ngx_agent_json_key(&j, "task_id");
    ngx_agent_json_id(&j, &del->task.id);
    ngx_agent_json_object_end(&j);

    return ngx_http_agent_reply_json(web->request, NGX_HTTP_OK, &j);
}


static void
ngx_http_agent_delete_turn(ngx_event_t *ev)
{
    ngx_http_agent_delete_t  *del = ev->data;

    ngx_uint_t             n;
    ngx_agent_artifact_t  *artifact;

    artifact = del->call.list->elts;

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, ev->log, 0,
                   "agent web: blobs of a deleted task, %ui of %ui removed",
                   del->removed, del->call.list->nelts);

    for (n = 0; n < NGX_HTTP_AGENT_DELETE_TURN; n++) {

        if (del->removed == del->call.list->nelts) {
            ngx_destroy_pool(del->pool);
            return;
        }

        ngx_agent_blob_delete(&artifact[del->removed++].id, ev->log);
    }

    ngx_add_timer(ev, NGX_HTTP_AGENT_DELETE_PAUSE);
}


static void
ngx_http_agent_delete_cancel(ngx_http_agent_web_t *web)
{
    ngx_http_agent_delete_t  *del = web->op;

    del->web = NULL;
}
