#!/usr/bin/perl

# quickstart.sh from a fresh copy of the project: the first run, a second, a
# stop, and everything that may stand in its way.  Each copy is in a folder
# of its own and is stopped at the end, by its own stop.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use IO::Socket::INET;
use JSON::PP;
use POSIX qw(:sys_wait_h);
use Test::More;
use Time::HiRes qw(sleep);

my $top = abs_path(dirname(__FILE__) . '/..');
my $root = $> == 0;
my $temp = tempdir('agent-quickstart-t.XXXXXX', TMPDIR => 1, CLEANUP => 1);
my @copies;
my @pids;
my $test_pid = $$;
my $running;

delete @ENV{qw(PORT LLM_URL LLM_API_KEY LLM_MODEL)};
chmod 0755, $temp;

# so that END stops the servers when the test is interrupted, too
$SIG{$_} = sub { exit 1 } for qw(HUP INT TERM);

END {
    if ($$ == $test_pid) {
        my $status = $?;

        kill 'TERM', @pids;
        if ($running) {
            kill 'TERM', $running;
            waitpid $running, 0;
        }

        for my $copy (@copies) {
            run($copy, {}, 'stop');
            system 'rm', '-rf', private_home($copy);
        }
        $? = $status;
    }
}

# What a run keeps outside the project when it cannot be in it.

sub private_home {
    my ($copy) = @_;
    my ($sum) = qx(printf '%s' '$copy->{dir}' | cksum) =~ /^(\d+)/;
    my $id = $copy->{user} ? getpwnam $copy->{user} : $>;

    return ($id ? '/var/tmp' : '/var/lib') . "/agent-quickstart-$id-$sum";
}

sub free_port {
    my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1')
        or die "cannot listen: $!";
    return $s->sockport;
}

sub slurp {
    my ($file) = @_;

    open my $f, '<', $file or return '';
    local $/;
    return <$f> // '';
}

sub spit {
    my ($file, $text) = @_;

    open my $f, '>', $file or die "$file: $!";
    print $f $text;
    close $f;
}

# The files of the project as a clone would have them.

sub copy {
    my ($dir, $user) = @_;
    my $list = -d "$top/.git"
        ? "git -c safe.directory='*' ls-files -co --exclude-standard"
        : "find . -path ./build -prune -o -path ./.quickstart -prune"
          . " -o -type f -print";

    mkdir $dir or die "$dir: $!";
    system("cd '$top' && $list | tar -cf - --ignore-failed-read -T -"
           . " | tar -xf - --no-same-owner -C '$dir'") == 0
        or die 'cannot copy the project';
    system('chown', '-R', $user, $dir) == 0 or die 'chown' if $user;

    push @copies, { dir => $dir, user => $user };
    return $copies[-1];
}

# Runs the script; gives its exit status, all it said, and the last line.

sub run {
    my ($copy, $env, @args) = @_;
    my $log = "$temp/log";
    my @as = $copy->{user}
        ? ('setpriv', '--reuid', $copy->{user}, '--regid', 'nogroup',
           '--clear-groups') : ();

    my $pid = fork // die "fork: $!";

    $running = $pid;

    if (!$pid) {
        $SIG{$_} = 'DEFAULT' for qw(HUP INT TERM);
        $ENV{$_} = $env->{$_} for keys %$env;
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', $log;
        open STDERR, '>&', \*STDOUT;
        chdir '/';
        @args = (@as, "$copy->{dir}/quickstart.sh", @args);
        exec { $args[0] } @args;
    }

    local $SIG{ALRM} = sub { kill 'TERM', $pid };
    alarm 300;
    waitpid $pid, 0;
    my $status = $? >> 8 || $? & 127;
    alarm 0;
    $running = undef;

    my $said = slurp($log);
    my ($last) = $said =~ /([^\n]*)\n*\z/;

    return ($status, $said, $last);
}

sub starts {
    my ($copy, $env, $what) = @_;
    my ($status, $said, $last) = run($copy, $env);

    is($status, 0, "$what: exit status") or diag($said);
    like($last, qr{^ready: http://127\.0\.0\.1:\d+$}, "$what: last line");
    return $said;
}

sub refuses {
    my ($copy, $env, $words, $what) = @_;
    my ($status, $said, $last) = run($copy, $env);

    is($status, 1, "$what: exit status") or diag($said);
    like($last, qr/^quickstart: .*$words/, "$what: says so");
    return $said;
}

sub get {
    my ($url) = @_;

    return scalar qx(curl -q -s -m 10 '$url');
}

sub pid_of {
    my ($copy, $file) = @_;
    my ($pid) = slurp("$copy->{dir}/.quickstart/$file") =~ /^(\d+)/;

    return $pid // 0;
}

sub alive {
    my ($pid) = @_;

    return $pid && slurp("/proc/$pid/status") =~ /^State:\s+[^ZX]/m;
}

sub gone_soon {
    my ($pid) = @_;

    for (1 .. 100) {
        return 1 unless alive($pid);
        sleep 0.1;
    }
    return 0;
}

sub sleeper {
    my $pid = fork // die "fork: $!";

    exec 'sleep', '600' unless $pid;
    push @pids, $pid;
    return $pid;
}


my $port = free_port();
my $url = "http://127.0.0.1:$port";
my $copy = copy("$temp/plain");
my $state = "$copy->{dir}/.quickstart";

subtest 'the first run' => sub {
    my $said = starts($copy, { PORT => $port }, 'first run');

    like($said, qr/ready: \Q$url\E$/, 'on the port that was asked for');
    like($said, qr/scripted demo/, 'says that the LLM is a scripted one');
    like($said, qr/^Washington$/m, 'downloads what the agent wrote');
    like($said, qr/"is_last": ?true/, 'goes on until the last step');
    like($said, qr{quickstart\.sh stop}, 'says how to stop it');

    ok(alive(pid_of($copy, 'nginx.pid')), 'nginx.pid names a process');
    ok(-s "$state/postgres/PG_VERSION", 'the cluster is in .quickstart');
    ok(-e "$state/error.log", 'error.log is in .quickstart');
    is((stat "$state/nginx.conf")[2] & 0777, 0600, 'nginx.conf is private');
    unlike(slurp("$state/error.log"), qr/\[(alert|emerg|crit|error|warn)\]/,
           'nothing to complain of in error.log');

    my @calls = $said =~ /^\$ (curl .*)$/mg;
    cmp_ok(scalar @calls, '>=', 5, 'prints its calls');
    like(scalar qx($calls[0]), qr/"task_id"/, 'the first can be repeated');
    is(scalar qx($calls[-1]), 'Washington', 'the last can be repeated');
};

subtest 'the server' => sub {
    my $list = eval { decode_json(get("$url/ap/v1/agent/tasks")) };

    cmp_ok($list->{pagination}{total_items}, '>=', 1, 'lists the tasks');
    is(get("$url/agent/tasks"), get("$url/ap/v1/agent/tasks"),
       'has the older path too');
    like(get("$url/llm/v1/models"), qr/404/, 'does not show the LLM');

    my ($status, $said) = run($copy, {}, 'status');
    is($status, 0, 'status: all is up');
    like($said, qr/^ready: \Q$url\E$/m, 'status: names the server');
    like($said, qr/^postgres: running \(pid \d+\)$/m,
         'status: names the database');
};

subtest 'a second run' => sub {
    my $nginx = pid_of($copy, 'nginx.pid');
    my $postgres = pid_of($copy, 'postgres/postmaster.pid');

    my $said = starts($copy, {}, 'second run');

    unlike($said, qr/^(?:Installing|Building|Making|Starting)/m,
           'makes nothing again');
    like($said, qr/ready: \Q$url\E$/, 'keeps the port');
    is(pid_of($copy, 'nginx.pid'), $nginx, 'keeps nginx');
    is(pid_of($copy, 'postgres/postmaster.pid'), $postgres, 'keeps Postgres');
    unlike($said, qr/Loading sql/, 'loads no schema again');
};

subtest 'what is down is started again' => sub {
    my $llm = pid_of($copy, 'llm.pid');
    my $nginx = pid_of($copy, 'nginx.pid');
    my $postgres = pid_of($copy, 'postgres/postmaster.pid');

    # a pid that is not there would be 0, and that is this test itself
    $_ > 1 or die "no pid file" for $llm, $nginx, $postgres;

    kill 'KILL', $llm;
    kill 'QUIT', $nginx;
    kill 'KILL', $postgres;
    gone_soon($_) for $llm, $nginx, $postgres;

    my ($status) = run($copy, {}, 'status');
    is($status, 1, 'status: not all is up');

    my $said = starts($copy, { PORT => $port }, 'run after a crash');
    my $list = decode_json(get("$url/ap/v1/agent/tasks"));
    cmp_ok($list->{pagination}{total_items}, '>=', 3, 'no task is lost');
};

subtest 'another port while it runs' => sub {
    my $other = free_port();

    starts($copy, { PORT => $other }, 'another port');
    like(get("http://127.0.0.1:$other/ap/v1/agent/tasks"), qr/pagination/,
         'the new port answers');
    starts($copy, { PORT => $port }, 'and back');
};

subtest 'stop' => sub {
    my @all = map { pid_of($copy, $_) }
        qw(nginx.pid llm.pid postgres/postmaster.pid);

    my ($status, $said) = run($copy, {}, 'stop');
    is($status, 0, 'exit status') or diag($said);
    is(scalar(grep { alive($_) } @all), 0, 'every process is gone');
    ok(!IO::Socket::INET->new("127.0.0.1:$port"), 'the port is free');

    ($status) = run($copy, {}, 'status');
    is($status, 1, 'status: nothing is up');
    ($status) = run($copy, {}, 'stop');
    is($status, 0, 'stopping twice is fine');
};

subtest 'pid files that name someone else' => sub {
    my @others = map { sleeper() } 1 .. 3;

    spit("$state/nginx.pid", "$others[0]\n");
    spit("$state/llm.pid", "$others[1]\n");
    spit("$state/postgres/postmaster.pid", join "\n", $others[2],
         "$state/postgres", 1, 5432, "$state/socket", '', '  1 1', 'ready', '');
    system 'chown', '--reference', "$state/postgres/PG_VERSION",
        "$state/postgres/postmaster.pid";

    run($copy, {}, 'stop');
    is(scalar(grep { alive($_) } @others), 3, 'stop leaves them alone');

    starts($copy, { PORT => $port }, 'run with stale pid files');
    is(scalar(grep { alive($_) } @others), 3, 'so does a start');
    run($copy, {}, 'stop');
    is(scalar(grep { alive($_) } @others), 3, 'and a stop after it');
};

subtest 'what it refuses' => sub {
    my $taken = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1');
    my $n = $taken->sockport;

    refuses($copy, { PORT => $n }, "port $n is taken", 'a taken port');
    refuses($copy, { PORT => $_ }, 'not a port', "PORT=$_")
        for 'web', '0', '65536', '80 81';
    refuses($copy, { LLM_URL => $_, LLM_MODEL => 'm' }, 'LLM_URL is not',
            "LLM_URL=$_") for 'ftp://x/', 'localhost:9000', 'http://a b/';
    refuses($copy, { LLM_URL => 'http://127.0.0.1:9/v1' }, 'set LLM_MODEL',
            'an LLM_URL alone');
    refuses($copy, { LLM_MODEL => 'm' }, 'LLM_URL is not',
            'an LLM_MODEL alone');
    refuses($copy, { LLM_URL => 'http://127.0.0.1:9/v1', LLM_MODEL => 'm',
                     LLM_API_KEY => 'a"b$c' }, 'LLM_API_KEY has',
            'a key that would break the configuration');
    refuses($copy, { LLM_URL => 'http://no-such-host.invalid/v1',
                     LLM_MODEL => 'm' }, 'not found: no-such-host',
            'a host that is not there');

    my ($status, $said) = run($copy, {}, 'sotp');
    is($status, 2, 'an unknown word: exit status');
    like($said, qr{quickstart\.sh status}, 'an unknown word: help');
};

subtest 'an endpoint of the user' => sub {
    my $file = "$temp/llm.port";
    my $key = 'sk-quickstart-secret-0123456789';
    my $pid = fork // die "fork: $!";

    if (!$pid) {
        open STDOUT, '>', '/dev/null';
        exec 'perl', "$top/t/lib/fake-llm.pl", '--demo', '--port', 0,
            '--port-file', $file;
    }

    push @pids, $pid;
    for (1 .. 100) {
        last if -s $file;
        sleep 0.1;
    }

    my ($llm) = slurp($file) =~ /(\d+)/;
    my $env = { PORT => $port, LLM_MODEL => 'demo', LLM_API_KEY => $key };

    my $said = starts($copy, { %$env, LLM_URL => "http://127.0.0.1:$llm/v1" },
                      'LLM_URL');
    unlike($said, qr/scripted demo/, 'does not speak of a demo');
    unlike($said, qr/\Q$key\E/, 'does not print the key');
    ok(!alive(pid_of($copy, 'llm.pid')), 'the demo LLM does not run');

    my @with_key = grep { slurp($_) =~ /\Q$key\E/ } glob "$state/*";
    is("@with_key", "$state/nginx.conf", 'the key is in nginx.conf only');
    is((stat "$state/nginx.conf")[2] & 0777, 0600, 'which is private');
    unlike(scalar qx(ps -eo args), qr/\Q$key\E/, 'and in no command line');

    kill 'TERM', $pid;
    waitpid $pid, 0;
    refuses($copy, { %$env, LLM_URL => "http://127.0.0.1:$llm/v1" },
            'answered 502', 'an endpoint that is down');
    like(get("$url/ap/v1/agent/tasks"), qr/pagination/,
         'the server is left running');
    run($copy, {}, 'stop');
};

subtest 'a folder with spaces in its name' => sub {
    my $odd = copy("$temp/it has  spaces");

    starts($odd, { PORT => free_port() }, 'spaces');
    starts($odd, {}, 'spaces, second run');
    my ($status) = run($odd, {}, 'stop');
    is($status, 0, 'stops');
};

subtest 'a folder that only root can enter' => sub {
    plan skip_all => 'not root' unless $root;

    mkdir "$temp/private", 0700;
    my $hidden = copy("$temp/private/project");

    my $said = starts($hidden, { PORT => free_port() }, 'as root');
    like($said, qr/their data is in/, 'says where the data is');
    like(slurp("$hidden->{dir}/.quickstart/postgres/PG_VERSION"), qr/^\d+$/,
         'and links to it');
    starts($hidden, {}, 'as root, second run');
    my ($status) = run($hidden, {}, 'stop');
    is($status, 0, 'stops');
};

subtest 'a user who is not root' => sub {
    plan skip_all => 'not root' unless $root;

    my $other = copy("$temp/other", 'nobody');
    my $said = starts($other, { PORT => free_port() }, 'as nobody');
    unlike($said, qr/warn|alert/, 'no warning');

    my $pid = pid_of($other, 'nginx.pid');
    is((stat "/proc/$pid")[4], scalar getpwnam('nobody'), 'nginx is theirs');
    starts($other, {}, 'as nobody, second run');
    refuses($other, { PORT => 80 }, 'only root|port 80 is taken',
            'a port of root') if slurp('/proc/sys/net/ipv4/'
                                  . 'ip_unprivileged_port_start') > 80;
    my ($status) = run($other, {}, 'stop');
    is($status, 0, 'stops');
};

done_testing();
