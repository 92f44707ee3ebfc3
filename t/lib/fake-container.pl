#!/usr/bin/perl
#
# A fake agent container for tests: serves Agent Protocol, and can misbehave
# in every way a container can.  One process, core Perl only; what it knows is
# in its memory, so killing it is how a container loses its tasks.
#
#   fake-container.pl [--port N] [--port-file F] [--unix F] [--log F] [--name N]
#
#   --port 0       any free port (the default); --port-file F gets its number
#   --unix F       a Unix socket beside it
#   --log F        one JSON line per request, written when it has come
#   --name N       what it calls itself in each step's additional_output
#
# A step says what it was asked: output is the input.  Otherwise it does what
# its additional_input says in "do", or else the task's; "task" there is for
# the making of the task itself.  N: the first N times, then all is well.
#
#   http: [CODE, N, WORDS, RETRY_AFTER]     an error status
#   raw: [TEXT, N]                          this body, whatever it is
#   cut: N   drop: N                        ends in the middle, before it begins
#   hang: N                                 silence, for ever
#   delay: MS                               before the answer
#   huge: KB                                an output of that size
#   running: N                              runs in the background until it was
#                                           looked at N times; -1: for ever
#   poll: {...}                             such words for looking at it
#   step: {...}   omit: [...]               members of the answer, set or left
#                                           out
#   files: [{name, path, content | size, id, of, cut: N, http: [...]}]
#                                           artifacts; of: agent_created
#   unlisted: 1                             ... which the step does not list
#   lose: 1                                 forgets the task after the answer
#   tell: 1                                 output: the files it was given, as
#                                           JSON
#   upload: {...}                           such words for uploads (a task's)

use strict;
use warnings;

use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use Getopt::Long;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use JSON::PP;
use Time::HiRes qw(time);

my %opt = (port => 0, name => 'container');

GetOptions(\%opt, 'port=i', 'port-file=s', 'unix=s', 'log=s', 'name=s')
    or die "usage: fake-container.pl [--port N] [--port-file F] [--unix F]"
           . " [--log F] [--name N]\n";

my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my $chars = JSON::PP->new->canonical;    # JSON inside of JSON
my (%conn, %tasks, %seen, @later, $log);
my $ids = 0;

$SIG{PIPE} = 'IGNORE';
$SIG{TERM} = $SIG{INT} = sub { exit 0 };

if (defined $opt{log}) {
    open $log, '>>', $opt{log} or die "cannot open \"$opt{log}\": $!\n";
    $log->autoflush(1);
}

my @listen = IO::Socket::INET->new(
    LocalAddr => '127.0.0.1', LocalPort => $opt{port}, Listen => 128,
    ReuseAddr => 1, Blocking => 0)
    or die "cannot listen on 127.0.0.1:$opt{port}: $!\n";

if (defined $opt{unix}) {
    push @listen, IO::Socket::UNIX->new(Local => $opt{unix}, Listen => 128,
                                        Blocking => 0)
        // die "cannot listen on $opt{unix}: $!\n";
    chmod 0777, $opt{unix};
}

if (defined $opt{'port-file'}) {
    open my $fh, '>', "$opt{'port-file'}.new"
        or die "cannot write \"$opt{'port-file'}\": $!\n";
    print $fh $listen[0]->sockport, "\n";
    close $fh;
    rename "$opt{'port-file'}.new", $opt{'port-file'} or die "rename: $!\n";
}

my $in = IO::Select->new(@listen);
my $out = IO::Select->new;
loop();


# The event loop -----------------------------------------------------------

sub loop {
    while (1) {
        my $wait;
        for (@later) {
            my $left = $_->[0] - time;
            $left = 0 if $left < 0;
            $wait = $left if !defined $wait || $left < $wait;
        }

        my ($r, $w) = IO::Select::select($in, $out, undef, $wait);

        for my $fh (@{$r || []}) {
            if (grep { $_ == $fh } @listen) {
                while (my $s = $fh->accept) {
                    $s->blocking(0);
                    $in->add($s);
                    $conn{fileno $s} = { sock => $s, in => '', out => '' };
                }
                next;
            }
            my $c = $conn{fileno $fh} or next;
            read_some($c);
        }
        for my $fh (@{$w || []}) {
            my $c = $conn{fileno $fh} or next;
            write_some($c);
        }

        my $now = time;
        my @due = grep { $_->[0] <= $now } @later;
        @later = grep { $_->[0] > $now } @later;
        $_->[1]->() for @due;
    }
}


sub drop {
    my ($c) = @_;
    return if $c->{gone}++;
    $in->remove($c->{sock});
    $out->remove($c->{sock});
    delete $conn{fileno $c->{sock}};
    close $c->{sock};
}


sub read_some {
    my ($c) = @_;

    my $n = sysread $c->{sock}, $c->{in}, 1 << 16, length $c->{in};
    return if !defined $n && ($! == EAGAIN || $! == EINTR);
    return drop($c) unless $n;

    while (!$c->{gone} && !$c->{busy}
           && $c->{in} =~ /\A(\S+) (\S+) HTTP[^\r]*\r\n(.*?\r\n)?\r\n/s)
    {
        my ($method, $path, $head, $at) = ($1, $2, $3 // '', $+[0]);
        my %h = map { /^([^:]+):\s*(.*)$/ ? (lc $1, $2) : () }
                split /\r\n/, $head;
        my $length = $h{'content-length'} || 0;
        return if length $c->{in} < $at + $length;

        my $body = substr $c->{in}, $at, $length;
        substr $c->{in}, 0, $at + $length, '';
        $c->{busy} = 1;
        handle($c, $method, $path, \%h, $body);
    }
}


sub write_some {
    my ($c) = @_;

    while (length $c->{out}) {
        my $n = syswrite $c->{sock}, $c->{out}, 1 << 16;
        if (!defined $n) {
            return if $! == EAGAIN || $! == EINTR;
            return drop($c);
        }
        substr $c->{out}, 0, $n, '';
    }
    $out->remove($c->{sock});
    return drop($c) if $c->{last};
    $c->{busy} = 0;
}


# Answers --------------------------------------------------------------------

sub send_bytes {
    my ($c, $bytes, $last) = @_;
    return if $c->{gone};
    $c->{out} .= $bytes;
    $c->{last} = 1 if $last;
    $out->add($c->{sock});
}


sub answer {
    my ($c, $code, $body, %o) = @_;

    my $type = $o{type} || 'application/json';
    $body = $json->encode($body) if ref $body;
    my $head = "HTTP/1.1 $code Whatever\r\nContent-Type: $type\r\n"
               . (defined $o{after} ? "Retry-After: $o{after}\r\n" : '');

    # a length that is not kept, so that it is seen to be cut
    return send_bytes($c, $head . 'Content-Length: ' . length($body)
                      . "\r\n\r\n" . substr($body, 0, length($body) / 2), 1)
        if $o{cut};

    send_bytes($c, $head . 'Content-Length: ' . length($body)
               . "\r\n\r\n$body");
}


# The first N times: counted for a key of the caller's.

sub yet {
    my ($n, @key) = @_;
    return 0 unless $n;
    return $seen{join "\0", @key}++ < $n;
}


# Does what may go wrong, or the answer: what $make gives, or has sent.

sub misbehave {
    my ($c, $do, $key, $make) = @_;

    return drop($c) if yet($do->{drop}, $key, 'drop');
    return if yet($do->{hang}, $key, 'hang');

    if (my $delay = $do->{delay}) {
        my %rest = %$do;
        delete $rest{delay};
        push @later, [time + $delay / 1000,
                      sub { misbehave($c, \%rest, $key, $make)
                            unless $c->{gone} }];
        return;
    }

    if ($do->{http} && yet($do->{http}[1], $key, 'http')) {
        my (undef, undef, $words, $after) = @{$do->{http}};
        return answer($c, $do->{http}[0],
                      defined $words ? { message => $words } : '',
                      after => $after);
    }

    return answer($c, 200, $do->{raw}[0])
        if $do->{raw} && yet($do->{raw}[1], $key, 'raw');

    my $cut = yet($do->{cut}, $key, 'cut');
    my ($body, $type) = $make->();
    answer($c, 200, $body, cut => $cut, type => $type) if defined $body;
}


sub missing { answer($_[0], 404, { message => $_[1] }) }


# Requests -------------------------------------------------------------------

sub handle {
    my ($c, $method, $uri, $h, $body) = @_;

    my ($path) = $uri =~ /^([^?]*)/;
    my $form = form($h, $body);
    my $data = $form ? undef : eval { $json->decode($body) };

    print $log $json->encode({
        method => $method, uri => $uri, headers => $h, name => $opt{name},
        ($form ? (form => { map { $_ => utf8($form->{$_}) } keys %$form })
               : (body => $data)) }), "\n" if $log;

    $path =~ s{^/ap/v1/agent}{}
        or return missing($c, 'this is no Agent Protocol');
    return make_task($c, $data) if $path eq '/tasks' && $method eq 'POST';

    my ($id, $rest) = $path =~ m{^/tasks/([^/]+)(.*)$}
        or return missing($c, 'no such thing');
    my $task = $tasks{$id} or return missing($c, "Task with id $id not found");

    return make_step($c, $task, $data)
        if $rest eq '/steps' && $method eq 'POST';
    return look($c, $task, $1)
        if $rest =~ m{^/steps/([^/]+)$} && $method eq 'GET';
    return upload($c, $task, $form)
        if $rest eq '/artifacts' && $method eq 'POST';
    return list($c, $task, $uri) if $rest eq '/artifacts' && $method eq 'GET';
    return download($c, $task, $1)
        if $rest =~ m{^/artifacts/([^/]+)$} && $method eq 'GET';
    missing($c, 'no such thing');
}


sub utf8 {
    my ($text) = @_;
    utf8::decode(my $copy = $text) or return "$text";
    utf8::decode($text);
    return $text;
}


sub form {
    my ($h, $body) = @_;

    my ($boundary) = ($h->{'content-type'} || '')
                     =~ m{^multipart/form-data; boundary=(\S+)$} or return;
    my %form;
    die "a form that does not end: $body" unless
        $body =~ s/\r\n--\Q$boundary\E--\r\n\z//;
    for (split /(?:\A|\r\n)--\Q$boundary\E\r\n/, $body) {
        my ($head, $value) = /^(.*?)\r\n\r\n(.*)\z/s or next;
        my ($name) = $head =~ /\bname="([^"]*)"/;
        $form{$name} = $value;
        $form{filename} = $1 if $head =~ /filename="([^"]*)"/;
    }
    return \%form;
}


sub make_task {
    my ($c, $data) = @_;

    my $id = sprintf '%s-task-%d-%d', $opt{name}, $$, ++$ids;
    my $extra = $data->{additional_input} || {};
    my $do = ref $extra eq 'HASH' ? $extra->{task} || {} : {};

    misbehave($c, $do, 'task ' . ($data->{input} // ''), sub {
        $tasks{$id} = { id => $id, do => $extra->{do}, files => {},
                        upload => $extra->{upload} || {} };
        my %task = (task_id => $id, input => $data->{input},
                    additional_input => $extra, artifacts => [],
                    %{$do->{step} || {}});
        return \%task;
    });
}


sub make_step {
    my ($c, $task, $data) = @_;

    my $extra = $data->{additional_input} || {};
    my $do = $extra->{do} || $task->{do} || {};

    misbehave($c, $do, "$task->{id} step " . $json->encode($do), sub {
        my $id = sprintf '%s-step-%d-%d', $opt{name}, $$, ++$ids;
        my $output = $data->{input};
        my @listed = map { make_file($task, $_) } @{$do->{files} || []};

        $output = 'x' x ($do->{huge} * 1024) if $do->{huge};
        $output = $chars->encode($task->{given} || []) if $do->{tell};

        my %step = (task_id => $task->{id}, step_id => $id,
                    name => "step $id", status => 'completed',
                    input => $data->{input}, additional_input => $extra,
                    output => $output,
                    additional_output => { container => $opt{name} },
                    artifacts => $do->{unlisted} ? [] : \@listed,
                    is_last => JSON::PP::false, %{$do->{step} || {}});
        delete @step{@{$do->{omit} || []}};

        delete $tasks{$task->{id}} if $do->{lose};
        $task->{steps}{$id} = { step => \%step, left => $do->{running} || 0,
                                do => $do->{poll} || {} };
        return \%step unless $do->{running};
        return { %step, status => 'created', output => undef,
                 artifacts => [], is_last => JSON::PP::false };
    });
}


sub look {
    my ($c, $task, $id) = @_;

    my $step = $task->{steps}{$id}
        or return missing($c, "Step with id $id not found");

    misbehave($c, $step->{do}, "$id poll", sub {
        return $step->{step} if $step->{left} == 0;
        $step->{left}--;
        return { %{$step->{step}}, status => 'running', output => undef,
                 artifacts => [], is_last => JSON::PP::false,
                 $step->{do}{lively} ? (name => "left $step->{left}") : () };
    });
}


sub make_file {
    my ($task, $file) = @_;

    my $id = $file->{id} // sprintf '%s-file-%d-%d', $opt{name}, $$, ++$ids;
    my %artifact = (artifact_id => $id, file_name => $file->{name},
                    relative_path => $file->{path},
                    agent_created => exists $file->{of} ? $file->{of}
                                                        : JSON::PP::true);
    delete $artifact{agent_created} unless defined $artifact{agent_created};
    $task->{files}{$id} = { %$file, artifact => \%artifact };
    return \%artifact;
}


sub upload {
    my ($c, $task, $form) = @_;

    return answer($c, 422, { message => 'no form' }) unless $form;

    misbehave($c, $task->{upload}, "$task->{id} upload $form->{filename}", sub {
        push @{$task->{given}}, {
            name => utf8($form->{filename}), size => length $form->{file},
            path => utf8($form->{relative_path} // ''),
            length $form->{file} < 1000 ? (content => utf8($form->{file}))
                                        : () };
        return make_file($task, { name => utf8($form->{filename}),
                                  path => $form->{relative_path},
                                  of => JSON::PP::false, content => '' });
    });
}


sub list {
    my ($c, $task, $uri) = @_;

    my ($page) = $uri =~ /current_page=(\d+)/;
    my ($size) = $uri =~ /page_size=(\d+)/;
    my @all = map { $task->{files}{$_}{artifact} } sort keys %{$task->{files}};
    my $pages = int((@all + $size - 1) / $size);
    my @some = splice @all, ($page - 1) * $size, $size;
    my $do = $task->{do} || {};

    return missing($c, 'there is no list') if $do->{nolist};
    answer($c, 200, { artifacts => \@some, pagination => {
        total_items => scalar keys %{$task->{files}}, total_pages => $pages,
        current_page => $page + 0, page_size => $size + 0 } });
}


sub download {
    my ($c, $task, $id) = @_;

    my $file = $task->{files}{$id}
        or return missing($c, "Artifact with id $id not found");

    misbehave($c, $file, "$task->{id} $id file", sub {
        my $bytes = $file->{content};
        utf8::encode($bytes) if defined $bytes;
        $bytes //= join '', map { chr($_ & 255) } 0 .. $file->{size} - 1;
        return ($bytes, 'application/octet-stream');
    });
}
