
/*
 * What was used, by day and agent: GET usage of a tenant, and agent_usage,
 * which shows the operator those of all tenants, as JSON or as CSV.  Reads
 * the ledger only.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_agent_utf8.h"
#include "ngx_http_agent_web.h"
#include "ngx_http_agent_auth.h"
#include "ngx_http_agent_form.h"
#include "ngx_http_agent_reply.h"
#include "ngx_http_agent_usage.h"
#include "ngx_http_agent_view.h"


#define NGX_HTTP_AGENT_DATE     (sizeof("2026-11-22") - 1)

/* keys, numbers and punctuation of one line */
#define NGX_HTTP_AGENT_USAGE    320


static ngx_int_t ngx_http_agent_usage_allowed(ngx_http_request_t *r,
    ngx_int_t *rc);
static ngx_int_t ngx_http_agent_usage_tenant(ngx_http_agent_web_t *web,
    ngx_int_t *rc);
static ngx_int_t ngx_http_agent_usage_start(ngx_http_agent_web_t *web,
    ngx_http_agent_done_pt done);
static ngx_int_t ngx_http_agent_usage_dates(ngx_http_agent_web_t *web,
    ngx_int_t *rc);
static ngx_int_t ngx_http_agent_usage_date(ngx_http_agent_web_t *web,
    const char *arg, ngx_str_t *date, ngx_int_t *rc);
static ngx_uint_t ngx_http_agent_usage_is_date(ngx_str_t *s);
static ngx_int_t ngx_http_agent_usage_month(ngx_http_request_t *r,
    ngx_str_t *to, ngx_str_t *from);
static ngx_int_t ngx_http_agent_usage_done(ngx_http_agent_web_t *web);
static ngx_int_t ngx_http_agent_usage_all_done(ngx_http_agent_web_t *web);
static ngx_int_t ngx_http_agent_usage_json(ngx_http_agent_web_t *web,
    ngx_uint_t tenants);
static void ngx_http_agent_usage_line(ngx_agent_json_t *j,
    ngx_agent_usage_t *u, ngx_uint_t tenants);
static void ngx_http_agent_usage_sums(ngx_agent_json_t *j,
    ngx_agent_usage_t *u);


static const ngx_http_agent_form_t  ngx_http_agent_usage_form = {
    ngx_string("csv"),
    ngx_string("text/csv; charset=utf-8; header=present"),
    { ngx_string("text/csv"), ngx_string("application/csv") }
};


ngx_int_t
ngx_http_agent_usage_get(ngx_http_agent_web_t *web)
{
    if (ngx_http_agent_call(web) == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_http_agent_auth_limited(web)) {
        web->call->agents = web->key->agents;
    }

    return ngx_http_agent_usage_start(web, ngx_http_agent_usage_done);
}


ngx_int_t
ngx_http_agent_usage_handler(ngx_http_request_t *r)
{
    ngx_int_t              rc;
    ngx_uint_t             csv;
    ngx_http_agent_web_t  *web;

    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "agent web: usage of all tenants");

    if (ngx_http_agent_usage_allowed(r, &rc) != NGX_OK) {
        return rc;
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_http_agent_form(r, &ngx_http_agent_usage_form, &csv) != NGX_OK) {
        return ngx_http_agent_reply_invalid(r, "query", "format",
                                            "must be \"json\" or \"csv\"");
    }

    web = ngx_http_agent_web(r);
    if (web == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    web->op = csv ? (void *) &ngx_http_agent_usage_form : NULL;

    if (ngx_http_agent_call(web) == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_http_agent_usage_tenant(web, &rc) != NGX_OK) {
        return rc;
    }

    return ngx_http_agent_usage_start(web, ngx_http_agent_usage_all_done);
}


/* NGX_OK, or NGX_DECLINED: answered, *rc is the code to return */

static ngx_int_t
ngx_http_agent_usage_allowed(ngx_http_request_t *r, ngx_int_t *rc)
{
    static ngx_str_t  allow = ngx_string("GET, HEAD");

    if (r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD)) {
        return NGX_OK;
    }

    if (ngx_http_agent_reply_header(r, "Allow", &allow) != NGX_OK) {
        *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;

    } else {
        *rc = ngx_http_agent_reply_error(r, NGX_HTTP_NOT_ALLOWED,
                                         "the usage is read with GET or HEAD");
    }

    return NGX_DECLINED;
}


/*
 * The operator's question is about the tenant it names, or about all: not
 * about the one that a key or agent_tenant would make of the request.
 */

static ngx_int_t
ngx_http_agent_usage_tenant(ngx_http_agent_web_t *web, ngx_int_t *rc)
{
    ngx_str_t  *tenant;

    tenant = &web->call->tenant;
    ngx_str_set(tenant, "");

    switch (ngx_http_agent_route_arg(web->request, "tenant", tenant)) {

    case NGX_OK:
        break;

    case NGX_DECLINED:
        web->call->all = 1;
        return NGX_OK;

    default:
        *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
        return NGX_DECLINED;
    }

    if (ngx_agent_utf8_valid(tenant->data, tenant->len)) {
        return NGX_OK;
    }

    *rc = ngx_http_agent_reply_invalid(web->request, "query", "tenant",
                                       "must be UTF-8 without NUL");
    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_agent_usage_start(ngx_http_agent_web_t *web,
    ngx_http_agent_done_pt done)
{
    ngx_int_t  rc;

    if (ngx_http_agent_list_page(web, &rc) != NGX_OK
        || ngx_http_agent_usage_dates(web, &rc) != NGX_OK)
    {
        return rc;
    }

    return ngx_http_agent_call_start(web, ngx_agent_store_usage, done);
}


/*
 * What is not asked for is not read: without "from" it is the month of "to",
 * or the present one.
 */

static ngx_int_t
ngx_http_agent_usage_dates(ngx_http_agent_web_t *web, ngx_int_t *rc)
{
    ngx_str_t  *from, *to;

    from = &web->call->from;
    to = &web->call->to;

    if (ngx_http_agent_usage_date(web, "from", from, rc) != NGX_OK
        || ngx_http_agent_usage_date(web, "to", to, rc) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    if (from->len == 0) {
        *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
        return ngx_http_agent_usage_month(web->request, to, from);
    }

    if (to->len && ngx_memcmp(from->data, to->data, NGX_HTTP_AGENT_DATE) > 0) {
        *rc = ngx_http_agent_reply_invalid(web->request, "query", "from",
                                           "must not be after \"to\"");
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_usage_date(ngx_http_agent_web_t *web, const char *arg,
    ngx_str_t *date, ngx_int_t *rc)
{
    switch (ngx_http_agent_route_arg(web->request, arg, date)) {

    case NGX_OK:
        break;

    case NGX_DECLINED:
        ngx_str_null(date);
        return NGX_OK;

    default:
        *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
        return NGX_DECLINED;
    }

    if (ngx_http_agent_usage_is_date(date)) {
        return NGX_OK;
    }

    *rc = ngx_http_agent_reply_invalid(web->request, "query", arg,
                                       "must be a day as in \"2026-11-30\"");
    return NGX_DECLINED;
}


/* one that there is: the database takes no other */

static ngx_uint_t
ngx_http_agent_usage_is_date(ngx_str_t *s)
{
    ngx_int_t   year, month, day, last;
    ngx_uint_t  leap;

    static ngx_int_t  days[] = { 31, 28, 31, 30, 31, 30,
                                 31, 31, 30, 31, 30, 31 };

    if (s->len != NGX_HTTP_AGENT_DATE || s->data[4] != '-'
        || s->data[7] != '-')
    {
        return 0;
    }

    year = ngx_atoi(s->data, 4);
    month = ngx_atoi(s->data + 5, 2);
    day = ngx_atoi(s->data + 8, 2);

    if (year < 1 || month < 1 || month > 12 || day < 1) {
        return 0;
    }

    leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    last = days[month - 1] + (month == 2 && leap);

    return day <= last;
}


/* the first day of the month that "to" is in, or of this one */

static ngx_int_t
ngx_http_agent_usage_month(ngx_http_request_t *r, ngx_str_t *to,
    ngx_str_t *from)
{
    ngx_tm_t  tm;

    /* the year of a clock gone wrong may have more digits */

    from->data = ngx_pnalloc(r->pool, NGX_INT64_LEN + sizeof("-11-01"));
    if (from->data == NULL) {
        return NGX_DECLINED;
    }

    if (to->len) {
        ngx_sprintf(from->data, "%*s01", (size_t) 8, to->data);

    } else {
        ngx_gmtime(ngx_time(), &tm);
        ngx_sprintf(from->data, "%04d-%02d-01", tm.ngx_tm_year,
                    tm.ngx_tm_mon);
    }

    from->len = NGX_HTTP_AGENT_DATE;

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_usage_done(ngx_http_agent_web_t *web)
{
    if (web->call->rc != NGX_OK) {
        return ngx_http_agent_reply_store(web->request, web->call->rc);
    }

    return ngx_http_agent_usage_json(web, 0);
}


static ngx_int_t
ngx_http_agent_usage_all_done(ngx_http_agent_web_t *web)
{
    ngx_str_t            text;
    ngx_http_request_t  *r;

    static ngx_str_t     no_store = ngx_string("no-store");

    r = web->request;

    if (web->call->rc != NGX_OK) {
        return ngx_http_agent_reply_store(r, web->call->rc);
    }

    if (ngx_http_agent_reply_header(r, "Cache-Control", &no_store) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (web->op == NULL) {
        return ngx_http_agent_usage_json(web, 1);
    }

    if (ngx_http_agent_usage_csv(r->pool, web->call->list, &text) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_agent_form_send(r, &ngx_http_agent_usage_form, &text);
}


static ngx_int_t
ngx_http_agent_usage_json(ngx_http_agent_web_t *web, ngx_uint_t tenants)
{
    ngx_uint_t               i;
    ngx_agent_json_t         j;
    ngx_agent_usage_t       *u;
    ngx_agent_store_call_t  *call;

    call = web->call;
    u = call->list->elts;

    ngx_agent_json_init(&j, web->request->pool,
                        (call->list->nelts + 2) * NGX_HTTP_AGENT_USAGE);

    ngx_agent_json_object(&j);
    ngx_agent_json_key(&j, "usage");
    ngx_agent_json_array(&j);

    for (i = 0; i < call->list->nelts; i++) {
        ngx_http_agent_usage_line(&j, &u[i], tenants);
    }

    ngx_agent_json_array_end(&j);

    ngx_agent_json_key(&j, "total");
    ngx_agent_json_object(&j);
    ngx_http_agent_usage_sums(&j, call->usage);
    ngx_agent_json_object_end(&j);

    ngx_http_agent_view_pagination(&j, call->page, call->total);
    ngx_agent_json_object_end(&j);

    return ngx_http_agent_reply_json(web->request, NGX_HTTP_OK, &j);
}


static void
ngx_http_agent_usage_line(ngx_agent_json_t *j, ngx_agent_usage_t *u,
    ngx_uint_t tenants)
{
    ngx_agent_json_object(j);

    ngx_agent_json_key(j, "day");
    ngx_agent_json_string(j, &u->day);

    if (tenants) {
        ngx_agent_json_key(j, "tenant");
        ngx_agent_json_string(j, &u->tenant);
    }

    ngx_agent_json_key(j, "agent");
    ngx_agent_json_string(j, &u->agent);

    ngx_http_agent_usage_sums(j, u);

    ngx_agent_json_object_end(j);
}


/* the price is a string: what reads a JSON number may round it */

static void
ngx_http_agent_usage_sums(ngx_agent_json_t *j, ngx_agent_usage_t *u)
{
    ngx_agent_json_key(j, "steps");
    ngx_agent_json_int(j, u->steps);

    ngx_agent_json_key(j, "completed");
    ngx_agent_json_int(j, u->completed);

    ngx_agent_json_key(j, "failed");
    ngx_agent_json_int(j, u->failed);

    ngx_agent_json_key(j, "cancelled");
    ngx_agent_json_int(j, u->cancelled);

    ngx_agent_json_key(j, "tokens_in");
    ngx_agent_json_int(j, u->tokens_in);

    ngx_agent_json_key(j, "tokens_out");
    ngx_agent_json_int(j, u->tokens_out);

    ngx_agent_json_key(j, "price");
    ngx_agent_json_string(j, &u->price);
}
