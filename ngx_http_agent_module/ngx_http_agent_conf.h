
/*
 * The configuration: what ngx_http_agent_module.c needs of it.  The structs
 * that the rooms read are in ngx_http_agent_module.h; only what is needed
 * while nginx reads its configuration is added here.
 */

#ifndef _NGX_HTTP_AGENT_CONF_H_INCLUDED_
#define _NGX_HTTP_AGENT_CONF_H_INCLUDED_


#include "ngx_http_agent_module.h"


/* the context inside of "agent name { }"; no bit that nginx itself uses */
#define NGX_HTTP_AGENT_CONF       0x00200000


/* what a number may be, and how to say so */

typedef struct {
    ngx_int_t                    min;
    ngx_int_t                    max;
    char                        *text;
} ngx_http_agent_range_t;


/* one agent_pass, agent_status or their like, for checks across blocks */

typedef struct {
    ngx_str_t                   *directive;
    ngx_str_t                    name;      /* empty: it has variables */
    ngx_http_handler_pt          handler;
    ngx_http_core_loc_conf_t    *clcf;
    u_char                      *conf_file;
    ngx_uint_t                   conf_line;
} ngx_http_agent_place_t;


/* "main" comes first: to the rooms the main conf is just that */

typedef struct {
    ngx_http_agent_main_conf_t   main;
    ngx_array_t                  places;    /* of ngx_http_agent_place_t */
} ngx_http_agent_conf_t;


extern ngx_command_t  ngx_http_agent_commands[];


void *ngx_http_agent_create_main_conf(ngx_conf_t *cf);
char *ngx_http_agent_init_main_conf(ngx_conf_t *cf, void *conf);
void *ngx_http_agent_create_loc_conf(ngx_conf_t *cf);
char *ngx_http_agent_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);

/*
 * Where nginx's own errors become JSON: at a directive with this content
 * handler, in merging, and when all servers are known.
 */
void ngx_http_agent_conf_errors(ngx_conf_t *cf, ngx_http_handler_pt handler);
void ngx_http_agent_conf_errors_merge(ngx_conf_t *cf,
    ngx_http_agent_loc_conf_t *prev, ngx_http_agent_loc_conf_t *conf);
ngx_int_t ngx_http_agent_conf_errors_sites(ngx_conf_t *cf);

/*
 * The one form of a refused value: logs it as [emerg] with "text" behind it,
 * returns NGX_CONF_ERROR.
 */
char *ngx_http_agent_conf_invalid(ngx_conf_t *cf, ngx_str_t *value,
    ngx_command_t *cmd, char *text);

/*
 * The agent block, and the setters of what may stand in it: "conf" is the
 * ngx_agent_agent_t, cmd->offset the field, cmd->post a number's range.  A
 * number may as well be a field of the main conf.
 */
char *ngx_http_agent_conf_agent(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_agent_conf_uri(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_agent_conf_dialect(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_agent_conf_text(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_agent_conf_time(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_agent_conf_number(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_agent_conf_size(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_agent_conf_run(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_agent_conf_price(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_agent_conf_trace(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* directives that make a location one of ours */
char *ngx_http_agent_conf_pass(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_agent_conf_status(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_agent_conf_usage(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_agent_conf_auth(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* who comes in, and whose data it is */
char *ngx_http_agent_conf_auth_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_agent_conf_tenant(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/*
 * For their setters: makes the handler the location's, and keeps the place
 * for ngx_http_agent_check(): the agent may be defined further down.  name:
 * of the agent, or NULL.  Returns what a setter returns.
 */
char *ngx_http_agent_conf_remember(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_str_t *name, ngx_http_handler_pt handler);

/*
 * In postconfiguration, when all blocks are known: what one directive alone
 * cannot tell.  NGX_OK, or NGX_ERROR after one [emerg] line.
 */
ngx_int_t ngx_http_agent_check(ngx_conf_t *cf);


#endif /* _NGX_HTTP_AGENT_CONF_H_INCLUDED_ */
