
/* names, paths and Content-Disposition */

#include "stub.h"
#include "ngx_agent_name.h"
#include "ngx_agent_utf8.h"


typedef struct {
    ngx_str_t    text;
    const char  *why;
} name_case_t;

#define C(literal)  { sizeof(literal) - 1, (u_char *) literal }


static void
check(const char *what, const char *(*fn)(ngx_str_t *), name_case_t *c)
{
    ngx_uint_t   i;
    const char  *why;

    for (i = 0; c[i].text.data; i++) {
        why = fn(&c[i].text);

        ok(why == c[i].why || (why && c[i].why && !strcmp(why, c[i].why)),
           "%s %d: %s", what, (int) i, why ? why : "good");
    }
}


static void
test_checks(void)
{
    u_char     text[256];
    ngx_str_t  s;

    static name_case_t  names[] = {
        { C("a.txt"), NULL },
        { C("..."), NULL },
        { C(".hidden"), NULL },
        { C("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"), NULL },
        { C(""), "is empty" },
        { C("."), "is \".\" or \"..\"" },
        { C(".."), "is \".\" or \"..\"" },
        { C("a/b"), "has a slash in it" },
        { C("a\\b"), "has a backslash in it" },
        { C("a\0b"), "has a control character in it" },
        { C("a\nb"), "has a control character in it" },
        { C("a\x7f"), "has a control character in it" },
        { C("a\xc2\x85"), "has a control character in it" },
        { C("a\xff"), "is not valid UTF-8" },
        { C("a\xc2"), "is not valid UTF-8" },
        { { 0, NULL }, NULL }
    };

    static name_case_t  paths[] = {
        { C(""), NULL },
        { C("a"), NULL },
        { C("a/"), NULL },
        { C("a/b/c.d"), NULL },
        { C("a/.../b"), NULL },
        { C("/"), "is absolute" },
        { C("/etc"), "is absolute" },
        { C("a//b"), "has two slashes in a row" },
        { C("a//"), "has two slashes in a row" },
        { C("."), "has a \".\" or \"..\" segment" },
        { C("./a"), "has a \".\" or \"..\" segment" },
        { C("../a"), "has a \".\" or \"..\" segment" },
        { C("a/.."), "has a \".\" or \"..\" segment" },
        { C("a/../b"), "has a \".\" or \"..\" segment" },
        { C("a\\..\\b"), "has a backslash in it" },
        { C("a\x1f/"), "has a control character in it" },
        { C("a/\xed\xa0\x80"), "is not valid UTF-8" },
        { { 0, NULL }, NULL }
    };

    check("name", ngx_agent_name_check, names);
    check("path", ngx_agent_path_check, paths);

    memset(text, 'a', sizeof(text));
    s.data = text;
    s.len = 255;
    ok(!ngx_agent_name_check(&s) && !ngx_agent_path_check(&s), "255 bytes");

    s.len = 256;
    ok(!strcmp(ngx_agent_name_check(&s), "is longer than 255 bytes")
       && !strcmp(ngx_agent_path_check(&s), "is longer than 255 bytes"),
       "256 bytes");
}


static void
split(const char *path, const char *dir, const char *name)
{
    ngx_str_t    s, d, n;
    const char  *why;

    s.data = (u_char *) path;
    s.len = strlen(path);

    why = ngx_agent_path_split(&s, &d, &n);

    if (name == NULL) {
        ok(why && !strcmp(why, dir), "split %s: %s", path, why ? why : "-");
        return;
    }

    ok(why == NULL && d.len == strlen(dir) && n.len == strlen(name)
       && !memcmp(d.data, dir, d.len) && !memcmp(n.data, name, n.len),
       "split %s", path);
}


static void
disposition(ngx_str_t name, const char *expected)
{
    ngx_str_t    value;
    ngx_pool_t  *pool;

    pool = stub_pool();

    ok(ngx_agent_name_disposition(pool, &name, &value) == NGX_OK
       && value.len == strlen(expected)
       && !memcmp(value.data, expected, value.len), "%s", expected);

    stub_fail = 1;
    ok(ngx_agent_name_disposition(pool, &name, &value) == NGX_ERROR,
       "disposition: no memory");

    ngx_destroy_pool(pool);
}


static void
test_utf8(void)
{
    size_t    n, len;
    u_char    c[4], *end;
    uint32_t  code, bad;

    for (code = 1, bad = 0; code < 0x110000; code++) {
        if (code == 0xd800) {
            code = 0xe000;
        }

        end = ngx_agent_utf8_write(c, code);
        len = end - c;

        bad += !ngx_agent_utf8_valid(c, len)
               || ngx_agent_utf8_next(c, end, &n) != NGX_OK || n != len;

        if (len > 1) {
            bad += ngx_agent_utf8_valid(c, len - 1);
            bad += ngx_agent_utf8_next(c, end - 1, &n) != NGX_AGAIN;
        }
    }
    ok(bad == 0, "utf-8: every character, whole and cut");

    /* every pair of bytes at the start, against the table of RFC 3629 */

    for (code = 0, bad = 0; code < 0x10000; code++) {
        c[0] = code >> 8;
        c[1] = code & 0xff;
        c[2] = c[3] = 0x80;
        len = c[0] < 0x80 ? 1 : c[0] < 0xc2 ? 0 : c[0] < 0xe0 ? 2
              : c[0] < 0xf0 ? 3 : c[0] < 0xf5 ? 4 : 0;

        if (len > 1 && (c[1] < 0x80 || c[1] > 0xbf
            || (c[0] == 0xe0 && c[1] < 0xa0) || (c[0] == 0xed && c[1] > 0x9f)
            || (c[0] == 0xf0 && c[1] < 0x90) || (c[0] == 0xf4 && c[1] > 0x8f)))
        {
            len = 0;
        }

        bad += (ngx_agent_utf8_next(c, c + 4, &n) == NGX_OK ? n : 0) != len;
    }
    ok(bad == 0, "utf-8: 65536 starts against the table");

    ok(!ngx_agent_utf8_valid((u_char *) "a\0", 2), "utf-8: no NUL");
}


int
main(void)
{
    test_checks();

    split("a.txt", "", "a.txt");
    split("./a.txt", "", "a.txt");
    split("src/a.txt", "src/", "a.txt");
    split("./a/b/c", "a/b/", "c");
    split("", "is empty", NULL);
    split("./", "ends in a slash, so it names no file", NULL);
    split("a/", "ends in a slash, so it names no file", NULL);
    split(".", "is \".\" or \"..\"", NULL);
    split("a/..", "is \".\" or \"..\"", NULL);
    split("../a", "has a \".\" or \"..\" segment", NULL);
    split("/etc/passwd", "is absolute", NULL);
    split(".//a", "is absolute", NULL);
    split("a//b", "has two slashes in a row", NULL);
    split("a/b\\c", "has a backslash in it", NULL);

    disposition(S("a.txt"), "attachment; filename=\"a.txt\"");
    disposition(S("a b;c'.txt"), "attachment; filename=\"a b;c'.txt\"");
    disposition(S("a\"b.txt"), "attachment; filename=\"a_b.txt\"; "
                "filename*=UTF-8''a%22b.txt");
    disposition(S("50%.txt"), "attachment; filename=\"50_.txt\"; "
                "filename*=UTF-8''50%25.txt");
    disposition(S("\xe2\x82\xac\xc3\xa9.txt"), "attachment; "
                "filename=\"__.txt\"; filename*=UTF-8''%E2%82%AC%C3%A9.txt");
    disposition(S("a\r\nX: y"), "attachment; filename=\"a__X: y\"; "
                "filename*=UTF-8''a%0D%0AX%3A%20y");

    test_utf8();

    return done_testing();
}
