#!/bin/busybox sh
# The guest's first program, in its initramfs: puts a writable layer over the host's root and goes there. By
# switch_root and not chroot: the kernel looks for modprobe in the first root.
bb=/bin/busybox
$bb mkdir -p /proc /sys /dev /lower /layer /new
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs dev /dev
while read -r module; do $bb insmod "/modules/$module" || echo "insmod $module failed"; done < /order
$bb mount -t virtiofs -o ro root /lower
$bb mount -t tmpfs -o size=75% tmpfs /layer
$bb mkdir /layer/upper /layer/work
$bb mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work overlay /new
for dir in proc sys dev; do $bb mount --move "/$dir" "/new/$dir"; done
# What runs on the host is none of the guest's business.
$bb mount -t tmpfs tmpfs /new/run
$bb mkdir -p /new/run/eip-gateway-vm /new/lib/modules
$bb cp /guest.sh /command.sh /new/run/eip-gateway-vm
$bb ln -s "$($bb cat /modules-dir)" "/new/lib/modules/$($bb uname -r)"
exec $bb switch_root /new /bin/sh /run/eip-gateway-vm/guest.sh
