
/*
 * The start and end of core/ in a worker, and the agents it knows.
 */

#include "ngx_agent_step.h"
#include "ngx_agent_auth.h"


static ngx_agent_core_conf_t  *ngx_agent_core_conf;


ngx_int_t
ngx_agent_core_init(ngx_cycle_t *cycle, ngx_agent_core_conf_t *conf)
{
    ngx_agent_core_conf = conf;

    ngx_agent_watch_init();
    ngx_agent_step_init(conf);
    ngx_agent_post_init(conf);
    ngx_agent_auth_init(cycle);

    if (ngx_agent_queue_init(cycle, conf) != NGX_OK
        || ngx_agent_live_init(cycle) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_agent_tick_init(cycle, conf);
}


void
ngx_agent_core_exit(ngx_cycle_t *cycle)
{
    ngx_agent_tick_exit();
    ngx_agent_auth_exit();
    ngx_agent_watch_exit();
    ngx_agent_live_exit(cycle);
    ngx_agent_queue_exit();
}


ngx_agent_agent_t *
ngx_agent_agent_find(ngx_str_t *name)
{
    ngx_uint_t           i;
    ngx_agent_agent_t  **agent;

    agent = ngx_agent_core_conf->agents->elts;

    for (i = 0; i < ngx_agent_core_conf->agents->nelts; i++) {
        if (agent[i]->name.len == name->len
            && ngx_memcmp(agent[i]->name.data, name->data, name->len) == 0)
        {
            return agent[i];
        }
    }

    return NULL;
}
