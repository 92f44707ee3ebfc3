
/*
 * A run: one step, from its start to its end.  Here is the state machine;
 * ngx_http_agent_dialect.h lists the moves.  What is said to the agent is the
 * dialect's, a single call to it is in ngx_http_agent_attempt.c, what is read
 * before the first one in ngx_http_agent_recall.c.
 *
 * core/ is told by an event, never from inside a filter or the function that
 * started the run or went on with it: it may free live then.
 */

#include "ngx_http_agent_dialect.h"
#include "ngx_agent_blob.h"
#include "ngx_agent_id.h"


#define NGX_HTTP_AGENT_RUN_PAUSE_MIN   500      /* ms, doubled each time */
#define NGX_HTTP_AGENT_RUN_PAUSE_MAX   30000


static ngx_int_t ngx_http_agent_run_start(ngx_agent_live_t *live);
static void ngx_http_agent_run_resume(ngx_agent_live_t *live);
static void ngx_http_agent_run_stop(ngx_agent_live_t *live);
static void ngx_http_agent_run_dropped(ngx_agent_live_t *live);
static ngx_http_agent_run_t *ngx_http_agent_run_create(
    ngx_agent_live_t *live);
static void ngx_http_agent_run_dial(ngx_http_agent_run_t *run);
static void ngx_http_agent_run_next(ngx_http_agent_run_t *run);
static void ngx_http_agent_run_timer(ngx_event_t *ev);
static void ngx_http_agent_run_failed(ngx_http_agent_run_t *run,
    ngx_uint_t retry);
static void ngx_http_agent_run_again(ngx_http_agent_run_t *run);
static void ngx_http_agent_run_why(ngx_http_agent_run_t *run, ngx_str_t *why);
static ngx_msec_t ngx_http_agent_run_pause(ngx_http_agent_run_t *run);
static void ngx_http_agent_run_fail(ngx_http_agent_run_t *run);
static void ngx_http_agent_run_event(ngx_event_t *ev);
static void ngx_http_agent_run_release(ngx_http_agent_run_t *run);
static void ngx_http_agent_run_free_body(ngx_http_agent_run_t *run);
static void ngx_http_agent_run_forget(ngx_http_agent_run_t *run);


const ngx_agent_runner_t  ngx_http_agent_runner = {
    ngx_http_agent_run_start,
    ngx_http_agent_run_resume,
    ngx_http_agent_run_stop,
    ngx_http_agent_run_dropped
};


/* all runs of this worker, for its exit */

static ngx_queue_t  ngx_http_agent_runs = {
    &ngx_http_agent_runs, &ngx_http_agent_runs
};


static ngx_int_t
ngx_http_agent_run_start(ngx_agent_live_t *live)
{
    ngx_uint_t             alone;
    ngx_http_agent_run_t  *run;

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, live->log, 0,
                   "agent run: start, seq:%ui attempt:%ui",
                   live->step.seq, live->step.attempt);

    run = ngx_http_agent_run_create(live);

    /* nothing has to be read: the call goes out at once */

    alone = run && live->step.seq == 1 && run->dialect->recall == NULL;

    if (run == NULL
        || (alone && ngx_http_agent_run_build(run, NULL) != NGX_OK))
    {
        ngx_str_set(&live->step.error, "the server had no memory for the "
                    "step; try again");
        return NGX_ERROR;
    }

    live->run = run;

    ngx_queue_insert_tail(&ngx_http_agent_runs, &run->queue);

    if (alone) {
        ngx_http_agent_run_call(run);

    } else {
        ngx_http_agent_run_remember(run);
    }

    return NGX_OK;
}


static ngx_http_agent_run_t *
ngx_http_agent_run_create(ngx_agent_live_t *live)
{
    ngx_http_agent_run_t  *run;

    run = ngx_pcalloc(live->pool, sizeof(ngx_http_agent_run_t));
    if (run == NULL) {
        return NULL;
    }

    run->live = live;
    run->dialect = (live->agent->dialect == NGX_AGENT_DIALECT_AGENT_PROTOCOL)
                       ? &ngx_http_agent_ap : &ngx_http_agent_openai;
    run->state = NGX_HTTP_AGENT_RUN_HISTORY;

    run->timer.handler = ngx_http_agent_run_timer;
    run->timer.data = run;
    run->timer.log = live->log;

    run->event.handler = ngx_http_agent_run_event;
    run->event.data = run;
    run->event.log = live->log;

    if (live->step.redacted) {
        run->redact = ngx_agent_redact_create(live->pool, &live->step.input);

        if (run->redact == NULL) {
            return NULL;
        }
    }

    return run;
}


/* From core/: the next attempt is on record, its call may go out. */

static void
ngx_http_agent_run_resume(ngx_agent_live_t *live)
{
    ngx_http_agent_run_t  *run;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, live->log, 0,
                   "agent run: resume, attempt:%ui", live->step.attempt);

    run = live->run;
    run->more = 0;

    ngx_http_agent_run_call(run);
}


/*
 * From core/: the run is over, whatever it was at.  It never has to wait for
 * a thread: a blob that is on its way to the disk is blob/'s, and is removed
 * when it has got there.
 */

static void
ngx_http_agent_run_stop(ngx_agent_live_t *live)
{
    ngx_http_agent_run_t  *run;

    run = live->run;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, live->log, 0,
                   "agent run: stopped in state %d",
                   run ? (int) run->state : -1);

    if (run) {
        ngx_http_agent_trace_done(run, 1);

        if (run->dialect->keep) {
            run->dialect->keep(run);
        }

        ngx_http_agent_run_release(run);
    }

    ngx_http_agent_run_dropped(live);
}


/*
 * From core/: what the run wrote is nobody's.  Not when the end got lost: the
 * database may have it all the same, and a blob too many is better than a row
 * without one.
 */

static void
ngx_http_agent_run_dropped(ngx_agent_live_t *live)
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
ngx_http_agent_run_move(ngx_http_agent_run_t *run,
    ngx_http_agent_run_state_e to)
{
    /* bit n of each: state n may follow */

    static const unsigned  moves[] = {
        1u << NGX_HTTP_AGENT_RUN_CALL | 1u << NGX_HTTP_AGENT_RUN_FAIL,
        1u << NGX_HTTP_AGENT_RUN_PAUSE | 1u << NGX_HTTP_AGENT_RUN_ACT
            | 1u << NGX_HTTP_AGENT_RUN_FAIL,
        1u << NGX_HTTP_AGENT_RUN_CALL,
        1u << NGX_HTTP_AGENT_RUN_CALL | 1u << NGX_HTTP_AGENT_RUN_END
            | 1u << NGX_HTTP_AGENT_RUN_FAIL,
        0,
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

    if (to == NGX_HTTP_AGENT_RUN_PAUSE || to >= NGX_HTTP_AGENT_RUN_END) {
        ngx_post_event(&run->event, &ngx_posted_events);
    }
}


/* The body is built in a pool that goes at once, and kept at its own size. */

ngx_int_t
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

        if (run->redact) {
            ngx_explicit_memzero(body.data, body.len);
        }
    }

    ngx_destroy_pool(pool);

    return rc;
}


void
ngx_http_agent_run_call(ngx_http_agent_run_t *run)
{
    ngx_http_agent_run_move(run, NGX_HTTP_AGENT_RUN_CALL);
    ngx_http_agent_run_dial(run);
}


static void
ngx_http_agent_run_dial(ngx_http_agent_run_t *run)
{
    ngx_int_t  rc;

    rc = ngx_http_agent_attempt_start(run);

    if (rc != NGX_OK) {
        ngx_http_agent_run_failed(run, rc == NGX_ERROR);
    }
}


ngx_int_t
ngx_http_agent_run_body(ngx_http_agent_run_t *run)
{
    ngx_http_agent_run_free_body(run);

    return ngx_http_agent_run_build(run, NULL);
}


static void
ngx_http_agent_run_timer(ngx_event_t *ev)
{
    ngx_http_agent_run_t *run = ev->data;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, run->live->log, 0,
                   "agent run: timer in state %d", run->state);

    if (run->state == NGX_HTTP_AGENT_RUN_HISTORY) {
        ngx_http_agent_run_remember(run);
        return;
    }

    if (run->fake == NULL) {
        ngx_http_agent_run_dial(run);
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

    ngx_http_agent_trace_called(run);

    run->complete = ngx_http_agent_fake_complete(run->fake);

    ngx_http_agent_fake_close(run->fake);
    run->fake = NULL;

    /* also after silence: an endpoint may forget to end a whole answer */

    if (run->answer && !run->nomem) {
        rc = run->full ? NGX_DECLINED : run->dialect->finish(run);

        if (rc == NGX_OK) {
            ngx_http_agent_run_free_body(run);
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

    ngx_http_agent_run_failed(run, retry);
}


/* A call has failed: core/ is asked for another one, or it was the last. */

static void
ngx_http_agent_run_failed(ngx_http_agent_run_t *run, ngx_uint_t retry)
{
    ngx_agent_live_t  *live;

    live = run->live;

    if (run->pool) {
        ngx_destroy_pool(run->pool);
        run->pool = NULL;
        run->answer = NULL;
    }

    if (retry && ngx_agent_step_spent(live) < live->agent->attempts) {
        ngx_http_agent_run_move(run, NGX_HTTP_AGENT_RUN_PAUSE);
        return;
    }

    ngx_http_agent_run_move(run, NGX_HTTP_AGENT_RUN_FAIL);
}


static void
ngx_http_agent_run_again(ngx_http_agent_run_t *run)
{
    u_char             id[NGX_AGENT_ID_LEN];
    ngx_str_t          why;
    ngx_msec_t         pause;
    ngx_agent_live_t  *live;

    live = run->live;
    pause = ngx_http_agent_run_pause(run);

    ngx_agent_id_print(id, &live->step.id);

    ngx_log_error(NGX_LOG_WARN, live->log, 0,
                  "agent run: attempt %ui of %ui failed: %s, status %ui, the "
                  "next one in %M ms, agent: \"%V\", step: %*s",
                  ngx_agent_step_spent(live), live->agent->attempts,
                  run->what, run->status, pause, &live->agent->name,
                  (size_t) NGX_AGENT_ID_LEN, id);

    ngx_http_agent_run_why(run, &why);

    ngx_agent_step_again(live, pause, &why);
}


static void
ngx_http_agent_run_why(ngx_http_agent_run_t *run, ngx_str_t *why)
{
    *why = run->reason;

    if (why->len == 0) {
        ngx_str_set(why, "the server had no memory to say why it failed");
    }
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

    n = ngx_min(ngx_agent_step_spent(run->live) - 1, 10);

    pause = ngx_min((ngx_msec_t) NGX_HTTP_AGENT_RUN_PAUSE_MIN << n,
                    NGX_HTTP_AGENT_RUN_PAUSE_MAX);

    pause = ngx_max(pause, run->retry_after);

    return pause + (ngx_msec_t) ngx_random() % (pause / 4);
}


/* The step ends as failed, for run->reason; live is not ours any more. */

static void
ngx_http_agent_run_fail(ngx_http_agent_run_t *run)
{
    u_char             id[NGX_AGENT_ID_LEN];
    ngx_str_t          why;
    ngx_uint_t         code, status;
    ngx_agent_live_t  *live;

    live = run->live;

    ngx_http_agent_run_why(run, &why);
    code = run->timed_out ? NGX_HTTP_GATEWAY_TIME_OUT : NGX_HTTP_BAD_GATEWAY;
    status = run->status;

    ngx_agent_id_print(id, &live->step.id);

    ngx_log_error(NGX_LOG_ERR, live->log, 0,
                  "agent run: failed after attempt %ui of %ui: %s, status "
                  "%ui, agent: \"%V\", step: %*s",
                  ngx_agent_step_spent(live), live->agent->attempts,
                  run->what, status, &live->agent->name,
                  (size_t) NGX_AGENT_ID_LEN, id);

    ngx_http_agent_run_dropped(live);
    ngx_http_agent_run_release(run);

    ngx_agent_step_fail(live, &why, code, status);
}


void
ngx_http_agent_run_acted(ngx_http_agent_run_t *run, ngx_int_t rc)
{
    if (rc == NGX_DONE) {
        ngx_http_agent_run_next(run);
        return;
    }

    if (rc != NGX_OK) {
        run->timed_out = 0;
        ngx_http_agent_run_move(run, NGX_HTTP_AGENT_RUN_FAIL);
        return;
    }

    ngx_http_agent_run_move(run, NGX_HTTP_AGENT_RUN_END);
}


/* One more call of the same attempt, now or when the timer says so. */

static void
ngx_http_agent_run_next(ngx_http_agent_run_t *run)
{
    ngx_msec_t  delay;

    ngx_destroy_pool(run->pool);
    run->pool = NULL;
    run->answer = NULL;
    run->more = 1;

    ngx_http_agent_run_move(run, NGX_HTTP_AGENT_RUN_CALL);

    /* it is for this call alone */

    delay = run->delay;
    run->delay = 0;

    if (delay) {
        ngx_add_timer(&run->timer, delay);
        return;
    }

    ngx_http_agent_run_dial(run);
}


/* What core/ is told; after that the run may be gone. */

static void
ngx_http_agent_run_event(ngx_event_t *ev)
{
    ngx_agent_live_t      *live;
    ngx_http_agent_run_t  *run;

    run = ev->data;
    live = run->live;

    ngx_http_agent_trace_done(run, 0);

    if (run->dialect->keep) {
        run->dialect->keep(run);
    }

    switch (run->state) {

    case NGX_HTTP_AGENT_RUN_PAUSE:
        ngx_http_agent_run_again(run);
        return;

    case NGX_HTTP_AGENT_RUN_FAIL:
        ngx_http_agent_run_fail(run);
        return;

    default:                                 /* END */
        ngx_http_agent_run_release(run);
        ngx_agent_step_end(live);
    }
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

    if (run->fake) {
        ngx_http_agent_fake_close(run->fake);
        run->fake = NULL;
    }

    ngx_http_agent_trace_drop(run);

    if (run->state == NGX_HTTP_AGENT_RUN_ACT) {
        run->dialect->drop(run);
    }

    if (run->pool) {
        ngx_destroy_pool(run->pool);
        run->pool = NULL;
    }

    ngx_http_agent_run_free_body(run);
    ngx_http_agent_run_forget(run);

    run->live->run = NULL;
}


static void
ngx_http_agent_run_free_body(ngx_http_agent_run_t *run)
{
    if (run->body.data == NULL) {
        return;
    }

    if (run->redact) {
        ngx_explicit_memzero(run->body.data, run->body.len);
    }

    ngx_free(run->body.data);
    ngx_str_null(&run->body);
}


/* The run has no more use for the secret that was its input. */

static void
ngx_http_agent_run_forget(ngx_http_agent_run_t *run)
{
    ngx_str_t  *input;

    if (run->redact == NULL) {
        return;
    }

    ngx_agent_redact_wipe(run->redact);
    run->redact = NULL;

    input = &run->live->step.input;

    if (input->len) {
        ngx_explicit_memzero(input->data, input->len);
        ngx_str_set(input, NGX_AGENT_REDACT_MARK);
    }
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

    /* an endpoint's words, which were cut off somewhere */

    if (run->redact
        && ngx_agent_redact_text(run->redact, run->live->pool, &run->reason, 1)
           != NGX_OK)
    {
        ngx_str_null(&run->reason);
    }
}


ngx_int_t
ngx_http_agent_run_init(ngx_cycle_t *cycle)
{
    return ngx_http_agent_trace_init(cycle);
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

        ngx_http_agent_run_release(run);
    }
}
