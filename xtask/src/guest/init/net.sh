# The network.

# Makes a pipe to read from that stays open and empty. A client that reads it keeps its own direction open until it has
# received everything.
silence() {
    [ -p /tmp/silence ] || mkfifo /tmp/silence
}

# net up ADDRESS/BITS: gives the first network card this address.
# net dhcp: asks a DHCP server for the first network card's address.
# net prefix6: waits for a global IPv6 address, and prints its first half.
# net listen PORT: receives from one client until it closes; prints the checksum.
# net ping ADDRESS
# net receive ADDRESS PORT: receives from a server until it closes; prints the checksum.
# net send ADDRESS PORT KIB: sends random bytes to a server; prints their checksum.
net() {
    verb=$1
    case "$verb" in
    up)
        ip link set lo up
        ip address add "$2" dev eth0 && ip link set eth0 up
        say "net up $? $(cat /sys/class/net/eth0/address)"
        ;;
    dhcp)
        ip link set lo up
        ip link set eth0 up
        udhcpc -q -n -t 20 -i eth0 -s /bin/lease >/dev/null 2>&1 || say "net lease failed"
        ;;
    prefix6)
        for _ in $(seq 60); do
            address=$(ip -6 address show dev eth0 scope global | sed -n 's/.*inet6 \([0-9a-f:]*\).*/\1/p' | head -n 1)
            [ -n "$address" ] && break
            sleep 1
        done
        say "net prefix6 $(echo "$address" | cut -d : -f 1-4)"
        ;;
    listen)
        silence
        nc -l -p "$2" <>/tmp/silence >/tmp/received &
        # State 0A is LISTEN.
        until grep -q "$(printf ':%04X .* 0A ' "$2")" /proc/net/tcp /proc/net/tcp6; do sleep 1; done
        say "net listening"
        wait $!
        say "net received $? $(wc -c </tmp/received) $(sum </tmp/received)"
        ;;
    ping)
        ping -c 1 -w 10 "$2" >/dev/null
        say "net ping $?"
        ;;
    receive)
        silence
        nc "$2" "$3" <>/tmp/silence >/tmp/received
        status=$?
        say "net receive $status $(wc -c </tmp/received) $(sum </tmp/received)"
        rm -f /tmp/received
        ;;
    send)
        head -c $(($4 << 10)) /dev/urandom >/tmp/sent
        nc "$2" "$3" </tmp/sent
        status=$?
        say "net send $status $(wc -c </tmp/sent) $(sum </tmp/sent)"
        rm -f /tmp/sent
        ;;
    *) say "unknown net $verb" ;;
    esac
}
