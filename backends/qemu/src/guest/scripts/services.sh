# Describes units, in the order asked; the first line tells the gate. Arguments: units.
# shellcheck shell=sh
if [ -e $gate/open ]; then echo open; else echo closed; fi
systemctl show -p Id,LoadState,ActiveState,UnitFileState,DropInPaths,TriggeredBy,RefuseManualStop -- "$@"
