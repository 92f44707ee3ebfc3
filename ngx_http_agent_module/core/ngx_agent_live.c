
/*
 * The steps this worker runs: a table by step id, their watchers, and the
 * renewal of their leases.  Knows nothing of how a step is run.
 */

#include "ngx_agent_step.h"
#include <ngx_event.h>


#define NGX_AGENT_LIVE_TICK   1000     /* ms */

/* ticks: a third of the lease, so that two renewals may fail */
#define NGX_AGENT_LIVE_RENEW  10


static ngx_int_t ngx_agent_live_dup(ngx_agent_live_t *live, ngx_str_t *dst,
    ngx_str_t *src);
static ngx_int_t ngx_agent_live_copy(ngx_agent_live_t *live,
    ngx_agent_post_t *post);
static void ngx_agent_live_insert(ngx_rbtree_node_t *temp,
    ngx_rbtree_node_t *node, ngx_rbtree_node_t *sentinel);
static ngx_rbtree_key_t ngx_agent_live_key(const ngx_agent_id_t *id);
static int ngx_agent_live_cmp(ngx_rbtree_node_t *node,
    const ngx_agent_id_t *id);
static void ngx_agent_live_tick(ngx_event_t *ev);
static void ngx_agent_live_renew(ngx_log_t *log);


static ngx_queue_t        ngx_agent_lives;
static ngx_uint_t         ngx_agent_nlives;
static ngx_rbtree_t       ngx_agent_live_tree;
static ngx_rbtree_node_t  ngx_agent_live_sentinel;
static ngx_event_t        ngx_agent_live_timer;
static ngx_uint_t         ngx_agent_live_ticks;


ngx_int_t
ngx_agent_live_init(ngx_cycle_t *cycle)
{
    ngx_queue_init(&ngx_agent_lives);
    ngx_rbtree_init(&ngx_agent_live_tree, &ngx_agent_live_sentinel,
                    ngx_agent_live_insert);
    ngx_agent_nlives = 0;

    ngx_memzero(&ngx_agent_live_timer, sizeof(ngx_event_t));
    ngx_agent_live_timer.handler = ngx_agent_live_tick;
    ngx_agent_live_timer.log = cycle->log;

    /* debug builds log the "connection" of every timer */
    ngx_agent_live_timer.data = &ngx_agent_live_timer;

    /* the runs hold a worker that quits, not this timer */
    ngx_agent_live_timer.cancelable = 1;
    ngx_add_timer(&ngx_agent_live_timer, NGX_AGENT_LIVE_TICK);

    return NGX_OK;
}


/* what still runs when a worker ends has its lease lapse */

void
ngx_agent_live_exit(ngx_cycle_t *cycle)
{
    ngx_queue_t       *q;
    ngx_agent_live_t  *live;

    if (ngx_agent_live_timer.timer_set) {
        ngx_del_timer(&ngx_agent_live_timer);
    }

    if (ngx_agent_lives.next == NULL) {
        return;
    }

    while (!ngx_queue_empty(&ngx_agent_lives)) {
        q = ngx_queue_head(&ngx_agent_lives);
        live = ngx_queue_data(q, ngx_agent_live_t, queue);
        ngx_agent_live_free(live);
    }
}


ngx_agent_live_t *
ngx_agent_live_create(ngx_agent_post_t *post)
{
    ngx_pool_t        *pool;
    ngx_agent_live_t  *live;

    pool = ngx_create_pool(1536, ngx_cycle->log);
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
    live->task.id = post->task.id;
    live->step.task_id = post->task.id;
    live->step.id = post->step.id;
    ngx_queue_init(&live->watchers);

    live->event.data = live;
    live->event.log = live->log;

    if (ngx_agent_live_copy(live, post) != NGX_OK) {
        ngx_destroy_pool(pool);
        return NULL;
    }

    return live;
}


static ngx_int_t
ngx_agent_live_copy(ngx_agent_live_t *live, ngx_agent_post_t *post)
{
    if (ngx_agent_live_dup(live, &live->tenant, &post->tenant) != NGX_OK
        || ngx_agent_live_dup(live, &live->step.input, &post->step.input)
           != NGX_OK
        || ngx_agent_live_dup(live, &live->step.additional_input,
                              &post->step.additional_input)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_agent_live_dup(ngx_agent_live_t *live, ngx_str_t *dst, ngx_str_t *src)
{
    if (src->data == NULL) {
        ngx_str_null(dst);
        return NGX_OK;
    }

    dst->len = src->len;
    dst->data = ngx_pnalloc(live->pool, src->len ? src->len : 1);
    if (dst->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(dst->data, src->data, src->len);

    return NGX_OK;
}


void
ngx_agent_live_add(ngx_agent_live_t *live)
{
    live->node.key = ngx_agent_live_key(&live->step.id);
    ngx_rbtree_insert(&ngx_agent_live_tree, &live->node);
    ngx_queue_insert_tail(&ngx_agent_lives, &live->queue);
    ngx_agent_nlives++;
}


void
ngx_agent_live_free(ngx_agent_live_t *live)
{
    ngx_agent_store_detach(&live->call);

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

    ngx_destroy_pool(live->pool);
}


void
ngx_agent_live_publish(ngx_agent_live_t *live)
{
    ngx_queue_t        *q;
    ngx_agent_watch_t  *w;

    while (!ngx_queue_empty(&live->watchers)) {
        q = ngx_queue_head(&live->watchers);
        w = ngx_queue_data(q, ngx_agent_watch_t, queue);

        ngx_agent_step_unwatch(w);
        w->handler(w, live);
    }

    ngx_agent_live_free(live);
}


void
ngx_agent_step_watch(ngx_agent_live_t *live, ngx_agent_watch_t *w)
{
    ngx_queue_insert_tail(&live->watchers, &w->queue);
    w->active = 1;
}


void
ngx_agent_step_unwatch(ngx_agent_watch_t *w)
{
    if (w->active) {
        ngx_queue_remove(&w->queue);
        w->active = 0;
    }
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


static void
ngx_agent_live_tick(ngx_event_t *ev)
{
    ngx_add_timer(ev, NGX_AGENT_LIVE_TICK);

    ngx_agent_store_replan();

    if (++ngx_agent_live_ticks % NGX_AGENT_LIVE_RENEW == 0) {
        ngx_agent_store_sweep();
        ngx_agent_live_renew(ev->log);
    }
}


static void
ngx_agent_live_renew(ngx_log_t *log)
{
    ngx_queue_t        *q;
    ngx_pool_t         *pool;
    ngx_array_t         steps;
    ngx_agent_live_t   *live;
    ngx_agent_step_t  **step;

    if (ngx_agent_nlives == 0) {
        return;
    }

    pool = ngx_create_pool(4096, log);
    if (pool == NULL) {
        return;
    }

    if (ngx_array_init(&steps, pool, ngx_agent_nlives,
                       sizeof(ngx_agent_step_t *))
        != NGX_OK)
    {
        ngx_destroy_pool(pool);
        return;
    }

    for (q = ngx_queue_head(&ngx_agent_lives);
         q != ngx_queue_sentinel(&ngx_agent_lives);
         q = ngx_queue_next(q))
    {
        live = ngx_queue_data(q, ngx_agent_live_t, queue);

        step = ngx_array_push(&steps);
        if (step == NULL) {
            break;
        }

        *step = &live->step;
    }

    ngx_agent_store_renew(&steps);
    ngx_destroy_pool(pool);
}
