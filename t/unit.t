#!/usr/bin/perl

# Runs the C tests of t/unit under ASan and UBSan, each as a subtest.  Needs a
# compiler, yajl and nginx's headers (NGINX_SRC), but no nginx and no server.

use strict;
use warnings;

use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use Test::More;

my $here = dirname(__FILE__) . '/unit';
my $dir  = tempdir('agent-unit-XXXXXX', TMPDIR => 1, CLEANUP => 1);

my $log = qx(sh $here/build.sh $dir unit 2>&1);

if ($? != 0) {
    diag $log;
    fail 'the unit tests compile';
    done_testing;
    exit;
}

pass 'the unit tests compile';

local $ENV{ASAN_OPTIONS}  = 'detect_leaks=1:abort_on_error=0';
local $ENV{UBSAN_OPTIONS} = 'print_stacktrace=1';

for my $source (sort glob "$here/test_*.c") {
    my ($name) = $source =~ m{/test_(\w+)\.c$};

    subtest $name => sub {
        my ($planned, $seen) = (0, 0);

        open my $tap, '-|', "$dir/test_$name 2>&1"
            or return fail "run $name: $!";

        while (my $line = <$tap>) {
            chomp $line;

            if ($line =~ /^(not )?ok \d+ - (.*)/) {
                ok !$1, $2;
                $seen++;

            } elsif ($line =~ /^1\.\.(\d+)$/) {
                $planned = $1;

            } else {
                diag $line;
            }
        }

        close $tap;
        is $?, 0, 'exit status';
        is $seen, $planned, 'all tests were run';
        done_testing;
    };
}

done_testing;
