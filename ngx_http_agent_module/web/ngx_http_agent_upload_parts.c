
/*
 * The parts of an upload: which there may be, and where their bytes go.
 * Called by the multipart parser; reads no socket and answers nobody.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_agent_name.h"
#include "ngx_http_agent_upload.h"


static ngx_int_t ngx_http_agent_upload_begin(void *ctx,
    ngx_agent_multipart_part_t *part);
static ngx_int_t ngx_http_agent_upload_begin_file(ngx_http_agent_upload_t *up,
    ngx_agent_multipart_part_t *part);
static ngx_int_t ngx_http_agent_upload_data(void *ctx, u_char *p, size_t n);
static ngx_int_t ngx_http_agent_upload_end(void *ctx);
static ngx_int_t ngx_http_agent_upload_wrong(ngx_http_agent_upload_t *up,
    const char *field, const char *why);


const ngx_agent_multipart_cb_t  ngx_http_agent_upload_cb = {
    ngx_http_agent_upload_begin,
    ngx_http_agent_upload_data,
    ngx_http_agent_upload_end
};


static ngx_int_t
ngx_http_agent_upload_begin(void *ctx, ngx_agent_multipart_part_t *part)
{
    ngx_http_agent_upload_t  *up = ctx;

    if (part->name.len == sizeof("file") - 1
        && ngx_strncmp(part->name.data, "file", 4) == 0)
    {
        return ngx_http_agent_upload_begin_file(up, part);
    }

    if (part->name.len == sizeof("relative_path") - 1
        && ngx_strncmp(part->name.data, "relative_path", part->name.len) == 0)
    {
        if (up->has_path) {
            return ngx_http_agent_upload_wrong(up, "relative_path",
                                               "is there more than once");
        }

        up->has_path = 1;
        up->part = NGX_HTTP_AGENT_PART_PATH;
        return NGX_OK;
    }

    up->part = NGX_HTTP_AGENT_PART_OTHER;

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_upload_begin_file(ngx_http_agent_upload_t *up,
    ngx_agent_multipart_part_t *part)
{
    const char  *why;
    ngx_str_t   *name;

    if (up->has_file) {
        return ngx_http_agent_upload_wrong(up, "file",
                                           "is there more than once; upload "
                                           "one file at a time");
    }

    if (part->filename.data == NULL) {
        return ngx_http_agent_upload_wrong(up, "file",
                                           "has no filename in its "
                                           "Content-Disposition");
    }

    why = ngx_agent_name_check(&part->filename);
    if (why) {
        return ngx_http_agent_upload_wrong(up, "filename", why);
    }

    name = &up->artifact.file_name;

    name->len = part->filename.len;
    name->data = ngx_pstrdup(up->blob.pool, &part->filename);
    if (name->data == NULL) {
        return NGX_ERROR;
    }

    if (ngx_agent_blob_create(&up->blob) != NGX_OK) {
        return NGX_ABORT;
    }

    up->open = 1;
    up->has_file = 1;
    up->part = NGX_HTTP_AGENT_PART_FILE;

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_upload_data(void *ctx, u_char *p, size_t n)
{
    ngx_http_agent_upload_t  *up = ctx;

    switch (up->part) {

    case NGX_HTTP_AGENT_PART_FILE:

        if (up->print) {
            ngx_http_agent_print_piece(up->print, p, n);
        }

        return (ngx_agent_blob_write(&up->blob, p, n) == NGX_OK) ? NGX_OK
                                                                 : NGX_ABORT;

    case NGX_HTTP_AGENT_PART_PATH:

        if (n > NGX_HTTP_AGENT_UPLOAD_PATH - up->path_len) {
            return ngx_http_agent_upload_wrong(up, "relative_path",
                                               "is longer than 255 bytes");
        }

        ngx_memcpy(up->path + up->path_len, p, n);
        up->path_len += n;
        return NGX_OK;

    default:
        return NGX_OK;
    }
}


static ngx_int_t
ngx_http_agent_upload_end(void *ctx)
{
    const char               *why;
    ngx_str_t                *path;
    ngx_http_agent_upload_t  *up = ctx;

    if (up->part != NGX_HTTP_AGENT_PART_PATH) {
        return NGX_OK;
    }

    path = &up->artifact.relative_path;

    path->data = up->path;
    path->len = up->path_len;

    why = ngx_agent_path_check(path);
    if (why) {
        return ngx_http_agent_upload_wrong(up, "relative_path", why);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_upload_wrong(ngx_http_agent_upload_t *up, const char *field,
    const char *why)
{
    up->field = field;
    up->why = why;

    return NGX_DECLINED;
}


ngx_int_t
ngx_http_agent_upload_whole(ngx_http_agent_upload_t *up)
{
    if (!up->finished) {
        return ngx_http_agent_upload_wrong(up, NULL,
                                           "ends before its closing "
                                           "boundary");
    }

    if (!up->has_file) {
        return ngx_http_agent_upload_wrong(up, "file", "is required");
    }

    return NGX_OK;
}
