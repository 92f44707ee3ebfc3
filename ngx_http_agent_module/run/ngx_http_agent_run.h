
/*
 * One step's execution: entry of the room.  The worker's own request, the
 * subrequest to the agent's location, the capture filter, the dialects and
 * the run's state machine live beside this file.
 */

#ifndef _NGX_HTTP_AGENT_RUN_H_INCLUDED_
#define _NGX_HTTP_AGENT_RUN_H_INCLUDED_


#include <ngx_http.h>
#include "ngx_agent_core.h"


typedef struct ngx_http_agent_run_s  ngx_http_agent_run_t;


/* What core/ runs steps with. */
extern const ngx_agent_runner_t  ngx_http_agent_runner;

/* In postconfiguration: puts the capture filter into the chain. */
ngx_int_t ngx_http_agent_capture_init(ngx_conf_t *cf);

/* At worker start, when the store is there; NGX_ERROR: no memory. */
ngx_int_t ngx_http_agent_run_init(ngx_cycle_t *cycle);

/* At worker exit: closes what runs still have open, without saving. */
void ngx_http_agent_run_exit(ngx_cycle_t *cycle);


#endif /* _NGX_HTTP_AGENT_RUN_H_INCLUDED_ */
