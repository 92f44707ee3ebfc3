
/*
 * The Postgres store: its start and end, and what all its calls share.
 */

#include "ngx_agent_store_pg.h"
#include "ngx_agent_proc.h"


typedef struct {
    ngx_agent_store_call_t    *call;
    ngx_agent_store_rows_pt    rows;
    ngx_agent_pg_call_t        pg;           /* last: it has a tail */
} ngx_agent_store_pg_t;


static ngx_int_t ngx_agent_store_name(ngx_cycle_t *cycle);
static ngx_int_t ngx_agent_store_scope(ngx_agent_store_call_t *call);
static void ngx_agent_store_hear(const char *channel, const char *payload);
static void ngx_agent_store_done(ngx_agent_pg_call_t *pg, ngx_int_t rc,
    ngx_agent_pg_rows_t *rows);


ngx_str_t                ngx_agent_store_owner;
ngx_str_t                ngx_agent_store_host;
int64_t                  ngx_agent_store_born;
ngx_agent_store_conf_t  *ngx_agent_store_conf;

static ngx_agent_news_pt  ngx_agent_store_listener;

/* those that write, then those that read */
static ngx_agent_pg_stmt_t  ngx_agent_store_stmts[NGX_AGENT_SQL_N];


char *
ngx_agent_store_check(ngx_pool_t *pool, ngx_agent_store_conf_t *conf)
{
    conf->target = ngx_pcalloc(pool, sizeof(ngx_agent_pg_target_t));
    if (conf->target == NULL) {
        return "no memory";
    }

    return ngx_agent_pg_target(pool, &conf->conninfo, conf->target);
}


ngx_int_t
ngx_agent_store_init(ngx_cycle_t *cycle, ngx_agent_store_conf_t *conf)
{
    ngx_agent_pg_conf_t  *pg;

    pg = ngx_pcalloc(cycle->pool, sizeof(ngx_agent_pg_conf_t));
    if (pg == NULL) {
        return NGX_ERROR;
    }

    pg->target = *(ngx_agent_pg_target_t *) conf->target;
    ngx_memcpy(ngx_agent_store_stmts, ngx_agent_store_sql_writes,
               NGX_AGENT_SQL_NEIGHBOURS * sizeof(ngx_agent_pg_stmt_t));
    ngx_memcpy(&ngx_agent_store_stmts[NGX_AGENT_SQL_NEIGHBOURS],
               ngx_agent_store_sql_reads,
               (NGX_AGENT_SQL_N - NGX_AGENT_SQL_NEIGHBOURS)
               * sizeof(ngx_agent_pg_stmt_t));

    pg->stmts = ngx_agent_store_stmts;
    pg->nstmts = NGX_AGENT_SQL_N;
    pg->scope[NGX_AGENT_PG_WRITER] = NGX_AGENT_SQL_ENTER;
    pg->scope[NGX_AGENT_PG_READER] = NGX_AGENT_SQL_LOOK;
    pg->setup = conf->prepared ? ngx_agent_store_setup
                               : ngx_agent_store_setup_pooled;
    pg->version = NGX_AGENT_SCHEMA;
    pg->wait = conf->wait;
    pg->queue = conf->queue;
    pg->prepared = conf->prepared ? 1 : 0;

    pg->listen = conf->prepared ? ngx_agent_store_listen : NULL;
    pg->news = ngx_agent_store_hear;

    if (ngx_agent_store_name(cycle) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_agent_store_conf = conf;

    return ngx_agent_pg_init(cycle, pg);
}


/* who this process is, to others of its host and to those who look at rows */

static ngx_int_t
ngx_agent_store_name(ngx_cycle_t *cycle)
{
    u_char  *p;

    p = ngx_pnalloc(cycle->pool, NGX_AGENT_PROC_HOST);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_agent_proc_host(&cycle->hostname, p, &ngx_agent_store_host);
    ngx_agent_store_born = ngx_agent_proc_born(ngx_pid);

    p = ngx_pnalloc(cycle->pool, ngx_agent_store_host.len
                                 + 2 * NGX_INT64_LEN + 2);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_agent_store_owner.data = p;
    ngx_agent_store_owner.len = ngx_sprintf(p, "%V:%P:%L",
                                            &ngx_agent_store_host, ngx_pid,
                                            ngx_agent_store_born)
                                - p;

    return NGX_OK;
}


void
ngx_agent_store_news(ngx_agent_news_pt handler)
{
    ngx_agent_store_listener = handler;
}


static void
ngx_agent_store_hear(const char *channel, const char *payload)
{
    ngx_str_t   text;
    ngx_uint_t  i;

    static const char  *channels[] = {
        "agent_work", "agent_ended", "agent_cancelled", "agent_keys"
    };

    for (i = 0; i < sizeof(channels) / sizeof(channels[0]); i++) {

        if (ngx_strcmp(channel, channels[i]) == 0 && ngx_agent_store_listener) {
            text.data = (u_char *) payload;
            text.len = ngx_strlen(payload);

            ngx_agent_store_listener((ngx_agent_news_e) i, &text);
            return;
        }
    }
}


ngx_uint_t
ngx_agent_store_hears(void)
{
    return ngx_agent_store_conf->prepared
           && ngx_agent_pg_uptime(NGX_AGENT_PG_READER) > 0;
}


ngx_uint_t
ngx_agent_store_connection(void)
{
    ngx_uint_t  writer;

    writer = ngx_agent_pg_number(NGX_AGENT_PG_WRITER);

    return writer ? writer + ngx_agent_pg_number(NGX_AGENT_PG_READER) : 0;
}


void
ngx_agent_store_release(void)
{
    ngx_agent_pg_release();
}


void
ngx_agent_store_exit(ngx_cycle_t *cycle)
{
    ngx_agent_pg_exit();
    ngx_agent_store_mark_exit();
}


ngx_agent_store_call_t *
ngx_agent_store_call_create(size_t size, ngx_log_t *log,
    ngx_agent_store_pt handler)
{
    ngx_pool_t              *pool;
    ngx_agent_store_call_t  *call;

    pool = ngx_create_pool(size, log);
    if (pool == NULL) {
        return NULL;
    }

    call = ngx_pcalloc(pool, sizeof(ngx_agent_store_call_t));
    if (call == NULL) {
        ngx_destroy_pool(pool);
        return NULL;
    }

    call->pool = pool;
    call->log = log;
    call->handler = handler;

    return call;
}


ngx_agent_pg_call_t *
ngx_agent_store_call(ngx_agent_store_call_t *call, ngx_agent_sql_e stmt,
    const ngx_agent_id_t *key, ngx_agent_store_rows_pt rows)
{
    size_t                 size;
    ngx_agent_store_pg_t  *s;

    size = offsetof(ngx_agent_store_pg_t, pg)
           + ngx_agent_pg_call_size(ngx_agent_store_stmts[stmt].nparams);

    s = ngx_pcalloc(call->pool, size);
    if (s == NULL) {
        return NULL;
    }

    s->call = call;
    s->rows = rows;

    s->pg.handler = ngx_agent_store_done;
    s->pg.data = s;
    s->pg.log = call->log;
    s->pg.stmt = stmt;
    s->pg.lane = stmt < NGX_AGENT_SQL_NEIGHBOURS ? NGX_AGENT_PG_WRITER
                                               : NGX_AGENT_PG_READER;
    if (key) {
        s->pg.key = *key;
    }

    call->pg = &s->pg;
    call->rc = NGX_AGAIN;

    /* a tenant that is not set is the default one, '', and never null */

    if (call->tenant.data == NULL) {
        ngx_str_set(&call->tenant, "");
    }

    return ngx_agent_store_scope(call) == NGX_OK ? &s->pg : NULL;
}


/* whose rows the call may see, as agent.enter() in sql/ takes it */

static ngx_int_t
ngx_agent_store_scope(ngx_agent_store_call_t *call)
{
    ngx_str_t            *scope;
    ngx_agent_pg_call_t  *pg;

    pg = call->pg;
    scope = &pg->scope;

    if (call->all) {
        pg->late = 1;
        ngx_str_set(scope, "*");
        return NGX_OK;
    }

    if (call->tenant.len == 0) {
        ngx_str_set(scope, "=");
        return NGX_OK;
    }

    scope->len = call->tenant.len + 1;
    scope->data = ngx_pnalloc(call->pool, scope->len);
    if (scope->data == NULL) {
        return NGX_ERROR;
    }

    scope->data[0] = '=';
    ngx_memcpy(scope->data + 1, call->tenant.data, call->tenant.len);

    return NGX_OK;
}


ngx_agent_pg_call_t *
ngx_agent_store_call_all(ngx_agent_store_call_t *call, ngx_agent_sql_e stmt,
    ngx_agent_store_rows_pt rows)
{
    call->all = 1;

    return ngx_agent_store_call(call, stmt, NULL, rows);
}


ngx_int_t
ngx_agent_store_list(ngx_agent_store_call_t *call, ngx_agent_sql_e stmt,
    ngx_agent_store_rows_pt rows)
{
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call(call, stmt, &call->task->id, rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_id(pg, &call->task->id);
    ngx_agent_pg_text(pg, &call->tenant);
    ngx_agent_store_page(pg, call->page);

    return ngx_agent_store_send(pg);
}


void
ngx_agent_store_page(ngx_agent_pg_call_t *pg, ngx_agent_page_t *page)
{
    ngx_agent_pg_int8(pg, (int64_t) (page->number - 1) * page->size);
    ngx_agent_pg_int4(pg, (int32_t) page->size);
    ngx_agent_pg_bool(pg, page->desc);
}


ngx_int_t
ngx_agent_store_send(ngx_agent_pg_call_t *pg)
{
    if (pg == NULL) {
        return NGX_ABORT;
    }

    return ngx_agent_pg_call(pg);
}


void
ngx_agent_store_detach(ngx_agent_store_call_t *call)
{
    if (call->pg) {
        ngx_agent_pg_detach(call->pg);
        call->pg = NULL;
    }
}


static void
ngx_agent_store_done(ngx_agent_pg_call_t *pg, ngx_int_t rc,
    ngx_agent_pg_rows_t *rows)
{
    ngx_agent_store_pg_t    *s;
    ngx_agent_store_call_t  *call;

    s = pg->data;
    call = s->call;

    call->pg = NULL;
    call->rc = rc;

    if (rc == NGX_OK && s->rows) {
        call->rc = s->rows(call, rows);

        if (call->rc == NGX_AGAIN) {
            /* it takes another statement, whose end comes by here again */
            return;
        }
    }

    call->handler(call);
}


ngx_int_t
ngx_agent_store_text(ngx_agent_store_call_t *call, ngx_agent_pg_rows_t *rows,
    ngx_uint_t i, int col, ngx_str_t *s)
{
    ngx_str_t  text;

    text = ngx_agent_pg_get_text(rows, i, col);
    *s = text;

    if (text.data == NULL) {
        return NGX_OK;
    }

    s->data = ngx_pnalloc(call->pool, text.len ? text.len : 1);
    if (s->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(s->data, text.data, text.len);

    return NGX_OK;
}


ngx_int_t
ngx_agent_store_texts(ngx_agent_store_call_t *call, ngx_agent_pg_rows_t *rows,
    ngx_uint_t i, int col, ngx_uint_t n, ngx_str_t *s[])
{
    ngx_uint_t  k;

    for (k = 0; k < n; k++) {
        if (ngx_agent_store_text(call, rows, i, col + (int) k, s[k])
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


void
ngx_agent_store_id_or_null(ngx_agent_pg_call_t *pg, const ngx_agent_id_t *id)
{
    if (id) {
        ngx_agent_pg_id(pg, id);

    } else {
        ngx_agent_pg_null(pg);
    }
}


void
ngx_agent_store_text_or_null(ngx_agent_pg_call_t *pg, ngx_str_t *s)
{
    if (s->len) {
        ngx_agent_pg_text(pg, s);

    } else {
        ngx_agent_pg_null(pg);
    }
}


ngx_int_t
ngx_agent_store_quota(ngx_agent_store_call_t *call, ngx_agent_pg_rows_t *rows,
    ngx_int_t state, int col)
{
    if (state <= NGX_AGENT_KEY_QUOTA) {
        return NGX_OK;
    }

    call->quota = (ngx_agent_quota_e) (state - NGX_AGENT_KEY_QUOTA);

    return ngx_agent_store_text(call, rows, 0, col, &call->quota_max)
               == NGX_OK ? NGX_BUSY : NGX_ERROR;
}


ngx_agent_key_e
ngx_agent_store_keyed(ngx_agent_store_call_t *call, ngx_agent_pg_rows_t *rows)
{
    ngx_agent_key_e  state;

    state = (ngx_agent_key_e) ngx_agent_pg_get_int(rows, 0, 2);

    call->replayed = (state == NGX_AGENT_KEY_USED);
    call->mismatch = (state == NGX_AGENT_KEY_OTHER);

    return state;
}


void
ngx_agent_store_reverse(ngx_array_t *list)
{
    u_char      *a, *b, c;
    size_t       k;

    if (list->nelts < 2) {
        return;
    }

    a = list->elts;
    b = (u_char *) list->elts + (list->nelts - 1) * list->size;

    for ( /* void */ ; a < b; a += list->size, b -= list->size) {
        for (k = 0; k < list->size; k++) {
            c = a[k];
            a[k] = b[k];
            b[k] = c;
        }
    }
}
