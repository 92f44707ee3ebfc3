
/*
 * Server-sent events (WHATWG HTML, section "Server-sent events"): reading.
 * Bytes only; fuzzed by t/fuzz.
 */

#ifndef _NGX_AGENT_SSE_H_INCLUDED_
#define _NGX_AGENT_SSE_H_INCLUDED_


#include "ngx_agent.h"


/*
 * One event: its "event:" name (empty: "message") and its "data:" lines,
 * joined by newlines.  Both die when the handler returns.  NGX_OK goes on;
 * anything else stops the reading with that code.
 */
typedef ngx_int_t (*ngx_agent_sse_pt)(void *data, ngx_str_t *event,
    ngx_str_t *text);

typedef struct {
    ngx_pool_t                *pool;
    ngx_agent_sse_pt           handler;
    void                      *data;
    size_t                     max;       /* bytes one event may have */

    u_char                    *buf;       /* data of the event so far */
    size_t                     len;
    size_t                     size;
    u_char                     field[8];  /* name of the field so far */
    u_char                     event[32];
    ngx_uint_t                 field_len;
    ngx_uint_t                 event_len;
    ngx_uint_t                 state;
    ngx_int_t                  rc;        /* what stopped it */
    unsigned                   has_data:1;
    unsigned                   cr:1;
} ngx_agent_sse_t;


/* The buffer starts empty and grows by need up to max; old ones are freed. */
void ngx_agent_sse_init(ngx_agent_sse_t *s, ngx_pool_t *pool, size_t max,
    ngx_agent_sse_pt handler, void *data);

/*
 * Feeds bytes, any split; LF, CR and CRLF end lines; comments and unknown
 * fields are passed over; a leading BOM is skipped.  NGX_OK; NGX_DECLINED: an
 * event over max; NGX_ERROR: no memory; else what the handler returned.
 * After anything but NGX_OK it says the same again.
 */
ngx_int_t ngx_agent_sse_feed(ngx_agent_sse_t *s, u_char *p, size_t n);

/*
 * End of the stream.  The standard drops an unfinished event; LLM servers are
 * seen to leave out the last blank line, so an event with data is reported,
 * its last line as far as it came.
 */
ngx_int_t ngx_agent_sse_finish(ngx_agent_sse_t *s);


#endif /* _NGX_AGENT_SSE_H_INCLUDED_ */
