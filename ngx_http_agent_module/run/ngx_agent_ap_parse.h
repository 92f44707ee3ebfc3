
/*
 * The agent_protocol dialect, inward: what a container answers, a task, a
 * step, an artifact or a list of them, read as a whole.  Bytes only: no
 * request, no I/O; fuzzed by t/fuzz.
 *
 * What is read is stored and shown to clients, so it is read strictly: valid
 * JSON, valid UTF-8.  What is missing is not complained about in here.
 */

#ifndef _NGX_AGENT_AP_PARSE_H_INCLUDED_
#define _NGX_AGENT_AP_PARSE_H_INCLUDED_


#include "ngx_agent.h"


/* artifacts that one answer may list */
#define NGX_AGENT_AP_FILES   1000

/* bytes of a container's id */
#define NGX_AGENT_AP_ID_MAX  256


/* an artifact as a container lists it; data == NULL: not given */

typedef struct {
    ngx_str_t                  id;
    ngx_str_t                  file_name;
    ngx_str_t                  relative_path;
    unsigned                   by_agent:1;
    unsigned                   by_client:1;  /* neither: it does not say */
} ngx_agent_ap_file_t;


typedef enum {
    NGX_AGENT_AP_NONE = 0,         /* no status was given */
    NGX_AGENT_AP_RUNNING,          /* created, running */
    NGX_AGENT_AP_COMPLETED,
    NGX_AGENT_AP_WAITING,          /* beyond the specification, as are the */
    NGX_AGENT_AP_FAILED,           /* next two: what this module answers */
    NGX_AGENT_AP_CANCELLED,        /* itself */
    NGX_AGENT_AP_UNKNOWN
} ngx_agent_ap_status_e;


/* strings: data == NULL: not given, or null */

typedef struct {
    ngx_str_t                  task_id;
    ngx_str_t                  step_id;
    ngx_str_t                  name;
    ngx_str_t                  status_name;
    ngx_str_t                  output;       /* JSON if it is no string */
    ngx_str_t                  additional_output;    /* a JSON object */
    ngx_str_t                  error;        /* additional_output.error */
    ngx_array_t                files;        /* of ngx_agent_ap_file_t */
    ngx_uint_t                 pages;        /* of a list, in all */
    ngx_agent_ap_status_e      status;
    unsigned                   is_last:1;
    unsigned                   listed:1;     /* artifacts, if only [] */
    unsigned                   needs_input:1;
    unsigned                   large:1;      /* too many artifacts */

    ngx_pool_t                *pool;         /* private */
} ngx_agent_ap_answer_t;


/*
 * Reads doc; what it finds is in pool or points into doc.  NGX_OK;
 * NGX_DECLINED: it is no JSON object, *why reads on from "the answer ";
 * NGX_ERROR: no memory.
 */
ngx_int_t ngx_agent_ap_parse(ngx_pool_t *pool, ngx_str_t *doc,
    ngx_agent_ap_answer_t *answer, const char **why);

/*
 * 1: a container's id that may stand in a uri and in the step's turns: 1 to
 * 256 of the characters that need no escape in either.
 */
ngx_uint_t ngx_agent_ap_id_good(ngx_str_t *id);

/*
 * What the container calls a file, as we may call it: both strings are set,
 * and point into the file's.  NULL, or why not: it reads on from "the answer ".
 */
const char *ngx_agent_ap_file_name(ngx_agent_ap_file_t *file,
    ngx_str_t *file_name, ngx_str_t *relative_path);


#endif /* _NGX_AGENT_AP_PARSE_H_INCLUDED_ */
