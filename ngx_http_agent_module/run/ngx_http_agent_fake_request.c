
/*
 * The worker's own request, made.  nginx has no notion of a request without a
 * client, so each field that it would ask of a client's connection is set
 * here, with the reason beside it.
 */

#include "ngx_http_agent_fake_request.h"
#include "ngx_agent_id.h"


/* block of a call's pool; what is larger gets exactly its size */
#define NGX_HTTP_AGENT_FAKE_POOL    1024


static ngx_http_request_t *ngx_http_agent_fake_create(ngx_connection_t *c);
static ngx_int_t ngx_http_agent_fake_headers(ngx_http_request_t *sr,
    ngx_http_agent_fake_conf_t *conf);
static ngx_int_t ngx_http_agent_fake_length(ngx_http_request_t *sr,
    ngx_http_agent_fake_conf_t *conf);
static ngx_int_t ngx_http_agent_fake_ids(ngx_http_request_t *sr,
    ngx_http_agent_fake_conf_t *conf);
static ngx_int_t ngx_http_agent_fake_traceparent(ngx_http_request_t *sr,
    ngx_http_agent_fake_conf_t *conf);
static ngx_table_elt_t *ngx_http_agent_fake_set(ngx_http_request_t *sr,
    const char *name, const char *lowcase, ngx_str_t *value);
static ngx_int_t ngx_http_agent_fake_payload(ngx_http_request_t *sr,
    ngx_http_agent_fake_conf_t *conf);
static ngx_chain_t **ngx_http_agent_fake_link(ngx_pool_t *pool,
    ngx_chain_t **last, ngx_str_t *text);
static ngx_chain_t **ngx_http_agent_fake_file(ngx_pool_t *pool,
    ngx_chain_t **last, ngx_http_agent_fake_conf_t *conf);
static u_char *ngx_http_agent_fake_log(ngx_log_t *log, u_char *buf,
    size_t len);


/*
 * Variables and modules ask for the client's address ($binary_remote_addr,
 * geo, limit_req) and take a NULL badly, so the worker is its own client.
 */

static ngx_str_t  ngx_http_agent_fake_addr = ngx_string("127.0.0.1");

static struct sockaddr_in  ngx_http_agent_fake_sockaddr;


ngx_int_t
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


ngx_int_t
ngx_http_agent_fake_request(ngx_http_agent_fake_t *f,
    ngx_http_agent_fake_conf_t *conf)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    c = f->connection;

    r = ngx_http_agent_fake_create(c);
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


/*
 * ngx_http_create_request() takes the pool's size from the server, where it
 * is meant for clients: 4 KB a block, of which the last is mostly empty.
 * Thousands of calls may wait at once, so it is shown a copy of the server's
 * settings, for as long as it runs.
 */

static ngx_http_request_t *
ngx_http_agent_fake_create(ngx_connection_t *c)
{
    void                     **srv_conf;
    ngx_uint_t                 core;
    ngx_http_request_t        *r;
    ngx_http_conf_ctx_t       *ctx, small;
    ngx_http_connection_t     *hc;
    ngx_http_core_srv_conf_t   cscf;

    hc = c->data;
    ctx = hc->conf_ctx;
    core = ngx_http_core_module.ctx_index;

    srv_conf = ngx_alloc(sizeof(void *) * ngx_http_max_module, c->log);
    if (srv_conf == NULL) {
        return NULL;
    }

    ngx_memcpy(srv_conf, ctx->srv_conf,
               sizeof(void *) * ngx_http_max_module);

    cscf = *(ngx_http_core_srv_conf_t *) ctx->srv_conf[core];
    cscf.request_pool_size = ngx_min(cscf.request_pool_size,
                                     NGX_HTTP_AGENT_FAKE_POOL);
    srv_conf[core] = &cscf;

    small = *ctx;
    small.srv_conf = srv_conf;

    hc->conf_ctx = &small;

    r = ngx_http_create_request(c);

    hc->conf_ctx = ctx;

    ngx_free(srv_conf);

    if (r) {
        r->srv_conf = ctx->srv_conf;
    }

    return r;
}


ngx_int_t
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

    if (conf->method == NGX_HTTP_GET) {
        sr->method = NGX_HTTP_GET;
        ngx_str_set(&sr->method_name, "GET");
    }

    ngx_http_set_ctx(sr, &f->ctx, ngx_http_agent_module);

    if (ngx_http_agent_fake_headers(sr, conf) != NGX_OK
        || ngx_http_agent_fake_traceparent(sr, conf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_agent_fake_payload(sr, conf);
}


static ngx_int_t
ngx_http_agent_fake_traceparent(ngx_http_request_t *sr,
    ngx_http_agent_fake_conf_t *conf)
{
    ngx_str_t  value;

    if (conf->traceparent.len == 0) {
        return NGX_OK;
    }

    value.len = conf->traceparent.len;
    value.data = ngx_pstrdup(sr->pool, &conf->traceparent);

    if (value.data == NULL
        || ngx_http_agent_fake_set(sr, "traceparent", "traceparent", &value)
           == NULL)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_fake_headers(ngx_http_request_t *sr,
    ngx_http_agent_fake_conf_t *conf)
{
    ngx_str_t                  host, *accept;
    ngx_http_headers_in_t     *in;
    ngx_http_core_srv_conf_t  *cscf;

    static ngx_str_t  stream = ngx_string("text/event-stream, "
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
    accept = conf->accept.len ? &conf->accept : &stream;

    in->host = ngx_http_agent_fake_set(sr, "Host", "host", &host);

    if (in->host == NULL
        || ngx_http_agent_fake_set(sr, "Accept", "accept", accept) == NULL)
    {
        return NGX_ERROR;
    }

    in->server = host;
    in->content_length_n = -1;
    in->keep_alive_n = -1;

    if (conf->method != NGX_HTTP_GET
        && ngx_http_agent_fake_length(sr, conf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_agent_fake_ids(sr, conf);
}


static ngx_int_t
ngx_http_agent_fake_length(ngx_http_request_t *sr,
    ngx_http_agent_fake_conf_t *conf)
{
    off_t                   length;
    ngx_str_t               value, *type;
    ngx_http_headers_in_t  *in;

    static ngx_str_t  json = ngx_string("application/json");

    in = &sr->headers_in;

    length = (off_t) (conf->body.len + conf->tail.len);

    if (conf->file != NGX_INVALID_FILE) {
        length += conf->size;
    }

    value.data = ngx_pnalloc(sr->pool, NGX_OFF_T_LEN);
    if (value.data == NULL) {
        return NGX_ERROR;
    }

    value.len = ngx_sprintf(value.data, "%O", length) - value.data;

    type = conf->type.len ? &conf->type : &json;

    in->content_type = ngx_http_agent_fake_set(sr, "Content-Type",
                                               "content-type", type);
    in->content_length = ngx_http_agent_fake_set(sr, "Content-Length",
                                                 "content-length", &value);

    if (in->content_type == NULL || in->content_length == NULL) {
        return NGX_ERROR;
    }

    in->content_length_n = length;

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_fake_ids(ngx_http_request_t *sr,
    ngx_http_agent_fake_conf_t *conf)
{
    if (conf->key.len
        && ngx_http_agent_fake_set(sr, "Idempotency-Key", "idempotency-key",
                                   &conf->key)
           == NULL)
    {
        return NGX_ERROR;
    }

    if (conf->step.len
        && ngx_http_agent_fake_set(sr, "X-Agent-Step-ID", "x-agent-step-id",
                                   &conf->step)
           == NULL)
    {
        return NGX_ERROR;
    }

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
ngx_http_agent_fake_payload(ngx_http_request_t *sr,
    ngx_http_agent_fake_conf_t *conf)
{
    ngx_chain_t              *cl, **last;
    ngx_http_request_body_t  *rb;

    rb = ngx_pcalloc(sr->pool, sizeof(ngx_http_request_body_t));
    if (rb == NULL) {
        return NGX_ERROR;
    }

    sr->request_body = rb;

    last = ngx_http_agent_fake_link(sr->pool, &rb->bufs, &conf->body);

    if (last && conf->file != NGX_INVALID_FILE) {
        last = ngx_http_agent_fake_file(sr->pool, last, conf);
    }

    if (last) {
        last = ngx_http_agent_fake_link(sr->pool, last, &conf->tail);
    }

    if (last == NULL) {
        return NGX_ERROR;
    }

    /* a GET has none at all */

    rb->buf = rb->bufs ? rb->bufs->buf : NULL;

    for (cl = rb->bufs; cl; cl = cl->next) {
        cl->buf->last_buf = (cl->next == NULL);
    }

    return NGX_OK;
}


/* Returns where the next link goes, or NULL: no memory. */

static ngx_chain_t **
ngx_http_agent_fake_link(ngx_pool_t *pool, ngx_chain_t **last,
    ngx_str_t *text)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    if (text->len == 0) {
        *last = NULL;
        return last;
    }

    cl = ngx_alloc_chain_link(pool);
    if (cl == NULL) {
        return NULL;
    }

    b = ngx_calloc_buf(pool);
    if (b == NULL) {
        return NULL;
    }

    /* "start", because the next upstream is sent the body from there again */

    b->start = text->data;
    b->pos = text->data;
    b->last = text->data + text->len;
    b->end = b->last;
    b->memory = 1;

    cl->buf = b;
    cl->next = NULL;
    *last = cl;

    return &cl->next;
}


/*
 * The file's bytes are read as the upstream takes them, and it is closed with
 * the request: a thread of nginx's may still be reading when the call is over.
 */

static ngx_chain_t **
ngx_http_agent_fake_file(ngx_pool_t *pool, ngx_chain_t **last,
    ngx_http_agent_fake_conf_t *conf)
{
    ngx_buf_t                *b;
    ngx_chain_t              *cl;
    ngx_pool_cleanup_t       *cln;
    ngx_pool_cleanup_file_t  *clnf;

    cln = ngx_pool_cleanup_add(pool, sizeof(ngx_pool_cleanup_file_t));
    if (cln == NULL) {
        return NULL;
    }

    clnf = cln->data;
    clnf->fd = conf->file;
    clnf->name = (u_char *) "artifact";
    clnf->log = ngx_cycle->log;

    cln->handler = ngx_pool_cleanup_file;
    conf->file = NGX_INVALID_FILE;

    /* nginx does not like buffers with nothing in them */

    if (conf->size == 0) {
        return last;
    }

    cl = ngx_alloc_chain_link(pool);
    if (cl == NULL) {
        return NULL;
    }

    b = ngx_calloc_buf(pool);
    if (b == NULL) {
        return NULL;
    }

    b->file = ngx_pcalloc(pool, sizeof(ngx_file_t));
    if (b->file == NULL) {
        return NULL;
    }

    b->file->fd = clnf->fd;
    ngx_str_set(&b->file->name, "artifact");
    b->file->log = ngx_cycle->log;
    b->in_file = 1;
    b->file_last = conf->size;

    cl->buf = b;
    cl->next = NULL;
    *last = cl;

    return &cl->next;
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
