
/*
 * Tool calls of the openai dialect: pieces in, whole calls out that can be
 * carried out and sent back.  Bytes only.
 */

#include "ngx_agent_openai_call.h"


#define NGX_AGENT_OPENAI_ID_LEN  128


static ngx_int_t ngx_agent_openai_object(ngx_agent_openai_t *o,
    ngx_uint_t element);
static ngx_int_t ngx_agent_openai_slice(ngx_str_t *doc, ngx_uint_t element,
    ngx_str_t *raw);
static ngx_agent_openai_part_t *ngx_agent_openai_find(ngx_agent_openai_t *o);
static ngx_uint_t ngx_agent_openai_same(ngx_agent_openai_text_t *a,
    ngx_agent_openai_text_t *b);
static ngx_int_t ngx_agent_openai_call_id(ngx_agent_openai_t *o,
    ngx_agent_openai_call_t *call, ngx_agent_openai_text_t *id);
static ngx_int_t ngx_agent_openai_call_name(ngx_agent_openai_t *o,
    ngx_agent_openai_call_t *call, ngx_agent_openai_text_t *name);
static ngx_int_t ngx_agent_openai_call_arguments(ngx_agent_openai_t *o,
    ngx_agent_openai_call_t *call, ngx_agent_openai_text_t *arguments);


ngx_int_t
ngx_agent_openai_fault(ngx_agent_openai_t *o, ngx_agent_openai_fault_e fault,
    const char *why)
{
    if (o->fault == NGX_AGENT_OPENAI_GOOD) {
        o->fault = fault;
        o->why = why;
    }

    return NGX_DECLINED;
}


ngx_int_t
ngx_agent_openai_keep(ngx_agent_openai_t *o, ngx_agent_openai_text_t *t,
    const u_char *p, size_t n)
{
    u_char  *data;
    size_t   size;

    if (n > o->max || o->kept > o->max - n) {
        return ngx_agent_openai_fault(o, NGX_AGENT_OPENAI_LARGE,
                                      "the answer is larger than max_answer");
    }

    if (t->data == NULL || t->size - t->len < n) {
        size = ngx_max(t->size * 2, ngx_max(t->len + n, 64));

        data = ngx_pnalloc(o->pool, size);
        if (data == NULL) {
            return NGX_ERROR;
        }

        if (t->len) {
            ngx_memcpy(data, t->data, t->len);
        }

        if (t->data) {
            (void) ngx_pfree(o->pool, t->data);
        }

        t->data = data;
        t->size = size;
    }

    if (n) {
        ngx_memcpy(t->data + t->len, p, n);
    }

    t->len += n;
    o->kept += n;

    return NGX_OK;
}


ngx_int_t
ngx_agent_openai_piece(ngx_agent_openai_t *o, ngx_agent_json_value_t *v,
    u_char *p, size_t n)
{
    u_char                   *dot;
    ngx_int_t                 element, rc;
    ngx_agent_openai_text_t  *t;

    dot = ngx_strlchr(p, p + n, '.');

    if (dot == NULL) {

        /* a new element of the array opens */

        rc = ngx_agent_openai_flush(o);

        o->in_piece = (v->type == NGX_AGENT_JSON_OBJECT);
        o->piece.index = -1;

        return rc;
    }

    if (!o->in_piece) {
        return NGX_OK;
    }

    element = ngx_atoi(p, dot - p);
    n -= dot + 1 - p;
    p = dot + 1;

    if (n == 5 && ngx_memcmp(p, "index", 5) == 0) {
        if (v->type == NGX_AGENT_JSON_NUMBER) {
            o->piece.index = ngx_atoi(v->text.data, v->text.len);
        }

        return NGX_OK;
    }

    if (n == 2 && ngx_memcmp(p, "id", 2) == 0) {
        t = &o->piece.id;

    } else if (n == 13 && ngx_memcmp(p, "function.name", 13) == 0) {
        t = &o->piece.name;

    } else if (n == 18 && ngx_memcmp(p, "function.arguments", 18) == 0) {
        t = &o->piece.arguments;

        if (v->type == NGX_AGENT_JSON_OBJECT && element != NGX_ERROR) {
            return ngx_agent_openai_object(o, element);
        }

    } else {
        return NGX_OK;
    }

    if (v->type != NGX_AGENT_JSON_STRING) {
        return NGX_OK;
    }

    return ngx_agent_openai_keep(o, t, v->text.data, v->text.len);
}


/* Arguments as an object, not as a string that holds one. */

static ngx_int_t
ngx_agent_openai_object(ngx_agent_openai_t *o, ngx_uint_t element)
{
    ngx_str_t    raw;
    const char  *why;

    /* slicing is for documents that the strict reader accepts */

    if (ngx_agent_json_read(o->doc, NULL, NULL, &why) != NGX_OK
        || ngx_agent_openai_slice(o->doc, element, &raw) != NGX_OK)
    {
        return NGX_OK;
    }

    return ngx_agent_openai_keep(o, &o->piece.arguments, raw.data, raw.len);
}


static ngx_int_t
ngx_agent_openai_slice(ngx_str_t *doc, ngx_uint_t element, ngx_str_t *raw)
{
    u_char      *pos;
    ngx_str_t    choices, choice, message, calls, call, function;
    ngx_uint_t   i;

    pos = NULL;

    if (ngx_agent_json_member(doc, "choices", &choices) != NGX_OK
        || ngx_agent_json_element(&choices, &pos, &choice) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    if (ngx_agent_json_member(&choice, "message", &message) != NGX_OK
        && ngx_agent_json_member(&choice, "delta", &message) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    if (ngx_agent_json_member(&message, "tool_calls", &calls) != NGX_OK) {
        return NGX_DECLINED;
    }

    pos = NULL;

    for (i = 0; i <= element; i++) {
        if (ngx_agent_json_element(&calls, &pos, &call) != NGX_OK) {
            return NGX_DECLINED;
        }
    }

    if (ngx_agent_json_member(&call, "function", &function) != NGX_OK) {
        return NGX_DECLINED;
    }

    return ngx_agent_json_member(&function, "arguments", raw);
}


ngx_int_t
ngx_agent_openai_flush(ngx_agent_openai_t *o)
{
    ngx_int_t                 rc;
    ngx_agent_openai_part_t  *part, *piece;

    if (!o->in_piece) {
        return NGX_OK;
    }

    o->in_piece = 0;

    piece = &o->piece;

    part = ngx_agent_openai_find(o);

    if (part == NULL) {
        if (o->parts.nelts >= NGX_AGENT_OPENAI_CALLS) {
            return ngx_agent_openai_fault(o, NGX_AGENT_OPENAI_LARGE,
                                          "the answer has too many tool calls");
        }

        part = ngx_array_push(&o->parts);
        if (part == NULL) {
            return NGX_ERROR;
        }

        ngx_memzero(part, sizeof(ngx_agent_openai_part_t));
        part->index = piece->index;
    }

    /* the piece's bytes were counted when they were read */

    o->kept -= piece->id.len + piece->name.len + piece->arguments.len;

    /* some send id and name once, some with every piece */

    rc = NGX_OK;

    if (part->id.len == 0) {
        rc = ngx_agent_openai_keep(o, &part->id, piece->id.data,
                                   piece->id.len);
    }

    if (rc == NGX_OK && !ngx_agent_openai_same(&part->name, &piece->name)) {
        rc = ngx_agent_openai_keep(o, &part->name, piece->name.data,
                                   piece->name.len);
    }

    if (rc == NGX_OK) {
        rc = ngx_agent_openai_keep(o, &part->arguments, piece->arguments.data,
                                   piece->arguments.len);
    }

    piece->id.len = 0;
    piece->name.len = 0;
    piece->arguments.len = 0;

    return rc;
}


/*
 * The call a piece belongs to: by its index; without one the last, unless it
 * brings a name or id of its own.  Endpoints are seen that give index 0 to
 * every call, each with its own id and name: those are calls of their own.
 */

static ngx_agent_openai_part_t *
ngx_agent_openai_find(ngx_agent_openai_t *o)
{
    ngx_uint_t                i, new;
    ngx_agent_openai_part_t  *part, *piece;

    piece = &o->piece;
    part = o->parts.elts;

    for (i = o->parts.nelts; i > 0; i--) {

        new = piece->id.len && piece->name.len
              && !ngx_agent_openai_same(&piece->id, &part[i - 1].id);

        if (piece->index < 0) {
            return (new || (piece->name.len && part[i - 1].arguments.len))
                   ? NULL : &part[i - 1];
        }

        if (part[i - 1].index == piece->index) {
            return new ? NULL : &part[i - 1];
        }
    }

    return NULL;
}


static ngx_uint_t
ngx_agent_openai_same(ngx_agent_openai_text_t *a, ngx_agent_openai_text_t *b)
{
    return a->len == b->len
           && (a->len == 0 || ngx_memcmp(a->data, b->data, a->len) == 0);
}


ngx_int_t
ngx_agent_openai_calls(ngx_agent_openai_t *o)
{
    ngx_uint_t                i;
    ngx_agent_openai_part_t  *part;
    ngx_agent_openai_call_t  *call;

    if (ngx_array_init(&o->calls, o->pool, ngx_max(o->parts.nelts, 1),
                       sizeof(ngx_agent_openai_call_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    part = o->parts.elts;

    for (i = 0; i < o->parts.nelts; i++) {
        call = ngx_array_push(&o->calls);
        if (call == NULL) {
            return NGX_ERROR;
        }

        ngx_memzero(call, sizeof(ngx_agent_openai_call_t));

        if (ngx_agent_openai_call_id(o, call, &part[i].id) != NGX_OK
            || ngx_agent_openai_call_name(o, call, &part[i].name) != NGX_OK
            || ngx_agent_openai_call_arguments(o, call, &part[i].arguments)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* Its own id, or one made up where it has none or that of another call. */

static ngx_int_t
ngx_agent_openai_call_id(ngx_agent_openai_t *o, ngx_agent_openai_call_t *call,
    ngx_agent_openai_text_t *id)
{
    u_char                   *p;
    ngx_uint_t                i, used;
    ngx_agent_openai_call_t  *other;

    used = 0;
    other = o->calls.elts;

    for (i = 0; i + 1 < o->calls.nelts; i++) {
        if (other[i].id.len == id->len
            && ngx_memcmp(other[i].id.data, id->data, id->len) == 0)
        {
            used = 1;
        }
    }

    if (id->len && id->len <= NGX_AGENT_OPENAI_ID_LEN && !used) {
        call->id.data = id->data;
        call->id.len = id->len;
        return NGX_OK;
    }

    p = ngx_pnalloc(o->pool, sizeof("call_") + 16);
    if (p == NULL) {
        return NGX_ERROR;
    }

    call->id.data = p;
    call->id.len = ngx_sprintf(p, "call_%08xD%02xi",
                               (uint32_t) ngx_random(),
                               (ngx_int_t) o->calls.nelts)
                   - p;

    return NGX_OK;
}


/* Only what endpoints take back; an odd name is answered as unknown. */

static ngx_int_t
ngx_agent_openai_call_name(ngx_agent_openai_t *o,
    ngx_agent_openai_call_t *call, ngx_agent_openai_text_t *name)
{
    u_char      c;
    ngx_uint_t  i;

    if (name->len == 0) {
        ngx_str_set(&call->name, "unknown");
        return NGX_OK;
    }

    call->name.len = ngx_min(name->len, NGX_AGENT_OPENAI_NAME_LEN);

    call->name.data = ngx_pnalloc(o->pool, call->name.len);
    if (call->name.data == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < call->name.len; i++) {
        c = name->data[i];

        call->name.data[i] = ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
                              || (c >= '0' && c <= '9') || c == '-')
                             ? c : '_';
    }

    return NGX_OK;
}


/*
 * Endpoints parse the arguments they get back and refuse the talk when that
 * fails, so what is no JSON object is wrapped into one.
 */

static ngx_int_t
ngx_agent_openai_call_arguments(ngx_agent_openai_t *o,
    ngx_agent_openai_call_t *call, ngx_agent_openai_text_t *arguments)
{
    u_char            *p, *last;
    const char        *why;
    ngx_agent_json_t   j;

    call->raw.data = arguments->data;
    call->raw.len = arguments->len;

    p = arguments->data;
    last = p + arguments->len;

    while (p < last && (*p == ' ' || *p == '\t' || *p == CR || *p == LF)) {
        p++;
    }

    if (p == last) {
        ngx_str_set(&call->raw, "{}");
        call->arguments = call->raw;
        return NGX_OK;
    }

    if (*p == '{') {
        switch (ngx_agent_json_read(&call->raw, NULL, NULL, &why)) {

        case NGX_OK:
            call->arguments = call->raw;
            return NGX_OK;

        case NGX_ERROR:
            return NGX_ERROR;

        default:
            break;
        }
    }

    ngx_agent_json_init(&j, o->pool, call->raw.len + 32);
    ngx_agent_json_object(&j);
    ngx_agent_json_key(&j, "raw");
    ngx_agent_json_string(&j, &call->raw);
    ngx_agent_json_object_end(&j);

    return ngx_agent_json_done(&j, &call->arguments);
}
