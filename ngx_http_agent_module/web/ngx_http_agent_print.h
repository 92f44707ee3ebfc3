
/*
 * Prints: a request's content as one short text, SHA-256 in hex, by which a
 * later request with the same Idempotency-Key is known to be the same.
 */

#ifndef _NGX_HTTP_AGENT_PRINT_H_INCLUDED_
#define _NGX_HTTP_AGENT_PRINT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


typedef struct ngx_http_agent_print_s  ngx_http_agent_print_t;


/* NULL: no memory.  What it holds outside of the pool goes with the pool. */
ngx_http_agent_print_t *ngx_http_agent_print_create(ngx_pool_t *pool);

/* One field: where it ends is a part of the print, and so is a null. */
void ngx_http_agent_print_field(ngx_http_agent_print_t *print,
    ngx_str_t *field);

/* A piece of something long; whoever adds it adds a length of its own. */
void ngx_http_agent_print_piece(ngx_http_agent_print_t *print,
    const u_char *p, size_t n);

/* The text, in pool.  NGX_OK, or NGX_ERROR: some step has failed. */
ngx_int_t ngx_http_agent_print_done(ngx_http_agent_print_t *print,
    ngx_str_t *text);


#endif /* _NGX_HTTP_AGENT_PRINT_H_INCLUDED_ */
