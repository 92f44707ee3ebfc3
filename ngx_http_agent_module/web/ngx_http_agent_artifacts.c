
/*
 * Artifacts: whether there is a place for them.  Upload, download and list
 * have files of their own.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_agent_artifacts.h"
#include "ngx_http_agent_reply.h"


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
