package TortureClient;

# One client of the torture test: picks a story, plays it, picks the next,
# until its time is up.  What it sends and what it is told goes into a log of
# its own, a JSON line a request; it judges nothing: the checker does.
#
# It behaves as a good client may: what has an Idempotency-Key is sent again
# until there is an answer, to whichever nginx; what has none is sent once
# more only when it cannot have arrived.

use strict;
use warnings;

use JSON::PP;
use Time::HiRes qw(time);

use TortureLoop;

my $json = JSON::PP->new->utf8->canonical->allow_nonref;

my %stories = (talk => 40, leave => 12, async => 14, cancel => 12, auto => 12,
               ask => 8, upload => 5, remove => 3, spy => 6, stranger => 3);

# what clients of this process have made, by tenant: for those who spy
my %made;

# what may go wrong at the LLM; N: how often
my @faults = qw(http:429:N:1 http:429:N:3 http:429:N http:500:N http:503:N
                http:502:N drop:N cut:N cutclean:N hang:N hangmid:N html:N
                notjson:N badsse:N badtype:N empty:N badhttp:N short:N);


# loop, id, seed, ports, log (a handle), until (a time), tag; tenant, keys
# (kind => what to send), others (tenants)

sub new {
    my ($class, %o) = @_;

    my $self = bless { %o, n => 0, busy => 0 }, $class;
    $self->{random} = TortureRandom->new($o{seed}, $o{id});
    $self->{loop}->after($self->{random}->between(0, 1.5),
                         sub { $self->next_story });
    return $self;
}


sub done { return $_[0]{done} && !$_[0]{busy} }


sub next_story {
    my ($self) = @_;

    if (time > $self->{until}) {
        $self->{done} = 1;
        return;
    }

    my $name = $self->{random}->weighed(%stories);
    $self->{story} = $name;
    $self->can("story_$name")->($self);
}


# After a story, or in the middle of one that leads nowhere.

sub rest {
    my ($self) = @_;
    $self->{loop}->after($self->{random}->between(0.1, 1.2),
                         sub { $self->next_story });
}


sub token {
    my ($self) = @_;
    return sprintf '%s-%d-%d', $self->{tag}, $self->{id}, ++$self->{n};
}


# Requests --------------------------------------------------------------------

# spec: op, method, path, body or bytes, headers, and for the log: token, task,
# step.  key: may be sent again; safe: likewise, as it changes nothing twice.
# leave: go away after so many seconds, once.  auth: instead of a key that is
# good for it.

sub ask {
    my ($self, $spec, $next) = @_;

    my $random = $self->{random};
    my $place = $random->below(scalar @{$self->{ports}});
    my %h = %{$spec->{headers} || {}};
    my $body = $spec->{bytes};

    if ($spec->{body}) {
        $body = $json->encode($spec->{body});
        $h{'Content-Type'} = 'application/json';
    }
    $h{'Idempotency-Key'} = "\"$spec->{key}\"" if $spec->{key};
    $h{Authorization} = $spec->{auth} // 'Bearer ' . $self->good_key($spec);
    delete $h{Authorization} unless length $h{Authorization};

    my $leave = delete $spec->{leave};
    $self->{busy}++;
    $self->{loop}->request({
        port => $self->{ports}[$place], method => $spec->{method},
        path => $spec->{path}, headers => \%h, body => $body, leave => $leave,
        timeout => $random->between(6, 25) }, sub {
            my ($r) = @_;
            $self->{busy}--;
            $self->note($spec, $place, $r);
            return $self->again($spec, $next, $r)
                if time < $self->{until} + 45 && must_retry($spec, $r)
                   || time < $self->{until} && over_limit($spec, $r);
            $next->($r);
        });
}


# One of those that may do it.

sub good_key {
    my ($self, $spec) = @_;

    my @kinds = 'full';
    push @kinds, 'read' if $spec->{method} eq 'GET';
    push @kinds, 'some' if $spec->{path} =~ m{^/k/(?:plain|small)/};
    return $self->{keys}{$self->{random}->pick(@kinds)};
}


# The tenant is over a limit, and nothing has happened: it comes again, for a
# while.

sub over_limit {
    my ($spec, $r) = @_;

    return $r->{how} eq 'ok' && $r->{status} =~ /^(?:429|402)$/ && !step_of($r)
           && ++$spec->{refused} < 8;
}


# True when the answer is none, or asks to come again.

sub must_retry {
    my ($spec, $r) = @_;

    my $repeat = $spec->{key} || $spec->{safe};

    return $repeat || $r->{how} eq 'refused' if $r->{how} ne 'ok';
    return $repeat if $r->{status} == 503 && !step_of($r);
    return 1 if $r->{status} == 409 && $r->{headers}{'retry-after'}
                && !step_of($r) && $spec->{op} =~ /^(?:step|task|artifact)$/;
    return 0;
}


sub again {
    my ($self, $spec, $next, $r) = @_;

    my $pause = $r->{headers}{'retry-after'} // '';
    $pause = $pause =~ /^\d+$/ && $pause < 2 ? $pause || 0.1 : 1;
    $self->{loop}->after($pause * $self->{random}->between(0.3, 1.2),
                         sub { $self->ask($spec, $next) });
}


# The step that an answer is about, also when it is an error.

sub step_of {
    my ($r) = @_;
    return ref $r->{json} eq 'HASH' ? $r->{json}{step_id} : undef;
}


sub note {
    my ($self, $spec, $place, $r) = @_;

    my $j = $r->{json};
    my %line = (client => $self->{id}, story => $self->{story},
        tenant => $self->{tenant}, place => $place, (map { $_ => $spec->{$_} } qw(op key token task step)),
        (map { $_ => $r->{$_} } qw(how t0 t1)), status => $r->{status} + 0);

    if ($r->{how} eq 'ok') {
        my $h = $r->{headers};
        $line{replayed} = 1 if $h->{'idempotency-replayed'};
        $line{location} = $h->{location};
        $line{wrong} = substr $r->{body}, 0, 200 if !defined $j
            && $spec->{op} ne 'download';
        $line{bytes} = $r->{body} if $spec->{op} eq 'download';
        $line{leak} = 1 if $r->{body} =~ /sekret-/;
    }
    if (ref $j eq 'HASH') {
        $line{got} = { map { $_ => $j->{$_} } grep { exists $j->{$_} }
            qw(task_id step_id artifact_id status output is_last message) };
        $line{list} = [map { { step_id => $_->{step_id},
                               status => $_->{status},
                               output => $_->{output} } } @{$j->{steps}}]
            if ref $j->{steps} eq 'ARRAY' && $spec->{op} eq 'list';
        $line{tasks} = [map { { task_id => $_->{task_id} } } @{$j->{tasks}}]
            if ref $j->{tasks} eq 'ARRAY' && $spec->{op} eq 'tasks';
    }

    delete $line{$_} for grep { !defined $line{$_} } keys %line;
    my $fh = $self->{log};
    print $fh $json->encode(\%line), "\n";
}


# Deeds -----------------------------------------------------------------------

# How the LLM will take it: well, wrong at first, or wrong for good.

sub behaviour {
    my ($self, @words) = @_;

    my $random = $self->{random};
    my @say = ('stamp', @words);

    if ($random->chance(60)) {
        # well below the agents' timeout: the machine may be slow itself
        push @say, 'delay:' . int $random->between(20, 1000);
    } elsif ($random->chance(40)) {
        push @say, 'drip:' . int $random->between(20, 200);
    }
    if ($random->chance(28)) {
        my $n = $random->pick(1, 1, 1, 2, 2, 7);
        push @say, $random->pick(@faults) =~ s/N/$n/r;
    }
    return join '+', @say;
}


sub make_task {
    my ($self, $agent, $behaviour, $next) = @_;

    my $token = $self->token;
    my $text = ref $behaviour ? $json->encode($behaviour) : $behaviour;
    my $spec = { op => 'task', method => 'POST', token => $token,
                 path => "/k/$agent/tasks",
                 body => { input => "task <$token> [[$text]]" } };
    $spec->{key} = "k-$token" if $self->{random}->chance(70);

    $self->ask($spec, sub {
        my ($r) = @_;
        return $self->rest if $r->{status} != 200 || !ref $r->{json};
        my $task = { id => $r->{json}{task_id}, agent => $agent, n => 0,
                     at => "/k/$agent/tasks/$r->{json}{task_id}" };
        my $list = $made{$self->{tenant}} ||= [];
        push @$list, { %$task, key => $spec->{key} };
        shift @$list if @$list > 100;
        $self->repeat($spec);
        $next->($task);
    });
}


# What was answered is asked once more, now and then: the same must come back.

sub repeat {
    my ($self, $spec, $always) = @_;

    return unless $spec->{key} && ($always || $self->{random}->chance(12));
    $self->{loop}->after($self->{random}->between(0, 2), sub {
        return if $self->{done};
        $self->ask({ %$spec }, sub { });
    });
}


sub post_step {
    my ($self, $task, $o, $next) = @_;

    my $random = $self->{random};
    my $token = $self->token;
    my $spec = { op => 'step', method => 'POST', task => $task->{id},
                 path => "$task->{at}/steps", body => {}, leave => $o->{leave},
                 headers => $o->{async} ? { Prefer => 'respond-async' } : {} };

    # the first step may do without an input: the task's is used
    if ($task->{n}++ || $o->{behaviour} || $random->chance(70)) {
        my $words = $o->{behaviour} || $self->behaviour;
        $spec->{token} = $token unless defined $o->{text};
        $spec->{body}{input} = $o->{text} // "step <$token> [[$words]]";
    }
    $spec->{key} = "k-$token" if $o->{key} || $random->chance(70);

    # the very same at once, from elsewhere
    if ($spec->{key} && $random->chance(15)) {
        my %twin = %$spec;
        delete $twin{leave};
        $self->{loop}->after($random->between(0, 0.05), sub {
            $self->ask(\%twin, sub { });
        });
    }

    $self->ask($spec, sub {
        my ($r) = @_;
        $self->repeat($spec) if step_of($r);
        for (@{$made{$self->{tenant}} || []}) {
            $_->{step} = step_of($r) if $_->{id} eq $task->{id};
        }
        $next->($r);
    });
}


sub see_step {
    my ($self, $task, $step, $next, $wait) = @_;

    $self->ask({ op => 'get', method => 'GET', task => $task->{id},
                 step => $step, path => "$task->{at}/steps/$step", safe => 1,
                 headers => { $wait ? (Prefer => "wait=$wait") : () } }, $next);
}


# Looks until it has ended, at most so many times.

sub await_step {
    my ($self, $task, $step, $times, $next) = @_;

    $self->see_step($task, $step, sub {
        my ($r) = @_;
        my $status = ref $r->{json} eq 'HASH' ? $r->{json}{status} // '' : '';
        return $next->($r) if $status !~ /^(?:created|running)$/
            || $times <= 1 || time > $self->{until} + 30;
        $self->{loop}->after(0.3, sub {
            $self->await_step($task, $step, $times - 1, $next);
        });
    }, $self->{random}->pick(0, 2, 5));
}


sub list_steps {
    my ($self, $task, $next) = @_;
    $self->ask({ op => 'list', method => 'GET', task => $task->{id}, safe => 1,
                 path => "$task->{at}/steps?page_size=100" }, $next);
}


# Stories ---------------------------------------------------------------------

# A few steps, one after the other.

sub story_talk {
    my ($self) = @_;

    my $random = $self->{random};
    $self->make_task($random->pick('plain', 'plain', 'small'),
                     $self->behaviour, sub {
        my ($task) = @_;
        $self->go_on($task, 1 + $random->below(4));
    });
}


sub go_on {
    my ($self, $task, $left) = @_;

    return $self->rest if !$left || time > $self->{until};

    my @words = $self->{random}->chance(20)
                ? (behaviour => $self->behaviour("write:f$left.txt:text"))
                : ();
    $self->post_step($task, { @words }, sub {
        my ($r) = @_;
        $self->go_on($task, $left - 1) if step_of($r);
        $self->rest unless step_of($r);
    });
}


# Goes away in the middle, and comes back to look or to ask again.

sub story_leave {
    my ($self) = @_;

    my $random = $self->{random};
    $self->make_task($random->pick('plain', 'small'), $self->behaviour, sub {
        my ($task) = @_;
        $self->post_step($task, { leave => $random->between(0, 1.2) }, sub {
            $self->list_steps($task, sub {
                my ($r) = @_;
                my $list = ref $r->{json} eq 'HASH' ? $r->{json}{steps} : undef;
                return $self->rest unless ref $list eq 'ARRAY' && @$list;
                $self->await_step($task, $list->[0]{step_id}, 20,
                                  sub { $self->rest });
            });
        });
    });
}


sub story_async {
    my ($self) = @_;

    my $random = $self->{random};
    $self->make_task($random->pick('plain', 'small', 'small'),
                     $self->behaviour, sub {
        my ($task) = @_;
        $self->post_step($task, { async => 1 }, sub {
            my ($r) = @_;
            my $step = step_of($r) or return $self->rest;
            $self->await_step($task, $step, 30, sub { $self->rest });
        });
    });
}


# Cancels a step, or the whole task, while a request for it waits or not.

sub story_cancel {
    my ($self) = @_;

    my $random = $self->{random};
    my $words = $random->pick('hang', 'stamp+drip:400', 'stamp+delay:800',
                              'hangmid', 'stamp+delay:1000', 'http:429::30');

    $self->make_task($random->pick('plain', 'small'), 'stamp', sub {
        my ($task) = @_;
        $self->post_step($task, { async => 1, key => 1, behaviour => $words },
                         sub {
            my ($r) = @_;
            my $step = step_of($r) or return $self->rest;
            # someone who waits for it all the while
            $self->see_step($task, $step, sub { }, 8);
            $self->{loop}->after($random->between(0, 1.8), sub {
                $self->cancel_it($task, $step);
            });
        });
    });
}


sub cancel_it {
    my ($self, $task, $step) = @_;

    my $all = $self->{random}->chance(50);
    $self->ask({ op => $all ? 'cancel_task' : 'cancel_step', method => 'POST',
                 task => $task->{id}, step => $step, safe => 1, body => {},
                 path => $all ? "$task->{at}/cancel"
                              : "$task->{at}/steps/$step/cancel" }, sub {
        # and nothing may change it any more
        $self->see_step($task, $step, sub {
            $self->{loop}->after(2, sub {
                $self->see_step($task, $step, sub { $self->rest });
            });
        });
    });
}


# The queue runs the steps; some are stopped, some ask.

sub story_auto {
    my ($self) = @_;

    my $random = $self->{random};
    my @turns = map { $self->behaviour("write:a$_.txt:some text") }
                1 .. $random->below(4);
    push @turns, 'ask:Which one?+stamp' if $random->chance(15);
    push @turns, 'stamp';

    $self->make_task('auto', \@turns, sub {
        my ($task) = @_;
        $self->{loop}->after($random->between(0, 2.5), sub {
            $self->ask({ op => 'cancel_task', method => 'POST', safe => 1,
                         task => $task->{id}, path => "$task->{at}/cancel",
                         body => {} }, sub { });
        }) if $random->chance(15);
        $self->watch_auto($task, 40);
    });
}


sub watch_auto {
    my ($self, $task, $times) = @_;

    $self->list_steps($task, sub {
        my ($r) = @_;
        my $list = ref $r->{json} eq 'HASH' ? $r->{json}{steps} : undef;
        my $last = ref $list eq 'ARRAY' && @$list ? $list->[-1] : {};
        my $status = $last->{status} // 'created';

        if ($status eq 'waiting_for_input') {
            return $self->post_step($task, { text => 'that one',
                behaviour => '-' }, sub { $self->rest });
        }
        return $self->rest if $last->{is_last} || !$times
            || $status =~ /^(?:failed|cancelled)$/
            || time > $self->{until} + 30;
        $self->{loop}->after(0.8, sub {
            $self->watch_auto($task, $times - 1);
        });
    });
}


# A question, and the answer to it, which may be a secret.

sub story_ask {
    my ($self) = @_;

    my $random = $self->{random};
    my $secret = $random->chance(60);
    my @turns = ($self->behaviour($secret ? 'secret:Your password?'
                                          : 'ask:Which city?'),
                 $self->behaviour('text:thank you'));

    $self->make_task('plain', \@turns, sub {
        my ($task) = @_;
        $self->post_step($task, { key => 1, behaviour => $json->encode(
                                  \@turns) }, sub {
            my ($r) = @_;
            my $status = ref $r->{json} eq 'HASH' ? $r->{json}{status} : '';
            return $self->rest if ($status // '') ne 'waiting_for_input';
            $self->answer($task, $secret, 2);
        });
    });
}


sub answer {
    my ($self, $task, $secret, $times) = @_;

    my $text = $secret ? 'sekret-' . $self->token : 'Paris';
    $self->post_step($task, { text => $text, behaviour => '-' }, sub {
        my ($r) = @_;
        # failed: it is asked for again.  Not with 503: the answer is stored,
        # and may have been used by now; another one would be no answer
        return $self->answer($task, $secret, $times - 1)
            if $times > 1 && step_of($r) && $r->{status} =~ /^50[24]$/;
        $self->rest;
    });
}


our $multipart = 'multipart/form-data; boundary=bound';

sub upload {
    my ($name, $text) = @_;
    return join "\r\n", '--bound', 'Content-Disposition: form-data; '
        . "name=\"file\"; filename=\"$name.txt\"",
        'Content-Type: text/plain', '', $text, '--bound--', '';
}


sub story_upload {
    my ($self) = @_;

    $self->make_task('plain', 'stamp', sub {
        my ($task) = @_;
        my $token = $self->token;
        my $spec = { op => 'artifact', method => 'POST', token => $token,
            task => $task->{id}, path => "$task->{at}/artifacts",
            key => "k-$token", bytes => upload($token, "file $token"),
            headers => { 'Content-Type' => $multipart } };

        $self->ask($spec, sub {
            my ($r) = @_;
            my $id = ref $r->{json} eq 'HASH' ? $r->{json}{artifact_id} : undef;
            return $self->rest unless $id;
            $self->repeat($spec, 1) if $self->{random}->chance(40);
            $self->ask({ op => 'download', method => 'GET', token => $token,
                task => $task->{id}, path => "$task->{at}/artifacts/$id",
                safe => 1 }, sub { $self->rest });
        });
    });
}


sub story_remove {
    my ($self) = @_;

    my $random = $self->{random};
    $self->make_task('plain', 'stamp', sub {
        my ($task) = @_;
        $self->post_step($task, { async => 1, behaviour =>
                                  'stamp+delay:1000+write:x.txt:y' }, sub {
            my ($r) = @_;
            $self->{loop}->after($random->between(0, 2), sub {
                $self->ask({ op => 'delete', method => 'DELETE', safe => 1,
                             task => $task->{id}, path => $task->{at} }, sub {
                    $self->ask({ op => 'gone', method => 'GET', safe => 1,
                                 task => $task->{id}, path => $task->{at} },
                               sub { $self->rest });
                });
            });
        });
    });
}


# Asks for, and would change, what is another tenant's.

sub story_spy {
    my ($self) = @_;

    my $random = $self->{random};
    my $list = $made{$random->pick(@{$self->{others}})} || [];
    return $self->rest unless @$list;

    my $task = $random->pick(@$list);
    my $step = $task->{step} // $task->{id};
    my ($method, $tail) = split / /, $random->pick('GET ', 'DELETE ',
        'POST /cancel', 'GET /steps', 'POST /steps', "GET /steps/$step",
        "POST /steps/$step/cancel", "GET /steps/$step/trace",
        'GET /artifacts', 'POST /artifacts', "GET /artifacts/$step"), 2;

    my $upload = $tail eq '/artifacts' && $method eq 'POST';
    $self->ask({ op => 'spy', method => $method, path => $task->{at} . $tail,
        task => $task->{id}, $method ne 'POST' ? () : $upload
            ? (bytes => upload('spy', 'spied'),
               headers => { 'Content-Type' => $multipart })
            : (body => {}) }, sub {
        $self->ask({ op => 'tasks', method => 'GET', safe => 1, path =>
            "/k/$task->{agent}/tasks?order=desc&page_size=30" }, sub {
            $self->borrow_key($task);
        });
    });
}


# The Idempotency-Key of another tenant's makes a task of one's own.

sub borrow_key {
    my ($self, $task) = @_;

    # once: for the next one of this tenant it is a key that was used
    return $self->rest if !$task->{key} || $task->{agent} eq 'auto'
                          || $task->{lent}{$self->{tenant}}++;
    my $token = $self->token;
    $self->ask({ op => 'task', method => 'POST', token => $token,
        key => $task->{key}, path => "/k/$task->{agent}/tasks",
        body => { input => "task <$token> [[stamp]]" } }, sub { $self->rest });
}


# Comes with no good key, or with one that may not do this: by turns, as few
# strangers come in a short run.

my $strangers = 0;

sub story_stranger {
    my ($self) = @_;

    my $keys = $self->{keys};
    my ($auth, $agent) = @{(
        ['', 'plain'], ["Bearer $keys->{read}", 'plain'],
        ['Bearer ak_' . $self->token, 'plain'], ["Bearer $keys->{some}", 'auto'],
        ["Basic $keys->{full}", 'plain'], ["Bearer $keys->{full}x", 'plain'],
    )[$strangers++ % 6]};
    my $known = $auth =~ /^Bearer \Q$keys->{read}\E$/ || $agent eq 'auto';

    $self->ask({ op => $known ? 'forbidden' : 'stranger', method => 'POST',
                 path => "/k/$agent/tasks", auth => $auth,
                 body => { input => 'let me in' } }, sub { $self->rest });
}


1;
