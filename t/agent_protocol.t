#!/usr/bin/perl

# The agent_protocol dialect: a step of ours is a step of a container that
# serves Agent Protocol itself.  Against a fake container, for all that can
# go wrong, and against one that is built with the official JS SDK.

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

my ($true, $false) = (JSON::PP::true, JSON::PP::false);

my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $fake = AgentTest::Container->new(name => 'one');
my @many = map { AgentTest::Container->new(name => "n$_", unix => 1) } 1 .. 3;
my $sdk = AgentTest::Container->sdk;

my $tcp = join ' ', map { 'server 127.0.0.1:' . $_->port . ';' } @many;
my $unix = join ' ', map { 'server unix:' . $_->socket . ';' } @many;
my $ap = 'dialect agent_protocol; pass';

my $nginx = AgentTest::Nginx->new(level => 'debug', conf => conf(
    pg => $pg, llm => $llm, workers => 2,
    agents => {
        ap => "$ap /one/ap/v1/agent; timeout 20s;",
        ap_quick => "$ap /one/ap/v1/agent/; timeout 1s; attempts 2;",
        ap_once => "$ap /one/ap/v1/agent?a=b; attempts 1; timeout 20s;",
        ap_small => "$ap /one/ap/v1/agent; max_answer 64k; timeout 20s;",
        ap_short => "$ap /one/ap/v1/agent; max_steps 2; timeout 20s;",
        ap_auto => "$ap /one/ap/v1/agent; run auto; max_steps 3; "
                   . 'timeout 20s;',
        ap_tcp => "$ap /tcp/ap/v1/agent; timeout 20s;",
        ap_unix => "$ap /unix/ap/v1/agent; timeout 20s;",
        ap_sdk => "$ap /sdk/ap/v1/agent; timeout 20s;",
        ap_gone => "$ap /gone/ap/v1/agent; attempts 2; timeout 20s;",
        ap_self => "$ap /self/x/writer; attempts 1; timeout 20s;",
    },
    http => "    upstream many { hash \$agent_task_id consistent; $tcp }\n"
            . "    upstream sockets { hash \$agent_task_id consistent; $unix }",
    server => join "\n", map {
        my ($at, $to) = @$_;
        "        location /$at/ { internal; proxy_pass http://$to/; "
        . 'proxy_http_version 1.1; proxy_set_header Connection ""; '
        . 'proxy_next_upstream off; }';
    } [one => '127.0.0.1:' . $fake->port], [tcp => 'many'],
      [unix => 'sockets'], [sdk => '127.0.0.1:' . $sdk->port],
      [gone => '127.0.0.1:' . free_port()], [self => '127.0.0.1:%PORT%']));

on_record($nginx, $pg);


my $names = 0;

# A task at an agent, with an input of its own: (its id, its input).

sub task {
    my ($agent, %extra) = @_;

    my $input = 'task ' . ++$names;
    my $r = $nginx->post("/x/$agent/tasks", { input => $input,
                         %extra ? (additional_input => \%extra) : () });
    is($r->{status}, 200, "$input is made") or diag $r->{body};
    return wantarray ? ($r->{json}{task_id}, $input) : $r->{json}{task_id};
}


# A step of it that does what is said.

sub step {
    my ($agent, $task, $input, %do) = @_;
    return $nginx->post("/x/$agent/tasks/$task/steps", {
        defined $input ? (input => $input) : (),
        %do ? (additional_input => { do => \%do }) : () });
}


# Of a task that is made for it.

sub alone {
    my ($agent, %do) = @_;
    my $task = task($agent);
    return (step($agent, $task, 'x', %do), $task);
}


sub artifacts {
    my ($agent, $task) = @_;
    return @{$nginx->get("/x/$agent/tasks/$task/artifacts")
             ->{json}{artifacts}};
}


sub content {
    my ($agent, $task, $artifact) = @_;
    return $nginx->get("/x/$agent/tasks/$task/artifacts/"
                       . $artifact->{artifact_id})->{body};
}


sub upload {
    my ($agent, $task, $name, $bytes, $path) = @_;

    my $body = (defined $path ? "--B\r\nContent-Disposition: form-data; "
                                . "name=\"relative_path\"\r\n\r\n$path\r\n"
                              : '')
        . "--B\r\nContent-Disposition: form-data; name=\"file\"; "
        . "filename=\"$name\"\r\n\r\n$bytes\r\n--B--\r\n";
    utf8::encode($body) if utf8::is_utf8($body);

    my $r = $nginx->request(method => 'POST', body => $body,
        path => "/x/$agent/tasks/$task/artifacts",
        headers => { 'Content-Type' => 'multipart/form-data; boundary=B' });
    is($r->{status}, 200, "$name is uploaded") or diag $r->{body};
    return $r->{json};
}


# What the fake one was asked about a task of ours: by its input.

sub asked {
    my ($input, $pattern) = @_;

    my ($made) = grep { ($_->{body}{input} // '') eq $input }
                 $fake->calls(qr{^POST /ap/v1/agent/tasks(\?|$)});
    return $made;
}


sub blobs {
    my @all = glob $nginx->dir . '/artifacts/[0-9a-f][0-9a-f]/*';
    return scalar @all;
}


sub failed {
    my ($r, $status, $words, $name) = @_;
    is($r->{status}, $status, "$name: $status") or diag $r->{body};
    my ($why) = $r->{json}{message}
                =~ /^the step failed: (.*); post a new one to try again$/;
    like($why, $words, "$name: in words");
}


# What the fake one was given, as it tells in an output.

sub told {
    my ($r) = @_;
    return JSON::PP->new->decode($r->{json}{output} // '[]');
}


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


# Files ----------------------------------------------------------------------

{
    my ($r, $task) = alone('ap', files => [
        { name => 'a.txt', path => 'docs/', content => "alpha ü\n" },
        { name => 'empty' },
        { name => 'big.bin', size => 300_000 },
        { name => 'deep/b.txt', content => 'b' },
        { name => 'root.txt', path => '/', content => 'r' },
        { name => 'ü "q".txt', path => undef, content => 'q' }]);
    is($r->{status}, 200, 'a step with artifacts') or diag $r->{body};

    my @all = @{$r->{json}{artifacts}};
    is_deeply([map { ($_->{relative_path} // '') . $_->{file_name} } @all],
              ['docs/a.txt', 'empty', 'big.bin', 'deep/b.txt', 'root.txt',
               'ü "q".txt'], 'has them all, with their names');
    is_deeply([map { $_->{agent_created} } @all], [($true) x 6],
              'made by the agent');
    is_deeply([artifacts('ap', $task)], \@all, 'the task has the same');

    my $alpha = "alpha ü\n";
    utf8::encode($alpha);
    is(content('ap', $task, $all[0]), $alpha, 'the bytes are the same');
    is(content('ap', $task, $all[1]), '', 'none are none');
    is(content('ap', $task, $all[2]),
       join('', map { chr($_ & 255) } 0 .. 299_999), 'many, too');
    is(content('ap', $task, $all[5]), 'q', 'by any name');

    # a container may list all it has with each step
    $r = step('ap', $task, 'y', files => [
        { name => 'c.txt', id => 'same', content => 'c' }]);
    is(scalar @{$r->{json}{artifacts}}, 1, 'another step, another artifact');
    $r = step('ap', $task, 'z', files => [
        { name => 'c.txt', id => 'same', content => 'c' },
        { name => 'd.txt', content => 'd' },
        { name => 'd.txt', id => 'd', content => 'd' },
        { name => 'd.txt', id => 'd', content => 'd' }]);
    is_deeply([map { $_->{file_name} } @{$r->{json}{artifacts}}],
              ['d.txt', 'd.txt'], 'what was taken before is not taken again');
    is(scalar(artifacts('ap', $task)), 9, 'nine in all');
}

{
    my ($r, $task) = alone('ap', unlisted => 1, omit => ['artifacts'],
                           files => [{ name => 'a', content => 'a' },
                                     { name => 'b', of => undef },
                                     { name => 'c', of => $false }]);
    is_deeply([map { $_->{file_name} } @{$r->{json}{artifacts}}], ['a'],
              'a step that does not say: the list of the task\'s') or
        diag $r->{body};

    ($r) = alone('ap', unlisted => 1, step => { is_last => $true },
                 files => [map { { name => "n$_", content => $_ } }
                           1 .. 120]);
    is(scalar @{$r->{json}{artifacts}}, 120,
       'with the last step it is asked for, all pages of it');

    ($r) = alone('ap', unlisted => 1, files => [{ name => 'a' }]);
    is(scalar @{$r->{json}{artifacts}}, 0, 'with others it is not');

    ($r) = alone('ap_once', nolist => 1, step => { is_last => $true });
    is($r->{status}, 200, 'a container need not have a list')
        or diag $r->{body};
}

{
    my ($r, $task) = alone('ap', files => [
        { name => 'a', content => 'whole' },
        { name => 'b', content => 'x' x 1000, cut => 1 },
        { name => 'c', content => 'c', http => [500, 1, 'no'] }]);
    is($r->{status}, 200, 'a download that is cut, and one that is refused')
        or diag $r->{body};
    is_deeply([map { $_->{file_name} } @{$r->{json}{artifacts}}],
              [qw(a b c)], 'are made again');
    is(content('ap', $task, $r->{json}{artifacts}[1]), 'x' x 1000, 'whole');
    my @calls = map { (split m{/}, $_->{uri})[-1] }
                grep { $_->{headers}{'x-agent-step-id'}
                       eq $r->{json}{step_id} }
                $fake->calls(qr{^GET .*/artifacts/});
    is(scalar @calls, 5, 'the first one only once');
}

for my $case (
    [qr/larger than its "max_answer", 65536 bytes in all/,
     files => [{ name => 'a', size => 40_000 }, { name => 'b',
                                                  size => 40_000 }]],
    [qr/answered the download of an artifact with status 404: gone/,
     files => [{ name => 'a', content => 'a' },
               { name => 'b', http => [404, 9, 'gone'] }]],
    [qr/lists an artifact whose file_name is missing/,
     files => [{ content => 'a' }]],
    [qr/lists an artifact whose file_name is no name/,
     files => [{ name => '../a' }]],
    [qr/lists an artifact whose relative_path is no relative path/,
     files => [{ name => 'a', path => '../..' }]],
    [qr/lists an artifact that has no "artifact_id"/,
     files => [{ name => 'a', id => '../../x' }]],
    [qr/answered the download of an artifact .*broke off|download of an artifact broke off/,
     files => [{ name => 'a', content => 'abc' x 1000, cut => 9 }]],
)
{
    my ($words, %do) = @$case;
    my $before = blobs();
    my ($r, $task) = alone('ap_small', %do);
    failed($r, 502, $words, encode(\%do));
    is(scalar(artifacts('ap_small', $task)), 0, 'nothing of it is there');
    is(blobs(), $before, 'no bytes of it are left');
}

{
    my $before = blobs();
    my ($r) = alone('ap_small', files => [{ name => 'a', size => 30_000 },
                                          { name => 'b', size => 30_000 }]);
    is($r->{status}, 200, 'artifacts of nearly max_answer') or diag $r->{body};
    is(blobs(), $before + 2, 'are there');
}

{
    my $task = task('ap');
    my $big = join '', map { chr($_ % 251) } 0 .. 2_000_000;
    my $given = upload('ap', $task, 'in.txt', "given\n", 'in/');
    upload('ap', $task, 'ü %22.txt', 'named');
    upload('ap', $task, 'empty.txt', '');
    upload('ap', $task, 'big.bin', $big);

    my $r = step('ap', $task, 'x', tell => 1);
    is($r->{status}, 200, 'a step with files of the client\'s')
        or diag $r->{body};
    is_deeply(told($r),
        [{ name => 'in.txt', path => 'in/', size => 6, content => "given\n" },
         { name => 'ü %22.txt', path => '', size => 5, content => 'named' },
         { name => 'empty.txt', path => '', size => 0, content => '' },
         { name => 'big.bin', path => '', size => length $big }],
        'the container has them');
    is(scalar @{$r->{json}{artifacts}}, 0, 'none of them comes back');
    my @calls = $fake->calls(qr{^POST .*/artifacts$});
    is($calls[-1]{form}{file}, AgentTest::decode(AgentTest::encode($big)),
       'byte for byte');
    like($calls[-4]{headers}{'idempotency-key'},
         qr/^\Q$r->{json}{step_id}-$given->{artifact_id}\E$/,
         'each with a key');

    $r = step('ap', $task, 'x', tell => 1);
    is(scalar(() = $fake->calls(qr{^POST .*/artifacts$})), @calls,
       'and none again with the next step');

    upload('ap', $task, 'late.txt', 'late');
    $r = step('ap', $task, 'x', tell => 1);
    is(scalar @{told($r)}, 5, 'but one that is new');
}

{
    my $task = task('ap', upload => { http => [500, 1, 'no'] });
    upload('ap', $task, 'a.txt', 'a');
    upload('ap', $task, 'b.txt', 'b');
    my $r = step('ap', $task, 'x', tell => 1);
    is($r->{status}, 200, 'uploads that are refused at first')
        or diag $r->{body};
    is(scalar @{told($r)}, 2, 'are made again, once each');

    $task = task('ap_once', upload => { http => [413, 9, 'too big'] });
    upload('ap_once', $task, 'a.txt', 'a');
    $r = step('ap_once', $task, 'x', tell => 1);
    failed($r, 502, qr/answered the upload of an artifact with status 413: too big$/,
           'one that is never taken');

    $task = task('ap_once');
    my $gone = upload('ap_once', $task, 'gone.txt', 'a');
    my ($blob) = glob $nginx->dir . '/artifacts/*/' . $gone->{artifact_id};
    unlink $blob or die "$blob: $!";
    $r = step('ap_once', $task, 'x');
    failed($r, 502, qr/artifact "gone\.txt" of the task could not be read on the server/,
           'one whose bytes are gone');
}


# Secrets --------------------------------------------------------------------

{
    my $secret = 'Zx9Qv7Kp"\\ü';
    my $task = task('ap');
    # the question of an agent of the other dialect is how one is asked for
    $pg->psql("insert into agent.step (task_id, seq, step_id, tenant, status, "
              . "attempt, secret, output) select task_id, 1, task_id, tenant, "
              . "3, 1, true, 'the key?' from agent.task where task_id = "
              . "'$task'");
    my $r = step('ap', $task, $secret, step => {
        name => "n $secret", additional_output => { a => ["<$secret>"] } },
        files => [{ name => "$secret.txt" =~ tr{\\}{-}r, content => 'c' }]);
    is($r->{status}, 200, 'a step with a secret') or diag $r->{body};
    my ($call) = reverse $fake->calls(qr{/steps$});
    is($call->{body}{input}, $secret, 'the container gets it');
    is($r->{json}{input}, '[redacted]', 'the client does not see it again');
    is($r->{json}{output}, '[redacted]', 'nor in the output');
    is($r->{json}{name}, 'n [redacted]', 'nor in the name');
    is_deeply($r->{json}{additional_output}, { a => ['<[redacted]>'] },
              'nor in the rest');
    unlike($pg->psql("select string_agg(s::text, ',') from agent.step s where "
                     . "task_id = '$task'") =~ s/\{.*"do".*//sr, qr/Zx9Qv7Kp/,
           'nor is it in the database');

    $pg->psql("insert into agent.step (task_id, seq, step_id, tenant, status, "
              . "attempt, secret, output) select task_id, 3, gen_random_uuid()"
              . ", tenant, 3, 1, true, 'the key?' from agent.task where "
              . "task_id = '$task'");
    $r = $nginx->post("/x/ap/tasks/$task/steps", { input => 'Zx9Qv7Kp plain',
        additional_input => { do => { http => [400, 9, 'echo'] } } });
    is($r->{status}, 502, 'a step with a secret that fails');
    unlike($r->{body}, qr/Zx9Qv7Kp/, 'does not tell it');
    unlike($nginx->log_text, qr/Zx9Qv7Kp/, 'nor does any log');
}


# Sticky: a task stays with its container ---------------------------------------

for my $agent (qw(ap_tcp ap_unix)) {
    my %used;
    my $n = 0;

    for (1 .. 12) {
        my $r = $nginx->post("/x/$agent/tasks", { input => 'sticky' });
        my $task = $r->{json}{task_id};
        my %by;
        for (1 .. 3) {
            $r = step($agent, $task, 'x');
            $n++ if $r->{status} == 200;
            $by{$r->{json}{additional_output}{container} // 'none'}++;
        }
        $used{$_}++ for keys %by;
        is(scalar keys %by, 1, "$agent: all steps in one container")
            or diag encode(\%by);
    }
    is($n, 36, "$agent: none went wrong");
    cmp_ok(scalar keys %used, '>', 1, "$agent: and more than one is used");
}


# The real SDK ---------------------------------------------------------------

{
    my ($task, $input) = task('ap_sdk', any => 'thing');
    upload('ap_sdk', $task, 'in.txt', 'from the client', 'in');

    my $r = step('ap_sdk', $task, 'hello');
    is($r->{status}, 200, 'the SDK: a step') or diag $r->{body};
    is($r->{json}{output}, "$input: hello", 'with the input of both');
    is($r->{json}{name}, 'step 1', 'and a name');
    is($r->{json}{is_last}, $false, 'not the last one');

    $r = step('ap_sdk', $task, 'read in/in.txt');
    is($r->{json}{output}, 'from the client', 'it has what was uploaded')
        or diag $r->{body};

    $r = step('ap_sdk', $task, 'write docs plan.md the plan: ü');
    is($r->{json}{output}, 'wrote plan.md', 'it writes a file')
        or diag $r->{body};
    my ($file) = @{$r->{json}{artifacts}};
    is($file->{relative_path}, 'docs', 'in its folder');
    is(content('ap_sdk', $task, $file), "the plan: \xc3\xbc",
       'which is ours now');

    $r = step('ap_sdk', $task, 'write - top.txt no folder');
    is(content('ap_sdk', $task, $r->{json}{artifacts}[0]), 'no folder',
       'without a folder, too');
    is(scalar(artifacts('ap_sdk', $task)), 3, 'three in all');

    $r = step('ap_sdk', $task, 'fail for a reason');
    failed($r, 502, qr/container of agent "ap_sdk" answered the step with status 500: for a reason/,
           'a handler that throws');

    $r = step('ap_sdk', $task, 'finish done at last');
    is($r->{json}{output}, 'done at last', 'it goes on after that')
        or diag $r->{body};
    is($r->{json}{is_last}, $true, 'and comes to an end');
    is(scalar @{$r->{json}{artifacts}}, 0, 'with no artifact again');

    my @steps = @{$nginx->get("/x/ap_sdk/tasks/$task/steps?page_size=100")
                  ->{json}{steps}};
    is_deeply([map { $_->{status} } @steps],
              [('completed') x 4, 'failed', 'completed'], 'all of it is here');

    my $other = task('ap_sdk');
    $r = step('ap_sdk', $other, undef);
    is($r->{status}, 200, 'another task, a step with no input')
        or diag $r->{body};
    is($r->{json}{name}, 'step 1', 'is one of its own');

    $sdk->stop;
    $sdk->boot;
    $r = step('ap_sdk', $other, 'x');
    failed($r, 502, qr/answered the step with status 500: Task with id \S+ not found/,
           'a container that was made anew');
}


# This module as a container ---------------------------------------------------

{
    my $script = JSON::PP->new->canonical->encode([
        { content => 'a plan', calls => [[write_artifact => {
            path => 'docs/plan.md', content => 'the plan' }]] },
        { calls => [[ask_user => { question => 'which colour?' }]] },
        { content => 'it is %ANSWER%' }]);
    my $r = $nginx->post('/x/ap_self/tasks', { input => "paint [[$script]]" });
    my $task = $r->{json}{task_id};

    $r = step('ap_self', $task, undef);
    is($r->{status}, 200, 'a server of ours behind one of ours')
        or diag $r->{body};
    is($r->{json}{output}, 'a plan', 'the output of its LLM');
    is($r->{json}{name}, 'write_artifact', 'its name');
    is($r->{json}{additional_output}{usage}{tokens_in} > 0, 1, 'its usage');
    is(content('ap_self', $task, $r->{json}{artifacts}[0]), 'the plan',
       'its artifact');

    $r = step('ap_self', $task, undef);
    is($r->{json}{status}, 'waiting_for_input', 'its question')
        or diag $r->{body};
    is($r->{json}{output}, 'which colour?', 'in its words');

    $r = step('ap_self', $task, 'blue');
    is($r->{json}{output}, 'it is blue', 'which is answered')
        or diag $r->{body};
    is($r->{json}{is_last}, $true, 'its end');
    is(scalar(artifacts('ap_self', $task)), 1, 'one artifact, once');

    $r = $nginx->post('/x/ap_self/tasks', { input => 'x [[http:400:9]]' });
    $r = step('ap_self', $r->{json}{task_id}, undef);
    failed($r, 502, qr/container of agent "ap_self" answered the step with status 502: the step failed: .*status 400/,
           'and its errors');
}

# the worker that was killed by the test
$nginx->finish(but => qr/exited on signal 9/);
done_testing();
