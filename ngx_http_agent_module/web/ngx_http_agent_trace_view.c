
/*
 * The trace of a step, for those who review it: who called whom, when, with
 * what, and what came of it.  What an attempt has to say was written by the
 * run; here it is only shown.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_agent_reply.h"
#include "ngx_http_agent_steps.h"


/* keys, ids, times */
#define NGX_HTTP_AGENT_TRACE_VIEW  512


static ngx_int_t ngx_http_agent_trace_found(ngx_http_agent_web_t *web);
static void ngx_http_agent_trace_view(ngx_agent_json_t *j,
    ngx_agent_store_call_t *call);


ngx_int_t
ngx_http_agent_step_trace(ngx_http_agent_web_t *web)
{
    ngx_agent_store_call_t  *call;

    call = ngx_http_agent_call_step(web);
    if (call == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    call->task = ngx_pcalloc(call->pool, sizeof(ngx_agent_task_t));
    if (call->task == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_agent_call_start(web, ngx_agent_store_get_trace,
                                     ngx_http_agent_trace_found);
}


static ngx_int_t
ngx_http_agent_trace_found(ngx_http_agent_web_t *web)
{
    ngx_agent_json_t         j;
    ngx_agent_store_call_t  *call;

    call = web->call;

    if (call->rc != NGX_OK) {
        return ngx_http_agent_step_missed(web, call->rc);
    }

    web->ctx->agent = call->task->agent;
    ngx_http_agent_step_note(web, call->step);

    ngx_agent_json_init(&j, web->request->pool, NGX_HTTP_AGENT_TRACE_VIEW
                        + call->step->trace.len);

    ngx_http_agent_trace_view(&j, call);

    return ngx_http_agent_reply_json(web->request, NGX_HTTP_OK, &j);
}


/* The true status, whatever "agent_strict" says: this is no client's view. */

static void
ngx_http_agent_trace_view(ngx_agent_json_t *j, ngx_agent_store_call_t *call)
{
    ngx_agent_step_t  *step;

    step = call->step;

    ngx_agent_json_object(j);

    ngx_agent_json_key(j, "task_id");
    ngx_agent_json_id(j, &step->task_id);

    ngx_agent_json_key(j, "step_id");
    ngx_agent_json_id(j, &step->id);

    ngx_agent_json_key(j, "agent");
    ngx_agent_json_string(j, &call->task->agent);

    ngx_agent_json_key(j, "status");
    ngx_agent_json_string(j, ngx_agent_status_name(step->status));

    ngx_agent_json_key(j, "traceparent");
    ngx_agent_json_string(j, &step->traceparent);

    ngx_agent_json_key(j, "created_at");
    ngx_agent_json_string(j, &call->from);

    ngx_agent_json_key(j, "ended_at");
    ngx_agent_json_string(j, &call->to);

    ngx_agent_json_key(j, "attempts");
    ngx_agent_json_array(j);

    if (step->trace.len) {
        /* objects with "," in between */
        ngx_agent_json_raw(j, &step->trace, "");
    }

    ngx_agent_json_array_end(j);

    ngx_agent_json_object_end(j);
}
