
/*
 * The agent_protocol dialect as a run sees it: a step of ours is a step of a
 * container that serves Agent Protocol itself.  Here is which call follows
 * which and what an answer makes of the step; bytes are the builder's and the
 * parser's, whether an answer is good is decided in ngx_http_agent_ap_judge.c,
 * files are in ngx_http_agent_ap_files.c.
 */

#include "ngx_http_agent_ap.h"
#include "ngx_http_agent_made.h"
#include "ngx_agent_id.h"
#include "ngx_agent_json.h"


/* between two looks at a step that runs in the background, ms */
#define NGX_HTTP_AGENT_AP_POLL_MIN   100        /* doubled each time */
#define NGX_HTTP_AGENT_AP_POLL_MAX   5000

/* artifacts on a page of the container's */
#define NGX_HTTP_AGENT_AP_PAGE       100
#define NGX_HTTP_AGENT_AP_PAGES      (NGX_AGENT_AP_FILES                      \
                                      / NGX_HTTP_AGENT_AP_PAGE)


static ngx_int_t ngx_http_agent_ap_recall(ngx_http_agent_run_t *run,
    ngx_agent_store_call_t *call);
static ngx_int_t ngx_http_agent_ap_talk(ngx_http_agent_run_t *run);
static ngx_int_t ngx_http_agent_ap_recalled(ngx_http_agent_run_t *run,
    ngx_agent_store_call_t *call);
static ngx_int_t ngx_http_agent_ap_history(ngx_http_agent_run_t *run,
    ngx_array_t *history);
static void ngx_http_agent_ap_first(ngx_http_agent_ap_t *ap);
static ngx_int_t ngx_http_agent_ap_build(ngx_http_agent_run_t *run,
    ngx_pool_t *pool, ngx_array_t *history, ngx_str_t *body, ngx_str_t *tail);
static ngx_int_t ngx_http_agent_ap_ask(ngx_http_agent_run_t *run,
    ngx_http_agent_fake_conf_t *conf);
static void ngx_http_agent_ap_uri(ngx_http_agent_run_t *run,
    ngx_str_t *uri);
static void ngx_http_agent_ap_ids(ngx_http_agent_run_t *run,
    ngx_http_agent_fake_conf_t *conf);
static ngx_int_t ngx_http_agent_ap_act(ngx_http_agent_run_t *run);
static ngx_int_t ngx_http_agent_ap_act_task(ngx_http_agent_run_t *run);
static ngx_int_t ngx_http_agent_ap_act_step(ngx_http_agent_run_t *run);
static ngx_int_t ngx_http_agent_ap_act_list(ngx_http_agent_run_t *run);
static ngx_int_t ngx_http_agent_ap_act_files(ngx_http_agent_run_t *run);
static void ngx_http_agent_ap_wait(ngx_http_agent_run_t *run);
static ngx_int_t ngx_http_agent_ap_result(ngx_http_agent_run_t *run);
static ngx_int_t ngx_http_agent_ap_copy(ngx_pool_t *pool, ngx_str_t *dst,
    ngx_str_t *src);
static ngx_int_t ngx_http_agent_ap_nomem(ngx_http_agent_run_t *run);
static void ngx_http_agent_ap_drop(ngx_http_agent_run_t *run);
static void ngx_http_agent_ap_keep(ngx_http_agent_run_t *run);


const ngx_http_agent_dialect_t  ngx_http_agent_ap = {
    "container",
    ngx_http_agent_ap_recall,
    ngx_http_agent_ap_recalled,
    ngx_http_agent_ap_build,
    ngx_http_agent_ap_ask,
    ngx_http_agent_ap_takes,
    ngx_http_agent_ap_open,
    ngx_http_agent_ap_feed,
    ngx_http_agent_ap_finish,
    ngx_http_agent_ap_fault,
    ngx_http_agent_ap_refuse,
    ngx_http_agent_ap_refused,
    ngx_http_agent_ap_act,
    ngx_http_agent_ap_drop,
    ngx_http_agent_ap_keep
};


static ngx_int_t
ngx_http_agent_ap_recall(ngx_http_agent_run_t *run,
    ngx_agent_store_call_t *call)
{
    ngx_http_agent_ap_t  *ap;

    if (run->talk == NULL && ngx_http_agent_ap_talk(run) != NGX_OK) {
        return NGX_ERROR;
    }

    ap = run->talk;

    switch (ap->recall) {

    case NGX_HTTP_AGENT_AP_HISTORY:

        /* with this step: those who have run it before may have got far */

        call->step = ngx_palloc(call->pool, sizeof(ngx_agent_step_t));
        if (call->step == NULL) {
            return NGX_ERROR;
        }

        *call->step = run->live->step;
        call->step->seq++;

        return ngx_agent_store_history(call);

    case NGX_HTTP_AGENT_AP_INPUT:
        call->task = ngx_pcalloc(call->pool, sizeof(ngx_agent_task_t));
        if (call->task == NULL) {
            return NGX_ERROR;
        }

        call->task->id = run->live->task.id;

        return ngx_agent_store_get_task(call);

    default:                                 /* FILES */
        call->page = &ap->page;

        return ngx_agent_store_list_artifacts(call);
    }
}


static ngx_int_t
ngx_http_agent_ap_talk(ngx_http_agent_run_t *run)
{
    ngx_pool_t                  *pool;
    ngx_http_agent_ap_t         *ap;
    ngx_http_conf_ctx_t         *ctx;
    ngx_http_agent_main_conf_t  *amcf;

    pool = run->live->pool;

    ap = ngx_pcalloc(pool, sizeof(ngx_http_agent_ap_t));
    if (ap == NULL) {
        return NGX_ERROR;
    }

    ap->uri = ngx_pnalloc(pool, run->live->agent->pass.len
                                + NGX_AGENT_AP_URI_LEN);

    if (ap->uri == NULL
        || ngx_agent_ap_memory_init(&ap->memory, pool) != NGX_OK
        || ngx_array_init(&ap->uploads, pool, 1, sizeof(ngx_agent_artifact_t))
           != NGX_OK
        || ngx_array_init(&ap->files, pool, 1, sizeof(ngx_agent_ap_file_t))
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    ctx = run->live->agent->server_ctx;
    amcf = ctx->main_conf[ngx_http_agent_module.ctx_index];

    ap->stores = (amcf->artifacts != NULL);
    ap->page.number = 1;
    ap->page.size = NGX_AGENT_PAGE_SIZE_MAX;
    ap->budget = run->live->agent->max_answer;

    run->talk = ap;

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_ap_recalled(ngx_http_agent_run_t *run,
    ngx_agent_store_call_t *call)
{
    ngx_http_agent_ap_t  *ap;

    ap = run->talk;

    switch (ap->recall) {

    case NGX_HTTP_AGENT_AP_HISTORY:

        if (ngx_http_agent_ap_history(run, call->list) != NGX_OK) {
            return NGX_ERROR;
        }

        if (ap->memory.step_id.len) {
            break;
        }

        ap->recall = ap->memory.task_id.len ? NGX_HTTP_AGENT_AP_FILES
                                            : NGX_HTTP_AGENT_AP_INPUT;
        return NGX_AGAIN;

    case NGX_HTTP_AGENT_AP_INPUT:

        if (ngx_http_agent_ap_copy(run->live->pool, &ap->task_input,
                                   &call->task->additional_input)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        ap->recall = NGX_HTTP_AGENT_AP_FILES;
        return NGX_AGAIN;

    default:                                 /* FILES */

        if (ngx_http_agent_ap_uploads(run, call->list) != NGX_OK) {
            return NGX_ERROR;
        }

        if (call->total > ap->page.number * ap->page.size) {
            ap->page.number++;
            return NGX_AGAIN;
        }

        break;
    }

    ngx_http_agent_ap_first(ap);

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_ap_history(ngx_http_agent_run_t *run, ngx_array_t *history)
{
    ngx_uint_t            i;
    ngx_agent_step_t     *step;
    ngx_http_agent_ap_t  *ap;

    ap = run->talk;
    step = history->elts;

    for (i = 0; i < history->nelts; i++) {

        if (ngx_agent_ap_memory_add(&ap->memory, &step[i],
                                    step[i].seq == run->live->step.seq)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* Which call is the first one, or the next one when the task is there. */

static void
ngx_http_agent_ap_first(ngx_http_agent_ap_t *ap)
{
    if (ap->memory.task_id.len == 0) {
        ap->stage = NGX_HTTP_AGENT_AP_TASK;

    } else if (ap->memory.step_id.len) {
        ap->stage = NGX_HTTP_AGENT_AP_POLL;
        ap->since = ngx_current_msec;

    } else if (ap->upload < ap->uploads.nelts) {
        ap->stage = NGX_HTTP_AGENT_AP_UPLOAD;

    } else {
        ap->stage = NGX_HTTP_AGENT_AP_STEP;
    }
}


static ngx_int_t
ngx_http_agent_ap_build(ngx_http_agent_run_t *run, ngx_pool_t *pool,
    ngx_array_t *history, ngx_str_t *body, ngx_str_t *tail)
{
    ngx_agent_live_t      *live;
    ngx_http_agent_ap_t   *ap;
    ngx_agent_artifact_t  *upload;

    ap = run->talk;
    live = run->live;

    ngx_str_set(body, "");
    ngx_str_set(tail, "");

    switch (ap->stage) {

    case NGX_HTTP_AGENT_AP_TASK:
        return ngx_agent_ap_input(pool, &live->task.input, &ap->task_input,
                                  body);

    case NGX_HTTP_AGENT_AP_UPLOAD:
        upload = ap->uploads.elts;
        tail->data = ap->tail;
        ngx_agent_ap_boundary(ap->boundary);

        return ngx_agent_ap_form(pool, ap->boundary, &upload[ap->upload],
                                 body, tail);

    case NGX_HTTP_AGENT_AP_STEP:
        return ngx_agent_ap_input(pool, &live->step.input,
                                  &live->step.additional_input, body);

    default:
        return NGX_OK;
    }
}


static ngx_int_t
ngx_http_agent_ap_ask(ngx_http_agent_run_t *run,
    ngx_http_agent_fake_conf_t *conf)
{
    ngx_http_agent_ap_t  *ap;

    ap = run->talk;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, run->live->log, 0,
                   "agent run: container is asked for %s",
                   ngx_http_agent_ap_names[ap->stage]);

    if (ngx_http_agent_run_body(run) != NGX_OK) {
        return ngx_http_agent_ap_nomem(run);
    }

    conf->method = NGX_HTTP_GET;
    ngx_str_set(&conf->accept, "application/json");

    ngx_http_agent_ap_uri(run, &conf->pass);
    ngx_http_agent_ap_ids(run, conf);

    switch (ap->stage) {

    case NGX_HTTP_AGENT_AP_TASK:
    case NGX_HTTP_AGENT_AP_STEP:
        conf->method = NGX_HTTP_POST;
        return NGX_OK;

    case NGX_HTTP_AGENT_AP_UPLOAD:
        conf->method = NGX_HTTP_POST;
        return ngx_http_agent_ap_upload(run, conf);

    case NGX_HTTP_AGENT_AP_DOWNLOAD:
        ngx_str_set(&conf->accept, "*/*");
        return NGX_OK;

    default:
        return NGX_OK;
    }
}


static void
ngx_http_agent_ap_uri(ngx_http_agent_run_t *run, ngx_str_t *uri)
{
    u_char                buf[64];
    ngx_str_t            *texts[5], args, *list;
    ngx_agent_ap_file_t  *file;
    ngx_http_agent_ap_t  *ap;

    static ngx_str_t  tasks = ngx_string("/tasks");
    static ngx_str_t  steps = ngx_string("/steps");
    static ngx_str_t  artifacts = ngx_string("/artifacts");
    static ngx_str_t  tasks_slash = ngx_string("/tasks/");
    static ngx_str_t  steps_slash = ngx_string("/steps/");
    static ngx_str_t  artifacts_slash = ngx_string("/artifacts/");

    ap = run->talk;
    list = NULL;

    ngx_memzero(texts, sizeof(texts));

    texts[0] = &tasks_slash;
    texts[1] = &ap->memory.task_id;

    switch (ap->stage) {

    case NGX_HTTP_AGENT_AP_TASK:
        texts[0] = &tasks;
        texts[1] = NULL;
        break;

    case NGX_HTTP_AGENT_AP_UPLOAD:
        texts[2] = &artifacts;
        break;

    case NGX_HTTP_AGENT_AP_STEP:
        texts[2] = &steps;
        break;

    case NGX_HTTP_AGENT_AP_POLL:
        texts[2] = &steps_slash;
        texts[3] = &ap->memory.step_id;
        break;

    case NGX_HTTP_AGENT_AP_LIST:
        texts[2] = &artifacts;
        args.data = buf;
        args.len = ngx_sprintf(buf, "current_page=%ui&page_size=%d",
                               ap->list_page, NGX_HTTP_AGENT_AP_PAGE)
                   - buf;
        list = &args;
        break;

    case NGX_HTTP_AGENT_AP_DOWNLOAD:
        file = ap->files.elts;
        texts[2] = &artifacts_slash;
        texts[3] = &file[ap->file].id;
        break;
    }

    ngx_agent_ap_uri(ap->uri, uri, &run->live->agent->pass, texts, list);
}


/*
 * A container that heeds Idempotency-Key does nothing twice.  The step's key
 * is another one when the last was answered with an error: it would be
 * answered with the same again.
 */

static void
ngx_http_agent_ap_ids(ngx_http_agent_run_t *run,
    ngx_http_agent_fake_conf_t *conf)
{
    u_char                *p;
    ngx_http_agent_ap_t   *ap;
    ngx_agent_artifact_t  *upload;

    ap = run->talk;
    p = ngx_agent_id_print(ap->key, &run->live->step.id);

    conf->step.data = ap->key;
    conf->step.len = NGX_AGENT_ID_LEN;

    *p++ = '-';

    switch (ap->stage) {

    case NGX_HTTP_AGENT_AP_TASK:
        *p++ = '0';
        break;

    case NGX_HTTP_AGENT_AP_UPLOAD:
        upload = ap->uploads.elts;
        p = ngx_agent_id_print(p, &upload[ap->upload].id);
        break;

    case NGX_HTTP_AGENT_AP_STEP:
        p = ngx_sprintf(p, "%ui", ap->memory.tries + 1);
        break;

    default:
        return;
    }

    conf->key.data = ap->key;
    conf->key.len = p - ap->key;
}


static ngx_int_t
ngx_http_agent_ap_act(ngx_http_agent_run_t *run)
{
    ngx_http_agent_ap_t  *ap;

    ap = run->talk;

    switch (ap->stage) {

    case NGX_HTTP_AGENT_AP_TASK:
        return ngx_http_agent_ap_act_task(run);

    case NGX_HTTP_AGENT_AP_UPLOAD:
        ngx_http_agent_trace_drop(run);

        if (ngx_http_agent_ap_uploaded(run) != NGX_OK) {
            return ngx_http_agent_ap_nomem(run);
        }

        ngx_http_agent_ap_first(ap);
        return NGX_DONE;

    case NGX_HTTP_AGENT_AP_STEP:
    case NGX_HTTP_AGENT_AP_POLL:
        return ngx_http_agent_ap_act_step(run);

    case NGX_HTTP_AGENT_AP_LIST:
        ngx_http_agent_trace_drop(run);
        return ngx_http_agent_ap_act_list(run);

    default:                                 /* DOWNLOAD */
        ngx_http_agent_trace_drop(run);
        return ngx_http_agent_ap_download_act(run);
    }
}


static ngx_int_t
ngx_http_agent_ap_act_task(ngx_http_agent_run_t *run)
{
    ngx_http_agent_ap_t         *ap;
    ngx_http_agent_ap_answer_t  *answer;

    ap = run->talk;
    answer = run->answer;

    if (ngx_http_agent_ap_copy(run->live->pool, &ap->memory.task_id,
                               &answer->ap.task_id)
        != NGX_OK)
    {
        ngx_str_null(&ap->memory.task_id);
        return ngx_http_agent_ap_nomem(run);
    }

    ap->memory.tries = 0;
    ngx_http_agent_ap_first(ap);

    return NGX_DONE;
}


static ngx_int_t
ngx_http_agent_ap_act_step(ngx_http_agent_run_t *run)
{
    ngx_http_agent_ap_t         *ap;
    ngx_http_agent_ap_answer_t  *answer;

    ap = run->talk;
    answer = run->answer;

    /* from now on it is known there: whoever goes on does not begin again */

    if (ap->stage == NGX_HTTP_AGENT_AP_STEP
        && ngx_agent_ap_id_good(&answer->ap.step_id)
        && ngx_http_agent_ap_copy(run->live->pool, &ap->memory.step_id,
                                  &answer->ap.step_id)
           != NGX_OK)
    {
        return ngx_http_agent_ap_nomem(run);
    }

    if (answer->ap.status == NGX_AGENT_AP_RUNNING) {

        if (ap->stage == NGX_HTTP_AGENT_AP_POLL) {
            ngx_http_agent_trace_drop(run);
        }

        ap->stage = NGX_HTTP_AGENT_AP_POLL;
        ngx_http_agent_ap_wait(run);

        return NGX_DONE;
    }

    if (ngx_http_agent_ap_result(run) != NGX_OK) {
        return ngx_http_agent_ap_nomem(run);
    }

    /* some tell of artifacts only in the list of the task's */

    if (ap->stores && ap->files.nelts == 0
        && (!answer->ap.listed || run->live->step.is_last))
    {
        ap->stage = NGX_HTTP_AGENT_AP_LIST;
        ap->list_page = 1;
        return NGX_DONE;
    }

    return ngx_http_agent_ap_act_files(run);
}


static ngx_int_t
ngx_http_agent_ap_act_list(ngx_http_agent_run_t *run)
{
    ngx_http_agent_ap_t         *ap;
    ngx_http_agent_ap_answer_t  *answer;

    ap = run->talk;
    answer = run->answer;

    if (ap->list_page < answer->ap.pages
        && ap->list_page < NGX_HTTP_AGENT_AP_PAGES)
    {
        ap->list_page++;
        return NGX_DONE;
    }

    return ngx_http_agent_ap_act_files(run);
}


static ngx_int_t
ngx_http_agent_ap_act_files(ngx_http_agent_run_t *run)
{
    ngx_http_agent_ap_t  *ap;

    ap = run->talk;

    if (ap->files.nelts) {
        ap->stage = NGX_HTTP_AGENT_AP_DOWNLOAD;
        return NGX_DONE;
    }

    return ngx_http_agent_ap_end(run);
}


/* 0.1 s, 0.2 s, 0.4 s ...; Retry-After is a least time */

static void
ngx_http_agent_ap_wait(ngx_http_agent_run_t *run)
{
    ngx_msec_t            delay;
    ngx_http_agent_ap_t  *ap;

    ap = run->talk;

    delay = (ngx_msec_t) NGX_HTTP_AGENT_AP_POLL_MIN << ngx_min(ap->polls, 10);
    delay = ngx_max(delay, run->retry_after);
    delay = ngx_min(delay, NGX_HTTP_AGENT_AP_POLL_MAX);

    /* a short patience looks more often */
    delay = ngx_min(delay, run->live->agent->timeout / 4 + 1);

    ap->polls++;
    run->delay = delay + (ngx_msec_t) ngx_random() % (delay / 4 + 1);
}


/* What the answer makes of the step; all of it into live->pool. */

static ngx_int_t
ngx_http_agent_ap_result(ngx_http_agent_run_t *run)
{
    ngx_agent_step_t            *step;
    ngx_agent_live_t            *live;
    ngx_http_agent_ap_t         *ap;
    ngx_agent_ap_answer_t       *a;
    ngx_http_agent_ap_answer_t  *answer;

    ap = run->talk;
    answer = run->answer;
    a = &answer->ap;
    live = run->live;
    step = &live->step;

    if (run->redact
        && (ngx_agent_redact_text(run->redact, run->pool, &a->name, 0)
            != NGX_OK
            || ngx_agent_redact_text(run->redact, run->pool, &a->output, 0)
               != NGX_OK
            || (a->additional_output.len
                && ngx_agent_redact_json(run->redact, run->pool,
                                         &a->additional_output)
                   != NGX_OK)))
    {
        return NGX_ERROR;
    }

    ap->status = (a->status == NGX_AGENT_AP_WAITING)
                     ? NGX_AGENT_STEP_WAITING : NGX_AGENT_STEP_COMPLETED;

    step->secret = 0;
    step->is_last = (a->is_last && ap->status == NGX_AGENT_STEP_COMPLETED);

    if (ap->status == NGX_AGENT_STEP_COMPLETED && !step->is_last
        && step->seq >= live->agent->max_steps)
    {
        step->is_last = 1;

        if (a->additional_output.len == 0) {
            ngx_str_set(&a->additional_output, "{\"reason\":\"max_steps\"}");
        }
    }

    if (ngx_http_agent_ap_copy(live->pool, &step->name, &a->name) != NGX_OK
        || ngx_http_agent_ap_copy(live->pool, &step->output, &a->output)
           != NGX_OK
        || ngx_http_agent_ap_copy(live->pool, &step->additional_output,
                                  &a->additional_output)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* null stays null */

static ngx_int_t
ngx_http_agent_ap_copy(ngx_pool_t *pool, ngx_str_t *dst, ngx_str_t *src)
{
    ngx_str_null(dst);

    if (src->data == NULL) {
        return NGX_OK;
    }

    dst->data = ngx_pnalloc(pool, src->len + 1);
    if (dst->data == NULL) {
        return NGX_ERROR;
    }

    if (src->len) {
        ngx_memcpy(dst->data, src->data, src->len);
    }

    dst->len = src->len;

    return NGX_OK;
}


ngx_int_t
ngx_http_agent_ap_end(ngx_http_agent_run_t *run)
{
    ngx_agent_live_t     *live;
    ngx_http_agent_ap_t  *ap;

    ap = run->talk;
    live = run->live;

    if ((run->redact && ngx_http_agent_made_redact(run) != NGX_OK)
        || ngx_http_agent_made_json(live) != NGX_OK)
    {
        return ngx_http_agent_ap_nomem(run);
    }

    return ngx_agent_step_move(&live->step, ap->status, live->log);
}


static ngx_int_t
ngx_http_agent_ap_nomem(ngx_http_agent_run_t *run)
{
    ngx_http_agent_run_reason(run, "no memory", "the server had no memory for "
                              "the step");
    return NGX_ERROR;
}


/* only a blob can be on its way */

static void
ngx_http_agent_ap_drop(ngx_http_agent_run_t *run)
{
    ngx_http_agent_ap_answer_t  *answer;

    answer = run->answer;

    if (answer) {
        ngx_agent_blob_abort(&answer->blob);
    }
}


/* Whoever goes on with the step, or the task, knows what the container has. */

static void
ngx_http_agent_ap_keep(ngx_http_agent_run_t *run)
{
    ngx_agent_live_t     *live;
    ngx_http_agent_ap_t  *ap;

    ap = run->talk;
    live = run->live;

    if (ap == NULL) {
        return;
    }

    if (ngx_agent_ap_memory_print(&ap->memory, live->pool, &live->step.turns)
        != NGX_OK
        || (run->redact && live->step.turns.len
            && ngx_agent_redact_json(run->redact, live->pool,
                                     &live->step.turns)
               != NGX_OK))
    {
        ngx_str_null(&live->step.turns);
    }
}
