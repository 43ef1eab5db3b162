# Before packages are installed in $1.
set -e
# For the initramfs, which the kernel's package makes.
mkdir -p "$1/etc/initramfs-tools/conf.d"
echo "RESUME=UUID=$swap" >"$1/etc/initramfs-tools/conf.d/resume"
