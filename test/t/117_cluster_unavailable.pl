# Where nobody can lead: a leader that is cut off from the majority, a partition whose
# in-sync replicas are all gone, and what people do then.  Preferred leaders come back.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgtopicCluster;
use PgtopicTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $cluster = PgtopicCluster->new(brokers => 3, proxies => 1, conf => <<'EOC');
pgtopic.checkpoint_interval = '100ms'
pgtopic.broker_session_timeout = '2s'
pgtopic.replica_lag_time_max = '3s'
pgtopic.leader_rebalance_interval = -1
pgtopic.retention_check_interval = '200ms'
wal_sender_timeout = 4s
wal_receiver_timeout = 4s
EOC
$cluster->create;

# A topic of one partition whose preferred leader is a certain broker.
sub topic_at
{
	my ($name, @replicas) = @_;
	my $factor = @replicas;
	local $" = ',';
	$cluster->ask_ok(1, "SELECT create_topic('$name', replication_factor => $factor, min_insync_replicas => 1, retention => NULL, segment_messages => 1000)");
	$cluster->wait_in_sync(undef, "topic $name is there");
	$cluster->ask_ok(1, "SELECT move_partition('$name', 0, '{@replicas}')");
	$cluster->wait_until(1, "SELECT replicas = '{@replicas}' FROM partition_status WHERE topic::text = '$name'");
	$cluster->wait_in_sync;
	$cluster->ask_ok(1, "SELECT elect_leader('$name', 0, $replicas[0])");
	$cluster->wait_until($_, "SELECT leader FROM partition_status WHERE topic::text = '$name'", undef, $replicas[0]) for 1 .. 3;
	$cluster->wait_in_sync(undef, "... broker $replicas[0] leads it");
	return;
}

sub values_at
{
	my ($broker, $topic) = @_;
	return $cluster->ask_ok($broker, "SELECT string_agg(value, ' ' ORDER BY log_offset) FROM fetch_messages('$topic', 0, 0)");
}

sub state_at { my ($broker, $topic) = @_; return $cluster->ask_ok($broker, "SELECT concat_ws(' ', coalesce(leader::text, 'none'), isr) FROM partition_status WHERE topic::text = '$topic'"); }

# --- a leader that is cut off from the majority ---

topic_at('cut', 1, 2, 3);
{
	my $s = $cluster->session(1);
	my $waiting = $cluster->session(1);
	my $reader = $cluster->session(1);
	$s->query_ok("SELECT produce('cut', 'before')");
	$cluster->isolate(1);
	# nobody confirms this one any more
	$waiting->send("SELECT produce('cut', 'in doubt')");
	$s->query_ok("SET pgtopic.acks = 'leader'; SELECT produce('cut', 'acknowledged by the leader alone')");
	$cluster->wait_until(2, 'SELECT leader FROM partition_status', 'a leader is cut off: another one leads', '2');
	error_is($s, "SELECT produce('cut', 'no')", '57P03', qr/broker 1 takes nothing for partition 0 of topic "cut" now/, '... it takes nothing any more');
	like($s->error, qr/heard from no majority/, '... and says why');
	error_is($s, "SELECT * FROM consume('cut', 'g')", '57P03', qr/takes nothing/, '... nor does it let consume');
	result_is($reader, "SELECT value FROM fetch_messages('cut', 0, 0)", 'before', '... what it gives to read is settled');
	error_is($s, "SELECT create_topic('more')", '57P03', qr/no controller|not committed/, '... no metadata is changed');
	is($waiting->result, undef, '... a commit that waits for the others is not acknowledged');
	ok($waiting->{lost}, '... its session ends');
	like(slurp_file($cluster->node(1)->logfile), qr/WARNING:  terminating connection because this broker is cut off from its cluster/, '... with a warning that tells why');

	my $other = $cluster->session(3);
	$other->query_ok("SELECT produce('cut', 'after')");
	result_is($other, "SELECT count(*) FROM consume('cut', 'g')", '2', 'those who are not cut off go on');
	$cluster->heal;
	$cluster->wait_in_sync(undef, 'it is in sync when it is back');
	is(values_at($_, 'cut'), 'before after', "... nothing is there that was not settled, on broker $_") for 1 .. 3;
	$cluster->same_content('cut', '... nor in its tables');
	$s->query_ok("RESET pgtopic.acks");
	$s->query_ok("SELECT produce('cut', 'again')");
	is(values_at(1, 'cut'), 'before after again', '... and it takes messages again');
	$_->quit for $s, $reader, $other;
}

# --- offsets that only the old leader has handed out, rolled back, and stored as settled ---

topic_at('tail', 1, 2, 3);
{
	my $s = $cluster->session(1);
	$s->query_ok("SELECT produce('tail', 'before')");
	$cluster->isolate(1);
	$s->query_ok("BEGIN; SELECT produce_batch('tail', ARRAY(SELECT 'x' || n FROM generate_series(1, 10) n)); ROLLBACK");
	$cluster->wait_until(1, "SELECT p.high_watermark FROM pgtopic.partition p JOIN pgtopic.topic t ON t.id = p.topic_id WHERE t.name = 'tail'", 'what is rolled back at the end of the log counts as settled', '11');
	$cluster->wait_until(2, "SELECT leader FROM partition_status WHERE topic::text = 'tail'", undef, '2');
	is($cluster->ask_ok(3, "SELECT first_offset FROM produce_batch('tail', ARRAY['a', 'b', 'c'])"), '1', '... a new leader that has not heard of these offsets gives them to others');
	$cluster->heal;
	$cluster->wait_in_sync;
	is(values_at($_, 'tail'), 'before a b c', "... which are there, as broker $_ gives them to read") for 1 .. 3;
	$cluster->same_content('tail', '... and in all copies');
	$s->quit;
}

# --- preferred leaders ---

{
	is(state_at(2, 'cut') =~ s/ .*//r, '2', 'the preferred leader does not lead by itself');
	for my $broker (1 .. 3)
	{
		$cluster->node($broker)->append_conf('postgresql.conf', "pgtopic.leader_rebalance_interval = '500ms'");
		$cluster->node($broker)->reload;
	}
	$cluster->wait_until($_, "SELECT leader FROM partition_status WHERE topic::text = 'cut'", "pgtopic.leader_rebalance_interval: it does, as broker $_ sees", '1') for 1 .. 3;
	$cluster->wait_in_sync;
	for my $broker (1 .. 3)
	{
		$cluster->node($broker)->append_conf('postgresql.conf', 'pgtopic.leader_rebalance_interval = -1');
		$cluster->node($broker)->reload;
	}
}

# --- a follower that is fenced is not waited for, however long one may lag ---

topic_at('followed', 1, 2, 3);
{
	my $setting = sub {
		for my $broker (1 .. 3)
		{
			$cluster->node($broker)->append_conf('postgresql.conf', "pgtopic.replica_lag_time_max = '$_[0]'");
			$cluster->node($broker)->reload if $_[1] != $broker;
		}
	};
	$setting->('1h', 0);
	my $s = $cluster->session(1);
	result_is($s, 'SHOW pgtopic.replica_lag_time_max', '1h', 'a follower may lag for long');
	$cluster->kill9(3);
	ok(defined $s->query("SELECT produce('followed', 'x')"), '... and dies: commits wait no longer than until it is fenced');
	is(values_at(2, 'followed'), 'x', '... nor do readers');
	$s->quit;
	$setting->('3s', 3);
	$cluster->start(3);
	$cluster->wait_in_sync(undef, '... it is in sync when it is back');
}

# --- no in-sync replica is there ---

# Broker 2 gets out of sync with what 1 leads, and 1 goes: what only it has is missing.
sub only_one_in_sync
{
	my ($topic) = @_;
	$cluster->stop(2);
	$cluster->wait_until(3, "SELECT isr = '{1}' FROM partition_status WHERE topic::text = '$topic'");
	$cluster->ask_ok(1, "SELECT produce('$topic', 'only at one')");
	the_one_in_sync_goes();
	return;
}

sub the_one_in_sync_goes
{
	$cluster->kill9(1);
	$cluster->start(2);
	$cluster->wait_until($_, 'SELECT state FROM broker_status WHERE broker = 1', undef, 'fenced') for 2, 3;
	$cluster->wait_until($_, 'SELECT state FROM broker_status WHERE broker = 2', undef, 'online') for 2, 3;
	return;
}

topic_at('alone', 1, 2);
{
	$cluster->ask_ok(1, "SELECT produce('alone', 'first')");
	only_one_in_sync('alone');
	for my $broker (2, 3)
	{
		$cluster->wait_until($broker, "SELECT leader IS NULL FROM partition_status WHERE topic::text = 'alone'", "no in-sync replica is there: broker $broker knows of no leader");
		my $s = $cluster->session($broker);
		error_is($s, "SELECT produce('alone', 'no')", '57P03', qr/partition 0 of topic "alone" is unavailable/, '... and takes nothing');
		like($s->error, qr/on brokers that are not there: 1\./, '... it says who is missing');
		error_is($s, "SELECT * FROM fetch_messages('alone', 0, 0)", '57P03', qr/is unavailable/, '... nor can it be read');
		error_is($s, "SELECT elect_leader('alone', 0, 2)", '55000', qr/no leader that could hand over/, '... another replica is not elected without saying that messages may be lost');
		$s->quit;
	}
	# other partitions do not care
	$cluster->ask_ok(3, "SELECT produce('cut', 'meanwhile')");
	$cluster->start(1);
	$cluster->wait_until(3, "SELECT leader FROM partition_status WHERE topic::text = 'alone'", 'the in-sync replica is back, and leads', '1');
	$cluster->wait_in_sync;
	is(values_at(3, 'alone'), 'first only at one', '... with all it had');
	$cluster->same_content('alone', '... as have the others');
}

# --- somebody says that messages may be lost ---

topic_at('unclean', 1, 2);
{
	my $s = $cluster->session(3);
	$cluster->ask_ok(1, "SELECT produce('unclean', 'first')");
	error_is($s, "SELECT elect_leader('unclean', 0, 2, unclean => true)", '55000', qr/has a leader, broker 1/, 'an unclean election is refused while somebody leads');
	only_one_in_sync('unclean');
	error_is($s, "SELECT elect_leader('unclean', 0, unclean => true)", '22004', qr/broker/, 'it has to be said who');
	error_is($s, "SELECT elect_leader('unclean', 0, 3, unclean => true)", '22023', qr/broker 3 has no replica/, '... one who has a replica');
	error_is($s, "SELECT elect_leader('unclean', 0, 1, unclean => true)", '55000', qr/broker 1 is not there/, '... and is there');
	$s->query_ok("SELECT elect_leader('unclean', 0, 2, unclean => true)");
	is(state_at(3, 'unclean'), '2 {2}', 'it leads, alone');
	is(values_at(3, 'unclean'), 'first', '... without what it did not have');
	$s->query_ok("SELECT produce('unclean', 'other')");
	$cluster->start(1);
	$cluster->wait_in_sync(undef, 'the old leader is back, and in sync');
	is(values_at($_, 'unclean'), 'first other', "... it has given up what the new one has not, as broker $_ sees") for 1 .. 3;
	$cluster->same_content('unclean', '... its tables too');
	$s->quit;
}

# --- statistics of what was lost ---

topic_at('counted', 1, 2);
{
	my $id = $cluster->ask_ok(1, "SELECT 'counted'::topic::int");
	my $produce = sub {
		my ($broker, $count, $year) = @_;
		$cluster->ask_ok($broker, "SELECT count(*) FROM produce_batch('counted', ARRAY(SELECT 'v' || n FROM generate_series(1, $count) n),"
			  . " timestamps => ARRAY(SELECT timestamptz '$year-02-01' + n * interval '1 hour' FROM generate_series(1, $count) n))");
	};
	my $counted = sub {
		my ($broker, $expected, $name) = @_;
		local $Test::Builder::Level = $Test::Builder::Level + 1;
		$cluster->wait_until($broker, "SELECT concat_ws(' ', count(*), extract(year FROM min(min_timestamp)), extract(year FROM max(max_timestamp))) FROM pgtopic.segment_statistics WHERE topic_id = $id", $name, $expected);
		$cluster->wait_until($broker, recount_statistics('counted', $id), '... which are right', '');
	};
	$produce->(1, 1600, 2001);
	$counted->($_, '1 2001 2001', "broker $_ has statistics of what is complete") for 1, 2;
	$cluster->stop(2);
	$cluster->wait_until(3, "SELECT isr = '{1}' FROM partition_status WHERE topic::text = 'counted'");
	$produce->(1, 3000, 2011);
	$counted->(1, '4 2001 2011', '... and of what it alone has');
	the_one_in_sync_goes();
	$cluster->ask_ok(3, "SELECT elect_leader('counted', 0, 2, unclean => true)");
	$produce->(2, 1500, 1991);
	$counted->(2, '3 1991 2001', 'another one leads that has not got it, and has other messages');
	$cluster->start(1);
	$cluster->wait_in_sync(undef, 'the old leader is back, and in sync');
	$counted->($_, '3 1991 2001', "broker $_ has statistics of what there is now") for 1, 2;
	$cluster->same_content('counted');
}

$cluster->stop_all;
$cluster->log_clean(crash => 1);
done_testing();
