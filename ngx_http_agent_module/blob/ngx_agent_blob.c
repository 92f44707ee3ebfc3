
/*
 * Blobs on a disk: writing one, reading a small one.  No request, no row: who
 * may see a blob is decided elsewhere.
 *
 * The event loop only ever writes into the page cache.  What waits for the
 * disk is done by a thread, on memory of its own (ngx_agent_sync_t, on the
 * heap), because the caller's pool may die before the disk has answered.
 */

#include "ngx_agent_blob_file.h"
#include "ngx_agent_id.h"

#include <ngx_event.h>

#if (NGX_THREADS)
#include <ngx_thread_pool.h>
#endif


/* a sync slower than this is worth a word in the log; milliseconds */
#define NGX_AGENT_BLOB_SLOW  30000


/*
 * A commit under way.  "pad" and "fd" stand where a connection has its fd:
 * nginx's debug log prints it for every timer's and posted event's data.
 */

typedef struct {
    ngx_agent_blob_t          *blob;      /* NULL: nobody waits any more */
    void                      *pad[2];
    ngx_fd_t                   fd;
    ngx_int_t                  rc;
    ngx_agent_blob_error_t     error;
    ngx_event_t                event;     /* when there is no thread */
    ngx_event_t                slow;
    u_char                    *temp;
    u_char                    *path;
#if (NGX_THREADS)
    ngx_thread_task_t          task;
#endif
} ngx_agent_sync_t;


static ngx_agent_sync_t *ngx_agent_sync_create(ngx_agent_blob_t *b);
static ngx_int_t ngx_agent_sync_start(ngx_agent_sync_t *sync);
static void ngx_agent_sync_thread(void *data, ngx_log_t *log);
static void ngx_agent_sync_done(ngx_event_t *ev);
static void ngx_agent_sync_slow(ngx_event_t *ev);
static void ngx_agent_blob_cleanup(void *data);
static void ngx_agent_blob_closed(ngx_agent_blob_t *b);
static ngx_int_t ngx_agent_blob_read(ngx_fd_t fd, u_char *p, size_t n);


/* the worker's own; set once, before any call */

static ngx_str_t   ngx_agent_blob_root;
static ngx_log_t  *ngx_agent_blob_log;

#if (NGX_THREADS)
static ngx_thread_pool_t  *ngx_agent_blob_threads;
#endif


ngx_int_t
ngx_agent_blob_init(ngx_cycle_t *cycle, ngx_str_t *root, void *thread_pool)
{
    ngx_agent_blob_root = *root;
    ngx_agent_blob_log = cycle->log;

    /* "/data/" and "/data" are one place */

    while (ngx_agent_blob_root.len > 1
           && root->data[ngx_agent_blob_root.len - 1] == '/')
    {
        ngx_agent_blob_root.len--;
    }

#if (NGX_THREADS)
    ngx_agent_blob_threads = thread_pool;
#endif

    if (ngx_agent_blob_folders(&ngx_agent_blob_root, cycle->log) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_worker == 0) {
        ngx_agent_blob_sweep(&ngx_agent_blob_root, cycle->log);
    }

    return NGX_OK;
}


ngx_int_t
ngx_agent_blob_create(ngx_agent_blob_t *b)
{
    u_char              *p;
    ngx_pool_cleanup_t  *cln;

    p = ngx_pnalloc(b->pool, ngx_agent_blob_root.len + NGX_AGENT_BLOB_TAIL);
    if (p == NULL) {
        return NGX_ERROR;
    }

    cln = ngx_pool_cleanup_add(b->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    b->temp.len = ngx_agent_blob_print_temp(p, &ngx_agent_blob_root, &b->id)
                  - p;

    ngx_log_debug1(NGX_LOG_DEBUG_CORE, b->log, 0,
                   "agent blob: create \"%s\"", p);

    b->fd = ngx_open_file(p, O_WRONLY|O_CLOEXEC, O_CREAT|O_EXCL, 0600);

    if (b->fd == NGX_INVALID_FILE) {
        ngx_log_error(NGX_LOG_ERR, b->log, ngx_errno,
                      "agent blob: cannot create \"%s\"", p);
        return NGX_ERROR;
    }

    b->temp.data = p;
    b->size = 0;
    b->sync = NULL;

    b->cleanup = cln;
    cln->handler = ngx_agent_blob_cleanup;
    cln->data = b;

    return NGX_OK;
}


ngx_int_t
ngx_agent_blob_write(ngx_agent_blob_t *b, const u_char *p, size_t n)
{
    ssize_t  rc;

    while (n) {

        rc = ngx_write_fd(b->fd, (void *) p, n);

        if (rc == -1 && ngx_errno == NGX_EINTR) {
            continue;
        }

        if (rc <= 0) {
            ngx_log_error(NGX_LOG_ERR, b->log, rc ? ngx_errno : 0,
                          "agent blob: cannot write to \"%V\"", &b->temp);
            return NGX_ERROR;
        }

        p += rc;
        n -= rc;
        b->size += rc;
    }

    return NGX_OK;
}


ngx_int_t
ngx_agent_blob_commit(ngx_agent_blob_t *b)
{
    ngx_agent_sync_t  *sync;

    ngx_log_debug2(NGX_LOG_DEBUG_CORE, b->log, 0,
                   "agent blob: commit \"%V\", %O bytes", &b->temp, b->size);

    sync = ngx_agent_sync_create(b);

    if (sync == NULL) {
        ngx_agent_blob_abort(b);
        return NGX_ERROR;
    }

    if (ngx_agent_sync_start(sync) != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, b->log, 0,
                      "agent blob: cannot begin to sync \"%V\"", &b->temp);
        ngx_free(sync);
        ngx_agent_blob_abort(b);
        return NGX_ERROR;
    }

    b->sync = sync;

    return NGX_AGAIN;
}


static ngx_agent_sync_t *
ngx_agent_sync_create(ngx_agent_blob_t *b)
{
    size_t             n;
    ngx_agent_sync_t  *sync;

    n = ngx_agent_blob_root.len + NGX_AGENT_BLOB_TAIL;

    sync = ngx_calloc(sizeof(ngx_agent_sync_t) + 2 * n, b->log);
    if (sync == NULL) {
        return NULL;
    }

    sync->temp = (u_char *) sync + sizeof(ngx_agent_sync_t);
    sync->path = sync->temp + n;

    (void) ngx_agent_blob_print_temp(sync->temp, &ngx_agent_blob_root, &b->id);
    (void) ngx_agent_blob_print_path(sync->path, &ngx_agent_blob_root, &b->id);

    sync->blob = b;
    sync->fd = b->fd;

    return sync;
}


static ngx_int_t
ngx_agent_sync_start(ngx_agent_sync_t *sync)
{
    /*
     * The timer is not cancelable, and so a worker that is to quit does not
     * leave before the disk has answered: a thread alone would not keep it.
     */

    sync->slow.handler = ngx_agent_sync_slow;
    sync->slow.data = sync;
    sync->slow.log = ngx_agent_blob_log;

#if (NGX_THREADS)

    if (ngx_agent_blob_threads) {
        sync->task.ctx = sync;
        sync->task.handler = ngx_agent_sync_thread;
        sync->task.event.handler = ngx_agent_sync_done;
        sync->task.event.data = sync;
        sync->task.event.log = ngx_agent_blob_log;

        if (ngx_thread_task_post(ngx_agent_blob_threads, &sync->task)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        ngx_add_timer(&sync->slow, NGX_AGENT_BLOB_SLOW);

        return NGX_OK;
    }

#endif

    ngx_agent_sync_thread(sync, ngx_agent_blob_log);

    sync->event.handler = ngx_agent_sync_done;
    sync->event.data = sync;
    sync->event.log = ngx_agent_blob_log;

    ngx_post_event(&sync->event, &ngx_posted_events);

    return NGX_OK;
}


/* may run in a thread: sync is all that it touches */

static void
ngx_agent_sync_thread(void *data, ngx_log_t *log)
{
    ngx_agent_sync_t  *sync = data;

    sync->rc = ngx_agent_blob_settle(sync->fd, sync->temp, sync->path,
                                     &sync->error);
}


/* back in the event loop */

static void
ngx_agent_sync_done(ngx_event_t *ev)
{
    ngx_agent_sync_t  *sync = ev->data;

    ngx_agent_blob_t  *b;

    if (sync->slow.timer_set) {
        ngx_del_timer(&sync->slow);
    }

    b = sync->blob;

    if (sync->rc != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, b ? b->log : ngx_agent_blob_log,
                      sync->error.err, "agent blob: %s failed for \"%s\"",
                      sync->error.call, sync->path);

    } else if (b == NULL && ngx_delete_file(sync->path) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_WARN, ngx_agent_blob_log, ngx_errno,
                      "agent blob: cannot remove \"%s\"", sync->path);
    }

    if (b == NULL) {
        ngx_free(sync);
        return;
    }

    b->rc = sync->rc;
    b->sync = NULL;

    ngx_free(sync);

    ngx_agent_blob_closed(b);

    b->handler(b);
}


static void
ngx_agent_sync_slow(ngx_event_t *ev)
{
    ngx_agent_sync_t  *sync = ev->data;

    /* path was set before the thread started, and does not change */

    ngx_log_error(NGX_LOG_WARN, ev->log, 0,
                  "agent blob: the disk has not synced \"%s\" for %d s",
                  sync->path, NGX_AGENT_BLOB_SLOW / 1000);

    ngx_add_timer(ev, NGX_AGENT_BLOB_SLOW);
}


void
ngx_agent_blob_abort(ngx_agent_blob_t *b)
{
    ngx_agent_sync_t  *sync = b->sync;

    if (b->temp.data == NULL) {
        return;
    }

    if (sync) {

        /* the thread has the file; ngx_agent_sync_done() will remove it */

        sync->blob = NULL;
        b->sync = NULL;

        ngx_agent_blob_closed(b);
        return;
    }

    ngx_log_debug1(NGX_LOG_DEBUG_CORE, b->log, 0,
                   "agent blob: drop \"%V\"", &b->temp);

    (void) ngx_close_file(b->fd);

    if (ngx_delete_file(b->temp.data) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_WARN, b->log, ngx_errno,
                      "agent blob: cannot remove \"%V\"", &b->temp);
    }

    ngx_agent_blob_closed(b);
}


static void
ngx_agent_blob_cleanup(void *data)
{
    ngx_agent_blob_abort(data);
}


/* the blob has no file any more, and the pool's end no work with it */

static void
ngx_agent_blob_closed(ngx_agent_blob_t *b)
{
    b->fd = NGX_INVALID_FILE;
    b->temp.data = NULL;
    b->temp.len = 0;

    b->cleanup->handler = NULL;
    b->cleanup = NULL;
}


ngx_int_t
ngx_agent_blob_path(ngx_pool_t *pool, const ngx_agent_id_t *id,
    ngx_str_t *path)
{
    u_char  *p;

    p = ngx_pnalloc(pool, ngx_agent_blob_root.len + NGX_AGENT_BLOB_TAIL);
    if (p == NULL) {
        return NGX_ERROR;
    }

    path->data = p;
    path->len = ngx_agent_blob_print_path(p, &ngx_agent_blob_root, id) - p;

    return NGX_OK;
}


ngx_int_t
ngx_agent_blob_load(ngx_pool_t *pool, ngx_log_t *log,
    const ngx_agent_id_t *id, size_t max, ngx_str_t *content)
{
    u_char           path[NGX_MAX_PATH + NGX_AGENT_BLOB_TAIL];
    ngx_fd_t         fd;
    ngx_int_t        rc;
    ngx_file_info_t  fi;

    (void) ngx_agent_blob_print_path(path, &ngx_agent_blob_root, id);

    fd = ngx_open_file(path, O_RDONLY|O_CLOEXEC, 0, 0);

    if (fd == NGX_INVALID_FILE && ngx_errno == NGX_ENOENT) {
        return NGX_DECLINED;
    }

    if (fd == NGX_INVALID_FILE) {
        ngx_log_error(NGX_LOG_ERR, log, ngx_errno,
                      "agent blob: cannot open \"%s\"", path);
        return NGX_ERROR;
    }

    rc = NGX_ERROR;

    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_ERR, log, ngx_errno,
                      "agent blob: cannot look at \"%s\"", path);
        goto done;
    }

    if ((uint64_t) ngx_file_size(&fi) > (uint64_t) max) {
        rc = NGX_DECLINED;
        goto done;
    }

    content->len = (size_t) ngx_file_size(&fi);

    /* never 0 bytes: an empty blob's data is still not NULL */

    content->data = ngx_pnalloc(pool, content->len + 1);
    if (content->data == NULL) {
        goto done;
    }

    rc = ngx_agent_blob_read(fd, content->data, content->len);

    if (rc != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, log, ngx_errno,
                      "agent blob: cannot read all of \"%s\"", path);
    }

done:

    (void) ngx_close_file(fd);

    return rc;
}


static ngx_int_t
ngx_agent_blob_read(ngx_fd_t fd, u_char *p, size_t n)
{
    ssize_t  rc;

    while (n) {

        rc = ngx_read_fd(fd, p, n);

        if (rc == -1 && ngx_errno == NGX_EINTR) {
            continue;
        }

        if (rc == 0) {
            ngx_set_errno(0);
        }

        if (rc <= 0) {
            return NGX_ERROR;
        }

        p += rc;
        n -= rc;
    }

    return NGX_OK;
}


void
ngx_agent_blob_delete(const ngx_agent_id_t *id, ngx_log_t *log)
{
    u_char  path[NGX_MAX_PATH + NGX_AGENT_BLOB_TAIL];

    (void) ngx_agent_blob_print_path(path, &ngx_agent_blob_root, id);

    if (ngx_delete_file(path) == NGX_FILE_ERROR && ngx_errno != NGX_ENOENT) {
        ngx_log_error(NGX_LOG_WARN, log, ngx_errno,
                      "agent blob: cannot remove \"%s\"", path);
    }
}
