
/*
 * Reading multipart/form-data as a stream.  Bytes only.  Memory: one part's
 * header, at most NGX_AGENT_MULTIPART_HEADER; content is handed on as it
 * comes, in the caller's own buffer.  The header's lines are read by
 * ngx_agent_multipart_header.c.
 */

#include "ngx_agent_multipart.h"
#include "ngx_agent_multipart_header.h"


/*
 * What the next byte belongs to.
 *
 *   PREAMBLE -> AFTER      the first boundary was read
 *   AFTER -> HEADER        its line ended: a part begins
 *   AFTER -> DASH -> DONE  "--": the last boundary
 *   AFTER -> BLANK -> LF   white space up to the line's end
 *   HEADER -> CONTENT      the empty line
 *   CONTENT -> AFTER       a boundary: the part ends
 *   any -> FAILED
 */

typedef enum {
    NGX_AGENT_MULTIPART_PREAMBLE = 0,
    NGX_AGENT_MULTIPART_AFTER,
    NGX_AGENT_MULTIPART_DASH,
    NGX_AGENT_MULTIPART_BLANK,
    NGX_AGENT_MULTIPART_LF,
    NGX_AGENT_MULTIPART_HEADER_LINES,
    NGX_AGENT_MULTIPART_CONTENT,
    NGX_AGENT_MULTIPART_DONE,
    NGX_AGENT_MULTIPART_FAILED
} ngx_agent_multipart_state_e;


struct ngx_agent_multipart_s {
    const ngx_agent_multipart_cb_t  *cb;
    void                            *ctx;
    const char                      *why;
    ngx_agent_multipart_state_e      state;
    ngx_int_t                        rc;         /* if FAILED */
    ngx_uint_t                       parts;

    size_t                           matched;    /* bytes of the delimiter */
    size_t                           assumed;    /* of these, not really read */
    size_t                           delim_len;
    u_char                           delim[NGX_AGENT_MULTIPART_BOUNDARY + 4];

    ngx_agent_multipart_part_t       part;
    size_t                           header_len;
    u_char                           header[NGX_AGENT_MULTIPART_HEADER];
};


static ngx_int_t ngx_agent_multipart_step(ngx_agent_multipart_t *m, u_char **p,
    u_char *end);
static ngx_int_t ngx_agent_multipart_after(ngx_agent_multipart_t *m, u_char c);
static ngx_int_t ngx_agent_multipart_header(ngx_agent_multipart_t *m,
    u_char c);
static ngx_int_t ngx_agent_multipart_content(ngx_agent_multipart_t *m,
    u_char **pos, u_char *end);
static ngx_int_t ngx_agent_multipart_emit(ngx_agent_multipart_t *m, u_char *p,
    size_t n);
static ngx_int_t ngx_agent_multipart_delimiter(ngx_agent_multipart_t *m);
static ngx_int_t ngx_agent_multipart_broken(ngx_agent_multipart_t *m,
    const char *why);


ngx_agent_multipart_t *
ngx_agent_multipart_create(ngx_pool_t *pool, ngx_str_t *content_type,
    const ngx_agent_multipart_cb_t *cb, void *ctx, const char **why)
{
    u_char                  boundary[NGX_AGENT_MULTIPART_BOUNDARY];
    size_t                  len;
    ngx_agent_multipart_t  *m;

    *why = ngx_agent_multipart_boundary(content_type, boundary, &len);
    if (*why) {
        return NULL;
    }

    m = ngx_palloc(pool, sizeof(ngx_agent_multipart_t));
    if (m == NULL) {
        return NULL;
    }

    /* the header's bytes need no zeroes */
    ngx_memzero(m, offsetof(ngx_agent_multipart_t, header));

    m->cb = cb;
    m->ctx = ctx;

    ngx_memcpy(m->delim, "\r\n--", 4);
    ngx_memcpy(m->delim + 4, boundary, len);
    m->delim_len = len + 4;

    /* the first boundary may stand at the very start: as if after CR LF */
    m->matched = 2;
    m->assumed = 2;

    return m;
}


const char *
ngx_agent_multipart_why(ngx_agent_multipart_t *m)
{
    return m->why;
}


ngx_int_t
ngx_agent_multipart_feed(ngx_agent_multipart_t *m, u_char *p, size_t n)
{
    u_char     *end;
    ngx_int_t   rc;

    if (n == 0) {
        return (m->state == NGX_AGENT_MULTIPART_DONE) ? NGX_DONE : m->rc;
    }

    end = p + n;

    while (p < end) {

        if (m->state == NGX_AGENT_MULTIPART_DONE) {
            return NGX_DONE;
        }

        if (m->state == NGX_AGENT_MULTIPART_FAILED) {
            return m->rc;
        }

        rc = ngx_agent_multipart_step(m, &p, end);

        if (rc != NGX_OK) {
            m->state = NGX_AGENT_MULTIPART_FAILED;
            m->rc = rc;
        }
    }

    return (m->state == NGX_AGENT_MULTIPART_DONE) ? NGX_DONE : m->rc;
}


/* takes bytes, or gives up a match that took some before */

static ngx_int_t
ngx_agent_multipart_step(ngx_agent_multipart_t *m, u_char **p, u_char *end)
{
    u_char  c;

    if (m->state == NGX_AGENT_MULTIPART_PREAMBLE
        || m->state == NGX_AGENT_MULTIPART_CONTENT)
    {
        return ngx_agent_multipart_content(m, p, end);
    }

    c = *(*p)++;

    if (m->state == NGX_AGENT_MULTIPART_HEADER_LINES) {
        return ngx_agent_multipart_header(m, c);
    }

    return ngx_agent_multipart_after(m, c);
}


/* behind a boundary, up to the end of its line */

static ngx_int_t
ngx_agent_multipart_after(ngx_agent_multipart_t *m, u_char c)
{
    switch (m->state) {

    case NGX_AGENT_MULTIPART_DASH:
        if (c == '-') {
            m->state = NGX_AGENT_MULTIPART_DONE;
            return NGX_OK;
        }
        break;

    case NGX_AGENT_MULTIPART_LF:
        if (c != LF) {
            break;
        }

        if (++m->parts > NGX_AGENT_MULTIPART_PARTS) {
            return ngx_agent_multipart_broken(m, "has more than "
                                   ngx_value(NGX_AGENT_MULTIPART_PARTS)
                                   " parts");
        }

        m->state = NGX_AGENT_MULTIPART_HEADER_LINES;
        m->header_len = 0;
        return NGX_OK;

    case NGX_AGENT_MULTIPART_AFTER:
        if (c == '-') {
            m->state = NGX_AGENT_MULTIPART_DASH;
            return NGX_OK;
        }

        /* fall through */

    default: /* NGX_AGENT_MULTIPART_BLANK */
        if (c == CR) {
            m->state = NGX_AGENT_MULTIPART_LF;
            return NGX_OK;
        }

        if (c == ' ' || c == '\t') {
            m->state = NGX_AGENT_MULTIPART_BLANK;
            return NGX_OK;
        }
    }

    return ngx_agent_multipart_broken(m, "has a broken boundary line");
}


static ngx_int_t
ngx_agent_multipart_header(ngx_agent_multipart_t *m, u_char c)
{
    u_char      *h;
    size_t       n;
    const char  *why;

    if (m->header_len == NGX_AGENT_MULTIPART_HEADER) {
        return ngx_agent_multipart_broken(m, "has a part whose header is "
                               "larger than "
                               ngx_value(NGX_AGENT_MULTIPART_HEADER)
                               " bytes");
    }

    h = m->header;
    h[m->header_len++] = c;
    n = m->header_len;

    /* the empty line, which may also be the first */

    if (c != LF || n < 2 || h[n - 2] != CR
        || (n > 2 && (n < 4 || h[n - 3] != LF || h[n - 4] != CR)))
    {
        return NGX_OK;
    }

    why = ngx_agent_multipart_part(h, n - 2, &m->part);
    if (why) {
        return ngx_agent_multipart_broken(m, why);
    }

    m->state = NGX_AGENT_MULTIPART_CONTENT;

    /* an empty part's boundary has no CR LF but the header's last one */
    m->matched = 2;
    m->assumed = 2;

    return m->cb->begin(m->ctx, &m->part);
}


/*
 * Content or preamble up to a delimiter.  CR stands in a delimiter only as
 * its first byte, so after a mismatch no other start is possible but here,
 * and what had matched is content, word for word the delimiter's own bytes.
 */

static ngx_int_t
ngx_agent_multipart_content(ngx_agent_multipart_t *m, u_char **pos,
    u_char *end)
{
    u_char     *p;
    size_t      n;
    ngx_int_t   rc;

    p = *pos;

    if (m->matched == 0) {

        p = ngx_strlchr(p, end, CR);
        if (p == NULL) {
            p = end;
        }

        rc = ngx_agent_multipart_emit(m, *pos, p - *pos);

        if (p < end) {
            m->matched = 1;
            p++;
        }

        *pos = p;

        return rc;
    }

    while (p < end && m->matched < m->delim_len && *p == m->delim[m->matched]) {
        p++;
        m->matched++;
    }

    *pos = p;

    if (m->matched == m->delim_len) {
        return ngx_agent_multipart_delimiter(m);
    }

    if (p == end) {
        return NGX_OK;
    }

    p = m->delim + m->assumed;
    n = m->matched - m->assumed;

    m->matched = 0;
    m->assumed = 0;

    return ngx_agent_multipart_emit(m, p, n);
}


static ngx_int_t
ngx_agent_multipart_emit(ngx_agent_multipart_t *m, u_char *p, size_t n)
{
    if (n == 0 || m->state == NGX_AGENT_MULTIPART_PREAMBLE) {
        return NGX_OK;
    }

    return m->cb->data(m->ctx, p, n);
}


static ngx_int_t
ngx_agent_multipart_delimiter(ngx_agent_multipart_t *m)
{
    ngx_agent_multipart_state_e  was;

    was = m->state;

    m->state = NGX_AGENT_MULTIPART_AFTER;
    m->matched = 0;
    m->assumed = 0;

    if (was == NGX_AGENT_MULTIPART_PREAMBLE) {
        return NGX_OK;
    }

    return m->cb->end(m->ctx);
}


static ngx_int_t
ngx_agent_multipart_broken(ngx_agent_multipart_t *m, const char *why)
{
    m->why = why;

    return NGX_DECLINED;
}
