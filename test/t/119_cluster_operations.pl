# What every cluster goes through under load: its brokers are restarted one after the
# other, with and without handing over first, and one loses its disk and is replaced by
# an empty server at the same address.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use File::Path;
use PgtopicCluster;
use PgtopicLoad;
use PgtopicTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $SESSION_TIMEOUT = 3;

# What a failover may take beyond the session timeout, on a machine that does other things.
my $FEW_SECONDS = 10;

# After these a client does all of it again, says the README.
my $RETRYABLE = qr/^(?:08...|40...|53...|55P03|57...)\z/;

my $cluster = PgtopicCluster->new(brokers => 3, conf => <<"EOC");
pgtopic.checkpoint_interval = '200ms'
pgtopic.broker_session_timeout = '${SESSION_TIMEOUT}s'
pgtopic.replica_lag_time_max = '3s'
pgtopic.leader_rebalance_interval = -1
wal_sender_timeout = 4s
wal_receiver_timeout = 4s
EOC
$cluster->create;
$cluster->ask_ok(1, "SELECT create_topic('t', partitions => 6, replication_factor => 3, retention => NULL, segment_messages => 20000)");
$cluster->wait_until($_, "SELECT count(*) FROM partition_status", undef, '6') for 1 .. 3;
$cluster->wait_in_sync(undef, 'a topic with three replicas is there');

# --- transactions that are open while the leader changes ---

{
	$cluster->ask_ok(1, "SELECT create_topic('open', partitions => 2, replication_factor => 3, min_insync_replicas => 2)");
	# a new topic counts as in sync before anybody follows
	$cluster->wait_until($_, "SELECT bool_and(state = 'ready') FROM replication_status") for 1 .. 3;
	$cluster->wait_in_sync;
	my $leader = "SELECT leader FROM partition_status WHERE topic::text = 'open' AND partition = 0";
	my $successor = "SELECT p.successor FROM pgtopic.partition p JOIN pgtopic.topic t ON t.id = p.topic_id WHERE t.name = 'open' AND p.partition = 0";
	my $from = $cluster->leader('open', 0);
	my ($to, $other) = grep { $_ != $from } 1 .. 3;
	my $here = $cluster->session($from);
	my $there = $cluster->session($other);
	my $elect = $cluster->session($to);

	# who has written to it is waited for, and goes on writing
	$_->query_ok("BEGIN; SELECT produce('open', 'one', partition => 0)") for $here, $there;
	$elect->send("SELECT elect_leader('open', 0, $to)");
	$cluster->wait_until($_, $successor, "broker $_: a leader is to hand over, while transactions are open", $to) for $from, $other;
	ok(defined $here->query("SELECT produce('open', 'two', partition => 0)"), '... one there writes on') or diag($here->error);
	ok(defined $there->query("SELECT produce('open', 'two', partition => 0)"), '... as does one at another broker') or diag($there->error);
	ok(!$elect->is_done, '... it has not handed over');
	$_->query_ok('COMMIT') for $here, $there;
	isnt($elect->result, undef, '... and does when they have ended') or diag($elect->error);
	$cluster->wait_until($_, $leader, undef, $to) for 1 .. 3;
	$cluster->wait_in_sync;
	is($cluster->ask_ok($to, "SELECT string_agg(value, ' ' ORDER BY log_offset) FROM fetch_messages('open', 0, 0)"), 'one one two two', '... with all that they have written');

	# one that keeps the others from coming into sync with a new leader
	my $writes = $cluster->session($from);
	$writes->query_ok('BEGIN; SELECT pg_current_xact_id()');
	$cluster->ask_ok($to, "SELECT elect_leader('open', 0, $from)");
	$cluster->wait_until($_, $leader, undef, $from) for 1 .. 3;
	ok(defined $writes->query("SELECT produce('open', 'three', partition => 0)"), 'a transaction that was open when the leader changed can write to it') or diag($writes->error);
	is($cluster->ask($from, "SELECT isr FROM partition_status WHERE topic::text = 'open' AND partition = 0"), "{$from}", '... who is alone in sync meanwhile');
	ok(defined $writes->query('COMMIT'), '... it commits') or diag($writes->error);
	is($cluster->ask($from, "SELECT cardinality(isr) >= 2 FROM partition_status WHERE topic::text = 'open' AND partition = 0"), 't', '... when enough replicas are in sync again');
	$cluster->same_content('open');
	$_->quit for $here, $there, $elect, $writes;
	$cluster->ask_ok(1, "SELECT drop_topic('open')");
	$cluster->wait_until($_, 'SELECT count(*) FROM partition_status', undef, '6') for 1 .. 3;
}

my $load = PgtopicLoad->new($cluster, topic => 't');
# each knows its own broker alone
$load->producer("p$_", brokers => [$_]) for 1 .. 3;
$load->consumer("c$_", group => 'g', brokers => [$_]) for 1, 2;
$load->tail("t$_", partition => $_, brokers => [ $_ + 1 ]) for 0 .. 2;
$load->await_progress(20);

sub finish
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$load->await_progress(20, grep { $load->{clients}{$_}{pid} } $load->names);
	$load->stop;
	$cluster->wait_in_sync(undef, "$what: in the end all replicas are in sync");
	$load->drain;
	$load->check("$what: no acknowledged message is lost, and none is there twice");
	$cluster->same_content('t', "$what: replicas have the same content");
	return;
}

# What the README says before a broker is stopped on purpose: what it leads is handed
# over, and then all are in sync again.
sub hand_over
{
	my ($broker, $by) = @_;
	my $elections = <<"EOC";
SELECT format('SELECT elect_leader(%L, %s, %s)', p.topic, p.partition,
              (SELECT i FROM unnest(p.isr) i WHERE i <> p.leader LIMIT 1))
FROM partition_status p WHERE p.leader = $broker AND cardinality(p.isr) > 1
EOC
	my $end = time() + $PostgreSQL::Test::Utils::timeout_default;
	# one that is refused, as a transaction has not ended in time, is made again
	while ((my $left = $cluster->ask_ok($by, $elections)) ne '')
	{
		die "broker $broker does not hand over: $left" if time() > $end;
		for (split /\n/, $left) { defined $cluster->ask($by, $_) or note "$_: $cluster->{brokers}[$by]{asked_error}"; }
	}
	return;
}

# --- rolling restarts ---

for my $way ('handed over first', 'just stopped')
{
	my $longest = 0;
	for my $broker (1 .. 3)
	{
		my $by = $broker % 3 + 1;
		my @others = grep { $_ != $broker } 1 .. 3;
		my $since = time();
		hand_over($broker, $by) if $way eq 'handed over first';
		$cluster->wait_in_sync(undef, "$way: broker $broker can go");
		my $handed_over = time();
		is($cluster->ask_ok($by, "SELECT count(*) FROM partition_status WHERE leader = $broker"), '0', '... and leads nothing') if $way eq 'handed over first';
		$load->await_progress(5);
		my $stopped = time();
		$cluster->restart($broker);
		$cluster->wait_in_sync(undef, '... it is back and in sync');
		$load->await_progress(5);
		my $gap = (sort { $b <=> $a } map { $load->longest_gap("p$_", $since) } @others)[0];
		$longest = $gap if $gap > $longest;
		diag(sprintf('%s, broker %d: %.1f s until it can go, in sync %.1f s after its stop; longest time without an acknowledgement elsewhere %.2f s, %.2f s since the stop',
			$way, $broker, $handed_over - $since, time() - $stopped, $gap, (sort { $b <=> $a } map { $load->longest_gap("p$_", $stopped) } @others)[0]));
		my @failures = map { my $p = $_; map { "p$p: $_" } $load->failures("p$p", $since) } @others;
		# a transaction that has written at the old leader before may have to be done again
		is(join("\n", grep { !/^p\d+: \d+ (\S+)/ || $1 !~ $RETRYABLE } @failures), '', '... whoever else was refused something can do it again');
		diag(scalar(@failures) . ' refused: ' . join(', ', map { /(?:\S+ ){2}(\S+)/ } @failures)) if @failures;
	}
	cmp_ok($longest, '<', $SESSION_TIMEOUT + $FEW_SECONDS, "$way: nobody else waited for longer than the session timeout and a few seconds");
}

# back to the preferred leaders
$cluster->ask(1, "SELECT elect_leader('t', $_)") for 0 .. 5;
$cluster->poll(sub { $cluster->ask(1, "SELECT elect_leader('t', partition) FROM partition_status WHERE leader <> replicas[1]"); $cluster->ask(1, 'SELECT bool_and(leader = replicas[1]) FROM partition_status') }, 't');
$cluster->wait_in_sync;

# --- a broker loses its disk, and an empty server comes in its place ---

my %preferred = map { $_ => $cluster->partitions('t', 1)->{$_}{replicas} } 0 .. 5;
my $gone = 2;
my $s = $cluster->session(1);
{
	error_is($s, "SELECT remove_broker($gone, 3)", '55006', qr/broker 2 is there/, 'refused: to replace a broker that is there');
	error_is($s, 'SELECT remove_broker(9, 3)', '42704', qr/broker 9 does not exist/, 'refused: one that does not exist');
	error_is($s, 'SELECT remove_broker(3, 0)', '22023', qr/replacement must be the number of a broker/, 'refused: by nobody');
	is($cluster->add_node, 4, 'a fourth server');
	my $new = $cluster->session(4);
	error_is($new, "SELECT join_cluster('service=broker1', 'service=broker4', 9)", '42704', qr/broker 9 does not exist/, 'refused: to join in the place of a broker that does not exist');
	is($cluster->ask(4, 'SELECT count(*) FROM broker_status WHERE NOT is_self'), '0', '... it has not joined');
	$new->quit;
}

my $since = time();
$cluster->kill9($gone);
File::Path::rmtree($cluster->node($gone)->data_dir);
$cluster->wait_until(1, "SELECT count(*) FROM partition_status WHERE leader IS DISTINCT FROM $gone", 'a broker has lost its disk: others lead', '6');
$load->await_progress(5, 'p1', 'p3');
note(sprintf('%.2f s until then', time() - $since));

# the address leads to the new server, which answers those who look for the old one
$cluster->stand_in($gone, 4);
$cluster->wait_until($_, "SELECT state FROM broker_status WHERE broker = $gone", "broker $_: who answers at its address is not it", 'fenced') for 1, 3;
$since = time();
$cluster->join_broker(4, 1, as => "service=broker$gone", replaces => $gone);
is($cluster->ask(4, 'SELECT broker FROM broker_status WHERE is_self'), '4', 'an empty server joins in its place, with a number of its own');
$cluster->wait_until($_, 'SELECT string_agg(broker::text, $$ $$ ORDER BY broker) FROM broker_status', "broker $_ knows it, and not the old one", '1 3 4') for 1, 3, 4;
$cluster->wait_in_sync(undef, '... and gets in sync');
$cluster->wait_until($_, "SELECT bool_and(cardinality(replicas) = 3 AND replicas @> '{1,3,4}') FROM partition_status", "... with all three replicas, as broker $_ sees") for 1, 3, 4;
note(sprintf('%.2f s from joining until in sync', time() - $since));
for my $partition (0 .. 5)
{
	is("@{ $cluster->partitions('t', 1)->{$partition}{replicas} }", join(' ', map { $_ == $gone ? 4 : $_ } @{ $preferred{$partition} }), "partition $partition: in the old one's place");
}
$cluster->poll(sub { $cluster->ask(1, "SELECT elect_leader('t', partition) FROM partition_status WHERE leader <> replicas[1]"); $cluster->ask(1, 'SELECT bool_and(leader = replicas[1]) FROM partition_status') }, 't');
$cluster->wait_in_sync;
is($cluster->ask(4, 'SELECT count(*) FROM partition_status WHERE leader = 4'), $cluster->ask(1, 'SELECT count(*) FROM partition_status WHERE leader = 4'), 'it leads');
cmp_ok($cluster->ask(4, 'SELECT count(*) FROM partition_status WHERE leader = 4'), '>', 0, '... what the old one has led');
$cluster->wait_until($_, "SELECT count(*) FROM pg_replication_slots WHERE NOT active", "broker $_ keeps no WAL for the old one", '0') for 1, 3;
# its own producer has no broker any more
$load->stop('p2', 'c2', 't1');
$load->producer('p4', brokers => [4]);
$load->consumer('c4', group => 'g', brokers => [4]);
$load->tail('t4', partition => 1, brokers => [4]);
$s->quit;
$load->await_progress(20, 'p4', 'c4', 't4');
$load->await_progress(20, 'p1', 'p3');
finish('a disk that was lost');
is(join("\n", $load->problems(number => 4)), '', '... all of it is on the new one');

# --- what the second step of joining says when it cannot be done ---

{
	is($cluster->add_node, 5, 'another server');
	my $new = $cluster->session(5);
	error_is($new, "SELECT join_cluster('service=broker1', 'service=broker5', 3)", '55006', qr/broker 3 is there.*HINT:  This database has joined the cluster, as broker 5\. .*remove_broker\(3, 5\)/s, 'in the place of one that is there: refused, and says what it has done');
	$cluster->{brokers}[5]{outside} = 0;
	$cluster->wait_until(1, 'SELECT string_agg(broker::text, $$ $$ ORDER BY broker) FROM broker_status', '... it has joined', '1 3 4 5');
	$cluster->kill9(3);
	$cluster->poll(sub { defined $new->query('SELECT remove_broker(3, 5)') ? 1 : 0 }, 1);
	$cluster->{brokers}[3]{outside} = 1;
	$cluster->wait_in_sync(undef, '... when that one is gone, it takes its place');
	$cluster->wait_until(1, "SELECT bool_and(cardinality(replicas) = 3 AND replicas @> '{1,4,5}') FROM partition_status", '... everywhere');
	$cluster->same_content('t');
	$new->quit;
}

$cluster->stop_all;
$cluster->log_clean(crash => 1);
done_testing();
