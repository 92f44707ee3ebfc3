#!/usr/bin/perl

# The documents and the code say the same: directives with their contexts,
# order, arguments, defaults and limits; variables; versions; files.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use Test::More;

my $root = abs_path(dirname(__FILE__) . '/..');
my $module = "$root/ngx_http_agent_module";


sub slurp {
    my ($name) = @_;
    open my $fh, '<', $name or return '';
    local $/;
    my $text = <$fh>;
    return defined $text ? $text : '';
}


my $readme = slurp("$root/README.md");
my $changes = slurp("$root/CHANGES.md");
my $conf = slurp("$module/ngx_http_agent_conf.c");
my $block = slurp("$module/ngx_http_agent_conf_agent.c");

ok(length $_->[1], "$_->[0] is there")
    for ['README.md', $readme], ['CHANGES.md', $changes],
        ['the table', $conf], ['the block', $block];


# the table

my %context = (
    NGX_HTTP_MAIN_CONF  => 'http',
    NGX_HTTP_SRV_CONF   => 'server',
    NGX_HTTP_LOC_CONF   => 'location',
    NGX_HTTP_LIF_CONF   => 'if in location',
    NGX_HTTP_LMT_CONF   => 'limit_except',
    NGX_HTTP_AGENT_CONF => 'agent',
);

my %arguments = (
    NGX_CONF_NOARGS => 'none',
    NGX_CONF_TAKE1 => 'one',
    NGX_CONF_1MORE => 'more',
    NGX_CONF_FLAG  => 'flag',
    NGX_CONF_BLOCK => 'block',
);

my @table;
my ($body) = $conf =~ /ngx_http_agent_commands\[\] = \{(.*?)ngx_null_command/s;

while ($body =~ /\{\s*ngx_string\("(\w+)"\),\s*([\w|]+),\s*(\w+),\s*\w+,\s*
                 (?:offsetof\([^)]*\)|0),\s*(\S+)\s\}/gxs)
{
    my ($name, $flags, $setter, $post) = ($1, $2, $3, $4);
    my (@contexts, %takes);
    for my $flag (split /\|/, $flags) {
        if ($context{$flag}) {
            push @contexts, $context{$flag};
        } elsif ($arguments{$flag}) {
            $takes{$arguments{$flag}} = 1;
        } else {
            fail("$name: flag $flag is known to this test");
        }
    }
    my $range = $post =~ /^&(\w+)/ ? $1 : '';
    push @table, { name => $name, contexts => join(', ', @contexts),
                   takes => \%takes, range => $range };
}

my $strings = () = $body =~ /ngx_string\(/g;
is(scalar @table, $strings, 'every directive of the table was read');


# README

my ($chapter) = $readme =~ /^## Directives\n(.*?)^## /ms;
my @sections = split /^### /m, defined $chapter ? $chapter : '';
shift @sections;

my %doc;
my @order;
for my $section (@sections) {
    my ($name) = $section =~ /\A`(\w+)`\n/;
    $name = '(no name)' unless defined $name;
    push @order, $name;
    my %d = (text => $section);
    for my $key (qw(Syntax Default Context Since)) {
        ($d{$key}) = $section =~ /^    $key: +(.*)$/m;
    }
    $doc{$name} = \%d;
}

is_deeply(\@order, [map { $_->{name} } @table],
    'README has the directives of the table, in its order');

my %default = (
    dialect      => 'openai',
    timeout      => 'NGX_HTTP_AGENT_TIMEOUT',
    attempts     => 'NGX_HTTP_AGENT_ATTEMPTS',
    concurrency  => '0',
    agent_run    => 'on',
    agent_concurrency => 'worker_connections/4',
    agent_queue  => 'NGX_HTTP_AGENT_DEPTH',
    max_steps    => 'NGX_HTTP_AGENT_STEPS',
    max_answer   => 'NGX_HTTP_AGENT_ANSWER',
    run          => 'step',
    price        => '0',
    trace        => 'NGX_HTTP_AGENT_TRACE',
    agent_strict => 'off',
    agent_tenant => '$agent_tenant',
);


# "60s", "1m" and the like as the plain number of the code

sub plain {
    my ($text, $is_time) = @_;
    my %unit = $is_time
        ? (ms => 1, s => 1000, m => 60000, h => 3600000)
        : ('' => 1, k => 1024, m => 1024 * 1024);
    $text =~ /^(\d+)(\w*)$/ or return $text;
    return exists $unit{$2} ? $1 * $unit{$2} : $text;
}


sub macro {
    my ($name) = @_;
    my ($value) = "$conf$block" =~ /^#define $name +(.+)$/m;
    return undef unless defined $value && $value =~ /^[\d ()*]+$/;
    return eval $value;
}


for my $d (@table) {
    my $name = $d->{name};
    my $have = $doc{$name} || {};
    my $text = defined $have->{text} ? $have->{text} : '';

    ok(defined $have->{$_}, "$name: README has its \"$_\"")
        for qw(Syntax Default Context Since);

    my $context = defined $have->{Context} ? $have->{Context} : '';
    is($context, $d->{contexts}, "$name: the contexts are those of the code");

    my $syntax = defined $have->{Syntax} ? $have->{Syntax} : '';
    if ($d->{takes}{block}) {
        like($syntax, qr/^$name \w+ \{ \.\.\. \}$/, "$name: is a block");
    } elsif ($d->{takes}{flag}) {
        is($syntax, "$name on | off;", "$name: is a flag");
    } elsif ($d->{takes}{none}) {
        is($syntax, "$name;", "$name: takes none");
    } elsif ($d->{takes}{more}) {
        like($syntax, qr/^$name \w+ (?:\.\.\.|\[.*\]);$/,
            "$name: takes several");
    } else {
        like($syntax, qr/^$name \S+(?: \| \S+)*;$/, "$name: takes one");
    }

    my $default = defined $have->{Default} ? $have->{Default} : '';
    if (!exists $default{$name}) {
        is($default, '-', "$name: has no default");
    } elsif ($default{$name} =~ /^NGX_/) {
        my ($shown) = $default =~ /^$name (\S+);$/;
        is(plain(defined $shown ? $shown : '', $name eq 'timeout'),
            macro($default{$name}), "$name: the default is that of the code");
    } else {
        is($default, "$name $default{$name};", "$name: the default");
    }

    if ($d->{range}) {
        my ($limits)
            = $conf =~ /$d->{range} =\s*\{[^"]*"it must be a \w+ from ([^"]+)"/;
        like($text =~ s/\s+/ /gr, qr/\b\Q$limits\E\b/,
            "$name: README has its limits")
            if ok(defined $limits, "$name: the limits were found");
    }

    my $since = defined $have->{Since} ? $have->{Since} : '';
    like($changes, qr/^## \Q$since\E\b/m, "$name: CHANGES.md has $since");
}

{
    my $text = $doc{agent_database}{text} || '';
    my $wait = macro('NGX_HTTP_AGENT_WAIT');
    my $queue = macro('NGX_HTTP_AGENT_QUEUE');
    my ($shown) = $text =~ /60s, (\w+)\s+by\s+default/;
    is(plain($shown || '', 1), $wait, 'agent_database: the default of wait');
    ($shown) = $text =~ /1000000, (\d+)\s+by\s+default/;
    is($shown, $queue, 'agent_database: the default of queue');

    $text = $doc{agent_queue}{text} || '';
    ($shown) = $text =~ /100ms\s+to\s+60s,\s+(\w+)\s+by\s+default/;
    is(plain($shown || '', 1), macro('NGX_HTTP_AGENT_POLL'),
        'agent_queue: the default of poll');
    ($shown) = $text =~ /1s\s+to\s+7d,\s+(\w+)\s+by\s+default/;
    is(plain($shown || '', 1), macro('NGX_HTTP_AGENT_PATIENCE'),
        'agent_queue: the default of patience');

    my $lease = macro('NGX_HTTP_AGENT_LEASE') / 1000;
    like($readme, qr/lease of $lease s\b/, 'the lease');
    my ($max) = $block =~ /^#define NGX_HTTP_AGENT_NAME_MAX +(\d+)/m;
    like($doc{agent}{text}, qr/\b1 to $max letters\b/, 'the length of a name');
}


# variables

my $variables = join '', map { slurp($_) }
    glob "$module/web/*variable*.c";
my %code = map { $_ => 1 } $variables =~ /ngx_string\("(agent_\w+)"\)/g;
my ($listed) = $readme =~ /^## Variables\n(.*?)^## /ms;
my %told = map { $_ => 1 } $listed =~ /^\| `\$(agent_\w+)`/mg;

is(join(' ', sort keys %told), join(' ', sort keys %code),
    'README has the variables of the code');
cmp_ok(scalar keys %code, '>=', 8, 'there are eight at least');


# versions and files

my $nouns = slurp("$module/ngx_agent.h");
my ($version) = $nouns =~ /NGX_AGENT_VERSION +"([^"]+)"/;
my ($schema) = $nouns =~ /NGX_AGENT_SCHEMA +(\d+)/;

my ($newest) = $changes =~ /^## (\S+)/m;
is($newest, $version, 'CHANGES.md begins with the version of the code');

my @sql = sort glob "$root/sql/*.sql";
my $last = @sql ? (split m{/}, $sql[-1])[-1] : '';
like($last, qr/^0*\Q$schema\E_/, 'the last file of sql/ is that version');
like(slurp($sql[-1]), qr/schema_version[^;]*values\s*\($schema\)/,
    'and says so');
for my $file (@sql) {
    my ($name) = $file =~ m{([^/]+)$};
    like("$readme$changes", qr{sql/\Q$name\E}, "sql/$name is told of");
}

for my $link ($readme =~ /\]\(([^):#]+)\)/g) {
    ok(-e "$root/$link", "README links to $link");
}

for my $file (glob "$root/conf-examples/*") {
    my ($name) = $file =~ m{([^/]+)$};
    like($readme, qr{conf-examples/\Q$name\E}, "README tells of $name");
}

for my $room (grep { -d } glob "$module/*") {
    my ($name) = $room =~ m{([^/]+)$};
    like($readme, qr{^\| `\Q$name\E/` \|}m, "README tells of the room $name");
}

my $makefile = slurp("$root/Makefile");
for my $target ($readme =~ /^(?:make) ([a-z]+)\b(?!=)/mg) {
    like($makefile, qr/^$target\b.*:/m, "make $target is there");
}
for my $variable ($readme =~ /^make ([A-Z_]+)=/mg) {
    like($makefile, qr/^$variable\s*[?:]?=/m, "make takes $variable");
}

for my $name ('quickstart.sh', 't/run.sh') {
    ok(-x "$root/$name", "$name is there and can be run");
}

done_testing();
