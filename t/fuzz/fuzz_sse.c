
/* server-sent events: split anywhere, the events are those of the whole */

#include "stub.h"
#include "ngx_agent_sse.h"


#define MAX  64


typedef struct {
    uint64_t   hash;
    ngx_int_t  rc;
} digest_t;


static ngx_int_t
event(void *data, ngx_str_t *name, ngx_str_t *text)
{
    size_t     i;
    digest_t  *d = data;

    if (text->len > MAX) {
        abort();
    }

    d->hash = (d->hash ^ name->len) * 1099511628211u;

    for (i = 0; i < name->len; i++) {
        d->hash = (d->hash ^ name->data[i]) * 1099511628211u;
    }

    for (i = 0; i < text->len; i++) {
        d->hash = (d->hash ^ text->data[i]) * 1099511628211u;
    }

    return (text->len == 5) ? NGX_ABORT : NGX_OK;
}


static void
run(const uint8_t *p, size_t n, uint32_t seed, digest_t *d)
{
    size_t            len;
    u_char           *copy;
    ngx_pool_t       *pool;
    ngx_agent_sse_t   s;

    memset(d, 0, sizeof(digest_t));
    pool = stub_pool();
    ngx_agent_sse_init(&s, pool, MAX, event, d);

    while (n && d->rc == NGX_OK) {

        len = n;

        if (seed) {
            seed = (seed * 1664525 + 1013904223) | 1;
            len = ngx_min((seed >> 16) % 7 + 1, n);
        }

        copy = malloc(len);
        memcpy(copy, p, len);
        d->rc = ngx_agent_sse_feed(&s, copy, len);
        free(copy);

        p += len;
        n -= len;
    }

    if (d->rc == NGX_OK) {
        d->rc = ngx_agent_sse_finish(&s);
    }

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

    return 0;
}
