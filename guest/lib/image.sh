# Sourced by build.sh: makes file systems and disks out of directories. No loop
# device, no mount of an image.

# data_disk DIR SIZE OUT: a whole-disk ext4 with the label that the guests mount.
data_disk() {
    rm -f "$3"
    truncate -s "$2" "$3"
    within "mke2fs $3" mke2fs -q -F -t ext4 -L flipside-data -m 0 -d "$1" \
        -U "$(uuid_of "$3")" -O ^metadata_csum_seed,^orphan_file \
        -E lazy_itable_init=0,lazy_journal_init=0,assume_storage_prezeroed=1 "$3"
}

# A UUID that depends only on the inputs of the build and the name.
uuid_of() {
    printf '%s %s' "$inputs" "$(basename "$1")" | sha256sum |
        sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-5\3-a\4-\5/'
}

# system_disk DIR SIZE OUT: MBR, GRUB for BIOS, one ext4 partition at 1 MiB.
system_disk() {
    local root=$1 size=$2 out=$3 core sectors
    rm -f "$out"
    truncate -s "$size" "$out"
    printf 'label: dos\nlabel-id: 0x%s\nstart=2048, type=83, bootable\n' \
        "$(printf '%s' "$inputs$out" | sha256sum | cut -c1-8)" >"$work/table"
    within "sfdisk $out" sfdisk --quiet --no-reread --no-tell-kernel "$out" <"$work/table"
    within "mke2fs $out" mke2fs -q -F -t ext4 -L flipside-root -m 1 -d "$root" \
        -U "$root_uuid" -O ^metadata_csum_seed,^orphan_file \
        -E offset=1048576,lazy_itable_init=0,lazy_journal_init=0,assume_storage_prezeroed=1 \
        "$out" "$((($(stat -c %s "$out") - 1048576) / 1024))k"

    # GRUB: boot.img in the first 440 bytes (it loads sector 1), core.img in the
    # gap from sector 1 on (its first sector loads the rest from sector 2).
    core=$work/core.img
    within grub-mkimage grub-mkimage -O i386-pc -o "$core" -p '(,msdos1)/boot/grub' \
        biosdisk part_msdos ext2 normal linux search search_label search_fs_uuid \
        configfile echo test true gzio minicmd serial terminal reboot
    sectors=$((($(stat -c %s "$core") + 511) / 512))
    [ "$sectors" -lt 2047 ] || die "GRUB's core image does not fit before the partition"
    dd if=/usr/lib/grub/i386-pc/boot.img of="$out" bs=440 count=1 conv=notrunc status=none
    dd if="$core" of="$out" bs=512 seek=1 conv=notrunc status=none
}

# grub_files ROOT: GRUB's modules and a first menu; update-grub replaces the menu.
grub_files() {
    local root=$1 kernel
    kernel=$(cd "$root/boot" && ls vmlinuz-* | sort -V | tail -n 1)
    kernel=${kernel#vmlinuz-}
    [ -e "$root/boot/initrd.img-$kernel" ] || die "no initramfs for $kernel"
    mkdir -p "$root/boot/grub/i386-pc"
    cp /usr/lib/grub/i386-pc/*.{mod,lst} "$root/boot/grub/i386-pc/"
    # shellcheck disable=SC1091
    (
        . "$root/etc/default/grub"
        cat >"$root/boot/grub/grub.cfg" <<EOF
# The first menu, written by the image build; update-grub writes the next one.
set timeout=0
search --no-floppy --label flipside-root --set=root
linux /boot/vmlinuz-$kernel root=UUID=$root_uuid ro $GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT
initrd /boot/initrd.img-$kernel
boot
EOF
    )
}
