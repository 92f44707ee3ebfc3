package AgentTest::Http;

# A small HTTP/1.1 client that shows what is really on the wire: several
# requests on one connection, pipelining, raw bytes, slow sending, answers
# awaited later.
#
#   my $r = AgentTest::Http::request(port => $p, path => '/x', body => '{}');
#   $r->{status}, $r->{headers}{'content-type'}, $r->{body}, $r->{json}
#
#   my $c = AgentTest::Http->new($port);
#   $c->send(...); my $r = $c->answer;

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(time);

my $json = JSON::PP->new->utf8->canonical->allow_nonref;


sub new {
    my ($class, $port, %o) = @_;

    my $sock = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                     PeerPort => $port, Timeout => 10)
        or die "cannot connect to 127.0.0.1:$port: $!\n";

    setsockopt $sock, IPPROTO_TCP, TCP_NODELAY, 1;
    return bless { sock => $sock, in => '', seconds => $o{seconds} || 30 },
                 $class;
}


# The text of a request.  body: a string, or data that becomes JSON.

sub text {
    my (%o) = @_;

    my %h = (Host => 'localhost', %{$o{headers} || {}});
    my $body = $o{body};

    if (ref $body) {
        $body = $json->encode($body);
        $h{'Content-Type'} //= 'application/json';
    }
    my $method = $o{method} || (defined $body ? 'POST' : 'GET');

    if (defined $body) {
        if ($o{chunked}) {
            $h{'Transfer-Encoding'} = 'chunked';
            my $size = $o{chunked};
            $body = join '', (map { sprintf("%x\r\n", length) . "$_\r\n" }
                              $body =~ /(.{1,$size})/gs), "0\r\n\r\n";
        } else {
            $h{'Content-Length'} //= length $body;
        }
    }

    return "$method $o{path} HTTP/1.1\r\n"
           . join('', map { defined $h{$_} ? "$_: $h{$_}\r\n" : () }
                  sort keys %h)
           . "\r\n" . ($body // '');
}


sub raw {
    my ($self, $bytes) = @_;

    local $SIG{PIPE} = 'IGNORE';

    while (length $bytes) {
        # an early answer may come before all was taken
        my $n = syswrite $self->{sock}, $bytes, 1 << 16;
        return 0 unless $n;
        substr $bytes, 0, $n, '';
    }
    return 1;
}


sub send {
    my ($self, %o) = @_;
    push @{$self->{methods}}, $o{method} || 'GET';
    return $self->raw(text(%o));
}


sub more {
    my ($self, $end) = @_;

    my $select = IO::Select->new($self->{sock});

    # a signal may cut the waiting short
    while (1) {
        my $left = $end - time;
        return 0 if $left <= 0;
        last if $select->can_read($left);
    }
    return sysread $self->{sock}, $self->{in}, 1 << 18, length $self->{in};
}


# The next answer on the connection; status 0 when there is none.

sub answer {
    my ($self, %o) = @_;

    my $end = time + ($o{seconds} || $self->{seconds});
    my $method = shift @{$self->{methods}} || 'GET';
    my $at;

    until (($at = index $self->{in}, "\r\n\r\n") >= 0) {
        return { status => 0, headers => {}, body => $self->{in} }
            unless $self->more($end);
    }

    my ($line, @lines) = split /\r\n/, substr $self->{in}, 0, $at + 4, '';
    my %r = (status => (split / /, $line)[1], line => $line, raw => \@lines);
    for (@lines) {
        my ($name, $value) = /^([^:]+):\s*(.*)$/ or next;
        $r{headers}{lc $name} = $value;
    }

    # 100 Continue, then the real one
    if ($r{status} == 100) {
        unshift @{$self->{methods}}, $method;
        return $o{interim} ? \%r : $self->answer(%o);
    }

    $self->body(\%r, $end, $method eq 'HEAD');
    $r{json} = eval { $json->decode($r{body}) } if length $r{body};
    return \%r;
}


sub body {
    my ($self, $r, $end, $none) = @_;

    my $h = $r->{headers};
    $r->{body} = '';
    return if $none || $r->{status} == 204 || $r->{status} == 304;

    if (lc($h->{'transfer-encoding'} || '') eq 'chunked') {
        while (1) {
            until ($self->{in} =~ /^([0-9a-fA-F]+)[^\n]*\r\n/) {
                return $r->{cut} = 1 unless $self->more($end);
            }
            my ($all, $n) = ($+[0], hex $1);
            until (length $self->{in} >= $all + $n + 2) {
                return $r->{cut} = 1 unless $self->more($end);
            }
            $r->{body} .= substr $self->{in}, $all, $n;
            substr $self->{in}, 0, $all + $n + 2, '';
            return unless $n;
        }
    }

    my $n = $h->{'content-length'};
    while (!defined $n || length $self->{in} < $n) {
        next if $self->more($end);
        $r->{cut} = 1 if defined $n;
        last;
    }
    $n = length $self->{in} if !defined $n || $n > length $self->{in};
    $r->{body} = substr $self->{in}, 0, $n, '';
}


sub closed_by_peer {
    my ($self, $seconds) = @_;
    my $n = $self->more(time + ($seconds || 5));
    return defined $n && $n == 0;
}


sub close { close $_[0]{sock} }


# One request on a connection of its own.

sub request {
    my (%o) = @_;

    my $c = AgentTest::Http->new($o{port}, seconds => $o{seconds});
    $o{headers} = { Connection => 'close', %{$o{headers} || {}} };
    $c->send(%o, method => $o{method} || (defined $o{body} ? 'POST' : 'GET'));
    my $r = $c->answer;
    $c->close;
    return $r;
}


1;
