#!/usr/bin/perl

# Judges a folder that TORTURE_KEEP= has kept: t/torture/check.pl DIR

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;

use TortureCheck;

die "usage: t/torture/check.pl DIR\n" if @ARGV != 1 || !-d $ARGV[0];
exit TortureCheck::main($ARGV[0]);
