
/*
 * The module: its place in nginx, and what is started and stopped in each
 * process, in order.  No directive is read and no request is seen here.
 */

#include "ngx_http_agent_conf.h"
#include "ngx_agent_blob.h"
#include "ngx_agent_core.h"
#include "ngx_agent_stat.h"
#include "ngx_http_agent_run.h"
#include "ngx_http_agent_web.h"


/* bytes of free memory that a worker keeps for its next steps */
#define NGX_HTTP_AGENT_TRIM  (4 * 1024 * 1024)


static ngx_int_t ngx_http_agent_postconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_agent_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_http_agent_init_process(ngx_cycle_t *cycle);
static void ngx_http_agent_init_malloc(void);
static ngx_int_t ngx_http_agent_init_rooms(ngx_cycle_t *cycle,
    ngx_http_agent_main_conf_t *amcf);
static void ngx_http_agent_exit_process(ngx_cycle_t *cycle);


static ngx_http_module_t  ngx_http_agent_module_ctx = {
    ngx_http_agent_add_variables,          /* preconfiguration */
    ngx_http_agent_postconfiguration,      /* postconfiguration */

    ngx_http_agent_create_main_conf,       /* create main configuration */
    ngx_http_agent_init_main_conf,         /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_agent_create_loc_conf,        /* create location configuration */
    ngx_http_agent_merge_loc_conf          /* merge location configuration */
};


ngx_module_t  ngx_http_agent_module = {
    NGX_MODULE_V1,
    &ngx_http_agent_module_ctx,            /* module context */
    ngx_http_agent_commands,               /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    ngx_http_agent_init_module,            /* init module */
    ngx_http_agent_init_process,           /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_agent_exit_process,           /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


/* this process runs the store and the core, and has to close them */
static ngx_uint_t  ngx_http_agent_started;


static ngx_int_t
ngx_http_agent_postconfiguration(ngx_conf_t *cf)
{
    ngx_http_agent_main_conf_t  *amcf;

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_agent_module);

    if (ngx_http_agent_check(cf) != NGX_OK) {
        return NGX_ERROR;
    }

    /* loaded but not used: no filter, no memory, no thread, no cost */

    if (!amcf->used) {
        return NGX_OK;
    }

    if (ngx_agent_stat_zone(cf, &ngx_http_agent_module) != NGX_OK) {
        return NGX_ERROR;
    }

#if (NGX_THREADS)

    amcf->thread_pool = ngx_thread_pool_add(cf, NULL);
    if (amcf->thread_pool == NULL) {
        return NGX_ERROR;
    }

#endif

    if (ngx_http_agent_capture_init(cf) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_agent_conf_errors_sites(cf) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_agent_error_init(cf);
}


/*
 * The limit of runs, when "worker_connections" is known wherever it stands.
 * A step with its client takes three connections: the client's, the agent's,
 * and the one of the worker's own request.
 */

static ngx_int_t
ngx_http_agent_init_module(ngx_cycle_t *cycle)
{
    ngx_agent_core_conf_t       *core;
    ngx_http_agent_main_conf_t  *amcf;

    amcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_agent_module);

    if (amcf == NULL || !amcf->used) {
        return NGX_OK;
    }

    core = &amcf->core;

    if (core->concurrency == NGX_CONF_UNSET_UINT) {
        core->concurrency = ngx_max(cycle->connection_n / 4, 1);
        return NGX_OK;
    }

    if (core->concurrency > cycle->connection_n / 3) {
        ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                      "\"agent_concurrency\" %ui is more than a third of "
                      "\"worker_connections\" %ui: a step whose client waits "
                      "takes three of them",
                      core->concurrency, cycle->connection_n);
    }

    return NGX_OK;
}


/*
 * NGX_ERROR ends the worker for good, with all other sites it serves: so it
 * is for lack of memory only.  A database that is away is the store's daily
 * bread, and a bad artifact directory costs the artifacts, not the worker.
 */

static ngx_int_t
ngx_http_agent_init_process(ngx_cycle_t *cycle)
{
    ngx_http_agent_main_conf_t  *amcf;

    /* the cache manager and loader come by here as well */

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    amcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_agent_module);

    if (amcf == NULL || !amcf->used) {
        return NGX_OK;
    }

    ngx_http_agent_init_malloc();
    ngx_agent_stat_init(cycle);

    if (amcf->artifacts
        && ngx_agent_blob_init(cycle, &amcf->artifacts->name,
                               amcf->thread_pool)
           != NGX_OK)
    {
        ngx_log_error(NGX_LOG_ERR, cycle->log, 0,
                      "agent: artifacts are refused by this worker, "
                      "\"%V\" cannot be used", &amcf->artifacts->name);

        /* the worker's own copy: the next reload tries again */
        amcf->artifacts = NULL;
    }

    return ngx_http_agent_init_rooms(cycle, amcf);
}


/*
 * A batch ends many steps at once, and with them goes all their memory: glibc
 * would give 128 KB of it back to the kernel each time, and get it again page
 * by page for the next ones.
 */

static void
ngx_http_agent_init_malloc(void)
{
#ifdef M_TRIM_THRESHOLD
    (void) mallopt(M_TRIM_THRESHOLD, NGX_HTTP_AGENT_TRIM);
#endif
}


static ngx_int_t
ngx_http_agent_init_rooms(ngx_cycle_t *cycle,
    ngx_http_agent_main_conf_t *amcf)
{
    ngx_core_conf_t        *ccf;
    ngx_agent_core_conf_t  *core;

    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);

    core = &amcf->core;

    core->agents = &amcf->agents;
    core->runner = &ngx_http_agent_runner;
    core->wait = amcf->store.wait;
    core->patience = amcf->store.patience;
    core->shutdown = ccf->shutdown_timeout;
    core->run = amcf->run;

    if (ngx_agent_store_init(cycle, &amcf->store) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_agent_run_init(cycle) != NGX_OK
        || ngx_agent_core_init(cycle, core) != NGX_OK)
    {
        ngx_agent_store_exit(cycle);
        return NGX_ERROR;
    }

    ngx_http_agent_started = 1;

    return NGX_OK;
}


static void
ngx_http_agent_exit_process(ngx_cycle_t *cycle)
{
    if (!ngx_http_agent_started) {
        return;
    }

    ngx_http_agent_started = 0;

    ngx_http_agent_run_exit(cycle);
    ngx_agent_core_exit(cycle);
    ngx_agent_store_exit(cycle);
}
