
/*
 * The SQL that only reads: text only, as in ngx_agent_store_sql.c.
 */

#include "ngx_agent_store_sql.h"
#include "ngx_agent_store_sql_parts.h"


const ngx_agent_pg_stmt_t
    ngx_agent_store_sql_reads[NGX_AGENT_SQL_N - NGX_AGENT_SQL_NEIGHBOURS] =
{

    { "neighbours",
      "select name, pid, born from agent.worker"
      " where host = $1::text and name <> $2::text",
      2, { TEXT, TEXT }, 0 },

    { "depth",
      "select count(*)::int8 from"
      " (select 1 from agent.queue limit $1::int8) q",
      1, { INT8 }, 0 },

    { "get_task",
      "select u.ord::int4, t.agent, t.input, t.additional_input, "
      ARTIFACTS("a.task_id = t.task_id")
      " from unnest($1::uuid[], $2::text[]) with ordinality"
      "   as u(task_id, tenant, ord)"
      " join " TASK_OF("u"),
      2, { UUID, TEXT }, 1 },

    /*
     * $2: tasks to pass over, $3: page size, $4: newest first.  The page is
     * turned into ranks from "lo" on; the nearest mark below is where the
     * scan starts.  One row at least, with the total and how many tasks lie
     * behind the last mark.  "(select coalesce())": a coalesce() beside the
     * column would be no condition of the index scan, as Postgres first looks
     * at the policies of row-level security then.
     */
    { "list_tasks",
      "with mark as ("
      "  select n, task_id from agent.task_mark where tenant = $1::text"
      "  order by n desc limit 1"
      "), tail as ("
      "  select count(*) as n from agent.task where tenant = $1::text"
      "    and task_id >= (select coalesce((select task_id from mark),"
      "          '00000000-0000-0000-0000-000000000000'::uuid))"
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
      "    and task_id >= (select coalesce((select task_id from start),"
      "          '00000000-0000-0000-0000-000000000000'::uuid))"
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
      ARTIFACTS("a.task_id = s.task_id and a.step_id = s.step_id") ","
      "       s.story, case when s.status in (0, 1) then json_build_object("
      "         'owner', s.owner, 'attempt', s.attempt - s.spared,"
      "         'lease_age', case when s.status = 1 then round(extract("
      "            epoch from now() + u.lease * interval '1 ms'"
      "                       - s.lease_until)::numeric, 1) end,"
      "         'queued', s.status = 0, 'since', s.created_at,"
      "         'next_try', (select q.run_at from agent.queue q"
      "                      where q.task_id = s.task_id and s.status = 0),"
      "         'errors', s.story) end,"
      "       case when s.status in (4, 5)"
      "            then s.additional_output ->> 'error' end,"
      "       case when s.status in (4, 5)"
      "            then coalesce((s.additional_output ->> 'code')::int4, 502)"
      "       end, s.redacted, s.secret"
      " from unnest($1::uuid[], $2::text[], $3::uuid[], $4::int4[])"
      "   with ordinality as u(task_id, tenant, step_id, lease, ord)"
      " join agent.step s on s.task_id = u.task_id"
      "   and s.step_id = u.step_id and s.tenant = u.tenant",
      4, { UUID, TEXT, UUID, INT4 }, 1 },

    /* seq has no gaps: pages are ranges of it, the total is the last one */
    { "list_steps",
      "with total as ("
      "  select coalesce((select max(seq) from agent.step"
      "                   where task_id = $1::uuid), 0) as n"
      "  from agent.task where task_id = $1::uuid and tenant = $2::text"
      "), page as ("
      "  select case when $5::bool then n - $3::int8 - $4::int4"
      "              else $3::int8 end as lo,"
      "         case when $5::bool then n - $3::int8"
      "              else $3::int8 + $4::int4 end as hi from total"
      ")"
      " select total.n::int8, s.step_id, s.seq, s.attempt, s.status,"
      "        s.is_last, s.name, s.input, s.additional_input, s.output,"
      "        s.additional_output, s.tokens_in, s.tokens_out, "
      ARTIFACTS("a.task_id = s.task_id and a.step_id = s.step_id")
      " from total left join agent.step s on s.task_id = $1::uuid"
      "   and s.tenant = $2::text"
      "   and s.seq > (select lo from page)"
      "   and s.seq <= (select hi from page)"
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
      5, { UUID, TEXT, INT8, INT4, BOOL }, 0 },

    /* whose rows those behind it may see; the reader may be a standby */
    { "look", "select set_config('agent.tenant', $1::text, true)",
      1, { TEXT }, 0 },

    /* one look for each pair, by the index: not one for each step */
    { "lines",
      "with recursive line as ("
      "  (select tenant, agent from agent.queue"
      "   order by tenant, agent limit 1)"
      "  union all"
      "  select q.tenant, q.agent from line l cross join lateral ("
      "    select tenant, agent from agent.queue"
      "    where (tenant, agent) > (l.tenant, l.agent)"
      "    order by tenant, agent limit 1) q"
      ")"
      " select agent, tenant from line limit 10000",
      0, { 0 }, 0 },

    { "task_agent",
      "select u.ord::int4, t.agent"
      " from unnest($1::uuid[], $2::text[]) with ordinality"
      "   as u(task_id, tenant, ord)"
      " join " TASK_OF("u"),
      2, { UUID, TEXT }, 1 },

    /*
     * $1: the tenant, or, if $2, all of them, one look at the index for each;
     * $3, $4: the first day and the last; $5, $6, $7: the page; $8: of these
     * agents only.  One row at least, with the sum of all pages.
     */
    { "usage",
      "with recursive who as ("
      "  (select tenant from agent.usage where $2::bool"
      "   order by tenant limit 1)"
      "  union all"
      "  select n.tenant from who w cross join lateral ("
      "    select tenant from agent.usage where tenant > w.tenant"
      "    order by tenant limit 1) n"
      "), span as ("
      "  select coalesce($3::text::date::timestamp at time zone 'UTC',"
      "                  '-infinity') as lo,"
      "         coalesce(($4::text::date + 1)::timestamp"
      "                  at time zone 'UTC', 'infinity') as hi"
      "), line as materialized ("
      "  select w.tenant, u.*"
      "  from (select tenant from who"
      "        union all select $1::text where not $2::bool) w"
      "  cross join lateral ("
      "    select (ended_at at time zone 'UTC')::date as day, agent,"
      "           count(*) as steps,"
      "           count(*) filter (where status in (2, 3)) as completed,"
      "           count(*) filter (where status = 4) as failed,"
      "           count(*) filter (where status = 5) as cancelled,"
      "           sum(tokens_in) as tokens_in,"
      "           sum(tokens_out) as tokens_out, sum(price) as price"
      "    from agent.usage where tenant = w.tenant"
      "      and ended_at >= (select lo from span)"
      "      and ended_at < (select hi from span)"
      "      and coalesce(agent = any(string_to_array($8::text, ',')), true)"
      "    group by 1, 2) u"
      "), total as ("
      "  select count(*) as n, coalesce(sum(steps), 0) as steps,"
      "         coalesce(sum(completed), 0) as completed,"
      "         coalesce(sum(failed), 0) as failed,"
      "         coalesce(sum(cancelled), 0) as cancelled,"
      "         coalesce(sum(tokens_in), 0) as tokens_in,"
      "         coalesce(sum(tokens_out), 0) as tokens_out,"
      "         coalesce(sum(price), 0.000000) as price from line"
      "), page as ("
      "  select greatest(0, case when $7::bool then n - $5::int8 - $6::int4"
      "                          else $5::int8 end) as lo,"
      "         case when $7::bool then n - $5::int8"
      "              else $5::int8 + $6::int4 end as hi from total"
      "), shown as ("
      "  select * from line order by day, tenant, agent"
      "  offset (select lo from page)"
      "  limit (select greatest(0, hi - lo) from page)"
      ")"
      " select t.n::int8, t.steps::int8, t.completed::int8, t.failed::int8,"
      "        t.cancelled::int8, t.tokens_in::int8, t.tokens_out::int8,"
      "        t.price::text, s.steps::int8, s.completed::int8,"
      "        s.failed::int8, s.cancelled::int8, s.tokens_in::int8,"
      "        s.tokens_out::int8, s.price::text, s.tenant,"
      "        to_char(s.day, 'YYYY-MM-DD'), s.agent"
      " from total t left join shown s on true"
      " order by s.day, s.tenant, s.agent",
      8, { TEXT, BOOL, TEXT, TEXT, INT8, INT4, BOOL, TEXT }, 0 },

    { "get_trace",
      "select u.ord::int4, s.seq, s.attempt, s.status, s.tokens_in,"
      "       s.tokens_out, t.agent, coalesce(s.traceparent, t.traceparent),"
      "       to_char(s.created_at at time zone 'UTC',"
      "               'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'),"
      "       to_char(s.ended_at at time zone 'UTC',"
      "               'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'),"
      "       agent.whole_trace(s.trace)"
      " from unnest($1::uuid[], $2::text[], $3::uuid[]) with ordinality"
      "   as u(task_id, tenant, step_id, ord)"
      " join agent.step s on s.task_id = u.task_id"
      "   and s.step_id = u.step_id and s.tenant = u.tenant"
      " join " TASK_OF("u"),
      3, { UUID, TEXT, UUID }, 1 },

    /*
     * As list_tasks, for a key that is limited to the agents $5: no marks
     * tell how many there are, so they are counted.
     */
    { "list_tasks_of",
      "with total as ("
      "  select count(*) as n from agent.task where tenant = $1::text"
      "    and agent = any(string_to_array($5::text, ','))"
      "), page as ("
      "  select greatest(0, case when $4::bool then n - $2::int8 - $3::int4"
      "                          else $2::int8 end) as lo,"
      "         case when $4::bool then n - $2::int8"
      "              else $2::int8 + $3::int4 end as hi from total"
      "), ids as ("
      "  select task_id from agent.task where tenant = $1::text"
      "    and agent = any(string_to_array($5::text, ','))"
      "  order by task_id offset (select lo from page)"
      "  limit (select greatest(0, hi - lo) from page)"
      ")"
      " select total.n::int8, 0::int8, t.task_id, t.agent, t.input,"
      "        t.additional_input, "
      ARTIFACTS("a.task_id = t.task_id")
      " from total left join ids on true"
      " left join agent.task t on t.task_id = ids.task_id"
      "   and t.tenant = $1::text"
      " order by t.task_id",
      5, { TEXT, INT8, INT4, BOOL, TEXT }, 0 },

    /* the lookup is by hash alone: it tells whose the key is */
    { "get_key",
      "select u.ord::int4, k.key_id, k.tenant,"
      "       array_to_string(k.agents, ','), k.read_only,"
      "       case when isfinite(k.expires_at) then"
      "         (extract(epoch from k.expires_at) * 1000)::int8 end"
      " from unnest($1::bytea[]) with ordinality as u(hash, ord)"
      " join agent.api_key k on k.hash = u.hash"
      " where k.revoked_at is null"
      "   and (k.expires_at is null or k.expires_at > now())",
      1, { BYTEA }, 1 },

    /*
     * Changes by transactions that were not seen when the last look said how
     * far it had got; 0: nobody has looked yet, and nobody knows any.  No
     * more are counted than it takes to say that they are too many: while a
     * transaction is open for long they are told with each look.
     */
    { "key_changes",
      "with changes as ("
      "  select hash from agent.key_change"
      "  where $1::int8 > 0 and xid >= $1::int8::text::xid8 limit 1001"
      ")"
      " select pg_snapshot_xmin(pg_current_snapshot())::text::int8,"
      "        (select count(*) from changes)::int8, c.hash"
      " from (select 1) one left join (select hash from changes limit 1000) c"
      "   on true",
      1, { INT8 }, 0 }
};
