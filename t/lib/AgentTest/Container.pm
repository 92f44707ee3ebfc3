package AgentTest::Container;

# Agent containers, for the agent_protocol dialect: the fake one, which
# misbehaves on demand (t/lib/fake-container.pl), and one that is built with
# the official JS SDK (t/lib/ap-container).
#
#   my $c = AgentTest::Container->new(name => 'a', unix => 1);
#   $c->port, $c->socket, $c->calls(qr{^POST /ap/v1/agent/tasks$})
#   my $sdk = AgentTest::Container->sdk;

use strict;
use warnings;

use File::Copy qw(copy);

my $count = 0;


sub new {
    my ($class, %o) = @_;

    my $dir = AgentTest::scratch();
    my $n = ++$count;
    my $self = bless { log => "$dir/container-$n.log",
                       file => "$dir/container-$n.port",
                       out => "$dir/container-$n.out",
                       name => $o{name} || "c$n" }, $class;
    $self->{socket} = "$dir/container-$n.sock" if $o{unix};
    $self->start($o{port});
    return $self;
}


sub start {
    my ($self, $port) = @_;

    unlink $self->{file}, $self->{socket} // ();
    $self->run($^X, "$AgentTest::root/t/lib/fake-container.pl",
               '--port', $port || 0, '--port-file', $self->{file},
               '--log', $self->{log}, '--name', $self->{name},
               $self->{socket} ? ('--unix', $self->{socket}) : ());

    AgentTest::poll_until(sub { -s $self->{file} })
        or die 'the fake container does not start: '
               . AgentTest::read_file($self->{out});
    ($self->{port}) = AgentTest::read_file($self->{file}) =~ /(\d+)/;
}


sub run {
    my ($self, @command) = @_;

    my $pid = fork // die "fork: $!";
    if (!$pid) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', $self->{out};
        open STDERR, '>&', \*STDOUT;
        chdir $self->{folder} if $self->{folder};
        exec @command or POSIX::_exit(1);
    }
    $self->{pid} = $pid;
    AgentTest::remember($pid);
}


sub port { return $_[0]{port} }
sub socket { return $_[0]{socket} }
sub name { return $_[0]{name} }


sub stop {
    my ($self) = @_;
    AgentTest::end_pid($self->{pid}, 'TERM');
    AgentTest::forget($self->{pid});
}


# It forgets all that it knew, as a container does that is made anew.

sub restart {
    my ($self) = @_;
    $self->stop;
    $self->start($self->{port});
}


# The requests that came; with a pattern, those whose "METHOD URI" matches.

sub calls {
    my ($self, $pattern) = @_;

    my @all = map { AgentTest::decode($_) }
              split /\n/, AgentTest::read_file($self->{log});
    return grep { !defined $pattern || "$_->{method} $_->{uri}" =~ $pattern }
           @all;
}


# npm has it from a cache or the registry; without either it cannot be tested,
# and that is an error.

sub sdk {
    my ($class) = @_;

    my $folder = AgentTest::scratch() . '/ap-container';
    mkdir $folder;
    copy($_, $folder) or die "$_: $!"
        for glob "$AgentTest::root/t/lib/ap-container/*";

    my $said = qx{cd '$folder' && npm ci --ignore-scripts --no-audit \\
                  --no-fund --prefer-offline --no-update-notifier \\
                  --cache '$folder/cache' < /dev/null 2>&1};
    die "npm could not install the SDK agent-protocol; the test needs npm and "
        . "its registry: $said" if $?;

    my $self = bless { folder => $folder, out => "$folder/out",
                       port => AgentTest::free_port(), name => 'sdk' }, $class;
    $self->boot;
    return $self;
}


sub boot {
    my ($self) = @_;

    $self->run('node', 'container.js', $self->{port},
               "$self->{folder}/workspace");

    AgentTest::poll_until(sub {
        my $r = eval { AgentTest::Http::request(port => $self->{port},
                                                path => '/ap/v1/agent/tasks') };
        $r && $r->{status} == 200;
    }, 30) or die 'the container does not start: '
                  . AgentTest::read_file($self->{out});
}


1;
