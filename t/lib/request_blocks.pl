# What the tests of requests and their answers share (requests.t,
# requests_http.t).  The rows asked for have fixed ids and are put into
# Postgres first.
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

use AgentTest ();

our ($pg, $llm, $dir);

BEGIN {
    $dir = AgentTest::scratch();
    $pg = AgentTest::Postgres->new;
    $llm = AgentTest::LLM->new;

    AgentTest::Nginx::for_blocks();

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

1;
