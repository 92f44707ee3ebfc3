
/*
 * Who a request comes from: the API key that agent_auth has found good, the
 * tenant it is for, and what the key may be used for.
 */

#ifndef _NGX_HTTP_AGENT_AUTH_H_INCLUDED_
#define _NGX_HTTP_AGENT_AUTH_H_INCLUDED_


#include "ngx_agent_auth.h"
#include "ngx_http_agent_edge.h"


/*
 * The key of a request, for the variables: the one that agent_auth has found,
 * be it allowed to do this or not; before agent_auth has run, what the cache
 * knows of it.  NGX_OK; NGX_DECLINED: none.
 */
ngx_int_t ngx_http_agent_auth_known(ngx_http_request_t *r,
    ngx_agent_key_t *key);

/*
 * Fills in web->key and web->tenant, once for each request.  NGX_OK;
 * NGX_DECLINED: refused, *rc is the code to return, the client has been
 * answered.
 */
ngx_int_t ngx_http_agent_auth_enter(ngx_http_agent_web_t *web,
    ngx_int_t *rc);

/* 1: the key of this request is limited to some agents. */
#define ngx_http_agent_auth_limited(web)                                      \
    ((web)->key && (web)->key->agents.data)

/*
 * For a key that is limited: is the task in the path of an agent it may use?
 * If so "op" goes on.  Returns what a content handler returns.
 */
ngx_int_t ngx_http_agent_auth_task(ngx_http_agent_web_t *web,
    ngx_http_agent_done_pt op);

/* 403: the key may not be used for this agent. */
ngx_int_t ngx_http_agent_auth_agent(ngx_http_agent_web_t *web,
    ngx_str_t *agent);

/*
 * For the error filter: nginx makes a page for the main request, since
 * agent_auth has let it not in.  The JSON that it is to be instead, after the
 * status and headers were set; NULL: it is not that.
 */
ngx_str_t *ngx_http_agent_auth_page(ngx_http_request_t *r);


#endif /* _NGX_HTTP_AGENT_AUTH_H_INCLUDED_ */
