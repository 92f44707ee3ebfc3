#!/usr/bin/perl

# The same server over HTTP/2: create, step, lists, upload, download, errors,
# many streams on one connection, a stream reset by the client.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use Test::More;
use POSIX ();

my $port = free_port();
my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $nginx = AgentTest::Nginx->new(conf => conf(
    pg => $pg, llm => $llm, agents => { writer => 'timeout 60s;' },
    server => "        listen 127.0.0.1:$port http2;"));

my $base = "http://127.0.0.1:$port/ap/v1/agent";
my $dir = scratch();


# curl with HTTP/2 and no upgrade; the answer as AgentTest::Http gives it.

sub curl {
    my ($path, @args) = @_;

    my $out = "$dir/body";
    unlink $out;
    open my $fh, '-|', 'curl', '-s', '--http2-prior-knowledge', '--max-time',
        30, '-D', "$dir/head", '-o', $out, '-w',
        '%{http_code} %{http_version} %{exitcode}', @args, "$base$path"
        or die "curl: $!";
    my ($status, $version, $code) = split / /, <$fh>;
    close $fh;
    my $body = read_file($out);
    my %h = read_file("$dir/head") =~ /^([\w-]+): (.*?)\r?$/mg;
    return { status => $status, version => $version, code => $code,
             body => $body, headers => \%h, json => scalar eval { decode($body) } };
}


sub nghttp {
    my ($option, $file, @paths) = @_;
    my @urls = map { "$base$_" } @paths;
    return qx{nghttp $option -H 'content-type: application/json' -d $file @urls 2>&1};
}


sub curl_json { return curl($_[0], '--json', encode($_[1]), @_[2 .. $#_]) }


my $r = curl_json('/tasks', { input => "over two [[demo]]" });
is($r->{status}, 200, 'create a task');
is($r->{version}, 2, 'over HTTP/2');
my $id = $r->{json}{task_id};

$r = curl("/tasks/$id/steps", '-X', 'POST');
is($r->{status}, 200, 'a step with no body');
is($r->{json}{status}, 'completed', 'it is completed');
my $artifact = $r->{json}{artifacts}[0]{artifact_id};

$r = curl_json("/tasks/$id/steps", {});
is($r->{json}{is_last}, 1, 'the second is the last');

$r = curl("/tasks/$id/steps");
is(scalar @{$r->{json}{steps}}, 2, 'a list');
$r = curl("/tasks/$id/artifacts/$artifact");
is($r->{body}, 'Washington', 'a download');
$r = curl("/tasks/$id/artifacts/$artifact", '-r', '0-3');
is($r->{status}, 206, 'a part of it');
is($r->{body}, 'Wash', 'the right one');
$r = curl("/tasks/$id", '-I');
is($r->{status}, 200, 'HEAD');
is($r->{body} =~ /^HTTP/ ? '' : $r->{body}, '', 'with no body');

for (['/tasks/none', 404], ['/nothing', 404]) {
    $r = curl($_->[0]);
    is($r->{status}, $_->[1], "$_->[0]");
    ok($r->{json}{message}, 'an error in JSON');
}
$r = curl('/tasks', '-X', 'DELETE');
is($r->{status}, 405, 'a wrong method');
is(join(',', sort split /, */, $r->{headers}{allow} // ''), 'GET,HEAD,POST',
   'Allow');
$r = curl('/tasks', '--json', '{"input":');
is($r->{status}, 422, 'broken JSON');

# a large body comes in DATA frames, with the length and without it
my $big = 'y' x (3 << 20);
write_file("$dir/big.json", encode({ input => $big }));
$r = curl('/tasks', '-H', 'Content-Type: application/json', '--data-binary',
          "\@$dir/big.json");
is($r->{json}{input}, $big, 'three megabytes of JSON');

write_file("$dir/up.bin", join '', map { pack 'N', $_ } 1 .. 500_000);
$r = curl("/tasks/$id/artifacts", '-F', "file=\@$dir/up.bin", '-F',
          'relative_path=in/');
is($r->{status}, 200, 'an upload of two megabytes');
is($r->{json}{relative_path}, 'in/', 'relative_path');
$r = curl("/tasks/$id/artifacts/$r->{json}{artifact_id}");
ok($r->{body} eq read_file("$dir/up.bin"), 'the same bytes come back');

open my $pipe, '-|', "cat $dir/big.json | curl -s --http2-prior-knowledge "
    . "-T - -X POST -H 'Content-Type: application/json' $base/tasks" or die;
{ local $/; $r = decode(<$pipe>) }
close $pipe;
is($r->{input}, $big, 'a body of unknown length');

# too large: an answer, not only a reset (nghttp, as some versions of curl
# drop the body of an answer that comes while they still send)
write_file("$dir/huge.json", encode({ input => 'z' x (17 << 20) }));
my $said = nghttp('-v', "$dir/huge.json", '/tasks');
like($said, qr/:status: 413/, 'too large');
like($said, qr/\{"message":"/, 'said in JSON');

# many streams at once on one connection
my @tasks = map { make_task($nginx, "stream $_ [[echo+hold]]") } 1 .. 20;
write_file("$dir/empty.json", '{}');
my $waits = fork // die "fork: $!";
if (!$waits) {
    write_file("$dir/said",
               nghttp('-m1', "$dir/empty.json", map { "/tasks/$_/steps" } @tasks));
    POSIX::_exit(0);
}
ok(poll_until(sub { $llm->stats->{held} == 20 }, 30),
   'twenty steps side by side');
$llm->release;
waitpid $waits, 0;
$said = read_file("$dir/said");
my @got = sort $said =~ /"output":"(stream \d+)"/g;
is_deeply(\@got, [sort map { "stream $_" } 1 .. 20], 'each has its answer');

# waiting and not waiting
$id = make_task($nginx, 'later [[echo+delay:700]]');
$r = curl_json("/tasks/$id/steps", {}, '-H', 'Prefer: respond-async');
is($r->{status}, 202, 'respond-async');
is($r->{headers}{location},
   "/ap/v1/agent/tasks/$id/steps/$r->{json}{step_id}", 'Location');
my $step = $r->{json}{step_id};
$r = curl("/tasks/$id/steps/$step", '-H', 'Prefer: wait=0');
is($r->{json}{output}, undef, 'not ended');
$r = curl("/tasks/$id/steps/$step", '-H', 'Prefer: wait=20');
is($r->{json}{output}, 'later', 'waited for');

$id = make_task($nginx, 'left [[hang]]');
$step = curl_json("/tasks/$id/steps", {}, '-H', 'Prefer: respond-async')
        ->{json}{step_id};
$r = curl("/tasks/$id/steps/$step", '-H', 'Prefer: wait=20', '--max-time',
          '0.3');
is($r->{code}, 28, 'a client that waits and goes away');
$r = curl("/tasks/$id/steps/$step/cancel", '-X', 'POST');
is($r->{json}{status}, 'cancelled', 'cancel');
$r = curl("/tasks/$id", '-X', 'DELETE');
is($r->{json}{task_id}, $id, 'DELETE');
is(curl("/tasks/$id")->{status}, 404, 'it is gone');

$r = curl_json('/tasks', { input => 'k' }, '-H', 'Idempotency-Key: h2');
is(curl_json('/tasks', { input => 'k' }, '-H', 'Idempotency-Key: h2')->{body},
   $r->{body}, 'Idempotency-Key');

# a client that resets its stream: the step is stored all the same
$id = make_task($nginx, 'reset [[echo+delay:600]]');
$r = curl("/tasks/$id/steps", '-X', 'POST', '--max-time', '0.2');
is($r->{code}, 28, 'the client went away');
my $ended = poll_until(sub {
    $pg->psql("select status from agent.step where task_id = '$id'") eq '2'
}, 5);
ok($ended, 'the step was run and stored');

$nginx->finish;
done_testing();
