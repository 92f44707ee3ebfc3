
/*
 * A secret that must not be stored: found in texts, however they escape it,
 * and taken out of them.  Bytes only: no request, no I/O; fuzzed by t/fuzz.
 */

#ifndef _NGX_AGENT_REDACT_H_INCLUDED_
#define _NGX_AGENT_REDACT_H_INCLUDED_


#include "ngx_agent.h"


/* a secret with fewer bytes is not looked for: it would be everywhere */
#define NGX_AGENT_REDACT_MIN   4

/* what stands in its place */
#define NGX_AGENT_REDACT_MARK  "[redacted]"


/*
 * What is looked for is the secret without its white space, and white space
 * in a text is passed over, too: an endpoint may fold lines, and what shows
 * errors makes one line of several.
 */

typedef struct {
    u_char                    *needle;
    size_t                     size;         /* all of it */
    size_t                     len;          /* as much as is searched for;
                                                0: nothing is */
    size_t                    *fail;         /* Knuth, Morris and Pratt */
    u_char                   **ring;         /* where the last bytes stood */
    unsigned                   loose:1;      /* white space does not count */
} ngx_agent_redact_t;


/* Memory is bounded by the secret.  NULL: no memory. */
ngx_agent_redact_t *ngx_agent_redact_create(ngx_pool_t *pool,
    ngx_str_t *secret);

/*
 * Takes the secret out of a text: plain, or escaped as in JSON, also twice.
 * cut: the text may end in the middle of the secret, and its beginning goes
 * as well.  A text that is changed is made anew in pool; takes time by the
 * length of the text, whatever is in it.  NGX_OK, or NGX_ERROR: no memory.
 */
ngx_int_t ngx_agent_redact_text(ngx_agent_redact_t *r, ngx_pool_t *pool,
    ngx_str_t *text, ngx_uint_t cut);

/*
 * The same for JSON, which stays JSON: a number or a literal with the secret
 * in it becomes a string.
 */
ngx_int_t ngx_agent_redact_json(ngx_agent_redact_t *r, ngx_pool_t *pool,
    ngx_str_t *doc);

/* The secret's copy is overwritten; nothing is found any more. */
void ngx_agent_redact_wipe(ngx_agent_redact_t *r);


#endif /* _NGX_AGENT_REDACT_H_INCLUDED_ */
