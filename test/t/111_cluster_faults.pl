# Three brokers under load while one after the other is restarted or killed, is away
# for longer than its slots survive, or cannot be reached.  In the end everything that
# was acknowledged is there once, on all replicas.
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
sub in_sync { my ($topic, $broker) = @_; return "SELECT count(*) FROM partition_status WHERE topic = '$topic' AND $broker = ANY (isr)"; }
sub leads { my ($topic, $broker) = @_; return "SELECT count(*) FROM partition_status WHERE topic = '$topic' AND leader = $broker"; }

# --- restart, and SIGKILL, of each broker under load ---

for my $way ('fast', 'immediate', 'SIGKILL')
{
	my $load = load();
	for my $broker (1 .. 3)
	{
		my $other = $broker % 3 + 1;
		# it has to lead something, for this to say anything
		$cluster->ask_ok($broker, "SELECT elect_leader('$load->{topic}', partition) FROM partition_status WHERE topic = '$load->{topic}' AND leader <> replicas[1]");
		$cluster->wait_until($other, leads($load->{topic}, $broker) =~ s/count\(\*\)/count(*) > 0/r, "$way: broker $broker leads");
		if ($way eq 'SIGKILL') { $cluster->kill9($broker); }
		else { $cluster->stop($broker, $way); }
		# the others go on without it
		$cluster->wait_until($other, leads($load->{topic}, $broker), "... and does not when it is down", '0');
		$load->await_progress(20);
		$cluster->start($broker);
		$cluster->wait_in_sync(undef, "... and is in sync when it is back");
		$load->await_progress(20);
	}
	finish($load, $way);
}

# --- and each at once: restarted in the middle, before anybody has noticed ---

{
	my $load = load();
	for my $broker (1 .. 3)
	{
		$cluster->kill9($broker);
		$cluster->start($broker);
		$load->await_progress(10);
		$cluster->wait_in_sync(undef, "SIGKILL and start at once: broker $broker is in sync again");
	}
	finish($load, 'SIGKILL and start at once');
}

# --- all at once ---

{
	my $load = load();
	$cluster->kill9($_) for 1 .. 3;
	$cluster->start($_) for 1 .. 3;
	$cluster->wait_in_sync(undef, 'SIGKILL of all brokers: all are in sync again');
	finish($load, 'SIGKILL of all brokers');
}

# --- a majority is needed ---

{
	my $load = load();
	$cluster->stop($_) for 2, 3;
	my $s = $cluster->session(1);
	$s->query_ok("SET statement_timeout = '20 s'");
	# it may take a moment to notice; what it acknowledges until then must be true
	my ($tried, $taken) = (0, 0);
	my $refused = $cluster->poll(sub {
		$tried++;
		return 'refused' if !defined $s->query("SELECT produce('$load->{topic}', 'alone', partition => 0)");
		$taken++;
		return 'taken';
	}, 'refused');
	is($refused, 'refused', 'one of three: messages are refused');
	error_is($s, "SELECT create_topic('no')", '57P03', qr/no controller|not committed/, '... and changes of metadata');
	ok(defined $s->query("SELECT count(*) FROM fetch_messages('$load->{topic}', 0, 0)"), '... but it can be read');
	$s->quit;
	$cluster->start($_) for 2, 3;
	$cluster->wait_in_sync(undef, '... until there is a majority again');
	my $alone = grep { ($_->[3] // '') eq 'alone' } @{ $cluster->messages($load->{topic}) };
	ok($taken <= $alone && $alone <= $tried, "... nothing that was acknowledged is lost: $taken of $tried, and $alone are there");
	finish($load, 'one of three');
}

# --- a follower is down for longer than its slots survive ---

{
	my $load = load();
	$cluster->stop(3);
	$cluster->wait_until(1, in_sync($load->{topic}, 3), 'broker 3 is down: it is not in sync', '0');
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
		is($cluster->ask($leader, "SELECT count(*) > 0 FROM pg_replication_slots WHERE active AND wal_status IN ('reserved', 'extended')"), 't', '... and no others');
	}
	$load->await_progress(20);
	$cluster->start(3);
	$cluster->wait_in_sync(undef, '... it copies on when it is back, and is in sync');
	is($cluster->ask($_, "SELECT count(*) FROM pg_replication_slots WHERE wal_status = 'lost'"), '0', "... and no lost slot is left on broker $_") for 1 .. 3;
	finish($load, 'a follower that was away for long');
	$cluster->ask_ok(1, "SELECT drop_topic('bulk')");
}

# --- the network between two brokers is cut: both still reach the third ---

for my $pair ([ 1, 2 ], [ 2, 3 ], [ 1, 3 ])
{
	my ($i, $j) = @$pair;
	my ($third) = grep { $_ != $i && $_ != $j } 1 .. 3;
	my $load = load();
	$cluster->cut($i, $j);
	# each follows the other in something: one of the two falls out of sync there
	my $seen = $cluster->poll(sub {
		$cluster->ask($third, "SELECT count(*) > 0 FROM partition_status WHERE topic = '$load->{topic}' AND cardinality(isr) < 3");
	}, 't');
	is($seen, 't', "no way between $i and $j: somebody falls out of sync");
	$load->await_progress(20, 'p1', 'p2', 'p3');
	is($cluster->ask($third, "SELECT count(*) FROM partition_status WHERE topic = '$load->{topic}' AND leader IS NULL"), '0', '... but each partition has a leader');
	$cluster->heal($i, $j);
	$cluster->wait_in_sync(undef, '... and all are in sync when the way is open again');
	finish($load, "a way between $i and $j that was cut");
}

# --- a leader is cut off from everybody, and does not know it ---

for my $broker (1 .. 3)
{
	my ($other) = grep { $_ != $broker } 1 .. 3;
	my $load = load();
	$cluster->ask_ok($other, "SELECT elect_leader('$load->{topic}', 0, $broker)");
	$cluster->wait_until($other, "SELECT leader FROM partition_status WHERE topic = '$load->{topic}' AND partition = 0", "broker $broker leads", $broker);
	my $epoch = $cluster->ask_ok($other, "SELECT leader_epoch FROM partition_status WHERE topic = '$load->{topic}' AND partition = 0");
	my $stale = $cluster->session($broker);
	my $acks = $cluster->session($broker);
	$acks->query_ok("SET pgtopic.acks = 'leader'");
	$cluster->isolate($broker);
	$stale->send("SELECT log_offset FROM produce('$load->{topic}', 'from the old leader', partition => 0)");
	# acks = leader promises nothing: what is taken so may be lost, but must not stay on this broker alone
	$acks->send("SELECT log_offset FROM produce('$load->{topic}', 'of the old leader alone', partition => 0)");
	$cluster->wait_until($other, leads($load->{topic}, $broker), "broker $broker is cut off: others lead", '0');
	cmp_ok($cluster->ask($other, "SELECT leader_epoch FROM partition_status WHERE topic = '$load->{topic}' AND partition = 0"), '>', $epoch, '... in a new epoch');
	# clients that hang at the one that is cut off are not those that count
	my $there = PgtopicLoad->new($cluster, topic => $load->{topic});
	$there->producer("q$broker", brokers => [ grep { $_ != $broker } 1 .. 3 ]);
	$there->await_progress(20);
	# by now it knows that it does not lead
	my $late = $cluster->session($broker);
	$late->query_ok("SET statement_timeout = '20 s'");
	is($late->query("SELECT log_offset FROM produce('$load->{topic}', 'too late', partition => 0)"), undef, '... and it takes nothing any more');
	$late->quit;
	$cluster->heal;
	$cluster->wait_in_sync(undef, '... and it is in sync when it is back');
	$there->await_progress(10);
	$there->stop;
	# an acknowledgement must be true
	my $acknowledged = $stale->result;
	my $count = grep { ($_->[3] // '') eq 'from the old leader' } @{ $cluster->messages($load->{topic}) };
	if (defined $acknowledged) { is($count, 1, 'what it has acknowledged with acks = all is there'); }
	else { cmp_ok($count, '<=', 1, 'what it has not acknowledged is there at most once: ' . $stale->error); }
	$acks->result;
	is(scalar(grep { ($_->[3] // '') eq 'too late' } @{ $cluster->messages($load->{topic}) }), 0, 'what it has refused is not');
	$_->quit for $stale, $acks;
	finish($load, "broker $broker that was cut off");
	is(join("\n", $there->problems), '', '... for those who went on without it, too');
}

# --- one direction alone, resets, a slow network ---

for my $fault (
	[ 'broker 1 is not heard by 2', sub { $cluster->cut_one_way(1, 2) } ],
	[ 'broker 2 is not heard by anybody', sub { $cluster->cut_one_way(2, $_) for 1, 3 } ],
	[ 'broker 3 hears nobody', sub { $cluster->cut_one_way($_, 3) for 1, 2 } ],
	[ 'connections of 1 and 3 are refused', sub { $cluster->reset(1, 3) } ])
{
	my ($what, $do) = @$fault;
	my $load = load();
	$do->();
	my $seen = $cluster->poll(sub {
		(grep { ($cluster->ask($_, "SELECT count(*) > 0 FROM partition_status WHERE topic = '$load->{topic}' AND cardinality(isr) < 3") // '') eq 't' } 1 .. 3) ? 't' : 'f';
	}, 't');
	is($seen, 't', "$what: somebody falls out of sync");
	$cluster->heal;
	$cluster->wait_in_sync(undef, '... and all are in sync when it is over');
	finish($load, $what);
}
{
	my $load = load();
	for my $turn (1 .. 5)
	{
		for my $pair ([ 1, 2 ], [ 2, 3 ], [ 1, 3 ])
		{
			$cluster->drop(@$pair);
			$load->await_progress(3);
		}
	}
	$cluster->delay(1, 2, 30);
	$cluster->delay(2, 3, 60);
	$load->await_progress(20);
	$cluster->delay($_->[0], $_->[1], 0) for [ 1, 2 ], [ 2, 3 ];
	finish($load, 'connections that break, and slow ones');
}

$cluster->stop_all;
$cluster->log_clean(crash => 1);
done_testing();
