
/*
 * traceparent, read and written.  Bytes only; random ones come from the maker
 * of ids.
 */

#include "ngx_agent_traceparent.h"
#include "ngx_agent_id.h"


/* where the parts begin */
#define NGX_AGENT_TRACEPARENT_TRACE  3
#define NGX_AGENT_TRACEPARENT_FLAGS  53

#define NGX_AGENT_TRACEPARENT_TRACE_LEN  32

/* the trace is recorded; its id is random (level 2) */
#define NGX_AGENT_TRACEPARENT_SAMPLED  0x01
#define NGX_AGENT_TRACEPARENT_RANDOM   0x02


static ngx_int_t ngx_agent_traceparent_shape(ngx_str_t *value);
static ngx_int_t ngx_agent_traceparent_hex(const u_char *p, size_t n);
static ngx_uint_t ngx_agent_traceparent_zero(const u_char *p, size_t n);
static void ngx_agent_traceparent_print(u_char *p, const u_char *bytes,
    size_t n);


ngx_int_t
ngx_agent_traceparent_read(ngx_str_t *value, u_char *buf)
{
    u_char     flags;
    ngx_str_t  text;

    text = *value;

    /* nginx leaves tabs where they are */

    while (text.len && (*text.data == ' ' || *text.data == '\t')) {
        text.data++;
        text.len--;
    }

    while (text.len && (text.data[text.len - 1] == ' '
                        || text.data[text.len - 1] == '\t'))
    {
        text.len--;
    }

    if (ngx_agent_traceparent_shape(&text) != NGX_OK) {
        return NGX_DECLINED;
    }

    flags = (u_char) ngx_hextoi(text.data + NGX_AGENT_TRACEPARENT_FLAGS, 2);
    flags &= NGX_AGENT_TRACEPARENT_SAMPLED|NGX_AGENT_TRACEPARENT_RANDOM;

    if (ngx_strncmp(text.data, "00", 2) != 0) {
        flags &= NGX_AGENT_TRACEPARENT_SAMPLED;
    }

    ngx_memcpy(buf, text.data, NGX_AGENT_TRACEPARENT_LEN);
    ngx_memcpy(buf, "00", 2);
    ngx_agent_traceparent_print(buf + NGX_AGENT_TRACEPARENT_FLAGS, &flags, 1);

    return NGX_OK;
}


/* Version 00 has nothing behind the flags, 0xff will never be a version. */

static ngx_int_t
ngx_agent_traceparent_shape(ngx_str_t *value)
{
    u_char  *p;

    p = value->data;

    if (value->len < NGX_AGENT_TRACEPARENT_LEN
        || ngx_agent_traceparent_hex(p, 2) != NGX_OK
        || ngx_strncmp(p, "ff", 2) == 0)
    {
        return NGX_DECLINED;
    }

    if (value->len > NGX_AGENT_TRACEPARENT_LEN
        && (ngx_strncmp(p, "00", 2) == 0
            || p[NGX_AGENT_TRACEPARENT_LEN] != '-'))
    {
        return NGX_DECLINED;
    }

    if (p[NGX_AGENT_TRACEPARENT_TRACE - 1] != '-'
        || p[NGX_AGENT_TRACEPARENT_SPAN - 1] != '-'
        || p[NGX_AGENT_TRACEPARENT_FLAGS - 1] != '-')
    {
        return NGX_DECLINED;
    }

    if (ngx_agent_traceparent_hex(p + NGX_AGENT_TRACEPARENT_TRACE,
                                  NGX_AGENT_TRACEPARENT_TRACE_LEN) != NGX_OK
        || ngx_agent_traceparent_hex(p + NGX_AGENT_TRACEPARENT_SPAN,
                                     NGX_AGENT_TRACEPARENT_SPAN_LEN) != NGX_OK
        || ngx_agent_traceparent_hex(p + NGX_AGENT_TRACEPARENT_FLAGS, 2)
           != NGX_OK)
    {
        return NGX_DECLINED;
    }

    if (ngx_agent_traceparent_zero(p + NGX_AGENT_TRACEPARENT_TRACE,
                                   NGX_AGENT_TRACEPARENT_TRACE_LEN)
        || ngx_agent_traceparent_zero(p + NGX_AGENT_TRACEPARENT_SPAN,
                                      NGX_AGENT_TRACEPARENT_SPAN_LEN))
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


/* lower case only */

static ngx_int_t
ngx_agent_traceparent_hex(const u_char *p, size_t n)
{
    while (n--) {

        if ((p[n] < '0' || p[n] > '9') && (p[n] < 'a' || p[n] > 'f')) {
            return NGX_DECLINED;
        }
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_agent_traceparent_zero(const u_char *p, size_t n)
{
    while (n--) {

        if (p[n] != '0') {
            return 0;
        }
    }

    return 1;
}


ngx_int_t
ngx_agent_traceparent_child(ngx_str_t *parent, u_char *buf)
{
    ngx_agent_id_t  id;

    if (ngx_agent_traceparent_read(parent, buf) != NGX_OK) {
        return NGX_DECLINED;
    }

    /* the random half of an id, which is never zero */

    ngx_agent_id_create(&id);
    ngx_agent_traceparent_print(buf + NGX_AGENT_TRACEPARENT_SPAN,
                                id.bytes + 8,
                                NGX_AGENT_TRACEPARENT_SPAN_LEN / 2);

    return NGX_OK;
}


static void
ngx_agent_traceparent_print(u_char *p, const u_char *bytes, size_t n)
{
    static const u_char  hex[] = "0123456789abcdef";

    while (n--) {
        *p++ = hex[*bytes >> 4];
        *p++ = hex[*bytes++ & 0x0f];
    }
}
