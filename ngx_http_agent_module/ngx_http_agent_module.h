
/*
 * What the HTTP rooms share: configuration structs and the one context a
 * request can have.  Types only.
 */

#ifndef _NGX_HTTP_AGENT_MODULE_H_INCLUDED_
#define _NGX_HTTP_AGENT_MODULE_H_INCLUDED_


#include <ngx_http.h>
#include "ngx_agent.h"
#include "ngx_agent_core.h"


typedef struct {
    ngx_agent_store_conf_t     store;
    ngx_agent_core_conf_t      core;         /* whole at worker start only */
    ngx_flag_t                 run;          /* agent_run */
    ngx_path_t                *artifacts;    /* NULL: not configured */
    ngx_array_t                agents;       /* of ngx_agent_agent_t * */
    void                      *thread_pool;  /* ngx_thread_pool_t *, or NULL */
    unsigned                   used:1;       /* agent_pass or agent_status
                                                stands, or agents are run */
    unsigned                   auth_zone:1;  /* agent_auth_zone is there */
} ngx_http_agent_main_conf_t;


typedef struct ngx_http_agent_loc_conf_s  ngx_http_agent_loc_conf_t;

struct ngx_http_agent_loc_conf_s {
    ngx_http_complex_value_t  *pass;         /* NULL: no agent_pass here */
    ngx_flag_t                 strict;       /* agent_strict */
    ngx_http_complex_value_t  *tenant;       /* agent_tenant; NULL: the key's */
    unsigned                   status:1;     /* agent_status stands here */
    unsigned                   auth:1;       /* agent_auth stands here */

    /* whose marks say what becomes of nginx's own errors: never NULL */
    ngx_http_agent_loc_conf_t *errors;
    unsigned                   json:1;       /* a location: all are JSON */
    unsigned                   serves:1;     /* a server: it has agent_pass */
    unsigned                   site:1;       /* a server: it has a "root" */
};


/*
 * The context of a request.  On a run's subrequest only "run" is set, and
 * the capture filter takes its answer.  On a client's request "run" is NULL
 * and web/ keeps here what the variables and the access log need.
 */

typedef struct {
    void                      *run;          /* ngx_http_agent_fake_t * */

    void                      *web;          /* web/'s own state */
    void                      *auth;         /* ngx_http_agent_auth_t *: what
                                                agent_auth has found; on a
                                                main request only */
    ngx_str_t                  agent;
    ngx_str_t                  tenant;       /* of a run */
    ngx_agent_id_t             task_id;
    ngx_agent_id_t             step_id;
    ngx_agent_status_e         status;
    ngx_uint_t                 attempt;
    uint64_t                   tokens_in;
    uint64_t                   tokens_out;
    unsigned                   has_task:1;
    unsigned                   has_step:1;
    unsigned                   has_status:1; /* status, attempt, tokens set */
    unsigned                   replied:1;    /* the answer is ours: the error
                                                filter leaves it alone */
} ngx_http_agent_ctx_t;


extern ngx_module_t  ngx_http_agent_module;


#endif /* _NGX_HTTP_AGENT_MODULE_H_INCLUDED_ */
