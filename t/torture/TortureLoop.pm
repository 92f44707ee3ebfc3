package TortureLoop;

# Many HTTP requests at once in one process: non-blocking sockets, timers, a
# random number generator of one's own.  Knows nothing of agents.
#
#   my $loop = TortureLoop->new;
#   $loop->after(0.5, sub { ... });
#   $loop->request({ port => 80, method => 'GET', path => '/',
#                    timeout => 10 }, sub { my ($r) = @_; ... });
#   $loop->run(sub { $done });
#
# An answer has "how": ok; refused, cut, timeout: there was none; left: we
# went away ourselves, after "leave" seconds.

use strict;
use warnings;

use Errno qw(EAGAIN EINPROGRESS EINTR EWOULDBLOCK);
use IO::Poll qw(POLLIN POLLOUT POLLERR POLLHUP);
use JSON::PP;
use Socket;
use Time::HiRes qw(time);

my $json = JSON::PP->new->utf8->allow_nonref;


sub new { return bless { conn => {}, timers => {}, n => 0 }, $_[0] }


sub after {
    my ($self, $seconds, $code) = @_;
    my $id = ++$self->{n};
    $self->{timers}{$id} = [time + $seconds, $code];
    return $id;
}


sub cancel { delete $_[0]{timers}{$_[1]} if defined $_[1] }


sub run {
    my ($self, $done) = @_;

    until ($done->()) {
        my $next = time + 0.2;
        for (values %{$self->{timers}}) {
            $next = $_->[0] if $_->[0] < $next;
        }
        my $ms = int(($next - time) * 1000 + 0.999);

        my @ready = map { ($_, $self->{conn}{$_}{mask}) } keys %{$self->{conn}};
        IO::Poll::_poll($ms < 0 ? 0 : $ms, @ready);

        while (my ($fd, $events) = splice @ready, 0, 2) {
            my $c = $self->{conn}{$fd} or next;
            $self->write_some($c) if $events & POLLOUT;
            $self->read_some($c)
                if !$c->{over} && $events & (POLLIN | POLLERR | POLLHUP);
        }

        my $now = time;
        for my $id (grep { $self->{timers}{$_}[0] <= $now }
                    keys %{$self->{timers}})
        {
            my $timer = delete $self->{timers}{$id} or next;
            $timer->[1]->();
        }
    }
}


sub request {
    my ($self, $o, $handler) = @_;

    my $c = { handler => $handler, in => '', t0 => time,
              mask => POLLIN | POLLOUT, method => $o->{method} };

    my %h = (Host => 'localhost', Connection => 'close',
             %{$o->{headers} || {}});
    $h{'Content-Length'} = length $o->{body} if defined $o->{body};
    $c->{out} = "$o->{method} $o->{path} HTTP/1.1\r\n"
                . join('', map { "$_: $h{$_}\r\n" } sort keys %h) . "\r\n"
                . ($o->{body} // '');

    socket($c->{sock}, PF_INET, SOCK_STREAM | Socket::SOCK_NONBLOCK(), 0)
        or die "socket: $!\n";
    $c->{fd} = fileno $c->{sock};
    $self->{conn}{$c->{fd}} = $c;

    # an answer is never given from inside of the asking
    if (!connect($c->{sock}, sockaddr_in($o->{port}, INADDR_LOOPBACK))
        && $! != EINPROGRESS)
    {
        $c->{mask} = 0;
        $c->{timer} = $self->after(0, sub { $self->over($c, 'refused') });
        return;
    }

    my ($seconds, $how) = defined $o->{leave} ? ($o->{leave}, 'left')
                                              : ($o->{timeout}, 'timeout');
    $c->{timer} = $self->after($seconds, sub { $self->over($c, $how) });
}


sub over {
    my ($self, $c, $how, $r) = @_;

    return if $c->{over}++;
    $self->cancel($c->{timer});
    delete $self->{conn}{$c->{fd}};
    close $c->{sock};
    $r ||= { status => 0, headers => {}, body => '' };
    @$r{qw(how t0 t1)} = ($how, $c->{t0}, time);
    $c->{handler}->($r);
}


sub write_some {
    my ($self, $c) = @_;

    while (length $c->{out}) {
        my $n = syswrite $c->{sock}, $c->{out};
        if (!defined $n) {
            next if $! == EINTR;
            return if $! == EAGAIN || $! == EWOULDBLOCK;
            # what was sent so far may have an answer already
            return $self->over($c, $c->{sent} ? 'cut' : 'refused')
                unless $c->{sent};
            last;
        }
        $c->{sent} += $n;
        substr $c->{out}, 0, $n, '';
    }
    $c->{mask} = POLLIN;
}


sub read_some {
    my ($self, $c) = @_;

    while (1) {
        my $n = sysread $c->{sock}, $c->{in}, 1 << 16, length $c->{in};
        next if !defined $n && $! == EINTR;
        return if !defined $n && ($! == EAGAIN || $! == EWOULDBLOCK);
        last unless $n;
    }

    # each request has a connection of its own: the end of it is the end
    my $r = parse($c->{in}, $c->{method});
    return $self->over($c, $r ? 'ok' : $c->{sent} ? 'cut' : 'refused', $r);
}


# A whole answer, or nothing.

sub parse {
    my ($in, $method) = @_;

    my $at = index $in, "\r\n\r\n";
    return if $at < 0;

    my ($line, @lines) = split /\r\n/, substr $in, 0, $at;
    my %r = (status => (split / /, $line)[1], body => substr($in, $at + 4));
    for (@lines) {
        $r{headers}{lc $1} = $2 if /^([^:]+):\s*(.*)$/;
    }

    if (lc($r{headers}{'transfer-encoding'} // '') eq 'chunked') {
        my ($text, $body) = ($r{body}, '');
        while (1) {
            $text =~ s/^([0-9a-fA-F]+)[^\n]*\r\n// or return;
            my $n = hex $1;
            return if length $text < $n + 2;
            last unless $n;
            $body .= substr $text, 0, $n, '';
            substr $text, 0, 2, '';
        }
        $r{body} = $body;

    } else {
        my $n = $r{headers}{'content-length'} // 0;
        return if $method ne 'HEAD' && length $r{body} < $n;
    }

    $r{json} = eval { $json->decode($r{body}) }
        if ($r{headers}{'content-type'} // '') =~ /^application\/json/;
    return \%r;
}


package TortureRandom;

# The same numbers for the same seed, whatever else draws numbers (xorshift).

sub new {
    my ($class, @seeds) = @_;

    my $self = bless { x => 2463534242 }, $class;
    for my $n (@seeds) {
        $self->{x} = (($self->{x} ^ $n) * 2654435761 + 97) & 0xffffffff;
        $self->{x} ||= 1;
        $self->next for 1 .. 8;
    }
    return $self;
}


sub next {
    my ($self) = @_;

    my $x = $self->{x};
    $x ^= ($x << 13) & 0xffffffff;
    $x ^= $x >> 17;
    $x ^= ($x << 5) & 0xffffffff;
    return $self->{x} = $x & 0xffffffff;
}


# 0 .. n - 1
sub below { return $_[0]->next % $_[1] }

# a to b
sub between {
    my ($self, $from, $to) = @_;
    return $from + ($to - $from) * $self->next / 4294967296;
}

# true in so many of a hundred
sub chance { return $_[0]->below(100) < $_[1] }

sub pick { my $self = shift; return $_[$self->below(scalar @_)] }


# One of the names, by weight.

sub weighed {
    my ($self, %weight) = @_;

    my $sum = 0;
    $sum += $_ for values %weight;
    my $n = $self->between(0, $sum);

    for my $name (sort keys %weight) {
        return $name if ($n -= $weight{$name}) < 0;
    }
    return (sort keys %weight)[-1];
}


1;
