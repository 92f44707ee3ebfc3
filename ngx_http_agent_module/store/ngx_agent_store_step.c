
/*
 * The store's calls on steps: begin, end, read.  What they do in the queue
 * is in ngx_agent_store_queue.c.
 */

#include "ngx_agent_store_pg.h"
#include "ngx_agent_json.h"


/* verdicts beyond ngx_agent_begin_e */
#define NGX_AGENT_STORE_CAREFUL  8
#define NGX_AGENT_STORE_NO_ROOM  10
#define NGX_AGENT_STORE_FASTER   11


static ngx_int_t ngx_agent_store_begin_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_end_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_end_room(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_ended_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_agent_pg_call_t *ngx_agent_store_get(ngx_agent_store_call_t *call,
    ngx_agent_store_rows_pt rows);
static ngx_int_t ngx_agent_store_end_artifacts(ngx_agent_store_call_t *call,
    ngx_str_t *text);
static ngx_int_t ngx_agent_store_step_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_step_rest(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_steps_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);
static ngx_int_t ngx_agent_store_step_row(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows, ngx_uint_t i, int col, ngx_agent_step_t *step);
static ngx_int_t ngx_agent_store_history_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);


ngx_int_t
ngx_agent_store_begin_step(ngx_agent_store_call_t *call)
{
    ngx_agent_sql_e       stmt;
    ngx_agent_step_t     *step;
    ngx_agent_pg_call_t  *pg;

    step = call->step;

    if (call->key.data || call->careful) {
        stmt = NGX_AGENT_SQL_QUEUE_STEP_KEYED;

    } else if (call->queue || call->full.len) {
        stmt = NGX_AGENT_SQL_QUEUE_STEP;

    } else {
        stmt = NGX_AGENT_SQL_BEGIN_STEP;
    }

    /* the first parameters of the one are those of the other */

    pg = ngx_agent_store_call(call, stmt == NGX_AGENT_SQL_BEGIN_STEP
                                    ? NGX_AGENT_SQL_QUEUE_STEP : stmt,
                              &step->task_id, ngx_agent_store_begin_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    if (stmt == NGX_AGENT_SQL_BEGIN_STEP) {
        pg->again = pg->stmt;
        pg->stmt = stmt;
    }

    ngx_agent_pg_id(pg, &step->task_id);
    ngx_agent_pg_text(pg, &call->tenant);
    ngx_agent_pg_id(pg, &step->id);
    ngx_agent_pg_text(pg, &step->input);
    ngx_agent_pg_json(pg, &step->additional_input);
    ngx_agent_pg_text(pg, &ngx_agent_store_owner);
    ngx_agent_pg_int4(pg, (int32_t) ngx_agent_store_conf->lease);
    ngx_agent_store_text_or_null(pg, &step->traceparent);

    ngx_agent_pg_bool(pg, call->queue);
    ngx_agent_pg_text(pg, &call->full);
    ngx_agent_pg_bool(pg, call->watched);
    ngx_agent_pg_bool(pg, call->refuse);

    if (stmt == NGX_AGENT_SQL_QUEUE_STEP_KEYED) {
        ngx_agent_pg_text(pg, &call->key);
        ngx_agent_pg_text(pg, &call->print);
        ngx_agent_pg_json(pg, &ngx_agent_store_conf->prices);
    }

    pg->hold = 1;

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_begin_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_int_t          verdict;
    ngx_agent_step_t  *step;

    if (rows->n == 0) {
        return NGX_ERROR;
    }

    step = call->step;
    verdict = ngx_agent_pg_get_int(rows, 0, 1);

    switch (ngx_agent_store_quota(call, rows, verdict, 10)) {

    case NGX_OK:
        break;

    case NGX_BUSY:
        call->begin = NGX_AGENT_BEGIN_QUOTA;
        return NGX_OK;

    default:
        return NGX_ERROR;
    }

    switch (verdict) {

    case NGX_AGENT_STORE_CAREFUL:
        /* a secret, or limits: the statement for all cases minds them */
        call->careful = 1;
        return ngx_agent_store_begin_step(call);

    case NGX_AGENT_STORE_FASTER:
        return ngx_agent_store_begin_step(call);

    case NGX_AGENT_STORE_NO_ROOM:
        return NGX_BUSY;

    default:
        break;
    }

    call->begin = (ngx_agent_begin_e) verdict;
    step->seq = ngx_agent_pg_get_int(rows, 0, 2);

    switch (call->begin) {

    case NGX_AGENT_BEGIN_OK:
        step->redacted = ngx_agent_pg_get_bool(rows, 0, 5) ? 1 : 0;
        step->attempt = ngx_agent_pg_get_int(rows, 0, 7);
        break;

    case NGX_AGENT_BEGIN_FINISHED:
        ngx_agent_pg_get_id(rows, 0, 6, &step->id);
        break;

    case NGX_AGENT_BEGIN_BUSY:

        call->lapsed = ngx_agent_pg_get_bool(rows, 0, 8) ? 1 : 0;
        return NGX_OK;

    case NGX_AGENT_BEGIN_REPLAY:
        ngx_agent_pg_get_id(rows, 0, 6, &step->id);
        return NGX_OK;

    case NGX_AGENT_BEGIN_QUEUED:
        step->redacted = ngx_agent_pg_get_bool(rows, 0, 5) ? 1 : 0;
        break;

    default:
        return NGX_OK;
    }

    if (ngx_agent_store_text(call, rows, 0, 3, &call->task->agent) != NGX_OK
        || ngx_agent_store_text(call, rows, 0, 4, &call->task->input)
           != NGX_OK
        || ngx_agent_store_text(call, rows, 0, 9, &step->traceparent)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_int_t
ngx_agent_store_end_step(ngx_agent_store_call_t *call)
{
    ngx_uint_t            more;
    ngx_str_t             artifacts;
    ngx_agent_step_t     *step;
    ngx_agent_pg_call_t  *pg;

    step = call->step;

    if (ngx_agent_store_end_artifacts(call, &artifacts) != NGX_OK) {
        return NGX_ABORT;
    }

    more = artifacts.len || step->redacted || call->watched || call->next;

    pg = ngx_agent_store_call(call, more ? NGX_AGENT_SQL_END_STEP_MORE
                                         : NGX_AGENT_SQL_END_STEP,
                              &step->task_id, ngx_agent_store_end_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_id(pg, &step->task_id);
    ngx_agent_pg_int4(pg, (int32_t) step->seq);
    ngx_agent_pg_int4(pg, (int32_t) step->attempt);
    ngx_agent_pg_int4(pg, (int32_t) step->status);
    ngx_agent_pg_bool(pg, step->is_last);
    ngx_agent_pg_bool(pg, step->secret);
    ngx_agent_pg_text(pg, &step->name);
    ngx_agent_pg_text(pg, &step->output);
    ngx_agent_pg_json(pg, &step->additional_output);
    ngx_agent_pg_json(pg, &step->turns);
    ngx_agent_pg_int8(pg, (int64_t) step->tokens_in);
    ngx_agent_pg_int8(pg, (int64_t) step->tokens_out);
    ngx_agent_pg_text(pg, &call->price);
    ngx_agent_pg_text(pg, &call->task->agent);
    ngx_agent_store_text_or_null(pg, &step->trace);

    if (more) {
        ngx_agent_pg_json(pg, &artifacts);
        ngx_agent_store_id_or_null(pg, call->next);
        ngx_agent_pg_bool(pg, call->watched);
        pg->solo = call->careful;
    }

    pg->patient = 1;

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_end_artifacts(ngx_agent_store_call_t *call, ngx_str_t *text)
{
    ngx_uint_t             i;
    ngx_agent_json_t       j;
    ngx_agent_artifact_t  *a;

    ngx_str_null(text);

    if (call->artifacts == NULL || call->artifacts->nelts == 0) {
        return NGX_OK;
    }

    ngx_agent_json_init(&j, call->pool, 128 * call->artifacts->nelts);
    ngx_agent_json_array(&j);

    a = call->artifacts->elts;

    for (i = 0; i < call->artifacts->nelts; i++) {
        ngx_agent_json_object(&j);
        ngx_agent_json_key(&j, "id");
        ngx_agent_json_id(&j, &a[i].id);
        ngx_agent_json_key(&j, "file_name");
        ngx_agent_json_string(&j, &a[i].file_name);
        ngx_agent_json_key(&j, "relative_path");
        ngx_agent_json_string(&j, &a[i].relative_path);
        ngx_agent_json_key(&j, "size");
        ngx_agent_json_int(&j, a[i].size);
        ngx_agent_json_object_end(&j);
    }

    ngx_agent_json_array_end(&j);

    return ngx_agent_json_done(&j, text);
}


static ngx_int_t
ngx_agent_store_end_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_agent_pg_call_t  *pg;

    if (rows->n) {
        return ngx_agent_store_end_room(call, rows);
    }

    /* fenced; or it was ended before, by a batch whose answer got lost */

    pg = ngx_agent_store_get(call, ngx_agent_store_ended_rows);
    if (pg == NULL) {
        return NGX_ERROR;
    }

    pg->patient = 1;

    return ngx_agent_store_send(pg);
}


/* only the statement for those with artifacts says that there is no room */

static ngx_int_t
ngx_agent_store_end_room(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    if (PQnfields(rows->res) == 1 || !ngx_agent_pg_get_bool(rows, 0, 1)) {
        return NGX_OK;
    }

    if (!call->careful) {
        /* together with others there was no room; by itself it may have some */
        call->careful = 1;
        return ngx_agent_store_end_step(call);
    }

    return ngx_agent_store_quota(call, rows, NGX_AGENT_KEY_QUOTA
                                             + NGX_AGENT_QUOTA_BYTES, 2);
}


static ngx_int_t
ngx_agent_store_ended_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    if (rows->n == 1
        && ngx_agent_pg_get_int(rows, 0, 2) == (int64_t) call->step->attempt
        && ngx_agent_pg_get_int(rows, 0, 3) == (int64_t) call->step->status)
    {
        return NGX_OK;
    }

    return NGX_DECLINED;
}


ngx_int_t
ngx_agent_store_get_step(ngx_agent_store_call_t *call)
{
    return ngx_agent_store_send(ngx_agent_store_get(call,
                                                ngx_agent_store_step_rows));
}


static ngx_agent_pg_call_t *
ngx_agent_store_get(ngx_agent_store_call_t *call, ngx_agent_store_rows_pt rows)
{
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_GET_STEP,
                              &call->step->task_id, rows);
    if (pg == NULL) {
        return NULL;
    }

    ngx_agent_pg_id(pg, &call->step->task_id);
    ngx_agent_pg_text(pg, &call->tenant);
    ngx_agent_pg_id(pg, &call->step->id);
    ngx_agent_pg_int4(pg, (int32_t) ngx_agent_store_conf->lease);

    return pg;
}


static ngx_int_t
ngx_agent_store_step_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    if (rows->n == 0) {
        return NGX_DECLINED;
    }

    if (ngx_agent_store_step_row(call, rows, 0, 1, call->step) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_agent_store_step_rest(call, rows);
}


/* what only the reading of a single step tells */

static ngx_int_t
ngx_agent_store_step_rest(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_str_t         *s[3];
    ngx_agent_step_t  *step;

    step = call->step;

    s[0] = &step->story;
    s[1] = &step->run;
    s[2] = &step->error;

    if (ngx_agent_store_texts(call, rows, 0, 13, 3, s) != NGX_OK) {
        return NGX_ERROR;
    }

    step->code = ngx_agent_pg_is_null(rows, 0, 16)
                 ? 0 : ngx_agent_pg_get_int(rows, 0, 16);
    step->redacted = ngx_agent_pg_get_bool(rows, 0, 17) ? 1 : 0;
    step->secret = ngx_agent_pg_get_bool(rows, 0, 18) ? 1 : 0;

    return NGX_OK;
}


ngx_int_t
ngx_agent_store_list_steps(ngx_agent_store_call_t *call)
{
    return ngx_agent_store_list(call, NGX_AGENT_SQL_LIST_STEPS,
                                ngx_agent_store_steps_rows);
}


static ngx_int_t
ngx_agent_store_steps_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_uint_t         i;
    ngx_agent_step_t  *step;

    if (rows->n == 0) {
        return NGX_DECLINED;
    }

    call->list = ngx_array_create(call->pool, rows->n,
                                  sizeof(ngx_agent_step_t));
    if (call->list == NULL) {
        return NGX_ERROR;
    }

    call->total = ngx_agent_pg_get_int(rows, 0, 0);

    for (i = 0; i < rows->n; i++) {

        if (ngx_agent_pg_is_null(rows, i, 1)) {
            continue;
        }

        step = ngx_array_push(call->list);
        if (step == NULL) {
            return NGX_ERROR;
        }

        ngx_memzero(step, sizeof(ngx_agent_step_t));
        ngx_agent_pg_get_id(rows, i, 1, &step->id);
        step->task_id = call->task->id;

        if (ngx_agent_store_step_row(call, rows, i, 2, step) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (call->page->desc) {
        ngx_agent_store_reverse(call->list);
    }

    return NGX_OK;
}


/* seq, attempt, status, is_last, name ...: from column "col" on */

static ngx_int_t
ngx_agent_store_step_row(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows, ngx_uint_t i, int col, ngx_agent_step_t *step)
{
    ngx_str_t  *s[] = { &step->name, &step->input, &step->additional_input,
                        &step->output, &step->additional_output };

    step->seq = ngx_agent_pg_get_int(rows, i, col);
    step->attempt = ngx_agent_pg_get_int(rows, i, col + 1);
    step->status = (ngx_agent_status_e)
                   ngx_agent_pg_get_int(rows, i, col + 2);
    step->is_last = ngx_agent_pg_get_bool(rows, i, col + 3) ? 1 : 0;

    if (ngx_agent_store_texts(call, rows, i, col + 4, 5, s) != NGX_OK) {
        return NGX_ERROR;
    }

    step->tokens_in = ngx_agent_pg_get_int(rows, i, col + 9);
    step->tokens_out = ngx_agent_pg_get_int(rows, i, col + 10);

    return ngx_agent_store_text(call, rows, i, col + 11, &step->artifacts);
}


ngx_int_t
ngx_agent_store_history(ngx_agent_store_call_t *call)
{
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_HISTORY, &call->task->id,
                              ngx_agent_store_history_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_id(pg, &call->task->id);
    ngx_agent_pg_text(pg, &call->tenant);
    ngx_agent_pg_int4(pg, (int32_t) call->step->seq);

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_history_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_str_t         *s[2];
    ngx_uint_t         i;
    ngx_agent_step_t  *step;

    call->list = ngx_array_create(call->pool, rows->n + 1,
                                  sizeof(ngx_agent_step_t));
    if (call->list == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < rows->n; i++) {

        step = ngx_array_push(call->list);
        if (step == NULL) {
            return NGX_ERROR;
        }

        ngx_memzero(step, sizeof(ngx_agent_step_t));
        ngx_agent_pg_get_id(rows, i, 1, &step->id);
        step->task_id = call->task->id;
        step->seq = ngx_agent_pg_get_int(rows, i, 2);
        step->status = (ngx_agent_status_e) ngx_agent_pg_get_int(rows, i, 3);
        step->secret = ngx_agent_pg_get_bool(rows, i, 4) ? 1 : 0;

        s[0] = &step->input;
        s[1] = &step->turns;

        if (ngx_agent_store_texts(call, rows, i, 5, 2, s) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}
