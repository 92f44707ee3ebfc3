#!/usr/bin/perl

# Configurations that are right: what is taken, merged and inherited, that it
# starts with the database away and survives reloads, to a wrong one too.
# What is wrong is in config.t.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;

use AgentTest;

my $dir = scratch() . '/t';
mkdir "$_" for $dir, map { "$dir/$_" } qw(logs data sub);

(my $load = AgentTest::Nginx::modules()) =~ s/\n/ /g;

my $db = 'agent_database "host=127.0.0.1 port=1 dbname=agent";';
my $art = "agent_artifacts $dir/data/art;";
my $llm = 'location /llm/ { internal; return 204; }';
my $good = 'agent a { pass /llm/; }';
my $use = 'location /ap/ { agent_pass a; }';


# nginx makes these while it checks; the package's own are not everyone's
my $temp = join '', map { " ${_}_temp_path $dir/data/$_;" }
               qw(client_body proxy fastcgi uwsgi scgi);

# Lines 1 to 3 are fixed: what is under test begins on line 4.

sub config {
    my ($http) = @_;
    return "$load error_log $dir/logs/error.log info;\n"
        . "pid $dir/logs/nginx.pid; events { worker_connections 64; }\n"
        . "http { access_log off;$temp\n$http\n}\n";
}


# nginx -t: the exit code, and what it said but for its closing words

sub check {
    my ($text) = @_;
    write_file("$dir/nginx.conf", $text);
    my $nginx = AgentTest::Nginx::binary();
    my $out = `'$nginx' -t -p '$dir/' -c '$dir/nginx.conf' 2>&1`;
    my $code = $? >> 8;
    $out =~ s/\Q$dir\E\/nginx\.conf(:\d+)/FILE$1/g;
    $out =~ s/\Q$dir\E/DIR/g;
    my @lines = grep { !/(?:syntax is ok|test is successful|test failed)$/
                       && !/could not open error log file/
                       && !/the "user" directive makes sense only/ }
        split /\n/, $out;
    s{^nginx: |^\d+/\d+/\d+ [\d:]+ (\[\w+\]) \d+#\d+: }{$1 ? "$1 " : ''}e
        for @lines;
    return ($code, join "\n", @lines);
}


sub good {
    my ($name, $http, $want) = @_;
    my ($code, $said) = check(config($http));
    is($said, defined $want ? $want : '', "$name: nothing to complain of");
    is($code, 0, "$name: accepted");
}


# where agents pass to

for my $location (
    'location / { internal; }',
    'location = /llm/ { internal; }',
    'location ^~ /llm { internal; }',
    'location ~ ^/l+m { internal; }',
    'location ~* ^/LLM { internal; }',
    'location /a { } location /l { location /llm { internal; } }',
    'location /llx/ { } location /lln/ { } location /ll { internal; }',
    'location /llm/ { internal; } location /llm/v1/ { }',
    'location ^~ /llm/ { internal; } location ~ . { }',
) {
    good($location, "$db $art server { $good $use $location }");
}

good('pass with arguments',
    "$db $art server { agent a { pass /llm/?beta=1; } $use "
    . 'location = /llm/ { internal; } }');
good('a location for all that is not internal',
    "$db $art server { $good $use\nlocation /llm/ { return 204; } }",
    '[warn] location "/llm/", where agent "a" passes to, is not "internal": '
    . 'clients can call it too, in FILE:4');
good('no agent_artifacts', "$db server { $llm $good\n$use }",
    '[warn] no "agent_artifacts" in http, artifacts are refused by '
    . '"agent_pass" in FILE:5');


# who accepts, who runs

good('agents are run, none is served', "$db $art server { $llm $good }");
good('and have no agent_artifacts', "$db server { $llm\n$good }",
    '[warn] no "agent_artifacts" in http, agent "a" cannot write files, in '
    . 'FILE:5');
good('agents are served and not run: there need be no way to the LLM',
    "$db $art agent_run off; server { $good $use }");
good('agents are neither served nor run, and there is no database',
    "agent_run off; server { location / { internal; }\n$good }",
    '[warn] agent "a" is of no use: "agent_run" is off and there is no '
    . '"agent_pass", in FILE:5');
good('the same with a status location',
    "$db agent_run off; server {\n$good location = /s { agent_status; } }",
    '[warn] agent "a" is of no use: "agent_run" is off and there is no '
    . '"agent_pass", in FILE:5');
good('a status location alone',
    "$db server { location = /s { agent_status; limit_except GET { "
    . 'deny all; } if ($arg_x) { set $x 1; } } }');
good('more at once than connections can carry',
    "$db $art agent_concurrency 22; server { $llm $good $use }",
    '[warn] "agent_concurrency" 22 is more than a third of '
    . '"worker_connections" 64: a step whose client waits takes three of '
    . 'them');
{
    my $late = config("$db $art agent_concurrency 43; server { $llm $good }");
    $late =~ s/^(.*)(events \{.*?\})(.*)\z/$1$3events { worker_connections 128; }/s
        or die;
    my ($code, $said) = check($late);
    like($said, qr/^\[warn\] "agent_concurrency" 43 .* 128: /,
        'worker_connections may stand behind http');
    is($code, 0, 'it is a warning only');
}


# what is right

good('the module is loaded and not used', 'server { location / { } }');
good('all values at their least',
    'agent_database "dbname=a" wait=100ms queue=1 prepared=off; '
    . "$art agent_strict off; agent_run off; agent_concurrency 1; "
    . 'agent_queue 1 poll=100ms patience=1s; '
    . "server { $llm $use location = /status { agent_status; } "
    . 'agent a { pass /llm/; timeout 1ms; attempts 1; max_steps 1; '
    . 'concurrency 0; max_answer 1; price 0; run step; dialect openai; '
    . 'model ""; } }');
good('all values at their most',
    'agent_database "postgresql://u:p@127.0.0.1:5432/a" wait=60s '
    . "queue=1000000 prepared=on; agent_artifacts $dir/data/art/; "
    . 'agent_strict on; agent_run on; agent_concurrency 21; '
    . "agent_queue 10000000 patience=7d poll=60s; server { $llm $use "
    . 'agent a { pass /llm/; timeout 24h; attempts 100; max_steps 10000; '
    . 'concurrency 100000; run auto; max_answer 1024m; price 999999999999.999999; '
    . "description \"\xe2\x82\xac\"; "
    . 'instructions "' . ('x' x 3000) . '" "' . ('y' x 3000) . '"; } }');
good('agents behind their use, in two servers, one with variables',
    "$db $art server { location /x/ { agent_pass \$agent_id; } "
    . "location /y/ { agent_pass b.B_2-c; } $llm $good }\n"
    . "server { listen 8081; $llm agent b.B_2-c { pass /llm/; } $use }");
good('agent_pass in if and limit_except',
    "$db $art server { $llm $good agent b { pass /llm/; } location / { "
    . 'if ($arg_b) { agent_pass b; } limit_except GET { agent_pass a; } } }');
write_file("$dir/sub/agent.conf", "model m;\nattempts 2;\n");
good('include in an agent block',
    "$db $art server { $llm $use agent a { include $dir/sub/agent.conf; "
    . 'pass /llm/; } }');
is(join(' ', (stat "$dir/data/art") ? 'there' : 'missing'), 'there',
    'nginx made the directory for artifacts');


# it runs: no database in sight, two servers, four workers, reload

my $two = free_port();

sub running {
    my ($strict, $workers) = @_;
    return "worker_processes $workers;\nevents { worker_connections 256; }\n"
        . "http {\n"
        . "agent_database \"host=127.0.0.1 port=1 dbname=a "
        . "password=s3cret\" wait=100ms;\n"
        . "agent_artifacts %DIR%/artifacts;\n"
        . "proxy_cache_path %DIR%/cache keys_zone=c:1m;\n"
        . "agent_strict $strict;\n"
        . "server { listen 127.0.0.1:%PORT%; $llm $good\n"
        . "  location /ap/v1/agent/ { agent_pass a; }\n"
        . "  location /if/ { agent_pass a; if (\$arg_x) { set \$x 1; } }\n"
        . "  location /lmt/ { agent_pass a; limit_except GET { allow all; } "
        . "}\n  location /nest/ { agent_pass a; location /nest/in/ { "
        . "return 418; } location /nest/un/ { } } }\n"
        . "server { listen 127.0.0.1:$two; $llm agent b { pass /llm/; }\n"
        . "  location /agent/ { agent_pass \$agent_id; } }\n}\n";
}


# A worker that serves agents says that it cannot connect; the cache manager
# and loader, which nginx runs beside it, have nothing to do with that.

sub connecting {
    my ($log) = @_;
    my %pids = map { $_ => 1 }
        $log =~ /(\d+)#\d+: (?:\*\d+ )?agent pg: .*cannot connect/g;
    my @sorted = sort { $a <=> $b } keys %pids;
    return @sorted;
}


my $nginx = AgentTest::Nginx->new(conf => running('off', 4));

ok(poll_until(sub { $nginx->workers == 4 }),
    'four workers, with the database away');
ok(poll_until(sub { connecting($nginx->log_text) >= 4 }), 'all try it');
is(join(' ', connecting($nginx->log_text)), join(' ', $nginx->workers),
    'and nobody but the workers does');

my $id = '01890000-0000-7000-8000-000000000000';

for my $path ('/ap/v1/agent/tasks', "/ap/v1/agent/tasks/$id", '/if/tasks?x=1',
              '/if/tasks', '/lmt/tasks', '/nest/tasks')
{
    my $r = $nginx->get($path);
    is($r->{status}, 503, "$path: the module answers, the database is away");
    like($r->{json}{message}, qr/database/, "$path: it says so");
}

is(AgentTest::Http::request(port => $two, path => '/agent/tasks')->{status},
    503, 'the other server as well');

is($nginx->get('/nest/in/tasks')->{status}, 418,
    'a nested location has its own handler');
like($nginx->get('/nest/un/tasks')->{body}, qr/<html>/,
    'agent_pass is not inherited by a nested location');
my $r = $nginx->post('/lmt/tasks', {});
is($r->{status}, 503, 'but it is by limit_except');
ok($r->{json}{message}, 'with an answer of the module');
is($nginx->get('/llm/')->{status}, 404, 'internal stays internal');

ok($nginx->reload(running('on', 2)), 'reload');
is(scalar(() = $nginx->workers), 2, 'two workers');
is($nginx->get('/ap/v1/agent/tasks')->{status}, 503, 'it goes on answering');

$nginx->write_conf("events { }\nhttp {\nserver { $llm agent a { pass x; } }\n"
    . "}\n");
kill 'HUP', $nginx->{pid};
ok(poll_until(sub { $nginx->log_text
    =~ /\[emerg\].*invalid value "x" in "pass" directive/ }),
    'reload with an error: it is logged');
is($nginx->get('/ap/v1/agent/tasks')->{status}, 503,
    'and the old configuration goes on');

ok($nginx->reload("events { }\nhttp {\nserver { listen 127.0.0.1:%PORT%; "
    . "location / { return 200 plain; } }\n}\n"),
    'reload to a configuration without agents');
is($nginx->get('/')->{body}, 'plain', 'it serves');

ok($nginx->reload(running('off', 1)), 'and back');
is($nginx->get('/ap/v1/agent/tasks')->{status}, 503, 'with agents again');

$nginx->finish(but => qr/invalid value "x" in "pass" directive/);
unlike(read_file("$dir/logs/error.log") . $nginx->log_text, qr/s3cret/,
    'no password in a log');

done_testing();
