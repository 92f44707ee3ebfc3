
/*
 * The tools that the module offers to an LLM and carries out itself, one
 * after the other, over blob/ and store/.  What an LLM gets wrong is told to
 * it as the tool's result; only what the server cannot do is an error.
 */

#ifndef _NGX_HTTP_AGENT_TOOLS_H_INCLUDED_
#define _NGX_HTTP_AGENT_TOOLS_H_INCLUDED_


#include "ngx_http_agent_dialect.h"
#include "ngx_agent_openai_build.h"


typedef struct ngx_http_agent_tools_s  ngx_http_agent_tools_t;

typedef void (*ngx_http_agent_tools_pt)(ngx_http_agent_run_t *run,
    ngx_int_t rc);


/* The arguments of a call; data == NULL: not given. */

typedef struct {
    ngx_pool_t                *pool;
    ngx_str_t                  path;
    ngx_str_t                  content;
    ngx_str_t                  question;
    ngx_str_t                  summary;
    unsigned                   secret:1;
} ngx_http_agent_tool_args_t;


struct ngx_http_agent_tools_s {
    ngx_http_agent_run_t      *run;
    ngx_http_agent_tools_pt    handler;
    ngx_agent_openai_call_t   *calls;
    ngx_uint_t                 ncalls;
    ngx_uint_t                 next;         /* the call being carried out */

    ngx_str_t                  summary;      /* of finish */
    ngx_str_t                  question;     /* of ask_user, all of them */
    unsigned                   finished:1;
    unsigned                   waiting:1;
    unsigned                   secret:1;

    /* private */
    ngx_agent_artifact_t       artifact;
    ngx_agent_store_call_t     store;
    ngx_agent_page_t           page;
    size_t                     budget;       /* bytes that may yet be read */
    unsigned                   storing:1;    /* the store will call back */
};


/*
 * Carries out t->calls (run, handler, calls and ncalls are set; the rest is
 * zero), all memory in run->pool, artifacts into live->artifacts.  NGX_OK;
 * NGX_ERROR: run->reason is set; NGX_AGAIN: the handler will run, from an
 * event, with one of the two.
 */
ngx_int_t ngx_http_agent_tools_start(ngx_http_agent_tools_t *t);

/* No handler runs any more; run->pool is freed next. */
void ngx_http_agent_tools_drop(ngx_http_agent_tools_t *t);

/* 1: the module offers a tool of this name */
ngx_uint_t ngx_http_agent_tools_known(ngx_str_t *name);


/*
 * A tool: sets the call's result and returns NGX_OK; NGX_AGAIN when blob/ or
 * store/ will come back, to ngx_http_agent_tools_resume(); or NGX_ERROR with
 * the run's reason set.
 */
typedef ngx_int_t (*ngx_http_agent_tool_pt)(ngx_http_agent_tools_t *t,
    ngx_agent_openai_call_t *call, ngx_http_agent_tool_args_t *args);

ngx_int_t ngx_http_agent_tool_write(ngx_http_agent_tools_t *t,
    ngx_agent_openai_call_t *call, ngx_http_agent_tool_args_t *args);
ngx_int_t ngx_http_agent_tool_read(ngx_http_agent_tools_t *t,
    ngx_agent_openai_call_t *call, ngx_http_agent_tool_args_t *args);
ngx_int_t ngx_http_agent_tool_list(ngx_http_agent_tools_t *t,
    ngx_agent_openai_call_t *call, ngx_http_agent_tool_args_t *args);

/* the waiting call has its result (NGX_OK) or cannot be done (NGX_ERROR) */
void ngx_http_agent_tools_resume(ngx_http_agent_tools_t *t, ngx_int_t rc);

/* a result in words, up to 1 KB; NGX_OK, or NGX_ERROR: no memory */
ngx_int_t ngx_http_agent_tools_say(ngx_http_agent_tools_t *t,
    ngx_agent_openai_call_t *call, const char *fmt, ...);

/* sets the run's reason; returns NGX_ERROR */
ngx_int_t ngx_http_agent_tools_nomem(ngx_http_agent_tools_t *t);


#endif /* _NGX_HTTP_AGENT_TOOLS_H_INCLUDED_ */
