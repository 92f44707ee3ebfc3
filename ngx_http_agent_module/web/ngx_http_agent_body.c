
/*
 * JSON bodies of requests.  Reads and checks, and answers what it refuses;
 * asks no store.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_agent_json.h"
#include "ngx_http_agent_body.h"
#include "ngx_http_agent_reply.h"


typedef struct {
    ngx_pool_t                *pool;
    ngx_http_agent_body_t     *body;
    const char                *field;
    const char                *why;
} ngx_http_agent_body_check_t;


static void ngx_http_agent_body_event(ngx_http_request_t *r);
static void ngx_http_agent_body_handler(ngx_http_request_t *r);
static ngx_uint_t ngx_http_agent_body_is_json(ngx_http_request_t *r);
static ngx_int_t ngx_http_agent_body_text(ngx_http_request_t *r,
    ngx_pool_t *pool, ngx_str_t *text, ngx_int_t *rc);
static off_t ngx_http_agent_body_size(ngx_http_request_t *r);
static ngx_int_t ngx_http_agent_body_copy(ngx_http_request_t *r,
    ngx_str_t *text);
static ngx_int_t ngx_http_agent_body_value(void *data,
    ngx_agent_json_value_t *v);
static ngx_int_t ngx_http_agent_body_input(ngx_http_agent_body_check_t *check,
    ngx_agent_json_value_t *v);
static ngx_int_t ngx_http_agent_body_media(ngx_http_request_t *r);
static ngx_int_t ngx_http_agent_body_large(ngx_http_request_t *r);


#define ngx_http_agent_body_at(v, text)                                       \
    ((v)->path.len == sizeof(text) - 1                                        \
     && ngx_strncmp((v)->path.data, text, sizeof(text) - 1) == 0)


ngx_int_t
ngx_http_agent_body_read(ngx_http_agent_web_t *web,
    ngx_http_agent_done_pt next)
{
    ngx_int_t            rc;
    ngx_http_request_t  *r;

    r = web->request;

    /* what can be refused by the headers is refused before it is sent */

    if (r->headers_in.content_length_n > 0
        && !ngx_http_agent_body_is_json(r))
    {
        return ngx_http_agent_body_media(r);
    }

    if (r->headers_in.content_length_n > NGX_HTTP_AGENT_BODY_MAX) {
        return ngx_http_agent_body_large(r);
    }

    web->done = next;

    r->connection->log->action = "reading client request body";

    rc = ngx_http_read_client_request_body(r, ngx_http_agent_body_handler);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    if (rc == NGX_AGAIN) {
        web->reader = r->read_event_handler;
        r->read_event_handler = ngx_http_agent_body_event;
    }

    return NGX_DONE;
}


/* More of the body, or a client that is too slow. */

static void
ngx_http_agent_body_event(ngx_http_request_t *r)
{
    ngx_http_agent_ctx_t  *ctx;
    ngx_http_agent_web_t  *web;

    if (r->connection->read->timedout) {
        ngx_http_finalize_request(r, ngx_http_agent_body_late(r));
        return;
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_agent_module);
    web = ctx->web;

    web->reader(r);
}


/*
 * nginx itself would close the connection without a word.  What comes of the
 * body from now on may be read, but is nobody's.
 */

ngx_int_t
ngx_http_agent_body_late(ngx_http_request_t *r)
{
    ngx_connection_t  *c;

    c = r->connection;

    ngx_log_error(NGX_LOG_INFO, c->log, NGX_ETIMEDOUT,
                  "agent web: client timed out sending its body");

    c->read->timedout = 0;
    c->timedout = 0;

    r->keepalive = 0;
    r->request_body->post_handler = ngx_http_request_empty_handler;

    return ngx_http_agent_reply_error(r, NGX_HTTP_REQUEST_TIME_OUT,
                                      "the rest of the body did not come in "
                                      "time; send the request again");
}


static void
ngx_http_agent_body_handler(ngx_http_request_t *r)
{
    ngx_http_agent_ctx_t  *ctx;
    ngx_http_agent_web_t  *web;

    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "agent web: body read");

    ctx = ngx_http_get_module_ctx(r, ngx_http_agent_module);
    web = ctx->web;

    ngx_http_finalize_request(r, web->done(web));
}


ngx_int_t
ngx_http_agent_body_parse(ngx_http_agent_web_t *web, ngx_pool_t *pool,
    ngx_http_agent_body_t *body, ngx_int_t *rc)
{
    const char                   *why;
    ngx_str_t                     text;
    ngx_http_request_t           *r;
    ngx_http_agent_body_check_t   check;

    r = web->request;

    ngx_memzero(body, sizeof(ngx_http_agent_body_t));

    if (ngx_http_agent_body_text(r, pool, &text, rc) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (text.len == 0) {
        /* both official clients send nothing at all for "no parameters" */
        return NGX_OK;
    }

    if (!ngx_http_agent_body_is_json(r)) {
        *rc = ngx_http_agent_body_media(r);
        return NGX_DECLINED;
    }

    body->text = text;

    ngx_memzero(&check, sizeof(ngx_http_agent_body_check_t));
    check.pool = pool;
    check.body = body;

    why = NULL;

    switch (ngx_agent_json_read(&text, ngx_http_agent_body_value, &check,
                                &why))
    {
    case NGX_OK:
        break;

    case NGX_DECLINED:
        *rc = ngx_http_agent_reply_invalid(r, "body", NULL, why);
        return NGX_DECLINED;

    case NGX_ABORT:
        *rc = ngx_http_agent_reply_invalid(r, "body", check.field, check.why);
        return NGX_DECLINED;

    default:
        *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
        return NGX_DECLINED;
    }

    if (ngx_agent_json_member(&text, "additional_input",
                              &body->additional_input)
        != NGX_OK
        || body->additional_input.data[0] != '{')
    {
        ngx_str_null(&body->additional_input);
    }

    return NGX_OK;
}


/*
 * Called for each value of the body.  NGX_ABORT: of a type that it may not
 * have; check->field and check->why tell.
 */

static ngx_int_t
ngx_http_agent_body_value(void *data, ngx_agent_json_value_t *v)
{
    ngx_http_agent_body_check_t  *check = data;

    if (v->path.len == 0) {

        if (v->type == NGX_AGENT_JSON_OBJECT) {
            return NGX_OK;
        }

        check->why = "must be a JSON object, such as {\"input\": \"...\"}";
        return NGX_ABORT;
    }

    if (ngx_http_agent_body_at(v, "input")) {
        return ngx_http_agent_body_input(check, v);
    }

    if (ngx_http_agent_body_at(v, "additional_input")) {

        /* of duplicate keys the last one counts, with all that is in it */
        ngx_str_null(&check->body->agent_id);

        if (v->type == NGX_AGENT_JSON_OBJECT
            || v->type == NGX_AGENT_JSON_NULL)
        {
            return NGX_OK;
        }

        check->field = "additional_input";
        check->why = "must be an object or null";
        return NGX_ABORT;
    }

    if (ngx_http_agent_body_at(v, "additional_input.agent_id")) {

        ngx_str_null(&check->body->agent_id);

        if (v->type == NGX_AGENT_JSON_STRING) {
            check->body->agent_id.len = v->text.len;
            check->body->agent_id.data = ngx_pstrdup(check->pool, &v->text);

            if (check->body->agent_id.data == NULL) {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_body_input(ngx_http_agent_body_check_t *check,
    ngx_agent_json_value_t *v)
{
    ngx_str_t  *input;

    input = &check->body->input;

    switch (v->type) {

    case NGX_AGENT_JSON_NULL:
        ngx_str_null(input);
        return NGX_OK;

    case NGX_AGENT_JSON_STRING:

        /* one byte more: an empty string is a string too, not null */

        input->data = ngx_pnalloc(check->pool, v->text.len + 1);
        if (input->data == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(input->data, v->text.data, v->text.len);
        input->len = v->text.len;
        return NGX_OK;

    default:
        check->field = "input";
        check->why = "must be a string or null";
        return NGX_ABORT;
    }
}


/*
 * application/json and application/anything+json, with any parameters; none
 * at all is taken for JSON too.
 */

static ngx_uint_t
ngx_http_agent_body_is_json(ngx_http_request_t *r)
{
    size_t      len, prefix;
    u_char     *p;
    ngx_str_t   type;

    if (r->headers_in.content_type == NULL) {
        return 1;
    }

    type = r->headers_in.content_type->value;

    p = ngx_strlchr(type.data, type.data + type.len, ';');
    len = p ? (size_t) (p - type.data) : type.len;

    while (len && (type.data[len - 1] == ' ' || type.data[len - 1] == '\t')) {
        len--;
    }

    if (len == 0) {
        return 1;
    }

    prefix = sizeof("application/") - 1;

    if (len <= prefix
        || ngx_strncasecmp(type.data, (u_char *) "application/", prefix) != 0)
    {
        return 0;
    }

    if (len == prefix + 4) {
        return ngx_strncasecmp(type.data + prefix, (u_char *) "json", 4) == 0;
    }

    return len > prefix + 5
           && ngx_strncasecmp(type.data + len - 5, (u_char *) "+json", 5) == 0;
}


/*
 * The body in one piece: where it lies, if nginx has it in one buffer, else a
 * copy.  NGX_OK, or NGX_DECLINED with the code to return in *rc.
 */

static ngx_int_t
ngx_http_agent_body_text(ngx_http_request_t *r, ngx_pool_t *pool,
    ngx_str_t *text, ngx_int_t *rc)
{
    off_t         size;
    ngx_chain_t  *cl;

    ngx_str_null(text);

    if (r->request_body == NULL) {
        return NGX_OK;
    }

    size = ngx_http_agent_body_size(r);

    if (size == 0) {
        return NGX_OK;
    }

    if (size > NGX_HTTP_AGENT_BODY_MAX) {
        *rc = ngx_http_agent_body_large(r);
        return NGX_DECLINED;
    }

    text->len = (size_t) size;

    /* a chunked body ends with a buffer that has nothing in it */

    for (cl = r->request_body->bufs; cl; cl = cl->next) {

        if (ngx_buf_size(cl->buf) == size && ngx_buf_in_memory(cl->buf)) {
            text->data = cl->buf->pos;
            return NGX_OK;
        }
    }

    *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;

    text->data = ngx_pnalloc(pool, text->len);
    if (text->data == NULL) {
        return NGX_DECLINED;
    }

    if (ngx_http_agent_body_copy(r, text) != NGX_OK) {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static off_t
ngx_http_agent_body_size(ngx_http_request_t *r)
{
    off_t         size;
    ngx_chain_t  *cl;

    size = 0;

    for (cl = r->request_body->bufs; cl; cl = cl->next) {
        size += ngx_buf_size(cl->buf);
    }

    return size;
}


static ngx_int_t
ngx_http_agent_body_copy(ngx_http_request_t *r, ngx_str_t *text)
{
    u_char       *p;
    size_t        size;
    ssize_t       n;
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    p = text->data;

    for (cl = r->request_body->bufs; cl; cl = cl->next) {

        b = cl->buf;
        size = (size_t) ngx_buf_size(b);

        if (size == 0) {
            continue;
        }

        if (ngx_buf_in_memory(b)) {
            p = ngx_cpymem(p, b->pos, size);
            continue;
        }

        /* just written by nginx itself: it comes from the page cache */

        n = ngx_read_file(b->file, p, size, b->file_pos);

        if (n == NGX_ERROR || (size_t) n != size) {
            ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                          "agent web: request body file \"%V\" is cut short",
                          &b->file->name);
            return NGX_ERROR;
        }

        p += size;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_body_media(ngx_http_request_t *r)
{
    return ngx_http_agent_reply_error(r, NGX_HTTP_UNSUPPORTED_MEDIA_TYPE,
                                      "send the body as JSON, with "
                                      "\"Content-Type: application/json\"");
}


static ngx_int_t
ngx_http_agent_body_large(ngx_http_request_t *r)
{
    return ngx_http_agent_reply_error(r, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
                                      "a JSON body may have 16 megabytes at "
                                      "most; upload large data as an "
                                      "artifact");
}


void
ngx_http_agent_body_free(ngx_http_request_t *r)
{
    ngx_http_request_body_t  *rb;

    rb = r->request_body;

    /* a subrequest, a mirror perhaps, may still be sending it */

    if (r != r->main || r->count > 1 || rb == NULL || rb->buf == NULL) {
        return;
    }

    /* only what is over the pool's block size can be freed; so it is told */

    if (ngx_pfree(r->pool, rb->buf->start) == NGX_OK) {
        rb->bufs = NULL;
        rb->buf = NULL;
    }
}
