
/*
 * Steps: get, cancel.  Posting one is in ngx_http_agent_step_post.c.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_agent_headers.h"
#include "ngx_http_agent_reply.h"
#include "ngx_http_agent_steps.h"
#include "ngx_http_agent_wait.h"


static ngx_int_t ngx_http_agent_step_read(ngx_http_agent_web_t *web,
    ngx_http_agent_done_pt done);
static ngx_int_t ngx_http_agent_step_wait(ngx_http_agent_web_t *web,
    ngx_uint_t seconds);
static ngx_int_t ngx_http_agent_step_found(ngx_http_agent_web_t *web);
static ngx_int_t ngx_http_agent_step_looked(ngx_http_agent_web_t *web);
static ngx_int_t ngx_http_agent_step_cancelled(ngx_http_agent_web_t *web);


ngx_int_t
ngx_http_agent_step_get(ngx_http_agent_web_t *web)
{
    ngx_agent_prefer_t  prefer;

    ngx_http_agent_prefer(web->request, &prefer);

    if (prefer.has_wait && prefer.wait) {
        return ngx_http_agent_step_wait(web, prefer.wait);
    }

    return ngx_http_agent_step_read(web, ngx_http_agent_step_found);
}


static ngx_int_t
ngx_http_agent_step_read(ngx_http_agent_web_t *web,
    ngx_http_agent_done_pt done)
{
    if (ngx_http_agent_call_step(web) == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_agent_call_start(web, ngx_agent_store_get_step, done);
}


/*
 * The first look is kept apart from the request: what it finds may be large
 * and is of no use while the client waits.
 */

static ngx_int_t
ngx_http_agent_step_wait(ngx_http_agent_web_t *web, ngx_uint_t seconds)
{
    ngx_agent_store_call_t  *call;
    ngx_http_agent_wait_t   *wait;

    wait = ngx_http_agent_wait_create(web);
    if (wait == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    wait->limited = 1;
    wait->seconds = seconds;

    call = ngx_http_agent_call_step(web);
    if (call == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    call->pool = wait->pool;

    return ngx_http_agent_call_start(web, ngx_agent_store_get_step,
                                     ngx_http_agent_step_looked);
}


static ngx_int_t
ngx_http_agent_step_looked(ngx_http_agent_web_t *web)
{
    ngx_agent_store_call_t  *call;

    call = web->call;

    if (call->rc == NGX_OK && !ngx_agent_step_is_ended(call->step)) {
        return ngx_http_agent_wait(web->op);
    }

    return ngx_http_agent_step_found(web);
}


static ngx_int_t
ngx_http_agent_step_found(ngx_http_agent_web_t *web)
{
    ngx_agent_store_call_t  *call;

    call = web->call;

    if (call->rc != NGX_OK) {
        return ngx_http_agent_step_missed(web, call->rc);
    }

    return ngx_http_agent_step_reply(web, NGX_HTTP_OK, call->step);
}


ngx_int_t
ngx_http_agent_step_cancel(ngx_http_agent_web_t *web)
{
    ngx_agent_store_call_t  *call;
    ngx_agent_task_t        *task;

    call = ngx_http_agent_call_step(web);
    if (call == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    task = ngx_pcalloc(call->pool, sizeof(ngx_agent_task_t));
    if (task == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    task->id = web->ctx->task_id;
    call->task = task;

    return ngx_http_agent_call_start(web, ngx_agent_store_cancel,
                                     ngx_http_agent_step_cancelled);
}


/* A step that has ended before stays as it is, and that is no error. */

static ngx_int_t
ngx_http_agent_step_cancelled(ngx_http_agent_web_t *web)
{
    ngx_agent_store_call_t  *call;

    call = web->call;

    if (call->rc != NGX_OK) {
        return ngx_http_agent_step_missed(web, call->rc);
    }

    ngx_http_agent_step_stop(call->list);

    return ngx_http_agent_step_read(web, ngx_http_agent_step_found);
}


void
ngx_http_agent_step_stop(ngx_array_t *ids)
{
    ngx_uint_t       i;
    ngx_agent_id_t  *id;

    id = ids->elts;

    for (i = 0; i < ids->nelts; i++) {
        ngx_agent_step_cancelled(&id[i]);
    }
}
