
/*
 * Steps, reading: get, list.  Posting one is in ngx_http_agent_step_post.c.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_agent_edge.h"
#include "ngx_http_agent_reply.h"
#include "ngx_http_agent_steps.h"
#include "ngx_http_agent_view.h"


static ngx_int_t ngx_http_agent_step_found(ngx_http_agent_web_t *web);
static ngx_int_t ngx_http_agent_step_listed(ngx_http_agent_web_t *web);


ngx_int_t
ngx_http_agent_step_get(ngx_http_agent_web_t *web)
{
    ngx_agent_store_call_t  *call;

    call = ngx_http_agent_call(web);
    if (call == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    call->step = ngx_pcalloc(call->pool, sizeof(ngx_agent_step_t));
    if (call->step == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    call->step->id = web->ctx->step_id;
    call->step->task_id = web->ctx->task_id;

    return ngx_http_agent_call_start(web, ngx_agent_store_get_step,
                                     ngx_http_agent_step_found);
}


static ngx_int_t
ngx_http_agent_step_found(ngx_http_agent_web_t *web)
{
    ngx_agent_store_call_t  *call;

    call = web->call;

    if (call->rc == NGX_DECLINED) {
        return ngx_http_agent_reply_unknown(web->request, "step",
                                            &web->route.item);
    }

    if (call->rc != NGX_OK) {
        return ngx_http_agent_reply_store(web->request, call->rc);
    }

    return ngx_http_agent_step_reply(web, call->step);
}


ngx_int_t
ngx_http_agent_step_reply(ngx_http_agent_web_t *web, ngx_agent_step_t *step)
{
    ngx_agent_json_t            j;
    ngx_http_agent_loc_conf_t  *alcf;

    ngx_http_agent_step_note(web, step);

    alcf = ngx_http_get_module_loc_conf(web->request, ngx_http_agent_module);

    ngx_agent_json_init(&j, web->request->pool,
                        ngx_http_agent_view_step_size(step));

    ngx_http_agent_view_step(&j, step, alcf->strict);

    return ngx_http_agent_reply_json(web->request, NGX_HTTP_OK, &j);
}


void
ngx_http_agent_step_note(ngx_http_agent_web_t *web, ngx_agent_step_t *step)
{
    ngx_http_agent_ctx_t  *ctx;

    ctx = web->ctx;

    ctx->step_id = step->id;
    ctx->status = step->status;
    ctx->attempt = step->attempt;
    ctx->tokens_in = step->tokens_in;
    ctx->tokens_out = step->tokens_out;

    ctx->has_step = 1;
    ctx->has_status = 1;
}


ngx_int_t
ngx_http_agent_step_list(ngx_http_agent_web_t *web)
{
    ngx_int_t                rc;
    ngx_agent_store_call_t  *call;

    call = ngx_http_agent_call(web);
    if (call == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    call->task = ngx_pcalloc(call->pool, sizeof(ngx_agent_task_t));
    if (call->task == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    call->task->id = web->ctx->task_id;

    if (ngx_http_agent_page(web, &rc) != NGX_OK) {
        return rc;
    }

    return ngx_http_agent_call_start(web, ngx_agent_store_list_steps,
                                     ngx_http_agent_step_listed);
}


static ngx_int_t
ngx_http_agent_step_listed(ngx_http_agent_web_t *web)
{
    size_t                      size;
    ngx_uint_t                  i;
    ngx_agent_json_t            j;
    ngx_agent_step_t           *steps;
    ngx_agent_store_call_t     *call;
    ngx_http_agent_loc_conf_t  *alcf;

    call = web->call;

    if (call->rc == NGX_DECLINED) {
        return ngx_http_agent_reply_unknown(web->request, "task",
                                            &web->route.task);
    }

    if (call->rc != NGX_OK) {
        return ngx_http_agent_reply_store(web->request, call->rc);
    }

    alcf = ngx_http_get_module_loc_conf(web->request, ngx_http_agent_module);

    steps = call->list->elts;
    size = 256;

    for (i = 0; i < call->list->nelts; i++) {
        size += ngx_http_agent_view_step_size(&steps[i]);
    }

    ngx_agent_json_init(&j, web->request->pool, size);

    ngx_agent_json_object(&j);
    ngx_agent_json_key(&j, "steps");
    ngx_agent_json_array(&j);

    for (i = 0; i < call->list->nelts; i++) {
        ngx_http_agent_view_step(&j, &steps[i], alcf->strict);
    }

    ngx_agent_json_array_end(&j);
    ngx_http_agent_view_pagination(&j, call->page, call->total);
    ngx_agent_json_object_end(&j);

    return ngx_http_agent_reply_json(web->request, NGX_HTTP_OK, &j);
}
