# Disks.

# disks: one line for each: name, size in bytes, serial number or "-", and "ro" or "rw".
disks() {
    for device in /sys/block/vd*; do
        [ -e "$device" ] || continue
        serial=$(cat "$device/serial" 2>/dev/null)
        [ "$(cat "$device/ro")" = 1 ] && access=ro || access=rw
        say "disk ${device##*/} $(($(cat "$device/size") * 512)) ${serial:--} $access"
    done
    say "disks done"
}

# pattern SEED MIB: text that differs from block to block, and for each seed.
pattern() {
    seq "$1" 1000000000 | head -c $(($2 << 20))
}

# sum: the checksum of standard input.
sum() {
    sha256sum | cut -d ' ' -f 1
}

# disk write NAME SEED OFFSET MIB: a pattern, at an offset in MiB, down to the medium; says its checksum.
# disk read NAME OFFSET MIB: says the checksum of what is there, around all caches.
# disk discard NAME OFFSET MIB
disk() {
    verb=$1 file=/dev/$2
    case "$verb" in
    write)
        pattern "$3" "$5" | dd of="$file" bs=1M seek="$4" iflag=fullblock conv=notrunc,fsync 2>/dev/null
        status=$?
        say "disk write $status $(pattern "$3" "$5" | sum)"
        ;;
    read)
        echo 3 >/proc/sys/vm/drop_caches
        dd if="$file" bs=1M skip="$3" count="$4" iflag=direct of=/tmp/read 2>/dev/null
        status=$?
        say "disk read $status $(sum </tmp/read)"
        rm -f /tmp/read
        ;;
    discard)
        blkdiscard -o $(($3 << 20)) -l $(($4 << 20)) "$file"
        say "disk discard $?"
        ;;
    *) say "unknown disk $verb" ;;
    esac
}

# esp PARTITION: the files on an EFI system partition.
esp() {
    load fat
    mkdir -p /tmp/esp
    if mount -t vfat -o ro "$1" /tmp/esp; then
        (cd /tmp/esp && find . -type f) | while read -r file; do
            say "esp $file"
        done
        umount /tmp/esp
        say "esp done"
    else
        say "esp failed"
    fi
}
