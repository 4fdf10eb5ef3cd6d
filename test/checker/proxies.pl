#!/usr/bin/perl
# proxies.pl SOCKET PORT...
#
# The network of a cluster: the ways between brokers, of which number n listens on
# the nth PORT.  Each pair has two proxies (../t/TcpProxy.pm), one for the connections
# that each of the two makes.  Prints "I J PORT" for each, where I connects to reach
# J, and "ready"; then obeys lines that come through SOCKET, one a connection:
#	cut I J			nothing comes through between them
#	oneway I J		nothing that I sends gets to J, whoever has connected
#	drop I J		connections between them are lost, once
#	delay I J MS	whatever they send is late
#	heal			there is nothing of this any more, but delays
use strict;
use warnings;
use File::Basename;
use lib dirname(__FILE__) . '/../t';
use IO::Socket::UNIX;
use TcpProxy;

my ($path, @ports) = @ARGV;
my %proxy;
$| = 1;
for my $from (1 .. @ports)
{
	for my $to (grep { $_ != $from } 1 .. @ports)
	{
		my $proxy = $proxy{"$from $to"} = TcpProxy->new(target => $ports[ $to - 1 ]);
		print "$from $to ", $proxy->port, "\n";
	}
}
my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 5) or die "$path: $!\n";
print "ready\n";

my %do = (
	cut => sub { my ($i, $j) = @_; $_->cut for $proxy{"$i $j"}, $proxy{"$j $i"}; },
	oneway => sub { my ($i, $j) = @_; $proxy{"$i $j"}->cut('to_server'); $proxy{"$j $i"}->cut('to_client'); },
	drop => sub { my ($i, $j) = @_; $_->drop for $proxy{"$i $j"}, $proxy{"$j $i"}; },
	delay => sub { my ($i, $j, $ms) = @_; $_->delay($ms) for $proxy{"$i $j"}, $proxy{"$j $i"}; },
	heal => sub { $_->pass for values %proxy; });

while (my $client = $listener->accept)
{
	my ($what, @arguments) = split ' ', <$client> // next;
	my $done = $do{ $what // '' } && eval { $do{$what}->(@arguments); 1; };
	print $client $done ? "ok\n" : 'failed: ' . ($@ || "unknown command\n");
	close $client;
}
