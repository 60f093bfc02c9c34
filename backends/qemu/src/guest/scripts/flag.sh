# Lifts, lowers or tells the gate: one flag file.
# shellcheck shell=sh
case $1 in
    lift)
        [ -d $gate ] || mkdir -p -m 0700 $gate || exit 71
        [ -e $gate/open ] || { : >$gate/open && sync $gate/open $gate; } || exit 71
        ;;
    lower)
        [ ! -e $gate/open ] || { rm -f $gate/open && sync $gate; } || exit 71
        ;;
esac
[ ! -e $gate/open ] || echo open
