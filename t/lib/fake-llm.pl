#!/usr/bin/perl
#
# A fake LLM endpoint for tests and for the quickstart: speaks the wire format
# of OpenAI's chat completions (streamed and plain), can misbehave in every
# way an endpoint can, and holds thousands of connections at once.  One
# process, no threads, core Perl only.
#
#   fake-llm.pl [--port N] [--port-file F] [--log F] [--trace F] [--demo]
#
#   --port 0       any free port (the default); --port-file F gets its number
#   --log F        one JSON line per request, written when the request ended
#   --trace F      two: {"event": "start", ...} when it came, {"event": "end",
#                  "how": "ok|closed|client closed"}, both with its number and
#                  what its headers X-Agent-Step, X-Agent-Attempt and
#                  X-Agent-Pid say
#   --demo         every model behaves as "demo" does
#
# What it answers, and what may go wrong with it, is said by the request: see
# FakeLLM.pm beside this file.
#
# GET /_stats counts requests; POST /_release lets the held ones go on.

use strict;
use warnings;

use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use FindBin;
use Getopt::Long;
use IO::Poll qw(POLLIN POLLOUT POLLERR POLLHUP);
use IO::Socket::INET;
use JSON::PP;
use Socket qw(IPPROTO_TCP TCP_NODELAY SOMAXCONN);
use Time::HiRes qw(time);

use lib $FindBin::Bin;
use FakeLLM qw(complete error_answer plain);

my %opt = (port => 0);

GetOptions(\%opt, 'port=i', 'port-file=s', 'log=s', 'trace=s', 'demo')
    or die "usage: fake-llm.pl [--port N] [--port-file F] [--log F]"
           . " [--trace F] [--demo]\n";

# thousands of connections need as many descriptors
if (!$ENV{FAKE_LLM_LIMIT}) {
    $ENV{FAKE_LLM_LIMIT} = 1;
    my @args = map { ("--$_", $_ eq 'demo' ? () : $opt{$_}) } sort keys %opt;
    exec '/bin/sh', '-c', 'ulimit -n "$(ulimit -H -n)" 2>/dev/null;'
         . ' exec "$@"', 'sh', $^X, $0, @args;
}

my $json = JSON::PP->new->utf8->canonical->allow_nonref;

my (%conn, %mask, %sleeping, %stats, $number);

@stats{qw(connections requests active held)} = (0) x 4;

$SIG{PIPE} = 'IGNORE';
$SIG{TERM} = $SIG{INT} = sub { exit 0 };

my ($log, $trace) = map {
    my $fh;
    if (defined) {
        open $fh, '>>', $_ or die "cannot open \"$_\": $!\n";
        $fh->autoflush(1);
    }
    $fh;
} @opt{qw(log trace)};

my $listen = IO::Socket::INET->new(
    LocalAddr => '127.0.0.1', LocalPort => $opt{port}, Listen => SOMAXCONN,
    ReuseAddr => 1, Blocking => 0)
    or die "cannot listen on 127.0.0.1:$opt{port}: $!\n";

if (defined $opt{'port-file'}) {
    open my $fh, '>', "$opt{'port-file'}.new"
        or die "cannot write \"$opt{'port-file'}\": $!\n";
    print $fh $listen->sockport, "\n";
    close $fh;
    rename "$opt{'port-file'}.new", $opt{'port-file'} or die "rename: $!\n";
}

$mask{fileno $listen} = POLLIN;
loop();


# The event loop -----------------------------------------------------------

sub loop {
    while (1) {
        my $timeout = -1;

        if (%sleeping) {
            my $next;
            for (values %sleeping) {
                $next = $_->{wake} if !defined $next || $_->{wake} < $next;
            }
            $timeout = int(($next - time) * 1000 + 0.999);
            $timeout = 0 if $timeout < 0;
        }

        my @ready = %mask;
        IO::Poll::_poll($timeout, @ready);

        while (my ($fd, $events) = splice @ready, 0, 2) {
            next unless $events;
            if ($fd == fileno $listen) { accept_all(); next }
            my $c = $conn{$fd} or next;
            read_some($c) if $events & (POLLIN | POLLERR | POLLHUP);
            run_script($c) if $events & POLLOUT && !$c->{closed};
        }

        my $now = time;
        for my $c (grep { $_->{wake} <= $now } values %sleeping) {
            delete $sleeping{$c->{fd}};
            run_script($c) unless $c->{closed};
        }
    }
}


sub accept_all {
    while (my $sock = $listen->accept) {
        $sock->blocking(0);
        setsockopt $sock, IPPROTO_TCP, TCP_NODELAY, 1;
        my $fd = fileno $sock;
        $stats{connections}++;
        $conn{$fd} = { sock => $sock, fd => $fd, in => '', out => '',
                       script => [] };
        $mask{$fd} = POLLIN;
    }
}


sub read_some {
    my ($c) = @_;

    while (1) {
        my $n = sysread $c->{sock}, $c->{in}, 1 << 18, length $c->{in};
        next if !defined $n && $! == EINTR;
        last if !defined $n && ($! == EAGAIN || $! == EWOULDBLOCK);
        return close_conn($c, 'client closed') unless $n;
    }

    next_request($c) unless $c->{request};
}


sub next_request {
    my ($c) = @_;

    my $r = parse_request($c) or return;

    $c->{request} = $r;
    $r->{start} = time;
    $c->{sent} = 0;
    $c->{script} = [eval { route($r) }];
    $c->{script} = [error_answer($r, 500, "fake: $@")] if $@;
    $stats{active}++;
    trace_request($r, 'start');
    run_script($c);
}


# Runs a connection's script: a string is sent, a code reference gives more
# of the script, { wait } sleeps, { held } sleeps until the release, { close }
# and { hang } end it.

sub run_script {
    my ($c) = @_;

    return if $sleeping{$c->{fd}};

    while (1) {
        if (length $c->{out}) {
            # first the log: who has the answer may look at it at once
            log_request($c, 'ok', length $c->{out})
                if !@{$c->{script}} && length $c->{out} < 65536;
            my $n = syswrite $c->{sock}, $c->{out};
            if (!defined $n) {
                next if $! == EINTR;
                return close_conn($c, 'client closed')
                    unless $! == EAGAIN || $! == EWOULDBLOCK;
                $mask{$c->{fd}} = POLLIN | POLLOUT;
                return;
            }
            $c->{sent} += $n;
            substr($c->{out}, 0, $n, '');
            next;
        }

        $mask{$c->{fd}} = POLLIN;

        return end_request($c) unless @{$c->{script}};
        my $step = shift @{$c->{script}};

        if (!ref $step) {
            $c->{out} = $step;

        } elsif (ref $step eq 'CODE') {
            unshift @{$c->{script}}, $step->();

        } elsif (defined $step->{wait}) {
            $c->{wake} = time + $step->{wait};
            $sleeping{$c->{fd}} = $c;
            return;

        } elsif ($step->{held}) {
            next if $c->{request}{released};
            $stats{held}++ unless $c->{held}++;
            return unshift @{$c->{script}}, $step;

        } elsif ($step->{hang}) {
            return unshift @{$c->{script}}, $step;

        } else {
            return close_conn($c, 'closed');
        }
    }
}


sub end_request {
    my ($c) = @_;

    my $r = $c->{request} or return;
    finish_request($c, 'ok');
    return close_conn($c, '') if $r->{close};
    next_request($c);
}


sub finish_request {
    my ($c, $how) = @_;

    log_request($c, $how, 0);
    trace_request($c->{request}, 'end', $how);
    delete $c->{request};
    $stats{active}--;
    $stats{held}-- if delete $c->{held};
}


sub log_request {
    my ($c, $how, $left) = @_;

    my $r = $c->{request};
    return if !$log || $r->{path} =~ m{^/_} || $r->{logged}++;

    print $log $json->encode({
        time => $r->{start}, seconds => time - $r->{start},
        method => $r->{method}, path => $r->{path},
        model => $r->{body}{model}, messages => $r->{body}{messages},
        stream => $r->{body}{stream}, tools => [map { $_->{function}{name} }
                                                @{$r->{body}{tools} || []}],
        stream_options => $r->{body}{stream_options},
        headers => $r->{headers}, bytes => $r->{length},
        behaviour => $r->{behaviour}, attempt => $r->{attempt},
        sent => $c->{sent} + $left, ended => $how }), "\n";
}


# What the log cannot tell: of requests that have not ended.

sub trace_request {
    my ($r, $event, $how) = @_;

    return if !$trace || $r->{path} =~ m{^/_};

    print $trace $json->encode({
        event => $event, time => time, number => $r->{number} //= ++$number,
        step => $r->{headers}{'x-agent-step'}, how => $how,
        attempt => $r->{headers}{'x-agent-attempt'}, path => $r->{path},
        pid => $r->{headers}{'x-agent-pid'},
        model => $r->{body}{model}, behaviour => $r->{behaviour} }), "\n";
}


sub close_conn {
    my ($c, $how) = @_;

    return if $c->{closed}++;
    finish_request($c, $how) if $c->{request};
    delete $sleeping{$c->{fd}};
    delete $mask{$c->{fd}};
    delete $conn{$c->{fd}};
    close $c->{sock};
}


# HTTP in ------------------------------------------------------------------

sub parse_request {
    my ($c) = @_;

    my $end = index $c->{in}, "\r\n\r\n";
    return if $end < 0;

    my ($line, @lines) = split /\r\n/, substr($c->{in}, 0, $end);
    my ($method, $path, $version) = split / /, $line;
    my %h = map { /^([^:]+):\s*(.*?)\s*$/ ? (lc $1 => $2) : () } @lines;
    my ($body, $rest);

    if (lc($h{'transfer-encoding'} || '') eq 'chunked') {
        ($body, $rest) = dechunk(substr $c->{in}, $end + 4);
        return unless defined $body;

    } else {
        my $n = $h{'content-length'} || 0;
        return if length($c->{in}) < $end + 4 + $n;
        $body = substr $c->{in}, $end + 4, $n;
        $rest = substr $c->{in}, $end + 4 + $n;
    }

    $c->{in} = $rest;

    my $connection = lc($h{connection} || '');
    return { method => $method, path => $path || '/', headers => \%h,
             text => $body, length => length $body, body => {},
             close => $connection eq 'close'
                      || ($version || '') eq 'HTTP/1.0'
                         && $connection ne 'keep-alive' };
}


sub dechunk {
    my ($in) = @_;

    my $body = '';
    while ($in =~ s/^([0-9a-fA-F]+)[^\r\n]*\r\n//) {
        my $n = hex $1;
        return if length($in) < $n + 2;
        $body .= substr $in, 0, $n, '';
        substr $in, 0, 2, '';
        return ($body, $in) if $n == 0;
    }
    return;
}


# Routes -------------------------------------------------------------------

sub route {
    my ($r) = @_;

    my $path = $r->{path} =~ s/\?.*//sr;

    return plain($r, 200, { %stats }) if $path eq '/_stats';
    return release($r) if $path eq '/_release';

    $stats{requests}++;

    return plain($r, 200, { object => 'list', data => [{ id => 'demo',
        object => 'model', created => 1700000000, owned_by => 'fake' }] })
        if $path =~ m{/models$};

    return error_answer($r, 404, "no such path: $path")
        unless $path =~ m{/chat/completions$};
    return error_answer($r, 405, 'use POST') if $r->{method} ne 'POST';

    $r->{body} = eval { $json->decode($r->{text}) };
    delete $r->{text};
    if (ref $r->{body} ne 'HASH' || ref $r->{body}{messages} ne 'ARRAY'
        || !@{$r->{body}{messages}})
    {
        $r->{body} = {};
        return error_answer($r, 400, 'the body is no chat completion request');
    }

    my $why = check_messages($r->{body}{messages});
    return $why ? error_answer($r, 400, $why) : complete($r, $opt{demo});
}


sub release {
    my ($r) = @_;

    for my $c (values %conn) {
        next unless $c->{held};
        $c->{request}{released} = 1;
        $stats{held}--;
        delete $c->{held};
        # not from here: it may be the connection that asks
        $c->{wake} = 0;
        $sleeping{$c->{fd}} = $c;
    }

    return plain($r, 200, {});
}


# What real endpoints refuse: a tool message that answers no call, a call that
# no message answers, an unknown role, an assistant turn at the end.

sub check_messages {
    my ($messages) = @_;

    my %open;
    for my $i (0 .. $#$messages) {
        my $m = $messages->[$i];
        my $role = $m->{role} // '';

        if ($role eq 'tool') {
            return "messages[$i] answers no tool call"
                unless delete $open{$m->{tool_call_id} // ''};
            return "messages[$i] has no content" unless defined $m->{content};
            next;
        }

        return "messages[$i] comes before the answers of the tool calls: "
               . join ' ', sort keys %open if %open;
        return "messages[$i] has the role \"$role\""
            unless $role =~ /^(?:system|user|assistant)$/;
        return "messages[$i] has no content" if $role ne 'assistant'
                                                && !defined $m->{content};
        next unless $role eq 'assistant';

        for my $call (@{$m->{tool_calls} || []}) {
            return "messages[$i] has arguments that are no JSON" unless
                defined eval { $json->decode($call->{function}{arguments}) };
            $open{$call->{id} // ''} = 1;
        }
    }

    return 'no answer to the tool calls ' . join ' ', sort keys %open if %open;
    return $messages->[-1]{role} eq 'assistant'
           ? 'the last message is the assistant\'s' : undef;
}
