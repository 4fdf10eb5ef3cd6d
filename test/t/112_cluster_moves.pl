# What an administrator does to a cluster under load: moving partitions and leaders,
# brokers that come and go, rolling restarts, a database with data that becomes one.
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

my $cluster = PgtopicCluster->new(brokers => 3, proxies => 1, conf => <<'EOC');
pgtopic.checkpoint_interval = '200ms'
pgtopic.broker_session_timeout = '2s'
pgtopic.replica_lag_time_max = '3s'
EOC

# A partition is where it should be, as all see it: these replicas, all in sync.  A leader
# that is among them goes on, so the preferred one, the first, is asked to lead.
sub is_at
{
	my ($topic, $partition, $replicas, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($first) = $replicas =~ /(\d+)/;
	my $where = "SELECT concat_ws(' ', replicas, ARRAY(SELECT i FROM unnest(isr) i ORDER BY array_position(replicas, i))) FROM partition_status WHERE topic = '$topic' AND partition = $partition";
	$cluster->wait_until($_, $where, "$name: seen by broker $_", "$replicas $replicas") for $cluster->running;
	my ($any) = $cluster->running;
	# under load it may take more than one try: transactions have to end in time
	$cluster->poll(sub { defined $cluster->ask($any, "SELECT elect_leader('$topic', $partition)") ? 1 : 0 }, 1);
	$cluster->wait_until($_, "SELECT leader FROM partition_status WHERE topic = '$topic' AND partition = $partition", undef, $first) for $cluster->running;
	return;
}

# Begins a move, and waits for its end.  It needs a handover where the leader is not among
# the replicas, and one is called off if transactions do not end in time; then it is
# asked for again.
sub move
{
	my ($by, $topic, $partition, $replicas, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $there = "SELECT replicas FROM partition_status WHERE topic = '$topic' AND partition = $partition";
	for (1 .. 4)
	{
		$cluster->ask_ok($by, "SELECT move_partition('$topic', $partition, '$replicas')");
		last if $cluster->poll(sub { $cluster->ask($by, $there) }, $replicas, 15) eq $replicas;
		note "$topic-$partition is not at $replicas yet";
	}
	return is_at($topic, $partition, $replicas, $name);
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
	return;
}

# Tables of a partition that a broker has no replica of are dropped.
sub nothing_left
{
	my ($topic, $partition, $broker) = @_;
	my $id = $cluster->ask_ok($broker, "SELECT id FROM pgtopic.topic WHERE name = '$topic'");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$cluster->wait_until($broker, "SELECT count(*) FROM pg_class WHERE relnamespace = 'pgtopic'::regnamespace AND relname ~ '^t${id}_p${partition}(_|\$)'",
		"broker $broker has nothing left of $topic-$partition", '0');
	return;
}

# --- a database with data becomes broker 1; with load from its beginning on ---

$cluster->ask_ok(1, "SELECT create_topic('t', partitions => 3, retention => NULL, segment_messages => 5000)");
my $load = PgtopicLoad->new($cluster, topic => 't');
$load->producer($_, brokers => [1]) for 'a', 'b';
$load->consumer('c', group => 'g', brokers => [1]);
$load->tail("t$_", partition => $_, brokers => [1]) for 0 .. 2;
$load->await_progress(200, 'a', 'b');
my $position = $cluster->ask_ok(1, "SELECT sum(committed_offset) FROM consumer_group_status WHERE consumer_group = 'g'");
$cluster->create;
# a topic with one replica stays where it is
is_at('t', $_, '{1}', "partition $_ has stayed") for 0 .. 2;
$load->await_progress(20);
cmp_ok($cluster->ask(1, "SELECT sum(committed_offset) FROM consumer_group_status WHERE consumer_group = 'g'"), '>=', $position, 'the group has kept its positions');

# --- moves under load ---

$cluster->ask_ok(3, "SELECT move_partition('t', 0, '{1,2,3}')");
$cluster->ask_ok(1, "SELECT move_partition('t', 1, '{2,3}')");
$cluster->ask_ok(2, "SELECT move_partition('t', 2, '{3}')");
is_at('t', 0, '{1,2,3}', 'a partition gets two more replicas');
is_at('t', 1, '{2,3}', 'a partition moves away, with two replicas');
is_at('t', 2, '{3}', 'a partition moves to another broker alone');
nothing_left('t', 1, 1);
nothing_left('t', 2, $_) for 1, 2;
$load->await_progress(20);
note $load->errors($_) for $load->names;
$cluster->ask_ok(1, "SELECT move_partition('t', $_, '{2,1,3}')") for 0 .. 2;
is_at('t', $_, '{2,1,3}', "partition $_ has all replicas, on 2 first") for 0 .. 2;
finish($load, 'partitions that move');

# back where one has been, with what has been produced since
$load = PgtopicLoad->new($cluster, topic => 't');
$load->producer($_) for 'x', 'y';
$load->consumer('z', group => 'g2');
$load->await_progress(20);
for my $turn (1 .. 2)
{
	for my $replicas ('{1}', '{3,2}', '{2,3,1}')
	{
		move($turn, 't', 1, $replicas, "turn $turn: moved to $replicas");
		$load->await_progress(5);
	}
}
# one that is replaced while it is under way
$cluster->ask_ok(1, "SELECT move_partition('t', 0, '{3}')");
move(1, 't', 0, '{1,2}', 'a move that replaces another one');

my $s = $cluster->session(1);
for (
	[ "move_partition('t', 0, '{1,1}')", '22023', qr/twice|more than once/, 'a broker twice' ],
	[ "move_partition('t', 0, '{1,9}')", '42704', qr/broker 9 does not exist/, 'a broker that is not there' ],
	[ "move_partition('t', 0, '{}')", '22023', qr/./, 'no broker' ],
	[ "move_partition('t', 7, '{1}')", '22003', qr/partition 7/, 'a partition that is not there' ],
	[ "move_partition('nothing', 0, '{1}')", '42704', qr/"nothing" does not exist/, 'a topic that is not there' ])
{
	my ($call, $state, $pattern, $name) = @$_;
	error_is($s, "SELECT $call", $state, $pattern, "refused: $name");
}

# --- leaders ---

$cluster->ask_ok(2, "SELECT move_partition('t', $_, '{1,2,3}')") for 0 .. 2;
is_at('t', $_, '{1,2,3}', "partition $_ is everywhere") for 0 .. 2;
for my $broker (2, 3, 1, 3)
{
	# after a change of the leader the others come into sync anew
	$cluster->wait_in_sync;
	my $epoch = $cluster->ask_ok(1, "SELECT leader_epoch FROM partition_status WHERE topic = 't' AND partition = 0");
	$cluster->ask_ok($broker % 3 + 1, "SELECT elect_leader('t', 0, $broker)");
	$cluster->wait_until($_, "SELECT leader FROM partition_status WHERE topic = 't' AND partition = 0", "broker $_: broker $broker leads", $broker) for 1 .. 3;
	cmp_ok($cluster->ask(1, "SELECT leader_epoch FROM partition_status WHERE topic = 't' AND partition = 0"), '>', $epoch, '... in a new epoch');
	$load->await_progress(5);
}
$cluster->wait_in_sync;
$cluster->ask_ok(2, "SELECT elect_leader('t', 0)");
$cluster->wait_until(1, "SELECT leader FROM partition_status WHERE topic = 't' AND partition = 0", 'without a broker: the preferred one', '1');
$s->query("SELECT elect_leader('t', 0, 9)");
like($s->error, qr/broker 9/, 'refused: a broker that has no replica');

# an open transaction keeps its leader, for pgtopic.handover_timeout
$cluster->wait_in_sync;
my $open = $cluster->session(1);
is($cluster->leader('t', 0), 1, 'broker 1 leads');
$open->query_ok("BEGIN; SELECT produce('t', 'open', partition => 0)");
my $elect = $cluster->session(2);
$elect->send("SELECT elect_leader('t', 0, 2)");
$cluster->wait_until(1, "SELECT successor FROM pgtopic.partition p JOIN pgtopic.topic t ON t.id = p.topic_id WHERE t.name = 't' AND p.partition = 0",
	'a leader with an open transaction is to hand over', '2');
is($cluster->ask(1, "SELECT leader FROM partition_status WHERE topic = 't' AND partition = 0"), '1', '... and leads on');
$open->query_ok('COMMIT');
isnt($elect->result, undef, '... it hands over when the transaction has ended');
$cluster->wait_until(1, "SELECT leader FROM partition_status WHERE topic = 't' AND partition = 0", '... and does not lead', '2');
is(scalar(grep { ($_->[3] // '') eq 'open' } @{ $cluster->messages('t') }), 1, '... and its messages are there');
$_->quit for $s, $open, $elect;
finish($load, 'leaders that hand over');

# --- rolling restarts ---

$load = PgtopicLoad->new($cluster, topic => 't');
$load->producer("r$_") for 1 .. 3;
$load->consumer('rc', group => 'g3');
$load->tail('rt', partition => 0, from => $cluster->partitions('t')->{0}{high_watermark});
for my $turn (1, 2)
{
	for my $broker (1 .. 3)
	{
		$load->await_progress(10);
		$cluster->restart($broker);
		$cluster->wait_in_sync(undef, "rolling restart $turn: broker $broker is back and in sync");
	}
}
finish($load, 'rolling restart');

# --- a fourth broker comes, gets something, and goes; broker 3 is taken out ---

$load = PgtopicLoad->new($cluster, topic => 't');
$load->producer("s$_", brokers => [ 1, 2 ]) for 1 .. 3;
$load->consumer('sc', group => 'g4', brokers => [ 1, 2 ]);
$load->await_progress(10);
is($cluster->add_node, 4, 'a fourth server');
$cluster->join_broker(4, 2);
$cluster->wait_until(4, "SELECT count(*), sum(cardinality(replicas)) FROM partition_status WHERE topic = 't'", '... joins, and knows the topic', '3|9');
is($cluster->ask(4, "SELECT count(*) > 0 FROM fetch_messages('t', 0, 0)"), 't', '... and can read it from the others');
$cluster->ask_ok(4, "SELECT move_partition('t', 0, '{4,1,2}')");
$cluster->ask_ok(4, "SELECT move_partition('t', 1, '{1,2,4}')");
is_at('t', 0, '{4,1,2}', 'a partition moves to it');
is_at('t', 1, '{1,2,4}', '... another follows there');
$cluster->ask_ok(1, "SELECT create_topic('four', partitions => 4, replication_factor => 4)");
$cluster->wait_in_sync(undef, 'four replicas, with four brokers');
$cluster->ask_ok($_, "SELECT produce('four', 'x', partition => p) FROM generate_series(0, 3) p") for 1 .. 4;
$cluster->same_content('four');
$cluster->ask_ok(1, "SELECT drop_topic('four')");
$load->await_progress(10);

# the last in-sync replica of anything cannot go
$cluster->ask_ok(2, "SELECT create_topic('single', partitions => 4)");
$cluster->wait_until(1, "SELECT count(DISTINCT leader) FROM partition_status WHERE topic = 'single'", undef, '4');
my $leader = $cluster->session(1);
error_is($leader, 'SELECT remove_broker(4)', '55006', qr/broker 4 is there/, 'refused: a broker that is there');
error_is($leader, 'SELECT remove_broker(1)', '22023', qr/leave_cluster/, 'refused: itself');
error_is($leader, 'SELECT remove_broker(9)', '42704', qr/broker 9 does not exist/, 'refused: one that is not there');
$leader->quit;
$cluster->ask_ok(1, "SELECT drop_topic('single')");

$cluster->leave(4);
$cluster->wait_until($_, 'SELECT count(*) FROM broker_status', "broker 4 has left: broker $_ knows three", '3') for 1 .. 3;
$cluster->wait_in_sync(undef, '... all replicas are in sync without it');
is($cluster->ask(1, "SELECT count(*) FROM partition_status WHERE 4 = ANY (replicas)"), '0', '... it has none');
is($cluster->ask(1, "SELECT bool_and(cardinality(replicas) = 3) FROM partition_status WHERE topic = 't'"), 't', '... and others have them instead');
is($cluster->ask(4, 'SELECT count(*) FROM broker_status WHERE NOT is_self'), '0', '... and it knows no cluster');
is($cluster->ask(4, 'SELECT count(*) FROM pgtopic.topic'), '0', '... nor its topics');
is($cluster->ask(4, 'SELECT count(*) FROM pg_subscription'), '0', '... follows nobody');
$cluster->wait_until($_, 'SELECT count(*) FROM pg_replication_slots WHERE NOT active', "... no slot of it is left on broker $_", '0') for 1 .. 3;
$load->await_progress(10);

# one that is gone for good
$cluster->kill9(3);
$cluster->remove(3, 1);
$cluster->wait_until($_, 'SELECT count(*) FROM broker_status', "broker 3 is taken out: broker $_ knows two", '2') for 1, 2;
$cluster->wait_in_sync(undef, '... all replicas are in sync without it');
is($cluster->ask(2, "SELECT count(*) FROM partition_status WHERE 3 = ANY (replicas) OR leader = 3"), '0', '... it has none');
$cluster->wait_until($_, 'SELECT count(*) FROM pg_replication_slots WHERE NOT active', "... and no slot keeps WAL for it on broker $_", '0') for 1, 2;
$load->await_progress(10);

# and another one in its place, which gets a number of its own
is($cluster->add_node, 5, 'a fifth server');
$cluster->join_broker(5);
move(1, 't', $_, '{5,1,2}', "partition $_ moves to it") for 0 .. 2;
finish($load, 'brokers that come and go');

# The one that was taken out does not know it, and thinks that it leads what it led.  It
# can promise nothing: nobody follows it.
$cluster->start(3);
my $s3 = $cluster->session(3);
my $pid = $s3->pid;
$s3->send("SELECT produce('t', 'from the dead', partition => p) FROM generate_series(0, 2) p");
my $waits = $cluster->poll(sub {
	return 'ended' if $s3->is_done;
	return $cluster->ask(3, "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $pid") eq 'Extension' ? 'waits' : '';
}, 'waits', 20);
$cluster->ask_ok(3, "SELECT pg_cancel_backend($pid)");
my $result = $s3->result;
ok(!defined $result || $s3->notices =~ /WARNING/, 'a broker that was taken out acknowledges nothing when it is back') or diag("$waits: $result");
$s3->quit;
$cluster->same_content('t', '... and the others have what they had');
is(scalar(grep { ($_->[3] // '') eq 'from the dead' } @{ $cluster->messages('t') }), 0, '... nothing of it');

$cluster->stop_all;
# broker 3 was told that there is none; two workers may make one segment at a time; and a table may still be
# copied by whom the leader has nothing for any more
$cluster->log_clean(crash => 1, allow => [ qr/broker 3 does not exist/, qr/(?:publication|replication slot) "[^"]*" does not exist/, qr/while making a segment .* duplicate key/ ]);
done_testing();
