
/*
 * API keys: who may come in.  A cache in shared memory in front of the store:
 * a key that was seen a moment ago costs no call, and one that nobody knows
 * cannot make many.  No HTTP, no SQL.
 */

#ifndef _NGX_AGENT_AUTH_H_INCLUDED_
#define _NGX_AGENT_AUTH_H_INCLUDED_


#include "ngx_agent.h"
#include "ngx_agent_store.h"


typedef struct ngx_agent_auth_s      ngx_agent_auth_t;
typedef struct ngx_agent_auth_ask_s  ngx_agent_auth_ask_t;

typedef void (*ngx_agent_auth_pt)(ngx_agent_auth_t *auth);


/*
 * The question about one key.  Owned by the asker, zeroed, with pool, log,
 * handler and data set; "token" is what the client has sent, and only its
 * SHA-256 is kept.  It must stay until it is answered or
 * ngx_agent_auth_detach() was called.
 */

struct ngx_agent_auth_s {
    ngx_pool_t                *pool;
    ngx_log_t                 *log;
    ngx_agent_auth_pt          handler;
    void                      *data;

    ngx_agent_key_t            key;       /* out; strings are in pool */
    ngx_int_t                  rc;

    /* private */
    ngx_queue_t                queue;     /* of those who ask the same */
    ngx_agent_auth_ask_t      *ask;
};


/*
 * At configuration: the zone of "agent_auth_zone name:size".  tag is the
 * module.  NGX_OK, or NGX_ERROR (said).
 */
ngx_int_t ngx_agent_auth_zone(ngx_conf_t *cf, ngx_str_t *name, size_t size,
    void *tag);

/*
 * Is it a good key?
 *   NGX_OK        auth->key is filled; at once, without the handler
 *   NGX_DECLINED  no: unknown, revoked or expired; at once
 *   NGX_AGAIN     the handler will run once, from an event, with rc as one of
 *                 these (but never NGX_AGAIN)
 *   NGX_BUSY      too many unknown keys were tried in the last second: the
 *                 database is not asked about another that is not in the
 *                 cache; the client may come again
 *   NGX_ABORT     the database is away, and it must be asked
 *   NGX_ERROR     no memory
 */
ngx_int_t ngx_agent_auth_check(ngx_agent_auth_t *auth, ngx_str_t *token);

/* The handler will not run; safe at any time, also twice. */
void ngx_agent_auth_detach(ngx_agent_auth_t *auth);

/*
 * What the cache knows of a key, with no call: NGX_OK and *key with strings
 * in pool; NGX_DECLINED: nothing, or no good.
 */
ngx_int_t ngx_agent_auth_peek(ngx_pool_t *pool, ngx_str_t *token,
    ngx_agent_key_t *key);

/* News of keys (NGX_AGENT_NEWS_KEYS): hash in hex, or "" */
void ngx_agent_auth_news(ngx_str_t *hash);

/* May the key be used for this agent? */
ngx_uint_t ngx_agent_auth_allows(ngx_agent_key_t *key, ngx_str_t *agent);

/*
 * At worker start: looks for changes of keys every half second as long as
 * there is a zone; and its end.
 */
void ngx_agent_auth_init(ngx_cycle_t *cycle);
void ngx_agent_auth_exit(void);


#endif /* _NGX_AGENT_AUTH_H_INCLUDED_ */
