
/*
 * The rules of steps: which state follows which, who runs them, who watches
 * them, what waits in the queue.  No HTTP, no SQL.
 */

#ifndef _NGX_AGENT_CORE_H_INCLUDED_
#define _NGX_AGENT_CORE_H_INCLUDED_


#include "ngx_agent.h"
#include "ngx_agent_store.h"
#include <ngx_event.h>


typedef struct ngx_agent_live_s   ngx_agent_live_t;
typedef struct ngx_agent_watch_s  ngx_agent_watch_t;
typedef struct ngx_agent_post_s   ngx_agent_post_t;
typedef struct ngx_agent_far_s    ngx_agent_far_t;

typedef void (*ngx_agent_watch_pt)(ngx_agent_watch_t *w);
typedef void (*ngx_agent_post_pt)(ngx_agent_post_t *post);


/*
 * A step that this worker runs.  Made when the store has begun the step or
 * the queue has given it, freed when its end is committed and every watcher
 * was told, or when the step is not this worker's any more.  All of it is in
 * its own pool; no client's memory is in it.
 *
 * Its states, moved by ngx_agent_live_move() only:
 *
 *   ASKED     the store is asked to begin it
 *   READY     it is ours; an event will start the run
 *   RUNS      run/ has it
 *   PAUSES    a call failed; run/ waits for resume() or stop()
 *   RETRIES   the store is asked for the next attempt
 *   ENDS      its end is being saved
 *   LEAVES    it is being put back into the queue
 *   DROPPED   it is not ours any more: fenced or cancelled; run/ may still
 *             hold a part of it
 *
 *   ASKED -> READY;  READY -> RUNS | ENDS | LEAVES | DROPPED;
 *   RUNS -> PAUSES | ENDS | LEAVES | DROPPED;
 *   PAUSES -> RETRIES | LEAVES | DROPPED;
 *   RETRIES -> RUNS | LEAVES | DROPPED;
 *   ENDS -> DROPPED;  LEAVES -> DROPPED
 */

typedef enum {
    NGX_AGENT_LIVE_ASKED = 0,
    NGX_AGENT_LIVE_READY,
    NGX_AGENT_LIVE_RUNS,
    NGX_AGENT_LIVE_PAUSES,
    NGX_AGENT_LIVE_RETRIES,
    NGX_AGENT_LIVE_ENDS,
    NGX_AGENT_LIVE_LEAVES,
    NGX_AGENT_LIVE_DROPPED
} ngx_agent_live_state_e;


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
    void                      *run;       /* run/'s own */

    /* private */
    ngx_agent_live_state_e     state;
    ngx_agent_post_t          *post;      /* who asked, until it is told */
    ngx_agent_store_call_t    *call;      /* under way; in a pool of its own */
    ngx_event_t                event;     /* start of the run; pause; retry */
    ngx_msec_t                 delay;     /* LEAVES: before the next try */
    ngx_uint_t                 tries;     /* of saving the end */
    unsigned                   slot:1;    /* counted in the worker's runs */
    unsigned                   agent_slot:1;  /* ... and in the agent's */
    unsigned                   watched:1; /* someone waits elsewhere */
    unsigned                   spare:1;   /* LEAVES: it does not count */
    unsigned                   unknown:1; /* its secret input is gone */
};


/*
 * Someone who waits for the end of a step, whoever runs it: owned by the
 * waiter, in its memory, zeroed, with handler, data, log, tenant (which must
 * stay), task_id and step_id set.  The handler runs once, from an event,
 * never from inside ngx_agent_step_watch(); it finds
 *   rc == NGX_OK        it has ended and that is committed: "step", whole
 *   rc == NGX_DECLINED  there is no such step (any more)
 *   rc == NGX_BUSY      this worker is about to go and hands the step back:
 *                       it will be run elsewhere
 * and must copy what it needs of "step".  While the database is away it does
 * not run: who waits sets a limit of its own.
 */

struct ngx_agent_watch_s {
    ngx_queue_t                queue;
    ngx_agent_watch_pt         handler;
    void                      *data;
    ngx_log_t                 *log;
    ngx_str_t                  tenant;
    ngx_agent_id_t             task_id;
    ngx_agent_id_t             step_id;

    ngx_int_t                  rc;
    ngx_agent_step_t          *step;

    /* private */
    ngx_agent_far_t           *far;       /* the step is not run here */
    unsigned                   active:1;
};

/* NGX_OK, or NGX_ERROR: no memory, the handler will not run. */
ngx_int_t ngx_agent_step_watch(ngx_agent_watch_t *w);

/* The handler will not run; safe at any time, also twice. */
void ngx_agent_step_unwatch(ngx_agent_watch_t *w);


/*
 * The wish for a step.  Owned by the asker, zeroed; the strings may be in its
 * pool: what the run needs is copied.  It must stay until the handler ran or
 * ngx_agent_step_post_detach() was called (the step then goes on unwatched).
 *
 * The handler finds
 *   rc == NGX_OK: "begin" tells.
 *         OK, QUEUED: the step (id, task_id, seq, status) is stored and will
 *         be run: watch it, or not.  REPLAY: the key was used before; "step"
 *         is the one it made, whole if it has ended, else as for OK.
 *         FINISHED: "step" is the last step, whole.  Else nothing was stored.
 *         task.agent is set for OK.
 *   rc == NGX_ABORT or NGX_ERROR: as for the store.
 *   rc == NGX_BUSY: the queue is full; nothing was stored.
 * A task whose agent is not configured here is begun all the same and ends as
 * failed.
 */

struct ngx_agent_post_s {
    ngx_pool_t                *pool;
    ngx_log_t                 *log;
    ngx_agent_post_pt          handler;
    void                      *data;

    ngx_str_t                  tenant;
    ngx_agent_task_t           task;      /* in: id */
    ngx_agent_step_t           step;      /* in: input, additional_input */
    ngx_str_t                  key;       /* Idempotency-Key, or data NULL */
    ngx_str_t                  print;     /* hash of the request, with key */
    unsigned                   async:1;   /* nobody will wait for the end */

    ngx_int_t                  rc;
    ngx_agent_begin_e          begin;
    ngx_agent_quota_e          quota;     /* with BEGIN_QUOTA, and its limit */
    ngx_str_t                  quota_max;

    ngx_agent_store_call_t     call;      /* private */
    ngx_agent_live_t          *begun;     /* private */
};


/*
 * NGX_AGAIN; NGX_BUSY: the queue is full; NGX_ABORT: the store is away (the
 * handler will not run then).
 */
ngx_int_t ngx_agent_step_post(ngx_agent_post_t *post);

/* The asker is gone; the step, if it is begun, is run all the same. */
void ngx_agent_step_post_detach(ngx_agent_post_t *post);

/* NULL when this worker does not run the step. */
ngx_agent_live_t *ngx_agent_step_find(const ngx_agent_id_t *step_id);

/*
 * Steps of this agent and tenant have come into the queue by a call of ours:
 * look at once, without waiting for the news.
 */
void ngx_agent_queue_ready(ngx_str_t *agent, ngx_str_t *tenant);

/* 1: no more steps may be queued now: 503. */
ngx_uint_t ngx_agent_queue_is_full(void);

/*
 * A step was cancelled or deleted by a call of ours: if this worker runs it,
 * its upstream is closed now.  Other workers hear of it by themselves.
 */
void ngx_agent_step_cancelled(const ngx_agent_id_t *step_id);


/*
 * The one function that changes a status.  NGX_OK, or NGX_ERROR for a move
 * that the table in ngx_agent.h has not (logged; nothing is changed).
 */
ngx_int_t ngx_agent_step_move(ngx_agent_step_t *step, ngx_agent_status_e to,
    ngx_log_t *log);

/* completed, waiting, failed or cancelled */
#define ngx_agent_step_is_ended(step)                                         \
    ((step)->status >= NGX_AGENT_STEP_COMPLETED)


/*
 * What core/ asks of run/, always from an event:
 *
 * start:   begins the run; returns at once.  NGX_OK, or NGX_ERROR: nothing
 *          was started, live->step.error says why (or is empty).
 * resume:  after ngx_agent_step_again(): the next call may go out, as attempt
 *          live->step.attempt.
 * stop:    closes the upstream and frees all the run holds but live->pool.
 * dropped: the step's end was not taken, another attempt owns it: blobs in
 *          live->artifacts are nobody's.  Also after stop.
 */

typedef struct {
    ngx_int_t                (*start)(ngx_agent_live_t *live);
    void                     (*resume)(ngx_agent_live_t *live);
    void                     (*stop)(ngx_agent_live_t *live);
    void                     (*dropped)(ngx_agent_live_t *live);
} ngx_agent_runner_t;


/*
 * Called once by run/ when the step is over: live->step (status by
 * ngx_agent_step_move(), output, additional_output, turns, name, tokens,
 * is_last) and artifacts are set and in live->pool; the run holds nothing any
 * more.  Saves, then tells the watchers, then frees live: the caller must not
 * touch it afterwards.
 */
void ngx_agent_step_end(ngx_agent_live_t *live);

/*
 * The same for one that fails: fills step.error with the whole story of its
 * attempts, "why" being the last one's, and step.additional_output.  code: HTTP
 * status for the client that waits; status: of the upstream, or 0.  What the
 * run has set of the step's results is cleared; live->artifacts must have
 * been dropped.
 */
void ngx_agent_step_fail(ngx_agent_live_t *live, ngx_str_t *why,
    ngx_uint_t code, ngx_uint_t status);

/*
 * A call of the agent failed and another may help: after "pause" ms core/
 * calls resume(), when the next attempt is on record, or stop(), when the
 * step is better put back into the queue: a long pause holds no slot.  "why"
 * is kept in the step's story.
 */
void ngx_agent_step_again(ngx_agent_live_t *live, ngx_msec_t pause,
    ngx_str_t *why);

/* Attempts that count, the present one included. */
#define ngx_agent_step_spent(live)                                            \
    ((live)->step.attempt - (live)->step.spared)

/* The names of statuses as clients see them ("waiting_for_input"). */
ngx_str_t *ngx_agent_status_name(ngx_agent_status_e status);


typedef struct {
    ngx_array_t               *agents;       /* of ngx_agent_agent_t * */
    const ngx_agent_runner_t  *runner;
    ngx_uint_t                 concurrency;  /* runs of one worker at once */
    ngx_uint_t                 queue;        /* steps that may be queued */
    ngx_msec_t                 poll;         /* a look at the queue, ms */
    ngx_msec_t                 wait;         /* agent_database wait= */
    ngx_msec_t                 patience;     /* of a step in the queue */
    ngx_msec_t                 shutdown;     /* worker_shutdown_timeout, or 0:
                                                there is none */
    unsigned                   run:1;        /* agent_run */
} ngx_agent_core_conf_t;

/* At worker start; conf stays. */
ngx_int_t ngx_agent_core_init(ngx_cycle_t *cycle,
    ngx_agent_core_conf_t *conf);
void ngx_agent_core_exit(ngx_cycle_t *cycle);

/* NULL when no agent of that name is configured. */
ngx_agent_agent_t *ngx_agent_agent_find(ngx_str_t *name);


#endif /* _NGX_AGENT_CORE_H_INCLUDED_ */
