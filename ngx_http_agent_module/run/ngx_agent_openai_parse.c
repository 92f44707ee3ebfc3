
/*
 * The openai dialect, inward.  Bytes only: no request and no I/O in here.
 * What is kept of an answer is bounded by max; a document is read at once (an
 * event of the stream, or the whole of a plain answer), so that an object
 * where a string should be can be sliced out of it.
 */

#include "ngx_agent_openai_parse.h"
#include "ngx_agent_openai_call.h"
#include "ngx_agent_json.h"
#include "ngx_agent_utf8.h"


#define NGX_AGENT_OPENAI_UNKNOWN  0
#define NGX_AGENT_OPENAI_SSE      1
#define NGX_AGENT_OPENAI_JSON     2

#define NGX_AGENT_OPENAI_ERROR    300

/* a stream may weigh this many times what is kept of it, and no more: it
 * must not go on for ever with comments or thoughts that nobody keeps */
#define NGX_AGENT_OPENAI_WEIGHT   1024

#define NGX_AGENT_OPENAI_TOKENS   1000000000000ull


static ngx_int_t ngx_agent_openai_detect(ngx_agent_openai_t *o, u_char **p,
    size_t *n);
static ngx_int_t ngx_agent_openai_event(void *data, ngx_str_t *event,
    ngx_str_t *text);
static ngx_int_t ngx_agent_openai_document(ngx_agent_openai_t *o,
    ngx_str_t *doc);
static ngx_int_t ngx_agent_openai_value(void *data,
    ngx_agent_json_value_t *v);
static ngx_int_t ngx_agent_openai_words(void *data,
    ngx_agent_json_value_t *v);
static ngx_int_t ngx_agent_openai_choice(ngx_agent_openai_t *o,
    ngx_agent_json_value_t *v, u_char *p, size_t n);
static ngx_int_t ngx_agent_openai_message(ngx_agent_openai_t *o,
    ngx_agent_json_value_t *v, u_char *p, size_t n);
static ngx_int_t ngx_agent_openai_top(ngx_agent_openai_t *o,
    ngx_agent_json_value_t *v);
static ngx_int_t ngx_agent_openai_report(ngx_agent_openai_t *o,
    ngx_str_t *text);
static ngx_int_t ngx_agent_openai_clip(ngx_pool_t *pool, ngx_str_t *text,
    size_t max, ngx_str_t *dst);
static uint64_t ngx_agent_openai_count(ngx_str_t *text);
static ngx_int_t ngx_agent_openai_reason(ngx_agent_openai_t *o,
    ngx_str_t *text);


#define ngx_agent_openai_is(p, n, s)                                          \
    ((n) == sizeof(s) - 1 && ngx_memcmp(p, s, sizeof(s) - 1) == 0)


ngx_agent_openai_t *
ngx_agent_openai_create(ngx_pool_t *pool, size_t max)
{
    ngx_agent_openai_t  *o;

    o = ngx_pcalloc(pool, sizeof(ngx_agent_openai_t));
    if (o == NULL) {
        return NULL;
    }

    o->pool = pool;
    o->max = max;

    if (ngx_array_init(&o->parts, pool, 1, sizeof(ngx_agent_openai_part_t))
        != NGX_OK)
    {
        return NULL;
    }

    ngx_agent_sse_init(&o->sse, pool, max, ngx_agent_openai_event, o);

    return o;
}


ngx_int_t
ngx_agent_openai_feed(ngx_agent_openai_t *o, u_char *p, size_t n)
{
    ngx_int_t  rc;

    if (o->fault != NGX_AGENT_OPENAI_GOOD) {
        return NGX_DECLINED;
    }

    if (o->done) {
        return NGX_DONE;
    }

    o->fed += n;

    if (o->fed / NGX_AGENT_OPENAI_WEIGHT > o->max) {
        return ngx_agent_openai_fault(o, NGX_AGENT_OPENAI_LARGE,
                                      "the answer is larger than max_answer");
    }

    rc = ngx_agent_openai_detect(o, &p, &n);

    if (rc != NGX_OK || n == 0) {
        return rc;
    }

    if (o->mode == NGX_AGENT_OPENAI_JSON) {
        return ngx_agent_openai_keep(o, &o->body, p, n);
    }

    rc = ngx_agent_sse_feed(&o->sse, p, n);

    if (rc == NGX_DECLINED && o->fault == NGX_AGENT_OPENAI_GOOD) {
        return ngx_agent_openai_fault(o, NGX_AGENT_OPENAI_LARGE,
                                      "the answer is larger than max_answer");
    }

    return rc;
}


/*
 * The first byte that is no white space tells what it is: endpoints are seen
 * to name the one and send the other.
 */

static ngx_int_t
ngx_agent_openai_detect(ngx_agent_openai_t *o, u_char **p, size_t *n)
{
    if (o->mode != NGX_AGENT_OPENAI_UNKNOWN) {
        return NGX_OK;
    }

    while (*n && (**p == ' ' || **p == '\t' || **p == CR || **p == LF)) {
        (*p)++;
        (*n)--;
    }

    if (*n == 0) {
        return NGX_OK;
    }

    switch (**p) {

    case '{':
        o->mode = NGX_AGENT_OPENAI_JSON;
        return NGX_OK;

    case 'd':       /* data: */
    case 'e':       /* event: */
    case 'i':       /* id: */
    case 'r':       /* retry: */
    case ':':       /* a comment */
    case 0xef:      /* a byte order mark */
        o->mode = NGX_AGENT_OPENAI_SSE;
        return NGX_OK;

    default:
        return ngx_agent_openai_fault(o, NGX_AGENT_OPENAI_RUBBISH,
                                  "the answer is neither an event stream "
                                  "nor JSON");
    }
}


/* Called by the event stream's reader for each event. */

static ngx_int_t
ngx_agent_openai_event(void *data, ngx_str_t *event, ngx_str_t *text)
{
    ngx_agent_openai_t *o = data;

    ngx_int_t  rc;

    while (text->len && text->data[text->len - 1] == ' ') {
        text->len--;
    }

    if (ngx_agent_openai_is(text->data, text->len, "[DONE]")) {
        o->events = 1;
        o->done = 1;
        return NGX_DONE;
    }

    /* pings and the like are not ours */

    if (event->len
        && !ngx_agent_openai_is(event->data, event->len, "message")
        && !ngx_agent_openai_is(event->data, event->len, "error"))
    {
        return NGX_OK;
    }

    rc = ngx_agent_openai_document(o, text);

    /* half an event at the end of a cut stream */

    if (rc == NGX_DECLINED && o->ending
        && o->fault == NGX_AGENT_OPENAI_RUBBISH)
    {
        o->fault = NGX_AGENT_OPENAI_GOOD;
        return NGX_OK;
    }

    if (rc == NGX_OK) {
        o->events = 1;
    }

    return rc;
}


static ngx_int_t
ngx_agent_openai_document(ngx_agent_openai_t *o, ngx_str_t *doc)
{
    ngx_int_t                 rc;
    ngx_agent_json_reader_t  *reader;

    reader = ngx_agent_json_reader_create(ngx_agent_openai_value, o);
    if (reader == NULL) {
        return NGX_ERROR;
    }

    o->doc = doc;

    rc = ngx_agent_json_reader_feed(reader, doc->data, doc->len);

    if (rc == NGX_OK) {
        rc = ngx_agent_json_reader_finish(reader);

        if (rc == NGX_DECLINED && o->mode == NGX_AGENT_OPENAI_JSON
            && o->fault == NGX_AGENT_OPENAI_GOOD)
        {
            (void) ngx_agent_openai_fault(o, NGX_AGENT_OPENAI_CUT,
                                          "the answer was cut off before its "
                                          "end");
        }
    }

    ngx_agent_json_reader_free(reader);

    if (rc == NGX_OK) {
        rc = ngx_agent_openai_flush(o);
    }

    o->doc = NULL;
    o->in_piece = 0;

    if (rc == NGX_DECLINED && o->fault == NGX_AGENT_OPENAI_GOOD) {
        return ngx_agent_openai_fault(o, NGX_AGENT_OPENAI_RUBBISH,
                                      "the answer holds broken JSON");
    }

    if (rc == NGX_OK && o->is_error) {
        return ngx_agent_openai_fault(o, NGX_AGENT_OPENAI_REPORTED,
                                      "the answer is an error");
    }

    return rc;
}


/* Called by the JSON reader for each value of a document. */

static ngx_int_t
ngx_agent_openai_value(void *data, ngx_agent_json_value_t *v)
{
    ngx_agent_openai_t *o = data;

    static const char  choice[] = "choices.0.";

    if (v->path.len >= sizeof(choice) - 1
        && ngx_memcmp(v->path.data, choice, sizeof(choice) - 1) == 0)
    {
        return ngx_agent_openai_choice(o, v,
                                       v->path.data + sizeof(choice) - 1,
                                       v->path.len - (sizeof(choice) - 1));
    }

    return ngx_agent_openai_top(o, v);
}


static ngx_int_t
ngx_agent_openai_choice(ngx_agent_openai_t *o, ngx_agent_json_value_t *v,
    u_char *p, size_t n)
{
    size_t  skip;

    if (n >= 5 && ngx_memcmp(p, "delta", 5) == 0) {
        skip = 5;

    } else if (n >= 7 && ngx_memcmp(p, "message", 7) == 0) {
        skip = 7;

    } else if (ngx_agent_openai_is(p, n, "finish_reason")
               && v->type == NGX_AGENT_JSON_STRING)
    {
        return ngx_agent_openai_reason(o, &v->text);

    } else {
        return NGX_OK;
    }

    if (n == skip) {
        o->seen |= (v->type == NGX_AGENT_JSON_OBJECT);
        return NGX_OK;
    }

    if (p[skip] != '.') {
        return NGX_OK;
    }

    return ngx_agent_openai_message(o, v, p + skip + 1, n - skip - 1);
}


static ngx_int_t
ngx_agent_openai_message(ngx_agent_openai_t *o, ngx_agent_json_value_t *v,
    u_char *p, size_t n)
{
    if (n >= 11 && ngx_memcmp(p, "tool_calls.", 11) == 0) {
        return ngx_agent_openai_piece(o, v, p + 11, n - 11);
    }

    if (v->type != NGX_AGENT_JSON_STRING) {
        return NGX_OK;
    }

    /* "content", or its parts: "content.0.text" */

    if (ngx_agent_openai_is(p, n, "content")
        || ngx_agent_openai_is(p, n, "refusal")
        || (n > 13 && ngx_memcmp(p, "content.", 8) == 0
            && ngx_memcmp(p + n - 5, ".text", 5) == 0))
    {
        return ngx_agent_openai_keep(o, &o->text, v->text.data, v->text.len);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_agent_openai_top(ngx_agent_openai_t *o, ngx_agent_json_value_t *v)
{
    u_char     *p;
    size_t      n;
    ngx_int_t   code;

    p = v->path.data;
    n = v->path.len;

    switch (v->type) {

    case NGX_AGENT_JSON_OBJECT:
        if (ngx_agent_openai_is(p, n, "error")) {
            o->is_error = 1;
        }

        break;

    case NGX_AGENT_JSON_STRING:
        if ((ngx_agent_openai_is(p, n, "error") && v->text.len)
            || (ngx_agent_openai_is(p, n, "object")
                && ngx_agent_openai_is(v->text.data, v->text.len, "error")))
        {
            o->is_error = 1;
        }

        if (ngx_agent_openai_is(p, n, "error")
            || ngx_agent_openai_is(p, n, "error.message")
            || ngx_agent_openai_is(p, n, "message")
            || ngx_agent_openai_is(p, n, "detail"))
        {
            return ngx_agent_openai_report(o, &v->text);
        }

        break;

    case NGX_AGENT_JSON_NUMBER:
        if (ngx_agent_openai_is(p, n, "usage.prompt_tokens")) {
            o->tokens_in = ngx_agent_openai_count(&v->text);
            o->usage = 1;

        } else if (ngx_agent_openai_is(p, n, "usage.completion_tokens")) {
            o->tokens_out = ngx_agent_openai_count(&v->text);
            o->usage = 1;

        } else if (ngx_agent_openai_is(p, n, "error.code")) {
            code = ngx_atoi(v->text.data, v->text.len);
            o->error_code = (code == NGX_ERROR) ? 0 : (ngx_uint_t) code;
        }

        break;

    default:
        break;
    }

    return NGX_OK;
}


/* The first words about the trouble are kept; the nearest to it come first. */

static ngx_int_t
ngx_agent_openai_report(ngx_agent_openai_t *o, ngx_str_t *text)
{
    if (o->error.len) {
        return NGX_OK;
    }

    return ngx_agent_openai_clip(o->pool, text, NGX_AGENT_OPENAI_ERROR,
                                 &o->error);
}


/* A copy cut at a character's end, control characters made blanks. */

static ngx_int_t
ngx_agent_openai_clip(ngx_pool_t *pool, ngx_str_t *text, size_t max,
    ngx_str_t *dst)
{
    size_t  i, n;

    n = ngx_min(text->len, max);

    while (n && n < text->len && (text->data[n] & 0xc0) == 0x80) {
        n--;
    }

    dst->data = ngx_pnalloc(pool, n + 1);
    if (dst->data == NULL) {
        return NGX_ERROR;
    }

    dst->len = n;

    for (i = 0; i < n; i++) {
        dst->data[i] = (text->data[i] < 0x20 || text->data[i] == 0x7f)
                       ? ' ' : text->data[i];
    }

    dst->data[n] = '\0';

    return NGX_OK;
}


/* Of "12", "12.0" or nonsense: a count that any store can hold. */

static uint64_t
ngx_agent_openai_count(ngx_str_t *text)
{
    size_t    i;
    uint64_t  n;

    n = 0;

    for (i = 0; i < text->len; i++) {
        if (text->data[i] < '0' || text->data[i] > '9') {
            break;
        }

        n = n * 10 + (text->data[i] - '0');

        if (n > NGX_AGENT_OPENAI_TOKENS) {
            return NGX_AGENT_OPENAI_TOKENS;
        }
    }

    return n;
}


static ngx_int_t
ngx_agent_openai_reason(ngx_agent_openai_t *o, ngx_str_t *text)
{
    /* some send "" until they know */

    if (text->len == 0) {
        return NGX_OK;
    }

    if (o->finish_reason.len) {
        return NGX_OK;
    }

    return ngx_agent_openai_clip(o->pool, text, 64, &o->finish_reason);
}


ngx_int_t
ngx_agent_openai_finish(ngx_agent_openai_t *o)
{
    ngx_int_t  rc;
    ngx_str_t  doc;

    if (o->fault != NGX_AGENT_OPENAI_GOOD) {
        return NGX_DECLINED;
    }

    o->ending = 1;

    if (o->mode == NGX_AGENT_OPENAI_UNKNOWN) {
        return ngx_agent_openai_fault(o, NGX_AGENT_OPENAI_CUT,
                                      "the answer is empty");
    }

    if (o->mode == NGX_AGENT_OPENAI_JSON) {
        doc.data = o->body.data;
        doc.len = o->body.len;

        /* the same bytes again, as text, must not count twice */

        o->kept -= o->body.len;

        rc = ngx_agent_openai_document(o, &doc);

    } else if (!o->done) {
        rc = ngx_agent_sse_finish(&o->sse);

        if (rc == NGX_DECLINED && o->fault == NGX_AGENT_OPENAI_GOOD) {
            return ngx_agent_openai_fault(o, NGX_AGENT_OPENAI_LARGE,
                                          "the answer is larger than "
                                          "max_answer");
        }

    } else {
        rc = NGX_OK;
    }

    if (rc != NGX_OK && rc != NGX_DONE) {
        return rc;
    }

    if (o->mode == NGX_AGENT_OPENAI_SSE && !o->done
        && o->finish_reason.len == 0)
    {
        if (o->events) {
            return ngx_agent_openai_fault(o, NGX_AGENT_OPENAI_CUT,
                                      "the answer was cut off before its "
                                      "end");
        }

        return ngx_agent_openai_fault(o, NGX_AGENT_OPENAI_RUBBISH,
                                      "the answer holds no event of a chat "
                                      "completion");
    }

    if (!o->seen) {
        return ngx_agent_openai_fault(o, NGX_AGENT_OPENAI_RUBBISH,
                                      "the answer holds no message");
    }

    o->content.data = o->text.data;
    o->content.len = o->text.len;

    return ngx_agent_openai_calls(o);
}


/* Called by the JSON reader for a refusal: only the words matter. */

static ngx_int_t
ngx_agent_openai_words(void *data, ngx_agent_json_value_t *v)
{
    return ngx_agent_openai_top(data, v);
}


ngx_int_t
ngx_agent_openai_refusal(ngx_pool_t *pool, u_char *p, size_t n,
    ngx_str_t *message)
{
    ngx_int_t                 rc;
    ngx_agent_openai_t       *o;
    ngx_agent_json_reader_t  *reader;

    ngx_str_null(message);

    o = ngx_agent_openai_create(pool, n + 1);
    if (o == NULL) {
        return NGX_ERROR;
    }

    /* of a long body only the beginning was kept: take what is there */

    reader = ngx_agent_json_reader_create(ngx_agent_openai_words, o);
    if (reader == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_agent_json_reader_feed(reader, p, n);

    ngx_agent_json_reader_free(reader);

    *message = o->error;

    return (rc == NGX_ERROR) ? NGX_ERROR : NGX_OK;
}
