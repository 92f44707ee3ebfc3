#!/usr/bin/perl

# A database that restarts, crashes, hangs, is away, refuses or is the wrong
# one: what was acknowledged is there once, what cannot be done is a 503 in
# good time, and when it is back all goes on by itself.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

my $pg = AgentTest::Postgres->new(private => 1, ssl => 1, fsync => 1);
my $llm = AgentTest::LLM->new;
my $usual = conf(pg => $pg, llm => $llm, workers => 2);
my $nginx = AgentTest::Nginx->new(conf => $usual);
my $dir = scratch();


# Clients that make tasks and run a step of each, one after the other, until
# told to stop.  Each writes down what it was told: kind, id, status.

my @clients;
my $round = 0;

sub load_start {
    my ($n, %o) = @_;

    $round++;
    for my $k (1 .. $n) {
        my $pid = fork // die "fork: $!";
        if ($pid) { push @clients, $pid; next }
        my $stop = 0;
        $SIG{TERM} = sub { $stop = 1 };
        open my $out, '>', "$dir/load-$round-$k" or POSIX::_exit(1);
        my $c;
        my $call = sub {
            my ($kind, $path, $body) = @_;
            $c ||= eval { $nginx->connect };
            unless ($c) { sleep 0.05; return }
            my $start = time;
            $c->send(method => 'POST', path => $path, body => $body);
            my $r = $c->answer;
            my $id = $r->{json}{$kind eq 'task' ? 'task_id' : 'step_id'} // '-';
            printf $out "%s %s %s %.3f %s\n", $kind, $id, $r->{status},
                time - $start, $r->{headers}{'retry-after'} // '-';
            undef $c if !$r->{status}
                        || ($r->{headers}{connection} || '') eq 'close';
            sleep 0.02 if $r->{status} != 200;
            return $r->{status} == 200 ? $id : undef;
        };
        for (my $i = 1; !$stop; $i++) {
            my $id = $call->('task', '/agent/tasks',
                             { input => "load $round-$k-$i" }) or next;
            $call->('step', "/agent/tasks/$id/steps", {}) if $o{steps};
        }
        close $out;
        POSIX::_exit(0);
    }
}


sub load_stop {
    kill 'TERM', @clients;
    waitpid $_, 0 for @clients;
    @clients = ();

    my @all = map { [split] } map { split /\n/, read_file($_) }
              glob "$dir/load-$round-*";
    return @all;
}


sub check_load {
    my ($name, @all) = @_;

    my (%n, %odd);
    my @tasks = map { $_->[1] } grep { $_->[0] eq 'task' && $_->[2] == 200 } @all;
    my @steps = map { $_->[1] } grep { $_->[0] eq 'step' && $_->[2] == 200 } @all;
    $n{$_->[2]}++ for @all;
    $odd{$_->[2]}++ for grep { $_->[2] !~ /^(?:200|503)$/ } @all;

    note "$name: ", join ', ', map { "$n{$_} x $_" } sort keys %n;
    cmp_ok(scalar @tasks, '>', 50, "$name: tasks were made");
    is_deeply(\%odd, {}, "$name: else 503 only");
    is(scalar(grep { $_->[2] == 503 && $_->[4] !~ /^\d+$/ } @all), 0,
       "$name: with Retry-After");

    my %have = map { $_ => 1 } split /\n/,
               $pg->psql('select task_id from agent.task');
    is(scalar(grep { !$have{$_} } @tasks), 0, "$name: no task is lost");
    is($pg->psql("select count(*) from (select 1 from agent.task where input "
       . "like 'load $round-%' group by input having count(*) > 1) x"), 0,
       "$name: none is there twice");

    return unless @steps;
    %have = map { $_ => 1 } split /\n/,
            $pg->psql('select step_id from agent.step where status = 2');
    is(scalar(grep { !$have{$_} } @steps), 0, "$name: no step is lost");
}


sub works {
    my ($name, $n) = @_;
    $n ||= $nginx;
    my $r;
    ok(poll_until(sub {
        $r = $n->post('/agent/tasks', { input => 'again' });
        $r->{status} == 200;
    }, 15), "$name: tasks are made again") or diag $r->{body};
    $r = $n->get("/agent/tasks/" . ($r->{json}{task_id} // ''));
    is($r->{status}, 200, "$name: and read");
}


# Under load: restarts, crashes, killed backends.

for (['a restart', sub { $pg->restart('fast') }],
     ['a crash', sub { $pg->restart('immediate') }],
     ['killed connections', sub {
         for (1 .. 20) {
             $pg->psql("select pg_terminate_backend(pid) from pg_stat_activity "
                       . "where usename = 'agent' and pid <> pg_backend_pid()");
             sleep 0.1;
         }
     }])
{
    my ($name, $fault) = @$_;
    load_start(8, steps => 1);
    sleep 0.7;
    $fault->();
    sleep 1;
    works($name);
    check_load($name, load_stop());
}

ok(poll_until(sub { $pg->psql('select count(*) from agent.step where '
   . 'status < 2') eq '0' }, 40), 'every step has ended');
is($pg->psql('select count(*) from agent.step s full join agent.usage u using '
   . '(task_id, step_id) where s.step_id is null or u.step_id is null'), 0,
   'each has one row in the ledger');


# Away for ten seconds, with a step in flight.

{
    my $id = make_task($nginx, 'paid for [[echo+delay:1000]]');
    my $c = $nginx->connect(seconds => 60);
    $c->send(method => 'POST', path => "/agent/tasks/$id/steps", body => {});
    sleep 0.3;
    $pg->stop('fast');
    my $down = time;

    my $r = $nginx->post('/agent/tasks', { input => 'while away' });
    my $took = time - $down;
    is($r->{status}, 503, 'the database is away');
    like($r->{headers}{'retry-after'} // '', qr/^\d+$/, 'Retry-After');
    like($r->{json}{message}, qr/database/, 'it is said');
    unlike($r->{body}, qr/libpq|socket|\.s\.PGSQL|host=/i,
           'in no words of libpq');
    cmp_ok($took, '<', 4, 'in good time');
    is($nginx->get("/agent/tasks/$id")->{status}, 503, 'reads too');

    my $slowest = 0;
    my %seen;
    for (1 .. 10) {
        my $start = time;
        $seen{$nginx->get('/agent/tasks')->{status}}++;
        $slowest = time - $start if time - $start > $slowest;
        sleep 0.2;
    }
    is_deeply(\%seen, { 503 => 10 }, 'and again');
    cmp_ok($slowest, '<', 4, 'none waits long');
    is($nginx->get('/nothing/here')->{status}, 404, 'nginx itself lives on');

    sleep 0.1 while time - $down < 10;
    $pg->start;
    works('ten seconds away');
    $r = $c->answer;
    is($r->{status}, 200, 'the step in flight was saved at last')
        or diag $r->{body};
    is($r->{json}{output}, 'paid for', 'with its answer');
    is($nginx->get("/agent/tasks/$id/steps")->{json}{steps}[0]{status},
       'completed', 'and is stored');
}


# A database that hangs: stopped processes say nothing at all.

{
    my @pids = split /\n/, $pg->psql("select pid from pg_stat_activity where "
        . "usename = 'agent' and pid <> pg_backend_pid()");
    ok(scalar @pids, 'there are connections');
    kill 'STOP', @pids;
    my $start = time;
    my $r = $nginx->post('/agent/tasks', { input => 'to a hung one' });
    is($r->{status}, 503, 'a hung database');
    cmp_ok(time - $start, '<', 13, 'is given up after some seconds');
    is($nginx->get('/nothing/here')->{status}, 404, 'no worker is stuck');
    kill 'CONT', @pids;
    works('hung');
    cmp_ok($pg->psql("select count(*) from agent.task where input = "
           . "'to a hung one'"), '<=', 1, 'the call is there once, or not');
}


# A queue, and a database that crashes while it is worked through.

{
    my $front = AgentTest::Nginx->new(conf => conf(pg => $pg, llm => $llm,
                    http => '    agent_run off;'));
    my $back = AgentTest::Nginx->new(conf => conf(pg => $pg, llm => $llm,
                    http => '    agent_concurrency 2;'));
    $nginx->stop;
    my @ids = map { make_task($front, "crashed $_ [[echo+delay:100]]") }
              1 .. 30;
    for (@ids) {
        my $r = run_step($front, $_, {},
                         headers => { Prefer => 'respond-async' });
        is($r->{status}, 202, 'queued') or diag $r->{body} if $_ eq $ids[0];
    }
    my $in = join ',', map { "'$_'" } @ids;
    ok(poll_until(sub { $pg->psql('select count(*) from agent.step where '
       . "status = 2 and task_id in ($in)") >= 5 }), 'some have run');
    $pg->restart('immediate');
    # claimed by a batch whose answer got lost: when the lease has lapsed
    ok(poll_until(sub { $pg->psql('select count(*) from agent.step where '
       . "status = 2 and task_id in ($in)") eq '30' }, 60), 'all have run')
        or diag $pg->psql('select seq, status, attempt, story from agent.step '
                          . "where status <> 2 and task_id in ($in)");
    my %calls;
    $calls{encode($_->{messages}) =~ /(crashed \d+)/ ? $1 : '?'}++
        for $llm->calls(qr/"crashed \d/);
    is(scalar keys %calls, 30, 'each was called');
    is(join(' ', grep { $calls{$_} != 1 } sort keys %calls), '', 'once');
    is($pg->psql("select count(*) from agent.queue where task_id in ($in)"),
       0, 'none is left in the queue');

    # the news are heard again after all these connections
    my $id = make_task($front, 'cancelled after a crash [[hang]]');
    my $c = $front->connect;
    $c->send(method => 'POST', path => "/agent/tasks/$id/steps", body => {});
    ok(poll_until(sub { $llm->stats->{active} == 1 }), 'a step that hangs');
    is($front->post("/agent/tasks/$id/cancel", {})->{status}, 200,
       'is cancelled at another nginx');
    my $start = time;
    ok(poll_until(sub { $llm->stats->{active} == 0 }, 15), 'and closed');
    cmp_ok(time - $start, '<', 3, 'at once');
    is($c->answer->{status}, 409, 'the client is told');
    $back->finish;
    $front->finish;
    $nginx->start;
    works('with the usual one');
}


# One call the database refuses does not harm the others of its batch.

{
    $pg->psql(q{
        create function agent.poison() returns trigger language plpgsql as $$
        begin
            if new.input like 'poison%' then raise exception 'poisoned'; end if;
            return new;
        end $$;
        create trigger poison before insert on agent.task
            for each row execute function agent.poison();});
    load_start(8);
    sleep 0.3;
    my %seen;
    for my $i (1 .. 25) {
        my $r = $nginx->post('/agent/tasks', { input => "poison $i" });
        $seen{$r->{status}}++;
        unlike($r->{body}, qr/poison/, 'no word of Postgres') if $i == 1;
        ok($r->{json}{message}, 'a message') if $i == 1;
    }
    my @all = load_stop();
    is_deeply(\%seen, { 500 => 25 }, 'the guilty calls fail');
    check_load('beside them', @all);
    is(scalar(grep { $_->[2] != 200 } @all), 0, 'the others do not');
    is($pg->psql("select count(*) from agent.task where input like 'poison%'"),
       0, 'nothing of theirs is stored');
    $pg->psql('drop trigger poison on agent.task');
}

$nginx->finish;


# Refused at start, then there.

{
    $pg->stop;
    my $n = AgentTest::Nginx->new(conf => $usual);
    is($n->get('/agent/tasks')->{status}, 503, 'nginx starts without it');
    $pg->start;
    works('started late', $n);
    $n->finish;
}


# Wrong password, wrong database, wrong schema: 503, and the log says why.

{
    $pg->psql("create role locked login superuser password 'right'");
    my $hba = "$pg->{data}/pg_hba.conf";
    write_file($hba, "hostssl all agent 127.0.0.1/32 trust\n"
               . "host all locked 127.0.0.1/32 scram-sha-256\n"
               . read_file($hba));
    $pg->reload_conf;
    my $fine = $pg->conninfo_tcp(user => 'locked', password => 'right');
    $pg->psql('create database bare', database => 'postgres');
    $pg->psql('create database newer owner agent', database => 'postgres');
    {
        local $pg->{name} = 'newer';
        $pg->load_schema;
        $pg->psql('insert into agent.schema_version (version) values (999)');
    }

    my @wrong = (
        ['a wrong password', $pg->conninfo_tcp(user => 'locked',
         password => 'wr0ngpass'), qr/password authentication failed/],
        ['no such database', $fine =~ s/dbname=\S+/dbname=nothing/r,
         qr/database "nothing" does not exist/],
        ['no schema', $fine =~ s/dbname=\S+/dbname=bare/r, qr/schema/],
        ['a newer schema', $fine =~ s/dbname=\S+/dbname=newer/r,
         qr/schema.*999|999.*schema/],
        ['an unknown host', 'host=no.such.host.invalid dbname=x user=agent',
         qr/no\.such\.host\.invalid|host/],
    );
    for (@wrong) {
        my ($name, $db, $like) = @$_;
        my $n = AgentTest::Nginx->new(no_start => 1,
                    conf => conf(db => $db, llm => $llm));
        if ($name eq 'an unknown host') {
            # a name is looked up once, at start: that may be refused
            next unless eval { $n->start };
        } else {
            $n->start;
        }
        my $r = $n->post('/agent/tasks', { input => 'x' });
        is($r->{status}, 503, "$name: 503");
        unlike($r->{body}, qr/$like/, "$name: the client is not told why");
        ok(poll_until(sub { $n->log_text =~ $like }, 3), "$name: the log is")
            or diag $n->log_text;
        unlike($n->log_text, qr/wr0ngpass|password=/, "$name: no secret");
        $n->finish;
    }

    my $n = AgentTest::Nginx->new(conf => conf(db => $fine, llm => $llm));
    works('the right password', $n);
    unlike($n->log_text, qr/password=/, 'no secret in the log');
    $n->finish;
}


# TLS; several hosts; unnamed statements; a short queue.

{
    my $db = $pg->conninfo_tcp(more => 'sslmode=require');
    my $n = AgentTest::Nginx->new(conf => conf(db => $db, llm => $llm));
    works('sslmode=require', $n);
    my $on = $pg->psql('select count(*), count(*) filter (where s.ssl) from '
        . 'pg_stat_ssl s join pg_stat_activity a using (pid) where '
        . "a.usename = 'agent' and client_addr is not null");
    like($on, qr/^(\d+)\|\1$/, 'all connections have TLS');
    unlike($on, qr/^0/, 'and there are some');
    $pg->psql("select pg_terminate_backend(pid) from pg_stat_activity where "
              . 'client_addr is not null');
    works('and after a reconnect', $n);
    $n->finish;

    my $dead = free_port();
    $db = "host=127.0.0.1,127.0.0.1 port=$dead,$pg->{port} dbname=$pg->{name} "
          . 'user=agent target_session_attrs=read-write';
    $n = AgentTest::Nginx->new(conf => conf(db => $db, llm => $llm));
    works('the second of two hosts', $n);
    $pg->restart;
    works('after a restart of it', $n);
    $n->finish;

    $n = AgentTest::Nginx->new(conf => conf(pg => $pg, llm => $llm,
                               db_opt => 'prepared=off'));
    works('prepared=off', $n);
    my $id = make_task($n, 'unnamed');
    is(run_step($n, $id)->{json}{output}, 'unnamed', 'steps too');
    $n->finish;

    $n = AgentTest::Nginx->new(conf => conf(pg => $pg, llm => $llm,
                               db_opt => 'wait=30s queue=3'));
    works('queue=3', $n);
    $pg->stop;
    my @c = map {
        my $c = $n->connect;
        $c->send(path => '/agent/tasks');
        sleep 0.05;
        $c;
    } 1 .. 6;
    my $start = time;
    my $r = $c[5]->answer;
    is($r->{status}, 503, 'the queue is full');
    cmp_ok(time - $start, '<', 15, 'said at once, with no wait');
    $pg->start;
    is($c[0]->answer->{status}, 200, 'the one that waited has its answer');
    $n->finish;
}

done_testing();
