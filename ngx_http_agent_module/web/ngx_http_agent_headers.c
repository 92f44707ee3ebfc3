
/*
 * What a client asks for by headers.  Looks at the request, and answers what
 * it refuses.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_agent_stat.h"
#include "ngx_agent_traceparent.h"
#include "ngx_http_agent_headers.h"
#include "ngx_http_agent_reply.h"


/* a walk through the request's headers of one name */

typedef struct {
    ngx_list_part_t           *part;
    ngx_uint_t                 i;
} ngx_http_agent_headers_t;


static ngx_str_t *ngx_http_agent_headers_next(ngx_http_agent_headers_t *h,
    ngx_str_t *name);


static ngx_str_t  ngx_http_agent_key_name = ngx_string("Idempotency-Key");


/* The value of the next header of that name, or NULL. */

static ngx_str_t *
ngx_http_agent_headers_next(ngx_http_agent_headers_t *h, ngx_str_t *name)
{
    ngx_table_elt_t  *e;

    for ( /* void */ ; h->part; h->part = h->part->next, h->i = 0) {

        while (h->i < h->part->nelts) {

            e = (ngx_table_elt_t *) h->part->elts + h->i++;

            if (e->key.len == name->len
                && ngx_strncasecmp(e->key.data, name->data, name->len) == 0)
            {
                return &e->value;
            }
        }
    }

    return NULL;
}


void
ngx_http_agent_prefer(ngx_http_request_t *r, ngx_agent_prefer_t *prefer)
{
    static ngx_str_t  name = ngx_string("Prefer");

    ngx_str_t                 *value;
    ngx_http_agent_headers_t   h;

    ngx_memzero(prefer, sizeof(ngx_agent_prefer_t));

    h.part = &r->headers_in.headers.part;
    h.i = 0;

    for ( ;; ) {

        value = ngx_http_agent_headers_next(&h, &name);

        if (value == NULL) {
            return;
        }

        ngx_agent_prefer_read(value, prefer);
    }
}


ngx_int_t
ngx_http_agent_key(ngx_http_request_t *r, ngx_pool_t *pool, ngx_str_t *key,
    ngx_int_t *rc)
{
    u_char                    *buf;
    ngx_str_t                 *value;
    const char                *why;
    ngx_http_agent_headers_t   h;

    ngx_str_null(key);

    h.part = &r->headers_in.headers.part;
    h.i = 0;

    value = ngx_http_agent_headers_next(&h, &ngx_http_agent_key_name);

    if (value == NULL) {
        return NGX_OK;
    }

    buf = ngx_pnalloc(pool, NGX_AGENT_KEY_MAX);
    if (buf == NULL) {
        *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
        return NGX_DECLINED;
    }

    why = ngx_agent_prefer_key(value, buf, key);

    if (ngx_http_agent_headers_next(&h, &ngx_http_agent_key_name)) {
        why = "is there more than once";
    }

    if (why) {
        *rc = ngx_http_agent_reply_invalid(r, "header", "Idempotency-Key",
                                           why);
        return NGX_DECLINED;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_agent_key_mismatch(ngx_http_request_t *r)
{
    static ngx_str_t  message = ngx_string("this Idempotency-Key was used for "
                          "another request; take a new key for a new request");

    return ngx_http_agent_reply_detail(r, &message, "header",
                                       "Idempotency-Key",
                                       "was used for another request");
}


ngx_int_t
ngx_http_agent_key_replayed(ngx_http_request_t *r)
{
    static ngx_str_t  yes = ngx_string("true");

    ngx_agent_stat_add(REPLAYED, 1);

    return ngx_http_agent_reply_header(r, "Idempotency-Replayed", &yes);
}


ngx_int_t
ngx_http_agent_traceparent(ngx_http_request_t *r, ngx_pool_t *pool,
    ngx_str_t *parent)
{
    static ngx_str_t  name = ngx_string("traceparent");

    u_char                     buf[NGX_AGENT_TRACEPARENT_LEN];
    ngx_str_t                 *value;
    ngx_http_agent_headers_t   h;

    ngx_str_null(parent);

    h.part = &r->headers_in.headers.part;
    h.i = 0;

    value = ngx_http_agent_headers_next(&h, &name);

    /* of two nobody knows which one counts */

    if (value == NULL
        || ngx_agent_traceparent_read(value, buf) != NGX_OK
        || ngx_http_agent_headers_next(&h, &name))
    {
        return NGX_OK;
    }

    parent->data = ngx_pnalloc(pool, NGX_AGENT_TRACEPARENT_LEN);
    if (parent->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(parent->data, buf, NGX_AGENT_TRACEPARENT_LEN);
    parent->len = NGX_AGENT_TRACEPARENT_LEN;

    return NGX_OK;
}
