#!/bin/bash
# Stops the demo's servers and removes their folder.
. "$(dirname "$0")/lib.sh"

if stop_demo; then
	say "The demo's servers are stopped and their folder removed."
else
	say "No demo is running."
fi
