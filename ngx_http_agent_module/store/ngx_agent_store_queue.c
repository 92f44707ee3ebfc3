
/*
 * The store's calls on steps that wait: claimed from the queue, put back into
 * it, freed from workers that are gone; and the registry of workers.
 */

#include "ngx_agent_store_pg.h"


/* ms of connection before one sweeps: others have renewed their leases */
#define NGX_AGENT_STORE_GRACE  15000

/* steps freed by one sweep */
#define NGX_AGENT_STORE_SWEEP  500

/* ms in front of what the last claim has found first: commits that were late */
#define NGX_AGENT_STORE_LATE   2000

/* batches in a second that are no work: the worker's own looks around */
#define NGX_AGENT_STORE_IDLE   6

/* ms without a renewal that make a step of ours one that we do not know */
#define NGX_AGENT_STORE_UNKNOWN  6000

/* agents whose place in the queue is remembered */
#define NGX_AGENT_STORE_PLACES  256


typedef struct {
    ngx_str_t                  agent;        /* the configuration's own */
    int64_t                    since;        /* ms since the epoch */
} ngx_agent_store_place_t;


typedef struct ngx_agent_store_lease_s  ngx_agent_store_lease_t;

typedef struct {
    ngx_agent_store_call_t    *call;
    ngx_agent_store_lease_t   *leases;
    ngx_uint_t                 n;
    ngx_uint_t                 left;         /* leases not answered yet */
} ngx_agent_store_renewal_t;


struct ngx_agent_store_lease_s {
    ngx_agent_store_renewal_t *renewal;
    ngx_agent_lease_t         *lease;
    ngx_agent_store_call_t     call;
};


static ngx_int_t ngx_agent_store_one_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_retry_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_agent_store_place_t *ngx_agent_store_place(ngx_str_t *agent);
static ngx_int_t ngx_agent_store_claim_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_claim_row(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows, ngx_uint_t i, ngx_agent_claim_t *claim);
static ngx_int_t ngx_agent_store_renew_one(ngx_agent_store_lease_t *l);
static ngx_int_t ngx_agent_store_renew_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static void ngx_agent_store_renew_done(ngx_agent_store_call_t *call);
static void ngx_agent_store_renew_count(ngx_agent_store_renewal_t *renewal);
static ngx_int_t ngx_agent_store_total_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_worker_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static void ngx_agent_store_replanned(ngx_agent_store_call_t *call);


static ngx_agent_store_place_t
    ngx_agent_store_places[NGX_AGENT_STORE_PLACES];
static ngx_uint_t  ngx_agent_store_nplaces;


ngx_int_t
ngx_agent_store_retry_step(ngx_agent_store_call_t *call)
{
    ngx_agent_step_t     *step;
    ngx_agent_pg_call_t  *pg;

    step = call->step;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_RETRY_STEP, &step->task_id,
                              ngx_agent_store_retry_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_id(pg, &step->task_id);
    ngx_agent_pg_int4(pg, (int32_t) step->seq);
    ngx_agent_pg_int4(pg, (int32_t) step->attempt);
    ngx_agent_pg_text(pg, &step->story);
    ngx_agent_pg_text(pg, &ngx_agent_store_owner);
    ngx_agent_pg_int4(pg, (int32_t) ngx_agent_store_conf->lease);

    pg->patient = 1;

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_retry_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    if (rows->n == 0) {
        return NGX_DECLINED;
    }

    call->step->attempt++;

    return NGX_OK;
}


static ngx_int_t
ngx_agent_store_one_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    return rows->n ? NGX_OK : NGX_DECLINED;
}


ngx_int_t
ngx_agent_store_requeue_step(ngx_agent_store_call_t *call)
{
    ngx_agent_step_t     *step;
    ngx_agent_pg_call_t  *pg;

    step = call->step;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_REQUEUE_STEP,
                              &step->task_id, ngx_agent_store_one_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_id(pg, &step->task_id);
    ngx_agent_pg_int4(pg, (int32_t) step->seq);
    ngx_agent_pg_int4(pg, (int32_t) step->attempt);
    ngx_agent_pg_text(pg, &step->story);
    ngx_agent_pg_text(pg, &call->task->agent);
    ngx_agent_pg_int8(pg, (int64_t) call->delay);
    ngx_agent_pg_bool(pg, call->spare);
    ngx_agent_pg_bool(pg, call->watched);

    pg->patient = 1;

    return ngx_agent_store_send(pg);
}


ngx_int_t
ngx_agent_store_claim(ngx_agent_store_call_t *call)
{
    int64_t                   since;
    ngx_agent_pg_call_t      *pg;
    ngx_agent_store_place_t  *place;

    place = ngx_agent_store_place(&call->task->agent);
    since = (call->queue || place == NULL) ? 0 : place->since;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_CLAIM, NULL,
                              ngx_agent_store_claim_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_text(pg, &call->task->agent);
    ngx_agent_pg_int4(pg, (int32_t) call->limit);
    ngx_agent_pg_int8(pg, since);
    ngx_agent_pg_text(pg, &ngx_agent_store_owner);
    ngx_agent_pg_int4(pg, (int32_t) ngx_agent_store_conf->lease);

    return ngx_agent_store_send(pg);
}


static ngx_agent_store_place_t *
ngx_agent_store_place(ngx_str_t *agent)
{
    ngx_uint_t                i;
    ngx_agent_store_place_t  *place;

    for (i = 0; i < ngx_agent_store_nplaces; i++) {
        place = &ngx_agent_store_places[i];

        if (place->agent.len == agent->len
            && ngx_memcmp(place->agent.data, agent->data, agent->len) == 0)
        {
            return place;
        }
    }

    if (i == NGX_AGENT_STORE_PLACES) {
        return NULL;
    }

    place = &ngx_agent_store_places[i];
    place->agent = *agent;
    place->since = 0;
    ngx_agent_store_nplaces++;

    return place;
}


/*
 * The next claim starts where this one has found its first step; a little
 * before, as those who commit late have older times.
 */

static ngx_int_t
ngx_agent_store_claim_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_uint_t                i;
    ngx_agent_claim_t        *claim;
    ngx_agent_store_place_t  *place;

    call->list = ngx_array_create(call->pool, rows->n + 1,
                                  sizeof(ngx_agent_claim_t));
    if (call->list == NULL) {
        return NGX_ERROR;
    }

    place = ngx_agent_store_place(&call->task->agent);

    for (i = 0; i < rows->n; i++) {

        if (i == 0 && place) {
            place->since = ngx_agent_pg_get_int(rows, 0, 8)
                           - NGX_AGENT_STORE_LATE;
        }

        claim = ngx_array_push(call->list);
        if (claim == NULL) {
            return NGX_ERROR;
        }

        if (ngx_agent_store_claim_row(call, rows, i, claim) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_agent_store_claim_row(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows, ngx_uint_t i, ngx_agent_claim_t *claim)
{
    ngx_str_t         *s[6];
    ngx_agent_step_t  *step;

    ngx_memzero(claim, sizeof(ngx_agent_claim_t));

    step = &claim->step;
    ngx_agent_pg_get_id(rows, i, 1, &claim->task.id);
    step->task_id = claim->task.id;
    ngx_agent_pg_get_id(rows, i, 2, &step->id);
    step->seq = ngx_agent_pg_get_int(rows, i, 3);
    step->attempt = ngx_agent_pg_get_int(rows, i, 4);
    step->spared = ngx_agent_pg_get_int(rows, i, 5);
    step->redacted = ngx_agent_pg_get_bool(rows, i, 6) ? 1 : 0;
    claim->watched = ngx_agent_pg_get_bool(rows, i, 7) ? 1 : 0;

    claim->unknown = ngx_agent_pg_get_bool(rows, i, 15) ? 1 : 0;

    s[0] = &claim->tenant;
    s[1] = &claim->task.agent;
    s[2] = &claim->task.input;
    s[3] = &step->input;
    s[4] = &step->additional_input;
    s[5] = &step->story;

    return ngx_agent_store_texts(call, rows, i, 9, 6, s);
}


/*
 * Each lease is a call of its own, and the batch makes one statement of them:
 * a row that does not come back is a lease that is lost.
 */

ngx_int_t
ngx_agent_store_renew(ngx_agent_store_call_t *call)
{
    ngx_uint_t                  i, n;
    ngx_agent_lease_t          *lease;
    ngx_agent_store_lease_t    *l;
    ngx_agent_store_renewal_t  *renewal;

    n = call->list->nelts;
    lease = call->list->elts;

    renewal = ngx_palloc(call->pool, sizeof(ngx_agent_store_renewal_t));
    l = ngx_pcalloc(call->pool, n * sizeof(ngx_agent_store_lease_t));

    if (renewal == NULL || l == NULL) {
        return NGX_ABORT;
    }

    renewal->call = call;
    renewal->leases = l;
    renewal->n = n;
    renewal->left = 0;
    call->pg = renewal;
    call->rc = NGX_OK;

    for (i = 0; i < n; i++) {
        l[i].renewal = renewal;
        l[i].lease = &lease[i];

        if (ngx_agent_store_renew_one(&l[i]) == NGX_AGAIN) {
            renewal->left++;
        }
    }

    return renewal->left ? NGX_AGAIN : NGX_ABORT;
}


void
ngx_agent_store_renew_stop(ngx_agent_store_call_t *call)
{
    ngx_uint_t                  i;
    ngx_agent_store_renewal_t  *renewal;

    renewal = call->pg;

    for (i = 0; i < renewal->n; i++) {
        ngx_agent_store_detach(&renewal->leases[i].call);
    }
}


static ngx_int_t
ngx_agent_store_renew_one(ngx_agent_store_lease_t *l)
{
    ngx_agent_lease_t       *lease;
    ngx_agent_pg_call_t     *pg;
    ngx_agent_store_call_t  *call;

    lease = l->lease;

    call = &l->call;
    call->pool = l->renewal->call->pool;
    call->log = l->renewal->call->log;
    call->handler = ngx_agent_store_renew_done;
    call->data = l;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_RENEW, &lease->task_id,
                              ngx_agent_store_renew_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_id(pg, &lease->task_id);
    ngx_agent_pg_int4(pg, (int32_t) lease->seq);
    ngx_agent_pg_int4(pg, (int32_t) lease->attempt);
    ngx_agent_pg_int4(pg, (int32_t) ngx_agent_store_conf->lease);

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_renew_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_agent_store_lease_t  *l;

    l = call->data;
    l->lease->lost = (rows->n == 0);

    return NGX_OK;
}


static void
ngx_agent_store_renew_done(ngx_agent_store_call_t *call)
{
    ngx_agent_store_lease_t  *l;

    l = call->data;

    if (call->rc != NGX_OK) {
        l->renewal->call->rc = call->rc;
    }

    ngx_agent_store_renew_count(l->renewal);
}


static void
ngx_agent_store_renew_count(ngx_agent_store_renewal_t *renewal)
{
    if (--renewal->left == 0) {
        renewal->call->handler(renewal->call);
    }
}


ngx_int_t
ngx_agent_store_sweep(ngx_agent_store_call_t *call)
{
    ngx_agent_pg_call_t  *pg;

    if (ngx_agent_pg_uptime(NGX_AGENT_PG_WRITER) < NGX_AGENT_STORE_GRACE) {
        return NGX_ABORT;
    }

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_SWEEP, NULL,
                              ngx_agent_store_total_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_int4(pg, NGX_AGENT_STORE_SWEEP);

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_total_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    call->total = rows->n ? ngx_agent_pg_get_int(rows, 0, 0) : 0;

    return NGX_OK;
}


ngx_int_t
ngx_agent_store_orphans(ngx_agent_store_call_t *call)
{
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_ORPHANS, NULL,
                              ngx_agent_store_total_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_text(pg, &ngx_agent_store_owner);
    ngx_agent_pg_int4(pg, (int32_t) ngx_agent_store_conf->lease
                          - NGX_AGENT_STORE_UNKNOWN);

    return ngx_agent_store_send(pg);
}


ngx_int_t
ngx_agent_store_expire(ngx_agent_store_call_t *call)
{
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_EXPIRE, NULL,
                              ngx_agent_store_total_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_int8(pg, (int64_t) ngx_agent_store_conf->patience);

    return ngx_agent_store_send(pg);
}


ngx_int_t
ngx_agent_store_depth(ngx_agent_store_call_t *call)
{
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_DEPTH, NULL,
                              ngx_agent_store_total_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_int8(pg, (int64_t) call->limit);

    return ngx_agent_store_send(pg);
}


ngx_int_t
ngx_agent_store_register(ngx_agent_store_call_t *call)
{
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_REGISTER, NULL, NULL);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_text(pg, &ngx_agent_store_owner);
    ngx_agent_pg_text(pg, &ngx_agent_store_host);
    ngx_agent_pg_int4(pg, (int32_t) ngx_pid);
    ngx_agent_pg_int8(pg, ngx_agent_store_born);

    return ngx_agent_store_send(pg);
}


ngx_int_t
ngx_agent_store_neighbours(ngx_agent_store_call_t *call)
{
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_NEIGHBOURS, NULL,
                              ngx_agent_store_worker_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_text(pg, &ngx_agent_store_host);
    ngx_agent_pg_text(pg, &ngx_agent_store_owner);

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_worker_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_uint_t           i;
    ngx_agent_worker_t  *worker;

    call->list = ngx_array_create(call->pool, rows->n + 1,
                                  sizeof(ngx_agent_worker_t));
    if (call->list == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < rows->n; i++) {

        worker = ngx_array_push(call->list);
        if (worker == NULL) {
            return NGX_ERROR;
        }

        worker->pid = (ngx_pid_t) ngx_agent_pg_get_int(rows, i, 1);
        worker->born = ngx_agent_pg_get_int(rows, i, 2);

        if (ngx_agent_store_text(call, rows, i, 0, &worker->name) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_agent_store_bury(ngx_agent_store_call_t *call)
{
    ngx_str_t            *names;
    ngx_uint_t            i;
    ngx_agent_worker_t   *worker;
    ngx_agent_pg_call_t  *pg;

    worker = call->list->elts;

    names = ngx_palloc(call->pool, call->list->nelts * sizeof(ngx_str_t));
    if (names == NULL) {
        return NGX_ABORT;
    }

    for (i = 0; i < call->list->nelts; i++) {
        names[i] = worker[i].name;
    }

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_BURY, NULL,
                              ngx_agent_store_total_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    if (ngx_agent_pg_texts(pg, call->pool, names, call->list->nelts)
        != NGX_OK)
    {
        return NGX_ABORT;
    }

    return ngx_agent_store_send(pg);
}


/* a call with no caller: it has a pool of its own and frees it itself */

void
ngx_agent_store_replan(void)
{
    ngx_uint_t               lane;
    ngx_pool_t              *pool;
    ngx_agent_pg_call_t     *pg;
    ngx_agent_store_call_t  *call;

    static ngx_uint_t        replanned[NGX_AGENT_PG_LANES];

    for (lane = 0; lane < NGX_AGENT_PG_LANES; lane++) {

        if (ngx_agent_pg_batches(lane) - replanned[lane]
            < NGX_AGENT_STORE_IDLE)
        {
            /* idle, or away */
            continue;
        }

        pool = ngx_create_pool(512, ngx_cycle->log);
        if (pool == NULL) {
            return;
        }

        call = ngx_pcalloc(pool, sizeof(ngx_agent_store_call_t));
        if (call == NULL) {
            ngx_destroy_pool(pool);
            return;
        }

        call->pool = pool;
        call->log = ngx_cycle->log;
        call->handler = ngx_agent_store_replanned;

        pg = ngx_agent_store_call(call, NGX_AGENT_SQL_REPLAN, NULL, NULL);
        if (pg == NULL) {
            ngx_destroy_pool(pool);
            return;
        }

        pg->lane = lane;

        /* its own batch, if it is one, counts as idle next time */
        replanned[lane] = ngx_agent_pg_batches(lane) + 1;

        if (ngx_agent_store_send(pg) != NGX_AGAIN) {
            ngx_destroy_pool(pool);
        }
    }
}


static void
ngx_agent_store_replanned(ngx_agent_store_call_t *call)
{
    ngx_destroy_pool(call->pool);
}
