
/*
 * Tasks: create, get, list.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_agent_id.h"
#include "ngx_http_agent_edge.h"
#include "ngx_http_agent_body.h"
#include "ngx_http_agent_reply.h"
#include "ngx_http_agent_view.h"


static ngx_int_t ngx_http_agent_task_body(ngx_http_agent_web_t *web);
static ngx_agent_agent_t *ngx_http_agent_task_agent(
    ngx_http_agent_web_t *web, ngx_int_t *rc);
static ngx_int_t ngx_http_agent_task_created(ngx_http_agent_web_t *web);
static ngx_int_t ngx_http_agent_task_found(ngx_http_agent_web_t *web);
static ngx_int_t ngx_http_agent_task_reply(ngx_http_agent_web_t *web);
static ngx_int_t ngx_http_agent_task_listed(ngx_http_agent_web_t *web);


ngx_int_t
ngx_http_agent_task_create(ngx_http_agent_web_t *web)
{
    return ngx_http_agent_body_read(web, ngx_http_agent_task_body);
}


static ngx_int_t
ngx_http_agent_task_body(ngx_http_agent_web_t *web)
{
    ngx_int_t                rc;
    ngx_pool_t              *pool;
    ngx_agent_task_t        *task;
    ngx_agent_agent_t       *agent;
    ngx_http_agent_body_t    body;
    ngx_agent_store_call_t  *call;

    pool = web->request->pool;

    if (ngx_http_agent_body_parse(web, pool, &body, &rc) != NGX_OK) {
        return rc;
    }

    /* from here on $agent_id knows what the body says */
    web->agent_id = body.agent_id;

    agent = ngx_http_agent_task_agent(web, &rc);
    if (agent == NULL) {
        return rc;
    }

    call = ngx_http_agent_call(web);
    if (call == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    task = ngx_pcalloc(pool, sizeof(ngx_agent_task_t));
    if (task == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_agent_id_create(&task->id);
    task->agent = agent->name;
    task->input = body.input;
    task->additional_input = body.additional_input;

    call->task = task;
    call->max_steps = agent->max_steps;

    web->ctx->agent = agent->name;
    web->ctx->task_id = task->id;
    web->ctx->has_task = 1;

    return ngx_http_agent_call_start(web, ngx_agent_store_create_task,
                                     ngx_http_agent_task_created);
}


/* NULL: the client has been answered, *rc is the code to return */

static ngx_agent_agent_t *
ngx_http_agent_task_agent(ngx_http_agent_web_t *web, ngx_int_t *rc)
{
    u_char                      buf[NGX_HTTP_AGENT_QUOTE];
    ngx_str_t                   name, quoted;
    ngx_agent_agent_t          *agent;
    ngx_http_request_t         *r;
    ngx_http_agent_loc_conf_t  *alcf;

    r = web->request;

    alcf = ngx_http_get_module_loc_conf(r, ngx_http_agent_module);

    if (ngx_http_complex_value(r, alcf->pass, &name) != NGX_OK) {
        *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
        return NULL;
    }

    if (name.len == 0) {
        *rc = ngx_http_agent_reply_invalid(r, "body",
                                   "additional_input.agent_id",
                                   "must name an agent here; or name it by "
                                   "the header X-Agent-ID or by ?agent_id=");
        return NULL;
    }

    agent = ngx_agent_agent_find(&name);

    if (agent == NULL) {
        ngx_http_agent_reply_quote(&name, buf, &quoted);

        *rc = ngx_http_agent_reply_error(r, NGX_HTTP_NOT_FOUND,
                                         "no agent is called \"%V\"; name "
                                         "one that this server has", &quoted);
    }

    return agent;
}


static ngx_int_t
ngx_http_agent_task_created(ngx_http_agent_web_t *web)
{
    if (web->call->rc != NGX_OK) {
        return ngx_http_agent_reply_store(web->request, web->call->rc);
    }

    return ngx_http_agent_task_reply(web);
}


ngx_int_t
ngx_http_agent_task_get(ngx_http_agent_web_t *web)
{
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

    return ngx_http_agent_call_start(web, ngx_agent_store_get_task,
                                     ngx_http_agent_task_found);
}


static ngx_int_t
ngx_http_agent_task_found(ngx_http_agent_web_t *web)
{
    ngx_agent_store_call_t  *call;

    call = web->call;

    if (call->rc == NGX_DECLINED) {
        return ngx_http_agent_reply_unknown(web->request, "task",
                                            &web->route.task);
    }

    if (call->rc != NGX_OK) {
        return ngx_http_agent_reply_store(web->request, call->rc);
    }

    web->ctx->agent = call->task->agent;

    return ngx_http_agent_task_reply(web);
}


static ngx_int_t
ngx_http_agent_task_reply(ngx_http_agent_web_t *web)
{
    ngx_agent_json_t   j;
    ngx_agent_task_t  *task;

    task = web->call->task;

    ngx_agent_json_init(&j, web->request->pool,
                        ngx_http_agent_view_task_size(task));

    ngx_http_agent_view_task(&j, task);

    return ngx_http_agent_reply_json(web->request, NGX_HTTP_OK, &j);
}


ngx_int_t
ngx_http_agent_task_list(ngx_http_agent_web_t *web)
{
    ngx_int_t                rc;
    ngx_agent_store_call_t  *call;

    call = ngx_http_agent_call(web);
    if (call == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_http_agent_page(web, &rc) != NGX_OK) {
        return rc;
    }

    return ngx_http_agent_call_start(web, ngx_agent_store_list_tasks,
                                     ngx_http_agent_task_listed);
}


static ngx_int_t
ngx_http_agent_task_listed(ngx_http_agent_web_t *web)
{
    size_t                   size;
    ngx_uint_t               i;
    ngx_agent_json_t         j;
    ngx_agent_task_t        *tasks;
    ngx_agent_store_call_t  *call;

    call = web->call;

    if (call->rc != NGX_OK) {
        return ngx_http_agent_reply_store(web->request, call->rc);
    }

    tasks = call->list->elts;
    size = 256;

    for (i = 0; i < call->list->nelts; i++) {
        size += ngx_http_agent_view_task_size(&tasks[i]);
    }

    ngx_agent_json_init(&j, web->request->pool, size);

    ngx_agent_json_object(&j);
    ngx_agent_json_key(&j, "tasks");
    ngx_agent_json_array(&j);

    for (i = 0; i < call->list->nelts; i++) {
        ngx_http_agent_view_task(&j, &tasks[i]);
    }

    ngx_agent_json_array_end(&j);
    ngx_http_agent_view_pagination(&j, call->page, call->total);
    ngx_agent_json_object_end(&j);

    return ngx_http_agent_reply_json(web->request, NGX_HTTP_OK, &j);
}
