
/*
 * The artifacts that a run has made: kept in live->artifacts until the step
 * ends, and shown as JSON.  Bytes and rows are none of its business.
 */

#include "ngx_http_agent_made.h"
#include "ngx_agent_blob.h"
#include "ngx_agent_id.h"
#include "ngx_agent_json.h"


static ngx_int_t ngx_http_agent_made_name(ngx_pool_t *pool, ngx_str_t *name);


void
ngx_http_agent_made_init(ngx_agent_live_t *live,
    ngx_agent_artifact_t *artifact)
{
    ngx_memzero(artifact, sizeof(ngx_agent_artifact_t));

    ngx_agent_id_create(&artifact->id);
    artifact->task_id = live->task.id;
    artifact->step_id = live->step.id;
    artifact->by_agent = 1;
}


ngx_agent_artifact_t *
ngx_http_agent_made_add(ngx_agent_live_t *live, ngx_agent_artifact_t *artifact)
{
    ngx_agent_artifact_t  *a;

    if (live->artifacts == NULL) {
        live->artifacts = ngx_array_create(live->pool, 4,
                                           sizeof(ngx_agent_artifact_t));
    }

    a = live->artifacts ? ngx_array_push(live->artifacts) : NULL;

    if (a == NULL) {
        ngx_agent_blob_delete(&artifact->id, live->log);
        return NULL;
    }

    *a = *artifact;

    /* the names were parts of an answer, which does not last */

    if (ngx_http_agent_made_name(live->pool, &a->file_name) != NGX_OK
        || ngx_http_agent_made_name(live->pool, &a->relative_path) != NGX_OK)
    {
        /* in the array, so its blob goes with the others */
        ngx_str_null(&a->file_name);
        ngx_str_null(&a->relative_path);
        return NULL;
    }

    return a;
}


static ngx_int_t
ngx_http_agent_made_name(ngx_pool_t *pool, ngx_str_t *name)
{
    u_char  *p;

    p = ngx_pnalloc(pool, name->len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    if (name->len) {
        ngx_memcpy(p, name->data, name->len);
    }

    name->data = p;

    return NGX_OK;
}


ngx_int_t
ngx_http_agent_made_redact(ngx_http_agent_run_t *run)
{
    ngx_uint_t             i;
    ngx_agent_live_t      *live;
    ngx_agent_artifact_t  *artifact;

    live = run->live;

    if (live->artifacts == NULL) {
        return NGX_OK;
    }

    artifact = live->artifacts->elts;

    for (i = 0; i < live->artifacts->nelts; i++) {

        if (ngx_agent_redact_text(run->redact, live->pool,
                                  &artifact[i].file_name, 0)
            != NGX_OK
            || ngx_agent_redact_text(run->redact, live->pool,
                                     &artifact[i].relative_path, 0)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_agent_made_json(ngx_agent_live_t *live)
{
    ngx_uint_t             i;
    ngx_agent_json_t       j;
    ngx_agent_artifact_t  *artifact;

    if (live->artifacts == NULL) {
        return NGX_OK;
    }

    artifact = live->artifacts->elts;

    ngx_agent_json_init(&j, live->pool, live->artifacts->nelts * 160);
    ngx_agent_json_array(&j);

    for (i = 0; i < live->artifacts->nelts; i++) {
        ngx_agent_json_object(&j);
        ngx_agent_json_key(&j, "artifact_id");
        ngx_agent_json_id(&j, &artifact[i].id);
        ngx_agent_json_key(&j, "agent_created");
        ngx_agent_json_bool(&j, 1);
        ngx_agent_json_key(&j, "file_name");
        ngx_agent_json_string(&j, &artifact[i].file_name);
        ngx_agent_json_key(&j, "relative_path");
        ngx_agent_json_string(&j, &artifact[i].relative_path);
        ngx_agent_json_object_end(&j);
    }

    ngx_agent_json_array_end(&j);

    return ngx_agent_json_done(&j, &live->step.artifacts);
}
