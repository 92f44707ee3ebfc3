package AgentTest::Postgres;

# A private Postgres cluster in the scratch folder: a socket, a free TCP port,
# trust for local connections, the schema of sql/ loaded.
#
#   new()             a database of its own in the suite's cluster when
#                     t/run.sh started one (AGENT_TEST_PG), else a cluster
#   new(private => 1) a cluster of its own: may be stopped, killed, changed
#   new(private => 1, ssl => 1)   with a certificate made on the spot
#   new(..., schema => 0)         with no schema
#   $pg->standby                  a streaming, synchronous standby of a
#                                 private one, which promote() turns into a
#                                 server of its own

use strict;
use warnings;

use POSIX ();

my $count = 0;


sub new {
    my ($class, %o) = @_;

    my $n = ++$count;
    my $self = bless { name => "t${$}_$n", user => 'agent' }, $class;

    if ($ENV{AGENT_TEST_PG} && !$o{private}) {
        ($self->{sockets}, $self->{port}) = $ENV{AGENT_TEST_PG}
                                            =~ /^(.*):(\d+)$/;
    } else {
        my $dir = $o{dir} || AgentTest::scratch() . "/pg-$n";
        @$self{qw(dir data sockets private)} = ($dir, "$dir/data", $dir, 1);
        $self->{port} = $o{port} || AgentTest::free_port();
        $self->create(%o);
        $self->start;
    }

    $self->psql("create role agent login;", database => 'postgres')
        if $self->{private};
    $self->psql("create database $self->{name} owner agent;",
                database => 'postgres');
    $self->load_schema unless defined $o{schema} && !$o{schema};
    return $self;
}


sub bin {
    for my $dir (reverse sort glob '/usr/lib/postgresql/*/bin') {
        return "$dir/$_[0]" if -x "$dir/$_[0]";
    }
    return $_[0];
}


# Postgres refuses to run as root.

sub as_user {
    my (@command) = @_;
    return @command unless $> == 0;
    return ('setpriv', '--reuid', 'postgres', '--regid', 'postgres',
            '--clear-groups', @command);
}


sub run {
    my ($out, @command) = @_;

    my $pid = fork // die "fork: $!";
    if (!$pid) {
        chdir '/';
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', $out;
        open STDERR, '>&', \*STDOUT;
        exec as_user(@command) or POSIX::_exit(127);
    }
    waitpid $pid, 0;
    return $? == 0;
}


sub create {
    my ($self, %o) = @_;

    my $dir = $self->{dir};
    mkdir $dir;
    chmod 0755, $dir;
    chown +(getpwnam 'postgres')[2, 3], $dir if $> == 0;

    run("/dev/null", bin('initdb'), '-D', $self->{data}, '-U', 'postgres',
        '-A', 'trust', '-E', 'UTF8', '--locale=C.UTF-8', '--no-sync')
        or die "initdb failed\n";

    my $conf = AgentTest::read_file("$self->{data}/postgresql.conf");
    $conf .= "listen_addresses = '127.0.0.1'\nport = $self->{port}\n"
           . "unix_socket_directories = '$dir'\nmax_connections = 100\n"
           . "shared_buffers = 32MB\nlog_line_prefix = '%m [%p] '\n"
           . ($o{fsync} ? '' : "fsync = off\n");

    if ($o{ssl}) {
        my $files = "$self->{data}/server";
        run('/dev/null', 'openssl', 'req', '-new', '-x509', '-days', '2',
            '-nodes', '-subj', '/CN=localhost', '-newkey', 'rsa:2048',
            '-keyout', "$files.key", '-out', "$files.crt")
            or die "openssl failed\n";
        chmod 0600, "$files.key";
        $conf .= "ssl = on\n";
    }

    AgentTest::write_file("$self->{data}/postgresql.conf", $conf);
}


sub start {
    my ($self) = @_;

    run("$self->{data}/start.log", bin('pg_ctl'), '-D', $self->{data}, '-w',
        '-t', '30', '-l', "$self->{data}/server.log", 'start')
        or die 'Postgres does not start: '
               . AgentTest::read_file("$self->{data}/server.log");
    ($self->{pid}) = AgentTest::read_file("$self->{data}/postmaster.pid")
                     =~ /^(\d+)/;
    AgentTest::remember($self->{pid}, 'INT');
}


# mode: fast, immediate (as a crash) or smart

sub stop {
    my ($self, $mode) = @_;

    return unless $self->{pid};
    run("$self->{data}/start.log", bin('pg_ctl'), '-D', $self->{data}, '-w',
        '-m', $mode || 'fast', 'stop');
    AgentTest::forget(delete $self->{pid});
}


sub restart {
    my ($self, $mode) = @_;
    $self->stop($mode);
    $self->start;
}


sub reload_conf {
    my ($self) = @_;
    run("$self->{data}/start.log", bin('pg_ctl'), '-D', $self->{data},
        'reload');
}


# The primary answers a commit only when the standby has it on disk.

sub standby {
    my ($self) = @_;

    my $n = ++$count;
    my $dir = AgentTest::scratch() . "/pg-$n";
    my $other = bless { %$self, dir => $dir, data => "$dir/data",
                        sockets => $dir, port => AgentTest::free_port() },
                      ref $self;
    delete $other->{pid};
    mkdir $dir;
    chmod 0755, $dir;
    chown +(getpwnam 'postgres')[2, 3], $dir if $> == 0;

    run("$self->{data}/start.log", bin('pg_basebackup'), '-h',
        $self->{sockets}, '-p', $self->{port}, '-U', 'postgres', '-D',
        $other->{data}, '-R', '-c', 'fast')
        or die 'pg_basebackup failed: '
               . AgentTest::read_file("$self->{data}/start.log");
    my $conf = AgentTest::read_file("$other->{data}/postgresql.conf");
    AgentTest::write_file("$other->{data}/postgresql.conf", $conf
        . "port = $other->{port}\nunix_socket_directories = '$dir'\n");
    $other->start;

    # only now: the copy must not wait for a standby of its own
    $self->psql($_, database => 'postgres')
        for "alter system set synchronous_standby_names = '*'",
            'select pg_reload_conf()';
    AgentTest::poll_until(sub {
        $self->psql('select count(*) from pg_stat_replication where '
                    . "sync_state = 'sync'", database => 'postgres') eq '1';
    }) or die 'the standby does not follow';
    return $other;
}


sub promote {
    my ($self) = @_;
    return run("$self->{data}/start.log", bin('pg_ctl'), '-D', $self->{data},
               '-w', '-t', '30', 'promote');
}


sub server_log { return AgentTest::read_file("$_[0]{data}/server.log") }


sub load_schema {
    my ($self) = @_;
    $self->psql_file($_) for sort glob "$AgentTest::root/sql/[0-9]*.sql";
}


sub conninfo {
    my ($self, %o) = @_;
    return "host=$self->{sockets} port=$self->{port} dbname=$self->{name} "
           . "user=agent";
}


sub conninfo_tcp {
    my ($self, %o) = @_;
    return "host=127.0.0.1 port=$self->{port} dbname=$self->{name} "
           . 'user=' . ($o{user} || 'agent')
           . ($o{password} ? " password=$o{password}" : '')
           . ($o{more} ? " $o{more}" : '');
}


sub psql_command {
    my ($self, %o) = @_;
    return (bin('psql'), '-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1',
            '-h', $self->{sockets}, '-p', $self->{port}, '-U',
            $o{user} || 'postgres', '-d', $o{database} || $self->{name});
}


sub psql_file {
    my ($self, $file) = @_;
    my @command = ($self->psql_command(user => 'agent'), '-f', $file);
    system(@command) == 0 or die "psql -f $file failed\n";
}


# What a statement gives: lines, columns apart by "|".  By a superuser, who
# sees the rows of every tenant; user => 'agent' is what the module is.

sub psql {
    my ($self, $sql, %o) = @_;

    open my $fh, '-|', $self->psql_command(%o), '-c', $sql
        or die "psql: $!\n";
    local $/;
    my $out = <$fh> // '';
    close $fh or $o{may_fail} or die "psql failed: $sql\n";
    $out =~ s/\n\z//;
    return $out;
}


sub DESTROY {
    my ($self) = @_;

    # the suite's cluster stays small
    if (!$self->{private} && $self->{name} && ${^GLOBAL_PHASE} ne 'DESTRUCT') {
        local $?;
        $self->psql("drop database if exists $self->{name} with (force);",
                    database => 'postgres', may_fail => 1);
    }
}


1;
