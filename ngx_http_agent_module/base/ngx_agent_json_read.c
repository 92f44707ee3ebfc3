
/*
 * Reading JSON: yajl does the grammar, this file does what yajl is loose
 * about.  Bytes only; memory is the heap's, because yajl's is.
 *
 * yajl is never handed a part of a token.  It would scan a split string from
 * its first byte again at every feed (a megabyte that comes in tokens of an
 * LLM took minutes), its decoder mistakes lone surrogates for pairs, and it
 * lets ill-formed UTF-8 pass.  So the reader holds the bytes of an unfinished
 * token back, and repairs (incremental) or refuses (strict) whole strings.
 */

#include "ngx_agent_json.h"

#include <yajl/yajl_parse.h>


#define NGX_AGENT_JSON_PATH  255


/* what stands in a string at one place */

typedef enum {
    NGX_AGENT_JSON_UNIT_GOOD = 0,
    NGX_AGENT_JSON_UNIT_NUL,          /* the escape of U+0000 */
    NGX_AGENT_JSON_UNIT_SURROGATE,    /* an escape of half a character */
    NGX_AGENT_JSON_UNIT_BAD           /* no UTF-8 */
} ngx_agent_json_unit_e;


typedef struct {
    size_t                     len;       /* of the container's own path */
    ngx_uint_t                 index;     /* of an array's next element */
    unsigned                   array:1;
} ngx_agent_json_level_t;


struct ngx_agent_json_reader_s {
    yajl_handle                yajl;
    ngx_agent_json_pt          handler;
    void                      *data;
    ngx_int_t                  rc;
    const char                *why;

    /* the bytes since the last whole token */
    u_char                    *held;
    size_t                     held_len;
    size_t                     held_size;
    unsigned                   in_string:1;
    unsigned                   escaped:1;

    ngx_uint_t                 depth;
    ngx_agent_json_level_t     levels[NGX_AGENT_JSON_DEPTH + 1];
    size_t                     path_len;
    u_char                     path[NGX_AGENT_JSON_PATH];
};


static ngx_int_t ngx_agent_json_reader_init(ngx_agent_json_reader_t *r,
    ngx_agent_json_pt handler, void *data);
static size_t ngx_agent_json_scan(ngx_agent_json_reader_t *r, const u_char *p,
    size_t n);
static ngx_int_t ngx_agent_json_hold(ngx_agent_json_reader_t *r,
    const u_char *p, size_t n);
static ngx_int_t ngx_agent_json_tokens(ngx_agent_json_reader_t *r,
    const u_char *p, size_t n);
static ngx_int_t ngx_agent_json_parse(ngx_agent_json_reader_t *r,
    const u_char *p, size_t n);
static ngx_int_t ngx_agent_json_status(ngx_agent_json_reader_t *r,
    yajl_status status);
static u_char *ngx_agent_json_repair(const u_char *p, size_t n, size_t *len);
static ngx_agent_json_unit_e ngx_agent_json_unit(const u_char *p,
    const u_char *end, size_t *n);
static ngx_agent_json_unit_e ngx_agent_json_unit_escape(const u_char *p,
    const u_char *end, size_t *n);
static const char *ngx_agent_json_strict(ngx_str_t *doc);
static int ngx_agent_json_value(ngx_agent_json_reader_t *r,
    ngx_agent_json_type_e type, const void *p, size_t n);
static void ngx_agent_json_path(ngx_agent_json_reader_t *r, const u_char *key,
    size_t len);
static int ngx_agent_json_open_level(ngx_agent_json_reader_t *r,
    ngx_uint_t array);

static int ngx_agent_json_on_null(void *ctx);
static int ngx_agent_json_on_bool(void *ctx, int b);
static int ngx_agent_json_on_number(void *ctx, const char *p, size_t n);
static int ngx_agent_json_on_string(void *ctx, const unsigned char *p,
    size_t n);
static int ngx_agent_json_on_object(void *ctx);
static int ngx_agent_json_on_key(void *ctx, const unsigned char *p, size_t n);
static int ngx_agent_json_on_array(void *ctx);
static int ngx_agent_json_on_end(void *ctx);


static const yajl_callbacks  ngx_agent_json_callbacks = {
    ngx_agent_json_on_null,
    ngx_agent_json_on_bool,
    NULL,
    NULL,
    ngx_agent_json_on_number,
    ngx_agent_json_on_string,
    ngx_agent_json_on_object,
    ngx_agent_json_on_key,
    ngx_agent_json_on_end,
    ngx_agent_json_on_array,
    ngx_agent_json_on_end
};


ngx_agent_json_reader_t *
ngx_agent_json_reader_create(ngx_agent_json_pt handler, void *data)
{
    ngx_agent_json_reader_t  *r;

    r = malloc(sizeof(ngx_agent_json_reader_t));
    if (r == NULL) {
        return NULL;
    }

    if (ngx_agent_json_reader_init(r, handler, data) != NGX_OK) {
        free(r);
        return NULL;
    }

    return r;
}


static ngx_int_t
ngx_agent_json_reader_init(ngx_agent_json_reader_t *r,
    ngx_agent_json_pt handler, void *data)
{
    /* the path's bytes need no zeroes */
    ngx_memzero(r, offsetof(ngx_agent_json_reader_t, path));

    r->handler = handler;
    r->data = data;

    r->yajl = yajl_alloc(&ngx_agent_json_callbacks, NULL, r);
    if (r->yajl == NULL) {
        return NGX_ERROR;
    }

    (void) yajl_config(r->yajl, yajl_dont_validate_strings, 1);

    return NGX_OK;
}


void
ngx_agent_json_reader_free(ngx_agent_json_reader_t *r)
{
    yajl_free(r->yajl);
    free(r->held);
    free(r);
}


ngx_int_t
ngx_agent_json_reader_feed(ngx_agent_json_reader_t *r, const u_char *p,
    size_t n)
{
    size_t  whole;

    if (r->rc != NGX_OK || n == 0) {
        return r->rc;
    }

    whole = ngx_agent_json_scan(r, p, n);

    if (whole == 0) {
        return ngx_agent_json_hold(r, p, n);
    }

    if (r->held_len == 0) {
        if (ngx_agent_json_tokens(r, p, whole) != NGX_OK) {
            return r->rc;
        }

    } else {
        if (ngx_agent_json_hold(r, p, whole) != NGX_OK) {
            return r->rc;
        }

        if (ngx_agent_json_tokens(r, r->held, r->held_len) != NGX_OK) {
            return r->rc;
        }

        r->held_len = 0;
    }

    return ngx_agent_json_hold(r, p + whole, n - whole);
}


ngx_int_t
ngx_agent_json_reader_finish(ngx_agent_json_reader_t *r)
{
    if (r->rc != NGX_OK) {
        return r->rc;
    }

    if (r->in_string) {
        r->rc = NGX_DECLINED;
        return r->rc;
    }

    /* a number or a word at the very end */

    if (ngx_agent_json_parse(r, r->held, r->held_len) != NGX_OK) {
        return r->rc;
    }

    r->held_len = 0;

    return ngx_agent_json_status(r, yajl_complete_parse(r->yajl));
}


/*
 * How many of the bytes lie before the end of the last whole token: a string
 * ends with its quote, a number or a word with what stands behind it.
 */

static size_t
ngx_agent_json_scan(ngx_agent_json_reader_t *r, const u_char *p, size_t n)
{
    size_t  i, whole;

    whole = 0;

    for (i = 0; i < n; i++) {

        if (r->escaped) {
            r->escaped = 0;
            continue;
        }

        if (p[i] == '"') {
            r->in_string = !r->in_string;

            if (!r->in_string) {
                whole = i + 1;
            }

            continue;
        }

        if (r->in_string) {
            r->escaped = (p[i] == '\\');
            continue;
        }

        switch (p[i]) {
        case '{':
        case '}':
        case '[':
        case ']':
        case ':':
        case ',':
        case ' ':
        case '\t':
        case '\r':
        case '\n':
            whole = i + 1;
        }
    }

    return whole;
}


static ngx_int_t
ngx_agent_json_hold(ngx_agent_json_reader_t *r, const u_char *p, size_t n)
{
    u_char  *held;
    size_t   size;

    if (n == 0) {
        return NGX_OK;
    }

    if (r->held_size - r->held_len < n) {

        size = ngx_max(r->held_size * 2, r->held_len + n);
        size = ngx_max(size, 256);

        held = realloc(r->held, size);
        if (held == NULL) {
            r->rc = NGX_ERROR;
            return NGX_ERROR;
        }

        r->held = held;
        r->held_size = size;
    }

    ngx_memcpy(r->held + r->held_len, p, n);
    r->held_len += n;

    return NGX_OK;
}


/* whole tokens, with strings still as they came */

static ngx_int_t
ngx_agent_json_tokens(ngx_agent_json_reader_t *r, const u_char *p, size_t n)
{
    size_t      len;
    u_char     *copy;
    ngx_int_t   rc;

    copy = ngx_agent_json_repair(p, n, &len);

    if (copy == NULL && len) {
        r->rc = NGX_ERROR;
        return NGX_ERROR;
    }

    if (copy == NULL) {
        return ngx_agent_json_parse(r, p, n);
    }

    rc = ngx_agent_json_parse(r, copy, len);

    free(copy);

    return rc;
}


static ngx_int_t
ngx_agent_json_parse(ngx_agent_json_reader_t *r, const u_char *p, size_t n)
{
    if (n == 0) {
        return r->rc;
    }

    return ngx_agent_json_status(r, yajl_parse(r->yajl, p, n));
}


static ngx_int_t
ngx_agent_json_status(ngx_agent_json_reader_t *r, yajl_status status)
{
    /* when a callback stopped yajl, rc and why are set already */

    if (status == yajl_status_error) {
        r->rc = NGX_DECLINED;
        r->why = "is not valid JSON";
    }

    return r->rc;
}


/*
 * A copy of whole tokens with strings repaired, *len bytes, to be freed.
 * NULL with *len 0 when nothing needs it; NULL with *len not 0: no memory.
 */

static u_char *
ngx_agent_json_repair(const u_char *p, size_t n, size_t *len)
{
    size_t                  unit_len;
    u_char                 *copy, *q;
    ngx_uint_t              in_string;
    const u_char           *start, *end;
    ngx_agent_json_unit_e   unit;

    start = p;
    end = p + n;
    copy = NULL;
    q = NULL;
    in_string = 0;
    *len = 0;

    for ( /* void */ ; p < end; p += unit_len) {

        unit = NGX_AGENT_JSON_UNIT_GOOD;
        unit_len = 1;

        if (*p == '"') {
            in_string = !in_string;

        } else if (in_string) {
            unit = ngx_agent_json_unit(p, end, &unit_len);
        }

        if (unit != NGX_AGENT_JSON_UNIT_GOOD && copy == NULL) {

            /* one bad byte may become three */

            copy = malloc(n * NGX_AGENT_UTF8_BAD_LEN);
            if (copy == NULL) {
                *len = n;
                return NULL;
            }

            q = ngx_cpymem(copy, start, p - start);
        }

        if (copy == NULL || unit == NGX_AGENT_JSON_UNIT_NUL) {
            continue;
        }

        if (unit == NGX_AGENT_JSON_UNIT_GOOD) {
            q = ngx_cpymem(q, p, unit_len);

        } else {
            q = ngx_cpymem(q, NGX_AGENT_UTF8_BAD, NGX_AGENT_UTF8_BAD_LEN);
        }
    }

    *len = q - copy;

    return copy;
}


/* the character or escape at p, inside a string, p < end: *n bytes */

static ngx_agent_json_unit_e
ngx_agent_json_unit(const u_char *p, const u_char *end, size_t *n)
{
    if (*p == '\\') {
        return ngx_agent_json_unit_escape(p, end, n);
    }

    if (ngx_agent_utf8_next(p, end, n) != NGX_OK) {
        return NGX_AGENT_JSON_UNIT_BAD;
    }

    return NGX_AGENT_JSON_UNIT_GOOD;
}


static ngx_agent_json_unit_e
ngx_agent_json_unit_escape(const u_char *p, const u_char *end, size_t *n)
{
    ngx_int_t  code, low;

    *n = ngx_min(2, end - p);

    if (end - p < 6 || p[1] != 'u') {
        return NGX_AGENT_JSON_UNIT_GOOD;
    }

    code = ngx_hextoi((u_char *) p + 2, 4);

    if (code == NGX_ERROR) {
        /* yajl will say what it thinks of it */
        return NGX_AGENT_JSON_UNIT_GOOD;
    }

    *n = 6;

    if (code == 0) {
        return NGX_AGENT_JSON_UNIT_NUL;
    }

    if (code < 0xd800 || code > 0xdfff) {
        return NGX_AGENT_JSON_UNIT_GOOD;
    }

    if (code < 0xdc00 && end - p >= 12 && p[6] == '\\' && p[7] == 'u') {

        low = ngx_hextoi((u_char *) p + 8, 4);

        if (low >= 0xdc00 && low <= 0xdfff) {
            *n = 12;
            return NGX_AGENT_JSON_UNIT_GOOD;
        }
    }

    return NGX_AGENT_JSON_UNIT_SURROGATE;
}


ngx_int_t
ngx_agent_json_read(ngx_str_t *doc, ngx_agent_json_pt handler, void *data,
    const char **why)
{
    ngx_int_t                rc;
    ngx_agent_json_reader_t  r;

    *why = ngx_agent_json_strict(doc);
    if (*why) {
        return NGX_DECLINED;
    }

    if (ngx_agent_json_reader_init(&r, handler, data) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_agent_json_parse(&r, doc->data, doc->len);

    if (rc == NGX_OK) {
        rc = ngx_agent_json_status(&r, yajl_complete_parse(r.yajl));
    }

    *why = r.why;

    yajl_free(r.yajl);

    return rc;
}


/* what yajl lets pass and RFC 8259, RFC 3629 or Postgres do not */

static const char *
ngx_agent_json_strict(ngx_str_t *doc)
{
    size_t       n;
    u_char      *p, *end;
    ngx_uint_t   in_string;

    if (doc->len == 0) {
        return "is not valid JSON";
    }

    if (!ngx_agent_utf8_valid(doc->data, doc->len)) {
        return ngx_strlchr(doc->data, doc->data + doc->len, '\0')
               ? "has a NUL byte in it" : "is not valid UTF-8";
    }

    in_string = 0;
    end = doc->data + doc->len;

    for (p = doc->data; p < end; p += n) {

        n = 1;

        if (*p == '"') {
            in_string = !in_string;
            continue;
        }

        if (!in_string) {

            /* white space to yajl */

            if (*p == '\v' || *p == '\f') {
                return "is not valid JSON";
            }

            continue;
        }

        switch (ngx_agent_json_unit(p, end, &n)) {

        case NGX_AGENT_JSON_UNIT_NUL:
            return "has the character U+0000 in a string";

        case NGX_AGENT_JSON_UNIT_SURROGATE:
            return "has half a surrogate pair in a string";

        default:
            break;
        }
    }

    /* yajl overlooks an open string behind the value: 0" */

    return in_string ? "is not valid JSON" : NULL;
}


/* yajl's callbacks: 1 goes on, 0 stops it */

static int
ngx_agent_json_on_null(void *ctx)
{
    return ngx_agent_json_value(ctx, NGX_AGENT_JSON_NULL, "", 0);
}


static int
ngx_agent_json_on_bool(void *ctx, int b)
{
    if (b) {
        return ngx_agent_json_value(ctx, NGX_AGENT_JSON_BOOL, "true", 4);
    }

    return ngx_agent_json_value(ctx, NGX_AGENT_JSON_BOOL, "false", 5);
}


static int
ngx_agent_json_on_number(void *ctx, const char *p, size_t n)
{
    return ngx_agent_json_value(ctx, NGX_AGENT_JSON_NUMBER, p, n);
}


static int
ngx_agent_json_on_string(void *ctx, const unsigned char *p, size_t n)
{
    return ngx_agent_json_value(ctx, NGX_AGENT_JSON_STRING, p, n);
}


static int
ngx_agent_json_on_object(void *ctx)
{
    if (!ngx_agent_json_value(ctx, NGX_AGENT_JSON_OBJECT, "", 0)) {
        return 0;
    }

    return ngx_agent_json_open_level(ctx, 0);
}


static int
ngx_agent_json_on_array(void *ctx)
{
    if (!ngx_agent_json_value(ctx, NGX_AGENT_JSON_ARRAY, "", 0)) {
        return 0;
    }

    return ngx_agent_json_open_level(ctx, 1);
}


static int
ngx_agent_json_on_end(void *ctx)
{
    ngx_agent_json_reader_t  *r = ctx;

    r->depth--;

    return 1;
}


static int
ngx_agent_json_on_key(void *ctx, const unsigned char *p, size_t n)
{
    ngx_agent_json_path(ctx, p, n);

    return 1;
}


static int
ngx_agent_json_value(ngx_agent_json_reader_t *r, ngx_agent_json_type_e type,
    const void *p, size_t n)
{
    u_char                  *q, text[NGX_INT_T_LEN];
    ngx_uint_t               index;
    ngx_agent_json_level_t  *level;
    ngx_agent_json_value_t   v;

    level = &r->levels[r->depth];

    if (level->array) {
        q = text + sizeof(text);
        index = level->index++;

        do {
            *--q = (u_char) ('0' + index % 10);
            index /= 10;
        } while (index);

        ngx_agent_json_path(r, q, text + sizeof(text) - q);
    }

    if ((type == NGX_AGENT_JSON_OBJECT || type == NGX_AGENT_JSON_ARRAY)
        && r->depth == NGX_AGENT_JSON_DEPTH)
    {
        r->rc = NGX_DECLINED;
        r->why = "nests deeper than "
                 ngx_value(NGX_AGENT_JSON_DEPTH) " levels";
        return 0;
    }

    if (r->handler == NULL) {
        return 1;
    }

    v.path.data = r->path;
    v.path.len = r->path_len;
    v.type = type;
    v.text.data = (u_char *) p;
    v.text.len = n;

    r->rc = r->handler(r->data, &v);

    return r->rc == NGX_OK;
}


/* the path of a member or element of the innermost open container */

static void
ngx_agent_json_path(ngx_agent_json_reader_t *r, const u_char *key, size_t len)
{
    u_char  *p, *end;
    size_t   i;

    p = r->path + r->levels[r->depth].len;
    end = r->path + NGX_AGENT_JSON_PATH;

    if (r->depth > 1 && p < end) {
        *p++ = '.';
    }

    if (len == 0 && p < end) {
        *p++ = '\x01';
    }

    for (i = 0; i < len && p < end; i++) {
        *p++ = (key[i] == '.') ? '\x01' : key[i];
    }

    r->path_len = p - r->path;
}


static int
ngx_agent_json_open_level(ngx_agent_json_reader_t *r, ngx_uint_t array)
{
    ngx_agent_json_level_t  *level;

    /* value() has made sure that there is room */

    level = &r->levels[++r->depth];

    level->len = r->path_len;
    level->index = 0;
    level->array = array ? 1 : 0;

    return 1;
}
