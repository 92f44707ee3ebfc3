-- Tasks with ids that get.lua and select.sql can both name.

insert into agent.task (task_id, tenant, agent, input, max_steps)
select ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, '',
       'bench', 'Write the word Washington to output.txt', 25
  from generate_series(1, :tasks) as n;

vacuum analyze agent.task;
