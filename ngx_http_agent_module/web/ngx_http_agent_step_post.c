
/*
 * Posting a step, and waiting for its end.  The step runs in the worker, not
 * on this request: here a client only watches it, and may leave at any time.
 *
 *   ASKING -> WAITING    the step is begun and scheduled; it is watched
 *   ASKING -> over       nothing was begun: the client is told why
 *   WAITING -> over      the step has ended: the client gets it
 *   any -> over          the client left: let go; the step goes on
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_agent_edge.h"
#include "ngx_http_agent_body.h"
#include "ngx_http_agent_reply.h"
#include "ngx_http_agent_steps.h"


/* bytes of a step's error that a client is shown in the message */
#define NGX_HTTP_AGENT_REASON  512


/*
 * "pool" has all that ASKING needs: the body's strings and the wish itself.
 * It is gone while the client waits, which may take minutes and is to cost
 * little.
 */

typedef struct {
    ngx_http_agent_web_t      *web;
    ngx_agent_watch_t          watch;
    ngx_pool_t                *pool;
    ngx_agent_post_t          *post;         /* NULL: not ASKING */
} ngx_http_agent_wait_t;


static ngx_int_t ngx_http_agent_step_body(ngx_http_agent_web_t *web);
static ngx_int_t ngx_http_agent_step_ask(ngx_http_agent_wait_t *wait);
static void ngx_http_agent_step_asked(ngx_agent_post_t *post);
static ngx_int_t ngx_http_agent_step_refused(ngx_http_agent_wait_t *wait);
static void ngx_http_agent_step_wait(ngx_http_agent_wait_t *wait,
    ngx_agent_live_t *live);
static ngx_int_t ngx_http_agent_step_listen(ngx_http_request_t *r);
static void ngx_http_agent_step_ended(ngx_agent_watch_t *w,
    ngx_agent_live_t *live);
static ngx_int_t ngx_http_agent_step_result(ngx_http_agent_wait_t *wait,
    ngx_agent_live_t *live);
static ngx_int_t ngx_http_agent_step_failed(ngx_http_agent_web_t *web,
    ngx_agent_live_t *live);
static size_t ngx_http_agent_step_clip(ngx_str_t *text, size_t max);
static void ngx_http_agent_step_pool(ngx_http_agent_wait_t *wait);
static void ngx_http_agent_step_cancel(ngx_http_agent_web_t *web);


ngx_int_t
ngx_http_agent_step_create(ngx_http_agent_web_t *web)
{
    return ngx_http_agent_body_read(web, ngx_http_agent_step_body);
}


static ngx_int_t
ngx_http_agent_step_body(ngx_http_agent_web_t *web)
{
    ngx_int_t               rc;
    ngx_http_request_t     *r;
    ngx_http_agent_wait_t  *wait;

    r = web->request;

    wait = ngx_pcalloc(r->pool, sizeof(ngx_http_agent_wait_t));
    if (wait == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    wait->web = web;

    wait->pool = ngx_create_pool(2048, r->connection->log);
    if (wait->pool == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    web->op = wait;
    web->cancel = ngx_http_agent_step_cancel;

    rc = ngx_http_agent_step_ask(wait);

    if (rc != NGX_DONE) {
        wait->post = NULL;
        ngx_http_agent_step_pool(wait);
    }

    return rc;
}


static ngx_int_t
ngx_http_agent_step_ask(ngx_http_agent_wait_t *wait)
{
    ngx_int_t               rc;
    ngx_agent_post_t       *post;
    ngx_http_request_t     *r;
    ngx_http_agent_web_t   *web;
    ngx_http_agent_body_t   body;

    web = wait->web;
    r = web->request;

    if (ngx_http_agent_body_parse(web, wait->pool, &body, &rc) != NGX_OK) {
        return rc;
    }

    post = ngx_pcalloc(wait->pool, sizeof(ngx_agent_post_t));
    if (post == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    post->pool = wait->pool;
    post->log = r->connection->log;
    post->handler = ngx_http_agent_step_asked;
    post->data = wait;
    post->task.id = web->ctx->task_id;
    post->step.task_id = web->ctx->task_id;
    post->step.input = body.input;
    post->step.additional_input = body.additional_input;

    if (ngx_agent_step_post(post) != NGX_AGAIN) {
        return ngx_http_agent_reply_store(r, NGX_ABORT);
    }

    wait->post = post;

    r->connection->log->action = "waiting for the agent database";

    r->main->count++;
    ngx_http_agent_hold(r);

    return NGX_DONE;
}


static void
ngx_http_agent_step_asked(ngx_agent_post_t *post)
{
    ngx_http_agent_wait_t  *wait = post->data;

    ngx_int_t            rc;
    ngx_http_request_t  *r;

    r = wait->web->request;

    ngx_http_set_log_request(r->connection->log, r);

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "agent web: step asked: %i, begin %d",
                   post->rc, (int) post->begin);

    if (post->rc == NGX_OK && post->begin == NGX_AGENT_BEGIN_OK) {
        ngx_http_agent_step_wait(wait, post->live);
        return;
    }

    rc = ngx_http_agent_step_refused(wait);

    wait->post = NULL;
    ngx_http_agent_step_pool(wait);

    ngx_http_agent_finalize(r, rc);
}


static ngx_int_t
ngx_http_agent_step_refused(ngx_http_agent_wait_t *wait)
{
    ngx_agent_post_t      *post;
    ngx_http_request_t    *r;
    ngx_http_agent_web_t  *web;

    web = wait->web;
    r = web->request;
    post = wait->post;

    if (post->rc != NGX_OK) {
        return ngx_http_agent_reply_store(r, post->rc);
    }

    switch (post->begin) {

    case NGX_AGENT_BEGIN_BUSY:
        return ngx_http_agent_reply_later(r, NGX_HTTP_CONFLICT,
                                          "another step of this task is "
                                          "running; post this one when it "
                                          "has ended");

    case NGX_AGENT_BEGIN_FINISHED:
        post->step.is_last = 1;
        return ngx_http_agent_step_reply(web, &post->step);

    case NGX_AGENT_BEGIN_FULL:
        return ngx_http_agent_reply_invalid(r, "path", "task_id",
                                            "has had all the steps that its "
                                            "agent allows (max_steps); "
                                            "create a new task");

    default: /* NGX_AGENT_BEGIN_NO_TASK */
        return ngx_http_agent_reply_unknown(r, "task", &web->route.task);
    }
}


static void
ngx_http_agent_step_wait(ngx_http_agent_wait_t *wait, ngx_agent_live_t *live)
{
    ngx_http_request_t    *r;
    ngx_http_agent_ctx_t  *ctx;

    r = wait->web->request;
    ctx = wait->web->ctx;

    if (live->agent) {
        ctx->agent = live->agent->name;
    }

    ctx->step_id = live->step.id;
    ctx->has_step = 1;

    wait->watch.handler = ngx_http_agent_step_ended;
    wait->watch.data = wait;

    ngx_agent_step_watch(live, &wait->watch);

    wait->post = NULL;
    ngx_http_agent_step_pool(wait);
    ngx_http_agent_body_free(r);

    r->connection->log->action = "waiting for the agent's step";

    if (ngx_http_agent_step_listen(r) != NGX_OK) {
        ngx_http_agent_finalize(r, NGX_ERROR);
    }
}


/*
 * From now on a client that leaves is noticed, as nginx does it for its
 * upstreams.  A subrequest does not listen: its main request does.
 */

static ngx_int_t
ngx_http_agent_step_listen(ngx_http_request_t *r)
{
    ngx_event_t  *rev;

    if (r != r->main) {
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
ngx_http_agent_step_ended(ngx_agent_watch_t *w, ngx_agent_live_t *live)
{
    ngx_http_agent_wait_t  *wait = w->data;

    ngx_http_request_t  *r;

    r = wait->web->request;

    ngx_http_set_log_request(r->connection->log, r);

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "agent web: step ended, status %d",
                   (int) live->step.status);

    ngx_http_agent_finalize(r, ngx_http_agent_step_result(wait, live));
}


static ngx_int_t
ngx_http_agent_step_result(ngx_http_agent_wait_t *wait,
    ngx_agent_live_t *live)
{
    ngx_agent_step_t       step;
    ngx_http_request_t    *r;
    ngx_http_agent_web_t  *web;

    web = wait->web;
    r = web->request;

    if (live->fenced) {
        return ngx_http_agent_reply_later(r, NGX_HTTP_CONFLICT,
                                          "another worker has taken this "
                                          "step over; list the task's steps "
                                          "to see its end");
    }

    if (live->lost) {
        return ngx_http_agent_reply_later(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                          "the step's end could not be "
                                          "saved; list the task's steps to "
                                          "see what became of it");
    }

    if (live->step.status == NGX_AGENT_STEP_FAILED) {
        return ngx_http_agent_step_failed(web, live);
    }

    step = live->step;

    if (step.redacted && step.input.data) {
        /* the run has the secret itself, the row has not */
        ngx_str_set(&step.input, "[redacted]");
    }

    return ngx_http_agent_step_reply(web, &step);
}


/* So that no client takes it for success: the official ones raise on a 5xx. */

static ngx_int_t
ngx_http_agent_step_failed(ngx_http_agent_web_t *web, ngx_agent_live_t *live)
{
    u_char            buf[NGX_HTTP_AGENT_REASON + 64];
    ngx_str_t         message, reason;
    ngx_uint_t        status;
    ngx_agent_json_t  j;

    ngx_http_agent_step_note(web, &live->step);

    if (live->agent == NULL) {
        /* the operator took it away; nothing behind us has failed */
        status = NGX_HTTP_SERVICE_UNAVAILABLE;

    } else {
        status = live->timed_out ? NGX_HTTP_GATEWAY_TIME_OUT
                                 : NGX_HTTP_BAD_GATEWAY;
    }

    reason = live->error;
    reason.len = ngx_http_agent_step_clip(&reason, NGX_HTTP_AGENT_REASON);

    message.data = buf;
    message.len = ngx_slprintf(buf, buf + sizeof(buf),
                               "the step failed%s%V; post a new one to try "
                               "again", reason.len ? ": " : "", &reason)
                  - buf;

    ngx_agent_json_init(&j, web->request->pool, message.len + 192);

    ngx_agent_json_object(&j);
    ngx_agent_json_key(&j, "message");
    ngx_agent_json_string(&j, &message);
    ngx_agent_json_key(&j, "task_id");
    ngx_agent_json_id(&j, &live->step.task_id);
    ngx_agent_json_key(&j, "step_id");
    ngx_agent_json_id(&j, &live->step.id);
    ngx_agent_json_object_end(&j);

    return ngx_http_agent_reply_json(web->request, status, &j);
}


/* how much of UTF-8 text fits into max bytes with no character cut */

static size_t
ngx_http_agent_step_clip(ngx_str_t *text, size_t max)
{
    size_t  len;

    if (text->len <= max) {
        return text->len;
    }

    for (len = max; len && (text->data[len] & 0xc0) == 0x80; len--) {
        /* void */
    }

    return len;
}


static void
ngx_http_agent_step_pool(ngx_http_agent_wait_t *wait)
{
    if (wait->pool) {
        ngx_destroy_pool(wait->pool);
        wait->pool = NULL;
    }
}


/* The request ends before the step: the step goes on and is stored. */

static void
ngx_http_agent_step_cancel(ngx_http_agent_web_t *web)
{
    ngx_http_agent_wait_t  *wait = web->op;

    if (wait->post) {
        ngx_agent_step_post_detach(wait->post);
        wait->post = NULL;
    }

    if (wait->watch.active) {
        ngx_log_debug0(NGX_LOG_DEBUG_HTTP, web->request->connection->log, 0,
                       "agent web: the client left, its step goes on");

        ngx_agent_step_unwatch(&wait->watch);
    }

    ngx_http_agent_step_pool(wait);
}
