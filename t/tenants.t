#!/usr/bin/perl

# Tenants do not meet: every route with every method is walked by strangers
# with the owner's ids, and a route that is not in the walk fails the test;
# lists, totals, pages, idempotency keys, streams, files; where a request's
# tenant comes from, and what becomes of one that has none.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use Test::More;

my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $nginx = AgentTest::Nginx->new(conf => conf(
    pg => $pg, llm => $llm, workers => 2,
    agents => { auto => 'run auto; max_steps 2; price 0.5;',
                writer => 'timeout 600s;' },
    http => "    agent_tenant \$http_x_tenant;\n"
            . '    log_format t "$status $agent_tenant $uri";' . "\n"
            . '    access_log %DIR%/t.log t;',
    server => "        location /open/ { agent_pass writer;\n"
              . "            agent_tenant \$agent_tenant; }\n"
              . "        location /fixed/ { agent_pass writer;\n"
              . '            agent_tenant "org-$http_x_tenant"; }'));

AgentTest::on_record($nginx, $pg);

my $at = '/ap/v1/agent';
my $unknown = '01890a5d-ac96-774b-bcce-b302099a8057';
my $boundary = 'b0undary';


# A request of a tenant; undef: of the default one.

sub ask {
    my ($who, $method, $path, %o) = @_;

    my $prefix = defined $who ? $at : '/open';
    $o{headers} = { %{$o{headers} || {}},
                    defined $who ? ('X-Tenant' => $who) : () };
    return $nginx->request(method => $method, path => "$prefix/$path", %o);
}

sub file {
    my ($text) = @_;
    return (headers => { 'Content-Type' => 'multipart/form-data; boundary='
                                           . $boundary },
            body => "--$boundary\r\nContent-Disposition: form-data; "
                    . "name=\"file\"; filename=\"f\"\r\n\r\n$text\r\n"
                    . "--$boundary--\r\n");
}


# All that a tenant has, but for what runs do to a row by themselves.

my @tables = split /\n/, $pg->psql(
    'select table_name from information_schema.columns where table_schema = '
    . "'agent' and column_name = 'tenant' order by 1");

cmp_ok(scalar @tables, '>=', 10, 'tables with tenants');

sub rows {
    my ($who) = @_;
    $who //= '';
    return $pg->psql(join ' union all ', map {
        "select '$_', md5(coalesce(string_agg(j::text, ' ' order by j::text),"
        . " '')) from (select to_jsonb(r) - 'lease_until' as j from agent.$_ r"
        . " where tenant = '$who') r" } @tables);
}


# A task of a tenant: an ended step, an artifact, and perhaps a running step.

sub fixture {
    my ($who, $held) = @_;

    my %f;
    my $r = ask($who, 'POST', 'tasks', body => { input => 'marker-of-'
                                                 . ($who // 'default') });
    $f{task} = $r->{json}{task_id} or die "no task: $r->{body}";
    $r = ask($who, 'POST', "tasks/$f{task}/steps",
             body => { input => 'first' });
    $f{step} = $r->{json}{step_id} or die "no step: $r->{body}";
    $r = ask($who, 'POST', "tasks/$f{task}/artifacts", file('bytes'));
    $f{artifact} = $r->{json}{artifact_id} or die "no artifact: $r->{body}";

    if ($held) {
        $r = ask($who, 'POST', "tasks/$f{task}/steps",
                 body => { input => 'wait [[hang]]' },
                 headers => { Prefer => 'respond-async' });
        $f{step} = $r->{json}{step_id} or die "no step: $r->{body}";
        poll_until(sub { $llm->started($f{step}) }) or die 'it does not run';
    }
    return \%f;
}


# The walk.  held: with a running step; lone: no id is in the path.

my %walk = (
    AGENTS      => { path => 'agents', lone => 1 },
    TASKS       => { path => 'tasks', lone => 1 },
    USAGE       => { path => 'usage', lone => 1 },
    TASK        => { path => 'tasks/{task}', held => 1 },
    TASK_CANCEL => { path => 'tasks/{task}/cancel', held => 1 },
    STEPS       => { path => 'tasks/{task}/steps' },
    STEP        => { path => 'tasks/{task}/steps/{step}', held => 1 },
    STEP_CANCEL => { path => 'tasks/{task}/steps/{step}/cancel', held => 1 },
    STEP_TRACE  => { path => 'tasks/{task}/steps/{step}/trace' },
    ARTIFACTS   => { path => 'tasks/{task}/artifacts' },
    ARTIFACT    => { path => 'tasks/{task}/artifacts/{artifact}' },
);

my ($enum) = read_file("$AgentTest::root/ngx_http_agent_module/web/"
                       . 'ngx_http_agent_route.h')
             =~ /typedef enum \{(.*?)\} ngx_http_agent_place_e/s;
my @places = grep { !/^(NOWHERE|PLACES)$/ }
             $enum =~ /^\s+NGX_HTTP_AGENT_(\w+)/mg;

cmp_ok(scalar @places, '>=', 9, 'places of the code');
is_deeply([sort keys %walk], [sort @places],
          'the walk has every place of the code');


sub path_of {
    my ($place, %ids) = @_;
    return $walk{$place}{path} =~ s/\{(\w+)\}/$ids{$1}/gr;
}

sub body_of {
    my ($place, $method) = @_;
    return () unless $method eq 'POST';
    return file('more') if $place eq 'ARTIFACTS';
    return (body => {}) if $place !~ /CANCEL/;
    return (body => '');
}

# what is said of an id that nobody has, but for the id

sub like_unknown {
    my ($r, $place, $method, $name, %ids) = @_;

    my $nobody = ask('acme', $method, path_of($place, task => $unknown,
                     step => $unknown, artifact => $unknown),
                     body_of($place, $method));
    my ($said, $want) = ($r->{body}, $nobody->{body});
    $said =~ s/\Q$_\E/$unknown/g for values %ids;
    is($said, $want, "$name: as for an id that nobody has");
}


my %others = (zeta => fixture('zeta'), default => fixture(undef));
my %own = map { $_ => fixture('acme', $_) } 0, 1;

for my $place (@places) {
    my $w = $walk{$place} or next;

    for my $method (qw(GET HEAD POST PUT PATCH DELETE OPTIONS)) {
        my @body = body_of($place, $method);
        my $own = $own{$w->{held} // 0};
        my $served = $place =~ /CANCEL/ ? $method eq 'POST'
            : $method =~ /^(GET|HEAD)$/ ? 1
            : $method eq 'POST' ? $place =~ /^(TASKS|STEPS|ARTIFACTS)$/
            : $method eq 'DELETE' ? $place eq 'TASK' : 0;

        for my $who (sort keys %others) {
            my $stranger = $who eq 'default' ? undef : $who;
            my $his = $others{$who};
            my ($before, $mine) = (rows('acme'), rows($stranger));
            my @try = $w->{lone} ? {} : (
                $own,
                $w->{path} =~ /step|artifact/
                    && $w->{path} =~ /\{task\}.*\{/
                    ? { %$own, task => $his->{task} } : ());

            for my $ids (@try) {
                my $name = "$method " . path_of($place, map { $_ => "{$_}" }
                           qw(task step artifact)) . " by $who"
                           . (@try > 1 && $ids != $own
                              ? ' below his own task' : '');
                my $r = ask($stranger, $method, path_of($place, %$ids),
                            @body);

                if (!$served) {
                    is($r->{status}, 405, "$name: 405");

                } elsif ($w->{lone}) {
                    is($r->{status}, 200, "$name: 200");
                    unlike($r->{body}, qr/marker-of-acme|$own->{task}/,
                           "$name: nothing of the owner's");

                } else {
                    is($r->{status}, 404, "$name: 404") or diag $r->{body};
                    like_unknown($r, $place, $method, $name, %$ids)
                        if $method ne 'HEAD';
                    is(rows($stranger), $mine, "$name: he has what he had");
                }
            }

            is(rows('acme'), $before, "$method $place by $who: "
                                      . 'the owner has what he had');
        }

        # the owner may; his task with another's item is no way to it

        if ($served && $w->{path} =~ /\{task\}.*\{(\w+)\}/) {
            my $item = $1;
            my $r = ask('acme', $method, path_of($place, %$own,
                        $item => $others{zeta}{$item}), @body);
            is($r->{status}, 404, "$method $place with another's $item");
        }

        my $r = ask('acme', $method, path_of($place, %$own), @body);
        is($r->{status}, $served ? 200 : 405, "$method $place by the owner")
            or diag $r->{body};

        # what was cancelled or deleted is made anew

        $own{1} = fixture('acme', 1)
            if $served && $w->{held} && $method !~ /^(GET|HEAD)$/;
    }
}


# lists, totals, pages

{
    my %made;
    for my $i (1 .. 30) {
        my $who = qw(list-a list-b)[$i % 3 == 0];
        my $r = ask($who, 'POST', 'tasks', body => { input => "task $i" });
        push @{$made{$who}}, $r->{json}{task_id};
    }

    for my $who (sort keys %made) {
        for my $order (qw(asc desc)) {
            my @got;
            for my $page (1 .. 4) {
                my $r = ask($who, 'GET', "tasks?page_size=7&current_page=$page"
                                         . "&order=$order");
                is($r->{json}{pagination}{total_items}, @{$made{$who}},
                   "$who: total on page $page, $order");
                push @got, map { $_->{task_id} } @{$r->{json}{tasks}};
            }
            my @want = sort @{$made{$who}};
            @want = reverse @want if $order eq 'desc';
            is_deeply(\@got, \@want, "$who: his own on all pages, $order");
        }
    }

    my $r = ask('list-c', 'GET', 'tasks');
    is_deeply($r->{json}{tasks}, [], 'a tenant with nothing sees nothing');
    is($r->{json}{pagination}{total_items}, 0, 'and none are counted');
}


# idempotency keys

{
    my @header = (headers => { 'Idempotency-Key' => 'same-key' });
    my (%task, %step, %artifact);

    for my $who (qw(key-a key-b)) {
        my $r = ask($who, 'POST', 'tasks', @header,
                    body => { input => 'the same' });
        is($r->{status}, 200, "$who: task") or diag $r->{body};
        is($r->{headers}{'idempotency-replayed'}, undef, "$who: his first");
        $task{$who} = $r->{json}{task_id};
        $r = ask($who, 'POST', 'tasks', @header,
                 body => { input => 'the same' });
        is($r->{json}{task_id}, $task{$who}, "$who: the same task again");
    }
    isnt($task{'key-a'}, $task{'key-b'}, 'two tasks with one key');

    my $r = ask('key-c', 'POST', 'tasks', @header,
                body => { input => 'something else' });
    is($r->{status}, 200, 'another body is no conflict with another tenant');
    $r = ask('key-a', 'POST', 'tasks', @header,
             body => { input => 'something else' });
    is($r->{status}, 422, 'it is with oneself');

    for my $who (qw(key-a key-b)) {
        my @key = (headers => { 'Idempotency-Key' => 'step-key' });
        my $r = ask($who, 'POST', "tasks/$task{$who}/steps", @key,
                    body => {});
        $step{$who} = $r->{json}{step_id};
        is($r->{status}, 200, "$who: step");
        is($r->{headers}{'idempotency-replayed'}, undef, "$who: his first");

        my %file = file('x');
        $file{headers}{'Idempotency-Key'} = 'file-key';
        $r = ask($who, 'POST', "tasks/$task{$who}/artifacts", %file);
        $artifact{$who} = $r->{json}{artifact_id};
        is($r->{status}, 200, "$who: artifact");
        is($r->{headers}{'idempotency-replayed'}, undef, "$who: his first");
    }
    isnt($step{'key-a'}, $step{'key-b'}, 'two steps with one key');
    isnt($artifact{'key-a'}, $artifact{'key-b'}, 'two artifacts');
}


# waiting for another's step ends at once; his own client is told

{
    my $task = ask('wait-a', 'POST', 'tasks', body => { input => 'x' })
               ->{json}{task_id};
    my $step = ask('wait-a', 'POST', "tasks/$task/steps",
                   body => { input => 'x [[text:done+hold]]' },
                   headers => { Prefer => 'respond-async' })->{json}{step_id};
    poll_until(sub { $llm->stats->{held} == 1 });

    my $c = $nginx->connect;
    $c->send(path => "$at/tasks/$task/steps/$step",
             headers => { 'X-Tenant' => 'wait-a', Prefer => 'wait=60' });

    my $r = ask('wait-b', 'GET', "tasks/$task/steps/$step",
                headers => { Prefer => 'wait=60' }, seconds => 20);
    is($r->{status}, 404, 'waiting for a step of another is a 404');

    $llm->release;
    is($c->answer->{json}{output}, 'done', 'the owner hears of it');
}


# an agent that runs by itself: its queued steps have the tenant, too

{
    my $r = $nginx->request(method => 'POST', path => '/x/auto/tasks',
                            body => { input => 'go [[loop]]' },
                            headers => { 'X-Tenant' => 'robot' });
    my $task = $r->{json}{task_id};
    ok(poll_until(sub {
        $pg->psql("select count(*) from agent.usage where task_id = '$task'")
        eq '2';
    }, 20), 'it ran by itself');
    is($pg->psql("select distinct tenant from agent.step where task_id = "
                 . "'$task' union select distinct tenant from agent.usage "
                 . "where task_id = '$task' union select 'robot'"), 'robot',
       'all its rows are the tenant\'s');
}


# where the tenant comes from

{
    my $r = $nginx->post('/fixed/tasks', { input => 'x' },
                         headers => { 'X-Tenant' => 'one' });
    is($pg->psql("select tenant from agent.task where task_id = "
                 . "'$r->{json}{task_id}'"), 'org-one',
       'agent_tenant takes a text with variables');

    $r = $nginx->post('/open/tasks', { input => 'x' },
                      headers => { 'X-Tenant' => 'one' });
    is($pg->psql("select '[' || tenant || ']' from agent.task where task_id "
                 . "= '$r->{json}{task_id}'"), '[]',
       'and $agent_tenant brings back the default');

    my $before = $pg->psql('select count(*) from agent.task');

    for my $bad (['none', undef], ['empty', ''], ['129 bytes', 'x' x 129],
                 ['a tab', "a\tb"], ['DEL', "a\x7f"],
                 ['no UTF-8', "caf\xe9"], ['half a character', "caf\xc3"])
    {
        my ($name, $value) = @$bad;

        for my $try (['POST', 'tasks'], ['GET', 'tasks'],
                     ['GET', "tasks/$unknown"], ['GET', 'agents'])
        {
            my ($method, $path) = @$try;
            my $r = $nginx->request(method => $method, path => "$at/$path",
                                    $method eq 'POST' ? (body => {}) : (),
                                    headers => { 'X-Tenant' => $value });
            is($r->{status}, 403, "$name: $method $path is refused");
            like($r->{json}{message}, qr/^no valid tenant came/,
                 "$name: in words");
        }
    }
    is($pg->psql('select count(*) from agent.task'), $before,
       'nothing was made');

    for my $good ('x' x 128, "caf\xc3\xa9", 'a b', q{a'b"c\\d,{}$1 = %s},
                  '*', '=acme', '0')
    {
        my $r = ask($good, 'POST', 'tasks', body => { input => 'mine' });
        is($r->{status}, 200, "tenant $good: a task") or diag $r->{body};
        my $list = ask($good, 'GET', 'tasks');
        is_deeply([map { $_->{task_id} } @{$list->{json}{tasks}}],
                  [$r->{json}{task_id}], "tenant $good: sees his own only");
    }
}


# the log

{
    ask('log-me', 'GET', 'tasks?seen');
    ok(poll_until(sub {
        read_file($nginx->dir . '/t.log')
            =~ m{^200 log-me /ap/v1/agent/tasks$}m;
    }), '$agent_tenant in the access log');
    like(read_file($nginx->dir . '/t.log'), qr{^403  /ap/v1/agent/tasks$}m,
         'and empty for who was refused');
    like(read_file($nginx->dir . '/t.log'), qr{^404 zeta /ap/v1/agent/tasks/}m,
         'a stranger is named as what he is');
}

$nginx->finish;
done_testing();
