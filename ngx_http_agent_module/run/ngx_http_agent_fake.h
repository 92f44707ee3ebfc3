
/*
 * The worker's own request: one LLM call without any client.  It makes a
 * connection that has no socket, a request upon it in the context of the
 * agent's server, and a background subrequest to the agent's location, whose
 * answer the capture filter hands over.  What the bytes mean is not its
 * business.
 */

#ifndef _NGX_HTTP_AGENT_FAKE_H_INCLUDED_
#define _NGX_HTTP_AGENT_FAKE_H_INCLUDED_


#include "ngx_http_agent_module.h"


typedef struct ngx_http_agent_fake_s  ngx_http_agent_fake_t;


/*
 * Whom the answer goes to.
 *
 * header: called once or, after an internal redirect inside the subrequest,
 *     again: what came before does not count then.
 * body: NGX_OK: go on; NGX_ERROR: enough, close the upstream.
 *     Both run in the middle of nginx's filters: note, and touch nothing.
 * done: from an event, once, when the subrequest has ended by itself; the
 *     owner then closes the fake.
 */

typedef struct {
    void     (*header)(void *data, ngx_http_request_t *sr);
    ngx_int_t (*body)(void *data, u_char *p, size_t n);
    void     (*done)(void *data);
} ngx_http_agent_fake_handlers_t;


/*
 * What is asked, of whom, and by whom.  The uri, the body's parts and the
 * strings outlive the call, all but traceparent.  "file" is sent between
 * body and tail; the call owns it from the beginning, also if it fails.
 */

typedef struct {
    void                                  *server_ctx;
    ngx_uint_t                             method;    /* GET, or else POST */
    ngx_str_t                              pass;      /* uri[?args] */
    ngx_str_t                              type;      /* of the body; len 0: */
    ngx_str_t                              accept;    /* the openai dialect's*/
    ngx_str_t                              key;       /* Idempotency-Key */
    ngx_str_t                              step;      /* X-Agent-Step-ID; len
                                                         0: none is sent */
    ngx_str_t                              body;      /* may be empty */
    ngx_fd_t                               file;      /* or INVALID_FILE */
    off_t                                  size;      /* of the file */
    ngx_str_t                              tail;      /* may be empty */
    ngx_agent_id_t                        *task_id;
    ngx_agent_id_t                        *step_id;
    ngx_str_t                              agent;
    ngx_str_t                              tenant;
    ngx_uint_t                             attempt;
    ngx_str_t                              traceparent;   /* len 0: none */
    ngx_log_t                             *log;
    const ngx_http_agent_fake_handlers_t  *handlers;
    void                                  *data;
} ngx_http_agent_fake_conf_t;


/*
 * Makes the request and starts the call; no handler runs from inside of it,
 * except header and body.  NULL: no memory or no free connection (logged).
 */
ngx_http_agent_fake_t *ngx_http_agent_fake_call(
    ngx_http_agent_fake_conf_t *conf);

/*
 * Closes the upstream if it is still open and frees all of it.  From an event
 * only, never from inside a filter.  No handler runs any more.  When a thread
 * of nginx's is at work for the request, the memory goes a little later.
 */
void ngx_http_agent_fake_close(ngx_http_agent_fake_t *f);

/*
 * Who has been asked, in the end: its address, empty if nobody was, which
 * lives as long as the fake.  Returns 1 when there was a connection, and
 * since when, by ngx_current_msec.
 */
ngx_uint_t ngx_http_agent_fake_upstream(ngx_http_agent_fake_t *f,
    ngx_str_t *name, ngx_msec_t *connected);

/*
 * 1: all of the answer has come; 0: it broke off, or still comes.  For who
 * cannot tell by the answer itself.
 */
ngx_uint_t ngx_http_agent_fake_complete(ngx_http_agent_fake_t *f);

/* What was asked for: uri[?args]. */
ngx_str_t *ngx_http_agent_fake_uri(ngx_http_agent_fake_t *f);

/* At worker exit: closes the sockets, and nothing else. */
void ngx_http_agent_fake_abandon(ngx_http_agent_fake_t *f);

/*
 * For the capture filter: the fake whose subrequest this is; *nested is set
 * for a subrequest of it.  NULL: a request of somebody else's.
 */
ngx_http_agent_fake_t *ngx_http_agent_fake_of(ngx_http_request_t *r,
    ngx_uint_t *nested);
void ngx_http_agent_fake_header(ngx_http_agent_fake_t *f,
    ngx_http_request_t *r);
ngx_int_t ngx_http_agent_fake_body(ngx_http_agent_fake_t *f, u_char *p,
    size_t n);
void ngx_http_agent_fake_last(ngx_http_agent_fake_t *f);


#endif /* _NGX_HTTP_AGENT_FAKE_H_INCLUDED_ */
