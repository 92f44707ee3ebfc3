#!/usr/bin/perl

# The torture test in short, for every run of the suite: "make torture" is the
# long one.  What it prints is shown when something is wrong.

use strict;
use warnings;

use FindBin;
use Test::More tests => 1;

local $ENV{TORTURE_SECONDS} = $ENV{TORTURE_SECONDS} || 22;
local $ENV{TORTURE_CLIENTS} = $ENV{TORTURE_CLIENTS} || 80;
local $ENV{TORTURE_CALM} = $ENV{TORTURE_CALM} // 3;

open my $torture, '-|', $^X, "$FindBin::Bin/torture.pl"
    or BAIL_OUT("torture.pl: $!");
my @lines = <$torture>;
close $torture;

ok($? == 0, 'whatever breaks, no step is lost, repeated or hung');
($? == 0 ? \&note : \&diag)->(@lines);
