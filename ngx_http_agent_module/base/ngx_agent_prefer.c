
/*
 * Prefer (RFC 7240) and Idempotency-Key, from bytes.  No I/O, no allocation.
 */

#include "ngx_agent_prefer.h"


typedef struct {
    u_char                    *p;
    u_char                    *last;
} ngx_agent_prefer_text_t;


static ngx_int_t ngx_agent_prefer_one(ngx_agent_prefer_text_t *t,
    ngx_str_t *name, ngx_str_t *value);
static ngx_int_t ngx_agent_prefer_pair(ngx_agent_prefer_text_t *t,
    ngx_str_t *name, ngx_str_t *value);
static void ngx_agent_prefer_token(ngx_agent_prefer_text_t *t,
    ngx_str_t *token);
static ngx_int_t ngx_agent_prefer_quoted(ngx_agent_prefer_text_t *t,
    ngx_str_t *text);
static void ngx_agent_prefer_space(ngx_agent_prefer_text_t *t);
static void ngx_agent_prefer_skip(ngx_agent_prefer_text_t *t);
static void ngx_agent_prefer_take(ngx_agent_prefer_t *prefer,
    ngx_str_t *name, ngx_str_t *value);
static ngx_int_t ngx_agent_prefer_seconds(ngx_str_t *text, ngx_uint_t *n);
static ngx_uint_t ngx_agent_prefer_is_token(u_char c);


#define ngx_agent_prefer_at(t, c)  ((t)->p < (t)->last && *(t)->p == (c))

#define ngx_agent_prefer_is(s, text)                                          \
    ((s)->len == sizeof(text) - 1                                             \
     && ngx_strncasecmp((s)->data, (u_char *) text, sizeof(text) - 1) == 0)


void
ngx_agent_prefer_read(ngx_str_t *value, ngx_agent_prefer_t *prefer)
{
    ngx_str_t                name, word;
    ngx_agent_prefer_text_t  t;

    t.p = value->data;
    t.last = value->data + value->len;

    for ( ;; ) {

        ngx_agent_prefer_space(&t);

        if (t.p == t.last) {
            return;
        }

        if (*t.p == ',') {
            t.p++;
            continue;
        }

        if (ngx_agent_prefer_one(&t, &name, &word) == NGX_OK) {
            ngx_agent_prefer_take(prefer, &name, &word);

        } else {
            ngx_agent_prefer_skip(&t);
        }
    }
}


/*
 * One preference with its parameters, up to the comma or the end: none of
 * those we know has any.
 */

static ngx_int_t
ngx_agent_prefer_one(ngx_agent_prefer_text_t *t, ngx_str_t *name,
    ngx_str_t *value)
{
    ngx_str_t  param, word;

    if (ngx_agent_prefer_pair(t, name, value) != NGX_OK) {
        return NGX_DECLINED;
    }

    for ( ;; ) {

        ngx_agent_prefer_space(t);

        if (t->p == t->last || *t->p == ',') {
            return NGX_OK;
        }

        if (*t->p != ';') {
            return NGX_DECLINED;
        }

        t->p++;
        ngx_agent_prefer_space(t);

        if (t->p == t->last || *t->p == ',' || *t->p == ';') {
            /* a lone ";" is allowed */
            continue;
        }

        if (ngx_agent_prefer_pair(t, &param, &word) != NGX_OK) {
            return NGX_DECLINED;
        }
    }
}


/* token [ "=" word ]; no value is an empty one */

static ngx_int_t
ngx_agent_prefer_pair(ngx_agent_prefer_text_t *t, ngx_str_t *name,
    ngx_str_t *value)
{
    ngx_str_null(value);

    ngx_agent_prefer_token(t, name);

    if (name->len == 0) {
        return NGX_DECLINED;
    }

    ngx_agent_prefer_space(t);

    if (!ngx_agent_prefer_at(t, '=')) {
        return NGX_OK;
    }

    t->p++;
    ngx_agent_prefer_space(t);

    if (ngx_agent_prefer_at(t, '"')) {
        return ngx_agent_prefer_quoted(t, value);
    }

    ngx_agent_prefer_token(t, value);

    return NGX_OK;
}


static void
ngx_agent_prefer_token(ngx_agent_prefer_text_t *t, ngx_str_t *token)
{
    token->data = t->p;

    while (t->p < t->last && ngx_agent_prefer_is_token(*t->p)) {
        t->p++;
    }

    token->len = t->p - token->data;
}


/* Between the quotes, as it stands there: what we know has no escapes. */

static ngx_int_t
ngx_agent_prefer_quoted(ngx_agent_prefer_text_t *t, ngx_str_t *text)
{
    t->p++;
    text->data = t->p;

    while (t->p < t->last && *t->p != '"') {
        t->p += (*t->p == '\\' && t->p + 1 < t->last) ? 2 : 1;
    }

    text->len = t->p - text->data;

    if (t->p == t->last) {
        return NGX_DECLINED;
    }

    t->p++;

    return NGX_OK;
}


static void
ngx_agent_prefer_space(ngx_agent_prefer_text_t *t)
{
    while (t->p < t->last && (*t->p == ' ' || *t->p == '\t')) {
        t->p++;
    }
}


/* To the comma behind something that is no preference. */

static void
ngx_agent_prefer_skip(ngx_agent_prefer_text_t *t)
{
    ngx_str_t  text;

    while (t->p < t->last && *t->p != ',') {

        if (*t->p == '"') {
            (void) ngx_agent_prefer_quoted(t, &text);

        } else {
            t->p++;
        }
    }
}


static void
ngx_agent_prefer_take(ngx_agent_prefer_t *prefer, ngx_str_t *name,
    ngx_str_t *value)
{
    if (ngx_agent_prefer_is(name, "respond-async")) {

        if (!prefer->seen_async) {
            prefer->seen_async = 1;
            prefer->async = (value->len == 0);
        }

        return;
    }

    if (ngx_agent_prefer_is(name, "wait") && !prefer->seen_wait) {
        prefer->seen_wait = 1;

        if (ngx_agent_prefer_seconds(value, &prefer->wait) == NGX_OK) {
            prefer->has_wait = 1;
        }
    }
}


static ngx_int_t
ngx_agent_prefer_seconds(ngx_str_t *text, ngx_uint_t *n)
{
    size_t      i;
    ngx_uint_t  seconds;

    if (text->len == 0) {
        return NGX_DECLINED;
    }

    seconds = 0;

    for (i = 0; i < text->len; i++) {

        if (text->data[i] < '0' || text->data[i] > '9') {
            return NGX_DECLINED;
        }

        seconds = ngx_min(seconds * 10 + (text->data[i] - '0'),
                          NGX_AGENT_PREFER_WAIT);
    }

    *n = seconds;

    return NGX_OK;
}


/* RFC 9110: visible ASCII, but for the delimiters */

static ngx_uint_t
ngx_agent_prefer_is_token(u_char c)
{
    return c > 0x20 && c < 0x7f
           && ngx_strchr("\"(),/:;<=>?@[\\]{}", c) == NULL;
}


const char *
ngx_agent_prefer_key(ngx_str_t *value, u_char *buf, ngx_str_t *key)
{
    u_char      c, *p, *last;
    ngx_uint_t  quoted, open;

    p = value->data;
    last = value->data + value->len;

    while (p < last && (*p == ' ' || *p == '\t')) { p++; }
    while (p < last && (last[-1] == ' ' || last[-1] == '\t')) { last--; }

    quoted = (p < last && *p == '"');
    open = quoted;
    p += quoted;

    key->data = buf;
    key->len = 0;

    while (p < last) {

        c = *p++;

        if (quoted && c == '"') {
            open = 0;
            break;
        }

        if (quoted && c == '\\') {

            if (p == last || (*p != '"' && *p != '\\')) {
                return "has a backslash that escapes nothing";
            }

            c = *p++;
        }

        if (c <= 0x20 || c >= 0x7f) {
            return "may have visible ASCII characters only, and no space";
        }

        if (key->len == NGX_AGENT_KEY_MAX) {
            return "is longer than 255 bytes";
        }

        buf[key->len++] = c;
    }

    if (open) {
        return "has no closing quote";
    }

    if (p < last) {
        return "has something behind its closing quote";
    }

    return key->len ? NULL : "is empty";
}
