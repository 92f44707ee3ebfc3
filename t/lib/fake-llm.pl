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
# What it answers is the request's "model", unless a user message ends with
# [[behaviour]]: the last one that does decides.  A behaviour is a list of
# words joined by "+", each with arguments after ":", for example
# "echo+crlf+bytes" or "http:429:2:1".  Or it is JSON: an answer
#
#   {"content": "text", "calls": [["write_artifact", {"path": "a",
#    "content": "b"}]], "finish": "stop", "wire": "crlf+bytes"}
#
# (arguments that are a string are sent as they are; %ANSWER% stands for the
# last tool message), or a list of answers or behaviours, one for each turn
# since that user message.
#
#   what is said                            how it is sent
#     echo         the last user message      delay:MS    before the header
#     text:T       T                          crlf        CRLF line ends
#     demo         write_artifact, finish     comments    keep-alive comments
#     write:P:C  read:P  list  finish:S       bytes       each byte on its own
#     tools        four calls in one answer   split:N     arguments in N bytes
#     ask:Q  secret:Q   ask_user, then use    drip:MS     a pause an event
#     badargs  badtool  badpath               nodone      no [DONE]
#     length       finish_reason "length"     nousage     no usage
#     stamp        "<STEP/ATTEMPT>" after all that is said, by the headers
#                  X-Agent-Step and X-Agent-Attempt: whose answer it is
#     huge:MB      one large answer           nullcontent "content": null
#     loop         a tool call, for ever      json        no stream at all
#                                             close       Connection: close
#   what goes wrong (":N": the first N times, then all is well)
#     http:CODE:N:RETRY_AFTER                 an error status
#     quote:N                                 400, with the last message in it
#     cut:N  cutclean:N                       the stream ends in the middle
#     drop:N                                  closed before the header
#     hang:N  hangmid:N                       silence, for ever
#     html:N  notjson:N  badsse:N  badtype:N  empty:N  badhttp:N   rubbish
#     errorevent:N                            an error in the stream
#     short:N                                 less than Content-Length
#     hold                                    silence until POST /_release
#
# GET /_stats counts requests; POST /_release lets the held ones go on.

use strict;
use warnings;

use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use Getopt::Long;
use IO::Poll qw(POLLIN POLLOUT POLLERR POLLHUP);
use IO::Socket::INET;
use JSON::PP;
use Socket qw(IPPROTO_TCP TCP_NODELAY SOMAXCONN);
use Time::HiRes qw(time);

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
my $chars = JSON::PP->new->canonical;    # JSON inside of JSON

my (%conn, %mask, %sleeping, %seen, %stats, $number);

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
    return $why ? error_answer($r, 400, $why) : complete($r);
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


# Behaviours ---------------------------------------------------------------

# Which behaviour is meant, and how many answers it has given already.

sub choose {
    my ($r) = @_;

    my $turn = 0;
    for my $m (reverse @{$r->{body}{messages}}) {
        $turn++ if $m->{role} eq 'assistant';
        next unless $m->{role} eq 'user' && !ref $m->{content};
        return ($1, $turn) if $m->{content} =~ /\[\[(.+)\]\]\s*\z/s;
    }

    return ('demo', $turn) if $opt{demo};
    return ($r->{body}{model} // 'echo', $turn);
}


sub last_of {
    my ($r, $role) = @_;

    for my $m (reverse @{$r->{body}{messages}}) {
        next unless $m->{role} =~ /^(?:$role)$/;
        return $m->{content} =~ s/\s*\[\[.+\]\]\s*\z//sr
            if defined $m->{content} && !ref $m->{content};
    }
    return '';
}


sub complete {
    my ($r) = @_;

    my ($behaviour, $turn) = choose($r);
    my $script = $behaviour =~ /^\s*[\[{]/
                 ? $chars->decode($behaviour) : undef;

    if (ref $script eq 'ARRAY') {
        $behaviour = $script->[$turn < @$script ? $turn : -1];
        $turn = 0;
    } elsif (defined $script) {
        $behaviour = $turn ? 'finish' : $script;
    }

    my $answer = { wire => '' };

    if (ref $behaviour) {
        $answer = { %$answer, %{fill($behaviour, last_of($r, 'tool'))} };
        $behaviour = $answer->{wire};
    }

    $r->{behaviour} = $behaviour;
    $r->{attempt} = ++$seen{join "\0", $behaviour, scalar
        @{$r->{body}{messages}}, last_of($r, 'user|tool')};

    my (%wire, @fault);

    for my $word (split /\+/, $behaviour) {
        my ($name, @args) = split /:/, $word, -1;
        my @f = fault($r, $name, @args);
        if (@f) { @fault = @f unless @fault; next }
        $wire{$name} = @args ? $args[0] : 1
            unless say_it($r, $answer, $turn, $name, @args);
    }

    say_it($r, $answer, $turn, 'echo')
        unless defined $answer->{content} || $answer->{calls};

    stamp($r, $answer) if $wire{stamp};

    @fault = $fault[0]->($answer, \%wire) if ref $fault[0] eq 'CODE';

    return ($wire{delay} ? { wait => $wire{delay} / 1000 } : (),
            @fault ? @fault : render($r, $answer, \%wire));
}


# An answer that repeats what it was told.

sub fill {
    my ($x, $by) = @_;

    return { map { $_ => fill($x->{$_}, $by) } keys %$x } if ref $x eq 'HASH';
    return [map { fill($_, $by) } @$x] if ref $x eq 'ARRAY';
    return defined $x && !ref $x ? $x =~ s/%ANSWER%/$by/gr : $x;
}


# The words that say something; true when it was one.

sub say_it {
    my ($r, $a, $turn, $name, @args) = @_;
    my ($result, $arg) = (last_of($r, 'tool'), join ':', @args);
    my %once = (
        write  => [write_artifact => { path => $args[0],
                   content => join ':', @args[1 .. $#args] }],
        read   => [read_artifact => { path => $arg }],
        list   => [list_artifacts => {}],
        ask    => [ask_user => { question => $arg || 'Which city?',
                                 secret => JSON::PP::false }],
        secret => [ask_user => { question => $arg || 'The password?',
                                 secret => JSON::PP::true }],
        badargs => [write_artifact => '{"path": "a.txt", "content": '],
        badtool => [launch_missiles => { now => JSON::PP::true }],
        badpath => [write_artifact => { path => '../../etc/passwd',
                                        content => 'x' }],
        loop   => [list_artifacts => {}],
    );

    if ($name eq 'echo') {
        $a->{content} = last_of($r, 'user');

    } elsif ($name eq 'text') {
        $a->{content} = $arg;

    } elsif ($name eq 'huge') {
        $a->{huge} = $args[0] || 1;
        $a->{content} = '';

    } elsif ($name eq 'length') {
        @$a{qw(content finish)} = ('cut off by max_tok', 'length');

    } elsif ($name eq 'finish') {
        $a->{calls} = [[finish => { summary => $arg || 'done' }]];

    } elsif ($name eq 'demo') {
        if ($turn == 0) {
            $a->{content} = 'I will write the capital to output.txt.';
            $a->{calls} = [[write_artifact => { path => 'output.txt',
                                                content => 'Washington' }]];
        } else {
            $a->{calls} = [[finish => { summary =>
                            'Wrote "Washington" to output.txt.' }]];
        }

    } elsif ($name eq 'tools' && $turn == 0) {
        $a->{calls} = [[write_artifact => { path => 'src/a.txt',
                                            content => 'A' }],
                       [write_artifact => { path => 'b.txt', content => 'B' }],
                       [read_artifact => { path => 'b.txt' }],
                       [list_artifacts => {}]];

    } elsif ($name eq 'secret' && $turn) {
        $a->{content} = 'got ' . length($result) . ' characters';

    } elsif ($name eq 'ask' && $turn) {
        $a->{content} = "the answer was: $result";

    } elsif ($once{$name} && ($turn == 0 || $name eq 'loop')) {
        $a->{calls} = [$once{$name}];

    } elsif ($once{$name} || $name eq 'tools') {
        $a->{calls} = [[finish => { summary => $result }]];

    } else {
        return 0;
    }

    return 1;
}


# Marks an answer with the call that it was given to.

sub stamp {
    my ($r, $a) = @_;

    my $mark = sprintf ' <%s/%s>', map { $r->{headers}{"x-agent-$_"} // '' }
                                   qw(step attempt);
    $a->{content} = ($a->{content} // '') . $mark;

    for my $call (@{$a->{calls} || []}) {
        my ($name, $args) = @$call;
        next unless ref $args;
        # a copy: the same answer may be given to another call
        my %copy = %$args;
        $_ .= $mark for grep { defined } @copy{grep { exists $copy{$_} }
                                               qw(content question summary)};
        $call = [$name, \%copy];
    }
}


# The words that go wrong; the script, or nothing when this is none or when
# it has gone wrong often enough.

sub fault {
    my ($r, $name, @args) = @_;

    my $head = "HTTP/1.1 200 OK\r\nContent-Type: ";
    my $times = $name eq 'http' ? $args[1] : $args[0];

    my $part = sub {
        my (@end) = @_;
        return sub {
            my @all = events($r, $_[0], $_[1]);
            my $half = join '', @all[0 .. $#all / 2];
            return ($head . "text/event-stream\r\nTransfer-Encoding: "
                    . "chunked\r\n\r\n" . chunk($half), @end);
        };
    };

    my %script = (
        http => sub { error_answer($r, $args[0], "fake error $args[0]",
                                   $args[2]) },
        quote => sub { error_answer($r, 400, 'this is no good: '
                                             . last_of($r, 'user|tool')) },
        drop => sub { { close => 1 } },
        hang => sub { { hang => 1 } },
        badhttp => sub { ("hello, world\r\n\r\nthis is no HTTP\r\n",
                          { close => 1 }) },
        html => sub { fixed($r, 'text/html', "<html><body><h1>It works!</h1>"
                                             . "</body></html>\n") },
        notjson => sub { fixed($r, 'application/json', "{\"choices\": [oops") },
        badsse => sub { fixed($r, 'text/event-stream',
                              "data: {\"choices\": [oops\n\ndata: [DONE]\n\n")},
        badtype => sub { fixed($r, 'text/plain', 'just some words') },
        empty => sub { fixed($r, 'application/json', '') },
        errorevent => sub { fixed($r, 'text/event-stream', "data: "
            . $json->encode({ error => { message => 'the fake is overloaded',
                              type => 'server_error', code => 503 } })
            . "\n\n") },
        short => sub { ("${head}application/json\r\nContent-Length: 1000"
                        . "\r\n\r\n{\"choices\": [", { close => 1 }) },
        cut => sub { $part->({ close => 1 }) },
        cutclean => sub { $part->("0\r\n\r\n") },
        hangmid => sub { $part->({ hang => 1 }) },
    );

    return unless $script{$name};
    return if length($times // '') && $r->{attempt} > $times;
    return $script{$name}->();
}


# Answers ------------------------------------------------------------------

sub usage {
    my ($r, $a) = @_;

    my $in = $a->{tokens_in} // int($r->{length} / 4) + 1;
    my $out = $a->{tokens_out} // int(1 + length($a->{content} // '') / 4);
    return { prompt_tokens => $in + 0, completion_tokens => $out + 0,
             total_tokens => $in + $out };
}


sub tool_calls {
    my ($a) = @_;

    my $i = 0;
    return map {
        my ($name, $args) = @$_;
        { id => sprintf('call_%d_%06x', $i++, int rand 1 << 24),
          type => 'function', function => { name => $name,
          arguments => ref $args ? $chars->encode($args) : $args } };
    } @{$a->{calls} || []};
}


sub finish_reason {
    my ($a) = @_;
    return $a->{finish} // ($a->{calls} ? 'tool_calls' : 'stop');
}


# A streamed answer as a list of SSE events.

sub events {
    my ($r, $a, $wire) = @_;

    my $eol = $wire->{crlf} ? "\r\n" : "\n";
    my %base = (id => 'chatcmpl-' . int(rand 1e9), created => int time,
                object => 'chat.completion.chunk',
                model => $r->{body}{model} // 'fake');
    my @out;

    my $event = sub {
        push @out, ": keep-alive$eol$eol" if $wire->{comments};
        push @out, 'data: ' . $json->encode($_[0]) . "$eol$eol";
    };
    my $delta = sub {
        $event->({ %base, choices => [{ index => 0, delta => $_[0],
                   finish_reason => $_[1] }] });
    };

    $delta->({ role => 'assistant', content => $a->{calls}
               && !defined $a->{content} || $wire->{nullcontent}
               ? undef : '' });

    $delta->({ content => $_ })
        for ($a->{content} // '') =~ /(\s*\S{1,4096}|\s+)/g;

    my $size = $wire->{split} || 12;
    my $i = 0;
    for my $call (tool_calls($a)) {
        my $text = $call->{function}{arguments};
        $delta->({ tool_calls => [{ %$call, index => $i, function =>
                   { name => $call->{function}{name}, arguments => '' } }] });
        $delta->({ tool_calls => [{ index => $i,
                   function => { arguments => $_ } }] })
            for $text =~ /(.{1,$size})/gs;
        $i++;
    }

    $delta->({}, finish_reason($a));
    $event->({ %base, choices => [], usage => usage($r, $a) })
        unless $wire->{nousage};
    push @out, "data: [DONE]$eol$eol" unless $wire->{nodone};
    return @out;
}


sub chunk { return sprintf("%x\r\n%s\r\n", length $_[0], $_[0]) }


sub render {
    my ($r, $a, $wire) = @_;

    my @held = $wire->{hold} ? { held => 1 } : ();

    return (@held, pace($wire, json_answer($r, $a, $wire)))
        if $wire->{json} || !$r->{body}{stream};

    my $head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
               . "Cache-Control: no-cache\r\n";

    if ($wire->{close}) {
        $r->{close} = 1;
        return (@held, pace($wire, "${head}Connection: close\r\n\r\n",
                            events($r, $a, $wire)));
    }

    $head .= "Transfer-Encoding: chunked\r\n\r\n";

    if ($a->{huge}) {
        my $left = $a->{huge} * 16;
        my @tail = map { chunk($_) } events($r, { content => '' }, $wire);
        my $piece = chunk('data: ' . $json->encode({ choices => [{ index => 0,
            delta => { content => 'x' x 65536 } }] }) . "\n\n");
        my $more;
        $more = sub { $left-- > 0 ? ($piece, $more) : (@tail, "0\r\n\r\n") };
        return (@held, $head, $more);
    }

    return (@held, pace($wire, $head, (map { chunk($_) }
                                       events($r, $a, $wire)), "0\r\n\r\n"));
}


# Puts pauses between the parts, or takes them apart, or joins them.

sub pace {
    my ($wire, @parts) = @_;
    return map { ($_, { wait => 0 }) } split //, join '', @parts
        if $wire->{bytes};
    return map { ($_, { wait => $wire->{drip} / 1000 }) } @parts
        if $wire->{drip};
    return join '', @parts;
}


sub json_answer {
    my ($r, $a, $wire) = @_;

    my $message = { role => 'assistant', content => $wire->{nullcontent}
                    ? undef : $a->{content} };
    $message->{content} = 'x' x ($a->{huge} << 20) if $a->{huge};
    $message->{tool_calls} = [tool_calls($a)] if $a->{calls};

    return plain($r, 200, {
        id => 'chatcmpl-1', object => 'chat.completion', created => int time,
        model => $r->{body}{model} // 'fake',
        choices => [{ index => 0, message => $message,
                      finish_reason => finish_reason($a) }],
        $wire->{nousage} ? () : (usage => usage($r, $a)) });
}


sub plain {
    my ($r, $status, $data, $more) = @_;
    return fixed($r, 'application/json', $json->encode($data), $status, $more);
}


sub fixed {
    my ($r, $type, $body, $status, $more) = @_;
    return 'HTTP/1.1 ' . ($status || 200) . " Fake\r\nContent-Type: $type\r\n"
           . 'Content-Length: ' . length($body) . "\r\n" . ($more || '')
           . ($r->{close} ? "Connection: close\r\n" : '') . "\r\n$body";
}


sub error_answer {
    my ($r, $status, $message, $retry_after) = @_;

    return plain($r, $status, { error => { message => $message,
                 type => 'fake_error', param => undef, code => $status + 0 } },
                 length($retry_after // '') ? "Retry-After: $retry_after\r\n"
                                            : '');
}
