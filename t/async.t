#!/usr/bin/perl

# Waiting or not: Prefer of RFC 7240 on POST and GET of steps, what 202 says,
# agents that run by themselves, clients that leave while they wait.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use JSON::PP;
use Test::More;
use Time::HiRes qw(time);

my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $nginx = AgentTest::Nginx->new(conf => conf(
    pg => $pg, llm => $llm,
    agents => { auto => 'run auto; max_steps 5;' },
    http => '    log_format agent "$status $agent_step_status '
            . '$agent_step_id";' . "\n    access_log %DIR%/agent.log agent;",
    server => '        location /strict/ { agent_pass writer; '
              . "agent_strict on; }\n"
              . "        location ~ ^/evil { agent_pass writer; }\n"
              . '        location /old/ { rewrite ^/old/(.*) /agent/$1 last; }'));

my $at = '/ap/v1/agent';


sub prefer { return (headers => { Prefer => $_[0], @_[1 .. $#_] }) }

sub step_of {
    my ($task, $step, @more) = @_;
    return $nginx->request(path => "$at/tasks/$task/steps/$step", @more);
}


sub is_accepted {
    my ($r, $task, $name) = @_;
    is($r->{status}, 202, "$name: 202") or diag $r->{body};
    is($r->{json}{task_id}, $task, "$name: the step's task");
    like($r->{json}{status}, qr/^(created|running)$/, "$name: not ended");
    is($r->{headers}{location}, "$at/tasks/$task/steps/$r->{json}{step_id}",
       "$name: Location");
    is($r->{headers}{'content-type'}, 'application/json', "$name: JSON");
}


# 202 at once, the rest by GET

{
    my $task = make_task($nginx, 'later [[echo+hold]]');
    my $start = time;
    my $r = run_step($nginx, $task, { input => 'x [[echo+hold]]',
                     additional_input => { a => 1 } }, prefer('respond-async'));
    cmp_ok(time - $start, '<', 2, 'at once');
    is_accepted($r, $task, 'respond-async');
    is($r->{headers}{'preference-applied'}, 'respond-async',
       'Preference-Applied');
    is($r->{headers}{'retry-after'}, undef, 'no Retry-After');
    is($r->{json}{input}, 'x [[echo+hold]]', 'its input');
    is_deeply($r->{json}{additional_input}, { a => 1 }, 'and the other');
    my $step = $r->{json}{step_id};

    poll_until(sub { $llm->stats->{held} == 1 });
    $r = $nginx->get($r->{headers}{location});
    is($r->{status}, 200, 'what Location names');
    is($r->{json}{status}, 'running', 'is running');
    is($r->{json}{run}{attempt}, 1, 'run: attempt');
    ok($r->{json}{run}{owner}, 'run: owner');
    $r = $nginx->get("/strict/tasks/$task/steps/$step");
    is($r->{json}{status}, 'running', 'strict: running is one of the three');

    # GET waits
    $start = time;
    $r = step_of($task, $step, prefer('wait=1'));
    my $took = time - $start;
    ok($took >= 0.9 && $took < 4, "GET with wait=1 took $took s");
    is($r->{status}, 200, 'and is 200 all the same');
    is($r->{json}{status}, 'running', 'with the step as it is');

    for my $value ('wait=0', 'wait=x', 'wait', 'respond-async', 'handling=lax')
    {
        $start = time;
        $r = step_of($task, $step, prefer($value));
        is($r->{json}{status}, 'running', "Prefer: $value");
        cmp_ok(time - $start, '<', 0.9, 'does not wait');
    }

    $r = run_step($nginx, $task, {}, prefer('respond-async'));
    is($r->{status}, 409, 'another step meanwhile');
    ok($r->{headers}{'retry-after'}, 'Retry-After');

    my @c = map { $nginx->connect } 1 .. 3;
    $_->send(path => "$at/tasks/$task/steps/$step",
             headers => { Prefer => 'handling=lenient; a="b, wait=1" , '
                          . 'wait=20' }) for @c;
    my $left = $nginx->connect;
    $left->send(path => "$at/tasks/$task/steps/$step", prefer('wait=20'));
    AgentTest::Http::request(port => $nginx->port, path => "$at/tasks");
    $left->close;
    $llm->release;
    $start = time;
    my @r = map { $_->answer } @c;
    cmp_ok(time - $start, '<', 5, 'who waits is told when it has ended');
    is($_->{json}{status}, 'completed', 'completed') for @r;
    is($_->{json}{output}, 'x', 'whole') for @r;
    ok(!exists $r[0]{json}{run}, 'no run any more');

    $start = time;
    $r = step_of($task, $step, prefer('wait=20'));
    is($r->{json}{output}, 'x', 'one that has ended');
    cmp_ok(time - $start, '<', 2, 'is not waited for');
    is(step_of($task, '01890a5d-ac96-774b-bcce-b302099a8057',
               prefer('wait=20'))->{status}, 404, 'nor one that is not there');
}


# respond-async, but a little patience

{
    my $task = make_task($nginx, 'quick [[echo]]');
    my $r = run_step($nginx, $task, {}, prefer('respond-async, wait=20'));
    is($r->{status}, 200, 'it ended in time');
    is($r->{json}{output}, 'quick', 'the whole answer');
    is($r->{headers}{'preference-applied'}, undef, 'nothing was applied');

    $task = make_task($nginx, 'slow [[echo+hold]]');
    my $start = time;
    $r = run_step($nginx, $task, {},
                  headers => { Prefer => 'wait=1;x=y, respond-async' });
    my $took = time - $start;
    ok($took >= 0.9 && $took < 4, "the time was up after $took s");
    is_accepted($r, $task, 'respond-async, wait=1');
    is($r->{headers}{'preference-applied'}, 'respond-async',
       'Preference-Applied');
    $llm->release;
    $r = step_of($task, $r->{json}{step_id}, prefer('wait=20'));
    is($r->{json}{status}, 'completed', 'it went on');

    $task = make_task($nginx, 'patient [[echo+delay:1500]]');
    $r = run_step($nginx, $task, {}, prefer('wait=1'));
    is($r->{status}, 200, 'wait alone is no reason for 202');
    is($r->{json}{output}, 'patient', 'it was waited for');

    $task = make_task($nginx, 'bad [[http:400]]');
    $r = run_step($nginx, $task, {}, prefer('respond-async, wait=20'));
    is($r->{status}, 502, 'a failure in time is one');
    is($r->{json}{task_id}, $task, 'of this task');
    $task = make_task($nginx, 'bad [[http:400]]');
    $r = run_step($nginx, $task, {}, prefer('respond-async'));
    is_accepted($r, $task, 'one that will fail');
    $r = step_of($task, $r->{json}{step_id}, prefer('wait=20'));
    is($r->{status}, 200, 'reading a failed step is no failure');
    is($r->{json}{status}, 'failed', 'failed');
    ok($r->{json}{additional_output}{error}, 'and why');
}


# Location is the path as the client wrote it

{
    my $task = make_task($nginx, 'where');
    my $r = $nginx->post("/old/tasks/$task/%73teps?a=b", {},
                         prefer('respond-async'));
    is($r->{status}, 202, 'a path that is rewritten');
    is($r->{headers}{location},
       "/old/tasks/$task/%73teps/$r->{json}{step_id}", 'its Location');
    $r = $nginx->request(path => $r->{headers}{location}, prefer('wait=20'));
    is($r->{json}{output}, 'where', 'leads to the step');

    # which is never another host's
    for my $slashes ('//', '///', '//////') {
        my $other = make_task($nginx, 'whose');
        $r = $nginx->post("${slashes}evil.example/tasks/$other/steps", {},
                          prefer('respond-async'));
        is($r->{status}, 202, "a path with \"$slashes\"") or diag $r->{body};
        is($r->{headers}{location}, "/evil.example/tasks/$other/steps/"
           . $r->{json}{step_id}, 'its Location has one');
        $r = $nginx->request(path => $r->{headers}{location},
                             prefer('wait=20'));
        is($r->{json}{output}, 'whose', 'and leads to the step');
    }

    # a finished task: nothing to wait for
    $r = run_step($nginx, $task, {}, prefer('respond-async'));
    is($r->{status}, 200, 'a finished task');
    is($r->{json}{is_last}, JSON::PP::true, 'the last step again');

    $r = run_step($nginx, '01890a5d-ac96-774b-bcce-b302099a8057', {},
                  prefer('respond-async'));
    is($r->{status}, 404, 'an unknown task');
}


# a secret is not shown in a 202 either

{
    my $task = make_task($nginx, 'ask [[secret:The password?]]');
    run_step($nginx, $task);
    my $r = run_step($nginx, $task, { input => 'pa55-async' },
                     prefer('respond-async'));
    is_accepted($r, $task, 'a secret answer');
    unlike($r->{body}, qr/pa55-async/, 'is not shown');
    $r = step_of($task, $r->{json}{step_id}, prefer('wait=20'));
    is($r->{json}{status}, 'completed', 'it was used');
    unlike($r->{body}, qr/pa55-async/, 'and not shown');
}


# many preferences, in several headers and pieces

{
    my $task = make_task($nginx, 'several');
    my $c = $nginx->connect;
    $c->raw("POST $at/tasks/$task/steps HTTP/1.1\r\nHost: x\r\n"
            . "prefer: return=minimal\r\nPREFER: , ,\tfoo=\"a\\\"b\" ;c\r\n"
            . "Prefer: Respond-Async\r\nContent-Length: 0\r\n\r\n");
    my $r = $c->answer;
    is_accepted($r, $task, 'three headers');
    $c->send(path => $r->{headers}{location}, headers => { Prefer =>
             'wait=20' });
    is($c->answer->{json}{output}, 'several', 'on the same connection');
    $c->close;
}


# an agent that runs by itself

{
    my $r = $nginx->post('/x/auto/tasks', { input => 'work [[demo]]' });
    is($r->{status}, 200, 'a task of an agent with "run auto" is 200');
    my $task = $r->{json}{task_id};
    my $list = "/x/auto/tasks/$task/steps";
    my $steps = poll_until(sub {
        my $s = $nginx->get($list)->{json}{steps};
        @$s && $s->[-1]{is_last} ? $s : undef;
    }, 20);
    is(scalar @{$steps || []}, 2, 'its steps come by themselves');
    is($steps->[1]{status}, 'completed', 'to the last');
    is($pg->psql('select count(*) from agent.queue'), 0, 'the queue is empty');
}


# leaving: the step goes on

{
    my $task = make_task($nginx, 'left [[echo+hold]]');
    my $c = $nginx->connect;
    $c->send(method => 'POST', path => "$at/tasks/$task/steps", body => {},
             prefer('respond-async, wait=20'));
    poll_until(sub { $llm->stats->{held} == 1 });
    $c->close;
    $llm->release;
    ok(poll_until(sub { $pg->psql("select status from agent.step where "
                                  . "task_id = '$task'") eq '2' }),
       'a client that leaves while it waits does not end the step');
}

my $log = read_file($nginx->dir . '/agent.log');
like($log, qr/^202 (running|created) [-0-9a-f]{36}$/m, 'the log of a 202');
like($log, qr/^200 completed [-0-9a-f]{36}$/m, 'the log of a wait');

$nginx->finish;


# the queue is full; and a worker that goes does not let its clients down

{
    $nginx = AgentTest::Nginx->new(conf => conf(
        pg => $pg, llm => $llm, main => 'worker_shutdown_timeout 4s;',
        agents => { auto => 'run auto;' },
        http => '    agent_concurrency 1; agent_queue 1 poll=1s; log_format '
                . 'agent "$status $agent_id $agent_step_id"; '
                . 'access_log %DIR%/agent.log agent;'));

    my $secret = make_task($nginx, 'ask [[secret:The password?]]');
    run_step($nginx, $secret);
    my @tasks = map { make_task($nginx, "t$_ [[echo+hold]]") } 1 .. 3;
    my $c = $nginx->connect;
    $c->send(method => 'POST', path => "$at/tasks/$tasks[0]/steps",
             body => {});
    poll_until(sub { $llm->stats->{held} == 1 });

    my $r = run_step($nginx, $secret, { input => 'pa55-queued' },
                     prefer('respond-async'));
    is_accepted($r, $secret, 'a queued step');
    is($r->{json}{status}, 'created', 'created');
    is($r->{json}{input}, '[redacted]', 'a secret is not shown there either');
    ok(poll_until(sub { read_file($nginx->dir . '/agent.log')
                        =~ /^202 writer \Q$r->{json}{step_id}\E$/m }),
       'the log has its agent') or diag read_file($nginx->dir . '/agent.log');

    # the depth is looked at now and then
    poll_until(sub {
        $r = $nginx->post('/x/auto/tasks', { input => 'auto [[echo]]' });
        $r->{status} == 503;
    });
    is($r->{status}, 503, 'a task whose first step cannot be queued');
    is($r->{headers}{'retry-after'}, 1, 'Retry-After');
    like($r->{json}{message}, qr/^the queue of steps is full/, 'why');
    $r = run_step($nginx, $tasks[2]);
    is($r->{status}, 503, 'a step that cannot be queued');
    is($r->{headers}{'retry-after'}, 1, 'Retry-After');
    is($pg->psql("select count(*) from agent.step where task_id = "
                 . "'$tasks[2]'"), 0, 'nothing is stored');

    my $start = time;
    kill 'HUP', $nginx->{pid};
    $r = $c->answer;
    cmp_ok(time - $start, '<', 4.5, 'a worker that goes tells in time');
    is_accepted($r, $tasks[0], 'who waits for a step that is handed back');
    is($r->{headers}{'retry-after'}, 1, 'Retry-After');
    is($r->{headers}{'preference-applied'}, undef, 'nobody has asked for it');
    my $where = $r->{headers}{location};

    $r = poll_until(sub {
        $llm->release;
        my $got = $nginx->request(path => $where, prefer('wait=1'));
        ($got->{json}{status} // '') eq 'completed' ? $got : undef;
    }, 20);
    is($r->{json}{output}, 't1', 'it was run again');

    # those of the queue, so that nothing hangs
    poll_until(sub { $llm->release;
                     $pg->psql('select count(*) from agent.queue') == 0 }, 20);
    $nginx->finish;
}

done_testing();
