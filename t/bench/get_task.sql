-- One task by the very statement that the module prepares (get_task in
-- ngx_agent_store_sql.c), for one id.

\set n random(1, :tasks)

select u.ord::int4, t.agent, t.input, t.additional_input,
       (select json_agg(json_build_object(
                   'artifact_id', a.artifact_id,
                   'agent_created', a.step_id is not null,
                   'file_name', a.file_name,
                   'relative_path', a.relative_path))
          from (select * from agent.artifact a where a.task_id = t.task_id
                order by a.artifact_id) a)
  from unnest(array[('01900000-0000-7000-8000-'
                    || lpad(to_hex(:n::int8), 12, '0'))::uuid],
              array['']) with ordinality as u(task_id, tenant, ord)
  join agent.task t on t.task_id = u.task_id and t.tenant = u.tenant;
