
/*
 * multipart/form-data (RFC 7578, RFC 2046 section 5.1): reading as a stream.
 * Bytes only, no request in sight; fuzzed by t/fuzz.
 */

#ifndef _NGX_AGENT_MULTIPART_H_INCLUDED_
#define _NGX_AGENT_MULTIPART_H_INCLUDED_


#include "ngx_agent.h"


#define NGX_AGENT_MULTIPART_BOUNDARY  200    /* bytes; RFC 2046 says 70 */
#define NGX_AGENT_MULTIPART_HEADER    4096   /* bytes of one part's header */
#define NGX_AGENT_MULTIPART_PARTS     128    /* parts of one body */


typedef struct {
    ngx_str_t                  name;
    ngx_str_t                  filename;     /* data == NULL: none given;
                                                filename* wins (RFC 8187) */
    ngx_str_t                  content_type;
} ngx_agent_multipart_part_t;

/*
 * The callbacks; a code other than NGX_OK stops the parser and is what
 * ngx_agent_multipart_feed() returns.  The part's strings live until end().
 * data() gets the content in pieces and never an empty one.
 */
typedef struct {
    ngx_int_t  (*begin)(void *ctx, ngx_agent_multipart_part_t *part);
    ngx_int_t  (*data)(void *ctx, u_char *p, size_t n);
    ngx_int_t  (*end)(void *ctx);
} ngx_agent_multipart_cb_t;

typedef struct ngx_agent_multipart_s  ngx_agent_multipart_t;


/*
 * From the Content-Type header's value.  Returns NULL with *why set to a
 * static text when it is no multipart/form-data, has no boundary or one too
 * long ("has no boundary in its Content-Type"; it reads on from "the body "),
 * and with *why NULL when there is no memory.
 */
ngx_agent_multipart_t *ngx_agent_multipart_create(ngx_pool_t *pool,
    ngx_str_t *content_type, const ngx_agent_multipart_cb_t *cb, void *ctx,
    const char **why);

/*
 * Feeds bytes, any split, also inside a boundary.  NGX_OK: more is welcome;
 * NGX_DONE: the closing boundary was read (what follows is ignored);
 * NGX_DECLINED: broken, ngx_agent_multipart_why() tells; else a callback's.
 */
ngx_int_t ngx_agent_multipart_feed(ngx_agent_multipart_t *m, u_char *p,
    size_t n);

/* The static text for the last NGX_DECLINED; reads on from "the body ". */
const char *ngx_agent_multipart_why(ngx_agent_multipart_t *m);


#endif /* _NGX_AGENT_MULTIPART_H_INCLUDED_ */
