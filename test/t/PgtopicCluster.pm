# Clusters of brokers for TAP tests.
#
#	my $cluster = PgtopicCluster->new(brokers => 3, proxies => 1, conf => ...);
#	$cluster->create;
#	$cluster->session(2)->query_ok(...);
#	$cluster->cut(1, 2);
#
# Brokers are numbered from 1, like those of pgtopic.  Each is a node of
# PostgreSQL::Test::Cluster of its own, which listens on 127.0.0.1 for its peers,
# who have to give a password; tests go through its socket as superuser.
#
# What a broker's server connects to by "service=broker3" is said by a service file
# of its own (PGSERVICEFILE in the postmaster's environment): broker 3 itself, or,
# with proxies, the proxy that stands for the way from here to broker 3.  So all
# brokers know broker 3 by the same conninfo, and each pair has a cable of its own,
# one for the connections that each of the two makes.
package PgtopicCluster;

use strict;
use warnings;

use PgtopicTest qw(new_node);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TcpProxy;
use Test::More;
use Time::HiRes qw(time usleep);

my $PEER = 'pgtopic_peer';

# Timeouts of replication are short enough for a test to wait for, and longer than a
# busy machine makes anybody wait.
my $CONF = <<'EOC';
listen_addresses = '127.0.0.1'
password_encryption = scram-sha-256
max_connections = 100
max_worker_processes = 32
max_replication_slots = 20
max_wal_senders = 20
max_logical_replication_workers = 16
max_sync_workers_per_subscription = 4
max_prepared_transactions = 0
wal_sender_timeout = 10s
wal_receiver_timeout = 10s
wal_retrieve_retry_interval = 200ms
EOC

# Servers that run, and are no cluster yet.
#	brokers => how many (3)				proxies => 1: with a proxy for each way
#	conf => lines for postgresql.conf of all	name => what the nodes' names begin with
#	service => more of conninfo for the service files, as "connect_timeout=3"
sub new
{
	my ($class, %param) = @_;
	my $self = bless {
		name => $param{name} // 'broker',
		conf => $param{conf} // '',
		service => $param{service} // '',
		with_proxies => $param{proxies},
		brokers => [undef],    # from 1
		proxy => {},           # "from to" => TcpProxy
	}, $class;

	$self->add_node for 1 .. $param{brokers} // 3;
	return $self;
}

# One more server, which the others can reach; it has not joined.  Returns its number.
#	conf => more lines for its postgresql.conf
sub add_node
{
	my ($self, %param) = @_;
	my $number = @{ $self->{brokers} };
	my $node = new_node(
		"$self->{name}$number",
		streaming => 'logical',
		start => 0,
		conf => $CONF);
	# 18 counts what a subscription needs apart from slots
	$node->append_conf('postgresql.conf', 'max_active_replication_origins = 20') if PgtopicTest::major($node) >= 18;
	$node->append_conf('postgresql.conf', join("\n", $self->{conf}, $param{conf} // ''));
	my $dir = $node->basedir;

	bless $node, 'PgtopicCluster::Broker';
	$node->{pgtopic_service_file} = "$dir/pg_service.conf";
	push @{ $self->{brokers} },
	  {
		node => $node,
		passfile => "$dir/pgpass",
		# a password of its own, so that a wrong one is found out
		password => join('', map { ('a' .. 'z', 0 .. 9)[ rand 36 ] } 1 .. 20),
		up => 0,
		outside => $self->{created},
	  };
	_write_file($node->data_dir . '/pg_hba.conf', <<"EOC", 0600);
local all all trust
local replication all trust
host all $PEER 127.0.0.1/32 scram-sha-256
host replication $PEER 127.0.0.1/32 scram-sha-256
EOC
	if ($self->{with_proxies})
	{
		for my $other (1 .. $number - 1)
		{
			$self->{proxy}{"$other $number"} = TcpProxy->new(target => $node->port);
			$self->{proxy}{"$number $other"} = TcpProxy->new(target => $self->node($other)->port);
		}
	}
	$self->_write_services;
	$self->start($number);
	$node->safe_psql('postgres', "CREATE EXTENSION pgtopic; CREATE ROLE $PEER LOGIN REPLICATION PASSWORD '$self->{brokers}[$number]{password}'");
	$node->safe_psql('postgres', "SELECT allow_peer('$PEER')")
	  if $node->safe_psql('postgres', "SELECT count(*) FROM pg_proc WHERE proname = 'allow_peer'") > 0;
	return $number;
}

# How the brokers find each other.  libpq reads these at each connection.
sub _write_services
{
	my ($self) = @_;
	for my $from ($self->numbers)
	{
		my ($services, $passwords) = ('', '');
		for my $to ($self->numbers)
		{
			my $at = $self->{brokers}[$to]{stands_in} // $to;
			my $port = $self->{proxy}{"$from $at"} ? $self->{proxy}{"$from $at"}->port : $self->node($at)->port;
			$services .= "[broker$to]\nhost=127.0.0.1\nport=$port\ndbname=postgres\nuser=$PEER\npassfile=$self->{brokers}[$from]{passfile}\n"
			  . join('', map { "$_\n" } split / /, $self->{service}) . "\n";
			$passwords .= "127.0.0.1:$port:*:$PEER:$self->{brokers}[$at]{password}\n";
		}
		_write_file($self->{brokers}[$from]{passfile}, $passwords, 0600);
		_write_file($self->service_file($from), $services, 0644);
	}
	return;
}

sub _write_file
{
	my ($name, $content, $mode) = @_;
	open(my $fh, '>', "$name.new") or die "$name.new: $!";
	chmod($mode, "$name.new") or die "$name.new: $!";
	print $fh $content;
	close $fh or die "$name.new: $!";
	rename("$name.new", $name) or die "$name: $!";
	return;
}

sub numbers { return 1 .. $#{ $_[0]{brokers} }; }
# Those that run, and have not left the cluster, nor are yet to join it.
sub running
{
	my ($self) = @_;
	return grep { $self->{brokers}[$_]{up} && !$self->{brokers}[$_]{outside} } $self->numbers;
}
sub node { return $_[0]->_broker($_[1])->{node}; }
sub service_file { return $_[0]->node($_[1])->{pgtopic_service_file}; }
sub conninfo { return "service=broker$_[1]"; }

# From now on the address of a broker leads to another one's server.
sub stand_in
{
	my ($self, $number, $other) = @_;
	$self->_broker($number)->{stands_in} = $other;
	$self->_write_services;
	return;
}

# A physical standby of a broker, which streams from it; it runs.  Returns the node.
sub add_standby
{
	my ($self, $number, %param) = @_;
	my $node = $self->node($number);
	my $backup = 'for_standby' . ++$self->{standbys};

	$node->backup($backup);
	my $standby = PostgreSQL::Test::Cluster->new($node->name . '_standby' . $self->{standbys});
	$standby->init_from_backup($node, $backup, has_streaming => 1);
	$standby->append_conf('postgresql.conf', $param{conf}) if $param{conf};
	bless $standby, 'PgtopicCluster::Broker';
	$standby->{pgtopic_service_file} = $node->{pgtopic_service_file};
	$standby->start;
	return $standby;
}

# A standby of a broker that is gone is promoted, and has its address.
sub promote
{
	my ($self, $number, $standby) = @_;
	my $broker = $self->_broker($number);

	die "broker $number runs" if $broker->{up};
	$self->_forget($number);
	push @{ $broker->{former} }, $broker->{node};
	$broker->{node} = $standby;
	delete $self->{log_end}{$number};
	$self->_write_services;
	$standby->promote;
	$broker->{up} = 1;
	return;
}

sub _broker
{
	my ($self, $number) = @_;
	return $self->{brokers}[ $number // 0 ] // die 'there is no broker ' . ($number // 'undef');
}

# A session with a broker, through its socket; see PgtopicTest::session().
sub session
{
	my ($self, $number, @rest) = @_;
	return PgtopicTest::session($self->node($number), @rest);
}

# Asks a broker, in a session that is kept for this; undef if it does not answer.
sub ask
{
	my ($self, $number, $sql) = @_;
	my $broker = $self->_broker($number);

	for (1 .. 2)
	{
		$broker->{watch} //= eval { $self->session($number, undef, name => 'watch') } // return undef;
		my $answer = $broker->{watch}->query($sql);
		$broker->{asked_error} = $broker->{watch}->error;
		return $answer if defined $answer || !$broker->{watch}{lost};
		$self->_forget($number);
	}
	return undef;
}

# The same, but an error ends the test script.
sub ask_ok
{
	my ($self, $number, $sql) = @_;
	return $self->ask($number, $sql) // die "broker $number: " . ($self->{brokers}[$number]{asked_error} // 'no connection') . "\nin: $sql\n";
}

sub _forget
{
	my ($self, $number) = @_;
	my $watch = delete $self->_broker($number)->{watch} or return;
	$watch->quit;
	return;
}

#-----------------------------------------------------------------------
# The cluster

# Broker 1 makes the cluster; the others are outside of it.
sub create_first
{
	my ($self) = @_;
	$self->ask_ok(1, "SELECT create_cluster('" . $self->conninfo(1) . "')");
	$self->{created} = 1;
	$self->_broker($_)->{outside} = 1 for grep { $_ > 1 } $self->numbers;
	return;
}

# The same, and the others join one after the other.
sub create
{
	my ($self) = @_;
	$self->create_first;
	$self->join_broker($_) for grep { $_ > 1 } $self->numbers;
	return;
}

# A broker joins through another one, broker 1 unless told otherwise; returns when
# all that run know it.  The cluster numbers brokers in the order in which they have
# joined, and never gives a number again: nodes have to join in their order, and once.
#	as => conninfo that it is to have		replaces => a broker that is gone
sub join_broker
{
	my ($self, $number, $through, %param) = @_;
	my $bootstrap = $self->conninfo($through // 1);
	my $own = $param{as} // $self->conninfo($number);
	my $replaces = $param{replaces} ? ", $param{replaces}" : '';

	$self->ask_ok($number, "SELECT join_cluster('$bootstrap', '$own'$replaces)");
	$self->_broker($param{replaces})->{outside} = 1 if $param{replaces};
	$self->_broker($number)->{outside} = 0;
	my $is = $self->poll(sub { $self->ask($number, 'SELECT broker FROM broker_status WHERE is_self') }, $number);
	die "the broker that should be number $number is " . ($is // 'not there') if ($is // '') ne $number;
	for my $broker ($self->running)
	{
		$self->poll(sub { $self->ask($broker, "SELECT count(*) FROM broker_status WHERE broker = $number") }, 1) eq '1'
		  or die "broker $broker does not know broker $number";
	}
	return;
}

# A broker leaves by itself, or is taken out by another one.  Its server goes on.
sub leave
{
	my ($self, $number) = @_;
	# the controller may change meanwhile: called again, it goes on
	my $left = $self->poll(sub { defined $self->ask($number, 'SELECT leave_cluster()') ? 1 : 0 }, 1);
	die "broker $number cannot leave: $self->{brokers}[$number]{asked_error}\n" if $left ne '1';
	$self->_broker($number)->{outside} = 1;
	return;
}

sub remove
{
	my ($self, $number, $by) = @_;
	# not one that may be there
	$self->wait_until($by, "SELECT state IN ('offline', 'fenced') FROM broker_status WHERE broker = $number");
	my $removed = $self->poll(sub { defined $self->ask($by, "SELECT remove_broker($number)") ? 1 : 0 }, 1);
	die "broker $number cannot be removed: $self->{brokers}[$by]{asked_error}\n" if $removed ne '1';
	$self->_broker($number)->{outside} = 1;
	return;
}

# Calls until it returns what is expected, for at most that many seconds; returns
# what it did in the end.
sub poll
{
	my ($self, $what, $expected, $seconds) = @_;
	my $end = time() + ($seconds // $PostgreSQL::Test::Utils::timeout_default);
	my $answer;

	while (1)
	{
		$answer = $what->() // '';
		last if $answer eq $expected || time() > $end;
		usleep(20_000);
	}
	return $answer;
}

# Waits until a question to one broker has the answer expected ('t'): a test, if it
# has a name.  Dies if it never has, as nothing that follows makes sense then.
sub wait_until
{
	my ($self, $number, $sql, $name, $expected) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $answer = $self->poll(sub { $self->ask($number, $sql) }, $expected // 't');
	my $good = $answer eq ($expected // 't');
	ok($good, $name) if defined $name;
	$self->diagnose if !$good;
	die "broker $number still says \"$answer\" " . ($self->{brokers}[$number]{asked_error} // '') . " to: $sql\n" if !$good;
	return 1;
}

# What is missing until the brokers that run agree on all partitions, and all
# replicas are in sync; '' when nothing is.
#	without => [ brokers that need not be in sync ]
sub out_of_sync
{
	my ($self, %param) = @_;
	my $without = join(',', @{ $param{without} // [] });
	my ($first, $by);

	return 'no broker runs' unless $self->running;
	for my $number ($self->running)
	{
		next if grep { $_ == $number } @{ $param{without} // [] };
		my $missing = $self->ask($number, <<"EOC");
SELECT coalesce(string_agg(topic || '-' || partition || ': leader ' || coalesce(leader::text, 'none') || ', replicas ' || replicas::text || ', in sync ' || isr::text, '; '), '')
FROM partition_status
WHERE NOT (isr \@> (SELECT coalesce(array_agg(r), '{}') FROM unnest(replicas) r WHERE r <> ALL ('{$without}'::int[])))
OR NOT isr <\@ replicas OR leader IS NULL OR leader <> ALL (isr)
EOC
		return "broker $number does not answer" if !defined $missing;
		return "broker $number: $missing" if $missing ne '';
		my $all = $self->ask($number, <<'EOC') // return "broker $number does not answer";
SELECT coalesce(string_agg(concat_ws(' ', topic, partition, leader, leader_epoch, replicas, ARRAY(SELECT i FROM unnest(isr) i ORDER BY 1)), '; ' ORDER BY topic::text, partition), '')
FROM partition_status
EOC
		($first, $by) = ($all, $number) if !defined $first;
		return "broker $number: $all; broker $by: $first" if $all ne $first;
	}
	return '';
}

# A test: within that many seconds all that run agree, and isr equals replicas.
sub wait_in_sync
{
	my ($self, $seconds, $name, %param) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $problem = $self->poll(sub { $self->out_of_sync(%param) }, '', $seconds);
	$self->diagnose if $problem ne '';
	return is($problem, '', $name // 'all replicas are in sync');
}

# { partition => { leader, replicas => [...], isr => [...], start, high_watermark, end } }, as a broker sees it.
sub partitions
{
	my ($self, $topic, $number) = @_;
	my %partitions;

	($number) = $self->running if !defined $number;
	my $rows = $self->ask_ok($number, <<"EOC");
SELECT partition, leader, array_to_string(replicas, ' '), array_to_string(isr, ' '), log_start_offset, high_watermark, log_end_offset
FROM partition_status WHERE topic = '$topic'
EOC
	for (split /\n/, $rows)
	{
		my ($partition, $leader, $replicas, $isr, $start, $high_watermark, $end) = split /\|/, $_, -1;
		$partitions{$partition} = {
			leader => $leader,
			replicas => [ split / /, $replicas ],
			isr => [ split / /, $isr ],
			start => $start,
			high_watermark => $high_watermark,
			end => $end,
		};
	}
	return \%partitions;
}

sub leader
{
	my ($self, $topic, $partition, $number) = @_;
	my $state = $self->partitions($topic, $number)->{$partition} // die "no partition $partition of $topic";
	return $state->{leader};
}

#-----------------------------------------------------------------------
# Content

# Messages of a partition in the tables of one broker, whether it is a replica or
# not: FROM item with log_offset, key, value, headers, "timestamp".
sub _messages
{
	my ($self, $number, $topic, $partition, $from, $to) = @_;
	my $id = $self->ask_ok($number, "SELECT id FROM pgtopic.topic WHERE name = '$topic'");
	die "broker $number has no topic $topic" if $id eq '';
	return <<"EOC";
(SELECT b.base_offset + m.n - 1 AS log_offset, m.key, m.value, m.headers, coalesce(m."timestamp", b."timestamp") AS "timestamp"
FROM pgtopic.t${id}_p$partition b
CROSS JOIN LATERAL unnest(b.keys, b."values", b.headers, b.timestamps) WITH ORDINALITY m(key, value, headers, "timestamp", n)
WHERE b.last_offset >= $from AND b.base_offset < $to AND b.base_offset + m.n - 1 >= $from AND b.base_offset + m.n - 1 < $to) messages
EOC
}

# What the replicas of a topic that run have in their tables, where all of them
# should have the same: from the highest log start to the lowest high watermark.
#	{ partition => { from, to, brokers => { number => "count md5" } } }
#	replicas => [ ... ]: these brokers, instead of what partition_status says
sub checksums
{
	my ($self, $topic, %param) = @_;
	my $partitions = $self->partitions($topic);
	my %seen = map { $_ => $self->partitions($topic, $_) } $self->running;
	my %sums;

	for my $partition (sort { $a <=> $b } keys %$partitions)
	{
		my %up = map { $_ => 1 } $self->running;
		my @replicas = grep { $up{$_} } @{ $param{replicas} // $partitions->{$partition}{replicas} };
		my ($from) = sort { $b <=> $a } map { $seen{$_}{$partition}{start} } @replicas;
		my ($to) = sort { $a <=> $b } map { $seen{$_}{$partition}{high_watermark} } @replicas;
		next if !@replicas;
		my $sum = $sums{$partition} = { from => $from, to => $to, brokers => {} };
		for my $number (@replicas)
		{
			my $messages = $self->_messages($number, $topic, $partition, $from, $to);
			$sum->{brokers}{$number} = $self->ask_ok($number, <<"EOC");
SET TimeZone = 'UTC'; SELECT count(*) || ' ' || coalesce(md5(string_agg(md5(messages::text), '' ORDER BY log_offset)), 'none') FROM $messages
EOC
		}
	}
	return \%sums;
}

# How replicas differ: one line for each difference.
sub differences
{
	my ($self, $topic, %param) = @_;
	my $sums = $self->checksums($topic, %param);
	my @lines;

	for my $partition (sort { $a <=> $b } keys %$sums)
	{
		my ($from, $to, $brokers) = @{ $sums->{$partition} }{qw(from to brokers)};
		my ($first, @others) = sort { $a <=> $b } keys %$brokers;
		for my $other (grep { $brokers->{$_} ne $brokers->{$first} } @others)
		{
			my %rows;
			my %offsets;
			for my $number ($first, $other)
			{
				my $messages = $self->_messages($number, $topic, $partition, $from, $to);
				for (split /\n/, $self->ask_ok($number, "SELECT log_offset || ' ' || md5(messages::text) FROM $messages ORDER BY log_offset"))
				{
					my ($offset, $md5) = split / /;
					push @{ $rows{$number}{$offset} }, $md5;
					$offsets{$offset} = 1;
				}
			}
			my @bad = grep { "@{ $rows{$first}{$_} // [] }" ne "@{ $rows{$other}{$_} // [] }" } sort { $a <=> $b } keys %offsets;
			my $count = @bad;
			@bad = @bad[ 0 .. 9 ] if @bad > 10;
			my $which = join(', ', map {
				$_ . ' (' . scalar(@{ $rows{$first}{$_} // [] }) . '/' . scalar(@{ $rows{$other}{$_} // [] }) . ')'
			} @bad);
			push @lines, "$topic-$partition from $from to $to: brokers $first and $other differ in $count offsets: $which";
		}
	}
	return @lines;
}

# A test: all replicas that run have the same messages, up to the leader's high
# watermark, which the others' have to reach within that many seconds.
#	replicas => [ ... ]		empty => 1: there may be nothing to compare		seconds => ...
sub same_content
{
	my ($self, $topic, $name, %param) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(join("\n", $self->content_problems($topic, %param)), '', $name // "replicas of $topic have the same content");
}

# What same_content() complains of, as lines.
sub content_problems
{
	my ($self, $topic, %param) = @_;
	my $behind = $self->poll(sub { $self->_behind($topic, %param) }, '', $param{seconds});
	my @lines = $behind ne '' ? ($behind) : ();

	push @lines, $self->differences($topic, %param);
	if (!$param{empty})
	{
		my $messages = 0;
		for my $sum (values %{ $self->checksums($topic, %param) })
		{
			$messages += (split / /, (values %{ $sum->{brokers} })[0])[0];
		}
		push @lines, 'there is nothing to compare' if $messages == 0;
	}
	return @lines;
}

# Which replica has another high watermark than its leader; '' if none has.
sub _behind
{
	my ($self, $topic, %param) = @_;
	my %seen = map { $_ => $self->partitions($topic, $_) } $self->running;
	my ($any) = $self->running;

	for my $partition (sort { $a <=> $b } keys %{ $seen{$any} })
	{
		my $state = $seen{$any}{$partition};
		my $replicas = $param{replicas} // $state->{replicas};
		my $leader = $param{replicas} ? $replicas->[0] : $state->{leader};
		return "the leader of $topic-$partition, $leader, does not run" if !$seen{$leader};
		for my $replica (grep { $seen{$_} } @$replicas)
		{
			my ($has, $wanted) = map { $_->{$partition}{high_watermark} // '?' } $seen{$replica}, $seen{$leader};
			return "broker $replica has a high watermark of $has instead of $wanted for $topic-$partition" if $has ne $wanted;
		}
	}
	return '';
}

# All messages of a topic, as in the tables of one broker or of each partition's
# leader: [ partition, offset, key, value ] in the order of offsets of each partition.
# NULL is undef; keys and values must be without line ends.
sub messages
{
	my ($self, $topic, $number) = @_;
	my $partitions = $self->partitions($topic, $number);
	my @messages;

	for my $partition (sort { $a <=> $b } keys %$partitions)
	{
		my $state = $partitions->{$partition};
		my $broker = $number // $state->{leader};
		my $messages = $self->_messages($broker, $topic, $partition, $state->{start}, '9223372036854775807');
		my $rows = $self->ask_ok($broker, <<"EOC");
SELECT log_offset || E'\\t' || coalesce(convert_from(key, 'UTF8'), E'\\\\N') || E'\\t' || coalesce(convert_from(value, 'UTF8'), E'\\\\N')
FROM $messages ORDER BY log_offset
EOC
		for (split /\n/, $rows)
		{
			my ($offset, $key, $value) = map { $_ eq '\N' ? undef : $_ } split /\t/, $_, -1;
			push @messages, [ $partition, $offset, $key, $value ];
		}
	}
	return \@messages;
}

#-----------------------------------------------------------------------
# Faults

sub start
{
	my ($self, $number, %param) = @_;
	my $broker = $self->_broker($number);
	$broker->{up} = $broker->{node}->start(%param) ? 1 : 0;
	return $broker->{up};
}

sub stop
{
	my ($self, $number, $mode) = @_;
	my $broker = $self->_broker($number);
	$self->_forget($number);
	$broker->{up} = 0;
	$broker->{node}->stop($mode // 'fast');
	return;
}

sub restart
{
	my ($self, $number, $mode) = @_;
	$self->stop($number, $mode);
	$self->start($number);
	return;
}

# SIGKILL of the postmaster and all of its processes, as if the power had gone.
sub kill9
{
	my ($self, $number) = @_;
	my $broker = $self->_broker($number);
	my $postmaster = $broker->{node}{_pid} // die "broker $number does not run";

	# no new ones while we look
	kill('STOP', $postmaster);
	my @children = _children($postmaster);
	die "broker $number has no processes" unless @children;
	$broker->{node}->kill9;
	kill('KILL', @children);
	$broker->{up} = 0;
	my $end = time() + $PostgreSQL::Test::Utils::timeout_default;
	while (my @left = grep { _lives($_) } $postmaster, @children)
	{
		die "processes of broker $number do not end: @left" if time() > $end;
		usleep(5_000);
	}
	$self->_forget($number);
	return;
}

# SIGSTOP of all of its processes: it does not answer, and does not know.
sub freeze
{
	my ($self, $number) = @_;
	my $broker = $self->_broker($number);
	my $postmaster = $broker->{node}{_pid} // die "broker $number does not run";

	$self->_forget($number);
	kill('STOP', $postmaster);
	$broker->{frozen} = [ $postmaster, _children($postmaster) ];
	kill('STOP', @{ $broker->{frozen} });
	$broker->{up} = 0;
	return;
}

# ... and they go on.
sub thaw
{
	my ($self, $number) = @_;
	my $broker = $self->_broker($number);

	kill('CONT', @{ delete $broker->{frozen} });
	$broker->{up} = 1;
	return;
}

# Fields of /proc/N/stat behind the name: state, parent.
sub _process
{
	my ($pid) = @_;
	open(my $fh, '<', "/proc/$pid/stat") or return;
	my $line = <$fh> // return;
	return $line =~ /^.*\) (\S) (\d+)/ ? ($1, $2) : ();
}

sub _children
{
	my ($parent) = @_;
	opendir(my $dir, '/proc') or die "/proc: $!";
	my @all = grep { /^\d+$/ } readdir $dir;
	closedir $dir;
	return grep { ((_process($_))[1] // 0) == $parent } @all;
}

sub _lives
{
	my ($pid) = @_;
	my ($state) = _process($pid);
	return defined $state && $state ne 'Z' && $state ne 'X';
}

# The proxy for connections that one broker makes to the other.
sub proxy
{
	my ($self, $from, $to) = @_;
	return $self->{proxy}{"$from $to"} // die "no proxy from $from to $to";
}

# Between two brokers, for connections of both: see TcpProxy.
sub cut { my ($self, $i, $j) = @_; $_->cut for $self->proxy($i, $j), $self->proxy($j, $i); return; }
sub reset { my ($self, $i, $j) = @_; $_->reset for $self->proxy($i, $j), $self->proxy($j, $i); return; }
sub drop { my ($self, $i, $j) = @_; $_->drop for $self->proxy($i, $j), $self->proxy($j, $i); return; }
sub delay { my ($self, $i, $j, $ms) = @_; $_->delay($ms) for $self->proxy($i, $j), $self->proxy($j, $i); return; }

# Nothing of what one broker sends gets to the other, whoever has connected.
sub cut_one_way
{
	my ($self, $sender, $receiver) = @_;
	$self->proxy($sender, $receiver)->cut('to_server');
	$self->proxy($receiver, $sender)->cut('to_client');
	return;
}

# From all others.
sub isolate
{
	my ($self, $number) = @_;
	$self->cut($number, $_) for grep { $_ != $number } $self->numbers;
	return;
}

# The connection between two brokers, or all connections, are well again.
sub heal
{
	my ($self, $i, $j) = @_;
	$_->pass for defined $i ? ($self->proxy($i, $j), $self->proxy($j, $i)) : values %{ $self->{proxy} };
	return;
}

# What all brokers that run say of themselves, as notes, when a test has come to a stop.
sub diagnose
{
	my ($self) = @_;
	for my $number ($self->running)
	{
		note "--- broker $number";
		note $self->ask($number, $_) // "no answer to $_" for
		  "SELECT pid, backend_type, application_name, state, wait_event_type, wait_event, now() - query_start, left(query, 150) FROM pg_stat_activity WHERE backend_type = 'client backend' OR backend_type ~ 'pgtopic|logical'",
		  'SELECT * FROM partition_status', 'SELECT * FROM replication_status', 'SELECT * FROM pgtopic.follower', 'SELECT * FROM pgtopic.replica',
		  'SELECT slot_name, active, wal_status, confirmed_flush_lsn, pg_current_wal_lsn() FROM pg_replication_slots',
		  'SELECT * FROM worker_status', 'SELECT * FROM broker_status', 'SELECT * FROM pgtopic.follower_reports()',
		  'SELECT subname, relid::regclass, received_lsn, latest_end_lsn FROM pg_stat_subscription',
		  'SELECT srsubid, srrelid::regclass, srsubstate FROM pg_subscription_rel',
		  'SELECT pid, locktype, relation::regclass, mode FROM pg_locks WHERE NOT granted';
	}
	return;
}

#-----------------------------------------------------------------------
# Logs

# What a server says when a connection between brokers is lost, or ended on purpose.
my $CONNECTION = qr/
	server\ closed\ the\ connection\ unexpectedly
	| unexpected\ EOF\ on\ (?:client|standby)\ connection
	| could\ not\ (?:receive|send)\ data\ (?:from|to)\ (?:WAL\ stream|client|server)
	| could\ not\ connect\ to\ (?:the\ )?(?:publisher|server|broker)
	| connection\ to\ (?:server|broker|client)
	| could\ not\ send\ end-of-streaming\ message
	| Connection\ (?:refused|reset\ by\ peer|timed\ out)
	| terminating\ (?:walreceiver|walsender|logical\ replication\ \w+)\b
	| terminating\ connection\ due\ to\ administrator\ command
	| terminating\ background\ worker
	| the\ database\ system\ is\ (?:starting\ up|shutting\ down|not\ yet\ accepting\ connections|in\ recovery\ mode)
	| replication\ slot\ "[^"]*"\ is\ active\ for\ PID
	| timeout\ expired
	| does\ not\ answer
	| terminating\ connection\ due\ to\ unexpected\ postmaster\ exit
	| replication\ slot\ "[^"]*"\ does\ not\ exist
	| (?:cannot\ read\ from\ logical|can\ no\ longer\ (?:get\ changes\ from|access))\ replication\ slot
	| replication\ origin\ with\ ID\ \d+\ is\ already\ active
	| controller\ of\ the\ cluster
	| the\ cluster\ has\ no\ controller
	/x;

# A test: logs of all servers have nothing in them that nobody has asked for, up to
# where stop_all() was called.  What
# workers of replication complain of counts, unlike in log_is_clean().
#	faults => 1: connections were lost	crash => 1: servers were killed
#	allow => [ patterns of lines ]
sub log_clean
{
	my ($self, %param) = @_;
	my @allow = @{ $param{allow} // [] };
	my @bad;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	# a fast shutdown ends these, and a subscription that is dropped or changed its worker
	push @allow, qr/terminating (?:logical replication \w+(?: \w+)?|background worker "[^"]+"|walreceiver|connection|walsender)(?: process)? (?:for subscription .* )?due to administrator command/;
	# a table that grows while its copy begins may be ahead of the segments: the copy begins again
	push @allow, qr/ERROR:  no partition of relation "t\d+_p\d+" found for row/;
	# what is to be ended may have ended by itself
	push @allow, qr/WARNING:  PID \d+ is not a PostgreSQL backend process/;
	push @allow, $CONNECTION if $param{faults} || $param{crash};
	for my $number ($self->numbers)
	{
		my $file = $self->node($number)->logfile;
		my $log = PostgreSQL::Test::Utils::slurp_file($file);
		$log = substr($log, 0, $self->{log_end}{$number}) if $self->{log_end}{$number};
		for my $line (split /\n/, $log)
		{
			next unless $line =~ /\] (?:pgtopic|logical replication|walsender)\b.*(?:ERROR|FATAL|PANIC|WARNING):/;
			next if grep { $line =~ $_ } @allow;
			push @bad, "broker $number: $line";
		}
		PgtopicTest::log_is_clean($self->node($number), allow => \@allow, crash => $param{crash}, length => $self->{log_end}{$number});
	}
	@bad = (@bad[ 0 .. 19 ], '...') if @bad > 20;
	return is(join("\n", @bad), '', $param{name} // 'replication and workers had no errors');
}

# Stops all that run, the ways between them being open.
sub stop_all
{
	my ($self) = @_;
	$self->heal;
	# what brokers say of each other while they go is of no interest: see log_clean()
	$self->{log_end}{$_} = -s $self->node($_)->logfile for $self->numbers;
	$self->stop($_) for grep { $self->{brokers}[$_]{up} } $self->numbers;
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($@, $?);
	for my $broker (grep { $_ && $_->{frozen} } @{ $self->{brokers} }) { kill('CONT', @{ $broker->{frozen} }); }
	return;
}

#-----------------------------------------------------------------------
# A node whose postmaster gets the service file, also at a restart.
package PgtopicCluster::Broker;

use strict;
use warnings;

our @ISA = ('PostgreSQL::Test::Cluster');

sub start
{
	my ($self, @rest) = @_;
	local $ENV{PGSERVICEFILE} = $self->{pgtopic_service_file};
	return $self->SUPER::start(@rest);
}

sub restart
{
	my ($self, @rest) = @_;
	local $ENV{PGSERVICEFILE} = $self->{pgtopic_service_file};
	return $self->SUPER::restart(@rest);
}

1;
