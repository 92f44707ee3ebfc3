
/*
 * The life of a step that is ours: started, tried again, ended, or given
 * back.  Each of its moves is here; rows are the store's, HTTP is nobody's.
 */

#include "ngx_agent_step.h"
#include "ngx_agent_id.h"
#include "ngx_agent_json.h"
#include <ngx_event.h>


#define NGX_AGENT_STEP_TRIES    8          /* of saving the end of a step */
#define NGX_AGENT_STEP_PAUSE    250        /* ms, doubled each time */

/* ms between two calls of the agent; what waits longer waits in the queue */
#define NGX_AGENT_STEP_SHORT    2000

/* HTTP status for who waits */
#define NGX_AGENT_STEP_BAD_GATEWAY  502
#define NGX_AGENT_STEP_NO_ROOM       507
#define NGX_AGENT_STEP_UNAVAILABLE  503


static void ngx_agent_step_too_late(ngx_event_t *ev);
static void ngx_agent_step_start(ngx_event_t *ev);
static const char *ngx_agent_step_hopeless(ngx_agent_live_t *live,
    ngx_uint_t *code);
static void ngx_agent_step_stop(ngx_agent_live_t *live);
static void ngx_agent_step_retry(ngx_event_t *ev);
static void ngx_agent_step_retried(ngx_agent_store_call_t *call);
static void ngx_agent_step_untrace(ngx_agent_live_t *live);
static void ngx_agent_step_put_back(ngx_event_t *ev);
static void ngx_agent_step_left(ngx_agent_store_call_t *call);
static void ngx_agent_step_save(ngx_event_t *ev);
static void ngx_agent_step_saved(ngx_agent_store_call_t *call);
static void ngx_agent_step_failed(ngx_agent_live_t *live, ngx_str_t *why,
    ngx_uint_t code, ngx_uint_t status);
static void ngx_agent_step_no_room(ngx_agent_live_t *live, ngx_str_t *max);
static void ngx_agent_step_bare(ngx_agent_live_t *live);
static void ngx_agent_step_ended(ngx_agent_live_t *live);
static void ngx_agent_step_unsaved(ngx_agent_live_t *live, const char *what);
static void ngx_agent_step_forget(ngx_agent_live_t *live);


static const ngx_agent_core_conf_t  *ngx_agent_step_conf;


void
ngx_agent_step_init(const ngx_agent_core_conf_t *conf)
{
    ngx_agent_step_conf = conf;
}


/* a step that the queue has given */

void
ngx_agent_step_claimed(ngx_agent_claim_t *claim, ngx_agent_agent_t *agent)
{
    ngx_agent_live_t  *live;

    live = ngx_agent_live_create(&claim->tenant, &claim->task, &claim->step);

    if (live == NULL) {
        /* its lease will lapse */
        ngx_agent_stat_give(&agent->name);
        ngx_agent_queue_give();
        return;
    }

    live->slot = 1;
    live->agent_slot = 1;
    live->agent = agent;
    live->watched = claim->watched;
    live->unknown = claim->unknown;
    live->task.agent = agent->name;
    live->step.seq = claim->step.seq;
    live->step.attempt = claim->step.attempt;
    live->step.spared = claim->step.spared;
    live->step.redacted = claim->step.redacted;

    if (ngx_agent_live_dup(live, &live->task.input, &claim->task.input)
        != NGX_OK
        || ngx_agent_live_dup(live, &live->step.story, &claim->step.story)
           != NGX_OK)
    {
        ngx_agent_live_free(live);
        return;
    }

    ngx_agent_stat_add(CLAIMED, 1);

    if (!ngx_agent_step_ours(live)) {
        ngx_agent_step_leave(live, 0, 1);
    }
}


ngx_uint_t
ngx_agent_step_ours(ngx_agent_live_t *live)
{
    ngx_agent_live_t   *old;
    ngx_agent_agent_t  *agent;

    /* it left us, by a write whose answer got lost, and comes back */

    old = ngx_agent_step_find(&live->step.id);

    if (old) {
        ngx_agent_step_drop(old);
    }

    (void) ngx_agent_step_move(&live->step, NGX_AGENT_STEP_RUNNING,
                               live->log);
    ngx_agent_live_move(live, NGX_AGENT_LIVE_READY);

    agent = live->agent;

    if (agent && !live->agent_slot) {
        live->agent_slot = ngx_agent_stat_take(&agent->name,
                                               agent->concurrency);
    }

    if ((agent && !live->agent_slot) || ngx_agent_tick_drains()) {
        return 0;
    }

    live->event.handler = ngx_agent_step_start;
    ngx_post_event(&live->event, &ngx_posted_events);

    if (!ngx_agent_live_add(live)) {
        live->event.handler = ngx_agent_step_too_late;
    }

    ngx_agent_watch_near(live);

    return 1;
}


/* cancelled while it was on its way to us */

static void
ngx_agent_step_too_late(ngx_event_t *ev)
{
    ngx_agent_step_drop(ev->data);
}


static void
ngx_agent_step_start(ngx_event_t *ev)
{
    ngx_str_t          why;
    const char        *text;
    ngx_uint_t         code;
    ngx_agent_live_t  *live;

    live = ev->data;
    text = ngx_agent_step_hopeless(live, &code);

    if (text == NULL) {
        ngx_agent_live_move(live, NGX_AGENT_LIVE_RUNS);

        if (ngx_agent_step_conf->runner->start(live) == NGX_OK) {
            return;
        }

        text = "the step could not be started";
        code = NGX_AGENT_STEP_BAD_GATEWAY;
    }

    why.data = (u_char *) text;
    why.len = ngx_strlen(text);

    if (live->step.error.len) {
        why = live->step.error;
    }

    ngx_agent_step_fail(live, &why, code, 0);
}


/* why a step that is ours need not even be started; NULL: it may */

static const char *
ngx_agent_step_hopeless(ngx_agent_live_t *live, ngx_uint_t *code)
{
    if (live->agent == NULL) {
        ngx_log_error(NGX_LOG_ERR, live->log, 0,
                      "agent step: agent \"%V\" of a task is not configured",
                      &live->task.agent);

        *code = NGX_AGENT_STEP_UNAVAILABLE;
        return "the agent of this task is not configured on this server any "
               "more";
    }

    *code = NGX_AGENT_STEP_BAD_GATEWAY;

    if (ngx_agent_step_spent(live) > live->agent->attempts) {

        /* the present attempt is not made any more */
        live->step.spared++;

        return "no attempts are left";
    }

    if (live->unknown) {
        return "the secret answer is gone with the database server that held "
               "it; answer again";
    }

    return NULL;
}


void
ngx_agent_step_cancelled(const ngx_agent_id_t *step_id)
{
    ngx_agent_live_t  *live;

    live = ngx_agent_step_find(step_id);

    if (live == NULL) {
        ngx_agent_live_note_cancelled(step_id);
        return;
    }

    switch (live->state) {

    case NGX_AGENT_LIVE_READY:
    case NGX_AGENT_LIVE_RUNS:
    case NGX_AGENT_LIVE_PAUSES:
    case NGX_AGENT_LIVE_RETRIES:
        ngx_agent_step_drop(live);
        return;

    default:
        /* its last write is on its way and will find that it came too late */
        return;
    }
}


void
ngx_agent_step_drop(ngx_agent_live_t *live)
{
    ngx_agent_live_move(live, NGX_AGENT_LIVE_DROPPED);
    ngx_agent_live_call_done(live);
    ngx_agent_step_stop(live);
}


void
ngx_agent_step_leave(ngx_agent_live_t *live, ngx_msec_t delay,
    ngx_uint_t spare)
{
    ngx_agent_live_move(live, NGX_AGENT_LIVE_LEAVES);

    live->delay = delay;
    live->spare = spare;

    ngx_agent_step_stop(live);
}


/* whatever run/ has of it goes */

static void
ngx_agent_step_stop(ngx_agent_live_t *live)
{
    if (live->event.timer_set) {
        ngx_del_timer(&live->event);
    }

    if (live->event.posted) {
        ngx_delete_posted_event(&live->event);
    }

    if (live->run) {
        ngx_agent_step_conf->runner->stop(live);
    }

    ngx_agent_step_conf->runner->dropped(live);

    if (live->state == NGX_AGENT_LIVE_LEAVES) {
        ngx_agent_step_put_back(&live->event);
        return;
    }

    ngx_agent_step_forget(live);
}


/* others have it now; who watches will be told by them */

static void
ngx_agent_step_forget(ngx_agent_live_t *live)
{
    ngx_agent_watch_far(live);
    ngx_agent_live_free(live);
}


static void
ngx_agent_step_put_back(ngx_event_t *ev)
{
    ngx_agent_live_t        *live;
    ngx_agent_store_call_t  *call;

    live = ev->data;

    call = ngx_agent_live_call(live, ngx_agent_step_left);

    if (call) {
        call->delay = live->delay;
        call->spare = live->spare;
        call->watched = live->watched || !ngx_queue_empty(&live->watchers);

        if (ngx_agent_store_requeue_step(call) == NGX_AGAIN) {
            return;
        }
    }

    ngx_agent_step_unsaved(live, "it could not be put back into the queue");
}


static void
ngx_agent_step_left(ngx_agent_store_call_t *call)
{
    ngx_agent_live_t  *live;

    live = call->data;

    if (call->rc == NGX_OK || call->rc == NGX_DECLINED) {

        if (call->rc == NGX_OK && live->spare) {
            ngx_agent_stat_add(HANDED_BACK, 1);

        } else if (call->rc == NGX_OK) {
            ngx_agent_stat_add(POSTPONED, 1);
            ngx_agent_queue_later(live->delay);
        }

        ngx_agent_live_move(live, NGX_AGENT_LIVE_DROPPED);
        ngx_agent_step_forget(live);
        return;
    }

    ngx_agent_live_call_done(live);

    if (++live->tries >= NGX_AGENT_STEP_TRIES) {
        ngx_agent_step_unsaved(live, "it could not be put back into the "
                               "queue");
        return;
    }

    live->event.handler = ngx_agent_step_put_back;
    ngx_add_timer(&live->event, NGX_AGENT_STEP_PAUSE << live->tries);
}


void
ngx_agent_step_again(ngx_agent_live_t *live, ngx_msec_t pause, ngx_str_t *why)
{
    ngx_agent_live_move(live, NGX_AGENT_LIVE_PAUSES);
    ngx_agent_story_add(live, why);

    if (pause > NGX_AGENT_STEP_SHORT || ngx_agent_tick_drains()) {
        ngx_agent_step_leave(live, pause, 0);
        return;
    }

    live->event.handler = ngx_agent_step_retry;
    ngx_add_timer(&live->event, pause);
}


/* the next attempt is on record before it is made */

static void
ngx_agent_step_retry(ngx_event_t *ev)
{
    ngx_agent_live_t        *live;
    ngx_agent_store_call_t  *call;

    live = ev->data;

    ngx_agent_live_move(live, NGX_AGENT_LIVE_RETRIES);

    call = ngx_agent_live_call(live, ngx_agent_step_retried);

    if (call == NULL || ngx_agent_store_retry_step(call) != NGX_AGAIN) {
        ngx_agent_live_call_done(live);
        ngx_agent_step_leave(live, 0, 0);
    }
}


static void
ngx_agent_step_retried(ngx_agent_store_call_t *call)
{
    ngx_int_t          rc;
    ngx_agent_live_t  *live;

    live = call->data;
    rc = call->rc;

    ngx_agent_live_call_done(live);

    switch (rc) {

    case NGX_OK:
        ngx_agent_step_untrace(live);

        if (ngx_agent_tick_drains()) {
            /* it was not made: it does not count */
            ngx_agent_step_leave(live, 0, 1);
            return;
        }

        ngx_agent_live_move(live, NGX_AGENT_LIVE_RUNS);
        ngx_agent_step_conf->runner->resume(live);
        return;

    case NGX_DECLINED:
        ngx_agent_stat_add(FENCED, 1);
        ngx_agent_step_drop(live);
        return;

    default:
        ngx_agent_step_leave(live, NGX_AGENT_STEP_SHORT, 0);
        return;
    }
}


/* what is on record needs no memory any more */

static void
ngx_agent_step_untrace(ngx_agent_live_t *live)
{
    if (live->step.trace.data) {
        (void) ngx_pfree(live->pool, live->step.trace.data);
        ngx_str_null(&live->step.trace);
    }
}


void
ngx_agent_step_fail(ngx_agent_live_t *live, ngx_str_t *why, ngx_uint_t code,
    ngx_uint_t status)
{
    ngx_agent_step_failed(live, why, code, status);
    ngx_agent_step_end(live);
}


static void
ngx_agent_step_failed(ngx_agent_live_t *live, ngx_str_t *why,
    ngx_uint_t code, ngx_uint_t status)
{
    ngx_agent_json_t   j;
    ngx_agent_step_t  *step;

    step = &live->step;

    step->is_last = 0;
    step->secret = 0;
    step->code = code;
    step->tokens_in = 0;
    step->tokens_out = 0;
    ngx_str_null(&step->name);
    ngx_str_null(&step->output);
    ngx_str_null(&step->artifacts);
    ngx_str_null(&step->additional_output);

    /* turns stay: a dialect may need them for the next step all the same */

    ngx_agent_story_end(live, why, &step->error);

    ngx_agent_json_init(&j, live->pool, 128 + step->error.len);
    ngx_agent_json_object(&j);
    ngx_agent_json_key(&j, "error");
    ngx_agent_json_string(&j, &step->error);
    ngx_agent_json_key(&j, "attempts");
    ngx_agent_json_int(&j, ngx_agent_step_spent(live));

    if (status) {
        ngx_agent_json_key(&j, "upstream_status");
        ngx_agent_json_int(&j, status);
    }

    ngx_agent_json_key(&j, "code");
    ngx_agent_json_int(&j, code);
    ngx_agent_json_object_end(&j);

    if (ngx_agent_json_done(&j, &step->additional_output) != NGX_OK) {
        ngx_str_null(&step->additional_output);
    }

    (void) ngx_agent_step_move(step, NGX_AGENT_STEP_FAILED, live->log);
}


void
ngx_agent_step_end(ngx_agent_live_t *live)
{
    ngx_log_debug1(NGX_LOG_DEBUG_CORE, live->log, 0,
                   "agent step: ends as \"%V\"",
                   ngx_agent_status_name(live->step.status));

    ngx_agent_live_move(live, NGX_AGENT_LIVE_ENDS);
    ngx_agent_step_save(&live->event);
}


static void
ngx_agent_step_save(ngx_event_t *ev)
{
    ngx_agent_live_t        *live;
    ngx_agent_store_call_t  *call;

    live = ev->data;

    call = ngx_agent_live_call(live, ngx_agent_step_saved);
    if (call == NULL) {
        ngx_agent_step_unsaved(live, "its end could not be saved");
        return;
    }

    call->artifacts = live->artifacts;
    ngx_str_set(&call->price, "0");

    /* what failed costs nothing */

    if (live->agent && live->agent->price.len
        && live->step.status != NGX_AGENT_STEP_FAILED)
    {
        call->price = live->agent->price;
    }

    if (live->agent && live->agent->run == NGX_AGENT_RUN_AUTO
        && live->step.status == NGX_AGENT_STEP_COMPLETED
        && !live->step.is_last)
    {
        call->next = ngx_palloc(call->pool, sizeof(ngx_agent_id_t));

        if (call->next == NULL) {
            ngx_agent_step_unsaved(live, "its end could not be saved");
            return;
        }

        ngx_agent_id_create(call->next);
    }

    if (ngx_agent_store_end_step(call) != NGX_AGAIN) {
        ngx_agent_step_unsaved(live, "its end could not be saved");
    }
}


static void
ngx_agent_step_saved(ngx_agent_store_call_t *call)
{
    ngx_int_t          rc;
    ngx_str_t          max;
    ngx_msec_t         pause;
    ngx_uint_t         next;
    ngx_agent_live_t  *live;

    live = call->data;
    rc = call->rc;
    next = (call->next != NULL);

    if (ngx_agent_live_dup(live, &max, &call->quota_max) != NGX_OK) {
        ngx_str_null(&max);
    }

    ngx_agent_live_call_done(live);

    switch (rc) {

    case NGX_OK:

        if (next) {
            ngx_agent_queue_news(&live->agent->name, &live->tenant, 0);
        }

        ngx_agent_step_ended(live);
        return;

    case NGX_DECLINED:
        ngx_log_error(NGX_LOG_WARN, live->log, 0,
                      "agent step: attempt %ui came too late, its result is "
                      "dropped", live->step.attempt);

        ngx_agent_stat_add(FENCED, 1);
        ngx_agent_step_drop(live);
        return;

    case NGX_BUSY:
        ngx_agent_step_no_room(live, &max);
        return;

    default:
        break;
    }

    /* refused by the database: no disk, a trigger; it may yet be mended */

    if (++live->tries >= NGX_AGENT_STEP_TRIES || ngx_terminate) {

        if (live->step.status == NGX_AGENT_STEP_FAILED || ngx_terminate) {
            ngx_agent_step_unsaved(live, "its end could not be saved");
            return;
        }

        ngx_agent_step_bare(live);
    }

    pause = NGX_AGENT_STEP_PAUSE << live->tries;

    ngx_log_error(NGX_LOG_WARN, live->log, 0,
                  "agent step: its end could not be saved, try %ui of %d in "
                  "%M ms", live->tries + 1, NGX_AGENT_STEP_TRIES, pause);

    live->event.handler = ngx_agent_step_save;
    ngx_add_timer(&live->event, pause);
}


/*
 * The tenant may not store what the step has written: the step ends without
 * it.
 */

static void
ngx_agent_step_no_room(ngx_agent_live_t *live, ngx_str_t *max)
{
    u_char     *p;
    ngx_str_t   why;

    static const char  text[] = "the artifacts of the step are more than the "
                                "tenant's limit of ";

    ngx_agent_step_conf->runner->dropped(live);

    /* nothing of its end is on record */
    live->step.status = NGX_AGENT_STEP_RUNNING;

    ngx_str_set(&why, "the artifacts of the step are more than the tenant may "
                "store");

    p = ngx_pnalloc(live->pool, sizeof(text) + max->len + sizeof(" bytes"));

    if (p) {
        why.data = p;
        why.len = ngx_sprintf(p, "%s%V bytes", text, max) - p;
    }

    ngx_agent_step_failed(live, &why, NGX_AGENT_STEP_NO_ROOM, 0);
    ngx_agent_step_save(&live->event);
}


/*
 * The database will not have this result; it may have a few words in its
 * place.  Otherwise the step would be run, and paid for, again and again.
 */

static void
ngx_agent_step_bare(ngx_agent_live_t *live)
{
    ngx_str_t  why;

    ngx_agent_step_conf->runner->dropped(live);

    /* nothing of its end is on record */
    live->step.status = NGX_AGENT_STEP_RUNNING;
    live->tries = NGX_AGENT_STEP_TRIES - 2;
    ngx_str_null(&live->step.turns);
    ngx_agent_step_untrace(live);

    ngx_str_set(&why, "the database refused to save the result");
    ngx_agent_step_failed(live, &why, NGX_AGENT_STEP_BAD_GATEWAY, 0);
}


static void
ngx_agent_step_ended(ngx_agent_live_t *live)
{
    ngx_agent_step_t  *step;

    step = &live->step;

    switch (step->status) {
    case NGX_AGENT_STEP_COMPLETED:
        ngx_agent_stat_add(COMPLETED, 1);
        break;
    case NGX_AGENT_STEP_WAITING:
        ngx_agent_stat_add(WAITING, 1);
        break;
    default:
        ngx_agent_stat_add(FAILED, 1);
        break;
    }

    ngx_agent_stat_add(TOKENS_IN, step->tokens_in);
    ngx_agent_stat_add(TOKENS_OUT, step->tokens_out);

    ngx_agent_watch_tell(live);
    ngx_agent_live_free(live);
}


/*
 * The database has refused it for too long, or there is no memory: the lease
 * will lapse, and blobs stay, as nobody knows whether their rows are there.
 */

static void
ngx_agent_step_unsaved(ngx_agent_live_t *live, const char *what)
{
    ngx_log_error(NGX_LOG_ERR, live->log, 0,
                  "agent step: %s, the lease of the step will lapse", what);

    ngx_agent_live_move(live, NGX_AGENT_LIVE_DROPPED);
    ngx_agent_step_forget(live);
}
