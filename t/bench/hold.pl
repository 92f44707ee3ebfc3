# Many steps held at once, client and LLM in one program, so that nothing
# depends on time: every client sends its POST step, the LLM takes every
# request and says nothing; the worker's memory is read; then the LLM answers
# all of them and every client must get a completed step.
#
#   hold.pl PORT LLM_PORT WORKER STEPS
#
# Prints the KB that each step took.  Blocking calls and no loop: each of them
# must succeed in its turn, or an alarm ends the program.

use strict;
use warnings;

use IO::Socket::INET;
use Socket qw(SOMAXCONN);

use constant BATCH => 50;
use constant WAIT  => 60;

my ($port, $llm_port, $worker, $steps) = @ARGV;

$SIG{ALRM} = sub { die "hold: nothing happened for " . WAIT . " s\n" };

my $llm = IO::Socket::INET->new(Listen => SOMAXCONN, ReuseAddr => 1,
    LocalAddr => '127.0.0.1', LocalPort => $llm_port)
    or die "hold: cannot listen on $llm_port: $!\n";

sub post {
    my ($socket, $path, $body) = @_;

    print $socket "POST /ap/v1/agent/tasks$path HTTP/1.1\r\n"
        . "Host: localhost\r\nContent-Type: application/json\r\n"
        . "Content-Length: " . length($body) . "\r\n\r\n$body"
        or die "hold: cannot send: $!\n";
}

# A message of either kind: first line and body.

sub take {
    my ($socket) = @_;
    my ($first, $length, $chunked, $body) = ('', 0, 0, '');

    alarm WAIT;

    local $/ = "\r\n";
    $first = <$socket> // die "hold: a connection was closed\n";

    while (my $line = <$socket>) {
        last if $line eq "\r\n";
        $length = $1 if $line =~ /^Content-Length: *(\d+)/i;
        $chunked = 1 if $line =~ /^Transfer-Encoding: *chunked/i;
    }

    read($socket, $body, $length) == $length
        or die "hold: a message was cut\n";

    while ($chunked && (my $line = <$socket>)) {
        $length = hex $line;
        read($socket, my $piece, $length + 2);
        last unless $length;
        $body .= substr($piece, 0, $length);
    }

    return ($first, $body);
}

sub client {
    return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port)
        // die "hold: cannot connect: $!\n";
}

sub tasks {
    my ($n) = @_;
    my $socket = client();
    my @ids;

    for (1 .. $n) {
        post($socket, '', '{"input": "to be held"}');
        my ($first, $body) = take($socket);

        $body =~ /"task_id": *"([^"]+)"/ or die "hold: no task: $first\n";
        push @ids, $1;
    }

    return @ids;
}

sub rss {
    open my $file, '<', "/proc/$worker/status" or die "hold: no worker\n";

    while (<$file>) {
        return $1 if /^VmRSS:\s+(\d+)/;
    }
}

sub answer {
    my ($socket) = @_;
    my $head = '{"id":"c","object":"chat.completion.chunk","created":1,'
        . '"model":"bench","choices":[{"index":0,';
    my $body = "data: $head\"delta\":{\"role\":\"assistant\",\"content\":"
        . "\"It is done.\"},\"finish_reason\":null}]}\n\n"
        . "data: $head\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
        . "data: [DONE]\n\n";

    print $socket "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        . "Connection: close\r\nContent-Length: " . length($body)
        . "\r\n\r\n$body";
    close $socket;
}

# Returns the clients that wait and the requests that are held.

sub hold {
    my (@ids) = @_;
    my (@clients, @held);

    while (my @batch = splice @ids, 0, BATCH) {
        for my $id (@batch) {
            push @clients, client();
            post($clients[-1], "/$id/steps", '{}');
        }

        for (@batch) {
            alarm WAIT;
            push @held, scalar $llm->accept();
            take($held[-1]);
        }
    }

    return (\@clients, \@held);
}

sub release {
    my ($clients, $held) = @_;
    my $bad = 0;

    answer($_) for @$held;

    for my $socket (@$clients) {
        my ($first, $body) = take($socket);

        $bad++ unless $first =~ / 200 / && $body =~ /"completed"/;
    }

    die "hold: $bad steps did not end well\n" if $bad;
}

# once with a few, so that what the worker needs only once is there
release(hold(tasks(100)));

my @ids = tasks($steps);
my $before = rss();
my ($clients, $held) = hold(@ids);
my $after = rss();

release($clients, $held);

printf "%.2f KB a step: %d KB before, %d KB with %d steps held\n",
    ($after - $before) / $steps, $before, $after, $steps;
