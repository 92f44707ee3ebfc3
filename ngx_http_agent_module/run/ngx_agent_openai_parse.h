
/*
 * The openai dialect, inward: the bytes of a chat completion's answer, as
 * they come, into text, tool calls, usage or an error.  Bytes only: no
 * request, no I/O; fuzzed by t/fuzz.
 *
 * Endpoints differ, so it is generous: an event stream or plain JSON by its
 * first byte whatever the Content-Type says, any line ends, comments, null or
 * absent content, content in parts, a missing [DONE], a missing usage,
 * arguments as an object, calls without ids or with reused indices.
 */

#ifndef _NGX_AGENT_OPENAI_PARSE_H_INCLUDED_
#define _NGX_AGENT_OPENAI_PARSE_H_INCLUDED_


#include "ngx_agent.h"
#include "ngx_agent_sse.h"
#include "ngx_agent_openai_build.h"


/* tool calls that one answer may have */
#define NGX_AGENT_OPENAI_CALLS  128


typedef enum {
    NGX_AGENT_OPENAI_GOOD = 0,
    NGX_AGENT_OPENAI_CUT,          /* it ended too early */
    NGX_AGENT_OPENAI_RUBBISH,      /* it is no chat completion */
    NGX_AGENT_OPENAI_LARGE,        /* over a limit */
    NGX_AGENT_OPENAI_REPORTED      /* the endpoint says what is wrong */
} ngx_agent_openai_fault_e;


/* text that grows */

typedef struct {
    u_char                    *data;
    size_t                     len;
    size_t                     size;
} ngx_agent_openai_text_t;


/* a tool call while its pieces come in */

typedef struct {
    ngx_int_t                  index;        /* -1: none was given */
    ngx_agent_openai_text_t    id;
    ngx_agent_openai_text_t    name;
    ngx_agent_openai_text_t    arguments;
} ngx_agent_openai_part_t;


typedef struct {
    ngx_pool_t                *pool;
    size_t                     max;          /* bytes that are kept */
    size_t                     kept;
    uint64_t                   fed;
    ngx_uint_t                 mode;
    ngx_agent_sse_t            sse;
    ngx_agent_openai_text_t    body;         /* of a plain JSON answer */
    ngx_agent_openai_text_t    text;
    ngx_array_t                parts;        /* of part_t */
    ngx_agent_openai_part_t    piece;        /* the delta being read */
    ngx_str_t                 *doc;          /* the document being read */

    /* what it came to; filled by finish() */
    ngx_str_t                  content;      /* data NULL: none */
    ngx_array_t                calls;        /* of ngx_agent_openai_call_t */
    ngx_str_t                  finish_reason;
    uint64_t                   tokens_in;
    uint64_t                   tokens_out;

    ngx_agent_openai_fault_e   fault;
    const char                *why;          /* "the answer ...", static */
    ngx_str_t                  error;        /* REPORTED: in its words */
    ngx_uint_t                 error_code;   /* a status in it, or 0 */

    unsigned                   in_piece:1;
    unsigned                   seen:1;       /* a message or delta */
    unsigned                   events:1;     /* an event */
    unsigned                   done:1;       /* [DONE] */
    unsigned                   usage:1;
    unsigned                   ending:1;
    unsigned                   is_error:1;
} ngx_agent_openai_t;


/* NULL: no memory.  max: agent->max_answer. */
ngx_agent_openai_t *ngx_agent_openai_create(ngx_pool_t *pool, size_t max);

/*
 * Feeds bytes, any split.  NGX_OK: go on; NGX_DONE: the answer is complete,
 * what follows does not matter; NGX_DECLINED: it is no good, fault and why
 * tell; NGX_ERROR: no memory.
 */
ngx_int_t ngx_agent_openai_feed(ngx_agent_openai_t *o, u_char *p, size_t n);

/* End of input.  NGX_OK, NGX_DECLINED or NGX_ERROR as above. */
ngx_int_t ngx_agent_openai_finish(ngx_agent_openai_t *o);

/*
 * The message in the body of a refusal (a status of 300 or more): at most 300
 * bytes of valid UTF-8 without control characters in pool; len 0 when there
 * is none to be found.  NGX_OK or NGX_ERROR: no memory.
 */
ngx_int_t ngx_agent_openai_refusal(ngx_pool_t *pool, u_char *p, size_t n,
    ngx_str_t *message);


#endif /* _NGX_AGENT_OPENAI_PARSE_H_INCLUDED_ */
