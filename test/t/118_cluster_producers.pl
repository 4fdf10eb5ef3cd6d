# Producers that number their messages, in a cluster: what is remembered of them is where the
# partition is.  A COMMIT that got no answer is repeated through another broker, and after
# another one has become the leader.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgtopicCluster;
use PgtopicTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# A follower that is down stays in sync for longer than this takes.
my $cluster = PgtopicCluster->new(brokers => 3, conf => <<'EOC');
pgtopic.checkpoint_interval = '100ms'
pgtopic.retention_check_interval = '200ms'
pgtopic.replica_lag_time_max = '10min'
EOC
$cluster->create;
my @s = (undef, map { $cluster->session($_) } $cluster->numbers);
$s[1]->query_ok("SELECT create_topic('t', partitions => 3, replication_factor => 3)");
$cluster->wait_in_sync;
my $p = $s[1]->query_ok("SELECT min(partition) FROM partition_status WHERE topic = 't' AND leader = 1");

sub produce
{
	my ($value, $sequence) = @_;
	return "SELECT log_offset FROM produce('t', '$value', producer => 'p', sequence => $sequence, partition => $p)";
}
my $producers = "SELECT coalesce(string_agg(producer || ' ' || last_sequence || ' ' || last_offset, ', ' ORDER BY producer), '') FROM producer_status WHERE partition = $p";
sub on_all
{
	my ($expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$cluster->wait_until($_, $producers, "$name: broker $_", $expected) for $cluster->running;
	return;
}

result_is($s[1], produce('a', 0), '0', 'a numbered message, at the leader');
result_is($s[2], produce('a', 0), '0', '... is not repeated through one broker');
result_is($s[3], produce('a', 0), '0', '... nor another one');
on_all('p 0 0', 'followers have what is remembered');

# --- a COMMIT without an answer ---

# A transaction through broker 2 commits at the leader, which then waits for broker 3.
my $client = $cluster->session(2);
$client->query_ok('BEGIN');
is($client->query_ok(produce('b', 1)), '1', 'a transaction');
$cluster->stop(3);
$s[3]->quit;
$client->send('COMMIT');
$cluster->wait_until(1, $producers, '... has committed at the leader', 'p 1 1');
ok(!$client->is_done, '... but not in sight of the client');
$s[2]->query_ok('SELECT pg_terminate_backend(' . $client->pid . ')');
$client->result;
$client->quit;
# with less acknowledgement asked for, it comes at once; with all, not before the first one's
$s[2]->query_ok("SET pgtopic.acks = 'leader'");
result_is($s[2], produce('b', 1), '1', 'it is repeated through another session, which does not wait for replicas');
$s[1]->send(produce('b', 1));
my $watch = $cluster->session(1);
wait_until($watch, 'SELECT wait_event = $$' . wait_event_is($cluster->node(1), 'PgtopicAcks') . '$$ FROM pg_stat_activity WHERE pid = ' . $s[1]->pid);
ok(!$s[1]->is_done, '... and through one that does, which is not told before they have it');
$cluster->start(3);
is($s[1]->result // $s[1]->error, '1', '... but then');
$s[3] = $cluster->session(3);
$cluster->wait_in_sync;
result_is($s[3], produce('b', 1), '1', '... and through the third broker');
result_is($s[3], "SELECT string_agg(value, ' ') FROM fetch_messages('t', $p, 0)", 'a b', 'it is there once');
on_all('p 1 1', 'all know it');

# --- another leader ---

$s[1]->query_ok("SELECT elect_leader('t', $p, 3)");
result_is($s[2], produce('b', 1), '1', 'another leader does not take it again');
result_is($s[1], produce('c', 2), '2', '... but what comes next');
error_is($s[1], produce('x', 9), '22003', qr/The next sequence is 3/, '... without a gap');
$cluster->wait_in_sync;
on_all('p 2 2', 'the former leader is told by the new one');
$s[1]->query_ok("SELECT elect_leader('t', $p, 1)");
result_is($s[3], produce('c', 2), '2', 'back again');
$cluster->wait_in_sync;
result_is($s[2], "SELECT string_agg(value, ' ') FROM fetch_messages('t', $p, 0)", 'a b c', '... nothing came twice');

# --- a new replica ---

$s[1]->query_ok("SELECT move_partition('t', $p, '{1,2}')");
$cluster->wait_until(3, "SELECT replicas FROM partition_status WHERE topic = 't' AND partition = $p", 'broker 3 has no replica any more', '{1,2}');
$cluster->wait_until(3, $producers, '... and remembers nothing', '');
result_is($s[3], produce('c', 2), '2', '... which its sessions do not notice');
$s[1]->query_ok("SELECT move_partition('t', $p, '{1,2,3}')");
$cluster->wait_in_sync;
on_all('p 2 2', 'a new replica gets it');

# --- the leader forgets ---

$s[1]->query_ok('ALTER SYSTEM SET pgtopic.producer_expiration = 0');
$s[1]->query_ok('SELECT pg_reload_conf()');
on_all('', 'what the leader forgets, followers do');
$s[1]->query_ok('ALTER SYSTEM RESET pgtopic.producer_expiration');
$s[1]->query_ok('SELECT pg_reload_conf()');

$_->quit for grep { defined } @s, $watch;
$cluster->same_content('t');
$cluster->stop_all;
$cluster->log_clean(faults => 1);
done_testing();
