# Sets the mark from which changes count, or takes it away with what was made for carrying files over.
# Argument: `set` or `remove`. What was saved beside conflicting files stays.
# shellcheck shell=sh
lock
case $1 in
    set)
        mkdir -p $state || exit 71
        rm -rf $state/carry
        rm -f $state/split
        : >$state/split || exit 71
        sync -f $state
        ;;
    remove)
        rm -rf $state/carry
        rm -f $state/split
        [ ! -d $state ] || rmdir --ignore-fail-on-non-empty $state
        ;;
    *) exit 64 ;;
esac
