#!/usr/bin/perl
# check.pl [--no-minimum] [--server-log FILE]... FOLDER
#
# Reads the histories (*.hist) in FOLDER, judges them, and prints TAP with the
# counts and up to five examples of each anomaly as comments.  README.md
# describes the histories and the anomalies, and which rules are others in a cluster.
# --no-minimum  does not ask whether the run did enough to mean anything
# --server-log  also looks for crashes in a server's log
use strict;
use warnings;
use Getopt::Long;

my ($no_minimum, @server_logs);
GetOptions('no-minimum' => \$no_minimum, 'server-log=s' => \@server_logs) && @ARGV == 1
  or die "usage: check.pl [--no-minimum] [--server-log FILE]... FOLDER\n";
my ($dir) = @ARGV;

# In the order of the report.
my @kinds = (
	[ 'lost-write', 'every acknowledged message is in the log' ],
	[ 'aborted-read', 'nothing rolled back is in the log, in effects, or was read' ],
	[ 'duplicate', 'no message is twice in the log' ],
	[ 'duplicate-effect', 'no group consumed a message twice, unless its first COMMIT was in doubt' ],
	[ 'torn-transaction', 'a transaction whose outcome is unknown happened wholly or not at all' ],
	[ 'inconsistent-offsets', 'a message is where produce said, and an offset shows one message only' ],
	[ 'nonmonotonic-send', 'messages of a producer are in order in each partition' ],
	[ 'nonmonotonic-poll', 'offsets only grow within a read, and from one to the next' ],
	[ 'poll-skip', 'no read left out a message' ],
	[ 'precommitted-read', 'no message was read before its transaction was to commit' ],
	[ 'vanished', 'what was read once is in the log' ],
	[ 'unseen', 'groups and fetchers have read all there is' ],
	[ 'effect-mismatch', 'effects are those of the transactions that consumed, and of no others' ],
	[ 'phantom', 'every message was sent by somebody' ],
	[ 'corrupt', 'messages are read as they were written' ],
	[ 'replica-mismatch', 'all replicas have what the log has' ],
	[ 'watermark', 'in the end the high watermark is the log end offset, beyond the last message' ],
	[ 'unavailable', 'partitions take messages again soon after a fault is over' ],
	[ 'stuck', 'every statement was answered, and the server always came back' ],
	[ 'unexpected-error', 'there are no errors but those that were to be expected' ],
	[ 'server-crash', 'the server crashed only when it was killed' ],
);
my %anomalies;

sub anomaly
{
	my ($kind, $text) = @_;
	$anomalies{$kind}{count}++;
	push @{ $anomalies{$kind}{examples} }, $text if $anomalies{$kind}{count} <= 5;
	return;
}

# What the histories say.
my %txn;        # id => { state, commit => time, calls => { n => call } }
my %sender;     # message id => its call
my @seen;       # [ time, process, topic/partition, from, [offset, id]... ]
my @selected;   # [ time, process, topic/partition, started, from, to, direction, [offset, id]... ]
my @polls;      # [ time, txn, call, group, topic/partition, [offset, id]... ]
my @effects;    # [ group, topic/partition, offset, id, txn ], in their order
my %log;        # topic/partition => { offsets => [], ids => [] }
my %bounds;     # topic/partition => [ start, high watermark, end ]
my %tails;      # process => { topic/partition => 1 }
my (%faults, %errors, %count);
my ($last_fault, $complete) = (0, 0);
my $brokers = 1;
my %copies;     # topic/partition => { broker => [ offset=id... ] }
my @faults;     # [ begin, end or undef, kind ]
my %acked;      # topic/partition => [ time... ] when its messages were acknowledged

# Partitions that take nothing for this long after the last fault are an anomaly, in s;
# gaps between acknowledgements that are longer than the second one are reported.
my ($GRACE, $WINDOW) = (60, 1);

sub txn
{
	my ($id) = @_;
	return $txn{$id} ||= { id => $id, state => '', calls => {} };
}

sub call
{
	my ($txn, $n) = @_;
	return $txn->{calls}{$n} ||= { txn => $txn, n => $n, ids => [], ranges => [] };
}

my %on = (
	cluster => sub { $brokers = $_[2]; },
	begin => sub { @{ txn($_[2]) }{qw(mode broker begin)} = ($_[3], $_[4], $_[0]); },
	commit => sub { txn($_[2])->{commit} //= $_[0]; },
	restart => sub { $count{'restarts before the final read'}++; },
	hold => sub { $count{'transactions held open'}++; },
	ok => sub { @{ txn($_[2]) }{qw(state end warned)} = ('ok', $_[0], $_[3]); },
	fail => sub { txn($_[2])->{state} = 'fail'; txn($_[2])->{chosen} = 1 if $_[3]; },
	info => sub { @{ txn($_[2]) }{qw(state refused)} = ('info', $_[3]); },
	retried => sub { $count{'numbered transactions that were tried again'}++; $count{'numbered transactions: attempts again'} += $_[3] - 1; },
	warning => sub { $errors{"warning $_[2]"}++; },
	timeout => sub { $errors{'no answer in time'}++; },
	copy => sub {
		my (undef, undef, $broker, $topic, $partition, @messages) = @_;
		$copies{"$topic/$partition"}{$broker} = \@messages;
	},
	invoke => sub {
		my (undef, undef, $txn, $n, $topic, @ids) = @_;
		my $call = call(txn($txn), $n);
		$call->{topic} = $topic;
		$call->{ids} = \@ids;
		for my $id (@ids)
		{
			anomaly('phantom', "$id was sent twice: the workload is wrong") if $sender{$id};
			$sender{$id} = $call;
		}
	},
	sent => sub {
		my (undef, undef, $txn, $n, $topic, $partition, $first, $last) = @_;
		push @{ call(txn($txn), $n)->{ranges} }, [ "$topic/$partition", $first, $last ];
	},
	undo => sub {
		my (undef, undef, $txn, $from, $to) = @_;
		call(txn($txn), $_)->{undone} = 1 for $from .. $to;
	},
	poll => sub {
		my ($time, undef, $txn, $n, $group, $topic, $partition, @messages) = @_;
		push @polls, [ $time, $txn, $n, $group, "$topic/$partition", @messages ];
	},
	seen => sub {
		my ($time, $process, $topic, $partition, $from, @messages) = @_;
		push @seen, [ $time, $process, "$topic/$partition", $from, @messages ];
	},
	selected => sub {
		my ($time, $process, $topic, $partition, @rest) = @_;
		push @selected, [ $time, $process, "$topic/$partition", @rest ];
	},
	tail => sub { $tails{ $_[1] }{"$_[2]/$_[3]"} = 1; },
	log => sub {
		my (undef, undef, $topic, $partition, @messages) = @_;
		my $log = $log{"$topic/$partition"} ||= { offsets => [], ids => [] };
		for (@messages)
		{
			my ($offset, $id) = split /=/, $_, 2;
			push @{ $log->{offsets} }, $offset;
			push @{ $log->{ids} }, $id;
		}
	},
	effect => sub {
		my (undef, undef, $group, $topic, $partition, $offset, $id, $txn, $led) = @_;
		push @effects, [ $group, "$topic/$partition", $offset, $id, $txn, $led // '' ];
	},
	bounds => sub { $bounds{"$_[2]/$_[3]"} = [ @_[ 4 .. 6 ] ]; },
	complete => sub { $complete = 1; },
	fault => sub {
		$faults{ $_[2] }++;
		$last_fault = $_[0] if $_[0] > $last_fault;
		push @faults, [ $_[0], undef, $_[2] ];
	},
	healed => sub {
		$last_fault = $_[0] if $_[0] > $last_fault;
		$faults[-1][1] //= $_[0] if @faults;
	},
	corrupt => sub { anomaly('corrupt', "$_[1]: $_[2]/$_[3] offset $_[4]: $_[5]"); },
	stuck => sub { anomaly('stuck', "$_[1]: $_[2]"); },
	unexpected => sub { anomaly('unexpected-error', "$_[1]: $_[2] $_[3]"); },
	error => sub { $errors{ $_[2] }++; },
	disconnect => sub { $errors{'connection lost'}++; });

my @files = sort glob("$dir/*.hist");
die "no histories in $dir\n" unless @files;
for my $file (@files)
{
	open(my $fh, '<', $file) or die "$file: $!\n";
	while (my $line = <$fh>)
	{
		chomp $line;
		my ($time, $process, $event, @field) = split /\t/, $line, -1;
		my $handler = $on{ $event // '' } or die "$file:$.: what is this: $line\n";
		$handler->($time, $process, @field);
	}
	close $fh;
}

# A process that ended in the middle of a transaction leaves it unknown.
for my $txn (values %txn)
{
	$txn->{state} ||= defined $txn->{commit} ? 'info' : 'fail';
}

# committed, aborted or unknown.  With a warning, what other brokers were to do is not known.
sub fate
{
	my ($call) = @_;
	return 'aborted' if $call->{undone} || $call->{txn}{state} eq 'fail';
	return $call->{txn}{state} eq 'ok' && !$call->{txn}{warned} ? 'committed' : 'unknown';
}

# The same of what a transaction did in the database where it was.
sub fate_here
{
	my ($txn) = @_;
	return 'aborted' if $txn->{state} eq 'fail' || $txn->{refused};
	return $txn->{state} eq 'ok' ? 'committed' : 'unknown';
}

# The log: each message once, sent by somebody, each producer's in order.
my %where;      # message id => [ topic/partition, offset ]
my %shown;      # topic/partition => { offset => id }, by any reader

sub show
{
	my ($who, $tp, $offset, $id) = @_;
	my $before = $shown{$tp}{$offset};
	if (!defined $before)
	{
		$shown{$tp}{$offset} = $id;
	}
	elsif ($before ne $id)
	{
		anomaly('inconsistent-offsets', "$tp offset $offset is $before, but $id for $who");
	}
	return;
}

for my $tp (sort keys %log)
{
	my ($offsets, $ids) = @{ $log{$tp} }{qw(offsets ids)};
	my %last;
	for my $i (0 .. $#$offsets)
	{
		my ($offset, $id) = ($offsets->[$i], $ids->[$i]);
		anomaly('nonmonotonic-poll', "final read of $tp: offset $offset after $offsets->[$i - 1]")
		  if $i > 0 && $offset <= $offsets->[ $i - 1 ];
		anomaly('duplicate', "$id is in $where{$id}[0] at $where{$id}[1] and in $tp at $offset")
		  if $where{$id};
		$where{$id} ||= [ $tp, $offset ];
		show('the final read', $tp, $offset, $id);

		my $call = $sender{$id};
		if (!$call)
		{
			anomaly('phantom', "$id in $tp at $offset was never sent");
			next;
		}
		anomaly('aborted-read', "$id in $tp at $offset: transaction $call->{txn}{id} was rolled back")
		  if fate($call) eq 'aborted';
		my ($producer, $number) = split /:/, $id;
		# what was not acknowledged may, in a cluster, be committed when its client has long gone on
		anomaly('nonmonotonic-send', "$tp at $offset: $id after $producer:$last{$producer}")
		  if defined $last{$producer} && $number < $last{$producer} && ($brokers == 1 || fate($call) eq 'committed');
		$last{$producer} = $number if $brokers == 1 || $number > ($last{$producer} // 0);
	}
}

# What was sent: committed is there, and where the call said.
for my $txn (sort { $a->{id} cmp $b->{id} } values %txn)
{
	my (@there, @missing, %told);
	for my $call (map { $txn->{calls}{$_} } sort { $a <=> $b } keys %{ $txn->{calls} })
	{
		my $fate = fate($call);
		$count{"messages $fate"} += @{ $call->{ids} };
		$count{'messages of transactions rolled back on purpose'} += @{ $call->{ids} } if $txn->{chosen};
		$count{'messages rolled back to a savepoint'} += @{ $call->{ids} } if $call->{undone};
		if ($fate eq 'committed' && $txn->{end} > $last_fault)
		{
			$count{'messages committed after the last fault'} += @{ $call->{ids} };
		}
		next if $fate eq 'aborted';

		my (%found, $incomplete);
		for my $range (@{ $call->{ranges} })
		{
			push @{ $acked{ $range->[0] } }, $txn->{end} if $fate eq 'committed';
		}
		for my $id (@{ $call->{ids} })
		{
			if (!$where{$id})
			{
				push @missing, $id;
				$incomplete = 1;
				anomaly('lost-write', "$id of transaction $txn->{id} is not in the log") if $fate eq 'committed';
				next;
			}
			push @there, $id;
			my ($tp, $offset) = @{ $where{$id} };
			push @{ $found{$tp} }, [ $offset, $id ];
		}
		next unless @{ $call->{ranges} };
		for (@{ $call->{ranges} })
		{
			$told{ $_->[0] }{told} += $_->[2] - $_->[1] + 1;
			$told{ $_->[0] }{there} += @{ $found{ $_->[0] } // [] };
		}
		for my $range (@{ $call->{ranges} })
		{
			my ($tp, $first, $last) = @$range;
			my $at = $first;
			for (@{ delete $found{$tp} || [] })
			{
				my ($offset, $id) = @$_;
				anomaly('inconsistent-offsets', "$id is in $tp at $offset, not at $at as its producer was told")
				  if $offset != $at;
				$at = $offset + 1;
			}
			# if some are missing, that is said already
			anomaly('inconsistent-offsets', "call $call->{n} of $txn->{id} was to end at $last in $tp, not at " . ($at - 1))
			  if $at > $last + 1 || ($at <= $last && !$incomplete);
		}
		for my $tp (sort keys %found)
		{
			anomaly('inconsistent-offsets', "$_->[1] is in $tp, its producer was told otherwise") for @{ $found{$tp} };
		}
	}
	if ($brokers == 1)
	{
		anomaly('torn-transaction', "$txn->{id}: $there[0] is in the log, $missing[0] is not")
		  if $txn->{state} eq 'info' && @there && @missing;
	}
	else
	{
		# other brokers commit for themselves: what is in one partition is one transaction there
		for my $tp (sort keys %told)
		{
			my ($there, $told) = @{ $told{$tp} }{qw(there told)};
			anomaly('torn-transaction', "$txn->{id}: $there of $told messages are in $tp")
			  if $there > 0 && $there < $told && ($txn->{state} eq 'info' || $txn->{warned});
		}
	}
	$txn->{in_log} = @there;
	$txn->{not_in_log} = @missing;
}

# The index of the first message at or after an offset.
sub find
{
	my ($offsets, $offset) = @_;
	my ($low, $high) = (0, scalar @$offsets);
	while ($low < $high)
	{
		my $middle = ($low + $high) >> 1;
		if ($offsets->[$middle] < $offset) { $low = $middle + 1; }
		else { $high = $middle; }
	}
	return $low;
}

# A read that began at an offset: what it returned is the log's next messages.
sub check_read
{
	my ($who, $time, $tp, $from, @messages) = @_;
	my ($offsets, $ids) = @{ $log{$tp} ||= { offsets => [], ids => [] } }{qw(offsets ids)};
	my $next = find($offsets, $from);
	my $previous = $from - 1;
	for (@messages)
	{
		my ($offset, $id) = split /=/, $_, 2;
		if ($offset <= $previous)
		{
			anomaly('nonmonotonic-poll', "$who read $tp at $offset after $previous");
			next;
		}
		$previous = $offset;
		while ($next < @$offsets && $offsets->[$next] < $offset)
		{
			anomaly('poll-skip', "$who read on in $tp at $offset, without $ids->[$next] at $offsets->[$next]");
			$next++;
		}
		show($who, $tp, $offset, $id);
		my $call = $sender{$id};
		if (!$call)
		{
			anomaly('phantom', "$who read $id in $tp at $offset, which was never sent");
		}
		elsif (fate($call) eq 'aborted')
		{
			anomaly('aborted-read', "$who read $id in $tp at $offset: transaction $call->{txn}{id} was rolled back");
		}
		elsif (($call->{txn}{commit} // 0) > $time)
		{
			anomaly('precommitted-read', "$who read $id in $tp at $offset before COMMIT of $call->{txn}{id}");
		}
		if ($next < @$offsets && $offsets->[$next] == $offset)
		{
			$next++;
		}
		elsif ($call && fate($call) ne 'aborted')
		{
			anomaly('vanished', "$who read $id in $tp at $offset, where the log has nothing");
		}
	}
	return $previous + 1;
}

# Fetchers: each goes on where it stopped, and ends at the end.
my %next;
for (sort { $a->[0] <=> $b->[0] } @seen)
{
	my ($time, $process, $tp, $from, @messages) = @$_;
	my $next = $next{$process}{$tp} // 0;
	$count{'messages fetched'} += @messages;
	$count{fetches}++;
	if ($from > $next)
	{
		my $offsets = ($log{$tp} || { offsets => [] })->{offsets};
		my $skipped = $offsets->[ find($offsets, $next) ];
		anomaly('poll-skip', "$process went on in $tp at $from, without $skipped")
		  if defined $skipped && $skipped < $from;
	}
	my $end = check_read($process, $time, $tp, $from, @messages);
	$next{$process}{$tp} = $end if $end > $next;
}
for my $process (sort keys %tails)
{
	$count{'fetchers that saw messages'} += keys %{ $next{$process} || {} } ? 1 : 0;
	for my $tp (sort keys %{ $tails{$process} })
	{
		my ($offsets, $ids) = @{ $log{$tp} || next }{qw(offsets ids)};
		my $unseen = find($offsets, $next{$process}{$tp} // 0);
		anomaly('unseen', "$process never saw $ids->[$unseen] in $tp at $offsets->[$unseen]")
		  if $unseen < @$offsets;
	}
}

# A SELECT shows what is committed, with or without what is open before it: all that was acknowledged
# when it began, and nothing that is rolled back.  In a cluster a leader may show what it has alone, and what is
# lost with it.
sub check_select
{
	my ($time, $process, $tp, $started, $from, $to, $direction, @messages) = @_;
	my %there;
	my $previous = $direction eq 'asc' ? $from - 1 : $to;
	for (@messages)
	{
		my ($offset, $id) = split /=/, $_, 2;
		anomaly('nonmonotonic-poll', "$process selected $tp at $offset after $previous")
		  if $direction eq 'asc' ? $offset <= $previous || $offset >= $to : $offset >= $previous || $offset < $from;
		$previous = $offset;
		$there{$offset} = 1;
		my $call = $sender{$id};
		if (!$call)
		{
			anomaly('phantom', "$process selected $id in $tp at $offset, which was never sent");
		}
		elsif (fate($call) eq 'aborted')
		{
			anomaly('aborted-read', "$process selected $id in $tp at $offset: transaction $call->{txn}{id} was rolled back");
		}
		elsif (($call->{txn}{commit} // 0) > $time)
		{
			anomaly('precommitted-read', "$process selected $id in $tp at $offset before COMMIT of $call->{txn}{id}");
		}
		elsif ($brokers == 1)
		{
			show($process, $tp, $offset, $id);
			anomaly('vanished', "$process selected $id in $tp at $offset, where the log has nothing")
			  unless $where{$id} && $where{$id}[0] eq $tp && $where{$id}[1] == $offset;
		}
	}
	return if $brokers > 1;
	my ($offsets, $ids) = @{ $log{$tp} || return }{qw(offsets ids)};
	for (my $i = find($offsets, $from); $i < @$offsets && $offsets->[$i] < $to; $i++)
	{
		my $call = $sender{ $ids->[$i] } // next;
		anomaly('poll-skip', "$process selected $tp without $ids->[$i] at $offsets->[$i]")
		  if !$there{ $offsets->[$i] } && fate($call) eq 'committed' && $call->{txn}{end} < $started;
	}
	return;
}

for (@selected)
{
	check_select(@$_);
	$count{'messages selected'} += @$_ - 7;
	$count{selects}++;
}

# Consumers: what each transaction read, and what it left behind.
my %polled;     # transaction => { group, topic/partition, offset, id => 1 }
for (@polls)
{
	my ($time, $txn, $n, $group, $tp, @messages) = @$_;
	my ($first) = split /=/, $messages[0];
	check_read("$txn ($group)", $time, $tp, $first, @messages);
	my $call = call(txn($txn), $n);
	my $fate = fate($call);
	$count{"messages consumed, $fate"} += @messages;
	$count{polls}++;
	next if $fate eq 'aborted';
	$polled{$txn}{"$group $tp $_"}++ for @messages;
}

my (%consumed, %last, %groups);
for (@effects)
{
	my ($group, $tp, $offset, $id, $by, $led) = @$_;
	my $txn = $txn{$by};
	my $before = $last{$group}{$tp} // -1;

	$groups{$group}{ $tp =~ s{/.*}{}r } = 1;
	$txn->{effects}++ if $txn;
	if (my $others = $consumed{$group}{$id})
	{
		my $why = $brokers == 1 ? 'at one server' : why_not_twice($txn, $led, @$others);
		anomaly('duplicate-effect', "$group consumed $id in $tp at $offset in $by, and in "
			. join(', ', map { $_->[0]{id} } @$others) . ": $why") if defined $why;
		$count{'messages redelivered'}++;
	}
	elsif ($offset <= $before && $brokers == 1)
	{
		anomaly('nonmonotonic-poll', "$group consumed $tp at $offset after $before");
	}
	push @{ $consumed{$group}{$id} }, [ $txn // { id => $by, state => '' }, $led ];
	$last{$group}{$tp} = $offset if $offset > $before;
	show("$group in $by", $tp, $offset, $id);

	my $call = $sender{$id};
	if (!$call)
	{
		anomaly('phantom', "$group consumed $id in $tp at $offset, which was never sent");
	}
	elsif (fate($call) eq 'aborted')
	{
		anomaly('aborted-read', "$group consumed $id in $tp at $offset: transaction $call->{txn}{id} was rolled back");
	}
	elsif (!$where{$id})
	{
		anomaly('vanished', "$group consumed $id in $tp at $offset, which is not in the log");
	}

	if (!$txn || fate_here($txn) eq 'aborted')
	{
		anomaly('effect-mismatch', "$group consumed $id in $by, which did not commit");
		delete $polled{$by}{"$group $tp $offset=$id"} if $polled{$by};
	}
	elsif ($txn->{state} eq 'info' && !$polled{$by})
	{
		# autocommit without an answer: nothing to compare with
	}
	elsif (!$polled{$by}{"$group $tp $offset=$id"})
	{
		anomaly('effect-mismatch', "$group consumed $id at $offset in $by, where it was not returned");
	}
	elsif (!--$polled{$by}{"$group $tp $offset=$id"})
	{
		delete $polled{$by}{"$group $tp $offset=$id"};
	}
}

# In a cluster a message may be consumed again after a COMMIT of which it is not known
# whether it has moved the position, and only then: undef if that is so.
sub why_not_twice
{
	my ($txn, $led, @others) = @_;
	my @all = sort { ($a->[0]{begin} // 0) <=> ($b->[0]{begin} // 0) } [ $txn // {}, $led ], @others;
	my @clean = grep { ($_->[0]{state} // '') eq 'ok' && !$_->[0]{warned} } @all;

	return 'both were acknowledged' if @clean > 1;
	# a broker that led, and does not know that others do now, takes consumers whose COMMIT ends in doubt
	$count{'messages consumed again in doubt, after that was acknowledged'} +=
	  grep { @clean && ($_->[0]{begin} // 0) > $clean[0][0]{end} } @all;
	# position and effects are of one transaction where the broker leads the partition itself
	for my $i (1 .. $#all)
	{
		# a transaction in doubt may have got it here first, and then from who leads now, and not know
		return "both where broker $all[$i][1] leads the partition, in this epoch"
		  if $all[$i][1] ne ''
		  && grep { $_->[1] eq $all[$i][1] && !($_->[0] == $all[$i][0] && ($_->[0]{state} // '') eq 'info') } @all[ 0 .. $i - 1 ];
	}
	return undef;
}

for my $by (sort keys %polled)
{
	my $txn = $txn{$by};
	my ($one) = sort keys %{ $polled{$by} } or next;
	if (fate_here($txn) eq 'committed')
	{
		anomaly('effect-mismatch', "$by committed, without its effect: $one");
	}
	elsif ($txn->{effects} || ($txn->{in_log} && $brokers == 1))
	{
		anomaly('torn-transaction', "$by did something, but not: $one");
	}
}
for my $txn (values %txn)
{
	anomaly('torn-transaction', "$txn->{id}: effects, but no messages")
	  if $txn->{state} eq 'info' && $txn->{effects} && $txn->{not_in_log} && $brokers == 1;
}

# A group reads every topic that it has read from to the end.
for my $group (sort keys %groups)
{
	for my $topic (sort keys %{ $groups{$group} })
	{
		for my $tp (sort grep { m{^\Q$topic\E/} } keys %log)
		{
			my ($offsets, $ids) = @{ $log{$tp} }{qw(offsets ids)};
			for my $i (0 .. $#$offsets)
			{
				anomaly('unseen', "$group never consumed $ids->[$i] in $tp at $offsets->[$i]")
				  unless $consumed{$group}{ $ids->[$i] };
			}
		}
	}
	$count{"messages consumed by $group"} = keys %{ $consumed{$group} };
}

# Nobody writes any more, so nothing is open.
for my $tp (sort keys %bounds)
{
	my ($start, $watermark, $end) = @{ $bounds{$tp} };
	my $offsets = ($log{$tp} || { offsets => [] })->{offsets};
	anomaly('watermark', "$tp: the high watermark is $watermark, the log end offset $end") if $watermark != $end;
	anomaly('watermark', "$tp: a message at $offsets->[-1], but the log ends at $end")
	  if @$offsets && $offsets->[-1] >= $end;
}

# Every replica has the log, and nothing else below its end.
for my $tp (sort keys %copies)
{
	my ($offsets, $ids) = @{ $log{$tp} || { offsets => [], ids => [] } }{qw(offsets ids)};
	my %is = map { $offsets->[$_] => $ids->[$_] } 0 .. $#$offsets;
	my ($start, undef, $end) = @{ $bounds{$tp} // [ 0, 0, 0 ] };
	for my $broker (sort keys %{ $copies{$tp} })
	{
		my %has;
		for (@{ $copies{$tp}{$broker} })
		{
			my ($offset, $id) = split /=/, $_, 2;
			next if $offset < $start;
			anomaly('replica-mismatch', "broker $broker has two messages in $tp at $offset") if defined $has{$offset};
			$has{$offset} = $id;
			anomaly('replica-mismatch', "broker $broker has $id in $tp at $offset, not " . ($is{$offset} // 'nothing'))
			  if ($is{$offset} // '') ne $id && $offset < $end;
		}
		for my $offset (sort { $a <=> $b } grep { !defined $has{$_} } keys %is)
		{
			anomaly('replica-mismatch', "broker $broker has not $is{$offset} in $tp at $offset");
		}
		$count{'replicas compared'}++;
	}
}

# How long partitions took nothing: gaps between acknowledgements, from the first to the last.
my (%window, @all_windows);
for my $tp (sort keys %acked)
{
	my @times = sort { $a <=> $b } @{ $acked{$tp} };
	my @gaps = grep { $_ > $WINDOW } map { ($times[$_] - $times[ $_ - 1 ]) / 1e6 } 1 .. $#times;
	$window{$tp} = [ sort { $a <=> $b } @gaps ];
	push @all_windows, @gaps;
	next if $no_minimum || $brokers == 1;
	my ($after) = grep { $_ > $last_fault } @times;
	anomaly('unavailable', sprintf('%s took nothing for %.1f s after the last fault', $tp, ($after - $last_fault) / 1e6))
	  if defined $after && $after - $last_fault > $GRACE * 1e6;
}

for my $server_log (@server_logs)
{
	my $name = $server_log =~ s{.*/}{}r;
	open(my $fh, '<', $server_log) or die "$server_log: $!\n";
	chomp(my @lines = <$fh>);
	for my $number (0 .. $#lines)
	{
		local $_ = $lines[$number];
		anomaly('server-crash', $_)
		  if /\b(PANIC|TRAP|stack smashing|stuck spinlock)\b/ || (/terminated by signal (\d+)/ && $1 != 9)
			|| /could not (?:open|read|access).*pgtopic/;
		if ($brokers == 1)
		{
			anomaly('unexpected-error', $_) if /\bpgtopic (?:launcher|maintenance) .*\bERROR:/;
		}
		# log_line_prefix of run.sh: backend type, SQLSTATE
		elsif (my ($worker, $sqlstate, $what) = /\] (pgtopic \w+|logical replication \w+|walsender) (\w{5}) [^:]*((?:ERROR|FATAL|WARNING):  .*)/)
		{
			$errors{"log of $worker: $sqlstate"}++;
			anomaly('unexpected-error', "$name: $worker: $sqlstate $what")
			  if !log_line_expected($worker, $sqlstate, $what, join("\n", @lines[ $number + 1 .. ($number + 3 < $#lines ? $number + 3 : $#lines) ]));
		}
	}
}

# What workers of a cluster say when others are not there, or they are ended; and PostgreSQL's
# when a subscription is changed while its tables are being synchronised, or when such a
# synchronisation begins, and begins again; or when a leader has let go of followers that were
# copying from it.  A copy, and nothing else, may find a table that has grown beyond the segments that were
# made for it: it begins again.
sub log_line_expected
{
	my ($worker, $sqlstate, $what, $next) = @_;
	return $next =~ /CONTEXT:  COPY \Q$1\E, line/ if $what =~ /no partition of relation "(t\d+_p\d+)" found for row/;
	return 1 if $sqlstate =~ /^(?:08|57)/;      # connections, shutdowns
	return 1 if $sqlstate =~ /^(?:55006|55P03|40P01|40001|53000)$/;
	return $what =~ /terminating (?:logical replication|background) worker|terminating connection due to (?:unexpected postmaster exit|administrator command)|could not (?:connect to|receive data from|send data to)|replication slot ".*" (?:does not exist|is active)|publication "pgtopic_to_\d+(?:_positions)?" does not exist|could not send end-of-streaming|error reading result of streaming command|unexpected EOF|subscription table \d+ in subscription \d+ does not exist|cannot build an initial slot snapshot|replication origin with ID|timeout expired/;
}

$count{'transactions committed'} = grep { $_->{state} eq 'ok' } values %txn;
$count{'transactions rolled back'} = grep { $_->{state} eq 'fail' } values %txn;
$count{'transactions with an unknown outcome'} = grep { $_->{state} eq 'info' } values %txn;
$count{'unknown outcomes that happened'} =
  grep { $_->{state} eq 'info' && ($_->{in_log} || $_->{effects}) } values %txn;
my %operations;
my %role = (p => 'producers', n => 'numbered producers', c => 'consumers', x => 'pipes');
for my $txn (values %txn)
{
	my $role = $role{ substr($txn->{id}, 0, 1) } // next;
	my $how = $txn->{state} eq 'ok' ? ($txn->{warned} ? 'committed with a warning' : 'committed')
	  : $txn->{state} eq 'fail' ? ($txn->{chosen} ? 'rolled back on purpose' : 'failed') : 'in doubt';
	$operations{$role}{$how}++;
}
my $crashes = 0;
/kill-9|^immediate/ and $crashes += $faults{$_} for keys %faults;
$count{'crashes of the server'} = $crashes;

# Does the run mean anything?
my @too_little;
if (!$no_minimum)
{
	for ('messages committed', 'messages committed after the last fault', 'messages of transactions rolled back on purpose',
		'messages rolled back to a savepoint', 'messages consumed, committed', 'messages consumed, aborted',
		'messages fetched', 'messages selected', 'crashes of the server', 'messages consumed by g1', 'messages consumed by g2',
		'messages consumed by pipe', 'transactions held open')
	{
		push @too_little, "no $_" unless $count{$_};
	}
	push @too_little, 'the final read is not complete' unless $complete;
	push @too_little, "only " . ($count{'fetchers that saw messages'} // 0) . ' fetchers saw messages'
	  if ($count{'fetchers that saw messages'} // 0) < keys %tails;
	push @too_little, 'no fetchers' unless %tails;
}

if (!$no_minimum && $brokers > 1)
{
	for (keys %log)
	{
		push @too_little, "nothing acknowledged in $_" unless $acked{$_};
	}
	push @too_little, 'no numbered transaction' unless grep { ($_->{mode} // '') eq 'numbered' } values %txn;
	push @too_little, 'no replicas were compared' unless $count{'replicas compared'};
}

my ($tests, $failed) = (0, 0);
print "# $brokers brokers\n" if $brokers > 1;
for my $role (sort keys %operations)
{
	print "# transactions of $role: ", join(', ', map { "$operations{$role}{$_} $_" } sort keys %{ $operations{$role} }), "\n";
}
print "# $_: $count{$_}\n" for sort keys %count;
print "# fault: $_: $faults{$_}\n" for sort keys %faults;
print "# errors: $_: $errors{$_}\n" for sort keys %errors;
for my $tp (sort keys %window)
{
	my @gaps = @{ $window{$tp} } or next;
	printf "# unavailable: %s: %d times more than %d s, p50 %.1f s, max %.1f s\n", $tp, scalar @gaps, $WINDOW,
	  $gaps[ @gaps / 2 ], $gaps[-1];
}
if (my @gaps = sort { $a <=> $b } @all_windows)
{
	printf "# unavailable: all: %d times more than %d s, p50 %.1f s, max %.1f s\n", scalar @gaps, $WINDOW,
	  $gaps[ @gaps / 2 ], $gaps[-1];
}
for (@kinds)
{
	my ($kind, $text) = @$_;
	my $found = delete $anomalies{$kind};
	next if $kind eq 'server-crash' && !@server_logs;
	result(!$found, "$kind: $text");
	next unless $found;
	print "# $found->{count} × $kind\n";
	print "#   $_\n" for @{ $found->{examples} };
}
die join(' ', 'unknown anomaly:', keys %anomalies) . "\n" if %anomalies;
if (!$no_minimum)
{
	result(!@too_little, 'the run did enough to mean something');
	print "# $_\n" for @too_little;
}
print "1..$tests\n";
exit($failed ? 1 : 0);

sub result
{
	my ($ok, $name) = @_;
	$tests++;
	$failed++ unless $ok;
	print $ok ? '' : 'not ', "ok $tests - $name\n";
	return;
}
