#!/usr/bin/perl

# Usage: what a tenant, or the operator, is shown of the ledger; that the
# ledger has one row for each step that ended, at the right price.

use strict;
use warnings;

use Test::More;

use AgentTest;

my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;

# days are UTC's, and dates are dates, whatever the database is used to
$pg->psql("alter database $pg->{name} set timezone = 'Pacific/Kiritimati'");
$pg->psql("alter database $pg->{name} set datestyle = 'German, DMY'");

my $nginx = AgentTest::Nginx->new(conf => conf(pg => $pg, llm => $llm,
    agents => {
        penny => 'price 0.000001; attempts 3;',
        dear  => 'price 12.345678;',
        auto  => 'price 0.5; run auto; max_steps 3;',
    },
    http => '    agent_auth_zone usage_keys:1m;',
    server => <<'    END'));
        location /t/ { agent_pass penny; agent_tenant $http_x_tenant; }
        location /k/ { agent_pass penny; auth_request /_auth; }
        location = /_auth { internal; agent_auth; }
        location = /exact/usage { agent_pass penny; }
        location ~ ^/re/ { agent_pass penny; }
        location = /all { agent_usage; }
    END

on_record($nginx, $pg);

my @sums = qw(steps completed failed cancelled tokens_in tokens_out price);
my %none = (map({ $_ => 0 } @sums), price => '0.000000');


sub usage {
    my ($query, %o) = @_;
    return $nginx->get(($o{at} || '/t') . '/usage' . ($query // ''),
        headers => { defined $o{tenant} ? ('X-Tenant' => $o{tenant}) : (),
                     %{$o{headers} || {}} });
}


sub all { return $nginx->get('/all' . ($_[0] // '')) }


# The sums of some rows of the ledger, by the database itself.

sub ledger {
    my ($where) = @_;

    my %sum;
    @sum{@sums} = split /\|/, $pg->psql("select count(*), "
        . "count(*) filter (where status in (2, 3)), "
        . "count(*) filter (where status = 4), "
        . "count(*) filter (where status = 5), coalesce(sum(tokens_in), 0), "
        . "coalesce(sum(tokens_out), 0), coalesce(sum(price), 0.000000) "
        . "from agent.usage where $where");
    $sum{$_} += 0 for @sums[0 .. 5];
    return \%sum;
}


# One row of the ledger that no step has made.

sub bill {
    my (%o) = @_;

    my ($tenant, $agent) = map { s/'/''/gr } $o{tenant}, $o{agent} // 'penny';
    $pg->psql("insert into agent.usage (task_id, step_id, tenant, agent, "
        . "attempt, status, tokens_in, tokens_out, price, ended_at) select "
        . "gen_random_uuid(), gen_random_uuid(), '$tenant', '$agent', 1, "
        . ($o{status} // 2) . ", " . ($o{in} // 0) . ", " . ($o{out} // 0)
        . ", " . ($o{price} // 0) . ", '" . ($o{at} // 'now') . "' from "
        . "generate_series(1, " . ($o{n} // 1) . ")");
}


sub is_422 {
    my ($r, $arg, $why, $name) = @_;
    is($r->{status}, 422, "$name: refused");
    is($r->{json}{message}, "\"$arg\" $why", "$name: in words");
    is_deeply($r->{json}{detail}, [{ loc => ['query', $arg], msg => $why }],
              "$name: and in detail");
}


# nothing yet ------------------------------------------------------------------

for (['/t', 'acme'], ['/ap/v1/agent', undef], ['/exact', undef],
     ['/re/any/path', undef])
{
    my ($at, $tenant) = @$_;
    my $r = usage('', at => $at, tenant => $tenant);
    is($r->{status}, 200, "$at: usage of nobody");
    is($r->{headers}{'content-type'}, 'application/json', "$at: as JSON");
    is_deeply($r->{json}, {
        usage => [], total => \%none,
        pagination => { total_items => 0, total_pages => 0,
                        current_page => 1, page_size => 10 },
    }, "$at: it is empty");
}

my $r = all();
is_deeply([@{$r->{json}}{qw(usage total)}], [[], \%none],
          'and nothing for the operator');
is(all('?format=csv')->{body}, 'day,tenant,agent,steps,completed,failed,'
   . "cancelled,tokens_in,tokens_out,price\r\n", 'CSV is a header line');


# each end of a step ------------------------------------------------------------

my %as = map { $_ => { 'X-Tenant' => $_ } } qw(acme beta);

sub task {
    my ($tenant, $input, $agent) = @_;
    my $r = $nginx->post('/t/tasks', { input => $input },
        headers => { %{$as{$tenant}}, 'Content-Type' => 'application/json' });
    is($r->{status}, 200, "a task of $tenant") or diag $r->{body};
    return $r->{json}{task_id};
}

sub step {
    my ($tenant, $task, $body, %h) = @_;
    return $nginx->post("/t/tasks/$task/steps", $body || {},
                        headers => { %{$as{$tenant}}, %h });
}

sub running {
    my ($tenant, $input) = @_;
    my $task = task($tenant, $input);
    my $r = step($tenant, $task, {}, Prefer => 'respond-async');
    is($r->{status}, 202, 'a step that goes on');
    my $id = $r->{json}{step_id};
    poll_until(sub { $llm->started($id) }) or die 'it is not run';
    return $task;
}

is(step('acme', task('acme', 'hello'))->{json}{status}, 'completed',
   'one is completed');
is(step('acme', task('acme', 'once [[http:500:1]]'))->{json}{status},
   'completed', 'one at the second attempt');
is(step('acme', task('acme', 'no [[http:400]]'))->{status}, 502, 'one fails');
is(step('acme', task('acme', 'never [[http:500]]'))->{status}, 502,
   'one fails three times');

my $asks = task('acme', 'well [[ask:why?]]');
is(step('acme', $asks)->{json}{status}, 'waiting_for_input', 'one asks');
is(step('acme', $asks, { input => 'so [[text:yes]]' })->{json}{status},
   'completed', 'and is answered');

my $task = running('acme', 'cancel me [[hang]]');
is($nginx->post("/t/tasks/$task/cancel", {}, headers => $as{acme})->{status},
   200, 'one is cancelled');
is($nginx->post("/t/tasks/$task/cancel", {}, headers => $as{acme})->{status},
   200, 'twice');

$task = running('acme', 'delete me [[hang]]');
is($nginx->request(method => 'DELETE', path => "/t/tasks/$task",
                   headers => $as{acme})->{status}, 200, 'one is deleted');

$task = task('acme', 'keyed');
is(step('acme', $task, {}, 'Idempotency-Key' => 'usage-1')->{status}, 200,
   'one with a key') for 1 .. 2;
is(step('acme', $task)->{json}{status}, 'completed',
   'a finished task is not run again');

# a deleted task's steps that had ended stay in the ledger
$task = task('beta', 'gone');
is(step('beta', $task)->{json}{status}, 'completed', 'one of beta');
is($nginx->request(method => 'DELETE', path => "/t/tasks/$task",
                   headers => $as{beta})->{status}, 200, 'its task goes');

# the tenant of those without a key or name
$task = make_task($nginx, 'dear', at => '/x/dear');
is(run_step($nginx, $task, {}, at => '/x/dear')->{status}, 200, 'a dear one');
$task = make_task($nginx, 'by itself [[loop]]', at => '/x/auto');
ok(poll_until(sub { $pg->psql("select count(*) from agent.step where "
                              . "task_id = '$task' and status = 2") == 3 }),
   'three that follow by themselves');

my $today = $pg->psql("select to_char(now() at time zone 'UTC', "
                      . "'YYYY-MM-DD')");

my $acme = usage('', tenant => 'acme')->{json};
is($acme->{total}{price}, '0.000005', 'five at a millionth');
is_deeply([@{$acme->{total}}{qw(steps completed failed cancelled)}],
          [9, 5, 2, 2], 'nine steps, by how they ended');
cmp_ok($acme->{total}{tokens_in}, '>', 0, 'tokens that were read');
is_deeply($acme->{total}, ledger("tenant = 'acme'"), 'as in the ledger');
is_deeply($acme->{usage}, [{ day => $today, agent => 'penny',
                             %{$acme->{total}} }], 'on one day');

is_deeply(usage('', tenant => 'beta')->{json}{total},
          { %{ledger("tenant = 'beta'")}, steps => 1, completed => 1,
            failed => 0, cancelled => 0, price => '0.000001' },
          'another tenant has its own');

$r = usage('', at => '/ap/v1/agent');
is_deeply([map { [@$_{qw(agent steps price)}] } @{$r->{json}{usage}}],
          [['auto', 3, '1.500000'], ['dear', 1, '12.345678']],
          'without a name it is the default one, by agent');
is($r->{json}{total}{price}, '13.845678', 'whose sum is exact');

is(usage('')->{status}, 403, 'and no name is no tenant where one is asked');

is($pg->psql("select count(*) from (select from agent.usage group by step_id "
             . "having count(*) > 1) d"), 0, 'no step is billed twice');
is($pg->psql("select count(*) from agent.step s where status >= 2 and not "
             . "exists (select from agent.usage u where u.task_id = s.task_id "
             . "and u.step_id = s.step_id and u.status = s.status and "
             . "u.tenant = s.tenant)"), 0, 'each that has ended is billed');
is($pg->psql("select count(*) from agent.usage u where not exists (select from "
             . "agent.step s where s.step_id = u.step_id)"), 2,
   'and besides them only those of deleted tasks');
is($pg->psql('select count(*) from agent.usage where status in (4, 5) and '
             . '(price, tokens_in, tokens_out) <> (0, 0, 0)'), 0,
   'what failed or was cancelled costs nothing');


# days --------------------------------------------------------------------------

bill(tenant => 'history', at => $_, price => '0.000001', n => 2)
    for '2026-01-31 23:59:59.999999Z', '2026-02-01 00:00:00Z',
        '2026-02-28 23:59:59.999999Z', '2026-03-01 00:00:00Z',
        '2024-02-29 12:00:00Z';

sub days {
    my ($query) = @_;
    my $r = usage($query, tenant => 'history');
    return join ' ', map { "$_->{day}:$_->{steps}" } @{$r->{json}{usage}};
}

is(days('?from=2026-02-01&to=2026-02-28'), '2026-02-01:2 2026-02-28:2',
   'both days are included');
is(days('?from=2026-02-02&to=2026-02-27'), '', 'and what is between them');
is(days('?from=2026-02-28&to=2026-02-28'), '2026-02-28:2', 'one day');
is(days('?from=2026-02-28'), '2026-02-28:2 2026-03-01:2', 'without an end');
is(days('?to=2026-02-28'), '2026-02-01:2 2026-02-28:2', 'the month of the end');
is(days('?to=2024-02-29'), '2024-02-29:2', 'a leap day');
is(days('?from=0001-01-01&to=9999-12-31'), '2024-02-29:2 2026-01-31:2 '
   . '2026-02-01:2 2026-02-28:2 2026-03-01:2', 'all there is');
is(days('?from=2026-02-01&to=2026-02-28&order=desc'),
   '2026-02-28:2 2026-02-01:2', 'the newest first');
is(days('?from=%32026-02-01&to=2026%2D02-28'), '2026-02-01:2 2026-02-28:2',
   'encoded');
is(days('?from=3000-01-01'), '', 'the future');

bill(tenant => 'history', at => 'yesterday');
my $month = substr $today, 0, 7;
like(days(''), qr/^(?:\Q$month\E-\d\d:1)?$/, 'by default the present month');

my $bad = 'must be a day as in "2026-11-30"';
for my $date ('', '2026', '2026-1-1', '2026-13-01', '2026-00-10', '2026-02-30',
              '2026-02-29', '1900-02-29', '2026-04-31', '2026-01-00',
              '2026-01-32', '0000-01-01', '2026/01/01', '2026-01-01Z',
              '20260101', '+026-01-01', '2026-01-0x', 'today', 'infinity',
              '2026-01-01%00', "2026-01-01'", '%ff%ff%ff%ff-01-01',
              '12026-01-01')
{
    is_422(usage("?$_=$date", tenant => 'acme'), $_, $bad, "$_=$date")
        for qw(from to);
    is_422(all("?from=$date"), 'from', $bad, "of all: from=$date");
}
is(usage('?from=2000-02-29&to=2000-02-29', tenant => 'acme')->{status}, 200,
   'the year 2000 had a leap day');
is_422(usage('?from=2026-02-02&to=2026-02-01', tenant => 'acme'), 'from',
       'must not be after "to"', 'a month that runs backwards');


# pages --------------------------------------------------------------------------

for my $day (1 .. 3) {
    bill(tenant => 'pages', agent => "agent-$_", at => "2025-05-0$day 12:00Z",
         n => $_, in => 10, out => 1, status => 1 + $_, price => '0.000001')
        for 1 .. 4;
}
my $may = 'from=2025-05-01&to=2025-05-31';
my $whole = usage("?$may&page_size=1000", tenant => 'pages')->{json};
is($whole->{pagination}{total_items}, 12, 'twelve lines');
is_deeply([map { "$_->{day} $_->{agent}" } @{$whole->{usage}}[0, 1, 4, 11]],
          ['2025-05-01 agent-1', '2025-05-01 agent-2', '2025-05-02 agent-1',
           '2025-05-03 agent-4'], 'by day and agent');
is_deeply($whole->{total}, { steps => 30, completed => 9, failed => 9,
    cancelled => 12, tokens_in => 300, tokens_out => 30,
    price => '0.000030' }, 'the sum of all');

for my $size (1, 5, 12, 13) {
    my (@up, @down);
    for my $page (1 .. int((12 + $size - 1) / $size)) {
        my $query = "?$may&page_size=$size&current_page=$page";
        $r = usage($query, tenant => 'pages')->{json};
        push @up, @{$r->{usage}};
        is_deeply($r->{total}, $whole->{total}, "page $page of $size: the sum "
                  . 'of all pages');
        push @down, @{usage("$query&order=desc", tenant => 'pages')
                      ->{json}{usage}};
    }
    is_deeply(\@up, $whole->{usage}, "pages of $size are the whole");
    is_deeply([reverse @down], $whole->{usage}, 'and backwards');
}
$r = usage("?$may&page_size=5&current_page=4", tenant => 'pages');
is_deeply($r->{json}{usage}, [], 'behind the last page');
is_deeply([@{$r->{json}}{qw(total pagination)}], [$whole->{total},
    { total_items => 12, total_pages => 3, current_page => 4,
      page_size => 5 }], 'the sum stands alone');
$r = usage("?$may&page_size=1000&current_page=2147483647&order=desc",
           tenant => 'pages');
is("$r->{status} " . @{$r->{json}{usage}}, '200 0', 'far behind it');

for ('page_size=0', 'page_size=1001', 'current_page=0', 'current_page=x',
     'order=up')
{
    is(usage("?$_", tenant => 'acme')->{status}, 422, $_);
    is(all("?$_")->{status}, 422, "of all: $_");
}


# methods ------------------------------------------------------------------------

for my $path ('/ap/v1/agent/usage', '/all', '/all?format=csv') {
    my $get = $nginx->get($path);
    my $head = $nginx->request(method => 'HEAD', path => $path);
    is("$head->{status} $head->{body}", '200 ', "HEAD $path");
    is($head->{headers}{$_}, $get->{headers}{$_}, "its $_")
        for qw(content-length content-type);
    $r = $nginx->request(path => $path, method => 'GET', body => '{}');
    is($r->{body}, $get->{body}, "$path: a body is of no interest");

    for my $method (qw(POST PUT DELETE OPTIONS)) {
        $r = $nginx->request(method => $method, path => $path, body => '{}');
        is($r->{status}, 405, "$method $path");
        is($r->{headers}{allow}, 'GET, HEAD', 'Allow');
        ok($r->{json}{message}, 'in words');
    }
}
is($nginx->get('/ap/v1/agent/usage/x')->{status}, 404, 'no more behind it');
is($nginx->get('/ap/v1/agent/usage/')->{status}, 404, 'not even a slash');
is($nginx->get('/all')->{headers}{'cache-control'}, 'no-store',
   'the operator\'s is not to be kept');


# the operator -------------------------------------------------------------------

# RFC 4180, to the letter

sub parse_csv {
    my ($text) = @_;

    my @rows = ([]);
    while ($text =~ /\G(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)/gc) {
        my ($quoted, $plain, $end) = ($1, $2, $3);
        push @{$rows[-1]}, defined $quoted ? $quoted =~ s/""/"/gr : $plain;
        push @rows, [] if $end ne ',';
    }
    die 'not CSV at ' . (pos($text) // 0) . "\n"
        if (pos($text) // 0) != length $text || @{pop @rows};
    return @rows;
}

for my $bad ("a,b\n", "a,\"b\r\n", "a\"b\r\n", "a,b", "\"a\"b\r\n") {
    ok(!eval { parse_csv($bad) }, 'the parser is strict');
}

my @names = ('=1+1', '+1', '-1', '@SUM(A1)', "\t=1", 'a,b', 'say "hi"', ' x ',
             "two\nlines", "cr\r\nlf", "\xc3\xbc", '"', '""', "it's", '',
             ' =1', 'plain');
bill(tenant => $_, agent => 'odd', at => '2023-07-01 12:00Z', in => 1,
     price => '0.000001') for @names;
bill(tenant => 'x', agent => '-penny', at => '2023-07-01 12:00Z');

# those of today, too, whose tenants are known
my $span = 'from=2023-07-01&page_size=1000';
my $json = all("?$span")->{json};
$r = all("?$span&format=csv");
is($r->{headers}{'content-type'}, 'text/csv; charset=utf-8; header=present',
   'CSV says so');
my @rows = eval { parse_csv($r->{body}) };
ok(@rows, 'it can be read') or diag "$@$r->{body}";

my $head = shift @rows;
is_deeply([map {
    my %line;
    @line{@$head} = @$_;
    s/^'(?=\s*[=+\-@])// for values %line;
    \%line;
} @rows], [map {
    my %line = %$_;
    $_ = "$_" for values %line;
    utf8::encode($_) for values %line;
    \%line;
} @{$json->{usage}}], 'and says what JSON says');
my @formulas = grep { /^\s*[=+\-@]/ } map { @$_ } @rows;
is("@formulas", '', 'no field is a formula to a spreadsheet');
like($r->{body}, qr/^2023-07-01,"'=1\+1",odd,1,1,0,0,1,0,0\.000001\r$/m,
     'one that would be has a mark in front');
like($r->{body}, qr/^2023-07-01,plain,odd,1,1,0,0,1,0,0\.000001\r$/m,
     'one that would not is as it is');
is((grep { $_->{tenant} eq '=1+1' } @{$json->{usage}})[0]{price}, '0.000001',
   'in JSON nothing has one');

is_deeply($json->{total}, ledger("ended_at >= '2023-07-01Z'"),
          'the sum is that of the ledger');
is($json->{pagination}{total_items}, scalar @{$json->{usage}}, 'all lines');
is_deeply([map { [@$_{qw(tenant steps)}] }
           @{all('?tenant=beta')->{json}{usage}}], [['beta', 1]],
          'one tenant for the operator');
is_deeply([map { $_->{tenant} }
           @{all('?from=2023-07-01&to=2023-07-01&tenant=')->{json}{usage}}],
          [''], 'the default one');
is_deeply([map { $_->{tenant} }
           @{all('?from=2023-07-01&to=2023-07-01&tenant=%3D1%2B1')
             ->{json}{usage}}], ['=1+1'], 'an odd one');
is_deeply(all('?tenant=nobody')->{json}{usage}, [], 'one there is not');
is_422(all("?tenant=$_"), 'tenant', 'must be UTF-8 without NUL',
       "tenant=$_") for '%ff', 'a%00b';

$r = all("?$span&page_size=3&current_page=2&format=csv");
@rows = parse_csv($r->{body});
is_deeply([map { $_->[1] =~ s/^'//r } @rows[1 .. $#rows]],
          [map { utf8::encode(my $t = $_->{tenant}); $t }
           @{all("?$span&page_size=3&current_page=2")->{json}{usage}}],
          'a page of CSV is that of JSON');

is_deeply(all('?tenant=acme')->{json}{total}, $acme->{total},
          'the operator sees what the tenant sees');

for (['text/csv', 'csv'], ['text/csv;q=0.4, application/json;q=0.5', 'json'],
     ['application/json, text/csv', 'json'], ['*/*', 'json'], ['', 'json'],
     ['text/*', 'csv'], ['application/csv', 'csv'], ['text/plain', 'json'])
{
    my ($accept, $form) = @$_;
    $r = $nginx->get('/all', headers => { Accept => $accept });
    like($r->{headers}{'content-type'}, qr/$form/, "Accept: $accept");
}
$r = $nginx->get('/all?format=json', headers => { Accept => 'text/csv' });
is($r->{headers}{'content-type'}, 'application/json',
   'what the query says goes first');
is_422(all('?format=xml'), 'format', 'must be "json" or "csv"', 'XML');


# numbers that are large -----------------------------------------------------------

bill(tenant => 'large', price => '999999999999.999999', n => 3,
     in => '4000000000000', out => '9000000000000');
bill(tenant => 'many', price => '0.000001', n => 123457);
is_deeply([@{usage('', tenant => 'large')->{json}{total}}
           {qw(price tokens_in tokens_out)}],
          ['2999999999999.999997', '12000000000000', '27000000000000'],
          'nothing is rounded');
is(usage('', tenant => 'many')->{json}{total}{price}, '0.123457',
   'however many there are');


# keys -------------------------------------------------------------------------------

sub key {
    my ($sql) = @_;
    return { Authorization => 'Bearer '
             . $pg->psql("select agent.create_key($sql)") };
}

bill(tenant => 'keyed', agent => $_) for qw(penny dear);
my @seen = map {
    [map { $_->{agent} } @{usage('', at => '/k', headers => key($_))
                           ->{json}{usage}}]
} "'keyed'", "'keyed', p_agents => '{dear}'",
  "'keyed', p_agents => '{dear,penny}'", "'keyed', p_agents => '{}'",
  "'keyed', p_read_only => true", "'other'";
is_deeply(\@seen, [['dear', 'penny'], ['dear'], ['dear', 'penny'], [],
                   ['dear', 'penny'], []], 'a key shows its tenant and agents');
is(usage('', at => '/k')->{status}, 401, 'no key, no usage');
is(usage('', at => '/k', headers => { Authorization => 'Bearer ak_nothing' })
   ->{status}, 401, 'nor with a wrong one');


# the database is away ----------------------------------------------------------------

my $away = AgentTest::Nginx->new(conf => conf(llm => $llm,
    db => 'host=127.0.0.1 port=' . free_port() . ' dbname=x user=x',
    db_opt => 'wait=100ms', server => 'location = /all { agent_usage; }'));

for my $path ('/ap/v1/agent/usage', '/all', '/all?format=csv') {
    $r = $away->get($path);
    is("$r->{status} $r->{headers}{'retry-after'}", '503 1', "$path: away");
    is($r->{headers}{'content-type'}, 'application/json', 'said as JSON');
    is($r->{headers}{'cache-control'}, undef, 'and not as usage');
}

$_->finish for $away, $nginx;
done_testing();
