#!/bin/bash
# torture.sh
#
# The history checker in rounds, on one server, three and five brokers in turns, each
# with a new seed, until DURATION seconds (an hour) are over; ROUND=seconds is how long
# the load of each lasts (90).  Folders of rounds that failed are left, with histories and logs.
set -u
cd "$(dirname "$0")/../.." || exit 1
end=$((SECONDS + ${DURATION:-3600}))
output=$(mktemp) || exit 1
trap 'rm -f "$output"' EXIT

test/scripts/with-server.sh --build true || exit 1
rounds=0
failed=()
for ((n = 0; SECONDS < end; n++)); do
	brokers=(1 3 5)
	what="--brokers ${brokers[$((n % 3))]} --duration ${ROUND:-90} --seed $((RANDOM * 32768 + RANDOM))"
	echo "== round $((n + 1)): test/checker/run.sh $what"
	# the judge's own test once is enough
	[ $n = 0 ] || what+=' --no-check-test'
	# shellcheck disable=SC2086
	env -u DURATION KEEP=1 test/checker/run.sh $what >"$output" 2>&1
	status=$?
	grep -v '^ok' "$output"
	kept=$(sed -n 's/^kept: //p' "$output" | tail -n 1)
	if [ $status = 0 ]; then
		[ -z "$kept" ] || rm -rf "$kept"
	else
		failed+=("$what ($kept)")
	fi
	rounds=$((rounds + 1))
done
echo "== $rounds rounds in $SECONDS s, ${#failed[@]} failed"
[ ${#failed[@]} = 0 ] || { printf 'test/checker/run.sh %s\n' "${failed[@]}"; exit 1; }
