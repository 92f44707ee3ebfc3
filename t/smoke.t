#!/usr/bin/perl

# The shortest walk through the whole server, for other versions of nginx: a
# task, its steps, its artifact, an upload, an error page, a reload.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use AgentTest;
use Test::More;

my $pg = AgentTest::Postgres->new;
my $llm = AgentTest::LLM->new;
my $nginx = AgentTest::Nginx->new(conf => conf(pg => $pg, llm => $llm,
                                               workers => 2));

for my $round (1, 2) {
    my $id = make_task($nginx, "smoke $round [[demo]]");
    my $r = run_step($nginx, $id);
    is($r->{json}{status}, 'completed', 'a step') or diag $r->{body};
    my $artifact = $r->{json}{artifacts}[0]{artifact_id} // 'none';
    $r = run_step($nginx, $id);
    is($r->{json}{is_last}, 1, 'the last step') or diag $r->{body};

    $r = $nginx->get("/agent/tasks/$id/artifacts/$artifact");
    is($r->{body}, 'Washington', 'a download');
    $r = $nginx->get("/agent/tasks/$id/steps");
    is($r->{json}{pagination}{total_items}, 2, 'a list');
    $r = $nginx->post("/agent/tasks/$id/artifacts", "--x\r\n"
        . 'Content-Disposition: form-data; name="file"; filename="f"'
        . "\r\n\r\n" . 'y' x 500_000 . "\r\n--x--\r\n", headers =>
        { 'Content-Type' => 'multipart/form-data; boundary=x' });
    is($r->{status}, 200, 'an upload') or diag $r->{body};
    $r = $nginx->get("/agent/tasks/$id/artifacts/$r->{json}{artifact_id}");
    is(length $r->{body}, 500_000, 'and its download');
    $r = $nginx->post('/agent/tasks', 'x' x (17 << 20));
    is($r->{status}, 413, 'an error page of nginx');
    ok($r->{json}{message}, 'is JSON');

    $id = make_task($nginx, "wrong $round [[http:500:1]]");
    $r = run_step($nginx, $id);
    is($r->{status}, 200, 'an LLM that fails once') or diag $r->{body};

    ok($nginx->reload, 'a reload') if $round == 1;
}

$nginx->finish;
done_testing();
