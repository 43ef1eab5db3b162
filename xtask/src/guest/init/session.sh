# What identifies a session of the operating system, which hibernation preserves.

# bootid: prints the kernel's random id of this session.
bootid() {
    say "bootid $(cat /proc/sys/kernel/random/boot_id)"
}

# token: prints a random value that is only in this process's memory.
token() {
    [ -n "$token" ] || token=$(cat /proc/sys/kernel/random/uuid)
    say "token $token"
}

# counter: prints the id of a process that counts ten times per second, and its count. The first call starts it.
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

# session: prints everything that identifies this session.
session() {
    bootid
    token
    counter
}
