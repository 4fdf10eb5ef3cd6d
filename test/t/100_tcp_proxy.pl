# The proxy that the tests of clusters cut connections with.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Socket qw(SHUT_WR);
use TcpProxy;
use Test::More;
use Time::HiRes qw(time);

$SIG{ALRM} = sub { die "it takes too long\n"; };
alarm(60);
$SIG{PIPE} = 'IGNORE';

# A server that sends back what it gets, and ends when its client has ended.  To a
# line "count\n" first of all, it counts, and tells when its client has ended.
sub serve
{
	my ($client) = @_;
	my ($count, $first) = (0, 1);
	while (sysread($client, my $data, 65536))
	{
		$count = length("count\n") * -1 if $first && $data =~ /^count\n/;
		if ($first && $count == 0) { $count = undef; }
		$first = 0;
		if (defined $count)
		{
			$count += length $data;
			next;
		}
		while ($data ne '')
		{
			my $written = syswrite($client, $data) or POSIX::_exit(0);
			substr($data, 0, $written) = '';
		}
	}
	syswrite($client, "$count bytes") if defined $count;
	POSIX::_exit(0);
}

my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 50) or die $@;
my $server = fork() // die $!;
if ($server == 0)
{
	alarm(60);
	$SIG{ALRM} = 'DEFAULT';
	$SIG{CHLD} = 'IGNORE';
	while (1)
	{
		my $client = $listener->accept or next;
		my $child = fork() // POSIX::_exit(1);
		if ($child == 0)
		{
			close $listener;
			serve($client);
		}
		close $client;
	}
}
END { local $?; kill(9, $server) if $server; }
my $server_port = $listener->sockport;
close $listener;

my $proxy = TcpProxy->new(target => $server_port);

sub client
{
	my ($port) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port // $proxy->port) or die "cannot connect: $@";
	return $socket;
}

# What comes within that time: data, 'end', 'reset', or 'nothing'.
sub comes
{
	my ($socket, $length, $seconds) = @_;
	my $data = '';
	my $end = time() + ($seconds // 20);

	while (length $data < $length)
	{
		my $left = $end - time();
		last if $left <= 0 || !IO::Select->new($socket)->can_read($left);
		my $got = sysread($socket, $data, $length - length $data, length $data);
		return 'reset' if !defined $got;
		return $data ne '' ? $data : 'end' if !$got;
	}
	return $data ne '' ? $data : 'nothing';
}

sub says
{
	my ($socket, $data) = @_;
	syswrite($socket, $data) == length $data or die "syswrite: $!";
	return;
}

sub echo_is
{
	my ($socket, $data, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	says($socket, $data);
	return is(comes($socket, length $data), $data, $name);
}

my $QUIET = 0.15;    # that long nothing comes where nothing is to come

# --- pass ---

my ($one, $two) = (client(), client());
echo_is($one, 'one', 'data goes to the server and back');
echo_is($two, 'two', '... through another connection too');
echo_is($one, 'three', '... and again through the first');
is($proxy->stats->{open}, 2, 'the proxy counts open connections');
close $two;
is(comes($one, 1, $QUIET), 'nothing', 'a connection is not touched when another ends');
echo_is($one, 'four', '... and works');

# --- half-closed connections ---

my $half = client();
says($half, "count\n");
says($half, 'x' x 1000);
shutdown($half, SHUT_WR);
is(comes($half, 100), '1000 bytes', 'the server sees the end of what the client sends, and can still answer');
is(comes($half, 1), 'end', '... and the client sees the end of the answer');

# --- large transfers, and many connections ---

my $block = join('', map { pack('N', $_ * 2654435761 % 4294967296) } 1 .. 262144);
my $large = join('', map { pack('N', $_) . substr($block, $_ * 4) . substr($block, 0, $_ * 4) } 1 .. 10);
{
	my $socket = client();
	my ($sent, $back) = (0, '');
	$socket->blocking(0);
	while (length $back < length $large)
	{
		my $select = IO::Select->new($socket);
		my ($in, $out) = IO::Select->select($select, $sent < length $large ? $select : undef, undef, 20);
		last unless @{ $in // [] } || @{ $out // [] };
		if (@{ $out // [] })
		{
			my $written = syswrite($socket, $large, 100_000, $sent);
			$sent += $written if $written;
		}
		if (@{ $in // [] })
		{
			sysread($socket, $back, 100_000, length $back) or last;
		}
	}
	cmp_ok(length $large, '>', 10_000_000, '10 MB are sent');
	ok($back eq $large, '... and come back as they were');
}
my @many = map { client() } 1 .. 100;
says($many[$_], "message $_") for 0 .. $#many;
is(join(' ', grep { comes($many[$_], length "message $_") ne "message $_" } 0 .. $#many), '', 'a hundred connections do not mix');
undef @many;

# --- cut ---

$proxy->cut;
says($one, 'while cut');
is(comes($one, 1, $QUIET), 'nothing', 'cut: nothing comes back');
$two = client();
says($two, 'new');
is(comes($two, 1, $QUIET), 'nothing', '... a new connection is accepted, and nothing comes');
$proxy->pass;
is(comes($one, 9), 'while cut', 'when it passes again, what was sent arrives');
is(comes($two, 3), 'new', '... on the new connection too');
echo_is($one, 'more', '... and both go on');

# an end does not come through either
$half = client();
says($half, "count\n");
$proxy->cut;
shutdown($half, SHUT_WR);
is(comes($half, 1, $QUIET), 'nothing', 'cut: the server does not hear of the end');
$proxy->pass;
is(comes($half, 100), '0 bytes', '... but then');

# --- one direction ---

my $before = $proxy->stats;
$proxy->cut('to_client');
says($one, 'answer');
is(comes($one, 1, $QUIET), 'nothing', 'cut to the client: nothing comes back');
my $after = $proxy->stats;
is($after->{to_server} - $before->{to_server}, 6, '... but the server gets it');
is($after->{to_client} - $before->{to_client}, 0, '... and is not heard');
$proxy->pass;
is(comes($one, 6), 'answer', '... and the answer comes when it passes again');

# $half has data under way to the client when the direction to the server is cut
$proxy->delay(50, 'to_client');
$before = $proxy->stats;
says($one, 'first');
select(undef, undef, undef, 0.001) while $proxy->stats->{to_server} < $before->{to_server} + 5;
$proxy->cut('to_server');
says($one, 'second');
is(comes($one, 5), 'first', 'cut to the server: what it has sent comes back');
is(comes($one, 1, $QUIET), 'nothing', '... nothing else reaches it');
is($proxy->stats->{to_server} - $before->{to_server}, 5, '... at all');
$proxy->delay(0);
$proxy->pass;
is(comes($one, 6), 'second', '... until it passes again');

# --- reset ---

$proxy->reset;
is(comes($one, 1), 'reset', 'reset: a connection is reset');
is(comes($two, 1), 'reset', '... and the other one');
is($proxy->stats->{open}, 0, '... none is left');
is(comes(client(), 1), 'reset', '... a new one is as well');
$proxy->pass;
$one = client();
echo_is($one, 'new', '... until it passes again');
$proxy->drop;
is(comes($one, 1), 'reset', 'drop: a connection is reset');
$one = client();
echo_is($one, 'again', '... and new ones are not');
$proxy->cut;
$proxy->drop;
is(comes($one, 1), 'reset', '... also when cut');
$proxy->pass;

# --- delay ---

$one = client();
echo_is($one, 'x', 'connected');
$proxy->delay(100);
my $start = time();
echo_is($one, 'late', 'data comes late');
cmp_ok(time() - $start, '>=', 0.2, '... by the delay of both directions');
$proxy->delay(0);
$proxy->delay(100, 'to_server');
$start = time();
says($one, "$_") for 1 .. 5;
shutdown($one, SHUT_WR);
is(comes($one, 6), '12345', '... in order, with the end');
my $took = time() - $start;
cmp_ok($took, '>=', 0.1, '... by the delay of one direction');
$proxy->delay(0);
$one = client();
$start = time();
echo_is($one, 'x', 'a delay of 0 is none');
cmp_ok(time() - $start, '<', $took, '... at all');

# --- no server ---

kill(9, $server);
waitpid($server, 0);
$server = undef;
is(comes(client(), 1), 'reset', 'where no server listens, connections are reset');

# --- it ends with its owner ---

# Dead, or dead and not waited for by whoever has inherited it.
sub is_gone
{
	my ($pid) = @_;
	my $stat = '';
	return 1 if !kill(0, $pid);
	if (open(my $fh, '<', "/proc/$pid/stat")) { $stat = <$fh> // ''; }
	return $stat =~ /\) Z / ? 1 : 0;
}

sub goes
{
	my ($pid, $name) = @_;
	my $end = time() + 20;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	select(undef, undef, undef, 0.005) while !is_gone($pid) && time() < $end;
	return ok(is_gone($pid), $name);
}

my $pid = $proxy->pid;
ok(!is_gone($pid), 'the process is there');
undef $proxy;
goes($pid, '... and is not when the object is gone');
for my $way ('exit', 'die', 'kill(9, $$)')
{
	open(my $out, '-|', $^X, "-I$FindBin::RealBin", '-MTcpProxy', '-e',
		"close STDERR; my \$p = TcpProxy->new(target => 1); \$| = 1; print \$p->pid; $way;") or die $!;
	my $its = do { local $/; <$out> };
	like($its, qr/^\d+$/, "a script that ends by $way is seen to end");
	close $out;
	goes($its, '... and its proxy as well');
}

done_testing();
