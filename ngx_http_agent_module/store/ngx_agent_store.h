
/*
 * The store: rows of tasks, steps and artifacts.  This is the interface;
 * Postgres is behind it (later SQLite).  No HTTP, no rules: what may follow
 * what is decided in core/, atomically where the store must decide.
 */

#ifndef _NGX_AGENT_STORE_H_INCLUDED_
#define _NGX_AGENT_STORE_H_INCLUDED_


#include "ngx_agent.h"


typedef struct ngx_agent_store_call_s  ngx_agent_store_call_t;

typedef void (*ngx_agent_store_pt)(ngx_agent_store_call_t *call);


/* how ngx_agent_store_begin_step() ended */

typedef enum {
    NGX_AGENT_BEGIN_OK = 0,     /* the step is ours, leased to this worker */
    NGX_AGENT_BEGIN_NO_TASK,
    NGX_AGENT_BEGIN_BUSY,       /* another step of the task is running */
    NGX_AGENT_BEGIN_FINISHED,   /* nothing left to do; step->id is the last */
    NGX_AGENT_BEGIN_FULL        /* the task has had its max_steps steps */
} ngx_agent_begin_e;


/*
 * One call.  The caller owns the struct (zeroed) and everything it points to,
 * and keeps both until the handler ran or ngx_agent_store_detach() was
 * called.  A function that takes a call returns NGX_AGAIN: the handler will
 * run once, from an event, never from inside the starting call; or NGX_ABORT:
 * the store is away or its queue is full, at once and without the handler.
 *
 * The handler finds in rc
 *   NGX_OK        done; for a write: committed
 *   NGX_DECLINED  no such row (or it belongs to another tenant)
 *   NGX_ABORT     the store is away or too slow; a write may or may not have
 *                 happened, and may be made again with the same id
 *   NGX_ERROR     the store refused this one call (logged)
 * Results are copied into pool.
 */

struct ngx_agent_store_call_s {
    ngx_pool_t                *pool;
    ngx_log_t                 *log;
    ngx_agent_store_pt         handler;
    void                      *data;

    ngx_str_t                  tenant;    /* empty: the default tenant */
    ngx_agent_task_t          *task;
    ngx_agent_step_t          *step;
    ngx_agent_artifact_t      *artifact;
    ngx_array_t               *artifacts; /* of ngx_agent_artifact_t */
    ngx_agent_page_t          *page;
    ngx_uint_t                 max_steps;
    ngx_str_t                  price;     /* decimal text, for the ledger */

    ngx_int_t                  rc;
    ngx_agent_begin_e          begin;
    ngx_uint_t                 total;     /* rows there are, for lists */
    ngx_array_t               *list;      /* of the noun that was asked */

    void                      *pg;        /* private */
};


/* writes */

/* in: task (id, agent, input, additional_input), max_steps */
ngx_int_t ngx_agent_store_create_task(ngx_agent_store_call_t *call);

/*
 * in: task->id, step (id, task_id, input, additional_input); out: begin; if
 * it is OK: task (agent, input) and step (seq, attempt); "redacted" is set,
 * and the row's input is "[redacted]", when the step before had asked for a
 * secret.  FINISHED: step->id names the last step.  Idempotent by step->id.
 */
ngx_int_t ngx_agent_store_begin_step(ngx_agent_store_call_t *call);

/*
 * in: step (everything but its inputs), artifacts (or NULL), price.
 * One transaction: the step, its artifacts, the ledger row.  NGX_DECLINED:
 * fenced, another attempt owns the step; nothing was changed.  Waits for the
 * store without a time limit: the answer of an LLM was paid for.
 */
ngx_int_t ngx_agent_store_end_step(ngx_agent_store_call_t *call);

/* in: artifact (id, task_id, names, size); NGX_DECLINED: no such task */
ngx_int_t ngx_agent_store_create_artifact(ngx_agent_store_call_t *call);

/* reads */

/* in: task->id; out: task */
ngx_int_t ngx_agent_store_get_task(ngx_agent_store_call_t *call);

/* in: page; out: list of ngx_agent_task_t, total */
ngx_int_t ngx_agent_store_list_tasks(ngx_agent_store_call_t *call);

/* in: step->task_id, step->id; out: step */
ngx_int_t ngx_agent_store_get_step(ngx_agent_store_call_t *call);

/* in: task->id, page; out: list of ngx_agent_step_t, total */
ngx_int_t ngx_agent_store_list_steps(ngx_agent_store_call_t *call);

/*
 * in: task->id, step->seq; out: list of ngx_agent_step_t, all steps of the
 * task with a smaller seq, oldest first, with input, status, secret, turns
 */
ngx_int_t ngx_agent_store_history(ngx_agent_store_call_t *call);

/* in: artifact->task_id, artifact->id; out: artifact */
ngx_int_t ngx_agent_store_get_artifact(ngx_agent_store_call_t *call);

/*
 * in: artifact->task_id, relative_path and file_name; out: artifact, the
 * newest of that name
 */
ngx_int_t ngx_agent_store_find_artifact(ngx_agent_store_call_t *call);

/* in: task->id, page; out: list of ngx_agent_artifact_t, total */
ngx_int_t ngx_agent_store_list_artifacts(ngx_agent_store_call_t *call);

/*
 * Renews the leases of all runs of this worker, in one statement; does its
 * own logging and retrying.  list: ngx_agent_step_t *.  No handler.
 */
void ngx_agent_store_renew(ngx_array_t *steps);

/*
 * Ends the steps whose lease has lapsed, of whichever worker: theirs is gone.
 * Right after the database was away it does nothing, so that those who live
 * can renew first.  No handler.
 */
void ngx_agent_store_sweep(void);

/*
 * Has the plans of the statements made anew, for tables that have grown.  No
 * handler.
 */
void ngx_agent_store_replan(void);

/* The caller is gone: the handler will not run.  Safe at any time. */
void ngx_agent_store_detach(ngx_agent_store_call_t *call);


typedef struct {
    ngx_str_t                  conninfo;
    ngx_msec_t                 wait;      /* a call waits for the store, ms */
    ngx_uint_t                 queue;     /* calls that may wait, a worker */
    ngx_flag_t                 prepared;  /* off: for PgBouncer */
    ngx_msec_t                 lease;     /* ms */
    void                      *target;    /* private: hosts, looked up */
} ngx_agent_store_conf_t;

/*
 * At nginx -t: takes conf->conninfo apart and looks its host names up, as
 * nginx does for its upstreams: now or never.  NULL, or what is wrong with it
 * (in pool), with no secret in it.
 */
char *ngx_agent_store_check(ngx_pool_t *pool, ngx_agent_store_conf_t *conf);

/* At worker start: begins to connect, never waits.  NGX_OK or NGX_ERROR. */
ngx_int_t ngx_agent_store_init(ngx_cycle_t *cycle,
    ngx_agent_store_conf_t *conf);

/* At worker exit: closes what is open. */
void ngx_agent_store_exit(ngx_cycle_t *cycle);


#endif /* _NGX_AGENT_STORE_H_INCLUDED_ */
