
/*
 * What is answered about a step.  Sends only; asks no store.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_agent_id.h"
#include "ngx_agent_stat.h"
#include "ngx_http_agent_reply.h"
#include "ngx_http_agent_steps.h"
#include "ngx_http_agent_view.h"


/* bytes of a step's error that a client is shown in the message */
#define NGX_HTTP_AGENT_REASON  512


static ngx_int_t ngx_http_agent_step_failed(ngx_http_agent_web_t *web,
    ngx_agent_step_t *step);
static size_t ngx_http_agent_step_clip(ngx_str_t *text, size_t max);
static ngx_int_t ngx_http_agent_step_error(ngx_http_agent_web_t *web,
    ngx_uint_t status, ngx_str_t *message);
static ngx_int_t ngx_http_agent_step_location(ngx_http_agent_web_t *web);


ngx_int_t
ngx_http_agent_step_reply(ngx_http_agent_web_t *web, ngx_uint_t status,
    ngx_agent_step_t *step)
{
    ngx_agent_json_t            j;
    ngx_http_agent_loc_conf_t  *alcf;

    ngx_http_agent_step_note(web, step);

    alcf = ngx_http_get_module_loc_conf(web->request, ngx_http_agent_module);

    ngx_agent_json_init(&j, web->request->pool,
                        ngx_http_agent_view_step_size(step));

    ngx_http_agent_view_step(&j, step, alcf->strict);

    return ngx_http_agent_reply_json(web->request, status, &j);
}


ngx_int_t
ngx_http_agent_step_end(ngx_http_agent_web_t *web, ngx_agent_step_t *step)
{
    static ngx_str_t  cancelled = ngx_string("the step was cancelled");

    switch (step->status) {

    case NGX_AGENT_STEP_FAILED:
        return ngx_http_agent_step_failed(web, step);

    case NGX_AGENT_STEP_CANCELLED:
        ngx_http_agent_step_note(web, step);

        return ngx_http_agent_step_error(web, NGX_HTTP_CONFLICT, &cancelled);

    default:
        return ngx_http_agent_step_reply(web, NGX_HTTP_OK, step);
    }
}


static ngx_int_t
ngx_http_agent_step_failed(ngx_http_agent_web_t *web, ngx_agent_step_t *step)
{
    u_char      buf[NGX_HTTP_AGENT_REASON + 64];
    ngx_str_t   message, reason;
    ngx_uint_t  status;

    ngx_http_agent_step_note(web, step);

    /* a row that someone else has written may have no code */
    status = (step->code >= NGX_HTTP_INTERNAL_SERVER_ERROR && step->code < 600)
                 ? step->code : NGX_HTTP_BAD_GATEWAY;

    reason = step->error;
    reason.len = ngx_http_agent_step_clip(&reason, NGX_HTTP_AGENT_REASON);

    message.data = buf;
    message.len = ngx_slprintf(buf, buf + sizeof(buf),
                               "the step failed%s%V; post a new one to try "
                               "again", reason.len ? ": " : "", &reason)
                  - buf;

    return ngx_http_agent_step_error(web, status, &message);
}


/* how much of UTF-8 text fits into max bytes with no character cut */

static size_t
ngx_http_agent_step_clip(ngx_str_t *text, size_t max)
{
    size_t  len;

    if (text->len <= max) {
        return text->len;
    }

    for (len = max; len && (text->data[len] & 0xc0) == 0x80; len--) {
        /* void */
    }

    return len;
}


/* An error that names the step: it is stored and can be looked at. */

static ngx_int_t
ngx_http_agent_step_error(ngx_http_agent_web_t *web, ngx_uint_t status,
    ngx_str_t *message)
{
    ngx_agent_json_t  j;

    ngx_agent_json_init(&j, web->request->pool, message->len + 192);

    ngx_agent_json_object(&j);
    ngx_agent_json_key(&j, "message");
    ngx_agent_json_string(&j, message);
    ngx_agent_json_key(&j, "task_id");
    ngx_agent_json_id(&j, &web->ctx->task_id);
    ngx_agent_json_key(&j, "step_id");
    ngx_agent_json_id(&j, &web->ctx->step_id);
    ngx_agent_json_object_end(&j);

    return ngx_http_agent_reply_json(web->request, status, &j);
}


ngx_int_t
ngx_http_agent_step_accepted(ngx_http_agent_web_t *web,
    ngx_agent_step_t *step, ngx_uint_t async)
{
    static ngx_str_t  applied = ngx_string("respond-async");
    static ngx_str_t  second = ngx_string("1");

    ngx_int_t            rc;
    ngx_http_request_t  *r;

    r = web->request;

    ngx_http_agent_step_note(web, step);

    if (ngx_http_agent_step_location(web) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (async) {
        rc = ngx_http_agent_reply_header(r, "Preference-Applied", &applied);

    } else {
        rc = ngx_http_agent_reply_header(r, "Retry-After", &second);
    }

    if (rc != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_agent_step_reply(web, NGX_HTTP_ACCEPTED, step);
}


/*
 * The path as the client wrote it, and the step's id: what a rewrite or a
 * proxy in front of us has made of it does not matter then.
 */

static ngx_int_t
ngx_http_agent_step_location(ngx_http_agent_web_t *web)
{
    u_char              *p;
    size_t               len;
    ngx_str_t            path, location;
    ngx_http_request_t  *r;

    r = web->request;

    path = r->main->unparsed_uri;

    /* "//name/..." would be another host's */

    while (path.len > 1 && path.data[0] == '/' && path.data[1] == '/') {
        path.data++;
        path.len--;
    }


    for (len = 0; len < path.len; len++) {
        if (path.data[len] == '?' || path.data[len] == '#') {
            break;
        }
    }

    location.len = len + 1 + NGX_AGENT_ID_LEN;
    location.data = ngx_pnalloc(r->pool, location.len);
    if (location.data == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(location.data, path.data, len);
    *p++ = '/';
    (void) ngx_agent_id_print(p, &web->ctx->step_id);

    return ngx_http_agent_reply_header(r, "Location", &location);
}


ngx_int_t
ngx_http_agent_step_unknown(ngx_http_agent_web_t *web)
{
    u_char     buf[NGX_AGENT_ID_LEN];
    ngx_str_t  id;

    id.data = buf;
    id.len = ngx_agent_id_print(buf, &web->ctx->step_id) - buf;

    return ngx_http_agent_reply_unknown(web->request, "step", &id);
}


ngx_int_t
ngx_http_agent_step_missed(ngx_http_agent_web_t *web, ngx_int_t rc)
{
    return rc == NGX_DECLINED ? ngx_http_agent_step_unknown(web)
                              : ngx_http_agent_reply_store(web->request, rc);
}


ngx_int_t
ngx_http_agent_step_unread(ngx_http_agent_web_t *web)
{
    static ngx_str_t  second = ngx_string("1");
    static ngx_str_t  message = ngx_string("the step is stored and goes on, "
                          "but the database is not reachable now; get the "
                          "step later");

    ngx_agent_stat_add(REFUSED, 1);

    if (ngx_http_agent_step_location(web) != NGX_OK
        || ngx_http_agent_reply_header(web->request, "Retry-After", &second)
           != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_agent_step_error(web, NGX_HTTP_SERVICE_UNAVAILABLE,
                                     &message);
}


void
ngx_http_agent_step_note(ngx_http_agent_web_t *web, ngx_agent_step_t *step)
{
    ngx_http_agent_ctx_t  *ctx;

    ctx = web->ctx;

    ctx->step_id = step->id;
    ctx->status = step->status;
    ctx->attempt = step->attempt;
    ctx->tokens_in = step->tokens_in;
    ctx->tokens_out = step->tokens_out;

    ctx->has_step = 1;
    ctx->has_status = 1;
}
