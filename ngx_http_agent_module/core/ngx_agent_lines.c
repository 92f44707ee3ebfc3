
/*
 * The lines of tenants before the agents.  Each is in one list, which is its
 * state, and one function moves it.  There are no more than so many in a
 * worker: who finds no room, or is forgotten, is found by the poll.
 */

#include "ngx_agent_lines.h"


#define NGX_AGENT_LINES_MAX      4096

/* ms until one at its limit is asked for again: its steps may end elsewhere */
#define NGX_AGENT_LINES_LIMITED  200

/* ms of which nothing was heard */
#define NGX_AGENT_LINES_IDLE     60000


/*
 *   IDLE     nothing is known to wait
 *   HUNGRY   there may be steps: it is asked for in turn
 *   ASKED    a claim for it is under way
 *   LIMITED  its tenant runs as many steps as he may
 *
 *   IDLE -> HUNGRY;  HUNGRY -> ASKED;  ASKED -> IDLE | HUNGRY | LIMITED;
 *   LIMITED -> HUNGRY
 *
 * IDLE and LIMITED have one list for all agents, the oldest first.
 */

typedef enum {
    NGX_AGENT_LINE_IDLE = 0,
    NGX_AGENT_LINE_HUNGRY,
    NGX_AGENT_LINE_ASKED,
    NGX_AGENT_LINE_LIMITED
} ngx_agent_line_state_e;


/*
 * again: also from of old.  While a claim was under way: more: news came;
 * ended: a step of the tenant's has ended.
 */

typedef struct {
    ngx_str_node_t             node;         /* first: found by its tenant */
    ngx_queue_t                queue;
    ngx_agent_lines_t         *lines;
    ngx_agent_line_state_e     state;
    int64_t                    since;        /* the store's own */
    ngx_msec_t                 time;         /* IDLE, LIMITED: since when */
    unsigned                   again:1;
    unsigned                   more:1;
    unsigned                   ended:1;
    unsigned                   limited:1;    /* the last time */
} ngx_agent_turn_t;


static ngx_agent_turn_t *ngx_agent_lines_find(ngx_agent_lines_t *lines,
    ngx_str_t *tenant);
static ngx_agent_turn_t *ngx_agent_lines_create(ngx_agent_lines_t *lines,
    ngx_str_t *tenant);
static ngx_uint_t ngx_agent_lines_room(ngx_agent_lines_t *lines);
static void ngx_agent_lines_move(ngx_agent_turn_t *turn,
    ngx_agent_line_state_e to);
static ngx_agent_line_state_e ngx_agent_lines_after(ngx_agent_turn_t *turn,
    ngx_agent_line_t *line);
static void ngx_agent_lines_remove(ngx_agent_turn_t *turn);
static void ngx_agent_lines_due(ngx_event_t *ev);


static ngx_queue_t       ngx_agent_lines_all;
static ngx_queue_t       ngx_agent_lines_idle;
static ngx_queue_t       ngx_agent_lines_limited;
static ngx_uint_t        ngx_agent_lines_n;
static ngx_event_t      *ngx_agent_lines_wake;

/* debug builds log the socket of every timer's connection */
static ngx_connection_t  ngx_agent_lines_dumb;

static ngx_event_t       ngx_agent_lines_timer;


void
ngx_agent_lines_init(ngx_cycle_t *cycle, ngx_event_t *wake)
{
    ngx_queue_init(&ngx_agent_lines_all);
    ngx_queue_init(&ngx_agent_lines_idle);
    ngx_queue_init(&ngx_agent_lines_limited);

    ngx_agent_lines_n = 0;
    ngx_agent_lines_wake = wake;

    ngx_memzero(&ngx_agent_lines_timer, sizeof(ngx_event_t));
    ngx_agent_lines_timer.handler = ngx_agent_lines_due;
    ngx_agent_lines_timer.log = cycle->log;
    ngx_agent_lines_timer.data = &ngx_agent_lines_dumb;
    ngx_agent_lines_timer.cancelable = 1;
}


void
ngx_agent_lines_add(ngx_agent_lines_t *lines)
{
    ngx_rbtree_init(&lines->rbtree, &lines->sentinel,
                    ngx_str_rbtree_insert_value);
    ngx_queue_init(&lines->hungry);
    ngx_queue_init(&lines->asked);
    lines->nhungry = 0;

    ngx_queue_insert_tail(&ngx_agent_lines_all, &lines->all);
}


void
ngx_agent_lines_exit(void)
{
    ngx_queue_t        *q;
    ngx_rbtree_t       *rbtree;
    ngx_agent_lines_t  *lines;

    if (ngx_agent_lines_wake == NULL) {
        /* there was no init */
        return;
    }

    for (q = ngx_queue_head(&ngx_agent_lines_all);
         q != ngx_queue_sentinel(&ngx_agent_lines_all);
         q = ngx_queue_next(q))
    {
        lines = ngx_queue_data(q, ngx_agent_lines_t, all);
        rbtree = &lines->rbtree;

        while (rbtree->root != rbtree->sentinel) {
            ngx_agent_lines_remove((ngx_agent_turn_t *) rbtree->root);
        }
    }

    if (ngx_agent_lines_timer.timer_set) {
        ngx_del_timer(&ngx_agent_lines_timer);
    }

    ngx_agent_lines_wake = NULL;
}


void
ngx_agent_lines_news(ngx_agent_lines_t *lines, ngx_str_t *tenant,
    ngx_uint_t again)
{
    ngx_agent_turn_t  *turn;

    turn = ngx_agent_lines_find(lines, tenant);

    if (turn == NULL) {
        turn = ngx_agent_lines_create(lines, tenant);
        if (turn == NULL) {
            return;
        }
    }

    turn->again |= again;

    switch (turn->state) {

    case NGX_AGENT_LINE_IDLE:
        ngx_agent_lines_move(turn, NGX_AGENT_LINE_HUNGRY);
        return;

    case NGX_AGENT_LINE_ASKED:
        turn->more = 1;
        return;

    default:
        /* it will be asked for anyway */
        return;
    }
}


static ngx_agent_turn_t *
ngx_agent_lines_find(ngx_agent_lines_t *lines, ngx_str_t *tenant)
{
    ngx_str_t  name;

    name.len = tenant->len;
    name.data = tenant->len ? tenant->data : (u_char *) "";

    return (ngx_agent_turn_t *)
           ngx_str_rbtree_lookup(&lines->rbtree, &name,
                                 ngx_crc32_short(name.data, name.len));
}


/* NULL: no memory or no room */

static ngx_agent_turn_t *
ngx_agent_lines_create(ngx_agent_lines_t *lines, ngx_str_t *tenant)
{
    u_char            *p;
    ngx_agent_turn_t  *turn;

    if (!ngx_agent_lines_room(lines)) {
        return NULL;
    }

    turn = ngx_calloc(sizeof(ngx_agent_turn_t) + tenant->len, ngx_cycle->log);
    if (turn == NULL) {
        return NULL;
    }

    p = (u_char *) turn + sizeof(ngx_agent_turn_t);

    if (tenant->len) {
        ngx_memcpy(p, tenant->data, tenant->len);
    }

    turn->node.str.data = p;
    turn->node.str.len = tenant->len;
    turn->node.node.key = ngx_crc32_short(p, tenant->len);
    ngx_rbtree_insert(&lines->rbtree, &turn->node.node);

    turn->lines = lines;
    turn->time = ngx_current_msec;
    ngx_queue_insert_tail(&ngx_agent_lines_idle, &turn->queue);
    ngx_agent_lines_n++;

    return turn;
}


/*
 * When there are too many, the one of which nothing is known goes, or else
 * the last in turn: it was served a moment ago, or came a moment ago, and the
 * poll will find it.
 */

static ngx_uint_t
ngx_agent_lines_room(ngx_agent_lines_t *lines)
{
    ngx_queue_t  *q;

    if (ngx_agent_lines_n < NGX_AGENT_LINES_MAX) {
        return 1;
    }

    if (!ngx_queue_empty(&ngx_agent_lines_idle)) {
        q = ngx_queue_head(&ngx_agent_lines_idle);

    } else if (!ngx_queue_empty(&lines->hungry)) {
        q = ngx_queue_last(&lines->hungry);

    } else {
        return 0;
    }

    ngx_agent_lines_remove(ngx_queue_data(q, ngx_agent_turn_t, queue));

    return 1;
}


/* the end of a list is the end of the turn */

static void
ngx_agent_lines_move(ngx_agent_turn_t *turn, ngx_agent_line_state_e to)
{
    ngx_queue_t        *list;
    ngx_agent_lines_t  *lines;

    lines = turn->lines;

    if (turn->state == NGX_AGENT_LINE_HUNGRY) {
        lines->nhungry--;
    }

    switch (to) {

    case NGX_AGENT_LINE_HUNGRY:
        lines->nhungry++;
        list = &lines->hungry;
        break;

    case NGX_AGENT_LINE_ASKED:
        list = &lines->asked;
        break;

    case NGX_AGENT_LINE_LIMITED:
        list = &ngx_agent_lines_limited;
        break;

    default:
        list = &ngx_agent_lines_idle;
        break;
    }

    ngx_queue_remove(&turn->queue);
    ngx_queue_insert_tail(list, &turn->queue);

    turn->time = ngx_current_msec;
    turn->state = to;
}


static void
ngx_agent_lines_remove(ngx_agent_turn_t *turn)
{
    if (turn->state == NGX_AGENT_LINE_HUNGRY) {
        turn->lines->nhungry--;
    }

    ngx_rbtree_delete(&turn->lines->rbtree, &turn->node.node);
    ngx_queue_remove(&turn->queue);
    ngx_agent_lines_n--;

    ngx_free(turn);
}


/*
 * No more tenants than steps, and their shares together are what may come: so
 * one that gets less than its share has no more.
 */

ngx_int_t
ngx_agent_lines_ask(ngx_agent_lines_t *lines, ngx_agent_store_call_t *call)
{
    ngx_uint_t         i, n;
    ngx_queue_t       *q;
    ngx_agent_line_t  *line;
    ngx_agent_turn_t  *turn;

    n = ngx_min(lines->nhungry, NGX_AGENT_LINES_CLAIM);
    n = ngx_min(n, call->limit);

    call->lines = ngx_array_create(call->pool, n, sizeof(ngx_agent_line_t));
    if (n == 0 || call->lines == NULL) {
        return NGX_ERROR;
    }

    line = ngx_array_push_n(call->lines, n);
    ngx_memzero(line, n * sizeof(ngx_agent_line_t));

    for (i = 0; i < n; i++) {
        q = ngx_queue_head(&lines->hungry);
        turn = ngx_queue_data(q, ngx_agent_turn_t, queue);

        line[i].tenant = turn->node.str;
        line[i].share = call->limit / n + (i < call->limit % n);
        line[i].since = turn->again ? 0 : turn->since;
        line[i].limited = turn->limited;

        turn->since = line[i].since;
        turn->again = 0;
        turn->more = 0;
        turn->ended = 0;

        ngx_agent_lines_move(turn, NGX_AGENT_LINE_ASKED);
    }

    return NGX_OK;
}


/* a claim that failed leaves it to the poll to ask again */

void
ngx_agent_lines_told(ngx_agent_lines_t *lines, ngx_agent_store_call_t *call)
{
    ngx_uint_t         i;
    ngx_queue_t       *q;
    ngx_agent_line_t  *line;
    ngx_agent_turn_t  *turn;

    line = call->lines->elts;

    for (i = 0; i < call->lines->nelts; i++) {
        q = ngx_queue_head(&lines->asked);
        turn = ngx_queue_data(q, ngx_agent_turn_t, queue);

        ngx_agent_lines_move(turn, call->rc == NGX_OK
                                   ? ngx_agent_lines_after(turn, &line[i])
                                   : NGX_AGENT_LINE_IDLE);
    }

    if (!ngx_agent_lines_timer.timer_set
        && !ngx_queue_empty(&ngx_agent_lines_limited))
    {
        ngx_add_timer(&ngx_agent_lines_timer, NGX_AGENT_LINES_LIMITED);
    }
}


static ngx_agent_line_state_e
ngx_agent_lines_after(ngx_agent_turn_t *turn, ngx_agent_line_t *line)
{
    turn->since = line->since;

    turn->limited = line->limited;

    if (line->limited) {
        return turn->ended ? NGX_AGENT_LINE_HUNGRY : NGX_AGENT_LINE_LIMITED;
    }

    if (line->taken >= line->share || turn->more) {
        return NGX_AGENT_LINE_HUNGRY;
    }

    return NGX_AGENT_LINE_IDLE;
}


/* as if it had not been tried: the first one is the first again */

void
ngx_agent_lines_unasked(ngx_agent_lines_t *lines)
{
    ngx_queue_t       *q;
    ngx_agent_turn_t  *turn;

    while (!ngx_queue_empty(&lines->asked)) {
        q = ngx_queue_last(&lines->asked);
        turn = ngx_queue_data(q, ngx_agent_turn_t, queue);

        ngx_agent_lines_move(turn, NGX_AGENT_LINE_HUNGRY);

        ngx_queue_remove(&turn->queue);
        ngx_queue_insert_head(&lines->hungry, &turn->queue);
    }
}


void
ngx_agent_lines_ended(ngx_str_t *tenant)
{
    ngx_queue_t        *q;
    ngx_agent_turn_t   *turn;
    ngx_agent_lines_t  *lines;

    for (q = ngx_queue_head(&ngx_agent_lines_all);
         q != ngx_queue_sentinel(&ngx_agent_lines_all);
         q = ngx_queue_next(q))
    {
        lines = ngx_queue_data(q, ngx_agent_lines_t, all);
        turn = ngx_agent_lines_find(lines, tenant);

        if (turn == NULL) {
            continue;
        }

        if (turn->state == NGX_AGENT_LINE_LIMITED) {
            ngx_agent_lines_move(turn, NGX_AGENT_LINE_HUNGRY);

        } else if (turn->state == NGX_AGENT_LINE_ASKED) {
            /* it may be told of the limit as it was before */
            turn->ended = 1;
        }
    }

    ngx_post_event(ngx_agent_lines_wake, &ngx_posted_events);
}


static void
ngx_agent_lines_due(ngx_event_t *ev)
{
    ngx_queue_t       *q;
    ngx_msec_int_t     left;
    ngx_agent_turn_t  *turn;

    while (!ngx_queue_empty(&ngx_agent_lines_limited)) {
        q = ngx_queue_head(&ngx_agent_lines_limited);
        turn = ngx_queue_data(q, ngx_agent_turn_t, queue);

        left = (ngx_msec_int_t) (turn->time + NGX_AGENT_LINES_LIMITED
                                 - ngx_current_msec);

        if (left > 0) {
            ngx_add_timer(ev, (ngx_msec_t) left);
            break;
        }

        ngx_agent_lines_move(turn, NGX_AGENT_LINE_HUNGRY);
    }

    ngx_post_event(ngx_agent_lines_wake, &ngx_posted_events);
}


void
ngx_agent_lines_forget(void)
{
    ngx_queue_t       *q;
    ngx_agent_turn_t  *turn;

    while (!ngx_queue_empty(&ngx_agent_lines_idle)) {
        q = ngx_queue_head(&ngx_agent_lines_idle);
        turn = ngx_queue_data(q, ngx_agent_turn_t, queue);

        if (ngx_current_msec - turn->time < NGX_AGENT_LINES_IDLE) {
            return;
        }

        ngx_agent_lines_remove(turn);
    }
}
