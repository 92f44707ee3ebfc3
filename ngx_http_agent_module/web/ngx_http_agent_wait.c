
/*
 * Waiting for the end of a step.  The step runs elsewhere, in this worker or
 * in another: here a client only watches it, and may leave at any time.
 *
 *   WAITING -> over       the step has ended, or is gone: the client is told
 *   WAITING -> READING    the time is up, or the worker goes: how is it?
 *   READING -> over       the client is told that
 *   any -> over           the client left: let go; the step goes on
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_agent_body.h"
#include "ngx_http_agent_reply.h"
#include "ngx_http_agent_steps.h"
#include "ngx_http_agent_wait.h"


static ngx_int_t ngx_http_agent_wait_listen(ngx_http_request_t *r);
static void ngx_http_agent_wait_ended(ngx_agent_watch_t *w);
static void ngx_http_agent_wait_late(ngx_event_t *ev);
static ngx_int_t ngx_http_agent_wait_read(ngx_http_agent_wait_t *wait);
static ngx_int_t ngx_http_agent_wait_was_read(ngx_http_agent_web_t *web);
static ngx_int_t ngx_http_agent_wait_unread(ngx_http_agent_wait_t *wait,
    ngx_int_t rc);
static ngx_int_t ngx_http_agent_wait_reply(ngx_http_agent_wait_t *wait,
    ngx_agent_step_t *step);
static void ngx_http_agent_wait_stop(ngx_http_agent_wait_t *wait);
static void ngx_http_agent_wait_cancel(ngx_http_agent_web_t *web);


ngx_http_agent_wait_t *
ngx_http_agent_wait_create(ngx_http_agent_web_t *web)
{
    ngx_http_request_t     *r;
    ngx_http_agent_wait_t  *wait;

    r = web->request;

    wait = ngx_pcalloc(r->pool, sizeof(ngx_http_agent_wait_t));
    if (wait == NULL) {
        return NULL;
    }

    wait->web = web;

    wait->pool = ngx_create_pool(2048, r->connection->log);
    if (wait->pool == NULL) {
        return NULL;
    }

    web->op = wait;
    web->cancel = ngx_http_agent_wait_cancel;

    return wait;
}


void
ngx_http_agent_wait_pool(ngx_http_agent_wait_t *wait)
{
    wait->post = NULL;

    if (wait->pool) {
        ngx_destroy_pool(wait->pool);
        wait->pool = NULL;
    }
}


ngx_int_t
ngx_http_agent_wait(ngx_http_agent_wait_t *wait)
{
    ngx_agent_watch_t   *w;
    ngx_http_request_t  *r;

    r = wait->web->request;
    w = &wait->watch;

    /* first, so that what comes next may take the memory */

    ngx_http_agent_wait_pool(wait);
    ngx_http_agent_body_free(r);

    w->handler = ngx_http_agent_wait_ended;
    w->data = wait;
    w->log = r->connection->log;
    w->tenant = wait->web->tenant;
    w->task_id = wait->web->ctx->task_id;
    w->step_id = wait->web->ctx->step_id;

    if (ngx_agent_step_watch(w) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    wait->active = 1;

    if (wait->limited) {
        wait->timer.handler = ngx_http_agent_wait_late;
        wait->timer.data = wait;
        wait->timer.log = r->connection->log;

        ngx_add_timer(&wait->timer, (ngx_msec_t) wait->seconds * 1000);
    }

    r->connection->log->action = "waiting for the agent's step";

    if (ngx_http_agent_wait_listen(r) != NGX_OK) {
        ngx_http_agent_wait_stop(wait);
        return NGX_ERROR;
    }

    r->main->count++;

    return NGX_DONE;
}


/*
 * From now on a client that leaves is noticed, as nginx does it for its
 * upstreams.  A subrequest does not listen: its main request does.
 */

static ngx_int_t
ngx_http_agent_wait_listen(ngx_http_request_t *r)
{
    ngx_event_t  *rev;

    if (r != r->main || r->discard_body) {
        return NGX_OK;
    }

    r->read_event_handler = ngx_http_test_reading;

    if (r->http_version >= NGX_HTTP_VERSION_20) {
        /* a stream's events are nginx's own, there is no socket to add */
        return NGX_OK;
    }

    rev = r->connection->read;

    if (ngx_handle_read_event(rev, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    if (rev->ready) {
        /* the end may have come while nobody looked */
        ngx_post_event(rev, &ngx_posted_events);
    }

    return NGX_OK;
}


static void
ngx_http_agent_wait_ended(ngx_agent_watch_t *w)
{
    ngx_http_agent_wait_t  *wait = w->data;

    ngx_int_t            rc;
    ngx_http_request_t  *r;

    r = wait->web->request;

    ngx_http_set_log_request(r->connection->log, r);

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "agent web: waiting ends: %i", w->rc);

    ngx_http_agent_wait_stop(wait);

    switch (w->rc) {

    case NGX_OK:
        rc = ngx_http_agent_wait_reply(wait, w->step);
        break;

    case NGX_DECLINED:
        rc = ngx_http_agent_step_unknown(wait->web);
        break;

    default: /* NGX_BUSY: this worker has little time left */
        wait->busy = 1;
        rc = ngx_agent_store_connection()
             ? ngx_http_agent_wait_read(wait)
             : ngx_http_agent_wait_unread(wait, NGX_ABORT);
    }

    ngx_http_agent_finalize(r, rc);
}


static void
ngx_http_agent_wait_late(ngx_event_t *ev)
{
    ngx_http_agent_wait_t  *wait = ev->data;

    ngx_http_request_t  *r;

    r = wait->web->request;

    ngx_http_set_log_request(r->connection->log, r);

    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "agent web: the time to wait is up");

    ngx_http_agent_wait_stop(wait);

    ngx_http_agent_finalize(r, ngx_http_agent_wait_read(wait));
}


static ngx_int_t
ngx_http_agent_wait_read(ngx_http_agent_wait_t *wait)
{
    if (ngx_http_agent_call_step(wait->web) == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_http_agent_call_try(wait->web, ngx_agent_store_get_step,
                                ngx_http_agent_wait_was_read)
        == NGX_DONE)
    {
        return NGX_DONE;
    }

    return ngx_http_agent_wait_unread(wait, NGX_ABORT);
}


static ngx_int_t
ngx_http_agent_wait_was_read(ngx_http_agent_web_t *web)
{
    ngx_agent_store_call_t  *call;
    ngx_http_agent_wait_t   *wait = web->op;

    call = web->call;

    if (call->rc == NGX_OK) {
        return ngx_http_agent_wait_reply(wait, call->step);
    }

    if (call->rc == NGX_DECLINED) {
        return ngx_http_agent_step_unknown(web);
    }

    return ngx_http_agent_wait_unread(wait, call->rc);
}


static ngx_int_t
ngx_http_agent_wait_unread(ngx_http_agent_wait_t *wait, ngx_int_t rc)
{
    if (wait->posted) {
        return ngx_http_agent_step_unread(wait->web);
    }

    return ngx_http_agent_reply_store(wait->web->request, rc);
}


static ngx_int_t
ngx_http_agent_wait_reply(ngx_http_agent_wait_t *wait,
    ngx_agent_step_t *step)
{
    if (!wait->posted) {
        return ngx_http_agent_step_reply(wait->web, NGX_HTTP_OK, step);
    }

    if (ngx_agent_step_is_ended(step)) {
        return ngx_http_agent_step_end(wait->web, step);
    }

    return ngx_http_agent_step_accepted(wait->web, step,
                                        wait->async && !wait->busy);
}


static void
ngx_http_agent_wait_stop(ngx_http_agent_wait_t *wait)
{
    if (wait->active) {
        wait->active = 0;
        ngx_agent_step_unwatch(&wait->watch);
    }

    if (wait->timer.timer_set) {
        ngx_del_timer(&wait->timer);
    }
}


/* The request ends before the step: the step goes on and is stored. */

static void
ngx_http_agent_wait_cancel(ngx_http_agent_web_t *web)
{
    ngx_http_agent_wait_t  *wait = web->op;

    if (wait->post) {
        ngx_agent_step_post_detach(wait->post);
    }

    if (wait->active) {
        ngx_log_debug0(NGX_LOG_DEBUG_HTTP, web->request->connection->log, 0,
                       "agent web: the client left, its step goes on");
    }

    ngx_http_agent_wait_stop(wait);
    ngx_http_agent_wait_pool(wait);
}
