
/*
 * The openai dialect, outward: messages and tools as JSON.  Bytes only: no
 * request and no I/O in here, so that it can be tested and fuzzed alone.
 */

#include "ngx_agent_openai_build.h"
#include "ngx_agent_json.h"


/* what the conversation's last message is: who has to speak next? */

typedef enum {
    NGX_AGENT_LAST_NONE = 0,
    NGX_AGENT_LAST_ASKER,        /* user, tool: the model's turn */
    NGX_AGENT_LAST_ASSISTANT
} ngx_agent_last_e;


typedef struct {
    ngx_agent_json_t           json;
    ngx_agent_last_e           last;
    ngx_agent_step_t          *waiting;   /* the step that asked the user */
    ngx_agent_step_t          *unheard;   /* its input had no answer */
} ngx_agent_talk_t;


static void ngx_agent_talk_text(ngx_agent_talk_t *t, const char *role,
    ngx_str_t *text);
static void ngx_agent_talk_step(ngx_agent_talk_t *t, ngx_agent_step_t *step);
static void ngx_agent_talk_unheard(ngx_agent_talk_t *t,
    ngx_agent_step_t *step);
static void ngx_agent_talk_input(ngx_agent_talk_t *t, ngx_str_t *input);
static void ngx_agent_talk_said(ngx_agent_talk_t *t, ngx_str_t *input);
static ngx_uint_t ngx_agent_talk_answer(ngx_agent_talk_t *t,
    ngx_str_t *input);
static ngx_uint_t ngx_agent_talk_answer_call(ngx_agent_talk_t *t,
    ngx_str_t *call, ngx_str_t *input);
static void ngx_agent_talk_turns(ngx_agent_talk_t *t, ngx_str_t *turns);
static size_t ngx_agent_talk_size(ngx_agent_agent_t *agent,
    ngx_agent_task_t *task, ngx_array_t *history, ngx_agent_step_t *step);


/* ngx_http_agent_tools.c carries them out */

ngx_str_t  ngx_agent_openai_tools = ngx_string(
    ",\"tools\":["
    "{\"type\":\"function\",\"function\":{\"name\":\"write_artifact\","
    "\"description\":\"Writes a file that the user gets. Give the whole "
    "content; writing the same path again makes a new version.\","
    "\"parameters\":{\"type\":\"object\",\"properties\":{"
    "\"path\":{\"type\":\"string\",\"description\":"
    "\"relative path, for example docs/plan.md\"},"
    "\"content\":{\"type\":\"string\"}},"
    "\"required\":[\"path\",\"content\"]}}},"

    "{\"type\":\"function\",\"function\":{\"name\":\"read_artifact\","
    "\"description\":\"Reads a file of this task: one that you wrote or "
    "that the user uploaded.\","
    "\"parameters\":{\"type\":\"object\",\"properties\":{"
    "\"path\":{\"type\":\"string\"}},\"required\":[\"path\"]}}},"

    "{\"type\":\"function\",\"function\":{\"name\":\"list_artifacts\","
    "\"description\":\"Lists the paths of this task's files.\","
    "\"parameters\":{\"type\":\"object\",\"properties\":{}}}},"

    "{\"type\":\"function\",\"function\":{\"name\":\"ask_user\","
    "\"description\":\"Asks the user and waits for the answer. Set secret "
    "when the answer is a password, key or the like.\","
    "\"parameters\":{\"type\":\"object\",\"properties\":{"
    "\"question\":{\"type\":\"string\"},"
    "\"secret\":{\"type\":\"boolean\"}},\"required\":[\"question\"]}}},"

    "{\"type\":\"function\",\"function\":{\"name\":\"finish\","
    "\"description\":\"Ends the task; call it when all is done.\","
    "\"parameters\":{\"type\":\"object\",\"properties\":{"
    "\"summary\":{\"type\":\"string\",\"description\":"
    "\"what was done, for the user\"}},\"required\":[\"summary\"]}}}]}");


/* what the user says where the user said nothing */

static ngx_str_t  ngx_agent_openai_begin = ngx_string("Begin.");
static ngx_str_t  ngx_agent_openai_go_on = ngx_string("Continue.");


ngx_int_t
ngx_agent_openai_build(ngx_pool_t *pool, ngx_agent_agent_t *agent,
    ngx_agent_task_t *task, ngx_array_t *history, ngx_agent_step_t *step,
    ngx_str_t *body, ngx_str_t *tail)
{
    ngx_uint_t         i, n;
    ngx_agent_talk_t   t;
    ngx_agent_step_t  *steps;
    ngx_agent_json_t  *j;

    ngx_memzero(&t, sizeof(ngx_agent_talk_t));

    j = &t.json;

    /* sized at the first go: a body of megabytes is not grown by copying */

    ngx_agent_json_init(j, pool,
                        ngx_agent_talk_size(agent, task, history, step));

    ngx_agent_json_object(j);

    if (agent->model.len) {
        ngx_agent_json_key(j, "model");
        ngx_agent_json_string(j, &agent->model);
    }

    ngx_agent_json_key(j, "messages");
    ngx_agent_json_array(j);

    if (agent->instructions.len) {
        ngx_agent_talk_text(&t, "system", &agent->instructions);
        t.last = NGX_AGENT_LAST_NONE;
    }

    if (task->input.len) {
        ngx_agent_talk_text(&t, "user", &task->input);
    }

    steps = history ? history->elts : NULL;
    n = history ? history->nelts : 0;

    for (i = 0; i < n; i++) {
        ngx_agent_talk_step(&t, &steps[i]);
    }

    ngx_agent_talk_input(&t, &step->input);

    /* endpoints refuse an empty talk and one that ends with their own words */

    if (t.last == NGX_AGENT_LAST_NONE) {
        ngx_agent_talk_text(&t, "user", &ngx_agent_openai_begin);

    } else if (t.last == NGX_AGENT_LAST_ASSISTANT) {
        ngx_agent_talk_text(&t, "user", &ngx_agent_openai_go_on);
    }

    ngx_agent_json_array_end(j);

    ngx_agent_json_key(j, "stream");
    ngx_agent_json_bool(j, 1);

    ngx_agent_json_key(j, "stream_options");
    ngx_agent_json_object(j);
    ngx_agent_json_key(j, "include_usage");
    ngx_agent_json_bool(j, 1);
    ngx_agent_json_object_end(j);

    /* left open: the tail closes it */

    *tail = ngx_agent_openai_tools;

    return ngx_agent_json_done(j, body);
}


static void
ngx_agent_talk_text(ngx_agent_talk_t *t, const char *role, ngx_str_t *text)
{
    ngx_agent_json_t  *j;

    j = &t->json;

    ngx_agent_json_object(j);
    ngx_agent_json_key(j, "role");
    ngx_agent_json_cstring(j, role);
    ngx_agent_json_key(j, "content");
    ngx_agent_json_string(j, text);
    ngx_agent_json_object_end(j);

    t->last = NGX_AGENT_LAST_ASKER;
}


/* An earlier step.  One that did not end well has said nothing. */

static void
ngx_agent_talk_step(ngx_agent_talk_t *t, ngx_agent_step_t *step)
{
    if (step->status != NGX_AGENT_STEP_COMPLETED
        && step->status != NGX_AGENT_STEP_WAITING)
    {
        ngx_agent_talk_unheard(t, step);
        return;
    }

    ngx_agent_talk_input(t, &step->input);

    if (step->turns.len == 0) {
        return;
    }

    /* a plain next step after the assistant's words: keep the turns apart */

    if (t->last == NGX_AGENT_LAST_ASSISTANT) {
        ngx_agent_talk_text(t, "user", &ngx_agent_openai_go_on);
    }

    ngx_agent_talk_turns(t, &step->turns);

    if (step->status == NGX_AGENT_STEP_WAITING) {
        t->waiting = step;
    }
}


/*
 * What the user said in a step that failed or was cancelled is kept until it
 * is clear what comes next: the same again, which is not to be said twice;
 * another answer to the agent's question, which has only one; or nothing,
 * and then it counts.  A secret is not among it: its text is not here.
 */

static void
ngx_agent_talk_unheard(ngx_agent_talk_t *t, ngx_agent_step_t *step)
{
    if (step->input.len == 0 || (t->waiting && t->waiting->secret)) {
        return;
    }

    ngx_agent_talk_said(t, &step->input);
    t->unheard = step;
}


/* Ahead of another input: what was said before and still counts. */

static void
ngx_agent_talk_said(ngx_agent_talk_t *t, ngx_str_t *input)
{
    ngx_agent_step_t  *step;

    step = t->unheard;
    t->unheard = NULL;

    if (step == NULL || t->waiting
        || step->status == NGX_AGENT_STEP_CANCELLED
        || (step->input.len == input->len
            && ngx_memcmp(step->input.data, input->data, input->len) == 0))
    {
        return;
    }

    ngx_agent_talk_text(t, "user", &step->input);
}


static void
ngx_agent_talk_input(ngx_agent_talk_t *t, ngx_str_t *input)
{
    if (input->len) {
        ngx_agent_talk_said(t, input);

    } else if (t->unheard) {
        input = &t->unheard->input;
        t->unheard = NULL;
    }

    if (t->waiting && ngx_agent_talk_answer(t, input)) {
        t->waiting = NULL;
        return;
    }

    t->waiting = NULL;

    if (input->len) {
        ngx_agent_talk_text(t, "user", input);
    }
}


/*
 * The input is the answer to each ask_user of the step before; every call has
 * to be answered, or the endpoint refuses the whole talk.  Returns how many
 * calls there were.
 */

static ngx_uint_t
ngx_agent_talk_answer(ngx_agent_talk_t *t, ngx_str_t *input)
{
    u_char      *mpos, *cpos;
    ngx_str_t    message, calls, call;
    ngx_uint_t   n;

    n = 0;
    mpos = NULL;

    while (ngx_agent_json_element(&t->waiting->turns, &mpos, &message)
           == NGX_OK)
    {
        if (ngx_agent_json_member(&message, "tool_calls", &calls) != NGX_OK) {
            continue;
        }

        cpos = NULL;

        while (ngx_agent_json_element(&calls, &cpos, &call) == NGX_OK) {
            n += ngx_agent_talk_answer_call(t, &call, input);
        }
    }

    return n;
}


static ngx_uint_t
ngx_agent_talk_answer_call(ngx_agent_talk_t *t, ngx_str_t *call,
    ngx_str_t *input)
{
    ngx_str_t          function, name, id;
    ngx_agent_json_t  *j;

    static ngx_str_t   ask = ngx_string("\"ask_user\"");
    static ngx_str_t   none = ngx_string("(the user gave no answer)");

    if (ngx_agent_json_member(call, "function", &function) != NGX_OK
        || ngx_agent_json_member(&function, "name", &name) != NGX_OK
        || ngx_agent_json_member(call, "id", &id) != NGX_OK)
    {
        return 0;
    }

    /* the turns are our own writing: names stand there without escapes */

    if (name.len != ask.len
        || ngx_strncmp(name.data, ask.data, ask.len) != 0)
    {
        return 0;
    }

    j = &t->json;

    ngx_agent_json_object(j);
    ngx_agent_json_key(j, "role");
    ngx_agent_json_cstring(j, "tool");
    ngx_agent_json_key(j, "tool_call_id");
    ngx_agent_json_raw(j, &id, "\"\"");
    ngx_agent_json_key(j, "content");
    ngx_agent_json_string(j, input->len ? input : &none);
    ngx_agent_json_object_end(j);

    t->last = NGX_AGENT_LAST_ASKER;

    return 1;
}


static void
ngx_agent_talk_turns(ngx_agent_talk_t *t, ngx_str_t *turns)
{
    u_char     *pos;
    ngx_str_t   message, role;

    pos = NULL;

    while (ngx_agent_json_element(turns, &pos, &message) == NGX_OK) {
        ngx_agent_json_raw(&t->json, &message, "null");

        t->last = NGX_AGENT_LAST_ASKER;

        if (ngx_agent_json_member(&message, "role", &role) == NGX_OK
            && role.len == sizeof("\"assistant\"") - 1)
        {
            t->last = NGX_AGENT_LAST_ASSISTANT;
        }
    }
}


static size_t
ngx_agent_talk_size(ngx_agent_agent_t *agent, ngx_agent_task_t *task,
    ngx_array_t *history, ngx_agent_step_t *step)
{
    size_t             size;
    ngx_uint_t         i;
    ngx_agent_step_t  *steps;

    size = 256 + agent->model.len + agent->instructions.len
           + task->input.len + step->input.len;

    if (history) {
        steps = history->elts;

        for (i = 0; i < history->nelts; i++) {
            size += 64 + steps[i].input.len + steps[i].turns.len;
        }
    }

    /* room for escapes: a text with a line feed here and there */

    return size + size / 16;
}


ngx_int_t
ngx_agent_openai_turns(ngx_pool_t *pool, ngx_str_t *content,
    ngx_agent_openai_call_t *calls, ngx_uint_t ncalls, ngx_str_t *turns)
{
    size_t            size;
    ngx_uint_t        i;
    ngx_agent_json_t  j;

    size = 64 + content->len;

    for (i = 0; i < ncalls; i++) {
        size += 192 + calls[i].arguments.len + calls[i].result.len;
    }

    ngx_agent_json_init(&j, pool, size + size / 16);

    ngx_agent_json_array(&j);
    ngx_agent_json_object(&j);
    ngx_agent_json_key(&j, "role");
    ngx_agent_json_cstring(&j, "assistant");
    ngx_agent_json_key(&j, "content");
    ngx_agent_json_string(&j, content);

    if (ncalls) {
        ngx_agent_json_key(&j, "tool_calls");
        ngx_agent_json_array(&j);
    }

    for (i = 0; i < ncalls; i++) {
        ngx_agent_json_object(&j);
        ngx_agent_json_key(&j, "id");
        ngx_agent_json_string(&j, &calls[i].id);
        ngx_agent_json_key(&j, "type");
        ngx_agent_json_cstring(&j, "function");
        ngx_agent_json_key(&j, "function");
        ngx_agent_json_object(&j);
        ngx_agent_json_key(&j, "name");
        ngx_agent_json_string(&j, &calls[i].name);
        ngx_agent_json_key(&j, "arguments");
        ngx_agent_json_string(&j, &calls[i].arguments);
        ngx_agent_json_object_end(&j);
        ngx_agent_json_object_end(&j);
    }

    if (ncalls) {
        ngx_agent_json_array_end(&j);
    }

    ngx_agent_json_object_end(&j);

    for (i = 0; i < ncalls; i++) {
        if (calls[i].result.data == NULL) {
            continue;
        }

        ngx_agent_json_object(&j);
        ngx_agent_json_key(&j, "role");
        ngx_agent_json_cstring(&j, "tool");
        ngx_agent_json_key(&j, "tool_call_id");
        ngx_agent_json_string(&j, &calls[i].id);
        ngx_agent_json_key(&j, "content");
        ngx_agent_json_string(&j, &calls[i].result);
        ngx_agent_json_object_end(&j);
    }

    ngx_agent_json_array_end(&j);

    return ngx_agent_json_done(&j, turns);
}
