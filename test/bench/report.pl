#!/usr/bin/perl
# report.pl FILE
#
# Makes the table of the benchmarks' raw numbers: lines of measure, variant,
# round and value.  A ratio is the median of the rounds' ratios; a number the
# median of the rounds, with the lowest and the highest.
use strict;
use warnings;

my ($file) = @ARGV or die "usage: report.pl FILE\n";
my (%value, %order);
open(my $fh, '<', $file) or die "$file: $!\n";
while (<$fh>)
{
	chomp;
	my ($measure, $variant, $round, $value) = split /\t/;
	next unless defined $value;
	$order{$measure}{$variant} //= keys %{ $order{$measure} };
	$value{$measure}{$variant}{$round} = $value;
}
close $fh;

my $missed = 0;
my %shown;

single() if $value{single};
batch() if $value{batch};
read_speed() if $value{read};
latency() if $value{'latency-p50'};
cost();
failover() if $value{failover};
info('brokers that were fenced while they were only busy, by session timeout', 'busy', '%.0f') if $value{busy};
cluster() if grep { /^cluster-/ } keys %value;
info('WAL bytes a message of 100 bytes', 'wal', '%.0f') if $value{wal};
print "\n", $missed ? "$missed missed\n" : "all aims met\n";

sub failover
{
	heading('from the kill of the leader\'s server to the first message that another one acknowledges: ms');
	my %all = map { %{ $value{failover}{$_} } } keys %{ $value{failover} };
	for (['all', \%all], map { [ $_, $value{failover}{$_} ] } sort keys %{ $value{failover} })
	{
		my ($name, $rounds) = @$_;
		my @ms = sort { $a <=> $b } values %$rounds;
		printf "  %-24s %3d failovers: p50 %.0f, max %.0f\n", $name, scalar @ms, $ms[$#ms / 2], $ms[-1];
	}
	return;
}

sub single
{
	heading('one message in a transaction, 8 clients: transactions a second');
	numbers('single', '%.0f');
	aim('produce / INSERT', ratio('single', 'produce', 'INSERT'), '>=', 0.9);
	note('produce to 1 partition / INSERT', ratio('single', 'produce, 1 partition', 'INSERT'));
	note('produce / INSERT, both with asynchronous commit',
		ratio('single', 'produce, asynchronous commit', 'INSERT, asynchronous commit'));
	return;
}

sub batch
{
	heading('batches of 1000 x 100 bytes, one session: MB/s of values');
	numbers('batch', '%.0f');
	aim('produce_batch / COPY BINARY of 8 kB rows', ratio('batch', 'produce_batch', 'COPY'), '>=', 0.4);
	note('the same in CPU time of the server', ratio('batch-cpu', 'produce_batch', 'COPY'));
	return;
}

sub read_speed
{
	heading('reading in large calls: messages a second, and core of the server');
	numbers('read', '%.0f');
	for ('fetch_messages, batches', 'consume, batches')
	{
		aim($_, median(values %{ $value{read}{$_} }) / 1e6, '>=', 1, '%.2f M/s');
	}
	heading('the same by the clock');
	numbers('read-wall', '%.0f');
	return;
}

sub latency
{
	heading('from COMMIT until a waiting consumer has the message: microseconds');
	for ('', '-async')
	{
		for my $p (qw(p50 p99))
		{
			print "  $p", $_ ? ', asynchronous commit' : '', "\n";
			numbers("latency$_-$p", '%.0f');
		}
	}
	for (qw(p50 p99))
	{
		aim("$_: LISTEN and DELETE / consume", ratio("latency-$_", 'LISTEN, DELETE', 'consume'), '>', 1);
	}
	for ('', '-async')
	{
		my $async = $_ ? ', asynchronous commit' : '';
		for my $p (qw(p50 p99))
		{
			note("$p: LISTEN and DELETE / consume$async", ratio("latency$_-$p", 'LISTEN, DELETE', 'consume')) if $async;
			note("$p: LISTEN and SELECT / fetch_messages$async", ratio("latency$_-$p", 'LISTEN, SELECT', 'fetch_messages'));
		}
	}
	return;
}

sub cost
{
	my @costs = sort grep { /^cost:/ } keys %value or return;
	heading('CPU time of the server: ns a message, large log and small log');
	for my $measure (@costs)
	{
		print '  ', $measure =~ s/^cost: //r, "\n";
		numbers($measure, '%.0f');
	}
	for my $measure (@costs)
	{
		my ($large, $small) = sort { ($b =~ /million/) <=> ($a =~ /million/) } keys %{ $value{$measure} };
		aim($measure =~ s/^cost: (.*)/$1: $large messages \/ $small/r, ratio($measure, $large, $small), '<=', 1.25);
	}
	return;
}

sub cluster
{
	for my $clients (1, 4)
	{
		my $measure = "cluster-batch-$clients";
		next unless $value{$measure};
		heading("batches of 1000 x 100 bytes, each a transaction, $clients client(s): messages a second, until followers have all");
		numbers($measure, '%.0f');
		print "  seconds that the followers were behind at the end, and MB of WAL\n";
		numbers("$measure-lag-s", '%.2f');
		numbers("$measure-lag-mb", '%.1f');
		note("$_ / RF 1", ratio($measure, $_, 'RF 1')) for replicated($measure);
	}
	for ('RF 2, acks = leader', 'RF 2, acks = all')
	{
		next unless $value{'cluster-batch-4'};
		aim("$_, 4 clients", median(values %{ $value{'cluster-batch-4'}{$_} }) / 1000, '>=', 300, '%.0f k/s');
	}
	for my $clients (1, 8)
	{
		my $measure = "cluster-single-$clients";
		next unless $value{$measure};
		heading("one message in a transaction, $clients client(s): transactions a second");
		numbers($measure, '%.0f');
		for my $p (qw(p50 p99))
		{
			print "  $p, microseconds\n";
			numbers("$measure-$p", '%.0f');
		}
		note("$_ / RF 1", ratio($measure, $_, 'RF 1')) for replicated($measure);
		for my $rf (2, 3)
		{
			for my $p (qw(p50 p99))
			{
				my $added = difference("$measure-$p", "RF $rf, acks = all", "RF $rf, acks = leader") / 1000;
				my $text = "acks = all adds at $p, RF $rf, milliseconds";
				$p eq 'p50' && $clients == 1 ? aim($text, $added, '<', 3) : note($text, $added);
			}
		}
	}
	return;
}

sub replicated
{
	my ($measure) = @_;
	return grep { $_ ne 'RF 1' } sort keys %{ $value{$measure} };
}

sub info
{
	my ($text, $measure, $format) = @_;
	heading($text);
	numbers($measure, $format);
	return;
}

sub heading
{
	print "\n$_[0]\n";
	return;
}

sub numbers
{
	my ($measure, $format) = @_;
	for my $variant (sort { $order{$measure}{$a} <=> $order{$measure}{$b} } keys %{ $value{$measure} })
	{
		my @rounds = sort { $a <=> $b } values %{ $value{$measure}{$variant} };
		printf("    %-46s %12s", $variant, sprintf($format, median(@rounds)));
		printf("   (%s .. %s)", sprintf($format, $rounds[0]), sprintf($format, $rounds[-1])) if @rounds > 1;
		print "\n";
	}
	return;
}

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return $sorted[ @sorted / 2 ] if @sorted % 2;
	return ($sorted[ @sorted / 2 - 1 ] + $sorted[ @sorted / 2 ]) / 2;
}

sub ratio
{
	my ($measure, $over, $under) = @_;
	my ($a, $b) = @{ $value{$measure} }{ $over, $under };
	my @ratios = map { $a->{$_} / $b->{$_} } grep { $b->{$_} } keys %{ $a || {} };
	return @ratios ? median(@ratios) : undef;
}

# The median of the rounds' differences.
sub difference
{
	my ($measure, $of, $from) = @_;
	my ($a, $b) = @{ $value{$measure} }{ $of, $from };
	return median(map { $a->{$_} - $b->{$_} } keys %$a);
}

sub aim
{
	my ($text, $value, $relation, $goal, $format) = @_;
	my $met = defined $value
	  && ($relation eq '>=' ? $value >= $goal : $relation eq '>' ? $value > $goal : $relation eq '<' ? $value < $goal : $value <= $goal);
	$missed++ unless $met;
	printf("  %-4s %-56s %10s   (aim %s %s)\n", $met ? 'PASS' : 'MISS', $text,
		defined $value ? sprintf($format // '%.2f', $value) : 'none', $relation, $goal);
	return;
}

sub note
{
	my ($text, $value) = @_;
	printf("       %-56s %10s\n", $text, defined $value ? sprintf('%.2f', $value) : 'none');
	return;
}
