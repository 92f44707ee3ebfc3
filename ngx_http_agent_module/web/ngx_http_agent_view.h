
/*
 * Views: tasks, steps and artifacts as the Agent Protocol's JSON.  Writes
 * text only: no request is touched, nothing is sent.
 */

#ifndef _NGX_HTTP_AGENT_VIEW_H_INCLUDED_
#define _NGX_HTTP_AGENT_VIEW_H_INCLUDED_


#include "ngx_agent.h"
#include "ngx_agent_json.h"


void ngx_http_agent_view_task(ngx_agent_json_t *j, ngx_agent_task_t *task);

/* strict: only the three states that the spec's enum has (agent_strict) */
void ngx_http_agent_view_step(ngx_agent_json_t *j, ngx_agent_step_t *step,
    ngx_uint_t strict);

void ngx_http_agent_view_artifact(ngx_agent_json_t *j,
    ngx_agent_artifact_t *artifact);

void ngx_http_agent_view_pagination(ngx_agent_json_t *j,
    ngx_agent_page_t *page, ngx_uint_t total);

/* how long the text will be, about: to write it without growing */
size_t ngx_http_agent_view_task_size(ngx_agent_task_t *task);
size_t ngx_http_agent_view_step_size(ngx_agent_step_t *step);
size_t ngx_http_agent_view_artifact_size(ngx_agent_artifact_t *artifact);


#endif /* _NGX_HTTP_AGENT_VIEW_H_INCLUDED_ */
