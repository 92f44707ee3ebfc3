
/*
 * Words and states: the names of statuses, their legal moves, and the story
 * of a step's attempts.
 */

#include "ngx_agent_step.h"


/* bytes of a story; then it is not told any further */
#define NGX_AGENT_STORY  8192


/* the legal moves of a status: ngx_agent_step_moves[from] has bit "to" */

#define TO(status)  (1u << NGX_AGENT_STEP_##status)

static const ngx_uint_t  ngx_agent_step_moves[] = {
    /* CREATED   */  TO(RUNNING) | TO(FAILED) | TO(CANCELLED),
    /* RUNNING   */  TO(COMPLETED) | TO(WAITING) | TO(FAILED) | TO(CANCELLED)
                     | TO(CREATED),
    /* COMPLETED */  0,
    /* WAITING   */  0,
    /* FAILED    */  0,
    /* CANCELLED */  0
};

static ngx_str_t  ngx_agent_step_names[] = {
    ngx_string("created"),
    ngx_string("running"),
    ngx_string("completed"),
    ngx_string("waiting_for_input"),
    ngx_string("failed"),
    ngx_string("cancelled")
};


ngx_str_t *
ngx_agent_status_name(ngx_agent_status_e status)
{
    return &ngx_agent_step_names[status];
}


ngx_int_t
ngx_agent_step_move(ngx_agent_step_t *step, ngx_agent_status_e to,
    ngx_log_t *log)
{
    if (!(ngx_agent_step_moves[step->status] & (1u << to))) {
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "agent step: illegal move from \"%V\" to \"%V\"",
                      ngx_agent_status_name(step->status),
                      ngx_agent_status_name(to));
        return NGX_ERROR;
    }

    step->status = to;

    return NGX_OK;
}


/*
 * "attempt 1: why; attempt 2: why".  The store writes in the same form what
 * became of the attempts of workers that are gone.
 */

void
ngx_agent_story_add(ngx_agent_live_t *live, ngx_str_t *why)
{
    size_t      len;
    u_char     *p, *last;
    ngx_str_t  *story;

    story = &live->step.story;

    if (story->len >= NGX_AGENT_STORY) {
        return;
    }

    len = story->len + sizeof("; attempt : ") + NGX_INT_T_LEN + why->len;

    p = ngx_pnalloc(live->pool, len);
    if (p == NULL) {
        /* the step goes on, with one line less in its story */
        return;
    }

    last = ngx_sprintf(p, "%V%s", story, story->len ? "; " : "");

    /* one that was not even started is no attempt */

    if (live->state != NGX_AGENT_LIVE_READY) {
        last = ngx_sprintf(last, "attempt %ui: ", ngx_agent_step_spent(live));
    }

    last = ngx_cpymem(last, why->data, why->len);

    story->data = p;
    story->len = last - p;
}


void
ngx_agent_story_end(ngx_agent_live_t *live, ngx_str_t *why, ngx_str_t *error)
{
    if (live->step.story.len == 0) {
        *error = *why;
        return;
    }

    ngx_agent_story_add(live, why);
    *error = live->step.story;
}
