#!/bin/bash
# run.sh [--duration SECONDS] [--seed N] [--producers N] [--consumers N] [--pipes N] [--fetchers N] [--no-nemesis]
#
# The history checker: runs a workload with faults against a private server and
# judges what its clients saw; prints TAP.  README.md says what it looks for.
# The variables DURATION (seconds, 30 unless given) and SEED do the same as the
# options.  Called by itself it starts a server with ../scripts/with-server.sh,
# which KEEP=1 tells to leave histories and logs.
set -u
cd "$(dirname "$0")" || exit 1
if [ -z "${PGT_DATADIR:-}" ] || [ -z "${PGT_BINDIR:-}" ] || [ -z "${PGT_TMP:-}" ]; then
	exec ../scripts/with-server.sh --copy env DURATION="${DURATION:-}" SEED="${SEED:-}" \
		CC="${CC:-}" bash test/checker/run.sh "$@"
fi

duration=${DURATION:-30}
seed=${SEED:-}
options=()
check_options=()
while [ $# -gt 0 ]; do
	case $1 in
		--duration) duration=$2; shift 2 ;;
		--seed) seed=$2; shift 2 ;;
		--no-nemesis) options+=("$1"); check_options+=(--no-minimum); shift ;;
		--producers | --consumers | --pipes | --fetchers) options+=("$1" "$2"); shift 2 ;;
		*) sed -n '2,/^[^#]/s/^# \?//p' run.sh >&2; exit 2 ;;
	esac
done
seed=${seed:-$((RANDOM * 32768 + RANDOM))}

dir=$PGT_TMP/checker-$seed
log=$PGHOST/log
mkdir -p "$dir/history" || exit 1
PATH=$PGT_BINDIR:$PATH

bail_out()
{
	echo "Bail out! $*"
	echo "not ok 1 - $*"
	echo "1..1"
	exit 1
}

# The tests' numbers follow each other, over several sources of TAP.
tests=0
failed=0
tap()
{
	local line
	while IFS= read -r line; do
		case $line in
			1..*) ;;
			"ok "*)
				tests=$((tests + 1))
				echo "ok $tests - ${line#*- }"
				;;
			"not ok "*)
				tests=$((tests + 1)) failed=$((failed + 1))
				echo "not ok $tests - ${line#*- }"
				;;
			*) echo "$line" ;;
		esac
	done
}

tap < <(perl check-test.pl 2>&1)

# shellcheck disable=SC2046
${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Werror -I"$("$PG_CONFIG" --includedir)" \
	-o "$dir/workload" ./*.c -L"$("$PG_CONFIG" --libdir)" -lpq || bail_out 'the workload does not compile'

# Crashes come often, so that recovery should be short; and vacuum is to run.
psql -Xq -v ON_ERROR_STOP=1 <<'SQL' >/dev/null || bail_out 'the server cannot be set up'
ALTER SYSTEM SET checkpoint_timeout = '30s';
ALTER SYSTEM SET autovacuum_naptime = '1s';
ALTER SYSTEM SET restart_after_crash = on;
SELECT pg_reload_conf();
SQL
psql -Xq -f schema.sql >/dev/null || bail_out 'the schema cannot be made'

echo "# $duration s with seed $seed"
from=$(stat -c %s "$log" 2>/dev/null || echo 0)
"$dir/workload" --dir "$dir/history" --datadir "$PGT_DATADIR" --bindir "$PGT_BINDIR" --logfile "$log" \
	--duration "$duration" --seed "$seed" "${options[@]}" 2>"$dir/workload.err"
status=$?
tail -c "+$((from + 1))" "$log" >"$dir/server.log"
if [ $status = 0 ]; then
	tap <<<"ok - the workload ran to its end"
else
	tap <<<"not ok - the workload ran to its end"
	sed 's/^/# /' "$dir/workload.err"
fi
tap < <(perl check.pl "${check_options[@]}" --server-log "$dir/server.log" "$dir/history" 2>&1 || echo "# check.pl ended with status $?")
# Storage is written without the executor: do its indexes agree with its tables?
if [ -x "$PGT_BINDIR/pg_amcheck" ]; then
	if amcheck=$(pg_amcheck --install-missing --heapallindexed --schema=pgtopic 2>&1); then
		tap <<<"ok - tables and indexes of the log are sound"
	else
		tap <<<"not ok - tables and indexes of the log are sound"
		echo "$amcheck" | head -n 20 | sed 's/^/# /'
	fi
fi
echo "1..$tests"
if [ $failed != 0 ]; then
	echo "# run again with: test/checker/run.sh --duration $duration --seed $seed (KEEP=1 leaves the histories)"
	exit 1
fi
# Something that printed no TAP at all is a failure as well.
[ $tests -gt 60 ]
