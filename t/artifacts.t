#!/usr/bin/perl

# Files of a task: uploads split at every byte, names, what is refused,
# downloads with Range and ETag, what the agent writes and reads.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use JSON::PP;
use Test::More;
use Time::HiRes qw(sleep);

my $h2 = free_port();
my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $nginx = AgentTest::Nginx->new(conf => conf(
    pg => $pg, llm => $llm, agents => { other => '' },
    server => "        listen 127.0.0.1:$h2 http2;"));

my $task = make_task($nginx, 'files');
my $at = "/ap/v1/agent/tasks/$task/artifacts";
my $type = { 'Content-Type' => 'multipart/form-data; boundary=XyZ' };


sub part {
    my ($name, $content, $more) = @_;
    return "--XyZ\r\nContent-Disposition: form-data; name=\"$name\""
           . ($more // '') . "\r\n\r\n$content\r\n";
}


sub file { return part('file', $_[0], "; filename=\"$_[1]\"") }


sub upload {
    my ($body, %o) = @_;
    return $nginx->post($at, $body, headers => { %$type,
                        %{$o{headers} || {}} }, %o{grep { $o{$_} } 'chunked'});
}


sub download {
    my ($id, %headers) = @_;
    return $nginx->get("$at/$id", headers => \%headers);
}


sub stored {
    my $n = 0;
    $n++ for grep { -f } glob $nginx->dir . '/artifacts/*/*';
    return $n;
}


# relative_path before, after, absent; other fields; preamble and epilogue

my @good = (
    [file('one', 'a.txt') . "--XyZ--\r\n", 'a.txt', undef, 'one'],
    [part('relative_path', 'x/y/') . file('two', 'b.txt') . "--XyZ--\r\n",
     'b.txt', 'x/y/', 'two'],
    [file('three', 'c.txt') . part('relative_path', 'z') . "--XyZ--\r\n",
     'c.txt', 'z', 'three'],
    [part('note', 'ignored') . file('four', 'd.txt') . part('more', '')
     . '--XyZ--', 'd.txt', undef, 'four'],
    ["preamble\r\n" . file('five', 'e.txt') . "--XyZ--\r\nepilogue",
     'e.txt', undef, 'five'],
    [file('', 'empty.txt') . "--XyZ--\r\n", 'empty.txt', undef, ''],
    [file("\r\n--Xy\r\n--XyX\r\n\r\n", 'near.txt') . "--XyZ--\r\n",
     'near.txt', undef, "\r\n--Xy\r\n--XyX\r\n\r\n"],
    [file("\0\xff\x00bytes", "na\xc3\xafve \xe2\x82\xac.txt") . "--XyZ--\r\n",
     "na\x{ef}ve \x{20ac}.txt", undef, "\0\xff\x00bytes"],
);

for (@good) {
    my ($body, $name, $path, $content) = @$_;
    my $r = upload($body);
    is($r->{status}, 200, 'upload ' . encode($name)) or diag $r->{body};
    is($r->{json}{file_name}, $name, 'its name');
    is($r->{json}{relative_path}, $path, 'its path');
    is($r->{json}{agent_created}, JSON::PP::false, 'not by the agent');
    my $d = download($r->{json}{artifact_id});
    is($d->{status}, 200, 'download');
    is($d->{body}, $content, 'the same bytes');
}

my $count = @good;
my $list = $nginx->get($at);
is($list->{json}{pagination}{total_items}, $count, 'all are in the list');


# the same name twice gives two

{
    my @r = map { upload(file($_, 'same.txt') . "--XyZ--\r\n") } qw(old new);
    isnt($r[0]{json}{artifact_id}, $r[1]{json}{artifact_id}, 'two artifacts');
    is(download($r[0]{json}{artifact_id})->{body}, 'old', 'the first');
    is(download($r[1]{json}{artifact_id})->{body}, 'new', 'and the second');
    $count += 2;
}


# every split of the body, and every chunk size up to the boundary's

{
    my $content = "start\r\n--XyY\r\n-\r\n--Xy\r\r\n--\r\nend";
    my $body = part('relative_path', 'p/') . file($content, 's.txt')
               . "--XyZ--\r\n";
    my $text = AgentTest::Http::text(path => $at, body => $body,
                                     headers => $type);
    my $head = index($text, "\r\n\r\n") + 4;
    my $bad = '';

    # each byte on its own, then in two halves at every place
    my $c = $nginx->connect;
    $c->raw(substr $text, 0, $head);
    for (split //, $body) { $c->raw($_) }
    my $id = $c->answer->{json}{artifact_id};
    is(download($id)->{body}, $content, 'sent byte by byte');
    $count++;

    for my $i (1 .. length($body) - 1) {
        $c->raw(substr $text, 0, $head + $i);
        sleep 0.001;
        $c->raw(substr $text, $head + $i);
        my $r = $c->answer;
        $count++;
        $bad .= " $i" unless $r->{status} == 200
            && $r->{json}{relative_path} eq 'p/'
            && download($r->{json}{artifact_id})->{body} eq $content;
    }
    is($bad, '', 'split in two at every byte');

    $bad = '';
    for my $n (1 .. 12) {
        my $r = upload($body, chunked => $n);
        $count++;
        $bad .= " $n" unless $r->{status} == 200
            && download($r->{json}{artifact_id})->{body} eq $content;
    }
    is($bad, '', 'in chunks of every size');
    $c->close;
}


# what is refused, and that nothing of it stays

my $before = stored();
my @bad = (
    ['no file' => part('relative_path', 'x') . "--XyZ--\r\n", 422],
    ['two files' => file('1', 'a') . file('2', 'b') . "--XyZ--\r\n", 422],
    ['no end' => file('cut', 'a'), 422],
    ['nothing' => '', 422],
    ['no boundary in it' => 'just text', 422],
    ['only the end' => "--XyZ--\r\n", 422],
    ['no file name' => part('file', 'x') . "--XyZ--\r\n", undef],
    (map { ["file name \"$_\"" => file('x', $_) . "--XyZ--\r\n", 422] }
     '..', '.', '../a', '/etc/passwd', 'a/../../b', 'a\\\\b',
     "a\x01b", "bad\xffutf8", 'n' x 256),
    (map { ["relative_path \"$_\"" => part('relative_path', $_)
            . file('x', 'a') . "--XyZ--\r\n", 422] }
     '../', '/abs/', 'a/../b', './a/./', 'a\\b', "a\nb", "a\0b", "\xff",
     'p' x 256),
    ['a header without end' => "--XyZ\r\nContent-Disposition: form-data; "
     . 'name="file"; filename="' . 'a' x 10000, 422],
    ['ten thousand parts' => join('', map { part("f$_", 'x') } 1 .. 10000)
     . file('x', 'a') . "--XyZ--\r\n", 422],
);

for (@bad) {
    my ($name, $body, $status) = @$_;
    my $r = upload($body);
    if (!defined $status) {
        like($r->{status}, qr/^(?:200|422)$/, $name);
        if ($r->{status} == 200) { $count++; $before++ }
        next;
    }
    is($r->{status}, $status, "refused: " . encode(substr $name, 0, 60))
        or diag substr $r->{body}, 0, 200;
    ok($r->{json}{message}, 'with a message');
    ok($r->{json}{detail}, 'and its place') if $name =~ /name|path/;
}

for (['text/plain', 415], ['application/json', 415],
     ['multipart/form-data', 422], ['multipart/form-data; boundary=', 422],
     ['multipart/form-data; boundary=' . 'b' x 300, 422],
     ['multipart/mixed; boundary=XyZ', 415])
{
    my $r = upload(file('x', 'a') . "--XyZ--\r\n",
                   headers => { 'Content-Type' => $_->[0] });
    is($r->{status}, $_->[1], 'Content-Type ' . substr $_->[0], 0, 40)
        or diag $r->{body};
    ok($r->{json}{message}, 'with a message');
}

{
    my $r = upload(file('x' x (17 << 20), 'big') . "--XyZ--\r\n");
    is($r->{status}, 413, 'larger than client_max_body_size');

    $r = $nginx->post('/ap/v1/agent/tasks/01890a5d-ac96-774b-bcce-b302099a8057'
        . '/artifacts', file('x', 'a') . "--XyZ--\r\n", headers => $type);
    is($r->{status}, 404, 'an unknown task');

    # a client that leaves in the middle
    my $text = AgentTest::Http::text(path => $at, headers => $type,
        body => file('y' x 500_000, 'gone') . "--XyZ--\r\n");
    my $c = $nginx->connect;
    $c->raw(substr $text, 0, 300_000);
    sleep 0.2;
    $c->close;
}

poll_until(sub { stored() == $before && !glob $nginx->dir
                 . '/artifacts/tmp/*' }, 5);
is(stored(), $before, 'nothing of what was refused is on the disk');
is(join(' ', glob $nginx->dir . '/artifacts/tmp/*'), '', 'nor in tmp/');
is($nginx->get($at)->{json}{pagination}{total_items}, $count,
   'nor in the list');


# A task that does not exist: said before the body is sent.

my $nowhere = '/ap/v1/agent/tasks/01890a5d-ac96-774b-bcce-b302099a8057';

{
    my $body = file('z' x 3_000_000, 'none') . "--XyZ--\r\n";
    my $head = sub {
        my ($path, %h) = @_;
        return AgentTest::Http::text(method => 'POST', path => $path,
            headers => { %$type, 'Content-Length' => length $body, %h });
    };

    # nothing of the body, then all of it, then a request behind it
    my $c = $nginx->connect;
    $c->raw($head->("$nowhere/artifacts"));
    my $r = $c->answer(seconds => 4);
    is($r->{status}, 404, 'an unknown task, before the body');
    like($r->{json}{message}, qr/no task/, 'it is said');
    is(join(' ', glob $nginx->dir . '/artifacts/tmp/*'), '', 'no file is made');
    isnt($r->{headers}{connection}, 'close', 'the connection stays');
    ok($c->raw($body), 'the body is taken and thrown away');
    $c->send(path => $at);
    $r = $c->answer;
    is($r->{status}, 200, 'the next request on it');
    is($r->{json}{pagination}{total_items}, $count, 'is understood');

    # head and body in one go, with a length and in chunks
    for my $chunked (0, 1000) {
        my $small = file('x' x 5000, 'a') . "--XyZ--\r\n";
        for (1 .. 3) {
            $c->send(method => 'POST', path => "$nowhere/artifacts",
                     body => $small, headers => $type, chunked => $chunked);
            $r = $c->answer;
            is($r->{status}, 404, "with the body, chunked: $chunked");
            $c->send(path => $at);
            is($c->answer->{status}, 200, 'and the next');
        }
    }

    # two at once, the good one behind: pipelined
    my $small = file('piped', 'p') . "--XyZ--\r\n";
    $c->raw(join '', map { AgentTest::Http::text(method => 'POST',
        path => $_, body => $small, headers => $type) }
        "$nowhere/artifacts", $at);
    is($c->answer->{status}, 404, 'the first of two');
    $r = $c->answer;
    is($r->{status}, 200, 'the second');
    is(download($r->{json}{artifact_id})->{body}, 'piped', 'has its bytes');
    $count++;
    $before++;

    # one that waits to be asked for its body
    $c->raw($head->($at, Expect => '100-continue'));
    $r = $c->answer(interim => 1);
    is($r->{status}, 100, 'a task that is there: 100');
    $c->raw($body);
    $r = $c->answer;
    is($r->{status}, 200, 'then 200');
    $count++;
    $before++;

    $c->raw($head->("$nowhere/artifacts", Expect => '100-continue'));
    $r = $c->answer(interim => 1, seconds => 4);
    is($r->{status}, 404, 'one that is not: 404 and no 100');
    is($r->{headers}{connection}, 'close', 'the connection is of no use');
    ok($c->closed_by_peer(15), 'and is closed');
    $c->close;

    # that one sends its body all the same, at once
    $c = $nginx->connect;
    $c->raw($head->("$nowhere/artifacts", Expect => '100-continue') . $body);
    $r = $c->answer(interim => 1);
    is($r->{status}, 404, '404 and no 100');
    is($r->{json}{message} =~ /no task/, 1, 'whole, not cut by a reset');
    $c->close;

    # a client that leaves while the database is asked
    for (1 .. 20) {
        $c = $nginx->connect;
        $c->raw($head->($_ % 2 ? $at : "$nowhere/artifacts"));
        $c->close;
    }
}

# the same over HTTP/2; with nghttp, as some versions of curl drop an answer
# that comes while they still send

{
    my $dir = scratch();
    my @urls = map { "http://127.0.0.1:$h2$_" } "$nowhere/artifacts", $at;
    write_file("$dir/body", file('h' x 2_000_000, 'h2') . "--XyZ--\r\n");
    my $nghttp = "nghttp -v -d $dir/body -H 'content-type: "
                 . "$type->{'Content-Type'}'";
    my $said = qx{$nghttp @urls 2>&1};
    my @status = sort $said =~ /:status: (\d+)/g;
    is("@status", '200 404', 'HTTP/2: one refused, one taken');
    like($said, qr/\{"message":"no task/, 'the refusal is read');
    $count++;
    $before++;

    $said = qx{$nghttp --expect-continue $urls[0] 2>&1};
    is(join(' ', $said =~ /:status: (\d+)/g), 404, 'no 100 here either');
    like($said, qr/\{"message":"no task/, 'and the refusal');
}

poll_until(sub { stored() == $before && !glob $nginx->dir
                 . '/artifacts/tmp/*' }, 5);
is(stored(), $before, 'only the good ones are on the disk');
is($nginx->get($at)->{json}{pagination}{total_items}, $count,
   'and in the list');


# downloads

{
    my $bytes = join '', map { chr(65 + $_ % 26) } 0 .. 9999;
    my $r = upload(file($bytes, "q\xc3\xbc.html") . "--XyZ--\r\n");
    my $id = $r->{json}{artifact_id};
    $r = download($id);

    is($r->{headers}{'content-type'}, 'application/octet-stream', 'the type');
    is($r->{headers}{'x-content-type-options'}, 'nosniff', 'nosniff');
    like($r->{headers}{'content-disposition'}, qr/^attachment;/, 'attachment');
    like($r->{headers}{'content-disposition'},
         qr/filename\*=UTF-8''q%C3%BC\.html/, 'the name, encoded');
    is($r->{headers}{'content-length'}, 10000, 'the length');
    is($r->{headers}{'accept-ranges'}, 'bytes', 'ranges are taken');
    my $etag = $r->{headers}{etag};
    ok($etag, 'an ETag');

    for (['bytes=0-9', 206, substr($bytes, 0, 10)],
         ['bytes=9990-', 206, substr($bytes, 9990)],
         ['bytes=-5', 206, substr($bytes, -5)],
         ['bytes=20000-', 416, undef])
    {
        my ($range, $status, $body) = @$_;
        $r = download($id, Range => $range);
        is($r->{status}, $status, $range);
        is($r->{body}, $body, 'the right bytes') if defined $body;
        ok($r->{json}{message}, 'said in JSON') if $status == 416;
    }
    $r = download($id, Range => 'bytes=0-3,10-12');
    is($r->{status}, 206, 'two ranges');
    $r = download($id, 'If-None-Match' => $etag);
    is($r->{status}, 304, 'If-None-Match');
    is($r->{body}, '', 'with no body');
    $r = download($id, Range => 'bytes=0-3', 'If-Range' => '"other"');
    is($r->{status}, 200, 'If-Range of another');
    $r = $nginx->request(method => 'HEAD', path => "$at/$id");
    is($r->{headers}{'content-length'}, 10000, 'HEAD');

    # the bytes are gone from the disk
    my ($file) = glob $nginx->dir . "/artifacts/*/$id";
    ok($file, 'the file is found by its id');
    unlink $file;
    $r = download($id);
    is($r->{status}, 500, 'a file that is gone');
    ok($r->{json}{message}, 'said in JSON');
    like($nginx->log_text, qr/\[error\].*$id/, 'and in the log');
}


# the agent's own files

{
    my $id = make_task($nginx, 'tools [[tools+split:1+bytes]]');
    my $r = run_step($nginx, $id);
    is($r->{status}, 200, 'four tool calls in one answer')
        or diag $r->{body};
    is_deeply([map { [$_->{relative_path} // '', $_->{file_name},
                      $_->{agent_created}] } @{$r->{json}{artifacts}}],
              [['src/', 'a.txt', JSON::PP::true],
               ['', 'b.txt', JSON::PP::true]], 'two files');
    for my $a (@{$r->{json}{artifacts}}) {
        my $d = $nginx->get("/agent/tasks/$id/artifacts/$a->{artifact_id}");
        is($d->{body}, uc substr($a->{file_name}, 0, 1), 'their bytes');
    }
    $r = run_step($nginx, $id);
    is($r->{json}{is_last}, JSON::PP::true, 'finish');
    like($r->{json}{output}, qr{src/a\.txt.*b\.txt}s, 'the list the LLM saw');
    # the fake writes its log when the request has ended: after our answer
    my $call;
    poll_until(sub {
        ($call) = grep { @{$_->{messages}} > 3 } $llm->calls('tools ');
    }, 5);
    my @tool = grep { $_->{role} eq 'tool' } @{$call->{messages}};
    is(scalar @tool, 4, 'four results');
    is($tool[2]{content}, 'B', 'read_artifact sees what was just written');
}

{
    my $id = make_task($nginx, 'read [[read:in/data.txt]]');
    my $r = $nginx->post("/agent/tasks/$id/artifacts",
        part('relative_path', 'in/') . file("line\n\xe2\x82\xac", 'data.txt')
        . "--XyZ--\r\n", headers => $type);
    is($r->{status}, 200, 'a file for the agent');
    run_step($nginx, $id);
    $r = run_step($nginx, $id);
    is($r->{json}{output}, "line\n\x{20ac}", 'the agent has read it');

    $id = make_task($nginx, 'read [[read:none.txt]]');
    run_step($nginx, $id);
    $r = run_step($nginx, $id);
    is($r->{json}{status}, 'completed', 'a file that is not there');
    like($r->{json}{output}, qr/none\.txt|no (?:such )?(?:file|artifact)/i,
         'is told to the LLM');

    $id = make_task($nginx, 'read [[read:bin]]');
    $nginx->post("/agent/tasks/$id/artifacts", file("\xff\xfe\0", 'bin')
                 . "--XyZ--\r\n", headers => $type);
    run_step($nginx, $id);
    $r = run_step($nginx, $id);
    like($r->{json}{output}, qr/binary/, 'a binary file is not sent');
}

for my $b (qw(badargs badtool badpath)) {
    my $id = make_task($nginx, "wrong $b [[$b]]");
    my $r = run_step($nginx, $id);
    is($r->{json}{status}, 'completed', "$b: no failure of the step");
    is_deeply($r->{json}{artifacts}, [], "$b: nothing was written");
    $r = run_step($nginx, $id);
    is($r->{status}, 200, "$b: the LLM is told") or diag $r->{body};
    like($r->{json}{output}, qr/\w+ \w+/, "$b: in words");
}

{
    my $name = "\x{fc}n\x{ef}/\x{20ac} \"q\".txt";
    my $id = make_task($nginx, "unicode "
        . '[[{"calls": [["write_artifact", {"path": "\u00fcn\u00ef/\u20ac '
        . '\u0022q\u0022.txt", "content": "\ud83d\ude00"}]], "wire": '
        . '"split:1"}]]');
    my $r = run_step($nginx, $id);
    is(scalar @{$r->{json}{artifacts} || []}, 1, 'a name in Unicode')
        or diag $r->{body};
    my $a = $r->{json}{artifacts}[0];
    my $d = $nginx->get("/agent/tasks/$id/artifacts/$a->{artifact_id}");
    is($d->{body}, "\xf0\x9f\x98\x80", 'the bytes');
    unlike($d->{headers}{'content-disposition'}, qr/[^\x20-\x7e]/,
           'the header is ASCII');
}

$nginx->finish;
done_testing();
