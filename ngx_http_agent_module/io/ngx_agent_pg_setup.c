
/*
 * A new connection is made fit for batches: settings, LISTEN, the schema's
 * version, then pipeline mode and the statements.  What it is told to send
 * it knows from its owner; sockets and timers are ngx_agent_pg_conn.c's.
 */

#include "ngx_agent_pg_conn.h"


static int ngx_agent_pg_conn_ask(ngx_agent_pg_conn_t *pc);
static void ngx_agent_pg_conn_prepare(ngx_agent_pg_conn_t *pc);


void
ngx_agent_pg_conn_setup(ngx_agent_pg_conn_t *pc)
{
    ngx_agent_pg_conn_move(pc, NGX_AGENT_PG_SETUP);

    if (ngx_agent_pg_conn_ask(pc) != 1
        || ngx_agent_pg_conn_flush(pc) != NGX_OK)
    {
        ngx_agent_pg_conn_failed(pc, PQerrorMessage(pc->pg));
    }
}


/*
 * LISTEN has to be said here: the extended protocol of the pipeline takes it
 * as well, but then it would be a call that somebody has to repeat.
 */

static int
ngx_agent_pg_conn_ask(ngx_agent_pg_conn_t *pc)
{
    int     rc;
    char   *text;
    size_t  size;

    if (pc->listen == NULL) {
        return PQsendQuery(pc->pg, pc->setup);
    }

    size = ngx_strlen(pc->listen) + ngx_strlen(pc->setup) + 1;

    text = ngx_alloc(size, pc->log);
    if (text == NULL) {
        return 0;
    }

    (void) ngx_snprintf((u_char *) text, size, "%s%s%Z", pc->listen,
                        pc->setup);

    /* libpq copies it */
    rc = PQsendQuery(pc->pg, text);

    ngx_free(text);

    return rc;
}


/* of several results the last one that has a row is the version */

void
ngx_agent_pg_conn_setup_result(ngx_agent_pg_conn_t *pc, PGresult *res)
{
    ngx_int_t    version;
    const char  *value, *state;

    if (res == NULL) {
        if (pc->broken) {
            ngx_agent_pg_conn_failed(pc, NULL);
            return;
        }

        ngx_agent_pg_conn_prepare(pc);
        return;
    }

    if (PQresultStatus(res) == PGRES_TUPLES_OK && PQntuples(res) == 1
        && PQnfields(res) == 1)
    {
        value = PQgetvalue(res, 0, 0);
        version = ngx_atoi((u_char *) value, ngx_strlen(value));

        if (version != (ngx_int_t) pc->version) {
            pc->broken = 1;

            if (pc->failures % NGX_AGENT_PG_REPEAT == 0) {
                ngx_log_error(NGX_LOG_ERR, pc->log, 0,
                              "agent pg: %s: schema \"agent\" has version "
                              "%i, this module needs %ui: load the files of "
                              "sql/", pc->role,
                              version == NGX_ERROR ? 0 : version,
                              pc->version);
            }
        }

    } else if (PQresultStatus(res) == PGRES_FATAL_ERROR) {
        state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
        value = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
        pc->broken = 1;

        if (pc->failures % NGX_AGENT_PG_REPEAT) {
            return;
        }

        ngx_log_error(NGX_LOG_ERR, pc->log, 0,
                      "agent pg: %s: the database is not set up: %s (%s)"
                      "%s", pc->role, value ? value : "unknown",
                      state ? state : "-",
                      state && (ngx_strcmp(state, "42P01") == 0
                                || ngx_strcmp(state, "3F000") == 0)
                      ? ", load the files of sql/" : "");
    }
}


static void
ngx_agent_pg_conn_prepare(ngx_agent_pg_conn_t *pc)
{
    ngx_uint_t                  i;
    const ngx_agent_pg_stmt_t  *st;

    ngx_agent_pg_conn_move(pc, NGX_AGENT_PG_PREPARING);

    if (PQenterPipelineMode(pc->pg) != 1) {
        ngx_agent_pg_conn_failed(pc, PQerrorMessage(pc->pg));
        return;
    }

    if (!pc->prepared) {
        ngx_agent_pg_conn_up(pc);
        return;
    }

    for (i = 0; i < pc->nstmts; i++) {
        st = &pc->stmts[i];

        /* types are inferred: every parameter is cast in the text */

        if (PQsendPrepare(pc->pg, st->name, st->sql, 0, NULL) != 1) {
            ngx_agent_pg_conn_failed(pc, PQerrorMessage(pc->pg));
            return;
        }
    }

    if (ngx_agent_pg_conn_sync(pc) != NGX_OK
        || ngx_agent_pg_conn_flush(pc) != NGX_OK)
    {
        ngx_agent_pg_conn_failed(pc, PQerrorMessage(pc->pg));
    }
}


void
ngx_agent_pg_conn_prepare_result(ngx_agent_pg_conn_t *pc, PGresult *res)
{
    const char  *text;

    if (res == NULL) {
        return;
    }

    switch (PQresultStatus(res)) {

    case PGRES_PIPELINE_SYNC:

        if (pc->broken) {
            ngx_agent_pg_conn_failed(pc, NULL);
            return;
        }

        ngx_agent_pg_conn_up(pc);
        return;

    case PGRES_FATAL_ERROR:
        text = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
        pc->broken = 1;

        if (pc->failures % NGX_AGENT_PG_REPEAT == 0) {
            ngx_log_error(NGX_LOG_ERR, pc->log, 0,
                          "agent pg: %s: cannot prepare: %s", pc->role,
                          text ? text : "unknown");
        }

        return;

    default:
        return;
    }
}
