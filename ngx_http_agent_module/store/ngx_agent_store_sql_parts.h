
/*
 * Pieces that the statements in ngx_agent_store_sql.c are made of, and the
 * types of their parameters.  Nobody else includes this.
 */

#ifndef _NGX_AGENT_STORE_SQL_PARTS_H_INCLUDED_
#define _NGX_AGENT_STORE_SQL_PARTS_H_INCLUDED_


#define BOOL  16
#define BYTEA 17
#define INT8  20
#define INT4  23
#define TEXT  25
#define JSON  114
#define UUID  2950
#define TEXTS 1009


/*
 * A task by its id, of the tenant who asks.  Whose it is is looked at and not
 * looked up: with "=" alone the planner takes the index that lists are made
 * of, which begins with the tenant and costs a fifth more.
 */

#define TASK_OF(u)                                                            \
    "agent.task t on t.task_id = " u ".task_id"                               \
    "   and (t.tenant = " u ".tenant) is true"

#define CREATE_TASK(conflict)                                                 \
    "insert into agent.task (task_id, tenant, agent, input,"                  \
    "                        additional_input, max_steps, traceparent)"       \
    " select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[],"   \
    "                      $5::json[], $6::int4[], $7::text[])" conflict

#define CREATE_TASK_TYPES  UUID, TEXT, TEXT, TEXT, JSON, INT4, TEXT


/* a list of artifacts as clients see it, or null when there is none */

#define ARTIFACTS(where)                                                      \
    "(select json_agg(json_build_object("                                     \
    "    'artifact_id', a.artifact_id,"                                       \
    "    'agent_created', a.step_id is not null,"                             \
    "    'file_name', a.file_name,"                                           \
    "    'relative_path', a.relative_path))"                                  \
    " from (select * from agent.artifact a where " where                      \
    "       order by a.artifact_id) a)"


/* wakes up whoever runs steps of these; "again": look at all of it */

#define WAKE(rows, mark)                                                      \
    "(select count(*) from (select pg_notify('agent_work', agent || '" mark   \
    " ' || tenant) from (select distinct agent, tenant from " rows ") a) n)"

#define TELL(channel, rows)                                                   \
    "(select count(*) from (select pg_notify('" channel "',"                  \
    " string_agg(step_id::text, ',')) from " rows                             \
    " having count(*) > 0) n)"

/*
 * With no "on conflict": that would cost each row another look, and a step
 * ends once, as what is told by its lease has one before it ends and none
 * ever after.
 */

#define BILL(rows)                                                            \
    "insert into agent.usage (task_id, step_id, tenant, agent, attempt,"      \
    "                         status, tokens_in, tokens_out, price)"          \
    " select task_id, step_id, tenant, agent, attempt, status, tokens_in,"    \
    "        tokens_out, price::numeric from " rows


/*
 * Of a task one step at most waits.  An entry of an older one is left over
 * from a step that was cancelled in the moment it came into the queue.
 */

#define NEWER                                                                 \
    " on conflict (task_id) do update set seq = excluded.seq,"                \
    "   agent = excluded.agent, run_at = excluded.run_at, queued_at = now()," \
    "   watched = excluded.watched where q.seq < excluded.seq"


/*
 * A key is good for 24 hours, and only while what it has made is there.
 */

#define KEY_LIVES(k)                                                          \
    k ".created_at > now() - interval '24 h'"


/*
 * The beginning of a step.  "judged" has the verdict on each call, as
 * ngx_agent_begin_e says it, and 9: this very step was begun before, its
 * answer got lost: it is ours if nobody else has had it since.  put: the step
 * goes into the queue instead of being leased to the worker that asks.  A
 * secret is redacted also when it is given again after its step failed.  A
 * running step whose lease has lapsed is told by "lapsed": sweeping frees it.
 */

#define JUDGED(source, put, keys, replay, twice, refuse)                      \
    "with judged as ("                                                        \
    "  select u.*, t.agent, t.input as task_input, l.seq, l.attempt,"         \
    "         coalesce(u.traceparent, t.traceparent) as parent,"              \
    "         l.status, l.lapsed, " put " as put,"                            \
    "         case when l.last_id = u.step_id then l.redacted"                \
    "              else coalesce(l.secret and l.status = 3"                   \
    "                     or l.redacted and l.status in (4, 5), false)"       \
    "              end as redact, l.last_owner,"                              \
    "         " replay(LAST) "l.last_id" replay(LAST_END) " as last_id,"      \
    "         case when t.task_id is null then 1"                             \
    "              when l.last_id = u.step_id then 9 " twice                  \
    replay(VERDICT)                                                           \
    "              when l.status in (0, 1) then 2"                            \
    "              when l.is_last and coalesce(u.input, '') = '' then 3"      \
    "              when l.seq >= t.max_steps then 4 " refuse                  \
    "              else 0 end as verdict"                                     \
    "  from " source                                                          \
    "  left join " TASK_OF("u")                                               \
    "  left join lateral ("                                                   \
    "    select s.seq, s.step_id as last_id, s.status, s.is_last, s.secret,"  \
    "           s.redacted, s.attempt, s.lease_until < now() as lapsed,"      \
    "           s.owner as last_owner"                                        \
    "    from agent.step s where s.task_id = u.task_id"                       \
    "    order by s.seq desc limit 1) l on true" keys                         \
    ")"

/*
 * 5: begun before, and another one has begun since.  Only of a call that is
 * sent again: others need not look through all steps of their task.
 */

#define TWICE                                                                 \
    "when l.seq > 1 and exists (select from agent.step s"                     \
    "       where s.task_id = u.task_id and s.step_id = u.step_id) then 5 "

#define NO_REPLAY(what)
#define REPLAY(what)     REPLAY_##what
#define REPLAY_LAST      "case when t.task_id is null or k.item_id is null"    \
                         " then "
#define REPLAY_LAST_END  " else k.item_id end"
#define REPLAY_VERDICT   "when k.print <> u.print then 7"                     \
                         " when k.item_id is not null then 6"

#define BEGUN(rows, begins, status, attempt, owner, lease, more, values)      \
    ", begun as ("                                                            \
    "  insert into agent.step (task_id, seq, step_id, tenant, status,"        \
    "         attempt, owner, lease_until, redacted, input,"                  \
    "         additional_input, traceparent" more ")"                         \
    "  select task_id, coalesce(seq, 0) + 1, step_id, tenant, " status ","    \
    "         " attempt ", " owner ", " lease ", redact,"                     \
    "         case when redact and input is not null then '[redacted]'"       \
    "              else input end, additional_input, parent" values           \
    "  from " rows " where " begins                                           \
    "  on conflict do nothing"                                                \
    "  returning step_id, seq"                                                \
    ")"

/* what must not stand in the step's row while it runs or waits */

#define KEPT                                                                  \
    ", kept as ("                                                             \
    "  insert into agent.secret (task_id, tenant, value)"                     \
    "  select j.task_id, j.tenant, j.input from judged j join begun b"        \
    "    on b.step_id = j.step_id"                                            \
    "  where j.redact and j.input is not null"                                \
    "  on conflict (task_id) do update set value = excluded.value"            \
    ")"

#define LEASED   "now() + lease * interval '1 ms'"

#define PUT      "verdict = 0", "1 - put::int", "1 - put::int",               \
                 "case when not put then owner end",                          \
                 "case when not put then " LEASED " end"

#define BEGUN_PUT(rows, put, more, values)                                    \
    BEGUN(rows, put, more, values) KEPT

#define QUEUED                                                                \
    ", queued as ("                                                           \
    "  insert into agent.queue as q (task_id, seq, tenant, agent, watched)"   \
    "  select j.task_id, b.seq, j.tenant, j.agent, j.watched"                 \
    "  from judged j join begun b on b.step_id = j.step_id where j.put"       \
    NEWER " returning agent, tenant"                                          \
    ")"

/*
 * Of those that could begin, the ones that did: by an array, as a join would
 * read "begun" once for each.
 */

#define HAS_BEGUN                                                             \
    "coalesce(j.step_id = any((select array_agg(step_id) from begun)"         \
    "                         ::uuid[]), false)"

#define VERDICTS(lost, more)                                                  \
    " select j.ord::int4,"                                                    \
    "        case when j.verdict = 9 then"                                    \
    "               case when j.status = 1 and j.attempt = 1"                 \
    "                         and j.last_owner = j.owner then 0 else 5 end"   \
    "             when j.verdict = 0 and not " HAS_BEGUN " then " lost        \
    "             when j.verdict = 0 and j.put then 5"                        \
    "             else j.verdict end,"                                        \
    "        case when j.verdict = 0 then coalesce(j.seq, 0) + 1"             \
    "             else j.seq end, j.agent, j.task_input, j.redact,"           \
    "        j.last_id, case when j.verdict = 9 then j.attempt"               \
    "                        else 1 end,"                                     \
    "        j.verdict = 2 and j.lapsed, j.parent" more                       \
    " from judged j"

/* 10: it would have to wait, and there is no room in the queue */

#define REFUSE   "when u.refuse and " QUEUE_ANYWAY " then 10"

/*
 * Whoever has limits goes by the statement that looks at them.  There: which
 * limit one step more would break.
 */

#define CAREFUL  " when agent.limited() then 8 "

#define OVER                                                                  \
    "agent.over_quota(u.tenant, " QUEUE_ANYWAY ", " PRICE("u", "t") ", 0)"

#define PRICE(u, t)                                                           \
    "(" u ".prices ->> " t ".agent)::numeric"

/*
 * Also a step that nobody waits for, of a tenant who runs as many as he may:
 * that limit holds it up and does not refuse it.
 */

#define QUEUE_ANYWAY                                                          \
    "(u.queue or coalesce(t.agent = any(string_to_array(u.agents_full, ',')),"\
    "                     false)"                                             \
    " or (agent.limited() and not u.watched"                                  \
    "     and agent.over_quota(u.tenant, false, 0, 0) = 1))"


/* the attempts on record and those that are not yet */

#define TRACED                                                                \
    "case when u.trace is null then s.trace"                                  \
    " else concat_ws(',', s.trace, u.trace) end"


/*
 * A row comes back for each step that this attempt has ended.  What runs is
 * told by its lease and not by its status: that would tempt the planner to
 * take the index of all that runs.
 */

#define END_STEP(params, columns, over, good, made, told)                     \
    "with u as ("                                                             \
    "  select *" over                                                         \
    "  from unnest($1::uuid[], $2::int4[], $3::int4[], $4::int4[],"           \
    "      $5::bool[], $6::bool[], $7::text[], $8::text[], $9::json[],"       \
    "      $10::json[], $11::int8[], $12::int8[], $13::text[],"               \
    "      $14::text[], $15::text[]" params ")"                               \
    "    with ordinality as u(task_id, seq, attempt, status, is_last,"        \
    "      secret, name, output, additional_output, turns,"                   \
    "      tokens_in, tokens_out, price, agent, trace" columns ", ord)"       \
    "), ended as ("                                                           \
    "  update agent.step s set status = u.status, is_last = u.is_last,"       \
    "      secret = u.secret, name = u.name, output = u.output,"              \
    "      additional_output = u.additional_output,"                          \
    "      turns = coalesce(u.turns, s.turns),"                               \
    "      tokens_in = u.tokens_in, tokens_out = u.tokens_out,"               \
    "      ended_at = now(), lease_until = null,"                             \
    "      trace = " TRACED                                                   \
    "  from u"                                                                \
    "  where s.task_id = u.task_id and s.seq = u.seq"                         \
    "    and s.attempt = u.attempt and s.lease_until is not null" good        \
    "  returning u.ord, s.task_id, s.seq, s.step_id, s.tenant, s.attempt,"    \
    "            s.status, s.tokens_in, s.tokens_out, s.is_last, u.price,"    \
    "            u.agent" columns                                             \
    "), " made "billed as (" BILL("ended") ")"                                \
    " select ord::int4" told

#define END_STEP_TYPES                                                        \
    UUID, INT4, INT4, INT4, BOOL, BOOL, TEXT, TEXT, JSON, JSON,               \
    INT8, INT8, TEXT, TEXT, TEXT


/* steps back into the queue: "back" has them; all workers look for them */

#define BACK                                                                  \
    ", queued as ("                                                           \
    "  insert into agent.queue as q (task_id, seq, tenant, agent, run_at,"    \
    "                                watched)"                                \
    "  select b.task_id, b.seq, b.tenant, t.agent, b.created_at, true"        \
    "  from back b join agent.task t on t.task_id = b.task_id"                \
    NEWER " returning agent, tenant"                                          \
    ")"                                                                       \
    " select (select count(*) from back)::int8, " WAKE("queued", "!")

#define GONE                                                                  \
    "update agent.step s set status = 0, lease_until = null,"                 \
    "       story = concat_ws('; ', s.story, 'attempt '"                      \
    "         || s.attempt - s.spared || ': its worker '"                     \
    "         || coalesce(s.owner, '') || ' is gone'), owner = null,"         \
    "       trace = concat_ws(',', s.trace, json_build_object('attempt',"     \
    "         s.attempt - s.spared, 'status', null, 'request', null,"         \
    "         'answer', null, 'error', 'its worker ' || coalesce(s.owner, '')"\
    "         || ' is gone')::text)"


#endif /* _NGX_AGENT_STORE_SQL_PARTS_H_INCLUDED_ */
