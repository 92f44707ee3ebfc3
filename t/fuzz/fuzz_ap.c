
/*
 * The answer of a container: what is kept of it can be stored and shown, its
 * ids can stand in a uri, and what is remembered of it is read again as it was
 * written.
 */

#include "stub.h"
#include "ngx_agent_json.h"
#include "ngx_agent_name.h"
#include "ngx_agent_ap_build.h"


static void
text(ngx_str_t *s)
{
    if (s->len && !ngx_agent_utf8_valid(s->data, s->len)) {
        abort();
    }
}


static void
json(ngx_str_t *s)
{
    const char  *why;

    if (s->len && ngx_agent_json_read(s, NULL, NULL, &why) != NGX_OK) {
        abort();
    }
}


static void
files(ngx_agent_ap_answer_t *a)
{
    ngx_str_t             name, path;
    ngx_uint_t            i;
    ngx_agent_ap_file_t  *file;

    if (a->files.nelts > NGX_AGENT_AP_FILES) {
        abort();
    }

    file = a->files.elts;

    for (i = 0; i < a->files.nelts; i++) {
        text(&file[i].id);
        text(&file[i].file_name);
        text(&file[i].relative_path);

        if (file[i].by_agent && file[i].by_client) {
            abort();
        }

        if (ngx_agent_ap_file_name(&file[i], &name, &path) == NULL
            && (ngx_agent_name_check(&name) || ngx_agent_path_check(&path)))
        {
            abort();
        }
    }
}


static void
answer(ngx_pool_t *pool, ngx_str_t *doc)
{
    ngx_int_t               rc;
    const char             *why;
    ngx_agent_ap_answer_t   a;

    why = NULL;
    rc = ngx_agent_ap_parse(pool, doc, &a, &why);

    if (rc == NGX_DECLINED) {

        if (why == NULL) {
            abort();
        }

        return;
    }

    if (rc != NGX_OK) {
        abort();
    }

    text(&a.task_id);
    text(&a.step_id);
    text(&a.name);
    text(&a.status_name);
    text(&a.output);
    text(&a.error);
    json(&a.additional_output);
    files(&a);

    if (a.additional_output.len && a.additional_output.data[0] != '{') {
        abort();
    }

    if ((a.status == NGX_AGENT_AP_NONE) != (a.status_name.data == NULL)) {
        abort();
    }
}


/* turns may be another dialect's; what is made of them comes round */

static void
memory(ngx_pool_t *pool, ngx_str_t *doc, ngx_uint_t own)
{
    const char             *why;
    ngx_str_t               first, second;
    ngx_agent_step_t        step;
    ngx_agent_ap_memory_t   m;

    if (ngx_agent_json_read(doc, NULL, NULL, &why) != NGX_OK) {
        return;
    }

    memset(&step, 0, sizeof(step));
    step.turns = *doc;
    step.status = NGX_AGENT_STEP_COMPLETED;

    if (ngx_agent_ap_memory_init(&m, pool) != NGX_OK
        || ngx_agent_ap_memory_add(&m, &step, own) != NGX_OK)
    {
        abort();
    }

    m.sent_before = 0;
    m.got_before = 0;

    if (ngx_agent_ap_memory_print(&m, pool, &first) != NGX_OK) {
        abort();
    }

    json(&first);

    if (first.len == 0) {
        return;
    }

    step.turns = first;

    if (ngx_agent_ap_memory_init(&m, pool) != NGX_OK
        || ngx_agent_ap_memory_add(&m, &step, own) != NGX_OK)
    {
        abort();
    }

    m.sent_before = 0;
    m.got_before = 0;

    if (ngx_agent_ap_memory_print(&m, pool, &second) != NGX_OK
        || first.len != second.len
        || memcmp(first.data, second.data, first.len) != 0)
    {
        abort();
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    u_char      *copy;
    ngx_str_t    doc;
    ngx_pool_t  *pool;

    pool = stub_pool();
    copy = malloc(n ? n : 1);

    if (n) {
        memcpy(copy, p, n);
    }

    doc.data = copy;
    doc.len = n;

    answer(pool, &doc);
    memory(pool, &doc, 0);
    memory(pool, &doc, 1);

    free(copy);
    ngx_destroy_pool(pool);

    return 0;
}
