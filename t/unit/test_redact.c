
/*
 * A secret is found as it is, escaped, escaped twice, folded and cut off; what
 * is around it stays, and JSON stays JSON.
 */

#include "stub.h"
#include "ngx_agent_json.h"
#include "ngx_agent_redact.h"


static ngx_pool_t  *pool;


static void
text(const char *secret, const char *given, ngx_uint_t cut,
    const char *expected)
{
    ngx_str_t            s, t;
    ngx_agent_redact_t  *r;

    s = (ngx_str_t) { strlen(secret), (u_char *) secret };
    t = (ngx_str_t) { strlen(given), (u_char *) given };

    r = ngx_agent_redact_create(pool, &s);

    ok(ngx_agent_redact_text(r, pool, &t, cut) == NGX_OK
       && t.len == strlen(expected) && memcmp(t.data, expected, t.len) == 0,
       "\"%s\" without \"%s\" is \"%s\": %.*s", given, secret, expected,
       (int) t.len, t.data);
}


static void
json(const char *secret, const char *given, const char *expected)
{
    const char          *why;
    ngx_str_t            s, t;
    ngx_agent_redact_t  *r;

    s = (ngx_str_t) { strlen(secret), (u_char *) secret };
    t = (ngx_str_t) { strlen(given), (u_char *) given };

    r = ngx_agent_redact_create(pool, &s);

    ok(ngx_agent_redact_json(r, pool, &t) == NGX_OK
       && t.len == strlen(expected) && memcmp(t.data, expected, t.len) == 0,
       "%s without \"%s\" is %s: %.*s", given, secret, expected,
       (int) t.len, t.data);
    ok(ngx_agent_json_read(&t, NULL, NULL, &why) == NGX_OK, "it is JSON");
}


static void
plain(void)
{
    text("hunter2", "the password is hunter2.", 0,
         "the password is [redacted].");
    text("hunter2", "hunter2", 0, "[redacted]");
    text("hunter2", "hunter2hunter2 hunter2", 0,
         "[redacted][redacted] [redacted]");
    text("hunter2", "hunterhunter2", 0, "hunter[redacted]");
    text("hunter2", "hunter", 0, "hunter");
    text("hunter2", "", 0, "");
    text(" \thunter2\n", "is hunter2 it", 0, "is [redacted] it");
    text("abc", "abc", 0, "abc");
    text(" abc ", "abc", 0, "abc");
    text("", "abc", 0, "abc");
    text("a b c", "abc a b c", 0, "abc [redacted]");
    text("aabaaa", "aabaabaaabaaa", 0, "aab[redacted]baaa");
    text("line1\nline2", "it: line1 line2!", 0, "it: [redacted]!");
    text("line1\nline2", "it: line1line2!", 0, "it: [redacted]!");
    text("0123456789abcdef", "01234567\n 89abcdef", 0, "[redacted]");
    text("gr\xc3\xbc\xc3\x9f" "e", "x gr\xc3\xbc\xc3\x9f" "e y", 0,
         "x [redacted] y");
    text("redacted", "was redacted", 0, "was [redacted]");
}


static void
escaped(void)
{
    text("a\"b\\c", "{\"key\": \"a\\\"b\\\\c\"}", 0,
         "{\"key\": \"[redacted]\"}");
    text("a\"b\\c", "{\"k\": \"{\\\"k\\\": \\\"a\\\\\\\"b\\\\\\\\c\\\"}\"}", 0,
         "{\"k\": \"{\\\"k\\\": \\\"[redacted]\\\"}\"}");
    text("hunter2", "\\u0068\\u0075nter2", 0, "[redacted]");
    text("gr\xc3\xbc\xc3\x9f" "e", "\"gr\\u00fc\\u00DFe\"", 0,
         "\"[redacted]\"");
    text("\xf0\x9f\x94\x91 key", "\\ud83d\\udd11 key", 0, "[redacted]");
    text("line1\nline2", "line1\\nline2", 0, "[redacted]");
    text("a/b/c", "a\\/b\\/c", 0, "[redacted]");
    text("hunter2", "\\hunter2\\", 0, "\\[redacted]\\");
    text("hunter2", "\\u00", 0, "\\u00");
    text("hunter2", "\\ud83d\\u0020hunter2", 0, "\\ud83d\\u0020[redacted]");
}


static void
cut_off(void)
{
    text("hunter2", "it said hunte", 1, "it said [redacted]");
    text("hunter2", "it said hunte", 0, "it said hunte");
    text("hunter2", "it said hun", 1, "it said hun");
    text("hunter2", "hunter2 and hunt", 1, "[redacted] and [redacted]");

    /* in the middle of an escape, which then says nothing yet */

    text("pass\"word", "x pass\\", 1, "x [redacted]");
    text("pass\"word", "x pass\\\"wo", 1, "x [redacted]");
    text("pass\"word", "x pass\\\\\\", 1, "x [redacted]");
    text("pass\"word", "x pass\\", 0, "x pass\\");
    text("hunt\xc3\xbc", "x hunt\\u00", 1, "x [redacted]");
    text("hunt\xf0\x9f\x94\x91", "x hunt\\ud83d", 1, "x [redacted]");
    text("hunt\xf0\x9f\x94\x91", "x hunt\\ud83d\\udd", 1, "x [redacted]");
    text("hunt\xf0\x9f\x94\x91", "x hunt\\ud83e", 1, "x [redacted]");
    text("hunter2", "x hunt\\u0041", 1, "x hunt\\u0041");

    /* which begins with what stands in its middle, too */

    text("abcd\"abcd\"efg", "x abcd\\\"abcd", 1, "x [redacted]");
    text("abcdabcdabcde", "x abcdabcd", 1, "x [redacted]");
}


/* Wherever a text is cut, no beginning of the secret stays that counts. */

static void
cut_anywhere(void)
{
    size_t               i, n;
    u_char              *copy;
    ngx_str_t            s, t;
    ngx_uint_t           bad;
    ngx_agent_redact_t  *r;

    static const char   *given[] = {
        "so: WxYz9\"\\\n\xc3\xbc/WxYz9 ok",
        "so: WxYz9\\\"\\\\\\n\\u00fc\\/WxYz9 ok",
        "so: WxYz9\\\\\\\"\\\\\\\\\\\\n\\\\u00fc\\\\/WxYz9 ok"
    };

    s = S("WxYz9\"\\\n\xc3\xbc/WxYz9");

    for (i = 0; i < 3; i++) {
        bad = 0;

        for (n = 0; n <= strlen(given[i]); n++) {
            copy = malloc(n + 1);
            memcpy(copy, given[i], n);
            t = (ngx_str_t) { n, copy };

            r = ngx_agent_redact_create(pool, &s);
            (void) ngx_agent_redact_text(r, pool, &t, 1);

            if (memmem(t.data, t.len, "WxYz", 4)) {
                bad++;
            }

            free(copy);
        }

        ok(bad == 0, "escaped %d times: never a beginning of it", (int) i);
    }
}


static void
documents(void)
{
    json("hunter2", "{\"content\":\"pw=hunter2\"}",
         "{\"content\":\"pw=[redacted]\"}");
    json("hunter2", "{}", "{}");
    json("1234", "{\"a\": 1234, \"b\": -12345.5, \"c\": [1, 234]}",
         "{\"a\": \"[redacted]\", \"b\": \"[redacted]\", \"c\": [1, 234]}");
    json("true", "[true,false]", "[\"[redacted]\",false]");
    json("\"path\"", "{\"path\":\"\\\"path\\\"\"}",
         "{\"path\":\"[redacted]\"}");
    json("path", "{\"path\":\"a\"}", "{\"[redacted]\":\"a\"}");
    json("nabcd", "[\"\\nabcd\", \"nabcd\"]", "[\"\\nabcd\", \"[redacted]\"]");
    json("a\"b\\c", "{\"content\":\"{\\\"k\\\":\\\"a\\\\\\\"b\\\\\\\\c\\\"}\"}",
         "{\"content\":\"{\\\"k\\\":\\\"[redacted]\\\"}\"}");
    json("reda", "[\"reda\\n\\\\\",\"reda\"]",
         "[\"[[[redacted]cted]cted]\\n\\\\\",\"[redacted]\"]");
    json("a,\"b", "[\"a\",\"b\"]", "[\"a\",\"b\"]");
}


/* No text makes it slow, and a long secret is taken out whole. */

static void
large(void)
{
    size_t               n;
    u_char              *p;
    ngx_str_t            s, t;
    ngx_agent_redact_t  *r;

    n = 4 * 1024 * 1024;
    p = malloc(n);
    memset(p, 'a', n);

    s = (ngx_str_t) { 1 << 20, malloc(1 << 20) };
    memset(s.data, 'a', s.len);
    s.data[s.len - 1] = 'b';
    s.data[1000] = 'b';

    r = ngx_agent_redact_create(pool, &s);
    t = (ngx_str_t) { n, p };

    ok(ngx_agent_redact_text(r, pool, &t, 0) == NGX_OK && t.len == n,
       "four million letters that are nearly it");

    memcpy(p + 100, s.data, s.len);
    t = (ngx_str_t) { n, p };

    ok(ngx_agent_redact_text(r, pool, &t, 0) == NGX_OK
       && t.len == n - s.len + sizeof(NGX_AGENT_REDACT_MARK) - 1,
       "a secret of a megabyte");

    ngx_agent_redact_wipe(r);
    t = (ngx_str_t) { n, p };

    ok(ngx_agent_redact_text(r, pool, &t, 0) == NGX_OK && t.len == n,
       "wiped, it finds nothing");

    free(p);
    free(s.data);
}


static void
no_memory(void)
{
    ngx_str_t            s, t;
    ngx_uint_t           i;
    ngx_agent_redact_t  *r;

    s = S("hunter2");

    for (i = 1; i <= 4; i++) {
        stub_fail = i;
        ok(ngx_agent_redact_create(pool, &s) == NULL, "allocation %d fails",
           (int) i);
    }

    stub_fail = 0;
    r = ngx_agent_redact_create(pool, &s);

    t = S("hunter2");
    stub_fail = 1;
    ok(ngx_agent_redact_text(r, pool, &t, 0) == NGX_ERROR, "no memory: text");

    t = S("[\"hunter2\"]");
    stub_fail = 1;
    ok(ngx_agent_redact_json(r, pool, &t) == NGX_ERROR, "no memory: JSON");

    stub_fail = 0;
}


int
main(void)
{
    pool = stub_pool();

    plain();
    escaped();
    cut_off();
    cut_anywhere();
    documents();
    large();
    no_memory();

    ngx_destroy_pool(pool);

    return done_testing();
}
