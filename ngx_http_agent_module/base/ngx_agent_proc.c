
/*
 * Processes of this machine, as /proc shows them.  May read /proc and ask
 * kill() whether a process is there; must not send a signal.
 */

#include "ngx_agent_proc.h"
#include <signal.h>


/* the name in field 2 is 16 bytes at most, the first 22 fields are short */
#define NGX_AGENT_PROC_STAT      1024

#define NGX_AGENT_PROC_HOSTNAME  64


static ngx_int_t ngx_agent_proc_read(const char *path, u_char *buf,
    size_t size);
static ngx_uint_t ngx_agent_proc_mounted(void);
static int64_t ngx_agent_proc_parse(u_char *p, u_char *last);
static uint64_t ngx_agent_proc_hash(uint64_t hash, u_char *p, ngx_int_t n);


int64_t
ngx_agent_proc_born(ngx_pid_t pid)
{
    u_char     buf[NGX_AGENT_PROC_STAT], path[sizeof("/proc//stat")
                                              + NGX_INT_T_LEN];
    ngx_int_t  n;

    if (pid <= 0 || (kill(pid, 0) == -1 && ngx_errno == ESRCH)) {
        return -1;
    }

    /*
     * It is there, maybe another user's (EPERM).  That /proc does not show it
     * means nothing: hidepid= hides processes of others.
     */

    if (!ngx_agent_proc_mounted()) {
        return 0;
    }

    *ngx_sprintf(path, "/proc/%i/stat", (ngx_int_t) pid) = '\0';

    n = ngx_agent_proc_read((char *) path, buf, sizeof(buf));
    if (n == NGX_ERROR) {
        return (kill(pid, 0) == -1 && ngx_errno == ESRCH) ? -1 : 0;
    }

    return ngx_agent_proc_parse(buf, buf + n);
}


/*
 * "7 (a name) S 1 ...": the name may have anything in it, so fields are
 * counted from behind its last parenthesis.  A zombie (Z, X) runs nothing any
 * more; in a container without an init it may lie there for ever.
 */

static int64_t
ngx_agent_proc_parse(u_char *p, u_char *last)
{
    u_char      *at;
    int64_t      born;
    ngx_uint_t   field;

    for (at = last; at > p && at[-1] != ')'; at--) { /* void */ }

    if (at == p || last - at < 2) {
        return 0;
    }

    if (at[1] == 'Z' || at[1] == 'X' || at[1] == 'x') {
        return -1;
    }

    for (field = 2; at < last && field < 22; at++) {
        field += (*at == ' ');
    }

    for (born = 0; at < last && *at >= '0' && *at <= '9'; at++) {

        if (born > (NGX_MAX_OFF_T_VALUE - 9) / 10) {
            return 0;
        }

        born = born * 10 + (*at - '0');
    }

    return born;
}


/* /proc may be the one of another pid namespace: its numbers are not ours */

static ngx_uint_t
ngx_agent_proc_mounted(void)
{
    u_char   buf[NGX_INT_T_LEN];
    ssize_t  n;

    n = readlink("/proc/self", (char *) buf, sizeof(buf));

    return n > 0 && ngx_atoi(buf, n) == (ngx_int_t) getpid();
}


ngx_uint_t
ngx_agent_proc_gone(ngx_pid_t pid, int64_t born)
{
    int64_t  now;

    now = ngx_agent_proc_born(pid);

    if (now == -1) {
        return 1;
    }

    return born > 0 && now > 0 && now != born;
}


void
ngx_agent_proc_host(ngx_str_t *hostname, u_char *buf, ngx_str_t *host)
{
    u_char      *p, text[128];
    size_t       i;
    ssize_t      n;
    uint64_t     hash;
    ngx_uint_t   k;

    static const char  *spaces[] = {
        "/proc/self/ns/pid",
        "/proc/self/ns/time"     /* births are told by its clock */
    };

    ngx_memzero(text, sizeof(text));

    hash = 14695981039346656037ULL;

    /* the number of another boot means another process */

    n = ngx_agent_proc_read("/proc/sys/kernel/random/boot_id", text,
                            sizeof(text));
    hash = ngx_agent_proc_hash(hash, text, n);

    for (k = 0; k < 2; k++) {
        n = readlink(spaces[k], (char *) text, sizeof(text));
        hash = ngx_agent_proc_hash(hash, text, n);
    }

    for (p = buf, i = 0;
         i < hostname->len && i < NGX_AGENT_PROC_HOSTNAME;
         i++)
    {
        *p++ = (hostname->data[i] > 0x20 && hostname->data[i] < 0x7f)
                   ? hostname->data[i] : '?';
    }

    host->data = buf;
    host->len = ngx_sprintf(p, "#%016xL", hash) - buf;
}


/* FNV-1a; a part that could not be read counts as an empty one */

static uint64_t
ngx_agent_proc_hash(uint64_t hash, u_char *p, ngx_int_t n)
{
    for ( /* void */ ; n > 0; n--, p++) {
        hash = (hash ^ *p) * 1099511628211ULL;
    }

    /* the end of a part */
    return (hash ^ 0x100) * 1099511628211ULL;
}


static ngx_int_t
ngx_agent_proc_read(const char *path, u_char *buf, size_t size)
{
    ssize_t   n;
    ngx_fd_t  fd;

    fd = ngx_open_file((u_char *) path, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);
    if (fd == NGX_INVALID_FILE) {
        return NGX_ERROR;
    }

    /* the files of /proc are made when they are read, and read in one go */
    n = read(fd, buf, size);

    (void) ngx_close_file(fd);

    return n > 0 ? (ngx_int_t) n : NGX_ERROR;
}
