
/*
 * The cache of API keys: a tree by hash, and queues by last use, in a slab
 * zone under its mutex.  What is done with the mutex in hand is short and
 * waits for nothing.
 *
 * Times of several workers are no order: each has the time of its own last
 * event.  Whether something was told before something else is therefore
 * counted; times only say how old an entry is.
 */

#include "ngx_agent_key_cache.h"
#include <openssl/crypto.h>


/* entries given up for one new one */
#define NGX_AGENT_KEY_CACHE_EVICT  64


/* with no tenant and no agents it fits a slot of 128 bytes */

typedef struct {
    ngx_rbtree_node_t          node;         /* key: of the hash; data: flags */
    ngx_queue_t                queue;        /* the last used one first */
    int64_t                    expires;
    ngx_msec_t                 sent;         /* the lookup */
    u_char                     hash[NGX_AGENT_KEY_HASH];
    ngx_agent_id_t             id;
    uint32_t                   era;
    uint16_t                   tenant_len;
    uint16_t                   agents_len;
    u_char                     data[1];      /* tenant, agents */
} ngx_agent_key_node_t;

#define NGX_AGENT_KEY_KNOWN      0x01
#define NGX_AGENT_KEY_LIMITED    0x02        /* to some agents */
#define NGX_AGENT_KEY_READ_ONLY  0x04
#define NGX_AGENT_KEY_COVERED    0x08        /* looks find it */


typedef struct {
    ngx_rbtree_t               rbtree;
    ngx_rbtree_node_t          sentinel;
    ngx_queue_t                known;
    ngx_queue_t                unknown;

    ngx_uint_t                 busy;         /* somebody is in here */
    uint32_t                   place;
    uint32_t                   era;          /* entries of another are none */
    ngx_uint_t                 changes;      /* times that some were told */

    int64_t                    cursor;
    time_t                     ended;        /* the last look that did well */
    ngx_msec_t                 began;        /* ... began then */
    ngx_msec_t                 asked;        /* somebody began to look */
    unsigned                   looks:1;      /* "began" is set */
    unsigned                   asks:1;       /* "asked" is set */

    ngx_msec_t                 second;       /* began then */
    ngx_uint_t                 tried;        /* lookups in it */
} ngx_agent_key_zone_t;


static ngx_int_t ngx_agent_key_zone_init(ngx_shm_zone_t *zone, void *data);
static ngx_int_t ngx_agent_key_zone_create(ngx_slab_pool_t *pool,
    uint32_t place);
static ngx_uint_t ngx_agent_key_enter(void);
static void ngx_agent_key_leave(void);
static void ngx_agent_key_clear(void);
static void ngx_agent_key_insert(ngx_rbtree_node_t *temp,
    ngx_rbtree_node_t *node, ngx_rbtree_node_t *sentinel);
static ngx_rbtree_key_t ngx_agent_key_of(const u_char *hash);
static ngx_agent_key_node_t *ngx_agent_key_lookup(const u_char *hash);
static ngx_uint_t ngx_agent_key_is_good(ngx_agent_key_node_t *kn);
static ngx_int_t ngx_agent_key_copy(ngx_pool_t *pool,
    ngx_agent_key_node_t *kn, ngx_agent_key_t *key);
static void ngx_agent_key_fill(ngx_agent_key_node_t *kn,
    ngx_agent_key_t *key);
static ngx_agent_key_node_t *ngx_agent_key_alloc(size_t size,
    ngx_uint_t known);
static ngx_queue_t *ngx_agent_key_oldest(ngx_uint_t known);
static void ngx_agent_key_free(ngx_agent_key_node_t *kn);
static void ngx_agent_key_drop(const u_char *hash);


static ngx_slab_pool_t       *ngx_agent_key_pool;
static uint32_t               ngx_agent_key_place;

/* between enter and leave */
static ngx_agent_key_zone_t  *ngx_agent_keys;


ngx_int_t
ngx_agent_key_cache_zone(ngx_conf_t *cf, ngx_str_t *name, size_t size,
    void *tag)
{
    ngx_shm_zone_t  *zone;

    zone = ngx_shared_memory_add(cf, name, size, tag);
    if (zone == NULL) {
        return NGX_ERROR;
    }

    zone->init = ngx_agent_key_zone_init;

    return NGX_OK;
}


static ngx_int_t
ngx_agent_key_zone_init(ngx_shm_zone_t *zone, void *data)
{
    ngx_int_t         rc;
    ngx_slab_pool_t  *pool;

    pool = (ngx_slab_pool_t *) zone->shm.addr;

    if (data || zone->shm.exists) {
        /* a reload: what is known stays known */
        zone->data = pool;
        return NGX_OK;
    }

    zone->data = pool;

    ngx_shmtx_lock(&pool->mutex);
    rc = ngx_agent_key_zone_create(pool, 0);
    ngx_shmtx_unlock(&pool->mutex);

    return rc;
}


/* All of it, from nothing; "busy" is the last to go. */

static ngx_int_t
ngx_agent_key_zone_create(ngx_slab_pool_t *pool, uint32_t place)
{
    ngx_agent_key_zone_t  *z;

    z = ngx_slab_alloc_locked(pool, sizeof(ngx_agent_key_zone_t));
    if (z == NULL) {
        return NGX_ERROR;
    }

    z->busy = 1;
    pool->data = z;

    ngx_rbtree_init(&z->rbtree, &z->sentinel, ngx_agent_key_insert);
    ngx_queue_init(&z->known);
    ngx_queue_init(&z->unknown);

    z->place = place;
    z->era = 0;
    z->changes = 0;
    z->cursor = 0;
    z->ended = 0;
    z->began = 0;
    z->asked = 0;
    z->looks = 0;
    z->asks = 0;
    z->second = 0;
    z->tried = 0;

    /* a full zone gives up the oldest; that is nothing to log */
    pool->log_nomem = 0;

    ngx_memory_barrier();
    z->busy = 0;

    return NGX_OK;
}


ngx_uint_t
ngx_agent_key_cache_init(ngx_cycle_t *cycle, uint32_t place)
{
    ngx_uint_t             i;
    ngx_list_part_t       *part;
    ngx_shm_zone_t        *zone;
    ngx_agent_key_zone_t  *z;

    ngx_agent_key_pool = NULL;

    for (part = &cycle->shared_memory.part; part; part = part->next) {
        zone = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (zone[i].init == ngx_agent_key_zone_init) {
                ngx_agent_key_pool = zone[i].data;
            }
        }
    }

    if (ngx_agent_key_pool == NULL) {
        return 0;
    }

    ngx_shmtx_lock(&ngx_agent_key_pool->mutex);

    z = ngx_agent_key_pool->data;
    ngx_agent_key_place = place;

    if (z->place != place) {
        z->place = place;
        z->era++;
        z->changes++;
        z->cursor = 0;
        z->looks = 0;
    }

    ngx_shmtx_unlock(&ngx_agent_key_pool->mutex);

    return 1;
}


/*
 * 0: there is no cache.  A worker that was killed in here has left a tree
 * that nobody may walk: the master takes the mutex from it, and "busy" tells
 * the next one, who begins anew.
 */

static ngx_uint_t
ngx_agent_key_enter(void)
{
    uint32_t               place;
    ngx_agent_key_zone_t  *z;

    if (ngx_agent_key_pool == NULL) {
        return 0;
    }

    ngx_shmtx_lock(&ngx_agent_key_pool->mutex);

    z = ngx_agent_key_pool->data;

    if (z->busy) {
        place = z->place;

        ngx_slab_init(ngx_agent_key_pool);

        /* there was room for it when there was nothing else */
        (void) ngx_agent_key_zone_create(ngx_agent_key_pool, place);

        z = ngx_agent_key_pool->data;
    }

    if (z->place != ngx_agent_key_place) {
        ngx_shmtx_unlock(&ngx_agent_key_pool->mutex);
        return 0;
    }

    z->busy = 1;
    ngx_memory_barrier();

    ngx_agent_keys = z;

    return 1;
}


static void
ngx_agent_key_leave(void)
{
    ngx_memory_barrier();
    ngx_agent_keys->busy = 0;

    ngx_shmtx_unlock(&ngx_agent_key_pool->mutex);
}


/* entries of another era go when their place is needed */

static void
ngx_agent_key_clear(void)
{
    ngx_agent_keys->era++;
    ngx_agent_keys->changes++;
}


static ngx_rbtree_key_t
ngx_agent_key_of(const u_char *hash)
{
    ngx_rbtree_key_t  key;

    ngx_memcpy(&key, hash, sizeof(key));

    return key;
}


/* hashes with the same first bytes go by the rest of them */

static void
ngx_agent_key_insert(ngx_rbtree_node_t *temp, ngx_rbtree_node_t *node,
    ngx_rbtree_node_t *sentinel)
{
    ngx_rbtree_node_t    **p;
    ngx_agent_key_node_t  *kn, *knt;

    kn = ngx_rbtree_data(node, ngx_agent_key_node_t, node);

    for ( ;; ) {

        if (node->key != temp->key) {
            p = (node->key < temp->key) ? &temp->left : &temp->right;

        } else {
            knt = ngx_rbtree_data(temp, ngx_agent_key_node_t, node);
            p = (ngx_memcmp(kn->hash, knt->hash, NGX_AGENT_KEY_HASH) < 0)
                    ? &temp->left : &temp->right;
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


/*
 * How long it takes tells something of a hash's first bytes at most, and
 * nobody can choose a key by the hash it is to have.
 */

static ngx_agent_key_node_t *
ngx_agent_key_lookup(const u_char *hash)
{
    ngx_rbtree_key_t       key;
    ngx_rbtree_node_t     *node, *sentinel;
    ngx_agent_key_node_t  *kn;

    key = ngx_agent_key_of(hash);
    node = ngx_agent_keys->rbtree.root;
    sentinel = ngx_agent_keys->rbtree.sentinel;

    while (node != sentinel) {

        if (key != node->key) {
            node = (key < node->key) ? node->left : node->right;
            continue;
        }

        kn = ngx_rbtree_data(node, ngx_agent_key_node_t, node);

        if (CRYPTO_memcmp(hash, kn->hash, NGX_AGENT_KEY_HASH) == 0) {
            return kn;
        }

        node = (ngx_memcmp(hash, kn->hash, NGX_AGENT_KEY_HASH) < 0)
                   ? node->left : node->right;
    }

    return NULL;
}


/*
 * Signed: a lookup or a look of another worker may be of what is the future
 * here.  Keys that are made are not told: who was unknown is asked for again.
 */

static ngx_uint_t
ngx_agent_key_is_good(ngx_agent_key_node_t *kn)
{
    if ((ngx_msec_int_t) (ngx_current_msec - kn->sent)
        < NGX_AGENT_KEY_CACHE_GOOD)
    {
        return 1;
    }

    return (kn->node.data & NGX_AGENT_KEY_KNOWN)
           && (kn->node.data & NGX_AGENT_KEY_COVERED)
           && ngx_agent_keys->looks
           && (ngx_msec_int_t) (ngx_current_msec - ngx_agent_keys->began)
              < NGX_AGENT_KEY_CACHE_GOOD;
}


ngx_int_t
ngx_agent_key_cache_find(ngx_pool_t *pool, ngx_agent_key_t *key,
    ngx_agent_key_ask_t *ask)
{
    ngx_int_t              rc;
    ngx_uint_t             known;
    ngx_queue_t           *queue;
    ngx_agent_key_node_t  *kn;

    ngx_memzero(ask, sizeof(ngx_agent_key_ask_t));
    ask->sent = ngx_current_msec;

    if (!ngx_agent_key_enter()) {
        return NGX_AGAIN;
    }

    rc = NGX_AGAIN;
    ask->changes = ngx_agent_keys->changes;

    kn = ngx_agent_key_lookup(key->hash);

    if (kn && kn->era == ngx_agent_keys->era) {

        known = kn->node.data & NGX_AGENT_KEY_KNOWN;
        queue = known ? &ngx_agent_keys->known : &ngx_agent_keys->unknown;

        ngx_queue_remove(&kn->queue);
        ngx_queue_insert_head(queue, &kn->queue);

        if (ngx_agent_key_is_good(kn)) {
            rc = known ? ngx_agent_key_copy(pool, kn, key) : NGX_DECLINED;

        } else {
            ask->known = known ? 1 : 0;
        }
    }

    ngx_agent_key_leave();

    return rc;
}


static ngx_int_t
ngx_agent_key_copy(ngx_pool_t *pool, ngx_agent_key_node_t *kn,
    ngx_agent_key_t *key)
{
    u_char  *p;

    p = ngx_pnalloc(pool, kn->tenant_len + kn->agents_len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, kn->data, kn->tenant_len + kn->agents_len);

    key->id = kn->id;
    key->expires = kn->expires;
    key->read_only = (kn->node.data & NGX_AGENT_KEY_READ_ONLY) ? 1 : 0;
    key->tenant.data = p;
    key->tenant.len = kn->tenant_len;
    key->agents.data = (kn->node.data & NGX_AGENT_KEY_LIMITED)
                           ? p + kn->tenant_len : NULL;
    key->agents.len = kn->agents_len;

    return NGX_OK;
}


void
ngx_agent_key_cache_put(ngx_agent_key_t *key, ngx_uint_t known,
    ngx_agent_key_ask_t *ask)
{
    size_t                 size;
    ngx_agent_key_node_t  *kn;

    size = offsetof(ngx_agent_key_node_t, data);

    if (known) {
        if (key->tenant.len > NGX_AGENT_KEY_CACHE_TEXT
            || key->agents.len > NGX_AGENT_KEY_CACHE_TEXT)
        {
            /* it is asked for each time */
            return;
        }

        size += key->tenant.len + key->agents.len;
    }

    if (!ngx_agent_key_enter()) {
        return;
    }

    ngx_agent_key_drop(key->hash);
    kn = ngx_agent_key_alloc(size, known);

    if (kn) {
        kn->node.key = ngx_agent_key_of(key->hash);
        kn->node.data = 0;
        kn->sent = ask->sent;
        kn->era = ngx_agent_keys->era;
        ngx_memcpy(kn->hash, key->hash, NGX_AGENT_KEY_HASH);

        if (known) {
            ngx_agent_key_fill(kn, key);

            /*
             * What was told while the answer was on its way may be this very
             * key, and no look will tell it again.
             */

            if (ask->changes == ngx_agent_keys->changes) {
                kn->node.data |= NGX_AGENT_KEY_COVERED;
            }
        }

        /* not where another build of the module had it */
        ngx_agent_keys->rbtree.insert = ngx_agent_key_insert;

        ngx_rbtree_insert(&ngx_agent_keys->rbtree, &kn->node);
        ngx_queue_insert_head(known ? &ngx_agent_keys->known
                                    : &ngx_agent_keys->unknown, &kn->queue);
    }

    ngx_agent_key_leave();
}


static void
ngx_agent_key_fill(ngx_agent_key_node_t *kn, ngx_agent_key_t *key)
{
    kn->node.data |= NGX_AGENT_KEY_KNOWN;

    if (key->agents.data) {
        kn->node.data |= NGX_AGENT_KEY_LIMITED;
    }

    if (key->read_only) {
        kn->node.data |= NGX_AGENT_KEY_READ_ONLY;
    }

    kn->id = key->id;
    kn->expires = key->expires;
    kn->tenant_len = (uint16_t) key->tenant.len;
    kn->agents_len = (uint16_t) key->agents.len;

    if (key->tenant.len) {
        ngx_memcpy(kn->data, key->tenant.data, key->tenant.len);
    }

    if (key->agents.len) {
        ngx_memcpy(kn->data + key->tenant.len, key->agents.data,
                   key->agents.len);
    }
}


static ngx_agent_key_node_t *
ngx_agent_key_alloc(size_t size, ngx_uint_t known)
{
    ngx_uint_t             i;
    ngx_queue_t           *q;
    ngx_agent_key_node_t  *kn;

    for (i = 0; /* void */ ; i++) {

        kn = ngx_slab_alloc_locked(ngx_agent_key_pool, size);

        if (kn || i == NGX_AGENT_KEY_CACHE_EVICT) {
            return kn;
        }

        q = ngx_agent_key_oldest(known);
        if (q == NULL) {
            return NULL;
        }

        ngx_agent_key_free(ngx_queue_data(q, ngx_agent_key_node_t, queue));
    }
}


/* whose place may be taken: of a known key by a known key only */

static ngx_queue_t *
ngx_agent_key_oldest(ngx_uint_t known)
{
    ngx_queue_t           *q;
    ngx_agent_key_node_t  *kn;

    if (!ngx_queue_empty(&ngx_agent_keys->unknown)) {
        return ngx_queue_last(&ngx_agent_keys->unknown);
    }

    if (ngx_queue_empty(&ngx_agent_keys->known)) {
        return NULL;
    }

    q = ngx_queue_last(&ngx_agent_keys->known);
    kn = ngx_queue_data(q, ngx_agent_key_node_t, queue);

    return (known || kn->era != ngx_agent_keys->era) ? q : NULL;
}


static void
ngx_agent_key_free(ngx_agent_key_node_t *kn)
{
    ngx_queue_remove(&kn->queue);
    ngx_rbtree_delete(&ngx_agent_keys->rbtree, &kn->node);
    ngx_slab_free_locked(ngx_agent_key_pool, kn);
}


static void
ngx_agent_key_drop(const u_char *hash)
{
    ngx_agent_key_node_t  *kn;

    kn = ngx_agent_key_lookup(hash);

    if (kn) {
        ngx_agent_key_free(kn);
    }
}


void
ngx_agent_key_cache_remove(const u_char *hash)
{
    if (!ngx_agent_key_enter()) {
        return;
    }

    if (hash) {
        ngx_agent_keys->changes++;
        ngx_agent_key_drop(hash);

    } else {
        ngx_agent_key_clear();
    }

    ngx_agent_key_leave();
}


ngx_uint_t
ngx_agent_key_cache_may_look(int64_t *cursor)
{
    time_t      gap;
    ngx_uint_t  may;

    if (!ngx_agent_key_enter()) {
        return 0;
    }

    may = (!ngx_agent_keys->asks
           || (ngx_msec_int_t) (ngx_current_msec - ngx_agent_keys->asked)
              >= NGX_AGENT_KEY_CACHE_LOOK);

    if (may) {
        ngx_agent_keys->asked = ngx_current_msec;
        ngx_agent_keys->asks = 1;

        /* changes are not kept for ever */
        gap = ngx_time() - ngx_agent_keys->ended;

        *cursor = (gap < 0 || gap > NGX_AGENT_KEY_CACHE_GAP)
                      ? 0 : ngx_agent_keys->cursor;
    }

    ngx_agent_key_leave();

    return may;
}


void
ngx_agent_key_cache_looked(int64_t from, int64_t to, ngx_msec_t began,
    const u_char *hashes, ngx_uint_t n)
{
    ngx_uint_t  i;

    /* one by one: others need the mutex meanwhile */

    for (i = 0; hashes && i < n; i++) {
        ngx_agent_key_cache_remove(hashes + i * NGX_AGENT_KEY_HASH);
    }

    if (!ngx_agent_key_enter()) {
        return;
    }

    /* nothing was told, or too much, or by a database that has been set back */

    if (from == 0 || hashes == NULL || to < from) {
        ngx_agent_key_clear();
    }

    /* of two that overlap the later one counts */

    if (!ngx_agent_keys->looks
        || (ngx_msec_int_t) (began - ngx_agent_keys->began) > 0)
    {
        ngx_agent_keys->looks = 1;
        ngx_agent_keys->began = began;
        ngx_agent_keys->cursor = to;
        ngx_agent_keys->ended = ngx_time();
    }

    ngx_agent_key_leave();
}


ngx_uint_t
ngx_agent_key_cache_take(ngx_agent_key_ask_t *ask)
{
    if (ask->known || !ngx_agent_key_enter()) {
        return 1;
    }

    /* signed: another worker's clock may be a moment ahead */

    if ((ngx_msec_int_t) (ngx_current_msec - ngx_agent_keys->second) >= 1000) {
        ngx_agent_keys->second = ngx_current_msec;
        ngx_agent_keys->tried = 0;
    }

    if (ngx_agent_keys->tried < NGX_AGENT_KEY_CACHE_UNKNOWN) {
        ngx_agent_keys->tried++;
        ask->second = ngx_agent_keys->second;
        ask->counted = 1;
    }

    ngx_agent_key_leave();

    return ask->counted;
}


void
ngx_agent_key_cache_give(ngx_agent_key_ask_t *ask)
{
    if (!ask->counted || !ngx_agent_key_enter()) {
        return;
    }

    if (ngx_agent_keys->second == ask->second) {
        ngx_agent_keys->tried--;
    }

    ask->counted = 0;

    ngx_agent_key_leave();
}
