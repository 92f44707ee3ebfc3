#!/usr/bin/perl

# An LLM that is slow, gone, cut off or talks rubbish; a client that goes
# away; a reload in the middle: each ends in a stored step that says what
# happened, after as many calls as "attempts" allows.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use JSON::PP;
use Test::More;
use Time::HiRes qw(sleep time);

my $dead = free_port();
my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $nginx = AgentTest::Nginx->new(conf => conf(
    pg => $pg, llm => $llm, workers => 2,
    agents => { two => 'attempts 2; timeout 1s;',
                one => 'attempts 1; timeout 20s;',
                long => 'attempts 3; timeout 20s; max_answer 250m;',
                refused => 'pass /dead/; attempts 2;',
                nowhere => 'pass /none/; attempts 2;',
                small => 'max_answer 100k; attempts 2; timeout 20s;' },
    server => "        location /dead/ { internal; "
              . "proxy_pass http://127.0.0.1:$dead; }\n"
              . "        location /none/ { internal; return 404; }"));


# Runs a step of a task of its own for each, all at once; by behaviour.

sub run_all {
    my ($at, @behaviours) = @_;

    my (%c, %r, %start);
    for my $b (@behaviours) {
        my $id = make_task($nginx, "fault <$b> [[$b]]", at => $at);
        $c{$b} = $nginx->connect(seconds => 40);
        $start{$b} = time;
        $c{$b}->send(method => 'POST', path => "$at/tasks/$id/steps",
                     body => {});
        $r{$b} = { task => $id };
    }
    for my $b (@behaviours) {
        $r{$b} = { %{$r{$b}}, %{$c{$b}->answer}, seconds => time - $start{$b} };
        $c{$b}->close;
    }
    return \%r;
}


sub calls {
    my ($b) = @_;
    my $n = 0;
    # a call that was cut off by us is logged when the fake has noticed
    poll_until(sub { ($llm->stats->{active} || 0) == 0 }, 3);
    $n++ for $llm->calls(qr/\Q<$b>\E/);
    return $n;
}


# What endpoints do a little differently is no fault: one call.

{
    my @fine = qw(echo+crlf echo+comments echo+nodone echo+nousage
                  echo+nullcontent echo+json echo+bytes echo+close
                  echo+json+nousage echo+crlf+comments+bytes echo+drip:300
                  echo+delay:500 echo+crlf+nodone+nousage+close);
    my $r = run_all('/x/two', @fine);

    for my $b (@fine) {
        is($r->{$b}{status}, 200, "$b: is an answer") or diag $r->{$b}{body};
        is($r->{$b}{json}{output}, "fault <$b>", "$b: the whole one");
        is(calls($b), 1, "$b: by one call");
    }
    my $out = $r->{'echo+nousage'}{json}{additional_output};
    ok(defined $r->{'echo+crlf'}{json}{additional_output}{usage},
       'usage is told');
}


# Once wrong, then right: tried again within "attempts".

{
    my @once = ('http:429:1', 'http:500:1', 'http:503:1', 'http:502:1',
                'cut:1', 'cutclean:1', 'drop:1', 'hang:1', 'hangmid:1',
                'html:1', 'notjson:1', 'badsse:1', 'badtype:1', 'empty:1',
                'badhttp:1', 'short:1', 'http:429:1:2');
    my $r = run_all('/x/two', @once);

    for my $b (@once) {
        is($r->{$b}{status}, 200, "$b: got over") or diag $r->{$b}{body};
        is($r->{$b}{json}{output}, "fault <$b>", "$b: the whole answer");
        is(calls($b), 2, "$b: by two calls");
    }
    cmp_ok($r->{'http:429:1:2'}{seconds}, '>=', 2, 'Retry-After was heeded');
}


# Wrong for good: stored as failed, with the reason.

{
    my %fault = (
        'http:429' => [502, 2, qr/429/], 'http:500' => [502, 2, qr/500/],
        'http:503' => [502, 2, qr/503/], 'http:400' => [502, 1, qr/400/],
        'http:401' => [502, 1, qr/401/], 'http:404' => [502, 1, qr/404/],
        'cut' => [502, 2], 'cutclean' => [502, 2], 'drop' => [502, 2],
        'hang' => [504, 2, qr/time|timed|within|silent/i],
        'hangmid' => [504, 2, qr/time|timed|within|silent/i],
        'html' => [502, 2], 'notjson' => [502, 2], 'badsse' => [502, 2],
        'badtype' => [502, 2], 'empty' => [502, 2], 'badhttp' => [502, 2],
        'short' => [502, 2],
        'errorevent' => [502, undef, qr/the fake is overloaded/],
    );
    my $r = run_all('/x/two', sort keys %fault);

    for my $b (sort keys %fault) {
        my ($status, $n, $like) = @{$fault{$b}};
        my $got = $r->{$b};
        is($got->{status}, $status, "$b: status") or diag $got->{body};
        like($got->{json}{message} // '', $like || qr/\w+ \w+ \w+/,
             "$b: the message says why");
        is(calls($b), $n, "$b: calls") if $n;

        my $id = $got->{json}{step_id} // 'none';
        my $step = $nginx->get("/x/two/tasks/$got->{task}/steps/$id")->{json};
        is($step->{status}, 'failed', "$b: stored as failed");
        like($step->{additional_output}{error} // '', $like || qr/\w+ \w+/,
             "$b: with the reason");
        is($step->{is_last}, JSON::PP::false, "$b: not the end of the task");

        my $more = $step->{additional_output};
        is($more->{code}, $status, "$b: with the status it was answered with");
        is($more->{attempts}, $n // 2, "$b: with the number of attempts");
        like($more->{error}, ($n // 2) == 2
             ? qr/^attempt 1: .+; attempt 2: .+/s : qr/^(?!attempt 1)/,
             "$b: the reason is the whole story");
        is($got->{json}{message}, $more->{error}, "$b: which the client gets")
            unless $got->{json}{message} =~ /\Q$more->{error}\E/;

        my $next = run_step($nginx, $got->{task}, { input => 'x [[text:ok]]' },
                            at => '/x/two');
        is($next->{json}{output}, 'ok', "$b: the next step goes on");
        isnt($next->{json}{step_id}, $id, "$b: as a new one");
    }
}


# What was said in a step that failed is not said twice, and is not lost.

sub heard {
    my ($pattern) = @_;
    my ($last) = reverse $llm->calls($pattern);
    return join ' | ', map { "$_->{role}: " . ($_->{content} // '-') =~
                             s/\s*\[\[.*//sr } @{$last->{messages}};
}

{
    my $at = '/x/two';
    my $id = make_task($nginx, 'unheard one', at => $at);
    my $input = { input => 'do this [[http:400:1]]' };
    is(run_step($nginx, $id, $input, at => $at)->{status}, 502, 'it fails');
    is(run_step($nginx, $id, $input, at => $at)->{status}, 200,
       'said again, it does not');
    is(heard(qr/unheard one/), 'user: unheard one | user: do this',
       'and was said once');

    $id = make_task($nginx, 'unheard two', at => $at);
    run_step($nginx, $id, { input => 'do that [[http:400]]' }, at => $at);
    run_step($nginx, $id, { input => 'and this [[echo]]' }, at => $at);
    is(heard(qr/unheard two/),
       'user: unheard two | user: do that | user: and this',
       'another input does not replace the one that failed');

    $id = make_task($nginx, 'unheard three', at => $at);
    run_step($nginx, $id, { input => 'do it [[http:400:1]]' }, at => $at);
    run_step($nginx, $id, {}, at => $at);
    is(heard(qr/unheard three/), 'user: unheard three | user: do it',
       'with no input, the one that failed counts');

    $id = make_task($nginx, 'unheard four', at => $at);
    my $c = $nginx->connect;
    $c->send(method => 'POST', path => "$at/tasks/$id/steps",
             body => { input => 'not that [[echo+delay:800]]' });
    sleep 0.2;
    is($nginx->post("$at/tasks/$id/cancel", {})->{status}, 200, 'cancelled');
    $c->close;
    run_step($nginx, $id, { input => 'but this [[echo]]' }, at => $at);
    is(heard(qr/unheard four/), 'user: unheard four | user: but this',
       'what was cancelled is not said');
}


# Cancelled in whatever a run is at: the upstream is closed, and no call is
# made any more.

{
    my $at = '/x/long';
    my @at = qw(hang hangmid echo+drip:300 echo+delay:5000 http:500
                http:429::1 huge:200);
    my (%task, %step, %c);

    for my $b (@at) {
        my $id = $task{$b} = make_task($nginx, "stop <$b> [[$b]]", at => $at);
        $c{$b} = $nginx->connect;
        $c{$b}->send(method => 'POST', path => "$at/tasks/$id/steps",
                     body => {});
    }
    for my $b (@at) {
        ok(poll_until(sub {
            my $all = $nginx->get("$at/tasks/$task{$b}/steps")->{json}{steps};
            $step{$b} = $all->[0]{step_id};
            $step{$b} && $llm->started($step{$b});
        }, 5), "$b: it runs");
    }
    sleep 0.15;
    for my $b (@at) {
        my $r = $nginx->post("$at/tasks/$task{$b}/cancel", {});
        is($r->{status}, 200, "$b: cancelled") or diag $r->{body};
    }
    my $cancelled = time;
    sleep 2;

    for my $b (@at) {
        my @calls = $llm->started($step{$b});
        is(scalar(grep { !$_->{end} || $_->{end} > $cancelled + 1.9 } @calls),
           0, "$b: the upstream is closed");
        is(scalar(grep { $_->{time} > $cancelled } @calls), 0,
           "$b: and not called again");
        my $step = $nginx->get("$at/tasks/$task{$b}/steps/$step{$b}")->{json};
        is($step->{status}, 'cancelled', "$b: it stays cancelled");
        isnt($c{$b}->answer(seconds => 3)->{status}, 0,
             "$b: who waited has an answer");
        $c{$b}->close;
    }
}


# Two questions in one answer have one answer, also when the LLM did not take
# it at once.

{
    my $at = '/x/two';
    my $script = encode([{ calls => [
        [ask_user => { question => 'Which colour?' }],
        [list_artifacts => {}],
        [ask_user => { question => 'Really?' }]] }, 'http:400:1']);
    my $id = make_task($nginx, "asked twice [[$script]]", at => $at);

    my $r = run_step($nginx, $id, {}, at => $at);
    is($r->{json}{status}, 'waiting_for_input', 'asked two things at once');
    is($r->{json}{output}, "Which colour?\n\nReally?", 'both are shown');

    $r = run_step($nginx, $id, { input => 'blue' }, at => $at);
    is($r->{status}, 502, 'the answer is not taken');
    $r = run_step($nginx, $id, { input => 'blue' }, at => $at);
    is($r->{status}, 200, 'the answer again') or diag $r->{body};
    is(heard(qr/asked twice/), 'user: asked twice | assistant: - | '
       . 'tool: there are no artifacts | tool: blue | tool: blue',
       'each question has it, once');
}


# No LLM at all; a location that has none; an answer without end.

for my $agent (qw(refused nowhere)) {
    my $id = make_task($nginx, "to $agent", at => "/x/$agent");
    my $r = run_step($nginx, $id, {}, at => "/x/$agent");
    is($r->{status}, 502, "$agent: status") or diag $r->{body};
    ok($r->{json}{step_id}, "$agent: the step is named");
    is($pg->psql("select status from agent.step where task_id = '$id'"), 4,
       "$agent: stored as failed");
}

for my $b ('huge:3', 'huge:3+json') {
    my $id = make_task($nginx, "huge <$b> [[$b]]", at => '/x/small');
    my $r = run_step($nginx, $id, {}, at => '/x/small');
    is($r->{status}, 502, "$b: an answer over max_answer");
    like($r->{json}{message} // '', qr/max_answer/, "$b: it is said so");
}


# The client goes away: the step goes on.

{
    my @ids;
    for my $ms (50, 200, 400) {
        my $id = make_task($nginx, "gone $ms [[echo+delay:900]]");
        my $c = $nginx->connect;
        $c->send(method => 'POST', path => "/agent/tasks/$id/steps",
                 body => {});
        sleep $ms / 1000;
        $c->close;
        push @ids, $id;
    }

    my $r = $nginx->get("/agent/tasks/$ids[2]/steps");
    is($r->{json}{steps}[0]{status}, 'running', 'the step is seen running');

    for my $id (@ids) {
        my $step;
        poll_until(sub {
            $step = $nginx->get("/agent/tasks/$id/steps")->{json}{steps}[0];
            ($step->{status} || '') eq 'completed';
        }, 5);
        is($step->{status}, 'completed', 'the client gone, the step is done');
        like($step->{output}, qr/^gone/, 'and has its answer');
    }
    is(scalar(grep { $_->{ended} ne 'ok' } $llm->calls('gone ')), 0,
       'the LLM said all it had to say');

    # a client that shuts its sending side and waits
    my $id = make_task($nginx, 'half closed [[echo+delay:300]]');
    my $c = $nginx->connect;
    $c->send(method => 'POST', path => "/agent/tasks/$id/steps", body => {});
    shutdown $c->{sock}, 1;
    $c->answer;
    ok(poll_until(sub { $pg->psql("select status from agent.step where "
       . "task_id = '$id'") eq '2' }, 5), 'a half-closed client: it is done');
}


# A reload: what runs is finished by the old worker.

{
    my @ids = map { make_task($nginx, "reload $_ [[echo+delay:1500]]") } 1 .. 4;
    my @c = map {
        my $c = $nginx->connect;
        $c->send(method => 'POST', path => "/agent/tasks/$_/steps", body => {});
        $c;
    } @ids;
    sleep 0.3;
    kill 'HUP', $nginx->{pid};

    my @r = map { $_->answer } @c;
    is(join(' ', map { $_->{status} } @r), '200 200 200 200',
       'steps over a reload');
    is($r[$_]{json}{output}, 'reload ' . ($_ + 1), 'with their answers')
        for 0 .. 3;

    # the client gone as well: the worker stays until the step is stored
    my $id = make_task($nginx, 'reload and gone [[echo+delay:1200]]');
    my $c = $nginx->connect;
    $c->send(method => 'POST', path => "/agent/tasks/$id/steps", body => {});
    sleep 0.2;
    $c->close;
    $nginx->reload;
    ok(poll_until(sub { $pg->psql("select status from agent.step where "
       . "task_id = '$id'") eq '2' }, 5), 'a reload with the client gone');
}


# Many at once, and a quit in the middle of them.

{
    my @ids = map { make_task($nginx, "held $_ [[echo+hold]]") } 1 .. 100;
    my @c = map {
        my $c = $nginx->connect;
        $c->send(method => 'POST', path => "/agent/tasks/$_/steps", body => {});
        $c;
    } @ids;
    ok(poll_until(sub { $llm->stats->{held} == 100 }, 10),
       'a hundred steps are held');
    kill 'QUIT', $nginx->{pid};
    sleep 0.3;
    $llm->release;
    my %seen;
    $seen{$_->answer->{status}}++ for @c;
    is_deeply(\%seen, { 200 => 100 }, 'a quit waits for them all');
    $nginx->stop;
}

is($pg->psql('select count(*) from agent.step where status < 2'), 0,
   'no step is left running');
is($pg->psql('select count(*) from agent.step s full join agent.usage u '
   . 'using (task_id, step_id) where s.step_id is null or u.step_id is null'),
   0, 'each step has one row in the ledger');

$nginx->finish;
done_testing();
