#!/usr/bin/perl

# Reload, quit and binary upgrade under load: no step is lost, repeated or
# failed, no client is refused, what cannot be finished in time is handed back
# without using an attempt, and no old worker stays.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $dir = scratch();
my $shared = "$dir/artifacts";

mkdir $shared;
chmod 0777, $shared;

my %agents = (once => 'attempts 1; timeout 100s;',
              auto => 'run auto; attempts 1;');


sub start {
    my (%o) = @_;
    return AgentTest::Nginx->new(conf => conf(pg => $pg, llm => $llm,
        workers => 2, artifacts => $shared, agents => \%agents, %o));
}


sub within { return (main => "worker_shutdown_timeout $_[0];") }


sub post_step {
    my ($nginx, $task, $at, %o) = @_;
    my $c = $nginx->connect(seconds => 60);
    $c->send(method => 'POST', path => "$at/tasks/$task/steps", body => {},
             headers => $o{headers});
    return $c;
}


sub column {
    my ($task, $columns, $db) = @_;
    return ($db || $pg)->psql("select $columns from agent.step where task_id = "
                              . "'$task' order by seq");
}


# A step that the LLM is answering, or not: task, connection, process.

sub begin {
    my ($nginx, $input, $at, $db) = @_;
    my $before = $llm->stats->{active};
    my $id = make_task($nginx, $input, at => $at);
    my $c = post_step($nginx, $id, $at);
    my $pid;
    poll_until(sub {
        $pid = ($db || $pg)->psql('select w.pid from agent.step s join '
            . "agent.worker w on w.name = s.owner where s.task_id = '$id' and "
            . 's.status = 1');
        $pid && $llm->stats->{active} > $before;
    }) or die "the step of \"$input\" does not run";
    return ($id, $c, $pid);
}


# All that have this master as their parent, also those about to go.

sub children {
    my ($master) = @_;
    my @found;
    for my $stat (glob '/proc/[0-9]*/stat') {
        my ($pid, $state, $parent) = read_file($stat)
                                     =~ /^(\d+) \(.*\) (\S) (\d+)/ or next;
        push @found, $pid if $parent == $master && $state ne 'Z';
    }
    return @found;
}


# Clients: each with a connection of its own for every request, as it is these
# that may be refused.  Each notes kind, status, id.

my (@clients, $round);

sub load_start {
    my ($nginx, $n) = @_;

    $round++;
    for my $k (1 .. $n) {
        my $pid = fork // die "fork: $!";
        if ($pid) { push @clients, $pid; next }
        my $stop = 0;
        $SIG{TERM} = sub { $stop = 1 };
        open my $out, '>', "$dir/load-$round-$k" or POSIX::_exit(1);
        my $call = sub {
            my ($kind, $path, $body) = @_;
            my $r = eval { $nginx->post($path, $body) };
            $r = { status => 'refused' } unless $r;
            my $id = $r->{json}{$kind eq 'task' ? 'task_id' : 'step_id'} // '-';
            print $out "$kind $r->{status} $id\n";
            return $r->{status} eq '200' ? $id : undef;
        };
        for (my $i = 1; !$stop; $i++) {
            my $ms = 20 + 60 * ($i % 5);
            my $id = $call->('task', '/agent/tasks',
                { input => "load $round-$k-$i [[echo+delay:$ms]]" }) or next;
            $call->('step', "/agent/tasks/$id/steps", {});
        }
        close $out;
        POSIX::_exit(0);
    }
}


sub load_stop {
    kill 'TERM', @clients;
    waitpid $_, 0 for @clients;
    @clients = ();
    return map { [split] } map { split /\n/, read_file($_) }
           glob "$dir/load-$round-*";
}


sub check_load {
    my ($name, @all) = @_;

    my %n;
    $n{"$_->[0] $_->[1]"}++ for @all;
    note "$name: ", join ', ', map { "$n{$_} x $_" } sort keys %n;
    is(join(', ', sort keys %n), 'step 200, task 200',
       "$name: no request fails, none is refused");
    cmp_ok($n{'step 200'} // 0, '>', 50, "$name: there was some load");

    my @steps = map { $_->[2] } grep { $_->[0] eq 'step' } @all;
    my %have = map { $_ => 1 } split /\n/,
               $pg->psql('select step_id from agent.step where status = 2');
    is(scalar(grep { !$have{$_} } @steps), 0, "$name: no step is lost");
    is($pg->psql('select count(*) from agent.step join agent.task t using '
       . "(task_id) where t.input like 'load $round-%' and (status <> 2 or "
       . 'attempt - spared <> 1)'), 0, "$name: none is repeated or failed");

    my %seen;
    $seen{encode($_->{messages}) =~ /(load \d+-\d+-\d+)/ ? $1 : '?'}++
        for $llm->calls(qr/load $round-/);
    is(scalar(grep { $_ != 1 } values %seen), 0, "$name: one call each");
}


sub drained {
    my ($nginx, $workers, $seconds) = @_;
    return poll_until(sub { children($nginx->{pid}) == $workers },
                      $seconds || 15);
}


# Fifty reloads, twice --------------------------------------------------------

for (['with no limit', []], ['within 5 s', [within('5s')]]) {
    my ($name, $more) = @$_;
    my $nginx = start(@$more);
    load_start($nginx, 6);

    # steps that last longer than one reload, and automatic ones
    my @long = map { [begin($nginx, "long $name $_ [[echo+delay:3000]]",
                            '/x/once')] } 1 .. 3;
    my $script = encode(['list', 'list', 'list', 'finish:ok']);
    my @auto;

    for (1 .. 50) {
        kill 'HUP', $nginx->{pid};
        push @auto, $nginx->post('/x/auto/tasks',
                                 { input => "auto $name $_ [[$script]]" })
            if $_ % 5 == 0;
        sleep 0.2;
    }
    is_deeply([map { $_->[1]->answer->{status} } @long], [200, 200, 200],
              "$name: long ones are answered");
    sleep 0.3;
    check_load($name, load_stop());

    is(scalar(grep { $_->{status} == 200 } @auto), 10,
       "$name: automatic tasks were taken");
    my $ids = join ',', map { "'$_->{json}{task_id}'" }
              grep { $_->{status} == 200 } @auto;
    ok(poll_until(sub { $pg->psql('select count(*) from agent.step where '
       . "is_last and task_id in ($ids)") eq '10' }, 20),
       "$name: and ran to their end");
    # one that was claimed as its worker began to quit is handed back, unused
    is($pg->psql('select count(*), max(attempt - spared) from agent.step where '
       . "task_id in ($ids)"), '40|1', "$name: each of their steps once");

    ok(drained($nginx, 2), "$name: no old worker stays")
        or diag join "\n", map { "$_ " . read_file("/proc/$_/cmdline") }
                           children($nginx->{pid});
    $nginx->finish;
}


# An LLM that says nothing ----------------------------------------------------

{
    my $nginx = start(within('3s'));
    my @all = map { [begin($nginx, "hung $_ [[hang:1]]", '/x/once')] } 1 .. 4;
    my %old = map { $_ => 1 } $nginx->workers;
    my $start = time;
    ok($nginx->reload, 'a reload while an LLM says nothing');
    ok(poll_until(sub { !grep { !gone($_) } keys %old }, 15),
       'the old workers leave');
    my $took = time - $start;
    note sprintf 'after %.1f s', $took;
    cmp_ok($took, '<', 6, 'in time');

    for my $k (0 .. 3) {
        my ($id, $c) = @{$all[$k]};
        my $r = $c->answer;
        like($r->{status}, qr/^20[02]$/, 'who waits is told')
            or diag $r->{body};
        like($r->{headers}{location} // '', qr{/tasks/$id/steps/[-0-9a-f]{36}$},
             'where to look') if $r->{status} == 202;
        ok(poll_until(sub { column($id, 'status, attempt, spared, output')
                            eq '2|2|1|hung ' . ($k + 1) }, 15),
           'it was handed back and run again; no attempt was used up')
            or diag column($id, 'status, attempt, spared, output');
    }
    is(scalar(() = $llm->calls(qr/"hung \d/)), 8, 'two calls each');

    # one that has time enough
    my ($id, $c, $pid) = begin($nginx, 'in time [[echo+delay:1500]]',
                               '/x/once');
    $nginx->reload;
    is($c->answer->{status}, 200, 'what can be finished in time is finished');
    is(column($id, 'status, attempt, spared'), '2|1|0', 'by the old worker');
    ok(poll_until(sub { gone($pid) }, 6), 'which then leaves');
    $nginx->finish;
}


# A quit, and another nginx ---------------------------------------------------

{
    my $one = start(within('3s'));
    my $two = start();
    my @all = map { [begin($one, "quit $_ [[hang:1]]", '/x/once')] } 1 .. 3;
    my $front = post_step($two, make_task($two, 'of two [[echo+delay:1000]]'),
                          '/agent');
    my $start = time;
    kill 'QUIT', $one->{pid};
    ok(poll_until(sub { gone($one->{pid}) }, 15), 'a quit');
    cmp_ok(time - $start, '<', 6, 'ends in time');
    for my $k (0 .. 2) {
        my ($id, $c) = @{$all[$k]};
        ok(poll_until(sub { column($id, 'status, attempt, spared') eq '2|2|1' },
                      15), 'the other nginx goes on')
            or diag column($id, 'status, attempt, spared');
        like($c->answer->{status}, qr/^20[02]$/, 'who waited was told');
    }
    is($front->answer->{status}, 200, 'its own steps go on');
    $one->finish;

    # a queue that only the one that quits was working on
    my $three = start(http => '    agent_concurrency 1;', workers => 1);
    $two->finish;
    my @ids = map { make_task($three, "left $_ [[echo+delay:200]]") } 1 .. 10;
    my @c = map { post_step($three, $_, '/agent',
                  headers => { Prefer => 'respond-async' }) } @ids;
    is(join(' ', map { $_->answer->{status} } @c), join(' ', (202) x 10),
       'ten in the queue');
    kill 'QUIT', $three->{pid};
    ok(poll_until(sub { gone($three->{pid}) }, 15),
       'who quits does not work through the queue first');
    cmp_ok($pg->psql('select count(*) from agent.queue'), '>', 3,
           'it leaves it as it is');
    AgentTest::forget(delete $three->{pid});
    $three->start;
    ok(poll_until(sub { $pg->psql('select count(*) from agent.step where '
       . 'status < 2') eq '0' }, 20), 'the next one goes on with it');
    is($pg->psql('select count(*) from agent.step s join agent.task t using '
       . "(task_id) where t.input like 'left %' and s.attempt = 1 and "
       . 's.status = 2'), 10, 'each ran once');
    $three->finish;
}


# Binary upgrade --------------------------------------------------------------

{
    my $nginx = start();
    my $old = $nginx->{pid};
    my ($id, $c, $pid) = begin($nginx, 'upgraded [[hold]]', '/x/once');
    load_start($nginx, 3);
    sleep 0.5;

    kill 'USR2', $old;
    ok(poll_until(sub { -s "$nginx->{pidfile}.oldbin"
                        && -s $nginx->{pidfile} }), 'a second master');
    my ($new) = read_file($nginx->{pidfile}) =~ /(\d+)/;
    isnt($new, $old, 'of its own');
    AgentTest::remember($new);
    $nginx->{pid} = $new;
    ok(poll_until(sub { $nginx->workers == 2 }), 'with workers');
    sleep 0.5;

    kill 'WINCH', $old;
    sleep 1;
    ok(!gone($pid), 'the old worker stays as long as its step runs');
    $llm->release;
    is($c->answer->{status}, 200, 'which ends as ever');
    is(column($id, 'status, attempt'), '2|1', 'by one attempt');
    ok(poll_until(sub { gone($pid) }, 15), 'then the worker leaves');
    kill 'QUIT', $old;
    ok(poll_until(sub { gone($old) }, 15), 'and its master');
    AgentTest::forget($old);
    sleep 0.5;
    check_load('upgrade', load_stop());
    is(run_step($nginx, make_task($nginx, 'new'))->{json}{output}, 'new',
       'the new one serves');
    $nginx->finish;
}


# No database to hand anything back to ----------------------------------------

{
    my $private = AgentTest::Postgres->new(private => 1);
    my $nginx = start(pg => $private, within('3s'));
    my ($id, $c) = begin($nginx, 'no database [[hang:1]]', '/x/once', $private);
    my ($paid, $pc) = begin($nginx, 'paid for [[echo+delay:1000]]', '/x/once',
                            $private);
    my %old = map { $_ => 1 } $nginx->workers;
    $private->stop('immediate');
    # its answer has come, and cannot be saved
    sleep 1.5;

    my $start = time;
    ok($nginx->reload, 'a reload without a database');
    ok(poll_until(sub { !grep { !gone($_) } keys %old }, 20),
       'the old workers leave');
    my $took = time - $start;
    note sprintf 'after %.1f s', $took;
    cmp_ok($took, '<', 8, 'in time');
    $_->close for $c, $pc;

    $private->start;
    for ($id, $paid) {
        ok(poll_until(sub { column($_, 'status', $private) =~ /^[24]$/ }, 50),
           'their steps are taken over') or diag column($_, '*', $private);
        note column($_, 'status, attempt, spared', $private);
    }
    is($private->psql('select count(*), count(distinct step_id) from '
                      . 'agent.usage'), '2|2', 'each is billed once');
    $nginx->finish;
}


is($pg->psql('select count(*) from agent.step where status <> 2'), 0,
   'every step is completed');
is($pg->psql('select count(*) from agent.queue'), 0, 'the queue is empty');
is($pg->psql('select count(*) from agent.step s full join agent.usage u using '
   . '(task_id, step_id) where s.step_id is null or u.step_id is null'), 0,
   'each has one row in the ledger');

done_testing();
