# Sourced by demo.sh and demo-stop.sh: where the running demo is written down.
. "$(dirname "$0")/../scripts/lib.sh"

STATE=/tmp/pgtopic-demo-$(id -u).state

# Everybody may write to /tmp: believe only a file of our own.
have_state()
{
	[ -e "$STATE" ] || return 1
	if [ -L "$STATE" ] || [ ! -f "$STATE" ] || [ "$(stat -c %u "$STATE")" != "$(id -u)" ]; then
		die "$STATE is not this user's file: remove it"
	fi
}

# Ends the demo that is written down, if there is one: its servers, its folder.
stop_demo()
{
	have_state || return 1
	{ read -r PGT_TMP && read -r PGT_DATADIR && read -r PGT_BINDIR && read -r PGT_USER; } <"$STATE" ||
		die "$STATE is damaged: remove it, and the demo's folder"
	if [ -d "$PGT_TMP" ]; then
		stop_brokers fast
		rm -rf "$PGT_TMP"
	fi
	rm -f "$STATE"
}

# Stops all servers in PGT_TMP that run, at the same time.
stop_brokers()
{
	for PGT_DATADIR in "$PGT_TMP"/*/data; do
		stop_server "$1" &
	done
	wait
}

# For a trap on EXIT, before the demo is written down.
remove_demo()
{
	cd / || :
	stop_brokers immediate 2>/dev/null
	rm -rf "$PGT_TMP"
}
