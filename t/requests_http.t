#!/usr/bin/perl

# Requests and their answers: bodies that are taken, what HTTP/1.1 asks,
# agents by name, what nginx's own modules refuse, downloads.  The sections
# are explained in lib/request_blocks.pl.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

require 'request_blocks.pl';

run_tests();

__DATA__

=== TEST 1: bodies that say nothing
--- table
200 POST /agent/tasks
200 POST /agent/tasks {}
200 POST /agent/tasks {"input": null}
200 POST /agent/tasks {"additional_input": null}
200 POST /agent/tasks {"input": null, "additional_input": null}
200 POST /ap/v1/agent/tasks {"input": "x", "input": null}
--- response_body_like: ^\{"task_id":"[-0-9a-f]{36}","input":null,"additional_input":\{\},"artifacts":\[\]\}$

=== TEST 2: an empty text is not null; unknown members are let be
--- table
200 POST /agent/tasks {"input": ""}
200 POST /agent/tasks {"input": "", "more": [1, {"input": 2}], "": null}
--- response_body_like: "input":"","additional_input":\{\}

=== TEST 3: of duplicate keys the last counts
--- table
200 POST /agent/tasks {"input": "first", "input": "last"}
422 POST /agent/tasks {"input": 1, "input": "last"}
422 POST /agent/tasks {"additional_input": [], "additional_input": {}}

=== TEST 4: duplicate keys: which one was taken
--- request
POST /agent/tasks
{"input": "a", "input": "b", "additional_input": {"c": 1, "c": 2}, "additional_input": {"d": 3}}
--- response_body_like: "input":"b","additional_input":\{"d": 3\}

=== TEST 5: the client's own bytes come back
--- request
POST /agent/tasks
{"additional_input": {"b" : [1.50, 1e3, -0, 123456789012345678901], "a":"\u00e9\/"}}
--- response_body_like: "additional_input":\{"b" : \[1\.50, 1e3, -0, 123456789012345678901\], "a":"\\u00e9\\/"\}

=== TEST 6: input comes back as what it means
--- request
POST /agent/tasks
{"input": "\u0041\ud83d\ude00\n\"\/\u001f"}
--- response_body_like eval
qr/"input":"A\xf0\x9f\x98\x80\\n\\"\/\\u001f"/i

=== TEST 7: one step after the other on a new connection each
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

=== TEST 8: a step on a finished task is the last one again
--- request
POST /agent/tasks/$DONE/steps
{}
--- json
{"task_id": "$DONE", "step_id": "$STEP10", "name": null,
 "status": "completed", "input": "x", "additional_input": {},
 "output": "All done.", "additional_output": null, "is_last": true,
 "artifacts": []}

=== TEST 9: a task that has had all its steps
--- request
POST /agent/tasks/$FULL/steps
{"input": "more"}
--- error_code: 422
--- says: "task_id" has had all the steps that its agent allows (max_steps); create a new task

=== TEST 10: a task whose step is running
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

=== TEST 11: a step that fails is an error, which names the step
--- request
POST /agent/tasks/$DOWN/steps
{}
--- error_code: 502
--- response_body_like: "step_id":"[-0-9a-f]{36}"
--- error_log
agent run:

=== TEST 12: uploads
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

=== TEST 13: uploads that are wrong
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

=== TEST 14: an agent by header, argument and body
--- request eval
["POST /any/tasks\n{}", "POST /any/tasks?agent_id=writer\n{}",
 "POST /any/tasks\n{\"additional_input\": {\"agent_id\": \"few\"}}",
 "POST /any/tasks?agent_id=nobody\n{}",
 "POST /any/tasks?agent_id=w%72iter\n{}"]
--- more_headers eval
['X-Agent-ID: writer', '', '', 'X-Agent-ID: few', '']

=== TEST 15: an agent that nobody has
--- request eval
["POST /any/tasks\n{}", "POST /any/tasks?agent_id=nobody\n{}",
 "POST /any/tasks\n{\"additional_input\": {\"agent_id\": \"nobody\"}}",
 "POST /any/tasks?agent_id=writer\n{}"]
--- more_headers eval
['X-Agent-ID: nobody', '', '', 'X-Agent-ID: nobody']
--- error_code eval
[(404) x 4]
--- says: no agent is called "nobody"; name one that this server has

=== TEST 16: no agent is named
--- table
422 POST /any/tasks
422 POST /any/tasks {}
422 POST /any/tasks?agent_id= {"additional_input": {"agent_id": ""}}
422 POST /any/tasks {"additional_input": {"agent_id": 1}}
422 POST /any/tasks {"agent_id": "writer"}
422 POST /any/tasks {"additional_input": {"a": {"agent_id": "writer"}}}
--- says: "additional_input.agent_id" must name an agent here; or name it by the header X-Agent-ID or by ?agent_id=

=== TEST 17: only a new task needs a name
--- table
200 GET /any/tasks
200 GET /any/tasks/$TASK
200 GET /any/tasks/$TASK/steps?agent_id=nobody
200 POST /any/tasks/$DONE/steps {}

=== TEST 18: a GET with a body
--- request eval
["GET /agent/tasks/\$ASK\n{\"input\": 1}", "GET /agent/tasks/\$ASK\nx"]
--- response_body_like: "input":"Ask\."

=== TEST 19: keep-alive, pipelined GETs
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

=== TEST 20: pipelined POSTs, good and bad, each with its own body
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

=== TEST 21: HTTP/1.0
--- raw_request eval
"GET /agent/tasks/$::id{ASK} HTTP/1.0\r\n\r\n"
--- response_headers
Content-Type: application/json
Connection: close
--- response_body_like: "input":"Ask\."

=== TEST 22: a chunked body
--- raw_request eval
"POST /agent/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
. "Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n"
. "1\r\n{\r\n8;ext=1\r\n\"input\":\r\n00a\r\n\"chunked\"}\r\n0\r\n\r\n"
--- response_body_like: "input":"chunked"

=== TEST 23: a chunked body in pieces, with a trailer
--- raw_request eval
["POST /agent/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
 . "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"inp", "\r\n9\r\nut\": \"in\"",
 "\r\n1\r\n}\r\n0\r\n", "\r\n"]
--- raw_request_middle_delay: 0.05
--- response_body_like: "input":"in"

=== TEST 24: an empty chunked body is {}
--- raw_request eval
"POST /agent/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
. "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
--- response_body_like: "input":null

=== TEST 25: chunks that are none
--- raw_request eval
"POST /agent/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
. "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"
--- error_code: 400
--- says: the request is malformed or was cut short; check its headers and body and send it again
--- error_log
client sent invalid chunked body

=== TEST 26: a chunked body of another type
--- raw_request eval
"POST /agent/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
. "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
. "2\r\n{}\r\n0\r\n\r\n"
--- error_code: 415

=== TEST 27: Expect: 100-continue
--- raw_request eval
["POST /agent/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
 . "Expect: 100-continue\r\nContent-Length: 21\r\n\r\n",
 '{"input": "expected"}']
--- raw_request_middle_delay: 0.2
--- error_code: 100
--- response_headers
--- response_body_like: ^HTTP/1\.1 200 OK\r\n.*\r\n\r\n\{.*"input":"expected"

=== TEST 28: Expect: 100-continue of what is refused by its headers
--- raw_request eval
"POST /agent/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
. "Expect: 100-continue\r\nContent-Type: text/plain\r\n"
. "Content-Length: 21\r\n\r\n"
--- shutdown: 1
--- error_code: 415
--- response_headers
Content-Type: application/json
Connection: close

=== TEST 29: auth_request refuses
--- table
401 GET /auth/tasks
401 POST /auth/tasks {"input": "x"}
401 GET /auth/nothing
401 DELETE /auth/tasks
--- says: authentication is needed; send valid credentials with the request

=== TEST 30: deny refuses
--- request
GET /closed/tasks
--- error_code: 403
--- says: this client may not do that; use credentials that are allowed to
--- error_log
access forbidden by rule

=== TEST 31: limit_req refuses
--- table
200 GET /limited/tasks/$TASK
429 GET /limited/tasks/$TASK
429 POST /limited/tasks {"input": "x"}
--- response_headers eval
["Content-Type: application/json\nRetry-After:",
 "Content-Type: application/json\nRetry-After: 1",
 "Content-Type: application/json\nRetry-After: 1"]

=== TEST 32: what limit_req's refusal says
--- table
429 GET /limited/tasks/$TASK
--- says: too many requests; slow down and try again

=== TEST 33: the llm's location is not for clients: a page of nginx
--- request
GET /llm/v1/chat/completions
--- error_code: 404
--- response_headers
Content-Type: text/html
--- response_body_like: 404 Not Found

=== TEST 34: a download
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

=== TEST 35: an empty file whose name is not ASCII
--- request
GET /ap/v1/agent/tasks/$TASK/artifacts/$FILE2
--- response_headers
Content-Type: application/octet-stream
Content-Disposition: attachment; filename="q_.html"; filename*=UTF-8''q%C3%BC.html
X-Content-Type-Options: nosniff
Content-Length: 0
--- response_body

=== TEST 36: HEAD of a download
--- request
HEAD /agent/tasks/$TASK/artifacts/$FILE1
--- response_headers
Content-Type: application/octet-stream
Content-Length: 10
ETag: "$FILE1"
--- response_body

=== TEST 37: ranges
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

=== TEST 38: two ranges
--- request
GET /agent/tasks/$TASK/artifacts/$FILE1
--- more_headers
Range: bytes=0-1,8-9
--- error_code: 206
--- response_headers_like
Content-Type: multipart/byteranges; boundary=\d+
--- response_body_like: \r\n01\r\n.*\r\n89\r\n

=== TEST 39: ranges that are not asked in earnest
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

=== TEST 40: a range beyond the end
--- request
GET /agent/tasks/$TASK/artifacts/$FILE1
--- more_headers
Range: bytes=10-
--- error_code: 416
--- response_headers
Content-Type: application/json
Content-Range: bytes */10
--- says: the artifact does not have this range of bytes; ask for one within its size

=== TEST 41: not changed
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

=== TEST 42: changed, and a condition that does not hold
--- request eval
[('GET /agent/tasks/$TASK/artifacts/$FILE1') x 3]
--- more_headers eval
['If-None-Match: "other"', 'If-Match: "$FILE1"', 'If-Match: "other"']
--- error_code eval
[200, 200, 412]
--- response_headers eval
[('Content-Type: application/octet-stream') x 2,
 'Content-Type: application/json']

=== TEST 43: the user's own error_page is not for the module's errors
--- request
GET /mine/tasks/$NONE
--- error_code: 404
--- says: no task with id "$NONE"; list the tasks to see which there are
