# A thousand partitions: made, looked at and dropped in a time that people wait.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgtopicTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('many', conf => <<'EOC');
max_locks_per_transaction = 1024
shared_buffers = 128MB
EOC
my $s = session($node);

# Does it, and says how long it took; with a limit that only something that has
# gone wrong exceeds.
sub timed
{
	my ($name, $limit, $do) = @_;
	my $before = time();
	my $result = $do->();
	my $took = time() - $before;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	note sprintf('%s: %.2f s', $name, $took);
	cmp_ok($took, '<', $limit, "$name in less than $limit s");
	return $result;
}

timed('300 topics are made', 60, sub { $s->query_ok("SELECT count(create_topic('topic-' || n)) FROM generate_series(1, 300) n"); });
timed('a topic of 700 partitions is made', 60, sub { $s->query_ok("SELECT create_topic('wide', partitions => 700)"); });
result_is($s, 'SELECT count(*), sum(partitions) FROM topic_status', '301|1000', 'there are 1000 partitions');

timed('a message for each partition is produced', 60, sub {
	$s->query_ok("SELECT count(produce('wide', 'x', partition => n)) FROM generate_series(0, 699) n");
	$s->query_ok("SELECT count(produce(('topic-' || n)::topic, 'x')) FROM generate_series(1, 300) n");
});
$s->query_ok("SELECT create_consumer_group('g' || n, 'wide') FROM generate_series(1, 5) n");
$s->query_ok("SELECT create_consumer_group('all', ('topic-' || n)::topic) FROM generate_series(1, 300) n");
wait_until($s, 'SELECT count(*) = 3000 FROM segment_status', 'the worker has made the segments ahead');
wait_until($s, 'SELECT count(*) = 1000 FROM pgtopic.partition WHERE high_watermark = 1', '... and stored all watermarks');

# --- dashboards ---

my %rows = (topic_status => 301, partition_status => 1000, segment_status => 3000, consumer_group_status => 3800, worker_status => 2);
for my $view (sort keys %rows)
{
	for my $who ('a session that has used nothing yet', 'again')
	{
		my $d = $who eq 'again' ? $s : session($node);
		is(timed("$view, $who", 5, sub { $d->query_ok("SELECT count(*) FROM (SELECT * FROM $view) v"); }), $rows{$view}, "... with $rows{$view} rows");
		$d->quit if $who ne 'again';
	}
}
is(timed('the group with the largest lag', 5, sub { $s->query_ok('SELECT max(lag) FROM consumer_group_status'); }), '1', '...');
is(timed('the status of one topic', 5, sub { $s->query_ok("SELECT messages FROM topic_status WHERE topic = 'topic-77'"); }), '1', '...');
is(timed('the status of one partition', 5, sub { $s->query_ok("SELECT log_end_offset FROM partition_status WHERE topic = 'wide' AND partition = 345"); }), '1', '...');

# --- daily work ---

is(timed('a group consumes from 700 partitions', 30, sub {
	my $got = 0;
	while ((my $n = $s->query_ok("SELECT count(*) FROM consume('wide', 'g1')")) > 0) { $got += $n; }
	return $got;
}), '700', '... one message of each');
is(timed('a group that has nothing to consume looks through 700 partitions', 5, sub { $s->query_ok("SELECT count(*) FROM consume('wide', 'g1')"); }), '0', '...');
is(timed('a batch goes to all of them', 10, sub {
	$s->query_ok("SELECT count(*) FROM produce_batch('wide', ARRAY(SELECT 'v' FROM generate_series(1, 20000)), ARRAY(SELECT n::text FROM generate_series(1, 20000) n))");
}), '700', '... by key');
timed('100 single messages in a topic of 700 partitions', 10, sub { $s->query_ok("SELECT produce('wide', 'v', key => '$_')") for 1 .. 100; });
timed('drop_topic() of 700 partitions', 60, sub { $s->query_ok("SELECT drop_topic('wide')"); });
timed('50 topics are dropped', 60, sub { $s->query_ok("SELECT drop_topic(('topic-' || n)::topic) FROM generate_series(1, 50) n"); });
result_is($s, "SELECT count(*) FROM pg_class WHERE relnamespace = 'pgtopic'::regnamespace AND relkind = 'p' AND relname ~ '^t[0-9]+\$'", '250', '... and their tables');
result_is($s, 'SELECT count(*) FROM partition_status', '250', 'the rest is there');

# --- with locks for less than that ---

$s->quit;
$node->append_conf('postgresql.conf', "max_locks_per_transaction = 64\nmax_connections = 10");
$node->restart;
$s = session($node);
$s->query("SELECT create_topic('toowide', 3000)");
like($s->error, qr/53200: out of shared memory.*HINT:  You might need to increase "?max_locks_per_transaction/s, 'a topic that needs more locks than there are says what to increase');
result_is($s, "SELECT count(*) FROM topic_status WHERE topic::text = 'toowide'", '0', '... and is not there');
result_is($s, "SELECT log_offset FROM produce('topic-100', 'x')", '1', '... and the server goes on');
$s->quit;
$node->append_conf('postgresql.conf', "max_locks_per_transaction = 1024\nmax_connections = 50");
$node->restart;
$s = session($node);
await_workers($s);

# --- the end ---

timed('DROP EXTENSION with 250 topics', 60, sub { $s->query_ok('DROP EXTENSION pgtopic'); });
result_is($s, "SELECT count(*) FROM pg_class WHERE relname ~ '^t[0-9]+'", '0', '... leaves nothing behind');
timed('CREATE EXTENSION again', 10, sub { $s->query_ok('CREATE EXTENSION pgtopic'); });
result_is($s, "SELECT count(*) FROM topic_status", '0', '... which has no topics');
$s->quit;

$node->stop;
log_is_clean($node);
done_testing();
