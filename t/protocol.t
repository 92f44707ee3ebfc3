#!/usr/bin/perl

# The nine operations of Agent Protocol v1 on both prefixes, and what HTTP/1.1
# asks of them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use JSON::PP;
use Test::More;

my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $nginx = AgentTest::Nginx->new(conf => conf(
    pg => $pg, llm => $llm,
    agents => { few => 'max_steps 2;' },
    server => '        location /strict/ { agent_pass writer; '
              . "agent_strict on; }\n"
              . '        location /any/ { agent_pass $agent_id; }'));

my $uuid = qr/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
my $unknown = '01890a5d-ac96-774b-bcce-b302099a8057';


sub is_json {
    my ($r, $status, $name) = @_;
    is($r->{status}, $status, "$name: status $status")
        or diag $r->{body};
    like($r->{headers}{'content-type'} // '', qr{^application/json\b},
         "$name: JSON");
}


sub is_error {
    my ($r, $status, $name, $like) = @_;
    is_json($r, $status, $name);
    like($r->{json}{message} // '', $like || qr/\w+ \w+/, "$name: a sentence");
}


for my $at ('/ap/v1/agent', '/agent') {
    my $r = $nginx->post("$at/tasks", { input => "Write. [[demo]]",
                                        additional_input => { a => 1 } });
    is_json($r, 200, "$at create task");
    my $task = $r->{json};
    like($task->{task_id}, $uuid, 'its id is a UUIDv7');
    is($task->{input}, 'Write. [[demo]]', 'its input');
    is_deeply($task->{additional_input}, { a => 1 }, 'its additional_input');
    is_deeply($task->{artifacts}, [], 'it has no artifacts');
    my $id = $task->{task_id};

    $r = $nginx->get("$at/tasks/$id");
    is_json($r, 200, "$at get task");
    is_deeply($r->{json}, $task, 'the same task');

    $r = $nginx->get("$at/tasks");
    is_json($r, 200, "$at list tasks");
    is($r->{json}{tasks}[-1]{task_id}, $id, 'the task is in the list');

    $r = $nginx->post("$at/tasks/$id/steps", { input => 'go' });
    is_json($r, 200, "$at first step");
    my $step = $r->{json};
    like($step->{step_id}, $uuid, 'its id is a UUIDv7');
    is($step->{task_id}, $id, 'its task');
    is($step->{status}, 'completed', 'it is completed');
    is($step->{is_last}, JSON::PP::false, 'it is not the last');
    is($step->{input}, 'go', 'its input');
    is($step->{output}, 'I will write the capital to output.txt.', 'output');
    is_deeply($step->{additional_input}, {}, 'additional_input is an object');
    is(scalar @{$step->{artifacts}}, 1, 'it made an artifact');
    my $artifact = $step->{artifacts}[0];
    is($artifact->{file_name}, 'output.txt', 'its name');
    is($artifact->{agent_created}, JSON::PP::true, 'by the agent');

    $r = $nginx->post("$at/tasks/$id/steps", {});
    is_json($r, 200, "$at second step");
    is($r->{json}{is_last}, JSON::PP::true, 'it is the last');
    my $last = $r->{json};

    $r = $nginx->get("$at/tasks/$id/steps/$step->{step_id}");
    is_json($r, 200, "$at get step");
    is_deeply($r->{json}, $step, 'the same step');

    $r = $nginx->get("$at/tasks/$id/steps");
    is_json($r, 200, "$at list steps");
    is_deeply($r->{json}{steps}, [$step, $last], 'both, in order');
    is_deeply($r->{json}{pagination}, { total_items => 2, total_pages => 1,
              current_page => 1, page_size => 10 }, 'the pagination');

    $r = $nginx->get("$at/tasks/$id/artifacts");
    is_json($r, 200, "$at list artifacts");
    is_deeply($r->{json}{artifacts}, [$artifact], 'the artifact');

    $r = $nginx->get("$at/tasks/$id/artifacts/$artifact->{artifact_id}");
    is($r->{status}, 200, "$at download");
    is($r->{headers}{'content-type'}, 'application/octet-stream', 'as bytes');
    is($r->{body}, 'Washington', 'the bytes');

    $r = $nginx->post("$at/tasks/$id/artifacts",
        "--b\r\nContent-Disposition: form-data; name=\"file\"; "
        . "filename=\"in.txt\"\r\n\r\nhello\r\n--b--\r\n",
        headers => { 'Content-Type' => 'multipart/form-data; boundary=b' });
    is_json($r, 200, "$at upload");
    is($r->{json}{agent_created}, JSON::PP::false, 'not by the agent');

    $r = $nginx->get("$at/tasks/$id");
    is(scalar @{$r->{json}{artifacts}}, 2, 'the task has both');

    is_error($nginx->get("$at/tasks/$unknown"), 404, "$at unknown task");
    is_error($nginx->get("$at/tasks/nonsense"), 404, "$at no uuid");
    is_error($nginx->get("$at/tasks/$id/steps/$unknown"), 404, 'unknown step');
    is_error($nginx->get("$at/tasks/$id/artifacts/$unknown"), 404,
             'unknown artifact');
    is_error($nginx->post("$at/tasks/$unknown/steps", {}), 404,
             'step of an unknown task');
    is_error($nginx->get("$at/tasks/$unknown/steps"), 404,
             'steps of an unknown task');
    is_error($nginx->get("$at/tasks/$unknown/artifacts"), 404,
             'artifacts of an unknown task');
    is_error($nginx->get("$at/"), 404, 'no route');
    is_error($nginx->get("$at/tasks/$id/nothing"), 404, 'an unknown route');
    is_error($nginx->get("$at/tasks/$id/steps/$step->{step_id}/more"), 404,
             'a longer route');

    # another task's things are not this one's
    my $other = make_task($nginx, 'x', at => $at);
    is_error($nginx->get("$at/tasks/$other/steps/$step->{step_id}"), 404,
             'a step of another task');
    is_error($nginx->get("$at/tasks/$other/artifacts/$artifact->{artifact_id}"),
             404, 'an artifact of another task');
}


# bodies that are empty, null or absent

for my $body ('', '{}', '{"input":null}', '{"additional_input":null}',
              '{"input":null,"additional_input":null}', ' {} ')
{
    my $r = $nginx->post('/ap/v1/agent/tasks', $body,
        headers => { 'Content-Type' => 'application/json' });
    is_json($r, 200, "a task of '$body'");
    is($r->{json}{input}, undef, 'its input is null');
    is_deeply($r->{json}{additional_input}, {}, 'additional_input is {}');

    $r = $nginx->get("/ap/v1/agent/tasks/$r->{json}{task_id}");
    is($r->{json}{input}, undef, 'and so when got again');
    is_deeply($r->{json}{additional_input}, {}, 'and so is the other');
}

{
    my $id = make_task($nginx, 'a plain one');
    my $r = $nginx->request(method => 'POST',
                            path => "/ap/v1/agent/tasks/$id/steps");
    is_json($r, 200, 'a step with no body at all');
    is($r->{json}{output}, 'a plain one', 'it ran');
    is($r->{json}{is_last}, JSON::PP::true, 'a plain answer is the last step');

    # a step on a finished task
    my $calls = $llm->stats->{requests};
    my $again = run_step($nginx, $id);
    is_json($again, 200, 'a step on a finished task');
    is_deeply($again->{json}, $r->{json}, 'is the last step again');
    is($llm->stats->{requests}, $calls, 'the LLM was not called');

    $again = run_step($nginx, $id, { input => 'and now this' });
    is($again->{json}{output}, 'and now this', 'with input it goes on');
    isnt($again->{json}{step_id}, $r->{json}{step_id}, 'as a new step');

    # the whole conversation was sent
    my ($call) = $llm->calls('and now this');
    is_deeply([map { "$_->{role}: $_->{content}" } @{$call->{messages}}],
              ['user: a plain one', 'assistant: a plain one',
               'user: and now this'], 'the conversation the LLM saw');
    is($call->{stream}, JSON::PP::true, 'with stream');
    is_deeply([sort @{$call->{tools}}], [qw(ask_user finish list_artifacts
              read_artifact write_artifact)], 'the five tools are offered');
    is($call->{headers}{'content-type'}, 'application/json', 'its type');
    is($call->{headers}{authorization}, undef,
       'no header of the client goes to the LLM');
}


# the client's own bytes come back

{
    my $odd = '{"b" : [1.50, 1e3, 123456789012345678901234567890], '
              . '"a":"\u00e9\/\ud83d\ude00"}';
    my $r = $nginx->post('/ap/v1/agent/tasks',
        "{\"input\":\"\\u0041\\n\xc3\xa9\",\"additional_input\":$odd}",
        headers => { 'Content-Type' => 'application/json; charset=utf-8' });
    is_json($r, 200, 'odd JSON');
    like($r->{body}, qr/\Q$odd\E/, 'additional_input is as it was given');
    is($r->{json}{input}, "A\n\x{e9}", 'the input means the same');
    $r = $nginx->get("/ap/v1/agent/tasks/$r->{json}{task_id}");
    like($r->{body}, qr/\Q$odd\E/, 'also when it was stored');
    is($r->{json}{input}, "A\n\x{e9}", 'and the input');
}


# paging and order

{
    my $id = make_task($nginx, 'page me [[loop]]');
    my @steps = map { run_step($nginx, $id)->{json}{step_id} } 1 .. 7;
    my $path = "/ap/v1/agent/tasks/$id/steps";

    my $page = sub {
        my $r = $nginx->get("$path?$_[0]");
        is_json($r, 200, "?$_[0]");
        return ([map { $_->{step_id} } @{$r->{json}{steps}}],
                $r->{json}{pagination});
    };

    my ($ids, $p) = $page->('page_size=3');
    is_deeply($ids, [@steps[0 .. 2]], 'the first page');
    is_deeply($p, { total_items => 7, total_pages => 3, current_page => 1,
                    page_size => 3 }, 'its pagination');
    ($ids, $p) = $page->('page_size=3&current_page=3');
    is_deeply($ids, [$steps[6]], 'the last page');
    ($ids, $p) = $page->('current_page=4&page_size=3');
    is_deeply($ids, [], 'past the end: nothing');
    is_deeply($p, { total_items => 7, total_pages => 3, current_page => 4,
                    page_size => 3 }, 'with true totals');
    ($ids) = $page->('order=desc&page_size=3');
    is_deeply($ids, [reverse @steps[4 .. 6]], 'turned round');
    ($ids) = $page->('order=desc&page_size=3&current_page=3');
    is_deeply($ids, [$steps[0]], 'its last page');
    ($ids) = $page->('order=asc&page_size=1000');
    is_deeply($ids, \@steps, 'all of them');
    ($ids, $p) = $page->('');
    is($p->{page_size}, 10, 'ten without a word');

    my $r = $nginx->get('/ap/v1/agent/tasks?page_size=2&order=desc');
    is($r->{json}{tasks}[0]{task_id}, $id, 'the newest task first');
    is(scalar @{$r->{json}{tasks}}, 2, 'two of them');
    my $all = $pg->psql('select count(*) from agent.task');
    is($r->{json}{pagination}{total_items}, $all, 'of as many as there are');
}


# a task has max_steps steps

{
    my $id = make_task($nginx, 'on and on [[loop]]', at => '/x/few');
    my $r = run_step($nginx, $id, {}, at => '/x/few');
    is($r->{json}{is_last}, JSON::PP::false, 'one of two');
    $r = run_step($nginx, $id, {}, at => '/x/few');
    is($r->{json}{is_last}, JSON::PP::true, 'the second is the last');
    $r = run_step($nginx, $id, { input => 'more' }, at => '/x/few');
    is_error($r, 422, 'a third', qr/step/);
}


# human input

{
    my $id = make_task($nginx, 'ask me [[ask:Which city?]]');
    my $r = run_step($nginx, $id);
    is_json($r, 200, 'a step that asks');
    is($r->{json}{status}, 'waiting_for_input', 'its status');
    is($r->{json}{additional_input_needed}, JSON::PP::true, 'it says so');
    is($r->{json}{output}, 'Which city?', 'the question');
    is($r->{json}{is_last}, JSON::PP::false, 'it goes on');
    my $step = $r->{json};

    $r = $nginx->get("/ap/v1/agent/tasks/$id/steps/$step->{step_id}");
    is_deeply($r->{json}, $step, 'the same when got again');
    $r = $nginx->get("/strict/tasks/$id/steps/$step->{step_id}");
    is($r->{json}{status}, 'completed', 'strict: one of the three');
    is($r->{json}{additional_input_needed}, JSON::PP::true,
       'the flag stays');

    $r = run_step($nginx, $id, { input => 'Washington' });
    is($r->{json}{output}, 'the answer was: Washington', 'it was answered');
    is($r->{json}{status}, 'completed', 'completed');
    ok(!exists $r->{json}{additional_input_needed}, 'no flag');
    is($r->{json}{is_last}, JSON::PP::true, 'and done');
}

{
    my $word = "s3cr3t-$$-word";
    my $id = make_task($nginx, 'ask me [[secret:The password?]]');
    my $r = run_step($nginx, $id);
    is($r->{json}{status}, 'waiting_for_input', 'a secret is asked for');

    $r = run_step($nginx, $id, { input => $word });
    is_json($r, 200, 'it was answered');
    is($r->{json}{output}, 'got ' . length($word) . ' characters',
       'the LLM had it');
    is($r->{json}{input}, '[redacted]', 'the answer does not show it');
    unlike($r->{body}, qr/\Q$word\E/, 'nowhere');

    $r = $nginx->get("/ap/v1/agent/tasks/$id/steps");
    is($r->{json}{steps}[1]{input}, '[redacted]', 'nor does the list');

    my $rows = $pg->psql("select t::text from agent.task t union all "
        . "select s::text from agent.step s union all "
        . "select u::text from agent.usage u");
    unlike($rows, qr/\Q$word\E/, 'it is in no row');
    unlike($nginx->log_text, qr/\Q$word\E/, 'it is in no log');

    run_step($nginx, $id, { input => 'go on' });
    my ($call) = $llm->calls('go on');
    unlike(encode($call->{messages}), qr/\Q$word\E/,
           'the LLM is not told a second time');
}


# agents by name

{
    my $r = $nginx->post('/any/tasks', { input => 'x' },
                         headers => { 'X-Agent-ID' => 'few' });
    is_json($r, 200, 'an agent named by a header');
    $r = $nginx->post('/any/tasks?agent_id=few', { input => 'x' });
    is_json($r, 200, 'by an argument');
    $r = $nginx->post('/any/tasks', { input => 'x',
                      additional_input => { agent_id => 'few' } });
    is_json($r, 200, 'by the body');
    $r = run_step($nginx, $r->{json}{task_id}, {}, at => '/any');
    is_json($r, 200, 'its step needs no name');
    is_error($nginx->post('/any/tasks?agent_id=nobody', {}), 404,
             'an unknown agent', qr/nobody/);
    is_error($nginx->post('/any/tasks', {}), 422, 'no agent at all',
             qr/X-Agent-ID/);
}


# methods

{
    my $id = make_task($nginx, 'methods');
    my $step = run_step($nginx, $id)->{json}{step_id};
    my %allow = (
        'tasks' => 'GET, HEAD, POST',
        "tasks/$id" => 'DELETE, GET, HEAD',
        "tasks/$id/steps" => 'GET, HEAD, POST',
        "tasks/$id/steps/$step" => 'GET, HEAD',
        "tasks/$id/artifacts" => 'GET, HEAD, POST',
        "tasks/$id/artifacts/$unknown" => 'GET, HEAD',
    );
    my $sorted = sub { join ', ', sort split /,\s*/, $_[0] // '' };

    for my $route (sort keys %allow) {
        for my $method (qw(OPTIONS DELETE PUT PATCH)) {
            next if $allow{$route} =~ /$method/;
            my $r = $nginx->request(method => $method,
                                    path => "/ap/v1/agent/$route");
            is_error($r, 405, "$method $route");
            is($sorted->($r->{headers}{allow}), $allow{$route}, 'Allow');
        }

        next if $route =~ /$unknown/;
        my $get = $nginx->get("/ap/v1/agent/$route");
        my $head = $nginx->request(method => 'HEAD',
                                   path => "/ap/v1/agent/$route");
        is($head->{status}, 200, "HEAD $route");
        is($head->{body}, '', 'no body');
        is($head->{headers}{'content-length'}, length $get->{body},
           'the length of the body of GET');
    }

    my $r = $nginx->request(method => 'HEAD',
                            path => "/ap/v1/agent/tasks/$unknown");
    is($r->{status}, 404, 'HEAD of an unknown task');
    is_error($nginx->request(method => 'POST', body => '{}',
             path => "/ap/v1/agent/tasks/$id"), 405, 'POST to a task');
}


# HTTP/1.1: keep-alive, pipelining, chunked, Expect, a GET with a body

{
    my $c = $nginx->connect;
    my @paths = map { '/ap/v1/agent/tasks/' . make_task($nginx, "p$_") } 1 .. 5;

    for my $path (@paths) {
        $c->send(path => $path);
        is($c->answer->{json}{task_id}, $path =~ s{.*/}{}r, 'keep-alive');
    }

    $c->raw(join '', map { AgentTest::Http::text(path => $_) } @paths);
    is($c->answer->{json}{task_id}, s{.*/}{}r, 'pipelined') for @paths;

    my @bodies = map { { input => "piped $_ [[echo]]" } } 1 .. 5;
    $c->raw(join '', map { AgentTest::Http::text(path => '/agent/tasks',
                                                 body => $_) } @bodies);
    my @ids = map { $c->answer->{json} } @bodies;
    is($ids[$_]{input}, $bodies[$_]{input}, 'a pipelined POST') for 0 .. 4;

    $c->raw(join '', map { AgentTest::Http::text(body => {},
            path => "/agent/tasks/$_->{task_id}/steps") } @ids);
    is($c->answer->{json}{output}, "piped $_", 'a pipelined step') for 1 .. 5;

    for my $size (1, 7, 4096) {
        $c->send(method => 'POST', path => '/agent/tasks', chunked => $size,
                 body => { input => "chunks of $size" });
        is($c->answer->{json}{input}, "chunks of $size", 'a chunked body');
    }

    $c->send(method => 'GET', path => $paths[0], body => '{"ignored": 1}');
    is($c->answer->{status}, 200, 'a GET with a body');
    $c->send(path => $paths[1]);
    is($c->answer->{json}{input}, 'p2', 'and the next one on the connection');

    # answered early, the body is thrown away
    $c->send(method => 'POST', path => "/agent/tasks/$unknown/steps",
             body => { input => 'x' x 5000 });
    is($c->answer->{status}, 404, 'a refused POST');
    $c->send(method => 'PATCH', path => $paths[1], body => 'x' x 5000);
    is($c->answer->{status}, 405, 'a refused method');
    $c->send(path => $paths[1]);
    is($c->answer->{json}{input}, 'p2', 'the connection is still good');
    $c->close;

    $c = $nginx->connect;
    my $text = AgentTest::Http::text(path => '/agent/tasks', method => 'POST',
        body => '{"input":"expected"}', headers => { Expect => '100-continue',
        'Content-Type' => 'application/json' });
    my ($head, $body) = $text =~ /(.*?\r\n\r\n)(.*)/s;
    $c->raw($head);
    is($c->answer(interim => 1, seconds => 5)->{status}, 100, '100-continue');
    $c->raw($body);
    is($c->answer->{json}{input}, 'expected', 'and the answer');
    $c->close;

    # a request byte by byte
    $c = $nginx->connect;
    $c->raw($_) for split //, AgentTest::Http::text(path => '/agent/tasks',
                              body => { input => 'slow' });
    is($c->answer->{json}{input}, 'slow', 'each byte on its own');

    my $r = $nginx->request(path => '/agent/tasks', method => 'POST',
        body => '{"input":"no type"}');
    is($r->{json}{input}, 'no type', 'no Content-Type is fine');

    $c = $nginx->connect;
    $c->raw("GET $paths[2] HTTP/1.0\r\n\r\n");
    is($c->answer->{json}{input}, 'p3', 'HTTP/1.0');
}


# two steps of a task at once

{
    my $id = make_task($nginx, "at once [[echo+delay:700]]");
    my @c = map { $nginx->connect } 1 .. 5;
    $_->send(method => 'POST', path => "/agent/tasks/$id/steps", body => {})
        for @c;
    my @r = sort { $a->{status} <=> $b->{status} } map { $_->answer } @c;
    is(join(' ', map { $_->{status} } @r), '200 409 409 409 409',
       'one runs, the others are told so');
    ok($r[1]{headers}{'retry-after'}, 'with Retry-After');
    is_error($r[1], 409, 'the answer');
    is($pg->psql("select count(*) from agent.step where task_id = '$id'"), 1,
       'one step is stored');

    my @ledger = split /\n/, $pg->psql('select count(*), count(distinct '
        . 'step_id) from agent.usage union all select count(*), count(*) '
        . 'from agent.step where status > 1');
    is($ledger[0], $ledger[1], 'each ended step has one row in the ledger');
}

$nginx->finish;
done_testing();
