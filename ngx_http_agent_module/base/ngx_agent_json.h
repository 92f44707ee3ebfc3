
/*
 * JSON (RFC 8259): reading by yajl callbacks, writing into a growing buffer.
 * Bytes only: knows no request, does no I/O; fuzzed by t/fuzz.
 */

#ifndef _NGX_AGENT_JSON_H_INCLUDED_
#define _NGX_AGENT_JSON_H_INCLUDED_


#include "ngx_agent.h"
#include "ngx_agent_utf8.h"


typedef enum {
    NGX_AGENT_JSON_NULL = 0,
    NGX_AGENT_JSON_BOOL,
    NGX_AGENT_JSON_NUMBER,
    NGX_AGENT_JSON_STRING,
    NGX_AGENT_JSON_OBJECT,
    NGX_AGENT_JSON_ARRAY
} ngx_agent_json_type_e;


/*
 * One value as it is met.  "path" are the keys and array indices that lead to
 * it, joined by dots ("choices.0.delta.content"); empty for the root.  A dot
 * inside a key is shown as \x01, and so is an empty key: no key can pass for
 * another path; a path over 255 bytes is cut.  "text": a string's decoded
 * UTF-8, a number's own digits, "true" or "false"; empty for the others.
 * Objects and arrays are reported when they open.  Both strings die when the
 * handler returns.
 */

typedef struct {
    ngx_str_t                  path;
    ngx_agent_json_type_e      type;
    ngx_str_t                  text;
} ngx_agent_json_value_t;


/* NGX_OK: go on; anything else stops the reading with that code */
typedef ngx_int_t (*ngx_agent_json_pt)(void *data, ngx_agent_json_value_t *v);

typedef struct ngx_agent_json_reader_s  ngx_agent_json_reader_t;


/*
 * An incremental reader, on the heap (it outlives no pool, so free it; the
 * usual way is a pool cleanup).  Lone surrogates and bytes in strings that are
 * no UTF-8 become U+FFFD and \u0000 is dropped: it is meant for an LLM's
 * answers, where strictness helps nobody, and what it reports can be stored.
 * A value is reported once it is whole; the bytes of an unfinished string are
 * held, so memory is bounded by what is fed.  Returns NULL when there is no
 * memory.
 */
ngx_agent_json_reader_t *ngx_agent_json_reader_create(
    ngx_agent_json_pt handler, void *data);

/*
 * Feeds the next bytes, any split.  NGX_OK; NGX_DECLINED: not JSON, or nested
 * deeper than NGX_AGENT_JSON_DEPTH; NGX_ERROR: no memory; else what the
 * handler returned.  After anything but NGX_OK it says the same again.
 */
ngx_int_t ngx_agent_json_reader_feed(ngx_agent_json_reader_t *r,
    const u_char *p, size_t n);

/* End of input: NGX_OK when one whole value was read, else NGX_DECLINED. */
ngx_int_t ngx_agent_json_reader_finish(ngx_agent_json_reader_t *r);

void ngx_agent_json_reader_free(ngx_agent_json_reader_t *r);


/*
 * Reads a whole document that a client sent, strictly: valid UTF-8 throughout
 * (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF), no U+0000
 * even as \u0000, no lone surrogate escapes, at most NGX_AGENT_JSON_DEPTH
 * levels, nothing behind the value.  handler may be NULL (check only).
 * NGX_OK; NGX_DECLINED with *why set to a short static text ("is not valid
 * JSON", "nests deeper than 64 levels", ...) that reads on from "the body ";
 * NGX_ERROR: no memory; else what the handler returned.
 */
ngx_int_t ngx_agent_json_read(ngx_str_t *doc, ngx_agent_json_pt handler,
    void *data, const char **why);

/*
 * The raw text of a top-level member of a document that ngx_agent_json_read()
 * has accepted; of duplicate keys the last counts, as in JavaScript and
 * Python.  Keys with escapes in them are compared decoded.  *raw points into
 * doc.  NGX_OK, or NGX_DECLINED when there is none.
 */
ngx_int_t ngx_agent_json_member(ngx_str_t *doc, const char *key,
    ngx_str_t *raw);

/*
 * Calls the handler's like for each element of a top-level array, in order:
 * *raw is the next element's text.  *pos starts at NULL.  NGX_OK, or NGX_DONE
 * behind the last one.  The document must have been accepted before.
 */
ngx_int_t ngx_agent_json_element(ngx_str_t *doc, u_char **pos,
    ngx_str_t *raw);

/*
 * The writer.  A failed allocation is remembered, further calls do nothing,
 * and ngx_agent_json_done() tells: so a long object is written without a test
 * on each line.  Commas and colons are put by the writer.  Bytes of a string
 * that are no UTF-8 are written as U+FFFD, so the text is always valid.
 */

typedef struct {
    ngx_pool_t                *pool;
    u_char                    *start;
    u_char                    *pos;
    u_char                    *end;
    u_char                     carry[4];  /* a character cut by a part's end */
    u_char                     carry_len;
    unsigned                   comma:1;
    unsigned                   failed:1;
} ngx_agent_json_t;


void ngx_agent_json_init(ngx_agent_json_t *j, ngx_pool_t *pool, size_t hint);

void ngx_agent_json_object(ngx_agent_json_t *j);         /* {  */
void ngx_agent_json_object_end(ngx_agent_json_t *j);     /* }  */
void ngx_agent_json_array(ngx_agent_json_t *j);          /* [  */
void ngx_agent_json_array_end(ngx_agent_json_t *j);      /* ]  */

/* a key is a C string of plain ASCII that needs no escapes */
void ngx_agent_json_key(ngx_agent_json_t *j, const char *key);

/* a string, escaped; data == NULL writes null */
void ngx_agent_json_string(ngx_agent_json_t *j, ngx_str_t *s);
void ngx_agent_json_cstring(ngx_agent_json_t *j, const char *s);
void ngx_agent_json_id(ngx_agent_json_t *j, const ngx_agent_id_t *id);
void ngx_agent_json_int(ngx_agent_json_t *j, int64_t n);
void ngx_agent_json_bool(ngx_agent_json_t *j, ngx_uint_t b);
void ngx_agent_json_null(ngx_agent_json_t *j);

/* text that is JSON already; len 0 writes "fallback" */
void ngx_agent_json_raw(ngx_agent_json_t *j, ngx_str_t *raw,
    const char *fallback);

/*
 * A string in pieces (a file's content): begin, any number of parts split
 * anywhere, end.  A raw part is JSON already: its escapes are made.
 */
void ngx_agent_json_string_begin(ngx_agent_json_t *j);
void ngx_agent_json_string_part(ngx_agent_json_t *j, const u_char *p,
    size_t n);
void ngx_agent_json_string_raw(ngx_agent_json_t *j, ngx_str_t *raw);
void ngx_agent_json_string_end(ngx_agent_json_t *j);

/* NGX_OK with the text (in the pool), or NGX_ERROR: no memory */
ngx_int_t ngx_agent_json_done(ngx_agent_json_t *j, ngx_str_t *text);


#endif /* _NGX_AGENT_JSON_H_INCLUDED_ */
