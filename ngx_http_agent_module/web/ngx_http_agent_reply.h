
/*
 * Replies: JSON answers and JSON errors of ours.  Each function returns the
 * code to end the request with, by ngx_http_finalize_request() or by a
 * content handler's return.
 */

#ifndef _NGX_HTTP_AGENT_REPLY_H_INCLUDED_
#define _NGX_HTTP_AGENT_REPLY_H_INCLUDED_


#include <ngx_http.h>
#include "ngx_agent.h"
#include "ngx_agent_json.h"


/* Sends a JSON text, which must live as long as the request. */
ngx_int_t ngx_http_agent_reply(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *text);

/*
 * Header and body of any answer of ours, once the client's body was seen to.
 * len: of the type without its parameters.  The text must live as long as the
 * request.
 */
ngx_int_t ngx_http_agent_reply_body(ngx_http_request_t *r, ngx_uint_t status,
    const ngx_str_t *type, size_t len, ngx_str_t *text);

/* Sends what a writer has written. */
ngx_int_t ngx_http_agent_reply_json(ngx_http_request_t *r, ngx_uint_t status,
    ngx_agent_json_t *j);

/*
 * {"message": "..."}; the text is cut at 1024 bytes.  Whatever is printed
 * into it must be UTF-8: see ngx_http_agent_reply_quote().
 */
ngx_int_t ngx_http_agent_reply_error(ngx_http_request_t *r,
    ngx_uint_t status, const char *fmt, ...);

/* The same with Retry-After: 1, for what passes by itself. */
ngx_int_t ngx_http_agent_reply_later(ngx_http_request_t *r,
    ngx_uint_t status, const char *message);

/*
 * 422: where is "body", "query", "path" or "header", field a member of it or
 * NULL; why reads on from the field's name (or from "the body").
 */
ngx_int_t ngx_http_agent_reply_invalid(ngx_http_request_t *r,
    const char *where, const char *field, const char *why);

/* The same with a message of its own. */
ngx_int_t ngx_http_agent_reply_detail(ngx_http_request_t *r,
    ngx_str_t *message, const char *where, const char *field,
    const char *why);

/* 404 for an id: what is "task", "step", "artifact". */
ngx_int_t ngx_http_agent_reply_unknown(ngx_http_request_t *r,
    const char *what, ngx_str_t *id);

/* What to tell when the store said NGX_ABORT (503) or NGX_ERROR (500). */
ngx_int_t ngx_http_agent_reply_store(ngx_http_request_t *r, ngx_int_t rc);

/*
 * What to tell when the store's call about what has this id did not end with
 * NGX_OK: one of the two above.
 */
ngx_int_t ngx_http_agent_reply_failed(ngx_http_request_t *r, ngx_int_t rc,
    const char *what, ngx_str_t *id);

/* 503: the queue takes no more steps now. */
ngx_int_t ngx_http_agent_reply_full(ngx_http_request_t *r);

/*
 * The tenant is over a limit of its own, which is "max": 429 with a time to
 * come again, 402 or 507.
 */
ngx_int_t ngx_http_agent_reply_quota(ngx_http_request_t *r,
    ngx_agent_quota_e quota, ngx_str_t *max);

/* Adds a response header; value must live as long as the request. */
ngx_int_t ngx_http_agent_reply_header(ngx_http_request_t *r,
    const char *key, ngx_str_t *value);

/*
 * A client's text made fit to be shown: at most 64 bytes, printable ASCII,
 * the rest as "?".  buf has NGX_HTTP_AGENT_QUOTE bytes.
 */
#define NGX_HTTP_AGENT_QUOTE  64

void ngx_http_agent_reply_quote(ngx_str_t *text, u_char *buf,
    ngx_str_t *quoted);


#endif /* _NGX_HTTP_AGENT_REPLY_H_INCLUDED_ */
