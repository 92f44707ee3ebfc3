
/*
 * The answer of an LLM: split anywhere, it comes to what the whole comes to;
 * what is kept of it is bounded, and can be stored.
 */

#include "stub.h"
#include "ngx_agent_json.h"
#include "ngx_agent_openai_parse.h"


#define MAX  512


typedef struct {
    uint64_t    hash;
    ngx_int_t   rc;
    ngx_uint_t  fault;
} digest_t;


static void
add(digest_t *d, ngx_str_t *s)
{
    size_t  i;

    if (s->len && !ngx_agent_utf8_valid(s->data, s->len)) {
        abort();
    }

    d->hash = (d->hash ^ s->len) * 1099511628211u;

    for (i = 0; i < s->len; i++) {
        d->hash = (d->hash ^ s->data[i]) * 1099511628211u;
    }
}


static void
came_to(ngx_agent_openai_t *o, digest_t *d)
{
    ngx_uint_t                i;
    ngx_agent_openai_call_t  *call;

    add(d, &o->content);
    add(d, &o->finish_reason);

    call = o->calls.elts;

    for (i = 0; i < o->calls.nelts; i++) {

        /* an id that was not given is made up, each time another */

        if (call[i].id.len == 0
            || !ngx_agent_utf8_valid(call[i].id.data, call[i].id.len))
        {
            abort();
        }

        add(d, &call[i].name);
        add(d, &call[i].arguments);
    }

    d->hash = (d->hash ^ o->tokens_in) * 1099511628211u;
    d->hash = (d->hash ^ o->tokens_out) * 1099511628211u;
}


static void
run(const uint8_t *p, size_t n, uint32_t seed, digest_t *d)
{
    size_t               len;
    u_char              *copy;
    ngx_pool_t          *pool;
    ngx_agent_openai_t  *o;

    memset(d, 0, sizeof(digest_t));
    pool = stub_pool();
    o = ngx_agent_openai_create(pool, MAX);

    while (n && d->rc == NGX_OK) {

        len = n;

        if (seed) {
            seed = (seed * 1664525 + 1013904223) | 1;
            len = ngx_min((seed >> 16) % 7 + 1, n);
        }

        copy = malloc(len);
        memcpy(copy, p, len);
        d->rc = ngx_agent_openai_feed(o, copy, len);
        free(copy);

        p += len;
        n -= len;
    }

    if (d->rc == NGX_OK || d->rc == NGX_DONE) {
        d->rc = ngx_agent_openai_finish(o);
    }

    if (d->rc == NGX_OK) {
        came_to(o, d);

    } else if (d->rc == NGX_DECLINED) {

        if (o->fault == NGX_AGENT_OPENAI_GOOD || o->why == NULL) {
            abort();
        }

        d->fault = o->fault;

    } else {
        abort();
    }

    ngx_destroy_pool(pool);
}


static void
refusal(const uint8_t *p, size_t n)
{
    size_t       i;
    u_char      *copy;
    ngx_str_t    message;
    ngx_pool_t  *pool;

    pool = stub_pool();
    copy = malloc(n);
    memcpy(copy, p, n);

    if (ngx_agent_openai_refusal(pool, copy, n, &message) != NGX_OK
        || message.len > 300
        || (message.len && !ngx_agent_utf8_valid(message.data, message.len)))
    {
        abort();
    }

    for (i = 0; i < message.len; i++) {
        if (message.data[i] < 0x20) {
            abort();
        }
    }

    free(copy);
    ngx_destroy_pool(pool);
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    digest_t  whole, split;

    if (n < 2) {
        return 0;
    }

    run(p + 2, n - 2, 0, &whole);
    run(p + 2, n - 2, p[0] * 256u + p[1] + 1, &split);

    if (memcmp(&whole, &split, sizeof(digest_t)) != 0) {
        abort();
    }

    refusal(p + 2, n - 2);

    return 0;
}
