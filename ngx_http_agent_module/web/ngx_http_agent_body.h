
/*
 * JSON bodies of requests: media type, reading, strict checks, the members
 * that tasks and steps share.
 */

#ifndef _NGX_HTTP_AGENT_BODY_H_INCLUDED_
#define _NGX_HTTP_AGENT_BODY_H_INCLUDED_


#include "ngx_http_agent_edge.h"


/*
 * A JSON body is held in memory whole, so what client_max_body_size allows
 * for uploads in the same location is too much for it.
 */
#define NGX_HTTP_AGENT_BODY_MAX  (16 * 1024 * 1024)


typedef struct {
    ngx_str_t                  text;              /* all of it */
    ngx_str_t                  input;             /* data NULL: null */
    ngx_str_t                  additional_input;  /* JSON; len 0: none */
    ngx_str_t                  agent_id;          /* of additional_input */
} ngx_http_agent_body_t;


/*
 * Reads the request's body, then runs "next"; what that returns ends the
 * request.  To be returned by an operation.
 */
ngx_int_t ngx_http_agent_body_read(ngx_http_agent_web_t *web,
    ngx_http_agent_done_pt next);

/* 408: the client has stopped in the middle of its body. */
ngx_int_t ngx_http_agent_body_late(ngx_http_request_t *r);

/*
 * Checks the body that was read.  All strings are in pool or in the request's
 * body.  NGX_OK; NGX_DECLINED: refused, *rc is the code to return, the client
 * has been answered.
 */
ngx_int_t ngx_http_agent_body_parse(ngx_http_agent_web_t *web,
    ngx_pool_t *pool, ngx_http_agent_body_t *body, ngx_int_t *rc);

/* Gives a large body's memory back early: the request goes on waiting. */
void ngx_http_agent_body_free(ngx_http_request_t *r);


#endif /* _NGX_HTTP_AGENT_BODY_H_INCLUDED_ */
