
/*
 * A dialect: what is said to an agent, and what its answer means.  And the
 * run itself, which the files of this room share.
 */

#ifndef _NGX_HTTP_AGENT_DIALECT_H_INCLUDED_
#define _NGX_HTTP_AGENT_DIALECT_H_INCLUDED_


#include "ngx_http_agent_run.h"
#include "ngx_http_agent_fake.h"
#include "ngx_agent_redact.h"


/*
 * The states of a run, and the only function that changes them is
 * ngx_http_agent_run_move():
 *
 *   HISTORY  the store is asked for the steps before this one; or the
 *            timer runs until it is asked again
 *   CALL     a request to the agent is under way; the timer watches silence
 *   PAUSE    a call has failed; an event tells core/, which then has us make
 *            the next call, or ends the run
 *   ACT      the answer was good; the dialect carries out what it asks for
 *   END      the step is made up; an event will hand it to core/
 *   FAIL     it fails; an event will say so to core/
 *
 *   HISTORY -> CALL | FAIL
 *   CALL    -> PAUSE | ACT | FAIL
 *   PAUSE   -> CALL
 *   ACT     -> END | FAIL
 *
 * A run starts in HISTORY, also when there is none to be read, and core/ may
 * abort it in any state.
 */

typedef enum {
    NGX_HTTP_AGENT_RUN_HISTORY = 0,
    NGX_HTTP_AGENT_RUN_CALL,
    NGX_HTTP_AGENT_RUN_PAUSE,
    NGX_HTTP_AGENT_RUN_ACT,
    NGX_HTTP_AGENT_RUN_END,
    NGX_HTTP_AGENT_RUN_FAIL
} ngx_http_agent_run_state_e;


/*
 * build:  the request's body, from the steps before this one (may be NULL):
 *         *body in pool, and behind it *tail, which is static or empty.
 * open:   a call starts to answer with a status of 200 to 299; run->answer
 *         may be set, in run->pool.
 * feed:   bytes of the answer.  NGX_OK; NGX_DONE: complete, what follows does
 *         not matter; NGX_DECLINED: no good; NGX_ERROR: no memory.
 * finish: the call has ended.  NGX_OK: a good answer; NGX_DECLINED: no good;
 *         NGX_ERROR: no memory.
 * fault:  after NGX_DECLINED: sets the reason; returns 1 when another attempt
 *         may help.
 * refuse: the body of an answer of another status: its words, or len 0.
 * act:    carries out what the answer asks for and fills live->step but for
 *         its status.  NGX_OK, NGX_ERROR (run->reason is set), or NGX_AGAIN:
 *         ngx_http_agent_run_acted() will be called from an event.
 * drop:   act is under way and must not come back; run->pool is freed next.
 */

typedef struct {
    ngx_int_t  (*build)(ngx_http_agent_run_t *run, ngx_pool_t *pool,
        ngx_array_t *history, ngx_str_t *body, ngx_str_t *tail);
    ngx_int_t  (*open)(ngx_http_agent_run_t *run);
    ngx_int_t  (*feed)(ngx_http_agent_run_t *run, u_char *p, size_t n);
    ngx_int_t  (*finish)(ngx_http_agent_run_t *run);
    ngx_uint_t (*fault)(ngx_http_agent_run_t *run);
    ngx_int_t  (*refuse)(ngx_http_agent_run_t *run, u_char *p, size_t n,
        ngx_str_t *words);
    ngx_int_t  (*act)(ngx_http_agent_run_t *run);
    void       (*drop)(ngx_http_agent_run_t *run);
} ngx_http_agent_dialect_t;


/*
 * A run.  It lives in live->pool.  The request's body is on the heap until a
 * call was good; an answer lives in a pool of its own, made when the first
 * bytes come: a step that waits for its agent costs little.
 */

struct ngx_http_agent_run_s {
    ngx_queue_t                      queue;      /* all runs of the worker */
    ngx_agent_live_t                *live;
    const ngx_http_agent_dialect_t  *dialect;
    ngx_http_agent_run_state_e       state;

    ngx_http_agent_fake_t           *fake;       /* CALL */
    ngx_str_t                        body;
    ngx_str_t                        tail;       /* of the body, static */
    ngx_pool_t                      *pool;       /* CALL, ACT: the answer */
    void                            *answer;     /* the dialect's */

    ngx_pool_t                      *history;    /* HISTORY */
    ngx_agent_store_call_t          *call;
    ngx_uint_t                       tries;      /* of reading it */

    ngx_event_t                      timer;
    ngx_event_t                      event;      /* posted */

    ngx_agent_redact_t              *redact;     /* the input is a secret, or
                                                    NULL */
    ngx_uint_t                       status;     /* of the last; 0: none */
    ngx_msec_t                       retry_after;
    u_char                          *refusal;    /* body of another status */
    size_t                           refusal_len;

    ngx_str_t                        reason;     /* why it fails, to be
                                                    stored and shown */
    const char                      *what;       /* the same for the log,
                                                    in none but our words */

    unsigned                         silent:1;   /* the timer has fired */
    unsigned                         full:1;     /* feed said: no good */
    unsigned                         ready:1;    /* feed said: complete */
    unsigned                         nomem:1;
    unsigned                         timed_out:1;
};


extern const ngx_http_agent_dialect_t  ngx_http_agent_openai;


/* act has ended: rc as act returns it, but never NGX_AGAIN */
void ngx_http_agent_run_acted(ngx_http_agent_run_t *run, ngx_int_t rc);

/* the call is over, by itself or by silence; from an event */
void ngx_http_agent_run_called(void *data);

/*
 * Why the run or a call of it fails: a sentence, made in live->pool, with no
 * secret in it, and a static text for the log, which must not hold what an
 * endpoint has said.
 */
void ngx_http_agent_run_reason(ngx_http_agent_run_t *run, const char *what,
    const char *fmt, ...);

/*
 * One call (ngx_http_agent_attempt.c): starts it and arms the timer, NGX_OK
 * or NGX_ERROR with the reason set; and finds the reason of one that has
 * failed, 1 when another may help.
 */
ngx_int_t ngx_http_agent_attempt_start(ngx_http_agent_run_t *run);
ngx_uint_t ngx_http_agent_attempt_failure(ngx_http_agent_run_t *run);

/* bytes of a sentence about a failure */
#define NGX_HTTP_AGENT_RUN_REASON  512

/* bytes of a refusal that are kept and looked into */
#define NGX_HTTP_AGENT_RUN_REFUSAL  4096


#endif /* _NGX_HTTP_AGENT_DIALECT_H_INCLUDED_ */
