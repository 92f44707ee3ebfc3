
/*
 * Lists: a page of tasks, or of a task's steps or artifacts.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_agent_auth.h"
#include "ngx_http_agent_reply.h"
#include "ngx_http_agent_view.h"


/* what is listed, how it is asked for, and how one of it is shown */

typedef struct {
    const char                *name;
    ngx_http_agent_call_pt     start;
    size_t                     size;         /* of one element */
    size_t                   (*length)(void *element);
    void                     (*view)(ngx_agent_json_t *j, void *element,
                                  ngx_uint_t strict);
} ngx_http_agent_list_t;


static ngx_int_t ngx_http_agent_list(ngx_http_agent_web_t *web,
    ngx_http_agent_list_t *list);
static ngx_int_t ngx_http_agent_listed(ngx_http_agent_web_t *web);
static ngx_int_t ngx_http_agent_list_reply(ngx_http_agent_web_t *web,
    ngx_http_agent_list_t *list);
static size_t ngx_http_agent_list_task_length(void *element);
static void ngx_http_agent_list_task_view(ngx_agent_json_t *j, void *element,
    ngx_uint_t strict);
static size_t ngx_http_agent_list_step_length(void *element);
static void ngx_http_agent_list_step_view(ngx_agent_json_t *j, void *element,
    ngx_uint_t strict);
static size_t ngx_http_agent_list_artifact_length(void *element);
static void ngx_http_agent_list_artifact_view(ngx_agent_json_t *j,
    void *element, ngx_uint_t strict);


static ngx_http_agent_list_t  ngx_http_agent_list_tasks = {
    "tasks",
    ngx_agent_store_list_tasks,
    sizeof(ngx_agent_task_t),
    ngx_http_agent_list_task_length,
    ngx_http_agent_list_task_view
};

static ngx_http_agent_list_t  ngx_http_agent_list_steps = {
    "steps",
    ngx_agent_store_list_steps,
    sizeof(ngx_agent_step_t),
    ngx_http_agent_list_step_length,
    ngx_http_agent_list_step_view
};

static ngx_http_agent_list_t  ngx_http_agent_list_artifacts = {
    "artifacts",
    ngx_agent_store_list_artifacts,
    sizeof(ngx_agent_artifact_t),
    ngx_http_agent_list_artifact_length,
    ngx_http_agent_list_artifact_view
};


ngx_int_t
ngx_http_agent_task_list(ngx_http_agent_web_t *web)
{
    return ngx_http_agent_list(web, &ngx_http_agent_list_tasks);
}


ngx_int_t
ngx_http_agent_step_list(ngx_http_agent_web_t *web)
{
    return ngx_http_agent_list(web, &ngx_http_agent_list_steps);
}


ngx_int_t
ngx_http_agent_artifact_list(ngx_http_agent_web_t *web)
{
    return ngx_http_agent_list(web, &ngx_http_agent_list_artifacts);
}


static ngx_int_t
ngx_http_agent_list(ngx_http_agent_web_t *web, ngx_http_agent_list_t *list)
{
    ngx_int_t  rc;

    web->op = list;

    if (ngx_http_agent_call_task(web) == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_http_agent_auth_limited(web)) {
        web->call->agents = web->key->agents;
    }

    if (ngx_http_agent_list_page(web, &rc) != NGX_OK) {
        return rc;
    }

    return ngx_http_agent_call_start(web, list->start, ngx_http_agent_listed);
}


ngx_int_t
ngx_http_agent_list_page(ngx_http_agent_web_t *web, ngx_int_t *rc)
{
    const char        *arg, *why;
    ngx_agent_page_t  *page;

    *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;

    page = ngx_palloc(web->request->pool, sizeof(ngx_agent_page_t));
    if (page == NULL) {
        return NGX_DECLINED;
    }

    web->call->page = page;

    switch (ngx_http_agent_route_page(web->request, page, &arg, &why)) {

    case NGX_OK:
        return NGX_OK;

    case NGX_DECLINED:
        *rc = ngx_http_agent_reply_invalid(web->request, "query", arg, why);
        return NGX_DECLINED;

    default:
        return NGX_DECLINED;
    }
}


static ngx_int_t
ngx_http_agent_listed(ngx_http_agent_web_t *web)
{
    ngx_agent_store_call_t  *call;

    call = web->call;

    if (call->rc != NGX_OK) {
        return ngx_http_agent_reply_failed(web->request, call->rc, "task",
                                           &web->route.task);
    }

    return ngx_http_agent_list_reply(web, web->op);
}


static ngx_int_t
ngx_http_agent_list_reply(ngx_http_agent_web_t *web,
    ngx_http_agent_list_t *list)
{
    size_t                      length;
    u_char                     *element, *last;
    ngx_agent_json_t            j;
    ngx_agent_store_call_t     *call;
    ngx_http_agent_loc_conf_t  *alcf;

    alcf = ngx_http_get_module_loc_conf(web->request, ngx_http_agent_module);

    call = web->call;

    last = (u_char *) call->list->elts + call->list->nelts * list->size;
    length = 256;

    for (element = call->list->elts; element < last; element += list->size) {
        length += list->length(element);
    }

    ngx_agent_json_init(&j, web->request->pool, length);

    ngx_agent_json_object(&j);
    ngx_agent_json_key(&j, list->name);
    ngx_agent_json_array(&j);

    for (element = call->list->elts; element < last; element += list->size) {
        list->view(&j, element, alcf->strict);
    }

    ngx_agent_json_array_end(&j);
    ngx_http_agent_view_pagination(&j, call->page, call->total);
    ngx_agent_json_object_end(&j);

    return ngx_http_agent_reply_json(web->request, NGX_HTTP_OK, &j);
}


static size_t
ngx_http_agent_list_task_length(void *element)
{
    return ngx_http_agent_view_task_size(element);
}


static void
ngx_http_agent_list_task_view(ngx_agent_json_t *j, void *element,
    ngx_uint_t strict)
{
    ngx_http_agent_view_task(j, element);
}


static size_t
ngx_http_agent_list_step_length(void *element)
{
    return ngx_http_agent_view_step_size(element);
}


static void
ngx_http_agent_list_step_view(ngx_agent_json_t *j, void *element,
    ngx_uint_t strict)
{
    ngx_http_agent_view_step(j, element, strict);
}


static size_t
ngx_http_agent_list_artifact_length(void *element)
{
    return ngx_http_agent_view_artifact_size(element);
}


static void
ngx_http_agent_list_artifact_view(ngx_agent_json_t *j, void *element,
    ngx_uint_t strict)
{
    ngx_http_agent_view_artifact(j, element);
}
