
/*
 * Checks across blocks, made when nginx has read the whole configuration:
 * does every name lead to an agent, every agent to a location.  Reads the
 * configuration only; each failure is one [emerg] line that names the place.
 */

#include "ngx_http_agent_conf.h"
#include "ngx_http_agent_web.h"


/* the best prefix so far, while the tree of locations is walked */

typedef struct {
    ngx_http_core_loc_conf_t  *clcf;
    size_t                     len;
    unsigned                   exact:1;
} ngx_http_agent_found_t;


static ngx_int_t ngx_http_agent_check_place(ngx_conf_t *cf,
    ngx_http_agent_main_conf_t *amcf, ngx_http_agent_place_t *place);
static ngx_int_t ngx_http_agent_check_name(ngx_conf_t *cf,
    ngx_http_agent_main_conf_t *amcf, ngx_http_agent_place_t *place);
static ngx_int_t ngx_http_agent_check_runs(ngx_conf_t *cf,
    ngx_http_agent_conf_t *acf, ngx_agent_agent_t *first);
static ngx_int_t ngx_http_agent_check_prices(ngx_conf_t *cf,
    ngx_http_agent_main_conf_t *amcf);
static void ngx_http_agent_check_artifacts(ngx_conf_t *cf,
    ngx_http_agent_conf_t *acf);
static ngx_http_agent_place_t *ngx_http_agent_check_first(
    ngx_http_agent_conf_t *acf);
static ngx_int_t ngx_http_agent_check_agent(ngx_conf_t *cf,
    ngx_http_agent_main_conf_t *amcf, ngx_agent_agent_t *agent);
static ngx_int_t ngx_http_agent_check_uri(ngx_conf_t *cf,
    ngx_agent_agent_t *agent, ngx_str_t *uri);
static ngx_http_agent_place_t *ngx_http_agent_check_ours(
    ngx_http_agent_conf_t *acf, ngx_http_core_loc_conf_t *clcf);
static ngx_http_core_loc_conf_t *ngx_http_agent_check_location(
    ngx_http_core_loc_conf_t *clcf, ngx_str_t *uri);
static void ngx_http_agent_check_tree(ngx_http_location_tree_node_t *node,
    ngx_str_t *rest, size_t depth, ngx_http_agent_found_t *found);


ngx_int_t
ngx_http_agent_check(ngx_conf_t *cf)
{
    ngx_uint_t                i;
    ngx_agent_agent_t       **agents;
    ngx_http_agent_conf_t    *acf;
    ngx_http_agent_place_t   *places;

    acf = ngx_http_conf_get_module_main_conf(cf, ngx_http_agent_module);

    places = acf->places.elts;

    for (i = 0; i < acf->places.nelts; i++) {
        if (ngx_http_agent_check_place(cf, &acf->main, &places[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    acf->main.used = (acf->places.nelts != 0);

    agents = acf->main.agents.elts;

    for (i = 0; i < acf->main.agents.nelts; i++) {
        if (ngx_http_agent_check_agent(cf, &acf->main, agents[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (acf->main.agents.nelts
        && ngx_http_agent_check_runs(cf, acf, agents[0]) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_http_agent_check_artifacts(cf, acf);

    return ngx_http_agent_check_prices(cf, &acf->main);
}


/*
 * What each agent's steps cost, for the store: {"name":"0.002"}.  Neither
 * names nor prices have anything in them that JSON would mind.
 */

static ngx_int_t
ngx_http_agent_check_prices(ngx_conf_t *cf, ngx_http_agent_main_conf_t *amcf)
{
    size_t               len;
    u_char              *p;
    ngx_uint_t           i;
    ngx_agent_agent_t  **agents;

    agents = amcf->agents.elts;

    for (len = sizeof("{}"), i = 0; i < amcf->agents.nelts; i++) {
        len += agents[i]->name.len + agents[i]->price.len
               + sizeof("\"\":\"\",") - 1;
    }

    p = ngx_pnalloc(cf->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    amcf->store.prices.data = p;
    *p++ = '{';

    for (i = 0; i < amcf->agents.nelts; i++) {
        p = ngx_sprintf(p, "%s\"%V\":\"%V\"", i ? "," : "",
                        &agents[i]->name, &agents[i]->price);
    }

    *p++ = '}';
    amcf->store.prices.len = p - amcf->store.prices.data;

    return NGX_OK;
}


/* agents are there: does this nginx run their steps? */

static ngx_int_t
ngx_http_agent_check_runs(ngx_conf_t *cf, ngx_http_agent_conf_t *acf,
    ngx_agent_agent_t *first)
{
    if (acf->main.run) {

        if (acf->main.store.conninfo.data == NULL) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "agent \"%V\" needs \"agent_database\" in http, "
                          "which is missing, in %s:%ui",
                          &first->name, first->conf_file, first->conf_line);
            return NGX_ERROR;
        }

        acf->main.used = 1;

        return NGX_OK;
    }

    if (ngx_http_agent_check_first(acf) == NULL) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "agent \"%V\" is of no use: \"agent_run\" is off and "
                      "there is no \"agent_pass\", in %s:%ui",
                      &first->name, first->conf_file, first->conf_line);
    }

    return NGX_OK;
}


static void
ngx_http_agent_check_artifacts(ngx_conf_t *cf, ngx_http_agent_conf_t *acf)
{
    ngx_agent_agent_t       **agents;
    ngx_http_agent_place_t   *place;

    if (acf->main.artifacts) {
        return;
    }

    place = ngx_http_agent_check_first(acf);

    if (place) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "no \"agent_artifacts\" in http, artifacts are refused "
                      "by \"agent_pass\" in %s:%ui",
                      place->conf_file, place->conf_line);
        return;
    }

    if (acf->main.agents.nelts && acf->main.run) {
        agents = acf->main.agents.elts;

        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "no \"agent_artifacts\" in http, agent \"%V\" cannot "
                      "write files, in %s:%ui", &agents[0]->name,
                      agents[0]->conf_file, agents[0]->conf_line);
    }
}


/* the first agent_pass, or NULL */

static ngx_http_agent_place_t *
ngx_http_agent_check_first(ngx_http_agent_conf_t *acf)
{
    ngx_uint_t               i;
    ngx_http_agent_place_t  *places;

    places = acf->places.elts;

    for (i = 0; i < acf->places.nelts; i++) {
        if (places[i].handler == ngx_http_agent_handler) {
            return &places[i];
        }
    }

    return NULL;
}


static ngx_int_t
ngx_http_agent_check_place(ngx_conf_t *cf, ngx_http_agent_main_conf_t *amcf,
    ngx_http_agent_place_t *place)
{
    if (amcf->store.conninfo.data == NULL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"%V\" needs \"agent_database\" in http, "
                      "which is missing, in %s:%ui",
                      place->directive, place->conf_file, place->conf_line);
        return NGX_ERROR;
    }

    /* a later directive of the same location took it, proxy_pass perhaps */

    if (place->clcf->handler != place->handler) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"%V\" directive stands in a location that "
                      "has another content handler in %s:%ui",
                      place->directive, place->conf_file, place->conf_line);
        return NGX_ERROR;
    }

    if (place->handler == ngx_http_agent_auth_handler && !amcf->auth_zone) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"agent_auth\" needs \"agent_auth_zone\" in http, "
                      "which is missing, in %s:%ui",
                      place->conf_file, place->conf_line);
        return NGX_ERROR;
    }

    if (place->handler != ngx_http_agent_handler) {
        return NGX_OK;
    }

    if (amcf->agents.nelts == 0) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"agent_pass\" needs an \"agent\" block in a server, "
                      "there is none, in %s:%ui",
                      place->conf_file, place->conf_line);
        return NGX_ERROR;
    }

    if (place->name.len == 0) {
        return NGX_OK;
    }

    return ngx_http_agent_check_name(cf, amcf, place);
}


static ngx_int_t
ngx_http_agent_check_name(ngx_conf_t *cf, ngx_http_agent_main_conf_t *amcf,
    ngx_http_agent_place_t *place)
{
    ngx_uint_t           i;
    ngx_agent_agent_t  **agents;

    agents = amcf->agents.elts;

    for (i = 0; i < amcf->agents.nelts; i++) {

        if (agents[i]->name.len == place->name.len
            && ngx_strncmp(agents[i]->name.data, place->name.data,
                           place->name.len)
               == 0)
        {
            return NGX_OK;
        }
    }

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "no agent \"%V\" is defined for \"agent_pass\" in %s:%ui",
                  &place->name, place->conf_file, place->conf_line);

    return NGX_ERROR;
}


/*
 * Where do the agent's calls go?  A server-level rewrite could still change
 * that at run time, but whoever writes one can write "pass" as well.
 */

static ngx_int_t
ngx_http_agent_check_agent(ngx_conf_t *cf, ngx_http_agent_main_conf_t *amcf,
    ngx_agent_agent_t *agent)
{
    ngx_str_t                  uri;
    ngx_http_conf_ctx_t       *ctx;
    ngx_http_agent_place_t    *ours;
    ngx_http_core_loc_conf_t  *clcf;

    if (ngx_http_agent_check_uri(cf, agent, &uri) != NGX_OK) {
        return NGX_ERROR;
    }

    ctx = agent->server_ctx;

    clcf = ngx_http_agent_check_location(
                           ctx->loc_conf[ngx_http_core_module.ctx_index],
                           &uri);

    /* an nginx that only accepts needs no way to the LLM, and no key of it */

    if (clcf == NULL && !amcf->run) {
        return NGX_OK;
    }

    if (clcf == NULL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "no location of this server matches \"pass %V\" of "
                      "agent \"%V\" in %s:%ui",
                      &agent->pass, &agent->name,
                      agent->conf_file, agent->conf_line);
        return NGX_ERROR;
    }

    ours = ngx_http_agent_check_ours((ngx_http_agent_conf_t *) amcf, clcf);

    if (ours) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"pass %V\" of agent \"%V\" leads to location \"%V\", "
                      "which has \"%V\" itself, in %s:%ui",
                      &agent->pass, &agent->name, &clcf->name,
                      ours->directive, agent->conf_file, agent->conf_line);
        return NGX_ERROR;
    }

    if (!clcf->internal) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "location \"%V\", where agent \"%V\" passes to, is not "
                      "\"internal\": clients can call it too, in %s:%ui",
                      &clcf->name, &agent->name,
                      agent->conf_file, agent->conf_line);
    }

    return NGX_OK;
}


/* What makes the location one of ours, or NULL. */

static ngx_http_agent_place_t *
ngx_http_agent_check_ours(ngx_http_agent_conf_t *acf,
    ngx_http_core_loc_conf_t *clcf)
{
    ngx_uint_t               i;
    ngx_http_agent_place_t  *places;

    places = acf->places.elts;

    for (i = 0; i < acf->places.nelts; i++) {
        if (places[i].clcf == clcf) {
            return &places[i];
        }
    }

    return NULL;
}


/* What is called: "pass" itself, or, where it is a prefix, the first of all. */

static ngx_int_t
ngx_http_agent_check_uri(ngx_conf_t *cf, ngx_agent_agent_t *agent,
    ngx_str_t *uri)
{
    u_char  *args, *p;

    *uri = agent->pass;

    args = ngx_strlchr(uri->data, uri->data + uri->len, '?');
    if (args) {
        uri->len = args - uri->data;
    }

    if (agent->dialect != NGX_AGENT_DIALECT_AGENT_PROTOCOL) {
        return NGX_OK;
    }

    while (uri->len && uri->data[uri->len - 1] == '/') {
        uri->len--;
    }

    p = ngx_pnalloc(cf->pool, uri->len + sizeof("/tasks"));
    if (p == NULL) {
        return NGX_ERROR;
    }

    uri->len = ngx_sprintf(p, "%V/tasks", uri) - p;
    uri->data = p;

    return NGX_OK;
}


/* The location nginx would take for the uri, or NULL. */

static ngx_http_core_loc_conf_t *
ngx_http_agent_check_location(ngx_http_core_loc_conf_t *clcf, ngx_str_t *uri)
{
    ngx_http_agent_found_t      found;
    ngx_http_core_loc_conf_t   *nested;
#if (NGX_PCRE)
    ngx_http_core_loc_conf_t  **re;
#endif

    ngx_memzero(&found, sizeof(ngx_http_agent_found_t));

    ngx_http_agent_check_tree(clcf->static_locations, uri, 0, &found);

    if (found.exact) {
        return found.clcf;
    }

    nested = NULL;

    if (found.clcf) {
        nested = ngx_http_agent_check_location(found.clcf, uri);
    }

#if (NGX_PCRE)

    if (clcf->regex_locations && !(found.clcf && found.clcf->noregex)) {

        for (re = clcf->regex_locations; *re; re++) {

            if (ngx_regex_exec((*re)->regex->regex, uri, NULL, 0) >= 0) {
                nested = ngx_http_agent_check_location(*re, uri);
                return nested ? nested : *re;
            }
        }
    }

#endif

    return nested ? nested : found.clcf;
}


/*
 * nginx keeps prefix locations in a tree: left and right are other names,
 * "tree" holds those that go on behind this node's piece of the name.
 */

static void
ngx_http_agent_check_tree(ngx_http_location_tree_node_t *node,
    ngx_str_t *rest, size_t depth, ngx_http_agent_found_t *found)
{
    ngx_str_t  tail;

    if (node == NULL || found->exact) {
        return;
    }

    ngx_http_agent_check_tree(node->left, rest, depth, found);
    ngx_http_agent_check_tree(node->right, rest, depth, found);

    if (rest->len < (size_t) node->len
        || ngx_memcmp(rest->data, node->name, node->len) != 0)
    {
        return;
    }

    if (node->exact && rest->len == (size_t) node->len) {
        found->clcf = node->exact;
        found->exact = 1;
        return;
    }

    depth += node->len;

    if (node->inclusive && depth >= found->len && !found->exact) {
        found->clcf = node->inclusive;
        found->len = depth;
    }

    tail.data = rest->data + node->len;
    tail.len = rest->len - node->len;

    ngx_http_agent_check_tree(node->tree, &tail, depth, found);
}
