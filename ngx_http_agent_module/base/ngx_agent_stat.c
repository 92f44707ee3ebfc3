
/*
 * Counters in shared memory.  A worker writes to its own slot only, so there
 * is no lock: nothing that is stopped or killed in here can hold up another.
 * What a killed worker leaves is told from the living by its pid and birth.
 */

#include "ngx_agent_stat.h"
#include "ngx_agent_proc.h"


#define NGX_AGENT_STAT_SLOTS     NGX_MAX_PROCESSES

/* ms between looks at which processes live */
#define NGX_AGENT_STAT_LOOK      500

/*
 * A word of "held" counts places in its lower half; in its upper half, those
 * of them that wait for the queue's answer.
 */
#define NGX_AGENT_STAT_ASKED                                                  \
    ((ngx_atomic_uint_t) 1 << (sizeof(ngx_atomic_uint_t) * 4))

/* of those who want the last free place of an agent at the same moment */
#define NGX_AGENT_STAT_TRIES     64


typedef struct {
    ngx_atomic_t               pid;          /* 0: never used, or not yet */
    int64_t                    born;
    ngx_atomic_t               stats[NGX_AGENT_STAT_N];
    u_char                     apart[64];    /* from the next one's line */
} ngx_agent_stat_slot_t;


/*
 * Runs of agents, a row for each.  The key is a hash of the agent's name: one
 * word, so that a row is taken by one atomic operation and no worker that
 * dies leaves half a row.  Rows are never given back.
 */

typedef struct {
    ngx_atomic_t              *keys;
    ngx_atomic_t              *held;         /* runs: rows of "slots" */
    ngx_uint_t                 slots;
    ngx_uint_t                 own;          /* slot of this worker */
} ngx_agent_stat_table_t;


typedef struct {
    time_t                     since;
    ngx_atomic_t               top;          /* slots ever used */
    ngx_agent_stat_slot_t      slots[NGX_AGENT_STAT_SLOTS];
    ngx_atomic_t               keys[NGX_AGENT_STAT_AGENTS];
    ngx_atomic_t               held[NGX_AGENT_STAT_AGENTS
                                    * NGX_AGENT_STAT_SLOTS];
} ngx_agent_stat_zone_t;


/* a process that was found dead, and which slot it has left */

typedef struct {
    ngx_atomic_uint_t          pid;
    int64_t                    born;
} ngx_agent_stat_dead_t;


static ngx_int_t ngx_agent_stat_zone_init(ngx_shm_zone_t *zone, void *data);
static ngx_agent_stat_zone_t *ngx_agent_stat_find(ngx_cycle_t *cycle);
static ngx_uint_t ngx_agent_stat_lives(ngx_uint_t slot);
static void ngx_agent_stat_look(void);
static ngx_int_t ngx_agent_stat_row(ngx_str_t *agent,
    ngx_agent_stat_table_t **table);
static ngx_int_t ngx_agent_stat_probe(ngx_agent_stat_table_t *table,
    ngx_atomic_uint_t key);
static ngx_uint_t ngx_agent_stat_held(ngx_agent_stat_table_t *table,
    ngx_uint_t row);
static ngx_uint_t ngx_agent_stat_count(ngx_agent_stat_table_t *table,
    ngx_uint_t row, ngx_uint_t *asked);


static ngx_str_t  ngx_agent_stat_name = ngx_string("ngx_http_agent");

/* what there is before init, in nginx -t, and when the shared table is full */

static ngx_atomic_t  ngx_agent_stat_local[NGX_AGENT_STAT_N];
static ngx_atomic_t  ngx_agent_stat_local_keys[NGX_AGENT_STAT_AGENTS];
static ngx_atomic_t  ngx_agent_stat_local_held[NGX_AGENT_STAT_AGENTS];

static ngx_agent_stat_table_t  ngx_agent_stat_own = {
    ngx_agent_stat_local_keys, ngx_agent_stat_local_held, 1, 0
};

static ngx_agent_stat_table_t   ngx_agent_stat_shared;
static ngx_agent_stat_zone_t   *ngx_agent_stat_zone_data;
static ngx_agent_stat_dead_t    ngx_agent_stat_dead[NGX_AGENT_STAT_SLOTS];
static ngx_msec_t               ngx_agent_stat_looked;

ngx_atomic_t  *ngx_agent_stats = ngx_agent_stat_local;


ngx_int_t
ngx_agent_stat_zone(ngx_conf_t *cf, void *tag)
{
    size_t           size;
    ngx_shm_zone_t  *zone;

    /* what the slab allocator keeps for each page, and for itself */
    size = sizeof(ngx_agent_stat_zone_t);
    size = ngx_align(size + size / 64 + 16 * ngx_pagesize, ngx_pagesize);

    zone = ngx_shared_memory_add(cf, &ngx_agent_stat_name, size, tag);
    if (zone == NULL) {
        return NGX_ERROR;
    }

    zone->init = ngx_agent_stat_zone_init;

    return NGX_OK;
}


static ngx_int_t
ngx_agent_stat_zone_init(ngx_shm_zone_t *zone, void *data)
{
    ngx_slab_pool_t        *pool;
    ngx_agent_stat_zone_t  *z;

    if (data) {
        /* a reload: the numbers go on, old workers still write to them */
        zone->data = data;
        return NGX_OK;
    }

    pool = (ngx_slab_pool_t *) zone->shm.addr;

    if (zone->shm.exists) {
        zone->data = pool->data;
        return NGX_OK;
    }

    z = ngx_slab_calloc(pool, sizeof(ngx_agent_stat_zone_t));
    if (z == NULL) {
        return NGX_ERROR;
    }

    z->since = ngx_time();

    pool->data = z;
    zone->data = z;

    return NGX_OK;
}


/*
 * From the cycle, and not remembered at configuration: a reload that failed
 * leaves the master, and the workers it makes, with the cycle before.
 */

static ngx_agent_stat_zone_t *
ngx_agent_stat_find(ngx_cycle_t *cycle)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_shm_zone_t   *zone;

    for (part = &cycle->shared_memory.part; part; part = part->next) {
        zone = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (zone[i].init == ngx_agent_stat_zone_init) {
                return zone[i].data;
            }
        }
    }

    return NULL;
}


void
ngx_agent_stat_init(ngx_cycle_t *cycle)
{
    ngx_uint_t              i, own;
    ngx_atomic_uint_t       top;
    ngx_agent_stat_slot_t  *slot;
    ngx_agent_stat_zone_t  *z;

    z = ngx_agent_stat_find(cycle);

    if (z == NULL) {
        return;
    }

    own = (ngx_uint_t) ngx_process_slot;
    slot = &z->slots[own];

    /* nobody reads the slot as it is being made ready */
    slot->pid = 0;
    ngx_memory_barrier();

    for (i = 0; i < NGX_AGENT_STAT_AGENTS; i++) {
        z->held[i * NGX_AGENT_STAT_SLOTS + own] = 0;
    }

    for (i = NGX_AGENT_STAT_GAUGES; i < NGX_AGENT_STAT_N; i++) {
        slot->stats[i] = 0;
    }

    slot->born = ngx_agent_proc_born(ngx_pid);
    ngx_memory_barrier();
    slot->pid = (ngx_atomic_uint_t) ngx_pid;

    do {
        top = z->top;
    } while (top <= own && !ngx_atomic_cmp_set(&z->top, top, own + 1));

    ngx_agent_stat_zone_data = z;

    ngx_agent_stat_shared.keys = z->keys;
    ngx_agent_stat_shared.held = z->held;
    ngx_agent_stat_shared.slots = NGX_AGENT_STAT_SLOTS;
    ngx_agent_stat_shared.own = own;

    ngx_agent_stats = slot->stats;
}


time_t
ngx_agent_stat_since(void)
{
    return ngx_agent_stat_zone_data ? ngx_agent_stat_zone_data->since
                                    : ngx_time();
}


uint64_t
ngx_agent_stat_sum(ngx_agent_stat_e stat)
{
    uint64_t                n, sum, at;
    ngx_uint_t              i;
    ngx_agent_stat_slot_t  *slot;

    if (ngx_agent_stat_zone_data == NULL) {
        n = ngx_agent_stats[stat];

        return (stat == NGX_AGENT_STAT_WRITER_STATE
                || stat == NGX_AGENT_STAT_READER_STATE)
                   ? n == NGX_AGENT_STAT_READY : n;
    }

    if (stat >= NGX_AGENT_STAT_GAUGES) {
        ngx_agent_stat_look();
    }

    for (sum = 0, at = 0, i = 0; i < ngx_agent_stat_zone_data->top; i++) {
        slot = &ngx_agent_stat_zone_data->slots[i];
        n = slot->stats[stat];

        if (stat >= NGX_AGENT_STAT_GAUGES && !ngx_agent_stat_lives(i)) {
            continue;
        }

        switch (stat) {

        case NGX_AGENT_STAT_STALL_MAX:
        case NGX_AGENT_STAT_DEPTH_AT:
            sum = ngx_max(sum, n);
            break;

        case NGX_AGENT_STAT_DEPTH:

            if (slot->stats[NGX_AGENT_STAT_DEPTH_AT] >= at) {
                at = slot->stats[NGX_AGENT_STAT_DEPTH_AT];
                sum = n;
            }

            break;

        case NGX_AGENT_STAT_WRITER_STATE:
        case NGX_AGENT_STAT_READER_STATE:
            sum += (n == NGX_AGENT_STAT_READY);
            break;

        default:
            sum += n;
            break;
        }
    }

    return sum;
}


ngx_uint_t
ngx_agent_stat_workers(void)
{
    ngx_uint_t  i, n;

    if (ngx_agent_stat_zone_data == NULL) {
        return 1;
    }

    ngx_agent_stat_look();

    for (n = 0, i = 0; i < ngx_agent_stat_zone_data->top; i++) {
        n += ngx_agent_stat_lives(i);
    }

    return n;
}


/* asks no system: as far as the last look has shown */

static ngx_uint_t
ngx_agent_stat_lives(ngx_uint_t i)
{
    ngx_agent_stat_slot_t  *slot;

    slot = &ngx_agent_stat_zone_data->slots[i];

    return slot->pid != 0
           && (slot->pid != ngx_agent_stat_dead[i].pid
               || slot->born != ngx_agent_stat_dead[i].born);
}


/*
 * The dead are remembered here, and their slots left alone: whoever takes a
 * slot next clears it, and two would be in each other's way.
 */

static void
ngx_agent_stat_look(void)
{
    int64_t                 born;
    ngx_uint_t              i;
    ngx_atomic_uint_t       pid;
    ngx_agent_stat_slot_t  *slot;

    if (ngx_agent_stat_looked
        && ngx_current_msec - ngx_agent_stat_looked < NGX_AGENT_STAT_LOOK)
    {
        return;
    }

    ngx_agent_stat_looked = ngx_current_msec;

    for (i = 0; i < ngx_agent_stat_zone_data->top; i++) {
        slot = &ngx_agent_stat_zone_data->slots[i];

        pid = slot->pid;
        born = slot->born;

        if (pid && pid != (ngx_atomic_uint_t) ngx_pid
            && ngx_agent_stat_lives(i)
            && ngx_agent_proc_gone((ngx_pid_t) pid, born))
        {
            ngx_agent_stat_dead[i].pid = pid;
            ngx_agent_stat_dead[i].born = born;
        }
    }
}


/*
 * Whoever comes first goes in, then counts, and goes out again when it was
 * one too many: so there are never more than "max", whoever is killed where.
 * Two who came at once may both go out; the last of them then sees the free
 * place and tries again.
 */

ngx_uint_t
ngx_agent_stat_take(ngx_str_t *agent, ngx_uint_t max)
{
    ngx_int_t                row;
    ngx_uint_t               i;
    ngx_atomic_t            *held;
    ngx_agent_stat_table_t  *table;

    row = ngx_agent_stat_row(agent, &table);

    if (row == NGX_ERROR) {
        return 1;
    }

    held = &table->held[row * table->slots + table->own];

    for (i = 0; i < NGX_AGENT_STAT_TRIES; i++) {

        (void) ngx_atomic_fetch_add(held, 1);

        if (max == 0 || ngx_agent_stat_held(table, row) <= max) {
            return 1;
        }

        (void) ngx_atomic_fetch_add(held, -1);

        if (ngx_agent_stat_held(table, row) < max) {
            continue;
        }

        if (i || table != &ngx_agent_stat_shared) {
            break;
        }

        /* full: but do all of them live? */
        ngx_agent_stat_look();

        if (ngx_agent_stat_held(table, row) >= max) {
            break;
        }
    }

    return 0;
}


void
ngx_agent_stat_give(ngx_str_t *agent)
{
    ngx_int_t                row;
    ngx_atomic_t            *held;
    ngx_agent_stat_table_t  *table;

    row = ngx_agent_stat_row(agent, &table);

    if (row == NGX_ERROR) {
        return;
    }

    held = &table->held[row * table->slots + table->own];

    if (*held % NGX_AGENT_STAT_ASKED) {
        (void) ngx_atomic_fetch_add(held, -1);
    }
}


void
ngx_agent_stat_ask(ngx_str_t *agent, ngx_int_t n)
{
    ngx_int_t                row;
    ngx_agent_stat_table_t  *table;

    row = ngx_agent_stat_row(agent, &table);

    if (row != NGX_ERROR) {
        (void) ngx_atomic_fetch_add(
                   &table->held[row * table->slots + table->own],
                   n * (ngx_atomic_int_t) NGX_AGENT_STAT_ASKED);
    }
}


ngx_uint_t
ngx_agent_stat_places(ngx_str_t *agent)
{
    ngx_int_t                row;
    ngx_agent_stat_table_t  *table;

    row = ngx_agent_stat_row(agent, &table);

    return row == NGX_ERROR ? 0 : ngx_agent_stat_held(table, row);
}


ngx_uint_t
ngx_agent_stat_runs(ngx_str_t *agent)
{
    ngx_int_t                row;
    ngx_uint_t               n, asked;
    ngx_agent_stat_table_t  *table;

    row = ngx_agent_stat_row(agent, &table);

    if (row == NGX_ERROR) {
        return 0;
    }

    n = ngx_agent_stat_count(table, row, &asked);

    return n - ngx_min(n, asked);
}


static ngx_uint_t
ngx_agent_stat_held(ngx_agent_stat_table_t *table, ngx_uint_t row)
{
    ngx_uint_t  asked;

    return ngx_agent_stat_count(table, row, &asked);
}


static ngx_uint_t
ngx_agent_stat_count(ngx_agent_stat_table_t *table, ngx_uint_t row,
    ngx_uint_t *asked)
{
    ngx_uint_t         i, n, top;
    ngx_atomic_t      *held;
    ngx_atomic_uint_t  one;

    held = &table->held[row * table->slots];

    top = (table == &ngx_agent_stat_shared) ? ngx_agent_stat_zone_data->top
                                            : 1;

    for (n = 0, *asked = 0, i = 0; i < top; i++) {
        one = held[i];

        if (one
            && (table != &ngx_agent_stat_shared || ngx_agent_stat_lives(i)))
        {
            n += one % NGX_AGENT_STAT_ASKED;
            *asked += one / NGX_AGENT_STAT_ASKED;
        }
    }

    return n;
}


/* the agent's row in the shared table, else in this worker's own */

static ngx_int_t
ngx_agent_stat_row(ngx_str_t *agent, ngx_agent_stat_table_t **table)
{
    size_t      i;
    uint64_t    hash;
    ngx_int_t   row;

    hash = 14695981039346656037ULL;

    for (i = 0; i < agent->len; i++) {
        hash = (hash ^ agent->data[i]) * 1099511628211ULL;
    }

    hash ^= hash >> 32;

    if ((ngx_atomic_uint_t) hash == 0) {
        hash = 1;
    }

    if (ngx_agent_stat_zone_data) {
        *table = &ngx_agent_stat_shared;

        row = ngx_agent_stat_probe(*table, (ngx_atomic_uint_t) hash);
        if (row != NGX_ERROR) {
            return row;
        }
    }

    *table = &ngx_agent_stat_own;

    return ngx_agent_stat_probe(*table, (ngx_atomic_uint_t) hash);
}


static ngx_int_t
ngx_agent_stat_probe(ngx_agent_stat_table_t *table, ngx_atomic_uint_t key)
{
    ngx_uint_t  i, row;

    for (i = 0; i < NGX_AGENT_STAT_AGENTS; i++) {
        row = (key + i) % NGX_AGENT_STAT_AGENTS;

        if (table->keys[row] == 0) {
            (void) ngx_atomic_cmp_set(&table->keys[row], 0, key);
        }

        if (table->keys[row] == key) {
            return (ngx_int_t) row;
        }
    }

    return NGX_ERROR;
}
