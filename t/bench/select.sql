-- What get_task does, for one task.

\set n random(1, :tasks)

select t.agent, t.input, t.additional_input,
       (select json_agg(json_build_object(
                   'artifact_id', a.artifact_id,
                   'agent_created', a.step_id is not null,
                   'file_name', a.file_name,
                   'relative_path', a.relative_path))
          from (select * from agent.artifact a where a.task_id = t.task_id
                order by a.artifact_id) a)
  from agent.task t
 where t.task_id = ('01900000-0000-7000-8000-'
                    || lpad(to_hex(:n::int8), 12, '0'))::uuid
   and t.tenant = '';
