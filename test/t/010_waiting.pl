# Readers that wait: woken by what they wait for, and ended by what must end them.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgtopicTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('waiting');
my $s = session($node);    # produces and watches
my $w = session($node);    # waits

$s->query_ok("SELECT create_topic('t', partitions => 2)");
$s->query_ok("SELECT create_consumer_group('g', 't')");

# The three ways to wait, and what each then says.  What it returns is computed
# after the wait, so the times are the server's.
my %waiting = (
	fetch_messages => sub {
		my ($wait, $offset) = @_;
		return "SELECT value, clock_timestamp() FROM fetch_messages('t', 0, $offset, max_wait => '$wait')";
	},
	consume => sub {
		my ($wait) = @_;
		return "SELECT value, clock_timestamp() FROM consume('t', 'g', max_wait => '$wait')";
	},
	wait_for_messages => sub {
		my ($wait) = @_;
		return "CALL wait_for_messages('t', 'g', '$wait'); SELECT '', clock_timestamp()";
	});
my @ways = sort keys %waiting;

sub next_offset
{
	return $s->query_ok("SELECT log_end_offset FROM partition_status WHERE topic = 't' AND partition = 0");
}

sub seconds_between
{
	my ($from, $to) = @_;
	return $s->query_ok("SELECT extract(epoch FROM '$to'::timestamptz - '$from')");
}

sub median
{
	return (sort { $a <=> $b } @_)[ @_ / 2 ];
}

# --- woken by the commit itself ---

for my $way (@ways)
{
	my @took;

	$s->query_ok("SELECT reset_offsets('g', 't', 'latest')");
	for my $round (1 .. 11)
	{
		$w->send($waiting{$way}->('60 s', next_offset()));
		await_waiting($s, $w);
		my $before = $s->query_ok("BEGIN; SELECT produce('t', 'm$round', partition => 0) IS NULL; SELECT clock_timestamp(); COMMIT");
		$before =~ s/.*\n//s;
		my $result = $w->result // die "$way: " . $w->error;
		my ($value, $woken) = $result =~ /^(.*)\|(.*)$/ or die "$way returned $result";
		die "$way returned $value" if $value ne "m$round" && $way ne 'wait_for_messages';
		push @took, seconds_between($before, $woken);
		# the commit, not the produce
		die "$way returned before the commit" if $took[-1] < 0;
		$s->query_ok("SELECT reset_offsets('g', 't', 'latest')") if $way eq 'wait_for_messages';
	}
	# Polling would be seen: the best of eleven rounds is far below any sensible interval.
	my ($best) = sort { $a <=> $b } @took;
	note sprintf("%s: woken after %.2f ms (median), %.2f (best)", $way, 1000 * median(@took), 1000 * $best);
	ok($best < 0.02, "$way is woken by the commit");
	ok(median(@took) < 1, "... in all rounds");
}

# --- nothing comes: it returns when the time is over, not before ---

for my $way (@ways)
{
	my $result = $s->query_ok("SELECT clock_timestamp()");
	my $empty = $s->query_ok($waiting{$way}->('300 ms', next_offset()));
	my $took = seconds_between($result, $s->query_ok("SELECT clock_timestamp()"));

	like($empty, $way eq 'wait_for_messages' ? qr/^\|[^\n]*$/ : qr/^$/, "$way returns nothing when its time is over");
	ok($took >= 0.3 && $took < 10, "... after that time") or diag("after $took s");
}
for my $wait ('0', '-1 s')
{
	my $sql = "SELECT count(*) FROM fetch_messages('t', 0, " . next_offset() . ", max_wait => '$wait')";
	$wait eq '0' ? result_is($s, $sql, '0', 'max_wait 0 does not wait')
	  : error_is($s, $sql, '22023', qr/max_wait must not be negative/, 'a negative max_wait is an error');
}

# --- the watermark is what counts ---

{
	my $first = session($node);
	my $offset = next_offset();

	$first->query_ok("BEGIN; SELECT produce('t', 'first', partition => 0)");
	$w->send("SELECT value FROM fetch_messages('t', 0, $offset, max_wait => '60 s')");
	await_waiting($s, $w);
	$s->query_ok("SELECT produce('t', 'second', partition => 0)");
	result_is($s, "SELECT blocking_pid FROM partition_status WHERE topic = 't' AND partition = 0", $first->pid,
		'a later message is committed, the earlier one is not');
	ok(!$w->is_done, '... so the reader waits on');
	$first->query_ok('COMMIT');
	is($w->result, "first\nsecond", '... and has both when the first is committed');

	$offset = next_offset();
	$first->query_ok("BEGIN; SELECT produce('t', 'never', partition => 0)");
	$w->send("SELECT value FROM consume('t', 'g', max_wait => '60 s')");
	$w->result;    # what is left of the above
	$w->send("SELECT value, log_offset FROM consume('t', 'g', max_wait => '60 s')");
	await_waiting($s, $w);
	$s->query_ok("SELECT produce('t', 'after', partition => 0)");
	ok(!$w->is_done, 'a consumer waits behind an open transaction too');
	$first->query_ok('ROLLBACK');
	is($w->result, 'after|' . ($offset + 1), '... and has the message behind when that is rolled back');

	$offset = next_offset();
	$first->query_ok("BEGIN; SELECT produce('t', 'never', partition => 0)");
	$w->send("SELECT value, log_offset FROM fetch_messages('t', 0, $offset, max_wait => '60 s')");
	await_waiting($s, $w);
	$first->query_ok('ROLLBACK');
	$s->query_ok("SELECT produce('t', 'later', partition => 0)");
	is($w->result, 'later|' . ($offset + 1), 'a rollback alone does not end the wait');

	$offset = next_offset();
	$first->query_ok("BEGIN; SELECT produce('t', 'never', partition => 0)");
	$w->send("SELECT value FROM fetch_messages('t', 0, $offset, max_wait => '60 s')");
	await_waiting($s, $w);
	$s->query_ok("SELECT produce('t', 'behind', partition => 0)");
	$s->query_ok('SELECT pg_terminate_backend(' . $first->pid . ')');
	is($w->result, 'behind', 'the end of a session with an open produce wakes');
	$first->quit;
}

# Isolation levels: what is committed after the snapshot was taken is read.
for my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	$w->query_ok("BEGIN ISOLATION LEVEL $level; SELECT count(*) FROM pg_class");
	$w->send("SELECT value FROM fetch_messages('t', 0, " . next_offset() . ", max_wait => '60 s')");
	await_waiting($s, $w);
	$s->query_ok("SELECT produce('t', 'new', partition => 0)");
	is($w->result, 'new', "a $level transaction reads what it has waited for");
	$w->query_ok('COMMIT');
}

# --- woken by a consumer that gives back ---

$s->query_ok("SELECT create_topic('single')");
{
	my %end = (
		'ROLLBACK' => sub { $_[0]->query_ok('ROLLBACK') },
		'ROLLBACK TO SAVEPOINT' => sub { $_[0]->query_ok('ROLLBACK TO SAVEPOINT a'); },
		'an error' => sub { $_[0]->query('SELECT 1/0'); },
		'pg_terminate_backend' => sub { $s->query_ok('SELECT pg_terminate_backend(' . $_[0]->pid . ')') });

	for my $end (sort keys %end)
	{
		for my $way (qw(consume wait_for_messages))
		{
			my $holder = session($node);

			$s->query_ok("SELECT produce_batch('single', ARRAY['x', 'y', 'z'])");
			$holder->query_ok('BEGIN; SAVEPOINT a');
			is($holder->query_ok("SELECT string_agg(value, '') FROM consume('single', 'g')"), 'xyz', 'a consumer has taken all messages');
			if ($way eq 'consume')
			{
				$w->send("SELECT string_agg(value, ''), clock_timestamp() FROM consume('single', 'g', max_wait => '60 s')");
			}
			else
			{
				$w->send("CALL wait_for_messages('single', 'g', '60 s'); SELECT 'xyz', clock_timestamp()");
			}
			await_waiting($s, $w);
			my $before = $s->query_ok('SELECT clock_timestamp()');
			$end{$end}->($holder);
			my ($values, $woken) = split /\|/, $w->result // $w->error;
			is($values, 'xyz', "$way: woken by $end of a consumer that held them");
			my $took = seconds_between($before, $woken);
			ok($took < 5, '... soon') or diag("after $took s");
			$holder->quit;
			$s->query_ok("SELECT count(*) FROM consume('single', 'g')");
		}
	}

	my $holder = session($node);
	$s->query_ok("SELECT produce_batch('single', ARRAY['x', 'y', 'z'])");
	$holder->query_ok("BEGIN; SELECT value FROM consume('single', 'g', 2)");
	$w->send("SELECT value FROM consume('single', 'g', max_wait => '60 s')");
	await_waiting($s, $w);
	$holder->query_ok('COMMIT');
	is($w->result, 'z', 'woken by the commit of a consumer that has taken a part');
	$holder->quit;
}

# --- woken by changes of the topic ---

for my $way (@ways)
{
	$s->query_ok("SELECT create_topic('gone')");
	(my $sql = $waiting{$way}->('60 s', 0)) =~ s/'t'/'gone'/g;
	my $before = time();
	$w->send($sql);
	await_waiting($s, $w);
	$s->query_ok("SELECT drop_topic('gone')");
	$w->result;
	error_came($w, '42704', qr/topic.* does not exist/, "$way: ended by drop_topic() with an error");
	like($w->error, qr/"gone"/, '... that names the topic');
	ok(time() - $before < 30, '... soon');
}

# By other means too.
{
	$s->query_ok('CREATE ROLE alice; GRANT CREATE ON SCHEMA topics TO alice');
	for my $way (@ways)
	{
		my $before = time();

		$s->query_ok("SET ROLE alice; SELECT create_topic('gone'); RESET ROLE");
		(my $sql = $waiting{$way}->('20 s', 0)) =~ s/'t'/'gone'/g;
		$w->send($sql);
		await_waiting($s, $w);
		$s->query_ok('DROP OWNED BY alice');
		$w->result;
		error_came($w, '42704', qr/topic "gone" does not exist/, "$way: ended by DROP OWNED");
		ok(time() - $before < 10, '... soon');
		$s->query_ok('GRANT CREATE ON SCHEMA topics TO alice');
	}
}

$s->query_ok("SELECT create_topic('growing')");
for my $way (qw(consume wait_for_messages))
{
	my $partitions = $s->query_ok("SELECT partitions FROM topic_status WHERE topic = 'growing'");

	(my $sql = $waiting{$way}->('60 s', 0)) =~ s/'t'/'growing'/g;
	$w->send($sql);
	await_waiting($s, $w);
	$s->query_ok("SELECT add_partitions('growing', $partitions + 1)");
	$s->query_ok("SELECT produce('growing', 'new', partition => $partitions)");
	like($w->result // $w->error, $way eq 'consume' ? qr/^new\|/ : qr/^\|/, "$way: woken by a message in a partition that was added meanwhile");
	$s->query_ok("SELECT count(*) FROM consume('growing', 'g')");
}

# --- many wait, one commit wakes all ---

{
	my @many = map { session($node) } 1 .. 15;
	my $offset = next_offset();

	$_->send("SELECT value FROM fetch_messages('t', 0, $offset, max_wait => '60 s')") for @many;
	await_waiting($s, $_) for @many;
	$s->query_ok("SELECT produce('t', 'all', partition => 0)");
	is(join(' ', map { $_->result // $_->error } @many), join(' ', ('all') x 15), 'one commit wakes all who wait');
	$_->quit for @many;
}

# --- what must end a wait at once ---

$s->query_ok("SELECT count(*) FROM consume('t', 'g')") for 1 .. 2;
for my $way (@ways)
{
	my $sql = $waiting{$way}->('10 min', next_offset());
	my $before;

	$w->send($sql);
	await_waiting($s, $w);
	$before = time();
	$s->query_ok('SELECT pg_cancel_backend(' . $w->pid . ')');
	$w->result;
	error_came($w, '57014', qr/due to user request/, "$way: ended by pg_cancel_backend()");
	ok(time() - $before < 5, '... at once');
	result_is($s, 'SELECT count(*) FROM pg_locks WHERE pid = ' . $w->pid, '0', '... leaving no lock');

	$w->query_ok("SET statement_timeout = '400ms'");
	$before = time();
	error_is($w, $sql, '57014', qr/due to statement timeout/, "$way: ended by statement_timeout");
	ok(time() - $before < 5, '... at once');
	$w->query_ok('RESET statement_timeout');

	$w->send($sql);
	await_waiting($s, $w);
	$before = time();
	$s->query_ok('SELECT pg_terminate_backend(' . $w->pid . ')');
	$w->result;
	error_came($w, '57P01', qr/due to administrator command/, "$way: ended by pg_terminate_backend()");
	wait_until($s, 'SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = ' . $w->pid);
	ok(time() - $before < 5, '... at once');
	$w->quit;
	$w = session($node);
}

# The session is as good as before after all that.
{
	my $offset = next_offset();
	for my $i (1 .. 3)
	{
		$w->send("SELECT value FROM fetch_messages('t', 0, $offset, max_wait => '10 min')");
		await_waiting($s, $w);
		$s->query_ok('SELECT pg_cancel_backend(' . $w->pid . ')');
		$w->result;
	}
	$w->send("SELECT value FROM fetch_messages('t', 0, $offset, max_wait => '60 s')");
	await_waiting($s, $w);
	$s->query_ok("SELECT produce('t', 'still', partition => 0)");
	is($w->result, 'still', 'a session whose waits were cancelled can wait again');
}

# A vanished client is not waited for longer than client_connection_check_interval.
{
	my $vanishing = session($node);
	my $pid = $vanishing->pid;

	$vanishing->query_ok("SET client_connection_check_interval = '100ms'");
	$vanishing->send("SELECT * FROM fetch_messages('t', 0, " . next_offset() . ", max_wait => '10 min')");
	await_waiting($s, $vanishing);
	$vanishing->abandon;
	wait_until($s, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid", 'a session whose client has gone ends');
}

# --- wait_for_messages() holds nothing ---

$s->query_ok("SELECT count(*) FROM consume('t', 'g')") for 1 .. 2;
$w->send("CALL wait_for_messages('t', 'g', '60 s')");
await_waiting($s, $w);
result_is($s, 'SELECT backend_xmin IS NULL, backend_xid IS NULL, query FROM pg_stat_activity WHERE pid = ' . $w->pid,
	"t|t|CALL wait_for_messages('t', 'g', '60 s')\n;", 'wait_for_messages() holds no snapshot while it waits');
result_is($s, "SELECT count(*) FROM pg_locks WHERE locktype <> 'virtualxid' AND pid = " . $w->pid, '0', '... and no locks');
$s->query_ok("SELECT produce('t', 'x', partition => 1)");
$w->result;
is($w->error, '', '... and returns');
result_is($w, "SELECT value FROM consume('t', 'g')", 'x', '... when there is something');
$w->send("SELECT * FROM consume('t', 'g', max_wait => '60 s')");
await_waiting($s, $w);
result_is($s, 'SELECT backend_xmin IS NULL FROM pg_stat_activity WHERE pid = ' . $w->pid, 'f', 'unlike consume()');
$s->query_ok("SELECT produce('t', 'x', partition => 1)");
$w->result;

error_is($w, "BEGIN; CALL wait_for_messages('t', 'g', '60 s')", '25001', qr/HINT:  .*max_wait/, 'wait_for_messages() is refused in a transaction block');
$w->query('ROLLBACK');
$w->query_ok(<<'EOC');
CREATE FUNCTION waits() RETURNS void LANGUAGE plpgsql AS
	$$ BEGIN CALL wait_for_messages('t', 'g', '60 s'); END $$
EOC
error_is($w, 'SELECT waits()', '25001', undef, '... and in a function');
error_is($w, "CALL wait_for_messages('t', 'g', NULL)", '22004', undef, '... and without a time');
error_is($w, "CALL wait_for_messages('t', 'g', '-1 s')", '22023', undef, '... and with a negative one');
error_is($w, "CALL wait_for_messages('t', '', '1 s')", '42602', undef, '... and for a group without a name');
$s->query_ok("SELECT produce('t', 'y', partition => 1)");
$w->query("DO \$\$ BEGIN CALL wait_for_messages('t', 'g', '60 s'); END \$\$");
is($w->error, '', 'a DO block outside a transaction may call it');
result_is($w, "SELECT value FROM consume('t', 'g')", 'y', '... and what it waited for is still to be consumed');
result_is($w, "CALL wait_for_messages('t', 'new group', '0')", '', 'waiting for a group that has not begun');
result_is($s, "SELECT count(*) FROM consumer_group_status WHERE consumer_group = 'new group'", '0', '... does not make it');

# --- producers that wait show it too (see 060_segments.pl); here what the view says of readers ---

$w->send("SELECT * FROM fetch_messages('t', 0, " . next_offset() . ", max_wait => '10 min')");
await_waiting($s, $w);
result_is($s, 'SELECT wait_event_type, wait_event FROM pg_stat_activity WHERE pid = ' . $w->pid,
	'Extension|' . wait_event_is($node, 'PgtopicMessages'), 'pg_stat_activity tells what a reader waits for');

# --- a server that stops does not wait for those who wait ---

my $c = session($node);
$c->send("SELECT * FROM consume('single', 'g', max_wait => '10 min')");
await_waiting($s, $c);
my $before = time();
$node->stop('fast');
ok(time() - $before < 10, 'a fast shutdown ends readers that wait');
$w->result;
error_came($w, '57P01', undef, '... which are told why');
$_->quit for $s, $w, $c;

log_is_clean($node);
done_testing();
