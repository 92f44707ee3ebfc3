
/*
 * Authorization: nothing outside the bytes is read, a token lies within the
 * value and has nothing in it but what RFC 6750 allows, and what is written
 * anew from a token reads the same.
 */

#include "stub.h"
#include "ngx_agent_bearer.h"


static void
check(ngx_str_t *value, ngx_str_t *token)
{
    size_t      i;
    u_char     *text, hash[NGX_AGENT_KEY_HASH];
    ngx_str_t   again, s;

    if (token->len == 0 || token->len > NGX_AGENT_BEARER_MAX
        || token->data < value->data
        || token->data + token->len != value->data + value->len)
    {
        abort();
    }

    for (i = 0; i < token->len; i++) {
        if (token->data[i] <= ' ' || token->data[i] >= 127
            || token->data[i] == '"' || token->data[i] == ',')
        {
            abort();
        }
    }

    text = malloc(7 + token->len);
    memcpy(text, "bEaReR ", 7);
    memcpy(text + 7, token->data, token->len);
    s.data = text;
    s.len = 7 + token->len;

    if (ngx_agent_bearer(&s, &again) != NGX_OK
        || again.len != token->len
        || memcmp(again.data, token->data, token->len) != 0
        || ngx_agent_bearer_hash(&again, hash) != NGX_OK)
    {
        abort();
    }

    free(text);
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    u_char     *copy;
    ngx_str_t   value, token;

    copy = malloc(n);
    memcpy(copy, p, n);
    value.data = copy;
    value.len = n;

    if (ngx_agent_bearer(&value, &token) == NGX_OK) {
        check(&value, &token);
    }

    free(copy);

    return 0;
}
