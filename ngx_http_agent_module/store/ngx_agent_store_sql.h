
/*
 * The statements of the Postgres store, by name.  The text of all of them is
 * in ngx_agent_store_sql.c and ngx_agent_store_sql_read.c and nowhere else.
 */

#ifndef _NGX_AGENT_STORE_SQL_H_INCLUDED_
#define _NGX_AGENT_STORE_SQL_H_INCLUDED_


#include "ngx_agent_pg.h"


/*
 * The order is the order in which a batch takes its locks: what inserts a
 * step before what updates one.
 */

typedef enum {
    NGX_AGENT_SQL_CREATE_TASK = 0,
    NGX_AGENT_SQL_CREATE_TASK_AGAIN,
    NGX_AGENT_SQL_CREATE_TASK_MORE,
    NGX_AGENT_SQL_CREATE_ARTIFACT,
    NGX_AGENT_SQL_CREATE_ARTIFACT_KEYED,
    NGX_AGENT_SQL_BEGIN_STEP,
    NGX_AGENT_SQL_QUEUE_STEP,
    NGX_AGENT_SQL_QUEUE_STEP_KEYED,
    NGX_AGENT_SQL_END_STEP,
    NGX_AGENT_SQL_END_STEP_MORE,
    NGX_AGENT_SQL_RETRY_STEP,
    NGX_AGENT_SQL_REQUEUE_STEP,
    NGX_AGENT_SQL_CLAIM,
    NGX_AGENT_SQL_RENEW,
    NGX_AGENT_SQL_SWEEP,
    NGX_AGENT_SQL_BURY,
    NGX_AGENT_SQL_ORPHANS,
    NGX_AGENT_SQL_EXPIRE,
    NGX_AGENT_SQL_CANCEL,
    NGX_AGENT_SQL_DELETE_TASK,
    NGX_AGENT_SQL_REGISTER,
    NGX_AGENT_SQL_MARK,
    NGX_AGENT_SQL_REPLAN,
    NGX_AGENT_SQL_ENTER,

    /* from here on the reader's */
    NGX_AGENT_SQL_NEIGHBOURS,
    NGX_AGENT_SQL_DEPTH,
    NGX_AGENT_SQL_GET_TASK,
    NGX_AGENT_SQL_LIST_TASKS,
    NGX_AGENT_SQL_GET_STEP,
    NGX_AGENT_SQL_LIST_STEPS,
    NGX_AGENT_SQL_HISTORY,
    NGX_AGENT_SQL_GET_ARTIFACT,
    NGX_AGENT_SQL_FIND_ARTIFACT,
    NGX_AGENT_SQL_LIST_ARTIFACTS,
    NGX_AGENT_SQL_LOOK,
    NGX_AGENT_SQL_LINES,
    NGX_AGENT_SQL_TASK_AGENT,
    NGX_AGENT_SQL_USAGE,
    NGX_AGENT_SQL_GET_TRACE,
    NGX_AGENT_SQL_LIST_TASKS_OF,
    NGX_AGENT_SQL_GET_KEY,
    NGX_AGENT_SQL_KEY_CHANGES,
    NGX_AGENT_SQL_N
} ngx_agent_sql_e;


extern const ngx_agent_pg_stmt_t  ngx_agent_store_sql_writes[];
extern const ngx_agent_pg_stmt_t  ngx_agent_store_sql_reads[];

/* run on each new connection; its last result is the schema's version */
extern const char  ngx_agent_store_setup[];

/* the same through a pooler, where settings would leak to others */
extern const char  ngx_agent_store_setup_pooled[];

/* hears the news of other sessions */
extern const char  ngx_agent_store_listen[];


#endif /* _NGX_AGENT_STORE_SQL_H_INCLUDED_ */
