#!/usr/bin/perl

# The trace of a step, for review: each attempt with what was sent, what came,
# when, and what went wrong; no secret in it, also where it is cut; and
# "traceparent" (W3C), which goes from the client to the LLM.  And what the
# access log is told of a step.

use strict;
use warnings;
use utf8;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use Encode qw(encode_utf8);
use JSON::PP;
use Test::More;
use Time::HiRes qw(sleep time);

binmode $_, ':utf8' for Test::More->builder->output,
                        Test::More->builder->failure_output;

# what is looked for is plain; what is around it needs escapes in JSON
my $mark = 'Qk7Zt9Wm';
my $secret = "$mark\"\\/ü🔑$mark";

my $dead = free_port();
my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;

my %agents = (tthree => 'attempts 3; timeout 5s;',
              ttwo => 'attempts 2; timeout 400ms;',
              tone => 'attempts 1; timeout 5s;',
              toff => 'attempts 2; timeout 5s; trace off;',
              tsmall => 'attempts 2; timeout 5s; trace 300;',
              tzero => 'attempts 1; timeout 5s; trace 0;',
              tlarge => 'attempts 1; timeout 5s; trace 1m; max_answer 8m;',
              tauto => 'attempts 2; timeout 5s; run auto; max_steps 2;',
              tslow => 'attempts 3; timeout 100s;',
              traw => 'pass /raw/; attempts 1; timeout 5s;',
              tbad => 'pass /bad/; attempts 1; timeout 5s;',
              tsafe => 'attempts 2; timeout 5s;',
              tclip => 'attempts 2; timeout 5s; trace 900;',
              tdead => 'pass /dead/; attempts 1; timeout 5s;',
              tnone => 'pass /none/; attempts 1; timeout 5s;');

my $server = "        location /dead/ { internal; "
    . "proxy_pass http://127.0.0.1:$dead; }\n"
    . "        location /none/ { internal; return 404; }\n"
    . "        location /raw/ { internal; default_type application/json; "
    . "return 400 '{\"error\":{\"message\":\"tab\\there\"}}'; }\n"
    . "        location /bad/ { internal; error_page 418 =500 /bytes; "
    . "return 418; }\n"
    . "        location = /bytes { internal; alias %DIR%/bytes; }\n"
    . "        location /open/ { agent_pass tone; }\n"
    . "        location ~ ^/open/tasks/[^/]+/steps/[^/]+/trace\$ { "
    . "deny all; agent_pass tone; }\n";

my @conf = (pg => $pg, llm => $llm, agents => \%agents, server => $server,
            artifacts => scratch() . '/artifacts',
            http => "    log_format steps escape=json '{\"id\":\"\$agent_id\","
            . "\"tenant\":\"\$agent_tenant\",\"task\":\"\$agent_task_id\","
            . "\"step\":\"\$agent_step_id\",\"status\":\"\$agent_step_status\","
            . "\"attempt\":\"\$agent_attempt\",\"in\":\"\$agent_tokens_in\","
            . "\"out\":\"\$agent_tokens_out\",\"code\":\"\$status\","
            . "\"method\":\"\$request_method\"}';\n"
            . "    access_log %DIR%/steps.log steps;");
my $nginx = AgentTest::Nginx->new(level => 'debug', no_start => 1,
                                  conf => conf(@conf));

write_file($nginx->dir . '/bytes', "\x{ff}\x{fe}no\0text\x{c3}\x{28}");
$nginx->start;
on_record($nginx, $pg);


sub trace_of {
    my ($at, $task, $step, %o) = @_;
    return $nginx->get("$at/tasks/$task/steps/$step/trace", %o);
}


# Runs one step of a task of its own: its answer and its trace.

sub traced {
    my ($at, $input, %o) = @_;

    my $task = make_task($nginx, $input, at => $at);
    my $r = run_step($nginx, $task, {}, at => $at, %o);
    my $id = $r->{json}{step_id} // die "no step: $r->{status} $r->{body}";
    my $t = trace_of($at, $task, $id);
    is($t->{status}, 200, "$input: there is a trace") or diag $t->{body};
    return ($r, $t->{json}, $task, $id);
}


# What every attempt of ours must say.

sub well_formed {
    my ($name, @attempts) = @_;

    my @keys = qw(attempt started_at queued_ms call upstream connect_ms
                  first_byte_ms first_token_ms done_ms span_id status request
                  request_bytes answer answer_bytes truncated tokens_in
                  tokens_out error);
    my $last = '';
    for my $try (@attempts) {
        is(join(' ', grep { !exists $try->{$_} } @keys), '',
           "$name: an attempt has all members");
        like($try->{started_at}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/,
             "$name: when it started");
        cmp_ok($try->{started_at}, 'ge', $last, "$name: one after the other");
        $last = $try->{started_at};

        my @times = grep { defined }
                    @$try{qw(connect_ms first_byte_ms first_token_ms done_ms)};
        is(join(' ', @times), join(' ', sort { $a <=> $b } @times),
           "$name: its times are in order");
        is(scalar(grep { !/^\d+$/ } @times), 0, "$name: and whole numbers");
    }
}


# One attempt -----------------------------------------------------------------

{
    my ($r, $t, $task, $id) = traced('/x/tthree', 'one call, please');
    is($r->{status}, 200, 'one attempt: the step is answered');
    is($t->{task_id}, $task, 'the trace names the task');
    is($t->{step_id}, $id, 'and the step');
    is($t->{agent}, 'tthree', 'and the agent');
    is($t->{status}, 'completed', 'and the status');
    is($t->{traceparent}, undef, 'no traceparent was given');
    like($t->{$_}, qr/^\d{4}-\d\d-\d\dT[\d:.]{12}Z$/, "$_ is a time")
        for qw(created_at ended_at);

    my ($a, @more) = @{$t->{attempts}};
    is(scalar @more, 0, 'one attempt is one');
    well_formed('one', $a);
    is($a->{attempt}, 1, 'the first');
    is($a->{status}, 200, 'its status');
    is($a->{error}, undef, 'no error');
    is($a->{call}, 'POST /llm/v1/chat/completions', 'what was asked for');
    is($a->{upstream}, '127.0.0.1:' . $llm->port, 'whom it was sent to');
    ok(defined $a->{$_}, "its $_ is known")
        for qw(queued_ms connect_ms first_byte_ms first_token_ms done_ms);
    is($a->{span_id}, undef, 'no span');

    my ($call) = $llm->calls(qr/one call, please/);
    is($a->{request_bytes}, $call->{bytes}, 'all bytes that the LLM got');
    is_deeply(decode($a->{request})->{messages}, $call->{messages},
              'the request, word for word');
    like($a->{answer}, qr/\Adata: \{.*"one".*data: \[DONE\]\n\n\z/s,
         'the answer as it came');
    is($a->{answer_bytes}, length $a->{answer}, 'all of it');
    is($a->{truncated}, JSON::PP::false, 'nothing is cut');
    my $used = $r->{json}{additional_output}{usage};
    is("$a->{tokens_in} $a->{tokens_out}",
       "$used->{tokens_in} $used->{tokens_out}", 'its tokens');

    is(length encode_utf8($a->{request}), $call->{bytes},
       'no byte more or less');
    like($a->{request}, qr/"name":"ask_user"/, 'the tools are in it');

    # what all have in common is stored once, and nobody can pass for it
    my $kept = $pg->psql(
        "select trace from agent.step where step_id = '$id'");
    unlike($kept, qr/ask_user/, 'and not in the row');
    like($kept, qr{\\/[0-9a-f]{32}\\/"}, 'which has a mark for them');
    my ($short) = $kept =~ m{\\/([0-9a-f]{32})\\/};
    is($pg->psql("select count(*) from agent.trace_part where mark = "
                 . "'\\/$short\\/'"), 1, 'the mark is on record, once');

    for my $fake ("\\/$short\\/", "/$short/", "\\\\/$short\\\\/",
                  "\\\\\\/$short\\\\\\/", "\"\\/$short\\/\"", "\\/$short\\") {
        my (undef, $like) = traced('/x/tthree', "no mark: $fake");
        my $said = decode($like->{attempts}[0]{request});
        is($said->{messages}[0]{content}, "no mark: $fake",
           "$fake in a text stays what it is");
        is(scalar @{$said->{tools}}, 5, 'and the tools are there');
    }

    # the route
    my $path = "/x/tthree/tasks/$task/steps/$id/trace";
    my $head = $nginx->request(method => 'HEAD', path => $path);
    is($head->{status}, 200, 'HEAD');
    is($head->{body}, '', 'has no body');
    for my $method (qw(POST DELETE PUT OPTIONS)) {
        my $no = $nginx->request(method => $method, path => $path);
        is($no->{status}, 405, "$method is not allowed");
        is($no->{headers}{allow}, 'GET, HEAD', "$method: what is");
    }
    is($nginx->get("$path/more")->{status}, 404, 'nothing is below it');
    is($nginx->get("$path/")->{status}, 404, 'nor behind a slash');
    is($nginx->get("/x/tthree/tasks/$task/artifacts/$id/trace")->{status}, 404,
       'an artifact has none');

    my $other = make_task($nginx, 'another task');
    my $no_id = '01234567-89ab-7def-8123-456789abcdef';
    for my $p ("/x/tthree/tasks/$other/steps/$id/trace",
               "/x/tthree/tasks/$task/steps/$no_id/trace",
               "/x/tthree/tasks/$no_id/steps/$id/trace",
               "/x/tthree/tasks/$task/steps/none/trace")
    {
        my $no = $nginx->get($p);
        is($no->{status}, 404, 'unknown: 404');
        like($no->{json}{message} // '', qr/\w/, 'which says so');
    }

    # a location of its own, for those who may review
    my $steps = "/open/tasks/$task/steps";
    is($nginx->get("$steps/$id")->{status}, 200, 'the step may be seen');
    is($nginx->get("$steps/$id/trace")->{status}, 403, 'the trace may not');
}


# Three attempts --------------------------------------------------------------

{
    # a script whose first two answers go wrong in two ways
    my ($r, $t) = traced('/x/tthree', 'thrice [[http:429:1+http:500:2]]');
    is($r->{status}, 200, 'three attempts: answered') or diag $r->{body};
    my @a = @{$t->{attempts}};
    is(join(' ', map { $_->{attempt} } @a), '1 2 3', 'three attempts');
    is(join(' ', map { $_->{status} } @a), '429 500 200', 'as they went');
    well_formed('three', @a);
    like($a[0]{error}, qr/429: fake error 429/, 'why the first failed');
    like($a[1]{error}, qr/500: fake error 500/, 'why the second');
    is($a[2]{error}, undef, 'the third did not');
    like($a[0]{answer}, qr/\A\{"error":\{.*fake error 429/,
         'what the first was answered');
    is($a[0]{request}, $a[2]{request}, 'all asked the same');
    is($a[0]{tokens_in}, undef, 'a call that failed has no tokens');
    cmp_ok($a[1]{queued_ms}, '>=', 500, 'the second had to wait');
    cmp_ok($a[2]{queued_ms}, '>=', 1000, 'the third longer');

    my $step = $pg->psql("select trace from agent.step where step_id = "
                         . "'$t->{step_id}'");
    is(scalar @{decode("[$step]")}, 3, 'that is what is on record');
}


# Put back into the queue between two attempts.

{
    my $task = make_task($nginx, 'put back [[http:429:1:3]]',
                         at => '/x/tthree');
    my $c = $nginx->connect;
    $c->send(method => 'POST', path => "/x/tthree/tasks/$task/steps",
             body => {});
    ok(poll_until(sub { $pg->psql("select count(*) from agent.queue where "
       . "task_id = '$task'") == 1 }), 'a long pause is spent in the queue');
    my $id = $nginx->get("/x/tthree/tasks/$task/steps")
             ->{json}{steps}[0]{step_id};
    my $t = trace_of('/x/tthree', $task, $id)->{json};
    is($t->{status}, 'created', 'it waits');
    is($t->{ended_at}, undef, 'and has not ended');
    is(join(' ', map { $_->{status} } @{$t->{attempts}}), '429',
       'the attempt so far is there');
    is($c->answer->{status}, 200, 'it is answered');
    my @a = @{trace_of('/x/tthree', $task, $id)->{json}{attempts}};
    is(join(' ', map { "$_->{attempt}:$_->{status}" } @a), '1:429 2:200',
       'and both are, later');
    is($a[1]{queued_ms}, undef, 'who claims it does not know since when');
    well_formed('put back', @a);
}


# What goes wrong -------------------------------------------------------------

{
    my ($r, $t) = traced('/x/ttwo', 'silent [[hang:1]]');
    is($r->{status}, 200, 'a time-out: answered by the second call');
    my @a = @{$t->{attempts}};
    is(scalar @a, 2, 'time-out: two attempts');
    well_formed('time-out', @a);
    is($a[0]{status}, undef, 'the first had no status');
    like($a[0]{error}, qr/timed out/, 'and says why');
    ok(defined $a[0]{connect_ms}, 'it was connected');
    is($a[0]{$_}, undef, "$_ is not known") for qw(first_byte_ms
                                                   first_token_ms answer);
    cmp_ok($a[0]{done_ms}, '>=', 400, 'it took as long as the timeout');

    ($r, $t) = traced('/x/tthree', 'broken off in the middle [[cut:1]]');
    @a = @{$t->{attempts}};
    is(join(' ', map { $_->{status} } @a), '200 200', 'a cut stream');
    well_formed('cut', @a);
    like($a[0]{error}, qr/answer/, 'why it was no good');
    like($a[0]{answer}, qr/\Adata: \{"choices"/, 'as much of it as came');
    unlike($a[0]{answer}, qr/DONE/, 'and no more');
    is($a[0]{truncated}, JSON::PP::false, 'which was not cut by us');
    like($a[1]{answer}, qr/DONE/, 'the second is whole');

    ($r, $t) = traced('/x/tdead', 'nobody there');
    is($r->{status}, 502, 'nobody listens');
    @a = @{$t->{attempts}};
    well_formed('dead', @a);
    is($t->{status}, 'failed', 'it failed');
    is($a[0]{upstream}, "127.0.0.1:$dead", 'where');
    is($a[0]{connect_ms}, undef, 'there was no connection');
    like($a[0]{error}, qr/could not be reached/, 'it is said so');

    ($r, $t) = traced('/x/tnone', 'no upstream');
    @a = @{$t->{attempts}};
    well_formed('none', @a);
    is($a[0]{upstream}, undef, 'no upstream at all');
    is($a[0]{status}, 404, 'and its answer');

    ($r, $t) = traced('/x/traw', 'a tab');
    is($t->{attempts}[0]{answer}, "{\"error\":{\"message\":\"tab\there\"}}",
       'a control character comes through');

    ($r, $t) = traced('/x/tbad', 'bytes');
    my $a = $t->{attempts}[0];
    is($a->{status}, 500, 'bytes that are no text');
    is($a->{answer}, "\x{fffd}\x{fffd}no\x{fffd}text\x{fffd}(",
       'are shown as such');
    is($a->{answer_bytes}, 11, 'and counted');
    unlike($pg->psql("select trace from agent.step where step_id = "
                     . "'$t->{step_id}'"), qr/u0000/, 'no NUL is stored');

    # a step that never came so far
    my $task = make_task($nginx, 'cancelled [[http:429:1:60]]',
                         at => '/x/tthree');
    run_step($nginx, $task, {}, at => '/x/tthree',
             headers => { Prefer => 'respond-async' });
    poll_until(sub { $pg->psql("select count(*) from agent.queue where "
                     . "task_id = '$task'") == 1 });
    $nginx->post("/x/tthree/tasks/$task/cancel", {});
    my $id = $nginx->get("/x/tthree/tasks/$task/steps")
             ->{json}{steps}[0]{step_id};
    $t = trace_of('/x/tthree', $task, $id)->{json};
    is($t->{status}, 'cancelled', 'cancelled');
    is(scalar @{$t->{attempts}}, 1, 'and its attempt is still there');
}


# How much is kept ------------------------------------------------------------

{
    my ($r, $t) = traced('/x/toff', 'no trace [[http:500:1]]');
    is($r->{status}, 200, 'trace off: answered');
    is_deeply($t->{attempts}, [], 'and nothing is kept');
    ($r, $t) = traced('/x/tzero', 'none either');
    is_deeply($t->{attempts}, [], 'trace 0 is the same');

    my $words = 'word ' x 400;
    ($r, $t) = traced('/x/tsmall', "$words [[http:500:1]]");
    is($r->{status}, 200, 'trace 300: answered');
    is($r->{json}{output} =~ s/\s+\z//r, $words =~ s/\s+\z//r,
       'the answer is whole');
    my @a = @{$t->{attempts}};
    well_formed('small', @a);
    is(join(' ', map { length $_->{request} } @a), '300 300',
       'the request is cut');
    is(length $a[1]{answer}, 300, 'and the answer');
    ok($a[1]{answer_bytes} > 1000 && $a[1]{request_bytes} > 1000,
       'how long they were is told');
    is(join(' ', map { $_->{truncated} ? 1 : 0 } @a), '1 1',
       'and that they are cut');

    # a character is not cut in half
    for my $n (0 .. 3) {
        ($r, $t) = traced('/x/tsmall', 'x' x $n . '🔑' x 200);
        unlike($t->{attempts}[0]{request}, qr/\x{fffd}/, "cut at $n: whole");
        like($t->{attempts}[0]{request}, qr/🔑\z/, "cut at $n: characters");
    }

    ($r, $t) = traced('/x/tlarge', 'much [[huge:4]]');
    is(length $r->{json}{output}, 4 << 20, 'four megabytes');
    @a = @{$t->{attempts}};
    cmp_ok($a[0]{answer_bytes}, '>', 4 << 20, 'as many came');
    is(length $a[0]{answer}, 1 << 20, 'one is kept');

    ($r, $t) = traced('/x/tthree', 'default ' . 'y' x 20000);
    is(length $t->{attempts}[0]{request}, 16384, '16k by default');
}

for (['trace 2m;', qr/"off" or a size from 0 to 1m/],
     ['trace on;', qr/"off" or a size from 0 to 1m/],
     ['trace 1k; trace off;', qr/is duplicate/],
     ['trace;', qr/number of arguments/])
{
    my ($line, $like) = @$_;
    my ($code, $said) = $nginx->test_conf(
        conf(@conf, agents => { %agents, wrong => $line }));
    isnt($code, 0, "$line is refused");
    like($said, $like, "$line: and says why");
}

for my $line ('trace 1m;', 'trace 0;', 'trace off;', 'trace 1;') {
    my ($code, $said) = $nginx->test_conf(
        conf(@conf, agents => { %agents, right => $line }));
    is($code, 0, "$line is taken") or diag $said;
}


# Secrets ---------------------------------------------------------------------

# The longest piece of the secret in a text.

sub leaks {
    my ($text) = @_;
    my ($longest, $n) = ('', 0);
    for my $i (0 .. length($mark) - 2) {
        for my $len (2 .. length($mark) - $i) {
            my $part = substr $mark, $i, $len;
            ($longest, $n) = ($part, $len)
                if $len > $n && index($text, $part) >= 0;
        }
    }
    return $longest;
}


# A task that asks for a secret, then does what the script says; the trace of
# the step that had the secret.

sub confided {
    my ($name, $at, @then) = @_;

    my $script = JSON::PP->new->canonical->encode([
        { calls => [[ask_user => { question => 'The key?',
                                   secret => JSON::PP::true }]] }, @then]);
    my $task = make_task($nginx, "$name [[$script]]", at => $at);
    my $r = run_step($nginx, $task, {}, at => $at);
    is($r->{json}{status}, 'waiting_for_input', "$name: it asks");
    $r = run_step($nginx, $task, { input => $secret }, at => $at);
    my $t = trace_of($at, $task, $r->{json}{step_id});
    is($t->{status}, 200, "$name: there is a trace") or diag $t->{body};
    unlike($t->{body}, qr/\Q$mark\E/, "$name: no secret in it");
    cmp_ok(length leaks($t->{body}), '<', 3, "$name: nor in pieces");
    is($pg->psql("select count(*) from agent.step where trace like "
                 . "'%$mark%'"), 0, "$name: nor in the database");
    return ($r, $t->{json});
}

{
    my ($r, $t) = confided('said again', '/x/tsafe',
        { content => 'You said %ANSWER%.',
          calls => [[remember => { what => '%ANSWER%' }]], wire => 'split:3' });
    is($r->{status}, 200, 'a secret: answered');
    my $a = $t->{attempts}[0];
    well_formed('secret', $a);
    like($a->{request}, qr/\[redacted\]/, 'the request has a mark for it');
    like($a->{request}, qr/The key\?/, 'and all else');
    my $said = decode(encode_utf8($a->{answer}));
    is($said->[0]{content}, 'You said [redacted].',
       'the answer is what was made of the pieces');
    is($said->[0]{tool_calls}[0]{function}{arguments},
       '{"what":"[redacted]"}', 'calls as well');

    # no stream: one piece, but also put together by its reader
    ($r, $t) = confided('as one', '/x/tsafe',
        { content => '%ANSWER%', wire => 'json' });
    like($t->{attempts}[0]{answer}, qr/\[redacted\]/, 'plain JSON, too');

    # refused in its words; a stream that ends in the middle
    ($r, $t) = confided('refused', '/x/tsafe', 'quote:1');
    $a = $t->{attempts}[0];
    is($a->{status}, 400, 'refused');
    like($a->{answer}, qr/this is no good: \[redacted\]/,
         'the refusal has a mark');
    like($a->{error}, qr/this is no good: \[redacted\]/, 'and the error');

    ($r, $t) = confided('broken off', '/x/tsafe',
        { content => "it is %ANSWER%", wire => 'cut:1' });
    is($r->{status}, 200, 'a cut stream: the second is answered')
        or diag $r->{body};
    is($t->{attempts}[0]{answer}, '[redacted]', 'nothing is kept of it');
    like($t->{attempts}[1]{answer}, qr/it is \[redacted\]/,
         'but of the second');
}

# At the cut: the secret begins at every place around it.
# The request of a step whose input is the secret, behind so much padding.

sub padded {
    my ($at, $pad) = @_;
    my $script = encode([{ calls => [[ask_user => { question => '?',
        secret => JSON::PP::true }]] }, { content => 'ok' }]);
    my $task = make_task($nginx, 'p' x $pad . " [[$script]]", at => $at);
    run_step($nginx, $task, {}, at => $at);
    my $r = run_step($nginx, $task, { input => $secret }, at => $at);
    my $t = trace_of($at, $task, $r->{json}{step_id})->{json};
    return $t->{attempts}[0]{request};
}

{
    my $at = index padded('/x/tsafe', 1), '[redacted]';
    my (@seen, $marks);

    for my $before (-12 .. 40) {
        my $kept = padded('/x/tclip', 1 + 900 - $before - $at);
        my $leak = leaks($kept);
        push @seen, "$before: $leak" if length $leak;
        push @seen, "$before: " . length $kept if length $kept > 900;
        $marks++ if $kept =~ /\[redacted\]/;
    }
    is(join(', ', @seen), '', 'no part of a secret at the cut');
    ok($marks, 'the cut was where the secret is');
}


# traceparent -----------------------------------------------------------------

my $trace_id = '0af7651916cd43dd8448eb211c80319c';
my $parent = "00-$trace_id-b7ad6b7169203331-01";

sub parents {
    my ($pattern) = @_;
    return map { $_->{headers}{traceparent} // '-' } $llm->calls($pattern);
}

{
    # of the step
    my $task = make_task($nginx, 'with a parent [[http:500:1]]',
                         at => '/x/tthree');
    my $r = run_step($nginx, $task, {}, at => '/x/tthree',
                     headers => { Traceparent => $parent,
                                  tracestate => 'vendor=1' });
    is($r->{status}, 200, 'traceparent: answered');
    my $t = trace_of('/x/tthree', $task, $r->{json}{step_id})->{json};
    is($t->{traceparent}, $parent, 'it is kept');
    my @sent = parents(qr/with a parent/);
    is(scalar @sent, 2, 'two calls');
    like($_, qr/\A00-$trace_id-[0-9a-f]{16}-01\z/, 'each is of the trace')
        for @sent;
    isnt($sent[0], $parent, 'as a span of its own');
    isnt($sent[0], $sent[1], 'and another for each');
    is(join(' ', map { "00-$trace_id-$_->{span_id}-01" } @{$t->{attempts}}),
       "@sent", 'which the trace names');
    my ($call) = $llm->calls(qr/with a parent/);
    is($call->{headers}{tracestate}, undef, 'tracestate is not kept');

    # the next step of that task has none
    run_step($nginx, $task, { input => 'no parent here' }, at => '/x/tthree');
    is(scalar(grep { $_ ne '-' } parents(qr/no parent here/)), 0,
       'the next one is not of it');
}

{
    # of the task, for steps that have none
    my $r = $nginx->post('/x/tthree/tasks', { input => 'of the task' },
                         headers => { traceparent => $parent });
    my $task = $r->{json}{task_id};
    is($pg->psql("select traceparent from agent.task where task_id = '$task'"),
       $parent, 'kept with the task');
    $r = run_step($nginx, $task, {}, at => '/x/tthree');
    my ($sent) = parents(qr/of the task/);
    like($sent, qr/\A00-$trace_id-(?!b7ad6b7169203331)[0-9a-f]{16}-01\z/,
         'its steps are of the trace');
    is(trace_of('/x/tthree', $task, $r->{json}{step_id})->{json}{traceparent},
       $parent, 'and say so');

    my $own = '00-11111111111111111111111111111111-2222222222222222-00';
    run_step($nginx, $task, { input => 'its own' }, at => '/x/tthree',
             headers => { traceparent => $own });
    like((parents(qr/its own/))[0],
         qr/\A00-1{32}-[0-9a-f]{16}-00\z/, 'a step may have its own');

    # a task whose steps come by themselves
    my $script = encode([{ calls => [[list_artifacts => {}]] },
                         { content => 'done' }]);
    $r = $nginx->post('/x/tauto/tasks',
                      { input => "by itself [[$script]]" },
                      headers => { traceparent => $parent });
    $task = $r->{json}{task_id};
    ok(poll_until(sub { $pg->psql("select count(*) from agent.step where "
       . "task_id = '$task' and status = 2") == 2 }), 'run auto: two steps');
    is(scalar(grep { /\A00-$trace_id-[0-9a-f]{16}-01\z/ }
              parents(qr/by itself/)), 2, 'both are of the trace');
    is($pg->psql("select count(*) from agent.step where task_id = '$task' "
                 . "and trace is not null"), 2, 'and both have one of ours');
}

{
    # through the queue, and of a later version
    my $task = make_task($nginx, 'later version [[http:429:1:3]]',
                         at => '/x/tthree');
    run_step($nginx, $task, {}, at => '/x/tthree', headers => {
        traceparent => "cc-$trace_id-b7ad6b7169203331-ff-what-comes" });
    my @sent = parents(qr/later version/);
    is(scalar @sent, 2, 'from the queue');
    like($_, qr/\A00-$trace_id-[0-9a-f]{16}-01\z/, 'a later version is known')
        for @sent;
}

my $bad = 0;
for my $value ('', 'x', "00-$trace_id-b7ad6b7169203331",
             "00-$trace_id-b7ad6b7169203331-01-x",
             "ff-$trace_id-b7ad6b7169203331-01",
             "00-" . uc($trace_id) . "-b7ad6b7169203331-01",
             '00-' . '0' x 32 . '-b7ad6b7169203331-01',
             "00-$trace_id-0000000000000000-01",
             "00-$trace_id-b7ad6b7169203331-0g",
             "$parent\r\nTraceparent: $parent")
{
    my $name = 'bad parent ' . ++$bad;
    my $task = make_task($nginx, $name, at => '/x/tthree');
    my $r = run_step($nginx, $task, {}, at => '/x/tthree',
                     headers => { traceparent => $value });
    is($r->{status}, 200, "$name: is ignored") or diag $r->{body};
    is(join(' ', parents(qr/"\Q$name\E"/)), '-', "$name: none is sent");
    is($pg->psql("select traceparent is null from agent.step where task_id = "
                 . "'$task'"), 't', "$name: none is kept");
}

{
    # somebody has written something into the row
    my $task = make_task($nginx, 'by hand', at => '/x/tthree');
    $pg->psql("update agent.task set traceparent = E'00-x\\r\\nX-Evil: 1' "
              . "where task_id = '$task'");
    my $r = run_step($nginx, $task, {}, at => '/x/tthree');
    is($r->{status}, 200, 'a row that was changed by hand');
    my ($call) = $llm->calls(qr/by hand/);
    is($call->{headers}{'x-evil'} // $call->{headers}{traceparent}, undef,
       'injects nothing');
}


# Elsewhere -------------------------------------------------------------------

{
    # posted here, run by another nginx
    my $accept = AgentTest::Nginx->new(conf => conf(@conf,
        main => '', http => "    agent_run off;\n    access_log off;"));
    my $r = $accept->post('/x/tthree/tasks', { input => 'run elsewhere' });
    my $task = $r->{json}{task_id};
    $r = $accept->post("/x/tthree/tasks/$task/steps", {}, headers => {
        Prefer => 'respond-async', traceparent => $parent });
    is($r->{status}, 202, 'accepted by one nginx');
    my $path = "/x/tthree/tasks/$task/steps/$r->{json}{step_id}";
    $r = $accept->get($path, headers => { Prefer => 'wait=10' });
    is($r->{json}{status}, 'completed', 'run by another');
    my $t = $accept->get("$path/trace")->{json};
    is(scalar @{$t->{attempts}}, 1, 'the first shows the trace');
    well_formed('elsewhere', @{$t->{attempts}});
    ok(defined $t->{attempts}[0]{queued_ms}, 'with its time in the queue');
    is($t->{traceparent}, $parent, 'and the traceparent');
    like((parents(qr/run elsewhere/))[0],
         qr/\A00-$trace_id-[0-9a-f]{16}-01\z/, 'which the LLM got');
    $accept->finish;
}

# Taken over: the first attempt failed, the second's worker is killed.

{
    my $task = make_task($nginx, 'taken over [[http:500:1+hang:2]]',
                         at => '/x/tslow');
    my $c = $nginx->connect;
    $c->send(method => 'POST', path => "/x/tslow/tasks/$task/steps",
             body => {});
    my $id;
    ok(poll_until(sub {
        $id = $pg->psql("select step_id from agent.step where task_id = "
                        . "'$task' and attempt = 2");
        $id && 2 == (() = $llm->started($id));
    }), 'the second call hangs');
    my $t = trace_of('/x/tslow', $task, $id)->{json};
    is($t->{status}, 'running', 'it runs');
    is(join(' ', map { $_->{status} } @{$t->{attempts}}), '500',
       'the first attempt is on record');

    my ($pid) = $nginx->workers;
    kill 'KILL', $pid;
    $c->close;
    ok(poll_until(sub { $pg->psql("select status from agent.step where "
       . "step_id = '$id'") eq '2' }, 30), 'another worker ends it');
    my @a = @{trace_of('/x/tslow', $task, $id)->{json}{attempts}};
    is(join(' ', map { $_->{attempt} } @a), '1 2 3', 'three attempts');
    like($a[1]{error}, qr/its worker .* is gone/, 'the second says why');
    is(join(' ', map { $_->{status} // '-' } @a), '500 - 200',
       'the earlier ones are kept');
}

# Handed back: an old worker that must go.

{
    my $old = AgentTest::Nginx->new(conf => conf(@conf,
        main => 'worker_shutdown_timeout 3s;', http => '    access_log off;',
        agents => { %agents, thand => 'attempts 2; timeout 100s;' }));
    on_record($old, $pg);
    my $task = make_task($old, 'handed back [[hang:1]]', at => '/x/thand');
    my $c = $old->connect;
    $c->send(method => 'POST', path => "/x/thand/tasks/$task/steps",
             body => {});
    my $id;
    ok(poll_until(sub {
        $id = $pg->psql("select step_id from agent.step where task_id = "
                        . "'$task'");
        $id && (() = $llm->started($id));
    }), 'a call hangs');
    my $pid = $old->{pid};
    kill 'HUP', $pid;
    ok(poll_until(sub { $pg->psql("select status from agent.step where "
       . "step_id = '$id'") eq '2' }, 30), 'a reload hands it back');
    my @a = @{$old->get("/x/thand/tasks/$task/steps/$id/trace")
              ->{json}{attempts}};
    is(scalar @a, 2, 'both calls are in the trace');
    well_formed('handed back', @a);
    is(join(' ', map { $_->{attempt} } @a), '1 1',
       'the first one did not count');
    like($a[0]{error}, qr/gave the step back/, 'and says why');
    $c->close;
    $old->finish;
}


# The access log --------------------------------------------------------------

# The lines of so many requests about a task.

sub logged {
    my ($task, $method, $n) = @_;
    my @found;
    poll_until(sub {
        @found = grep { $_->{task} eq $task && $_->{method} eq $method }
                 map { decode($_) } split /\n/,
                 read_file($nginx->dir . '/steps.log');
        @found >= $n;
    });
    return @found;
}

{
    my $task = make_task($nginx, 'logged', at => '/x/tthree');
    my $r = run_step($nginx, $task, {}, at => '/x/tthree');
    my $used = $r->{json}{additional_output}{usage};
    my ($made, $step) = logged($task, 'POST', 2);
    is($made->{id}, 'tthree', 'a task in the log: its agent');
    is($made->{step} . $made->{status} . $made->{attempt}, '',
       'and nothing of a step');
    is_deeply($step, { id => 'tthree', tenant => '', task => $task,
        step => $r->{json}{step_id}, status => 'completed', attempt => '1',
        in => "$used->{tokens_in}", out => "$used->{tokens_out}",
        code => '200', method => 'POST' }, 'a step in the log');

    trace_of('/x/tthree', $task, $r->{json}{step_id});
    my ($get) = logged($task, 'GET', 1);
    is("$get->{id} $get->{status} $get->{attempt} $get->{in}",
       "tthree completed 1 $used->{tokens_in}", 'who reads its trace, too');

    $task = make_task($nginx, 'logged async', at => '/x/tthree');
    $r = run_step($nginx, $task, {}, at => '/x/tthree',
                  headers => { Prefer => 'respond-async' });
    (undef, $step) = logged($task, 'POST', 2);
    is($step->{step}, $r->{json}{step_id}, 'an async one: its id');
    is("$step->{id} $step->{status} $step->{attempt} $step->{code}",
       'tthree running 1 202', 'as it was then');

    $task = make_task($nginx, 'logged error [[http:500:1+http:400:2]]',
                      at => '/x/tthree');
    $r = run_step($nginx, $task, {}, at => '/x/tthree');
    (undef, $step) = logged($task, 'POST', 2);
    is("$step->{id} $step->{step} $step->{status} $step->{attempt} "
       . "$step->{in} $step->{out} $step->{code}",
       "tthree $r->{json}{step_id} failed 2 0 0 502", 'one that failed');

    $r = $nginx->post('/x/tthree/tasks/none/steps', {});
    is($r->{status}, 404, 'no such task');
    my $last;
    ok(poll_until(sub {
        ($last) = reverse map { decode($_) } split /\n/,
                  read_file($nginx->dir . '/steps.log');
        $last->{code} eq '404';
    }), 'is logged');
    is("$last->{task}$last->{step}$last->{status}$last->{attempt}", '',
       'with none');
}

unlike($nginx->log_text, qr/\Q$mark\E/, 'no secret in the error log');
$nginx->finish(but => qr/exited on signal 9|"trace" directive/);
done_testing();
