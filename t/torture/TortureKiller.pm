package TortureKiller;

# What goes wrong around the clients of the torture test: a list of faults,
# each with a weight, and a log of what was done to whom and when.
#
# It may signal what the test has started and nothing else: workers are the
# children of our own masters, backends those of our own cluster.

use strict;
use warnings;

use JSON::PP;
use Time::HiRes qw(sleep time);

use AgentTest;
use TortureLoop;

my $json = JSON::PP->new->utf8->canonical;

my %faults = (
    worker_kill => 30, nginx_kill => 8, backend_kill => 5,
    backend_terminate => 12, postgres_fast => 4, postgres_immediate => 4,
    reload => 20, worker_stop => 5, llm_stop => 6,
);


# random, pg, llm, nginx (a list), log (a file name), stop, drain (seconds),
# only (names of faults), watch (called in the pauses)

sub new {
    my ($class, %o) = @_;

    my $self = bless { %o, later => [], count => {}, pids => {} }, $class;
    open $self->{fh}, '>', $o{log} or die "$o{log}: $!\n";
    $self->{fh}->autoflush(1);
    return $self;
}


sub count { return $_[0]{count} }


# One line of the log; "from" and "to" enclose the time of its effects.

sub note {
    my ($self, $fault, %o) = @_;

    $self->{count}{$fault}++;
    $o{to} //= time;
    print {$self->{fh}} $json->encode({ fault => $fault, %o }), "\n";
}


# At random for so many seconds.

sub play {
    my ($self, $until) = @_;

    my $random = $self->{random};

    # the slowest one first, so that a short test has it as well
    my %choice = %faults;
    %choice = map { $_ => 1 } split /,/, $self->{only} if $self->{only};
    exists $faults{$_} or die "there is no fault \"$_\"\n" for keys %choice;
    $self->worker_stop if $self->{stop} && $choice{worker_stop};

    while (time < $until) {
        $self->idle($random->between(0.3, 3));
        my $name = $random->weighed(%choice);
        $self->can($name)->($self);
    }
}


# Sleeps, and does what was put off.

sub idle {
    my ($self, $seconds) = @_;

    my $end = time + $seconds;
    while (1) {
        my $now = time;
        my @due = grep { $_->[0] <= $now } @{$self->{later}};
        @{$self->{later}} = grep { $_->[0] > $now } @{$self->{later}};
        $_->[1]->() for @due;
        $self->{watch}->() if $self->{watch};
        last if $now >= $end;
        sleep 0.05;
    }
}


sub later {
    my ($self, $seconds, $code) = @_;
    push @{$self->{later}}, [time + $seconds, $code];
}


# Everything runs again.

sub finish {
    my ($self) = @_;
    $self->idle(0.1) while @{$self->{later}};
}


# Who may be hit --------------------------------------------------------------

sub nginx {
    my ($self) = @_;
    my @up = grep { $_->{pid} } @{$self->{nginx}};
    return @up ? $self->{random}->pick(@up) : undef;
}


# A worker, most often one that is not about to leave.

sub worker {
    my ($self, $nginx) = @_;

    my @pids = $self->{random}->chance(80) ? $nginx->workers
                                           : children($nginx->{pid});
    @pids = grep { !$self->{stopped} || $_ != $self->{stopped} } @pids;
    return @pids ? $self->{random}->pick(@pids) : undef;
}


sub children {
    my ($master) = @_;

    my @found;
    for my $stat (glob '/proc/[0-9]*/stat') {
        my ($pid, $parent) = AgentTest::read_file($stat)
                             =~ /^(\d+) \(.*\) \S (\d+)/ or next;
        push @found, $pid if $parent == $master;
    }
    return sort { $a <=> $b } @found;
}


# Faults ----------------------------------------------------------------------

sub worker_kill {
    my ($self, $nginx) = @_;

    $nginx ||= $self->nginx or return;
    my $pid = $self->worker($nginx) or return;
    my $from = time;

    kill 'KILL', $pid;
    $self->note('worker_kill', from => $from, to => $from + 1, pids => [$pid]);
    return $from;
}


# Master and workers at once; started again after a moment.

sub nginx_kill {
    my ($self, $nginx, $pause) = @_;

    $nginx ||= $self->nginx or return;
    my @pids = ($nginx->{pid}, children($nginx->{pid}));
    my $from = time;

    # the master first: it would start new ones
    kill 'KILL', @pids;
    kill 'KILL', children($pids[0]);
    my $old = delete $nginx->{pid};
    AgentTest::poll_until(sub { !grep { !AgentTest::gone($_) } @pids }, 10);
    AgentTest::forget($old);
    unlink $nginx->{pidfile};

    $pause //= $self->{random}->between(0.1, 4);
    $self->note('nginx_kill', from => $from, to => $from + $pause + 2,
                pids => \@pids);
    $self->later($pause, sub { $nginx->start });
    return $from;
}


# The postmaster ends all sessions and recovers, when one is killed.

sub backend {
    my ($self) = @_;

    my @pids = split /\n/, $self->sql("select pid from pg_stat_activity "
        . "where backend_type = 'client backend' and datname = '"
        . $self->{pg}{name} . "' and pid <> pg_backend_pid()");
    return @pids ? $self->{random}->pick(@pids) : undef;
}


# The database may be away just now; that psql says so is no news.

sub sql {
    my ($self, $sql, %o) = @_;

    open my $saved, '>&', \*STDERR or die "dup: $!\n";
    open STDERR, '>', '/dev/null';
    my $out = $self->{pg}->psql($sql, %o, may_fail => 1);
    open STDERR, '>&', $saved;
    return $out;
}


sub backend_kill {
    my ($self) = @_;

    my $pid = $self->backend or return;
    my $from = time;
    kill 'KILL', $pid;
    $self->await_postgres;
    $self->note('backend_kill', from => $from, to => time + 3);
}


sub backend_terminate {
    my ($self) = @_;

    my $pid = $self->backend or return;
    my $from = time;
    $self->sql("select pg_terminate_backend($pid)", database => 'postgres');
    $self->note('backend_terminate', from => $from, to => time + 3);
}


sub await_postgres {
    my ($self) = @_;
    AgentTest::poll_until(sub {
        $self->sql('select 1') eq '1';
    }, 60) or die "Postgres does not come back\n";
}


sub postgres_fast { $_[0]->restart_postgres('fast') }
sub postgres_immediate { $_[0]->restart_postgres('immediate') }

sub restart_postgres {
    my ($self, $mode) = @_;

    my $from = time;
    $self->{pg}->stop($mode);
    sleep $self->{random}->between(0, 3);
    $self->{pg}->start;
    $self->note("postgres_$mode", from => $from, to => time + 3);
}


sub reload {
    my ($self) = @_;

    my $nginx = $self->nginx or return;
    my $from = time;
    kill 'HUP', $nginx->{pid};
    # old workers may hand back what they run until they leave
    $self->note('reload', from => $from, to => $from + $self->{drain} + 1);
}


# Beyond the lease; one at a time.

sub worker_stop {
    my ($self) = @_;

    return if $self->{stopped} || !$self->{stop};
    my $nginx = $self->nginx or return;
    my $pid = $self->worker($nginx) or return;
    my $from = time;

    $self->{stopped} = $pid;
    kill 'STOP', $pid;
    $self->note('worker_stop', from => $from, to => $from + $self->{stop} + 2,
                pids => [$pid]);
    $self->later($self->{stop}, sub {
        # it may have been killed with its nginx in the meantime
        kill 'CONT', $pid if AgentTest::read_file("/proc/$pid/cmdline")
                             =~ /^nginx: /;
        delete $self->{stopped};
    });
}


# All that the LLM says hangs for a while.

sub llm_stop {
    my ($self) = @_;

    return if $self->{llm_stopped};
    my $pid = $self->{llm}{pid};
    my $seconds = $self->{random}->between(0.5, 4);

    $self->{llm_stopped} = 1;
    kill 'STOP', $pid;
    $self->note('llm_stop', from => time, to => time + $seconds + 3);
    $self->later($seconds, sub {
        kill 'CONT', $pid;
        delete $self->{llm_stopped};
    });
}


package TortureNginx;

# An nginx that may live on a host of its own name.

use parent -norequire, 'AgentTest::Nginx';


sub command {
    my ($self, @args) = @_;

    my @command = $self->SUPER::command(@args);
    return @command unless $TortureNginx::host;
    return ('unshare', '--uts', 'sh', '-c', 'hostname "$0" && exec "$@"',
            $TortureNginx::host, @command) if $self->{elsewhere};
    return @command;
}


sub can_move {
    return system('unshare --uts hostname torture-elsewhere > /dev/null 2>&1')
           == 0;
}


1;
