
/*
 * Usage as CSV (RFC 4180).  Bytes only: no request is touched.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_agent_usage.h"


static u_char *ngx_http_agent_usage_csv_field(u_char *p, ngx_str_t *s);
static ngx_uint_t ngx_http_agent_usage_csv_formula(ngx_str_t *s);
static ngx_uint_t ngx_http_agent_usage_csv_plain(ngx_str_t *s);


ngx_int_t
ngx_http_agent_usage_csv(ngx_pool_t *pool, ngx_array_t *list, ngx_str_t *text)
{
    size_t              len;
    u_char             *p;
    ngx_uint_t          i;
    ngx_agent_usage_t  *u;

    static ngx_str_t  head = ngx_string("day,tenant,agent,steps,completed,"
                                        "failed,cancelled,tokens_in,"
                                        "tokens_out,price" CRLF);

    u = list->elts;
    len = head.len;

    for (i = 0; i < list->nelts; i++) {

        /* each byte may be doubled; quotes, a mark, commas */

        len += u[i].day.len + 2 * u[i].tenant.len + 2 * u[i].agent.len
               + 6 * NGX_INT64_LEN + u[i].price.len + 32;
    }

    p = ngx_pnalloc(pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    text->data = p;
    p = ngx_cpymem(p, head.data, head.len);

    for (i = 0; i < list->nelts; i++) {
        p = ngx_sprintf(p, "%V,", &u[i].day);
        p = ngx_http_agent_usage_csv_field(p, &u[i].tenant);
        *p++ = ',';
        p = ngx_http_agent_usage_csv_field(p, &u[i].agent);
        p = ngx_sprintf(p, ",%uL,%uL,%uL,%uL,%uL,%uL,%V" CRLF,
                        u[i].steps, u[i].completed, u[i].failed,
                        u[i].cancelled, u[i].tokens_in, u[i].tokens_out,
                        &u[i].price);
    }

    text->len = p - text->data;

    return NGX_OK;
}


/*
 * A spreadsheet takes what begins with "=" and its like for a formula, also
 * within quotes, and runs it.  A name may come from a client (agent_tenant),
 * so a "'" is put in front of such a one, which makes it a text.
 */

static u_char *
ngx_http_agent_usage_csv_field(u_char *p, ngx_str_t *s)
{
    size_t      i;
    ngx_uint_t  formula;

    formula = ngx_http_agent_usage_csv_formula(s);

    if (!formula && ngx_http_agent_usage_csv_plain(s)) {
        return ngx_cpymem(p, s->data, s->len);
    }

    *p++ = '"';

    if (formula) {
        *p++ = '\'';
    }

    for (i = 0; i < s->len; i++) {

        if (s->data[i] == '"') {
            *p++ = '"';
        }

        *p++ = s->data[i];
    }

    *p++ = '"';

    return p;
}


static ngx_uint_t
ngx_http_agent_usage_csv_formula(ngx_str_t *s)
{
    size_t  i;

    /* some programs skip white space in front of it */

    for (i = 0; i < s->len && s->data[i] <= ' '; i++) { /* void */ }

    if (i == s->len) {
        return 0;
    }

    return s->data[i] == '=' || s->data[i] == '+' || s->data[i] == '-'
           || s->data[i] == '@';
}


static ngx_uint_t
ngx_http_agent_usage_csv_plain(ngx_str_t *s)
{
    size_t  i;

    for (i = 0; i < s->len; i++) {

        if (s->data[i] <= ' ' || s->data[i] == '"' || s->data[i] == ',') {
            return 0;
        }
    }

    return 1;
}
