
/*
 * What all requests of a dialect end with, the tools: a trace has a mark in
 * its place, and the database has it once, or a trace would be mostly that.
 * Only static text is stored so, nothing that is somebody's.
 */

#include "ngx_http_agent_dialect.h"
#include "ngx_agent_store.h"
#include "ngx_agent_openai_build.h"
#include <openssl/evp.h>


/*
 * A "/" escaped as nothing else in a trace escapes it, so that no text can
 * pass for a mark; those who look at it without agent.whole_trace() have
 * valid JSON all the same.
 */
#define NGX_HTTP_AGENT_TRACE_FENCE      "\\/"
#define NGX_HTTP_AGENT_TRACE_FENCE_LEN  (sizeof("\\/") - 1)

/* bytes of a SHA-256 that tell one part from another */
#define NGX_HTTP_AGENT_TRACE_HASH       16

#define NGX_HTTP_AGENT_TRACE_MARK                                             \
    (2 * NGX_HTTP_AGENT_TRACE_FENCE_LEN + 2 * NGX_HTTP_AGENT_TRACE_HASH)


static u_char     ngx_http_agent_trace_fenced[NGX_HTTP_AGENT_TRACE_MARK];
static ngx_str_t  ngx_http_agent_trace_mark;


ngx_int_t
ngx_http_agent_trace_init(ngx_cycle_t *cycle)
{
    u_char            *p, hash[EVP_MAX_MD_SIZE];
    ngx_str_t          part;
    ngx_agent_json_t   j;

    /* as it stands in a string: without the quotes */

    ngx_agent_json_init(&j, cycle->pool, 2 * ngx_agent_openai_tools.len);
    ngx_agent_json_string(&j, &ngx_agent_openai_tools);

    if (ngx_agent_json_done(&j, &part) != NGX_OK) {
        return NGX_ERROR;
    }

    part.data++;
    part.len -= 2;

    if (EVP_Digest(part.data, part.len, hash, NULL, EVP_sha256(), NULL) != 1) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(ngx_http_agent_trace_fenced, NGX_HTTP_AGENT_TRACE_FENCE,
                   NGX_HTTP_AGENT_TRACE_FENCE_LEN);
    p = ngx_hex_dump(p, hash, NGX_HTTP_AGENT_TRACE_HASH);
    ngx_memcpy(p, NGX_HTTP_AGENT_TRACE_FENCE, NGX_HTTP_AGENT_TRACE_FENCE_LEN);

    ngx_http_agent_trace_mark.data = ngx_http_agent_trace_fenced;
    ngx_http_agent_trace_mark.len = NGX_HTTP_AGENT_TRACE_MARK;

    ngx_agent_store_share(&ngx_http_agent_trace_mark, &part);

    return NGX_OK;
}


ngx_str_t *
ngx_http_agent_trace_part(ngx_str_t *text)
{
    if (text->len == 0 || text->data != ngx_agent_openai_tools.data
        || !ngx_agent_store_shared())
    {
        return NULL;
    }

    return &ngx_http_agent_trace_mark;
}
