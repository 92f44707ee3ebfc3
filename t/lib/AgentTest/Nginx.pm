package AgentTest::Nginx;

# One nginx with the module: started, reloaded and stopped by pid, its workers
# and its error log looked at.  %DIR% and %PORT% in the configuration are the
# instance's own.

use strict;
use warnings;

use Test::More;

my $count = 0;


sub new {
    my ($class, %o) = @_;

    my $n = ++$count;
    my $dir = AgentTest::scratch() . "/nginx-$n";
    mkdir $dir;
    mkdir "$dir/$_" for qw(logs tmp);

    my $self = bless { dir => $dir, port => $o{port} || AgentTest::free_port(),
                       pidfile => "$dir/nginx.pid", conf => $o{conf},
                       error_log => "$dir/logs/error.log",
                       level => $o{level} || 'info' }, $class;

    $self->start unless $o{no_start};
    return $self;
}


sub port { return $_[0]{port} }
sub dir { return $_[0]{dir} }
sub log_text { return AgentTest::read_file($_[0]{error_log}) }


sub binary { return $ENV{TEST_NGINX_BINARY} || 'nginx' }


sub modules {
    my $list = $ENV{TEST_NGINX_LOAD_MODULES}
               // "$AgentTest::root/build/ngx_http_agent_module.so";
    return join '', map { "load_module $_;\n" } split ' ', $list;
}


# What Test::Nginx wants to know of it: before that is loaded.

sub for_blocks {
    $ENV{TEST_NGINX_BINARY} ||= binary();
    $ENV{TEST_NGINX_SERVROOT} ||= AgentTest::scratch() . '/servroot';
    ($ENV{TEST_NGINX_LOAD_MODULES} = modules())
        =~ s/load_module (\S+);\n/$1 /g;
}


sub write_conf {
    my ($self, $conf) = @_;

    $self->{conf} = $conf if defined $conf;
    my $text = $self->{conf};
    $text =~ s/%DIR%/$self->{dir}/g;
    $text =~ s/%PORT%/$self->{port}/g;

    my $paths = join '', map { "${_}_temp_path $self->{dir}/tmp/$_;\n" }
                         qw(client_body proxy fastcgi uwsgi scgi);
    $paths .= "access_log $self->{dir}/access.log;\n"
        unless $text =~ /\baccess_log\b/;
    $text =~ s/^(http \{\n)/$1$paths/m;

    AgentTest::write_file("$self->{dir}/nginx.conf", modules()
        . ($> == 0 ? "user nobody nogroup;\n" : '')
        # for the binary that takes over in an upgrade
        . ($ENV{AGENT_TEST_ASAN} ? "env ASAN_OPTIONS;\nenv UBSAN_OPTIONS;\n"
                                 : '')
        . "pid $self->{pidfile};\nerror_log $self->{error_log} "
        . "$self->{level};\n" . $text);
}


sub command {
    my ($self, @args) = @_;
    return (binary(), '-p', $self->{dir}, '-c', "$self->{dir}/nginx.conf",
            '-e', $self->{error_log}, @args);
}


sub start {
    my ($self) = @_;

    $self->write_conf;

    # ASan's report of a dying worker is in the error log: nginx turns its
    # standard error there
    local $ENV{ASAN_OPTIONS} = $ENV{ASAN_OPTIONS}
        // 'detect_leaks=0:detect_odr_violation=0';

    my $pid = fork // die "fork: $!";
    if (!$pid) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', "$self->{dir}/start.out";
        open STDERR, '>&', \*STDOUT;
        exec $self->command or POSIX::_exit(1);
    }
    waitpid $pid, 0;
    die 'nginx does not start: '
        . AgentTest::read_file("$self->{dir}/start.out") . $self->log_text
        if $?;

    AgentTest::poll_until(sub { -s $self->{pidfile} })
        or die 'nginx wrote no pid';
    ($self->{pid}) = AgentTest::read_file($self->{pidfile}) =~ /(\d+)/;
    AgentTest::remember($self->{pid});
    AgentTest::poll_until(sub { $self->workers });
    return $self;
}


# nginx -t with a configuration: (exit code, what was said).

sub test_conf {
    my ($self, $conf) = @_;
    my $old = $self->{conf};

    $self->write_conf($conf);
    my $said = qx{@{[join ' ', map { quotemeta } $self->command('-t')]} 2>&1};
    my $code = $? >> 8;
    $self->{conf} = $old;
    return ($code, $said);
}


# Pids of the workers, without those that are about to go.

sub workers {
    my ($self) = @_;

    my @found;
    for my $stat (glob '/proc/[0-9]*/stat') {
        my ($pid, $parent) = AgentTest::read_file($stat)
                             =~ /^(\d+) \(.*\) \S (\d+)/ or next;
        next if $parent != $self->{pid};
        push @found, $pid if AgentTest::read_file("/proc/$pid/cmdline")
                             =~ /worker process(?! is)/;
    }
    @found = sort { $a <=> $b } @found;
    return @found;
}


# Resident memory of all workers, in bytes.

sub memory {
    my ($self) = @_;

    my $sum = 0;
    for my $pid ($self->workers) {
        $sum += $1 * 1024 if AgentTest::read_file("/proc/$pid/status")
                             =~ /^VmRSS:\s+(\d+) kB/m;
    }
    return $sum;
}


# Answers when new workers have taken over.

sub reload {
    my ($self, $conf) = @_;

    my %old = map { $_ => 1 } $self->workers;
    $self->write_conf($conf);
    kill 'HUP', $self->{pid};
    return AgentTest::poll_until(sub {
        my @now = $self->workers;
        @now && !grep { $old{$_} } @now;
    }, 20);
}


sub stop {
    my ($self, $signal) = @_;

    return unless $self->{pid};
    AgentTest::end_pid($self->{pid}, $signal || 'QUIT');
    AgentTest::forget(delete $self->{pid});
}


# Lines of the log that no test may leave behind.

sub bad_lines {
    my ($self) = @_;
    return grep { /\[alert\]|\[emerg\]|\[crit\] .*SSL_|exited on signal/
                  || /ERROR: AddressSanitizer|runtime error:/ }
           split /\n/, $self->log_text;
}


sub finish {
    my ($self, %o) = @_;

    $self->stop($o{signal});
    my @bad = $self->bad_lines;
    @bad = grep { $_ !~ $o{but} } @bad if $o{but};
    splice @bad, 20 if @bad > 20;
    is(join("\n", @bad), '', 'the error log has no alert and no sanitizer '
                             . 'report');
}


# Requests to it.

sub request {
    my ($self, %o) = @_;
    return AgentTest::Http::request(port => $self->{port}, %o);
}


sub get {
    my ($self, $path, %o) = @_;
    return $self->request(path => $path, %o);
}


sub post {
    my ($self, $path, $body, %o) = @_;
    return $self->request(method => 'POST', path => $path, body => $body, %o);
}


sub connect {
    my ($self, %o) = @_;
    return AgentTest::Http->new($self->{port}, %o);
}


1;
