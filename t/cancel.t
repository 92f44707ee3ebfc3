#!/usr/bin/perl

# Cancelling over HTTP: of a running step and of a queued one, of a task, from
# another worker and another nginx; and deleting tasks with all they have.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $folder = scratch() . '/artifacts';
mkdir $folder;
chmod 0777, $folder;

my %conf = (pg => $pg, llm => $llm, artifacts => $folder,
            http => '    agent_concurrency 2;',
            agents => { auto => 'run auto;' });
my $nginx = AgentTest::Nginx->new(conf => conf(%conf));
my $other = AgentTest::Nginx->new(conf => conf(%conf));

my $at = '/ap/v1/agent';
my $unknown = '01890a5d-ac96-774b-bcce-b302099a8057';


sub begin {
    my ($task) = @_;
    my $c = $nginx->connect;
    $c->send(method => 'POST', path => "$at/tasks/$task/steps", body => {});
    return $c;
}

sub steps {
    my ($task) = @_;
    return [map { [split /\|/] } split /\n/, $pg->psql("select step_id, "
        . "status, attempt from agent.step where task_id = '$task' "
        . 'order by seq')];
}

sub held { my ($n) = @_; return poll_until(sub { $llm->stats->{held} == $n }) }

sub files { return grep { -f } glob "$folder/??/*" }

sub is_cancelled {
    my ($r, $task, $name) = @_;
    is($r->{status}, 409, "$name: 409");
    is($r->{json}{message}, 'the step was cancelled', "$name: message");
    is($r->{json}{task_id}, $task, "$name: task_id");
    is($r->{json}{step_id}, steps($task)->[-1][0], "$name: step_id");
}

my $ledger = 'select count(*) || \' \' || sum(price) from agent.usage '
             . 'where task_id = ';


# a running step, by the same nginx and by the other one

for my $by ($nginx, $other) {
    my $name = $by == $nginx ? 'same nginx' : 'other nginx';
    my $task = make_task($nginx, 'cancel me [[hang]]');
    my $c = begin($task);
    poll_until(sub { @{steps($task)} });
    my $step = steps($task)->[0][0];
    ok(poll_until(sub { $llm->started($step) }), "$name: it runs");

    my $start = time;
    my $r = $by->post("$at/tasks/$task/steps/$step/cancel", '');
    is($r->{status}, 200, "$name: cancel");
    is($r->{json}{status}, 'cancelled', "$name: the step as it is now");
    ok(!exists $r->{json}{run}, "$name: nothing runs");
    is_cancelled($c->answer(seconds => 5), $task, "$name: who waited");
    ok(poll_until(sub { ($llm->started($step))[0]{how} }, 5),
       "$name: the upstream is closed");
    cmp_ok(time - $start, '<', 2.5, "$name: within two seconds");
    is(($llm->started($step))[0]{how}, 'client closed', "$name: by us");
    is($pg->psql("$ledger '$task'"), '1 0.000000', "$name: one row, free")
        or diag $pg->psql("$ledger '$task'");

    # again, and for ever
    $r = $by->post("$at/tasks/$task/steps/$step/cancel", {});
    is($r->{status}, 200, "$name: once more");
    is($r->{json}{status}, 'cancelled', "$name: no change");
    $r = $by->get("$at/tasks/$task/steps/$step");
    is($r->{json}{status}, 'cancelled', "$name: GET");

    $r = run_step($nginx, $task, { input => 'now this [[echo]]' });
    is($r->{json}{output}, 'now this', "$name: the task goes on");
}


# a queued one never starts; a whole task

{
    my @tasks = map { make_task($nginx, "q$_ [[echo+hold]]") } 1 .. 2;
    my @c = map { begin($_) } @tasks;
    held(2);
    $other->stop;
    my $task = make_task($nginx, 'queued [[echo]]');
    my $c = begin($task);
    poll_until(sub { @{steps($task)} });
    my $step = steps($task)->[0];
    is($step->[1], 0, 'a step is queued');

    my $r = $nginx->get("$at/tasks/$task/steps/$step->[0]");
    is($r->{json}{status}, 'created', 'as GET shows');
    ok($r->{json}{run}{queued}, 'and says so');

    $r = $nginx->post("$at/tasks/$task/cancel", '{}');
    is($r->{status}, 200, 'its task is cancelled');
    is($r->{json}{task_id}, $task, 'the task is the answer');
    is($r->{json}{input}, 'queued [[echo]]', 'whole');
    is_cancelled($c->answer(seconds => 5), $task, 'who waited for it');
    is($pg->psql('select count(*) from agent.queue'), 0, 'the queue is empty');

    $r = $nginx->post("$at/tasks/$tasks[0]/cancel", '');
    is($r->{status}, 200, 'the task of a running step');
    is_cancelled($c[0]->answer(seconds => 5), $tasks[0], 'who waited for that');
    $llm->release;
    is($c[1]->answer->{json}{output}, 'q2', 'the other one goes on');
    sleep 0.3;
    is(steps($task)->[0][1], 5, 'it never started');
    is(scalar $llm->started($step->[0]), 0, 'the LLM was not called');

    $r = $nginx->post("$at/tasks/$tasks[1]/cancel", '');
    is($r->{status}, 200, 'a task that has ended');
    is(steps($tasks[1])->[0][1], 2, 'stays as it is');
}


# what is not there

for (["$at/tasks/$unknown/cancel", 'POST'], ["$at/tasks/$unknown", 'DELETE'],
     ["$at/tasks/none/cancel", 'POST'], ["$at/tasks/none", 'DELETE'])
{
    my $r = $nginx->request(path => $_->[0], method => $_->[1]);
    is($r->{status}, 404, "$_->[1] $_->[0]");
    like($r->{json}{message}, qr/no task with id/, 'says so');
}


# deleting

{
    my $keep = make_task($nginx, 'keep me [[demo]]');
    run_step($nginx, $keep);
    my $task = make_task($nginx, 'delete me [[demo]]');
    run_step($nginx, $task);

    for my $n (1 .. 40) {
        $nginx->post("$at/tasks/$task/artifacts",
            "--b\r\nContent-Disposition: form-data; name=\"file\"; "
            . "filename=\"$n\"\r\n\r\n$n\r\n--b--\r\n",
            headers => { 'Content-Type' => 'multipart/form-data; boundary=b' });
    }
    is(scalar files(), 42, '42 artifacts are on the disk');

    my $held = make_task($nginx, 'running [[hang]]');
    my $c = begin($held);
    poll_until(sub { @{steps($held)} });
    my $step = steps($held)->[0][0];
    poll_until(sub { $llm->started($step) });

    my $r = $nginx->request(method => 'DELETE', path => "$at/tasks/$task");
    is($r->{status}, 200, 'DELETE');
    is_deeply($r->{json}, { task_id => $task }, 'says what is gone');

    for my $path ('', '/steps', '/artifacts') {
        is($nginx->get("$at/tasks/$task$path")->{status}, 404,
           "GET tasks/...$path");
    }
    is($nginx->request(method => 'DELETE', path => "$at/tasks/$task")->{status},
       404, 'once more');
    ok(poll_until(sub { files() == 1 }), 'its files are gone from the disk');
    is($pg->psql("select count(*) from agent.step where task_id = '$task'"), 0,
       'its steps are gone');
    is($nginx->get("$at/tasks/$keep/steps")->{json}{pagination}{total_items},
       1, 'others are not');
    cmp_ok($pg->psql("select count(*) from agent.usage where task_id = "
                     . "'$task'"), '==', 1, 'the ledger remembers');

    # of a task whose step runs
    $r = $nginx->request(method => 'DELETE', path => "$at/tasks/$held");
    is($r->{status}, 200, 'DELETE of a task that runs');
    my $end = $c->answer(seconds => 5);
    is($end->{status}, 404, 'who waited for its step is told');
    ok(poll_until(sub { ($llm->started($step))[0]{how} }, 5),
       'the upstream is closed');

    # a body is of no interest, the connection stays good
    my $new = make_task($nginx, 'x');
    $c = $nginx->connect;
    $c->send(method => 'DELETE', path => "$at/tasks/$new", body => 'x' x 5000);
    is($c->answer->{status}, 200, 'DELETE with a body');
    $c->send(method => 'POST', path => "$at/tasks/$keep/cancel",
             body => 'y' x 5000);
    is($c->answer->{json}{task_id}, $keep, 'cancel with a body');
    $c->send(path => "$at/tasks/$keep");
    is($c->answer->{status}, 200, 'on the same connection');
    $c->close;

    # a client that does not wait for the answer
    run_step($nginx, $new = make_task($nginx, 'gone [[demo]]'));
    is(scalar files(), 2, 'one more file');
    $c = $nginx->connect;
    $c->send(method => 'DELETE', path => "$at/tasks/$new");
    $c->close;
    ok(poll_until(sub { files() == 1 }), 'its file goes all the same');
}


# an agent that runs by itself, in the moment one of its steps ends, which
# stores the next one

{
    my @servers = map { AgentTest::Nginx->new(conf => conf(%conf,
        http => '    agent_concurrency 6;',
        agents => { racer => 'run auto; max_steps 10000;' })) } 1 .. 2;
    my $count = sub { $pg->psql("select count(*) from agent.$_[0]") };
    my $files = files();

    # so that an end takes long enough to be met
    $pg->psql(q{
        create function agent.slow() returns trigger language plpgsql as $$
        begin
            perform pg_sleep(0.02 * random());
            return null;
        end $$;
        create trigger slow after update on agent.step for each row
            when (old.status = 1 and new.status = 2)
            execute function agent.slow()});

    my $script = encode([('write:a.txt:A') x 500]);
    my $begin = sub {
        my ($n) = @_;
        my %one = (name => "raced $n", drop => $n % 2);
        my $how = $one{drop} ? $script : 'loop';
        my $r = $servers[$n / 2 % 2]->post('/x/racer/tasks',
                                { input => "$one{name} [[$how]]" });
        is($r->{status}, 200, "$one{name}: a task") or diag $r->{body};
        $one{path} = "/x/racer/tasks/$r->{json}{task_id}";
        $one{of} = "where task_id = '$r->{json}{task_id}'";
        return \%one;
    };

    my @all;
    for my $round (0 .. 3) {
        my @some = map { $begin->(12 * $round + $_) } 1 .. 12;
        for my $one (@some) {
            poll_until(sub { $count->("step $one->{of} and status = 2") });
            sleep rand 0.03;
            my $r = $servers[rand 2]->request($one->{drop}
                ? (method => 'DELETE', path => $one->{path})
                : (method => 'POST', path => "$one->{path}/cancel",
                   body => ''));
            is($r->{status}, 200, "$one->{name}: gone") or diag $r->{body};
            is($count->("step $one->{of} and status < 2"), 0,
               "$one->{name}: no step goes on");
            $one->{steps} = $count->("step $one->{of}");
            $one->{ends} = $pg->psql('select status from agent.step '
                                     . "$one->{of} order by seq desc limit 1");
            is($one->{ends}, $one->{drop} ? '' : 5, "$one->{name}: its last");
        }
        push @all, @some;
    }

    $pg->psql('drop trigger slow on agent.step');
    ok(poll_until(sub { $llm->stats->{active} == 0 }), 'all calls are closed');
    my $calls = () = $llm->calls(qr/"raced \d/);

    # whatever is in the queue has its turn before a new task has all its own
    for my $server (@servers) {
        my $r = $server->post('/x/racer/tasks', { input => 'then ' . '[['
                              . encode(['list', 'list', 'finish:x']) . ']]' });
        my $of = "where task_id = '$r->{json}{task_id}'";
        ok(poll_until(sub { $count->("step $of and is_last") }),
           'another task runs to its end');
    }
    is(scalar(() = $llm->calls(qr/"raced \d/)), $calls,
       'no call was made for those any more');
    is($count->('queue'), 0, 'nothing of them is in the queue');

    for my $one (@all) {
        is($count->("step $one->{of}"), $one->{steps},
           "$one->{name}: no step more");
    }
    for my $table (qw(step queue artifact secret)) {
        is($pg->psql("select count(*) from agent.$table where task_id not in "
                     . '(select task_id from agent.task)'), 0,
           "no $table of a task that is not there");
    }
    ok(poll_until(sub { files() == $files }), 'no file of one is left');
    is($pg->psql('select count(*) from agent.step s join agent.task t using '
       . "(task_id) left join agent.usage u using (task_id, step_id) where "
       . "t.input like 'raced %' and u.step_id is null"), 0,
       'each step is billed');
    $_->finish for @servers;
}

$nginx->finish;
done_testing();
