
/*
 * Counters, in memory that all workers of an nginx share and that outlives a
 * reload: what agent_status shows.  Plain numbers, no I/O.  Every room may
 * count; each worker writes to a slot of its own.
 */

#ifndef _NGX_AGENT_STAT_H_INCLUDED_
#define _NGX_AGENT_STAT_H_INCLUDED_


#include "ngx_agent.h"


/* agents whose runs are counted across workers */
#define NGX_AGENT_STAT_AGENTS    256

/* of *_STATE: it may send; ngx_agent_pg_state_e has the others */
#define NGX_AGENT_STAT_READY     4


/*
 * What is counted.  Up to NGX_AGENT_STAT_GAUGES each only grows; from there
 * on each is the present value of the worker and is zeroed with it.
 */

typedef enum {
    /* replies to clients, by the class of their status */
    NGX_AGENT_STAT_2XX = 0,
    NGX_AGENT_STAT_4XX,
    NGX_AGENT_STAT_5XX,

    NGX_AGENT_STAT_TASKS,            /* created */
    NGX_AGENT_STAT_STEPS,            /* begun here, or queued */
    NGX_AGENT_STAT_QUEUED,           /* of those: queued */
    NGX_AGENT_STAT_REPLAYED,         /* answered by an Idempotency-Key */
    NGX_AGENT_STAT_CLAIMED,          /* taken from the queue */
    NGX_AGENT_STAT_COMPLETED,        /* ended here, by status */
    NGX_AGENT_STAT_WAITING,
    NGX_AGENT_STAT_FAILED,
    NGX_AGENT_STAT_CANCELLED,
    NGX_AGENT_STAT_CALLS,            /* of agents */
    NGX_AGENT_STAT_RETRIES,          /* of those: after a failed one */
    NGX_AGENT_STAT_POSTPONED,        /* back to the queue for a later try */
    NGX_AGENT_STAT_HANDED_BACK,      /* by a worker that quits */
    NGX_AGENT_STAT_TAKEOVERS,        /* steps freed from dead workers */
    NGX_AGENT_STAT_FENCED,           /* writes that came too late */
    NGX_AGENT_STAT_TOKENS_IN,
    NGX_AGENT_STAT_TOKENS_OUT,
    NGX_AGENT_STAT_REFUSED,          /* 503: queue full or database away */

    NGX_AGENT_STAT_WRITER_BATCHES,
    NGX_AGENT_STAT_WRITER_CALLS,
    NGX_AGENT_STAT_READER_BATCHES,
    NGX_AGENT_STAT_READER_CALLS,
    NGX_AGENT_STAT_CONNECTS,         /* to the database */
    NGX_AGENT_STAT_LOSSES,           /* of connections to it */

    NGX_AGENT_STAT_GAUGES,
    NGX_AGENT_STAT_RUNNING = NGX_AGENT_STAT_GAUGES,
    NGX_AGENT_STAT_WATCHERS,         /* clients that wait for a step */
    NGX_AGENT_STAT_WRITER_WAITING,   /* calls */
    NGX_AGENT_STAT_READER_WAITING,
    NGX_AGENT_STAT_WRITER_STATE,     /* ngx_agent_pg_state_e */
    NGX_AGENT_STAT_READER_STATE,
    NGX_AGENT_STAT_STALL_MAX,        /* ms: the longest the loop stood still */
    NGX_AGENT_STAT_DEPTH,            /* of the queue, as last seen */
    NGX_AGENT_STAT_DEPTH_AT,         /* when: seconds since the epoch */
    NGX_AGENT_STAT_N
} ngx_agent_stat_e;


/* At configuration: the shared zone; tag is the module.  NGX_OK, NGX_ERROR. */
ngx_int_t ngx_agent_stat_zone(ngx_conf_t *cf, void *tag);

/*
 * At worker start: takes the worker's slot over from whichever process had it
 * before: its gauges are zeroed, the runs it held are given back.
 */
void ngx_agent_stat_init(ngx_cycle_t *cycle);

/* this worker's counters; never NULL, also before init and in nginx -t */
extern ngx_atomic_t  *ngx_agent_stats;

#define ngx_agent_stat_add(stat, n)                                           \
    (ngx_agent_stats[NGX_AGENT_STAT_##stat] += (n))

#define ngx_agent_stat_set(stat, n)                                           \
    (ngx_agent_stats[NGX_AGENT_STAT_##stat] = (n))

/*
 * The sum over all workers; STALL_MAX is the greatest, DEPTH the newest,
 * *_STATE the number of workers whose connection is ready (state 4).
 */
uint64_t ngx_agent_stat_sum(ngx_agent_stat_e stat);

/* Workers that use a slot at present. */
ngx_uint_t ngx_agent_stat_workers(void);

/* Since when it has been counted: seconds since the epoch. */
time_t ngx_agent_stat_since(void);

/*
 * Runs of an agent in all workers of this nginx.  take: 1, or 0 when "max"
 * (0: none) are going on.  The number is by name, so that a reload may change
 * the order of the agents; an agent beyond NGX_AGENT_STAT_AGENTS is counted
 * in this worker only.
 */
ngx_uint_t ngx_agent_stat_take(ngx_str_t *agent, ngx_uint_t max);
void ngx_agent_stat_give(ngx_str_t *agent);

/*
 * Says of "n" places of this worker's that nothing runs there yet: it has
 * asked the queue for steps (n > 0), or has the answer (n < 0).
 */
void ngx_agent_stat_ask(ngx_str_t *agent, ngx_int_t n);

/* places taken, and those of them where a step runs */
ngx_uint_t ngx_agent_stat_places(ngx_str_t *agent);
ngx_uint_t ngx_agent_stat_runs(ngx_str_t *agent);


#endif /* _NGX_AGENT_STAT_H_INCLUDED_ */
