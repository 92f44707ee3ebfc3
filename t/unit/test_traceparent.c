
/* traceparent (W3C Trace Context): read, and made for a call of ours */

#include "stub.h"
#include "ngx_agent_traceparent.h"


#define TRACE   "0af7651916cd43dd8448eb211c80319c"
#define SPAN    "b7ad6b7169203331"
#define ZEROES  "00000000000000000000000000000000"


/* want: what is kept; NULL: it is ignored */

static void
check(ngx_str_t text, const char *want)
{
    u_char      *copy, *buf;
    ngx_int_t    rc;
    ngx_str_t    value;

    /* on the heap, so that ASan sees a byte too many */
    copy = malloc(text.len);
    buf = malloc(NGX_AGENT_TRACEPARENT_LEN);
    memcpy(copy, text.data, text.len);
    value.data = copy;
    value.len = text.len;

    rc = ngx_agent_traceparent_read(&value, buf);

    if (want) {
        ok(rc == NGX_OK && memcmp(buf, want, NGX_AGENT_TRACEPARENT_LEN) == 0,
           "\"%.*s\" is read", (int) text.len, text.data);

    } else {
        ok(rc == NGX_DECLINED, "\"%.*s\" is ignored", (int) text.len,
           text.data);
    }

    free(copy);
    free(buf);
}


static void
test_read(void)
{
    static const char  plain[] = "00-" TRACE "-" SPAN "-01";

    check(S("00-" TRACE "-" SPAN "-01"), plain);
    check(S(" \t00-" TRACE "-" SPAN "-01\t "), plain);
    check(S("00-" TRACE "-" SPAN "-00"), "00-" TRACE "-" SPAN "-00");

    /* only flags that somebody has defined */
    check(S("00-" TRACE "-" SPAN "-03"), "00-" TRACE "-" SPAN "-03");
    check(S("00-" TRACE "-" SPAN "-ff"), "00-" TRACE "-" SPAN "-03");
    check(S("00-" TRACE "-" SPAN "-fc"), "00-" TRACE "-" SPAN "-00");

    /* a later version begins in the same way */
    check(S("01-" TRACE "-" SPAN "-01"), plain);
    check(S("cc-" TRACE "-" SPAN "-01-what-may-come"), plain);
    check(S("fe-" TRACE "-" SPAN "-ff-"), plain);
    check(S("01-" TRACE "-" SPAN "-01x"), NULL);
    check(S("cc-" TRACE "-" SPAN "-01.what"), NULL);
    check(S("ff-" TRACE "-" SPAN "-01"), NULL);

    check(S("00-" TRACE "-" SPAN "-01-"), NULL);
    check(S("00-" TRACE "-" SPAN "-01-x"), NULL);
    check(S("00-" TRACE "-" SPAN "-1"), NULL);
    check(S("00-" TRACE "-" SPAN), NULL);
    check(S("00-" TRACE "-" SPAN "-"), NULL);
    check(S(""), NULL);
    check(S(" "), NULL);
    check(S("x"), NULL);
}


static void
test_wrong(void)
{
    size_t             i;
    u_char             buf[NGX_AGENT_TRACEPARENT_LEN];
    char               text[NGX_AGENT_TRACEPARENT_LEN];
    ngx_str_t          s;
    static const char  plain[] = "00-" TRACE "-" SPAN "-01";
    static const char  bad[] = { 'A', 'g', '/', ':', '`', ' ', '\0', '\n' };

    check(S("00-" ZEROES "-" SPAN "-01"), NULL);
    check(S("00-" TRACE "-0000000000000000-01"), NULL);
    check(S("00-0AF7651916CD43DD8448EB211C80319C-" SPAN "-01"), NULL);
    check(S("00-" TRACE "-B7AD6B7169203331-01"), NULL);
    check(S("0A-" TRACE "-" SPAN "-01"), NULL);
    check(S("00-" TRACE "-" SPAN "-0A"), NULL);

    /* none of its characters may be another */

    s.data = (u_char *) text;
    s.len = sizeof(text);

    for (i = 0; i < sizeof(text); i++) {
        memcpy(text, plain, sizeof(text));
        text[i] = bad[i % sizeof(bad)];

        ok(ngx_agent_traceparent_read(&s, buf) == NGX_DECLINED,
           "byte %d is %02x: ignored", (int) i, text[i]);

        memcpy(text, plain, sizeof(text));
        text[i] = (plain[i] == '-') ? '0' : '-';

        ok(ngx_agent_traceparent_read(&s, buf) == NGX_DECLINED,
           "byte %d is \"%c\": ignored", (int) i, text[i]);
    }
}


static void
test_child(void)
{
    u_char     one[NGX_AGENT_TRACEPARENT_LEN], two[sizeof(one)];
    ngx_str_t  parent, kept;

    parent = S("00-" TRACE "-" SPAN "-01");

    ok(ngx_agent_traceparent_child(&parent, one) == NGX_OK
       && ngx_agent_traceparent_child(&parent, two) == NGX_OK,
       "a call of ours has one");
    ok(memcmp(one, parent.data, NGX_AGENT_TRACEPARENT_SPAN) == 0,
       "of the same trace");
    ok(memcmp(one + 52, "-01", 3) == 0, "with its flags");
    ok(memcmp(one + NGX_AGENT_TRACEPARENT_SPAN, SPAN,
              NGX_AGENT_TRACEPARENT_SPAN_LEN) != 0, "and a span of its own");
    ok(memcmp(one, two, sizeof(one)) != 0, "each call another");

    kept.data = one;
    kept.len = sizeof(one);
    ok(ngx_agent_traceparent_read(&kept, two) == NGX_OK, "which is valid");

    parent = S("");
    ok(ngx_agent_traceparent_child(&parent, one) == NGX_DECLINED,
       "no parent, no child");
    parent = S("00-" TRACE "-" SPAN "-01\r\nx: y");
    ok(ngx_agent_traceparent_child(&parent, one) == NGX_DECLINED,
       "nor of what is none");
}


int
main(void)
{
    test_read();
    test_wrong();
    test_child();

    return done_testing();
}
