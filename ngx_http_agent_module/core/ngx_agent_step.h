
/*
 * Shared by the files of core/: a live step's life, its watchers, the queue.
 */

#ifndef _NGX_AGENT_STEP_H_INCLUDED_
#define _NGX_AGENT_STEP_H_INCLUDED_


#include "ngx_agent_core.h"
#include "ngx_agent_stat.h"


/* ngx_agent_live.c: the table of live steps */

/*
 * A live step in a pool of its own, ASKED, with copies of what it is given;
 * or NULL.
 */
ngx_agent_live_t *ngx_agent_live_create(ngx_str_t *tenant,
    ngx_agent_task_t *task, ngx_agent_step_t *step);

/*
 * Into the table: the step is ours.  0: it was cancelled in the meantime, and
 * must not be run.
 */
ngx_uint_t ngx_agent_live_add(ngx_agent_live_t *live);

/* Out of the table and out of memory; gives its slots back. */
void ngx_agent_live_free(ngx_agent_live_t *live);

/* The one function that changes live->state: by the table in the header. */
void ngx_agent_live_move(ngx_agent_live_t *live, ngx_agent_live_state_e to);

/*
 * A zeroed call in a pool of its own, for the live step's next statement;
 * NULL: no memory.  done: frees it, when its results were taken.
 */
ngx_agent_store_call_t *ngx_agent_live_call(ngx_agent_live_t *live,
    ngx_agent_store_pt handler);
void ngx_agent_live_call_done(ngx_agent_live_t *live);

/* A copy in live->pool; NGX_OK or NGX_ERROR. */
ngx_int_t ngx_agent_live_dup(ngx_agent_live_t *live, ngx_str_t *dst,
    ngx_str_t *src);

/* A cancelled step that is not in the table may be on its way to it. */
void ngx_agent_live_note_cancelled(const ngx_agent_id_t *id);

/* each live step in turn; the function may free it */
void ngx_agent_live_each(void (*f)(ngx_agent_live_t *live));

/* Renews all leases.  Nothing when the last renewal is still under way. */
void ngx_agent_live_renew(ngx_log_t *log);

ngx_int_t ngx_agent_live_init(ngx_cycle_t *cycle);
void ngx_agent_live_exit(ngx_cycle_t *cycle);


/* ngx_agent_step.c */

/* A step that the queue has given: it has its slots. */
void ngx_agent_step_claimed(ngx_agent_claim_t *claim,
    ngx_agent_agent_t *agent);

/*
 * The store says that the step is ours: it gets into the table and will be
 * started by an event.  0: it cannot be run here now, and must leave.
 */
ngx_uint_t ngx_agent_step_ours(ngx_agent_live_t *live);

/* Not ours any more: the run is stopped, nothing is saved. */
void ngx_agent_step_drop(ngx_agent_live_t *live);

/*
 * Back into the queue, to be run in "delay" ms; spare: this attempt does not
 * count.
 */
void ngx_agent_step_leave(ngx_agent_live_t *live, ngx_msec_t delay,
    ngx_uint_t spare);

void ngx_agent_step_init(const ngx_agent_core_conf_t *conf);


/* ngx_agent_post.c */

void ngx_agent_post_init(const ngx_agent_core_conf_t *conf);


/* ngx_agent_story.c: why attempts failed */

/* Adds the present attempt's end to the story; end: and it is the whole. */
void ngx_agent_story_add(ngx_agent_live_t *live, ngx_str_t *why);
void ngx_agent_story_end(ngx_agent_live_t *live, ngx_str_t *why,
    ngx_str_t *error);


/* ngx_agent_watch.c */

/* Tells all who watch the live step that it has ended. */
void ngx_agent_watch_tell(ngx_agent_live_t *live);

/* The live step goes on elsewhere: its watchers do not know and need not. */
void ngx_agent_watch_far(ngx_agent_live_t *live);

/* The step runs here now: those who watched it from afar come to it. */
void ngx_agent_watch_near(ngx_agent_live_t *live);

/* News of a step: look at once.  */
void ngx_agent_watch_news(const ngx_agent_id_t *id);

/* This worker goes: everyone is told to ask elsewhere. */
void ngx_agent_watch_dismiss(void);

void ngx_agent_watch_init(void);
void ngx_agent_watch_exit(void);


/* ngx_agent_queue.c */

/*
 * This worker is on record: if it is killed, its steps will be found at once.
 * Until then it runs none.
 */
void ngx_agent_queue_open(void);

/* A slot for one more run of this worker: 1, or 0. */
ngx_uint_t ngx_agent_queue_take(void);
void ngx_agent_queue_give(void);

/* Agents that are at their limit, with ",", in pool; len 0: none. */
void ngx_agent_queue_full_agents(ngx_pool_t *pool, ngx_str_t *names);

/* News of an agent and a tenant; "again": look at all of their queue. */
void ngx_agent_queue_news(ngx_str_t *agent, ngx_str_t *tenant,
    ngx_uint_t again);

/* A step of the agent may run in "delay" ms. */
void ngx_agent_queue_later(ngx_msec_t delay);

/* A look at the queue of all agents, and at how many wait there. */
void ngx_agent_queue_poll(void);
void ngx_agent_queue_depth(void);

ngx_int_t ngx_agent_queue_init(ngx_cycle_t *cycle,
    const ngx_agent_core_conf_t *conf);
void ngx_agent_queue_exit(void);


/* ngx_agent_tick.c: what is done every second, and the end of a worker */

/* Frees the steps whose lease has lapsed, as soon as may be. */
void ngx_agent_tick_sweep(void);

/* All leases are renewed: what else is ours by its row is not known here. */
void ngx_agent_tick_orphans(void);

/* 1: this worker goes and takes nothing new. */
ngx_uint_t ngx_agent_tick_drains(void);

ngx_int_t ngx_agent_tick_init(ngx_cycle_t *cycle,
    const ngx_agent_core_conf_t *conf);
void ngx_agent_tick_exit(void);


#endif /* _NGX_AGENT_STEP_H_INCLUDED_ */
