
/*
 * agent_status: the counters of base/ngx_agent_stat.h as texts.
 */

#ifndef _NGX_HTTP_AGENT_STATUS_H_INCLUDED_
#define _NGX_HTTP_AGENT_STATUS_H_INCLUDED_


#include "ngx_http_agent_module.h"
#include "ngx_agent_stat.h"


/*
 * One number.  Those of one "group" and those of one "family" stand side by
 * side.  JSON: {"group": {"key": n}}, or {"key": n} when group is NULL.
 * Prometheus: family{label} n, where "label" may be NULL.
 */

typedef struct {
    ngx_agent_stat_e           stat;
    const char                *group;
    const char                *key;
    const char                *family;
    const char                *label;
    const char                *help;         /* of the family's first one */
    ngx_uint_t                 ms;           /* to be shown as seconds there */
} ngx_http_agent_metric_t;


extern const ngx_http_agent_metric_t  ngx_http_agent_metrics[];
extern const ngx_uint_t               ngx_http_agent_nmetrics;


/* The text, in the request's pool.  NGX_OK, or NGX_ERROR: no memory. */
ngx_int_t ngx_http_agent_status_json(ngx_http_request_t *r,
    ngx_http_agent_main_conf_t *amcf, ngx_str_t *text);
ngx_int_t ngx_http_agent_status_prometheus(ngx_http_request_t *r,
    ngx_http_agent_main_conf_t *amcf, ngx_str_t *text);

/* Seconds since the depth of the queue was looked at; 0: it never was. */
uint64_t ngx_http_agent_status_age(void);


#endif /* _NGX_HTTP_AGENT_STATUS_H_INCLUDED_ */
