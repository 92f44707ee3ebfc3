
/* multipart: every split gives what the whole gives; all limits, all texts */

#include "stub.h"
#include "ngx_agent_multipart.h"


static char       out[65536];
static size_t     out_len;
static int        empty_data;
static ngx_int_t  begin_rc, data_rc, end_rc;


static void
say(const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    out_len += vsnprintf(out + out_len, sizeof(out) - out_len, fmt, args);
    va_end(args);
}


static ngx_int_t
begin(void *ctx, ngx_agent_multipart_part_t *part)
{
    say("[%.*s", (int) part->name.len, part->name.data);

    if (part->filename.data) {
        say(" f=%.*s", (int) part->filename.len, part->filename.data);
    }

    if (part->content_type.len) {
        say(" t=%.*s", (int) part->content_type.len, part->content_type.data);
    }

    say(":");

    return begin_rc;
}


static ngx_int_t
data(void *ctx, u_char *p, size_t n)
{
    empty_data += (n == 0);
    memcpy(out + out_len, p, n);
    out_len += n;

    return data_rc;
}


static ngx_int_t
end(void *ctx)
{
    say("]");

    return end_rc;
}


static const ngx_agent_multipart_cb_t  cb = { begin, data, end };
static const char                     *why;


static ngx_int_t
feed(const char *p, size_t n, size_t first, size_t second)
{
    u_char                 *copy;
    size_t                  i, len;
    ngx_int_t               rc;
    ngx_str_t               type;
    ngx_pool_t             *pool;
    ngx_agent_multipart_t  *m;

    pool = stub_pool();
    out_len = 0;
    rc = NGX_OK;

    type = S("multipart/form-data; boundary=BB");
    m = ngx_agent_multipart_create(pool, &type, &cb, NULL, &why);

    for (i = 0; i < n && rc == NGX_OK; i += len) {

        len = (i == 0) ? first : (i == first) ? second : n;
        len = ngx_min(len, n - i);

        if (len == 0) {
            len = 1;
        }

        copy = malloc(len);
        memcpy(copy, p + i, len);
        rc = ngx_agent_multipart_feed(m, copy, len);
        free(copy);
    }

    if (rc != NGX_OK
        && ngx_agent_multipart_feed(m, (u_char *) "x", 1) != rc)
    {
        rc = -100;
    }

    why = ngx_agent_multipart_why(m);
    out[out_len] = '\0';
    ngx_destroy_pool(pool);

    return rc;
}


static void
splits(const char *what, const char *p, size_t n, const char *expected,
    ngx_int_t rc)
{
    int     bad;
    size_t  i, j;

    bad = 0;

    for (i = 0; i <= n; i++) {
        for (j = 0; i + j <= n; j++) {
            bad += feed(p, n, i, j) != rc || strcmp(out, expected) != 0;
        }
    }

    ok(bad == 0, "every split in three: %s", what);

    if (bad) {
        rc = feed(p, n, n, 0);
        printf("# %d %s %s\n", (int) rc, out, why ? why : "");
    }
}

#define SPLITS(what, text, expected, rc)                                     \
    splits(what, text, sizeof(text) - 1, expected, rc)

#define H  "Content-Disposition: form-data; name=\"a\"\r\n"


static void
test_splits(void)
{
    SPLITS("one part", "--BB\r\n" H "\r\nhello\r\n--BB--\r\n", "[a:hello]",
           NGX_DONE);
    SPLITS("two parts", "--BB\r\n" H "\r\nx\r\n--BB\r\n" H "\r\ny\r\n--BB--",
           "[a:x][a:y]", NGX_DONE);
    SPLITS("preamble, epilogue", "hi\r\n-\r\n--B\r\n--BB \t\r\n" H "\r\nx"
           "\r\n--BB--\r\nbye\r\n--BB\r\n", "[a:x]", NGX_DONE);
    SPLITS("empty content", "--BB\r\n" H "\r\n\r\n--BB--", "[a:]", NGX_DONE);
    SPLITS("no content at all", "--BB\r\n" H "\r\n--BB--", "[a:]", NGX_DONE);
    SPLITS("almost a boundary", "--BB\r\n" H "\r\n\r\n--B\r\n-\r\r\n\r\n--"
           "\r--BB\n--BB\r\n--B\r\n--BB--",
           "[a:\r\n--B\r\n-\r\r\n\r\n--\r--BB\n--BB\r\n--B]", NGX_DONE);
    SPLITS("starts like a boundary", "--BB\r\n" H "\r\n--B!\r\n--BB--",
           "[a:--B!]", NGX_DONE);
    SPLITS("unfinished", "--BB\r\n" H "\r\nhello\r\n--B", "[a:hello", NGX_OK);
    SPLITS("a broken boundary line", "--BB\r\n" H "\r\nx\r\n--BBC\r\n",
           "[a:x]", NGX_DECLINED);
    SPLITS("file", "--BB\r\ncontent-disposition:form-data;name=a;"
           "filename=\"b \\\"c\\\\d\\e;.txt\"\r\nContent-Type: text/plain \r\n"
           "X: y\r\n\r\nx\r\n--BB--", "[a f=b \"c\\d\\e;.txt t=text/plain:x]",
           NGX_DONE);
    SPLITS("filename*", "--BB\r\nContent-Disposition: form-data; name=a; "
           "filename*=utf-8'en'%e2%82%AC%20x; filename=\"no\"\r\n\r\n"
           "\r\n--BB--", "[a f=\xe2\x82\xac x:]", NGX_DONE);
    SPLITS("folded line", "--BB\r\nContent-Disposition: form-data;\r\n\t"
           "name=\"a\"\r\n\r\nx\r\n--BB--", "[a:x]", NGX_DONE);
}


static void
one_header(const char *header, const char *expected)
{
    char       text[8192];
    ngx_int_t  rc;

    snprintf(text, sizeof(text), "--BB\r\n%s\r\n\r\n--BB--", header);
    rc = feed(text, strlen(text), strlen(text), 0);

    if (expected[0] == '[') {
        ok(rc == NGX_DONE && !strcmp(out, expected), "%s", expected);

    } else {
        ok(rc == NGX_DECLINED && out_len == 0 && !strcmp(why, expected),
           "%s", expected);
    }

    if (rc == NGX_DECLINED && expected[0] == '[') {
        printf("# %s\n", why);
    }
}


static void
test_headers(void)
{
    one_header("", "has a part with no name in its Content-Disposition");
    one_header("Content-Type: a/b\r\n",
               "has a part with no name in its Content-Disposition");
    one_header("Content-Disposition: form-data\r\n",
               "has a part with no name in its Content-Disposition");
    one_header("Content-Disposition: attachment; name=a\r\n",
               "has a part whose Content-Disposition is not form-data");
    one_header("Content-Disposition: form-data; name=\"a\r\n",
               "has a part whose Content-Disposition cannot be read");
    one_header("Content-Disposition: form-data; name\r\n",
               "has a part whose Content-Disposition cannot be read");
    one_header("Content-Disposition: form-data; name=\"a\"x=y\r\n",
               "has a part whose Content-Disposition cannot be read");
    one_header("no colon\r\n",
               "has a part with a header line that has no colon");
    one_header("X: a\x01\r\n" H, "has a control character in a part's header");
    one_header("X: a\rb\r\n" H, "has a control character in a part's header");
    one_header("X: a\nb\r\n" H, "has a control character in a part's header");
    one_header("X: a\x7f\r\n" H, "has a control character in a part's header");

    one_header("Content-Disposition: form-data; name=\"\"; filename=\"\"\r\n",
               "[ f=:]");
    one_header("Content-Disposition: form-data;; name=a ; \r\n", "[a:]");
    one_header("Content-Disposition: form-data; name=a; "
               "filename*=latin1''x; filename=y\r\n", "[a f=y:]");
    one_header("Content-Disposition: form-data; name=a; "
               "filename*=utf-8''%4; filename=y\r\n", "[a f=y:]");
    one_header("Content-Disposition: form-data; name=a; filename*=utf-8'x\r\n",
               "[a:]");
    one_header("Content-Disposition: form-data; name=a; filename*=x\r\n",
               "[a:]");
    one_header("Content-Disposition: form-data; name=a; filename=y; "
               "filename*=UTF-8''z\r\n", "[a f=z:]");
}


static void
test_limits(void)
{
    int        i;
    char       text[NGX_AGENT_MULTIPART_PARTS * 80 + 200], *p, header[5000];
    ngx_int_t  rc;

    for (i = 0, p = text; i < NGX_AGENT_MULTIPART_PARTS; i++) {
        p += sprintf(p, "--BB\r\n" H "\r\nx\r\n");
    }

    strcpy(p, "--BB--");
    rc = feed(text, strlen(text), 1000, 1);
    ok(rc == NGX_DONE && out_len == NGX_AGENT_MULTIPART_PARTS * 5,
       "128 parts");

    strcpy(p, "--BB\r\n" H "\r\nx\r\n--BB--");
    rc = feed(text, strlen(text), 1000, 1);
    ok(rc == NGX_DECLINED && !strcmp(why, "has more than 128 parts"), "%s",
       why);

    for (i = 4090; i < 4100; i++) {

        /* H, "X: ...", CR LF, CR LF: i bytes in all */
        p = header + sprintf(header, H "X: ");
        memset(p, 'x', i - (p - header) - 4);
        strcpy(header + i - 4, "\r\n");

        if (i == 4096) {
            one_header(header, "[a:]");
        }

        if (i == 4097) {
            one_header(header,
                       "has a part whose header is larger than 4096 bytes");
        }
    }
}


static void
type(ngx_str_t value, const char *expected)
{
    ngx_pool_t             *pool;
    ngx_agent_multipart_t  *m;

    pool = stub_pool();
    m = ngx_agent_multipart_create(pool, &value, &cb, NULL, &why);

    ok(expected ? (m == NULL && why && !strcmp(why, expected))
                : (m != NULL && why == NULL),
       "type %.60s: %s", value.data, why ? why : "good");

    ngx_destroy_pool(pool);
}


static void
test_type(void)
{
    char         text[300];
    ngx_str_t    s;
    ngx_pool_t  *pool;

    type(S("multipart/form-data; boundary=x"), NULL);
    type(S("Multipart/Form-Data ; charset=utf-8; Boundary=\"x y\""), NULL);
    type(S("multipart/form-data;boundary=\"a\\\"b\""), NULL);
    type(S(""), "is not multipart/form-data");
    type(S("application/json"), "is not multipart/form-data");
    type(S("multipart/form-dataX; boundary=x"), "is not multipart/form-data");
    type(S("multipart/mixed; boundary=x"), "is not multipart/form-data");
    type(S("multipart/form-data"), "has no boundary in its Content-Type");
    type(S("multipart/form-data;"), "has no boundary in its Content-Type");
    type(S("multipart/form-data; boundary="),
         "has no boundary in its Content-Type");
    type(S("multipart/form-data; boundary=\"\""),
         "has no boundary in its Content-Type");
    type(S("multipart/form-data; boundary=\"x"),
         "has a Content-Type that cannot be read");
    type(S("multipart/form-data; boundary"),
         "has a Content-Type that cannot be read");
    type(S("multipart/form-data; boundary=a\x01"),
         "has a boundary with characters that none may have");
    type(S("multipart/form-data; boundary=\xc3\xa9"),
         "has a boundary with characters that none may have");

    strcpy(text, "multipart/form-data; boundary=");
    memset(text + 30, 'b', 202);
    s.data = (u_char *) text;
    s.len = 230;
    type(s, NULL);
    s.len = 231;
    type(s, "has a boundary of more than 200 bytes");

    pool = stub_pool();
    s.len = 31;
    stub_fail = 1;
    ok(ngx_agent_multipart_create(pool, &s, &cb, NULL, &why) == NULL
       && why == NULL, "no memory");
    ngx_destroy_pool(pool);
}


static void
test_codes(void)
{
    static const char  text[] = "--BB\r\n" H "\r\nx\r\n--BB--";

    begin_rc = 7;
    ok(feed(text, sizeof(text) - 1, 1, 1) == 7 && !strcmp(out, "[a:"),
       "begin's code stops it");
    begin_rc = NGX_OK;

    data_rc = NGX_ERROR;
    ok(feed(text, sizeof(text) - 1, 99, 1) == NGX_ERROR
       && !strcmp(out, "[a:x"), "data's code stops it");
    data_rc = NGX_OK;

    end_rc = NGX_ABORT;
    ok(feed(text, sizeof(text) - 1, 99, 1) == NGX_ABORT
       && !strcmp(out, "[a:x]"), "end's code stops it");
    end_rc = NGX_OK;
}


int
main(void)
{
    test_splits();
    test_headers();
    test_limits();
    test_type();
    test_codes();

    ok(empty_data == 0, "data() never got an empty piece");
    ok(stub_used == 0, "nothing is left");

    return done_testing();
}
