# pg_upgrade, to the same version for want of another: it carries tables over as
# files, and fires no triggers.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PgtopicTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $old = new_node('old');
my $s = session($old);

if (!-x $old->config_data('--bindir') . '/pg_upgrade')
{
	$s->quit;
	plan skip_all => 'there is no pg_upgrade';
}

my $new = new_node('new', start => 0);

$s->query_ok($_) for split /;\n/, <<'EOC';
CREATE ROLE alice;
GRANT CREATE ON SCHEMA topics TO alice;
SELECT create_topic('gone');
SELECT create_topic('orders', partitions => 2, segment_messages => 1000, retention => '3 days');
SET ROLE alice;
SELECT create_topic('hers');
RESET ROLE;
SELECT produce_batch('orders', ARRAY(SELECT 'v' || n FROM generate_series(1, 3000) n), partition => 0);
SELECT produce('orders', repeat('x', 100000), 'key', '{"a": 1}', partition => 1);
SELECT delete_messages('orders', 0, 1500);
SELECT consume('orders', 'billing', 100);
CREATE SCHEMA aaa;
CREATE TABLE aaa.notes (t topic, p topic_partition);
INSERT INTO aaa.notes VALUES ('orders', 'orders-1'), ('gone', 'gone-0');
SELECT drop_topic('gone')
EOC
wait_until($s, "SELECT min(from_offset) = 1000 FROM segment_status WHERE topic = 'orders' AND partition = 0");

my %content = (
	messages => "SELECT m.partition, log_offset, timestamp, key, md5(value), headers FROM partition_status s, fetch_messages(s.topic, s.partition, s.log_start_offset, 10000) m WHERE s.topic = 'orders' ORDER BY 1, 2",
	positions => 'SELECT * FROM consumer_group_status ORDER BY 1, 2, 3',
	partitions => 'SELECT topic, partition, log_start_offset, log_end_offset FROM partition_status ORDER BY 1, 2',
	notes => 'SELECT * FROM aaa.notes',
	dependencies => "SELECT objid::regclass, deptype FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND classid = 'pg_class'::regclass AND objid::regclass::text ~ 'pgtopic.t[0-9]' ORDER BY 1");
my %expected = map { $_ => $s->query_ok($content{$_}) } keys %content;
$s->quit;
$old->stop;

my $folder = PostgreSQL::Test::Utils::tempdir;
my $bindir = $old->config_data('--bindir');
my ($out, $err) = ('', '');
chdir($folder) or die "$folder: $!";
my $upgraded = IPC::Run::run([ "$bindir/pg_upgrade", '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir,
		'-b', $bindir, '-B', $bindir, '-s', $new->host, '-p', $old->port, '-P', $new->port ], '<', '/dev/null', '>', \$out, '2>', \$err);
ok($upgraded, 'pg_upgrade works') or BAIL_OUT("$out\n$err");

$new->start;
$s = session($new);
await_workers($s, 'workers are there');
for my $what (sort keys %content)
{
	# the worker sees to this one
	$what eq 'dependencies' ? wait_until($s, $content{$what}, $what, $expected{$what})
	  : result_is($s, $content{$what}, $expected{$what}, $what);
}
result_is($s, "SELECT log_offset FROM produce('orders', 'new', partition => 0)", '3000', 'the log goes on with the next offset');
result_is($s, "SELECT count(*) FROM produce_batch('orders', ARRAY(SELECT 'x' FROM generate_series(1, 3500)), partition => 1)", '1', '... and gets segments');
$s->query_ok("SELECT create_topic('new')");
result_is($s, "SELECT log_offset FROM produce('new', 'x')", '0', '... topics can be made');
$s->query_ok('SET ROLE alice');
result_is($s, "SELECT log_offset FROM produce('hers', 'x')", '0', '... the owner has her topic');
$s->query_ok('RESET ROLE');

$s->query_ok("SELECT drop_topic('orders')");
result_is($s, "SELECT count(*) FROM pg_class WHERE relname ~ '^t2_' OR relname = 't2'", '0', 'drop_topic() takes all its tables along');
$s->query('DROP EXTENSION pgtopic CASCADE');
is($s->error, '', 'DROP EXTENSION works');
result_is($s, "SELECT count(*) FROM pg_class WHERE relname ~ '^t[0-9]+'", '0', '... and leaves nothing behind');
$s->quit;

$new->stop;
log_is_clean($old);
log_is_clean($new);
done_testing();
