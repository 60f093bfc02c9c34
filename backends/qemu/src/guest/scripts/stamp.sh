# A text that changes whenever software is installed: what the databases of dpkg and rpm look like from outside.
# shellcheck shell=sh
set +f
stat -c '%n %s %Y' /var/lib/dpkg/status /var/lib/rpm/* /usr/lib/sysimage/rpm/* 2>/dev/null
exit 0
