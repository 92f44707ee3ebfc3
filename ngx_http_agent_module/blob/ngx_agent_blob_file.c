
/*
 * The layout on the disk:
 *
 *   root/tmp/<id>                          being written
 *   root/<last byte of the id, hex>/<id>   committed
 *
 * The last byte is random, so the folders fill evenly.  All are on one file
 * system, so the rename is atomic.  No client's words are in any name.
 */

#include "ngx_agent_blob_file.h"
#include "ngx_agent_id.h"


#define NGX_AGENT_BLOB_OLD  86400    /* seconds */


static ngx_int_t ngx_agent_blob_folder(u_char *path, ngx_log_t *log);
static ngx_int_t ngx_agent_blob_sync_folder(u_char *path);
static void ngx_agent_blob_sweep_one(u_char *dir, ngx_str_t *name,
    ngx_log_t *log);


ngx_int_t
ngx_agent_blob_folders(ngx_str_t *root, ngx_log_t *log)
{
    u_char      path[NGX_MAX_PATH + NGX_AGENT_BLOB_TAIL], *p;
    ngx_uint_t  i;

    static const u_char  hex[] = "0123456789abcdef";

    if (root->len > NGX_MAX_PATH) {
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "agent blob: the path \"%V\" is too long", root);
        return NGX_ERROR;
    }

    p = ngx_cpymem(path, root->data, root->len);

    ngx_memcpy(p, "/tmp", sizeof("/tmp"));

    if (ngx_agent_blob_folder(path, log) != NGX_OK) {
        return NGX_ERROR;
    }

    for (i = 0; i < 256; i++) {
        p[1] = hex[i >> 4];
        p[2] = hex[i & 0x0f];
        p[3] = '\0';

        if (ngx_agent_blob_folder(path, log) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    /* a blob is only as lasting as the folder it is in */

    *p = '\0';

    if (ngx_agent_blob_sync_folder(path) != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, log, ngx_errno,
                      "agent blob: cannot sync the folder \"%s\"", path);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_agent_blob_folder(u_char *path, ngx_log_t *log)
{
    if (ngx_create_dir(path, 0700) != NGX_FILE_ERROR
        || ngx_errno == NGX_EEXIST)
    {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_ERR, log, ngx_errno,
                  "agent blob: cannot make the folder \"%s\"", path);

    return NGX_ERROR;
}


static ngx_int_t
ngx_agent_blob_sync_folder(u_char *path)
{
    ngx_fd_t   fd;
    ngx_err_t  err;

    fd = ngx_open_file(path, O_RDONLY|O_DIRECTORY|O_CLOEXEC, 0, 0);
    if (fd == NGX_INVALID_FILE) {
        return NGX_ERROR;
    }

    if (fsync(fd) == -1) {
        err = ngx_errno;
        (void) ngx_close_file(fd);
        ngx_set_errno(err);
        return NGX_ERROR;
    }

    (void) ngx_close_file(fd);

    return NGX_OK;
}


void
ngx_agent_blob_sweep(ngx_str_t *root, ngx_log_t *log)
{
    u_char     dir_name[NGX_MAX_PATH + NGX_AGENT_BLOB_TAIL], *p;
    ngx_dir_t  dir;
    ngx_str_t  name;

    p = ngx_cpymem(dir_name, root->data, root->len);
    ngx_memcpy(p, "/tmp", sizeof("/tmp"));

    name.data = dir_name;
    name.len = root->len + 4;

    if (ngx_open_dir(&name, &dir) == NGX_ERROR) {
        ngx_log_error(NGX_LOG_WARN, log, ngx_errno,
                      "agent blob: cannot read the folder \"%s\"", dir_name);
        return;
    }

    while (ngx_read_dir(&dir) == NGX_OK) {

        name.data = ngx_de_name(&dir);
        name.len = ngx_de_namelen(&dir);

        ngx_agent_blob_sweep_one(dir_name, &name, log);
    }

    (void) ngx_close_dir(&dir);
}


static void
ngx_agent_blob_sweep_one(u_char *dir, ngx_str_t *name, ngx_log_t *log)
{
    u_char           path[NGX_MAX_PATH + NGX_AGENT_BLOB_TAIL], *p;
    ngx_agent_id_t   id;
    ngx_file_info_t  fi;

    /* what is no id is not ours, and stays */

    if (ngx_agent_id_parse(name, &id) != NGX_OK) {
        return;
    }

    p = ngx_cpymem(path, dir, ngx_strlen(dir));
    *p++ = '/';
    p = ngx_cpymem(p, name->data, name->len);
    *p = '\0';

    if (ngx_link_info(path, &fi) == NGX_FILE_ERROR || !ngx_is_file(&fi)
        || ngx_file_mtime(&fi) > time(NULL) - NGX_AGENT_BLOB_OLD)
    {
        return;
    }

    if (ngx_delete_file(path) == NGX_FILE_ERROR && ngx_errno != NGX_ENOENT) {
        ngx_log_error(NGX_LOG_WARN, log, ngx_errno,
                      "agent blob: cannot remove the old \"%s\"", path);
        return;
    }

    ngx_log_error(NGX_LOG_NOTICE, log, 0,
                  "agent blob: removed \"%s\", left by a crash", path);
}


u_char *
ngx_agent_blob_print_path(u_char *p, ngx_str_t *root,
    const ngx_agent_id_t *id)
{
    u_char  *text;

    /* the id's own last two digits are its last byte in hex */

    p = ngx_cpymem(p, root->data, root->len);
    *p++ = '/';

    text = p + 3;
    (void) ngx_agent_id_print(text, id);

    p[0] = text[NGX_AGENT_ID_LEN - 2];
    p[1] = text[NGX_AGENT_ID_LEN - 1];
    p[2] = '/';

    p = text + NGX_AGENT_ID_LEN;
    *p = '\0';

    return p;
}


u_char *
ngx_agent_blob_print_temp(u_char *p, ngx_str_t *root,
    const ngx_agent_id_t *id)
{
    p = ngx_cpymem(p, root->data, root->len);
    p = ngx_cpymem(p, "/tmp/", sizeof("/tmp/") - 1);
    p = ngx_agent_id_print(p, id);
    *p = '\0';

    return p;
}


ngx_int_t
ngx_agent_blob_settle(ngx_fd_t fd, u_char *temp, u_char *path,
    ngx_agent_blob_error_t *error)
{
    size_t      n;
    u_char      folder[NGX_MAX_PATH + NGX_AGENT_BLOB_TAIL], *left;
    ngx_int_t   rc;

    left = temp;
    rc = NGX_OK;

    if (fsync(fd) == -1) {
        error->call = "fsync()";
        error->err = ngx_errno;
        rc = NGX_ERROR;
    }

    /* an NFS server may say only now that the disk is full */

    if (ngx_close_file(fd) == NGX_FILE_ERROR && rc == NGX_OK) {
        error->call = "close()";
        error->err = ngx_errno;
        rc = NGX_ERROR;
    }

    if (rc == NGX_OK && ngx_rename_file(temp, path) == NGX_FILE_ERROR) {
        error->call = "rename()";
        error->err = ngx_errno;
        rc = NGX_ERROR;
    }

    if (rc == NGX_OK) {
        left = path;

        n = ngx_strlen(path) - NGX_AGENT_ID_LEN - 1;
        ngx_memcpy(folder, path, n);
        folder[n] = '\0';

        if (ngx_agent_blob_sync_folder(folder) != NGX_OK) {
            error->call = "fsync() of the folder";
            error->err = ngx_errno;
            rc = NGX_ERROR;
        }
    }

    if (rc != NGX_OK) {
        (void) ngx_delete_file(left);
    }

    return rc;
}
