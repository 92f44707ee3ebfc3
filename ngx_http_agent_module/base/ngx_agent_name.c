
/*
 * Names of artifacts: checks, and how one is written into a header.  Bytes
 * only; a name never becomes a path on disk.
 */

#include "ngx_agent_name.h"
#include "ngx_agent_utf8.h"


#define NGX_AGENT_NAME_MAX  255


static const char *ngx_agent_name_bytes(ngx_str_t *s);
static ngx_uint_t ngx_agent_name_dots(u_char *p, size_t n);
static ngx_uint_t ngx_agent_name_plain(u_char c);
static u_char *ngx_agent_name_fallback(u_char *p, ngx_str_t *name);
static u_char *ngx_agent_name_encode(u_char *p, ngx_str_t *name);


const char *
ngx_agent_name_check(ngx_str_t *name)
{
    if (name->len == 0) {
        return "is empty";
    }

    if (ngx_agent_name_dots(name->data, name->len)) {
        return "is \".\" or \"..\"";
    }

    if (ngx_strlchr(name->data, name->data + name->len, '/')) {
        return "has a slash in it";
    }

    return ngx_agent_name_bytes(name);
}


const char *
ngx_agent_path_check(ngx_str_t *path)
{
    u_char  *p, *end, *slash;

    if (path->len == 0) {
        return NULL;
    }

    if (path->data[0] == '/') {
        return "is absolute";
    }

    end = path->data + path->len;

    for (p = path->data; p < end; p = slash + 1) {

        slash = ngx_strlchr(p, end, '/');
        if (slash == NULL) {
            slash = end;
        }

        if (slash == p) {
            return "has two slashes in a row";
        }

        if (ngx_agent_name_dots(p, slash - p)) {
            return "has a \".\" or \"..\" segment";
        }
    }

    return ngx_agent_name_bytes(path);
}


/* what names and paths have in common */

static const char *
ngx_agent_name_bytes(ngx_str_t *s)
{
    u_char  *p, *end;

    if (s->len > NGX_AGENT_NAME_MAX) {
        return "is longer than " ngx_value(NGX_AGENT_NAME_MAX) " bytes";
    }

    end = s->data + s->len;

    for (p = s->data; p < end; p++) {

        /* U+0080 to U+009F are control characters too */

        if (*p < 0x20 || *p == 0x7f
            || (*p == 0xc2 && p + 1 < end && p[1] >= 0x80 && p[1] < 0xa0))
        {
            return "has a control character in it";
        }

        if (*p == '\\') {
            return "has a backslash in it";
        }
    }

    if (!ngx_agent_utf8_valid(s->data, s->len)) {
        return "is not valid UTF-8";
    }

    return NULL;
}


static ngx_uint_t
ngx_agent_name_dots(u_char *p, size_t n)
{
    return (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.');
}


const char *
ngx_agent_path_split(ngx_str_t *path, ngx_str_t *relative_path,
    ngx_str_t *file_name)
{
    u_char      *p, *end;
    const char  *why;

    p = path->data;
    end = p + path->len;

    if (path->len == 0) {
        return "is empty";
    }

    if (path->len > 2 && p[0] == '.' && p[1] == '/') {
        p += 2;
    }

    relative_path->data = p;

    for (p = end; p > relative_path->data && p[-1] != '/'; p--) {
        /* void */
    }

    if (p == end) {
        return "ends in a slash, so it names no file";
    }

    relative_path->len = p - relative_path->data;

    file_name->data = p;
    file_name->len = end - p;

    why = ngx_agent_path_check(relative_path);
    if (why) {
        return why;
    }

    return ngx_agent_name_check(file_name);
}


ngx_int_t
ngx_agent_name_disposition(ngx_pool_t *pool, ngx_str_t *name,
    ngx_str_t *value)
{
    u_char      *p;
    ngx_uint_t   i, plain;

    plain = 1;

    for (i = 0; i < name->len; i++) {
        if (!ngx_agent_name_plain(name->data[i])) {
            plain = 0;
        }
    }

    /* the worst case: each byte once plain and three times as long */

    p = ngx_pnalloc(pool, sizeof("attachment; filename=\"\"; filename*=UTF-8''")
                          + name->len * 4);
    if (p == NULL) {
        return NGX_ERROR;
    }

    value->data = p;

    p = ngx_cpymem(p, "attachment; filename=\"",
                   sizeof("attachment; filename=\"") - 1);
    p = ngx_agent_name_fallback(p, name);
    *p++ = '"';

    if (!plain) {
        p = ngx_cpymem(p, "; filename*=UTF-8''",
                       sizeof("; filename*=UTF-8''") - 1);
        p = ngx_agent_name_encode(p, name);
    }

    value->len = p - value->data;

    return NGX_OK;
}


/*
 * What every client reads the same way in a quoted string: a percent sign is
 * decoded by some, a backslash means a quote to some and itself to others.
 */

static ngx_uint_t
ngx_agent_name_plain(u_char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\' && c != '%';
}


static u_char *
ngx_agent_name_fallback(u_char *p, ngx_str_t *name)
{
    u_char   c;
    size_t   i;

    for (i = 0; i < name->len; i++) {

        c = name->data[i];

        /* one underscore for a character, not for each of its bytes */

        if (c >= 0x80 && c < 0xc0) {
            continue;
        }

        *p++ = ngx_agent_name_plain(c) ? c : '_';
    }

    return p;
}


/* RFC 8187: attr-char as it is, all else percent-encoded */

static u_char *
ngx_agent_name_encode(u_char *p, ngx_str_t *name)
{
    u_char  c;
    size_t  i;

    static const u_char  hex[] = "0123456789ABCDEF";
    static u_char        marks[] = "!#$&+-.^_`|~";

    for (i = 0; i < name->len; i++) {

        c = name->data[i];

        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
            || (c >= '0' && c <= '9')
            || ngx_strlchr(marks, marks + sizeof(marks) - 1, c))
        {
            *p++ = c;
            continue;
        }

        *p++ = '%';
        *p++ = hex[c >> 4];
        *p++ = hex[c & 0x0f];
    }

    return p;
}
