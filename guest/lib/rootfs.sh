# Sourced by build.sh: a Debian root directory.

# in_root ROOT COMMAND...: chroot with /proc, /sys and /dev, in a mount
# namespace of its own, so that nothing stays mounted whatever happens.
in_root() {
    local root=$1
    shift
    unshare --mount --propagation private --pid --fork --kill-child bash -c '
        set -e
        root=$1; shift
        mount -t proc proc "$root/proc"
        mount --rbind /sys "$root/sys"
        mount --rbind /dev "$root/dev"
        mount -t tmpfs tmpfs "$root/run"
        exec chroot "$root" /usr/bin/env -i HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
            PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"' in_root "$root" "$@"
}
export -f in_root

# bootstrap NAME PACKAGES: work/NAME becomes a root directory from the main suite
# only, so that the security suite holds newer packages.
bootstrap() {
    local name=$1 packages=$2 root=$work/$1 option
    local options=()
    while read -r option; do
        options+=(--aptopt="${option%%=*} \"${option#*=}\"")
    done < <(apt_settings)
    mkdir -p "$cache/archives"

    # What packages read while they are installed.
    local early=$work/$name.early
    rm -rf "$early"
    mkdir -p "$early/etc"
    cp -a "$here/files/common/etc/initramfs-tools" "$early/etc/"
    printf 'UUID=%s / ext4 errors=remount-ro,noatime 0 0\n' "$root_uuid" >"$early/etc/fstab"
    # No fsck passes: the mount replays the journal, and a mount must be quick.
    printf 'LABEL=flipside-data /srv/data ext4 noatime,nofail,x-systemd.device-timeout=120s 0 0\n' >>"$early/etc/fstab"
    mkdir -p "$early/etc/postgresql-common/createcluster.d"
    [ "$name" != demo ] || echo 'create_main_cluster = false' >"$early/etc/postgresql-common/createcluster.d/flipside.conf"
    [ "$name" = demo ] || rm -r "$early/etc/postgresql-common"
    chmod -R u=rwX,go=rX "$early"

    within "mmdebstrap $name" mmdebstrap --mode=root --variant=minbase --architectures=amd64 \
        --format=directory --include="$packages" "${options[@]}" \
        --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='force-unsafe-io' --dpkgopt='force-confold' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-include=/usr/share/locale/locale.alias' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/lintian/*' \
        --skip=essential/unlink \
        --setup-hook="mkdir -p \"\$1/var/cache/apt/archives\"; cp -n '$cache'/archives/*.deb \"\$1/var/cache/apt/archives/\" 2>/dev/null || true" \
        --essential-hook="cp -a '$early/.' \"\$1/\"" \
        --essential-hook="mkdir -p \"\$1/usr/share/initramfs-tools/hooks.off\"; for hook in udev fsck keymap resume thermal dmsetup kmod lvm2; do chroot \"\$1\" dpkg-divert --local --quiet --rename --divert /usr/share/initramfs-tools/hooks.off/\$hook --add /usr/share/initramfs-tools/hooks/\$hook; done" \
        --customize-hook="cp -n \"\$1\"/var/cache/apt/archives/*.deb '$cache/archives/'" \
        bookworm "$root" - < <(sources bookworm)
}

# configure NAME HOSTNAME: everything that is the same for every guest.
configure() {
    local name=$1 host=$2 root=$work/$1
    cp -rT --no-preserve=ownership "$here/files/common" "$root"
    cp -rT --no-preserve=ownership "$here/files/$name" "$root"
    rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/resolv.conf"
    mv "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap" "$root/etc/dpkg/dpkg.cfg.d/50flipside"
    # The dpkg options hold no host name; the sources do, so none are kept.
    echo '# Nothing is fetched from a network: see /opt/upgrade.' >"$root/etc/apt/sources.list"
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/log/apt/* "$root"/var/log/dpkg.log
    echo "$host" >"$root/etc/hostname"
    printf '127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost ip6-localhost\n' "$host" >"$root/etc/hosts"
    : >"$root/etc/resolv.conf"
    echo 'LANG=C.UTF-8' >"$root/etc/default/locale"
    mkdir -p "$root/srv/data" "$root/opt"
    echo "$inputs" >"$root/etc/flipside-guest"
    in_root "$root" sh -e -c '
        echo root:flipside | chpasswd
        rm -f /etc/machine-id /var/lib/dbus/machine-id
        systemd-machine-id-setup
        systemctl enable systemd-networkd.service qemu-guest-agent.service 2>/dev/null || true
        systemctl disable systemd-networkd-wait-online.service 2>/dev/null || true
        mkdir -p /etc/systemd/system-generators
        for generator in bless-boot cryptsetup debug gpt-auto hibernate-resume integritysetup rc-local run system-update veritysetup sysv; do
            ln -sf /dev/null "/etc/systemd/system-generators/systemd-$generator-generator"
        done
        for rules in 50-firmware 55-dm 60-autosuspend 60-drm 60-fido-id 60-infiniband 60-persistent-alsa 60-persistent-input \
            60-persistent-storage-dm 60-persistent-storage-tape 60-persistent-v4l 60-sensor 64-btrfs 70-camera 70-joystick \
            70-memory 70-mouse 70-touchpad 75-probe_mtd 78-sound-card 81-net-dhcp 85-hwclock 95-dm-notify 96-e2scrub; do
            ln -sf /dev/null "/etc/udev/rules.d/$rules.rules"
        done
        systemctl mask e2scrub_all.timer e2scrub_reap.service fstrim.timer man-db.timer 2>/dev/null || true
    ' >>"$log" 2>&1
    quick_initramfs "$root"
    dd if=/dev/urandom of="$root/var/lib/systemd/random-seed" bs=512 count=1 status=none
    chmod 600 "$root/var/lib/systemd/random-seed"
}

# quick_initramfs ROOT: see files/common/usr/lib/flipside/mkinitramfs.
quick_initramfs() {
    # shellcheck disable=SC2016
    in_root "$1" sh -e -c '
        unmkinitramfs /boot/initrd.img-* /tmp/initramfs
        rm -rf /tmp/initramfs/usr/lib/modules/*
        (cd /tmp/initramfs && find . | cpio --quiet -R 0:0 -o -H newc) | lz4 -l -1 >/usr/lib/flipside/initramfs-base
        rm -rf /tmp/initramfs
        dpkg-divert --local --quiet --rename --divert /usr/sbin/mkinitramfs.debian --add /usr/sbin/mkinitramfs
        ln -s /usr/lib/flipside/mkinitramfs /usr/sbin/mkinitramfs
        update-initramfs -u -k all
        rm -f /boot/*.bak
    ' >>"$log" 2>&1
}
