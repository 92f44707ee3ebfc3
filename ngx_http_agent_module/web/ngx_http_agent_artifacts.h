
/*
 * What upload and download share: is there a place for artifacts at all.
 */

#ifndef _NGX_HTTP_AGENT_ARTIFACTS_H_INCLUDED_
#define _NGX_HTTP_AGENT_ARTIFACTS_H_INCLUDED_


#include "ngx_http_agent_edge.h"


/* 1 when agent_artifacts is set */
ngx_uint_t ngx_http_agent_artifacts_on(ngx_http_request_t *r);

/* The reply for when it is not. */
ngx_int_t ngx_http_agent_artifacts_off(ngx_http_request_t *r);


#endif /* _NGX_HTTP_AGENT_ARTIFACTS_H_INCLUDED_ */
