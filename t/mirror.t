#!/usr/bin/perl

# "mirror" beside "agent_pass": nginx still sends the body to the mirror while
# the step waits, and when it has ended; so the body may not be freed.

use strict;
use warnings;

use Digest::MD5 qw(md5_hex);
use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use IO::Socket::INET;
use POSIX ();
use Socket qw(SOL_SOCKET SO_RCVBUF);
use Test::More;

my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $dir = scratch();


# A backend that reads the header of each request, and the rest only when
# there is a file "go-N".  In "came-N" is what it is about to read; in "got-N"
# the length and the sum of the body.

my $listen = IO::Socket::INET->new(Listen => 8, LocalAddr => '127.0.0.1')
    or die "cannot listen: $!";
setsockopt $listen, SOL_SOCKET, SO_RCVBUF, 262144;
my $mirror = fork // die "fork: $!";
if (!$mirror) {
    $SIG{TERM} = 'DEFAULT';
    $SIG{CHLD} = 'IGNORE';
    for (my $n = 1; my $c = $listen->accept; $n++) {
        my $pid = fork // POSIX::_exit(1);
        if (!$pid) {
            serve($c, $n);
            POSIX::_exit(0);
        }
        close $c;
    }
    POSIX::_exit(1);
}
AgentTest::remember($mirror);


sub serve {
    my ($c, $n) = @_;
    my $in = '';

    $in .= getc($c) // return until $in =~ /\r\n\r\n\z/;
    my ($length) = $in =~ /^content-length: (\d+)/mi;
    write_file("$dir/came-$n", $length // 0);
    poll_until(sub { -e "$dir/go-$n" }, 60);

    my $body = '';
    read $c, $body, $length;
    syswrite $c, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
    write_file("$dir/got-$n.new", length($body) . ' ' . md5_hex($body));
    rename "$dir/got-$n.new", "$dir/got-$n";
}


my $nginx = AgentTest::Nginx->new(conf => conf(
    pg => $pg, llm => $llm,
    http => '    client_body_buffer_size 8m;',
    agents => { slow => 'timeout 60s;' },
    server => '        location /both/ { mirror /m; agent_pass slow; }' . "\n"
              . '        location = /m { internal; proxy_pass '
              . 'http://127.0.0.1:' . $listen->sockport . '; '
              . 'proxy_send_timeout 60s; proxy_read_timeout 60s; }'));
close $listen;


# More than the sockets between them hold, and no two pages of it the same.

sub body {
    my ($input) = @_;
    my $pad = join ' ', map { sprintf '%09d', $_ } 1 .. 780_000;
    return encode({ input => $input, pad => $pad });
}

my $n = 0;

sub mirrored {
    my ($body, $name) = @_;
    write_file("$dir/go-$n", '');
    ok(poll_until(sub { -e "$dir/got-$n" }, 30), "$name: the mirror has it");
    is(read_file("$dir/got-$n"), length($body) . ' ' . md5_hex($body),
       "$name: all of it, as it was sent");
}

sub begin {
    my ($task, $body) = @_;
    $n++;
    my $c = $nginx->connect;
    $c->send(method => 'POST', path => "/both/tasks/$task/steps",
             body => $body, headers => { 'Content-Type' =>
                                         'application/json' });
    ok(poll_until(sub { -e "$dir/came-$n" }), 'the mirror is asked');
    return $c;
}


# while the step waits for the LLM

{
    my $task = make_task($nginx, 'mirrored', at => '/x/slow');
    my $body = body('waits [[echo+hold]]');
    my $c = begin($task, $body);
    ok(poll_until(sub { $llm->stats->{held} == 1 }), 'the step runs');

    # memory that was free by now would be used again
    for (1 .. 3) {
        my $r = $nginx->post('/agent/tasks', body("other $_"), headers =>
                             { 'Content-Type' => 'application/json' });
        is($r->{status}, 200, 'another large body');
    }
    mirrored($body, 'a step that waits');
    $llm->release;
    my $r = $c->answer;
    is($r->{status}, 200, 'the step is answered') or diag $r->{body};
    is($r->{json}{output}, 'waits', 'by its own body');

    # nginx has to let go of the mirror first
    $c->send(path => "/agent/tasks/$task");
    is($c->answer->{status}, 200, 'on the same connection');
}


# when it has ended

{
    my $task = make_task($nginx, 'mirrored', at => '/x/slow');
    my $body = body('ends [[echo]]');
    my $c = begin($task, $body);
    my $r = $c->answer;
    is($r->{status}, 200, 'the step is answered, mirror or not')
        or diag $r->{body};
    is($r->{json}{output}, 'ends', 'by its own body');
    mirrored($body, 'a step that has ended');
    $c->send(path => "/agent/tasks/$task");
    is($c->answer->{status}, 200, 'on the same connection');
}


# when its client has left, and of one that is refused

{
    my $task = make_task($nginx, 'mirrored', at => '/x/slow');
    my $body = body('left [[echo+hold]]');
    my $c = begin($task, $body);
    ok(poll_until(sub { $llm->stats->{held} == 1 }), 'the step runs');
    $c->close;
    $llm->release;
    ok(poll_until(sub { $pg->psql("select status from agent.step where "
       . "task_id = '$task'") eq '2' }), 'it goes on without its client');
    write_file("$dir/go-$n", '');
    ok(poll_until(sub { -e "$dir/got-$n" }, 30), 'the mirror has an end, too');

    $body = body('nobody');
    $c = begin('01890a5d-ac96-774b-bcce-b302099a8057', $body);
    is($c->answer->{status}, 404, 'an unknown task');
    mirrored($body, 'one that is refused');
}

is($nginx->get('/agent/tasks')->{status}, 200, 'all is well');
$nginx->finish;
done_testing();
