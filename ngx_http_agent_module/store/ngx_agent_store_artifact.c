
/*
 * The store's calls on artifacts.
 */

#include "ngx_agent_store_pg.h"


static ngx_int_t ngx_agent_store_keyed_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_made_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_got_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_found_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_artifacts_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_artifact_row(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows, ngx_uint_t i, int col,
    ngx_agent_artifact_t *a);


ngx_int_t
ngx_agent_store_create_artifact(ngx_agent_store_call_t *call)
{
    ngx_agent_pg_call_t   *pg;
    ngx_agent_artifact_t  *a;

    a = call->artifact;

    if (call->key.data || call->careful) {
        pg = ngx_agent_store_call(call, NGX_AGENT_SQL_CREATE_ARTIFACT_KEYED,
                                  &a->task_id, ngx_agent_store_keyed_rows);
    } else {
        pg = ngx_agent_store_call(call, NGX_AGENT_SQL_CREATE_ARTIFACT,
                                  &a->task_id, ngx_agent_store_made_rows);
    }

    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_id(pg, &a->task_id);
    ngx_agent_pg_text(pg, &call->tenant);
    ngx_agent_pg_id(pg, &a->id);
    ngx_agent_pg_text(pg, &a->file_name);
    ngx_agent_pg_text(pg, &a->relative_path);
    ngx_agent_pg_int8(pg, a->size);

    if (call->key.data || call->careful) {
        ngx_agent_pg_text(pg, &call->key);
        ngx_agent_pg_text(pg, &call->print);
    }

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_keyed_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_agent_key_e  state;

    state = ngx_agent_store_keyed(call, rows);

    switch (state) {

    case NGX_AGENT_KEY_AGAIN:
        return ngx_agent_store_create_artifact(call);

    case NGX_AGENT_KEY_NOWHERE:
        return NGX_DECLINED;

    case NGX_AGENT_KEY_USED:
        ngx_agent_pg_get_id(rows, 0, 1, &call->artifact->id);
        return ngx_agent_store_get_artifact(call);

    default:
        return ngx_agent_store_quota(call, rows, state, 3);
    }
}


static ngx_int_t
ngx_agent_store_made_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    if (rows->n == 0) {
        return NGX_DECLINED;
    }

    if (ngx_agent_pg_get_int(rows, 0, 2) == NGX_AGENT_KEY_CAREFUL) {
        call->careful = 1;
        return ngx_agent_store_create_artifact(call);
    }

    return NGX_OK;
}


ngx_int_t
ngx_agent_store_get_artifact(ngx_agent_store_call_t *call)
{
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_GET_ARTIFACT,
                              &call->artifact->task_id,
                              ngx_agent_store_got_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_id(pg, &call->artifact->task_id);
    ngx_agent_pg_text(pg, &call->tenant);
    ngx_agent_pg_id(pg, &call->artifact->id);

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_got_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    if (rows->n == 0) {
        return NGX_DECLINED;
    }

    return ngx_agent_store_artifact_row(call, rows, 0, 1, call->artifact);
}


ngx_int_t
ngx_agent_store_find_artifact(ngx_agent_store_call_t *call)
{
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_FIND_ARTIFACT,
                              &call->artifact->task_id,
                              ngx_agent_store_found_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_id(pg, &call->artifact->task_id);
    ngx_agent_pg_text(pg, &call->tenant);
    ngx_agent_pg_text(pg, &call->artifact->relative_path);
    ngx_agent_pg_text(pg, &call->artifact->file_name);

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_found_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    if (rows->n == 0) {
        return NGX_DECLINED;
    }

    return ngx_agent_store_artifact_row(call, rows, 0, 0, call->artifact);
}


ngx_int_t
ngx_agent_store_list_artifacts(ngx_agent_store_call_t *call)
{
    return ngx_agent_store_list(call, NGX_AGENT_SQL_LIST_ARTIFACTS,
                                ngx_agent_store_artifacts_rows);
}


static ngx_int_t
ngx_agent_store_artifacts_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_uint_t             i;
    ngx_agent_artifact_t  *a;

    if (rows->n == 0) {
        return NGX_DECLINED;
    }

    call->list = ngx_array_create(call->pool, rows->n,
                                  sizeof(ngx_agent_artifact_t));
    if (call->list == NULL) {
        return NGX_ERROR;
    }

    call->total = ngx_agent_pg_get_int(rows, 0, 0);

    for (i = 0; i < rows->n; i++) {

        if (ngx_agent_pg_is_null(rows, i, 1)) {
            continue;
        }

        a = ngx_array_push(call->list);
        if (a == NULL) {
            return NGX_ERROR;
        }

        ngx_memzero(a, sizeof(ngx_agent_artifact_t));
        a->task_id = call->task->id;

        if (ngx_agent_store_artifact_row(call, rows, i, 1, a) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (call->page->desc) {
        ngx_agent_store_reverse(call->list);
    }

    return NGX_OK;
}


/* artifact_id, file_name, relative_path, size, by_agent: from "col" on */

static ngx_int_t
ngx_agent_store_artifact_row(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows, ngx_uint_t i, int col,
    ngx_agent_artifact_t *a)
{
    ngx_str_t  *s[] = { &a->file_name, &a->relative_path };

    ngx_agent_pg_get_id(rows, i, col, &a->id);
    a->size = ngx_agent_pg_get_int(rows, i, col + 3);
    a->by_agent = ngx_agent_pg_get_bool(rows, i, col + 4) ? 1 : 0;

    return ngx_agent_store_texts(call, rows, i, col + 1, 2, s);
}
