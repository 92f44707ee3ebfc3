
/*
 * agent_status as texts: the one table of all numbers, and the two forms it
 * is written in.  Reads counters; must not touch a request but its pool.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_agent_status.h"
#include "ngx_agent_json.h"


/* of one line of Prometheus' form, without the name of an agent */
#define NGX_HTTP_AGENT_STATUS_LINE   160

/* of HELP and TYPE */
#define NGX_HTTP_AGENT_STATUS_HEAD   320


static ngx_uint_t ngx_http_agent_metric_first(ngx_uint_t i);
static ngx_uint_t ngx_http_agent_metric_same(const char *one,
    const char *two);
static void ngx_http_agent_status_json_agents(ngx_agent_json_t *j,
    ngx_http_agent_main_conf_t *amcf);
static size_t ngx_http_agent_status_size(ngx_http_agent_main_conf_t *amcf);
static u_char *ngx_http_agent_status_head(u_char *p, u_char *last,
    const char *family, const char *type, const char *help);
static u_char *ngx_http_agent_status_gauge(u_char *p, u_char *last,
    const char *family, const char *help, uint64_t n);
static u_char *ngx_http_agent_status_metrics(u_char *p, u_char *last);
static u_char *ngx_http_agent_status_agents(u_char *p, u_char *last,
    ngx_http_agent_main_conf_t *amcf);


#define M(stat)  NGX_AGENT_STAT_##stat

const ngx_http_agent_metric_t  ngx_http_agent_metrics[] = {

    { M(2XX), "responses", "2xx", "agent_responses_total", "class=\"2xx\"",
      "Answers to clients, by the class of their status.", 0 },
    { M(4XX), "responses", "4xx", "agent_responses_total", "class=\"4xx\"",
      NULL, 0 },
    { M(5XX), "responses", "5xx", "agent_responses_total", "class=\"5xx\"",
      NULL, 0 },
    { M(REFUSED), "responses", "refused", "agent_refused_total", NULL,
      "Requests refused with 503: the queue full or the database away.", 0 },
    { M(REPLAYED), "responses", "replayed", "agent_replayed_total", NULL,
      "Requests answered again because of their Idempotency-Key.", 0 },

    { M(TASKS), "tasks", "created", "agent_tasks_created_total", NULL,
      "Tasks made.", 0 },

    { M(STEPS), "steps", "begun", "agent_steps_begun_total", NULL,
      "Steps asked for by clients: run at once or queued.", 0 },
    { M(QUEUED), "steps", "queued", "agent_steps_queued_total", NULL,
      "Of the steps asked for, those that had to be queued.", 0 },
    { M(CLAIMED), "steps", "claimed", "agent_steps_claimed_total", NULL,
      "Steps taken from the queue.", 0 },
    { M(COMPLETED), "steps", "completed", "agent_steps_ended_total",
      "status=\"completed\"", "Steps ended, by their status.", 0 },
    { M(WAITING), "steps", "waiting_for_input", "agent_steps_ended_total",
      "status=\"waiting_for_input\"", NULL, 0 },
    { M(FAILED), "steps", "failed", "agent_steps_ended_total",
      "status=\"failed\"", NULL, 0 },
    { M(CANCELLED), "steps", "cancelled", "agent_steps_ended_total",
      "status=\"cancelled\"", NULL, 0 },
    { M(POSTPONED), "steps", "postponed", "agent_steps_postponed_total", NULL,
      "Steps put back into the queue for a later try.", 0 },
    { M(HANDED_BACK), "steps", "handed_back", "agent_steps_handed_back_total",
      NULL, "Steps put back into the queue by a worker that quits.", 0 },
    { M(TAKEOVERS), "steps", "takeovers", "agent_takeovers_total", NULL,
      "Steps freed from workers that died or lost their lease.", 0 },
    { M(FENCED), "steps", "fenced_writes", "agent_fenced_writes_total", NULL,
      "Writes of a run refused because another attempt owns the step.", 0 },
    { M(RUNNING), "steps", "running", "agent_steps_running", NULL,
      "Steps that are being run.", 0 },
    { M(WATCHERS), "steps", "watchers", "agent_step_watchers", NULL,
      "Clients that wait for the end of a step.", 0 },

    { M(CALLS), "calls", "made", "agent_calls_total", NULL,
      "Calls of agents' upstreams.", 0 },
    { M(RETRIES), "calls", "retries", "agent_call_retries_total", NULL,
      "Of the calls, those made after one that failed.", 0 },
    { M(TOKENS_IN), "calls", "tokens_in", "agent_tokens_total",
      "direction=\"in\"", "Tokens that ended steps have used.", 0 },
    { M(TOKENS_OUT), "calls", "tokens_out", "agent_tokens_total",
      "direction=\"out\"", NULL, 0 },

    { M(WRITER_BATCHES), "database", "writer_batches",
      "agent_database_batches_total", "lane=\"writer\"",
      "Batches sent to the database.", 0 },
    { M(READER_BATCHES), "database", "reader_batches",
      "agent_database_batches_total", "lane=\"reader\"", NULL, 0 },
    { M(WRITER_CALLS), "database", "writer_calls",
      "agent_database_calls_total", "lane=\"writer\"",
      "Calls in those batches; divided by them: calls per batch.", 0 },
    { M(READER_CALLS), "database", "reader_calls",
      "agent_database_calls_total", "lane=\"reader\"", NULL, 0 },
    { M(WRITER_WAITING), "database", "writer_waiting",
      "agent_database_waiting_calls", "lane=\"writer\"",
      "Calls that wait for the next batch.", 0 },
    { M(READER_WAITING), "database", "reader_waiting",
      "agent_database_waiting_calls", "lane=\"reader\"", NULL, 0 },
    { M(WRITER_STATE), "database", "writer_ready",
      "agent_database_ready_workers", "lane=\"writer\"",
      "Workers whose connection to the database is ready.", 0 },
    { M(READER_STATE), "database", "reader_ready",
      "agent_database_ready_workers", "lane=\"reader\"", NULL, 0 },
    { M(CONNECTS), "database", "connects", "agent_database_connects_total",
      NULL, "Connections made to the database.", 0 },
    { M(LOSSES), "database", "losses", "agent_database_losses_total", NULL,
      "Connections to the database that were lost.", 0 },

    { M(DEPTH), NULL, "queue_depth", "agent_queue_depth", NULL,
      "Steps in the queue of the database, when last looked at.", 0 },
    { M(STALL_MAX), NULL, "loop_stall_max_ms",
      "agent_loop_stall_max_seconds", NULL,
      "The longest the event loop of a present worker stood still.", 1 }
};

const ngx_uint_t  ngx_http_agent_nmetrics =
    sizeof(ngx_http_agent_metrics) / sizeof(ngx_http_agent_metrics[0]);


/* the i-th is its family's first: it has the help and the type */

static ngx_uint_t
ngx_http_agent_metric_first(ngx_uint_t i)
{
    return ngx_http_agent_metrics[i].help != NULL;
}


static ngx_uint_t
ngx_http_agent_metric_same(const char *one, const char *two)
{
    return one == two || (one && two && ngx_strcmp(one, two) == 0);
}


uint64_t
ngx_http_agent_status_age(void)
{
    uint64_t  at;

    at = ngx_agent_stat_sum(NGX_AGENT_STAT_DEPTH_AT);

    return (at && (uint64_t) ngx_time() > at) ? ngx_time() - at : 0;
}


ngx_int_t
ngx_http_agent_status_json(ngx_http_request_t *r,
    ngx_http_agent_main_conf_t *amcf, ngx_str_t *text)
{
    ngx_uint_t                      i;
    const char                     *group;
    ngx_agent_json_t                j;
    const ngx_http_agent_metric_t  *m;

    ngx_agent_json_init(&j, r->pool, 2048);
    ngx_agent_json_object(&j);

    ngx_agent_json_key(&j, "version");
    ngx_agent_json_cstring(&j, NGX_AGENT_VERSION);
    ngx_agent_json_key(&j, "schema");
    ngx_agent_json_int(&j, NGX_AGENT_SCHEMA);
    ngx_agent_json_key(&j, "uptime");
    ngx_agent_json_int(&j, ngx_time() - ngx_agent_stat_since());
    ngx_agent_json_key(&j, "workers");
    ngx_agent_json_int(&j, ngx_agent_stat_workers());

    for (group = NULL, i = 0; i < ngx_http_agent_nmetrics; i++) {
        m = &ngx_http_agent_metrics[i];

        if (!ngx_http_agent_metric_same(group, m->group)) {

            if (group) {
                ngx_agent_json_object_end(&j);
            }

            group = m->group;

            if (group) {
                ngx_agent_json_key(&j, group);
                ngx_agent_json_object(&j);
            }
        }

        ngx_agent_json_key(&j, m->key);
        ngx_agent_json_int(&j, (int64_t) ngx_agent_stat_sum(m->stat));
    }

    if (group) {
        ngx_agent_json_object_end(&j);
    }

    ngx_agent_json_key(&j, "queue_age");
    ngx_agent_json_int(&j, (int64_t) ngx_http_agent_status_age());
    ngx_agent_json_key(&j, "queue_limit");
    ngx_agent_json_int(&j, amcf->core.queue);

    ngx_http_agent_status_json_agents(&j, amcf);

    ngx_agent_json_object_end(&j);

    return ngx_agent_json_done(&j, text);
}


static void
ngx_http_agent_status_json_agents(ngx_agent_json_t *j,
    ngx_http_agent_main_conf_t *amcf)
{
    ngx_uint_t           i;
    ngx_agent_agent_t  **agent;

    agent = amcf->agents.elts;

    ngx_agent_json_key(j, "agents");
    ngx_agent_json_array(j);

    for (i = 0; i < amcf->agents.nelts; i++) {
        ngx_agent_json_object(j);
        ngx_agent_json_key(j, "name");
        ngx_agent_json_string(j, &agent[i]->name);
        ngx_agent_json_key(j, "running");
        ngx_agent_json_int(j, ngx_agent_stat_runs(&agent[i]->name));
        ngx_agent_json_key(j, "limit");

        if (agent[i]->concurrency) {
            ngx_agent_json_int(j, agent[i]->concurrency);

        } else {
            ngx_agent_json_null(j);
        }

        ngx_agent_json_object_end(j);
    }

    ngx_agent_json_array_end(j);
}


/* the text form 0.0.4 */

ngx_int_t
ngx_http_agent_status_prometheus(ngx_http_request_t *r,
    ngx_http_agent_main_conf_t *amcf, ngx_str_t *text)
{
    u_char  *p, *last;
    size_t   size;

    size = ngx_http_agent_status_size(amcf);

    text->data = ngx_pnalloc(r->pool, size);
    if (text->data == NULL) {
        return NGX_ERROR;
    }

    last = text->data + size;

    p = ngx_http_agent_status_head(text->data, last, "agent_info", "gauge",
                                   "The module's version and the schema it "
                                   "needs.");
    p = ngx_slprintf(p, last, "agent_info{version=\"%s\",schema=\"%d\"} 1\n",
                     NGX_AGENT_VERSION, NGX_AGENT_SCHEMA);

    p = ngx_http_agent_status_gauge(p, last, "agent_uptime_seconds",
                                    "Since when the counters count.",
                                    ngx_time() - ngx_agent_stat_since());
    p = ngx_http_agent_status_gauge(p, last, "agent_workers",
                                    "Worker processes.",
                                    ngx_agent_stat_workers());

    p = ngx_http_agent_status_metrics(p, last);

    p = ngx_http_agent_status_gauge(p, last, "agent_queue_age_seconds",
                                    "Since when agent_queue_depth has not "
                                    "been looked at.",
                                    ngx_http_agent_status_age());
    p = ngx_http_agent_status_gauge(p, last, "agent_queue_limit",
                                    "Steps in the queue beyond which more "
                                    "are refused.", amcf->core.queue);

    p = ngx_http_agent_status_agents(p, last, amcf);

    text->len = p - text->data;

    return NGX_OK;
}


static size_t
ngx_http_agent_status_size(ngx_http_agent_main_conf_t *amcf)
{
    size_t               size;
    ngx_uint_t           i;
    ngx_agent_agent_t  **agent;

    agent = amcf->agents.elts;

    /* those outside of the table as well */
    size = (ngx_http_agent_nmetrics + 8)
           * (NGX_HTTP_AGENT_STATUS_HEAD + NGX_HTTP_AGENT_STATUS_LINE);

    for (i = 0; i < amcf->agents.nelts; i++) {
        size += 2 * (NGX_HTTP_AGENT_STATUS_LINE + agent[i]->name.len);
    }

    return size;
}


static u_char *
ngx_http_agent_status_head(u_char *p, u_char *last, const char *family,
    const char *type, const char *help)
{
    return ngx_slprintf(p, last, "# HELP %s %s\n# TYPE %s %s\n", family, help,
                        family, type);
}


static u_char *
ngx_http_agent_status_gauge(u_char *p, u_char *last, const char *family,
    const char *help, uint64_t n)
{
    p = ngx_http_agent_status_head(p, last, family, "gauge", help);

    return ngx_slprintf(p, last, "%s %uL\n", family, n);
}


static u_char *
ngx_http_agent_status_metrics(u_char *p, u_char *last)
{
    uint64_t                        n;
    ngx_uint_t                      i;
    const char                     *type;
    const ngx_http_agent_metric_t  *m;

    for (i = 0; i < ngx_http_agent_nmetrics; i++) {
        m = &ngx_http_agent_metrics[i];
        n = ngx_agent_stat_sum(m->stat);
        type = m->stat < NGX_AGENT_STAT_GAUGES ? "counter" : "gauge";

        if (ngx_http_agent_metric_first(i)) {
            p = ngx_http_agent_status_head(p, last, m->family, type, m->help);
        }

        p = m->label ? ngx_slprintf(p, last, "%s{%s} ", m->family, m->label)
                     : ngx_slprintf(p, last, "%s ", m->family);

        p = m->ms ? ngx_slprintf(p, last, "%uL.%03uL\n", n / 1000, n % 1000)
                  : ngx_slprintf(p, last, "%uL\n", n);
    }

    return p;
}


/* names of agents are letters, digits, "_", "-" and ".": no escapes */

static u_char *
ngx_http_agent_status_agents(u_char *p, u_char *last,
    ngx_http_agent_main_conf_t *amcf)
{
    ngx_uint_t           i;
    ngx_agent_agent_t  **agent;

    if (amcf->agents.nelts == 0) {
        return p;
    }

    agent = amcf->agents.elts;

    p = ngx_http_agent_status_head(p, last, "agent_runs", "gauge",
                                   "Steps of the agent that are being run by "
                                   "this nginx.");

    for (i = 0; i < amcf->agents.nelts; i++) {
        p = ngx_slprintf(p, last, "agent_runs{agent=\"%V\"} %ui\n",
                         &agent[i]->name,
                         ngx_agent_stat_runs(&agent[i]->name));
    }

    p = ngx_http_agent_status_head(p, last, "agent_runs_limit", "gauge",
                                   "The agent's concurrency; 0: it has no "
                                   "limit of its own.");

    for (i = 0; i < amcf->agents.nelts; i++) {
        p = ngx_slprintf(p, last, "agent_runs_limit{agent=\"%V\"} %ui\n",
                         &agent[i]->name, agent[i]->concurrency);
    }

    return p;
}
