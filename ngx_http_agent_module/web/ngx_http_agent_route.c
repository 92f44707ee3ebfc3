
/*
 * Routes and queries.  Reads the request and its location only: sends
 * nothing, asks no store.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_agent_route.h"


/* what the spec's int32 can hold; more is an overflow for its clients */
#define NGX_HTTP_AGENT_PAGE_MAX  2147483647


static void ngx_http_agent_route_rest(ngx_http_request_t *r, ngx_str_t *rest);
static ngx_int_t ngx_http_agent_route_prefix(ngx_http_request_t *r,
    ngx_str_t *rest);
static void ngx_http_agent_route_search(ngx_http_request_t *r,
    ngx_str_t *rest);
static void ngx_http_agent_route_item(ngx_http_agent_route_t *route,
    ngx_str_t *rest, ngx_http_agent_place_e list, ngx_http_agent_place_e item,
    ngx_http_agent_place_e cancel, ngx_http_agent_place_e trace);
static ngx_uint_t ngx_http_agent_route_segment(ngx_str_t *rest,
    ngx_str_t *segment);
static ngx_int_t ngx_http_agent_route_number(ngx_http_request_t *r,
    const char *name, ngx_uint_t max, ngx_uint_t *number, const char **why);


#define ngx_http_agent_route_is(s, text)                                      \
    ((s)->len == sizeof(text) - 1                                             \
     && ngx_strncmp((s)->data, text, sizeof(text) - 1) == 0)


void
ngx_http_agent_route(ngx_http_request_t *r, ngx_http_agent_route_t *route)
{
    ngx_str_t  rest, segment;

    ngx_memzero(route, sizeof(ngx_http_agent_route_t));

    ngx_http_agent_route_rest(r, &rest);

    if (!ngx_http_agent_route_segment(&rest, &segment)) {
        return;
    }

    if (ngx_http_agent_route_is(&segment, "agents") && rest.data == NULL) {
        route->place = NGX_HTTP_AGENT_AGENTS;
        return;
    }

    if (ngx_http_agent_route_is(&segment, "usage") && rest.data == NULL) {
        route->place = NGX_HTTP_AGENT_USAGE;
        return;
    }

    if (!ngx_http_agent_route_is(&segment, "tasks")) {
        return;
    }

    if (!ngx_http_agent_route_segment(&rest, &route->task)) {
        route->place = NGX_HTTP_AGENT_TASKS;
        return;
    }

    if (!ngx_http_agent_route_segment(&rest, &segment)) {
        route->place = NGX_HTTP_AGENT_TASK;
        return;
    }

    if (ngx_http_agent_route_is(&segment, "steps")) {
        ngx_http_agent_route_item(route, &rest, NGX_HTTP_AGENT_STEPS,
                                  NGX_HTTP_AGENT_STEP,
                                  NGX_HTTP_AGENT_STEP_CANCEL,
                                  NGX_HTTP_AGENT_STEP_TRACE);

    } else if (ngx_http_agent_route_is(&segment, "artifacts")) {
        ngx_http_agent_route_item(route, &rest, NGX_HTTP_AGENT_ARTIFACTS,
                                  NGX_HTTP_AGENT_ARTIFACT,
                                  NGX_HTTP_AGENT_NOWHERE,
                                  NGX_HTTP_AGENT_NOWHERE);

    } else if (ngx_http_agent_route_is(&segment, "cancel")
               && rest.data == NULL)
    {
        route->place = NGX_HTTP_AGENT_TASK_CANCEL;
    }
}


/*
 * What follows "steps" or "artifacts": nothing, an id, or an id and what is
 * asked of it.
 */

static void
ngx_http_agent_route_item(ngx_http_agent_route_t *route, ngx_str_t *rest,
    ngx_http_agent_place_e list, ngx_http_agent_place_e item,
    ngx_http_agent_place_e cancel, ngx_http_agent_place_e trace)
{
    ngx_str_t  segment;

    if (!ngx_http_agent_route_segment(rest, &route->item)) {
        route->place = list;
        return;
    }

    if (!ngx_http_agent_route_segment(rest, &segment)) {
        route->place = item;
        return;
    }

    if (rest->data) {
        return;
    }

    if (ngx_http_agent_route_is(&segment, "cancel")) {
        route->place = cancel;

    } else if (ngx_http_agent_route_is(&segment, "trace")) {
        route->place = trace;
    }
}


/*
 * Takes the next segment off, "a" of "a/b"; 0 when there is none.  What is
 * behind a last slash is a segment too, and an empty one: "tasks/" asks for
 * the task with an empty id, which nobody has.
 */

static ngx_uint_t
ngx_http_agent_route_segment(ngx_str_t *rest, ngx_str_t *segment)
{
    u_char  *p, *last;

    if (rest->data == NULL) {
        return 0;
    }

    last = rest->data + rest->len;

    for (p = rest->data; p < last && *p != '/'; p++) { /* void */ }

    segment->data = rest->data;
    segment->len = p - rest->data;

    if (p == last) {
        rest->data = NULL;
        rest->len = 0;

    } else {
        rest->data = p + 1;
        rest->len = last - rest->data;
    }

    return 1;
}


/*
 * The part of the path that starts at "tasks".  Behind a prefix location it
 * is what follows the prefix; a regex or an exact location, or one that a
 * rewrite led to, has none, and there the last "tasks" counts: an id is never
 * called so.  Without one it is the last segment.
 */

static void
ngx_http_agent_route_rest(ngx_http_request_t *r, ngx_str_t *rest)
{
    if (ngx_http_agent_route_prefix(r, rest) != NGX_OK) {
        ngx_http_agent_route_search(r, rest);
    }
}


static ngx_int_t
ngx_http_agent_route_prefix(ngx_http_request_t *r, ngx_str_t *rest)
{
    size_t                     len;
    ngx_str_t                  name;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (clcf->exact_match || clcf->named) {
        return NGX_DECLINED;
    }

#if (NGX_PCRE)
    if (clcf->regex) {
        return NGX_DECLINED;
    }
#endif

    name = clcf->name;

    if (r->uri.len < name.len
        || ngx_strncmp(r->uri.data, name.data, name.len) != 0)
    {
        return NGX_DECLINED;
    }

    if (name.len && name.data[name.len - 1] == '/') {
        name.len--;
    }

    len = sizeof("/tasks") - 1;

    if (name.len >= len
        && ngx_strncmp(name.data + name.len - len, "/tasks", len) == 0)
    {
        /* "location /v1/tasks": the prefix is a part of the route */
        name.len -= len;
    }

    /* "location /v1" takes "/v1x" too; that is not a path of ours */

    if (r->uri.len == name.len || r->uri.data[name.len] != '/') {
        rest->data = NULL;
        rest->len = 0;
        return NGX_OK;
    }

    rest->data = r->uri.data + name.len + 1;
    rest->len = r->uri.len - name.len - 1;

    return NGX_OK;
}


static void
ngx_http_agent_route_search(ngx_http_request_t *r, ngx_str_t *rest)
{
    size_t   len;
    u_char  *p, *last;

    len = sizeof("/tasks") - 1;
    last = r->uri.data + r->uri.len;

    for (p = last - ngx_min(len, r->uri.len); p >= r->uri.data; p--) {

        if (p + len > last || ngx_strncmp(p, "/tasks", len) != 0) {
            continue;
        }

        if (p + len == last || p[len] == '/') {
            rest->data = p + 1;
            rest->len = last - rest->data;
            return;
        }
    }

    for (p = last; p > r->uri.data && p[-1] != '/'; p--) { /* void */ }

    rest->data = p;
    rest->len = last - p;
}


ngx_int_t
ngx_http_agent_route_arg(ngx_http_request_t *r, const char *name,
    ngx_str_t *value)
{
    u_char     *dst, *src;
    ngx_str_t   raw;

    if (r->args.len == 0
        || ngx_http_arg(r, (u_char *) name, ngx_strlen(name), &raw) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    dst = ngx_pnalloc(r->pool, raw.len + 1);
    if (dst == NULL) {
        return NGX_ERROR;
    }

    value->data = dst;
    src = raw.data;

    ngx_unescape_uri(&dst, &src, raw.len, 0);

    value->len = dst - value->data;

    return NGX_OK;
}


ngx_int_t
ngx_http_agent_route_page(ngx_http_request_t *r, ngx_agent_page_t *page,
    const char **arg, const char **why)
{
    ngx_int_t  rc;
    ngx_str_t  order;

    page->number = 1;
    page->size = NGX_AGENT_PAGE_SIZE;
    page->desc = 0;

    *arg = "current_page";

    rc = ngx_http_agent_route_number(r, *arg, NGX_HTTP_AGENT_PAGE_MAX,
                                     &page->number, why);
    if (rc != NGX_OK) {
        return rc;
    }

    *arg = "page_size";

    rc = ngx_http_agent_route_number(r, *arg, NGX_AGENT_PAGE_SIZE_MAX,
                                     &page->size, why);
    if (rc != NGX_OK) {
        return rc;
    }

    *arg = "order";

    rc = ngx_http_agent_route_arg(r, *arg, &order);
    if (rc != NGX_OK) {
        return (rc == NGX_DECLINED) ? NGX_OK : rc;
    }

    if (ngx_http_agent_route_is(&order, "desc")) {
        page->desc = 1;

    } else if (!ngx_http_agent_route_is(&order, "asc")) {
        *why = "must be \"asc\" or \"desc\"";
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_agent_route_number(ngx_http_request_t *r, const char *name,
    ngx_uint_t max, ngx_uint_t *number, const char **why)
{
    size_t      i;
    ngx_int_t   rc;
    ngx_str_t   value;
    ngx_uint_t  n;

    rc = ngx_http_agent_route_arg(r, name, &value);
    if (rc != NGX_OK) {
        return (rc == NGX_DECLINED) ? NGX_OK : rc;
    }

    *why = (max == NGX_AGENT_PAGE_SIZE_MAX)
               ? "must be a whole number from 1 to 1000"
               : "must be a whole number from 1 to 2147483647";

    if (value.len == 0) {
        return NGX_DECLINED;
    }

    n = 0;

    for (i = 0; i < value.len; i++) {

        if (value.data[i] < '0' || value.data[i] > '9') {
            return NGX_DECLINED;
        }

        n = n * 10 + (value.data[i] - '0');

        if (n > max) {
            return NGX_DECLINED;
        }
    }

    if (n == 0) {
        return NGX_DECLINED;
    }

    *number = n;

    return NGX_OK;
}
