
/*
 * The worker's own request.  nginx has no notion of a request without a
 * client, so each field that it would ask of a client's connection is set
 * here, with the reason beside it.  Knows no step's rules and no dialect.
 *
 * Who owns what: the fake is on the heap, the request and everything nginx
 * does for it in the request's own pool.  Nothing of nginx's ever closes
 * them: "count" holds a reference, "blocked" makes nginx's own closing stop
 * short, and the fake is freed from an event, when no function of nginx's is
 * on the stack that still uses the connection.
 */

#include "ngx_http_agent_fake.h"
#include "ngx_agent_id.h"


struct ngx_http_agent_fake_s {
    ngx_http_log_ctx_t               log_ctx;
    ngx_log_t                        log;
    ngx_http_connection_t            hc;
    ngx_http_agent_ctx_t             ctx;
    ngx_http_post_subrequest_t       ps;
    ngx_event_t                      event;

    ngx_connection_t                *connection;
    ngx_http_request_t              *request;
    ngx_http_request_t              *subrequest;

    const ngx_http_agent_fake_handlers_t  *handlers;
    void                            *data;

    unsigned                         done:1;
    unsigned                         closed:1;
};


/* time a thread of nginx's gets to come back, before one looks again */
#define NGX_HTTP_AGENT_FAKE_LINGER  20


static ngx_int_t ngx_http_agent_fake_connect(ngx_http_agent_fake_t *f,
    ngx_http_agent_fake_conf_t *conf);
static ngx_int_t ngx_http_agent_fake_request(ngx_http_agent_fake_t *f,
    ngx_http_agent_fake_conf_t *conf);
static ngx_int_t ngx_http_agent_fake_subrequest(ngx_http_agent_fake_t *f,
    ngx_http_agent_fake_conf_t *conf);
static ngx_int_t ngx_http_agent_fake_headers(ngx_http_request_t *sr,
    size_t length);
static ngx_table_elt_t *ngx_http_agent_fake_set(ngx_http_request_t *sr,
    const char *name, const char *lowcase, ngx_str_t *value);
static ngx_int_t ngx_http_agent_fake_payload(ngx_http_request_t *sr,
    ngx_str_t *body);
static ngx_int_t ngx_http_agent_fake_finalized(ngx_http_request_t *sr,
    void *data, ngx_int_t rc);
static void ngx_http_agent_fake_done(ngx_event_t *ev);
static void ngx_http_agent_fake_read(ngx_event_t *rev);
static void ngx_http_agent_fake_write(ngx_event_t *wev);
static void ngx_http_agent_fake_wake(ngx_http_request_t *r);
static void ngx_http_agent_fake_cleanup(ngx_http_agent_fake_t *f);
static void ngx_http_agent_fake_linger(ngx_event_t *ev);
static void ngx_http_agent_fake_free(ngx_http_agent_fake_t *f);
static void ngx_http_agent_fake_free_connection(ngx_http_agent_fake_t *f);
static u_char *ngx_http_agent_fake_log(ngx_log_t *log, u_char *buf,
    size_t len);


/*
 * Variables and modules ask for the client's address ($binary_remote_addr,
 * geo, limit_req) and take a NULL badly, so the worker is its own client.
 */

static ngx_str_t  ngx_http_agent_fake_addr = ngx_string("127.0.0.1");

static struct sockaddr_in  ngx_http_agent_fake_sockaddr;


ngx_http_agent_fake_t *
ngx_http_agent_fake_call(ngx_http_agent_fake_conf_t *conf)
{
    ngx_connection_t       *c;
    ngx_http_agent_fake_t  *f;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, conf->log, 0,
                   "agent run: call \"%V\"", &conf->pass);

    f = ngx_calloc(sizeof(ngx_http_agent_fake_t), conf->log);
    if (f == NULL) {
        return NULL;
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

    c = f->connection;

    ngx_http_run_posted_requests(c);

    return f;
}


static ngx_int_t
ngx_http_agent_fake_connect(ngx_http_agent_fake_t *f,
    ngx_http_agent_fake_conf_t *conf)
{
    ngx_connection_t  *c;

    /*
     * The call needs two slots, one of them for the upstream; nginx would
     * log an [alert] if there were none.  It frees idle ones by itself.
     */

    if (ngx_cycle->free_connection_n + ngx_cycle->reusable_connections_n < 2) {
        ngx_log_error(NGX_LOG_WARN, conf->log, 0,
                      "agent run: no free worker_connections for a call");
        return NGX_ERROR;
    }

    c = ngx_get_connection(0, conf->log);
    if (c == NULL) {
        return NGX_ERROR;
    }

    /* no socket: nginx passes over it when it counts and closes those */

    c->fd = (ngx_socket_t) -1;

    f->connection = c;

    f->log = *ngx_cycle->log;
    f->log.connection = c->number = ngx_atomic_fetch_add(ngx_connection_counter,
                                                         1);
    f->log.handler = ngx_http_agent_fake_log;
    f->log.data = &f->log_ctx;             /* ngx_http_create_request() fills
                                              and ngx_http_free_request()
                                              clears it */
    f->log_ctx.connection = c;

    f->hc.conf_ctx = conf->server_ctx;

    c->data = &f->hc;
    c->log = &f->log;
    c->read->log = &f->log;
    c->write->log = &f->log;
    c->log_error = NGX_ERROR_INFO;

    c->read->handler = ngx_http_agent_fake_read;
    c->write->handler = ngx_http_agent_fake_write;

    /* an upstream registers the client's events unless they are active */

    c->read->active = 1;
    c->write->active = 1;

    /* never busy: or a timer would wait for the client to take bytes */

    c->write->ready = 1;

    /* unbuffered proxying sets the option on the client's socket otherwise */

    c->tcp_nodelay = NGX_TCP_NODELAY_DISABLED;

    if (ngx_http_agent_fake_sockaddr.sin_family == 0) {
        ngx_http_agent_fake_sockaddr.sin_family = AF_INET;
        ngx_http_agent_fake_sockaddr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }

    c->type = SOCK_STREAM;
    c->sockaddr = (struct sockaddr *) &ngx_http_agent_fake_sockaddr;
    c->socklen = sizeof(struct sockaddr_in);
    c->addr_text = ngx_http_agent_fake_addr;
    c->local_sockaddr = c->sockaddr;
    c->local_socklen = c->socklen;

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_fake_request(ngx_http_agent_fake_t *f,
    ngx_http_agent_fake_conf_t *conf)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    c = f->connection;

    r = ngx_http_create_request(c);
    if (r == NULL) {
        return NGX_ERROR;
    }

    f->request = r;

    c->data = r;

    /* the access log must not show it, and nginx must not free it */

    r->logged = 1;
    r->count++;
    r->blocked = 1;

    /*
     * With a handler here and "blocked" set, ngx_http_terminate_request()
     * runs the cleanups and then leaves the request alone.
     */

    r->write_event_handler = ngx_http_agent_fake_wake;
    r->read_event_handler = ngx_http_block_reading;

    r->method = NGX_HTTP_POST;
    ngx_str_set(&r->method_name, "POST");
    ngx_str_set(&r->http_protocol, "HTTP/1.1");
    ngx_str_set(&r->schema, "http");
    r->http_version = NGX_HTTP_VERSION_11;

    r->uri = conf->pass;
    r->unparsed_uri = conf->pass;
    r->valid_location = 1;

    if (ngx_list_init(&r->headers_in.headers, r->pool, 1,
                      sizeof(ngx_table_elt_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_http_set_ctx(r, &f->ctx, ngx_http_agent_module);

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_fake_subrequest(ngx_http_agent_fake_t *f,
    ngx_http_agent_fake_conf_t *conf)
{
    ngx_str_t            uri, args;
    ngx_http_request_t  *r, *sr;

    r = f->request;

    uri = conf->pass;
    ngx_str_null(&args);

    ngx_http_split_args(r, &uri, &args);

    f->ps.handler = ngx_http_agent_fake_finalized;
    f->ps.data = f;

    if (ngx_http_subrequest(r, &uri, &args, &sr, &f->ps,
                            NGX_HTTP_SUBREQUEST_BACKGROUND)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    f->subrequest = sr;

    sr->method = NGX_HTTP_POST;
    sr->method_name = r->method_name;

    ngx_http_set_ctx(sr, &f->ctx, ngx_http_agent_module);

    if (ngx_http_agent_fake_headers(sr, conf->body.len) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_agent_fake_payload(sr, &conf->body);
}


static ngx_int_t
ngx_http_agent_fake_headers(ngx_http_request_t *sr, size_t length)
{
    ngx_str_t                  host, value;
    ngx_http_headers_in_t     *in;
    ngx_http_core_srv_conf_t  *cscf;

    static ngx_str_t  type = ngx_string("application/json");
    static ngx_str_t  accept = ngx_string("text/event-stream, "
                                          "application/json");
    static ngx_str_t  nobody = ngx_string("localhost");

    in = &sr->headers_in;

    ngx_memzero(in, sizeof(ngx_http_headers_in_t));

    if (ngx_list_init(&in->headers, sr->pool, 4, sizeof(ngx_table_elt_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    cscf = ngx_http_get_module_srv_conf(sr, ngx_http_core_module);

    host = cscf->server_name.len ? cscf->server_name : nobody;

    value.data = ngx_pnalloc(sr->pool, NGX_OFF_T_LEN);
    if (value.data == NULL) {
        return NGX_ERROR;
    }

    value.len = ngx_sprintf(value.data, "%uz", length) - value.data;

    in->host = ngx_http_agent_fake_set(sr, "Host", "host", &host);
    in->content_type = ngx_http_agent_fake_set(sr, "Content-Type",
                                               "content-type", &type);
    in->content_length = ngx_http_agent_fake_set(sr, "Content-Length",
                                                 "content-length", &value);

    if (in->host == NULL
        || in->content_type == NULL
        || in->content_length == NULL
        || ngx_http_agent_fake_set(sr, "Accept", "accept", &accept) == NULL)
    {
        return NGX_ERROR;
    }

    in->server = host;
    in->content_length_n = length;
    in->keep_alive_n = -1;

    return NGX_OK;
}


static ngx_table_elt_t *
ngx_http_agent_fake_set(ngx_http_request_t *sr, const char *name,
    const char *lowcase, ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&sr->headers_in.headers);
    if (h == NULL) {
        return NULL;
    }

    ngx_memzero(h, sizeof(ngx_table_elt_t));

    h->key.data = (u_char *) name;
    h->key.len = ngx_strlen(name);
    h->lowcase_key = (u_char *) lowcase;
    h->hash = ngx_hash_key((u_char *) lowcase, h->key.len);
    h->value = *value;

    return h;
}


static ngx_int_t
ngx_http_agent_fake_payload(ngx_http_request_t *sr, ngx_str_t *body)
{
    ngx_buf_t                *b;
    ngx_http_request_body_t  *rb;

    rb = ngx_pcalloc(sr->pool, sizeof(ngx_http_request_body_t));
    if (rb == NULL) {
        return NGX_ERROR;
    }

    rb->bufs = ngx_alloc_chain_link(sr->pool);
    if (rb->bufs == NULL) {
        return NGX_ERROR;
    }

    b = ngx_calloc_buf(sr->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    /* "start", because the next upstream is sent the body from there again */

    b->start = body->data;
    b->pos = body->data;
    b->last = body->data + body->len;
    b->end = b->last;
    b->memory = 1;
    b->last_buf = 1;

    rb->bufs->buf = b;
    rb->bufs->next = NULL;
    rb->buf = b;

    sr->request_body = rb;

    return NGX_OK;
}


/*
 * nginx calls it in the middle of finalizing, perhaps more than once.  An
 * error is handed back once, for error_page's sake: nginx then either goes
 * to another location or sends its page, which is captured, and comes back.
 * Those that would terminate the request are not: it must live until the
 * event.  An earlier attempt at this in another project freed the request
 * from here, and nginx went on with it.
 */

static ngx_int_t
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


static void
ngx_http_agent_fake_read(ngx_event_t *rev)
{
    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, rev->log, 0,
                   "agent run: read event of a call");
}


/* A timer that a module has set upon the client's side, such as a delay. */

static void
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

static void
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


/* What stands behind each line of the log: the step, not a client. */

static u_char *
ngx_http_agent_fake_log(ngx_log_t *log, u_char *buf, size_t len)
{
    u_char                 *p;
    u_char                  id[NGX_AGENT_ID_LEN];
    ngx_http_agent_fake_t  *f;

    f = (ngx_http_agent_fake_t *) log->data;

    if (log->action) {
        p = ngx_snprintf(buf, len, " while %s", log->action);
        len -= p - buf;
        buf = p;
    }

    ngx_agent_id_print(id, &f->ctx.step_id);

    return ngx_snprintf(buf, len, ", agent: \"%V\", step: %*s",
                        &f->ctx.agent, (size_t) NGX_AGENT_ID_LEN, id);
}
