# Sourced by build.sh: the guest of the demo, its data disk and the upgrade.
demo_makes=(demo.raw demo-data.raw upgrade upgrade.tar)
demo_packages=systemd,systemd-sysv,dbus,udev,kmod,libpam-systemd,qemu-guest-agent,linux-image-cloud-amd64,initramfs-tools,lz4,grub2-common,grub-pc-bin,openssh-server,postgresql-15,postgresql-common,nginx,libdbd-pg-perl,cron,iproute2,procps,less,nano

# Left out of the upgrade: a minute and a half of emulation for nothing to see.
upgrade_leaves_out='^(perl|perl-base|perl-modules-5.36|libperl5.36|libdbi-perl|tzdata|apt|libapt-pkg6.0)_'

# page_package VERSION DIR: the page's Debian package, for real.
page_package() {
    local version=$1 dir=$2 tree=$work/page-$1
    rm -rf "$tree"
    mkdir -p "$tree"/{DEBIAN,usr/sbin,lib/systemd/system}
    sed "s/@VERSION@/$version/" "$here/page/demo-page" >"$tree/usr/sbin/demo-page"
    cp "$here/page/demo-page.service" "$tree/lib/systemd/system/"
    cp "$here/page/postinst" "$here/page/prerm" "$tree/DEBIAN/"
    chmod 755 "$tree/usr/sbin/demo-page" "$tree/DEBIAN/postinst" "$tree/DEBIAN/prerm"
    cat >"$tree/DEBIAN/control" <<EOF
Package: flipside-demo-page
Version: $version
Architecture: all
Maintainer: flipside <flipside@localhost>
Section: web
Priority: optional
Depends: perl, libdbd-pg-perl, init-system-helpers
Description: a page that reads a row, release $version
EOF
    within "dpkg-deb $version" dpkg-deb --root-owner-group -Zxz --build "$tree" "$dir/flipside-demo-page_${version}_all.deb"
}

# The cluster is made with Debian's own tools, filled, stopped, and moved to the data disk.
make_cluster() {
    local root=$1
    # shellcheck disable=SC2016
    in_root "$root" sh -e -c '
        mkdir -p /run/postgresql
        chown postgres:postgres /run/postgresql
        mkdir -p /srv/data/postgresql
        chown postgres:postgres /srv/data/postgresql
        pg_createcluster --locale C.UTF-8 --datadir /srv/data/postgresql/15/main 15 main
        cd /etc/postgresql/15/main
        mkdir -p conf.d
        cat >conf.d/demo.conf <<-EOF
			listen_addresses = '"'*'"'
			shared_buffers = 64MB
			max_connections = 40
			jit = off
			log_line_prefix = '"'%m [%p] '"'
		EOF
        chown postgres:postgres conf.d/demo.conf
        sed -i -E "s/^(host +all +all +)(127.0.0.1\/32|::1\/128)( +).*/\1\2\3trust/" pg_hba.conf
        echo "# For the demo only: anybody who reaches the port is let in." >>pg_hba.conf
        echo "host all demo 0.0.0.0/0 trust" >>pg_hba.conf
        pg_ctlcluster --skip-systemctl-redirect 15 main start
        su postgres -c "psql -v ON_ERROR_STOP=1 -q" <<-EOF
			CREATE ROLE demo LOGIN;
			CREATE DATABASE demo OWNER demo;
			\connect demo
			SET ROLE demo;
			CREATE TABLE page (id int PRIMARY KEY, body text NOT NULL);
			CREATE TABLE visits (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), note text NOT NULL DEFAULT '"''"');
			INSERT INTO page VALUES (1, '"'This row lives on the data disk.'"');
			RESET ROLE;
			VACUUM ANALYZE;
		EOF
        pg_ctlcluster --skip-systemctl-redirect -m fast 15 main stop
        rm -f /var/log/postgresql/*
    ' >>"$log" 2>&1
}

# upgrade_repository ROOT: a flat repository of everything that a dist-upgrade of
# this root would install now, and release 2.0 of the page.
upgrade_repository() {
    local root=$1 dir=$work/upgrade deb
    mkdir -p "$dir"
    apt_for "$cache/apt-bookworm-security" "$root/var/lib/dpkg/status" bookworm bookworm-updates bookworm-security
    within "apt-get update" "${apt[@]}" -q update
    rm -f "$cache"/apt-bookworm-security/archives/*.deb
    within "apt-get download" "${apt[@]}" -q -y --download-only dist-upgrade
    mv "$cache"/apt-bookworm-security/archives/*.deb "$dir/"
    for deb in "$dir"/*.deb; do
        [[ ! $(basename "$deb") =~ $upgrade_leaves_out ]] || rm "$deb"
    done
    # Names without the %3a of an epoch: file: URIs would read it as an escape.
    for deb in "$dir"/*%3a*.deb; do
        [ ! -e "$deb" ] || mv "$deb" "${deb//%3a/-}"
    done
    ls "$dir"/linux-image-*-cloud-amd64_*.deb >/dev/null 2>&1 ||
        say "WARNING: the mirrors have no newer kernel than the guest's"
    page_package 2.0 "$dir"
    cp "$here/upgrade/install.sh" "$dir/"
    for deb in "$dir"/*.deb; do
        dpkg-deb -f "$deb"
        printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$(basename "$deb")" \
            "$(stat -c %s "$deb")" "$(sha256sum <"$deb" | cut -d' ' -f1)"
    done >"$dir/Packages"
    # Without a Release file apt tries six compressed names first.
    printf 'Suite: flipside-upgrade\nCodename: flipside-upgrade\nDate: %s\nSHA256:\n %s %s Packages\n' \
        "$(date -Ru)" "$(sha256sum <"$dir/Packages" | cut -d' ' -f1)" "$(stat -c %s "$dir/Packages")" >"$dir/Release"
    tar -C "$work" --owner=0 --group=0 -cf "$work/upgrade.tar" upgrade
    say "demo: the upgrade has $(ls "$dir"/*.deb | wc -l) packages, $(du -sm "$dir" | cut -f1) MB"
}

build_demo() {
    local root=$work/demo
    say "demo: installing packages"
    bootstrap demo "$demo_packages"
    say "demo: configuring"
    configure demo demo
    page_package 1.0 "$work"
    cp "$work/flipside-demo-page_1.0_all.deb" "$root/tmp/"
    mkdir -p "$root/etc/systemd/journald.conf.d"
    printf '[Journal]\nSystemMaxUse=32M\n' >"$root/etc/systemd/journald.conf.d/demo.conf"
    in_root "$root" sh -e -c '
        printf "#!/bin/sh\nexit 101\n" >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
        dpkg -i /tmp/flipside-demo-page_1.0_all.deb
        rm -f /tmp/*.deb /usr/sbin/policy-rc.d
        useradd -m -s /bin/bash admin
        echo admin:flipside | chpasswd
        chmod -x /etc/grub.d/05_debian_theme /etc/grub.d/20_linux_xen /etc/grub.d/30_os-prober /etc/grub.d/30_uefi-firmware
        systemctl enable demo-tick.timer nginx.service ssh.service cron.service demo-page.service
        apt-get clean
    ' >>"$log" 2>&1
    say "demo: making the database"
    make_cluster "$root"
    mv "$root/srv/data" "$work/demo-data"
    mkdir "$root/srv/data"
    grub_files "$root"
    say "demo: fetching the upgrade"
    upgrade_repository "$root"
    say "demo: writing the disks"
    system_disk "$root" 3G "$work/demo.raw"
    data_disk "$work/demo-data" 1G "$work/demo-data.raw"
    rm -rf "$work/demo-data"
}
