
/*
 * What is kept of a run's calls for those who review a step: when, to whom,
 * what was sent, what came, what went wrong.  One JSON object for each call,
 * put to live->step.trace when it is known what became of it.  Of an attempt
 * that makes many calls it is the first ones and the last.
 */

#ifndef _NGX_HTTP_AGENT_TRACE_H_INCLUDED_
#define _NGX_HTTP_AGENT_TRACE_H_INCLUDED_


#include "ngx_http_agent_run.h"
#include "ngx_http_agent_fake.h"
#include "ngx_agent_json.h"
#include "ngx_agent_traceparent.h"


/*
 * The call under way, in its run.  While the agent is silent it costs no
 * memory but this; the answer's first bytes are in run->pool.
 */

typedef struct {
    uint64_t                   started;      /* ms since the epoch */
    ngx_msec_t                 start;        /* by ngx_current_msec, as are */
    ngx_msec_t                 ended;        /* of the last call by this run */
    ngx_msec_t                 pause;        /* from there to this call */
    ngx_msec_t                 header;       /* the answer's header */
    ngx_msec_t                 token;        /* ... and the first of its body */

    u_char                    *answer;
    size_t                     len;
    size_t                     size;
    uint64_t                   total;        /* bytes that came in all */

    ngx_agent_json_t          *json;         /* once the call is over; it and
                                                all in it in a pool of its
                                                own */
    ngx_uint_t                 calls;        /* of this attempt */
    u_char                     span[NGX_AGENT_TRACEPARENT_SPAN_LEN];

    unsigned                   open:1;
    unsigned                   again:1;      /* "ended" is set */
    unsigned                   get:1;
    unsigned                   has_span:1;
    unsigned                   has_header:1;
    unsigned                   has_token:1;
    unsigned                   withheld:1;   /* the answer is yet to be made */
    unsigned                   cut:1;
} ngx_http_agent_trace_t;


/* For this worker: has the store keep what traces have in common. */
ngx_int_t ngx_http_agent_trace_init(ngx_cycle_t *cycle);

/* What stands for a text in traces, as JSON writes it; NULL: it itself. */
ngx_str_t *ngx_http_agent_trace_part(ngx_str_t *text);


/* A call is about to go out. */
void ngx_http_agent_trace_start(ngx_http_agent_run_t *run,
    ngx_http_agent_fake_conf_t *conf);

/* From nginx's filters: the header has come, and bytes of the body. */
void ngx_http_agent_trace_header(ngx_http_agent_run_t *run);
void ngx_http_agent_trace_body(ngx_http_agent_run_t *run, u_char *p,
    size_t n);

/* The call is over; run->fake, body and pool are still there. */
void ngx_http_agent_trace_called(ngx_http_agent_run_t *run);

/*
 * It is known what became of it: nothing more is heard of this call.  stopped:
 * the run is ended from outside.
 */
void ngx_http_agent_trace_done(ngx_http_agent_run_t *run, ngx_uint_t stopped);

/*
 * The call that is over is not worth an entry: one of many, such as a look
 * whether a container is ready, and it went well.
 */
void ngx_http_agent_trace_drop(ngx_http_agent_run_t *run);


#endif /* _NGX_HTTP_AGENT_TRACE_H_INCLUDED_ */
