
/*
 * The SQL that writes: text only; what reads is in ngx_agent_store_sql_read.c,
 * what several statements share in ngx_agent_store_sql_parts.h, and some
 * functions are in sql/.  Each statement is prepared, takes its values as
 * parameters, and cannot fail by what a user sends: conflicts are rows, not
 * errors.  Grouped ones take arrays ("u" is the calls of a batch, "ord" a
 * call's place in it) and each is idempotent by the ids it is given, as a
 * batch whose connection died is sent again.
 */

#include "ngx_agent_store_sql.h"
#include "ngx_agent_store_sql_parts.h"


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

const char  ngx_agent_store_listen[] =
    "listen agent_work; listen agent_ended; listen agent_cancelled;"
    "listen agent_keys;";


const ngx_agent_pg_stmt_t
    ngx_agent_store_sql_writes[NGX_AGENT_SQL_NEIGHBOURS] =
{

    { "create_task", CREATE_TASK(""), 7, { CREATE_TASK_TYPES }, 1 },

    /*
     * Sent again, as it may have happened.  A new id is nobody else's, and to
     * look for it costs as much as all the rest of the row.
     */
    { "create_task_again", CREATE_TASK(" on conflict do nothing"),
      7, { CREATE_TASK_TYPES }, 1 },

    /*
     * The same with a key, or with a first step ($9) for the queue, or both.
     * "state": 0 made, 1 there was one by this key ("task_id"), 2 for another
     * request, 3 the key was taken in this moment: ask again; above 20: the
     * tenant is over that limit, nothing was made.
     */
    { "create_task_more",
      "with u as ("
      "  select $1::uuid as task_id, $2::text as tenant, $3::text as agent,"
      "         $4::text as input, $5::json as additional_input,"
      "         $6::int4 as max_steps, $7::text as key, $8::text as print,"
      "         $9::uuid as step_id, $10::text as traceparent,"
      "         $11::text::numeric as price"
      "), old as ("
      "  select k.task_id, k.print <> u.print as other"
      "  from u join agent.idempotency k"
      "    on k.tenant = u.tenant and k.key = u.key and " KEY_LIVES("k")
      "), over as ("
      "  select agent.over_quota(tenant, true, price, 0) as n from u"
      "  where agent.limited() and step_id is not null"
      "    and not exists (select from old)"
      "    and not exists (select from agent.task t"
      "                    where t.task_id = u.task_id)"
      "), keyed as ("
      "  insert into agent.idempotency as k (tenant, key, print, task_id)"
      "  select tenant, key, print, task_id from u"
      "  where key is not null and not exists (select from old)"
      "    and not exists (select from over where n > 0)"
      "  on conflict (tenant, key) do update set print = excluded.print,"
      "    task_id = excluded.task_id, item_id = null, created_at = now()"
      "    where not (" KEY_LIVES("k") ")"
      "  returning 1"
      "), made as ("
      "  insert into agent.task (task_id, tenant, agent, input,"
      "                          additional_input, max_steps, traceparent)"
      "  select task_id, tenant, agent, input, additional_input, max_steps,"
      "         traceparent"
      "  from u where (key is null or exists (select from keyed))"
      "    and not exists (select from over where n > 0)"
      "  on conflict do nothing returning task_id"
      "), first as ("
      "  insert into agent.step (task_id, seq, step_id, tenant, status,"
      "                          attempt, traceparent, reserved)"
      "  select u.task_id, 1, u.step_id, u.tenant, 0, 0, u.traceparent,"
      "         case when agent.limited() then u.price end"
      "  from u join made on made.task_id = u.task_id"
      "  where u.step_id is not null"
      "  on conflict do nothing returning task_id"
      "), queued as ("
      "  insert into agent.queue as q (task_id, seq, tenant, agent)"
      "  select u.task_id, 1, u.tenant, u.agent"
      "  from u join first on first.task_id = u.task_id"
      NEWER " returning agent, tenant"
      ")"
      " select 1::int4, coalesce(old.task_id, u.task_id),"
      "        case when old.other then 2"
      "             when old.task_id <> u.task_id then 1"
      "             when over.n > 0 then 20 + over.n"
      "             when u.key is null or old.task_id is not null"
      "               or exists (select from keyed) then 0"
      "             else 3 end,"
      "        case when over.n > 0 then agent.quota_max(u.tenant, over.n)"
      "             end, " WAKE("queued", "")
      " from u left join old on true left join over on true",
      11, { UUID, TEXT, TEXT, TEXT, JSON, INT4, TEXT, TEXT, UUID, TEXT,
            TEXT }, 0 },

    /* where the tenant has limits nothing is made, and the next one asked */
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
      "  where not agent.limited()"
      "  on conflict do nothing"
      ")"
      " select u.ord::int4, null, case when agent.limited() then 8 else 0 end"
      " from u join agent.task t"
      "   on t.task_id = u.task_id and t.tenant = u.tenant",
      6, { UUID, TEXT, UUID, TEXT, TEXT, INT8 }, 1 },

    /* the key may be null; "state" as for tasks, and 4: no such task */
    { "create_artifact_keyed",
      "with u as ("
      "  select $1::uuid as task_id, $2::text as tenant,"
      "         $3::uuid as artifact_id, $4::text as file_name,"
      "         $5::text as relative_path, $6::int8 as size,"
      "         $7::text as key, $8::text as print"
      "), t as ("
      "  select t.task_id from u join agent.task t"
      "    on t.task_id = u.task_id and t.tenant = u.tenant"
      "), old as ("
      "  select k.item_id, k.print <> u.print as other"
      "  from u join agent.idempotency k"
      "    on k.tenant = u.tenant and k.key = u.key and " KEY_LIVES("k")
      "), over as ("
      "  select from u join agent.quota q on q.tenant = u.tenant"
      "  where q.artifact_bytes + u.size > q.max_artifact_bytes"
      "    and not exists (select from old)"
      "    and not exists (select from agent.artifact a"
      "                    where a.task_id = u.task_id"
      "                      and a.artifact_id = u.artifact_id)"
      "), keyed as ("
      "  insert into agent.idempotency as k (tenant, key, print, task_id,"
      "                                      item_id)"
      "  select tenant, key, print, u.task_id, artifact_id from u"
      "    join t on t.task_id = u.task_id"
      "  where key is not null and not exists (select from old)"
      "    and not exists (select from over)"
      "  on conflict (tenant, key) do update set print = excluded.print,"
      "    task_id = excluded.task_id, item_id = excluded.item_id,"
      "    created_at = now() where not (" KEY_LIVES("k") ")"
      "  returning 1"
      "), made as ("
      "  insert into agent.artifact (task_id, artifact_id, tenant,"
      "                              file_name, relative_path, size)"
      "  select u.task_id, artifact_id, tenant, file_name, relative_path, size"
      "  from u join t on t.task_id = u.task_id"
      "  where (key is null or exists (select from keyed))"
      "    and not exists (select from over)"
      "  on conflict do nothing"
      ")"
      " select 1::int4, coalesce(old.item_id, u.artifact_id),"
      "        case when old.other then 2"
      "             when old.item_id <> u.artifact_id then 1"
      "             when not exists (select from t) then 4"
      "             when exists (select from over) then 25"
      "             when u.key is null or old.item_id is not null"
      "               or exists (select from keyed) then 0"
      "             else 3 end,"
      "        case when exists (select from over)"
      "             then agent.quota_max(u.tenant, 5) end"
      " from u left join old on true",
      8, { UUID, TEXT, UUID, TEXT, TEXT, INT8, TEXT, TEXT }, 0 },

    /*
     * A secret is not for this one: 8, it is to go by the next statement; and
     * so does a call that is sent again and may have happened.
     */
    { "begin_step",
      JUDGED("unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[],"
             "       $5::json[], $6::text[], $7::int4[], $8::text[])"
             "  with ordinality"
             "  as u(task_id, tenant, step_id, input, additional_input,"
             "       owner, lease, traceparent, ord)", "false", "", NO_REPLAY,
             "", CAREFUL)
      BEGUN("judged", "verdict = 0 and not redact", "1", "1", "owner", LEASED,
            "", "")
      VERDICTS("case when j.redact then 8 else 2 end", ""),
      8, { UUID, TEXT, UUID, TEXT, JSON, TEXT, INT4, TEXT }, 1 },

    /* the same when this worker, or this agent, has enough to do */
    { "queue_step",
      JUDGED("unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[],"
             "       $5::json[], $6::text[], $7::int4[], $8::text[],"
             "       $9::bool[], $10::text[], $11::bool[], $12::bool[])"
             "  with ordinality"
             "  as u(task_id, tenant, step_id, input, additional_input,"
             "       owner, lease, traceparent, queue, agents_full, watched,"
             "       refuse, ord)",
             QUEUE_ANYWAY, "", NO_REPLAY, TWICE, CAREFUL REFUSE)
      BEGUN_PUT("judged", PUT, "", "")
      QUEUED
      VERDICTS("2", ", " WAKE("queued", "")),
      12, { UUID, TEXT, UUID, TEXT, JSON, TEXT, INT4, TEXT, BOOL, TEXT, BOOL,
            BOOL }, 1 },

    /*
     * The same with a key, or for a tenant with limits, or both: above 20,
     * one of them does not allow it.  A key whose step was never stored is
     * free again; but a key that came in this very moment has a step that this
     * statement cannot see yet: hence the second look at the key itself.  11:
     * somebody was faster, ask again.
     */
    { "queue_step_keyed",
      JUDGED("(values (1, $1::uuid, $2::text, $3::uuid, $4::text, $5::json,"
             "         $6::text, $7::int4, $8::text, $9::bool, $10::text,"
             "         $11::bool, $12::bool, $13::text, $14::text, $15::json))"
             "  as u(ord, task_id, tenant, step_id, input, additional_input,"
             "       owner, lease, traceparent, queue, agents_full, watched,"
             "       refuse, key, print, prices)",
             QUEUE_ANYWAY,
             " left join lateral ("
             "   select k.print, k.item_id from agent.idempotency k"
             "   where k.tenant = u.tenant and k.key = u.key"
             "     and " KEY_LIVES("k")
             "     and (k.print <> u.print or exists"
             "       (select from agent.step s where s.task_id = k.task_id"
             "          and s.step_id = k.item_id))) k on true", REPLAY,
             TWICE,
             REFUSE " when agent.limited() and " OVER " > 0"
                    " then 20 + " OVER)
      ", keyed as ("
      "  insert into agent.idempotency as k (tenant, key, print, task_id,"
      "                                      item_id)"
      "  select tenant, key, print, task_id, step_id from judged"
      "  where verdict = 0 and key is not null"
      "  on conflict (tenant, key) do update set print = excluded.print,"
      "    task_id = excluded.task_id, item_id = excluded.item_id,"
      "    created_at = now()"
      "    where not (" KEY_LIVES("k") ") or not exists"
      "      (select from agent.step s where s.task_id = k.task_id"
      "         and s.step_id = k.item_id)"
      "      and exists"
      "      (select from agent.idempotency v where v.tenant = k.tenant"
      "         and v.key = k.key and v.item_id = k.item_id)"
      "  returning 1"
      "), own as ("
      "  select * from judged where key is null or exists (select from keyed)"
      ")"
      BEGUN_PUT("own", PUT, ", reserved",
                ", case when agent.limited() then " PRICE("own", "own")
                " end")
      QUEUED
      VERDICTS("case when j.key is null then 2 else 11 end",
               ", case when j.verdict > 20"
               "       then agent.quota_max(j.tenant, j.verdict - 20) end, "
               WAKE("queued", "")),
      15, { UUID, TEXT, UUID, TEXT, JSON, TEXT, INT4, TEXT, BOOL, TEXT, BOOL,
            BOOL, TEXT, TEXT, JSON }, 0 },

    { "end_step", END_STEP("", "", "", "", "", " from ended"),
      15, { END_STEP_TYPES }, 1 },

    /*
     * The same for those with artifacts, a secret, one who waits elsewhere,
     * or a step that follows by itself: few, and they cost more.  "over":
     * the tenant has no room for the artifacts, and nothing is changed.
     */
    { "end_step_more",
      END_STEP(", $16::json[], $17::uuid[], $18::bool[]",
               ", artifacts, next, watched",
               ", agent.limited() and artifacts is not null and coalesce("
               "    sum((select sum(a.size)"
               "         from json_to_recordset(artifacts) as a(size int8)))"
               "      over (order by ord)"
               "    > (select max_artifact_bytes - artifact_bytes"
               "       from agent.quota where tenant = agent.tenant()), false)"
               "  and exists (select from agent.step s"
               "              where s.task_id = u.task_id and s.seq = u.seq"
               "                and s.attempt = u.attempt"
               "                and s.lease_until is not null) as over",
               " and not u.over",
      "made as ("
      "  insert into agent.artifact (task_id, artifact_id, step_id, tenant,"
      "                              file_name, relative_path, size)"
      "  select e.task_id, a.id, e.step_id, e.tenant, a.file_name,"
      "         a.relative_path, a.size"
      "  from ended e, json_to_recordset(e.artifacts)"
      "    as a(id uuid, file_name text, relative_path text, size int8)"
      "  on conflict do nothing"
      "), forgotten as ("
      "  delete from agent.secret c using ended e"
      "  where c.task_id = e.task_id"
      "), follow as ("
      "  insert into agent.step (task_id, seq, step_id, tenant, status,"
      "                          attempt, traceparent, reserved)"
      "  select e.task_id, e.seq + 1, e.next, e.tenant, 0, 0, e.parent,"
      "         case when agent.limited() then e.price::numeric end"
      "  from (select e.*, t.traceparent as parent,"
      "               row_number() over () - 1 as before"
      "        from ended e join agent.task t on t.task_id = e.task_id"
      "        where e.next is not null and e.status = 2 and not e.is_last"
      "          and e.seq < t.max_steps) e"
      "  where not agent.limited()"
      "     or agent.over_quota(e.tenant, true, e.price::numeric,"
      "                         e.before) = 0"
      "  on conflict do nothing returning task_id, seq, tenant"
      "), queued as ("
      "  insert into agent.queue as q (task_id, seq, tenant, agent)"
      "  select f.task_id, f.seq, f.tenant, e.agent"
      "  from follow f join ended e on e.task_id = f.task_id"
      NEWER " returning agent, tenant"
      "), ",
      ", over, case when over then agent.quota_max(agent.tenant(), 5) end, "
      TELL("agent_ended", "ended where watched") ", "
      WAKE("queued", "")
      " from u where over or ord in (select ord from ended)"),
      18, { END_STEP_TYPES, JSON, UUID, BOOL }, 1 },

    /* also when it has happened before and the answer got lost */
    { "retry_step",
      "update agent.step s set attempt = u.attempt + 1, story = u.story,"
      "       lease_until = now() + u.lease * interval '1 ms',"
      "       trace = case when s.attempt = u.attempt then " TRACED
      "                    else s.trace end,"
      "       turns = coalesce(u.turns, s.turns)"
      " from unnest($1::uuid[], $2::int4[], $3::int4[], $4::text[],"
      "             $5::text[], $6::int4[], $7::text[], $8::json[])"
      "   with ordinality"
      "   as u(task_id, seq, attempt, story, owner, lease, trace, turns, ord)"
      " where s.task_id = u.task_id and s.seq = u.seq"
      "   and s.attempt in (u.attempt, u.attempt + 1)"
      "   and s.owner = u.owner and s.lease_until is not null"
      " returning u.ord::int4",
      8, { UUID, INT4, INT4, TEXT, TEXT, INT4, TEXT, JSON }, 1 },

    { "requeue_step",
      "with back as ("
      "  update agent.step s set status = 0, owner = null,"
      "         lease_until = null, spared = s.spared + u.spare::int,"
      "         story = u.story, trace = " TRACED ","
      "         turns = coalesce(u.turns, s.turns)"
      "  from unnest($1::uuid[], $2::int4[], $3::int4[], $4::text[],"
      "              $5::text[], $6::int8[], $7::bool[], $8::bool[],"
      "              $9::text[], $10::json[])"
      "    with ordinality as u(task_id, seq, attempt, story, agent, delay,"
      "                         spare, watched, trace, turns, ord)"
      "  where s.task_id = u.task_id and s.seq = u.seq"
      "    and s.attempt = u.attempt and s.lease_until is not null"
      "  returning u.ord, s.task_id, s.seq, s.tenant, s.created_at, u.agent,"
      "            u.delay, u.watched"
      "), queued as ("
      "  insert into agent.queue as q (task_id, seq, tenant, agent, run_at,"
      "                                watched)"
      "  select task_id, seq, tenant, agent,"
      "         case when delay = 0 then created_at"
      "              else now() + delay * interval '1 ms' end, watched"
      "  from back" NEWER " returning agent, tenant"
      ")"
      " select ord::int4, " WAKE("queued", "!") " from back",
      10, { UUID, INT4, INT4, TEXT, TEXT, INT8, BOOL, BOOL, TEXT, JSON },
      1 },

    /*
     * $2: [{"tenant", "share", "since", "wait"}], from each the oldest first;
     * a row at least for each.  "since", in ms, is where the last claim has
     * found the first ones: in front of it there may be a long row of entries
     * that are gone and that nobody may clean up yet.
     */
    { "claim",
      "with room as materialized ("
      "  select l.ord, l.tenant, l.share,"
      "         to_timestamp(l.since / 1000.0) as since,"
      "         case when exists (select from agent.quota q"
      "                where q.tenant = l.tenant"
      "                  and q.max_running is not null)"
      "              then agent.may_run(l.tenant, l.share, l.wait)"
      "              else l.share end as n"
      "  from rows from (json_to_recordset($2::json)"
      "         as (tenant text, share int4, since int8, wait bool))"
      "       with ordinality as l(tenant, share, since, wait, ord)"
      "), picked as ("
      "  select r.ord, q.task_id, q.seq, q.run_at, q.watched"
      "  from room r cross join lateral ("
      "    select q.task_id, q.seq, q.run_at, q.watched from agent.queue q"
      "    where q.tenant = r.tenant and q.agent = $1::text"
      "      and q.run_at >= r.since and q.run_at <= now()"
      "    order by q.run_at limit r.n for update skip locked) q"
      "), gone as ("
      "  delete from agent.queue q using picked p where q.task_id = p.task_id"
      "  returning p.*"
      "), taken as ("
      "  update agent.step s set status = 1, owner = $3::text,"
      "         attempt = s.attempt + 1,"
      "         lease_until = now() + $4::int4 * interval '1 ms'"
      "  from gone g join agent.task t on t.task_id = g.task_id"
      "  where s.task_id = g.task_id and s.seq = g.seq and s.status = 0"
      "  returning g.ord, g.run_at, g.watched, s.task_id, s.tenant, s.seq,"
      "            s.step_id, s.attempt, s.spared, s.redacted, s.input,"
      "            s.additional_input, s.story, s.traceparent"
      ")"
      " select r.ord::int4, r.n < r.share and exists ("
      "          select from agent.queue q"
      "          where q.tenant = r.tenant and q.agent = $1::text"
      "            and q.run_at >= r.since and q.run_at <= now()),"
      "        x.task_id, x.step_id, x.seq,"
      "        x.attempt, x.spared, x.redacted, x.watched,"
      "        (extract(epoch from x.run_at) * 1000)::int8,"
      "        x.tenant, t.agent, t.input,"
      "        case when x.redacted then c.value else x.input end,"
      "        x.additional_input, x.story, x.traceparent,"
      "        x.redacted and x.input is not null and c.value is null"
      " from room r left join taken x on x.ord = r.ord"
      " left join agent.task t on t.task_id = x.task_id"
      " left join agent.secret c on c.task_id = x.task_id and x.redacted"
      " order by r.ord, x.run_at",
      4, { TEXT, JSON, TEXT, INT4 }, 0 },

    /* a row for each that is still ours */
    { "renew",
      "update agent.step s set lease_until = now() + u.lease * interval '1 ms'"
      " from unnest($1::uuid[], $2::int4[], $3::int4[], $4::int4[])"
      "   with ordinality as u(task_id, seq, attempt, lease, ord)"
      " where s.task_id = u.task_id and s.seq = u.seq"
      "   and s.attempt = u.attempt and s.lease_until is not null"
      " returning u.ord::int4",
      4, { UUID, INT4, INT4, INT4 }, 1 },

    /* steps whose lease has lapsed have lost their worker */
    { "sweep",
      "with back as ("
      GONE
      "  from (select task_id, seq from agent.step"
      "        where status = 1 and lease_until < now()"
      "        order by lease_until limit $1::int4"
      "        for update skip locked) l"
      "  where s.task_id = l.task_id and s.seq = l.seq"
      "  returning s.task_id, s.seq, s.tenant, s.created_at"
      ")" BACK,
      1, { INT4 }, 0 },

    /*
     * Those of workers that are known to be gone.  A worker's row goes when
     * nothing of it is found any more: its last claim may commit after it.
     */
    { "bury",
      "with back as ("
      GONE
      "  from (select task_id, seq from agent.step"
      "        where status = 1 and owner = any($1::text[])"
      "        for update skip locked) l"
      "  where s.task_id = l.task_id and s.seq = l.seq"
      "  returning s.task_id, s.seq, s.tenant, s.created_at"
      "), dead as ("
      "  delete from agent.worker where name = any($1::text[])"
      "    and not exists (select from back)"
      ")" BACK,
      1, { TEXTS }, 0 },

    /*
     * Those this worker owns and does not know of, as an answer got lost:
     * right after it has renewed all others.  Most likely no attempt was
     * made of them; but not for ever.
     */
    { "orphans",
      "with back as ("
      "  update agent.step s set status = 0, owner = null,"
      "         lease_until = null,"
      "         spared = s.spared + (s.spared < 8)::int"
      "  from (select task_id, seq from agent.step"
      "        where status = 1 and owner = $1::text"
      "          and lease_until < now() + $2::int4 * interval '1 ms'"
      "        for update skip locked) l"
      "  where s.task_id = l.task_id and s.seq = l.seq"
      "  returning s.task_id, s.seq, s.tenant, s.created_at"
      ")" BACK,
      2, { TEXT, INT4 }, 0 },

    /*
     * $1: ms that a step may wait in the queue.  What is told at once has
     * room for some 200 ids.
     */
    { "expire",
      "with old as ("
      "  delete from agent.queue q using ("
      "    select task_id from agent.queue"
      "    where greatest(queued_at, run_at)"
      "          < now() - $1::int8 * interval '1 ms'"
      "    limit 1000 for update skip locked) l"
      "  where q.task_id = l.task_id"
      "  returning q.task_id, q.seq, q.agent"
      "), ended as ("
      "  update agent.step s set status = 4, ended_at = now(),"
      "         additional_output = json_build_object('error',"
      "           concat_ws('; ', s.story, 'no worker took the step from the"
      " queue in time'), 'attempts', s.attempt - s.spared, 'code', 503)"
      "  from old o"
      "  where s.task_id = o.task_id and s.seq = o.seq and s.status = 0"
      "  returning s.task_id, s.step_id, s.tenant, o.agent, s.attempt,"
      "            s.status, s.tokens_in, s.tokens_out, '0' as price"
      "), billed as (" BILL("ended")
      "), forgotten as ("
      "  delete from agent.secret c using ended e"
      "  where c.task_id = e.task_id"
      "), keys as ("
      "  delete from agent.idempotency where (tenant, key) in ("
      "    select tenant, key from agent.idempotency k"
      "    where not (" KEY_LIVES("k") ") order by created_at limit 1000)"
      "), removed as ("
      "  delete from agent.deleted"
      "  where deleted_at < now() - interval '1 min' returning task_id"
      "), late_steps as ("
      "  delete from agent.step s using removed r"
      "  where s.task_id = r.task_id"
      "), late_rows as ("
      "  delete from agent.queue q using removed r"
      "  where q.task_id = r.task_id"
      "), late_files as ("
      "  delete from agent.artifact a using removed r"
      "  where a.task_id = r.task_id"
      "), late_secrets as ("
      "  delete from agent.secret c using removed r"
      "  where c.task_id = r.task_id"
      "), late_keys as ("
      "  delete from agent.idempotency k using removed r"
      "  where k.task_id = r.task_id"
      "), changes as ("
      "  delete from agent.key_change"
      "  where changed_at < now() - interval '1 day'"
      "), workers as ("
      "  delete from agent.worker where seen_at < now() - interval '1 day'"
      ")"
      " select (select count(*) from ended)::int8,"
      "        (select count(*) from (select pg_notify('agent_ended', ids)"
      "         from (select string_agg(step_id::text, ',') as ids"
      "               from (select step_id,"
      "                            (row_number() over () - 1) / 200 as part"
      "                     from ended) e group by part) x) n)",
      1, { INT8 }, 0 },

    /* $3: one step, or null for whichever runs or waits */
    { "cancel",
      "select * from agent.cancel($1::text, $2::uuid, $3::uuid)",
      3, { TEXT, UUID, UUID }, 0 },

    { "delete_task", "select * from agent.delete_task($1::text, $2::uuid)",
      2, { TEXT, UUID }, 0 },

    /* $5: what stands in traces for $6, and may be null */
    { "register",
      "with part as ("
      "  insert into agent.trace_part (mark, part)"
      "  select $5::text, $6::text where $5::text is not null"
      "  on conflict do nothing"
      ")"
      " insert into agent.worker (name, host, pid, born)"
      " values ($1::text, $2::text, $3::int4, $4::int8)"
      " on conflict (name) do update set seen_at = now()",
      6, { TEXT, TEXT, INT4, INT8, TEXT, TEXT }, 0 },

    /* $2: below this id all tasks are there; $3: how many marks at most */
    { "mark", "select agent.make_marks($1::text, $2::uuid, $3::int4)",
      3, { TEXT, UUID, INT4 }, 0 },

    /* both connections have one, by what calls it */
    { "replan", "discard plans", 0, { 0 }, 0 },

    /*
     * Whose rows those behind it may see, until the transaction ends.  What
     * agent.enter() does, but the function is called for tenants with limits
     * alone: it costs more than all the rest.  "offset": first the one
     * setting, as what follows is seen by it.
     */
    { "enter",
      "select set_config('agent.limited',"
      "         case when w.who = '*' then '1'"
      "              when exists (select from agent.quota q"
      "                           where q.tenant = substr(w.who, 2))"
      "              then agent.enter(w.who, false)::int::text"
      "              else '0' end, true)"
      " from (select set_config('agent.tenant', $1::text, true) as who"
      "       offset 0) w",
      1, { TEXT }, 0 }
};
