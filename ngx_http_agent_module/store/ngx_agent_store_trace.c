
/*
 * The store's call on the trace of a step: what its attempts left behind.
 */

#include "ngx_agent_store_pg.h"


static ngx_int_t ngx_agent_store_trace_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);


ngx_str_t   ngx_agent_store_trace_mark;
ngx_str_t   ngx_agent_store_trace_part;
ngx_uint_t  ngx_agent_store_trace_known;


ngx_int_t
ngx_agent_store_get_trace(ngx_agent_store_call_t *call)
{
    ngx_agent_pg_call_t  *pg;

    pg = ngx_agent_store_call(call, NGX_AGENT_SQL_GET_TRACE,
                              &call->step->task_id,
                              ngx_agent_store_trace_rows);
    if (pg == NULL) {
        return NGX_ABORT;
    }

    ngx_agent_pg_id(pg, &call->step->task_id);
    ngx_agent_pg_text(pg, &call->tenant);
    ngx_agent_pg_id(pg, &call->step->id);

    return ngx_agent_store_send(pg);
}


static ngx_int_t
ngx_agent_store_trace_rows(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows)
{
    ngx_str_t         *s[5];
    ngx_agent_step_t  *step;

    if (rows->n == 0) {
        return NGX_DECLINED;
    }

    step = call->step;

    step->seq = ngx_agent_pg_get_int(rows, 0, 1);
    step->attempt = ngx_agent_pg_get_int(rows, 0, 2);
    step->status = (ngx_agent_status_e) ngx_agent_pg_get_int(rows, 0, 3);
    step->tokens_in = ngx_agent_pg_get_int(rows, 0, 4);
    step->tokens_out = ngx_agent_pg_get_int(rows, 0, 5);

    s[0] = &call->task->agent;
    s[1] = &step->traceparent;
    s[2] = &call->from;
    s[3] = &call->to;
    s[4] = &step->trace;

    return ngx_agent_store_texts(call, rows, 0, 6, 5, s);
}


void
ngx_agent_store_share(ngx_str_t *mark, ngx_str_t *part)
{
    ngx_agent_store_trace_mark = *mark;
    ngx_agent_store_trace_part = *part;
}


ngx_uint_t
ngx_agent_store_shared(void)
{
    return ngx_agent_store_trace_known;
}
