
/*
 * The nouns of the module: ids, tasks, steps, artifacts, agents.  Types only:
 * no functions, no HTTP, no SQL.  Every room may include this file.
 */

#ifndef _NGX_AGENT_H_INCLUDED_
#define _NGX_AGENT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


#define NGX_AGENT_VERSION        "0.1.0"

/* the number in agent.schema_version that this build of the module needs */
#define NGX_AGENT_SCHEMA         4

#define NGX_AGENT_ID_LEN         36

/* nesting a client's or an LLM's JSON may have (DESIGN section 4) */
#define NGX_AGENT_JSON_DEPTH     64

#define NGX_AGENT_PAGE_SIZE      10
#define NGX_AGENT_PAGE_SIZE_MAX  1000


/* 16 bytes of a UUIDv7 (RFC 9562), network order, as Postgres sends them */

typedef struct {
    u_char                     bytes[16];
} ngx_agent_id_t;


/*
 * The status of a step, as stored in agent.step.status; never renumber.
 *
 *   CREATED  -> RUNNING                   a worker claimed it
 *            -> FAILED | CANCELLED        no worker took it in time; cancelled
 *   RUNNING  -> COMPLETED | WAITING | FAILED | CANCELLED
 *            -> CREATED                   back to the queue: handed back, to
 *                                         be tried later, or its worker died
 *
 * CREATED is what waits in the queue.  COMPLETED, WAITING, FAILED and
 * CANCELLED are final for the step; a waiting step is answered by the next
 * step.  ngx_agent_step_move() in core/ is the only function that changes it.
 */

typedef enum {
    NGX_AGENT_STEP_CREATED = 0,
    NGX_AGENT_STEP_RUNNING,
    NGX_AGENT_STEP_COMPLETED,
    NGX_AGENT_STEP_WAITING,
    NGX_AGENT_STEP_FAILED,
    NGX_AGENT_STEP_CANCELLED
} ngx_agent_status_e;


/*
 * Strings: data == NULL stands for null.  JSON members (additional_input,
 * additional_output, turns, artifacts) hold validated JSON text, byte for
 * byte as it was given; len 0 stands for "none".
 */

typedef struct {
    ngx_agent_id_t             id;
    ngx_str_t                  agent;
    ngx_str_t                  input;
    ngx_str_t                  additional_input;
    ngx_str_t                  artifacts;        /* JSON array of artifacts */
    ngx_str_t                  traceparent;      /* W3C, or len 0 */
} ngx_agent_task_t;


typedef struct {
    ngx_agent_id_t             id;
    ngx_agent_id_t             task_id;
    ngx_uint_t                 seq;              /* 1, 2, ... in the task */
    ngx_uint_t                 attempt;          /* the fence of the run: one
                                                    more with each claim and
                                                    each call of the agent */
    ngx_uint_t                 spared;           /* attempts that were handed
                                                    back and do not count */
    ngx_agent_status_e         status;
    ngx_str_t                  name;
    ngx_str_t                  input;
    ngx_str_t                  additional_input;
    ngx_str_t                  output;
    ngx_str_t                  additional_output;
    ngx_str_t                  turns;            /* JSON array of messages */
    ngx_str_t                  artifacts;        /* JSON array of artifacts */
    ngx_str_t                  story;            /* of attempts that failed:
                                                    "attempt 1: why; ..." */
    ngx_str_t                  run;              /* JSON: owner, lease, next
                                                    try; while not ended */
    ngx_str_t                  error;            /* of a failed one, its text */
    ngx_str_t                  traceparent;      /* W3C; len 0: the task's */
    ngx_str_t                  trace;            /* JSON objects with "," in
                                                    between: attempts that are
                                                    not on record yet; read:
                                                    all of them */
    ngx_uint_t                 code;             /* of a failed one: HTTP
                                                    status for who waits */
    uint64_t                   tokens_in;
    uint64_t                   tokens_out;
    unsigned                   is_last:1;
    unsigned                   secret:1;         /* it waits for a secret */
    unsigned                   redacted:1;       /* input is a secret: run/
                                                    alone may look at it */
} ngx_agent_step_t;


typedef struct {
    ngx_agent_id_t             id;               /* also names its blob */
    ngx_agent_id_t             task_id;
    ngx_agent_id_t             step_id;          /* if by_agent */
    ngx_str_t                  file_name;
    ngx_str_t                  relative_path;
    off_t                      size;
    unsigned                   by_agent:1;
} ngx_agent_artifact_t;


typedef struct {
    ngx_uint_t                 number;           /* from 1 */
    ngx_uint_t                 size;             /* PAGE_SIZE_MAX at most */
    unsigned                   desc:1;
} ngx_agent_page_t;


/*
 * An API key as the database knows it, by the SHA-256 of what the client
 * sends; the key itself is nowhere.
 */

#define NGX_AGENT_KEY_HASH  32

typedef struct {
    u_char                     hash[NGX_AGENT_KEY_HASH];
    ngx_agent_id_t             id;               /* what operators call it */
    ngx_str_t                  tenant;
    ngx_str_t                  agents;           /* names it may use, with ","
                                                    in between; data NULL: all
                                                    of them */
    int64_t                    expires;          /* ms since the epoch; 0:
                                                    never */
    unsigned                   read_only:1;
} ngx_agent_key_t;


/* Which limit of its tenant's a request is over; as SQL says it (sql/003). */

typedef enum {
    NGX_AGENT_QUOTA_NONE = 0,
    NGX_AGENT_QUOTA_RUNNING,    /* steps that run at once */
    NGX_AGENT_QUOTA_QUEUED,     /* steps that wait in the queue */
    NGX_AGENT_QUOTA_STEPS,      /* steps begun on a day (UTC) */
    NGX_AGENT_QUOTA_MONEY,      /* what the steps of a month (UTC) may cost */
    NGX_AGENT_QUOTA_BYTES       /* bytes of artifacts */
} ngx_agent_quota_e;


/* One line of what was used: of a tenant, on a day (UTC), by an agent. */

typedef struct {
    ngx_str_t                  tenant;
    ngx_str_t                  day;              /* "2026-11-22" */
    ngx_str_t                  agent;
    uint64_t                   steps;            /* that have ended */
    uint64_t                   completed;        /* of those, with a question
                                                    to the client included */
    uint64_t                   failed;
    uint64_t                   cancelled;
    uint64_t                   tokens_in;
    uint64_t                   tokens_out;
    ngx_str_t                  price;            /* exact decimal */
} ngx_agent_usage_t;


/*
 * A named backend: one "agent name { ... }" block.  Lives in the
 * configuration's pool, read-only after the configuration was read.
 */

typedef struct {
    ngx_str_t                  name;
    ngx_str_t                  pass;             /* uri of a location */
    ngx_uint_t                 dialect;          /* NGX_AGENT_DIALECT_* */
    ngx_str_t                  model;
    ngx_str_t                  description;
    ngx_str_t                  instructions;
    ngx_msec_t                 timeout;          /* ms without a byte */
    ngx_uint_t                 attempts;         /* LLM calls per step */
    ngx_uint_t                 max_steps;        /* steps per task */
    ngx_uint_t                 run;              /* NGX_AGENT_RUN_* */
    ngx_str_t                  price;            /* decimal, per step */
    size_t                     trace;            /* bytes of a request, and of
                                                    an answer, that the trace
                                                    keeps; 0: no trace */
    size_t                     max_answer;       /* bytes of one LLM answer */
    ngx_uint_t                 concurrency;      /* runs at once of one nginx;
                                                    0: no limit of its own */
    ngx_uint_t                 number;           /* from 0, in the order of
                                                    the configuration */

    /* of the server block the agent stands in; opaque below run/ */
    void                      *server_ctx;       /* ngx_http_conf_ctx_t * */
    u_char                    *conf_file;
    ngx_uint_t                 conf_line;
} ngx_agent_agent_t;

#define NGX_AGENT_DIALECT_OPENAI          0
#define NGX_AGENT_DIALECT_AGENT_PROTOCOL  1

#define NGX_AGENT_RUN_STEP                0
#define NGX_AGENT_RUN_AUTO                1


#endif /* _NGX_AGENT_H_INCLUDED_ */
