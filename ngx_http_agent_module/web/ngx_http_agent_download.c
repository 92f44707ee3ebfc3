
/*
 * Download of an artifact: the row, then the blob's file, sent by nginx with
 * its own ranges, conditions and sendfile.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_agent_blob.h"
#include "ngx_agent_id.h"
#include "ngx_agent_name.h"
#include "ngx_http_agent_artifacts.h"
#include "ngx_http_agent_reply.h"


static ngx_int_t ngx_http_agent_download_found(ngx_http_agent_web_t *web);
static ngx_int_t ngx_http_agent_download_open(ngx_http_request_t *r,
    ngx_agent_artifact_t *artifact, ngx_str_t *path,
    ngx_open_file_info_t *of);
static ngx_int_t ngx_http_agent_download_gone(ngx_http_request_t *r,
    ngx_agent_artifact_t *artifact, ngx_open_file_info_t *of);
static ngx_int_t ngx_http_agent_download_headers(ngx_http_request_t *r,
    ngx_agent_artifact_t *artifact);
static ngx_int_t ngx_http_agent_download_send(ngx_http_request_t *r,
    ngx_str_t *path, ngx_open_file_info_t *of);


ngx_int_t
ngx_http_agent_artifact_download(ngx_http_agent_web_t *web)
{
    ngx_agent_artifact_t    *artifact;
    ngx_agent_store_call_t  *call;

    if (!ngx_http_agent_artifacts_on(web->request)) {
        return ngx_http_agent_artifacts_off(web->request);
    }

    call = ngx_http_agent_call(web);
    if (call == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    artifact = ngx_pcalloc(call->pool, sizeof(ngx_agent_artifact_t));
    if (artifact == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_agent_id_parse(&web->route.item, &artifact->id) != NGX_OK) {
        return ngx_http_agent_reply_unknown(web->request, "artifact",
                                            &web->route.item);
    }

    artifact->task_id = web->ctx->task_id;
    call->artifact = artifact;

    return ngx_http_agent_call_start(web, ngx_agent_store_get_artifact,
                                     ngx_http_agent_download_found);
}


static ngx_int_t
ngx_http_agent_download_found(ngx_http_agent_web_t *web)
{
    ngx_str_t                path;
    ngx_http_request_t      *r;
    ngx_agent_artifact_t    *artifact;
    ngx_open_file_info_t     of;
    ngx_agent_store_call_t  *call;

    r = web->request;
    call = web->call;
    artifact = call->artifact;

    if (call->rc != NGX_OK) {
        return ngx_http_agent_reply_failed(r, call->rc, "artifact",
                                           &web->route.item);
    }

    if (ngx_http_agent_download_open(r, artifact, &path, &of) != NGX_OK) {
        return ngx_http_agent_download_gone(r, artifact, &of);
    }

    if (ngx_http_agent_download_headers(r, artifact) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_agent_download_send(r, &path, &of);
}


static ngx_int_t
ngx_http_agent_download_open(ngx_http_request_t *r,
    ngx_agent_artifact_t *artifact, ngx_str_t *path,
    ngx_open_file_info_t *of)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    ngx_memzero(of, sizeof(ngx_open_file_info_t));

    if (ngx_agent_blob_path(r->pool, &artifact->id, path) != NGX_OK) {
        return NGX_ERROR;
    }

    of->read_ahead = clcf->read_ahead;
    of->directio = clcf->directio;
    of->valid = clcf->open_file_cache_valid;
    of->min_uses = clcf->open_file_cache_min_uses;
    of->errors = clcf->open_file_cache_errors;
    of->events = clcf->open_file_cache_events;

    if (ngx_open_cached_file(clcf->open_file_cache, path, of, r->pool)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (!of->is_file || of->size != artifact->size) {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_download_gone(ngx_http_request_t *r,
    ngx_agent_artifact_t *artifact, ngx_open_file_info_t *of)
{
    u_char  id[NGX_AGENT_ID_LEN];

    (void) ngx_agent_id_print(id, &artifact->id);

    ngx_log_error(NGX_LOG_ERR, r->connection->log, of->err,
                  "agent web: blob of artifact %*s cannot be read: "
                  "%s, %O bytes of %O",
                  (size_t) NGX_AGENT_ID_LEN, id,
                  of->failed ? of->failed : "file", of->size,
                  artifact->size);

    return ngx_http_agent_reply_error(r, NGX_HTTP_INTERNAL_SERVER_ERROR,
                                      "the artifact's content cannot be "
                                      "read; its operator must look into "
                                      "the error log");
}


static ngx_int_t
ngx_http_agent_download_headers(ngx_http_request_t *r,
    ngx_agent_artifact_t *artifact)
{
    static ngx_str_t  nosniff = ngx_string("nosniff");

    u_char           *p;
    ngx_str_t         disposition;
    ngx_table_elt_t  *etag;

    if (ngx_agent_name_disposition(r->pool, &artifact->file_name,
                                   &disposition)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_http_agent_reply_header(r, "Content-Disposition", &disposition)
        != NGX_OK
        || ngx_http_agent_reply_header(r, "X-Content-Type-Options", &nosniff)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* a blob never changes, so its id is all that the tag needs */

    etag = ngx_list_push(&r->headers_out.headers);
    if (etag == NULL) {
        return NGX_ERROR;
    }

    etag->hash = 1;
    etag->lowcase_key = NULL;
    ngx_str_set(&etag->key, "ETag");
    etag->value.len = 0;

#if (nginx_version >= 1023000)
    etag->next = NULL;
#endif

    p = ngx_pnalloc(r->pool, NGX_AGENT_ID_LEN + 2);
    if (p == NULL) {
        etag->hash = 0;
        return NGX_ERROR;
    }

    etag->value.data = p;

    *p++ = '"';
    p = ngx_agent_id_print(p, &artifact->id);
    *p++ = '"';

    etag->value.len = p - etag->value.data;

    r->headers_out.etag = etag;

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_download_send(ngx_http_request_t *r, ngx_str_t *path,
    ngx_open_file_info_t *of)
{
    ngx_int_t     rc;
    ngx_buf_t    *b;
    ngx_chain_t   out;

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->file = ngx_pcalloc(r->pool, sizeof(ngx_file_t));
    if (b->file == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->connection->log->action = "sending response to client";

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = of->size;
    r->headers_out.last_modified_time = of->mtime;

    ngx_str_set(&r->headers_out.content_type, "application/octet-stream");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;

    r->allow_ranges = 1;

    /*
     * not "replied": when a range cannot be satisfied or a condition fails,
     * nginx makes a page, and the error filter turns it into JSON
     */

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    b->file_pos = 0;
    b->file_last = of->size;

    b->in_file = b->file_last ? 1 : 0;
    b->last_buf = (r == r->main) ? 1 : 0;
    b->last_in_chain = 1;
    b->sync = (b->last_buf || b->in_file) ? 0 : 1;

    b->file->fd = of->fd;
    b->file->name = *path;
    b->file->log = r->connection->log;
    b->file->directio = of->is_directio;

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}
