
/*
 * The HTTP edge: entry of the room.  Routes, bodies, the Agent Protocol as
 * JSON, replies and waiting clients live beside this file.
 */

#ifndef _NGX_HTTP_AGENT_WEB_H_INCLUDED_
#define _NGX_HTTP_AGENT_WEB_H_INCLUDED_


#include "ngx_http_agent_module.h"
#include "ngx_agent_core.h"


/* The content handler of a location with agent_pass. */
ngx_int_t ngx_http_agent_handler(ngx_http_request_t *r);

/* The content handler of a location with agent_status. */
ngx_int_t ngx_http_agent_status_handler(ngx_http_request_t *r);

/* The content handler of a location with agent_usage. */
ngx_int_t ngx_http_agent_usage_handler(ngx_http_request_t *r);

/* The content handler of a location with agent_auth. */
ngx_int_t ngx_http_agent_auth_handler(ngx_http_request_t *r);

/* In preconfiguration: $agent_id and its kin. */
ngx_int_t ngx_http_agent_add_variables(ngx_conf_t *cf);

/*
 * In postconfiguration: the filter that turns nginx's own error pages (413,
 * 429, 401, 502, ...) into JSON where agent_pass stands.
 */
ngx_int_t ngx_http_agent_error_init(ngx_conf_t *cf);


#endif /* _NGX_HTTP_AGENT_WEB_H_INCLUDED_ */
