
/*
 * The store's calls on tasks.
 */

#include "ngx_agent_store_pg.h"


/* tasks behind the last page mark that are worth new marks */
#define NGX_AGENT_STORE_TAIL  2000


static ngx_int_t ngx_agent_store_create_more(ngx_agent_store_call_t *call);
static ngx_int_t ngx_agent_store_more_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_read_task(ngx_agent_store_call_t *call,
    ngx_agent_sql_e stmt, ngx_agent_store_rows_pt rows);
static ngx_int_t ngx_agent_store_task_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_agent_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_tasks_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_task_row(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows, ngx_uint_t i, int col, ngx_agent_task_t *task);


ngx_int_t
ngx_agent_store_create_task(ngx_agent_store_call_t *call)
{
    ngx_agent_task_t     *task;
    ngx_agent_pg_call_t  *pg;

    if (call->key.data || call->step) {
        return ngx_agent_store_create_more(call);
    }

    task = call->task;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_CREATE_TASK, &task->id,
                              NULL);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    pg->again = NGX_AGENT_SQL_CREATE_TASK_AGAIN;

    ngx_agent_pg_id(pg, &task->id);
    ngx_agent_pg_text(pg, &call->tenant);
    ngx_agent_pg_text(pg, &task->agent);
    ngx_agent_pg_text(pg, &task->input);
    ngx_agent_pg_json(pg, &task->additional_input);
    ngx_agent_pg_int4(pg, (int32_t) call->max_steps);
    ngx_agent_store_text_or_null(pg, &task->traceparent);

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_create_more(ngx_agent_store_call_t *call)
{
    ngx_agent_task_t     *task;
    ngx_agent_pg_call_t  *pg;

    task = call->task;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_CREATE_TASK_MORE, &task->id,
                              ngx_agent_store_more_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_id(pg, &task->id);
    ngx_agent_pg_text(pg, &call->tenant);
    ngx_agent_pg_text(pg, &task->agent);
    ngx_agent_pg_text(pg, &task->input);
    ngx_agent_pg_json(pg, &task->additional_input);
    ngx_agent_pg_int4(pg, (int32_t) call->max_steps);
    ngx_agent_pg_text(pg, &call->key);
    ngx_agent_pg_text(pg, &call->print);
    ngx_agent_store_id_or_null(pg, call->step ? &call->step->id : NULL);
    ngx_agent_store_text_or_null(pg, &task->traceparent);
    ngx_agent_store_text_or_null(pg, &call->price);

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_more_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_agent_key_e  state;

    state = ngx_agent_store_keyed(call, rows);

    switch (state) {

    case NGX_AGENT_KEY_AGAIN:
        return ngx_agent_store_create_more(call);

    case NGX_AGENT_KEY_USED:
        ngx_agent_pg_get_id(rows, 0, 1, &call->task->id);
        return ngx_agent_store_get_task(call);

    default:
        return ngx_agent_store_quota(call, rows, state, 3);
    }
}


ngx_int_t
ngx_agent_store_get_task(ngx_agent_store_call_t *call)
{
    return ngx_agent_store_read_task(call, NGX_AGENT_SQL_GET_TASK,
                                     ngx_agent_store_task_rows);
}


ngx_int_t
ngx_agent_store_task_agent(ngx_agent_store_call_t *call)
{
    return ngx_agent_store_read_task(call, NGX_AGENT_SQL_TASK_AGENT,
                                     ngx_agent_store_agent_rows);
}


/* what a task's id and tenant are enough for */

static ngx_int_t
ngx_agent_store_read_task(ngx_agent_store_call_t *call, ngx_agent_sql_e stmt,
    ngx_agent_store_rows_pt rows)
{
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call(call, stmt, &call->task->id, rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_id(pg, &call->task->id);
    ngx_agent_pg_text(pg, &call->tenant);

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_task_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    if (rows->n == 0) {
        return NGX_DECLINED;
    }

    return ngx_agent_store_task_row(call, rows, 0, 1, call->task);
}


static ngx_int_t
ngx_agent_store_agent_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    if (rows->n == 0) {
        return NGX_DECLINED;
    }

    return ngx_agent_store_text(call, rows, 0, 1, &call->task->agent);
}


ngx_int_t
ngx_agent_store_list_tasks(ngx_agent_store_call_t *call)
{
    ngx_uint_t            limited;
    ngx_agent_pg_call_t  *pg;

    limited = (call->agents.data != NULL);

    pg = ngx_agent_store_call(call, limited ? NGX_AGENT_SQL_LIST_TASKS_OF
                                            : NGX_AGENT_SQL_LIST_TASKS,
                              NULL, ngx_agent_store_tasks_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_text(pg, &call->tenant);
    ngx_agent_store_page(pg, call->page);

    if (limited) {
        ngx_agent_pg_text(pg, &call->agents);
    }

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_tasks_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_uint_t         i;
    ngx_agent_task_t  *task;

    call->list = ngx_array_create(call->pool, rows->n + 1,
                                  sizeof(ngx_agent_task_t));
    if (call->list == NULL || rows->n == 0) {
        return NGX_ERROR;
    }

    call->total = ngx_agent_pg_get_int(rows, 0, 0);

    if (ngx_agent_pg_get_int(rows, 0, 1) > NGX_AGENT_STORE_TAIL) {
        ngx_agent_store_mark(&call->tenant, call->log);
    }

    for (i = 0; i < rows->n; i++) {

        if (ngx_agent_pg_is_null(rows, i, 2)) {
            continue;
        }

        task = ngx_array_push(call->list);
        if (task == NULL) {
            return NGX_ERROR;
        }

        ngx_agent_pg_get_id(rows, i, 2, &task->id);

        if (ngx_agent_store_task_row(call, rows, i, 3, task) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (call->page->desc) {
        ngx_agent_store_reverse(call->list);
    }

    return NGX_OK;
}


/* agent, input, additional_input, artifacts: from column "col" on */

static ngx_int_t
ngx_agent_store_task_row(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows, ngx_uint_t i, int col, ngx_agent_task_t *task)
{
    ngx_str_t  *s[] = { &task->agent, &task->input, &task->additional_input,
                        &task->artifacts };

    return ngx_agent_store_texts(call, rows, i, col, 4, s);
}
