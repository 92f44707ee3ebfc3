#!/usr/bin/perl

# Requests and their answers, as tables: routes, methods, pages, bodies, what
# HTTP/1.1 asks, agents by name, what nginx's own modules refuse, downloads.
# The rows asked for have fixed ids and are put into Postgres first.
#
# $TASK and the like are those ids.  Sections of our own:
#
#   table     lines of a status, a method, a path, and the body if there is
#             one; each is a request of its own
#   says      what the error says ("message" of its JSON)
#   json      what the answer is, as JSON in any layout
#
# All answers are application/json unless the block says otherwise, all errors
# have a message that is a sentence, each 422 has its detail, and the error
# log has nothing at [error] and above, unless "error_log" is there.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use AgentTest ();

our ($pg, $llm, $dir);

BEGIN {
    $dir = AgentTest::scratch();
    $pg = AgentTest::Postgres->new;
    $llm = AgentTest::LLM->new;

    $ENV{TEST_NGINX_BINARY} ||= AgentTest::Nginx::binary();
    $ENV{TEST_NGINX_SERVROOT} ||= "$dir/servroot";
    ($ENV{TEST_NGINX_LOAD_MODULES} = AgentTest::Nginx::modules())
        =~ s/load_module (\S+);\n/$1 /g;

    # blocks with one configuration share one nginx
    $ENV{TEST_NGINX_FORCE_RESTART_ON_TEST} = 0;
}

use Test::Nginx::Socket;

my $zero = '01900000-0000-7000-8000-00000000000';
my $one = '01900000-0000-7000-8001-00000000000';
my $two = '01900000-0000-7000-8002-00000000000';

our %id = (
    TASK => "${zero}1",         # 7 steps, 2 artifacts
    ASK => "${zero}2",          # waits for the answer to a question
    FAILED => "${zero}3",       # its step failed
    DONE => "${zero}4",         # its last step is done
    EMPTY => "${zero}5",        # no step, no input
    HIDDEN => "${zero}6",       # another tenant's
    FULL => "${zero}7",         # has had its one step
    BUSY => "${zero}8",         # a worker elsewhere runs its step
    DOWN => "${zero}9",         # its agent's endpoint is down
    (map { ("STEP$_" => "$one$_") } 1 .. 9), STEP10 => "${one}a",
    HIDDEN_STEP => "${one}b", STEP12 => "${one}c", STEP13 => "${one}d",
    FILE1 => "${two}1", FILE2 => "${two}2", HIDDEN_FILE => "${two}3",
    NONE => '01900000-0000-7000-8000-000000000fff',
);

sub ids {
    my ($text) = @_;
    return $text if ref $text eq 'Regexp' || !defined $text;
    return [map { ids($_) } @$text] if ref $text;
    $text =~ s/\$([A-Z]+(?:_[A-Z]+)?\d*)\b/exists $id{$1} ? $id{$1} : "\$$1"/ge;
    return $text;
}


$pg->psql(ids(<<'SQL'));
insert into agent.task (task_id, tenant, agent, input, additional_input,
                        max_steps)
values ('$TASK', '', 'writer', 'Write.', '{"a" : [1.50]}', 25),
       ('$ASK', '', 'writer', 'Ask.', null, 25),
       ('$FAILED', '', 'writer', 'Fail.', null, 25),
       ('$DONE', '', 'writer', 'Done.', '{}', 25),
       ('$EMPTY', '', 'writer', null, null, 25),
       ('$HIDDEN', 'other', 'writer', 'Hidden.', null, 25),
       ('$FULL', '', 'writer', 'Full.', null, 1),
       ('$BUSY', '', 'writer', 'Busy.', null, 25),
       ('$DOWN', '', 'down', 'Down.', null, 25);

insert into agent.step (task_id, seq, step_id, tenant, status, attempt, name,
                        is_last, input, output, additional_output)
values ('$TASK', 1, '$STEP1', '', 2, 1, 'one', false, 'go', 'ok', '{"b": 2}'),
       ('$TASK', 2, '$STEP2', '', 2, 1, null, false, null, '2', null),
       ('$TASK', 3, '$STEP3', '', 2, 1, null, false, null, '3', null),
       ('$TASK', 4, '$STEP4', '', 2, 1, null, false, null, '4', null),
       ('$TASK', 5, '$STEP5', '', 2, 1, null, false, null, '5', null),
       ('$TASK', 6, '$STEP6', '', 2, 1, null, false, null, '6', null),
       ('$TASK', 7, '$STEP7', '', 2, 1, null, false, null, '7', null),
       ('$ASK', 1, '$STEP8', '', 3, 1, null, false, null, 'Which?', null),
       ('$FAILED', 1, '$STEP9', '', 4, 1, null, false, null, null,
        '{"error": "the LLM is away"}'),
       ('$DONE', 1, '$STEP10', '', 2, 1, null, true, 'x', 'All done.', null),
       ('$HIDDEN', 1, '$HIDDEN_STEP', 'other', 2, 1, null, true, null, null,
        null),
       ('$FULL', 1, '$STEP12', '', 2, 1, null, false, null, 'f', null),
       ('$BUSY', 1, '$STEP13', '', 1, 1, null, false, null, null, null);

update agent.step set owner = 'elsewhere/0/1',
                      lease_until = now() + interval '1 hour'
where step_id = '$STEP13';

insert into agent.artifact (task_id, artifact_id, step_id, tenant, file_name,
                            relative_path, size)
values ('$TASK', '$FILE1', '$STEP1', '', 'out.txt', 'a/b/', 10),
       ('$TASK', '$FILE2', null, '', U&'q\00fc.html', null, 0),
       ('$HIDDEN', '$HIDDEN_FILE', null, 'other', 'h', null, 10);
SQL

mkdir "$dir/artifacts";
for (['FILE1', '0123456789'], ['FILE2', ''], ['HIDDEN_FILE', '0123456789']) {
    my $folder = "$dir/artifacts/" . substr $id{$_->[0]}, -2;
    mkdir $folder;
    AgentTest::write_file("$folder/$id{$_->[0]}", $_->[1]);
}

my $database = $pg->conninfo;
my $http = <<"CONF";
    agent_database "$database";
    agent_artifacts $dir/artifacts;
    limit_req_zone \$server_name zone=one:1m rate=1r/m;
CONF

my $port = $llm->port;
my $server = <<"CONF";
    agent writer { pass /llm/v1/chat/completions; model echo; timeout 5s; }
    agent few { pass /llm/v1/chat/completions; model echo; max_steps 1; }

    agent down { pass /down; attempts 1; }

    location = /down { internal; return 503; }
    location /llm/ { internal; proxy_pass http://127.0.0.1:$port/; }

    location /ap/v1/agent/ { agent_pass writer; }
    location /agent/ { agent_pass writer; }
    location /strict/ { agent_pass writer; agent_strict on; }
    location /any/ { agent_pass \$agent_id; }
    location /v2/tasks { agent_pass writer; }
    location ~ ^/re/\\w+/tasks { agent_pass writer; }
    location /small/ { agent_pass writer; client_max_body_size 64; }
    location /closed/ { agent_pass writer; deny all; }
    location /mine/ { agent_pass writer; error_page 404 =410 /gone; }
    location = /gone { return 410 "my own page\\n"; }

    location /auth/ { agent_pass writer; auth_request /_auth; }
    location = /_auth { internal; return 401; }

    location /limited/ {
        agent_pass writer;
        limit_req zone=one;
        limit_req_status 429;
        limit_req_log_level info;
    }
CONF


# One line of a table is one request.

sub table {
    my ($block, $text) = @_;

    my (@requests, @codes);
    for (split /\n/, $text) {
        my ($code, $method, $path, $body) = /^(\d+) (\S+) (\S+)(?: (.*))?$/
            or bail_out($block->name . ": what is \"$_\"?");
        push @codes, $code;
        push @requests, "$method $path\n" . (defined $body ? $body : '');
    }

    $block->set_value(request => @codes > 1 ? \@requests : $requests[0]);
    $block->set_value(error_code => @codes > 1 ? \@codes : $codes[0]);
}


# What is expected once is expected of each request.

sub each_request {
    my ($block) = @_;

    my $requests = $block->pipelined_requests // $block->request;
    return if ref $requests ne 'ARRAY';

    for my $section (qw(error_code response_headers response_headers_like
                        response_body response_body_like))
    {
        my $value = $block->$section;
        $block->set_value($section, [($value) x @$requests])
            if defined $value && ref $value ne 'ARRAY';
    }
}


# A block's section, that of the request where there are several.

sub at {
    my ($block, $section, $i) = @_;
    my $value = $block->$section;
    return ref $value eq 'ARRAY' ? $value->[$i] : $value;
}


no_long_string();
no_shuffle();           # nothing is written before it was counted
no_root_location();
log_level('info');
plan 'no_plan';

add_block_preprocessor(sub {
    my ($block) = @_;

    table($block, $block->table) if defined $block->table;

    for my $section (qw(request raw_request pipelined_requests response_body
                        response_headers says json more_headers))
    {
        next unless defined $block->$section;
        my $value = ids($block->$section);
        chomp $value if $section eq 'says' && !ref $value;
        $block->set_value($section, $value);
    }

    # a log with errors in it is not for the next block
    my $log = defined $block->error_log ? '# logs ' . $block->name : '';
    $block->set_value('http_config', $http);
    $block->set_value('config', "$server$log\n");

    $block->set_value('response_headers', 'Content-Type: application/json')
        unless defined $block->response_headers
            || defined $block->response_headers_like
            || defined $block->raw_response_headers_like;
    each_request($block);
    $block->set_value('no_error_log', "[alert]\n[crit]\n[emerg]\n"
        . "AddressSanitizer\nruntime error:" . ($log ? '' : "\n[error]"))
        unless defined $block->no_error_log;
});

add_response_body_check(sub {
    my ($block, $body, $i) = @_;

    my $name = $block->name . " (req $i)";
    my $code = at($block, 'error_code', $i) || 200;
    my $request = at($block, 'request', $i) // '';
    return if $request =~ /^\s*HEAD / || $code < 200 || $code == 304;

    my $json = eval { AgentTest::decode($body) };

    if ($code >= 400 && $block->name !~ /a page of nginx/) {
        like(eval { $json->{message} } // $body, qr/^["\w].*\w \w.*\S$/,
             "$name - an error is a sentence in JSON");
    }
    if ($code == 422) {
        my $detail = eval { $json->{detail}[0] } || {};
        ok($detail->{msg} && ref $detail->{loc} eq 'ARRAY', "$name - detail");
    }
    if (defined(my $message = at($block, 'says', $i))) {
        is(eval { $json->{message} } // $body, $message, "$name - message");
    }
    if (defined(my $want = at($block, 'json', $i))) {
        is_deeply($json, AgentTest::decode($want), "$name - json")
            or diag $body;
    }
});

run_tests();

__DATA__

=== TEST 1: a list of tasks
--- request
GET /ap/v1/agent/tasks?page_size=2&current_page=3
--- json
{"tasks": [
    {"task_id": "$EMPTY", "input": null, "additional_input": {},
     "artifacts": []},
    {"task_id": "$FULL", "input": "Full.", "additional_input": {},
     "artifacts": []}],
 "pagination": {"total_items": 8, "total_pages": 4, "current_page": 3,
                "page_size": 2}}

=== TEST 2: the pages of the tasks
--- request eval
['GET /agent/tasks', 'GET /agent/tasks?page_size=1',
 'GET /agent/tasks?page_size=8', 'GET /agent/tasks?page_size=7',
 'GET /agent/tasks?current_page=2', 'GET /agent/tasks?order=desc&page_size=1',
 'GET /agent/tasks?order=desc&page_size=3&current_page=3']
--- response_body_filters eval
sub { CORE::join ' ', $_[0] =~ /"task_id":"[-0-9a-f]+(\w)"/g, '-',
                $_[0] =~ /"(?:total|page|current)_\w+":(\d+)/g }
--- response_body eval
['1 2 3 4 5 7 8 9 - 8 1 1 10', '1 - 8 8 1 1', '1 2 3 4 5 7 8 9 - 8 1 1 8',
 '1 2 3 4 5 7 8 - 8 2 1 7', '- 8 1 2 10', '9 - 8 8 1 1', '2 1 - 8 3 3 3']

=== TEST 3: a task
--- request
GET /ap/v1/agent/tasks/$TASK
--- json
{"task_id": "$TASK", "input": "Write.", "additional_input": {"a": [1.5]},
 "artifacts": [
    {"artifact_id": "$FILE1", "agent_created": true, "file_name": "out.txt",
     "relative_path": "a/b/"},
    {"artifact_id": "$FILE2", "agent_created": false,
     "file_name": "q\u00fc.html", "relative_path": null}]}

=== TEST 4: additional_input has the client's own bytes
--- request
GET /agent/tasks/$TASK
--- response_body_like: "additional_input":\{"a" : \[1\.50\]\},

=== TEST 5: an id in capitals is the same id
--- request eval
"GET /agent/tasks/" . uc $::id{EMPTY}
--- json
{"task_id": "$EMPTY", "input": null, "additional_input": {}, "artifacts": []}

=== TEST 6: a step
--- request
GET /ap/v1/agent/tasks/$TASK/steps/$STEP1
--- json
{"task_id": "$TASK", "step_id": "$STEP1", "name": "one",
 "status": "completed", "input": "go", "additional_input": {},
 "output": "ok", "additional_output": {"b": 2}, "is_last": false,
 "artifacts": [
    {"artifact_id": "$FILE1", "agent_created": true, "file_name": "out.txt",
     "relative_path": "a/b/"}]}

=== TEST 7: a step that waits for its answer
--- request
GET /agent/tasks/$ASK/steps/$STEP8
--- json
{"task_id": "$ASK", "step_id": "$STEP8", "name": null,
 "status": "waiting_for_input", "input": null, "additional_input": {},
 "output": "Which?", "additional_output": null, "is_last": false,
 "artifacts": [], "additional_input_needed": true}

=== TEST 8: agent_strict: the same step, completed, with the flag
--- request
GET /strict/tasks/$ASK/steps/$STEP8
--- json
{"task_id": "$ASK", "step_id": "$STEP8", "name": null,
 "status": "completed", "input": null, "additional_input": {},
 "output": "Which?", "additional_output": null, "is_last": false,
 "artifacts": [], "additional_input_needed": true}

=== TEST 9: a failed step says why
--- request
GET /agent/tasks/$FAILED/steps/$STEP9
--- json
{"task_id": "$FAILED", "step_id": "$STEP9", "name": null, "status": "failed",
 "input": null, "additional_input": {}, "output": null,
 "additional_output": {"error": "the LLM is away"}, "is_last": false,
 "artifacts": []}

=== TEST 10: agent_strict in lists, and of a failed step
--- request eval
['GET /agent/tasks/$ASK/steps', 'GET /strict/tasks/$ASK/steps',
 'GET /agent/tasks/$FAILED/steps', 'GET /strict/tasks/$FAILED/steps',
 'GET /strict/tasks/$FAILED/steps/$STEP9']
--- response_body_like eval
['"status":"waiting_for_input".*"additional_input_needed":true',
 '"status":"completed".*"additional_input_needed":true',
 '"status":"failed"', '"status":"completed"', '"status":"completed"']

=== TEST 11: a list of artifacts
--- request
GET /agent/tasks/$TASK/artifacts?page_size=1&current_page=2
--- json
{"artifacts": [
    {"artifact_id": "$FILE2", "agent_created": false,
     "file_name": "q\u00fc.html", "relative_path": null}],
 "pagination": {"total_items": 2, "total_pages": 2, "current_page": 2,
                "page_size": 1}}

=== TEST 12: a list with nothing in it
--- request
GET /agent/tasks/$EMPTY/steps
--- json
{"steps": [], "pagination": {"total_items": 0, "total_pages": 0,
                             "current_page": 1, "page_size": 10}}

=== TEST 13: the pages of the steps
--- request eval
['GET /agent/tasks/$TASK/steps?page_size=3',
 'GET /agent/tasks/$TASK/steps?page_size=3&current_page=2',
 'GET /agent/tasks/$TASK/steps?current_page=3&page_size=3',
 'GET /agent/tasks/$TASK/steps?current_page=4&page_size=3',
 'GET /agent/tasks/$TASK/steps?page_size=3&order=desc',
 'GET /agent/tasks/$TASK/steps?page_size=3&order=desc&current_page=3',
 'GET /agent/tasks/$TASK/steps?page_size=3&order=asc',
 'GET /agent/tasks/$TASK/steps?page_size=1000',
 'GET /agent/tasks/$TASK/steps?current_page=2147483647']
--- response_body_filters eval
sub { CORE::join ' ', $_[0] =~ /"step_id":"[-0-9a-f]+(\w)"/g,
                $_[0] =~ /total_pages":(\d+)/ }
--- response_body eval
['1 2 3 3', '4 5 6 3', '7 3', '3', '7 6 5 3', '1 3', '1 2 3 3',
 '1 2 3 4 5 6 7 1', '1']

=== TEST 14: pages that are none
--- table
422 GET /agent/tasks?current_page=0
422 GET /agent/tasks?current_page=-1
422 GET /agent/tasks?current_page=abc
422 GET /agent/tasks?current_page=
422 GET /agent/tasks?current_page=1.5
422 GET /agent/tasks?current_page=1e3
422 GET /agent/tasks?current_page=+1
422 GET /agent/tasks?current_page=%20%31
422 GET /agent/tasks?current_page=2147483648
422 GET /agent/tasks?current_page=4294967297
422 GET /agent/tasks?current_page=18446744073709551617
422 GET /agent/tasks?current_page=99999999999999999999999999999999999999
422 GET /agent/tasks/$TASK/steps?current_page=0
422 GET /agent/tasks/$TASK/artifacts?current_page=0
422 HEAD /agent/tasks?current_page=0
--- says: "current_page" must be a whole number from 1 to 2147483647

=== TEST 15: sizes of pages that are none
--- table
422 GET /agent/tasks?page_size=0
422 GET /agent/tasks?page_size=-1
422 GET /agent/tasks?page_size=abc
422 GET /agent/tasks?page_size=
422 GET /agent/tasks?page_size=1001
422 GET /agent/tasks?page_size=18446744073709551617
422 GET /agent/tasks/$TASK/steps?page_size=1001
422 GET /agent/tasks/$TASK/artifacts?page_size=1001
--- says: "page_size" must be a whole number from 1 to 1000

=== TEST 16: orders that are none
--- table
422 GET /agent/tasks?order=
422 GET /agent/tasks?order=up
422 GET /agent/tasks?order=DESC
422 GET /agent/tasks/$TASK/steps?order=desc%20
422 GET /agent/tasks/$TASK/artifacts?order=asc,desc
--- says: "order" must be "asc" or "desc"

=== TEST 17: where the wrong value was
--- request
GET /agent/tasks?page_size=x
--- error_code: 422
--- json
{"message": "\"page_size\" must be a whole number from 1 to 1000",
 "detail": [{"loc": ["query", "page_size"],
             "msg": "must be a whole number from 1 to 1000"}]}

=== TEST 18: odd queries that are right
--- table
200 GET /agent/tasks?
200 GET /agent/tasks?current_page=%31&page_size=01
200 GET /agent/tasks?&&=&page_sizes=x&PAGE=y
200 GET /agent/tasks/$TASK?page_size=x
200 GET /agent/tasks/$TASK/steps/$STEP1?current_page=0

=== TEST 19: HEAD has the headers of GET and no body
--- request eval
['HEAD /agent/tasks/$EMPTY', 'HEAD /ap/v1/agent/tasks/$TASK/steps/$STEP2',
 'HEAD /agent/tasks/$EMPTY/steps', 'HEAD /agent/tasks/$EMPTY/artifacts']
--- response_headers eval
["Content-Type: application/json\nContent-Length: 100",
 "Content-Type: application/json\nContent-Length: 236",
 "Content-Type: application/json\nContent-Length: 91",
 "Content-Type: application/json\nContent-Length: 95"]
--- response_body eval
['', '', '', '']

=== TEST 20: HEAD of what is not there
--- table
404 HEAD /agent/tasks/$NONE
404 HEAD /agent/tasks/$TASK/steps/$NONE
404 HEAD /agent/nothing
--- response_body eval
['', '', '']

=== TEST 21: tasks that are not there, whatever is asked of them
--- table
404 GET /agent/tasks/$NONE
404 GET /agent/tasks/$NONE/steps
404 GET /agent/tasks/$NONE/steps?page_size=1&current_page=9
404 GET /agent/tasks/$NONE/artifacts
404 GET /ap/v1/agent/tasks/$NONE
404 POST /agent/tasks/$NONE/steps
404 POST /agent/tasks/$NONE/steps {"input": "x"}
--- says: no task with id "$NONE"; list the tasks to see which there are

=== TEST 22: steps and artifacts that are not there
--- request eval
['GET /agent/tasks/$TASK/steps/$NONE', 'GET /agent/tasks/$NONE/steps/$STEP1',
 'GET /agent/tasks/$ASK/steps/$STEP1', 'GET /agent/tasks/$TASK/steps/x',
 'GET /agent/tasks/$TASK/artifacts/$NONE',
 'GET /agent/tasks/$ASK/artifacts/$FILE1',
 'GET /agent/tasks/$TASK/artifacts/']
--- error_code eval
[(404) x 7]
--- says eval
['no step with id "$NONE"; list the steps to see which there are',
 'no step with id "$STEP1"; list the steps to see which there are',
 'no step with id "$STEP1"; list the steps to see which there are',
 'no step with id "x"; list the steps to see which there are',
 'no artifact with id "$NONE"; list the artifacts to see which there are',
 'no artifact with id "$FILE1"; list the artifacts to see which there are',
 'no artifact with id ""; list the artifacts to see which there are']

=== TEST 23: what is another tenant's is not there
--- table
404 GET /agent/tasks/$HIDDEN
404 GET /agent/tasks/$HIDDEN/steps
404 GET /agent/tasks/$HIDDEN/steps/$HIDDEN_STEP
404 GET /agent/tasks/$HIDDEN/artifacts
404 GET /agent/tasks/$HIDDEN/artifacts/$HIDDEN_FILE
404 POST /agent/tasks/$HIDDEN/steps {}

=== TEST 24: ids that are no uuid
--- table
404 GET /agent/tasks/
404 GET /agent/tasks//steps
404 GET /agent/tasks/1
404 GET /agent/tasks/01900000-0000-7000-8000-00000000000
404 GET /agent/tasks/01900000-0000-7000-8000-0000000000011
404 GET /agent/tasks/01900000-0000-7000-8000-00000000000g
404 GET /agent/tasks/01900000000070008000000000000001
404 GET /agent/tasks/{01900000-0000-7000-8000-000000000001}
404 GET /agent/tasks/$TASK%20
404 GET /agent/tasks/$TASK%0a
404 GET /agent/tasks/%22%3cb%3e%ff/steps
404 GET /agent/tasks/'%20or%201=1--/artifacts
404 POST /agent/tasks/x/steps {}

=== TEST 25: an odd id is quoted in plain ASCII
--- request
GET /agent/tasks/%22%0a%c3%a9
--- error_code: 404
--- says: no task with id ""???"; list the tasks to see which there are

=== TEST 26: paths that are none
--- table
404 GET /agent/
404 GET /agent/task
404 GET /agent/tasksx
404 GET /agent/TASKS
404 GET /agent/x/tasks
404 GET /agent/tasks/$TASK/step
404 GET /agent/tasks/$TASK/steps/$STEP1/
404 GET /agent/tasks/$TASK/steps/$STEP1/more
404 GET /agent/tasks/$TASK/artifacts/$FILE1/more
404 POST /agent/tasks/$TASK/artifacts/$FILE1/cancel
404 POST /agent/tasks/$TASK/cancel/
404 POST /agent/tasks/$TASK/cancel/more
404 POST /agent/tasks/$TASK/steps/$STEP1/cancel/
404 GET /agent/tasks/$TASK/
404 POST /agent/ {}
404 DELETE /agent/task
--- says: no such path; the Agent Protocol starts at "tasks" below this location

=== TEST 27: locations of other kinds, a path that is written oddly
--- table
200 GET /v2/tasks
200 GET /v2/tasks/$TASK
200 GET /re/any/tasks/$TASK/steps
200 GET /agent//tasks/./$TASK
200 GET /agent/x/../tasks/$TASK
200 GET /agent/%74asks/$TASK/step%73
404 GET /v2/tasksx

=== TEST 28: methods that a list does not have
--- table
405 OPTIONS /agent/tasks
405 PUT /agent/tasks {}
405 PATCH /agent/tasks {}
405 DELETE /agent/tasks
405 PROPFIND /ap/v1/agent/tasks
405 OPTIONS /agent/tasks/$TASK/steps
405 DELETE /agent/tasks/$TASK/steps
405 OPTIONS /agent/tasks/$TASK/artifacts
405 PUT /agent/tasks/$TASK/artifacts x
405 DELETE /agent/tasks/x/steps
--- response_headers
Content-Type: application/json
Allow: GET, HEAD, POST
--- says: this path allows GET, HEAD, POST only

=== TEST 29: methods that an item does not have
--- table
405 POST /agent/tasks/$TASK/steps/$STEP1 {}
405 DELETE /agent/tasks/$TASK/steps/$STEP1
405 OPTIONS /agent/tasks/$TASK/steps/$STEP1
405 DELETE /agent/tasks/$TASK/artifacts/$FILE1
405 POST /agent/tasks/$TASK/artifacts/$FILE1
405 OPTIONS /agent/tasks/$TASK/artifacts/$NONE
--- response_headers
Content-Type: application/json
Allow: GET, HEAD
--- says: this path allows GET, HEAD only

=== TEST 30: methods that a task does not have
--- table
405 OPTIONS /agent/tasks/$TASK
405 POST /agent/tasks/$TASK {}
405 PUT /agent/tasks/$TASK {}
405 PATCH /ap/v1/agent/tasks/$TASK {}
405 POST /agent/tasks/x {}
--- response_headers
Content-Type: application/json
Allow: GET, HEAD, DELETE
--- says: this path allows GET, HEAD, DELETE only

=== TEST 31: methods that cancelling does not have
--- table
405 OPTIONS /agent/tasks/$TASK/cancel
405 GET /agent/tasks/$TASK/cancel
405 DELETE /agent/tasks/$TASK/cancel
405 PUT /agent/tasks/x/cancel {}
405 GET /agent/tasks/$TASK/steps/$STEP1/cancel
405 DELETE /agent/tasks/$TASK/steps/$NONE/cancel
--- response_headers
Content-Type: application/json
Allow: POST
--- says: this path allows POST only

=== TEST 32: ids that nobody has, for cancelling and deleting
--- table
404 POST /agent/tasks/$NONE/cancel
404 POST /agent/tasks/x/cancel {}
404 POST /agent/tasks/$HIDDEN/cancel
404 POST /agent/tasks/$TASK/steps/$NONE/cancel
404 POST /agent/tasks/$TASK/steps/x/cancel
404 POST /agent/tasks/$ASK/steps/$STEP1/cancel
404 POST /agent/tasks/$HIDDEN/steps/$HIDDEN_STEP/cancel
404 DELETE /agent/tasks/$NONE
404 DELETE /agent/tasks/x
404 DELETE /agent/tasks/$HIDDEN
--- response_body_like: no (task|step) with id

=== TEST 33: what has ended is not cancelled any more, and that is no error
--- request eval
['POST /agent/tasks/$DONE/steps/$STEP10/cancel
{}', 'POST /agent/tasks/$DONE/cancel', 'POST /agent/tasks/$DONE/cancel
this is not looked at', 'GET /agent/tasks/$DONE/steps/$STEP10']
--- response_body_like eval
['"status":"completed",.*"output":"All done\."',
 ('^\{"task_id":"[-0-9a-f]{36}","input":"Done\."') x 2,
 '"status":"completed",.*"output":"All done\."']

=== TEST 34: a method that nobody has
--- request
BREW /agent/tasks
--- error_code: 405
--- response_headers
Content-Type: application/json
Allow: GET, HEAD, POST

=== TEST 35: a body that is no object
--- table
422 POST /agent/tasks []
422 POST /agent/tasks "input"
422 POST /agent/tasks 17
422 POST /agent/tasks null
422 POST /agent/tasks true
422 POST /agent/tasks/$EMPTY/steps [{"input": "x"}]
--- says: the body must be a JSON object, such as {"input": "..."}

=== TEST 36: a body that is no JSON
--- table
422 POST /agent/tasks {"input": "x"
422 POST /agent/tasks {"input": "x",}
422 POST /agent/tasks {"input": "x"} {}
422 POST /agent/tasks {'input': 'x'}
422 POST /agent/tasks {"input": /* no */ "x"}
422 POST /agent/tasks {"additional_input": {"a": NaN}}
422 POST /agent/tasks {"additional_input": {"a": 012}}
422 POST /agent/tasks {"input": "\x41"}
422 POST /agent/tasks {"input": "\u12"}
422 POST /agent/tasks input=x
422 POST /ap/v1/agent/tasks/$EMPTY/steps {"input"}
--- says: the body is not valid JSON

=== TEST 37: input of a wrong type
--- table
422 POST /agent/tasks {"input": 1}
422 POST /agent/tasks {"input": true}
422 POST /agent/tasks {"input": {}}
422 POST /agent/tasks {"input": ["x"]}
422 POST /agent/tasks {"input": "good", "input": 1}
422 POST /agent/tasks {"additional_input": {}, "input": 1.5}
422 POST /agent/tasks/$EMPTY/steps {"input": 1}
422 POST /agent/tasks/$EMPTY/steps {"input": {"input": "x"}}
--- says: "input" must be a string or null

=== TEST 38: additional_input of a wrong type
--- table
422 POST /agent/tasks {"additional_input": "x"}
422 POST /agent/tasks {"additional_input": []}
422 POST /agent/tasks {"additional_input": 1}
422 POST /agent/tasks {"additional_input": false}
422 POST /agent/tasks/$EMPTY/steps {"additional_input": [{}]}
--- says: "additional_input" must be an object or null

=== TEST 39: where the wrong member was
--- request
POST /agent/tasks
{"input": 1}
--- error_code: 422
--- json
{"message": "\"input\" must be a string or null",
 "detail": [{"loc": ["body", "input"], "msg": "must be a string or null"}]}

=== TEST 40: U+0000 and halves of characters
--- table
422 POST /agent/tasks {"input": "a\u0000b"}
422 POST /agent/tasks {"additional_input": {"a": [{"b": "\u0000"}]}}
422 POST /agent/tasks {"additional_input": {"a\u0000": 1}}
422 POST /agent/tasks/$EMPTY/steps {"input": "\u0000"}
422 POST /agent/tasks {"input": "\ud83d"}
422 POST /agent/tasks {"input": "\ude00\ud83d"}
422 POST /agent/tasks {"additional_input": {"\udc00": 1}}
--- says eval
[('the body has the character U+0000 in a string') x 4,
 ('the body has half a surrogate pair in a string') x 3]

=== TEST 41: bytes that are no UTF-8, and NUL
--- request eval
["POST /agent/tasks\n{\"input\": \"\xff\"}",
 "POST /agent/tasks\n{\"input\": \"\xc0\xaf\"}",
 "POST /agent/tasks\n{\"input\": \"\xed\xa0\x80\"}",
 "POST /agent/tasks\n{\"input\": \"\xf4\x90\x80\x80\"}",
 "POST /agent/tasks\n{\"input\": \"\xe2\x82\"}",
 "POST /agent/tasks\n{\"additional_input\": {\"\xfe\": 1}}",
 "POST /agent/tasks/\$EMPTY/steps\n{\"input\": \"\x80\"}",
 "POST /agent/tasks\n{\"input\": \"a\0b\"}"]
--- error_code eval
[(422) x 8]
--- says eval
[('the body is not valid UTF-8') x 7, 'the body has a NUL byte in it']

=== TEST 42: 64 levels are good, 65 are not
--- request eval
['POST /agent/tasks
{"additional_input": ' . '{"a":' x 63 . '1' . '}' x 63 . '}',
 'POST /agent/tasks
{"additional_input": ' . '{"a":' x 64 . '1' . '}' x 64 . '}',
 'POST /agent/tasks
{"x": ' . '[' x 63 . ']' x 63 . '}',
 'POST /agent/tasks
{"x": ' . '[' x 64 . ']' x 64 . '}',
 'POST /agent/tasks/$EMPTY/steps' . "\n" . '[' x 100_000]
--- error_code eval
[200, 422, 200, 422, 422]

=== TEST 43: what 65 levels are told
--- request eval
"POST /agent/tasks\n" . '{"a":' x 65 . '1' . '}' x 65
--- error_code: 422
--- says: the body nests deeper than 64 levels

=== TEST 44: media types that are not JSON
--- request eval
[("POST /agent/tasks\n{}") x 6]
--- more_headers eval
['Content-Type: text/plain', 'Content-Type: application/jsonx',
 'Content-Type: application/x-www-form-urlencoded', 'Content-Type: json',
 'Content-Type: multipart/form-data; boundary=x',
 'Content-Type: text/json+x']
--- error_code eval
[(415) x 6]
--- says: send the body as JSON, with "Content-Type: application/json"

=== TEST 45: media types that are JSON, and none at all
--- request eval
[("POST /agent/tasks\n{\"input\": \"x\"}") x 7]
--- more_headers eval
['Content-Type: application/json', 'Content-Type: APPLICATION/JSON',
 'Content-Type: application/json; charset=utf-8',
 'Content-Type: application/json ;x', 'Content-Type: application/a+json',
 'Content-Type:', 'X: y']
--- response_body_like: "input":"x"

=== TEST 46: an upload that is none
--- request eval
["POST /agent/tasks/\$EMPTY/artifacts\n{}",
 "POST /agent/tasks/\$EMPTY/artifacts",
 "POST /agent/tasks/\$EMPTY/artifacts\n--x--",
 "POST /agent/tasks/\$EMPTY/artifacts\nx"]
--- more_headers eval
['Content-Type: application/json', '',
 'Content-Type: multipart/form-data; boundary=x',
 'Content-Type: multipart/form-data']
--- error_code eval
[415, 415, 422, 422]

=== TEST 47: the body is larger than nginx allows here
--- request eval
"POST /small/tasks\n{\"input\": \"" . 'x' x 100 . '"}'
--- error_code: 413
--- says: the body is larger than this server accepts; send a smaller one
--- error_log
client intended to send too large body

=== TEST 48: the body is larger than JSON may be
--- request eval
"POST /agent/tasks\n{\"input\": \"" . 'x' x (16 << 20) . '"}'
--- error_code: 413
--- says: a JSON body may have 16 megabytes at most; upload large data as an artifact

=== TEST 49: of all that was refused nothing was stored
--- request eval
['GET /agent/tasks/$EMPTY/steps', 'GET /agent/tasks/$EMPTY/artifacts']
--- response_body_like: "total_items":0,

=== TEST 50: bodies that say nothing
--- table
200 POST /agent/tasks
200 POST /agent/tasks {}
200 POST /agent/tasks {"input": null}
200 POST /agent/tasks {"additional_input": null}
200 POST /agent/tasks {"input": null, "additional_input": null}
200 POST /ap/v1/agent/tasks {"input": "x", "input": null}
--- response_body_like: ^\{"task_id":"[-0-9a-f]{36}","input":null,"additional_input":\{\},"artifacts":\[\]\}$

=== TEST 51: an empty text is not null; unknown members are let be
--- table
200 POST /agent/tasks {"input": ""}
200 POST /agent/tasks {"input": "", "more": [1, {"input": 2}], "": null}
--- response_body_like: "input":"","additional_input":\{\}

=== TEST 52: of duplicate keys the last counts
--- table
200 POST /agent/tasks {"input": "first", "input": "last"}
422 POST /agent/tasks {"input": 1, "input": "last"}
422 POST /agent/tasks {"additional_input": [], "additional_input": {}}

=== TEST 53: duplicate keys: which one was taken
--- request
POST /agent/tasks
{"input": "a", "input": "b", "additional_input": {"c": 1, "c": 2}, "additional_input": {"d": 3}}
--- response_body_like: "input":"b","additional_input":\{"d": 3\}

=== TEST 54: the client's own bytes come back
--- request
POST /agent/tasks
{"additional_input": {"b" : [1.50, 1e3, -0, 123456789012345678901], "a":"\u00e9\/"}}
--- response_body_like: "additional_input":\{"b" : \[1\.50, 1e3, -0, 123456789012345678901\], "a":"\\u00e9\\/"\}

=== TEST 55: input comes back as what it means
--- request
POST /agent/tasks
{"input": "\u0041\ud83d\ude00\n\"\/\u001f"}
--- response_body_like eval
qr/"input":"A\xf0\x9f\x98\x80\\n\\"\/\\u001f"/i

=== TEST 56: one step after the other on a new connection each
--- request eval
['POST /agent/tasks/$EMPTY/steps' . "\n" . '{"input": "hello"}',
 'POST /agent/tasks/$EMPTY/steps', 'POST /agent/tasks/$EMPTY/steps
{"input": null}', 'POST /agent/tasks/$EMPTY/steps
{"input": "again"}', 'GET /agent/tasks/$EMPTY/steps']
--- response_body_like eval
['"status":"completed","input":"hello",.*"output":"hello",.*"is_last":true',
 '"input":"hello",.*"output":"hello",.*"is_last":true',
 '"input":"hello",.*"output":"hello",.*"is_last":true',
 '"input":"again",.*"output":"again",.*"is_last":true',
 '"output":"hello".*"output":"again".*"total_items":2,']

=== TEST 57: a step on a finished task is the last one again
--- request
POST /agent/tasks/$DONE/steps
{}
--- json
{"task_id": "$DONE", "step_id": "$STEP10", "name": null,
 "status": "completed", "input": "x", "additional_input": {},
 "output": "All done.", "additional_output": null, "is_last": true,
 "artifacts": []}

=== TEST 58: a task that has had all its steps
--- request
POST /agent/tasks/$FULL/steps
{"input": "more"}
--- error_code: 422
--- says: "task_id" has had all the steps that its agent allows (max_steps); create a new task

=== TEST 59: a task whose step is running
--- table
200 GET /agent/tasks/$BUSY/steps/$STEP13
409 POST /agent/tasks/$BUSY/steps
409 POST /strict/tasks/$BUSY/steps {"input": "x"}
--- response_headers eval
["Content-Type: application/json\nRetry-After:",
 ("Content-Type: application/json\nRetry-After: 1") x 2]
--- response_body_like eval
['"status":"running",.*"is_last":false,"run":\{.*"owner" : "elsewhere/0/1".*\}\}',
 ('another step of this task is running') x 2]

=== TEST 60: a step that fails is an error, which names the step
--- request
POST /agent/tasks/$DOWN/steps
{}
--- error_code: 502
--- response_body_like: "step_id":"[-0-9a-f]{36}"
--- error_log
agent run:

=== TEST 61: uploads
--- request eval
["POST /agent/tasks/\$EMPTY/artifacts\n--x\r\n"
 . "Content-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n"
 . "bytes\r\n--x--\r\n",
 "POST /ap/v1/agent/tasks/\$EMPTY/artifacts\n--x\r\n"
 . "Content-Disposition: form-data; name=relative_path\r\n\r\nin/\r\n--x\r\n"
 . "Content-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n"
 . "\r\n--x--",
 "GET /agent/tasks/\$EMPTY/artifacts"]
--- more_headers
Content-Type: multipart/form-data; boundary=x
--- response_body_like eval
['"agent_created":false,"file_name":"a.txt","relative_path":null\}$',
 '"agent_created":false,"file_name":"a.txt","relative_path":"in/"\}$',
 '"relative_path":null.*"relative_path":"in/".*"total_items":2']

=== TEST 62: uploads that are wrong
--- request eval
["POST /agent/tasks/\$NONE/artifacts\n--x\r\n"
 . "Content-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n"
 . "bytes\r\n--x--\r\n",
 "POST /agent/tasks/\$ASK/artifacts\n--x\r\n"
 . "Content-Disposition: form-data; name=\"other\"\r\n\r\nx\r\n--x--",
 "POST /agent/tasks/\$ASK/artifacts\n--x\r\n"
 . "Content-Disposition: form-data; name=\"file\"\r\n\r\nx\r\n--x--",
 "POST /agent/tasks/\$ASK/artifacts\n--x\r\n"
 . "Content-Disposition: form-data; name=\"file\"; filename=\"../a\"\r\n\r\n"
 . "x\r\n--x--",
 "GET /agent/tasks/\$ASK/artifacts"]
--- more_headers
Content-Type: multipart/form-data; boundary=x
--- error_code eval
[404, 422, 422, 422, 200]
--- response_body_like eval
['no task', '"loc":\["body","file"\]', '"loc":\["body","file"\]',
 '"loc":\["body","filename"\]', '"total_items":0']

=== TEST 63: an agent by header, argument and body
--- request eval
["POST /any/tasks\n{}", "POST /any/tasks?agent_id=writer\n{}",
 "POST /any/tasks\n{\"additional_input\": {\"agent_id\": \"few\"}}",
 "POST /any/tasks?agent_id=nobody\n{}",
 "POST /any/tasks?agent_id=w%72iter\n{}"]
--- more_headers eval
['X-Agent-ID: writer', '', '', 'X-Agent-ID: few', '']

=== TEST 64: an agent that nobody has
--- request eval
["POST /any/tasks\n{}", "POST /any/tasks?agent_id=nobody\n{}",
 "POST /any/tasks\n{\"additional_input\": {\"agent_id\": \"nobody\"}}",
 "POST /any/tasks?agent_id=writer\n{}"]
--- more_headers eval
['X-Agent-ID: nobody', '', '', 'X-Agent-ID: nobody']
--- error_code eval
[(404) x 4]
--- says: no agent is called "nobody"; name one that this server has

=== TEST 65: no agent is named
--- table
422 POST /any/tasks
422 POST /any/tasks {}
422 POST /any/tasks?agent_id= {"additional_input": {"agent_id": ""}}
422 POST /any/tasks {"additional_input": {"agent_id": 1}}
422 POST /any/tasks {"agent_id": "writer"}
422 POST /any/tasks {"additional_input": {"a": {"agent_id": "writer"}}}
--- says: "additional_input.agent_id" must name an agent here; or name it by the header X-Agent-ID or by ?agent_id=

=== TEST 66: only a new task needs a name
--- table
200 GET /any/tasks
200 GET /any/tasks/$TASK
200 GET /any/tasks/$TASK/steps?agent_id=nobody
200 POST /any/tasks/$DONE/steps {}

=== TEST 67: a GET with a body
--- request eval
["GET /agent/tasks/\$ASK\n{\"input\": 1}", "GET /agent/tasks/\$ASK\nx"]
--- response_body_like: "input":"Ask\."

=== TEST 68: keep-alive, pipelined GETs
--- pipelined_requests eval
["GET /agent/tasks/$::id{TASK}", "GET /agent/tasks/$::id{NONE}",
 "GET /agent/tasks/$::id{ASK}/steps", "GET /agent/tasks?page_size=0",
 "GET /agent/tasks/$::id{ASK}\nignored"]
--- error_code eval
[200, 404, 200, 422, 200]
--- response_headers eval
[("Connection: keep-alive\nContent-Type: application/json") x 4,
 "Connection: close\nContent-Type: application/json"]
--- response_body_like eval
['"input":"Write\."', 'no task with id', '"output":"Which\?"', 'page_size',
 '"input":"Ask\."']

=== TEST 69: pipelined POSTs, good and bad, each with its own body
--- pipelined_requests eval
["POST /agent/tasks\n{\"input\": \"p1\"}", "POST /agent/tasks\n{\"input\": 2}",
 "POST /agent/nothing\n{\"input\": \"p3\"}",
 "DELETE /agent/tasks\n{\"input\": \"p4\"}",
 "POST /agent/tasks\n{\"input\": \"p5\"}", "POST /agent/tasks",
 "POST /agent/tasks\n{\"input\": \"p7\"}"]
--- error_code eval
[200, 422, 404, 405, 200, 200, 200]
--- response_body_like eval
['"input":"p1"', '"input\\\\"', 'no such path', 'allows', '"input":"p5"',
 '"input":null', '"input":"p7"']

=== TEST 70: HTTP/1.0
--- raw_request eval
"GET /agent/tasks/$::id{ASK} HTTP/1.0\r\n\r\n"
--- response_headers
Content-Type: application/json
Connection: close
--- response_body_like: "input":"Ask\."

=== TEST 71: a chunked body
--- raw_request eval
"POST /agent/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
. "Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n"
. "1\r\n{\r\n8;ext=1\r\n\"input\":\r\n00a\r\n\"chunked\"}\r\n0\r\n\r\n"
--- response_body_like: "input":"chunked"

=== TEST 72: a chunked body in pieces, with a trailer
--- raw_request eval
["POST /agent/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
 . "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"inp", "\r\n9\r\nut\": \"in\"",
 "\r\n1\r\n}\r\n0\r\n", "\r\n"]
--- raw_request_middle_delay: 0.05
--- response_body_like: "input":"in"

=== TEST 73: an empty chunked body is {}
--- raw_request eval
"POST /agent/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
. "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
--- response_body_like: "input":null

=== TEST 74: chunks that are none
--- raw_request eval
"POST /agent/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
. "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"
--- error_code: 400
--- says: the request is malformed or was cut short; check its headers and body and send it again
--- error_log
client sent invalid chunked body

=== TEST 75: a chunked body of another type
--- raw_request eval
"POST /agent/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
. "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
. "2\r\n{}\r\n0\r\n\r\n"
--- error_code: 415

=== TEST 76: Expect: 100-continue
--- raw_request eval
["POST /agent/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
 . "Expect: 100-continue\r\nContent-Length: 21\r\n\r\n",
 '{"input": "expected"}']
--- raw_request_middle_delay: 0.2
--- error_code: 100
--- response_headers
--- response_body_like: ^HTTP/1\.1 200 OK\r\n.*\r\n\r\n\{.*"input":"expected"

=== TEST 77: Expect: 100-continue of what is refused by its headers
--- raw_request eval
"POST /agent/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
. "Expect: 100-continue\r\nContent-Type: text/plain\r\n"
. "Content-Length: 21\r\n\r\n"
--- shutdown: 1
--- error_code: 415
--- response_headers
Content-Type: application/json
Connection: close

=== TEST 78: auth_request refuses
--- table
401 GET /auth/tasks
401 POST /auth/tasks {"input": "x"}
401 GET /auth/nothing
401 DELETE /auth/tasks
--- says: authentication is needed; send valid credentials with the request

=== TEST 79: deny refuses
--- request
GET /closed/tasks
--- error_code: 403
--- says: this client may not do that; use credentials that are allowed to
--- error_log
access forbidden by rule

=== TEST 80: limit_req refuses
--- table
200 GET /limited/tasks/$TASK
429 GET /limited/tasks/$TASK
429 POST /limited/tasks {"input": "x"}
--- response_headers eval
["Content-Type: application/json\nRetry-After:",
 "Content-Type: application/json\nRetry-After: 1",
 "Content-Type: application/json\nRetry-After: 1"]

=== TEST 81: what limit_req's refusal says
--- table
429 GET /limited/tasks/$TASK
--- says: too many requests; slow down and try again

=== TEST 82: the llm's location is not for clients: a page of nginx
--- request
GET /llm/v1/chat/completions
--- error_code: 404
--- response_headers
Content-Type: text/html
--- response_body_like: 404 Not Found

=== TEST 83: a download
--- request
GET /agent/tasks/$TASK/artifacts/$FILE1
--- response_headers
Content-Type: application/octet-stream
Content-Disposition: attachment; filename="out.txt"
X-Content-Type-Options: nosniff
ETag: "$FILE1"
Accept-Ranges: bytes
Content-Length: 10
--- response_body chomp
0123456789

=== TEST 84: an empty file whose name is not ASCII
--- request
GET /ap/v1/agent/tasks/$TASK/artifacts/$FILE2
--- response_headers
Content-Type: application/octet-stream
Content-Disposition: attachment; filename="q_.html"; filename*=UTF-8''q%C3%BC.html
X-Content-Type-Options: nosniff
Content-Length: 0
--- response_body

=== TEST 85: HEAD of a download
--- request
HEAD /agent/tasks/$TASK/artifacts/$FILE1
--- response_headers
Content-Type: application/octet-stream
Content-Length: 10
ETag: "$FILE1"
--- response_body

=== TEST 86: ranges
--- request eval
[('GET /agent/tasks/$TASK/artifacts/$FILE1') x 5]
--- more_headers eval
['Range: bytes=0-3', 'Range: bytes=7-', 'Range: bytes=-2',
 'Range: bytes=4-100', 'Range: bytes=0-3
If-Range: "$FILE1"']
--- error_code eval
[(206) x 5]
--- response_headers eval
[map { "Content-Type: application/octet-stream\nContent-Range: bytes $_/10\n"
       . "X-Content-Type-Options: nosniff" }
     qw(0-3 7-9 8-9 4-9 0-3)]
--- response_body eval
[qw(0123 789 89 456789 0123)]

=== TEST 87: two ranges
--- request
GET /agent/tasks/$TASK/artifacts/$FILE1
--- more_headers
Range: bytes=0-1,8-9
--- error_code: 206
--- response_headers_like
Content-Type: multipart/byteranges; boundary=\d+
--- response_body_like: \r\n01\r\n.*\r\n89\r\n

=== TEST 88: ranges that are not asked in earnest
--- request eval
[('GET /agent/tasks/$TASK/artifacts/$FILE1') x 2]
--- more_headers eval
['Range: lines=0-3', 'Range: bytes=0-3
If-Range: "other"']
--- response_headers
Content-Type: application/octet-stream
Content-Length: 10
--- response_body eval
[('0123456789') x 2]

=== TEST 89: a range beyond the end
--- request
GET /agent/tasks/$TASK/artifacts/$FILE1
--- more_headers
Range: bytes=10-
--- error_code: 416
--- response_headers
Content-Type: application/json
Content-Range: bytes */10
--- says: the artifact does not have this range of bytes; ask for one within its size

=== TEST 90: not changed
--- request eval
['GET /agent/tasks/$TASK/artifacts/$FILE1',
 'GET /agent/tasks/$TASK/artifacts/$FILE1',
 'HEAD /agent/tasks/$TASK/artifacts/$FILE1']
--- more_headers eval
['If-None-Match: "$FILE1"', 'If-None-Match: "a", W/"$FILE1"',
 'If-None-Match: *']
--- error_code eval
[(304) x 3]
--- response_headers
ETag: "$FILE1"
Content-Length:
--- response_body eval
[('') x 3]

=== TEST 91: changed, and a condition that does not hold
--- request eval
[('GET /agent/tasks/$TASK/artifacts/$FILE1') x 3]
--- more_headers eval
['If-None-Match: "other"', 'If-Match: "$FILE1"', 'If-Match: "other"']
--- error_code eval
[200, 200, 412]
--- response_headers eval
[('Content-Type: application/octet-stream') x 2,
 'Content-Type: application/json']

=== TEST 92: the user's own error_page is not for the module's errors
--- request
GET /mine/tasks/$NONE
--- error_code: 404
--- says: no task with id "$NONE"; list the tasks to see which there are
