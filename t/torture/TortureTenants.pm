package TortureTenants;

# The tenants of the torture test, their keys and limits.  "red" may use what
# it likes, "tight" may run, queue and store little, "poor" has little money
# and is given more when it has spent it.  Looks at the tables while it all
# goes on: a line of the log for each tenant with limits.

use strict;
use warnings;

use JSON::PP;
use POSIX qw(strftime);
use Time::HiRes qw(time);

use AgentTest;

my $json = JSON::PP->new->utf8->canonical;

our @names = qw(red tight poor);

# what one snapshot of the database says
my $look = <<'END';
select json_build_object('at', extract(epoch from clock_timestamp()),
    'tenant', q.tenant, 'max_running', q.max_running, 'running', s.running,
    'max_queued', q.max_queued, 'queued', (select count(*) from agent.queue w
        where w.tenant = q.tenant),
    'max_bytes', q.max_artifact_bytes, 'counted_bytes', q.artifact_bytes,
    'bytes', (select coalesce(sum(a.size), 0) from agent.artifact a
        where a.tenant = q.tenant),
    'max_money', q.max_money_month::text, 'counted_money',
    q.month_money::text, 'spent', (select coalesce(sum(u.price), 0.000000)
        from agent.usage u where u.tenant = q.tenant)::text,
    'reserved', s.reserved::text, 'price', '0.002',
    'full', q.month_money + s.reserved + 0.002 > q.max_money_month)
from agent.quota q cross join lateral (
    select count(*) filter (where status = 1) as running,
           coalesce(sum(reserved), 0) as reserved
    from agent.step where tenant = q.tenant and status in (0, 1)) s
END


# pg, sql (a function that may find the database away), clients (how many),
# seconds (how long), log (a file name)

sub new {
    my ($class, %o) = @_;

    my $self = bless { %o, next => 0, full => 0 }, $class;
    open $self->{fh}, '>', $o{log} or die "$o{log}: $!\n";
    $self->{fh}->autoflush(1);

    for my $name (@names) {
        $self->{keys}{$name} = {
            full => $self->key("'$name'"),
            read => $self->key("'$name', p_read_only => true"),
            some => $self->key("'$name', p_agents => '{plain,small}'"),
        };
    }

    my $running = 2 + int $o{clients} / 20;
    my $queued = 2 * $running;
    my $bytes = 20 + int $o{clients} * $o{seconds} / 10;
    $self->{money} = 0.002 * $o{clients};

    $o{pg}->psql("select agent.set_quota('tight', p_running => $running, "
        . "p_queued => $queued, p_artifact_bytes => $bytes)");
    $o{pg}->psql("select agent.set_quota('poor', p_money_month => "
        . "$self->{money})");
    return $self;
}


sub key { return $_[0]{pg}->psql("select agent.create_key($_[1])") }


# Whose client it is, its keys by what they may do, and who it is not.

sub client {
    my ($self, $id) = @_;
    my $name = $names[$id % @names];
    return (tenant => $name, keys => $self->{keys}{$name},
            others => [grep { $_ ne $name } @names]);
}


# Now and then; whoever has had no money for a while is given some.

sub look {
    my ($self) = @_;

    return if time < $self->{next};
    $self->{next} = time + 0.4;

    my $rows = $self->{sql}->($look);
    return unless length $rows;
    print {$self->{fh}} "$rows\n";

    my ($poor) = grep { $_->{tenant} eq 'poor' }
                 map { $json->decode($_) } split /\n/, $rows;
    $self->{full} = $poor && $poor->{full} ? $self->{full} + 1 : 0;
    return if $self->{full} < 5;

    my $more = $poor->{max_money} + $self->{money};
    $self->{sql}->("select agent.set_quota('poor', p_money_month => $more)");
    $self->{full} = 0;
}


# What each tenant is told that it has used, and the operator.

sub usage {
    my ($self, $nginx, $since) = @_;

    my $from = strftime('%Y-%m-%d', gmtime $since);
    my %got;
    for my $name (@names) {
        my $r = $nginx->get("/k/plain/usage?from=$from", headers => {
            Authorization => "Bearer $self->{keys}{$name}{read}" });
        $got{tenant}{$name} = $r->{json}{total};
    }
    $got{all} = $nginx->get("/usage?from=$from&page_size=1000")->{json};
    return \%got;
}


1;
