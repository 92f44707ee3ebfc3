
/*
 * The capture filter: the answer to a run's subrequest goes to the run and
 * to nobody else.  The header is swallowed, the body's buffers are eaten as
 * they come; nothing is kept here, and no output ever reaches the connection,
 * which has no socket.
 */

#include "ngx_http_agent_run.h"
#include "ngx_http_agent_fake.h"


static ngx_int_t ngx_http_agent_capture_header(ngx_http_request_t *r);
static void ngx_http_agent_capture_unbuffer(ngx_http_request_t *r);
static ngx_int_t ngx_http_agent_capture_body(ngx_http_request_t *r,
    ngx_chain_t *in);


static ngx_http_output_header_filter_pt  ngx_http_agent_next_header;
static ngx_http_output_body_filter_pt    ngx_http_agent_next_body;


ngx_int_t
ngx_http_agent_capture_init(ngx_conf_t *cf)
{
    ngx_http_agent_next_header = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_agent_capture_header;

    ngx_http_agent_next_body = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_agent_capture_body;

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_capture_header(ngx_http_request_t *r)
{
    ngx_uint_t              nested;
    ngx_http_agent_fake_t  *f;

    f = ngx_http_agent_fake_of(r, &nested);

    if (f == NULL) {
        return ngx_http_agent_next_header(r);
    }

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "agent run: captured header, status:%ui nested:%ui",
                   r->headers_out.status, nested);

    r->header_sent = 1;

    if (!nested) {
        ngx_http_agent_capture_unbuffer(r);
        ngx_http_agent_fake_header(f, r);
    }

    return NGX_OK;
}


/*
 * As "X-Accel-Buffering: no" does: with buffering, nginx writes an answer that
 * comes fast into a temporary file, and a secret may be in it.  A cache needs
 * the buffers; who caches an LLM's answers wants them on the disk.
 */

static void
ngx_http_agent_capture_unbuffer(ngx_http_request_t *r)
{
    ngx_http_upstream_t  *u;

    u = r->upstream;

    if (u && u->buffering && !u->cacheable && !u->store) {
        u->buffering = 0;
    }
}


static ngx_int_t
ngx_http_agent_capture_body(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_buf_t              *b;
    ngx_int_t               rc;
    ngx_uint_t              nested;
    ngx_chain_t            *cl;
    ngx_http_agent_fake_t  *f;

    f = ngx_http_agent_fake_of(r, &nested);

    if (f == NULL) {
        return ngx_http_agent_next_body(r, in);
    }

    rc = NGX_OK;

    for (cl = in; cl; cl = cl->next) {
        b = cl->buf;

        if (rc == NGX_OK && !nested && ngx_buf_in_memory(b)
            && b->last > b->pos)
        {
            rc = ngx_http_agent_fake_body(f, b->pos, b->last - b->pos);
        }

        /* a subrequest has no last_buf; a broken answer has neither */

        if (!nested && (b->last_in_chain || b->last_buf)) {
            ngx_http_agent_fake_last(f);
        }

        /* eaten, or nginx would offer it again */

        b->pos = b->last;
        b->file_pos = b->file_last;
    }

    return rc;
}
