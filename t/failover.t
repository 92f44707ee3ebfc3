#!/usr/bin/perl

# Two hosts in agent_database: the first is stopped as by a crash, the second,
# its synchronous standby, is promoted.  Service is back within seconds, all
# that was acknowledged is there, and what ran ends.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

my $primary = AgentTest::Postgres->new(private => 1, fsync => 1);
my $standby = $primary->standby;
my $llm = AgentTest::LLM->new;
my $dir = scratch();

my $db = "host=127.0.0.1,127.0.0.1 port=$primary->{port},$standby->{port} "
         . "dbname=$primary->{name} user=agent connect_timeout=3 "
         . 'target_session_attrs=read-write';
my $nginx = AgentTest::Nginx->new(conf => conf(
    db => $db, llm => $llm, workers => 2,
    agents => { slow => 'timeout 100s; attempts 2;',
                auto => 'run auto; attempts 2;' }));


# Clients; each notes what it was told: kind, id, status.

my @clients;

for my $k (1 .. 6) {
    my $pid = fork // die "fork: $!";
    if ($pid) { push @clients, $pid; next }
    my $stop = 0;
    $SIG{TERM} = sub { $stop = 1 };
    open my $out, '>', "$dir/told-$k" or POSIX::_exit(1);
    my $call = sub {
        my ($kind, $path, $body) = @_;
        my $r = eval { $nginx->post($path, $body) } || { status => 0 };
        my $id = $r->{json}{$kind eq 'task' ? 'task_id' : 'step_id'} // '-';
        printf $out "%s %s %s %.2f\n", $kind, $id, $r->{status}, time;
        sleep 0.05 if $r->{status} != 200;
        return $r->{status} == 200 ? $id : undef;
    };
    for (my $i = 1; !$stop; $i++) {
        my $id = $call->('task', '/agent/tasks', { input => "load $k-$i" })
            or next;
        $call->('step', "/agent/tasks/$id/steps", {});
    }
    close $out;
    POSIX::_exit(0);
}


# Steps that are in the middle of it.

my @held = map {
    my $id = make_task($nginx, "held $_ [[echo+hold]]", at => '/x/slow');
    my $c = $nginx->connect(seconds => 100);
    $c->send(method => 'POST', path => "/x/slow/tasks/$id/steps", body => {});
    [$id, $c];
} 1 .. 5;
my $script = encode(['list', 'list+delay:700', 'list+delay:700',
                     'list+delay:700', 'finish:ok']);
my @auto = map {
    make_task($nginx, "auto $_ [[$script]]", at => '/x/auto');
} 1 .. 5;

ok(poll_until(sub { $llm->stats->{held} == 5 }), 'five steps are held');
sleep 1;

$primary->stop('immediate');
my $down = time;
sleep 0.5;
ok($standby->promote, 'the standby is promoted');
my $promoted = time;

my $r;
ok(poll_until(sub {
    $r = $nginx->post('/agent/tasks', { input => 'after' });
    $r->{status} == 200;
}, 30), 'service is back') or diag $r->{body}, $nginx->log_text;
my $back = time;
note sprintf '%.1f s after the crash, %.1f s after the promotion',
             $back - $down, $back - $promoted;
cmp_ok($back - $promoted, '<', 15, 'within seconds');
is($nginx->get("/agent/tasks/$r->{json}{task_id}")->{status}, 200,
   'reads as well');

$llm->release;
sleep 3;
kill 'TERM', @clients;
waitpid $_, 0 for @clients;


# Nothing is lost -------------------------------------------------------------

my @told = map { [split] } map { split /\n/, read_file($_) }
           glob "$dir/told-*";
my (%n, %got);
for (@told) {
    $n{$_->[2]}++;
    push @{$got{$_->[0]}}, $_->[1] if $_->[2] == 200;
}
note join ', ', map { "$n{$_} x $_" } sort keys %n;
cmp_ok(scalar @{$got{task} || []}, '>', 50, 'there was some load');
cmp_ok(scalar(grep { $_->[2] == 200 && $_->[3] < $down } @told), '>', 20,
       'before');
cmp_ok(scalar(grep { $_->[2] == 200 && $_->[3] > $back } @told), '>', 20,
       'and after');
is(join(' ', grep { !/^(?:200|503)$/ } keys %n), '', 'else 503 only');

my %have = map { $_ => 1 } split /\n/,
           $standby->psql('select task_id from agent.task');
is(scalar(grep { !$have{$_} } @{$got{task}}), 0,
   'each task that was acknowledged is there');
%have = map { $_ => 1 } split /\n/,
        $standby->psql('select step_id from agent.step where status = 2');
is(scalar(grep { !$have{$_} } @{$got{step}}), 0, 'each step too');
is($standby->psql("select count(*) from (select 1 from agent.task where input "
   . "like 'load %' group by input having count(*) > 1) x"), 0,
   'none is there twice');

for my $k (0 .. 4) {
    my ($id, $c) = @{$held[$k]};
    is($c->answer->{status}, 200, 'what ran meanwhile is answered');
    is($standby->psql("select status, output from agent.step where task_id = "
       . "'$id'"), '2|held ' . ($k + 1), 'and stored');
}

my $ids = join ',', map { "'$_'" } @auto;
ok(poll_until(sub { $standby->psql('select count(*) from agent.step where '
   . "is_last and task_id in ($ids)") eq '5' }, 40),
   'automatic tasks go on to their end')
    or diag $standby->psql('select seq, status, attempt, story from agent.step '
                           . "where task_id in ($ids)");
ok(poll_until(sub { $standby->psql('select count(*) from agent.step where '
   . 'status < 2') eq '0' }, 60), 'every step has ended');
is($standby->psql('select count(*) from agent.queue'), 0,
   'the queue is empty');
is($standby->psql('select count(*) from agent.step s full join agent.usage u '
   . 'using (task_id, step_id) where s.step_id is null or u.step_id is null'),
   0, 'each has one row in the ledger');

$nginx->finish;
done_testing();
