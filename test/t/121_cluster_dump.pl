# pg_dump of one broker of a cluster, restored into a plain server: a database of its own,
# which takes messages for all partitions.  Those that the broker had a replica of have what
# it had, the others begin with nothing.
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
use Time::HiRes qw(usleep);

my $folder = PostgreSQL::Test::Utils::tempdir;
my $cluster = PgtopicCluster->new(brokers => 3, conf => "pgtopic.checkpoint_interval = '100ms'\npgtopic.leader_rebalance_interval = -1\n");
$cluster->create;
my $s = $cluster->session(1);

# all copies everywhere, some here, and none here
$s->query_ok("SELECT create_topic('full', partitions => 3, replication_factor => 3, min_insync_replicas => 2, segment_messages => 1000)");
$s->query_ok("SELECT create_topic('some', partitions => 6, replication_factor => 2)");
$s->query_ok("SELECT create_topic('elsewhere', partitions => 2, replication_factor => 1)");
$cluster->wait_in_sync;
$s->query_ok("SELECT move_partition('elsewhere', $_, '{3}')") for 0, 1;
$cluster->wait_until($_, "SELECT bool_and(replicas = '{3}') FROM partition_status WHERE topic::text = 'elsewhere'", "broker $_: a topic is on broker 3 alone") for 1 .. 3;
# epochs of leaders are remembered with the positions
$s->query_ok("SELECT elect_leader('full', 0, 2)");
$cluster->wait_in_sync;
$s->query_ok("SELECT elect_leader('full', 0, 1)");
$cluster->wait_in_sync;
$s->query_ok($_) for split /;\n/, <<'EOC';
SELECT produce_batch('full', ARRAY(SELECT 'v' || n FROM generate_series(1, 3000) n), ARRAY(SELECT 'k' || n % 50 FROM generate_series(1, 3000) n));
SELECT produce('full', 'numbered', producer => 'p', sequence => 7, partition => 1);
SELECT produce('some', 'x' || p || '-' || n, partition => p) FROM generate_series(0, 5) p, generate_series(1, 10) n;
SELECT produce('elsewhere', 'far', partition => 0);
SELECT delete_messages('full', 2, 100);
SELECT count(*) FROM consume('full', 'g', 100);
SELECT count(*) FROM consume('full', 'g', 100);
SELECT create_consumer_group('late', 'full', 'latest');
EOC
$cluster->wait_in_sync;
$cluster->same_content($_) for 'full', 'some';

my $target = new_node('target', extension => 0, conf => <<'EOC');
pgtopic.checkpoint_interval = '20ms'
max_locks_per_transaction = 256
max_worker_processes = 32
wal_level = logical
max_replication_slots = 20
max_wal_senders = 20
max_logical_replication_workers = 16
EOC
# roles are no part of a dump
sql($target, 'CREATE ROLE pgtopic_peer LOGIN REPLICATION');

sub run_quietly
{
	my ($name, @command) = @_;
	my ($out, $err);
	my $good = IPC::Run::run(\@command, '<', '/dev/null', '>', \$out, '2>', \$err);
	ok($good && $err eq '', $name) or diag($err);
	return;
}

# What a broker has of a topic's partitions, as the dump is to have it.
sub content
{
	my ($session, $topic, @partitions) = @_;
	return join("\n", map {
		$session->query_ok("SELECT $_, count(*), md5(string_agg(md5(m::text), '' ORDER BY m.log_offset)) FROM partition_status s, fetch_messages('$topic', $_, s.log_start_offset, 100000) m WHERE s.topic = '$topic' AND s.partition = $_")
	} @partitions);
}

for my $case (
	[ 'plain', 1, 'plain.sql', '--no-publications', '--no-subscriptions' ],
	[ 'parallel', 2, 'parallel', '--no-publications', '--no-subscriptions', '-Fd', '-j', '2' ],
	[ 'with publications and subscriptions', 3, 'all.dump', '-Fc' ])
{
	my ($name, $broker, $file, @options) = @$case;
	my $node = $cluster->node($broker);
	my $dbname = "restored$broker";

	# it knows what is settled a moment later than the leader
	my $settled = "SELECT string_agg(high_watermark::text, ' ' ORDER BY partition) FROM partition_status WHERE topic::text = 'full'";
	$cluster->wait_until($broker, $settled, undef, $cluster->ask_ok(1, $settled));
	my $b = $cluster->session($broker);
	my @here = split / /, $b->query_ok("SELECT string_agg(partition::text, ' ' ORDER BY partition) FROM partition_status WHERE topic = 'some' AND $broker = ANY (replicas)");
	is(scalar(@here), 4, "$name: broker $broker has four of six partitions");
	my %expected = (full => content($b, 'full', 0 .. 2), some => content($b, 'some', @here));
	my $group = $b->query_ok("SELECT string_agg(partition || ' ' || committed_offset, ',' ORDER BY partition) FROM consumer_group_status WHERE consumer_group = 'g'");

	run_quietly("$name: dumped", $node->installed_command('pg_dump'), '-d', $node->connstr('postgres'), '-f', "$folder/$file", @options);
	sql($target, "CREATE DATABASE $dbname");
	my ($holder, $restorer);
	if ($name eq 'plain')
	{
		# a session that is in the midst of a restore
		($holder, $restorer) = map { session($target, $dbname) } 1, 2;
		$holder->query_ok('CREATE TABLE held (); BEGIN; LOCK TABLE held');
		$restorer->send("COMMENT ON TABLE held IS 'restored'");
	}
	if ($file =~ /sql$/)
	{
		run_quietly("$name: restored without a word", $target->installed_command('psql'), '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', $target->connstr($dbname), '-f', "$folder/$file");
	}
	else
	{
		run_quietly("$name: restored without a word", $target->installed_command('pg_restore'), '-d', $target->connstr($dbname), '-j', '3', "$folder/$file");
	}

	my $t = session($target, $dbname);
	# what was missing is made soon; who is quicker is told so
	my $early = $t->query("SELECT count(*) FROM fetch_messages('some', 0, 0)");
	like($t->error, qr/^$|ERROR:  55000: topic "some" is not ready yet/, "$name: a topic is there, or will be soon");
	if ($holder)
	{
		# GRANT failed ("tuple concurrently updated") where a table got a partition that moment
		my $settled = 0;
		for (1 .. 50)
		{
			$t->query("SELECT count(*) FROM fetch_messages('some', 0, 0)");
			$settled += $t->query_ok("SELECT count(*) FROM pgtopic.topic WHERE name <> 'elsewhere' AND replication_factor = 1");
			usleep(20_000);
		}
		is($settled, 0, "$name: what is missing is not made while somebody still restores");
		$holder->query_ok('COMMIT; DROP TABLE held');
		$restorer->result // die $restorer->error;
		$_->quit for $holder, $restorer;
	}
	wait_until($t, "SELECT count(*) = 11 AND bool_and(leader = 1 AND replicas = '{1}' AND isr = '{1}') FROM partition_status", "$name: all partitions of all topics are there, with one replica");
	result_is($t, 'SELECT count(*), min(replication_factor), max(replication_factor), max(min_insync_replicas) FROM pgtopic.topic', '3|1|1|', '... and none is asked for');
	result_is($t, 'SELECT count(*) FROM broker_status', '0', '... it is in no cluster');
	is(content($t, 'full', 0 .. 2), $expected{full}, '... what the broker had is there');
	is(content($t, 'some', @here), $expected{some}, '... as is some of another topic');
	result_is($t, "SELECT string_agg(partition || ' ' || committed_offset, ',' ORDER BY partition) FROM consumer_group_status WHERE consumer_group = 'g'", $group, '... and groups');
	result_is($t, "SELECT log_offset < log_end_offset - 1 OR log_end_offset = log_offset + 1 FROM produce('full', 'numbered', producer => 'p', sequence => 7, partition => 1) p, partition_status s WHERE s.topic = 'full' AND s.partition = 1", 't', '... and what is numbered');
	is($t->query_ok("SELECT count(*) FROM consumer_group_status WHERE topic = 'full'"), '6', '... and nothing else with the positions');
	result_is($t, "SELECT count(*) FROM pgtopic.t1_offsets WHERE consumer_group < ' ' AND NOT starts_with(consumer_group, E'\\003')", '0', '... what leaders have told followers is gone');

	# all of it is used as on any server
	for my $topic ('full', 'some', 'elsewhere')
	{
		my $partitions = $t->query_ok("SELECT partitions FROM topic_status WHERE topic = '$topic'");
		for my $partition (0 .. $partitions - 1)
		{
			my $end = $t->query_ok("SELECT log_end_offset FROM partition_status WHERE topic = '$topic' AND partition = $partition");
			result_is($t, "SELECT log_offset FROM produce('$topic', 'new', partition => $partition)", $end, "$name: $topic-$partition takes messages, with the next offset");
			result_is($t, "SELECT value FROM fetch_messages('$topic', $partition, $end)", 'new', '... and has them');
		}
		$t->query_ok("SELECT create_consumer_group('all', '$topic')");
		my $got = 0;
		while ((my $n = $t->query_ok("SELECT count(*) FROM consume('$topic', 'all', 1000)")) > 0) { $got += $n; }
		is($got, $t->query_ok("SELECT sum(messages) FROM topic_status WHERE topic = '$topic'"), "... a group gets all of $topic");
	}
	result_is($t, "SELECT count(*) FROM produce_batch('some', ARRAY(SELECT 'x' FROM generate_series(1, 100)), partition => 0)", '1', '... many at once');
	result_is($t, "SELECT count(*) FROM produce_batch('full', ARRAY(SELECT 'x' FROM generate_series(1, 3500)), partition => 0)", '1', '... segments are made');
	$t->query_ok("SELECT create_topic('new')");
	$t->query_ok("SELECT alter_topic('some', 'min_insync_replicas', '1')");
	$t->query_ok("SELECT add_partitions('elsewhere', 3)");
	result_is($t, "SELECT log_offset FROM produce('elsewhere', 'x', partition => 2)", '0', '... partitions can be added');

	# and it can begin a cluster of its own
	my $conninfo = 'host=' . $target->host . ' port=' . $target->port . " dbname=$dbname user=" . $t->query_ok('SELECT current_user');
	$t->query_ok("SELECT create_cluster('$conninfo')");
	wait_until($t, "SELECT state = 'online' AND is_controller FROM broker_status", '... it can be the first broker of a cluster');
	result_is($t, "SELECT count(*) FROM produce('some', 'x', partition => 5)", '1', '... which takes messages');
	wait_until($t, "SELECT count(*) = 0 FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = '$dbname'", '... and follows nobody');
	$t->query_ok('SELECT leave_cluster()');
	$t->query_ok("SELECT drop_topic('$_')") for 'full', 'some', 'elsewhere';
	result_is($t, "SELECT count(*) FROM pg_class WHERE relnamespace = 'pgtopic'::regnamespace AND relkind = 'p' AND relname ~ '^t[1-3](_|\$)'", '0', '... it drops its topics');
	$_->quit for $t, $b;
	# nobody has touched the real ones
	is($cluster->ask($_, "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'pgtopic_%' AND active"), '2', "$name: broker $_ has its followers") for 1 .. 3;
}

# --- a broker that leads nothing any more: its publications go when nobody looks at them ---

{
	$s->query_ok("SELECT drop_topic('some')");
	$cluster->wait_until($_, "SELECT count(*) FROM pg_subscription_rel WHERE srrelid::regclass::text LIKE '%t2\\_%'", "broker $_: nothing of a dropped topic is received", '0') for 1 .. 3;
	for my $partition (0 .. 2)
	{
		my $leader = $partition + 1;
		$s->query_ok("SELECT elect_leader('full', $partition, $leader)") if $s->query_ok("SELECT leader FROM partition_status WHERE topic = 'full' AND partition = $partition") ne $leader;
	}
	$cluster->wait_in_sync;
	$cluster->wait_until(3, "SELECT count(*) FROM pg_publication_tables WHERE pubname LIKE 'pgtopic_to_%'", 'broker 3 leads one partition of three', '4');
	is($cluster->ask(3, "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables WHERE pubname LIKE 'pgtopic_to_1%'"), 't1_p2 t1_p2_offsets', 'broker 3 leads a partition that broker 1 has a replica of');
	my $lock = $cluster->session(1);
	$lock->query_ok('BEGIN; LOCK TABLE pg_catalog.pg_subscription IN SHARE MODE');
	$s->query_ok("SELECT elect_leader('full', 2, 2)");
	$cluster->wait_until(3, "SELECT count(*) FROM pg_publication_tables WHERE pubname LIKE 'pgtopic_to_%'", '... and none later', '0');
	# "publication does not exist", said a REFRESH of that moment
	is($cluster->ask(3, "SELECT string_agg(pubname, ' ' ORDER BY pubname) FROM pg_publication WHERE pubname LIKE 'pgtopic_to_1%'"), 'pgtopic_to_1 pgtopic_to_1_positions', '... its publications stay while the follower has its subscription');
	$lock->query_ok('COMMIT');
	$lock->quit;
	$cluster->wait_until(3, "SELECT count(*) FROM pg_publication WHERE pubname LIKE 'pgtopic_to_%'", '... and then go', '0');
	is($cluster->ask(3, "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'pgtopic_%'"), '0', '... with their slots');
	$cluster->wait_in_sync;
}

# --- one that is left alone, and leaves: epochs of leaders begin anew if it makes another cluster ---

{
	$cluster->leave(3);
	$cluster->leave(2);
	$cluster->wait_until(1, 'SELECT count(*) FROM broker_status', 'the others have left', '1');
	my $reserved = "SELECT count(*) FROM pgtopic.t1_offsets WHERE consumer_group < ' ' AND NOT starts_with(consumer_group, E'\\003')";
	isnt($s->query_ok($reserved), '0', 'the last one remembers what its leaders were');
	my $content = content($s, 'full', 0 .. 2);
	$s->query_ok('SELECT leave_cluster()');
	result_is($s, $reserved, '0', '... and does not when it has left too');
	is(content($s, 'full', 0 .. 2), $content, '... it has its messages');
	result_is($s, "SELECT count(*) FROM generate_series(0, 2) p, produce('full', 'x', partition => p)", '3', '... and takes more');
	$s->query_ok("SELECT create_cluster('service=broker1')");
	$cluster->wait_until(1, "SELECT state = 'online' AND is_controller FROM broker_status", '... it can begin another cluster');
}

$s->quit;
$target->stop;
log_is_clean($target);
$cluster->stop_all;
$cluster->log_clean(faults => 1);
done_testing();
