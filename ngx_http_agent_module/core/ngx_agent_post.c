
/*
 * Asking for a step: the store judges the wish, and the step begins here, or
 * waits in the queue, or was there before, or cannot be.  What happens to a
 * step that is ours is in ngx_agent_step.c.
 */

#include "ngx_agent_step.h"
#include "ngx_agent_id.h"
#include <ngx_event.h>


/* ms beyond the store's own limit until the asker is not kept waiting */
#define NGX_AGENT_POST_LATE  500


static ngx_int_t ngx_agent_post_call(ngx_agent_post_t *post,
    ngx_agent_live_t *live);
static ngx_int_t ngx_agent_post_key(ngx_agent_store_call_t *call,
    ngx_str_t *dst, ngx_str_t *src);
static void ngx_agent_post_late(ngx_event_t *ev);
static void ngx_agent_post_begun(ngx_agent_store_call_t *call);
static ngx_int_t ngx_agent_post_keep(ngx_agent_live_t *live);
static void ngx_agent_post_refused(ngx_agent_live_t *live);
static void ngx_agent_post_quota(ngx_agent_post_t *post,
    ngx_agent_store_call_t *call);
static void ngx_agent_post_tell(ngx_agent_live_t *live, ngx_int_t rc,
    ngx_agent_begin_e begin);
static void ngx_agent_post_read(ngx_agent_post_t *post);
static void ngx_agent_post_read_handler(ngx_agent_store_call_t *call);


static const ngx_agent_core_conf_t  *ngx_agent_post_conf;


void
ngx_agent_post_init(const ngx_agent_core_conf_t *conf)
{
    ngx_agent_post_conf = conf;
}


ngx_int_t
ngx_agent_step_post(ngx_agent_post_t *post)
{
    ngx_uint_t         slot;
    ngx_agent_live_t  *live;

    slot = ngx_agent_queue_take();

    if (!slot && ngx_agent_queue_is_full()) {
        return NGX_BUSY;
    }

    ngx_agent_id_create(&post->step.id);
    post->step.task_id = post->task.id;

    live = ngx_agent_live_create(&post->tenant, &post->task, &post->step);
    if (live == NULL) {
        if (slot) {
            ngx_agent_queue_give();
        }

        return NGX_ABORT;
    }

    live->slot = slot;

    if (ngx_agent_post_call(post, live) != NGX_AGAIN) {
        ngx_agent_live_free(live);
        return NGX_ABORT;
    }

    live->post = post;
    post->begun = live;

    /* what was sent is not given up, but nobody has to wait for it */

    live->event.handler = ngx_agent_post_late;
    ngx_add_timer(&live->event,
                  ngx_agent_post_conf->wait + NGX_AGENT_POST_LATE);

    return NGX_AGAIN;
}


static ngx_int_t
ngx_agent_post_call(ngx_agent_post_t *post, ngx_agent_live_t *live)
{
    ngx_agent_store_call_t  *call;

    call = ngx_agent_live_call(live, ngx_agent_post_begun);
    if (call == NULL) {
        return NGX_ABORT;
    }

    call->queue = !live->slot;
    call->watched = !post->async;
    call->refuse = ngx_agent_queue_is_full();

    /* the call may outlive the asker */

    if (ngx_agent_post_key(call, &call->key, &post->key) != NGX_OK
        || ngx_agent_post_key(call, &call->print, &post->print) != NGX_OK)
    {
        return NGX_ABORT;
    }

    ngx_agent_queue_full_agents(call->pool, &call->full);

    return ngx_agent_store_begin_step(call);
}


static ngx_int_t
ngx_agent_post_key(ngx_agent_store_call_t *call, ngx_str_t *dst,
    ngx_str_t *src)
{
    if (src->data == NULL) {
        return NGX_OK;
    }

    dst->len = src->len;
    dst->data = ngx_pstrdup(call->pool, src);

    return dst->data ? NGX_OK : NGX_ERROR;
}


void
ngx_agent_step_post_detach(ngx_agent_post_t *post)
{
    if (post->begun) {
        post->begun->post = NULL;
        post->begun = NULL;
    }

    ngx_agent_store_detach(&post->call);
}


static void
ngx_agent_post_late(ngx_event_t *ev)
{
    ngx_agent_live_t  *live;

    live = ev->data;
    ngx_agent_post_tell(live, NGX_ABORT, NGX_AGENT_BEGIN_OK);
}


static void
ngx_agent_post_begun(ngx_agent_store_call_t *call)
{
    ngx_agent_live_t  *live;

    live = call->data;

    if (live->event.timer_set) {
        ngx_del_timer(&live->event);
    }

    if (call->rc != NGX_OK || call->begin != NGX_AGENT_BEGIN_OK) {
        ngx_agent_post_refused(live);
        return;
    }

    ngx_agent_stat_add(STEPS, 1);

    if (ngx_agent_post_keep(live) != NGX_OK) {
        /* its lease will lapse */
        ngx_agent_post_tell(live, NGX_ABORT, NGX_AGENT_BEGIN_OK);
        ngx_agent_live_free(live);
        return;
    }

    ngx_agent_live_call_done(live);

    if (ngx_agent_step_ours(live)) {

        /* the run starts from an event: first whoever asked may watch it */
        ngx_agent_post_tell(live, NGX_OK, NGX_AGENT_BEGIN_OK);
        return;
    }

    live->watched = (live->post && !live->post->async);

    ngx_agent_post_tell(live, NGX_OK, NGX_AGENT_BEGIN_QUEUED);
    ngx_agent_step_leave(live, 0, 1);
}


/* what the call has found out stays longer than the call */

static ngx_int_t
ngx_agent_post_keep(ngx_agent_live_t *live)
{
    ngx_str_t  agent, input, parent;

    agent = live->task.agent;
    input = live->task.input;
    parent = live->step.traceparent;

    live->agent = ngx_agent_agent_find(&agent);

    if (live->agent) {
        live->task.agent = live->agent->name;

    } else if (ngx_agent_live_dup(live, &live->task.agent, &agent) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_agent_live_dup(live, &live->step.traceparent, &parent) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_agent_live_dup(live, &live->task.input, &input);
}


/* it is in the queue, or it was there before, or it cannot be */

static void
ngx_agent_post_refused(ngx_agent_live_t *live)
{
    ngx_int_t                rc;
    ngx_agent_begin_e        begin;
    ngx_agent_store_call_t  *call;

    call = live->call;
    rc = call->rc;
    begin = call->begin;

    if (rc == NGX_OK && begin == NGX_AGENT_BEGIN_QUEUED) {
        ngx_agent_stat_add(STEPS, 1);
        ngx_agent_stat_add(QUEUED, 1);
        ngx_agent_queue_news(&live->task.agent, &live->tenant, 0);
    }

    if (rc == NGX_OK && begin == NGX_AGENT_BEGIN_BUSY && call->lapsed) {
        ngx_agent_tick_sweep();
    }

    if (live->post && begin == NGX_AGENT_BEGIN_QUOTA) {
        ngx_agent_post_quota(live->post, call);
    }

    ngx_agent_post_tell(live, rc, begin);
    ngx_agent_live_free(live);
}


/* which limit it was stays longer than the call */

static void
ngx_agent_post_quota(ngx_agent_post_t *post, ngx_agent_store_call_t *call)
{
    post->quota = call->quota;

    post->quota_max.data = ngx_pstrdup(post->pool, &call->quota_max);
    post->quota_max.len = post->quota_max.data ? call->quota_max.len : 0;
}


/* tells the asker, if there still is one, how it went */

static void
ngx_agent_post_tell(ngx_agent_live_t *live, ngx_int_t rc,
    ngx_agent_begin_e begin)
{
    ngx_agent_post_t   *post;
    ngx_agent_agent_t  *agent;

    post = live->post;
    live->post = NULL;

    if (post == NULL) {
        return;
    }

    post->begun = NULL;
    post->rc = rc;
    post->begin = begin;

    if (rc == NGX_OK) {
        post->step.id = live->step.id;
        post->step.seq = live->step.seq;
        post->step.attempt = live->step.attempt;
        post->step.redacted = live->step.redacted;
        post->step.status = live->step.status;

        /* of a step that is run elsewhere nobody has looked for it */

        agent = live->agent ? live->agent
                            : ngx_agent_agent_find(&live->task.agent);

        if (agent) {
            post->task.agent = agent->name;
        }

        if (begin == NGX_AGENT_BEGIN_FINISHED
            || begin == NGX_AGENT_BEGIN_REPLAY)
        {
            ngx_agent_post_read(post);
            return;
        }
    }

    post->handler(post);
}


/* the last step of a finished task, or the one a key has made: whole */

static void
ngx_agent_post_read(ngx_agent_post_t *post)
{
    ngx_agent_id_t  id;

    id = post->step.id;
    ngx_memzero(&post->step, sizeof(ngx_agent_step_t));
    post->step.id = id;
    post->step.task_id = post->task.id;

    ngx_memzero(&post->call, sizeof(ngx_agent_store_call_t));
    post->call.pool = post->pool;
    post->call.log = post->log;
    post->call.handler = ngx_agent_post_read_handler;
    post->call.data = post;
    post->call.tenant = post->tenant;
    post->call.step = &post->step;

    post->rc = ngx_agent_store_get_step(&post->call);

    if (post->rc != NGX_AGAIN) {
        post->handler(post);
    }
}


static void
ngx_agent_post_read_handler(ngx_agent_store_call_t *call)
{
    ngx_agent_post_t  *post;

    post = call->data;

    post->rc = call->rc;

    if (call->rc == NGX_DECLINED) {
        /* the task was removed in this moment */
        post->rc = NGX_OK;
        post->begin = NGX_AGENT_BEGIN_NO_TASK;
    }

    post->handler(post);
}
