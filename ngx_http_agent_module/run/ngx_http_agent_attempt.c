
/*
 * One call of a run to its agent: sent, watched for silence, its answer given
 * to the dialect as it comes, and the words for it when it fails.  What
 * follows from it is decided in ngx_http_agent_run.c.
 */

#include "ngx_http_agent_dialect.h"
#include "ngx_agent_stat.h"


/* of a Retry-After, ms: who waits for long does so in the queue */
#define NGX_HTTP_AGENT_RUN_AFTER_MAX   3600000

#define NGX_HTTP_AGENT_RUN_LINGER      1000     /* for the end of a complete
                                                   answer's connection */


static void ngx_http_agent_attempt_header(void *data, ngx_http_request_t *sr);
static ngx_int_t ngx_http_agent_attempt_ask(ngx_http_agent_run_t *run,
    ngx_http_agent_fake_conf_t *conf);
static ngx_msec_t ngx_http_agent_attempt_retry_after(ngx_http_request_t *sr);
static void ngx_http_agent_attempt_new_answer(ngx_http_agent_run_t *run);
static ngx_int_t ngx_http_agent_attempt_body(void *data, u_char *p, size_t n);
static void ngx_http_agent_attempt_refusal(ngx_http_agent_run_t *run,
    u_char *p, size_t n);
static ngx_uint_t ngx_http_agent_attempt_refused(ngx_http_agent_run_t *run);


static const ngx_http_agent_fake_handlers_t  ngx_http_agent_attempt_handlers = {
    ngx_http_agent_attempt_header,
    ngx_http_agent_attempt_body,
    ngx_http_agent_run_called
};


ngx_int_t
ngx_http_agent_attempt_start(ngx_http_agent_run_t *run)
{
    u_char                       buf[NGX_AGENT_TRACEPARENT_LEN];
    ngx_int_t                    rc;
    ngx_agent_live_t            *live;
    ngx_http_agent_fake_conf_t   conf;

    live = run->live;

    run->status = 0;
    run->retry_after = 0;
    run->silent = 0;
    run->full = 0;
    run->ready = 0;
    run->nomem = 0;
    run->complete = 0;

    rc = ngx_http_agent_attempt_ask(run, &conf);
    if (rc != NGX_OK) {
        return rc;
    }

    /* a file gets a second more for each megabyte, as nobody tells how far
       it has got */

    ngx_add_timer(&run->timer, live->agent->timeout
                               + (ngx_msec_t) (conf.size / 1024));

    conf.server_ctx = live->agent->server_ctx;
    conf.body = run->body;
    conf.tail = run->tail;
    conf.task_id = &live->task.id;
    conf.step_id = &live->step.id;
    conf.agent = live->agent->name;
    conf.tenant = live->tenant;
    conf.attempt = live->step.attempt;
    conf.traceparent.data = buf;
    conf.traceparent.len = 0;
    conf.log = live->log;
    conf.handlers = &ngx_http_agent_attempt_handlers;
    conf.data = run;

    if (ngx_agent_traceparent_child(&live->step.traceparent, buf) == NGX_OK) {
        conf.traceparent.len = NGX_AGENT_TRACEPARENT_LEN;
    }

    ngx_http_agent_trace_start(run, &conf);

    run->fake = ngx_http_agent_fake_call(&conf);

    if (run->fake == NULL) {
        ngx_del_timer(&run->timer);

        ngx_http_agent_run_reason(run, "no free connection or no memory",
                                  "the server had no free connection or no "
                                  "memory for a call to agent \"%V\"",
                                  &live->agent->name);
        return NGX_ERROR;
    }

    ngx_agent_stat_add(CALLS, 1);

    if (ngx_agent_step_spent(live) > 1 && !run->more) {
        ngx_agent_stat_add(RETRIES, 1);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_attempt_ask(ngx_http_agent_run_t *run,
    ngx_http_agent_fake_conf_t *conf)
{
    ngx_memzero(conf, sizeof(ngx_http_agent_fake_conf_t));

    conf->pass = run->live->agent->pass;
    conf->file = NGX_INVALID_FILE;

    return run->dialect->ask ? run->dialect->ask(run, conf) : NGX_OK;
}


/* From the header filter, in the middle of nginx's work: only notes. */

static void
ngx_http_agent_attempt_header(void *data, ngx_http_request_t *sr)
{
    ngx_http_agent_run_t *run = data;

    run->status = sr->headers_out.status;
    run->retry_after = ngx_http_agent_attempt_retry_after(sr);

    ngx_add_timer(&run->timer, run->live->agent->timeout);

    ngx_http_agent_trace_header(run);
    ngx_http_agent_attempt_new_answer(run);
}


/* Seconds or a date (RFC 9110 section 10.2.3); 0: none, or one gone by. */

static ngx_msec_t
ngx_http_agent_attempt_retry_after(ngx_http_request_t *sr)
{
    time_t            when;
    ngx_int_t         n;
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    part = &sr->headers_out.headers.part;
    h = part->elts;

    for (i = 0; /* void */; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return 0;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].hash && h[i].key.len == sizeof("Retry-After") - 1
            && ngx_strncasecmp(h[i].key.data, (u_char *) "Retry-After",
                               sizeof("Retry-After") - 1)
               == 0)
        {
            break;
        }
    }

    n = ngx_atoi(h[i].value.data, h[i].value.len);

    if (n == NGX_ERROR) {
        when = ngx_parse_http_time(h[i].value.data, h[i].value.len);

        if (when == NGX_ERROR || when <= ngx_time()) {
            return 0;
        }

        n = when - ngx_time();
    }

    return ngx_min((ngx_msec_t) n, NGX_HTTP_AGENT_RUN_AFTER_MAX / 1000) * 1000;
}


/* An internal redirect begins a new answer: what came before is dropped. */

static void
ngx_http_agent_attempt_new_answer(ngx_http_agent_run_t *run)
{
    if (run->pool) {
        ngx_destroy_pool(run->pool);
    }

    run->answer = NULL;
    run->refusal = NULL;
    run->refusal_len = 0;

    run->pool = ngx_create_pool(1024, run->live->log);
    if (run->pool == NULL) {
        run->nomem = 1;
        return;
    }

    if (run->status < 200 || run->status >= 300) {

        if (run->dialect->takes == NULL || !run->dialect->takes(run)) {
            return;
        }
    }

    if (run->dialect->open(run) != NGX_OK) {
        run->nomem = 1;
    }
}


/* From the body filter: NGX_ERROR makes nginx close the upstream. */

static ngx_int_t
ngx_http_agent_attempt_body(void *data, u_char *p, size_t n)
{
    ngx_http_agent_run_t *run = data;

    if (run->nomem || run->full) {
        return NGX_ERROR;
    }

    if (run->pool == NULL || run->ready) {
        return NGX_OK;
    }

    ngx_add_timer(&run->timer, run->live->agent->timeout);

    ngx_http_agent_trace_body(run, p, n);

    if (run->answer == NULL) {
        ngx_http_agent_attempt_refusal(run, p, n);
        return run->nomem ? NGX_ERROR : NGX_OK;
    }

    switch (run->dialect->feed(run, p, n)) {

    case NGX_OK:
        return NGX_OK;

    case NGX_DONE:
        run->ready = 1;

        /*
         * The answer is there; its connection gets a moment to end in good
         * order, so that it can be kept alive.
         */

        ngx_add_timer(&run->timer, ngx_min(run->live->agent->timeout,
                                           NGX_HTTP_AGENT_RUN_LINGER));
        return NGX_OK;

    case NGX_DECLINED:
        run->full = 1;
        return NGX_ERROR;

    default:
        run->nomem = 1;
        return NGX_ERROR;
    }
}


static void
ngx_http_agent_attempt_refusal(ngx_http_agent_run_t *run, u_char *p, size_t n)
{
    if (run->refusal == NULL) {
        run->refusal = ngx_pnalloc(run->pool, NGX_HTTP_AGENT_RUN_REFUSAL);

        if (run->refusal == NULL) {
            run->nomem = 1;
            return;
        }
    }

    n = ngx_min(n, NGX_HTTP_AGENT_RUN_REFUSAL - run->refusal_len);

    ngx_memcpy(run->refusal + run->refusal_len, p, n);
    run->refusal_len += n;
}


/* Finds the words for a failed call; returns 1 when another may help. */

ngx_uint_t
ngx_http_agent_attempt_failure(ngx_http_agent_run_t *run)
{
    ngx_agent_agent_t  *agent;

    agent = run->live->agent;

    run->timed_out = 0;

    if (run->nomem) {
        ngx_http_agent_run_reason(run, "no memory",
                                  "the server had no memory for the "
                                  "answer of agent \"%V\"", &agent->name);
        return 1;
    }

    if (run->silent) {
        run->timed_out = 1;

        ngx_http_agent_run_reason(run, "timed out",
                                  "the %s of agent \"%V\" "
                                  "timed out: nothing came for %M ms%s",
                                  run->dialect->peer,
                                  &agent->name, agent->timeout,
                                  run->status ? " in the middle of its answer"
                                              : "");
        return 1;
    }

    if (run->status == 0) {
        ngx_http_agent_run_reason(run, "no HTTP answer",
                                  "the %s of agent \"%V\" gave no valid "
                                  "HTTP answer", run->dialect->peer,
                                  &agent->name);
        return 1;
    }

    if (run->answer == NULL) {
        return ngx_http_agent_attempt_refused(run);
    }

    return run->dialect->fault(run);
}


static ngx_uint_t
ngx_http_agent_attempt_refused(ngx_http_agent_run_t *run)
{
    ngx_str_t    words;
    const char  *said;

    ngx_str_null(&words);

    if (run->refusal_len
        && run->dialect->refuse(run, run->refusal, run->refusal_len, &words)
           != NGX_OK)
    {
        ngx_str_null(&words);
    }

    run->timed_out = (run->status == NGX_HTTP_GATEWAY_TIME_OUT);

    if (run->dialect->refused) {
        return run->dialect->refused(run, &words);
    }

    if (words.len) {
        said = ": ";

    } else if (run->status == NGX_HTTP_BAD_GATEWAY) {
        said = ": it could not be reached or broke off";

    } else if (run->status == NGX_HTTP_GATEWAY_TIME_OUT) {
        said = ": it timed out";

    } else if (run->status == NGX_HTTP_NOT_FOUND) {
        said = ": nothing is there; check \"pass\" and its location";

    } else {
        said = "";
    }

    ngx_http_agent_run_reason(run, "refused",
                              "the %s of agent \"%V\" answered with status "
                              "%ui%s%V", run->dialect->peer,
                              &run->live->agent->name, run->status, said,
                              &words);

    return run->status >= 500
           || run->status == NGX_HTTP_TOO_MANY_REQUESTS
           || run->status == NGX_HTTP_REQUEST_TIME_OUT;
}
