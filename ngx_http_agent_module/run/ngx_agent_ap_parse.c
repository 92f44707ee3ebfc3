
/*
 * The agent_protocol dialect, inward: a container's JSON into a struct.
 * Bytes only: no request and no I/O in here.
 */

#include "ngx_agent_ap_parse.h"
#include "ngx_agent_json.h"
#include "ngx_agent_name.h"


static ngx_int_t ngx_agent_ap_value(void *data, ngx_agent_json_value_t *v);
static ngx_int_t ngx_agent_ap_string(ngx_agent_ap_answer_t *a,
    ngx_agent_json_value_t *v);
static ngx_int_t ngx_agent_ap_file_value(ngx_agent_ap_answer_t *a,
    ngx_agent_json_value_t *v);
static ngx_int_t ngx_agent_ap_file(ngx_agent_ap_answer_t *a, u_char **p,
    u_char *end, ngx_agent_ap_file_t **file);
static ngx_int_t ngx_agent_ap_copy(ngx_pool_t *pool, ngx_str_t *dst,
    ngx_str_t *src);
static ngx_int_t ngx_agent_ap_raw(ngx_agent_ap_answer_t *a, ngx_str_t *doc);
static void ngx_agent_ap_status(ngx_agent_ap_answer_t *a);
static ngx_uint_t ngx_agent_ap_is(ngx_str_t *s, const char *text);


ngx_int_t
ngx_agent_ap_parse(ngx_pool_t *pool, ngx_str_t *doc, ngx_agent_ap_answer_t *a,
    const char **why)
{
    ngx_int_t  rc;

    ngx_memzero(a, sizeof(ngx_agent_ap_answer_t));

    a->pool = pool;

    if (ngx_array_init(&a->files, pool, 4, sizeof(ngx_agent_ap_file_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    rc = ngx_agent_json_read(doc, ngx_agent_ap_value, a, why);

    if (rc == NGX_ABORT) {
        *why = "is no JSON object";
        return NGX_DECLINED;
    }

    if (rc != NGX_OK) {
        return rc;
    }

    ngx_agent_ap_status(a);

    return ngx_agent_ap_raw(a, doc);
}


/* Called by the JSON reader for each value of the answer. */

static ngx_int_t
ngx_agent_ap_value(void *data, ngx_agent_json_value_t *v)
{
    ngx_int_t               n;
    ngx_agent_ap_answer_t  *a = data;

    if (v->path.len == 0) {
        return (v->type == NGX_AGENT_JSON_OBJECT) ? NGX_OK : NGX_ABORT;
    }

    if (v->path.len > sizeof("artifacts.") - 1
        && ngx_memcmp(v->path.data, "artifacts.", sizeof("artifacts.") - 1)
           == 0)
    {
        return ngx_agent_ap_file_value(a, v);
    }

    switch (v->type) {

    case NGX_AGENT_JSON_STRING:
        return ngx_agent_ap_string(a, v);

    case NGX_AGENT_JSON_BOOL:

        if (ngx_agent_ap_is(&v->path, "is_last")) {
            a->is_last = (v->text.len == 4);

        } else if (ngx_agent_ap_is(&v->path, "additional_input_needed")) {
            a->needs_input = (v->text.len == 4);
        }

        break;

    case NGX_AGENT_JSON_NUMBER:

        if (ngx_agent_ap_is(&v->path, "pagination.total_pages")) {
            n = ngx_atoi(v->text.data, v->text.len);
            a->pages = (n == NGX_ERROR) ? 0 : (ngx_uint_t) n;
        }

        break;

    case NGX_AGENT_JSON_ARRAY:

        if (ngx_agent_ap_is(&v->path, "artifacts")) {
            /* the last one counts */
            a->listed = 1;
            a->files.nelts = 0;
        }

        break;

    default:
        break;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_agent_ap_string(ngx_agent_ap_answer_t *a, ngx_agent_json_value_t *v)
{
    ngx_uint_t  i;

    static const struct {
        const char  *path;
        size_t       offset;
    } fields[] = {
        { "task_id", offsetof(ngx_agent_ap_answer_t, task_id) },
        { "step_id", offsetof(ngx_agent_ap_answer_t, step_id) },
        { "name", offsetof(ngx_agent_ap_answer_t, name) },
        { "status", offsetof(ngx_agent_ap_answer_t, status_name) },
        { "output", offsetof(ngx_agent_ap_answer_t, output) },
        { "additional_output.error", offsetof(ngx_agent_ap_answer_t, error) }
    };

    for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {

        if (ngx_agent_ap_is(&v->path, fields[i].path)) {
            return ngx_agent_ap_copy(a->pool,
                               (ngx_str_t *) ((u_char *) a + fields[i].offset),
                               &v->text);
        }
    }

    return NGX_OK;
}


/* "artifacts.0", "artifacts.0.file_name" and what stands deeper */

static ngx_int_t
ngx_agent_ap_file_value(ngx_agent_ap_answer_t *a, ngx_agent_json_value_t *v)
{
    u_char               *p, *end;
    ngx_int_t             rc;
    ngx_str_t             key, *field;
    ngx_agent_ap_file_t  *file;

    p = v->path.data + sizeof("artifacts.") - 1;
    end = v->path.data + v->path.len;

    rc = ngx_agent_ap_file(a, &p, end, &file);

    if (rc != NGX_OK || p == end) {
        return (rc == NGX_ERROR) ? NGX_ERROR : NGX_OK;
    }

    key.data = p + 1;
    key.len = end - key.data;

    if (v->type == NGX_AGENT_JSON_BOOL
        && ngx_agent_ap_is(&key, "agent_created"))
    {
        file->by_agent = (v->text.len == 4);
        file->by_client = !file->by_agent;
        return NGX_OK;
    }

    if (v->type != NGX_AGENT_JSON_STRING) {
        return NGX_OK;
    }

    if (ngx_agent_ap_is(&key, "artifact_id")) {
        field = &file->id;

    } else if (ngx_agent_ap_is(&key, "file_name")) {
        field = &file->file_name;

    } else if (ngx_agent_ap_is(&key, "relative_path")) {
        field = &file->relative_path;

    } else {
        return NGX_OK;
    }

    return ngx_agent_ap_copy(a->pool, field, &v->text);
}


/*
 * The artifact whose number is at *p, which is moved behind it.  They come in
 * order: it is the last one, or a new one.  NGX_DECLINED: it is none, or one
 * too many.
 */

static ngx_int_t
ngx_agent_ap_file(ngx_agent_ap_answer_t *a, u_char **p, u_char *end,
    ngx_agent_ap_file_t **file)
{
    u_char     *start;
    ngx_int_t   n;

    start = *p;

    while (*p < end && **p != '.') {
        (*p)++;
    }

    n = ngx_atoi(start, *p - start);

    /* an object's keys mean nothing here */

    if (n == NGX_ERROR || !a->listed) {
        return NGX_DECLINED;
    }

    if (n >= NGX_AGENT_AP_FILES) {
        a->large = 1;
        return NGX_DECLINED;
    }

    if ((ngx_uint_t) n < a->files.nelts) {
        *file = (ngx_agent_ap_file_t *) a->files.elts + n;
        return NGX_OK;
    }

    *file = ngx_array_push(&a->files);
    if (*file == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(*file, sizeof(ngx_agent_ap_file_t));

    return NGX_OK;
}


static ngx_int_t
ngx_agent_ap_copy(ngx_pool_t *pool, ngx_str_t *dst, ngx_str_t *src)
{
    dst->len = src->len;
    dst->data = ngx_pnalloc(pool, src->len + 1);

    if (dst->data == NULL) {
        return NGX_ERROR;
    }

    if (src->len) {
        ngx_memcpy(dst->data, src->data, src->len);
    }

    return NGX_OK;
}


/* What is kept as the JSON it is. */

static ngx_int_t
ngx_agent_ap_raw(ngx_agent_ap_answer_t *a, ngx_str_t *doc)
{
    ngx_str_t         raw;
    ngx_agent_json_t  j;

    if (ngx_agent_json_member(doc, "output", &raw) == NGX_OK
        && raw.data[0] != '"')
    {
        a->output = raw;

        if (raw.data[0] == 'n') {
            ngx_str_null(&a->output);
        }
    }

    if (ngx_agent_json_member(doc, "additional_output", &raw) != NGX_OK
        || raw.data[0] == 'n')
    {
        return NGX_OK;
    }

    if (raw.data[0] == '{') {
        a->additional_output = raw;
        return NGX_OK;
    }

    /* ours is always an object */

    ngx_agent_json_init(&j, a->pool, raw.len + 16);
    ngx_agent_json_object(&j);
    ngx_agent_json_key(&j, "value");
    ngx_agent_json_raw(&j, &raw, "null");
    ngx_agent_json_object_end(&j);

    return ngx_agent_json_done(&j, &a->additional_output);
}


/* A strict server of ours says "completed", and that it waits beside it. */

static void
ngx_agent_ap_status(ngx_agent_ap_answer_t *a)
{
    ngx_uint_t  i;

    static const struct {
        const char             *name;
        ngx_agent_ap_status_e   status;
    } names[] = {
        { "created", NGX_AGENT_AP_RUNNING },
        { "running", NGX_AGENT_AP_RUNNING },
        { "completed", NGX_AGENT_AP_COMPLETED },
        { "waiting_for_input", NGX_AGENT_AP_WAITING },
        { "failed", NGX_AGENT_AP_FAILED },
        { "cancelled", NGX_AGENT_AP_CANCELLED }
    };

    if (a->status_name.data == NULL) {
        return;
    }

    a->status = NGX_AGENT_AP_UNKNOWN;

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (ngx_agent_ap_is(&a->status_name, names[i].name)) {
            a->status = names[i].status;
        }
    }

    if (a->status == NGX_AGENT_AP_COMPLETED && a->needs_input) {
        a->status = NGX_AGENT_AP_WAITING;
    }
}


ngx_uint_t
ngx_agent_ap_id_good(ngx_str_t *id)
{
    u_char      ch;
    ngx_uint_t  i, dots;

    if (id->len == 0 || id->len > NGX_AGENT_AP_ID_MAX) {
        return 0;
    }

    for (i = 0, dots = 0; i < id->len; i++) {
        ch = id->data[i];

        if (ch == '.') {
            dots++;
            continue;
        }

        if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z')
              || (ch >= '0' && ch <= '9')
              || ch == '-' || ch == '_' || ch == '~' || ch == ':'
              || ch == '@' || ch == '=' || ch == '+' || ch == ','))
        {
            return 0;
        }
    }

    /* "." and ".." are folders to those who tidy a uri */

    return dots < id->len;
}


const char *
ngx_agent_ap_file_name(ngx_agent_ap_file_t *file, ngx_str_t *file_name,
    ngx_str_t *relative_path)
{
    const char  *why;

    *file_name = file->file_name;
    *relative_path = file->relative_path;

    if (file_name->data == NULL) {
        return "lists an artifact whose file_name is missing";
    }

    /* some give the root of their own workspace */

    while (relative_path->len && relative_path->data[0] == '/') {
        relative_path->data++;
        relative_path->len--;
    }

    if (relative_path->len >= 2
        && ngx_memcmp(relative_path->data, "./", 2) == 0)
    {
        relative_path->data += 2;
        relative_path->len -= 2;
    }

    if (relative_path->len == 1 && relative_path->data[0] == '.') {
        relative_path->len = 0;
    }

    if (ngx_agent_name_check(file_name) != NULL) {

        /* "docs/plan.md" as a name */

        if (relative_path->len
            || ngx_agent_path_split(&file->file_name, relative_path,
                                    file_name)
               != NULL)
        {
            return "lists an artifact whose file_name is no name of a "
                   "file";
        }
    }

    why = ngx_agent_path_check(relative_path);

    return why ? "lists an artifact whose relative_path is no relative path"
               : NULL;
}


static ngx_uint_t
ngx_agent_ap_is(ngx_str_t *s, const char *text)
{
    size_t  n;

    n = ngx_strlen(text);

    return s->len == n && ngx_memcmp(s->data, text, n) == 0;
}
