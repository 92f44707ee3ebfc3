
/*
 * The lines of multipart/form-data: the boundary in a request's Content-Type,
 * and one part's header.  For ngx_agent_multipart.c; bytes only.
 */

#ifndef _NGX_AGENT_MULTIPART_HEADER_H_INCLUDED_
#define _NGX_AGENT_MULTIPART_HEADER_H_INCLUDED_


#include "ngx_agent_multipart.h"


/*
 * Copies the boundary of a Content-Type to buf, which has room for
 * NGX_AGENT_MULTIPART_BOUNDARY bytes.  NULL, or a text that says why not.
 */
const char *ngx_agent_multipart_boundary(ngx_str_t *content_type, u_char *buf,
    size_t *len);

/*
 * Reads a part's header: lines, each with its CR LF.  The bytes are changed,
 * and the part's strings point into them.  NULL, or why not.
 */
const char *ngx_agent_multipart_part(u_char *p, size_t n,
    ngx_agent_multipart_part_t *part);


#endif /* _NGX_AGENT_MULTIPART_HEADER_H_INCLUDED_ */
