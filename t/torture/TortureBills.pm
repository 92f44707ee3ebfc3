package TortureBills;

# What the checker has to say about tenants: that none sees another's rows,
# none has more than its limits allow, and that what each is told it has used
# is what the ledger holds and what has ended.

use strict;
use warnings;

use List::Util qw(max sum0);

use parent 'TortureJudge';

# a limit, the status it is told by, and who has it
my %limit = (
    running => [429, 'tight', qr/its limit of \d+ running steps/],
    queued => [429, 'tight', qr/its limit of \d+ queued steps/],
    bytes => [507, 'tight', qr/its limit of \d+ bytes/],
    money => [402, 'poor', qr/its limit of [\d.]+ to be spent in a month/],
);


# The answer says that the tenant is over a limit: which; it has that limit.

sub refused {
    my ($self, $r) = @_;

    for my $name (sort keys %limit) {
        my ($status, $tenant, $words) = @{$limit{$name}};
        return $name if $r->{status} == $status && $r->{tenant}
            && $r->{tenant} eq $tenant
            && ($r->{got}{message} // '') =~ $words;
    }
    return;
}


# Every row is of the tenant of its task, and no client was shown, or has
# changed, what is another's.

sub check_tenants {
    my ($self) = @_;

    for my $table (qw(step queue secret artifact usage idempotency)) {
        for my $row (@{$self->{table}{$table}}) {
            my $task = $self->{task}{$row->{task_id}} or next;
            $self->same($row->{tenant}, $task->{tenant},
                        "the tenant of a row of $table of task "
                        . $row->{task_id});
        }
    }

    my (%n, %other);
    for my $r (@{$self->{requests}}) {
        next if $r->{how} ne 'ok';
        $n{$r->{op}}++;
        $n{told}++ if $r->{op} eq 'spy' && $r->{status} == 404;

        my @seen = map { $_->{task_id} } @{$r->{tasks} || []};
        push @seen, $r->{got}{task_id} if $r->{got}{task_id};
        push @seen, $r->{task} if $r->{task} && $r->{op} ne 'spy';

        for my $id (@seen) {
            my $task = $self->{task}{$id} or next;
            $self->wrong("client $r->{client} of $r->{tenant}, $r->{op} at "
                         . "$r->{t1}: task $id is of $task->{tenant}")
                if $task->{tenant} ne $r->{tenant};
        }
        # who spies may be told nothing but that there is no such thing
        $self->wrong("client $r->{client} has spied at $r->{t1}: "
                     . "$r->{status}")
            if $r->{op} eq 'spy' && $r->{status} !~ /^(?:404|503)$/;
    }

    $self->wrong('nobody has spied') unless $n{told};
    $self->wrong("no $_ was tried") for grep { !$n{$_} } qw(stranger forbidden);
    $self->fact('asked for what is another\'s',
                ($n{spy} // 0) . ", told 404: " . ($n{told} // 0));
    $self->fact('tried with no good key, a key without the right',
                join ', ', map { $n{$_} // 0 } qw(stranger forbidden));
}


# Not for a moment more than the limits allow.

sub check_quotas {
    my ($self) = @_;

    my (%most, %n);
    for my $look (@{$self->{looks}}) {
        my $what = "$look->{tenant} at $look->{at}";
        $n{$look->{tenant}}++;

        # what comes back from a dead worker was in the queue before
        my %have = (running => [@$look{qw(running max_running)}],
            queued => [$look->{queued}, defined $look->{max_queued}
                       ? $look->{max_queued} + $look->{max_running} : undef],
            bytes => [@$look{qw(bytes max_bytes)}],
            money => [millionths($look->{spent})
                      + millionths($look->{reserved}),
                      defined $look->{max_money}
                      ? millionths($look->{max_money}) : undef]);

        for my $name (sort keys %have) {
            my ($has, $may) = @{$have{$name}};
            next unless defined $may;
            $most{$name} = max($most{$name} // 0, $has);
            $self->wrong("$what: $has $name, allowed are $may") if $has > $may;
        }

        $self->same($look->{counted_bytes}, $look->{bytes},
                    "$what: bytes that are counted");
        $self->same(millionths($look->{counted_money}),
                    millionths($look->{spent}),
                    "$what: money that is counted");
    }

    $self->wrong('nobody has looked at the limits')
        unless $n{tight} && $n{poor};
    $self->fact('the most there was', join ', ', map { "$_: $most{$_}" }
                sort keys %most);

    # by the rows that are left, too
    for my $row (@{$self->{table}{quota}}) {
        my $bills = grep { $_->{tenant} eq $row->{tenant} }
                    @{$self->{table}{usage}};
        $self->same($row->{day_steps}, $bills, "steps of $row->{tenant} today")
            if !$self->{run}{midnight};
    }

    my %told;
    for my $r (@{$self->{requests}}) {
        my $name = $self->refused($r) or next;
        $told{$name}++;
    }
    $self->fact('refused by a limit', join ', ', map { "$_: $told{$_}" }
                sort keys %told);

    # a few clients, or a short time, may not be enough for it
    my $run = $self->{run};
    return if $run->{clients} < 60 || $run->{seconds} < 20;
    $self->wrong("no client was ever over its limit of $_")
        for grep { !$told{$_} } qw(running queued money),
                                $run->{seconds} >= 60 ? 'bytes' : ();
}


# An exact decimal as a whole number.

sub millionths {
    my ($price) = @_;

    my ($whole, $part) = ($price // '0') =~ /^(\d+)(?:\.(\d{1,6})0*)?$/
        or die "no price: $price\n";
    return $whole * 1_000_000 + substr(($part // '') . '000000', 0, 6);
}


# The sum over the ledger is the number of steps that have ended; and this is
# what tenants and the operator are told.

sub check_usage {
    my ($self) = @_;

    my (%sum, %steps);
    for my $row (@{$self->{table}{usage}}) {
        my $sum = $sum{$row->{tenant}} ||= {};
        $sum->{steps}++;
        $sum->{(qw(- - completed completed failed cancelled))
               [$row->{status}]}++;
        $sum->{$_} += $row->{$_} for qw(tokens_in tokens_out);
        $sum->{price} += millionths($row->{price});
        # of what was removed the ledger alone knows
        $steps{$row->{tenant}}++ unless $self->{step}{$row->{step_id}};
    }
    $steps{$_->{tenant}}++ for grep { $_->{status} > 1 }
                               @{$self->{table}{step}};

    for my $tenant (sort keys %sum) {
        $self->same($sum{$tenant}{steps}, $steps{$tenant},
                    "bills of \"$tenant\", for the steps that have ended");
    }
    $self->wrong("tenant $_ has done nothing")
        for grep { !$sum{$_} } sort keys %{$self->{usage}{tenant}};

    my %told = %{$self->{usage}{tenant}};
    my %lines;
    for my $line (@{$self->{usage}{all}{usage}}) {
        my $sum = $lines{$line->{tenant}} ||= {};
        $sum->{$_} += $line->{$_} for grep { /^(?:steps|tokens_.*|completed
                                             |failed|cancelled)$/x }
                                      keys %$line;
        $sum->{price} += millionths($line->{price});
    }

    for my $tenant (sort keys %sum) {
        $self->same_sum($sum{$tenant}, $lines{$tenant},
                        "what the operator is told of \"$tenant\"");
        next unless $told{$tenant};
        my %mine = (%{$told{$tenant}},
                    price => millionths($told{$tenant}{price}));
        $self->same_sum($sum{$tenant}, \%mine, "what $tenant is told");
    }

    my %all = %{$self->{usage}{all}{total}};
    $all{price} = millionths($all{price});
    my %whole = map {
        my $name = $_;
        $name => sum0(map { $_->{$name} // 0 } values %sum);
    } keys %all;
    $self->same_sum(\%whole, \%all, 'what the operator is told of all');
    $self->fact('the ledger', join ', ', map { '"' . $_
        . "\": $sum{$_}{steps} steps at $told{$_}{price}" }
        sort keys %told);
}


sub same_sum {
    my ($self, $want, $got, $what) = @_;

    for my $name (qw(steps completed failed cancelled tokens_in tokens_out
                     price)) {
        $self->same($got->{$name} // 0, $want->{$name} // 0, "$what, $name");
    }
}


1;
