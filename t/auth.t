#!/usr/bin/perl

# API keys over HTTP: who gets in and what the others are told, behind
# auth_request and directly; what a key is limited to, in both directions; how
# soon a change is known on every worker of every nginx, also where no news
# are heard; what it costs the database; other authentication services.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $pg = AgentTest::Postgres->new(private => 1);
my $llm = AgentTest::LLM->new;
my $folder = scratch() . '/artifacts';
mkdir $folder;
chmod 0777, $folder;

my $http = <<'END';
    agent_auth_zone keys:1m;
    keepalive_requests 1000000;
    client_header_buffer_size 64k;
    log_format keys "$status [$agent_tenant] [$agent_key] $request_uri";
    access_log %DIR%/keys.log keys;
    add_header X-Pid $pid always;
END

my $server = <<'END';
        location = /_auth { internal; agent_auth; }
        location = /check { agent_auth; }
        location = /status { agent_status; }

        location /k/ { auth_request /_auth; agent_pass $agent_id; }
        location /named/ { auth_request /_auth; try_files /no/file @agents; }
        location @agents { agent_pass writer; }
        location /page/ {
            auth_request /_auth;
            error_page 401 403 @page;
            agent_pass writer;
        }
        location @page { return 418 "a page of the user's"; }

        location /proxied/ {
            auth_request /_auth;
            proxy_pass http://127.0.0.1:%PORT%/back/;
            proxy_set_header X-Tenant $agent_tenant;
            proxy_set_header X-Key $agent_key;
        }
        location /back/ { return 200 "$http_x_tenant $http_x_key"; }

        location /named-by/ {
            add_header X-Named "<$agent_id>";
            return 200 "";
        }
        location /asked/ {
            mirror /k/tasks;
            proxy_pass http://127.0.0.1:%PORT%/back/;
        }

        location /oauth/ {
            auth_request /_oauth;
            auth_request_set $org $upstream_http_x_org;
            agent_tenant $org;
            agent_pass writer;
        }
        location = /_oauth {
            internal;
            proxy_pass http://127.0.0.1:%PORT%/idp;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
        }
        location = /idp {
            if ($http_authorization = "Bearer jwt.of.one") {
                add_header X-Org one;
                return 204;
            }
            if ($http_authorization = "Bearer jwt.of.nobody") { return 204; }
            return 401;
        }
END

my %conf = (pg => $pg, llm => $llm, artifacts => $folder, workers => 2,
            agents => { coder => 'description "writes code"; model m-1;',
                        idle => 'description "x \"y\""; model "";' },
            http => $http, server => $server);
my $nginx = AgentTest::Nginx->new(conf => conf(%conf));
my $second = AgentTest::Nginx->new(conf => conf(%conf));
my $deaf = AgentTest::Nginx->new(conf => conf(%conf,
                                              db_opt => 'prepared=off'));
my $unknown = '01890a5d-ac96-774b-bcce-b302099a8057';


sub make_key {
    my ($args) = @_;
    return $pg->psql("select agent.create_key($args)");
}

sub id_of {
    my ($key) = @_;
    return $pg->psql('select key_id from agent.api_key where hash = '
                     . "sha256('$key')");
}

sub ask {
    my ($key, $method, $path, %o) = @_;
    my $at = delete $o{at} || $nginx;
    $o{headers} = { %{$o{headers} || {}},
                    defined $key ? (Authorization => "Bearer $key") : () };
    return $at->request(method => $method, path => $path, %o);
}

sub file {
    return (headers => { 'Content-Type' => 'multipart/form-data; boundary=b' },
            body => "--b\r\nContent-Disposition: form-data; name=\"file\"; "
                    . "filename=\"f\"\r\n\r\nx\r\n--b--\r\n");
}

sub calls {
    my $d = $nginx->get('/status')->{json}{database};
    return $d->{reader_calls} + $d->{writer_calls};
}

sub tasks_of {
    my ($tenant) = @_;
    return $pg->psql("select count(*) from agent.task where tenant = "
                     . "'$tenant'");
}

sub agent_id { return (headers => { 'X-Agent-ID' => $_[0] }) }


# Many requests on one connection, without waiting for each answer; gives
# their answers.

sub pipeline {
    my ($path, @values) = @_;

    my @answers;
    my $c = $nginx->connect;
    while (my @some = splice @values, 0, 200) {
        $c->raw(join '', map { AgentTest::Http::text(path => $path,
            headers => { Authorization => $_ }) } @some);
        push @answers, map { $c->answer } @some;
    }
    $c->close;
    return @answers;
}


# who is told what

my $good = make_key("'acme', p_name => 'good'");
like($good, qr/^ak_[0-9a-f]{64}$/, 'a key');

my %challenge = (
    missing => 'Bearer realm="agent"',
    malformed => 'Bearer realm="agent", error="invalid_token", '
                 . 'error_description="the token is malformed"',
    unknown => 'Bearer realm="agent", error="invalid_token", '
               . 'error_description="the key is unknown, revoked or expired"',
    read_only => 'Bearer realm="agent", error="insufficient_scope", '
                 . 'error_description="the key may only read"',
    agent => 'Bearer realm="agent", error="insufficient_scope", '
             . 'error_description="the key is not for this agent"',
);

my %message = (
    missing => qr/^an API key is needed; send it in the header/,
    malformed => qr/^the header Authorization is malformed; send/,
    unknown => qr/^the API key is unknown, revoked or expired; send/,
    read_only => qr/^this API key may only read; send/,
    agent => qr/^this API key is not for the agent "\w+"; list/,
);

sub is_refused {
    my ($r, $status, $why, $name) = @_;
    is($r->{status}, $status, "$name: $status") or diag $r->{body};
    is($r->{headers}{'www-authenticate'}, $challenge{$why},
       "$name: challenge");
    is(scalar(grep { /^www-authenticate:/i } @{$r->{raw}}), 1,
       "$name: once");
    like($r->{json}{message}, $message{$why}, "$name: in words");
    is($r->{headers}{'content-type'}, 'application/json', "$name: JSON");
}

{
    my $late = make_key("'acme', p_expires => now() - interval '1 s'");
    my $over = make_key("'acme'");
    $pg->psql("select agent.revoke_key('" . id_of($over) . "')");

    my @bad = (
        [ 'no header', undef, 'missing' ],
        [ 'empty', '', 'missing' ],
        [ 'another scheme', 'Basic YTpi', 'missing' ],
        [ 'no token', 'Bearer', 'malformed' ],
        [ 'two tokens', "Bearer $good x", 'malformed' ],
        [ 'quoted', "Bearer \"$good\"", 'malformed' ],
        [ 'a comma', "Bearer $good,", 'malformed' ],
        [ 'no ASCII', "Bearer caf\xc3\xa9", 'malformed' ],
        [ '1025 bytes', 'Bearer ' . 'x' x 1025, 'malformed' ],
        [ '1024 bytes', 'Bearer ' . 'x' x 1024, 'unknown' ],
        [ 'unknown', 'Bearer ak_' . '0' x 64, 'unknown' ],
        [ 'cut', 'Bearer ' . substr($good, 0, -1), 'unknown' ],
        [ 'longer', "Bearer ${good}0", 'unknown' ],
        [ 'the hash', 'Bearer ' . $pg->psql(
              "select encode(sha256('$good'), 'hex')"), 'unknown' ],
        [ 'the id', 'Bearer ' . id_of($good), 'unknown' ],
        [ 'SQL', "Bearer ak_'or'1'='1", 'malformed' ],
        [ 'expired', "Bearer $late", 'unknown' ],
        [ 'revoked', "Bearer $over", 'unknown' ],
    );

    for my $bad (@bad) {
        my ($name, $value, $why) = @$bad;
        my @header = (headers => { Authorization => $value });
        for my $path ('/k/tasks', '/check', "/k/tasks/$unknown") {
            is_refused($nginx->get($path, @header), 401, $why,
                       "$name, $path");
        }
        is_refused($nginx->post('/k/tasks', {}, @header), 401, $why,
                   "$name, POST");
        my $r = $nginx->request(method => 'HEAD', path => '/k/tasks', @header);
        is($r->{status}, 401, "$name, HEAD");
        is($r->{headers}{'www-authenticate'}, $challenge{$why},
           "$name, HEAD: challenge");
    }

    is($pg->psql('select count(*) from agent.task'), 0, 'nothing was made');
}

{
    my $r = ask($good, 'POST', '/k/tasks', body => {}, agent_id('writer'));
    is($r->{status}, 200, 'a good key');
    is($pg->psql("select tenant from agent.task where task_id = "
                 . "'$r->{json}{task_id}'"), 'acme', 'gives its tenant');
    is($r->{headers}{'www-authenticate'}, undef, 'and no challenge');

    for my $scheme ('bearer', 'BEARER', 'bEaReR', 'Bearer ') {
        $r = $nginx->get('/k/tasks', headers =>
                         { Authorization => "$scheme $good" });
        is($r->{status}, 200, "the scheme as \"$scheme\"");
    }

    $r = ask($good, 'GET', '/check');
    is($r->{status}, 204, 'directly: 204');
    is($r->{body}, '', 'with nothing in it');
    is(ask($good, 'POST', '/check', body => 'x' x 100000)->{status}, 204,
       'and the body is passed over');

    # a refused body is no trouble for what comes next on the connection

    my $c = $nginx->connect;
    for my $key ('ak_no', $good) {
        $c->send(method => 'POST', path => '/k/tasks', headers =>
                 { Authorization => "Bearer $key", 'X-Agent-ID' => 'writer',
                   'Content-Type' => 'application/json' },
                 body => '{"input": "' . 'x' x 200000 . '"}');
        is($c->answer->{status}, $key eq $good ? 200 : 401,
           'a large body, one connection');
    }
    $c->close;
}


# read-only

{
    my $reader = make_key("'acme', p_read_only => true");
    my $r = ask($good, 'POST', '/k/tasks', body => {}, agent_id('writer'));
    my $task = $r->{json}{task_id};
    my $before = tasks_of('acme');

    for my $path ('tasks', "tasks/$task", "tasks/$task/steps", 'agents',
                  "tasks/$task/artifacts")
    {
        is(ask($reader, $_, "/k/$path")->{status}, 200, "read-only: $_ $path")
            for qw(GET HEAD);
    }
    is(ask($reader, 'OPTIONS', '/k/tasks')->{status}, 405,
       'read-only: OPTIONS is not the key\'s matter');

    for my $try (['POST', 'tasks'], ['POST', "tasks/$task/steps"],
                 ['POST', "tasks/$task/cancel"], ['DELETE', "tasks/$task"],
                 ['POST', "tasks/$task/artifacts"], ['PUT', 'tasks'],
                 ['PATCH', "tasks/$task"])
    {
        my ($method, $path) = @$try;
        $r = ask($reader, $method, "/k/$path",
                 $path =~ /artifacts/ ? file() : (body => {}));
        is_refused($r, 403, 'read_only', "read-only: $method $path");
    }
    is_refused(ask($reader, 'POST', '/check', body => ''), 403, 'read_only',
               'read-only: directly');
    is(ask($reader, 'GET', '/check')->{status}, 204, 'read-only: GET');
    is(tasks_of('acme'), $before, 'read-only: all is as it was');
    is(ask($good, 'DELETE', "/k/tasks/$task")->{status}, 200,
       'another key of the tenant may');
}


# limited to agents

{
    my $full = make_key("'lim'");
    my $key = make_key("'lim', p_agents => '{writer}'");
    my $none = make_key("'lim', p_agents => '{}'");
    my (%task, %step, %artifact, %stranger);

    for my $agent (qw(writer coder)) {
        for (1 .. 3) {
            my $r = ask($full, 'POST', '/k/tasks', body => {},
                        agent_id($agent));
            is($r->{status}, 200, "a task of $agent");
            push @{$task{$agent}}, $r->{json}{task_id};
        }
        my $t = $task{$agent}[0];
        $step{$agent} = ask($full, 'POST', "/k/tasks/$t/steps",
                            body => { input => 'x' })->{json}{step_id};
        $artifact{$agent} = ask($full, 'POST', "/k/tasks/$t/artifacts",
                                file())->{json}{artifact_id};
    }
    $stranger{task_id} = ask($good, 'POST', '/k/tasks', body => {},
                             agent_id('writer'))->{json}{task_id};

    is(ask($key, 'POST', '/k/tasks', body => {}, agent_id('writer'))
       ->{status}, 200, 'a new task of its agent');
    my $before = tasks_of('lim');
    my $r = ask($key, 'POST', '/k/tasks', body => {}, agent_id('coder'));
    is_refused($r, 403, 'agent', 'a new task of another');
    like($r->{json}{message}, qr/"coder"/, 'which is named');
    is_refused(ask($none, 'POST', '/k/tasks', body => {}, agent_id('writer')),
               403, 'agent', 'a key for no agent');
    is(ask($key, 'POST', '/k/tasks', body => {}, agent_id('nosuch'))
       ->{status}, 404, 'an unknown agent is a 404 all the same');
    is(tasks_of('lim'), $before, 'nothing was made');

    # below a task: its own, another agent's, nobody's, another tenant's

    my @walk = map { [split / /] } (
        'GET tasks/{task}', 'GET tasks/{task}/steps',
        'GET tasks/{task}/steps/{step}',
        'GET tasks/{task}/steps/{step}/trace', 'GET tasks/{task}/artifacts',
        'GET tasks/{task}/artifacts/{artifact}',
        'HEAD tasks/{task}/artifacts/{artifact}', 'POST tasks/{task}/steps',
        'POST tasks/{task}/artifacts', 'POST tasks/{task}/steps/{step}/cancel',
        'POST tasks/{task}/cancel', 'DELETE tasks/{task}');

    my $rows = 'select md5(string_agg(s::text, \' \' order by s::text)) from '
               . '(select task_id::text from agent.task where agent = '
               . '\'coder\' union all select step_id::text || status from '
               . 'agent.step where task_id in (select task_id from agent.task '
               . 'where agent = \'coder\') union all select artifact_id::text '
               . 'from agent.artifact where task_id in (select task_id from '
               . 'agent.task where agent = \'coder\')) t(s)';
    $before = $pg->psql($rows);

    for my $try (@walk) {
        my ($method, $path) = @$try;
        my @body = $path =~ /artifacts$/ && $method eq 'POST' ? file()
                 : $method eq 'POST' ? (body => {}) : ();
        my $call = sub {
            my ($who, $task, $agent) = @_;
            my $p = $path =~ s/\{task\}/$task/r =~ s/\{step\}/$step{$agent}/r
                          =~ s/\{artifact\}/$artifact{$agent}/r;
            return ask($who, $method, "/k/$p", @body);
        };

        my $r = $call->($key, $task{coder}[0], 'coder');
        if ($method eq 'HEAD') {
            is($r->{status}, 403, "$method $path of another agent");
        } else {
            is_refused($r, 403, 'agent', "$method $path of another agent");
        }
        is($call->($none, $task{writer}[0], 'writer')->{status}, 403,
           "$method $path with a key for none");
        is($call->($key, $unknown, 'writer')->{status}, 404,
           "$method $path of nobody");
        is($call->($key, $stranger{task_id}, 'writer')->{status}, 404,
           "$method $path of another tenant");
        is($call->($key, $task{writer}[0], 'writer')->{status}, 200,
           "$method $path of its own agent");
    }
    is($pg->psql($rows), $before, 'the other agent has what it had');
    is(ask($full, 'GET', "/k/tasks/$task{coder}[0]")->{status}, 200,
       'the full key may');

    # lists

    my @mine = split /\n/, $pg->psql("select task_id from agent.task where "
               . "tenant = 'lim' and agent = 'writer' order by task_id");
    is(scalar @mine, 3, 'what there is');
    for my $order (qw(asc desc)) {
        my @got;
        for my $page (1 .. 3) {
            my $r = ask($key, 'GET', "/k/tasks?page_size=2&current_page=$page"
                                     . "&order=$order");
            is($r->{json}{pagination}{total_items}, 3, "the total, $order");
            push @got, map { $_->{task_id} } @{$r->{json}{tasks}};
        }
        is_deeply(\@got, [$order eq 'asc' ? @mine : reverse @mine],
                  "tasks of its agent only, $order");
    }
    is(ask($full, 'GET', '/k/tasks')->{json}{pagination}{total_items}, 6,
       'the full key has them all');
    is(ask($none, 'GET', '/k/tasks')->{json}{pagination}{total_items}, 0,
       'the one for none has none');

    my $two = make_key("'lim', p_agents => '{coder,writer}'");
    is(ask($two, 'GET', '/k/tasks')->{json}{pagination}{total_items}, 6,
       'one for two agents has those of both');

    # which agents there are

    is_deeply(ask($full, 'GET', '/k/agents')->{json}, { agents => [
        { name => 'coder', description => 'writes code', model => 'm-1',
          dialect => 'openai' },
        { name => 'idle', description => 'x "y"', model => undef,
          dialect => 'openai' },
        { name => 'writer', description => undef, model => 'echo',
          dialect => 'openai' } ] }, 'GET agents');
    is_deeply([map { $_->{name} } @{ask($key, 'GET', '/k/agents')
                                    ->{json}{agents}}], ['writer'],
              'GET agents with a limited key');
    is_deeply(ask($none, 'GET', '/k/agents')->{json}, { agents => [] },
              'GET agents with a key for none');
    is_deeply([map { $_->{name} } @{$nginx->get('/agent/agents')
                                    ->{json}{agents}}],
              [qw(coder idle writer)], 'GET agents where no key is asked for');

    # a change is known soon

    my $changed = sub {
        my ($sql, $path, $status, $name) = @_;
        $pg->psql("select agent.limit_key('" . id_of($key) . "', $sql)");
        ok(poll_until(sub {
            ask($key, 'POST', $path, body => {}, agent_id('coder'))->{status}
                == $status
        }, 5), $name);
    };
    $changed->("'{coder}', false, null", '/k/tasks', 200,
               'limit_key: another agent');
    $changed->("null, true, null", '/k/tasks', 403, 'limit_key: read-only');
    $changed->("null, false, null", '/k/tasks', 200, 'limit_key: no limits');
    $changed->("null, false, now()", '/k/tasks', 401, 'limit_key: expired');
}


# expiry, to the second

{
    my $key = make_key("'acme', p_expires => now() + interval '1.5 s'");
    is(ask($key, 'GET', '/check')->{status}, 204, 'before it expires');
    ok(poll_until(sub { ask($key, 'GET', '/check')->{status} == 401 }, 5),
       'and then it does, with nobody telling');
    is($pg->psql('select expires_at <= now() from agent.api_key where hash = '
                 . "sha256('$key')"), 't', 'not before its time');
}


# revoked: on every worker of every nginx, with news or without

{
    my $key = make_key("'acme'");
    my @all = ([ one => $nginx ], [ two => $second ], [ deaf => $deaf ]);
    my %pids;

    for my $at (@all) {
        my ($name, $n) = @$at;
        my $r;
        ok(poll_until(sub {
            $r = ask($key, 'GET', '/check', at => $n);
            $pids{$name}{$r->{headers}{'x-pid'}} = 1 if $r->{status} == 204;
            keys %{$pids{$name} || {}} == 2;
        }, 20), "$name: both workers have let it in");
    }

    $pg->psql("select agent.revoke_key('" . id_of($key) . "')");
    my $end = time + 1;
    my %refused;

    for my $at (@all) {
        my ($name, $n) = @$at;
        ok(poll_until(sub {
            my $now = time;
            my $r = ask($key, 'GET', '/check', at => $n);
            # what was asked after a second is refused, and for good
            fail("$name: let in after a second")
                if $r->{status} == 204 && $now > $end;
            $refused{$name}{$r->{headers}{'x-pid'}} = 1
                if $r->{status} == 401;
            keys %{$refused{$name} || {}} == 2 && time > $end;
        }, 20), "$name: both workers refuse it");
    }
}


# one that is made after it was tried

{
    for my $at ([ hears => $nginx ], [ deaf => $deaf ]) {
        my ($name, $n) = @$at;
        my $key = "chosen-by-the-operator-$name";
        is(ask($key, 'GET', '/check', at => $n)->{status}, 401,
           "$name: not yet there");
        $pg->psql("insert into agent.api_key (hash, tenant, hint) values "
                  . "(sha256('$key'), 'acme', 'chosen')");
        ok(poll_until(sub {
            ask($key, 'GET', '/check', at => $n)->{status} == 204
        }, 5), "$name: now it is");
    }
}


# what it costs

{
    ask($good, 'GET', '/check') for 1 .. 8;
    my ($before, $start) = (calls(), time);
    my @r = pipeline('/check', ("Bearer $good") x 3000);
    is(scalar(grep { $_->{status} == 204 } @r), 3000, '3000 with a warm key');
    cmp_ok(calls() - $before, '<', 20 + 20 * (time - $start),
           'no call for each');

    ($before, $start) = (calls(), time);
    @r = pipeline('/k/tasks', (map { [undef, 'Basic YQ==', 'Bearer a b']
                                     ->[$_ % 3] } 1 .. 10000));
    is(scalar(grep { $_->{status} == 401 } @r), 10000, '10000 without one');
    cmp_ok(calls() - $before, '<', 100 + 20 * (time - $start),
           'nor for those');

    ($before, $start) = (calls(), time);
    @r = pipeline('/check', ('Bearer same-unknown') x 2000);
    is(scalar(grep { $_->{status} == 401 } @r), 2000, '2000 of one unknown');
    cmp_ok(calls() - $before, '<', 100 + 20 * (time - $start), 'nor there');

    # guessing

    ($before, $start) = (calls(), time);
    @r = map { pipeline('/k/tasks', map { 'Bearer ak_' . int rand 1e15 }
                                    1 .. 2000) } 1 .. 2;
    my $spent = time - $start;
    is(scalar(grep { $_->{status} == 401 || $_->{status} == 429 } @r), 4000,
       '4000 random ones: 401 or 429');
    cmp_ok(calls() - $before, '<=', 500 * ($spent + 2) + 20 * $spent + 20,
           'the database sees no more than the budget');
    is(ask($good, 'GET', '/check')->{status}, 204,
       'a good key that is known gets in all the while');

    my ($busy) = grep { $_->{status} == 429 } @r;
    SKIP: {
        skip 'this machine is too slow to guess faster', 3 unless $busy;
        is($busy->{headers}{'retry-after'}, 1, '429: Retry-After');
        like($busy->{json}{message}, qr/^too many unknown API keys/,
             '429: in words');
        is($busy->{headers}{'www-authenticate'}, undef, '429: no challenge');
    }
    ok(poll_until(sub {
        ask('ak_' . int rand 1e15, 'GET', '/check')->{status} == 401
    }, 5), 'and then it is asked again');
}


# other locations, redirects, pages of the user's

{
    my $r = ask($good, 'GET', '/proxied/x');
    is($r->{body}, 'acme ' . id_of($good), 'in front of proxy_pass');
    is_refused($nginx->get('/proxied/x'), 401, 'missing', 'there without one');
    my $reader = make_key("'acme', p_read_only => true");
    is_refused(ask($reader, 'POST', '/proxied/x', body => ''), 403,
               'read_only', 'there with one that may only read');

    $r = ask($good, 'POST', '/named/tasks', body => {});
    is($r->{status}, 200, 'through a named location');
    is($pg->psql("select tenant from agent.task where task_id = "
                 . "'$r->{json}{task_id}'"), 'acme', 'the key is not lost');
    is_refused($nginx->get('/named/tasks'), 401, 'missing',
               'nor is the refusal');

    for my $try ([undef, 'GET'], ['ak_x', 'GET'], [$reader, 'POST']) {
        $r = ask(@$try, '/page/tasks', $try->[1] eq 'POST' ? (body => {})
                                                           : ());
        is($r->{body}, "a page of the user's", 'error_page goes first');
    }
    is(ask($good, 'GET', '/page/tasks')->{status}, 200, 'and gives way');

    $r = ask('jwt.of.one', 'POST', '/oauth/tasks', body => {});
    is($r->{status}, 200, 'another authentication service');
    is($pg->psql("select tenant from agent.task where task_id = "
                 . "'$r->{json}{task_id}'"), 'one', 'names the tenant');
    is(ask('jwt.of.nobody', 'GET', '/oauth/tasks')->{status}, 403,
       'who has no tenant is refused');
    is(ask('jwt.forged', 'GET', '/oauth/tasks')->{status}, 401,
       'and who is not known');
    is(ask('jwt.of.one', 'GET', '/oauth/tasks', headers =>
           { 'X-Org' => 'acme' })->{json}{pagination}{total_items}, 1,
       'what the client says is nothing');
}


# a reload, a table that cannot be read, clients that leave

{
    my ($r, %seen);

    my $lock = fork // die "fork: $!";
    if (!$lock) {
        open STDERR, '>', '/dev/null';
        $pg->psql('begin; lock table agent.api_key in access exclusive mode; '
                  . 'select pg_sleep(120)', may_fail => 1);
        POSIX::_exit(0);
    }
    AgentTest::remember($lock);
    poll_until(sub {
        $pg->psql("select count(*) from pg_locks where relation = "
                  . "'agent.api_key'::regclass and granted and mode = "
                  . "'AccessExclusiveLock'") eq '1'
    }) or die 'no lock';

    ok($nginx->reload, 'reload');
    for (1 .. 10) {
        $r = ask($good, 'GET', '/check');
        is($r->{status}, 204, 'new workers know the keys of the old ones');
    }

    # whoever has to be looked up waits, and some go

    for (1 .. 5) {
        my $c = $nginx->connect;
        $c->send(path => '/k/tasks',
                 headers => { Authorization => 'Bearer ak_leaves' . rand });
        $c->close;
    }
    $r = ask('ak_waits', 'GET', '/k/tasks');
    is($r->{status}, 503, 'a table that hangs: 503');
    is($r->{headers}{'retry-after'}, 1, 'with Retry-After');
    like($r->{json}{message}, qr/^the API key cannot be checked/, 'in words');

    $pg->psql("select pg_terminate_backend(pid) from pg_stat_activity where "
              . "query like '%pg_sleep(120)%' and pid <> pg_backend_pid()");
    waitpid $lock, 0;
    AgentTest::forget($lock);
    ok(poll_until(sub {
        ask('ak_waits', 'GET', '/k/tasks')->{status} == 401
    }, 15), 'and when it can be read again: 401');
    ok(poll_until(sub { ask($good, 'GET', '/k/tasks')->{status} == 200 }, 15),
       'and 200');
}


# the database is away

{
    $pg->stop('immediate');

    for my $path ('/k/tasks', '/check', '/proxied/x') {
        my $r;
        ok(poll_until(sub {
            $r = ask($good, 'GET', $path);
            $r->{status} == 503 && ($r->{json}{message} // '')
                                   =~ /^the API key cannot be checked/
        }, 15), "no database: $path is a 503 soon");
        is($r->{headers}{'retry-after'}, 1, "$path: Retry-After");
        is($r->{headers}{'www-authenticate'}, undef, "$path: no challenge");
    }
    is_refused($nginx->get('/k/tasks'), 401, 'missing',
               'no database: no key is a 401 still');

    $pg->start;
    ok(poll_until(sub { ask($good, 'GET', '/k/tasks')->{status} == 200 }, 20),
       'it is back, and so is the key');
}


# the logs

{
    my $id = id_of($good);
    my $log;
    ok(poll_until(sub {
        $log = read_file($nginx->dir . '/keys.log');
        $log =~ m{^401 \[\] \[-?\] /k/tasks$}m
    }), 'the access log of a 401');
    like($log, qr{^200 \[acme\] \[$id\] /k/tasks$}m, 'and of a 200');
    like($log, qr{^403 \[acme\] \[[0-9a-f-]{36}\] /k/tasks$}m,
         'and of a 403');
    like($log, qr{^200 \[one\] \[-?\] /oauth/tasks$}m,
         'and of another service\'s');

    for my $n ($nginx, $second, $deaf) {
        for my $file ('keys.log', 'logs/error.log') {
            my $text = read_file($n->dir . "/$file");
            unlike($text, qr/ak_[0-9a-f]{8}|chosen-by/, "no key in $file");
        }
    }
    unlike($nginx->log_text, qr/auth request unexpected status/,
           'nothing that auth_request does not understand');
}

# a name that was decoded makes no header line, here or at a backend
{
    my $r = $nginx->get('/named-by/?agent_id=a%0d%0aX-Evil:%20yes');
    is($r->{headers}{'x-evil'}, undef, 'no header of a client\'s making');
    is($r->{headers}{'x-named'}, '<>', 'such a name is none');
    $r = $nginx->get('/named-by/?agent_id=wri%74er');
    is($r->{headers}{'x-named'}, '<writer>', 'a good one is');
}

# what nginx asks by itself has not been through auth_request
{
    my $count = 'select count(*) from agent.task';
    my $before = $pg->psql($count);
    my $r = $nginx->post('/asked/', { input => 'x' },
                         headers => { 'X-Agent-ID' => 'writer' });
    is($r->{status}, 200, 'a request that is mirrored to the tasks');
    ok(poll_until(sub { read_file($nginx->dir . '/keys.log')
                        =~ m{/asked/$}m }), 'is over');
    is($pg->psql($count), $before, 'makes none of nobody\'s');
}

$_->finish for $nginx, $second, $deaf;
done_testing();
