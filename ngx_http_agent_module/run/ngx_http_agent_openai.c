
/*
 * The openai dialect as a run sees it: the byte-only parts (builder, parser)
 * and the tools put together, and what an answer makes of the step.
 */

#include "ngx_http_agent_made.h"
#include "ngx_http_agent_tools.h"
#include "ngx_agent_openai_parse.h"
#include "ngx_agent_json.h"


typedef struct {
    ngx_agent_openai_t        *parser;
    ngx_http_agent_tools_t     tools;
} ngx_http_agent_openai_answer_t;


static ngx_int_t ngx_http_agent_openai_build(ngx_http_agent_run_t *run,
    ngx_pool_t *pool, ngx_array_t *history, ngx_str_t *body, ngx_str_t *tail);
static ngx_int_t ngx_http_agent_openai_open(ngx_http_agent_run_t *run);
static ngx_int_t ngx_http_agent_openai_feed(ngx_http_agent_run_t *run,
    u_char *p, size_t n);
static ngx_int_t ngx_http_agent_openai_finish(ngx_http_agent_run_t *run);
static ngx_uint_t ngx_http_agent_openai_fault(ngx_http_agent_run_t *run);
static ngx_int_t ngx_http_agent_openai_refuse(ngx_http_agent_run_t *run,
    u_char *p, size_t n, ngx_str_t *words);
static ngx_int_t ngx_http_agent_openai_act(ngx_http_agent_run_t *run);
static void ngx_http_agent_openai_drop(ngx_http_agent_run_t *run);
static void ngx_http_agent_openai_acted(ngx_http_agent_run_t *run,
    ngx_int_t rc);
static ngx_int_t ngx_http_agent_openai_step(ngx_http_agent_run_t *run);
static ngx_int_t ngx_http_agent_openai_redact(ngx_http_agent_run_t *run,
    ngx_http_agent_openai_answer_t *answer);
static ngx_int_t ngx_http_agent_openai_redact_name(ngx_agent_redact_t *r,
    ngx_pool_t *pool, ngx_str_t *name);
static const char *ngx_http_agent_openai_last(ngx_agent_live_t *live,
    ngx_http_agent_openai_answer_t *answer);
static ngx_int_t ngx_http_agent_openai_output(ngx_agent_live_t *live,
    ngx_http_agent_openai_answer_t *answer);
static ngx_int_t ngx_http_agent_openai_extra(ngx_http_agent_run_t *run,
    ngx_http_agent_openai_answer_t *answer, const char *reason);
static ngx_int_t ngx_http_agent_openai_copy(ngx_pool_t *pool, ngx_str_t *dst,
    ngx_str_t *src);


const ngx_http_agent_dialect_t  ngx_http_agent_openai = {
    "LLM endpoint",
    NULL,                                    /* recall */
    NULL,                                    /* recalled */
    ngx_http_agent_openai_build,
    NULL,                                    /* ask */
    NULL,                                    /* takes */
    ngx_http_agent_openai_open,
    ngx_http_agent_openai_feed,
    ngx_http_agent_openai_finish,
    ngx_http_agent_openai_fault,
    ngx_http_agent_openai_refuse,
    NULL,                                    /* refused */
    ngx_http_agent_openai_act,
    ngx_http_agent_openai_drop,
    NULL                                     /* keep */
};


static ngx_int_t
ngx_http_agent_openai_build(ngx_http_agent_run_t *run, ngx_pool_t *pool,
    ngx_array_t *history, ngx_str_t *body, ngx_str_t *tail)
{
    ngx_agent_live_t  *live;

    live = run->live;

    return ngx_agent_openai_build(pool, live->agent, &live->task, history,
                                  &live->step, body, tail);
}


static ngx_int_t
ngx_http_agent_openai_open(ngx_http_agent_run_t *run)
{
    ngx_http_agent_openai_answer_t  *answer;

    answer = ngx_pcalloc(run->pool, sizeof(ngx_http_agent_openai_answer_t));
    if (answer == NULL) {
        return NGX_ERROR;
    }

    answer->parser = ngx_agent_openai_create(run->pool,
                                             run->live->agent->max_answer);
    if (answer->parser == NULL) {
        return NGX_ERROR;
    }

    run->answer = answer;

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_openai_feed(ngx_http_agent_run_t *run, u_char *p, size_t n)
{
    ngx_http_agent_openai_answer_t  *answer = run->answer;

    return ngx_agent_openai_feed(answer->parser, p, n);
}


static ngx_int_t
ngx_http_agent_openai_finish(ngx_http_agent_run_t *run)
{
    ngx_http_agent_openai_answer_t  *answer = run->answer;

    return ngx_agent_openai_finish(answer->parser);
}


static ngx_uint_t
ngx_http_agent_openai_fault(ngx_http_agent_run_t *run)
{
    ngx_str_t                       *name;
    ngx_agent_openai_t              *parser;
    ngx_http_agent_openai_answer_t  *answer;

    answer = run->answer;
    parser = answer->parser;
    name = &run->live->agent->name;

    if (parser->fault == NGX_AGENT_OPENAI_REPORTED) {
        ngx_http_agent_run_reason(run, "the endpoint reported an error",
                                  "the LLM endpoint of agent \"%V\" "
                                  "reported an error%s%V", name,
                                  parser->error.len ? ": " : "",
                                  &parser->error);

        /* what is wrong with the request will be wrong the next time, too */

        return parser->error_code < 400 || parser->error_code >= 500
               || parser->error_code == NGX_HTTP_TOO_MANY_REQUESTS
               || parser->error_code == NGX_HTTP_REQUEST_TIME_OUT;
    }

    ngx_http_agent_run_reason(run, parser->why,
                              "the answer of the LLM endpoint of agent "
                              "\"%V\" %s", name,
                              parser->why + sizeof("the answer ") - 1);

    return parser->fault != NGX_AGENT_OPENAI_LARGE;
}


static ngx_int_t
ngx_http_agent_openai_refuse(ngx_http_agent_run_t *run, u_char *p, size_t n,
    ngx_str_t *words)
{
    return ngx_agent_openai_refusal(run->pool, p, n, words);
}


static ngx_int_t
ngx_http_agent_openai_act(ngx_http_agent_run_t *run)
{
    ngx_int_t                        rc;
    ngx_http_agent_tools_t          *tools;
    ngx_http_agent_openai_answer_t  *answer;

    answer = run->answer;
    tools = &answer->tools;

    tools->run = run;
    tools->handler = ngx_http_agent_openai_acted;
    tools->calls = answer->parser->calls.elts;
    tools->ncalls = answer->parser->calls.nelts;

    rc = ngx_http_agent_tools_start(tools);

    return (rc == NGX_OK) ? ngx_http_agent_openai_step(run) : rc;
}


static void
ngx_http_agent_openai_drop(ngx_http_agent_run_t *run)
{
    ngx_http_agent_openai_answer_t  *answer = run->answer;

    ngx_http_agent_tools_drop(&answer->tools);
}


static void
ngx_http_agent_openai_acted(ngx_http_agent_run_t *run, ngx_int_t rc)
{
    if (rc == NGX_OK) {
        rc = ngx_http_agent_openai_step(run);
    }

    ngx_http_agent_run_acted(run, rc);
}


/* What the answer makes of the step; all of it into live->pool. */

static ngx_int_t
ngx_http_agent_openai_step(ngx_http_agent_run_t *run)
{
    const char                      *reason;
    ngx_agent_live_t                *live;
    ngx_agent_step_t                *step;
    ngx_agent_openai_t              *parser;
    ngx_http_agent_tools_t          *tools;
    ngx_http_agent_openai_answer_t  *answer;

    live = run->live;
    step = &live->step;
    answer = run->answer;
    parser = answer->parser;
    tools = &answer->tools;

    step->tokens_in = parser->tokens_in;
    step->tokens_out = parser->tokens_out;

    reason = ngx_http_agent_openai_last(live, answer);

    if (run->redact && ngx_http_agent_openai_redact(run, answer) != NGX_OK) {
        goto nomem;
    }

    if (ngx_agent_openai_turns(live->pool, &parser->content, tools->calls,
                               tools->ncalls, &step->turns) != NGX_OK
        || ngx_http_agent_openai_output(live, answer) != NGX_OK
        || ngx_http_agent_openai_extra(run, answer, reason) != NGX_OK
        || ngx_http_agent_made_json(live) != NGX_OK
        || (tools->ncalls
            && ngx_http_agent_openai_copy(live->pool, &step->name,
                                          &tools->calls[0].name) != NGX_OK))
    {
        goto nomem;
    }

    return ngx_agent_step_move(step, tools->waiting ? NGX_AGENT_STEP_WAITING
                                                    : NGX_AGENT_STEP_COMPLETED,
                               live->log);

nomem:

    ngx_http_agent_run_reason(run, "no memory", "the server had no memory for "
                              "the result of the step");
    return NGX_ERROR;
}


/*
 * The input is a secret, and the LLM may repeat it: it goes out of all that
 * is stored and shown.  What was written to a file is the user's and stays.
 */

static ngx_int_t
ngx_http_agent_openai_redact(ngx_http_agent_run_t *run,
    ngx_http_agent_openai_answer_t *answer)
{
    ngx_str_t                *why;
    ngx_uint_t                i, cut;
    ngx_pool_t               *pool;
    ngx_agent_redact_t       *r;
    ngx_agent_openai_call_t  *call;

    r = run->redact;
    pool = run->pool;

    why = &answer->parser->finish_reason;
    cut = (why->len == 6 && ngx_memcmp(why->data, "length", 6) == 0);

    if (ngx_agent_redact_text(r, pool, &answer->parser->content, cut) != NGX_OK
        || ngx_agent_redact_text(r, pool, why, 0) != NGX_OK
        || ngx_agent_redact_text(r, pool, &answer->tools.summary, 0) != NGX_OK
        || ngx_agent_redact_text(r, pool, &answer->tools.question, 0)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < answer->tools.ncalls; i++) {
        call = &answer->tools.calls[i];

        if (ngx_agent_redact_text(r, pool, &call->id, 0) != NGX_OK
            || ngx_agent_redact_json(r, pool, &call->arguments) != NGX_OK
            || ngx_agent_redact_text(r, pool, &call->result, 0) != NGX_OK
            || ngx_http_agent_openai_redact_name(r, pool, &call->name)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return ngx_http_agent_made_redact(run);
}


/* The module's own tools are known to all; another one keeps to the form. */

static ngx_int_t
ngx_http_agent_openai_redact_name(ngx_agent_redact_t *r, ngx_pool_t *pool,
    ngx_str_t *name)
{
    ngx_str_t  text;

    if (ngx_http_agent_tools_known(name)) {
        return NGX_OK;
    }

    text = *name;

    if (ngx_agent_redact_text(r, pool, &text, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    if (text.data != name->data) {
        ngx_str_set(name, "redacted");
    }

    return NGX_OK;
}


/* Sets is_last and secret; the return value says what is special, or NULL. */

static const char *
ngx_http_agent_openai_last(ngx_agent_live_t *live,
    ngx_http_agent_openai_answer_t *answer)
{
    ngx_str_t         *why;
    const char        *reason;
    ngx_agent_step_t  *step;

    step = &live->step;
    why = &answer->parser->finish_reason;
    reason = NULL;

    step->is_last = 0;
    step->secret = 0;

    if (answer->tools.waiting) {
        step->secret = answer->tools.secret;
        return NULL;
    }

    if (answer->tools.finished) {
        step->is_last = 1;

    } else if (answer->tools.ncalls == 0) {

        /* an answer that ran out of tokens may be gone on with */

        if (why->len == 6 && ngx_memcmp(why->data, "length", 6) == 0) {
            reason = "length";

        } else {
            step->is_last = 1;
        }
    }

    if (!step->is_last && step->seq >= live->agent->max_steps) {
        step->is_last = 1;
        reason = "max_steps";
    }

    return reason;
}


static ngx_int_t
ngx_http_agent_openai_output(ngx_agent_live_t *live,
    ngx_http_agent_openai_answer_t *answer)
{
    ngx_str_t  *src;

    src = &answer->parser->content;

    if (answer->tools.waiting) {
        src = &answer->tools.question;

    } else if (answer->tools.finished && answer->tools.summary.len) {
        src = &answer->tools.summary;
    }

    if (src->data == NULL && answer->tools.ncalls) {
        ngx_str_null(&live->step.output);
        return NGX_OK;
    }

    return ngx_http_agent_openai_copy(live->pool, &live->step.output, src);
}


static ngx_int_t
ngx_http_agent_openai_extra(ngx_http_agent_run_t *run,
    ngx_http_agent_openai_answer_t *answer, const char *reason)
{
    ngx_uint_t           i;
    ngx_agent_json_t     j;
    ngx_agent_openai_t  *parser;

    parser = answer->parser;

    ngx_agent_json_init(&j, run->live->pool, 256);
    ngx_agent_json_object(&j);

    if (parser->usage) {
        ngx_agent_json_key(&j, "usage");
        ngx_agent_json_object(&j);
        ngx_agent_json_key(&j, "tokens_in");
        ngx_agent_json_int(&j, parser->tokens_in);
        ngx_agent_json_key(&j, "tokens_out");
        ngx_agent_json_int(&j, parser->tokens_out);
        ngx_agent_json_object_end(&j);
    }

    if (parser->finish_reason.len) {
        ngx_agent_json_key(&j, "finish_reason");
        ngx_agent_json_string(&j, &parser->finish_reason);
    }

    if (answer->tools.ncalls) {
        ngx_agent_json_key(&j, "tool_calls");
        ngx_agent_json_array(&j);

        for (i = 0; i < answer->tools.ncalls; i++) {
            ngx_agent_json_string(&j, &answer->tools.calls[i].name);
        }

        ngx_agent_json_array_end(&j);
    }

    if (reason) {
        ngx_agent_json_key(&j, "reason");
        ngx_agent_json_cstring(&j, reason);
    }

    ngx_agent_json_key(&j, "attempts");
    ngx_agent_json_int(&j, ngx_agent_step_spent(run->live));
    ngx_agent_json_object_end(&j);

    return ngx_agent_json_done(&j, &run->live->step.additional_output);
}


static ngx_int_t
ngx_http_agent_openai_copy(ngx_pool_t *pool, ngx_str_t *dst, ngx_str_t *src)
{
    dst->len = src->len;

    dst->data = ngx_pnalloc(pool, src->len + 1);
    if (dst->data == NULL) {
        return NGX_ERROR;
    }

    if (src->len) {
        ngx_memcpy(dst->data, src->data, src->len);
    }

    return NGX_OK;
}
