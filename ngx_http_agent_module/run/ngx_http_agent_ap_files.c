
/*
 * The agent_protocol dialect's files: what clients have uploaded goes to the
 * container before a step, what a step has made comes from there, straight
 * from the upstream into blob/.  Neither is ever in memory as a whole.
 */

#include "ngx_http_agent_ap.h"
#include "ngx_http_agent_made.h"
#include "ngx_agent_name.h"


static ngx_int_t ngx_http_agent_ap_file(ngx_http_agent_run_t *run,
    ngx_agent_ap_file_t *file);
static ngx_uint_t ngx_http_agent_ap_known(ngx_http_agent_ap_t *ap,
    ngx_str_t *id);
static void ngx_http_agent_ap_downloaded(ngx_agent_blob_t *b);
static ngx_int_t ngx_http_agent_ap_unwritten(ngx_http_agent_run_t *run);
static ngx_int_t ngx_http_agent_ap_dup(ngx_pool_t *pool, ngx_str_t *s);


ngx_int_t
ngx_http_agent_ap_uploads(ngx_http_agent_run_t *run, ngx_array_t *list)
{
    ngx_uint_t             i;
    ngx_pool_t            *pool;
    ngx_http_agent_ap_t   *ap;
    ngx_agent_artifact_t  *a, *upload;

    ap = run->talk;
    pool = run->live->pool;
    a = list->elts;

    for (i = 0; i < list->nelts; i++) {

        if (a[i].by_agent || ngx_agent_ap_memory_sent(&ap->memory, &a[i].id)) {
            continue;
        }

        /* those behind go with the next step */

        if (ap->uploads.nelts == NGX_AGENT_AP_FILES) {
            return NGX_OK;
        }

        upload = ngx_array_push(&ap->uploads);
        if (upload == NULL) {
            return NGX_ERROR;
        }

        *upload = a[i];

        if (ngx_http_agent_ap_dup(pool, &upload->file_name) != NGX_OK
            || ngx_http_agent_ap_dup(pool, &upload->relative_path) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_agent_ap_upload(ngx_http_agent_run_t *run,
    ngx_http_agent_fake_conf_t *conf)
{
    ngx_str_t              path;
    ngx_file_info_t        fi;
    ngx_http_agent_ap_t   *ap;
    ngx_agent_artifact_t  *upload;

    ap = run->talk;
    upload = ap->uploads.elts;
    upload += ap->upload;

    conf->type.data = ap->type;
    conf->type.len = ngx_sprintf(ap->type, "multipart/form-data; boundary=%*s",
                                 NGX_AGENT_AP_BOUNDARY_LEN, ap->boundary)
                     - ap->type;

    if (ngx_agent_blob_path(run->live->pool, &upload->id, &path) != NGX_OK) {
        goto failed;
    }

    conf->file = ngx_open_file(path.data, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (conf->file == NGX_INVALID_FILE) {
        ngx_log_error(NGX_LOG_ERR, run->live->log, ngx_errno,
                      "agent run: cannot open artifact \"%V\"", &path);
        goto failed;
    }

    if (ngx_fd_info(conf->file, &fi) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_ERR, run->live->log, ngx_errno,
                      "agent run: cannot look at artifact \"%V\"", &path);

        (void) ngx_close_file(conf->file);
        conf->file = NGX_INVALID_FILE;
        goto failed;
    }

    conf->size = ngx_file_size(&fi);

    return NGX_OK;

failed:

    ngx_http_agent_run_reason(run, "an artifact could not be read",
                              "artifact \"%V%V\" of the task could not be "
                              "read on the server, and so not be given to the "
                              "container of agent \"%V\"",
                              &upload->relative_path, &upload->file_name,
                              &run->live->agent->name);
    return NGX_DECLINED;
}


ngx_int_t
ngx_http_agent_ap_uploaded(ngx_http_agent_run_t *run)
{
    ngx_agent_id_t        *id;
    ngx_http_agent_ap_t   *ap;
    ngx_agent_artifact_t  *upload;

    ap = run->talk;

    id = ngx_array_push(&ap->memory.sent);
    if (id == NULL) {
        return NGX_ERROR;
    }

    upload = ap->uploads.elts;
    *id = upload[ap->upload++].id;

    return NGX_OK;
}


ngx_int_t
ngx_http_agent_ap_files(ngx_http_agent_run_t *run, ngx_agent_ap_answer_t *a)
{
    ngx_int_t             rc;
    ngx_uint_t            i;
    ngx_agent_ap_file_t  *file;
    ngx_http_agent_ap_t  *ap;

    ap = run->talk;

    if (!ap->stores) {
        return NGX_OK;
    }

    if (a->large) {
        return ngx_http_agent_ap_bad(run, "lists too many artifacts", 0);
    }

    file = a->files.elts;

    for (i = 0; i < a->files.nelts; i++) {

        /* what is not said is clear for a step's, but not for a task's */

        if (file[i].by_client
            || (ap->stage == NGX_HTTP_AGENT_AP_LIST && !file[i].by_agent))
        {
            continue;
        }

        rc = ngx_http_agent_ap_file(run, &file[i]);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_ap_file(ngx_http_agent_run_t *run, ngx_agent_ap_file_t *file)
{
    ngx_str_t             file_name, relative_path;
    const char           *why;
    ngx_pool_t           *pool;
    ngx_agent_ap_file_t  *f;
    ngx_http_agent_ap_t  *ap;

    ap = run->talk;
    pool = run->live->pool;

    if (!ngx_agent_ap_id_good(&file->id)) {
        return ngx_http_agent_ap_bad(run, "lists an artifact that has no "
                                     "\"artifact_id\" that can be used in a "
                                     "uri", 0);
    }

    if (ngx_http_agent_ap_known(ap, &file->id)) {
        return NGX_OK;
    }

    why = ngx_agent_ap_file_name(file, &file_name, &relative_path);

    if (why) {
        return ngx_http_agent_ap_bad(run, why, 0);
    }

    if (ap->files.nelts == NGX_AGENT_AP_FILES) {
        return ngx_http_agent_ap_bad(run, "lists too many artifacts", 0);
    }

    f = ngx_array_push(&ap->files);
    if (f == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(f, sizeof(ngx_agent_ap_file_t));

    f->id = file->id;
    f->file_name = file_name;
    f->relative_path = relative_path;

    if (ngx_http_agent_ap_dup(pool, &f->id) != NGX_OK
        || ngx_http_agent_ap_dup(pool, &f->file_name) != NGX_OK
        || ngx_http_agent_ap_dup(pool, &f->relative_path) != NGX_OK)
    {
        ap->files.nelts--;
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* each once: an earlier step has brought it, or it is listed twice */

static ngx_uint_t
ngx_http_agent_ap_known(ngx_http_agent_ap_t *ap, ngx_str_t *id)
{
    ngx_uint_t            i;
    ngx_agent_ap_file_t  *file;

    if (ngx_agent_ap_memory_got(&ap->memory, id)) {
        return 1;
    }

    file = ap->files.elts;

    for (i = 0; i < ap->files.nelts; i++) {
        if (file[i].id.len == id->len
            && ngx_memcmp(file[i].id.data, id->data, id->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


ngx_int_t
ngx_http_agent_ap_download_open(ngx_http_agent_run_t *run)
{
    ngx_agent_blob_t            *b;
    ngx_agent_ap_file_t         *file;
    ngx_http_agent_ap_t         *ap;
    ngx_http_agent_ap_answer_t  *answer;

    ap = run->talk;
    answer = run->answer;

    file = ap->files.elts;
    file += ap->file;

    ngx_http_agent_made_init(run->live, &answer->artifact);

    answer->artifact.file_name = file->file_name;
    answer->artifact.relative_path = file->relative_path;

    b = &answer->blob;

    b->pool = run->pool;
    b->log = run->live->log;
    b->id = answer->artifact.id;
    b->handler = ngx_http_agent_ap_downloaded;
    b->data = run;

    if (ngx_agent_blob_create(b) != NGX_OK) {
        (void) ngx_http_agent_ap_unwritten(run);
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_agent_ap_download_feed(ngx_http_agent_run_t *run, u_char *p, size_t n)
{
    ngx_http_agent_ap_t         *ap;
    ngx_http_agent_ap_answer_t  *answer;

    ap = run->talk;
    answer = run->answer;

    if (answer->said) {
        return NGX_DECLINED;
    }

    if (n > ap->budget - (size_t) answer->blob.size) {
        answer->said = 1;

        ngx_http_agent_run_reason(run, "the artifacts are too large",
                                  "the artifacts of the step of agent \"%V\" "
                                  "are larger than its \"max_answer\", %uz "
                                  "bytes in all", &run->live->agent->name,
                                  run->live->agent->max_answer);
        return NGX_DECLINED;
    }

    if (ngx_agent_blob_write(&answer->blob, p, n) != NGX_OK) {
        return ngx_http_agent_ap_unwritten(run);
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_agent_ap_download_finish(ngx_http_agent_run_t *run)
{
    ngx_http_agent_ap_answer_t  *answer;

    answer = run->answer;

    if (answer->said) {
        return NGX_DECLINED;
    }

    /* bytes do not tell whether more of them were to come */

    if (!run->complete) {
        return ngx_http_agent_ap_bad(run, "broke off", 1);
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_agent_ap_download_act(ngx_http_agent_run_t *run)
{
    ngx_http_agent_ap_answer_t  *answer;

    answer = run->answer;

    if (ngx_agent_blob_commit(&answer->blob) == NGX_AGAIN) {
        return NGX_AGAIN;
    }

    (void) ngx_http_agent_ap_unwritten(run);

    return NGX_ERROR;
}


static void
ngx_http_agent_ap_downloaded(ngx_agent_blob_t *b)
{
    ngx_int_t                    rc;
    ngx_str_t                   *got;
    ngx_agent_ap_file_t         *file;
    ngx_http_agent_ap_t         *ap;
    ngx_http_agent_run_t        *run;
    ngx_http_agent_ap_answer_t  *answer;

    run = b->data;
    ap = run->talk;
    answer = run->answer;

    if (b->rc != NGX_OK) {
        (void) ngx_http_agent_ap_unwritten(run);
        ngx_http_agent_run_acted(run, NGX_ERROR);
        return;
    }

    answer->artifact.size = b->size;

    file = ap->files.elts;
    got = NULL;

    if (ngx_http_agent_made_add(run->live, &answer->artifact)) {
        got = ngx_array_push(&ap->memory.got);
    }

    if (got == NULL) {
        ngx_http_agent_run_reason(run, "no memory", "the server had no memory "
                                  "for an artifact of the step");
        ngx_http_agent_run_acted(run, NGX_ERROR);
        return;
    }

    *got = file[ap->file++].id;
    ap->budget -= (size_t) b->size;

    rc = (ap->file < ap->files.nelts) ? NGX_DONE : ngx_http_agent_ap_end(run);

    ngx_http_agent_run_acted(run, rc);
}


static ngx_int_t
ngx_http_agent_ap_unwritten(ngx_http_agent_run_t *run)
{
    ngx_http_agent_ap_answer_t  *answer;

    answer = run->answer;
    answer->said = 1;

    ngx_http_agent_run_reason(run, "an artifact could not be stored",
                              "an artifact of agent \"%V\" could not be "
                              "stored on the server's disk; try again",
                              &run->live->agent->name);
    return NGX_DECLINED;
}


/* empty stays empty, null null */

static ngx_int_t
ngx_http_agent_ap_dup(ngx_pool_t *pool, ngx_str_t *s)
{
    u_char  *p;

    if (s->len == 0) {
        s->data = s->data ? (u_char *) "" : NULL;
        return NGX_OK;
    }

    p = ngx_pstrdup(pool, s);
    if (p == NULL) {
        return NGX_ERROR;
    }

    s->data = p;

    return NGX_OK;
}
