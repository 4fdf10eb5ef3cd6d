# Brokers die, hang, and lose their network under load: other in-sync replicas lead,
# soon and without a person, and everything that was acknowledged is there once.  Who
# cannot reach a majority takes nothing.  Where no in-sync replica is left, the partition
# waits for one, or for somebody who says that messages may be lost.
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

my $SESSION_TIMEOUT = 2;

# What a failover may take beyond the session timeout, on a machine that does other things.
my $FEW_SECONDS = 10;

my $cluster = PgtopicCluster->new(brokers => 3, proxies => 1, conf => <<"EOC");
pgtopic.checkpoint_interval = '200ms'
pgtopic.broker_session_timeout = '${SESSION_TIMEOUT}s'
pgtopic.replica_lag_time_max = '3s'
pgtopic.leader_rebalance_interval = -1
wal_sender_timeout = 4s
wal_receiver_timeout = 4s
EOC
$cluster->create;
my $number = 0;

# A topic with load on it: producers and consumers that go from broker to broker.
sub load
{
	my $topic = 'load' . ++$number;
	$cluster->ask_ok(1, "SELECT drop_topic('load" . ($number - 1) . "')") if $number > 1;
	$cluster->ask_ok(1, "SELECT create_topic('$topic', partitions => 3, replication_factor => 3, retention => NULL, segment_messages => 20000)");
	$cluster->wait_until($_, "SELECT count(*) FROM partition_status WHERE topic::text = '$topic'", undef, '3') for $cluster->running;
	$cluster->wait_in_sync(undef, "$topic is there");
	my $load = PgtopicLoad->new($cluster, topic => $topic);
	$load->producer("p$_", brokers => [ $_, $_ % 3 + 1, ($_ + 1) % 3 + 1 ]) for 1 .. 3;
	$load->consumer("c$_", group => 'g', brokers => [ $_, $_ % 3 + 1, ($_ + 1) % 3 + 1 ]) for 1, 2;
	$load->tail("t$_", partition => $_, brokers => [ $_ + 1, ($_ + 1) % 3 + 1, ($_ + 2) % 3 + 1 ]) for 0 .. 2;
	$load->await_progress(20);
	return $load;
}

sub finish
{
	my ($load, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$load->await_progress(20);
	$load->stop;
	$cluster->wait_in_sync(undef, "$what: in the end all replicas are in sync");
	$load->drain;
	$load->check("$what: messages are as acknowledged and as read");
	$cluster->same_content($load->{topic}, "$what: replicas have the same content");
	is(join("\n", $load->problems(number => $_)), '', "... as acknowledged on broker $_ as well") for $cluster->numbers;
	is($cluster->ask(1, "SELECT sum(lag) FROM consumer_group_status WHERE topic = '$load->{topic}'"), '0', '... and the group has no lag');
	return;
}

sub controller { return $cluster->ask_ok($_[0], 'SELECT coalesce(max(broker) FILTER (WHERE is_controller), 0) FROM broker_status'); }

# Others lead what a broker has led, and take messages, as seen from another one.
sub others_lead
{
	my ($load, $broker, $since, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($other) = grep { $_ != $broker } 1 .. 3;
	my $s = $cluster->session($other);

	$cluster->wait_until($other, "SELECT count(*) FROM partition_status WHERE topic = '$load->{topic}' AND leader IS DISTINCT FROM $broker", "$what: others lead what it has led", '3');
	for my $partition (0 .. 2)
	{
		ok(defined $s->query("SELECT produce('$load->{topic}', 'meanwhile', partition => $partition)"), "... and take messages for partition $partition") or diag($s->error);
	}
	my $took = time() - $since;
	note(sprintf('%s: %.2f s until all partitions took messages again', $what, $took));
	cmp_ok($took, '<', $SESSION_TIMEOUT + $FEW_SECONDS, '... within the session timeout and a few seconds');
	result_is($s, "SELECT state FROM broker_status WHERE broker = $broker", 'fenced', '... and it is counted as gone');
	$s->quit;
	return;
}

# --- each way of going away, of the controller and of another broker ---

for my $way (
	[ 'SIGKILL', sub { $cluster->kill9($_[0]) }, sub { $cluster->start($_[0]) } ],
	[ 'a stop', sub { $cluster->stop($_[0], 'fast') }, sub { $cluster->start($_[0]) } ],
	[ 'SIGSTOP', sub { $cluster->freeze($_[0]) }, sub { $cluster->thaw($_[0]) } ],
	[ 'no network', sub { $cluster->isolate($_[0]) }, sub { $cluster->heal } ],
	[ 'not heard', sub { my ($n) = @_; $cluster->cut_one_way($n, $_) for grep { $_ != $n } 1 .. 3; }, sub { $cluster->heal } ])
{
	my ($what, $go, $return) = @$way;
	my $load = load();
	for my $who ('the controller', 'another broker')
	{
		my $controller = controller(1);
		my $broker = $who eq 'the controller' ? $controller : $controller % 3 + 1;
		my $since = time();
		$go->($broker);
		others_lead($load, $broker, $since, "$what, $who");
		# clients of one that only seems to be gone wait for it
		$load->await_progress(10) if $what =~ /SIGKILL|a stop/;
		$return->($broker);
		$cluster->wait_in_sync(undef, '... it is in sync when it is back');
		$cluster->wait_until($broker, "SELECT string_agg(DISTINCT state, ' ') FROM broker_status", '... and all are online', 'online');
		$load->await_progress(10);
	}
	finish($load, $what);
}

$cluster->stop_all;
$cluster->log_clean(crash => 1);
done_testing();
