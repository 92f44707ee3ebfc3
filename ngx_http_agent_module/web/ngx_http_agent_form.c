
/*
 * Which form of an answer a client asks for, and the sending of one that is
 * no JSON.  Knows nothing of what is in it.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_agent_form.h"
#include "ngx_http_agent_reply.h"


/* how much a client likes a form, in thousandths, and how exactly it said so */

typedef struct {
    ngx_uint_t                 q;
    ngx_uint_t                 exact;
} ngx_http_agent_liking_t;


/* what is compared, while the headers are read */

typedef struct {
    const ngx_http_agent_form_t  *form;
    ngx_http_agent_liking_t       json;
    ngx_http_agent_liking_t       text;
} ngx_http_agent_likings_t;


static ngx_uint_t ngx_http_agent_form_accept(ngx_http_request_t *r,
    const ngx_http_agent_form_t *form);
static void ngx_http_agent_form_accept_list(ngx_str_t *list,
    ngx_http_agent_likings_t *l);
static void ngx_http_agent_form_accept_one(ngx_str_t *item,
    ngx_http_agent_likings_t *l);
static void ngx_http_agent_form_accept_type(ngx_str_t *type, ngx_uint_t q,
    ngx_http_agent_likings_t *l);
static void ngx_http_agent_form_like(ngx_http_agent_liking_t *liking,
    ngx_uint_t exact, ngx_uint_t q);
static ngx_uint_t ngx_http_agent_form_q(u_char *p, u_char *last);


ngx_int_t
ngx_http_agent_form(ngx_http_request_t *r, const ngx_http_agent_form_t *form,
    ngx_uint_t *other)
{
    ngx_str_t  value;

    if (ngx_http_arg(r, (u_char *) "format", 6, &value) != NGX_OK) {
        *other = ngx_http_agent_form_accept(r, form);
        return NGX_OK;
    }

    *other = (value.len == form->name.len
              && ngx_strncmp(value.data, form->name.data, value.len) == 0);

    if (*other
        || (value.len == 4 && ngx_strncmp(value.data, "json", 4) == 0))
    {
        return NGX_OK;
    }

    return NGX_DECLINED;
}


/*
 * 1 when the client likes the form better than JSON.  nginx keeps a pointer
 * to Accept only in some builds, so the header is looked for.
 */

static ngx_uint_t
ngx_http_agent_form_accept(ngx_http_request_t *r,
    const ngx_http_agent_form_t *form)
{
    ngx_uint_t                 i;
    ngx_list_part_t           *part;
    ngx_table_elt_t           *h;
    ngx_http_agent_likings_t   l;

    ngx_memzero(&l, sizeof(ngx_http_agent_likings_t));

    l.form = form;

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (h[i].key.len == 6
                && ngx_strncasecmp(h[i].key.data, (u_char *) "accept", 6) == 0)
            {
                ngx_http_agent_form_accept_list(&h[i].value, &l);
            }
        }
    }

    return l.text.q > l.json.q;
}


static void
ngx_http_agent_form_accept_list(ngx_str_t *list, ngx_http_agent_likings_t *l)
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
        ngx_http_agent_form_accept_one(&item, l);
    }
}


/* " text/plain ; version=0.0.4;q=0.3": only type and q matter here */

static void
ngx_http_agent_form_accept_one(ngx_str_t *item, ngx_http_agent_likings_t *l)
{
    u_char     *p, *end, *last;
    ngx_str_t   type;

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

    type.data = p;
    type.len = end - p;

    ngx_http_agent_form_accept_type(&type, ngx_http_agent_form_q(end, last),
                                    l);
}


#define ngx_http_agent_form_is(type, other)                                   \
    ((type)->len == (other)->len                                              \
     && ngx_strncasecmp((type)->data, (other)->data, (type)->len) == 0)


static void
ngx_http_agent_form_accept_type(ngx_str_t *type, ngx_uint_t q,
    ngx_http_agent_likings_t *l)
{
    ngx_uint_t  i;

    static struct {
        ngx_str_t   type;
        ngx_uint_t  json;
        ngx_uint_t  text;
    } types[] = {
        { ngx_string("*/*"), 1, 1 },
        { ngx_string("application/*"), 2, 0 },
        { ngx_string("text/*"), 0, 2 },
        { ngx_string("application/json"), 3, 0 },
    };

    for (i = 0; i < sizeof(types) / sizeof(types[0]); i++) {

        if (ngx_http_agent_form_is(type, &types[i].type)) {
            ngx_http_agent_form_like(&l->json, types[i].json, q);
            ngx_http_agent_form_like(&l->text, types[i].text, q);
        }
    }

    for (i = 0; i < NGX_HTTP_AGENT_FORM_ACCEPTS; i++) {

        if (type->len && ngx_http_agent_form_is(type, &l->form->accepts[i])) {
            ngx_http_agent_form_like(&l->text, 3, q);
        }
    }
}


/* what is said more exactly counts more; of equals the best */

static void
ngx_http_agent_form_like(ngx_http_agent_liking_t *liking, ngx_uint_t exact,
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
ngx_http_agent_form_q(u_char *p, u_char *last)
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


ngx_int_t
ngx_http_agent_form_send(ngx_http_request_t *r,
    const ngx_http_agent_form_t *form, ngx_str_t *text)
{
    ngx_int_t  rc;

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    return ngx_http_agent_reply_body(r, NGX_HTTP_OK, &form->type,
                                     form->accepts[0].len, text);
}
