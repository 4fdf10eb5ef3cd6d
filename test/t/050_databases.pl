# Several databases of one server, each with topics and a worker of its own, and
# commands on databases that no worker may be in the way of.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgtopicTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('databases', extension => 0, conf => <<'EOC');
max_worker_processes = 20
pgtopic.max_databases = 10
pgtopic.retention_check_interval = '200ms'
EOC
my $s = session($node);

# How many workers a database has, from the outside.
sub workers_of
{
	my ($dbname) = @_;
	return "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pgtopic maintenance' AND datname = '$dbname'";
}

sub create
{
	my ($dbname) = @_;
	$s->query_ok("CREATE DATABASE $dbname");
	my $d = session($node, $dbname);
	$d->query_ok('CREATE EXTENSION pgtopic');
	return $d;
}

# --- no database has it: nobody but the launcher ---

wait_until($s, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'pgtopic launcher' AND application_name = 'pgtopic launcher'", 'the launcher runs');
wait_until($s, "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pgtopic maintenance'", '... and no worker where there is no extension');

# --- two databases ---

my $one = create('one');
my $two = create('two');

await_workers($one, 'a database that gets the extension gets a worker');
await_workers($two, '... and another one too');
result_is($s, workers_of('one'), '1', '... one each');
result_is($s, "SELECT DISTINCT application_name FROM pg_stat_activity WHERE backend_type = 'pgtopic maintenance'", 'pgtopic maintenance', '... that says who it is');

$_->query_ok("SELECT create_topic('t', partitions => 2, segment_messages => 1000)") for $one, $two;
$one->query_ok("SELECT produce('t', 'one' || n, partition => 0) FROM generate_series(1, 3) n");
result_is($two, "SELECT log_offset FROM produce('t', 'two', partition => 0)", '0', 'topics of the same name have offsets of their own');
result_is($two, "SELECT string_agg(value, ' ') FROM consume('t', 'g')", 'two', '... messages');
result_is($one, "SELECT string_agg(value, ' ') FROM consume('t', 'g')", 'one1 one2 one3', '... and groups');
$one->query_ok("BEGIN; SELECT produce('t', 'open', partition => 1)");
result_is($two, "SELECT log_offset, (SELECT value FROM fetch_messages('t', 1, 0)) FROM produce('t', 'x', partition => 1)", '0|', 'an open transaction in one');
result_is($two, "SELECT value FROM fetch_messages('t', 1, 0, max_wait => '10 s')", 'x', '... does not hold back the other');
$one->query_ok('COMMIT');
result_is($one, "SELECT count(*) FROM produce_batch('t', ARRAY(SELECT 'x' FROM generate_series(1, 7000)), partition => 1)", '1', 'segments are made in one');
result_is($two, "SELECT count(*) FROM produce_batch('t', ARRAY(SELECT 'x' FROM generate_series(1, 7000)), partition => 1)", '1', '... and in the other');
my @waiting = (session($node, 'one'), session($node, 'two'));
$_->send("SELECT value FROM consume('t', 'waiting', max_wait => '60 s') WHERE partition = 2") for @waiting;
$_->result, $_->quit for @waiting;

# --- a database's worker that fails hurts nobody else ---

$two->query_ok("ALTER TABLE pgtopic.topic RENAME TO hidden");
wait_until($two, "SELECT last_error IS NOT NULL FROM worker_status WHERE worker = 'maintenance'", 'a worker fails and says so');
result_is($two, "SELECT state <> 'stopped', last_error ~ '\"pgtopic.topic\" does not exist', last_error_at <= now() FROM worker_status WHERE worker = 'maintenance'", 't|t|t', '... what, and when');
result_is($one, "SELECT state <> 'stopped', last_error IS NULL FROM worker_status WHERE worker = 'maintenance'", 't|t', '... in one database alone');
$one->query_ok("SELECT create_topic('short', retention => '1 ms')");
$one->query_ok("SELECT produce('short', 'x')");
wait_until($one, "SELECT log_start_offset = 1 FROM partition_status WHERE topic = 'short'", '... while the other is served');
$two->query_ok("ALTER TABLE pgtopic.hidden RENAME TO topic");
$two->query_ok("SELECT create_topic('short', retention => '1 ms')");
$two->query_ok("SELECT produce('short', 'x')");
wait_until($two, "SELECT log_start_offset = 1 FROM partition_status WHERE topic = 'short'", '... as is this one when the cause is gone');

# A worker that is ended comes back; one that fails to start does not keep the others from it.
my $pid = worker_pid($one);
$s->query_ok("SELECT pg_terminate_backend($pid)");
wait_until($one, "SELECT pid <> $pid AND state <> 'stopped' FROM worker_status WHERE worker = 'maintenance'", 'a worker that was ended comes back');
my $launcher = $s->query_ok("SELECT pid FROM pg_stat_activity WHERE backend_type = 'pgtopic launcher'");
$s->query_ok("SELECT pg_terminate_backend($launcher)");
wait_until($s, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'pgtopic launcher' AND pid <> $launcher", '... and so does the launcher');
await_workers($one);
result_is($s, workers_of('one'), '1', '... which starts no second worker');

# Settings of a database are for its sessions, and not for the worker.
{
	my $pid = worker_pid($one);
	$one->query_ok("ALTER DATABASE one SET $_") for q{default_transaction_read_only = on}, q{statement_timeout = '1ms'}, q{default_transaction_isolation = 'serializable'},
	  q{idle_in_transaction_session_timeout = '1ms'}, q{search_path = 'nowhere'}, q{client_min_messages = 'debug5'}, q{check_function_bodies = off};
	$s->query_ok("SELECT pg_terminate_backend($pid)");
	wait_until($one, "SELECT pid <> $pid AND state <> 'stopped' FROM worker_status WHERE worker = 'maintenance'");
	$one->query_ok("SELECT create_topic('settings', retention => '1 ms', segment_messages => 1000)");
	$one->query_ok("SELECT count(*) FROM produce_batch('settings', ARRAY(SELECT 'x' FROM generate_series(1, 4000)))");
	wait_until($one, "SELECT log_start_offset = 4000 AND high_watermark = 4000 FROM pgtopic.partition WHERE topic_id = 'settings'::topic::int",
		'whatever a database sets for its sessions, the worker works');
	wait_until($one, "SELECT min(from_offset) FROM segment_status WHERE topic = 'settings'", '... dropping and making segments', '4000');
	result_is($one, "SELECT last_error FROM worker_status WHERE worker = 'maintenance'", '', '... without an error');
	$one->query_ok('ALTER DATABASE one RESET ALL');
}

# --- DROP DATABASE, RENAME, TEMPLATE, SET TABLESPACE: the worker gets out of the way ---

sub works
{
	my ($sql, $name) = @_;
	my $before = time();
	$s->query($sql);
	is($s->error, '', "$name works in spite of the worker");
	my $took = time() - $before;
	ok($took < 5, '... at once') or diag("took $took s");
	return;
}

$_->quit for $one, $two;

works('ALTER DATABASE two RENAME TO second', 'ALTER DATABASE RENAME');
wait_until($s, workers_of('second'), '... and the worker comes back', '1');
works('CREATE DATABASE copy TEMPLATE second', 'CREATE DATABASE TEMPLATE');
wait_until($s, workers_of('second'), '... and the worker comes back', '1');
my $copy = session($node, 'copy');
result_is($copy, "SELECT value FROM fetch_messages('t', 0, 0)", 'two', 'a copy has the messages');
result_is($copy, "SELECT log_offset FROM produce('t', 'copy', partition => 0)", '1', '... and goes on');
wait_until($s, workers_of('copy'), '... with a worker', '1');
$two = session($node, 'second');
result_is($two, "SELECT log_offset FROM produce('t', 'original', partition => 0)", '1', '... on its own');
result_is($copy, "SELECT string_agg(value, ' ') FROM fetch_messages('t', 0, 0)", 'two copy', '... and neither sees the other');
result_is($two, "SELECT string_agg(value, ' ') FROM fetch_messages('t', 0, 0)", 'two original', '... messages');
$_->quit for $copy, $two;

my $tablespace = PostgreSQL::Test::Utils::tempdir;
$s->query_ok("CREATE TABLESPACE elsewhere LOCATION '$tablespace'");
works('ALTER DATABASE copy SET TABLESPACE elsewhere', 'ALTER DATABASE SET TABLESPACE');
$copy = session($node, 'copy');
wait_until($s, workers_of('copy'), '... and the worker comes back', '1');
result_is($copy, "SELECT string_agg(value, ' ') FROM fetch_messages('t', 0, 0)", 'two copy', '... to the same messages');

# It fails for another reason, and the worker comes back.
error_is($s, 'ALTER DATABASE copy RENAME TO postgres', '42P04', undef, 'a command that fails as ever');
wait_until($s, workers_of('copy'), '... and the worker comes back', '1');
$copy->quit;
works('DROP DATABASE copy', 'DROP DATABASE');
works('DROP DATABASE second WITH (FORCE)', 'DROP DATABASE WITH (FORCE)');
result_is($s, workers_of('copy'), '0', '... which is gone then');

# Who may not drop it does not stop the worker.
$s->query_ok('CREATE ROLE nobody LOGIN');
my $nobody = session($node, 'postgres', user => 'nobody');
$pid = $s->query_ok("SELECT pid FROM pg_stat_activity WHERE backend_type = 'pgtopic maintenance' AND datname = 'one'");
error_is($nobody, 'DROP DATABASE one', '42501', undef, 'who does not own a database cannot drop it');
error_is($nobody, 'ALTER DATABASE one RENAME TO other', '42501', undef, '... nor rename it');
error_is($nobody, 'CREATE DATABASE other TEMPLATE one', '42501', undef, '... nor copy it');
result_is($s, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", '1', '... and the worker does not even notice');
$nobody->quit;

# --- again under the same name: a new database ---

$two = create('two');
$two->query_ok("SELECT create_topic('t', partitions => 2)");
result_is($two, "SELECT log_offset FROM produce('t', 'new', partition => 0)", '0', 'a database made again under the same name starts anew');
result_is($two, "SELECT string_agg(value, ' ') FROM consume('t', 'g')", 'new', '... for its groups too');
await_workers($two, '... with a worker');

# --- DROP EXTENSION in spite of the worker ---

$two->query('DROP EXTENSION pgtopic');
is($two->error, '', 'DROP EXTENSION works in spite of the worker');
wait_until($s, workers_of('two'), '... which ends', '0');
result_is($two, "SELECT count(*) FROM pg_class WHERE relname ~ '^t[0-9]+'", '0', '... leaving no tables behind');
$two->query_ok('CREATE EXTENSION pgtopic');
await_workers($two, 'CREATE EXTENSION again brings a worker');
$two->query_ok("SELECT create_topic('t')");
result_is($two, "SELECT log_offset FROM produce('t', 'x')", '0', '... and a new log');
$two->query_ok('BEGIN; DROP EXTENSION pgtopic; ROLLBACK');
result_is($two, "SELECT value FROM fetch_messages('t', 0, 0)", 'x', 'a DROP EXTENSION that is rolled back has done nothing');
result_is($two, "SELECT log_offset FROM produce('t', 'y')", '1', '... to the log either');
await_workers($two, '... nor to the worker');

# In a transaction with CREATE EXTENSION: the worker comes with the commit.
my $three = session($node, ($s->query_ok('CREATE DATABASE three'), 'three')[1]);
$three->query_ok('BEGIN; CREATE EXTENSION pgtopic; ROLLBACK');
$three->query_ok("BEGIN; CREATE EXTENSION pgtopic; SELECT create_topic('t'); SELECT produce_batch('t', ARRAY['a', 'b']); COMMIT");
result_is($three, "SELECT string_agg(value, '') FROM fetch_messages('t', 0, 0)", 'ab', 'extension, topic and messages in one transaction');
await_workers($three, '... bring a worker');
$three->query_ok('CREATE SCHEMA "my schema"; DROP EXTENSION pgtopic; CREATE EXTENSION pgtopic SCHEMA "my schema"');
$three->query_ok("SELECT \"my schema\".create_topic('t', retention => '1 ms')");
result_is($three, "SELECT log_offset FROM \"my schema\".produce('t', 'x')", '0', 'in another schema it works too');
wait_until($three, "SELECT log_start_offset = 1 FROM \"my schema\".partition_status", '... and its worker does');
$_->quit for $two, $three;

# --- after a restart, workers come by themselves ---

$node->restart;
$s->quit;
$s = session($node);
for my $dbname ('one', 'two', 'three')
{
	wait_until($s, workers_of($dbname), "after a restart, database $dbname has its worker", '1');
}
wait_until($s, "SELECT count(*) = 3 FROM pg_stat_activity WHERE backend_type = 'pgtopic maintenance'", '... and no other');

# --- limits ---

$_->quit for $s;
$node->append_conf('postgresql.conf', 'pgtopic.max_databases = 2');
$node->restart;
$s = session($node);
wait_until($s, "SELECT count(*) = 2 FROM pg_stat_activity WHERE backend_type = 'pgtopic maintenance'", 'with max_databases = 2, two databases have a worker');
my ($without) = grep { $s->query_ok(workers_of($_)) eq '0' } 'one', 'two', 'three';
my ($with) = grep { $_ ne $without } 'one', 'two';
my $w = session($node, $without);
my $schema = $without eq 'three' ? '"my schema", pg_catalog' : 'public';
$w->query_ok("SET search_path = $schema");
result_is($w, "SELECT log_offset >= 0 FROM produce('t', 'x')", 't', 'the third can produce');
$w->query_ok("SELECT create_topic('more')");
like($w->notices, qr/WARNING:  53400: .*no maintenance worker.*\nHINT:  .*pgtopic\.max_databases/, '... and is told by create_topic() what is missing');
result_is($w, "SELECT count(*) FROM worker_status WHERE worker = 'maintenance' AND state <> 'stopped'", '0', '... as worker_status says');
ok(slurp_file($node->logfile) =~ qr/more than 2 databases.*\n.*HINT:  .*increase pgtopic\.max_databases/, '... and the log');

my $v = session($node, $with);
$v->query_ok('DROP EXTENSION pgtopic');
$v->quit;
wait_until($s, workers_of($with), 'when another database leaves', '0');
$w->query_ok("SELECT create_topic('another')");
wait_until($s, workers_of($without), '... it gets its worker', '1');
$w->quit;

$s->quit;
$node->append_conf('postgresql.conf', "pgtopic.max_databases = 10\nmax_worker_processes = 2");
$node->restart;
$s = session($node);
my $name = $with eq 'one' ? 'two' : 'one';
my $x = session($node, $name);
$x->query_ok('SELECT 1');
wait_until($x, "SELECT last_error ~ 'max_worker_processes' FROM worker_status WHERE worker = 'launcher'", 'without a free process for a worker, worker_status says what to increase');
ok(slurp_file($node->logfile) =~ qr/cannot start a maintenance worker for database .*\n.*HINT:  Increase max_worker_processes/, '... and so does the log');
my @said = slurp_file($node->logfile) =~ /cannot start a maintenance worker/g;
ok(@said < 10, '... not again and again');
result_is($x, "SELECT count(*) FROM produce('t', 'x')", '1', '... and there is room to produce');
$x->quit;

# pg_upgrade and the like: databases that nobody may connect to are left alone.
$s->query_ok('ALTER DATABASE three ALLOW_CONNECTIONS false');
$s->quit;
$node->append_conf('postgresql.conf', 'max_worker_processes = 20');
$node->restart;
$s = session($node);
wait_until($s, "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'pgtopic maintenance'");
result_is($s, workers_of('three'), '0', 'a database that allows no connections has no worker');
$s->query_ok('DROP DATABASE three');
works("DROP DATABASE $name", 'DROP DATABASE of the last');
$s->quit;

$node->stop;
log_is_clean($node, allow => [ qr/maintenance failed while .*relation "pgtopic\.topic" does not exist/ ]);
done_testing();
