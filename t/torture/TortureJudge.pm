package TortureJudge;

# What the checker of the torture test stands on: reads the witnesses' files,
# collects what is wrong and what is worth knowing, reports it.  Reads files
# only: a folder that was kept can be judged again.

use strict;
use warnings;

use JSON::PP;
use List::Util qw(max min sum0);
use Time::Local qw(timegm);

my $json = JSON::PP->new->utf8->canonical->allow_nonref;


sub new {
    my ($class, $dir) = @_;
    my $self = bless { dir => $dir, wrong => {}, facts => [] }, $class;
    $self->load;
    return $self;
}


# Runs the checks of these names; the exit code.

sub judge {
    my ($self, @checks) = @_;

    for my $check (@checks) {
        $self->{check} = $check;
        $self->can("check_$check")->($self);
    }
    return $self->report(@checks);
}


sub wrong {
    my ($self, $text) = @_;
    push @{$self->{wrong}{$self->{check}}}, $text;
}


# Both sides must be the same.

sub same {
    my ($self, $got, $want, $what) = @_;
    ($got, $want) = map { $_ // 'null' } $got, $want;
    $self->wrong("$what: $got, not $want") if $got ne $want;
}


sub fact {
    my ($self, $name, $text) = @_;
    push @{$self->{facts}}, [$name, $text];
}


# Reading ---------------------------------------------------------------------

sub lines {
    my ($self, $name) = @_;

    open my $fh, '<', "$self->{dir}/$name" or die "$self->{dir}/$name: $!\n";
    my @lines = <$fh>;
    chomp @lines;
    return @lines;
}


sub rows {
    my ($self, $name) = @_;
    return map { $json->decode($_) } grep { length } $self->lines($name);
}


sub load {
    my ($self) = @_;

    ($self->{run}) = $self->rows('run.json');
    $self->{kills} = [$self->rows('kills.log')];
    $self->{files} = [$self->rows('artifacts.json')]->[0];
    $self->{looks} = [$self->rows('quotas.log')];
    $self->{usage} = [$self->rows('usage.json')]->[0];
    $self->{requests} = [sort { $a->{t1} <=> $b->{t1} } map { $self->rows($_) }
        map { m{([^/]+)$} } glob "$self->{dir}/clients-*.log"];

    for my $table (qw(task step queue secret artifact usage idempotency
                      quota))
    {
        $self->{table}{$table} = [$self->rows("$table.rows")];
    }

    $self->{task} = { map { $_->{task_id} => $_ } @{$self->{table}{task}} };
    $self->{step} = { map { $_->{step_id} => $_ } @{$self->{table}{step}} };
    for my $step (@{$self->{table}{step}}) {
        $step->{created} = seconds($step->{created_at});
        $step->{ended} = seconds($step->{ended_at});
    }

    for my $kill (@{$self->{kills}}) {
        $self->{killed}{$_} = $kill->{fault} for @{$kill->{pids} || []};
    }

    # what a removal may have happened to
    for my $r (@{$self->{requests}}) {
        $self->{deleted}{$r->{task}} = 1 if $r->{op} eq 'delete';
    }

    $self->load_calls;
}


sub load_calls {
    my ($self) = @_;

    my %by;
    for my $line ($self->rows('llm.log')) {
        if ($line->{event} eq 'start') {
            $by{$line->{number}} = $line;
        } elsif ($by{$line->{number}}) {
            @{$by{$line->{number}}}{qw(end how)} = @$line{qw(time how)};
        }
    }
    $self->{call_list} = [sort { $a->{time} <=> $b->{time} } values %by];
    push @{$self->{calls}{$_->{step} // ''}}, $_ for @{$self->{call_list}};
}


# A timestamp of Postgres as seconds since the epoch.

sub seconds {
    my ($text) = @_;

    my ($y, $mon, $d, $h, $min, $s, $sign, $zh, $zm) = ($text // '') =~
        /^(\d+)-(\d+)-(\d+)T(\d+):(\d+):([\d.]+)([+-])(\d\d):?(\d\d)?$/
        or return 0;
    my $zone = ($zh * 3600 + ($zm || 0) * 60) * ($sign eq '-' ? -1 : 1);
    return timegm(0, $min, $h, $d, $mon - 1, $y) + $s - $zone;
}


# This process was hit in that time.

sub harmed {
    my ($self, $pid, $from, $to) = @_;

    for my $kill (@{$self->{kills}}) {
        return $kill if $kill->{from} <= $to && $kill->{to} >= $from
                        && grep { $_ == ($pid // 0) } @{$kill->{pids} || []};
    }
    return;
}


# A worker had to leave in that time while the database was away: it could not
# hand back what it ran, and its steps were taken from it when it was gone.

sub left_in_vain {
    my ($self, $from, $to) = @_;

    for my $kill (@{$self->{kills}}) {
        return 1 if $kill->{fault} eq 'reload' && $kill->{from} <= $to
            && $kill->{to} >= $from && $self->excused($kill->{from} - 1,
                $kill->{to}, qr/^(?:backend_kill|postgres_)/);
    }
    return 0;
}


# Something was broken on purpose in that time.

sub excused {
    my ($self, $from, $to, $faults) = @_;

    for my $kill (@{$self->{kills}}) {
        next if $faults && $kill->{fault} !~ $faults;
        return $kill if $kill->{from} <= $to && $kill->{to} >= $from;
    }
    return;
}


# Words -----------------------------------------------------------------------

sub median {
    my @sorted = sort { $a <=> $b } @_;
    return $sorted[int(@sorted / 2)];
}


sub in_words {
    return 'none' unless @_;
    return sprintf '%d times, median %.2f s, at most %.2f s', scalar @_,
                   median(@_), max(@_);
}


sub report {
    my ($self, @checks) = @_;

    my %faults;
    $faults{$_->{fault}}++ for @{$self->{kills}};
    $self->fact('faults', join ', ', map { "$_: $faults{$_}" }
                sort keys %faults);

    printf "  %-40s %s\n", @$_ for @{$self->{facts}};

    my $n = sum0(map { scalar @$_ } values %{$self->{wrong}});
    for my $check (grep { $self->{wrong}{$_} } @checks) {
        my @texts = @{$self->{wrong}{$check}};
        print "WRONG: $check (", scalar @texts, ")\n";

        # of each kind the first two
        my %kind;
        push @{$kind{s/[0-9a-f]{8}-[0-9a-f-]{27}|\d+//gr}}, $_ for @texts;
        for my $kind (sort keys %kind) {
            my @these = @{$kind{$kind}};
            print "    $_\n" for @these[0 .. min($#these, 1)];
            print '    ... and ', @these - 2, " like it\n" if @these > 2;
        }
    }
    print $n ? "torture: $n things are wrong" : 'torture: nothing is wrong',
          "; TORTURE_SEED=$self->{run}{seed}\n";
    return $n ? 1 : 0;
}


1;
