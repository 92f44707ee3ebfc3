#!/usr/bin/perl

# The configuration: every wrong value of every directive gives one exact
# [emerg] line with its file and line; what is right is taken, merged and
# inherited, and survives a reload.  No database is needed: it may be away.

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


# Lines 1 to 3 are fixed: what is under test begins on line 4.

sub config {
    my ($http) = @_;
    return "$load error_log $dir/logs/error.log info;\n"
        . "pid $dir/logs/nginx.pid; events { worker_connections 64; }\n"
        . "http { access_log off;\n$http\n}\n";
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


sub bad {
    my ($name, $http, $want, $line) = @_;
    $line = 4 unless defined $line;
    my ($code, $said) = check(config($http));
    my $place = $line ? " in FILE:$line" : '';
    is($said, "[emerg] $want$place", $name);
    isnt($code, 0, "$name: refused");
}


# a wrong value inside of an agent block

sub bad_agent {
    my ($inside, $want) = @_;
    bad($inside, "$db $art server { $llm agent a { $inside } }", $want);
}


sub good {
    my ($name, $http, $want) = @_;
    my ($code, $said) = check(config($http));
    is($said, defined $want ? $want : '', "$name: nothing to complain of");
    is($code, 0, "$name: accepted");
}


my $args = sub { "invalid number of arguments in \"$_[0]\" directive" };
my $here = sub { "\"$_[0]\" directive is not allowed here" };
my $twice = sub { "\"$_[0]\" directive is duplicate" };
my $value = sub { "invalid value \"$_[1]\" in \"$_[0]\" directive, $_[2]" };


# agent_database

my $no_conninfo = 'invalid conninfo in "agent_database" directive, it is no '
    . 'valid connection string of keyword=value pairs, nor a '
    . 'postgresql:// URI';
my $may_follow = 'only "wait=", "queue=" and "prepared=" may follow the '
    . 'conninfo, which must be quoted when it has spaces';

bad('agent_database without a value', 'agent_database;',
    $args->('agent_database'));
bad('agent_database empty', 'agent_database "";',
    '"agent_database" directive has an empty conninfo');
bad('agent_database is no conninfo', 'agent_database nonsense;',
    $no_conninfo);
bad('agent_database unknown keyword', 'agent_database "hots=127.0.0.1";',
    $no_conninfo);
bad('agent_database a broken quote',
    q{agent_database "host=127.0.0.1 password='s3cret";}, $no_conninfo);
bad('agent_database port', 'agent_database "host=127.0.0.1 port=none";',
    'invalid conninfo in "agent_database" directive, its port is not a '
    . 'number from 1 to 65535');
bad('agent_database unknown host',
    'agent_database "host=no.such.host.invalid";',
    'invalid conninfo in "agent_database" directive, host '
    . '"no.such.host.invalid" not found');
bad('agent_database twice', "$db $db", $twice->('agent_database'));
bad('agent_database in a server', "server { $db }",
    $here->('agent_database'));

for my $case (
    ['wait=', 'wait'], ['wait=99ms', 'wait'], ['wait=61s', 'wait'],
    ['wait=2x', 'wait'], ['wait=-1', 'wait'],
) {
    bad("agent_database $case->[0]",
        "agent_database \"dbname=a\" $case->[0];",
        'invalid parameter 2 in "agent_database" directive, "wait" must be '
        . 'a time from 100ms to 60s');
}

for my $case ('queue=', 'queue=0', 'queue=1000001', 'queue=many', 'queue=-1') {
    bad("agent_database $case", "agent_database \"dbname=a\" $case;",
        'invalid parameter 2 in "agent_database" directive, "queue" must be '
        . 'a number from 1 to 1000000');
}

for my $case ('prepared=', 'prepared=yes', 'prepared=1') {
    bad("agent_database $case",
        "agent_database \"dbname=a\" wait=1s $case;",
        'invalid parameter 3 in "agent_database" directive, "prepared" must '
        . 'be "on" or "off"');
}

for my $case (['wait', '1s'], ['queue', '5'], ['prepared', 'on']) {
    my ($key, $v) = @$case;
    bad("agent_database $key twice",
        "agent_database \"dbname=a\" $key=$v $key=$v;",
        "invalid parameter 3 in \"agent_database\" directive, \"$key\" is "
        . 'set twice');
}

# a conninfo that was not quoted must not put its password into a log
bad('agent_database not quoted, with a password',
    'agent_database dbname=a password=s3cret;',
    "invalid parameter 2 in \"agent_database\" directive, $may_follow");


# agent_artifacts

bad('agent_artifacts without a value', 'agent_artifacts;',
    $args->('agent_artifacts'));
bad('agent_artifacts with levels', 'agent_artifacts a 1 2;',
    $args->('agent_artifacts'));
bad('agent_artifacts empty', 'agent_artifacts "";',
    '"agent_artifacts" directive has an empty path');
bad('agent_artifacts /', 'agent_artifacts //;',
    $value->('agent_artifacts', '//', 'it must be a directory of its own'));
bad('agent_artifacts $x', 'agent_artifacts /tmp/$host;',
    $value->('agent_artifacts', '/tmp/$host',
             'variables are not allowed here'));
bad('agent_artifacts twice', "$art $art", $twice->('agent_artifacts'));
bad('agent_artifacts in a server', "server { $art }",
    $here->('agent_artifacts'));
bad('agent_artifacts shared with a temp path',
    "$art\nclient_body_temp_path $dir/data/art;\nserver { $good $llm $use }",
    'the same path name "DIR/data/art" used in FILE:4 and', 5);
bad('agent_artifacts with no parent directory',
    "$db agent_artifacts $dir/none/art; server { $good $llm $use }",
    'mkdir() "DIR/none/art" failed (2: No such file or directory)', 0);


# agent

my $name_rule = 'it must be 1 to 64 letters, digits, ".", "_" or "-"';
my $long = 'n' x 65;

bad('agent with no name', "server { agent { pass /llm/; } }",
    $args->('agent'));
bad('agent with two names', "server { agent a b { pass /llm/; } }",
    $args->('agent'));
bad('agent with no block', 'server { agent a; }',
    'directive "agent" has no opening "{"');
for my $name ('"a b"', 'a/b', 'a$b', "\"\xc3\xa4\"", '""', $long) {
    (my $shown = $name) =~ s/^"|"$//g;
    bad("agent $name", "server { agent $name { pass /llm/; } }",
        "invalid agent name \"$shown\", $name_rule");
}
bad('agent in http', 'agent a { pass /llm/; }', $here->('agent'));
bad('agent in a location',
    'server { location / { agent a { pass /llm/; } } }', $here->('agent'));
bad('an empty agent block', "server {\n\nagent a { }\n}",
    'no "pass" in agent "a"', 6);
bad('no pass, the line is that of the block',
    "server { agent a {\nmodel m;\n\n}\n}", 'no "pass" in agent "a"');
bad('the same agent twice in a server',
    "server { $llm $good\n$good }",
    'duplicate agent "a", the first one is in FILE:4, this one', 5);
bad('the same agent in two servers',
    "server { $llm $good }\n\nserver { $llm $good }",
    'duplicate agent "a", the first one is in FILE:4, this one', 6);
bad('an unknown directive in agent',
    "server { agent a { pass /llm/; temperature 1; } }",
    'unknown directive "temperature"');
bad('a directive of nginx in agent',
    "server { agent a { pass /llm/; root /; } }", $here->('root'));
bad('a directive of nginx\'s main context in agent',
    "server { agent a { pass /llm/; worker_processes 1; } }",
    $here->('worker_processes'));
bad('an agent in an agent',
    "server { agent a { pass /llm/; $good } }", $here->('agent'));
bad('an unfinished block', 'server { agent a { pass /llm/; ',
    'unexpected end of file, expecting "}"', 6);
for my $name (qw(pass dialect model description instructions timeout attempts
                 max_steps max_answer run price))
{
    bad("$name outside of agent", "server { $name 1; }", $here->($name));
    bad_agent("$name;", $args->($name));
    bad_agent("$name 1 2;", $args->($name)) if $name ne 'instructions';
}


# what stands in agent

my $uri = 'it must be the uri of a location and begin with "/"';

bad_agent('pass llm/;', $value->('pass', 'llm/', $uri));
bad_agent('pass "";', $value->('pass', '', $uri));
bad_agent('pass @llm;', $value->('pass', '@llm', $uri));
bad_agent('pass http://127.0.0.1/;',
    $value->('pass', 'http://127.0.0.1/', $uri));
bad_agent('pass /llm/$host;', $value->('pass', '/llm/$host',
    'variables are not allowed here, they are in the location\'s '
    . '"proxy_pass"'));
bad_agent('pass "/llm/ x";', $value->('pass', '/llm/ x',
    'a uri has no spaces or control characters'));
bad_agent('pass /llm/; pass /llm/;', $twice->('pass'));

bad_agent('dialect anthropic;',
    $value->('dialect', 'anthropic', 'it must be "openai"'));
bad_agent('dialect agent_protocol;', $value->('dialect', 'agent_protocol',
    'this version has "openai" only'));
bad_agent('dialect openai; dialect openai;', $twice->('dialect'));

for my $name (qw(model description instructions)) {
    bad_agent("$name a; $name b;", $twice->($name));
    bad_agent("$name \"\"; $name b;", $twice->($name));
    bad_agent("$name \"\xff\";",
        "the text in \"$name\" directive is not UTF-8");
}
bad_agent("instructions ok \"\xc3\x28\";",
    'the text in "instructions" directive is not UTF-8');

my $time = 'it must be a time from 1ms to 24h';
bad_agent("timeout $_;", $value->('timeout', $_, $time))
    for qw(0 -1 soon 25h 1.5s 99999999999999999999);
bad_agent('timeout 1s; timeout 1s;', $twice->('timeout'));

bad_agent("attempts $_;", $value->('attempts', $_,
    'it must be a number from 1 to 100')) for qw(0 101 -1 x 1k);
bad_agent('attempts 1; attempts 1;', $twice->('attempts'));

bad_agent("max_steps $_;", $value->('max_steps', $_,
    'it must be a number from 1 to 10000')) for qw(0 10001 -1 x);
bad_agent('max_steps 1; max_steps 1;', $twice->('max_steps'));

bad_agent("max_answer $_;", $value->('max_answer', $_,
    'it must be a size from 1 to 1024m')) for qw(0 1025m -1 x 1t);
bad_agent('max_answer 1k; max_answer 1k;', $twice->('max_answer'));

bad_agent('run auto;', $value->('run', 'auto',
    'it needs the queue, which this version has not'));
bad_agent('run fast;', $value->('run', 'fast', 'it must be "step"'));
bad_agent('run step; run step;', $twice->('run'));

my $decimal = 'it must be a decimal such as "0.002", with up to 12 digits '
    . 'before and 6 after the point';
bad_agent("price $_;", $value->('price', $_, $decimal))
    for qw(-1 1e3 .5 5. 1.2.3 x 0x1 1234567890123 0.1234567);
bad_agent('price "";', $value->('price', '', $decimal));
bad_agent('price 1; price 1;', $twice->('price'));


# agent_pass, agent_strict

my $other = '"agent_pass" directive stands in a location that has another '
    . 'content handler';

bad('agent_pass without a value', 'server { location / { agent_pass; } }',
    $args->('agent_pass'));
bad('agent_pass with two', 'server { location / { agent_pass a b; } }',
    $args->('agent_pass'));
bad('agent_pass empty', 'server { location / { agent_pass ""; } }',
    '"agent_pass" directive has an empty agent name');
bad('agent_pass in http', 'agent_pass a;', $here->('agent_pass'));
bad('agent_pass in a server', 'server { agent_pass a; }',
    $here->('agent_pass'));
bad('agent_pass in an if of a server',
    'server { if ($arg_a) { agent_pass a; } }', $here->('agent_pass'));
bad('agent_pass twice',
    'server { location / { agent_pass a; agent_pass a; } }',
    $twice->('agent_pass'));
bad('agent_pass with an unknown variable',
    "$db $art server { $llm $good location / { agent_pass \$nobody; } }",
    'unknown "nobody" variable', 0);
bad('agent_pass behind proxy_pass',
    'server { location / { proxy_pass http://127.0.0.1:1; agent_pass a; } }',
    $other);
bad('agent_pass before proxy_pass',
    "$db $art server { $llm $good\n"
    . "location / { agent_pass a;\nproxy_pass http://127.0.0.1:1; } }",
    $other, 5);
bad('agent_pass without a database',
    "$art server { $llm $good\n\n$use }",
    '"agent_pass" needs "agent_database" in http, which is missing,', 6);
bad('agent_pass without any agent', "$db $art\nserver { $use }",
    '"agent_pass" needs an "agent" block in a server, there is none,', 5);
bad('agent_pass $variable without any agent',
    "$db $art\nserver { location / { agent_pass \$agent_id; } }",
    '"agent_pass" needs an "agent" block in a server, there is none,', 5);
bad('agent_pass to an agent that is not there',
    "$db $art server { $llm $good\nlocation / { agent_pass A; } }",
    'no agent "A" is defined for "agent_pass"', 5);

bad('agent_strict without a value', 'agent_strict;',
    $args->('agent_strict'));
bad('agent_strict maybe', 'agent_strict maybe;', $value->('agent_strict',
    'maybe', 'it must be "on" or "off"'));
bad('agent_strict twice', 'agent_strict on; agent_strict on;',
    $twice->('agent_strict'));
bad('agent_strict in an if',
    'server { location / { if ($arg_a) { agent_strict on; } } }',
    $here->('agent_strict'));


# where agents pass to

my $nowhere = 'no location of this server matches "pass /llm/" of agent "a"';

bad('pass to no location', "$db $art server {\n$good $use }", $nowhere, 5);
bad('pass to a location of another server',
    "$db $art server { $llm }\nserver { $good $use }", $nowhere, 5);
bad('pass to an exact location with a tail',
    "$db $art server { location = /llm { internal; return 204; }\n$good }",
    $nowhere, 5);
bad('pass to a regex that does not match',
    "$db $art server { location ~ ^/llm/v2 { internal; return 204; }\n"
    . "$good }", $nowhere, 5);
bad('pass to itself',
    "$db $art server {\nlocation / { agent_pass a; } $good }",
    '"pass /llm/" of agent "a" leads to location "/", which has '
    . '"agent_pass" itself,', 5);
bad('pass to itself by a regex',
    "$db $art server {\n$llm location ~ /llm/ { agent_pass a; } $good }",
    '"pass /llm/" of agent "a" leads to location "/llm/", which has '
    . '"agent_pass" itself,', 5);

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


# what is right

good('the module is loaded and not used', 'server { location / { } }');
good('all values at their least',
    'agent_database "dbname=a" wait=100ms queue=1 prepared=off; '
    . "$art agent_strict off; server { $llm $use "
    . 'agent a { pass /llm/; timeout 1ms; attempts 1; max_steps 1; '
    . 'max_answer 1; price 0; run step; dialect openai; model ""; } }');
good('all values at their most',
    'agent_database "postgresql://u:p@127.0.0.1:5432/a" wait=60s '
    . "queue=1000000 prepared=on; agent_artifacts $dir/data/art/; "
    . "agent_strict on; server { $llm $use "
    . 'agent a { pass /llm/; timeout 24h; attempts 100; max_steps 10000; '
    . 'max_answer 1024m; price 999999999999.999999; '
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
write_file("$dir/sub/agent.conf", "model m;\nattempts 0;\n");
{
    my ($code, $said) = check(config("server { $llm agent a { pass /llm/; "
        . "include $dir/sub/agent.conf; } }"));
    is($said, '[emerg] invalid value "0" in "attempts" directive, it must '
        . 'be a number from 1 to 100 in DIR/sub/agent.conf:2',
        'an included file is named');
}
is(join(' ', (stat "$dir/data/art") ? 'there' : 'missing'), 'there',
    'nginx made the directory for artifacts');


# it runs: no database in sight, two servers, four workers, reload

my $two = free_port();

sub running {
    my ($strict, $workers) = @_;
    return "worker_processes $workers;\nevents { worker_connections 256; }\n"
        . "http {\n"
        . "agent_database \"host=127.0.0.1 port=1 dbname=a\" wait=100ms;\n"
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
