#!/usr/bin/perl

# Every wrong value of every directive of http, server and location; the
# agent block's are in config_agent.t, what is right is in config_reload.t.
# The sections are explained in lib/config_blocks.pl.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

require 'config_blocks.pl';

run_tests();

__DATA__

=== TEST 1: VALUE without a value
--- values: agent_database agent_artifacts agent_run agent_concurrency
    agent_queue agent_auth_zone agent_strict agent_tenant
--- http_config
VALUE;
--- must_die
--- error_log
[emerg] invalid number of arguments in "VALUE" directive in http_config:1

=== TEST 2: VALUE in a server
--- values: agent_database agent_artifacts agent_run agent_concurrency
    agent_queue agent_auth_zone agent_pass agent_auth agent_status
    agent_usage
--- config
VALUE a;
--- must_die
--- error_log
[emerg] "VALUE" directive is not allowed here in config:1

=== TEST 3: agent_database empty
--- http_config
agent_database "";
--- must_die
--- error_log
[emerg] "agent_database" directive has an empty conninfo in http_config:1

=== TEST 4: agent_database is no conninfo: VALUE
--- values
nonsense
"hots=127.0.0.1"
"host=127.0.0.1 password='s3cret"
--- http_config
agent_database VALUE;
--- must_die
--- error_log
[emerg] invalid conninfo in "agent_database" directive, it is no valid
    connection string of keyword=value pairs, nor a postgresql:// URI in
    http_config:1

=== TEST 5: agent_database with a wrong port
--- http_config
agent_database "host=127.0.0.1 port=none";
--- must_die
--- error_log
[emerg] invalid conninfo in "agent_database" directive, its port is not a
    number from 1 to 65535 in http_config:1

=== TEST 6: agent_database with an unknown host
--- http_config
agent_database "host=no.such.host.invalid";
--- must_die
--- error_log
[emerg] invalid conninfo in "agent_database" directive, host
    "no.such.host.invalid" not found in http_config:1

=== TEST 7: agent_database twice
--- http_config
agent_database "dbname=a";
agent_database "dbname=a";
--- must_die
--- error_log
[emerg] "agent_database" directive is duplicate in http_config:2

=== TEST 8: agent_database VALUE
--- values: wait= wait=99ms wait=61s wait=2x wait=-1
--- http_config
agent_database "dbname=a" VALUE;
--- must_die
--- error_log
[emerg] invalid parameter 2 in "agent_database" directive, "wait" must be a
    time from 100ms to 60s in http_config:1

=== TEST 9: agent_database VALUE
--- values: queue= queue=0 queue=1000001 queue=many queue=-1
--- http_config
agent_database "dbname=a" VALUE;
--- must_die
--- error_log
[emerg] invalid parameter 2 in "agent_database" directive, "queue" must be a
    number from 1 to 1000000 in http_config:1

=== TEST 10: agent_database VALUE
--- values: prepared= prepared=yes prepared=1
--- http_config
agent_database "dbname=a" wait=1s VALUE;
--- must_die
--- error_log
[emerg] invalid parameter 3 in "agent_database" directive, "prepared" must be
    "on" or "off" in http_config:1

=== TEST 11: agent_database with wait twice
--- http_config
agent_database "dbname=a" wait=1s wait=1s;
--- must_die
--- error_log
[emerg] invalid parameter 3 in "agent_database" directive, "wait" is set twice
    in http_config:1

=== TEST 12: agent_database with queue twice
--- http_config
agent_database "dbname=a" queue=5 queue=5;
--- must_die
--- error_log
[emerg] invalid parameter 3 in "agent_database" directive, "queue" is set twice
    in http_config:1

=== TEST 13: agent_database with prepared twice
--- http_config
agent_database "dbname=a" prepared=on prepared=on;
--- must_die
--- error_log
[emerg] invalid parameter 3 in "agent_database" directive, "prepared" is set
    twice in http_config:1

=== TEST 14: agent_database not quoted: its password is not put into a log
--- http_config
agent_database dbname=a password=s3cret;
--- must_die
--- error_log
[emerg] invalid parameter 2 in "agent_database" directive, only "wait=",
    "queue=" and "prepared=" may follow the conninfo, which must be quoted when
    it has spaces in http_config:1

=== TEST 15: agent_artifacts with levels
--- http_config
agent_artifacts a 1 2;
--- must_die
--- error_log
[emerg] invalid number of arguments in "agent_artifacts" directive in
    http_config:1

=== TEST 16: agent_artifacts empty
--- http_config
agent_artifacts "";
--- must_die
--- error_log
[emerg] "agent_artifacts" directive has an empty path in http_config:1

=== TEST 17: agent_artifacts at the root
--- http_config
agent_artifacts //;
--- must_die
--- error_log
[emerg] invalid value "//" in "agent_artifacts" directive, it must be a
    directory of its own in http_config:1

=== TEST 18: agent_artifacts with a variable
--- http_config
agent_artifacts /tmp/$host;
--- must_die
--- error_log
[emerg] invalid value "/tmp/$host" in "agent_artifacts" directive, variables
    are not allowed here in http_config:1

=== TEST 19: agent_artifacts twice
--- http_config
agent_artifacts $TEST_NGINX_SCRATCH/artifacts;
agent_artifacts $TEST_NGINX_SCRATCH/artifacts;
--- must_die
--- error_log
[emerg] "agent_artifacts" directive is duplicate in http_config:2

=== TEST 20: agent_artifacts shared with a temp path
--- http_config
agent_artifacts $TEST_NGINX_SCRATCH/artifacts;
--- config
agent a { pass /llm/; }
client_body_temp_path $TEST_NGINX_SCRATCH/artifacts;
location /llm/ { internal; return 204; }
--- must_die
--- error_log
[emerg] the same path name "$TEST_NGINX_SCRATCH/artifacts" used in
    http_config:1 and in config:2

=== TEST 21: agent_artifacts with no parent directory
--- http_config
agent_database "dbname=a";
agent_artifacts $TEST_NGINX_SCRATCH/none/artifacts;
--- config
agent a { pass /llm/; }
location /ap/ { agent_pass a; }
location /llm/ { internal; return 204; }
--- must_die
--- error_log
[emerg] mkdir() "$TEST_NGINX_SCRATCH/none/artifacts" failed (2: No such file or
    directory)

=== TEST 22: agent_run maybe
--- http_config
agent_run maybe;
--- must_die
--- error_log
[emerg] invalid value "maybe" in "agent_run" directive, it must be "on" or
    "off" in http_config:1

=== TEST 23: VALUE twice
--- values: agent_concurrency agent_queue
--- http_config
VALUE 1;
VALUE 1;
--- must_die
--- error_log
[emerg] "VALUE" directive is duplicate in http_config:2

=== TEST 24: agent_run twice
--- http_config
agent_run on;
agent_run off;
--- must_die
--- error_log
[emerg] "agent_run" directive is duplicate in http_config:2

=== TEST 25: agent_concurrency VALUE
--- values: 0 -1 100001 many 1k
--- http_config
agent_concurrency VALUE;
--- must_die
--- error_log
[emerg] invalid value "VALUE" in "agent_concurrency" directive, it must be a
    number from 1 to 100000 in http_config:1

=== TEST 26: agent_queue VALUE
--- values: 0 -1 10000001 many 1k poll=1s
--- http_config
agent_queue VALUE;
--- must_die
--- error_log
[emerg] invalid value "VALUE" in "agent_queue" directive, it must be a number
    from 1 to 10000000 in http_config:1

=== TEST 27: agent_queue VALUE
--- values: poll= poll=99ms poll=61s poll=x poll=-1
--- http_config
agent_queue 5 VALUE;
--- must_die
--- error_log
[emerg] invalid parameter 2 in "agent_queue" directive, "poll" must be a time
    from 100ms to 60s in http_config:1

=== TEST 28: agent_queue VALUE
--- values: patience= patience=999ms patience=8d patience=x patience=-1
--- http_config
agent_queue 5 poll=1s VALUE;
--- must_die
--- error_log
[emerg] invalid parameter 3 in "agent_queue" directive, "patience" must be a
    time from 1s to 7d in http_config:1

=== TEST 29: agent_queue with VALUE twice
--- values: poll patience
--- http_config
agent_queue 5 VALUE=1s VALUE=1s;
--- must_die
--- error_log
[emerg] invalid parameter 3 in "agent_queue" directive, "VALUE" is set twice in
    http_config:1

=== TEST 30: agent_queue VALUE
--- values: 5 wait=1s poll
--- http_config
agent_queue 5 VALUE;
--- must_die
--- error_log
[emerg] invalid parameter 2 in "agent_queue" directive, only "poll=" and
    "patience=" may follow the number in http_config:1

=== TEST 31: agent_pass empty
--- config
location / { agent_pass ""; }
--- must_die
--- error_log
[emerg] "agent_pass" directive has an empty agent name in config:1

=== TEST 32: agent_pass in an if of a server
--- config
if ($arg_a) { agent_pass a; }
--- must_die
--- error_log
[emerg] "agent_pass" directive is not allowed here in config:1

=== TEST 33: agent_pass twice
--- config
location / { agent_pass a; agent_pass a; }
--- must_die
--- error_log
[emerg] "agent_pass" directive is duplicate in config:1

=== TEST 34: agent_pass with an unknown variable
--- http_config
agent_database "dbname=a"; agent_artifacts $TEST_NGINX_SCRATCH/artifacts;
--- config
location /llm/ { internal; return 204; }
agent a { pass /llm/; }
location / { agent_pass $nobody; }
--- must_die
--- error_log
[emerg] unknown "nobody" variable

=== TEST 35: agent_pass behind proxy_pass
--- config
location / {
    proxy_pass http://127.0.0.1:1;
    agent_pass a;
}
--- must_die
--- error_log
[emerg] "agent_pass" directive stands in a location that has another content
    handler in config:3

=== TEST 36: agent_pass before proxy_pass
--- http_config
agent_database "dbname=a"; agent_artifacts $TEST_NGINX_SCRATCH/artifacts;
--- config
location /llm/ { internal; return 204; }
agent a { pass /llm/; }
location / { agent_pass a; proxy_pass http://127.0.0.1:1; }
--- must_die
--- error_log
[emerg] "agent_pass" directive stands in a location that has another content
    handler in config:3

=== TEST 37: agent_pass without a database
--- http_config
agent_artifacts $TEST_NGINX_SCRATCH/artifacts;
--- config
location /llm/ { internal; return 204; }
agent a { pass /llm/; }
location /ap/ { agent_pass a; }
--- must_die
--- error_log
[emerg] "agent_pass" needs "agent_database" in http, which is missing, in
    config:3

=== TEST 38: agent_pass VALUE without any agent
--- values: a $agent_id
--- http_config
agent_database "dbname=a"; agent_artifacts $TEST_NGINX_SCRATCH/artifacts;
--- config
location /llm/ { internal; return 204; }
location /ap/ { agent_pass VALUE; }
--- must_die
--- error_log
[emerg] "agent_pass" needs an "agent" block in a server, there is none, in
    config:2

=== TEST 39: agent_pass to an agent that is not there
--- http_config
agent_database "dbname=a"; agent_artifacts $TEST_NGINX_SCRATCH/artifacts;
--- config
location /llm/ { internal; return 204; }
agent a { pass /llm/; }
location /ap/ { agent_pass A; }
--- must_die
--- error_log
[emerg] no agent "A" is defined for "agent_pass" in config:3

=== TEST 40: agent_strict maybe
--- http_config
agent_strict maybe;
--- must_die
--- error_log
[emerg] invalid value "maybe" in "agent_strict" directive, it must be "on" or
    "off" in http_config:1

=== TEST 41: agent_strict twice
--- http_config
agent_strict on;
agent_strict on;
--- must_die
--- error_log
[emerg] "agent_strict" directive is duplicate in http_config:2

=== TEST 42: agent_strict in an if
--- config
location / { if ($arg_a) { agent_strict on; } }
--- must_die
--- error_log
[emerg] "agent_strict" directive is not allowed here in config:1

=== TEST 43: pass to no location
--- http_config
agent_database "dbname=a"; agent_artifacts $TEST_NGINX_SCRATCH/artifacts;
--- config
agent a { pass /llm/; }
location /ap/ { agent_pass a; }
--- must_die
--- error_log
[emerg] no location of this server matches "pass /llm/" of agent "a" in
    config:1

=== TEST 44: pass to a location of another server
--- http_config
agent_database "dbname=a"; agent_artifacts $TEST_NGINX_SCRATCH/artifacts;
server { location /llm/ { internal; return 204; } }
--- config
agent a { pass /llm/; }
location /ap/ { agent_pass a; }
--- must_die
--- error_log
[emerg] no location of this server matches "pass /llm/" of agent "a" in
    config:1

=== TEST 45: pass to a location that does not match: VALUE
--- values
location = /llm { internal; }
location ~ ^/llm/v2 { internal; }
--- http_config
agent_database "dbname=a"; agent_artifacts $TEST_NGINX_SCRATCH/artifacts;
--- config
VALUE
agent a { pass /llm/; }
--- must_die
--- error_log
[emerg] no location of this server matches "pass /llm/" of agent "a" in
    config:2

=== TEST 46: pass to itself
--- http_config
agent_database "dbname=a"; agent_artifacts $TEST_NGINX_SCRATCH/artifacts;
--- config
location / { agent_pass a; }
agent a { pass /llm/; }
--- must_die
--- error_log
[emerg] "pass /llm/" of agent "a" leads to location "/", which has "agent_pass"
    itself, in config:2

=== TEST 47: pass to itself by a regex
--- http_config
agent_database "dbname=a"; agent_artifacts $TEST_NGINX_SCRATCH/artifacts;
--- config
location /llm/ { internal; return 204; }
location ~ /llm/ { agent_pass a; }
agent a { pass /llm/; }
--- must_die
--- error_log
[emerg] "pass /llm/" of agent "a" leads to location "/llm/", which has
    "agent_pass" itself, in config:3

=== TEST 48: VALUE with a value
--- values: agent_status agent_usage
--- config
location / { VALUE on; }
--- must_die
--- error_log
[emerg] invalid number of arguments in "VALUE" directive in config:1

=== TEST 49: VALUE in an if
--- values: agent_status agent_usage
--- config
location / { if ($arg_a) { VALUE; } }
--- must_die
--- error_log
[emerg] "VALUE" directive is not allowed here in config:1

=== TEST 50: VALUE twice
--- values: agent_status agent_usage
--- config
location / { VALUE; VALUE; }
--- must_die
--- error_log
[emerg] "VALUE" directive is duplicate in config:1

=== TEST 51: agent_status behind VALUE
--- values: proxy_pass agent_pass
--- config
location / {
    VALUE http://127.0.0.1:1;
    agent_status;
}
--- must_die
--- error_log
[emerg] "agent_status" directive stands in a location that has another content
    handler in config:3

=== TEST 52: agent_pass behind agent_status
--- config
location / {
    agent_status;
    agent_pass a;
}
--- must_die
--- error_log
[emerg] "agent_pass" directive stands in a location that has another content
    handler in config:3

=== TEST 53: agent_status before proxy_pass
--- http_config
agent_database "dbname=a";
--- config
location / { agent_status; proxy_pass http://127.0.0.1:1; }
--- must_die
--- error_log
[emerg] "agent_status" directive stands in a location that has another content
    handler in config:1

=== TEST 54: VALUE without a database
--- values: agent_status agent_usage
--- config
location / { VALUE; }
--- must_die
--- error_log
[emerg] "VALUE" needs "agent_database" in http, which is missing, in
    config:1

=== TEST 55: pass to VALUE
--- values: agent_status agent_usage
--- http_config
agent_database "dbname=a"; agent_artifacts $TEST_NGINX_SCRATCH/artifacts;
--- config
location = /llm/ { VALUE; }
agent a { pass /llm/; }
--- must_die
--- error_log
[emerg] "pass /llm/" of agent "a" leads to location "/llm/", which has
    "VALUE" itself, in config:2

=== TEST 56: agent_auth_zone VALUE
--- values: keys keys: :1m keys:x keys:-1 keys:1mm
--- http_config
agent_auth_zone VALUE;
--- must_die
--- error_log
[emerg] invalid value "VALUE" in "agent_auth_zone" directive, it must be a
    name, a colon and a size, as in keys:10m in http_config:1

=== TEST 57: agent_auth_zone of VALUE
--- values: keys:0 keys:31k keys:32767
--- http_config
agent_auth_zone VALUE;
--- must_die
--- error_log
[emerg] invalid value "VALUE" in "agent_auth_zone" directive, the size must be
    32k at least in http_config:1

=== TEST 58: agent_auth_zone twice
--- http_config
agent_auth_zone keys:1m;
agent_auth_zone more:1m;
--- must_die
--- error_log
[emerg] "agent_auth_zone" directive is duplicate in http_config:2

=== TEST 59: agent_auth with a value
--- config
location / { agent_auth on; }
--- must_die
--- error_log
[emerg] invalid number of arguments in "agent_auth" directive in config:1

=== TEST 60: agent_auth in http
--- http_config
agent_auth;
--- must_die
--- error_log
[emerg] "agent_auth" directive is not allowed here in http_config:1

=== TEST 61: agent_auth twice
--- config
location / { agent_auth; agent_auth; }
--- must_die
--- error_log
[emerg] "agent_auth" directive is duplicate in config:1

=== TEST 62: agent_auth beside VALUE
--- values
agent_status
agent_pass a
proxy_pass http://127.0.0.1:1
--- config
location / {
    VALUE;
    agent_auth;
}
--- must_die
--- error_log
[emerg] "agent_auth" directive stands in a location that has another content
    handler in config:3

=== TEST 63: agent_auth without a database
--- http_config
agent_auth_zone keys:1m;
--- config
location / { agent_auth; }
--- must_die
--- error_log
[emerg] "agent_auth" needs "agent_database" in http, which is missing, in
    config:1

=== TEST 64: agent_auth without a zone
--- http_config
agent_database "dbname=a";
--- config
location / { agent_auth; }
--- must_die
--- error_log
[emerg] "agent_auth" needs "agent_auth_zone" in http, which is missing, in
    config:1

=== TEST 65: pass to agent_auth
--- http_config
agent_database "dbname=a"; agent_artifacts $TEST_NGINX_SCRATCH/artifacts;
agent_auth_zone keys:1m;
--- config
location = /llm/ { agent_auth; }
agent a { pass /llm/; }
--- must_die
--- error_log
[emerg] "pass /llm/" of agent "a" leads to location "/llm/", which has
    "agent_auth" itself, in config:2

=== TEST 66: agent_tenant empty
--- http_config
agent_tenant "";
--- must_die
--- error_log
[emerg] "agent_tenant" directive has an empty tenant in http_config:1

=== TEST 67: agent_tenant twice
--- config
agent_tenant a; agent_tenant $http_x;
--- must_die
--- error_log
[emerg] "agent_tenant" directive is duplicate in config:1

=== TEST 68: agent_tenant of an unknown variable
--- config
agent_tenant $no_such_variable;
--- must_die
--- error_log
[emerg] unknown "no_such_variable" variable
