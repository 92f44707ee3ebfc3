
/*
 * What is answered about a step, by whoever reads, posts or cancels one; what
 * returns a code means the one to end the request with.
 */

#ifndef _NGX_HTTP_AGENT_STEPS_H_INCLUDED_
#define _NGX_HTTP_AGENT_STEPS_H_INCLUDED_


#include "ngx_http_agent_edge.h"


/* The step as it is, with this status. */
ngx_int_t ngx_http_agent_step_reply(ngx_http_agent_web_t *web,
    ngx_uint_t status, ngx_agent_step_t *step);

/*
 * To who has posted it, when it has ended: 200; or an error, so that no
 * client takes it for success: the official ones raise on 4xx and 5xx.
 */
ngx_int_t ngx_http_agent_step_end(ngx_http_agent_web_t *web,
    ngx_agent_step_t *step);

/*
 * 202, with its Location.  async: as the client prefers; else because this
 * worker cannot wait any longer: it is to ask again soon.
 */
ngx_int_t ngx_http_agent_step_accepted(ngx_http_agent_web_t *web,
    ngx_agent_step_t *step, ngx_uint_t async);

/* 404: the step is not there (any more). */
ngx_int_t ngx_http_agent_step_unknown(ngx_http_agent_web_t *web);

/* The store's call about it has not gone well: 404, 503 or 500. */
ngx_int_t ngx_http_agent_step_missed(ngx_http_agent_web_t *web, ngx_int_t rc);

/* 503 about the posted step: it goes on, but cannot be read now. */
ngx_int_t ngx_http_agent_step_unread(ngx_http_agent_web_t *web);

/* This worker's runs of these steps (ngx_agent_id_t) are to stop. */
void ngx_http_agent_step_stop(ngx_array_t *ids);

/* Notes the step for the variables and the access log. */
void ngx_http_agent_step_note(ngx_http_agent_web_t *web,
    ngx_agent_step_t *step);


#endif /* _NGX_HTTP_AGENT_STEPS_H_INCLUDED_ */
