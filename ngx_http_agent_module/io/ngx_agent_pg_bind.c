
/*
 * Values in Postgres' binary form: parameters of calls, arrays of them for
 * grouped statements, and columns of results.  Bytes only.
 */

#include "ngx_agent_pg.h"


static u_char *ngx_agent_pg_put4(u_char *p, uint32_t n);
static void ngx_agent_pg_put(ngx_agent_pg_call_t *call, const void *data,
    int len);
static size_t ngx_agent_pg_array_size(ngx_agent_pg_call_t **calls,
    ngx_uint_t n, ngx_uint_t col);
static u_char *ngx_agent_pg_array(u_char *p, Oid type,
    ngx_agent_pg_call_t **calls, ngx_uint_t n, ngx_uint_t col);
static u_char *ngx_agent_pg_array_head(u_char *p, Oid type, ngx_uint_t n);
static u_char *ngx_agent_pg_element(u_char *p, const void *data, size_t len);


/* an array with one dimension: dimensions, has nulls, type, length, bound */

#define NGX_AGENT_PG_ARRAY_HEAD  20

#define NGX_AGENT_PG_TEXT        25          /* the type's number */


ngx_int_t
ngx_agent_pg_bind(ngx_agent_pg_bind_t *b, const ngx_agent_pg_stmt_t *st,
    ngx_agent_pg_call_t **calls, ngx_uint_t n, ngx_log_t *log)
{
    u_char      *p;
    size_t       size;
    ngx_uint_t   i;

    if (!st->grouped) {
        for (i = 0; i < st->nparams; i++) {
            b->values[i] = calls[0]->params[i].data;
            b->lengths[i] = calls[0]->params[i].len;
        }

        return NGX_OK;
    }

    for (size = 0, i = 0; i < st->nparams; i++) {
        size += ngx_agent_pg_array_size(calls, n, i);
    }

    if (size > b->size) {
        p = ngx_alloc(size, log);
        if (p == NULL) {
            return NGX_ERROR;
        }

        if (b->start) {
            ngx_free(b->start);
        }

        b->start = p;
        b->size = size;
    }

    for (p = b->start, i = 0; i < st->nparams; i++) {
        b->values[i] = (char *) p;
        p = ngx_agent_pg_array(p, st->types[i], calls, n, i);
        b->lengths[i] = (int) (p - (u_char *) b->values[i]);
    }

    return NGX_OK;
}


void
ngx_agent_pg_bind_scope(ngx_agent_pg_bind_t *b, ngx_agent_pg_call_t *call)
{
    b->values[0] = (char *) call->scope.data;
    b->lengths[0] = (int) call->scope.len;
}


static size_t
ngx_agent_pg_array_size(ngx_agent_pg_call_t **calls, ngx_uint_t n,
    ngx_uint_t col)
{
    size_t      size;
    ngx_uint_t  i;

    size = NGX_AGENT_PG_ARRAY_HEAD + n * 4;

    for (i = 0; i < n; i++) {
        size += calls[i]->params[col].len;
    }

    return size;
}


static u_char *
ngx_agent_pg_array(u_char *p, Oid type, ngx_agent_pg_call_t **calls,
    ngx_uint_t n, ngx_uint_t col)
{
    u_char                *has_nulls;
    ngx_uint_t             i;
    ngx_agent_pg_param_t  *v;

    has_nulls = p + 4;
    p = ngx_agent_pg_array_head(p, type, n);

    for (i = 0; i < n; i++) {
        v = &calls[i]->params[col];

        if (v->data == NULL) {
            (void) ngx_agent_pg_put4(has_nulls, 1);
        }

        p = ngx_agent_pg_element(p, v->data, v->len);
    }

    return p;
}


/* without nulls, which the caller may correct */

static u_char *
ngx_agent_pg_array_head(u_char *p, Oid type, ngx_uint_t n)
{
    p = ngx_agent_pg_put4(p, 1);
    p = ngx_agent_pg_put4(p, 0);
    p = ngx_agent_pg_put4(p, type);
    p = ngx_agent_pg_put4(p, (uint32_t) n);

    return ngx_agent_pg_put4(p, 1);
}


static u_char *
ngx_agent_pg_element(u_char *p, const void *data, size_t len)
{
    if (data == NULL) {
        return ngx_agent_pg_put4(p, (uint32_t) -1);
    }

    p = ngx_agent_pg_put4(p, (uint32_t) len);

    return ngx_cpymem(p, data, len);
}


/* a grouped statement's first column is the call's place, from 1, an int4 */

ngx_int_t
ngx_agent_pg_index(PGresult *res, const ngx_agent_pg_stmt_t *st, ngx_uint_t n,
    int **first, int **rows, ngx_log_t *log)
{
    int         i, ntuples, calls, *at;
    ngx_str_t   s;

    ntuples = PQntuples(res);
    calls = (int) n;

    *first = ngx_calloc((calls + 2 + ntuples) * sizeof(int), log);
    if (*first == NULL) {
        return NGX_ERROR;
    }

    *rows = *first + calls + 2;

    /* at[i + 1] counts, then starts, then has moved on to be first[i + 1] */
    at = *first + 1;

    for (i = 0; i < ntuples; i++) {
        s.data = (u_char *) PQgetvalue(res, i, 0);
        at[st->grouped ? s.data[2] * 256 + s.data[3] : 1]++;
    }

    for (i = 1; i <= calls; i++) {
        at[i] += at[i - 1];
    }

    for (i = ntuples - 1; i >= 0; i--) {
        s.data = (u_char *) PQgetvalue(res, i, 0);
        (*rows)[--at[st->grouped ? s.data[2] * 256 + s.data[3] : 1]] = i;
    }

    /* at[i] is now the start of call i (from 1): shift by one */
    for (i = 0; i < calls; i++) {
        (*first)[i] = at[i + 1];
    }

    (*first)[calls] = ntuples;

    return NGX_OK;
}


static u_char *
ngx_agent_pg_put4(u_char *p, uint32_t n)
{
    *p++ = (u_char) (n >> 24);
    *p++ = (u_char) (n >> 16);
    *p++ = (u_char) (n >> 8);
    *p++ = (u_char) n;

    return p;
}


static void
ngx_agent_pg_put(ngx_agent_pg_call_t *call, const void *data, int len)
{
    ngx_agent_pg_param_t  *v;

    v = &call->params[call->nparams++];
    v->data = data;
    v->len = data ? len : 0;
}


void
ngx_agent_pg_null(ngx_agent_pg_call_t *call)
{
    ngx_agent_pg_put(call, NULL, 0);
}


void
ngx_agent_pg_text(ngx_agent_pg_call_t *call, ngx_str_t *s)
{
    ngx_agent_pg_put(call, s->data, (int) s->len);
}


void
ngx_agent_pg_json(ngx_agent_pg_call_t *call, ngx_str_t *s)
{
    ngx_agent_pg_put(call, s->len ? s->data : NULL, (int) s->len);
}


void
ngx_agent_pg_id(ngx_agent_pg_call_t *call, const ngx_agent_id_t *id)
{
    ngx_agent_pg_put(call, id ? id->bytes : NULL, 16);
}


void
ngx_agent_pg_int4(ngx_agent_pg_call_t *call, int32_t n)
{
    u_char  *p;

    p = &call->scratch[call->scratched];
    call->scratched += 4;

    (void) ngx_agent_pg_put4(p, (uint32_t) n);
    ngx_agent_pg_put(call, p, 4);
}


void
ngx_agent_pg_int8(ngx_agent_pg_call_t *call, int64_t n)
{
    u_char  *p;

    p = &call->scratch[call->scratched];
    call->scratched += 8;

    (void) ngx_agent_pg_put4(p, (uint32_t) ((uint64_t) n >> 32));
    (void) ngx_agent_pg_put4(p + 4, (uint32_t) n);
    ngx_agent_pg_put(call, p, 8);
}


void
ngx_agent_pg_bool(ngx_agent_pg_call_t *call, ngx_uint_t b)
{
    u_char  *p;

    p = &call->scratch[call->scratched++];
    *p = b ? 1 : 0;
    ngx_agent_pg_put(call, p, 1);
}


ngx_int_t
ngx_agent_pg_texts(ngx_agent_pg_call_t *call, ngx_pool_t *pool, ngx_str_t *s,
    ngx_uint_t n)
{
    u_char      *p, *start;
    size_t       size;
    ngx_uint_t   i;

    for (size = NGX_AGENT_PG_ARRAY_HEAD, i = 0; i < n; i++) {
        size += 4 + s[i].len;
    }

    start = ngx_pnalloc(pool, size);
    if (start == NULL) {
        return NGX_ERROR;
    }

    p = ngx_agent_pg_array_head(start, NGX_AGENT_PG_TEXT, n);

    if (n == 0) {
        /* an empty array has no dimension, and nothing behind its type */
        (void) ngx_agent_pg_put4(start, 0);
        p = start + 12;
    }

    for (i = 0; i < n; i++) {
        /* no nulls: one without bytes is an empty text */
        p = ngx_agent_pg_element(p, s[i].data ? s[i].data : start, s[i].len);
    }

    ngx_agent_pg_put(call, start, (int) (p - start));

    return NGX_OK;
}


ngx_uint_t
ngx_agent_pg_is_null(ngx_agent_pg_rows_t *rows, ngx_uint_t i, int col)
{
    return PQgetisnull(rows->res, rows->rows[i], col);
}


/* null has data NULL; an empty string has not */

ngx_str_t
ngx_agent_pg_get_text(ngx_agent_pg_rows_t *rows, ngx_uint_t i, int col)
{
    ngx_str_t  s;

    if (ngx_agent_pg_is_null(rows, i, col)) {
        ngx_str_null(&s);
        return s;
    }

    s.data = (u_char *) PQgetvalue(rows->res, rows->rows[i], col);
    s.len = PQgetlength(rows->res, rows->rows[i], col);

    return s;
}


/* int2, int4 and int8 alike; null is 0 */

int64_t
ngx_agent_pg_get_int(ngx_agent_pg_rows_t *rows, ngx_uint_t i, int col)
{
    u_char    *p, *last;
    uint64_t   n;
    ngx_str_t  s;

    s = ngx_agent_pg_get_text(rows, i, col);
    if (s.len == 0) {
        return 0;
    }

    n = (s.data[0] & 0x80) ? (uint64_t) -1 : 0;

    for (p = s.data, last = s.data + s.len; p < last; p++) {
        n = (n << 8) | *p;
    }

    return (int64_t) n;
}


ngx_uint_t
ngx_agent_pg_get_bool(ngx_agent_pg_rows_t *rows, ngx_uint_t i, int col)
{
    return ngx_agent_pg_get_int(rows, i, col) != 0;
}


void
ngx_agent_pg_get_id(ngx_agent_pg_rows_t *rows, ngx_uint_t i, int col,
    ngx_agent_id_t *id)
{
    ngx_str_t  s;

    s = ngx_agent_pg_get_text(rows, i, col);

    if (s.len != 16) {
        ngx_memzero(id, sizeof(ngx_agent_id_t));
        return;
    }

    ngx_memcpy(id->bytes, s.data, 16);
}
