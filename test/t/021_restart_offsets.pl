# Offsets after a restart, where the tail of the log was rolled back before it:
# whoever was told to go on behind that tail must not miss what comes next.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgtopicTest;
use Test::More;

my $node = new_node('offsets', conf => "restart_after_crash = on\npgtopic.checkpoint_interval = '50ms'\nautovacuum = off");
my $s = session($node);

sub status
{
	my ($topic, $column) = @_;
	return $s->query_ok("SELECT $column FROM partition_status WHERE topic = '$topic' AND partition = 0");
}

# A topic with offsets 0 to 9, and 10 to 14 rolled back; with vacuum, nothing in
# the tables tells of the latter any more.
sub topic_with_tail
{
	my ($name, $vacuum) = @_;

	$s->query_ok("SELECT create_topic('$name')");
	$s->query_ok("SELECT produce_batch('$name', ARRAY(SELECT 'm' || n FROM generate_series(0, 9) n))");
	$s->query_ok("BEGIN; SELECT produce_batch('$name', ARRAY['no', 'no', 'no', 'no', 'no']); ROLLBACK");
	if ($vacuum)
	{
		my $segment = $s->query_ok("SELECT segment FROM segment_status WHERE topic = '$name' ORDER BY from_offset LIMIT 1");
		$s->query_ok("VACUUM (INDEX_CLEANUP ON) $segment");
		$s->query_ok("SELECT pg_stat_force_next_flush()");
	}
	return;
}

my %crash = (
	'immediate stop' => sub { $node->stop('immediate'); $node->start; },
	'fast restart' => sub { $node->restart; },
	'crash of a backend' => sub {
		my $victim = session($node);
		my $started = $s->query_ok('SELECT pg_postmaster_start_time()');
		kill_backend($victim->pid);
		$victim->query('SELECT 1');
		$victim->quit;
		$s->query('SELECT 1');
		$node->poll_query_until('postgres', 'SELECT true') or die 'the server does not come back';
	});

sub crash
{
	my ($how) = @_;
	$crash{$how}->();
	$s->quit;
	$s = session($node);
	return;
}

# --- positions behind the tail ---

for my $how (sort keys %crash)
{
	for my $vacuum (0, 1)
	{
		my $case = $how . ($vacuum ? ', tail vacuumed' : '');
		my $topic = "t" . ($how =~ s/ /_/gr) . $vacuum;

		topic_with_tail("$topic-latest", $vacuum);
		$s->query_ok("SELECT create_consumer_group('g', '$topic-latest', 'latest')");
		is($s->query_ok("SELECT committed_offset FROM consumer_group_status WHERE topic = '$topic-latest'"), '15',
			"$case: a group starts behind the rolled-back tail");

		topic_with_tail("$topic-read", $vacuum);
		$s->query_ok("SELECT count(*) FROM consume('$topic-read', 'g')") for 1 .. 2;
		my $position = $s->query_ok("SELECT committed_offset FROM consumer_group_status WHERE topic = '$topic-read'");

		topic_with_tail("$topic-commit", $vacuum);
		$s->query_ok("SELECT commit_offset('g', '$topic-commit', 0, 15)");

		topic_with_tail("$topic-deleted", $vacuum);
		$s->query_ok("SELECT delete_messages('$topic-deleted', 0, 15)");

		crash($how);

		for my $kind (qw(latest read commit deleted))
		{
			my ($offset) = $s->query_ok("SELECT log_offset FROM produce('$topic-$kind', 'new')");
			cmp_ok($offset, '>=', $kind eq 'read' ? $position : 15, "$case: the next offset is behind what is kept ($kind)");
			is($s->query_ok("SELECT string_agg(value, ' ') FROM consume('$topic-$kind', 'g')"), 'new', '... and the group gets the message')
			  if $kind ne 'deleted';
		}
		is(status("$topic-deleted", 'log_start_offset'), '15', '... and the log starts where it did');
	}
}

# --- what has been shown as settled ---

# Everybody has seen the high watermark: people in partition_status, programs that
# start at "now" with it, standbys in the table that keeps it.
for my $vacuum (0, 1)
{
	my $topic = "watermark$vacuum";

	topic_with_tail($topic, $vacuum);
	is(status($topic, 'high_watermark'), '15', 'the watermark is behind the rolled-back tail');
	wait_until($s, "SELECT high_watermark = 15 FROM pgtopic.partition p JOIN pgtopic.topic t ON t.id = p.topic_id WHERE t.name = '$topic'",
		'... and stored');
	# what another transaction commits behind it takes it to the disk
	$s->query_ok("CREATE TABLE flushed$vacuum (i int)");
	crash('immediate stop');
	cmp_ok(status($topic, 'high_watermark'), '>=', 15, 'after a restart, a watermark that was stored has not gone back'
		  . ($vacuum ? ' (tail vacuumed)' : ''));
	my $now = $s->query_ok("SELECT log_offset FROM offsets_at('$topic', 'infinity')");
	is($now, 10, '... who asks for the end of the log is told the end of the messages');
	cmp_ok($s->query_ok("SELECT log_offset FROM produce('$topic', 'new')"), '>=', 15, '... and no offset below it is given out');
	is($s->query_ok("SELECT value FROM fetch_messages('$topic', 0, $_)"), 'new', "... so a reader that starts at $_ gets what is new") for 15, $now;
}

# --- an append that was open ---

# Offsets that were taken and not written, or written and not flushed, may come
# back, since nobody can have read there; messages in front and behind stay.
{
	my $open = session($node);

	$s->query_ok("SELECT create_topic('open')");
	$s->query_ok("SELECT produce('open', 'a')");
	$open->query_ok("BEGIN; SELECT produce('open', 'never')");
	$s->query_ok("SELECT produce('open', 'b')");
	is(status('open', 'high_watermark'), '1', 'an open transaction holds the watermark back');
	crash('immediate stop');
	$open->quit;
	is(status('open', "high_watermark || ' ' || log_end_offset || ' ' || coalesce(blocking_pid::text, 'none')"), '3 3 none', 'after the crash it is settled');
	is($s->query_ok("SELECT string_agg(log_offset || value, ' ') FROM fetch_messages('open', 0, 0)"), '0a 2b', '... as rolled back');
	is($s->query_ok("SELECT string_agg(value, ' ') FROM consume('open', 'g')"), 'a b', '... and a group reads over the gap');
	is($s->query_ok("SELECT log_offset FROM produce('open', 'c')"), '3', '... and the log goes on behind');
}

# --- a position that moves is there after the crash, or not at all ---

{
	my $open = session($node);

	$s->query_ok("SELECT create_topic('positions')");
	$s->query_ok("SELECT produce_batch('positions', ARRAY['a', 'b', 'c', 'd'])");
	$s->query_ok("SELECT consume('positions', 'g', 1)");
	$open->query_ok("BEGIN; SELECT consume('positions', 'g', 2)");
	crash('immediate stop');
	$open->quit;
	is($s->query_ok("SELECT string_agg(value, '') FROM consume('positions', 'g')"), 'bcd', 'an open consumer loses what it took');
	is($s->query_ok("SELECT lag FROM consumer_group_status WHERE topic = 'positions'"), '0', '... for the next');
}

await_workers($s, 'workers are there in the end');
$s->quit;
$node->stop;
log_is_clean($node, crash => 1);
done_testing();
