
/*
 * The tools that deal with artifacts: write, read, list.  Content goes to and
 * comes from blob/, names are looked up in store/; the rows of what was
 * written are made by the transaction that ends the step.
 */

#include "ngx_http_agent_made.h"
#include "ngx_http_agent_tools.h"
#include "ngx_agent_blob.h"
#include "ngx_agent_id.h"
#include "ngx_agent_json.h"
#include "ngx_agent_name.h"


/* what an LLM may read of one file: it becomes part of every later request */
#define NGX_HTTP_AGENT_TOOL_READ  (256 * 1024)


static ngx_int_t ngx_http_agent_tool_blob(ngx_http_agent_tools_t *t,
    ngx_str_t *content);
static void ngx_http_agent_tool_written(ngx_agent_blob_t *b);
static ngx_int_t ngx_http_agent_tool_unwritten(ngx_http_agent_tools_t *t);
static void ngx_http_agent_tool_found(ngx_agent_store_call_t *store);
static ngx_int_t ngx_http_agent_tool_load(ngx_http_agent_tools_t *t,
    ngx_agent_openai_call_t *call, ngx_agent_artifact_t *artifact);
static void ngx_http_agent_tool_listed(ngx_agent_store_call_t *store);
static ngx_int_t ngx_http_agent_tool_lines(ngx_http_agent_tools_t *t,
    ngx_agent_openai_call_t *call);
static u_char *ngx_http_agent_tool_line(ngx_pool_t *pool, ngx_str_t *text,
    ngx_agent_artifact_t *artifact);
static void ngx_http_agent_tool_store(ngx_http_agent_tools_t *t,
    ngx_agent_store_pt handler);


ngx_int_t
ngx_http_agent_tool_write(ngx_http_agent_tools_t *t,
    ngx_agent_openai_call_t *call, ngx_http_agent_tool_args_t *args)
{
    const char                  *why;
    ngx_agent_live_t            *live;
    ngx_http_conf_ctx_t         *ctx;
    ngx_http_agent_main_conf_t  *amcf;

    live = t->run->live;
    ctx = live->agent->server_ctx;
    amcf = ctx->main_conf[ngx_http_agent_module.ctx_index];

    if (amcf->artifacts == NULL) {
        return ngx_http_agent_tools_say(t, call, "error: this server keeps no "
                                        "artifacts; give the content as text");
    }

    if (args->path.data == NULL || args->content.data == NULL) {
        return ngx_http_agent_tools_say(t, call, "error: \"%s\" is missing or "
                   "no string; write_artifact needs \"path\" and \"content\"",
                   args->path.data ? "content" : "path");
    }

    ngx_http_agent_made_init(live, &t->artifact);

    why = ngx_agent_path_split(&args->path, &t->artifact.relative_path,
                               &t->artifact.file_name);

    if (why) {
        return ngx_http_agent_tools_say(t, call, "error: the path %s; give a "
                              "relative path such as docs/plan.md", why);
    }

    return ngx_http_agent_tool_blob(t, &args->content);
}


static ngx_int_t
ngx_http_agent_tool_blob(ngx_http_agent_tools_t *t, ngx_str_t *content)
{
    ngx_int_t          rc;
    ngx_agent_blob_t  *b;

    b = ngx_pcalloc(t->run->pool, sizeof(ngx_agent_blob_t));
    if (b == NULL) {
        return ngx_http_agent_tools_nomem(t);
    }

    b->pool = t->run->pool;
    b->log = t->run->live->log;
    b->id = t->artifact.id;
    b->handler = ngx_http_agent_tool_written;
    b->data = t;

    if (ngx_agent_blob_create(b) != NGX_OK) {
        return ngx_http_agent_tool_unwritten(t);
    }

    if (content->len
        && ngx_agent_blob_write(b, content->data, content->len) != NGX_OK)
    {
        ngx_agent_blob_abort(b);
        return ngx_http_agent_tool_unwritten(t);
    }

    rc = ngx_agent_blob_commit(b);

    if (rc != NGX_AGAIN) {
        ngx_agent_blob_abort(b);
        return ngx_http_agent_tool_unwritten(t);
    }

    return NGX_AGAIN;
}


static void
ngx_http_agent_tool_written(ngx_agent_blob_t *b)
{
    ngx_int_t                 rc;
    ngx_agent_live_t         *live;
    ngx_agent_artifact_t     *artifact;
    ngx_http_agent_tools_t   *t;
    ngx_agent_openai_call_t  *call;

    t = b->data;
    live = t->run->live;
    call = &t->calls[t->next];

    if (b->rc != NGX_OK) {
        rc = ngx_http_agent_tool_unwritten(t);
        ngx_http_agent_tools_resume(t, rc);
        return;
    }

    t->artifact.size = b->size;
    artifact = ngx_http_agent_made_add(live, &t->artifact);

    if (artifact == NULL) {
        rc = ngx_http_agent_tools_nomem(t);
        ngx_http_agent_tools_resume(t, rc);
        return;
    }

    rc = ngx_http_agent_tools_say(t, call, "wrote %V%V, %O bytes",
                                  &artifact->relative_path,
                                  &artifact->file_name, artifact->size);

    ngx_http_agent_tools_resume(t, rc);
}


static ngx_int_t
ngx_http_agent_tool_unwritten(ngx_http_agent_tools_t *t)
{
    ngx_http_agent_run_reason(t->run, "an artifact could not be stored",
                              "an artifact of agent \"%V\" could not "
                              "be stored on the server's disk; try again",
                              &t->run->live->agent->name);
    return NGX_ERROR;
}


ngx_int_t
ngx_http_agent_tool_read(ngx_http_agent_tools_t *t,
    ngx_agent_openai_call_t *call, ngx_http_agent_tool_args_t *args)
{
    const char            *why;
    ngx_str_t              relative_path, file_name;
    ngx_uint_t             i;
    ngx_agent_live_t      *live;
    ngx_agent_artifact_t  *own;

    if (args->path.data == NULL) {
        return ngx_http_agent_tools_say(t, call, "error: \"path\" is missing "
                                        "or no string");
    }

    why = ngx_agent_path_split(&args->path, &relative_path, &file_name);

    if (why) {
        return ngx_http_agent_tools_say(t, call, "error: the path %s", why);
    }

    /* what this step wrote is not in the store yet; the newest counts */

    live = t->run->live;
    own = live->artifacts ? live->artifacts->elts : NULL;

    for (i = live->artifacts ? live->artifacts->nelts : 0; i > 0; i--) {

        if (own[i - 1].file_name.len == file_name.len
            && own[i - 1].relative_path.len == relative_path.len
            && ngx_memcmp(own[i - 1].file_name.data, file_name.data,
                          file_name.len) == 0
            && (relative_path.len == 0
                || ngx_memcmp(own[i - 1].relative_path.data,
                              relative_path.data, relative_path.len) == 0))
        {
            return ngx_http_agent_tool_load(t, call, &own[i - 1]);
        }
    }

    ngx_memzero(&t->artifact, sizeof(ngx_agent_artifact_t));

    t->artifact.task_id = live->task.id;
    t->artifact.file_name = file_name;
    t->artifact.relative_path = relative_path;

    ngx_http_agent_tool_store(t, ngx_http_agent_tool_found);

    if (ngx_agent_store_find_artifact(&t->store) != NGX_AGAIN) {
        return ngx_http_agent_tools_say(t, call, "error: the store cannot be "
                                        "reached now; read it again later");
    }

    t->storing = 1;

    return NGX_AGAIN;
}


static void
ngx_http_agent_tool_found(ngx_agent_store_call_t *store)
{
    ngx_int_t                 rc;
    ngx_http_agent_tools_t   *t;
    ngx_agent_openai_call_t  *call;

    t = store->data;
    t->storing = 0;

    call = &t->calls[t->next];

    switch (store->rc) {

    case NGX_OK:
        rc = ngx_http_agent_tool_load(t, call, &t->artifact);
        break;

    case NGX_DECLINED:
        rc = ngx_http_agent_tools_say(t, call, "error: there is no such "
                       "artifact; list_artifacts tells which there are");
        break;

    default:
        rc = ngx_http_agent_tools_say(t, call, "error: the store cannot be "
                                      "reached now; read it again later");
        break;
    }

    ngx_http_agent_tools_resume(t, rc);
}


static ngx_int_t
ngx_http_agent_tool_load(ngx_http_agent_tools_t *t,
    ngx_agent_openai_call_t *call, ngx_agent_artifact_t *artifact)
{
    ngx_str_t  content;

    if (artifact->size > NGX_HTTP_AGENT_TOOL_READ) {
        return ngx_http_agent_tools_say(t, call, "error: the artifact has %O "
                         "bytes; at most %d can be read",
                         artifact->size, NGX_HTTP_AGENT_TOOL_READ);
    }

    if ((size_t) artifact->size > t->budget) {
        return ngx_http_agent_tools_say(t, call, "error: too much was read in "
                                        "this turn; read this one in the "
                                        "next");
    }

    switch (ngx_agent_blob_load(t->run->pool, t->run->live->log,
                                &artifact->id, NGX_HTTP_AGENT_TOOL_READ,
                                &content))
    {
    case NGX_OK:
        break;

    case NGX_DECLINED:
        return ngx_http_agent_tools_say(t, call, "error: the content of the "
                                        "artifact is gone");

    default:
        return ngx_http_agent_tools_say(t, call, "error: the artifact could "
                                        "not be read");
    }

    if (!ngx_agent_utf8_valid(content.data, content.len)) {
        return ngx_http_agent_tools_say(t, call, "the artifact is binary, %uz "
                                        "bytes", content.len);
    }

    if (content.len == 0) {
        return ngx_http_agent_tools_say(t, call, "the artifact is empty");
    }

    t->budget -= ngx_min(t->budget, content.len);
    call->result = content;

    return NGX_OK;
}


ngx_int_t
ngx_http_agent_tool_list(ngx_http_agent_tools_t *t,
    ngx_agent_openai_call_t *call, ngx_http_agent_tool_args_t *args)
{
    t->page.number = 1;
    t->page.size = NGX_AGENT_PAGE_SIZE_MAX;
    t->page.desc = 0;

    ngx_http_agent_tool_store(t, ngx_http_agent_tool_listed);

    t->store.page = &t->page;

    if (ngx_agent_store_list_artifacts(&t->store) != NGX_AGAIN) {
        return ngx_http_agent_tools_say(t, call, "error: the store cannot be "
                                        "reached now; list again later");
    }

    t->storing = 1;

    return NGX_AGAIN;
}


static void
ngx_http_agent_tool_listed(ngx_agent_store_call_t *store)
{
    ngx_int_t                 rc;
    ngx_http_agent_tools_t   *t;
    ngx_agent_openai_call_t  *call;

    t = store->data;
    t->storing = 0;

    call = &t->calls[t->next];

    if (store->rc == NGX_OK) {
        rc = ngx_http_agent_tool_lines(t, call);

    } else {
        rc = ngx_http_agent_tools_say(t, call, "error: the store cannot be "
                                      "reached now; list again later");
    }

    ngx_http_agent_tools_resume(t, rc);
}


/* One path a line, each as a JSON string: a name may hold anything. */

static ngx_int_t
ngx_http_agent_tool_lines(ngx_http_agent_tools_t *t,
    ngx_agent_openai_call_t *call)
{
    size_t                 size;
    u_char                *p;
    ngx_str_t             *lines;
    ngx_uint_t             i, k, n, nown;
    ngx_agent_live_t      *live;
    ngx_agent_artifact_t  *stored, *own;

    live = t->run->live;

    stored = t->store.list ? t->store.list->elts : NULL;
    n = t->store.list ? t->store.list->nelts : 0;
    own = live->artifacts ? live->artifacts->elts : NULL;
    nown = live->artifacts ? live->artifacts->nelts : 0;

    if (n + nown == 0) {
        return ngx_http_agent_tools_say(t, call, "there are no artifacts");
    }

    lines = ngx_palloc(t->run->pool, (n + nown) * sizeof(ngx_str_t));
    if (lines == NULL) {
        return ngx_http_agent_tools_nomem(t);
    }

    size = sizeof("and  more\n") + NGX_INT_T_LEN;
    k = 0;

    for (i = 0; i < n + nown; i++) {

        if (ngx_http_agent_tool_line(t->run->pool, &lines[k],
                                     i < n ? &stored[i] : &own[i - n])
            == NULL)
        {
            return ngx_http_agent_tools_nomem(t);
        }

        size += lines[k++].len + 1;
    }

    p = ngx_pnalloc(t->run->pool, size);
    if (p == NULL) {
        return ngx_http_agent_tools_nomem(t);
    }

    call->result.data = p;

    for (i = 0; i < k; i++) {
        p = ngx_cpymem(p, lines[i].data, lines[i].len);
        *p++ = '\n';
    }

    if (t->store.total > n) {
        p = ngx_sprintf(p, "and %ui more\n", t->store.total - n);
    }

    call->result.len = p - call->result.data;

    return NGX_OK;
}


static u_char *
ngx_http_agent_tool_line(ngx_pool_t *pool, ngx_str_t *text,
    ngx_agent_artifact_t *artifact)
{
    ngx_agent_json_t  j;

    ngx_agent_json_init(&j, pool, artifact->relative_path.len
                                  + artifact->file_name.len + 8);

    ngx_agent_json_string_begin(&j);
    ngx_agent_json_string_part(&j, artifact->relative_path.data,
                               artifact->relative_path.len);
    ngx_agent_json_string_part(&j, artifact->file_name.data,
                               artifact->file_name.len);
    ngx_agent_json_string_end(&j);

    return (ngx_agent_json_done(&j, text) == NGX_OK) ? text->data : NULL;
}


static void
ngx_http_agent_tool_store(ngx_http_agent_tools_t *t,
    ngx_agent_store_pt handler)
{
    ngx_agent_live_t  *live;

    live = t->run->live;

    ngx_memzero(&t->store, sizeof(ngx_agent_store_call_t));

    t->store.pool = t->run->pool;
    t->store.log = live->log;
    t->store.handler = handler;
    t->store.data = t;
    t->store.tenant = live->tenant;
    t->store.task = &live->task;
    t->store.artifact = &t->artifact;
}
