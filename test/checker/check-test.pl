#!/usr/bin/perl
# check-test.pl
#
# Tests check.pl: a clean history passes, and each planted anomaly is found, by
# its name and with no others than those that it entails.  Prints TAP.
use strict;
use warnings;
use File::Basename;
use File::Temp;

my $check = dirname(__FILE__) . '/check.pl';
my $tests = 0;
my $failed = 0;

# One producer, one consumer, one fetcher; fields are separated by blanks here.
# Offset 2 and 5 of t/0 are gaps that rollbacks left.
my $clean = <<'END';
10 p1 begin p1.1 autocommit
11 p1 commit p1.1
12 p1 invoke p1.1 1 t p1:1
13 p1 sent p1.1 1 t 0 0 0
14 p1 ok p1.1
20 p1 begin p1.2 explicit
21 p1 invoke p1.2 1 t p1:2
22 p1 sent p1.2 1 t 0 1 1
23 p1 invoke p1.2 2 t p1:3
24 p1 sent p1.2 2 t 0 2 2
25 p1 undo p1.2 2 2
26 p1 invoke p1.2 3 t p1:4 p1:5
27 p1 sent p1.2 3 t 0 3 4
28 p1 hold p1.2
28 p1 commit p1.2
29 p1 ok p1.2
30 p1 begin p1.3 explicit
31 p1 invoke p1.3 1 t p1:6
32 p1 sent p1.3 1 t 0 5 5
33 p1 fail p1.3 rollback
40 p1 begin p1.4 explicit
41 p1 invoke p1.4 1 t p1:7 p1:8
42 p1 sent p1.4 1 t 1 0 1
43 p1 commit p1.4
44 p1 info p1.4
50 p1 begin p1.5 autocommit
51 p1 commit p1.5
52 p1 invoke p1.5 1 t p1:9
53 p1 disconnect SELECT
54 p1 info p1.5
56 nemesis fault kill-9 backend
57 nemesis healed -
60 p1 begin p1.6 explicit
61 p1 invoke p1.6 1 t p1:10
62 p1 sent p1.6 1 t 0 6 6
63 p1 commit p1.6
64 p1 ok p1.6
100 c1 begin c1.1 explicit
101 c1 poll c1.1 1 g1 t 0 0=p1:1 1=p1:2
102 c1 commit c1.1
103 c1 ok c1.1
110 c1 begin c1.2 explicit
111 c1 poll c1.2 1 g1 t 0 3=p1:4
113 c1 fail c1.2 rollback
120 c1 begin c1.3 explicit
121 c1 poll c1.3 1 g1 t 0 3=p1:4
122 c1 undo c1.3 1 1
123 c1 poll c1.3 2 g1 t 0 3=p1:4 4=p1:5 6=p1:10
124 c1 commit c1.3
125 c1 info c1.3
130 c1 begin c1.4 autocommit
131 c1 commit c1.4
132 c1 error 57014 cancelled
133 c1 info c1.4
200 f1 tail t 0
201 f1 tail t 1
202 f1 seen t 0 0 0=p1:1 1=p1:2
203 f1 seen t 0 2 3=p1:4 4=p1:5
204 f1 seen t 0 1 1=p1:2 3=p1:4
205 f1 seen t 0 5 6=p1:10
206 f1 seen t 1 0 0=p1:7 1=p1:8
300 final bounds t 0 0 7 7
301 final log t 0 0=p1:1 1=p1:2 3=p1:4
302 final log t 0 4=p1:5 6=p1:10
303 final bounds t 1 0 3 3
304 final log t 1 0=p1:7 1=p1:8
310 final effect g1 t 0 0 p1:1 c1.1
311 final effect g1 t 0 1 p1:2 c1.1
312 final effect g1 t 0 3 p1:4 c1.3
313 final effect g1 t 0 4 p1:5 c1.3
314 final effect g1 t 0 6 p1:10 c1.3
315 final effect g1 t 1 0 p1:7 c1.4
316 final effect g1 t 1 1 p1:8 c1.4
400 final complete -
END

# In a cluster.  p1.2 got no answer to its COMMIT, and is half there: t/0 and t/1 were led by
# two brokers.  p1.3 was refused with 08007, and is there; p1.4 was committed with a warning,
# and is not.  p1.5, without an answer, was committed after p1.6.  n1.1 was tried three times.
# c1.1 was committed with a warning, and c2.1 was at a broker that led t/0 and was lost: what they
# consumed came again, to c2.2 and c1.3.
my $cluster = <<'END';
1 final cluster 3
10 p1 begin p1.1 autocommit 1
11 p1 commit p1.1
12 p1 invoke p1.1 1 t p1:1
13 p1 sent p1.1 1 t 0 0 0
14 p1 ok p1.1
20 p1 begin p1.2 explicit 1
21 p1 invoke p1.2 1 t p1:2 p1:3 p1:4
22 p1 sent p1.2 1 t 0 1 2
23 p1 sent p1.2 1 t 1 0 0
24 p1 commit p1.2
25 p1 timeout COMMIT
26 p1 info p1.2
30 p1 begin p1.3 explicit 2
31 p1 invoke p1.3 1 t p1:5
32 p1 sent p1.3 1 t 0 1 1
33 p1 commit p1.3
34 p1 warning 08007 broker 3 has committed
35 p1 info p1.3 refused
40 p1 begin p1.4 explicit 2
41 p1 invoke p1.4 1 t p1:6
42 p1 sent p1.4 1 t 0 2 2
43 p1 commit p1.4
44 p1 warning 01000 canceling the wait for in-sync replicas
45 p1 ok p1.4 warned
50 p1 begin p1.5 autocommit 2
51 p1 commit p1.5
52 p1 invoke p1.5 1 t p1:7
53 p1 timeout SELECT
54 p1 info p1.5
55 nemesis fault kill-9 broker
57 nemesis healed -
60 p1 begin p1.6 autocommit 3
61 p1 commit p1.6
62 p1 invoke p1.6 1 t p1:8
63 p1 sent p1.6 1 t 0 2 2
64 p1 ok p1.6
70 n1 begin n1.1 numbered 1
71 n1 invoke n1.1 1 t n1:1 n1:2
72 n1 commit n1.1
73 n1 timeout COMMIT
74 n1 commit n1.1
75 n1 disconnect COMMIT
76 n1 commit n1.1
77 n1 sent n1.1 1 t 0 4 5
77 n1 retried n1.1 3
78 n1 ok n1.1
100 c1 begin c1.1 explicit 1
101 c1 poll c1.1 1 g1 t 0 0=p1:1 1=p1:5
102 c1 commit c1.1
103 c1 warning 08007 broker 2 may not have committed
104 c1 ok c1.1 warned
110 c1 begin c1.2 explicit 1
111 c1 poll c1.2 1 g1 t 1 0=p1:4
112 c1 commit c1.2
113 c1 ok c1.2
120 c2 begin c2.2 explicit 2
121 c2 poll c2.2 1 g1 t 0 0=p1:1 1=p1:5 2=p1:8
122 c2 commit c2.2
123 c2 ok c2.2
130 c2 begin c2.1 explicit 2
131 c2 poll c2.1 1 g1 t 0 3=p1:7 4=n1:1 5=n1:2
132 c2 commit c2.1
133 c2 disconnect COMMIT
134 c2 info c2.1
140 c1 begin c1.3 explicit 3
141 c1 poll c1.3 1 g1 t 0 3=p1:7 4=n1:1 5=n1:2
142 c1 commit c1.3
143 c1 ok c1.3
200 f1 tail t 0
201 f1 tail t 1
202 f1 seen t 0 0 0=p1:1 1=p1:5 2=p1:8
203 f1 seen t 0 3 3=p1:7 4=n1:1 5=n1:2
204 f1 seen t 1 0 0=p1:4
300 final bounds t 0 0 6 6
301 final bounds t 1 0 1 1
302 final restart crash
303 final log t 0 0=p1:1 1=p1:5 2=p1:8 3=p1:7 4=n1:1 5=n1:2
304 final log t 1 0=p1:4
305 final effect g1 t 0 0 p1:1 c1.1
306 final effect g1 t 0 1 p1:5 c1.1
307 final effect g1 t 1 0 p1:4 c1.2
308 final effect g1 t 0 0 p1:1 c2.2
309 final effect g1 t 0 1 p1:5 c2.2
310 final effect g1 t 0 2 p1:8 c2.2
311 final effect g1 t 0 3 p1:7 c2.1 2_7
312 final effect g1 t 0 4 n1:1 c2.1 2_7
313 final effect g1 t 0 5 n1:2 c2.1 2_7
314 final effect g1 t 0 3 p1:7 c1.3 3_8
315 final effect g1 t 0 4 n1:1 c1.3 3_8
316 final effect g1 t 0 5 n1:2 c1.3 3_8
320 final copy 1 t 0 0=p1:1 1=p1:5 2=p1:8 3=p1:7 4=n1:1 5=n1:2
321 final copy 2 t 0 0=p1:1 1=p1:5 2=p1:8 3=p1:7 4=n1:1 5=n1:2
322 final copy 3 t 1 0=p1:4
400 final complete -
END

sub run_check
{
	my ($history, $log, @options) = @_;
	my $dir = File::Temp->newdir;
	my %file;
	for (split /\n/, $history)
	{
		my ($time, $process, $event, $rest) = split / /, $_, 4;
		# these have text of their own
		my @rest = $event =~ /^(fault|disconnect|stuck|timeout)$/ ? $rest
		  : $event =~ /^(error|unexpected|warning)$/ ? split(/ /, $rest, 2) : split(/ /, $rest);
		$file{$process} .= join("\t", $time, $process, $event, @rest) . "\n";
	}
	for my $process (keys %file)
	{
		open(my $fh, '>', "$dir/$process.hist") or die $!;
		print $fh $file{$process};
		close $fh or die $!;
	}
	if (defined $log)
	{
		open(my $fh, '>', "$dir/log") or die $!;
		print $fh $log;
		close $fh or die $!;
		push @options, '--server-log', "$dir/log";
	}
	my $output = qx{"$^X" "$check" @options "$dir" 2>&1};
	return ($? >> 8, $output);
}

sub ok
{
	my ($ok, $name, $output) = @_;
	$tests++;
	$failed++ unless $ok;
	print $ok ? '' : 'not ', "ok $tests - $name\n";
	print map { "# $_\n" } split /\n/, $output unless $ok;
	return;
}

# planted NAME, [ANOMALY...], s/// on the clean history, as a sub
sub planted
{
	my ($name, $expected, $edit, $log) = @_;
	return planted_in($clean, $name, $expected, $edit, $log);
}

# The same on the clean history of a cluster.
sub planted_in_cluster
{
	my ($name, $expected, $edit, $log) = @_;
	return planted_in($cluster, "in a cluster: $name", $expected, $edit, $log);
}

sub planted_in
{
	my ($history, $name, $expected, $edit, $log) = @_;
	local $_ = $history;
	$edit->();
	die "nothing was planted for: $name\n" if $_ eq $history && !defined $log;
	my ($status, $output) = run_check($_, $log, '--no-minimum');
	my @found = sort $output =~ /^not ok \d+ - ([\w-]+):/mg;
	ok("@found" eq join(' ', sort @$expected) && $status == (@$expected ? 1 : 0),
		"planted: $name", "expected: @$expected\n$output");
	return;
}

{
	my ($status, $output) = run_check($clean, "LOG:  all is well\n", '--no-minimum');
	ok($status == 0 && $output !~ /^not ok/m, 'a clean history passes', $output);
}

planted('an acknowledged message is not in the log', [qw(lost-write)],
	sub { s/ 6=p1:10//g; s/.* p1:10 c1.*\n//; });
planted('part of an acknowledged batch is not in the log', [qw(lost-write)],
	sub { s/ 4=p1:5//g; s/.* p1:5 c1.*\n//; });
planted('a message of a rolled-back transaction is in the log and was read', [qw(aborted-read)],
	sub { s/ 6=p1:10/ 5=p1:6 6=p1:10/g; s/^(314 .*)/313 final effect g1 t 0 5 p1:6 c1.3\n$1/m; });
planted('a message of a rolled-back savepoint is in the log and was read', [qw(aborted-read)],
	sub { s/ 3=p1:4/ 2=p1:3 3=p1:4/g; s/^(312 .*)/312 final effect g1 t 0 2 p1:3 c1.3\n$1/m; });
planted('a fetcher read a message that was rolled back', [qw(aborted-read)],
	sub { s/^(205 .*) 6=/$1 5=p1:6 6=/m; });
planted('a consumer that rolled back read a message that was rolled back', [qw(aborted-read)],
	sub { s/^(111 .*)/$1 5=p1:6/m; s/ 5=p1:6/ 4=p1:5 5=p1:6/; });
planted('a group\'s effect of a message that was rolled back', [qw(aborted-read effect-mismatch)],
	sub { s/^(314 .*)/313 final effect g1 t 0 5 p1:6 c1.3\n$1/m; });
planted('a message is in the log twice', [qw(duplicate duplicate-effect nonmonotonic-send)],
	sub { s/ 6=p1:10/ 6=p1:10 7=p1:1/g; s/ 7 7$/ 8 8/m; s/^(314 .*)/$1\n314 final effect g1 t 0 7 p1:1 c1.3/m; });
planted('a message is in two partitions', [qw(duplicate)],
	sub { s/^((?:304|206) .*)/$1 2=p1:10/mg; });
planted('a group consumed a message twice', [qw(duplicate-effect)],
	sub { s/^(103 .*)/$1\n104 c1 begin c1.9 explicit\n105 c1 poll c1.9 1 g1 t 0 1=p1:2\n106 c1 commit c1.9\n107 c1 ok c1.9/m;
		s/^(311 .*)/$1\n311 final effect g1 t 0 1 p1:2 c1.9/m; });
planted('half of a transaction with an unknown outcome', [qw(torn-transaction)],
	sub { s/ 1=p1:8//g; s/.* p1:8 c1.*\n//; });
planted('effects of half of a transaction with an unknown outcome', [qw(torn-transaction unseen)],
	sub { s/^314 .*\n//m; });
planted('a pipe\'s effects without its messages', [qw(torn-transaction)],
	sub { s/^(121 .*)/121 c1 invoke c1.3 9 t c1:1\n121 c1 sent c1.3 9 t 1 2 2\n$1/m; });
planted('a message is at another offset than produce returned', [qw(inconsistent-offsets)],
	sub { s/^62 .*/62 p1 sent p1.6 1 t 0 5 5/m; });
planted('a message is in another partition than produce returned', [qw(inconsistent-offsets)],
	sub { s/^62 .*/62 p1 sent p1.6 1 t 1 6 6/m; });
planted('a batch returned more offsets than it had messages', [qw(inconsistent-offsets)],
	sub { s/^27 .*/27 p1 sent p1.2 3 t 0 3 5/m; });
planted('an offset shows another message to a fetcher', [qw(inconsistent-offsets)],
	sub { s/^204 .*/204 f1 seen t 0 1 1=p1:2 3=p1:5/m; });
planted('an offset was used again after a reader had seen it', [qw(inconsistent-offsets)],
	sub { s/^205 .*/205 f1 seen t 0 5 6=p1:9\n205 f1 seen t 0 5 6=p1:10/m; });
planted('a fetcher saw a message that is gone', [qw(vanished)],
	sub { s/^205 .*/205 f1 seen t 0 5 5=p1:9 6=p1:10/m; });
planted('a group consumed a message that is gone', [qw(vanished)],
	sub { s/^(316 .*)/$1\n317 final effect g1 t 1 2 p1:9 c1.4/m; });
planted('messages of a producer out of order', [qw(nonmonotonic-send inconsistent-offsets)],
	sub { s/=p1:4\b/=p1:X/g; s/=p1:5\b/=p1:4/g; s/=p1:X/=p1:5/g; s/ 3 p1:4 / 3 p1:X /; s/ 4 p1:5 / 4 p1:4 /; s/p1:X /p1:5 /; });
planted('a fetch returned offsets out of order', [qw(nonmonotonic-poll poll-skip)],
	sub { s/^203 .*/203 f1 seen t 0 2 4=p1:5 3=p1:4/m; });
planted('a fetch returned what is below its offset', [qw(nonmonotonic-poll)],
	sub { s/^205 .*/205 f1 seen t 0 5 4=p1:5 6=p1:10/m; });
planted('a group consumed out of order', [qw(nonmonotonic-poll)],
	sub { s/^(310 .*)\n(311 .*)/$2\n$1/m; });
# SELECTs: what each has in common with the clean history, and what not
for ([ 'SELECTs', [], '80 f1 selected t 0 79 0 5 asc 0=p1:1 1=p1:2 3=p1:4 4=p1:5', '82 f1 selected t 0 79 1 9 desc 6=p1:10 4=p1:5 3=p1:4 1=p1:2' ],
	[ 'a SELECT that began before the last transaction committed', [], '81 f1 selected t 0 59 1 9 desc 4=p1:5 3=p1:4 1=p1:2' ],
	[ 'a SELECT left out what had been acknowledged', [qw(poll-skip)], '80 f1 selected t 0 79 1 9 desc 6=p1:10 3=p1:4 1=p1:2' ],
	[ 'a SELECT showed what was rolled back', [qw(aborted-read)], '80 f1 selected t 0 79 3 6 asc 3=p1:4 4=p1:5 5=p1:6' ],
	[ 'a SELECT showed what was not sent', [qw(phantom)], '80 f1 selected t 0 79 3 6 asc 3=p1:4 4=p1:5 5=p9:9' ],
	[ 'a SELECT showed a message that is gone', [qw(vanished)], '80 f1 selected t 0 79 3 6 asc 3=p1:4 4=p1:5 5=p1:9' ],
	[ 'a SELECT showed a message in the place of another', [qw(inconsistent-offsets vanished)], '80 f1 selected t 0 79 3 5 desc 4=p1:5 3=p1:2' ],
	[ 'a SELECT showed offsets in the wrong order', [qw(nonmonotonic-poll)], '80 f1 selected t 0 79 3 5 desc 3=p1:4 4=p1:5' ],
	[ 'a SELECT showed an offset that it was not asked for', [qw(nonmonotonic-poll)], '80 f1 selected t 0 79 3 5 asc 3=p1:4 4=p1:5 6=p1:10' ],
	[ 'a SELECT showed a message before its transaction was to commit', [qw(precommitted-read)], '62 f1 selected t 0 61 3 9 asc 3=p1:4 4=p1:5 6=p1:10' ])
{
	my ($name, $expected, @lines) = @$_;
	planted($name, $expected, sub { $_ .= join('', map { "$_\n" } @lines); });
}
planted_in_cluster('a SELECT showed what was lost, and left out what others have', [], sub { $_ .= "80 f1 selected t 0 79 0 9 asc 0=p1:1 2=p1:6\n"; });
planted_in_cluster('a SELECT showed what was rolled back', [qw(aborted-read)],
	sub { s/^45 p1 ok p1.4 warned/45 p1 fail p1.4/m; $_ .= "80 f1 selected t 0 79 0 9 asc 0=p1:1 2=p1:6\n"; });
planted('a fetch left out a message', [qw(poll-skip)],
	sub { s/^202 .*/202 f1 seen t 0 0 1=p1:2/m; });
planted('a fetcher went on beyond a message', [qw(poll-skip)],
	sub { s/^203 .*/203 f1 seen t 0 4 4=p1:5/m; s/^204 .*\n//m; });
planted('a consumer read a message late, and left it out', [qw(poll-skip unseen)],
	sub { s/^123 .*/123 c1 poll c1.3 2 g1 t 0 3=p1:4 6=p1:10/m; s/^313 .*\n//m; });
planted('a fetcher read a message before its transaction was to commit', [qw(precommitted-read)],
	sub { s/^206 /42 /m; s/^(201 .*\n)//m; s/^(200 .*)/41 f1 tail t 1\n$1/m; });
planted('a fetcher never got to the end', [qw(unseen)], sub { s/^205 .*\n//m; });
planted('a fetcher saw nothing of a partition', [qw(unseen)], sub { s/^206 .*\n//m; });
planted('a group never consumed a message', [qw(unseen)], sub { s/^316 .*\n//m; });
planted('a transaction committed without its effect', [qw(effect-mismatch unseen)], sub { s/^311 .*\n//m; });
planted('an effect of a consumer that rolled back', [qw(effect-mismatch)],
	sub { s/^(312 .*)c1.3/$1c1.2/m; s/^(123 .*) 3=p1:4/$1/m; });
planted('an effect that consume did not return', [qw(effect-mismatch)],
	sub { s/^(101 .*) 1=p1:2/$1/m; });
planted('a message that nobody sent', [qw(phantom)],
	sub { s/ 6=p1:10/ 5=q1:1 6=p1:10/g; s/^(314 .*)/313 final effect g1 t 0 5 q1:1 c1.3\n$1/m; });
planted('a message whose content was damaged', [qw(corrupt)], sub { s/\z/210 f1 corrupt t 0 3 p1:4\n/; });
planted('the high watermark is stuck', [qw(watermark)], sub { s/^300 .*/300 final bounds t 0 0 5 7/m; });
planted('the log ends before its last message', [qw(watermark)], sub { s/^300 .*/300 final bounds t 0 0 6 6/m; });
planted('a statement without an answer', [qw(stuck)], sub { s/\z/210 f1 stuck no answer to SELECT\n/; });
planted('an internal error', [qw(unexpected-error)], sub { s/\z/210 f1 unexpected XX000 cache lookup failed\n/; });
planted('an error of a worker', [qw(unexpected-error)], sub { },
	"2026-01-01 00:00:00 UTC [1] pgtopic maintenance ERROR:  deadlock detected\n");
planted('the server crashed by itself', [qw(server-crash)], sub { },
	"LOG:  server process (PID 1) was terminated by signal 9: Killed\nLOG:  server process (PID 2) was terminated by signal 11: Segmentation fault\n");

{
	my $log = "2026-01-01 00:00:00 UTC [1] pgtopic quorum 08006 pgtopic quorum ERROR:  broker 2 does not answer\n";
	my ($status, $output) = run_check($cluster, $log, '--no-minimum');
	ok($status == 0 && $output !~ /^not ok/m, 'a clean history of a cluster passes', $output);
}

planted_in_cluster('an acknowledged message is not in the log', [qw(lost-write)],
	sub { s/ 2=p1:8//g; s/.* p1:8 c2.*\n//; });
planted_in_cluster('a numbered message is not in the log', [qw(lost-write)],
	sub { s/ 5=n1:2//g; s/.* n1:2 c.*\n//g; });
planted_in_cluster('a numbered message is in the log twice', [qw(duplicate nonmonotonic-send)],
	sub { s/^((?:203|303|320|321) .*)/$1 6=n1:1/mg; s/ 6 6$/ 7 7/m; });
planted_in_cluster('an attempt again was told another offset', [qw(inconsistent-offsets)],
	sub { s/^77 n1 sent.*/77 n1 sent n1.1 1 t 0 6 7/m; });
planted_in_cluster('a message of a transaction that failed is in the log and was read', [qw(aborted-read)],
	sub { s/^26 .*/26 p1 fail p1.2/m; });
planted_in_cluster('one partition has half of a transaction in doubt', [qw(torn-transaction)],
	sub { s/^(23 .*) 0 0$/$1 0 1/m; s/^(22 .*) 1 2/$1 1 1/m; });
planted_in_cluster('one partition has half of a transaction with a warning', [qw(torn-transaction)],
	sub { s/^41 .*/41 p1 invoke p1.4 1 t p1:6 p1:9/m; s/^42 .*/42 p1 sent p1.4 1 t 0 6 7/m;
		s/^((?:203|303|320|321) .*)/$1 6=p1:9/mg; s/ 6 6$/ 8 8/m;
		s/^(14[13] .*)/$1/mg; s/^(1[34]1 .* 5=n1:2)/$1 6=p1:9/mg;
		s/^(313 .*)/$1\n313 final effect g1 t 0 6 p1:9 c2.1 2_7/m; s/^(316 .*)/$1\n316 final effect g1 t 0 6 p1:9 c1.3 3_8/m; });
planted_in_cluster('acknowledged messages of a producer out of order', [qw(nonmonotonic-send)],
	sub { s/^54 .*/54 p1 ok p1.5/m; });
planted_in_cluster('messages were consumed twice, both times acknowledged', [qw(duplicate-effect)],
	sub { s/^134 .*/134 c2 ok c2.1/m; });
planted_in_cluster('messages came again, in doubt, after they were acknowledged', [],
	sub { s/^104 .*/104 c1 ok c1.1/m; s/^123 .*/123 c2 info c2.2/m; });
planted_in_cluster('messages were consumed twice where the leader stayed', [qw(duplicate-effect)],
	sub { s/3_8/2_7/g; });
# from a leader that was deposed, and then from the one that leads: it is in doubt as a whole
my $again = sub { s/^(131 .*)/$1\n131 c2 poll c2.1 2 g1 t 0 5=n1:2/m; s/^(313 .*)/$1\n$1/m; };
planted_in_cluster('a transaction in doubt got a message twice', [], $again);
planted_in_cluster('one that was committed got a message twice', [qw(duplicate-effect)],
	sub { $again->(); s/^133 .*\n134 .*/134 c2 ok c2.1/m; s/^14[0-3] .*\n//mg; s/^31[456] .*\n//mg; });
planted_in_cluster('a group never consumed a message', [qw(unseen)],
	sub { s/^(307|111) .*\n//mg; });
planted_in_cluster('an effect of a consumer whose COMMIT was refused', [qw(effect-mismatch)],
	sub { s/^134 .*/134 c2 info c2.1 refused/m; });
planted_in_cluster('a consumer that was committed with a warning, without its effect', [qw(effect-mismatch)],
	sub { s/^305 .*\n//m; });
planted_in_cluster('a fetcher saw a message that is gone', [qw(vanished)],
	sub { s/^203 .*/203 f1 seen t 0 3 3=p1:7 4=n1:1 5=n1:2 6=p1:6/m; });
planted_in_cluster('an offset was used again by the next leader', [qw(inconsistent-offsets)],
	sub { s/^(202 .*)/$1\n202 f1 seen t 0 1 1=p1:5 2=p1:6/m; });
planted_in_cluster('a fetcher at the next leader left out a message', [qw(poll-skip)],
	sub { s/^203 .*/203 f1 seen t 0 4 4=n1:1 5=n1:2/m; });
planted_in_cluster('a message was read before COMMIT', [qw(precommitted-read)],
	sub { s/^204 /22 /m; s/^201 .*\n//m; s/^(200 .*)/21 f1 tail t 1\n$1/m; });
planted_in_cluster('a replica lacks a message', [qw(replica-mismatch)],
	sub { s/^(321 .*) 3=p1:7/$1/m; });
planted_in_cluster('a replica has another message', [qw(replica-mismatch)],
	sub { s/^(321 .*) 3=p1:7/$1 3=p1:3/m; });
planted_in_cluster('a replica has a message that is not in the log', [qw(replica-mismatch)],
	sub { s/ 6 6$/ 7 7/m; s/^(320 .*)/$1 6=p1:6/m; });
planted_in_cluster('an offset has two messages in a replica', [qw(replica-mismatch)],
	sub { s/^(320 .*)/$1 5=n1:2/m; });
planted_in_cluster('an internal error of a worker', [qw(unexpected-error)], sub { },
	"2026-01-01 00:00:00 UTC [1] pgtopic replication XX000 pgtopic replication ERROR:  cache lookup failed\n");
planted_in_cluster('replication fails on what is there already', [qw(unexpected-error)], sub { },
	"2026-01-01 00:00:00 UTC [1] logical replication worker 23505 ERROR:  duplicate key value violates unique constraint\n");
{
	my $head = '2026-01-01 00:00:00 UTC [1] logical replication worker 23514';
	my $error = "$head ERROR:  no partition of relation \"t1_p1\" found for row\n$head DETAIL:  Partition key of the failing row contains (last_offset) = (2012).\n";
	planted_in_cluster('a copy finds more than was expected', [], sub { }, "$error$head CONTEXT:  COPY t1_p1, line 14\n");
	planted_in_cluster('replication finds no segment', [qw(unexpected-error)], sub { }, "$error$head CONTEXT:  processing remote data\n");
}
planted_in_cluster('a broker crashed by itself', [qw(server-crash)], sub { },
	"LOG:  background worker \"pgtopic acks\" (PID 2) was terminated by signal 6: Aborted\n");

# A run that did too little is no proof.
{
	my $enough = "${clean}80 f1 selected t 0 79 0 3 asc 0=p1:1 1=p1:2\n";
	for my $group (qw(g2 pipe))
	{
		my $more = join('', map { s/\bg1\b/$group/gr =~ s/\bc1\b/c_$group/gr } $clean =~ /^(\S+ c1 .*\n|\S+ final effect .*\n)/mg);
		$enough .= $more;
	}
	my ($status, $output) = run_check($enough, undef);
	ok($status == 0, 'a run that did enough passes', $output);
	for (
		[ 'no message after the last fault', sub { s/^56 nemesis/70 nemesis/m; s/^57 nemesis/71 nemesis/m } ],
		[ 'no rollback', sub { s/.* p1\.3\b.*\n//g } ],
		[ 'no rollback to a savepoint', sub { s/^25 .*\n//m; s/^23 .*\n24 .*\n//m } ],
		[ 'no crash', sub { s/kill-9 backend/terminate/ } ],
		[ 'no consumer of a group', sub { s/.* c_g2 .*\n//g; s/.* effect g2 .*\n//g } ],
		[ 'no consumer that rolled back', sub { s/.* c\w*\.2 .*\n//g; s/^122 .*\n//mg; s/^121 .*\n//mg } ],
		[ 'no SELECT', sub { s/.* selected .*\n// } ],
		[ 'a fetcher that saw nothing', sub { s/$/\n200 f2 tail u 0/ } ],
		[ 'no final read', sub { s/.* complete -\n// } ])
	{
		my ($name, $edit) = @$_;
		local $_ = $enough;
		$edit->();
		($status, $output) = run_check($_, undef);
		my @found = $output =~ /^not ok (.*)/mg;
		ok($status == 1 && @found == 1 && $found[0] =~ /did enough/, "too little: $name", $output);
	}
}

print "1..$tests\n";
exit($failed ? 1 : 0);
