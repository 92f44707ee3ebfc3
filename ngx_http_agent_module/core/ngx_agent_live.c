
/*
 * The steps this worker runs: a table by step id, their states, the calls
 * they make and the renewal of their leases.  Knows nothing of how a step is
 * run.
 */

#include "ngx_agent_step.h"
#include "ngx_agent_lines.h"
#include <ngx_event.h>


/* cancelled steps that are remembered, as they may be on their way here */
#define NGX_AGENT_LIVE_CANCELLED  64

/* what a run needs beside this, with short texts, has room in it as well */
#define NGX_AGENT_LIVE_POOL       1408


static void ngx_agent_live_insert(ngx_rbtree_node_t *temp,
    ngx_rbtree_node_t *node, ngx_rbtree_node_t *sentinel);
static ngx_rbtree_key_t ngx_agent_live_key(const ngx_agent_id_t *id);
static int ngx_agent_live_cmp(ngx_rbtree_node_t *node,
    const ngx_agent_id_t *id);
static ngx_int_t ngx_agent_live_leases(ngx_agent_store_call_t *call);
static void ngx_agent_live_renewed(ngx_agent_store_call_t *call);


/* the legal moves: ngx_agent_live_moves[from] has bit "to" */

#define TO(state)  (1u << NGX_AGENT_LIVE_##state)

static const ngx_uint_t  ngx_agent_live_moves[] = {
    /* ASKED   */  TO(READY),
    /* READY   */  TO(RUNS) | TO(ENDS) | TO(LEAVES) | TO(DROPPED),
    /* RUNS    */  TO(PAUSES) | TO(ENDS) | TO(LEAVES) | TO(DROPPED),
    /* PAUSES  */  TO(RETRIES) | TO(LEAVES) | TO(DROPPED),
    /* RETRIES */  TO(RUNS) | TO(LEAVES) | TO(DROPPED),
    /* ENDS    */  TO(DROPPED),
    /* LEAVES  */  TO(DROPPED),
    /* DROPPED */  0
};


static ngx_queue_t        ngx_agent_lives;
static ngx_uint_t         ngx_agent_nlives;
static ngx_rbtree_t       ngx_agent_live_tree;
static ngx_rbtree_node_t  ngx_agent_live_sentinel;
static ngx_agent_store_call_t  *ngx_agent_live_renewing;
static ngx_agent_id_t     ngx_agent_live_cancelled[NGX_AGENT_LIVE_CANCELLED];
static ngx_uint_t         ngx_agent_live_ncancelled;


ngx_int_t
ngx_agent_live_init(ngx_cycle_t *cycle)
{
    ngx_queue_init(&ngx_agent_lives);
    ngx_rbtree_init(&ngx_agent_live_tree, &ngx_agent_live_sentinel,
                    ngx_agent_live_insert);
    ngx_agent_nlives = 0;
    ngx_agent_live_renewing = NULL;

    return NGX_OK;
}


/* what still runs when a worker ends is freed by those who see it gone */

void
ngx_agent_live_exit(ngx_cycle_t *cycle)
{
    if (ngx_agent_lives.next == NULL) {
        return;
    }

    ngx_agent_live_each(ngx_agent_live_free);

    if (ngx_agent_live_renewing) {
        ngx_agent_store_renew_stop(ngx_agent_live_renewing);
        ngx_destroy_pool(ngx_agent_live_renewing->pool);
        ngx_agent_live_renewing = NULL;
    }
}


void
ngx_agent_live_each(void (*f)(ngx_agent_live_t *live))
{
    ngx_queue_t       *q, *next;
    ngx_agent_live_t  *live;

    for (q = ngx_queue_head(&ngx_agent_lives);
         q != ngx_queue_sentinel(&ngx_agent_lives);
         q = next)
    {
        next = ngx_queue_next(q);
        live = ngx_queue_data(q, ngx_agent_live_t, queue);
        f(live);
    }
}


ngx_agent_live_t *
ngx_agent_live_create(ngx_str_t *tenant, ngx_agent_task_t *task,
    ngx_agent_step_t *step)
{
    ngx_pool_t        *pool;
    ngx_agent_live_t  *live;

    pool = ngx_create_pool(NGX_AGENT_LIVE_POOL, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    live = ngx_pcalloc(pool, sizeof(ngx_agent_live_t));
    if (live == NULL) {
        ngx_destroy_pool(pool);
        return NULL;
    }

    live->pool = pool;
    live->log = ngx_cycle->log;
    live->task.id = task->id;
    live->step.task_id = task->id;
    live->step.id = step->id;
    ngx_queue_init(&live->watchers);

    live->event.data = live;
    live->event.log = live->log;

    if (ngx_agent_live_dup(live, &live->tenant, tenant) != NGX_OK
        || ngx_agent_live_dup(live, &live->step.input, &step->input) != NGX_OK
        || ngx_agent_live_dup(live, &live->step.additional_input,
                              &step->additional_input)
           != NGX_OK
        || ngx_agent_live_dup(live, &live->step.traceparent,
                              &step->traceparent)
           != NGX_OK)
    {
        ngx_destroy_pool(pool);
        return NULL;
    }

    return live;
}


ngx_int_t
ngx_agent_live_dup(ngx_agent_live_t *live, ngx_str_t *dst, ngx_str_t *src)
{
    if (src->data == NULL) {
        ngx_str_null(dst);
        return NGX_OK;
    }

    if (src->len == 0) {
        ngx_str_set(dst, "");
        return NGX_OK;
    }

    dst->len = src->len;
    dst->data = ngx_pnalloc(live->pool, src->len);
    if (dst->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(dst->data, src->data, src->len);

    return NGX_OK;
}


void
ngx_agent_live_move(ngx_agent_live_t *live, ngx_agent_live_state_e to)
{
    ngx_log_debug2(NGX_LOG_DEBUG_CORE, live->log, 0,
                   "agent step: live state %d -> %d", live->state, to);

    if (!(ngx_agent_live_moves[live->state] & (1u << to))) {
        ngx_log_error(NGX_LOG_ERR, live->log, 0,
                      "agent step: illegal move from live state %d to %d",
                      live->state, to);
    }

    live->state = to;
}


ngx_agent_store_call_t *
ngx_agent_live_call(ngx_agent_live_t *live, ngx_agent_store_pt handler)
{
    ngx_agent_store_call_t  *call;

    call = ngx_agent_store_call_create(1024, live->log, handler);
    if (call == NULL) {
        return NULL;
    }

    call->data = live;
    call->tenant = live->tenant;
    call->task = &live->task;
    call->step = &live->step;
    call->watched = live->watched;

    live->call = call;

    return call;
}


void
ngx_agent_live_call_done(ngx_agent_live_t *live)
{
    ngx_pool_t  *pool;

    if (live->call == NULL) {
        return;
    }

    pool = live->call->pool;

    ngx_agent_store_detach(live->call);
    live->call = NULL;

    ngx_destroy_pool(pool);
}


ngx_uint_t
ngx_agent_live_add(ngx_agent_live_t *live)
{
    ngx_uint_t  i;

    live->node.key = ngx_agent_live_key(&live->step.id);
    ngx_rbtree_insert(&ngx_agent_live_tree, &live->node);
    ngx_queue_insert_tail(&ngx_agent_lives, &live->queue);
    ngx_agent_nlives++;

    for (i = 0; i < NGX_AGENT_LIVE_CANCELLED; i++) {
        if (ngx_memcmp(ngx_agent_live_cancelled[i].bytes, live->step.id.bytes,
                       16)
            == 0)
        {
            return 0;
        }
    }

    return 1;
}


void
ngx_agent_live_note_cancelled(const ngx_agent_id_t *id)
{
    ngx_agent_live_cancelled[ngx_agent_live_ncancelled] = *id;

    ngx_agent_live_ncancelled = (ngx_agent_live_ncancelled + 1)
                                % NGX_AGENT_LIVE_CANCELLED;
}


void
ngx_agent_live_free(ngx_agent_live_t *live)
{
    ngx_agent_live_call_done(live);

    if (live->queue.next) {
        ngx_rbtree_delete(&ngx_agent_live_tree, &live->node);
        ngx_queue_remove(&live->queue);
        live->queue.next = NULL;
        ngx_agent_nlives--;
    }

    if (live->event.timer_set) {
        ngx_del_timer(&live->event);
    }

    if (live->event.posted) {
        ngx_delete_posted_event(&live->event);
    }

    if (live->agent_slot) {
        ngx_agent_stat_give(&live->agent->name);
    }

    if (live->slot) {
        ngx_agent_queue_give();
    }

    ngx_agent_lines_ended(&live->tenant);

    ngx_destroy_pool(live->pool);
}


ngx_agent_live_t *
ngx_agent_step_find(const ngx_agent_id_t *step_id)
{
    int                 rc;
    ngx_rbtree_key_t    key;
    ngx_rbtree_node_t  *node, *sentinel;

    key = ngx_agent_live_key(step_id);
    node = ngx_agent_live_tree.root;
    sentinel = ngx_agent_live_tree.sentinel;

    while (node != sentinel) {

        if (key != node->key) {
            node = (key < node->key) ? node->left : node->right;
            continue;
        }

        rc = ngx_agent_live_cmp(node, step_id);

        if (rc == 0) {
            return ngx_rbtree_data(node, ngx_agent_live_t, node);
        }

        node = (rc > 0) ? node->left : node->right;
    }

    return NULL;
}


static void
ngx_agent_live_insert(ngx_rbtree_node_t *temp, ngx_rbtree_node_t *node,
    ngx_rbtree_node_t *sentinel)
{
    ngx_agent_live_t    *live;
    ngx_rbtree_node_t  **p;

    live = ngx_rbtree_data(node, ngx_agent_live_t, node);

    for ( ;; ) {

        if (node->key != temp->key) {
            p = (node->key < temp->key) ? &temp->left : &temp->right;

        } else {
            p = ngx_agent_live_cmp(temp, &live->step.id) > 0 ? &temp->left
                                                             : &temp->right;
        }

        if (*p == sentinel) {
            break;
        }

        temp = *p;
    }

    *p = node;
    node->parent = temp;
    node->left = sentinel;
    node->right = sentinel;
    ngx_rbt_red(node);
}


/* the random half of the id: the other one is much the same for all */

static ngx_rbtree_key_t
ngx_agent_live_key(const ngx_agent_id_t *id)
{
    ngx_rbtree_key_t  key;

    ngx_memcpy(&key, id->bytes + 16 - sizeof(key), sizeof(key));

    return key;
}


static int
ngx_agent_live_cmp(ngx_rbtree_node_t *node, const ngx_agent_id_t *id)
{
    ngx_agent_live_t  *live;

    live = ngx_rbtree_data(node, ngx_agent_live_t, node);

    return ngx_memcmp(live->step.id.bytes, id->bytes, 16);
}


/* nothing may be waiting for it: a worker that quits is held by its runs */

void
ngx_agent_live_renew(ngx_log_t *log)
{
    ngx_agent_store_call_t  *call;

    if (ngx_agent_live_renewing) {
        return;
    }

    if (ngx_agent_nlives == 0) {
        ngx_agent_tick_orphans();
        return;
    }

    call = ngx_agent_store_call_create(4096, log, ngx_agent_live_renewed);
    if (call == NULL) {
        return;
    }

    if (ngx_agent_live_leases(call) != NGX_OK
        || ngx_agent_store_renew(call) != NGX_AGAIN)
    {
        ngx_destroy_pool(call->pool);
        return;
    }

    ngx_agent_live_renewing = call;
}


static ngx_int_t
ngx_agent_live_leases(ngx_agent_store_call_t *call)
{
    ngx_queue_t        *q;
    ngx_agent_live_t   *live;
    ngx_agent_lease_t  *lease;

    call->list = ngx_array_create(call->pool, ngx_agent_nlives,
                                  sizeof(ngx_agent_lease_t));
    if (call->list == NULL) {
        return NGX_ERROR;
    }

    for (q = ngx_queue_head(&ngx_agent_lives);
         q != ngx_queue_sentinel(&ngx_agent_lives);
         q = ngx_queue_next(q))
    {
        live = ngx_queue_data(q, ngx_agent_live_t, queue);

        if (live->state == NGX_AGENT_LIVE_LEAVES
            || live->state == NGX_AGENT_LIVE_DROPPED)
        {
            continue;
        }

        lease = ngx_array_push(call->list);
        if (lease == NULL) {
            return NGX_ERROR;
        }

        lease->task_id = live->step.task_id;
        lease->step_id = live->step.id;
        lease->tenant = live->tenant;
        lease->seq = live->step.seq;
        lease->attempt = live->step.attempt;
        lease->lost = 0;
    }

    return call->list->nelts ? NGX_OK : NGX_DECLINED;
}


static void
ngx_agent_live_renewed(ngx_agent_store_call_t *call)
{
    ngx_uint_t          i;
    ngx_agent_live_t   *live;
    ngx_agent_lease_t  *lease;

    ngx_agent_live_renewing = NULL;
    lease = call->list->elts;

    if (call->rc == NGX_OK) {
        ngx_agent_tick_orphans();
    }

    for (i = 0; i < call->list->nelts; i++) {

        if (!lease[i].lost) {
            continue;
        }

        live = ngx_agent_step_find(&lease[i].step_id);

        /* it may have moved on by itself since it was asked about */

        if (live && live->step.attempt == lease[i].attempt
            && (live->state == NGX_AGENT_LIVE_READY
                || live->state == NGX_AGENT_LIVE_RUNS
                || live->state == NGX_AGENT_LIVE_PAUSES))
        {
            ngx_log_error(NGX_LOG_WARN, live->log, 0,
                          "agent step: attempt %ui has lost its lease, it is "
                          "given up", live->step.attempt);

            ngx_agent_stat_add(FENCED, 1);
            ngx_agent_step_drop(live);
        }
    }

    ngx_destroy_pool(call->pool);
}
