#!/bin/sh
# udhcpc calls this with its event, and the lease in variables.

if [ "$1" = bound ]; then
    ip address add "$ip/$mask" dev "$interface" && ip route add default via "$router"
    echo "vmtest: net lease $? $ip/$mask $router" >/dev/console
fi
