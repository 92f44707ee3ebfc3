
/*
 * The openai dialect, outward: a task's conversation as the body of a chat
 * completion request, and a step's turns as they are stored.  Bytes only: no
 * request, no I/O.
 */

#ifndef _NGX_AGENT_OPENAI_BUILD_H_INCLUDED_
#define _NGX_AGENT_OPENAI_BUILD_H_INCLUDED_


#include "ngx_agent.h"


/* bytes of a tool's name that endpoints take back in a later request */
#define NGX_AGENT_OPENAI_NAME_LEN  64


/* One tool call of an answer, and what became of it. */

typedef struct {
    ngx_str_t                  id;
    ngx_str_t                  name;         /* [a-zA-Z0-9_-]{1,64} */
    ngx_str_t                  raw;          /* arguments, as received */
    ngx_str_t                  arguments;    /* the same as a JSON object, to
                                                be sent back */
    ngx_str_t                  result;       /* data NULL: left unanswered */
} ngx_agent_openai_call_t;


/* The end of every body: the tools, as the endpoint wants them. */
extern ngx_str_t  ngx_agent_openai_tools;


/*
 * history: ngx_agent_step_t, all steps before this one, oldest first; may be
 * NULL.  step: the step to be run, its input in clear.  The body comes in two
 * parts, to be sent one after the other: "body" is in pool, "tail" is static,
 * and no call that waits pays for it.  NGX_OK, or NGX_ERROR: no memory.
 */
ngx_int_t ngx_agent_openai_build(ngx_pool_t *pool, ngx_agent_agent_t *agent,
    ngx_agent_task_t *task, ngx_array_t *history, ngx_agent_step_t *step,
    ngx_str_t *body, ngx_str_t *tail);

/*
 * The messages a step adds to the conversation: the assistant's, then a tool
 * message for each call that has a result.  content: data NULL writes null.
 */
ngx_int_t ngx_agent_openai_turns(ngx_pool_t *pool, ngx_str_t *content,
    ngx_agent_openai_call_t *calls, ngx_uint_t ncalls, ngx_str_t *turns);


#endif /* _NGX_AGENT_OPENAI_BUILD_H_INCLUDED_ */
