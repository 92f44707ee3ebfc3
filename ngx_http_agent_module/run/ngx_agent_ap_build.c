
/*
 * The agent_protocol dialect, outward: uris, bodies, forms, and the step's
 * turns.  Bytes only: no request and no I/O in here.
 */

#include "ngx_agent_ap_build.h"
#include "ngx_agent_id.h"
#include "ngx_agent_json.h"


static ngx_int_t ngx_agent_ap_memory_take(ngx_agent_ap_memory_t *m,
    ngx_str_t *turns, const char *key, ngx_str_t *id);
static ngx_int_t ngx_agent_ap_memory_sent_list(ngx_agent_ap_memory_t *m,
    ngx_str_t *list);
static ngx_int_t ngx_agent_ap_memory_got_list(ngx_agent_ap_memory_t *m,
    ngx_str_t *list);
static ngx_uint_t ngx_agent_ap_unquote(ngx_str_t *text);
static u_char *ngx_agent_ap_quoted(u_char *p, ngx_str_t *text);


ngx_int_t
ngx_agent_ap_memory_init(ngx_agent_ap_memory_t *m, ngx_pool_t *pool)
{
    ngx_memzero(m, sizeof(ngx_agent_ap_memory_t));

    m->pool = pool;

    if (ngx_array_init(&m->sent, pool, 4, sizeof(ngx_agent_id_t)) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_array_init(&m->got, pool, 4, sizeof(ngx_str_t));
}


/*
 * What the container was given stays with it.  What was taken from it is ours
 * only when the step has ended well: the files of another were dropped.
 * Turns of the other dialect are an array, and have none of these members.
 */

ngx_int_t
ngx_agent_ap_memory_add(ngx_agent_ap_memory_t *m, ngx_agent_step_t *step,
    ngx_uint_t own)
{
    ngx_int_t  tries;
    ngx_str_t  list;

    if (step->turns.len == 0) {
        return NGX_OK;
    }

    if (ngx_agent_ap_memory_take(m, &step->turns, "task_id", &m->task_id)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (own
        && ngx_agent_ap_memory_take(m, &step->turns, "step_id", &m->step_id)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (own && ngx_agent_json_member(&step->turns, "tries", &list) == NGX_OK) {
        tries = ngx_atoi(list.data, list.len);
        m->tries = (tries == NGX_ERROR) ? 0 : (ngx_uint_t) tries;
    }

    if (ngx_agent_json_member(&step->turns, "sent", &list) == NGX_OK
        && ngx_agent_ap_memory_sent_list(m, &list) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if ((step->status == NGX_AGENT_STEP_COMPLETED
         || step->status == NGX_AGENT_STEP_WAITING)
        && ngx_agent_json_member(&step->turns, "got", &list) == NGX_OK
        && ngx_agent_ap_memory_got_list(m, &list) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (!own) {
        m->sent_before = m->sent.nelts;
        m->got_before = m->got.nelts;
    }

    return NGX_OK;
}


/* An id of the container's, if the turns have it. */

static ngx_int_t
ngx_agent_ap_memory_take(ngx_agent_ap_memory_t *m, ngx_str_t *turns,
    const char *key, ngx_str_t *id)
{
    ngx_str_t  text;

    if (ngx_agent_json_member(turns, key, &text) != NGX_OK
        || !ngx_agent_ap_unquote(&text))
    {
        return NGX_OK;
    }

    id->data = ngx_pstrdup(m->pool, &text);
    if (id->data == NULL) {
        return NGX_ERROR;
    }

    id->len = text.len;

    return NGX_OK;
}


static ngx_int_t
ngx_agent_ap_memory_sent_list(ngx_agent_ap_memory_t *m, ngx_str_t *list)
{
    u_char          *pos;
    ngx_str_t        text;
    ngx_agent_id_t   id, *sent;

    pos = NULL;

    while (ngx_agent_json_element(list, &pos, &text) == NGX_OK) {

        if (!ngx_agent_ap_unquote(&text)
            || ngx_agent_id_parse(&text, &id) != NGX_OK)
        {
            continue;
        }

        sent = ngx_array_push(&m->sent);
        if (sent == NULL) {
            return NGX_ERROR;
        }

        *sent = id;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_agent_ap_memory_got_list(ngx_agent_ap_memory_t *m, ngx_str_t *list)
{
    u_char     *pos;
    ngx_str_t   text, *got;

    pos = NULL;

    while (ngx_agent_json_element(list, &pos, &text) == NGX_OK) {

        if (!ngx_agent_ap_unquote(&text)) {
            continue;
        }

        got = ngx_array_push(&m->got);
        if (got == NULL) {
            return NGX_ERROR;
        }

        got->len = text.len;
        got->data = ngx_pstrdup(m->pool, &text);

        if (got->data == NULL) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* A string of JSON that is an id: these have no escapes.  0: it is none. */

static ngx_uint_t
ngx_agent_ap_unquote(ngx_str_t *text)
{
    if (text->len < 2 || text->data[0] != '"') {
        return 0;
    }

    text->data++;
    text->len -= 2;

    return ngx_agent_ap_id_good(text);
}


ngx_int_t
ngx_agent_ap_memory_print(ngx_agent_ap_memory_t *m, ngx_pool_t *pool,
    ngx_str_t *turns)
{
    ngx_str_t         *got;
    ngx_uint_t         i;
    ngx_agent_id_t    *sent;
    ngx_agent_json_t   j;

    if (m->task_id.len == 0) {
        ngx_str_null(turns);
        return NGX_OK;
    }

    sent = m->sent.elts;
    got = m->got.elts;

    ngx_agent_json_init(&j, pool, 128);
    ngx_agent_json_object(&j);
    ngx_agent_json_key(&j, "task_id");
    ngx_agent_json_string(&j, &m->task_id);

    if (m->step_id.len) {
        ngx_agent_json_key(&j, "step_id");
        ngx_agent_json_string(&j, &m->step_id);
    }

    if (m->tries) {
        ngx_agent_json_key(&j, "tries");
        ngx_agent_json_int(&j, (int64_t) m->tries);
    }

    if (m->sent.nelts > m->sent_before) {
        ngx_agent_json_key(&j, "sent");
        ngx_agent_json_array(&j);

        for (i = m->sent_before; i < m->sent.nelts; i++) {
            ngx_agent_json_id(&j, &sent[i]);
        }

        ngx_agent_json_array_end(&j);
    }

    if (m->got.nelts > m->got_before) {
        ngx_agent_json_key(&j, "got");
        ngx_agent_json_array(&j);

        for (i = m->got_before; i < m->got.nelts; i++) {
            ngx_agent_json_string(&j, &got[i]);
        }

        ngx_agent_json_array_end(&j);
    }

    ngx_agent_json_object_end(&j);

    return ngx_agent_json_done(&j, turns);
}


ngx_uint_t
ngx_agent_ap_memory_sent(ngx_agent_ap_memory_t *m, ngx_agent_id_t *id)
{
    ngx_uint_t       i;
    ngx_agent_id_t  *sent;

    sent = m->sent.elts;

    for (i = 0; i < m->sent.nelts; i++) {
        if (ngx_memcmp(&sent[i], id, sizeof(ngx_agent_id_t)) == 0) {
            return 1;
        }
    }

    return 0;
}


ngx_uint_t
ngx_agent_ap_memory_got(ngx_agent_ap_memory_t *m, ngx_str_t *id)
{
    ngx_str_t   *got;
    ngx_uint_t   i;

    got = m->got.elts;

    for (i = 0; i < m->got.nelts; i++) {
        if (got[i].len == id->len
            && ngx_memcmp(got[i].data, id->data, id->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


void
ngx_agent_ap_uri(u_char *buf, ngx_str_t *uri, ngx_str_t *pass,
    ngx_str_t **texts, ngx_str_t *args)
{
    u_char  *p, *query, *end;

    end = pass->data + pass->len;

    query = ngx_strlchr(pass->data, end, '?');
    if (query == NULL) {
        query = end;
    }

    p = ngx_cpymem(buf, pass->data, query - pass->data);

    /* "/ap/v1/agent/" and "/ap/v1/agent" are one place */

    while (p > buf && p[-1] == '/') {
        p--;
    }

    for ( /* void */ ; *texts; texts++) {
        p = ngx_cpymem(p, (*texts)->data, (*texts)->len);
    }

    p = ngx_cpymem(p, query, end - query);

    if (args) {
        *p++ = (query == end) ? '?' : '&';
        p = ngx_cpymem(p, args->data, args->len);
    }

    uri->data = buf;
    uri->len = p - buf;
}


ngx_int_t
ngx_agent_ap_input(ngx_pool_t *pool, ngx_str_t *input,
    ngx_str_t *additional_input, ngx_str_t *body)
{
    ngx_agent_json_t  j;

    ngx_agent_json_init(&j, pool, 64 + input->len + input->len / 16
                                  + additional_input->len);

    ngx_agent_json_object(&j);
    ngx_agent_json_key(&j, "input");
    ngx_agent_json_string(&j, input);
    ngx_agent_json_key(&j, "additional_input");

    /* null is allowed to our clients, and a container may want an object */

    if (additional_input->len && additional_input->data[0] == '{') {
        ngx_agent_json_raw(&j, additional_input, "{}");

    } else {
        ngx_agent_json_object(&j);
        ngx_agent_json_object_end(&j);
    }

    ngx_agent_json_object_end(&j);

    return ngx_agent_json_done(&j, body);
}


void
ngx_agent_ap_boundary(u_char *p)
{
    ngx_agent_id_t  a, b;

    /* the first bytes of an id are the time, the last ones are random */

    ngx_agent_id_create(&a);
    ngx_agent_id_create(&b);

    p = ngx_cpymem(p, "agent-", sizeof("agent-") - 1);
    p = ngx_hex_dump(p, a.bytes + 8, 8);
    (void) ngx_hex_dump(p, b.bytes + 8, 8);
}


/*
 * As RFC 7578 and browsers do: names in UTF-8, a quote as %22; what would end
 * a line is in no name.
 */

ngx_int_t
ngx_agent_ap_form(ngx_pool_t *pool, u_char *boundary,
    ngx_agent_artifact_t *artifact, ngx_str_t *head, ngx_str_t *tail)
{
    u_char  *p;

    static const char  path[] = "Content-Disposition: form-data; "
                                "name=\"relative_path\"" CRLF CRLF;
    static const char  file[] = "Content-Disposition: form-data; "
                                "name=\"file\"; filename=\"";
    static const char  type[] = "\"" CRLF "Content-Type: "
                                "application/octet-stream" CRLF CRLF;

    head->data = ngx_pnalloc(pool, 2 * (NGX_AGENT_AP_BOUNDARY_LEN + 8)
                             + sizeof(path) + sizeof(file) + sizeof(type)
                             + artifact->relative_path.len
                             + 3 * artifact->file_name.len);
    if (head->data == NULL) {
        return NGX_ERROR;
    }

    p = head->data;

    if (artifact->relative_path.len) {
        p = ngx_sprintf(p, "--%*s" CRLF "%s%V" CRLF,
                        NGX_AGENT_AP_BOUNDARY_LEN, boundary, path,
                        &artifact->relative_path);
    }

    p = ngx_sprintf(p, "--%*s" CRLF "%s", NGX_AGENT_AP_BOUNDARY_LEN, boundary,
                    file);
    p = ngx_agent_ap_quoted(p, &artifact->file_name);
    p = ngx_cpymem(p, type, sizeof(type) - 1);

    head->len = p - head->data;

    tail->len = ngx_sprintf(tail->data, CRLF "--%*s--" CRLF,
                            NGX_AGENT_AP_BOUNDARY_LEN, boundary)
                - tail->data;

    return NGX_OK;
}


static u_char *
ngx_agent_ap_quoted(u_char *p, ngx_str_t *text)
{
    size_t  i;

    for (i = 0; i < text->len; i++) {

        if (text->data[i] == '"') {
            p = ngx_cpymem(p, "%22", 3);

        } else {
            *p++ = text->data[i];
        }
    }

    return p;
}
