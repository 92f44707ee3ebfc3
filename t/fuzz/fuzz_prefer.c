
/*
 * Prefer and Idempotency-Key: nothing outside the bytes is read, what comes
 * out is within its limits, and a key reads the same in quotes.
 */

#include "stub.h"
#include "ngx_agent_prefer.h"


static void
quoted(ngx_str_t *key)
{
    size_t      i, n;
    u_char     *text, buf[NGX_AGENT_KEY_MAX];
    ngx_str_t   value, again;

    text = malloc(2 * key->len + 2);
    n = 0;
    text[n++] = '"';

    for (i = 0; i < key->len; i++) {
        if (key->data[i] == '"' || key->data[i] == '\\') {
            text[n++] = '\\';
        }

        text[n++] = key->data[i];
    }

    text[n++] = '"';
    value.data = text;
    value.len = n;

    if (ngx_agent_prefer_key(&value, buf, &again) != NULL
        || again.len != key->len
        || memcmp(again.data, key->data, key->len) != 0)
    {
        abort();
    }

    free(text);
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    size_t               i;
    u_char              *copy, buf[NGX_AGENT_KEY_MAX];
    ngx_str_t            s, key;
    ngx_agent_prefer_t   prefer;

    copy = malloc(n);
    memcpy(copy, p, n);
    s.data = copy;
    s.len = n;

    memset(&prefer, 0, sizeof(prefer));
    ngx_agent_prefer_read(&s, &prefer);

    if (prefer.wait > NGX_AGENT_PREFER_WAIT
        || (prefer.has_wait && memchr(copy, '=', n) == NULL))
    {
        abort();
    }

    if (ngx_agent_prefer_key(&s, buf, &key) == NULL) {

        if (key.len == 0 || key.len > NGX_AGENT_KEY_MAX) {
            abort();
        }

        for (i = 0; i < key.len; i++) {
            if (key.data[i] < 0x21 || key.data[i] > 0x7e) {
                abort();
            }
        }

        quoted(&key);
    }

    free(copy);

    return 0;
}
