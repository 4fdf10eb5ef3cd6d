# pg_dump and restore into another server: everything is as it was, nobody
# complains, and the log goes on.
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
my $source = new_node('source');

# The workers of the target look around all the time, to be in the way if they can.
my $target = new_node('target', extension => 0, conf => <<'EOC');
pgtopic.retention_check_interval = '100ms'
pgtopic.checkpoint_interval = '20ms'
max_locks_per_transaction = 256
max_worker_processes = 32
EOC

my $s = session($source);
$s->query_ok($_) for split /;\n/, <<'EOC';
CREATE ROLE alice;
CREATE ROLE bob;
GRANT CREATE ON SCHEMA topics TO alice;
CREATE SCHEMA aaa;
CREATE SCHEMA zzz;
SELECT create_topic('gone');
SELECT create_topic('orders', partitions => 3, segment_messages => 1000, retention => NULL, retention_bytes => 1000000000, max_message_bytes => 2000000);
SELECT create_topic('Blobs.x-1', value_format => 'bytes', retention => '1 month 3 days');
SELECT create_topic('docs', value_format => 'json', min_insync_replicas => 1);
SELECT create_topic('empty');
SET ROLE alice;
SELECT create_topic('hers');
SELECT produce('hers', 'x');
GRANT INSERT ON topics.hers TO bob;
COMMENT ON FOREIGN TABLE topics.hers IS 'her topic';

RESET ROLE;
CREATE VIEW public.hers AS SELECT log_offset, value FROM topics.hers;
SELECT produce_batch('orders', ARRAY(SELECT 'v' || n FROM generate_series(1, 5000) n), ARRAY(SELECT 'k' || n % 50 FROM generate_series(1, 5000) n));
SELECT produce('orders', repeat('long ', 100000), 'k1', '{"a": 1}', "timestamp" => '2020-01-01 00:00:00+00');
SELECT produce('orders', NULL::text, 'tombstone');
SELECT produce('orders', '', '');
SELECT produce('Blobs.x-1', '\x00ff'::bytea, '\x00'::bytea);
SELECT produce('orders', 'once', producer => 'p 1', sequence => 41, partition => 2);
SELECT produce_batch('orders', ARRAY['once', 'once'], producer => 'p 1', sequence => 42, partition => 2);
SELECT produce('docs', '{"b": [1, 2]}'::jsonb);
SELECT delete_messages('orders', 0, 1200);
SELECT delete_messages('empty', 0, 0);
SELECT consume('orders', 'billing', 100);
SELECT consume('orders', 'billing', 100);
SELECT create_consumer_group('late', 'orders', 'latest');
SELECT create_consumer_group('late', 'empty');
SELECT consume_bytes('Blobs.x-1', 'billing');
BEGIN;
SELECT produce_batch('docs', ARRAY['1', '2', '3']::jsonb[]);
ROLLBACK;
SELECT create_consumer_group('behind the rolled-back', 'docs', 'latest');
CREATE TABLE aaa.notes (id int PRIMARY KEY, t topic, p topic_partition, ts topic[], note text);
CREATE TABLE zzz.notes (LIKE aaa.notes INCLUDING ALL);
CREATE TABLE public.notes (LIKE aaa.notes INCLUDING ALL);
CREATE INDEX by_topic ON aaa.notes (t, p);
CREATE TABLE zzz.parted (t topic, i int) PARTITION BY HASH (t);
CREATE TABLE zzz.parted_0 PARTITION OF zzz.parted FOR VALUES WITH (MODULUS 1, REMAINDER 0);
INSERT INTO aaa.notes VALUES (1, 'orders', 'orders-2', '{orders,docs,Blobs.x-1}', 'a'), (2, 'gone', 'gone-0', '{gone}', 'dropped'), (3, NULL, NULL, NULL, 'null'), (4, 'Blobs.x-1', 'Blobs.x-1-0', '{}', 'b');
INSERT INTO zzz.notes SELECT * FROM aaa.notes;
INSERT INTO public.notes SELECT * FROM aaa.notes;
INSERT INTO zzz.parted VALUES ('orders', 1), ('empty', 2);
CREATE MATERIALIZED VIEW zzz.counted AS SELECT t, count(*) FROM aaa.notes GROUP BY t;
CREATE FUNCTION aaa.note(text) RETURNS topic LANGUAGE sql AS $$ SELECT t FROM aaa.notes WHERE note = $1 $$;
SELECT drop_topic('gone');
EOC

# All of it as text, to compare.  Times of commits are data too.
my %content = (
	topics => "SELECT id, name, partitions, replication_factor, retention, retention_bytes, segment_messages, max_message_bytes, value_format, min_insync_replicas, created_at FROM pgtopic.topic ORDER BY id",
	'topics by type' => "SELECT topic, retention, messages FROM topic_status ORDER BY topic",
	'log start and end' => "SELECT topic, partition, log_start_offset, log_end_offset, high_watermark, segments, leader, leader_epoch, replicas, isr FROM partition_status ORDER BY 1, 2",
	segments => "SELECT topic, partition, segment, from_offset, to_offset, messages, max_timestamp FROM segment_status ORDER BY 1, 2, 4",
	positions => "SELECT * FROM consumer_group_status ORDER BY 1, 2, 3",
	producers => "SELECT * FROM producer_status ORDER BY 1, 2, 3",
	messages => "SELECT t.topic, m.partition, m.log_offset, m.timestamp, md5(m.key), md5(m.value), m.headers FROM partition_status t, fetch_messages_bytes(t.topic, t.partition, t.log_start_offset, 100000) m ORDER BY 1, 2, 3",
	owners => "SELECT relname, relowner::regrole FROM pg_class WHERE relnamespace = 'pgtopic'::regnamespace AND relname ~ '^t[0-9]+' AND relkind IN ('r', 'p') ORDER BY relname COLLATE \"C\"",
	relations => "SELECT relname, relowner::regrole, relacl, obj_description(c.oid, 'pg_class'), ftoptions FROM pg_class c JOIN pg_foreign_table ON ftrelid = c.oid WHERE relnamespace = 'topics'::regnamespace ORDER BY relname COLLATE \"C\"",
	'relations, read' => "SELECT partition, log_offset, \"timestamp\", key, value, headers FROM topics.orders ORDER BY 1, 2; SELECT value FROM topics.docs ORDER BY log_offset; SELECT * FROM hers",
	options => "SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'pgtopic'::regnamespace AND relkind IN ('r', 'p') ORDER BY relname COLLATE \"C\"",
	compression => "SELECT attrelid::regclass, attname, attcompression FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'pgtopic'::regnamespace AND relkind = 'r' AND attnum > 0 ORDER BY relname COLLATE \"C\", attnum",
	extension => "SELECT classid::regclass, deptype, count(*) FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pgtopic') GROUP BY 1, 2 ORDER BY 1, 2",
	map({ ("$_.notes" => "SELECT id, t, p, ts, note FROM $_.notes ORDER BY id") } 'aaa', 'public', 'zzz'),
	'zzz.parted' => "SELECT * FROM zzz.parted ORDER BY i",
	'a materialized view' => "SELECT t, count FROM zzz.counted ORDER BY t",
	'a search by topic' => "SET enable_seqscan = off; SELECT id FROM aaa.notes WHERE t = 'orders' AND p = 'orders-2'; SELECT aaa.note('b')");

# so that what is dumped is at rest
wait_until($s, <<'EOC');
SELECT bool_and(w.high_watermark = p.high_watermark) AND (SELECT min(from_offset) = 1000 FROM segment_status WHERE topic = 'orders' AND partition = 0)
FROM partition_status w JOIN pgtopic.partition p ON p.topic_id = w.topic::int AND p.partition = w.partition
EOC
my %expected = map { $_ => $s->query_ok($content{$_}) } keys %content;
isnt($expected{$_}, '', "source has $_") for 'topics', 'messages', 'positions', 'producers', 'owners';

sub dump_with
{
	my ($file, @options) = @_;
	my ($out, $err);

	IPC::Run::run([ $source->installed_command('pg_dump'), '-d', $source->connstr('postgres'), '-f', "$folder/$file", @options ], '>', \$out, '2>', \$err)
	  or die "pg_dump @options: $err";
	is($err, '', "pg_dump @options says nothing");
	return "$folder/$file";
}

sub run_quietly
{
	my ($name, @command) = @_;
	my ($out, $err);
	my $good = IPC::Run::run(\@command, '<', '/dev/null', '>', \$out, '2>', \$err);

	ok($good && $err eq '', $name) or diag($err);
	return;
}

sub restore
{
	my ($case, $dbname, $file, @options) = @_;

	if ($file =~ /\.sql$/)
	{
		run_quietly("$case: restored without a word", $target->installed_command('psql'), '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', $target->connstr($dbname), '-f', $file);
	}
	else
	{
		run_quietly("$case: restored without a word", $target->installed_command('pg_restore'), '-d', $target->connstr($dbname), @options, $file);
	}
	return;
}

# The restored database is as the source was, and lives.
sub check
{
	my ($case, $dbname) = @_;
	my $t = session($target, $dbname);

	await_workers($t, "$case: a worker is there");
	result_is($t, $content{$_}, $expected{$_}, "$case: $_") for sort keys %content;

	# what was produced before is not again
	result_is($t, "SELECT p.last_offset - b.last_offset, p.last_offset - a.log_offset FROM producer_status p,"
		  . " produce_batch('orders', ARRAY['once', 'once'], producer => 'p 1', sequence => 42, partition => 2) b,"
		  . " produce('orders', 'once', producer => 'p 1', sequence => 41, partition => 2) a", '0|2', "$case: numbered messages are not doubled");

	# the log goes on
	for my $partition (0 .. 2)
	{
		my $end = $t->query_ok("SELECT log_end_offset FROM partition_status WHERE topic = 'orders' AND partition = $partition");
		is($t->query_ok("SELECT log_offset FROM produce('orders', 'new', partition => $partition)"), $end, "$case: partition $partition goes on with the next offset");
	}
	result_is($t, "SELECT log_offset FROM produce('empty', 'new')", '0', '... and an empty topic with its first');
	result_is($t, "SELECT count(*), count(DISTINCT value) FROM consume('orders', 'late', 1000)", '1|1', '... a group at the end gets what is new');
	result_is($t, "SELECT count(*) FROM produce('docs', '\"new\"'::jsonb)", '1', '...');
	result_is($t, "SELECT value FROM consume('docs', 'behind the rolled-back')", '"new"', '... and one behind what was rolled back');
	my ($all, $got) = (0, 0);
	$all = $t->query_ok("SELECT sum(lag) FROM consumer_group_status WHERE consumer_group = 'billing' AND topic = 'orders'");
	while ((my $n = $t->query_ok("SELECT count(*) FROM consume('orders', 'billing', 10000)")) > 0) { $got += $n; }
	is($got, $all, '... and one in the middle goes on');
	is($t->query_ok("SELECT count(*) FROM produce_batch('orders', ARRAY(SELECT 'x' FROM generate_series(1, 3500)), partition => 1)"), '1', '... segments are made');
	$t->query_ok("SELECT create_topic('new')");
	is($t->query_ok("SELECT 'new'::topic::int > max(id) FROM pgtopic.topic WHERE name <> 'new'"), 't', '... and topics, with ids of their own');
	$t->query_ok('SET ROLE alice');
	result_is($t, "SELECT value FROM fetch_messages('hers', 0, 0)", 'x', '... the owner uses her topic');
	$t->query_ok('SET ROLE bob');
	error_is($t, "SELECT fetch_messages('hers', 0, 0)", '42501', undef, '... and nobody else');
	result_is($t, "SELECT log_offset > 0 FROM produce('hers', 'bob''s')", 't', '... but whom she has given the right to produces');
	$t->query_ok('RESET ROLE');

	# it can go
	$t->query_ok("SELECT drop_topic('empty')");
	is($t->query_ok("SELECT count(*) FROM pg_class c LEFT JOIN pgtopic.topic ON 't' || id = substring(relname FROM '^t[0-9]+') WHERE relnamespace = 'pgtopic'::regnamespace AND relname ~ '^t[0-9]+_?' AND relkind IN ('r', 'p') AND id IS NULL"), '0',
		"$case: drop_topic() takes all its tables along");
	$t->query_ok('DROP TABLE aaa.notes, zzz.notes, public.notes, zzz.parted CASCADE; DROP FUNCTION aaa.note(text); DROP VIEW hers');
	$t->query('DROP EXTENSION pgtopic');
	is($t->error, '', "$case: DROP EXTENSION works");
	result_is($t, <<'EOT', '0|0|0|0', '... and leaves nothing behind');
SELECT (SELECT count(*) FROM pg_namespace WHERE nspname IN ('pgtopic', 'topics')),
	(SELECT count(*) FROM pg_class WHERE relname ~ '^t[0-9]+'),
	(SELECT count(*) FROM pg_type WHERE typname IN ('topic', 'topic_partition', 'message')),
	(SELECT count(*) FROM pg_proc WHERE probin LIKE '%pgtopic%')
EOT
	$t->query_ok('CREATE EXTENSION pgtopic');
	$t->query_ok("SELECT create_topic('again')");
	result_is($t, "SELECT 'again'::topic::int, log_offset FROM produce('again', 'x')", '1|0', '... and it can be made again');
	$t->quit;
	return;
}

sql($target, 'CREATE ROLE alice; CREATE ROLE bob');
my $plain = dump_with('plain.sql');
my $custom = dump_with('custom.dump', '-Fc');
my $directory = dump_with('directory', '-Fd', '-j', '3');

sql($target, "CREATE DATABASE $_") for qw(plain parallel parts early);

restore('plain', 'plain', $plain);
check('plain', 'plain');
restore('parallel', 'parallel', $directory, '-j', '4');
check('parallel', 'parallel');

# Sections, so that there is time between data and indexes for somebody to look.
{
	restore('pre-data', 'parts', $custom, '--section=pre-data');
	restore('data', 'parts', $custom, '--section=data');
	my $t = session($target, 'parts');
	error_is($t, "SELECT * FROM produce('orders', 'too early', partition => 0)", '55000', qr/HINT:  .*restored/, 'producing in the middle of a restore is an error that says so');
	error_is($t, "SELECT * FROM consume('orders', 'billing')", '55000', undef, '... and so is consuming');
	$t->quit;
	restore('post-data', 'parts', $custom, '--section=post-data');
	check('in sections', 'parts');
}

# Structure first, then data, and the topics known before its messages are there: the worker
# looks at it meanwhile, as it does while a large dump is restored in parallel.
{
	my ($list, $err);

	my $data = dump_with('data.dump', '-Fc', '--data-only');
	restore('structure', 'early', dump_with('structure.dump', '-Fc', '--schema-only'));
	IPC::Run::run([ $target->installed_command('pg_restore'), '-l', $data ], '>', \$list) or die 'pg_restore -l failed';
	my @lines = grep { /^\d/ } split /\n/, $list;
	my @first = grep { /TABLE DATA pgtopic (topic|partition) / } @lines;
	is(scalar(@first), 2, 'there is data of the catalog');
	append_to_file("$folder/first.list", join("\n", @first) . "\n");
	append_to_file("$folder/rest.list", join("\n", grep { !/TABLE DATA pgtopic (topic|partition) / } @lines) . "\n");
	restore('the catalog', 'early', $data, '-L', "$folder/first.list");
	# the worker has gone through it, which it tells by what it removes
	my $t = session($target, 'early');
	$t->query_ok("SELECT create_topic('expired', retention => '1 ms')");
	$t->query_ok("SELECT produce('expired', 'x')");
	wait_until($t, "SELECT log_start_offset = 1 FROM partition_status WHERE topic = 'expired'");
	$t->query_ok("SELECT drop_topic('expired')");
	$t->quit;
	restore('the rest', 'early', $data, '-L', "$folder/rest.list");
	sql($target, 'REFRESH MATERIALIZED VIEW zzz.counted', 'early');
	check('catalog first, then messages', 'early');
}

# --- into a database that has them already ---

# The way to do that with partitioned tables: the database is made anew.  There
# is a worker in it the second time.
for my $turn ('first', 'second')
{
	run_quietly("--clean --create, $turn time: restored without a word", $target->installed_command('pg_restore'),
		'-d', $target->connstr('template1'), '--clean', '--if-exists', '--create', '--exit-on-error', $custom);
	my $t = session($target);
	await_workers($t);
	$t->quit;
}
check('--clean --create', 'postgres');

# --- names of topics in expressions ---

# What is written into views, defaults and functions is read again while the
# structure is restored, in an order that follows from the schemas' names.  A
# constant of type topic cannot be read before its topic is there; one of type
# text can, as the README tells.
{
	sql($source, 'CREATE DATABASE expressions');
	my $e = session($source, 'expressions');
	$e->query_ok($_) for 'CREATE EXTENSION pgtopic', "SELECT create_topic('orders')", "SELECT produce('orders', 'hello')";
	for my $schema ('aaa', 'zzz')
	{
		$e->query_ok($_) for split /;\n/, <<"EOC";
CREATE SCHEMA $schema;
CREATE TABLE $schema.by_default (i int, t topic DEFAULT 'orders'::text);
INSERT INTO $schema.by_default VALUES (1);
CREATE VIEW $schema.hello AS SELECT value FROM fetch_messages('orders'::text, 0, 0, 1);
CREATE TABLE $schema.checked (t topic CHECK (t <> 'orders'::text));
CREATE FUNCTION $schema.say(text) RETURNS bigint LANGUAGE sql AS \$\$ SELECT log_offset FROM produce('orders', \$1) \$\$;
CREATE FUNCTION $schema.say_atomic(text) RETURNS bigint BEGIN ATOMIC SELECT log_offset FROM produce('orders'::text, \$1); END
EOC
	}
	$e->quit;
	IPC::Run::run([ $source->installed_command('pg_dump'), '-d', $source->connstr('expressions'), '-f', "$folder/expressions.sql" ]) or die 'pg_dump failed';
	sql($target, 'CREATE DATABASE expressions');
	restore("names of topics in expressions, as text", 'expressions', "$folder/expressions.sql");
	my $t = session($target, 'expressions');
	for my $schema ('aaa', 'zzz')
	{
		$t->query("INSERT INTO $schema.by_default VALUES (2)");
		result_is($t, "SELECT string_agg(t::text, ' ') FROM $schema.by_default", 'orders orders', "... in a default in schema $schema");
		result_is($t, "SELECT value FROM $schema.hello", 'hello', '... in a view');
		result_is($t, "SELECT $schema.say('x') < $schema.say_atomic('x')", 't', '... in functions');
		error_is($t, "INSERT INTO $schema.checked VALUES ('orders')", '23514', undef, '... in a check');
	}
	$t->quit;
}

$s->quit;
$source->stop;
$target->stop;
log_is_clean($source);
log_is_clean($target);
# Nothing went wrong but what is asked for above.
my @errors = grep { /ERROR:/ && !/too early|has no primary key|permission denied|violates check/ } split /\n/, slurp_file($target->logfile);
is(scalar(@errors), 0, 'no other errors in the log of the target') or diag(join("\n", @errors));
done_testing();
