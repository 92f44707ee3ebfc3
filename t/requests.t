#!/usr/bin/perl

# Requests and their answers, as tables: routes, methods, pages, ids, bodies
# that are refused.  The sections are explained in lib/request_blocks.pl.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

require 'request_blocks.pl';

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
