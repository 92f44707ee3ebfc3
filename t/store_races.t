#!/usr/bin/perl

# What happens between the lines: a COMMIT that fails, a worker that quits or
# is killed in mid-step, a step that begins while another one of its task is
# being renewed, ended or swept away, a worker of another host whose lease
# lapses.

use strict;
use warnings;

use Errno ();
use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $nginx = AgentTest::Nginx->new(conf => conf(
    pg => $pg, llm => $llm, workers => 2,
    agents => { slow => 'timeout 120s; attempts 1; price 2; max_steps 500;' }));
on_record($nginx, $pg);
my $dir = scratch();

# whenever a step begins beside one that runs, it is written down
$pg->psql(q{
    create table agent.doubled (task_id uuid);
    create function agent.watch() returns trigger language plpgsql
    security definer as $$
    begin
        insert into agent.doubled select new.task_id from agent.step
            where task_id = new.task_id and seq <> new.seq and status = 1;
        return null;
    end $$;
    create trigger watch after insert on agent.step
        for each row execute function agent.watch();});


sub post_step {
    my ($task, %o) = @_;
    my $c = $nginx->connect(seconds => 30);
    $c->send(method => 'POST', path => "/agent/tasks/$task/steps",
             body => $o{body} || {});
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
        . "w.name = s.owner where s.task_id = '$task' and s.status = 1");
}


# A step that a worker of another host runs, or ran: its lease tells.

sub elsewhere {
    my ($input, $lease, %o) = @_;
    my $id = make_task($nginx, $input, at => '/agent');
    $pg->psql('insert into agent.step (task_id, seq, step_id, tenant, status, '
              . "attempt, owner, lease_until) values ('$id', 1, "
              . "gen_random_uuid(), '', 1, " . ($o{attempt} || 1)
              . ", 'elsewhere:0:1', now() + interval '$lease')");
    return $id;
}


# psql in the background: holds what it has locked for so many seconds

my @sessions;

sub session {
    my ($sql, $seconds) = @_;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        $pg->psql("begin; $sql; select pg_sleep($seconds); commit;");
        POSIX::_exit(0);
    }
    push @sessions, $pid;
    poll_until(sub {
        $pg->psql('select count(*) from pg_stat_activity where datname = '
                  . "current_database() and query like '%pg_sleep($seconds)%'"
                  . " and wait_event = 'PgSleep'") eq '1';
    }) or die 'the session does not begin';
}


sub sessions_end {
    waitpid $_, 0 for @sessions;
    @sessions = ();
}


sub kill_connections {
    return $pg->psql('select count(pg_terminate_backend(pid)) from '
        . "pg_stat_activity where application_name = 'nginx-agent' and "
        . 'datname = current_database()');
}


# kill -9, first part ---------------------------------------------------------

# held steps until both workers have one
my (%held, @spare);

for (1 .. 100) {
    my $id = make_task($nginx, "held $_ [[hold]]", at => '/x/slow');
    my $c = post_step($id);
    my $pid = poll_until(sub { runner($id) }) or die 'nobody runs the step';
    if ($held{$pid}) { push @spare, [$id, $c, $pid] }
    else { $held{$pid} = [$id, $c] }
    last if keys %held == 2;
}

my ($killed, $lives) = sort { $a <=> $b } keys %held;
my @before = $nginx->workers;
is_deeply([$killed, $lives], \@before, 'each worker runs a step')
    or BAIL_OUT('a worker takes no connections');

# clients who go on meanwhile, and write down what they were told
my @clients;
for my $k (1 .. 4) {
    my $pid = fork // die "fork: $!";
    if ($pid) { push @clients, $pid; next }
    my $stop = 0;
    $SIG{TERM} = sub { $stop = 1 };
    open my $out, '>', "$dir/told-$k" or POSIX::_exit(1);
    for (my $i = 1; !$stop; $i++) {
        my $r = eval { $nginx->post('/agent/tasks', { input => "$k-$i" }) };
        my $id = $r && $r->{json}{task_id} or next;
        print $out "task $id\n";
        my $s = eval { $nginx->post("/agent/tasks/$id/steps", {}) };
        print $out "step $s->{json}{step_id} $id\n"
            if $s && $s->{status} == 200;
    }
    close $out;
    POSIX::_exit(0);
}

sleep 0.5;
kill 'KILL', $killed;
my $at = time;

ok(poll_until(sub {
    my @now = $nginx->workers;
    @now == 2 && !grep { $_ == $killed } @now;
}, 5), 'kill -9: the master starts another worker');
is($held{$killed}[1]->answer->{status}, 0, 'the client is cut off');

for (1 .. 3) {
    my $r = $nginx->post('/agent/tasks', { input => "after $_" });
    is($r->{status}, 200, 'tasks are made');
    is(run_step($nginx, $r->{json}{task_id})->{json}{output}, "after $_",
       'and run');
}
sleep 0.5;
kill 'TERM', @clients;
waitpid $_, 0 for @clients;

my @told = map { split /\n/, read_file($_) } glob "$dir/told-*";
my @tasks = map { /^task (\S+)/ ? $1 : () } @told;
my %steps = map { /^step (\S+) (\S+)/ ? ($1 => $2) : () } @told;
cmp_ok(scalar @tasks, '>', 20, 'clients went on');
cmp_ok(scalar keys %steps, '>', 20, 'with steps');

# attempts 1: there is no second try
my $orphan = $held{$killed}[0];
ok(poll_until(sub { column($orphan, 'status') eq '4' }, 20),
   'its step is ended');
cmp_ok(time - $at, '<', 20, 'not only when its lease has lapsed');
is(column($orphan, 'lease_until is null, ended_at is null'), 't|f',
   'as failed');
is($pg->psql('select count(*), max(status), max(attempt) from agent.usage '
             . "where task_id = '$orphan'"), '1|4|2',
   'with one row in the ledger');

my $r = $nginx->get("/agent/tasks/$orphan/steps");
is($r->{json}{steps}[0]{status}, 'failed', 'the client sees it');
like(encode($r->{json}{steps}[0]{additional_output}), qr/worker/, 'and why');

# what a worker that was only frozen would write now
is($pg->psql("update agent.step set status = 2 where task_id = '$orphan' and "
             . 'seq = 1 and attempt = 1 and lease_until is not null '
             . 'returning 1'), '', 'a late end finds the fence');

$r = $nginx->post("/agent/tasks/$orphan/steps", { input => 'go on [[echo]]' });
is($r->{status}, 200, 'the next step of that task') or diag $r->{body};
is($r->{json}{output}, 'go on', 'works');
is(column($orphan, 'seq, status'), "1|4\n2|2", 'and follows it');

# a worker of another host cannot be seen to be dead
my $far = elsewhere('from afar', '15 s');
my $far_at = time;
my $spent = elsewhere('used up [[http:400]]', '15 s', attempt => 3);

$llm->release;
$r = $held{$lives}[1]->answer;
is($r->{status}, 200, 'the step of the other worker goes on');
like($r->{json}{output}, qr/held/, 'to its end');
for (@spare) {
    my ($id, $c, $pid) = @$_;
    next if $pid == $killed;
    is($c->answer->{status}, 200, 'so do its others');
}


# COMMIT fails ----------------------------------------------------------------

# A deferred trigger raises only then: which call of the batch it was is not
# said.  While the table is locked all the calls gather in one batch.

{
    $pg->psql(q{
        create function agent.bad() returns trigger language plpgsql as $$
        begin
            if new.input like 'bad%' then
                raise exception 'no at commit';
            end if;
            return null;
        end $$;
        create constraint trigger bad after insert on agent.task deferrable
            initially deferred for each row execute function agent.bad();
        create constraint trigger bad after insert on agent.step deferrable
            initially deferred for each row execute function agent.bad();});

    $r = $nginx->post('/agent/tasks', { input => 'bad alone' });
    is($r->{status}, 500, 'an error at COMMIT');
    unlike($r->{body}, qr/at commit/, 'in no words of Postgres');
    ok($r->{json}{message}, 'a message');

    session('lock table agent.task in exclusive mode', 0.9);
    my @c = map {
        my $c = $nginx->connect;
        $c->send(method => 'POST', path => '/agent/tasks',
                 body => { input => ($_ % 8 ? 'good' : 'bad') . " $_" });
        $c;
    } 1 .. 32;
    my %got;
    for (1 .. 32) {
        my $a = $c[$_ - 1]->answer;
        $got{$_ % 8 ? 'good' : 'bad'}{$a->{status}}++;
        push @tasks, $a->{json}{task_id} if $a->{status} == 200;
    }
    sessions_end();
    is_deeply(\%got, { good => { 200 => 28 }, bad => { 500 => 4 } },
              'only the guilty calls of a batch fail');
    is($pg->psql("select count(*), count(distinct input) from agent.task "
                 . "where input like 'good %'"), '28|28',
       'the others are stored, once');
    is($pg->psql("select count(*) from agent.task where input like 'bad%'"),
       0, 'the guilty are not');

    my @ids = map { make_task($nginx, "begin $_") } 1 .. 16;
    session('lock table agent.step in exclusive mode', 0.91);
    @c = map { post_step($ids[$_ - 1], body => { input => $_ % 8 ? "fine $_"
                                                 : "bad $_" }) } 1 .. 16;
    %got = ();
    for (1 .. 16) {
        my $a = $c[$_ - 1]->answer;
        $got{$_ % 8 ? 'good' : 'bad'}{$a->{status}}++;
        $steps{$a->{json}{step_id}} = $ids[$_ - 1] if $a->{status} == 200;
    }
    sessions_end();
    is_deeply(\%got, { good => { 200 => 14 }, bad => { 500 => 2 } },
              'so it is when steps begin');
    is(column($ids[7], 'count(*) over ()'), '', 'nothing of the guilty stays');

    $pg->psql('drop trigger bad on agent.task; drop trigger bad on agent.step');
    is(run_step($nginx, $ids[7])->{status}, 200, 'and it may try again');
}


# Races for a task ------------------------------------------------------------

{
    my $of = sub { "where task_id = '$_[0]' and seq = 1 and attempt = 1 "
                   . 'and lease_until is not null' };

    # each holds the row while others ask to begin a step; the lease lapses
    # while they wait
    my %task = map { $_ => elsewhere('raced for', '400 ms') }
               qw(renewed ended last);
    session("update agent.step set lease_until = now() + interval '30 s' "
            . $of->($task{renewed}), 1.2);
    session('update agent.step set status = 2, lease_until = null, '
            . 'ended_at = now() ' . $of->($task{ended}), 1.21);
    session('update agent.step set status = 2, lease_until = null, '
            . 'ended_at = now(), is_last = true ' . $of->($task{last}), 1.22);
    sleep 0.5;

    my %c = map { my $id = $task{$_}; $_ => [map { post_step($id) } 1 .. 4] }
            keys %task;
    my %got;
    for my $name (keys %c) {
        $got{$name}{$_->answer->{status}}++ for @{$c{$name}};
    }
    is_deeply(\%got, { map { $_ => { 409 => 4 } } keys %task },
              'a lapsed step that is held by its worker is busy');
    sessions_end();

    is(run_step($nginx, $task{renewed})->{status}, 409, 'renewed: still');
    is(column($task{renewed}, 'seq, status, attempt'), '1|1|1',
       'it runs on alone');
    is(run_step($nginx, $task{ended})->{status}, 200, 'ended: the next');
    is(column($task{ended}, 'seq, status, attempt'), "1|2|1\n2|2|1",
       'follows it');
    is(run_step($nginx, $task{last})->{status}, 200, 'ended for good');
    is(column($task{last}, 'seq, status, attempt'), '1|2|1', 'none follows');

    # the renewed one ends for real, or the sweep would in the end
    $pg->psql('update agent.step set status = 2, lease_until = null '
              . $of->($task{renewed}));
}

# clients of both workers want the same task's next step
{
    my $id = make_task($nginx, 'wanted by many', at => '/x/slow');
    my $body = { input => 'more [[echo+delay:150]]' };
    my (%got, %seen);
    for (1 .. 4) {
        for my $c (map { post_step($id, body => $body) } 1 .. 12) {
            my $a = $c->answer;
            $got{$a->{status}}++;
            $seen{$a->{json}{step_id}}++ if $a->{status} == 200;
        }
    }
    is(join(' ', sort keys %got), '200 409', 'many at once: 200 or 409');
    cmp_ok($got{200}, '>=', 4, 'one at a time');
    is($pg->psql("select count(*), max(seq) from agent.step where task_id = "
                 . "'$id'"), join('|', ($got{200}) x 2),
       'each 200 is a step, without gaps');
    is(scalar keys %seen, $got{200}, 'none was told twice');
    @steps{keys %seen} = ($id) x keys %seen;
}


# A worker that quits ---------------------------------------------------------

{
    my $id = make_task($nginx, 'to the end [[hold]]', at => '/x/slow');
    my $c = post_step($id);
    my $old = poll_until(sub { runner($id) }) or die 'nobody runs the step';

    ok($nginx->reload, 'a reload with a step in flight');
    ok(!gone($old), 'its worker waits for it');
    cmp_ok(kill_connections(), '>=', 2, 'its connections are killed');
    sleep 0.5;
    $llm->release;
    for (1 .. 5) { kill_connections(); sleep 0.1 }

    $r = $c->answer;
    is($r->{status}, 200, 'the step is answered') or diag $r->{body};
    is(column($id, 'status, attempt'), '2|1', 'and saved');
    $steps{$r->{json}{step_id}} = $id;
    ok(poll_until(sub { gone($old) }, 10), 'the worker leaves');
    ok(poll_until(sub {
        $nginx->post('/agent/tasks', { input => 'on' })->{status} == 200;
    }), 'the new ones serve');
}


# A lease that lapses ---------------------------------------------------------

is(column($far, 'status, attempt'), '1|1', 'a worker of another host')
    if time - $far_at < 14;
ok(poll_until(sub { column($far, 'status, attempt') eq '2|2' },
              $far_at + 50 - time), 'its step is taken over');
my $took = time - $far_at;
note sprintf 'after %.1f s', $took;
cmp_ok($took, '>', 14.9, 'not before its lease has lapsed');
is($pg->psql("select count(*), max(status), max(attempt) from agent.usage "
             . "where task_id = '$far'"), '1|2|2', 'and billed once');
ok(poll_until(sub { column($spent, 'status') eq '4' }, 15),
   'one whose attempts are used up is ended');
is($pg->psql('select count(*), max(status) from agent.usage where task_id = '
             . "'$spent'"), '1|4', 'with one row in the ledger');
is(scalar(() = $llm->calls(qr/"used up/)), 0, 'with no further call');


# Answers that get lost --------------------------------------------------------

# Between nginx and Postgres.  Told by SIGUSR1, it loses the next answer on
# each connection, and the connection: what was asked for has happened, and
# nobody hears of it.

sub lossy {
    my $listen = IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1')
        or die "cannot listen: $!";
    my $pid = fork // die "fork: $!";
    if ($pid) {
        AgentTest::remember($pid);
        return ($pid, $listen->sockport);
    }

    my (%peer, %server, %lose);
    my $select = IO::Select->new($listen);
    my $close = sub {
        for my $s ($_[0], delete $peer{$_[0]}) {
            delete $peer{$s};
            delete $server{$s};
            delete $lose{$s};
            $select->remove($s);
            close $s;
        }
    };
    $SIG{USR1} = sub { %lose = map { $_ => 1 } keys %server };
    $SIG{PIPE} = 'IGNORE';
    $SIG{TERM} = 'DEFAULT';

    while (1) {
        for my $s ($select->can_read) {
            if ($s == $listen) {
                my $c = $listen->accept or next;
                my $to = IO::Socket::UNIX->new(
                    Peer => "$pg->{sockets}/.s.PGSQL.$pg->{port}") or next;
                ($peer{$c}, $peer{$to}, $server{$to}) = ($to, $c, 1);
                $select->add($c, $to);
                next;
            }
            my $to = $peer{$s} or next;     # closed in this round
            my $n = sysread $s, my $bytes, 1 << 18;
            next if !defined $n && $!{EINTR};
            if (!$n || $lose{$s}) { $close->($s); next }
            while (length $bytes) {
                my $sent = syswrite $to, $bytes;
                next if !defined $sent && $!{EINTR};
                if (!$sent) { $close->($s); last }
                substr $bytes, 0, $sent, '';
            }
        }
    }
}


# While one nginx works through a queue, the answers to what claims, ends and
# renews get lost, or the connections are killed before it is done.

{
    my %agents = (lost => 'timeout 20s; attempts 5; price 1;');
    my $n = AgentTest::Nginx->new(conf => conf(pg => $pg, llm => $llm,
        agents => \%agents, http => '    agent_run off;'));
    my ($lossy, $port) = lossy();
    $nginx->stop;

    my @ids;
    for my $k (1 .. 200) {
        # some are put back, to be run a second later
        my $how = $k % 4 ? 'echo+delay:50' : 'http:429:1:1';
        my $id = make_task($n, "lost $k [[$how]]", at => '/x/lost');
        my $a = run_step($n, $id, {}, at => '/x/lost',
                         headers => { Prefer => 'respond-async' });
        is($a->{status}, 202, "step $k is queued") if $a->{status} != 202;
        push @ids, $id;
    }
    my $in = 'task_id in (' . join(',', map { "'$_'" } @ids) . ')';
    is($pg->psql("select count(*) from agent.queue where $in"), 200,
       'two hundred steps are queued');
    $n->finish;

    $n = AgentTest::Nginx->new(conf => conf(llm => $llm, agents => \%agents,
        db => "host=127.0.0.1 port=$port dbname=$pg->{name} user=agent",
        http => '    agent_concurrency 8; agent_queue 1000 poll=1s;'));
    my ($left, $times) = (200, 0);
    while ($pg->psql("select count(*) from agent.queue where $in")) {
        if (rand > 0.3) {
            kill 'USR1', $lossy;
        } else {
            # those that write: the last thing they said was a change
            $pg->psql('select pg_terminate_backend(pid) from pg_stat_activity '
                . "where application_name = 'nginx-agent' and datname = "
                . 'current_database() and query ~ '
                . "'(agent.queue|update agent.step|commit)'");
        }
        last if ++$times == 400;
        sleep rand 0.2;
    }
    ok(poll_until(sub {
        $left = $pg->psql("select count(*) from agent.step where $in and "
                          . 'status < 2');
        $left == 0;
    }, 60), 'every one ends') or diag "$left are left", $n->log_text;
    note "$times times; spared: ", $pg->psql('select count(*) from agent.step '
        . "where $in and spared > 0"), ', again: ', $pg->psql('select count(*) '
        . "from agent.step where $in and attempt > spared + 1");
    cmp_ok($times, '>', 3, 'though many an answer got lost');

    is($pg->psql("select string_agg(distinct status::text, ' ') from "
                 . "agent.step where $in"), 2, 'all are completed');
    is($pg->psql("select count(*) from agent.step where $in and "
                 . 'attempt - spared not between 1 and 5'), 0,
       'none by more attempts than it may have');
    is($pg->psql("select count(*) from agent.queue where $in"), 0,
       'none is in the queue');

    my (%calls, @over);
    $calls{$_->{step}}++ for $llm->started;
    for (split /\n/, $pg->psql('select step_id, attempt, spared from '
                               . "agent.step where $in"))
    {
        my ($step, $attempt, $spared) = split /\|/;
        push @over, "$_|" . ($calls{$step} // 0)
            if ($calls{$step} // 0) < 1 || ($calls{$step} // 0) > $attempt;
    }
    is("@over", '', 'each was called once for an attempt at most');
    is($pg->psql("select count(*), count(distinct step_id) from agent.usage "
                 . "where $in"), '200|200', 'each is billed once');
    $n->finish;
    AgentTest::end_pid($lossy, 'TERM');
    AgentTest::forget($lossy);
    $nginx->start;
}


# In the end ------------------------------------------------------------------

ok(poll_until(sub { $pg->psql('select count(*) from agent.step where '
   . 'status < 2') eq '0' }, 20), 'every step has ended');
is($pg->psql('select count(*) from agent.doubled'), 0,
   'no task ever had two that ran');

my %have = map { $_ => 1 } split /\n/,
           $pg->psql('select task_id from agent.task');
is(scalar(grep { !$have{$_} } @tasks), 0, 'no task is lost');
%have = map { split /\|/ } split /\n/,
        $pg->psql('select step_id, task_id from agent.step where status = 2');
is(scalar(grep { ($have{$_} // '') ne $steps{$_} } keys %steps), 0,
   'no step is lost');
is($pg->psql("select count(*) from agent.step s full join agent.usage u using "
   . "(task_id, step_id) where (s.step_id is null or u.step_id is null) and "
   . "coalesce(s.owner, '') <> 'elsewhere:0:1'"), 0,
   'each has one row in the ledger');

$nginx->finish(but => qr/worker process $killed exited on signal 9/);
done_testing();
