#!/bin/bash
# Stops the demo's server and removes its folder.
. "$(dirname "$0")/lib.sh"

if stop_demo; then
	say "The demo's server is stopped and its folder removed."
else
	say "No demo is running."
fi
