
/*
 * API keys that were looked up a moment ago, in memory that all workers of an
 * nginx share: by their hashes, also those that nobody knows.  Plain memory,
 * no I/O; who asks the database, and when, is core/'s business.
 *
 * An entry is right as of the moment its lookup was sent, or as of the last
 * look for changes that began later and found it in here; it is good for
 * NGX_AGENT_KEY_CACHE_GOOD ms from then on.  So what is revoked is refused
 * after that time at the latest, whatever gets lost.
 */

#ifndef _NGX_AGENT_KEY_CACHE_H_INCLUDED_
#define _NGX_AGENT_KEY_CACHE_H_INCLUDED_


#include "ngx_agent.h"


/* bytes of the smallest zone */
#define NGX_AGENT_KEY_CACHE_MIN      (8 * 4096)

/* bytes of a tenant, and of a list of agents; a longer one is not kept */
#define NGX_AGENT_KEY_CACHE_TEXT     65535

/* ms; a revoked key is to be refused within a second */
#define NGX_AGENT_KEY_CACHE_GOOD     900

/* ms between two looks for changes */
#define NGX_AGENT_KEY_CACHE_LOOK     400

/* s without a look after which changes may have been forgotten */
#define NGX_AGENT_KEY_CACHE_GAP      3600

/* lookups in a second that may end with "unknown" */
#define NGX_AGENT_KEY_CACHE_UNKNOWN  500


/* What the cache has to know of a lookup when its answer comes. */

typedef struct {
    ngx_msec_t                 sent;
    ngx_msec_t                 second;       /* whose budget it is in */
    ngx_uint_t                 changes;      /* that had been told by then */
    unsigned                   known:1;      /* it was a key a moment ago */
    unsigned                   counted:1;
} ngx_agent_key_ask_t;


/* At configuration: the zone; tag is the module.  NGX_OK, NGX_ERROR (said). */
ngx_int_t ngx_agent_key_cache_zone(ngx_conf_t *cf, ngx_str_t *name,
    size_t size, void *tag);

/*
 * At worker start: finds the cycle's zone.  1: there is one.  "place" stands
 * for the database: what is cached of another one is cleared, and a worker
 * that still uses that one has no cache from then on.
 */
ngx_uint_t ngx_agent_key_cache_init(ngx_cycle_t *cycle, uint32_t place);

/*
 * By key->hash: NGX_OK, the rest of *key is filled, strings in pool;
 * NGX_DECLINED: nobody knows it; NGX_AGAIN: the database must be asked, now,
 * and *ask is for its answer; NGX_ERROR: no memory.
 */
ngx_int_t ngx_agent_key_cache_find(ngx_pool_t *pool, ngx_agent_key_t *key,
    ngx_agent_key_ask_t *ask);

/*
 * What the database has said of key->hash; known 0: nothing.  It gets a place,
 * if need be that of the one that was used least recently; but no number of
 * unknown keys takes the place of a known one.
 */
void ngx_agent_key_cache_put(ngx_agent_key_t *key, ngx_uint_t known,
    ngx_agent_key_ask_t *ask);

/* It is not what it was; NULL: none of them is. */
void ngx_agent_key_cache_remove(const u_char *hash);

/*
 * 1: it is time to look for changes, and nobody else does; *cursor is where
 * the last look has got to, 0: nowhere.  One who looks and dies does not keep
 * others from it.
 */
ngx_uint_t ngx_agent_key_cache_may_look(int64_t *cursor);

/*
 * A look from cursor "from" that began at "began" has got to cursor "to": n
 * hashes, one behind the other, are not what they were; hashes NULL: all.
 */
void ngx_agent_key_cache_looked(int64_t from, int64_t to, ngx_msec_t began,
    const u_char *hashes, ngx_uint_t n);

/*
 * 1: the lookup may go out: so far few keys turned out to be unknown in this
 * second, or this is one that is known.  give: it did not turn out to be
 * unknown.
 */
ngx_uint_t ngx_agent_key_cache_take(ngx_agent_key_ask_t *ask);
void ngx_agent_key_cache_give(ngx_agent_key_ask_t *ask);


#endif /* _NGX_AGENT_KEY_CACHE_H_INCLUDED_ */
