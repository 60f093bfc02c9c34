# How the operating system is: lines of key and value.
# shellcheck shell=sh
if [ -r /etc/os-release ]; then
    name=$(. /etc/os-release && printf %s "${PRETTY_NAME-}")
    printf 'system\t%s\n' "$name"
fi
printf 'state\t%s\n' "$(systemctl is-system-running 2>/dev/null)"
printf 'kernel\t%s\n' "$(uname -r)"
# Only kernels that can be booted: a module directory may outlive its kernel.
set +f
for file in /boot/vmlinuz-* /usr/lib/modules/*/vmlinuz; do
    [ -e "$file" ] || continue
    case $file in
        /boot/*) version=${file#/boot/vmlinuz-} ;;
        *) version=${file%/vmlinuz}; version=${version##*/} ;;
    esac
    case $version in *rescue*) ;; *) printf '%s\n' "$version" ;; esac
done | sort -Vu | tail -n 1 | sed "s/^/newest$tab/"
set -f
systemctl list-units --failed --plain --no-legend --no-pager 2>/dev/null |
    while read -r unit _; do printf 'failed\t%s\n' "$unit"; done
[ ! -e /run/reboot-required ] || printf 'restart\t%s\n' "the system asks for it (/run/reboot-required)"
if [ -r /run/reboot-required.pkgs ]; then
    sort -u /run/reboot-required.pkgs | while read -r package; do printf 'restart\tpackage %s\n' "$package"; done
fi
if command -v needs-restarting >/dev/null 2>&1 && ! needs-restarting -r >/dev/null 2>&1; then
    printf 'restart\t%s\n' 'needs-restarting asks for it'
fi
