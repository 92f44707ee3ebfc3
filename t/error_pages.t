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
