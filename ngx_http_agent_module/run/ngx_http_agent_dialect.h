
/*
 * A dialect: what is said to an agent, and what its answer means.  And the
 * run itself, which the files of this room share.
 */

#ifndef _NGX_HTTP_AGENT_DIALECT_H_INCLUDED_
#define _NGX_HTTP_AGENT_DIALECT_H_INCLUDED_


#include "ngx_http_agent_run.h"
#include "ngx_http_agent_fake.h"
#include "ngx_http_agent_trace.h"
#include "ngx_agent_redact.h"


/*
 * The states of a run, and the only function that changes them is
 * ngx_http_agent_run_move():
 *
 *   HISTORY  the store is asked for the steps before this one; or the
 *            timer runs until it is asked again
 *   CALL     a request to the agent is under way; the timer watches silence.
 *            Or, between two of them, the timer runs until the next one
 *   PAUSE    a call has failed; an event tells core/, which then has us make
 *            the next call, or ends the run
 *   ACT      the answer was good; the dialect carries out what it asks for,
 *            and may want to make another request for the same attempt
 *   END      the step is made up; an event will hand it to core/
 *   FAIL     it fails; an event will say so to core/
 *
 *   HISTORY -> CALL | FAIL
 *   CALL    -> PAUSE | ACT | FAIL
 *   PAUSE   -> CALL
 *   ACT     -> CALL | END | FAIL
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
 * peer:   whom it speaks to, for sentences.
 * recall: starts the next read of the store that the run needs, with a call
 *         that has pool, handler, task and step: NGX_AGAIN or NGX_ABORT.
 *         NULL: that is the history, for steps that have one.
 * recalled: it was read: NGX_OK: that was all; NGX_AGAIN: recall goes on;
 *         NGX_ERROR.  With it, build is for ngx_http_agent_run_body() only.
 * build:  the request's body, from the steps before this one (may be NULL):
 *         *body in pool, and behind it *tail, which outlives the call.
 * ask:    fills in what the next call asks for, beyond its body; NGX_OK, or
 *         with the run's reason set NGX_ERROR: try again, or NGX_DECLINED: it
 *         is of no use.  NULL: it is all in the configuration.
 * takes:  1: an answer of another status than 200 to 299 is one all the same.
 *         NULL: never.
 * open:   a call starts to answer; run->answer may be set, in run->pool.
 * feed:   bytes of the answer.  NGX_OK; NGX_DONE: complete, what follows does
 *         not matter; NGX_DECLINED: no good; NGX_ERROR: no memory.
 * finish: the call has ended.  NGX_OK: a good answer; NGX_DECLINED: no good;
 *         NGX_ERROR: no memory.
 * fault:  after NGX_DECLINED: sets the reason; returns 1 when another attempt
 *         may help.
 * refuse: the body of an answer of another status: its words, or len 0.
 * refused: sets the reason for such a status, with those words; returns 1
 *         when another attempt may help.  NULL: the usual reasons.
 * act:    carries out what the answer asks for and fills live->step but for
 *         its status.  NGX_OK; NGX_ERROR (run->reason is set); NGX_DONE: the
 *         next call is to be made, in run->delay ms; or NGX_AGAIN:
 *         ngx_http_agent_run_acted() will be called from an event.
 * drop:   act is under way and must not come back; run->pool is freed next.
 * keep:   the run pauses or is over, whatever its end: what whoever goes on
 *         with the task must know is put into live->step.turns.  NULL: there
 *         is nothing.
 */

typedef struct {
    const char  *peer;
    ngx_int_t  (*recall)(ngx_http_agent_run_t *run,
        ngx_agent_store_call_t *call);
    ngx_int_t  (*recalled)(ngx_http_agent_run_t *run,
        ngx_agent_store_call_t *call);
    ngx_int_t  (*build)(ngx_http_agent_run_t *run, ngx_pool_t *pool,
        ngx_array_t *history, ngx_str_t *body, ngx_str_t *tail);
    ngx_int_t  (*ask)(ngx_http_agent_run_t *run,
        ngx_http_agent_fake_conf_t *conf);
    ngx_uint_t (*takes)(ngx_http_agent_run_t *run);
    ngx_int_t  (*open)(ngx_http_agent_run_t *run);
    ngx_int_t  (*feed)(ngx_http_agent_run_t *run, u_char *p, size_t n);
    ngx_int_t  (*finish)(ngx_http_agent_run_t *run);
    ngx_uint_t (*fault)(ngx_http_agent_run_t *run);
    ngx_int_t  (*refuse)(ngx_http_agent_run_t *run, u_char *p, size_t n,
        ngx_str_t *words);
    ngx_uint_t (*refused)(ngx_http_agent_run_t *run, ngx_str_t *words);
    ngx_int_t  (*act)(ngx_http_agent_run_t *run);
    void       (*drop)(ngx_http_agent_run_t *run);
    void       (*keep)(ngx_http_agent_run_t *run);
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
    void                            *talk;       /* the dialect's, from call
                                                    to call; in live->pool */
    ngx_msec_t                       delay;      /* before the next call */

    ngx_pool_t                      *history;    /* HISTORY */
    ngx_agent_store_call_t          *call;
    ngx_uint_t                       tries;      /* of reading it */

    ngx_event_t                      timer;
    ngx_event_t                      event;      /* posted */

    ngx_http_agent_trace_t           trace;      /* of the call under way */

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
    unsigned                         more:1;     /* the attempt has made a
                                                    call before this one */
    unsigned                         complete:1; /* the answer did not break
                                                    off */
};


extern const ngx_http_agent_dialect_t  ngx_http_agent_openai;
extern const ngx_http_agent_dialect_t  ngx_http_agent_ap;


/* the one function that changes run->state */
void ngx_http_agent_run_move(ngx_http_agent_run_t *run,
    ngx_http_agent_run_state_e to);

/* reads what the run needs to know, again if it could not be read; then: */
void ngx_http_agent_run_remember(ngx_http_agent_run_t *run);

/* the body, kept on the heap; NGX_OK or NGX_ERROR: no memory */
ngx_int_t ngx_http_agent_run_build(ngx_http_agent_run_t *run,
    ngx_array_t *history);

/* HISTORY, PAUSE: the call goes out */
void ngx_http_agent_run_call(ngx_http_agent_run_t *run);

/* act has ended: rc as act returns it, but never NGX_AGAIN */
void ngx_http_agent_run_acted(ngx_http_agent_run_t *run, ngx_int_t rc);

/*
 * For a dialect that has another body for each call: the one there is goes,
 * and build makes a new one.  NGX_OK or NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_agent_run_body(ngx_http_agent_run_t *run);

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
 * or with the reason set NGX_ERROR, or NGX_DECLINED: no other will help; and
 * finds the reason of one that has failed, 1 when another may help.
 */
ngx_int_t ngx_http_agent_attempt_start(ngx_http_agent_run_t *run);
ngx_uint_t ngx_http_agent_attempt_failure(ngx_http_agent_run_t *run);

/* bytes of a sentence about a failure */
#define NGX_HTTP_AGENT_RUN_REASON  512

/* bytes of a refusal that are kept and looked into */
#define NGX_HTTP_AGENT_RUN_REFUSAL  4096


#endif /* _NGX_HTTP_AGENT_DIALECT_H_INCLUDED_ */
