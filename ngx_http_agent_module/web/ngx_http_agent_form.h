
/*
 * Answers that may have another form than JSON: which one a client asks for.
 */

#ifndef _NGX_HTTP_AGENT_FORM_H_INCLUDED_
#define _NGX_HTTP_AGENT_FORM_H_INCLUDED_


#include <ngx_http.h>


#define NGX_HTTP_AGENT_FORM_ACCEPTS  2


/* The other form.  "type" begins with the first of "accepts". */

typedef struct {
    ngx_str_t                  name;         /* in ?format= */
    ngx_str_t                  type;         /* Content-Type */

    /* what asks for it in Accept */
    ngx_str_t                  accepts[NGX_HTTP_AGENT_FORM_ACCEPTS];
} ngx_http_agent_form_t;


/*
 * By ?format=, else by Accept.  NGX_OK: *other is 1 for that form, 0 for
 * JSON; NGX_DECLINED: ?format= names neither.
 */
ngx_int_t ngx_http_agent_form(ngx_http_request_t *r,
    const ngx_http_agent_form_t *form, ngx_uint_t *other);

/*
 * Sends 200 with a text of that form, which must live as long as the request:
 * the code to end the request with.
 */
ngx_int_t ngx_http_agent_form_send(ngx_http_request_t *r,
    const ngx_http_agent_form_t *form, ngx_str_t *text);


#endif /* _NGX_HTTP_AGENT_FORM_H_INCLUDED_ */
