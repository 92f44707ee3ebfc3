-- Schema "agent", version 3: API keys, tenants behind row-level security,
-- quotas, usage, traces.  Forward only; load after version 2, as the same
-- role:
--
--     psql -v ON_ERROR_STOP=1 -f sql/003_tenants.sql "dbname=agent"
--
-- Stop every nginx of version 2 first.  From now on a session sees no row
-- before it has said whose: the module says so for each call, and whoever
-- looks around by hand says
--
--     select agent.enter('*');                    -- of everyone
--     select agent.enter('=acme');                -- of tenant "acme"
--
-- Only superusers and roles with BYPASSRLS are not held to it, as pg_dump
-- must not be.

begin;

-- Who is at work in this transaction or session: '=' and a tenant, '*' for
-- all, anything else for none: so that neither a setting that was never made
-- nor one that is gone again stands for the tenant ''.
create function agent.tenant() returns text
language sql stable as $$
    select case when current_setting('agent.tenant', true) like '=%'
                then substr(current_setting('agent.tenant', true), 2) end
$$;

create function agent.everyone() returns boolean
language sql stable as $$
    select coalesce(current_setting('agent.tenant', true) = '*', false)
$$;

-- What the tenant has used is counted where it has limits, and then one
-- transaction at a time.
create function agent.limited() returns boolean
language sql stable as $$
    select coalesce(current_setting('agent.limited', true) = '1', false)
$$;


-- API keys.  Only the SHA-256 of a key is here.
create table agent.api_key (
    hash        bytea primary key,
    key_id      uuid not null unique default gen_random_uuid(),
    tenant      text not null,
    name        text,
    hint        text not null,                   -- how the key begins
    agents      text[],                          -- null: all
    read_only   boolean not null default false,
    created_at  timestamptz not null default now(),
    expires_at  timestamptz,
    revoked_at  timestamptz,
    check (length(hash) = 32),
    check (length(tenant) <= 128 and tenant !~ '[\x01-\x1f\x7f]'),
    check (array_position(agents, null) is null and
           array_to_string(agents, '') !~ '[^A-Za-z0-9._-]')
);

create index api_key_tenant on agent.api_key (tenant);


-- Keys that are not what they were.  By the number of the transaction: what
-- was not committed when somebody looked has one that is not below that
-- look's oldest, however long its commit took.
create table agent.key_change (
    xid         xid8 not null default pg_current_xact_id(),
    hash        bytea not null,
    changed_at  timestamptz not null default now()
);

create index key_change_xid on agent.key_change (xid);


-- What a tenant may use; null: as much as it likes.  A tenant without a row
-- has no limits, and nothing of it is counted here.
create table agent.quota (
    tenant              text primary key,
    max_running         integer,                 -- steps at once
    max_queued          integer,                 -- steps in the queue
    max_steps_day       bigint,                  -- begun, by UTC days
    max_artifact_bytes  bigint,
    max_money_month     numeric(18, 6),          -- of steps ended, by months
    day                 date not null,
    day_steps           bigint not null default 0,
    month               date not null,
    month_money         numeric(30, 6) not null default 0,
    artifact_bytes      bigint not null default 0,
    check (max_running >= 0 and max_queued >= 0 and max_steps_day >= 0
           and max_artifact_bytes >= 0 and max_money_month >= 0),
    check (max_money_month <> 'NaN')
);


alter table agent.task
    add column traceparent  text;                -- W3C Trace Context

-- limited: the tenant had limits when it came; what it may cost is then
-- reserved until the ledger has what it did cost.
alter table agent.step
    add column traceparent  text,
    add column trace        text,                -- JSON objects, "," between
    add column limited      boolean not null default agent.limited(),
    add column reserved     numeric(18, 6);

-- The trace makes a row of two or three KB: to have Postgres compress each
-- of those would cost as much as all the rest of a step.
alter table agent.step set (toast_tuple_target = 8160);

-- No plan depends on what is in these, and they are long: ANALYZE need not
-- read them.
alter table agent.task
    alter column input set statistics 0,
    alter column additional_input set statistics 0;
alter table agent.step
    alter column input set statistics 0,
    alter column additional_input set statistics 0,
    alter column output set statistics 0,
    alter column additional_output set statistics 0,
    alter column turns set statistics 0,
    alter column story set statistics 0,
    alter column trace set statistics 0;

-- What all traces have in common, like the tools that each request to an LLM
-- ends with, is here once, as it stands in JSON.  In a trace its mark stands
-- for it: between two "\/", which nobody else writes so.
create table agent.trace_part (
    mark  text primary key,
    part  text not null
);

create function agent.whole_trace(p_trace text) returns text
language plpgsql stable as $$
declare
    v_part agent.trace_part;
begin
    for v_part in select * from agent.trace_part
                  where position(mark in p_trace) > 0 loop
        p_trace := replace(p_trace, v_part.mark, v_part.part);
    end loop;
    return p_trace;
end
$$;

create index step_limited on agent.step (tenant, status)
    where limited and status in (0, 1);

alter table agent.secret
    add column tenant  text not null default coalesce(agent.tenant(), '');
alter table agent.deleted
    add column tenant  text not null default coalesce(agent.tenant(), '');

-- claims go by tenant, so that none waits behind all that another has sent;
-- and so does the count of what waits
create index queue_line on agent.queue (tenant, agent, run_at);
drop index agent.queue_next;

-- the ledger, read by tenant and day
create index usage_tenant on agent.usage (tenant, ended_at);


-- Says who is at work: until the transaction ends, or the session if "stay".
-- The limits of a tenant that has some are locked until the transaction ends:
-- before any row of the tenant's, so that two never wait for each other; and
-- not for long, as the calls of other tenants are behind this one.
create function agent.enter(p_who text, p_stay boolean default true)
returns boolean
language plpgsql as $$
declare
    v_limited boolean;
    v_set     text;
begin
    -- by ":=", which runs no query: this is done for each batch
    v_set := set_config('agent.tenant', p_who, not p_stay);

    v_limited := agent.everyone();

    if exists (select from agent.quota where tenant = agent.tenant()) then
        v_set := current_setting('lock_timeout');
        perform set_config('lock_timeout', '250ms', true);
        perform from agent.quota where tenant = agent.tenant()
            for no key update;
        v_limited := found;
        perform set_config('lock_timeout', v_set, true);
    end if;

    v_set := set_config('agent.limited', v_limited::int::text, not p_stay);
    return v_limited;
end
$$;


-- Which limit one step more would break: 1 running, 2 queued, 3 steps of the
-- day, 4 money of the month; 0: none.  p_put: it goes into the queue.
-- p_before: steps of the same statement that come first.
create function agent.over_quota(p_tenant text, p_put boolean,
                                 p_price numeric, p_before bigint)
returns integer
language plpgsql stable as $$
declare
    q       agent.quota;
    v_today date := (now() at time zone 'UTC')::date;
    v_spent numeric;
begin
    select * into q from agent.quota where tenant = p_tenant;

    if not found then
        return 0;
    end if;

    -- what is not limited is not counted, nor is more than the limit

    if not p_put and q.max_running is not null
       and q.max_running <= p_before + (
           select count(*) from (
               select from agent.step
               where tenant = p_tenant and limited and status = 1
               limit q.max_running) s)
    then
        return 1;
    end if;

    if p_put and q.max_queued is not null
       and q.max_queued <= p_before + (
           select count(*) from (
               select from agent.queue where tenant = p_tenant
               limit q.max_queued) w)
    then
        return 2;
    end if;

    if q.max_steps_day <= (p_before
           + case when q.day = v_today then q.day_steps else 0 end)
    then
        return 3;
    end if;

    if q.max_money_month is not null then
        v_spent := case when q.month = date_trunc('month', v_today)::date
                        then q.month_money else 0 end
                   + coalesce((select sum(reserved) from agent.step
                               where tenant = p_tenant and limited
                                 and status in (0, 1)), 0);

        if v_spent + coalesce(p_price, 0) * (p_before + 1) > q.max_money_month
           or v_spent >= q.max_money_month
        then
            return 4;
        end if;
    end if;

    return 0;
end
$$;

-- That limit, for the message.
create function agent.quota_max(p_tenant text, p_quota integer)
returns text
language sql stable as $$
    select case p_quota when 1 then max_running::text
                        when 2 then max_queued::text
                        when 3 then max_steps_day::text
                        when 4 then max_money_month::text
                        when 5 then max_artifact_bytes::text end
    from agent.quota where tenant = p_tenant
$$;

-- Of p_n steps in the queue, how many the tenant may have run now.  A tenant
-- who is just being looked at elsewhere comes next time, and then waits for
-- it (p_wait): in a transaction that holds nothing else.
create function agent.may_run(p_tenant text, p_n integer, p_wait boolean)
returns integer
language plpgsql as $$
declare
    v_max integer;
begin
    if p_wait then
        begin
            perform set_config('lock_timeout', '250ms', true);
            select max_running into v_max from agent.quota
            where tenant = p_tenant for no key update;
        exception when lock_not_available then
            return 0;
        end;
    else
        select max_running into v_max from agent.quota
        where tenant = p_tenant for no key update skip locked;
    end if;

    if not found then
        return case when exists (select from agent.quota
                                 where tenant = p_tenant)
                    then 0 else p_n end;
    end if;

    if v_max is null then
        return p_n;
    end if;

    return greatest(0, least(p_n, v_max - (
               select count(*) from agent.step
               where tenant = p_tenant and limited and status = 1)));
end
$$;


-- The counting, of tenants who have limits: by whatever statement it comes.
create function agent.count_step() returns trigger
language plpgsql as $$
begin
    update agent.quota set
        day_steps = case when day = (now() at time zone 'UTC')::date
                         then day_steps else 0 end + 1,
        day = (now() at time zone 'UTC')::date
    where tenant = new.tenant;
    return null;
end
$$;

create trigger step_count after insert on agent.step
    for each row when (new.limited) execute function agent.count_step();

create function agent.count_money() returns trigger
language plpgsql as $$
declare
    v_month date := date_trunc('month', now() at time zone 'UTC')::date;
begin
    update agent.quota set
        month_money = case when month = v_month then month_money else 0 end
                      + new.price,
        month = v_month
    where tenant = new.tenant;
    return null;
end
$$;

-- Not "agent.limited()": what a trigger asks is planned for each statement,
-- and a function of SQL would be parsed each time.
create trigger usage_count after insert on agent.usage
    for each row when (new.price > 0
                       and current_setting('agent.limited', true) = '1')
    execute function agent.count_money();

create function agent.count_bytes() returns trigger
language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        update agent.quota set artifact_bytes = artifact_bytes + new.size
        where tenant = new.tenant;
    else
        update agent.quota
        set artifact_bytes = greatest(0, artifact_bytes - old.size)
        where tenant = old.tenant;
    end if;
    return null;
end
$$;

create trigger artifact_count after insert or delete on agent.artifact
    for each row when (current_setting('agent.limited', true) = '1')
    execute function agent.count_bytes();


-- A key that is changed is told to every nginx.
create function agent.tell_key() returns trigger
language plpgsql as $$
begin
    insert into agent.key_change (hash) values (old.hash);
    perform pg_notify('agent_keys', encode(old.hash, 'hex'));
    return null;
end
$$;

create trigger api_key_tell after update or delete on agent.api_key
    for each row execute function agent.tell_key();

create function agent.tell_keys() returns trigger
language plpgsql as $$
begin
    insert into agent.key_change (hash) values ('');     -- all of them
    perform pg_notify('agent_keys', '');
    return null;
end
$$;

create trigger api_key_tell_all after truncate on agent.api_key
    for each statement execute function agent.tell_keys();


-- For operators ---------------------------------------------------------------

-- Says who is at work in this transaction, and returns who was.  The functions
-- below begin as '*', everyone, and end as whoever called them, so that the
-- caller sees no more afterwards than before; an error undoes it, too.
create function agent.become(p_who text)
returns text
language plpgsql as $$
declare
    v_was text := coalesce(current_setting('agent.tenant', true), '');
begin
    perform set_config('agent.tenant', p_who, true);
    return v_was;
end
$$;

-- Makes a key and shows it: this once.
--
--     select agent.create_key('acme', p_name => 'ci',
--                             p_expires => now() + interval '90 days');
create function agent.create_key(
    p_tenant    text,
    p_name      text default null,
    p_agents    text[] default null,             -- null: all agents
    p_read_only boolean default false,
    p_expires   timestamptz default null)
returns text
language plpgsql as $$
declare
    v_key text := 'ak_' || encode(uuid_send(gen_random_uuid())
                                  || uuid_send(gen_random_uuid()), 'hex');
    v_who text := agent.become('*');
begin
    insert into agent.api_key (hash, tenant, name, hint, agents, read_only,
                               expires_at)
    values (sha256(convert_to(v_key, 'UTF8')), p_tenant, p_name,
            left(v_key, 9), p_agents, p_read_only, p_expires);

    perform agent.become(v_who);
    return v_key;
end
$$;

create function agent.list_keys(p_tenant text default null)
returns table (key_id uuid, tenant text, name text, hint text, agents text[],
               read_only boolean, created_at timestamptz,
               expires_at timestamptz, revoked_at timestamptz)
language plpgsql as $$
declare
    v_who text := agent.become('*');
begin
    return query
        select k.key_id, k.tenant, k.name, k.hint, k.agents, k.read_only,
               k.created_at, k.expires_at, k.revoked_at
        from agent.api_key k where k.tenant = coalesce(p_tenant, k.tenant)
        order by k.tenant, k.created_at;

    perform agent.become(v_who);
end
$$;

-- Changes what a key may do; all three are set.  False: there is no such key.
create function agent.limit_key(p_key_id uuid, p_agents text[],
                                p_read_only boolean, p_expires timestamptz)
returns boolean
language plpgsql as $$
declare
    v_who   text := agent.become('*');
    v_found boolean;
begin
    update agent.api_key set agents = p_agents, read_only = p_read_only,
           expires_at = p_expires
    where key_id = p_key_id;
    v_found := found;

    perform agent.become(v_who);
    return v_found;
end
$$;

-- It stops working on every nginx within a second, and for good.  False:
-- there is no such key.
create function agent.revoke_key(p_key_id uuid)
returns boolean
language plpgsql as $$
declare
    v_who   text := agent.become('*');
    v_found boolean;
begin
    update agent.api_key set revoked_at = coalesce(revoked_at, now())
    where key_id = p_key_id;
    v_found := found;

    perform agent.become(v_who);
    return v_found;
end
$$;

-- Sets what a tenant may use, all of it; null: no limit.  What it has used
-- so far today and this month, and what it stores, is counted anew.
create function agent.set_quota(
    p_tenant            text,
    p_running           integer default null,
    p_queued            integer default null,
    p_steps_day         bigint default null,
    p_artifact_bytes    bigint default null,
    p_money_month       numeric default null)
returns void
language plpgsql as $$
declare
    v_who   text := agent.become('*');
    v_day   date := (now() at time zone 'UTC')::date;
    v_month date := date_trunc('month', now() at time zone 'UTC')::date;
begin
    insert into agent.quota as q (tenant, max_running, max_queued,
        max_steps_day, max_artifact_bytes, max_money_month, day, month)
    values (p_tenant, p_running, p_queued, p_steps_day, p_artifact_bytes,
            p_money_month, v_day, v_month)
    on conflict (tenant) do update set max_running = p_running,
        max_queued = p_queued, max_steps_day = p_steps_day,
        max_artifact_bytes = p_artifact_bytes,
        max_money_month = p_money_month;

    update agent.step set limited = true
    where tenant = p_tenant and not limited and status = 1;

    update agent.step s set limited = true from agent.queue q
    where q.tenant = p_tenant and s.task_id = q.task_id and s.seq = q.seq
      and not s.limited;

    update agent.quota q set day = v_day, month = v_month,
        day_steps = (select count(*) from agent.usage u
                     where u.tenant = p_tenant
                       and u.ended_at >= v_day::timestamp at time zone 'UTC')
                    + (select count(*) from agent.step s
                       where s.tenant = p_tenant and s.limited
                         and s.status in (0, 1)),
        month_money = coalesce((select sum(u.price) from agent.usage u
                     where u.tenant = p_tenant and u.ended_at
                           >= v_month::timestamp at time zone 'UTC'), 0),
        artifact_bytes = coalesce((select sum(a.size) from agent.artifact a
                                   where a.tenant = p_tenant), 0)
    where q.tenant = p_tenant;

    perform agent.become(v_who);
end
$$;

-- The tenant has no limits any more.
create function agent.drop_quota(p_tenant text)
returns boolean
language plpgsql as $$
declare
    v_who   text := agent.become('*');
    v_found boolean;
begin
    delete from agent.quota where tenant = p_tenant;
    v_found := found;

    perform agent.become(v_who);
    return v_found;
end
$$;


-- Row-level security: the second wall.  Forced, as the role that owns the
-- tables is the one the module connects as.
do $$
declare
    v_table text;
begin
    foreach v_table in array array['task', 'task_mark', 'step', 'queue',
        'artifact', 'usage', 'secret', 'idempotency', 'deleted', 'api_key',
        'quota']
    loop
        execute format('alter table agent.%I enable row level security',
                       v_table);
        execute format('alter table agent.%I force row level security',
                       v_table);
        execute format('create policy tenant on agent.%I using '
                       '(tenant = (select agent.tenant()) '
                       'or (select agent.everyone()))', v_table);
    end loop;
end
$$;

insert into agent.schema_version (version) values (3);

commit;
