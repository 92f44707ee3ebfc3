
/*
 * The error filter: where a directive of ours serves, and for what a server
 * with agent_pass refuses before it knows a location, the pages that nginx
 * itself makes (400, 413, 429, 401, ...) become {"message": "..."}.  Answers
 * of ours, of the user's error_page and of "return 403 text" are left alone.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_agent_auth.h"
#include "ngx_http_agent_reply.h"
#include "ngx_http_agent_web.h"


typedef struct {
    ngx_uint_t                 status;
    ngx_str_t                  body;
} ngx_http_agent_error_t;


static ngx_int_t ngx_http_agent_error_header_filter(ngx_http_request_t *r);
static ngx_uint_t ngx_http_agent_error_is_page(ngx_http_request_t *r);
static ngx_uint_t ngx_http_agent_error_is_ours(ngx_http_request_t *r);
static ngx_uint_t ngx_http_agent_error_cause(ngx_http_request_t *r);
static ngx_uint_t ngx_http_agent_error_find(ngx_uint_t status);
static ngx_int_t ngx_http_agent_error_headers(ngx_http_request_t *r);
static ngx_int_t ngx_http_agent_error_add(ngx_http_request_t *r,
    const char *key, ngx_str_t *value);
static ngx_int_t ngx_http_agent_error_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_int_t ngx_http_agent_error_send(ngx_http_request_t *r,
    ngx_str_t *body);


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_next_body_filter;


/*
 * nothing of nginx's phases has run yet: the request itself is refused, and
 * its location is not known
 */

#define ngx_http_agent_error_is_early(r)                                      \
    ((r)->write_event_handler == NULL)


#define ngx_http_agent_error_text(text)                                       \
    ngx_string("{\"message\":\"" text "\"}")


/* the first two rows are for what has no row */

static ngx_http_agent_error_t  ngx_http_agent_errors[] = {

    { 400, ngx_http_agent_error_text("the server does not accept this "
          "request; check its method, path, headers and body") },
    { 500, ngx_http_agent_error_text("the server could not handle this "
          "request; try again later") },

    { 400, ngx_http_agent_error_text("the request is malformed or was cut "
          "short; check its headers and body and send it again") },
    { 401, ngx_http_agent_error_text("authentication is needed; send valid "
          "credentials with the request") },
    { 403, ngx_http_agent_error_text("this client may not do that; use "
          "credentials that are allowed to") },
    { 404, ngx_http_agent_error_text("no such path; check the address") },
    { 405, ngx_http_agent_error_text("this path does not allow the method; "
          "use GET or POST") },
    { 408, ngx_http_agent_error_text("the request came too slowly; send it "
          "again") },
    { 411, ngx_http_agent_error_text("the length of the body is missing; "
          "send Content-Length or use chunked encoding") },
    { 412, ngx_http_agent_error_text("a condition in the request's headers "
          "does not hold; fetch the resource anew") },
    { 413, ngx_http_agent_error_text("the body is larger than this server "
          "accepts; send a smaller one") },
    { 414, ngx_http_agent_error_text("the address is too long; shorten the "
          "path or the query") },
    { 415, ngx_http_agent_error_text("the media type is not accepted here; "
          "send application/json, or multipart/form-data for artifacts") },
    { 416, ngx_http_agent_error_text("the artifact does not have this range "
          "of bytes; ask for one within its size") },
    { 421, ngx_http_agent_error_text("this connection is not for that host; "
          "open another one for it") },
    { 429, ngx_http_agent_error_text("too many requests; slow down and try "
          "again") },
    { 431, ngx_http_agent_error_text("the headers are too large; send fewer "
          "or shorter ones") },

    /* nginx's own codes: what it says about them to clients is 400 */

    { NGX_HTTP_REQUEST_HEADER_TOO_LARGE,
          ngx_http_agent_error_text("the headers are too large; send fewer "
          "or shorter ones") },
    { NGX_HTTPS_NO_CERT,
          ngx_http_agent_error_text("a client certificate that this server "
          "trusts is needed; send one") },
    { NGX_HTTP_TO_HTTPS,
          ngx_http_agent_error_text("this port speaks TLS; use https instead "
          "of http") },

    { 500, ngx_http_agent_error_text("the server failed on this request; its "
          "error log says why") },
    { 501, ngx_http_agent_error_text("the server does not know how to do "
          "this; check the method and the headers") },
    { 502, ngx_http_agent_error_text("a server behind this one failed; try "
          "again") },
    { 503, ngx_http_agent_error_text("the server is overloaded or not ready; "
          "try again") },
    { 504, ngx_http_agent_error_text("a server behind this one did not "
          "answer in time; try again") },
    { 507, ngx_http_agent_error_text("the server has no room to store this; "
          "its error log says why") },
    { 505, ngx_http_agent_error_text("this version of HTTP is not known here; "
          "use 1.1 or 2") },

    { 0, ngx_null_string }
};


ngx_int_t
ngx_http_agent_error_init(ngx_conf_t *cf)
{
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_agent_error_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_agent_error_body_filter;

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_error_header_filter(ngx_http_request_t *r)
{
    ngx_str_t             *body;
    ngx_http_agent_web_t  *web;

    /* first, as it may change the status */
    body = ngx_http_agent_auth_page(r);

    if (body == NULL && !ngx_http_agent_error_is_page(r)) {
        return ngx_http_next_header_filter(r);
    }

    web = ngx_http_agent_web(r);
    if (web == NULL) {
        return NGX_ERROR;
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "agent web: page of error %ui becomes json",
                   r->headers_out.status);

    if (ngx_http_agent_error_headers(r) != NGX_OK) {
        return NGX_ERROR;
    }

    if (body == NULL) {
        body = &ngx_http_agent_errors[ngx_http_agent_error_find(
                                        ngx_http_agent_error_cause(r))].body;
    }

    web->error = body;

    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    ngx_str_null(&r->headers_out.charset);

    if (r->headers_out.content_encoding) {
        r->headers_out.content_encoding->hash = 0;
        r->headers_out.content_encoding = NULL;
    }

    ngx_http_clear_content_length(r);
    r->headers_out.content_length_n = body->len;

    return ngx_http_next_header_filter(r);
}


/*
 * nginx sets err_status when it makes a page of its own ("return 403 text"
 * does not), and when error_page leads to the user's; but that one is in
 * another location, where nothing of ours serves.
 */

static ngx_uint_t
ngx_http_agent_error_is_page(ngx_http_request_t *r)
{
    ngx_http_agent_ctx_t  *ctx;

    if (r != r->main
        || r->err_status < NGX_HTTP_BAD_REQUEST
        || r->headers_out.status < NGX_HTTP_BAD_REQUEST)
    {
        return 0;
    }

    if (!ngx_http_agent_error_is_ours(r)) {
        return 0;
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_agent_module);

    return ctx == NULL || (!ctx->replied && ctx->run == NULL);
}


/*
 * Where no location is known, or none matches, the request has the server's
 * own configuration.  If that has a "root", what no location matches is a
 * website's; and what the request was led to is the user's error_page.
 */

static ngx_uint_t
ngx_http_agent_error_is_ours(ngx_http_request_t *r)
{
    ngx_http_agent_loc_conf_t  *alcf, *server;

    alcf = ngx_http_get_module_loc_conf(r, ngx_http_agent_module);

    if (alcf->json || alcf->errors->json) {
        return 1;
    }

    server = alcf->errors;

    if (!server->serves || r->internal) {
        return 0;
    }

    return ngx_http_agent_error_is_early(r) || !server->site;
}


/*
 * Which row of the table says best what is the matter.  nginx answers 400 to
 * several things and keeps to itself which one it was, so it is looked for
 * again.
 */

static ngx_uint_t
ngx_http_agent_error_cause(ngx_http_request_t *r)
{
#if (NGX_SSL || NGX_COMPAT)
    ngx_http_headers_in_t  *in;
#endif

    if (r->headers_out.status != NGX_HTTP_BAD_REQUEST
        || !ngx_http_agent_error_is_early(r))
    {
        return r->headers_out.status;
    }

#if (NGX_SSL || NGX_COMPAT)

    if (r->http_connection->ssl && r->connection->ssl == NULL) {
        return NGX_HTTP_TO_HTTPS;
    }

#endif

    if (r->http_state == NGX_HTTP_READING_REQUEST_STATE) {
        return r->lingering_close ? NGX_HTTP_REQUEST_HEADER_TOO_LARGE
                                  : NGX_HTTP_BAD_REQUEST;
    }

#if (NGX_SSL || NGX_COMPAT)

    in = &r->headers_in;

    /* with TLS and nothing wrong in the headers it is the certificate */

    if (r->connection->ssl
        && (in->host || r->http_version <= NGX_HTTP_VERSION_10)
        && (in->content_length == NULL || in->content_length_n >= 0)
        && (in->transfer_encoding == NULL || in->chunked))
    {
        return NGX_HTTPS_NO_CERT;
    }

#endif

    return NGX_HTTP_BAD_REQUEST;
}


static ngx_uint_t
ngx_http_agent_error_find(ngx_uint_t status)
{
    ngx_uint_t  i;

    for (i = 2; ngx_http_agent_errors[i].status; i++) {
        if (ngx_http_agent_errors[i].status == status) {
            return i;
        }
    }

    return (status < NGX_HTTP_INTERNAL_SERVER_ERROR) ? 0 : 1;
}


/* 429 and 503 say when to come back, 405 which methods there are. */

static ngx_int_t
ngx_http_agent_error_headers(ngx_http_request_t *r)
{
    static ngx_str_t  second = ngx_string("1");
    static ngx_str_t  any = ngx_string("GET, HEAD, POST, DELETE");

    switch (r->headers_out.status) {

    case NGX_HTTP_TOO_MANY_REQUESTS:
    case NGX_HTTP_SERVICE_UNAVAILABLE:
        return ngx_http_agent_error_add(r, "Retry-After", &second);

    case NGX_HTTP_NOT_ALLOWED:
        return ngx_http_agent_error_add(r, "Allow", &any);

    default:
        return NGX_OK;
    }
}


/* unless somebody has said it already */

static ngx_int_t
ngx_http_agent_error_add(ngx_http_request_t *r, const char *key,
    ngx_str_t *value)
{
    size_t            len;
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    len = ngx_strlen(key);

    for (part = &r->headers_out.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (h[i].hash != 0 && h[i].key.len == len
                && ngx_strncasecmp(h[i].key.data, (u_char *) key, len) == 0)
            {
                return NGX_OK;
            }
        }
    }

    return ngx_http_agent_reply_header(r, key, value);
}


/* The page is eaten, and when its last buffer has come, ours is sent. */

static ngx_int_t
ngx_http_agent_error_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_uint_t             last;
    ngx_chain_t           *cl;
    ngx_http_agent_ctx_t  *ctx;
    ngx_http_agent_web_t  *web;

    ctx = (r == r->main)
              ? ngx_http_get_module_ctx(r, ngx_http_agent_module) : NULL;

    if (in == NULL || ctx == NULL || ctx->web == NULL) {
        return ngx_http_next_body_filter(r, in);
    }

    web = ctx->web;

    if (web->error == NULL) {
        return ngx_http_next_body_filter(r, in);
    }

    last = 0;

    for (cl = in; cl; cl = cl->next) {
        last |= cl->buf->last_buf;
        cl->buf->pos = cl->buf->last;
        cl->buf->file_pos = cl->buf->file_last;
    }

    if (!last) {
        return NGX_OK;
    }

    return ngx_http_agent_error_send(r, web->error);
}


static ngx_int_t
ngx_http_agent_error_send(ngx_http_request_t *r, ngx_str_t *body)
{
    ngx_buf_t    *b;
    ngx_chain_t   out;

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    b->pos = body->data;
    b->last = body->data + body->len;
    b->memory = 1;
    b->last_buf = 1;
    b->last_in_chain = 1;

    out.buf = b;
    out.next = NULL;

    return ngx_http_next_body_filter(r, &out);
}
