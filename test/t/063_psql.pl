# psql knows the relation of a topic as it knows others: it completes its name, and its
# columns, after TAB.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PgtopicTest;
use PostgreSQL::Test::Utils;
use Test::More;

plan(skip_all => 'psql completes on a terminal only, and Perl has no IO::Pty here') unless eval { require IO::Pty; 1 };
plan(skip_all => "psql completes on a terminal only, and there is none to be had: $@") unless eval { IO::Pty->new };

my $node = new_node('psql');
sql($node, "SELECT create_topic('completed_topic')");

my ($in, $out) = ('', '');
local @ENV{qw(TERM INPUTRC PSQL_HISTORY)} = ('dumb', '/dev/null', '/dev/null');
my $psql = IPC::Run::start([ $node->installed_command('psql'), '-Xq', '-d', $node->connstr('postgres') ],
	'<pty<', \$in, '>pty>', \$out, IPC::Run::timer($PostgreSQL::Test::Utils::timeout_default));
eval { $psql->pump until $out =~ /postgres=# /; };
plan(skip_all => 'this psql was built without readline') unless completes('SELEC', 'SELECT ');

# Whether what has been typed becomes that.
sub completes
{
	my ($typed, $expected) = @_;
	$out = '';
	$in = "$typed\t";
	eval { $psql->pump until $out =~ /\Q$expected\E/ || $out =~ /\a/; };
	my $found = $out =~ /\Q$expected\E/;
	diag("typed \"$typed\", got \"$out\"") unless $found;
	# an empty line
	$out = '';
	$in = "\x15\n";
	eval { $psql->pump until $out =~ /postgres=# $/; };
	return $found;
}

ok(completes($_ . 'topics.compl', 'topics.completed_topic '), "completed: ${_}topics.")
  for 'SELECT * FROM ', 'INSERT INTO ', 'GRANT SELECT ON ', 'ANALYZE ', 'ALTER FOREIGN TABLE ', 'DROP FOREIGN TABLE ', '\\d ';
ok(completes('SELECT * FROM topics.completed_topic WHERE log_o', 'log_offset '), 'completed: a column');

$in = "\\q\n";
$psql->finish;
$node->stop;
log_is_clean($node);
done_testing();
