
/*
 * Where blobs lie on the disk, and what makes them last.  For the files of
 * blob/ only.  The functions of the second group may run in a thread: they
 * touch no pool, no log and no event.
 */

#ifndef _NGX_AGENT_BLOB_FILE_H_INCLUDED_
#define _NGX_AGENT_BLOB_FILE_H_INCLUDED_


#include "ngx_agent_blob.h"


/* what stands behind the root: "/tmp/" or "/xx/", an id, a zero byte */
#define NGX_AGENT_BLOB_TAIL  (sizeof("/tmp/") + NGX_AGENT_ID_LEN)


/* What went wrong: the call that failed, and its errno. */

typedef struct {
    const char                *call;
    ngx_err_t                  err;
} ngx_agent_blob_error_t;


/* Makes the folders below root; at process start. */
ngx_int_t ngx_agent_blob_folders(ngx_str_t *root, ngx_log_t *log);

/* Removes temporary files that are older than a day. */
void ngx_agent_blob_sweep(ngx_str_t *root, ngx_log_t *log);

/* Both write root, NGX_AGENT_BLOB_TAIL bytes at most, and a zero byte. */
u_char *ngx_agent_blob_print_path(u_char *p, ngx_str_t *root,
    const ngx_agent_id_t *id);
u_char *ngx_agent_blob_print_temp(u_char *p, ngx_str_t *root,
    const ngx_agent_id_t *id);


/*
 * Syncs and closes fd (always), renames temp to path, syncs the folder.
 * NGX_OK, or NGX_ERROR with *error set and neither file left.
 */
ngx_int_t ngx_agent_blob_settle(ngx_fd_t fd, u_char *temp, u_char *path,
    ngx_agent_blob_error_t *error);


#endif /* _NGX_AGENT_BLOB_FILE_H_INCLUDED_ */
