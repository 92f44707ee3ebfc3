
/*
 * The life of a step: asked for, begun by the store, run by run/, ended.
 * The rules are here; rows are the store's, HTTP is nobody's.
 */

#include "ngx_agent_step.h"
#include "ngx_agent_id.h"
#include "ngx_agent_json.h"
#include <ngx_event.h>


#define NGX_AGENT_STEP_TRIES    8          /* of saving the end of a step */
#define NGX_AGENT_STEP_PAUSE    250        /* ms, doubled each time */


static void ngx_agent_step_begun(ngx_agent_store_call_t *call);
static void ngx_agent_step_tell(ngx_agent_live_t *live, ngx_int_t rc);
static void ngx_agent_step_last(ngx_agent_post_t *post);
static void ngx_agent_step_last_handler(ngx_agent_store_call_t *call);
static void ngx_agent_step_start(ngx_event_t *ev);
static void ngx_agent_step_fail(ngx_agent_live_t *live);
static void ngx_agent_step_save(ngx_agent_live_t *live);
static void ngx_agent_step_saved(ngx_agent_store_call_t *call);
static void ngx_agent_step_retry(ngx_event_t *ev);
static void ngx_agent_step_lost(ngx_agent_live_t *live);


/* the legal moves of a status: ngx_agent_step_moves[from] has bit "to" */

#define TO(status)  (1u << NGX_AGENT_STEP_##status)

static const ngx_uint_t  ngx_agent_step_moves[] = {
    /* CREATED   */  TO(RUNNING) | TO(CANCELLED),
    /* RUNNING   */  TO(COMPLETED) | TO(WAITING) | TO(FAILED) | TO(CANCELLED),
    /* COMPLETED */  0,
    /* WAITING   */  0,
    /* FAILED    */  0,
    /* CANCELLED */  0
};

static ngx_str_t  ngx_agent_step_names[] = {
    ngx_string("created"),
    ngx_string("running"),
    ngx_string("completed"),
    ngx_string("waiting_for_input"),
    ngx_string("failed"),
    ngx_string("cancelled")
};


static ngx_array_t          *ngx_agent_agents;
static ngx_agent_runner_pt   ngx_agent_runner;


ngx_int_t
ngx_agent_core_init(ngx_cycle_t *cycle, ngx_array_t *agents,
    ngx_agent_runner_pt runner)
{
    ngx_agent_agents = agents;
    ngx_agent_runner = runner;

    return ngx_agent_live_init(cycle);
}


void
ngx_agent_core_exit(ngx_cycle_t *cycle)
{
    ngx_agent_live_exit(cycle);
}


ngx_agent_agent_t *
ngx_agent_agent_find(ngx_str_t *name)
{
    ngx_uint_t           i;
    ngx_agent_agent_t  **agent;

    agent = ngx_agent_agents->elts;

    for (i = 0; i < ngx_agent_agents->nelts; i++) {
        if (agent[i]->name.len == name->len
            && ngx_memcmp(agent[i]->name.data, name->data, name->len) == 0)
        {
            return agent[i];
        }
    }

    return NULL;
}


ngx_str_t *
ngx_agent_status_name(ngx_agent_status_e status)
{
    return &ngx_agent_step_names[status];
}


ngx_int_t
ngx_agent_step_move(ngx_agent_step_t *step, ngx_agent_status_e to,
    ngx_log_t *log)
{
    if (!(ngx_agent_step_moves[step->status] & (1u << to))) {
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "agent step: illegal move from \"%V\" to \"%V\"",
                      ngx_agent_status_name(step->status),
                      ngx_agent_status_name(to));
        return NGX_ERROR;
    }

    step->status = to;

    return NGX_OK;
}


ngx_int_t
ngx_agent_step_post(ngx_agent_post_t *post)
{
    ngx_int_t          rc;
    ngx_agent_live_t  *live;

    ngx_agent_id_create(&post->step.id);
    post->step.task_id = post->task.id;

    live = ngx_agent_live_create(post);
    if (live == NULL) {
        return NGX_ABORT;
    }

    live->post = post;
    post->begun = live;
    live->call.pool = live->pool;
    live->call.log = live->log;
    live->call.handler = ngx_agent_step_begun;
    live->call.data = live;
    live->call.tenant = live->tenant;
    live->call.task = &live->task;
    live->call.step = &live->step;

    rc = ngx_agent_store_begin_step(&live->call);

    if (rc != NGX_AGAIN) {
        post->begun = NULL;
        ngx_agent_live_free(live);
    }

    return rc;
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
ngx_agent_step_begun(ngx_agent_store_call_t *call)
{
    ngx_agent_live_t  *live;

    live = call->data;

    if (call->rc != NGX_OK || call->begin != NGX_AGENT_BEGIN_OK) {
        ngx_agent_step_tell(live, call->rc);
        ngx_agent_live_free(live);
        return;
    }

    (void) ngx_agent_step_move(&live->step, NGX_AGENT_STEP_RUNNING,
                               live->log);

    live->agent = ngx_agent_agent_find(&live->task.agent);
    ngx_agent_live_add(live);

    /* the run starts from an event: first whoever asked may watch it */

    live->event.handler = ngx_agent_step_start;
    ngx_post_event(&live->event, &ngx_posted_events);

    ngx_agent_step_tell(live, NGX_OK);
}


/* tells the asker, if there still is one, how the beginning went */

static void
ngx_agent_step_tell(ngx_agent_live_t *live, ngx_int_t rc)
{
    ngx_agent_post_t  *post;

    post = live->post;
    live->post = NULL;

    if (post == NULL) {
        return;
    }

    post->begun = NULL;
    post->rc = rc;
    post->begin = live->call.begin;

    if (rc == NGX_OK && post->begin == NGX_AGENT_BEGIN_OK) {
        post->live = live;

    } else if (rc == NGX_OK && post->begin == NGX_AGENT_BEGIN_FINISHED) {
        post->step.id = live->step.id;
        ngx_agent_step_last(post);
        return;
    }

    post->handler(post);
}


/* a finished task answers with its last step, whole */

static void
ngx_agent_step_last(ngx_agent_post_t *post)
{
    ngx_agent_id_t  id;

    id = post->step.id;
    ngx_memzero(&post->step, sizeof(ngx_agent_step_t));
    post->step.id = id;
    post->step.task_id = post->task.id;

    ngx_memzero(&post->call, sizeof(ngx_agent_store_call_t));
    post->call.pool = post->pool;
    post->call.log = post->log;
    post->call.handler = ngx_agent_step_last_handler;
    post->call.data = post;
    post->call.tenant = post->tenant;
    post->call.step = &post->step;

    post->rc = ngx_agent_store_get_step(&post->call);

    if (post->rc != NGX_AGAIN) {
        post->handler(post);
    }
}


static void
ngx_agent_step_last_handler(ngx_agent_store_call_t *call)
{
    ngx_agent_post_t  *post;

    post = call->data;

    /* it was there a moment ago */
    post->rc = (call->rc == NGX_DECLINED) ? NGX_ERROR : call->rc;
    post->handler(post);
}


static void
ngx_agent_step_start(ngx_event_t *ev)
{
    ngx_agent_live_t  *live;

    live = ev->data;

    if (live->agent == NULL) {
        ngx_log_error(NGX_LOG_ERR, live->log, 0,
                      "agent step: agent \"%V\" of a task is not configured",
                      &live->task.agent);
        ngx_str_set(&live->error, "the agent of this task is not configured "
                                  "on this server any more");
        ngx_agent_step_fail(live);
        return;
    }

    if (ngx_agent_runner(live) != NGX_OK) {

        if (live->error.len == 0) {
            ngx_str_set(&live->error, "the step could not be started");
        }

        ngx_agent_step_fail(live);
    }
}


/* ends a step that never ran; live->error says why */

static void
ngx_agent_step_fail(ngx_agent_live_t *live)
{
    ngx_agent_json_t  j;

    (void) ngx_agent_step_move(&live->step, NGX_AGENT_STEP_FAILED, live->log);

    ngx_agent_json_init(&j, live->pool, 128);
    ngx_agent_json_object(&j);
    ngx_agent_json_key(&j, "error");
    ngx_agent_json_string(&j, &live->error);
    ngx_agent_json_object_end(&j);

    if (ngx_agent_json_done(&j, &live->step.additional_output) != NGX_OK) {
        ngx_str_null(&live->step.additional_output);
    }

    ngx_agent_step_end(live);
}


void
ngx_agent_step_end(ngx_agent_live_t *live)
{
    ngx_log_debug1(NGX_LOG_DEBUG_CORE, live->log, 0,
                   "agent step: ends as \"%V\"",
                   ngx_agent_status_name(live->step.status));

    live->ending = 1;
    live->event.handler = ngx_agent_step_retry;

    ngx_agent_step_save(live);
}


static void
ngx_agent_step_save(ngx_agent_live_t *live)
{
    ngx_agent_store_call_t  *call;

    call = &live->call;

    ngx_memzero(call, sizeof(ngx_agent_store_call_t));
    call->pool = live->pool;
    call->log = live->log;
    call->handler = ngx_agent_step_saved;
    call->data = live;
    call->tenant = live->tenant;
    call->task = &live->task;
    call->step = &live->step;
    call->artifacts = live->artifacts;

    if (live->agent) {
        call->price = live->agent->price;
    }

    if (call->price.len == 0) {
        ngx_str_set(&call->price, "0");
    }

    if (ngx_agent_store_end_step(call) != NGX_AGAIN) {
        ngx_agent_step_lost(live);
    }
}


static void
ngx_agent_step_saved(ngx_agent_store_call_t *call)
{
    ngx_msec_t         pause;
    ngx_agent_live_t  *live;

    live = call->data;

    switch (call->rc) {

    case NGX_OK:
        ngx_agent_live_publish(live);
        return;

    case NGX_DECLINED:
        ngx_log_error(NGX_LOG_WARN, live->log, 0,
                      "agent step: attempt %ui came too late, its result is "
                      "dropped", live->step.attempt);
        live->fenced = 1;
        ngx_agent_live_publish(live);
        return;

    default:
        break;
    }

    /* refused by the database: no room, a trigger; it may yet be mended */

    if (++live->tries >= NGX_AGENT_STEP_TRIES || ngx_terminate) {
        ngx_agent_step_lost(live);
        return;
    }

    pause = NGX_AGENT_STEP_PAUSE << live->tries;

    ngx_log_error(NGX_LOG_WARN, live->log, 0,
                  "agent step: its end could not be saved, try %ui of %d in "
                  "%M ms", live->tries + 1, NGX_AGENT_STEP_TRIES, pause);

    ngx_add_timer(&live->event, pause);
}


static void
ngx_agent_step_retry(ngx_event_t *ev)
{
    ngx_agent_step_save(ev->data);
}


static void
ngx_agent_step_lost(ngx_agent_live_t *live)
{
    ngx_log_error(NGX_LOG_ERR, live->log, 0,
                  "agent step: its end could not be saved, the lease of the "
                  "step will lapse");

    live->lost = 1;
    ngx_agent_live_publish(live);
}
