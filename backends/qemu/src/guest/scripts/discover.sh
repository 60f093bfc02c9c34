# Lists units that run or are about to. Arguments: patterns.
# shellcheck shell=sh
systemctl list-units --plain --no-legend --full --state=active,activating,reloading -- "$@"
