#!/usr/bin/env bash
# Starts the board that make.sh assembled: `ssh -p PORT -i FOLDER/id root@127.0.0.1`. DISK is made where it is missing and
# keeps what was installed; killing this process is a power cut.
#
#   boards/emulated/start.sh FOLDER DISK PORT
set -euo pipefail
[[ $# -eq 3 ]] || { sed -n '2,5s/^#\( \|$\)//p' "$0"; exit 64; }
[[ -e $2 ]] || { truncate -s 256M "$2.part" && mkfs.ext4 -q "$2.part" && mv "$2.part" "$2"; }
exec qemu-system-aarch64 -M virt -cpu cortex-a76 -smp 2 -m 1024 -nographic -no-reboot -monitor none \
  -kernel "$1/vmlinuz" -initrd "$1/initrd.gz" -append "console=ttyAMA0 rdinit=/init quiet" \
  -drive "file=$2,if=none,id=disk,format=raw" -device virtio-blk-pci,drive=disk \
  -netdev "user,id=net,hostfwd=tcp:127.0.0.1:$3-:22" -device virtio-net-pci,netdev=net,romfile=
