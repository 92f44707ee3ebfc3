package AgentTest;

# What the plain .t files share: a scratch folder, free ports, waiting, the
# fake LLM and the usual nginx.conf.  Postgres, nginx and the HTTP client are
# in files of their own beside this one.  All that a test starts is ended with
# it, by pid.
#
#   use lib 't/lib';
#   use AgentTest;
#
#   my $pg = AgentTest::Postgres->new;
#   my $llm = AgentTest::LLM->new;
#   my $nginx = AgentTest::Nginx->new(conf => conf(pg => $pg, llm => $llm));
#   my $r = $nginx->post('/ap/v1/agent/tasks', { input => 'hello' });
#   is($r->{status}, 200);
#   $nginx->finish;     # stops it, tests that the log has nothing bad
#   done_testing();
#
# From the environment (t/run.sh sets them): TEST_NGINX_BINARY,
# TEST_NGINX_LOAD_MODULES, AGENT_TEST_PG (folder:port of a running cluster,
# in which each test file makes a database of its own).

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter qw(import);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use IO::Socket::INET;
use JSON::PP;
use POSIX qw(WNOHANG);
use Test::More;
use Time::HiRes qw(sleep time);

use AgentTest::Http;
use AgentTest::Nginx;
use AgentTest::Postgres;

our @EXPORT = qw(conf free_port poll_until read_file write_file scratch
                 decode encode make_task run_step gone on_record);

our $root = abs_path(dirname(__FILE__) . '/../..');

my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my ($scratch, %pids);
my $owner = $$;


sub decode { return $json->decode($_[0]) }
sub encode { return $json->encode($_[0]) }


# One folder for the test file; workers that run as another user reach it.

sub scratch {
    $scratch //= do {
        my $dir = tempdir('agent-test-XXXXXX', TMPDIR => 1, CLEANUP => 1);
        chmod 0755, $dir;
        $dir;
    };
    return $scratch;
}


sub read_file {
    my ($name) = @_;
    open my $fh, '<', $name or return '';
    local $/;
    my $text = <$fh>;
    return defined $text ? $text : '';
}


sub write_file {
    my ($name, $text) = @_;
    open my $fh, '>', $name or die "$name: $!";
    print $fh $text;
    close $fh or die "$name: $!";
}


my %given;

# below those that the kernel gives to outgoing connections: one of these could
# have it while a server is down that comes back to its port

sub free_port {
    for (1 .. 1000) {
        my $port = 10_240 + int rand 22_000;
        next if $given{$port}++;
        return $port if IO::Socket::INET->new(Listen => 1, LocalPort => $port,
                                              LocalAddr => '127.0.0.1');
    }
    die "no free port: $!";
}


# Waits for what $check gives, at most so many seconds; what it gave last.

sub poll_until {
    my ($check, $seconds) = @_;

    my $end = time + ($seconds || 10);
    my $got;

    until ($got = $check->()) {
        return $got if time > $end;
        sleep 0.02;
    }
    return $got;
}


sub gone {
    my ($pid) = @_;
    waitpid $pid, WNOHANG;
    return !-e "/proc/$pid" || read_file("/proc/$pid/stat") =~ /\) Z /;
}


# Daemons register here, and are ended when the test file is.

sub remember { $pids{$_[0]} = $_[1] || 'TERM' }
sub forget { delete $pids{$_[0]} }


sub end_pid {
    my ($pid, $signal) = @_;

    # kill() takes nothing for 0: the whole process group
    die 'no pid to end' unless $pid;
    return if gone($pid);
    kill $signal, $pid;
    poll_until(sub { gone($pid) }, 10) or kill 'KILL', $pid;
    poll_until(sub { gone($pid) }, 5);
}


END {
    if ($$ == $owner) {
        my $status = $?;
        end_pid($_, $pids{$_}) for reverse sort { $a <=> $b } keys %pids;
        $? = $status;
    }
}

for my $name (qw(INT TERM HUP)) {
    $SIG{$name} = sub { exit 1 if $$ == $owner; POSIX::_exit(1) };
}


# The usual configuration.  pg or db (a conninfo), llm or llm_port; agents:
# name => more lines of its block, each served at /x/NAME/ ; the agent
# "writer" is at /ap/v1/agent/ and /agent/.  main, http, server: more lines;
# artifacts: their folder, when two nginx share it.

sub conf {
    my (%o) = @_;

    my $db = $o{db} || $o{pg}->conninfo;
    my $llm = $o{llm_port} || $o{llm}->port;
    my %agents = (writer => '', %{$o{agents} || {}});
    my ($blocks, $places) = ('', '');

    for my $name (sort keys %agents) {
        my $lines = $agents{$name};
        $lines = "pass /llm/v1/chat/completions; $lines"
            unless $lines =~ /\bpass\b/;
        $lines .= ' model echo;' unless $lines =~ /\bmodel\b/;
        $lines .= ' timeout 5s;' unless $lines =~ /\btimeout\b/;
        $blocks .= "        agent $name { $lines }\n";
        $places .= "        location /x/$name/ { agent_pass $name; }\n";
    }

    my $more = sub { defined $o{$_[0]} ? "$o{$_[0]}\n" : '' };

    return $more->('main')
        . "worker_processes " . ($o{workers} || 1) . ";\n"
        . "worker_rlimit_nofile 20000;\n"
        . "events { worker_connections 8000; }\n"
        . "http {\n"
        . "    agent_database \"$db\"" . ($o{db_opt} ? " $o{db_opt}" : '')
        . ";\n"
        . "    agent_artifacts " . ($o{artifacts} || '%DIR%/artifacts') . ";\n"
        . "    client_max_body_size 16m;\n"
        . $more->('http')
        . "    upstream llm { server 127.0.0.1:$llm; keepalive 16; }\n"
        . "    server {\n"
        . "        listen 127.0.0.1:%PORT%" . ($o{listen} || '') . ";\n"
        . $blocks
        . "        location /ap/v1/agent/ { agent_pass writer; }\n"
        . "        location /agent/ { agent_pass writer; }\n"
        . $places
        . "        location /llm/ {\n"
        . "            internal;\n"
        . "            proxy_pass http://llm/;\n"
        . "            proxy_http_version 1.1;\n"
        . "            proxy_set_header Connection \"\";\n"
        . "            proxy_set_header X-Agent-Step \$agent_step_id;\n"
        . "            proxy_set_header X-Agent-Attempt \$agent_attempt;\n"
        . "            proxy_buffering off;\n"
        . "        }\n"
        . $more->('server')
        . "    }\n}\n";
}


# Short cuts that most tests need.

sub make_task {
    my ($nginx, $input, %o) = @_;

    my $r = $nginx->post(($o{at} || '/ap/v1/agent') . '/tasks',
                         { input => $input });
    die "no task was made: $r->{status} $r->{body}\n" if $r->{status} != 200;
    return $r->{json}{task_id};
}


sub run_step {
    my ($nginx, $task, $body, %o) = @_;
    return $nginx->post(($o{at} || '/ap/v1/agent') . "/tasks/$task/steps",
                        $body || {}, %o);
}


# Until a worker is on record in the database it runs nothing, and what it is
# given waits in the queue.  For tests that care which worker runs a step.

sub on_record {
    my ($nginx, $pg) = @_;

    poll_until(sub {
        my %there = map { $_ => 1 } split /\s+/,
                    $pg->psql('select pid from agent.worker');
        !grep { !$there{$_} } $nginx->workers;
    }) or die 'a worker is not on record';
    return $nginx;
}


package AgentTest::LLM;

# One fake LLM (t/lib/fake-llm.pl) with its log.

sub new {
    my ($class, %o) = @_;

    my $dir = AgentTest::scratch();
    my $n = ++$AgentTest::LLM::count;
    my $self = bless { log => "$dir/llm-$n.log",
                       trace => "$dir/llm-$n.trace",
                       file => "$dir/llm-$n.port" }, $class;

    my $pid = fork // die "fork: $!";
    if (!$pid) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', "$dir/llm-$n.out";
        open STDERR, '>&', \*STDOUT;
        exec $^X, "$AgentTest::root/t/lib/fake-llm.pl", '--port',
             $o{port} || 0, '--port-file', $self->{file}, '--log', $self->{log},
             '--trace', $self->{trace} or POSIX::_exit(1);
    }

    $self->{pid} = $pid;
    AgentTest::remember($pid);
    AgentTest::poll_until(sub { -s $self->{file} })
        or die 'the fake LLM does not start: '
               . AgentTest::read_file("$dir/llm-$n.out");
    ($self->{port}) = AgentTest::read_file($self->{file}) =~ /(\d+)/;
    return $self;
}


sub port { return $_[0]{port} }


sub stop {
    my ($self) = @_;
    AgentTest::end_pid($self->{pid}, 'TERM');
    AgentTest::forget($self->{pid});
}


# The requests that ended, as the log has them; with a pattern, those whose
# messages match.

sub calls {
    my ($self, $pattern) = @_;

    my @lines = split /\n/, AgentTest::read_file($self->{log});
    @lines = grep { /$pattern/ } @lines if defined $pattern;
    return map { AgentTest::decode($_) } @lines;
}


# The requests that came, ended or not: {time, step, attempt, number}, the
# time of their end in "end" and how it came in "how".

sub started {
    my ($self, $step) = @_;

    my (@all, %by);
    for (split /\n/, AgentTest::read_file($self->{trace})) {
        my $line = eval { AgentTest::decode($_) } or next;
        if ($line->{event} eq 'start') {
            push @all, $by{$line->{number}} = $line;
        } else {
            @{$by{$line->{number}}}{qw(end how)} = @$line{qw(time how)};
        }
    }
    return grep { !defined $step || ($_->{step} // '') eq $step } @all;
}


sub stats {
    my ($self) = @_;
    return AgentTest::Http::request(port => $self->{port},
                                    path => '/_stats')->{json};
}


sub release {
    my ($self) = @_;
    AgentTest::Http::request(port => $self->{port}, method => 'POST',
                             path => '/_release', body => '{}');
}


1;
