
/*
 * One libpq connection as nginx events: connect, set up, prepare, then
 * pipeline mode for ever.  Knows no SQL but what it is given and no calls:
 * io/ngx_agent_pg.c queues calls and makes batches of them.
 */

#ifndef _NGX_AGENT_PG_CONN_H_INCLUDED_
#define _NGX_AGENT_PG_CONN_H_INCLUDED_


#include "ngx_agent.h"
#include <ngx_event.h>
#include <libpq-fe.h>


#define NGX_AGENT_PG_PARAMS       20


/*
 * One prepared statement.  A grouped one takes arrays: the calls of a batch
 * become one execution, "$n" is the array of their n-th parameters, and the
 * first column of each result row is the call's place in the arrays, from 1.
 * Types are those of the elements.
 */

typedef struct {
    const char                *name;
    const char                *sql;
    ngx_uint_t                 nparams;
    Oid                        types[NGX_AGENT_PG_PARAMS];
    unsigned                   grouped:1;
} ngx_agent_pg_stmt_t;


/*
 * Where to connect: libpq's keywords, the hosts apart, so that an attempt can
 * begin with another one after a host that did not even answer.
 */

typedef struct {
    const char               **keywords;     /* NULL-terminated, no hosts */
    const char               **values;
    ngx_array_t                hosts;        /* of ngx_agent_pg_host_t */
} ngx_agent_pg_target_t;

typedef struct {
    const char                *host;
    const char                *hostaddr;     /* "" for a Unix socket */
    const char                *port;         /* "" for the default */
} ngx_agent_pg_host_t;


/*
 * States, and the moves ngx_agent_pg_conn_move() allows:
 *
 *   DOWN        no connection; a timer waits for the next attempt
 *   CONNECTING  PQconnectPoll() is going on
 *   SETUP       settings and the schema's version are asked
 *   PREPARING   pipeline mode; the statements are being prepared
 *   READY       batches may be sent
 *
 *   DOWN -> CONNECTING -> SETUP -> PREPARING -> READY, each -> DOWN
 */

typedef enum {
    NGX_AGENT_PG_DOWN = 0,
    NGX_AGENT_PG_CONNECTING,
    NGX_AGENT_PG_SETUP,
    NGX_AGENT_PG_PREPARING,
    NGX_AGENT_PG_READY
} ngx_agent_pg_state_e;


typedef struct ngx_agent_pg_conn_s  ngx_agent_pg_conn_t;

struct ngx_agent_pg_conn_s {
    const char                *role;         /* for the log: "writer" */
    ngx_log_t                 *log;
    ngx_agent_pg_target_t     *target;
    const ngx_agent_pg_stmt_t *stmts;
    ngx_uint_t                 nstmts;
    const char                *listen;       /* sql run before it, or NULL */
    const char                *setup;        /* sql; last result: version */
    ngx_uint_t                 version;      /* the one that is wanted */
    unsigned                   prepared:1;   /* off: text with each call */

    /*
     * ready: may send.  result: one PGresult, which is the owner's to clear.
     * lost: the connection is gone; everything sent and not yet answered by
     * its Sync may or may not have happened.  news: a notification, when all
     * results that have come are told; may be NULL.
     */
    void                     (*ready)(void *owner);
    void                     (*result)(void *owner, PGresult *res);
    void                     (*lost)(void *owner);
    void                     (*news)(const char *channel,
                                     const char *payload);
    void                      *owner;
    ngx_atomic_t              *shown;        /* the state, to be looked at */

    /* private */
    ngx_agent_pg_state_e       state;
    PGconn                    *pg;
    ngx_connection_t          *c;
    ino_t                      ino;          /* tells a new socket apart */
    ngx_event_t                timer;        /* next attempt, or time-out */
    ngx_msec_t                 backoff;
    ngx_msec_t                 up;           /* when it got ready */
    ngx_uint_t                 failures;
    ngx_uint_t                 rotate;
    ngx_uint_t                 pending;      /* prepares unanswered */
    unsigned                   flushing:1;
    unsigned                   broken:1;     /* close when safe */
    unsigned                   busy:1;       /* the owner has calls */
    unsigned                   holds:1;      /* and the worker for them */
};


/*
 * Parses a conninfo string or URI and looks its host names up, blocking: at
 * start only, as nginx does for its upstreams.  NULL and *target (all in
 * pool), or an error text in pool that holds no secret.
 */
char *ngx_agent_pg_target(ngx_pool_t *pool, ngx_str_t *conninfo,
    ngx_agent_pg_target_t *target);

/*
 * Begins an attempt, with the hosts from number "rotate" on first.  NULL: no
 * memory; else libpq's connection, which may be CONNECTION_BAD already.
 */
PGconn *ngx_agent_pg_connect(ngx_agent_pg_target_t *target,
    ngx_uint_t rotate, ngx_log_t *log);

/* Begins to connect; never waits. */
void ngx_agent_pg_conn_open(ngx_agent_pg_conn_t *pc);

/* Closes for good, at worker exit. */
void ngx_agent_pg_conn_close(ngx_agent_pg_conn_t *pc);

/*
 * Gives the connection up and connects again after a pause: "why" goes to
 * the log.  lost() runs before this returns.
 */
void ngx_agent_pg_conn_reset(ngx_agent_pg_conn_t *pc, const char *why);

/*
 * Queues one execution in libpq: values and lengths in binary, NULL for null.
 * NGX_OK, or NGX_ERROR: the connection is broken, call reset.
 */
ngx_int_t ngx_agent_pg_conn_send(ngx_agent_pg_conn_t *pc, ngx_uint_t stmt,
    ngx_uint_t nparams, const char *const *values, const int *lengths);

/* Ends a transaction; NGX_OK or NGX_ERROR as above. */
ngx_int_t ngx_agent_pg_conn_sync(ngx_agent_pg_conn_t *pc);

/* Writes what is queued, as far as the socket takes it now. */
ngx_int_t ngx_agent_pg_conn_flush(ngx_agent_pg_conn_t *pc);

/*
 * Tells whether calls wait, for which it goes on connecting, and whether its
 * timers hold a worker that wants to quit.
 */
void ngx_agent_pg_conn_busy(ngx_agent_pg_conn_t *pc, ngx_uint_t busy,
    ngx_uint_t holds);


/*
 * Between ngx_agent_pg_conn.c and ngx_agent_pg_setup.c; nobody else's.  "up":
 * it is READY; "failed": as reset, also for what was said before (why NULL).
 */

/* of failures in a row, the log tells the first and each 16th */
#define NGX_AGENT_PG_REPEAT       16

void ngx_agent_pg_conn_move(ngx_agent_pg_conn_t *pc,
    ngx_agent_pg_state_e state);
void ngx_agent_pg_conn_up(ngx_agent_pg_conn_t *pc);
void ngx_agent_pg_conn_failed(ngx_agent_pg_conn_t *pc, const char *why);

void ngx_agent_pg_conn_setup(ngx_agent_pg_conn_t *pc);
void ngx_agent_pg_conn_setup_result(ngx_agent_pg_conn_t *pc, PGresult *res);
void ngx_agent_pg_conn_prepare_result(ngx_agent_pg_conn_t *pc,
    PGresult *res);


#endif /* _NGX_AGENT_PG_CONN_H_INCLUDED_ */
