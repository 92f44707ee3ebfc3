
/*
 * Writing JSON into a buffer of a pool that grows by doubling.  Whatever the
 * bytes given as a string are, the text is valid JSON in valid UTF-8: what is
 * no UTF-8 becomes U+FFFD.  Bytes only.
 */

#include "ngx_agent_json.h"
#include "ngx_agent_id.h"


static ngx_int_t ngx_agent_json_room(ngx_agent_json_t *j, size_t n);
static void ngx_agent_json_put(ngx_agent_json_t *j, const void *p, size_t n);
static void ngx_agent_json_open(ngx_agent_json_t *j, const char *text);
static void ngx_agent_json_close(ngx_agent_json_t *j, const char *text);
static void ngx_agent_json_broken(ngx_agent_json_t *j);
static const u_char *ngx_agent_json_special(ngx_agent_json_t *j,
    const u_char *p, const u_char *end);
static void ngx_agent_json_escape(ngx_agent_json_t *j, u_char c);
static size_t ngx_agent_json_carry(ngx_agent_json_t *j, const u_char *p,
    size_t n);


/* bytes that stand for themselves in a string; from 0x80 on none does */

static const u_char  ngx_agent_json_plain[256] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1
};


void
ngx_agent_json_init(ngx_agent_json_t *j, ngx_pool_t *pool, size_t hint)
{
    ngx_memzero(j, sizeof(ngx_agent_json_t));

    j->pool = pool;

    if (hint == 0) {
        hint = 256;
    }

    j->start = ngx_pnalloc(pool, hint);
    if (j->start == NULL) {
        j->failed = 1;
        return;
    }

    j->pos = j->start;
    j->end = j->start + hint;
}


static ngx_int_t
ngx_agent_json_room(ngx_agent_json_t *j, size_t n)
{
    u_char  *p;
    size_t   len, size;

    if (j->failed) {
        return NGX_ERROR;
    }

    if ((size_t) (j->end - j->pos) >= n) {
        return NGX_OK;
    }

    len = j->pos - j->start;
    size = ngx_max((size_t) (j->end - j->start) * 2, len + n);

    p = ngx_pnalloc(j->pool, size);
    if (p == NULL) {
        j->failed = 1;
        return NGX_ERROR;
    }

    ngx_memcpy(p, j->start, len);

    /* a small buffer stays in the pool; large ones are given back */
    (void) ngx_pfree(j->pool, j->start);

    j->start = p;
    j->pos = p + len;
    j->end = p + size;

    return NGX_OK;
}


static void
ngx_agent_json_put(ngx_agent_json_t *j, const void *p, size_t n)
{
    if (ngx_agent_json_room(j, n) != NGX_OK) {
        return;
    }

    j->pos = ngx_cpymem(j->pos, p, n);
}


/* before every value and every key */

static void
ngx_agent_json_open(ngx_agent_json_t *j, const char *text)
{
    if (j->comma) {
        ngx_agent_json_put(j, ",", 1);
    }

    ngx_agent_json_put(j, text, ngx_strlen(text));
    j->comma = 0;
}


/* behind every value */

static void
ngx_agent_json_close(ngx_agent_json_t *j, const char *text)
{
    ngx_agent_json_put(j, text, ngx_strlen(text));
    j->comma = 1;
}


void
ngx_agent_json_object(ngx_agent_json_t *j)
{
    ngx_agent_json_open(j, "{");
}


void
ngx_agent_json_object_end(ngx_agent_json_t *j)
{
    ngx_agent_json_close(j, "}");
}


void
ngx_agent_json_array(ngx_agent_json_t *j)
{
    ngx_agent_json_open(j, "[");
}


void
ngx_agent_json_array_end(ngx_agent_json_t *j)
{
    ngx_agent_json_close(j, "]");
}


void
ngx_agent_json_key(ngx_agent_json_t *j, const char *key)
{
    ngx_agent_json_open(j, "\"");
    ngx_agent_json_put(j, key, ngx_strlen(key));
    ngx_agent_json_put(j, "\":", 2);
}


void
ngx_agent_json_string(ngx_agent_json_t *j, ngx_str_t *s)
{
    if (s->data == NULL) {
        ngx_agent_json_null(j);
        return;
    }

    ngx_agent_json_string_begin(j);
    ngx_agent_json_string_part(j, s->data, s->len);
    ngx_agent_json_string_end(j);
}


void
ngx_agent_json_cstring(ngx_agent_json_t *j, const char *s)
{
    ngx_agent_json_string_begin(j);
    ngx_agent_json_string_part(j, (const u_char *) s, ngx_strlen(s));
    ngx_agent_json_string_end(j);
}


void
ngx_agent_json_id(ngx_agent_json_t *j, const ngx_agent_id_t *id)
{
    u_char  text[NGX_AGENT_ID_LEN];

    (void) ngx_agent_id_print(text, id);

    ngx_agent_json_open(j, "\"");
    ngx_agent_json_put(j, text, NGX_AGENT_ID_LEN);
    ngx_agent_json_close(j, "\"");
}


void
ngx_agent_json_int(ngx_agent_json_t *j, int64_t n)
{
    u_char    text[NGX_INT64_LEN], *p;
    uint64_t  rest;

    p = text + NGX_INT64_LEN;

    /* the smallest number has no positive twin in int64_t */
    rest = (n < 0) ? 0 - (uint64_t) n : (uint64_t) n;

    do {
        *--p = (u_char) ('0' + rest % 10);
        rest /= 10;
    } while (rest);

    ngx_agent_json_open(j, (n < 0) ? "-" : "");
    ngx_agent_json_put(j, p, text + NGX_INT64_LEN - p);
    ngx_agent_json_close(j, "");
}


void
ngx_agent_json_bool(ngx_agent_json_t *j, ngx_uint_t b)
{
    ngx_agent_json_open(j, b ? "true" : "false");
    ngx_agent_json_close(j, "");
}


void
ngx_agent_json_null(ngx_agent_json_t *j)
{
    ngx_agent_json_open(j, "null");
    ngx_agent_json_close(j, "");
}


void
ngx_agent_json_raw(ngx_agent_json_t *j, ngx_str_t *raw, const char *fallback)
{
    if (raw->len == 0) {
        ngx_agent_json_open(j, fallback);
        ngx_agent_json_close(j, "");
        return;
    }

    ngx_agent_json_open(j, "");
    ngx_agent_json_put(j, raw->data, raw->len);
    ngx_agent_json_close(j, "");
}


void
ngx_agent_json_string_begin(ngx_agent_json_t *j)
{
    j->carry_len = 0;
    ngx_agent_json_open(j, "\"");
}


void
ngx_agent_json_string_part(ngx_agent_json_t *j, const u_char *p, size_t n)
{
    u_char        *pos, *last;
    const u_char  *end;

    if (n == 0) {
        return;
    }

    end = p + n;
    p += ngx_agent_json_carry(j, p, n);

    /* most text needs no escapes: one test of room then serves it all */

    if (ngx_agent_json_room(j, end - p) != NGX_OK) {
        return;
    }

    while (p < end) {

        last = j->pos + ngx_min(j->end - j->pos, end - p);

        for (pos = j->pos; pos < last && ngx_agent_json_plain[*p]; p++) {
            *pos++ = *p;
        }

        j->pos = pos;

        if (p < end) {
            p = ngx_agent_json_special(j, p, end);
        }

        if (p == NULL) {
            return;
        }
    }
}


/*
 * What does not stand for itself in a string, or has no room: returns what
 * comes behind it, or NULL: the part ends in the middle of a character, or
 * there is no memory.
 */

static const u_char *
ngx_agent_json_special(ngx_agent_json_t *j, const u_char *p, const u_char *end)
{
    size_t     len;
    ngx_int_t  rc;

    if (*p < 0x80) {

        if (ngx_agent_json_plain[*p]) {
            ngx_agent_json_put(j, p, 1);

        } else {
            ngx_agent_json_escape(j, *p);
        }

        return j->failed ? NULL : p + 1;
    }

    rc = ngx_agent_utf8_next(p, end, &len);

    if (rc == NGX_AGAIN) {
        ngx_memcpy(j->carry, p, len);
        j->carry_len = (u_char) len;
        return NULL;
    }

    if (rc == NGX_DECLINED) {
        ngx_agent_json_put(j, NGX_AGENT_UTF8_BAD, NGX_AGENT_UTF8_BAD_LEN);

    } else {
        ngx_agent_json_put(j, p, len);
    }

    return j->failed ? NULL : p + len;
}


/*
 * A character that the last part had begun: takes from this one what belongs
 * to it, and returns how many bytes that was.
 */

static size_t
ngx_agent_json_carry(ngx_agent_json_t *j, const u_char *p, size_t n)
{
    size_t     used, len;
    ngx_int_t  rc;

    for (used = 0; j->carry_len && used < n; used++) {

        j->carry[j->carry_len] = p[used];

        rc = ngx_agent_utf8_next(j->carry, j->carry + j->carry_len + 1, &len);

        if (rc == NGX_AGAIN) {
            j->carry_len++;
            continue;
        }

        if (rc == NGX_OK) {
            ngx_agent_json_put(j, j->carry, len);
            used++;

        } else {
            /* this byte is no part of it and is looked at anew */
            ngx_agent_json_put(j, NGX_AGENT_UTF8_BAD, NGX_AGENT_UTF8_BAD_LEN);
        }

        j->carry_len = 0;
        break;
    }

    return used;
}


static void
ngx_agent_json_escape(ngx_agent_json_t *j, u_char c)
{
    u_char  text[6], *p;

    static const char  hex[] = "0123456789abcdef";

    p = text;
    *p++ = '\\';

    switch (c) {

    case '"':
    case '\\':
        *p++ = c;
        break;

    case '\b':
        *p++ = 'b';
        break;

    case '\f':
        *p++ = 'f';
        break;

    case '\n':
        *p++ = 'n';
        break;

    case '\r':
        *p++ = 'r';
        break;

    case '\t':
        *p++ = 't';
        break;

    default:
        *p++ = 'u';
        *p++ = '0';
        *p++ = '0';
        *p++ = hex[c >> 4];
        *p++ = hex[c & 0x0f];
    }

    ngx_agent_json_put(j, text, p - text);
}


/* a character that the last part had begun, and that does not go on */

static void
ngx_agent_json_broken(ngx_agent_json_t *j)
{
    if (j->carry_len) {
        ngx_agent_json_put(j, NGX_AGENT_UTF8_BAD, NGX_AGENT_UTF8_BAD_LEN);
        j->carry_len = 0;
    }
}


void
ngx_agent_json_string_raw(ngx_agent_json_t *j, ngx_str_t *raw)
{
    ngx_agent_json_broken(j);
    ngx_agent_json_put(j, raw->data, raw->len);
}


void
ngx_agent_json_string_end(ngx_agent_json_t *j)
{
    ngx_agent_json_broken(j);
    ngx_agent_json_close(j, "\"");
}


ngx_int_t
ngx_agent_json_done(ngx_agent_json_t *j, ngx_str_t *text)
{
    if (j->failed) {
        return NGX_ERROR;
    }

    text->data = j->start;
    text->len = j->pos - j->start;

    return NGX_OK;
}
