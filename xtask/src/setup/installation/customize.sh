# After packages are installed in $1: makes a system of it that boots.
set -e
PATH=$PATH:/usr/sbin:/sbin
echo installation >"$1/etc/hostname"
chroot "$1" systemd-machine-id-setup
cat >"$1/etc/fstab" <<END
UUID=$root / ext4 errors=remount-ro 0 1
UUID=$swap none swap sw 0 0
END
mkdir -p "$1/boot/grub"
cat >"$1/boot/grub/grub.cfg" <<END
set timeout=0
menuentry Debian {
    linux /vmlinuz root=UUID=$root ro console=ttyS0 quiet resume=UUID=$swap
    initrd /initrd.img
}
END

# An emulated machine on a busy host needs longer than the usual 90 seconds.
mkdir -p "$1/etc/systemd/system.conf.d"
cat >"$1/etc/systemd/system.conf.d/slow.conf" <<'END'
[Manager]
DefaultDeviceTimeoutSec=1h
DefaultTimeoutStartSec=1h
DefaultTimeoutStopSec=1h
END
# What a test does not wait for.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer getty@tty1.service; do
    chroot "$1" systemctl --quiet mask "$unit"
done

# root logs in on the serial console by itself, and is told when the system resumes.
mkdir -p "$1/etc/systemd/system/serial-getty@ttyS0.service.d" "$1/usr/lib/systemd/system-sleep"
cat >"$1/etc/systemd/system/serial-getty@ttyS0.service.d/login.conf" <<'END'
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200 %I dumb
END
cat >"$1/root/.profile" <<'END'
say() {
    echo "vmtest: $*"
}
. /root/session.sh
say ready
END
cat >"$1/usr/lib/systemd/system-sleep/say" <<'END'
#!/bin/sh
[ "$1" = pre ] || echo "vmtest: resumed" >/dev/console
END
chmod 755 "$1/usr/lib/systemd/system-sleep/say"
