# Disks.

# disks: prints a line for each disk: name, size in bytes, serial number or "-", and "ro" or "rw".
disks() {
    for device in /sys/block/vd*; do
        [ -e "$device" ] || continue
        serial=$(cat "$device/serial" 2>/dev/null)
        [ "$(cat "$device/ro")" = 1 ] && access=ro || access=rw
        say "disk ${device##*/} $(($(cat "$device/size") * 512)) ${serial:--} $access"
    done
    say "disks done"
}

# pattern SEED MIB: prints text that is different in each block and for each seed.
pattern() {
    seq "$1" 1000000000 | head -c $(($2 << 20))
}

# sum: prints the checksum of standard input.
sum() {
    sha256sum | cut -d ' ' -f 1
}

# disk write NAME SEED OFFSET MIB: writes and syncs a pattern at an offset in MiB; prints its checksum.
# disk read NAME OFFSET MIB: reads past all caches; prints the checksum.
# disk discard NAME OFFSET MIB
disk() {
    verb=$1 file=/dev/$2
    case "$verb" in
    write)
        pattern "$3" "$5" >/tmp/pattern
        dd if=/tmp/pattern of="$file" bs=1M seek="$4" conv=notrunc,fsync 2>/dev/null
        status=$?
        say "disk write $status $(sum </tmp/pattern)"
        rm -f /tmp/pattern
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

# esp PARTITION: lists the files on an EFI system partition.
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
