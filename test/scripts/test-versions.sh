#!/bin/bash
# test-versions.sh [TARGET]
#
# Runs `make test` (or another target) on other PostgreSQL versions: on the one of each Debian release in
# SUITES, in a folder made with debootstrap.  Needs root, or sudo.
#
# Debian 13 (trixie) has PostgreSQL 17, testing has 18.  No Debian release has 16: it is
# covered by the compat header, and can be tested where a release of a derivative has it, for example
#   SUITES=noble MIRROR=<Ubuntu mirror> KEYRING=/usr/share/keyrings/ubuntu-archive-keyring.gpg COMPONENTS=main,universe
#
#   SUITES      "trixie testing"
#   FOLDER      /var/tmp/pgtopic-versions; a folder for each suite, used again by the next run
#   REFRESH=1   makes them anew
#   MIRROR      of the archive; as this machine's apt has it, if this machine is a Debian
#   KEYRING     that the archive is signed with; this machine's Debian keyring
#   COMPONENTS  main
. "$(dirname "$0")/lib.sh"

if [ "$(id -u)" != 0 ]; then
	as_root env SUITES="${SUITES:-}" FOLDER="${FOLDER:-}" REFRESH="${REFRESH:-}" MIRROR="${MIRROR:-}" \
		KEYRING="${KEYRING:-}" COMPONENTS="${COMPONENTS:-}" "$0" "$@"
	exit
fi

target=${1:-test}
SUITES=${SUITES:-trixie testing}
FOLDER=${FOLDER:-/var/tmp/pgtopic-versions}
KEYRING=${KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}
COMPONENTS=${COMPONENTS:-main}

# The mirror of the Debian release itself: the first source with its code name as the suite.
find_mirror()
{
	local codename
	# shellcheck disable=SC1091
	codename=$(. /etc/os-release && [ "$ID" = debian ] && echo "${VERSION_CODENAME:-testing}") || return
	{
		sed -n "s/^deb  *\(\[[^]]*\]  *\)\{0,1\}\([^ ]*\)  *$codename .*/\2/p" /etc/apt/sources.list \
			/etc/apt/sources.list.d/*.list
		awk -v suite="$codename" '
			function flush() { if (uri != "" && found) print uri; uri = ""; found = 0 }
			/^URIs:/ { uri = $2 }
			/^Suites:/ { for (i = 2; i <= NF; i++) if ($i == suite) found = 1 }
			/^[ \t]*$/ { flush() }
			END { flush() }' /etc/apt/sources.list.d/*.sources
	} 2>/dev/null | head -n 1
}
MIRROR=${MIRROR:-$(find_mirror)}
[ -n "$MIRROR" ] || die "found no Debian mirror among this machine's apt sources: set MIRROR (and KEYRING)"
[ -f "$KEYRING" ] || die "there is no keyring $KEYRING: install debian-archive-keyring, or set KEYRING"

if ! command -v debootstrap >/dev/null; then
	command -v apt-get >/dev/null || die "this needs debootstrap"
	say "== installing debootstrap"
	output=$({ apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 install -y \
		--no-install-recommends debootstrap; } </dev/null 2>&1) || die "could not install debootstrap: $output"
fi
command -v unshare >/dev/null || die "this needs unshare (util-linux)"

# prepare SUITE: its folder, complete or not at all.
prepare()
{
	local root=$FOLDER/$1 script=/usr/share/debootstrap/scripts/$1 config
	if [ -n "${REFRESH:-}" ] || [ ! -e "$root/.complete" ]; then
		say "== $1: debootstrap into $root"
		# An old debootstrap knows no newer release: they are all made alike.
		[ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
		rm -rf --one-file-system "$root"
		mkdir -p "$root"
		# Its own variables have the same names.
		if ! env -u COMPONENTS -u KEYRING -u MIRROR debootstrap --variant=minbase --include=make,ca-certificates --components="$COMPONENTS" --keyring="$KEYRING" \
			"$1" "$root" "$MIRROR" "$script" >"$FOLDER/$1.log" 2>&1; then
			tail -n 20 "$FOLDER/$1.log" >&2
			die "debootstrap failed, see $FOLDER/$1.log"
		fi
		# Nothing that is installed there starts a service.
		printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
		chmod +x "$root/usr/sbin/policy-rc.d"
		: >"$root/.complete"
	fi
	# The way to the mirror is this machine's: its resolver, its proxy.
	cp -L /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null
	config=$(apt-config dump 2>/dev/null | grep -E '^Acquire::(https?::Proxy|Check-Valid-Until|Check-Date) ')
	printf '%s\n' "$config" >"$root/etc/apt/apt.conf.d/99host"
}

# run SUITE: in mount and process namespaces of their own, so that whatever happens, no mount and no process
# outlives it.
run()
{
	local root=$FOLDER/$1
	rm -rf "$root/root/pgtopic"
	mkdir -p "$root/root/pgtopic"
	copy_tree "$root/root/pgtopic"
	# shellcheck disable=SC2016
	unshare --mount --propagation private --pid --fork --kill-child bash -c '
		mount -t proc proc "$1/proc" &&
		mkdir -p "$1/dev/shm" && mount -t tmpfs -o mode=1777 tmpfs "$1/dev/shm" &&
		mkdir -p "$1/dev/pts" && mount -t devpts -o newinstance,ptmxmode=0666 devpts "$1/dev/pts" &&
		ln -sf pts/ptmx "$1/dev/ptmx" &&
		exec chroot "$1" env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
			LANG=C.UTF-8 CI=true KEEP="$3" TAP="$4" REGRESS_TESTS="$5" ISOLATION_TESTS="$6" DURATION="$7" \
			http_proxy="${http_proxy:-}" https_proxy="${https_proxy:-}" \
			make -C /root/pgtopic "$2"
		' bash "$root" "$target" "${KEEP:-}" "${TAP:-}" "${REGRESS_TESTS:-}" "${ISOLATION_TESTS:-}" "${DURATION:-30}" </dev/null
}

mkdir -p "$FOLDER"
failed=0
results=()
for suite in $SUITES; do
	prepare "$suite"
	say "== $suite: make $target"
	run "$suite" 2>&1 | tee "$FOLDER/$suite.test.log"
	status=${PIPESTATUS[0]}
	results+=("$suite: $(sed -n 's/^== build with \(PostgreSQL [0-9]*\).*/\1: /p' "$FOLDER/$suite.test.log")$(
		grep -E '^[0-9]+ passed, [0-9]+ failed' "$FOLDER/$suite.test.log" | tail -n 1 | grep . || echo "exit status $status")")
	[ "$status" = 0 ] || failed=$((failed + 1))
done
printf '%s\n' "${results[@]}"
[ $failed = 0 ]
