
/*
 * The rules of steps: which state follows which, who runs them, who watches
 * them.  No HTTP, no SQL.
 */

#ifndef _NGX_AGENT_CORE_H_INCLUDED_
#define _NGX_AGENT_CORE_H_INCLUDED_


#include "ngx_agent.h"
#include "ngx_agent_store.h"
#include <ngx_event.h>


typedef struct ngx_agent_live_s   ngx_agent_live_t;
typedef struct ngx_agent_watch_s  ngx_agent_watch_t;
typedef struct ngx_agent_post_s   ngx_agent_post_t;

typedef void (*ngx_agent_watch_pt)(ngx_agent_watch_t *w,
    ngx_agent_live_t *live);
typedef void (*ngx_agent_post_pt)(ngx_agent_post_t *post);
typedef ngx_int_t (*ngx_agent_runner_pt)(ngx_agent_live_t *live);


/*
 * A step that this worker runs.  Made when the store has begun the step,
 * freed when its end is committed and every watcher was told.  All of it is
 * in its own pool; no client's memory is in it.
 */

struct ngx_agent_live_s {
    ngx_queue_t                queue;     /* all live steps of the worker */
    ngx_rbtree_node_t          node;      /* by step id */
    ngx_queue_t                watchers;
    ngx_pool_t                *pool;
    ngx_log_t                 *log;
    ngx_str_t                  tenant;
    ngx_agent_agent_t         *agent;
    ngx_agent_task_t           task;      /* id, agent, input */
    ngx_agent_step_t           step;
    ngx_array_t               *artifacts; /* made by the run, or NULL */
    ngx_str_t                  error;     /* short reason, if failed */
    void                      *run;       /* run/'s own */

    /* private */
    ngx_agent_post_t          *post;      /* who asked, until it is told */
    ngx_agent_store_call_t     call;
    ngx_event_t                event;     /* start of the run; retry */
    ngx_uint_t                 tries;     /* of saving the end */
    unsigned                   timed_out:1;  /* failed by a time-out: 504 */
    unsigned                   lost:1;    /* the end could not be saved */
    unsigned                   fenced:1;  /* another attempt took over */
    unsigned                   ending:1;
};


/*
 * Someone who waits for a live step: owned by the waiter, in its memory.
 * The handler runs once, after the end is committed (or given up: lost), and
 * must copy what it needs: live is freed when all handlers have run.
 */

struct ngx_agent_watch_s {
    ngx_queue_t                queue;
    ngx_agent_watch_pt         handler;
    void                      *data;
    unsigned                   active:1;
};


/*
 * The wish for a step.  Owned by the asker, zeroed; the strings may be in its
 * pool: what the run needs is copied.  It must stay until the handler ran or
 * ngx_agent_post_detach() was called (the step then goes on unwatched).
 *
 * The handler finds
 *   rc == NGX_OK: "begin" tells.  OK: the run has been scheduled, "live" is
 *         set, and a watch may be added now.  FINISHED: "step" is the last
 *         step, whole.  Else nothing was stored.
 *   rc == NGX_ABORT or NGX_ERROR: as for the store.
 * A task whose agent is not configured here is begun all the same, with
 * live->agent NULL, and ends as failed.
 */

struct ngx_agent_post_s {
    ngx_pool_t                *pool;
    ngx_log_t                 *log;
    ngx_agent_post_pt          handler;
    void                      *data;

    ngx_str_t                  tenant;
    ngx_agent_task_t           task;      /* in: id */
    ngx_agent_step_t           step;      /* in: input, additional_input */

    ngx_int_t                  rc;
    ngx_agent_begin_e          begin;
    ngx_agent_live_t          *live;

    ngx_agent_store_call_t     call;      /* private */
    ngx_agent_live_t          *begun;     /* private */
};


/* NGX_AGAIN, or NGX_ABORT: the store is away (the handler will not run). */
ngx_int_t ngx_agent_step_post(ngx_agent_post_t *post);

/* The asker is gone; the step, if it is begun, is run all the same. */
void ngx_agent_step_post_detach(ngx_agent_post_t *post);

/* NULL when this worker does not run the step. */
ngx_agent_live_t *ngx_agent_step_find(const ngx_agent_id_t *step_id);

void ngx_agent_step_watch(ngx_agent_live_t *live, ngx_agent_watch_t *w);
void ngx_agent_step_unwatch(ngx_agent_watch_t *w);

/*
 * The one function that changes a status.  NGX_OK, or NGX_ERROR for a move
 * that the table in ngx_agent.h has not (logged; nothing is changed).
 */
ngx_int_t ngx_agent_step_move(ngx_agent_step_t *step, ngx_agent_status_e to,
    ngx_log_t *log);

/*
 * Called once by run/ when the step is over: live->step (status by
 * ngx_agent_step_move(), output, additional_output, turns, name, tokens,
 * is_last), artifacts, error, timed_out are set and in live->pool; the run
 * holds nothing any more.  Saves, then tells the watchers, then frees live:
 * the caller must not touch it afterwards.
 */
void ngx_agent_step_end(ngx_agent_live_t *live);

/* The names of statuses as clients see them ("waiting_for_input"). */
ngx_str_t *ngx_agent_status_name(ngx_agent_status_e status);

/*
 * At worker start.  agents: ngx_agent_agent_t *; runner: run/'s entry, called
 * from an event for each begun step: NGX_OK, or NGX_ERROR with live->error
 * set: the step is then ended as failed by core.
 */
ngx_int_t ngx_agent_core_init(ngx_cycle_t *cycle, ngx_array_t *agents,
    ngx_agent_runner_pt runner);
void ngx_agent_core_exit(ngx_cycle_t *cycle);

/* NULL when no agent of that name is configured. */
ngx_agent_agent_t *ngx_agent_agent_find(ngx_str_t *name);


#endif /* _NGX_AGENT_CORE_H_INCLUDED_ */
