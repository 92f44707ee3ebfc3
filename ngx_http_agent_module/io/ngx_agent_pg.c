
/*
 * Lanes and their queues: calls come in, wait, are given up; connections come
 * and go.  May touch the connection in ngx_agent_pg_conn.c and the batch in
 * flight; must not know what the statements mean.
 */

#include "ngx_agent_pg_lane.h"


#define NGX_AGENT_PG_TICK         100        /* ms between looks at deadlines */
#define NGX_AGENT_PG_LOOKS        8          /* at the sockets */
#define NGX_AGENT_PG_STALL        10000      /* ms: a silent server is dead */
#define NGX_AGENT_PG_SENDS        5          /* of one call, at most */


static void ngx_agent_pg_lane_init(ngx_agent_pg_lane_t *lane,
    ngx_uint_t number, ngx_agent_pg_conf_t *conf, ngx_log_t *log);
static void ngx_agent_pg_lane_conn(ngx_agent_pg_lane_t *lane,
    ngx_agent_pg_conf_t *conf, ngx_log_t *log);
static void ngx_agent_pg_show(ngx_agent_pg_lane_t *lane);
static void ngx_agent_pg_ready(void *owner);
static void ngx_agent_pg_lost(void *owner);
static void ngx_agent_pg_send_handler(ngx_event_t *ev);
static ngx_uint_t ngx_agent_pg_kept(ngx_agent_pg_call_t *call);
static ngx_uint_t ngx_agent_pg_late(ngx_agent_pg_call_t *call);
static void ngx_agent_pg_tick(ngx_event_t *ev);
static void ngx_agent_pg_tick_sent(ngx_agent_pg_lane_t *lane);
static void ngx_agent_pg_tick_waiting(ngx_agent_pg_lane_t *lane);
static ngx_uint_t ngx_agent_pg_hasty(ngx_agent_pg_lane_t *lane);


static ngx_agent_pg_lane_t  *ngx_agent_pg_lanes[NGX_AGENT_PG_LANES];


ngx_int_t
ngx_agent_pg_init(ngx_cycle_t *cycle, ngx_agent_pg_conf_t *conf)
{
    ngx_uint_t            i;
    ngx_agent_pg_lane_t  *lane;

    for (i = 0; i < NGX_AGENT_PG_LANES; i++) {

        lane = ngx_pcalloc(cycle->pool, sizeof(ngx_agent_pg_lane_t));
        if (lane == NULL) {
            return NGX_ERROR;
        }

        lane->kinds = ngx_pcalloc(cycle->pool,
                                  conf->nstmts * sizeof(ngx_uint_t));
        if (lane->kinds == NULL) {
            return NGX_ERROR;
        }

        ngx_agent_pg_lane_init(lane, i, conf, cycle->log);
        ngx_agent_pg_lanes[i] = lane;
    }

    return NGX_OK;
}


static void
ngx_agent_pg_lane_init(ngx_agent_pg_lane_t *lane, ngx_uint_t number,
    ngx_agent_pg_conf_t *conf, ngx_log_t *log)
{
    lane->conf = conf;
    lane->number = number;
    ngx_queue_init(&lane->waiting);

    lane->send.handler = ngx_agent_pg_send_handler;
    lane->send.data = lane;
    lane->send.log = log;

    lane->tick.handler = ngx_agent_pg_tick;
    lane->tick.data = lane;
    lane->tick.log = log;

    ngx_agent_pg_lane_conn(lane, conf, log);
}


static void
ngx_agent_pg_lane_conn(ngx_agent_pg_lane_t *lane, ngx_agent_pg_conf_t *conf,
    ngx_log_t *log)
{
    ngx_uint_t            reader;
    ngx_agent_pg_conn_t  *pc;

    reader = (lane->number == NGX_AGENT_PG_READER);

    pc = &lane->conn;
    pc->role = reader ? "reader" : "writer";
    pc->shown = &ngx_agent_stats[reader ? NGX_AGENT_STAT_READER_STATE
                                        : NGX_AGENT_STAT_WRITER_STATE];
    pc->log = log;
    pc->target = &conf->target;
    pc->stmts = conf->stmts;
    pc->nstmts = conf->nstmts;
    pc->listen = reader ? conf->listen : NULL;
    pc->setup = conf->setup;
    pc->version = conf->version;
    pc->prepared = conf->prepared;
    pc->ready = ngx_agent_pg_ready;
    pc->result = ngx_agent_pg_result;
    pc->lost = ngx_agent_pg_lost;
    pc->news = conf->news;
    pc->owner = lane;

    ngx_agent_pg_conn_busy(pc, 0, 0);
    ngx_agent_pg_conn_open(pc);
}


void
ngx_agent_pg_exit(void)
{
    ngx_uint_t            i;
    ngx_agent_pg_lane_t  *lane;

    for (i = 0; i < NGX_AGENT_PG_LANES; i++) {
        lane = ngx_agent_pg_lanes[i];

        if (lane == NULL) {
            continue;
        }

        if (lane->tick.timer_set) {
            ngx_del_timer(&lane->tick);
        }

        if (lane->send.posted) {
            ngx_delete_posted_event(&lane->send);
        }

        ngx_agent_pg_conn_close(&lane->conn);

        if (lane->bind.start) {
            ngx_free(lane->bind.start);
        }

        ngx_agent_pg_lanes[i] = NULL;
    }
}


void
ngx_agent_pg_release(void)
{
    ngx_uint_t            i;
    ngx_agent_pg_lane_t  *lane;

    for (i = 0; i < NGX_AGENT_PG_LANES; i++) {
        lane = ngx_agent_pg_lanes[i];

        if (lane) {
            lane->released = 1;
            ngx_agent_pg_watch(lane);
        }
    }
}


ngx_int_t
ngx_agent_pg_call(ngx_agent_pg_call_t *call)
{
    ngx_agent_pg_lane_t  *lane;

    lane = ngx_agent_pg_lanes[call->lane];

    if (lane == NULL) {
        return NGX_ABORT;
    }

    /* a burst on a working connection is bounded by time alone */

    if (lane->conn.state != NGX_AGENT_PG_READY && !call->patient
        && lane->nwaiting >= lane->conf->queue)
    {
        return NGX_ABORT;
    }

    call->slot = NULL;
    call->sent = 0;
    call->unsure = 0;
    call->passed = 0;
    call->deadline = ngx_current_msec + lane->conf->wait;

    ngx_agent_pg_enqueue(lane, call, 0);

    /* those who come in the same turn of the loop go out together */
    ngx_post_event(&lane->send, &ngx_posted_events);
    ngx_agent_pg_watch(lane);

    return NGX_AGAIN;
}


void
ngx_agent_pg_detach(ngx_agent_pg_call_t *call)
{
    if (call->slot) {
        *call->slot = NULL;
        call->slot = NULL;
        return;
    }

    if (call->queue.next) {
        /* at worker exit the lanes may go first */
        ngx_agent_pg_dequeue(ngx_agent_pg_lanes[call->lane], call);
    }
}


void
ngx_agent_pg_enqueue(ngx_agent_pg_lane_t *lane, ngx_agent_pg_call_t *call,
    ngx_uint_t front)
{
    if (front) {
        ngx_queue_insert_head(&lane->waiting, &call->queue);

    } else {
        ngx_queue_insert_tail(&lane->waiting, &call->queue);
    }

    lane->nwaiting++;
    lane->kinds[call->stmt]++;
    ngx_agent_pg_show(lane);
}


void
ngx_agent_pg_dequeue(ngx_agent_pg_lane_t *lane, ngx_agent_pg_call_t *call)
{
    ngx_queue_remove(&call->queue);
    call->queue.next = NULL;

    if (lane) {
        lane->nwaiting--;
        lane->kinds[call->stmt]--;
        ngx_agent_pg_show(lane);
    }
}


static void
ngx_agent_pg_show(ngx_agent_pg_lane_t *lane)
{
    if (lane->number == NGX_AGENT_PG_WRITER) {
        ngx_agent_stat_set(WRITER_WAITING, lane->nwaiting);

    } else {
        ngx_agent_stat_set(READER_WAITING, lane->nwaiting);
    }
}


ngx_msec_t
ngx_agent_pg_uptime(ngx_uint_t n)
{
    ngx_agent_pg_lane_t  *lane;

    lane = ngx_agent_pg_lanes[n];

    if (lane == NULL || lane->conn.state != NGX_AGENT_PG_READY) {
        return 0;
    }

    return ngx_current_msec - lane->since;
}


ngx_uint_t
ngx_agent_pg_number(ngx_uint_t n)
{
    ngx_agent_pg_lane_t  *lane;

    lane = ngx_agent_pg_lanes[n];

    if (lane == NULL || lane->conn.state != NGX_AGENT_PG_READY) {
        return 0;
    }

    return lane->connection;
}


ngx_uint_t
ngx_agent_pg_batches(ngx_uint_t n)
{
    return ngx_agent_pg_lanes[n] ? ngx_agent_pg_lanes[n]->batches : 0;
}


static void
ngx_agent_pg_ready(void *owner)
{
    ngx_agent_pg_lane_t  *lane = owner;

    lane->since = ngx_current_msec;
    lane->connection++;
    ngx_agent_pg_send(lane);
}


/* what was sent and not answered is sent again: every call bears that */

static void
ngx_agent_pg_lost(void *owner)
{
    ngx_uint_t            i, n;
    ngx_agent_pg_call_t  *call;
    ngx_agent_pg_lane_t  *lane = owner;

    for (i = lane->delivered; i < lane->ngroups; i++) {
        if (lane->groups[i].res) {
            PQclear(lane->groups[i].res);
            lane->groups[i].res = NULL;
        }
    }

    i = lane->delivered < lane->ngroups ? lane->groups[lane->delivered].first
                                        : lane->ncalls;

    for (n = lane->ncalls; n > i; n--) {
        call = lane->calls[n - 1];

        if (call == NULL) {
            continue;
        }

        call->unsure = 1;
        call->stmt = call->again ? call->again : call->stmt;

        ngx_agent_pg_requeue(lane, call);
    }

    lane->ncalls = 0;
    ngx_agent_pg_watch(lane);
}


/*
 * When a batch has come back, the sockets are looked at with no wait before
 * the next one goes, and again while that brings more calls: batches grow
 * with the load.  A call that comes alone goes at once.
 */

static void
ngx_agent_pg_send_handler(ngx_event_t *ev)
{
    ngx_agent_pg_lane_t  *lane;

    lane = ev->data;

    if (lane->looks) {

        if (lane->looks < NGX_AGENT_PG_LOOKS && lane->nwaiting > lane->seen) {
            lane->looks++;
            lane->seen = lane->nwaiting;
            ngx_post_event(&lane->send, &ngx_posted_next_events);
            return;
        }

        lane->looks = 0;
    }

    ngx_agent_pg_send(lane);
}


void
ngx_agent_pg_requeue(ngx_agent_pg_lane_t *lane, ngx_agent_pg_call_t *call)
{
    *call->slot = NULL;
    call->slot = NULL;

    if (call->sent >= NGX_AGENT_PG_SENDS && !ngx_agent_pg_kept(call)) {
        call->handler(call, NGX_ABORT, NULL);
        return;
    }

    ngx_agent_pg_enqueue(lane, call, 1);
}


/* is not to be given up: whoever asked must learn whether it has happened */

static ngx_uint_t
ngx_agent_pg_kept(ngx_agent_pg_call_t *call)
{
    if (call->hold && (call->slot || call->unsure)) {
        call->patient = 1;
    }

    return call->patient;
}


static ngx_uint_t
ngx_agent_pg_late(ngx_agent_pg_call_t *call)
{
    return (ngx_msec_int_t) (ngx_current_msec - call->deadline) >= 0
           && !ngx_agent_pg_kept(call);
}


/*
 * Calls that waited too long are given up, also those that were sent: the
 * answer then finds nobody.  A batch that has been silent for too long takes
 * its connection with it.
 */

static void
ngx_agent_pg_tick(ngx_event_t *ev)
{
    ngx_agent_pg_lane_t  *lane;

    lane = ev->data;

    if (lane->ncalls
        && (ngx_msec_int_t) (ngx_current_msec - lane->sent)
           > NGX_AGENT_PG_STALL)
    {
        ngx_agent_pg_conn_reset(&lane->conn, "no answer in time");
    }

    ngx_agent_pg_tick_sent(lane);
    ngx_agent_pg_tick_waiting(lane);

    ngx_agent_pg_watch(lane);
}


static void
ngx_agent_pg_tick_sent(ngx_agent_pg_lane_t *lane)
{
    ngx_uint_t            i;
    ngx_agent_pg_call_t  *call;

    for (i = 0; i < lane->ncalls; i++) {
        call = lane->calls[i];

        if (call && ngx_agent_pg_late(call)) {
            lane->calls[i] = NULL;
            call->slot = NULL;
            call->handler(call, NGX_ABORT, NULL);
        }
    }
}


/* a handler may queue and detach others, so begin again after each */

static void
ngx_agent_pg_tick_waiting(ngx_agent_pg_lane_t *lane)
{
    ngx_queue_t          *q, *next;
    ngx_agent_pg_call_t  *call;

    for (q = ngx_queue_head(&lane->waiting);
         q != ngx_queue_sentinel(&lane->waiting);
         q = next)
    {
        next = ngx_queue_next(q);
        call = ngx_queue_data(q, ngx_agent_pg_call_t, queue);

        if (!ngx_agent_pg_late(call)) {
            continue;
        }

        ngx_agent_pg_dequeue(lane, call);

        call->handler(call, NGX_ABORT, NULL);
        next = ngx_queue_head(&lane->waiting);
    }
}


/* while calls are out, this timer and the connection's hold the worker */

void
ngx_agent_pg_watch(ngx_agent_pg_lane_t *lane)
{
    ngx_uint_t  busy, holds;

    busy = lane->ncalls || lane->nwaiting;
    holds = lane->released ? ngx_agent_pg_hasty(lane) : busy;

    if (busy != lane->conn.busy || holds != lane->conn.holds) {
        ngx_agent_pg_conn_busy(&lane->conn, busy, holds);
    }

    lane->tick.cancelable = !holds;

    if (busy && !lane->tick.timer_set) {
        ngx_add_timer(&lane->tick, NGX_AGENT_PG_TICK);
    }
}


/*
 * Some call has a deadline: it ends by itself, and most likely a client waits
 * for it, whose connection must not be left open.
 */

static ngx_uint_t
ngx_agent_pg_hasty(ngx_agent_pg_lane_t *lane)
{
    ngx_uint_t            i;
    ngx_queue_t          *q;
    ngx_agent_pg_call_t  *call;

    for (i = 0; i < lane->ncalls; i++) {
        if (lane->calls[i] && !lane->calls[i]->patient) {
            return 1;
        }
    }

    for (q = ngx_queue_head(&lane->waiting);
         q != ngx_queue_sentinel(&lane->waiting);
         q = ngx_queue_next(q))
    {
        call = ngx_queue_data(q, ngx_agent_pg_call_t, queue);

        if (!call->patient) {
            return 1;
        }
    }

    return 0;
}
