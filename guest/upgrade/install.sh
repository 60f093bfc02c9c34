#!/bin/sh
# Installs the upgrade from this folder's package repository: run it as root in
# the guest (on the Upgrade Side), then restart into the new kernel.
#   install.sh [FOLDER]      the folder is its own by default, usually /opt/upgrade
set -eu
here=$(cd "${1:-$(dirname "$0")}" && pwd)
[ -e "$here/Packages" ] || { echo "no package repository in $here" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "run as root" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

# Packages must not start, stop or reload anything meanwhile: what is held stays
# held, and the restart into the new kernel starts everything anew. So the
# maintainer scripts get a view without a running systemd (as in a chroot; it also
# saves a dozen reloads of systemd, 5 to 15 seconds each under emulation), and
# policy-rc.d says no. FLIPSIDE_LIVE=1 leaves systemd in view.
if [ -z "${FLIPSIDE_INNER-}" ] && [ "${FLIPSIDE_LIVE-}" != 1 ]; then
    export FLIPSIDE_INNER=1
    exec unshare --mount sh -c 'mount -t tmpfs -o mode=755 tmpfs /run/systemd && exec "$0" "$@"' "$here/install.sh" "$here"
fi
policy=/usr/sbin/policy-rc.d
sources=/etc/apt/sources.list.d/flipside-upgrade.list
ours=no
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    ours=yes
fi
finish() { [ $ours = no ] || rm -f $policy; }
trap finish EXIT
trap 'exit 1' INT TERM HUP

echo "deb [trusted=yes] file:$here ./" >$sources
apt-get -q update
apt-get -q -y -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-confdef dist-upgrade
rm -f $sources
echo "upgraded: $(dpkg-query -W -f '${Package} ${Version}, ' linux-image-cloud-amd64 postgresql-15 nginx flipside-demo-page | sed 's/, $//')"
echo "restart to run the new kernel"
