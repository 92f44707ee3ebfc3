
/*
 * JSON answers and errors of ours.  Sends only; knows neither routes nor the
 * store.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_agent_stat.h"
#include "ngx_http_agent_module.h"
#include "ngx_http_agent_reply.h"


#define NGX_HTTP_AGENT_MESSAGE  1024

/* 402, which has no name in nginx */
#define NGX_HTTP_AGENT_PAYMENT  402


static ngx_int_t ngx_http_agent_reply_wait(ngx_http_request_t *r,
    time_t seconds, const char *fmt, ngx_str_t *max);


ngx_int_t
ngx_http_agent_reply(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *text)
{
    ngx_uint_t        expects;

    static ngx_str_t  json = ngx_string("application/json");

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "agent web: reply %ui, %uz bytes", status, text->len);

    expects = 0;

    if (status >= NGX_HTTP_BAD_REQUEST && !r->expect_tested) {
        /* refused: do not ask with "100 Continue" for a body nobody reads */
        r->expect_tested = 1;
        expects = (r->headers_in.expect != NULL);
    }

    /*
     * A client that was not asked for its body may send it or not: what comes
     * next on the connection cannot be told apart.
     */

    if (ngx_http_discard_request_body(r) != NGX_OK
        || r->reading_body
        || (expects && r->discard_body))
    {
        r->keepalive = 0;
    }

    r->connection->log->action = "sending response to client";

    return ngx_http_agent_reply_body(r, status, &json, json.len, text);
}


ngx_int_t
ngx_http_agent_reply_body(ngx_http_request_t *r, ngx_uint_t status,
    const ngx_str_t *type, size_t len, ngx_str_t *text)
{
    ngx_int_t              rc;
    ngx_buf_t             *b;
    ngx_chain_t            out;
    ngx_http_agent_ctx_t  *ctx;

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_agent_module);

    if (ctx) {
        ctx->replied = 1;
    }

    r->headers_out.status = status;
    r->headers_out.content_length_n = text->len;

    r->headers_out.content_type = *type;
    r->headers_out.content_type_len = len;
    r->headers_out.content_type_lowcase = NULL;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    b->pos = text->data;
    b->last = text->data + text->len;
    b->memory = 1;
    b->last_buf = (r == r->main) ? 1 : 0;
    b->last_in_chain = 1;

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}


ngx_int_t
ngx_http_agent_reply_json(ngx_http_request_t *r, ngx_uint_t status,
    ngx_agent_json_t *j)
{
    ngx_str_t  text;

    if (ngx_agent_json_done(j, &text) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_agent_reply(r, status, &text);
}


ngx_int_t
ngx_http_agent_reply_error(ngx_http_request_t *r, ngx_uint_t status,
    const char *fmt, ...)
{
    u_char            buf[NGX_HTTP_AGENT_MESSAGE];
    va_list           args;
    ngx_str_t         message;
    ngx_agent_json_t  j;

    va_start(args, fmt);
    message.data = buf;
    message.len = ngx_vslprintf(buf, buf + sizeof(buf), fmt, args) - buf;
    va_end(args);

    ngx_agent_json_init(&j, r->pool, message.len + 32);

    ngx_agent_json_object(&j);
    ngx_agent_json_key(&j, "message");
    ngx_agent_json_string(&j, &message);
    ngx_agent_json_object_end(&j);

    return ngx_http_agent_reply_json(r, status, &j);
}


ngx_int_t
ngx_http_agent_reply_later(ngx_http_request_t *r, ngx_uint_t status,
    const char *message)
{
    static ngx_str_t  second = ngx_string("1");

    if (ngx_http_agent_reply_header(r, "Retry-After", &second) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_agent_reply_error(r, status, "%s", message);
}


ngx_int_t
ngx_http_agent_reply_invalid(ngx_http_request_t *r, const char *where,
    const char *field, const char *why)
{
    u_char      buf[NGX_HTTP_AGENT_MESSAGE];
    u_char     *last;
    ngx_str_t   message;

    if (field) {
        last = ngx_slprintf(buf, buf + sizeof(buf), "\"%s\" %s", field, why);

    } else {
        last = ngx_slprintf(buf, buf + sizeof(buf), "the %s %s", where, why);
    }

    message.data = buf;
    message.len = last - buf;

    return ngx_http_agent_reply_detail(r, &message, where, field, why);
}


ngx_int_t
ngx_http_agent_reply_detail(ngx_http_request_t *r, ngx_str_t *message,
    const char *where, const char *field, const char *why)
{
    ngx_agent_json_t  j;

    ngx_agent_json_init(&j, r->pool, 2 * message->len + 96);

    ngx_agent_json_object(&j);

    ngx_agent_json_key(&j, "message");
    ngx_agent_json_string(&j, message);

    ngx_agent_json_key(&j, "detail");
    ngx_agent_json_array(&j);
    ngx_agent_json_object(&j);

    ngx_agent_json_key(&j, "loc");
    ngx_agent_json_array(&j);
    ngx_agent_json_cstring(&j, where);

    if (field) {
        ngx_agent_json_cstring(&j, field);
    }

    ngx_agent_json_array_end(&j);

    ngx_agent_json_key(&j, "msg");
    ngx_agent_json_cstring(&j, why);

    ngx_agent_json_object_end(&j);
    ngx_agent_json_array_end(&j);
    ngx_agent_json_object_end(&j);

    return ngx_http_agent_reply_json(r, 422, &j);
}


ngx_int_t
ngx_http_agent_reply_unknown(ngx_http_request_t *r, const char *what,
    ngx_str_t *id)
{
    u_char     buf[NGX_HTTP_AGENT_QUOTE];
    ngx_str_t  quoted;

    ngx_http_agent_reply_quote(id, buf, &quoted);

    return ngx_http_agent_reply_error(r, NGX_HTTP_NOT_FOUND,
                                      "no %s with id \"%V\"; list the %ss "
                                      "to see which there are",
                                      what, &quoted, what);
}


ngx_int_t
ngx_http_agent_reply_store(ngx_http_request_t *r, ngx_int_t rc)
{
    if (rc == NGX_ABORT) {
        ngx_agent_stat_add(REFUSED, 1);

        return ngx_http_agent_reply_later(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                          "the database is not reachable or "
                                          "too busy, try again");
    }

    return ngx_http_agent_reply_error(r, NGX_HTTP_INTERNAL_SERVER_ERROR,
                                      "the database refused this request; "
                                      "the server's error log says why");
}


ngx_int_t
ngx_http_agent_reply_failed(ngx_http_request_t *r, ngx_int_t rc,
    const char *what, ngx_str_t *id)
{
    return rc == NGX_DECLINED ? ngx_http_agent_reply_unknown(r, what, id)
                              : ngx_http_agent_reply_store(r, rc);
}


ngx_int_t
ngx_http_agent_reply_full(ngx_http_request_t *r)
{
    ngx_agent_stat_add(REFUSED, 1);

    return ngx_http_agent_reply_later(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                      "the queue of steps is full, try again "
                                      "later");
}


ngx_int_t
ngx_http_agent_reply_quota(ngx_http_request_t *r, ngx_agent_quota_e quota,
    ngx_str_t *max)
{
    switch (quota) {

    case NGX_AGENT_QUOTA_RUNNING:
        return ngx_http_agent_reply_wait(r, 1, "the tenant is over its limit "
                                         "of %V running steps; try again when "
                                         "one has ended", max);

    case NGX_AGENT_QUOTA_QUEUED:
        return ngx_http_agent_reply_wait(r, 1, "the tenant is over its limit "
                                         "of %V queued steps; try again when "
                                         "some have been run", max);

    case NGX_AGENT_QUOTA_STEPS:
        return ngx_http_agent_reply_wait(r, 86400 - ngx_time() % 86400,
                                         "the tenant is over its limit of %V "
                                         "steps a day; try again after 00:00 "
                                         "UTC", max);

    case NGX_AGENT_QUOTA_MONEY:
        return ngx_http_agent_reply_error(r, NGX_HTTP_AGENT_PAYMENT,
                                          "the tenant has reached its limit "
                                          "of %V to be spent in a month; have "
                                          "it raised, or wait for the next "
                                          "month (UTC)", max);

    case NGX_AGENT_QUOTA_BYTES:
        return ngx_http_agent_reply_error(r, NGX_HTTP_INSUFFICIENT_STORAGE,
                                          "the tenant is over its limit of %V "
                                          "bytes of artifacts; delete tasks "
                                          "to make room", max);

    default: /* NGX_AGENT_QUOTA_NONE */
        return ngx_http_agent_reply_full(r);
    }
}


/* 429: come again in so many seconds */

static ngx_int_t
ngx_http_agent_reply_wait(ngx_http_request_t *r, time_t seconds,
    const char *fmt, ngx_str_t *max)
{
    u_char     *p;
    ngx_str_t   after;

    p = ngx_pnalloc(r->pool, NGX_TIME_T_LEN);
    if (p == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    after.data = p;
    after.len = ngx_sprintf(p, "%T", seconds) - p;

    if (ngx_http_agent_reply_header(r, "Retry-After", &after) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_agent_reply_error(r, NGX_HTTP_TOO_MANY_REQUESTS, fmt,
                                      max);
}


ngx_int_t
ngx_http_agent_reply_header(ngx_http_request_t *r, const char *key,
    ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
    h->key.data = (u_char *) key;
    h->key.len = ngx_strlen(key);
    h->value = *value;
    h->lowcase_key = NULL;

#if (nginx_version >= 1023000)
    h->next = NULL;
#endif

    return NGX_OK;
}


void
ngx_http_agent_reply_quote(ngx_str_t *text, u_char *buf, ngx_str_t *quoted)
{
    size_t  i;

    quoted->data = buf;
    quoted->len = ngx_min(text->len, NGX_HTTP_AGENT_QUOTE);

    for (i = 0; i < quoted->len; i++) {
        buf[i] = (text->data[i] < 0x20 || text->data[i] >= 0x7f)
                     ? '?' : text->data[i];
    }
}
