
/*
 * The "agent name { }" block: how it is read, and the setters of what stands
 * in it.  The directives themselves are in the table of ngx_http_agent_conf.c.
 */

#include "ngx_http_agent_conf.h"
#include "ngx_agent_json.h"
#include "ngx_agent_stat.h"


#define NGX_HTTP_AGENT_NAME_MAX   64

#define NGX_HTTP_AGENT_TIMEOUT    60000
#define NGX_HTTP_AGENT_ATTEMPTS   3
#define NGX_HTTP_AGENT_STEPS      25
#define NGX_HTTP_AGENT_ANSWER     (1024 * 1024)
#define NGX_HTTP_AGENT_TRACE      (16 * 1024)

#define NGX_HTTP_AGENT_TRACE_MAX  (1024 * 1024)


/* NULL when it is a good name and nobody has it yet; else logged */

static char *
ngx_http_agent_conf_name(ngx_conf_t *cf, ngx_http_agent_main_conf_t *amcf,
    ngx_str_t *name)
{
    u_char               ch;
    ngx_uint_t           i;
    ngx_agent_agent_t  **agents;

    for (i = 0; i < name->len; i++) {
        ch = name->data[i];

        if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z')
              || (ch >= '0' && ch <= '9')
              || ch == '.' || ch == '_' || ch == '-'))
        {
            break;
        }
    }

    if (name->len == 0 || name->len > NGX_HTTP_AGENT_NAME_MAX
        || i != name->len)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid agent name \"%V\", it must be 1 to %d "
                           "letters, digits, \".\", \"_\" or \"-\"",
                           name, NGX_HTTP_AGENT_NAME_MAX);
        return NGX_CONF_ERROR;
    }

    /* their runs are counted in memory that all workers share */

    if (amcf->agents.nelts == NGX_AGENT_STAT_AGENTS) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "agent \"%V\" is one too many, there may be %d",
                           name, NGX_AGENT_STAT_AGENTS);
        return NGX_CONF_ERROR;
    }

    agents = amcf->agents.elts;

    for (i = 0; i < amcf->agents.nelts; i++) {

        if (agents[i]->name.len == name->len
            && ngx_strncmp(agents[i]->name.data, name->data, name->len) == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate agent \"%V\", the first one is in "
                               "%s:%ui, this one",
                               name, agents[i]->conf_file,
                               agents[i]->conf_line);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


static ngx_agent_agent_t *
ngx_http_agent_conf_create(ngx_conf_t *cf, ngx_http_agent_main_conf_t *amcf)
{
    ngx_str_t           *value;
    ngx_agent_agent_t   *agent, **slot;

    agent = ngx_pcalloc(cf->pool, sizeof(ngx_agent_agent_t));
    if (agent == NULL) {
        return NULL;
    }

    slot = ngx_array_push(&amcf->agents);
    if (slot == NULL) {
        return NULL;
    }

    *slot = agent;
    agent->number = amcf->agents.nelts - 1;
    value = cf->args->elts;

    agent->name = value[1];
    agent->server_ctx = cf->ctx;
    agent->conf_file = cf->conf_file->file.name.data;
    agent->conf_line = cf->conf_file->line;

    agent->dialect = NGX_CONF_UNSET_UINT;
    agent->run = NGX_CONF_UNSET_UINT;
    agent->timeout = NGX_CONF_UNSET_MSEC;
    agent->attempts = NGX_CONF_UNSET_UINT;
    agent->max_steps = NGX_CONF_UNSET_UINT;
    agent->concurrency = NGX_CONF_UNSET_UINT;
    agent->max_answer = NGX_CONF_UNSET_SIZE;
    agent->trace = NGX_CONF_UNSET_SIZE;

    return agent;
}


static void
ngx_http_agent_conf_defaults(ngx_agent_agent_t *agent)
{
    ngx_conf_init_uint_value(agent->dialect, NGX_AGENT_DIALECT_OPENAI);
    ngx_conf_init_uint_value(agent->run, NGX_AGENT_RUN_STEP);
    ngx_conf_init_msec_value(agent->timeout, NGX_HTTP_AGENT_TIMEOUT);
    ngx_conf_init_uint_value(agent->attempts, NGX_HTTP_AGENT_ATTEMPTS);
    ngx_conf_init_uint_value(agent->max_steps, NGX_HTTP_AGENT_STEPS);
    ngx_conf_init_uint_value(agent->concurrency, 0);
    ngx_conf_init_size_value(agent->max_answer, NGX_HTTP_AGENT_ANSWER);
    ngx_conf_init_size_value(agent->trace, NGX_HTTP_AGENT_TRACE);

    if (agent->price.data == NULL) {
        ngx_str_set(&agent->price, "0");
    }
}


/*
 * A context of the block's own: the sub-directives find the agent where a
 * location's directives find their location.
 */

static ngx_http_conf_ctx_t *
ngx_http_agent_conf_ctx(ngx_conf_t *cf, ngx_agent_agent_t *agent)
{
    ngx_http_conf_ctx_t  *ctx, *server_ctx;

    ctx = ngx_pcalloc(cf->pool, sizeof(ngx_http_conf_ctx_t));
    if (ctx == NULL) {
        return NULL;
    }

    server_ctx = cf->ctx;

    ctx->main_conf = server_ctx->main_conf;
    ctx->srv_conf = server_ctx->srv_conf;

    ctx->loc_conf = ngx_pcalloc(cf->pool,
                                sizeof(void *) * ngx_http_max_module);
    if (ctx->loc_conf == NULL) {
        return NULL;
    }

    ctx->loc_conf[ngx_http_agent_module.ctx_index] = agent;

    return ctx;
}


char *
ngx_http_agent_conf_agent(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_agent_main_conf_t *amcf = conf;

    char                 *rv;
    ngx_str_t            *value;
    ngx_conf_t            save;
    ngx_agent_agent_t    *agent;
    ngx_http_conf_ctx_t  *ctx;

    value = cf->args->elts;

    rv = ngx_http_agent_conf_name(cf, amcf, &value[1]);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    agent = ngx_http_agent_conf_create(cf, amcf);
    if (agent == NULL) {
        return NGX_CONF_ERROR;
    }

    ctx = ngx_http_agent_conf_ctx(cf, agent);
    if (ctx == NULL) {
        return NGX_CONF_ERROR;
    }

    save = *cf;
    cf->ctx = ctx;

    /* NGX_MAIN_CONF lets "include" in; no other http directive has it */
    cf->cmd_type = NGX_HTTP_AGENT_CONF|NGX_MAIN_CONF;

    rv = ngx_conf_parse(cf, NULL);

    *cf = save;

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (agent->pass.data == NULL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "no \"pass\" in agent \"%V\" in %s:%ui",
                      &agent->name, agent->conf_file, agent->conf_line);
        return NGX_CONF_ERROR;
    }

    ngx_http_agent_conf_defaults(agent);

    return NGX_CONF_OK;
}


char *
ngx_http_agent_conf_uri(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char  *p = conf;

    ngx_str_t   *field, *value;
    ngx_uint_t   i;

    field = (ngx_str_t *) (p + cmd->offset);

    if (field->data) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (value[1].len == 0 || value[1].data[0] != '/') {
        return ngx_http_agent_conf_invalid(cf, &value[1], cmd,
                            "it must be the uri of a location and begin "
                            "with \"/\"");
    }

    for (i = 0; i < value[1].len; i++) {

        if (value[1].data[i] == '$') {
            return ngx_http_agent_conf_invalid(cf, &value[1], cmd,
                                "variables are not allowed here, they are "
                                "in the location's \"proxy_pass\"");
        }

        if (value[1].data[i] <= 0x20 || value[1].data[i] == 0x7f) {
            return ngx_http_agent_conf_invalid(cf, &value[1], cmd,
                                "a uri has no spaces or control characters");
        }
    }

    *field = value[1];

    return NGX_CONF_OK;
}


char *
ngx_http_agent_conf_dialect(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_agent_agent_t *agent = conf;

    ngx_str_t  *value;

    if (agent->dialect != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "openai") == 0) {
        agent->dialect = NGX_AGENT_DIALECT_OPENAI;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "agent_protocol") == 0) {
        agent->dialect = NGX_AGENT_DIALECT_AGENT_PROTOCOL;
        return NGX_CONF_OK;
    }

    return ngx_http_agent_conf_invalid(cf, &value[1], cmd,
                            "it must be \"openai\" or \"agent_protocol\"");
}


/*
 * Text that goes to an LLM, or to clients, as JSON: so it must be UTF-8.
 * Several strings become lines.
 */

char *
ngx_http_agent_conf_text(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char  *p = conf;

    size_t       len;
    u_char      *last;
    ngx_str_t   *field, *value;
    ngx_uint_t   i;

    field = (ngx_str_t *) (p + cmd->offset);

    if (field->data) {
        return "is duplicate";
    }

    value = cf->args->elts;
    len = 0;

    for (i = 1; i < cf->args->nelts; i++) {

        if (!ngx_agent_utf8_valid(value[i].data, value[i].len)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "the text in \"%V\" directive is not UTF-8",
                               &cmd->name);
            return NGX_CONF_ERROR;
        }

        len += value[i].len + 1;
    }

    field->data = ngx_pnalloc(cf->pool, len);
    if (field->data == NULL) {
        return NGX_CONF_ERROR;
    }

    last = field->data;

    for (i = 1; i < cf->args->nelts; i++) {
        last = ngx_cpymem(last, value[i].data, value[i].len);
        *last++ = '\n';
    }

    field->len = len - 1;

    return NGX_CONF_OK;
}


char *
ngx_http_agent_conf_time(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char  *p = conf;

    ngx_int_t                n;
    ngx_str_t               *value;
    ngx_msec_t              *field;
    ngx_http_agent_range_t  *range;

    field = (ngx_msec_t *) (p + cmd->offset);

    if (*field != NGX_CONF_UNSET_MSEC) {
        return "is duplicate";
    }

    value = cf->args->elts;
    range = cmd->post;

    n = ngx_parse_time(&value[1], 0);

    if (n == NGX_ERROR || n < range->min || n > range->max) {
        return ngx_http_agent_conf_invalid(cf, &value[1], cmd, range->text);
    }

    *field = (ngx_msec_t) n;

    return NGX_CONF_OK;
}


char *
ngx_http_agent_conf_number(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char  *p = conf;

    ngx_int_t                n;
    ngx_str_t               *value;
    ngx_uint_t              *field;
    ngx_http_agent_range_t  *range;

    field = (ngx_uint_t *) (p + cmd->offset);

    if (*field != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;
    range = cmd->post;

    n = ngx_atoi(value[1].data, value[1].len);

    if (n == NGX_ERROR || n < range->min || n > range->max) {
        return ngx_http_agent_conf_invalid(cf, &value[1], cmd, range->text);
    }

    *field = (ngx_uint_t) n;

    return NGX_CONF_OK;
}


char *
ngx_http_agent_conf_size(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char  *p = conf;

    size_t                  *field;
    ssize_t                  n;
    ngx_str_t               *value;
    ngx_http_agent_range_t  *range;

    field = (size_t *) (p + cmd->offset);

    if (*field != NGX_CONF_UNSET_SIZE) {
        return "is duplicate";
    }

    value = cf->args->elts;
    range = cmd->post;

    n = ngx_parse_size(&value[1]);

    if (n == NGX_ERROR || n < range->min || n > range->max) {
        return ngx_http_agent_conf_invalid(cf, &value[1], cmd, range->text);
    }

    *field = (size_t) n;

    return NGX_CONF_OK;
}


char *
ngx_http_agent_conf_run(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_agent_agent_t *agent = conf;

    ngx_str_t  *value;

    if (agent->run != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "step") == 0) {
        agent->run = NGX_AGENT_RUN_STEP;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "auto") == 0) {
        agent->run = NGX_AGENT_RUN_AUTO;
        return NGX_CONF_OK;
    }

    return ngx_http_agent_conf_invalid(cf, &value[1], cmd,
                                       "it must be \"step\" or \"auto\"");
}


/* digits of a decimal up to a dot or the end; 0 when there are too many */

static size_t
ngx_http_agent_conf_digits(u_char *p, u_char *last, size_t max)
{
    size_t  n;

    for (n = 0; p + n < last && p[n] >= '0' && p[n] <= '9'; n++) { /* void */ }

    return (n > max) ? 0 : n;
}


/* money: kept as the text it is, a float would change it */

char *
ngx_http_agent_conf_price(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_agent_agent_t *agent = conf;

    size_t      n;
    u_char     *p, *last;
    ngx_str_t  *value;

    if (agent->price.data) {
        return "is duplicate";
    }

    value = cf->args->elts;

    p = value[1].data;
    last = p + value[1].len;

    n = ngx_http_agent_conf_digits(p, last, 12);
    p += n;

    if (n && p < last && *p == '.') {
        p++;
        n = ngx_http_agent_conf_digits(p, last, 6);
        p += n;
    }

    if (n == 0 || p != last) {
        return ngx_http_agent_conf_invalid(cf, &value[1], cmd,
                            "it must be a decimal such as \"0.002\", with up "
                            "to 12 digits before and 6 after the point");
    }

    agent->price = value[1];

    return NGX_CONF_OK;
}


char *
ngx_http_agent_conf_trace(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_agent_agent_t *agent = conf;

    ssize_t     n;
    ngx_str_t  *value;

    if (agent->trace != NGX_CONF_UNSET_SIZE) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        agent->trace = 0;
        return NGX_CONF_OK;
    }

    n = ngx_parse_size(&value[1]);

    if (n == NGX_ERROR || n > NGX_HTTP_AGENT_TRACE_MAX) {
        return ngx_http_agent_conf_invalid(cf, &value[1], cmd,
                            "it must be \"off\" or a size from 0 to 1m");
    }

    agent->trace = (size_t) n;

    return NGX_CONF_OK;
}
