# How a database becomes a broker of a cluster and what is refused on the way; a
# cluster that is made of a database with the first version's topics; conninfo with
# secrets; what roles may do and see.
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

my $cluster = PgtopicCluster->new(brokers => 3,
	conf => "pgtopic.checkpoint_interval = '100ms'\npgtopic.broker_session_timeout = '2s'\nlog_statement = none\nlog_min_error_statement = panic");
my @s = (undef, map { $cluster->session($_) } $cluster->numbers);

# --- from version 0.1.0, with topics ---

$s[1]->query_ok($_) for split /;\n/, <<'EOC';
DROP EXTENSION pgtopic;
CREATE EXTENSION pgtopic VERSION '0.1.0';
SELECT create_topic('old', partitions => 2, retention => NULL, segment_messages => 1000);
SELECT produce_batch('old', ARRAY(SELECT 'old' || n FROM generate_series(0, 249) n), partition => 0);
SELECT produce('old', 'one', key => 'k', headers => '{"a": 1}', partition => 1);
SELECT create_consumer_group('g', 'old');
SELECT commit_offset('g', 'old', 0, 10);
SELECT delete_messages('old', 0, 5);
SELECT create_topic('bytes', value_format => 'bytes', min_insync_replicas => 1);
SELECT produce('bytes', '\xff00'::bytea, '\x01'::bytea)
EOC
result_is($s[1], "SELECT extversion FROM pg_extension WHERE extname = 'pgtopic'", '0.1.0', 'a database with the first version');
my $old = 'SELECT topic, partition, log_start_offset, high_watermark, log_end_offset FROM partition_status ORDER BY 1, 2';
my $old_state = $s[1]->query_ok($old);
my $positions = 'SELECT topic, partition, committed_offset, lag FROM consumer_group_status ORDER BY 1, 2';
my $old_positions = $s[1]->query_ok($positions);
$s[1]->query_ok('ALTER EXTENSION pgtopic UPDATE');
result_is($s[1], "SELECT extversion FROM pg_extension WHERE extname = 'pgtopic'", '0.4.0', '... is updated');
result_is($s[1], $old, $old_state, '... its topics are as they were');
result_is($s[1], $positions, $old_positions, '... and its groups');
$s[1]->query_ok("SELECT allow_peer('pgtopic_peer')");
result_is($s[1], "SELECT rolsuper, rolcreaterole, rolreplication FROM pg_roles WHERE rolname = 'pgtopic_peer'", 'f|f|t', 'brokers connect as a role that may replicate, and no more');

# --- create_cluster() and join_cluster() refuse ---

# a conninfo with a password, which nobody is to see
my $password = $cluster->{brokers}[1]{password};
my $port = $cluster->node(1)->port;
my $secret = "host=127.0.0.1 port=$port dbname=postgres user=pgtopic_peer password=$password";
$s[1]->query_ok('CREATE ROLE lesser LOGIN PASSWORD $$x$$; CREATE DATABASE other; CREATE DATABASE latin ENCODING LATIN1 TEMPLATE template0');
$cluster->node(1)->safe_psql('other', 'CREATE EXTENSION pgtopic');
open(my $hba, '>>', $cluster->node(1)->data_dir . '/pg_hba.conf') or die $!;
print $hba "host all lesser 127.0.0.1/32 trust\n";
close $hba;
$s[1]->query_ok('SELECT pg_reload_conf()');
my $lesser = "host=127.0.0.1 port=$port dbname=postgres user=lesser";
for (
	[ "'this is no conninfo'", '22023', qr/invalid connection string/, 'what is no conninfo' ],
	[ "'service=broker2'", '22023', qr/leads to another database/, "another server's conninfo" ],
	[ "'" . ($secret =~ s/dbname=postgres/dbname=nowhere/r) . "'", '08001', qr/"nowhere" does not exist/, 'a database that is not there' ],
	[ "'" . ($secret =~ s/password=.*/password=wrong/r) . "'", '08001', qr/password authentication failed/, 'a wrong password' ],
	[ 'NULL', '22004', qr/must not be null/, 'NULL' ])
{
	my ($arg, $state, $pattern, $name) = @$_;
	error_is($s[1], "SELECT create_cluster($arg)", $state, $pattern, "create_cluster(): refused: $name");
	unlike($s[1]->error, qr/\Q$password\E/, '... without telling the password');
}
error_is($s[1], "SELECT create_cluster('$lesser')", '42501', qr/permission denied/, 'create_cluster(): refused: a role that brokers were not allowed as');
$s[1]->query_ok("SELECT allow_peer('lesser')");
error_is($s[1], "SELECT create_cluster('$lesser')", '42501', qr/may not replicate.*REPLICATION/s, 'create_cluster(): refused: a role without REPLICATION');
error_is($s[1], "BEGIN; SELECT create_cluster('$secret')", '25001', qr/create_cluster\(\) cannot run inside a transaction block/, 'create_cluster(): refused: in a transaction');
$s[1]->query('ROLLBACK');
error_is($s[1], "SET ROLE lesser; SELECT create_cluster('$secret')", '42501', qr/permission denied/, 'create_cluster(): refused: by anybody');
$s[1]->query_ok('RESET ROLE');
result_is($s[1], 'SELECT count(*) FROM pgtopic.cluster', '0', '... and it is in no cluster');

$s[1]->query_ok("SELECT create_cluster('$secret')");
$cluster->{created} = 1;
$cluster->_broker($_)->{outside} = 1 for 2, 3;
result_is($s[1], $old, $old_state, 'create_cluster(): topics are as they were');
result_is($s[1], $positions, $old_positions, '... and groups');

$s[2]->query_ok("SELECT create_topic('mine')");
error_is($s[2], "SELECT join_cluster('service=broker1', 'service=broker2')", '55000', qr/has topics cannot join/, 'join_cluster(): refused: a database with topics');
$s[2]->query_ok("SELECT drop_topic('mine')");
error_is($s[2], "SELECT join_cluster('service=broker1', 'service=broker3')", '22023', qr/leads to another database/, 'join_cluster(): refused: a conninfo of another database');
error_is($s[2], "SELECT join_cluster('service=broker3', 'service=broker2')", '55000', qr/is not a broker of a cluster/, 'join_cluster(): refused: through a database that is no broker');
error_is($s[2], "SELECT join_cluster('service=broker1 password=wrong', 'service=broker2')", '08001', qr/password authentication failed/, 'join_cluster(): refused: a conninfo that does not work');
error_is($s[1], "SELECT join_cluster('service=broker2', '$secret')", '55000', qr/a broker of a cluster already/, 'join_cluster(): refused: a broker of a cluster');
error_is($s[2], "BEGIN; SELECT join_cluster('service=broker1', 'service=broker2')", '25001', qr/transaction block/, 'join_cluster(): refused: in a transaction');
$s[2]->query('ROLLBACK');
error_is($s[2], "SELECT join_cluster('service=broker1', NULL)", '22004', qr/must not be null/, 'join_cluster(): refused: NULL');
{
	# of another encoding: in the server of broker 2, since the role and service are there
	$s[2]->query_ok('CREATE DATABASE latin ENCODING LATIN1 TEMPLATE template0');
	my $latin = $cluster->session(2, 'latin');
	$latin->query_ok("CREATE EXTENSION pgtopic; SELECT allow_peer('pgtopic_peer')");
	error_is($latin, "SELECT join_cluster('service=broker1', 'service=broker2 dbname=latin')", '55000', qr/encoding LATIN1 cannot join a cluster with encoding UTF8/, 'join_cluster(): refused: another encoding');
	result_is($latin, 'SELECT count(*) FROM pgtopic.cluster', '0', '... which leaves nothing behind');
	$latin->quit;
}
result_is($s[1], 'SELECT count(*) FROM broker_status', '1', 'after all these the cluster has one broker');
result_is($s[2], 'SELECT count(*) FROM broker_status', '0', '... and none here');
$cluster->join_broker(2);
$cluster->join_broker(3, 2);
error_is($s[3], "SELECT join_cluster('service=broker1', 'service=broker3')", '55000', qr/a broker of a cluster already/, 'join_cluster(): refused: one that has joined');

# --- what was there is copied ---

$s[2]->query_ok("SELECT move_partition('old', p, ARRAY[2, 3, 1]) FROM generate_series(0, 0) p");
$s[3]->query_ok("SELECT move_partition('old', 1, ARRAY[3, 1])");
$s[1]->query_ok("SELECT move_partition('bytes', 0, ARRAY[1, 2])");
for my $i (1 .. 3)
{
	$cluster->wait_until($i, "SELECT string_agg(concat_ws(' ', topic, partition, replicas, (SELECT array_agg(r ORDER BY r) FROM unnest(isr) r)), ', ' ORDER BY topic::text, partition) FROM partition_status",
		"broker $i: the first version's topics have replicas in sync", 'bytes 0 {1,2} {1,2}, old 0 {2,3,1} {1,2,3}, old 1 {3,1} {1,3}');
}
$cluster->same_content($_) for 'old', 'bytes';
result_is($s[3], "SELECT count(*), min(log_offset), max(value) FROM fetch_messages('old', 0, 5)", '245|5|old99', '... with what was there, from where it starts');
error_is($s[3], "SELECT fetch_messages('old', 0, 4)", '22003', qr/starts at 5/, '... and nothing before');
result_is($s[3], "SELECT key, value, headers FROM fetch_messages('old', 1, 0)", 'k|one|{"a": 1}', '... with key and headers');
result_is($s[2], "SELECT value FROM fetch_messages_bytes('bytes', 0, 0)", '\xff00', '... and bytes');
$cluster->wait_until(3, "SELECT sum(committed_offset) FROM consumer_group_status WHERE topic = 'old' AND consumer_group = 'g'", 'positions are copied', '10');
result_is($s[2], "SELECT elect_leader('old', 0, 3)", '', 'another broker leads what broker 1 had');
is(join(' ', sort map { $s[2]->query_ok("SELECT partition || ':' || min(log_offset) || ':' || count(*) FROM consume('old', 'g', 1000, max_wait => '20 s') GROUP BY partition") } 1, 2),
	'0:10:240 1:0:1', '... and the group goes on where it was');

# --- secrets ---

for my $i (1 .. 3)
{
	for my $view ('broker_status', 'replication_status', 'worker_status', 'partition_status', 'topic_status')
	{
		unlike($s[$i]->query_ok("SELECT coalesce(string_agg(v::text, ' '), '') FROM $view v"), qr/\Q$password\E/, "broker $i: $view shows no password");
	}
	like($s[$i]->query_ok('SELECT conninfo FROM broker_status WHERE broker = 1'), qr/user='pgtopic_peer' dbname='postgres' host='127\.0\.0\.1' port='$port'$/, '... but the rest of the conninfo');
	error_is($s[$i], "SET ROLE pgtopic_peer; SELECT * FROM pgtopic.$_", '42501', qr/permission denied/, "... and the role of brokers cannot read pgtopic.$_") for 'broker', 'cluster';
	$s[$i]->query_ok('RESET ROLE');
}

# --- privileges ---

$s[2]->query_ok('CREATE ROLE reader LOGIN; CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher');
error_is($s[2], "SET ROLE reader; SELECT count(*) FROM broker_status", '42501', qr/permission denied/, 'broker_status is not for everybody');
result_is($s[2], 'SELECT count(*) FROM replication_status', '0', 'replication_status shows topics that one may use');
error_is($s[2], "SELECT move_partition('old', 0, '{1}')", '42501', qr/owner/, "move_partition() is the owner's");
error_is($s[2], "SELECT elect_leader('old', 0, 1)", '42501', qr/owner/, "... and elect_leader()");
error_is($s[2], "SELECT $_", '42501', qr/permission denied/, "$_ is not for everybody") for 'leave_cluster()', 'remove_broker(3)', "allow_peer('reader')", 'pgtopic.peer_ping()';
$s[2]->query_ok('RESET ROLE');
result_is($s[2], 'SET ROLE watcher; SELECT count(*) FROM broker_status', '3', 'broker_status is for pg_monitor');
$s[2]->query_ok('RESET ROLE');

# --- not in a transaction, but where there is no cluster ---

error_is($s[1], "BEGIN; SELECT $_", '25001', qr/transaction block/, "in a transaction of a cluster: $_") && $s[1]->query('ROLLBACK')
  for "create_topic('x')", "alter_topic('old', 'retention', '1 day')", "add_partitions('old', 5)", "drop_topic('old')",
  "move_partition('old', 0, '{1}')", "elect_leader('old', 0)", 'leave_cluster()', 'remove_broker(3)';
result_is($s[1], $_->[0], $_->[1], "... and nothing has happened") for [ 'SELECT count(*) FROM topic_status', '2' ], [ 'SELECT count(*) FROM broker_status', '3' ];

# --- the password is in no log ---

# whom broker 2 cannot reach, it complains of
$cluster->stop(1);
$cluster->wait_until(2, "SELECT state FROM broker_status WHERE broker = 1", 'a broker that is down is fenced', 'fenced');
ok(defined $s[2]->query("SELECT fetch_messages_bytes('bytes', 0, 0)"), '... and what it led can be read') or diag($s[2]->error);
unlike($s[2]->error, qr/\Q$password\E/, '... without its password');
$cluster->start(1);
$cluster->wait_in_sync(undef, 'back again');
# the statements of this test had it; they are not logged
for my $i (1 .. 3)
{
	unlike(slurp_file($cluster->node($i)->logfile), qr/\Q$password\E/, "broker $i has written the password to no log");
}

# --- leaving: what a database has then ---

$s[$_]->quit for 1 .. 3;
$cluster->leave(3);
$cluster->wait_until($_, 'SELECT count(*) FROM broker_status', "broker 3 has left: broker $_ knows two", '2') for 1, 2;
$cluster->wait_in_sync;
my $s3 = $cluster->session(3);
result_is($s3, 'SELECT (SELECT count(*) FROM pgtopic.topic), (SELECT count(*) FROM pg_subscription), (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_replication_slots)', '0|0|0|0', '... it has nothing of it');
result_is($s3, "SELECT count(*) FROM pg_class WHERE relnamespace = 'pgtopic'::regnamespace AND relname ~ '^t\\d'", '0', '... no tables either');
$s3->query_ok("SELECT create_topic('own')");
result_is($s3, "SELECT log_offset FROM produce('own', 'x')", '0', '... and is one of its own');
$s3->quit;
$cluster->leave(2);
$cluster->wait_until(1, 'SELECT count(*) FROM broker_status', 'broker 1 is alone', '1');
$cluster->wait_until(1, "SELECT bool_and(replicas = '{1}' AND leader = 1) FROM partition_status", '... and has everything');
is($cluster->ask_ok(1, "SELECT count(*) FROM fetch_messages('old', 0, 5)"), '245', '... as it was');
$cluster->ask_ok(1, 'SELECT leave_cluster()');
is($cluster->ask_ok(1, "SELECT count(*) FROM fetch_messages('old', 0, 5)"), '245', 'the last one leaves, and keeps its topics');
is($cluster->ask_ok(1, "BEGIN; SELECT create_topic('x'); ROLLBACK; SELECT count(*) FROM broker_status"), "x\n0", '... and can make some in a transaction again');

$cluster->stop_all;
# the controller may be the one that leaves, and a slot be gone before its subscription
$cluster->log_clean(faults => 1, allow => [ qr/(?:is not|has no|lost the) controller/, qr/replication slot "[^"]*" does not exist/ ]);
done_testing();
