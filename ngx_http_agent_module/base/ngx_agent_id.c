
/*
 * UUIDv7 (RFC 9562): 48 bits of milliseconds, 12 bits that count within one
 * millisecond, 62 random bits.  The only foreign thing here is the kernel's
 * clock and its random bytes.
 */

#include "ngx_agent_id.h"

#include <sys/random.h>


#define NGX_AGENT_ID_RANDOM  256    /* getrandom() gives that much at once */


/*
 * What this process last made.  Random bytes are bought in bulk; a child
 * must never go on with bytes its parent had bought, hence the pid.
 */

static struct {
    uint64_t                   msec;
    ngx_uint_t                 count;
    ngx_pid_t                  pid;
    size_t                     left;
    u_char                     random[NGX_AGENT_ID_RANDOM];
} ngx_agent_id_last;


static void ngx_agent_id_random(u_char *p, size_t n);
static void ngx_agent_id_refill(void);


void
ngx_agent_id_create(ngx_agent_id_t *id)
{
    u_char           r[10];
    uint64_t         msec;
    ngx_uint_t       i;
    struct timespec  ts;

    clock_gettime(CLOCK_REALTIME, &ts);

    msec = (uint64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;

    ngx_agent_id_random(r, sizeof(r));

    if (msec > ngx_agent_id_last.msec) {
        ngx_agent_id_last.msec = msec;

        /* the top bit is left free, so that there is room to count */
        ngx_agent_id_last.count = ((r[0] & 0x07) << 8) | r[1];

    } else if (++ngx_agent_id_last.count == 0x1000) {

        /* 2048 and more in a millisecond, or a clock that went back */
        ngx_agent_id_last.msec++;
        ngx_agent_id_last.count = 0;
    }

    msec = ngx_agent_id_last.msec;

    for (i = 0; i < 6; i++) {
        id->bytes[i] = (u_char) (msec >> (40 - 8 * i));
    }

    id->bytes[6] = (u_char) (0x70 | (ngx_agent_id_last.count >> 8));
    id->bytes[7] = (u_char) ngx_agent_id_last.count;

    ngx_memcpy(&id->bytes[8], &r[2], 8);
    id->bytes[8] = (u_char) (0x80 | (id->bytes[8] & 0x3f));
}


static void
ngx_agent_id_random(u_char *p, size_t n)
{
    if (ngx_agent_id_last.left < n || ngx_agent_id_last.pid != ngx_pid) {
        ngx_agent_id_refill();
    }

    ngx_agent_id_last.left -= n;
    ngx_memcpy(p, &ngx_agent_id_last.random[ngx_agent_id_last.left], n);
}


static void
ngx_agent_id_refill(void)
{
    size_t   n;
    ssize_t  rc;

    n = 0;

    while (n < NGX_AGENT_ID_RANDOM) {

        rc = getrandom(&ngx_agent_id_last.random[n], NGX_AGENT_ID_RANDOM - n,
                       0);

        if (rc > 0) {
            n += rc;
            continue;
        }

        if (rc == -1 && ngx_errno == NGX_EINTR) {
            continue;
        }

        /* a kernel before 3.17, or a filter that forbids the call */
        ngx_agent_id_last.random[n++] = (u_char) (ngx_random() >> 8);
    }

    ngx_agent_id_last.left = NGX_AGENT_ID_RANDOM;
    ngx_agent_id_last.pid = ngx_pid;
}


ngx_int_t
ngx_agent_id_parse(ngx_str_t *text, ngx_agent_id_t *id)
{
    u_char     *p;
    ngx_int_t   n;
    ngx_uint_t  i;

    if (text->len != NGX_AGENT_ID_LEN) {
        return NGX_DECLINED;
    }

    p = text->data;

    for (i = 0; i < 16; i++) {

        if (i == 4 || i == 6 || i == 8 || i == 10) {
            if (*p++ != '-') {
                return NGX_DECLINED;
            }
        }

        n = ngx_hextoi(p, 2);
        if (n == NGX_ERROR) {
            return NGX_DECLINED;
        }

        id->bytes[i] = (u_char) n;
        p += 2;
    }

    return NGX_OK;
}


u_char *
ngx_agent_id_print(u_char *p, const ngx_agent_id_t *id)
{
    ngx_uint_t  i;

    static const u_char  hex[] = "0123456789abcdef";

    for (i = 0; i < 16; i++) {

        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *p++ = '-';
        }

        *p++ = hex[id->bytes[i] >> 4];
        *p++ = hex[id->bytes[i] & 0x0f];
    }

    return p;
}
