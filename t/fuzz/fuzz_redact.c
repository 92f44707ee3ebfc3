
/*
 * A secret taken out of a text: what was UTF-8 or JSON is that afterwards, and
 * the secret, as it is, is not in there any more.
 */

#include "stub.h"
#include "ngx_agent_json.h"
#include "ngx_agent_redact.h"


static ngx_uint_t
has(ngx_str_t *text, ngx_str_t *secret)
{
    return memmem(text->data, text->len, secret->data, secret->len) != NULL;
}


/* what the mark and its surroundings make up anew is no secret of the text */

static ngx_uint_t
touches_mark(ngx_str_t *secret)
{
    size_t  i;

    for (i = 0; i < secret->len; i++) {
        if (memchr(NGX_AGENT_REDACT_MARK, secret->data[i],
                   sizeof(NGX_AGENT_REDACT_MARK) - 1))
        {
            return 1;
        }
    }

    return 0;
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    size_t               len;
    u_char              *copy;
    ngx_str_t            secret, text, doc;
    ngx_uint_t           utf8, json;
    const char          *why;
    ngx_pool_t          *pool;
    ngx_agent_redact_t  *r;

    if (n < 2) {
        return 0;
    }

    len = ngx_min(p[0] % 32u, n - 2);
    copy = malloc(n);
    memcpy(copy, p, n);

    secret = (ngx_str_t) { len, copy + 2 };
    text = (ngx_str_t) { n - 2 - len, copy + 2 + len };
    doc = text;

    /* the secret came as JSON, so it is UTF-8 */

    if (!ngx_agent_utf8_valid(secret.data, secret.len)) {
        free(copy);
        return 0;
    }

    utf8 = ngx_agent_utf8_valid(text.data, text.len);
    json = (ngx_agent_json_read(&doc, NULL, NULL, &why) == NGX_OK);

    pool = stub_pool();
    r = ngx_agent_redact_create(pool, &secret);

    if (ngx_agent_redact_text(r, pool, &text, p[1] & 1) != NGX_OK
        || ngx_agent_redact_json(r, pool, &doc) != NGX_OK)
    {
        abort();
    }

    if (utf8 && !ngx_agent_utf8_valid(text.data, text.len)) {
        abort();
    }

    if (json && ngx_agent_json_read(&doc, NULL, NULL, &why) != NGX_OK) {
        abort();
    }

    if (r->len && !touches_mark(&secret) && has(&text, &secret)) {
        abort();
    }

    ngx_agent_redact_wipe(r);
    ngx_destroy_pool(pool);
    free(copy);

    return 0;
}
