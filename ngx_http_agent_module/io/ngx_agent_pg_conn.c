
/*
 * One libpq connection as nginx events.  The socket is libpq's: nginx only
 * waits on it, level-triggered, and libpq alone reads, writes and closes it.
 */

#include "ngx_agent_pg_conn.h"
#include "ngx_agent_stat.h"
#include <ngx_event.h>
#include <sys/stat.h>


#define NGX_AGENT_PG_CONNECT_TIMEOUT  5000
#define NGX_AGENT_PG_BACKOFF_MIN      50
#define NGX_AGENT_PG_BACKOFF_MAX      1000

/*
 * OpenSSL comes with libpq, if at all: this works in an nginx built without
 * it, and without its headers.
 */
struct ssl_st;
extern int SSL_pending(const struct ssl_st *ssl) __attribute__((weak));


static void ngx_agent_pg_conn_start(ngx_agent_pg_conn_t *pc);
static void ngx_agent_pg_conn_poll(ngx_agent_pg_conn_t *pc);
static ngx_int_t ngx_agent_pg_conn_wrap(ngx_agent_pg_conn_t *pc);
static void ngx_agent_pg_conn_unwrap(ngx_agent_pg_conn_t *pc);
static ngx_int_t ngx_agent_pg_conn_want_write(ngx_agent_pg_conn_t *pc,
    ngx_uint_t on);
static void ngx_agent_pg_conn_io(ngx_event_t *ev);
static ngx_int_t ngx_agent_pg_conn_input(ngx_agent_pg_conn_t *pc);
static void ngx_agent_pg_conn_results(ngx_agent_pg_conn_t *pc);
static void ngx_agent_pg_conn_news(ngx_agent_pg_conn_t *pc);
static void ngx_agent_pg_conn_result(ngx_agent_pg_conn_t *pc, PGresult *res);
static void ngx_agent_pg_conn_log(ngx_agent_pg_conn_t *pc,
    ngx_uint_t was_ready, const char *why);
static void ngx_agent_pg_conn_drop(ngx_agent_pg_conn_t *pc);
static void ngx_agent_pg_conn_timer(ngx_event_t *ev);
static void ngx_agent_pg_conn_notice(void *data, const PGresult *res);


static const char  *ngx_agent_pg_state_names[] = {
    "down", "connecting", "setting up", "preparing", "ready"
};


void
ngx_agent_pg_conn_open(ngx_agent_pg_conn_t *pc)
{
    pc->timer.handler = ngx_agent_pg_conn_timer;
    pc->timer.data = pc;
    pc->timer.log = pc->log;
    pc->backoff = NGX_AGENT_PG_BACKOFF_MIN;

    ngx_agent_pg_conn_start(pc);
}


void
ngx_agent_pg_conn_close(ngx_agent_pg_conn_t *pc)
{
    if (pc->timer.timer_set) {
        ngx_del_timer(&pc->timer);
    }

    ngx_agent_pg_conn_drop(pc);
}


/* the only place that changes pc->state */

void
ngx_agent_pg_conn_move(ngx_agent_pg_conn_t *pc, ngx_agent_pg_state_e state)
{
    ngx_log_debug3(NGX_LOG_DEBUG_CORE, pc->log, 0,
                   "agent pg: %s: %s -> %s", pc->role,
                   ngx_agent_pg_state_names[pc->state],
                   ngx_agent_pg_state_names[state]);

    if (state != NGX_AGENT_PG_DOWN && state != pc->state + 1) {
        ngx_log_error(NGX_LOG_ERR, pc->log, 0,
                      "agent pg: %s: illegal move from \"%s\" to \"%s\"",
                      pc->role, ngx_agent_pg_state_names[pc->state],
                      ngx_agent_pg_state_names[state]);
    }

    pc->state = state;
    *pc->shown = state;
}


static void
ngx_agent_pg_conn_start(ngx_agent_pg_conn_t *pc)
{
    ngx_agent_pg_conn_move(pc, NGX_AGENT_PG_CONNECTING);

    pc->broken = 0;
    pc->flushing = 0;

    pc->pg = ngx_agent_pg_connect(pc->target, pc->rotate, pc->log);
    if (pc->pg == NULL) {
        ngx_agent_pg_conn_failed(pc, "no memory");
        return;
    }

    if (PQstatus(pc->pg) == CONNECTION_BAD
        || PQsetnonblocking(pc->pg, 1) != 0)
    {
        ngx_agent_pg_conn_failed(pc, PQerrorMessage(pc->pg));
        return;
    }

    (void) PQsetNoticeReceiver(pc->pg, ngx_agent_pg_conn_notice, pc);

    ngx_add_timer(&pc->timer, NGX_AGENT_PG_CONNECT_TIMEOUT);

    /* libpq: behave at first as if PQconnectPoll() had said WRITING */

    if (ngx_agent_pg_conn_wrap(pc) != NGX_OK
        || ngx_agent_pg_conn_want_write(pc, 1) != NGX_OK)
    {
        ngx_agent_pg_conn_failed(pc, "cannot wait on the socket");
    }
}


static void
ngx_agent_pg_conn_poll(ngx_agent_pg_conn_t *pc)
{
    PostgresPollingStatusType  rc;

    rc = PQconnectPoll(pc->pg);

    if (rc == PGRES_POLLING_FAILED) {
        ngx_agent_pg_conn_failed(pc, PQerrorMessage(pc->pg));
        return;
    }

    /* with several hosts, or after a refused SSL, it is another socket now */

    if (ngx_agent_pg_conn_wrap(pc) != NGX_OK
        || ngx_agent_pg_conn_want_write(pc, rc == PGRES_POLLING_WRITING)
           != NGX_OK)
    {
        ngx_agent_pg_conn_failed(pc, "cannot wait on the socket");
        return;
    }

    if (rc == PGRES_POLLING_OK) {
        ngx_agent_pg_conn_setup(pc);
    }
}


/*
 * Makes pc->c wait on libpq's present socket.  A socket that libpq closed has
 * left epoll by itself, and the new one may have the old one's number, so the
 * inode tells them apart.
 */

static ngx_int_t
ngx_agent_pg_conn_wrap(ngx_agent_pg_conn_t *pc)
{
    int                fd;
    struct stat        st;
    ngx_connection_t  *c;

    fd = PQsocket(pc->pg);

    if (fd < 0 || fstat(fd, &st) != 0) {
        return NGX_ERROR;
    }

    if (pc->c) {
        if (pc->c->fd == fd && pc->ino == st.st_ino) {
            return NGX_OK;
        }

        ngx_agent_pg_conn_unwrap(pc);
    }

    c = ngx_get_connection(fd, pc->log);
    if (c == NULL) {
        return NGX_ERROR;
    }

    c->shared = 1;              /* the fd is libpq's to close */
    c->data = pc;
    c->log = pc->log;
    c->read->log = pc->log;
    c->write->log = pc->log;
    c->read->handler = ngx_agent_pg_conn_io;
    c->write->handler = ngx_agent_pg_conn_io;
    c->number = ngx_atomic_fetch_add(ngx_connection_counter, 1);

    pc->c = c;
    pc->ino = st.st_ino;

    return ngx_add_event(c->read, NGX_READ_EVENT, 0);
}


static void
ngx_agent_pg_conn_unwrap(ngx_agent_pg_conn_t *pc)
{
    ngx_close_connection(pc->c);
    pc->c = NULL;
}


static ngx_int_t
ngx_agent_pg_conn_want_write(ngx_agent_pg_conn_t *pc, ngx_uint_t on)
{
    ngx_event_t  *wev;

    wev = pc->c->write;

    if (on && !wev->active) {
        return ngx_add_event(wev, NGX_WRITE_EVENT, 0);
    }

    if (!on && wev->active) {
        return ngx_del_event(wev, NGX_WRITE_EVENT, 0);
    }

    return NGX_OK;
}


void
ngx_agent_pg_conn_up(ngx_agent_pg_conn_t *pc)
{
    const char  *host;

    ngx_agent_pg_conn_move(pc, NGX_AGENT_PG_READY);

    if (pc->timer.timer_set) {
        ngx_del_timer(&pc->timer);
    }

    pc->up = ngx_current_msec;
    pc->failures = 0;
    ngx_agent_stat_add(CONNECTS, 1);

    host = PQhost(pc->pg);

    ngx_log_error(NGX_LOG_NOTICE, pc->log, 0,
                  "agent pg: %s connected to \"%s\" port %s%s", pc->role,
                  host ? host : "", PQport(pc->pg),
                  PQsslInUse(pc->pg) ? " by TLS" : "");

    pc->ready(pc->owner);
}


static void
ngx_agent_pg_conn_io(ngx_event_t *ev)
{
    ngx_connection_t     *c;
    ngx_agent_pg_conn_t  *pc;

    c = ev->data;
    pc = c->data;

    if (pc->state == NGX_AGENT_PG_CONNECTING) {
        ngx_agent_pg_conn_poll(pc);
        return;
    }

    if (ngx_agent_pg_conn_input(pc) != NGX_OK
        || ngx_agent_pg_conn_flush(pc) != NGX_OK)
    {
        /* results that came before the end still count */
        ngx_agent_pg_conn_results(pc);

        if (pc->pg) {
            ngx_agent_pg_conn_failed(pc, PQerrorMessage(pc->pg));
        }

        return;
    }

    ngx_agent_pg_conn_results(pc);
}


/* what TLS has decrypted and libpq not read yet, no epoll would ever tell */

static ngx_int_t
ngx_agent_pg_conn_input(ngx_agent_pg_conn_t *pc)
{
    struct ssl_st  *ssl;

    ssl = SSL_pending ? PQsslStruct(pc->pg, "OpenSSL") : NULL;

    for ( ;; ) {

        if (PQconsumeInput(pc->pg) != 1) {
            return NGX_ERROR;
        }

        if (ssl == NULL || SSL_pending(ssl) <= 0) {
            return NGX_OK;
        }
    }
}


/*
 * A zero from PQisBusy() covers one PQgetResult() only.  In pipeline mode a
 * NULL stands between the results of two statements, and for ever when there
 * is nothing left, so two in a row end the loop.
 */

static void
ngx_agent_pg_conn_results(ngx_agent_pg_conn_t *pc)
{
    PGconn      *pg;
    PGresult    *res;
    ngx_uint_t   nulls;

    pg = pc->pg;
    nulls = 0;

    while (pc->pg == pg && pc->state >= NGX_AGENT_PG_SETUP
           && nulls < 2 && !PQisBusy(pg))
    {
        res = PQgetResult(pg);

        if (res == NULL) {
            nulls++;

            if (pc->state == NGX_AGENT_PG_SETUP) {
                ngx_agent_pg_conn_setup_result(pc, NULL);
            }

            continue;
        }

        nulls = 0;
        ngx_agent_pg_conn_result(pc, res);
    }

    if (pc->pg == pg) {
        ngx_agent_pg_conn_news(pc);
    }
}


/*
 * At the end of an event, when no batch is being walked.  libpq reads them
 * with the results and keeps them in a list of its own, so they have come
 * also in the middle of a batch that is not yet answered.
 */

static void
ngx_agent_pg_conn_news(ngx_agent_pg_conn_t *pc)
{
    PGconn    *pg;
    PGnotify  *notify;

    pg = pc->pg;

    while (pc->pg == pg && (notify = PQnotifies(pg)) != NULL) {

        ngx_log_debug2(NGX_LOG_DEBUG_CORE, pc->log, 0,
                       "agent pg: %s hears \"%s\"", pc->role,
                       notify->relname);

        if (pc->news) {
            pc->news(notify->relname, notify->extra);
        }

        PQfreemem(notify);
    }
}


static void
ngx_agent_pg_conn_result(ngx_agent_pg_conn_t *pc, PGresult *res)
{
    switch (pc->state) {

    case NGX_AGENT_PG_SETUP:
        ngx_agent_pg_conn_setup_result(pc, res);
        PQclear(res);
        break;

    case NGX_AGENT_PG_PREPARING:
        ngx_agent_pg_conn_prepare_result(pc, res);
        PQclear(res);
        break;

    default: /* READY */
        pc->result(pc->owner, res);
        break;
    }
}


ngx_int_t
ngx_agent_pg_conn_send(ngx_agent_pg_conn_t *pc, ngx_uint_t stmt,
    ngx_uint_t nparams, const char *const *values, const int *lengths)
{
    int                         rc;
    ngx_uint_t                  i;
    const ngx_agent_pg_stmt_t  *st;

    static int                  binary[NGX_AGENT_PG_PARAMS];

    st = &pc->stmts[stmt];

    if (binary[0] == 0) {
        for (i = 0; i < NGX_AGENT_PG_PARAMS; i++) {
            binary[i] = 1;
        }
    }

    if (pc->prepared) {
        rc = PQsendQueryPrepared(pc->pg, st->name, (int) nparams, values,
                                 lengths, binary, 1);
    } else {
        rc = PQsendQueryParams(pc->pg, st->sql, (int) nparams, NULL, values,
                               lengths, binary, 1);
    }

    return rc == 1 ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_agent_pg_conn_sync(ngx_agent_pg_conn_t *pc)
{
    return PQpipelineSync(pc->pg) == 1 ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_agent_pg_conn_flush(ngx_agent_pg_conn_t *pc)
{
    int  rc;

    rc = PQflush(pc->pg);

    if (rc < 0) {
        return NGX_ERROR;
    }

    return ngx_agent_pg_conn_want_write(pc, rc == 1);
}


void
ngx_agent_pg_conn_reset(ngx_agent_pg_conn_t *pc, const char *why)
{
    if (pc->state == NGX_AGENT_PG_DOWN) {
        return;
    }

    ngx_agent_pg_conn_failed(pc, why);
}


/*
 * The end of a connection or of an attempt: says why (NULL: it was said),
 * tells the owner, and waits a little before the next attempt.
 */

void
ngx_agent_pg_conn_failed(ngx_agent_pg_conn_t *pc, const char *why)
{
    ngx_msec_t  delay;
    ngx_uint_t  was_ready;

    was_ready = (pc->state == NGX_AGENT_PG_READY);

    if (why && *why
        && (was_ready || pc->failures % NGX_AGENT_PG_REPEAT == 0))
    {
        ngx_agent_pg_conn_log(pc, was_ready, why);
    }

    ngx_agent_pg_conn_drop(pc);
    ngx_agent_pg_conn_move(pc, NGX_AGENT_PG_DOWN);

    pc->failures++;

    /* one that broke at once, as on a standby, is no success */

    if (was_ready && ngx_current_msec - pc->up > NGX_AGENT_PG_BACKOFF_MAX) {
        pc->backoff = NGX_AGENT_PG_BACKOFF_MIN;
    }

    delay = pc->backoff / 2 + ngx_random() % (pc->backoff / 2 + 1);
    pc->backoff = ngx_min(pc->backoff * 2, NGX_AGENT_PG_BACKOFF_MAX);

    ngx_add_timer(&pc->timer, delay);

    if (was_ready) {
        ngx_agent_stat_add(LOSSES, 1);
        pc->lost(pc->owner);
    }
}


/* libpq's words can have several lines, one for each host */

static void
ngx_agent_pg_conn_log(ngx_agent_pg_conn_t *pc, ngx_uint_t was_ready,
    const char *why)
{
    u_char      *p, *last, text[512];
    ngx_uint_t   level;

    last = ngx_cpystrn(text, (u_char *) why, sizeof(text));

    while (last > text && (last[-1] == '\n' || last[-1] == ' ')) {
        *--last = '\0';
    }

    for (p = text; p < last; p++) {
        if (*p == '\n' || *p == '\t') {
            *p = ' ';
        }
    }

    level = was_ready ? NGX_LOG_ERR : NGX_LOG_WARN;

    ngx_log_error(level, pc->log, 0, "agent pg: %s %s: %s", pc->role,
                  was_ready ? "lost its connection"
                            : "cannot connect, will try again", text);
}


static void
ngx_agent_pg_conn_drop(ngx_agent_pg_conn_t *pc)
{
    if (pc->timer.timer_set) {
        ngx_del_timer(&pc->timer);
    }

    if (pc->c) {
        ngx_agent_pg_conn_unwrap(pc);
    }

    if (pc->pg) {
        PQfinish(pc->pg);
        pc->pg = NULL;
    }
}


static void
ngx_agent_pg_conn_timer(ngx_event_t *ev)
{
    ngx_agent_pg_conn_t  *pc;

    pc = ev->data;

    if (pc->state == NGX_AGENT_PG_DOWN) {

        if (ngx_exiting && !pc->busy) {
            return;
        }

        ngx_agent_pg_conn_start(pc);
        return;
    }

    pc->rotate++;
    ngx_agent_pg_conn_failed(pc, "timed out");
}


void
ngx_agent_pg_conn_busy(ngx_agent_pg_conn_t *pc, ngx_uint_t busy,
    ngx_uint_t holds)
{
    pc->busy = busy;
    pc->holds = holds;
    pc->timer.cancelable = !holds;

    /* a worker that quits had given up connecting, and needs it after all */

    if (busy && pc->state == NGX_AGENT_PG_DOWN && !pc->timer.timer_set) {
        ngx_add_timer(&pc->timer, pc->backoff);
    }
}


/* otherwise libpq would print it to stderr */

static void
ngx_agent_pg_conn_notice(void *data, const PGresult *res)
{
    ngx_agent_pg_conn_t  *pc = data;

    const char  *text;

    text = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);

    ngx_log_error(NGX_LOG_INFO, pc->log, 0, "agent pg: %s: notice: %s",
                  pc->role, text ? text : "");
}
