
/*
 * Authorization with a bearer token: what is one, what is none, what is
 * malformed; and the hash.
 */

#include "stub.h"
#include "ngx_agent_bearer.h"


static void
is_token(ngx_str_t value, ngx_str_t expected)
{
    ngx_int_t  rc;
    ngx_str_t  token;

    rc = ngx_agent_bearer(&value, &token);

    ok(rc == NGX_OK && token.len == expected.len
       && memcmp(token.data, expected.data, token.len) == 0,
       "\"%.*s\" has a token", (int) value.len, value.data);
}


static void
is(ngx_str_t value, ngx_int_t expected)
{
    ngx_str_t  token;

    ok(ngx_agent_bearer(&value, &token) == expected, "\"%.*s\" is %s",
       (int) value.len, value.data,
       expected == NGX_DECLINED ? "none" : "malformed");
}


static void
test_length(void)
{
    u_char     text[7 + NGX_AGENT_BEARER_MAX + 1];
    ngx_str_t  value, token;

    memcpy(text, "Bearer ", 7);
    memset(text + 7, 'a', sizeof(text) - 7);

    value.data = text;
    value.len = sizeof(text) - 1;
    ok(ngx_agent_bearer(&value, &token) == NGX_OK
       && token.len == NGX_AGENT_BEARER_MAX, "as long as may be");

    value.len++;
    ok(ngx_agent_bearer(&value, &token) == NGX_ERROR, "one byte longer");
}


static void
test_hash(void)
{
    u_char     hash[NGX_AGENT_KEY_HASH];
    ngx_str_t  abc = S("abc");

    /* FIPS 180-4's own example */
    static const u_char  expected[] =
        "\xba\x78\x16\xbf\x8f\x01\xcf\xea\x41\x41\x40\xde\x5d\xae\x22\x23"
        "\xb0\x03\x61\xa3\x96\x17\x7a\x9c\xb4\x10\xff\x61\xf2\x00\x15\xad";

    ok(ngx_agent_bearer_hash(&abc, hash) == NGX_OK
       && memcmp(hash, expected, sizeof(hash)) == 0, "the hash");

    ngx_agent_bearer_exit();
    memset(hash, 0, sizeof(hash));
    ok(ngx_agent_bearer_hash(&abc, hash) == NGX_OK
       && memcmp(hash, expected, sizeof(hash)) == 0, "the same after an exit");
    ngx_agent_bearer_exit();
}


int
main(void)
{
    ngx_str_t  token;

    is_token(S("Bearer abc"), S("abc"));
    is_token(S("bearer   abc=="), S("abc=="));
    is_token(S("BEARER aZ09-._~+/="), S("aZ09-._~+/="));

    ok(ngx_agent_bearer(NULL, &token) == NGX_DECLINED, "no header is none");
    is(S(""), NGX_DECLINED);
    is(S("Bear"), NGX_DECLINED);
    is(S("Basic YTpi"), NGX_DECLINED);
    is(S("Bearerish abc"), NGX_DECLINED);

    is(S("Bearer"), NGX_ERROR);
    is(S("Bearer "), NGX_ERROR);
    is(S("Bearer\tabc"), NGX_ERROR);
    is(S("Bearer =="), NGX_ERROR);
    is(S("Bearer abc def"), NGX_ERROR);
    is(S("Bearer abc "), NGX_ERROR);
    is(S("Bearer a=b"), NGX_ERROR);
    is(S("Bearer \"abc\""), NGX_ERROR);
    is(S("Bearer abc,Bearer def"), NGX_ERROR);
    is(S("Bearer a\0b"), NGX_ERROR);
    is(S("Bearer \xc3\xa4"), NGX_ERROR);

    test_length();
    test_hash();

    return done_testing();
}
