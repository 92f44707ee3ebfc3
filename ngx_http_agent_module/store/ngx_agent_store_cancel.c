
/*
 * The store's calls that end what a client does not want any more: steps are
 * cancelled, tasks removed.
 */

#include "ngx_agent_store_pg.h"


static ngx_int_t ngx_agent_store_cancel_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_delete_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);


ngx_int_t
ngx_agent_store_cancel(ngx_agent_store_call_t *call)
{
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_CANCEL, &call->task->id,
                              ngx_agent_store_cancel_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_text(pg, &call->tenant);
    ngx_agent_pg_id(pg, &call->task->id);
    ngx_agent_store_id_or_null(pg, call->step ? &call->step->id : NULL);

    /* it waits for steps that end: with no other's locks in its hands */
    pg->solo = 1;

    return ngx_agent_store_send(pg);
}


/* one row at least, with null, when there is such a task or step */

static ngx_int_t
ngx_agent_store_cancel_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_uint_t       i;
    ngx_agent_id_t  *id;

    if (rows->n == 0) {
        return NGX_DECLINED;
    }

    call->list = ngx_array_create(call->pool, rows->n,
                                  sizeof(ngx_agent_id_t));
    if (call->list == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < rows->n; i++) {

        if (ngx_agent_pg_is_null(rows, i, 0)) {
            continue;
        }

        id = ngx_array_push(call->list);
        if (id == NULL) {
            return NGX_ERROR;
        }

        ngx_agent_pg_get_id(rows, i, 0, id);
    }

    return NGX_OK;
}


ngx_int_t
ngx_agent_store_delete_task(ngx_agent_store_call_t *call)
{
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_DELETE_TASK,
                              &call->task->id, ngx_agent_store_delete_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_text(pg, &call->tenant);
    ngx_agent_pg_id(pg, &call->task->id);

    pg->solo = 1;

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_delete_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_uint_t             i;
    ngx_agent_artifact_t  *artifact;

    if (rows->n == 0) {
        return NGX_DECLINED;
    }

    call->list = ngx_array_create(call->pool, rows->n,
                                  sizeof(ngx_agent_artifact_t));
    if (call->list == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < rows->n; i++) {

        if (ngx_agent_pg_is_null(rows, i, 0)) {
            continue;
        }

        artifact = ngx_array_push(call->list);
        if (artifact == NULL) {
            return NGX_ERROR;
        }

        ngx_memzero(artifact, sizeof(ngx_agent_artifact_t));
        artifact->task_id = call->task->id;
        ngx_agent_pg_get_id(rows, i, 0, &artifact->id);
    }

    return NGX_OK;
}
