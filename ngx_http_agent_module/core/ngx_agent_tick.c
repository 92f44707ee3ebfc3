
/*
 * What a worker does every second beside its steps: renews leases, looks for
 * steps that have lost their worker, hears the news; and how it ends: when it
 * quits it takes nothing new, and gives back in time what it cannot finish.
 */

#include "ngx_agent_step.h"
#include "ngx_agent_auth.h"
#include "ngx_agent_id.h"
#include "ngx_agent_proc.h"
#include <ngx_event.h>


#define NGX_AGENT_TICK          1000      /* ms */

/* while there is no database: at first it is a matter of moments */
#define NGX_AGENT_TICK_SOON     20
#define NGX_AGENT_TICK_AWAY     200
#define NGX_AGENT_TICK_START    2000

/* ticks: a third of the lease, so that two renewals may fail */
#define NGX_AGENT_TICK_RENEW    10

/* ticks: a step is free that much after its lease at the latest */
#define NGX_AGENT_TICK_SWEEP    3

#define NGX_AGENT_TICK_EXPIRE   60
#define NGX_AGENT_TICK_REGISTER 60

/* ms before worker_shutdown_timeout in which leases are handed back */
#define NGX_AGENT_TICK_BACK     2000

/* ms before it when the database is not waited for any more */
#define NGX_AGENT_TICK_RELEASE  300


/* calls that have no asker: one of each kind at a time */

typedef enum {
    NGX_AGENT_CHORE_SWEEP = 0,
    NGX_AGENT_CHORE_EXPIRE,
    NGX_AGENT_CHORE_REGISTER,
    NGX_AGENT_CHORE_NEIGHBOURS,
    NGX_AGENT_CHORE_ORPHANS,
    NGX_AGENT_CHORE_BURY,
    NGX_AGENT_CHORE_N
} ngx_agent_chore_e;


static void ngx_agent_tick(ngx_event_t *ev);
static void ngx_agent_tick_stall(void);
static void ngx_agent_tick_chores(void);
static void ngx_agent_tick_start(ngx_agent_chore_e chore);
static void ngx_agent_tick_done(ngx_agent_store_call_t *call);
static void ngx_agent_tick_neighbours(ngx_agent_store_call_t *call);
static void ngx_agent_tick_freed(ngx_agent_store_call_t *call,
    const char *what);
static void ngx_agent_tick_drain(void);
static ngx_msec_t ngx_agent_tick_left(ngx_event_t *ev);
static void ngx_agent_tick_hand_back(ngx_agent_live_t *live);
static void ngx_agent_tick_let_go(ngx_event_t *ev);
static void ngx_agent_tick_news(ngx_agent_news_e news, ngx_str_t *payload);
static void ngx_agent_tick_work(ngx_str_t *payload);
static void ngx_agent_tick_ids(ngx_agent_news_e news, ngx_str_t *payload);


static const ngx_agent_core_conf_t  *ngx_agent_tick_conf;

/* debug builds log the socket of every timer's connection */
static ngx_connection_t              ngx_agent_tick_dumb;

static ngx_event_t                   ngx_agent_tick_timer;
static ngx_event_t                   ngx_agent_tick_release;
static ngx_uint_t                    ngx_agent_ticks;
static ngx_msec_t                    ngx_agent_tick_started;
static ngx_msec_t                    ngx_agent_tick_expected;
static ngx_msec_t                    ngx_agent_tick_polled;
static ngx_msec_t                    ngx_agent_tick_back;
static ngx_uint_t                    ngx_agent_tick_draining;
static ngx_uint_t                    ngx_agent_tick_connection;
static ngx_agent_store_call_t
    *ngx_agent_chores[NGX_AGENT_CHORE_N];


ngx_int_t
ngx_agent_tick_init(ngx_cycle_t *cycle, const ngx_agent_core_conf_t *conf)
{
    ngx_agent_tick_conf = conf;
    ngx_agent_ticks = 0;
    ngx_agent_tick_draining = 0;
    ngx_agent_tick_connection = 0;
    ngx_agent_tick_polled = ngx_current_msec;

    ngx_memzero(&ngx_agent_tick_timer, sizeof(ngx_event_t));
    ngx_agent_tick_timer.handler = ngx_agent_tick;
    ngx_agent_tick_timer.log = cycle->log;

    ngx_agent_tick_timer.data = &ngx_agent_tick_dumb;

    /* the runs hold a worker that quits, not this timer */
    ngx_agent_tick_timer.cancelable = 1;

    ngx_agent_store_news(ngx_agent_tick_news);

    /* soon: a dead predecessor's steps are waiting */
    ngx_add_timer(&ngx_agent_tick_timer, NGX_AGENT_TICK_SOON);
    ngx_agent_tick_started = ngx_current_msec;
    ngx_agent_tick_expected = ngx_current_msec + NGX_AGENT_TICK_SOON;

    return NGX_OK;
}


void
ngx_agent_tick_exit(void)
{
    ngx_uint_t  i;

    if (ngx_agent_tick_timer.timer_set) {
        ngx_del_timer(&ngx_agent_tick_timer);
    }

    if (ngx_agent_tick_release.timer_set) {
        ngx_del_timer(&ngx_agent_tick_release);
    }

    for (i = 0; i < NGX_AGENT_CHORE_N; i++) {
        if (ngx_agent_chores[i]) {
            ngx_agent_store_detach(ngx_agent_chores[i]);
            ngx_destroy_pool(ngx_agent_chores[i]->pool);
            ngx_agent_chores[i] = NULL;
        }
    }
}


ngx_uint_t
ngx_agent_tick_drains(void)
{
    return ngx_exiting || ngx_quit || ngx_terminate;
}


static void
ngx_agent_tick(ngx_event_t *ev)
{
    ngx_msec_t  pause;
    ngx_uint_t  connection, hears;

    ngx_agent_tick_stall();

    connection = ngx_agent_store_connection();
    hears = ngx_agent_store_hears();

    /* a new connection is noticed soon: others may wait for what is free */

    if (connection) {
        pause = NGX_AGENT_TICK;

    } else {
        pause = ngx_current_msec - ngx_agent_tick_started
                < NGX_AGENT_TICK_START ? NGX_AGENT_TICK_SOON
                                       : NGX_AGENT_TICK_AWAY;
    }

    ngx_add_timer(ev, pause);
    ngx_agent_tick_expected = ngx_current_msec + pause;

    if (ngx_agent_tick_drains()) {
        ngx_agent_tick_drain();
    }

    if (connection == 0) {
        return;
    }

    if (connection != ngx_agent_tick_connection) {
        ngx_agent_tick_connection = connection;
        ngx_agent_ticks = 0;

        /* what was said in between was not heard, and leases have aged */
        ngx_agent_queue_poll();
        ngx_agent_tick_polled = ngx_current_msec;
        ngx_agent_live_renew(ev->log);
    }

    ngx_agent_store_replan();

    /* he who does not hear the news finds cancelled steps by asking */

    if (ngx_agent_ticks % NGX_AGENT_TICK_RENEW == NGX_AGENT_TICK_RENEW - 1
        || !hears)
    {
        ngx_agent_live_renew(ev->log);
    }

    ngx_agent_tick_chores();
    ngx_agent_ticks++;
}


/* a timer that comes late: something has held the loop up */

static void
ngx_agent_tick_stall(void)
{
    ngx_msec_int_t  late;

    late = (ngx_msec_int_t) (ngx_current_msec - ngx_agent_tick_expected);

    if (late > 0 && (ngx_atomic_uint_t) late
                    > ngx_agent_stats[NGX_AGENT_STAT_STALL_MAX])
    {
        ngx_agent_stat_set(STALL_MAX, (ngx_atomic_uint_t) late);
    }
}


static void
ngx_agent_tick_chores(void)
{
    ngx_uint_t  n, expire;

    n = ngx_agent_ticks;

    if (n % NGX_AGENT_TICK_REGISTER == 0 && ngx_agent_tick_conf->run) {
        ngx_agent_tick_start(NGX_AGENT_CHORE_REGISTER);
    }

    if (ngx_agent_tick_conf->run && !ngx_agent_tick_drains()) {
        ngx_agent_tick_start(NGX_AGENT_CHORE_NEIGHBOURS);
    }

    if (n % NGX_AGENT_TICK_SWEEP == 0) {
        ngx_agent_tick_start(NGX_AGENT_CHORE_SWEEP);
    }

    expire = ngx_min(NGX_AGENT_TICK_EXPIRE,
                     ngx_max(ngx_agent_tick_conf->patience / 1000, 1));

    if (n % expire == expire - 1) {
        ngx_agent_tick_start(NGX_AGENT_CHORE_EXPIRE);
    }

    if ((ngx_msec_int_t) (ngx_current_msec - ngx_agent_tick_polled)
        >= (ngx_msec_int_t) ngx_agent_tick_conf->poll)
    {
        ngx_agent_tick_polled = ngx_current_msec;
        ngx_agent_queue_poll();
    }

    ngx_agent_queue_depth();
}


void
ngx_agent_tick_sweep(void)
{
    ngx_agent_tick_start(NGX_AGENT_CHORE_SWEEP);
}


/*
 * Not soon after a new connection: the answers to what was sent again come
 * only now.
 */

void
ngx_agent_tick_orphans(void)
{
    if (ngx_agent_ticks < NGX_AGENT_TICK_RENEW - 1) {
        return;
    }

    ngx_agent_tick_start(NGX_AGENT_CHORE_ORPHANS);
}


/* a chore that is not done yet, or cannot be done now, waits its turn */

static void
ngx_agent_tick_start(ngx_agent_chore_e chore)
{
    ngx_int_t                rc;
    ngx_agent_store_call_t  *call;

    static ngx_int_t       (*starts[])(ngx_agent_store_call_t *call) = {
        ngx_agent_store_sweep,
        ngx_agent_store_expire,
        ngx_agent_store_register,
        ngx_agent_store_neighbours,
        ngx_agent_store_orphans
    };

    if (ngx_agent_chores[chore]) {
        return;
    }

    call = ngx_agent_store_call_create(1024, ngx_cycle->log,
                                       ngx_agent_tick_done);
    if (call == NULL) {
        return;
    }

    call->data = &ngx_agent_chores[chore];

    rc = starts[chore](call);

    if (rc != NGX_AGAIN) {
        ngx_destroy_pool(call->pool);
        return;
    }

    ngx_agent_chores[chore] = call;
}


static void
ngx_agent_tick_done(ngx_agent_store_call_t *call)
{
    ngx_agent_store_call_t  **place;

    place = call->data;
    *place = NULL;

    if (call->rc == NGX_OK) {

        switch (place - ngx_agent_chores) {

        case NGX_AGENT_CHORE_SWEEP:
            ngx_agent_tick_freed(call, "their leases have lapsed");
            break;

        case NGX_AGENT_CHORE_REGISTER:
            ngx_agent_queue_open();
            break;

        case NGX_AGENT_CHORE_BURY:
            ngx_agent_tick_freed(call, "their worker is gone");
            break;

        case NGX_AGENT_CHORE_ORPHANS:
            ngx_agent_tick_freed(call, "the answer to their claim got lost");
            break;

        case NGX_AGENT_CHORE_NEIGHBOURS:
            ngx_agent_tick_neighbours(call);
            return;

        default:
            break;
        }
    }

    ngx_destroy_pool(call->pool);
}


static void
ngx_agent_tick_freed(ngx_agent_store_call_t *call, const char *what)
{
    if (call->total == 0) {
        return;
    }

    ngx_agent_stat_add(TAKEOVERS, call->total);

    ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                  "agent step: %ui steps are back in the queue, %s",
                  call->total, what);
}


/*
 * Processes of this host that are gone: what they ran is free at once.  The
 * list stays in the call's pool, which goes on to be the burial's.
 */

static void
ngx_agent_tick_neighbours(ngx_agent_store_call_t *call)
{
    ngx_uint_t           i, n;
    ngx_pool_t          *pool;
    ngx_agent_worker_t  *worker;

    pool = call->pool;
    worker = call->list->elts;

    for (i = 0, n = 0; i < call->list->nelts; i++) {
        if (ngx_agent_proc_gone(worker[i].pid, worker[i].born)) {
            worker[n++] = worker[i];
        }
    }

    call->list->nelts = n;

    if (n && ngx_agent_chores[NGX_AGENT_CHORE_BURY] == NULL) {
        call->data = &ngx_agent_chores[NGX_AGENT_CHORE_BURY];

        if (ngx_agent_store_bury(call) == NGX_AGAIN) {
            ngx_agent_chores[NGX_AGENT_CHORE_BURY] = call;
            return;
        }
    }

    ngx_destroy_pool(pool);
}


/* The end of a worker. */

static void
ngx_agent_tick_drain(void)
{
    ngx_msec_t  time;

    time = ngx_agent_tick_conf->shutdown;

    switch (ngx_agent_tick_draining) {

    case 0:
        ngx_agent_tick_draining = 1;

        if (time == 0) {
            /* there is all the time the runs may need */
            ngx_agent_tick_draining = 2;
            return;
        }

        ngx_agent_tick_back = ngx_current_msec
                              + (time > NGX_AGENT_TICK_BACK
                                 ? time - NGX_AGENT_TICK_BACK : 0);

        ngx_agent_tick_release.handler = ngx_agent_tick_let_go;
        ngx_agent_tick_release.data = &ngx_agent_tick_dumb;
        ngx_agent_tick_release.log = ngx_cycle->log;
        ngx_agent_tick_release.cancelable = 1;

        ngx_add_timer(&ngx_agent_tick_release,
                      time > NGX_AGENT_TICK_RELEASE
                      ? time - NGX_AGENT_TICK_RELEASE : 1);

        /* fall through */

    case 1:
        if ((ngx_msec_int_t) (ngx_current_msec - ngx_agent_tick_back) < 0) {
            return;
        }

        ngx_agent_tick_draining = 2;

        ngx_agent_watch_dismiss();
        ngx_agent_live_each(ngx_agent_tick_hand_back);
        return;

    default:
        return;
    }
}


static ngx_msec_t
ngx_agent_tick_left(ngx_event_t *ev)
{
    ngx_msec_int_t  left;

    left = (ngx_msec_int_t) (ev->timer.key - ngx_current_msec);

    return (ev->timer_set && left > 0) ? (ngx_msec_t) left : 0;
}


static void
ngx_agent_tick_hand_back(ngx_agent_live_t *live)
{
    switch (live->state) {

    case NGX_AGENT_LIVE_READY:
    case NGX_AGENT_LIVE_RUNS:
        ngx_log_error(NGX_LOG_NOTICE, live->log, 0,
                      "agent step: handed back, this worker quits");
        ngx_agent_step_leave(live, 0, 1);
        return;

    case NGX_AGENT_LIVE_PAUSES:
        ngx_agent_step_leave(live, ngx_agent_tick_left(&live->event), 0);
        return;

    default:
        /* a write is on its way and decides */
        return;
    }
}


/*
 * The database does not answer, and time is up: who still waits for a write
 * is told to ask elsewhere, as nobody else holds those clients any more.
 */

static void
ngx_agent_tick_let_go(ngx_event_t *ev)
{
    ngx_agent_live_each(ngx_agent_watch_far);
    ngx_agent_store_release();
}


static void
ngx_agent_tick_news(ngx_agent_news_e news, ngx_str_t *payload)
{
    switch (news) {

    case NGX_AGENT_NEWS_WORK:
        ngx_agent_tick_work(payload);
        return;

    case NGX_AGENT_NEWS_KEYS:
        ngx_agent_auth_news(payload);
        return;

    default:
        ngx_agent_tick_ids(news, payload);
        return;
    }
}


/* "agent tenant" or "agent! tenant": no agent's name has a space in it */

static void
ngx_agent_tick_work(ngx_str_t *payload)
{
    u_char      *p, *last;
    ngx_str_t    agent, tenant;
    ngx_uint_t   again;

    last = payload->data + payload->len;
    p = ngx_strlchr(payload->data, last, ' ');

    if (p == NULL) {
        return;
    }

    agent.data = payload->data;
    agent.len = p - payload->data;
    tenant.data = p + 1;
    tenant.len = last - tenant.data;

    again = (agent.len && p[-1] == '!');
    agent.len -= again;

    ngx_agent_queue_news(&agent, &tenant, again);
}


static void
ngx_agent_tick_ids(ngx_agent_news_e news, ngx_str_t *payload)
{
    u_char          *p, *last;
    ngx_str_t        text;
    ngx_agent_id_t   id;

    p = payload->data;
    last = p + payload->len;

    for ( /* void */ ; p + NGX_AGENT_ID_LEN <= last; p += text.len + 1) {
        text.data = p;
        text.len = NGX_AGENT_ID_LEN;

        if (ngx_agent_id_parse(&text, &id) != NGX_OK) {
            return;
        }

        if (news == NGX_AGENT_NEWS_CANCELLED) {
            ngx_agent_step_cancelled(&id);
        }

        ngx_agent_watch_news(&id);
    }
}
