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

sub run_check
{
	my ($history, $log, @options) = @_;
	my $dir = File::Temp->newdir;
	my %file;
	for (split /\n/, $history)
	{
		my ($time, $process, $event, $rest) = split / /, $_, 4;
		# these have text of their own
		my @rest = $event =~ /^(fault|disconnect|stuck)$/ ? $rest
		  : $event =~ /^(error|unexpected)$/ ? split(/ /, $rest, 2) : split(/ /, $rest);
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
	local $_ = $clean;
	$edit->();
	die "nothing was planted for: $name\n" if $_ eq $clean && !defined $log;
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

# A run that did too little is no proof.
{
	my $enough = $clean;
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
