# What nginx itself refuses where agent_pass stands is JSON, and no more than
# that: its headers, redirects, pages elsewhere and the user's own pages stay
# as they are.  (That each refusal is one is in requests.t.)

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use Test::Nginx::Socket;

our $pg = AgentTest::Postgres->new;
our $llm = AgentTest::LLM->new;

repeat_each(1);
no_long_string();
no_root_location();
log_level('info');

our $http = 'agent_database "' . $pg->conninfo . '";
    agent_artifacts ' . scratch() . '/artifacts;
    limit_req_zone $server_name zone=one:1m rate=1r/m;
    limit_conn_zone $server_name zone=conn:1m;';
our $agent = 'agent writer { pass /llm/v1/chat/completions; model echo; }
    location /llm/ { internal; proxy_pass http://127.0.0.1:' . $llm->port
    . '/; }';

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value('http_config', $http) unless $block->http_config;
    $block->set_value('config', "$agent\n" . ($block->config // ''));
    $block->set_value('no_error_log', "[alert]\n[emerg]")
        unless $block->error_log;
});

plan('no_plan');
run_tests();

__DATA__

=== TEST 1: a challenge keeps its header
--- config
    location /a/ { auth_basic x; auth_basic_user_file /dev/null;
                   agent_pass writer; }
--- request
POST /a/tasks
{"input": "x"}
--- error_code: 401
--- response_headers
Content-Type: application/json
WWW-Authenticate: Basic realm="x"
--- response_body_like: ^\{"message": ?"[^"]+ [^"]+"\}$


=== TEST 2: limit_req says 503 of itself, with Retry-After
--- config
    location /a/ { limit_req zone=one; agent_pass writer; }
--- request eval
["GET /a/tasks", "GET /a/tasks"]
--- error_code eval
[200, 503]
--- response_headers_like eval
["", 'Retry-After: \d+']
--- response_body_like eval
[qr/"tasks"/, qr/^\{"message": ?"[^"]+ [^"]+"\}$/]


=== TEST 3: return in the location
--- config
    location /a/ { agent_pass writer; if ($arg_stop) { return 410; } }
--- request
GET /a/tasks?stop=1
--- error_code: 410
--- response_headers
Content-Type: application/json
--- response_body_like: ^\{"message": ?"[^"]+ [^"]+"\}$


=== TEST 4: a page of the user's own is left alone
--- config
    location /a/ { deny all; error_page 403 /mine; agent_pass writer; }
    location = /mine { internal; default_type text/plain; return 200 "mine"; }
--- request
GET /a/tasks
--- error_code: 403
--- response_headers
Content-Type: text/plain
--- response_body chomp
mine


=== TEST 5: error_page to a redirect
--- config
    location /a/ { deny all; error_page 403 http://127.0.0.1/login;
                   agent_pass writer; }
--- request
GET /a/tasks
--- error_code: 302
--- response_headers
Location: http://127.0.0.1/login


=== TEST 6: elsewhere nginx's page is nginx's
--- config
    location /a/ { agent_pass writer; }
    location /b/ { deny all; }
--- request
GET /b/tasks
--- error_code: 403
--- response_headers
Content-Type: text/html
--- response_body_like: <html>


=== TEST 7: HEAD has no body
--- config
    location /a/ { deny all; agent_pass writer; }
--- request
HEAD /a/tasks
--- error_code: 403
--- response_headers
Content-Type: application/json
--- response_body


=== TEST 8: a redirect of nginx is no error
--- config
    location /a/ { agent_pass writer; if ($arg_go) { return 302 /b/; } }
--- request
GET /a/tasks?go=1
--- error_code: 302
--- response_headers_like
Location: .*/b/


=== TEST 9: gzip does no harm
--- config
    location /a/ { gzip on; gzip_types application/json; gzip_min_length 1;
                   deny all; agent_pass writer; }
--- request
GET /a/tasks
--- more_headers
Accept-Encoding: gzip
--- error_code: 403
--- response_headers
Content-Encoding: gzip
--- response_body_like: .


=== TEST 10: the authentication service is away
--- config
    location /a/ { auth_request /_auth; agent_pass writer; }
    location = /_auth { internal; proxy_pass http://127.0.0.1:1; }
--- request
GET /a/tasks
--- error_code: 500
--- response_headers
Content-Type: application/json
--- response_body_like: ^\{"message":"[^"]+ [^"]+"\}$
--- error_log
auth request unexpected status


=== TEST 11: limit_except
--- config
    location /a/ { limit_except GET { deny all; } agent_pass writer; }
--- request eval
["GET /a/tasks", "DELETE /a/tasks"]
--- error_code eval
[200, 403]
--- response_body_like eval
[qr/"tasks"/, qr/^\{"message":"[^"]+ [^"]+"\}$/]


=== TEST 12: the status location
--- config
    location = /status { deny all; agent_status; }
--- request
GET /status
--- error_code: 403
--- response_headers
Content-Type: application/json
--- response_body_like: ^\{"message":"[^"]+ [^"]+"\}$


=== TEST 13: a location of a server with agents
--- config
    location /a/ { agent_pass writer; }
    location /b/ { proxy_pass http://127.0.0.1:1; }
--- request
GET /b/tasks
--- error_code: 502
--- response_headers
Content-Type: text/html
--- response_body_like: <html>
--- error_log
connect() failed


=== TEST 14: a page for what no location matches
--- config
    error_page 404 /mine;
    location /a/ { agent_pass writer; }
    location = /mine { internal; default_type text/plain; return 200 "mine"; }
--- request
GET /b/tasks
--- error_code: 404
--- response_headers
Content-Type: text/plain
--- response_body chomp
mine


=== TEST 15: a page for a location of ours that leads nowhere
--- config
    error_page 403 /none;
    location /a/ { deny all; agent_pass writer; }
--- request
GET /a/tasks
--- error_code: 404
--- response_headers
Content-Type: text/html


=== TEST 16: agent_pass in an if
--- config
    location /a/ { if ($arg_agent) { agent_pass writer; } }
--- request eval
["GET /a/tasks?agent=1", "GET /a/nothing?agent=1", "GET /a/nothing"]
--- error_code eval
[200, 404, 404]
--- response_body_like eval
[qr/"tasks"/, qr/^\{"message"/, qr/<html>/]


=== TEST 17: an odd status
--- config
    location /a/ { limit_req zone=one; limit_req_status 420;
                   agent_pass writer; }
--- request eval
["GET /a/tasks", "GET /a/tasks"]
--- error_code eval
[200, 420]
--- response_body_like eval
[qr/"tasks"/, qr/^\{"message"/]
