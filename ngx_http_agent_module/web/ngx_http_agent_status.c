
/*
 * The location of agent_status.  What is in its answer is in
 * ngx_http_agent_metrics.c.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_agent_web.h"
#include "ngx_http_agent_form.h"
#include "ngx_http_agent_reply.h"
#include "ngx_http_agent_status.h"


static const ngx_http_agent_form_t  ngx_http_agent_status_form = {
    ngx_string("prometheus"),
    ngx_string("text/plain; version=0.0.4; charset=utf-8"),
    { ngx_string("text/plain"), ngx_string("application/openmetrics-text") }
};


ngx_int_t
ngx_http_agent_status_handler(ngx_http_request_t *r)
{
    ngx_int_t                    rc;
    ngx_str_t                    text;
    ngx_uint_t                   prometheus;
    ngx_http_agent_main_conf_t  *amcf;

    static ngx_str_t             allow = ngx_string("GET, HEAD");
    static ngx_str_t             no_store = ngx_string("no-store");

    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "agent web: status");

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {

        if (ngx_http_agent_reply_header(r, "Allow", &allow) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        return ngx_http_agent_reply_error(r, NGX_HTTP_NOT_ALLOWED,
                                          "the status is read with GET or "
                                          "HEAD");
    }

    if (ngx_http_agent_form(r, &ngx_http_agent_status_form, &prometheus)
        != NGX_OK)
    {
        return ngx_http_agent_reply_invalid(r, "query", "format",
                                            "must be \"json\" or "
                                            "\"prometheus\"");
    }

    amcf = ngx_http_get_module_main_conf(r, ngx_http_agent_module);

    rc = prometheus ? ngx_http_agent_status_prometheus(r, amcf, &text)
                    : ngx_http_agent_status_json(r, amcf, &text);

    if (rc != NGX_OK
        || ngx_http_agent_reply_header(r, "Cache-Control", &no_store)
           != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (prometheus) {
        return ngx_http_agent_form_send(r, &ngx_http_agent_status_form,
                                        &text);
    }

    return ngx_http_agent_reply(r, NGX_HTTP_OK, &text);
}
