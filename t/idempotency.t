#!/usr/bin/perl

# Idempotency-Key on tasks, steps and artifacts: the first answer again, by
# any nginx, while the first request runs, after a restart, and when the first
# answer never reached its client.

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
            agents => { few => '', auto => 'run auto;' },
            server => '        location /any/ { agent_pass $agent_id; }');
my $nginx = AgentTest::Nginx->new(conf => conf(%conf));
my $other = AgentTest::Nginx->new(conf => conf(%conf));

my $at = '/ap/v1/agent';
my $n = 0;


sub key { return (headers => { 'Idempotency-Key' => $_[0], @_[1 .. $#_] }) }

sub is_replayed {
    my ($r, $first, $name) = @_;
    is($r->{status}, $first->{status}, "$name: the status of then");
    is($r->{body}, $first->{body}, "$name: the answer of then");
    is($r->{headers}{'idempotency-replayed'}, 'true', "$name: and says so");
}

sub is_other {
    my ($r, $name) = @_;
    is($r->{status}, 422, "$name: 422") or diag $r->{body};
    like($r->{json}{message},
         qr/^this Idempotency-Key was used for another request/,
         "$name: message");
    is_deeply($r->{json}{detail}[0]{loc}, ['header', 'Idempotency-Key'],
              "$name: detail");
}

sub upload {
    my ($server, $task, $key, $text, %o) = @_;
    my $path = $o{path} ? "--b\r\nContent-Disposition: form-data; "
               . "name=\"relative_path\"\r\n\r\n$o{path}\r\n" : '';
    my $name = $o{name} || 'a.txt';
    return $server->post("$at/tasks/$task/artifacts",
        "$path--b\r\nContent-Disposition: form-data; name=\"file\"; "
        . "filename=\"$name\"\r\n\r\n$text\r\n--b--\r\n",
        headers => { 'Content-Type' => 'multipart/form-data; boundary=b',
                     'Idempotency-Key' => $key });
}

sub files { return grep { -f } glob "$folder/??/*" }

sub count { return $pg->psql("select count(*) from agent.$_[0]") }


# tasks

{
    my $body = { input => 'once', additional_input => { b => 2 } };
    my $first = $nginx->post("$at/tasks", $body, key('task-1'));
    is($first->{status}, 200, 'a task with a key');
    is($first->{headers}{'idempotency-replayed'}, undef, 'is no replay');

    is_replayed($nginx->post("$at/tasks", $body, key('task-1')), $first,
                'again');
    is_replayed($nginx->post("$at/tasks", $body, key('"task-1"')), $first,
                'in quotes');
    is_replayed($other->post("/agent/tasks", $body, key('task-1')), $first,
                'by another nginx, another path');
    is(count('task'), 1, 'one task');

    run_step($nginx, $first->{json}{task_id}, { input => 'x [[demo]]' });
    is_replayed($nginx->post("$at/tasks", $body, key('task-1')), $first,
                'when it has artifacts');

    is_other($nginx->post("$at/tasks", { input => 'twice' }, key('task-1')),
             'another body');
    is_other($nginx->post('/any/tasks?agent_id=few', $body, key('task-1')),
             'another agent');
    is_other(run_step($nginx, $first->{json}{task_id}, $body, key('task-1')),
             'a step');
    is_other(upload($nginx, $first->{json}{task_id}, 'task-1', 'x'),
             'an artifact');
    is(count('task'), 1, 'still one task');

    my @c = map { $_->connect } ($nginx, $other) x 5;
    $_->send(method => 'POST', path => "$at/tasks", body => $body,
             key('task-2')) for @c;
    my %ids = map { ($_->answer->{json}{task_id} // 'none', 1) } @c;
    is(scalar keys %ids, 1, 'ten at once make one task');
    is(count('task'), 2, 'one more');

    my $auto = $nginx->post('/x/auto/tasks', { input => 'auto' }, key('auto'));
    is_replayed($other->post('/x/auto/tasks', { input => 'auto' },
                key('auto')), $auto, 'of an agent that runs by itself');
    my $task = $auto->{json}{task_id};
    ok(poll_until(sub { $pg->psql("select status from agent.step where "
       . "task_id = '$task'") eq '2' }), 'it runs once');
}


# steps

{
    my $task = make_task($nginx, 'count me [[echo]]');
    my $calls = $llm->stats->{requests};
    my $first = run_step($nginx, $task, {}, key('step-1'));
    is($first->{json}{output}, 'count me', 'a step with a key');
    is_replayed(run_step($nginx, $task, {}, key('step-1')), $first, 'again');
    is_replayed(run_step($other, $task, {}, key('step-1')), $first,
                'by the other nginx');
    is_other(run_step($nginx, $task, { input => 'x' }, key('step-1')),
             'another body');
    is_other(run_step($nginx, make_task($nginx, 'y'), {}, key('step-1')),
             'another task');
    is($llm->stats->{requests}, $calls + 1, 'the LLM was called once');

    my $r = run_step($nginx, $task, {}, key('step-1'),
                     headers => { 'Idempotency-Key' => 'step-1',
                                  Prefer => 'respond-async' });
    is($r->{status}, 202, 'one that prefers no waiting is told 202');
    is($r->{json}{step_id}, $first->{json}{step_id}, 'of the same step');

    # while the first one runs
    $task = make_task($nginx, 'slow [[echo+hold]]');
    my $c = $nginx->connect;
    $c->send(method => 'POST', path => "$at/tasks/$task/steps", body => {},
             key('step-2'));
    poll_until(sub { $llm->stats->{held} == 1 });
    my @again = map { $_->connect } $nginx, $other, $other;
    $_->send(method => 'POST', path => "$at/tasks/$task/steps", body => {},
             key('step-2')) for @again;
    $r = run_step($nginx, $task, {}, headers => { 'Idempotency-Key' =>
                  'step-2', Prefer => 'respond-async' });
    is($r->{status}, 202, 'async meanwhile');
    is($r->{headers}{'idempotency-replayed'}, 'true', 'a replay');
    like($r->{headers}{location}, qr{/steps/\Q$r->{json}{step_id}\E$},
         'Location');
    $c->close;      # the first answer never arrives
    sleep 0.2;
    $llm->release;
    my @r = map { $_->answer(seconds => 10) } @again;
    is($_->{json}{output}, 'slow', 'who asked again gets the answer') for @r;
    is($_->{headers}{'idempotency-replayed'}, 'true', 'as a replay') for @r;
    is($pg->psql("select count(*) from agent.step where task_id = '$task'"),
       1, 'one step');

    # failures and cancelled ones are answers too
    $task = make_task($nginx, 'fail [[http:400]]');
    $first = run_step($nginx, $task, {}, key('step-3'));
    is($first->{status}, 502, 'a step that fails');
    is_replayed(run_step($other, $task, {}, key('step-3')), $first,
                'fails again');
    my $next = run_step($nginx, $task, { input => 'go on [[echo]]' },
                        key('step-4'));
    is($next->{json}{output}, 'go on', 'another key is another step');

    $task = make_task($nginx, 'cancel [[hang]]');
    $c = $nginx->connect;
    $c->send(method => 'POST', path => "$at/tasks/$task/steps", body => {},
             key('step-5'));
    poll_until(sub { $pg->psql("select count(*) from agent.step where "
                               . "task_id = '$task'") });
    $nginx->post("$at/tasks/$task/cancel", '');
    $first = $c->answer(seconds => 5);
    is($first->{status}, 409, 'a step that is cancelled');
    is_replayed(run_step($other, $task, {}, key('step-5')), $first,
                'stays cancelled');

    # a question, and a secret answer to it
    $task = make_task($nginx, 'ask [[secret:Word?]]');
    $first = run_step($nginx, $task, {}, key('step-6'));
    is($first->{json}{status}, 'waiting_for_input', 'a question');
    is_replayed(run_step($nginx, $task, {}, key('step-6')), $first,
                'is asked again, not answered');
    $first = run_step($nginx, $task, { input => 'pa55' }, key('step-7'));
    is($first->{json}{output}, 'got 4 characters', 'the answer is used');
    is_replayed(run_step($other, $task, { input => 'pa55' }, key('step-7')),
                $first, 'once');
    unlike($first->{body}, qr/pa55/, 'and not shown');
    unlike($pg->psql('select i::text from agent.idempotency i'), qr/pa55/,
           'the keys know nothing of it');
}


# artifacts

{
    my $task = make_task($nginx, 'files');
    my $files = files();
    my $first = upload($nginx, $task, 'file-1', 'bytes', path => 'a/');
    is($first->{status}, 200, 'an upload with a key');
    is_replayed(upload($nginx, $task, 'file-1', 'bytes', path => 'a/'),
                $first, 'again');
    is_replayed(upload($other, $task, 'file-1', 'bytes', path => 'a/'),
                $first, 'by the other nginx');
    is(scalar files(), $files + 1, 'one file on the disk');
    is($nginx->get("$at/tasks/$task/artifacts/$first->{json}{artifact_id}")
       ->{body}, 'bytes', 'and it is there');

    is_other(upload($nginx, $task, 'file-1', 'bytez', path => 'a/'),
             'other bytes');
    is_other(upload($nginx, $task, 'file-1', 'bytes', path => 'b/'),
             'another path');
    is_other(upload($nginx, $task, 'file-1', 'bytes'), 'no path');
    is_other(upload($nginx, $task, 'file-1', 'bytes', path => 'a/',
                    name => 'b.txt'), 'another name');
    is_other(upload($nginx, make_task($nginx, 'f2'), 'file-1', 'bytes',
                    path => 'a/'), 'another task');
    is(scalar files(), $files + 1, 'nothing is left of them');

    my $big = join '', map { pack 'N', $_ } 1 .. 300_000;
    $first = upload($nginx, $task, 'file-2', $big);
    is_replayed(upload($other, $task, 'file-2', $big), $first, 'a large one');
    is(upload($nginx, '01890a5d-ac96-774b-bcce-b302099a8057', 'file-3', 'x')
       ->{status}, 404, 'an unknown task');
    is(scalar files(), $files + 2, 'two files');
}


# keys that are none

for ([''], ['""'], ['a b'], ["\xc3\xa9"], ['"open'], ['k' x 256],
     ['"a", "b"'], ['"a"b'])
{
    my ($key) = @$_;
    my $tasks = count('task');
    my $task = $tasks && $pg->psql('select task_id from agent.task limit 1');
    for my $r ($nginx->post("$at/tasks", { input => 'x' }, key($key)),
               run_step($nginx, $task, { input => 'x' }, key($key)),
               upload($nginx, $task, $key, 'x'))
    {
        is($r->{status}, 422, "no key: " . substr $key, 0, 20);
        like($r->{json}{message}, qr/^"Idempotency-Key" \w+/, 'says why');
        is_deeply($r->{json}{detail}[0]{loc}, ['header', 'Idempotency-Key'],
                  'detail');
    }
    is(count('task'), $tasks, 'nothing was made');
}

{
    my $c = $nginx->connect;
    $c->raw("POST $at/tasks HTTP/1.1\r\nHost: x\r\nIdempotency-Key: a\r\n"
            . "idempotency-key: a\r\nContent-Length: 0\r\n\r\n");
    my $r = $c->answer;
    is($r->{status}, 422, 'two headers');
    like($r->{json}{message}, qr/more than once/, 'say so');
    my $long = 'k' x 255;
    $r = $nginx->post("$at/tasks", {}, key($long));
    is_replayed($nginx->post("$at/tasks", {}, key("\"$long\"")), $r,
                '255 characters');
    $r = $nginx->post("$at/tasks", {}, key('"q\\"q\\\\"'));
    is_replayed($nginx->post("$at/tasks", {}, key('"q\\"q\\\\"')), $r,
                'escapes');
    is_replayed($nginx->post("$at/tasks", {}, key("q\"q\\")), $r,
                'and what they stand for');
}


# twins: a step is asked for by several at once, at both of them

for my $round (1 .. 60) {
    my $task = make_task($nginx, "twins $round [[echo]]");
    my @c = map { $_->connect } ($nginx, $other) x 3;
    my %ask = (method => 'POST', path => "$at/tasks/$task/steps",
               body => { input => "twin $round" }, key("twin-$round"));
    $_->send(%ask) for @c;
    my @r = map { $_->answer } @c;
    push @r, map { AgentTest::Http::request(port => $_->port, %ask) }
             $nginx, $other;

    my %by;
    $by{$_->{status}}++ for @r;
    my %ids = map { $_->{json}{step_id} // 'none', 1 }
              grep { $_->{status} == 200 } @r;
    is(encode(\%by), '{"200":8}', "twins $round: all have an answer")
        or diag map { "$_->{body}\n" } grep { $_->{status} != 200 } @r;
    is(join(' ', keys %ids), $pg->psql('select step_id from agent.step where '
       . "task_id = '$task'"), "twins $round: which is the only step's");
    is($r[$_]{headers}{'idempotency-replayed'}, 'true',
       "twins $round: a replay") for 6, 7;
}


# a restart, and 24 hours later

{
    my $first = $nginx->post("$at/tasks", { input => 'before' }, key('old'));
    $nginx->stop;
    $nginx->start;
    is_replayed($nginx->post("$at/tasks", { input => 'before' }, key('old')),
                $first, 'after a restart');
    $pg->psql("update agent.idempotency set created_at = now() - "
              . "interval '25 hours' where key = 'old'");
    my $r = $nginx->post("$at/tasks", { input => 'after' }, key('old'));
    is($r->{status}, 200, 'a day later it is a new key');
    isnt($r->{json}{task_id}, $first->{json}{task_id}, 'and a new task');

    # what it has made is gone: so is the key
    $nginx->request(method => 'DELETE',
                    path => "$at/tasks/$r->{json}{task_id}");
    $r = $nginx->post("$at/tasks", { input => 'else' }, key('old'));
    is($r->{status}, 200, 'a key whose task was deleted is free');
}

$nginx->finish;
$other->finish;
done_testing();
