# Makes a file system of $1 in $1/root.ext4.
set -e
PATH=$PATH:/usr/sbin:/sbin
rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*
# Without what is mounted in it.
mkdir "$1.bound"
mount --bind "$1" "$1.bound"
# GRUB does not read all that newer versions of mke2fs turn on.
mke2fs -q -t ext4 -O ^metadata_csum_seed -U "$root" -d "$1.bound" "$1.ext4" 512M
umount "$1.bound"
rmdir "$1.bound"
mv "$1.ext4" "$1/root.ext4"
