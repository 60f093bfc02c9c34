# Sourced by build.sh: progress lines, the deadline, and the host's own Debian
# mirrors. No mirror is named here; whatever the host's apt uses is used.

started=$SECONDS

say() { printf '[%4ds] %s\n' "$((SECONDS - started))" "$*" >&2; }
die() { printf 'guest: %s\n' "$*" >&2; exit 1; }

# Seconds left before the deadline given with --deadline.
time_left() { echo "$((deadline - (SECONDS - started)))"; }

# within WHAT COMMAND...: run a command in what is left of the time, its output in the log.
within() {
    local what=$1 left
    shift
    left=$(time_left)
    [ "$left" -gt 0 ] || die "no time left for: $what (--deadline $deadline)"
    local rc=0
    timeout --kill-after=10 "$left" "$@" >>"$log" 2>&1 || rc=$?
    if [ "$rc" = 124 ] || [ "$rc" = 137 ]; then
        die "$what did not end before the deadline of $deadline s; log: $log"
    elif [ "$rc" != 0 ]; then
        tail -n 25 "$log" >&2
        die "$what failed with status $rc; log: $log"
    fi
}

# The tools a build needs and the Debian packages that hold them.
needs() {
    local tool
    local -A package=([mmdebstrap]=mmdebstrap [mke2fs]=e2fsprogs [sfdisk]=fdisk
        [grub-mkimage]=grub-common [dpkg-deb]=dpkg [apt-get]=apt [flock]=util-linux
        [unshare]=util-linux [sha256sum]=coreutils [dpkg-scanpackages]=dpkg-dev)
    for tool in "${!package[@]}"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null || echo "${package[$tool]}"
    done | sort -u
    [ -e /usr/lib/grub/i386-pc/boot.img ] || echo grub-pc-bin
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || echo debian-archive-keyring
}

# sources SUITE...: "deb" lines for these suites, from the mirrors that the
# host's apt is set up with (for another release of Debian, the same mirrors).
sources() {
    local suite label uri
    local format='$(CODENAME) $(LABEL) $(COMPONENT) $(REPO_URI)'
    for suite; do
        label=Debian
        case $suite in *-security) label=Debian-Security ;; esac
        uri=$(apt-get indextargets --format "$format" 'Created-By: Packages' 2>/dev/null |
            awk -v suite="$suite" -v label="$label" '
                $3 != "main" { next }
                $1 == suite { exact = $4 }
                $2 == label && other == "" { other = $4 }
                END { print exact != "" ? exact : other }')
        [ -n "$uri" ] || die "the host's apt knows no mirror for $suite; add one and run apt-get update"
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main"
    done
}

# The host's proxy and validity settings, as options for another apt.
apt_settings() {
    apt-config dump 2>/dev/null |
        grep -E '^Acquire::(https?::(Proxy|CaInfo|Verify-Peer|Verify-Host)|Check-Valid-Until|Check-Date|Max-ValidTime|Retries)[: ]' |
        sed -E 's/^([^ ]+) "(.*)";$/\1=\2/' | grep -v '=$' || true
}

# apt_for DIR STATUS SUITE...: an apt of its own in DIR, as if STATUS were the
# dpkg database. Sets the array `apt`.
apt_for() {
    local dir=$1 status=$2 setting
    shift 2
    mkdir -p "$dir"/{lists/partial,archives/partial,empty}
    sources "$@" >"$dir/sources.list"
    apt=(apt-get -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts="$dir/empty"
        -o Dir::Etc::preferencesparts="$dir/empty" -o Dir::Etc::preferences=/dev/null
        -o Dir::State::lists="$dir/lists" -o Dir::State::status="$status"
        -o Dir::State::extended_states="$dir/extended_states"
        -o Dir::Cache::archives="$dir/archives" -o Dir::Cache="$dir"
        -o APT::Install-Recommends=false -o APT::Architecture=amd64 -o APT::Architectures::=amd64
        -o APT::Sandbox::User=root -o Acquire::Languages=none -o Debug::NoLocking=true)
}
