-- Schema "agent", version 1.  Forward only: a later version is a file of its
-- own.  Load as the role that is to own it:
--
--     psql -v ON_ERROR_STOP=1 -f sql/001_schema.sql "dbname=agent"
--
-- The module checks agent.schema_version when it connects.
--
-- Every primary key begins with the task's id: that is what a distributed
-- Postgres can shard by, and as ids are UUIDv7, inserts stay at the right
-- edge.  There are no foreign keys: each would lock the task's row for every
-- step and artifact, and every statement checks the task itself.

begin;

create schema agent;

create table agent.schema_version (
    version      integer primary key,
    loaded_at    timestamptz not null default now()
);

insert into agent.schema_version (version) values (1);


create table agent.task (
    task_id           uuid primary key,
    tenant            text not null,
    agent             text not null,
    input             text,
    additional_input  json,                  -- the client's own bytes
    max_steps         integer not null,
    created_at        timestamptz not null default now()
);

-- lists: a tenant's tasks in creation order
create index task_list on agent.task (tenant, task_id);


-- Page marks: the task with rank n * 1000 of its tenant, counted from 0, so
-- that totals and far pages need not count from the beginning.  Made by the
-- module, behind the tasks that may still be on their way.
create table agent.task_mark (
    tenant       text not null,
    n            bigint not null,
    task_id      uuid not null,
    primary key (tenant, n)
);


-- status: 0 created, 1 running, 2 completed, 3 waiting_for_input, 4 failed,
-- 5 cancelled.  The steps of a task are numbered 1, 2, ... by seq; two that
-- begin at once meet in the primary key, and one of them loses.
create table agent.step (
    task_id            uuid not null,
    seq                integer not null,
    step_id            uuid not null,
    tenant             text not null,
    status             smallint not null,
    attempt            integer not null,     -- the fence: who may write
    is_last            boolean not null default false,
    secret             boolean not null default false,
    owner              text,                 -- the worker that runs it
    lease_until        timestamptz,          -- null when ended
    name               text,
    input              text,
    additional_input   json,
    output             text,
    additional_output  json,
    turns              json,                 -- messages for the next step
    tokens_in          bigint not null default 0,
    tokens_out         bigint not null default 0,
    created_at         timestamptz not null default now(),
    ended_at           timestamptz,
    primary key (task_id, seq),
    check (status between 0 and 5)
) with (fillfactor = 80);                    -- a step is updated once


-- what runs now: how steps whose worker died are found
create index step_running on agent.step (lease_until) where status = 1;


create table agent.artifact (
    task_id        uuid not null,
    artifact_id    uuid not null,            -- also the name of its bytes
    step_id        uuid,                     -- null: uploaded by a client
    tenant         text not null,
    file_name      text not null,
    relative_path  text,
    size           bigint not null,
    created_at     timestamptz not null default now(),
    primary key (task_id, artifact_id)
);


-- The ledger: append-only, one row for each step that has ended.
create table agent.usage (
    task_id      uuid not null,
    step_id      uuid not null,
    tenant       text not null,
    agent        text not null,
    attempt      integer not null,
    status       smallint not null,
    tokens_in    bigint not null,
    tokens_out   bigint not null,
    price        numeric(18, 6) not null,
    ended_at     timestamptz not null default now(),
    primary key (task_id, step_id)
);

commit;
