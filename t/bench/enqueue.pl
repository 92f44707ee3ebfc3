# enqueue.pl PORT LLM_PORT N: how long a queued step takes to get to its LLM.
# Is the LLM itself: for each of N steps, one after the other, the time from
# the first byte of the POST to the first byte of the LLM call.  Prints the
# median in milliseconds.

use strict;
use warnings;

use IO::Socket::INET;
use Time::HiRes qw(sleep time);

my ($port, $llm_port, $n) = @ARGV;

my $listen = IO::Socket::INET->new(LocalAddr => "127.0.0.1:$llm_port",
                                   Listen => 64, ReuseAddr => 1)
    or die "no LLM: $!";

my $chunk = 'data: {"choices":[{"index":0,"delta":{"content":"ok"},'
    . '"finish_reason":"stop"}]}' . "\n\ndata: [DONE]\n\n";
my $answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    . 'Content-Length: ' . length($chunk) . "\r\nConnection: close\r\n\r\n"
    . $chunk;

sub request {
    my ($path, $headers) = @_;

    my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port")
        or die "no nginx: $!";
    my $begin = time;

    print $s "POST /ap/v1/agent/$path HTTP/1.1\r\nHost: x\r\n$headers"
        . "Content-Type: application/json\r\nContent-Length: 2\r\n"
        . "Connection: close\r\n\r\n{}";
    return ($s, $begin);
}

sub rest {
    my ($s) = @_;
    local $/;
    my $text = <$s>;
    return $text // '';
}

my @took;

for my $i (1 .. $n) {
    my ($s) = request('tasks', '');
    my ($task) = rest($s) =~ /"task_id":"([-0-9a-f]+)"/ or die 'no task';

    my $begin;
    ($s, $begin) = request("tasks/$task/steps", "Prefer: respond-async\r\n");

    my $llm = $listen->accept or die "accept: $!";
    sysread $llm, my $bytes, 65536 or die 'no call';
    push @took, (time - $begin) * 1000;

    print $llm $answer;
    close $llm;
    rest($s) =~ m{^HTTP/1.1 202} or die 'the step was not accepted';
    sleep 0.01;
}

@took = sort { $a <=> $b } @took;
printf "%.2f\n", $took[$#took / 2];
