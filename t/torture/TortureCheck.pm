package TortureCheck;

# Judges a run of the torture test by three witnesses that know nothing of one
# another: what the clients were told (clients-*.log), what the tables hold in
# the end (*.rows), and which calls the LLM has seen (llm.log).  The log of
# the killer says what may be excused.

use strict;
use warnings;

use List::Util qw(min);

use parent 'TortureBills';

my @names = qw(created running completed waiting_for_input failed cancelled);
my %number = map { $names[$_] => $_ } 0 .. $#names;

my %allowed = (
    task => [200], artifact => [200], download => [200], get => [200],
    list => [200], cancel_task => [200], cancel_step => [200],
    delete => [200, 404], gone => [404],
    step => [200, 202, 409, 502, 504, 507], tasks => [200], spy => [404],
    stranger => [401], forbidden => [403],
);

my @checks = qw(answers refusals tasks steps removed ended seqs ledger winners
                artifacts calls explained takeovers published cancelled
                stopped_autos keys tenants quotas usage secrets logs service);


sub main {
    my ($dir) = @_;
    return __PACKAGE__->new($dir)->judge(@checks);
}


# Checks ----------------------------------------------------------------------

# Each answer is JSON and of a status that makes sense there.

sub check_answers {
    my ($self) = @_;

    my %seen;
    for my $r (@{$self->{requests}}) {
        my $status = $r->{how} eq 'ok' ? $r->{status} : $r->{how};
        $seen{$r->{op}}{$status}++;
        next if $r->{how} ne 'ok';

        my $what = "$r->{op} by client $r->{client} at $r->{t1}";
        $self->wrong("$what: no JSON in the $status: $r->{wrong}")
            if exists $r->{wrong};
        $self->wrong("$what: a secret in the answer") if $r->{leak};

        next if $status == 503 || $self->refused($r);
        next if $status == 404 && $r->{task} && $self->{deleted}{$r->{task}};
        next if grep { $_ == $status } @{$allowed{$r->{op}}}
                and $status !~ /^50/ || $r->{got}{step_id};
        $self->wrong("$what: $status " . ($r->{got}{message} // ''));
    }

    for my $op (sort keys %seen) {
        $self->fact("answers to $op", join ', ', map { "$_: $seen{$op}{$_}" }
                    sort keys %{$seen{$op}});
    }
    $self->wrong('there are no answers to judge by')
        unless $seen{task}{200} && $seen{step}{200};
}


# A connection is refused or cut only when a process was killed: a reload, a
# dead database and a slow LLM do neither.  A worker that has to leave while
# the database is away has nothing to tell.

sub check_refusals {
    my ($self) = @_;

    for my $r (@{$self->{requests}}) {
        next if $r->{how} !~ /^(?:refused|cut)$/;
        my $by = $r->{how} eq 'cut' ? qr/^(?:worker|nginx)_kill$/
                                    : qr/^nginx_kill$/;
        $self->wrong("$r->{op} by client $r->{client} at $r->{t1}, begun at "
                     . "$r->{t0}: the connection was $r->{how}")
            unless $self->excused($r->{t1} - 0.5, $r->{t1}, $by)
                || $r->{how} eq 'cut'
                   && $self->left_in_vain($r->{t1} - 0.5, $r->{t1});
    }
}


# What was acknowledged is there, once; what was not is there once at most.

sub by_token {
    my ($rows) = @_;

    my %by;
    for my $row (@$rows) {
        push @{$by{$1}}, $row if ($row->{input} // '') =~ /<(\S+?)>/;
    }
    return \%by;
}


sub check_once {
    my ($self, $op, $field, $have, $by) = @_;

    my (%id, $acked);

    for my $r (grep { $_->{op} eq $op } @{$self->{requests}}) {
        my $id = $r->{got}{$field};
        # what a removed task's keys have made may be made again
        my ($task) = grep { defined } $r->{task}, $r->{got}{task_id};
        next if $task && $self->{deleted}{$task};

        my $name = $r->{key} || $r->{token};
        next unless $name;
        # a key of another tenant's is another key
        $name = "$r->{tenant} $name";
        my $first = $id{$name};
        next if $first && $first->{gone};
        $id{$name} = $first = { id => $id, r => $r } if $id && !$first;
        $id{$name}{tried} ||= $r;
        next unless $id;

        $id{$name}{id} //= $id;
        $self->same($id, $id{$name}{id}, "$op with the key $name, at $r->{t1}");
    }

    for my $name (sort keys %id) {
        my $id = $id{$name}{id};
        my $r = $id{$name}{tried};

        if ($id) {
            $acked++;
            $self->wrong("$op $id ($name) was acknowledged and is lost")
                unless $have->{$id};
        }

        my @rows = @{$by->{$r->{token} // ''} || []};
        $self->wrong("$op $name is there " . @rows . ' times') if @rows > 1;
        $self->wrong("$op $name: its text is in " . ($rows[0]{$field} // '')
                     . ", acknowledged was $id")
            if @rows && $id && $rows[0]{$field} ne $id;
    }

    $self->fact("$op, different", scalar(keys %id) . ' asked for, '
                . ($acked // 0) . ' acknowledged');
}


sub check_tasks {
    my ($self) = @_;
    $self->check_once('task', 'task_id', $self->{task},
                      by_token($self->{table}{task}));
}


sub check_steps {
    my ($self) = @_;

    $self->check_once('step', 'step_id', $self->{step},
                      by_token($self->{table}{step}));

    for my $r (grep { $_->{got}{step_id} } @{$self->{requests}}) {
        my $step = $self->{step}{$r->{got}{step_id}};
        next if $self->{deleted}{$r->{task}};
        $self->wrong("step $r->{got}{step_id} was shown and is lost"), next
            unless $step;
        $self->same($step->{task_id}, $r->{task},
                    "the task of step $step->{step_id}");
    }

    my %n;
    $n{$names[$_->{status}]}++ for @{$self->{table}{step}};
    $self->fact('steps', join ', ', map { "$_: $n{$_}" } sort keys %n);
}


sub check_removed {
    my ($self) = @_;

    for my $r (grep { $_->{op} eq 'delete' && $_->{status} == 200 }
               @{$self->{requests}})
    {
        my $id = $r->{task};
        $self->wrong("task $id was removed and is there") if $self->{task}{$id};
        for my $table (qw(step queue secret artifact idempotency)) {
            $self->wrong("of the removed task $id there is a row in $table")
                if grep { $_->{task_id} eq $id } @{$self->{table}{$table}};
        }
    }
}


sub check_ended {
    my ($self) = @_;

    for my $step (@{$self->{table}{step}}) {
        my $what = "step $step->{step_id}";
        $self->wrong("$what is $names[$step->{status}]")
            if $step->{status} < 2;
        $self->wrong("$what holds a lease") if defined $step->{lease_until};
        $self->wrong("$what has no time of its end") unless $step->{ended};
        $self->wrong("$what is of no task")
            unless $self->{task}{$step->{task_id}};
    }

    for my $table (qw(queue secret)) {
        $self->wrong("$table still has a row of task $_->{task_id}")
            for @{$self->{table}{$table}};
    }
}


sub check_seqs {
    my ($self) = @_;

    my %seqs;
    push @{$seqs{$_->{task_id}}}, $_->{seq} for @{$self->{table}{step}};

    for my $id (sort keys %seqs) {
        my @seqs = sort { $a <=> $b } @{$seqs{$id}};
        $self->same("@seqs", join(' ', 1 .. @seqs), "the steps of task $id");
    }
}


# One row for each step, and it says what the step says.

sub check_ledger {
    my ($self) = @_;

    my %bill;
    push @{$bill{$_->{step_id}}}, $_ for @{$self->{table}{usage}};

    for my $step (@{$self->{table}{step}}) {
        my $what = "the ledger on step $step->{step_id}";
        my $rows = delete $bill{$step->{step_id}} || [];
        $self->same(scalar @$rows, 1, "$what, rows");
        next unless @$rows;
        $self->same($rows->[0]{$_}, $step->{$_}, "$what, $_")
            for qw(task_id status attempt tokens_in tokens_out);
        my $agent = $self->{task}{$step->{task_id}}{agent} // '';
        next if $agent eq 'calm';
        $self->same($rows->[0]{price} + 0, $self->{run}{price} + 0,
                    "$what, price") if $step->{status} =~ /^[23]$/;
        $self->same($rows->[0]{price} + 0, 0, "$what, price")
            if $step->{status} =~ /^[45]$/;
    }

    for my $row (map { @$_ } values %bill) {
        $self->wrong("the ledger has a row of no step, $row->{step_id}")
            unless $self->{deleted}{$row->{task_id}};
    }
}


# A result is the one of the attempt that the row names.

sub check_winners {
    my ($self) = @_;

    my $n;
    for my $step (grep { $_->{status} =~ /^[23]$/ } @{$self->{table}{step}}) {
        my $mark = "$step->{step_id}/$step->{attempt}";
        my ($got) = ($step->{output} // '') =~ m{<([^<>]*)>\s*\z};
        $self->same($got, $mark, "whose result step $step->{step_id} has");
        $n++;

        my ($call) = grep { $_->{attempt} eq $step->{attempt} }
                     @{$self->{calls}{$step->{step_id}} || []};
        $self->wrong("the LLM knows nothing of the call $mark"), next
            unless $call;
        # who has heard [DONE] may hang up
        $self->wrong("the call $mark, whose answer was taken, ended: "
                     . ($call->{how} // 'not at all'))
            if ($call->{how} // '') !~ /^(?:ok|client closed)$/;
    }
    $self->fact('results, of the right attempt', $n // 0);
}


sub check_artifacts {
    my ($self) = @_;

    my %row = map { $_->{artifact_id} => $_ } @{$self->{table}{artifact}};
    my (%files, $uploads);

    for my $row (values %row) {
        my $what = "artifact $row->{artifact_id}";
        my $bytes = $self->{files}{$row->{artifact_id}};
        $self->wrong("$what has no bytes"), next unless defined $bytes;
        $self->same(length $bytes, $row->{size}, "$what, size");
        $self->wrong("$what is of no task")
            unless $self->{task}{$row->{task_id}};
        my $id = $row->{step_id} or next;
        my $step = $self->{step}{$id};
        $self->wrong("$what is of no step"), next unless $step;
        $self->wrong("$what is there twice")
            if $files{"$id $row->{file_name}"}++;
        my ($mark) = $bytes =~ m{<([^<>]*)>\s*\z};
        $self->same($mark, "$id/$step->{attempt}", "whose $what is");
    }

    $self->check_once('artifact', 'artifact_id', \%row, {});

    my %seen;
    for my $r (grep { $_->{op} eq 'artifact' && $_->{got}{artifact_id} }
               @{$self->{requests}})
    {
        my $bytes = $self->{files}{$r->{got}{artifact_id}};
        $self->same($bytes, "file $r->{token}", "the bytes of $r->{token}");
        $uploads++ unless $seen{$r->{token}}++;
    }
    my $n = grep { !$_->{step_id} } values %row;
    my %sent = map { $_->{token} => 1 } grep { $_->{op} eq 'artifact' }
               @{$self->{requests}};
    my $tokens = keys %sent;
    $self->wrong("$n uploaded artifacts, of $tokens that were sent")
        if $n > $tokens || $n < ($uploads // 0);

    for my $r (grep { $_->{op} eq 'download' && $_->{status} == 200 }
               @{$self->{requests}})
    {
        $self->same($r->{bytes}, "file $r->{token}", "download of $r->{token}");
    }

    my $lost = grep { /^[0-9a-f-]{36}$/ && !$row{$_} } keys %{$self->{files}};
    $self->fact('artifacts', scalar(keys %row) . ", files of none: $lost");
}


# The LLM is not called more often than the agent allows.

sub check_calls {
    my ($self) = @_;

    my (%times, $n);
    for my $id (sort keys %{$self->{calls}}) {
        my @calls = @{$self->{calls}{$id}};
        $n += @calls;
        $self->wrong(scalar(@calls) . ' calls name no step'), next if $id eq '';

        my %attempt;
        for my $call (@calls) {
            $self->wrong("attempt $call->{attempt} of step $id was called "
                         . 'twice') if $attempt{$call->{attempt}}++;
        }

        my $step = $self->{step}{$id} or next;
        $times{scalar @calls}++;
        my $agent = $self->{task}{$step->{task_id}}{agent} // '';
        my $limit = ($agent eq 'calm' ? 20 : $self->{run}{attempts})
                    + $step->{spared};
        $self->wrong("step $id was called " . @calls . " times, of $limit")
            if @calls > $limit;
        $self->wrong("step $id was called as attempt $_, it has "
                     . $step->{attempt})
            for grep { $_ > $step->{attempt} || $_ < 1 } keys %attempt;
        # who claims it finds that there are none left: that is one more
        $self->wrong("step $id has used $step->{attempt} attempts, of $limit")
            if $step->{attempt} > $limit + 1;
    }

    # unless it was removed
    my @unknown = grep { $_ ne '' && !$self->{step}{$_} }
                  keys %{$self->{calls}};
    my %removed = map { $_->{step_id} => 1 } @{$self->{table}{usage}};
    $self->wrong("a call for the step $_, which nobody knows")
        for grep { !$removed{$_} } @unknown;

    $self->fact('calls of the LLM', "$n; steps with so many: "
        . join ', ', map { "$_: $times{$_}" } sort { $a <=> $b } keys %times);

    my %faults;
    for my $call (@{$self->{call_list}}) {
        $faults{$_}++ for words($call);
    }
    $self->fact('calls that should go wrong', join ', ',
                map { "$_: $faults{$_}" } sort keys %faults);
}


sub story {
    my ($step) = @_;
    my $out = $step->{additional_output};
    return join '; ', grep { defined } $step->{story},
                ref $out ? $out->{error} : undef;
}


# The LLM was told to do something wrong, perhaps.

sub flawed {
    my ($call) = @_;
    return scalar(() = words($call));
}


sub words {
    my ($call) = @_;
    return ($call->{behaviour} // '') =~
        /(?:^|\+)(http:\d+|drop|cutclean|cut|hangmid|hang|html|notjson|badsse
                |badtype|empty|badhttp|short)\b/gx;
}


# More than one call is only for a reason.

sub check_explained {
    my ($self) = @_;

    my (%why, $spared);
    for my $step (@{$self->{table}{step}}) {
        $spared += $step->{spared};
        my @calls = @{$self->{calls}{$step->{step_id}} || []};
        my $story = story($step);

        # each call but the last is in the story, or was handed back
        my $told = () = $story =~ /attempt \d+: /g;
        $self->wrong("step $step->{step_id} has had " . @calls . ' calls, '
                     . "$step->{spared} spared, and tells: $story")
            if @calls - 1 > $told + $step->{spared};

        for my $i (1 .. $#calls) {
            my ($old, $new) = @calls[$i - 1, $i];
            my $kill = $self->excused($old->{time} - 1, $new->{time},
                                      qr/^llm_stop$/);

            if (flawed($old)) { $why{'the LLM'}++ }
            elsif ($story =~ /is gone/ && ($self->harmed($old->{pid},
                       $old->{time}, $new->{time})
                   || $self->left_in_vain($old->{time}, $new->{time})))
            {
                $why{'worker gone'}++;
            }
            elsif ($step->{spared}) { $why{'handed back'}++ }
            elsif ($kill) { $why{$kill->{fault}}++ }
            else {
                $self->wrong("step $step->{step_id}: attempt $new->{attempt} "
                    . "came after $old->{attempt}, which was right and "
                    . ($old->{how} // 'still on') . "; it tells: $story");
            }
        }

        # an agent's own limit may be found only after the claim
        next if ($self->{task}{$step->{task_id}}{agent} // '') ne 'plain';
        $self->wrong("step $step->{step_id}: $step->{spared} attempts were "
                     . 'spared, and nobody quit')
            if $step->{spared} && !$self->excused($step->{created},
                                       $step->{ended} || 9e9, qr/^reload$/);
    }
    $self->fact('further calls, by reason',
                join ', ', map { "$_: $why{$_}" } sort keys %why);
    $self->fact('attempts handed back', $spared // 0);
}


# Nobody is called dead who was not hit.

sub check_takeovers {
    my ($self) = @_;

    my $n = 0;
    for my $step (@{$self->{table}{step}}) {
        my %gone = map { $_ => 1 } story($step) =~ /worker '?(\S+?)'? is gone/g;
        for my $name (sort keys %gone) {
            $n++;
            $self->wrong("step $step->{step_id} was taken from worker $name, "
                         . 'which nobody has harmed')
                unless grep({ $self->{killed}{$_} } $name =~ /(\d+)/g)
                    || $self->left_in_vain($step->{created}, $step->{ended});
        }
    }
    $self->fact('steps taken from workers that were hit', $n);
}


# What clients were told of the end of a step stays so.

sub check_published {
    my ($self) = @_;

    my $n = 0;
    for my $r (@{$self->{requests}}) {
        my @told = @{$r->{list} || []};
        my $got = $r->{got} || {};
        push @told, $got if $got->{step_id} && $r->{status} == 200;
        push @told, { step_id => $got->{step_id}, status =>
                      $r->{status} == 409 ? 'cancelled' : 'failed' }
            if $got->{step_id} && $r->{status} =~ /^(?:409|50[247])$/;

        for my $told (@told) {
            my $status = $number{$told->{status} // ''};
            my $what = "step $told->{step_id}, told at $r->{t1}";
            $self->wrong("$what: no status"), next unless defined $status;
            next if $status < 2;
            my $step = $self->{step}{$told->{step_id}} or next;
            $self->same($names[$step->{status}], $told->{status}, $what);
            $self->same($step->{output}, $told->{output}, "$what, output")
                if exists $told->{output} && $status =~ /^[23]$/;
            $self->wrong("$what: before it was stored")
                if $step->{ended} > $r->{t1} + 0.05;
            $n++;
        }
    }
    $self->fact('ends that clients were told', $n);
}


# A cancel that was answered holds: the step has ended by then, and the LLM is
# let go.

sub check_cancelled {
    my ($self) = @_;

    my @took;
    for my $r (grep { $_->{op} =~ /^cancel/ && $_->{status} == 200
                      && $_->{step} } @{$self->{requests}})
    {
        my $step = $self->{step}{$r->{step}} or next;
        my $what = "step $r->{step}, cancelled at $r->{t1}";
        $self->wrong("$what: the answer says $r->{got}{status}")
            if $r->{op} eq 'cancel_step'
               && ($number{$r->{got}{status} // ''} // 0) < 2;
        $self->wrong("$what: ended at $step->{ended}")
            if $step->{ended} > $r->{t1} + 0.05;

        for my $call (@{$self->{calls}{$r->{step}} || []}) {
            $self->wrong("$what: called at $call->{time}")
                if $call->{time} > $r->{t1} + 1
                   && !$self->harmed($call->{pid}, $r->{t0} - 1, $call->{time})
                   && !$self->excused($r->{t0} - 1, $call->{time},
                                      qr/^(?:llm|backend|postgres)_/);
        }
    }

    for my $step (grep { $_->{status} == 5 } @{$self->{table}{step}}) {
        my $call = ($self->{calls}{$step->{step_id}} || [])->[-1] or next;
        my $end = $call->{end} // 9e9;
        next if $end < $step->{ended} || $call->{time} > $step->{ended};
        my @when = ($step->{ended} - 1, min($end, $step->{ended} + 5));
        next if $self->harmed($call->{pid}, @when)
                || $self->excused(@when, qr/^(?:backend|postgres|llm)_/);
        push @took, $end - $step->{ended};
        $self->wrong("step $step->{step_id} was cancelled, its call was "
                     . 'closed after ' . ($call->{end} ? sprintf('%.1f s',
                     $took[-1]) : 'never')) if $took[-1] > 3;
    }
    $self->fact('cancelled, to the end of the call',
                TortureJudge::in_words(@took));
}


# A task that was cancelled goes on by its client only.

sub check_stopped_autos {
    my ($self) = @_;

    my %stopped;
    for my $r (grep { $_->{op} eq 'cancel_task' && $_->{status} == 200 }
               @{$self->{requests}})
    {
        $stopped{$r->{task}} //= $r->{t1};
    }
    for my $step (@{$self->{table}{step}}) {
        my $at = $stopped{$step->{task_id}} or next;
        next if defined $step->{input}
                || $step->{created} < $at + 0.05;
        my $agent = $self->{task}{$step->{task_id}}{agent} // '';
        $self->wrong("step $step->{step_id} came after the cancel of its task")
            if $agent eq 'auto';
    }
}


sub check_keys {
    my ($self) = @_;

    my (%id, $replays);
    for my $r (@{$self->{requests}}) {
        next unless $r->{key};
        $replays++ if $r->{replayed};
        my $field = $r->{op} eq 'artifact' ? 'artifact_id' : "$r->{op}_id";
        $id{"$r->{tenant} $r->{key}"} //= $r->{got}{$field};
    }
    for my $row (@{$self->{table}{idempotency}}) {
        my $id = $id{"$row->{tenant} $row->{key}"} or next;
        # a key goes with the task that it has made
        next if $self->{deleted}{$row->{task_id}} || $self->{deleted}{$id};
        $self->same($row->{item_id} // $row->{task_id}, $id,
                    "what the key $row->{key} stands for");
    }
    $self->fact('answers given again for a key', $replays // 0);
}


# Secret answers are in no table and no log.

sub check_secrets {
    my ($self) = @_;

    my $asked = grep { $_->{secret} } @{$self->{table}{step}};
    my $given = grep { $_->{redacted} } @{$self->{table}{step}};

    for my $file (map { m{([^/]+)$} } glob("$self->{dir}/*.rows"),
                  glob("$self->{dir}/error-*.log $self->{dir}/access-*.log "
                       . "$self->{dir}/postgres.log"))
    {
        my $n = grep { /sekret-/ } $self->lines($file);
        $self->wrong("$n lines of $file have a secret") if $n;
    }
    $self->fact('secrets', "$asked asked for, $given given");
}


sub check_logs {
    my ($self) = @_;

    my %excused;
    for my $file (map { m{([^/]+)$} } glob "$self->{dir}/error-*.log") {
        for my $line ($self->lines($file)) {
            next unless $line =~ /\[alert\]|\[emerg\]|exited on signal
                                 |ERROR:\ \w+Sanitizer|runtime\ error:/x;
            if ($line =~ /worker process (\d+) exited on signal 9$/
                || $line =~ /was locked by (\d+)/)
            {
                $excused{$1}++, next if $self->{killed}{$1};
            }
            $self->wrong("$file: $line");
        }
    }
    for my $line ($self->lines('postgres.log')) {
        $self->wrong("postgres.log: $line")
            if $line =~ / (?:PANIC|ERROR): /
               && $line !~ /terminat|cancel|shutting down|starting up/i;
    }
    $self->fact('workers whose end by signal 9 was logged',
                scalar keys %excused);
}


sub check_service {
    my ($self) = @_;

    my $run = $self->{run};
    $self->wrong('not everything came to an end') unless $run->{quiet};
    $self->wrong('a process of clients failed') unless $run->{clients_ok};
    $self->wrong("nginx $_ does not serve in the end")
        for grep { !$run->{serve}[$_] } 0 .. $#{$run->{serve}};
    $self->wrong("the two nginx took $run->{quit} s to quit")
        if $run->{quit} > 2 * $run->{drain} + 6;

    for my $kind (sort keys %{$run->{took}}) {
        my @took = @{$run->{took}{$kind}} or next;
        my @never = grep { !/^[\d.]+$/ } @took;
        $self->wrong(@never . " killed $kind: the step did not run again")
            if @never;
        @took = grep { /^[\d.]+$/ } @took;
        $self->fact("killed $kind, to the step running again",
                    TortureJudge::in_words(@took));
        # the goals are 2 s and 35 s; a machine may be slow
        $self->wrong("killed $kind: " . TortureJudge::in_words(@took))
            if @took
               && TortureJudge::median(@took) > ($kind eq 'host' ? 36 : 3);
    }
    $self->loaded_takeovers;
}


# The same in the middle of it all: from the kill to the next call for a step
# that was at the LLM.  Pauses after faults of the LLM are in it, and the
# queue.

sub loaded_takeovers {
    my ($self) = @_;

    my @took;
    for my $calls (values %{$self->{calls}}) {
        for my $i (0 .. $#$calls - 1) {
            my ($old, $new) = @$calls[$i, $i + 1];
            for my $kill (@{$self->{kills}}) {
                next if $kill->{fault} ne 'worker_kill'
                    || $kill->{pids}[0] != ($old->{pid} // 0)
                    || $old->{time} > $kill->{from}
                    || ($old->{end} // 0) < $kill->{from};
                push @took, $new->{time} - $kill->{from};
            }
        }
    }
    $self->fact('killed worker, the same under load',
                TortureJudge::in_words(@took));
    my @slow = grep { $_ > 2 } @took;
    $self->fact('... of these over 2 s', join ' ', map { sprintf '%.1f', $_ }
                sort { $a <=> $b } @slow) if @slow;
}


1;
