
/*
 * A run: one step, from the history to its end.  Here is the state machine;
 * ngx_http_agent_dialect.h lists the moves.  What is said to the agent is the
 * dialect's, a single call to it is in ngx_http_agent_attempt.c.
 *
 * A run ends by an event, never from inside a filter or the function that
 * started it: live is freed by its end.
 */

#include "ngx_http_agent_dialect.h"
#include "ngx_agent_blob.h"
#include "ngx_agent_id.h"
#include "ngx_agent_json.h"


#define NGX_HTTP_AGENT_RUN_PAUSE       500      /* ms, doubled each time */
#define NGX_HTTP_AGENT_RUN_PAUSE_MAX   30000


static void ngx_http_agent_run_move(ngx_http_agent_run_t *run,
    ngx_http_agent_run_state_e to);
static ngx_int_t ngx_http_agent_run_ask_history(ngx_http_agent_run_t *run);
static void ngx_http_agent_run_history(ngx_agent_store_call_t *call);
static ngx_int_t ngx_http_agent_run_build(ngx_http_agent_run_t *run,
    ngx_array_t *history);
static void ngx_http_agent_run_call(ngx_http_agent_run_t *run);
static void ngx_http_agent_run_timer(ngx_event_t *ev);
static void ngx_http_agent_run_again(ngx_http_agent_run_t *run,
    ngx_uint_t retry);
static ngx_msec_t ngx_http_agent_run_pause(ngx_http_agent_run_t *run);
static void ngx_http_agent_run_fail(ngx_http_agent_run_t *run);
static void ngx_http_agent_run_end(ngx_event_t *ev);
static void ngx_http_agent_run_release(ngx_http_agent_run_t *run);
static void ngx_http_agent_run_watch(ngx_agent_watch_t *w,
    ngx_agent_live_t *live);
static void ngx_http_agent_run_drop_blobs(ngx_agent_live_t *live);


/* all runs of this worker, for its exit */

static ngx_queue_t  ngx_http_agent_runs = {
    &ngx_http_agent_runs, &ngx_http_agent_runs
};


ngx_int_t
ngx_http_agent_run_start(ngx_agent_live_t *live)
{
    ngx_http_agent_run_t  *run;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, live->log, 0,
                   "agent run: start, seq:%ui", live->step.seq);

    run = ngx_pcalloc(live->pool, sizeof(ngx_http_agent_run_t));
    if (run == NULL) {
        goto failed;
    }

    run->live = live;
    run->dialect = &ngx_http_agent_openai;
    run->state = NGX_HTTP_AGENT_RUN_HISTORY;

    run->timer.handler = ngx_http_agent_run_timer;
    run->timer.data = run;
    run->timer.log = live->log;

    run->event.handler = ngx_http_agent_run_end;
    run->event.data = run;
    run->event.log = live->log;

    if (live->step.seq > 1) {
        switch (ngx_http_agent_run_ask_history(run)) {

        case NGX_AGAIN:
            break;

        case NGX_ABORT:
            ngx_str_set(&live->error, "the history of the task could not be "
                        "read: the database is not reachable; try again");
            return NGX_ERROR;

        default:
            goto failed;
        }

    } else if (ngx_http_agent_run_build(run, NULL) != NGX_OK) {
        goto failed;
    }

    live->run = run;

    ngx_queue_insert_tail(&ngx_http_agent_runs, &run->queue);

    run->watch.handler = ngx_http_agent_run_watch;
    run->watch.data = run;

    if (run->call == NULL) {
        ngx_http_agent_run_call(run);
    }

    return NGX_OK;

failed:

    ngx_str_set(&live->error, "the server had no memory for the step; "
                "try again");
    return NGX_ERROR;
}


static void
ngx_http_agent_run_move(ngx_http_agent_run_t *run,
    ngx_http_agent_run_state_e to)
{
    /* bit n of each: state n may follow */

    static const unsigned  moves[] = {
        1u << NGX_HTTP_AGENT_RUN_CALL | 1u << NGX_HTTP_AGENT_RUN_END,
        1u << NGX_HTTP_AGENT_RUN_BACKOFF | 1u << NGX_HTTP_AGENT_RUN_ACT
            | 1u << NGX_HTTP_AGENT_RUN_END,
        1u << NGX_HTTP_AGENT_RUN_CALL | 1u << NGX_HTTP_AGENT_RUN_END,
        1u << NGX_HTTP_AGENT_RUN_END,
        0
    };

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, run->live->log, 0,
                   "agent run: state %d -> %d", run->state, to);

    if (!(moves[run->state] & (1u << to))) {
        ngx_log_error(NGX_LOG_ERR, run->live->log, 0,
                      "agent run: illegal move from state %d to %d",
                      run->state, to);
        return;
    }

    run->state = to;

    if (to == NGX_HTTP_AGENT_RUN_END) {
        ngx_post_event(&run->event, &ngx_posted_events);
    }
}


static ngx_int_t
ngx_http_agent_run_ask_history(ngx_http_agent_run_t *run)
{
    ngx_int_t                rc;
    ngx_agent_live_t        *live;
    ngx_agent_store_call_t  *call;

    live = run->live;

    run->history = ngx_create_pool(4096, live->log);
    if (run->history == NULL) {
        return NGX_ERROR;
    }

    call = ngx_pcalloc(run->history, sizeof(ngx_agent_store_call_t));
    if (call == NULL) {
        rc = NGX_ERROR;
        goto failed;
    }

    call->pool = run->history;
    call->log = live->log;
    call->handler = ngx_http_agent_run_history;
    call->data = run;
    call->tenant = live->tenant;
    call->task = &live->task;
    call->step = &live->step;

    rc = ngx_agent_store_history(call);

    if (rc == NGX_AGAIN) {
        run->call = call;
        return NGX_AGAIN;
    }

failed:

    ngx_destroy_pool(run->history);
    run->history = NULL;

    return rc;
}


static void
ngx_http_agent_run_history(ngx_agent_store_call_t *call)
{
    ngx_int_t              rc;
    ngx_pool_t            *pool;
    ngx_http_agent_run_t  *run;

    run = call->data;
    run->call = NULL;

    rc = call->rc;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, run->live->log, 0,
                   "agent run: history, rc:%i", rc);

    if (rc == NGX_OK) {
        rc = ngx_http_agent_run_build(run, call->list);

        if (rc != NGX_OK) {
            ngx_http_agent_run_reason(run, "no memory", "the server had no "
                                      "memory for the task's history");
        }

    } else {
        ngx_http_agent_run_reason(run, "the history could not be read",
                                  "the history of the task could not be read "
                                  "from the database; try again");
    }

    /* the texts are in the body now; the call was in this pool, too */

    pool = run->history;
    run->history = NULL;
    ngx_destroy_pool(pool);

    if (rc != NGX_OK) {
        ngx_http_agent_run_fail(run);
        return;
    }

    ngx_http_agent_run_call(run);
}


/* The body is built in a pool that goes at once, and kept at its own size. */

static ngx_int_t
ngx_http_agent_run_build(ngx_http_agent_run_t *run, ngx_array_t *history)
{
    ngx_int_t    rc;
    ngx_str_t    body;
    ngx_pool_t  *pool;

    pool = ngx_create_pool(4096, run->live->log);
    if (pool == NULL) {
        return NGX_ERROR;
    }

    rc = run->dialect->build(run, pool, history, &body, &run->tail);

    if (rc == NGX_OK) {
        run->body.data = ngx_alloc(body.len, run->live->log);

        if (run->body.data == NULL) {
            rc = NGX_ERROR;

        } else {
            ngx_memcpy(run->body.data, body.data, body.len);
            run->body.len = body.len;
        }
    }

    ngx_destroy_pool(pool);

    return rc;
}


static void
ngx_http_agent_run_call(ngx_http_agent_run_t *run)
{
    ngx_http_agent_run_move(run, NGX_HTTP_AGENT_RUN_CALL);

    if (ngx_http_agent_attempt_start(run) != NGX_OK) {
        ngx_http_agent_run_again(run, 1);
    }
}


static void
ngx_http_agent_run_timer(ngx_event_t *ev)
{
    ngx_http_agent_run_t *run = ev->data;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, run->live->log, 0,
                   "agent run: timer in state %d", run->state);

    if (run->state == NGX_HTTP_AGENT_RUN_BACKOFF) {
        ngx_http_agent_run_call(run);
        return;
    }

    run->silent = 1;

    ngx_http_agent_run_called(run);
}


/* The call is over: it has ended by itself, or the timer has fired. */

void
ngx_http_agent_run_called(void *data)
{
    ngx_http_agent_run_t *run = data;

    ngx_int_t   rc;
    ngx_uint_t  retry;

    if (run->timer.timer_set) {
        ngx_del_timer(&run->timer);
    }

    ngx_http_agent_fake_close(run->fake);
    run->fake = NULL;

    /* also after silence: an endpoint may forget to end a whole answer */

    if (run->answer && !run->nomem) {
        rc = run->full ? NGX_DECLINED : run->dialect->finish(run);

        if (rc == NGX_OK) {
            ngx_free(run->body.data);
            ngx_str_null(&run->body);

            ngx_http_agent_run_move(run, NGX_HTTP_AGENT_RUN_ACT);

            rc = run->dialect->act(run);

            if (rc != NGX_AGAIN) {
                ngx_http_agent_run_acted(run, rc);
            }

            return;
        }

        if (rc == NGX_ERROR) {
            run->nomem = 1;
        }
    }

    retry = ngx_http_agent_attempt_failure(run);

    ngx_http_agent_run_again(run, retry);
}


/* A call has failed: the next one after a pause, or the end of the step. */

static void
ngx_http_agent_run_again(ngx_http_agent_run_t *run, ngx_uint_t retry)
{
    u_char             id[NGX_AGENT_ID_LEN];
    ngx_msec_t         pause;
    ngx_agent_live_t  *live;

    live = run->live;

    if (run->pool) {
        ngx_destroy_pool(run->pool);
        run->pool = NULL;
        run->answer = NULL;
    }

    if (!retry || run->attempt >= live->agent->attempts) {
        ngx_http_agent_run_fail(run);
        return;
    }

    pause = ngx_http_agent_run_pause(run);

    ngx_agent_id_print(id, &live->step.id);

    ngx_log_error(NGX_LOG_WARN, live->log, 0,
                  "agent run: attempt %ui of %ui failed: %s, status %ui, the "
                  "next one in %M ms, agent: \"%V\", step: %*s",
                  run->attempt, live->agent->attempts, run->what, run->status,
                  pause, &live->agent->name, (size_t) NGX_AGENT_ID_LEN, id);

    ngx_http_agent_run_move(run, NGX_HTTP_AGENT_RUN_BACKOFF);

    ngx_add_timer(&run->timer, pause);
}


/*
 * 0.5 s, 1 s, 2 s ... and up to a quarter more, so that the runs that failed
 * together do not come back together.  Retry-After is a least time.
 */

static ngx_msec_t
ngx_http_agent_run_pause(ngx_http_agent_run_t *run)
{
    ngx_uint_t  n;
    ngx_msec_t  pause;

    n = ngx_min(run->attempt - 1, 10);

    pause = ngx_min((ngx_msec_t) NGX_HTTP_AGENT_RUN_PAUSE << n,
                    NGX_HTTP_AGENT_RUN_PAUSE_MAX);

    pause = ngx_max(pause, run->retry_after);

    return pause + (ngx_msec_t) ngx_random() % (pause / 4);
}


/* The step ends as failed, for run->reason. */

static void
ngx_http_agent_run_fail(ngx_http_agent_run_t *run)
{
    u_char             id[NGX_AGENT_ID_LEN];
    ngx_agent_json_t   j;
    ngx_agent_live_t  *live;

    live = run->live;

    if (run->reason.len == 0) {
        ngx_str_set(&run->reason, "the step failed and the server had no "
                    "memory to say why");
    }

    live->error = run->reason;
    live->timed_out = run->timed_out;

    live->step.is_last = 0;
    live->step.secret = 0;
    ngx_str_null(&live->step.name);
    ngx_str_null(&live->step.output);
    ngx_str_null(&live->step.turns);
    ngx_str_null(&live->step.artifacts);
    ngx_str_null(&live->step.additional_output);

    ngx_http_agent_run_drop_blobs(live);

    ngx_agent_json_init(&j, live->pool, 128 + run->reason.len);
    ngx_agent_json_object(&j);
    ngx_agent_json_key(&j, "error");
    ngx_agent_json_string(&j, &run->reason);
    ngx_agent_json_key(&j, "attempts");
    ngx_agent_json_int(&j, run->attempt);

    if (run->status) {
        ngx_agent_json_key(&j, "upstream_status");
        ngx_agent_json_int(&j, run->status);
    }

    ngx_agent_json_object_end(&j);

    if (ngx_agent_json_done(&j, &live->step.additional_output) != NGX_OK) {
        ngx_str_null(&live->step.additional_output);
    }

    (void) ngx_agent_step_move(&live->step, NGX_AGENT_STEP_FAILED, live->log);

    ngx_agent_id_print(id, &live->step.id);

    ngx_log_error(NGX_LOG_ERR, live->log, 0,
                  "agent run: failed after attempt %ui of %ui: %s, status "
                  "%ui, agent: \"%V\", step: %*s",
                  run->attempt, live->agent->attempts, run->what, run->status,
                  &live->agent->name, (size_t) NGX_AGENT_ID_LEN, id);

    ngx_http_agent_run_move(run, NGX_HTTP_AGENT_RUN_END);
}


void
ngx_http_agent_run_acted(ngx_http_agent_run_t *run, ngx_int_t rc)
{
    if (rc != NGX_OK) {
        run->timed_out = 0;
        ngx_http_agent_run_fail(run);
        return;
    }

    if (run->live->artifacts) {

        /* if another attempt owns the step by now, these are nobody's */

        ngx_agent_step_watch(run->live, &run->watch);
    }

    ngx_http_agent_run_move(run, NGX_HTTP_AGENT_RUN_END);
}


static void
ngx_http_agent_run_end(ngx_event_t *ev)
{
    ngx_agent_live_t      *live;
    ngx_http_agent_run_t  *run;

    run = ev->data;
    live = run->live;

    ngx_http_agent_run_release(run);

    ngx_agent_step_end(live);
}


/* Whatever the run still holds outside of live->pool. */

static void
ngx_http_agent_run_release(ngx_http_agent_run_t *run)
{
    ngx_queue_remove(&run->queue);

    if (run->timer.timer_set) {
        ngx_del_timer(&run->timer);
    }

    if (run->event.posted) {
        ngx_delete_posted_event(&run->event);
    }

    if (run->call) {
        ngx_agent_store_detach(run->call);
        run->call = NULL;
    }

    if (run->history) {
        ngx_destroy_pool(run->history);
        run->history = NULL;
    }

    if (run->pool) {
        ngx_destroy_pool(run->pool);
        run->pool = NULL;
    }

    if (run->body.data) {
        ngx_free(run->body.data);
        ngx_str_null(&run->body);
    }

    run->live->run = NULL;
}


static void
ngx_http_agent_run_watch(ngx_agent_watch_t *w, ngx_agent_live_t *live)
{
    if (live->fenced) {
        ngx_http_agent_run_drop_blobs(live);
    }

    /*
     * Not when the end was lost: the database may have it all the same, and
     * a blob too many is better than a row without one.
     */
}


static void
ngx_http_agent_run_drop_blobs(ngx_agent_live_t *live)
{
    ngx_uint_t             i;
    ngx_agent_artifact_t  *artifact;

    if (live->artifacts == NULL) {
        return;
    }

    artifact = live->artifacts->elts;

    for (i = 0; i < live->artifacts->nelts; i++) {
        ngx_agent_blob_delete(&artifact[i].id, live->log);
    }

    live->artifacts = NULL;
}


void
ngx_http_agent_run_reason(ngx_http_agent_run_t *run, const char *what,
    const char *fmt, ...)
{
    u_char   *p, *last;
    va_list   args;

    run->what = what;
    ngx_str_null(&run->reason);

    p = ngx_pnalloc(run->live->pool, NGX_HTTP_AGENT_RUN_REASON);
    if (p == NULL) {
        return;
    }

    va_start(args, fmt);
    last = ngx_vslprintf(p, p + NGX_HTTP_AGENT_RUN_REASON, fmt, args);
    va_end(args);

    run->reason.data = p;
    run->reason.len = last - p;
}


void
ngx_http_agent_run_exit(ngx_cycle_t *cycle)
{
    ngx_queue_t           *q;
    ngx_http_agent_run_t  *run;

    while (!ngx_queue_empty(&ngx_http_agent_runs)) {
        q = ngx_queue_head(&ngx_http_agent_runs);
        run = ngx_queue_data(q, ngx_http_agent_run_t, queue);

        if (run->fake) {
            ngx_http_agent_fake_abandon(run->fake);
            run->fake = NULL;
        }

        if (run->state == NGX_HTTP_AGENT_RUN_ACT
            && !run->dialect->drop(run))
        {
            run->pool = NULL;
        }

        ngx_http_agent_run_release(run);
    }
}
