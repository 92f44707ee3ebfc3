#!/usr/bin/perl

# Lists of many tasks: a page and the total are found from page marks, so that
# any page of any number of tasks reads some thousand entries of the index and
# not all of them.  What was read is what Postgres has counted, not a time.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use Test::More;

use constant TASKS => 40_000;

my $pg = AgentTest::Postgres->new(private => 1);
my $llm = AgentTest::LLM->new;
my $nginx = AgentTest::Nginx->new(conf => conf(pg => $pg, llm => $llm));
my $at = '/ap/v1/agent/tasks';

my $scans = "sum(idx_scan) || ' ' || sum(idx_tup_read) from "
            . "pg_stat_user_indexes where schemaname = 'agent' and relname = "
            . "'task'";


# UUIDv7 of some minutes ago, in their order, as tasks of that time have them

sub make_tasks {
    my ($minutes, $n) = @_;
    $pg->psql(<<"    END");
    insert into agent.task (task_id, tenant, agent, input, max_steps)
    select (lpad(to_hex((extract(epoch from now()) * 1000)::int8
                        - $minutes * 60000 + g / 100), 12, '0')
            || '7' || lpad(to_hex(g % 100), 3, '0') || '8000'
            || lpad(to_hex(g), 12, '0'))::uuid,
           '', 'writer', 'task ' || g, 10
      from generate_series(0, $n - 1) g
    END
}


# Entries of the task's indexes that were read meanwhile.  A server process
# tells what it has counted a moment later, also when it does something else.

sub entries {
    my ($least, $do) = @_;

    my ($before, $read) = split / /, $pg->psql("select $scans");
    $do->();

    my ($after, $now);
    poll_until(sub {
        ($after, $now) = split / /, $pg->psql("select $scans");
        $after - $before >= $least;
    }, 30) or diag "only $after - $before scans were counted";
    return $now - $read;
}


make_tasks(60, TASKS);
$pg->psql('analyze');

# a list that has to count from far away makes marks, behind its answer

my $marks = 'select count(*) from agent.task_mark';
ok(poll_until(sub { $nginx->get($at);
                    $pg->psql($marks) == TASKS / 1000 }, 60),
   'all marks are made');

for (['the first page', 1, 'task 0'],
     ['one in the middle', TASKS / 20 + 1, 'task ' . TASKS / 2],
     ['the last page', TASKS / 10, 'task ' . (TASKS - 10)])
{
    my ($name, $page, $first) = @$_;
    my ($r, $n);

    # more than once, as what was read before may be told only now
    poll_until(sub {
        $n = entries(15, sub {
            $r = $nginx->get("$at?current_page=$page") for 1 .. 5;
        });
        $n / 5 < 4000;
    });
    is($r->{status}, 200, $name);
    is($r->{json}{pagination}{total_items}, TASKS, "$name: the total");
    is($r->{json}{tasks}[0]{input}, $first, "$name: its first task");
    cmp_ok($n / 5, '<', 4000, "$name: few entries are read");
}

my $r = $nginx->get("$at?order=desc");
is($r->{json}{tasks}[0]{input}, 'task ' . (TASKS - 1), 'turned round');

# new marks are found from the last one

make_tasks(30, 1001);
my $made;
my $n = entries(1, sub {
    $made = $pg->psql("select agent.enter('='); set enable_seqscan = off; "
                      . 'set enable_bitmapscan = off; '
                      . "select 'made ' || agent.make_marks('', "
                      . "'ffffffff-ffff-ffff-ffff-ffffffffffff', 20)",
                      user => 'agent');
});
like($made, qr/^made 2$/m, 'two more marks');
cmp_ok($n, '<', 4000, 'and few entries are read for them');

$nginx->finish;
done_testing();
