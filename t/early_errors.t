#!/usr/bin/perl

# What nginx refuses before it knows a location (a malformed request, headers
# that are too large, plain HTTP on a port for TLS) is JSON in a server that
# has agent_pass somewhere, by HTTP/1 and HTTP/2.  So is what no location of
# such a server matches, unless it has a website.  Other servers and locations
# keep nginx's own pages.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use Test::More;

my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $dir = scratch();
my ($site, $plain, $own, $tls, $h2, $quiet) = map { free_port() } 1 .. 6;

for my $name (qw(server client stranger)) {
    is(system("openssl req -new -x509 -days 2 -nodes -newkey rsa:2048 "
        . "-subj /CN=$name -keyout $dir/$name.key -out $dir/$name.crt "
        . '>/dev/null 2>&1'), 0, "a certificate for the $name");
}
mkdir "$dir/www";
chmod 0755, "$dir/www";
write_file("$dir/www/page.html", "a page\n");

my $nginx = AgentTest::Nginx->new(conf => conf(
    pg => $pg, llm => $llm, http => <<"HTTP", server => <<"SERVER"));
    client_body_timeout 1s;
    reset_timedout_connection on;
    large_client_header_buffers 2 1k;
    ssl_certificate $dir/server.crt;
    ssl_certificate_key $dir/server.key;

    server {
        listen 127.0.0.1:$site;
        root $dir/www;
        location /agent/ { agent_pass writer; }
        location /agent/no/ { deny all; agent_pass writer; }
    }
    server {
        listen 127.0.0.1:$plain;
        location /status { agent_status; }
    }
    server {
        listen 127.0.0.1:$own;
        error_page 400 404 405 /own.txt;
        error_page 414 /missing.txt;
        location /agent/ { agent_pass writer; }
        location = /own.txt { internal; default_type text/plain;
                              return 200 "my own page"; }
    }
    server {
        listen 127.0.0.1:$tls ssl;
        ssl_client_certificate $dir/client.crt;
        ssl_verify_client on;
        location /agent/ { agent_pass writer; }
    }
    server {
        listen 127.0.0.1:$quiet;
        location /agent/ { agent_pass writer; }
        if (\$arg_stop) { return 503; }
        if (\$arg_bad) { return 410; }
        return 451;
    }
HTTP
        listen 127.0.0.1:$h2 http2;
        location /closed/ { deny all; }
SERVER


# What the answer to these bytes is.

sub raw {
    my ($port, $bytes, $method) = @_;
    my $c = AgentTest::Http->new($port, seconds => 10);
    push @{$c->{methods}}, $method || 'GET';
    $c->raw($bytes);
    my $r = $c->answer;
    $c->close;
    return $r;
}


sub is_json {
    my ($r, $status, $like, $what) = @_;

    is($r->{status}, $status, "$what: $status");
    is($r->{headers}{'content-type'}, 'application/json', "$what: JSON")
        or diag $r->{body};
    like(eval { $r->{json}{message} } // $r->{body}, $like, "$what: message");
    ok(!$r->{cut}, "$what: all of it");
}


sub is_html {
    my ($r, $status, $what) = @_;
    is($r->{status}, $status, "$what: $status");
    is($r->{headers}{'content-type'}, 'text/html', "$what: nginx's page");
    like($r->{body}, qr/<html>.*nginx/s, "$what: whole");
}


# malformed requests

my $long = 'x' x 3000;
my $at = '/ap/v1/agent/tasks';
my @malformed = (
    ['no request', "GARBAGE\r\n\r\n", 400, qr/malformed/],
    ['a space in the path', "GET /a b HTTP/1.1\r\n\r\n", 400, qr/malformed/],
    ['a path out of the root', "GET /../../x HTTP/1.1\r\nHost: x\r\n\r\n", 400,
        qr/malformed/],
    ['no Host', "GET $at HTTP/1.1\r\n\r\n", 400, qr/malformed/],
    ['two Hosts', "GET $at HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400,
        qr/malformed/],
    ['a Host that is none', "GET $at HTTP/1.1\r\nHost: a/b\r\n\r\n", 400,
        qr/malformed/],
    ['a NUL in a header', "GET $at HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", 400,
        qr/malformed/],
    ['a length that is none',
        "POST $at HTTP/1.1\r\nHost: x\r\nContent-Length: 1x\r\n\r\n", 400,
        qr/malformed/],
    ['two lengths', "POST $at HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
        . "Transfer-Encoding: chunked\r\n\r\n", 400, qr/malformed/],
    ['an encoding nobody knows', "POST $at HTTP/1.1\r\nHost: x\r\n"
        . "Transfer-Encoding: gzip\r\n\r\n", 501, qr/does not know/],
    ['HTTP of the future', "GET $at HTTP/7.0\r\nHost: x\r\n\r\n", 505,
        qr/version of HTTP/],
    ['a long address', "GET $at?$long HTTP/1.1\r\nHost: x\r\n\r\n", 414,
        qr/address is too long/],
    ['a long header', "GET $at HTTP/1.1\r\nHost: x\r\nA: $long\r\n\r\n", 400,
        qr/headers are too large/],
    ['many headers', "GET $at HTTP/1.1\r\nHost: x\r\n"
        . join('', map { "A$_: " . 'x' x 900 . "\r\n" } 1 .. 9) . "\r\n", 400,
        qr/headers are too large/],
    ['TRACE', "TRACE $at HTTP/1.1\r\nHost: x\r\n\r\n", 405, qr/method/],
    ['CONNECT', "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", '4..', qr/./],
);

for (@malformed) {
    my ($what, $bytes, $status, $like) = @$_;
    my $r = raw($nginx->port, $bytes);
    $status = $r->{status} if $r->{status} =~ /^$status$/;
    is_json($r, $status, $like, $what);
    ok($r->{headers}{allow}, "$what: Allow") if $status == 405;

    # with a website beside it, too: nobody knows whose request it was
    is_json(raw($site, $bytes), $status, $like, "$what, beside a website");

    is_html(raw($plain, $bytes), $status, "$what, in a server without agents");
}

{
    my $c = $nginx->connect;
    $c->raw("GET /nothing\r\n");
    my $said = '';
    1 while sysread $c->{sock}, $said, 4096, length $said;
    like($said, qr/^\{"message":"[^"]+"\}$/, 'HTTP/0.9: the bare message');

    my $r = raw($nginx->port, "HEAD $at HTTP/1.1\r\n\r\n", 'HEAD');
    is($r->{status}, 400, 'HEAD without Host');
    is($r->{headers}{'content-type'}, 'application/json', 'is JSON as well');
}


# no location matches

is_json($nginx->get('/nothing'), 404, qr/no such path/, 'no location');
{
    is_json($nginx->post('/ap/v2/tasks', { input => 'x' }), 404,
        qr/no such path/, 'POST to no location');
    my $r = $nginx->request(path => '/nothing', method => 'HEAD');
    is($r->{status}, 404, 'HEAD of no location');
    is($r->{headers}{'content-type'}, 'application/json', 'is JSON');
    $r = raw($nginx->port, "POST /nothing HTTP/1.1\r\nHost: x\r\n"
             . "Content-Length: 999999999\r\n\r\n");
    is_json($r, 413, qr/body is larger/, 'a body too large for no location');
}
is_html($nginx->get('/closed/x'), 403, 'another location');
is_html($nginx->get('/llm/x'), 404, 'the location of the LLM');

is_html(AgentTest::Http::request(port => $site, path => '/nothing'), 404,
    'no page of a website');
is(AgentTest::Http::request(port => $site, path => '/page.html')->{body},
    "a page\n", 'a page of a website');
is_json(AgentTest::Http::request(port => $site, path => '/agent/no/tasks'), 403,
    qr/may not/, 'a location of ours in a website');
is_html(AgentTest::Http::request(port => $plain, path => '/x'), 404,
    'a server without agents');


# "return" in the server

{
    my $get = sub {
        AgentTest::Http::request(port => $quiet, path => "/agent/tasks$_[0]");
    };
    my $r = $get->('?stop=1');
    is_json($r, 503, qr/try again/, 'return 503 in an if of the server');
    is($r->{headers}{'retry-after'}, 1, 'with Retry-After');
    is_json($get->('?bad=1'), 410, qr/does not accept/, 'return 410');
}


# the user's own pages

for (["GET /agent/tasks HTTP/1.1\r\n\r\n", 400, 'a malformed request'],
     ["GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404, 'no location'],
     ["TRACE /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 405, 'TRACE'])
{
    my ($bytes, $status, $what) = @$_;
    my $r = raw($own, $bytes);
    is($r->{status}, $status, "$what: $status");
    is($r->{body}, 'my own page', "$what: the page of the user's own");
}


# TLS

sub curl {
    my (@args) = @_;
    unlink "$dir/body", "$dir/head";
    my $status = qx{curl -sk --max-time 20 -D $dir/head -o $dir/body \\
                    -w '%{http_code}' @args};
    my %h = read_file("$dir/head") =~ /^([\w-]+): (.*?)\r?$/mg;
    my $body = read_file("$dir/body");
    return { status => $status, body => $body,
             headers => { map { lc($_) => $h{$_} } keys %h },
             json => scalar eval { decode($body) } };
}

for my $http ('--http1.1', '--http2') {
    my $url = "https://127.0.0.1:$tls/agent/tasks";
    my $cert = sub { "--cert $dir/$_[0].crt --key $dir/$_[0].key" };
    is_json(curl($http, $url), 400, qr/certificate .* send one/,
        "no certificate, $http");
    is_json(curl($http, $cert->('stranger'), $url), 400, qr/certificate/,
        "a certificate nobody trusts, $http");
    is(curl($http, $cert->('client'), $url)->{status}, 200,
        "a good certificate, $http");
}
is_json(raw($tls, "GET /agent/tasks HTTP/1.1\r\nHost: x\r\n\r\n"), 400,
    qr/use https/, 'plain HTTP to TLS');
is_json(raw($nginx->port, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n"),
    400, qr/malformed/, 'TLS to plain HTTP');


# HTTP/2

{
    my $base = "--http2-prior-knowledge http://127.0.0.1:$h2";
    is_json(curl("$base/nothing"), 404, qr/no such path/, 'h2: no location');
    is_json(curl("-X TRACE $base$at"), 405, qr/method/, 'h2: TRACE');
    is_json(curl("-H 'Host: a/b' $base$at"), 400, qr/malformed/,
        'h2: a Host that is none');
    is_html(curl("$base/closed/x"), 403, 'h2: another location');
    is(curl("$base$at")->{status}, 200, 'h2: nothing wrong');
}


# a body that stops: nginx itself would say nothing

{
    my $task = make_task($nginx, 'x');
    my %type = (tasks => 'application/json',
                "tasks/$task/steps" => 'application/json',
                "tasks/$task/artifacts" => 'multipart/form-data; boundary=x');

    my @slow = map {
        my ($path, $how) = @$_;
        my $c = $nginx->connect(seconds => 15);
        $c->raw("POST /ap/v1/agent/$path HTTP/1.1\r\nHost: x\r\n"
                . "Content-Type: $type{$path}\r\n"
                . ($how eq 'length' ? "Content-Length: 100\r\n\r\n{"
                   : "Transfer-Encoding: chunked\r\n\r\n5\r\n{"));
        [$c, "$how, $path"];
    } map { [$_, 'length'], [$_, 'chunked'] } sort keys %type;

    for (@slow) {
        my ($c, $what) = @$_;
        my $r = $c->answer;
        is_json($r, 408, qr/did not come in time/, $what);
        is($r->{headers}{connection}, 'close', "$what: the last answer");

        # what comes late is not taken for a request
        $c->raw("GET $at HTTP/1.1\r\nHost: x\r\n\r\n");
        is($c->answer(seconds => 10)->{status}, 0, "$what: is over");
    }
    is(@{$nginx->get("/ap/v1/agent/tasks/$task/artifacts")->{json}{artifacts}},
        0, 'nothing was stored');

    # over HTTP/2, by a curl whose input does not end: it looks at the answer
    # when it does
    for my $path (sort keys %type) {
        unlink "$dir/body", "$dir/head";
        open my $fh, '|-', "curl -s --http2-prior-knowledge -X POST "
            . "-T - -H 'Content-Type: $type{$path}' -D $dir/head -o $dir/body "
            . "http://127.0.0.1:$h2/ap/v1/agent/$path"
            or die "curl: $!";
        syswrite $fh, '{';
        ok(poll_until(sub {
            read_file($nginx->dir . '/access.log') =~ m{$path HTTP/2.0" 408}
        }, 20), "h2, $path: refused");
        close $fh;
        like(read_file("$dir/head"), qr{^HTTP/2 408}, "h2, $path: 408");
        like(read_file("$dir/body"), qr/^\{"message":".*in time.*"\}$/,
            "h2, $path: JSON");
    }
}

is($nginx->get($at)->{status}, 200, 'the server is well');
$nginx->finish;
done_testing();
