
/*
 * Setters of agent_auth_zone, agent_tenant and agent_auth: who comes in, and
 * whose data it is.
 */

#include "ngx_http_agent_conf.h"
#include "ngx_agent_auth.h"
#include "ngx_agent_key_cache.h"
#include "ngx_http_agent_web.h"


static char *ngx_http_agent_conf_zone_size(ngx_str_t *value, ngx_str_t *name,
    size_t *size);
static ngx_uint_t ngx_http_agent_conf_is_default(ngx_str_t *value);


char *
ngx_http_agent_conf_auth_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_agent_main_conf_t *amcf = conf;

    char       *text;
    size_t      size;
    ngx_str_t  *value, name;

    if (amcf->auth_zone) {
        return "is duplicate";
    }

    value = cf->args->elts;

    text = ngx_http_agent_conf_zone_size(&value[1], &name, &size);

    if (text) {
        return ngx_http_agent_conf_invalid(cf, &value[1], cmd, text);
    }

    if (ngx_agent_auth_zone(cf, &name, size, &ngx_http_agent_module)
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    amcf->auth_zone = 1;

    return NGX_CONF_OK;
}


/* NULL when good, else what is wrong */

static char *
ngx_http_agent_conf_zone_size(ngx_str_t *value, ngx_str_t *name,
    size_t *size)
{
    u_char     *p;
    ssize_t     n;
    ngx_str_t   s;

    p = ngx_strlchr(value->data, value->data + value->len, ':');

    if (p == NULL || p == value->data) {
        return "it must be a name, a colon and a size, as in keys:10m";
    }

    name->data = value->data;
    name->len = p - value->data;

    s.data = p + 1;
    s.len = value->data + value->len - s.data;

    n = ngx_parse_size(&s);

    if (n == NGX_ERROR) {
        return "it must be a name, a colon and a size, as in keys:10m";
    }

    if (n < NGX_AGENT_KEY_CACHE_MIN) {
        return "the size must be 32k at least";
    }

    *size = n;

    return NULL;
}


char *
ngx_http_agent_conf_tenant(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_agent_loc_conf_t *alcf = conf;

    ngx_str_t                         *value;
    ngx_http_compile_complex_value_t   ccv;

    if (alcf->tenant != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (value[1].len == 0) {
        return "has an empty tenant";
    }

    if (ngx_http_agent_conf_is_default(&value[1])) {
        alcf->tenant = NULL;
        return NGX_CONF_OK;
    }

    alcf->tenant = ngx_palloc(cf->pool, sizeof(ngx_http_complex_value_t));
    if (alcf->tenant == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = &value[1];
    ccv.complex_value = alcf->tenant;

    if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* back to the key's tenant, below a level that says otherwise */

static ngx_uint_t
ngx_http_agent_conf_is_default(ngx_str_t *value)
{
    return ngx_strcmp(value->data, "$agent_tenant") == 0
           || ngx_strcmp(value->data, "${agent_tenant}") == 0;
}


char *
ngx_http_agent_conf_auth(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_agent_loc_conf_t *alcf = conf;

    if (alcf->auth) {
        return "is duplicate";
    }

    alcf->auth = 1;

    return ngx_http_agent_conf_remember(cf, cmd, NULL,
                                        ngx_http_agent_auth_handler);
}
