
/*
 * Tasks, steps and artifacts as JSON.  Writes text only: no request is
 * touched, nothing is sent.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_agent_core.h"
#include "ngx_http_agent_view.h"


/* keys, ids, punctuation and a few escapes */
#define NGX_HTTP_AGENT_VIEW_FRAME  384


static ngx_str_t *ngx_http_agent_view_status(ngx_agent_step_t *step,
    ngx_uint_t strict);


void
ngx_http_agent_view_task(ngx_agent_json_t *j, ngx_agent_task_t *task)
{
    ngx_agent_json_object(j);

    ngx_agent_json_key(j, "task_id");
    ngx_agent_json_id(j, &task->id);

    ngx_agent_json_key(j, "input");
    ngx_agent_json_string(j, &task->input);

    ngx_agent_json_key(j, "additional_input");
    ngx_agent_json_raw(j, &task->additional_input, "{}");

    ngx_agent_json_key(j, "artifacts");
    ngx_agent_json_raw(j, &task->artifacts, "[]");

    ngx_agent_json_object_end(j);
}


void
ngx_http_agent_view_step(ngx_agent_json_t *j, ngx_agent_step_t *step,
    ngx_uint_t strict)
{
    static ngx_str_t  redacted = ngx_string("[redacted]");

    ngx_agent_json_object(j);

    ngx_agent_json_key(j, "task_id");
    ngx_agent_json_id(j, &step->task_id);

    ngx_agent_json_key(j, "step_id");
    ngx_agent_json_id(j, &step->id);

    ngx_agent_json_key(j, "name");
    ngx_agent_json_string(j, &step->name);

    ngx_agent_json_key(j, "status");
    ngx_agent_json_string(j, ngx_http_agent_view_status(step, strict));

    /* whoever has given us a secret is not to see it again */

    ngx_agent_json_key(j, "input");
    ngx_agent_json_string(j, step->redacted && step->input.data
                                 ? &redacted : &step->input);

    ngx_agent_json_key(j, "additional_input");
    ngx_agent_json_raw(j, &step->additional_input, "{}");

    ngx_agent_json_key(j, "output");
    ngx_agent_json_string(j, &step->output);

    ngx_agent_json_key(j, "additional_output");
    ngx_agent_json_raw(j, &step->additional_output, "null");

    ngx_agent_json_key(j, "artifacts");
    ngx_agent_json_raw(j, &step->artifacts, "[]");

    ngx_agent_json_key(j, "is_last");
    ngx_agent_json_bool(j, step->is_last);

    if (step->status == NGX_AGENT_STEP_WAITING) {
        ngx_agent_json_key(j, "additional_input_needed");
        ngx_agent_json_bool(j, 1);
    }

    if (step->run.len && !ngx_agent_step_is_ended(step)) {
        ngx_agent_json_key(j, "run");
        ngx_agent_json_raw(j, &step->run, "null");
    }

    ngx_agent_json_object_end(j);
}


/*
 * A client generated from the spec's closed enum fails on any other word.  It
 * is told "completed" for every end, since the step will not change any more.
 */

static ngx_str_t *
ngx_http_agent_view_status(ngx_agent_step_t *step, ngx_uint_t strict)
{
    if (strict
        && (step->status == NGX_AGENT_STEP_WAITING
            || step->status == NGX_AGENT_STEP_FAILED
            || step->status == NGX_AGENT_STEP_CANCELLED))
    {
        return ngx_agent_status_name(NGX_AGENT_STEP_COMPLETED);
    }

    return ngx_agent_status_name(step->status);
}


void
ngx_http_agent_view_artifact(ngx_agent_json_t *j,
    ngx_agent_artifact_t *artifact)
{
    ngx_agent_json_object(j);

    ngx_agent_json_key(j, "artifact_id");
    ngx_agent_json_id(j, &artifact->id);

    ngx_agent_json_key(j, "agent_created");
    ngx_agent_json_bool(j, artifact->by_agent);

    ngx_agent_json_key(j, "file_name");
    ngx_agent_json_string(j, &artifact->file_name);

    ngx_agent_json_key(j, "relative_path");
    ngx_agent_json_string(j, &artifact->relative_path);

    ngx_agent_json_object_end(j);
}


void
ngx_http_agent_view_pagination(ngx_agent_json_t *j, ngx_agent_page_t *page,
    ngx_uint_t total)
{
    ngx_agent_json_key(j, "pagination");
    ngx_agent_json_object(j);

    ngx_agent_json_key(j, "total_items");
    ngx_agent_json_int(j, total);

    ngx_agent_json_key(j, "total_pages");
    ngx_agent_json_int(j, total / page->size + (total % page->size ? 1 : 0));

    ngx_agent_json_key(j, "current_page");
    ngx_agent_json_int(j, page->number);

    ngx_agent_json_key(j, "page_size");
    ngx_agent_json_int(j, page->size);

    ngx_agent_json_object_end(j);
}


size_t
ngx_http_agent_view_task_size(ngx_agent_task_t *task)
{
    return NGX_HTTP_AGENT_VIEW_FRAME + task->input.len
           + task->additional_input.len + task->artifacts.len;
}


size_t
ngx_http_agent_view_step_size(ngx_agent_step_t *step)
{
    return NGX_HTTP_AGENT_VIEW_FRAME + step->name.len + step->input.len
           + step->additional_input.len + step->output.len
           + step->additional_output.len + step->artifacts.len
           + step->run.len;
}


size_t
ngx_http_agent_view_artifact_size(ngx_agent_artifact_t *artifact)
{
    return 192 + artifact->file_name.len + artifact->relative_path.len;
}
