# What the firmware offers to the running system.

# The vendor of our own variables. Linux lets nobody change such a variable once it is there.
vendor=6bca4ef5-6dc7-4c45-9b6d-1f5c3a0bb4a1
# EFI_GLOBAL_VARIABLE, for boot order and boot options (UEFI specification, section 3.3).
global=8be4df61-93ca-11d2-aa0d-00e098032b8c

variables=/sys/firmware/efi/efivars

# firmware: who made it, by its SMBIOS tables, and whether it is UEFI.
firmware() {
    [ -d /sys/firmware/efi ] && kind=uefi || kind=other
    dmi=/sys/class/dmi/id
    say "firmware $kind $(cat $dmi/bios_vendor 2>/dev/null), $(cat $dmi/bios_version 2>/dev/null)"
}

# efivar create NAME VALUE, efivar get NAME: a non-volatile variable of ours.
# efivar boot NAME [HEX...]: a boot variable, which may also be changed: read, or set to bytes in hexadecimal.
# efivar delete NAME: a boot variable.
efivar() {
    verb=$1 name=$2 value=$3
    if [ ! -e "$variables/." ]; then
        say "efivar: no UEFI"
        return
    fi
    if ! grep -q " $variables efivarfs " /proc/mounts; then
        load efi
        mount -t efivarfs efivarfs "$variables"
    fi
    file=$variables/vmtest_$name-$vendor
    case "$verb" in
    # A variable's file starts with its attributes: here non-volatile, for boot and run time.
    create) printf '\007\000\000\000%s' "$value" >"$file" ;;
    get)
        [ -e "$file" ] && value=$(tail -c +5 "$file") || value="is not there"
        say "efivar $name $value"
        return
        ;;
    delete) rm -f "$variables/$name-$global" ;;
    boot)
        file=$variables/$name-$global
        shift 2
        if [ $# = 0 ]; then
            say "efivar $name $(tail -c +5 "$file" | od -An -v -tx1 | tr -s ' \n' ' ')"
            return
        fi
        bytes='\007\000\000\000'
        for hex in "$@"; do
            bytes="$bytes\\$(printf %03o "0x$hex")"
        done
        # shellcheck disable=SC2059 # the bytes are a format on purpose
        printf "$bytes" >"$file"
        ;;
    *) say "unknown efivar $verb" && return ;;
    esac
    say "efivar $verb $?"
}
