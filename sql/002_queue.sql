-- Schema "agent", version 2: the queue, workers, secrets, idempotency keys.
-- Forward only; load after version 1, as the same role:
--
--     psql -v ON_ERROR_STOP=1 -f sql/002_queue.sql "dbname=agent"
--
-- Stop every nginx of version 1 first: it does not know the new states.

begin;

-- attempt - spared is what counts against the agent's "attempts"
alter table agent.step
    add column redacted  boolean not null default false,  -- input is a secret
    add column spared    integer not null default 0,      -- handed back unused
    add column story     text;                            -- of failed attempts


-- What waits for a worker: steps with status 0.  A small table that rows
-- leave when a worker claims the step.  A task has one such step at most.
create table agent.queue (
    task_id    uuid primary key,
    seq        integer not null,
    tenant     text not null,
    agent      text not null,
    run_at     timestamptz not null default now(),  -- not before; the order
    queued_at  timestamptz not null default now(),
    watched    boolean not null default false       -- tell when it has ended
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);

create index queue_next on agent.queue (agent, run_at);


-- Processes that run steps.  A process that is gone from its host has its
-- steps given to others at once, not only when their leases lapse.
create table agent.worker (
    name     text primary key,                      -- as in agent.step.owner
    host     text not null,                         -- and its process ids
    pid      integer not null,
    born     bigint not null,
    seen_at  timestamptz not null default now()
);

create index worker_host on agent.worker (host);


-- The clear text of an answer to a question that asked for a secret, while
-- its step has not ended.  Unlogged: it reaches no WAL, no base backup and no
-- standby; and it is gone after a crash of the database: the step then fails
-- and the client answers again.
create unlogged table agent.secret (
    task_id  uuid primary key,
    value    text not null
);


-- What a client's Idempotency-Key has made; kept for 24 hours.
create table agent.idempotency (
    tenant      text not null,
    key         text not null,
    print       text not null,                      -- hash of the request
    task_id     uuid not null,
    item_id     uuid,                               -- step or artifact
    created_at  timestamptz not null default now(),
    primary key (tenant, key)
);

create index idempotency_old on agent.idempotency (created_at);
create index idempotency_task on agent.idempotency (task_id);


-- Tasks that were removed a moment ago: what was on its way to them then, and
-- came after all, is removed a minute later.
create table agent.deleted (
    task_id     uuid primary key,
    deleted_at  timestamptz not null default now()
);


-- Page marks and the removal of tasks change the same ranks, so one at a time
-- for each tenant.  In functions, as what is counted must be read after the
-- lock was taken: each statement of a function sees what is committed by then.

create function agent.make_marks(p_tenant text, p_below uuid, p_marks integer)
returns integer
language plpgsql as $$
declare
    made integer;
begin
    perform pg_advisory_xact_lock(hashtext('agent.task_mark'),
                                  hashtext(p_tenant));

    with last as (
        select n, task_id from agent.task_mark where tenant = p_tenant
        order by n desc limit 1
    ), ranked as (
        select t.task_id, row_number() over (order by t.task_id) - 1
               + 1000 * coalesce((select n from last), 0) as rank
        from (select task_id from agent.task where tenant = p_tenant
                and task_id >= coalesce((select task_id from last),
                      '00000000-0000-0000-0000-000000000000'::uuid)
                and task_id < p_below
              order by task_id limit 1000 * p_marks + 1) t
    )
    insert into agent.task_mark (tenant, n, task_id)
    select p_tenant, rank / 1000, task_id from ranked where rank % 1000 = 0
    on conflict do nothing;

    get diagnostics made = row_count;
    return made;
end
$$;


-- Removes a task with all that belongs to it; what has not ended is billed as
-- cancelled.  One row with null when there was such a task, and one for each
-- artifact, whose bytes are the caller's to delete.
create function agent.delete_task(p_tenant text, p_task uuid)
returns setof uuid
language plpgsql as $$
declare
    v_agent text;
    v_ids   text;
    v_n     bigint;
begin
    perform pg_advisory_xact_lock(hashtext('agent.task_mark'),
                                  hashtext(p_tenant));

    delete from agent.task where task_id = p_task and tenant = p_tenant
    returning agent into v_agent;

    if not found then
        return;
    end if;

    -- the task with rank n * 1000 is now the one behind it
    with moved as (
        select m.n, (select t.task_id from agent.task t
                     where t.tenant = p_tenant and t.task_id > m.task_id
                     order by t.task_id limit 1) as next
        from agent.task_mark m
        where m.tenant = p_tenant and m.task_id >= p_task
    ), gone as (
        delete from agent.task_mark m using moved
        where m.tenant = p_tenant and m.n = moved.n and moved.next is null
    )
    update agent.task_mark m set task_id = moved.next from moved
    where m.tenant = p_tenant and m.n = moved.n and moved.next is not null;

    -- In a loop: while it waited for one step to end, that step's end may
    -- have stored the next one.  The queue first, as claims do it.
    loop
        delete from agent.queue where task_id = p_task;

        with gone as (
            delete from agent.step where task_id = p_task
            returning step_id, status, attempt
        ), billed as (
            insert into agent.usage (task_id, step_id, tenant, agent, attempt,
                                     status, tokens_in, tokens_out, price)
            select p_task, step_id, p_tenant, v_agent, attempt, 5, 0, 0, 0
            from gone where status in (0, 1)
            on conflict do nothing
        )
        select count(*), string_agg(step_id::text, ',')
                         filter (where status in (0, 1))
        into v_n, v_ids from gone;

        exit when v_n = 0;

        if v_ids is not null then
            perform pg_notify('agent_cancelled', v_ids);
        end if;
    end loop;

    insert into agent.deleted (task_id) values (p_task) on conflict do nothing;

    delete from agent.queue where task_id = p_task;
    delete from agent.secret where task_id = p_task;
    delete from agent.idempotency where task_id = p_task;

    return next null;
    return query delete from agent.artifact where task_id = p_task
                 returning artifact_id;
end
$$;


-- Cancels a step, or whichever of the task runs or waits.  One row with null
-- when there is such a task or step, and one for each step that is cancelled.
-- In a loop: while it waited for one step to end, that step's end may have
-- stored the next one.
create function agent.cancel(p_tenant text, p_task uuid, p_step uuid)
returns setof uuid
language plpgsql as $$
declare
    v_agent text;
    v_ids   uuid[];
begin
    select agent into v_agent from agent.task
    where task_id = p_task and tenant = p_tenant;

    if not found or (p_step is not null and not exists (
           select from agent.step where task_id = p_task and step_id = p_step))
    then
        return;
    end if;

    return next null;

    for i in 1 .. 100 loop
        delete from agent.queue q using agent.step s
        where q.task_id = p_task and s.task_id = p_task and s.seq = q.seq
          and (p_step is null or s.step_id = p_step);

        with ended as (
            update agent.step s set status = 5, owner = null,
                   lease_until = null, ended_at = now(), additional_output =
                   '{"error":"the step was cancelled","code":409}'
            where s.task_id = p_task and s.status in (0, 1)
              and (p_step is null or s.step_id = p_step)
            returning s.step_id, s.attempt
        ), billed as (
            insert into agent.usage (task_id, step_id, tenant, agent, attempt,
                                     status, tokens_in, tokens_out, price)
            select p_task, step_id, p_tenant, v_agent, attempt, 5, 0, 0, 0
            from ended
            on conflict do nothing
        )
        select array_agg(step_id) into v_ids from ended;

        if v_ids is not null then
            delete from agent.secret where task_id = p_task;

            -- it may have come into the queue while we waited for it
            delete from agent.queue where task_id in (
                select q.task_id from agent.queue q join agent.step s
                    on s.task_id = q.task_id and s.seq = q.seq
                where q.task_id = p_task and s.status = 5
                for update of q skip locked);

            perform pg_notify('agent_cancelled',
                              array_to_string(v_ids, ','));
            return query select unnest(v_ids);
        end if;

        exit when not exists (
            select from agent.step s
            where s.task_id = p_task and s.status in (0, 1)
              and (p_step is null or s.step_id = p_step));
    end loop;
end
$$;


insert into agent.schema_version (version) values (2);

commit;
