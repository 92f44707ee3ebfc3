
/*
 * Request headers whose values are small languages of their own: Prefer (RFC
 * 7240) and Idempotency-Key.  Bytes only: no request is seen; fuzzed by
 * t/fuzz.
 */

#ifndef _NGX_AGENT_PREFER_H_INCLUDED_
#define _NGX_AGENT_PREFER_H_INCLUDED_


#include "ngx_agent.h"


/* seconds that "wait" can ask for; more is taken for this */
#define NGX_AGENT_PREFER_WAIT  3600

/* bytes of an Idempotency-Key, when it is unquoted */
#define NGX_AGENT_KEY_MAX      255


/* What a client prefers; zeroed before the first of its headers is read. */

typedef struct {
    ngx_uint_t                 wait;         /* seconds, if has_wait */
    unsigned                   has_wait:1;
    unsigned                   async:1;      /* respond-async */

    /* private */
    unsigned                   seen_wait:1;
    unsigned                   seen_async:1;
} ngx_agent_prefer_t;


/*
 * Reads one Prefer header.  Of a preference that is given twice the first
 * counts.  What is unknown or makes no sense is passed over, as the RFC wants
 * it: a preference is a wish, and never an error.
 */
void ngx_agent_prefer_read(ngx_str_t *value, ngx_agent_prefer_t *prefer);

/*
 * Reads an Idempotency-Key: a string of structured fields (RFC 8941), in
 * quotes, or the same without them.  buf has NGX_AGENT_KEY_MAX bytes, and
 * *key points into it.  NULL, or a static text that reads on from the
 * header's name ("is empty").
 */
const char *ngx_agent_prefer_key(ngx_str_t *value, u_char *buf,
    ngx_str_t *key);


#endif /* _NGX_AGENT_PREFER_H_INCLUDED_ */
