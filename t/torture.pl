#!/usr/bin/perl

# The torture test: two nginx on one database, clients of three tenants that do
# what clients do, a killer who spares nothing; then a checker that compares
# what the clients were told with the database and with what the LLM has seen.
#
#   perl t/torture.pl             with the module in build/ (make torture)
#
#   TORTURE_SEED=N      the choices of an earlier run again (not its timing)
#   TORTURE_SECONDS=N   how long the clients go on; 180.  From 90 on a worker
#                       is stopped for 45 s, else for 34: beyond its lease
#   TORTURE_CLIENTS=N   200
#   TORTURE_HOSTS=N     2: one nginx has a host name of its own, and a lease
#                       lapses for real; 1; by default the seed decides
#   TORTURE_CALM=N      worker kills on a calm system, for the times; 5
#   TORTURE_FAULTS=A,B  only these of the killer's faults
#   TORTURE_KEEP=DIR    where to keep all logs and the tables as they were in
#                       the end; by default a folder that is kept only when
#                       something is wrong; t/torture/check.pl DIR judges it
#                       again
#
# Also TEST_NGINX_BINARY and TEST_NGINX_LOAD_MODULES, as t/run.sh sets them.
# It exits with 0 when nothing is wrong.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib", "$FindBin::Bin/torture";

use File::Copy qw(copy);
use File::Path qw(remove_tree);
use File::Temp qw(tempdir);
use JSON::PP;
use POSIX ();
use Time::HiRes qw(sleep time);

use AgentTest;
use TortureCheck;
use TortureClient;
use TortureKiller;
use TortureLoop;
use TortureTenants;

# in a pipe as well
$| = 1;

my $json = JSON::PP->new->utf8->canonical;
my $seed = $ENV{TORTURE_SEED} || (time * 1000) % 1_000_000 + 1;
my $seconds = $ENV{TORTURE_SECONDS} || 180;
my $clients = $ENV{TORTURE_CLIENTS} || 200;
my $calm = $ENV{TORTURE_CALM} // 5;
my $hosts = $ENV{TORTURE_HOSTS} || 0;
my $processes = 2;
my $drain = 5;
my $stop = $seconds >= 90 ? 45 : $seconds >= 20 ? 34 : 0;

my $random = TortureRandom->new($seed);
my $tag = sprintf 't%06d', $seed;

$seed = int $seed;
$hosts ||= $random->pick(1, 2);
$hosts = 1 if $hosts == 2 && !TortureNginx::can_move();
$TortureNginx::host = 'torture-elsewhere' if $hosts == 2;

my $dir = $ENV{TORTURE_KEEP} || tempdir('agent-torture-XXXXXX', TMPDIR => 1);
mkdir $dir;
unlink glob "$dir/*.log $dir/*.rows $dir/*.json";

printf "torture: TORTURE_SEED=%d TORTURE_SECONDS=%d TORTURE_CLIENTS=%d "
       . "TORTURE_HOSTS=%d\n", $seed, $seconds, $clients, $hosts;


# The stage -------------------------------------------------------------------

my $pg = AgentTest::Postgres->new(private => 1, fsync => 1);
my $llm = AgentTest::LLM->new;
my $artifacts = scratch() . '/artifacts';

my $conf = conf(pg => $pg, llm => $llm, workers => 4,
    artifacts => $artifacts,
    main => "worker_shutdown_timeout ${drain}s;",
    http => "    agent_concurrency 8;\n    agent_auth_zone keys:1m;",
    server => join("\n",
        '        location = /_auth { internal; agent_auth; }',
        '        location = /usage { agent_usage; }',
        map { "        location /k/$_/ { agent_pass $_; auth_request /_auth; }" }
            qw(plain small auto)),
    agents => {
        plain => 'attempts 3; timeout 2s; price 0.002;',
        small => 'attempts 3; timeout 2s; price 0.002; concurrency 3;',
        auto  => 'attempts 3; timeout 2s; price 0.002; concurrency 6; '
                 . 'run auto; max_steps 6;',
        calm  => 'attempts 20; timeout 60s;',
    });

# the LLM's trace tells which worker has called
$conf =~ s/(proxy_buffering off;)/$1 proxy_set_header X-Agent-Pid \$pid;/;

my @nginx = map {
    my $nginx = TortureNginx->new(conf => $conf, no_start => 1);
    $nginx->{elsewhere} = $_;
    $nginx->start;
} 0, 1;

my $killer = TortureKiller->new(random => $random, pg => $pg, llm => $llm,
    nginx => \@nginx, log => "$dir/kills.log", stop => $stop, drain => $drain,
    only => $ENV{TORTURE_FAULTS});

my $tenants = TortureTenants->new(pg => $pg, clients => $clients,
    seconds => $seconds, sql => sub { $killer->sql(@_) }, log => "$dir/quotas.log");


# How long until a step runs again --------------------------------------------

# A step that hangs at the LLM; waits until it does.  Its id.

sub hanging_step {
    my ($nginx) = @_;

    my $task = make_task($nginx, 'calm [[stamp+hang]]', at => '/x/calm');
    my $r = run_step($nginx, $task, {}, at => '/x/calm',
                     headers => { Prefer => 'respond-async' });
    die "no step was begun: $r->{status} $r->{body}\n" if $r->{status} != 202;

    my $id = $r->{json}{step_id};
    poll_until(sub { $llm->started($id) }, 20)
        or die "the step $id does not start\n";
    return ($task, $id);
}


# Seconds from the deed to the next call for the step.

sub time_to_run {
    my ($id, $deed, $limit) = @_;

    my $before = () = $llm->started($id);
    my $from = $deed->();
    my @calls;
    poll_until(sub { (@calls = $llm->started($id)) > $before }, $limit)
        or return;
    return $calls[-1]{time} - $from;
}


sub owner_pid {
    my ($id) = @_;
    # a worker is on record a moment after it has begun to work
    return poll_until(sub {
        $killer->sql("select w.pid from agent.step s join agent.worker w "
            . "on w.name = s.owner where s.step_id = '$id' and s.status = 1");
    }, 10) || die "the step $id has no owner\n";
}


sub measure {
    my (@took, %took);

    return {} unless $calm;
    my ($task, $id) = hanging_step($nginx[0]);
    for (1 .. $calm) {
        push @took, time_to_run($id, sub {
            my $pid = owner_pid($id);
            my $from = time;
            kill 'KILL', $pid;
            $killer->note('worker_kill', from => $from, to => $from + 1,
                          pids => [$pid]);
            return $from;
        }, 60) // 'never';
        sleep 0.5;
    }
    $took{worker} = \@took;
    $nginx[0]->post("/x/calm/tasks/$task/cancel", {});

    # the steps of a host that is gone: their leases must lapse
    if ($hosts == 2 && $seconds >= 90) {
        ($task, $id) = hanging_step($nginx[1]);
        $took{host} = [time_to_run($id, sub {
            return $killer->nginx_kill($nginx[1], 0);
        }, 60) // 'never'];
        $nginx[0]->post("/x/calm/tasks/$task/cancel", {});
        $killer->finish;
    }

    return \%took;
}


# Clients ---------------------------------------------------------------------

# A process for a part of them; its pid.

sub start_clients {
    my ($part, $until) = @_;

    my $pid = fork // die "fork: $!\n";
    if ($pid) {
        AgentTest::remember($pid);
        return $pid;
    }

    my $ok = eval {
        open my $log, '>', "$dir/clients-$part.log" or die "$dir: $!\n";
        $log->autoflush(1);
        $SIG{PIPE} = 'IGNORE';
        $SIG{TERM} = 'DEFAULT';

        my $loop = TortureLoop->new;
        my @all = map {
            TortureClient->new(loop => $loop, id => $_, seed => $seed,
                               ports => [map { $_->port } @nginx], tag => $tag,
                               log => $log, until => $until,
                               $tenants->client($_))
        } grep { $_ % $processes == $part } 0 .. $clients - 1;

        my $end = $until + 90;
        $loop->run(sub { time > $end || !grep { !$_->done } @all });
        my @left = grep { !$_->done } @all;
        die scalar(@left), " clients do not come to an end, among them one in ",
            "\"$left[0]{story}\"\n" if @left;
        1;
    };
    print STDERR "torture: $@" unless $ok;
    POSIX::_exit($ok ? 0 : 1);
}


# The end ---------------------------------------------------------------------

# Everything that was begun must end, now that nobody disturbs.

sub await_quiet {
    my $end = time + 120;
    my $left;

    do {
        $left = $killer->sql('select (select count(*) from agent.step where '
            . 'status < 2) + (select count(*) from agent.queue)');
        return 1 if $left eq '0';
        sleep 0.5;
    } while (time < $end);

    print "torture: $left steps and queue entries do not come to an end\n";
    return 0;
}


sub serves {
    my ($nginx) = @_;
    my $id = eval { make_task($nginx, 'in the end [[stamp]]',
                              at => '/x/plain') } or return 0;
    return run_step($nginx, $id, {}, at => '/x/plain')->{status} == 200;
}


sub save_tables {
    for my $table (qw(task step queue secret artifact usage idempotency worker
                      quota))
    {
        write_file("$dir/$table.rows", $pg->psql(
            "select row_to_json(t) from agent.$table t") . "\n");
    }
}


# Files of artifacts: id => its bytes

sub save_artifacts {
    my %bytes;
    my @todo = ($artifacts);

    while (defined(my $name = shift @todo)) {
        if (-d $name) { push @todo, glob "$name/*"; next }
        $bytes{$1} = read_file($name) if $name =~ m{([^/]+)$};
    }
    write_file("$dir/artifacts.json", $json->encode(\%bytes));
}


my $took = measure();
my $since = time;
my $until = $since + $seconds;
$killer->{watch} = sub { $tenants->look };
my @pids = map { start_clients($_, $until) } 0 .. $processes - 1;

$killer->play($until);
$killer->finish;

my $clients_ok = 1;
for my $pid (@pids) {
    waitpid $pid, 0;
    $clients_ok = 0 if $?;
    AgentTest::forget($pid);
}

my $quiet = await_quiet();
my @serve = map { serves($_) } @nginx;
write_file("$dir/usage.json", $json->encode($tenants->usage($nginx[0],
                                                            $since)));
my $quit = time;
$_->stop for @nginx;
$quit = time - $quit;

save_tables();
save_artifacts();
copy($llm->{trace}, "$dir/llm.log");
copy($nginx[$_]{error_log}, "$dir/error-$_.log") for 0, 1;
copy("$nginx[$_]{dir}/access.log", "$dir/access-$_.log") for 0, 1;
copy("$pg->{data}/server.log", "$dir/postgres.log");
write_file("$dir/run.json", $json->encode({
    seed => $seed, seconds => $seconds, clients => $clients, hosts => $hosts,
    tag => $tag, attempts => 3, price => '0.002', took => $took,
    quiet => $quiet, serve => \@serve, quit => $quit, drain => $drain,
    clients_ok => $clients_ok,
    midnight => int($since / 86400) != int(time / 86400), }));

my $status = TortureCheck::main($dir);

if ($status) {
    print "torture: its logs and tables are in $dir\n";
} elsif (!$ENV{TORTURE_KEEP}) {
    remove_tree($dir);
}
exit $status;
