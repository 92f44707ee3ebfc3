
/*
 * The little of nginx that base/ and blob/ call, written for tests: each
 * allocation is one malloc(), so that ASan sees every byte too far; threads
 * and events go when the test says so.
 */

#include "stub.h"

#include <stdarg.h>


typedef struct stub_block_s  stub_block_t;

struct stub_block_s {
    stub_block_t  *next;
    size_t         size;
    void          *data;
};


ngx_uint_t             stub_fail;
size_t                 stub_used;
size_t                 stub_peak;
ngx_uint_t             stub_logged;
ngx_uint_t             stub_level;
ngx_uint_t             stub_timers;
ngx_uint_t             stub_thread_full;
ngx_log_t              stub_log = { .log_level = NGX_LOG_DEBUG };

ngx_pid_t              ngx_pid = 1;
ngx_uint_t             ngx_worker;
ngx_queue_t            ngx_posted_events;
ngx_rbtree_t           ngx_event_timer_rbtree;
volatile ngx_msec_t    ngx_current_msec;

static ngx_thread_task_t  *stub_task;
static int                 stub_tests;
static int                 stub_failures;


ngx_pool_t *
stub_pool(void)
{
    ngx_queue_init(&ngx_posted_events);
    stub_peak = stub_used;

    /* "large" holds our blocks, "cleanup" what it always does */
    return calloc(1, sizeof(ngx_pool_t));
}


static int
stub_out_of_memory(void)
{
    return stub_fail && --stub_fail == 0;
}


void *
ngx_palloc(ngx_pool_t *pool, size_t size)
{
    stub_block_t  *block;

    if (stub_out_of_memory()) {
        return NULL;
    }

    block = malloc(sizeof(stub_block_t));
    block->data = malloc(size);
    block->size = size;
    block->next = (stub_block_t *) pool->large;
    pool->large = (ngx_pool_large_t *) block;

    stub_used += size;
    stub_peak = ngx_max(stub_peak, stub_used);

    return block->data;
}


void *
ngx_pnalloc(ngx_pool_t *pool, size_t size)
{
    return ngx_palloc(pool, size);
}


void *
ngx_pcalloc(ngx_pool_t *pool, size_t size)
{
    void  *p;

    p = ngx_palloc(pool, size);

    return p ? memset(p, 0, size) : NULL;
}


/* as in nginx, only "large" memory is freed */

ngx_int_t
ngx_pfree(ngx_pool_t *pool, void *p)
{
    stub_block_t  *block, **link;

    link = (stub_block_t **) &pool->large;

    for (block = *link; block; link = &block->next, block = *link) {

        if (block->data == p && block->size > 4095) {
            *link = block->next;
            stub_used -= block->size;
            free(block->data);
            free(block);
            return NGX_OK;
        }
    }

    return NGX_DECLINED;
}


ngx_pool_cleanup_t *
ngx_pool_cleanup_add(ngx_pool_t *p, size_t size)
{
    ngx_pool_cleanup_t  *c;

    c = ngx_pcalloc(p, sizeof(ngx_pool_cleanup_t));

    if (c) {
        c->next = p->cleanup;
        p->cleanup = c;
    }

    return c;
}


void
ngx_destroy_pool(ngx_pool_t *pool)
{
    stub_block_t        *block, *next;
    ngx_pool_cleanup_t  *c;

    for (c = pool->cleanup; c; c = c->next) {
        if (c->handler) {
            c->handler(c->data);
        }
    }

    for (block = (stub_block_t *) pool->large; block; block = next) {
        next = block->next;
        stub_used -= block->size;
        free(block->data);
        free(block);
    }

    free(pool);
}


void *
ngx_alloc(size_t size, ngx_log_t *log)
{
    return stub_out_of_memory() ? NULL : malloc(size);
}


void *
ngx_calloc(size_t size, ngx_log_t *log)
{
    return stub_out_of_memory() ? NULL : calloc(1, size);
}


u_char *
ngx_pstrdup(ngx_pool_t *pool, ngx_str_t *src)
{
    u_char  *p;

    p = ngx_pnalloc(pool, src->len);

    if (p && src->len) {
        memcpy(p, src->data, src->len);
    }

    return p;
}


u_char *
ngx_hex_dump(u_char *dst, u_char *src, size_t len)
{
    static const char  hex[] = "0123456789abcdef";

    while (len--) {
        *dst++ = hex[*src >> 4];
        *dst++ = hex[*src++ & 0xf];
    }

    return dst;
}


ngx_int_t
ngx_hextoi(u_char *line, size_t n)
{
    char  text[16], *end;
    long  value;

    memcpy(text, line, n);
    text[n] = '\0';

    if (strspn(text, "0123456789abcdefABCDEF") != n) {
        return NGX_ERROR;
    }

    value = strtol(text, &end, 16);

    return *end ? NGX_ERROR : value;
}


ngx_int_t
ngx_strncasecmp(u_char *s1, u_char *s2, size_t n)
{
    return strncasecmp((char *) s1, (char *) s2, n);
}


void
ngx_explicit_memzero(void *buf, size_t n)
{
    explicit_bzero(buf, n);
}


ngx_int_t
ngx_atoi(u_char *line, size_t n)
{
    ngx_int_t  value;

    if (n == 0) {
        return NGX_ERROR;
    }

    for (value = 0; n--; line++) {

        if (*line < '0' || *line > '9'
            || value > (NGX_MAX_INT_T_VALUE - (*line - '0')) / 10)
        {
            return NGX_ERROR;
        }

        value = value * 10 + (*line - '0');
    }

    return value;
}


void *
ngx_array_push(ngx_array_t *a)
{
    void  *p;

    if (a->nelts == a->nalloc) {

        p = ngx_palloc(a->pool, 2 * a->nalloc * a->size);
        if (p == NULL) {
            return NULL;
        }

        memcpy(p, a->elts, a->nelts * a->size);
        a->elts = p;
        a->nalloc *= 2;
    }

    return (u_char *) a->elts + a->size * a->nelts++;
}


/*
 * As much of nginx's formats as parsers use: [0][width][u][x]i, D, z; V, s
 * and *s.
 */

u_char * ngx_cdecl
ngx_sprintf(u_char *buf, const char *fmt, ...)
{
    int         width, hex, zero;
    char       *p;
    long        n;
    size_t      size;
    va_list     args;
    ngx_str_t  *s;

    va_start(args, fmt);

    for ( /* void */ ; *fmt; fmt++) {

        if (*fmt != '%') {
            *buf++ = *fmt;
            continue;
        }

        zero = (fmt[1] == '0');
        width = 0;
        hex = 0;

        for (fmt++; *fmt >= '0' && *fmt <= '9'; fmt++) {
            width = width * 10 + *fmt - '0';
        }

        for ( /* void */ ; *fmt == 'u' || *fmt == 'x'; fmt++) {
            hex |= (*fmt == 'x');
        }

        if (*fmt == '*' && fmt[1] == 's') {
            fmt++;
            size = va_arg(args, size_t);
            buf = ngx_cpymem(buf, va_arg(args, u_char *), size);
            continue;
        }

        if (*fmt == 's') {
            p = va_arg(args, char *);
            buf = ngx_cpymem(buf, p, strlen(p));
            continue;
        }

        if (*fmt == 'V') {
            s = va_arg(args, ngx_str_t *);
            buf = ngx_cpymem(buf, s->data, s->len);
            continue;
        }

        n = (*fmt == 'D') ? (long) va_arg(args, uint32_t)
                          : va_arg(args, long);

        buf += sprintf((char *) buf,
                       hex ? (zero ? "%0*lx" : "%*lx")
                           : (zero ? "%0*ld" : "%*ld"), width, n);
    }

    va_end(args);

    return buf;
}


void
ngx_log_error_core(ngx_uint_t level, ngx_log_t *log, ngx_err_t err,
    const char *fmt, ...)
{
    stub_logged++;
    stub_level = level;
}


ngx_int_t
ngx_open_dir(ngx_str_t *name, ngx_dir_t *dir)
{
    dir->dir = opendir((char *) name->data);
    dir->valid_info = 0;

    return dir->dir ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_read_dir(ngx_dir_t *dir)
{
    dir->de = readdir(dir->dir);

    return dir->de ? NGX_OK : NGX_ERROR;
}


/* nginx's timers are a tree; here it is enough to count them */

void
ngx_rbtree_insert(ngx_rbtree_t *tree, ngx_rbtree_node_t *node)
{
    stub_timers++;
}


void
ngx_rbtree_delete(ngx_rbtree_t *tree, ngx_rbtree_node_t *node)
{
    stub_timers--;
}


void
stub_run_posted(void)
{
    ngx_event_t  *ev;
    ngx_queue_t  *q;

    while (!ngx_queue_empty(&ngx_posted_events)) {

        q = ngx_queue_head(&ngx_posted_events);
        ev = ngx_queue_data(q, ngx_event_t, queue);

        ngx_delete_posted_event(ev);
        ev->handler(ev);
    }
}


ngx_int_t
ngx_thread_task_post(ngx_thread_pool_t *tp, ngx_thread_task_t *task)
{
    if (stub_thread_full) {
        return NGX_ERROR;
    }

    task->event.active = 1;
    task->next = stub_task;
    stub_task = task;

    return NGX_OK;
}


ngx_thread_task_t *
stub_thread_take(void)
{
    ngx_thread_task_t  *task;

    task = stub_task;

    if (task) {
        stub_task = task->next;
    }

    return task;
}


void
stub_thread_work(ngx_thread_task_t *task)
{
    task->handler(task->ctx, &stub_log);
}


void
stub_thread_back(ngx_thread_task_t *task)
{
    task->event.complete = 1;
    task->event.active = 0;
    task->event.handler(&task->event);
}


void
ok(int good, const char *what, ...)
{
    char     text[256], *p;
    va_list  args;

    va_start(args, what);
    vsnprintf(text, sizeof(text), what, args);
    va_end(args);

    /* a line of TAP is one line, and '#' has a meaning in it */

    for (p = text; *p; p++) {
        if ((u_char) *p < 0x20 || (u_char) *p > 0x7e || *p == '#') {
            *p = '.';
        }
    }

    printf("%sok %d - %s\n", good ? "" : "not ", ++stub_tests, text);
    fflush(stdout);

    stub_failures += !good;
}


int
done_testing(void)
{
    printf("1..%d\n", stub_tests);

    return stub_failures != 0;
}
