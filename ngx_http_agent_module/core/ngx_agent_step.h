
/*
 * Shared by the files of core/ that make up a live step's life.
 */

#ifndef _NGX_AGENT_STEP_H_INCLUDED_
#define _NGX_AGENT_STEP_H_INCLUDED_


#include "ngx_agent_core.h"


/* ngx_agent_live.c: the table of live steps */

/* A live step in a pool of its own, with copies of the strings; or NULL. */
ngx_agent_live_t *ngx_agent_live_create(ngx_agent_post_t *post);

/* Into the table, when the store has begun the step. */
void ngx_agent_live_add(ngx_agent_live_t *live);

/* Out of the table and out of memory. */
void ngx_agent_live_free(ngx_agent_live_t *live);

/* Tells every watcher, then frees. */
void ngx_agent_live_publish(ngx_agent_live_t *live);

ngx_int_t ngx_agent_live_init(ngx_cycle_t *cycle);
void ngx_agent_live_exit(ngx_cycle_t *cycle);


#endif /* _NGX_AGENT_STEP_H_INCLUDED_ */
