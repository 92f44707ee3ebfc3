
/*
 * The location of agent_status: which form is asked for, and the answer.
 * What is in it is in ngx_http_agent_metrics.c.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_agent_web.h"
#include "ngx_http_agent_reply.h"
#include "ngx_http_agent_status.h"


/* how much a client likes a form, in thousandths, and how exactly it said so */

typedef struct {
    ngx_uint_t                 q;
    ngx_uint_t                 exact;
} ngx_http_agent_liking_t;


static ngx_int_t ngx_http_agent_status_form(ngx_http_request_t *r,
    ngx_uint_t *prometheus);
static ngx_uint_t ngx_http_agent_status_accept(ngx_http_request_t *r);
static void ngx_http_agent_status_accept_list(ngx_str_t *list,
    ngx_http_agent_liking_t *json, ngx_http_agent_liking_t *text);
static void ngx_http_agent_status_accept_one(ngx_str_t *item,
    ngx_http_agent_liking_t *json, ngx_http_agent_liking_t *text);
static void ngx_http_agent_status_like(ngx_http_agent_liking_t *liking,
    ngx_uint_t exact, ngx_uint_t q);
static ngx_uint_t ngx_http_agent_status_q(u_char *p, u_char *last);
static ngx_int_t ngx_http_agent_status_send(ngx_http_request_t *r,
    ngx_str_t *text);


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

    if (ngx_http_agent_status_form(r, &prometheus) != NGX_OK) {
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
        return ngx_http_agent_status_send(r, &text);
    }

    return ngx_http_agent_reply(r, NGX_HTTP_OK, &text);
}


static ngx_int_t
ngx_http_agent_status_form(ngx_http_request_t *r, ngx_uint_t *prometheus)
{
    ngx_str_t  value;

    if (ngx_http_arg(r, (u_char *) "format", 6, &value) != NGX_OK) {
        *prometheus = ngx_http_agent_status_accept(r);
        return NGX_OK;
    }

    *prometheus = (value.len == 10
                   && ngx_strncmp(value.data, "prometheus", 10) == 0);

    if (*prometheus
        || (value.len == 4 && ngx_strncmp(value.data, "json", 4) == 0))
    {
        return NGX_OK;
    }

    return NGX_DECLINED;
}


/*
 * 1 when the client likes Prometheus' text better than JSON.  nginx keeps a
 * pointer to Accept only in some builds, so the header is looked for.
 */

static ngx_uint_t
ngx_http_agent_status_accept(ngx_http_request_t *r)
{
    ngx_uint_t                i;
    ngx_list_part_t          *part;
    ngx_table_elt_t          *h;
    ngx_http_agent_liking_t   json, text;

    ngx_memzero(&json, sizeof(ngx_http_agent_liking_t));
    ngx_memzero(&text, sizeof(ngx_http_agent_liking_t));

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (h[i].key.len == 6
                && ngx_strncasecmp(h[i].key.data, (u_char *) "accept", 6) == 0)
            {
                ngx_http_agent_status_accept_list(&h[i].value, &json, &text);
            }
        }
    }

    return text.q > json.q;
}


static void
ngx_http_agent_status_accept_list(ngx_str_t *list,
    ngx_http_agent_liking_t *json, ngx_http_agent_liking_t *text)
{
    u_char     *p, *last;
    ngx_str_t   item;

    last = list->data + list->len;

    for (p = list->data; p < last; p++) {
        item.data = p;
        p = ngx_strlchr(p, last, ',');

        if (p == NULL) {
            p = last;
        }

        item.len = p - item.data;
        ngx_http_agent_status_accept_one(&item, json, text);
    }
}


/* " text/plain ; version=0.0.4;q=0.3": only type and q matter here */

static void
ngx_http_agent_status_accept_one(ngx_str_t *item,
    ngx_http_agent_liking_t *json, ngx_http_agent_liking_t *text)
{
    u_char      *p, *end, *last;
    ngx_uint_t   i, q;

    static struct {
        ngx_str_t   type;
        ngx_uint_t  json;
        ngx_uint_t  text;
    } types[] = {
        { ngx_string("*/*"), 1, 1 },
        { ngx_string("application/*"), 2, 0 },
        { ngx_string("text/*"), 0, 2 },
        { ngx_string("application/json"), 3, 0 },
        { ngx_string("text/plain"), 0, 3 },
        { ngx_string("application/openmetrics-text"), 0, 3 },
    };

    p = item->data;
    last = p + item->len;

    while (p < last && (*p == ' ' || *p == '\t')) {
        p++;
    }

    for (end = p; end < last; end++) {
        if (*end == ';' || *end == ' ' || *end == '\t') {
            break;
        }
    }

    q = ngx_http_agent_status_q(end, last);

    for (i = 0; i < sizeof(types) / sizeof(types[0]); i++) {

        if (types[i].type.len == (size_t) (end - p)
            && ngx_strncasecmp(types[i].type.data, p, end - p) == 0)
        {
            ngx_http_agent_status_like(json, types[i].json, q);
            ngx_http_agent_status_like(text, types[i].text, q);
        }
    }
}


/* what is said more exactly counts more; of equals the best */

static void
ngx_http_agent_status_like(ngx_http_agent_liking_t *liking, ngx_uint_t exact,
    ngx_uint_t q)
{
    if (exact == 0 || exact < liking->exact) {
        return;
    }

    if (exact > liking->exact || q > liking->q) {
        liking->q = q;
    }

    liking->exact = exact;
}


/* RFC 9110: "q=" and at most three digits behind the point; 1 if not said */

static ngx_uint_t
ngx_http_agent_status_q(u_char *p, u_char *last)
{
    ngx_uint_t  q, unit;

    for ( /* void */ ; p < last; p++) {

        if (*p != ';') {
            continue;
        }

        while (p + 1 < last && (p[1] == ' ' || p[1] == '\t')) {
            p++;
        }

        if (last - p < 4 || (p[1] | 0x20) != 'q' || p[2] != '=') {
            continue;
        }

        p += 3;
        q = (*p == '1') ? 1000 : 0;
        p++;

        if (p == last || *p != '.') {
            return q;
        }

        for (p++, unit = 100;
             p < last && *p >= '0' && *p <= '9' && unit;
             p++, unit /= 10)
        {
            q += (*p - '0') * unit;
        }

        return ngx_min(q, 1000);
    }

    return 1000;
}


static ngx_int_t
ngx_http_agent_status_send(ngx_http_request_t *r, ngx_str_t *text)
{
    ngx_buf_t    *b;
    ngx_int_t     rc;
    ngx_chain_t   out;

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = text->len;

    ngx_str_set(&r->headers_out.content_type,
                "text/plain; version=0.0.4; charset=utf-8");
    r->headers_out.content_type_len = sizeof("text/plain") - 1;
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
