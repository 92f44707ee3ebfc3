
/*
 * The header "traceparent" (W3C Trace Context): where a request belongs in
 * somebody's trace.  Bytes only.
 */

#ifndef _NGX_AGENT_TRACEPARENT_H_INCLUDED_
#define _NGX_AGENT_TRACEPARENT_H_INCLUDED_


#include "ngx_agent.h"


/* "00-", 32 digits of the trace, "-", 16 of the span, "-", 2 of flags */
#define NGX_AGENT_TRACEPARENT_LEN  55

#define NGX_AGENT_TRACEPARENT_SPAN      36
#define NGX_AGENT_TRACEPARENT_SPAN_LEN  16


/*
 * Reads a header's value and writes it in the form of version 00, as all that
 * is known of a later version is that it begins in the same way; flags that
 * nobody has defined yet are cleared.  buf has NGX_AGENT_TRACEPARENT_LEN
 * bytes.  NGX_OK, or NGX_DECLINED: it is none, and is to be ignored.
 */
ngx_int_t ngx_agent_traceparent_read(ngx_str_t *value, u_char *buf);

/*
 * The one for a call that is made on behalf of "parent": the same trace and
 * flags, and a new span.  NGX_OK, or NGX_DECLINED: the parent is none.
 */
ngx_int_t ngx_agent_traceparent_child(ngx_str_t *parent, u_char *buf);


#endif /* _NGX_AGENT_TRACEPARENT_H_INCLUDED_ */
