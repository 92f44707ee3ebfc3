
/*
 * The header Authorization with a bearer token (RFC 6750).  Bytes only: no
 * request is seen; fuzzed by t/fuzz.
 */

#ifndef _NGX_AGENT_BEARER_H_INCLUDED_
#define _NGX_AGENT_BEARER_H_INCLUDED_


#include "ngx_agent.h"


/* bytes of a token; a longer one is malformed */
#define NGX_AGENT_BEARER_MAX  1024


/*
 * The token of a header's value ("Bearer abc", section 2.1: the scheme in
 * any case, spaces, one b64token); it points into value.
 *
 *   NGX_OK        there is one
 *   NGX_DECLINED  value is NULL or empty, or of another scheme
 *   NGX_ERROR     malformed
 */
ngx_int_t ngx_agent_bearer(ngx_str_t *value, ngx_str_t *token);

/* Its SHA-256 (FIPS 180-4).  NGX_OK or NGX_ERROR: libcrypto refused. */
ngx_int_t ngx_agent_bearer_hash(ngx_str_t *token,
    u_char hash[NGX_AGENT_KEY_HASH]);

/* Frees what the hash has kept; the next one makes it anew. */
void ngx_agent_bearer_exit(void);


#endif /* _NGX_AGENT_BEARER_H_INCLUDED_ */
