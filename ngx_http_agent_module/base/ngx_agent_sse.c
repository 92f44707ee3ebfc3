
/*
 * Reading server-sent events as a stream.  Bytes only.  Memory: one event's
 * data, at most "max"; names of fields and events go into the struct, longer
 * ones than it has room for are none that anybody asks for.
 */

#include "ngx_agent_sse.h"


/* the first buffer; from 4096 on the pool gives memory back when asked */
#define NGX_AGENT_SSE_BUFFER  4096


/*
 * Where in a line the next byte is.
 *
 *   BOM1 -> BOM2 -> BOM3 -> FIELD     only at the start of the stream
 *   FIELD -> SPACE -> DATA | EVENT | SKIP
 *   FIELD -> SKIP                     a comment, or a name too long
 *   any of these -> FIELD             at the end of the line
 */

typedef enum {
    NGX_AGENT_SSE_BOM1 = 0,
    NGX_AGENT_SSE_BOM2,
    NGX_AGENT_SSE_BOM3,
    NGX_AGENT_SSE_FIELD,
    NGX_AGENT_SSE_SPACE,
    NGX_AGENT_SSE_DATA,
    NGX_AGENT_SSE_EVENT,
    NGX_AGENT_SSE_SKIP
} ngx_agent_sse_state_e;


static u_char *ngx_agent_sse_bom(ngx_agent_sse_t *s, u_char *p);
static u_char *ngx_agent_sse_field(ngx_agent_sse_t *s, u_char *p, u_char *end);
static ngx_int_t ngx_agent_sse_value(ngx_agent_sse_t *s);
static ngx_int_t ngx_agent_sse_text(ngx_agent_sse_t *s, u_char *p, size_t n);
static ngx_uint_t ngx_agent_sse_named(ngx_agent_sse_t *s, const char *name);
static ngx_int_t ngx_agent_sse_append(ngx_agent_sse_t *s, const u_char *p,
    size_t n);
static ngx_int_t ngx_agent_sse_line(ngx_agent_sse_t *s);
static ngx_int_t ngx_agent_sse_dispatch(ngx_agent_sse_t *s);


void
ngx_agent_sse_init(ngx_agent_sse_t *s, ngx_pool_t *pool, size_t max,
    ngx_agent_sse_pt handler, void *data)
{
    ngx_memzero(s, sizeof(ngx_agent_sse_t));

    s->pool = pool;
    s->max = max;
    s->handler = handler;
    s->data = data;
}


ngx_int_t
ngx_agent_sse_feed(ngx_agent_sse_t *s, u_char *p, size_t n)
{
    u_char  *end, *stop;

    if (s->rc != NGX_OK || n == 0) {
        return s->rc;
    }

    end = p + n;

    while (p < end && s->rc == NGX_OK) {

        if (s->state < NGX_AGENT_SSE_FIELD) {
            p = ngx_agent_sse_bom(s, p);
            continue;
        }

        if (*p == LF && s->cr) {
            s->cr = 0;
            p++;
            continue;
        }

        s->cr = (*p == CR);

        if (*p == CR || *p == LF) {
            p++;
            s->rc = ngx_agent_sse_line(s);
            continue;
        }

        if (s->state == NGX_AGENT_SSE_FIELD) {
            p = ngx_agent_sse_field(s, p, end);
            continue;
        }

        if (s->state == NGX_AGENT_SSE_SPACE) {
            s->rc = ngx_agent_sse_value(s);
            p += (*p == ' ');
            continue;
        }

        for (stop = p; stop < end && *stop != CR && *stop != LF; stop++) {
            /* void */
        }

        s->rc = ngx_agent_sse_text(s, p, stop - p);
        p = stop;
    }

    return s->rc;
}


ngx_int_t
ngx_agent_sse_finish(ngx_agent_sse_t *s)
{
    if (s->rc != NGX_OK) {
        return s->rc;
    }

    s->rc = ngx_agent_sse_line(s);

    if (s->rc == NGX_OK) {
        s->rc = ngx_agent_sse_dispatch(s);
    }

    return s->rc;
}


static u_char *
ngx_agent_sse_bom(ngx_agent_sse_t *s, u_char *p)
{
    static const u_char  bom[] = "\xef\xbb\xbf";

    if (*p == bom[s->state]) {
        s->state++;
        return p + 1;
    }

    /* no BOM after all: the bytes so far begin the first field's name */

    s->field_len = s->state;
    ngx_memcpy(s->field, bom, s->field_len);

    s->state = NGX_AGENT_SSE_FIELD;

    return p;
}


static u_char *
ngx_agent_sse_field(ngx_agent_sse_t *s, u_char *p, u_char *end)
{
    for ( /* void */ ; p < end; p++) {

        if (*p == CR || *p == LF) {
            return p;
        }

        if (*p == ':') {
            s->state = s->field_len ? NGX_AGENT_SSE_SPACE
                                    : NGX_AGENT_SSE_SKIP;
            return p + 1;
        }

        if (s->field_len == sizeof(s->field)) {
            s->state = NGX_AGENT_SSE_SKIP;
            return p;
        }

        s->field[s->field_len++] = *p;
    }

    return p;
}


/* the name of a field is known: makes ready for its value */

static ngx_int_t
ngx_agent_sse_value(ngx_agent_sse_t *s)
{
    ngx_uint_t  more;

    if (ngx_agent_sse_named(s, "data")) {
        s->state = NGX_AGENT_SSE_DATA;

        more = s->has_data;
        s->has_data = 1;

        return more ? ngx_agent_sse_append(s, (u_char *) "\n", 1) : NGX_OK;
    }

    if (ngx_agent_sse_named(s, "event")) {
        s->state = NGX_AGENT_SSE_EVENT;
        s->event_len = 0;

        return NGX_OK;
    }

    s->state = NGX_AGENT_SSE_SKIP;

    return NGX_OK;
}


static ngx_uint_t
ngx_agent_sse_named(ngx_agent_sse_t *s, const char *name)
{
    return s->field_len == ngx_strlen(name)
           && ngx_memcmp(s->field, name, s->field_len) == 0;
}


static ngx_int_t
ngx_agent_sse_text(ngx_agent_sse_t *s, u_char *p, size_t n)
{
    if (s->state == NGX_AGENT_SSE_DATA) {
        return ngx_agent_sse_append(s, p, n);
    }

    if (s->state == NGX_AGENT_SSE_EVENT) {
        n = ngx_min(n, sizeof(s->event) - s->event_len);

        ngx_memcpy(&s->event[s->event_len], p, n);
        s->event_len += n;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_agent_sse_append(ngx_agent_sse_t *s, const u_char *p, size_t n)
{
    u_char  *buf;
    size_t   size;

    if (n > s->max - s->len) {
        return NGX_DECLINED;
    }

    if (n > s->size - s->len) {

        size = ngx_max(s->size * 2, s->len + n);
        size = ngx_max(size, NGX_AGENT_SSE_BUFFER);
        size = ngx_min(size, s->max);

        buf = ngx_pnalloc(s->pool, size);
        if (buf == NULL) {
            return NGX_ERROR;
        }

        if (s->buf) {
            ngx_memcpy(buf, s->buf, s->len);
            (void) ngx_pfree(s->pool, s->buf);
        }

        s->buf = buf;
        s->size = size;
    }

    if (n) {
        ngx_memcpy(s->buf + s->len, p, n);
        s->len += n;
    }

    return NGX_OK;
}


/* the end of a line, also of one that is only a field's name */

static ngx_int_t
ngx_agent_sse_line(ngx_agent_sse_t *s)
{
    ngx_int_t  rc;

    if (s->state == NGX_AGENT_SSE_FIELD && s->field_len == 0) {
        return ngx_agent_sse_dispatch(s);
    }

    rc = NGX_OK;

    if (s->state == NGX_AGENT_SSE_FIELD || s->state == NGX_AGENT_SSE_SPACE) {
        rc = ngx_agent_sse_value(s);
    }

    s->state = NGX_AGENT_SSE_FIELD;
    s->field_len = 0;

    return rc;
}


static ngx_int_t
ngx_agent_sse_dispatch(ngx_agent_sse_t *s)
{
    ngx_int_t  rc;
    ngx_str_t  event, text;

    rc = NGX_OK;

    if (s->has_data) {

        event.data = s->event;
        event.len = s->event_len;

        text.data = s->buf ? s->buf : (u_char *) "";
        text.len = s->len;

        rc = s->handler(s->data, &event, &text);
    }

    s->has_data = 0;
    s->len = 0;
    s->event_len = 0;

    return rc;
}
