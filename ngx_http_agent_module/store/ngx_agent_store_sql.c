
/*
 * All SQL of the module: text only; what several statements share is in
 * ngx_agent_store_sql_parts.h, and some functions are in sql/.  Each statement
 * is prepared, takes its values as parameters, and cannot fail by what a user
 * sends: conflicts are rows, not errors.  Grouped ones take arrays ("u" is
 * the calls of a batch, "ord" a call's place in it) and each is idempotent by
 * the ids it is given, as a batch whose connection died is sent again.
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
    "listen agent_work; listen agent_ended; listen agent_cancelled;";


const ngx_agent_pg_stmt_t  ngx_agent_store_stmts[] = {

    { "create_task",
      "insert into agent.task (task_id, tenant, agent, input,"
      "                        additional_input, max_steps)"
      " select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[],"
      "                      $5::json[], $6::int4[])"
      " on conflict do nothing",
      6, { UUID, TEXT, TEXT, TEXT, JSON, INT4 }, 1 },

    /*
     * The same with a key, or with a first step ($9) for the queue, or both.
     * "state": 0 made, 1 there was one by this key ("task_id"), 2 for another
     * request, 3 the key was taken in this moment: ask again.
     */
    { "create_task_more",
      "with u as ("
      "  select $1::uuid as task_id, $2::text as tenant, $3::text as agent,"
      "         $4::text as input, $5::json as additional_input,"
      "         $6::int4 as max_steps, $7::text as key, $8::text as print,"
      "         $9::uuid as step_id"
      "), old as ("
      "  select k.task_id, k.print <> u.print as other"
      "  from u join agent.idempotency k"
      "    on k.tenant = u.tenant and k.key = u.key and " KEY_LIVES("k")
      "), keyed as ("
      "  insert into agent.idempotency as k (tenant, key, print, task_id)"
      "  select tenant, key, print, task_id from u"
      "  where key is not null and not exists (select from old)"
      "  on conflict (tenant, key) do update set print = excluded.print,"
      "    task_id = excluded.task_id, item_id = null, created_at = now()"
      "    where not (" KEY_LIVES("k") ")"
      "  returning 1"
      "), made as ("
      "  insert into agent.task (task_id, tenant, agent, input,"
      "                          additional_input, max_steps)"
      "  select task_id, tenant, agent, input, additional_input, max_steps"
      "  from u where key is null or exists (select from keyed)"
      "  on conflict do nothing returning task_id"
      "), first as ("
      "  insert into agent.step (task_id, seq, step_id, tenant, status,"
      "                          attempt)"
      "  select u.task_id, 1, u.step_id, u.tenant, 0, 0"
      "  from u join made on made.task_id = u.task_id"
      "  where u.step_id is not null"
      "  on conflict do nothing returning task_id"
      "), queued as ("
      "  insert into agent.queue as q (task_id, seq, tenant, agent)"
      "  select u.task_id, 1, u.tenant, u.agent"
      "  from u join first on first.task_id = u.task_id"
      NEWER " returning agent"
      ")"
      " select 1::int4, coalesce(old.task_id, u.task_id),"
      "        case when old.other then 2"
      "             when old.task_id <> u.task_id then 1"
      "             when u.key is null or old.task_id is not null"
      "               or exists (select from keyed) then 0"
      "             else 3 end, " WAKE("queued", "")
      " from u left join old on true",
      9, { UUID, TEXT, TEXT, TEXT, JSON, INT4, TEXT, TEXT, UUID }, 0 },

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

    /* "state" as for tasks, and 4: no such task */
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
      "), keyed as ("
      "  insert into agent.idempotency as k (tenant, key, print, task_id,"
      "                                      item_id)"
      "  select tenant, key, print, u.task_id, artifact_id from u"
      "    join t on t.task_id = u.task_id"
      "  where not exists (select from old)"
      "  on conflict (tenant, key) do update set print = excluded.print,"
      "    task_id = excluded.task_id, item_id = excluded.item_id,"
      "    created_at = now() where not (" KEY_LIVES("k") ")"
      "  returning 1"
      "), made as ("
      "  insert into agent.artifact (task_id, artifact_id, tenant,"
      "                              file_name, relative_path, size)"
      "  select task_id, artifact_id, tenant, file_name, relative_path, size"
      "  from u where exists (select from keyed)"
      "  on conflict do nothing"
      ")"
      " select 1::int4, coalesce(old.item_id, u.artifact_id),"
      "        case when old.other then 2"
      "             when old.item_id <> u.artifact_id then 1"
      "             when old.item_id is not null"
      "               or exists (select from keyed) then 0"
      "             when not exists (select from t) then 4"
      "             else 3 end"
      " from u left join old on true",
      8, { UUID, TEXT, UUID, TEXT, TEXT, INT8, TEXT, TEXT }, 0 },

    /* a secret is not for this one: 8, it is to go by the next statement */
    { "begin_step",
      JUDGED("unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[],"
             "       $5::json[], $6::text[], $7::int4[]) with ordinality"
             "  as u(task_id, tenant, step_id, input, additional_input,"
             "       owner, lease, ord)", "false", "", NO_REPLAY,
             "")
      BEGUN("judged", "verdict = 0 and not redact", "1", "1", "owner", LEASED)
      VERDICTS("case when j.redact then 8 else 2 end", ""),
      7, { UUID, TEXT, UUID, TEXT, JSON, TEXT, INT4 }, 1 },

    /* the same when this worker, or this agent, has enough to do */
    { "queue_step",
      JUDGED("unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[],"
             "       $5::json[], $6::text[], $7::int4[], $8::bool[],"
             "       $9::text[], $10::bool[], $11::bool[]) with ordinality"
             "  as u(task_id, tenant, step_id, input, additional_input,"
             "       owner, lease, queue, agents_full, watched, refuse, ord)",
             QUEUE_ANYWAY, "", NO_REPLAY, REFUSE)
      BEGUN_PUT("judged", PUT)
      QUEUED
      VERDICTS("2", ", " WAKE("queued", "")),
      11, { UUID, TEXT, UUID, TEXT, JSON, TEXT, INT4, BOOL, TEXT, BOOL,
            BOOL }, 1 },

    /*
     * The same with a key.  One whose step was never stored is free again;
     * but a key that came in this very moment has a step that this statement
     * cannot see yet: hence the second look at the key itself.  11:
     * somebody was faster, ask again.
     */
    { "queue_step_keyed",
      JUDGED("(values (1, $1::uuid, $2::text, $3::uuid, $4::text, $5::json,"
             "         $6::text, $7::int4, $8::bool, $9::text, $10::bool,"
             "         $11::bool, $12::text, $13::text))"
             "  as u(ord, task_id, tenant, step_id, input, additional_input,"
             "       owner, lease, queue, agents_full, watched, refuse, key,"
             "       print)",
             QUEUE_ANYWAY,
             " left join lateral ("
             "   select k.print, k.item_id from agent.idempotency k"
             "   where k.tenant = u.tenant and k.key = u.key"
             "     and " KEY_LIVES("k")
             "     and (k.print <> u.print or exists"
             "       (select from agent.step s where s.task_id = k.task_id"
             "          and s.step_id = k.item_id))) k on true", REPLAY,
             REFUSE)
      ", keyed as ("
      "  insert into agent.idempotency as k (tenant, key, print, task_id,"
      "                                      item_id)"
      "  select tenant, key, print, task_id, step_id from judged"
      "  where verdict = 0"
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
      "), own as (select * from judged where exists (select from keyed))"
      BEGUN_PUT("own", PUT)
      QUEUED
      VERDICTS("11", ", " WAKE("queued", "")),
      13, { UUID, TEXT, UUID, TEXT, JSON, TEXT, INT4, BOOL, TEXT, BOOL, BOOL,
            TEXT, TEXT }, 0 },

    { "end_step", END_STEP("", "", "", ""), 14, { END_STEP_TYPES }, 1 },

    /*
     * The same for those with artifacts, a secret, one who waits elsewhere,
     * or a step that follows by itself: few, and they cost more.
     */
    { "end_step_more",
      END_STEP(", $15::json[], $16::uuid[], $17::bool[]",
               ", artifacts, next, watched",
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
      "                          attempt)"
      "  select e.task_id, e.seq + 1, e.next, e.tenant, 0, 0"
      "  from ended e join agent.task t on t.task_id = e.task_id"
      "  where e.next is not null and e.status = 2 and not e.is_last"
      "    and e.seq < t.max_steps"
      "  on conflict do nothing returning task_id, seq, tenant"
      "), queued as ("
      "  insert into agent.queue as q (task_id, seq, tenant, agent)"
      "  select f.task_id, f.seq, f.tenant, e.agent"
      "  from follow f join ended e on e.task_id = f.task_id"
      NEWER " returning agent"
      "), ",
      ", " TELL("agent_ended", "ended where watched") ", "
      WAKE("queued", "")),
      17, { END_STEP_TYPES, JSON, UUID, BOOL }, 1 },

    /* also when it has happened before and the answer got lost */
    { "retry_step",
      "update agent.step s set attempt = u.attempt + 1, story = u.story,"
      "       lease_until = now() + u.lease * interval '1 ms'"
      " from unnest($1::uuid[], $2::int4[], $3::int4[], $4::text[],"
      "             $5::text[], $6::int4[]) with ordinality"
      "   as u(task_id, seq, attempt, story, owner, lease, ord)"
      " where s.task_id = u.task_id and s.seq = u.seq"
      "   and s.attempt in (u.attempt, u.attempt + 1)"
      "   and s.owner = u.owner and s.lease_until is not null"
      " returning u.ord::int4",
      6, { UUID, INT4, INT4, TEXT, TEXT, INT4 }, 1 },

    { "requeue_step",
      "with back as ("
      "  update agent.step s set status = 0, owner = null,"
      "         lease_until = null, spared = s.spared + u.spare::int,"
      "         story = u.story"
      "  from unnest($1::uuid[], $2::int4[], $3::int4[], $4::text[],"
      "              $5::text[], $6::int8[], $7::bool[], $8::bool[])"
      "    with ordinality as u(task_id, seq, attempt, story, agent, delay,"
      "                         spare, watched, ord)"
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
      "  from back" NEWER " returning agent"
      ")"
      " select ord::int4, " WAKE("queued", "!") " from back",
      8, { UUID, INT4, INT4, TEXT, TEXT, INT8, BOOL, BOOL }, 1 },

    /*
     * A call for each agent; "since", in ms, is where the last claim has
     * found the first ones: in front of it there may be a long row of entries
     * that are gone and that nobody may clean up yet.
     */
    { "claim",
      "with picked as ("
      "  select u.ord, u.owner, u.lease, q.task_id, q.seq, q.run_at,"
      "         q.watched"
      "  from unnest($1::text[], $2::int4[], $3::int8[], $4::text[],"
      "              $5::int4[]) with ordinality"
      "    as u(agent, n, since, owner, lease, ord)"
      "  cross join lateral ("
      "    select q.task_id, q.seq, q.run_at, q.watched from agent.queue q"
      "    where q.agent = u.agent"
      "      and q.run_at >= to_timestamp(u.since / 1000.0)"
      "      and q.run_at <= now()"
      "    order by q.run_at limit u.n for update skip locked) q"
      "), gone as ("
      "  delete from agent.queue q using picked p where q.task_id = p.task_id"
      "  returning p.*"
      "), taken as ("
      "  update agent.step s set status = 1, owner = g.owner,"
      "         attempt = s.attempt + 1,"
      "         lease_until = now() + g.lease * interval '1 ms'"
      "  from gone g join agent.task t on t.task_id = g.task_id"
      "  where s.task_id = g.task_id and s.seq = g.seq and s.status = 0"
      "  returning g.ord, g.run_at, g.watched, s.task_id, s.tenant, s.seq,"
      "            s.step_id, s.attempt, s.spared, s.redacted, s.input,"
      "            s.additional_input, s.story"
      ")"
      " select x.ord::int4, x.task_id, x.step_id, x.seq, x.attempt, x.spared,"
      "        x.redacted, x.watched,"
      "        (extract(epoch from x.run_at) * 1000)::int8,"
      "        x.tenant, t.agent, t.input,"
      "        case when x.redacted then c.value else x.input end,"
      "        x.additional_input, x.story,"
      "        x.redacted and x.input is not null and c.value is null"
      " from taken x join agent.task t on t.task_id = x.task_id"
      " left join agent.secret c on c.task_id = x.task_id and x.redacted"
      " order by x.ord, x.run_at",
      5, { TEXT, INT4, INT8, TEXT, INT4 }, 1 },

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

    { "register",
      "insert into agent.worker (name, host, pid, born)"
      " values ($1::text, $2::text, $3::int4, $4::int8)"
      " on conflict (name) do update set seen_at = now()",
      4, { TEXT, TEXT, INT4, INT8 }, 0 },

    /* $2: below this id all tasks are there; $3: how many marks at most */
    { "mark", "select agent.make_marks($1::text, $2::uuid, $3::int4)",
      3, { TEXT, UUID, INT4 }, 0 },

    /* both connections have one, by what calls it */
    { "replan", "discard plans", 0, { 0 }, 0 },

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
