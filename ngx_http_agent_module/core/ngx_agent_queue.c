
/*
 * The queue as a worker sees it: how many steps it runs, claims for the
 * agents that may have more waiting, the poll, and how much waits in all.
 * Whose turn it is before an agent is in ngx_agent_lines.c.
 */

#include "ngx_agent_step.h"
#include "ngx_agent_lines.h"
#include <ngx_event.h>


/* steps of one agent that are claimed at once */
#define NGX_AGENT_QUEUE_CLAIM   128

/* steps in the queue that make the next count another ms later */
#define NGX_AGENT_QUEUE_COUNT   10

/* ms until a poll that could not be sent is tried again */
#define NGX_AGENT_QUEUE_SOON    50

/* ms for which a count that nothing has disturbed is reckoned with */
#define NGX_AGENT_QUEUE_SURE    5000

#define ngx_agent_queue_wants(desk)                                           \
    ((desk)->call == NULL && ngx_agent_lines_hungry(&(desk)->lines))


/* where an agent's steps are given out; asked: places kept for the claim */

typedef struct {
    ngx_str_node_t             node;         /* first: found by its name */
    ngx_agent_agent_t         *agent;
    ngx_agent_store_call_t    *call;         /* the claim under way */
    ngx_uint_t                 asked;
    ngx_agent_lines_t          lines;
} ngx_agent_desk_t;


static void ngx_agent_queue_polled(ngx_agent_store_call_t *call);
static void ngx_agent_queue_hungry(ngx_str_t *agent, ngx_str_t *tenant,
    ngx_uint_t again);
static void ngx_agent_queue_look(ngx_event_t *ev);
static ngx_uint_t ngx_agent_queue_claim(ngx_agent_desk_t *desk,
    ngx_uint_t share);
static ngx_int_t ngx_agent_queue_send(ngx_agent_desk_t *desk);
static void ngx_agent_queue_claimed(ngx_agent_store_call_t *call);
static void ngx_agent_queue_asked(ngx_agent_desk_t *desk);
static void ngx_agent_queue_return(ngx_agent_desk_t *desk, ngx_uint_t n);
static void ngx_agent_queue_due(ngx_event_t *ev);
static void ngx_agent_queue_counted(ngx_agent_store_call_t *call);


static const ngx_agent_core_conf_t  *ngx_agent_queue_conf;
static ngx_agent_desk_t             *ngx_agent_desks;
static ngx_uint_t                    ngx_agent_ndesks;
static ngx_rbtree_t                  ngx_agent_desk_names;
static ngx_rbtree_node_t             ngx_agent_desk_sentinel;
/* places taken; of these, for steps that a claim may bring */
static ngx_uint_t                    ngx_agent_running;
static ngx_uint_t                    ngx_agent_asked;
static ngx_uint_t                    ngx_agent_queue_turn;
static ngx_uint_t                    ngx_agent_queue_opened;

/* debug builds log the socket of every timer's connection */
static ngx_connection_t              ngx_agent_queue_dumb;

static ngx_event_t                   ngx_agent_queue_event;
static ngx_event_t                   ngx_agent_queue_timer;

/* who has steps in the queue: asked now; to be asked again */
static ngx_agent_store_call_t       *ngx_agent_queue_polling;
static ngx_uint_t                    ngx_agent_queue_wish;

/* the depth, and what this nginx had put in and taken out by then */
static ngx_agent_store_call_t       *ngx_agent_queue_counting;
static ngx_msec_t                    ngx_agent_queue_next;
static ngx_msec_t                    ngx_agent_queue_sure;
static uint64_t                      ngx_agent_queue_seen;
static uint64_t                      ngx_agent_queue_in;
static uint64_t                      ngx_agent_queue_out;
static uint64_t                      ngx_agent_queue_then_in;
static uint64_t                      ngx_agent_queue_then_out;


ngx_int_t
ngx_agent_queue_init(ngx_cycle_t *cycle, const ngx_agent_core_conf_t *conf)
{
    ngx_uint_t           i;
    ngx_agent_desk_t    *desk;
    ngx_agent_agent_t  **agent;

    ngx_agent_queue_conf = conf;
    ngx_agent_running = 0;
    ngx_agent_asked = 0;
    ngx_agent_queue_opened = 0;
    ngx_agent_queue_polling = NULL;
    ngx_agent_queue_wish = 0;
    ngx_agent_queue_counting = NULL;
    ngx_agent_queue_next = ngx_current_msec;
    ngx_agent_queue_seen = 0;
    ngx_agent_queue_sure = ngx_current_msec - NGX_AGENT_QUEUE_SURE;
    ngx_agent_queue_in = ngx_agent_stat_sum(NGX_AGENT_STAT_QUEUED);
    ngx_agent_queue_out = ngx_agent_stat_sum(NGX_AGENT_STAT_CLAIMED);

    ngx_rbtree_init(&ngx_agent_desk_names, &ngx_agent_desk_sentinel,
                    ngx_str_rbtree_insert_value);
    ngx_agent_lines_init(cycle, &ngx_agent_queue_event);

    ngx_agent_desks = ngx_pcalloc(cycle->pool, (conf->agents->nelts + 1)
                                               * sizeof(ngx_agent_desk_t));
    if (ngx_agent_desks == NULL) {
        return NGX_ERROR;
    }

    agent = conf->agents->elts;

    for (i = 0; i < conf->agents->nelts; i++) {
        desk = &ngx_agent_desks[i];
        desk->agent = agent[i];
        desk->node.str = agent[i]->name;
        desk->node.node.key = ngx_crc32_short(agent[i]->name.data,
                                              agent[i]->name.len);

        ngx_rbtree_insert(&ngx_agent_desk_names, &desk->node.node);
        ngx_agent_lines_add(&desk->lines);
    }

    ngx_agent_ndesks = conf->agents->nelts;

    ngx_memzero(&ngx_agent_queue_event, sizeof(ngx_event_t));
    ngx_agent_queue_event.handler = ngx_agent_queue_look;
    ngx_agent_queue_event.log = cycle->log;
    ngx_agent_queue_event.data = &ngx_agent_queue_dumb;

    ngx_memzero(&ngx_agent_queue_timer, sizeof(ngx_event_t));
    ngx_agent_queue_timer.handler = ngx_agent_queue_due;
    ngx_agent_queue_timer.log = cycle->log;
    ngx_agent_queue_timer.data = &ngx_agent_queue_dumb;
    ngx_agent_queue_timer.cancelable = 1;

    return NGX_OK;
}


void
ngx_agent_queue_exit(void)
{
    ngx_uint_t  i;

    for (i = 0; i < ngx_agent_ndesks; i++) {
        if (ngx_agent_desks[i].call) {
            ngx_agent_store_detach(ngx_agent_desks[i].call);
            ngx_destroy_pool(ngx_agent_desks[i].call->pool);
            ngx_agent_desks[i].call = NULL;
        }
    }

    ngx_agent_ndesks = 0;
    ngx_agent_lines_exit();

    if (ngx_agent_queue_polling) {
        ngx_agent_store_detach(ngx_agent_queue_polling);
        ngx_destroy_pool(ngx_agent_queue_polling->pool);
        ngx_agent_queue_polling = NULL;
    }

    if (ngx_agent_queue_counting) {
        ngx_agent_store_detach(ngx_agent_queue_counting);
        ngx_destroy_pool(ngx_agent_queue_counting->pool);
        ngx_agent_queue_counting = NULL;
    }

    if (ngx_agent_queue_event.posted) {
        ngx_delete_posted_event(&ngx_agent_queue_event);
    }

    if (ngx_agent_queue_timer.timer_set) {
        ngx_del_timer(&ngx_agent_queue_timer);
    }
}


void
ngx_agent_queue_open(void)
{
    if (ngx_agent_queue_opened) {
        return;
    }

    ngx_agent_queue_opened = 1;
    ngx_agent_queue_poll();
}


ngx_uint_t
ngx_agent_queue_take(void)
{
    if (!ngx_agent_queue_opened || ngx_agent_tick_drains()
        || ngx_agent_running >= ngx_agent_queue_conf->concurrency)
    {
        return 0;
    }

    ngx_agent_running++;
    ngx_agent_stat_set(RUNNING, ngx_agent_running - ngx_agent_asked);

    return 1;
}


/* many runs may end in one turn of the loop: one claim for all of them */

void
ngx_agent_queue_give(void)
{
    ngx_agent_running--;
    ngx_agent_stat_set(RUNNING, ngx_agent_running - ngx_agent_asked);

    ngx_post_event(&ngx_agent_queue_event, &ngx_posted_events);
}


void
ngx_agent_queue_full_agents(ngx_pool_t *pool, ngx_str_t *names)
{
    size_t              len;
    u_char             *p;
    ngx_uint_t          i;
    ngx_agent_agent_t  *agent;

    ngx_str_null(names);
    len = 0;

    for (i = 0; i < ngx_agent_ndesks; i++) {
        agent = ngx_agent_desks[i].agent;

        if (agent->concurrency
            && ngx_agent_stat_places(&agent->name) >= agent->concurrency)
        {
            len += agent->name.len + 1;
        }
    }

    if (len == 0) {
        return;
    }

    p = ngx_pnalloc(pool, len);
    if (p == NULL) {
        /* the step is put back when it has begun */
        return;
    }

    names->data = p;

    for (i = 0; i < ngx_agent_ndesks; i++) {
        agent = ngx_agent_desks[i].agent;

        /* one that has got full in between has no room in the text */

        if (agent->concurrency
            && ngx_agent_stat_places(&agent->name) >= agent->concurrency
            && (size_t) (p - names->data) + agent->name.len + 1 <= len)
        {
            p = ngx_cpymem(p, agent->name.data, agent->name.len);
            *p++ = ',';
        }
    }

    if (p > names->data) {
        names->len = p - names->data - 1;
    }
}


void
ngx_agent_queue_ready(ngx_str_t *agent, ngx_str_t *tenant)
{
    ngx_agent_queue_news(agent, tenant, 0);
}


void
ngx_agent_queue_news(ngx_str_t *agent, ngx_str_t *tenant, ngx_uint_t again)
{
    if (!ngx_agent_queue_opened) {
        /* it does not run any; the poll at the start finds all there is */
        return;
    }

    ngx_agent_queue_hungry(agent, tenant, again);
    ngx_post_event(&ngx_agent_queue_event, &ngx_posted_events);
}


static void
ngx_agent_queue_hungry(ngx_str_t *agent, ngx_str_t *tenant, ngx_uint_t again)
{
    ngx_agent_desk_t  *desk;

    desk = (ngx_agent_desk_t *)
           ngx_str_rbtree_lookup(&ngx_agent_desk_names, agent,
                                 ngx_crc32_short(agent->data, agent->len));

    if (desk) {
        ngx_agent_lines_news(&desk->lines, tenant, again);
    }
}


/* one that was asked for while another is under way may see more: once more */

void
ngx_agent_queue_poll(void)
{
    ngx_agent_store_call_t  *call;

    ngx_agent_queue_wish = 1;

    if (!ngx_agent_queue_opened || ngx_agent_queue_polling
        || ngx_agent_tick_drains())
    {
        return;
    }

    call = ngx_agent_store_call_create(1024, ngx_cycle->log,
                                       ngx_agent_queue_polled);
    if (call == NULL) {
        return;
    }

    if (ngx_agent_store_lines(call) != NGX_AGAIN) {
        ngx_destroy_pool(call->pool);

        /* a lane that is not up yet: free places wait for it */
        ngx_agent_queue_later(NGX_AGENT_QUEUE_SOON);
        return;
    }

    ngx_agent_queue_polling = call;
    ngx_agent_queue_wish = 0;
}


static void
ngx_agent_queue_polled(ngx_agent_store_call_t *call)
{
    ngx_uint_t         i;
    ngx_agent_line_t  *line;

    ngx_agent_queue_polling = NULL;

    if (call->rc == NGX_OK) {
        line = call->list->elts;

        for (i = 0; i < call->list->nelts; i++) {
            ngx_agent_queue_hungry(&line[i].agent, &line[i].tenant, 1);
        }

        ngx_agent_lines_forget();

        if (ngx_agent_queue_wish) {
            ngx_agent_queue_poll();
        }

    } else {
        /* the next tick tries again */
        ngx_agent_queue_wish = 1;
    }

    ngx_destroy_pool(call->pool);

    ngx_post_event(&ngx_agent_queue_event, &ngx_posted_events);
}


/* the soonest of several; polling finds the others */

void
ngx_agent_queue_later(ngx_msec_t delay)
{
    /* the row is a moment younger than this worker thinks */
    delay += 20;

    if (ngx_agent_queue_timer.timer_set
        && (ngx_msec_int_t) (ngx_agent_queue_timer.timer.key
                             - (ngx_current_msec + delay))
           <= 0)
    {
        return;
    }

    ngx_add_timer(&ngx_agent_queue_timer, delay);
}


static void
ngx_agent_queue_due(ngx_event_t *ev)
{
    ngx_agent_queue_poll();
}


/* free slots are shared by the agents that may have steps */

static void
ngx_agent_queue_look(ngx_event_t *ev)
{
    ngx_uint_t         i, n, share, free;
    ngx_agent_desk_t  *desk;

    if (!ngx_agent_queue_opened || ngx_agent_tick_drains()) {
        return;
    }

    for (i = 0, n = 0; i < ngx_agent_ndesks; i++) {
        if (ngx_agent_queue_wants(&ngx_agent_desks[i])) {
            n++;
        }
    }

    free = ngx_agent_queue_conf->concurrency - ngx_agent_running;

    if (n == 0 || free == 0) {
        return;
    }

    share = ngx_max(free / n, 1);

    /* each time another agent is the first to get a place */

    ngx_agent_queue_turn++;

    for (i = 0; i < ngx_agent_ndesks && free; i++) {
        desk = &ngx_agent_desks[(ngx_agent_queue_turn + i)
                                % ngx_agent_ndesks];

        if (ngx_agent_queue_wants(desk)) {
            n = ngx_agent_queue_claim(desk, ngx_min(share, free));
            free -= ngx_min(n, free);
        }
    }
}


static ngx_uint_t
ngx_agent_queue_claim(ngx_agent_desk_t *desk, ngx_uint_t share)
{
    ngx_uint_t          n;
    ngx_agent_agent_t  *agent;

    agent = desk->agent;
    share = ngx_min(share, NGX_AGENT_QUEUE_CLAIM);

    for (n = 0; n < share; n++) {
        if (!ngx_agent_stat_take(&agent->name, agent->concurrency)) {
            break;
        }

        ngx_agent_running++;
    }

    desk->asked = n;
    ngx_agent_asked += n;
    ngx_agent_stat_ask(&agent->name, n);

    if (n && ngx_agent_queue_send(desk) != NGX_OK) {
        ngx_agent_queue_asked(desk);
        ngx_agent_queue_return(desk, n);
        return 0;
    }

    return n;
}


static ngx_int_t
ngx_agent_queue_send(ngx_agent_desk_t *desk)
{
    ngx_agent_store_call_t  *call;

    call = ngx_agent_store_call_create(2048, ngx_cycle->log,
                                       ngx_agent_queue_claimed);
    if (call == NULL) {
        return NGX_ERROR;
    }

    call->task = ngx_pcalloc(call->pool, sizeof(ngx_agent_task_t));
    if (call->task == NULL) {
        ngx_destroy_pool(call->pool);
        return NGX_ERROR;
    }

    call->task->agent = desk->agent->name;
    call->data = desk;
    call->limit = desk->asked;

    if (ngx_agent_lines_ask(&desk->lines, call) != NGX_OK
        || ngx_agent_store_claim(call) != NGX_AGAIN)
    {
        ngx_agent_lines_unasked(&desk->lines);
        ngx_destroy_pool(call->pool);
        return NGX_ERROR;
    }

    desk->call = call;

    return NGX_OK;
}


static void
ngx_agent_queue_claimed(ngx_agent_store_call_t *call)
{
    ngx_uint_t          i, n;
    ngx_agent_desk_t   *desk;
    ngx_agent_claim_t  *claim;

    desk = call->data;
    desk->call = NULL;
    ngx_agent_queue_asked(desk);

    ngx_agent_lines_told(&desk->lines, call);

    n = 0;

    if (call->rc == NGX_OK) {
        n = call->list->nelts;
        claim = call->list->elts;

        for (i = 0; i < n; i++) {
            ngx_agent_step_claimed(&claim[i], desk->agent);
        }
    }

    ngx_agent_stat_set(RUNNING, ngx_agent_running - ngx_agent_asked);
    ngx_agent_queue_return(desk, desk->asked - n);

    ngx_destroy_pool(call->pool);

    /* what this one has left is for the others that are hungry */
    ngx_post_event(&ngx_agent_queue_event, &ngx_posted_events);
}


/* the places are from now on of steps that run, or given back */

static void
ngx_agent_queue_asked(ngx_agent_desk_t *desk)
{
    ngx_agent_asked -= desk->asked;
    ngx_agent_stat_ask(&desk->agent->name, -(ngx_int_t) desk->asked);
}


static void
ngx_agent_queue_return(ngx_agent_desk_t *desk, ngx_uint_t n)
{
    for ( /* void */ ; n; n--) {
        ngx_agent_stat_give(&desk->agent->name);
        ngx_agent_running--;
    }

    ngx_agent_stat_set(RUNNING, ngx_agent_running - ngx_agent_asked);
}


/*
 * What was counted, and what this nginx has put in and taken out since; other
 * nginx are seen with the next count.
 */

ngx_uint_t
ngx_agent_queue_is_full(void)
{
    int64_t  n;

    n = (int64_t) ngx_agent_queue_seen
        + (int64_t) (ngx_agent_stat_sum(NGX_AGENT_STAT_QUEUED)
                     - ngx_agent_queue_in)
        - (int64_t) (ngx_agent_stat_sum(NGX_AGENT_STAT_CLAIMED)
                     - ngx_agent_queue_out);

    return n >= (int64_t) ngx_agent_queue_conf->queue;
}


void
ngx_agent_queue_depth(void)
{
    ngx_agent_store_call_t  *call;

    if (ngx_agent_queue_wish) {
        ngx_agent_queue_poll();
    }

    if (ngx_agent_queue_counting
        || (ngx_msec_int_t) (ngx_current_msec - ngx_agent_queue_next) < 0)
    {
        return;
    }

    call = ngx_agent_store_call_create(1024, ngx_cycle->log,
                                       ngx_agent_queue_counted);
    if (call == NULL) {
        return;
    }

    call->limit = ngx_agent_queue_conf->queue;

    ngx_agent_queue_then_in = ngx_agent_stat_sum(NGX_AGENT_STAT_QUEUED);
    ngx_agent_queue_then_out = ngx_agent_stat_sum(NGX_AGENT_STAT_CLAIMED);

    if (ngx_agent_store_depth(call) != NGX_AGAIN) {
        ngx_destroy_pool(call->pool);
        return;
    }

    ngx_agent_queue_counting = call;
}


static void
ngx_agent_queue_counted(ngx_agent_store_call_t *call)
{
    ngx_uint_t  quiet;

    ngx_agent_queue_counting = NULL;

    if (call->rc == NGX_OK) {

        /*
         * Steps that came or went while it was counted may be in the count
         * or not: then what was known goes on being reckoned with, for a
         * while.
         */

        quiet = (ngx_agent_stat_sum(NGX_AGENT_STAT_QUEUED)
                 == ngx_agent_queue_then_in
                 && ngx_agent_stat_sum(NGX_AGENT_STAT_CLAIMED)
                    == ngx_agent_queue_then_out);

        if (quiet
            || ngx_current_msec - ngx_agent_queue_sure >= NGX_AGENT_QUEUE_SURE)
        {
            ngx_agent_queue_seen = call->total;
            ngx_agent_queue_in = ngx_agent_queue_then_in;
            ngx_agent_queue_out = ngx_agent_queue_then_out;
            ngx_agent_queue_sure = ngx_current_msec;
        }

        ngx_agent_stat_set(DEPTH, call->total);
        ngx_agent_stat_set(DEPTH_AT, ngx_time());
    }

    ngx_agent_queue_next = ngx_current_msec + 1000
                           + call->total / NGX_AGENT_QUEUE_COUNT;

    ngx_destroy_pool(call->pool);
}
