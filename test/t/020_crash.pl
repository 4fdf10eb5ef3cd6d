# Crashes in the middle of load: SIGKILL of a backend, immediate stop, SIGKILL of
# the postmaster.  What was acknowledged is there once, what was rolled back is
# not, whoever tailed the log has skipped nothing, groups go on where they were.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PgtopicTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $PARTITIONS = 3;
my $PRODUCERS = 4;
my $STATEMENTS = 6000;    # more than can be done before the crash

my $node = new_node('crash', conf => "restart_after_crash = on\npgtopic.checkpoint_interval = '100ms'");
my $folder = PostgreSQL::Test::Utils::tempdir;
my $s = session($node);

$s->query_ok($_) for split /;\n/, <<EOC;
SELECT create_topic('t', partitions => $PARTITIONS, segment_messages => 1000);
CREATE TABLE facts (value text PRIMARY KEY);
CREATE TABLE seen_by_a (partition int, log_offset bigint, value text, PRIMARY KEY (partition, log_offset));
CREATE TABLE seen_by_b (LIKE seen_by_a INCLUDING ALL);
EOC

# Who has produced what, as the clients know it.
my %acknowledged;    # value => "partition offset", or '' where the client does not know it
my %transaction;     # value => the other values of its transaction
my %read;            # "partition offset" => value, for all that any client has read
my %log;             # the same for what is in the log after a crash
my @numbers = (0) x $PARTITIONS;

sub write_file
{
	my ($name, $content) = @_;
	open(my $fh, '>', "$folder/$name") or die "$folder/$name: $!";
	print $fh $content;
	close $fh;
	return "$folder/$name";
}

# A producer's statements.  Each prints a line "ack VALUES..." or, where the
# values have known places, "at VALUE PARTITION OFFSET", once it is committed.
sub producer_script
{
	my ($round, $producer) = @_;
	my $script = "\\t on\n\\pset fieldsep ' '\n";

	for my $i (1 .. $STATEMENTS)
	{
		my $v = "$round:$producer:$i";
		my $kind = $i % 10;
		my $p = ($i + $producer) % $PARTITIONS;

		if ($kind < 5)
		{
			$script .= "SELECT 'at', '$v', partition, log_offset FROM produce('t', '$v', key => 'key$kind');\n";
		}
		elsif ($kind == 5)
		{
			$script .= "SELECT 'at', '$v:' || n, partition, first_offset + n - 1 FROM generate_series(1, 20) n,"
			  . " produce_batch('t', (SELECT array_agg('$v:' || n) FROM generate_series(1, 20) n), partition => $p);\n";
		}
		elsif ($kind == 6)
		{
			$script .= "BEGIN;\n";
			$script .= "DO 'BEGIN PERFORM produce(''t'', ''$v:$_'', partition => $_); END';\n" for 0 .. 2;
			$script .= "COMMIT;\n\\echo ack $v:0 $v:1 $v:2\n";
		}
		elsif ($kind == 7)
		{
			$script .= "BEGIN;\nSELECT 'never' FROM produce('t', 'never $v', partition => $p);\nROLLBACK;\n";
		}
		elsif ($kind == 8)
		{
			$script .= "BEGIN;\nSELECT FROM produce('t', '$v:a', partition => $p);\nSAVEPOINT s;\n"
			  . "SELECT FROM produce('t', 'never $v:b', partition => $p);\nROLLBACK TO SAVEPOINT s;\n"
			  . "SELECT FROM produce('t', '$v:c', partition => $p);\nCOMMIT;\n\\echo ack $v:a $v:c\n";
		}
		else
		{
			$script .= "BEGIN;\nINSERT INTO facts VALUES ('$v');\nSELECT FROM produce('t', '$v');\nCOMMIT;\n\\echo ack $v\n";
		}
		my @values = $kind == 5 ? map { "$v:$_" } 1 .. 20 : $kind == 6 ? map { "$v:$_" } 0 .. 2 : $kind == 8 ? ("$v:a", "$v:c") : ();
		$transaction{$_} = \@values for @values;
	}
	return $script;
}

# What it takes is gone for the group when the transaction commits, with its effects.
sub consumer_script
{
	my ($group, $table) = @_;
	my $take = "INSERT INTO $table SELECT partition, log_offset, value FROM consume('t', '$group', 70, max_wait => '50ms');\n";
	my $turn = ($take x 4) . "BEGIN;\n${take}ROLLBACK;\nBEGIN;\n${take}SAVEPOINT s;\n${take}ROLLBACK TO SAVEPOINT s;\nCOMMIT;\n";
	return $turn x $STATEMENTS;
}

# Follows partition 0 from where the last round ended; prints "offset value".
sub tail_script
{
	my ($from) = @_;
	return "\\set o $from\n"
	  . (("SELECT coalesce(string_agg(log_offset || ' ' || value, E'\\n'), '') AS m, coalesce(max(log_offset) + 1, :o) AS o"
		  . " FROM fetch_messages('t', 0, :o, 200, max_wait => '50ms') \\gset\n\\echo :m\n") x $STATEMENTS);
}

sub lines
{
	my ($file) = @_;
	my $text = slurp_file($file);
	# the last line may not have been written to its end
	$text =~ s/[^\n]+\z//;
	return grep { $_ ne '' } split /\n/, $text;
}

sub await_lines
{
	my ($count, @files) = @_;
	my $end = time() + $PostgreSQL::Test::Utils::timeout_default;
	while (grep { scalar(lines($_)) < $count } @files)
	{
		die "no progress in @files" if time() > $end;
		usleep(20_000);
	}
	return;
}

my $tail_from = 0;
my $round = 0;

for my $crash ('SIGKILL of a backend', 'immediate stop', 'SIGKILL of the postmaster')
{
	my (%process, %output);
	$round++;

	my $start = sub {
		my ($name, $script) = @_;
		$output{$name} = "$folder/$name$round.out";
		$process{$name} = start_writing($node, 'postgres', write_file("$name$round.sql", $script), $output{$name});
	};
	$start->("producer$_", producer_script($round, $_)) for 1 .. $PRODUCERS;
	$start->("consumer_a$_", consumer_script('a', 'seen_by_a')) for 1 .. 2;
	$start->('consumer_b', consumer_script('b', 'seen_by_b'));
	$start->('tail', tail_script($tail_from));

	await_lines(80, map { $output{"producer$_"} } 1 .. $PRODUCERS);
	# somebody is in the middle of a transaction
	my $open = session($node);
	$open->query_ok("BEGIN; SELECT produce('t', 'never open $round', partition => 1)");
	$open->query_ok("SELECT produce_batch('t', ARRAY['never', 'never'], partition => 2)");
	my $taking = session($node);
	$taking->query_ok("BEGIN; SELECT produce('t', 'never $round', partition => 0); INSERT INTO facts VALUES ('never $round')");
	await_lines(200, map { $output{"producer$_"} } 1 .. $PRODUCERS);

	# let the tail pass what was held back by $taking, so that it is in the middle of things
	$taking->query_ok('ROLLBACK');
	await_lines(scalar(lines($output{tail})) + 1, $output{tail});

	my $old_worker = worker_pid($s);
	my $running = $s->query_ok('SELECT count(*) FROM pg_stat_activity WHERE backend_type = $$client backend$$ AND pid NOT IN ('
		  . join(', ', map { $_->pid } $s, $open, $taking) . ')');
	if ($round == 1)
	{
		kill_backend($open->pid);
	}
	elsif ($round == 2)
	{
		$node->stop('immediate');
	}
	else
	{
		$node->kill9;
	}
	is($running, scalar(keys %process), "$crash: under load");

	for my $name (sort keys %process)
	{
		eval { $process{$name}->finish };
		my $errors = slurp_file("$output{$name}.err");
		unlike($errors, qr/ERROR/, "$name had no error but the loss of its connection");
	}
	$_->quit for $s, $open, $taking;

	if ($round > 1)
	{
		# children of the killed postmaster may need a moment to notice
		my $started;
		for (1 .. 100)
		{
			last if $started = $node->start(fail_ok => 1);
			usleep(100_000);
		}
		BAIL_OUT('the server does not start again') unless $started;
	}
	$node->poll_query_until('postgres', 'SELECT true') or die 'the server does not come back';
	$s = session($node);
	await_workers($s, 'workers come back');
	isnt(worker_pid($s), $old_worker, '... as new processes') if $old_worker ne '';

	# the clients' view
	my @tail;
	for my $n (1 .. $PRODUCERS)
	{
		for my $line (lines($output{"producer$n"}))
		{
			if ($line =~ /^at (\S+) (\d+) (\d+)$/) { $acknowledged{$1} = "$2 $3"; }
			elsif ($line =~ /^ack (.*)$/) { $acknowledged{$_} //= '' for split / /, $1; }
			elsif ($line ne 'never') { die "unexpected line: $line"; }
		}
	}
	for my $line (lines($output{tail}))
	{
		$line =~ /^(\d+) (.*)$/ or die "unexpected line: $line";
		push @tail, $1;
		$read{"0 $1"} = $2;
	}
	ok(@tail > 0, 'the tail has read something: ' . @tail . ' messages');
	note scalar(keys %acknowledged) . ' messages are acknowledged';

	# the server's view
	my (%count, @offsets);
	%log = ();
	for my $p (0 .. $PARTITIONS - 1)
	{
		for (split /\n/, $s->query_ok("SELECT log_offset || ' ' || value FROM fetch_messages('t', $p, 0, 10000000)"))
		{
			my ($offset, $value) = split / /, $_, 2;
			$log{"$p $offset"} = $value;
			$count{$value}++;
			push @{ $offsets[$p] }, $offset;
		}
	}

	my @lost = grep { !$count{$_} } keys %acknowledged;
	is(scalar(@lost), 0, 'no acknowledged message is lost') or diag("@lost");
	my @twice = grep { $count{$_} > 1 } keys %count;
	is(scalar(@twice), 0, 'no message is there twice') or diag("@twice");
	my @never = grep { /never/ } keys %count;
	is(scalar(@never), 0, 'nothing is there of what was rolled back or open') or diag("@never");
	my @moved = grep { $acknowledged{$_} ne '' && ($log{ $acknowledged{$_} } // '') ne $_ } keys %acknowledged;
	is(scalar(@moved), 0, 'messages are where the producers were told') or diag("@moved");
	my @halves = grep { !$count{$_} } map { @{ $transaction{$_} // [] } } keys %count;
	is(scalar(@halves), 0, 'transactions are there whole or not at all') or diag("@halves");
	my %unknown;
	for my $value (grep { !exists $acknowledged{$_} } keys %count)
	{
		$value =~ /^(\d+:\d+):(\d+)/ or next;
		$unknown{$1}{$2} = 1;
	}
	my @more = grep { keys %{ $unknown{$_} } > 1 } keys %unknown;
	is(scalar(@more), 0, 'no producer has more than its last transaction unacknowledged') or diag("@more");

	my @vanished = grep { ($log{$_} // '') ne $read{$_} } keys %read;
	is(scalar(@vanished), 0, 'whatever was read once is still there') or diag("@vanished");
	my %by_tail = map { $_ => 1 } @tail;
	my @skipped = grep { $_ >= $tail_from && $_ <= $tail[-1] && !$by_tail{$_} } @{ $offsets[0] };
	is(scalar(@skipped), 0, 'the tail has skipped nothing') or diag("@skipped");
	is(join(' ', @tail), join(' ', sort { $a <=> $b } @tail), '... and read in order');
	$tail_from = $tail[-1] + 1;

	result_is($s, q{SELECT count(*) FROM facts WHERE value LIKE 'never%'}, '0', 'rows go with their messages: none of what was open');
	my %fact = map { $_ => 1 } split /\n/, $s->query_ok('SELECT value FROM facts');
	my @alone = grep { !$count{$_} } keys %fact;
	push @alone, grep { /^\d+:\d+:\d*9$/ && !$fact{$_} } keys %count;
	is(scalar(@alone), 0, '... and no row without its message, nor the other way round') or diag("@alone");

	# it goes on: with offsets that nobody has seen
	for my $p (0 .. $PARTITIONS - 1)
	{
		my $offset = $s->query_ok("SELECT log_offset FROM produce('t', 'after $round $p', partition => $p)");
		my ($highest) = sort { $b <=> $a } map { /^$p (\d+)$/ ? $1 : () } values %acknowledged, keys %read, keys %log;
		cmp_ok($offset, '>', $highest, "partition $p goes on after the highest offset that anybody has seen");
		$log{"$p $offset"} = "after $round $p";
	}

	# the groups have what they have, and get the rest
	for my $group (qw(a b))
	{
		my $before = $s->query_ok("SELECT count(*) FROM seen_by_$group");
		1 while $s->query_ok("WITH m AS (INSERT INTO seen_by_$group SELECT partition, log_offset, value"
			  . " FROM consume('t', '$group', 100000) RETURNING 1) SELECT count(*) FROM m") > 0;
		my %seen = map { /^(\d+ \d+) (.*)$/ } split /\n/, $s->query_ok("SELECT partition || ' ' || log_offset || ' ' || value FROM seen_by_$group");
		my @differ = grep { ($seen{$_} // '') ne ($log{$_} // '') } keys %{ { %seen, %log } };
		is(scalar(@differ), 0, "group $group has effects of each message once") or diag("@differ");
		ok($before > 0, "... $before of " . keys(%seen) . ' before the crash');
		result_is($s, "SELECT sum(lag) FROM consumer_group_status WHERE consumer_group = '$group'", '0', '... and has no lag');
		%read = (%read, %seen);
	}
}

# --- with wal_level = minimal, what is made and filled in one transaction is not in the WAL ---

is($s->query_ok('SHOW wal_level'), 'minimal', 'wal_level is minimal');
$s->query_ok("BEGIN; SELECT create_topic('new'); SELECT produce_batch('new', ARRAY['a', 'b']); SELECT produce('new', repeat('x', 100000)); COMMIT");
$s->query_ok("SELECT create_topic('newer')");
$s->query_ok("SELECT produce('newer', 'c')");
my $ids = $s->query_ok("SELECT string_agg(id::text, ' ' ORDER BY id) FROM pgtopic.topic");
$node->stop('immediate');
$node->start;
$s->quit;
$s = session($node);
result_is($s, "SELECT left(value, 3) FROM fetch_messages('new', 0, 0)", "a\nb\nxxx", 'a topic made and filled in one transaction survives');
result_is($s, "SELECT value, log_offset FROM fetch_messages('newer', 0, 0)", 'c|0', '... and one made just before');
result_is($s, "SELECT log_offset FROM produce('new', 'd')", '3', '... and goes on');
result_is($s, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM pgtopic.topic", $ids, 'no topic is lost');
$s->query_ok("SELECT create_topic('newest')");
result_is($s, "SELECT log_offset FROM produce('newest', 'e')", '0', 'a topic that is made after the crash is a new one');

# --- SIGKILL of the workers: the server begins anew, and so do they ---

for my $worker ('maintenance', 'launcher')
{
	my ($launcher, $pid) = ($s->query_ok("SELECT pid FROM worker_status WHERE worker = 'launcher'"), worker_pid($s));
	my $open = session($node);

	$open->query_ok("BEGIN; SELECT produce('t', 'never $worker', partition => 0)");
	my $end = $s->query_ok("SELECT log_offset FROM produce('t', 'before the end of the $worker', partition => 0)");
	kill_backend($worker eq 'launcher' ? $launcher : $pid);
	# the session ends when the server does
	$open->query('SELECT pg_sleep(60)');
	isnt($open->error, '', "SIGKILL of the $worker: the server begins anew");
	$_->quit for $s, $open;
	$node->poll_query_until('postgres', 'SELECT true') or die 'the server does not come back';
	$s = session($node);
	await_workers($s, '... and so do the workers');
	result_is($s, "SELECT worker, pid IN ($launcher, $pid) FROM worker_status ORDER BY worker", "launcher|f\nmaintenance|f", '... as new processes');
	result_is($s, "SELECT value FROM fetch_messages('t', 0, $end)", "before the end of the $worker", '... what was committed is there');
	cmp_ok($s->query_ok("SELECT log_offset FROM produce('t', 'x', partition => 0)"), '>', $end, '... and the log goes on');
}

$s->quit;
$node->stop;
log_is_clean($node, crash => 1);
done_testing();
