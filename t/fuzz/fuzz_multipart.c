
/*
 * multipart: split anywhere, the parts are those of the whole.  The first
 * line of the input is the Content-Type, if it is one that is taken.
 */

#include "stub.h"
#include "ngx_agent_multipart.h"


typedef struct {
    uint64_t   hash;
    ngx_int_t  rc;
} digest_t;


static void
add(digest_t *d, const u_char *p, size_t n)
{
    size_t  i;

    for (i = 0; i < n; i++) {
        d->hash = (d->hash ^ p[i]) * 1099511628211u;
    }
}


static ngx_int_t
begin(void *ctx, ngx_agent_multipart_part_t *part)
{
    add(ctx, (u_char *) "<", 1);
    add(ctx, part->name.data, part->name.len);
    add(ctx, (u_char *) "|", 1);
    add(ctx, part->filename.data, part->filename.len);
    add(ctx, (u_char *) "|", 1);
    add(ctx, part->content_type.data, part->content_type.len);

    return NGX_OK;
}


static ngx_int_t
data(void *ctx, u_char *p, size_t n)
{
    if (n == 0) {
        abort();
    }

    add(ctx, p, n);

    return NGX_OK;
}


static ngx_int_t
end(void *ctx)
{
    add(ctx, (u_char *) ">", 1);

    return NGX_OK;
}


static void
run(ngx_str_t *type, const uint8_t *p, size_t n, uint32_t seed, digest_t *d)
{
    size_t                  len;
    u_char                 *copy;
    const char             *why;
    ngx_pool_t             *pool;
    ngx_agent_multipart_t  *m;

    static const ngx_agent_multipart_cb_t  cb = { begin, data, end };

    memset(d, 0, sizeof(digest_t));
    pool = stub_pool();
    m = ngx_agent_multipart_create(pool, type, &cb, d, &why);

    if (m == NULL && why == NULL) {
        abort();
    }

    if (m == NULL) {
        m = ngx_agent_multipart_create(pool,
                             &S("multipart/form-data; boundary=b"), &cb, d,
                             &why);
    }

    while (n && d->rc == NGX_OK) {

        len = n;

        if (seed) {
            seed = (seed * 1664525 + 1013904223) | 1;
            len = ngx_min((seed >> 16) % 7 + 1, n);
        }

        copy = malloc(len);
        memcpy(copy, p, len);
        d->rc = ngx_agent_multipart_feed(m, copy, len);
        free(copy);

        p += len;
        n -= len;
    }

    if (d->rc == NGX_DECLINED && ngx_agent_multipart_why(m) == NULL) {
        abort();
    }

    ngx_destroy_pool(pool);
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    digest_t        whole, split;
    uint32_t        seed;
    ngx_str_t       type;
    const uint8_t  *line;

    if (n < 2) {
        return 0;
    }

    seed = p[0] * 256u + p[1] + 1;
    p += 2;
    n -= 2;

    ngx_str_null(&type);
    line = memchr(p, '\n', n);

    if (line) {
        type.data = (u_char *) p;
        type.len = line - p;
        n -= type.len + 1;
        p = line + 1;
    }

    run(&type, p, n, 0, &whole);
    run(&type, p, n, seed, &split);

    if (memcmp(&whole, &split, sizeof(digest_t)) != 0) {
        abort();
    }

    return 0;
}
