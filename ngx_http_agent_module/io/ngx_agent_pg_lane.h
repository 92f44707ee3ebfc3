
/*
 * What the two files of a lane share: ngx_agent_pg.c (the queue, deadlines,
 * the connection's ups and downs) and ngx_agent_pg_batch.c (what is in
 * flight).  Nobody else includes this.
 *
 * A batch is made of units, a unit of groups.  A unit is one transaction: it
 * ends with a Sync.  A group is one execution for the calls that stand side
 * by side in lane->calls; one with no calls sets the scope for those behind
 * it in its unit.  A batch is one unit, but after a failure each of its calls
 * is a unit of its own, so that only the guilty one fails.
 */

#ifndef _NGX_AGENT_PG_LANE_H_INCLUDED_
#define _NGX_AGENT_PG_LANE_H_INCLUDED_


#include "ngx_agent_pg.h"
#include "ngx_agent_stat.h"
#include <ngx_event.h>


#define NGX_AGENT_PG_BATCH        256        /* calls of one batch */


typedef struct {
    ngx_uint_t                 first;        /* in lane->calls */
    ngx_uint_t                 n;
    ngx_uint_t                 unit;
    ngx_uint_t                 stmt;
    PGresult                  *res;
} ngx_agent_pg_group_t;


typedef struct {
    ngx_agent_pg_conn_t        conn;
    ngx_agent_pg_conf_t       *conf;
    ngx_uint_t                 number;       /* NGX_AGENT_PG_WRITER, ... */
    ngx_queue_t                waiting;
    ngx_uint_t                 nwaiting;
    ngx_uint_t                *kinds;        /* the same, by statements */
    ngx_msec_t                 since;        /* connected */
    ngx_uint_t                 connection;   /* of the connection, from 1 */
    ngx_uint_t                 batches;      /* sent */
    ngx_event_t                send;         /* posted */
    ngx_uint_t                 looks;        /* at the sockets, since the last
                                                batch came back */
    ngx_uint_t                 seen;         /* nwaiting at the last of them */
    ngx_event_t                tick;
    ngx_agent_pg_bind_t        bind;

    /* one that has come back, while its calls are told */
    ngx_agent_pg_call_t       *back[NGX_AGENT_PG_BATCH];
    ngx_agent_pg_group_t       told[2 * NGX_AGENT_PG_BATCH];

    /* the batch in flight; ncalls == 0: none */
    ngx_agent_pg_call_t       *calls[NGX_AGENT_PG_BATCH];
    ngx_agent_pg_group_t       groups[2 * NGX_AGENT_PG_BATCH];
    ngx_uint_t                 ncalls;
    ngx_uint_t                 ngroups;
    ngx_uint_t                 answered;     /* groups with a result */
    ngx_uint_t                 delivered;    /* groups told to their calls */
    ngx_msec_t                 sent;
    unsigned                   failed:1;     /* the unit being answered */
    unsigned                   released:1;   /* patient calls hold no worker */
} ngx_agent_pg_lane_t;


/*
 * Sends what waits as the next batch, if the connection is ready and nothing
 * is in flight.
 */
void ngx_agent_pg_send(ngx_agent_pg_lane_t *lane);

/* The connection's result(): takes one PGresult of the batch in flight. */
void ngx_agent_pg_result(void *owner, PGresult *res);

/*
 * Puts a call of the batch back to the front of the queue, or gives it up
 * when it was sent too often.
 */
void ngx_agent_pg_requeue(ngx_agent_pg_lane_t *lane,
    ngx_agent_pg_call_t *call);

/* Puts a call into the queue at its front or end, or takes it out. */
void ngx_agent_pg_enqueue(ngx_agent_pg_lane_t *lane,
    ngx_agent_pg_call_t *call, ngx_uint_t front);
void ngx_agent_pg_dequeue(ngx_agent_pg_lane_t *lane,
    ngx_agent_pg_call_t *call);

/* Sets the timers as they have to be, after calls came or went. */
void ngx_agent_pg_watch(ngx_agent_pg_lane_t *lane);


#endif /* _NGX_AGENT_PG_LANE_H_INCLUDED_ */
