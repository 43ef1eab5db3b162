#!/bin/sh
# The first process of a test guest. Executes the commands on the kernel's command line (vmtest=uname,poweroff), then
# those that it reads from the console, one per line. Output for tests starts with "vmtest: ".

echo "vmtest: init"
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp

say() {
    echo "vmtest: $*"
}

# load DIRECTORY: loads the drivers in it, in the order of their names.
load() {
    for module in /modules/"$1"/*.ko; do
        insmod "$module" 2>/dev/null
    done
}

for part in /lib/*.sh; do
    . "$part"
done

if grep -qs 0x1af4 /sys/bus/pci/devices/*/vendor; then
    load virtio
    # Before anything else uses a disk: a hibernated session needs it unchanged.
    resume_hibernated
fi
load always

# flood LINES: prints numbered lines of 16 bytes each, so that a lost byte can be located.
flood() {
    stty -opost
    say "flood begin"
    seq 100000000000001 $((100000000000000 + $1))
    say "flood end"
    stty opost
}

execute() {
    case "$1" in
    uname) say "uname $(uname -a)" ;;
    cpus) say "cpus $(nproc)" ;;
    memory) say "memory $(awk '/MemTotal/ { print $2 }' /proc/meminfo)" ;;
    clock) say "clock $(awk '{ print $1 }' /proc/uptime) $(date +%s)" ;;
    cmdline) say "cmdline $(cat /proc/cmdline)" ;;
    echo) shift && say "echo $*" ;;
    flood) flood "$2" ;;
    summary)
        say "uname $(uname -a)"
        say "cpus $(nproc), $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)"
        say "memory $(awk '/MemTotal/ { print $2 " kB" }' /proc/meminfo)"
        ;;
    bootid | token | counter | session | states | hibernate) "$@" ;;
    disks | disk | esp) "$@" ;;
    efivar | firmware) "$@" ;;
    net) "$@" ;;
    bench) shift && guest_bench "$@" || say "bench failed" ;;
    run) shift && eval "$*" && say "run done" || say "run failed $?" ;;
    poweroff) poweroff -f ;;
    reboot) reboot -f ;;
    panic) echo c >/proc/sysrq-trigger ;;
    "") ;;
    *) say "unknown $1" ;;
    esac
}

for word in $(cat /proc/cmdline); do
    case "$word" in
    vmtest=*)
        IFS=,
        for command in ${word#vmtest=}; do
            IFS=:
            # shellcheck disable=SC2086 # words, not one string
            set -- $command
            unset IFS
            execute "$@"
        done
        unset IFS
        ;;
    esac
done

# pressed: reads an event of the power button's device. A resume is reported there too, as the key KEY_WAKEUP.
pressed() {
    dd bs=24 count=1 of=/tmp/event 2>/dev/null
    # EV_KEY (1), KEY_POWER (116), pressed (1).
    case "$(od -An -tu2 -j16 -N6 /tmp/event | tr -s ' ')" in
    " 1 116 1"*) true ;;
    *) false ;;
    esac
}

# Waits for the power button in the background, and powers the machine off as an operating system does. The device is
# opened before "ready" is printed: earlier events would be lost.
for device in /sys/class/input/event*; do
    if [ "$(cat "$device/device/name" 2>/dev/null)" = "Power Button" ]; then
        mknod /tmp/button c $(tr : ' ' <"$device/dev")
        exec 3</tmp/button
        { until pressed; do :; done <&3 && say "power button" && poweroff -f; } &
    fi
done

say "ready"
while read -r line; do
    # shellcheck disable=SC2086 # words, not one string
    execute $line
done
say "end of input"
poweroff -f
