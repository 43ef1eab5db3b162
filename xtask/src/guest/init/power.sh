# Hibernating and resuming.

# states: prints the sleep states, and the hibernation modes with the selected one in brackets.
states() {
    say "states $(cat /sys/power/state)"
    say "hibernation $(cat /sys/power/disk)"
}

# signature DISK: prints the signature at the end of the first page: SWAPSPACE2 for swap space, S1SUSPEND if that holds
# a hibernated session.
signature() {
    dd if="$1" bs=1 skip=4086 count=10 2>/dev/null | tr -cd 'A-Z0-9'
}

# complaints: prints the kernel's errors about hibernation.
complaints() {
    dmesg | grep -E '(PM: |hibernation).*([Ee]rror|[Ff]ail|mismatch|[Cc]annot|[Nn]ot |abort)' | cut -d ']' -f 2- |
        while read -r line; do
            say "kernel: $line"
        done
}

# Resumes the session that a disk holds, if there is one. Returns only if that failed.
resume_hibernated() {
    for device in /sys/block/vd*; do
        disk=/dev/${device##*/}
        [ "$(signature "$disk")" = S1SUSPEND ] || continue
        say "resuming from $disk"
        cat "$device/dev" >/sys/power/resume
        say "not resumed"
        complaints
    done
}

# hibernate [DISK]: saves the session to this disk (default: the first one) and powers off. The output after
# "hibernating" is printed when the session is resumed.
hibernate() {
    disk=${1:-/dev/vda}
    case "$(signature "$disk")" in
    SWAPSPACE2) ;;
    *) mkswap "$disk" >/dev/null ;;
    esac
    if ! grep -q "^$disk " /proc/swaps && ! swapon "$disk"; then
        say "no swap space on $disk"
        return
    fi
    grep -q platform /sys/power/disk && echo platform >/sys/power/disk
    cat "/sys/block/${disk##*/}/dev" >/sys/power/resume
    states
    say "hibernating"
    if echo disk >/sys/power/state; then
        say "resumed"
        session
        execute clock
    else
        say "not hibernated"
        complaints
    fi
}
