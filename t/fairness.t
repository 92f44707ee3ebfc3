#!/usr/bin/perl

# The queue is shared by tenants: each has its turn, however many steps
# another one has sent, and what holds one of them up holds up nobody else.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use List::Util qw(max min sum);
use Test::More;
use Time::HiRes qw(sleep time);

my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;


sub start {
    my (%o) = @_;
    return AgentTest::Nginx->new(conf => conf(pg => $pg, llm => $llm, %o));
}


sub one { return $pg->psql($_[0]) }


# Steps of a tenant's, each of a task of its own, as if some nginx had stored
# them a second ago, one after the other.  tell: and had told the others;
# after: but not to be run before, in seconds.

sub put {
    my ($tenant, $n, %o) = @_;

    my $agent = $o{agent} || 'writer';
    my $input = $o{input} // '';
    my $after = $o{after} // -1;

    one("with t as (select gen_random_uuid() as id, n from generate_series(1, "
        . "$n) n), task as (insert into agent.task (task_id, tenant, agent, "
        . "input, max_steps) select id, '$tenant', '$agent', '$tenant ' || n "
        . "|| '$input', 5 from t), step as (insert into agent.step (task_id, "
        . 'seq, step_id, tenant, status, attempt) select id, 1, '
        . "gen_random_uuid(), '$tenant', 0, 0 from t) insert into agent.queue "
        . "(task_id, seq, tenant, agent, run_at) select id, 1, '$tenant', "
        . "'$agent', now() + $after * interval '1 s' + n * interval '1 us' "
        . 'from t');

    one("select pg_notify('agent_work', '$agent $tenant')") if $o{tell};
}


sub ended {
    my ($tenant) = @_;
    return one('select count(*) from agent.step where status = 2 and tenant = '
               . "'$tenant'");
}


sub queued {
    my ($tenant) = @_;
    return one("select count(*) from agent.queue where tenant = '$tenant'");
}


sub all_ended {
    my ($tenant, $n, $seconds) = @_;
    return poll_until(sub { ended($tenant) >= $n }, $seconds || 60);
}


# What is left is of no interest; nothing of it may be run later.

sub clear {
    one('delete from agent.queue; update agent.step set status = 5 where '
        . 'status = 0');
    poll_until(sub { one('select count(*) from agent.step where status = 1')
                     eq '0' }, 20) or diag 'steps still run';
}


# The tenants of the steps that have ended, in the order in which they have.

sub order {
    my (@tenants) = @_;
    my $list = join ',', map { "'$_'" } @tenants;
    return split /\n/, one('select tenant from agent.step where status = 2 '
                           . "and tenant in ($list) order by ended_at");
}


sub share_of {
    my ($n, @order) = @_;
    my %n;
    $n{$_}++ for @order[0 .. min($n, scalar @order) - 1];
    return \%n;
}


# One has sent very many, another one a few, later ------------------------------

sub late_comer {
    my ($name, $many, %o) = @_;

    my ($big, $small) = ("$name-big", "$name-small");
    my $tell = delete $o{tell};

    put($big, $many);
    my $n = start(workers => 2, %o,
                  http => '    agent_concurrency 4; agent_queue 20000 poll=1s;');

    ok(all_ended($big, 20), "$name: some of $many have run");
    cmp_ok(queued($big), '>', $many / 2, 'most of them wait');

    put($small, 5, tell => $tell);
    my $before = ended($big);
    ok(all_ended($small, 5), 'five of another one are run');

    my $meanwhile = one('select count(*) from agent.step where status = 2 and '
        . "tenant = '$big' and ended_at <= (select max(ended_at) from "
        . "agent.step where tenant = '$small')");
    cmp_ok(queued($big), '>', 0, 'while the others still wait');

    # since they were told of: the places that were taken, and turn about
    my @since = split /\n/, one('select tenant from agent.step where status = '
        . '2 and ended_at >= (select min(ended_at) from agent.step where '
        . "tenant = '$small') and tenant in ('$big', '$small') order by "
        . 'ended_at limit 60');
    is(scalar(grep { $_ eq $small } @since), 5,
       'all five among the next few dozen')
        or diag "@since";
    note "$name: ", $meanwhile - $before, ' others ran meanwhile';

    $n->finish;
    clear();
    return $meanwhile - $before;
}

{
    late_comer('many', 10000, tell => 1);

    # with no news at all it takes a poll to know of them
    late_comer('pooled', 3000, db_opt => 'prepared=off');
}


# Equal shares ----------------------------------------------------------------

{
    my @tenants = qw(share-a share-b share-c);

    # not the same number of steps, nor the same age
    put('share-a', 3000, after => -3600);
    put('share-b', 1600, after => -60);
    put('share-c', 1500);

    my $n = start(workers => 2, http => '    agent_concurrency 3;');
    ok(poll_until(sub { order(@tenants) >= 300 }, 60),
       'three tenants, all with more than can be run');
    my $n300 = share_of(300, order(@tenants));
    note encode($n300);
    for (@tenants) {
        cmp_ok($n300->{$_} // 0, '>', 70, "$_ has its share");
        cmp_ok($n300->{$_} // 0, '<', 140, 'and no more');
    }

    # who comes is one of four from then on
    put('share-d', 100, tell => 1);
    ok(all_ended('share-d', 100), 'a fourth one');
    my @since = split /\n/, one('select tenant from agent.step where status = '
        . '2 and ended_at >= (select min(ended_at) from agent.step where '
        . "tenant = 'share-d') order by ended_at");
    my $n200 = share_of(200, @since);
    note encode($n200);
    cmp_ok($n200->{'share-d'} // 0, '>', 30, 'has its share, too');
    cmp_ok($n200->{'share-d'} // 0, '<', 90, 'and no more');
    cmp_ok(min(map { $n200->{$_} // 0 } @tenants), '>', 25,
           'the others go on');

    # the places of who has no more are the others'
    one("delete from agent.queue where tenant <> 'share-a'");
    my $before = ended('share-a');
    ok(poll_until(sub { ended('share-a') >= $before + 100 }, 30),
       'one that is alone has all places');
    is(one('select max(attempt) from agent.step where status = 2'), 1,
       'no step was run twice');
    $n->finish;
    clear();
}


# One place, and more tenants than one claim asks for ---------------------------

{
    put("crowd-$_", 2) for 1 .. 3;
    one("with t as (select gen_random_uuid() as id, n, i from "
        . 'generate_series(4, 150) n, generate_series(1, 2) i), task as ('
        . 'insert into agent.task (task_id, tenant, agent, input, max_steps) '
        . "select id, 'crowd-' || n, 'writer', 'crowd', 5 from t), step as ("
        . 'insert into agent.step (task_id, seq, step_id, tenant, status, '
        . "attempt) select id, 1, gen_random_uuid(), 'crowd-' || n, 0, 0 from "
        . 't) insert into agent.queue (task_id, seq, tenant, agent, run_at) '
        . "select id, 1, 'crowd-' || n, 'writer', now() - interval '1 s' from "
        . 't');

    my $n = start(http => '    agent_concurrency 1;');
    ok(poll_until(sub {
        one("select count(*) from agent.step where tenant like 'crowd-%' and "
            . 'status = 2') eq '300';
    }, 60), '150 tenants, one place: all steps are run');
    my @order = split /\n/, one("select tenant from agent.step where tenant "
        . "like 'crowd-%' order by ended_at");
    my %first;
    $first{$order[$_]} //= $_ for 0 .. $#order;
    cmp_ok(max(values %first), '<', 160,
           'none has its second one before all had their first one');
    $n->finish;
}


# Nobody was told -----------------------------------------------------------

{
    my $n = on_record(start(workers => 2,
                            http => '    agent_queue 100 poll=1s;'), $pg);

    put("quiet-$_", 1) for 1 .. 3;
    ok(all_ended("quiet-$_", 1, 20), "quiet-$_: found by the poll") for 1 .. 3;

    # also of one whose line is known, and with a time before all of it
    put('quiet-1', 1, after => -3600);
    ok(all_ended('quiet-1', 2, 20), 'an old one of a known tenant');
    one('select 1');

    # names that are not plain
    for my $tenant ('two words', 'a!', ' ', 'b! c', 'ключ', 'x' x 128) {
        put($tenant, 1);
        ok(all_ended($tenant, 1, 20), "of \"$tenant\", by the poll");
        put($tenant, 1, tell => 1);
        ok(all_ended($tenant, 2, 20), 'and by news');
    }
    $n->finish;
}

{
    # so long between two polls that only the news can be the reason
    my $n = on_record(start(workers => 2,
                            http => '    agent_queue 100 poll=60s;'), $pg);
    put('warm', 1, tell => 1);
    ok(all_ended('warm', 1, 20), 'news of a tenant');
    for my $tenant ('', 'two words', 'a!') {
        my $before = ended($tenant);
        put($tenant, 1, tell => 1);
        ok(poll_until(sub { ended($tenant) > $before }, 20),
           "of \"$tenant\", too");
    }

    put('old', 1, after => -3600);
    sleep 0.5;
    one(q{select pg_notify('agent_work', 'writer! old')});
    ok(all_ended('old', 1, 20), 'and of old steps');

    # what is no news of ours does no harm
    one("select pg_notify('agent_work', '$_')")
        for '', ' ', 'writer', '!', 'nobody x', '! x', 'writer!';
    my $id = make_task($n, 'after it');
    is(run_step($n, $id)->{json}{output}, 'after it', 'rubbish is not heard');
    $n->finish;
}


# One at its limit of running steps ---------------------------------------------

{
    put('limited', 40, input => ' [[echo+hold]]');
    one(q{select agent.set_quota('limited', p_running => 2)});

    my $n = start(workers => 2, http => '    agent_concurrency 4;');
    ok(poll_until(sub { $llm->stats->{held} == 2 }),
       'a tenant runs as many steps as it may');

    put('free', 60, tell => 1);
    ok(all_ended('free', 60), 'all of another one are run meanwhile');
    is($llm->stats->{held}, 2, 'and no more of the first one');
    is(one(q{select count(*) from agent.step where tenant = 'limited' and }
           . 'status = 1'), 2, 'two');

    my $most = 0;
    ok(poll_until(sub {
        $llm->release;
        $most = max($most, one('select count(*) from agent.step where status '
                               . q{= 1 and tenant = 'limited'}));
        ended('limited') >= 40;
    }, 60), 'then all of them are run');
    cmp_ok($most, '<=', 2, 'never more than two at once');
    is(one('select max(attempt) from agent.step where status = 2'), 1,
       'each once');

    # its limit is raised: it does not wait for any news
    put('limited', 10, input => ' [[echo+hold]]', tell => 1);
    one(q{select agent.set_quota('limited', p_running => 1)});
    ok(poll_until(sub { $llm->stats->{held} >= 1 }), 'some more');
    one(q{select agent.set_quota('limited', p_running => 5)});
    ok(poll_until(sub { $llm->stats->{held} == 5 }),
       'a higher limit holds at once');
    one(q{select agent.drop_quota('limited')});
    ok(poll_until(sub { $llm->stats->{held} == 8 }),
       'without one it has all the places there are');
    ok(poll_until(sub { $llm->release; ended('limited') >= 50 }, 30),
       'all are run');
    $n->finish;
}


# Steps that are to be run later -------------------------------------------------

{
    put('later', 500, after => 3600);
    my $n = start(http => '    agent_concurrency 2; agent_queue 1000 poll=1s;');

    put('sooner', 30, tell => 1);
    ok(all_ended('sooner', 30), 'another one is not held up by delayed steps');
    put('later', 5, tell => 1);
    ok(all_ended('later', 5), 'nor are others of their own tenant');
    is(queued('later'), 500, 'they wait');
    one(q{update agent.queue set run_at = now() where tenant = 'later'});
    ok(all_ended('later', 505), 'until it is time');
    $n->finish;
}


# More tenants than a worker keeps in mind ---------------------------------------

{
    one("with t as (select gen_random_uuid() as id, n from generate_series(1, "
        . '4500) n), task as (insert into agent.task (task_id, tenant, agent, '
        . "input, max_steps) select id, 'town-' || n, 'writer', 'town', 5 from "
        . 't), step as (insert into agent.step (task_id, seq, step_id, tenant, '
        . "status, attempt) select id, 1, gen_random_uuid(), 'town-' || n, 0, "
        . '0 from t) insert into agent.queue (task_id, seq, tenant, agent, '
        . "run_at) select id, 1, 'town-' || n, 'writer', now() - interval "
        . q{'1 s' from t});

    # no more at once than the fake LLM can answer in time
    my $n = start(http => '    agent_concurrency 40; agent_queue 10000 '
                          . 'poll=1s;');
    ok(poll_until(sub {
        one("select count(*) from agent.step where tenant like 'town-%' and "
            . 'status = 2') eq '4500';
    }, 120), 'thousands of tenants: all steps are run');
    is(one('select max(attempt) from agent.step where status = 2'), 1,
       'each once');
    $n->finish;
}


is(one('select count(*) from agent.step s full join agent.usage u using '
   . '(task_id, step_id) where s.status in (2, 3, 4) and (u.step_id is null '
   . 'or u.tenant <> s.tenant) or s.step_id is null'), 0,
   'each step that ended has its row in the ledger, of its tenant');

done_testing();
