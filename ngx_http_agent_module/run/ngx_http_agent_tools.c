
/*
 * Tools, carried out one after the other: arguments read, the tool found and
 * run, the next one taken when it has come back.  The small tools are here,
 * those of artifacts in ngx_http_agent_tool_files.c.
 */

#include "ngx_http_agent_tools.h"
#include "ngx_agent_json.h"


/* what an LLM may read of all files in one step */
#define NGX_HTTP_AGENT_TOOL_BUDGET  (512 * 1024)


typedef struct {
    ngx_str_t                  name;
    ngx_http_agent_tool_pt     handler;
} ngx_http_agent_tool_t;


static ngx_int_t ngx_http_agent_tools_go_on(ngx_http_agent_tools_t *t);
static ngx_int_t ngx_http_agent_tools_one(ngx_http_agent_tools_t *t,
    ngx_agent_openai_call_t *call);
static ngx_http_agent_tool_t *ngx_http_agent_tools_find(ngx_str_t *name);
static ngx_int_t ngx_http_agent_tools_arg(void *data,
    ngx_agent_json_value_t *v);
static void ngx_http_agent_tools_finish(ngx_http_agent_tools_t *t);

static ngx_int_t ngx_http_agent_tool_ask(ngx_http_agent_tools_t *t,
    ngx_agent_openai_call_t *call, ngx_http_agent_tool_args_t *args);
static ngx_int_t ngx_http_agent_tool_end(ngx_http_agent_tools_t *t,
    ngx_agent_openai_call_t *call, ngx_http_agent_tool_args_t *args);


/* the names as ngx_agent_openai_build.c offers them */

static ngx_http_agent_tool_t  ngx_http_agent_tool_table[] = {
    { ngx_string("write_artifact"), ngx_http_agent_tool_write },
    { ngx_string("read_artifact"), ngx_http_agent_tool_read },
    { ngx_string("list_artifacts"), ngx_http_agent_tool_list },
    { ngx_string("ask_user"), ngx_http_agent_tool_ask },
    { ngx_string("finish"), ngx_http_agent_tool_end },
    { ngx_null_string, NULL }
};


ngx_int_t
ngx_http_agent_tools_start(ngx_http_agent_tools_t *t)
{
    t->budget = NGX_HTTP_AGENT_TOOL_BUDGET;

    return ngx_http_agent_tools_go_on(t);
}


static ngx_int_t
ngx_http_agent_tools_go_on(ngx_http_agent_tools_t *t)
{
    ngx_int_t  rc;

    while (t->next < t->ncalls) {
        rc = ngx_http_agent_tools_one(t, &t->calls[t->next]);

        if (rc != NGX_OK) {
            return rc;
        }

        t->next++;
    }

    ngx_http_agent_tools_finish(t);

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_tools_one(ngx_http_agent_tools_t *t,
    ngx_agent_openai_call_t *call)
{
    ngx_int_t                    rc;
    ngx_http_agent_tool_t       *tool;
    ngx_agent_json_reader_t     *reader;
    ngx_http_agent_tool_args_t   args;

    tool = ngx_http_agent_tools_find(&call->name);

    /* a name that the LLM has made up may be anything, a secret as well */

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, t->run->live->log, 0,
                   "agent run: tool \"%s\"",
                   tool ? (char *) tool->name.data : "unknown");

    if (tool == NULL) {
        return ngx_http_agent_tools_say(t, call, "error: there is no tool "
                   "\"%V\"; there are write_artifact, read_artifact, "
                   "list_artifacts, ask_user and finish", &call->name);
    }

    ngx_memzero(&args, sizeof(ngx_http_agent_tool_args_t));
    args.pool = t->run->pool;

    reader = ngx_agent_json_reader_create(ngx_http_agent_tools_arg, &args);
    if (reader == NULL) {
        return ngx_http_agent_tools_nomem(t);
    }

    rc = ngx_agent_json_reader_feed(reader, call->raw.data, call->raw.len);

    if (rc == NGX_OK) {
        rc = ngx_agent_json_reader_finish(reader);
    }

    ngx_agent_json_reader_free(reader);

    if (rc == NGX_ERROR) {
        return ngx_http_agent_tools_nomem(t);
    }

    if (rc != NGX_OK) {
        return ngx_http_agent_tools_say(t, call, "error: the arguments are "
                                        "not valid JSON; call %V again",
                                        &call->name);
    }

    return tool->handler(t, call, &args);
}


/* Called by the JSON reader; the text dies with the call, so it is copied. */

static ngx_int_t
ngx_http_agent_tools_arg(void *data, ngx_agent_json_value_t *v)
{
    ngx_http_agent_tool_args_t *args = data;

    ngx_uint_t  i;
    ngx_str_t  *dst;

    static ngx_str_t  names[] = {
        ngx_string("path"),
        ngx_string("content"),
        ngx_string("question"),
        ngx_string("summary"),
        ngx_string("secret")
    };

    for (i = 0; i < sizeof(names) / sizeof(ngx_str_t); i++) {
        if (v->path.len == names[i].len
            && ngx_memcmp(v->path.data, names[i].data, names[i].len) == 0)
        {
            break;
        }
    }

    switch (i) {
    case 0:
        dst = &args->path;
        break;
    case 1:
        dst = &args->content;
        break;
    case 2:
        dst = &args->question;
        break;
    case 3:
        dst = &args->summary;
        break;
    case 4:
        /* true, and "true", as small models write it */
        args->secret = (v->text.len == 4
                        && ngx_strncasecmp(v->text.data, (u_char *) "true", 4)
                           == 0);
        return NGX_OK;
    default:
        return NGX_OK;
    }

    if (v->type != NGX_AGENT_JSON_STRING) {
        return NGX_OK;
    }

    dst->data = ngx_pnalloc(args->pool, v->text.len + 1);
    if (dst->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(dst->data, v->text.data, v->text.len);
    dst->len = v->text.len;

    return NGX_OK;
}


/* Who asks the user has not finished: the question wins. */

static void
ngx_http_agent_tools_finish(ngx_http_agent_tools_t *t)
{
    ngx_uint_t                i;
    ngx_agent_openai_call_t  *call;

    static ngx_str_t  finish = ngx_string("finish");

    if (!t->waiting || !t->finished) {
        return;
    }

    t->finished = 0;

    for (i = 0; i < t->ncalls; i++) {
        call = &t->calls[i];

        if (call->name.len == finish.len
            && ngx_memcmp(call->name.data, finish.data, finish.len) == 0)
        {
            ngx_str_set(&call->result, "error: not finished, the user has to "
                        "answer first");
        }
    }
}


/* blob/ or store/ came back: the next call, or the end. */

void
ngx_http_agent_tools_resume(ngx_http_agent_tools_t *t, ngx_int_t rc)
{
    if (rc == NGX_OK) {
        t->next++;
        rc = ngx_http_agent_tools_go_on(t);
    }

    if (rc != NGX_AGAIN) {
        t->handler(t->run, rc);
    }
}


void
ngx_http_agent_tools_drop(ngx_http_agent_tools_t *t)
{
    if (t->storing) {
        ngx_agent_store_detach(&t->store);
        t->storing = 0;
    }

    /* a blob that is being committed ends with the pool it is in */
}


ngx_uint_t
ngx_http_agent_tools_known(ngx_str_t *name)
{
    return ngx_http_agent_tools_find(name) != NULL;
}


static ngx_http_agent_tool_t *
ngx_http_agent_tools_find(ngx_str_t *name)
{
    ngx_http_agent_tool_t  *tool;

    for (tool = ngx_http_agent_tool_table; tool->handler; tool++) {
        if (tool->name.len == name->len
            && ngx_memcmp(tool->name.data, name->data, name->len) == 0)
        {
            return tool;
        }
    }

    return NULL;
}


ngx_int_t
ngx_http_agent_tools_say(ngx_http_agent_tools_t *t,
    ngx_agent_openai_call_t *call, const char *fmt, ...)
{
    u_char   *p, *last;
    va_list   args;

    p = ngx_pnalloc(t->run->pool, 1024);
    if (p == NULL) {
        return ngx_http_agent_tools_nomem(t);
    }

    va_start(args, fmt);
    last = ngx_vslprintf(p, p + 1024, fmt, args);
    va_end(args);

    call->result.data = p;
    call->result.len = last - p;

    return NGX_OK;
}


ngx_int_t
ngx_http_agent_tools_nomem(ngx_http_agent_tools_t *t)
{
    ngx_http_agent_run_reason(t->run, "no memory",
                              "the server had no memory to carry out "
                              "the tool calls of agent \"%V\"",
                              &t->run->live->agent->name);
    return NGX_ERROR;
}


/* Left without a result: the next step's input is the answer. */

static ngx_int_t
ngx_http_agent_tool_ask(ngx_http_agent_tools_t *t,
    ngx_agent_openai_call_t *call, ngx_http_agent_tool_args_t *args)
{
    u_char     *p;
    ngx_str_t   question;

    if (args->question.len == 0) {
        return ngx_http_agent_tools_say(t, call, "error: \"question\" is "
                                        "missing or no string");
    }

    question = t->question;

    p = ngx_pnalloc(t->run->pool, question.len + 2 + args->question.len);
    if (p == NULL) {
        return ngx_http_agent_tools_nomem(t);
    }

    t->question.data = p;

    if (question.len) {
        p = ngx_cpymem(p, question.data, question.len);
        *p++ = LF;
        *p++ = LF;
    }

    p = ngx_cpymem(p, args->question.data, args->question.len);

    t->question.len = p - t->question.data;
    t->waiting = 1;
    t->secret |= args->secret;

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_tool_end(ngx_http_agent_tools_t *t,
    ngx_agent_openai_call_t *call, ngx_http_agent_tool_args_t *args)
{
    t->finished = 1;
    t->summary = args->summary;

    ngx_str_set(&call->result, "ok");

    return NGX_OK;
}
