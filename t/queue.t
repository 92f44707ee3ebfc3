#!/usr/bin/perl

# The queue: what no worker may run now is stored and run later, oldest first,
# by whichever worker of whichever nginx has a free place; wake-ups that get
# lost, pauses that hold no place, steps that follow by themselves, and what
# happens when there are too many or nobody to run them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use IO::Select;
use List::Util qw(max);
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $shared = scratch() . '/artifacts';

mkdir $shared;
chmod 0777, $shared;


sub start {
    my (%o) = @_;
    return AgentTest::Nginx->new(conf => conf(pg => $pg, llm => $llm,
                                 artifacts => $shared, %o));
}


# The answer comes later.

sub post_step {
    my ($nginx, $task, %o) = @_;
    my $c = $nginx->connect(seconds => 60);
    my $at = $o{at} || '/agent';
    $c->send(method => 'POST', path => "$at/tasks/$task/steps",
             body => $o{body} || {}, headers => $o{headers});
    return $c;
}


sub one {
    my ($sql) = @_;
    return $pg->psql($sql);
}


sub steps_of { return one("select status, attempt from agent.step where "
                          . "task_id = '$_[0]' order by seq") }

sub queued { return one('select count(*) from agent.queue') }


sub held_is {
    my ($n, $seconds) = @_;
    return poll_until(sub { $llm->stats->{held} == $n }, $seconds || 10);
}


# Posts a step of a task of its own for each name, one after the other: each
# is stored before the next one is sent.  One that is refused is sent again:
# the queue's length is counted, and may be one off for a second.

sub post_all {
    my ($nginx, $at, @names) = @_;

    my @all;
    for my $name (@names) {
        my $id = make_task($nginx, "$name [[echo+hold]]", at => $at);
        my $c = post_step($nginx, $id, at => $at);
        poll_until(sub {
            return 1 if steps_of($id) ne '';
            return 0 if !IO::Select->new($c->{sock})->can_read(0);
            note "$name: ", $c->answer->{status};
            $c = post_step($nginx, $id, at => $at);
            return 0;
        }) or die "the step of \"$name\" is not stored";
        push @all, [$id, $c];
    }
    return @all;
}


# The most calls that were going on at once, of those whose input matches.

sub most {
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


# The numbers of the inputs "NAME N" in the order in which they were called.

sub order {
    my ($name) = @_;
    return map { encode($_->{messages}) =~ /$name (\d+)/ ? $1 : () }
           sort { $a->{time} <=> $b->{time} } $llm->calls(qr/"$name \d/);
}


sub statuses {
    my (@c) = @_;
    my %n;
    $n{$_->answer->{status}}++ for @c;
    return \%n;
}


# The places of one worker ----------------------------------------------------

{
    my $n = on_record(start(http => '    agent_concurrency 2;'), $pg);
    my @all = post_all($n, '/agent', map { "worker $_" } 1 .. 8);

    ok(held_is(2), 'two places: two steps run');
    is(queued(), 6, 'six are in the queue');
    is(one('select count(*) filter (where status = 0 and owner is null and '
       . 'lease_until is null), count(*) filter (where status = 1 and '
       . 'lease_until is not null) from agent.step'), '6|2',
       'stored as created, leased to nobody');

    my $id = $all[7][0];
    my $r = $n->get("/agent/tasks/$id/steps");
    is($r->{json}{steps}[0]{status}, 'created', 'a client sees it so');
    is(run_step($n, $id, {}, at => '/agent')->{status}, 409,
       'a queued step is in the way of another one of its task');

    for my $round (1 .. 4) {
        ok(held_is(2), "round $round: two are called");
        sleep 0.2;
        is($llm->stats->{held}, 2, "round $round: not more");
        $llm->release;
    }

    is_deeply(statuses(map { $_->[1] } @all), { 200 => 8 },
              'all are answered');
    is(most(qr/"worker \d/), 2, 'never more than two at once');
    my @order = order('worker');
    is_deeply([map { int(($_ + 1) / 2) } @order], [1, 1, 2, 2, 3, 3, 4, 4],
              'the oldest first') or diag "@order";
    is(one('select count(*) from agent.step where status = 2 and attempt = 1'),
       8, 'each with one attempt');
    is(queued(), 0, 'the queue is empty');
    $n->finish;
}


# The places of an agent, over all workers ------------------------------------

{
    my $n = on_record(start(workers => 4,
                            agents => { one => 'concurrency 1;' }), $pg);
    my @all = post_all($n, '/x/one', map { "agent $_" } 1 .. 6);

    ok(held_is(1), 'one place for the agent: one step runs');
    sleep 0.5;
    is($llm->stats->{held}, 1, 'not more, in four workers');
    is(queued(), 5, 'the others are queued');

    my $id = make_task($n, 'beside it');
    is(run_step($n, $id)->{json}{output}, 'beside it',
       'another agent has nothing to do with that');

    # the old worker still runs its step, and its place is still taken
    $n->write_conf;
    kill 'HUP', $n->{pid};
    sleep 1.5;
    is($llm->stats->{held}, 1, 'a reload makes no place free');

    for my $round (1 .. 6) {
        my $start = time;
        ok(held_is(1), "round $round: one is called");
        note sprintf 'after %.2f s', time - $start;
        $llm->release;
        poll_until(sub { scalar(() = $llm->calls(qr/"agent \d/)) >= $round });
    }

    # those who wait on a worker that left may be told to look elsewhere
    my $told = statuses(map { $_->[1] } @all);
    is_deeply([grep { !/^20[02]$/ } keys %$told], [], 'all are answered')
        or diag encode($told);
    ok(poll_until(sub { one("select count(*) from agent.step s join agent.task "
       . "t using (task_id) where t.agent = 'one' and s.status = 2") eq '6' }),
       'all have run');
    is(most(qr/"agent \d/), 1, 'one at a time');
    is(join(' ', order('agent')), '1 2 3 4 5 6', 'the oldest first');
    $n->finish;
}


# One nginx accepts, the other one executes -----------------------------------

{
    my $front = start(workers => 2, http => '    agent_run off;',
                      llm_port => free_port());

    # nothing but the agents: it has no agent_pass at all
    my $conf = conf(pg => $pg, llm => $llm, artifacts => $shared, workers => 2,
                    agents => { auto => 'run auto;' });
    $conf =~ s/^ *location \S+ \{ agent_pass [^\n]*\n//mg;
    unlike($conf, qr/agent_pass/, 'one without agent_pass');
    my $back = AgentTest::Nginx->new(conf => $conf);

    my $id = make_task($front, 'from the front [[write:a.txt:hello]]');
    my $start = time;
    my $r = run_step($front, $id);
    is($r->{status}, 200, 'run by the other one') or diag $r->{body};
    note sprintf 'in %.0f ms', 1000 * (time - $start);
    is($r->{json}{artifacts}[0]{file_name}, 'a.txt', 'with its artifact');
    my $file = $r->{json}{artifacts}[0]{artifact_id} // 'none';
    is($front->get("/agent/tasks/$id/artifacts/$file")->{body}, 'hello',
       'which the front sends');

    my ($pid) = one("select w.pid from agent.step s join agent.worker w on "
                    . "w.name = s.owner where s.task_id = '$id'") || 0;
    ok(!$pid || grep({ $_ == $pid } $back->workers), 'by a worker of it');

    my @ids = map { make_task($front, "many $_") } 1 .. 40;
    my @c = map { post_step($front, $_) } @ids;
    is_deeply(statuses(@c), { 200 => 40 }, 'forty at once, from the front');
    is(scalar(() = $llm->calls(qr/"many \d/)), 40, 'each called once');

    # what only the one that executes could close
    $id = make_task($front, 'to be cancelled [[hang]]');
    my $c = post_step($front, $id);
    ok(poll_until(sub { ($llm->stats->{active} || 0) >= 1
                        && steps_of($id) eq '1|1' }), 'a step that hangs');
    $r = $front->post("/agent/tasks/$id/cancel", {});
    is($r->{status}, 200, 'is cancelled at the front') or diag $r->{body};
    $start = time;
    ok(poll_until(sub { $llm->stats->{active} == 0 }, 10),
       'and its upstream closed');
    cmp_ok(time - $start, '<', 2, 'within two seconds');
    is($c->answer->{status}, 409, 'who waited for it is told');
    is(steps_of($id) =~ /^5\|/, 1, 'it stays cancelled');

    $back->stop;
    $id = make_task($front, 'for later');
    $r = run_step($front, $id, {}, headers => { Prefer => 'respond-async' });
    is($r->{status}, 202, 'nobody executes: taken all the same')
        or diag $r->{body};
    sleep 0.5;
    is(steps_of($id), '0|0', 'it waits');
    $back->start;
    ok(poll_until(sub { steps_of($id) eq '2|1' }, 15),
       'and runs when there is somebody');
    $back->finish;
    $front->finish;
}


# Too many --------------------------------------------------------------------

{
    my $n = start(http => '    agent_concurrency 1; agent_queue 5 poll=1s;',
                  server => 'location = /status { agent_status; }');
    on_record($n, $pg);
    my @all = post_all($n, '/agent', map { "full $_" } 1 .. 6);
    is(queued(), 5, 'one runs, five are queued');
    ok(poll_until(sub { $n->get('/status')->{json}{queue_depth} == 5 }),
       'and it has been seen');
    my $id = make_task($n, 'one too many');
    my $r;
    ok(poll_until(sub {
        $r = run_step($n, $id);
        $r->{status} == 503;
    }, 5), 'the next one is refused') or diag $r->{body};
    like($r->{headers}{'retry-after'} // '', qr/^\d+$/, 'with Retry-After');
    like($r->{json}{message} // '', qr/queue/, 'in words');
    is(steps_of($id), '', 'and nothing of it is stored');
    is(queued(), 5, 'nor queued');

    for (1 .. 6) { held_is(1); $llm->release; sleep 0.1 }
    is_deeply(statuses(map { $_->[1] } @all), { 200 => 6 },
              'the others are answered');
    ok(poll_until(sub { $r = run_step($n, $id); $r->{status} == 200 }, 10),
       'then there is room again') or diag $r->{body};
    $n->finish;
}


# More agents than places -----------------------------------------------------

# a step in the queue that nobody was told of
sub insert_quietly {
    my ($task, $agent) = @_;
    one('insert into agent.step (task_id, seq, step_id, tenant, status, '
        . "attempt) values ('$task', 1, gen_random_uuid(), '', 0, 0); "
        . 'insert into agent.queue (task_id, seq, tenant, agent) values '
        . "('$task', 1, '', '$agent')");
}

{
    my $n = start(http => '    agent_concurrency 1; agent_queue 100 poll=1s;',
                  agents => { map { ($_ => '') } qw(a b c y z) });

    # the last ones are looked at, too, when the first ones have nothing
    for my $agent (qw(z y)) {
        my $id = make_task($n, "the last $agent", at => "/x/$agent");
        insert_quietly($id, $agent);
        ok(poll_until(sub { steps_of($id) eq '2|1' }, 15),
           "agent $agent among idle ones: its step is found");
    }

    # nor are they left behind by one that always has something
    my $post = sub {
        my ($agent, @numbers) = @_;
        return map {
            my $id = make_task($n, "$agent $_ [[echo+delay:100]]",
                               at => "/x/$agent");
            my $r = run_step($n, $id, {}, at => "/x/$agent",
                             headers => { Prefer => 'respond-async' });
            is($r->{status}, 202, 'queued') if $r->{status} != 202;
            $id;
        } @numbers;
    };
    my @ids = ($post->('a', 1 .. 10), $post->('z', 11), $post->('a', 12 .. 30));
    ok(poll_until(sub { one('select count(*) from agent.step where status = 2 '
       . 'and task_id in (' . join(',', map { "'$_'" } @ids) . ')') eq '30' },
       30), 'a busy agent and another one, with one place');
    my @order = order('[az]');
    my ($at) = grep { $order[$_] == 11 } 0 .. $#order;
    ok(defined $at && $at < 12, 'the other one has its turn')
        or diag "@order";
    $n->finish;
}


# Wake-ups that get lost; pauses ----------------------------------------------

{
    my $n = start(http => '    agent_concurrency 1; agent_queue 100 poll=1s;');

    for my $round (1 .. 3) {
        my $id = make_task($n, "quiet $round");
        my $start = time;
        insert_quietly($id, 'writer');
        ok(poll_until(sub { steps_of($id) eq '2|1' }, 15),
           'a step nobody was told of is found');
        note sprintf 'after %.1f s', time - $start;
        cmp_ok(time - $start, '<', 6, 'within seconds');
    }

    # Retry-After: 5
    my $id = make_task($n, 'later [[http:429:1:5]]');
    my $c = post_step($n, $id);
    ok(poll_until(sub { steps_of($id) eq '0|1' }),
       'told to come back later: it is in the queue again');
    is(one("select run_at > now() + interval '1 s' from agent.queue where "
       . "task_id = '$id'"), 't', 'not to be run before');
    my $r = $n->get("/agent/tasks/$id/steps");
    my $step = $n->get("/agent/tasks/$id/steps/"
                       . $r->{json}{steps}[0]{step_id})->{json};
    is($step->{status}, 'created', 'its status');
    like(encode($step->{run}), qr/429/, 'why it waits');

    my $start = time;
    for (1 .. 4) {
        my $other = make_task($n, "meanwhile $_");
        is(run_step($n, $other)->{status}, 200, 'others run meanwhile');
    }
    cmp_ok(time - $start, '<', 4, 'at once: it holds no place');
    is(steps_of($id), '0|1', 'it still waits');

    $r = $c->answer;
    is($r->{status}, 200, 'it is done in the end') or diag $r->{body};
    is(steps_of($id), '2|2', 'by the second attempt');
    my @calls = sort { $a->{time} <=> $b->{time} } $llm->calls(qr/"later/);
    is(scalar @calls, 2, 'two calls');
    cmp_ok($calls[1]{time} - $calls[0]{time}, '>', 4.9,
           'and the second not too early');
    $n->finish;
}


# run auto --------------------------------------------------------------------

# Answers, one for each turn of the conversation.
sub script { return '[[' . encode([@_]) . ']]' }

{
    my $n = start(workers => 2, agents => {
        auto => 'run auto; max_steps 20;', few => 'run auto; max_steps 4;' });
    my $make = sub {
        my ($agent, $input) = @_;
        my $r = $n->post("/x/$agent/tasks", { input => $input });
        is($r->{status}, 200, 'a task of an automatic agent')
            or diag $r->{body};
        return $r->{json}{task_id};
    };
    my $done = sub {
        my ($id, $want) = @_;
        return poll_until(sub { steps_of($id) eq join "\n", @$want });
    };
    # it must stay so
    my $stays = sub {
        my ($id, $want, $name) = @_;
        sleep 1;
        is(steps_of($id), join("\n", @$want), $name);
        is(one("select count(*) from agent.queue where task_id = '$id'"), 0,
           'nothing of it is in the queue');
    };
    my @two = ('2|1') x 2;

    my $id = $make->('auto', 'by itself ' . script('write:a.txt:A', 'list',
                                                  'finish:all done'));
    ok($done->($id, ['2|1', @two]), 'it runs until it is done')
        or diag steps_of($id);
    my $steps = $n->get("/x/auto/tasks/$id/steps")->{json}{steps};
    is(join(' ', map { $_->{is_last} ? 'last' : '-' } @$steps), '- - last',
       'its last step says so');
    is($steps->[2]{output}, 'all done', 'and what came of it');
    is(one("select count(*), count(distinct step_id) from agent.usage where "
       . "task_id = '$id'"), '3|3', 'each step is billed once');
    $stays->($id, ['2|1', @two], 'then it stops');

    $id = $make->('auto', 'asks ' . script('list', 'ask:Which way?', 'list',
                                           'finish:arrived'));
    ok($done->($id, ['2|1', '3|1']), 'it asks') or diag steps_of($id);
    $stays->($id, ['2|1', '3|1'], 'and waits');
    my $r = run_step($n, $id, { input => 'left' }, at => '/x/auto');
    is($r->{status}, 200, 'the answer is taken') or diag $r->{body};
    ok($done->($id, ['2|1', '3|1', '2|1', '2|1']), 'and it goes on')
        or diag steps_of($id);
    is(scalar(() = $llm->calls(qr/"asks .*left/)), 2, 'with the answer');

    $id = $make->('few', 'for ever [[loop]]');
    ok($done->($id, [('2|1') x 4]), 'max_steps') or diag steps_of($id);
    $stays->($id, [('2|1') x 4], 'is the end');

    $id = $make->('auto', 'fails ' . script('list', 'http:400', 'finish:x'));
    ok($done->($id, ['2|1', '4|1']), 'a failure') or diag steps_of($id);
    $stays->($id, ['2|1', '4|1'], 'is the end');

    $id = $make->('auto', 'cancelled ' . script('list', 'list+hang', 'list'));
    ok($done->($id, ['2|1', '1|1']), 'in its second step')
        or diag steps_of($id);
    poll_until(sub { $llm->stats->{active} == 1 });
    $r = $n->post("/x/auto/tasks/$id/cancel", {});
    is($r->{status}, 200, 'it is cancelled') or diag $r->{body};
    ok(poll_until(sub { $llm->stats->{active} == 0 }, 5), 'the call is closed');
    sleep 1;
    like(steps_of($id), qr/^2\|1\n5\|\d$/, 'which is the end');
    is(one("select count(*) from agent.queue where task_id = '$id'"), 0,
       'nothing of it is in the queue');

    # many at once, and none of the clients waits
    my @ids = map { $make->('auto', "crowd $_ " . script('list', 'list',
                                                         'finish:ok')) }
              1 .. 12;
    ok(poll_until(sub { one('select count(*) from agent.step where is_last '
       . 'and task_id in (' . join(',', map { "'$_'" } @ids) . ')') eq '12' },
       20), 'a dozen side by side');
    is(one('select count(*), max(attempt), max(seq) from agent.step where '
       . 'task_id in (' . join(',', map { "'$_'" } @ids) . ')'), '36|1|3',
       'three steps each, once');
    $n->finish;
}


# Put back, as its agent has got full, with clients that wait ------------------

{
    my %o = (http => '    agent_queue 100 poll=1s;',
             agents => { one => 'concurrency 1;' });
    my $n = on_record(start(%o), $pg);
    my $other = start(%o);
    my $spared = 0;

    for my $round (1 .. 20) {
        $other->stop;
        my @ids = map { make_task($n, "back $round.$_ [[echo+hold]]",
                                  at => '/x/one') } 1 .. 4;
        my $of = '(' . join(',', map { "'$_'" } @ids) . ')';

        # all are taken before it is known that there is one place only
        my @c = map { $n->connect(seconds => 60) } @ids;
        $c[$_]->send(method => 'POST', path => "/x/one/tasks/$ids[$_]/steps",
                     body => {}) for 0 .. 3;
        ok(held_is(1), "round $round: one runs");
        ok(poll_until(sub { queued() == 3 }), 'three are in the queue');
        is(one("select count(*) from agent.queue where task_id in $of and "
               . 'not watched'), 0, 'whose clients want to be told');
        $spared += one("select count(*) from agent.step where task_id in $of "
                       . 'and spared > 0');

        $other->start;
        my $done = "select count(*) from agent.step where task_id in $of and "
                   . 'status = 2';
        ok(poll_until(sub { $llm->release; one($done) eq '4' }, 30),
           'all run, by whomever');
        my @r = map { $_->answer } @c;
        is_deeply([map { $_->{status} } @r], [(200) x 4], 'all are told');
        is(join(' ', map { $_->{json}{output} } @r),
           join(' ', map { "back $round.$_" } 1 .. 4), 'of their own steps');
        last if $spared > 6 && $round > 2;
    }
    cmp_ok($spared, '>', 0, 'some were handed back');
    $n->finish;
    $other->finish;
}


# Nobody executes -------------------------------------------------------------

{
    my $n = start(http => '    agent_run off; agent_queue 100 poll=1s '
                          . 'patience=2s;');
    my $id = make_task($n, 'in vain');
    my $start = time;
    my $r = run_step($n, $id);
    note sprintf 'after %.1f s: %s', time - $start, $r->{body};
    like($r->{status}, qr/^50[234]$/, 'a step nobody runs fails');
    like($r->{json}{message} // '', qr/\w+ \w+ \w+/, 'in words');
    is(steps_of($id) =~ /^4\|/, 1, 'it is stored so');
    is(queued(), 0, 'and the queue is empty');
    my $step = $n->get("/agent/tasks/$id/steps")->{json}{steps}[0];
    like($step->{additional_output}{error} // '', qr/\w+ \w+ \w+/, 'why');
    is(one('select count(*), max(price) from agent.usage where task_id = '
           . "'$id'"), '1|0.000000', 'one row in the ledger, of no price');
    is(scalar(() = $llm->calls(qr/"in vain/)), 0, 'no call was made');
    $n->finish;
}


# Through PgBouncer, in transaction mode --------------------------------------

SKIP: {
    my ($bouncer) = grep { -x } '/usr/sbin/pgbouncer', '/usr/bin/pgbouncer';
    skip 'there is no PgBouncer', 1 unless $bouncer;

    my $dir = scratch() . '/bouncer';
    my $port = free_port();
    mkdir $dir;
    chmod 0777, $dir;
    write_file("$dir/bouncer.ini", "[databases]\n"
        . "$pg->{name} = host=$pg->{sockets} port=$pg->{port} user=agent\n"
        . "[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = $port\n"
        . "auth_type = any\npool_mode = transaction\ndefault_pool_size = 8\n"
        . "unix_socket_dir =\nlogfile = $dir/log\npidfile = $dir/pid\n"
        . "ignore_startup_parameters = options,extra_float_digits\n");
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        chdir '/';
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', '/dev/null';
        open STDERR, '>&', \*STDOUT;
        exec AgentTest::Postgres::as_user($bouncer, "$dir/bouncer.ini")
            or POSIX::_exit(1);
    }
    AgentTest::remember($pid, 'INT');
    ok(poll_until(sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                              PeerPort => $port) }),
       'PgBouncer runs') or diag read_file("$dir/log");

    my %o = (db => "host=127.0.0.1 port=$port dbname=$pg->{name} user=agent",
             db_opt => 'prepared=off');
    my $front = start(%o, http => '    agent_run off;');
    my $back = start(%o, workers => 2, http => '    agent_concurrency 2; '
                     . 'agent_queue 100 poll=1s;',
                     agents => { auto => 'run auto;' });

    my $r;
    ok(poll_until(sub {
        $r = $front->post('/agent/tasks', { input => 'pooled' });
        $r->{status} == 200;
    }, 5), 'a task through it') or diag $r->{body}, $front->log_text;
    $r = run_step($front, $r->{json}{task_id} // 'none');
    is($r->{status}, 200, 'a step, with no news from anybody')
        or diag $r->{body}, $back->log_text;
    is($r->{json}{output}, 'pooled', 'its answer');

    my @c = map { post_step($back, make_task($back, "pool $_")) } 1 .. 20;
    is_deeply(statuses(@c), { 200 => 20 }, 'twenty, ten times the places');

    my $id = make_task($front, 'pooled and cancelled [[hang]]');
    my $c = post_step($front, $id);
    ok(poll_until(sub { $llm->stats->{active} == 1 }), 'one that hangs');
    $front->post("/agent/tasks/$id/cancel", {});
    my $start = time;
    ok(poll_until(sub { $llm->stats->{active} == 0 }, 10),
       'is found to be cancelled');
    note sprintf 'after %.1f s', time - $start;
    is($c->answer->{status}, 409, 'and the one who waits hears of it');

    $back->finish;
    $front->finish;
    AgentTest::end_pid($pid, 'INT');
    AgentTest::forget($pid);
}


# Long, with a transaction held open elsewhere --------------------------------

{
    my $n = start(http => '    agent_run off;');
    my $id = make_task($n, 'the pattern of all');
    $n->finish;

    my $holder = fork // die "fork: $!";
    if (!$holder) {
        exec $pg->psql_command, '-c', 'begin isolation level repeatable read; '
             . 'select count(*) from agent.task; select pg_sleep(600)'
             or POSIX::_exit(1);
    }
    AgentTest::remember($holder);
    poll_until(sub { one("select count(*) from pg_stat_activity where query "
        . "like '%pg_sleep(600)%' and wait_event = 'PgSleep'") eq '1' })
        or die 'no transaction is held open';

    one("with t as (select gen_random_uuid() as id, n from generate_series(1, "
        . "20000) n), task as (insert into agent.task (task_id, tenant, agent, "
        . "input, max_steps) select id, '', 'writer', 'deep ' || n, 5 from t), "
        . "step as (insert into agent.step (task_id, seq, step_id, tenant, "
        . "status, attempt) select id, 1, gen_random_uuid(), '', 0, 0 from t) "
        . "insert into agent.queue (task_id, seq, tenant, agent, run_at) "
        . "select id, 1, '', 'writer', now() - interval '1 hour' + n * "
        . "interval '1 ms' from t");
    one('analyze agent.queue; analyze agent.step; analyze agent.task');
    is(queued(), 20000, 'twenty thousand steps are queued');

    # blocks of the queue that were looked at, from cache or not
    my $blocks = sub {
        return one("select coalesce(heap_blks_read, 0) + coalesce("
            . 'heap_blks_hit, 0) + coalesce(idx_blks_read, 0) + coalesce('
            . "idx_blks_hit, 0) from pg_statio_all_tables where relid = "
            . "'agent.queue'::regclass");
    };
    my $left = sub { 20000 - queued() };

    my $started = time;
    $n = start(workers => 2, http => '    agent_concurrency 16;');
    my (@cost, @at);
    for my $mark (1000, 2000, 7000, 8000) {
        poll_until(sub { $left->() >= $mark }, 120) or last;
        push @at, [$left->(), $blocks->()];
    }
    is(scalar @at, 4, 'eight thousand of them have been claimed');
    note sprintf '%d in %.1f s', $left->(), time - $started;

    SKIP: {
        skip 'too slow to tell', 2 if @at < 4;
        @cost = map { ($at[$_ + 1][1] - $at[$_][1])
                      / max(1, $at[$_ + 1][0] - $at[$_][0]) } 0, 2;
        note sprintf 'blocks of the queue a step: %.1f, later %.1f', @cost;
        cmp_ok($cost[1], '<', 3 * $cost[0] + 10,
               'claims cost no more when thousands of dead rows lie about');
    }
    is(one('select count(*) from agent.step where status in (1, 2) and '
           . 'attempt > 1 and task_id in (select task_id from agent.task '
           . "where input like 'deep %')"), 0, 'none was claimed twice');

    # to be sure: a step of now is not behind the others for ever
    one("delete from agent.queue; update agent.step set status = 5 where "
        . 'status = 0');
    $id = make_task($n, 'after them');
    is(run_step($n, $id)->{json}{output}, 'after them', 'a new one runs');
    $n->finish;
    AgentTest::end_pid($holder, 'TERM');
    AgentTest::forget($holder);
}


is(one('select count(*) from agent.step s full join agent.usage u using '
   . '(task_id, step_id) where (s.step_id is null or u.step_id is null) and '
   . "s.status <> 5 and s.status > 1"), 0,
   'each step that ended has one row in the ledger');

done_testing();
