
/*
 * The cache of API keys: for how long an entry is good, what a look for
 * changes covers and what it does not, eviction, the budget of unknown keys,
 * a worker that dies with the mutex in hand.
 */

#include "stub.h"

/* the stand-in has a tree of its own, for timers: here is a plain one */
#define ngx_rbtree_insert  cache_insert
#define ngx_rbtree_delete  cache_delete

void cache_insert(ngx_rbtree_t *tree, ngx_rbtree_node_t *node);
void cache_delete(ngx_rbtree_t *tree, ngx_rbtree_node_t *node);

#include "../../ngx_http_agent_module/base/ngx_agent_key_cache.c"


#define ROOM  200                            /* entries that the zone holds */

static ngx_cycle_t       cycle;
static ngx_shm_zone_t    zone;
static ngx_slab_pool_t   slab;
static void             *blocks[ROOM + 1];   /* the zone's own one as well */
static ngx_uint_t        used;
static ngx_uint_t        locked;
static ngx_pool_t       *pool;
static ngx_time_t        clock_time;

volatile ngx_time_t     *ngx_cached_time = &clock_time;


ngx_shm_zone_t *
ngx_shared_memory_add(ngx_conf_t *cf, ngx_str_t *name, size_t size, void *tag)
{
    return &zone;
}


void *
ngx_slab_alloc_locked(ngx_slab_pool_t *p, size_t size)
{
    if (!locked || used == ROOM + 1 || size > 2000) {
        return NULL;
    }

    return blocks[used++] = malloc(size);
}


void
ngx_slab_free_locked(ngx_slab_pool_t *p, void *data)
{
    ngx_uint_t  i;

    for (i = 0; blocks[i] != data; i++) { /* void */ }

    blocks[i] = blocks[--used];
    free(data);
}


void
ngx_slab_init(ngx_slab_pool_t *p)
{
    while (used) {
        free(blocks[--used]);
    }

    p->log_nomem = 1;
}


void
ngx_shmtx_lock(ngx_shmtx_t *mtx)
{
    locked++;
}


void
ngx_shmtx_unlock(ngx_shmtx_t *mtx)
{
    locked--;
}


void
cache_insert(ngx_rbtree_t *tree, ngx_rbtree_node_t *node)
{
    if (tree->root == tree->sentinel) {
        node->parent = NULL;
        node->left = tree->sentinel;
        node->right = tree->sentinel;
        tree->root = node;
        return;
    }

    tree->insert(tree->root, node, tree->sentinel);
}


static void
cache_replace(ngx_rbtree_t *tree, ngx_rbtree_node_t *node,
    ngx_rbtree_node_t *by)
{
    if (node->parent == NULL) {
        tree->root = by;

    } else if (node->parent->left == node) {
        node->parent->left = by;

    } else {
        node->parent->right = by;
    }

    if (by != tree->sentinel) {
        by->parent = node->parent;
    }
}


void
cache_delete(ngx_rbtree_t *tree, ngx_rbtree_node_t *node)
{
    ngx_rbtree_node_t  *next;

    if (node->left == tree->sentinel) {
        cache_replace(tree, node, node->right);
        return;
    }

    if (node->right == tree->sentinel) {
        cache_replace(tree, node, node->left);
        return;
    }

    for (next = node->right; next->left != tree->sentinel; next = next->left) {
        /* void */
    }

    if (next->parent != node) {
        cache_replace(tree, next, next->right);
        next->right = node->right;
        next->right->parent = next;
    }

    cache_replace(tree, node, next);
    next->left = node->left;
    next->left->parent = next;
}


static ngx_agent_key_t *
key(ngx_uint_t n)
{
    static ngx_agent_key_t  k;

    memset(&k, 0, sizeof(k));
    k.hash[0] = 7;                           /* all begin the same way */
    k.hash[30] = (u_char) (n >> 8);
    k.hash[31] = (u_char) n;
    k.id.bytes[0] = (u_char) n;
    k.tenant = S("acme");
    k.agents = S("a,b");

    return &k;
}


static ngx_int_t
ask(ngx_uint_t n, ngx_agent_key_ask_t *a)
{
    ngx_agent_key_t  k;

    k = *key(n);
    k.tenant = S("?");

    return ngx_agent_key_cache_find(pool, &k, a);
}


static ngx_int_t
find(ngx_uint_t n)
{
    ngx_agent_key_ask_t  a;

    return ask(n, &a);
}


/* asked for and answered in this moment */

static void
put_key(ngx_agent_key_t *k, ngx_uint_t known)
{
    ngx_agent_key_t      unasked;
    ngx_agent_key_ask_t  a;

    unasked = *k;
    (void) ngx_agent_key_cache_find(pool, &unasked, &a);
    ngx_agent_key_cache_put(k, known, &a);
}


static void
put(ngx_uint_t n, ngx_uint_t known)
{
    put_key(key(n), known);
}


/* looks: one that finds nothing, and one that finds n changes */

static void
look_from(int64_t from, int64_t to, const u_char *hashes, ngx_uint_t n)
{
    ngx_agent_key_cache_looked(from, to, ngx_current_msec, hashes, n);
}


static void
look(void)
{
    static const u_char  none[1];

    look_from(7, 7, none, 0);
}


static ngx_uint_t
take(void)
{
    ngx_agent_key_ask_t  a;

    memset(&a, 0, sizeof(a));

    return ngx_agent_key_cache_take(&a);
}


static void
test_copy(void)
{
    ngx_agent_key_t      k;
    ngx_agent_key_ask_t  a;

    put(1, 1);
    k = *key(1);
    k.tenant = S("");
    k.agents = S("");

    ok(ngx_agent_key_cache_find(pool, &k, &a) == NGX_OK
       && same(k.tenant, "acme") && same(k.agents, "a,b")
       && k.id.bytes[0] == 1, "what was put in");

    k = *key(2);
    ngx_str_null(&k.agents);
    k.read_only = 1;
    k.expires = 12345;
    put_key(&k, 1);
    k.agents = S("x");
    k.read_only = 0;
    k.expires = 0;

    ok(ngx_agent_key_cache_find(pool, &k, &a) == NGX_OK
       && k.agents.data == NULL && k.read_only && k.expires == 12345,
       "for all agents, to read, till");

    k = *key(4);
    k.tenant = S("");
    k.agents = S("");
    put_key(&k, 1);
    k.agents.data = NULL;
    ok(ngx_agent_key_cache_find(pool, &k, &a) == NGX_OK
       && k.tenant.len == 0 && k.agents.data && k.agents.len == 0,
       "of the default tenant, for no agent at all");

    ok(find(3) == NGX_AGAIN, "one that was not");
}


static void
test_age(void)
{
    put(10, 1);
    put(11, 0);
    ok(find(11) == NGX_DECLINED, "one that nobody knows");

    ngx_current_msec += NGX_AGENT_KEY_CACHE_GOOD;
    ok(find(10) == NGX_AGAIN && find(11) == NGX_AGAIN,
       "without looks they get old");

    put(10, 1);
    look_from(0, 7, (u_char *) "", 0);
    ok(find(10) == NGX_AGAIN, "a look from nowhere tells nothing: all go");

    put(10, 1);
    put(11, 0);
    ngx_current_msec += 500;
    look();
    ngx_current_msec += 500;
    ok(find(10) == NGX_OK, "a look that found nothing keeps a key good");
    ok(find(11) == NGX_AGAIN, "but not one that nobody knew");

    ngx_current_msec += NGX_AGENT_KEY_CACHE_GOOD - 501;
    ok(find(10) == NGX_OK, "until the last moment");
    ngx_current_msec++;
    ok(find(10) == NGX_AGAIN, "and no longer");

    look();
    ok(find(10) == NGX_OK, "a late look makes it good again");
}


static void
test_changes(void)
{
    u_char               hashes[2 * NGX_AGENT_KEY_HASH];
    ngx_msec_t           sent;
    ngx_agent_key_ask_t  a;

    look();
    put(20, 1);
    put(21, 1);
    put(22, 1);
    memcpy(hashes, key(20)->hash, NGX_AGENT_KEY_HASH);
    memcpy(hashes + NGX_AGENT_KEY_HASH, key(99)->hash, NGX_AGENT_KEY_HASH);
    look_from(7, 8, hashes, 2);
    ok(find(20) == NGX_AGAIN && find(21) == NGX_OK, "a look tells of one");

    ngx_agent_key_cache_remove(key(21)->hash);
    ok(find(21) == NGX_AGAIN && find(22) == NGX_OK, "so does the news");

    /*
     * Revoked, and told, between the lookup and its answer: by a worker whose
     * time is behind, as it was busy.
     */
    sent = ngx_current_msec;
    (void) ask(23, &a);
    ngx_current_msec -= 10;
    ngx_agent_key_cache_remove(key(23)->hash);
    ngx_current_msec = sent + 10;
    ngx_agent_key_cache_put(key(23), 1, &a);
    ok(find(23) == NGX_OK, "an answer that was overtaken");
    ngx_current_msec = sent + 500;
    look();
    ngx_current_msec = sent + NGX_AGENT_KEY_CACHE_GOOD;
    ok(find(23) == NGX_AGAIN && find(22) == NGX_OK,
       "is good for its own time only");

    put(24, 1);
    (void) ask(25, &a);
    look_from(8, 9, NULL, 1000);
    ok(find(24) == NGX_AGAIN && find(22) == NGX_AGAIN, "too many: all go");

    put(24, 1);
    ok(find(24) == NGX_OK, "and come back");

    ngx_agent_key_cache_put(key(25), 1, &a);
    ngx_current_msec += 500;
    look();
    ngx_current_msec += 500;
    ok(find(24) == NGX_OK && find(25) == NGX_AGAIN,
       "but for a lookup from before");

    look_from(9, 8, hashes, 0);
    ok(find(24) == NGX_AGAIN, "a database that was set back: all go");
}


static void
test_may_look(void)
{
    int64_t  cursor;

    ngx_current_msec += 5000;
    look_from(8, 9, (u_char *) "", 0);
    ok(ngx_agent_key_cache_may_look(&cursor) == 1 && cursor == 9,
       "a look, from where the last one got to");
    ok(ngx_agent_key_cache_may_look(&cursor) == 0, "one at a time");
    ngx_current_msec += NGX_AGENT_KEY_CACHE_LOOK;
    ok(ngx_agent_key_cache_may_look(&cursor) == 1, "also when that one died");

    ngx_agent_key_cache_looked(8, 5, ngx_current_msec - 800, NULL, 0);
    ngx_current_msec += NGX_AGENT_KEY_CACHE_LOOK;
    ok(ngx_agent_key_cache_may_look(&cursor) == 1 && cursor == 9,
       "of two looks that overlap the later one counts");

    clock_time.sec += NGX_AGENT_KEY_CACHE_GAP + 1;
    ngx_current_msec += NGX_AGENT_KEY_CACHE_LOOK;
    ok(ngx_agent_key_cache_may_look(&cursor) == 1 && cursor == 0,
       "after a long time from nowhere");
}


static void
test_full(void)
{
    ngx_uint_t  i, n;

    look_from(0, 7, (u_char *) "", 0);

    for (i = 1000; i < 1000 + 2 * ROOM; i++) {
        put(i, 1);
        (void) find(1000);
    }

    for (n = 0, i = 1000; i < 1000 + 2 * ROOM; i++) {
        n += (find(i) == NGX_OK);
    }

    ok(n == ROOM, "as many as there is room for");
    ok(find(1000) == NGX_OK, "those that are used stay");
    ok(find(1000 + 2 * ROOM - 1) == NGX_OK && find(1001) == NGX_AGAIN,
       "the oldest go");
    put(3000, 0);
    ok(find(3000) == NGX_AGAIN && find(1000) == NGX_OK,
       "none goes for one that nobody knows");

    ngx_agent_key_cache_remove(key(1000)->hash);
    put(3000, 0);
    put(3001, 0);
    ok(find(3000) == NGX_AGAIN && find(3001) == NGX_DECLINED,
       "those share the place that is left");

    put(3002, 1);
    ok(find(3002) == NGX_OK && find(3001) == NGX_AGAIN
       && find(1000 + 2 * ROOM - 1) == NGX_OK,
       "and go first for one that is known");

    ngx_agent_key_cache_remove(NULL);
    put(3003, 0);
    ok(find(3003) == NGX_DECLINED, "what is no good any more makes room");
    ok(stub_logged == 0 && !slab.log_nomem, "without a word");
}


/* memory as it was when a worker was killed in the midst of it */

static void
test_killed(void)
{
    int64_t  cursor;

    put(1, 1);
    ngx_agent_key_enter();
    ngx_agent_keys->rbtree.root = (void *) 1;
    ngx_agent_keys->known.next = (void *) 1;
    locked--;

    ok(find(1) == NGX_AGAIN && used == 1 && !slab.log_nomem,
       "after a worker was killed in here it is empty");
    put(1, 1);
    ok(find(1) == NGX_OK && locked == 0, "and in use again");

    ok(ngx_agent_key_cache_may_look(&cursor) == 1 && cursor == 0,
       "looks begin anew");
}


static void
test_place(void)
{
    put(1, 1);
    ok(ngx_agent_key_cache_init(&cycle, 5) == 1 && find(1) == NGX_OK,
       "the same database after a reload: all stay");

    ok(ngx_agent_key_cache_init(&cycle, 6) == 1 && find(1) == NGX_AGAIN,
       "another one: all go");
    put(2, 1);

    ngx_agent_key_place = 5;
    put(1, 1);
    ngx_agent_key_cache_remove(key(2)->hash);
    ok(find(1) == NGX_AGAIN && find(2) == NGX_AGAIN && take() && locked == 0,
       "a worker of before has no cache");
    ngx_agent_key_place = 6;
    ok(find(1) == NGX_AGAIN && find(2) == NGX_OK,
       "and nobody has what it knows");
}


static void
test_huge(void)
{
    static u_char    big[4000];
    ngx_agent_key_t  k;

    k = *key(3000);
    k.agents.data = big;
    k.agents.len = sizeof(big);
    put_key(&k, 1);
    ok(find(3000) == NGX_AGAIN, "one that is too large is not kept");

    k.agents.len = NGX_AGENT_KEY_CACHE_TEXT + 1;
    put_key(&k, 1);
    ok(find(3000) == NGX_AGAIN, "and not looked at");
}


static void
test_budget(void)
{
    ngx_uint_t           i, n;
    ngx_agent_key_ask_t  a, b;

    put(1, 1);
    ngx_current_msec += 2000;

    (void) ask(2, &a);
    n = ngx_agent_key_cache_take(&a);

    for (i = 0; i < 2 * NGX_AGENT_KEY_CACHE_UNKNOWN; i++) {
        n += take();
    }

    ok(n == NGX_AGENT_KEY_CACHE_UNKNOWN, "so many unknown ones in a second");
    ngx_agent_key_cache_give(&a);
    ngx_agent_key_cache_give(&a);
    ok(take() == 1 && take() == 0, "one that was known does not count");

    ok(ask(1, &b) == NGX_AGAIN && ngx_agent_key_cache_take(&b) == 1,
       "nor does one that was known before");
    ngx_agent_key_cache_give(&b);
    ok(take() == 0, "nor is it given back");

    (void) ask(2, &a);
    ngx_current_msec += 1000;
    ok(ngx_agent_key_cache_take(&a) == 1, "a second later it goes on");
    ngx_current_msec += 1000;
    (void) take();
    ngx_agent_key_cache_give(&a);

    for (n = 1, i = 0; i < 2 * NGX_AGENT_KEY_CACHE_UNKNOWN; i++) {
        n += take();
    }

    ok(n == NGX_AGENT_KEY_CACHE_UNKNOWN, "what is late is of its own second");
}


int
main(void)
{
    ngx_uint_t  i;
    ngx_str_t   name = S("keys");

    pool = stub_pool();
    ngx_current_msec = 100000;
    clock_time.sec = 1700000000;

    ok(find(1) == NGX_AGAIN && take() == 1,
       "with no zone everybody is asked for");
    put(1, 1);

    ok(ngx_agent_key_cache_zone(NULL, &name, NGX_AGENT_KEY_CACHE_MIN, NULL)
       == NGX_OK, "a zone");
    zone.shm.addr = (u_char *) &slab;
    ok(zone.init(&zone, NULL) == NGX_OK, "is made");
    ok(ngx_agent_key_cache_init(&cycle, 5) == 0, "not in this cycle");

    cycle.shared_memory.part.elts = &zone;
    cycle.shared_memory.part.nelts = 1;
    ok(ngx_agent_key_cache_init(&cycle, 5) == 1, "in this one");

    test_copy();
    test_age();
    test_changes();
    test_may_look();
    test_full();
    test_huge();
    test_budget();
    test_killed();
    test_place();

    ok(zone.init(&zone, zone.data) == NGX_OK && locked == 0, "a reload");

    for (i = 0; i < 5000; i++) {
        ngx_agent_key_cache_remove(key(i)->hash);
    }

    ok(used == 1 && locked == 0, "nothing is left");
    ngx_slab_init(&slab);
    ngx_destroy_pool(pool);

    return done_testing();
}
