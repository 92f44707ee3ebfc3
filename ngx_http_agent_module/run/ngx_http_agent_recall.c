
/*
 * What a run reads from the store before its first call: the history of its
 * task, and what else the dialect needs.  HISTORY is the run's state all the
 * while; what comes of it is decided in ngx_http_agent_run.c.
 */

#include "ngx_http_agent_dialect.h"


/* a database that is away for long comes back to another attempt */
#define NGX_HTTP_AGENT_RECALL_TRIES  20         /* of reading the same */
#define NGX_HTTP_AGENT_RECALL_PAUSE  500        /* ms */


static ngx_int_t ngx_http_agent_recall_ask(ngx_http_agent_run_t *run);
static void ngx_http_agent_recall_read(ngx_agent_store_call_t *call);
static void ngx_http_agent_recall_failed(ngx_http_agent_run_t *run,
    ngx_int_t rc);


void
ngx_http_agent_run_remember(ngx_http_agent_run_t *run)
{
    ngx_int_t  rc;

    run->tries++;

    rc = ngx_http_agent_recall_ask(run);

    if (rc != NGX_AGAIN) {
        ngx_http_agent_recall_failed(run, rc);
    }
}


static ngx_int_t
ngx_http_agent_recall_ask(ngx_http_agent_run_t *run)
{
    ngx_int_t                rc;
    ngx_agent_live_t        *live;
    ngx_agent_store_call_t  *call;

    live = run->live;

    call = ngx_agent_store_call_create(4096, live->log,
                                       ngx_http_agent_recall_read);
    if (call == NULL) {
        return NGX_ERROR;
    }

    call->data = run;
    call->tenant = live->tenant;
    call->task = &live->task;
    call->step = &live->step;

    rc = run->dialect->recall ? run->dialect->recall(run, call)
                              : ngx_agent_store_history(call);

    if (rc == NGX_AGAIN) {
        run->call = call;
        run->history = call->pool;
        return NGX_AGAIN;
    }

    ngx_destroy_pool(call->pool);

    return rc;
}


static void
ngx_http_agent_recall_read(ngx_agent_store_call_t *call)
{
    ngx_int_t              rc;
    ngx_pool_t            *pool;
    ngx_http_agent_run_t  *run;

    run = call->data;
    run->call = NULL;

    rc = call->rc;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, run->live->log, 0,
                   "agent run: history, rc:%i", rc);

    if (rc == NGX_OK) {
        rc = run->dialect->recalled ? run->dialect->recalled(run, call)
                                    : ngx_http_agent_run_build(run,
                                                               call->list);
    }

    /* the texts are copied; the call was in this pool, too */

    pool = run->history;
    run->history = NULL;
    ngx_destroy_pool(pool);

    if (rc == NGX_AGAIN) {
        run->tries = 0;
        ngx_http_agent_run_remember(run);
        return;
    }

    if (rc != NGX_OK) {
        ngx_http_agent_recall_failed(run, rc);
        return;
    }

    ngx_http_agent_run_call(run);
}


/* A database that is away gets time: the end could not be saved either. */

static void
ngx_http_agent_recall_failed(ngx_http_agent_run_t *run, ngx_int_t rc)
{
    if (rc == NGX_ABORT && run->tries < NGX_HTTP_AGENT_RECALL_TRIES) {
        ngx_add_timer(&run->timer, NGX_HTTP_AGENT_RECALL_PAUSE);
        return;
    }

    ngx_http_agent_run_reason(run, "the history could not be read",
                              "the history of the task could not be read %s; "
                              "try again",
                              rc == NGX_ABORT ? "from the database, which is "
                                                "not reachable"
                                              : "by the server");

    ngx_http_agent_run_move(run, NGX_HTTP_AGENT_RUN_FAIL);
}
