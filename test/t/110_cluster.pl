# A cluster of three brokers when nothing goes wrong: how it is made, where partitions
# are, and that any broker serves any partition.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgtopicCluster;
use PgtopicLoad;
use PgtopicTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# --- a server whose settings do not suffice ---

my $small = new_node('small', conf => "max_logical_replication_workers = 2\nmax_worker_processes = 8");
my $s = session($small);
$s->query("SELECT create_cluster('host=127.0.0.1')");
is($s->sqlstate, '55000', 'create_cluster() is refused where settings do not suffice');
# max_replication_slots is 10 by default, which is enough for three
like($s->error, qr/\Q$_\E/, "... and names $_") for 'wal_level = logical', 'max_wal_senders', 'max_logical_replication_workers', 'max_worker_processes';
unlike($s->error, qr/max_replication_slots/, '... and not what suffices');
like($s->error, qr/HINT: .*restart/, '... and tells what to do');
result_is($s, 'SELECT count(*) FROM pgtopic.cluster', '0', '... and nothing has changed');
$s->query_ok("SELECT create_topic('t')");
result_is($s, "SELECT log_offset FROM produce('t', 'x')", '0', '... and it works as before');
$s->quit;
$small->stop;

# --- create_cluster(): errors ---

my $cluster = PgtopicCluster->new(brokers => 3, proxies => 1,
	conf => "pgtopic.checkpoint_interval = '100ms'\npgtopic.broker_session_timeout = '2s'");
my @s = (undef, map { $cluster->session($_) } $cluster->numbers);

# Broker 1 has a topic already, with a gap, a group, and deleted messages.
$s[1]->query_ok($_) for split /;\n/, <<'EOC';
SELECT create_topic('old', partitions => 2, retention => NULL);
SELECT produce_batch('old', ARRAY(SELECT 'old' || n FROM generate_series(0, 99) n), partition => 0);
SELECT produce('old', 'one', key => 'k', headers => '{"a": 1}', partition => 1);
SELECT consume('old', 'g', 10);
SELECT delete_messages('old', 0, 5);
EOC
my $old = 'SELECT partition, log_start_offset, high_watermark, log_end_offset FROM partition_status WHERE topic = $$old$$ ORDER BY 1';
my $old_state = $s[1]->query_ok($old);

error_is($s[1], "SELECT create_cluster('this is no conninfo')", '22023', qr/invalid connection string/, 'not a conninfo');
$s[1]->query("SELECT create_cluster('service=nobody')");
isnt($s[1]->error, '', 'a service that is not in the file is an error');
error_is($s[1], "SELECT create_cluster('service=broker2')", '22023', qr/leads to another database/, "another broker's conninfo");
error_is($s[1], "SELECT create_cluster('service=broker1 password=wrong')", '08001', qr/password authentication failed/, 'a wrong password');
error_is($s[1], "SELECT create_cluster(NULL)", '22004', qr/must not be null/i, 'NULL');
error_is($s[1], "BEGIN; SELECT create_cluster('service=broker1')", '25001', qr/create_cluster\(\) cannot run inside a transaction block/, 'not in a transaction');
$s[1]->query('ROLLBACK');
$s[1]->query_ok('CREATE ROLE nobody');
error_is($s[1], "SET ROLE nobody; SELECT create_cluster('service=broker1')", '42501', qr/permission denied/, 'not by anybody');
$s[1]->query_ok('RESET ROLE');
error_is($s[2], "SELECT join_cluster('service=broker1', 'service=broker2')", '55000', qr/is not a broker of a cluster/, 'there is no cluster to join yet');
error_is($s[2], "SELECT $_", '55000', qr/not a broker of a cluster/, "no cluster: $_") for 'leave_cluster()', 'remove_broker(2)';
error_is($s[1], "SELECT $_", '55000', qr/not a broker of a cluster/, "no cluster: $_") for "move_partition('old', 0, '{1}')", "elect_leader('old', 0)";
result_is($s[1], 'SELECT count(*) FROM pgtopic.cluster', '0', 'after all these, broker 1 is in no cluster');
result_is($s[1], $old, $old_state, '... and its topic is as it was');

# --- create and join ---

$cluster->create_first;
$cluster->wait_until(1, 'SELECT count(*) = 1 AND bool_and(is_self AND is_controller) FROM broker_status', 'a cluster of one');
result_is($s[1], 'SELECT broker, conninfo, partitions_led, replicas FROM broker_status', "1|service='broker1'|2|2", '... has a broker with what there was');
result_is($s[1], $old, $old_state, '... its topic is as it was');
result_is($s[1], "SELECT log_offset FROM produce('old', 'more', partition => 1)", '1', '... and goes on');
error_is($s[1], "SELECT create_cluster('service=broker1')", '55000', qr/a broker of a cluster already/, '... not twice');
error_is($s[1], "SELECT join_cluster('service=broker2', 'service=broker1')", '55000', qr/a broker of a cluster already/, '... nor can it join another one');

$s[2]->query_ok("SELECT create_topic('mine')");
error_is($s[2], "SELECT join_cluster('service=broker1', 'service=broker2')", '55000', qr/that has topics cannot join/, 'a database with topics cannot join');
$s[2]->query_ok("SELECT drop_topic('mine')");
error_is($s[2], "SELECT join_cluster('service=broker1', 'service=broker3')", '22023', qr/leads to another database/, "nor with another's conninfo");
$cluster->join_broker(2);
$cluster->join_broker(3, 2);
for my $i (1 .. 3)
{
	$cluster->wait_until($i, "SELECT string_agg(broker || ' ' || conninfo, ', ' ORDER BY broker) FROM broker_status", "broker $i knows all three",
		"1 service='broker1', 2 service='broker2', 3 service='broker3'");
	result_is($s[$i], 'SELECT broker FROM broker_status WHERE is_self', $i, '... and itself');
	$cluster->wait_until($i, 'SELECT count(*) FROM broker_status WHERE is_controller', '... and a controller', '1');
}
is(join(' ', map { $cluster->ask($_, 'SELECT broker FROM broker_status WHERE is_controller') } 1 .. 3),
	join(' ', ($cluster->ask(1, 'SELECT broker FROM broker_status WHERE is_controller')) x 3), '... the same one');
$cluster->wait_until($_, 'SELECT count(DISTINCT state) = 1 AND min(last_seen) > now() - interval $$10 s$$ FROM broker_status WHERE NOT is_self', "broker $_ has seen the others") for 1 .. 3;
result_is($s[3], "SELECT partition, leader, replicas, isr FROM partition_status WHERE topic = 'old' ORDER BY 1", "0|1|{1}|{1}\n1|1|{1}|{1}", 'the topic that was there is seen by all');
for my $i (2, 3)
{
	result_is($s[$i], "SELECT count(*), min(value), max(log_offset) FROM fetch_messages('old', 0, 5)", '95|old10|99', "... and read through broker $i");
	error_is($s[$i], "SELECT fetch_messages('old', 0, 4)", '22003', qr/starts at 5/, '... from where it starts');
}

# --- topics, made on any broker ---

for my $i (1 .. 3)
{
	$s[$i]->query_ok("SELECT create_topic('t$i', partitions => 6, replication_factor => 3)");
	# at once, on all: the call returns when the others can see it, or they can ask the controller
	for my $j (1 .. 3)
	{
		$cluster->wait_until($j, "SELECT count(*) FROM partition_status WHERE topic::text = 't$i'", "a topic made on broker $i is seen by broker $j", '6');
	}
}
$cluster->wait_in_sync;
for my $i (1 .. 3)
{
	# in turns, so that each leads as many, and each partition's replicas are different brokers
	result_is($s[1], "SELECT array_agg(n ORDER BY leader) FROM (SELECT leader, count(*) n FROM partition_status WHERE topic = 't$i' GROUP BY leader) l", '{2,2,2}', "leaders of t$i are spread");
	result_is($s[2], "SELECT bool_and(ARRAY(SELECT DISTINCT r FROM unnest(replicas) r ORDER BY r) = '{1,2,3}'), bool_and(leader = replicas[1]) FROM partition_status WHERE topic = 't$i'",
		't|t', '... replicas are on all brokers, and the first leads');
}
$s[2]->query_ok("SELECT create_topic('single', partitions => 3)");
$s[3]->query_ok("SELECT create_topic('double', partitions => 3, replication_factor => 2)");
$cluster->wait_in_sync;
result_is($s[1], "SELECT bool_and(cardinality(replicas) = 1), count(DISTINCT leader) FROM partition_status WHERE topic = 'single'", 't|3', 'one replica each, on different brokers');
result_is($s[1], "SELECT bool_and(cardinality(replicas) = 2 AND replicas[1] <> replicas[2]), count(DISTINCT leader) FROM partition_status WHERE topic = 'double'", 't|3', 'two replicas each');
error_is($s[1], "SELECT create_topic('four', replication_factor => 4)", '22023', qr/replication.factor|brokers/, 'more replicas than brokers');
error_is($s[2], "SELECT create_topic('zero', replication_factor => 0)", '22023', qr/replication.factor/, 'no replicas');
error_is($s[3], "SELECT create_topic('t1')", '42710', qr/"t1" already exists/, 'a name that another broker has given');
error_is($s[1], "SELECT create_topic('m', replication_factor => 2, min_insync_replicas => 3)", '22023', qr/min.insync.replicas/, 'more in sync than there are');

$s[1]->query_ok("SELECT alter_topic('t2', 'retention', '1 day')");
$cluster->wait_until($_, "SELECT retention FROM topic_status WHERE topic = 't2'", "altered on 1: seen by broker $_", '1 day') for 1 .. 3;
$s[3]->query_ok("SELECT add_partitions('t1', 8)");
$cluster->wait_until($_, "SELECT partitions FROM topic_status WHERE topic = 't1'", "partitions added on 3: seen by broker $_", '8') for 1 .. 3;
$cluster->wait_in_sync;
$s[1]->query_ok("SELECT create_topic('gone', replication_factor => 3)");
$cluster->wait_in_sync;
$s[2]->query_ok("SELECT drop_topic('gone')");
$cluster->wait_until($_, "SELECT count(*) FROM pgtopic.topic WHERE name = 'gone'", "dropped on 2: gone on broker $_", '0') for 1 .. 3;
error_is($s[3], "SELECT produce('gone', 'x')", '42704', qr/"gone" does not exist/, '... and cannot be produced to');
# the name can be used again, and has none of the old one's messages
$s[3]->query_ok("SELECT create_topic('gone', replication_factor => 3)");
$cluster->wait_in_sync;
result_is($s[3], "SELECT log_offset FROM produce('gone', 'new')", '0', 'a topic of the same name begins anew');

# --- produce anywhere, read anywhere ---

for my $i (1 .. 3)
{
	for my $p (0 .. 5)
	{
		result_is($s[$i], "SELECT partition, log_offset FROM produce('t2', 'from $i', key => 'k$i', headers => '{\"by\": $i}', partition => $p)",
			"$p|" . ($i - 1), "produced on broker $i to partition $p");
	}
}
for my $i (1 .. 3)
{
	result_is($s[$i], "SELECT string_agg(value || ' ' || key || ' ' || (headers->>'by'), ', ' ORDER BY p, log_offset) FROM generate_series(0, 5) p, fetch_messages('t2', p, 0)",
		join(', ', ('from 1 k1 1, from 2 k2 2, from 3 k3 3') x 6), "all of it is read through broker $i, at once");
}
# the same key goes to the same partition wherever it is produced
result_is($s[1], "SELECT count(DISTINCT partition) FROM generate_series(1, 5), produce('t3', 'x', key => 'same')", '1', 'a key has one partition');
my $of_key = $s[1]->query_ok("SELECT partition FROM produce('t3', 'x', key => 'same')");
result_is($s[$_], "SELECT partition FROM produce('t3', 'x', key => 'same')", $of_key, "... on broker $_ as well") for 2, 3;

# batches over partitions led by different brokers, in one transaction, and none of it before its end
my $c = $cluster->session(2);
$c->query_ok("BEGIN; SELECT produce_batch('t3', ARRAY(SELECT 'b' || n FROM generate_series(1, 100) n), keys => ARRAY(SELECT 'key' || n FROM generate_series(1, 100) n))");
result_is($s[1], "SELECT count(*) FROM generate_series(0, 5) p, fetch_messages('t3', p, 0) WHERE value LIKE 'b%'", '0', 'an open transaction: nobody reads it');
$c->query_ok('COMMIT');
result_is($s[3], "SELECT count(*), count(DISTINCT partition) FROM generate_series(0, 5) p, fetch_messages('t3', p, 0) WHERE value LIKE 'b%'", '100|6', 'committed: all is there');
$c->query_ok("BEGIN; SELECT produce_batch('t3', ARRAY(SELECT 'never' FROM generate_series(1, 100) n), keys => ARRAY(SELECT 'key' || n FROM generate_series(1, 100) n)); ROLLBACK");
$c->query_ok("SELECT produce('t3', 'after', partition => p) FROM generate_series(0, 5) p");
result_is($s[1], "SELECT count(*) FILTER (WHERE value = 'never'), count(*) FILTER (WHERE value = 'after') FROM generate_series(0, 5) p, fetch_messages('t3', p, 0)", '0|6', 'rolled back: nothing is');
$c->query_ok("BEGIN; SELECT produce('t3', 'first', partition => p) FROM generate_series(0, 5) p; SAVEPOINT a; SELECT produce('t3', 'never', partition => p) FROM generate_series(0, 5) p; ROLLBACK TO a; SELECT produce('t3', 'last', partition => p) FROM generate_series(0, 5) p; COMMIT");
result_is($s[3], "SELECT count(*) FILTER (WHERE value = 'never'), count(*) FILTER (WHERE value IN ('first', 'last')) FROM generate_series(0, 5) p, fetch_messages('t3', p, 0)", '0|12', '... a savepoint alone, too');
$c->quit;

# statistics of a relation, at brokers that have one or two of the three partitions
$s[1]->query_ok("INSERT INTO topics.$_ (partition, key, value) SELECT n % 3, n % 10, n FROM generate_series(1, 3000) n") for 'single', 'double';
for my $i (1 .. 3)
{
	for my $topic ('single', 'double')
	{
		my $here = $s[$i]->query_ok("SELECT array_agg(partition ORDER BY partition) FROM partition_status WHERE topic = '$topic' AND $i = ANY (replicas)");
		# a follower hears a moment later
		$cluster->wait_until($i, "SELECT bool_and(high_watermark = 1000) FROM pgtopic.partition WHERE topic_id = '$topic'::topic::int AND partition = ANY ('$here')");
		$s[$i]->query_ok("ANALYZE topics.$topic");
		result_is($s[$i], "SELECT reltuples, relpages > 0 FROM pg_class WHERE oid = 'topics.$topic'::regclass", '3000|t', "$topic on broker $i: the planner knows how many messages there are");
		result_is($s[$i], "SELECT most_common_vals FROM pg_stats WHERE tablename = '$topic' AND attname = 'partition'", $here, '... from what is here');
		result_is($s[$i], "SELECT n_distinct FROM pg_stats WHERE tablename = '$topic' AND attname = 'key'", '10', '... and what keys there are');
		like($s[$i]->query_ok("EXPLAIN SELECT * FROM topics.$topic"), qr/rows=3000 /, '... and plans with it');
	}
}

# what somebody has made of a topic's relation at one broker, or of its name, keeps no broker from anything
$s[1]->query_ok("SELECT create_topic('viewed', replication_factor => 3)");
$cluster->wait_in_sync;
$s[2]->query_ok('CREATE ROLE viewer; GRANT CREATE ON SCHEMA public TO viewer; SET ROLE viewer; CREATE VIEW public.view_of_topic AS SELECT * FROM topics.viewed; RESET ROLE');
error_is($s[2], "SELECT drop_topic('viewed')", '2BP01', qr/cannot drop topic "viewed" because other objects depend on its relation.*view (?:public\.)?view_of_topic depends/s, 'a view at the broker that is asked to drop the topic is in the way');
$s[1]->query_ok("SELECT drop_topic('viewed')");
$cluster->wait_until($_, "SELECT count(*) FROM pgtopic.topic WHERE name = 'viewed'", "a view at another broker is not: broker $_", '0') for 1 .. 3;
error_is($s[2], 'SELECT * FROM view_of_topic', '42704', qr/"viewed" is not the relation of a topic/, '... and shows nothing any more');
$s[3]->query_ok('CREATE DOMAIN topics.named AS int');
$s[1]->query_ok("SELECT create_topic('named', replication_factor => 3)");
$s[1]->query_ok("SELECT create_topic('viewed', replication_factor => 3)");
$cluster->wait_in_sync;
for my $topic ('named', 'viewed')
{
	for my $i (1 .. 3)
	{
		my $offset = $s[$i]->query_ok("SELECT log_offset FROM produce('$topic', 'by $i')");
		result_is($s[$i], "SELECT value FROM fetch_messages('$topic', 0, $offset)", "by $i", "topic $topic is used at broker $i");
	}
}
like(PostgreSQL::Test::Utils::slurp_file($cluster->node($_->[0])->logfile), $_->[1], "the log of broker $_->[0] tells why it has no relation")
  for [ 2, qr/LOG:  pgtopic leaves foreign table topics.viewed, whose topic has been dropped: other objects depend on it/ ],
	[ 3, qr/LOG:  pgtopic topic "named" has no relation: type "named" already exists/ ];
$s[1]->query_ok("SELECT drop_topic('$_')") for 'named', 'viewed';
$cluster->wait_until($_, "SELECT count(*) FROM pgtopic.topic WHERE name IN ('named', 'viewed')", "... and dropped there: broker $_", '0') for 1 .. 3;
$s[2]->query_ok('DROP FOREIGN TABLE topics.viewed CASCADE; REVOKE CREATE ON SCHEMA public FROM viewer; DROP ROLE viewer');
$s[3]->query_ok('DROP DOMAIN topics.named');

# a reader that waits on one broker is woken by a producer on another
my $next = $s[1]->query_ok("SELECT high_watermark FROM partition_status WHERE topic = 'gone' AND partition = 0");
for my $i (1 .. 3)
{
	my $waiting = $cluster->session($i);
	$waiting->send("SELECT value FROM fetch_messages('gone', 0, $next, max_wait => '60 s')");
	my $by = $i % 3 + 1;
	$cluster->wait_until($i, 'SELECT state FROM pg_stat_activity WHERE pid = ' . $waiting->pid, undef, 'active');
	$s[$by]->query_ok("SELECT produce('gone', 'for $i')");
	is($waiting->result // $waiting->error, "for $i", "a reader on broker $i gets what is produced on broker $by");
	$next++;
	$waiting->quit;
}

# --- groups ---

my %got;
for my $i (1 .. 3)
{
	# a few from each, in turns
	for (split /\n/, $s[$i]->query_ok("SELECT partition || ' ' || log_offset FROM consume('t2', 'g', 2)")) { $got{$_}++; }
}
is(scalar(grep { $_ > 1 } values %got), 0, 'a group gets different messages on different brokers');
my $empty = 0;
for (my $i = 1; $empty < 6; $i = $i % 3 + 1)
{
	my @rows = split /\n/, $s[$i]->query_ok("SELECT partition || ' ' || log_offset FROM consume('t2', 'g', 2)");
	$got{$_}++ for @rows;
	$empty = @rows ? 0 : $empty + 1;
}
is(scalar(keys %got), 18, '... all of them');
is(scalar(grep { $_ > 1 } values %got), 0, '... each once');
for my $i (1 .. 3)
{
	$cluster->wait_until($i, "SELECT count(*), sum(lag) FROM consumer_group_status WHERE topic = 't2' AND consumer_group = 'g'", "... and broker $i says so", '6|0');
}
$s[1]->query_ok("BEGIN; SELECT count(*) FROM consume('old', 'h', 1000); ROLLBACK");
result_is($s[3], "SELECT count(*) > 0 FROM consume('old', 'h', 1000)", 't', 'what is rolled back is there again, for another broker too');
$s[2]->query_ok("SELECT reset_offsets('g', 't2', 'earliest')");
result_is($s[3], "SELECT sum(lag) FROM consumer_group_status WHERE topic = 't2' AND consumer_group = 'g'", '18', 'positions can be moved on any broker');
$s[3]->query_ok("SELECT commit_offset('g', 't2', 0, 2)");
result_is($s[1], "SELECT committed_offset FROM consumer_group_status WHERE topic = 't2' AND consumer_group = 'g' AND partition = 0", '2', '... of one partition, too');
$s[1]->query_ok("SELECT drop_consumer_group('g')");
$cluster->wait_until($_, "SELECT count(*) FROM consumer_group_status WHERE consumer_group = 'g'", "a group that is dropped is gone on broker $_", '0') for 1 .. 3;

$s[2]->query_ok("SELECT delete_messages('t2', 0, 2)");
error_is($s[3], "SELECT fetch_messages('t2', 0, 1)", '22003', qr/starts at 2/, 'messages can be deleted on any broker');

# --- acks ---

$s[1]->query_ok("SET pgtopic.acks = 'leader'");
$s[1]->query_ok("SELECT produce('t1', 'leader', partition => $_)") for 0 .. 7;
$s[1]->query_ok('RESET pgtopic.acks');
error_is($s[1], "SET pgtopic.acks = 'none'", '22023', qr/pgtopic.acks/, 'acks is all or leader');

# --- load on all, and views ---

my $load = PgtopicLoad->new($cluster, topic => 't1');
# keys enough that there are some for each partition
$load->producer("p$_", brokers => [$_], keys => 40) for 1 .. 3;
$load->producer('leader', settings => "SET pgtopic.acks = 'leader'");
$load->consumer("c$_", group => 'load', brokers => [$_]) for 1 .. 3;
$load->tail("t$_", partition => $_, brokers => [$_]) for 1 .. 3;
$load->await_progress(60);
$load->stop;
is($load->errors($_), '', "$_ had no errors") for $load->names;
$load->drain;
$load->check('load on all brokers', exactly_once => 1);
$cluster->same_content($_) for 't1', 't2', 't3', 'gone';

for my $topic ('t1', 't2')
{
	my $where = $cluster->poll(sub {
		my %said = map { $cluster->ask($_, "SELECT partition, leader, leader_epoch, replicas, log_start_offset, high_watermark, log_end_offset FROM partition_status WHERE topic = '$topic' ORDER BY 1") => 1 } 1 .. 3;
		return scalar keys %said;
	}, '1');
	is($where, '1', "partition_status of $topic is the same on all");
}
for my $i (1 .. 3)
{
	result_is($s[$i], "SELECT count(*) FROM replication_status r JOIN partition_status p USING (topic, partition) WHERE r.topic = 't1' AND p.leader = $i", 2 * grep({ $_->{leader} == $i } values %{ $cluster->partitions('t1') }),
		"replication_status: broker $i tells of two followers for each partition that it leads");
	$cluster->wait_until($i, "SELECT bool_and(r.in_sync AND r.lag_bytes = 0) FROM replication_status r JOIN partition_status p USING (topic, partition) WHERE p.leader = $i", '... which are in sync and have no lag');
	result_is($s[$i], "SELECT count(*) FILTER (WHERE r.follower IS NULL OR r.in_sync IS NULL OR r.state <> 'ready'), count(*) FILTER (WHERE (r.lag_bytes IS NULL OR r.last_caught_up IS NULL) = (p.leader = $i)) FROM replication_status r JOIN partition_status p USING (topic, partition)",
		'0|0', '... with all columns, and of its own copies with those that it knows');
	result_is($s[$i], 'SELECT sum(partitions_led), sum(replicas) FROM broker_status', $s[$i]->query_ok('SELECT count(*), sum(cardinality(replicas)) FROM partition_status'), 'broker_status counts partitions and replicas');
	result_is($s[$i], "SELECT count(*) FROM worker_status WHERE last_error IS NOT NULL AND last_error_at > now() - interval '10 s'", '0', 'no worker has had an error lately');
}
# followers do not keep WAL back for nothing
$cluster->wait_until($_, "SELECT coalesce(bool_and(active), true) FROM pg_replication_slots", "broker $_ has no slot that nobody uses") for 1 .. 3;

$_->quit for @s[ 1 .. 3 ];
$cluster->stop_all;
log_is_clean($small);
$cluster->log_clean(allow => [ qr/replication slot "[^"]*" does not exist/ ]);
done_testing();
