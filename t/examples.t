#!/usr/bin/perl

# Every file of conf-examples/, and the configuration in the README, is
# started as it stands, but for addresses and paths, and is called: a task, its
# steps until the last, the artifact that the agent wrote.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;

use AgentTest;
use AgentTest::Container;

my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $root = $AgentTest::root;
my $dir = scratch();

my %left = map { $_ => 1 } map { m{([^/]+)$} } glob "$root/conf-examples/*";


# What differs between a production server and this test.  Each must be found
# in the file, so that no example is another one than it seems.

sub fit {
    my ($name, $text, %more) = @_;

    my %replace = (
        'load_module modules/ngx_http_agent_module.so;' => '',
        'user www-data;' => '',
        'error_log /var/log/nginx/error.log;' => '',
        'pid /run/nginx.pid;' => '',
        'access_log /var/log/nginx/access.log'
            => 'access_log %DIR%/logs/access.log',
        'listen 8080;' => 'listen 127.0.0.1:%PORT%;',
        '"host=/var/run/postgresql dbname=agent user=agent"'
            => '"' . $pg->conninfo . '"',
        'agent_artifacts /var/lib/nginx/agent;'
            => 'agent_artifacts %DIR%/artifacts;',
        'server 127.0.0.1:9000;' => 'server 127.0.0.1:' . $llm->port . ';',
        %more);

    for my $old (sort keys %replace) {
        next unless defined $replace{$old};
        my $n = $text =~ s/\Q$old\E/$replace{$old}/g;
        ok($n, "$name: has \"$old\"");
    }

    # in directives nothing of the real machine is left
    (my $bare = $text) =~ s/#.*//g;
    unlike($bare, qr{/var/l|/etc/|/run/nginx|:9000|example\.com:}, "$name: "
        . 'nothing else is bound to a machine');
    return $text;
}


sub example {
    my ($file, %more) = @_;

    delete $left{$file};
    my $text = read_file("$root/conf-examples/$file");
    ok(length $text, "$file is there") or return;

    my $nginx = AgentTest::Nginx->new(conf => fit($file, $text, %more));
    my ($code, $said) = $nginx->test_conf;
    unlike($said, qr/\[(?:warn|emerg)\]/, "$file: nginx -t has no warning");
    is($nginx->get('/llm/v1/models')->{status}, 404,
        "$file: the LLM is not open to clients");
    return $nginx;
}


# One whole task, by the scripted agent of the fake LLM.

sub whole_task {
    my ($name, $nginx, %o) = @_;

    my $at = $o{at} || '/ap/v1/agent';
    my @as = (headers => $o{headers});
    my $r = $nginx->post("$at/tasks", { input => 'Write it. [[demo]]',
        %{$o{body} || {}} }, @as);
    is($r->{status}, 200, "$name: a task") or diag($r->{body});
    my $id = $r->{json}{task_id} || 'none';

    my $steps = 0;
    while ($steps++ < 5) {
        $r = $nginx->post("$at/tasks/$id/steps", {}, @as);
        last if $r->{status} != 200 || $r->{json}{is_last};
    }
    is($r->{status}, 200, "$name: its steps") or diag($r->{body});
    is($r->{json}{status}, 'completed', "$name: the last one is completed");
    is($steps, 2, "$name: there are two");

    $r = $nginx->get("$at/tasks/$id/artifacts", @as);
    my $artifact = $r->{json}{artifacts}[0] || {};
    is($artifact->{file_name}, 'output.txt', "$name: the artifact");
    $r = $nginx->get("$at/tasks/$id/artifacts/"
                     . ($artifact->{artifact_id} || 'none'), @as);
    is($r->{body}, 'Washington', "$name: its bytes");
    return $id;
}


# minimal.conf

{
    my $nginx = example('minimal.conf');
    whole_task('minimal.conf', $nginx);
    my ($call) = $llm->calls('llama-3-70b');
    like($call->{messages}[0]{content}, qr/^You are a careful writer\. .*
                                           \nfinish|finish\ with/xs,
        'minimal.conf: the instructions reach the LLM');
    ok($nginx->reload, 'minimal.conf: reload');
    whole_task('minimal.conf, reloaded', $nginx);
    $nginx->finish;
}


# routing.conf

{
    my $nginx = example('routing.conf');
    my $at = '/ap/v1/agent/tasks';

    my $asked = sub {
        my ($input, $path, $body, $headers) = @_;
        my $r = $nginx->post($path, { input => "$input [[echo]]", %$body },
                             headers => $headers);
        return $r->{status} if $r->{status} != 200;
        $nginx->post("$at/$r->{json}{task_id}/steps", {});
        my ($call) = $llm->calls(quotemeta $input);
        return $call->{model};
    };

    whole_task('routing.conf', $nginx);
    is($asked->('by default', $at, {}), 'llama-3-70b',
        'routing.conf: the writer by default');
    is($asked->('by header', $at, {}, { 'X-Agent-ID' => 'reviewer' }),
        'llama-3-8b', 'routing.conf: an agent by header');
    is($asked->('by query', "$at?agent_id=reviewer", {}),
        'llama-3-8b', 'routing.conf: an agent by query');
    is($asked->('by body', $at,
                { additional_input => { agent_id => 'reviewer' } }),
        'llama-3-8b', 'routing.conf: an agent by the body');
    is($asked->('nobody', $at, {}, { 'X-Agent-ID' => 'nobody' }), 404,
        'routing.conf: an unknown agent');

    $nginx->stop;
    my @lines = map { decode($_) }
        split /\n/, read_file($nginx->dir . '/logs/access.log');
    my ($step) = grep { $_->{request} =~ m{/steps } && $_->{status} == 200 }
                 @lines;
    is($step->{step_status}, 'completed', 'routing.conf: a step in the log');
    is($step->{agent}, 'writer', 'routing.conf: its agent');
    cmp_ok($step->{tokens_out}, '>', 0, 'routing.conf: its tokens');
    cmp_ok($step->{tokens_in}, '>', 0, 'routing.conf: both ways');
    ok($step->{task} && $step->{step} && $step->{attempt},
        'routing.conf: its ids');
    my ($body) = grep { $_->{agent} eq 'reviewer'
                        && $_->{request} eq "POST $at HTTP/1.1" } @lines;
    ok($body, 'routing.conf: the agent named in a body, too');
    $nginx->finish;
}


# tls-llm.conf, with an nginx in front of the fake LLM that has the certificate
# and wants the key

SKIP: {
    skip 'no openssl', 1 if system('openssl version >/dev/null 2>&1');
    is(system("openssl req -new -x509 -days 2 -nodes -newkey rsa:2048 "
        . "-subj /CN=llm.example.com -addext subjectAltName=DNS:"
        . "llm.example.com -keyout $dir/llm.key -out $dir/llm.crt "
        . '>/dev/null 2>&1'), 0, 'tls-llm.conf: a certificate');

    my $front = AgentTest::Nginx->new(conf =>
        "events { }\nhttp {\n"
        . "server { listen 127.0.0.1:%PORT% ssl; server_name llm.example.com;"
        . " ssl_certificate $dir/llm.crt; ssl_certificate_key $dir/llm.key;\n"
        . 'if ($http_authorization != "Bearer right") { return 401; }'
        . ' if ($ssl_server_name != llm.example.com) { return 421; }'
        . ' if ($http_host != llm.example.com) { return 421; }'
        . " location / { proxy_pass http://127.0.0.1:" . $llm->port
        . "; proxy_buffering off; } } }\n");

    my $key = sub {
        write_file("$dir/key.conf",
                   "proxy_set_header Authorization \"Bearer $_[0]\";\n");
        chmod 0600, "$dir/key.conf";
    };

    $key->('right');
    my $nginx = example('tls-llm.conf',
        'server llm.example.com:443;'
            => 'server 127.0.0.1:' . $front->port . ';',
        'include                        /etc/nginx/agent-llm-key.conf;'
            => "include $dir/key.conf;",
        '/etc/ssl/certs/ca-certificates.crt' => "$dir/llm.crt",
        'server 127.0.0.1:9000;' => undef);
    whole_task('tls-llm.conf', $nginx);

    $key->('wrong-s3cret');
    ok($nginx->reload, 'tls-llm.conf: reload with another key');
    my $r = run_step($nginx, make_task($nginx, 'Hello [[echo]]'));
    is($r->{status}, 502, 'tls-llm.conf: a wrong key fails the step');
    like($r->{json}{message}, qr/401/, 'tls-llm.conf: and says why');
    unlike($nginx->log_text, qr/s3cret/, 'tls-llm.conf: the key is not logged');

    # a certificate that nobody vouches for
    my $text = $nginx->{conf};
    $text =~ s/proxy_ssl_name \s+ llm\.example\.com/proxy_ssl_name other.org/x;
    ok($nginx->reload($text), 'tls-llm.conf: reload with another name');
    $r = run_step($nginx, make_task($nginx, 'Hello [[echo]]'));
    is($r->{status}, 502, 'tls-llm.conf: a wrong certificate fails the step');

    $nginx->finish;
    $front->finish;
}


# An API key of a tenant, as the headers of a request.

sub key {
    my ($tenant, $more) = @_;
    my $key = $pg->psql("select agent.create_key('$tenant'" . ($more // '')
                        . ')');
    return { Authorization => "Bearer $key" };
}


# keys.conf

{
    my $nginx = example('keys.conf');
    my ($acme, $beta) = map { key($_) } qw(acme beta);
    my $reader = key('acme', ', p_read_only => true');
    my $at = '/ap/v1/agent/tasks';

    my $id = whole_task('keys.conf', $nginx, headers => $acme);
    is($nginx->get("$at/$id", headers => $reader)->{status}, 200,
        'keys.conf: another key of the tenant');
    is($nginx->get("$at/$id", headers => $beta)->{status}, 404,
        'keys.conf: a key of another tenant');
    is($nginx->post($at, { input => 'x' }, headers => $reader)->{status}, 403,
        'keys.conf: a key that may only read');

    my $r = $nginx->get($at);
    is($r->{status}, 401, 'keys.conf: no key');
    like($r->{headers}{'www-authenticate'}, qr/^Bearer /, 'keys.conf: which');
    ok($r->{json}{message}, 'keys.conf: a message');
    is($nginx->get('/_auth', headers => $acme)->{status}, 404,
        'keys.conf: the check is not for clients');

    $nginx->stop;
    my $log = read_file($nginx->dir . '/logs/access.log');
    my ($line) = map { decode($_) } grep { /POST $at HTTP/ } split /\n/, $log;
    is($line->{tenant}, 'acme', 'keys.conf: the tenant in the log');
    like($line->{key}, qr/^[0-9a-f-]{36}$/, 'keys.conf: the id of the key');
    unlike($log, qr/ak_/, 'keys.conf: and never the key');
    $nginx->finish;
}


# oauth.conf, with a service that knows two users

{
    my $service = AgentTest::Nginx->new(conf => "events { }\nhttp {\n"
        . 'map $http_cookie $user { "s=1" ann; "s=2" bob; }'
        . ' map $http_cookie $ok { "~^s=" 1; }'
        . ' server { listen 127.0.0.1:%PORT%; location / { return 403; }'
        . ' location = /oauth2/sign_in { return 200 "sign in"; }'
        . ' location = /oauth2/auth {'
        . ' add_header X-Auth-Request-User $user always;'
        . ' if ($ok = "") { return 401; } return 202; } } }' . "\n");
    my $nginx = example('oauth.conf', 'http://127.0.0.1:4180;'
                            => 'http://127.0.0.1:' . $service->port . ';');
    my ($ann, $bob, $nobody) = map { { Cookie => "s=$_" } } 1 .. 3;
    my $at = '/ap/v1/agent/tasks';

    my $id = whole_task('oauth.conf', $nginx, headers => $ann);
    is($nginx->get("$at/$id", headers => $bob)->{status}, 404,
        'oauth.conf: another user');
    is($nginx->get($at, headers => $bob)->{json}{pagination}{total_items}, 0,
        'oauth.conf: who has none');
    is($nginx->get("$at/$id", headers => { %$bob,
        'X-Auth-Request-User' => 'ann' })->{status}, 404,
        'oauth.conf: who says to be another');
    my $r = $nginx->get($at, headers => $nobody);
    is($r->{status}, 403, 'oauth.conf: let through without a name');
    ok($r->{json}{message}, 'oauth.conf: is told so');
    $r = $nginx->get($at);
    is($r->{status}, 401, 'oauth.conf: not let through');
    ok($r->{json}{message}, 'oauth.conf: is told so, too');
    is($nginx->get('/oauth2/sign_in')->{body}, 'sign in',
        'oauth.conf: the service itself');
    $_->finish for $nginx, $service;
}


# rate-limit.conf

{
    my $nginx = example('rate-limit.conf');
    my $at = '/ap/v1/agent/tasks';
    my ($one, $two, $other) = map { key($_) } qw(one one other);
    whole_task('rate-limit.conf', $nginx, headers => $one);

    my $burst = sub {
        my (%count, $refused);
        for (1 .. 30) {
            my $r = $nginx->get($at, headers => $_[0]);
            $count{$r->{status}}++;
            $refused = $r if $r->{status} == 429;
        }
        return (\%count, $refused || { headers => {} });
    };

    for (['a key', $one, 200], ['no key', {}, 401]) {
        my ($what, $headers, $good) = @$_;
        my ($count, $r) = $burst->($headers);
        cmp_ok($count->{$good} || 0, '>=', 3,
            "rate-limit.conf, $what: some are let in");
        cmp_ok($count->{429} || 0, '>=', 5,
            "rate-limit.conf, $what: more is 429");
        like($r->{headers}{'content-type'}, qr{^application/json},
            "rate-limit.conf, $what: as JSON");
        ok($r->{json}{message}, "rate-limit.conf, $what: with a message");
        ok($r->{headers}{'retry-after'},
            "rate-limit.conf, $what: and Retry-After");
    }

    # nginx must have seen a key to tell it from a stranger's
    for ([$two, 'another key'], [$other, 'another tenant']) {
        ok(poll_until(sub {
            $nginx->get($at, headers => $_->[0])->{status} == 200
        }), "rate-limit.conf: $_->[1] has its own limit");
    }
    $nginx->finish;
}


# two-prefixes.conf

{
    my $nginx = example('two-prefixes.conf');
    whole_task("two-prefixes.conf, $_", $nginx, at => $_)
        for '/ap/v1/agent', '/agent';

    my $id = make_task($nginx, 'Which? [[ask:Which one?]]');
    my $r = run_step($nginx, $id);
    is($r->{json}{status}, 'waiting_for_input',
        'two-prefixes.conf: a question has a status of its own');
    my $step = $r->{json}{step_id};
    $r = $nginx->get("/agent/tasks/$id/steps/$step");
    is($r->{json}{status}, 'completed',
        'two-prefixes.conf: but not for the older clients');
    ok($r->{json}{additional_input_needed}
       || $r->{json}{output} =~ /Which one/,
        'two-prefixes.conf: which see the question');
    $nginx->finish;
}

# auto.conf

{
    my $nginx = example('auto.conf');
    my $id = make_task($nginx, 'Write it. [[demo]]');
    my $steps;
    ok(poll_until(sub {
        $steps = $nginx->get("/ap/v1/agent/tasks/$id/steps")->{json}{steps};
        @{$steps || []} && $steps->[-1]{is_last};
    }), 'auto.conf: the task is done by itself');
    is(scalar @$steps, 2, 'auto.conf: in two steps');
    is($nginx->get("/ap/v1/agent/tasks/$id/artifacts")
        ->{json}{artifacts}[0]{file_name}, 'output.txt',
        'auto.conf: its artifact');

    my $r = $nginx->get('/status');
    is($r->{status}, 200, 'auto.conf: the status');
    ok(ref $r->{json}, 'auto.conf: is JSON') or diag($r->{body});
    $r = $nginx->get('/status?format=prometheus');
    like($r->{headers}{'content-type'}, qr{^text/plain; version=0\.0\.4},
        'auto.conf: or for Prometheus');
    like($r->{body}, qr/^# TYPE agent_\w+ counter$/m,
        'auto.conf: in its own words');
    $nginx->finish;
}


# containers.conf, with two fake ones: one by TCP, one by a Unix socket

{
    my @two = map { AgentTest::Container->new(name => $_, unix => 1) }
              qw(tcp unix);
    my $nginx = example('containers.conf',
        'server 127.0.0.1:8001;' => 'server 127.0.0.1:' . $two[0]->port . ';',
        'server unix:/run/agents/coder.sock;'
            => 'server unix:' . $two[1]->socket . ';',
        'server 127.0.0.1:9000;' => undef);
    is($nginx->get('/coders/ap/v1/agent/tasks')->{status}, 404,
        'containers.conf: the containers are not open to clients');

    my %seen;
    for my $n (1 .. 40) {
        my $id = make_task($nginx, 'Hello');
        my %by;
        for (1 .. 2) {
            my $r = run_step($nginx, $id, { input => 'x' });
            is($r->{status}, 200, "containers.conf: step $_ of task $n")
                or diag($r->{body});
            $by{$r->{json}{additional_output}{container} // 'none'}++;
        }
        is(scalar keys %by, 1, 'containers.conf: both by one container');
        $seen{$_}++ for keys %by;
        last if keys %seen == 2;
    }
    is(join(' ', sort keys %seen), 'tcp unix',
        'containers.conf: tasks go to both');

    my $r = run_step($nginx, make_task($nginx, 'Hello'), { input => 'x',
        additional_input => { do => { files => [
            { name => 'a.txt', content => 'a' }] } } });
    is($r->{json}{artifacts}[0]{file_name}, 'a.txt',
        'containers.conf: an artifact');
    $nginx->finish;
}


# split-accept.conf and split-execute.conf: what the one accepts waits for the
# other

{
    my @both = ('agent_artifacts /var/lib/nginx/agent;'
                    => "agent_artifacts $dir/shared;");
    my $accept = example('split-accept.conf', @both,
                         'server 127.0.0.1:9000;' => undef);
    my $id = make_task($accept, 'Hello [[echo]]');
    my $at = "/ap/v1/agent/tasks/$id/steps";
    my $r = $accept->post($at, {}, headers => { Prefer => 'respond-async' });
    is($r->{status}, 202, 'split-accept.conf: a step is taken');
    my $place = $r->{headers}{location} // '';
    $r = $accept->get($place);
    is($r->{json}{status}, 'created', 'split-accept.conf: and queued');
    ok($r->{json}{run}{queued}, 'split-accept.conf: as it says');

    my $execute = example('split-execute.conf', @both, 'listen 8080;' => undef,
        'listen 127.0.0.1:8081;' => 'listen 127.0.0.1:%PORT%;');
    ok(poll_until(sub {
        $accept->get($place)->{json}{status} eq 'completed'
    }), 'split-execute.conf: runs it');
    whole_task('split-accept.conf', $accept);
    is($execute->get('/status')->{status}, 200, 'split-execute.conf: status');
    is($execute->get('/ap/v1/agent/tasks')->{status}, 404,
        'split-execute.conf: serves no agent');
    $_->finish for $accept, $execute;
}


# failover.conf, its first host down

{
    my $nginx = example('failover.conf',
        'host=pg1.example.com,pg2.example.com' => 'host=127.0.0.1,127.0.0.1',
        'port=5432,5432' => 'port=' . free_port() . ",$pg->{port}",
        'dbname=agent user=agent' => "dbname=$pg->{name} user=agent",
        '"host=/var/run/postgresql dbname=agent user=agent"' => undef);
    whole_task('failover.conf', $nginx);
    $nginx->finish;
}

is(join(' ', sort keys %left), '', 'every example was called');


# the one in the README

{
    my ($text) = read_file("$root/README.md")
        =~ /^```nginx\n(load_module .*?)^```$/ms;
    ok($text, 'README.md has a configuration');

    my %not = map { $_ => undef } 'user www-data;', 'pid /run/nginx.pid;',
        'error_log /var/log/nginx/error.log;', 'server 127.0.0.1:9000;',
        'access_log /var/log/nginx/access.log',
        '"host=/var/run/postgresql dbname=agent user=agent"';
    my $nginx = AgentTest::Nginx->new(conf => "events { }\n"
        . fit('README.md', $text, %not,
              '"host=127.0.0.1 dbname=agent user=agent"'
                  => '"' . $pg->conninfo . '"',
              'http://127.0.0.1:9000/'
                  => 'http://127.0.0.1:' . $llm->port . '/'));
    whole_task('README.md', $nginx);
    $nginx->finish;
}

done_testing();
