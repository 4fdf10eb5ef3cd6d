# Three brokers under load while one after the other is restarted or killed, is away
# for longer than its slots survive, or cannot be reached.  In the end everything that
# was acknowledged is there once, on all replicas.  Meanwhile what is led by a broker
# that is down waits for it: nobody else leads it by himself.
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
pgtopic.follower_wal_keep_size = '32MB'
max_slot_wal_keep_size = '32MB'
wal_sender_timeout = 4s
wal_receiver_timeout = 4s
EOC
$cluster->create;
my $number = 0;

# A topic with load on it: producers on all brokers, a group, a reader for each partition.
sub load
{
	my $topic = 'load' . ++$number;
	# what the last one has left need not be looked at again
	$cluster->ask_ok(1, "SELECT drop_topic('load" . ($number - 1) . "')") if $number > 1;
	$cluster->ask_ok(1, "SELECT create_topic('$topic', partitions => 3, replication_factor => 3, retention => NULL, segment_messages => 20000)");
	$cluster->wait_until($_, "SELECT count(*) FROM partition_status WHERE topic::text = '$topic'", undef, '3') for $cluster->running;
	my $load = PgtopicLoad->new($cluster, topic => $topic);
	$load->producer("p$_", brokers => [ $_, $_ % 3 + 1, ($_ + 1) % 3 + 1 ]) for 1 .. 3;
	$load->consumer("c$_", group => 'g', brokers => [ $_, $_ % 3 + 1, ($_ + 1) % 3 + 1 ]) for 1, 2;
	$load->tail("t$_", partition => $_, brokers => [ $_ + 1, ($_ + 1) % 3 + 1, ($_ + 2) % 3 + 1 ]) for 0 .. 2;
	$load->await_progress(20);
	return $load;
}

# All that runs is well again, and nothing is lost, doubled, or different.
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
	# also when asked for what each broker has, whoever leads
	is(join("\n", $load->problems(number => $_)), '', "... as acknowledged on broker $_ as well") for $cluster->numbers;
	is($cluster->ask(1, "SELECT sum(lag) FROM consumer_group_status WHERE topic = '$load->{topic}'"), '0', '... and the group has no lag');
	return;
}

# In how many partitions of a topic a broker is in sync, or leads, as another one sees it.
sub leads { my ($topic, $broker) = @_; return "SELECT count(*) FROM partition_status WHERE topic = '$topic' AND leader = $broker"; }

# Producers that reach all brokers but those that are down or cut off: what others lead
# goes on.
sub others_go_on
{
	my ($load, $without, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @there = grep { my $n = $_; !grep { $_ == $n } @$without } $cluster->numbers;
	my $s = $cluster->session($there[0]);
	my $led = $s->query_ok("SELECT partition FROM partition_status WHERE topic = '$load->{topic}' AND leader IN (" . join(', ', @there) . ') ORDER BY 1 LIMIT 1');
	# waits until who is not there has fallen out of sync; the others may have lagged, too
	my $done = $cluster->poll(sub {
		my $answer = $s->query("SELECT produce('$load->{topic}', 'meanwhile', partition => $led)");
		return defined $answer ? 'done' : $s->error =~ /53000/ ? 'too few in sync' : 'failed';
	}, 'done', 60);
	is($done, 'done', $name) or diag($s->error);
	$s->quit;
	return;
}

# --- each broker is restarted under load, in each way ---

{
	my $load = load();
	my %way = (1 => 'fast', 2 => 'immediate', 3 => 'SIGKILL');
	for my $broker (1 .. 3)
	{
		my $way = $way{$broker};
		my $other = $broker % 3 + 1;
		my $leads = $cluster->ask($other, leads($load->{topic}, $broker));
		cmp_ok($leads, '>', 0, "$way: broker $broker leads something");
		if ($way eq 'SIGKILL') { $cluster->kill9($broker); }
		else { $cluster->stop($broker, $way); }
		$cluster->wait_until($other, "SELECT count(*) FROM partition_status WHERE topic = '$load->{topic}' AND $broker IN (leader, isr[1], isr[2], isr[3])", '... leads nothing and is in sync with nothing when it is down', '0');
		others_go_on($load, [$broker], '... the others go on without it');
		$cluster->start($broker);
		$cluster->wait_in_sync(undef, '... and is in sync when it is back');
		$load->await_progress(10);
	}
	# in the middle, before anybody has noticed
	for my $broker (1 .. 3)
	{
		$cluster->kill9($broker);
		$cluster->start($broker);
		$load->await_progress(10);
	}
	$cluster->wait_in_sync(undef, 'SIGKILL and start at once, one after the other: all are in sync again');
	$load->await_progress(10);
	$cluster->kill9($_) for 1 .. 3;
	$cluster->start($_) for 1 .. 3;
	$cluster->wait_in_sync(undef, 'SIGKILL of all brokers: all are in sync again');
	finish($load, 'restarts');
}

# --- what was read before the leader's server crashed can be committed, and deleted, at once when it is back ---

{
	$cluster->ask_ok(1, "SELECT create_topic('back', replication_factor => 3)");
	$cluster->wait_in_sync;
	my $leader = $cluster->leader('back', 0);
	# the watermark that is stored is an old one then
	my $interval = "ALTER SYSTEM SET pgtopic.checkpoint_interval = '1h'";
	$cluster->ask_ok($leader, $interval);
	$cluster->node($leader)->reload;
	$cluster->wait_until($leader, 'SHOW pgtopic.checkpoint_interval', undef, '1h');
	$cluster->ask_ok($leader, "SELECT count(*) FROM produce_batch('back', ARRAY(SELECT 'v' || n FROM generate_series(1, 10) n))");
	$cluster->wait_until($leader, "SELECT count(*) FROM fetch_messages('back', 0, 0)", 'all of it is read', '10');
	$cluster->stop($leader, 'immediate');
	$cluster->start($leader);
	my $s = $cluster->session($leader);
	for my $call ("commit_offset('g', 'back', 0, 10)", "delete_messages('back', 0, 10)")
	{
		# first it has to hear of the majority
		my $error = '';
		$cluster->poll(sub { $error = defined $s->query("SELECT $call") ? '' : $s->error; return $error =~ /57P03/ ? 0 : 1; }, 1);
		is($error, '', "... and is not out of range when the server is back: $call");
	}
	is($cluster->ask_ok($leader, "SELECT committed_offset FROM consumer_group_status WHERE topic = 'back'"), '10', '... and is committed');
	error_is($s, "SELECT commit_offset('g', 'back', 0, 11)", '22003', qr/offset 11 is out of range/, '... what is not there is out of range at once');
	$s->quit;
	$cluster->ask_ok($leader, 'ALTER SYSTEM RESET pgtopic.checkpoint_interval');
	$cluster->node($leader)->reload;
	$cluster->ask_ok(1, "SELECT drop_topic('back')");
}

# --- a majority is needed for changes of the metadata ---

{
	my $load = load();
	my $s = $cluster->session(1);
	my %led_by = map { $_ => $s->query_ok("SELECT min(partition) FROM partition_status WHERE topic = '$load->{topic}' AND leader = $_") } 1, 2;
	# both at once: nobody is fenced, since there is no majority for it
	$cluster->kill9($_) for 2, 3;
	ok(defined $s->query("SELECT count(*) FROM fetch_messages('$load->{topic}', $led_by{1}, 0)"), 'one of three: what it leads can be read');
	error_is($s, "SELECT fetch_messages('$load->{topic}', $led_by{2}, 0)", '08001', qr/broker 2/, '... and what others lead is an error that says who');
	# a change of metadata waits for a majority
	my $pid = $s->pid;
	$s->send("SELECT create_topic('no')");
	$cluster->wait_until(1, "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $pid");
	$cluster->start($_) for 2, 3;
	# the controller may be another one by then, and does not know whether the last one's change has come through
	my $made = $s->result // ($s->error =~ /57P03: the cluster's controller has changed/ ? 'asked again' : $s->error);
	$cluster->poll(sub { return defined $s->query("SELECT create_topic('no')") || $s->error =~ /42710/ ? 1 : 0; }, 1) if $made eq 'asked again';
	like($made, qr/^(?:no|asked again)$/, '... a change of metadata waits until there is a majority again');
	result_is($s, "SELECT count(*) FROM topic_status WHERE topic = 'no'", '1', '... and is made');
	$s->query_ok("SELECT drop_topic('no')");
	$s->quit;
	$cluster->wait_in_sync(undef, '... and so are all in sync');
	finish($load, 'one of three');
}

# --- a follower is down for longer than its slots survive ---

{
	my $load = load();
	$cluster->stop(3);
	$cluster->wait_until(1, "SELECT count(*) FROM partition_status WHERE topic = '$load->{topic}' AND leader <> 3 AND 3 = ANY (isr)", 'broker 3 is down: it is not in sync', '0');
	$cluster->ask_ok(1, "SELECT create_topic('bulk', partitions => 2, replication_factor => 2, retention => NULL)");
	# more WAL than may be kept, until no slot that broker 3 could go on with is left
	for my $leader (1, 2)
	{
		my $turns = 0;
		my $left = $cluster->poll(sub {
			$turns++;
			$cluster->ask_ok($leader, "CREATE TABLE IF NOT EXISTS filler (x text)");
			$cluster->ask_ok($leader, $_) for "INSERT INTO filler SELECT repeat(md5(n::text), 30) FROM generate_series(1, 10000) n", 'TRUNCATE filler', 'SELECT pg_switch_wal()', 'CHECKPOINT';
			return $cluster->ask_ok($leader, "SELECT count(*) FROM pg_replication_slots WHERE NOT active AND wal_status <> 'lost'");
		}, '0');
		is($left, '0', "broker $leader has given up the slots of broker 3 ($turns turns)");
		$cluster->wait_until($leader, "SELECT count(*) > 0 FROM pg_replication_slots WHERE active AND wal_status IN ('reserved', 'extended')", '... and no others');
	}
	others_go_on($load, [3], '... the others go on');
	$cluster->start(3);
	$cluster->wait_in_sync(undef, '... it copies on when it is back, and is in sync');
	is($cluster->ask($_, "SELECT count(*) FROM pg_replication_slots WHERE wal_status = 'lost'"), '0', "... and no lost slot is left on broker $_") for 1 .. 3;
	finish($load, 'a follower that was away for long');
	$cluster->ask_ok(1, "SELECT drop_topic('bulk')");
}

# --- the network between two brokers is cut: both still reach the third ---

# (The third is the controller.  Where the controller is one of the two, the other
# cannot tell it who is out of sync.)
{
	my $load = load();
	my $third = $cluster->ask_ok(1, 'SELECT broker FROM broker_status WHERE is_controller');
	my ($i, $j) = grep { $_ != $third } 1 .. 3;
	$cluster->cut($i, $j);
	for my $pair ([ $i, $j ], [ $j, $i ])
	{
		my ($leader, $follower) = @$pair;
		$cluster->wait_until($third, "SELECT count(*) FROM partition_status WHERE topic = '$load->{topic}' AND leader = $leader AND $follower = ANY (isr)",
			"no way between $i and $j: broker $follower is not in sync where $leader leads", '0');
	}
	$cluster->wait_until($third, "SELECT count(*) FROM partition_status WHERE topic = '$load->{topic}' AND $third = ANY (isr)", '... and the third is', '3');
	my $there = PgtopicLoad->new($cluster, topic => $load->{topic});
	$there->producer('q', brokers => [$third], keys => 20);
	$there->await_progress(20);
	$there->stop;
	is($there->errors('q'), '', '... and through it everything can be produced');
	$cluster->heal($i, $j);
	$cluster->wait_in_sync(undef, '... and all are in sync when the way is open again');
	finish($load, "a way between $i and $j that was cut");
	is(join("\n", $there->problems), '', '... for those at the third, too');
}

# --- a broker is cut off from everybody, or not heard ---

for my $fault (
	[ 1, 'broker 1 is cut off', sub { $cluster->isolate(1) } ],
	[ 2, 'broker 2 is not heard by anybody', sub { $cluster->cut_one_way(2, $_) for 1, 3 } ])
{
	my ($broker, $what, $do) = @$fault;
	my ($other) = grep { $_ != $broker } 1 .. 3;
	my $load = load();
	# acknowledged by the leader alone, while it cannot be heard
	my $alone = $cluster->session($broker);
	my $partition = $cluster->ask_ok($broker, "SELECT partition FROM partition_status WHERE topic = '$load->{topic}' AND leader = $broker LIMIT 1");
	$alone->query_ok("SET pgtopic.acks = 'leader'");
	$do->();
	$alone->query_ok("SELECT produce('$load->{topic}', 'alone', partition => $partition)");
	$cluster->wait_until($other, "SELECT count(*) FROM partition_status WHERE topic = '$load->{topic}' AND $broker IN (leader, isr[1], isr[2], isr[3])", "$what: it leads nothing", '0');
	others_go_on($load, [$broker], '... the others go on');
	$cluster->heal;
	$cluster->wait_in_sync(undef, '... and it is in sync when it is back');
	finish($load, $what);
	is(scalar(grep { ($_->[3] // '') eq 'alone' } @{ $cluster->messages($load->{topic}) }), 0, '... what its leader took alone, and for itself alone, is in no log');
	$alone->quit;
}

# --- connections that break, are refused, and are slow ---

{
	my $load = load();
	for my $turn (1 .. 3)
	{
		for my $pair ([ 1, 2 ], [ 2, 3 ], [ 1, 3 ])
		{
			$cluster->drop(@$pair);
			$load->await_progress(2);
		}
	}
	$cluster->reset(1, 3);
	$cluster->wait_until(2, "SELECT count(*) > 0 FROM partition_status WHERE topic = '$load->{topic}' AND cardinality(isr) < 3", 'connections of 1 and 3 are refused: somebody falls out of sync');
	$cluster->heal(1, 3);
	$cluster->wait_in_sync(undef, '... and all are in sync when they are not');
	$cluster->delay(1, 2, 20);
	$cluster->delay(2, 3, 40);
	$load->await_progress(10);
	$cluster->delay($_->[0], $_->[1], 0) for [ 1, 2 ], [ 2, 3 ];
	finish($load, 'connections that break, and slow ones');
}

$cluster->stop_all;
$cluster->log_clean(crash => 1);
done_testing();
