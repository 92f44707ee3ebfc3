#!/usr/bin/perl

# The cache of API keys where it is put to the test: many clients with one
# new key at once, a zone that is full of keys nobody knows, another database
# after a reload, a worker that is killed, keys that end never and in far
# years.  While the table of keys is locked only the cache can answer.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use IO::Handle;
use Test::More;

my $pg = AgentTest::Postgres->new;
my $other = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;

my %conf = (llm => $llm, workers => 2, db_opt => 'wait=20s',
            http => "    agent_auth_zone keys:32k;\n"
                    . "    access_log off;\n"
                    . "    keepalive_requests 1000000;\n",
            server => "        location = /check { agent_auth; }\n");
my $nginx = AgentTest::Nginx->new(conf => conf(%conf, pg => $pg));


sub make_key {
    my ($args, $at) = @_;
    return ($at || $pg)->psql("select agent.create_key($args)");
}

sub change {
    my ($key, $set) = @_;
    $pg->psql("update agent.api_key set $set where hash = sha256('$key')");
}

sub header { return (headers => { Authorization => "Bearer $_[0]" }) }
sub status { return $nginx->get('/check', header($_[0]))->{status} }

# A session with an open transaction, where that has been done; commit() ends
# it.

sub session {
    my ($sql) = @_;

    open my $fh, '|-', $pg->psql_command, '-o', '/dev/null'
        or die "psql: $!\n";
    $fh->autoflush;
    print $fh "begin; $sql;\nselect 'open ' || pg_notify('x', '');\n";
    poll_until(sub { $pg->psql('select count(*) from pg_stat_activity where '
        . "datname = current_database() and query like 'select ''open%' and "
        . "state = 'idle in transaction'") eq '1' }) or die "no session\n";
    return $fh;
}

sub commit {
    my ($fh) = @_;
    print $fh "commit;\n";
    close $fh or die "psql failed\n";
}

# nobody can look a key up

sub lock_keys {
    return session('lock table agent.api_key in access exclusive mode');
}


sub warm {
    my ($key) = @_;
    poll_until(sub { status($key) == 204 }) or die "the key is no good\n";
}


# more clients than unknown keys may be tried in a second

{
    my $key = make_key("'acme'");
    my $lock = lock_keys();
    my @clients = map { $nginx->connect } 1 .. 700;

    $_->send(path => '/check', header($key)) for @clients;
    ok(poll_until(sub { $pg->psql('select count(*) from pg_stat_activity '
        . "where datname = current_database() and wait_event_type = 'Lock'")
        > 0 }), 'a new key is looked up');
    commit($lock);

    my %seen;
    $seen{$_->answer->{status}}++ for @clients;
    is_deeply(\%seen, { 204 => 700 }, 'by 700 clients at once');
    $_->close for @clients;
}


# as many unknown keys as may be tried do not fit the zone

{
    my $key = make_key("'acme'");
    warm($key);

    my $c = $nginx->connect;
    my %seen;
    for my $n (1 .. 10) {
        $c->raw(join '', map { AgentTest::Http::text(path => '/check',
                                   header("nobody-$n-$_")) } 1 .. 100);
        $seen{$c->answer->{status}}++ for 1 .. 100;
    }
    $c->close;

    is(join(' ', grep { $_ != 401 && $_ != 429 } sort keys %seen), '',
       'unknown keys are refused');
    ok($seen{401} >= 400, 'many of them by the database');

    # if it had, this one would be one more that is not known

    is(status($key), 204, 'and none of them takes the place of a good one');
    ok(poll_until(sub { status('nobody') == 401 }),
       'and a second later they are looked up again');
}


# times that are no number

{
    my $key = make_key("'acme', p_expires => 'infinity'");
    is(status($key), 204, 'a key that ends at infinity');
    change($key, "expires_at = '-infinity'");
    ok(poll_until(sub { status($key) == 401 }), 'and before all time');

    $key = make_key("'acme', p_expires => '294276-01-01'");
    is(status($key), 204, 'in a far year');
    is(status($key), 204, 'and from the cache');
}


# whole lists of agents

{
    my $many = join ',', map { "agent-$_" } 1 .. 3000;
    my $key = make_key("'acme', p_agents => '{$many}'");
    is(status($key), 204, 'a list of agents that is longer than the zone')
        for 1 .. 2;
}


# more changes than a look tells

{
    my $key = make_key("'acme'");
    my $stays = make_key("'acme'");
    warm($_) for $key, $stays;
    $pg->psql('begin; alter table agent.api_key disable trigger api_key_tell; '
        . "update agent.api_key set revoked_at = now() where hash = "
        . "sha256('$key'); alter table agent.api_key enable trigger "
        . 'api_key_tell; insert into agent.key_change (hash) select '
        . "sha256(i::text::bytea) from generate_series(1, 2000) i; commit;");
    ok(poll_until(sub { status($key) == 401 }, 5),
       'a change among more than are told');
    is(status($stays), 204, 'the others are good');
}


# a transaction that is open for long, and others in the meantime

{
    my $key = make_key("'acme'");
    my $next = make_key("'acme'");
    warm($_) for $key, $next;

    my $open = session('update agent.api_key set revoked_at = now() where '
                       . "hash = sha256('$key')");
    change($next, 'revoked_at = now()');
    ok(poll_until(sub { status($next) == 401 }, 5), 'one that is meanwhile');
    is(status($key), 204, 'it is good as long as nothing is committed');
    commit($open);
    ok(poll_until(sub { status($key) == 401 }, 5), 'and then it is not');
}


# killed workers

{
    my $key = make_key("'acme'");
    warm($key);

    for (1 .. 5) {
        my @old = $nginx->workers;
        kill 'KILL', @old;
        poll_until(sub {
            my %now = map { $_ => 1 } $nginx->workers;
            keys %now == 2 && !grep { $now{$_} } @old;
        }) or die "no new workers\n";
        ok(poll_until(sub { (eval { status($key) } || 0) == 204 }),
           'workers were killed: the key is good');
    }

    my $lock = lock_keys();
    my @all = map { status($key) } 1 .. 20;
    is(scalar(grep { $_ == 204 } @all), 20, 'from the cache, which is kept');
    commit($lock);
}


# another database

{
    my $key = make_key("'acme'");
    my $new = make_key("'acme'", $other);
    warm($key);
    is(status($new), 401, 'a key of another database');

    ok($nginx->reload(conf(%conf, pg => $other)), 'which is now the one');
    is(status($key), 401, 'a key of before is unknown at once');
    ok(poll_until(sub { status($new) == 204 }), 'the other one is good');

    ok($nginx->reload(conf(%conf, pg => $pg)), 'and back');
    is(status($new), 401, 'it is unknown at once');
    ok(poll_until(sub { status($key) == 204 }), 'and the first one is good');
}

# what was killed is said so
$nginx->finish(but => qr/exited on signal 9/);
done_testing();
