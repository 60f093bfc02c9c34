# Lists installed packages: name, version. Knows dpkg and rpm; says so when neither is there.
# shellcheck shell=sh
if command -v dpkg-query >/dev/null 2>&1; then
    # The third letter is an error; "installed" is the second one's i.
    dpkg-query -W -f='${db:Status-Abbrev}\t${binary:Package}\t${Version}\n' | sed -n 's/^.i[^\t]*\t//p'
elif command -v rpm >/dev/null 2>&1; then
    rpm -qa --qf '%{NAME}.%{ARCH}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\n'
else
    echo 'neither dpkg nor rpm is there' >&2
    exit 69
fi
