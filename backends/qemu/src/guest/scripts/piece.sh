# Prints a piece of a file. Arguments: path, offset, bytes.
# shellcheck shell=sh
exec dd "if=$1" "skip=$2" "count=$3" bs=65536 iflag=skip_bytes,count_bytes status=none
