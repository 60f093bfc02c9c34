# Shows log and help on the Upgrade Side (US-13, US-31), and lets it say on its console that it goes down (PS-10, PS-12).
# Argument: the help. Standard input: the log. Everything lies in memory, except for two small programs.
# shellcheck shell=sh
lock
side=/run/flipside-side
mkdir -p -m 0755 $side || exit 71
# The log may hold the output of scripts: not for everybody.
umask 027
cat >$side/log.new || exit 73
if grep -q '^adm:' /etc/group 2>/dev/null; then chgrp adm $side/log.new; fi
chmod 0440 $side/log.new && mv -f $side/log.new $side/log || exit 73
umask 022
printf '%s\n' "$1" >$side/help.new && mv -f $side/help.new $side/help || exit 73
# The message of the day, as PAM shows it at a login.
mkdir -p /run/motd.d && cp $side/help /run/motd.d/flipside
program() {
    [ ! -x "/usr/local/bin/$1" ] || return 0
    printf '#!/bin/sh\n# Made by flipside for this upgrade; it goes when the session is finished.\n%s\n' "$2" \
        >"/usr/local/bin/$1.new" || return 1
    chmod 0755 "/usr/local/bin/$1.new" && mv -f "/usr/local/bin/$1.new" "/usr/local/bin/$1"
}
mkdir -p /usr/local/bin
# shellcheck disable=SC2016
program flipside-log 'exec cat /run/flipside-side/log' || exit 73
# shellcheck disable=SC2016
program flipside-help 'exec cat /run/flipside-side/help' || exit 73
# A transient unit needs no daemon-reload. It is stopped when the system goes down, and then says which way.
unit=flipside-announce.service
if ! systemctl is-active --quiet $unit; then
    cat >$side/announce <<'ANNOUNCE'
#!/bin/sh
jobs=$(systemctl list-jobs --no-legend --plain 2>/dev/null)
way=
case $jobs in
    *reboot.target* | *kexec.target*) way=restart ;;
    *poweroff.target* | *halt.target*) way='shut down' ;;
esac
[ -z "$way" ] || printf '\nflipside: this Upgrade Side is told to %s\n' "$way" >/dev/ttyS0
ANNOUNCE
    # Debian mounts /run noexec, so a shell reads it.
    # A guest without a serial console has nothing to announce on, and an old systemd-run may lack an option.
    [ ! -c /dev/ttyS0 ] || systemd-run --quiet --unit=$unit --description='Tells flipside when this side goes down' \
        --property=Type=oneshot --property=RemainAfterExit=yes "--property=ExecStop=/bin/sh $side/announce" \
        --property=TimeoutStopSec=10 --property=After=qemu-guest-agent.service \
        /bin/true >/dev/null 2>&1 9>&-
fi
exit 0
