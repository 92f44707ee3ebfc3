
/*
 * The conversation as an endpoint gets it, from steps that went well, failed,
 * were cancelled, asked the user or asked for a secret.
 */

#include "stub.h"
#include "ngx_agent_openai_build.h"


#define ASK(id)  "{\"id\":\"" id "\",\"type\":\"function\",\"function\":"     \
                 "{\"name\":\"ask_user\",\"arguments\":\"{}\"}}"

#define ASKED    "[{\"role\":\"assistant\",\"content\":null,"                 \
                 "\"tool_calls\":[" ASK("1") "," ASK("2") "]}]"

#define SAID     "[{\"role\":\"assistant\",\"content\":\"ok\"}]"


static ngx_array_t         steps;
static ngx_array_t        *history = &steps;
static ngx_agent_step_t    now;
static ngx_agent_task_t    task;
static ngx_agent_agent_t   agent;


static void
begin(ngx_pool_t *pool)
{
    if (ngx_array_init(history, pool, 8, sizeof(ngx_agent_step_t)) != NGX_OK) {
        abort();
    }

    memset(&now, 0, sizeof(now));
    memset(&task, 0, sizeof(task));
    memset(&agent, 0, sizeof(agent));
    task.input = S("task");
}


static ngx_agent_step_t *
step(ngx_agent_status_e status, const char *input, const char *turns)
{
    ngx_agent_step_t  *s;

    s = ngx_array_push(history);
    memset(s, 0, sizeof(ngx_agent_step_t));

    s->status = status;
    s->input = (ngx_str_t) { strlen(input), (u_char *) input };
    s->turns = (ngx_str_t) { strlen(turns), (u_char *) turns };

    return s;
}


/* what is told: the messages behind the task's own, without what is fixed */

static void
told(ngx_pool_t *pool, const char *input, const char *expected,
    const char *what)
{
    char       *p, *end;
    ngx_str_t   body, tail;

    static char  first[] = "{\"role\":\"user\",\"content\":\"task\"}";

    now.input = (ngx_str_t) { strlen(input), (u_char *) input };

    if (ngx_agent_openai_build(pool, &agent, &task, history, &now, &body,
                               &tail)
        != NGX_OK)
    {
        ok(0, "%s: it is built", what);
        return;
    }

    p = memmem(body.data, body.len, first, sizeof(first) - 1);
    end = p ? memmem(p, (char *) body.data + body.len - p, "],\"stream\"", 10)
            : NULL;

    if (end == NULL) {
        ok(0, "%s: there are messages", what);
        return;
    }

    p += sizeof(first) - 1;

    ok((size_t) (end - p) == strlen(expected)
       && memcmp(p, expected, end - p) == 0,
       "%s: %.*s", what, (int) (end - p), p);
}


#define USER(text)      ",{\"role\":\"user\",\"content\":\"" text "\"}"
#define TOOL(id, text)  ",{\"role\":\"tool\",\"tool_call_id\":\"" id "\","    \
                        "\"content\":\"" text "\"}"
#define OK              ",{\"role\":\"assistant\",\"content\":\"ok\"}"
#define QUESTIONS       ",{\"role\":\"assistant\",\"content\":null,"          \
                        "\"tool_calls\":[" ASK("1") "," ASK("2") "]}"


static void
unheard(ngx_pool_t *pool)
{
    begin(pool);
    step(NGX_AGENT_STEP_FAILED, "a", "");
    told(pool, "a", USER("a"), "the same again after a failure");
    told(pool, "b", USER("a") USER("b"), "another input after it");
    told(pool, "", USER("a"), "no input after it");

    begin(pool);
    step(NGX_AGENT_STEP_FAILED, "a", "");
    step(NGX_AGENT_STEP_FAILED, "a", "");
    step(NGX_AGENT_STEP_FAILED, "", "");
    told(pool, "a", USER("a"), "the same three times");

    begin(pool);
    step(NGX_AGENT_STEP_FAILED, "a", "");
    step(NGX_AGENT_STEP_COMPLETED, "a", SAID);
    told(pool, "b", USER("a") OK USER("b"), "heard at last");

    begin(pool);
    step(NGX_AGENT_STEP_CANCELLED, "a", "");
    told(pool, "b", USER("b"), "what was cancelled is not said");
    told(pool, "", USER("a"), "unless it is gone on with");

    begin(pool);
    step(NGX_AGENT_STEP_COMPLETED, "a", SAID);
    step(NGX_AGENT_STEP_FAILED, "b", "");
    told(pool, "b", USER("a") OK USER("b"), "behind an answer");

    begin(pool);
    step(NGX_AGENT_STEP_COMPLETED, "a", SAID);
    step(NGX_AGENT_STEP_CREATED, "", "");
    told(pool, "", USER("a") OK USER("Continue."), "nothing was said");
}


static void
answers(ngx_pool_t *pool)
{
    ngx_agent_step_t  *s;

    begin(pool);
    step(NGX_AGENT_STEP_WAITING, "", ASKED);
    told(pool, "x", QUESTIONS TOOL("1", "x") TOOL("2", "x"),
         "both questions are answered");
    told(pool, "", QUESTIONS TOOL("1", "(the user gave no answer)")
                   TOOL("2", "(the user gave no answer)"),
         "with nothing, too");

    begin(pool);
    step(NGX_AGENT_STEP_WAITING, "", ASKED);
    step(NGX_AGENT_STEP_FAILED, "x", "");
    step(NGX_AGENT_STEP_CANCELLED, "y", "");
    told(pool, "z", QUESTIONS TOOL("1", "z") TOOL("2", "z"),
         "the answer that is heard counts");
    told(pool, "", QUESTIONS TOOL("1", "y") TOOL("2", "y"),
         "or else the last one");

    begin(pool);
    s = step(NGX_AGENT_STEP_WAITING, "", ASKED);
    s->secret = 1;
    step(NGX_AGENT_STEP_FAILED, "[redacted]", "");
    told(pool, "pw", QUESTIONS TOOL("1", "pw") TOOL("2", "pw"),
         "a secret that failed is not said");
    told(pool, "", QUESTIONS TOOL("1", "(the user gave no answer)")
                   TOOL("2", "(the user gave no answer)"),
         "nor when nothing follows");

    begin(pool);
    s = step(NGX_AGENT_STEP_WAITING, "", ASKED);
    s->secret = 1;
    step(NGX_AGENT_STEP_COMPLETED, "[redacted]", SAID);
    step(NGX_AGENT_STEP_FAILED, "a", "");
    told(pool, "b", QUESTIONS TOOL("1", "[redacted]") TOOL("2", "[redacted]")
                    OK USER("a") USER("b"),
         "one that was heard stays what it was");
}


int
main(void)
{
    ngx_pool_t  *pool;

    pool = stub_pool();

    unheard(pool);
    answers(pool);

    ngx_destroy_pool(pool);

    return done_testing();
}
