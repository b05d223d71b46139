#!/usr/bin/env bash
# Assembles a small ARM board for qemu-system-aarch64: Debian's arm64 kernel, and an initramfs with busybox, an ssh server
# and excon-edge. What it installs lies on a disk of its own, so that a power cut is one. Takes about a minute.
set -euo pipefail

usage() {
  cat <<'END'
Assembles a small ARM board to be emulated.

Usage: boards/emulated/make.sh EXCON_EDGE FOLDER

  EXCON_EDGE   the board's command, built for aarch64 (docs/boards.md)
  FOLDER       where vmlinuz, initrd.gz and the key to log in with (id, id.pub) go

Needs Debian's apt-get and dpkg, cpio, gzip and ssh-keygen. boards/emulated/start.sh starts what it makes.
END
}
[[ $# -eq 2 && $1 != --help ]] || { usage; exit 64; }
for tool in apt-get dpkg cpio ssh-keygen; do
  command -v "$tool" >/dev/null || { echo "make.sh: $tool is missing" >&2; exit 69; }
done
edge=$(realpath "$1")
mkdir -p "$2"
folder=$(cd "$2" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "$folder/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

source "$here/../debian-arm64.sh"
arm64_index "$work"
kernel=$(apt-cache "${options[@]}" depends linux-image-arm64:arm64 | sed -n 's/.*Depends: \(linux-image-[^:]*\).*/\1/p' | head -n 1)
arm64_download "$work" {"$kernel",busybox-static,dropbear-bin,libc6,libcrypt1,libgcc-s1,libgmp10,libtomcrypt1,libtommath1,zlib1g}:arm64

# In the order in which they need each other; what the kernel has built in is not a file.
modules=(failover net_failover virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_mmio virtio_net virtio_blk
  crc16 crc32c_generic mbcache jbd2 ext4)
board=$work/board
mkdir -p "$board"/{dev,etc,mods,proc,root/.ssh,sys,tmp,usr/bin,var/lib}
ln -s usr/bin "$board/bin"
cp -a "$work/root/lib" "$board/"
rm -rf "$board/lib/modules" "$board/lib/systemd"
cp -a "$work/root/usr/lib" "$board/usr/"
cp "$work"/root/usr/sbin/dropbear "$work"/root/bin/busybox "$board/usr/bin/"
cp "$edge" "$board/usr/bin/excon-edge"
for module in "${modules[@]}"; do
  file=$(find "$work/root/lib/modules" -name "$module.ko*" | head -n 1)
  case $file in
    '') ;;
    *.xz) xz -dc "$file" >"$board/mods/$module.ko" ;;
    *) cp "$file" "$board/mods/" ;;
  esac
done
printf '%s\n' "${modules[@]}" >"$board/mods/order"
cp "$here/init" "$board/init"
echo 'root:x:0:0:root:/root:/bin/sh' >"$board/etc/passwd"
echo 'root:x:0:' >"$board/etc/group"
echo '/bin/sh' >"$board/etc/shells"
rm -f "$folder"/id "$folder"/id.pub
ssh-keygen -q -t ed25519 -N '' -C emulated -f "$folder/id"
cp "$folder/id.pub" "$board/root/.ssh/authorized_keys"
chmod 700 "$board/root" "$board/root/.ssh"
chmod 600 "$board/root/.ssh/authorized_keys"
chmod 755 "$board/init" "$board/usr/bin/excon-edge"

cp "$work"/root/boot/vmlinuz-* "$folder/vmlinuz"
(cd "$board" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1) >"$folder/initrd.part"
mv "$folder/initrd.part" "$folder/initrd.gz"
