
/*
 * The worker's own request: its life from the call to the end.  Knows no
 * step's rules and no dialect.
 *
 * Who owns what: the fake is on the heap, the request and everything nginx
 * does for it in the request's own pool.  Nothing of nginx's ever closes
 * them: "count" holds a reference, "blocked" makes nginx's own closing stop
 * short, and the fake is freed from an event, when no function of nginx's is
 * on the stack that still uses the connection.
 */

#include "ngx_http_agent_fake_request.h"


/* time a thread of nginx's gets to come back, before one looks again */
#define NGX_HTTP_AGENT_FAKE_LINGER  20


static ngx_http_agent_fake_t *ngx_http_agent_fake_start(
    ngx_http_agent_fake_conf_t *conf);
static void ngx_http_agent_fake_done(ngx_event_t *ev);
static void ngx_http_agent_fake_cleanup(ngx_http_agent_fake_t *f);
static void ngx_http_agent_fake_linger(ngx_event_t *ev);
static void ngx_http_agent_fake_free(ngx_http_agent_fake_t *f);
static void ngx_http_agent_fake_free_connection(ngx_http_agent_fake_t *f);


ngx_http_agent_fake_t *
ngx_http_agent_fake_call(ngx_http_agent_fake_conf_t *conf)
{
    ngx_http_agent_fake_t  *f;

    f = ngx_http_agent_fake_start(conf);

    if (conf->file != NGX_INVALID_FILE) {
        /* the request was not made, or not as far as that */
        (void) ngx_close_file(conf->file);
        conf->file = NGX_INVALID_FILE;
    }

    if (f) {
        ngx_http_run_posted_requests(f->connection);
    }

    return f;
}


static ngx_http_agent_fake_t *
ngx_http_agent_fake_start(ngx_http_agent_fake_conf_t *conf)
{
    ngx_http_agent_fake_t  *f;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, conf->log, 0,
                   "agent run: call \"%V\"", &conf->pass);

    /* the log may name the tenant when the live step is no more */

    f = ngx_calloc(sizeof(ngx_http_agent_fake_t) + conf->tenant.len,
                   conf->log);
    if (f == NULL) {
        return NULL;
    }

    f->ctx.tenant.data = (u_char *) f + sizeof(ngx_http_agent_fake_t);

    if (conf->tenant.len) {
        f->ctx.tenant.len = conf->tenant.len;
        ngx_memcpy(f->ctx.tenant.data, conf->tenant.data, conf->tenant.len);
    }

    f->handlers = conf->handlers;
    f->data = conf->data;

    f->ctx.run = f;
    f->ctx.agent = conf->agent;
    f->ctx.task_id = *conf->task_id;
    f->ctx.step_id = *conf->step_id;
    f->ctx.attempt = conf->attempt;
    f->ctx.status = NGX_AGENT_STEP_RUNNING;
    f->ctx.has_task = 1;
    f->ctx.has_step = 1;
    f->ctx.has_status = 1;

    f->event.handler = ngx_http_agent_fake_done;
    f->event.data = f;
    f->event.log = conf->log;

    if (ngx_http_agent_fake_connect(f, conf) != NGX_OK) {
        ngx_free(f);
        return NULL;
    }

    if (ngx_http_agent_fake_request(f, conf) != NGX_OK
        || ngx_http_agent_fake_subrequest(f, conf) != NGX_OK)
    {
        f->closed = 1;
        ngx_http_agent_fake_free(f);
        return NULL;
    }

    return f;
}


/*
 * nginx calls it in the middle of finalizing, perhaps more than once.  An
 * error is handed back once, for error_page's sake: nginx then either goes
 * to another location or sends its page, which is captured, and comes back.
 * Those that would terminate the request are not: it must live until the
 * event.  An earlier attempt at this in another project freed the request
 * from here, and nginx went on with it.
 */

ngx_int_t
ngx_http_agent_fake_finalized(ngx_http_request_t *sr, void *data, ngx_int_t rc)
{
    ngx_http_agent_fake_t *f = data;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, sr->connection->log, 0,
                   "agent run: call finalized, rc:%i", rc);

    if (f->closed) {
        return NGX_OK;
    }

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE
        && rc != NGX_HTTP_CLOSE
        && rc != NGX_HTTP_REQUEST_TIME_OUT
        && rc != NGX_HTTP_CLIENT_CLOSED_REQUEST
        && !sr->header_sent
        && !sr->connection->error)
    {
        return rc;
    }

    if (!f->done) {
        f->done = 1;
        ngx_post_event(&f->event, &ngx_posted_events);
    }

    return NGX_OK;
}


static void
ngx_http_agent_fake_done(ngx_event_t *ev)
{
    ngx_http_agent_fake_t *f = ev->data;

    f->handlers->done(f->data);
}


void
ngx_http_agent_fake_read(ngx_event_t *rev)
{
    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, rev->log, 0,
                   "agent run: read event of a call");
}


/* A timer that a module has set upon the client's side, such as a delay. */

void
ngx_http_agent_fake_write(ngx_event_t *wev)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    c = wev->data;
    r = c->data;

    if (wev->delayed && wev->timedout) {
        wev->delayed = 0;
        wev->timedout = 0;
    }

    r->write_event_handler(r);

    ngx_http_run_posted_requests(c);
}


/*
 * nginx wakes the connection's request, which is the main one; whoever waits
 * is the subrequest.
 */

void
ngx_http_agent_fake_wake(ngx_http_request_t *r)
{
    ngx_http_agent_ctx_t   *ctx;
    ngx_http_agent_fake_t  *f;

    ctx = ngx_http_get_module_ctx(r, ngx_http_agent_module);
    f = ctx->run;

    if (f->done || f->closed || f->subrequest == NULL) {
        return;
    }

    f->subrequest->write_event_handler(f->subrequest);
}


void
ngx_http_agent_fake_close(ngx_http_agent_fake_t *f)
{
    f->closed = 1;

    if (f->event.posted) {
        ngx_delete_posted_event(&f->event);
    }

    ngx_http_agent_fake_cleanup(f);
    ngx_http_agent_fake_free(f);
}


ngx_uint_t
ngx_http_agent_fake_upstream(ngx_http_agent_fake_t *f, ngx_str_t *name,
    ngx_msec_t *connected)
{
    ngx_http_upstream_t  *u;

    ngx_str_null(name);

    u = f->subrequest->upstream;

    if (u == NULL || u->state == NULL) {
        return 0;
    }

    if (u->state->peer) {
        *name = *u->state->peer;
    }

    if (u->state->connect_time == (ngx_msec_t) -1) {
        return 0;
    }

    *connected = u->start_time + u->state->connect_time;

    return 1;
}


ngx_uint_t
ngx_http_agent_fake_complete(ngx_http_agent_fake_t *f)
{
    return f->complete;
}


ngx_str_t *
ngx_http_agent_fake_uri(ngx_http_agent_fake_t *f)
{
    return &f->request->unparsed_uri;
}


void
ngx_http_agent_fake_abandon(ngx_http_agent_fake_t *f)
{
    f->closed = 1;

    if (f->event.posted) {
        ngx_delete_posted_event(&f->event);
    }

    ngx_http_agent_fake_cleanup(f);

    if (f->request->blocked == 1) {
        ngx_http_agent_fake_free(f);
    }
}


/* As ngx_http_terminate_request() does: closes the upstream's connection. */

static void
ngx_http_agent_fake_cleanup(ngx_http_agent_fake_t *f)
{
    ngx_http_cleanup_t  *cln;

    cln = f->request->cleanup;
    f->request->cleanup = NULL;

    while (cln) {
        if (cln->handler) {
            cln->handler(cln->data);
        }

        cln = cln->next;
    }

    f->subrequest->read_event_handler = ngx_http_block_reading;
    f->subrequest->write_event_handler = ngx_http_request_empty_handler;
}


static void
ngx_http_agent_fake_linger(ngx_event_t *ev)
{
    ngx_http_agent_fake_free(ev->data);
}


static void
ngx_http_agent_fake_free(ngx_http_agent_fake_t *f)
{
    ngx_http_request_t  *r;

    r = f->request;

    if (r && r->blocked > 1) {

        /* a thread reads or writes a file into the request's memory */

        f->event.handler = ngx_http_agent_fake_linger;
        f->event.log = ngx_cycle->log;

        ngx_add_timer(&f->event, NGX_HTTP_AGENT_FAKE_LINGER);
        return;
    }

    if (r) {
        r->blocked = 0;
        ngx_http_free_request(r, 0);
    }

    ngx_http_agent_fake_free_connection(f);

    ngx_free(f);
}


static void
ngx_http_agent_fake_free_connection(ngx_http_agent_fake_t *f)
{
    ngx_connection_t  *c;

    c = f->connection;

    if (c->read->timer_set) {
        ngx_del_timer(c->read);
    }

    if (c->write->timer_set) {
        ngx_del_timer(c->write);
    }

    if (c->read->posted) {
        ngx_delete_posted_event(c->read);
    }

    if (c->write->posted) {
        ngx_delete_posted_event(c->write);
    }

    /* not for the event module: it never knew this connection */

    c->read->active = 0;
    c->write->active = 0;
    c->read->closed = 1;
    c->write->closed = 1;

    c->log = ngx_cycle->log;
    c->read->log = ngx_cycle->log;
    c->write->log = ngx_cycle->log;

    /* event modules with a table of files look the number up in it */

    c->fd = 0;

    ngx_free_connection(c);

    c->fd = (ngx_socket_t) -1;
}


ngx_http_agent_fake_t *
ngx_http_agent_fake_of(ngx_http_request_t *r, ngx_uint_t *nested)
{
    ngx_http_agent_ctx_t   *ctx;
    ngx_http_agent_fake_t  *f;

    if (r == r->main || r->connection->fd != (ngx_socket_t) -1) {
        return NULL;
    }

    /*
     * An internal redirect wipes the subrequest's context, so it is the main
     * request's that counts, and the subrequest gets its own back.
     */

    ctx = ngx_http_get_module_ctx(r->main, ngx_http_agent_module);

    if (ctx == NULL || ctx->run == NULL) {
        return NULL;
    }

    f = ctx->run;

    *nested = (r != f->subrequest);

    if (!*nested) {
        ngx_http_set_ctx(r, ctx, ngx_http_agent_module);
    }

    return f;
}


void
ngx_http_agent_fake_header(ngx_http_agent_fake_t *f, ngx_http_request_t *r)
{
    /* after an internal redirect it is another answer */

    f->complete = 0;

    if (!f->closed) {
        f->handlers->header(f->data, r);
    }
}


ngx_int_t
ngx_http_agent_fake_body(ngx_http_agent_fake_t *f, u_char *p, size_t n)
{
    if (f->closed || f->done) {
        return NGX_OK;
    }

    return f->handlers->body(f->data, p, n);
}


void
ngx_http_agent_fake_last(ngx_http_agent_fake_t *f)
{
    f->complete = 1;
}
