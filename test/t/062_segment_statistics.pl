# Statistics of complete segments: exact, there soon, gone with the segments, and in
# nobody's way.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgtopicTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('statistics', conf => <<'EOC');
pgtopic.retention_check_interval = '100ms'
pgtopic.checkpoint_interval = '100ms'
max_locks_per_transaction = 256
EOC
our $s = session($node);

sub batch
{
	my ($topic, $count, %param) = @_;
	my $timestamps = $param{timestamp} ? ", timestamps => ARRAY(SELECT timestamptz '$param{timestamp}' FROM generate_series(1, $count))" : '';
	my $partition = $param{partition} // 0;
	$s->query_ok("SELECT count(*) FROM produce_batch('$topic', ARRAY(SELECT 'v' || n FROM generate_series(1, $count) n), partition => $partition$timestamps)");
	return;
}

sub id { return $s->query_ok("SELECT id FROM pgtopic.topic WHERE name = '$_[0]'"); }

# Which segments have statistics.
sub segments_of
{
	my ($topic, $partition) = @_;
	$partition //= 0;
	return "SELECT string_agg(from_offset || '-' || to_offset, ' ' ORDER BY from_offset) FROM pgtopic.segment_statistics"
	  . " WHERE topic_id = (SELECT id FROM pgtopic.topic WHERE name = '$topic') AND partition = $partition";
}

sub agree
{
	my ($topic, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return wait_until($s, recount_statistics($topic, id($topic)), $name, '');
}

# --- which segments, and what of them ---

$s->query_ok("SELECT create_topic('t', segment_messages => 1000, partitions => 2, retention => NULL)");
batch('t', 999);
$s->query_ok("SELECT produce('t', 'in the other', partition => 1)");
wait_until($s, "SELECT high_watermark FROM pgtopic.partition WHERE topic_id = 't'::topic::int AND partition = 0", undef, '999');
result_is($s, segments_of('t'), '', 'a segment that is not full has no statistics');
$s->query_ok("SELECT produce('t', 'the last one of the segment', partition => 0)");
wait_until($s, segments_of('t'), '... one that is has', '0-1000');
agree('t', '... which are exact');

# a batch is where it ends
batch('t', 2300);
wait_until($s, segments_of('t'), 'segments in the middle of a batch', '0-1000 1000-2000 2000-3000');
agree('t', '... too');
result_is($s, segments_of('t', 1), '', '... nothing of the other partition');
result_is($s, "SELECT sum(messages) = max(c) FROM pgtopic.segment_statistics s, (SELECT sum(last_offset - base_offset + 1) AS c FROM pgtopic.t" . id('t') . "_p0 WHERE last_offset < 3000) x WHERE topic_id = 't'::topic::int", 't', '... they add up');

# an open transaction
my $o = session($node);
$o->query_ok("BEGIN; SELECT produce('t', 'open', partition => 0)");
batch('t', 1500);
batch('t', 1000, partition => 1);
wait_until($s, segments_of('t', 1), 'what is behind an open transaction is not complete', '0-1000');
result_is($s, segments_of('t'), '0-1000 1000-2000 2000-3000', '... however much is there');
$o->query_ok('ROLLBACK');
wait_until($s, segments_of('t'), '... until that has ended', '0-1000 1000-2000 2000-3000 3000-4000');
agree('t', '... with what was rolled back not counted');

# gaps
$s->query_ok("SELECT create_topic('gaps', segment_messages => 1000, retention => NULL)");
for my $turn (1 .. 5)
{
	batch('gaps', 100);
	$s->query_ok("BEGIN; SELECT count(*) FROM produce_batch('gaps', ARRAY(SELECT 'x' FROM generate_series(1, 137))); ROLLBACK");
	$s->query_ok("BEGIN; SAVEPOINT a; SELECT produce('gaps', 'x'); ROLLBACK TO a; SELECT produce('gaps', 'y'); COMMIT");
}
$s->query_ok("BEGIN; SELECT count(*) FROM produce_batch('gaps', ARRAY(SELECT 'x' FROM generate_series(1, 3000))); ROLLBACK");
$s->query_ok("SELECT produce('gaps', 'z')");
wait_until($s, segments_of('gaps'), 'a log with gaps', '0-1000 1000-2000 2000-3000 3000-4000');
agree('gaps', '... has exact numbers of messages');
result_is($s, "SELECT sum(messages) FROM pgtopic.segment_statistics WHERE topic_id = 'gaps'::topic::int", '505', '... 505 in all');
result_is($s, "SELECT count(*) FROM pgtopic.segment_statistics WHERE topic_id = 'gaps'::topic::int AND messages = 0 AND batches = 0 AND min_timestamp IS NULL AND max_timestamp IS NULL", '2', '... and none where there are none');

# --- timestamps ---

$s->query_ok("SELECT create_topic('times', segment_messages => 1000, retention => NULL)");
batch('times', 500, timestamp => '2024-05-05 05:05:05.123456+00');
$s->query_ok("SELECT produce('times', 'x', \"timestamp\" => t) FROM unnest('{2021-01-01 UTC,2019-03-03 03:03:03.000001 UTC,2023-01-01 UTC}'::timestamptz[]) t");
batch('times', 497, timestamp => '2022-01-01 UTC');
$s->query_ok("SELECT count(*) FROM produce_batch('times', ARRAY(SELECT 'x' FROM generate_series(1, 1000)), timestamps => ARRAY(SELECT timestamptz '2001-01-01 UTC' + n * interval '7 days' * (CASE n % 2 WHEN 0 THEN -1 ELSE 1 END) FROM generate_series(1, 1000) n))");
batch('times', 500, timestamp => '0044-03-15 BC');
batch('times', 500, timestamp => '294000-12-31 23:59:59.999999');
$s->query_ok("SELECT count(*) FROM produce_batch('times', ARRAY(SELECT repeat('x', 5000) FROM generate_series(1, 1000)), timestamps => ARRAY(SELECT timestamptz '2030-01-01 UTC' - n * interval '1 day' FROM generate_series(1, 1000) n))");
wait_until($s, segments_of('times'), 'timestamps in no order', '0-1000 1000-2000 2000-3000 3000-4000');
agree('times', '... the oldest and the newest of each segment');
$s->query_ok("SET timezone = 'UTC'");
result_is($s, "SELECT min_timestamp, max_timestamp FROM pgtopic.segment_statistics WHERE topic_id = 'times'::topic::int AND from_offset = 0", '2019-03-03 03:03:03.000001+00|2024-05-05 05:05:05.123456+00', '... to the microsecond');
$s->query_ok('RESET timezone');

# Queries pass over segments that are too old, and over nothing else.
$s->query_ok(<<'EOF');
CREATE FUNCTION skipped(query text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE plan json;
BEGIN
    EXECUTE 'EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) ' || query INTO plan;
    RETURN (plan #>> '{0,Plan,Segments Skipped}')::int;
END $$
EOF
my %skipped = ('-infinity' => 0, '2015-01-01 UTC' => 0, '2020-06-01 UTC' => 1, '2024-05-05 05:05:05.123456+00' => 1, '2024-05-05 05:05:05.123457+00' => 2, '2031-01-01 UTC' => 3);
for my $since (sort keys %skipped)
{
	for my $order ('', 'ORDER BY log_offset', 'ORDER BY log_offset DESC')
	{
		my $query = "SELECT log_offset FROM topics.times WHERE \"timestamp\" >= '$since' $order";
		result_is($s, "SELECT skipped(\$q\$$query\$q\$)", $skipped{$since}, "segments that are older than $since are passed over $order");
		result_is($s, "SELECT count(*), sum(log_offset) FROM ($query) q", $s->query_ok("SELECT count(*), sum(log_offset) FROM fetch_messages('times', 0, 0, 100000) WHERE timestamp >= '$since'"),
			'... and nothing that is not');
	}
}

# The planner's estimates begin where the last segment that has messages ends.
$s->query_ok(<<'EOF');
CREATE FUNCTION expected(query text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE plan json;
BEGIN
    EXECUTE 'EXPLAIN (FORMAT JSON) ' || query INTO plan;
    RETURN (plan #>> '{0,Plan,Plan Rows}')::int;
END $$
EOF
sub expected { return $s->query_ok("SELECT expected(\$q\$SELECT * FROM topics.$_[0] WHERE \"timestamp\" >= '$_[1]'\$q\$)"); }

$s->query_ok("SELECT create_topic('estimated', segment_messages => 1000, retention => NULL)");
batch('estimated', 900, timestamp => '2020-01-01 UTC');
$s->query_ok("BEGIN; SELECT count(*) FROM produce_batch('estimated', ARRAY(SELECT 'x' FROM generate_series(1, 1100))); ROLLBACK");
batch('estimated', 500);
wait_until($s, segments_of('estimated'), 'the last complete segment is empty', '0-1000 1000-2000');
agree('estimated');
is(expected('estimated', '2020-01-01 UTC'), 2500, '... what comes after it, with the offsets that are lost, counts');
is(expected('estimated', 'infinity'), 1, '... unless it is too old');
my $half = $s->query_ok("SELECT timestamptz '2020-01-01 UTC' + (now() - timestamptz '2020-01-01 UTC') / 2");
cmp_ok(abs(expected('estimated', $half) - 800), '<', 10, '... evenly from the last message before it to now');
# segments that are as long as can be
$s->query_ok("SELECT create_topic('long', segment_messages => 1000, retention => NULL)");
batch('long', 500, timestamp => '4714-11-24 UTC BC');
batch('long', 500, timestamp => '294276-12-31 UTC');
batch('long', 500, timestamp => '294276-12-31 UTC');
wait_until($s, segments_of('long'), 'a segment of all times that there are', '0-1000');
cmp_ok(expected('long', '2020-01-01 UTC'), '>', 1400, '... has messages of later times');

# --- a restart ---

# xmin tells whether a row has been written again
my $rows = "SELECT string_agg(xmin || ' ' || s::text, ' ' ORDER BY topic_id, partition, from_offset) FROM pgtopic.segment_statistics s WHERE NOT (topic_id = 't'::topic::int AND partition = 1)";
my $before = $s->query_ok($rows);
my $complete = 1;
for my $how ('fast', 'immediate')
{
	$node->stop($how);
	$node->start;
	$_->quit for $s, $o;
	($s, $o) = (session($node), session($node));
	batch('t', 1000, partition => 1);
	$complete++;
	wait_until($s, "SELECT count(*) FROM pgtopic.segment_statistics WHERE topic_id = 't'::topic::int AND partition = 1", "after a restart ($how) it goes on", $complete);
	# all the others have been looked at
	$s->query_ok("SELECT create_topic('marker$how', retention => '1 ms')");
	$s->query_ok("SELECT produce('marker$how', 'x')");
	wait_until($s, "SELECT log_start_offset FROM partition_status WHERE topic = 'marker$how'", undef, '1');
	result_is($s, $rows, $before, '... nothing has been lost, or computed again');
}
agree($_) for 't', 'gaps', 'times';

# --- the worker was not there, and rows are missing ---

$s->query_ok("DELETE FROM pgtopic.segment_statistics WHERE topic_id = 't'::topic::int");
wait_until($s, segments_of('t'), 'what is missing is found', '0-1000 1000-2000 2000-3000 3000-4000');
agree('t', '... and computed again');

# --- retention and delete_messages() ---

my $id = id('t');
my $in_segment = "SELECT messages FROM pgtopic.segment_statistics WHERE topic_id = $id AND partition = 0 AND from_offset = 1000";
my $messages = $s->query_ok($in_segment);
my $first = $s->query_ok("SELECT min(last_offset) FROM pgtopic.t${id}_p0 WHERE last_offset >= 1000");
$s->query_ok("SELECT delete_messages('t', 0, $first + 1)");
wait_until($s, segments_of('t'), 'a segment that is dropped has no statistics any more', '1000-2000 2000-3000 3000-4000');
wait_until($s, "SELECT count(*) FROM pgtopic.t${id}_p0 WHERE last_offset <= $first", undef, '0');
agree('t', '... of one that loses messages they are right');
cmp_ok($s->query_ok($in_segment), '<', $messages, '... that is, less');
$s->query_ok("SELECT delete_messages('t', 0, 3500)");
wait_until($s, segments_of('t'), '... and so on', '3000-4000');
wait_until($s, "SELECT count(*) FROM pgtopic.t${id}_p0 WHERE last_offset < 3500", undef, '0');
agree('t');

$s->query_ok("SELECT create_topic('expires', segment_messages => 1000, retention => NULL)");
batch('expires', 2500, timestamp => '2020-01-01');
wait_until($s, segments_of('expires'), undef, '0-1000 1000-2000');
$s->query_ok("SELECT alter_topic('expires', 'retention', '1 hour')");
wait_until($s, "SELECT min(from_offset) FROM segment_status WHERE topic = 'expires'", undef, '2000');
result_is($s, segments_of('expires'), '', 'what expires has none');
batch('expires', 1000);
wait_until($s, segments_of('expires'), '... and what comes has', '2000-3000');
agree('expires');

# the log start in a segment that is not complete yet
$s->query_ok("SELECT create_topic('early', segment_messages => 1000, retention => NULL)");
batch('early', 900);
$s->query_ok("SELECT delete_messages('early', 0, 500)");
$id = id('early');
wait_until($s, "SELECT count(*) FROM pgtopic.t${id}_p0 WHERE last_offset < 500", undef, '0');
batch('early', 200);
wait_until($s, segments_of('early'), 'messages are deleted before the segment is complete', '0-1000');
agree('early');

# --- somebody is in the way ---

$s->query_ok("SELECT create_topic('blocked', segment_messages => 1000, retention => NULL)");
$s->query_ok("SELECT produce('blocked', 'x')");
$id = id('blocked');
wait_until($s, "SELECT count(*) FROM segment_status WHERE topic = 'blocked'", undef, '3');
for my $table ("t${id}_p0_s0", "t$id")
{
	my ($last) = $s->query_ok("SELECT log_end_offset / 1000 FROM partition_status WHERE topic = 'blocked'");
	batch('blocked', 500);
	wait_until($s, "SELECT high_watermark = 1000 * $last + 501 FROM pgtopic.partition WHERE topic_id = $id");
	$o->query_ok("BEGIN; LOCK TABLE ONLY pgtopic.t$id IN ACCESS SHARE MODE; SELECT produce_batch('blocked', ARRAY(SELECT 'x' FROM generate_series(1, 1000))); LOCK TABLE ONLY pgtopic.$table IN ACCESS EXCLUSIVE MODE");
	batch('times', 1000);
	my $times = $s->query_ok("SELECT max(to_offset) FROM segment_status JOIN pgtopic.partition p ON p.topic_id = topic::int AND p.partition = 0 WHERE topic = 'times' AND to_offset <= (SELECT high_watermark FROM partition_status WHERE topic = 'times')");
	wait_until($s, "SELECT max(to_offset) = $times FROM pgtopic.segment_statistics WHERE topic_id = 'times'::topic::int", "$table is locked: other topics get their statistics");
	result_is($s, "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 'pgtopic maintenance' AND NOT l.granted", '0', '... the worker does not wait');
	$o->query_ok('COMMIT');
	$last++;
	wait_until($s, "SELECT max(to_offset) >= 1000 * $last FROM pgtopic.segment_statistics WHERE topic_id = $id", '... and afterwards this one');
	agree('blocked');
}

# Statistics that are being computed are given up for who wants to drop the topic.
$s->query_ok("SELECT create_topic('large', segment_messages => 200000, retention => NULL)");
$id = id('large');
$s->query_ok("SELECT count(*) FROM produce_batch('large', ARRAY(SELECT repeat('x', 300) FROM generate_series(1, 200000)))");
wait_until($s, "SELECT EXISTS (SELECT FROM worker_status WHERE doing ~ 'computing statistics.*\"large\"') OR EXISTS (SELECT FROM pgtopic.segment_statistics WHERE topic_id = $id)");
$s->query_ok("SET statement_timeout = '10s'; SELECT drop_topic('large'); RESET statement_timeout");
result_is($s, "SELECT count(*) FROM pgtopic.segment_statistics WHERE topic_id = $id", '0', 'a topic is dropped whose statistics are being computed');

# --- topics that go ---

$id = id('gaps');
$s->query_ok("SELECT drop_topic('gaps')");
result_is($s, "SELECT count(*) FROM pgtopic.segment_statistics WHERE topic_id = $id", '0', 'drop_topic() takes them along');
$s->query_ok("CREATE ROLE alice; GRANT CREATE ON SCHEMA topics TO alice; SET ROLE alice; SELECT create_topic('hers', segment_messages => 1000); SELECT produce_batch('hers', ARRAY(SELECT 'x' FROM generate_series(1, 1500)))");
error_is($s, 'SELECT * FROM pgtopic.segment_statistics', '42501', undef, 'they are for nobody else to read');
$s->query_ok('RESET ROLE');
wait_until($s, segments_of('hers'), undef, '0-1000');
$id = id('hers');
$s->query_ok('DROP OWNED BY alice');
result_is($s, "SELECT count(*) FROM pgtopic.segment_statistics WHERE topic_id = $id", '0', '... and so does DROP OWNED');
result_is($s, "SELECT count(*) FROM pgtopic.segment_statistics WHERE topic_id NOT IN (SELECT id FROM pgtopic.topic)", '0', 'there are none of nothing');

# --- a dump is without them, and the restored database gets its own ---

$s->query_ok('CREATE DATABASE restored');
my $dump = PostgreSQL::Test::Utils::tempdir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'pg_dump');
unlike(slurp_file($dump), qr/segment_statistics/, '... has no statistics');
$node->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', 'restored', '-f', $dump ], '... is restored');
{
	my $r = session($node, 'restored');
	local $s = $r;
	wait_until($r, segments_of('times'), '... and has them again soon', join(' ', map { ($_ * 1000) . '-' . (($_ + 1) * 1000) } 0 .. 5));
	agree($_) for 't', 'times', 'blocked', 'early';
	$r->quit;
}

# --- an older version of the extension, and the update ---

$s->query_ok('CREATE DATABASE older');
{
	my $u = session($node, 'older');
	local $s = $u;
	$u->query_ok("CREATE EXTENSION pgtopic VERSION '0.3.0'");
	$u->query_ok("SELECT create_topic('$_', segment_messages => 1000, retention => NULL)") for 'kept', 'dropped';
	batch($_, 2500) for 'kept', 'dropped';
	$u->query_ok("SELECT delete_messages('kept', 0, 1200)");
	wait_until($u, "SELECT min(from_offset) FROM segment_status WHERE topic = 'kept'", 'with the SQL of 0.3.0: segments are dropped', '1000');
	wait_until($u, "SELECT count(*) FROM pgtopic.t" . id('kept') . "_p0 WHERE last_offset < 1200", '... and rows', '0');
	$u->query_ok("SELECT drop_topic('dropped')");
	result_is($u, "SELECT to_regclass('pgtopic.segment_statistics') IS NULL", 't', '... there are no statistics');
	$u->query_ok('ALTER EXTENSION pgtopic UPDATE');
	wait_until($u, segments_of('kept'), 'after the update there are', '1000-2000');
	agree('kept');
	batch('kept', 1000);
	wait_until($u, segments_of('kept'), '... and more come', '1000-2000 2000-3000');
	agree('kept');
	$u->quit;
}

$_->quit for $s, $o;
$node->stop;
log_is_clean($node);
done_testing();
