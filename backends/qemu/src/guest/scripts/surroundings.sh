# Prints what readiness asks of the guest's surroundings. Lines: card, lease, login, drop, updater, blocker, account,
# remote, place, key. Builtins where there are many of something, since a fork costs tens of milliseconds under emulation.
# shellcheck shell=sh
say() { printf '%s\t%s\t%s\t%s\n' "$1" "$2" "${3-}" "${4-}"; }

cards() {
    set +f
    for card in /sys/class/net/*; do
        set -f
        name=${card##*/} mac='' master='' kind=made
        [ "$name" != lo ] || continue
        [ ! -r "$card/address" ] || IFS= read -r mac <"$card/address"
        [ ! -e "$card/device" ] || kind=card
        [ ! -e "$card/master" ] || { master=$(readlink "$card/master"); master=${master##*/}; }
        printf 'card\t%s\t%s\t%s\t%s\n' "$name" "$mac" "$kind" "$master"
        # Where systemd-networkd keeps what a server gave it.
        if [ -r "$card/ifindex" ] && IFS= read -r index <"$card/ifindex"; then
            [ ! -e "/run/systemd/netif/leases/$index" ] || say lease "$name"
        fi
    done
    set -f
    # NUMBER: NAME    inet ADDRESS/BITS ... scope global dynamic NAME
    command -v ip >/dev/null 2>&1 && ip -o -4 addr show scope global | while read -r _ name _ _ rest; do
        case " $rest " in *' dynamic '*) say lease "$name" ;; esac
    done
}

units() { # what to call them, units: those that are active
    what=$1
    shift
    systemctl list-units --plain --no-legend --full --state=active -- "$@" 2>/dev/null |
        while read -r unit _; do say "$what" "$unit"; done
}

# Debian's timer installs only if apt is told to.
updaters() {
    units updater dnf-automatic.timer dnf-automatic-install.timer yum-cron.service transactional-update.timer \
        packagekit-offline-update.service zypp-auto-update.timer
    if systemctl is-active --quiet apt-daily-upgrade.timer 2>/dev/null; then
        on=$(apt-config shell on APT::Periodic::Unattended-Upgrade 2>/dev/null) || on=
        case $on in *"'0'"* | '') ;; *) say updater apt-daily-upgrade.timer ;; esac
    fi
}

firewall() {
    if command -v nft >/dev/null 2>&1; then
        nft list ruleset 2>/dev/null | while read -r line; do
            case $line in
                *'hook input'*) input=1; case $line in *'policy drop'*) say drop "$line" ;; esac ;;
                '}') input= ;;
                *drop | *drop' '* | *reject*) [ -z "${input-}" ] || say drop "$line" ;;
            esac
        done
    fi
}

accounts() {
    admins=' '
    while IFS=: read -r group _ _ members; do
        case $group in sudo | wheel | admin) admins="$admins$(printf %s "$members" | tr , ' ') " ;; esac
    done </etc/group
    while IFS=: read -r name _ uid _ _ home _; do
        case " $uid $admins" in " 0 "*) ;; *" $name "*) ;; *) continue ;; esac
        [ ! -s "$home/.ssh/authorized_keys" ] || { say account "$name" key; continue; }
        [ -r /etc/shadow ] && while IFS=: read -r who hash _; do
            [ "$who" = "$name" ] || continue
            case $hash in '!'* | '*'* | '') ;; *) say account "$name" password ;; esac
        done </etc/shadow
    done </etc/passwd
}

remote() {
    # ID PARENT MAJ:MIN ROOT TARGET OPTIONS [TAGS] - TYPE SOURCE OPTIONS
    while IFS= read -r line; do
        # shellcheck disable=SC2086
        set -- $line
        target=$5
        while [ $# -gt 0 ] && [ "$1" != - ]; do shift; done
        case ${2-} in
            nfs | nfs4 | cifs | smb3 | ceph | afs | lustre | gfs2 | ocfs2 | fuse.glusterfs | fuse.sshfs | fuse.s3fs)
                say remote "$2" "$3" "$target" ;;
        esac
    done </proc/1/mountinfo
    set +f
    for it in /sys/class/iscsi_session/session*/targetname; do
        if [ -r "$it" ] && IFS= read -r name <"$it"; then say remote iscsi "$name"; fi
    done
    for it in /sys/block/nbd*/pid; do
        [ ! -r "$it" ] || { it=${it%/pid}; say remote nbd "/dev/${it##*/}"; }
    done
    for it in /sys/bus/rbd/devices/*; do
        [ ! -d "$it" ] || say remote rbd "/dev/rbd${it##*/}"
    done
    for it in /sys/class/nvme/nvme*/transport; do
        [ -r "$it" ] && IFS= read -r transport <"$it" || continue
        it=${it%/transport}
        case $transport in pcie) ;; *) say remote nvme "/dev/${it##*/}" ;; esac
    done
    for it in /sys/block/drbd*; do
        [ ! -d "$it" ] || say remote drbd "/dev/${it##*/}"
    done
    set -f
}

tables() {
    [ ! -r /etc/fstab ] || while read -r source target _; do
        case $source in
            /dev/sd[a-z]* | /dev/vd[a-z]* | /dev/hd[a-z]* | /dev/nvme[0-9]* | /dev/xvd[a-z]*) say place "$source" "$target" ;;
        esac
    done </etc/fstab
    [ ! -r /etc/crypttab ] || while read -r name source key options; do
        case $name in '#'* | '') continue ;; esac
        case ${key:-none} in
            none | -) case ",${options-}," in
                *,tpm2-device=* | *,fido2-device=* | *,pkcs11-uri=* | *,noauto,* | *,swap,* | *,tmp*) ;;
                *) say key "$name" "$source" ;;
            esac ;;
        esac
    done </etc/crypttab
}

cards
units login ssh.service sshd.service ssh.socket sshd.socket dropbear.service dropbear.socket xrdp.service
firewall
updaters
units blocker multipathd.service corosync.service pacemaker.service keepalived.service watchdog.service sanlock.service
accounts
remote
tables
