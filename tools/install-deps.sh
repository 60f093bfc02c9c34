#!/usr/bin/env bash
# Installs what flipside's demo and tests need and what is missing on this machine.
#
#   tools/install-deps.sh [--nextest | --browser]
#
# Debian's packages come through apt-get, cargo-nextest (asked for with --nextest) through cargo.
# --browser asks for Chromium besides, in which the console is tested. Says nothing and takes some
# milliseconds when nothing is missing.
set -euo pipefail

say() { printf 'install-deps: %s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

with_nextest=no
with_browser=no
case ${1-} in
    '') ;;
    --nextest) with_nextest=yes ;;
    --browser) with_browser=yes ;;
    *) fail "unknown argument '$1'; usage: tools/install-deps.sh [--nextest | --browser]" ;;
esac

# The machines.
qemu=(qemu-system-x86 qemu-utils)
# Firmware and network ROMs, the tools that build and boot the guest images, and those that the tests look around with.
others=(ovmf seabios ipxe-qemu mmdebstrap e2fsprogs grub-pc-bin grub2-common fdisk xz-utils procps iproute2 cpio
    nftables tcpdump libxml2-utils xsltproc)

[ "$with_browser" = no ] || others+=(chromium fonts-dejavu-core)

# Prints those of the given packages that are not installed.
missing_of() {
    local have
    # dpkg-query fails when it does not know one of them, and still prints the others.
    have=$(dpkg-query --show --showformat='${binary:Package} ${db:Status-Status}\n' "$@" 2>/dev/null) || true
    local package
    for package in "$@"; do
        # The name may carry an architecture, as in `cpio:amd64`.
        [[ $'\n'$have$'\n' =~ $'\n'$package(:[a-z0-9]+)?' installed'$'\n' ]] || printf '%s\n' "$package"
    done
}

install_packages() {
    command -v apt-get >/dev/null ||
        fail "missing: $*; this script knows Debian's packages only, and there is no apt-get: install their like by hand"
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null ||
            fail "missing: $*; installing them needs root, and there is no sudo: run tools/install-deps.sh as root"
        say "you are not root, so packages are installed with sudo, which may ask for your password"
        as_root=(sudo)
    fi
    # A machine that has just started may be updating itself: wait for it, some minutes at most.
    local apt_get=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300)
    say "missing on this machine: $*"
    say "fetching the package lists first, so that no outdated version is asked for"
    "${apt_get[@]}" update -qq || fail "'apt-get update' failed, so nothing was installed; its message is above"

    # QEMU's two packages must have one version. Where one of them came from another suite (backports), the other would
    # conflict, so both are asked for with the version that apt would choose for the first.
    local wanted=() version
    version=$(LC_ALL=C apt-cache policy "${qemu[0]}" | sed -n 's/^  Candidate: //p')
    [[ -n $version && $version != '(none)' ]] ||
        fail "no package source offers ${qemu[0]}; are Debian's own sources configured?"
    local package
    for package in "$@"; do
        [[ " ${qemu[*]} " == *" $package "* ]] || wanted+=("$package")
    done
    if [ ${#wanted[@]} -ne $# ]; then
        wanted+=("${qemu[@]/%/=$version}")
    fi
    say "installing ${wanted[*]}"
    "${apt_get[@]}" install -y -qq --no-install-recommends --allow-downgrades "${wanted[@]}" >&2 ||
        fail "'apt-get install' failed; its message is above"
}

if command -v dpkg-query >/dev/null; then
    mapfile -t missing < <(missing_of "${qemu[@]}" "${others[@]}")
else
    missing=("${qemu[@]}" "${others[@]}")
fi
[ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"

if [ "$with_nextest" = yes ] && ! command -v cargo-nextest >/dev/null && ! [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo-nextest" ]; then
    say "cargo-nextest, which runs the tests, is missing: building it with cargo, which takes some minutes once"
    cargo install --locked cargo-nextest || fail "'cargo install --locked cargo-nextest' failed; its message is above"
fi
