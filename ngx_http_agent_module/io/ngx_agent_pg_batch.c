
/*
 * The batch in flight: made of what waits, sent, answered, told to its calls
 * or sent again.  Must not know what the statements mean.
 */

#include "ngx_agent_pg_lane.h"


/* calls that wait: under load, so that a batch is better of one statement */
#define NGX_AGENT_PG_MANY         8

/* of one execution: nested loops over its arrays grow with the square */
#define NGX_AGENT_PG_GROUP        64

#define NGX_AGENT_PG_BATCH_BYTES  (8 * 1024 * 1024)


static ngx_uint_t ngx_agent_pg_answered(ngx_agent_pg_lane_t *lane);
static void ngx_agent_pg_count(ngx_agent_pg_lane_t *lane);
static void ngx_agent_pg_gather(ngx_agent_pg_lane_t *lane);
static ngx_uint_t ngx_agent_pg_kind(ngx_agent_pg_lane_t *lane);
static void ngx_agent_pg_group(ngx_agent_pg_lane_t *lane);
static ngx_uint_t ngx_agent_pg_same_scope(ngx_agent_pg_call_t *a,
    ngx_agent_pg_call_t *b);
static ngx_agent_pg_group_t *ngx_agent_pg_new_group(ngx_agent_pg_lane_t *lane,
    ngx_uint_t first, ngx_uint_t unit, ngx_uint_t stmt);
static ngx_int_t ngx_agent_pg_write(ngx_agent_pg_lane_t *lane);
static int ngx_libc_cdecl ngx_agent_pg_cmp(const void *one, const void *two);
static size_t ngx_agent_pg_bytes(ngx_agent_pg_call_t *call);
static void ngx_agent_pg_unit_done(ngx_agent_pg_lane_t *lane);
static void ngx_agent_pg_relay(ngx_agent_pg_lane_t *lane);
static void ngx_agent_pg_deliver(ngx_agent_pg_lane_t *lane,
    ngx_agent_pg_call_t **calls, ngx_agent_pg_group_t *g);
static void ngx_agent_pg_unit_failed(ngx_agent_pg_lane_t *lane,
    ngx_uint_t last);
static ngx_int_t ngx_agent_pg_again(ngx_agent_pg_lane_t *lane,
    const char *state);
static void ngx_agent_pg_refused(ngx_agent_pg_lane_t *lane,
    ngx_agent_pg_call_t *call, PGresult *res);


void
ngx_agent_pg_send(ngx_agent_pg_lane_t *lane)
{
    if (lane->conn.state != NGX_AGENT_PG_READY || lane->ncalls
        || ngx_queue_empty(&lane->waiting))
    {
        return;
    }

    ngx_agent_pg_gather(lane);
    ngx_agent_pg_group(lane);

    lane->answered = 0;
    lane->delivered = 0;
    lane->failed = 0;
    lane->sent = ngx_current_msec;
    lane->batches++;
    ngx_agent_pg_count(lane);

    ngx_log_debug3(NGX_LOG_DEBUG_CORE, lane->conn.log, 0,
                   "agent pg: %s sends %ui calls in %ui statements",
                   lane->conn.role, lane->ncalls, lane->ngroups);

    if (ngx_agent_pg_write(lane) != NGX_OK) {
        ngx_agent_pg_conn_reset(&lane->conn, "cannot send");
    }
}


static void
ngx_agent_pg_count(ngx_agent_pg_lane_t *lane)
{
    if (lane->number == NGX_AGENT_PG_WRITER) {
        ngx_agent_stat_add(WRITER_BATCHES, 1);
        ngx_agent_stat_add(WRITER_CALLS, lane->ncalls);

    } else {
        ngx_agent_stat_add(READER_BATCHES, 1);
        ngx_agent_stat_add(READER_CALLS, lane->ncalls);
    }
}


static void
ngx_agent_pg_gather(ngx_agent_pg_lane_t *lane)
{
    size_t                bytes;
    ngx_uint_t            i, kind, solo;
    ngx_queue_t          *q, *next;
    ngx_agent_pg_call_t  *call;

    bytes = 0;
    solo = 0;
    kind = ngx_agent_pg_kind(lane);

    for (q = ngx_queue_head(&lane->waiting);
         q != ngx_queue_sentinel(&lane->waiting)
           && lane->ncalls < NGX_AGENT_PG_BATCH
           && bytes < NGX_AGENT_PG_BATCH_BYTES;
         q = next)
    {
        next = ngx_queue_next(q);
        call = ngx_queue_data(q, ngx_agent_pg_call_t, queue);

        if (kind != lane->conf->nstmts && call->stmt != kind && !call->passed)
        {
            call->passed = 1;
            continue;
        }

        if (lane->ncalls == 0) {
            solo = call->solo;

        } else if (call->solo != solo) {
            break;
        }

        ngx_agent_pg_dequeue(lane, call);

        call->sent++;
        bytes += ngx_agent_pg_bytes(call);
        lane->calls[lane->ncalls++] = call;
    }

    /*
     * One order for all writers, by tenant, statement and task: two batches
     * lock rows in the same order and so never wait for each other in a ring.
     */
    ngx_qsort(lane->calls, lane->ncalls, sizeof(ngx_agent_pg_call_t *),
              ngx_agent_pg_cmp);

    for (i = 0; i < lane->ncalls; i++) {
        lane->calls[i]->slot = &lane->calls[i];
    }
}


/*
 * An execution costs as much as some ten rows of it, so under load a batch is
 * of one statement, whichever has the most calls, and of those who were
 * passed over by the last one: nobody waits for two.  nstmts: all may go.
 */

static ngx_uint_t
ngx_agent_pg_kind(ngx_agent_pg_lane_t *lane)
{
    ngx_uint_t  i, kind;

    if (lane->nwaiting < NGX_AGENT_PG_MANY) {
        return lane->conf->nstmts;
    }

    for (i = 1, kind = 0; i < lane->conf->nstmts; i++) {
        if (lane->kinds[i] > lane->kinds[kind]) {
            kind = i;
        }
    }

    return kind;
}


static int ngx_libc_cdecl
ngx_agent_pg_cmp(const void *one, const void *two)
{
    int                         rc;
    const ngx_agent_pg_call_t  *a, *b;

    a = *(ngx_agent_pg_call_t *const *) one;
    b = *(ngx_agent_pg_call_t *const *) two;

    if (a->late != b->late) {
        return a->late ? 1 : -1;
    }

    rc = ngx_memn2cmp(a->scope.data, b->scope.data, a->scope.len,
                      b->scope.len);
    if (rc) {
        return rc;
    }

    if (a->stmt != b->stmt) {
        return a->stmt < b->stmt ? -1 : 1;
    }

    return ngx_memcmp(a->key.bytes, b->key.bytes, 16);
}


static size_t
ngx_agent_pg_bytes(ngx_agent_pg_call_t *call)
{
    size_t      size;
    ngx_uint_t  i;

    for (size = 0, i = 0; i < call->nparams; i++) {
        size += call->params[i].len;
    }

    return size;
}


static void
ngx_agent_pg_group(ngx_agent_pg_lane_t *lane)
{
    ngx_uint_t             i, unit;
    ngx_agent_pg_call_t   *call, *last;
    ngx_agent_pg_group_t  *g;

    g = NULL;
    last = NULL;
    unit = 0;
    lane->ngroups = 0;

    for (i = 0; i < lane->ncalls; i++) {
        call = lane->calls[i];

        if (last == NULL || call->solo
            || !ngx_agent_pg_same_scope(call, last))
        {
            if (last && call->solo) {
                unit++;
            }

            if (call->scope.len) {
                (void) ngx_agent_pg_new_group(lane, i, unit,
                                lane->conf->scope[lane->number]);
            }

        } else if (g->stmt == call->stmt
                   && g->n < NGX_AGENT_PG_GROUP
                   && lane->conf->stmts[call->stmt].grouped)
        {
            g->n++;
            last = call;
            continue;
        }

        g = ngx_agent_pg_new_group(lane, i, unit, call->stmt);
        g->n = 1;
        last = call;
    }
}


static ngx_uint_t
ngx_agent_pg_same_scope(ngx_agent_pg_call_t *a, ngx_agent_pg_call_t *b)
{
    return a->scope.len == b->scope.len
           && ngx_memcmp(a->scope.data, b->scope.data, a->scope.len) == 0;
}


static ngx_agent_pg_group_t *
ngx_agent_pg_new_group(ngx_agent_pg_lane_t *lane, ngx_uint_t first,
    ngx_uint_t unit, ngx_uint_t stmt)
{
    ngx_agent_pg_group_t  *g;

    g = &lane->groups[lane->ngroups++];

    g->first = first;
    g->n = 0;
    g->unit = unit;
    g->stmt = stmt;
    g->res = NULL;

    return g;
}


static ngx_int_t
ngx_agent_pg_write(ngx_agent_pg_lane_t *lane)
{
    ngx_uint_t                  i;
    ngx_agent_pg_group_t       *g;
    const ngx_agent_pg_stmt_t  *st;

    for (i = 0; i < lane->ngroups; i++) {
        g = &lane->groups[i];
        st = &lane->conf->stmts[g->stmt];

        if (g->n == 0) {
            ngx_agent_pg_bind_scope(&lane->bind, lane->calls[g->first]);

        } else if (ngx_agent_pg_bind(&lane->bind, st, &lane->calls[g->first],
                                     g->n, lane->conn.log)
                   != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (ngx_agent_pg_conn_send(&lane->conn, g->stmt, st->nparams,
                                   lane->bind.values, lane->bind.lengths)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        if ((i + 1 == lane->ngroups || g[1].unit != g->unit)
            && ngx_agent_pg_conn_sync(&lane->conn) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return ngx_agent_pg_conn_flush(&lane->conn);
}


void
ngx_agent_pg_result(void *owner, PGresult *res)
{
    ExecStatusType        status;
    ngx_agent_pg_lane_t  *lane = owner;

    status = PQresultStatus(res);

    if (status == PGRES_PIPELINE_SYNC) {
        PQclear(res);
        ngx_agent_pg_unit_done(lane);
        return;
    }

    if (lane->ncalls == 0) {
        /* the server speaks unasked: "terminating connection", and closes */
        PQclear(res);
        return;
    }

    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
        lane->failed = 1;
    }

    if (ngx_agent_pg_answered(lane)) {
        /* each statement went well, and the commit of them all did not */
        lane->answered--;
        PQclear(lane->groups[lane->answered].res);
    }

    lane->groups[lane->answered++].res = res;
}


/* all groups of the present unit have a result: its Sync's is due */

static ngx_uint_t
ngx_agent_pg_answered(ngx_agent_pg_lane_t *lane)
{
    ngx_agent_pg_group_t  *g;

    g = &lane->groups[lane->answered];

    return lane->answered > lane->delivered
           && (lane->answered == lane->ngroups || g->unit != g[-1].unit);
}


/* the Sync of a unit: it is committed, or nothing of it happened */

static void
ngx_agent_pg_unit_done(ngx_agent_pg_lane_t *lane)
{
    ngx_uint_t  last;

    last = lane->answered;

    if (lane->failed) {
        lane->failed = 0;
        ngx_agent_pg_unit_failed(lane, last);

        if (lane->conn.broken) {
            ngx_agent_pg_conn_reset(&lane->conn, "it must be set up anew");
            return;
        }

    } else if (lane->delivered == 0 && last == lane->ngroups
               && lane->nwaiting >= NGX_AGENT_PG_MANY)
    {
        ngx_agent_pg_relay(lane);
        return;

    } else {
        while (lane->delivered < last) {
            ngx_agent_pg_deliver(lane, lane->calls,
                                 &lane->groups[lane->delivered++]);
        }
    }

    if (lane->delivered == lane->ngroups && lane->ncalls) {
        lane->ncalls = 0;
        ngx_agent_pg_watch(lane);

        lane->looks = 1;
        lane->seen = 0;
        ngx_post_event(&lane->send, &ngx_posted_next_events);
    }
}


/*
 * Under load the next batch goes first, and only then the calls of this one
 * are told: the database works while we do.
 */

static void
ngx_agent_pg_relay(ngx_agent_pg_lane_t *lane)
{
    ngx_uint_t  i, n;

    for (i = 0; i < lane->ncalls; i++) {
        lane->back[i] = lane->calls[i];

        if (lane->back[i]) {
            lane->back[i]->slot = &lane->back[i];
        }
    }

    n = lane->ngroups;
    ngx_memcpy(lane->told, lane->groups, n * sizeof(ngx_agent_pg_group_t));

    /* its results are not the lane's any more, also if nothing can go */

    lane->ncalls = 0;
    lane->ngroups = 0;

    ngx_agent_pg_send(lane);

    for (i = 0; i < n; i++) {
        ngx_agent_pg_deliver(lane, lane->back, &lane->told[i]);
    }

    ngx_agent_pg_watch(lane);
}


static void
ngx_agent_pg_deliver(ngx_agent_pg_lane_t *lane, ngx_agent_pg_call_t **calls,
    ngx_agent_pg_group_t *g)
{
    int                  *first, *rows;
    ngx_int_t             rc;
    ngx_uint_t            i;
    ngx_agent_pg_call_t  *call;
    ngx_agent_pg_rows_t   r;

    if (g->n == 0) {
        PQclear(g->res);
        g->res = NULL;
        return;
    }

    rc = ngx_agent_pg_index(g->res, &lane->conf->stmts[g->stmt], g->n, &first,
                            &rows, lane->conn.log);

    for (i = 0; i < g->n; i++) {
        call = calls[g->first + i];

        if (call == NULL) {
            continue;
        }

        calls[g->first + i] = NULL;
        call->slot = NULL;

        if (rc != NGX_OK) {
            call->handler(call, NGX_ABORT, NULL);
            continue;
        }

        r.res = g->res;
        r.rows = rows + first[i];
        r.n = first[i + 1] - first[i];

        call->handler(call, NGX_OK, &r);
    }

    if (rc == NGX_OK) {
        ngx_free(first);
    }

    PQclear(g->res);
    g->res = NULL;
}


static void
ngx_agent_pg_unit_failed(ngx_agent_pg_lane_t *lane, ngx_uint_t last)
{
    ngx_int_t              again;
    ngx_uint_t             i, n, live;
    const char            *state;
    PGresult              *res;
    ngx_agent_pg_group_t  *g;
    ngx_agent_pg_call_t   *call;

    state = "";
    res = NULL;
    live = 0;

    for (i = lane->delivered; i < last; i++) {
        g = &lane->groups[i];

        if (PQresultStatus(g->res) == PGRES_FATAL_ERROR && res == NULL) {
            res = g->res;
            state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
            state = state ? state : "";
        }

        live += g->n;
    }

    again = ngx_agent_pg_again(lane, state);

    /* from behind, as each goes to the front of the queue */

    for (i = last; i > lane->delivered; i--) {
        g = &lane->groups[i - 1];

        for (n = g->n; n > 0; n--) {
            call = lane->calls[g->first + n - 1];

            if (call == NULL) {
                continue;
            }

            if (live == 1 && !again) {
                ngx_agent_pg_refused(lane, call, res);
                continue;
            }

            call->solo = (live > 1) ? 1 : call->solo;
            ngx_agent_pg_requeue(lane, call);
        }
    }

    for (i = lane->delivered; i < last; i++) {
        PQclear(lane->groups[i].res);
        lane->groups[i].res = NULL;
    }

    lane->delivered = last;
}


/*
 * Errors that are not the call's fault: 40... serialization and deadlock,
 * 57P.. shutdown (but 57014 is a time limit).  25006: this host has become a
 * standby; 26000, 0A000: the prepared statements are gone or stale: those
 * need a new connection.
 */

static ngx_int_t
ngx_agent_pg_again(ngx_agent_pg_lane_t *lane, const char *state)
{
    if (ngx_strcmp(state, "25006") == 0 || ngx_strcmp(state, "26000") == 0
        || ngx_strcmp(state, "0A000") == 0)
    {
        lane->conn.broken = 1;
        return 1;
    }

    return ngx_strncmp(state, "40", 2) == 0 || ngx_strncmp(state, "57P", 3) == 0
           || ngx_strncmp(state, "08", 2) == 0;
}


/* neither DETAIL nor CONTEXT is logged: they quote the row */

static void
ngx_agent_pg_refused(ngx_agent_pg_lane_t *lane, ngx_agent_pg_call_t *call,
    PGresult *res)
{
    const char  *text, *state;

    text = res ? PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    state = res ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;

    ngx_log_error(NGX_LOG_ERR, call->log, 0,
                  "agent pg: \"%s\" failed: %s (%s)",
                  lane->conf->stmts[call->stmt].name, text ? text : "unknown",
                  state ? state : "-");

    *call->slot = NULL;
    call->slot = NULL;

    /* 55P03: a lock was not to be had in time; it may be later */

    call->handler(call, state && ngx_strcmp(state, "55P03") == 0 ? NGX_ABORT
                                                                 : NGX_ERROR,
                  NULL);
}
