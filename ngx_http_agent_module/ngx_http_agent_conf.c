
/*
 * Directives: the table, the setters, defaults and merging.  A setter judges
 * its own line only; what needs several blocks is in ngx_http_agent_check.c.
 * Nothing is connected to or started here.
 *
 * The order of the table is the order of the README's chapter "Directives";
 * t/docs.t holds the two together.
 */

#include "ngx_http_agent_conf.h"
#include "ngx_http_agent_web.h"


#define NGX_HTTP_AGENT_WAIT       2000
#define NGX_HTTP_AGENT_QUEUE      1024
#define NGX_HTTP_AGENT_LEASE      30000

#define NGX_HTTP_AGENT_DEPTH      100000
#define NGX_HTTP_AGENT_POLL       5000
#define NGX_HTTP_AGENT_PATIENCE   86400000


/* "name=value"; NULL when good, else what is wrong */

typedef struct {
    ngx_str_t                  name;
    char                    *(*set)(ngx_http_agent_main_conf_t *amcf,
                                    ngx_str_t *s);
} ngx_http_agent_conf_option_t;


static char *ngx_http_agent_conf_database(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_agent_conf_database_wait(
    ngx_http_agent_main_conf_t *amcf, ngx_str_t *s);
static char *ngx_http_agent_conf_database_queue(
    ngx_http_agent_main_conf_t *amcf, ngx_str_t *s);
static char *ngx_http_agent_conf_database_prepared(
    ngx_http_agent_main_conf_t *amcf, ngx_str_t *s);
static char *ngx_http_agent_conf_queue(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_agent_conf_queue_poll(ngx_http_agent_main_conf_t *amcf,
    ngx_str_t *s);
static char *ngx_http_agent_conf_queue_patience(
    ngx_http_agent_main_conf_t *amcf, ngx_str_t *s);
static char *ngx_http_agent_conf_artifacts(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


static ngx_http_agent_conf_option_t  ngx_http_agent_database_options[] = {
    { ngx_string("wait="), ngx_http_agent_conf_database_wait },
    { ngx_string("queue="), ngx_http_agent_conf_database_queue },
    { ngx_string("prepared="), ngx_http_agent_conf_database_prepared },
    { ngx_null_string, NULL }
};


static ngx_http_agent_conf_option_t  ngx_http_agent_queue_options[] = {
    { ngx_string("poll="), ngx_http_agent_conf_queue_poll },
    { ngx_string("patience="), ngx_http_agent_conf_queue_patience },
    { ngx_null_string, NULL }
};


static ngx_http_agent_range_t  ngx_http_agent_concurrency_range =
    { 1, 100000, "it must be a number from 1 to 100000" };

static ngx_http_agent_range_t  ngx_http_agent_depth_range =
    { 1, 10000000, "it must be a number from 1 to 10000000" };

static ngx_http_agent_range_t  ngx_http_agent_timeout_range =
    { 1, 86400000, "it must be a time from 1ms to 24h" };

static ngx_http_agent_range_t  ngx_http_agent_attempts_range =
    { 1, 100, "it must be a number from 1 to 100" };

static ngx_http_agent_range_t  ngx_http_agent_steps_range =
    { 1, 10000, "it must be a number from 1 to 10000" };

static ngx_http_agent_range_t  ngx_http_agent_runs_range =
    { 0, 100000, "it must be a number from 0 to 100000" };

static ngx_http_agent_range_t  ngx_http_agent_answer_range =
    { 1, 1024 * 1024 * 1024, "it must be a size from 1 to 1024m" };


ngx_command_t  ngx_http_agent_commands[] = {

    { ngx_string("agent_database"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_1MORE,
      ngx_http_agent_conf_database,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("agent_artifacts"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_agent_conf_artifacts,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("agent_run"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_http_agent_main_conf_t, run),
      NULL },

    { ngx_string("agent_concurrency"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_agent_conf_number,
      NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_http_agent_main_conf_t, core.concurrency),
      &ngx_http_agent_concurrency_range },

    { ngx_string("agent_queue"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_1MORE,
      ngx_http_agent_conf_queue,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      &ngx_http_agent_depth_range },

    { ngx_string("agent_auth_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_agent_conf_auth_zone,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("agent"),
      NGX_HTTP_SRV_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE1,
      ngx_http_agent_conf_agent,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("pass"),
      NGX_HTTP_AGENT_CONF|NGX_CONF_TAKE1,
      ngx_http_agent_conf_uri,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_agent_agent_t, pass),
      NULL },

    { ngx_string("dialect"),
      NGX_HTTP_AGENT_CONF|NGX_CONF_TAKE1,
      ngx_http_agent_conf_dialect,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_agent_agent_t, dialect),
      NULL },

    { ngx_string("model"),
      NGX_HTTP_AGENT_CONF|NGX_CONF_TAKE1,
      ngx_http_agent_conf_text,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_agent_agent_t, model),
      NULL },

    { ngx_string("description"),
      NGX_HTTP_AGENT_CONF|NGX_CONF_TAKE1,
      ngx_http_agent_conf_text,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_agent_agent_t, description),
      NULL },

    /* several strings, since nginx takes no single one over 4 KB */

    { ngx_string("instructions"),
      NGX_HTTP_AGENT_CONF|NGX_CONF_1MORE,
      ngx_http_agent_conf_text,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_agent_agent_t, instructions),
      NULL },

    { ngx_string("timeout"),
      NGX_HTTP_AGENT_CONF|NGX_CONF_TAKE1,
      ngx_http_agent_conf_time,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_agent_agent_t, timeout),
      &ngx_http_agent_timeout_range },

    { ngx_string("attempts"),
      NGX_HTTP_AGENT_CONF|NGX_CONF_TAKE1,
      ngx_http_agent_conf_number,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_agent_agent_t, attempts),
      &ngx_http_agent_attempts_range },

    { ngx_string("max_steps"),
      NGX_HTTP_AGENT_CONF|NGX_CONF_TAKE1,
      ngx_http_agent_conf_number,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_agent_agent_t, max_steps),
      &ngx_http_agent_steps_range },

    { ngx_string("concurrency"),
      NGX_HTTP_AGENT_CONF|NGX_CONF_TAKE1,
      ngx_http_agent_conf_number,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_agent_agent_t, concurrency),
      &ngx_http_agent_runs_range },

    { ngx_string("max_answer"),
      NGX_HTTP_AGENT_CONF|NGX_CONF_TAKE1,
      ngx_http_agent_conf_size,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_agent_agent_t, max_answer),
      &ngx_http_agent_answer_range },

    { ngx_string("run"),
      NGX_HTTP_AGENT_CONF|NGX_CONF_TAKE1,
      ngx_http_agent_conf_run,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_agent_agent_t, run),
      NULL },

    { ngx_string("price"),
      NGX_HTTP_AGENT_CONF|NGX_CONF_TAKE1,
      ngx_http_agent_conf_price,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_agent_agent_t, price),
      NULL },

    { ngx_string("trace"),
      NGX_HTTP_AGENT_CONF|NGX_CONF_TAKE1,
      ngx_http_agent_conf_trace,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_agent_agent_t, trace),
      NULL },

    { ngx_string("agent_pass"),
      NGX_HTTP_LOC_CONF|NGX_HTTP_LIF_CONF|NGX_HTTP_LMT_CONF|NGX_CONF_TAKE1,
      ngx_http_agent_conf_pass,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("agent_strict"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_agent_loc_conf_t, strict),
      NULL },

    { ngx_string("agent_tenant"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_agent_conf_tenant,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("agent_auth"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_agent_conf_auth,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("agent_status"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_agent_conf_status,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("agent_usage"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_agent_conf_usage,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


void *
ngx_http_agent_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_agent_conf_t  *acf;

    acf = ngx_pcalloc(cf->pool, sizeof(ngx_http_agent_conf_t));
    if (acf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&acf->main.agents, cf->pool, 4,
                       sizeof(ngx_agent_agent_t *))
        != NGX_OK)
    {
        return NULL;
    }

    if (ngx_array_init(&acf->places, cf->pool, 4,
                       sizeof(ngx_http_agent_place_t))
        != NGX_OK)
    {
        return NULL;
    }

    acf->main.store.wait = NGX_CONF_UNSET_MSEC;
    acf->main.store.queue = NGX_CONF_UNSET_UINT;
    acf->main.store.prepared = NGX_CONF_UNSET;
    acf->main.store.patience = NGX_CONF_UNSET_MSEC;

    acf->main.run = NGX_CONF_UNSET;
    acf->main.core.concurrency = NGX_CONF_UNSET_UINT;
    acf->main.core.queue = NGX_CONF_UNSET_UINT;
    acf->main.core.poll = NGX_CONF_UNSET_MSEC;

    return acf;
}


char *
ngx_http_agent_init_main_conf(ngx_conf_t *cf, void *conf)
{
    ngx_http_agent_main_conf_t *amcf = conf;

    ngx_conf_init_msec_value(amcf->store.wait, NGX_HTTP_AGENT_WAIT);
    ngx_conf_init_uint_value(amcf->store.queue, NGX_HTTP_AGENT_QUEUE);
    ngx_conf_init_value(amcf->store.prepared, 1);
    ngx_conf_init_msec_value(amcf->store.patience, NGX_HTTP_AGENT_PATIENCE);

    amcf->store.lease = NGX_HTTP_AGENT_LEASE;

    ngx_conf_init_value(amcf->run, 1);
    ngx_conf_init_uint_value(amcf->core.queue, NGX_HTTP_AGENT_DEPTH);
    ngx_conf_init_msec_value(amcf->core.poll, NGX_HTTP_AGENT_POLL);

    /* core.concurrency: when worker_connections is known for certain */

    return NGX_CONF_OK;
}


void *
ngx_http_agent_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_agent_loc_conf_t  *alcf;

    alcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_agent_loc_conf_t));
    if (alcf == NULL) {
        return NULL;
    }

    alcf->strict = NGX_CONF_UNSET;
    alcf->tenant = NGX_CONF_UNSET_PTR;

    return alcf;
}


char *
ngx_http_agent_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_agent_loc_conf_t *prev = parent;
    ngx_http_agent_loc_conf_t *conf = child;

    ngx_http_core_loc_conf_t  *clcf;

    ngx_conf_merge_value(conf->strict, prev->strict, 0);
    ngx_conf_merge_ptr_value(conf->tenant, prev->tenant, NULL);
    ngx_http_agent_conf_errors_merge(cf, prev, conf);

    /* a location is a route of its own; "if" and "limit_except" are not */

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->noname && conf->pass == NULL && clcf->handler == NULL) {
        conf->pass = prev->pass;

        if (clcf->lmt_excpt && conf->pass) {
            clcf->handler = ngx_http_agent_handler;
        }
    }

    return NGX_CONF_OK;
}


/* every refusal of a value reads the same */

char *
ngx_http_agent_conf_invalid(ngx_conf_t *cf, ngx_str_t *value,
    ngx_command_t *cmd, char *text)
{
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V\" in \"%V\" directive, %s",
                       value, &cmd->name, text);

    return NGX_CONF_ERROR;
}


static char *
ngx_http_agent_conf_database_wait(ngx_http_agent_main_conf_t *amcf,
    ngx_str_t *s)
{
    ngx_int_t  n;

    if (amcf->store.wait != NGX_CONF_UNSET_MSEC) {
        return "\"wait\" is set twice";
    }

    n = ngx_parse_time(s, 0);

    if (n == NGX_ERROR || n < 100 || n > 60000) {
        return "\"wait\" must be a time from 100ms to 60s";
    }

    amcf->store.wait = (ngx_msec_t) n;

    return NULL;
}


static char *
ngx_http_agent_conf_database_queue(ngx_http_agent_main_conf_t *amcf,
    ngx_str_t *s)
{
    ngx_int_t  n;

    if (amcf->store.queue != NGX_CONF_UNSET_UINT) {
        return "\"queue\" is set twice";
    }

    n = ngx_atoi(s->data, s->len);

    if (n == NGX_ERROR || n < 1 || n > 1000000) {
        return "\"queue\" must be a number from 1 to 1000000";
    }

    amcf->store.queue = (ngx_uint_t) n;

    return NULL;
}


static char *
ngx_http_agent_conf_database_prepared(ngx_http_agent_main_conf_t *amcf,
    ngx_str_t *s)
{
    if (amcf->store.prepared != NGX_CONF_UNSET) {
        return "\"prepared\" is set twice";
    }

    if (ngx_strcmp(s->data, "on") == 0) {
        amcf->store.prepared = 1;
        return NULL;
    }

    if (ngx_strcmp(s->data, "off") == 0) {
        amcf->store.prepared = 0;
        return NULL;
    }

    return "\"prepared\" must be \"on\" or \"off\"";
}


/*
 * Options behind a directive's first argument.  The value of one that is
 * unknown is not shown: it is likely to be the rest of a conninfo that was
 * not quoted, and that may be a password.
 */

static char *
ngx_http_agent_conf_option(ngx_http_agent_conf_option_t *option,
    ngx_http_agent_main_conf_t *amcf, ngx_str_t *value, char *unknown)
{
    ngx_str_t  s;

    for ( /* void */ ; option->name.len; option++) {

        if (value->len >= option->name.len
            && ngx_strncmp(value->data, option->name.data, option->name.len)
               == 0)
        {
            s.data = value->data + option->name.len;
            s.len = value->len - option->name.len;

            return option->set(amcf, &s);
        }
    }

    return unknown;
}


static char *
ngx_http_agent_conf_options(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_http_agent_conf_option_t *options, ngx_http_agent_main_conf_t *amcf,
    char *unknown)
{
    char        *text;
    ngx_str_t   *value;
    ngx_uint_t   i;

    value = cf->args->elts;

    for (i = 2; i < cf->args->nelts; i++) {

        text = ngx_http_agent_conf_option(options, amcf, &value[i], unknown);

        if (text) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter %ui in \"%V\" directive, "
                               "%s", i, &cmd->name, text);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_agent_conf_database(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_agent_main_conf_t *amcf = conf;

    char                    *text;
    ngx_str_t               *value;
    ngx_agent_store_conf_t  *store;

    store = &amcf->store;

    if (store->conninfo.data) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (value[1].len == 0) {
        return "has an empty conninfo";
    }

    store->conninfo = value[1];
    text = ngx_agent_store_check(cf->pool, store);

    if (text) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid conninfo in \"agent_database\" directive, "
                           "%s", text);
        return NGX_CONF_ERROR;
    }

    return ngx_http_agent_conf_options(cf, cmd,
                      ngx_http_agent_database_options, amcf,
                      "only \"wait=\", \"queue=\" and \"prepared=\" may "
                      "follow the conninfo, which must be quoted when it has "
                      "spaces");
}


static char *
ngx_http_agent_conf_queue_poll(ngx_http_agent_main_conf_t *amcf, ngx_str_t *s)
{
    ngx_int_t  n;

    if (amcf->core.poll != NGX_CONF_UNSET_MSEC) {
        return "\"poll\" is set twice";
    }

    n = ngx_parse_time(s, 0);

    if (n == NGX_ERROR || n < 100 || n > 60000) {
        return "\"poll\" must be a time from 100ms to 60s";
    }

    amcf->core.poll = (ngx_msec_t) n;

    return NULL;
}


static char *
ngx_http_agent_conf_queue_patience(ngx_http_agent_main_conf_t *amcf,
    ngx_str_t *s)
{
    ngx_int_t  n;

    if (amcf->store.patience != NGX_CONF_UNSET_MSEC) {
        return "\"patience\" is set twice";
    }

    n = ngx_parse_time(s, 0);

    if (n == NGX_ERROR || n < 1000 || n > 7 * 86400000) {
        return "\"patience\" must be a time from 1s to 7d";
    }

    amcf->store.patience = (ngx_msec_t) n;

    return NULL;
}


static char *
ngx_http_agent_conf_queue(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_agent_main_conf_t *amcf = conf;

    ngx_int_t                n;
    ngx_str_t               *value;
    ngx_http_agent_range_t  *range;

    if (amcf->core.queue != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;
    range = cmd->post;

    n = ngx_atoi(value[1].data, value[1].len);

    if (n == NGX_ERROR || n < range->min || n > range->max) {
        return ngx_http_agent_conf_invalid(cf, &value[1], cmd, range->text);
    }

    amcf->core.queue = (ngx_uint_t) n;

    return ngx_http_agent_conf_options(cf, cmd, ngx_http_agent_queue_options,
                      amcf, "only \"poll=\" and \"patience=\" may follow the "
                      "number");
}


/*
 * A path of nginx's own kind: the master makes the directory and gives it to
 * the workers' user, so that a reload is all it takes.
 */

static char *
ngx_http_agent_conf_artifacts(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_agent_main_conf_t *amcf = conf;

    ngx_str_t   *value;
    ngx_path_t  *path;

    if (amcf->artifacts) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (value[1].len == 0) {
        return "has an empty path";
    }

    if (ngx_strlchr(value[1].data, value[1].data + value[1].len, '$')) {
        return ngx_http_agent_conf_invalid(cf, &value[1], cmd,
                                           "variables are not allowed here");
    }

    path = ngx_pcalloc(cf->pool, sizeof(ngx_path_t));
    if (path == NULL) {
        return NGX_CONF_ERROR;
    }

    path->name = value[1];

    if (ngx_conf_full_name(cf->cycle, &path->name, 0) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    while (path->name.len && path->name.data[path->name.len - 1] == '/') {
        path->name.len--;
    }

    if (path->name.len == 0) {
        return ngx_http_agent_conf_invalid(cf, &value[1], cmd,
                                      "it must be a directory of its own");
    }

    path->name.data[path->name.len] = '\0';

    /* own data: nginx then refuses to share the directory with a cache */
    path->data = amcf;
    path->conf_file = cf->conf_file->file.name.data;
    path->line = cf->conf_file->line;

    if (ngx_add_path(cf, &path) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    amcf->artifacts = path;

    return NGX_CONF_OK;
}
