
/*
 * $agent_id, $agent_tenant, $agent_key, $agent_task_id, $agent_step_id,
 * $agent_step_status, $agent_attempt, $agent_tokens_in, $agent_tokens_out.
 * Reads the request's context, and what the cache of keys has.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_agent_id.h"
#include "ngx_http_agent_auth.h"
#include "ngx_http_agent_edge.h"
#include "ngx_http_agent_web.h"


typedef enum {
    NGX_HTTP_AGENT_VAR_TASK_ID = 0,
    NGX_HTTP_AGENT_VAR_STEP_ID,
    NGX_HTTP_AGENT_VAR_STATUS,
    NGX_HTTP_AGENT_VAR_ATTEMPT,
    NGX_HTTP_AGENT_VAR_TOKENS_IN,
    NGX_HTTP_AGENT_VAR_TOKENS_OUT
} ngx_http_agent_var_e;


static ngx_http_agent_ctx_t *ngx_http_agent_variable_ctx(
    ngx_http_request_t *r);
static ngx_int_t ngx_http_agent_variable_id(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_uint_t ngx_http_agent_variable_is_plain(ngx_str_t *name);
static ngx_int_t ngx_http_agent_variable_named(ngx_http_request_t *r,
    ngx_str_t *name);
static ngx_int_t ngx_http_agent_variable_tenant(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_agent_variable_key(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_agent_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static void ngx_http_agent_variable_set(ngx_http_variable_value_t *v,
    ngx_str_t *value);
static ngx_int_t ngx_http_agent_variable_uuid(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_agent_id_t *id, ngx_uint_t has);
static ngx_int_t ngx_http_agent_variable_number(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uint64_t n);


/* not cacheable: a body that is read, or a step that ends, changes them */

static ngx_http_variable_t  ngx_http_agent_variables[] = {

    { ngx_string("agent_id"), NULL, ngx_http_agent_variable_id,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("agent_tenant"), NULL, ngx_http_agent_variable_tenant,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("agent_key"), NULL, ngx_http_agent_variable_key,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("agent_task_id"), NULL, ngx_http_agent_variable,
      NGX_HTTP_AGENT_VAR_TASK_ID, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("agent_step_id"), NULL, ngx_http_agent_variable,
      NGX_HTTP_AGENT_VAR_STEP_ID, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("agent_step_status"), NULL, ngx_http_agent_variable,
      NGX_HTTP_AGENT_VAR_STATUS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("agent_attempt"), NULL, ngx_http_agent_variable,
      NGX_HTTP_AGENT_VAR_ATTEMPT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("agent_tokens_in"), NULL, ngx_http_agent_variable,
      NGX_HTTP_AGENT_VAR_TOKENS_IN, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("agent_tokens_out"), NULL, ngx_http_agent_variable,
      NGX_HTTP_AGENT_VAR_TOKENS_OUT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


ngx_int_t
ngx_http_agent_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    for (v = ngx_http_agent_variables; v->name.len; v++) {

        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


/*
 * A run's subrequest has a context of its own; any other subrequest shows
 * what its client's request has.
 */

static ngx_http_agent_ctx_t *
ngx_http_agent_variable_ctx(ngx_http_request_t *r)
{
    ngx_http_agent_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_agent_module);

    if (ctx == NULL && r != r->main) {
        ctx = ngx_http_get_module_ctx(r->main, ngx_http_agent_module);
    }

    return ctx;
}


/*
 * The id that the client named; where it named none, the agent that the
 * request turned out to be about, for the log.
 */

static ngx_int_t
ngx_http_agent_variable_id(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_int_t              rc;
    ngx_str_t              name;
    ngx_http_agent_ctx_t  *ctx;
    ngx_http_agent_web_t  *web;

    ctx = ngx_http_agent_variable_ctx(r);

    if (ctx && ctx->run) {
        ngx_http_agent_variable_set(v, &ctx->agent);
        return NGX_OK;
    }

    rc = ngx_http_agent_variable_named(r->main, &name);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (rc == NGX_DECLINED) {
        ngx_str_null(&name);

        if (ctx) {
            web = ctx->web;
            name = (web && web->agent_id.len) ? web->agent_id : ctx->agent;
        }
    }

    if (!ngx_http_agent_variable_is_plain(&name)) {
        ngx_str_null(&name);
    }

    ngx_http_agent_variable_set(v, &name);

    return NGX_OK;
}


/* What is decoded from a query must not make a header line of its own. */

static ngx_uint_t
ngx_http_agent_variable_is_plain(ngx_str_t *name)
{
    size_t  i;

    for (i = 0; i < name->len; i++) {
        if (name->data[i] < 0x20 || name->data[i] == 0x7f) {
            return 0;
        }
    }

    return 1;
}


/* By the header, else by the query.  NGX_DECLINED: by neither. */

static ngx_int_t
ngx_http_agent_variable_named(ngx_http_request_t *r, ngx_str_t *name)
{
    static ngx_str_t  header = ngx_string("x-agent-id");

    ngx_int_t         rc;
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                break;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].key.len == header.len
            && h[i].value.len
            && ngx_strncasecmp(h[i].key.data, header.data, header.len) == 0)
        {
            *name = h[i].value;
            return NGX_OK;
        }
    }

    rc = ngx_http_agent_route_arg(r, "agent_id", name);

    return (rc == NGX_OK && name->len == 0) ? NGX_DECLINED : rc;
}


/*
 * The one that the request was handled for; before that, the key's.  Empty:
 * the default tenant, or nobody is known.
 */

static ngx_int_t
ngx_http_agent_variable_tenant(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t              tenant;
    ngx_agent_key_t        key;
    ngx_http_agent_ctx_t  *ctx;
    ngx_http_agent_web_t  *web;

    ngx_str_set(&tenant, "");

    ctx = ngx_http_agent_variable_ctx(r);
    web = ctx ? ctx->web : NULL;

    if (ctx && ctx->run) {
        tenant = ctx->tenant;

    } else if (web && web->tenant.len) {
        tenant = web->tenant;

    } else if (ngx_http_agent_auth_known(r, &key) == NGX_OK) {
        tenant = key.tenant;
    }

    ngx_http_agent_variable_set(v, &tenant);

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_variable_key(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_agent_key_t        key;
    ngx_http_agent_ctx_t  *ctx;

    ctx = ngx_http_agent_variable_ctx(r);

    if ((ctx && ctx->run)
        || ngx_http_agent_auth_known(r, &key) != NGX_OK)
    {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_http_agent_variable_uuid(r, v, &key.id, 1);
}


static ngx_int_t
ngx_http_agent_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_agent_ctx_t  *ctx;

    ctx = ngx_http_agent_variable_ctx(r);

    if (ctx == NULL
        || (data >= NGX_HTTP_AGENT_VAR_STATUS && !ctx->has_status))
    {
        v->not_found = 1;
        return NGX_OK;
    }

    switch (data) {

    case NGX_HTTP_AGENT_VAR_TASK_ID:
        return ngx_http_agent_variable_uuid(r, v, &ctx->task_id,
                                            ctx->has_task);

    case NGX_HTTP_AGENT_VAR_STEP_ID:
        return ngx_http_agent_variable_uuid(r, v, &ctx->step_id,
                                            ctx->has_step);

    case NGX_HTTP_AGENT_VAR_STATUS:
        ngx_http_agent_variable_set(v, ngx_agent_status_name(ctx->status));
        return NGX_OK;

    case NGX_HTTP_AGENT_VAR_ATTEMPT:
        return ngx_http_agent_variable_number(r, v, ctx->attempt);

    case NGX_HTTP_AGENT_VAR_TOKENS_IN:
        return ngx_http_agent_variable_number(r, v, ctx->tokens_in);

    default: /* NGX_HTTP_AGENT_VAR_TOKENS_OUT */
        return ngx_http_agent_variable_number(r, v, ctx->tokens_out);
    }
}


static void
ngx_http_agent_variable_set(ngx_http_variable_value_t *v, ngx_str_t *value)
{
    v->data = value->data;
    v->len = value->len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
}


static ngx_int_t
ngx_http_agent_variable_uuid(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_agent_id_t *id, ngx_uint_t has)
{
    ngx_str_t  text;

    if (!has) {
        v->not_found = 1;
        return NGX_OK;
    }

    text.len = NGX_AGENT_ID_LEN;
    text.data = ngx_pnalloc(r->pool, NGX_AGENT_ID_LEN);
    if (text.data == NULL) {
        return NGX_ERROR;
    }

    (void) ngx_agent_id_print(text.data, id);

    ngx_http_agent_variable_set(v, &text);

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_variable_number(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uint64_t n)
{
    ngx_str_t  text;

    text.data = ngx_pnalloc(r->pool, NGX_INT64_LEN);
    if (text.data == NULL) {
        return NGX_ERROR;
    }

    text.len = ngx_sprintf(text.data, "%uL", n) - text.data;

    ngx_http_agent_variable_set(v, &text);

    return NGX_OK;
}
