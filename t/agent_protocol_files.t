#!/usr/bin/perl

# The agent_protocol dialect, on: files that are carried over, secrets,
# tasks that stay with their container, a container that is built with the
# official JS SDK, and this module as one.

use strict;
use warnings;
use utf8;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use AgentTest::Container;
use JSON::PP ();
use Test::More;
use Time::HiRes qw(sleep time);

binmode $_, ':utf8' for Test::More->builder->output,
                        Test::More->builder->failure_output;

our $sdk = AgentTest::Container->sdk;
our ($true, $false, $pg, $llm, $fake, $nginx);
require 'containers.pl';


# Files ----------------------------------------------------------------------

{
    my ($r, $task) = alone('ap', files => [
        { name => 'a.txt', path => 'docs/', content => "alpha ü\n" },
        { name => 'empty' },
        { name => 'big.bin', size => 300_000 },
        { name => 'deep/b.txt', content => 'b' },
        { name => 'root.txt', path => '/', content => 'r' },
        { name => 'ü "q".txt', path => undef, content => 'q' }]);
    is($r->{status}, 200, 'a step with artifacts') or diag $r->{body};

    my @all = @{$r->{json}{artifacts}};
    is_deeply([map { ($_->{relative_path} // '') . $_->{file_name} } @all],
              ['docs/a.txt', 'empty', 'big.bin', 'deep/b.txt', 'root.txt',
               'ü "q".txt'], 'has them all, with their names');
    is_deeply([map { $_->{agent_created} } @all], [($true) x 6],
              'made by the agent');
    is_deeply([artifacts('ap', $task)], \@all, 'the task has the same');

    my $alpha = "alpha ü\n";
    utf8::encode($alpha);
    is(content('ap', $task, $all[0]), $alpha, 'the bytes are the same');
    is(content('ap', $task, $all[1]), '', 'none are none');
    is(content('ap', $task, $all[2]),
       join('', map { chr($_ & 255) } 0 .. 299_999), 'many, too');
    is(content('ap', $task, $all[5]), 'q', 'by any name');

    # a container may list all it has with each step
    $r = step('ap', $task, 'y', files => [
        { name => 'c.txt', id => 'same', content => 'c' }]);
    is(scalar @{$r->{json}{artifacts}}, 1, 'another step, another artifact');
    $r = step('ap', $task, 'z', files => [
        { name => 'c.txt', id => 'same', content => 'c' },
        { name => 'd.txt', content => 'd' },
        { name => 'd.txt', id => 'd', content => 'd' },
        { name => 'd.txt', id => 'd', content => 'd' }]);
    is_deeply([map { $_->{file_name} } @{$r->{json}{artifacts}}],
              ['d.txt', 'd.txt'], 'what was taken before is not taken again');
    is(scalar(artifacts('ap', $task)), 9, 'nine in all');
}

{
    my ($r, $task) = alone('ap', unlisted => 1, omit => ['artifacts'],
                           files => [{ name => 'a', content => 'a' },
                                     { name => 'b', of => undef },
                                     { name => 'c', of => $false }]);
    is_deeply([map { $_->{file_name} } @{$r->{json}{artifacts}}], ['a'],
              'a step that does not say: the list of the task\'s') or
        diag $r->{body};

    ($r) = alone('ap', unlisted => 1, step => { is_last => $true },
                 files => [map { { name => "n$_", content => $_ } }
                           1 .. 120]);
    is(scalar @{$r->{json}{artifacts}}, 120,
       'with the last step it is asked for, all pages of it');

    ($r) = alone('ap', unlisted => 1, files => [{ name => 'a' }]);
    is(scalar @{$r->{json}{artifacts}}, 0, 'with others it is not');

    ($r) = alone('ap_once', nolist => 1, step => { is_last => $true });
    is($r->{status}, 200, 'a container need not have a list')
        or diag $r->{body};
}

{
    my ($r, $task) = alone('ap', files => [
        { name => 'a', content => 'whole' },
        { name => 'b', content => 'x' x 1000, cut => 1 },
        { name => 'c', content => 'c', http => [500, 1, 'no'] }]);
    is($r->{status}, 200, 'a download that is cut, and one that is refused')
        or diag $r->{body};
    is_deeply([map { $_->{file_name} } @{$r->{json}{artifacts}}],
              [qw(a b c)], 'are made again');
    is(content('ap', $task, $r->{json}{artifacts}[1]), 'x' x 1000, 'whole');
    my @calls = map { (split m{/}, $_->{uri})[-1] }
                grep { $_->{headers}{'x-agent-step-id'}
                       eq $r->{json}{step_id} }
                $fake->calls(qr{^GET .*/artifacts/});
    is(scalar @calls, 5, 'the first one only once');
}

for my $case (
    [qr/larger than its "max_answer", 65536 bytes in all/,
     files => [{ name => 'a', size => 40_000 }, { name => 'b',
                                                  size => 40_000 }]],
    [qr/answered the download of an artifact with status 404: gone/,
     files => [{ name => 'a', content => 'a' },
               { name => 'b', http => [404, 9, 'gone'] }]],
    [qr/lists an artifact whose file_name is missing/,
     files => [{ content => 'a' }]],
    [qr/lists an artifact whose file_name is no name/,
     files => [{ name => '../a' }]],
    [qr/lists an artifact whose relative_path is no relative path/,
     files => [{ name => 'a', path => '../..' }]],
    [qr/lists an artifact that has no "artifact_id"/,
     files => [{ name => 'a', id => '../../x' }]],
    [qr/answered the download of an artifact .*broke off|download of an artifact broke off/,
     files => [{ name => 'a', content => 'abc' x 1000, cut => 9 }]],
)
{
    my ($words, %do) = @$case;
    my $before = blobs();
    my ($r, $task) = alone('ap_small', %do);
    failed($r, 502, $words, encode(\%do));
    is(scalar(artifacts('ap_small', $task)), 0, 'nothing of it is there');
    is(blobs(), $before, 'no bytes of it are left');
}

{
    my $before = blobs();
    my ($r) = alone('ap_small', files => [{ name => 'a', size => 30_000 },
                                          { name => 'b', size => 30_000 }]);
    is($r->{status}, 200, 'artifacts of nearly max_answer') or diag $r->{body};
    is(blobs(), $before + 2, 'are there');
}

{
    my $task = task('ap');
    my $big = join '', map { chr($_ % 251) } 0 .. 2_000_000;
    my $given = upload('ap', $task, 'in.txt', "given\n", 'in/');
    upload('ap', $task, 'ü %22.txt', 'named');
    upload('ap', $task, 'empty.txt', '');
    upload('ap', $task, 'big.bin', $big);

    my $r = step('ap', $task, 'x', tell => 1);
    is($r->{status}, 200, 'a step with files of the client\'s')
        or diag $r->{body};
    is_deeply(told($r),
        [{ name => 'in.txt', path => 'in/', size => 6, content => "given\n" },
         { name => 'ü %22.txt', path => '', size => 5, content => 'named' },
         { name => 'empty.txt', path => '', size => 0, content => '' },
         { name => 'big.bin', path => '', size => length $big }],
        'the container has them');
    is(scalar @{$r->{json}{artifacts}}, 0, 'none of them comes back');
    my @calls = $fake->calls(qr{^POST .*/artifacts$});
    is($calls[-1]{form}{file}, AgentTest::decode(AgentTest::encode($big)),
       'byte for byte');
    like($calls[-4]{headers}{'idempotency-key'},
         qr/^\Q$r->{json}{step_id}-$given->{artifact_id}\E$/,
         'each with a key');

    $r = step('ap', $task, 'x', tell => 1);
    is(scalar(() = $fake->calls(qr{^POST .*/artifacts$})), @calls,
       'and none again with the next step');

    upload('ap', $task, 'late.txt', 'late');
    $r = step('ap', $task, 'x', tell => 1);
    is(scalar @{told($r)}, 5, 'but one that is new');
}

{
    my $task = task('ap', upload => { http => [500, 1, 'no'] });
    upload('ap', $task, 'a.txt', 'a');
    upload('ap', $task, 'b.txt', 'b');
    my $r = step('ap', $task, 'x', tell => 1);
    is($r->{status}, 200, 'uploads that are refused at first')
        or diag $r->{body};
    is(scalar @{told($r)}, 2, 'are made again, once each');

    $task = task('ap_once', upload => { http => [413, 9, 'too big'] });
    upload('ap_once', $task, 'a.txt', 'a');
    $r = step('ap_once', $task, 'x', tell => 1);
    failed($r, 502, qr/answered the upload of an artifact with status 413: too big$/,
           'one that is never taken');

    $task = task('ap_once');
    my $gone = upload('ap_once', $task, 'gone.txt', 'a');
    my ($blob) = glob $nginx->dir . '/artifacts/*/' . $gone->{artifact_id};
    unlink $blob or die "$blob: $!";
    $r = step('ap_once', $task, 'x');
    failed($r, 502, qr/artifact "gone\.txt" of the task could not be read on the server/,
           'one whose bytes are gone');
}


# Secrets --------------------------------------------------------------------

{
    my $secret = 'Zx9Qv7Kp"\\ü';
    my $task = task('ap');
    # the question of an agent of the other dialect is how one is asked for
    $pg->psql("insert into agent.step (task_id, seq, step_id, tenant, status, "
              . "attempt, secret, output) select task_id, 1, task_id, tenant, "
              . "3, 1, true, 'the key?' from agent.task where task_id = "
              . "'$task'");
    my $r = step('ap', $task, $secret, step => {
        name => "n $secret", additional_output => { a => ["<$secret>"] } },
        files => [{ name => "$secret.txt" =~ tr{\\}{-}r, content => 'c' }]);
    is($r->{status}, 200, 'a step with a secret') or diag $r->{body};
    my ($call) = reverse $fake->calls(qr{/steps$});
    is($call->{body}{input}, $secret, 'the container gets it');
    is($r->{json}{input}, '[redacted]', 'the client does not see it again');
    is($r->{json}{output}, '[redacted]', 'nor in the output');
    is($r->{json}{name}, 'n [redacted]', 'nor in the name');
    is_deeply($r->{json}{additional_output}, { a => ['<[redacted]>'] },
              'nor in the rest');
    unlike($pg->psql("select string_agg(s::text, ',') from agent.step s where "
                     . "task_id = '$task'") =~ s/\{.*"do".*//sr, qr/Zx9Qv7Kp/,
           'nor is it in the database');

    $pg->psql("insert into agent.step (task_id, seq, step_id, tenant, status, "
              . "attempt, secret, output) select task_id, 3, gen_random_uuid()"
              . ", tenant, 3, 1, true, 'the key?' from agent.task where "
              . "task_id = '$task'");
    $r = $nginx->post("/x/ap/tasks/$task/steps", { input => 'Zx9Qv7Kp plain',
        additional_input => { do => { http => [400, 9, 'echo'] } } });
    is($r->{status}, 502, 'a step with a secret that fails');
    unlike($r->{body}, qr/Zx9Qv7Kp/, 'does not tell it');
    unlike($nginx->log_text, qr/Zx9Qv7Kp/, 'nor does any log');
}


# Sticky: a task stays with its container ---------------------------------------

for my $agent (qw(ap_tcp ap_unix)) {
    my %used;
    my $n = 0;

    for (1 .. 12) {
        my $r = $nginx->post("/x/$agent/tasks", { input => 'sticky' });
        my $task = $r->{json}{task_id};
        my %by;
        for (1 .. 3) {
            $r = step($agent, $task, 'x');
            $n++ if $r->{status} == 200;
            $by{$r->{json}{additional_output}{container} // 'none'}++;
        }
        $used{$_}++ for keys %by;
        is(scalar keys %by, 1, "$agent: all steps in one container")
            or diag encode(\%by);
    }
    is($n, 36, "$agent: none went wrong");
    cmp_ok(scalar keys %used, '>', 1, "$agent: and more than one is used");
}


# The real SDK ---------------------------------------------------------------

{
    my ($task, $input) = task('ap_sdk', any => 'thing');
    upload('ap_sdk', $task, 'in.txt', 'from the client', 'in');

    my $r = step('ap_sdk', $task, 'hello');
    is($r->{status}, 200, 'the SDK: a step') or diag $r->{body};
    is($r->{json}{output}, "$input: hello", 'with the input of both');
    is($r->{json}{name}, 'step 1', 'and a name');
    is($r->{json}{is_last}, $false, 'not the last one');

    $r = step('ap_sdk', $task, 'read in/in.txt');
    is($r->{json}{output}, 'from the client', 'it has what was uploaded')
        or diag $r->{body};

    $r = step('ap_sdk', $task, 'write docs plan.md the plan: ü');
    is($r->{json}{output}, 'wrote plan.md', 'it writes a file')
        or diag $r->{body};
    my ($file) = @{$r->{json}{artifacts}};
    is($file->{relative_path}, 'docs', 'in its folder');
    is(content('ap_sdk', $task, $file), "the plan: \xc3\xbc",
       'which is ours now');

    $r = step('ap_sdk', $task, 'write - top.txt no folder');
    is(content('ap_sdk', $task, $r->{json}{artifacts}[0]), 'no folder',
       'without a folder, too');
    is(scalar(artifacts('ap_sdk', $task)), 3, 'three in all');

    $r = step('ap_sdk', $task, 'fail for a reason');
    failed($r, 502, qr/container of agent "ap_sdk" answered the step with status 500: for a reason/,
           'a handler that throws');

    $r = step('ap_sdk', $task, 'finish done at last');
    is($r->{json}{output}, 'done at last', 'it goes on after that')
        or diag $r->{body};
    is($r->{json}{is_last}, $true, 'and comes to an end');
    is(scalar @{$r->{json}{artifacts}}, 0, 'with no artifact again');

    my @steps = @{$nginx->get("/x/ap_sdk/tasks/$task/steps?page_size=100")
                  ->{json}{steps}};
    is_deeply([map { $_->{status} } @steps],
              [('completed') x 4, 'failed', 'completed'], 'all of it is here');

    my $other = task('ap_sdk');
    $r = step('ap_sdk', $other, undef);
    is($r->{status}, 200, 'another task, a step with no input')
        or diag $r->{body};
    is($r->{json}{name}, 'step 1', 'is one of its own');

    $sdk->stop;
    $sdk->boot;
    $r = step('ap_sdk', $other, 'x');
    failed($r, 502, qr/answered the step with status 500: Task with id \S+ not found/,
           'a container that was made anew');
}


# This module as a container ---------------------------------------------------

{
    my $script = JSON::PP->new->canonical->encode([
        { content => 'a plan', calls => [[write_artifact => {
            path => 'docs/plan.md', content => 'the plan' }]] },
        { calls => [[ask_user => { question => 'which colour?' }]] },
        { content => 'it is %ANSWER%' }]);
    my $r = $nginx->post('/x/ap_self/tasks', { input => "paint [[$script]]" });
    my $task = $r->{json}{task_id};

    $r = step('ap_self', $task, undef);
    is($r->{status}, 200, 'a server of ours behind one of ours')
        or diag $r->{body};
    is($r->{json}{output}, 'a plan', 'the output of its LLM');
    is($r->{json}{name}, 'write_artifact', 'its name');
    is($r->{json}{additional_output}{usage}{tokens_in} > 0, 1, 'its usage');
    is(content('ap_self', $task, $r->{json}{artifacts}[0]), 'the plan',
       'its artifact');

    $r = step('ap_self', $task, undef);
    is($r->{json}{status}, 'waiting_for_input', 'its question')
        or diag $r->{body};
    is($r->{json}{output}, 'which colour?', 'in its words');

    $r = step('ap_self', $task, 'blue');
    is($r->{json}{output}, 'it is blue', 'which is answered')
        or diag $r->{body};
    is($r->{json}{is_last}, $true, 'its end');
    is(scalar(artifacts('ap_self', $task)), 1, 'one artifact, once');

    $r = $nginx->post('/x/ap_self/tasks', { input => 'x [[http:400:9]]' });
    $r = step('ap_self', $r->{json}{task_id}, undef);
    failed($r, 502, qr/container of agent "ap_self" answered the step with status 502: the step failed: .*status 400/,
           'and its errors');
}

$nginx->finish;
done_testing();
