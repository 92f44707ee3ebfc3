
/*
 * Posting a step: the body is read, the wish is told to core/, and then the
 * client waits as for any step (ngx_http_agent_wait.c), or does not.
 *
 *   ASKING -> waiting    the step is begun, or stored for whoever is free
 *   ASKING -> over       nothing was begun: the client is told why
 *   ASKING -> over       ... or it was, and the client prefers not to wait
 *   any -> over          the client left: let go; the step goes on
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_agent_body.h"
#include "ngx_http_agent_headers.h"
#include "ngx_http_agent_print.h"
#include "ngx_http_agent_reply.h"
#include "ngx_http_agent_steps.h"
#include "ngx_http_agent_wait.h"


static ngx_int_t ngx_http_agent_step_body(ngx_http_agent_web_t *web);
static ngx_int_t ngx_http_agent_step_ask(ngx_http_agent_wait_t *wait);
static ngx_agent_post_t *ngx_http_agent_step_wish(ngx_http_agent_wait_t *wait,
    ngx_int_t *rc);
static ngx_int_t ngx_http_agent_step_key(ngx_http_agent_wait_t *wait,
    ngx_agent_post_t *post, ngx_http_agent_body_t *body, ngx_int_t *rc);
static void ngx_http_agent_step_prefer(ngx_http_agent_wait_t *wait,
    ngx_agent_post_t *post);
static void ngx_http_agent_step_asked(ngx_agent_post_t *post);
static ngx_int_t ngx_http_agent_step_begun(ngx_http_agent_wait_t *wait);
static ngx_int_t ngx_http_agent_step_refused(ngx_http_agent_wait_t *wait);


ngx_int_t
ngx_http_agent_step_create(ngx_http_agent_web_t *web)
{
    return ngx_http_agent_body_read(web, ngx_http_agent_step_body);
}


static ngx_int_t
ngx_http_agent_step_body(ngx_http_agent_web_t *web)
{
    ngx_int_t               rc;
    ngx_http_agent_wait_t  *wait;

    wait = ngx_http_agent_wait_create(web);
    if (wait == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    wait->posted = 1;

    rc = ngx_http_agent_step_ask(wait);

    if (rc != NGX_DONE) {
        ngx_http_agent_wait_pool(wait);
    }

    return rc;
}


static ngx_int_t
ngx_http_agent_step_ask(ngx_http_agent_wait_t *wait)
{
    ngx_int_t            rc;
    ngx_agent_post_t    *post;
    ngx_http_request_t  *r;

    r = wait->web->request;

    post = ngx_http_agent_step_wish(wait, &rc);
    if (post == NULL) {
        return rc;
    }

    switch (ngx_agent_step_post(post)) {

    case NGX_AGAIN:
        break;

    case NGX_BUSY:
        return ngx_http_agent_reply_full(r);

    default:
        return ngx_http_agent_reply_store(r, NGX_ABORT);
    }

    wait->post = post;

    r->connection->log->action = "waiting for the agent database";

    r->main->count++;
    ngx_http_agent_hold(r);

    return NGX_DONE;
}


/* NULL: the client has been answered, *rc is the code to return */

static ngx_agent_post_t *
ngx_http_agent_step_wish(ngx_http_agent_wait_t *wait, ngx_int_t *rc)
{
    ngx_agent_post_t       *post;
    ngx_http_agent_web_t   *web;
    ngx_http_agent_body_t   body;

    web = wait->web;

    if (ngx_http_agent_body_parse(web, wait->pool, &body, rc) != NGX_OK) {
        return NULL;
    }

    post = ngx_pcalloc(wait->pool, sizeof(ngx_agent_post_t));
    if (post == NULL) {
        *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
        return NULL;
    }

    post->pool = wait->pool;
    post->log = web->request->connection->log;
    post->handler = ngx_http_agent_step_asked;
    post->data = wait;
    post->tenant = web->tenant;
    post->task.id = web->ctx->task_id;
    post->step.task_id = web->ctx->task_id;
    post->step.input = body.input;
    post->step.additional_input = body.additional_input;

    if (ngx_http_agent_traceparent(web->request, post->pool,
                                   &post->step.traceparent)
        != NGX_OK)
    {
        *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
        return NULL;
    }

    if (ngx_http_agent_step_key(wait, post, &body, rc) != NGX_OK) {
        return NULL;
    }

    ngx_http_agent_step_prefer(wait, post);

    return post;
}


static ngx_int_t
ngx_http_agent_step_key(ngx_http_agent_wait_t *wait, ngx_agent_post_t *post,
    ngx_http_agent_body_t *body, ngx_int_t *rc)
{
    static ngx_str_t  kind = ngx_string("step");

    ngx_str_t                task;
    ngx_http_request_t      *r;
    ngx_http_agent_print_t  *print;

    r = wait->web->request;

    if (ngx_http_agent_key(r, post->pool, &post->key, rc) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (post->key.data == NULL) {
        return NGX_OK;
    }

    *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;

    print = ngx_http_agent_print_create(post->pool);
    if (print == NULL) {
        return NGX_DECLINED;
    }

    task.data = post->task.id.bytes;
    task.len = sizeof(post->task.id.bytes);

    ngx_http_agent_print_field(print, &kind);
    ngx_http_agent_print_field(print, &task);
    ngx_http_agent_print_field(print, &body->text);

    return ngx_http_agent_print_done(print, &post->print);
}


static void
ngx_http_agent_step_prefer(ngx_http_agent_wait_t *wait,
    ngx_agent_post_t *post)
{
    ngx_agent_prefer_t  prefer;

    ngx_http_agent_prefer(wait->web->request, &prefer);

    if (prefer.async) {
        /* no time to wait at all is the same as none being named */
        wait->async = 1;
        wait->limited = 1;
        wait->seconds = prefer.has_wait ? prefer.wait : 0;
    }

    post->async = (wait->limited && wait->seconds == 0);
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

    if (post->rc == NGX_OK
        && (post->begin == NGX_AGENT_BEGIN_OK
            || post->begin == NGX_AGENT_BEGIN_QUEUED
            || post->begin == NGX_AGENT_BEGIN_REPLAY))
    {
        rc = ngx_http_agent_step_begun(wait);

    } else {
        rc = ngx_http_agent_step_refused(wait);
    }

    if (rc != NGX_DONE) {
        ngx_http_agent_wait_pool(wait);
    }

    ngx_http_agent_finalize(r, rc);
}


static ngx_int_t
ngx_http_agent_step_begun(ngx_http_agent_wait_t *wait)
{
    ngx_agent_post_t      *post;
    ngx_agent_agent_t     *agent;
    ngx_http_agent_web_t  *web;

    web = wait->web;
    post = wait->post;

    web->ctx->step_id = post->step.id;
    web->ctx->has_step = 1;

    /* the name in the configuration, as the post's strings go with its pool */

    agent = ngx_agent_agent_find(&post->task.agent);

    if (agent) {
        web->ctx->agent = agent->name;
    }

    if (post->begin == NGX_AGENT_BEGIN_REPLAY
        && ngx_http_agent_key_replayed(web->request) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (post->async) {
        return ngx_http_agent_step_accepted(web, &post->step, 1);
    }

    if (ngx_agent_step_is_ended(&post->step)) {
        return ngx_http_agent_step_end(web, &post->step);
    }

    return ngx_http_agent_wait(wait);
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

    if (post->rc == NGX_BUSY) {
        return ngx_http_agent_reply_full(r);
    }

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
        return ngx_http_agent_step_reply(web, NGX_HTTP_OK, &post->step);

    case NGX_AGENT_BEGIN_FULL:
        return ngx_http_agent_reply_invalid(r, "path", "task_id",
                                            "has had all the steps that its "
                                            "agent allows (max_steps); "
                                            "create a new task");

    case NGX_AGENT_BEGIN_QUOTA:
        return ngx_http_agent_reply_quota(r, post->quota, &post->quota_max);

    case NGX_AGENT_BEGIN_MISMATCH:
        return ngx_http_agent_key_mismatch(r);

    default: /* NGX_AGENT_BEGIN_NO_TASK */
        return ngx_http_agent_reply_unknown(r, "task", &web->route.task);
    }
}
