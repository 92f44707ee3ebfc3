#!/usr/bin/perl

# agent_status: both forms, which one is chosen, what is counted and for how
# long, over workers, reloads, kills and a lost database.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use Test::More;

my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;

sub my_conf {
    my (%o) = @_;
    return conf(pg => $pg, llm => $llm, workers => 2,
                agents => { writer => 'concurrency 3;',
                            'a.b-c_D' => '', %{$o{agents} || {}} },
                server => "location = /status { agent_status; }");
}

my $nginx = AgentTest::Nginx->new(conf => my_conf());


# Prometheus' text form, read strictly: {family => {type, samples => {labels
# => value}}}, or dies in words.

sub parse {
    my ($text) = @_;

    my (%family, %closed, $now, $helped);
    my $name = qr/[a-zA-Z_:][a-zA-Z0-9_:]*/;

    die "the last line has no end\n" unless $text =~ /\n\z/;

    for my $line (split /\n/, $text) {
        if ($line =~ /^# HELP ($name) ([^\\]+)\z/) {
            die "$1 comes twice\n" if $family{$1} || $closed{$1};
            $closed{$now} = 1 if defined $now;
            ($now, $helped) = ($1, 1);

        } elsif ($line =~ /^# TYPE ($name) (counter|gauge)\z/) {
            my $type = $2;
            die "TYPE of $1 has no HELP before it\n"
                unless $helped && $1 eq $now;
            $helped = 0;
            $family{$now} = { type => $type, samples => {} };
            die "$type $now\n"
                if ($type eq 'counter') != ($now =~ /_total\z/);

        } elsif ($line =~ /^($name)(?:\{(.*)\})? (\d+(?:\.\d+)?)\z/) {
            my ($n, $labels, $value) = ($1, $2 // '', $3);
            die "$n is not in its family\n"
                unless defined $now && $n eq $now && $family{$n};
            die "labels $labels\n" unless $labels
                =~ /^(?:$name="[^"\\]*"(?:,$name="[^"\\]*")*)?\z/;
            die "$n\{$labels} twice\n"
                if exists $family{$n}{samples}{$labels};
            $family{$n}{samples}{$labels} = $value;

        } else {
            die "not understood: $line\n";
        }
    }

    die "no sample of $_\n" for grep { !%{$family{$_}{samples}} } keys %family;
    return \%family;
}

sub status { return $nginx->get('/status', @_)->{json} }

sub metrics {
    my $text = $nginx->get('/status?format=prometheus')->{body};
    my $got = eval { parse($text) } or diag "$@$text";
    return $got || {};
}

sub metric {
    my ($family, $labels) = @_;
    return metrics()->{$family}{samples}{$labels // ''};
}


# a parser that takes everything would prove nothing

for my $bad ("a 1\n", "# HELP a x\n# TYPE a gauge\na 1",
             "# HELP a x\n# TYPE a gauge\na 1\na 2\n",
             "# HELP a x\n# TYPE a gauge\na{b=1} 1\n",
             "# HELP a x\n# TYPE a counter\na 1\n",
             "# HELP a x\n# TYPE a gauge\na 1\n# HELP b x\n# TYPE b gauge\n"
             . "b 1\na{x=\"y\"} 1\n",
             "# HELP a x\n# TYPE a gauge\n") {
    ok(!eval { parse($bad) }, 'the parser is strict');
}


# forms ----------------------------------------------------------------------

my $r = $nginx->get('/status');
is($r->{status}, 200, 'the status');
is($r->{headers}{'content-type'}, 'application/json', 'is JSON');
is($r->{headers}{'cache-control'}, 'no-store', 'and not to be kept');
is($r->{json}{schema}, 4, 'the schema');
like($r->{json}{version}, qr/^\d+\.\d+\.\d+$/, 'the version');
is(poll_until(sub { status()->{workers} == 2 }), 1, 'both workers');
like($r->{json}{uptime}, qr/^\d+$/, 'the uptime');
is_deeply([map { [$_->{name}, $_->{running}, $_->{limit}] }
           @{$r->{json}{agents}}],
          [['a.b-c_D', 0, undef], ['writer', 0, 3]], 'the agents');

my $prometheus = 'text/plain; version=0.0.4; charset=utf-8';
my $json = 'application/json';

$r = $nginx->get('/status?format=prometheus');
is($r->{status}, 200, 'the other form');
is($r->{headers}{'content-type'}, $prometheus, 'its type');
my $first = eval { parse($r->{body}) };
ok($first, 'it can be read') or diag "$@$r->{body}";
is($first->{agent_info}{samples}{'version="' . status()->{version}
                                 . '",schema="4"'}, 1, 'the version');
cmp_ok(scalar keys %$first, '>=', 30, 'all of it');

for (['application/openmetrics-text;version=1.0.0;q=0.5,'
      . 'application/openmetrics-text;version=0.0.1;q=0.4,'
      . 'text/plain;version=0.0.4;q=0.3,*/*;q=0.2', $prometheus],
     ['text/plain', $prometheus], ['TEXT/PLAIN', $prometheus],
     ['text/*', $prometheus], [' text/plain ; q=1 , */*;q=0.9', $prometheus],
     ['text/plain;q=0.5, application/json;q=0.4', $prometheus],
     ['text/plain;q=0.4, application/json;q=0.5', $json],
     ['text/plain;q=0.001', $prometheus], ['text/plain;q=0', $json],
     ['text/html, */*;q=0.8', $json], ['*/*', $json], ['', $json],
     ['application/json, text/plain, */*', $json],
     ['text/plain;q=', $prometheus], [',,;;q=9,text', $json],
     ['text/*;q=0.1, text/plain;q=0.9, application/*;q=0.5', $prometheus]) {
    my ($accept, $type) = @$_;
    $r = $nginx->get('/status', headers => { Accept => $accept });
    is($r->{headers}{'content-type'}, $type, "Accept: $accept");
}

$r = $nginx->get('/status?format=json', headers => { Accept => 'text/plain' });
is($r->{headers}{'content-type'}, $json, 'what the query says goes first');

$r = $nginx->get('/status?format=xml');
is($r->{status}, 422, 'a form that there is not');
is($r->{json}{message}, '"format" must be "json" or "prometheus"', 'in words');

for my $path ('/status', '/status?format=prometheus') {
    $r = $nginx->request(method => 'HEAD', path => $path);
    is("$r->{status} $r->{body}", '200 ', "HEAD $path");
    cmp_ok($r->{headers}{'content-length'}, '>', 500, 'its length');
}

for my $method (qw(POST PUT DELETE OPTIONS)) {
    $r = $nginx->request(method => $method, path => '/status', body => 'x');
    is($r->{status}, 405, "$method is refused");
    is($r->{headers}{allow}, 'GET, HEAD', 'Allow');
    ok($r->{json}{message}, 'in words');
}


# what is counted ------------------------------------------------------------

on_record($nginx, $pg);

my $before = status();

sub grown {
    my ($group, $key) = @_;
    return status()->{$group}{$key} - $before->{$group}{$key};
}

my $task = make_task($nginx, 'hello');
is(run_step($nginx, $task)->{json}{status}, 'completed', 'a step');
my $fails = make_task($nginx, 'no [[http:400]]');
is(run_step($nginx, $fails)->{status}, 502, 'a step that fails');
my $again = make_task($nginx, 'once [[http:500:1]]');
is(run_step($nginx, $again)->{status}, 200, 'one that is tried again');
my $asks = make_task($nginx, 'well [[ask:why?]]');
is(run_step($nginx, $asks)->{json}{status}, 'waiting_for_input', 'one asks');
is($nginx->get('/agent/tasks/x')->{status}, 404, 'an unknown task');

for (['tasks', 'created', 4], ['steps', 'begun', 4], ['steps', 'completed', 2],
     ['steps', 'failed', 1], ['steps', 'waiting_for_input', 1],
     ['steps', 'queued', 0], ['calls', 'made', 5], ['calls', 'retries', 1],
     ['responses', '2xx', 7], ['responses', '4xx', 1],
     ['responses', '5xx', 1], ['responses', 'refused', 0],
     ['steps', 'fenced_writes', 0], ['steps', 'takeovers', 0]) {
    my ($group, $key, $n) = @$_;
    is(grown($group, $key), $n, "$group.$key");
}

cmp_ok(grown('calls', 'tokens_out'), '>', 0, 'tokens');
cmp_ok(grown('database', 'writer_calls'), '>=', 8, 'calls of the writer');
cmp_ok(grown('database', 'writer_batches'), '<=',
       grown('database', 'writer_calls'), 'in no more batches');
is(status()->{database}{writer_ready}, 2, 'both workers can write');
is(status()->{database}{reader_ready}, 2, 'and read');
cmp_ok(status()->{database}{connects}, '>=', 4, 'four connections');
is(status()->{steps}{running}, 0, 'nothing runs now');


# both forms say the same

my $m = metrics();
my $s = status();

for (['agent_tasks_created_total', '', $s->{tasks}{created}],
     ['agent_steps_ended_total', 'status="completed"', $s->{steps}{completed}],
     ['agent_steps_ended_total', 'status="failed"', $s->{steps}{failed}],
     ['agent_responses_total', 'class="2xx"', $s->{responses}{'2xx'}],
     ['agent_responses_total', 'class="5xx"', $s->{responses}{'5xx'}],
     ['agent_calls_total', '', $s->{calls}{made}],
     ['agent_tokens_total', 'direction="out"', $s->{calls}{tokens_out}],
     ['agent_database_connects_total', '', $s->{database}{connects}],
     ['agent_workers', '', $s->{workers}],
     ['agent_queue_limit', '', $s->{queue_limit}],
     ['agent_runs_limit', 'agent="writer"', 3],
     ['agent_runs_limit', 'agent="a.b-c_D"', 0]) {
    my ($family, $labels, $n) = @$_;
    is($m->{$family}{samples}{$labels}, $n, "$family\{$labels}");
}

like($m->{agent_loop_stall_max_seconds}{samples}{''}, qr/^\d+\.\d{3}$/,
     'the stall is in seconds');


# what is going on now -------------------------------------------------------

sub hold {
    my $id = make_task($nginx, 'wait [[hold]]');
    my $c = $nginx->connect;
    $c->send(method => 'POST', path => "/agent/tasks/$id/steps", body => {});
    return $c;
}

sub release {
    AgentTest::Http::request(port => $llm->port, method => 'POST',
                             path => '/_release', body => '');
}

sub runs { return metric('agent_runs', 'agent="writer"') }

my @held = map { hold() } 1 .. 2;
ok(poll_until(sub { runs() == 2 }), 'two runs of the agent');
is(status()->{steps}{running}, 2, 'two steps run');
ok(poll_until(sub { status()->{steps}{watchers} == 2 }), 'two clients wait');
is((grep { $_->{name} eq 'writer' } @{status()->{agents}})[0]{running}, 2,
   'in JSON as well');
release();
is($_->answer->{status}, 200, 'one ends') for @held;
ok(poll_until(sub { runs() == 0 && status()->{steps}{running} == 0
                    && status()->{steps}{watchers} == 0 }), 'nothing runs');


# a reload: the numbers go on ------------------------------------------------

$s = status();
ok($nginx->reload(my_conf(agents => { another => '' })), 'a reload');
ok(poll_until(sub { status()->{workers} == 2 }), 'two workers again')
    or diag encode(status());
is(status()->{tasks}{created}, $s->{tasks}{created}, 'the tasks of before');
is(status()->{calls}{made}, $s->{calls}{made}, 'and the calls');
is_deeply([map { $_->{name} } @{status()->{agents}}],
          ['a.b-c_D', 'another', 'writer'], 'with a new agent');
make_task($nginx, 'more');
is(status()->{tasks}{created}, $s->{tasks}{created} + 1, 'they go on');


# a worker that is killed holds nothing any more ------------------------------

@held = map { hold() } 1 .. 3;
ok(poll_until(sub { runs() == 3 }), 'as many runs as the agent may have');

for my $pid ($nginx->workers) {
    kill 'KILL', $pid;
}

ok(poll_until(sub { my $m = eval { metrics() } || {};
                    ($m->{agent_workers}{samples}{''} || 0) == 2 }),
   'new workers');
$s = status();
ok($s->{tasks}{created}, 'what was counted is still there');
release() while !poll_until(sub { runs() == 0 && status()->{steps}{running} == 0
                                  && $pg->psql('select count(*) from agent.step'
                                     . ' where status < 2') == 0 }, 0.2)
                && $s->{uptime} + 40 > status()->{uptime};
is(runs(), 0, 'no place is lost');
ok(poll_until(sub { status()->{steps}{takeovers} >= 3 }), 'three takeovers')
    or diag encode(status());

my @more = map { hold() } 1 .. 3;
ok(poll_until(sub { runs() == 3 && $llm->stats->{held} == 3 }),
   'three may run again');
release();
is($_->answer->{status}, 200, 'and end') for @more;


# the database goes away -------------------------------------------------------

$s = status();
$pg->psql('select count(pg_terminate_backend(pid)) from pg_stat_activity'
          . " where datname = current_database() and pid <> pg_backend_pid()");
ok(poll_until(sub { status()->{database}{losses}
                    >= $s->{database}{losses} + 4 }), 'four are lost')
    or diag encode(status()->{database});
ok(poll_until(sub { my $d = status()->{database};
                    $d->{writer_ready} == 2 && $d->{reader_ready} == 2
                    && $d->{connects} >= $s->{database}{connects} + 4 }),
   'and made again') or diag encode(status()->{database});


# Prometheus' own judgement ----------------------------------------------------

SKIP: {
    my ($promtool) = grep { -x } map { "$_/promtool" } split /:/, $ENV{PATH};
    skip 'promtool is not installed', 1 unless $promtool;

    my $file = scratch() . '/metrics';
    write_file($file, $nginx->get('/status?format=prometheus')->{body});
    my $said = qx{$promtool check metrics < $file 2>&1};
    is("$?: $said", '0: ', 'promtool finds nothing');
}

$nginx->finish(but => qr/exited on signal 9/);
done_testing();
