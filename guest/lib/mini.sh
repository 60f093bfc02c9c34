# Sourced by build.sh: the small guest for tests.
mini_makes=(mini.raw mini-data.raw)
mini_packages=systemd,systemd-sysv,dbus,udev,kmod,qemu-guest-agent,linux-image-cloud-amd64,initramfs-tools,lz4,nginx,iproute2,procps,openssh-server,lvm2

build_mini() {
    local root=$work/mini
    say "mini: installing packages"
    bootstrap mini "$mini_packages"
    say "mini: configuring"
    configure mini mini
    mkdir -p "$root/etc/systemd/journald.conf.d"
    printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=8M\n' >"$root/etc/systemd/journald.conf.d/mini.conf"
    in_root "$root" sh -e -c '
        systemctl enable nginx.service mini-writer.service
        # Started by the tests that need it: under emulation it would cost every boot its second.
        systemctl disable ssh.service
        systemctl mask ssh.socket
        # Tests that make volumes bring their rules back; nothing watches or polls volumes.
        systemctl mask lvm2-monitor.service lvm2-lvmpolld.socket dm-event.socket blk-availability.service
        ln -sf /dev/null /etc/udev/rules.d/69-lvm.rules
        systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
            systemd-update-utmp.service systemd-update-utmp-runlevel.service getty@tty1.service \
            systemd-pstore.service modprobe@drm.service modprobe@configfs.service \
            modprobe@dm_mod.service modprobe@fuse.service modprobe@loop.service modprobe@efi_pstore.service \
            dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
            sys-kernel-config.mount sys-fs-fuse-connections.mount kmod-static-nodes.service \
            systemd-sysusers.service systemd-network-generator.service systemd-modules-load.service \
            systemd-tmpfiles-setup-dev.service proc-sys-fs-binfmt_misc.automount
        apt-get clean
    ' >>"$log" 2>&1
    grub_files "$root"
    say "mini: writing the disks"
    system_disk "$root" 1G "$work/mini.raw"
    mkdir -p "$work/mini-data"
    data_disk "$work/mini-data" 128M "$work/mini-data.raw"
    rm -rf "$work/mini-data"
}
