# The network.

# net up ADDRESS/BITS: gives the first network card this address.
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
    ping)
        ping -c 1 -w 10 "$2" >/dev/null
        say "net ping $?"
        ;;
    receive)
        nc "$2" "$3" </dev/null >/tmp/received
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
