
/*
 * Cutting the raw text of members and elements out of a JSON document, for
 * text that is stored and sent on byte for byte.  The document should have
 * been accepted by ngx_agent_json_read() before; one that was not gives
 * nonsense, but never a byte outside it.
 */

#include "ngx_agent_json.h"


static u_char *ngx_agent_json_space(u_char *p, u_char *end);
static u_char *ngx_agent_json_skip(u_char *p, u_char *end);
static u_char *ngx_agent_json_skip_string(u_char *p, u_char *end);
static ngx_uint_t ngx_agent_json_key_is(u_char *p, u_char *end,
    const char *key);
static u_char *ngx_agent_json_unescape(u_char *p, u_char *end, u_char *text,
    size_t *len);


ngx_int_t
ngx_agent_json_member(ngx_str_t *doc, const char *key, ngx_str_t *raw)
{
    u_char      *p, *end, *name, *name_end;
    ngx_int_t    rc;

    if (doc->len == 0) {
        return NGX_DECLINED;
    }

    rc = NGX_DECLINED;
    end = doc->data + doc->len;

    p = ngx_agent_json_space(doc->data, end);

    if (p == end || *p++ != '{') {
        return NGX_DECLINED;
    }

    for ( ;; ) {

        p = ngx_agent_json_space(p, end);

        if (p == end || *p != '"') {
            return rc;
        }

        name = p + 1;
        p = ngx_agent_json_skip_string(p, end);
        name_end = p - 1;

        p = ngx_agent_json_space(p, end);

        if (p == end || *p++ != ':') {
            return rc;
        }

        p = ngx_agent_json_space(p, end);

        if (ngx_agent_json_key_is(name, name_end, key)) {
            raw->data = p;
            raw->len = ngx_agent_json_skip(p, end) - p;
            rc = NGX_OK;
        }

        p = ngx_agent_json_skip(p, end);
        p = ngx_agent_json_space(p, end);

        if (p == end || *p++ != ',') {
            return rc;
        }
    }
}


ngx_int_t
ngx_agent_json_element(ngx_str_t *doc, u_char **pos, ngx_str_t *raw)
{
    u_char  *p, *end;
    u_char   expected;

    if (doc->len == 0) {
        return NGX_DONE;
    }

    end = doc->data + doc->len;
    p = *pos;
    expected = ',';

    if (p == NULL) {
        p = doc->data;
        expected = '[';
    }

    p = ngx_agent_json_space(p, end);

    if (p == end || *p++ != expected) {
        *pos = end;
        return NGX_DONE;
    }

    p = ngx_agent_json_space(p, end);

    raw->data = p;
    p = ngx_agent_json_skip(p, end);
    raw->len = p - raw->data;

    *pos = p;

    /* an empty array has no first element */

    return raw->len ? NGX_OK : NGX_DONE;
}


static u_char *
ngx_agent_json_space(u_char *p, u_char *end)
{
    while (p < end
           && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n'))
    {
        p++;
    }

    return p;
}


/* behind the value at p */

static u_char *
ngx_agent_json_skip(u_char *p, u_char *end)
{
    ngx_uint_t  depth;

    depth = 0;

    while (p < end) {

        switch (*p) {

        case '"':
            p = ngx_agent_json_skip_string(p, end);
            if (depth == 0) {
                return p;
            }
            continue;

        case '{':
        case '[':
            depth++;
            break;

        case '}':
        case ']':
            if (depth == 0) {
                return p;
            }

            if (--depth == 0) {
                return p + 1;
            }
            break;

        case ',':
        case ' ':
        case '\t':
        case '\r':
        case '\n':
            if (depth == 0) {
                return p;
            }
            break;
        }

        p++;
    }

    return p;
}


/* behind the string whose opening quote is at p */

static u_char *
ngx_agent_json_skip_string(u_char *p, u_char *end)
{
    for (p++; p < end; p++) {

        if (*p == '"') {
            return p + 1;
        }

        if (*p == '\\' && p + 1 < end) {
            p++;
        }
    }

    return end;
}


static ngx_uint_t
ngx_agent_json_key_is(u_char *p, u_char *end, const char *key)
{
    size_t  len;
    u_char  text[4];

    while (p < end) {

        p = ngx_agent_json_unescape(p, end, text, &len);

        /* strncmp() stops at the key's end, no byte of text being NUL */

        if (ngx_strncmp(text, key, len) != 0) {
            return 0;
        }

        key += len;
    }

    return *key == '\0';
}


/*
 * One byte or escape of a string, decoded to *len bytes; returns what is
 * behind.  What no accepted document has (a NUL, half a surrogate pair) comes
 * out as something that is no NUL.
 */

static u_char *
ngx_agent_json_unescape(u_char *p, u_char *end, u_char *text, size_t *len)
{
    u_char     *q;
    ngx_int_t   code, low;

    static const u_char  from[] = "bfnrt";
    static const u_char  to[] = "\b\f\n\r\t";

    text[0] = *p ? *p : 0xff;
    *len = 1;

    if (*p != '\\' || p + 1 >= end) {
        return p + 1;
    }

    if (p[1] != 'u') {
        q = ngx_strlchr((u_char *) from, (u_char *) from + 5, p[1]);
        text[0] = q ? to[q - from] : p[1] ? p[1] : 0xff;
        return p + 2;
    }

    code = (end - p < 6) ? NGX_ERROR : ngx_hextoi(p + 2, 4);
    p = (end - p < 6) ? end : p + 6;

    if (code >= 0xd800 && code <= 0xdbff
        && end - p >= 6 && p[0] == '\\' && p[1] == 'u')
    {
        low = ngx_hextoi(p + 2, 4);

        if (low >= 0xdc00 && low <= 0xdfff) {
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
            p += 6;
        }
    }

    if (code <= 0 || (code >= 0xd800 && code <= 0xdfff)) {
        code = 0xfffd;
    }

    *len = ngx_agent_utf8_write(text, (uint32_t) code) - text;

    return p;
}
