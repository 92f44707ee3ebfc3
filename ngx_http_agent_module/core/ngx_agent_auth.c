
/*
 * API keys: the cache first, then the store, and what keeps the two together:
 * news, and a look for changes every half second.
 */

#include "ngx_agent_auth.h"
#include "ngx_agent_bearer.h"
#include "ngx_agent_key_cache.h"
#include <ngx_event.h>


/* ms between a worker's looks for changes; of several workers one looks */
#define NGX_AGENT_AUTH_LOOK     500

/* ms: a lookup that is older may be of before a key was revoked */
#define NGX_AGENT_AUTH_SHARE    100

/* lists of lookups under way, by hash */
#define NGX_AGENT_AUTH_BUCKETS  64


/*
 * A lookup under way, for everybody in this worker who asks the same: a
 * thousand clients that come with one key after a start are one lookup, and
 * not a thousand keys that may be unknown.  In its own pool; it goes on when
 * all who asked have left, and tells the cache.
 */

struct ngx_agent_auth_ask_s {
    ngx_queue_t                queue;     /* of its bucket */
    ngx_queue_t                askers;    /* of ngx_agent_auth_t */
    ngx_agent_key_t            key;
    ngx_agent_key_ask_t        cache;
    ngx_agent_store_call_t     call;
};


static ngx_int_t ngx_agent_auth_ask(ngx_agent_auth_t *auth,
    ngx_agent_key_ask_t *cache);
static ngx_agent_auth_ask_t *ngx_agent_auth_ask_find(const u_char *hash);
static ngx_int_t ngx_agent_auth_ask_new(ngx_agent_auth_t *auth,
    ngx_agent_key_ask_t *cache);
static void ngx_agent_auth_join(ngx_agent_auth_t *auth,
    ngx_agent_auth_ask_t *ask);
static void ngx_agent_auth_answered(ngx_agent_store_call_t *call);
static ngx_int_t ngx_agent_auth_keep(ngx_agent_auth_ask_t *ask, ngx_int_t rc);
static void ngx_agent_auth_tell(ngx_agent_auth_t *auth, ngx_agent_key_t *key,
    ngx_int_t rc);
static ngx_int_t ngx_agent_auth_text(ngx_pool_t *pool, ngx_str_t *s);
static ngx_int_t ngx_agent_auth_judge(ngx_agent_key_t *key, ngx_int_t rc);
static void ngx_agent_auth_due(ngx_event_t *ev);
static void ngx_agent_auth_look(int64_t cursor);
static void ngx_agent_auth_looked(ngx_agent_store_call_t *call);


/* debug builds log the socket of every timer's connection */
static ngx_connection_t         ngx_agent_auth_dumb;

static ngx_event_t              ngx_agent_auth_timer;
static ngx_queue_t              ngx_agent_auth_asks[NGX_AGENT_AUTH_BUCKETS];

/* the look under way: from where, and when it began */
static ngx_agent_store_call_t  *ngx_agent_auth_looking;
static int64_t                  ngx_agent_auth_from;
static ngx_msec_t               ngx_agent_auth_began;


#define ngx_agent_auth_bucket(hash)                                           \
    (&ngx_agent_auth_asks[(hash)[0] % NGX_AGENT_AUTH_BUCKETS])


ngx_int_t
ngx_agent_auth_zone(ngx_conf_t *cf, ngx_str_t *name, size_t size, void *tag)
{
    return ngx_agent_key_cache_zone(cf, name, size, tag);
}


ngx_int_t
ngx_agent_auth_check(ngx_agent_auth_t *auth, ngx_str_t *token)
{
    ngx_int_t            rc;
    ngx_agent_key_ask_t  ask;

    if (ngx_agent_bearer_hash(token, auth->key.hash) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_agent_key_cache_find(auth->pool, &auth->key, &ask);

    ngx_log_debug1(NGX_LOG_DEBUG_CORE, auth->log, 0,
                   "agent auth: check, cache: %i", rc);

    if (rc == NGX_AGAIN) {
        return ngx_agent_auth_ask(auth, &ask);
    }

    return ngx_agent_auth_judge(&auth->key, rc);
}


static ngx_int_t
ngx_agent_auth_ask(ngx_agent_auth_t *auth, ngx_agent_key_ask_t *cache)
{
    ngx_agent_auth_ask_t  *ask;

    ask = ngx_agent_auth_ask_find(auth->key.hash);

    if (ask) {
        ngx_agent_auth_join(auth, ask);
        return NGX_AGAIN;
    }

    return ngx_agent_auth_ask_new(auth, cache);
}


static ngx_agent_auth_ask_t *
ngx_agent_auth_ask_find(const u_char *hash)
{
    ngx_queue_t           *q, *bucket;
    ngx_agent_auth_ask_t  *ask;

    bucket = ngx_agent_auth_bucket(hash);

    for (q = ngx_queue_head(bucket); q != ngx_queue_sentinel(bucket);
         q = ngx_queue_next(q))
    {
        ask = ngx_queue_data(q, ngx_agent_auth_ask_t, queue);

        if (ngx_memcmp(ask->key.hash, hash, NGX_AGENT_KEY_HASH) == 0
            && ngx_current_msec - ask->cache.sent < NGX_AGENT_AUTH_SHARE)
        {
            return ask;
        }
    }

    return NULL;
}


static ngx_int_t
ngx_agent_auth_ask_new(ngx_agent_auth_t *auth, ngx_agent_key_ask_t *cache)
{
    ngx_pool_t              *pool;
    ngx_agent_auth_ask_t    *ask;
    ngx_agent_store_call_t  *call;

    if (!ngx_agent_key_cache_take(cache)) {
        return NGX_BUSY;
    }

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        ngx_agent_key_cache_give(cache);
        return NGX_ERROR;
    }

    ask = ngx_pcalloc(pool, sizeof(ngx_agent_auth_ask_t));
    if (ask == NULL) {
        ngx_agent_key_cache_give(cache);
        ngx_destroy_pool(pool);
        return NGX_ERROR;
    }

    ask->cache = *cache;
    ngx_memcpy(ask->key.hash, auth->key.hash, NGX_AGENT_KEY_HASH);

    call = &ask->call;
    call->pool = pool;
    call->log = ngx_cycle->log;
    call->handler = ngx_agent_auth_answered;
    call->data = ask;
    call->api_key = &ask->key;

    if (ngx_agent_store_get_key(call) != NGX_AGAIN) {
        ngx_agent_key_cache_give(cache);
        ngx_destroy_pool(pool);
        return NGX_ABORT;
    }

    ngx_queue_init(&ask->askers);
    ngx_queue_insert_head(ngx_agent_auth_bucket(ask->key.hash), &ask->queue);

    ngx_agent_auth_join(auth, ask);

    return NGX_AGAIN;
}


static void
ngx_agent_auth_join(ngx_agent_auth_t *auth, ngx_agent_auth_ask_t *ask)
{
    auth->ask = ask;
    ngx_queue_insert_tail(&ask->askers, &auth->queue);
}


/* A handler may ask again, and detach others: so from the head each time. */

static void
ngx_agent_auth_answered(ngx_agent_store_call_t *call)
{
    ngx_int_t              rc;
    ngx_queue_t           *q;
    ngx_agent_auth_t      *auth;
    ngx_agent_auth_ask_t  *ask;

    ask = call->data;

    ngx_queue_remove(&ask->queue);

    rc = ngx_agent_auth_keep(ask, call->rc);

    while (!ngx_queue_empty(&ask->askers)) {

        q = ngx_queue_head(&ask->askers);
        auth = ngx_queue_data(q, ngx_agent_auth_t, queue);

        ngx_agent_auth_detach(auth);
        ngx_agent_auth_tell(auth, &ask->key, rc);
    }

    ngx_destroy_pool(call->pool);
}


/* what the answer is to the cache, and to the askers */

static ngx_int_t
ngx_agent_auth_keep(ngx_agent_auth_ask_t *ask, ngx_int_t rc)
{
    switch (rc) {

    case NGX_OK:
        ngx_agent_key_cache_give(&ask->cache);
        ngx_agent_key_cache_put(&ask->key, 1, &ask->cache);
        return ngx_agent_auth_judge(&ask->key, NGX_OK);

    case NGX_DECLINED:
        ngx_agent_key_cache_put(&ask->key, 0, &ask->cache);
        return NGX_DECLINED;

    default:
        ngx_agent_key_cache_give(&ask->cache);
        return NGX_ABORT;
    }
}


static void
ngx_agent_auth_tell(ngx_agent_auth_t *auth, ngx_agent_key_t *key,
    ngx_int_t rc)
{
    auth->rc = rc;

    if (rc == NGX_OK) {
        auth->key = *key;

        if (ngx_agent_auth_text(auth->pool, &auth->key.tenant) != NGX_OK
            || ngx_agent_auth_text(auth->pool, &auth->key.agents) != NGX_OK)
        {
            auth->rc = NGX_ERROR;
        }
    }

    auth->handler(auth);
}


/* its own copy in the pool; null stays null */

static ngx_int_t
ngx_agent_auth_text(ngx_pool_t *pool, ngx_str_t *s)
{
    u_char  *p;

    if (s->data == NULL) {
        return NGX_OK;
    }

    p = ngx_pnalloc(pool, s->len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, s->data, s->len);
    s->data = p;

    return NGX_OK;
}


/* a key that is in the cache may have run out in the meantime */

static ngx_int_t
ngx_agent_auth_judge(ngx_agent_key_t *key, ngx_int_t rc)
{
    ngx_time_t  *tp;

    if (rc != NGX_OK || key->expires == 0) {
        return rc;
    }

    tp = ngx_timeofday();

    return ((int64_t) tp->sec * 1000 + (int64_t) tp->msec < key->expires)
               ? NGX_OK : NGX_DECLINED;
}


void
ngx_agent_auth_detach(ngx_agent_auth_t *auth)
{
    if (auth->ask) {
        auth->ask = NULL;
        ngx_queue_remove(&auth->queue);
    }
}


ngx_int_t
ngx_agent_auth_peek(ngx_pool_t *pool, ngx_str_t *token, ngx_agent_key_t *key)
{
    ngx_agent_key_ask_t  ask;

    if (ngx_agent_bearer_hash(token, key->hash) != NGX_OK
        || ngx_agent_key_cache_find(pool, key, &ask) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    return ngx_agent_auth_judge(key, NGX_OK);
}


void
ngx_agent_auth_news(ngx_str_t *hash)
{
    u_char      bytes[NGX_AGENT_KEY_HASH];
    ngx_int_t   n;
    ngx_uint_t  i;

    if (hash->len != 2 * NGX_AGENT_KEY_HASH) {
        ngx_agent_key_cache_remove(NULL);
        return;
    }

    for (i = 0; i < NGX_AGENT_KEY_HASH; i++) {
        n = ngx_hextoi(hash->data + 2 * i, 2);

        if (n == NGX_ERROR) {
            ngx_agent_key_cache_remove(NULL);
            return;
        }

        bytes[i] = (u_char) n;
    }

    ngx_agent_key_cache_remove(bytes);
}


ngx_uint_t
ngx_agent_auth_allows(ngx_agent_key_t *key, ngx_str_t *agent)
{
    u_char  *p, *last, *end;

    if (key->agents.data == NULL) {
        return 1;
    }

    p = key->agents.data;
    last = p + key->agents.len;

    for ( /* void */ ; p < last; p = end + 1) {

        end = ngx_strlchr(p, last, ',');
        if (end == NULL) {
            end = last;
        }

        if ((size_t) (end - p) == agent->len
            && ngx_memcmp(p, agent->data, agent->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


void
ngx_agent_auth_init(ngx_cycle_t *cycle)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_AGENT_AUTH_BUCKETS; i++) {
        ngx_queue_init(&ngx_agent_auth_asks[i]);
    }

    if (!ngx_agent_key_cache_init(cycle, ngx_agent_store_place())) {
        return;
    }

    ngx_agent_auth_dumb.fd = (ngx_socket_t) -1;

    ngx_agent_auth_timer.handler = ngx_agent_auth_due;
    ngx_agent_auth_timer.data = &ngx_agent_auth_dumb;
    ngx_agent_auth_timer.log = cycle->log;
    ngx_agent_auth_timer.cancelable = 1;

    ngx_add_timer(&ngx_agent_auth_timer, 1);
}


void
ngx_agent_auth_exit(void)
{
    ngx_uint_t             i;
    ngx_queue_t           *q, *a;
    ngx_agent_auth_ask_t  *ask;

    ngx_agent_bearer_exit();

    if (ngx_agent_auth_timer.timer_set) {
        ngx_del_timer(&ngx_agent_auth_timer);
    }

    if (ngx_agent_auth_looking) {
        ngx_agent_store_detach(ngx_agent_auth_looking);
        ngx_destroy_pool(ngx_agent_auth_looking->pool);
        ngx_agent_auth_looking = NULL;
    }

    for (i = 0; i < NGX_AGENT_AUTH_BUCKETS; i++) {

        while (!ngx_queue_empty(&ngx_agent_auth_asks[i])) {

            q = ngx_queue_head(&ngx_agent_auth_asks[i]);
            ask = ngx_queue_data(q, ngx_agent_auth_ask_t, queue);
            ngx_queue_remove(q);

            while (!ngx_queue_empty(&ask->askers)) {
                a = ngx_queue_head(&ask->askers);
                ngx_agent_auth_detach(ngx_queue_data(a, ngx_agent_auth_t,
                                                     queue));
            }

            ngx_agent_store_detach(&ask->call);
            ngx_destroy_pool(ask->call.pool);
        }
    }
}


/* while it quits a worker still serves requests: it goes on looking */

static void
ngx_agent_auth_due(ngx_event_t *ev)
{
    int64_t  cursor;

    ngx_add_timer(ev, NGX_AGENT_AUTH_LOOK);

    if (ngx_agent_auth_looking == NULL
        && ngx_agent_key_cache_may_look(&cursor))
    {
        ngx_agent_auth_look(cursor);
    }
}


/* when it cannot be made entries get old by themselves: nothing to log */

static void
ngx_agent_auth_look(int64_t cursor)
{
    ngx_agent_store_call_t  *call;

    call = ngx_agent_store_call_create(1024, ngx_cycle->log,
                                       ngx_agent_auth_looked);
    if (call == NULL) {
        return;
    }

    call->cursor = cursor;

    ngx_agent_auth_from = cursor;
    ngx_agent_auth_began = ngx_current_msec;

    if (ngx_agent_store_key_changes(call) != NGX_AGAIN) {
        ngx_destroy_pool(call->pool);
        return;
    }

    ngx_agent_auth_looking = call;
}


static void
ngx_agent_auth_looked(ngx_agent_store_call_t *call)
{
    ngx_uint_t  n;

    ngx_agent_auth_looking = NULL;

    ngx_log_debug2(NGX_LOG_DEBUG_CORE, ngx_cycle->log, 0,
                   "agent auth: looked for changes: %i, %ui",
                   call->rc, call->total);

    if (call->rc == NGX_OK) {
        n = call->list->nelts;

        ngx_agent_key_cache_looked(ngx_agent_auth_from, call->cursor,
                                   ngx_agent_auth_began,
                                   call->total > n ? NULL : call->list->elts,
                                   n);
    }

    ngx_destroy_pool(call->pool);
}
