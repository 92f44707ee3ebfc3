#!/usr/bin/perl

# A secret answer: the LLM gets it, also after a kill and out of the queue,
# and when its step has ended it is nowhere in the database, in no log and in
# no file of nginx's, not even when the LLM repeats it.

use strict;
use warnings;
use utf8;

use Encode qw(encode_utf8);
use File::Find;
use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use JSON::PP;
use Test::More;
use Time::HiRes qw(sleep time);

binmode $_, ':utf8' for Test::More->builder->output,
                        Test::More->builder->failure_output;

# what is looked for is plain; what is around it needs escapes in JSON
my $mark = 'Zx9Qv7Kp';
my $secret = "$mark\"\\/ü🔑$mark";

my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $nginx = AgentTest::Nginx->new(level => 'debug', conf => conf(
    pg => $pg, llm => $llm, workers => 2,
    agents => { safe => 'attempts 2; timeout 20s; max_answer 16m;',
                one => 'attempts 1; timeout 20s; concurrency 1;',
                loud => 'pass /loud/v1/chat/completions; max_answer 16m; '
                        . 'attempts 1; timeout 20s;' },
    server => "        location /loud/ { internal; proxy_buffering on; "
              . "proxy_pass http://llm/; proxy_http_version 1.1; "
              . "proxy_set_header Connection \"\"; }"));


# A task that asks for a secret, then does what the script says.

sub asked {
    my ($name, $at, @then) = @_;

    my $script = JSON::PP->new->canonical->encode([
        { calls => [[ask_user => { question => 'The key?',
                                   secret => JSON::PP::true }]] }, @then]);
    my $id = make_task($nginx, "$name [[$script]]", at => $at);
    my $r = run_step($nginx, $id, {}, at => $at);
    is($r->{json}{status}, 'waiting_for_input', "$name: it asks")
        or diag $r->{body};
    is($r->{json}{output}, 'The key?', "$name: for the key");
    return $id;
}


sub llm_got {
    my ($name) = @_;
    my ($last) = reverse $llm->calls(qr/\Q$name\E/);
    return $last->{messages}[-1]{content};
}


sub dump_has {
    my $file = scratch() . '/dump.sql';
    AgentTest::Postgres::run('/dev/null', 'true');
    open my $fh, '-|', AgentTest::Postgres::bin('pg_dump'), '-h',
         $pg->{sockets}, '-p', $pg->{port}, '-U', 'postgres', $pg->{name}
        or die "pg_dump: $!";
    local $/;
    my $dump = <$fh>;
    close $fh or die 'pg_dump failed';
    die 'an empty dump' unless $dump =~ /COPY agent\.step /;
    return () = $dump =~ /\Q$mark\E/g;
}


# Files of nginx that have it; blobs are the user's own.

sub files_have {
    my @found;
    find({ no_chdir => 1, wanted => sub {
        return if $_ =~ m{/artifacts(?:/|\z)} || !-f $_;
        push @found, $_ if read_file($_) =~ /\Q$mark\E/;
    } }, $nginx->dir);
    return join ' ', @found;
}


sub clean {
    my ($when) = @_;
    is(dump_has(), 0, "$when: it is not in the database");
    is($pg->psql('select count(*) from agent.secret'), 0,
       "$when: the table of secrets is empty");
    is(files_have(), '', "$when: it is in no file of nginx's");
}


# Repeated by the LLM wherever it can say something.

{
    my $at = '/x/safe';
    my $id = asked('repeat', $at,
        { content => 'You said %ANSWER%, so: "%ANSWER%".',
          calls => [[write_artifact => { path => 'keys/%ANSWER%.txt',
                                         content => "key=%ANSWER%\n" }],
                    [remember => { what => '%ANSWER%', list => ['%ANSWER%'] }],
                    [read_artifact => { path => 'none-%ANSWER%' }],
                    [list_artifacts => {}]] },
        { content => 'again: %ANSWER%' });

    # the name of a file has no slash or backslash in it
    (my $key = $secret) =~ tr{/\\}{--};

    my $r = run_step($nginx, $id, { input => $key }, at => $at);
    is($r->{status}, 200, 'the answer is taken') or diag $r->{body};
    is($r->{json}{status}, 'completed', 'the step is completed');
    is($r->{json}{input}, '[redacted]', 'the answer is not shown');
    is($r->{json}{output}, 'You said [redacted], so: "[redacted]".',
       'nor what the LLM said of it');
    is($r->{json}{artifacts}[0]{file_name}, '[redacted].txt',
       'nor a name made of it');
    is(llm_got('repeat'), $key, 'the LLM got it');

    my $step = $nginx->get("$at/tasks/$id/steps/$r->{json}{step_id}");
    is($step->{json}{$_}, $r->{json}{$_}, "GET: the same $_")
        for qw(input output);
    unlike($step->{body}, qr/\Q$mark\E/, 'GET: it is not in there');

    my $file = $nginx->get("$at/tasks/$id/artifacts/"
                           . $r->{json}{artifacts}[0]{artifact_id});
    is($file->{body}, encode_utf8("key=$key\n"), 'the file is the user\'s own');
    clean('repeated');

    $r = run_step($nginx, $id, {}, at => $at);
    is($r->{status}, 200, 'the task goes on');
    my ($last) = reverse $llm->calls(qr/repeat/);
    is($last->{messages}[2]{content}, '[redacted]',
       'the LLM does not get it again');
    unlike(encode($last), qr/\Q$mark\E/, 'not in what it said either');
    clean('later');
}


# Refused with the secret in the words; then answered again.

{
    my $at = '/x/safe';
    my $id = asked('refuse', $at, 'quote:1', { calls =>
        [[finish => { summary => 'finished with %ANSWER%' }]] });

    my $r = run_step($nginx, $id, { input => $secret }, at => $at);
    is($r->{status}, 502, 'refused');
    like($r->{json}{message}, qr/no good: \[redacted\]/,
         'the reason is told, without it');
    unlike($r->{body}, qr/\Q$mark\E/, 'it is not in the answer');
    is(llm_got('refuse'), $secret, 'the LLM got it');
    clean('refused');

    $r = run_step($nginx, $id, { input => $secret }, at => $at);
    is($r->{status}, 200, 'answered again') or diag $r->{body};
    is($r->{json}{input}, '[redacted]', 'which is a secret again');
    is(llm_got('refuse'), $secret, 'and the LLM got it again');
    my ($last) = reverse $llm->calls(qr/refuse/);
    is(scalar(grep { ($_->{content} // '') eq $secret }
              @{$last->{messages}}), 1, 'once');
    clean('answered again');

    # not answered at all
    $id = asked('no answer', $at, 'quote:1');
    run_step($nginx, $id, { input => $secret }, at => $at);
    run_step($nginx, $id, {}, at => $at);
    unlike(llm_got('no answer'), qr/redacted/,
           'a mark is never given out as the answer');
}


# A worker is killed while the LLM has it.

{
    my $at = '/x/safe';
    my $id = asked('killed', $at, 'echo+hold', { content => '%ANSWER%' });
    my $c = $nginx->connect;
    $c->send(method => 'POST', path => "$at/tasks/$id/steps",
             body => { input => $secret });
    ok(poll_until(sub { $llm->stats->{held} == 1 }, 10), 'the LLM has it');

    is($pg->psql('select count(*) from agent.secret'), 1,
       'it is kept for who takes over');
    is($pg->psql("select count(*) from agent.step where input like '%$mark%'"),
       0, 'but not in the step');
    is(files_have(), '', 'nor in a file');
    my $step = $nginx->get("$at/tasks/$id/steps")->{json}{steps}[1];
    is($step->{status}, 'running', 'the step runs');
    is($step->{input}, '[redacted]', 'and does not show it');

    poll_until(sub { $pg->psql('select count(*) from agent.worker') == 2 }, 5);
    my $owner = $pg->psql("select w.pid from agent.worker w join agent.step s "
        . "on s.owner = w.name where s.task_id = '$id' and s.seq = 2");
    like($owner, qr/^\d+$/, 'its owner is known');
    kill 'KILL', $owner if $owner =~ /^\d+$/;
    ok(poll_until(sub { $pg->psql("select attempt from agent.step where "
       . "task_id = '$id' and seq = 2") eq 2 && $llm->stats->{held} == 1 }, 20),
       'another worker takes over');
    $llm->release;
    ok(poll_until(sub { $pg->psql("select status from agent.step where "
       . "task_id = '$id' and seq = 2") eq 2 }, 10), 'and completes it');
    $c->close;
    is(llm_got('killed'), $secret, 'the LLM got it from there');
    clean('killed');
}


# It waits in the queue.

{
    my $at = '/x/one';
    my $id = asked('queued', $at, { content => '%ANSWER%' });
    my $other = make_task($nginx, 'in the way [[echo+hold]]', at => $at);
    my $c = $nginx->connect;
    $c->send(method => 'POST', path => "$at/tasks/$other/steps", body => {});
    ok(poll_until(sub { $llm->stats->{held} == 1 }, 10), 'one runs');

    my $d = $nginx->connect;
    $d->send(method => 'POST', path => "$at/tasks/$id/steps",
             body => { input => $secret });
    ok(poll_until(sub { $pg->psql('select count(*) from agent.queue') == 1 },
                  10), 'the other waits');
    is($pg->psql("select count(*) from agent.step where input like '%$mark%'"),
       0, 'the secret is not in the step');
    is(files_have(), '', 'nor in a file');
    $llm->release;
    is($c->answer->{status}, 200, 'the first is answered');
    my $r = $d->answer;
    is($r->{status}, 200, 'the second, too') or diag $r->{body};
    is($r->{json}{input}, '[redacted]', 'with no secret in it');
    is(llm_got('queued'), $secret, 'the LLM got it');
    clean('queued');
}


# An empty answer: it, too, when it waits in the queue.

for my $body ({}, { input => undef }, { input => '' }) {
    my $at = '/x/one';
    my $name = 'empty ' . encode($body);
    $name =~ tr/"{}//d;
    my $id = asked($name, $at, { content => 'got <%ANSWER%>' });
    my $direct = asked("$name at once", $at, { content => 'got <%ANSWER%>' });

    my $other = make_task($nginx, 'in the way [[echo+hold]]', at => $at);
    my $c = $nginx->connect;
    $c->send(method => 'POST', path => "$at/tasks/$other/steps", body => {});
    ok(poll_until(sub { $llm->stats->{held} == 1 }, 10), "$name: one runs");
    my $d = $nginx->connect;
    $d->send(method => 'POST', path => "$at/tasks/$id/steps", body => $body);
    ok(poll_until(sub { $pg->psql('select count(*) from agent.queue') == 1 },
                  10), "$name: it waits");
    $llm->release;
    is($c->answer->{status}, 200, "$name: the first is answered");
    my $queued = $d->answer;
    my $r = run_step($nginx, $direct, $body, at => $at);
    is($queued->{status}, 200, "$name: it, too") or diag $queued->{body};
    is($r->{status}, 200, "$name: at once") or diag $r->{body};
    is($queued->{json}{status}, 'completed', "$name: completed");
    is($queued->{json}{output}, $r->{json}{output}, "$name: as at once");
    is($queued->{json}{input}, $r->{json}{input}, "$name: the same input");
    is(llm_got($name), llm_got("$name at once"), "$name: the LLM got the same");
    clean($name);
}


# A fast and large answer makes no temporary file, "proxy_buffering" or not.

{
    my $id = make_task($nginx, 'large [[huge:4]]', at => '/x/loud');
    my $r = run_step($nginx, $id, {}, at => '/x/loud');
    is($r->{status}, 200, 'four megabytes') or diag substr $r->{body}, 0, 200;
    is(length $r->{json}{output}, 4 << 20, 'all of them');
    ok($nginx->log_text !~ /buffered to a temporary file/,
       'without a temporary file');
}

$nginx->finish(but => qr/exited on signal 9/);
clean('at the end');
done_testing();
