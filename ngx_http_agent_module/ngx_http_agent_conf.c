
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


typedef struct {
    ngx_str_t                  name;
    char                    *(*set)(ngx_agent_store_conf_t *store,
                                    ngx_str_t *s);
} ngx_http_agent_conf_option_t;


static char *ngx_http_agent_conf_database(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_agent_conf_database_wait(ngx_agent_store_conf_t *store,
    ngx_str_t *s);
static char *ngx_http_agent_conf_database_queue(ngx_agent_store_conf_t *store,
    ngx_str_t *s);
static char *ngx_http_agent_conf_database_prepared(
    ngx_agent_store_conf_t *store, ngx_str_t *s);
static char *ngx_http_agent_conf_artifacts(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_agent_conf_pass(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_agent_conf_remember(ngx_conf_t *cf,
    ngx_http_agent_loc_conf_t *alcf, ngx_http_core_loc_conf_t *clcf);


static ngx_http_agent_conf_option_t  ngx_http_agent_conf_options[] = {
    { ngx_string("wait="), ngx_http_agent_conf_database_wait },
    { ngx_string("queue="), ngx_http_agent_conf_database_queue },
    { ngx_string("prepared="), ngx_http_agent_conf_database_prepared },
    { ngx_null_string, NULL }
};


static ngx_http_agent_range_t  ngx_http_agent_timeout_range =
    { 1, 86400000, "it must be a time from 1ms to 24h" };

static ngx_http_agent_range_t  ngx_http_agent_attempts_range =
    { 1, 100, "it must be a number from 1 to 100" };

static ngx_http_agent_range_t  ngx_http_agent_steps_range =
    { 1, 10000, "it must be a number from 1 to 10000" };

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

    if (ngx_array_init(&acf->passes, cf->pool, 4,
                       sizeof(ngx_http_agent_pass_t))
        != NGX_OK)
    {
        return NULL;
    }

    acf->main.store.wait = NGX_CONF_UNSET_MSEC;
    acf->main.store.queue = NGX_CONF_UNSET_UINT;
    acf->main.store.prepared = NGX_CONF_UNSET;

    return acf;
}


char *
ngx_http_agent_init_main_conf(ngx_conf_t *cf, void *conf)
{
    ngx_http_agent_main_conf_t *amcf = conf;

    ngx_conf_init_msec_value(amcf->store.wait, NGX_HTTP_AGENT_WAIT);
    ngx_conf_init_uint_value(amcf->store.queue, NGX_HTTP_AGENT_QUEUE);
    ngx_conf_init_value(amcf->store.prepared, 1);

    amcf->store.lease = NGX_HTTP_AGENT_LEASE;

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

    return alcf;
}


char *
ngx_http_agent_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_agent_loc_conf_t *prev = parent;
    ngx_http_agent_loc_conf_t *conf = child;

    ngx_http_core_loc_conf_t  *clcf;

    ngx_conf_merge_value(conf->strict, prev->strict, 0);

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


/* options of agent_database: NULL when good, else what is wrong */

static char *
ngx_http_agent_conf_database_wait(ngx_agent_store_conf_t *store, ngx_str_t *s)
{
    ngx_int_t  n;

    if (store->wait != NGX_CONF_UNSET_MSEC) {
        return "\"wait\" is set twice";
    }

    n = ngx_parse_time(s, 0);

    if (n == NGX_ERROR || n < 100 || n > 60000) {
        return "\"wait\" must be a time from 100ms to 60s";
    }

    store->wait = (ngx_msec_t) n;

    return NULL;
}


static char *
ngx_http_agent_conf_database_queue(ngx_agent_store_conf_t *store,
    ngx_str_t *s)
{
    ngx_int_t  n;

    if (store->queue != NGX_CONF_UNSET_UINT) {
        return "\"queue\" is set twice";
    }

    n = ngx_atoi(s->data, s->len);

    if (n == NGX_ERROR || n < 1 || n > 1000000) {
        return "\"queue\" must be a number from 1 to 1000000";
    }

    store->queue = (ngx_uint_t) n;

    return NULL;
}


static char *
ngx_http_agent_conf_database_prepared(ngx_agent_store_conf_t *store,
    ngx_str_t *s)
{
    if (store->prepared != NGX_CONF_UNSET) {
        return "\"prepared\" is set twice";
    }

    if (ngx_strcmp(s->data, "on") == 0) {
        store->prepared = 1;
        return NULL;
    }

    if (ngx_strcmp(s->data, "off") == 0) {
        store->prepared = 0;
        return NULL;
    }

    return "\"prepared\" must be \"on\" or \"off\"";
}


static char *
ngx_http_agent_conf_database_option(ngx_agent_store_conf_t *store,
    ngx_str_t *value)
{
    ngx_str_t                       s;
    ngx_http_agent_conf_option_t   *option;

    for (option = ngx_http_agent_conf_options; option->name.len; option++) {

        if (value->len >= option->name.len
            && ngx_strncmp(value->data, option->name.data, option->name.len)
               == 0)
        {
            s.data = value->data + option->name.len;
            s.len = value->len - option->name.len;

            return option->set(store, &s);
        }
    }

    /*
     * The value is not shown: it is likely to be the rest of a conninfo that
     * was not quoted, and that may be a password.
     */

    return "only \"wait=\", \"queue=\" and \"prepared=\" may follow the "
           "conninfo, which must be quoted when it has spaces";
}


static char *
ngx_http_agent_conf_database(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_agent_main_conf_t *amcf = conf;

    char                    *text;
    ngx_str_t               *value;
    ngx_uint_t               i;
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

    for (i = 2; i < cf->args->nelts; i++) {

        text = ngx_http_agent_conf_database_option(store, &value[i]);

        if (text) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter %ui in \"agent_database\" "
                               "directive, %s", i, text);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
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


static char *
ngx_http_agent_conf_pass(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_agent_loc_conf_t *alcf = conf;

    ngx_str_t                         *value;
    ngx_http_core_loc_conf_t          *clcf;
    ngx_http_compile_complex_value_t   ccv;

    if (alcf->pass) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (value[1].len == 0) {
        return "has an empty agent name";
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler) {
        return "stands in a location that has another content handler";
    }

    alcf->pass = ngx_palloc(cf->pool, sizeof(ngx_http_complex_value_t));
    if (alcf->pass == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = &value[1];
    ccv.complex_value = alcf->pass;

    if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    clcf->handler = ngx_http_agent_handler;

    return ngx_http_agent_conf_remember(cf, alcf, clcf);
}


/* for ngx_http_agent_check(): the agent may be defined further down */

static char *
ngx_http_agent_conf_remember(ngx_conf_t *cf, ngx_http_agent_loc_conf_t *alcf,
    ngx_http_core_loc_conf_t *clcf)
{
    ngx_http_agent_conf_t  *acf;
    ngx_http_agent_pass_t  *pass;

    acf = ngx_http_conf_get_module_main_conf(cf, ngx_http_agent_module);

    pass = ngx_array_push(&acf->passes);
    if (pass == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_str_null(&pass->name);

    if (alcf->pass->lengths == NULL) {
        pass->name = alcf->pass->value;
    }

    pass->clcf = clcf;
    pass->conf_file = cf->conf_file->file.name.data;
    pass->conf_line = cf->conf_file->line;

    acf->main.used = 1;

    return NGX_CONF_OK;
}
