#!/bin/sh
# rootfs.sh DIRECTORY PROGRAM...: puts the programs into DIRECTORY/usr/sbin, and the libraries they are linked to where they
# look for them. The file system of the image is made of nothing else.
set -eu
root=$1
shift
mkdir -p "$root/usr/sbin" "$root/etc" "$root/run" "$root/sys" "$root/proc" "$root/dev"
for program in "$@"; do
    cp -L "$program" "$root/usr/sbin/"
    # `name => /path (address)`, or `/path (address)` for the loader.
    libraries=$(ldd "$program" | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p')
    for library in $libraries; do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
done
