# Producers that number their messages: what is remembered of them survives a crash, goes into
# dumps, expires, and comes to topics of older versions.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PgtopicTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $folder = PostgreSQL::Test::Utils::tempdir;
my $node = new_node('producers', conf => <<'EOC');
pgtopic.retention_check_interval = '100ms'
pgtopic.checkpoint_interval = '50ms'
EOC
my $s = session($node);
$s->query_ok('CREATE ROLE writer LOGIN; CREATE ROLE peer LOGIN');

sub setting
{
	my ($value) = @_;
	$s->query_ok("ALTER SYSTEM SET pgtopic.producer_expiration = '$value'");
	$s->query_ok('SELECT pg_reload_conf()');
	return;
}

my $producers = "SELECT coalesce(string_agg(producer || ' ' || last_sequence || ' ' || last_offset, ', ' ORDER BY producer), '') FROM producer_status";

# --- a crash ---

$s->query_ok("SELECT create_topic('t', partitions => 2)");
result_is($s, "SELECT log_offset FROM produce('t', 'a', producer => 'p', sequence => 0, partition => 0)", '0', 'a message with a number');
$s->query_ok("BEGIN; SELECT produce('t', 'b', producer => 'p', sequence => 1, partition => 0)");
my $committed = session($node);
$committed->query_ok("SELECT produce('t', 'x', producer => 'q', sequence => 7, partition => 0)");
$node->stop('immediate');
$node->start;
$_->quit for $s, $committed;
$s = session($node);
result_is($s, $producers, 'p 0 0, q 7 2', 'after a crash what was committed is known');
result_is($s, "SELECT log_offset FROM produce('t', 'x', producer => 'q', sequence => 7, partition => 0)", '2', '... and not produced again');
result_is($s, "SELECT log_offset FROM produce('t', 'b', producer => 'p', sequence => 1, partition => 0)", '3', '... and what was not is');
result_is($s, "SELECT string_agg(value, ' ') FROM fetch_messages('t', 0, 0)", 'a x b', '... once');

# --- dumps, of this version and of the one before ---

sub dump_database
{
	my ($dbname) = @_;
	my ($out, $err);
	IPC::Run::run([ $node->installed_command('pg_dump'), '-d', $node->connstr($dbname) ], '>', \$out, '2>', \$err) or die "pg_dump: $err";
	return $out;
}

sub restore_database
{
	my ($dbname, $dump) = @_;
	my ($out, $err);
	append_to_file("$folder/$dbname.sql", $dump);
	sql($node, "CREATE DATABASE $dbname");
	IPC::Run::run([ $node->installed_command('psql'), '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($dbname), '-f', "$folder/$dbname.sql" ],
		'<', '/dev/null', '>', \$out, '2>', \$err) or die "psql: $err";
	return session($node, $dbname);
}

$s->query_ok("SELECT create_consumer_group('g', 't'), commit_offset('g', 't', 0, 2)");
my $dump = dump_database('postgres');
{
	my $t = restore_database('restored', $dump);
	result_is($t, $producers, 'p 1 3, q 7 2', 'a dump has them');
	result_is($t, "SELECT log_offset FROM produce('t', 'b', producer => 'p', sequence => 1, partition => 0)", '3', '... and no repeated message comes twice');
	result_is($t, "SELECT log_offset FROM produce('t', 'c', producer => 'p', sequence => 2, partition => 0)", '4', '... nor is the next one missing');
	$t->quit;
}

# As if version 0.2.0 had written it: without the columns, and without producers.
sub older
{
	my ($text) = @_;
	my $columns = 0;
	$columns += $text =~ s/,\n    next_sequence bigint,\n    sequences bigint\[\],\n    offsets bigint\[\]//g;
	my $copies = $text =~ s{^(COPY pgtopic\.t\d+_p\d+_offsets \([^\n]*), next_sequence, sequences, offsets\)( FROM stdin;\n)(.*?)^(\\\.)$}{
		my ($head, $from, $rows, $end) = ($1, $2, $3, $4);
		$rows = join('', map { s/(\t[^\t]*){3}$//r . "\n" } grep { !/^\\x03|^\003/ } split /\n/, $rows);
		"$head)$from$rows$end"
	}msge;
	# other tables have grown as well
	$text =~ s{^(COPY pgtopic\.partition \(.*placements)((?:, \w+)*)(\) FROM stdin;\n)(.*?)^(\\\.)$}{
		my ($head, $new, $from, $rows, $end) = ($1, $2, $3, $4, $5);
		my $count = () = $new =~ /,/g;
		$rows =~ s/(?:\t[^\t\n]*){$count}$//mg;
		"$head$from$rows$end"
	}mse;
	# topics were no relations
	my $relations = $text =~ s/^CREATE FOREIGN TABLE .*?^\);\n//msg;
	$text =~ s/^ALTER FOREIGN TABLE [^\n]*\n//mg;
	# the parent and two partitions
	is("$columns $copies $relations", '3 2 1', 'the dump is one of version 0.2.0');
	return $text;
}

{
	my $t = restore_database('older', older($dump));
	result_is($t, 'SELECT consumer_group, committed_offset FROM consumer_group_status WHERE partition = 0', 'g|2', 'a dump of 0.2.0 is restored: groups are as they were');
	result_is($t, "SELECT count(*) > 0 FROM topics.t WHERE partition = 0", 't', '... and the topic is a relation');
	wait_until($t, "SELECT count(*) = 9 FROM pg_attribute WHERE attrelid::regclass::text ~ '^pgtopic.t\\d+_.*offsets\$' AND attname ~ '^(next_sequence|sequences|offsets)\$' AND NOT attisdropped",
		'... the worker adds what its topics lack');
	result_is($t, "SELECT log_offset FROM produce('t', 'new', producer => 'new', sequence => 0, partition => 0)", '4', '... then numbered messages are taken');
	result_is($t, "SELECT log_offset FROM produce('t', 'new', producer => 'new', sequence => 0, partition => 0)", '4', '... once');
	$t->query_ok("SELECT commit_offset('g', 't', 0, 3)");
	result_is($t, 'SELECT consumer_group, committed_offset FROM consumer_group_status WHERE partition = 0', 'g|3', '... and groups go on');
	$t->quit;
}

# --- the library is new, the extension is not yet; then it is updated ---

{
	my $t = restore_database('update', older($dump) =~ s/^(CREATE EXTENSION IF NOT EXISTS pgtopic WITH SCHEMA public);/$1 VERSION '0.2.0';/mr);
	result_is($t, "SELECT extversion FROM pg_extension WHERE extname = 'pgtopic'", '0.2.0', 'a database of version 0.2.0 under the new library');
	result_is($t, "SELECT log_offset FROM produce('t', 'old', partition => 0)", '4', '... produces');
	result_is($t, "SELECT count(*) FROM produce_batch('t', ARRAY['old', 'old'], partition => 0)", '1', '... batches');
	result_is($t, "SELECT count(*) FROM consume('t', 'g')", '5', '... and consumes');
	error_is($t, "SELECT produce('t', 'x', producer => 'p', sequence => 0)", '42883', undef, '... and does not know of producers');
	# the worker has gone through it and left it alone
	$t->query_ok("SELECT create_topic('expired', retention => '1 ms')");
	$t->query_ok("SELECT produce('expired', 'x')");
	wait_until($t, "SELECT log_start_offset = 1 FROM partition_status WHERE topic = 'expired'");
	result_is($t, "SELECT count(*) FROM pg_attribute WHERE attrelid = 'pgtopic.t1_offsets'::regclass AND attname = 'sequences'", '0', '... nor has its topics changed');

	$t->query_ok("SELECT allow_peer('peer')");
	$t->query_ok('REVOKE ALL ON FUNCTION produce(topic, text, text, jsonb, int, timestamptz) FROM PUBLIC');
	$t->query_ok('GRANT EXECUTE ON FUNCTION produce(topic, text, text, jsonb, int, timestamptz) TO writer WITH GRANT OPTION');
	$t->query_ok("CREATE VIEW hello AS SELECT (produce('t'::text, 'hello'::text)).log_offset");
	error_is($t, 'ALTER EXTENSION pgtopic UPDATE', '2BP01', qr/view hello depends on function produce/, 'a view that produces is in the way of the update');
	$t->query_ok('DROP VIEW hello');
	$t->query_ok('ALTER EXTENSION pgtopic UPDATE');
	result_is($t, "SELECT count(*) FROM topics.t WHERE partition = 0 AND value = 'old'", '3', 'after the update the topic is a relation');
	result_is($t, "SELECT log_offset FROM produce('t', 'new', producer => 'new', sequence => 0, partition => 0)", '7', 'after the update numbered messages are taken');
	result_is($t, "SELECT log_offset FROM produce('t', 'new', producer => 'new', sequence => 0, partition => 0)", '7', '... once');
	result_is($t, 'SELECT consumer_group, committed_offset FROM consumer_group_status WHERE topic = $$t$$::text AND partition = 0', 'g|7', '... groups are where they were');
	result_is($t, "SELECT count(*) FROM pg_proc WHERE proname IN ('produce', 'produce_batch', 'peer_produce', 'execute_outside')", '7', '... the old calls are gone');

	my $rights = <<'EOC';
SELECT string_agg(DISTINCT pronargs || ' ' || CASE grantee WHEN 0 THEN 'public' ELSE grantee::regrole::text END || is_grantable, ', ')
FROM pg_proc p, aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE proname IN ('produce', 'produce_batch') AND grantee <> proowner AND p.prosrc
EOC
	result_is($t, "$rights = 'pgtopic_produce_text'", '8 writertrue', '... the new ones have the rights of the old ones');
	result_is($t, "$rights <> 'pgtopic_produce_text'", '8 publicfalse', '... each its own');
	result_is($t, "SELECT count(*) FROM pg_proc WHERE pronamespace = 'pgtopic'::regnamespace AND proname LIKE 'peer\\_%' AND (has_function_privilege('writer', oid, 'EXECUTE') OR NOT has_function_privilege('peer', oid, 'EXECUTE'))",
		'0', '... and so have those that brokers call');
	# what a dump makes of it
	my $after = dump_database('update');
	like($after, qr/^REVOKE ALL ON FUNCTION public\.produce\(topic public\.topic, value text, .* FROM PUBLIC;\n(?:.*\n)*?GRANT ALL ON FUNCTION public\.produce\(.* value text, .* TO writer WITH GRANT OPTION;$/m, '... which are in dumps');
	like($after, qr/^GRANT ALL ON FUNCTION pgtopic\.peer_produce\(.* TO peer;$/m, '... both');
	$t->query_ok('DROP OWNED BY writer, peer');
	unlike(dump_database('update'), qr/writer|peer;/, '... and go with the role');
	$t->quit;
}

# --- expiry ---

setting('-1');
$s->query_ok("SELECT create_topic('e')");
$s->query_ok("SELECT produce('e', n::text, producer => 'old' || n, sequence => n) FROM generate_series(1, 200) n");
$s->query_ok("SELECT produce('e', n::text, producer => n, sequence => 0) FROM unnest('{held,used}'::text[]) n");
sub wait_for_round
{
	$s->query_ok("SELECT create_topic('round', retention => '1 ms')");
	$s->query_ok("SELECT produce('round', 'x')");
	wait_until($s, "SELECT log_start_offset = 1 FROM partition_status WHERE topic = 'round'");
	$s->query_ok("SELECT drop_topic('round')");
	return;
}
wait_for_round();
my $left = "SELECT string_agg(DISTINCT left(producer, 3), ' ') FROM producer_status WHERE topic = 'e'";
result_is($s, $left, 'hel old use', '-1: producers are remembered for ever');

# somebody produces as one of them just then, and one has produced lately
my $e = $s->query_ok("SELECT 'e'::topic::int");
$s->query_ok("UPDATE pgtopic.t${e}_offsets SET committed_at = now() - interval '8 days' WHERE consumer_group ~ 'old|held'");
my $holder = session($node);
$holder->query_ok("BEGIN; SELECT produce('e', 'again', producer => 'held', sequence => 0)");
setting('7d');
wait_until($s, "SELECT ($left) = 'hel use'", 'producers that have not produced for long are forgotten', 't');
wait_for_round();
result_is($s, $left, 'hel use', '... but for one that somebody produces as');
result_is($s, "SELECT log_offset FROM produce('e', 'new', producer => 'old7', sequence => 100)", '202', 'one that was forgotten begins with any sequence');
error_is($s, "SELECT produce('e', 'new', producer => 'old7', sequence => 7)", '22003', qr/remembered begins with sequence 100/, '... and goes on from there');
$holder->query_ok('COMMIT');
wait_for_round();
result_is($s, "SELECT log_offset FROM produce('e', 'again', producer => 'held', sequence => 0)", '200', 'a repeated message counts as one');
setting('0');
wait_until($s, "SELECT count(*) = 0 FROM producer_status", 'with 0 all are forgotten');
result_is($s, "SELECT consumer_group, committed_offset FROM consumer_group_status WHERE partition = 0", 'g|2', '... and groups are not');

$s->quit;
$holder->quit;
log_is_clean($node, crash => 1);
$node->stop;
done_testing();
