
/*
 * What a client asks for by headers: Prefer, Idempotency-Key, traceparent.
 */

#ifndef _NGX_HTTP_AGENT_HEADERS_H_INCLUDED_
#define _NGX_HTTP_AGENT_HEADERS_H_INCLUDED_


#include "ngx_agent_prefer.h"
#include "ngx_http_agent_edge.h"


/* All Prefer headers of the request. */
void ngx_http_agent_prefer(ngx_http_request_t *r,
    ngx_agent_prefer_t *prefer);

/*
 * The Idempotency-Key, in pool; data NULL: there is none.  NGX_OK;
 * NGX_DECLINED: refused, *rc is the code to return, the client has been
 * answered.
 */
ngx_int_t ngx_http_agent_key(ngx_http_request_t *r, ngx_pool_t *pool,
    ngx_str_t *key, ngx_int_t *rc);

/* 422: the key was used for another request. */
ngx_int_t ngx_http_agent_key_mismatch(ngx_http_request_t *r);

/* Says that the answer is the one of then, and counts it. */
ngx_int_t ngx_http_agent_key_replayed(ngx_http_request_t *r);


/*
 * The traceparent, in pool; len 0: there is none, or no valid one, which
 * means the same.  NGX_OK, or NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_agent_traceparent(ngx_http_request_t *r, ngx_pool_t *pool,
    ngx_str_t *parent);


#endif /* _NGX_HTTP_AGENT_HEADERS_H_INCLUDED_ */
