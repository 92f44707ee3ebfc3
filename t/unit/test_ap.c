
/*
 * The agent_protocol dialect's bytes: uris, forms, what is remembered of a
 * container, what its answer comes to.
 */

#include "stub.h"
#include "ngx_agent_ap_build.h"


static ngx_pool_t  *pool;


static void
uri(const char *pass, const char *first, const char *second,
    const char *args, const char *expected)
{
    u_char      buf[256 + NGX_AGENT_AP_URI_LEN];
    ngx_str_t   p, s[2], a, out, *texts[3];

    p = (ngx_str_t) { strlen(pass), (u_char *) pass };
    s[0] = (ngx_str_t) { strlen(first), (u_char *) first };
    texts[0] = &s[0];
    texts[1] = NULL;
    texts[2] = NULL;

    if (second) {
        s[1] = (ngx_str_t) { strlen(second), (u_char *) second };
        texts[1] = &s[1];
    }

    if (args) {
        a = (ngx_str_t) { strlen(args), (u_char *) args };
    }

    ngx_agent_ap_uri(buf, &out, &p, texts, args ? &a : NULL);

    ok(out.len == strlen(expected)
       && memcmp(out.data, expected, out.len) == 0,
       "\"%s\" becomes \"%s\": %.*s", pass, expected, (int) out.len,
       out.data);
}


static void
uris(void)
{
    uri("/c/ap/v1/agent", "/tasks", NULL, NULL, "/c/ap/v1/agent/tasks");
    uri("/c/ap/v1/agent/", "/tasks", NULL, NULL, "/c/ap/v1/agent/tasks");
    uri("/c//", "/tasks/", "7", NULL, "/c/tasks/7");
    uri("/", "/tasks", NULL, NULL, "/tasks");
    uri("/c?a=b", "/tasks/", "7", NULL, "/c/tasks/7?a=b");
    uri("/c/?a=b", "/tasks", NULL, "page=1", "/c/tasks?a=b&page=1");
    uri("/c", "/tasks", NULL, "page=1", "/c/tasks?page=1");
}


static void
id(const char *s, size_t n, ngx_uint_t good)
{
    ngx_str_t  text;

    text = (ngx_str_t) { n, (u_char *) s };

    ok(ngx_agent_ap_id_good(&text) == good, "the id \"%.*s\" is %s",
       (int) ngx_min(n, 20), s, good ? "good" : "none");
}


static void
ids(void)
{
    char  longest[NGX_AGENT_AP_ID_MAX + 1];

    memset(longest, 'a', sizeof(longest));

    id("0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f506", 36, 1);
    id("a.b", 3, 1);
    id("a_~:@=+,9", 9, 1);
    id(longest, NGX_AGENT_AP_ID_MAX, 1);
    id(longest, NGX_AGENT_AP_ID_MAX + 1, 0);
    id("", 0, 0);
    id(".", 1, 0);
    id("..", 2, 0);
    id("a/b", 3, 0);
    id("a?b", 3, 0);
    id("a#b", 3, 0);
    id("a%2e", 4, 0);
    id("a b", 3, 0);
    id("a\r\nb", 4, 0);
    id("a\0b", 3, 0);
    id("a\"b", 3, 0);
    id("a\\b", 3, 0);
    id("a\xc3\xa9", 3, 0);
}


static ngx_uint_t
has(ngx_str_t *text, const char *what)
{
    return memmem(text->data, text->len, what, strlen(what)) != NULL;
}


static void
forms(void)
{
    u_char                 boundary[NGX_AGENT_AP_BOUNDARY_LEN];
    u_char                 other[NGX_AGENT_AP_BOUNDARY_LEN];
    u_char                 end[NGX_AGENT_AP_TAIL_LEN];
    ngx_str_t              head, tail;
    ngx_agent_artifact_t   a;

    ngx_agent_ap_boundary(boundary);
    ngx_agent_ap_boundary(other);
    ok(memcmp(boundary, other, sizeof(boundary)) != 0,
       "each form has a boundary of its own");

    memset(boundary, 'B', sizeof(boundary));
    memset(&a, 0, sizeof(a));
    a.file_name = S("a\"b.txt");
    tail.data = end;

    ok(ngx_agent_ap_form(pool, boundary, &a, &head, &tail) == NGX_OK,
       "a form");
    ok(head.len > 2 + sizeof(boundary) && memcmp(head.data, "--BB", 4) == 0
       && memcmp(head.data + head.len - 4, "\r\n\r\n", 4) == 0,
       "its head begins with the boundary and ends before the bytes");
    ok(has(&head, "name=\"file\"; filename=\"a%22b.txt\"\r\n"),
       "it has the name: %.*s", (int) head.len, head.data);
    ok(!has(&head, "relative_path"), "and no path");
    ok(tail.len == sizeof(end) && memcmp(end, "\r\n--BB", 6) == 0
       && memcmp(end + tail.len - 4, "--\r\n", 4) == 0, "its end");

    a.relative_path = S("docs/");
    ok(ngx_agent_ap_form(pool, boundary, &a, &head, &tail) == NGX_OK
       && has(&head, "name=\"relative_path\"\r\n\r\ndocs/\r\n--BB"),
       "a form with a path");
}


static void
remember(ngx_agent_ap_memory_t *m, ngx_agent_status_e status,
    const char *turns, ngx_uint_t own)
{
    ngx_agent_step_t  step;

    memset(&step, 0, sizeof(step));
    step.status = status;
    step.turns = (ngx_str_t) { strlen(turns), (u_char *) turns };

    ok(ngx_agent_ap_memory_add(m, &step, own) == NGX_OK, "takes %s", turns);
}


static void
printed(ngx_agent_ap_memory_t *m, const char *expected)
{
    ngx_int_t  rc;
    ngx_str_t  turns;

    ngx_str_null(&turns);
    rc = ngx_agent_ap_memory_print(m, pool, &turns);

    ok(rc == NGX_OK && turns.len == strlen(expected)
       && (turns.len == 0
           || memcmp(turns.data, expected, turns.len) == 0),
       "is remembered as %s: %.*s", expected, (int) turns.len, turns.data);
}


static void
memory(void)
{
    ngx_str_t               s, *got;
    ngx_agent_id_t          sent;
    ngx_agent_ap_memory_t   m;

    memset(&sent, 0x11, sizeof(sent));

    ok(ngx_agent_ap_memory_init(&m, pool) == NGX_OK, "nothing at first");
    printed(&m, "");

    remember(&m, NGX_AGENT_STEP_COMPLETED, "[{\"role\":\"assistant\"}]", 0);
    printed(&m, "");

    remember(&m, NGX_AGENT_STEP_FAILED, "{\"task_id\":\"t\",\"step_id\":\"x\","
             "\"sent\":[\"11111111-1111-1111-1111-111111111111\"],"
             "\"got\":[\"lost\"]}", 0);
    ok(m.step_id.len == 0, "the step of another step of ours is none");
    ok(ngx_agent_ap_memory_sent(&m, &sent), "what was sent stays sent");
    s = S("lost");
    ok(!ngx_agent_ap_memory_got(&m, &s), "what a failed step got is lost");
    printed(&m, "{\"task_id\":\"t\"}");

    remember(&m, NGX_AGENT_STEP_WAITING, "{\"task_id\":\"t\",\"got\":[\"a\","
             "7,\"../b\",\"c\"]}", 0);
    s = S("c");
    ok(ngx_agent_ap_memory_got(&m, &s) && m.got.nelts == 2,
       "what another got is here, as far as these are ids");

    remember(&m, NGX_AGENT_STEP_RUNNING, "{\"task_id\":\"t\",\"step_id\":"
             "\"s\",\"got\":[\"d\"]}", 1);
    ok(m.step_id.len == 1, "the step that is run goes on");
    ok(m.got.nelts == 2, "its files are to be got again");

    got = ngx_array_push(&m.got);
    *got = S("d");
    *(ngx_agent_id_t *) ngx_array_push(&m.sent) = sent;

    printed(&m, "{\"task_id\":\"t\",\"step_id\":\"s\",\"sent\":"
            "[\"11111111-1111-1111-1111-111111111111\"],\"got\":[\"d\"]}");
}


static void
name(const char *file_name, const char *relative_path, const char *expected)
{
    char                  both[600];
    ngx_str_t             n, p;
    const char           *why;
    ngx_agent_ap_file_t   file;

    memset(&file, 0, sizeof(file));

    if (file_name) {
        file.file_name = (ngx_str_t) { strlen(file_name),
                                       (u_char *) file_name };
    }

    if (relative_path) {
        file.relative_path = (ngx_str_t) { strlen(relative_path),
                                           (u_char *) relative_path };
    }

    why = ngx_agent_ap_file_name(&file, &n, &p);

    if (why == NULL) {
        snprintf(both, sizeof(both), "%.*s|%.*s", (int) p.len,
                 p.data ? (char *) p.data : "", (int) n.len, n.data);
    }

    ok(expected ? why == NULL && strcmp(both, expected) == 0 : why != NULL,
       "%s of %s is %s: %s", file_name ? file_name : "(none)",
       relative_path ? relative_path : "(none)",
       expected ? expected : "refused", why ? why : both);
}


static void
names(void)
{
    name("a.txt", NULL, "|a.txt");
    name("a.txt", "", "|a.txt");
    name("a.txt", ".", "|a.txt");
    name("a.txt", "docs", "docs|a.txt");
    name("a.txt", "./docs/", "docs/|a.txt");
    name("a.txt", "/docs/", "docs/|a.txt");
    name("a.txt", "///", "|a.txt");
    name("docs/a.txt", NULL, "docs/|a.txt");
    name("docs/a.txt", "more", NULL);
    name("../a.txt", NULL, NULL);
    name("a.txt", "../docs", NULL);
    name("..", NULL, NULL);
    name("", NULL, NULL);
    name(NULL, "docs", NULL);
    name("a\nb", NULL, NULL);
}


static ngx_agent_ap_answer_t *
answer(const char *text, ngx_int_t rc)
{
    ngx_str_t                     doc;
    const char                   *why;
    static ngx_agent_ap_answer_t  a;

    doc = (ngx_str_t) { strlen(text), (u_char *) text };
    why = "";

    ok(ngx_agent_ap_parse(pool, &doc, &a, &why) == rc, "reads %.60s: %s",
       text, why);

    return &a;
}


static void
answers(void)
{
    char                   *many;
    size_t                  n;
    ngx_uint_t              i;
    ngx_agent_ap_file_t    *file;
    ngx_agent_ap_answer_t  *a;

    answer("", NGX_DECLINED);
    answer("[]", NGX_DECLINED);
    answer("\"a\"", NGX_DECLINED);
    answer("{\"a\":", NGX_DECLINED);
    answer("{\"a\":\"\\u0000\"}", NGX_DECLINED);

    a = answer("{}", NGX_OK);
    ok(a->status == NGX_AGENT_AP_NONE && !a->listed, "nothing is said");

    a = answer("{\"status\":\"created\",\"artifacts\":[]}", NGX_OK);
    ok(a->status == NGX_AGENT_AP_RUNNING && a->listed, "created");

    a = answer("{\"status\":\"completed\",\"additional_input_needed\":true}",
               NGX_OK);
    ok(a->status == NGX_AGENT_AP_WAITING, "strict, and it waits");

    a = answer("{\"status\":\"done\"}", NGX_OK);
    ok(a->status == NGX_AGENT_AP_UNKNOWN, "an unknown status");

    a = answer("{\"status\":7,\"output\":null,\"name\":{\"status\":\"failed\"}"
               ",\"is_last\":\"true\"}", NGX_OK);
    ok(a->status == NGX_AGENT_AP_NONE && a->output.data == NULL
       && a->name.data == NULL && !a->is_last, "wrong types are none");

    a = answer("{\"output\":[1, 2],\"additional_output\":\"x\"}", NGX_OK);
    ok(a->output.len == 6 && memcmp(a->output.data, "[1, 2]", 6) == 0,
       "an output that is an array");
    ok(a->additional_output.len == 13
       && memcmp(a->additional_output.data, "{\"value\":\"x\"}", 13) == 0,
       "an additional_output that is a string");

    a = answer("{\"artifacts\":[{\"artifact_id\":\"a\",\"agent_created\":true,"
               "\"file_name\":\"f\",\"relative_path\":null,\"more\":"
               "{\"artifact_id\":\"x\"}},{\"agent_created\":false},7],"
               "\"pagination\":{\"total_pages\":3}}", NGX_OK);
    file = a->files.elts;
    ok(a->files.nelts == 3 && a->pages == 3, "three artifacts, three pages");
    ok(file[0].by_agent && file[0].id.len == 1 && file[0].id.data[0] == 'a'
       && file[0].relative_path.data == NULL, "the first one");
    ok(file[1].by_client && file[1].id.data == NULL, "the second");
    ok(!file[2].by_client && !file[2].by_agent, "and what is none");

    a = answer("{\"artifacts\":[{\"artifact_id\":\"a\"}],\"artifacts\":"
               "{\"0\":{\"artifact_id\":\"b\"}}}", NGX_OK);
    ok(a->files.nelts == 1, "artifacts that are an object");

    many = malloc(16 * NGX_AGENT_AP_FILES);
    n = sprintf(many, "{\"artifacts\":[{}");

    for (i = 0; i < NGX_AGENT_AP_FILES; i++) {
        n += sprintf(many + n, ",{}");
    }

    sprintf(many + n, "]}");
    a = answer(many, NGX_OK);
    ok(a->large && a->files.nelts == NGX_AGENT_AP_FILES, "too many artifacts");
    free(many);
}


int
main(void)
{
    pool = stub_pool();

    uris();
    ids();
    forms();
    memory();
    names();
    answers();

    ngx_destroy_pool(pool);

    return done_testing();
}
