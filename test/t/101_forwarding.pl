# Any broker serves any partition.  Two databases of one server play two brokers;
# what their catalogs say of the cluster is put there by hand, and a third broker
# is nowhere.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgtopicTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $cluster_id = '0123456789abcdef';
my $node = new_node('forwarding', extension => 0, streaming => 1, conf => <<'EOC');
pgtopic.checkpoint_interval = '200ms'
max_prepared_transactions = 5
restart_after_crash = on
EOC

sql($node, $_) for 'CREATE DATABASE b1', 'CREATE DATABASE b2', 'CREATE ROLE peer LOGIN', 'CREATE ROLE alice LOGIN';
for my $broker (1, 2)
{
	sql($node, <<EOC, "b$broker");
CREATE EXTENSION pgtopic;
GRANT USAGE ON SCHEMA pgtopic TO peer;
DO \$\$
BEGIN
	EXECUTE (SELECT string_agg('GRANT EXECUTE ON FUNCTION ' || oid::regprocedure || ' TO peer', ';')
		FROM pg_proc WHERE pronamespace = 'pgtopic'::regnamespace AND proname LIKE 'peer\\_%');
END \$\$;
INSERT INTO pgtopic.cluster VALUES ('$cluster_id', $broker, 0, 0, 0, 0, 0, 0, NULL, NULL, 0);
EOC
	for my $other (1, 2)
	{
		my $conninfo = $node->connstr("b$other") =~ s/'/''/gr;
		sql($node, "INSERT INTO pgtopic.broker VALUES ($other, '$conninfo user=peer password=geheim', false)", "b$broker");
	}
	sql($node, "INSERT INTO pgtopic.broker VALUES (3, 'host=/nowhere dbname=b3 password=geheim', false)", "b$broker");
}

# Both catalogs: the partitions of a topic are led so.
sub lead
{
	my ($topic, @leaders) = @_;
	for my $broker (1, 2)
	{
		my $sql = 'BEGIN;';
		for my $partition (0 .. $#leaders)
		{
			$sql .= "UPDATE pgtopic.partition SET leader = $leaders[$partition], replicas = '{$leaders[$partition]}', isr = '{$leaders[$partition]}', leader_epoch = leader_epoch + 1"
			  . " WHERE topic_id = (SELECT id FROM pgtopic.topic WHERE name = '$topic') AND partition = $partition;";
		}
		$sql .= "UPDATE pgtopic.topic SET name = name WHERE name = '$topic'; COMMIT";
		sql($node, $sql, "b$broker");
	}
	return;
}

# There is no controller: topics are made as if each database were alone.
sub make_alone
{
	my ($broker, $select, $role) = @_;
	my $as = $role ? "SET LOCAL ROLE $role;" : '';
	sql($node, "BEGIN; CREATE TEMP TABLE row ON COMMIT DROP AS TABLE pgtopic.cluster; DELETE FROM pgtopic.cluster; $as SELECT $select; RESET ROLE;"
		  . " INSERT INTO pgtopic.cluster TABLE row; COMMENT ON TABLE pgtopic.cluster IS 'changed'; COMMIT", "b$broker");
	return;
}

sub create
{
	my ($call, $topic, @leaders) = @_;
	make_alone($_, "create_topic($call)") for 1, 2;
	return lead($topic, @leaders);
}

create("'t', partitions => 4", 't', 1, 1, 2, 2);
my $one = session($node, 'b1');
my $two = session($node, 'b2');
# They look on, and have nothing to do with it.
my $wa = session($node, 'b1');
my $wb = session($node, 'b2');

# The sessions that a broker has at another.
sub peers_of
{
	my ($broker, $where) = @_;
	$where //= 'true';
	return "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgtopic broker $broker' AND $where";
}

sub end_peers
{
	my ($broker) = @_;
	$wa->query_ok("SELECT pg_terminate_backend(pid) FROM (" . peers_of($broker) . ") p");
	wait_until($wa, "SELECT count(*) = 0 FROM (" . peers_of($broker) . ") p");
	# the view forgets a session a moment before its connection is closed
	usleep(50_000);
	return;
}

# --- produce ---

result_is($one, "SELECT * FROM produce('t', 'a2', partition => 2)", '2|0', 'a message goes to a partition that the other broker leads');
result_is($two, "SELECT * FROM produce('t', 'b0', key => 'k', headers => '{\"h\": [1, null]}', partition => 0, \"timestamp\" => '2020-02-02 02:02:02Z')",
	'0|0', '... and back');
result_is($two, "SELECT value FROM fetch_messages('t', 2, 0)", 'a2', 'the leader has the message');
result_is($one, "SELECT value, key, headers, timestamp = '2020-02-02 02:02:02Z' FROM fetch_messages('t', 0, 0)", 'b0|k|{"h": [1, null]}|t', '... with all that belongs to it');
result_is($one, 'SELECT (SELECT count(*) FROM pgtopic.t1_p2), (SELECT count(*) FROM pgtopic.t1_p0)', '0|1', '... and nobody else');
result_is($wa, 'SELECT count(*) FROM (' . peers_of(1) . ') p', '1', 'a session has one connection to the other broker');
$one->query_ok("SELECT produce('t', 'again', partition => 3)") for 1 .. 3;
result_is($wa, 'SELECT count(*) FROM (' . peers_of(1) . ') p', '1', '... and keeps it');

$one->query_ok('BEGIN');
my %partitions = map { $_ => 1 } map { split /\n/, $one->query_ok("SELECT partition FROM produce('t', 'null key')") } 1 .. 3;
is(scalar(keys %partitions), 1, 'messages without a key share a partition');
$one->query_ok('COMMIT');
%partitions = ();
$partitions{ $one->query_ok("SELECT partition FROM produce('t', 'null key')") }++ for 1 .. 6;
is(join(' ', sort keys %partitions), '0 1', 'messages without a key go to the partitions that are led here');
%partitions = ();
$partitions{ $two->query_ok("SELECT partition FROM produce_batch('t', ARRAY['null key', 'null key'])") }++ for 1 .. 6;
is(join(' ', sort keys %partitions), '2 3', '... at the other broker too');

# What is where, of this batch alone.
sub contents
{
	my ($session, $like) = @_;
	return $session->query_ok("SELECT string_agg(p || ':' || value, ' ' ORDER BY p, log_offset)"
		  . " FROM generate_series(0, 3) p, fetch_messages('t', p, 0, 10000) WHERE value LIKE '$like'");
}
result_is($one, "SELECT count(DISTINCT partition), sum(last_offset - first_offset + 1) FROM produce_batch('t',"
	  . " (SELECT array_agg('batch ' || i ORDER BY i) FROM generate_series(1, 40) i), (SELECT array_agg(i::text ORDER BY i) FROM generate_series(1, 40) i))",
	'4|40', 'a batch goes to partitions of both brokers');
is(contents($one, 'batch%'), contents($two, 'batch%'), 'both brokers read the same');
result_is($two, "SELECT bool_and(o), count(*) FROM (SELECT value::text = 'batch ' || key AS o FROM generate_series(0, 3) p, fetch_messages('t', p, 0, 10000) WHERE value LIKE 'batch%') m",
	't|40', '... with the keys that belong to them');
result_is($one, "SELECT first_offset + 2999 = last_offset FROM produce_batch('t', array_fill(repeat('x', 1000), ARRAY[3000]), partition => 2)", 't',
	'a large batch');
result_is($two, "SELECT count(*) FROM fetch_messages('t', 2, 0, 10000) WHERE value = repeat('x', 1000)", '3000', '... is there');
result_is($one, "SELECT count(*) FROM fetch_messages('t', 2, 0, 10000) WHERE value = repeat('x', 1000)", '3000', '... and is read from the other broker');

# --- transactions ---

sub last_value
{
	my ($session, $partition) = @_;
	return $session->query_ok("SELECT value FROM fetch_messages('t', $partition, 0, 100000) ORDER BY log_offset DESC LIMIT 1");
}
$one->query_ok("BEGIN; SELECT produce('t', 'rolled back', partition => 2)");
result_is($wb, "SELECT blocking_pid = p.pid FROM partition_status, (" . peers_of(1) . ") p WHERE topic = 't' AND partition = 2", 't',
	'an open transaction is open at the other broker');
$one->query_ok('ROLLBACK');
result_is($wb, "SELECT blocking_pid IS NULL FROM partition_status WHERE topic = 't' AND partition = 2", 't', '... and rolled back there');
$one->query_ok("BEGIN; SELECT produce('t', 'before', partition => 2); SAVEPOINT s; SELECT produce('t', 'inside', partition => 2), produce('t', 'inside', partition => 3);"
	  . "ROLLBACK TO s; SELECT produce('t', 'after', partition => 2); RELEASE s; SAVEPOINT u; SELECT produce('t', 'kept', partition => 2); RELEASE u; COMMIT");
is(join(' ', split /\n/, $two->query_ok("SELECT value FROM fetch_messages('t', 2, 0, 100000) WHERE value <> repeat('x', 1000) ORDER BY log_offset DESC LIMIT 3")),
	'kept after before', 'savepoints');
unlike($two->query_ok("SELECT string_agg(value, ' ') FROM fetch_messages('t', 3, 0, 100000)"), qr/inside/, '... at several partitions');
$one->query_ok(<<'EOC');
DO $$
BEGIN
	FOR i IN 1 .. 5 LOOP
		BEGIN
			PERFORM produce('t', 'loop ' || i, partition => 2);
			IF i % 2 = 0 THEN RAISE division_by_zero; END IF;
		EXCEPTION WHEN division_by_zero THEN NULL;
		END;
	END LOOP;
	BEGIN
		PERFORM fetch_messages('t', 2, -1);
	EXCEPTION WHEN numeric_value_out_of_range THEN PERFORM produce('t', 'loop 7', partition => 3);
	END;
END $$
EOC
is($two->query_ok("SELECT string_agg(value, ' ') FROM fetch_messages('t', 2, 0, 100000) WHERE value LIKE 'loop%'"), 'loop 1 loop 3 loop 5', 'blocks with exceptions');
is(last_value($two, 3), 'loop 7', '... and after an error of the peer that was caught');
$one->query_ok("BEGIN; SELECT produce('t', 'error', partition => 2)");
error_is($one, 'SELECT 1/0', '22012', undef, 'an error');
$one->query_ok('COMMIT');
unlike($two->query_ok("SELECT string_agg(value, ' ') FROM fetch_messages('t', 2, 0, 100000) WHERE value <> repeat('x', 1000)"), qr/error/, '... rolls back at the other broker');
$one->query_ok("BEGIN; SELECT produce('t', 'prepared', partition => 2)");
error_is($one, "PREPARE TRANSACTION 'p'", '0A000', qr/cannot PREPARE a transaction that has called produce\(\)/, 'PREPARE TRANSACTION is refused');
$one->query('ROLLBACK');
# several levels at once
$one->query_ok("BEGIN; SAVEPOINT a; SAVEPOINT b; SELECT produce('t', 'deep', partition => 2); RELEASE b; ROLLBACK TO a; COMMIT");
isnt(last_value($two, 2), 'deep', 'a transaction opened below savepoints, and rolled back to one of them');
$one->query_ok("BEGIN; SAVEPOINT a; SAVEPOINT b; SELECT produce('t', 'deep', partition => 2); RELEASE b; RELEASE a; COMMIT");
is(last_value($two, 2), 'deep', '... or kept');

# --- errors ---

error_is($one, "SELECT fetch_messages('t', 2, 1000000)", '22003', qr/offset 1000000 is out of range for partition 2 of topic "t".*The log starts at 0/s, 'an error of the peer is ours');
like($one->error, qr/on broker 2/, '... and says where it is from');
error_is($one, "SELECT fetch_messages('t', 4, 0)", '22003', qr/partition 4 of topic "t" does not exist/, 'what does not exist is not asked for elsewhere');
error_is($one, "SELECT commit_offset('g', 't', 2, 1000000)", '22003', qr/offset 1000000 is out of range.*on broker 2/s, 'a position out of range');
error_is($one, "SELECT delete_messages('t', 2, 1000000)", '22003', qr/offset 1000000 is out of range.*on broker 2/s, 'an offset to delete to');
error_is($one, "SELECT produce('t', repeat('x', 1100000), partition => 2)", '54000', qr/message of 1100000 bytes is too large/, 'sizes are checked here');
unlike($one->error, qr/on broker/, '... before anything is sent');
result_is($one, "SELECT partition FROM produce('t', 'fine', partition => 2)", '2', 'the session goes on');

# Each value format.
create("'json', value_format => 'json'", 'json', 2);
create("'bytes', value_format => 'bytes'", 'bytes', 2);
$one->query_ok("SELECT produce('json', '{\"a\": 1}'::jsonb), produce('json', '[2]'), produce('json', NULL::text, key => 'gone')");
result_is($one, "SELECT string_agg(coalesce(value, 'NULL'), ' ' ORDER BY log_offset) FROM fetch_messages('json', 0, 0)", '{"a": 1} [2] NULL', 'JSON');
error_is($one, "SELECT produce('json', 'no')", '22P02', undef, '... that is none');
$one->query_ok("SELECT produce('bytes', '\\x00ff'::bytea, key => '\\x01'::bytea)");
result_is($one, "SELECT key, value FROM fetch_messages_bytes('bytes', 0, 0)", '\x01|\x00ff', 'bytes');
$one->query_ok("SELECT produce_batch('t', ARRAY[NULL, 'v', NULL], headers => ARRAY[NULL, '{}'::jsonb, NULL], partition => 3, timestamps => ARRAY['2001-01-01Z', NULL, '2002-02-02Z']::timestamptz[])");
result_is($two, "SELECT value IS NULL, headers, timestamp < '2003-01-01' FROM fetch_messages('t', 3, 0, 10000) ORDER BY log_offset DESC LIMIT 3",
	"t||t\nf|{}|f\nt||t", 'a batch with NULLs, headers and timestamps');

# --- a topic as a relation ---

{
	my $all = 'SELECT count(*), count(DISTINCT partition), sum(log_offset), md5(string_agg(coalesce(value, key, \'\'), \',\' ORDER BY partition, log_offset)) FROM topics.t';
	my $here = $one->query_ok($all);
	like($here, qr/^\d{4,}\|4\|/, 'a SELECT reads all partitions, wherever they are');
	result_is($two, $all, $here, '... and the same at the other broker');
	for my $where ('partition = 2', 'partition = 3 AND log_offset > 5', 'partition IN (0, 2) AND log_offset IN (0, 1, 3, 700, 1500)', "partition = 2 AND log_offset BETWEEN 400 AND 2600")
	{
		for my $order ('partition, log_offset', 'partition DESC, log_offset DESC', 'partition, log_offset DESC')
		{
			my $query = "SELECT partition, log_offset, md5(value), key, headers, timestamp FROM topics.t WHERE $where ORDER BY $order";
			is($one->query_ok($query), $two->query_ok($query), "$where ORDER BY $order: the same at both");
		}
	}
	result_is($one, "SELECT string_agg((partition, log_offset)::text, ' ') FROM (SELECT * FROM topics.t WHERE partition = 2 ORDER BY log_offset DESC LIMIT 3) m",
		$two->query_ok("SELECT string_agg((partition, log_offset)::text, ' ') FROM (SELECT * FROM topics.t WHERE partition = 2 ORDER BY log_offset DESC LIMIT 3) m"), 'the last messages of the other broker');
	my $large = "SELECT value = repeat('x', 1000) FROM topics.t WHERE partition = 2 AND value LIKE 'xxxxxxxxxx%'";
	result_is($one, "SELECT count(*) >= 3000, bool_and(o) FROM ($large) m (o)", 't|t', 'many pieces');

	$one->query_ok("BEGIN; INSERT INTO topics.t (partition, value) SELECT n % 4, 'inserted ' || n FROM generate_series(1, 400) n");
	my $mine = "SELECT count(*), count(DISTINCT partition) FROM topics.t WHERE value LIKE 'inserted %'";
	result_is($one, $mine, '400|4', 'a transaction sees what it has inserted, at the other broker too');
	result_is($two, $mine, '0|0', '... which nobody else does');
	$one->query_ok('COMMIT');
	result_is($two, $mine, '400|4', '... until it has committed');
	result_is($one, "INSERT INTO topics.t (partition, value) VALUES (2, 'returned') RETURNING partition, log_offset > 1000, value", '2|t|returned', 'RETURNING of the other broker');
	# of both, in one statement: those of this broker have their offsets before they are written
	$one->query_ok("CREATE TEMP TABLE got AS WITH i AS (INSERT INTO topics.t (partition, value) SELECT n % 4, 'returned ' || n FROM generate_series(1, 200) n RETURNING partition, log_offset, value, timestamp) SELECT * FROM i");
	result_is($one, "SELECT count(*), count(DISTINCT partition) FROM got JOIN topics.t USING (partition, log_offset, value, timestamp)", '200|4', 'RETURNING of both');
	result_is($two, "SELECT count(*) FROM topics.t WHERE value ~ '^returned '", '200', '... which is all there is');
	error_is($one, 'DROP FOREIGN TABLE topics.t', '0A000', qr/cannot be dropped in a cluster.*drop_topic\(\)/s, 'a relation is not dropped by hand in a cluster');
}

# --- a leader that has led before ---

# What it knows of the log is from then for as long as transactions of then are open: an offset that is there was
# "out of range".
{
	my $before = session($node, 'b1');
	$before->query_ok("BEGIN; SELECT produce('t', 'of before', partition => 0)");
	sql($node, "UPDATE pgtopic.partition SET leader_epoch = leader_epoch + 1 WHERE topic_id = 't'::topic::int AND partition = 0;"
		. " UPDATE pgtopic.topic SET name = name WHERE name = 't'", 'b1');
	error_is($one, "SELECT count(*) FROM fetch_messages('t', 0, 1000000)", '57P03', qr/has not yet begun to lead partition 0 of topic "t" again/,
		'a leader that does not know the log yet says so');
	error_is($two, "SELECT commit_offset('g', 't', 0, 1000000)", '57P03', undef, '... at another broker too');
	$before->query_ok('ROLLBACK');
	$before->quit;
	error_is($one, "SELECT count(*) FROM fetch_messages('t', 0, 1000000)", '22003', undef, '... and answers when they have ended');
}

# What came through replication while another broker led is in the tables, and not in a slot that was filled then.
# The worker that takes the slot away, if there was room for one, is stopped.
{
	my $table = 'pgtopic.t' . $one->query_ok("SELECT 't'::topic::int") . '_p0';
	my $worker = $one->query_ok("SELECT pid FROM pg_stat_activity WHERE backend_type = 'pgtopic replication' AND datname = 'b1'");
	$one->query_ok("SELECT create_consumer_group('came', 't', 'latest')");
	my $next = $one->query_ok("SELECT log_end_offset FROM partition_status WHERE topic = 't' AND partition = 0");
	kill('STOP', $worker) if $worker;
	sql($node, "BEGIN; CREATE TEMP TABLE last ON COMMIT DROP AS SELECT * FROM $table ORDER BY last_offset DESC LIMIT 1;"
		. " UPDATE last SET base_offset = $next, last_offset = $next + last_offset - base_offset; INSERT INTO $table TABLE last;"
		. " UPDATE pgtopic.partition SET leader_epoch = leader_epoch + 1 WHERE topic_id = 't'::topic::int AND partition = 0;"
		. " UPDATE pgtopic.topic SET name = name WHERE name = 't'; COMMIT", 'b1');
	result_is($one, "SELECT DISTINCT partition FROM consume('t', 'came')", '0', 'a new leader gives what it has got as a follower');
	result_is($one, "SELECT log_end_offset > $next FROM partition_status WHERE topic = 't' AND partition = 0", 't', '... and says where its log ends');
	result_is($one, "SELECT log_offset FROM fetch_messages('t', 0, $next, 1)", $next, '... which is no offset out of range');
	kill('CONT', $worker) if $worker;
}

# --- fetch ---

my $end = $two->query_ok("SELECT log_end_offset FROM partition_status WHERE topic = 't' AND partition = 2");
$one->send("SELECT value, clock_timestamp() FROM fetch_messages('t', 2, $end, max_wait => '60 s')");
usleep(1_300_000);    # longer than a peer waits at a time
ok(!$one->is_done, 'fetch_messages() waits for a message at the other broker');
my $took = $two->query_ok("SELECT produce('t', 'fetched', partition => 2) IS NULL; SELECT clock_timestamp()") =~ s/.*\n//sr;
my ($value, $woken) = split /\|/, $one->result // $one->error;
is($value, 'fetched', '... and gets it');
$took = $wa->query_ok("SELECT extract(epoch FROM '$woken'::timestamptz - '$took')");
cmp_ok($took, '<', 0.3, "... at once ($took s)");
my $before = time();
result_is($one, "SELECT count(*) FROM fetch_messages('t', 2, $end + 1, max_wait => '300 ms')", '0', '... or nothing, when its time is over');
cmp_ok(time() - $before, '>=', 0.3, '... not before');
$one->send("SELECT value FROM fetch_messages('t', 2, $end + 1, max_wait => '60 s')");
await_waiting($wa, $one, 'PgtopicPeer');
$wa->query_ok('SELECT pg_cancel_backend(' . $one->pid . ')');
$before = time();
$one->result;
error_came($one, '57014', undef, 'a wait can be cancelled');
cmp_ok(time() - $before, '<', 1, '... at once');
result_is($one, "SELECT partition FROM produce('t', 'after the cancel', partition => 2)", '2', '... and the session goes on');
result_is($wa, 'SELECT count(*) FROM (' . peers_of(1) . ') p', '1', '... with its connection');

# --- consume ---

create("'c', partitions => 4", 'c', 1, 1, 2, 2);
sub consume_all
{
	my ($session, $group, $topic) = @_;
	my @values;
	while (1)
	{
		my $got = $session->query_ok("SELECT value FROM consume('" . ($topic // 'c') . "', '$group')");
		last if $got eq '';
		push @values, split /\n/, $got;
	}
	return join(' ', sort @values);
}
$wa->query_ok("SELECT produce_batch('c', ARRAY['p$_-1', 'p$_-2'], partition => $_)") for 0 .. 3;
my $all = 'p0-1 p0-2 p1-1 p1-2 p2-1 p2-2 p3-1 p3-2';
is(consume_all($one, 'g1'), $all, 'a group consumes all partitions at one broker');
is(consume_all($two, 'g2'), $all, '... or at the other');
is(consume_all($two, 'g1'), '', 'what was consumed at one is not at the other');
result_is($wb, "SELECT string_agg(partition || ':' || committed_offset, ' ' ORDER BY partition) FROM consumer_group_status WHERE consumer_group = 'g1' AND partition >= 2", '2:2 3:2',
	'positions are where the partitions are led');
result_is($wa, "SELECT count(*) FROM pg_locks WHERE locktype = 'userlock'", '0', 'no lock is left');
result_is($wa, "SELECT count(*) FROM (" . peers_of(1, "state <> 'idle'") . ") p", '0', '... and no transaction');

# rolled back
$one->query_ok('BEGIN');
my %seen;
$seen{$_}++ for map { split /\n/, $one->query_ok("SELECT value FROM consume('c', 'g3')") } 1 .. 4;
is(join(' ', sort keys %seen), $all, 'one transaction consumes at several brokers');
is(consume_all($two, 'g3'), '', '... and keeps others away');
$one->query_ok('ROLLBACK');
is(consume_all($two, 'g3'), $all, '... until it is rolled back');
$one->query_ok('BEGIN; SAVEPOINT s');
$one->query_ok("SELECT value FROM consume('c', 'g4')") for 1 .. 4;
$one->query_ok('ROLLBACK TO s');
is(consume_all($one, 'g4'), $all, 'a savepoint gives messages back too');
$one->query_ok('COMMIT');
is(consume_all($two, 'g4'), '', '... and the commit keeps what was consumed after that');
# a local failure at commit
$one->query_ok("CREATE TABLE effects (id text UNIQUE DEFERRABLE INITIALLY DEFERRED)");
$one->query_ok("BEGIN; INSERT INTO effects VALUES ('x'), ('x')");
$one->query_ok("SELECT value FROM consume('c', 'g5')") for 1 .. 4;
$one->query_ok("SELECT produce('c', 'never', partition => 2)");
error_is($one, 'COMMIT', '23505', undef, 'the local transaction fails at its commit');
is(consume_all($two, 'g5'), $all, '... and nothing was consumed or produced at the other');

# turns: each place gets its share
$wa->query_ok("SELECT produce_batch('c', array_fill('more'::text, ARRAY[20]), partition => $_)") for 0 .. 3;
my @turns = map { $one->query_ok("SELECT DISTINCT partition FROM consume('c', 'g5', 1)") } 1 .. 4;
is(join('', sort @turns), '0123', 'partitions of all brokers take turns');
consume_all($one, 'g5');

# positions move over what was rolled back
$wb->query_ok("BEGIN; SELECT produce('c', 'gone', partition => 3); ROLLBACK");
result_is($one, "SELECT count(*) FROM consume('c', 'g5')", '0', 'only rolled-back messages are left');
result_is($wb, "SELECT lag FROM consumer_group_status WHERE consumer_group = 'g5' AND partition = 3", '0', '... and the group does not lag behind them');

# --- waiting ---

consume_all($one, 'w');
for my $way ('consume', 'wait_for_messages')
{
	for my $partition (0, 3)
	{
		my @took;
		for my $round (1 .. 5)
		{
			$one->send($way eq 'consume' ? "SELECT value, clock_timestamp() FROM consume('c', 'w', max_wait => '60 s')"
				: "CALL wait_for_messages('c', 'w', '60 s'); SELECT 'wake $round', clock_timestamp()");
			usleep($round == 5 && $partition == 3 ? 1_200_000 : 50_000);
			die "$way did not wait: " . ($one->result // $one->error) if $one->is_done;
			my $then = $two->query_ok("BEGIN; SELECT produce('c', 'wake $round', partition => $partition) IS NULL; SELECT clock_timestamp(); COMMIT") =~ s/.*\n//sr;
			my ($got, $at) = split /\|/, $one->result // $one->error;
			die "$way got $got" if $got ne "wake $round";
			push @took, $wa->query_ok("SELECT extract(epoch FROM '$at'::timestamptz - '$then')");
			die "$way returned before the commit" if $took[-1] < 0;
			consume_all($one, 'w') if $way ne 'consume';
		}
		@took = sort { $a <=> $b } @took;
		note sprintf('%s, partition %d: woken after %.2f ms (median)', $way, $partition, 1000 * $took[2]);
		cmp_ok($took[2], '<', 0.1, "$way is woken by a message in partition $partition");
	}
	$before = time();
	$one->query_ok($way eq 'consume' ? "SELECT count(*) FROM consume('c', 'w', max_wait => '1500 ms')" : "CALL wait_for_messages('c', 'w', '1500 ms')");
	cmp_ok(time() - $before, '>=', 1.5, "$way waits as long as it is told to");
	cmp_ok(time() - $before, '<', 4, '... and not longer');
}
$before = time();
$one->query_ok("CALL wait_for_messages('c', 'w', '0')");
cmp_ok(time() - $before, '<', 1, 'wait_for_messages() need not wait');
# the wait that is outstanding at the peer is no obstacle
$one->send("SELECT value FROM consume('c', 'w', max_wait => '60 s')");
usleep(100_000);
$wa->query_ok("SELECT produce('c', 'local', partition => 0)");
is($one->result, 'local', 'woken by a local message');
$before = time();
$one->query_ok("SELECT produce('c', 'quick', partition => 3)");
cmp_ok(time() - $before, '<', 0.5, '... and the connection can be used at once');
consume_all($one, 'w');
# in a transaction that is open at the peer
$one->query_ok("BEGIN; SELECT produce('c', 'mine', partition => 2)");
$one->send("SELECT value FROM consume('c', 'w', max_wait => '60 s')");
usleep(100_000);
$wb->query_ok("SELECT produce('c', 'other', partition => 3)");
is($one->result, 'other', 'a transaction that has produced at the peer waits there too');
$one->query_ok('COMMIT');
is(consume_all($two, 'w'), 'mine', '... and commits both');
# woken by a rollback
$wb->query_ok("SELECT produce('c', 'back', partition => 3)");
$two->query_ok("BEGIN; SELECT value FROM consume('c', 'w')");
$one->send("SELECT value FROM consume('c', 'w', max_wait => '60 s')");
usleep(100_000);
$two->query_ok('ROLLBACK');
is($one->result, 'back', 'woken by a consumer at the other broker that gives back');
# over a connection that breaks
for my $way ("SELECT value FROM consume('c', 'w', max_wait => '60 s')", "CALL wait_for_messages('c', 'w', '60 s'); SELECT 'over a new one'")
{
	$one->send($way);
	usleep(100_000);
	$wa->query_ok("SELECT pg_terminate_backend(pid) FROM (" . peers_of(1) . ") p");
	usleep(100_000);
	$wb->query_ok("SELECT produce('c', 'over a new one', partition => 3)");
	is($one->result // $one->error, 'over a new one', 'a connection that is lost while it waits is replaced');
}
consume_all($one, 'w');
# cancelled
$one->send("SELECT value FROM consume('c', 'w', max_wait => '60 s')");
await_waiting($wa, $one);
$wa->query_ok('SELECT pg_cancel_backend(' . $one->pid . ')');
$one->result;
error_came($one, '57014', undef, 'a consumer that waits can be cancelled');

# --- groups, offsets, deletion ---

$one->query_ok("SELECT create_consumer_group('h', 'c', 'latest')");
is(consume_all($two, 'h'), '', 'a group made at the end of all partitions');
error_is($two, "SELECT create_consumer_group('h', 'c')", '42710', qr/already exists/, '... is there for the other broker');
$one->query_ok("SELECT commit_offset('h', 'c', 3, 1), commit_offset('h', 'c', 0, 0)");
result_is($two, "SELECT string_agg(partition || ':' || coalesce(old_offset::text, '-') || ':' || new_offset, ' ' ORDER BY partition) FROM reset_offsets('h', 'c', '1', dry_run => true) WHERE partition IN (0, 3)",
	'0:0:1 3:1:1', 'reset_offsets() asks all, dry');
$one->query_ok("BEGIN; SELECT reset_offsets('h', 'c', '1'); ROLLBACK");
result_is($two, "SELECT sum(old_offset) > 40 FROM reset_offsets('h', 'c', 'earliest')", 't', '... and is rolled back');
result_is($one, "SELECT sum(old_offset), count(*) FROM reset_offsets('h', 'c', 'earliest')", '0|4', '... or not');
error_is($one, "SELECT reset_offsets('nobody', 'c', 'earliest')", '42704', qr/consumer group "nobody" of topic "c" does not exist/, 'a group that is nowhere');
result_is($wb, "SELECT count(*) FROM consumer_group_status WHERE consumer_group = 'nobody' AND committed_offset IS NOT NULL", '0', '... leaves no position');
$two->query_ok("BEGIN; SELECT count(*) FROM consume('c', 'h', 1)");
$two->query_ok("SELECT count(*) FROM consume('c', 'h', 1)") for 1 .. 3;
error_is($one, "SELECT reset_offsets('h', 'c', 'latest')", '55006', qr/consumer group "h" is consuming partition/, 'a group that is consuming is not moved');
error_is($one, "SELECT drop_consumer_group('h', 'c')", '55006', undef, '... and not dropped');
$two->query_ok('ROLLBACK');
$one->query_ok("SELECT drop_consumer_group('h', 'c')");
error_is($two, "SELECT drop_consumer_group('h', 'c')", '42704', qr/does not exist/, 'a group is dropped everywhere');
result_is($one, "SELECT string_agg(partition || ':' || (log_offset > 0), ' ' ORDER BY partition) FROM offsets_at('c', 'infinity')", '0:true 1:true 2:true 3:true', 'offsets_at() asks all');
result_is($one, "SELECT string_agg(partition || ':' || log_offset, ' ' ORDER BY partition) FROM offsets_at('c', '-infinity')", '0:0 1:0 2:0 3:0', '... for the beginning too');
result_is($one, "SELECT delete_messages('c', 2, 2)", '2', 'delete_messages() at the other broker');
result_is($one, "SELECT min(log_offset) FROM fetch_messages('c', 2, 2)", '3', '... moves the start of the log');
error_is($one, "SELECT fetch_messages('c', 2, 1)", '22003', qr/The log starts at 2/, '... for everybody');

# What hangs at the other broker.
$wb->query_ok("SELECT commit_offset('i', 'c', 3, 0)");
$two->query_ok("BEGIN; SELECT commit_offset('i', 'c', 3, 1)");
$one->send("SELECT commit_offset('i', 'c', 3, 2)");
await_waiting($wa, $one, 'PgtopicPeer');
$wa->query_ok('SELECT pg_cancel_backend(' . $one->pid . ')');
$before = time();
$one->result;
error_came($one, '57014', undef, 'a call that waits for a lock at the other broker can be cancelled');
cmp_ok(time() - $before, '<', 2, '... soon');
wait_until($wa, 'SELECT count(*) = 0 FROM (' . peers_of(1, "wait_event_type = 'Lock'") . ') p', '... and waits there no longer');
$two->query_ok('COMMIT');
result_is($wb, "SELECT committed_offset FROM consumer_group_status WHERE consumer_group = 'i' AND partition = 3", '1', '... nor does anything');

# --- connections that break ---

end_peers(1);
result_is($one, "SELECT partition FROM produce('t', 'new connection', partition => 2)", '2', 'a connection that was lost between transactions is replaced');
$wa->query_ok("SELECT pg_terminate_backend(pid) FROM (" . peers_of(1) . ") p");
result_is($one, "SELECT partition FROM produce('t', 'new connection', partition => 2)", '2', '... also when nobody has noticed it yet');
$wa->query_ok("SELECT pg_terminate_backend(pid) FROM (" . peers_of(1) . ") p");
$one->query_ok("SELECT count(*) FROM consume('c', 'w')");
$wa->query_ok("SELECT pg_terminate_backend(pid) FROM (" . peers_of(1) . ") p");
$one->query_ok("SELECT count(*) FROM fetch_messages('c', 3, 0)");
ok(1, '... by consume() and fetch_messages()');
$one->query_ok("BEGIN; SELECT produce('t', 'lost', partition => 2)");
end_peers(1);
error_is($one, "SELECT produce('t', 'lost too', partition => 2)", '08006', qr/connection to broker 2 was lost/, 'one that is lost within a transaction is an error');
$one->query_ok('ROLLBACK');
$one->query_ok("BEGIN; SELECT produce('t', 'lost', partition => 2)");
end_peers(1);
error_is($one, 'COMMIT', '08006', qr/connection to broker 2 was lost/, '... at the commit too');
$one->query_ok("BEGIN; SELECT value FROM consume('c', 'g9', 1)") for 1;
$one->query_ok("SELECT value FROM consume('c', 'g9', 1)") for 1 .. 3;
end_peers(1);
error_is($one, 'COMMIT', '08006', qr/connection to broker 2 was lost/, '... of a consumer');
$one->query_ok("BEGIN; SAVEPOINT s; SELECT produce('t', 'lost', partition => 2)");
end_peers(1);
error_is($one, "SELECT produce('t', 'lost too', partition => 2)", '08006', undef, 'one that is lost in a subtransaction');
$one->query_ok("ROLLBACK TO s; SELECT produce('t', 'after all', partition => 2); COMMIT");
is(last_value($two, 2), 'after all', '... is that one\'s error, if nothing else was done there');
# The transaction there was begun by a subtransaction that was rolled back, and was used after that.
$one->query_ok("BEGIN; SAVEPOINT s; SELECT produce('t', 'undone', partition => 2); ROLLBACK TO s; RELEASE s; SELECT produce('t', 'lost', partition => 2); SAVEPOINT s");
end_peers(1);
error_is($one, "SELECT produce('t', 'lost too', partition => 2)", '08006', undef, 'one that is lost in a later subtransaction');
$one->query_ok('ROLLBACK TO s');
error_is($one, 'COMMIT', '08006', qr/connection to broker 2 was lost/, '... is the error of the whole, if something was done there before');

# --- a broker that is not there ---

create("'far', partitions => 2", 'far', 1, 3);
error_is($one, "SELECT produce('far', 'x', partition => 1)", '08001', qr/could not connect to broker 3/, 'a leader that is not there');
unlike($one->error, qr/geheim/, '... and no password is shown');
error_is($one, "SELECT produce('far', 'x', partition => 1)", '08001', qr/could not connect to broker 3/, '... again');
error_is($one, "SELECT fetch_messages('far', 1, 0)", '08001', qr/could not connect to broker 3/, '... for a reader');
$one->query_ok("SELECT produce('far', 'near', partition => 0)");
result_is($one, "SELECT value FROM consume('far', 'g')", 'near', 'messages of others are there');
error_is($one, "SELECT value FROM consume('far', 'g')", '08001', qr/could not connect to broker 3/, '... and when there are none left, it is an error');
$one->send("SELECT value FROM consume('far', 'g', max_wait => '60 s')");
usleep(200_000);
$wa->query_ok("SELECT produce('far', 'nearer', partition => 0)");
is($one->result // $one->error, 'nearer', 'a consumer waits for the others');
$before = time();
error_is($one, "SELECT value FROM consume('far', 'g', max_wait => '60 s')", '08001', undef, '... for a while');
cmp_ok(time() - $before, '<', 5, '... not for ever');
error_is($one, "CALL wait_for_messages('far', 'g', '60 s')", '08001', undef, '... and so does wait_for_messages()');

# It is another one.
$_->query_ok("UPDATE pgtopic.broker SET conninfo = (SELECT conninfo FROM pgtopic.broker WHERE id = 2) WHERE id = 3") for $wa, $wb;
usleep(1_100_000);
error_is($one, "SELECT produce('far', 'x', partition => 1)", '08001', qr/The database there is broker 2/, 'a connection that leads to another broker');
$wb->query_ok("UPDATE pgtopic.cluster SET cluster_id = 'fedcba9876543210'");
usleep(1_100_000);
error_is($one, "SELECT produce('far', 'x', partition => 1)", '08001', qr/another cluster/, '... or another cluster');
$wb->query_ok("UPDATE pgtopic.cluster SET cluster_id = '$cluster_id'");
$wa->query_ok("UPDATE pgtopic.broker SET conninfo = 'no=such geheim' WHERE id = 3");
usleep(1_100_000);
error_is($one, "SELECT produce('far', 'x', partition => 1)", '08001', qr/malformed/, 'a malformed connection string');
unlike($one->error, qr/geheim/, '... of which nothing is shown');

# --- leaders that change ---

create("'moving', partitions => 2", 'moving', 1, 2);
# only the leader knows yet that it is none
sql($node, "UPDATE pgtopic.partition SET leader = 1 WHERE topic_id = (SELECT id FROM pgtopic.topic WHERE name = 'moving'); UPDATE pgtopic.topic SET name = name WHERE name = 'moving'", 'b2');
$one->send("SELECT partition FROM produce('moving', 'patient', partition => 1)");
usleep(300_000);
ok(!$one->is_done, 'a leader that has just gone is looked for');
lead('moving', 1, 1);
is($one->result // $one->error, '1', '... until it is found');
result_is($two, "SELECT value FROM fetch_messages('moving', 1, 0)", 'patient', '... here');
# what is sent again is what was sent first, also of values with short headers, as a table's rows have: it was garbage
$one->query_ok("CREATE TEMP TABLE short AS SELECT 'short ' || n AS v FROM generate_series(1, 50) n");
for my $statement ("INSERT INTO topics.moving (partition, key, value) SELECT 1, v, v FROM short ORDER BY v",
	"WITH i AS (INSERT INTO topics.moving (partition, key, value) SELECT 1, v, v FROM short ORDER BY v RETURNING *) SELECT FROM i LIMIT 0",
	"SELECT FROM short, produce('moving', v, key => v, partition => 1) LIMIT 1")
{
	lead('moving', 1, 2);
	sql($node, "UPDATE pgtopic.partition SET leader = 1 WHERE topic_id = (SELECT id FROM pgtopic.topic WHERE name = 'moving'); UPDATE pgtopic.topic SET name = name WHERE name = 'moving'", 'b2');
	$one->send($statement);
	usleep(300_000);
	ok(!$one->is_done, 'the leader is looked for');
	lead('moving', 1, 2);
	is($one->result // $one->error, '', '... and has what was sent again');
}
result_is($two, "SELECT count(*), count(DISTINCT value), bool_and(key = value AND value ~ '^short [0-9]+\$') FROM fetch_messages('moving', 1, 0, 1000) WHERE value <> 'patient'", '101|50|t', '... as it was');
# a handover
$wa->query_ok("UPDATE pgtopic.partition SET successor = 2 WHERE topic_id = (SELECT id FROM pgtopic.topic WHERE name = 'moving') AND partition = 1; UPDATE pgtopic.topic SET name = name WHERE name = 'moving'");
$one->send("SELECT partition FROM produce('moving', 'handed over', partition => 1)");
usleep(300_000);
ok(!$one->is_done, 'a handover is waited for');
$wa->query_ok("UPDATE pgtopic.partition SET successor = 0 WHERE topic_id = (SELECT id FROM pgtopic.topic WHERE name = 'moving')");
lead('moving', 1, 2);
is($one->result // $one->error, '1', '... and then the new leader has it');
result_is($one, "SELECT value FROM fetch_messages('moving', 1, 0) ORDER BY log_offset DESC LIMIT 1", 'handed over', '... at the other broker');
error_is($wb, "SELECT pgtopic.peer_produce((SELECT id FROM pgtopic.topic WHERE name = 'moving'), 0, ARRAY['x'::bytea], NULL, NULL, NULL, now())", '57P03',
	qr/broker 2 does not lead partition 0 of topic "moving"/, 'a peer does not pass calls on');
$one->query_ok("BEGIN; SELECT produce('moving', 'first', partition => 1)");
sql($node, "UPDATE pgtopic.partition SET leader = 1 WHERE topic_id = (SELECT id FROM pgtopic.topic WHERE name = 'moving') AND partition = 1; UPDATE pgtopic.topic SET name = name WHERE name = 'moving'", 'b2');
error_is($one, "SELECT produce('moving', 'second', partition => 1)", '57P03', qr/does not lead/, 'after something was written there, it is an error');
$one->query_ok('ROLLBACK');
lead('moving', 1, 2);

# --- producers that number their messages ---

create("'numbered', partitions => 4", 'numbered', 1, 1, 2, 2);
my $last = "SELECT coalesce(string_agg(producer || ' ' || partition || ' ' || last_sequence || ' ' || last_offset, ', ' ORDER BY 1), '') FROM producer_status WHERE topic = 'numbered'";
result_is($one, "SELECT * FROM produce('numbered', 'a', producer => 'p', sequence => 0, partition => 2)", '2|0', 'a numbered message goes to the other broker');
result_is($two, "SELECT * FROM produce('numbered', 'a', producer => 'p', sequence => 0, partition => 2)", '2|0', '... and is not repeated there');
result_is($one, "SELECT * FROM produce_batch('numbered', ARRAY['b', 'c'], producer => 'p', sequence => 1, partition => 2)", '2|1|2', '... a batch');
result_is($one, "SELECT * FROM produce_batch('numbered', ARRAY['b', 'c'], producer => 'p', sequence => 1, partition => 2)", '2|1|2', '... is not either');
result_is($wb, $last, 'p 2 2 2', '... the leader remembers it');
result_is($wa, $last, '', '... nobody else');
error_is($one, "SELECT produce('numbered', 'x', producer => 'p', sequence => 7, partition => 2)", '22003', qr/sequence 7 of producer "p" leaves a gap in partition 2 of topic "numbered"\nDETAIL:  The next sequence is 3/, '... and complains of a gap');
error_is($one, "SELECT produce('numbered', 'x', producer => 'p', sequence => 1, partition => 2)", '22023', undef, '... and of another call');
result_is($_, "SELECT partition = partition_for_key('numbered', 'somebody') FROM produce('numbered', 'x', producer => 'somebody', sequence => 0)", 't', 'without a key its name decides, on each broker')
  for $one, $two;
is(join(' ', map { $_->query_ok("SELECT count(*) FROM fetch_messages('numbered', partition_for_key('numbered', 'somebody'), 0)") } $one, $two), '1 1', '... so there is one message');
$one->query_ok("BEGIN; SELECT produce('numbered', 'rolled back', producer => 'p', sequence => 3, partition => 2); SAVEPOINT s");
$one->query_ok("SELECT produce('numbered', 'rolled back', producer => 'p', sequence => 4, partition => 2); ROLLBACK TO s");
result_is($one, "SELECT * FROM produce('numbered', 'x', producer => 'p', sequence => 4, partition => 2)", '2|5', 'a savepoint takes the number back there');
$two->send("SELECT * FROM produce('numbered', 'first', producer => 'p', sequence => 3, partition => 2)");
wait_until($wb, "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = " . $two->pid);
$one->query_ok('ROLLBACK');
is($two->result // $two->error, '2|6', 'who repeats it meanwhile waits, and is the first after a rollback');
error_is($one, "BEGIN; SELECT produce('numbered', 'first', producer => 'p', sequence => 3, partition => 2); PREPARE TRANSACTION 'x'", '0A000', undef, 'a repeated call cannot be prepared');
$one->query('ROLLBACK');
# a broker with the functions of version 0.2.0 calls without the last arguments
result_is($wb, "SELECT pgtopic.peer_produce('numbered'::topic::int, 2, ARRAY['x'::bytea], NULL, NULL, NULL, now())", '7', 'brokers of the version before produce here');

# Where a broker has no replica, it has no tables either.
create("'bare', partitions => 2", 'bare', 1, 2);
for my $broker (1, 2)
{
	my $id = sql($node, "SELECT id FROM pgtopic.topic WHERE name = 'bare'", "b$broker");
	my $not_here = $broker == 1 ? 1 : 0;
	sql($node, "DROP TABLE pgtopic.t${id}_p$not_here, pgtopic.t${id}_p${not_here}_offsets", "b$broker");
}
lead('bare', 1, 2);
for my $s ($one, $two)
{
	$s->query_ok("SELECT produce('bare', 'zero', partition => 0), produce('bare', 'one', partition => 1)");
	is(consume_all($s, 'g', 'bare'), 'one zero', 'a broker without any table of a partition serves it');
	result_is($s, "SELECT string_agg(value, ' ') FROM generate_series(0, 1) p, fetch_messages('bare', p, 0, 1)", 'zero one', '... to readers');
	result_is($s, "SELECT sum(new_offset) FROM reset_offsets('g', 'bare', 'latest')", $s == $one ? '2' : '4', '... and groups');
}

# A topic that the other broker has not heard of yet.
sql($node, "SELECT nextval('pgtopic.topic_id_seq')", 'b2');
make_alone(1, "create_topic('new', partitions => 2)");
sql($node, "UPDATE pgtopic.partition SET leader = 1 + partition WHERE topic_id = (SELECT id FROM pgtopic.topic WHERE name = 'new'); UPDATE pgtopic.topic SET name = name WHERE name = 'new'", 'b1');
$wa->query_ok("SELECT produce('new', 'here', partition => 0)");
result_is($one, "SELECT value FROM consume('new', 'g', max_wait => '1 s')", 'here', 'a topic that the other broker has not heard of');
result_is($one, "SELECT count(*) FROM consume('new', 'g', max_wait => '300 ms')", '0', '... gives nothing from there');
$one->send("SELECT partition FROM produce('new', 'there', partition => 1)");
usleep(300_000);
ok(!$one->is_done, '... and takes nothing');
make_alone(2, "setval('pgtopic.topic_id_seq', (SELECT last_value - 1 FROM pgtopic.topic_id_seq)), create_topic('new', partitions => 2)");
lead('new', 1, 2);
is($one->result // $one->error, '1', '... until it has');
is(consume_all($two, 'g', 'new'), 'there', '... which is then there');

# --- privileges ---

{
	my $alice = session($node, 'b1', user => 'alice');

	sql($node, 'GRANT CREATE ON SCHEMA topics TO alice', "b$_") for 1, 2;
	make_alone($_, "create_topic('hers', partitions => 2)", 'alice') for 1, 2;
	lead('hers', 1, 2);
	result_is($alice, "SELECT partition FROM produce('hers', 'mine', partition => 1)", '1', 'a role without rights at the other broker produces there');
	result_is($alice, "SELECT value FROM consume('hers', 'g')", 'mine', '... and consumes');
	error_is($alice, "SELECT produce('t', 'not mine', partition => 2)", '42501', qr/permission denied for topic "t"/, '... but to a topic of its own only');
	error_is($alice, "SELECT consume('t', 'g')", '42501', undef, '... to consume too');
	error_is($alice, "SELECT delete_messages('t', 2, 0)", '42501', undef, '... and to delete');
	error_is($alice, 'SELECT pgtopic.peer_identity()', '42501', undef, "the peers' functions are not for everybody");
	sql($node, 'GRANT USAGE ON SCHEMA pgtopic TO alice', 'b1');
	result_is($alice, "SELECT string_agg(proname, ' ') FROM pg_proc WHERE pronamespace = 'pgtopic'::regnamespace AND proname LIKE 'peer\\_%' AND has_function_privilege(oid, 'EXECUTE')",
		'', '... even in reach');
	$alice->quit;
	my $peer = session($node, 'b2', user => 'peer');
	error_is($peer, 'SELECT count(*) FROM pgtopic.broker', '42501', undef, 'the role of peers can do no more than call them');
	error_is($peer, "SELECT produce('t', 'x', partition => 2)", '42501', undef, '... not even produce for itself');
	$peer->quit;
}

# --- between the two commits ---

# Of the other broker's commit, nobody waits for a standby.
sql($node, 'ALTER ROLE peer SET synchronous_commit = local');
end_peers(1);
$one->query_ok('CREATE TABLE done (id text)');

sub standbys
{
	my ($names) = @_;
	$node->append_conf('postgresql.conf', "synchronous_standby_names = '$names'");
	$node->reload;
	wait_until($wa, 'SHOW synchronous_standby_names', undef, $names);
	return if $names eq '';

	# Commits wait only when the checkpointer has read it too.
	my $probe = session($node, 'b1');
	my $pid = $probe->pid;
	for (my ($try, $waits) = (1, 0); !$waits; $try++)
	{
		my $query = "SELECT pg_logical_emit_message(true, 'probe', '$try')";
		my $state = "FROM pg_stat_activity WHERE pid = $pid AND strpos(query, \$q\$$query\$q\$) = 1";
		$probe->send($query);
		wait_until($wa, "SELECT wait_event = 'SyncRep' OR state = 'idle' $state");
		$waits = $wa->query("SELECT wait_event = 'SyncRep' $state") eq 't';
		$wa->query_ok("SELECT pg_cancel_backend($pid)") if $waits;
		$probe->result // die $probe->error;
	}
	$probe->quit;
	return;
}

# A serialization failure comes before anything is committed anywhere.
{
	my $other = session($node, 'b1');
	for my $s ($one, $other)
	{
		$s->query_ok("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM done");
	}
	$one->query_ok("INSERT INTO done VALUES ('skew one'); SELECT produce('t', 'skew', partition => 2)");
	$other->query_ok("INSERT INTO done VALUES ('skew two'); COMMIT");
	error_is($one, 'COMMIT', '40001', undef, 'a serialization failure at the commit');
	isnt(last_value($two, 2), 'skew', '... leaves nothing at the other broker');
	$other->quit;
}

# Who notifies holds a lock until it has committed, and that waits for a standby.  So
# another who notifies waits behind what it does before its commit.
sub hold_notify
{
	my $holder = session($node, 'b1');
	standbys('nobody');
	$holder->pid;
	$holder->send("BEGIN; INSERT INTO done VALUES ('holder'); NOTIFY x; COMMIT");
	wait_until($wa, "SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = " . $holder->pid);
	return $holder;
}
sub commit_behind
{
	my ($value, $numbered) = @_;
	$numbered //= '';
	$one->query_ok("BEGIN; INSERT INTO done VALUES ('$value'); SELECT produce('t', '$value', partition => 2$numbered); NOTIFY x");
	$one->send('COMMIT');
	wait_until($wa, "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = " . $one->pid);
	is(last_value($two, 2), $value, 'what was produced has been committed at the other broker');
	result_is($wa, "SELECT count(*) FROM done WHERE id = '$value'", '0', '... before the local transaction');
	return;
}
my $holder = hold_notify();
my $numbered = ", producer => 'p', sequence => 5";
commit_behind('cancelled in between', $numbered);
$wa->query_ok('SELECT pg_cancel_backend(' . $one->pid . ')');
$one->result;
error_came($one, '57014', undef, 'an error between the two');
like($one->notices, qr/WARNING:  08007: broker 2 has committed/, '... comes with a warning');
result_is($wa, "SELECT count(*) FROM done WHERE id = 'cancelled in between'", '0', '... and rolls back here');
is(last_value($two, 2), 'cancelled in between', '... alone');
standbys('');
$holder->result;
$holder->quit;
my $count = "SELECT count(*) FROM fetch_messages('t', 2, 0, 100000) WHERE value = 'cancelled in between'";
result_is($wb, $count, '1', 'what was committed there alone');
$one->query_ok("BEGIN; INSERT INTO done VALUES ('cancelled in between'); SELECT produce('t', 'cancelled in between', partition => 2$numbered); NOTIFY x; COMMIT");
result_is($wb, $count, '1', '... does not come twice when the transaction is repeated, if it is numbered');
result_is($wa, "SELECT count(*) FROM done WHERE id = 'cancelled in between'", '1', '... and that is committed here then');

# The consumed commits last.
create("'w', partitions => 2", 'w', 1, 2);
sub consume_and_hang
{
	my ($value) = @_;
	$wb->query_ok("SELECT produce('w', '$value', partition => 1)");
	standbys('nobody');
	$one->query_ok("BEGIN; INSERT INTO done SELECT value FROM consume('w', 'g')");
	$one->send('COMMIT');
	wait_until($wa, "SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = " . $one->pid);
	result_is($wb, "SELECT coalesce((SELECT lag FROM consumer_group_status WHERE consumer_group = 'g' AND topic = 'w' AND partition = 1), 1)", '1', 'what was consumed is not committed yet at the other broker');
	return;
}
consume_and_hang('lost in between');
end_peers(1);
standbys('');
$one->result // die $one->error;
like($one->notices, qr/WARNING:  08007: broker 2 may not have committed/, 'a connection that is lost between the two: a warning');
result_is($wa, "SELECT count(*) FROM done WHERE id = 'lost in between'", '1', '... since the transaction is committed here');
is(consume_all($two, 'g', 'w'), 'lost in between', '... and the message comes again');

consume_and_hang('well in between');
standbys('');
$one->result // die $one->error;
is($one->notices, '', 'if nothing happens between the two');
is(consume_all($two, 'g', 'w'), '', '... it counts once');

# Crashes.
sub crash
{
	kill_backend($one->pid);
	$_->quit for $one, $two, $wa, $wb;
	$node->poll_query_until('postgres', 'SELECT true') or die 'the server is gone';
	$wa = session($node, 'b1');
	$wb = session($node, 'b2');
	$one = session($node, 'b1');
	$two = session($node, 'b2');
	return;
}
consume_and_hang('consumed in a crash');
crash();
standbys('');
result_is($wa, "SELECT count(*) FROM done WHERE id = 'consumed in a crash'", '1', 'a crash between the two: the consumer is committed');
is(consume_all($one, 'g', 'w'), 'consumed in a crash', '... and its message comes again');

$holder = hold_notify();
commit_behind('produced in a crash');
crash();
standbys('');
$holder->quit;
result_is($wa, "SELECT count(*) FROM done WHERE id = 'produced in a crash'", '0', 'a crash between the two: the producer is not committed');
is(last_value($one, 2), 'produced in a crash', '... and its message is there');
result_is($one, "SELECT partition FROM produce('t', 'all is well', partition => 2)", '2', 'and all is well');

$_->quit for $one, $two, $wa, $wb;
# The cluster is made by hand: after a crash its workers find that nothing is prepared for replication, and one broker nowhere.
log_is_clean($node, crash => 1, allow => [qr/pgtopic replication failed while dropping replication slots left behind at broker 3: could not connect/,
	qr/DETAIL:  connection to server on socket "\/nowhere/, qr/pgtopic replication failed while following broker \d: logical decoding requires "?wal_level/,
	qr/DETAIL:  server closed the connection unexpectedly/, qr/pgtopic broker 1 LOG:  unexpected EOF on client connection/]);
done_testing();
