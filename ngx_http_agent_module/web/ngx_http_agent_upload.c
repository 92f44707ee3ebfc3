
/*
 * Upload of an artifact: the body as a stream, from the socket through the
 * multipart parser into a blob, then the row.  No more than one buffer of the
 * body is in memory, and what is not yet written is not read: that is the
 * back-pressure.
 *
 *   ASKING -> READING    the task is there: the body is worth being taken
 *   ASKING -> over       it is not, or the database is away
 *   READING -> SYNCING   the body was read and is good; the blob is committed
 *   SYNCING -> STORING   the blob is safe; its row is made
 *   STORING -> over      the client is answered
 *   READING -> over      refused, or the client left: the blob is dropped
 *   SYNCING -> over      the worker must go: the blob is dropped
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_agent_id.h"
#include "ngx_http_agent_artifacts.h"
#include "ngx_http_agent_body.h"
#include "ngx_http_agent_headers.h"
#include "ngx_http_agent_reply.h"
#include "ngx_http_agent_upload.h"
#include "ngx_http_agent_view.h"


/* bytes of one body handled before other clients get their turn */
#define NGX_HTTP_AGENT_UPLOAD_TURN   (512 * 1024)

/* bytes read at a time from a body that nginx has put into a file */
#define NGX_HTTP_AGENT_UPLOAD_PIECE  16384


static ngx_http_agent_upload_t *ngx_http_agent_upload_create(
    ngx_http_agent_web_t *web);
static ngx_int_t ngx_http_agent_upload_key(ngx_http_agent_upload_t *up,
    ngx_int_t *rc);
static ngx_int_t ngx_http_agent_upload_print(ngx_http_agent_upload_t *up,
    ngx_str_t *text);
static ngx_int_t ngx_http_agent_upload_ask(ngx_http_agent_upload_t *up);
static ngx_int_t ngx_http_agent_upload_asked(ngx_http_agent_web_t *web);
static void ngx_http_agent_upload_body(ngx_http_request_t *r);
static void ngx_http_agent_upload_read(ngx_http_request_t *r);
static void ngx_http_agent_upload_turn(ngx_event_t *ev);
static void ngx_http_agent_upload_go(ngx_http_agent_upload_t *up);
static ngx_int_t ngx_http_agent_upload_pump(ngx_http_agent_upload_t *up);
static ngx_int_t ngx_http_agent_upload_consume(ngx_http_agent_upload_t *up);
static ngx_int_t ngx_http_agent_upload_memory(ngx_http_agent_upload_t *up,
    ngx_buf_t *b);
static ngx_int_t ngx_http_agent_upload_file(ngx_http_agent_upload_t *up,
    ngx_buf_t *b);
static ngx_int_t ngx_http_agent_upload_feed(ngx_http_agent_upload_t *up,
    u_char *p, size_t n);
static ngx_int_t ngx_http_agent_upload_commit(ngx_http_agent_upload_t *up);
static ngx_int_t ngx_http_agent_upload_refuse(ngx_http_agent_upload_t *up,
    ngx_int_t rc);
static void ngx_http_agent_upload_committed(ngx_agent_blob_t *b);
static ngx_int_t ngx_http_agent_upload_store(ngx_http_agent_upload_t *up);
static ngx_int_t ngx_http_agent_upload_stored(ngx_http_agent_web_t *web);
static ngx_int_t ngx_http_agent_upload_full(ngx_http_request_t *r);
static void ngx_http_agent_upload_drop(ngx_http_agent_upload_t *up);
static void ngx_http_agent_upload_cancel(ngx_http_agent_web_t *web);


ngx_int_t
ngx_http_agent_artifact_upload(ngx_http_agent_web_t *web)
{
    const char               *why;
    ngx_int_t                 rc;
    ngx_str_t                *type;
    ngx_http_request_t       *r;
    ngx_http_agent_upload_t  *up;

    r = web->request;

    if (!ngx_http_agent_artifacts_on(r)) {
        return ngx_http_agent_artifacts_off(r);
    }

    type = r->headers_in.content_type ? &r->headers_in.content_type->value
                                      : NULL;

    if (type == NULL
        || type->len < sizeof("multipart/form-data") - 1
        || ngx_strncasecmp(type->data, (u_char *) "multipart/form-data",
                           sizeof("multipart/form-data") - 1)
           != 0)
    {
        return ngx_http_agent_reply_error(r, NGX_HTTP_UNSUPPORTED_MEDIA_TYPE,
                                          "send the artifact as "
                                          "multipart/form-data, in a part "
                                          "called \"file\"");
    }

    up = ngx_http_agent_upload_create(web);
    if (up == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    up->parser = ngx_agent_multipart_create(r->pool, type,
                                            &ngx_http_agent_upload_cb, up,
                                            &why);
    if (up->parser == NULL) {
        return why ? ngx_http_agent_reply_invalid(r, "body", NULL, why)
                   : NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_http_agent_upload_key(up, &rc) != NGX_OK) {
        return rc;
    }

    return ngx_http_agent_upload_ask(up);
}


static ngx_http_agent_upload_t *
ngx_http_agent_upload_create(ngx_http_agent_web_t *web)
{
    ngx_log_t                *log;
    ngx_pool_t               *pool;
    ngx_http_agent_upload_t  *up;

    pool = web->request->pool;
    log = web->request->connection->log;

    up = ngx_pcalloc(pool, sizeof(ngx_http_agent_upload_t));
    if (up == NULL) {
        return NULL;
    }

    up->web = web;

    ngx_agent_id_create(&up->artifact.id);
    up->artifact.task_id = web->ctx->task_id;

    up->blob.pool = pool;
    up->blob.log = log;
    up->blob.id = up->artifact.id;
    up->blob.handler = ngx_http_agent_upload_committed;
    up->blob.data = up;

    up->turn.handler = ngx_http_agent_upload_turn;
    up->turn.data = up;
    up->turn.log = log;

    web->op = up;
    web->cancel = ngx_http_agent_upload_cancel;

    return up;
}


/*
 * With a key the upload has a print: the task, the file's bytes as they come,
 * and at the end its name, path and size.  NGX_DECLINED: the client has been
 * answered, *rc is the code to return.
 */

static ngx_int_t
ngx_http_agent_upload_key(ngx_http_agent_upload_t *up, ngx_int_t *rc)
{
    static ngx_str_t  kind = ngx_string("artifact");

    ngx_str_t            task;
    ngx_http_request_t  *r;

    r = up->web->request;

    if (ngx_http_agent_key(r, r->pool, &up->key, rc) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (up->key.data == NULL) {
        return NGX_OK;
    }

    up->print = ngx_http_agent_print_create(r->pool);
    if (up->print == NULL) {
        *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
        return NGX_DECLINED;
    }

    task.data = up->artifact.task_id.bytes;
    task.len = sizeof(up->artifact.task_id.bytes);

    ngx_http_agent_print_field(up->print, &kind);
    ngx_http_agent_print_field(up->print, &task);

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_upload_print(ngx_http_agent_upload_t *up, ngx_str_t *text)
{
    u_char     buf[NGX_OFF_T_LEN];
    ngx_str_t  size;

    size.data = buf;
    size.len = ngx_sprintf(buf, "%O", up->artifact.size) - buf;

    ngx_http_agent_print_field(up->print, &up->artifact.file_name);
    ngx_http_agent_print_field(up->print, &up->artifact.relative_path);
    ngx_http_agent_print_field(up->print, &size);

    return ngx_http_agent_print_done(up->print, text);
}


/*
 * Is there such a task?  An empty page of its steps is the cheapest way to
 * know: the task itself may have megabytes of input.
 */

static ngx_int_t
ngx_http_agent_upload_ask(ngx_http_agent_upload_t *up)
{
    ngx_agent_store_call_t  *call;

    call = ngx_http_agent_call(up->web);
    if (call == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    up->task.id = up->web->ctx->task_id;
    up->page.number = 1;

    call->task = &up->task;
    call->page = &up->page;

    return ngx_http_agent_call_start(up->web, ngx_agent_store_list_steps,
                                     ngx_http_agent_upload_asked);
}


static ngx_int_t
ngx_http_agent_upload_asked(ngx_http_agent_web_t *web)
{
    ngx_int_t            rc;
    ngx_http_request_t  *r;

    r = web->request;

    if (web->call->rc != NGX_OK) {
        return ngx_http_agent_reply_failed(r, web->call->rc, "task",
                                           &web->route.task);
    }

    r->connection->log->action = "reading client request body";

    r->request_body_no_buffering = 1;

    rc = ngx_http_read_client_request_body(r, ngx_http_agent_upload_body);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    return NGX_DONE;
}


/*
 * nginx has the headers, and the body's first bytes or, where it did not
 * stream (another module had read the body before), all of it, maybe in a
 * file.
 */

static void
ngx_http_agent_upload_body(ngx_http_request_t *r)
{
    ngx_http_agent_ctx_t  *ctx;
    ngx_http_agent_web_t  *web;

    ctx = ngx_http_get_module_ctx(r, ngx_http_agent_module);
    web = ctx->web;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "agent web: upload starts, streamed:%d",
                   (int) r->reading_body);

    ngx_http_agent_hold(r);

    if (r->reading_body) {
        r->read_event_handler = ngx_http_agent_upload_read;
    }

    ngx_http_agent_upload_go(web->op);
}


static void
ngx_http_agent_upload_read(ngx_http_request_t *r)
{
    ngx_http_agent_ctx_t  *ctx;
    ngx_http_agent_web_t  *web;

    ctx = ngx_http_get_module_ctx(r, ngx_http_agent_module);
    web = ctx->web;

    ngx_http_agent_upload_go(web->op);
}


static void
ngx_http_agent_upload_turn(ngx_event_t *ev)
{
    ngx_http_agent_upload_t  *up = ev->data;

    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = up->web->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    ngx_http_agent_upload_go(up);

    ngx_http_run_posted_requests(c);
}


/* One turn; ends the request when the reading is over and refused. */

static void
ngx_http_agent_upload_go(ngx_http_agent_upload_t *up)
{
    ngx_int_t            rc;
    ngx_http_request_t  *r;

    r = up->web->request;

    if (up->turn.posted) {
        ngx_delete_posted_event(&up->turn);
    }

    rc = ngx_http_agent_upload_pump(up);

    if (rc == NGX_AGAIN) {
        return;
    }

    /* the body is over, or not wanted any further */

    r->read_event_handler = ngx_http_block_reading;

    if (r->connection->read->timer_set) {
        ngx_del_timer(r->connection->read);
    }

    if (rc == NGX_OK) {
        rc = ngx_http_agent_upload_commit(up);

        if (rc == NGX_AGAIN) {
            return;
        }
    }

    ngx_http_agent_upload_drop(up);
    ngx_http_finalize_request(r, ngx_http_agent_upload_refuse(up, rc));
}


/* What reading or committing failed with, told to the client. */

static ngx_int_t
ngx_http_agent_upload_refuse(ngx_http_agent_upload_t *up, ngx_int_t rc)
{
    ngx_http_request_t  *r;

    r = up->web->request;

    switch (rc) {

    case NGX_DECLINED:
        return ngx_http_agent_reply_invalid(r, "body", up->field, up->why);

    case NGX_ABORT:
        return ngx_http_agent_upload_full(r);

    case NGX_HTTP_REQUEST_TIME_OUT:
        return ngx_http_agent_body_late(r);

    default:
        return rc;
    }
}


/*
 * NGX_OK: the whole body was taken; NGX_AGAIN: an event will go on;
 * NGX_DECLINED: up->why is wrong with it; NGX_ABORT: the disk does not take
 * it; else a code to end the request with.
 */

static ngx_int_t
ngx_http_agent_upload_pump(ngx_http_agent_upload_t *up)
{
    ngx_int_t            rc;
    ngx_http_request_t  *r;

    r = up->web->request;

    up->left = NGX_HTTP_AGENT_UPLOAD_TURN;

    for ( ;; ) {

        if (r->request_body) {
            rc = ngx_http_agent_upload_consume(up);

            if (rc == NGX_AGAIN) {
                ngx_post_event(&up->turn, &ngx_posted_next_events);
                return NGX_AGAIN;
            }

            if (rc != NGX_OK) {
                return rc;
            }
        }

        if (!r->reading_body) {
            return NGX_OK;
        }

        rc = ngx_http_read_unbuffered_request_body(r);

        if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
            return rc;
        }

        if (r->request_body->bufs == NULL && r->reading_body) {
            return NGX_AGAIN;
        }
    }
}


/* NGX_OK: all that was read is taken; NGX_AGAIN: the turn is over */

static ngx_int_t
ngx_http_agent_upload_consume(ngx_http_agent_upload_t *up)
{
    ngx_int_t                 rc;
    ngx_chain_t              *cl;
    ngx_http_request_t       *r;
    ngx_http_request_body_t  *rb;

    r = up->web->request;
    rb = r->request_body;

    while (rb->bufs) {

        cl = rb->bufs;

        while (ngx_buf_size(cl->buf) > 0) {

            if (up->left == 0) {
                return NGX_AGAIN;
            }

            if (ngx_buf_in_memory(cl->buf)) {
                rc = ngx_http_agent_upload_memory(up, cl->buf);

            } else {
                rc = ngx_http_agent_upload_file(up, cl->buf);
            }

            if (rc != NGX_OK) {
                return rc;
            }
        }

        rb->bufs = cl->next;
        ngx_free_chain(r->pool, cl);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_upload_memory(ngx_http_agent_upload_t *up, ngx_buf_t *b)
{
    size_t   n;
    u_char  *p;

    p = b->pos;
    n = ngx_min((size_t) (b->last - p), up->left);

    /* read, as far as nginx is concerned: it may use the buffer again */
    b->pos += n;
    up->left -= n;

    return ngx_http_agent_upload_feed(up, p, n);
}


static ngx_int_t
ngx_http_agent_upload_file(ngx_http_agent_upload_t *up, ngx_buf_t *b)
{
    size_t               size;
    ssize_t              n;
    ngx_http_request_t  *r;

    r = up->web->request;

    if (up->piece == NULL) {
        up->piece = ngx_pnalloc(r->pool, NGX_HTTP_AGENT_UPLOAD_PIECE);
        if (up->piece == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    size = (size_t) ngx_min(b->file_last - b->file_pos,
                            NGX_HTTP_AGENT_UPLOAD_PIECE);

    n = ngx_read_file(b->file, up->piece, size, b->file_pos);

    if (n <= 0) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "agent web: request body file \"%V\" is cut short",
                      &b->file->name);
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->file_pos += n;
    up->left -= ngx_min((size_t) n, up->left);

    return ngx_http_agent_upload_feed(up, up->piece, n);
}


static ngx_int_t
ngx_http_agent_upload_feed(ngx_http_agent_upload_t *up, u_char *p, size_t n)
{
    ngx_int_t  rc;

    if (up->finished) {
        return NGX_OK;
    }

    rc = ngx_agent_multipart_feed(up->parser, p, n);

    switch (rc) {

    case NGX_OK:
        return NGX_OK;

    case NGX_DONE:
        up->finished = 1;
        return NGX_OK;

    case NGX_DECLINED:

        /* a callback's refusal has said why already */

        if (up->why == NULL) {
            up->why = ngx_agent_multipart_why(up->parser);
        }

        return NGX_DECLINED;

    case NGX_ABORT:
        return NGX_ABORT;

    default:
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
}


/* NGX_AGAIN: the blob's handler goes on; else as the pump */

static ngx_int_t
ngx_http_agent_upload_commit(ngx_http_agent_upload_t *up)
{
    if (ngx_http_agent_upload_whole(up) != NGX_OK) {
        return NGX_DECLINED;
    }

    up->artifact.size = up->blob.size;

    if (ngx_agent_blob_commit(&up->blob) != NGX_AGAIN) {
        return NGX_ABORT;
    }

    up->blob.log->action = "storing an artifact";

    return NGX_AGAIN;
}


static void
ngx_http_agent_upload_committed(ngx_agent_blob_t *b)
{
    ngx_http_agent_upload_t  *up = b->data;

    ngx_int_t            rc;
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = up->web->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, c->log, 0,
                   "agent web: upload committed: %i", b->rc);

    up->open = 0;

    if (b->rc != NGX_OK) {
        rc = ngx_http_agent_upload_full(r);

    } else if (c->error) {

        /* nobody is there to be told the id: as if it had never come */

        ngx_agent_blob_delete(&up->blob.id, c->log);
        rc = NGX_HTTP_CLIENT_CLOSED_REQUEST;

    } else {
        rc = ngx_http_agent_upload_store(up);
    }

    ngx_http_agent_finalize(r, rc);
}


static ngx_int_t
ngx_http_agent_upload_store(ngx_http_agent_upload_t *up)
{
    ngx_int_t                rc;
    ngx_agent_store_call_t  *call;

    call = ngx_http_agent_call(up->web);
    if (call == NULL) {
        ngx_agent_blob_delete(&up->blob.id, up->blob.log);
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    call->artifact = &up->artifact;
    call->key = up->key;

    if (up->print
        && ngx_http_agent_upload_print(up, &call->print) != NGX_OK)
    {
        ngx_agent_blob_delete(&up->blob.id, up->blob.log);
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_agent_call_start(up->web, ngx_agent_store_create_artifact,
                                   ngx_http_agent_upload_stored);

    if (rc != NGX_DONE) {
        /* the store was not even asked */
        ngx_agent_blob_delete(&up->blob.id, up->blob.log);
    }

    return rc;
}


static ngx_int_t
ngx_http_agent_upload_stored(ngx_http_agent_web_t *web)
{
    ngx_agent_json_t          j;
    ngx_http_request_t       *r;
    ngx_agent_store_call_t   *call;
    ngx_http_agent_upload_t  *up = web->op;

    r = web->request;
    call = web->call;

    /*
     * On NGX_ABORT the row may have been made, so the blob stays: a file that
     * nobody names does less harm than a name with no file.
     */

    if (call->rc == NGX_DECLINED || call->rc == NGX_BUSY
        || call->rc == NGX_ERROR || call->replayed || call->mismatch)
    {
        ngx_agent_blob_delete(&up->blob.id, up->blob.log);
    }

    if (call->rc == NGX_BUSY) {
        return ngx_http_agent_reply_quota(r, call->quota, &call->quota_max);
    }

    if (call->rc != NGX_OK) {
        return ngx_http_agent_reply_failed(r, call->rc, "task",
                                           &web->route.task);
    }

    if (call->mismatch) {
        return ngx_http_agent_key_mismatch(r);
    }

    if (call->replayed && ngx_http_agent_key_replayed(r) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_agent_json_init(&j, r->pool,
                        ngx_http_agent_view_artifact_size(&up->artifact));

    ngx_http_agent_view_artifact(&j, &up->artifact);

    return ngx_http_agent_reply_json(r, NGX_HTTP_OK, &j);
}


static ngx_int_t
ngx_http_agent_upload_full(ngx_http_request_t *r)
{
    return ngx_http_agent_reply_error(r, NGX_HTTP_INSUFFICIENT_STORAGE,
                                      "the artifact could not be written; "
                                      "the server's error log says why");
}


static void
ngx_http_agent_upload_drop(ngx_http_agent_upload_t *up)
{
    if (up->open) {
        up->open = 0;
        ngx_agent_blob_abort(&up->blob);
    }
}


static void
ngx_http_agent_upload_cancel(ngx_http_agent_web_t *web)
{
    ngx_http_agent_upload_t  *up = web->op;

    if (up->turn.posted) {
        ngx_delete_posted_event(&up->turn);
    }

    ngx_http_agent_upload_drop(up);
}
