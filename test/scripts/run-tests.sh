#!/bin/bash
# run-tests.sh [STAGE...]
#
# Installs what is missing, builds with warnings as errors, installs the extension, and runs the stages (all of them
# in this order unless some are named) with private servers in a temporary folder, as an unprivileged user:
#   deps       layers of src/ and its headers               (test/scripts/check-deps)
#   unit       test/unit/test_*.c, without a server
#   regress    sql/*.sql in the order of test/regress_schedule       (REGRESS_TESTS="a b": only those)
#   isolation  test/isolation/specs/*.spec, order of test/isolation/schedule   (ISOLATION_TESTS="a b")
#   tap        test/t/*.pl                                   (TAP="test/t/010_a.pl ...")
#   checker    test/checker/run.sh, history under load and faults, of a server and of a cluster (DURATION=seconds each, 30 and 25)
# The last line is "N passed, N failed" and maybe ", N skipped", over all of them.
# KEEP=1 leaves the temporary folder; TAP_JOBS=n runs that many TAP scripts at a time.
. "$(dirname "$0")/lib.sh"
under_subreaper "$@"

[ $# -gt 0 ] || set -- deps unit regress isolation tap checker

summary()
{
	local passed=0 failed=0 skipped=0 p f s
	if [ -f "${COUNTS:-}" ]; then
		while read -r p f s; do
			passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
		done <"$COUNTS"
	fi
	# Nothing ran, or it ended before its time: that is a failure too.
	if [ "$failed" = 0 ] && { [ "${finished:-}" != yes ] || [ "$passed" = 0 ]; }; then
		failed=1
	fi
	clean_up immediate
	if [ "$skipped" = 0 ]; then
		say "$passed passed, $failed failed"
	else
		say "$passed passed, $failed failed, $skipped skipped"
	fi
	[ "$failed" = 0 ] || exit 1
	exit 0
}

trap summary EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

heading()
{
	say "== $*"
}

# count PASSED FAILED SKIPPED
count()
{
	say "$1 $2 $3" >>"$COUNTS"
}

# show FILE LINES: the end of a log, for somebody who sees nothing but this output.
show()
{
	[ -s "$1" ] || return 0
	say "-- the last lines of ${1#"$PGT_TMP"/}"
	tail -n "$2" "$1"
}

run_deps()
{
	PG_CONFIG=$PG_CONFIG in_temp "$TREE/test/scripts/tap" -o "$COUNTS" "$TREE/test/scripts/check-deps"
}

# A unit test names the sources that it is linked with in a comment on its first line, like
# /* links: base/murmur2.c base/name.c */
run_unit()
{
	local test binary links libdir
	local built=()

	mkdir -p "$PGT_TMP/unit"
	libdir=$("$PG_CONFIG" --pkglibdir)
	for test in "$TREE"/test/unit/test_*.c; do
		[ -e "$test" ] || continue
		binary=$PGT_TMP/unit/$(basename "$test" .c)
		links=$(sed -n '1s,^/\* links:\(.*\)\*/.*,\1,p' "$test")
		# shellcheck disable=SC2086
		if (cd "$TREE/src" && ${CC:-gcc} -g -O1 -Wall -Wextra -Werror -Wno-unused-parameter \
			-fno-strict-aliasing -fwrapv -DFRONTEND -D_GNU_SOURCE -I. -I../test/unit -I"$("$PG_CONFIG" --includedir-server)" \
			-o "$binary" "$test" $links -L"$libdir" -L"$("$PG_CONFIG" --libdir)" -lpgcommon -lpgport -lm)
		then
			built+=("$binary")
		else
			say "not ok - $(basename "$test") does not compile"
			count 0 1 0
		fi
	done
	if [ ${#built[@]} -gt 0 ]; then
		chown -R "$PGT_USER" "$PGT_TMP/unit"
		in_temp "$TREE/test/scripts/tap" -o "$COUNTS" "${built[@]}"
	fi
}

# count_pg_regress LOG STATUS: pg_regress prints TAP from version 16 on, and before that
# "test x ... ok", and the names of a parallel group on lines of their own.
count_pg_regress()
{
	local passed failed
	passed=$(grep -cE '^(ok [0-9]+ |(test|  *) *[^ ]+ +\.\.\. ok )' "$1")
	failed=$(grep -cE '^(not ok [0-9]+ |(test|  *) *[^ ]+ +\.\.\. FAILED)' "$1")
	if [ "$2" != 0 ] && [ "$failed" = 0 ]; then
		failed=1
	fi
	count "$passed" "$failed" 0
}

# check_schedule SCHEDULE SUFFIX FILE...: a test file that no schedule names would never run.
check_schedule()
{
	local schedule=$1 suffix=$2 file name
	shift 2
	for file in "$@"; do
		name=$(basename "$file" "$suffix")
		if ! sed -n 's/^test://p' "$schedule" | tr -s ' \t' '\n' | grep -qx -e "$name"; then
			say "not ok - $name is not in ${schedule#"$TREE"/}"
			count 0 1 0
		fi
	done
}

# run_pg_regress PROGRAM INPUT OUTPUT DATABASE SUFFIX SCHEDULE TESTS FILE...
run_pg_regress()
{
	local program=$1 input=$2 output=$3 database=$4 suffix=$5 schedule=$6 tests=$7 status
	shift 7
	local what=()

	if [ -n "$tests" ]; then
		# shellcheck disable=SC2206
		what=($tests)
	elif [ -f "$schedule" ]; then
		check_schedule "$schedule" "$suffix" "$@"
		what=(--schedule="$schedule")
	else
		what=($(printf '%s\n' "$@" | sed "s,.*/,,; s,\\$suffix\$,,"))
	fi

	need_server || return
	in_temp mkdir -p "$output"
	(cd "$output" && in_temp "$PGT_PGXS_SRC/test/$program" --inputdir="$input" --outputdir="$output" \
		--bindir="$PGT_BINDIR" --host="$PGHOST" --port="$PGPORT" --user="$PGUSER" \
		--dbname="$database" --encoding=UTF8 --no-locale --load-extension=pgtopic "${what[@]}") 2>&1 | tee "$output.log"
	status=${PIPESTATUS[0]}
	count_pg_regress "$output.log" "$status"
	if [ "$status" != 0 ]; then
		show "$output/regression.diffs" 400
		show "$PGHOST/log" 60
	fi
}

run_regress()
{
	local files=("$TREE"/sql/*.sql)
	[ -e "${files[0]}" ] || return
	run_pg_regress regress/pg_regress "$TREE" "$PGT_TMP/regress" contrib_regression .sql \
		"$TREE/test/regress_schedule" "${REGRESS_TESTS:-}" "${files[@]}"
}

run_isolation()
{
	local files=("$TREE"/test/isolation/specs/*.spec)
	[ -e "${files[0]}" ] || return
	run_pg_regress isolation/pg_isolation_regress "$TREE/test/isolation" "$PGT_TMP/isolation" isolation_regression .spec \
		"$TREE/test/isolation/schedule" "${ISOLATION_TESTS:-}" "${files[@]}"
}

run_tap()
{
	local tests=() test log failed=no

	for test in ${TAP:-$(cd "$TREE" && ls test/t/*.pl 2>/dev/null)}; do
		if [ -e "$TREE/$test" ]; then
			tests+=("$test")
		else
			say "not ok - there is no $test"
			count 0 1 0
		fi
	done
	[ ${#tests[@]} -gt 0 ] || return

	in_temp mkdir -p "$PGT_TMP/tap" "$PGT_TMP/tap/log" "$PGT_TMP/tap/portlock"
	# The names that the modules look at have changed between versions: set them all.
	(cd "$TREE" && in_temp env TESTDIR="$PGT_TMP/tap" TESTDATADIR="$PGT_TMP/tap/data" TESTLOGDIR="$PGT_TMP/tap/log" \
		PG_TEST_PORT_DIR="$PGT_TMP/tap/portlock" PGPORT=65432 \
		PG_REGRESS="$PGT_PGXS_SRC/test/regress/pg_regress" PERL5LIB="$PGT_PGXS_SRC/test/perl:$TREE/test/t" \
		test/scripts/tap -j "${TAP_JOBS:-1}" -o "$COUNTS" "${tests[@]}") || failed=yes
	if [ $failed = yes ]; then
		for log in $(find "$PGT_TMP/tap" -name 'regress_log_*' | sort); do
			if grep -qE 'not ok |died|timed out|# Looks like|Bail out' "$log"; then
				show "$log" 80
				for log in $(ls "${log%/*}/${log##*/regress_log_}"_*.log 2>/dev/null); do
					show "$log" 30
				done
			fi
		done
	fi
}

# check_history LOG ARGUMENT...: with the servers that were started last
check_history()
{
	local log=$1 status
	shift
	(cd "$TREE" && in_temp env DURATION="${DURATION:-}" test/checker/run.sh "$@") 2>&1 | tee "$log"
	status=${PIPESTATUS[0]}
	if grep -qE '^1\.\.[0-9]' "$log"; then
		count "$(grep -cE '^ok ' "$log")" "$(grep -cE '^not ok ' "$log")" 0
		[ "$status" = 0 ] || grep -qE '^not ok ' "$log" || count 0 1 0
	elif [ "$status" = 0 ]; then
		count 1 0 0
	else
		count 0 1 0
	fi
	if [ "$status" != 0 ]; then show "$PGHOST/log" 60; fi
}

run_checker()
{
	local i
	[ -e "$TREE/test/checker/run.sh" ] || return

	stop_server
	server=
	start_server checker || { count 0 1 0; return; }
	check_history "$PGT_TMP/checker.log"
	stop_server immediate

	for i in 3 2 1; do
		start_server broker$i || { count 0 1 0; return; }
	done
	check_history "$PGT_TMP/checker-cluster.log" --brokers 3 --no-check-test
	for i in 1 2 3; do
		PGT_DATADIR=$PGT_TMP/broker$i/data
		stop_server immediate
	done
}

# The server that regress and isolation share, from when the first needs it.
need_server()
{
	[ -z "${server:-}" ] || return 0
	if ! start_server server; then
		count 0 1 0
		return 1
	fi
	server=yes
}

"$SCRIPTS/install-deps.sh" || exit 1
find_postgres || exit 1
choose_user
make_temp test
COUNTS=$PGT_TMP/counts
TREE=$PGT_TMP/tree

heading "build with PostgreSQL $PGT_VERSION ($PG_CONFIG)"
build_and_install "$PGT_TMP" || exit 1
mkdir "$TREE" && copy_tree "$TREE" || exit 1
cd "$PGT_TMP" || exit 1
: >"$COUNTS"
if [ "$(id -u)" = 0 ]; then chown -R "$PGT_USER" "$TREE" "$COUNTS"; fi

for stage in "$@"; do
	case $stage in
		deps | unit | regress | isolation | tap | checker) ;;
		*) die "no such stage: $stage" ;;
	esac
	heading "$stage"
	started=$SECONDS
	size=$(stat -c %s "$COUNTS")
	"run_$stage"
	if [ "$(stat -c %s "$COUNTS")" = "$size" ]; then
		say "not ok - there is nothing to run"
		count 0 1 0
	fi
	heading "$stage took $((SECONDS - started)) s"
done
finished=yes
