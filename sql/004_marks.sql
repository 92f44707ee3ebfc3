-- Schema "agent", version 4: page marks that stay fast behind row-level
-- security, and a cheaper step.  Forward only; load after version 3, as the
-- same role:
--
--     psql -v ON_ERROR_STOP=1 -f sql/004_marks.sql "dbname=agent"
--
-- Stop every nginx of version 3 first.

begin;

-- As in version 2, but for "(select coalesce(...))".  A policy is looked at
-- before any condition that might tell of what it sees, and Postgres takes
-- coalesce() for one that might: so that "task_id >= coalesce(...)" was no
-- condition of the index scan any more, and all tasks of the tenant were read.
create or replace function agent.make_marks(p_tenant text, p_below uuid,
                                            p_marks integer)
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
                and task_id >= (select coalesce((select task_id from last),
                      '00000000-0000-0000-0000-000000000000'::uuid))
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


-- Only the module's own statements set it, and Postgres reads the text of a
-- check anew for each execution: some 5 % of the beginning and of the end of
-- a step.
alter table agent.step drop constraint step_status_check;


insert into agent.schema_version (version) values (4);

commit;
