
/*
 * All SQL of the module: text only.  Each statement is prepared, takes its
 * values as parameters, and cannot fail by what a user sends: conflicts are
 * rows, not errors.  Grouped ones take arrays ("u" is the calls of a batch,
 * "ord" a call's place in it) and each is idempotent by the ids it is given,
 * as a batch whose connection died is sent again.
 */

#include "ngx_agent_store_sql.h"


#define BOOL  16
#define INT8  20
#define INT4  23
#define TEXT  25
#define JSON  114
#define UUID  2950


/* a list of artifacts as clients see it, or null when there is none */

#define ARTIFACTS(where)                                                      \
    "(select json_agg(json_build_object("                                     \
    "    'artifact_id', a.artifact_id,"                                       \
    "    'agent_created', a.step_id is not null,"                             \
    "    'file_name', a.file_name,"                                           \
    "    'relative_path', a.relative_path))"                                  \
    " from (select * from agent.artifact a where " where                      \
    "       order by a.artifact_id) a)"


/*
 * Plans are made on tables that may be empty and then grow by thousands of
 * rows a second, so only index scans under nested loops are right at every
 * size; and they are made anew every second ("replan"): on a table that
 * was analyzed while empty even a nested loop is turned round.
 */

const char  ngx_agent_store_setup[] =
    "set enable_seqscan = off;"
    "set enable_bitmapscan = off;"
    "set enable_hashjoin = off;"
    "set enable_mergejoin = off;"
    "set plan_cache_mode = force_generic_plan;"
    "set jit = off;"
    "set max_parallel_workers_per_gather = 0;"
    "select max(version) from agent.schema_version";

const char  ngx_agent_store_setup_pooled[] =
    "select max(version) from agent.schema_version";


/*
 * A row comes back for each step that this attempt has ended.  What runs is
 * told by its lease and not by its status: that would tempt the planner to
 * take the index of all that runs.
 */

#define END_STEP(made)                                                        \
    "with u as ("                                                             \
    "  select * from unnest($1::uuid[], $2::int4[], $3::int4[], $4::int4[],"  \
    "      $5::bool[], $6::bool[], $7::text[], $8::text[], $9::json[],"       \
    "      $10::json[], $11::json[], $12::int8[], $13::int8[], $14::text[],"  \
    "      $15::text[])"                                                      \
    "    with ordinality as u(task_id, seq, attempt, status, is_last,"        \
    "      secret, name, output, additional_output, turns, artifacts,"        \
    "      tokens_in, tokens_out, price, agent, ord)"                         \
    "), ended as ("                                                           \
    "  update agent.step s set status = u.status, is_last = u.is_last,"       \
    "      secret = u.secret, name = u.name, output = u.output,"              \
    "      additional_output = u.additional_output, turns = u.turns,"         \
    "      tokens_in = u.tokens_in, tokens_out = u.tokens_out,"               \
    "      ended_at = now(), lease_until = null"                              \
    "  from u"                                                                \
    "  where s.task_id = u.task_id and s.seq = u.seq"                         \
    "    and s.attempt = u.attempt and s.lease_until is not null"             \
    "  returning u.ord, s.task_id, s.seq, s.step_id, s.tenant, s.attempt,"    \
    "            s.status, s.tokens_in, s.tokens_out, u.artifacts, u.price,"  \
    "            u.agent"                                                     \
    "), " made "billed as ("                                                  \
    "  insert into agent.usage (task_id, step_id, tenant, agent, attempt,"    \
    "                           status, tokens_in, tokens_out, price)"        \
    "  select task_id, step_id, tenant, agent, attempt, status, tokens_in,"   \
    "         tokens_out, price::numeric from ended"                          \
    "  on conflict do nothing"                                                \
    ")"                                                                       \
    " select ord::int4 from ended"

#define END_STEP_TYPES                                                        \
    { UUID, INT4, INT4, INT4, BOOL, BOOL, TEXT, TEXT, JSON, JSON, JSON,       \
      INT8, INT8, TEXT, TEXT }


const ngx_agent_pg_stmt_t  ngx_agent_store_stmts[] = {

    { "create_task",
      "insert into agent.task (task_id, tenant, agent, input,"
      "                        additional_input, max_steps)"
      " select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[],"
      "                      $5::json[], $6::int4[])"
      " on conflict do nothing",
      6, { UUID, TEXT, TEXT, TEXT, JSON, INT4 }, 1 },

    { "create_artifact",
      "with u as ("
      "  select * from unnest($1::uuid[], $2::text[], $3::uuid[],"
      "                       $4::text[], $5::text[], $6::int8[])"
      "    with ordinality as u(task_id, tenant, artifact_id, file_name,"
      "                         relative_path, size, ord)"
      "), made as ("
      "  insert into agent.artifact (task_id, artifact_id, tenant,"
      "                              file_name, relative_path, size)"
      "  select t.task_id, u.artifact_id, u.tenant, u.file_name,"
      "         u.relative_path, u.size"
      "  from u join agent.task t"
      "    on t.task_id = u.task_id and t.tenant = u.tenant"
      "  on conflict do nothing"
      ")"
      " select u.ord::int4 from u join agent.task t"
      "   on t.task_id = u.task_id and t.tenant = u.tenant",
      6, { UUID, TEXT, UUID, TEXT, TEXT, INT8 }, 1 },

    /*
     * The verdict is what ngx_agent_begin_e says, and 5: this very step was
     * begun before, its answer got lost.  A running step whose lease has
     * lapsed is told by "lapsed": sweeping ends it.
     */
    { "begin_step",
      "with judged as ("
      "  select u.*, t.agent, t.input as task_input, l.seq, l.last_id,"
      "         l.attempt, l.status, l.lapsed,"
      "         coalesce(l.secret and l.status = 3, false) as redact,"
      "         case when t.task_id is null then 1"
      "              when l.last_id = u.step_id then 5"
      "              when l.status in (0, 1) then 2"
      "              when l.is_last and coalesce(u.input, '') = '' then 3"
      "              when l.seq >= t.max_steps then 4"
      "              else 0 end as verdict"
      "  from unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[],"
      "              $5::json[], $6::text[], $7::int4[])"
      "    with ordinality as u(task_id, tenant, step_id, input,"
      "                         additional_input, owner, lease, ord)"
      "  left join agent.task t"
      "    on t.task_id = u.task_id and t.tenant = u.tenant"
      "  left join lateral ("
      "    select s.seq, s.step_id as last_id, s.status, s.is_last, s.secret,"
      "           s.attempt, s.lease_until < now() as lapsed"
      "    from agent.step s where s.task_id = u.task_id"
      "    order by s.seq desc limit 1) l on true"
      "), begun as ("
      "  insert into agent.step (task_id, seq, step_id, tenant, status,"
      "         attempt, owner, lease_until, input, additional_input)"
      "  select task_id, coalesce(seq, 0) + 1, step_id, tenant, 1, 1, owner,"
      "         now() + lease * interval '1 ms',"
      "         case when redact and input is not null then '[redacted]'"
      "              else input end, additional_input"
      "  from judged where verdict = 0"
      "  on conflict do nothing"
      "  returning step_id, seq"
      ")"
      " select j.ord::int4,"
      "        case when j.verdict = 5 then 0"
      "             when j.verdict = 0 and b.seq is null then 2"
      "             else j.verdict end,"
      "        coalesce(b.seq, j.seq), j.agent, j.task_input, j.redact,"
      "        j.last_id, case when j.verdict = 5 then j.attempt else 1 end,"
      "        j.verdict = 2 and j.lapsed"
      " from judged j left join begun b on b.step_id = j.step_id",
      7, { UUID, TEXT, UUID, TEXT, JSON, TEXT, INT4 }, 1 },

    { "end_step", END_STEP(""), 15, END_STEP_TYPES, 1 },

    /* the same for those that have made artifacts: few, and they cost more */
    { "end_step_with_artifacts",
      END_STEP("made as ("
      "  insert into agent.artifact (task_id, artifact_id, step_id, tenant,"
      "                              file_name, relative_path, size)"
      "  select e.task_id, a.id, e.step_id, e.tenant, a.file_name,"
      "         a.relative_path, a.size"
      "  from ended e, json_to_recordset(e.artifacts)"
      "    as a(id uuid, file_name text, relative_path text, size int8)"
      "  on conflict do nothing"
      "), "),
      15, END_STEP_TYPES, 1 },

    { "renew",
      "update agent.step s set lease_until = now() + u.lease * interval '1 ms'"
      " from unnest($1::uuid[], $2::int4[], $3::int4[], $4::int4[])"
      "   as u(task_id, seq, attempt, lease)"
      " where s.task_id = u.task_id and s.seq = u.seq"
      "   and s.attempt = u.attempt and s.lease_until is not null",
      4, { UUID, INT4, INT4, INT4 }, 1 },

    /* steps whose lease has lapsed have lost their worker: they end here */
    { "sweep",
      "with lapsed as ("
      "  update agent.step s set status = 4, attempt = s.attempt + 1,"
      "         ended_at = now(), lease_until = null, additional_output ="
      "         '{\"error\":\"the worker that ran this step is gone\"}'"
      "  from (select task_id, seq from agent.step"
      "        where status = 1 and lease_until < now()"
      "        order by lease_until limit $1::int4"
      "        for update skip locked) l"
      "  where s.task_id = l.task_id and s.seq = l.seq"
      "  returning s.task_id, s.step_id, s.tenant, s.attempt"
      "), billed as ("
      "  insert into agent.usage (task_id, step_id, tenant, agent, attempt,"
      "                           status, tokens_in, tokens_out, price)"
      "  select l.task_id, l.step_id, l.tenant, t.agent, l.attempt, 4, 0, 0,"
      "         0 from lapsed l join agent.task t on t.task_id = l.task_id"
      "  on conflict do nothing"
      ")"
      " select count(*)::int4 from lapsed",
      1, { INT4 }, 0 },

    /* $2: below this id all tasks are there; $3: how many marks at most */
    { "mark",
      "with last as ("
      "  select n, task_id from agent.task_mark where tenant = $1::text"
      "  order by n desc limit 1"
      "), ranked as ("
      "  select t.task_id, row_number() over (order by t.task_id) - 1"
      "           + 1000 * coalesce((select n from last), 0) as rank"
      "  from (select task_id from agent.task where tenant = $1::text"
      "          and task_id >= coalesce((select task_id from last),"
      "                '00000000-0000-0000-0000-000000000000'::uuid)"
      "          and task_id < $2::uuid"
      "        order by task_id limit 1000 * $3::int4 + 1) t"
      "), made as ("
      "  insert into agent.task_mark (tenant, n, task_id)"
      "  select $1::text, rank / 1000, task_id from ranked"
      "  where rank % 1000 = 0"
      "  on conflict do nothing returning n"
      ")"
      " select count(*)::int4 from made",
      3, { TEXT, UUID, INT4 }, 0 },

    /* both connections have one, by what calls it */
    { "replan", "discard plans", 0, { 0 }, 0 },

    { "get_task",
      "select u.ord::int4, t.agent, t.input, t.additional_input, "
      ARTIFACTS("a.task_id = t.task_id")
      " from unnest($1::uuid[], $2::text[]) with ordinality"
      "   as u(task_id, tenant, ord)"
      " join agent.task t on t.task_id = u.task_id and t.tenant = u.tenant",
      2, { UUID, TEXT }, 1 },

    /*
     * $2: tasks to pass over, $3: page size, $4: newest first.  The page is
     * turned into ranks from "lo" on; the nearest mark below is where the
     * scan starts.  One row at least, with the total and how many tasks lie
     * behind the last mark.
     */
    { "list_tasks",
      "with mark as ("
      "  select n, task_id from agent.task_mark where tenant = $1::text"
      "  order by n desc limit 1"
      "), tail as ("
      "  select count(*) as n from agent.task where tenant = $1::text"
      "    and task_id >= coalesce((select task_id from mark),"
      "          '00000000-0000-0000-0000-000000000000'::uuid)"
      "), total as ("
      "  select coalesce((select n from mark), 0) * 1000 + tail.n as n,"
      "         tail.n as tail from tail"
      "), page as ("
      "  select greatest(0, case when $4::bool then n - $2::int8 - $3::int4"
      "                          else $2::int8 end) as lo,"
      "         case when $4::bool then n - $2::int8"
      "              else $2::int8 + $3::int4 end as hi from total"
      "), start as ("
      "  select m.n, m.task_id from agent.task_mark m"
      "  where m.tenant = $1::text and m.n <= (select lo from page) / 1000"
      "  order by m.n desc limit 1"
      "), ids as ("
      "  select task_id from agent.task where tenant = $1::text"
      "    and task_id >= coalesce((select task_id from start),"
      "          '00000000-0000-0000-0000-000000000000'::uuid)"
      "  order by task_id"
      "  offset (select lo from page)"
      "         - 1000 * coalesce((select n from start), 0)"
      "  limit (select greatest(0, hi - lo) from page)"
      ")"
      " select total.n::int8, total.tail::int8, t.task_id, t.agent, t.input,"
      "        t.additional_input, "
      ARTIFACTS("a.task_id = t.task_id")
      " from total left join ids on true"
      " left join agent.task t on t.task_id = ids.task_id"
      " order by t.task_id",
      4, { TEXT, INT8, INT4, BOOL }, 0 },

    { "get_step",
      "select u.ord::int4, s.seq, s.attempt, s.status, s.is_last, s.name,"
      "       s.input, s.additional_input, s.output, s.additional_output,"
      "       s.tokens_in, s.tokens_out, "
      ARTIFACTS("a.task_id = s.task_id and a.step_id = s.step_id")
      " from unnest($1::uuid[], $2::text[], $3::uuid[]) with ordinality"
      "   as u(task_id, tenant, step_id, ord)"
      " join agent.step s on s.task_id = u.task_id"
      "   and s.step_id = u.step_id and s.tenant = u.tenant",
      3, { UUID, TEXT, UUID }, 1 },

    /* seq has no gaps: pages are ranges of it, the total is the last one */
    { "list_steps",
      "with total as ("
      "  select coalesce((select max(seq) from agent.step"
      "                   where task_id = $1::uuid), 0) as n"
      "  from agent.task where task_id = $1::uuid and tenant = $2::text"
      ")"
      " select total.n::int8, s.step_id, s.seq, s.attempt, s.status,"
      "        s.is_last, s.name, s.input, s.additional_input, s.output,"
      "        s.additional_output, s.tokens_in, s.tokens_out, "
      ARTIFACTS("a.task_id = s.task_id and a.step_id = s.step_id")
      " from total left join agent.step s on s.task_id = $1::uuid"
      "   and s.tenant = $2::text"
      "   and s.seq > case when $5::bool then total.n - $3::int8 - $4::int4"
      "                    else $3::int8 end"
      "   and s.seq <= case when $5::bool then total.n - $3::int8"
      "                     else $3::int8 + $4::int4 end"
      " order by s.seq",
      5, { UUID, TEXT, INT8, INT4, BOOL }, 0 },

    { "history",
      "select u.ord::int4, s.step_id, s.seq, s.status, s.secret, s.input,"
      "       s.turns"
      " from unnest($1::uuid[], $2::text[], $3::int4[]) with ordinality"
      "   as u(task_id, tenant, seq, ord)"
      " join agent.step s on s.task_id = u.task_id and s.seq < u.seq"
      "   and s.tenant = u.tenant"
      " order by u.ord, s.seq",
      3, { UUID, TEXT, INT4 }, 1 },

    { "get_artifact",
      "select u.ord::int4, a.artifact_id, a.file_name, a.relative_path,"
      "       a.size, a.step_id is not null"
      " from unnest($1::uuid[], $2::text[], $3::uuid[]) with ordinality"
      "   as u(task_id, tenant, artifact_id, ord)"
      " join agent.artifact a on a.task_id = u.task_id"
      "   and a.artifact_id = u.artifact_id and a.tenant = u.tenant",
      3, { UUID, TEXT, UUID }, 1 },

    /* relative_path with or without its last slash is the same folder */
    { "find_artifact",
      "select a.artifact_id, a.file_name, a.relative_path, a.size,"
      "       a.step_id is not null"
      " from agent.artifact a"
      " where a.task_id = $1::uuid and a.tenant = $2::text"
      "   and a.file_name = $4::text"
      "   and rtrim(coalesce(a.relative_path, ''), '/')"
      "       = rtrim(coalesce($3::text, ''), '/')"
      " order by a.artifact_id desc limit 1",
      4, { UUID, TEXT, TEXT, TEXT }, 0 },

    { "list_artifacts",
      "with total as ("
      "  select (select count(*) from agent.artifact"
      "          where task_id = $1::uuid) as n"
      "  from agent.task where task_id = $1::uuid and tenant = $2::text"
      "), page as ("
      "  select greatest(0, case when $5::bool then n - $3::int8 - $4::int4"
      "                          else $3::int8 end) as lo,"
      "         case when $5::bool then n - $3::int8"
      "              else $3::int8 + $4::int4 end as hi from total"
      "), ids as ("
      "  select artifact_id from agent.artifact where task_id = $1::uuid"
      "  order by artifact_id offset (select lo from page)"
      "  limit (select greatest(0, hi - lo) from page)"
      ")"
      " select total.n::int8, a.artifact_id, a.file_name, a.relative_path,"
      "        a.size, a.step_id is not null"
      " from total left join ids on true"
      " left join agent.artifact a on a.task_id = $1::uuid"
      "   and a.artifact_id = ids.artifact_id and a.tenant = $2::text"
      " order by a.artifact_id",
      5, { UUID, TEXT, INT8, INT4, BOOL }, 0 }
};
