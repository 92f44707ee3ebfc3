
/*
 * The agent_protocol dialect, inside: shared by ngx_http_agent_ap.c (what is
 * asked next), ngx_http_agent_ap_judge.c (whether an answer is good) and
 * ngx_http_agent_ap_files.c (files that go to the container and come from
 * it), and by nobody else.
 */

#ifndef _NGX_HTTP_AGENT_AP_H_INCLUDED_
#define _NGX_HTTP_AGENT_AP_H_INCLUDED_


#include "ngx_http_agent_dialect.h"
#include "ngx_agent_ap_build.h"
#include "ngx_agent_blob.h"


/*
 * What the next call to the container is.  A failed one is made again by the
 * next attempt, those before it are not.
 *
 *   TASK      POST tasks: ours is made there, too
 *   UPLOAD    POST artifacts: one that a client gave us
 *   STEP      POST steps
 *   POLL      GET the step, which runs in the background there
 *   LIST      GET artifacts, if the step does not say which it has
 *   DOWNLOAD  GET an artifact: it becomes ours
 *
 *   TASK -> UPLOAD | STEP;  UPLOAD -> UPLOAD | STEP | POLL;
 *   STEP, POLL -> POLL | LIST | DOWNLOAD;  LIST -> LIST | DOWNLOAD;
 *   DOWNLOAD -> DOWNLOAD
 */

typedef enum {
    NGX_HTTP_AGENT_AP_TASK = 0,
    NGX_HTTP_AGENT_AP_UPLOAD,
    NGX_HTTP_AGENT_AP_STEP,
    NGX_HTTP_AGENT_AP_POLL,
    NGX_HTTP_AGENT_AP_LIST,
    NGX_HTTP_AGENT_AP_DOWNLOAD
} ngx_http_agent_ap_stage_e;


/* what is read from the store, in this order */

typedef enum {
    NGX_HTTP_AGENT_AP_HISTORY = 0,
    NGX_HTTP_AGENT_AP_INPUT,       /* additional_input of the task */
    NGX_HTTP_AGENT_AP_FILES        /* artifacts, page by page */
} ngx_http_agent_ap_recall_e;


/* run->talk: from call to call and attempt to attempt, in live->pool */

typedef struct {
    ngx_http_agent_ap_recall_e  recall;
    ngx_http_agent_ap_stage_e   stage;
    ngx_agent_ap_memory_t       memory;
    ngx_agent_page_t            page;       /* of our artifacts */
    ngx_str_t                   task_input; /* additional */

    ngx_array_t                 uploads;    /* of ngx_agent_artifact_t */
    ngx_uint_t                  upload;     /* the one under way */
    ngx_array_t                 files;      /* of ngx_agent_ap_file_t, to be
                                               downloaded */
    ngx_uint_t                  file;       /* the one under way */
    size_t                      budget;     /* bytes they may yet have */
    ngx_uint_t                  list_page;  /* of the container's */

    ngx_uint_t                  polls;
    uint32_t                    seen;       /* checksum of the last answer */
    ngx_msec_t                  since;      /* ... which has not changed */

    ngx_agent_status_e          status;     /* the step's, at its end */
    unsigned                    stores:1;   /* this server keeps artifacts */

    u_char                     *uri;
    u_char                      key[2 * NGX_AGENT_ID_LEN + 1 + NGX_INT_T_LEN];
    u_char                      boundary[NGX_AGENT_AP_BOUNDARY_LEN];
    u_char                      tail[NGX_AGENT_AP_TAIL_LEN];
    u_char                      type[sizeof("multipart/form-data; boundary=")
                                     + NGX_AGENT_AP_BOUNDARY_LEN];
} ngx_http_agent_ap_t;


/* run->answer: of one call, in run->pool */

typedef struct {
    u_char                     *text;       /* JSON */
    size_t                      len;
    size_t                      size;
    ngx_agent_ap_answer_t       ap;

    ngx_agent_blob_t            blob;       /* DOWNLOAD */
    ngx_agent_artifact_t        artifact;

    const char                 *why;        /* "the answer ..." */
    unsigned                    retry:1;    /* another may be better */
    unsigned                    said:1;     /* the reason is set already */
    unsigned                    slow:1;     /* ... and the step timed out */
} ngx_http_agent_ap_answer_t;


/* ngx_http_agent_ap.c */

/* All was downloaded: the step is made up.  NGX_OK or NGX_ERROR. */
ngx_int_t ngx_http_agent_ap_end(ngx_http_agent_run_t *run);


/* ngx_http_agent_ap_judge.c */

/* what each stage is called in sentences: "answered ... with status" */
extern const char  *ngx_http_agent_ap_names[];

/* as the dialect's functions */
ngx_uint_t ngx_http_agent_ap_takes(ngx_http_agent_run_t *run);
ngx_int_t ngx_http_agent_ap_open(ngx_http_agent_run_t *run);
ngx_int_t ngx_http_agent_ap_feed(ngx_http_agent_run_t *run, u_char *p,
    size_t n);
ngx_int_t ngx_http_agent_ap_finish(ngx_http_agent_run_t *run);
ngx_uint_t ngx_http_agent_ap_fault(ngx_http_agent_run_t *run);
ngx_int_t ngx_http_agent_ap_refuse(ngx_http_agent_run_t *run,
    u_char *p, size_t n, ngx_str_t *words);
ngx_uint_t ngx_http_agent_ap_refused(ngx_http_agent_run_t *run,
    ngx_str_t *words);

/*
 * The answer is no good: always returns NGX_DECLINED.  why reads on from "the
 * answer of ...".
 */
ngx_int_t ngx_http_agent_ap_bad(ngx_http_agent_run_t *run, const char *why,
    ngx_uint_t retry);


/* ngx_http_agent_ap_files.c */

/* Of a page of our artifacts those that the container does not have. */
ngx_int_t ngx_http_agent_ap_uploads(ngx_http_agent_run_t *run,
    ngx_array_t *list);

/*
 * For an upload: opens its bytes, and sets the form's type.  NGX_OK, or
 * NGX_DECLINED with the reason set: they are gone.
 */
ngx_int_t ngx_http_agent_ap_upload(ngx_http_agent_run_t *run,
    ngx_http_agent_fake_conf_t *conf);

/* The container has taken it. */
ngx_int_t ngx_http_agent_ap_uploaded(ngx_http_agent_run_t *run);

/*
 * The artifacts of an answer: those that are new are to be downloaded.
 * NGX_OK; NGX_DECLINED: as ngx_http_agent_ap_bad(); NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_agent_ap_files(ngx_http_agent_run_t *run,
    ngx_agent_ap_answer_t *ap);

/* a download: its beginning, its bytes, its end; as the dialect's functions */
ngx_int_t ngx_http_agent_ap_download_open(ngx_http_agent_run_t *run);
ngx_int_t ngx_http_agent_ap_download_feed(ngx_http_agent_run_t *run,
    u_char *p, size_t n);
ngx_int_t ngx_http_agent_ap_download_finish(ngx_http_agent_run_t *run);
ngx_int_t ngx_http_agent_ap_download_act(ngx_http_agent_run_t *run);


#endif /* _NGX_HTTP_AGENT_AP_H_INCLUDED_ */
