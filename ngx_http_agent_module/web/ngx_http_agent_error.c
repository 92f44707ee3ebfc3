
/*
 * The error filter: where agent_pass stands, the pages that nginx itself
 * makes (413, 429, 401, 416, ...) become {"message": "..."}.  Answers of
 * ours, of the user's error_page and of "return 403 text" are left alone.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_agent_edge.h"
#include "ngx_http_agent_reply.h"
#include "ngx_http_agent_web.h"


typedef struct {
    ngx_uint_t                 status;
    ngx_str_t                  body;
} ngx_http_agent_error_t;


static ngx_int_t ngx_http_agent_error_header_filter(ngx_http_request_t *r);
static ngx_uint_t ngx_http_agent_error_is_page(ngx_http_request_t *r);
static ngx_uint_t ngx_http_agent_error_find(ngx_uint_t status);
static ngx_int_t ngx_http_agent_error_retry(ngx_http_request_t *r);
static ngx_int_t ngx_http_agent_error_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_int_t ngx_http_agent_error_send(ngx_http_request_t *r,
    ngx_str_t *body);


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_next_body_filter;


#define ngx_http_agent_error_text(text)                                       \
    ngx_string("{\"message\":\"" text "\"}")


/*
 * web->error is an index into this table; the first two rows are for what has
 * no row, so that 0 can stand for "no page".
 */

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
    { 429, ngx_http_agent_error_text("too many requests; slow down and try "
          "again") },
    { 431, ngx_http_agent_error_text("the headers are too large; send fewer "
          "or shorter ones") },

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
    ngx_http_agent_web_t  *web;

    if (!ngx_http_agent_error_is_page(r)) {
        return ngx_http_next_header_filter(r);
    }

    web = ngx_http_agent_web(r);
    if (web == NULL) {
        return NGX_ERROR;
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "agent web: page of error %ui becomes json",
                   r->headers_out.status);

    if (ngx_http_agent_error_retry(r) != NGX_OK) {
        return NGX_ERROR;
    }

    web->error = ngx_http_agent_error_find(r->headers_out.status) + 1;

    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    ngx_str_null(&r->headers_out.charset);

    if (r->headers_out.content_encoding) {
        r->headers_out.content_encoding->hash = 0;
        r->headers_out.content_encoding = NULL;
    }

    ngx_http_clear_content_length(r);
    r->headers_out.content_length_n =
                              ngx_http_agent_errors[web->error - 1].body.len;

    return ngx_http_next_header_filter(r);
}


/*
 * nginx sets err_status when it makes a page of its own ("return 403 text"
 * does not), and when error_page leads to the user's; but that one is in
 * another location, without agent_pass.
 */

static ngx_uint_t
ngx_http_agent_error_is_page(ngx_http_request_t *r)
{
    ngx_http_agent_ctx_t       *ctx;
    ngx_http_agent_loc_conf_t  *alcf;

    if (r != r->main
        || r->err_status < NGX_HTTP_BAD_REQUEST
        || r->headers_out.status < NGX_HTTP_BAD_REQUEST)
    {
        return 0;
    }

    alcf = ngx_http_get_module_loc_conf(r, ngx_http_agent_module);

    if (alcf->pass == NULL) {
        return 0;
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_agent_module);

    return ctx == NULL || (!ctx->replied && ctx->run == NULL);
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


/* 429 and 503 say when to come back, if nobody has said it yet. */

static ngx_int_t
ngx_http_agent_error_retry(ngx_http_request_t *r)
{
    static ngx_str_t  second = ngx_string("1");

    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    if (r->headers_out.status != NGX_HTTP_TOO_MANY_REQUESTS
        && r->headers_out.status != NGX_HTTP_SERVICE_UNAVAILABLE)
    {
        return NGX_OK;
    }

    part = &r->headers_out.headers.part;
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

        if (h[i].hash != 0
            && h[i].key.len == sizeof("Retry-After") - 1
            && ngx_strncasecmp(h[i].key.data, (u_char *) "Retry-After",
                               h[i].key.len)
               == 0)
        {
            return NGX_OK;
        }
    }

    return ngx_http_agent_reply_header(r, "Retry-After", &second);
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

    if (web->error == 0) {
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

    return ngx_http_agent_error_send(r,
                              &ngx_http_agent_errors[web->error - 1].body);
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
