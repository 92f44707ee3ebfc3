
/*
 * GET agents: those of this nginx that the request's key may be used for, in
 * the order of the configuration.  Reads the configuration only.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_agent_auth.h"
#include "ngx_http_agent_reply.h"


static void ngx_http_agent_agents_one(ngx_agent_json_t *j,
    ngx_agent_agent_t *agent);
static void ngx_http_agent_agents_text(ngx_agent_json_t *j, const char *key,
    ngx_str_t *text);


ngx_int_t
ngx_http_agent_agents_list(ngx_http_agent_web_t *web)
{
    ngx_uint_t                    i;
    ngx_agent_json_t              j;
    ngx_agent_agent_t           **agents;
    ngx_http_agent_main_conf_t   *amcf;

    amcf = ngx_http_get_module_main_conf(web->request, ngx_http_agent_module);

    agents = amcf->agents.elts;

    ngx_agent_json_init(&j, web->request->pool,
                        64 + 128 * amcf->agents.nelts);

    ngx_agent_json_object(&j);
    ngx_agent_json_key(&j, "agents");
    ngx_agent_json_array(&j);

    for (i = 0; i < amcf->agents.nelts; i++) {

        if (web->key == NULL
            || ngx_agent_auth_allows(web->key, &agents[i]->name))
        {
            ngx_http_agent_agents_one(&j, agents[i]);
        }
    }

    ngx_agent_json_array_end(&j);
    ngx_agent_json_object_end(&j);

    return ngx_http_agent_reply_json(web->request, NGX_HTTP_OK, &j);
}


static void
ngx_http_agent_agents_one(ngx_agent_json_t *j, ngx_agent_agent_t *agent)
{
    ngx_agent_json_object(j);

    ngx_http_agent_agents_text(j, "name", &agent->name);
    ngx_http_agent_agents_text(j, "description", &agent->description);
    ngx_http_agent_agents_text(j, "model", &agent->model);

    ngx_agent_json_key(j, "dialect");
    ngx_agent_json_cstring(j, (agent->dialect == NGX_AGENT_DIALECT_OPENAI)
                                  ? "openai" : "agent_protocol");

    ngx_agent_json_object_end(j);
}


static void
ngx_http_agent_agents_text(ngx_agent_json_t *j, const char *key,
    ngx_str_t *text)
{
    ngx_agent_json_key(j, key);

    if (text->len) {
        ngx_agent_json_string(j, text);

    } else {
        ngx_agent_json_null(j);
    }
}
