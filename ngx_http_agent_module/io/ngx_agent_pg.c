
/*
 * Lanes and their queues: calls come in, wait, are given up; connections come
 * and go.  May touch the connection in ngx_agent_pg_conn.c and the batch in
 * flight; must not know what the statements mean.
 */

#include "ngx_agent_pg_lane.h"


#define NGX_AGENT_PG_TICK         100        /* ms between looks at deadlines */
#define NGX_AGENT_PG_STALL        10000      /* ms: a silent server is dead */
#define NGX_AGENT_PG_SENDS        5          /* of one call, at most */


static ngx_int_t ngx_agent_pg_lane_init(ngx_agent_pg_lane_t *lane,
    const char *role, ngx_agent_pg_conf_t *conf, ngx_log_t *log);
static void ngx_agent_pg_ready(void *owner);
static void ngx_agent_pg_lost(void *owner);
static void ngx_agent_pg_send_handler(ngx_event_t *ev);
static ngx_uint_t ngx_agent_pg_late(ngx_agent_pg_call_t *call);
static void ngx_agent_pg_tick(ngx_event_t *ev);


static ngx_agent_pg_lane_t  *ngx_agent_pg_lanes[NGX_AGENT_PG_LANES];


ngx_int_t
ngx_agent_pg_init(ngx_cycle_t *cycle, ngx_agent_pg_conf_t *conf)
{
    ngx_uint_t            i;
    ngx_agent_pg_lane_t  *lane;

    static const char    *roles[] = { "writer", "reader" };

    for (i = 0; i < NGX_AGENT_PG_LANES; i++) {

        lane = ngx_pcalloc(cycle->pool, sizeof(ngx_agent_pg_lane_t));
        if (lane == NULL) {
            return NGX_ERROR;
        }

        if (ngx_agent_pg_lane_init(lane, roles[i], conf, cycle->log)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        ngx_agent_pg_lanes[i] = lane;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_agent_pg_lane_init(ngx_agent_pg_lane_t *lane, const char *role,
    ngx_agent_pg_conf_t *conf, ngx_log_t *log)
{
    ngx_agent_pg_conn_t  *pc;

    lane->conf = conf;
    ngx_queue_init(&lane->waiting);

    lane->send.handler = ngx_agent_pg_send_handler;
    lane->send.data = lane;
    lane->send.log = log;

    lane->tick.handler = ngx_agent_pg_tick;
    lane->tick.data = lane;
    lane->tick.log = log;

    pc = &lane->conn;
    pc->role = role;
    pc->log = log;
    pc->target = &conf->target;
    pc->stmts = conf->stmts;
    pc->nstmts = conf->nstmts;
    pc->setup = conf->setup;
    pc->version = conf->version;
    pc->prepared = conf->prepared;
    pc->ready = ngx_agent_pg_ready;
    pc->result = ngx_agent_pg_result;
    pc->lost = ngx_agent_pg_lost;
    pc->owner = lane;

    ngx_agent_pg_conn_busy(pc, 0);
    ngx_agent_pg_conn_open(pc);

    return NGX_OK;
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

        ngx_agent_pg_conn_close(&lane->conn);

        if (lane->bind.start) {
            ngx_free(lane->bind.start);
        }

        ngx_agent_pg_lanes[i] = NULL;
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
    call->deadline = ngx_current_msec + lane->conf->wait;

    ngx_queue_insert_tail(&lane->waiting, &call->queue);
    lane->nwaiting++;

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
        ngx_queue_remove(&call->queue);
        call->queue.next = NULL;

        /* at worker exit the lanes may go first */
        if (ngx_agent_pg_lanes[call->lane]) {
            ngx_agent_pg_lanes[call->lane]->nwaiting--;
        }
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
ngx_agent_pg_batches(ngx_uint_t n)
{
    return ngx_agent_pg_lanes[n] ? ngx_agent_pg_lanes[n]->batches : 0;
}


static void
ngx_agent_pg_ready(void *owner)
{
    ngx_agent_pg_lane_t  *lane = owner;

    lane->since = ngx_current_msec;
    ngx_agent_pg_send(lane);
}


/* what was sent and not answered is sent again: every call bears that */

static void
ngx_agent_pg_lost(void *owner)
{
    ngx_uint_t            i, n;
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
        if (lane->calls[n - 1]) {
            ngx_agent_pg_requeue(lane, lane->calls[n - 1]);
        }
    }

    lane->ncalls = 0;
    ngx_agent_pg_watch(lane);
}


static void
ngx_agent_pg_send_handler(ngx_event_t *ev)
{
    ngx_agent_pg_send(ev->data);
}


void
ngx_agent_pg_requeue(ngx_agent_pg_lane_t *lane, ngx_agent_pg_call_t *call)
{
    *call->slot = NULL;
    call->slot = NULL;

    if (call->sent >= NGX_AGENT_PG_SENDS && !call->patient) {
        call->handler(call, NGX_ABORT, NULL);
        return;
    }

    ngx_queue_insert_head(&lane->waiting, &call->queue);
    lane->nwaiting++;
}


static ngx_uint_t
ngx_agent_pg_late(ngx_agent_pg_call_t *call)
{
    return !call->patient
           && (ngx_msec_int_t) (ngx_current_msec - call->deadline) >= 0;
}


/*
 * Calls that waited too long are given up, also those that were sent: the
 * answer then finds nobody.  A batch that has been silent for too long takes
 * its connection with it.
 */

static void
ngx_agent_pg_tick(ngx_event_t *ev)
{
    ngx_uint_t            i;
    ngx_queue_t          *q, *next;
    ngx_agent_pg_call_t  *call;
    ngx_agent_pg_lane_t  *lane;

    lane = ev->data;

    if (lane->ncalls
        && (ngx_msec_int_t) (ngx_current_msec - lane->sent)
           > NGX_AGENT_PG_STALL)
    {
        ngx_agent_pg_conn_reset(&lane->conn, "no answer in time");
    }

    for (i = 0; i < lane->ncalls; i++) {
        call = lane->calls[i];

        if (call && ngx_agent_pg_late(call)) {
            lane->calls[i] = NULL;
            call->slot = NULL;
            call->handler(call, NGX_ABORT, NULL);
        }
    }

    /* a handler may queue and detach others, so begin again after each */

    for (q = ngx_queue_head(&lane->waiting);
         q != ngx_queue_sentinel(&lane->waiting);
         q = next)
    {
        next = ngx_queue_next(q);
        call = ngx_queue_data(q, ngx_agent_pg_call_t, queue);

        if (!ngx_agent_pg_late(call)) {
            continue;
        }

        ngx_queue_remove(q);
        call->queue.next = NULL;
        lane->nwaiting--;

        call->handler(call, NGX_ABORT, NULL);
        next = ngx_queue_head(&lane->waiting);
    }

    ngx_agent_pg_watch(lane);
}


/* while calls are out, this timer and the connection's hold the worker */

void
ngx_agent_pg_watch(ngx_agent_pg_lane_t *lane)
{
    ngx_uint_t  busy;

    busy = lane->ncalls || lane->nwaiting;

    if (busy != lane->conn.busy) {
        ngx_agent_pg_conn_busy(&lane->conn, busy);
    }

    lane->tick.cancelable = !busy;

    if (busy && !lane->tick.timer_set) {
        ngx_add_timer(&lane->tick, NGX_AGENT_PG_TICK);
    }
}
