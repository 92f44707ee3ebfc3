
/*
 * Artifacts: list.  Upload and download have files of their own.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_agent_artifacts.h"
#include "ngx_http_agent_reply.h"
#include "ngx_http_agent_view.h"


static ngx_int_t ngx_http_agent_artifact_listed(ngx_http_agent_web_t *web);


ngx_int_t
ngx_http_agent_artifact_list(ngx_http_agent_web_t *web)
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

    return ngx_http_agent_call_start(web, ngx_agent_store_list_artifacts,
                                     ngx_http_agent_artifact_listed);
}


static ngx_int_t
ngx_http_agent_artifact_listed(ngx_http_agent_web_t *web)
{
    ngx_uint_t               i;
    ngx_agent_json_t         j;
    ngx_agent_artifact_t    *artifacts;
    ngx_agent_store_call_t  *call;

    call = web->call;

    if (call->rc == NGX_DECLINED) {
        return ngx_http_agent_reply_unknown(web->request, "task",
                                            &web->route.task);
    }

    if (call->rc != NGX_OK) {
        return ngx_http_agent_reply_store(web->request, call->rc);
    }

    artifacts = call->list->elts;

    ngx_agent_json_init(&j, web->request->pool,
                        256 + 192 * call->list->nelts);

    ngx_agent_json_object(&j);
    ngx_agent_json_key(&j, "artifacts");
    ngx_agent_json_array(&j);

    for (i = 0; i < call->list->nelts; i++) {
        ngx_http_agent_view_artifact(&j, &artifacts[i]);
    }

    ngx_agent_json_array_end(&j);
    ngx_http_agent_view_pagination(&j, call->page, call->total);
    ngx_agent_json_object_end(&j);

    return ngx_http_agent_reply_json(web->request, NGX_HTTP_OK, &j);
}


ngx_uint_t
ngx_http_agent_artifacts_on(ngx_http_request_t *r)
{
    ngx_http_agent_main_conf_t  *amcf;

    amcf = ngx_http_get_module_main_conf(r, ngx_http_agent_module);

    return amcf->artifacts != NULL;
}


ngx_int_t
ngx_http_agent_artifacts_off(ngx_http_request_t *r)
{
    return ngx_http_agent_reply_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                      "this server keeps no artifacts; its "
                                      "operator must set agent_artifacts");
}
