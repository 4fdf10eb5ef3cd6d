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

# Ends the demo that is written down, if there is one: its server, its folder.
stop_demo()
{
	have_state || return 1
	{ read -r PGT_TMP && read -r PGT_DATADIR && read -r PGT_BINDIR && read -r PGT_USER; } <"$STATE" ||
		die "$STATE is damaged: remove it, and the demo's folder"
	if [ -d "$PGT_TMP" ]; then
		stop_server fast
		rm -rf "$PGT_TMP"
	fi
	rm -f "$STATE"
}
