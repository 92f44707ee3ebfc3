#!/usr/bin/perl

# The agent_protocol dialect: a step of ours is a step of a container that
# serves Agent Protocol itself.  Against a fake one, for all that can go
# wrong; files, secrets, and the official SDK are in agent_protocol_files.t.

use strict;
use warnings;
use utf8;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use AgentTest::Container;
use JSON::PP ();
use Test::More;
use Time::HiRes qw(sleep time);

binmode $_, ':utf8' for Test::More->builder->output,
                        Test::More->builder->failure_output;

our ($true, $false, $pg, $llm, $fake, $nginx, $names);
require 'containers.pl';


# A task, its steps, what is carried over ------------------------------------

{
    my ($task, $input) = task('ap', mode => 'test', list => [1, 2.50]);
    is(asked($input), undef, 'the container hears of no task before a step');

    my $r = step('ap', $task, "what's up? ü🔑");
    is($r->{status}, 200, 'a step is run') or diag $r->{body};
    is($r->{json}{output}, "what's up? ü🔑", 'its output is ours');
    like($r->{json}{name}, qr/^step one-step-/, 'its name, too');
    is_deeply($r->{json}{additional_output}, { container => 'one' },
              'and its additional_output');
    is($r->{json}{status}, 'completed', 'and its status');
    is($r->{json}{is_last}, $false, 'and that there is more to come');
    is_deeply($r->{json}{artifacts}, [], 'it has no artifacts');

    my $made = asked($input);
    is($made->{body}{additional_input}{mode}, 'test',
       'the container has the additional_input of the task');
    is($made->{headers}{'idempotency-key'}, "$r->{json}{step_id}-0",
       'with a key by which it can tell it from another');
    is($made->{headers}{'x-agent-step-id'}, $r->{json}{step_id},
       'and the id of our step');

    my $step = step('ap', $task, 'two', step => {
        is_last => $true, name => undef, output => undef,
        additional_output => undef });
    is($step->{json}{status}, 'completed', 'a second step') or
        diag $step->{body};
    is($step->{json}{is_last}, $true, 'is the last one');
    is($step->{json}{$_}, undef, "$_: null stays null")
        for qw(name output additional_output);

    my @steps = $fake->calls(qr{/steps$});
    is(scalar @steps, 2, 'two steps at the container');
    is($steps[0]{uri}, $steps[1]{uri}, 'of the same task');
    is($steps[1]{headers}{'idempotency-key'}, "$step->{json}{step_id}-1",
       'each with a key of its own');
    is($steps[1]{headers}{accept}, 'application/json', 'that wants JSON');
    is($steps[1]{headers}{'content-type'}, 'application/json', 'and is JSON');
    is_deeply($steps[1]{body}{additional_input}{do}{step}{is_last}, $true,
              'the additional_input is the step\'s');

    is(scalar(grep { ($_->{body}{input} // '') eq $input }
              $fake->calls(qr{/tasks$})), 1, 'one task was made there');

    is($pg->psql("select turns::json ->> 'task_id' from agent.step where "
                 . "task_id = '$task' and seq = 2"),
       (split m{/}, $steps[0]{uri})[5], 'and is remembered');
    is($pg->psql("select tokens_in + tokens_out from agent.step "
                 . "where task_id = '$task' and seq = 2"), 0, 'no tokens');
}

{
    my ($r) = alone('ap', step => { output => { a => [1, 'b'] },
                                    additional_output => [1, 2] });
    is_deeply(decode($r->{json}{output}), { a => [1, 'b'] },
              'an output that is no string becomes JSON');
    is_deeply($r->{json}{additional_output}, { value => [1, 2] },
              'an additional_output that is no object becomes one');

    my $raw = '{"step_id":"s","task_id":"t","status":"completed","is_last":'
              . 'false,"artifacts":[],"additional_output":{"n":1.50, "a" :[]'
              . ',"e":"\u00e9"},"output":"\ud83d\udd11"}';
    ($r) = alone('ap', raw => [$raw, 1]);
    like($r->{body}, qr/"additional_output":\{"n":1\.50, "a" :\[\],"e":"\\u00e9"\}/,
         'byte for byte') or diag $r->{body};
    is($r->{json}{output}, '🔑', 'and escapes are read');

    my $task = task('ap');
    $r = $nginx->post("/x/ap/tasks/$task/steps", {});
    is($r->{status}, 200, 'a step without an input') or diag $r->{body};
    my ($call) = reverse $fake->calls(qr{/steps$});
    ok(exists $call->{body}{input} && !defined $call->{body}{input},
       'null is what the container gets');
    is_deeply($call->{body}{additional_input}, {}, 'and an empty object');
}

{
    my $task = task('ap_short');
    my $r = step('ap_short', $task, 'one');
    is($r->{json}{is_last}, $false, 'max_steps: the first of two');
    $r = step('ap_short', $task, 'two');
    is($r->{json}{is_last}, $true, 'the second one is the last')
        or diag $r->{body};
    is($r->{json}{additional_output}{container}, 'one',
       'its additional_output is left alone');
}

{
    my ($r, $task) = alone('ap', step => { status => 'waiting_for_input',
                                           output => 'which one?' });
    is($r->{json}{status}, 'waiting_for_input', 'a container may ask');
    is($r->{json}{additional_input_needed}, $true, 'and the client is told');
    is($r->{json}{output}, 'which one?', 'what it asks');
    $r = step('ap', $task, 'this one');
    is($r->{json}{output}, 'this one', 'the answer is the next step');

    ($r) = alone('ap', step => { additional_input_needed => $true });
    is($r->{json}{status}, 'waiting_for_input', 'as a strict server says it');
}

{
    my $task = task('ap_auto');
    my $done = poll_until(sub {
        $pg->psql("select count(*) from agent.step where task_id = '$task' "
                  . 'and status = 2') == 3;
    }, 20);
    ok($done, 'run auto: all steps are run by themselves');
    is($pg->psql("select count(distinct turns::json ->> 'task_id') from "
                 . "agent.step where task_id = '$task'"), 1,
       'of one task at the container');
}

{
    my ($task, $input) = task('ap_once');
    my $r = step('ap_once', $task, 'x');
    is($r->{status}, 200, 'a pass with arguments') or diag $r->{body};
    my ($call) = reverse $fake->calls(qr{/steps});
    like($call->{uri}, qr{/steps\?a=b$}, 'has them behind the path');
}


# Errors ---------------------------------------------------------------------

{
    my ($task, $input) = task('ap', task => { http => [503, 1, 'not yet'] });
    my $r = step('ap', $task, 'x');
    is($r->{status}, 200, 'a task is made at the second attempt')
        or diag $r->{body};
    my @made = grep { ($_->{body}{input} // '') eq $input }
               $fake->calls(qr{/tasks$});
    is(scalar @made, 2, 'it was asked for twice');
    is($made[0]{headers}{'idempotency-key'},
       $made[1]{headers}{'idempotency-key'}, 'with the same key');
}

{
    my ($r, $task) = alone('ap', http => [500, 2, 'bad luck']);
    is($r->{status}, 200, 'a step after two errors') or diag $r->{body};
    my ($cid) = $pg->psql("select turns::json ->> 'task_id' from agent.step "
                          . "where task_id = '$task'");
    my @calls = $fake->calls(qr{\Q$cid\E/steps$});
    is(scalar @calls, 3, 'is asked for three times, of one task');
    my %keys = map { $_->{headers}{'idempotency-key'} => 1 } @calls;
    is(scalar keys %keys, 3, 'with another key after each error');
    is($r->{json}{step_id}, $calls[0]{headers}{'x-agent-step-id'},
       'and the same step');
}

{
    my ($r, $task) = alone('ap', cut => 1);
    is($r->{status}, 200, 'a step after a cut answer') or diag $r->{body};
    my ($cid) = $pg->psql("select turns::json ->> 'task_id' from agent.step "
                          . "where task_id = '$task'");
    my %keys = map { $_->{headers}{'idempotency-key'} => 1 }
               $fake->calls(qr{\Q$cid\E/steps$});
    is(scalar keys %keys, 1, 'has the same key, as it may have been done');
}

{
    my ($r) = alone('ap', drop => 1);
    is($r->{status}, 200, 'a step after a closed connection')
        or diag $r->{body};

    ($r, my $task) = alone('ap', http => [409, 1, 'still at it', 1]);
    is($r->{status}, 200, 'a step after a conflict') or diag $r->{body};
    my ($cid) = $pg->psql("select turns::json ->> 'task_id' from agent.step "
                          . "where task_id = '$task'");
    my %keys = map { $_->{headers}{'idempotency-key'} => 1 }
               $fake->calls(qr{\Q$cid\E/steps$});
    is(scalar keys %keys, 1, 'has the same key: the first may yet come to it');

    ($r) = alone('ap', http => [429, 1, 'slowly', 1]);
    is($r->{status}, 200, 'a step after 429') or diag $r->{body};

    ($r) = alone('ap', raw => ['<html>', 1]);
    is($r->{status}, 200, 'a step after an answer that is no JSON')
        or diag $r->{body};
}

{
    my ($r, $task) = alone('ap_once', http => [500, 9, 'bad luck']);
    failed($r, 502, qr/^the container of agent "ap_once" answered the step with status 500: bad luck$/,
           'an error of the container\'s');
    my $step = $nginx->get("/x/ap_once/tasks/$task/steps/$r->{json}{step_id}");
    is($step->{json}{status}, 'failed', 'the step is failed');
    is($step->{json}{additional_output}{upstream_status}, 500,
       'and says the status');

    $r = step('ap_once', $task, 'again');
    is($r->{status}, 200, 'the next step is run') or diag $r->{body};
    is($pg->psql("select count(distinct turns::json ->> 'task_id'), count(*) "
                 . "from agent.step where task_id = '$task'"), '1|2',
       'in the same task of the container\'s');
}

for my $case (
    [422, qr/answered the step with status 422: no such model$/,
     http => [422, 9, 'no such model']],
    [400, qr/with status 400$/, http => [400, 9]],
    [200, qr/to the step is not valid JSON$/, raw => ['{"a":', 9]],
    [200, qr/to the step is no JSON object$/, raw => ['[]', 9]],
    [200, qr/to the step has no "status"$/, raw => ['{}', 9]],
    [200, qr/is not valid JSON$/, raw => ['', 9]],
    [200, qr/is not valid UTF-8$/, raw => ["{\"output\":\"\xff\"}", 9]],
    [200, qr/has the character U\+0000 in a string$/,
     raw => ['{"output":"\u0000"}', 9]],
    [200, qr/nests deeper than 64 levels$/, raw => ['{"a":' . '[' x 70 . ']' x 70 . '}', 9]],
    [200, qr/to the step broke off$/, cut => 9],
    [0, qr/answered the step with status 502: it could not be reached or broke off$/,
     drop => 9],
    [200, qr/gave the step the status "excellent", which is none of/,
     step => { status => 'excellent' }],
    [200, qr/^the container of agent "ap_once" says that its step failed: no disk$/,
     step => { status => 'failed', additional_output => {
         error => 'no disk' } }],
    [200, qr/says that its step failed: hm$/,
     step => { status => 'failed', output => 'hm' }],
    [200, qr/says that its step was cancelled$/,
     step => { status => 'cancelled' }],
    [200, qr/has no "step_id" that can be used/,
     step => { status => 'running', step_id => '../x' }],
    [200, qr/has no "step_id" that can be used/,
     step => { status => 'running' }, omit => ['step_id']],
)
{
    my ($status, $words, %do) = @$case;
    my ($r, $task) = alone('ap_once', %do);
    failed($r, 502, $words, encode(\%do));
    my $step = $nginx->get("/x/ap_once/tasks/$task/steps/$r->{json}{step_id}");
    is($step->{json}{status}, 'failed', 'stored as failed');
    like($step->{json}{additional_output}{error}, $words, 'with the reason');
}

for my $id ('', '..', 'a/b', 'a b', 'a?b', "a\r\nb", 'é', 'x' x 257) {
    my $task = task('ap_once', task => { step => { task_id => $id } });
    my $r = step('ap_once', $task, 'x');
    failed($r, 502, qr/to the new task has no "task_id" that can be used/,
           'a task_id that is none: ' . encode(substr $id, 0, 9));
}

{
    my $task = task('ap_once', task => { http => [404, 9] });
    my $r = step('ap_once', $task, 'x');
    failed($r, 502, qr/answered the new task with status 404: nothing is there; check "pass"/,
           'a wrong pass');

    $task = task('ap_gone');
    $r = step('ap_gone', $task, 'x');
    failed($r, 502, qr/attempt 2: .*answered the new task with status 502: it could not be reached/,
           'nobody is there');
}

{
    my ($r, $task) = alone('ap', lose => 1);
    is($r->{status}, 200, 'a step, after which the container forgets')
        or diag $r->{body};
    my $before = () = $fake->calls(qr{/tasks$});
    $r = step('ap', $task, 'x');
    failed($r, 502, qr/status 404, as it does not know the task any more; make a new one: Task with id \S+ not found$/,
           'a task that is lost');
    my $after = () = $fake->calls(qr{/tasks$});
    is($after, $before, 'no other task is made in its place');
}

{
    my ($r) = alone('ap_small', huge => 60);
    is($r->{status}, 200, 'an answer of nearly max_answer') or diag $r->{body};
    is(length $r->{json}{output}, 60 * 1024, 'is whole');
    ($r) = alone('ap_small', huge => 65);
    failed($r, 502, qr/to the step is larger than "max_answer"$/,
           'an answer of more');
    unlike($r->{json}{message}, qr/attempt 2/, 'and is not asked for again');
}

{
    my ($r) = alone('ap_quick', hang => 1);
    is($r->{status}, 200, 'a step after silence') or diag $r->{body};
    ($r) = alone('ap_quick', hang => 9);
    failed($r, 504, qr/the container of agent "ap_quick" timed out: nothing came for 1000 ms/,
           'silence');
    ($r) = alone('ap_quick', delay => 300);
    is($r->{status}, 200, 'a slow one is good enough');
}


# In the background ----------------------------------------------------------

{
    my ($r, $task) = alone('ap', running => 3, files => [
        { name => 'a.txt', content => 'late' }]);
    is($r->{status}, 200, 'a step that runs in the background')
        or diag $r->{body};
    is($r->{json}{output}, 'x', 'has its output when it is done');
    is(scalar @{$r->{json}{artifacts}}, 1, 'and its artifact');
    my ($cid) = $pg->psql("select turns::json ->> 'task_id' from agent.step "
                          . "where task_id = '$task'");
    is(scalar(() = $fake->calls(qr{^GET .*\Q$cid\E/steps/})), 4,
       'it was looked at until then');
    is(scalar(() = $fake->calls(qr{^POST .*\Q$cid\E/steps})), 1,
       'and asked for once');
}

# only the looks at a step are apart: 30 files in a row, each a poll's pause
# behind the other, would take longer than a client waits
{
    my ($r) = alone('ap', running => 5, files => [
        map { { name => "$_.txt", content => 'x' } } 1 .. 30]);
    is($r->{status}, 200, 'a step of many files that was waited for')
        or diag $r->{body};
    is(scalar @{$r->{json}{artifacts} || []}, 30, 'has them all');
}

{
    my ($r, $task) = alone('ap', running => 1, poll => {
        http => [500, 1, 'oops'] });
    is($r->{status}, 200, 'an error when it is looked at') or diag $r->{body};
    my ($cid) = $pg->psql("select turns::json ->> 'task_id' from agent.step "
                          . "where task_id = '$task'");
    is(scalar(() = $fake->calls(qr{^POST .*\Q$cid\E/steps})), 1,
       'makes no second step');

    ($r) = alone('ap_once', running => 1, poll => { http => [404, 9] });
    failed($r, 502, qr/answered the look at its step with status 404, as it does not know the step any more$/,
           'a step that is lost');

    ($r) = alone('ap_quick', running => -1);
    failed($r, 504, qr/timed out: its step is still running and has not changed for 1000 ms/,
           'a step that never ends');
    unlike($r->{json}{message}, qr/attempt 2/, 'once is enough');

    my $begun = time;
    ($r) = alone('ap_quick', running => 8, poll => { lively => 1 });
    is($r->{status}, 200, 'one that changes may take longer')
        or diag $r->{body};
    cmp_ok(time - $begun, '>', 1, 'than "timeout"');

    ($r) = alone('ap_once', running => 1, step => { status => 'failed',
                 additional_output => { error => 'late' } });
    failed($r, 502, qr/says that its step failed: late$/,
           'one that fails in the end');
}

{
    my $task = task('ap');
    my $r = $nginx->post("/x/ap/tasks/$task/steps",
        { input => 'x', additional_input => { do => { running => -1 } } },
        headers => { Prefer => 'respond-async' });
    is($r->{status}, 202, 'a step that nobody waits for');
    my $cid = poll_until(sub {
        my ($made) = reverse $fake->calls(qr{^GET .*/steps/});
        $made && $made->{uri};
    });
    my $c = $nginx->post("/x/ap/tasks/$task/cancel", {});
    is($c->{status}, 200, 'is cancelled') or diag $c->{body};
    my $step = $nginx->get("/x/ap/tasks/$task/steps/$r->{json}{step_id}");
    is($step->{json}{status}, 'cancelled', 'and says so');
    my $before = () = $fake->calls(qr{^GET .*/steps/});
    my $quiet = poll_until(sub {
        my $now = () = $fake->calls(qr{^GET .*/steps/});
        my $same = $now == $before;
        $before = $now;
        sleep 0.6;
        $same;
    }, 5);
    ok($quiet, 'the container is not looked at any more');
}


# The run goes on elsewhere --------------------------------------------------

{
    # a long pause is spent in the queue, by whichever worker takes it then
    my ($r, $task) = alone('ap', http => [503, 1, 'later', 3]);
    is($r->{status}, 200, 'a step that was in the queue in between')
        or diag $r->{body};
    is($pg->psql("select spared + attempt > 1 from agent.step where task_id "
                 . "= '$task'"), 't', 'at the second attempt');
    my $made = () = grep { ($_->{body}{input} // '') eq "task $names" }
               $fake->calls(qr{/tasks$});
    is($made, 1, 'still has one task at the container');

    ($r, $task) = alone('ap', running => 1, poll => {
        http => [503, 1, 'later', 3] });
    is($r->{status}, 200, 'also while it runs there') or diag $r->{body};
    my ($cid) = $pg->psql("select turns::json ->> 'task_id' from agent.step "
                          . "where task_id = '$task'");
    is(scalar(() = $fake->calls(qr{^POST .*\Q$cid\E/steps})), 1,
       'and one step of it');

    my $before = blobs();
    ($r, $task) = alone('ap', files => [
        { name => 'a', content => 'a' },
        { name => 'b', content => 'b', http => [503, 1, 'later', 3] }]);
    is($r->{status}, 200, 'also while its artifacts are taken')
        or diag $r->{body};
    is_deeply([map { content('ap', $task, $_) } @{$r->{json}{artifacts}}],
              [qw(a b)], 'all of them');
    is(scalar(artifacts('ap', $task)), 2, 'once each');
    is(blobs(), $before + 2, 'and nothing is left of the first attempt');
    is(scalar(() = grep { $_->{headers}{'x-agent-step-id'}
                          eq $r->{json}{step_id} }
              $fake->calls(qr{^POST .*/steps})), 1, 'of one step');
}

{
    my $task = task('ap');
    my $r = $nginx->post("/x/ap/tasks/$task/steps",
        { input => 'x', additional_input => { do => { running => 60,
          poll => { lively => 1 } } } },
        headers => { Prefer => 'respond-async' });
    my $step = $r->{json}{step_id};
    poll_until(sub { grep { $_->{headers}{'x-agent-step-id'} eq $step }
                     $fake->calls(qr{^GET .*/steps/}) })
        or fail 'it is not run';
    my $looks = sub {
        return scalar grep { $_->{headers}{'x-agent-step-id'} eq $step }
                      $fake->calls(qr{^GET .*/steps/});
    };
    ok($nginx->reload, 'a reload while a container is at work');
    my $before = $looks->();
    ok(poll_until(sub { $looks->() > $before + 1 }, 20),
       'new workers look after it');
    my @calls = grep { $_->{headers}{'x-agent-step-id'} eq $step }
                $fake->calls(qr{^POST .*/steps});
    is(scalar @calls, 1, 'and do not have it begin again');
    $nginx->post("/x/ap/tasks/$task/cancel", {});
}

{
    # killed before anybody could write down what the container has
    my ($task, $input) = task('ap');
    my $r = $nginx->post("/x/ap/tasks/$task/steps",
        { input => 'x', additional_input => { do => { delay => 1000 } } },
        headers => { Prefer => 'respond-async' });
    my $step = $r->{json}{step_id};
    my $posts = sub {
        return grep { $_->{headers}{'x-agent-step-id'} eq $step }
               $fake->calls(qr{^POST .*/$_[0]$});
    };
    poll_until(sub { $posts->('steps') }) or fail 'it is not run';
    kill 'KILL', $nginx->workers;
    my $done = poll_until(sub {
        my $s = $nginx->get("/x/ap/tasks/$task/steps/$step");
        $s->{json}{status} eq 'completed';
    }, 30);
    ok($done, 'a step whose worker was killed is run by another');
    for my $what (qw(tasks steps)) {
        my @keys = map { $_->{headers}{'idempotency-key'} } $posts->($what);
        is(scalar @keys, 2, "$what: the container is asked again");
        is($keys[0], $keys[1], "$what: with the same key");
    }
}

on_record($nginx, $pg);

# the worker that was killed by the test
$nginx->finish(but => qr/exited on signal 9/);
done_testing();
