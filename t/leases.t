#!/usr/bin/perl

# Leases: what becomes of the steps of a worker that was killed, of a whole
# nginx that was, and of a worker that was frozen longer than its lease lasts:
# each goes on elsewhere, and whoever had it before changes nothing any more.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use File::Find ();
use Test::More;
use Time::HiRes qw(sleep time);

my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $shared = scratch() . '/artifacts';

mkdir $shared;
chmod 0777, $shared;

my %agents = (three => 'attempts 3; timeout 100s; price 2;',
              two => 'attempts 2; timeout 100s; price 2;',
              once => 'attempts 1; timeout 100s; price 2;',
              single => 'attempts 3; timeout 100s; concurrency 1;');
my @conf = (pg => $pg, llm => $llm, artifacts => $shared, agents => \%agents);
my $nginx = on_record(AgentTest::Nginx->new(conf => conf(@conf,
                                            workers => 2)), $pg);
my @killed;


sub post_step {
    my ($task, $at, $n) = @_;
    my $c = ($n || $nginx)->connect(seconds => 100);
    $c->send(method => 'POST', path => "$at/tasks/$task/steps", body => {});
    return $c;
}


sub column {
    my ($task, $columns) = @_;
    return $pg->psql("select $columns from agent.step where task_id = '$task' "
                     . 'order by seq');
}


# The process that runs a task's step.

sub runner {
    my ($task) = @_;
    return $pg->psql('select w.pid from agent.step s join agent.worker w on '
        . "w.name = s.owner where s.task_id = '$task' and s.status = 1") || 0;
}


sub calls_of {
    my ($name) = @_;
    return sort { $a->{time} <=> $b->{time} } $llm->calls(qr/"\Q$name\E[ "]/);
}


# A step that is held by the LLM: task, connection, process.

sub begin {
    my ($input, $at, $n) = @_;
    my $before = $llm->stats->{active};
    my $id = make_task($n || $nginx, $input, at => $at);
    my $c = post_step($id, $at, $n);
    poll_until(sub { $llm->stats->{active} > $before && runner($id) })
        or die "the step of \"$input\" does not run";
    return ($id, $c, runner($id));
}


sub ledger {
    my ($task) = @_;
    return $pg->psql('select status, attempt, price > 0 from agent.usage where '
                     . "task_id = '$task'");
}


sub kill_worker {
    my ($pid) = @_;
    push @killed, $pid;
    kill 'KILL', $pid;
    return time;
}


sub files {
    my $n = 0;
    File::Find::find({ no_chdir => 1, wanted => sub { $n++ if -f } }, $shared);
    return $n;
}


# Killed in mid-run -----------------------------------------------------------

for my $round (1 .. 3) {
    my ($id, $c, $pid) = begin("killed $round [[hang:1]]", '/x/three');
    my $at = kill_worker($pid);

    ok(poll_until(sub { column($id, 'status') eq '2' }, 20),
       'kill -9 of a worker: the step runs again');
    my @calls;
    poll_until(sub { (@calls = calls_of("killed $round")) == 2 });
    is(join(', ', map { $_->{ended} } @calls), 'client closed, ok',
       'the LLM was called twice');
    if (@calls == 2) {
        my $took = $calls[1]{time} - $at;
        note sprintf 'again after %.2f s', $took;
        cmp_ok($took, '<', 8, 'within seconds');
    }
    is(column($id, 'attempt, output, lease_until is null'),
       "2|killed $round|t", 'the result is of the second call');
    is(ledger($id), '2|2|t', 'it is billed once');
    is($c->answer->{status}, 0, 'its client was cut off');
    my $r = $nginx->get("/x/three/tasks/$id/steps");
    is($r->{json}{steps}[0]{output}, "killed $round", 'and can look');
}

{
    my ($id, $c, $pid) = begin('only once [[hang:1]]', '/x/once');
    kill_worker($pid);
    ok(poll_until(sub { column($id, 'status') eq '4' }, 20),
       'attempts 1: it ends as failed');
    poll_until(sub { (() = calls_of('only once')) == 1 });
    is(scalar(() = calls_of('only once')), 1, 'the LLM was called once');
    my $r = $nginx->get("/x/once/tasks/$id/steps")->{json}{steps}[0];
    is($r->{status}, 'failed', 'the client sees it');
    like($r->{additional_output}{error} // '', qr/worker/, 'and why');
    like(ledger($id), qr/^4\|2\|[tf]$/, 'one row in the ledger');

    ($id, $c, $pid) = begin('twice [[hang]]', '/x/two');
    kill_worker($pid);
    ok(poll_until(sub { scalar(() = $llm->started) && column($id, 'attempt')
                        eq '2' && runner($id)
                        && $llm->stats->{active} == 1 }, 20),
       'attempts 2: once more');
    my $step = column($id, 'step_id');
    $r = $nginx->get("/x/two/tasks/$id/steps/$step")->{json};
    like(encode($r->{run}), qr/worker/, 'while it runs it says what was');
    kill_worker(runner($id));
    ok(poll_until(sub { column($id, 'status') eq '4' }, 20), 'and not again');
    poll_until(sub { (() = calls_of('twice')) == 2 });
    is(scalar(() = calls_of('twice')), 2, 'by two calls');
    $r = $nginx->get("/x/two/tasks/$id/steps")->{json}{steps}[0];
    like($r->{additional_output}{error} // '',
         qr/attempt 1: .*worker.*attempt 2: .*worker/s, 'the whole story');

    # its place among the runs of the agent is free again
    ($id, $c, $pid) = begin('place 1 [[hang:1]]', '/x/single');
    kill_worker($pid);
    ok(poll_until(sub { column($id, 'status, attempt') eq '2|2' }, 20),
       'an agent with one place');
    my $next = make_task($nginx, 'place 2', at => '/x/single');
    is(run_step($nginx, $next, {}, at => '/x/single')->{status}, 200,
       'has it again');
}


# Another nginx of the same host ----------------------------------------------

{
    my $other = on_record(AgentTest::Nginx->new(conf => conf(@conf,
                                                workers => 2)), $pg);
    my @all = map { [begin("whole $_ [[hang:1]]", '/x/three', $other)] } 1 .. 4;
    my @pids = ($other->workers, $other->{pid});
    my $at = time;
    kill 'KILL', $other->{pid}, @pids;
    for my $k (0 .. 3) {
        my $id = $all[$k][0];
        ok(poll_until(sub { column($id, 'status, attempt') eq '2|2' }, 20),
           'a whole nginx is killed: the other one goes on');
    }
    note sprintf 'all four done after %.2f s', time - $at;
    AgentTest::forget(delete $other->{pid});

    # killed and started again, with nobody else there
    $nginx->stop;
    $other->start;
    @all = map { [begin("alone $_ [[hang:1]]", '/x/three', $other)] } 1 .. 4;
    @pids = ($other->{pid}, $other->workers);
    kill 'KILL', @pids;
    ok(poll_until(sub { !grep { !gone($_) } @pids }), 'all are killed');
    AgentTest::forget(delete $other->{pid});
    is(column($all[0][0], 'status, attempt'), '1|1', 'nobody has their steps');
    unlink $other->{pidfile};
    $at = time;
    $other->start;
    for my $k (0 .. 3) {
        my $id = $all[$k][0];
        ok(poll_until(sub { column($id, 'status, attempt') eq '2|2' }, 20),
           'started again: its steps go on');
    }
    note sprintf 'all four done after %.2f s', time - $at;
    cmp_ok(time - $at, '<', 15, 'not only when their leases lapse');
    $other->finish;
    $nginx->start;
}


# A lease that lapsed while its worker lives ----------------------------------

{
    my ($id, $c, $pid) = begin('robbed [[hang:1]]', '/x/three');
    my $lapse = sub {
        $pg->psql("update agent.step set lease_until = now() - interval '1 s' "
            . "where task_id = '$id' and status = 1 and attempt = 1");
    };
    ok(poll_until(sub { $lapse->(); column($id, 'status, attempt') eq '2|2' },
                  40), 'a lapsed lease: it is run again');
    ok(poll_until(sub { scalar(() = calls_of('robbed')) == 2 }, 15),
       'the first call is closed when that is found');
    is(ledger($id), '2|2|t', 'it is billed once');
    is($c->answer->{status}, 200, 'the client hears of the result');
}


# Frozen beyond the lease, and a long run beside it ---------------------------

{
    my $call = '[[' . encode({ wire => 'hold', calls => [
        [write_artifact => { path => 'a.txt', content => 'AAA' }],
        [finish => { summary => 'written' }]] }) . ']]';
    my $before = files();
    my ($id, $c, $pid) = begin("frozen $call", '/x/three');

    # 38 words, one a second, in the other worker
    my ($long, $lc, $lpid);
    my $words = join ' ', map { "w$_" } 1 .. 38;
    for my $try (1 .. 30) {
        ($long, $lc, $lpid) = begin("long$try $words [[echo+drip:1000]]",
                                    '/x/three');
        last if $lpid != $pid;
        $nginx->post("/x/three/tasks/$long/cancel", {});
        poll_until(sub { runner($long) == 0 });
        $lc->close;
    }
    isnt($lpid, $pid, 'each worker has a step')
        or BAIL_OUT('a worker takes no connections');

    my $start = time;
    kill 'STOP', $pid;
    # the answer it has been waiting for comes while it is frozen
    $llm->release;

    sleep 5;
    is(column($id, 'status, attempt'), '1|1', 'frozen: it has its lease');

    ok(poll_until(sub { column($id, 'attempt') > 1
                        && $llm->stats->{held} == 1 }, 60),
       'then the step is run by another one');
    my $took = time - $start;
    note sprintf 'after %.1f s', $took;
    cmp_ok($took, '>', 15, 'not before its lease has lapsed');
    cmp_ok($took, '<', 45, 'and not much later');
    isnt(runner($id), $pid, 'another process has it');

    # it wakes up while the other one is at work, answer in hand
    kill 'CONT', $pid;
    sleep 2;
    is(column($id, 'status, attempt'), '1|2', 'awake, it changes nothing');
    is(ledger($id), '', 'and bills nothing');
    is($pg->psql("select count(*) from agent.artifact where task_id = '$id'"),
       0, 'its artifacts are not published');
    ok(poll_until(sub { files() == $before }, 10), 'and gone from the disk');

    $llm->release;
    ok(poll_until(sub { column($id, 'status') eq '2' }, 20),
       'the other one ends it');
    is(column($id, 'attempt, output'), '2|written', 'with its result');
    is(ledger($id), '2|2|t', 'billed once');
    is($pg->psql("select count(*) from agent.artifact where task_id = '$id'"),
       1, 'one artifact');
    is(files(), $before + 1, 'one file');
    poll_until(sub { (() = calls_of('frozen')) == 2 });
    is(scalar(() = calls_of('frozen')), 2, 'two calls');

    my $r = $c->answer;
    is($r->{status}, 200, 'who waited at the frozen one hears of it')
        or diag $r->{body};
    is($r->{json}{output}, 'written', 'of the same result');
    my $file = $r->{json}{artifacts}[0]{artifact_id} // 'none';
    is($nginx->get("/x/three/tasks/$id/artifacts/$file")->{body}, 'AAA',
       'and can have the file');

    # a run that is longer than a lease
    $r = $lc->answer;
    is($r->{status}, 200, 'a run longer than a lease') or diag $r->{body};
    like($r->{json}{output}, qr/w38$/, 'has its end');
    is(column($long, 'status, attempt, spared'), '2|1|0',
       'and was not taken over');

    # the fake LLM writes a line when it has seen the end of the request
    my ($name) = split ' ', $r->{json}{output};
    my $last = poll_until(sub { (calls_of($name))[-1] });
    cmp_ok($last->{seconds}, '>', 31, 'it was that long');
}


is($pg->psql('select count(*) from agent.step where status < 2'), 0,
   'every step has ended');
is($pg->psql('select count(*) from agent.queue'), 0, 'the queue is empty');
is($pg->psql('select count(*) from agent.step s full join agent.usage u using '
   . '(task_id, step_id) where s.step_id is null or u.step_id is null'), 0,
   'each has one row in the ledger');

my $pids = join '|', @killed;
$nginx->finish(but => qr/worker process (?:$pids) exited on signal 9/);
done_testing();
