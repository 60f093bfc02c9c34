# Creates or empties a file for an upload. Argument: path.
# shellcheck shell=sh
[ ! -d "$1" ] || { echo 'it is a folder' >&2; exit 21; }
[ -d "${1%/*}/" ] || { echo 'the folder it belongs to does not exist' >&2; exit 2; }
fresh=''
[ -e "$1" ] || fresh=yes
: >"$1" || exit 1
[ -z "$fresh" ] || chmod 0644 -- "$1"
