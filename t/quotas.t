#!/usr/bin/perl

# What a tenant may use: each limit by HTTP, in both directions; bursts over
# two nginx that must not overrun any; what is counted against what is there;
# and the others, whom none of it concerns.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use IO::Select;
use List::Util qw(max min);
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

# days and months end at midnight, and this is not to run into it
sleep 1 while time % 86400 > 86400 - 240;

my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $shared = scratch() . '/artifacts';

mkdir $shared;
chmod 0777, $shared;


sub start {
    my (%o) = @_;

    $o{http} = "    agent_tenant \$http_x_tenant;\n" . ($o{http} // '');
    return AgentTest::Nginx->new(conf => conf(pg => $pg, llm => $llm,
        artifacts => $shared, %o, agents => {
            priced => 'price 0.5;',
            cent => 'price 0.01;',
            auto => 'run auto; max_steps 20;',
            sale => 'run auto; max_steps 20; price 0.5;',
            %{$o{agents} || {}} }));
}


sub one { return $pg->psql($_[0]) }


# running, queued, steps_day, artifact_bytes, money_month

sub quota {
    my ($tenant, %max) = @_;
    one("select agent.set_quota('$tenant'"
        . join('', map { ", p_$_ => $max{$_}" } sort keys %max) . ')');
}


sub drop_quota { one("select agent.drop_quota('$_[0]')") }


sub as {
    my ($tenant, %more) = @_;
    return (headers => { 'X-Tenant' => $tenant, %more });
}


sub task {
    my ($n, $tenant, $input, $at) = @_;
    my $r = $n->post(($at || '/agent') . '/tasks', { input => $input },
                     as($tenant));
    die "no task was made: $r->{status} $r->{body}\n" if $r->{status} != 200;
    return $r->{json}{task_id};
}


sub step {
    my ($n, $tenant, $task, $at, %more) = @_;
    return $n->post(($at || '/agent') . "/tasks/$task/steps", {},
                    as($tenant, %more));
}


# A step of a task of its own.

sub run {
    my ($n, $tenant, $input, $at, %more) = @_;
    return step($n, $tenant, task($n, $tenant, $input, $at), $at, %more);
}


# ... whose answer is not waited for.

sub hang {
    my ($n, $tenant, $input, $at) = @_;
    my $id = task($n, $tenant, $input, $at);
    my $c = $n->connect(seconds => 60);
    $c->send(method => 'POST', path => ($at || '/agent') . "/tasks/$id/steps",
             body => {}, as($tenant));
    return ($c, $id);
}


sub upload {
    my ($n, $tenant, $task, $bytes, %more) = @_;
    return $n->post("/agent/tasks/$task/artifacts", form($bytes),
                    as($tenant, %more, 'Content-Type' =>
                       'multipart/form-data; boundary=XyZ'));
}


sub form {
    my ($bytes) = @_;
    return "--XyZ\r\nContent-Disposition: form-data; name=\"file\"; "
           . "filename=\"a\"\r\n\r\n" . 'x' x $bytes . "\r\n--XyZ--\r\n";
}


sub files {
    my $n = 0;
    $n++ for grep { -f } glob "$shared/*/*";
    return $n;
}


sub refused {
    my ($r, $status, $like, $name) = @_;
    is($r->{status}, $status, $name) or diag $r->{body};
    like($r->{json}{message} // '', $like, 'the limit is named');
    like($r->{json}{message} // '', qr/tenant/, 'and whose it is');
    if ($status == 429) {
        like($r->{headers}{'retry-after'} // '', qr/^[1-9]\d*$/,
             'with Retry-After');
    }
}


sub held_is {
    my ($n) = @_;
    return poll_until(sub { $llm->stats->{held} == $n }, 20);
}


sub steps { return one('select count(*) from agent.step where tenant = '
                       . "'$_[0]'" . ($_[1] ? " and $_[1]" : '')) }


sub idle {
    my ($tenant) = @_;
    return poll_until(sub { steps($tenant, 'status in (0, 1)') eq '0' }, 30);
}


# What is counted is what there is: counted anew it is the same.

sub true_counts {
    my ($tenant, $name) = @_;

    ok(idle($tenant), "$name: nothing runs any more");
    my $counts = "select day_steps, month_money, artifact_bytes from "
                 . "agent.quota where tenant = '$tenant'";
    my $before = one($counts);
    one("select agent.set_quota('$tenant', max_running, max_queued, "
        . 'max_steps_day, max_artifact_bytes, max_money_month) from '
        . "agent.quota where tenant = '$tenant'");
    is($before, one($counts), "$name: the counters are right");

    my ($steps, $money, $bytes) = split /\|/, $before;
    is($bytes, one('select coalesce(sum(size), 0) from agent.artifact where '
                   . "tenant = '$tenant'"), 'bytes');
    is($money, one("select coalesce(sum(price), 0)::numeric(18, 6) from "
                   . "agent.usage where tenant = '$tenant'"), 'money');
    is($steps, one("select count(*) from agent.usage where tenant = "
                   . "'$tenant'"), 'steps');
}


# Running steps ---------------------------------------------------------------

{
    my $n = on_record(start(workers => 2), $pg);

    quota('run', running => 2);
    my @c = map { hang($n, 'run', "run $_ [[echo+hold]]") } 1 .. 2;
    ok(held_is(2), 'two steps run');

    my $id = task($n, 'run', 'third');
    refused(step($n, 'run', $id), 429, qr/\b2 running steps/, 'a third one');
    is(one("select count(*) from agent.step where task_id = '$id'"), 0,
       'nothing of it is stored');
    my %key = ('Idempotency-Key' => 'third');
    refused(step($n, 'run', $id, undef, %key), 429, qr/\b2 running/,
            'nor with a key');

    my $later = task($n, 'run', 'async');
    my $r = step($n, 'run', $later, undef, Prefer => 'respond-async');
    is($r->{status}, 202, 'one that nobody waits for is taken')
        or diag $r->{body};
    sleep 0.5;
    is(one("select status from agent.step where task_id = '$later'"), 0,
       'it waits in the queue');
    is($llm->stats->{held}, 2, 'two still run, not more');

    is(run($n, 'other', 'beside it')->{status}, 200,
       'another tenant has nothing to do with that');
    is(run($n, 'run2', 'beside it')->{status}, 200, 'one without limits');

    $llm->release;
    is($_->answer->{status}, 200, 'the first ones are answered')
        for grep { ref } @c;
    ok(poll_until(sub { one("select status from agent.step where task_id = "
                            . "'$later'") eq '2' }),
       'there is room: the one in the queue is run');
    is(step($n, 'run', $id, undef, %key)->{status}, 200,
       'and the third one, by the same key');

    quota('run', running => 0);
    refused(run($n, 'run', 'none'), 429, qr/\b0 running/, 'none at all');
    drop_quota('run');
    is(run($n, 'run', 'any')->{status}, 200, 'no limit any more');

    quota('run', running => 1);
    ok((my ($held) = hang($n, 'run', 'taken [[echo+hold]]')), 'one of one');
    held_is(1);
    refused(run($n, 'run', 'more'), 429, qr/\b1 running/, 'not two');
    quota('run', running => 2);
    is(run($n, 'run', 'more')->{status}, 200, 'a higher limit holds at once');
    quota('run', running => 1);
    refused(run($n, 'run', 'more'), 429, qr/\b1 running/, 'and a lower one');
    $llm->release;
    is($held->answer->{status}, 200, 'what runs is not stopped by it');
    true_counts('run', 'running');
    $n->finish;
}


# Queued steps ------------------------------------------------------------------

{
    my $front = start(workers => 2, http => '    agent_run off; agent_queue '
                                            . '1000 poll=1s;');
    my %async = (Prefer => 'respond-async');

    quota('queue', queued => 3);
    my @ids = map { task($front, 'queue', "queue $_") } 1 .. 5;
    is(step($front, 'queue', $ids[$_], undef, %async)->{status}, 202,
       'queued') for 0 .. 2;
    refused(step($front, 'queue', $ids[3], undef, %async), 429,
            qr/\b3 queued steps/, 'a fourth one');
    refused(step($front, 'queue', $ids[3]), 429, qr/\b3 queued/,
            'whether it is waited for or not');
    my $r = $front->post('/x/auto/tasks', { input => 'x' }, as('queue'));
    refused($r, 429, qr/\b3 queued/, 'a task whose first step would be queued');
    is(one(q{select count(*) from agent.task where tenant = 'queue'}), 5,
       'is not made');
    is(run($front, 'other', 'x', undef, %async)->{status}, 202,
       'another tenant may');

    # one that is cancelled makes room
    is($front->post("/agent/tasks/$ids[0]/cancel", {}, as('queue'))->{status},
       200, 'one is cancelled');
    is(step($front, 'queue', $ids[3], undef, %async)->{status}, 202,
       'then there is room for another');
    refused(step($front, 'queue', $ids[4], undef, %async), 429,
            qr/\b3 queued/, 'and only one');

    my $back = start(workers => 2);
    ok(idle('queue'), 'they are run');
    $r = $front->post('/x/auto/tasks', { input => 'y' }, as('queue'));
    is($r->{status}, 200, 'then there is room again') or diag $r->{body};
    ok(idle('queue'), 'and that is run');
    true_counts('queue', 'queued');
    $front->finish;
    $back->finish;
}


# Steps of a day ----------------------------------------------------------------

{
    my $n = start(workers => 2);

    quota('day', steps_day => 3);
    my $id = task($n, 'day', 'first [[finish:done]]');
    my %key = ('Idempotency-Key' => 'day');
    my $first = step($n, 'day', $id, undef, %key);
    is($first->{status}, 200, 'one of three') or diag $first->{body};
    is(run($n, 'day', 'second [[http:400]]')->{status}, 502, 'one that fails');
    my $r = run($n, 'day', 'third', undef, Prefer => 'respond-async');
    is($r->{status}, 202, 'one that is not waited for') or diag $r->{body};

    my $id4 = task($n, 'day', 'fourth');
    $r = step($n, 'day', $id4);
    refused($r, 429, qr/\b3 steps a day/, 'a fourth one');
    my $left = 86400 - time % 86400;
    my $after = $r->{headers}{'retry-after'} // 0;
    ok($after <= 86400 && abs($after - $left) % 86400 < 60,
       'not before the next day') or diag "$after, not $left";
    refused(step($n, 'day', $id4, undef, Prefer => 'respond-async'), 429,
            qr/\b3 steps a day/, 'nor in the queue');
    refused($n->post('/x/auto/tasks', { input => 'x' }, as('day')), 429,
            qr/\b3 steps a day/, 'nor the first step of an automatic agent');

    # what begins no step
    is($n->get("/agent/tasks/$id/steps", as('day'))->{status}, 200,
       'it may read');
    is(step($n, 'day', $id, undef, %key)->{json}{step_id},
       $first->{json}{step_id}, 'the same request again is answered as before');
    is(step($n, 'day', $id)->{json}{step_id}, $first->{json}{step_id},
       'so is a step on a task that is done');
    is(run($n, 'other', 'x')->{status}, 200, 'another tenant may begin steps');
    is(step($n, 'other', $id4)->{status}, 404, 'but not on its tasks');

    ok(idle('day'), 'they have ended');
    is(one(q{select day_steps from agent.quota where tenant = 'day'}), 3,
       'three are counted, and none that was refused');
    true_counts('day', 'steps of a day');

    one(q{update agent.quota set day = day - 1 where tenant = 'day'});
    is(step($n, 'day', $id4)->{status}, 200, 'on the next day it goes on');
    is(one(q{select day_steps, day = (now() at time zone 'UTC')::date from }
           . q{agent.quota where tenant = 'day'}), '1|t', 'from one');

    quota('day', steps_day => 4);
    refused(run($n, 'day', 'x'), 429, qr/\b4 steps/,
            'when it is set anew, all of the day is counted');
    quota('day', steps_day => 5);
    is(run($n, 'day', 'x')->{status}, 200, 'up to the new limit');
    drop_quota('day');
    is(run($n, 'day', 'x')->{status}, 200, 'or to none');
    quota('day', steps_day => 7);
    is(run($n, 'day', 'x')->{status}, 200, 'the days without one are counted');
    refused(run($n, 'day', 'x'), 429, qr/\b7 steps/, 'one by one');
    $n->finish;
}


# Money -------------------------------------------------------------------------

{
    my $n = on_record(start(workers => 2), $pg);
    my $at = '/x/priced';

    quota('money', money_month => 1.2);
    is(run($n, 'money', 'f [[http:400]]', $at)->{status}, 502,
       'what fails costs nothing');
    is(run($n, 'money', "m $_", $at)->{status}, 200, 'paid') for 1 .. 2;
    refused(run($n, 'money', 'm 3', $at), 402, qr/\b1\.20* /, 'a third one');
    refused(run($n, 'money', 'm 3', $at, Prefer => 'respond-async'), 402,
            qr/\b1\.20* /, 'nor in the queue');
    refused($n->post('/x/sale/tasks', { input => 'x' }, as('money')), 402,
            qr/\b1\.20* /, 'nor by a task that runs by itself');
    is(run($n, 'money', 'free')->{status}, 200, 'one that costs nothing');
    is(run($n, 'money', 'cheap', '/x/cent')->{status}, 200,
       'or no more than is left');
    is(run($n, 'other', 'x', $at)->{status}, 200, 'another tenant may');
    is(one(q{select month_money from agent.quota where tenant = 'money'}),
       '1.010000', 'to the cent');
    true_counts('money', 'money');

    one(q{update agent.quota set month = month - interval '1 month' where }
        . q{tenant = 'money'});
    is(run($n, 'money', 'm 4', $at)->{status}, 200, 'in the next month');
    is(one(q{select month_money from agent.quota where tenant = 'money'}),
       '0.500000', 'from nothing');

    # what runs or waits is as good as spent
    quota('purse', money_month => 1);
    my ($a, $id) = hang($n, 'purse', 'one [[echo+hold]]', $at);
    my ($b) = hang($n, 'purse', 'two [[echo+hold]]', $at);
    ok(held_is(2), 'two run');
    refused(run($n, 'purse', 'three', $at), 402, qr/\b1\.?0* /,
            'their price is reserved');
    is($n->post("$at/tasks/$id/cancel", {}, as('purse'))->{status}, 200,
       'one is cancelled');
    is(run($n, 'purse', 'four', $at)->{status}, 200, 'and costs nothing');
    refused(run($n, 'purse', 'five', $at), 402, qr/\b1\.?0* /, 'all is spent');
    refused(run($n, 'purse', 'free'), 402, qr/\b1\.?0* /,
            'also for what costs nothing');
    $llm->release;
    is($b->answer->{status}, 200, 'what was reserved is run');
    is($a->answer->{status}, 409, 'what was cancelled is not');
    true_counts('purse', 'reserved money');

    quota('purse', money_month => 1.5);
    is(run($n, 'purse', 'six', $at)->{status}, 200, 'some more');
    drop_quota('purse');
    is(run($n, 'purse', 'seven', $at)->{status}, 200, 'as much as it likes');
    $n->finish;
}


# Bytes of artifacts ------------------------------------------------------------

{
    my $n = on_record(start(workers => 2), $pg);

    quota('bytes', artifact_bytes => 100);
    my $id = task($n, 'bytes', 'x');
    is(upload($n, 'bytes', $id, 60)->{status}, 200, 'sixty of a hundred');
    my $files = files();
    refused(upload($n, 'bytes', $id, 41), 507, qr/\b100 bytes/,
            'forty-one more');
    refused(upload($n, 'bytes', $id, 41, 'Idempotency-Key' => 'b'), 507,
            qr/\b100 bytes/, 'nor with a key');
    ok(poll_until(sub { files() == $files }), 'their bytes are gone')
        or diag files() . ", not $files";
    is($n->get("/agent/tasks/$id/artifacts",
               as('bytes'))->{json}{pagination}{total_items}, 1,
       'and no row is there');

    # what the agent writes
    my $write = sub { return "w [[write:a.txt:" . 'y' x $_[0] . ']]' };
    my $task = task($n, 'bytes', $write->(41));
    my $r = step($n, 'bytes', $task);
    is($r->{status}, 507, 'a step that writes too much') or diag $r->{body};
    like($r->{json}{message} // '', qr/\b100 bytes/, 'it says so');
    my $s = $n->get("/agent/tasks/$task/steps", as('bytes'))->{json}{steps}[0];
    is($s->{status}, 'failed', 'it has failed');
    is($s->{additional_output}{code}, 507, 'with its code');
    like($s->{additional_output}{error} // '', qr/\b100 bytes/, 'and why');
    is_deeply($s->{artifacts}, [], 'it has no artifact');
    is(one("select count(*) from agent.artifact where task_id = '$task'"), 0,
       'nor has the task');
    ok(poll_until(sub { files() == $files }), 'no bytes are left')
        or diag files() . ", not $files";
    is(one("select status, price from agent.usage where task_id = '$task'"),
       '4|0.000000', 'it is in the ledger, as failed');
    is(one(q{select artifact_bytes from agent.quota where tenant = 'bytes'}),
       60, 'no more is counted');

    is(run($n, 'bytes', $write->(15))->{status}, 200, 'a smaller one');
    is(upload($n, 'bytes', $id, 25)->{status}, 200, 'all there is');
    refused(upload($n, 'bytes', $id, 1), 507, qr/\b100 bytes/, 'not one more');
    is(upload($n, 'bytes', $id, 0)->{status}, 200, 'nothing at all fits');
    is(upload($n, 'other', task($n, 'other', 'x'), 1000)->{status}, 200,
       'another tenant has room');
    is(upload($n, 'other', $id, 1)->{status}, 404, 'but not in its tasks');
    true_counts('bytes', 'bytes');

    is($n->request(method => 'DELETE', path => "/agent/tasks/$id",
                   as('bytes'))->{status} =~ /^20[04]$/, 1,
       'a task is deleted');
    is(one(q{select artifact_bytes from agent.quota where tenant = 'bytes'}),
       15, 'its bytes are not counted any more');
    my $again = task($n, 'bytes', 'x');
    is(upload($n, 'bytes', $again, 85)->{status}, 200, 'there is room again');
    quota('bytes', artifact_bytes => 99);
    refused(upload($n, 'bytes', $again, 1), 507, qr/\b99 bytes/,
            'a lower limit');
    quota('bytes', artifact_bytes => 101);
    is(upload($n, 'bytes', $again, 1)->{status}, 200, 'a higher one');
    refused(upload($n, 'bytes', $again, 1), 507, qr/\b101 bytes/, 'is one, too');
    drop_quota('bytes');
    is(upload($n, 'bytes', $again, 1000)->{status}, 200, 'and none is none');
    $n->finish;
}


# Steps that follow by themselves ---------------------------------------------

{
    my $n = on_record(start(workers => 2), $pg);
    my $script = '[[["list","list","list","list","finish:done"]]]';
    my $steps = sub { return one("select string_agg(status::text, '' order by "
                          . "seq) from agent.step where task_id = '$_[0]'") };

    quota('auto', steps_day => 3);
    my $id = task($n, 'auto', "auto $script", '/x/auto');
    ok(poll_until(sub { $steps->($id) eq '222' }, 20),
       'an automatic agent stops at the limit') or diag $steps->($id);
    sleep 0.5;
    is($steps->($id), '222', 'for good');
    refused(step($n, 'auto', $id, '/x/auto'), 429, qr/\b3 steps a day/,
            'nor does it go on when told to');
    quota('auto', steps_day => 10);
    is(step($n, 'auto', $id, '/x/auto')->{status}, 200,
       'when there is room, it does');
    ok(poll_until(sub { $steps->($id) eq '22222' }, 20), 'to its end')
        or diag $steps->($id);
    true_counts('auto', 'following steps');

    quota('auto-money', money_month => 1.1);
    $id = task($n, 'auto-money', "sale $script", '/x/sale');
    ok(poll_until(sub { $steps->($id) eq '22' }, 20), 'at the limit of money')
        or diag $steps->($id);
    sleep 0.5;
    is($steps->($id), '22', 'for good');
    is(one(q{select sum(price) from agent.usage where tenant = 'auto-money'}),
       '1.000000', 'no more was spent');

    # as many as it may, however many tasks
    quota('auto-run', running => 2);
    task($n, 'auto-run', "crew $_ $script", '/x/auto') for 1 .. 6;
    my $most = 0;
    ok(poll_until(sub {
        $most = max($most, steps('auto-run', 'status = 1'));
        steps('auto-run', 'is_last') eq '6';
    }, 60), 'six tasks of five steps each, two at once');
    cmp_ok($most, '<=', 2, 'not more');
    is(steps('auto-run', 'status = 2'), 30, 'all steps');
    true_counts('auto-run', 'two at once');
    $n->finish;
}


# After cancel, delete and failure ----------------------------------------------

{
    my $n = on_record(start(workers => 2), $pg);

    quota('mixed', running => 50, queued => 50, steps_day => 1000,
          artifact_bytes => 100_000, money_month => 1000);
    my (@open, @ids);
    for (1 .. 4) {
        my ($c, $id) = hang($n, 'mixed', "mixed $_ [[echo+hold]]",
                            '/x/priced');
        push @open, $c;
        push @ids, $id;
    }
    ok(held_is(4), 'four run');
    upload($n, 'mixed', $_, 100) for @ids;
    is($n->post("/agent/tasks/$ids[0]/cancel", {}, as('mixed'))->{status},
       200, 'one is cancelled');
    like($n->request(method => 'DELETE', path => "/agent/tasks/$ids[1]",
                     as('mixed'))->{status}, qr/^20[04]$/, 'one deleted');
    is(run($n, 'mixed', "fails $_ [[http:400]]", '/x/priced')->{status}, 502,
       'one fails') for 1 .. 2;
    run($n, 'mixed', 'w [[write:a.txt:hello]]', '/x/priced');
    $llm->release;
    $_->answer for @open;
    true_counts('mixed', 'cancelled, deleted, failed');
    is(one(q{select count(*) filter (where price > 0), count(*) from }
           . q{agent.usage where tenant = 'mixed'}), '3|7',
       'three were paid, of seven');
    $n->finish;
}


# Bursts over two nginx -----------------------------------------------------------

# Sends all at once, each request to one of them in turn; the answers later.

sub volley {
    my ($nginx, $tenant, @requests) = @_;

    my @c = map { $nginx->[$_ % @$nginx]->connect(seconds => 90) }
            0 .. $#requests;
    $c[$_]->send(method => 'POST', as($tenant, %{$requests[$_]{headers} || {}}),
                 %{$requests[$_]}{qw(path body)}) for 0 .. $#requests;
    return @c;
}


sub answered {
    my (@c) = @_;
    my @ready = IO::Select->new(map { $_->{sock} } @c)->can_read(0);
    return scalar @ready;
}


# The most calls that were going on at once, as the LLM has seen it.

sub peak {
    my ($pattern) = @_;

    my @edges = map { ([$_->{time}, 1], [$_->{time} + $_->{seconds}, -1]) }
                $llm->calls($pattern);
    my ($now, $most) = (0, 0);
    for (sort { $a->[0] <=> $b->[0] || $a->[1] <=> $b->[1] } @edges) {
        $now += $_->[1];
        $most = max($most, $now);
    }
    return $most;
}


sub statuses {
    my (@c) = @_;
    my %n;
    $n{$_->answer->{status}}++ for @c;
    return \%n;
}


{
    my @n = map { on_record(start(workers => 2), $pg) } 1 .. 2;
    my $front = start(workers => 4, http => '    agent_run off;');
    my $steps_at = sub {
        my ($at, @ids) = @_;
        return map { { path => "$at/tasks/$_/steps", body => {} } } @ids;
    };
    my $tasks = sub {
        my ($tenant, $what, $at) = @_;
        return map { task($n[0], $tenant, "$what $_ [[echo+hold]]", $at) }
               1 .. 100;
    };

    # one that has nothing to do with any of it goes on all the time
    my $others = 0;
    my $other = sub {
        $others++ if run($n[$others % 2], 'other', "calm $others")->{status}
                     == 200;
        return 1;
    };

    quota('b-run', running => 3);
    my @c = volley(\@n, 'b-run', $steps_at->('/agent',
                                             $tasks->('b-run', 'burst')));
    my $most = 0;
    ok(poll_until(sub {
        $most = max($most, steps('b-run', 'status = 1'));
        answered(@c) == 97;
    }, 30), 'running: ninety-seven of a hundred are answered at once')
        or diag answered(@c);
    $other->();
    is($llm->stats->{held}, 3, 'three run');
    is(max($most, steps('b-run', 'status = 1')), 3, 'never more');
    is(steps('b-run'), 3, 'and no others are stored');
    $llm->release;
    is_deeply(statuses(@c), { 200 => 3, 429 => 97 }, 'the others are refused');

    # those who come again and again are all served, three at a time
    my @ids = map { task($n[0], 'b-run', "again $_ [[echo+delay:20]]") }
              1 .. 60;
    my $rounds = 0;
    while (@ids && $rounds++ < 200) {
        my @again = volley(\@n, 'b-run', $steps_at->('/agent', @ids));
        $most = max($most, steps('b-run', 'status = 1'));
        @ids = map { $again[$_]->answer->{status} == 429 ? $ids[$_] : () }
               0 .. $#again;
    }
    is(scalar @ids, 0, 'who comes again is served in the end');
    cmp_ok($most, '<=', 3, 'still three at once');
    cmp_ok(peak(qr/"again \d/), '<=', 3, 'also as the LLM has seen it');
    true_counts('b-run', 'a burst of running steps');

    # those who wait in the queue and those who do not, of two agents
    quota('b-both', running => 3);
    my %of = map {
        my $at = $_;
        ($at => [map { task($n[0], 'b-both', "both $_ [[echo+delay:20]]", $at) }
                 1 .. 40])
    } '/agent', '/x/cent';
    @c = volley(\@n, 'b-both', map { +{ %$_, headers => { Prefer =>
                'respond-async' } } } map { $steps_at->($_, @{$of{$_}}) }
                sort keys %of);
    my @sync = volley(\@n, 'b-both', $steps_at->('/agent',
                      map { task($n[0], 'b-both', "sync $_") } 1 .. 20));
    $most = 0;
    ok(poll_until(sub {
        $most = max($most, steps('b-both', 'status = 1'));
        steps('b-both', 'status in (0, 1)') eq '0';
    }, 60), 'some of them in the queue');
    is_deeply(statuses(@c), { 202 => 80 }, 'those are taken, all of them');
    cmp_ok($most, '<=', 3, 'and three at once are run');
    cmp_ok(peak(qr/"(both|sync) \d/), '<=', 3, 'also as the LLM has seen it');
    is(steps('b-both', 'status = 2'), 80 + (statuses(@sync)->{200} // 0),
       'each of them');
    true_counts('b-both', 'a burst from the queue and beside it');

    # in the queue: nobody takes them out there
    $_->stop for @n;
    quota('b-queue', queued => 7);
    @c = volley([$front], 'b-queue', map { +{ %$_, headers => { Prefer =>
                'respond-async' } } } $steps_at->('/agent',
                map { task($front, 'b-queue', "queue $_") } 1 .. 100));
    is_deeply(statuses(@c), { 202 => 7, 429 => 93 }, 'queued: seven');
    is(one(q{select count(*) from agent.queue where tenant = 'b-queue'}), 7,
       'and no more are in the queue');
    @c = volley([$front], 'b-queue2', map { { path => '/x/auto/tasks',
                body => { input => "made $_" } } } 1 .. 20);
    is_deeply(statuses(@c), { 200 => 20 }, 'another tenant: all of twenty');
    @c = volley([$front], 'b-queue', map { { path => '/x/auto/tasks',
                body => { input => "made $_" } } } 1 .. 20);
    is_deeply(statuses(@c), { 429 => 20 }, 'tasks with a first step: none');
    $_->start for @n;
    on_record($_, $pg) for @n;
    ok(idle('b-queue') && idle('b-queue2'), 'they are run');
    true_counts('b-queue', 'a burst of queued steps');

    quota('b-day', steps_day => 10);
    @c = volley(\@n, 'b-day', $steps_at->('/agent',
                map { task($n[0], 'b-day', "day $_") } 1 .. 100));
    $other->();
    is_deeply(statuses(@c), { 200 => 10, 429 => 90 }, 'of a day: ten');
    is(one(q{select count(*) from agent.usage where tenant = 'b-day'}), 10,
       'in the ledger as well');
    true_counts('b-day', 'a burst of steps of a day');

    quota('b-money', money_month => 4.2);
    @c = volley(\@n, 'b-money', $steps_at->('/x/priced',
                map { task($n[0], 'b-money', "money $_", '/x/priced') }
                1 .. 100));
    $other->();
    is_deeply(statuses(@c), { 200 => 8, 402 => 92 }, 'money: eight');
    is(one(q{select sum(price) from agent.usage where tenant = 'b-money'}),
       '4.000000', 'are all that was spent');
    true_counts('b-money', 'a burst of paid steps');

    my $before = files();
    quota('b-bytes', artifact_bytes => 250);
    my $id = task($n[0], 'b-bytes', 'x');
    my @type = ('Content-Type' => 'multipart/form-data; boundary=XyZ');
    @c = volley(\@n, 'b-bytes', map { { path => "/agent/tasks/$id/artifacts",
                body => form(10), headers => { @type } } } 1 .. 100);
    $other->();
    is_deeply(statuses(@c), { 200 => 25, 507 => 75 },
              'bytes: twenty-five uploads');
    is(one(q{select sum(size) from agent.artifact where tenant = 'b-bytes'}),
       250, 'fill it');
    ok(poll_until(sub { files() == $before + 25 }), 'and no others are left')
        or diag files() - $before;

    # by agents, all of which write at once
    quota('b-write', artifact_bytes => 45);
    @c = volley(\@n, 'b-write', $steps_at->('/agent',
                map { task($n[0], 'b-write', "w $_ [[write:a.txt:0123456789]]")
                } 1 .. 40));
    is_deeply(statuses(@c), { 200 => 4, 507 => 36 }, 'four steps that write');
    is(one(q{select sum(size) from agent.artifact where tenant = 'b-write'}),
       40, 'no more bytes');
    ok(poll_until(sub { files() == $before + 29 }), 'no others are left')
        or diag files() - $before;
    true_counts('b-write', 'a burst of writing steps');

    is($others, 4, 'nobody else was held up');
    $_->finish for @n, $front;
}


# By API keys -------------------------------------------------------------------

{
    my $n = AgentTest::Nginx->new(conf => conf(pg => $pg, llm => $llm,
        artifacts => $shared, http => '    agent_auth_zone keys:1m;',
        server => "auth_request /_auth;\n"
                  . 'location = /_auth { internal; agent_auth; }'));
    my %key = map { $_ => one("select agent.create_key('$_')") }
              qw(key-a key-b);
    my $run = sub {
        my ($tenant) = @_;
        my @as = (headers => { Authorization => "Bearer $key{$tenant}" });
        my $r = $n->post('/agent/tasks', { input => "of $tenant" }, @as);
        return $n->post('/agent/tasks/' . ($r->{json}{task_id} // 'none')
                        . '/steps', {}, @as);
    };

    quota('key-a', steps_day => 2);
    is($run->('key-a')->{status}, 200, 'by its key') for 1 .. 2;
    refused($run->('key-a'), 429, qr/\b2 steps a day/, 'a third one');
    is($run->('key-b')->{status}, 200, 'by another key') for 1 .. 3;
    $n->finish;
}


# Somebody has a tenant's limits in his hands, for longer than a call waits:
# the others do not wait for that.

{
    my $n = start(workers => 1);
    quota('held', steps_day => 100);
    my @id = map { task($n, $_, 'x') } qw(held free free free);

    my $pid = fork // die "fork: $!";
    if (!$pid) {
        one("begin; select from agent.quota where tenant = 'held' for update; "
            . 'select pg_sleep(5); commit');
        POSIX::_exit(0);
    }
    ok(poll_until(sub { one('select count(*) from pg_stat_activity where '
                            . "wait_event = 'PgSleep' and query like "
                            . "'%pg_sleep(5)%'") }), 'the limits are held');

    my $c = $n->connect(seconds => 30);
    $c->send(method => 'POST', path => "/agent/tasks/$id[0]/steps",
             body => {}, as('held'));
    for my $id (@id[1 .. 3]) {
        is(step($n, 'free', $id)->{status}, 200, 'another one goes on');
    }
    my $r = $c->answer;
    is($r->{status}, 503, 'the one is to come again') or diag $r->{body};
    ok($r->{headers}{'retry-after'}, 'and told when');
    waitpid $pid, 0;
    $r = step($n, 'held', $id[0]);
    is($r->{status}, 200, 'then it goes on, too') or diag $r->{body};
    $n->finish;
}


is(one('select count(*) from agent.step s full join agent.usage u using '
   . '(task_id, step_id) where s.status in (2, 3, 4, 5) and (u.step_id is '
   . 'null or u.tenant <> s.tenant)'), 0,
   'each step that ended has its row in the ledger, of its tenant');

done_testing();
