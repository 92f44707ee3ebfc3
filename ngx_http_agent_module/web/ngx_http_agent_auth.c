
/*
 * The location of agent_auth: is the key a good one, and may it do this?
 * Behind auth_request it answers a subrequest and keeps what it has found for
 * the client's own request, as auth_request itself knows only three answers:
 * 2xx, 401 and 403.  The key is never logged, shown or kept.
 *
 *   ASKING -> over       the cache or the store knows
 *   ASKING -> over       the client left: let go
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_agent_bearer.h"
#include "ngx_agent_utf8.h"
#include "ngx_http_agent_auth.h"
#include "ngx_http_agent_reply.h"
#include "ngx_http_agent_web.h"


/* as many bytes of a tenant's name as the database takes */
#define NGX_HTTP_AGENT_TENANT_MAX  128


typedef struct {
    ngx_uint_t                        status;
    ngx_str_t                         challenge;   /* len 0: none */
    ngx_str_t                         body;
} ngx_http_agent_refusal_t;


/* in the main request's pool, found by its ctx */

typedef struct {
    ngx_http_request_t               *request;     /* the one of agent_auth */
    ngx_agent_auth_t                  ask;
    const ngx_http_agent_refusal_t   *refusal;     /* NULL: it is let in */
    unsigned                          asking:1;
    unsigned                          known:1;     /* ask.key is a good key */
} ngx_http_agent_auth_t;


static ngx_http_agent_auth_t *ngx_http_agent_auth_create(
    ngx_http_request_t *r);
static ngx_http_agent_auth_t *ngx_http_agent_auth_find(ngx_http_request_t *r);
static void ngx_http_agent_auth_cleanup(void *data);
static void ngx_http_agent_auth_answered(ngx_agent_auth_t *ask);
static ngx_int_t ngx_http_agent_auth_judge(ngx_http_agent_auth_t *auth,
    ngx_int_t rc);
static ngx_int_t ngx_http_agent_auth_pass(ngx_http_request_t *r);
static ngx_int_t ngx_http_agent_auth_refuse(ngx_http_agent_auth_t *auth,
    const ngx_http_agent_refusal_t *refusal);
static ngx_int_t ngx_http_agent_auth_headers(ngx_http_request_t *r,
    const ngx_http_agent_refusal_t *refusal);
static ngx_int_t ngx_http_agent_auth_challenge(ngx_http_request_t *r,
    const ngx_str_t *value);
static ngx_int_t ngx_http_agent_auth_status(ngx_http_request_t *r,
    ngx_uint_t status);
static ngx_int_t ngx_http_agent_auth_nested(ngx_http_agent_web_t *web,
    ngx_int_t *rc);
static ngx_uint_t ngx_http_agent_auth_is_tenant(ngx_str_t *tenant);
static ngx_int_t ngx_http_agent_auth_answer(ngx_http_request_t *r,
    const ngx_http_agent_refusal_t *refusal);
static ngx_int_t ngx_http_agent_auth_asked(ngx_http_agent_web_t *web);


/* RFC 6750, section 3: no error code for who has sent no token at all */

static const ngx_http_agent_refusal_t  ngx_http_agent_auth_missing = {
    NGX_HTTP_UNAUTHORIZED,
    ngx_string("Bearer realm=\"agent\""),
    ngx_string("{\"message\":\"an API key is needed; send it in the header "
               "Authorization, as Bearer and the key\"}")
};

static const ngx_http_agent_refusal_t  ngx_http_agent_auth_malformed = {
    NGX_HTTP_UNAUTHORIZED,
    ngx_string("Bearer realm=\"agent\", error=\"invalid_token\", "
               "error_description=\"the token is malformed\""),
    ngx_string("{\"message\":\"the header Authorization is malformed; send "
               "Bearer, one space and the API key\"}")
};

static const ngx_http_agent_refusal_t  ngx_http_agent_auth_unknown = {
    NGX_HTTP_UNAUTHORIZED,
    ngx_string("Bearer realm=\"agent\", error=\"invalid_token\", "
               "error_description=\"the key is unknown, revoked or "
               "expired\""),
    ngx_string("{\"message\":\"the API key is unknown, revoked or expired; "
               "send one that is valid\"}")
};

static const ngx_http_agent_refusal_t  ngx_http_agent_auth_read_only = {
    NGX_HTTP_FORBIDDEN,
    ngx_string("Bearer realm=\"agent\", error=\"insufficient_scope\", "
               "error_description=\"the key may only read\""),
    ngx_string("{\"message\":\"this API key may only read; send one that may "
               "write\"}")
};

static const ngx_http_agent_refusal_t  ngx_http_agent_auth_busy = {
    NGX_HTTP_TOO_MANY_REQUESTS,
    ngx_null_string,
    ngx_string("{\"message\":\"too many unknown API keys were tried here; "
               "try again in a second\"}")
};

static const ngx_http_agent_refusal_t  ngx_http_agent_auth_away = {
    NGX_HTTP_SERVICE_UNAVAILABLE,
    ngx_null_string,
    ngx_string("{\"message\":\"the API key cannot be checked, as the "
               "database is not reachable or too busy, try again\"}")
};


ngx_int_t
ngx_http_agent_auth_handler(ngx_http_request_t *r)
{
    ngx_int_t               rc;
    ngx_str_t               token;
    ngx_table_elt_t        *h;
    ngx_http_agent_auth_t  *auth;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "agent web: auth, subrequest:%d", (int) (r != r->main));

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    auth = ngx_http_agent_auth_create(r);
    if (auth == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    h = r->main->headers_in.authorization;

    switch (ngx_agent_bearer(h ? &h->value : NULL, &token)) {

    case NGX_OK:
        break;

    case NGX_DECLINED:
        return ngx_http_agent_auth_refuse(auth, &ngx_http_agent_auth_missing);

    default:
        return ngx_http_agent_auth_refuse(auth,
                                          &ngx_http_agent_auth_malformed);
    }

    rc = ngx_agent_auth_check(&auth->ask, &token);

    if (rc != NGX_AGAIN) {
        return ngx_http_agent_auth_judge(auth, rc);
    }

    auth->asking = 1;

    r->connection->log->action = "waiting for the agent database";

    r->main->count++;
    ngx_http_agent_hold(r);

    return NGX_DONE;
}


static ngx_http_agent_auth_t *
ngx_http_agent_auth_create(ngx_http_request_t *r)
{
    ngx_http_request_t     *mr;
    ngx_http_cleanup_t     *cln;
    ngx_http_agent_ctx_t   *ctx;
    ngx_http_agent_auth_t  *auth;

    mr = r->main;

    ctx = ngx_http_get_module_ctx(mr, ngx_http_agent_module);

    if (ctx == NULL) {
        ctx = ngx_pcalloc(mr->pool, sizeof(ngx_http_agent_ctx_t));
        if (ctx == NULL) {
            return NULL;
        }

        ngx_http_set_ctx(mr, ctx, ngx_http_agent_module);
    }

    auth = ngx_pcalloc(mr->pool, sizeof(ngx_http_agent_auth_t));
    if (auth == NULL) {
        return NULL;
    }

    cln = ngx_http_cleanup_add(mr, 0);
    if (cln == NULL) {
        return NULL;
    }

    cln->handler = ngx_http_agent_auth_cleanup;
    cln->data = auth;

    auth->request = r;
    auth->ask.pool = mr->pool;
    auth->ask.log = mr->connection->log;
    auth->ask.handler = ngx_http_agent_auth_answered;
    auth->ask.data = auth;

    ctx->auth = auth;

    return auth;
}


static void
ngx_http_agent_auth_cleanup(void *data)
{
    ngx_http_agent_auth_t  *auth = data;

    if (auth->asking) {
        auth->asking = 0;
        ngx_agent_auth_detach(&auth->ask);
    }
}


/*
 * An internal redirect, to a named location perhaps, takes the contexts away
 * and not the cleanups: the newest of ours is what agent_auth said last.
 */

static ngx_http_agent_auth_t *
ngx_http_agent_auth_find(ngx_http_request_t *r)
{
    ngx_http_request_t    *mr;
    ngx_http_cleanup_t    *cln;
    ngx_http_agent_ctx_t  *ctx;

    mr = r->main;

    ctx = ngx_http_get_module_ctx(mr, ngx_http_agent_module);

    if (ctx && ctx->auth) {
        return ctx->auth;
    }

    if (!mr->internal && !mr->filter_finalize) {
        return NULL;
    }

    for (cln = mr->cleanup; cln; cln = cln->next) {

        if (cln->handler == ngx_http_agent_auth_cleanup) {
            return cln->data;
        }
    }

    return NULL;
}


static void
ngx_http_agent_auth_answered(ngx_agent_auth_t *ask)
{
    ngx_http_agent_auth_t  *auth = ask->data;

    ngx_http_request_t  *r;

    r = auth->request;

    ngx_http_set_log_request(r->connection->log, r);

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "agent web: auth answered: %i", ask->rc);

    auth->asking = 0;

    ngx_http_agent_finalize(r, ngx_http_agent_auth_judge(auth, ask->rc));
}


static ngx_int_t
ngx_http_agent_auth_judge(ngx_http_agent_auth_t *auth, ngx_int_t rc)
{
    switch (rc) {

    case NGX_OK:
        break;

    case NGX_DECLINED:
        return ngx_http_agent_auth_refuse(auth, &ngx_http_agent_auth_unknown);

    case NGX_BUSY:
        return ngx_http_agent_auth_refuse(auth, &ngx_http_agent_auth_busy);

    case NGX_ABORT:
        return ngx_http_agent_auth_refuse(auth, &ngx_http_agent_auth_away);

    default:
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    auth->known = 1;

    if (auth->ask.key.read_only
        && !(auth->request->main->method
             & (NGX_HTTP_GET|NGX_HTTP_HEAD|NGX_HTTP_OPTIONS)))
    {
        return ngx_http_agent_auth_refuse(auth,
                                          &ngx_http_agent_auth_read_only);
    }

    return ngx_http_agent_auth_pass(auth->request);
}


static ngx_int_t
ngx_http_agent_auth_pass(ngx_http_request_t *r)
{
    r->headers_out.content_length_n = 0;

    return ngx_http_agent_auth_status(r, NGX_HTTP_NO_CONTENT);
}


/*
 * A client of the location itself gets the answer.  auth_request passes on
 * the 401 with its challenge, and makes a page of 403 of its own from all
 * else: ngx_http_agent_auth_page() makes good for that.
 */

static ngx_int_t
ngx_http_agent_auth_refuse(ngx_http_agent_auth_t *auth,
    const ngx_http_agent_refusal_t *refusal)
{
    ngx_http_request_t  *r;

    r = auth->request;

    auth->refusal = refusal;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "agent web: auth refused: %ui", refusal->status);

    if (r == r->main) {
        return ngx_http_agent_auth_answer(r, refusal);
    }

    if (refusal->status != NGX_HTTP_UNAUTHORIZED) {
        return ngx_http_agent_auth_status(r, NGX_HTTP_FORBIDDEN);
    }

    if (ngx_http_agent_auth_headers(r, refusal) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_agent_auth_status(r, NGX_HTTP_UNAUTHORIZED);
}


static ngx_int_t
ngx_http_agent_auth_answer(ngx_http_request_t *r,
    const ngx_http_agent_refusal_t *refusal)
{
    ngx_str_t  body;

    if (ngx_http_agent_auth_headers(r, refusal) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    body = refusal->body;

    return ngx_http_agent_reply(r, refusal->status, &body);
}


/* An answer without a body. */

static ngx_int_t
ngx_http_agent_auth_status(ngx_http_request_t *r, ngx_uint_t status)
{
    ngx_int_t  rc;

    r->headers_out.status = status;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    return ngx_http_send_special(r, NGX_HTTP_LAST);
}


static ngx_int_t
ngx_http_agent_auth_headers(ngx_http_request_t *r,
    const ngx_http_agent_refusal_t *refusal)
{
    static ngx_str_t  second = ngx_string("1");

    if (refusal->challenge.len) {
        return ngx_http_agent_auth_challenge(r, &refusal->challenge);
    }

    return ngx_http_agent_reply_header(r, "Retry-After", &second);
}


/* Known to nginx as what it is, so that auth_request finds it. */

static ngx_int_t
ngx_http_agent_auth_challenge(ngx_http_request_t *r, const ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
    h->lowcase_key = NULL;
    ngx_str_set(&h->key, "WWW-Authenticate");
    h->value = *value;

#if (nginx_version >= 1023000)
    h->next = NULL;
#endif

    r->headers_out.www_authenticate = h;

    return NGX_OK;
}


ngx_str_t *
ngx_http_agent_auth_page(ngx_http_request_t *r)
{
    ngx_http_agent_ctx_t            *ctx;
    ngx_http_agent_auth_t           *auth;
    const ngx_http_agent_refusal_t  *refusal;

    auth = (r == r->main) ? ngx_http_agent_auth_find(r) : NULL;

    if (auth == NULL || auth->refusal == NULL) {
        return NULL;
    }

    refusal = auth->refusal;

    /* what auth_request has been told */

    if (refusal->status == NGX_HTTP_UNAUTHORIZED) {

        if (r->err_status != NGX_HTTP_UNAUTHORIZED) {
            return NULL;
        }

    } else {

        if (r->err_status != NGX_HTTP_FORBIDDEN
            || ngx_http_agent_auth_headers(r, refusal) != NGX_OK)
        {
            return NULL;
        }

        r->err_status = refusal->status;
        r->headers_out.status = refusal->status;
        r->headers_out.status_line.len = 0;
    }

    /* behind an error_page, which takes the ctx away, the body is the user's */

    ctx = ngx_http_get_module_ctx(r, ngx_http_agent_module);

    return (ctx && ctx->auth) ? (ngx_str_t *) &refusal->body : NULL;
}


ngx_int_t
ngx_http_agent_auth_known(ngx_http_request_t *r, ngx_agent_key_t *key)
{
    ngx_str_t                    token;
    ngx_table_elt_t             *h;
    ngx_http_agent_auth_t       *auth;
    ngx_http_agent_main_conf_t  *amcf;

    auth = ngx_http_agent_auth_find(r);

    if (auth && !auth->asking) {

        if (!auth->known) {
            return NGX_DECLINED;
        }

        *key = auth->ask.key;

        return NGX_OK;
    }

    amcf = ngx_http_get_module_main_conf(r, ngx_http_agent_module);
    h = r->main->headers_in.authorization;

    if (!amcf->auth_zone
        || ngx_agent_bearer(h ? &h->value : NULL, &token) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    return ngx_agent_auth_peek(r->main->pool, &token, key);
}


/*
 * nginx asks nobody about subrequests: what an SSI page or a mirror sends here
 * has not been through auth_request, and is not taken for the default tenant
 * where there are keys.
 */

static ngx_int_t
ngx_http_agent_auth_nested(ngx_http_agent_web_t *web, ngx_int_t *rc)
{
    ngx_http_request_t          *r;
    ngx_http_agent_main_conf_t  *amcf;

    r = web->request;
    amcf = ngx_http_get_module_main_conf(r, ngx_http_agent_module);

    if (r == r->main || web->key || !amcf->auth_zone) {
        return NGX_OK;
    }

    *rc = ngx_http_agent_reply_error(r, NGX_HTTP_FORBIDDEN,
                                     "a part of another page has no API key "
                                     "of its own; ask for this path by itself");
    return NGX_DECLINED;
}


ngx_int_t
ngx_http_agent_auth_enter(ngx_http_agent_web_t *web, ngx_int_t *rc)
{
    ngx_http_request_t         *r;
    ngx_http_agent_auth_t      *auth;
    ngx_http_agent_loc_conf_t  *alcf;

    r = web->request;

    auth = ngx_http_agent_auth_find(r);

    if (auth) {

        if (auth->refusal) {
            /* "satisfy any", or an error_page of 401 that leads here */
            *rc = ngx_http_agent_auth_answer(r, auth->refusal);
            return NGX_DECLINED;
        }

        if (auth->known) {
            web->key = &auth->ask.key;
            web->tenant = auth->ask.key.tenant;
        }
    }

    alcf = ngx_http_get_module_loc_conf(r, ngx_http_agent_module);

    if (alcf->tenant == NULL) {
        return ngx_http_agent_auth_nested(web, rc);
    }

    if (ngx_http_complex_value(r, alcf->tenant, &web->tenant) != NGX_OK) {
        *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
        return NGX_DECLINED;
    }

    if (ngx_http_agent_auth_is_tenant(&web->tenant)) {
        return NGX_OK;
    }

    /* never the default tenant's data for whoever has none */

    *rc = ngx_http_agent_reply_error(r, NGX_HTTP_FORBIDDEN,
                                     "no valid tenant came with this request; "
                                     "use credentials that belong to one");
    return NGX_DECLINED;
}


static ngx_uint_t
ngx_http_agent_auth_is_tenant(ngx_str_t *tenant)
{
    size_t  i;

    if (tenant->len == 0 || tenant->len > NGX_HTTP_AGENT_TENANT_MAX) {
        return 0;
    }

    for (i = 0; i < tenant->len; i++) {
        if (tenant->data[i] < 0x20 || tenant->data[i] == 0x7f) {
            return 0;
        }
    }

    return ngx_agent_utf8_valid(tenant->data, tenant->len);
}


ngx_int_t
ngx_http_agent_auth_task(ngx_http_agent_web_t *web,
    ngx_http_agent_done_pt op)
{
    if (ngx_http_agent_call_task(web) == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    web->next = op;

    return ngx_http_agent_call_start(web, ngx_agent_store_task_agent,
                                     ngx_http_agent_auth_asked);
}


static ngx_int_t
ngx_http_agent_auth_asked(ngx_http_agent_web_t *web)
{
    ngx_agent_store_call_t  *call;

    call = web->call;

    if (call->rc != NGX_OK) {
        return ngx_http_agent_reply_failed(web->request, call->rc, "task",
                                           &web->route.task);
    }

    web->ctx->agent = call->task->agent;

    if (!ngx_agent_auth_allows(web->key, &call->task->agent)) {
        return ngx_http_agent_auth_agent(web, &call->task->agent);
    }

    return web->next(web);
}


ngx_int_t
ngx_http_agent_auth_agent(ngx_http_agent_web_t *web, ngx_str_t *agent)
{
    static ngx_str_t  scope = ngx_string("Bearer realm=\"agent\", "
                          "error=\"insufficient_scope\", "
                          "error_description=\"the key is not for this "
                          "agent\"");

    if (ngx_http_agent_auth_challenge(web->request, &scope) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_agent_reply_error(web->request, NGX_HTTP_FORBIDDEN,
                                      "this API key is not for the agent "
                                      "\"%V\"; list the agents to see which "
                                      "it is for", agent);
}
