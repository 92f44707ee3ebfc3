
/*
 * The store's calls on steps that wait: claimed from the queue, put back into
 * it, freed from workers that are gone; and the registry of workers.
 */

#include "ngx_agent_store_pg.h"
#include "ngx_agent_json.h"


/* ms of connection before one sweeps: others have renewed their leases */
#define NGX_AGENT_STORE_GRACE  15000

/*
 * What looks at rows of many tenants and may have to wait for them ("solo")
 * is a transaction of its own: in a batch it would hold the locks of others
 * meanwhile.
 */

/* steps freed by one sweep */
#define NGX_AGENT_STORE_SWEEP  500

/* ms in front of what the last claim has found first: commits that were late */
#define NGX_AGENT_STORE_LATE   2000

/* batches in a second that are no work: the worker's own looks around */
#define NGX_AGENT_STORE_IDLE   6

/* ms without a renewal that make a step of ours one that we do not know */
#define NGX_AGENT_STORE_UNKNOWN  6000

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
static ngx_int_t ngx_agent_store_claim_lines(ngx_agent_store_call_t *call,
    ngx_str_t *text, ngx_uint_t *wait);
static ngx_int_t ngx_agent_store_lines_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
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
static ngx_int_t ngx_agent_store_registered(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_worker_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static void ngx_agent_store_replanned(ngx_agent_store_call_t *call);


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
    ngx_agent_store_text_or_null(pg, &step->trace);
    ngx_agent_pg_json(pg, &step->turns);

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
    ngx_agent_store_text_or_null(pg, &step->trace);
    ngx_agent_pg_json(pg, &step->turns);

    pg->patient = 1;

    return ngx_agent_store_send(pg);
}


ngx_int_t
ngx_agent_store_claim(ngx_agent_store_call_t *call)
{
    ngx_str_t             lines;
    ngx_uint_t            wait;
    ngx_agent_pg_call_t  *pg;

    wait = 0;

    if (ngx_agent_store_claim_lines(call, &lines, &wait) != NGX_OK) {
        return NGX_ABORT;
    }

    pg = ngx_agent_store_call_all(call, NGX_AGENT_SQL_CLAIM,
                                  ngx_agent_store_claim_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_text(pg, &call->task->agent);
    ngx_agent_pg_json(pg, &lines);
    ngx_agent_pg_text(pg, &ngx_agent_store_owner);
    ngx_agent_pg_int4(pg, (int32_t) ngx_agent_store_conf->lease);

    /* one that may wait for a tenant's limits holds nothing else */
    pg->solo = wait ? 1 : 0;

    return ngx_agent_store_send(pg);
}


/* the lines as JSON; all of them together take no more than "limit" */

static ngx_int_t
ngx_agent_store_claim_lines(ngx_agent_store_call_t *call, ngx_str_t *text,
    ngx_uint_t *wait)
{
    ngx_uint_t         i, left;
    ngx_agent_json_t   j;
    ngx_agent_line_t  *line;

    left = call->limit;
    line = call->lines->elts;

    ngx_agent_json_init(&j, call->pool, 64 * (call->lines->nelts + 1));
    ngx_agent_json_array(&j);

    for (i = 0; i < call->lines->nelts; i++) {
        line[i].share = ngx_min(line[i].share, left);
        line[i].taken = 0;
        left -= line[i].share;
        *wait |= line[i].limited;

        ngx_agent_json_object(&j);
        ngx_agent_json_key(&j, "tenant");
        ngx_agent_json_string(&j, &line[i].tenant);
        ngx_agent_json_key(&j, "share");
        ngx_agent_json_int(&j, (int64_t) line[i].share);
        ngx_agent_json_key(&j, "since");
        ngx_agent_json_int(&j, line[i].since);
        ngx_agent_json_key(&j, "wait");
        ngx_agent_json_bool(&j, line[i].limited);
        ngx_agent_json_object_end(&j);

        line[i].limited = 0;
    }

    ngx_agent_json_array_end(&j);

    return ngx_agent_json_done(&j, text);
}


/*
 * A row at least for each line.  The next claim starts where this one has
 * found the line's first step; a little before, as those who commit late have
 * older times.
 */

static ngx_int_t
ngx_agent_store_claim_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_uint_t          i, n;
    ngx_agent_line_t   *line;
    ngx_agent_claim_t  *claim;

    call->list = ngx_array_create(call->pool, rows->n + 1,
                                  sizeof(ngx_agent_claim_t));
    if (call->list == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < rows->n; i++) {

        n = (ngx_uint_t) ngx_agent_pg_get_int(rows, i, 0) - 1;

        if (n >= call->lines->nelts) {
            return NGX_ERROR;
        }

        line = &((ngx_agent_line_t *) call->lines->elts)[n];
        line->limited = ngx_agent_pg_get_bool(rows, i, 1) ? 1 : 0;

        if (ngx_agent_pg_is_null(rows, i, 2)) {
            continue;
        }

        if (line->taken++ == 0) {
            line->since = ngx_agent_pg_get_int(rows, i, 9)
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


ngx_int_t
ngx_agent_store_lines(ngx_agent_store_call_t *call)
{
    if (ngx_agent_pg_uptime(NGX_AGENT_PG_READER) == 0) {
        /* it comes again; what waits meanwhile is to be clients' calls */
        return NGX_ABORT;
    }

    return ngx_agent_store_send(ngx_agent_store_call_all(call,
                        NGX_AGENT_SQL_LINES, ngx_agent_store_lines_rows));
}


static ngx_int_t
ngx_agent_store_lines_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_str_t         *s[2];
    ngx_uint_t         i;
    ngx_agent_line_t  *line;

    call->list = ngx_array_create(call->pool, rows->n + 1,
                                  sizeof(ngx_agent_line_t));
    if (call->list == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < rows->n; i++) {

        line = ngx_array_push(call->list);
        if (line == NULL) {
            return NGX_ERROR;
        }

        ngx_memzero(line, sizeof(ngx_agent_line_t));
        s[0] = &line->agent;
        s[1] = &line->tenant;

        if (ngx_agent_store_texts(call, rows, i, 0, 2, s) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_agent_store_claim_row(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows, ngx_uint_t i, ngx_agent_claim_t *claim)
{
    ngx_str_t         *s[7];
    ngx_agent_step_t  *step;

    ngx_memzero(claim, sizeof(ngx_agent_claim_t));

    step = &claim->step;
    ngx_agent_pg_get_id(rows, i, 2, &claim->task.id);
    step->task_id = claim->task.id;
    ngx_agent_pg_get_id(rows, i, 3, &step->id);
    step->seq = ngx_agent_pg_get_int(rows, i, 4);
    step->attempt = ngx_agent_pg_get_int(rows, i, 5);
    step->spared = ngx_agent_pg_get_int(rows, i, 6);
    step->redacted = ngx_agent_pg_get_bool(rows, i, 7) ? 1 : 0;
    claim->watched = ngx_agent_pg_get_bool(rows, i, 8) ? 1 : 0;

    claim->unknown = ngx_agent_pg_get_bool(rows, i, 17) ? 1 : 0;

    s[0] = &claim->tenant;
    s[1] = &claim->task.agent;
    s[2] = &claim->task.input;
    s[3] = &step->input;
    s[4] = &step->additional_input;
    s[5] = &step->story;
    s[6] = &step->traceparent;

    return ngx_agent_store_texts(call, rows, i, 10, 7, s);
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
    call->tenant = lease->tenant;

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

    pg = ngx_agent_store_call_all(call, NGX_AGENT_SQL_SWEEP,
                                  ngx_agent_store_total_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_int4(pg, NGX_AGENT_STORE_SWEEP);
    pg->solo = 1;

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

    pg = ngx_agent_store_call_all(call, NGX_AGENT_SQL_ORPHANS,
                                  ngx_agent_store_total_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_text(pg, &ngx_agent_store_owner);
    ngx_agent_pg_int4(pg, (int32_t) ngx_agent_store_conf->lease
                          - NGX_AGENT_STORE_UNKNOWN);
    pg->solo = 1;

    return ngx_agent_store_send(pg);
}


ngx_int_t
ngx_agent_store_expire(ngx_agent_store_call_t *call)
{
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call_all(call, NGX_AGENT_SQL_EXPIRE,
                                  ngx_agent_store_total_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_int8(pg, (int64_t) ngx_agent_store_conf->patience);
    pg->solo = 1;

    return ngx_agent_store_send(pg);
}


ngx_int_t
ngx_agent_store_depth(ngx_agent_store_call_t *call)
{
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call_all(call, NGX_AGENT_SQL_DEPTH,
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

    pg = ngx_agent_store_call_all(call, NGX_AGENT_SQL_REGISTER,
                                  ngx_agent_store_registered);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_text(pg, &ngx_agent_store_owner);
    ngx_agent_pg_text(pg, &ngx_agent_store_host);
    ngx_agent_pg_int4(pg, (int32_t) ngx_pid);
    ngx_agent_pg_int8(pg, ngx_agent_store_born);
    ngx_agent_store_text_or_null(pg, &ngx_agent_store_trace_mark);
    ngx_agent_store_text_or_null(pg, &ngx_agent_store_trace_part);

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_registered(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_agent_store_trace_known = 1;

    return NGX_OK;
}


ngx_int_t
ngx_agent_store_neighbours(ngx_agent_store_call_t *call)
{
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call_all(call, NGX_AGENT_SQL_NEIGHBOURS,
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

    pg = ngx_agent_store_call_all(call, NGX_AGENT_SQL_BURY,
                                  ngx_agent_store_total_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    if (ngx_agent_pg_texts(pg, call->pool, names, call->list->nelts)
        != NGX_OK)
    {
        return NGX_ABORT;
    }

    pg->solo = 1;

    return ngx_agent_store_send(pg);
}


/* a call with no caller: it has a pool of its own and frees it itself */

void
ngx_agent_store_replan(void)
{
    ngx_uint_t               lane;
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

        call = ngx_agent_store_call_create(512, ngx_cycle->log,
                                           ngx_agent_store_replanned);
        if (call == NULL) {
            return;
        }

        pg = ngx_agent_store_call(call, NGX_AGENT_SQL_REPLAN, NULL, NULL);
        if (pg == NULL) {
            ngx_destroy_pool(call->pool);
            return;
        }

        /* it sees no rows */
        ngx_str_set(&pg->scope, "");
        pg->lane = lane;

        /* its own batch, if it is one, counts as idle next time */
        replanned[lane] = ngx_agent_pg_batches(lane) + 1;

        if (ngx_agent_store_send(pg) != NGX_AGAIN) {
            ngx_destroy_pool(call->pool);
        }
    }
}


static void
ngx_agent_store_replanned(ngx_agent_store_call_t *call)
{
    ngx_destroy_pool(call->pool);
}
