
/*
 * An upload's state: shared by what reads and stores it, and by what knows
 * the parts that it may have.
 */

#ifndef _NGX_HTTP_AGENT_UPLOAD_H_INCLUDED_
#define _NGX_HTTP_AGENT_UPLOAD_H_INCLUDED_


#include "ngx_agent_blob.h"
#include "ngx_agent_multipart.h"
#include "ngx_http_agent_edge.h"
#include "ngx_http_agent_print.h"


/* one more than ngx_agent_path_check() allows */
#define NGX_HTTP_AGENT_UPLOAD_PATH   256


typedef enum {
    NGX_HTTP_AGENT_PART_OTHER = 0,
    NGX_HTTP_AGENT_PART_FILE,
    NGX_HTTP_AGENT_PART_PATH
} ngx_http_agent_part_e;


typedef struct {
    ngx_http_agent_web_t      *web;
    ngx_agent_multipart_t     *parser;
    ngx_agent_blob_t           blob;
    ngx_agent_artifact_t       artifact;
    ngx_agent_task_t           task;         /* ASKING: is it there? */
    ngx_agent_page_t           page;         /* ASKING: none of its steps */
    ngx_event_t                turn;         /* the next turn */
    ngx_str_t                  key;          /* Idempotency-Key, if any */
    ngx_http_agent_print_t    *print;        /* of the upload, with a key */

    ngx_http_agent_part_e      part;         /* that is being read */
    u_char                    *piece;
    u_char                     path[NGX_HTTP_AGENT_UPLOAD_PATH];
    size_t                     path_len;
    size_t                     left;         /* bytes left in this turn */

    const char                *field;        /* what is wrong, for a 422 */
    const char                *why;

    unsigned                   has_file:1;
    unsigned                   has_path:1;
    unsigned                   open:1;       /* the blob can be dropped */
    unsigned                   finished:1;   /* closing boundary was read */
} ngx_http_agent_upload_t;


/*
 * The parser's callbacks.  NGX_DECLINED: the part may not be so, up->field
 * and up->why tell; NGX_ABORT: the disk does not take it; NGX_ERROR.
 */
extern const ngx_agent_multipart_cb_t  ngx_http_agent_upload_cb;

/* At the body's end.  NGX_OK, or NGX_DECLINED: something is missing. */
ngx_int_t ngx_http_agent_upload_whole(ngx_http_agent_upload_t *up);


#endif /* _NGX_HTTP_AGENT_UPLOAD_H_INCLUDED_ */
