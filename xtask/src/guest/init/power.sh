# Hibernation: sessions that are told from one another, sleep, and waking up.

# bootid: the kernel's name for this session.
bootid() {
    say "bootid $(cat /proc/sys/kernel/random/boot_id)"
}

# token: a random value that only this process's memory holds.
token() {
    [ -n "$token" ] || token=$(cat /proc/sys/kernel/random/uuid)
    say "token $token"
}

# counter: what a process that counts ten times a second has come to, and its id. Started at the first call.
counter() {
    if [ -z "$counter" ]; then
        echo 0 >/tmp/count
        while sleep 0.1; do
            count=$((count + 1))
            echo "$count" >/tmp/count.new && mv /tmp/count.new /tmp/count
        done &
        counter=$!
    fi
    if kill -0 "$counter" 2>/dev/null; then
        say "counter $counter $(cat /tmp/count)"
    else
        say "counter $counter is gone"
    fi
}

# session: all that tells this session from others.
session() {
    bootid
    token
    counter
}

# states: the sleep states, and the ways to hibernate, of which the chosen one is in brackets.
states() {
    say "states $(cat /sys/power/state)"
    say "hibernation $(cat /sys/power/disk)"
}

# signature DISK: what the end of the first page says it holds: SWAPSPACE2 for swap space, S1SUSPEND if that holds a
# hibernated session.
signature() {
    dd if="$1" bs=1 skip=4086 count=10 2>/dev/null | tr -cd 'A-Z0-9'
}

# complaints: what the kernel had to complain of hibernation.
complaints() {
    dmesg | grep -E '(PM: |hibernation).*([Ee]rror|[Ff]ail|mismatch|[Cc]annot|[Nn]ot |abort)' | cut -d ']' -f 2- |
        while read -r line; do
            say "kernel: $line"
        done
}

# Continues the session that a disk holds, if there is one. Comes back only if that failed.
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

# hibernate [DISK]: saves the session to this disk (the first one unless given), and powers off. What follows is said
# when the session goes on.
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
