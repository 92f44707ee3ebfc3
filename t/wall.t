#!/usr/bin/perl

# The second wall between tenants: row-level security holds whatever a
# statement says.  First the tables, all of them, also those that a later
# version of the schema brings; then the module's own statements, as Postgres
# has logged them: sent again in the name of another tenant, as they are, so
# that their filter lets everything through, and with the filter cut out.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use Test::More;

my $pg = AgentTest::Postgres->new(private => 1);
my @text = split /\n/, $pg->psql(
    'select c.table_name from information_schema.columns c '
    . "where c.table_schema = 'agent' and c.column_name = 'tenant' order by 1");


sub as_module { return $pg->psql($_[0], user => 'agent', @_[1 .. $#_]) }

# What psql says to a statement that may fail: (all went well, the text).

sub try {
    my ($user, $sql) = @_;

    my $file = scratch() . '/try.sql';
    write_file($file, $sql);
    my @command = ($pg->psql_command(user => $user), '-f', $file);
    my $said = qx{@{[join ' ', map { quotemeta } @command]} 2>&1};
    return ($? == 0, $said);
}

sub enter { return "select agent.enter('$_[0]');" }


# 1. The tables --------------------------------------------------------------

# whose rows are not any tenant's: a new one has to be thought about

my @open = split /\n/, $pg->psql(
    "select table_name from information_schema.tables t where table_schema = "
    . "'agent' and not exists (select from information_schema.columns c where "
    . "c.table_schema = 'agent' and c.table_name = t.table_name and "
    . "c.column_name = 'tenant') order by 1");

is("@open", 'key_change schema_version trace_part worker',
   'tables without a tenant are known, and have nothing of one');

is($pg->psql("select rolsuper or rolbypassrls from pg_roles where rolname = "
             . "'agent'"), 'f', 'the module\'s role is held to the wall');


# Tables with a tenant that have no wall, or one with a gate in it.

sub unwalled {
    return $pg->psql(<<'    END');
        select string_agg(c.relname, ' ' order by c.relname)
        from pg_class c join pg_attribute a on a.attrelid = c.oid
            and a.attname = 'tenant' and not a.attisdropped
        where c.relnamespace = 'agent'::regnamespace
          and c.relkind in ('r', 'p', 'v', 'm', 'f')
          and not (c.relrowsecurity and c.relforcerowsecurity
                   and (select count(*) = 1 and bool_and(p.polpermissive)
                               and bool_and(p.polcmd = '*')
                               and bool_and(p.polwithcheck is null)
                        from pg_policy p where p.polrelid = c.oid))
    END
}

is(unwalled(), '', 'each table with a tenant is behind the wall');

as_module('create table agent.later (tenant text not null, x text)');
is(unwalled(), 'later', 'one without it is found');
as_module('alter table agent.later enable row level security; '
          . 'alter table agent.later force row level security; '
          . 'create policy tenant on agent.later using (tenant = '
          . '(select agent.tenant()) or (select agent.everyone()))');
is(unwalled(), '', 'until it has one');
as_module("create policy gate on agent.later using (x = 'x')");
is(unwalled(), 'later', 'a second policy is a gate');
as_module('drop policy gate on agent.later');


# A row of any table, by the types of the columns that must have a value.

my %value = (
    uuid => 'gen_random_uuid()', text => 'gen_random_uuid()::text',
    json => "'{}'",
    bytea => "sha256(convert_to(gen_random_uuid()::text, 'UTF8'))",
    smallint => 2, integer => 1, bigint => '(random() * 1e15)::bigint',
    numeric => 1, boolean => 'false',
    date => 'current_date', 'timestamp with time zone' => 'now()',
);

sub insert {
    my ($table, $tenant) = @_;

    my @columns = split /\n/, $pg->psql(
        'select column_name, data_type from information_schema.columns '
        . "where table_schema = 'agent' and table_name = '$table' and "
        . "is_nullable = 'NO' and column_default is null and "
        . "column_name <> 'tenant'");
    my (@names, @values);

    for (@columns) {
        my ($name, $type) = split /\|/;
        push @names, $name;
        push @values, $value{$type}
                      // die "agent.$table.$name: type $type is new here";
    }
    return "insert into agent.$table (" . join(', ', 'tenant', @names)
           . ") values (" . join(', ', "'$tenant'", @values) . ");";
}

for my $table (@text, 'later') {
    $pg->psql(insert($table, $_)) for 'a', 'b', '';
    $pg->psql(insert($table, 'a')) if $table ne 'quota';
}

sub count_of {
    my ($table, $where) = @_;
    return $pg->psql("select count(*) from agent.$table"
                     . ($where ? " where $where" : ''));
}

for my $table (@text, 'later') {
    my $all = count_of($table);
    my %have = map { $_ => count_of($table, "tenant = '$_'") } 'a', 'b', '';
    my $look = "select coalesce(string_agg(distinct '[' || tenant || ']', "
               . "' '), 'nothing') || count(*) from agent.$table";

    is(as_module($look), 'nothing0', "$table: nothing is seen by nobody");

    for my $who ('', 'a', '==a', ' =a', '**', '*a', 'a=', "=a'", '=A') {
        my $quoted = $who =~ s/'/''/gr;
        like(as_module(enter($quoted) . $look), qr/\bnothing0$/,
             "$table: nothing is seen by \"$who\"");
    }
    for my $who ('a', 'b', '') {
        like(as_module(enter("=$who") . $look), qr/^\[$who\]$have{$who}$/m,
             "$table: \"$who\" sees his own");
    }
    like(as_module(enter('*') . $look), qr/^\[\] \[a\] \[b\]$all$/m,
         "$table: everyone's are seen when that is said");

    # writes with no filter at all

    my $changed = "with w as (update agent.$table set tenant = tenant "
                  . 'returning 1) select \'n=\' || count(*) from w;';
    like(as_module("begin;" . enter('=a') . "$changed rollback;"),
         qr/^n=$have{a}$/m, "$table: an update of all is one of his own");
    $changed = "with w as (delete from agent.$table returning 1) "
               . 'select \'n=\' || count(*) from w;';
    like(as_module("begin;" . enter('=a') . "$changed rollback;"),
         qr/^n=$have{a}$/m, "$table: a delete of all is one of his own");
    like(as_module("begin; $changed rollback;"), qr/^n=0$/m,
         "$table: and nobody deletes nothing");

    for my $try ([ 'a row for another', insert($table, 'b') ],
                 [ 'a row given to another',
                   "update agent.$table set tenant = 'b';" ])
    {
        my ($ok, $said) = try('agent', 'begin;' . enter('=a')
                              . "$try->[1] rollback;");
        ok(!$ok, "$table: $try->[0] is refused");
        like($said, qr/violates row-level security policy/,
             "$table: by the wall");
    }

    my ($ok, $said) = try('agent', 'begin;' . insert($table, 'a')
                          . ' rollback;');
    like($said, qr/violates row-level security policy/,
         "$table: nobody inserts nothing");
    ($ok, $said) = try('agent', 'begin;' . enter('=c')
                       . insert($table, 'c') . ' rollback;');
    ok($ok, "$table: a row of one's own is taken") or diag $said;
}

# what was entered for a transaction ends with it

like(as_module("begin; select agent.enter('=a', false); "
               . "select 'n=' || count(*) from agent.task; commit; "
               . "select 'then=' || count(*) from agent.task"),
     qr/n=2\n(?:\n)?then=0$/, 'a transaction\'s end is that of its tenant');

as_module('drop table agent.later');
for my $table (@text) {
    $pg->psql("delete from agent.$table");
}
$pg->psql('delete from agent.key_change');


# 2. The statements ----------------------------------------------------------

$pg->psql($_) for "alter system set log_statement = 'all'",
                  'alter system set log_parameter_max_length = -1',
                  'select pg_reload_conf()';

my $llm = AgentTest::LLM->new;
my $nginx = AgentTest::Nginx->new(conf => conf(
    pg => $pg, llm => $llm,
    http => '    agent_tenant wall-a; agent_auth_zone keys:1m; '
            . 'agent_queue 1000 poll=200ms;',
    agents => { auto => 'run auto; max_steps 2;', one => 'concurrency 1;' },
    server => '        location /key/ { auth_request /_auth; '
              . "agent_pass writer; }\n"
              . '        location = /_auth { internal; agent_auth; }'));
AgentTest::on_record($nginx, $pg);

my $at = '/ap/v1/agent';

sub call {
    my ($method, $path, $body, %o) = @_;
    my $r = $nginx->request(method => $method, path => "$at/$path", %o,
                            defined $body ? (body => $body) : ());
    like($r->{status}, $o{want} || qr/^20/, "$method $path");
    return $r->{json} || {};
}

sub upload {
    my ($task, $name, @key) = @_;
    return call('POST', "tasks/$task/artifacts", "--b\r\nContent-Disposition: "
                . "form-data; name=\"file\"; filename=\"$name\"\r\n\r\nx\r\n"
                . "--b--\r\n", headers => { @key, 'Content-Type' =>
                                           'multipart/form-data; boundary=b' });
}

# all that a client can do; each text of his is one of a kind

my $n = 0;
sub mark { return 'marker-' . ++$n . '-of-a' }
sub async { return (headers => { Prefer => 'respond-async' }) }

my $task = call('POST', 'tasks', { input => mark() })->{task_id};
my $kept = call('POST', 'tasks', { input => mark() },
                headers => { 'Idempotency-Key' => 'k1' })->{task_id};
my $step = call('POST', "tasks/$task/steps",
                { input => mark() . ' [[write:wall.txt:bytes]]' })->{step_id};
call('POST', "tasks/$task/steps", { input => mark() . ' [[http:500:1]]' });
call('POST', "tasks/$task/steps", { input => mark() },
     headers => { 'Idempotency-Key' => 'k2' });
call('POST', "tasks/$task/steps", { input => mark() . ' [[read:wall.txt]]' });
call('POST', "tasks/$kept/steps", { input => mark() . ' [[secret:pin?]]' });
call('POST', "tasks/$kept/steps", { input => mark() });
my $file = upload($task, mark())->{artifact_id};
upload($task, mark(), 'Idempotency-Key' => 'k3');

call('GET', $_) for 'tasks', 'tasks?order=desc', "tasks/$task", 'usage',
    "tasks/$task/steps", "tasks/$task/steps/$step",
    "tasks/$task/steps/$step/trace", "tasks/$task/artifacts",
    "tasks/$task/artifacts/$file";

my $queued = call('POST', "tasks/$kept/steps",
                  { input => mark() . ' [[hang]]' }, async())->{step_id};
poll_until(sub { $llm->started($queued) }) or die 'it does not run';
call('POST', "tasks/$kept/steps/$queued/cancel", '');
call('POST', "tasks/$kept/steps", { input => mark() . ' [[http:500:1:3]]' },
     async());

my $gone = call('POST', 'tasks', { input => mark() })->{task_id};
call('DELETE', "tasks/$gone");

my $robot = $nginx->post('/x/auto/tasks', { input => mark() . ' [[loop]]' })
            ->{json}{task_id};
poll_until(sub { $pg->psql('select count(*) from agent.usage where task_id = '
                           . "'$robot'") eq '2' }, 20)
    or die 'it does not run by itself';

# one that has to wait

my $narrow = $nginx->post('/x/one/tasks', { input => mark() })
             ->{json}{task_id};
my $wide = $nginx->post('/x/one/tasks', { input => mark() })->{json}{task_id};
my $first = call('POST', "tasks/$narrow/steps",
                 { input => mark() . ' [[hang]]' }, async())->{step_id};
poll_until(sub { $llm->started($first) }) or die 'it does not run';
call('POST', "tasks/$wide/steps", { input => mark() }, async());
call('POST', "tasks/$narrow/cancel", '');

# a tenant with limits goes by other statements

$pg->psql("select agent.set_quota('wall-a', 100, 100, 1000, 100000, 100)");
call('POST', "tasks/$task/steps", { input => mark() });
upload($task, mark());
$pg->psql("select agent.drop_quota('wall-a')");

# and so does a key that is limited to agents

my $key = $pg->psql("select agent.create_key('wall-a', p_agents => "
                    . "'{writer}')");
for my $path ('tasks', "tasks/$task") {
    is($nginx->get("/key/$path",
                   headers => { Authorization => "Bearer $key" })->{status},
       200, "$path with a limited key");
}

# the last one's end is on record, and nothing is under way

poll_until(sub { $pg->psql('select count(*) from agent.step where status in '
                           . '(0, 1)') eq '0' }, 20) or die 'steps still run';
$nginx->stop;


# What was sent for the tenant: name => [[text, parameters], ...].

my (%sent, %everyone, %scope, %last);

for (split /\n(?=\d{4}-)/, $pg->server_log) {
    my ($pid, $what) = /^\S+ \S+ \S+ \[(\d+)\] (.*)/s or next;

    if ($what =~ /^LOG:  execute (\w+): (.*)/s) {
        $last{$pid} = { name => $1, sql => $2, values => [] };
        add($pid);
    } elsif ($what =~ /^DETAIL:  parameters: (.*)/s && $last{$pid}) {
        my $list = $1;
        $list =~ s/\n\t/\n/g;
        while ($list =~ /\$\d+ = (NULL|'(?:[^']|'')*')/g) {
            push @{$last{$pid}{values}}, $1;
        }
        if ($last{$pid}{name} =~ /^(?:enter|look)$/) {
            ($scope{$pid}) = $list =~ /= '(.*?)'/;
        }
    }
}

sub add {
    my ($pid) = @_;
    my $last = $last{$pid};
    return if $last->{name} =~ /^(?:enter|look|replan)$/;
    if (($scope{$pid} // '') eq '=wall-a') {
        push @{$sent{$last->{name}}}, $last;
    } else {
        $everyone{$last->{name}} = 1;
    }
}


# The names of all there are, from the C text.

my $source = join '', map {
    read_file("$AgentTest::root/ngx_http_agent_module/store/$_")
} qw(ngx_agent_store_sql.c ngx_agent_store_sql_read.c);
my @names = $source =~ /^    \{ "(\w+)",/mg;
cmp_ok(scalar @names, '>=', 35, 'statements of the module');

# one that is sent when the answer to another got lost

$sent{create_task_again} ||= [ map {
    { %$_, sql => "$_->{sql} on conflict do nothing" }
} @{$sent{create_task}} ];

# these are about all tenants, or about none

my @all = qw(bury claim depth enter expire get_key key_changes lines look
             neighbours orphans register replan sweep);
my %all = map { $_ => 1 } @all;

# sent when it is time, or a list finds that marks are needed: those are made
# below by hand

my %perhaps = (mark => 1, renew => 1);

is(join(' ', grep { !$sent{$_} && !$all{$_} && !$perhaps{$_} } @names), '',
   'each statement of a tenant was sent by this test');
is(join(' ', grep { $all{$_} } sort keys %sent), '',
   'those of everyone were not sent for one');


# A statement with its values in it, perhaps without its filter, perhaps with
# the tenant's name changed.

sub text_of {
    my ($call, %o) = @_;

    my $sql = $call->{sql};
    my @values = @{$call->{values}};

    if ($o{open}) {
        my $side = qr/(?:\$\d+::text|\w+\.tenant)/;
        my $test = qr/\(?(?:\w+\.)?tenant = $side(?:\) is true)?/;
        $sql =~ s/\band $test//g;
        $sql =~ s/\b(where|on) $test\s+and\b/$1/g;
        $sql =~ s/\b(where|on) $test/$1 true/g;
    }
    if ($o{tenant}) {
        s/\bwall-a\b/$o{tenant}/g for @values;
    }
    $sql =~ s/\$(\d+)/$values[$1 - 1]/g;
    return "$sql;\n";
}

# What is the tenant's and was not in the question.

my @secrets;

sub leaks {
    my ($call, $said) = @_;
    my $asked = join ' ', @{$call->{values}};
    return grep { index($said, $_) >= 0 && index($asked, $_) < 0 } @secrets;
}

@secrets = grep { length } split /\s+/, $pg->psql(
    "select string_agg(x, ' ') from (select task_id::text from agent.task "
    . "union select step_id::text from agent.step union select "
    . "artifact_id::text from agent.artifact union select input from "
    . "agent.task union select input from agent.step union select file_name "
    . 'from agent.artifact) t(x)');
push @secrets, 'writer';
@secrets = grep { /-of-a$|^[0-9a-f-]{36}$|writer/ } @secrets;
cmp_ok(scalar @secrets, '>=', 15, 'there is something to be seen');

# All of the tenant's rows, as those of a transaction are that has done this;
# it leaves nothing behind.  (what it said, the rows, or '' if it failed).

my $rows = join ' union all ', map {
    "select '$_', md5(coalesce(string_agg(r::text, ' ' order by r::text), '')) "
    . "from agent.$_ r where tenant = 'wall-a'" } @text;

sub attempt {
    my ($user, $who, $sql) = @_;
    my ($ok, $said) = try($user, 'begin;' . enter("=$who") . $sql
                          . "\\echo ROWS\n" . enter('*') . "$rows;rollback;");
    my ($before, $after) = split /^ROWS\nt\n/m, $said;
    return ($before, $ok ? $after : '');
}

my (undef, $before) = attempt('agent', 'wall-a', '');
like($before, qr/^task\|\w{32}$/m, 'the rows as they are');

sub is_same {
    my ($after, $name) = @_;
    is($after || $before, $before, $name);
}
my (%seen_by_owner, %seen_by_open);

for my $name (sort keys %sent) {
    my @calls = @{$sent{$name}};
    splice @calls, 6 if @calls > 6;

    for my $call (@calls) {
        my ($said, $after) = attempt('agent', 'wall-a', text_of($call));
        $seen_by_owner{$name} ||= 1 if leaks($call, $said);

        # as it is: the filter lets the tenant's own through

        ($said, $after) = attempt('agent', 'wall-b', text_of($call));
        is(join(' ', leaks($call, $said)), '',
           "$name: shows nothing to another tenant");
        is_same($after, "$name: changes nothing");

        # in the other tenant's name, without the filter

        next unless $call->{sql} =~ /\btenant\b/;
        my $sql = text_of($call, open => 1, tenant => 'wall-b');

        ($said, $after) = attempt('postgres', 'wall-b', $sql);
        $seen_by_open{$name} ||= 1 if leaks($call, $said);

        ($said, $after) = attempt('agent', 'wall-b', $sql);
        is(join(' ', leaks($call, $said)), '',
           "$name without its filter: shows nothing to another tenant");
        is_same($after, "$name without its filter: changes nothing");
    }
}

# The same show it to the owner, and without the wall to anyone: it is the
# wall that has kept it.

for my $name (qw(get_task list_tasks list_tasks_of task_agent get_step
                 list_steps history get_artifact list_artifacts
                 find_artifact get_trace))
{
    ok($seen_by_owner{$name}, "$name: the owner sees something");
    ok($seen_by_open{$name}, "$name: without filter and wall anyone does");
}


# The functions behind cancel and delete, without their filter.

$pg->psql("insert into agent.task_mark (tenant, n, task_id) values "
          . "('wall-a', 1, '$task')");
$pg->psql(
    "insert into agent.step (task_id, seq, step_id, tenant, status, attempt) "
    . "select '$task', 99, gen_random_uuid(), 'wall-a', 0, 0");
(undef, $before) = attempt('agent', 'wall-a', '');

for my $function (qw(cancel delete_task make_marks)) {
    my $def = $pg->psql('select pg_get_functiondef(oid) from pg_proc where '
        . "proname = '$function' and pronamespace = 'agent'::regnamespace");
    my $cut = $def =~ s/\band (?:\w+\.)?tenant = p_tenant\b//gr;
    $cut =~ s/\bwhere (?:\w+\.)?tenant = p_tenant\s+and\b/where/g;
    $cut =~ s/\bwhere (?:\w+\.)?tenant = p_tenant\b/where true/g;
    $cut =~ s/(FUNCTION agent\.)/${1}cut_/i;
    isnt($cut, $def =~ s/(FUNCTION agent\.)/${1}cut_/ir,
         "$function has a filter");
    as_module($cut);

    my $sql = $function eq 'cancel' ? "agent.%s('%s', '$task', null)"
        : $function eq 'delete_task' ? "agent.%s('%s', '$task')"
        : "agent.%s('%s', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 10)";

    for my $try ([$function, 'wall-a'], ["cut_$function", 'wall-b']) {
        my (undef, $after) = attempt('agent', 'wall-b', 'select * from '
                                     . sprintf($sql, @$try) . ';');
        is_same($after, "$try->[0] for $try->[1]: changes nothing of "
                        . 'another tenant');
    }

    next if $function eq 'make_marks';
    my (undef, $after) = attempt('postgres', 'wall-b', 'select * from '
                         . sprintf($sql, "cut_$function", 'wall-b') . ';');
    isnt($after, $before, "$function: without filter and wall it would");
}

$nginx->finish;
done_testing();
