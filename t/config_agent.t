#!/usr/bin/perl

# Every wrong value of every directive of an agent block, and of the block
# itself.  The sections are explained in lib/config_blocks.pl.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

require 'config_blocks.pl';

run_tests();

__DATA__

=== TEST 1: no name or two: VALUE
--- values
agent { pass /llm/; }
agent a b { pass /llm/; }
--- config
VALUE
--- must_die
--- error_log
[emerg] invalid number of arguments in "agent" directive in config:1

=== TEST 2: agent with no block
--- config
agent a;
--- must_die
--- error_log
[emerg] directive "agent" has no opening "{" in config:1

=== TEST 3: agent VALUE
--- values
a b
a/b
a$b
ä
nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn
--- config
agent "VALUE" { pass /llm/; }
--- must_die
--- error_log
[emerg] invalid agent name "VALUE", it must be 1 to 64 letters, digits, ".",
    "_" or "-" in config:1

=== TEST 4: agent with an empty name
--- config
agent "" { pass /llm/; }
--- must_die
--- error_log
[emerg] invalid agent name "", it must be 1 to 64 letters, digits, ".", "_" or
    "-" in config:1

=== TEST 5: VALUE in http
--- values: agent agent_pass agent_status agent_usage
--- http_config
VALUE a;
--- must_die
--- error_log
[emerg] "VALUE" directive is not allowed here in http_config:1

=== TEST 6: agent in a location
--- config
location / { agent a { pass /llm/; } }
--- must_die
--- error_log
[emerg] "agent" directive is not allowed here in config:1

=== TEST 7: an empty agent block
--- config
# the line is told

agent a { }
--- must_die
--- error_log
[emerg] no "pass" in agent "a" in config:3

=== TEST 8: no pass: the line is that where the block begins
--- config
agent a {
    model m;

}
--- must_die
--- error_log
[emerg] no "pass" in agent "a" in config:1

=== TEST 9: the same agent twice in a server
--- config
location /llm/ { internal; return 204; }
agent a { pass /llm/; }
agent a { pass /llm/; }
--- must_die
--- error_log
[emerg] duplicate agent "a", the first one is in config:2, this one in config:3

=== TEST 10: the same agent in two servers
--- http_config
server {
    location /llm/ { internal; return 204; }
    agent a { pass /llm/; }
}
--- config
location /llm/ { internal; return 204; }
agent a { pass /llm/; }
--- must_die
--- error_log
[emerg] duplicate agent "a", the first one is in http_config:3, this one in
    config:2

=== TEST 11: one agent too many
--- config eval
"location /llm/ { internal; return 204; }\n"
    . CORE::join '', map { "agent a$_ { pass /llm/; }\n" } 1 .. 257
--- must_die
--- error_log
[emerg] agent "a257" is one too many, there may be 256 in config:258

=== TEST 12: an agent to run, and no database
--- config
location /llm/ { internal; return 204; }
agent a { pass /llm/; }
agent b { pass /llm/; }
--- must_die
--- error_log
[emerg] agent "a" needs "agent_database" in http, which is missing, in config:2

=== TEST 13: an unknown directive in agent
--- config
agent a {
    pass /llm/;
    temperature 1;
}
--- must_die
--- error_log
[emerg] unknown directive "temperature" in config:3

=== TEST 14: a directive of nginx in agent: VALUE
--- values: root worker_processes
--- config
agent a { pass /llm/; VALUE 1; }
--- must_die
--- error_log
[emerg] "VALUE" directive is not allowed here in config:1

=== TEST 15: an agent in an agent
--- config
agent a { agent b { pass /llm/; } }
--- must_die
--- error_log
[emerg] "agent" directive is not allowed here in config:1

=== TEST 16: an unfinished block
--- config
agent a {
    pass /llm/;
--- must_die
--- error_log
[emerg] unexpected end of file, expecting "}" in config:3

=== TEST 17: an included file is named
--- user_files
>>> agent.conf
model m;
attempts 0;
--- config
agent a {
    pass /llm/;
    include $TEST_NGINX_HTML_DIR/agent.conf;
}
--- must_die
--- error_log
[emerg] invalid value "0" in "attempts" directive, it must be a number from 1
    to 100 in $TEST_NGINX_HTML_DIR/agent.conf:2

=== TEST 18: VALUE outside of agent
--- values: pass dialect model description instructions timeout
    attempts max_steps concurrency max_answer run price
--- config
VALUE 1;
--- must_die
--- error_log
[emerg] "VALUE" directive is not allowed here in config:1

=== TEST 19: VALUE with no value
--- values: pass dialect model description instructions timeout
    attempts max_steps concurrency max_answer run price
--- config
agent a { VALUE; }
--- must_die
--- error_log
[emerg] invalid number of arguments in "VALUE" directive in config:1

=== TEST 20: VALUE with two values
--- values: pass dialect model description timeout attempts
    max_steps concurrency max_answer run price
--- config
agent a { VALUE 1 2; }
--- must_die
--- error_log
[emerg] invalid number of arguments in "VALUE" directive in config:1

=== TEST 21: pass that is no uri: VALUE
--- values: llm/ @llm http://127.0.0.1/
--- config
agent a { pass VALUE; }
--- must_die
--- error_log
[emerg] invalid value "VALUE" in "pass" directive, it must be the uri of a
    location and begin with "/" in config:1

=== TEST 22: pass empty
--- config
agent a { pass ""; }
--- must_die
--- error_log
[emerg] invalid value "" in "pass" directive, it must be the uri of a location
    and begin with "/" in config:1

=== TEST 23: pass with a variable
--- config
agent a { pass /llm/$host; }
--- must_die
--- error_log
[emerg] invalid value "/llm/$host" in "pass" directive, variables are not
    allowed here, they are in the location's "proxy_pass" in config:1

=== TEST 24: pass with a space
--- config
agent a { pass "/llm/ x"; }
--- must_die
--- error_log
[emerg] invalid value "/llm/ x" in "pass" directive, a uri has no spaces or
    control characters in config:1

=== TEST 25: dialect unknown
--- config
agent a { dialect anthropic; }
--- must_die
--- error_log
[emerg] invalid value "anthropic" in "dialect" directive, it must be "openai"
    or "agent_protocol" in config:1

=== TEST 26: a container's pass is a prefix, and no location has what is below
--- config
location = /ap { internal; return 204; }
agent a { pass /ap; dialect agent_protocol; }
--- must_die
--- error_log
[emerg] no location of this server matches "pass /ap" of agent "a" in config:2

=== TEST 27: VALUE empty, and then again
--- values: model description instructions
--- config
agent a { VALUE ""; VALUE b; }
--- must_die
--- error_log
[emerg] "VALUE" directive is duplicate in config:1

=== TEST 28: VALUE that is not UTF-8
--- values: model description instructions
--- config eval
"agent a { VALUE \"\xff\"; }"
--- must_die
--- error_log
[emerg] the text in "VALUE" directive is not UTF-8 in config:1

=== TEST 29: instructions that are not UTF-8 in the second text
--- config eval
"agent a { instructions ok \"\xc3\x28\"; }"
--- must_die
--- error_log
[emerg] the text in "instructions" directive is not UTF-8 in config:1

=== TEST 30: timeout VALUE
--- values: 0 -1 soon 25h 1.5s 99999999999999999999
--- config
agent a { timeout VALUE; }
--- must_die
--- error_log
[emerg] invalid value "VALUE" in "timeout" directive, it must be a time from
    1ms to 24h in config:1

=== TEST 31: attempts VALUE
--- values: 0 101 -1 x 1k
--- config
agent a { attempts VALUE; }
--- must_die
--- error_log
[emerg] invalid value "VALUE" in "attempts" directive, it must be a number from
    1 to 100 in config:1

=== TEST 32: max_steps VALUE
--- values: 0 10001 -1 x
--- config
agent a { max_steps VALUE; }
--- must_die
--- error_log
[emerg] invalid value "VALUE" in "max_steps" directive, it must be a number
    from 1 to 10000 in config:1

=== TEST 33: max_answer VALUE
--- values: 0 1025m -1 x 1t
--- config
agent a { max_answer VALUE; }
--- must_die
--- error_log
[emerg] invalid value "VALUE" in "max_answer" directive, it must be a size from
    1 to 1024m in config:1

=== TEST 34: concurrency VALUE
--- values: -1 100001 x 1k
--- config
agent a { concurrency VALUE; }
--- must_die
--- error_log
[emerg] invalid value "VALUE" in "concurrency" directive, it must be a number
    from 0 to 100000 in config:1

=== TEST 35: run VALUE
--- values: fast Auto steps on
--- config
agent a { run VALUE; }
--- must_die
--- error_log
[emerg] invalid value "VALUE" in "run" directive, it must be "step" or "auto"
    in config:1

=== TEST 36: price VALUE
--- values: -1 1e3 .5 5. 1.2.3 x 0x1 1234567890123 0.1234567
--- config
agent a { price VALUE; }
--- must_die
--- error_log
[emerg] invalid value "VALUE" in "price" directive, it must be a decimal such
    as "0.002", with up to 12 digits before and 6 after the point in config:1

=== TEST 37: price empty
--- config
agent a { price ""; }
--- must_die
--- error_log
[emerg] invalid value "" in "price" directive, it must be a decimal such as
    "0.002", with up to 12 digits before and 6 after the point in config:1

=== TEST 38: VALUE twice
--- values: model description instructions timeout
    attempts max_steps concurrency max_answer price
--- config
agent a { VALUE 1; VALUE 1; }
--- must_die
--- error_log
[emerg] "VALUE" directive is duplicate in config:1

=== TEST 39: pass twice
--- config
agent a { pass /llm/; pass /llm/; }
--- must_die
--- error_log
[emerg] "pass" directive is duplicate in config:1

=== TEST 40: dialect twice
--- config
agent a { dialect openai; dialect openai; }
--- must_die
--- error_log
[emerg] "dialect" directive is duplicate in config:1

=== TEST 41: run twice
--- config
agent a { run auto; run step; }
--- must_die
--- error_log
[emerg] "run" directive is duplicate in config:1

=== TEST 42: no value or two: VALUE
--- values
agent_pass;
agent_pass a b;
--- config
location / { VALUE }
--- must_die
--- error_log
[emerg] invalid number of arguments in "agent_pass" directive in config:1
