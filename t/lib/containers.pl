# What the tests of the agent_protocol dialect share (agent_protocol.t,
# agent_protocol_files.t): fake containers, and an nginx with their agents.

use strict;
use warnings;

use AgentTest;
use AgentTest::Container;
use JSON::PP ();
use Test::More;

our ($true, $false) = (JSON::PP::true, JSON::PP::false);

our $pg = AgentTest::Postgres->new;
our $llm = AgentTest::LLM->new;
our $fake = AgentTest::Container->new(name => 'one');
my @many = map { AgentTest::Container->new(name => "n$_", unix => 1) } 1 .. 3;
our $sdk;         # the one that is built with the SDK, if it is there
my $sdk_port = $sdk ? $sdk->port : free_port();

my $tcp = join ' ', map { 'server 127.0.0.1:' . $_->port . ';' } @many;
my $unix = join ' ', map { 'server unix:' . $_->socket . ';' } @many;
my $ap = 'dialect agent_protocol; pass';

our $nginx = AgentTest::Nginx->new(level => 'debug', conf => conf(
    pg => $pg, llm => $llm, workers => 2,
    agents => {
        ap => "$ap /one/ap/v1/agent; timeout 20s;",
        ap_quick => "$ap /one/ap/v1/agent/; timeout 1s; attempts 2;",
        ap_once => "$ap /one/ap/v1/agent?a=b; attempts 1; timeout 20s;",
        ap_small => "$ap /one/ap/v1/agent; max_answer 64k; timeout 20s;",
        ap_short => "$ap /one/ap/v1/agent; max_steps 2; timeout 20s;",
        ap_auto => "$ap /one/ap/v1/agent; run auto; max_steps 3; "
                   . 'timeout 20s;',
        ap_tcp => "$ap /tcp/ap/v1/agent; timeout 20s;",
        ap_unix => "$ap /unix/ap/v1/agent; timeout 20s;",
        ap_sdk => "$ap /sdk/ap/v1/agent; timeout 20s;",
        ap_gone => "$ap /gone/ap/v1/agent; attempts 2; timeout 20s;",
        ap_self => "$ap /self/x/writer; attempts 1; timeout 20s;",
    },
    http => "    upstream many { hash \$agent_task_id consistent; $tcp }\n"
            . "    upstream sockets { hash \$agent_task_id consistent; $unix }",
    server => join "\n", map {
        my ($at, $to) = @$_;
        "        location /$at/ { internal; proxy_pass http://$to/; "
        . 'proxy_http_version 1.1; proxy_set_header Connection ""; '
        . 'proxy_next_upstream off; }';
    } [one => '127.0.0.1:' . $fake->port], [tcp => 'many'],
      [unix => 'sockets'], [sdk => '127.0.0.1:' . $sdk_port],
      [gone => '127.0.0.1:' . free_port()], [self => '127.0.0.1:%PORT%']));

on_record($nginx, $pg);


our $names = 0;          # how many tasks were made

# A task at an agent, with an input of its own: (its id, its input).

sub task {
    my ($agent, %extra) = @_;

    my $input = 'task ' . ++$names;
    my $r = $nginx->post("/x/$agent/tasks", { input => $input,
                         %extra ? (additional_input => \%extra) : () });
    is($r->{status}, 200, "$input is made") or diag $r->{body};
    return wantarray ? ($r->{json}{task_id}, $input) : $r->{json}{task_id};
}


# A step of it that does what is said.

sub step {
    my ($agent, $task, $input, %do) = @_;
    return $nginx->post("/x/$agent/tasks/$task/steps", {
        defined $input ? (input => $input) : (),
        %do ? (additional_input => { do => \%do }) : () });
}


# Of a task that is made for it.

sub alone {
    my ($agent, %do) = @_;
    my $task = task($agent);
    return (step($agent, $task, 'x', %do), $task);
}


sub artifacts {
    my ($agent, $task) = @_;
    return @{$nginx->get("/x/$agent/tasks/$task/artifacts")
             ->{json}{artifacts}};
}


sub content {
    my ($agent, $task, $artifact) = @_;
    return $nginx->get("/x/$agent/tasks/$task/artifacts/"
                       . $artifact->{artifact_id})->{body};
}


sub upload {
    my ($agent, $task, $name, $bytes, $path) = @_;

    my $body = (defined $path ? "--B\r\nContent-Disposition: form-data; "
                                . "name=\"relative_path\"\r\n\r\n$path\r\n"
                              : '')
        . "--B\r\nContent-Disposition: form-data; name=\"file\"; "
        . "filename=\"$name\"\r\n\r\n$bytes\r\n--B--\r\n";
    utf8::encode($body) if utf8::is_utf8($body);

    my $r = $nginx->request(method => 'POST', body => $body,
        path => "/x/$agent/tasks/$task/artifacts",
        headers => { 'Content-Type' => 'multipart/form-data; boundary=B' });
    is($r->{status}, 200, "$name is uploaded") or diag $r->{body};
    return $r->{json};
}


# What the fake one was asked about a task of ours: by its input.

sub asked {
    my ($input, $pattern) = @_;

    my ($made) = grep { ($_->{body}{input} // '') eq $input }
                 $fake->calls(qr{^POST /ap/v1/agent/tasks(\?|$)});
    return $made;
}


sub blobs {
    my @all = glob $nginx->dir . '/artifacts/[0-9a-f][0-9a-f]/*';
    return scalar @all;
}


sub failed {
    my ($r, $status, $words, $name) = @_;
    is($r->{status}, $status, "$name: $status") or diag $r->{body};
    my ($why) = $r->{json}{message}
                =~ /^the step failed: (.*); post a new one to try again$/;
    like($why, $words, "$name: in words");
}


# What the fake one was given, as it tells in an output.

sub told {
    my ($r) = @_;
    return JSON::PP->new->decode($r->{json}{output} // '[]');
}


1;
