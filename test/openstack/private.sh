#!/bin/bash
# private.sh COMMAND...: runs a command as on a machine of its own, with its own
# processes, network (loopback alone), instances and libvirt: nothing of the
# machine's is touched, and all that the command leaves ends with it. Root only;
# what it installs must be installed before.
set -euo pipefail

if [ "${1:-}" != --inside ]; then
	exec unshare --mount --pid --net --ipc --fork --mount-proc --kill-child bash "$0" --inside "$@"
fi
shift

own=$(mktemp -d "${TMPDIR:-/var/tmp}/openstack-XXXXXX")
chmod 755 "$own"
trap 'rm -rf "$own"' EXIT

ip link set lo up
mount -t tmpfs tmpfs /run
umount -l /sys/fs/cgroup 2> /dev/null || true # guests get no control groups
# Debian's own configuration comes along; what a libvirtd knew of domains does not.
for dir in /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /var/lib/nova; do
	mkdir -p "$own$dir" "$dir"
	[ "$dir" = /var/lib/nova ] || cp -a "$dir/." "$own$dir/"
	chown --reference="$dir" "$own$dir"
	mount --bind "$own$dir" "$dir"
done
rm -rf /etc/libvirt/qemu/*.xml /var/lib/libvirt/qemu/domain-*
mkdir "$own/bed"
export BED_DIR="$own/bed"

status=0
"$@" || status=$?
umount -l /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /var/lib/nova
exit "$status"
