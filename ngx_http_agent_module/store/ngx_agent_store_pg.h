
/*
 * Shared by the files of the Postgres store: how a call of the store becomes
 * a call of io/, and how rows become nouns.
 */

#ifndef _NGX_AGENT_STORE_PG_H_INCLUDED_
#define _NGX_AGENT_STORE_PG_H_INCLUDED_


#include "ngx_agent_store.h"
#include "ngx_agent_store_sql.h"


/*
 * Takes the rows of a call that went well and fills the call's results in:
 * returns the rc for the caller, or NGX_AGAIN when it has sent another
 * statement for the same call.
 */
typedef ngx_int_t (*ngx_agent_store_rows_pt)(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);


/* A call for the statement, in call->pool; NULL: no memory. */
ngx_agent_pg_call_t *ngx_agent_store_call(ngx_agent_store_call_t *call,
    ngx_agent_sql_e stmt, const ngx_agent_id_t *key,
    ngx_agent_store_rows_pt rows);

/* The same for one that is about the rows of every tenant. */
ngx_agent_pg_call_t *ngx_agent_store_call_all(ngx_agent_store_call_t *call,
    ngx_agent_sql_e stmt, ngx_agent_store_rows_pt rows);

/* Makes one for a page of what the task has, and sends it. */
ngx_int_t ngx_agent_store_list(ngx_agent_store_call_t *call,
    ngx_agent_sql_e stmt, ngx_agent_store_rows_pt rows);

/* Three parameters: how many rows to skip, how many to send, newest first. */
void ngx_agent_store_page(ngx_agent_pg_call_t *pg, ngx_agent_page_t *page);

/* Sends it; a call that is NULL is NGX_ABORT. */
ngx_int_t ngx_agent_store_send(ngx_agent_pg_call_t *pg);

/* What the text column holds, copied into call->pool. */
ngx_int_t ngx_agent_store_text(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows, ngx_uint_t i, int col, ngx_str_t *s);

/* The same for several columns side by side, into strings given in order. */
ngx_int_t ngx_agent_store_texts(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows, ngx_uint_t i, int col, ngx_uint_t n,
    ngx_str_t *s[]);

/* The id as the next parameter, or null. */
void ngx_agent_store_id_or_null(ngx_agent_pg_call_t *pg,
    const ngx_agent_id_t *id);


/* A text that is null when it is empty. */
void ngx_agent_store_text_or_null(ngx_agent_pg_call_t *pg, ngx_str_t *s);


/* what the statements with a key say in their third column, "state" */

typedef enum {
    NGX_AGENT_KEY_MADE = 0,
    NGX_AGENT_KEY_USED,         /* the row's id is what it made before */
    NGX_AGENT_KEY_OTHER,        /* ... for another request */
    NGX_AGENT_KEY_AGAIN,        /* taken just now: send the statement again */
    NGX_AGENT_KEY_NOWHERE,      /* no such task */
    NGX_AGENT_KEY_CAREFUL = 8,  /* it takes the statement for all cases */
    NGX_AGENT_KEY_QUOTA = 20    /* from here on: and ngx_agent_quota_e */
} ngx_agent_key_e;

/*
 * Verdict "state" says that the tenant is over a limit, and column col has its
 * value: NGX_BUSY with call->quota and quota_max set; NGX_OK: it does not;
 * NGX_ERROR.
 */
ngx_int_t ngx_agent_store_quota(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows, ngx_int_t state, int col);

/* The state, and call->replayed and mismatch set by it. */
ngx_agent_key_e ngx_agent_store_keyed(ngx_agent_store_call_t *call,
    ngx_agent_pg_rows_t *rows);

/* Turns a list round, for pages with the newest first. */
void ngx_agent_store_reverse(ngx_array_t *list);

/* what traces have in common; known: it is on record */
extern ngx_str_t                ngx_agent_store_trace_mark;
extern ngx_str_t                ngx_agent_store_trace_part;
extern ngx_uint_t               ngx_agent_store_trace_known;

/* what this process calls itself in agent.step.owner, and its host */
extern ngx_str_t                ngx_agent_store_owner;
extern ngx_str_t                ngx_agent_store_host;
extern int64_t                  ngx_agent_store_born;
extern ngx_agent_store_conf_t  *ngx_agent_store_conf;

/* ngx_agent_store_mark.c: page marks of a tenant are behind; makes some */
void ngx_agent_store_mark(ngx_str_t *tenant, ngx_log_t *log);
void ngx_agent_store_mark_exit(void);


#endif /* _NGX_AGENT_STORE_PG_H_INCLUDED_ */
