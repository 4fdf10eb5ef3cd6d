# What producers are told while replicas come and go, and what followers have: messages
# into segments made ahead, positions, watermarks, the start of the log.
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

my $cluster = PgtopicCluster->new(brokers => 3, conf => <<'EOC');
pgtopic.checkpoint_interval = '100ms'
pgtopic.broker_session_timeout = '2s'
pgtopic.replica_lag_time_max = '3s'
pgtopic.retention_check_interval = '200ms'
pgtopic.follower_wal_keep_size = '16MB'
wal_sender_timeout = 5s
wal_receiver_timeout = 5s
EOC
$cluster->create;
my @s = (undef, map { $cluster->session($_) } 1 .. 3);

# On which brokers a topic's partition 0 is in sync, as a broker sees it.
sub isr_is
{
	my ($number, $topic, $isr, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $cluster->wait_until($number, "SELECT ARRAY(SELECT unnest(isr) ORDER BY 1) FROM partition_status WHERE topic = '$topic' AND partition = 0", $name, $isr);
}

# A topic of one partition, led by the first of these.
sub topic_at
{
	my ($topic, $replicas, $options) = @_;
	my ($first) = $replicas =~ /(\d+)/;
	my $count = () = $replicas =~ /\d+/g;
	$s[1]->query_ok("SELECT create_topic('$topic', replication_factor => $count, retention => NULL" . ($options // '') . ')');
	$s[1]->query_ok("SELECT move_partition('$topic', 0, '$replicas')");
	$cluster->wait_until($_, "SELECT replicas = '$replicas' AND cardinality(isr) = $count FROM partition_status WHERE topic::text = '$topic'") for 1 .. 3;
	$s[1]->query_ok("SELECT elect_leader('$topic', 0, $first)");
	$cluster->wait_until($_, "SELECT leader FROM partition_status WHERE topic = '$topic'", undef, $first) for 1 .. 3;
	return;
}

# --- a big batch, segments, positions, the start of the log ---

topic_at('seg', '{1,2,3}', ', segment_messages => 1000');
result_is($s[2], "SELECT min(first_offset), max(last_offset) FROM produce_batch('seg', ARRAY(SELECT 'v' || n FROM generate_series(0, 5499) n))", '0|5499', 'a batch of more than five segments');
$cluster->same_content('seg', 'followers have it');
for my $i (1 .. 3)
{
	$cluster->wait_until($i, "SELECT high_watermark, log_end_offset FROM partition_status WHERE topic = 'seg'", "broker $i: watermark and end of the log", '5500|5500');
	$cluster->wait_until($i, "SELECT count(*) FILTER (WHERE messages > 0), max(to_offset) > 6000 FROM segment_status WHERE topic = 'seg'", "... six segments with messages, and some ahead", '6|t');
}
$s[3]->query_ok("SELECT count(*) FROM consume('seg', 'g', 1234)");
$s[2]->query_ok("SELECT commit_offset('h', 'seg', 0, 77)");
$cluster->wait_until($_, "SELECT string_agg(consumer_group || ' ' || committed_offset || ' ' || lag, ', ' ORDER BY 1) FROM consumer_group_status WHERE topic = 'seg'", "broker $_ has the positions of groups", 'g 1234 4266, h 77 5423') for 1 .. 3;
$s[2]->query_ok("SELECT drop_consumer_group('h', 'seg')");
$cluster->wait_until($_, "SELECT count(*) FROM consumer_group_status WHERE topic = 'seg' AND consumer_group = 'h'", "broker $_ has a group no more that was dropped", '0') for 1 .. 3;

$s[3]->query_ok("SELECT delete_messages('seg', 0, 2500)");
for my $i (1 .. 3)
{
	$cluster->wait_until($i, "SELECT log_start_offset FROM partition_status WHERE topic = 'seg'", "messages are deleted: the log starts later on broker $i", '2500');
	$cluster->wait_until($i, "SELECT min(from_offset) FROM segment_status WHERE topic = 'seg'", '... and segments before it are gone', '2000');
}
$s[2]->query_ok("SELECT alter_topic('seg', 'retention_bytes', '1')");
$cluster->wait_until(1, "SELECT log_start_offset >= 5000 FROM partition_status WHERE topic = 'seg'", 'retention moves the start of the log');
my $start = $s[1]->query_ok("SELECT log_start_offset FROM partition_status WHERE topic = 'seg'");
for my $i (2, 3)
{
	$cluster->wait_until($i, "SELECT log_start_offset FROM partition_status WHERE topic = 'seg'", "... on broker $i too", $start);
	$cluster->wait_until($i, "SELECT min(from_offset) >= 5000 FROM segment_status WHERE topic = 'seg'", '... and drops segments');
}
result_is($s[2], "SELECT log_offset FROM produce('seg', 'next')", '5500', 'the next message comes behind all that');
$s[2]->query_ok("SELECT elect_leader('seg', 0, 2)");
result_is($s[3], "SELECT log_offset FROM produce('seg', 'of the next leader')", '5501', '... also when another broker leads');
$cluster->wait_until(3, "SELECT sum(lag) FROM consumer_group_status WHERE topic = 'seg' AND consumer_group = 'g'", '... who knows the group', '502') if $start eq '5000';

# --- a follower is down: acknowledgements, the watermark, who is in sync ---

topic_at('acks', '{1,2}', ', min_insync_replicas => 2');
$s[1]->query_ok("SELECT produce('acks', 'before')");
my $end = "SELECT log_end_offset FROM partition_status WHERE topic = 'acks'";
my $read = "SELECT string_agg(value, ' ' ORDER BY log_offset) FROM fetch_messages('acks', 0, 0)";
$cluster->wait_until(2, "SELECT high_watermark FROM partition_status WHERE topic = 'acks'", 'a follower has the watermark', '1');
# long enough for what is looked at before it is over; it is shortened then
$cluster->node(1)->append_conf('postgresql.conf', "pgtopic.replica_lag_time_max = '1h'");
$s[1]->query_ok('SELECT pg_reload_conf()');
$cluster->wait_until(1, 'SHOW pgtopic.replica_lag_time_max', undef, '1h');
$cluster->stop(2);
my $waiting = $cluster->session(1);
my $pid = $waiting->pid;
$waiting->send("SELECT produce('acks', 'all')");
$cluster->wait_until(1, $end, 'acks = all, and a follower that is down: it is written', '2');
$s[3]->query_ok("SET pgtopic.acks = 'leader'");
result_is($s[3], "SELECT log_offset FROM produce('acks', 'leader')", '2', '... acks = leader waits for nobody, on another broker neither');
ok(!$waiting->is_done, '... acks = all does');
result_is($s[$_], $read, 'before', "... readers on broker $_ see neither") for 1, 3;
result_is($s[1], "SELECT in_sync, lag_bytes > 0 FROM replication_status WHERE topic = 'acks' AND follower = 2", 't|t', '... the follower counts as in sync, and has a lag');
$s[1]->query_ok("SELECT pg_cancel_backend($pid)");
isnt($waiting->result, undef, 'a wait that is cancelled: the transaction has committed');
like($waiting->notices, qr/WARNING: .*cancel/, '... with a warning');
note $waiting->notices;
$waiting->send("SELECT produce('acks', 'all again')");
$cluster->wait_until(1, $end, undef, '4');
$cluster->node(1)->append_conf('postgresql.conf', "pgtopic.replica_lag_time_max = '1s'");
$s[1]->query_ok('SELECT pg_reload_conf()');
isr_is($_, 'acks', '{1}', "after pgtopic.replica_lag_time_max the follower is out of sync, as broker $_ sees it") for 1, 3;
isnt($waiting->result, undef, '... who waited for it waits no more') or diag($waiting->error);
unlike($waiting->notices // '', qr/WARNING/, '... without a warning');
result_is($s[3], $read, 'before all leader all again', '... and readers see all of it');
result_is($s[1], "SELECT in_sync, state FROM replication_status WHERE topic = 'acks' AND follower = 2", 'f|lagging', '... the follower does not count as in sync');

# fewer in sync than there have to be
error_is($s[1], "SELECT produce('acks', 'no')", '53000', qr/not enough in-sync replicas.*There are 1, and min_insync_replicas is 2/s, 'min_insync_replicas: acks = all is refused');
$s[3]->query_ok("SET pgtopic.acks = 'all'");
error_is($s[3], "SELECT produce('acks', 'no')", '53000', qr/not enough in-sync replicas/, '... on another broker, too');
result_is($s[1], $end, '4', '... before anything is written');
$s[3]->query_ok("SELECT alter_topic('acks', 'min_insync_replicas', '1')");
# the leader hears of it a moment later
$cluster->wait_until(1, "SELECT min_insync_replicas FROM pgtopic.topic WHERE name = 'acks'", undef, '1');
result_is($s[3], "SELECT log_offset FROM produce('acks', 'one is enough')", '4', 'min_insync_replicas is decreased: it is taken');
error_is($s[1], "SELECT elect_leader('acks', 0, 2)", '55000', qr/broker 2 is not in sync|in sync/, 'elect_leader(): refused: a broker that is not in sync');
error_is($s[1], "SELECT elect_leader('acks', 0, 3)", '(?:22023|55000)', qr/broker 3/, 'elect_leader(): refused: one without a replica') if 0;
$s[1]->query("SELECT elect_leader('acks', 0, 3)");
like($s[1]->error, qr/broker 3/, 'elect_leader(): refused: one without a replica');
$cluster->start(2);
$s[2] = $cluster->session(2);
isr_is($_, 'acks', '{1,2}', "it is back: in sync, as broker $_ sees it") for 1 .. 3;
$cluster->same_content('acks');
is($cluster->ask_ok(2, "SELECT count(*) FROM pgtopic.t" . $s[2]->query_ok("SELECT id FROM pgtopic.topic WHERE name = 'acks'") . '_p0'), '5', '... and has what came meanwhile');

# --- pgtopic.follower_wal_keep_size ---

$cluster->stop(2);
isr_is(1, 'acks', '{1}', 'a follower is down, and out of sync');
$cluster->wait_until(1, "SELECT count(*) FROM partition_status WHERE leader = 1 AND 2 = ANY (isr)", undef, '0');
my $slots = "SELECT count(*) FILTER (WHERE slot_name ~ '_1_2\$'), count(*) FILTER (WHERE slot_name ~ '_1_3\$') FROM pg_replication_slots";
# something to keep WAL for on broker 3 too
$s[1]->query_ok("SELECT move_partition('acks', 0, '{1,2,3}')");
isr_is(1, 'acks', '{1,3}', '... another one comes into sync');
result_is($s[1], $slots, '1|1', '... each has its slot');
$s[1]->query_ok('CREATE TABLE filler (x text)');
my $left = $cluster->poll(sub {
	$s[1]->query_ok($_) for "INSERT INTO filler SELECT repeat(md5(n::text), 30) FROM generate_series(1, 5000) n", 'TRUNCATE filler';
	return $s[1]->query_ok($slots);
}, '0|1');
is($left, '0|1', 'more WAL than pgtopic.follower_wal_keep_size: the slot of the one that is down is dropped, and no other');
$s[1]->query_ok("SELECT produce_batch('acks', ARRAY(SELECT 'w' || n FROM generate_series(1, 100) n))");
$cluster->start(2);
$s[2] = $cluster->session(2);
isr_is($_, 'acks', '{1,2,3}', "it is back: in sync, as broker $_ sees it") for 1 .. 3;
$cluster->same_content('acks');
$cluster->wait_until(1, $slots, '... and has a slot again', '1|1');

# --- what a follower has given up arrives late, when it has begun another copy ---

my ($acks, $attempt, $rest) = split /\|/, $s[1]->query_ok("SELECT f.topic_id, f.attempt, p.leader_epoch || ', ' || f.placement FROM pgtopic.follower f JOIN pgtopic.partition p USING (topic_id, partition) WHERE f.follower = 2 AND f.topic_id = (SELECT id FROM pgtopic.topic WHERE name = 'acks')");
my $state = "SELECT state FROM pgtopic.follower WHERE follower = 2 AND topic_id = $acks";
cmp_ok($attempt, '>', 0, 'a copy has a number');
my $older = $attempt - 1;
my $newer = $attempt + 1;
error_is($s[1], "SELECT pgtopic.peer_unpublish(2, $acks, 0, $rest, $older)", '57P03', qr/another copy/, 'an earlier one is not taken out of the publications');
error_is($s[1], "SELECT pgtopic.peer_publish(2, $acks, 0, $rest, 0, $older)", '57P03', qr/another copy/, '... nor put there');
result_is($s[1], "SELECT pgtopic.peer_ready(2, $acks, 0, $rest, $older)", 'f', '... nor complete');
$s[1]->query_ok("SELECT pgtopic.peer_forget(2, $acks, 0, $older)");
$s[1]->query_ok("SELECT pgtopic.peer_forget(2, 0, 0, min(attempt) - 1) FROM pgtopic.follower");
result_is($s[1], $state, 'ready', '... and nothing is forgotten for it');
result_is($s[1], "SELECT pgtopic.peer_publish(2, $acks, 0, $rest, 0, $newer)", 'f', 'a later one does not take what was published for this one');
result_is($s[1], "SELECT pgtopic.peer_publish(2, $acks, 0, $rest, 0, $attempt)", 't', '... which does');
result_is($s[1], "SELECT pgtopic.peer_ready(2, $acks, 0, $rest, $attempt)", 't', '... and is complete');
isr_is(1, 'acks', '{1,2,3}', '... in sync all the time');

# --- a topic is dropped in the middle of it all ---

topic_at('drop', '{1,2,3}');
$s[1]->query_ok("SELECT add_partitions('drop', 3)");
$cluster->wait_in_sync;
my $load = PgtopicLoad->new($cluster, topic => 'drop');
$load->producer("p$_", brokers => [$_], keys => 20) for 1 .. 3;
$load->consumer("c$_", brokers => [$_], group => 'g') for 1 .. 3;
$load->tail('t', brokers => [1]);
$load->await_progress(5);
# somebody in a transaction
my $open = $cluster->session(3);
$open->query_ok("BEGIN; SELECT produce('drop', 'open', partition => p) FROM generate_series(0, 2) p");
my $id = $s[2]->query_ok("SELECT id FROM pgtopic.topic WHERE name = 'drop'");
$s[2]->query_ok("SELECT drop_topic('drop')");
for my $i (1 .. 3)
{
	$cluster->wait_until($i, "SELECT count(*) FROM topic_status WHERE topic::text = 'drop'", "dropped under load: gone on broker $i", '0');
	error_is($s[$i], "SELECT produce('drop', 'x')", '42704', qr/"drop" does not exist/, '... and not found any more');
}
# the tables are there for the one that is open
is($open->query('COMMIT'), '', '... and whoever has produced in a transaction can commit it') or diag($open->error);
# followers wait for open transactions before they copy, as PostgreSQL has it
$s[2]->query_ok("SELECT create_topic('drop', partitions => 3, replication_factor => 3)");
result_is($s[2], "SELECT count(*) FROM produce_batch('drop', ARRAY['a', 'b'], partition => 0)", '1', '... another one of that name can be used');
$load->stop;
for my $i (1 .. 3)
{
	$cluster->wait_until($i, "SELECT count(*) FROM pg_class WHERE relnamespace = 'pgtopic'::regnamespace AND relname ~ '^t${id}(_|\$)'", "... its tables are gone on broker $i", '0');
}
$open->quit;
$cluster->wait_in_sync;
result_is($s[1], "SELECT count(*) FROM fetch_messages('drop', 0, 0) WHERE value = 'a'", '1', '... the new one is as good as any');
$cluster->same_content('drop');
$cluster->wait_until($_, "SELECT count(*) FROM pg_stat_subscription WHERE pid IS NULL", "broker $_ receives from all that it follows", '0') for 1 .. 3;

$_->quit for @s[ 1 .. 3 ], $waiting;
$cluster->stop_all;
# a leader that a broker has nothing of any more drops its slot, and the subscription goes next
$cluster->log_clean(faults => 1, allow => [ qr/replication slot "[^"]*" does not exist/ ]);
done_testing();
