# A streaming standby: reads what is settled, refuses to write, and produces on
# once it is promoted.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgtopicTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $primary = new_node('primary', streaming => 1, conf => "pgtopic.checkpoint_interval = '100ms'");
my $s = session($primary);

$s->query_ok($_) for split /;\n/, <<'EOC';
SELECT create_topic('t', partitions => 2, segment_messages => 1000);
SELECT create_topic('other');
SELECT create_topic('blobs', value_format => 'bytes');
SELECT produce_batch('t', ARRAY['m0', 'm1', 'm2', 'm3', 'm4'], partition => 0);
SELECT produce('blobs', '\xff'::bytea, key => '\x01'::bytea);
SELECT consume('t', 'g', 2);
EOC

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
my $r = session($standby);

# --- it reads, also what came after the backup ---

sub catch_up
{
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	return;
}

sub read_values
{
	my ($from, $partition) = @_;
	return "SELECT string_agg(value, ' ' ORDER BY log_offset) FROM fetch_messages('t', " . ($partition // 0) . ", $from)";
}

$s->query_ok("SELECT produce('t', 'm5', partition => 0)");
$s->query_ok("SELECT create_topic('late')");
$s->query_ok("SELECT produce('late', 'x')");
catch_up();
result_is($r, read_values(0), 'm0 m1 m2 m3 m4 m5', 'the standby reads what the primary has');
result_is($r, "SELECT key, value FROM fetch_messages_bytes('blobs', 0, 0)", '\x01|\xff', '... bytes too');
result_is($r, "SELECT value FROM fetch_messages('late', 0, 0)", 'x', '... and topics made since');
result_is($r, "SELECT string_agg(value, ' ') FROM (SELECT value FROM topics.t WHERE partition = 0 ORDER BY log_offset DESC LIMIT 3) m", 'm5 m4 m3', '... as a relation, too');
error_is($r, "INSERT INTO topics.t (value) VALUES ('x')", '25006', undef, '... to which nothing is written');
error_is($r, "SELECT fetch_messages('t', 0, 100)", '22003', qr/ends at 6/, 'an offset out of range is an error with the range');
result_is($r, "SELECT log_offset FROM offsets_at('t', '-infinity') WHERE partition = 0", '0', 'offsets_at() works');
result_is($r, "SELECT log_offset FROM offsets_at('t', 'infinity') WHERE partition = 0", '6', '... at the end too');

# --- what has changed on the primary is seen by a session that has read before ---

$s->query_ok("SELECT add_partitions('t', 3)");
$s->query_ok("SELECT produce('t', 'third', partition => 2)");
catch_up();
result_is($r, read_values(0, 2), 'third', 'a partition that was added');
$s->query_ok("SELECT produce_batch('t', ARRAY(SELECT 'b' || n FROM generate_series(0, 4999) n), partition => 1)");
catch_up();
result_is($r, "SELECT count(*), min(log_offset), max(log_offset), max(value) FROM fetch_messages('t', 1, 0, 100000)", '5000|0|4999|b999',
	'segments that were made');
result_is($r, "SELECT string_agg(value, ' ') FROM fetch_messages('t', 1, 2998, 4)", 'b2998 b2999 b3000 b3001', '... are read from the middle');
$s->query_ok("SELECT delete_messages('t', 1, 2500)");
wait_until($s, "SELECT min(from_offset) = 2000 FROM segment_status WHERE topic = 't' AND partition = 1");
catch_up();
error_is($r, "SELECT fetch_messages('t', 1, 2000)", '22003', qr/starts at 2500/, 'messages that were deleted');
result_is($r, "SELECT count(*) FROM fetch_messages('t', 1, 2500, 100000)", '2500', '... and those that were not');
result_is($r, "SELECT count(*), min(log_offset) FROM topics.t WHERE partition = 1", '2500|2500', '... nor as a relation');
$s->query_ok("SELECT drop_topic('late')");
catch_up();
error_is($r, "SELECT fetch_messages('late', 0, 0)", '42704', qr/"late" does not exist/, 'a topic that was dropped');

# --- views ---

wait_until($s, "SELECT bool_and(w.high_watermark = p.high_watermark) FROM partition_status w JOIN pgtopic.partition p ON p.topic_id = w.topic::int AND p.partition = w.partition");
catch_up();
# All but sizes: a standby may have another free space map.
my %views = (
	topic_status => "SELECT topic, partitions, value_format, retention, messages FROM topic_status ORDER BY topic",
	partition_status => "SELECT topic, partition, log_start_offset, high_watermark, log_end_offset, segments, blocking_pid FROM partition_status ORDER BY topic, partition",
	segment_status => "SELECT topic, partition, segment, from_offset, to_offset, messages, max_timestamp FROM segment_status ORDER BY topic, partition, from_offset",
	consumer_group_status => "SELECT * FROM consumer_group_status ORDER BY topic, partition");
for my $view (sort keys %views)
{
	my $here = $s->query_ok($views{$view});

	isnt($here, '', "$view has rows");
	result_is($r, $views{$view}, $here, "... and shows the same on the standby");
	result_is($r, "SELECT bool_and(size_bytes > 0) FROM $view", 't', "... with sizes") if $view ne 'consumer_group_status';
}
result_is($r, "SELECT string_agg(worker || ' ' || state, ',') FROM worker_status", 'launcher stopped', 'worker_status: no workers yet');

# --- it refuses ---

for my $call ("produce('t', 'x')", "produce_batch('t', ARRAY['x'])", "produce('blobs', '\\x00'::bytea)", "consume('t', 'g')", "consume('t', 'g', max_wait => '10 s')",
	"consume_bytes('blobs', 'g')", "create_topic('n')", "alter_topic('t', 'retention', '1 day')",
	"add_partitions('t', 5)", "drop_topic('t')", "delete_messages('t', 0, 1)", "create_consumer_group('n', 't')",
	"commit_offset('g', 't', 0, 1)", "reset_offsets('g', 't', 'earliest')", "reset_offsets('g', 't', 'earliest', dry_run => true)",
	"drop_consumer_group('g')", "drop_consumer_group('g', 't')")
{
	(my $name = $call) =~ s/\(.*//;
	error_is($r, "SELECT $call", '25006', qr/^ERROR:  25006: cannot execute $name\(\) /, "refused: $call");
}
error_is($r, "CALL wait_for_messages('t', 'g', '10 s')", '25006', qr/cannot execute wait_for_messages\(\) during recovery/, 'refused: wait_for_messages()');

# --- gaps: reading goes on behind what was rolled back ---

my $end = 6;
$s->query_ok("BEGIN; SELECT produce_batch('t', ARRAY['no', 'no'], partition => 0); ROLLBACK");
$s->query_ok("SELECT produce('t', 'm8', partition => 0)");
wait_until($r, "SELECT count(*) = 1 FROM fetch_messages('t', 0, 6)", 'a message behind a rolled-back one comes');
result_is($r, read_values(6), 'm8', '... and it alone');
$s->query_ok("BEGIN; SAVEPOINT a; SELECT produce('t', 'no', partition => 0); ROLLBACK TO a; SELECT produce('t', 'm10', partition => 0); COMMIT");
wait_until($r, "SELECT count(*) = 1 FROM fetch_messages('t', 0, 9)", '... behind a savepoint as well');

# --- a late commit is never skipped ---

my $late = session($primary);
$late->query_ok("BEGIN; SELECT produce('t', 'm11', partition => 0)");
$s->query_ok("SELECT produce('t', 'm12', partition => 0)");
$s->query_ok("SELECT produce('other', 'x')");
# the worker has stored watermarks since
wait_until($s, "SELECT high_watermark = 1 FROM pgtopic.partition WHERE topic_id = 'other'::topic::int");
catch_up();
result_is($r, read_values(10), 'm10', 'a message behind an open transaction is not read');
result_is($r, read_values(11), '', '... not from there on either');
result_is($r, "SELECT high_watermark, log_end_offset FROM partition_status WHERE topic = 't' AND partition = 0", '11|13', 'partition_status tells why');
my $w = session($standby);
$w->send("SELECT string_agg(value, ' ') FROM fetch_messages('t', 0, 11, max_wait => '60 s')");
await_waiting($r, $w);
$late->query_ok('COMMIT');
is($w->result, 'm11 m12', 'a reader that waits has both when the first is committed');

# Beyond a gap, and with the transaction begun before the gap was.
$late->query_ok("BEGIN; SELECT produce('t', 'm13', partition => 0)");
$s->query_ok("BEGIN; SELECT produce('t', 'no', partition => 0); ROLLBACK");
$s->query_ok("SELECT produce('t', 'm15', partition => 0)");
catch_up();
result_is($r, read_values(13), '', 'nothing is read behind an open transaction and a gap');
$late->query_ok('COMMIT');
wait_until($r, "SELECT count(*) = 2 FROM fetch_messages('t', 0, 13)", '... and all of it afterwards');

# --- under load: many late commits and gaps, and a reader that follows ---

{
	my $folder = PostgreSQL::Test::Utils::tempdir;
	my (@writers, $tail);
	my $rounds = 150;
	srand(42);

	for my $n (1 .. 4)
	{
		my $script = '';
		for my $i (1 .. $rounds)
		{
			my $delay = rand() < 0.3 ? sprintf('SELECT pg_sleep(%.3f);', rand() * 0.04) : '';
			my $end = rand() < 0.3 ? 'ROLLBACK' : 'COMMIT';
			my $value = $end eq 'COMMIT' ? "w$n-$i" : 'no';
			$script .= "BEGIN; SELECT produce('other', '$value'); $delay SELECT produce_batch('other', ARRAY['$value', '$value']); $end;\n";
		}
		$script .= "SELECT produce('other', 'end');\n";
		append_to_file("$folder/writer$n.sql", $script);
	}
	append_to_file("$folder/tail.sql", "\\set o 1\n"
		  . ("SELECT coalesce(string_agg(log_offset || ' ' || value, E'\\n'), '') AS m, coalesce(max(log_offset) + 1, :o) AS o"
			  . " FROM fetch_messages('other', 0, :o, 100, max_wait => '100ms') \\gset\n\\echo :m\n") x 5000);

	my $reader = start_writing($standby, 'postgres', "$folder/tail.sql", "$folder/tail.out");
	push @writers, start_writing($primary, 'postgres', "$folder/writer$_.sql", "$folder/writer$_.out") for 1 .. 4;
	$_->finish or die "a writer failed" for @writers;

	my $expected = $s->query_ok("SELECT string_agg(log_offset || ' ' || value, E'\\n' ORDER BY log_offset) FROM fetch_messages('other', 0, 1, 100000)");
	my ($last) = $expected =~ /(.*)\z/;
	my $end = time() + $PostgreSQL::Test::Utils::timeout_default;
	Time::HiRes::usleep(50_000) until slurp_file("$folder/tail.out") =~ /^\Q$last\E$/m || time() > $end;
	$reader->kill_kill;
	my $read = join("\n", grep { $_ ne '' } split /\n/, slurp_file("$folder/tail.out"));
	ok($expected !~ /no/ && length($expected) > 1000, 'the primary has what was committed');
	is($read, $expected, 'a reader on the standby that follows the log skips nothing and reads nothing else');
}

# --- waiting on the standby ---

my $next = $s->query_ok("SELECT log_end_offset FROM partition_status WHERE topic = 't' AND partition = 0");
catch_up();
$w->send("SELECT value, clock_timestamp() FROM fetch_messages('t', 0, $next, max_wait => '60 s')");
await_waiting($r, $w);
my $before = $s->query_ok("BEGIN; SELECT produce('t', 'woken', partition => 0) IS NULL; SELECT clock_timestamp(); COMMIT") =~ s/.*\n//sr;
my ($value, $woken) = split /\|/, $w->result;
is($value, 'woken', 'a reader that waits on the standby gets what is replayed');
my $took = $s->query_ok("SELECT extract(epoch FROM '$woken'::timestamptz - '$before')");
ok($took < 5, '... soon') or diag("after $took s");

$next++;
for my $end ('pg_cancel_backend', 'pg_terminate_backend')
{
	$w->send("SELECT value FROM fetch_messages('t', 0, $next, max_wait => '60 s')");
	await_waiting($r, $w);
	$r->query_ok("SELECT $end(" . $w->pid . ')');
	$w->result;
	error_came($w, $end eq 'pg_cancel_backend' ? '57014' : '57P01', undef, "$end() ends a wait on the standby");
}
$w->quit;
$w = session($standby);
error_is($w, "SET statement_timeout = '300ms'; SELECT * FROM fetch_messages('t', 0, $next, max_wait => '60 s')", '57014', undef, '... and statement_timeout does');
$w->query_ok('RESET statement_timeout');

$s->query_ok("SELECT create_topic('gone')");
catch_up();
$w->send("SELECT value FROM fetch_messages('gone', 0, 0, max_wait => '60 s')");
await_waiting($r, $w);
$s->query_ok("SELECT drop_topic('gone')");
$w->result;
error_came($w, '42704', qr/"gone"/, '... and a drop of the topic on the primary');

# A statement that runs has a snapshot, and on a standby what the primary prunes
# meanwhile cannot be replayed before it ends (max_standby_streaming_delay).  A
# reader that waits must not hold up what it waits for.
{
	my $idle = session($standby);
	$s->query_ok("SELECT create_topic('quiet')");
	catch_up();
	$idle->send("SELECT value FROM fetch_messages('quiet', 0, 0, max_wait => '5 min')");
	await_waiting($r, $idle);
	for my $i (1 .. 200)
	{
		$s->query_ok("SELECT produce('other', 'x')");
		$s->query_ok("SELECT count(*) FROM consume('other', 'g')");
		# watermarks are stored meanwhile
		$s->query_ok('SELECT pg_sleep(0.01)') if $i % 4 == 0;
	}
	my $before = time();
	catch_up();
	my $took = time() - $before;
	ok($took < 10, 'a reader that waits on the standby does not keep it from replaying') or diag("took $took s");
	# it may return with nothing before its time, to ask again, but not with an error
	$s->query_ok("SELECT produce('quiet', 'at last')");
	my $got = $idle->result;
	$got = $idle->query("SELECT value FROM fetch_messages('quiet', 0, 0, max_wait => '60 s')") while defined $got && $got eq '';
	is($got // $idle->error, 'at last', '... and gets what it waits for');
	$idle->quit;
}

# --- promotion ---

# The primary dies with a transaction open and a group in the middle.
$s->query_ok("SELECT reset_offsets('g', 't', '0')");
$s->query_ok("SELECT string_agg(value, ' ') FROM consume('t', 'g', 3)") for 1 .. 3;
$late->query_ok("BEGIN; SELECT produce('t', 'never', partition => 0)");
$s->query_ok("SELECT produce('t', 'last', partition => 0)");
my $positions = $s->query_ok("SELECT * FROM consumer_group_status ORDER BY topic, partition");
my $content = "SELECT partition, log_offset, value FROM generate_series(0, 2) p, fetch_messages('t', p, (SELECT log_start_offset FROM partition_status s WHERE s.topic = 't' AND s.partition = p), 100000) ORDER BY 1, 2";
catch_up();
result_is($r, read_values($next), '', 'before the promotion, an open transaction holds readers back');
$w->send("SELECT value FROM fetch_messages('t', 2, 1, max_wait => '60 s')");
await_waiting($r, $w);
$primary->stop('immediate');
$_->quit for $s, $late;
$standby->promote;

await_workers($r, 'after the promotion, workers start');
result_is($r, read_values($next), 'last', '... the transaction that was open is settled');
result_is($r, "SELECT high_watermark = log_end_offset, log_end_offset >= $next + 2, blocking_pid IS NULL FROM partition_status WHERE topic = 't' AND partition = 0", 't|t|t', '... as the view says');
result_is($r, "SELECT * FROM consumer_group_status ORDER BY topic, partition", $positions, '... groups are where they were');
my $offset = $r->query_ok("SELECT log_offset FROM produce('t', 'first of the new primary', partition => 0)");
is($offset, $next + 2, '... and the log goes on with the next offset');
$r->query_ok("SELECT produce('t', 'for the one that waits', partition => 2)");
is($w->result // $w->error, 'for the one that waits', 'a reader that has waited since before the promotion is woken');

my (%count, $rows);
while (($rows = $r->query_ok("SELECT partition || ' ' || log_offset FROM consume('t', 'g', 1000)")) ne '')
{
	$count{$_}++ for split /\n/, $rows;
}
is(scalar(grep { $_ > 1 } values %count), 0, 'the group gets nothing twice');
result_is($r, "SELECT sum(lag) FROM consumer_group_status WHERE topic = 't'", '0', '... and all');
$r->query_ok("SELECT create_topic('new')");
result_is($r, "SELECT log_offset FROM produce('new', 'x')", '0', 'topics can be made');
$r->query_ok("SELECT produce_batch('new', ARRAY(SELECT 'x' FROM generate_series(1, 10)))");
wait_until($r, "SELECT high_watermark = 11 FROM pgtopic.partition WHERE topic_id = 'new'::topic::int", 'watermarks are stored');
result_is($r, "SELECT count(*) FROM produce_batch('t', ARRAY(SELECT 'x' FROM generate_series(1, 5000)), partition => 1)", '1', 'segments are made');

$_->quit for $r, $w;
$standby->stop;
log_is_clean($primary);
log_is_clean($standby, allow => [ qr/walreceiver FATAL: / ]);
done_testing();
