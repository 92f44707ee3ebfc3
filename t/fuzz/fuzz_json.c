
/*
 * JSON: strict reading; incremental reading with splits that the data
 * decides, which must see what the whole sees; slices; the writer, whose
 * text the strict reader must take.
 */

#include "stub.h"
#include "ngx_agent_json.h"


typedef struct {
    uint64_t  hash;
    size_t    values;
} digest_t;


static ngx_int_t
digest(void *data, ngx_agent_json_value_t *v)
{
    size_t     i;
    digest_t  *d = data;

    d->values++;
    d->hash = (d->hash ^ v->type) * 1099511628211u;

    for (i = 0; i < v->path.len; i++) {
        d->hash = (d->hash ^ v->path.data[i]) * 1099511628211u;
    }

    for (i = 0; i < v->text.len; i++) {
        d->hash = (d->hash ^ v->text.data[i]) * 1099511628211u;
    }

    /* what is reported can be stored */

    if (!ngx_agent_utf8_valid(v->text.data, v->text.len)) {
        abort();
    }

    return NGX_OK;
}


static ngx_int_t
incremental(const uint8_t *p, size_t n, uint32_t seed, digest_t *d)
{
    size_t                    len;
    u_char                   *copy;
    ngx_int_t                 rc;
    ngx_agent_json_reader_t  *r;

    rc = NGX_OK;
    r = ngx_agent_json_reader_create(digest, d);

    while (n && rc == NGX_OK) {

        len = n;

        /* seed 0: the whole at once */

        if (seed) {
            seed = (seed * 1664525 + 1013904223) | 1;
            len = ngx_min((seed >> 16) % 7 + 1, n);
        }

        copy = malloc(len);
        memcpy(copy, p, len);
        rc = ngx_agent_json_reader_feed(r, copy, len);
        free(copy);

        p += len;
        n -= len;
    }

    if (rc == NGX_OK) {
        rc = ngx_agent_json_reader_finish(r);
    }

    ngx_agent_json_reader_free(r);

    return rc;
}


static void
slices(ngx_str_t *doc, ngx_int_t accepted)
{
    u_char      *pos;
    ngx_str_t    raw;
    const char  *why;

    if (ngx_agent_json_member(doc, "a", &raw) == NGX_OK
        && accepted == NGX_OK
        && ngx_agent_json_read(&raw, NULL, NULL, &why) != NGX_OK)
    {
        abort();
    }

    for (pos = NULL; ngx_agent_json_element(doc, &pos, &raw) == NGX_OK; ) {

        if (accepted == NGX_OK
            && ngx_agent_json_read(&raw, NULL, NULL, &why) != NGX_OK)
        {
            abort();
        }
    }
}


/* any bytes, in parts, become a string that reads back */

static void
written(const uint8_t *p, size_t n, uint32_t seed)
{
    size_t             len, left;
    ngx_str_t          whole, split, s;
    ngx_pool_t        *pool;
    const char        *why;
    const uint8_t     *q;
    ngx_agent_json_t   j;

    pool = stub_pool();

    s.data = (u_char *) p;
    s.len = n;
    ngx_agent_json_init(&j, pool, 1);
    ngx_agent_json_string(&j, &s);

    if (ngx_agent_json_done(&j, &whole) != NGX_OK
        || ngx_agent_json_read(&whole, NULL, NULL, &why)
           != (memchr(p, 0, n) ? NGX_DECLINED : NGX_OK))
    {
        abort();
    }

    ngx_agent_json_init(&j, pool, 1);
    ngx_agent_json_string_begin(&j);

    for (q = p, left = n; left; q += len, left -= len) {
        seed = seed * 1664525 + 1013904223;
        len = ngx_min((seed >> 16) % 5 + 1, left);
        ngx_agent_json_string_part(&j, q, len);
    }

    ngx_agent_json_string_end(&j);

    if (ngx_agent_json_done(&j, &split) != NGX_OK || split.len != whole.len
        || memcmp(split.data, whole.data, whole.len) != 0)
    {
        abort();
    }

    ngx_destroy_pool(pool);
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    uint32_t      seed;
    digest_t      strict, whole, split;
    ngx_int_t     rc, rc2, rc3;
    ngx_str_t     doc;
    const char   *why;

    if (n < 2) {
        return 0;
    }

    seed = p[0] * 256u + p[1] + 1;
    doc.data = (u_char *) p + 2;
    doc.len = n - 2;

    memset(&strict, 0, sizeof(digest_t));
    memset(&whole, 0, sizeof(digest_t));
    memset(&split, 0, sizeof(digest_t));

    rc = ngx_agent_json_read(&doc, digest, &strict, &why);
    rc2 = incremental(doc.data, doc.len, 0, &whole);
    rc3 = incremental(doc.data, doc.len, seed, &split);

    if ((rc == NGX_OK) != (why == NULL) || rc2 != rc3
        || (rc == NGX_OK && rc2 != NGX_OK)
        || (rc == NGX_OK && memcmp(&strict, &whole, sizeof(digest_t)) != 0)
        || (rc2 == NGX_OK && memcmp(&whole, &split, sizeof(digest_t)) != 0))
    {
        abort();
    }

    slices(&doc, rc);
    written(doc.data, doc.len, seed);

    return 0;
}
