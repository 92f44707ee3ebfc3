
/*
 * Names of artifacts: what a client or an LLM may call a file, and how a name
 * is written into a header.  Names are data: they never reach a path on disk.
 */

#ifndef _NGX_AGENT_NAME_H_INCLUDED_
#define _NGX_AGENT_NAME_H_INCLUDED_


#include "ngx_agent.h"


/*
 * Checks a file name: 1 to 255 bytes of UTF-8, no control characters, no
 * slash or backslash, neither "." nor "..".  NULL when good, else a static
 * text that reads on from "file name " ("is empty", ...).
 */
const char *ngx_agent_name_check(ngx_str_t *name);

/*
 * Checks a relative path: "" or segments joined by slashes, a trailing slash
 * allowed; not absolute, no "." or ".." segment, no backslash, no control
 * characters, at most 255 bytes.  NULL when good, else as above, to be read
 * on from "relative_path ".
 */
const char *ngx_agent_path_check(ngx_str_t *path);

/*
 * Splits a path an agent wrote ("src/a.txt") into relative_path ("src/") and
 * file_name ("a.txt"); a leading "./" is dropped.  NULL, or why not.
 */
const char *ngx_agent_path_split(ngx_str_t *path, ngx_str_t *relative_path,
    ngx_str_t *file_name);

/*
 * The value of Content-Disposition for a download (RFC 6266): attachment;
 * filename="ascii fallback"; filename*=UTF-8''... (RFC 8187) where needed.
 * NGX_OK, or NGX_ERROR: no memory.
 */
ngx_int_t ngx_agent_name_disposition(ngx_pool_t *pool, ngx_str_t *name,
    ngx_str_t *value);


#endif /* _NGX_AGENT_NAME_H_INCLUDED_ */
