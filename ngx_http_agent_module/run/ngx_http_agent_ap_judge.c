
/*
 * The agent_protocol dialect's answers: taken in as they come, read, and
 * found good or bad, with the words for it.  What follows from a good one is
 * decided in ngx_http_agent_ap.c.
 */

#include "ngx_http_agent_ap.h"
#include "ngx_agent_openai_parse.h"


static ngx_int_t ngx_http_agent_ap_judge(ngx_http_agent_run_t *run);
static ngx_int_t ngx_http_agent_ap_judge_step(ngx_http_agent_run_t *run);
static ngx_int_t ngx_http_agent_ap_silent(ngx_http_agent_run_t *run);
static ngx_int_t ngx_http_agent_ap_failed(ngx_http_agent_run_t *run);
static const char *ngx_http_agent_ap_hint(ngx_http_agent_run_t *run,
    ngx_uint_t words);


/* what each stage is called in sentences: "answered ... with status" */

const char  *ngx_http_agent_ap_names[] = {
    "the new task",
    "the upload of an artifact",
    "the step",
    "the look at its step",
    "the list of its artifacts",
    "the download of an artifact"
};


/* A container that lists no artifacts for a task has none. */

ngx_uint_t
ngx_http_agent_ap_takes(ngx_http_agent_run_t *run)
{
    ngx_http_agent_ap_t  *ap;

    ap = run->talk;

    return ap->stage == NGX_HTTP_AGENT_AP_LIST
           && (run->status == NGX_HTTP_NOT_FOUND
               || run->status == NGX_HTTP_NOT_ALLOWED
               || run->status == NGX_HTTP_NOT_IMPLEMENTED);
}


ngx_int_t
ngx_http_agent_ap_open(ngx_http_agent_run_t *run)
{
    ngx_http_agent_ap_t         *ap;
    ngx_http_agent_ap_answer_t  *answer;

    ap = run->talk;

    answer = ngx_pcalloc(run->pool, sizeof(ngx_http_agent_ap_answer_t));
    if (answer == NULL) {
        return NGX_ERROR;
    }

    run->answer = answer;

    return (ap->stage == NGX_HTTP_AGENT_AP_DOWNLOAD)
               ? ngx_http_agent_ap_download_open(run) : NGX_OK;
}


ngx_int_t
ngx_http_agent_ap_feed(ngx_http_agent_run_t *run, u_char *p, size_t n)
{
    u_char                      *text;
    size_t                       size, max;
    ngx_http_agent_ap_t         *ap;
    ngx_http_agent_ap_answer_t  *answer;

    ap = run->talk;
    answer = run->answer;

    if (ap->stage == NGX_HTTP_AGENT_AP_DOWNLOAD) {
        return ngx_http_agent_ap_download_feed(run, p, n);
    }

    max = run->live->agent->max_answer;

    if (n > max - answer->len) {
        return ngx_http_agent_ap_bad(run, "is larger than \"max_answer\"", 0);
    }

    if (n > answer->size - answer->len) {
        size = ngx_max(2 * answer->size, answer->len + n);
        size = ngx_min(ngx_max(size, 1024), max);

        text = ngx_pnalloc(run->pool, size);
        if (text == NULL) {
            return NGX_ERROR;
        }

        if (answer->len) {
            ngx_memcpy(text, answer->text, answer->len);
            (void) ngx_pfree(run->pool, answer->text);
        }

        answer->text = text;
        answer->size = size;
    }

    ngx_memcpy(answer->text + answer->len, p, n);
    answer->len += n;

    return NGX_OK;
}


ngx_int_t
ngx_http_agent_ap_finish(ngx_http_agent_run_t *run)
{
    ngx_int_t                    rc;
    ngx_str_t                    doc;
    const char                  *why;
    ngx_http_agent_ap_t         *ap;
    ngx_http_agent_ap_answer_t  *answer;

    ap = run->talk;
    answer = run->answer;

    switch (ap->stage) {

    case NGX_HTTP_AGENT_AP_DOWNLOAD:
        return ngx_http_agent_ap_download_finish(run);

    case NGX_HTTP_AGENT_AP_UPLOAD:
        return NGX_OK;

    case NGX_HTTP_AGENT_AP_LIST:

        if (run->status >= 300) {
            return NGX_OK;
        }

        break;

    default:
        break;
    }

    doc.data = answer->text;
    doc.len = answer->len;

    rc = ngx_agent_ap_parse(run->pool, &doc, &answer->ap, &why);

    if (rc == NGX_DECLINED) {

        if (!run->complete) {
            return ngx_http_agent_ap_bad(run, "broke off", 1);
        }

        ap->memory.tries++;

        return ngx_http_agent_ap_bad(run, why, 1);
    }

    return (rc == NGX_OK) ? ngx_http_agent_ap_judge(run) : rc;
}


static ngx_int_t
ngx_http_agent_ap_judge(ngx_http_agent_run_t *run)
{
    ngx_int_t                    rc;
    ngx_http_agent_ap_t         *ap;
    ngx_http_agent_ap_answer_t  *answer;

    ap = run->talk;
    answer = run->answer;

    switch (ap->stage) {

    case NGX_HTTP_AGENT_AP_TASK:

        if (!ngx_agent_ap_id_good(&answer->ap.task_id)) {
            return ngx_http_agent_ap_bad(run, "has no \"task_id\" that can "
                                         "be used in a uri", 0);
        }

        return NGX_OK;

    case NGX_HTTP_AGENT_AP_LIST:
        return ngx_http_agent_ap_files(run, &answer->ap);

    default:                                 /* STEP, POLL */
        rc = ngx_http_agent_ap_judge_step(run);

        if (rc == NGX_OK && answer->ap.status != NGX_AGENT_AP_RUNNING) {
            ap->files.nelts = 0;
            rc = ngx_http_agent_ap_files(run, &answer->ap);
        }

        return rc;
    }
}


static ngx_int_t
ngx_http_agent_ap_judge_step(ngx_http_agent_run_t *run)
{
    ngx_http_agent_ap_t         *ap;
    ngx_http_agent_ap_answer_t  *answer;

    ap = run->talk;
    answer = run->answer;

    switch (answer->ap.status) {

    case NGX_AGENT_AP_COMPLETED:
    case NGX_AGENT_AP_WAITING:
        return NGX_OK;

    case NGX_AGENT_AP_RUNNING:

        if (ap->stage == NGX_HTTP_AGENT_AP_STEP
            && !ngx_agent_ap_id_good(&answer->ap.step_id))
        {
            return ngx_http_agent_ap_bad(run, "says that the step is still "
                                         "running, but has no \"step_id\" "
                                         "that can be used in a uri", 0);
        }

        return ngx_http_agent_ap_silent(run);

    case NGX_AGENT_AP_NONE:
        ap->memory.tries++;
        return ngx_http_agent_ap_bad(run, "has no \"status\"", 1);

    default:                                 /* FAILED, CANCELLED, UNKNOWN */
        return ngx_http_agent_ap_failed(run);
    }
}


/*
 * A step that runs in the background says so each time it is looked at.  As
 * long as that is the same, it is silent.
 */

static ngx_int_t
ngx_http_agent_ap_silent(ngx_http_agent_run_t *run)
{
    uint32_t                     seen;
    ngx_msec_t                   timeout;
    ngx_http_agent_ap_t         *ap;
    ngx_http_agent_ap_answer_t  *answer;

    ap = run->talk;
    answer = run->answer;
    timeout = run->live->agent->timeout;

    seen = ngx_crc32_long(answer->text, answer->len);

    if (ap->seen != seen || ap->stage == NGX_HTTP_AGENT_AP_STEP) {
        ap->seen = seen;
        ap->since = ngx_current_msec;
        return NGX_OK;
    }

    if ((ngx_msec_int_t) (ngx_current_msec - ap->since)
        < (ngx_msec_int_t) timeout)
    {
        return NGX_OK;
    }

    answer->said = 1;
    answer->slow = 1;

    ngx_http_agent_run_reason(run, "timed out",
                              "the container of agent \"%V\" timed out: its "
                              "step is still %V and has not changed for %M ms",
                              &run->live->agent->name,
                              &answer->ap.status_name, timeout);

    return NGX_DECLINED;
}


/* An end that another attempt would not change. */

static ngx_int_t
ngx_http_agent_ap_failed(ngx_http_agent_run_t *run)
{
    ngx_str_t                   *name, *words;
    ngx_http_agent_ap_answer_t  *answer;

    answer = run->answer;
    answer->said = 1;

    name = &run->live->agent->name;

    switch (answer->ap.status) {

    case NGX_AGENT_AP_FAILED:
        words = answer->ap.error.len ? &answer->ap.error : &answer->ap.output;

        ngx_http_agent_run_reason(run, "the step failed in the container",
                                  "the container of agent \"%V\" says that "
                                  "its step failed%s%V", name,
                                  words->len ? ": " : "", words);
        break;

    case NGX_AGENT_AP_CANCELLED:
        ngx_http_agent_run_reason(run, "cancelled by the container",
                                  "the container of agent \"%V\" says that "
                                  "its step was cancelled", name);
        break;

    default:
        ngx_http_agent_run_reason(run, "unknown status",
                                  "the container of agent \"%V\" gave the "
                                  "step the status \"%V\", which is none of "
                                  "created, running and completed", name,
                                  &answer->ap.status_name);
        break;
    }

    return NGX_DECLINED;
}


ngx_int_t
ngx_http_agent_ap_bad(ngx_http_agent_run_t *run, const char *why,
    ngx_uint_t retry)
{
    ngx_http_agent_ap_answer_t  *answer;

    answer = run->answer;

    answer->why = why;
    answer->retry = retry;

    return NGX_DECLINED;
}


ngx_uint_t
ngx_http_agent_ap_fault(ngx_http_agent_run_t *run)
{
    ngx_http_agent_ap_t         *ap;
    ngx_http_agent_ap_answer_t  *answer;

    ap = run->talk;
    answer = run->answer;

    if (answer->said) {
        run->timed_out = answer->slow;
        return 0;
    }

    ngx_http_agent_run_reason(run, answer->why,
                              "the answer of the container of agent \"%V\" to "
                              "%s %s", &run->live->agent->name,
                              ngx_http_agent_ap_names[ap->stage],
                              answer->why);

    return answer->retry;
}


ngx_int_t
ngx_http_agent_ap_refuse(ngx_http_agent_run_t *run, u_char *p, size_t n,
    ngx_str_t *words)
{
    return ngx_agent_openai_refusal(run->pool, p, n, words);
}


ngx_uint_t
ngx_http_agent_ap_refused(ngx_http_agent_run_t *run, ngx_str_t *words)
{
    ngx_uint_t            status;
    ngx_http_agent_ap_t  *ap;

    ap = run->talk;
    status = run->status;

    /*
     * The key stays the same while it is not known how the call has ended:
     * two of these are nginx's own words, and 409 says that the container is
     * still at what an earlier attempt has asked for.
     */

    if (status != NGX_HTTP_BAD_GATEWAY && status != NGX_HTTP_GATEWAY_TIME_OUT
        && status != NGX_HTTP_CONFLICT)
    {
        ap->memory.tries++;
    }

    ngx_http_agent_run_reason(run, "refused",
                              "the container of agent \"%V\" answered %s with "
                              "status %ui%s%s%V", &run->live->agent->name,
                              ngx_http_agent_ap_names[ap->stage], status,
                              ngx_http_agent_ap_hint(run, words->len != 0),
                              words->len ? ": " : "", words);

    return status >= 500
           || status == NGX_HTTP_CONFLICT
           || status == NGX_HTTP_TOO_MANY_REQUESTS
           || status == NGX_HTTP_REQUEST_TIME_OUT;
}


/* What the status means, as far as we know better than the container. */

static const char *
ngx_http_agent_ap_hint(ngx_http_agent_run_t *run, ngx_uint_t words)
{
    ngx_http_agent_ap_t  *ap;

    ap = run->talk;

    if (run->status == NGX_HTTP_NOT_FOUND) {

        switch (ap->stage) {

        case NGX_HTTP_AGENT_AP_TASK:
            return words ? "" : ": nothing is there; check \"pass\" and its "
                                "location";

        case NGX_HTTP_AGENT_AP_DOWNLOAD:
            return words ? "" : ": it has listed it, but does not have it";

        case NGX_HTTP_AGENT_AP_POLL:
            return ", as it does not know the step any more";

        default:
            return ", as it does not know the task any more; make a new one";
        }
    }

    if (words) {
        return "";
    }

    if (run->status == NGX_HTTP_BAD_GATEWAY) {
        return ": it could not be reached or broke off";
    }

    if (run->status == NGX_HTTP_GATEWAY_TIME_OUT) {
        return ": it timed out";
    }

    return "";
}
