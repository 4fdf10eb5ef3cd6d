# What the tests of clusters stand on: servers that find each other by services and
# passwords, connections that can be cut, load that knows what it was told, and
# content that is compared.  All of it without a cluster: each server is one of its own.
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

my $cluster = PgtopicCluster->new(brokers => 3, proxies => 1,
	conf => "pgtopic.checkpoint_interval = '100ms'\nmax_replication_slots = 21\nwal_receiver_timeout = 3s\nwal_sender_timeout = 3s");

# --- servers ---

is(join(' ', $cluster->numbers), '1 2 3', 'three servers');
is(join(' ', $cluster->running), '1 2 3', '... run');
for my $i ($cluster->numbers)
{
	is($cluster->ask($i, "SELECT current_setting('wal_level'), current_setting('max_replication_slots'), current_setting('max_worker_processes')"),
		'logical|21|32', "broker $i has the settings, those of the test last");
}

# Whether psql, with the environment of broker $i, gets to what $conninfo says.
sub connects
{
	my ($i, $conninfo, $sql) = @_;
	local $ENV{PGSERVICEFILE} = $cluster->service_file($i);
	delete local @ENV{qw(PGHOST PGPORT)};
	my $out = '';
	my $err = '';
	IPC::Run::run([ $cluster->node($i)->installed_command('psql'), '-XAtq', '-d', $conninfo, '-c', $sql ], '<', '/dev/null', '>', \$out, '2>', \$err);
	chomp($out, $err);
	return $out ne '' ? $out : $err;
}

for my $i ($cluster->numbers)
{
	for my $j ($cluster->numbers)
	{
		my $before = $i == $j ? 0 : $cluster->proxy($i, $j)->stats->{accepted};
		is(connects($i, "service=broker$j", "SELECT current_setting('cluster_name'), current_user, inet_client_addr()"),
			"broker$j|pgtopic_peer|127.0.0.1", "broker $i gets to broker $j as the peer");
		is($cluster->proxy($i, $j)->stats->{accepted}, $before + 1, '... through the proxy of the two') if $i != $j;
	}
}
like(connects(1, 'service=broker2 replication=database', 'IDENTIFY_SYSTEM'), qr/\|postgres$/, 'for replication too');
like(connects(1, 'service=broker2 passfile=/dev/null', 'SELECT 1'), qr/no password supplied/, '... not without a password');
like(connects(1, 'service=broker2 password=wrong', 'SELECT 1'), qr/password authentication failed/, '... nor with a wrong one');
like(connects(1, 'service=broker2 user=' . $cluster->ask(1, 'SELECT current_user'), 'SELECT 1'), qr/no pg_hba.conf entry/, '... nor as superuser');

# --- a subscription, whose worker connects by the postmaster's service file ---

for my $i (1, 2)
{
	$cluster->ask_ok($i, 'CREATE TABLE r (n int PRIMARY KEY)');
}
$cluster->ask_ok(1, $_) for 'GRANT SELECT ON r TO pgtopic_peer', 'CREATE PUBLICATION p FOR TABLE r', 'INSERT INTO r VALUES (0)';
$cluster->ask_ok(2, "CREATE SUBSCRIPTION s CONNECTION 'service=broker1' PUBLICATION p");
my $rows = 'SELECT count(*), max(n) FROM r';
$cluster->wait_until(2, $rows, 'a subscription copies', '1|0');
$cluster->ask_ok(1, 'INSERT INTO r VALUES (1)');
$cluster->wait_until(2, $rows, '... and streams', '2|1');
cmp_ok($cluster->proxy(2, 1)->stats->{open}, '>=', 1, '... through the proxy');

sub confirmed
{
	my ($count, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$cluster->wait_until(2, $rows, $name, $count . '|' . ($count - 1));
	return;
}

my $walsender = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 's'";
$cluster->wait_until(1, $walsender, undef, '1');
$cluster->cut(1, 2);
my $bytes = $cluster->proxy(2, 1)->stats->{to_client};
$cluster->ask_ok(1, 'INSERT INTO r VALUES (2)');
# both sides notice by their timeouts alone
$cluster->wait_until(1, $walsender, 'cut: the sender gives up after its timeout', '0');
is($cluster->ask(2, $rows), '2|1', '... nothing comes');
is($cluster->proxy(2, 1)->stats->{to_client}, $bytes, '... at all');
is($cluster->proxy(3, 1)->stats->{open}, 0, '... and the other pairs are no part of it');
is(connects(3, 'service=broker1', 'SELECT 1'), '1', '... but work');
$cluster->heal(1, 2);
confirmed(3, 'healed: it comes');

$cluster->cut_one_way(1, 2);
$cluster->ask_ok(1, 'INSERT INTO r VALUES (3)');
$cluster->wait_until(1, $walsender, 'cut one way: the sender gives up', '0');
is($cluster->ask(2, $rows), '3|2', '... nothing comes');
$cluster->heal;
confirmed(4, 'healed: it comes');

$cluster->reset(1, 2);
$cluster->wait_until(1, $walsender, 'reset: the sender is gone', '0');
$cluster->ask_ok(1, 'INSERT INTO r VALUES (4)');
$cluster->heal(1, 2);
confirmed(5, 'healed: it comes');
$cluster->drop(1, 2);
$cluster->ask_ok(1, 'INSERT INTO r VALUES (5)');
confirmed(6, 'dropped once: it comes');
$cluster->delay(1, 2, 50);
$cluster->ask_ok(1, 'INSERT INTO r VALUES (6)');
confirmed(7, 'delayed: it comes');
$cluster->delay(1, 2, 0);

# --- stop, start, restart, SIGKILL: the service file is still known ---

$cluster->restart(2);
$cluster->ask_ok(1, 'INSERT INTO r VALUES (7)');
confirmed(8, 'after a restart it comes');
$cluster->node(2)->restart;
$cluster->ask_ok(1, 'INSERT INTO r VALUES (8)');
confirmed(9, '... and after a restart in one step');
$cluster->wait_until(2, "SELECT count(*) > 0 FROM pg_stat_subscription WHERE subname = 's' AND pid IS NOT NULL");
my $pid = $cluster->ask(2, "SELECT pid FROM pg_stat_subscription WHERE subname = 's' AND pid IS NOT NULL LIMIT 1");
$cluster->kill9(2);
ok(!kill(0, $pid), 'SIGKILL: no process is left');
is(join(' ', $cluster->running), '1 3', '... the server is down');
is($cluster->ask(2, 'SELECT 1'), undef, '... and does not answer');
$cluster->ask_ok(1, 'INSERT INTO r VALUES (9)');
$cluster->start(2);
confirmed(10, '... and after its start it comes');
$cluster->kill9(1);
$cluster->start(1);
$cluster->ask_ok(1, 'INSERT INTO r VALUES (10)');
confirmed(11, '... also when the other side was killed');
$cluster->ask_ok(2, 'DROP SUBSCRIPTION s');

# --- content ---

for my $i ($cluster->numbers)
{
	my $s = $cluster->session($i);
	$s->query_ok("SELECT create_topic('c', partitions => 2, retention => NULL)");
	# in batches that differ
	for my $from (map { $_ * 10 * $i } 0 .. 60 / (10 * $i) - 1)
	{
		my $to = $from + 10 * $i - 1;
		$s->query_ok("SELECT produce('c', CASE WHEN n <> 5 THEN 'v' || n END, key => 'k' || n % 3, headers => jsonb_build_object('n', n), \"timestamp\" => '2024-01-01'::timestamptz + n * interval '1 s', partition => 0) FROM generate_series($from, $to) n");
	}
	# with a gap
	$s->query_ok("BEGIN; SELECT produce('c', 'never', partition => 1); ROLLBACK");
	$s->query_ok("SELECT produce('c', 'one', partition => 1, \"timestamp\" => '2024-01-01')");
	$s->quit;
}
my @all = (replicas => [ 1, 2, 3 ]);
my $sums = $cluster->checksums('c', @all);
is(join(' ', map { "$sums->{$_}{from}-$sums->{$_}{to}" } 0, 1), '0-60 0-2', 'checksums: all that is settled');
is(join(' ', map { (split / /, $sums->{0}{brokers}{$_})[0] } 1 .. 3), '60 60 60', '... all messages');
$cluster->same_content('c', 'content is the same', @all);
is($cluster->out_of_sync, '', 'brokers that say the same of partitions agree');
$cluster->wait_in_sync(1);
for (
	[ "isr = '{}'", qr/^broker 2: c-0: leader 1, replicas \{1\}, in sync \{\}$/, 'a replica that is not in sync' ],
	[ "replicas = '{1,2}'", qr/^broker 2: c-0: leader 1, replicas \{1,2\}, in sync \{1\}$/, '... of two' ],
	[ 'leader = 3', qr/^broker 2: c-0: leader 3, /, 'a leader that is not in sync' ],
	[ 'leader_epoch = 7', qr/^broker 2: c 0 1 7 .*; broker 1: c 0 1 0 /, 'another epoch' ])
{
	my ($change, $pattern, $name) = @$_;
	my $where = "topic_id = (SELECT id FROM pgtopic.topic WHERE name = 'c') AND partition = 0";
	$cluster->ask_ok(2, "UPDATE pgtopic.partition SET $change WHERE $where");
	like($cluster->out_of_sync, $pattern, "seen: $name");
	is($cluster->out_of_sync(without => [2]), '', '... unless that broker does not count') if $change ne 'leader = 3';
	$cluster->ask_ok(2, "UPDATE pgtopic.partition SET isr = '{1}', replicas = '{1}', leader = 1, leader_epoch = 0 WHERE $where");
}
is(scalar(@{ $cluster->messages('c', 1) }), 61, 'all messages of a broker');
is(join('|', map { $_ // 'NULL' } @{ $cluster->messages('c', 2)->[5] }), '0|5|k2|NULL', '... with their keys and values');

# each of these is seen
for (
	[ 'headers', 'UPDATE pgtopic.t%d_p0 SET headers[1] = NULL WHERE base_offset = 0', 'brokers 1 and 2 differ in 1 offsets: 0 (1/1)' ],
	[ 'a timestamp', "UPDATE pgtopic.t%d_p1 SET \"timestamp\" = \"timestamp\" + interval '1 us', timestamps = NULL", 'brokers 1 and 2 differ in 1 offsets: 1 (1/1)' ],
	[ 'a key', 'UPDATE pgtopic.t%d_p0 SET keys[1] = NULL WHERE base_offset = 0', 'brokers 1 and 2 differ in 1 offsets: 0 (1/1)' ],
	[ 'a value', q(UPDATE pgtopic.t%d_p0 SET "values"[1] = '' WHERE base_offset = 0), 'brokers 1 and 2 differ in 1 offsets: 0 (1/1)' ],
	[ 'an offset', 'UPDATE pgtopic.t%d_p1 SET base_offset = base_offset - 1', 'brokers 1 and 2 differ in 2 offsets: 0 (0/1), 1 (1/0)' ],
	[ 'a message that is missing', 'DELETE FROM pgtopic.t%d_p1', 'brokers 1 and 2 differ in 1 offsets: 1 (1/0)' ])
{
	my ($what, $change, $difference) = @$_;
	my $id = $cluster->ask(2, "SELECT id FROM pgtopic.topic WHERE name = 'c'");
	my $partition = $change =~ /_p1/ ? 1 : 0;
	$cluster->ask_ok(2, "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS TABLE pgtopic.t${id}_p$partition");
	$cluster->ask_ok(2, sprintf($change, $id));
	my @differences = $cluster->differences('c', @all);
	is(scalar(@differences), 1, "another broker's difference in $what is seen");
	like($differences[0], qr/^c-$partition from 0 to \d+: \Q$difference\E$/, '... and told');
	$cluster->ask_ok(2, "DELETE FROM pgtopic.t${id}_p$partition; INSERT INTO pgtopic.t${id}_p$partition TABLE kept");
}
is(join("\n", $cluster->differences('c', @all)), '', 'without any, there are none');
$cluster->ask_ok(3, "SELECT produce('c', 'more', partition => 1)");
like(join("\n", $cluster->content_problems('c', @all, seconds => 0)), qr/^broker 3 has a high watermark of 3 instead of 2 for c-1$/, 'a broker that has more is seen');
$cluster->ask_ok($_, "SELECT create_topic('empty')") for $cluster->numbers;
is(join("\n", $cluster->content_problems('empty', @all)), 'there is nothing to compare', 'content that is not there is no same content');
is(join("\n", $cluster->content_problems('empty', @all, empty => 1)), '', '... unless the test says so');

# --- load, with a crash: a cluster of one keeps what it has acknowledged ---

$cluster->ask_ok(3, "SELECT create_topic('l', partitions => 3)");
my $load = PgtopicLoad->new($cluster, topic => 'l');
$load->producer($_, brokers => [3]) for 'a', 'b';
$load->consumer($_, brokers => [3], group => 'g') for 'c', 'd';
$load->tail('t', brokers => [3], partition => 1);
$load->await_progress(20);
$cluster->kill9(3);
$cluster->start(3);
$load->await_progress(20);
my $gone = $cluster->ask_ok(3, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'load'");
$load->await_progress(10);
$load->stop('a');
$load->await_progress(5, 'b', 'c', 't');
$load->stop;
$load->drain(3);
$load->check('load with a crash', number => 3);
isnt($load->errors('a'), '', '... producers have met it');
isnt($load->errors('c'), '', '... and consumers');
ok((grep { /^doubt / } map { $load->notes($_) } 'a' .. 'd') > 0, '... in the middle of a statement');

# each of these is seen
my $id = $cluster->ask(3, "SELECT id FROM pgtopic.topic WHERE name = 'l'");
my ($lost) = grep { /^ack \S+$/ } $load->notes('a');
my (undef, $value) = split / /, $lost;
my $key = $value =~ s/:\d+$//r;
my $partition = $cluster->ask(3, "SELECT DISTINCT partition FROM pgtopic.t$id WHERE keys[1] = convert_to('$key', 'UTF8')");
my $where = "partition = $partition AND \"values\"[1] = convert_to('$value', 'UTF8') AND cardinality(\"values\") = 1";
my $session = $cluster->session(3);
for (
	[ 'a message that is lost', "DELETE FROM pgtopic.t$id WHERE $where", qr/acknowledged messages are lost: 1: $value$/m ],
	[ 'a message that is there twice', "INSERT INTO pgtopic.t$id SELECT partition, leader_epoch, base_offset + 100000000, last_offset + 100000000, \"timestamp\", keys, \"values\", headers, timestamps FROM pgtopic.t$id WHERE $where",
		qr/messages are there twice: 1: $value$/m ],
	[ 'a message at another offset', "UPDATE pgtopic.t$id SET base_offset = base_offset + 100000000, last_offset = last_offset + 100000000 WHERE $where",
		qr/the order of a key is not kept: 1: $value after $key:\d+$/m ],
	[ '... which the group had got', undef, qr/group g has got something that is not there: 1: $partition \d+ $value$/m ],
	[ 'another key', "UPDATE pgtopic.t$id SET keys[1] = 'x' WHERE $where", qr/a message has the wrong key: 1: $value: x$/m ],
	[ 'a message that nobody has sent', "UPDATE pgtopic.t$id SET \"values\"[1] = convert_to('$key:999999', 'UTF8') WHERE $where",
		qr/messages are there that nobody has sent: 1: $key:999999$/m ])
{
	my ($what, $change, $expected) = @$_;
	if (defined $change)
	{
		# where the new offset belongs there may be no segment
		$session->query("ROLLBACK; DROP TABLE IF EXISTS pgtopic.far; CREATE TABLE pgtopic.far PARTITION OF pgtopic.t${id}_p$partition FOR VALUES FROM (100000000) TO (200000000)") // die $session->error
		  if $change =~ /100000000/;
		$cluster->ask_ok(3, "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT * FROM pgtopic.t$id WHERE $where");
		$cluster->ask_ok(3, $change);
	}
	like(join("\n", $load->problems(number => 3)), $expected, "seen: $what");
	if ($what ne 'a message at another offset')
	{
		$cluster->ask_ok(3, "DELETE FROM pgtopic.t$id WHERE partition = $partition AND (base_offset IN (SELECT base_offset FROM kept) OR base_offset >= 100000000); INSERT INTO pgtopic.t$id TABLE kept");
	}
}
$session->quit;
is(join("\n", $load->problems(number => 3)), '', 'without any, there are none');

# --- one more ---

is($cluster->add_node, 4, 'a fourth server');
for (1 .. 3)
{
	is(connects($_, 'service=broker4', "SELECT current_setting('cluster_name')"), 'broker4', "broker $_ gets to it");
	is(connects(4, "service=broker$_", "SELECT current_setting('cluster_name')"), "broker$_", "... and it to broker $_");
}
$cluster->isolate(4);
is($cluster->proxy(2, 4)->stats->{open}, 0, 'isolated');
{
	local $ENV{PGCONNECT_TIMEOUT} = 2;
	like(connects($_->[0], "service=broker$_->[1]", 'SELECT 1'), qr/timeout expired/, "... from $_->[0] to $_->[1]") for [ 3, 4 ], [ 4, 1 ];
	is(connects(1, 'service=broker3', 'SELECT 1'), '1', '... and nobody else');
}

$cluster->stop_all;
is(join(' ', $cluster->running), '', 'all are stopped');
$cluster->log_clean(crash => 1);
done_testing();
