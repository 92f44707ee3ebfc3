
/*
 * Where the pages that nginx makes become JSON: marks set while nginx reads
 * its configuration, which web/ngx_http_agent_error.c goes by.  No directive
 * is behind them.
 */

#include "ngx_http_agent_conf.h"
#include "ngx_http_agent_web.h"


/*
 * For a directive with a content handler of ours.  What is refused before a
 * location is known goes by the server's own configuration, so agent_pass
 * leaves a mark there as well; no location inherits it.
 */

void
ngx_http_agent_conf_errors(ngx_conf_t *cf, ngx_http_handler_pt handler)
{
    ngx_http_core_srv_conf_t   *cscf;
    ngx_http_agent_loc_conf_t  *alcf;

    alcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_agent_module);
    alcf->json = 1;

    if (handler != ngx_http_agent_handler) {
        return;
    }

    cscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module);

    alcf = cscf->ctx->loc_conf[ngx_http_agent_module.ctx_index];
    alcf->serves = 1;
}


/* "if" and "limit_except" go by the rules of what they stand in. */

void
ngx_http_agent_conf_errors_merge(ngx_conf_t *cf,
    ngx_http_agent_loc_conf_t *prev, ngx_http_agent_loc_conf_t *conf)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    conf->errors = clcf->noname ? prev->errors : conf;
}


/*
 * In postconfiguration: has the server's default site files of its own?
 * nginx always has a "root"; one that is not its default was written by the
 * user, and then what no location matches may be a website's.
 */

ngx_int_t
ngx_http_agent_conf_errors_sites(ngx_conf_t *cf)
{
    ngx_str_t                    html;
    ngx_uint_t                   i;
    ngx_http_core_loc_conf_t    *clcf;
    ngx_http_core_srv_conf_t   **cscfp;
    ngx_http_agent_loc_conf_t   *alcf;
    ngx_http_core_main_conf_t   *cmcf;

    ngx_str_set(&html, "html");

    if (ngx_conf_full_name(cf->cycle, &html, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    cscfp = cmcf->servers.elts;

    for (i = 0; i < cmcf->servers.nelts; i++) {
        clcf = cscfp[i]->ctx->loc_conf[ngx_http_core_module.ctx_index];
        alcf = cscfp[i]->ctx->loc_conf[ngx_http_agent_module.ctx_index];

        alcf->site = (clcf->root.len != html.len
                      || ngx_strncmp(clcf->root.data, html.data, html.len)
                         != 0);
    }

    return NGX_OK;
}
