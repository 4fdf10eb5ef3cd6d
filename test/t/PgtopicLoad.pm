# Load on a cluster by clients that know what they have been told: producers who
# note what was acknowledged, consumers and tails who note what they have got.
#
#	my $load = PgtopicLoad->new($cluster, topic => 't');
#	$load->producer('a', brokers => [ 1, 2 ]);
#	$load->consumer('c', group => 'g');
#	$load->tail('r', partition => 0);
#	... faults ...
#	$load->await_progress(50);
#	$load->stop;
#	$load->check;
#
# Each client is a process with one session.  After an error it goes on with the
# next of its brokers, and never tries the same messages again: whether those of
# the statement that failed are there is not known to it, but no message may be
# there twice.  Clients end when the test does.
package PgtopicLoad;

use strict;
use warnings;

use POSIX ();
use PgtopicTest ();
use PostgreSQL::Test::Utils;
use TcpProxy;
use Test::More;
use Time::HiRes qw(time usleep);

my $loads = 0;

sub new
{
	my ($class, $cluster, %param) = @_;
	my $self = bless {
		cluster => $cluster,
		topic => $param{topic} // die('no topic'),
		folder => PostgreSQL::Test::Utils::tempdir('load' . ++$loads),
		owner => $$,
		clients => {},
	}, $class;
	return $self;
}

# Statements of several kinds, with keys of its own: the messages of a key are
# numbered in the order in which they are produced.
#	brokers => [ whom it connects to, in turn after errors ]	(all)
#	keys => how many (5)		pause => ms after each statement (5)
#	settings => SQL at the start of each session, as "SET pgtopic.acks = leader"
sub producer
{
	my ($self, $name, %param) = @_;
	my $keys = $param{keys} // 5;
	my $topic = $self->{topic};
	my @next = (1) x $keys;
	my $turn = 0;

	return $self->_start($name, 'producer', \%param, sub {
		my ($session, $note) = @_;
		my $kind = $turn++ % 6;
		my (@messages, $sql);
		my $take = sub { my ($key) = @_; push @messages, [ $key, $next[$key]++ ]; return "$name:$key:$messages[-1][1]"; };

		# numbers are taken before it is known how it ends: they are never used twice
		if ($kind < 3)
		{
			my $key = ($turn * 7 + $kind) % $keys;
			my $value = $take->($key);
			my $headers = $kind == 1 ? ", headers => '{\"of\": \"$name\", \"n\": $turn}'" : '';
			my $timestamp = $kind == 2 ? ", \"timestamp\" => clock_timestamp() - interval '$turn ms'" : '';
			$sql = "SELECT FROM produce('$topic', '$value', key => '$name:$key'$headers$timestamp)";
		}
		elsif ($kind == 3 || $kind == 4)
		{
			# several partitions in one call, several messages of a key
			my @of = map { $_ % $keys } $turn .. $turn + ($kind == 3 ? 9 : 39);
			my @values = map { $take->($_) } @of;
			$sql = "SELECT FROM produce_batch('$topic', ARRAY[" . join(', ', map { "'$_'" } @values)
			  . '], keys => ARRAY[' . join(', ', map { "'$name:$_'" } @of) . '])';
		}
		else
		{
			my @of = map { $_ % $keys } $turn, $turn + 1, $turn;
			$sql = "BEGIN;\n" . join('', map { "SELECT FROM produce('$topic', '" . $take->($_) . "', key => '$name:$_');\n" } @of) . 'COMMIT';
		}
		my $good = defined $session->query($sql);
		$note->(($good ? 'ack' : 'doubt') . ' ' . join(' ', map { "$name:$_->[0]:$_->[1]" } @messages));
		return $good;
	});
}

# A consumer of a group, which notes what it has got before it commits: so it may
# have got something twice if it fails, and has everything.
#	group => its group		brokers, settings, pause as for a producer
sub consumer
{
	my ($self, $name, %param) = @_;
	my $group = $param{group} // die 'no group';

	return $self->_start($name, 'consumer', \%param, sub {
		my ($session, $note) = @_;
		my $got = $session->query("BEGIN;\nSELECT partition || ' ' || log_offset || ' ' || coalesce(value, '') FROM consume('$self->{topic}', '$group', 100, max_wait => '100 ms')") // return 0;
		my @got = split /\n/, $got;
		$note->(map { "got $_" } @got) if @got;
		my $good = defined $session->query('COMMIT');
		$note->(($good ? 'committed ' : 'doubt ') . @got) if @got || !$good;
		return $good;
	});
}

# Follows a partition from where it begins, on whichever broker.
#	partition => (0)		brokers, settings, pause
sub tail
{
	my ($self, $name, %param) = @_;
	my $partition = $param{partition} // 0;
	my $next = $param{from} // 0;

	return $self->_start($name, 'tail', \%param, sub {
		my ($session, $note) = @_;
		my $got = $session->query("SELECT log_offset || ' ' || coalesce(value, '') FROM fetch_messages('$self->{topic}', $partition, $next, 200, max_wait => '100 ms')") // return 0;
		for (split /\n/, $got)
		{
			$note->("got $partition $_");
			/^(\d+)/;
			$next = $1 + 1;
		}
		return 1;
	});
}

# Starts a process that does a step again and again.
sub _start
{
	my ($self, $name, $kind, $param, $step) = @_;
	my @brokers = @{ $param->{brokers} // [ $self->{cluster}->numbers ] };
	my $file = "$self->{folder}/$name";

	die "there is a $name already" if $self->{clients}{$name};
	pipe(my $read, my $write) or die "pipe: $!";
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		# what the test has defined for its own end is not for this process
		delete @SIG{qw(__DIE__ __WARN__ ALRM)};
		# nor are its files: those who wait for their ends would wait for us
		my $good = eval { TcpProxy::let_go($read); $self->_run($read, $file, \@brokers, $param, $step); 1; };
		if (!$good && open(my $fh, '>>', "$file.died")) { print $fh $@; close $fh; }
		POSIX::_exit($good ? 0 : 1);
	}
	close $read;
	$self->{clients}{$name} = { pid => $pid, kind => $kind, stop => $write, file => $file, param => $param };
	return;
}

sub _run
{
	my ($self, $until, $file, $brokers, $param, $step) = @_;
	my ($session, $turn) = (undef, 0);

	open(my $notes, '>', $file) or die "$file: $!";
	open(my $errors, '>', "$file.errors") or die "$file.errors: $!";
	open(my $times, '>', "$file.times") or die "$file.times: $!";
	$_->autoflush(1) for $notes, $errors, $times;
	my $note = sub { print $notes map { "$_\n" } @_ or die "$file: $!"; };

	# The parent writes nothing: the pipe ends when it tells us to, or ends.
	while (1)
	{
		my $in = '';
		vec($in, fileno($until), 1) = 1;
		last if select($in, undef, undef, ($param->{pause} // 5) / 1000) > 0;

		my $broker = $brokers->[ $turn % @$brokers ];
		if (!$session)
		{
			$session = eval { $self->{cluster}->session($broker, undef, name => 'load') };
			if ($session && $param->{settings} && !defined $session->query($param->{settings}))
			{
				die "$param->{settings}: " . $session->error unless $session->{lost};
			}
		}
		if (!$session || $session->{lost})
		{
			print $errors time() . " broker $broker: no connection\n";
		}
		else
		{
			if ($step->($session, $note))
			{
				print $times time() . "\n" or die "$file.times: $!";
				next;
			}
			(my $error = $session->error) =~ s/\n/ /g;
			print $errors time() . " broker $broker: $error\n";
			# in the middle of a transaction, maybe
			$session->quit;
		}
		$session = undef;
		$turn++;
		usleep(50_000);
	}
	$session->quit if $session;
	return;
}

# Lines of a client's notes, those that were written to their end.
sub notes
{
	my ($self, $name) = @_;
	my $file = $self->{clients}{$name}{file};
	return () if !-e $file;
	my $text = PostgreSQL::Test::Utils::slurp_file($file);
	$text =~ s/[^\n]+\z//;
	return split /\n/, $text;
}

sub names
{
	my ($self, $kind) = @_;
	return grep { !defined $kind || $self->{clients}{$_}{kind} eq $kind } sort keys %{ $self->{clients} };
}

# How many statements of producers were acknowledged, batches of a consumer
# committed, or messages read: for each client.
sub progress
{
	my ($self, $name) = @_;
	return scalar(grep { /^ack / || /^committed / || ($self->{clients}{$name}{kind} eq 'tail' && /^got /) } $self->notes($name));
}

# Waits until each client (or each of those named) has had that many successes
# from now on.  Dies if it has not.
sub await_progress
{
	my ($self, $count, @names) = @_;
	my $end = time() + $PostgreSQL::Test::Utils::timeout_default;
	@names = $self->names unless @names;
	my %wanted = map { $_ => $self->progress($_) + $count } @names;

	while (my @behind = grep { $self->progress($_) < $wanted{$_} } @names)
	{
		for (@behind)
		{
			next if !-e "$self->{clients}{$_}{file}.died";
			$self->{cluster}->diagnose;
			die "$_ has died: " . PostgreSQL::Test::Utils::slurp_file("$self->{clients}{$_}{file}.died");
		}
		if (time() > $end)
		{
			$self->{cluster}->diagnose;
			die "no progress: @behind; last errors:\n" . join('', map { $self->errors($_, 3) } @behind);
		}
		usleep(20_000);
	}
	return;
}

# The last errors of a client, as text.
sub errors
{
	my ($self, $name, $count) = @_;
	my $file = "$self->{clients}{$name}{file}.errors";
	my @lines = -e $file ? split /\n/, PostgreSQL::Test::Utils::slurp_file($file) : ();
	@lines = @lines[ -$count .. -1 ] if defined $count && @lines > $count;
	return join('', map { "$name: $_\n" } @lines);
}

# The errors of a client since a time: "broker SQLSTATE message" each; the SQLSTATE of a
# connection that was lost, or could not be made, is 08006.
sub failures
{
	my ($self, $name, $since) = @_;
	my @failures;

	for (split /\n/, $self->errors($name))
	{
		my ($time, $broker, $error) = /^\Q$name\E: ([0-9.]+) broker (\d+): (.*)/ or next;
		next if $time < $since;
		push @failures, "$broker " . ($error =~ /(?:ERROR|FATAL):  ([0-9A-Z]{5}):/ ? $1 : '08006') . " $error";
	}
	return @failures;
}

# The longest time, in seconds, between two successes of a client since a time.
sub longest_gap
{
	my ($self, $name, $since) = @_;
	my ($last, $longest) = ($since, 0);

	for my $time (split /\n/, PostgreSQL::Test::Utils::slurp_file("$self->{clients}{$name}{file}.times"))
	{
		next if $time !~ /^[0-9.]+\z/ || $time < $since;
		$longest = $time - $last if $time - $last > $longest;
		$last = $time;
	}
	my $now = time() - $last;
	return $now > $longest ? $now : $longest;
}

# Ends clients (all, or those named), each after the statement that it is at.
sub stop
{
	my ($self, @names) = @_;
	@names = $self->names unless @names;
	my $end = time() + $PostgreSQL::Test::Utils::timeout_default;
	my @stuck;

	for my $name (@names)
	{
		close $self->{clients}{$name}{stop} if $self->{clients}{$name}{stop};
		delete $self->{clients}{$name}{stop};
	}
	for my $name (@names)
	{
		my $client = $self->{clients}{$name};
		next if !$client->{pid};
		while (waitpid($client->{pid}, POSIX::WNOHANG()) == 0)
		{
			if (time() > $end)
			{
				kill('KILL', $client->{pid});
				waitpid($client->{pid}, 0);
				push @stuck, $name;
				last;
			}
			usleep(10_000);
		}
		delete $client->{pid};
		die "$name has died: " . PostgreSQL::Test::Utils::slurp_file("$client->{file}.died") if -e "$client->{file}.died";
	}
	die "these did not end: @stuck" if @stuck;
	return;
}

# Lets the groups of consumers read the rest, so that check() can expect all of it.
sub drain
{
	my ($self, $broker) = @_;
	($broker) = $self->{cluster}->running if !defined $broker;
	my %groups = map { $self->{clients}{$_}{param}{group} => 1 } $self->names('consumer');

	for my $group (sort keys %groups)
	{
		my $session = $self->{cluster}->session($broker);
		# consume() may find one partition empty while another one is not
		my $empty = 0;
		while ($empty < 2)
		{
			my @got = split /\n/, $session->query_ok("SELECT partition || ' ' || log_offset || ' ' || coalesce(value, '') FROM consume('$self->{topic}', '$group', 10000, max_wait => '200 ms')");
			push @{ $self->{drained}{$group} }, @got;
			$empty = @got ? 0 : $empty + 1;
		}
		$session->quit;
	}
	return;
}

# What is wrong, as lines, after stop().  What is in the tables of the partitions'
# leaders counts, or, with number => n, in those of broker n.
#	exactly_once => 1: consumers had no errors, so that they have got nothing twice
sub problems
{
	my ($self, %param) = @_;
	my (%at, %count, %order, %acknowledged, %doubt, @problems);
	my $complain = sub {
		my ($what, @which) = @_;
		return if !@which;
		my $count = @which;
		@which = (@which[ 0 .. 9 ], '...') if $count > 10;
		push @problems, "$what: $count: @which";
	};
	my %mine = map { $_ => 1 } $self->names('producer');
	my $messages = $self->{cluster}->messages($self->{topic}, $param{number});

	for my $message (@$messages)
	{
		my ($partition, $offset, $key, $value) = @$message;
		$complain->('two messages have one offset', "$partition $offset") if exists $at{"$partition $offset"};
		$at{"$partition $offset"} = $value // '';
		next unless defined $value && $value =~ /^([^:]+):(\d+):(\d+)$/ && $mine{$1};
		$complain->('a message has the wrong key', "$value: " . ($key // 'NULL')) if ($key // '') ne "$1:$2";
		$count{$value}++;
		push @{ $order{"$1:$2"} }, [ $partition, $3, $value ];
	}
	for my $name ($self->names('producer'))
	{
		for ($self->notes($name))
		{
			my ($what, @values) = split / /;
			if ($what eq 'ack') { @acknowledged{@values} = (1) x @values; }
			else { @doubt{@values} = (1) x @values; }
		}
	}
	$complain->('nothing was acknowledged', 'no message') if !%acknowledged && %mine;
	$complain->('acknowledged messages are lost', sort grep { !$count{$_} } keys %acknowledged);
	$complain->('messages are there twice', sort grep { $count{$_} > 1 } keys %count);
	$complain->('messages are there that nobody has sent', sort grep { !$acknowledged{$_} && !$doubt{$_} } keys %count);
	# whatever was not acknowledged may have come to be committed later
	for my $key (sort keys %order)
	{
		my %last;
		for (grep { $acknowledged{ $_->[2] } } @{ $order{$key} })
		{
			my ($partition, $number, $value) = @$_;
			$complain->('the order of a key is not kept', "$value after $key:$last{$partition}") if $number <= ($last{$partition} // 0);
			$last{$partition} = $number;
		}
		$complain->('a key is in several partitions', "$key in " . join(' and ', sort keys %last)) if keys %last > 1 && !$param{keys_move};
	}

	# what anybody has got is what is there, and readers have skipped nothing
	for my $name ($self->names('tail'))
	{
		my $last;
		my $partition = $self->{clients}{$name}{param}{partition} // 0;
		my %got;
		for (grep { /^got / } $self->notes($name))
		{
			my (undef, undef, $offset, $value) = split / /, $_, 4;
			$complain->("$name has read something that is not there", "$partition $offset $value")
			  if !exists $at{"$partition $offset"} || $at{"$partition $offset"} ne $value;
			$complain->("$name has read offset $offset after", $last) if defined $last && $offset <= $last;
			$last = $offset;
			$got{$offset} = 1;
		}
		my $from = $self->{clients}{$name}{param}{from} // 0;
		$complain->("$name has skipped", sort grep {
			/^$partition (\d+)$/ && $1 >= $from && $1 <= ($last // -1) && !$got{$1}
		} keys %at);
		$complain->("$name has read", 'nothing') if !defined $last;
	}
	my %groups;
	for my $name ($self->names('consumer'))
	{
		my $group = $self->{clients}{$name}{param}{group};
		push @{ $groups{$group} }, map { /^got (.*)$/ ? $1 : () } $self->notes($name);
	}
	for my $group (sort keys %groups)
	{
		my %got;
		for (@{ $groups{$group} }, @{ $self->{drained}{$group} // [] })
		{
			my ($partition, $offset, $value) = split / /, $_, 3;
			$complain->("group $group has got something that is not there", $_)
			  if !exists $at{"$partition $offset"} || $at{"$partition $offset"} ne $value;
			$got{"$partition $offset"}++;
		}
		$complain->("group $group has not got", sort grep { !$got{$_} } keys %at) if $self->{drained};
		$complain->("group $group has got twice", sort grep { $got{$_} > 1 } keys %got) if $param{exactly_once};
		$complain->("group $group has got", 'nothing') if !%got;
	}
	return @problems;
}

# A test: no problems().
sub check
{
	my ($self, $name, %param) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($acknowledged, $doubt) = (0, 0);
	for my $producer ($self->names('producer'))
	{
		for ($self->notes($producer))
		{
			my $count = () = / /g;
			if (/^ack /) { $acknowledged += $count; }
			else { $doubt += $count; }
		}
	}
	note "$acknowledged messages are acknowledged, $doubt in doubt";
	my @problems = $self->problems(%param);
	my $good = is(join("\n", @problems[ 0 .. ($#problems < 19 ? $#problems : 19) ]), '',
		$name // 'acknowledged messages are there once, in order, as they were read');
	if (!$good)
	{
		note "$self->{folder} has the clients' notes";
		diag($self->errors($_, 3)) for $self->names;
	}
	return $good;
}

sub DESTROY
{
	my ($self) = @_;
	return if $self->{owner} != $$;
	local ($@, $?, $!);
	for my $client (values %{ $self->{clients} })
	{
		next if !$client->{pid};
		kill('KILL', $client->{pid});
		waitpid($client->{pid}, 0);
	}
	return;
}

1;
