
/*
 * The worker's own request, inside: shared by ngx_http_agent_fake.c (its
 * life) and ngx_http_agent_fake_request.c (its making), and by nobody else.
 */

#ifndef _NGX_HTTP_AGENT_FAKE_REQUEST_H_INCLUDED_
#define _NGX_HTTP_AGENT_FAKE_REQUEST_H_INCLUDED_


#include "ngx_http_agent_fake.h"


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

    unsigned                         complete:1;
    unsigned                         done:1;
    unsigned                         closed:1;
};


/*
 * The making, in this order; NGX_OK or NGX_ERROR.  The last one takes
 * conf->file, and sets it to INVALID_FILE.
 */
ngx_int_t ngx_http_agent_fake_connect(ngx_http_agent_fake_t *f,
    ngx_http_agent_fake_conf_t *conf);
ngx_int_t ngx_http_agent_fake_request(ngx_http_agent_fake_t *f,
    ngx_http_agent_fake_conf_t *conf);
ngx_int_t ngx_http_agent_fake_subrequest(ngx_http_agent_fake_t *f,
    ngx_http_agent_fake_conf_t *conf);

/* the life: what nginx calls */
ngx_int_t ngx_http_agent_fake_finalized(ngx_http_request_t *sr,
    void *data, ngx_int_t rc);
void ngx_http_agent_fake_read(ngx_event_t *rev);
void ngx_http_agent_fake_write(ngx_event_t *wev);
void ngx_http_agent_fake_wake(ngx_http_request_t *r);


#endif /* _NGX_HTTP_AGENT_FAKE_REQUEST_H_INCLUDED_ */
