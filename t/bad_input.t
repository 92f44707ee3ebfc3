#!/usr/bin/perl

# What no client should send: each is an answer in JSON that says what is
# wrong, nothing of it is stored, no worker dies or grows.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $big = $ENV{AGENT_TEST_BIG_MB} || 256;
my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $nginx = AgentTest::Nginx->new(conf => conf(
    pg => $pg, llm => $llm,
    http => "    client_body_timeout 2s;\n    client_header_timeout 2s;",
    server => '        location /big/ { agent_pass writer; '
              . 'client_max_body_size 0; }'));

my $at = '/ap/v1/agent';
my $task = make_task($nginx, 'a good one');
my @workers = $nginx->workers;
my $json = { 'Content-Type' => 'application/json' };


sub rows {
    return $pg->psql('select (select count(*) from agent.task) || \' \' || '
                     . '(select count(*) from agent.step)');
}

my $rows = rows();


sub refused {
    my ($name, $body, $status, %o) = @_;

    for my $path ('/tasks', "/tasks/$task/steps") {
        my $r = $nginx->post("$at$path", $body, headers => { %$json,
                             %{$o{headers} || {}} });
        is($r->{status}, $status, "$name: $path") or diag $r->{body};
        ok($r->{json}{message}, "$name: a message");
        like($r->{headers}{'content-type'}, qr{^application/json},
             "$name: JSON");
        next if $status != 422;
        is(ref $r->{json}{detail}, 'ARRAY', "$name: detail");
        ok(ref $r->{json}{detail}[0]{loc} eq 'ARRAY'
           && $r->{json}{detail}[0]{msg}, "$name: loc and msg");
    }
}


# not JSON, or not what it should be

my %bad = (
    'half an object' => '{"input": "x"',
    'two values' => '{"input": "x"} {}',
    'rubbish' => 'input=x',
    'a trailing comma' => '{"input": "x",}',
    'single quotes' => "{'input': 'x'}",
    'a comment' => '{"input": /* no */ "x"}',
    'NaN' => '{"additional_input": {"a": NaN}}',
    'a leading zero' => '{"additional_input": {"a": 012}}',
    'a BOM' => "\xef\xbb\xbf{}",
    'an array' => '[]',
    'a string' => '"input"',
    'a number' => '17',
    'null' => 'null',
    'input a number' => '{"input": 1}',
    'input an object' => '{"input": {}}',
    'input an array' => '{"input": ["x"]}',
    'input a boolean' => '{"input": true}',
    'additional_input a string' => '{"additional_input": "x"}',
    'additional_input an array' => '{"additional_input": []}',
    'additional_input a number' => '{"additional_input": 1}',
    'a raw control character' => "{\"input\": \"a\x01b\"}",
    'a raw newline' => "{\"input\": \"a\nb\"}",
    'a raw NUL' => "{\"input\": \"a\0b\"}",
    'NUL as an escape' => '{"input": "a\u0000b"}',
    'NUL deep inside' => '{"additional_input": {"a": [{"b": "\u0000"}]}}',
    'NUL in a key' => '{"additional_input": {"a\u0000": 1}}',
    'a lone high surrogate' => '{"input": "\ud83d"}',
    'a lone low surrogate' => '{"input": "\ude00"}',
    'surrogates in the wrong order' => '{"input": "\ude00\ud83d"}',
    'a lone surrogate inside' => '{"additional_input": {"a": "\ud83dx"}}',
    'a lone surrogate in a key' => '{"additional_input": {"\udc00": 1}}',
    'invalid UTF-8' => "{\"input\": \"\xff\"}",
    'overlong UTF-8' => "{\"input\": \"\xc0\xaf\"}",
    'a surrogate in UTF-8' => "{\"input\": \"\xed\xa0\x80\"}",
    'beyond Unicode' => "{\"input\": \"\xf4\x90\x80\x80\"}",
    'cut UTF-8' => "{\"input\": \"\xe2\x82\"}",
    'invalid UTF-8 inside' => "{\"additional_input\": {\"a\": \"\x80\"}}",
    'invalid UTF-8 in a key' => "{\"additional_input\": {\"\xfe\": 1}}",
    'a bad escape' => '{"input": "\x41"}',
    'a short \u' => '{"input": "\u12"}',
    'UTF-16' => "\xff\xfe{\0}\0",
    '65 levels' => '{"additional_input": ' . '{"a":' x 64 . '1' . '}' x 64
                   . '}',
    '100,000 levels' => '{"additional_input": {"a":' . '[' x 100_000
                        . ']' x 100_000 . '}}',
    '100,000 levels, never closed' => '[' x 100_000,
    '1,000,000 levels' => '{"a":' x 1_000_000,
);

refused($_, $bad{$_}, 422) for sort keys %bad;

refused("type $_", '{"input": "x"}', 415, headers => { 'Content-Type' => $_ })
    for 'text/plain', 'application/x-www-form-urlencoded', 'application/xml',
        'multipart/form-data; boundary=x', 'application/jsonx', 'rubbish';

refused('17 MB', '{"input": "' . 'x' x (17 << 20) . '"}', 413);

is(rows(), $rows, 'nothing of all this was stored');


# odd, but good

my $deep = '{"a":' x 62 . '1' . '}' x 62;
my %good = (
    '64 levels' => "{\"additional_input\": {\"b\": $deep}}",
    'numbers beyond double' => '{"additional_input": {"a": 1e999, "b": '
        . '-1e-999, "c": ' . '9' x 400 . '}}',
    'duplicate keys inside' => '{"additional_input": {"a": 1, "a": 2}}',
    'unknown members' => '{"input": "x", "more": [1, {"b": null}]}',
    'an empty key' => '{"additional_input": {"": ""}}',
    'DEL and U+FFFF' => "{\"input\": \"\x7f\xef\xbf\xbf\"}",
    'one megabyte' => '{"input": "' . 'x' x (1 << 20) . '"}',
    'one megabyte of escapes' => '{"input": "' . '\u00e9' x 170_000 . '"}',
    'one megabyte inside' => '{"additional_input": {"a": ['
        . join(',', ('1') x 500_000) . ']}}',
    'ten thousand members' => '{"additional_input": {'
        . join(',', map { "\"k$_\": $_" } 1 .. 10_000) . '}}',
);

for my $name (sort keys %good) {
    my $r = $nginx->post("$at/tasks", $good{$name}, headers => $json);
    is($r->{status}, 200, "$name: is taken") or diag substr $r->{body}, 0, 300;
    my $again = $nginx->get("$at/tasks/" . ($r->{json}{task_id} // 'none'));
    is($again->{status}, 200, "$name: and given back");
    my ($want) = $good{$name} =~ /"additional_input": (.*)\}\z/s or next;
    ok(index($again->{body}, $want) >= 0, "$name: byte for byte");
}

{
    my $r = $nginx->post("$at/tasks", '{"input": "first", "input": "last"}',
                         headers => $json);
    is($r->{json}{input}, 'last', 'duplicate keys: the last wins');

    $r = $nginx->post("$at/tasks", '{"input": "' . 'm' x (1 << 20) . '"}',
                      headers => $json);
    $r = run_step($nginx, $r->{json}{task_id});
    is($r->{json}{output}, 'm' x (1 << 20), 'a megabyte to the LLM and back')
        or diag substr $r->{body}, 0, 300;
}


# pages and ids

for my $query (qw(current_page=0 current_page=-1 current_page=x current_page=
                  current_page=1.5 current_page=1e3 page_size=0 page_size=-1
                  page_size=1001 page_size=x page_size= page_size=99999999999
                  current_page=99999999999999999999999999 order=up order=
                  current_page=%00 current_page=1%20 page_size=+5
                  current_page=0x10))
{
    for my $list ('tasks', "tasks/$task/steps", "tasks/$task/artifacts") {
        my $r = $nginx->get("$at/$list?$query");
        is($r->{status}, 422, "$list?$query") or diag $r->{body};
        ok($r->{json}{message} && $r->{json}{detail}, 'message and detail');
    }
}

for my $query ('current_page=2147483647', 'current_page=2147483647&'
               . 'page_size=1000', 'current_page=%32', 'page_size=%31%30',
               'unknown=1&&=&page_size=5', 'current_page=1000000000')
{
    my $r = $nginx->get("$at/tasks?$query");
    is($r->{status}, 200, "tasks?$query") or diag $r->{body};
    ok($r->{json}{pagination}{total_items} > 5, 'with true totals');
}

my $upper = uc $task;
for my $id ('x', '0', '-1', '%2e%2e', "$task%01", "$task%20", "{$task}",
            $task =~ s/-//gr, "$task$task", 'a' x 4000, '%ff%fe', "'--",
            '%22%5c%0a', "\xe2\x82\xac", substr($task, 0, 35), "${task}0",
            substr($task, 0, 35) . 'g', '%27%20or%20%271%27=%271')
{
    for my $route ("tasks/$id", "tasks/$id/steps", "tasks/$task/steps/$id",
                   "tasks/$task/artifacts/$id")
    {
        my $r = $nginx->get("$at/$route");
        is($r->{status}, 404, 'GET ' . encode(substr $route, 0, 60))
            or diag $r->{body};
        ok($r->{json}{message}, 'a message, in good JSON');
    }
}

# nginx itself refuses these before it has looked for a location
is($nginx->get("$at/tasks/$_")->{status}, 400, "tasks/$_")
    for '%00', "$task%00", '%zz', "$task/../../../../../../etc/passwd";

is($nginx->get("$at/tasks/$upper")->{status}, 200, 'an id in capitals')
    or diag 'RFC 9562: input is case-insensitive';


# uploads with no end and no sense

for my $body ('', "--x\r\n", "--x--", "\r\n" x 10_000, '-' x 1_000_000,
              "--x\r\n" x 50_000, "--x\r\n\r\n" x 50_000,
              "--x\r\n" . "A: b\r\n" x 50_000 . "\r\n\r\n--x--",
              "--x\r\nContent-Disposition: form-data; name=\"file\r\n\r\n",
              "--x\r\n: \r\n\r\ny\r\n--x--\r\n", "\0" x 100_000)
{
    my $r = $nginx->post("$at/tasks/$task/artifacts", $body, headers => {
        'Content-Type' => 'multipart/form-data; boundary=x' });
    is($r->{status}, 422, 'upload of ' . encode(substr $body, 0, 20))
        or diag $r->{body};
    ok($r->{json}{message}, 'a message');
}
is($nginx->get("$at/tasks/$task/artifacts")->{json}{pagination}{total_items},
   0, 'no artifact came of it');


# headers that lie, and slow clients

{
    my $c = $nginx->connect;
    $c->raw("POST $at/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n");
    is($c->answer->{status}, 400, 'a negative length');
    $c = $nginx->connect;
    $c->raw("POST $at/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked"
            . "\r\nContent-Type: application/json\r\n\r\nzz\r\n");
    is($c->answer->{status}, 400, 'a chunk that is none');
    $c = $nginx->connect;
    $c->raw("POST $at/tasks/$task/artifacts HTTP/1.1\r\nHost: x\r\n"
            . "Content-Type: multipart/form-data; boundary=x\r\n"
            . "Transfer-Encoding: chunked\r\n\r\n3\r\n--x\r\nzz\r\n");
    is($c->answer->{status}, 400, 'the same in an upload');

    my @slow = map {
        my $c = $nginx->connect;
        $c->raw("POST $at/$_ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
                . 'Content-Type: ' . (/artifacts/
                ? 'multipart/form-data; boundary=x' : 'application/json')
                . "\r\n\r\n{");
        $c;
    } 'tasks', "tasks/$task/steps", "tasks/$task/artifacts";
    my $silent = $nginx->connect;
    $silent->raw("GET $at/tasks HT");
    my $drip = $nginx->connect(seconds => 20);
    my $text = AgentTest::Http::text(path => "$at/tasks",
                                     body => { input => 'slowly' });
    for (split /(?<=\r\n)|(?<=\{)/, $text) { $drip->raw($_); sleep 0.15 }
    is($drip->answer->{json}{input}, 'slowly', 'slow but steady');
    for my $c (@slow) {
        my $r = $c->answer(seconds => 10);
        ok($r->{status} == 408 || $r->{status} == 0, 'a body that stops: 408 '
           . 'or closed') or diag $r->{status};
    }
    ok($silent->closed_by_peer(10) || $silent->{in} =~ /^HTTP.* 408/,
       'a header that stops: closed');
}


# a large file, and the worker's memory

{
    my $piece = join '', map { chr(33 + $_ % 90) } 1 .. 65536;
    my $n = $big * 16;
    my $head = "--x\r\nContent-Disposition: form-data; name=\"file\"; "
               . "filename=\"big\"\r\n\r\n";
    my $length = length($head) + $n * 65536 + length("\r\n--x--\r\n");
    my $before = $nginx->memory;
    my $most = $before;

    my $c = $nginx->connect(seconds => 120);
    $c->raw("POST /big/tasks/$task/artifacts HTTP/1.1\r\nHost: x\r\n"
            . "Content-Type: multipart/form-data; boundary=x\r\n"
            . "Content-Length: $length\r\n\r\n$head");
    for my $i (1 .. $n) {
        last unless $c->raw($piece);
        next if $i % 256;
        my $now = $nginx->memory;
        $most = $now if $now > $most;
    }
    $c->raw("\r\n--x--\r\n");
    my $r = $c->answer;
    is($r->{status}, 200, "an upload of $big MB") or diag $r->{body};
    my $id = $r->{json}{artifact_id} // 'none';
    is(-s (glob $nginx->dir . "/artifacts/*/$id"), $n * 65536, 'all of it');

    my ($got, $bad) = (0, 0);
    $c->raw("GET /big/tasks/$task/artifacts/$id HTTP/1.1\r\nHost: x\r\n"
            . "Connection: close\r\n\r\n");
    my $buf = '';
    while (sysread $c->{sock}, $buf, 1 << 20, length $buf) {
        $buf =~ s/^HTTP.*?\r\n\r\n//s unless $got++;
        while (length $buf >= 65536) {
            $bad++ if substr($buf, 0, 65536, '') ne $piece;
            $n--;
        }
        my $now = $got % 64 ? 0 : $nginx->memory;
        $most = $now if $now > $most;
    }
    is("$n $bad", '0 0', 'and back again');
    my $grown = ($most - $before) >> 10;
    my $limit = $ENV{AGENT_TEST_ASAN} ? 65536 : 4096;
    cmp_ok($grown, '<', $limit, "the worker grew by $grown KB");
}

is_deeply([$nginx->workers], \@workers, 'no worker died');
$nginx->finish;
done_testing();
