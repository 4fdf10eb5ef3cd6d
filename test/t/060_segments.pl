# Segments ahead of the producers: made by the worker, waited for, and never in
# the way of anybody.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PgtopicTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('segments', conf => "max_locks_per_transaction = 256");
my $folder = PostgreSQL::Test::Utils::tempdir;
my $s = session($node);

sub segments_of
{
	my ($topic) = @_;
	return "SELECT string_agg(from_offset || '-' || to_offset, ' ' ORDER BY from_offset) FROM segment_status WHERE topic = '$topic'";
}

# Every offset once, in the segment whose range its batch ends in.
sub is_whole
{
	my ($topic, $count, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	result_is($s, "SELECT count(*), count(DISTINCT log_offset), min(log_offset), max(log_offset) FROM fetch_messages('$topic', 0, 0, 10000000)",
		"$count|$count|0|" . ($count - 1), $name);
	my $id = $s->query_ok("SELECT '$topic'::topic::int");
	result_is($s, "SELECT count(*) FROM pgtopic.t$id JOIN segment_status s ON s.segment = t$id.tableoid::regclass"
		  . " WHERE last_offset < from_offset OR last_offset >= to_offset OR s.topic <> '$topic'", '0', '... each batch in the segment where it ends');
	return;
}

# --- two segments ahead ---

$s->query_ok("SELECT create_topic('t', segment_messages => 1000)");
result_is($s, segments_of('t'), '0-1000 1000-2000', 'a new topic has two segments');
$s->query_ok("SELECT produce('t', 'x')");
wait_until($s, segments_of('t'), 'one that is written to has two more', '0-1000 1000-2000 2000-3000');
$s->query_ok("SELECT produce_batch('t', ARRAY(SELECT 'x' FROM generate_series(1, 1500)))");
wait_until($s, segments_of('t'), '... and goes on having them', '0-1000 1000-2000 2000-3000 3000-4000');
result_is($s, "SELECT segments FROM partition_status WHERE topic = 't'", '4', 'partition_status counts them');
result_is($s, "SELECT sum(messages), count(max_timestamp) FROM segment_status WHERE topic = 't'", '1501|2', 'segment_status counts their messages');

# --- a long run of single messages and batches, by several producers ---

{
	$s->query_ok("SELECT create_topic('run', segment_messages => 1000)");
	my @run;
	my $total = 0;
	for my $n (1 .. 3)
	{
		my $script = '';
		for my $i (1 .. 60)
		{
			my $size = (1, 7, 150, 999, 1000, 1001, 60)[ ($i + $n) % 7 ];
			$script .= "SELECT count(*) FROM produce_batch('run', ARRAY(SELECT '$n-$i' FROM generate_series(1, $size)));\n";
			$script .= "SELECT count(*) FROM produce('run', '$n-$i');\n" x 20;
			$total += $size + 20;
		}
		append_to_file("$folder/run$n.sql", $script);
		push @run, start_writing($node, 'postgres', "$folder/run$n.sql", "$folder/run$n.out");
	}
	for my $n (1 .. 3)
	{
		$run[ $n - 1 ]->finish;
		is(slurp_file("$folder/run$n.out.err"), '', "producer $n had no error");
	}
	cmp_ok($total, '>', 50_000, "$total messages by three producers, into " . int($total / 1000) . ' segments');
	is_whole('run', $total, '... are all there');
}

# --- one call that needs a hundred segments ---

{
	$s->query_ok("SELECT create_topic('huge', segment_messages => 1000)");
	my $before = time();
	result_is($s, "SELECT * FROM produce_batch('huge', ARRAY(SELECT 'x' || n FROM generate_series(1, 100000) n))", '0|0|99999', 'one call of 100000 messages, into 100 segments');
	note sprintf('took %.1f s', time() - $before);
	is_whole('huge', 100_000, '... which are all there');
	result_is($s, "SELECT count(*) FROM segment_status WHERE topic = 'huge' AND messages > 0", '100', '... in 100 segments');
	result_is($s, "SELECT value FROM fetch_messages('huge', 0, 77777, 1)", 'x77778', '... in order');
	$s->query_ok("SELECT produce('huge', 'y')");
	wait_until($s, "SELECT max(to_offset) = 103000 FROM segment_status WHERE topic = 'huge'", '... with two ahead again');

	# in one transaction with the topic, nobody else can make them
	$s->query_ok("BEGIN; SELECT create_topic('own', segment_messages => 1000); SELECT produce_batch('own', ARRAY(SELECT 'x' FROM generate_series(1, 10500))); SELECT produce('own', 'y'); COMMIT");
	is_whole('own', 10_501, 'a topic is made and filled in one transaction');
	$s->query_ok("SELECT produce_batch('own', ARRAY(SELECT 'x' FROM generate_series(1, 10500)))");
	is_whole('own', 21_001, '... and goes on');
	$s->query_ok("BEGIN; SELECT create_topic('rolled', segment_messages => 1000); SELECT produce_batch('rolled', ARRAY(SELECT 'x' FROM generate_series(1, 10500))); ROLLBACK");
	result_is($s, "SELECT count(*) FROM pg_class WHERE relname ~ ('^t' || ('own'::topic::int + 1) || '_?')", '0', '... or rolled back with all of them');
	$s->query_ok("BEGIN; SELECT create_topic('sub', segment_messages => 1000); SAVEPOINT a; SELECT produce_batch('sub', ARRAY(SELECT 'x' FROM generate_series(1, 5500))); ROLLBACK TO a");
	$s->query("SELECT produce_batch('sub', ARRAY(SELECT 'y' FROM generate_series(1, 1500))); COMMIT");
	is($s->error, '', 'segments made in a savepoint that is rolled back are not counted on');
	$s->query('ROLLBACK');
}

# --- an option that changes ---

$s->query_ok("SELECT alter_topic('t', 'segment_messages', '5000')");
$s->query_ok("SELECT produce_batch('t', ARRAY(SELECT 'x' FROM generate_series(1, 4000)))");
wait_until($s, "SELECT count(*) FILTER (WHERE to_offset - from_offset = 5000) >= 2 FROM segment_status WHERE topic = 't'", 'segments to come have the new size');
is_whole('t', 5501, '... and all is there');

# --- somebody is in the worker's way ---

$s->query_ok("SELECT create_topic('blocked', partitions => 2, segment_messages => 1000)");
$s->query_ok("SELECT create_topic('free', segment_messages => 1000)");
$s->query_ok("SELECT produce('blocked', 'x', partition => p) FROM generate_series(0, 1) p");
$s->query_ok("SELECT produce('free', 'x')");
wait_until($s, "SELECT count(*) = 9 FROM segment_status WHERE topic IN ('blocked', 'free')");
my $id = $s->query_ok("SELECT 'blocked'::topic::int");
my $blocker = session($node);
my $blocked_since = time();
$blocker->query_ok("BEGIN; LOCK TABLE ONLY pgtopic.t${id}_p0 IN SHARE UPDATE EXCLUSIVE MODE");

result_is($s, "SELECT count(*) FROM produce_batch('blocked', ARRAY(SELECT 'x' FROM generate_series(1, 2500)), partition => 0)", '1', 'with the worker blocked, the segments ahead are used up');
my $p = session($node);
$p->query_ok("SET pgtopic.segment_wait_timeout = '1500ms'");
my $before = time();
error_is($p, "SELECT produce_batch('blocked', ARRAY(SELECT 'x' FROM generate_series(1, 1000)), partition => 0)", '55000',
	qr/topic "blocked" has no segment for the next 1000 messages of partition 0\nDETAIL:  .*1500 ms.*\nHINT:  .*worker_status.*pgtopic\.segment_wait_timeout/,
	'... then a producer gets the documented error');
my $took = time() - $before;
ok($took >= 1.5 && $took < 30, '... after the time that is set') or diag("after $took s");
result_is($s, "SELECT log_end_offset, high_watermark FROM partition_status WHERE topic = 'blocked' AND partition = 0", '2501|2501', '... which has taken no offset');
result_is($p, "SELECT count(*) FROM produce('blocked', 'fits', partition => 0)", '1', '... what still fits goes in');

# nobody else is hurt
$before = time();
result_is($p, "SELECT count(*) FROM produce_batch('blocked', ARRAY(SELECT 'x' FROM generate_series(1, 6000)), partition => 1)", '1', 'the other partition of that topic gets its segments');
result_is($p, "SELECT count(*) FROM produce_batch('free', ARRAY(SELECT 'x' FROM generate_series(1, 6000)))", '1', '... and so does another topic');
$took = time() - $before;
ok($took < 15, '... in time') or diag("took $took s");
result_is($s, "SELECT count(*) FROM fetch_messages('blocked', 0, 0, 10000)", '2502', 'readers are not in the least disturbed');
wait_until($s, "SELECT last_error ~ 'blocked|topic $id' FROM worker_status WHERE worker = 'maintenance'", 'worker_status tells where the worker is stuck');
like($s->query_ok("SELECT last_error FROM worker_status WHERE worker = 'maintenance'"), qr/making (a )?segment.*"blocked".*lock timeout/, '... by name, and by what');

# a producer that waits shows it, can be cancelled, and goes on when the way is free
$p->query_ok("SET pgtopic.segment_wait_timeout = '5min'");
my $large = "SELECT * FROM produce_batch('blocked', ARRAY(SELECT 'x' FROM generate_series(1, 3000)), partition => 0)";
$p->send($large);
await_waiting($s, $p, 'PgtopicSegment');
ok(1, 'pg_stat_activity tells what a producer waits for');
$s->query_ok('SELECT pg_cancel_backend(' . $p->pid . ')');
$p->result;
error_came($p, '57014', undef, '... and it can be cancelled');
$p->query_ok("SET statement_timeout = '300ms'");
error_is($p, $large, '57014', undef, '... or end by statement_timeout');
$p->query_ok('RESET statement_timeout');
$p->send($large);
await_waiting($s, $p, 'PgtopicSegment');
my $single = session($node);
result_is($single, "SELECT log_offset FROM produce('blocked', 'x', partition => 0)", '2502', 'others who need less do not wait for it');
$blocker->query_ok('COMMIT');
my @said = slurp_file($node->logfile) =~ /while making.*lock timeout/g;
cmp_ok(scalar(@said), '<=', 5 + 2 * (time() - $blocked_since), 'the log tells of the blocked worker, and not ten times a second');
is($p->result, '0|2503|5502', 'it goes on when the way is free');
wait_until($s, "SELECT max(to_offset) >= 7000 FROM segment_status WHERE topic = 'blocked' AND partition = 0", '... and there are segments ahead again');

# --- locks that are usual ---

# A dump, a reader of the storage, VACUUM and a long producer lock what they use;
# segments are made all the same.
$blocker->query_ok("BEGIN; LOCK TABLE pgtopic.t${id} IN ACCESS SHARE MODE; SELECT count(*) FROM pgtopic.t${id}; SELECT produce('blocked', 'x', partition => 0)");
$p->query_ok("SET pgtopic.segment_wait_timeout = '20s'");
result_is($p, "SELECT count(*) FROM produce_batch('blocked', ARRAY(SELECT 'x' FROM generate_series(1, 5000)), partition => 0)", '1', 'a dump and an open producer do not keep segments from being made');
$blocker->query_ok('ROLLBACK');

# Readers and producers do not notice that a segment is attached: a long reader in the
# worker's transaction would show as a wait.
$blocker->query_ok("BEGIN; LOCK TABLE ONLY pgtopic.t${id}_p0 IN SHARE UPDATE EXCLUSIVE MODE");
$p->send("SELECT count(*) FROM produce_batch('blocked', ARRAY(SELECT 'x' FROM generate_series(1, 9000)), partition => 0)");
await_waiting($s, $p, 'PgtopicSegment');
$s->query_ok("SET statement_timeout = '5s'");
for my $turn (1 .. 30)
{
	# the worker is in the queue for the lock most of the time
	$s->query_ok("SELECT count(*) FROM fetch_messages('blocked', 0, 0)");
	$s->query_ok("SELECT count(*) FROM consume('blocked', 'g')");
	$s->query_ok("SELECT count(*) FROM produce('blocked', 'x', partition => 0)");
}
ok(1, 'nobody queues behind a worker that waits for a lock');
$s->query_ok('RESET statement_timeout');
$blocker->query_ok('COMMIT');
is($p->result, '1', '... and it goes on');

# --- the worker is not there ---

{
	# a worker that cannot start: its database forbids it
	my $pid = worker_pid($s);
	$s->query_ok("SELECT pg_terminate_backend($pid)");
	result_is($p, "SELECT count(*) FROM produce_batch('free', ARRAY(SELECT 'x' FROM generate_series(1, 6000)))", '1', 'a producer that needs the worker has it started');
	isnt(worker_pid($s), $pid, '... anew');
	is_whole('free', 12_001, '... and all is there');
}

# --- a producer in a long transaction, and one that is rolled back ---

$p->query_ok("BEGIN; SELECT produce_batch('free', ARRAY(SELECT 'x' FROM generate_series(1, 6000)))");
$p->query_ok("SELECT produce_batch('free', ARRAY(SELECT 'x' FROM generate_series(1, 6000))); ROLLBACK");
result_is($s, "SELECT log_end_offset, high_watermark FROM partition_status WHERE topic = 'free'", '24001|24001', 'a rollback of many segments leaves a gap');
result_is($s, "SELECT log_offset FROM produce('free', 'y')", '24001', '... the log goes on behind');
result_is($s, "SELECT value, log_offset FROM fetch_messages('free', 0, 12001, max_wait => '10s')", 'y|24001', '... and readers go over it');

$_->quit for $s, $p, $blocker, $single;
$node->stop;
log_is_clean($node, allow => [ qr/failed while making (a )?segment.*lock timeout/ ]);
done_testing();
