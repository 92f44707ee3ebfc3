
/*
 * The artifacts that a run has made, whatever the dialect: their bytes are in
 * blob/ already, their rows are made by the transaction that ends the step.
 */

#ifndef _NGX_HTTP_AGENT_MADE_H_INCLUDED_
#define _NGX_HTTP_AGENT_MADE_H_INCLUDED_


#include "ngx_http_agent_dialect.h"


/* An artifact of the run's step, without names; not in live->artifacts yet. */
void ngx_http_agent_made_init(ngx_agent_live_t *live,
    ngx_agent_artifact_t *artifact);

/*
 * Its bytes are in blob/: a copy, with its names, goes into live->artifacts.
 * NULL: no memory; the blob will be removed.
 */
ngx_agent_artifact_t *ngx_http_agent_made_add(ngx_agent_live_t *live,
    ngx_agent_artifact_t *artifact);

/* A secret goes out of the names.  NGX_OK or NGX_ERROR: no memory. */
ngx_int_t ngx_http_agent_made_redact(ngx_http_agent_run_t *run);

/* live->step.artifacts: the protocol's own form, for who watches the step. */
ngx_int_t ngx_http_agent_made_json(ngx_agent_live_t *live);


#endif /* _NGX_HTTP_AGENT_MADE_H_INCLUDED_ */
