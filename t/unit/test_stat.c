
/*
 * Counters of several processes: sums, slots taken over, places of an agent
 * taken and given back, also by those who are killed.
 */

#include "stub.h"
#include "ngx_agent_stat.h"
#include "ngx_agent_proc.h"
#include <signal.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>


/* the rest of nginx that this file needs */

ngx_int_t             ngx_process_slot;
ngx_uint_t            ngx_pagesize = 4096;
static ngx_time_t     stub_time = { .sec = 5000 };
volatile ngx_time_t  *ngx_cached_time = &stub_time;

static ngx_cycle_t    cycle;
static ngx_shm_zone_t zone;
static ngx_slab_pool_t *slab;
static size_t         zone_size;


ngx_shm_zone_t *
ngx_shared_memory_add(ngx_conf_t *cf, ngx_str_t *name, size_t size, void *tag)
{
    zone_size = size;
    return &zone;
}


void *
ngx_slab_calloc(ngx_slab_pool_t *pool, size_t size)
{
    void  *p;

    if (size > zone_size) {
        return NULL;
    }

    p = mmap(NULL, size, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS, -1,
             0);

    return p == MAP_FAILED ? NULL : p;
}


static void
worker(ngx_int_t slot)
{
    ngx_process_slot = slot;
    ngx_pid = getpid();
    ngx_agent_stat_init(&cycle);
}


/* what a process in that slot does, and how it exited; -1: it was killed */

static int
in_slot(ngx_int_t slot, int (*fn)(void))
{
    int    status;
    pid_t  pid;

    fflush(stdout);
    pid = fork();

    if (pid == 0) {
        worker(slot);
        _exit(fn());
    }

    waitpid(pid, &status, 0);

    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}


static int
count_things(void)
{
    ngx_agent_stat_add(TASKS, 5);
    ngx_agent_stat_set(RUNNING, 7);
    ngx_agent_stat_set(STALL_MAX, 90);
    ngx_agent_stat_set(WRITER_STATE, 4);
    ngx_agent_stat_set(DEPTH, 11);
    ngx_agent_stat_set(DEPTH_AT, 4000);

    return (int) (ngx_agent_stat_sum(NGX_AGENT_STAT_RUNNING) * 10
                  + ngx_agent_stat_sum(NGX_AGENT_STAT_WRITER_STATE));
}


static int
take_and_die(void)
{
    if (ngx_agent_stat_take(&S("one"), 2) != 1
        || ngx_agent_stat_take(&S("one"), 2) != 1
        || ngx_agent_stat_take(&S("one"), 2) != 0
        || ngx_agent_stat_runs(&S("one")) != 2)
    {
        return 1;
    }

    kill(getpid(), SIGKILL);
    return 2;
}


static int
nothing(void)
{
    return 0;
}


static void
test_before(void)
{
    ok(ngx_agent_stats != NULL, "there are counters at once");

    ngx_agent_stat_add(TASKS, 2);
    ngx_agent_stat_set(READER_STATE, 4);
    ngx_agent_stat_set(WRITER_STATE, 3);
    ok(ngx_agent_stat_sum(NGX_AGENT_STAT_TASKS) == 2, "that count");
    ok(ngx_agent_stat_sum(NGX_AGENT_STAT_READER_STATE) == 1
       && ngx_agent_stat_sum(NGX_AGENT_STAT_WRITER_STATE) == 0,
       "a state is ready or not");
    ok(ngx_agent_stat_workers() == 1, "one worker");

    ok(ngx_agent_stat_take(&S("x"), 1) && !ngx_agent_stat_take(&S("x"), 1)
       && ngx_agent_stat_runs(&S("x")) == 1, "a place is taken");
    ngx_agent_stat_ask(&S("x"), 1);
    ok(ngx_agent_stat_runs(&S("x")) == 0
       && ngx_agent_stat_places(&S("x")) == 1
       && !ngx_agent_stat_take(&S("x"), 1), "one for what the queue may have");
    ngx_agent_stat_ask(&S("x"), -1);
    ok(ngx_agent_stat_runs(&S("x")) == 1, "it had something");
    ngx_agent_stat_give(&S("x"));
    ngx_agent_stat_give(&S("x"));
    ok(ngx_agent_stat_runs(&S("x")) == 0, "and given back, but once");

    ngx_agent_stat_init(&cycle);
    ok(ngx_agent_stat_sum(NGX_AGENT_STAT_TASKS) == 2,
       "with no zone nothing changes");
}


static void
test_zone(void)
{
    void  *data;

    ok(ngx_agent_stat_zone(NULL, NULL) == NGX_OK && zone.init, "a zone");

    slab = calloc(1, sizeof(ngx_slab_pool_t));
    zone.shm.addr = (u_char *) slab;
    zone.shm.size = 10;

    data = zone_size ? (void *) &zone_size : NULL;
    ok(zone.init(&zone, data) == NGX_OK && zone.data == data,
       "a reload keeps what is there");

    ok(zone.init(&zone, NULL) == NGX_OK && zone.data
       && slab->data == zone.data, "a start makes it");

    cycle.shared_memory.part.elts = &zone;
    cycle.shared_memory.part.nelts = 1;

    worker(3);
    ok(ngx_agent_stat_sum(NGX_AGENT_STAT_TASKS) == 0, "zero");
    ok(ngx_agent_stat_workers() == 1, "one worker uses it");
    ok(ngx_agent_stat_since() == 5000, "since its start");
}


static void
test_sums(void)
{
    ngx_agent_stat_add(TASKS, 1);
    ngx_agent_stat_set(RUNNING, 2);
    ngx_agent_stat_set(STALL_MAX, 30);
    ngx_agent_stat_set(READER_STATE, 4);
    ngx_agent_stat_set(DEPTH, 22);
    ngx_agent_stat_set(DEPTH_AT, 4500);

    ok(in_slot(9, count_things) == 91, "another worker adds up with this one");

    ngx_current_msec += 1000;
    ok(ngx_agent_stat_workers() == 1, "it is gone");
    ok(ngx_agent_stat_sum(NGX_AGENT_STAT_TASKS) == 6, "what it counted stays");
    ok(ngx_agent_stat_sum(NGX_AGENT_STAT_RUNNING) == 2,
       "what it was doing does not");
    ok(ngx_agent_stat_sum(NGX_AGENT_STAT_STALL_MAX) == 30, "nor its stall");
    ok(ngx_agent_stat_sum(NGX_AGENT_STAT_READER_STATE) == 1, "one is ready");
    ok(ngx_agent_stat_sum(NGX_AGENT_STAT_DEPTH) == 22
       && ngx_agent_stat_sum(NGX_AGENT_STAT_DEPTH_AT) == 4500,
       "the newest depth");

    ok(in_slot(9, count_things) == 91, "the slot again");
    ngx_current_msec += 1000;
    ok(ngx_agent_stat_sum(NGX_AGENT_STAT_TASKS) == 11, "goes on from there");
}


static void
test_killed(void)
{
    ok(ngx_agent_stat_take(&S("one"), 2) == 1, "a place");
    ngx_agent_stat_give(&S("one"));

    ok(in_slot(4, take_and_die) == -1, "a worker takes two, and is killed");

    ok(ngx_agent_stat_runs(&S("one")) == 2, "it is not yet seen");
    ngx_current_msec += 1000;
    ok(ngx_agent_stat_take(&S("one"), 2) == 1,
       "whoever finds no place looks again");
    ok(ngx_agent_stat_runs(&S("one")) == 1, "the dead hold none");
    ngx_agent_stat_give(&S("one"));

    ok(in_slot(4, take_and_die) == -1, "another");
    ok(in_slot(4, nothing) == 0, "the next in its slot clears it");
    ok(ngx_agent_stat_runs(&S("one")) == 0, "at once");
}


static void
test_many(void)
{
    int         all;
    ngx_str_t   name;
    u_char      text[16];
    ngx_uint_t  i;

    name.data = text;

    for (i = 0; i < 3 * NGX_AGENT_STAT_AGENTS / 2; i++) {
        name.len = ngx_sprintf(text, "agent%i", (ngx_int_t) i) - text;
        if (!ngx_agent_stat_take(&name, 1)) {
            break;
        }
    }

    ok(i == 3 * NGX_AGENT_STAT_AGENTS / 2, "more agents than rows");

    for (all = 1, i = 0; i < 3 * NGX_AGENT_STAT_AGENTS / 2; i++) {
        name.len = ngx_sprintf(text, "agent%i", (ngx_int_t) i) - text;
        all = all && ngx_agent_stat_runs(&name) == 1
              && !ngx_agent_stat_take(&name, 1);
        ngx_agent_stat_give(&name);
        all = all && ngx_agent_stat_runs(&name) == 0;
    }

    ok(all, "each has its own place");
    ok(ngx_agent_stat_take(&S("one"), 0) && ngx_agent_stat_take(&S("one"), 0),
       "no limit");
    ngx_agent_stat_give(&S("one"));
    ngx_agent_stat_give(&S("one"));
}


/* four processes fight for two places of one agent */

typedef struct {
    ngx_atomic_t  in;
    ngx_atomic_t  most;
    ngx_atomic_t  taken;
} fight_t;

static fight_t  *fight;


static int
fighter(void)
{
    ngx_uint_t         i;
    ngx_atomic_uint_t  n, most;

    for (i = 0; i < 20000; i++) {

        if (!ngx_agent_stat_take(&S("one"), 2)) {
            sched_yield();
            continue;
        }

        n = ngx_atomic_fetch_add(&fight->in, 1) + 1;
        (void) ngx_atomic_fetch_add(&fight->taken, 1);

        while ((most = fight->most) < n
               && !ngx_atomic_cmp_set(&fight->most, most, n)) { /* void */ }

        (void) ngx_atomic_fetch_add(&fight->in, -1);
        ngx_agent_stat_give(&S("one"));
    }

    return 0;
}


static void
test_fight(void)
{
    int    status, good;
    pid_t  pids[4];
    int    i;

    fight = mmap(NULL, sizeof(fight_t), PROT_READ|PROT_WRITE,
                 MAP_SHARED|MAP_ANONYMOUS, -1, 0);
    fflush(stdout);

    for (i = 0; i < 4; i++) {
        pids[i] = fork();

        if (pids[i] == 0) {
            worker(20 + i);
            _exit(fighter());
        }
    }

    for (good = 1, i = 0; i < 4; i++) {
        waitpid(pids[i], &status, 0);
        good = good && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }

    ok(good, "four fight for two places");
    ok(fight->most <= 2, "never more than two are in: %d", (int) fight->most);
    ok(fight->taken > 1000, "and they do get in: %d", (int) fight->taken);
    ok(ngx_agent_stat_runs(&S("one")) == 0, "all is given back");
}


int
main(void)
{
    ngx_current_msec = 1000;

    test_before();
    test_zone();
    test_sums();
    test_killed();
    test_many();
    test_fight();

    return done_testing();
}
