# The limits of shared memory: slots of partitions are reused and lose nothing,
# and who needs more than there is gets an error that names the setting.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PgtopicTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $PARTITIONS = 30;
my $node = new_node('limits', conf => <<'EOC');
pgtopic.max_partitions = 8
pgtopic.checkpoint_interval = '50ms'
max_locks_per_transaction = 256
EOC
my $folder = PostgreSQL::Test::Utils::tempdir;
my $s = session($node);

result_is($s, 'SHOW pgtopic.max_partitions', '8', 'there are eight slots');
$s->query_ok("SELECT create_topic('t', partitions => $PARTITIONS)");

# --- many more partitions than slots ---

{
	my @offsets;
	for my $round (0 .. 2)
	{
		push @offsets, map { $s->query_ok("SELECT log_offset FROM produce('t', 'r$round', partition => $_)") } 0 .. $PARTITIONS - 1;
	}
	is(join(' ', @offsets), join(' ', map { ($_) x $PARTITIONS } 0 .. 2), "$PARTITIONS partitions in turn: each goes on with its next offset");
	result_is($s, "SELECT count(*), min(log_start_offset), min(high_watermark), max(log_end_offset) FROM partition_status", "$PARTITIONS|0|3|3", 'partition_status shows all of them');
	result_is($s, "SELECT count(*), min(value), max(value) FROM generate_series(0, $PARTITIONS - 1) p, fetch_messages('t', p, 0)", 3 * $PARTITIONS . '|r0|r2', 'all can be read');
	my $got = 0;
	while ((my $n = $s->query_ok("SELECT count(*) FROM consume('t', 'g')")) > 0) { $got += $n; }
	is($got, 3 * $PARTITIONS, '... and consumed');

	# what is rolled back leaves gaps, whether the slot has been reused or not
	$s->query_ok("BEGIN; SELECT produce('t', 'no', partition => 0); ROLLBACK");
	$s->query_ok("SELECT produce('t', 'x', partition => $_)") for 1 .. $PARTITIONS - 1;
	cmp_ok($s->query_ok("SELECT log_offset FROM produce('t', 'x', partition => 0)"), '>=', 4, 'an offset whose message was rolled back does not come back');
}

# Several at once, with rollbacks.
{
	my $scripts = 4;
	srand(7);
	my @run;
	for my $n (1 .. $scripts)
	{
		my $script = '';
		for my $i (1 .. 60)
		{
			my ($p, $q) = (int(rand($PARTITIONS)), int(rand($PARTITIONS)));
			my $end = rand() < 0.3 ? 'ROLLBACK' : 'COMMIT';
			my $value = $end eq 'COMMIT' ? "$n-$i" : 'no';
			$script .= "BEGIN; SELECT produce('t', '$value', partition => $p); SELECT produce('t', '$value', partition => $q); $end;\n\\echo $end $n-$i $p $q\n";
		}
		append_to_file("$folder/run$n.sql", $script);
		push @run, start_writing($node, 'postgres', "$folder/run$n.sql", "$folder/run$n.out");
	}
	my (%expected, %there, $errors);
	for my $n (1 .. $scripts)
	{
		$run[ $n - 1 ]->finish;
		$errors .= slurp_file("$folder/run$n.out.err");
		for (split /\n/, slurp_file("$folder/run$n.out"))
		{
			next unless /^COMMIT (\S+) (\d+) (\d+)$/;
			$expected{"$2 $1"}++;
			$expected{"$3 $1"}++;
		}
	}
	is($errors, '', 'four producers at once in all the partitions: no errors');
	my $rows = $s->query_ok("SELECT m.partition || ' ' || value FROM generate_series(0, $PARTITIONS - 1) p, fetch_messages('t', p, 0, 100000) m WHERE value ~ '-'");
	$there{$_}++ for split /\n/, $rows;
	is(join(',', map { "$_:$there{$_}" } sort keys %there), join(',', map { "$_:$expected{$_}" } sort keys %expected), '... each message is there once');
	result_is($s, "SELECT count(*) FROM generate_series(0, $PARTITIONS - 1) p, fetch_messages('t', p, 0, 100000) WHERE value = 'no'", '0', '... and none that was rolled back');
	my $id = $s->query_ok("SELECT 't'::topic::int");
	result_is($s, "SELECT count(*) FROM (SELECT partition, base_offset, lag(last_offset) OVER (PARTITION BY partition ORDER BY last_offset) AS before FROM pgtopic.t$id) b WHERE base_offset <= before",
		'0', '... and no offset was given out twice');
}

# Another database shares them.
{
	$s->query_ok('CREATE DATABASE other');
	my $o = session($node, 'other');
	$o->query_ok('CREATE EXTENSION pgtopic');
	$o->query_ok("SELECT create_topic('t', partitions => 10)");
	my $offsets = '';
	for my $round (0 .. 2)
	{
		for my $p (0 .. 9)
		{
			$offsets .= $o->query_ok("SELECT log_offset FROM produce('t', 'x', partition => $p)");
			$s->query_ok("SELECT produce('t', 'x', partition => $p)");
		}
	}
	is($offsets, '0' x 10 . '1' x 10 . '2' x 10, 'two databases share the slots');
	$o->quit;
	$s->query_ok('DROP DATABASE other');
}

# --- readers that wait, while their slots go to others ---

# What the processes have used up of a processor in a second that they wait, in percent.
sub is_asleep
{
	my ($name, @pids) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
  SKIP:
	{
		skip 'no /proc', 1 if !-e "/proc/$$/stat";
		my $used = sub {
			my $sum = 0;
			for my $pid (@pids)
			{
				my @f = split / /, slurp_file("/proc/$pid/stat") =~ s/^.*\) //sr;
				$sum += $f[11] + $f[12];
			}
			return $sum;
		};
		my $before = $used->();
		$s->query_ok('SELECT pg_sleep(1)');    # the time over which is measured
		my $took = $used->() - $before;
		cmp_ok($took, '<', 10, $name) or diag("$took ticks in a second");
	}
	return;
}

{
	my $w = session($node);
	my $end = $s->query_ok("SELECT log_end_offset FROM partition_status WHERE partition = 5");
	my $pid = $w->pid;

	$w->send("SELECT value FROM fetch_messages('t', 5, $end, max_wait => '60 s')");
	await_waiting($s, $w);
	for my $round (1 .. 3)
	{
		$s->query_ok("SELECT produce('t', 'x', partition => $_)") for grep { $_ != 5 } 0 .. $PARTITIONS - 1;
	}
	ok(!$w->is_done, 'a reader waits while its slot goes to other partitions');
	$s->query_ok("SELECT produce('t', 'woken', partition => 5)");
	is($w->result // $w->error, 'woken', '... and gets its message');

	$s->query_ok("SELECT create_consumer_group('waiter', 't', 'latest')");
	$w->send("SELECT value FROM consume('t', 'waiter', max_wait => '60 s')");
	wait_until($s, "SELECT count(*) = 1 FROM pg_stat_activity WHERE state = 'active' AND query ~ 'consume' AND pid = $pid");
	is_asleep('a consumer that waits for more partitions than there are slots does not use up a processor', $pid);
	$s->query_ok("SELECT produce('t', 'for the group', partition => 29)");
	is($w->result // $w->error, 'for the group', '... and gets its message');
	$w->quit;
}

# More readers that wait than slots.
{
	my @w = map { session($node) } 0 .. 11;
	my @pids = map { $_->pid } @w;
	my @got;

	for my $p (0 .. 11)
	{
		my $end = $s->query_ok("SELECT log_end_offset FROM partition_status WHERE partition = $p");
		$w[$p]->send("SELECT value FROM fetch_messages('t', $p, $end, max_wait => '60 s')");
	}
	wait_until($s, "SELECT count(*) = 12 FROM pg_stat_activity WHERE state = 'active' AND query ~ 'fetch_messages' AND pid IN (" . join(', ', @pids) . ')');
	is_asleep('more readers that wait than there are slots do not keep each other awake', @pids);
	for my $p (0 .. 11)
	{
		$s->query_ok("SELECT produce('t', 'm$p', partition => $p)");
		push @got, $w[$p]->result // $w[$p]->error;
	}
	is(join(' ', @got), join(' ', map { "m$_" } 0 .. 11), '... and each gets its message');
	$_->quit for @w;
}

# --- open transactions in all slots ---

my $a = session($node);
my $b = session($node);

for my $end ('COMMIT', 'ROLLBACK', 'disconnect')
{
	$a = session($node) if !$a;
	$a->query_ok('BEGIN');
	$a->query_ok("SELECT produce('t', 'a', partition => $_)") for 0 .. 7;
	error_is($b, "SELECT produce('t', 'b', partition => 8)", '53400', qr/^ERROR:  53400: too many partitions are in use\nDETAIL:  .*\b8\b.*\nHINT:  .*pgtopic\.max_partitions/, "open transactions in all slots: who needs another gets an error with a hint");
	result_is($b, "SELECT count(*) FROM produce('t', 'b', partition => 3)", '1', '... who does not is served');
	result_is($b, "SELECT count(*) > 0 FROM fetch_messages('t', 3, 0)", 't', '... to read too');
	$b->query("SELECT count(*) FROM fetch_messages('t', 8, 0)");
	ok($b->error eq '' || $b->error =~ /53400.*max_partitions/s, '... reading elsewhere works, or says the same') or diag($b->error);
	if ($end eq 'disconnect')
	{
		$s->query_ok('SELECT pg_terminate_backend(' . $a->pid . ')');
		wait_until($s, 'SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = ' . $a->pid);
		$a->quit;
		undef $a;
	}
	else
	{
		$a->query_ok($end);
	}
	result_is($b, "SELECT count(*) FROM produce('t', 'b', partition => 8)", '1', "... after $end there is room again");
}
result_is($s, "SELECT count(*) FILTER (WHERE value = 'a'), count(*) FILTER (WHERE value = 'b') FROM generate_series(0, $PARTITIONS - 1) p, fetch_messages('t', p, 0, 100000)", '8|6', '... and what was committed is there');

# One transaction that writes to more partitions than there are slots.
$a = session($node);
$a->query_ok('BEGIN');
$a->query_ok("SELECT produce('t', 'c', partition => $_)") for 0 .. 7;
$a->query_ok('SAVEPOINT a');
error_is($a, "SELECT produce('t', 'c', partition => 8)", '53400', undef, 'the same for one transaction that needs more than all of them');
$a->query_ok('ROLLBACK TO SAVEPOINT a');
$a->query_ok("SELECT produce('t', 'c', partition => 0)");
$a->query_ok('COMMIT');
is($a->error, '', '... which can go on with those that it has');
result_is($s, "SELECT count(*) FROM generate_series(0, 8) p, fetch_messages('t', p, 0, 100000) WHERE value = 'c'", '9', '... and commit');
$_->quit for $s, $a, $b;

# --- open appends ---

$node->append_conf('postgresql.conf', "pgtopic.max_partitions = 100\npgtopic.max_open_appends = 10");
$node->restart;
($s, $a, $b) = map { session($node) } 1 .. 3;
my $too_many = qr/^ERROR:  53400: too many open appends\nDETAIL:  .*\b10\b.*\nHINT:  .*pgtopic\.max_open_appends/;

for my $end ('COMMIT', 'ROLLBACK', 'disconnect')
{
	$a = session($node) if !$a;
	$a->query_ok('BEGIN');
	$a->query_ok("SELECT produce('t', 'd', partition => $_)") for 0 .. 4;
	$a->query_ok("SELECT produce('t', 'd', partition => 0)") for 1 .. 20;
	$b->query_ok('BEGIN');
	$b->query_ok("SELECT produce('t', 'd', partition => $_)") for 0 .. 4;
	error_is($s, "SELECT produce('t', 'd', partition => 9)", '53400', $too_many, 'open appends used up: an error with a hint');
	$b->query_ok('SAVEPOINT a');
	error_is($b, "SELECT produce('t', 'd', partition => 9)", '53400', $too_many, '... for a transaction with some too');
	$b->query_ok('ROLLBACK TO SAVEPOINT a');
	$b->query_ok("SELECT produce('t', 'd', partition => 4)");
	is($b->error, '', '... which goes on where it has produced already');
	error_is($s, "SELECT produce_batch('t', ARRAY(SELECT 'd' FROM generate_series(1, 100)), ARRAY(SELECT 'key' || n FROM generate_series(1, 100) n))", '53400', $too_many, '... and for a batch');
	result_is($s, "SELECT count(*) >= 0 FROM fetch_messages('t', 9, 0)", 't', '... reading does not need any');
	if ($end eq 'disconnect')
	{
		$s->query_ok('SELECT pg_terminate_backend(' . $a->pid . ')');
		wait_until($s, 'SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = ' . $a->pid);
		$a->quit;
		undef $a;
	}
	else
	{
		$a->query_ok($end);
	}
	$s->query_ok('BEGIN');
	$s->query_ok("SELECT produce('t', 'd', partition => $_)") for 9 .. 13;
	is($s->error, '', "... after $end there is room again");
	$s->query_ok('ROLLBACK');
	$b->query_ok('COMMIT');
}

# They do not get fewer.
for my $i (1 .. 50)
{
	$s->query_ok('BEGIN');
	$s->query("SELECT produce('t', 'e', partition => n) FROM generate_series(0, 15) n");
	$s->query_ok('ROLLBACK');
}
$s->query_ok('BEGIN');
$s->query_ok("SELECT produce('t', 'e', partition => $_)") for 0 .. 9;
is($s->error, '', 'after many errors there are as many as before');
error_is($s, "SELECT produce('t', 'e', partition => 10)", '53400', $too_many, '... and not one more');
$s->query_ok('ROLLBACK');
result_is($s, "SELECT count(*) FROM partition_status WHERE high_watermark <> log_end_offset OR blocking_pid IS NOT NULL", '0', 'nothing is left open');

# --- settings that cannot be ---

$_->quit for $s, $b;
for my $setting ('pgtopic.max_partitions = 1', 'pgtopic.checkpoint_interval = 0', 'pgtopic.no_such_setting = 1')
{
	$node->stop;
	my $conf = $node->data_dir . '/postgresql.conf';
	my $before = slurp_file($conf);
	$node->append_conf('postgresql.conf', $setting);
	my $from = -s $node->logfile;
	my $started = $node->start(fail_ok => 1);
	my $said = substr(slurp_file($node->logfile), $from);
	if ($setting =~ /no_such/)
	{
		like($said, qr/invalid configuration parameter name "pgtopic.no_such_setting"/, "refused: $setting");
	}
	else
	{
		like($said, qr/outside the valid range|invalid value/, "refused: $setting");
	}
	$node->stop if $started;
	open(my $fh, '>', $conf) or die "$conf: $!";
	print $fh $before;
	close $fh;
	$node->start;
}

$node->stop;
log_is_clean($node);
done_testing();
