
/*
 * Ids: UUIDv7 (RFC 9562 section 5.7).  Bytes only.
 */

#ifndef _NGX_AGENT_ID_H_INCLUDED_
#define _NGX_AGENT_ID_H_INCLUDED_


#include "ngx_agent.h"


/*
 * Makes a new id.  Within one process ids only grow, also when the clock
 * steps back, so sorting by id is creation order; the random part comes from
 * the kernel, so that two workers or hosts never make the same id.
 */
void ngx_agent_id_create(ngx_agent_id_t *id);

/*
 * Parses the 36-character form, either case.  NGX_OK, or NGX_DECLINED when
 * the text is no uuid (for a client: an unknown id, 404).
 */
ngx_int_t ngx_agent_id_parse(ngx_str_t *text, ngx_agent_id_t *id);

/* Writes NGX_AGENT_ID_LEN lower-case characters, returns the end. */
u_char *ngx_agent_id_print(u_char *p, const ngx_agent_id_t *id);


#endif /* _NGX_AGENT_ID_H_INCLUDED_ */
