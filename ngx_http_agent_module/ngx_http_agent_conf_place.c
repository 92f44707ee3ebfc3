
/*
 * Directives that make a location one of ours: their setters.  Each judges its
 * own line only.
 */

#include "ngx_http_agent_conf.h"
#include "ngx_http_agent_web.h"


char *
ngx_http_agent_conf_pass(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_agent_loc_conf_t *alcf = conf;

    ngx_str_t                         *value, *name;
    ngx_http_compile_complex_value_t   ccv;

    if (alcf->pass) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (value[1].len == 0) {
        return "has an empty agent name";
    }

    alcf->pass = ngx_palloc(cf->pool, sizeof(ngx_http_complex_value_t));
    if (alcf->pass == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = &value[1];
    ccv.complex_value = alcf->pass;

    if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    name = alcf->pass->lengths ? NULL : &alcf->pass->value;

    return ngx_http_agent_conf_remember(cf, cmd, name,
                                        ngx_http_agent_handler);
}


char *
ngx_http_agent_conf_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_agent_loc_conf_t *alcf = conf;

    if (alcf->status) {
        return "is duplicate";
    }

    alcf->status = 1;

    return ngx_http_agent_conf_remember(cf, cmd, NULL,
                                        ngx_http_agent_status_handler);
}


char *
ngx_http_agent_conf_usage(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler == ngx_http_agent_usage_handler) {
        return "is duplicate";
    }

    return ngx_http_agent_conf_remember(cf, cmd, NULL,
                                        ngx_http_agent_usage_handler);
}


char *
ngx_http_agent_conf_remember(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_str_t *name, ngx_http_handler_pt handler)
{
    ngx_http_agent_conf_t     *acf;
    ngx_http_agent_place_t    *place;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler) {
        return "stands in a location that has another content handler";
    }

    clcf->handler = handler;
    ngx_http_agent_conf_errors(cf, handler);

    acf = ngx_http_conf_get_module_main_conf(cf, ngx_http_agent_module);

    place = ngx_array_push(&acf->places);
    if (place == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_str_null(&place->name);

    if (name) {
        place->name = *name;
    }

    place->directive = &cmd->name;
    place->handler = handler;
    place->clcf = clcf;
    place->conf_file = cf->conf_file->file.name.data;
    place->conf_line = cf->conf_file->line;

    return NGX_CONF_OK;
}
