
/*
 * UTF-8.  Bytes only: no pool, no log, no I/O.  yajl's own check lets
 * overlong forms and surrogates pass, Postgres does not: so the check is here.
 */

#include "ngx_agent_utf8.h"


ngx_int_t
ngx_agent_utf8_next(const u_char *p, const u_char *end, size_t *n)
{
    u_char  c, lo, hi;
    size_t  i, last;

    c = *p;
    lo = 0x80;
    hi = 0xbf;
    *n = 1;

    if (c < 0x80) {
        return NGX_OK;
    }

    if (c < 0xc2 || c > 0xf4) {
        return NGX_DECLINED;
    }

    /* the second byte's range shuts out overlong forms and surrogates */

    switch (c) {
    case 0xe0: lo = 0xa0; break;
    case 0xed: hi = 0x9f; break;
    case 0xf0: lo = 0x90; break;
    case 0xf4: hi = 0x8f; break;
    }

    last = (c < 0xe0) ? 1 : (c < 0xf0) ? 2 : 3;

    for (i = 1; i <= last; i++) {

        *n = i;

        if (p + i == end) {
            return NGX_AGAIN;
        }

        if (p[i] < lo || p[i] > hi) {
            return NGX_DECLINED;
        }

        lo = 0x80;
        hi = 0xbf;
    }

    *n = last + 1;

    return NGX_OK;
}


ngx_uint_t
ngx_agent_utf8_valid(const u_char *p, size_t n)
{
    size_t         len;
    const u_char  *end;

    if (n == 0) {
        return 1;
    }

    end = p + n;

    while (p < end) {

        if (*p == '\0') {
            return 0;
        }

        if (*p < 0x80) {
            p++;
            continue;
        }

        if (ngx_agent_utf8_next(p, end, &len) != NGX_OK) {
            return 0;
        }

        p += len;
    }

    return 1;
}


u_char *
ngx_agent_utf8_write(u_char *p, uint32_t code)
{
    if (code < 0x80) {
        *p++ = (u_char) code;
        return p;
    }

    if (code < 0x800) {
        *p++ = (u_char) (0xc0 | (code >> 6));
        *p++ = (u_char) (0x80 | (code & 0x3f));
        return p;
    }

    if (code < 0x10000) {
        *p++ = (u_char) (0xe0 | (code >> 12));

    } else {
        *p++ = (u_char) (0xf0 | (code >> 18));
        *p++ = (u_char) (0x80 | ((code >> 12) & 0x3f));
    }

    *p++ = (u_char) (0x80 | ((code >> 6) & 0x3f));
    *p++ = (u_char) (0x80 | (code & 0x3f));

    return p;
}
