
/*
 * The store's calls on API keys: reads only, keys are made and revoked by the
 * functions in sql/.
 */

#include "ngx_agent_store_pg.h"


static ngx_int_t ngx_agent_store_key_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_changes_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);


ngx_int_t
ngx_agent_store_get_key(ngx_agent_store_call_t *call)
{
    ngx_str_t             hash;
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call_all(call, NGX_AGENT_SQL_GET_KEY,
                                  ngx_agent_store_key_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    hash.data = call->api_key->hash;
    hash.len = NGX_AGENT_KEY_HASH;

    ngx_agent_pg_text(pg, &hash);

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_key_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_str_t        *s[2];
    ngx_agent_key_t  *key;

    if (rows->n == 0) {
        return NGX_DECLINED;
    }

    key = call->api_key;

    ngx_agent_pg_get_id(rows, 0, 1, &key->id);
    key->read_only = ngx_agent_pg_get_bool(rows, 0, 4) ? 1 : 0;
    key->expires = ngx_agent_pg_is_null(rows, 0, 5)
                   ? 0 : ngx_agent_pg_get_int(rows, 0, 5);

    s[0] = &key->tenant;
    s[1] = &key->agents;

    return ngx_agent_store_texts(call, rows, 0, 2, 2, s);
}


ngx_int_t
ngx_agent_store_key_changes(ngx_agent_store_call_t *call)
{
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call_all(call, NGX_AGENT_SQL_KEY_CHANGES,
                                  ngx_agent_store_changes_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_int8(pg, call->cursor);

    return ngx_agent_store_send(pg);
}


/* one row at least, with no hash when nothing has changed */

static ngx_int_t
ngx_agent_store_changes_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    u_char      *p;
    ngx_str_t    hash;
    ngx_uint_t   i;

    call->list = ngx_array_create(call->pool, rows->n + 1,
                                  NGX_AGENT_KEY_HASH);
    if (call->list == NULL || rows->n == 0) {
        return NGX_ERROR;
    }

    call->cursor = ngx_agent_pg_get_int(rows, 0, 0);
    call->total = ngx_agent_pg_get_int(rows, 0, 1);

    for (i = 0; i < rows->n; i++) {
        hash = ngx_agent_pg_get_text(rows, i, 2);

        if (hash.len != NGX_AGENT_KEY_HASH) {
            continue;
        }

        p = ngx_array_push(call->list);
        if (p == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(p, hash.data, NGX_AGENT_KEY_HASH);
    }

    return NGX_OK;
}


uint32_t
ngx_agent_store_place(void)
{
    return ngx_crc32_long(ngx_agent_store_conf->conninfo.data,
                          ngx_agent_store_conf->conninfo.len);
}
