# A server that has not loaded pgtopic: one clear error that names the line to
# add, and nothing else in the way.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgtopicTest;
use PostgreSQL::Test::Utils;
use Test::More;

# All that is said: the error, and the line to add.
my $told = qr/^ERROR:  55000: pgtopic must be loaded when the server starts\nHINT:  .*shared_preload_libraries = 'pgtopic'.*restart/;

my $node = new_node('preload', preload => 0);
my $s = session($node);

error_is($s, 'CREATE EXTENSION pgtopic', '55000', $told, 'CREATE EXTENSION names the line to add');
is(join(' ', $s->error =~ /^(ERROR|DETAIL|HINT):/mg), 'ERROR HINT', '... in one error of one hint');
result_is($s, <<'EOC', '0|0|0', '... and leaves nothing behind');
SELECT (SELECT count(*) FROM pg_extension WHERE extname = 'pgtopic'),
	(SELECT count(*) FROM pg_namespace WHERE nspname IN ('pgtopic', 'topics')),
	(SELECT count(*) FROM pg_event_trigger)
EOC
$s->query("LOAD 'pgtopic'");
is($s->error, '', 'LOAD does no harm');
error_is($s, 'CREATE EXTENSION pgtopic', '55000', $told, '... and is not enough');
$s->quit;

# What a user of pgtopic has when the line is lost, as in a server that was moved.
my $preload = "shared_preload_libraries = 'pgtopic'\n";
$node->append_conf('postgresql.conf', $preload);
$node->restart;
$s = session($node);
$s->query_ok($_) for split /;\n/, <<'EOC';
CREATE EXTENSION pgtopic;
SELECT create_topic('orders', partitions => 3);
SELECT create_topic('blobs', value_format => 'bytes');
SELECT create_topic('docs', value_format => 'json');
SELECT produce_batch('orders', ARRAY['a', 'b', 'c'], partition => 1);
SELECT consume('orders', 'billing', 1);
CREATE TABLE notes (t topic, p topic_partition, note text);
INSERT INTO notes VALUES ('orders', 'orders-1', 'hello');
CREATE INDEX ON notes (t, p);
CREATE TABLE unrelated (i int PRIMARY KEY);
CREATE TABLE another (t topic DEFAULT 'orders');
CREATE SCHEMA other;
CREATE TABLE other.unrelated (i int);
CREATE ROLE someone;
GRANT CREATE ON SCHEMA other TO someone;
SET ROLE someone;
CREATE TABLE other.of_someone (i int);
RESET ROLE;
CREATE FUNCTION in_a_function() RETURNS bigint LANGUAGE plpgsql AS
	$$ BEGIN RETURN log_offset FROM produce('orders', 'x'); END $$
EOC
$s->quit;

my $conf = $node->data_dir . '/postgresql.conf';
my $text = slurp_file($conf);
$text =~ s/\Q$preload\E// or die "no line to remove in $conf";
open(my $fh, '>', $conf) or die "$conf: $!";
print $fh $text;
close $fh;
$node->restart;

# Every kind of call, as the first of its session: nothing may depend on what
# another has loaded.
my @calls = (
	q{create_topic('more')}, q{alter_topic('orders', 'retention', '1 day')},
	q{add_partitions('orders', 5)}, q{delete_messages('orders', 1, 1)}, q{drop_topic('orders')},
	q{produce('orders', 'x')}, q{produce('orders', 'x', key => 'k', partition => 1)},
	q{produce('blobs', '\x00'::bytea)}, q{produce('docs', '{}'::jsonb)},
	q{produce_batch('orders', ARRAY['x'])}, q{produce_batch('blobs', ARRAY['\x00'::bytea])},
	q{produce_batch('docs', ARRAY['{}'::jsonb])}, q{in_a_function()},
	q{fetch_messages('orders', 1, 0)}, q{fetch_messages_bytes('blobs', 0, 0)},
	q{consume('orders', 'billing')}, q{consume('orders', 'billing', max_wait => '1 min')},
	q{consume_bytes('blobs', 'billing')}, q{offsets_at('orders', now())},
	q{create_consumer_group('new', 'orders')}, q{commit_offset('billing', 'orders', 1, 1)},
	q{reset_offsets('billing', 'orders', 'earliest')},
	q{drop_consumer_group('billing', 'orders')}, q{drop_consumer_group('billing')});
for my $sql ((map { "SELECT $_" } @calls), q{CALL wait_for_messages('orders', 'billing', '1 min')},
	map { "SELECT * FROM $_" } qw(topic_status partition_status segment_status
	consumer_group_status worker_status))
{
	my $session = session($node);
	error_is($session, $sql, '55000', $told, "refused: $sql");
	$session->quit;
}

# What has nothing to do with topics goes on.
$s = session($node);
result_is($s, 'SELECT t, p, note FROM notes', 'orders|orders-1|hello', 'columns of the types can be read');
result_is($s, q{SELECT note FROM notes WHERE t = 'orders' AND p = 'orders-1'}, 'hello', '... and searched');
for my $sql ('DROP TABLE unrelated', 'DROP TABLE another', 'DROP SCHEMA other CASCADE',
	'CREATE TABLE unrelated (i int)', 'DROP OWNED BY someone', 'DROP TABLE unrelated', 'DROP ROLE someone',
	'CREATE DATABASE other', 'ALTER DATABASE other RENAME TO renamed', 'DROP DATABASE renamed', 'VACUUM', 'ANALYZE')
{
	$s->query($sql);
	is($s->error, '', "still works: $sql");
}
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', PostgreSQL::Test::Utils::tempdir . "/dump.sql" ],
	'pg_dump works');

# With the line again, everything is as it was.
$s->quit;
$node->append_conf('postgresql.conf', $preload);
$node->restart;
$s = session($node);
result_is($s, q{SELECT string_agg(value, '') FROM fetch_messages('orders', 1, 0)}, 'abc', 'with the line, messages are there again');
result_is($s, q{SELECT value FROM consume('orders', 'billing', 1)}, 'b', '... and the group goes on');
await_workers($s, '... and workers run');
$s->quit;

# Without it, the extension can be dropped.
open($fh, '>', $conf) or die "$conf: $!";
print $fh $text;
close $fh;
$node->restart;
$s = session($node);
$s->query('DROP EXTENSION pgtopic CASCADE');
is($s->error, '', 'DROP EXTENSION works without the line');
result_is($s, <<'EOC', '0|0|0', '... and leaves nothing behind');
SELECT (SELECT count(*) FROM pg_namespace WHERE nspname IN ('pgtopic', 'topics')),
	(SELECT count(*) FROM pg_class WHERE relname ~ '^t[0-9]+'),
	(SELECT count(*) FROM pg_event_trigger)
EOC
$s->quit;

$node->stop;
log_is_clean($node);
done_testing();
