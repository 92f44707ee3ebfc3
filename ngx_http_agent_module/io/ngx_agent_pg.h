
/*
 * Calls to Postgres in batches.  A lane is one connection with a queue: calls
 * that arrive while a batch is in flight gather, and when it returns they go
 * out together as the next one, with one Sync: one transaction, one fsync for
 * all of them.  A call's handler runs after the Sync's result, that is, after
 * the commit.
 */

#ifndef _NGX_AGENT_PG_H_INCLUDED_
#define _NGX_AGENT_PG_H_INCLUDED_


#include "ngx_agent_pg_conn.h"


#define NGX_AGENT_PG_WRITER       0
#define NGX_AGENT_PG_READER       1
#define NGX_AGENT_PG_LANES        2


typedef struct ngx_agent_pg_call_s  ngx_agent_pg_call_t;

/* the rows of one call; they die when the handler returns */

typedef struct {
    PGresult                  *res;
    int                       *rows;         /* numbers of rows in res */
    ngx_uint_t                 n;
} ngx_agent_pg_rows_t;

/*
 * rc as in store/ngx_agent_store.h: NGX_OK (rows are set; for a write it is
 * committed), NGX_ABORT, NGX_ERROR.
 */
typedef void (*ngx_agent_pg_pt)(ngx_agent_pg_call_t *call, ngx_int_t rc,
    ngx_agent_pg_rows_t *rows);

typedef struct {
    const char                *data;         /* NULL: null */
    int                        len;
} ngx_agent_pg_param_t;


/*
 * One call.  The struct and what its parameters point to stay until the
 * handler ran or the call was detached.  Parameters are in Postgres' binary
 * form; ngx_agent_pg_int4() and its kin use the call's own scratch room.
 *
 * A call whose time is up ends with NGX_ABORT, also when it was sent and
 * nobody knows whether it happened.  With "hold" it does so only while it
 * certainly has not; else it is patient from then on, and sent again until
 * there is an answer.
 */

struct ngx_agent_pg_call_s {
    ngx_queue_t                queue;        /* waiting in its lane */
    ngx_agent_pg_call_t      **slot;         /* its place in a batch */
    ngx_agent_pg_pt            handler;
    void                      *data;
    ngx_log_t                 *log;

    ngx_uint_t                 stmt;
    ngx_uint_t                 again;        /* takes its place when the call
                                                is sent again and may have
                                                happened; 0: none does */
    ngx_uint_t                 lane;
    ngx_str_t                  scope;        /* for whom; a batch goes in the
                                                order of scopes, statements, */
    ngx_agent_id_t             key;          /* and this */
    ngx_msec_t                 deadline;
    ngx_uint_t                 sent;         /* times */
    unsigned                   patient:1;    /* has no deadline */
    unsigned                   hold:1;       /* patient as soon as it may have
                                                happened: see below */
    unsigned                   solo:1;       /* a transaction of its own */
    unsigned                   late:1;       /* its scope is the last one */
    unsigned                   unsure:1;     /* sent, and then the connection
                                                was lost */
    unsigned                   passed:1;     /* a batch of others went first */

    u_char                     scratch[64];
    ngx_uint_t                 scratched;
    ngx_uint_t                 nparams;
    ngx_agent_pg_param_t       params[1];    /* as many as the statement has */
};

#define ngx_agent_pg_call_size(n)                                             \
    (offsetof(ngx_agent_pg_call_t, params)                                    \
     + (n) * sizeof(ngx_agent_pg_param_t))


typedef struct {
    ngx_agent_pg_target_t      target;
    const ngx_agent_pg_stmt_t *stmts;
    ngx_uint_t                 nstmts;
    ngx_uint_t                 scope[NGX_AGENT_PG_LANES];
                                             /* a statement that is run, with
                                                the scope as its parameter,
                                                before the calls of a scope */
    const char                *setup;
    const char                *listen;       /* sql, "listen a; ...;", run by
                                                the reader; NULL: none */
    ngx_uint_t                 version;
    ngx_msec_t                 wait;         /* a call's time limit, ms */
    ngx_uint_t                 queue;        /* calls of a lane that may wait
                                                while the database is away */
    unsigned                   prepared:1;

    /*
     * A notification, or NULL: none are wanted.  Runs from an event, when no
     * batch is being walked; both strings die when it returns.
     */
    void                     (*news)(const char *channel,
                                     const char *payload);
} ngx_agent_pg_conf_t;


/* At worker start and exit; conf must stay. */
ngx_int_t ngx_agent_pg_init(ngx_cycle_t *cycle, ngx_agent_pg_conf_t *conf);
void ngx_agent_pg_exit(void);

/*
 * From now on patient calls hold no worker that wants to leave: only those do
 * that end by themselves.  There is no way back.
 */
void ngx_agent_pg_release(void);

/*
 * Queues a call: NGX_AGAIN, or NGX_ABORT: there is no connection and the
 * lane's queue is full.  A patient call is always taken.
 */
ngx_int_t ngx_agent_pg_call(ngx_agent_pg_call_t *call);

/* For how many ms the lane's connection has been up; 0: it is not. */
ngx_msec_t ngx_agent_pg_uptime(ngx_uint_t lane);

/* Which connection of the lane it is, from 1; 0: there is none at present. */
ngx_uint_t ngx_agent_pg_number(ngx_uint_t lane);

/* How many batches the lane has sent. */
ngx_uint_t ngx_agent_pg_batches(ngx_uint_t lane);

/* The handler will not run.  Safe at any time, also twice. */
void ngx_agent_pg_detach(ngx_agent_pg_call_t *call);

/* parameters, in order */
void ngx_agent_pg_null(ngx_agent_pg_call_t *call);
void ngx_agent_pg_text(ngx_agent_pg_call_t *call, ngx_str_t *s);
void ngx_agent_pg_json(ngx_agent_pg_call_t *call, ngx_str_t *s);
void ngx_agent_pg_id(ngx_agent_pg_call_t *call, const ngx_agent_id_t *id);
void ngx_agent_pg_int4(ngx_agent_pg_call_t *call, int32_t n);
void ngx_agent_pg_int8(ngx_agent_pg_call_t *call, int64_t n);
void ngx_agent_pg_bool(ngx_agent_pg_call_t *call, ngx_uint_t b);

/*
 * A text[] (1009) as one parameter of a statement that is not grouped, built
 * in pool.  NGX_OK, or NGX_ERROR: no memory.
 */
ngx_int_t ngx_agent_pg_texts(ngx_agent_pg_call_t *call, ngx_pool_t *pool,
    ngx_str_t *s, ngx_uint_t n);

/* columns of the call's i-th row; the strings live as long as the result */
ngx_uint_t ngx_agent_pg_is_null(ngx_agent_pg_rows_t *rows, ngx_uint_t i,
    int col);
ngx_str_t ngx_agent_pg_get_text(ngx_agent_pg_rows_t *rows, ngx_uint_t i,
    int col);
int64_t ngx_agent_pg_get_int(ngx_agent_pg_rows_t *rows, ngx_uint_t i,
    int col);
ngx_uint_t ngx_agent_pg_get_bool(ngx_agent_pg_rows_t *rows, ngx_uint_t i,
    int col);
void ngx_agent_pg_get_id(ngx_agent_pg_rows_t *rows, ngx_uint_t i, int col,
    ngx_agent_id_t *id);


/*
 * ngx_agent_pg_bind.c: builds the parameters of one execution in *buf, which
 * grows by ngx_alloc() and is used again: for a grouped statement arrays over
 * n calls, else the first call's values.  NGX_OK or NGX_ERROR: no memory.
 */

typedef struct {
    u_char                    *start;
    size_t                     size;
    const char                *values[NGX_AGENT_PG_PARAMS];
    int                        lengths[NGX_AGENT_PG_PARAMS];
} ngx_agent_pg_bind_t;

/* the scope alone, for the statement that sets it */
void ngx_agent_pg_bind_scope(ngx_agent_pg_bind_t *b,
    ngx_agent_pg_call_t *call);

ngx_int_t ngx_agent_pg_bind(ngx_agent_pg_bind_t *b,
    const ngx_agent_pg_stmt_t *st, ngx_agent_pg_call_t **calls, ngx_uint_t n,
    ngx_log_t *log);

/*
 * Which rows belong to which of n calls, in the order they came: those of
 * call i are (*rows)[(*first)[i]] .. (*rows)[(*first)[i + 1] - 1].  NGX_OK,
 * and *first is the caller's to ngx_free(); or NGX_ERROR: no memory.
 */
ngx_int_t ngx_agent_pg_index(PGresult *res, const ngx_agent_pg_stmt_t *st,
    ngx_uint_t n, int **first, int **rows, ngx_log_t *log);


#endif /* _NGX_AGENT_PG_H_INCLUDED_ */
