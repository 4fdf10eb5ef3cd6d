# What the TAP tests of pgtopic share: servers, sessions, and looking at logs.
#
# Written for the PostgreSQL::Test modules of 15 to 18.  BackgroundPsql is not in
# all minor releases of 15, and cannot outlive a crash of the server; hence the
# sessions here.
package PgtopicTest;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(
  new_node session sql
  wait_until error_is error_came result_is
  wait_event_is await_waiting
  start_writing kill_backend
  await_workers worker_pid
  recount_statistics
  log_is_clean
);

# What pg_stat_activity.wait_event shows: extensions have names of their own
# for what they wait for from 17 on.
sub wait_event_is
{
	my ($node, $name) = @_;
	return major($node) >= 17 ? $name : 'Extension';
}

# The number of the major version, whatever the module's class for it can do.
sub major
{
	my ($node) = @_;
	$node->pg_version =~ /^(\d+)/;
	return $1;
}

# A running server that has pgtopic preloaded and, in database postgres, created.
#   conf => lines for postgresql.conf	streaming => 1: it can have standbys
#   preload => 0						extension => 0		start => 0
sub new_node
{
	my ($name, %param) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(
		allows_streaming => $param{streaming},
		extra => [ '--encoding=UTF8', '--no-locale' ]);
	$node->append_conf('postgresql.conf', <<'EOC');
log_line_prefix = '%m [%p] %b %q%a '
log_statement = none
log_replication_commands = off
max_connections = 50
shared_buffers = 32MB
EOC
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pgtopic'")
	  if $param{preload} // 1;
	$node->append_conf('postgresql.conf', $param{conf}) if $param{conf};
	return $node unless $param{start} // 1;
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION pgtopic')
	  if $param{extension} // ($param{preload} // 1);
	return $node;
}

# A session; see PgtopicTest::Session.
sub session
{
	my ($node, $dbname, %param) = @_;
	return PgtopicTest::Session->new($node, $dbname // 'postgres', %param);
}

# Runs SQL in a session of its own and returns what it prints.
sub sql
{
	my ($node, $sql, $dbname) = @_;
	return $node->safe_psql($dbname // 'postgres', $sql);
}

# Asks until the answer is as expected ('t'), often; then counts a passed test if
# there is a name.  Dies if it never is, as nothing that follows makes sense then.
sub wait_until
{
	my ($session, $sql, $name, $expected) = @_;
	my $end = time() + $PostgreSQL::Test::Utils::timeout_default;
	my $answer;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$expected //= 't';
	while (1)
	{
		$answer = $session->query($sql);
		last if defined $answer && $answer eq $expected;
		if (time() > $end)
		{
			$answer = defined $answer ? "\"$answer\"" : "error " . $session->error;
			ok(0, $name // 'wait');
			die "still $answer instead of \"$expected\" from: $sql\n";
		}
		usleep(20_000);
	}
	ok(1, $name) if $name;
	return 1;
}

# Waits until a session waits for messages, or for what else is named.
sub await_waiting
{
	my ($watch, $session, $event) = @_;
	$event = wait_event_is($watch->{node}, $event // 'PgtopicMessages');
	return wait_until($watch,
		"SELECT wait_event = '$event' AND wait_event_type = 'Extension' AND state = 'active'"
		  . " FROM pg_stat_activity WHERE pid = " . $session->pid);
}

# The statement fails with this SQLSTATE and text (message, detail and hint).
sub error_is
{
	my ($session, $sql, $sqlstate, $pattern, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$session->query($sql);
	return error_came($session, $sqlstate, $pattern, $name);
}

# The same for a statement that was sent before and has ended.
sub error_came
{
	my ($session, $sqlstate, $pattern, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $good = $session->sqlstate eq $sqlstate
	  && (!defined $pattern || $session->error =~ $pattern);
	ok($good, $name)
	  or diag("expected $sqlstate " . ($pattern // '') . ", got: " . ($session->error || 'no error'));
	return $good;
}

sub result_is
{
	my ($session, $sql, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $result = $session->query($sql);
	$result = 'error: ' . $session->error unless defined $result;
	return is($result, $expected, $name);
}

# Has psql run a file of SQL on its own; what it prints goes to $output.  Ends
# with the file, the first error, or the server.  Returns an IPC::Run handle.
sub start_writing
{
	my ($node, $dbname, $file, $output) = @_;
	return IPC::Run::start(
		[
			$node->installed_command('psql'), '-XAtq', '-v', 'ON_ERROR_STOP=1',
			'-d', $node->connstr($dbname), '-f', $file
		],
		'<', '/dev/null', '>', $output, '2>', "$output.err");
}

sub kill_backend
{
	my ($pid) = @_;
	return kill(9, $pid);
}

# The process id of the maintenance worker of a database, or ''.
sub worker_pid
{
	my ($session) = @_;
	return $session->query(
		"SELECT pid FROM worker_status WHERE worker = 'maintenance' AND state <> 'stopped'") // '';
}

# Waits until launcher and worker are there.
sub await_workers
{
	my ($session, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return wait_until($session, <<'EOC', $name);
SELECT count(*) = 2 FROM worker_status w JOIN pg_stat_activity a ON a.pid = w.pid
WHERE w.state IN ('running', 'waiting') AND a.backend_type = 'pgtopic ' || w.worker
EOC
}

# SQL for where the statistics of complete segments are not what the storage of a topic has; '' if they agree,
# and all are there.  Where messages have been deleted the timestamps are bounds.
sub recount_statistics
{
	my ($topic, $id) = @_;
	return <<"EOC";
WITH batches AS (
    SELECT s.partition, s.from_offset, s.to_offset, b.last_offset - b.base_offset + 1 AS messages,
           (SELECT min(t) FROM unnest(COALESCE(b.timestamps, ARRAY[b."timestamp"])) t) AS oldest,
           (SELECT max(t) FROM unnest(COALESCE(b.timestamps, ARRAY[b."timestamp"])) t) AS newest
    FROM segment_status s JOIN pgtopic.partition p ON p.topic_id = $id AND p.partition = s.partition AND s.to_offset <= p.high_watermark
    LEFT JOIN pgtopic.t$id b ON b.tableoid = s.segment::oid
    WHERE s.topic = '$topic'
), counted AS (
    SELECT partition, from_offset, to_offset, COALESCE(sum(messages), 0) AS messages, count(messages) AS batches, min(oldest) AS oldest, max(newest) AS newest
    FROM batches GROUP BY 1, 2, 3
)
SELECT COALESCE(string_agg(concat_ws(' ', 'partition', COALESCE(c.partition, s.partition), 'segment', COALESCE(c.from_offset, s.from_offset)), ', '), '')
FROM counted c FULL JOIN (SELECT * FROM pgtopic.segment_statistics WHERE topic_id = $id) s USING (partition, from_offset, to_offset)
WHERE c.messages IS DISTINCT FROM s.messages OR c.batches IS DISTINCT FROM s.batches
    OR c.oldest < s.min_timestamp OR c.newest > s.max_timestamp
    OR (c.from_offset >= (SELECT log_start_offset FROM pgtopic.partition p WHERE p.topic_id = $id AND p.partition = c.partition)
        AND (c.oldest, c.newest) IS DISTINCT FROM (s.min_timestamp, s.max_timestamp))
EOC
}

# The log of the server so far has nothing in it that nobody has asked for.
#   allow => [ patterns of lines that are expected ]
#   crash => 1: the test has crashed the server
#   length => bytes: of the log, from its beginning
sub log_is_clean
{
	my ($node, %param) = @_;
	my @allow = @{ $param{allow} // [] };
	my $worker = qr/\] pgtopic (launcher|maintenance) /;
	my @bad;

	# a fast shutdown, and pg_terminate_backend()
	push @allow, qr/FATAL:  terminating background worker "pgtopic \w+" due to administrator command/;
	push @allow, qr/terminated by signal|terminating connection (because of crash|due to unexpected postmaster exit)|unexpected pageaddr/
	  if $param{crash};
	my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
	$log = substr($log, 0, $param{length}) if $param{length};
	for my $line (split /\n/, $log)
	{
		next
		  unless $line =~ /PANIC:|TRAP:|terminated by signal|\bleak\b|segfault|could not (open|read|access) file/
		  || $line =~ /WARNING:.*(reference|refcount|snapshot|still (active|open)|not closed)/
		  || $line =~ /$worker.*(ERROR|FATAL|PANIC|WARNING):/
		  || $line =~ /pgtopic.*\bfailed\b/
		  || $line =~ /(server|background worker) process .*(exited with|was terminated)/
		  || $line =~ /XX\d\d\d|cache lookup failed|unexpected/;
		next if grep { $line =~ $_ } @allow;
		push @bad, $line;
	}
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	@bad = (@bad[ 0 .. 19 ], '...') if @bad > 20;
	return ok(!@bad, ($param{name} // 'log of ' . $node->name . ' is clean'))
	  || diag(join("\n", @bad));
}

#-----------------------------------------------------------------------
# A session of psql that goes on after errors, can have a statement under way,
# and tells SQLSTATEs.
package PgtopicTest::Session;

use strict;
use warnings;

use IPC::Run;
use Time::HiRes qw(time usleep);

sub new
{
	my ($class, $node, $dbname, %param) = @_;
	my $self = bless {
		node => $node,
		in => '',
		out => '',
		err => '',
		count => 0,
		error => '',
		user => $param{user},
	}, $class;
	my $connstr = $node->connstr($dbname);

	$connstr .= " user=$param{user}" if $param{user};
	$connstr .= " application_name=$param{name}" if $param{name};
	# psql may meet a server that is just coming up or going down
	$self->{run} = IPC::Run::start(
		[ $node->installed_command('psql'), '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $connstr, '-f', '-' ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err});
	unless ($param{may_fail})
	{
		$self->pid or die "cannot connect: $self->{error}\n";
	}
	return $self;
}

# Sends a statement, or several, without waiting for the result.
sub send
{
	my ($self, $sql) = @_;
	my $end = 'end of statement ' . ++$self->{count};

	$self->{error} = '';
	$self->{in} .= "$sql\n;\n\\echo $end\n\\warn $end\n";
	$self->_pump(0);
	return;
}

# Waits for what was sent; returns what it has printed, or undef after an error.
sub result
{
	my ($self) = @_;
	my $end = "end of statement $self->{count}\n";
	my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;

	until ($self->{out} =~ /^\Q$end\E\z/m && $self->{err} =~ /^\Q$end\E\z/m)
	{
		if (!$self->_pump(1))
		{
			# the session is gone
			$self->{error} = _tidy($self->{err});
			$self->{error} = "connection lost" if $self->{error} eq '';
			$self->{lost} = 1;
			return undef;
		}
		die "timed out waiting for a statement; so far: $self->{out} $self->{err}\n"
		  if time() > $deadline;
	}
	my ($out, $err) = ($self->{out}, $self->{err});
	$self->{out} = $self->{err} = '';
	s/^\Q$end\E\z//m for $out, $err;
	chomp($out);
	$self->{notices} = _tidy($err);
	$self->{error} = $err =~ /(?:ERROR|FATAL|PANIC):  |server closed the connection|connection to server was lost/ ? $self->{notices} : '';
	return $self->{error} eq '' ? $out : undef;
}

# Whether what was sent has ended.
sub is_done
{
	my ($self) = @_;
	my $end = "end of statement $self->{count}\n";
	$self->_pump(0);
	return $self->{out} =~ /^\Q$end\E\z/m ? 1 : 0;
}

sub query
{
	my ($self, $sql) = @_;
	return undef if $self->{lost};
	$self->send($sql);
	return $self->result;
}

# The same, but an error ends the test script.
sub query_ok
{
	my ($self, $sql) = @_;
	my $result = $self->query($sql);
	die "$self->{error}\nin: $sql\n" if !defined $result;
	return $result;
}

# Of the last statement: message with detail and hint; '' if there was none.
sub error { return $_[0]->{error}; }

# What it has warned and noted, and the error.
sub notices { return $_[0]->{notices}; }

sub sqlstate
{
	my ($self) = @_;
	return $self->{error} =~ /(?:ERROR|FATAL|PANIC):  ([0-9A-Z]{5}):/ ? $1 : '00000';
}

sub pid
{
	my ($self) = @_;
	$self->{pid} //= $self->query('SELECT pg_backend_pid()');
	return $self->{pid};
}

sub quit
{
	my ($self) = @_;
	return if !$self->{run};
	if (!$self->{lost})
	{
		$self->{in} .= "\\q\n";
	}
	# it may be in the middle of a statement, and the server gone
	eval {
		my $deadline = time() + 10;
		1 while time() < $deadline && $self->_pump(1);
		$self->{run}->kill_kill(grace => 1) if $self->{run}->pumpable;
		$self->{run}->finish;
	};
	delete $self->{run};
	$self->{lost} = 1;
	return;
}

# psql dies, and leaves its backend to find out.
sub abandon
{
	my ($self) = @_;
	eval { $self->{run}->kill_kill(grace => 0); };
	delete $self->{run};
	$self->{lost} = 1;
	return;
}

# Moves data, after a moment if told to wait; false if psql has ended.
sub _pump
{
	my ($self, $wait) = @_;
	return 0 if !$self->{run};
	return eval {
		return 0 if !$self->{run}->pumpable;
		$self->{run}->pump_nb;
		usleep(500) if $wait;
		1;
	} ? 1 : 0;
}

sub _tidy
{
	my ($text) = @_;
	$text =~ s/^psql:<stdin>:\d+: //mg;
	$text =~ s/^LOCATION:  .*\n//mg;
	chomp($text);
	return $text;
}

sub DESTROY
{
	my ($self) = @_;
	local ($@, $?, $!);
	$self->abandon if $self->{run};
	return;
}

1;
