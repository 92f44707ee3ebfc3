
/*
 * The trace of a run's calls, made.  It reads the run and writes to
 * live->step.trace; what it has no memory for is left out, and the run goes
 * on.  No secret may get into it: what is cut is looked through before.
 */

#include "ngx_http_agent_dialect.h"


/*
 * Bytes beyond what is kept that are looked through for a secret and then
 * dropped: its first bytes are too few to be told at the end of a text, and
 * escaped as in JSON, in JSON, each takes some dozen.
 */
#define NGX_HTTP_AGENT_TRACE_SLACK  256

/* of an answer's memory, at first; doubled as more comes */
#define NGX_HTTP_AGENT_TRACE_ANSWER  2048

/* of an attempt that are kept, and the last one besides */
#define NGX_HTTP_AGENT_TRACE_CALLS  16

/* keys, times, an address, a reason */
#define NGX_HTTP_AGENT_TRACE_FRAME  768

/* of a call's pool besides: nginx's own, the writer */
#define NGX_HTTP_AGENT_TRACE_POOL  256


static size_t ngx_http_agent_trace_size(ngx_http_agent_run_t *run);
static void ngx_http_agent_trace_write(ngx_http_agent_run_t *run,
    ngx_agent_json_t *j);
static void ngx_http_agent_trace_whom(ngx_http_agent_run_t *run,
    ngx_agent_json_t *j);
static void ngx_http_agent_trace_times(ngx_http_agent_run_t *run,
    ngx_agent_json_t *j);
static void ngx_http_agent_trace_ms(ngx_agent_json_t *j, const char *key,
    ngx_uint_t known, int64_t ms);
static void ngx_http_agent_trace_queued(ngx_http_agent_run_t *run,
    ngx_agent_json_t *j);
static void ngx_http_agent_trace_upstream(ngx_http_agent_run_t *run,
    ngx_agent_json_t *j);
static void ngx_http_agent_trace_request(ngx_http_agent_run_t *run,
    ngx_agent_json_t *j);
static ngx_uint_t ngx_http_agent_trace_marked(ngx_http_agent_run_t *run,
    ngx_agent_json_t *j);
static void ngx_http_agent_trace_answer(ngx_http_agent_run_t *run,
    ngx_agent_json_t *j);
static void ngx_http_agent_trace_made(ngx_http_agent_run_t *run,
    ngx_agent_json_t *j);
static void ngx_http_agent_trace_end(ngx_http_agent_run_t *run,
    ngx_agent_json_t *j, ngx_uint_t stopped);
static void ngx_http_agent_trace_clip(ngx_http_agent_run_t *run,
    ngx_agent_json_t *j, ngx_str_t *text, ngx_uint_t more);
static void ngx_http_agent_trace_text(ngx_agent_json_t *j, const char *key,
    ngx_str_t *text);
static void ngx_http_agent_trace_bytes(ngx_agent_json_t *j, ngx_str_t *text);
static void ngx_http_agent_trace_keep(ngx_agent_live_t *live,
    ngx_agent_json_t *j);


void
ngx_http_agent_trace_start(ngx_http_agent_run_t *run,
    ngx_http_agent_fake_conf_t *conf)
{
    ngx_time_t              *tp;
    ngx_http_agent_trace_t  *t;

    t = &run->trace;

    if (run->live->agent->trace == 0) {
        return;
    }

    if (!run->more) {
        t->calls = 0;
    }

    /* the call before, of a dialect that makes several, was good */

    if (t->calls++ < NGX_HTTP_AGENT_TRACE_CALLS) {
        ngx_http_agent_trace_done(run, 0);

    } else {
        ngx_http_agent_trace_drop(run);
    }

    tp = ngx_timeofday();

    t->started = (uint64_t) tp->sec * 1000 + tp->msec;
    t->start = ngx_current_msec;
    t->pause = t->start - t->ended;
    t->answer = NULL;
    t->len = 0;
    t->size = 0;
    t->total = 0;
    t->open = 1;
    t->get = (conf->method == NGX_HTTP_GET);
    t->has_span = 0;
    t->has_header = 0;
    t->has_token = 0;
    t->withheld = 0;
    t->cut = 0;

    if (conf->traceparent.len == NGX_AGENT_TRACEPARENT_LEN) {
        ngx_memcpy(t->span,
                   conf->traceparent.data + NGX_AGENT_TRACEPARENT_SPAN,
                   NGX_AGENT_TRACEPARENT_SPAN_LEN);
        t->has_span = 1;
    }
}


/* The answer begins, or begins anew: what came before is about to be freed. */

void
ngx_http_agent_trace_header(ngx_http_agent_run_t *run)
{
    ngx_http_agent_trace_t  *t;

    t = &run->trace;

    t->header = ngx_current_msec;
    t->has_header = 1;
    t->has_token = 0;
    t->answer = NULL;
    t->len = 0;
    t->size = 0;
    t->total = 0;
}


void
ngx_http_agent_trace_body(ngx_http_agent_run_t *run, u_char *p, size_t n)
{
    u_char                  *answer;
    size_t                   max, size;
    ngx_http_agent_trace_t  *t;

    t = &run->trace;

    if (!t->open) {
        return;
    }

    if (!t->has_token) {
        t->token = ngx_current_msec;
        t->has_token = 1;
    }

    t->total += n;

    max = run->live->agent->trace + NGX_HTTP_AGENT_TRACE_SLACK;
    n = ngx_min(n, max - t->len);

    if (n > t->size - t->len) {
        size = ngx_max(2 * t->size, NGX_HTTP_AGENT_TRACE_ANSWER);
        size = ngx_min(ngx_max(size, t->len + n), max);

        answer = ngx_pnalloc(run->pool, size);
        if (answer == NULL) {
            return;
        }

        if (t->len) {
            ngx_memcpy(answer, t->answer, t->len);
            (void) ngx_pfree(run->pool, t->answer);
        }

        t->answer = answer;
        t->size = size;
    }

    ngx_memcpy(t->answer + t->len, p, n);
    t->len += n;
}


/*
 * All but what the run makes of it is written down now: the request's body,
 * the answer and the upstream are freed next.
 */

void
ngx_http_agent_trace_called(ngx_http_agent_run_t *run)
{
    size_t                   size, room;
    ngx_pool_t              *pool;
    ngx_agent_json_t        *j;
    ngx_http_agent_trace_t  *t;

    t = &run->trace;

    if (!t->open || t->json) {
        return;
    }

    t->ended = ngx_current_msec;

    /* the buffer in the pool's own block, where that has room for it */

    size = ngx_http_agent_trace_size(run);
    room = (size <= NGX_MAX_ALLOC_FROM_POOL) ? size : 0;

    pool = ngx_create_pool(room + NGX_HTTP_AGENT_TRACE_POOL, run->live->log);
    if (pool == NULL) {
        t->open = 0;
        return;
    }

    j = ngx_palloc(pool, sizeof(ngx_agent_json_t));
    if (j == NULL) {
        ngx_destroy_pool(pool);
        t->open = 0;
        return;
    }

    t->json = j;

    ngx_agent_json_init(j, pool, size);

    ngx_http_agent_trace_write(run, j);

    t->again = 1;
}


/* most texts grow by less than a quarter when they are escaped */

static size_t
ngx_http_agent_trace_size(ngx_http_agent_run_t *run)
{
    size_t  size;

    size = run->body.len;

    if (ngx_http_agent_trace_part(&run->tail) == NULL) {
        size += run->tail.len;
    }

    size = ngx_min(size, run->live->agent->trace) + run->trace.len;

    return NGX_HTTP_AGENT_TRACE_FRAME + size * 5 / 4;
}


static void
ngx_http_agent_trace_write(ngx_http_agent_run_t *run, ngx_agent_json_t *j)
{
    ngx_agent_json_object(j);

    ngx_agent_json_key(j, "attempt");
    ngx_agent_json_int(j, ngx_agent_step_spent(run->live));

    ngx_http_agent_trace_times(run, j);
    ngx_http_agent_trace_whom(run, j);

    ngx_agent_json_key(j, "status");

    if (run->status) {
        ngx_agent_json_int(j, run->status);

    } else {
        ngx_agent_json_null(j);
    }

    ngx_http_agent_trace_request(run, j);
    ngx_http_agent_trace_answer(run, j);
}


static void
ngx_http_agent_trace_whom(ngx_http_agent_run_t *run, ngx_agent_json_t *j)
{
    u_char                  *p;
    ngx_str_t                span, uri;
    ngx_http_agent_trace_t  *t;

    t = &run->trace;

    ngx_agent_json_key(j, "call");

    if (run->fake) {
        uri = *ngx_http_agent_fake_uri(run->fake);

        /* arguments of "pass" are the operator's, and may be a key */

        p = ngx_strlchr(uri.data, uri.data + uri.len, '?');
        uri.len = p ? (size_t) (p - uri.data) : uri.len;

        ngx_agent_json_string_begin(j);
        ngx_agent_json_string_part(j, (u_char *) (t->get ? "GET " : "POST "),
                                   t->get ? 4 : 5);
        ngx_agent_json_string_part(j, uri.data, uri.len);
        ngx_agent_json_string_end(j);

    } else {
        ngx_agent_json_null(j);
    }

    span.data = t->has_span ? t->span : NULL;
    span.len = NGX_AGENT_TRACEPARENT_SPAN_LEN;

    ngx_agent_json_key(j, "span_id");
    ngx_agent_json_string(j, &span);
}


/* All of them from the start of the call, but for the first two. */

static void
ngx_http_agent_trace_times(ngx_http_agent_run_t *run, ngx_agent_json_t *j)
{
    ngx_tm_t                 tm;
    ngx_str_t                text;
    ngx_http_agent_trace_t  *t;

    u_char  buf[sizeof("2026-11-22T21:34:32.123Z") + 16];

    t = &run->trace;

    ngx_gmtime((time_t) (t->started / 1000), &tm);

    text.data = buf;
    text.len = ngx_sprintf(buf, "%4d-%02d-%02dT%02d:%02d:%02d.%03uiZ",
                           tm.ngx_tm_year, tm.ngx_tm_mon, tm.ngx_tm_mday,
                           tm.ngx_tm_hour, tm.ngx_tm_min, tm.ngx_tm_sec,
                           (ngx_uint_t) (t->started % 1000))
               - buf;

    ngx_agent_json_key(j, "started_at");
    ngx_agent_json_string(j, &text);

    ngx_http_agent_trace_queued(run, j);
    ngx_http_agent_trace_upstream(run, j);

    ngx_http_agent_trace_ms(j, "first_byte_ms", t->has_header,
                            (ngx_msec_int_t) (t->header - t->start));
    ngx_http_agent_trace_ms(j, "first_token_ms", t->has_token,
                            (ngx_msec_int_t) (t->token - t->start));
    ngx_http_agent_trace_ms(j, "done_ms", 1,
                            (ngx_msec_int_t) (t->ended - t->start));
}


static void
ngx_http_agent_trace_ms(ngx_agent_json_t *j, const char *key,
    ngx_uint_t known, int64_t ms)
{
    ngx_agent_json_key(j, key);

    if (known) {
        ngx_agent_json_int(j, ngx_max(ms, 0));

    } else {
        ngx_agent_json_null(j);
    }
}


/*
 * How long this call had to wait: since the step was made, as its id has the
 * time in it, or since the call before.  When that was another run's, nobody
 * here knows.
 */

static void
ngx_http_agent_trace_queued(ngx_http_agent_run_t *run, ngx_agent_json_t *j)
{
    int64_t                  ms;
    uint64_t                 made;
    ngx_uint_t               i;
    ngx_agent_step_t        *step;
    ngx_http_agent_trace_t  *t;

    t = &run->trace;
    step = &run->live->step;

    if (t->again) {
        ngx_http_agent_trace_ms(j, "queued_ms", 1, t->pause);
        return;
    }

    made = 0;

    for (i = 0; i < 6; i++) {
        made = made << 8 | step->id.bytes[i];
    }

    ms = (int64_t) (t->started - made);

    ngx_http_agent_trace_ms(j, "queued_ms",
                            ngx_agent_step_spent(run->live) == 1, ms);
}


static void
ngx_http_agent_trace_upstream(ngx_http_agent_run_t *run, ngx_agent_json_t *j)
{
    ngx_msec_t               connected;
    ngx_str_t                name;
    ngx_uint_t               known;
    ngx_http_agent_trace_t  *t;

    t = &run->trace;
    known = 0;
    connected = 0;
    ngx_str_null(&name);

    if (run->fake) {
        known = ngx_http_agent_fake_upstream(run->fake, &name, &connected);
    }

    ngx_agent_json_key(j, "upstream");
    ngx_agent_json_string(j, &name);

    ngx_http_agent_trace_ms(j, "connect_ms", known,
                            (ngx_msec_int_t) (connected - t->start));
}


static void
ngx_http_agent_trace_request(ngx_http_agent_run_t *run, ngx_agent_json_t *j)
{
    u_char     *p;
    size_t      max, n, tail;
    ngx_str_t   text;

    ngx_agent_json_key(j, "request_bytes");
    ngx_agent_json_int(j, run->body.len + run->tail.len);

    if (ngx_http_agent_trace_marked(run, j)) {
        return;
    }

    max = run->live->agent->trace + NGX_HTTP_AGENT_TRACE_SLACK;

    n = ngx_min(run->body.len, max);
    tail = ngx_min(run->tail.len, max - n);

    text.len = n + tail;
    text.data = ngx_pnalloc(j->pool, text.len + 1);

    if (text.data == NULL) {
        j->failed = 1;
        return;
    }

    p = text.data;

    if (n) {
        ngx_memcpy(p, run->body.data, n);
    }

    if (tail) {
        ngx_memcpy(p + n, run->tail.data, tail);
    }

    ngx_http_agent_trace_clip(run, j, &text,
                              n + tail < run->body.len + run->tail.len);

    ngx_http_agent_trace_text(j, "request", &text);

    if (run->redact) {
        ngx_explicit_memzero(p, n);
    }
}


/* All of it, with no secret in it, and a mark for what all requests have. */

static ngx_uint_t
ngx_http_agent_trace_marked(ngx_http_agent_run_t *run, ngx_agent_json_t *j)
{
    ngx_str_t  *mark;

    mark = ngx_http_agent_trace_part(&run->tail);

    if (mark == NULL || run->redact || run->body.data == NULL
        || run->body.len + run->tail.len > run->live->agent->trace)
    {
        return 0;
    }

    ngx_agent_json_key(j, "request");
    ngx_agent_json_string_begin(j);
    ngx_http_agent_trace_bytes(j, &run->body);
    ngx_agent_json_string_raw(j, mark);
    ngx_agent_json_string_end(j);

    return 1;
}


/*
 * Bytes as they came.  But of an answer to a secret a stream may have it in
 * pieces, which nothing finds: there it is what the run makes of it, or
 * nothing.
 */

static void
ngx_http_agent_trace_answer(ngx_http_agent_run_t *run, ngx_agent_json_t *j)
{
    ngx_str_t                text;
    ngx_http_agent_trace_t  *t;

    t = &run->trace;

    ngx_agent_json_key(j, "answer_bytes");
    ngx_agent_json_int(j, t->total);

    if (run->redact && run->status >= 200 && run->status < 300) {
        t->withheld = 1;
        return;
    }

    text.data = t->answer;
    text.len = t->len;

    if (t->has_header && text.data == NULL) {
        ngx_str_set(&text, "");
    }

    ngx_http_agent_trace_clip(run, j, &text, t->total > t->len);
    ngx_http_agent_trace_text(j, "answer", &text);
}


void
ngx_http_agent_trace_done(ngx_http_agent_run_t *run, ngx_uint_t stopped)
{
    ngx_agent_json_t        *j;
    ngx_http_agent_trace_t  *t;

    t = &run->trace;

    ngx_http_agent_trace_called(run);

    j = t->json;

    if (j == NULL) {
        return;
    }

    t->json = NULL;
    t->open = 0;

    ngx_http_agent_trace_end(run, j, stopped);
    ngx_http_agent_trace_keep(run->live, j);

    ngx_destroy_pool(j->pool);
}


void
ngx_http_agent_trace_drop(ngx_http_agent_run_t *run)
{
    ngx_http_agent_trace_t  *t;

    t = &run->trace;

    if (t->json) {
        ngx_destroy_pool(t->json->pool);
        t->json = NULL;
    }

    /* it has no place among those that are kept */

    if (t->open && t->calls) {
        t->calls--;
    }

    t->open = 0;
}


static void
ngx_http_agent_trace_end(ngx_http_agent_run_t *run, ngx_agent_json_t *j,
    ngx_uint_t stopped)
{
    ngx_str_t          why;
    ngx_uint_t         good;
    ngx_agent_step_t  *step;

    step = &run->live->step;
    good = (run->state == NGX_HTTP_AGENT_RUN_END);
    ngx_str_null(&why);

    if (run->trace.withheld) {
        ngx_http_agent_trace_made(run, j);
    }

    ngx_agent_json_key(j, "truncated");
    ngx_agent_json_bool(j, run->trace.cut);

    /* what was not told is 0 */

    good = good && (step->tokens_in || step->tokens_out);

    ngx_http_agent_trace_ms(j, "tokens_in", good, step->tokens_in);
    ngx_http_agent_trace_ms(j, "tokens_out", good, step->tokens_out);

    if (run->state == NGX_HTTP_AGENT_RUN_PAUSE
        || run->state == NGX_HTTP_AGENT_RUN_FAIL)
    {
        why = run->reason;

    } else if (stopped) {
        ngx_str_set(&why, "the call was broken off: its worker gave the step "
                    "back");
    }

    ngx_agent_json_key(j, "error");
    ngx_agent_json_string(j, &why);

    ngx_agent_json_object_end(j);
}


/* The answer to a secret, put together and looked through by the dialect. */

static void
ngx_http_agent_trace_made(ngx_http_agent_run_t *run, ngx_agent_json_t *j)
{
    ngx_str_t  text;

    if (run->state == NGX_HTTP_AGENT_RUN_END && run->live->step.turns.len) {
        text = run->live->step.turns;

    } else {
        ngx_str_set(&text, NGX_AGENT_REDACT_MARK);
    }

    ngx_http_agent_trace_clip(run, j, &text, 0);
    ngx_http_agent_trace_text(j, "answer", &text);
}


/*
 * What is kept of a text: no secret, no half of one at its end, no more bytes
 * than the agent allows, no half of a character.  more: the text itself is
 * only the beginning of one.
 */

static void
ngx_http_agent_trace_clip(ngx_http_agent_run_t *run, ngx_agent_json_t *j,
    ngx_str_t *text, ngx_uint_t more)
{
    size_t      len;
    ngx_uint_t  i;

    if (text->data == NULL) {
        return;
    }

    len = text->len;

    if (run->redact) {

        /* an answer may have been broken off anywhere */

        if (ngx_agent_redact_text(run->redact, j->pool, text, 1) != NGX_OK) {
            j->failed = 1;
            return;
        }

        /* a mark is shorter than most secrets: this is not cut by what is
           kept alone */

        len = text->len;
        len -= more ? ngx_min(len, NGX_HTTP_AGENT_TRACE_SLACK) : 0;
    }

    len = ngx_min(len, run->live->agent->trace);

    if (len == text->len) {
        return;
    }

    for (i = 0; i < 3 && len && (text->data[len] & 0xc0) == 0x80; i++) {
        len--;
    }

    text->len = len;
    run->trace.cut = 1;
}


static void
ngx_http_agent_trace_text(ngx_agent_json_t *j, const char *key,
    ngx_str_t *text)
{
    ngx_agent_json_key(j, key);

    if (text->data == NULL) {
        ngx_agent_json_null(j);
        return;
    }

    ngx_agent_json_string_begin(j);
    ngx_http_agent_trace_bytes(j, text);
    ngx_agent_json_string_end(j);
}


/* Bytes that are no text become U+FFFD, and so does NUL, which few expect. */

static void
ngx_http_agent_trace_bytes(ngx_agent_json_t *j, ngx_str_t *text)
{
    u_char  *p, *end, *nul;

    p = text->data;
    end = p + text->len;

    while (p < end) {
        nul = ngx_strlchr(p, end, '\0');

        if (nul == NULL) {
            ngx_agent_json_string_part(j, p, end - p);
            break;
        }

        ngx_agent_json_string_part(j, p, nul - p);
        ngx_agent_json_string_part(j, (u_char *) NGX_AGENT_UTF8_BAD,
                                   NGX_AGENT_UTF8_BAD_LEN);
        p = nul + 1;
    }
}


/* Behind those that are not on record yet. */

static void
ngx_http_agent_trace_keep(ngx_agent_live_t *live, ngx_agent_json_t *j)
{
    u_char     *p, *last;
    ngx_str_t   text, *trace;

    if (ngx_agent_json_done(j, &text) != NGX_OK) {
        return;
    }

    trace = &live->step.trace;

    p = ngx_pnalloc(live->pool, trace->len + 1 + text.len);
    if (p == NULL) {
        return;
    }

    last = p;

    if (trace->len) {
        last = ngx_cpymem(last, trace->data, trace->len);
        *last++ = ',';
        (void) ngx_pfree(live->pool, trace->data);
    }

    last = ngx_cpymem(last, text.data, text.len);

    trace->data = p;
    trace->len = last - p;
}
