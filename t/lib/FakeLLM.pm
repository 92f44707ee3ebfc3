package FakeLLM;

# What the fake LLM (fake-llm.pl) answers: the behaviours that a request may
# ask for, and the wire format.  It knows of no connection: an answer is a list
# for run_script() there.  Core Perl only, too.
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

use strict;
use warnings;

use Exporter qw(import);
use JSON::PP;

our @EXPORT_OK = qw(complete error_answer plain);

my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my $chars = JSON::PP->new->canonical;    # JSON inside of JSON

my %seen;


# Behaviours ---------------------------------------------------------------

# Which behaviour is meant, and how many answers it has given already.

sub choose {
    my ($r, $demo) = @_;

    my $turn = 0;
    for my $m (reverse @{$r->{body}{messages}}) {
        $turn++ if $m->{role} eq 'assistant';
        next unless $m->{role} eq 'user' && !ref $m->{content};
        return ($1, $turn) if $m->{content} =~ /\[\[(.+)\]\]\s*\z/s;
    }

    return ('demo', $turn) if $demo;
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


# What a chat completion request is answered, as a script for fake-llm.pl's
# run_script(); with $demo every model behaves as "demo" does.

sub complete {
    my ($r, $demo) = @_;

    my ($behaviour, $turn) = choose($r, $demo);
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


1;
