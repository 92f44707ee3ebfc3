#!/usr/bin/perl

# The load for t/valgrind.sh: starts an nginx under valgrind, calls every
# route well and badly, with LLMs and a database that fail, quits it and reads
# valgrind's report.

use strict;
use warnings;

use AgentTest;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep);

my $pg = AgentTest::Postgres->new(private => 1);
my $llm = AgentTest::LLM->new;
my $dead = free_port();
my $h2 = free_port();
my $nginx = AgentTest::Nginx->new(no_start => 1, conf => conf(
    pg => $pg, llm => $llm, main => "master_process off;\ndaemon off;",
    agents => { two => 'attempts 2; timeout 2s; price 0.5;'
                       . ' instructions "be brief" "and kind";',
                short => 'max_steps 2;',
                small => 'max_answer 100k; attempts 1;',
                refused => 'pass /dead/; attempts 2;',
                auto => 'run auto; max_steps 3;',
                ap => 'dialect agent_protocol; pass /self/x/two; attempts 1;' },
    http => '    agent_auth_zone keys:1m;',
    server => "        listen 127.0.0.1:$h2 http2;\n"
              . '        location /v/ { agent_pass $agent_id; }'
              . "\n        location /strict/ { agent_pass two; "
              . "agent_strict on; }\n"
              . '        location /k/ { agent_pass $agent_id; '
              . "auth_request /_auth; }\n"
              . "        location = /_auth { internal; agent_auth; }\n"
              . "        location = /status { agent_status; }\n"
              . "        location = /usage { agent_usage; }\n"
              . '        location /self/ { internal; '
              . "proxy_pass http://127.0.0.1:%PORT%/; }\n"
              . '        location /dead/ { internal; '
              . "proxy_pass http://127.0.0.1:$dead; }\n"));
my $report = scratch() . '/valgrind.log';

# the keepalive connections to the LLM would still be open in the end, and
# nginx frees no connection when it exits
$nginx->{conf} =~ s/keepalive 16;// or die 'no keepalive to take out';
$nginx->write_conf;

my @command = ('valgrind', '--quiet', '--leak-check=full',
    '--show-leak-kinds=definite,indirect',
    '--errors-for-leak-kinds=definite,indirect', '--num-callers=25',
    '--keep-debuginfo=yes', '--error-exitcode=99', "--log-file=$report",
    "--suppressions=$AgentTest::root/t/lib/valgrind.supp", $nginx->command);

my $pid = fork // die "fork: $!";
if (!$pid) {
    open STDIN, '<', '/dev/null';
    open STDOUT, '>', scratch() . '/start.out';
    open STDERR, '>&', \*STDOUT;
    exec @command or POSIX::_exit(1);
}
AgentTest::remember($pid, 'KILL');

ok(poll_until(sub { eval { $nginx->get('/agent/tasks')->{status} == 200 } },
              60), 'nginx serves under valgrind')
    or BAIL_OUT(read_file(scratch() . '/start.out') . read_file($report));


my %seen;

sub call {
    my ($want, $method, $path, %o) = @_;

    my $r = $nginx->request(method => $method, path => $path, seconds => 60,
                            %o);
    $seen{$method}++;
    is($r->{status}, $want, "$method $path " . ($o{note} // ''))
        or diag substr $r->{body}, 0, 300;
    return $r->{json} || $r;
}


sub task {
    my ($input, $at) = @_;
    return call(200, 'POST', ($at // '/agent') . '/tasks',
                body => { input => $input })->{task_id};
}


# Each route ------------------------------------------------------------------

my $type = { 'Content-Type' => 'multipart/form-data; boundary=XyZ' };
my $file = "--XyZ\r\nContent-Disposition: form-data; name=\"relative_path\""
    . "\r\n\r\nin/\r\n--XyZ\r\nContent-Disposition: form-data; name=\"file\"; "
    . "filename=\"a.txt\"\r\n\r\n" . ('line' x 50_000) . "\r\n--XyZ--\r\n";
my $none = '01890a5d-ac96-774b-bcce-b302099a8057';

my $id = task('first [[demo]]');
my $step = call(200, 'POST', "/agent/tasks/$id/steps", body => {});
call(200, 'POST', "/agent/tasks/$id/steps", body => '');
my $made = $step->{artifacts}[0]{artifact_id};

call(200, 'GET', '/agent/tasks?page_size=2&current_page=1');
call(200, 'GET', "/agent/tasks/$id");
call(200, 'HEAD', "/agent/tasks/$id");
call(200, 'GET', "/agent/tasks/$id/steps");
call(200, 'GET', "/agent/tasks/$id/steps/$step->{step_id}");
my $up = call(200, 'POST', "/agent/tasks/$id/artifacts", headers => $type,
              body => $file);
call(200, 'POST', "/agent/tasks/$id/artifacts", headers => $type,
     body => $file, chunked => 777);
call(200, 'GET', "/agent/tasks/$id/artifacts");
call(200, 'GET', "/agent/tasks/$id/artifacts/$up->{artifact_id}");
call(206, 'GET', "/agent/tasks/$id/artifacts/$made",
     headers => { Range => 'bytes=1-3' });
call(416, 'GET', "/agent/tasks/$id/artifacts/$made",
     headers => { Range => 'bytes=9999-' });

call(200, 'POST', '/v/tasks?agent_id=two', body => { input => 'by name' });
call(404, 'POST', '/v/tasks?agent_id=nobody', body => { input => 'no' });
call(200, 'POST', '/v/tasks', note => 'named in the body', body => {
     input => 'x', additional_input => { agent_id => 'short' } });
call(200, 'POST', '/agent/tasks', body => { input => 'big ' x 100_000 });
call(200, 'POST', '/agent/tasks', body => { input => 'c' x 9000 },
     headers => { 'Content-Type' => 'application/json' }, chunked => 500,
     note => 'in chunks') for 1 .. 2;


# What is refused -------------------------------------------------------------

call(404, 'GET', '/agent/nothing');
call(404, 'GET', '/agent/tasks/none');
call(404, 'GET', "/agent/tasks/$none$_")
    for '', '/steps', "/steps/$none", '/artifacts', "/artifacts/$none";
call(404, 'POST', "/agent/tasks/$none/steps", body => {});
call(404, 'POST', "/agent/tasks/$none/artifacts", headers => $type,
     body => $file);
call(405, 'PUT', "/agent/tasks/$id");
call(404, 'DELETE', "/agent/tasks/$none");
call(404, 'POST', "/agent/tasks/$none/cancel", body => {});
call(404, 'GET', "/agent/tasks/$none/steps/$none/trace");
call(422, 'GET', '/agent/tasks?page_size=none');
call(422, 'POST', '/agent/tasks', body => $_,
     headers => { 'Content-Type' => 'application/json' })
    for '{', '{"input": 1}', '[]', '{"input": "\ud800"}',
        "{\"input\": \"\xff\"}";
call(415, 'POST', '/agent/tasks', body => 'x',
     headers => { 'Content-Type' => 'text/plain' });
call(415, 'POST', "/agent/tasks/$id/artifacts", body => {});
call(422, 'POST', "/agent/tasks/$id/artifacts", headers => $type,
     body => $_, note => length $_)
    for '', '--XyZ--', substr($file, 0, 300), $file =~ s{in/}{../}r,
        $file =~ s/a\.txt/../r;
call(413, 'POST', '/agent/tasks', headers => {
     'Content-Type' => 'application/json', 'Content-Length' => 20 << 20 });


# The LLM and its faults ------------------------------------------------------

for (['echo+crlf+comments+bytes', 200], ['echo+json+nousage', 200],
     ['echo+close', 200], ['tools+split:1+bytes', 200], ['badargs', 200],
     ['badtool', 200], ['badpath', 200], ['ask:why', 200], ['secret:pin', 200],
     ['read:in/x', 200], ['http:500:1', 200], ['cut:1', 200], ['hang:1', 200],
     ['http:429:1:1', 200], ['hangmid', 504], ['http:400', 502], ['drop', 502],
     ['cutclean', 502], ['html', 502], ['notjson', 502], ['badsse', 502],
     ['badtype', 502], ['empty', 502], ['badhttp', 502], ['short', 502],
     ['errorevent', 502], ['length', 200])
{
    my ($behaviour, $want) = @$_;
    my $task = task("under valgrind [[$behaviour]]", '/x/two');
    call($want, 'POST', "/x/two/tasks/$task/steps", body => {},
         note => $behaviour);
    # the next has the first in its history
    call(200, 'POST', "/strict/tasks/$task/steps",
         body => { input => 'go on [[echo]]' }, note => "after $behaviour");
    call(200, 'GET', "/strict/tasks/$task/steps");
}

$id = task('too much [[huge:1]]', '/x/small');
call(502, 'POST', "/x/small/tasks/$id/steps", body => {});
$id = task('nobody', '/x/refused');
call(502, 'POST', "/x/refused/tasks/$id/steps", body => {});
$id = task('loop [[loop]]', '/x/short');
call(200, 'POST', "/x/short/tasks/$id/steps", body => {}) for 1 .. 3;

# one that is busy, and a client that leaves
$id = task('leave [[echo+delay:1500]]');
my $c = $nginx->connect;
$c->send(method => 'POST', path => "/agent/tasks/$id/steps", body => {});
poll_until(sub { $pg->psql("select 1 from agent.step where task_id = '$id'") });
call(409, 'POST', "/agent/tasks/$id/steps", body => {});
$c->close;

$c = $nginx->connect;
$c->raw(substr AgentTest::Http::text(method => 'POST', headers => $type,
        path => "/agent/tasks/$id/artifacts", body => $file), 0, 100_000);
sleep 0.5;
$c->close;

# over HTTP/2
my $body = scratch() . '/body';
write_file($body, encode({ input => 'over two' }));
my $nghttp = "nghttp -d $body -H 'content-type: application/json'";
my $said = qx{$nghttp http://127.0.0.1:$h2/agent/tasks 2>&1};
like($said, qr/"input":"over two"/, 'HTTP/2');


# What runs without a client, what is repeated, cancelled, deleted -------------

sub ended {
    my ($id, $steps) = @_;
    ok(poll_until(sub { $pg->psql('select count(*) from agent.step where '
       . "status > 1 and task_id = '$id'") >= $steps }, 60), 'it has run');
}

my $async = { Prefer => 'respond-async' };
$id = task('later [[demo]]');
my $late = call(202, 'POST', "/agent/tasks/$id/steps", body => {},
                headers => $async);
ended($id, 1);
call(200, 'GET', "/agent/tasks/$id/steps/$late->{step_id}", headers => {
     Prefer => 'wait=5' });
call(200, 'GET', "/agent/tasks/$id/steps/$late->{step_id}/trace");

$id = task('by itself [[tools]]', '/x/auto');
ended($id, 1);

my $key = { 'Idempotency-Key' => 'valgrind-1' };
call(200, 'POST', '/agent/tasks', body => { input => 'x' }, headers => $key)
    for 1, 2;
call(422, 'POST', '/agent/tasks', body => { input => 'y' }, headers => $key);
$id = task('keyed');
$key = { 'Idempotency-Key' => 'valgrind-2' };
call(200, 'POST', "/agent/tasks/$id/steps", body => {}, headers => $key)
    for 1, 2;

$id = task('stop it [[hang]]');
call(202, 'POST', "/agent/tasks/$id/steps", body => {}, headers => $async);
poll_until(sub { ($llm->stats->{active} || 0) > 0 });
call(200, 'POST', "/agent/tasks/$id/cancel", body => {});
call(200, 'DELETE', "/agent/tasks/$id");
call(404, 'GET', "/agent/tasks/$id");

$id = task('through itself [[demo]]', '/x/ap');
call(200, 'POST', "/x/ap/tasks/$id/steps", body => {});
call(200, 'GET', "/x/ap/tasks/$id/artifacts");
$id = task('which fails [[http:400]]', '/x/ap');
call(502, 'POST', "/x/ap/tasks/$id/steps", body => {});


# Keys, tenants, limits, what was used -------------------------------------------

sub make_key {
    return { Authorization => 'Bearer ' . $pg->psql(
             "select agent.create_key($_[0])") };
}

my $good = make_key(q{'acme'});
my $read = make_key(q{'acme', p_read_only => true, p_agents => '{two}'});

call(401, 'GET', '/k/tasks');
call(401, 'GET', '/k/tasks', headers => { Authorization => $_ })
    for 'Bearer x', 'Basic eDp5', 'Bearer ak_' . 'a' x 43;
call(403, 'POST', '/k/tasks?agent_id=two', headers => $read,
     body => { input => 'x' });
call(200, 'GET', '/k/tasks', headers => $_) for $read, $good, $good;
call(200, 'GET', '/k/agents', headers => $_) for $read, $good;

$id = call(200, 'POST', '/k/tasks?agent_id=two', headers => $good,
           body => { input => 'a tenant' })->{task_id};
call(404, 'GET', "/agent/tasks/$id");
call(200, 'POST', "/k/tasks/$id/steps", headers => $good, body => {});
$pg->psql(q{select agent.set_quota('acme', p_running => 2, p_steps_day => 2)});
my ($last, @more) = map {
    call(200, 'POST', '/k/tasks?agent_id=two', headers => $good,
         body => { input => "limited $_" })->{task_id};
} 1 .. 3;
call(200, 'POST', "/k/tasks/$more[0]/steps", headers => $good, body => {});
call(429, 'POST', "/k/tasks/$last/steps", headers => $good, body => {});
$pg->psql(q{select agent.set_quota('acme', p_artifact_bytes => 10)});
call(507, 'POST', "/k/tasks/$id/artifacts", body => $file,
     headers => { %$type, %$good });

call(200, 'GET', '/k/usage', headers => $good);
call(200, 'GET', "/usage$_") for '', '?format=csv', '?tenant=acme';
call(200, 'GET', "/status$_") for '', '?format=prometheus';


# The database and its faults -------------------------------------------------

$pg->psql("select pg_terminate_backend(pid) from pg_stat_activity where "
          . "application_name = 'nginx-agent'");
ok(poll_until(sub { $nginx->get('/agent/tasks')->{status} == 200 }, 30),
   'killed connections are made anew');

# more than one call in a batch that is refused
$pg->psql(q{
    create function agent.bad() returns trigger language plpgsql as $$
    begin
        if new.input like 'bad%' then raise exception 'no'; end if;
        return null;
    end $$;
    create constraint trigger bad after insert on agent.task deferrable
        initially deferred for each row execute function agent.bad();});
my @c = map {
    my $c = $nginx->connect(seconds => 60);
    $c->send(method => 'POST', path => '/agent/tasks', headers => {
             Connection => 'close' }, body => {
             input => ($_ % 4 ? 'good' : 'bad') . " $_" });
    $c;
} 1 .. 12;
my %got;
$got{$_->answer->{status}}++ for @c;
is_deeply(\%got, { 200 => 9, 500 => 3 }, 'a call that is refused');
$_->close for @c;

$pg->stop('immediate');
call(503, 'POST', '/agent/tasks', body => { input => 'away' });
call(503, 'GET', '/agent/tasks');
$pg->start;
ok(poll_until(sub { $nginx->get('/agent/tasks')->{status} == 200 }, 30),
   'it is back');


# The end ---------------------------------------------------------------------

ok(poll_until(sub { $pg->psql('select count(*) from agent.step where status '
   . '< 2') eq '0' }, 30), 'no step runs');
# what clients have left is closed
sleep 1;

kill 'QUIT', $pid;
my $status;
poll_until(sub { waitpid($pid, POSIX::WNOHANG()) == $pid
                 and defined($status = $?) }, 60);
AgentTest::forget($pid) if defined $status;

my $text = read_file($report);
is($status, 0, 'nginx quits, and valgrind has nothing to say')
    or diag 'status ', $status // 'none, it had to be killed';
is($text, '', 'no leak, no invalid access');
is(join("\n", $nginx->bad_lines), '', 'the error log has no alert');

done_testing();
