# Retention: by time, by size and by delete_messages(); whole segments are dropped,
# the rest is deleted, the log's start never goes back, and whoever is in the way
# delays it and nothing else.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgtopicTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('retention', conf => <<'EOC');
pgtopic.retention_check_interval = '100ms'
pgtopic.checkpoint_interval = '100ms'
max_locks_per_transaction = 256
EOC
my $s = session($node);

sub batch
{
	my ($topic, $count, $value, $timestamp) = @_;
	my $timestamps = $timestamp ? ", timestamps => ARRAY(SELECT timestamptz '$timestamp' FROM generate_series(1, $count))" : '';
	$s->query_ok("SELECT count(*) FROM produce_batch('$topic', ARRAY(SELECT '$value' || n FROM generate_series(1, $count) n)$timestamps)");
	return;
}

sub status
{
	my ($topic) = @_;
	return "SELECT log_start_offset, log_end_offset FROM partition_status WHERE topic = '$topic'";
}

sub first_segment
{
	my ($topic) = @_;
	return "SELECT min(from_offset) FROM segment_status WHERE topic = '$topic'";
}

# Rows below the log start are gone from the storage too.
sub rows_before_start
{
	my ($topic) = @_;
	my $id = $s->query_ok("SELECT '$topic'::topic::int");
	return "SELECT count(*) FROM pgtopic.t$id WHERE last_offset < (SELECT log_start_offset FROM partition_status WHERE topic = '$topic')";
}

# --- by time ---

$s->query_ok("SELECT create_topic('time', segment_messages => 1000, retention => '1 hour')");
batch('time', 2500, 'old', '2020-01-01');
batch('time', 1000, 'new');
wait_until($s, status('time'), 'what is older than the retention goes', '2500|3500');
wait_until($s, first_segment('time'), '... whole segments', '2000');
wait_until($s, rows_before_start('time'), '... and rows', '0');
result_is($s, "SELECT count(*), min(log_offset), min(value) FROM fetch_messages('time', 0, 2500, 10000)", '1000|2500|new1', '... and nothing else');
error_is($s, "SELECT fetch_messages('time', 0, 2499)", '22003', qr/starts at 2500/, '... it cannot be read');
result_is($s, "SELECT messages FROM topic_status WHERE topic = 'time'", '1000', '... topic_status does not count it');
result_is($s, "SELECT value FROM consume('time', 'g', 1)", 'new1', '... and a new group starts behind it');
batch('time', 10, 'late', '2020-01-01');
batch('time', 1, 'newest');
$s->query_ok("SELECT pg_reload_conf()");
$s->query_ok("SELECT create_topic('marker', retention => '1 ms')");
$s->query_ok("SELECT produce('marker', 'x')");
wait_until($s, status('marker'), 'retention has been through', '1|1');
result_is($s, status('time'), '2500|3511', 'an old message behind a newer one stays: the log has no holes');

$s->query_ok("SELECT create_topic('ever', segment_messages => 1000, retention => NULL)");
batch('ever', 1500, 'old', '2000-01-01');
$s->query_ok("SELECT produce('marker', 'x')");
wait_until($s, status('marker'), undef, '2|2');
result_is($s, status('ever'), '0|1500', 'NULL keeps for ever');
$s->query_ok("SELECT alter_topic('ever', 'retention', '1 day')");
wait_until($s, status('ever'), '... until that is altered', '1500|1500');

# open transactions: what is not settled does not go
$s->query_ok("SELECT create_topic('open', segment_messages => 1000, retention => '1 ms')");
my $o = session($node);
$o->query_ok("BEGIN; SELECT produce('open', 'first')");
batch('open', 1500, 'x');
$s->query_ok("SELECT produce('marker', 'x')");
wait_until($s, status('marker'), undef, '3|3');
result_is($s, status('open'), '0|1501', 'what is behind an open transaction stays for as long as that lasts');
$o->query_ok('COMMIT');
wait_until($s, status('open'), '... and goes then', '1501|1501');

# --- everything is gone: the offsets go on, and never come back ---

wait_until($s, "SELECT string_agg(from_offset || ':' || messages, ' ' ORDER BY from_offset) FROM segment_status WHERE topic = 'open'",
	'when everything is gone, empty segments remain', '1000:0 2000:0 3000:0');
for my $how ('fast', 'immediate')
{
	my ($end) = $s->query_ok(status('open')) =~ /\|(\d+)/;
	$node->stop($how);
	$node->start;
	$_->quit for $s, $o;
	($s, $o) = (session($node), session($node));
	result_is($s, status('open'), "$end|$end", "after a restart ($how), an empty log is where it was");
	result_is($s, "SELECT count(*) FROM fetch_messages('open', 0, $end)", '0', '... can be read at its end');
	result_is($s, "SELECT log_offset FROM produce('open', 'x')", $end, '... and goes on there');
	wait_until($s, status('open'), undef, ($end + 1) . '|' . ($end + 1));
}

# far beyond the segments that there were
batch('open', 6000, 'x');
wait_until($s, status('open'), undef, '7503|7503');
wait_until($s, first_segment('open'), 'all segments that are full go', '7000');

# --- by size ---

$s->query_ok("SELECT create_topic('size', segment_messages => 1000, retention => NULL, retention_bytes => 1000000, partitions => 2)");
$s->query_ok("SELECT count(*) FROM produce_batch('size', ARRAY(SELECT repeat(md5(n::text), 30) FROM generate_series(1, 20000) n), partition => 0)");
$s->query_ok("SELECT count(*) FROM produce_batch('size', ARRAY(SELECT 'small' FROM generate_series(1, 2500) n), partition => 1)");
# a segment is about 1.1 MB: one full one and the one being written to are enough
wait_until($s, "SELECT count(*) FILTER (WHERE messages > 0) <= 2 FROM segment_status WHERE topic = 'size' AND partition = 0", 'what is too much goes, by whole segments');
wait_until($s, "SELECT size_bytes BETWEEN 1000000 AND 3500000 AND log_start_offset % 1000 = 0 FROM partition_status WHERE topic = 'size' AND partition = 0", '... and no more than that');
result_is($s, "SELECT log_start_offset FROM partition_status WHERE topic = 'size' AND partition = 1", '0', '... of each partition on its own');
my $start = $s->query_ok("SELECT log_start_offset FROM partition_status WHERE topic = 'size' AND partition = 0");
result_is($s, "SELECT count(*) FROM fetch_messages('size', 0, $start, 100000)", 20000 - $start, '... what is left can be read');
$s->query_ok("SELECT alter_topic('size', 'retention_bytes', '0')");
# all but the segment that is written to
wait_until($s, "SELECT string_agg(log_start_offset::text, ' ' ORDER BY partition) FROM partition_status WHERE topic = 'size'", 'retention_bytes 0 keeps what is in the last segment', '20000 2000');
$s->query_ok("SELECT alter_topic('size', 'retention_bytes', 'default')");
$s->query_ok("SELECT count(*) FROM produce_batch('size', ARRAY(SELECT repeat(md5(n::text), 30) FROM generate_series(1, 5000) n), partition => 0)");
$s->query_ok("SELECT produce('marker', 'x')");
wait_until($s, "SELECT log_start_offset = log_end_offset FROM partition_status WHERE topic = 'marker'");
result_is($s, "SELECT log_start_offset FROM partition_status WHERE topic = 'size' AND partition = 0", '20000', 'without a limit nothing goes');

# --- delete_messages ---

$s->query_ok("SELECT create_topic('delete', segment_messages => 1000, retention => NULL)");
batch('delete', 5000, 'v');
$s->query_ok("SELECT consume('delete', 'g', 100)");
result_is($s, "SELECT delete_messages('delete', 0, 3210)", '3210', 'delete_messages() returns the start of the log');
error_is($s, "SELECT fetch_messages('delete', 0, 3209)", '22003', qr/starts at 3210/, '... at once');
wait_until($s, first_segment('delete'), '... the worker drops segments', '3000');
my $batch_end = $s->query_ok("SELECT min(last_offset) FROM pgtopic.t" . $s->query_ok("SELECT 'delete'::topic::int") . " WHERE last_offset >= 3210");
wait_until($s, rows_before_start('delete'), '... and deletes the rows before', '0');
result_is($s, "SELECT log_offset, value FROM fetch_messages('delete', 0, 3210, 1)", '3210|v3211', '... a batch may begin before the start of the log');
result_is($s, "SELECT log_offset FROM consume('delete', 'g', 1)", '3210', 'a group that was before it goes on there');
result_is($s, "SELECT lag, committed_offset FROM consumer_group_status WHERE topic = 'delete'", '1789|3211', '... without having lag for what is gone');
result_is($s, "SELECT delete_messages('delete', 0, 100)", '3210', 'the start of the log does not go back');
error_is($s, "SELECT delete_messages('delete', 0, 5001)", '22003', qr/5000/, 'what is not there yet cannot be deleted');
error_is($s, "SELECT delete_messages('delete', 0, -1)", '22003', undef, '... nor what never was');
error_is($s, "SELECT delete_messages('delete', 1, 0)", '22003', qr/partition 1 .* does not exist/, '... nor in a partition that is not there');
$s->query_ok("BEGIN; SELECT delete_messages('delete', 0, 4000); ROLLBACK");
result_is($s, status('delete'), '3210|5000', 'a rollback takes it back');
result_is($s, "SELECT delete_messages('delete', 0, 5000)", '5000', 'all can be deleted');
wait_until($s, "SELECT sum(messages) FROM segment_status WHERE topic = 'delete'", '... and goes', '0');
result_is($s, "SELECT log_offset FROM produce('delete', 'x')", '5000', '... and the log goes on');

# An open delete_messages() does not keep watermarks or other partitions from going on.
$o->query_ok("BEGIN; SELECT delete_messages('delete', 0, 5001)");
$s->query_ok("SELECT produce('marker', 'x')");
wait_until($s, "SELECT log_start_offset = log_end_offset FROM partition_status WHERE topic = 'marker'", 'an open delete_messages() holds up no other topic');
result_is($s, "SELECT value FROM fetch_messages('delete', 0, 5000)", 'x', '... and hides nothing from others');
$o->query_ok('COMMIT');

# --- somebody is in the way ---

my $n = 0;
my %in_the_way = (
	'a transaction that has read the storage' => sub { $o->query_ok("BEGIN; SELECT count(*) FROM pgtopic.t$_[0]"); },
	'a dump' => sub { $o->query_ok("BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE pgtopic.t$_[0] IN ACCESS SHARE MODE"); },
	'an open producer' => sub { $o->query_ok("BEGIN; SELECT produce('way$n', 'open')"); },
	'a lock on the first segment' => sub { $o->query_ok("BEGIN; LOCK TABLE pgtopic.t$_[0]_p0_s0 IN SHARE UPDATE EXCLUSIVE MODE"); });

for my $who (sort keys %in_the_way)
{
	$n++;
	my $topic = "way$n";
	my $w = session($node);

	$s->query_ok("SELECT create_topic('$topic', segment_messages => 1000, retention => NULL)");
	my $id = $s->query_ok("SELECT '$topic'::topic::int");
	# an open producer is in the first segment
	$in_the_way{$who}->($id) if $who eq 'an open producer';
	batch($topic, 4500, 'v');
	$s->query_ok("SELECT count(*) FROM consume('$topic', 'g', 1)");
	wait_until($s, "SELECT max(to_offset) >= 6000 FROM segment_status WHERE topic = '$topic'");
	$in_the_way{$who}->($id) if $who ne 'an open producer';
	if ($who eq 'an open producer')
	{
		# nothing before it is settled
		error_is($s, "SELECT delete_messages('$topic', 0, 3500)", '22003', undef, "$who: what is not settled cannot be deleted");
		$o->query_ok('COMMIT');
		$o->query_ok("BEGIN; SELECT produce('$topic', 'open again')");
	}
	$s->query_ok("SELECT delete_messages('$topic', 0, 3500)");
	error_is($s, "SELECT fetch_messages('$topic', 0, 3499)", '22003', undef, "$who: what is deleted is out of reach at once");
	# the worker has tried
	$s->query_ok("SELECT produce('marker', 'x')");
	wait_until($s, "SELECT log_start_offset = log_end_offset FROM partition_status WHERE topic = 'marker'", '... other topics are not delayed');
	result_is($s, first_segment($topic), $who =~ /producer|lock/ ? ($who =~ /producer/ ? '3000' : '0') : '0', '... its segments stay for now')
	  if $who !~ /producer/;

	$s->query_ok("SET statement_timeout = '5s'");
	for my $turn (1 .. 40)
	{
		# the worker tries again and again meanwhile
		$s->query_ok("SELECT produce('$topic', 'x$turn')");
		$s->query_ok("SELECT count(*) FROM consume('$topic', 'g')");
		$s->query_ok("SELECT count(*) FROM fetch_messages('$topic', 0, 3500)");
		$s->query_ok("SELECT count(*) FROM partition_status WHERE topic = '$topic'");
	}
	ok(1, '... produce, consume, fetch and views go on');
	$s->query_ok("SELECT count(*) FROM produce_batch('$topic', ARRAY(SELECT 'x' FROM generate_series(1, 3000)))");
	ok(1, '... new segments are made');
	$s->query_ok('RESET statement_timeout');
	result_is($s, "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 'pgtopic maintenance' AND NOT l.granted", '0', '... the worker does not queue for locks');

	$o->query_ok('COMMIT');
	wait_until($s, first_segment($topic), '... when it has ended, segments go', '3000');
	wait_until($s, rows_before_start($topic), '... and rows', '0');
	$w->quit;
}

# Somebody who is waiting in fetch_messages() or consume() is not in the way.
$s->query_ok("SELECT create_topic('waited', segment_messages => 1000, retention => '1 day')");
batch('waited', 2500, 'x');
$s->query_ok("SELECT count(*) FROM consume('waited', 'g', 2500)");
my $f = session($node);
$f->send("SELECT value FROM fetch_messages('waited', 0, 2500, max_wait => '60 s')");
$o->send("SELECT value FROM consume('waited', 'g', max_wait => '60 s')");
await_waiting($s, $_) for $f, $o;
$s->query_ok("SELECT alter_topic('waited', 'retention', '1 ms')");
wait_until($s, first_segment('waited'), 'readers that wait are not in the way of retention', '2000');
$s->query_ok("SELECT alter_topic('waited', 'retention', 'default')");
$s->query_ok("SELECT produce('waited', 'y')");
is($f->result // $f->error, 'y', '... and are served afterwards');
is($o->result // $o->error, 'y', '... as are consumers');
$f->quit;

# --- the worker comes back ---

my $pid = worker_pid($s);
$s->query_ok("SELECT pg_terminate_backend($pid)");
wait_until($s, "SELECT pid <> $pid AND state <> 'stopped' FROM worker_status WHERE worker = 'maintenance'", 'the worker comes back');
$s->query_ok("SELECT produce('marker', 'x')");
wait_until($s, "SELECT log_start_offset = log_end_offset FROM partition_status WHERE topic = 'marker'", '... and goes on removing');

# --- a topic that is in trouble ---

# Somebody has dropped a part of its storage.
$s->query_ok("SELECT create_topic('broken')");
my $broken = $s->query_ok("SELECT 'broken'::topic::int");
$s->query_ok("DROP TABLE pgtopic.t${broken}_p0");
$s->query_ok("SELECT create_topic('after', retention => '1 ms')");
$s->query_ok("SELECT produce('after', 'x')");
wait_until($s, "SELECT log_start_offset = 1 FROM pgtopic.partition WHERE topic_id = 'after'::topic::int", 'a topic in trouble keeps no other from being served');
result_is($s, status('after'), '1|1', "... partition_status shows the others");
result_is($s, "SELECT count(*) FROM topic_status WHERE topic = 'after'", '1', "... and so does topic_status");
error_is($s, "SELECT produce('broken', 'x')", '42P01', qr/storage of topic "broken" is damaged/, '... and says what is wrong');
$s->query("SELECT drop_topic('broken')");
is($s->error, '', '... and can be dropped');
$s->query("DROP TABLE pgtopic.t$broken") if $s->error ne '';

# --- the settings are reloaded ---

$node->append_conf('postgresql.conf', "pgtopic.retention_check_interval = '1h'");
$node->reload;
wait_until($s, "SELECT current_setting('pgtopic.retention_check_interval') = '1h'");
$s->query_ok("SELECT produce('after', 'x')");
$s->query_ok("SELECT alter_topic('marker', 'retention', '2 ms')");
wait_until($s, status('after'), 'alter_topic() has retention look at once', '2|2');

$_->quit for $s, $o;
$node->stop;
log_is_clean($node, allow => [ qr/failed while .*storage of topic "broken" is damaged/ ]);
done_testing();
