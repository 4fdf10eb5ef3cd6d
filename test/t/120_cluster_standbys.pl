# Physical standbys of a broker: they can be read; one that is promoted in the place of its
# primary, under its address, is the same broker, who has lost its replication slots and
# maybe the last moments.  The cluster heals by itself, and nothing that all in-sync
# replicas have acknowledged is lost.
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
use Time::HiRes qw(time);

my $cluster = PgtopicCluster->new(brokers => 3, conf => <<'EOC');
pgtopic.checkpoint_interval = '200ms'
pgtopic.broker_session_timeout = '2s'
pgtopic.replica_lag_time_max = '3s'
pgtopic.leader_rebalance_interval = -1
wal_sender_timeout = 4s
wal_receiver_timeout = 4s
wal_keep_size = 200MB
EOC
$cluster->create;
$cluster->ask_ok(1, "SELECT create_topic('t', partitions => 6, replication_factor => 3, retention => NULL, segment_messages => 20000)");
# of one that no other broker has; whoever acknowledges it does so alone
$cluster->ask_ok(1, "SELECT create_topic('alone', partitions => 3, replication_factor => 1)");
$cluster->wait_until($_, 'SELECT count(*) FROM partition_status', undef, '9') for 1 .. 3;
$cluster->wait_in_sync(undef, 'topics are there');

my $loads = 0;

sub load
{
	my ($without) = @_;
	my @others = grep { $_ != $without } 1 .. 3;
	my $load = PgtopicLoad->new($cluster, topic => 't');
	$loads++;
	$load->producer("p$loads-$_", brokers => [ $_, grep { $_ != $without } 1 .. 3 ]) for 1 .. 3;
	$load->consumer("c$loads", group => "g$loads", brokers => \@others);
	$load->tail("t$loads-$_", partition => $_, brokers => \@others) for 0, 3;
	$load->await_progress(20);
	return $load;
}

sub finish
{
	my ($load, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$load->await_progress(20, grep { $load->{clients}{$_}{pid} } $load->names);
	$load->stop;
	$cluster->wait_in_sync(undef, "$what: in the end all replicas are in sync");
	$load->drain;
	$load->check("$what: no acknowledged message is lost, and none is there twice");
	$cluster->same_content('t', "$what: replicas have the same content");
	is(join("\n", $load->problems(number => $_)), '', "... as acknowledged on broker $_ as well") for 1 .. 3;
	$cluster->wait_until($_, "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'pgtopic_%' AND NOT active", "... broker $_ has no slot that nobody uses", '0') for 1 .. 3;
	is($cluster->ask($_, "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'pg_%_sync_%'"), '0', '... nor one of a copy') for 1 .. 3;
	return;
}

# The load that came before is not among the messages that a load knows.
sub known { my ($load, @before) = @_; $load->{clients}{$_->[0]} = $_->[1] for map { my $l = $_; map { [ $_, $l->{clients}{$_} ] } $l->names('producer') } @before; return $load; }

# --- a standby that follows; a broker that leads, and is not the controller ---

my $controller = $cluster->ask_ok(1, 'SELECT broker FROM broker_status WHERE is_controller');
my $broker = $controller % 3 + 1;
my $standby = $cluster->add_standby($broker);
my $first = load($broker);

# --- reading from it ---

{
	my $r = session($standby);
	$cluster->ask_ok(1, "SELECT produce('alone', 'x', partition => p) FROM generate_series(0, 2) p");
	my $partitions = $cluster->partitions('t');
	my ($led) = grep { $partitions->{$_}{leader} == $broker } sort keys %$partitions;
	my ($elsewhere) = grep { $partitions->{$_}{leader} != $broker } sort keys %$partitions;
	my $node = $cluster->node($broker);
	$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
	for ([ $led, 'that its primary leads' ], [ $elsewhere, 'that others lead' ])
	{
		my ($partition, $what) = @$_;
		wait_until($r, "SELECT count(*) >= 10 FROM fetch_messages('t', $partition, 0)", "the standby reads a partition $what");
		my $some = "SELECT md5(string_agg(concat_ws(' ', log_offset, key, value, headers), ',' ORDER BY log_offset)) FROM fetch_messages('t', $partition, 0, 10)";
		result_is($r, $some, $cluster->ask_ok(1, $some), '... what is there');
	}
	wait_until($r, "SELECT count(*) = 1 FROM fetch_messages('alone', $_, 0)", "... and partition $_ of a topic without copies") for 0 .. 2;
	result_is($r, 'SELECT count(*), count(leader) FROM partition_status', '9|9', '... its views work');
	result_is($r, 'SELECT count(*) FROM broker_status', '3', '... as to brokers too');
	wait_until($r, "SELECT count(*) > 0 FROM consumer_group_status WHERE consumer_group = 'g1'", '... and groups');
	result_is($r, 'SELECT count(*) FROM replication_status WHERE in_sync', $cluster->ask_ok($broker, 'SELECT count(*) FROM replication_status'), '... and copies');
	error_is($r, "SELECT $_", '25006', undef, "refused: $_") for "produce('t', 'x')", "consume('t', 'g')", "elect_leader('t', 0)", 'remove_broker(1)', 'leave_cluster()';
	# nor do its brokers take it for one
	is($cluster->ask(1, "SELECT count(*) FROM broker_status WHERE state = 'online'"), '3', 'the cluster does not notice it');
	$r->quit;
}

# --- promotion of one that has everything ---

sub fail_over
{
	my ($number, $node, $what, $before) = @_;
	my $since = time();
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$cluster->kill9($number);
	$before->() if $before;
	$cluster->promote($number, $node);
	$cluster->wait_until($number, "SELECT timeline > 1 FROM pgtopic.cluster", "$what: it has seen that it is on another timeline");
	$cluster->wait_in_sync(undef, '... all get in sync again');
	$cluster->wait_until($_, "SELECT string_agg(DISTINCT state, ' ') FROM broker_status", "... and broker $_ counts all as there", 'online') for 1 .. 3;
	diag(sprintf('%s: %.1f s from the end of the primary until all are in sync', $what, time() - $since));
	return;
}

fail_over($broker, $standby, 'a standby is promoted at once');
finish($first, 'a standby is promoted at once');

# --- one that lags behind, and is promoted after others lead: of the controller ---

$broker = $cluster->ask_ok(1, 'SELECT broker FROM broker_status WHERE is_controller');
$standby = $cluster->add_standby($broker);
my $second = load($broker);
{
	my $node = $cluster->node($broker);
	$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
	# what it does not get it does not have, like a replica that is far away
	my $receiver = $standby->safe_psql('postgres', 'SELECT pid FROM pg_stat_wal_receiver');
	$standby->append_conf('postgresql.conf', "primary_conninfo = ''");
	$standby->reload;
	$standby->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver') or die 'the receiver does not end';
	my $at = $standby->lsn('receive');
	# with more, of the metadata too, that it will lack
	$second->await_progress(30);
	$cluster->ask_ok(1, "SELECT create_topic('later', partitions => 3, replication_factor => 3)");
	$cluster->wait_in_sync(undef, 'the standby lags behind, and a topic is made');
	$cluster->ask_ok(1, "SELECT produce('later', 'x' || p, partition => p) FROM generate_series(0, 2) p");
	$second->await_progress(30);
	diag('the standby lacks ' . $node->safe_psql('postgres', "SELECT pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), '$at'))"));
}
fail_over($broker, $standby, 'a standby that lags is promoted when others lead', sub {
	my $other = $broker % 3 + 1;
	$cluster->wait_until($other, "SELECT count(*) FROM partition_status WHERE topic::text IN ('t', 'later') AND leader IS DISTINCT FROM $broker", '... others lead first', '9');
});
$cluster->wait_until($broker, "SELECT string_agg(value, ' ' ORDER BY p) FROM generate_series(0, 2) p, fetch_messages('later', p, 0)", 'it has what the cluster has made since', 'x0 x1 x2');
$cluster->same_content('later');
finish(known($second, $first), 'a standby that lags is promoted when others lead');

# --- one that lags, and is there again before anybody has noticed ---

$broker = 2;
$standby = $cluster->add_standby($broker);
my $third = load($broker);
{
	my $node = $cluster->node($broker);
	$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
	$standby->append_conf('postgresql.conf', "primary_conninfo = ''");
	$standby->reload;
	$standby->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver') or die 'the receiver does not end';
	$third->await_progress(50);
}
fail_over($broker, $standby, 'a standby that lags is promoted at once');
finish(known($third, $first, $second), 'a standby that lags is promoted at once');

# --- one that may have voted, and does not know: it votes for nobody, while that could matter ---

$standby = $cluster->add_standby(2);
{
	my $node = $cluster->node(2);
	$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
	$cluster->kill9($_) for 1 .. 3;
	$cluster->promote(2, $standby);
	my $s = $cluster->session(2);
	error_is($s, 'SELECT v.* FROM pgtopic.cluster c, pgtopic.peer_vote(c.cluster_id, 2, c.term + 1, 1, c.image_term, c.image_version) v',
		'57P03', qr/takes no part in elections now/, 'a standby that was promoted votes for nobody at first');
	$cluster->start(1);
	$cluster->wait_until($_, 'SELECT count(*) FROM broker_status WHERE is_controller', "... where its vote is needed it does later, as broker $_ sees", '1') for 1, 2;
	# not those that broker 3 alone has
	$cluster->wait_until($_, "SELECT bool_and(isr @> '{1,2}' AND leader IS NOT NULL) FROM partition_status WHERE topic::text = 't'", "... and two of three go on, broker $_") for 1, 2;
	$cluster->start(3);
	$cluster->wait_in_sync(undef, '... the third one too, when it is back');
	$cluster->same_content('t');
	$s->quit;
}

$cluster->stop_all;
$cluster->log_clean(crash => 1, allow => [ qr/takes no part in elections now/ ]);
done_testing();
