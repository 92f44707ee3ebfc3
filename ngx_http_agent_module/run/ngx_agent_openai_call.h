
/*
 * The openai dialect, inward: tool calls put together from their pieces.
 * Shared by the parser's two files only.
 */

#ifndef _NGX_AGENT_OPENAI_CALL_H_INCLUDED_
#define _NGX_AGENT_OPENAI_CALL_H_INCLUDED_


#include "ngx_agent_openai_parse.h"
#include "ngx_agent_json.h"


/* Notes the first fault; returns NGX_DECLINED. */
ngx_int_t ngx_agent_openai_fault(ngx_agent_openai_t *o,
    ngx_agent_openai_fault_e fault, const char *why);

/* Appends within max.  NGX_OK, NGX_DECLINED (a fault) or NGX_ERROR. */
ngx_int_t ngx_agent_openai_keep(ngx_agent_openai_t *o,
    ngx_agent_openai_text_t *t, const u_char *p, size_t n);

/* A value under "tool_calls."; p, n: the rest of its path ("0.function"). */
ngx_int_t ngx_agent_openai_piece(ngx_agent_openai_t *o,
    ngx_agent_json_value_t *v, u_char *p, size_t n);

/* The piece is whole: adds it to the call it belongs to. */
ngx_int_t ngx_agent_openai_flush(ngx_agent_openai_t *o);

/* Fills o->calls from the parts. */
ngx_int_t ngx_agent_openai_calls(ngx_agent_openai_t *o);


#endif /* _NGX_AGENT_OPENAI_CALL_H_INCLUDED_ */
