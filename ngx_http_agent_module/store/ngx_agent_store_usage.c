
/*
 * The store's call on the ledger: what was used, by day and agent.  Reads it
 * only; its rows are written where steps end.
 */

#include "ngx_agent_store_pg.h"


/* steps and what follows, in this order, of the sum and of a line */
#define NGX_AGENT_STORE_SUM   1
#define NGX_AGENT_STORE_LINE  8


static ngx_int_t ngx_agent_store_usage_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_usage_line(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows, ngx_uint_t i);
static ngx_int_t ngx_agent_store_usage_sums(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows, ngx_uint_t i, int col, ngx_agent_usage_t *u);


ngx_int_t
ngx_agent_store_usage(ngx_agent_store_call_t *call)
{
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_USAGE, NULL,
                              ngx_agent_store_usage_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_text(pg, &call->tenant);
    ngx_agent_pg_bool(pg, call->all);
    ngx_agent_store_text_or_null(pg, &call->from);
    ngx_agent_store_text_or_null(pg, &call->to);
    ngx_agent_store_page(pg, call->page);
    ngx_agent_pg_text(pg, &call->agents);

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_usage_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_uint_t  i;

    call->list = ngx_array_create(call->pool, rows->n + 1,
                                  sizeof(ngx_agent_usage_t));
    if (call->list == NULL || rows->n == 0) {
        return NGX_ERROR;
    }

    call->usage = ngx_pcalloc(call->pool, sizeof(ngx_agent_usage_t));
    if (call->usage == NULL) {
        return NGX_ERROR;
    }

    call->total = ngx_agent_pg_get_int(rows, 0, 0);

    if (ngx_agent_store_usage_sums(call, rows, 0, NGX_AGENT_STORE_SUM,
                                   call->usage)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < rows->n; i++) {

        /* a page behind the last one: the sum stands alone */

        if (ngx_agent_pg_is_null(rows, i, NGX_AGENT_STORE_LINE)) {
            continue;
        }

        if (ngx_agent_store_usage_line(call, rows, i) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (call->page->desc) {
        ngx_agent_store_reverse(call->list);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_agent_store_usage_line(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows, ngx_uint_t i)
{
    ngx_str_t          *s[3];
    ngx_agent_usage_t  *u;

    u = ngx_array_push(call->list);
    if (u == NULL) {
        return NGX_ERROR;
    }

    s[0] = &u->tenant;
    s[1] = &u->day;
    s[2] = &u->agent;

    if (ngx_agent_store_usage_sums(call, rows, i, NGX_AGENT_STORE_LINE, u)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_agent_store_texts(call, rows, i, NGX_AGENT_STORE_LINE + 7, 3,
                                 s);
}


static ngx_int_t
ngx_agent_store_usage_sums(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows, ngx_uint_t i, int col, ngx_agent_usage_t *u)
{
    u->steps = ngx_agent_pg_get_int(rows, i, col);
    u->completed = ngx_agent_pg_get_int(rows, i, col + 1);
    u->failed = ngx_agent_pg_get_int(rows, i, col + 2);
    u->cancelled = ngx_agent_pg_get_int(rows, i, col + 3);
    u->tokens_in = ngx_agent_pg_get_int(rows, i, col + 4);
    u->tokens_out = ngx_agent_pg_get_int(rows, i, col + 5);

    return ngx_agent_store_text(call, rows, i, col + 6, &u->price);
}
