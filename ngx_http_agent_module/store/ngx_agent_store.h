
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
    NGX_AGENT_BEGIN_FULL,       /* the task has had its max_steps steps */
    NGX_AGENT_BEGIN_QUEUED,     /* the step is stored, any worker may run it */
    NGX_AGENT_BEGIN_REPLAY,     /* the key was used before: step->id is what
                                   it made then */
    NGX_AGENT_BEGIN_MISMATCH,   /* the key was used for another request */
    NGX_AGENT_BEGIN_QUOTA       /* the tenant is over a limit: call->quota */
} ngx_agent_begin_e;


/* what other sessions tell */

typedef enum {
    NGX_AGENT_NEWS_WORK = 0,    /* "agent tenant": steps of these wait in the
                                   queue; "agent! tenant": also some from of
                                   old, look at all of it */
    NGX_AGENT_NEWS_ENDED,       /* ids, in text, ",": for who waits for them */
    NGX_AGENT_NEWS_CANCELLED,   /* ids: whoever runs them has lost them */
    NGX_AGENT_NEWS_KEYS         /* hash of an API key, in hex: it is not what
                                   it was; "": some are not */
} ngx_agent_news_e;

typedef void (*ngx_agent_news_pt)(ngx_agent_news_e news, ngx_str_t *payload);


/* one run's right to go on, as renewing found it */

typedef struct {
    ngx_agent_id_t             task_id;
    ngx_agent_id_t             step_id;
    ngx_str_t                  tenant;
    ngx_uint_t                 seq;
    ngx_uint_t                 attempt;
    unsigned                   lost:1;   /* out */
} ngx_agent_lease_t;


/* a tenant who may have steps of an agent in the queue */

typedef struct {
    ngx_str_t                  agent;
    ngx_str_t                  tenant;
    ngx_uint_t                 share;    /* in: steps to be taken at most */
    int64_t                    since;    /* in, out: where to look from, 0:
                                            look at all; the store's own */
    ngx_uint_t                 taken;    /* out: of "share": as many are there
                                            may be more */
    unsigned                   limited:1;    /* out: it may not run more now;
                                                in: so it was the last time */
} ngx_agent_line_t;


/* a step that was claimed from the queue; strings are in the call's pool */

typedef struct {
    ngx_str_t                  tenant;
    ngx_agent_task_t           task;     /* id, agent, input */
    ngx_agent_step_t           step;     /* id, seq, attempt, spared, input,
                                            additional_input, story */
    unsigned                   watched:1;    /* someone waits elsewhere */
    unsigned                   unknown:1;    /* the secret input is gone */
} ngx_agent_claim_t;


/* a process that has called itself a worker on this host */

typedef struct {
    ngx_str_t                  name;     /* as in agent.step.owner */
    ngx_pid_t                  pid;
    int64_t                    born;     /* of the process, in the system's
                                            own units */
} ngx_agent_worker_t;


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
    ngx_array_t               *lines;     /* of ngx_agent_line_t */
    ngx_str_t                  key;       /* Idempotency-Key; data NULL: none */
    ngx_str_t                  print;     /* with it: what was asked, hashed */
    ngx_str_t                  full;      /* agents at their limit, "," */
    ngx_agent_id_t            *next;      /* id of the step that follows by
                                             itself, or NULL */
    ngx_msec_t                 delay;     /* before the step may run again */
    ngx_uint_t                 limit;
    ngx_agent_key_t           *api_key;
    ngx_agent_quota_e          quota;     /* out: with BEGIN_QUOTA, or rc
                                             NGX_BUSY */
    ngx_str_t                  quota_max; /* out: that limit, as text */
    ngx_str_t                  from;      /* dates, "2026-11-01": the first */
    ngx_str_t                  to;        /* day and the last; len 0: open */
    int64_t                    cursor;
    ngx_str_t                  agents;    /* names with "," in between; data
                                             NULL: all */
    unsigned                   queue:1;   /* this worker cannot run it */
    unsigned                   watched:1; /* tell when the step has ended */
    unsigned                   spare:1;   /* the attempt does not count */
    unsigned                   refuse:1;  /* the queue is full */
    unsigned                   all:1;     /* of every tenant */
    unsigned                   careful:1; /* private */

    ngx_int_t                  rc;
    ngx_agent_begin_e          begin;
    unsigned                   replayed:1;    /* the key was used before: the
                                                 noun's id is of then */
    unsigned                   mismatch:1;    /* ... for another request */
    unsigned                   lapsed:1;      /* BUSY, by a step whose lease
                                                 has lapsed */
    ngx_uint_t                 total;     /* rows there are, for lists */
    ngx_array_t               *list;      /* of the noun that was asked */
    ngx_agent_usage_t         *usage;     /* out: of all days and agents */

    void                      *pg;        /* private */
};


/*
 * A zeroed call in a pool of its own, with pool, log and handler filled in.
 * size: of the pool, which the results will be in, too.  log: the call's and
 * the pool's, it must outlive both.  The caller owns the pool, and the call
 * with it: it destroys it in the handler, after ngx_agent_store_detach(), or
 * when the call was not started.  NULL: no memory, and nothing to destroy.
 */
ngx_agent_store_call_t *ngx_agent_store_call_create(size_t size,
    ngx_log_t *log, ngx_agent_store_pt handler);


/* writes */

/*
 * in: task (id, agent, input, additional_input, traceparent), max_steps, key,
 * print; step (its id) to queue the task's first step with it, or NULL, and
 * price.  out: replayed (task->id is the one the key has made), mismatch.
 * rc is NGX_BUSY when the tenant is over the limit "quota".
 */
ngx_int_t ngx_agent_store_create_task(ngx_agent_store_call_t *call);

/*
 * in: task->id, step (id, task_id, input, additional_input), key, print,
 * queue, full, watched; out: begin; if it is OK: task (agent, input) and step
 * (seq, attempt); "redacted" is set, and the row's input is "[redacted]",
 * when the step before had asked for a secret (or was such an answer and
 * failed).  With "queue", or when the agent is one of "full", the step is
 * stored as CREATED and QUEUED is what comes out.  FINISHED: step->id names
 * the last step.  Idempotent by step->id.
 *
 * rc is NGX_BUSY when the step would have to wait and "refuse" is set.
 *
 * A call that was sent when the time was up is not given up: it is known only
 * later whether the step is begun, and who runs it must know.  The handler
 * then runs late.
 */
ngx_int_t ngx_agent_store_begin_step(ngx_agent_store_call_t *call);

/*
 * in: step (everything but its inputs), artifacts (or NULL), price, next,
 * watched.  One transaction: the step, its artifacts, the ledger row, and, if
 * "next" is set, the step is completed and not the last and the task has
 * steps left, the next step in the queue.  NGX_DECLINED: fenced, another
 * attempt owns the step; nothing was changed.  NGX_BUSY: the tenant has no
 * room for its artifacts (quota, quota_max); nothing was changed, it is to be
 * ended without them.  Waits for the store without a time limit: the answer
 * of an LLM was paid for.
 */
ngx_int_t ngx_agent_store_end_step(ngx_agent_store_call_t *call);

/*
 * Before the agent of a running step is called again: in: step (the fence,
 * story, turns as far as they are known); out: step->attempt, one more.
 * NGX_DECLINED: fenced.  Patient.
 */
ngx_int_t ngx_agent_store_retry_step(ngx_agent_store_call_t *call);

/*
 * A running step back into the queue: in: task->agent, step (the fence,
 * story, turns), delay, spare, watched.  NGX_DECLINED: fenced.  Patient.
 */
ngx_int_t ngx_agent_store_requeue_step(ngx_agent_store_call_t *call);

/*
 * Takes steps of one agent from the queue, of each tenant the oldest first:
 * in: task->agent, lines (of ngx_agent_line_t, one for each tenant, 64 at
 * most; "agent" is not looked at), limit (of all together; no more come);
 * out: list of ngx_agent_claim_t, RUNNING and leased, and in "lines" what was
 * found.  A tenant that is at its limit of running steps gets no more.
 */
ngx_int_t ngx_agent_store_claim(ngx_agent_store_call_t *call);

/*
 * Who has steps in the queue: out: list of ngx_agent_line_t (agent, tenant),
 * of all agents, 10000 at most.  A read.
 */
ngx_int_t ngx_agent_store_lines(ngx_agent_store_call_t *call);

/*
 * in: task->id, step->id or step NULL: all of the task; out: list of
 * ngx_agent_id_t, the steps that were not ended and are CANCELLED now.
 * NGX_DECLINED: no such task or step.
 */
ngx_int_t ngx_agent_store_cancel(ngx_agent_store_call_t *call);

/*
 * The task with its steps and artifacts; what ran is cancelled.  out: list of
 * ngx_agent_artifact_t (id): their bytes are the caller's to delete.
 * NGX_DECLINED: no such task.
 */
ngx_int_t ngx_agent_store_delete_task(ngx_agent_store_call_t *call);

/*
 * in: artifact (id, task_id, names, size), key, print; NGX_DECLINED: no such
 * task; NGX_BUSY: the tenant has no room for it (quota, quota_max).  out:
 * replayed (artifact is the one of then), mismatch.
 */
ngx_int_t ngx_agent_store_create_artifact(ngx_agent_store_call_t *call);

/*
 * in: list of ngx_agent_lease_t; those that this worker does not own any more
 * come back "lost".  One statement.  The call is made again by the caller.
 */
ngx_int_t ngx_agent_store_renew(ngx_agent_store_call_t *call);

/* Takes the place of detach() for it. */
void ngx_agent_store_renew_stop(ngx_agent_store_call_t *call);

/*
 * Steps whose lease has lapsed go back to the queue; out: total, how many.
 * Right after the database was away it does nothing (NGX_ABORT), so that
 * those who live can renew first.
 */
ngx_int_t ngx_agent_store_sweep(ngx_agent_store_call_t *call);

/* out: list of ngx_agent_worker_t: others that registered on this host */
ngx_int_t ngx_agent_store_neighbours(ngx_agent_store_call_t *call);

/* What is too old goes: queued steps nobody took, keys, dead workers. */
ngx_int_t ngx_agent_store_expire(ngx_agent_store_call_t *call);

/*
 * This process is a worker.  What traces have in common is stored with that:
 * nothing must stand for it before.
 */
ngx_int_t ngx_agent_store_register(ngx_agent_store_call_t *call);

/*
 * in: list of ngx_agent_worker_t whose processes are gone: what they ran goes
 * back to the queue at once; out: total, how many steps.
 */
ngx_int_t ngx_agent_store_bury(ngx_agent_store_call_t *call);

/* reads */

/*
 * in: api_key->hash; out: the rest of it.  NGX_DECLINED: there is none, or it
 * is not valid any more.
 */
ngx_int_t ngx_agent_store_get_key(ngx_agent_store_call_t *call);

/*
 * Keys that were changed or revoked since "cursor" (0: none are told): out:
 * cursor, for the next time; list of u_char[NGX_AGENT_KEY_HASH], 1000 at
 * most; total: how many there are, or more than that list has.
 */
ngx_int_t ngx_agent_store_key_changes(ngx_agent_store_call_t *call);

/* A number for the database, as the configuration names it. */
uint32_t ngx_agent_store_place(void);

/* in: task->id; out: task->agent alone */
ngx_int_t ngx_agent_store_task_agent(ngx_agent_store_call_t *call);

/*
 * in: tenant, or "all" for every tenant's; from, to, page; agents, for these
 * only; out: list of ngx_agent_usage_t, by day, tenant and agent; total;
 * usage, the sum of all pages.
 */
ngx_int_t ngx_agent_store_usage(ngx_agent_store_call_t *call);

/*
 * in: step->task_id, step->id, task; out: task->agent; step (status, attempt,
 * tokens, trace, traceparent); from and to: when it was made and when it has
 * ended, as text
 */
ngx_int_t ngx_agent_store_get_trace(ngx_agent_store_call_t *call);

/*
 * A text that traces have in common, escaped as in a JSON string, and what
 * stands for it in them; both stay while the worker lives.  shared: it is on
 * record, so that the mark may be used.
 */
void ngx_agent_store_share(ngx_str_t *mark, ngx_str_t *part);
ngx_uint_t ngx_agent_store_shared(void);

/* in: task->id; out: task */
ngx_int_t ngx_agent_store_get_task(ngx_agent_store_call_t *call);

/*
 * in: page; agents, for the tasks of these only; out: list of
 * ngx_agent_task_t, total
 */
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
 * After all leases of this worker were renewed: steps that it owns by their
 * rows and has not renewed for some seconds are unknown to it, as the answer
 * to a claim got lost with its connection.  They go back to the queue; out:
 * total, how many.
 */
ngx_int_t ngx_agent_store_orphans(ngx_agent_store_call_t *call);

/* out: total, steps in the queue, but no more than "limit" are counted */
ngx_int_t ngx_agent_store_depth(ngx_agent_store_call_t *call);

/* Who is told the news of other sessions.  They may get lost. */
void ngx_agent_store_news(ngx_agent_news_pt handler);

/* News are heard at present: no pooler in between, and a connection is up. */
ngx_uint_t ngx_agent_store_hears(void);

/*
 * A number that changes with each new connection, for writing or for news; 0:
 * there is none for writing.
 */
ngx_uint_t ngx_agent_store_connection(void);

/*
 * A worker that must quit now: whatever still waits for the store does not
 * hold it any more.
 */
void ngx_agent_store_release(void);

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
    ngx_msec_t                 patience;  /* ms in the queue before a step
                                             fails */
    ngx_str_t                  prices;    /* of agents, as a JSON object */
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
