
/*
 * What reading a step and posting one share: its reply.
 */

#ifndef _NGX_HTTP_AGENT_STEPS_H_INCLUDED_
#define _NGX_HTTP_AGENT_STEPS_H_INCLUDED_


#include "ngx_http_agent_edge.h"


/* 200 with the step; returns the code to end the request with. */
ngx_int_t ngx_http_agent_step_reply(ngx_http_agent_web_t *web,
    ngx_agent_step_t *step);

/* Notes the step for the variables and the access log. */
void ngx_http_agent_step_note(ngx_http_agent_web_t *web,
    ngx_agent_step_t *step);


#endif /* _NGX_HTTP_AGENT_STEPS_H_INCLUDED_ */
