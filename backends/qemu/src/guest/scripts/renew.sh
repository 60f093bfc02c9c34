# Asks the DHCP server of a card for a longer lease; the address stays whatever comes of it (RC-53). Prints renewed, silent,
# or untried and the reason. Arguments: the card, seconds to wait.
# shellcheck shell=sh
card=$1 wait=$2
IFS= read -r index <"/sys/class/net/$card/ifindex" || { echo 'untried no such card'; exit 0; }
lease=/run/systemd/netif/leases/$index
if [ ! -e "$lease" ] || ! command -v networkctl >/dev/null 2>&1; then
    echo 'untried only the leases of systemd-networkd can be renewed without giving the address up'
    exit 0
fi
# The lease is written anew when the server has answered.
before=$(stat -c '%i %Y %y' "$lease")
networkctl renew "$card" >/dev/null 2>&1 || { echo 'untried networkctl cannot renew leases here'; exit 0; }
seconds
end=$((seconds + wait))
while :; do
    now=$(stat -c '%i %Y %y' "$lease" 2>/dev/null) || now=gone
    [ "$now" = "$before" ] || { echo renewed; exit 0; }
    seconds
    [ "$seconds" -lt "$end" ] || { echo silent; exit 0; }
    sleep 0.2
done
