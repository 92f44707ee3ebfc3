
/*
 * Blobs: the bytes of artifacts.  This is the interface; the disk is behind
 * it (later S3).  A blob's name is the artifact's id and nothing else: what
 * clients call a file never reaches a path.
 */

#ifndef _NGX_AGENT_BLOB_H_INCLUDED_
#define _NGX_AGENT_BLOB_H_INCLUDED_


#include "ngx_agent.h"


typedef struct ngx_agent_blob_s  ngx_agent_blob_t;

typedef void (*ngx_agent_blob_pt)(ngx_agent_blob_t *b);

/*
 * One blob being written.  The caller owns the struct (zeroed), and fills
 * pool, log, id, handler and data; both must live until the handler ran or
 * ngx_agent_blob_abort() returned.
 */
struct ngx_agent_blob_s {
    ngx_pool_t                *pool;
    ngx_log_t                 *log;
    ngx_agent_id_t             id;
    ngx_agent_blob_pt          handler;
    void                      *data;

    off_t                      size;      /* bytes written so far */
    ngx_int_t                  rc;        /* for the handler */

    /* private */
    ngx_fd_t                   fd;
    ngx_str_t                  temp;      /* data != NULL: fd is open */
    void                      *sync;      /* a commit is under way */
    ngx_pool_cleanup_t        *cleanup;
};


/*
 * At process start, for every worker: the directory, as the configuration
 * has it (it exists and belongs to the worker's user), and the thread pool
 * for syncs, or NULL: then they are done in place.
 * NGX_OK or NGX_ERROR (logged).  Worker 0 removes temporary files older than
 * a day that a crash left behind.
 */
ngx_int_t ngx_agent_blob_init(ngx_cycle_t *cycle, ngx_str_t *root,
    void *thread_pool);

/*
 * Opens the temporary file.  A pool cleanup removes it if the pool dies
 * before the commit.  NGX_OK, or NGX_ERROR (logged).
 */
ngx_int_t ngx_agent_blob_create(ngx_agent_blob_t *b);

/* Appends.  NGX_OK, or NGX_ERROR (logged): no room, I/O error. */
ngx_int_t ngx_agent_blob_write(ngx_agent_blob_t *b, const u_char *p,
    size_t n);

/*
 * Syncs, renames into place, syncs the directory, in the thread pool: the
 * worker goes on.  NGX_AGAIN: the handler will run once, from an event, with
 * b->rc NGX_OK (a crash no longer loses the blob) or NGX_ERROR (logged,
 * nothing left behind).  NGX_ERROR: could not even start (logged, nothing
 * left behind).
 */
ngx_int_t ngx_agent_blob_commit(ngx_agent_blob_t *b);

/*
 * Drops what was written.  Does nothing when there is nothing to drop.  While
 * a commit is under way the handler will not run, and the blob is removed
 * when the commit is through; the pool's end does the same.
 */
void ngx_agent_blob_abort(ngx_agent_blob_t *b);

/* The file to open for reading.  NGX_OK, or NGX_ERROR: no memory. */
ngx_int_t ngx_agent_blob_path(ngx_pool_t *pool, const ngx_agent_id_t *id,
    ngx_str_t *path);

/*
 * Reads the whole of a small blob.  NGX_OK; NGX_DECLINED: it is larger than
 * max bytes, or gone; NGX_ERROR (logged).
 */
ngx_int_t ngx_agent_blob_load(ngx_pool_t *pool, ngx_log_t *log,
    const ngx_agent_id_t *id, size_t max, ngx_str_t *content);

/* Removes a committed blob whose row never came to be. */
void ngx_agent_blob_delete(const ngx_agent_id_t *id, ngx_log_t *log);


#endif /* _NGX_AGENT_BLOB_H_INCLUDED_ */
