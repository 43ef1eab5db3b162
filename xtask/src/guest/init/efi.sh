# Firmware and UEFI variables.

# The vendor GUID of our own variables. Linux does not allow changing such a variable once it exists.
vendor=6bca4ef5-6dc7-4c45-9b6d-1f5c3a0bb4a1
# EFI_GLOBAL_VARIABLE, for boot order and boot options (UEFI specification, section 3.3).
global=8be4df61-93ca-11d2-aa0d-00e098032b8c

variables=/sys/firmware/efi/efivars

# firmware: prints whether it is UEFI, and its vendor and version from SMBIOS.
firmware() {
    [ -d /sys/firmware/efi ] && kind=uefi || kind=other
    dmi=/sys/class/dmi/id
    say "firmware $kind $(cat $dmi/bios_vendor 2>/dev/null), $(cat $dmi/bios_version 2>/dev/null)"
}

# efivar create NAME VALUE, efivar get NAME: creates or prints a non-volatile variable of ours.
# efivar boot NAME [HEX...]: prints a boot variable, or sets it to bytes in hexadecimal.
# efivar delete NAME: deletes a boot variable.
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
    # A variable's file starts with its attributes: here non-volatile, boot and runtime access.
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
