
/*
 * What a test may do with the stand-in for nginx in stub.c, and TAP.
 */

#ifndef _STUB_H_INCLUDED_
#define _STUB_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_thread_pool.h>

#include <stdio.h>


/* a pool whose every allocation is one malloc(), so that ASan sees all */
ngx_pool_t *stub_pool(void);

/* the allocation that many calls from now fails, once; 0: none */
extern ngx_uint_t  stub_fail;

/* bytes of live pool memory now, and the most since it was set to 0 */
extern size_t  stub_used;
extern size_t  stub_peak;

extern ngx_log_t   stub_log;
extern ngx_uint_t  stub_logged;      /* lines so far */
extern ngx_uint_t  stub_level;       /* of the last line */

/* events that were posted, timers that are set */
void stub_run_posted(void);
extern ngx_uint_t  stub_timers;

/* the thread pool: tasks wait until the test runs them, in two halves */
extern ngx_uint_t  stub_thread_full;
ngx_thread_task_t *stub_thread_take(void);
void stub_thread_work(ngx_thread_task_t *task);
void stub_thread_back(ngx_thread_task_t *task);

/* TAP */
void ok(int good, const char *what, ...)
    __attribute__((format(printf, 2, 3)));
int done_testing(void);

/* a C literal, with its NULs, as ngx_str_t */
#define S(literal)  ((ngx_str_t) { sizeof(literal) - 1, (u_char *) literal })
#define same(s, literal)                                                     \
    ((s).len == sizeof(literal) - 1                                          \
     && memcmp((s).data, literal, sizeof(literal) - 1) == 0)


#endif /* _STUB_H_INCLUDED_ */
