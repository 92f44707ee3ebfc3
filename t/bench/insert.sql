-- What create_task does, a transaction each: ids in rising order, as those of
-- the module are.

\set n :n + 1
\set high :base * 1000000 + :n
\set low random(0, 9000000000000000000)

insert into agent.task (task_id, tenant, agent, input, additional_input,
                        max_steps)
values (encode(int8send(:high::int8) || int8send(:low::int8), 'hex')::uuid,
        '', 'bench', 'Write the word Washington to output.txt', null, 25)
on conflict do nothing;
