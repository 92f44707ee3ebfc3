
/*
 * Tasks: create, get, cancel.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_agent_id.h"
#include "ngx_agent_stat.h"
#include "ngx_http_agent_auth.h"
#include "ngx_http_agent_body.h"
#include "ngx_http_agent_headers.h"
#include "ngx_http_agent_print.h"
#include "ngx_http_agent_reply.h"
#include "ngx_http_agent_steps.h"
#include "ngx_http_agent_view.h"


static ngx_int_t ngx_http_agent_task_body(ngx_http_agent_web_t *web);
static ngx_agent_agent_t *ngx_http_agent_task_agent(
    ngx_http_agent_web_t *web, ngx_int_t *rc);
static ngx_int_t ngx_http_agent_task_key(ngx_http_agent_web_t *web,
    ngx_http_agent_body_t *body, ngx_int_t *rc);
static ngx_int_t ngx_http_agent_task_first(ngx_http_agent_web_t *web,
    ngx_agent_agent_t *agent, ngx_int_t *rc);
static ngx_int_t ngx_http_agent_task_created(ngx_http_agent_web_t *web);
static ngx_int_t ngx_http_agent_task_replay(ngx_http_agent_web_t *web);
static ngx_int_t ngx_http_agent_task_found(ngx_http_agent_web_t *web);
static ngx_int_t ngx_http_agent_task_cancelled(ngx_http_agent_web_t *web);
static ngx_int_t ngx_http_agent_task_reply(ngx_http_agent_web_t *web);


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

    web->ctx->agent = agent->name;

    if (ngx_http_agent_auth_limited(web)
        && !ngx_agent_auth_allows(web->key, &agent->name))
    {
        return ngx_http_agent_auth_agent(web, &agent->name);
    }

    call = ngx_http_agent_call_task(web);
    if (call == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    task = call->task;

    ngx_agent_id_create(&task->id);
    task->agent = agent->name;
    task->input = body.input;
    task->additional_input = body.additional_input;

    if (ngx_http_agent_traceparent(web->request, pool, &task->traceparent)
        != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    call->max_steps = agent->max_steps;
    call->price = agent->price;

    if (ngx_http_agent_task_key(web, &body, &rc) != NGX_OK
        || ngx_http_agent_task_first(web, agent, &rc) != NGX_OK)
    {
        return rc;
    }

    web->ctx->task_id = task->id;
    web->ctx->has_task = 1;

    return ngx_http_agent_call_start(web, ngx_agent_store_create_task,
                                     ngx_http_agent_task_created);
}


/* NGX_DECLINED: the client has been answered, *rc is the code to return */

static ngx_int_t
ngx_http_agent_task_key(ngx_http_agent_web_t *web,
    ngx_http_agent_body_t *body, ngx_int_t *rc)
{
    static ngx_str_t  kind = ngx_string("task");

    ngx_pool_t              *pool;
    ngx_agent_store_call_t  *call;
    ngx_http_agent_print_t  *print;

    call = web->call;
    pool = web->request->pool;

    if (ngx_http_agent_key(web->request, pool, &call->key, rc) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (call->key.data == NULL) {
        return NGX_OK;
    }

    *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;

    print = ngx_http_agent_print_create(pool);
    if (print == NULL) {
        return NGX_DECLINED;
    }

    ngx_http_agent_print_field(print, &kind);
    ngx_http_agent_print_field(print, &call->task->agent);
    ngx_http_agent_print_field(print, &body->text);

    return ngx_http_agent_print_done(print, &call->print);
}


/* Of an agent that runs by itself the first step comes with the task. */

static ngx_int_t
ngx_http_agent_task_first(ngx_http_agent_web_t *web,
    ngx_agent_agent_t *agent, ngx_int_t *rc)
{
    ngx_agent_step_t  *step;

    if (agent->run != NGX_AGENT_RUN_AUTO) {
        return NGX_OK;
    }

    if (ngx_agent_queue_is_full()) {
        *rc = ngx_http_agent_reply_full(web->request);
        return NGX_DECLINED;
    }

    step = ngx_pcalloc(web->request->pool, sizeof(ngx_agent_step_t));
    if (step == NULL) {
        *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
        return NGX_DECLINED;
    }

    ngx_agent_id_create(&step->id);
    step->task_id = web->call->task->id;

    web->call->step = step;

    return NGX_OK;
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
    ngx_http_request_t      *r;
    ngx_agent_store_call_t  *call;

    r = web->request;
    call = web->call;

    if (call->rc == NGX_DECLINED) {
        /* the key's task was deleted in this very moment: ask again */
        return ngx_http_agent_reply_store(r, NGX_ABORT);
    }

    if (call->rc == NGX_BUSY) {
        return ngx_http_agent_reply_quota(r, call->quota, &call->quota_max);
    }

    if (call->rc != NGX_OK) {
        return ngx_http_agent_reply_store(r, call->rc);
    }

    if (call->mismatch) {
        return ngx_http_agent_key_mismatch(r);
    }

    if (call->replayed) {
        return ngx_http_agent_task_replay(web);
    }

    ngx_agent_stat_add(TASKS, 1);

    if (call->step) {
        ngx_agent_queue_ready(&call->task->agent, &call->tenant);
    }

    return ngx_http_agent_task_reply(web);
}


/*
 * What is read may have changed since: the answer of then had no artifacts,
 * and all else is as it was.
 */

static ngx_int_t
ngx_http_agent_task_replay(ngx_http_agent_web_t *web)
{
    ngx_agent_task_t  *task;

    task = web->call->task;

    web->ctx->task_id = task->id;
    ngx_str_null(&task->artifacts);

    if (ngx_http_agent_key_replayed(web->request) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_agent_task_reply(web);
}


ngx_int_t
ngx_http_agent_task_get(ngx_http_agent_web_t *web)
{
    if (ngx_http_agent_call_task(web) == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_agent_call_start(web, ngx_agent_store_get_task,
                                     ngx_http_agent_task_found);
}


static ngx_int_t
ngx_http_agent_task_found(ngx_http_agent_web_t *web)
{
    ngx_agent_store_call_t  *call;

    call = web->call;

    if (call->rc != NGX_OK) {
        return ngx_http_agent_reply_failed(web->request, call->rc, "task",
                                           &web->route.task);
    }

    web->ctx->agent = call->task->agent;

    return ngx_http_agent_task_reply(web);
}


ngx_int_t
ngx_http_agent_task_cancel(ngx_http_agent_web_t *web)
{
    if (ngx_http_agent_call_task(web) == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_agent_call_start(web, ngx_agent_store_cancel,
                                     ngx_http_agent_task_cancelled);
}


static ngx_int_t
ngx_http_agent_task_cancelled(ngx_http_agent_web_t *web)
{
    ngx_agent_store_call_t  *call;

    call = web->call;

    if (call->rc != NGX_OK) {
        return ngx_http_agent_task_found(web);
    }

    ngx_http_agent_step_stop(call->list);

    return ngx_http_agent_task_get(web);
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
