
/* Prefer and Idempotency-Key */

#include "stub.h"
#include "ngx_agent_prefer.h"


static void
prefer(ngx_str_t text, int async, int wait)
{
    u_char              *copy;
    ngx_str_t            value;
    ngx_agent_prefer_t   p;

    /* on the heap, so that ASan sees a byte too many */
    copy = malloc(text.len);
    memcpy(copy, text.data, text.len);
    value.data = copy;
    value.len = text.len;

    memset(&p, 0, sizeof(p));
    ngx_agent_prefer_read(&value, &p);

    ok(p.async == (unsigned) async
       && (wait < 0 ? !p.has_wait
                    : p.has_wait && p.wait == (ngx_uint_t) wait),
       "%.*s: async %d, wait %d", (int) text.len, text.data, async, wait);

    free(copy);
}


static void
test_prefer(void)
{
    prefer(S("respond-async"), 1, -1);
    prefer(S("Respond-Async"), 1, -1);
    prefer(S("wait=10"), 0, 10);
    prefer(S("WAIT = 10"), 0, 10);
    prefer(S("wait=\"10\""), 0, 10);
    prefer(S("wait=0"), 0, 0);
    prefer(S("wait=3600"), 0, 3600);
    prefer(S("wait=3601"), 0, 3600);
    prefer(S("wait=99999999999999999999999999"), 0, 3600);
    prefer(S("respond-async, wait=5"), 1, 5);
    prefer(S("wait=5,respond-async"), 1, 5);
    prefer(S(",, ,respond-async,,"), 1, -1);
    prefer(S("\trespond-async\t"), 1, -1);
    prefer(S("respond-async; a=b; c; ;d=\"x, wait=3\", wait=4"), 1, 4);
    prefer(S("respond-async;"), 1, -1);
    prefer(S("foo=\"a,b\\\"respond-async\", wait=7"), 0, 7);
    prefer(S("return=minimal; respond-async"), 0, -1);
    prefer(S("wait=1; wait=9"), 0, 1);

    /* the first counts, also when it makes no sense */
    prefer(S("wait=1, wait=9"), 0, 1);
    prefer(S("wait=x, wait=9"), 0, -1);
    prefer(S("respond-async=no, respond-async"), 0, -1);

    /* an empty value is none */
    prefer(S("respond-async="), 1, -1);
    prefer(S("respond-async=\"\""), 1, -1);
    prefer(S("wait="), 0, -1);

    /* what makes no sense is passed over */
    prefer(S(""), 0, -1);
    prefer(S("   "), 0, -1);
    prefer(S("wait"), 0, -1);
    prefer(S("wait=-1"), 0, -1);
    prefer(S("wait=1.5"), 0, -1);
    prefer(S("wait=1s"), 0, -1);
    prefer(S("respond-async x"), 0, -1);
    prefer(S("respond-async x, wait=2"), 0, 2);
    prefer(S("x \"a, respond-async\", wait=2"), 0, 2);
    prefer(S("=, wait=2"), 0, 2);
    prefer(S("@@, wait=2"), 0, 2);
    prefer(S("wait=\"2"), 0, -1);
    prefer(S("wait=\"2\\"), 0, -1);
    prefer(S("a=\""), 0, -1);
    prefer(S("a\0, wait=2"), 0, 2);
    prefer(S("\xff, wait=2"), 0, 2);
}


static void
test_headers(void)
{
    ngx_str_t           value;
    ngx_agent_prefer_t  p;

    memset(&p, 0, sizeof(p));

    value = S("wait=3");
    ngx_agent_prefer_read(&value, &p);
    value = S("wait=4, respond-async");
    ngx_agent_prefer_read(&value, &p);

    ok(p.async && p.has_wait && p.wait == 3, "several headers are one list");
}


static void
key(ngx_str_t text, const char *expected, const char *why)
{
    u_char       buf[NGX_AGENT_KEY_MAX], *copy;
    ngx_str_t    value, k;
    const char  *got;

    copy = malloc(text.len);
    memcpy(copy, text.data, text.len);
    value.data = copy;
    value.len = text.len;

    got = ngx_agent_prefer_key(&value, buf, &k);

    if (why) {
        ok(got && strcmp(got, why) == 0, "key %.*s: %s", (int) text.len,
           text.data, got ? got : "good");

    } else {
        ok(got == NULL && k.len == strlen(expected)
           && memcmp(k.data, expected, k.len) == 0, "key %.*s: %s",
           (int) text.len, text.data, got ? got : expected);
    }

    free(copy);
}


static void
test_key(void)
{
    u_char     text[600];
    ngx_str_t  s;

    static const char  visible[] =
                        "may have visible ASCII characters only, and no space";

    key(S("abc"), "abc", NULL);
    key(S("\"abc\""), "abc", NULL);
    key(S(" \"abc\"\t"), "abc", NULL);
    key(S("8e03978e-40d5-43dd-bc93-6894a57f9324"),
        "8e03978e-40d5-43dd-bc93-6894a57f9324", NULL);
    key(S("\"a\\\"b\\\\c\""), "a\"b\\c", NULL);
    key(S("a\"b\\c"), "a\"b\\c", NULL);
    key(S("a,b;c=d"), "a,b;c=d", NULL);
    key(S("~!"), "~!", NULL);

    key(S(""), NULL, "is empty");
    key(S("  "), NULL, "is empty");
    key(S("\"\""), NULL, "is empty");
    key(S("\""), NULL, "has no closing quote");
    key(S("\"abc"), NULL, "has no closing quote");
    key(S("\"abc\\\""), NULL, "has no closing quote");
    key(S("\"abc\\"), NULL, "has a backslash that escapes nothing");
    key(S("\"a\\bc\""), NULL, "has a backslash that escapes nothing");
    key(S("\"abc\";a=1"), NULL, "has something behind its closing quote");
    key(S("\"abc\", \"def\""), NULL, "has something behind its closing quote");
    key(S("a b"), NULL, visible);
    key(S("\"a b\""), NULL, visible);
    key(S("a, b"), NULL, visible);
    key(S("a\tb"), NULL, visible);
    key(S("a\x7f"), NULL, visible);
    key(S("a\0b"), NULL, visible);
    key(S("\xc3\xa9"), NULL, visible);

    memset(text, 'k', sizeof(text));
    s.data = text;
    s.len = 255;
    text[255] = '\0';
    key(s, (char *) text, NULL);

    text[255] = 'k';
    s.len = 256;
    key(s, NULL, "is longer than 255 bytes");

    /* escapes do not count */
    memset(text, '\\', 512);
    text[0] = '"';
    text[511] = '"';
    s.len = 512;
    memset(text + 512, 0, 1);
    {
        u_char       buf[NGX_AGENT_KEY_MAX];
        ngx_str_t    k;
        const char  *why;

        why = ngx_agent_prefer_key(&s, buf, &k);
        ok(why == NULL && k.len == 255 && k.data[254] == '\\',
           "255 escaped bytes: %s", why ? why : "good");
    }
}


int
main(void)
{
    test_prefer();
    test_headers();
    test_key();

    return done_testing();
}
