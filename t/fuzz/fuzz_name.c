
/*
 * Names: what the checks let pass can be nothing but a name, and what
 * Content-Disposition says of any name stays one header value.
 */

#include "stub.h"
#include "ngx_agent_name.h"


static void
checks(ngx_str_t *s)
{
    size_t     i;
    ngx_str_t  dir, file;

    if (ngx_agent_name_check(s) == NULL) {

        for (i = 0; i < s->len; i++) {
            if (s->data[i] < 0x20 || s->data[i] == '/'
                || s->data[i] == '\\')
            {
                abort();
            }
        }

        if (s->len == 0 || ngx_agent_path_check(s)) {
            abort();
        }
    }

    if (ngx_agent_path_check(s) == NULL
        && (memmem(s->data, s->len, "../", 3) == s->data
            || memmem(s->data, s->len, "/../", 4)))
    {
        abort();
    }

    if (ngx_agent_path_split(s, &dir, &file) == NULL
        && (ngx_agent_path_check(&dir) || ngx_agent_name_check(&file)
            || dir.len + file.len > s->len))
    {
        abort();
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    size_t       i;
    u_char      *copy;
    ngx_str_t    s, value;
    ngx_pool_t  *pool;

    copy = malloc(n);
    memcpy(copy, p, n);
    s.data = copy;
    s.len = n;

    checks(&s);

    pool = stub_pool();

    if (ngx_agent_name_disposition(pool, &s, &value) != NGX_OK) {
        abort();
    }

    for (i = 0; i < value.len; i++) {
        if (value.data[i] < 0x20 || value.data[i] > 0x7e) {
            abort();
        }
    }

    /* one quoted string: no quote or backslash comes from the name */

    if (memchr(value.data, '\\', value.len)
        || memchr(value.data + 22, '"', value.len - 22) == NULL
        || memchr((u_char *) memchr(value.data + 22, '"', value.len - 22) + 1,
                  '"', value.data + value.len
                  - (u_char *) memchr(value.data + 22, '"', value.len - 22)
                  - 1))
    {
        abort();
    }

    ngx_destroy_pool(pool);
    free(copy);

    return 0;
}
