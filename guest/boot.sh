#!/bin/bash
# Boots a guest image by hand, with its serial console here.
#   guest/boot.sh [--write] IMAGE [DATA]        end it with Ctrl-a x
# Without --write nothing is changed: QEMU keeps what is written in a temporary
# file. Ports on 127.0.0.1 only; MEMORY, CPUS, HTTP, SSH and PG change the defaults.
set -euo pipefail

keep=(-snapshot)
if [ "${1-}" = --write ]; then keep=(); shift; fi
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
for image; do
    [ -f "$image" ] || { echo "no such image: $image" >&2; exit 1; }
    case $image in *,*) echo "a comma in a path is not supported: $image" >&2; exit 1 ;; esac
done

agent=$(mktemp -u "${TMPDIR:-/tmp}/guest-agent.XXXXXX")
trap 'rm -f "$agent"' EXIT
accel=${FLIPSIDE_ACCEL:-tcg}
cpu=host
# Never -cpu max under TCG, see the project's notes on QEMU.
[ "$accel" != tcg ] || { accel=tcg,thread=multi; cpu=Nehalem; }

data=()
if [ $# = 2 ]; then
    data=(-drive "if=none,id=data0,format=raw,file=$2" -device scsi-hd,bus=scsi.0,drive=data0,serial=data0,device_id=data0)
fi
forward=hostfwd=tcp:127.0.0.1
echo "page http://127.0.0.1:${HTTP:-8080}/  ssh port ${SSH:-2222}  PostgreSQL port ${PG:-15432}  agent $agent" >&2
echo "log in as root, password flipside; end with Ctrl-a x" >&2
qemu-system-x86_64 -nodefaults "${keep[@]}" -machine q35 -accel "$accel" -cpu "$cpu" \
    -m "${MEMORY:-1G}" -smp "${CPUS:-2}" -display none -vga std -serial mon:stdio \
    -device virtio-scsi-pci,id=scsi \
    -drive "if=none,id=system0,format=raw,file=$1" \
    -device scsi-hd,bus=scsi.0,drive=system0,serial=system0,device_id=system0,bootindex=0 \
    "${data[@]}" \
    -device virtio-serial-pci -chardev "socket,id=agent,path=$agent,server=on,wait=off" \
    -device virtserialport,chardev=agent,name=org.qemu.guest_agent.0 \
    -netdev "user,id=net0,$forward:${HTTP:-8080}-:80,$forward:${SSH:-2222}-:22,$forward:${PG:-15432}-:5432" \
    -device virtio-net-pci,netdev=net0
