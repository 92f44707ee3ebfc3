
/*
 * Those who wait for a step to end.  Near ones hang on the live step, if this
 * worker runs it; far ones wait for another worker: they are told by news of
 * other sessions, which may get lost, and look at the row from time to time.
 */

#include "ngx_agent_step.h"
#include <ngx_event.h>


#define NGX_AGENT_WATCH_BUCKETS  1024

/* ms between two looks; the first comes soon: the news may have been before */
#define NGX_AGENT_WATCH_FIRST    100
#define NGX_AGENT_WATCH_LOOK     1000

/* far ones that add another ms to it, so that many do not ask too much */
#define NGX_AGENT_WATCH_MANY     10


struct ngx_agent_far_s {
    ngx_queue_t                queue;     /* in its bucket */
    ngx_agent_watch_t         *watch;
    ngx_pool_t                *pool;      /* this, and between calls no more */
    ngx_agent_store_call_t    *call;      /* has a pool of its own */
    ngx_event_t                event;
    unsigned                   again:1;   /* news came during a look */
    unsigned                   gone:1;    /* the worker goes */
};


static ngx_int_t ngx_agent_watch_make_far(ngx_agent_watch_t *w,
    ngx_msec_t look);
static void ngx_agent_watch_drop_far(ngx_agent_watch_t *w);
static void ngx_agent_watch_soon(ngx_agent_far_t *far);
static ngx_queue_t *ngx_agent_watch_bucket(const ngx_agent_id_t *id);
static void ngx_agent_watch_look(ngx_event_t *ev);
static ngx_agent_store_call_t *ngx_agent_watch_ask(ngx_agent_far_t *far);
static void ngx_agent_watch_seen(ngx_agent_store_call_t *call);
static void ngx_agent_watch_done(ngx_agent_watch_t *w, ngx_int_t rc,
    ngx_agent_step_t *step);
static void ngx_agent_watch_gauge(void);


static ngx_queue_t  ngx_agent_watch_buckets[NGX_AGENT_WATCH_BUCKETS];
static ngx_uint_t   ngx_agent_watch_nfar;
static ngx_uint_t   ngx_agent_watch_n;
static ngx_uint_t   ngx_agent_watch_dismissed;


void
ngx_agent_watch_init(void)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_AGENT_WATCH_BUCKETS; i++) {
        ngx_queue_init(&ngx_agent_watch_buckets[i]);
    }

    ngx_agent_watch_nfar = 0;
    ngx_agent_watch_n = 0;
    ngx_agent_watch_dismissed = 0;
}


ngx_int_t
ngx_agent_step_watch(ngx_agent_watch_t *w)
{
    ngx_agent_live_t  *live;

    live = ngx_agent_step_find(&w->step_id);

    if (live && live->state != NGX_AGENT_LIVE_LEAVES
        && live->state != NGX_AGENT_LIVE_DROPPED)
    {
        ngx_queue_insert_tail(&live->watchers, &w->queue);

    } else if (ngx_agent_watch_make_far(w, NGX_AGENT_WATCH_FIRST) != NGX_OK) {
        return NGX_ERROR;
    }

    w->active = 1;
    ngx_agent_watch_n++;
    ngx_agent_watch_gauge();

    return NGX_OK;
}


void
ngx_agent_step_unwatch(ngx_agent_watch_t *w)
{
    if (!w->active) {
        return;
    }

    w->active = 0;
    ngx_agent_watch_n--;
    ngx_agent_watch_gauge();

    if (w->far) {
        ngx_agent_watch_drop_far(w);
        return;
    }

    ngx_queue_remove(&w->queue);
}


static void
ngx_agent_watch_gauge(void)
{
    ngx_agent_stat_set(WATCHERS, ngx_agent_watch_n);
}


static void
ngx_agent_watch_done(ngx_agent_watch_t *w, ngx_int_t rc,
    ngx_agent_step_t *step)
{
    ngx_agent_step_unwatch(w);

    w->rc = rc;
    w->step = step;
    w->handler(w);
}


void
ngx_agent_watch_tell(ngx_agent_live_t *live)
{
    ngx_queue_t        *q;
    ngx_agent_watch_t  *w;

    while (!ngx_queue_empty(&live->watchers)) {
        q = ngx_queue_head(&live->watchers);
        w = ngx_queue_data(q, ngx_agent_watch_t, queue);

        ngx_agent_watch_done(w, NGX_OK, &live->step);
    }
}


void
ngx_agent_watch_far(ngx_agent_live_t *live)
{
    ngx_queue_t        *q;
    ngx_agent_watch_t  *w;

    while (!ngx_queue_empty(&live->watchers)) {
        q = ngx_queue_head(&live->watchers);
        w = ngx_queue_data(q, ngx_agent_watch_t, queue);

        ngx_queue_remove(&w->queue);

        if (ngx_agent_watch_make_far(w, NGX_AGENT_WATCH_FIRST) == NGX_OK) {
            continue;
        }

        /* no memory to wait: it is told to ask again */

        ngx_queue_insert_head(&live->watchers, &w->queue);
        ngx_agent_watch_done(w, NGX_BUSY, NULL);
    }
}


void
ngx_agent_watch_near(ngx_agent_live_t *live)
{
    ngx_queue_t        *q, *next, *bucket;
    ngx_agent_far_t    *far;
    ngx_agent_watch_t  *w;

    if (ngx_agent_watch_nfar == 0) {
        return;
    }

    bucket = ngx_agent_watch_bucket(&live->step.id);

    for (q = ngx_queue_head(bucket);
         q != ngx_queue_sentinel(bucket);
         q = next)
    {
        next = ngx_queue_next(q);
        far = ngx_queue_data(q, ngx_agent_far_t, queue);
        w = far->watch;

        if (far->gone || ngx_memcmp(w->step_id.bytes, live->step.id.bytes, 16)
                         != 0)
        {
            continue;
        }

        ngx_agent_watch_drop_far(w);
        ngx_queue_insert_tail(&live->watchers, &w->queue);
    }
}


void
ngx_agent_watch_news(const ngx_agent_id_t *id)
{
    ngx_queue_t      *q, *bucket;
    ngx_agent_far_t  *far;

    if (ngx_agent_watch_nfar == 0) {
        return;
    }

    bucket = ngx_agent_watch_bucket(id);

    for (q = ngx_queue_head(bucket);
         q != ngx_queue_sentinel(bucket);
         q = ngx_queue_next(q))
    {
        far = ngx_queue_data(q, ngx_agent_far_t, queue);

        if (ngx_memcmp(far->watch->step_id.bytes, id->bytes, 16) != 0) {
            continue;
        }

        if (far->call) {
            far->again = 1;
            continue;
        }

        ngx_agent_watch_soon(far);
    }
}


/* nginx leaves a timer where it is when it is to move by a little */

static void
ngx_agent_watch_soon(ngx_agent_far_t *far)
{
    if (far->event.timer_set) {
        ngx_del_timer(&far->event);
    }

    ngx_add_timer(&far->event, 1);
}


/* from an event each: a handler may end whatever it likes */

void
ngx_agent_watch_dismiss(void)
{
    ngx_uint_t        i;
    ngx_queue_t      *q;
    ngx_agent_far_t  *far;

    ngx_agent_watch_dismissed = 1;

    for (i = 0; i < NGX_AGENT_WATCH_BUCKETS; i++) {

        for (q = ngx_queue_head(&ngx_agent_watch_buckets[i]);
             q != ngx_queue_sentinel(&ngx_agent_watch_buckets[i]);
             q = ngx_queue_next(q))
        {
            far = ngx_queue_data(q, ngx_agent_far_t, queue);
            far->gone = 1;
            ngx_agent_watch_soon(far);
        }
    }
}


void
ngx_agent_watch_exit(void)
{
    ngx_uint_t        i;
    ngx_queue_t      *q;
    ngx_agent_far_t  *far;

    if (ngx_agent_watch_buckets[0].next == NULL) {
        return;
    }

    for (i = 0; i < NGX_AGENT_WATCH_BUCKETS; i++) {

        while (!ngx_queue_empty(&ngx_agent_watch_buckets[i])) {
            q = ngx_queue_head(&ngx_agent_watch_buckets[i]);
            far = ngx_queue_data(q, ngx_agent_far_t, queue);
            far->watch->active = 0;
            ngx_agent_watch_drop_far(far->watch);
        }
    }
}


static ngx_int_t
ngx_agent_watch_make_far(ngx_agent_watch_t *w, ngx_msec_t look)
{
    ngx_pool_t       *pool;
    ngx_agent_far_t  *far;

    /* not the log of the one who waits: its handler may end before the pool */

    pool = ngx_create_pool(512, ngx_cycle->log);
    if (pool == NULL) {
        return NGX_ERROR;
    }

    far = ngx_pcalloc(pool, sizeof(ngx_agent_far_t));
    if (far == NULL) {
        ngx_destroy_pool(pool);
        return NGX_ERROR;
    }

    far->pool = pool;
    far->watch = w;
    far->event.handler = ngx_agent_watch_look;
    far->event.data = far;
    far->event.log = ngx_cycle->log;

    ngx_queue_insert_tail(ngx_agent_watch_bucket(&w->step_id), &far->queue);
    ngx_agent_watch_nfar++;

    far->gone = ngx_agent_watch_dismissed;
    ngx_add_timer(&far->event, far->gone ? 1 : look);

    w->far = far;

    return NGX_OK;
}


static void
ngx_agent_watch_drop_far(ngx_agent_watch_t *w)
{
    ngx_agent_far_t  *far;

    far = w->far;
    w->far = NULL;

    if (far->event.timer_set) {
        ngx_del_timer(&far->event);
    }

    if (far->call) {
        ngx_agent_store_detach(far->call);
        ngx_destroy_pool(far->call->pool);
    }

    ngx_queue_remove(&far->queue);
    ngx_agent_watch_nfar--;
    ngx_destroy_pool(far->pool);
}


static ngx_queue_t *
ngx_agent_watch_bucket(const ngx_agent_id_t *id)
{
    /* the random end of a UUIDv7 */
    return &ngx_agent_watch_buckets[((ngx_uint_t) id->bytes[14] << 8
                                     | id->bytes[15])
                                    % NGX_AGENT_WATCH_BUCKETS];
}


static void
ngx_agent_watch_look(ngx_event_t *ev)
{
    ngx_agent_far_t  *far;

    far = ev->data;

    if (far->gone) {
        ngx_agent_watch_done(far->watch, NGX_BUSY, NULL);
        return;
    }

    far->again = 0;
    far->call = ngx_agent_watch_ask(far);

    if (far->call == NULL) {
        ngx_add_timer(&far->event, NGX_AGENT_WATCH_LOOK);
    }
}


/* the call on its way, or NULL: it cannot be made now */

static ngx_agent_store_call_t *
ngx_agent_watch_ask(ngx_agent_far_t *far)
{
    ngx_agent_store_call_t  *call;

    call = ngx_agent_store_call_create(1024, ngx_cycle->log,
                                       ngx_agent_watch_seen);
    if (call == NULL) {
        return NULL;
    }

    call->step = ngx_pcalloc(call->pool, sizeof(ngx_agent_step_t));
    if (call->step == NULL) {
        ngx_destroy_pool(call->pool);
        return NULL;
    }

    call->data = far;
    call->tenant = far->watch->tenant;
    call->step->id = far->watch->step_id;
    call->step->task_id = far->watch->task_id;

    if (ngx_agent_store_get_step(call) != NGX_AGAIN) {
        ngx_destroy_pool(call->pool);
        return NULL;
    }

    return call;
}


static void
ngx_agent_watch_seen(ngx_agent_store_call_t *call)
{
    ngx_int_t         rc;
    ngx_uint_t        again;
    ngx_pool_t       *pool;
    ngx_agent_far_t  *far;

    far = call->data;
    rc = call->rc;
    pool = call->pool;
    again = far->again;

    far->call = NULL;

    if (rc == NGX_DECLINED
        || (rc == NGX_OK && ngx_agent_step_is_ended(call->step)))
    {
        /* frees "far", but not the pool with the step */
        ngx_agent_watch_done(far->watch, rc, call->step);
        ngx_destroy_pool(pool);
        return;
    }

    ngx_destroy_pool(pool);

    ngx_add_timer(&far->event, (again || far->gone) ? 1
                               : NGX_AGENT_WATCH_LOOK
                                 + ngx_agent_watch_nfar
                                   / NGX_AGENT_WATCH_MANY);
}
