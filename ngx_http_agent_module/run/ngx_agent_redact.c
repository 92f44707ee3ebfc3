
/*
 * A secret taken out of texts.  Bytes only: knows no step and no request.
 *
 * A text is read in units: a byte, or at each further depth what an escape
 * of JSON stands for there.  A match begins and ends with a whole unit, so
 * what is left keeps its form.
 */

#include "ngx_agent_redact.h"
#include "ngx_agent_utf8.h"


/*
 * Bytes that are searched for; of a longer secret that many count as a
 * match, which then goes on for as long as it fits.
 */
#define NGX_AGENT_REDACT_NEEDLE  1024

/* JSON in JSON in a text */
#define NGX_AGENT_REDACT_DEPTH   2


typedef struct {
    ngx_agent_redact_t        *r;
    ngx_pool_t                *pool;
    u_char                    *p;
    u_char                    *end;
    u_char                    *copied;       /* up to here it is in out */
    ngx_uint_t                 depth;
    size_t                     matched;
    size_t                     count;        /* bytes looked at */
    ngx_str_t                  out;          /* data NULL: no match so far */
} ngx_agent_redact_scan_t;


/* text that grows */

typedef struct {
    ngx_pool_t                *pool;
    u_char                    *start;
    size_t                     len;
    size_t                     size;
} ngx_agent_redact_out_t;


static void ngx_agent_redact_table(ngx_agent_redact_t *r);
static ngx_int_t ngx_agent_redact_pass(ngx_agent_redact_t *r,
    ngx_pool_t *pool, ngx_str_t *text, ngx_uint_t depth);
static ngx_int_t ngx_agent_redact_cut(ngx_agent_redact_t *r, ngx_pool_t *pool,
    ngx_str_t *text);
static u_char *ngx_agent_redact_tail(ngx_agent_redact_t *r, ngx_str_t *text,
    ngx_uint_t depth);
static ngx_uint_t ngx_agent_redact_byte(ngx_agent_redact_scan_t *s, u_char c,
    u_char *start);
static ngx_int_t ngx_agent_redact_hit(ngx_agent_redact_scan_t *s);
static void ngx_agent_redact_extend(ngx_agent_redact_scan_t *s);
static size_t ngx_agent_redact_unit(u_char **pos, u_char *end,
    ngx_uint_t depth, u_char *out, ngx_uint_t *more);
static ngx_int_t ngx_agent_redact_hex(u_char **pos, u_char *end,
    ngx_uint_t depth, uint32_t *code, ngx_uint_t *more);
static ngx_int_t ngx_agent_redact_code(u_char **pos, u_char *end,
    ngx_uint_t depth, uint32_t *code, ngx_uint_t *more);
static u_char *ngx_agent_redact_string_end(u_char *p, u_char *end);
static u_char *ngx_agent_redact_word_end(u_char *p, u_char *end);
static ngx_int_t ngx_agent_redact_literal(ngx_agent_redact_t *r,
    ngx_pool_t *pool, ngx_str_t *literal);
static ngx_int_t ngx_agent_redact_word(ngx_agent_redact_t *r,
    ngx_pool_t *pool, ngx_str_t *word);
static ngx_int_t ngx_agent_redact_put(ngx_agent_redact_out_t *out,
    ngx_str_t *piece, size_t hint);


/* white space, and the control characters that some make into it */

#define ngx_agent_redact_is_space(c)  ((c) <= ' ')


ngx_agent_redact_t *
ngx_agent_redact_create(ngx_pool_t *pool, ngx_str_t *secret)
{
    u_char              *p, *last;
    size_t               n;
    ngx_agent_redact_t  *r;

    r = ngx_pcalloc(pool, sizeof(ngx_agent_redact_t));
    if (r == NULL) {
        return NULL;
    }

    p = secret->data;
    last = p + secret->len;

    while (p < last && ngx_agent_redact_is_space(*p)) {
        p++;
    }

    while (p < last && ngx_agent_redact_is_space(last[-1])) {
        last--;
    }

    if (last - p < NGX_AGENT_REDACT_MIN) {
        return r;
    }

    n = ngx_min((size_t) (last - p), NGX_AGENT_REDACT_NEEDLE);

    r->needle = ngx_pnalloc(pool, last - p);
    r->fail = ngx_palloc(pool, n * sizeof(size_t));
    r->ring = ngx_palloc(pool, n * sizeof(u_char *));

    if (r->needle == NULL || r->fail == NULL || r->ring == NULL) {
        return NULL;
    }

    for (n = 0; p + n < last; n++) {
        if (!ngx_agent_redact_is_space(p[n])) {
            r->needle[r->size++] = p[n];
        }
    }

    r->loose = 1;

    if (r->size < NGX_AGENT_REDACT_MIN) {

        /* "a b c" is one, "abc" is not */

        ngx_memcpy(r->needle, p, last - p);
        r->size = last - p;
        r->loose = 0;
    }

    r->len = ngx_min(r->size, NGX_AGENT_REDACT_NEEDLE);

    ngx_agent_redact_table(r);

    return r;
}


/* fail[i]: the longest end of needle[0..i] that is a beginning of it, too */

static void
ngx_agent_redact_table(ngx_agent_redact_t *r)
{
    size_t  i, k;

    k = 0;
    r->fail[0] = 0;

    for (i = 1; i < r->len; i++) {

        while (k && r->needle[i] != r->needle[k]) {
            k = r->fail[k - 1];
        }

        if (r->needle[i] == r->needle[k]) {
            k++;
        }

        r->fail[i] = k;
    }
}


ngx_int_t
ngx_agent_redact_text(ngx_agent_redact_t *r, ngx_pool_t *pool,
    ngx_str_t *text, ngx_uint_t cut)
{
    ngx_uint_t  depth;

    for (depth = 0; depth <= NGX_AGENT_REDACT_DEPTH; depth++) {

        if (text->len == 0
            || (depth && ngx_strlchr(text->data, text->data + text->len, '\\')
                         == NULL))
        {
            break;
        }

        if (ngx_agent_redact_pass(r, pool, text, depth) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return cut ? ngx_agent_redact_cut(r, pool, text) : NGX_OK;
}


static ngx_int_t
ngx_agent_redact_pass(ngx_agent_redact_t *r, ngx_pool_t *pool,
    ngx_str_t *text, ngx_uint_t depth)
{
    size_t                    i, n;
    u_char                    unit[4], *start;
    ngx_uint_t                more;
    ngx_agent_redact_scan_t   s;

    if (r->len == 0) {
        return NGX_OK;
    }

    ngx_memzero(&s, sizeof(ngx_agent_redact_scan_t));

    s.r = r;
    s.pool = pool;
    s.p = text->data;
    s.end = text->data + text->len;
    s.copied = s.p;
    s.depth = depth;

    while (s.p < s.end) {
        start = s.p;
        n = ngx_agent_redact_unit(&s.p, s.end, depth, unit, &more);

        for (i = 0; i < n; i++) {

            if (ngx_agent_redact_byte(&s, unit[i], start)) {

                if (ngx_agent_redact_hit(&s) != NGX_OK) {
                    return NGX_ERROR;
                }

                break;
            }
        }
    }

    if (s.out.data) {
        n = s.end - s.copied;
        ngx_memcpy(s.out.data + s.out.len, s.copied, n);

        text->data = s.out.data;
        text->len = s.out.len + n;
    }

    return NGX_OK;
}


/*
 * The beginning of the secret at the end of a text: the one that goes back
 * furthest, at whichever depth, as the secret may begin with what stands in
 * its middle.
 */

static ngx_int_t
ngx_agent_redact_cut(ngx_agent_redact_t *r, ngx_pool_t *pool, ngx_str_t *text)
{
    u_char      *p, *tail, *start;
    ngx_uint_t   depth;

    if (r->len == 0 || text->len == 0) {
        return NGX_OK;
    }

    tail = text->data + text->len;

    for (depth = 0; depth <= NGX_AGENT_REDACT_DEPTH; depth++) {
        start = ngx_agent_redact_tail(r, text, depth);
        tail = ngx_min(tail, start);
    }

    if (tail == text->data + text->len) {
        return NGX_OK;
    }

    start = text->data;
    text->len = tail - start;

    p = ngx_pnalloc(pool, text->len + sizeof(NGX_AGENT_REDACT_MARK) - 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    text->data = p;

    p = ngx_cpymem(p, start, text->len);
    p = ngx_cpymem(p, NGX_AGENT_REDACT_MARK,
                   sizeof(NGX_AGENT_REDACT_MARK) - 1);

    text->len = p - text->data;

    return NGX_OK;
}


/* Where it is at one depth, which may end within an escape; or the end. */

static u_char *
ngx_agent_redact_tail(ngx_agent_redact_t *r, ngx_str_t *text, ngx_uint_t depth)
{
    size_t                    i, n;
    u_char                    unit[4], *start;
    ngx_uint_t                more;
    ngx_agent_redact_scan_t   s;

    ngx_memzero(&s, sizeof(ngx_agent_redact_scan_t));

    s.r = r;
    s.p = text->data;
    s.end = text->data + text->len;

    while (s.p < s.end) {
        start = s.p;
        n = ngx_agent_redact_unit(&s.p, s.end, depth, unit, &more);

        if (more) {
            break;
        }

        for (i = 0; i < n; i++) {

            if (ngx_agent_redact_byte(&s, unit[i], start)) {
                s.matched = 0;
                break;
            }
        }
    }

    if (s.matched < NGX_AGENT_REDACT_MIN) {
        return s.end;
    }

    return r->ring[(s.count - s.matched) % r->len];
}


/* The next byte of what the text says; 1 when it completes a match. */

static ngx_uint_t
ngx_agent_redact_byte(ngx_agent_redact_scan_t *s, u_char c, u_char *start)
{
    ngx_agent_redact_t  *r;

    r = s->r;

    if (r->loose && ngx_agent_redact_is_space(c)) {
        return 0;
    }

    r->ring[s->count++ % r->len] = start;

    while (s->matched && c != r->needle[s->matched]) {
        s->matched = r->fail[s->matched - 1];
    }

    if (c == r->needle[s->matched]) {
        s->matched++;
    }

    return s->matched == r->len;
}


/* The last bytes looked at are the secret, or as much of it as counts. */

static ngx_int_t
ngx_agent_redact_hit(ngx_agent_redact_scan_t *s)
{
    size_t   size;
    u_char  *start, *p;

    start = s->r->ring[s->count % s->r->len];

    if (s->out.data == NULL) {

        /* at worst each MIN bytes become a mark */

        size = (s->end - s->copied) / NGX_AGENT_REDACT_MIN
               * (sizeof(NGX_AGENT_REDACT_MARK) - 1)
               + sizeof(NGX_AGENT_REDACT_MARK) + NGX_AGENT_REDACT_MIN;

        s->out.data = ngx_pnalloc(s->pool, size);
        if (s->out.data == NULL) {
            return NGX_ERROR;
        }
    }

    p = ngx_cpymem(s->out.data + s->out.len, s->copied, start - s->copied);
    p = ngx_cpymem(p, NGX_AGENT_REDACT_MARK,
                   sizeof(NGX_AGENT_REDACT_MARK) - 1);

    s->out.len = p - s->out.data;

    ngx_agent_redact_extend(s);

    s->copied = s->p;
    s->matched = 0;

    return NGX_OK;
}


/* What a long secret has beyond the part that is searched for. */

static void
ngx_agent_redact_extend(ngx_agent_redact_scan_t *s)
{
    size_t               i, k, n;
    u_char               unit[4], *p;
    ngx_uint_t           more;
    ngx_agent_redact_t  *r;

    r = s->r;
    k = r->len;

    while (s->p < s->end && k < r->size) {
        p = s->p;
        n = ngx_agent_redact_unit(&p, s->end, s->depth, unit, &more);

        for (i = 0; i < n; i++) {

            if (r->loose && ngx_agent_redact_is_space(unit[i])) {
                continue;
            }

            if (k == r->size || unit[i] != r->needle[k]) {
                return;
            }

            k++;
        }

        s->p = p;
    }
}


/*
 * Reads a unit: 1 to 4 bytes into out; returns how many.  *pos < end.  What
 * begins like an escape and is none is a backslash, and what follows.  more:
 * it would be another one if the text went on.
 */

static size_t
ngx_agent_redact_unit(u_char **pos, u_char *end, ngx_uint_t depth, u_char *out,
    ngx_uint_t *more)
{
    size_t     n;
    u_char     c[4], *p;
    uint32_t   code;

    *more = 0;

    if (depth == 0) {
        out[0] = *(*pos)++;
        return 1;
    }

    n = ngx_agent_redact_unit(pos, end, depth - 1, out, more);

    if (n != 1 || out[0] != '\\' || *more) {
        return n;
    }

    if (*pos == end) {
        *more = 1;
        return n;
    }

    p = *pos;

    if (ngx_agent_redact_unit(&p, end, depth - 1, c, more) != 1 || *more) {
        return 1;
    }

    switch (c[0]) {

    case '"':
    case '\\':
    case '/':
        out[0] = c[0];
        break;

    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        out[0] = LF;                         /* all of them are space */
        break;

    case 'u':
        if (ngx_agent_redact_code(&p, end, depth - 1, &code, more) != NGX_OK)
        {
            return 1;
        }

        n = ngx_agent_utf8_write(out, code) - out;
        break;

    default:
        return 1;
    }

    *pos = p;

    return n;
}


/* What stands behind "\u"; a pair of surrogates is one character. */

static ngx_int_t
ngx_agent_redact_code(u_char **pos, u_char *end, ngx_uint_t depth,
    uint32_t *code, ngx_uint_t *more)
{
    size_t     i, n;
    u_char     c[4], *p;
    uint32_t   low;

    static u_char  next[] = { '\\', 'u' };

    if (ngx_agent_redact_hex(pos, end, depth, code, more) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (*code < 0xd800 || *code > 0xdfff) {
        return NGX_OK;
    }

    p = *pos;

    for (i = 0; i < sizeof(next); i++) {

        if (p == end) {
            *more = 1;
            goto lone;
        }

        n = ngx_agent_redact_unit(&p, end, depth, c, more);

        if (n != 1 || c[0] != next[i]) {
            goto lone;
        }
    }

    if (*code > 0xdbff
        || ngx_agent_redact_hex(&p, end, depth, &low, more) != NGX_OK
        || low < 0xdc00 || low > 0xdfff)
    {
        goto lone;
    }

    *code = 0x10000 + ((*code - 0xd800) << 10) + (low - 0xdc00);
    *pos = p;

    return NGX_OK;

lone:

    *code = 0xfffd;

    return NGX_OK;
}


static ngx_int_t
ngx_agent_redact_hex(u_char **pos, u_char *end, ngx_uint_t depth,
    uint32_t *code, ngx_uint_t *more)
{
    u_char      c[4], *p;
    ngx_int_t   digit;
    ngx_uint_t  i;

    p = *pos;
    *code = 0;

    for (i = 0; i < 4; i++) {

        if (p == end) {
            *more = 1;
            return NGX_DECLINED;
        }

        if (ngx_agent_redact_unit(&p, end, depth, c, more) != 1) {
            return NGX_DECLINED;
        }

        digit = ngx_hextoi(c, 1);

        if (digit == NGX_ERROR) {
            return NGX_DECLINED;
        }

        *code = *code * 16 + digit;
    }

    *pos = p;

    return NGX_OK;
}


ngx_int_t
ngx_agent_redact_json(ngx_agent_redact_t *r, ngx_pool_t *pool, ngx_str_t *doc)
{
    u_char                  *p, *end;
    ngx_int_t                rc;
    ngx_str_t                piece;
    ngx_uint_t               opened, quoted;
    ngx_agent_redact_out_t   out;

    if (r->len == 0) {
        return NGX_OK;
    }

    ngx_memzero(&out, sizeof(ngx_agent_redact_out_t));
    out.pool = pool;

    rc = NGX_OK;
    opened = 0;
    quoted = 0;

    p = doc->data;
    end = p + doc->len;

    while (p < end) {
        piece.data = p;

        /* the quotes are no part of what is searched, only of what is kept */

        if (quoted) {
            p = ngx_agent_redact_string_end(p, end);
            piece.len = p - piece.data;
            rc = ngx_agent_redact_literal(r, pool, &piece);
            quoted = 0;

        } else if (*p == '"') {
            piece.len = 1;
            opened = !opened;
            quoted = opened;
            p++;

        } else {
            p = ngx_agent_redact_word_end(p, end);
            piece.len = p - piece.data;
            rc = ngx_agent_redact_word(r, pool, &piece);
        }

        if (rc != NGX_OK
            || ngx_agent_redact_put(&out, &piece, doc->len) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    doc->data = out.start;
    doc->len = out.len;

    return NGX_OK;
}


/* a string's closing quote */

static u_char *
ngx_agent_redact_string_end(u_char *p, u_char *end)
{
    while (p < end && *p != '"') {
        p += (*p == '\\' && end - p > 1) ? 2 : 1;
    }

    return p;
}


/* behind a number or literal, or else a single character */

static u_char *
ngx_agent_redact_word_end(u_char *p, u_char *end)
{
    u_char  *start;

    start = p;

    while (p < end && !ngx_agent_redact_is_space(*p)
           && ngx_strchr("{}[],:\"", *p) == NULL)
    {
        p++;
    }

    return (p == start) ? p + 1 : p;
}


/* A string, without its quotes. */

static ngx_int_t
ngx_agent_redact_literal(ngx_agent_redact_t *r, ngx_pool_t *pool,
    ngx_str_t *literal)
{
    ngx_uint_t  depth;

    for (depth = 1; depth <= 1 + NGX_AGENT_REDACT_DEPTH; depth++) {

        if (ngx_agent_redact_pass(r, pool, literal, depth) != NGX_OK) {
            return NGX_ERROR;
        }

        if (ngx_strlchr(literal->data, literal->data + literal->len, '\\')
            == NULL)
        {
            break;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_agent_redact_word(ngx_agent_redact_t *r, ngx_pool_t *pool,
    ngx_str_t *word)
{
    u_char  *p;

    p = word->data;

    if (ngx_agent_redact_pass(r, pool, word, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    if (word->data != p) {
        ngx_str_set(word, "\"" NGX_AGENT_REDACT_MARK "\"");
    }

    return NGX_OK;
}


/* Appends; "hint" is what it may well come to in all. */

static ngx_int_t
ngx_agent_redact_put(ngx_agent_redact_out_t *out, ngx_str_t *piece,
    size_t hint)
{
    u_char  *p;
    size_t   size;

    if (out->size - out->len < piece->len) {
        size = ngx_max(2 * out->size, hint + 64) + piece->len;

        p = ngx_pnalloc(out->pool, size);
        if (p == NULL) {
            return NGX_ERROR;
        }

        if (out->len) {
            ngx_memcpy(p, out->start, out->len);
            (void) ngx_pfree(out->pool, out->start);
        }

        out->start = p;
        out->size = size;
    }

    ngx_memcpy(out->start + out->len, piece->data, piece->len);
    out->len += piece->len;

    return NGX_OK;
}


void
ngx_agent_redact_wipe(ngx_agent_redact_t *r)
{
    if (r->needle) {
        ngx_explicit_memzero(r->needle, r->size);
    }

    r->len = 0;
    r->size = 0;
}
