# README.md says what is true: its five minutes in psql are gone through, and the
# outputs compared; what it lists is what there is.
#
# Comments that its readers do not see mark the blocks:
#   <!-- tour -->              is run, in a psql of its own
#   <!-- tour: second psql --> the same in the background, once it waits
#   <!-- output -->            what the block before has printed
#   <!-- output of the second psql -->
#   <!-- run -->               is run; what it prints is not shown, unless output follows
#   <!-- shell -->             is a script that tries again, see below
#   <!-- cluster settings -->  is what the servers of a cluster are started with
#   <!-- cluster: 2 -->        is run on that one of them, or on each
# README_UPDATE=FILE writes the README with the outputs as they are.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PgtopicCluster;
use PgtopicTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $readme = slurp_file("$FindBin::RealBin/../../README.md");
my $node = new_node('readme');
my $s = session($node);

# Numbers in timestamps differ, and with them the widths of columns.
sub normal
{
	my ($text) = @_;
	$text =~ s/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?[+-]\d\d(:\d\d)?/TIMESTAMP/g;
	$text =~ s/-{3,}/---/g;
	$text =~ s/ +/ /g;
	$text =~ s/^ | $//mg;
	$text =~ s/\n+\z//;
	return $text;
}

# The marked blocks: [mark, line number, content].
sub blocks
{
	my @found;
	while ($readme =~ /^<!-- (tour|output|run|cluster)([^\n]*?) -->\n```\w*\n(.*?)^```$/msg)
	{
		my ($mark, $content) = ($1 . $2, $3);
		my $line = 1 + (() = substr($readme, 0, $-[0]) =~ /\n/g);
		push @found, [ $mark, $line, $content ];
	}
	return @found;
}

# A psql as a person has it, but for ending with the first error.  What it prints
# is in the file that is returned second.
sub start_psql
{
	my ($line, $content, $where) = @_;
	my $file = "$PostgreSQL::Test::Utils::tmp_check/block_$line";

	$where //= $node;

	open(my $fh, '>', $file) or die "$file: $!";
	print $fh $content;
	close $fh;
	my $run = IPC::Run::start(
		[ $where->installed_command('psql'), '-X', '-v', 'ON_ERROR_STOP=1', '-d', $where->connstr('postgres') ],
		'<', $file, '>&', "$file.out");
	return ($run, "$file.out");
}

# Whether it ends without an error, and what it has printed.
sub finish_psql
{
	my ($run, $file) = @_;
	my $good = $run->finish;
	return ($good, slurp_file($file));
}

# --- clusters ---

my $cluster;

# Three servers with these settings, and the defaults of what is not said.  What
# PgtopicCluster has prepared on them is left to README.md.
sub start_cluster
{
	my ($settings) = @_;

	$cluster = PgtopicCluster->new(conf => <<"EOC");
max_worker_processes = 8
max_replication_slots = 10
max_wal_senders = 10
max_logical_replication_workers = 4
max_sync_workers_per_subscription = 2
wal_level = replica
$settings
EOC
	for my $number ($cluster->numbers)
	{
		$cluster->ask_ok($number, 'DROP OWNED BY pgtopic_peer');
		$cluster->ask_ok($number, 'DROP ROLE pgtopic_peer');
		$cluster->ask_ok($number, 'DROP EXTENSION pgtopic');
	}
	return;
}

# Runs a block on one of the servers, or on each; the last one's result.
sub run_on_cluster
{
	my ($where, $line, $content) = @_;
	my $is_cluster = $cluster->ask(1, 'SELECT count(*) > 1 FROM broker_status') // '';
	my @result;

	# as somebody who reads on takes it for granted
	if ($is_cluster eq 't')
	{
		$cluster->poll(sub { $cluster->out_of_sync }, '', 60);
		for my $number ($cluster->numbers)
		{
			$cluster->poll(sub { $cluster->ask($number, "SELECT count(*) FROM broker_status WHERE state <> 'online'") }, '0', 60);
		}
	}
	for my $number ($where eq 'each' ? $cluster->numbers : $where)
	{
		@result = finish_psql(start_psql($line, $content, $cluster->node($number)));
		ok($result[0], "line $line: nothing fails on broker $number") or diag($result[1]);
		# README.md gives all of them the same password
		$cluster->ask_ok($number, "ALTER ROLE pgtopic_peer PASSWORD '$cluster->{brokers}[$number]{password}'")
		  if $content =~ /CREATE ROLE/;
	}
	return @result;
}

# --- the tour, and the other examples ---

my @blocks = blocks();
my ($script) = $readme =~ /^<!-- shell -->\n```sh\n(.*?)^```$/ms;
my $marks = () = $readme =~ /^<!-- (?:tour|output|run|cluster)/mg;
is(scalar(@blocks), $marks, 'every mark has a block');
cmp_ok(scalar(grep { $_->[0] =~ /^tour/ } @blocks), '>=', 10, 'there is a tour');

my (@second, @outputs);
my ($good, $shown) = (0, '');
for my $block (@blocks)
{
	my ($mark, $line, $content) = @$block;

	if ($mark eq 'tour: second psql')
	{
		@second = start_psql($line, $content);
		my $waiting = wait_event_is($node, 'PgtopicMessages');
		wait_until($s,
			"SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = '$waiting' AND backend_type = 'client backend'",
			"line $line: it waits");
	}
	elsif ($mark eq 'cluster settings')
	{
		start_cluster($content);
	}
	elsif ($mark =~ /^cluster: (\d|each)$/)
	{
		($good, $shown) = run_on_cluster($1, $line, $content);
	}
	elsif ($mark =~ /^output/)
	{
		if ($mark eq 'output of the second psql')
		{
			($good, $shown) = finish_psql(@second);
			ok($good, "line $line: the second psql ends well") or diag($shown);
		}
		push @outputs, $shown;
		is(normal($shown), normal($content), "line $line: the output is as shown");
	}
	else
	{
		($good, $shown) = finish_psql(start_psql($line, $content));
		ok($good, "line $line: nothing fails") or diag($shown);
	}
}

# --- the script that tries again ---

# Runs it where the file has so many lines.  So often as is said, what it has psql do
# is done, but gets no answer.
sub run_script
{
	my ($lines, $lost) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir;
	# the one that stands in for it comes first in the path
	my $psql = $node->config_data('--bindir') . '/psql';
	my ($out, $err);

	-x $psql or die "no $psql\n";
	append_to_file("$dir/orders.txt", join('', map { "line $_\n" } 1 .. $lines));
	append_to_file("$dir/lost", "x\n" x $lost);
	append_to_file("$dir/script", $script);
	append_to_file("$dir/psql", <<"EOS");
#!/bin/sh
'$psql' "\$@" || exit
case "\$*" in *lines=*) ;; *) exit 0 ;; esac
[ -s lost ] || exit 0
sed -i 1d lost
exit 2
EOS
	chmod(0755, "$dir/psql") or die $!;
	local $ENV{PATH} = "$dir:$ENV{PATH}";
	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	local $ENV{PGDATABASE} = 'postgres';
	ok(IPC::Run::run([ 'sh', '-c', "cd '$dir' && . ./script" ], '<', '/dev/null', '>', \$out, '2>', \$err), "the script that tries again: $lines lines, $lost answers are lost")
	  or diag("$out$err");
	is(-s "$dir/lost", 0, '... and asked for once more');
	return;
}
my $lines = "SELECT count(*), count(DISTINCT n), min(n), max(n), bool_and(n = place)"
  . " FROM (SELECT substr(value, 6)::int AS n, row_number() OVER (ORDER BY log_offset) AS place FROM fetch_messages('orders', 0, 1, 10000) WHERE value LIKE 'line %') m";
run_script(250, 2);
result_is($s, $lines, '250|250|1|250|t', '... each line is there once, in order');
run_script(250, 0);
result_is($s, $lines, '250|250|1|250|t', '... when it is started again, nothing comes twice');
run_script(333, 1);
result_is($s, $lines, '333|333|1|333|t', '... and it goes on');

if (my $file = $ENV{README_UPDATE})
{
	my $updated = $readme;
	$updated =~ s{(^<!-- output[^\n]*? -->\n```\n).*?(^```$)}{
		my ($head, $tail, $output) = ($1, $2, shift @outputs);
		$output =~ s/ +$//mg;
		$output =~ s/\n+\z//;
		"$head$output\n$tail";
	}msge;
	open(my $fh, '>', $file) or die "$file: $!";
	print $fh $updated;
	close $fh;
}

# --- what it lists ---

# Its section of this name.
sub section
{
	my ($name) = @_;
	$readme =~ /^## \Q$name\E\n(.*?)(?=^## |\z)/ms or die "there is no section $name\n";
	return $1;
}

# Signatures: every function that is not what types and operators are made of.
my $calls = section('Calls') . section('Types');
my @functions = split /\n/, $s->query_ok(<<'EOC');
SELECT p.proname, pg_get_function_arguments(p.oid)
FROM pg_depend d JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pgtopic')
	AND p.pronamespace = (SELECT extnamespace FROM pg_extension WHERE extname = 'pgtopic')
	AND p.proname !~ '^topic(_partition)?_(in|out|recv|send|eq|ne|lt|le|gt|ge|cmp|hash|hash_extended)$'
	AND p.proargnames IS NOT NULL
ORDER BY 1, 2
EOC
cmp_ok(scalar(@functions), '>=', 20, 'there are functions');
for (@functions)
{
	my ($name, $arguments) = split /\|/;
	my @missing;

	# what is said of consume() holds for consume_bytes()
	(my $listed = $name) =~ s/_bytes$//;
	my ($signature) = $calls =~ /`\Q$listed\E\((.*?)\)`/;
	$signature //= '';
	for my $argument (split /, /, $arguments)
	{
		my ($declared, $default) = split / DEFAULT /, $argument;
		my ($word) = $declared =~ /^(?:IN |OUT )?(\S+)/;
		my $as = quotemeta($word);

		$word =~ s/"//g;
		if (defined $default)
		{
			$default =~ s/::[\w ]+(\[\])?//;
			# an interval's default is written as the server writes intervals
			$default = "'0'" if $default eq "'00:00:00'";
			$as .= "( [\\w\\[\\]]+)? = " . quotemeta($default);
		}
		push @missing, $argument unless $signature =~ /(^|, |OUT )"?$as/;
	}
	is("@missing", '', "$name($arguments)");
	like($calls, qr/`\Q$name\E\(/, "$name is listed");
}

# Columns of the status views.
my $views = section('Status views');
for (split /\n/, $s->query_ok(<<'EOC'))
SELECT c.relname, string_agg(a.attname, ' ' ORDER BY a.attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'v' GROUP BY 1 ORDER BY 1
EOC
{
	my ($view, $columns) = split /\|/;
	my ($table) = $views =~ /^\*\*\Q$view\E\*\*\n(.*?)(?=^\*\*|\z)/ms;
	my @rows = ($table // '') =~ /^\|([^|]*)\|/mg;
	my @listed = map { /`(\w+)`/g } @rows;

	is("@listed", $columns, "columns of $view");
}

# Types.
my $types = section('Types');
for my $type ('message', 'message_bytes')
{
	like($types, qr/^\| `$type` \|/m, "$type is listed");
}
my $message = $s->query_ok(<<'EOC');
SELECT string_agg(quote_ident(a.attname) || ' ' || replace(replace(format_type(a.atttypid, -1),
	'integer', 'int'), 'timestamp with time zone', 'timestamptz'), ', ' ORDER BY a.attnum)
FROM pg_attribute a WHERE a.attrelid = 'message'::regclass
EOC
like($types, qr/`\Q$message\E`/, 'columns of message');

# Settings, with defaults, and who can change them.
my %context = (postmaster => 'restart', sighup => 'reload', user => 'session');
my @settings = map {
	my ($name, $default, $unit, $context) = split /\|/;
	"$name|$default" . ($unit eq '' ? '' : " $unit") . "|$context{$context}";
} split /\n/, $s->query_ok(<<'EOC');
SELECT name, boot_val, coalesce(unit, ''), context FROM pg_settings WHERE name LIKE 'pgtopic.%' ORDER BY 1
EOC
my @listed = sort map { "$_->[0]|$_->[1]|$_->[2]" }
  map { [/^\| `(pgtopic\.\w+)` \| ([^|]+) \| ([^|]+) \|/] } grep { /^\| `pgtopic\./ } split /\n/, section('Settings');
is_deeply(\@listed, \@settings, 'settings');

# Links within it.
my %anchor;
for ($readme =~ /^#+ (.*)$/mg)
{
	my $heading = lc;
	$heading =~ s/[^\w\- ]//g;
	$heading =~ s/ /-/g;
	$anchor{$heading} = 1;
}
my @broken = grep { !$anchor{$_} } $readme =~ /\]\(#([^)]*)\)/g;
is("@broken", '', 'links within it lead somewhere');

$s->quit;
log_is_clean($node);
$node->stop;
$cluster->wait_in_sync(60);
# a leader that a broker has nothing of any more drops its slot, and the subscription goes next
$cluster->log_clean(allow => [ qr/replication slot "[^"]*" does not exist/ ]);
$cluster->stop_all;
done_testing();
