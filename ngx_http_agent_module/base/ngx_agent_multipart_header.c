
/*
 * Reading the lines of multipart/form-data (RFC 7578, RFC 2183, RFC 8187).
 * Bytes only, no memory of its own: what must be decoded gets shorter by it,
 * and is decoded in place.
 */

#include "ngx_agent_multipart_header.h"


/* one ";name=value" of a header */

typedef struct {
    ngx_str_t                  name;
    ngx_str_t                  value;     /* without its quotes */
    unsigned                   quoted:1;
} ngx_agent_param_t;


static const char *ngx_agent_multipart_lines(u_char *p, u_char *end);
static const char *ngx_agent_multipart_line(u_char *p, u_char *end,
    ngx_agent_multipart_part_t *part);
static const char *ngx_agent_multipart_disposition(ngx_str_t *value,
    ngx_agent_multipart_part_t *part);
static ngx_uint_t ngx_agent_multipart_ext_value(ngx_str_t *value);
static u_char *ngx_agent_param_first(ngx_str_t *value, const char *type);
static ngx_int_t ngx_agent_param_next(u_char **pos, u_char *end,
    ngx_agent_param_t *param);
static ngx_int_t ngx_agent_param_value(u_char **pos, u_char *end,
    ngx_agent_param_t *param);
static size_t ngx_agent_param_copy(u_char *to, ngx_agent_param_t *param);
static ngx_uint_t ngx_agent_param_is(ngx_str_t *s, const char *name);
static u_char *ngx_agent_param_space(u_char *p, u_char *end);
static void ngx_agent_param_trim(ngx_str_t *s);


const char *
ngx_agent_multipart_boundary(ngx_str_t *content_type, u_char *buf,
    size_t *len)
{
    u_char             *p, *end;
    size_t              i;
    ngx_int_t           rc;
    ngx_agent_param_t   param;

    if (content_type->len == 0) {
        return "is not multipart/form-data";
    }

    p = ngx_agent_param_first(content_type, "multipart/form-data");
    if (p == NULL) {
        return "is not multipart/form-data";
    }

    end = content_type->data + content_type->len;

    do {
        rc = ngx_agent_param_next(&p, end, &param);

        if (rc == NGX_DECLINED) {
            return "has a Content-Type that cannot be read";
        }

        if (rc == NGX_DONE) {
            return "has no boundary in its Content-Type";
        }

    } while (!ngx_agent_param_is(&param.name, "boundary"));

    if (param.value.len == 0) {
        return "has no boundary in its Content-Type";
    }

    if (param.value.len > NGX_AGENT_MULTIPART_BOUNDARY) {
        return "has a boundary of more than "
               ngx_value(NGX_AGENT_MULTIPART_BOUNDARY) " bytes";
    }

    *len = ngx_agent_param_copy(buf, &param);

    for (i = 0; i < *len; i++) {
        if (buf[i] < 0x20 || buf[i] >= 0x7f) {
            return "has a boundary with characters that none may have";
        }
    }

    return NULL;
}


const char *
ngx_agent_multipart_part(u_char *p, size_t n, ngx_agent_multipart_part_t *part)
{
    u_char      *end, *cr;
    const char  *why;

    ngx_memzero(part, sizeof(ngx_agent_multipart_part_t));

    end = p + n;

    why = ngx_agent_multipart_lines(p, end);
    if (why) {
        return why;
    }

    while (p < end) {

        cr = ngx_strlchr(p, end, CR);
        if (cr == NULL) {
            cr = end;
        }

        why = ngx_agent_multipart_line(p, cr, part);
        if (why) {
            return why;
        }

        p = ngx_min(cr + 2, end);
    }

    if (part->name.data == NULL) {
        return "has a part with no name in its Content-Disposition";
    }

    return NULL;
}


/* refuses control characters, and makes folded lines one */

static const char *
ngx_agent_multipart_lines(u_char *p, u_char *end)
{
    for ( /* void */ ; p < end; p++) {

        if (*p == CR && p + 1 < end && p[1] == LF) {

            if (p + 2 < end && (p[2] == ' ' || p[2] == '\t')) {
                p[0] = ' ';
                p[1] = ' ';
            }

            p++;
            continue;
        }

        if ((*p < 0x20 && *p != '\t') || *p == 0x7f) {
            return "has a control character in a part's header";
        }
    }

    return NULL;
}


static const char *
ngx_agent_multipart_line(u_char *p, u_char *end,
    ngx_agent_multipart_part_t *part)
{
    u_char     *colon;
    ngx_str_t   name, value;

    colon = ngx_strlchr(p, end, ':');
    if (colon == NULL) {
        return "has a part with a header line that has no colon";
    }

    name.data = p;
    name.len = colon - p;

    value.data = ngx_agent_param_space(colon + 1, end);
    value.len = end - value.data;
    ngx_agent_param_trim(&value);

    if (ngx_agent_param_is(&name, "content-disposition")) {
        return ngx_agent_multipart_disposition(&value, part);
    }

    if (ngx_agent_param_is(&name, "content-type")) {
        part->content_type = value;
    }

    return NULL;
}


static const char *
ngx_agent_multipart_disposition(ngx_str_t *value,
    ngx_agent_multipart_part_t *part)
{
    u_char             *p, *end;
    ngx_int_t           rc;
    ngx_uint_t          extended;
    ngx_agent_param_t   param;

    p = ngx_agent_param_first(value, "form-data");
    if (p == NULL) {
        return "has a part whose Content-Disposition is not form-data";
    }

    end = value->data + value->len;
    extended = 0;

    for ( ;; ) {

        rc = ngx_agent_param_next(&p, end, &param);

        if (rc == NGX_DONE) {
            return NULL;
        }

        if (rc == NGX_DECLINED) {
            return "has a part whose Content-Disposition cannot be read";
        }

        param.value.len = ngx_agent_param_copy(param.value.data, &param);

        if (ngx_agent_param_is(&param.name, "name")) {
            part->name = param.value;

        } else if (ngx_agent_param_is(&param.name, "filename")) {
            if (!extended) {
                part->filename = param.value;
            }

        } else if (ngx_agent_param_is(&param.name, "filename*")) {
            if (ngx_agent_multipart_ext_value(&param.value)) {
                part->filename = param.value;
                extended = 1;
            }
        }
    }
}


/*
 * RFC 8187: UTF-8'language'percent-encoded; decodes in place.  0 when it is
 * anything else: then plain "filename" counts, if there is one.
 */

static ngx_uint_t
ngx_agent_multipart_ext_value(ngx_str_t *value)
{
    u_char     *p, *q, *end;
    ngx_int_t   n;
    ngx_str_t   charset;

    end = value->data + value->len;

    p = ngx_strlchr(value->data, end, '\'');
    if (p == NULL) {
        return 0;
    }

    charset.data = value->data;
    charset.len = p - value->data;

    if (!ngx_agent_param_is(&charset, "utf-8")) {
        return 0;
    }

    p = ngx_strlchr(p + 1, end, '\'');
    if (p == NULL) {
        return 0;
    }

    value->data = ++p;

    for (q = p; p < end; q++) {

        if (*p != '%') {
            *q = *p++;
            continue;
        }

        n = (end - p < 3) ? NGX_ERROR : ngx_hextoi(p + 1, 2);
        if (n == NGX_ERROR) {
            return 0;
        }

        *q = (u_char) n;
        p += 3;
    }

    value->len = q - value->data;

    return 1;
}


/* behind the type, if it is the given one, else NULL */

static u_char *
ngx_agent_param_first(ngx_str_t *value, const char *type)
{
    u_char     *p, *end;
    ngx_str_t   name;

    end = value->data + value->len;

    p = ngx_strlchr(value->data, end, ';');
    if (p == NULL) {
        p = end;
    }

    name.data = ngx_agent_param_space(value->data, p);
    name.len = p - name.data;
    ngx_agent_param_trim(&name);

    return ngx_agent_param_is(&name, type) ? p : NULL;
}


/* NGX_OK with the next parameter; NGX_DONE; NGX_DECLINED: cannot be read */

static ngx_int_t
ngx_agent_param_next(u_char **pos, u_char *end, ngx_agent_param_t *param)
{
    u_char  *p, *name;

    p = ngx_agent_param_space(*pos, end);

    if (p < end && *p != ';') {
        return NGX_DECLINED;
    }

    /* a semicolon at the end, or two of them, do no harm */

    while (p < end && *p == ';') {
        p = ngx_agent_param_space(p + 1, end);
    }

    if (p == end) {
        return NGX_DONE;
    }

    name = p;

    p = ngx_strlchr(p, end, '=');
    if (p == NULL) {
        return NGX_DECLINED;
    }

    param->name.data = name;
    param->name.len = p - name;
    ngx_agent_param_trim(&param->name);

    *pos = ngx_agent_param_space(p + 1, end);

    return ngx_agent_param_value(pos, end, param);
}


static ngx_int_t
ngx_agent_param_value(u_char **pos, u_char *end, ngx_agent_param_t *param)
{
    u_char  *p;

    p = *pos;

    param->quoted = (p < end && *p == '"');

    if (param->quoted) {

        param->value.data = ++p;

        while (p < end && *p != '"') {

            if (*p == '\\' && p + 1 < end && (p[1] == '"' || p[1] == '\\')) {
                p++;
            }

            p++;
        }

        if (p == end) {
            return NGX_DECLINED;
        }

        param->value.len = p - param->value.data;
        *pos = p + 1;

        return NGX_OK;
    }

    param->value.data = p;

    p = ngx_strlchr(p, end, ';');
    if (p == NULL) {
        p = end;
    }

    param->value.len = p - param->value.data;
    ngx_agent_param_trim(&param->value);

    *pos = p;

    return NGX_OK;
}


/*
 * Copies the value without the backslashes that quote something; "to" may be
 * its own place.  A backslash before any other character is one of a Windows
 * path and stays.
 */

static size_t
ngx_agent_param_copy(u_char *to, ngx_agent_param_t *param)
{
    u_char  *p, *q, *end;

    q = to;
    p = param->value.data;
    end = p + param->value.len;

    while (p < end) {

        if (param->quoted && *p == '\\' && p + 1 < end
            && (p[1] == '"' || p[1] == '\\'))
        {
            p++;
        }

        *q++ = *p++;
    }

    return q - to;
}


static ngx_uint_t
ngx_agent_param_is(ngx_str_t *s, const char *name)
{
    return s->len == ngx_strlen(name)
           && ngx_strncasecmp(s->data, (u_char *) name, s->len) == 0;
}


static u_char *
ngx_agent_param_space(u_char *p, u_char *end)
{
    while (p < end && (*p == ' ' || *p == '\t')) {
        p++;
    }

    return p;
}


static void
ngx_agent_param_trim(ngx_str_t *s)
{
    while (s->len
           && (s->data[s->len - 1] == ' ' || s->data[s->len - 1] == '\t'))
    {
        s->len--;
    }
}
