# What the tests of wrong configurations share (config.t, config_agent.t):
# nginx refuses to start, and says why in one exact [emerg] line with its file
# and line.
#
# The sections "http_config" and "config" (the server's) are files of these
# names, included, so "config:2" in a message is line 2 of the block's section
# "config".  A message may go on in an indented line.  A block with "values"
# is run once for each of them, put in the place of VALUE; those with spaces
# stand in lines of their own.

use strict;
use warnings;

use AgentTest ();

BEGIN {
    $ENV{TEST_NGINX_SCRATCH} = AgentTest::scratch();
    AgentTest::Nginx::for_blocks();
}

use Test::Nginx::Socket;

no_long_string();
no_root_location();

my $dir = AgentTest::scratch();
$ENV{TEST_NGINX_HTML_DIR} = html_dir();


# One block for each of its values.

sub each_value {
    my ($block) = @_;

    $block =~ s/^--- values(:?)((?:.*\n)(?:(?!---).*\n)*)//m or return $block;
    my @values = $1 ? split(' ', $2) : grep { length } split /\n/, $2;

    return map { my $value = $_; $block =~ s/VALUE/$value/gr } @values;
}


sub expand {
    my ($text) = @_;
    $text =~ s/\$(TEST_NGINX_\w+)/$ENV{$1}/g;
    return $text;
}


my @blocks = map { each_value($_) } grep { /^===/ }
             split /^(?==== )/m, do { local $/; <main::DATA> };
Test::Base::spec_string(join '', @blocks);

plan tests => repeat_each() * 3 * @blocks;

add_block_preprocessor(sub {
    my ($block) = @_;

    for my $section (qw(http_config config)) {
        my $text = $block->$section;
        AgentTest::write_file("$dir/$section",
                              expand(defined $text ? $text : ''));
        $block->set_value($section, "include $dir/$section;");
    }

    # exactly this line, and no other [emerg]

    my ($message) = $block->error_log =~ /^\[emerg\] (.*)$/s
        or bail_out($block->name . ': no message');
    chomp $message;
    $message = expand($message =~ s/\n +/ /gr);
    $message =~ s{ in ((?:http_)?config:\d+)}{ in $dir/$1}g;

    $block->set_value('error_log',
                      [qr/^\S+ \S+ \[emerg\] \d+#\d+: \Q$message\E$/]);
    $block->set_value('grep_error_log', '[emerg]');
    $block->set_value('grep_error_log_out', "[emerg]\n");
    $block->set_value('suppress_stderr', 1);
});

1;
