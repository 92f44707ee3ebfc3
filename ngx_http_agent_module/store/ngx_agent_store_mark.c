
/*
 * Page marks: every 1000th task of a tenant has its rank noted, so that the
 * last page of a million tasks costs what the first one does.  Marks are made
 * behind the tasks that may still be on their way to the database, a few at a
 * time so that no batch waits long for them.
 */

#include "ngx_agent_store_pg.h"


#define NGX_AGENT_MARKS          20      /* at a time: 20,000 index entries */
#define NGX_AGENT_MARK_PAUSE     1000    /* ms between tries with no result */

/* ms: a silent batch lives for 10 s (see io/), and clocks disagree */
#define NGX_AGENT_MARK_MARGIN    15000


static ngx_int_t ngx_agent_store_mark_send(ngx_agent_store_call_t *call);
static ngx_int_t ngx_agent_store_mark_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static void ngx_agent_store_mark_handler(ngx_agent_store_call_t *call);
static void ngx_agent_store_mark_horizon(ngx_agent_id_t *id);


/* one tenant at a time; one that is passed over comes with its next list */

static ngx_agent_store_call_t  *ngx_agent_mark;
static ngx_msec_t               ngx_agent_mark_next;


void
ngx_agent_store_mark(ngx_str_t *tenant, ngx_log_t *log)
{
    ngx_agent_store_call_t  *call;

    if (ngx_agent_mark
        || (ngx_msec_int_t) (ngx_current_msec - ngx_agent_mark_next) < 0)
    {
        return;
    }

    call = ngx_agent_store_call_create(1024, ngx_cycle->log,
                                       ngx_agent_store_mark_handler);
    if (call == NULL) {
        return;
    }

    call->tenant.len = tenant->len;
    call->tenant.data = ngx_pstrdup(call->pool, tenant);

    if (call->tenant.data == NULL
        || ngx_agent_store_mark_send(call) != NGX_AGAIN)
    {
        ngx_destroy_pool(call->pool);
        return;
    }

    ngx_agent_mark = call;
}


void
ngx_agent_store_mark_exit(void)
{
    if (ngx_agent_mark) {
        ngx_destroy_pool(ngx_agent_mark->pool);
        ngx_agent_mark = NULL;
    }
}


static ngx_int_t
ngx_agent_store_mark_send(ngx_agent_store_call_t *call)
{
    ngx_agent_id_t       *id;
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_MARK, NULL,
                              ngx_agent_store_mark_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    id = ngx_palloc(call->pool, sizeof(ngx_agent_id_t));
    if (id == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_store_mark_horizon(id);

    ngx_agent_pg_text(pg, &call->tenant);
    ngx_agent_pg_id(pg, id);
    ngx_agent_pg_int4(pg, NGX_AGENT_MARKS);

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_mark_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    call->total = ngx_agent_pg_get_int(rows, 0, 0);
    return NGX_OK;
}


static void
ngx_agent_store_mark_handler(ngx_agent_store_call_t *call)
{
    ngx_str_t    tenant;
    ngx_uint_t   more;
    ngx_pool_t  *pool;

    pool = call->pool;
    tenant = call->tenant;
    more = (call->rc == NGX_OK && call->total >= NGX_AGENT_MARKS - 1);

    ngx_agent_mark = NULL;
    ngx_agent_mark_next = ngx_current_msec
                          + (more ? 0 : NGX_AGENT_MARK_PAUSE);

    if (more && !ngx_exiting) {
        ngx_agent_store_mark(&tenant, ngx_cycle->log);
    }

    ngx_destroy_pool(pool);
}


/*
 * The smallest id of a moment so long ago that no task with a smaller one can
 * still be waiting to be written.
 */

static void
ngx_agent_store_mark_horizon(ngx_agent_id_t *id)
{
    uint64_t     ms;
    ngx_uint_t   i;
    ngx_time_t  *tp;

    tp = ngx_timeofday();
    ms = (uint64_t) tp->sec * 1000 + tp->msec
         - 2 * ngx_agent_store_conf->wait - NGX_AGENT_MARK_MARGIN;

    ngx_memzero(id, sizeof(ngx_agent_id_t));

    for (i = 0; i < 6; i++) {
        id->bytes[i] = (u_char) (ms >> (40 - 8 * i));
    }
}
