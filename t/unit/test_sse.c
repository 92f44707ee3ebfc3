
/* server-sent events: every split gives what the whole gives */

#include "stub.h"
#include "ngx_agent_sse.h"


static char       out[4096];
static ngx_int_t  answer;      /* of the handler, for each event */


static ngx_int_t
event(void *data, ngx_str_t *name, ngx_str_t *text)
{
    size_t  n;

    n = strlen(out);
    snprintf(out + n, sizeof(out) - n, "<%.*s|%.*s>", (int) name->len,
             name->data, (int) text->len, text->data);

    return answer;
}


/* feeds in pieces of "first", "second" bytes and the rest */

static ngx_int_t
feed(const char *p, size_t n, size_t first, size_t second, size_t max,
    int finish)
{
    u_char           *copy;
    size_t            i, len;
    ngx_int_t         rc;
    ngx_pool_t       *pool;
    ngx_agent_sse_t   s;

    pool = stub_pool();
    out[0] = '\0';
    rc = NGX_OK;

    ngx_agent_sse_init(&s, pool, max, event, NULL);

    for (i = 0; i < n && rc == NGX_OK; i += len) {

        len = (i == 0) ? first : (i == first) ? second : n;
        len = ngx_min(len, n - i);

        if (len == 0) {
            len = 1;
        }

        /* memory of its own, so that ASan sees a byte too far */
        copy = malloc(len);
        memcpy(copy, p + i, len);
        rc = ngx_agent_sse_feed(&s, copy, len);
        free(copy);
    }

    if (rc == NGX_OK && finish) {
        rc = ngx_agent_sse_finish(&s);
    }

    if (rc != NGX_OK) {
        ok(ngx_agent_sse_feed(&s, (u_char *) "data:x\n\n", 8) == rc
           && ngx_agent_sse_finish(&s) == rc, "stopped for good");
    }

    ngx_destroy_pool(pool);

    return rc;
}


static void
splits(const char *p, size_t n, const char *expected)
{
    int     bad;
    size_t  i, j;

    bad = 0;

    for (i = 0; i <= n; i++) {
        for (j = 0; i + j <= n; j++) {
            bad += feed(p, n, i, j, 100, 0) != NGX_OK
                   || strcmp(out, expected) != 0;
        }
    }

    feed(p, n, n, n, 100, 0);
    ok(bad == 0, "every split in three: %s", out);
}

#define SPLITS(text, expected)  splits(text, sizeof(text) - 1, expected)
#define FEED(text, max, finish)                                              \
    feed(text, sizeof(text) - 1, sizeof(text), 0, max, finish)


int
main(void)
{
    ngx_pool_t       *pool;
    ngx_agent_sse_t   s;

    answer = NGX_OK;

    SPLITS("data: a\n\ndata: b\n\n", "<|a><|b>");
    SPLITS("data: a\r\n\r\ndata: b\r\n\r\n", "<|a><|b>");
    SPLITS("data: a\r\rdata: b\r\r", "<|a><|b>");
    SPLITS("data: a\ndata: b\r\ndata:c\rdata\n\n", "<|a\nb\nc\n>");
    SPLITS("\xef\xbb\xbf" "data: a\n\n", "<|a>");
    SPLITS("\xef\xbb" "data: a\n\ndata: b\n\n", "<|b>");
    SPLITS("event: error\ndata: {}\n\ndata: x\n\n", "<error|{}><|x>");
    SPLITS("event: a\nevent: b\ndata: x\n\n", "<b|x>");
    SPLITS("event: only\n\ndata: x\n\n", "<|x>");
    SPLITS(": comment\n\n:\nid: 7\nretry: 1\ndata:  two\n\n", "<| two>");
    SPLITS("data\n\n", "<|>");
    SPLITS("data:\n\n", "<|>");
    SPLITS("data: \n\n", "<|>");
    SPLITS("datas: x\ndat: x\nDATA: x\nverylongfield: x\n\n", "");
    SPLITS("\n\n\r\n\rdata: a\n", "");

    ok(FEED("data: a\n\ndata: b\n", 100, 1) == NGX_OK
       && !strcmp(out, "<|a><|b>"), "finish: no blank line");
    ok(FEED("data: [DONE]", 100, 1) == NGX_OK && !strcmp(out, "<|[DONE]>"),
       "finish: no end of line");
    ok(FEED("data", 100, 1) == NGX_OK && !strcmp(out, "<|>"),
       "finish: a field's name");
    ok(FEED("data: a\n\n: bye", 100, 1) == NGX_OK && !strcmp(out, "<|a>"),
       "finish: a comment");
    ok(FEED("\xef\xbb", 100, 1) == NGX_OK && out[0] == '\0',
       "finish: half a BOM");
    ok(FEED("", 100, 1) == NGX_OK && out[0] == '\0', "finish: nothing");

    ok(FEED("data: 12345\n\n", 5, 0) == NGX_OK, "max: just so");
    ok(FEED("data: 123456\n\n", 5, 0) == NGX_DECLINED && out[0] == '\0',
       "max: one byte more");
    ok(FEED("data: 12\ndata: 345\n\n", 5, 0) == NGX_DECLINED,
       "max: the newline counts");
    ok(FEED("data: 1\n\n: 2345678901234567890\nx: 234567890\n\n", 5, 0)
       == NGX_OK, "max: what is passed over does not count");

    answer = NGX_ABORT;
    ok(FEED("data: a\n\ndata: b\n\n", 5, 0) == NGX_ABORT
       && !strcmp(out, "<|a>"), "the handler's code stops it");

    answer = NGX_OK;
    pool = stub_pool();
    stub_fail = 1;
    ngx_agent_sse_init(&s, pool, 100, event, NULL);
    ok(ngx_agent_sse_feed(&s, (u_char *) "data: a\n\n", 9) == NGX_ERROR,
       "no memory");
    ngx_destroy_pool(pool);

    /* a megabyte in one event: at most old and new buffer at once */

    {
        size_t         i;
        static u_char  piece[1000];

        pool = stub_pool();
        memset(piece, 'x', sizeof(piece));
        ngx_agent_sse_init(&s, pool, 1000000, event, NULL);
        ngx_agent_sse_feed(&s, (u_char *) "data:", 5);

        for (i = 0; i < 1000; i++) {
            ngx_agent_sse_feed(&s, piece, sizeof(piece));
        }

        ok(s.rc == NGX_OK && stub_peak < 2000000, "memory is bounded by max");
        ok(ngx_agent_sse_feed(&s, piece, 1) == NGX_DECLINED, "and at its end");
        ngx_destroy_pool(pool);
    }

    ok(stub_used == 0, "nothing is left");

    return done_testing();
}
