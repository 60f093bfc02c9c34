# Asks the guest to go down. Argument: reboot or poweroff.
# shellcheck shell=sh
case $1 in
    reboot | poweroff) systemctl --no-block "$1" ;;
    *) exit 64 ;;
esac
