# A TCP proxy on 127.0.0.1, to cut and slow down what goes between two servers.
#
#	my $proxy = TcpProxy->new(target => $port);
#	... connect to $proxy->port ...
#	$proxy->cut;	# until $proxy->pass
#
# A process of its own does the work.  It ends when the test does, whichever way,
# since its end of a socket pair is closed then.  Each call returns when that
# process has done what was asked.
package TcpProxy;

use strict;
use warnings;

use Carp;
use Errno qw(EINTR);
use IO::Handle;
use IO::Socket::INET;
use POSIX ();
use Socket;
use Time::HiRes qw(time);

my $CHUNK = 65536;
my $QUEUE = 1024 * 1024;    # what is held for one direction of a connection, as a network would
my $PATIENCE = 30;          # seconds until a call gives up

# target => port on 127.0.0.1, which need not be listened on yet
sub new
{
	my ($class, %param) = @_;
	my $target = $param{target} or croak 'no target';
	my $listener = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1', LocalPort => 0, Proto => 'tcp', Listen => 128, Blocking => 0)
	  or croak "cannot listen: $@";

	socketpair(my $here, my $there, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or croak "socketpair: $!";
	my $pid = fork() // croak "fork: $!";
	if ($pid == 0)
	{
		# Nothing of the test may be run here, and nothing of it held open.
		delete @SIG{qw(__DIE__ __WARN__)};
		eval {
			TcpProxy::Server::run($listener, $there, $target);
			1;
		} or syswrite($there, "error $@");
		POSIX::_exit(0);
	}
	close $there;
	my $self = bless { pid => $pid, owner => $$, control => $here, port => $listener->sockport, target => $target }, $class;
	close $listener;
	return $self;
}

sub port { return $_[0]->{port}; }
sub target { return $_[0]->{target}; }
sub pid { return $_[0]->{pid}; }

# Everything is forwarded, at once, also what was held up so far.
sub pass { return $_[0]->_call('pass'); }

# As if the cable had been pulled: connections stay as they are and nothing comes
# through, no end of a connection either; new ones are accepted, and that is all.
# 'to_server' or 'to_client' cuts that direction alone.
sub cut
{
	my ($self, $direction) = @_;
	return $self->_call('cut ' . _direction($direction));
}

# Connections are closed (RST), new ones at once, until pass().
sub reset { return $_[0]->_call('reset'); }

# Connections are closed (RST), once: new ones are as good as before.
sub drop { return $_[0]->_call('drop'); }

# Whatever comes from now on is forwarded that many milliseconds later, in both
# directions or one; 0 ends that.  pass() does not.
sub delay
{
	my ($self, $ms, $direction) = @_;
	return $self->_call("delay $ms " . _direction($direction));
}

# { accepted => connections so far, open => connections now, to_server => bytes, to_client => bytes }
sub stats
{
	my ($self) = @_;
	my %stats = split / /, $self->_call('stats');
	return \%stats;
}

# Ends the process; connections are closed.
sub stop
{
	my ($self) = @_;
	return if !$self->{control} || $self->{owner} != $$;
	local ($?, $!);
	close $self->{control};
	delete $self->{control};
	waitpid($self->{pid}, 0);
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local $@;
	$self->stop;
	return;
}

# For a process that was forked from a test: lets go of all files but these.  Pipes
# to other processes must be seen to end when the test closes them.  The numbers
# stay taken: Perl counts who uses them, and would not close a socket that gets the
# number of a handle that it still knows.
sub let_go
{
	my %keep = map { fileno($_) => 1 } @_;
	my $null = POSIX::open('/dev/null', POSIX::O_RDWR()) // die "/dev/null: $!";
	my @open = 0 .. 255;

	untie *STDOUT;
	untie *STDERR;
	if (opendir(my $dir, '/proc/self/fd'))
	{
		@open = grep { /^\d+$/ } readdir $dir;
		closedir $dir;
	}
	for my $file (grep { !$keep{$_} && $_ != $null } @open)
	{
		my $copy = POSIX::dup($file) // next;
		POSIX::close($copy);
		POSIX::dup2($null, $file);
	}
	return;
}

sub _direction
{
	my ($direction) = @_;
	$direction //= 'both';
	croak "unknown direction: $direction" unless $direction =~ /^(both|to_server|to_client)$/;
	return $direction;
}

# Sends a line and returns what the answer holds.
sub _call
{
	my ($self, $command) = @_;
	my $answer = '';
	my $deadline = time() + $PATIENCE;

	croak 'the proxy is stopped' unless $self->{control};
	local $SIG{PIPE} = 'IGNORE';
	syswrite($self->{control}, "$command\n") or croak "the proxy has ended: $!";
	until ($answer =~ /\n\z/)
	{
		my $left = $deadline - time();
		my $in = '';
		vec($in, fileno($self->{control}), 1) = 1;
		my $ready = select($in, undef, undef, $left > 0 ? $left : 0);
		next if $ready < 0 && $! == EINTR;
		croak "the proxy does not answer to: $command" if $ready <= 0;
		my $got = sysread($self->{control}, $answer, 4096, length $answer);
		next if !defined $got && $! == EINTR;
		croak "the proxy has ended: $answer" unless $got;
	}
	croak "the proxy: $answer" unless $answer =~ s/^ok ?//;
	chomp $answer;
	return $answer;
}

#-----------------------------------------------------------------------
# The process.
package TcpProxy::Server;

use strict;
use warnings;

use Errno qw(EAGAIN EINPROGRESS EINTR EWOULDBLOCK);
use IO::Socket::INET;
use POSIX ();
use Socket qw(:DEFAULT SHUT_WR SO_ERROR SO_LINGER);
use Time::HiRes qw(time);

my ($listener, $control, $target);
my $commands = '';
my %cut = (to_server => 0, to_client => 0);
my %delay = (to_server => 0, to_client => 0);
my $reset = 0;
my %bytes = (to_server => 0, to_client => 0);
my $accepted = 0;
my $accept_again = 0;    # not before this time, if we are out of files

# Connections by number.  A connection has the sockets {client} and {server} (none
# until it can be connected), and {to_server} and {to_client}: directions, each with
#	queue => [ [ when due, data ], ... ]	size => bytes in it
#	eof => the sender has ended				due => when its end is to be forwarded
#	done => nothing is to be forwarded any more
my %connections;
my $last_connection = 0;

my %from = (to_server => 'client', to_client => 'server');
my %to = (to_server => 'server', to_client => 'client');

sub run
{
	($listener, $control, $target) = @_;
	$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP ALRM CHLD);
	$SIG{PIPE} = 'IGNORE';
	TcpProxy::let_go($listener, $control);
	$control->blocking(0);
	1 while turn();
	return;
}

sub turn
{
	my ($in, $out, $now, $wake) = ('', '', time(), undef);
	my $soon = sub { $wake = $_[0] if !defined $wake || $_[0] < $wake; };

	vec($in, fileno($control), 1) = 1;
	if ($now >= $accept_again) { vec($in, fileno($listener), 1) = 1; }
	else { $soon->($accept_again); }

	for my $c (@{ [ values %connections ] })
	{
		connect_server($c) if !$c->{server} && !$cut{to_server};
		next if !$c->{server};
		if ($c->{connecting})
		{
			vec($out, fileno($c->{server}), 1) = 1;
			next;
		}
		for my $direction (qw(to_server to_client))
		{
			my $d = $c->{$direction};
			next if $cut{$direction} || $d->{done};
			if (!$d->{eof} && $d->{size} < $QUEUE)
			{
				vec($in, fileno($c->{ $from{$direction} }), 1) = 1;
			}
			my $due = @{ $d->{queue} } ? $d->{queue}[0][0] : $d->{eof} ? $d->{due} : undef;
			next if !defined $due;
			if ($due > $now) { $soon->($due); }
			elsif (@{ $d->{queue} }) { vec($out, fileno($c->{ $to{$direction} }), 1) = 1; }
			else { $soon->($now); }
		}
	}

	my $ready = select($in, $out, undef, defined $wake ? ($wake > $now ? $wake - $now : 0) : undef);
	return 1 if $ready < 0 && $! == EINTR;
	die "select: $!" if $ready < 0;

	# connections before commands: what was there before a command came is as it was then
	for my $c (@{ [ values %connections ] })
	{
		if ($c->{connecting})
		{
			finish_connecting($c) if vec($out, fileno($c->{server}), 1);
			next;
		}
		for my $direction (qw(to_server to_client))
		{
			last if !$c->{server};
			next if $cut{$direction} || $c->{$direction}{done};
			receive($c, $direction) if vec($in, fileno($c->{ $from{$direction} }), 1) && !$c->{$direction}{eof};
			forward($c, $direction);
		}
		abandon($c) if $c->{to_server}{done} && $c->{to_client}{done};
	}
	accept_client() if vec($in, fileno($listener), 1);
	return vec($in, fileno($control), 1) ? obey() : 1;
}

sub accept_client
{
	my $client = $listener->accept;
	if (!$client)
	{
		$accept_again = time() + 0.1 unless $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR;
		return;
	}
	$accepted++;
	if ($reset)
	{
		close_hard($client);
		return;
	}
	$client->blocking(0);
	my $number = ++$last_connection;
	$connections{$number} = {
		number => $number,
		client => $client,
		to_server => { queue => [], size => 0 },
		to_client => { queue => [], size => 0 },
	};
	return;
}

sub connect_server
{
	my ($c) = @_;
	socket(my $server, PF_INET, SOCK_STREAM, 0) or return abandon($c);
	bless $server, 'IO::Socket::INET';
	$server->blocking(0);
	$c->{server} = $server;
	if (!connect($server, pack_sockaddr_in($target, INADDR_LOOPBACK)))
	{
		return abandon($c) unless $! == EINPROGRESS;
		$c->{connecting} = 1;
	}
	return;
}

sub finish_connecting
{
	my ($c) = @_;
	my $error = getsockopt($c->{server}, SOL_SOCKET, SO_ERROR);
	return abandon($c) if !defined $error || unpack('i', $error) != 0;
	delete $c->{connecting};
	return;
}

sub receive
{
	my ($c, $direction) = @_;
	my $d = $c->{$direction};
	my $got = sysread($c->{ $from{$direction} }, my $data, $CHUNK);
	my $due = $delay{$direction} ? time() + $delay{$direction} : 0;

	if ($got)
	{
		push @{ $d->{queue} }, [ $due, $data ];
		$d->{size} += $got;
	}
	elsif (defined $got || !($! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR))
	{
		$d->{eof} = 1;
		$d->{broken} = 1 if !defined $got;
		$d->{due} = $due;
	}
	return;
}

# Writes what is due, and the end.
sub forward
{
	my ($c, $direction) = @_;
	my $d = $c->{$direction};
	my $to = $c->{ $to{$direction} };
	my $now = time();

	while (@{ $d->{queue} } && $d->{queue}[0][0] <= $now)
	{
		my $written = syswrite($to, $d->{queue}[0][1]);
		if (!defined $written)
		{
			return if $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR;
			# The receiver is gone.  What it has sent before goes its way.
			$d->{queue} = [];
			$d->{done} = 1;
			return;
		}
		$bytes{$direction} += $written;
		$d->{size} -= $written;
		if ($written == length $d->{queue}[0][1]) { shift @{ $d->{queue} }; }
		else { substr($d->{queue}[0][1], 0, $written) = ''; }
	}
	if (!@{ $d->{queue} } && $d->{eof} && $d->{due} <= $now)
	{
		$d->{done} = 1;
		if ($d->{broken}) { abandon($c); }
		else { shutdown($to, SHUT_WR); }
	}
	return;
}

# Closes a connection: as usual if both sides have come to their end, else with RST.
sub abandon
{
	my ($c) = @_;
	my $good = $c->{to_server}{eof} && $c->{to_client}{eof} && !$c->{to_server}{broken} && !$c->{to_client}{broken};
	for my $side (qw(client server))
	{
		my $socket = delete $c->{$side} or next;
		if ($good) { close $socket; }
		else { close_hard($socket); }
	}
	delete $connections{ $c->{number} };
	return;
}

sub close_hard
{
	my ($socket) = @_;
	setsockopt($socket, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0));
	close $socket;
	return;
}

# Reads commands; false if there will be none any more.
sub obey
{
	my $got = sysread($control, $commands, 4096, length $commands);
	return !defined $got && ($! == EAGAIN || $! == EINTR) if !$got;
	while ($commands =~ s/^(.*)\n//)
	{
		my $answer = command(split / /, $1);
		syswrite($control, $answer eq '' ? "ok\n" : "ok $answer\n");
	}
	return 1;
}

sub command
{
	my ($what, @arguments) = @_;
	if ($what eq 'pass')
	{
		%cut = (to_server => 0, to_client => 0);
		$reset = 0;
	}
	elsif ($what eq 'cut')
	{
		my ($direction) = @arguments;
		%cut = map { $_ => $direction eq 'both' || $direction eq $_ ? 1 : 0 } keys %cut;
		$reset = 0;
	}
	elsif ($what eq 'reset' || $what eq 'drop')
	{
		# also those that nobody has accepted yet
		if ($what eq 'drop') { close_hard($_) while $_ = $listener->accept; }
		abandon($_) for @{ [ values %connections ] };
		$reset = 1 if $what eq 'reset';
	}
	elsif ($what eq 'delay')
	{
		my ($ms, $direction) = @arguments;
		$delay{$_} = $ms / 1000 for grep { $direction eq 'both' || $direction eq $_ } keys %delay;
	}
	elsif ($what eq 'stats')
	{
		return "accepted $accepted open " . scalar(keys %connections) . " to_server $bytes{to_server} to_client $bytes{to_client}";
	}
	return '';
}

1;
