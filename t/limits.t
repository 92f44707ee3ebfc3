#!/usr/bin/perl

# nginx's limits in front of the agents, by API key, by tenant and by address:
# who is over one gets 429 as JSON with Retry-After, and nobody else does.
# What is refused costs no database work.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use Test::More;
use Time::HiRes qw(time);

my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $dir = scratch();
my $h2 = free_port();

# an excess that leaks away by one in a minute: no test waits for that
my $zones = join '', map { "    limit_req_zone $_->[1] zone=$_->[0]:1m "
                           . "rate=1r/m;\n" }
    [qw(by_key $agent_key)], [qw(by_tenant $agent_tenant)],
    [qw(by_address $agent_stranger)], [qw(by_both $agent_tenant)],
    [qw(by_h2 $agent_key)], [qw(by_own $agent_key)], [qw(by_body $agent_key)];

my $at = '/ap/v1/agent';
my $nginx = AgentTest::Nginx->new(conf => conf(
    pg => $pg, llm => $llm, agents => { writer => 'timeout 60s;' },
    http => <<"HTTP", server => <<"SERVER"));
    agent_auth_zone keys:1m;
    map \$agent_key \$agent_stranger { "" \$binary_remote_addr; default ""; }
    limit_req_status 429;
    limit_conn_status 429;
    limit_req_log_level info;
    limit_conn_log_level info;
    limit_req_zone \$agent_key zone=slow:1m rate=50r/s;
    limit_conn_zone \$agent_key zone=open_key:1m;
    limit_conn_zone \$agent_tenant zone=open_tenant:1m;
$zones
HTTP
        listen 127.0.0.1:$h2 http2;
        add_header X-Key \$agent_key always;
        location = /_auth { internal; agent_auth; }
        location /free/ { auth_request /_auth; agent_pass writer; }
        location /key/ { auth_request /_auth; agent_pass writer;
                         limit_req zone=by_key burst=4 nodelay; }
        location /tenant/ { auth_request /_auth; agent_pass writer;
                            limit_req zone=by_tenant burst=4 nodelay; }
        location /both/ { auth_request /_auth; agent_pass writer;
                          limit_req zone=by_address burst=4 nodelay;
                          limit_req zone=by_both burst=4 nodelay; }
        location /h2/ { auth_request /_auth; agent_pass writer;
                        limit_req zone=by_h2; }
        location /own/ { auth_request /_auth; agent_pass writer;
                         limit_req zone=by_own; error_page 429 /slow; }
        location = /slow { internal; default_type text/plain;
                           return 429 "slower"; }
        location /body/ { auth_request /_auth; agent_pass writer;
                          limit_req zone=by_body; client_max_body_size 100; }
        location /slow/ { auth_request /_auth; agent_pass writer;
                          limit_req zone=slow burst=100; }
        location /open/key/ { auth_request /_auth; agent_pass writer;
                              limit_conn open_key 1; }
        location /open/tenant/ { auth_request /_auth; agent_pass writer;
                                 limit_conn open_tenant 1; }
        location = /status { agent_status; }
SERVER
on_record($nginx, $pg);

my (%key, %auth);
for (qw(a1:acme a2:acme b1:beta c1:)) {
    my ($name, $tenant) = split /:/;
    $key{$name} = $pg->psql("select agent.create_key('" . ($tenant // '')
                            . "', p_name => '$name')");
    $auth{$name} = { Authorization => "Bearer $key{$name}" };
}


sub get {
    my ($path, $name) = @_;
    return $nginx->get($path, headers => $name ? $auth{$name} : {});
}


# nginx knows a key that it has seen; the limits look at it before the check

sub warm {
    for my $name (@_ ? @_ : keys %key) {
        poll_until(sub { get('/free/tasks', $name)->{headers}{'x-key'} })
            or die "key $name is not known";
    }
}


sub refused {
    my ($r, $what) = @_;

    is($r->{status}, 429, "$what: 429") or diag $r->{body};
    is($r->{headers}{'content-type'}, 'application/json', "$what: JSON");
    like(eval { $r->{json}{message} } // '', qr/too many requests/,
        "$what: says why");
    cmp_ok($r->{headers}{'retry-after'} // 0, '>=', 1, "$what: Retry-After");
    is(scalar(grep { /^retry-after:/i } @{$r->{raw}}), 1, "$what: once");
}


sub statuses {
    my ($path, @names) = @_;
    return join ' ', map { get($path, $_)->{status} } @names;
}


warm();

# by key

is(statuses('/key/tasks', ('a1') x 5), '200 200 200 200 200',
    'by key: what is allowed');
refused(get('/key/tasks', 'a1'), 'by key');
is(get('/key/tasks', 'a2')->{status}, 200,
    'by key: another key of the tenant has its own limit');
is(get('/key/tasks', 'b1')->{status}, 200, 'by key: as has another tenant');
is(statuses('/key/tasks', (undef) x 7), join(' ', ('401') x 7),
    'by key: who has none is not counted');
refused($nginx->post('/key/tasks', { input => 'x' }, headers => $auth{a1}),
    'by key: POST');


# by tenant: its keys share the limit

is(statuses('/tenant/tasks', qw(a1 a2 a1 a2 a1)), '200 200 200 200 200',
    'by tenant: what is allowed');
refused(get('/tenant/tasks', 'a2'), 'by tenant, one key');
refused(get('/tenant/tasks', 'a1'), 'by tenant, the other');
is(get('/tenant/tasks', 'b1')->{status}, 200,
    'by tenant: another one is not touched');
is(statuses('/tenant/tasks', ('c1') x 7), join(' ', ('200') x 7),
    'by tenant: the default one has no name, and no limit');


# by address, for those who have no key that is known here

is(statuses('/both/tasks', (undef) x 5), '401 401 401 401 401',
    'by address: what is allowed');
refused(get('/both/tasks'), 'by address, no key');
refused($nginx->get('/both/tasks', headers => { Authorization => $_ }),
    "by address, $_")
    for 'Bearer ak_' . '0' x 64, 'Basic YTph', "Bearer x'y";
is(get('/both/tasks', 'b1')->{status}, 200,
    'by address: a good key from there comes in');
is(statuses('/both/tasks', ('a1') x 5), '200 200 200 200 200',
    'by tenant behind it: what is allowed');
refused(get('/both/tasks', 'a2'), 'by tenant behind it');


# requests at once

for my $by ('key', 'tenant') {
    my $task = $nginx->post('/free/tasks',
        { input => "held $by [[echo+hold]]" },
        headers => $auth{a1})->{json}{task_id};
    my $c = $nginx->connect;
    $c->send(method => 'POST', path => "/open/$by/tasks/$task/steps",
             body => {}, headers => $auth{a1});
    ok(poll_until(sub { $llm->stats->{held} == 1 }), "at once, $by: one");

    my $other = $by eq 'key' ? 'a1' : 'a2';
    refused(get("/open/$by/tasks", $other), "at once, $by");
    is(get("/open/$by/tasks", $by eq 'key' ? 'a2' : 'b1')->{status}, 200,
        "at once, $by: another one");

    $llm->release;
    is($c->answer->{status}, 200, "at once, $by: the first one ends");
    ok(poll_until(sub { get("/open/$by/tasks", 'a1')->{status} == 200 }),
        "at once, $by: then there is room");
}


# a request that is held back comes through whole

{
    my @wait = map {
        my $c = $nginx->connect;
        $c->send(method => 'POST', path => '/slow/tasks',
                 body => { input => "delayed $_" }, headers => $auth{a1});
        $c;
    } 1 .. 10;
    is(join(' ', map { $_->answer->{json}{input} } @wait),
        join(' ', map { "delayed $_" } 1 .. 10), 'delayed requests');
}


# other refusals by nginx, and who goes first

{
    my $r = $nginx->post('/body/tasks', { input => 'x' x 200 },
                         headers => $auth{a1});
    is($r->{status}, 413, 'a body that is too large: 413');
    is($r->{headers}{'content-type'}, 'application/json', 'as JSON');
    like($r->{json}{message}, qr/body is larger/, 'says why');
    is(get('/body/tasks', 'a1')->{status}, 200, 'which does not count');
    refused(get('/body/tasks', 'a1'), 'the next one');

    is(get('/own/tasks', 'a1')->{status}, 200, 'a page of the user: allowed');
    $r = get('/own/tasks', 'a1');
    is("$r->{status} $r->{body}", '429 slower', 'a page of the user: refused');
}

SKIP: {
    skip 'curl without HTTP/2', 4 if qx{curl -V} !~ /HTTP2/;
    my $curl = "curl -s --http2-prior-knowledge --max-time 20 -i "
               . "-H 'Authorization: Bearer $key{a1}' "
               . "http://127.0.0.1:$h2/h2/tasks";
    like(qx{$curl}, qr{^HTTP/2 200}, 'HTTP/2: allowed');
    my $said = qx{$curl};
    like($said, qr{^HTTP/2 429}, 'HTTP/2: refused');
    like($said, qr/^retry-after: 1\r$/m, 'HTTP/2: Retry-After');
    like($said, qr/^\{"message":"too many requests/m, 'HTTP/2: JSON');
}


# Strangers cost no database work.  What the module asks by itself meanwhile,
# for changed keys above all, is a few calls a second.

sub calls {
    my $r = $nginx->get('/status');
    my $sum = 0;
    my %db = %{$r->{json}{database} || {}};
    defined $db{$_} ? ($sum += $db{$_}) : fail("$_ in the status")
        for qw(reader_calls writer_calls);
    return $sum;
}


sub storm {
    my ($path, $status, $header) = @_;

    my ($calls, $began, %got) = (calls(), time);
    for (1 .. 100) {
        my $c = $nginx->connect;
        $c->raw(join '', map { my $h = $header->();
            "GET $path HTTP/1.1\r\nHost: x\r\n$h\r\n" } 1 .. 100);
        $got{$c->answer->{status}}++ for 1 .. 100;
        $c->close;
    }
    return (calls() - $calls, time - $began, \%got);
}

{
    my ($n, $seconds, $got) = storm('/free/tasks', 401, sub { '' });
    is_deeply($got, { 401 => 10000 }, '10,000 requests without a key');
    cmp_ok($n, '<=', 20 + 6 * $seconds, "cost $n calls");

    my $same = 'Authorization: Bearer ak_' . 'a' x 64 . "\r\n";
    ($n, $seconds, $got) = storm('/free/tasks', 401, sub { $same });
    is_deeply($got, { 401 => 10000 }, '10,000 with a key that is none');
    cmp_ok($n, '<=', 20 + 10 * $seconds, "cost $n calls");

    my $i = 0;
    ($n, $seconds, $got) = storm('/both/tasks', 429, sub {
        sprintf "Authorization: Bearer ak_%064x\r\n", ++$i });
    is_deeply($got, { 429 => 10000 },
        '10,000 with as many keys, over the limit of their address');
    cmp_ok($n, '<=', 20 + 6 * $seconds, "cost $n calls");

    ($n, $seconds, $got) = storm('/free/tasks', 401, sub {
        sprintf "Authorization: Bearer ak_%064x\r\n", ++$i });
    is(($got->{401} // 0) + ($got->{429} // 0), 10000,
        '10,000 with as many keys, and no such limit');
    cmp_ok($n, '<=', 520 * ($seconds + 2), "cost $n calls");
    cmp_ok($got->{401} // 0, '<=', 520 * ($seconds + 2), 'the others are 429');

    ok(poll_until(sub { get('/free/tasks', 'b1')->{status} == 200 }),
        'a good key comes in again');
}

my $log = $nginx->log_text;
ok(index($log, $key{$_}) < 0, "key $_ is not in the log") for sort keys %key;
$nginx->finish;
done_testing();
