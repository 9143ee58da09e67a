#!/usr/bin/env bash
# ovs-vswitchd with a bridge of datapath type "wye" between two namespaces: traffic, OpenFlow actions, flows, statistics.
# As root, after ovs-patch/build.sh. Everything runs in namespaces of its own and is gone afterwards. Each check is one line; the last counts them.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${OVS_CACHE:-$(dirname "$here")/target/ovs}
build=$cache/wye
source=$cache/wye-source
export PATH="$build/vswitchd:$build/ovsdb:$build/utilities:/usr/sbin:/sbin:$PATH"

cannot() { echo "skipped: $1"; echo "test result: 0 passed; 0 failed; 1 ignored; ovs ping"; exit 77; }
[ -x "$build/vswitchd/ovs-vswitchd" ] || cannot "no $build/vswitchd/ovs-vswitchd: run ovs-patch/build.sh"
for tool in ip ping ethtool; do
    command -v $tool >/dev/null || cannot "no $tool"
done
[ "$(id -u)" = 0 ] || cannot "not root"

n=wo$$ # Interfaces' names are short.
rundir=$(mktemp -d)
export OVS_RUNDIR=$rundir OVS_LOGDIR=$rundir OVS_DBDIR=$rundir OVS_SYSCONFDIR=$rundir OVS_PKGDATADIR=$source/vswitchd
pids=()
clean_up() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
    wait 2>/dev/null
    for ns in $n-sw $n-a $n-b; do ip netns del $ns 2>/dev/null; done
    rm -rf "$rundir"
}
trap clean_up EXIT
trap 'exit 1' INT TERM

passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); echo "ok: $1"; }
not_ok() { failed=$((failed + 1)); echo "FAILED: $1"; }
# check NAME COMMAND…
check() {
    local name=$1 out
    shift
    if out=$("$@" 2>&1); then ok "$name"; else not_ok "$name"; echo "$out" | tail -5 | sed 's/^/    /'; fi
}
a() { ip netns exec $n-a "$@"; }
b() { ip netns exec $n-b "$@"; }
sw() { ip netns exec $n-sw "$@"; }
flows() { ovs-appctl dpctl/dump-flows wye@ovs-wye 2>/dev/null; }
pings() { a ping -q -c "${2:-3}" -i 0.2 -W 2 "$1"; }
# OpenFlow rules instead of those there are.
rules() { ovs-ofctl -O OpenFlow13 del-flows br0 && printf '%s\n' "$@" | ovs-ofctl -O OpenFlow13 add-flows br0 -; }

for ns in sw a b; do ip netns add $n-$ns || exit 1; ip -n $n-$ns link set lo up; done
for end in a b; do
    ip -n $n-$end link add e0 type veth peer name v$end netns $n-sw || exit 1
    ip -n $n-$end link set e0 up
    ip -n $n-sw link set v$end up
    # A sender on a veth leaves checksums to hardware that is not there.
    ip netns exec $n-$end ethtool -K e0 tx off >/dev/null 2>&1
done
ip -n $n-a addr add 192.0.2.1/24 dev e0
ip -n $n-b addr add 192.0.2.2/24 dev e0
ip -n $n-a addr add 2001:db8::1/64 dev e0 nodad
ip -n $n-b addr add 2001:db8::2/64 dev e0 nodad
mac_b=$(b cat /sys/class/net/e0/address)

ovsdb-tool create "$rundir/conf.db" "$source/vswitchd/vswitch.ovsschema" || exit 1
ovsdb-server --remote=punix:"$rundir/db.sock" "$rundir/conf.db" --log-file="$rundir/db.log" >/dev/null 2>&1 &
pids+=($!)
for _ in $(seq 50); do [ -S "$rundir/db.sock" ] && break; sleep 0.1; done
ovs-vsctl --no-wait init
sw env PATH="$PATH" ovs-vswitchd --pidfile --disable-system --log-file="$rundir/switch.log" unix:"$rundir/db.sock" >/dev/null 2>&1 &
switch=$!
pids=($switch "${pids[@]}")
check "a bridge of type wye comes up with two ports" timeout 20 ovs-vsctl add-br br0 -- set bridge br0 datapath_type=wye \
    protocols=OpenFlow10,OpenFlow13,OpenFlow15 -- add-port br0 va -- add-port br0 vb
check "the type is among those of the switch" sh -c 'ovs-vsctl get Open_vSwitch . datapath_types | grep -q wye'
check "its ports are those of the datapath" sh -c 'ovs-appctl dpctl/show wye@ovs-wye | grep -q va && ovs-appctl dpctl/show wye@ovs-wye | grep -q vb'

check "IPv4 passes" pings 192.0.2.2
check "IPv6 passes" pings 2001:db8::2
check "flows have been installed, and count" sh -c "ovs-appctl dpctl/dump-flows wye@ovs-wye | grep 'eth_type(0x0800)' | grep -vq 'packets:0,'"
check "a large packet passes" a ping -q -c 2 -i 0.2 -W 2 -s 1400 192.0.2.2

if command -v iperf3 >/dev/null; then
    b iperf3 -s -1 >/dev/null 2>&1 &
    server=$!
    sleep 0.5
    check "TCP passes for 2 s" a timeout 20 iperf3 -c 192.0.2.2 -t 2
    kill $server 2>/dev/null
else
    skipped=$((skipped + 1))
    echo "skipped: no iperf3"
fi

rules "in_port=va,actions=push_vlan:0x8100,set_field:4106->vlan_vid,vb" "in_port=vb,dl_vlan=10,actions=pop_vlan,va"
ip -n $n-b link add link e0 name e0.10 type vlan id 10 2>/dev/null && tagged=1 || tagged=0
if [ $tagged = 1 ]; then
    ip -n $n-b addr del 192.0.2.2/24 dev e0
    ip -n $n-b addr add 192.0.2.2/24 dev e0.10
    ip -n $n-b link set e0.10 up
    check "a tag is pushed one way and popped the other" pings 192.0.2.2
    ip -n $n-b link del e0.10
    ip -n $n-b addr add 192.0.2.2/24 dev e0
else
    # No VLAN interfaces in this kernel: the tag is pushed and popped in one go, and looked at by tcpdump.
    rules "in_port=va,actions=push_vlan:0x8100,set_field:4106->vlan_vid,pop_vlan,vb" "in_port=vb,actions=push_vlan:0x8100,set_field:4106->vlan_vid,pop_vlan,va"
    check "a tag is pushed and popped again" pings 192.0.2.2
    rules "in_port=va,actions=push_vlan:0x8100,set_field:4106->vlan_vid,vb"
    if command -v tcpdump >/dev/null; then
        b timeout 5 tcpdump -lnei e0 -c 1 'vlan 10' >"$rundir/tagged" 2>/dev/null &
        dump=$!
        sleep 1
        pings 192.0.2.2 2 >/dev/null 2>&1
        wait $dump
        check "a tag is pushed" grep -q 'vlan 10' "$rundir/tagged"
    fi
fi

rules "in_port=va,ip,nw_dst=192.0.2.77,actions=mod_dl_dst:$mac_b,mod_nw_dst:192.0.2.2,dec_ttl,vb" \
    "in_port=vb,ip,nw_src=192.0.2.2,actions=mod_nw_src:192.0.2.77,va" "arp,actions=normal"
a ip neigh replace 192.0.2.77 lladdr 02:00:00:00:00:77 dev e0
check "addresses are rewritten both ways, and the TTL falls" pings 192.0.2.77
check "the datapath's flow says so" sh -c "ovs-appctl dpctl/dump-flows wye@ovs-wye | grep -q 'set(ipv4(dst=192.0.2.2,ttl=63))'"

ovs-ofctl -O OpenFlow13 add-meter br0 'meter=1 pktps bands=type=drop rate=1'
rules "in_port=va,ip,actions=meter:1,vb" "priority=0,actions=normal"
a ping -q -c 10 -i 0.05 -W 1 192.0.2.2 >"$rundir/metered" 2>&1
received=$(sed -n 's/.* \([0-9]*\) received.*/\1/p' "$rundir/metered")
check "a meter lets some of 10 packets through and not all" test "${received:-0}" -gt 0 -a "${received:-0}" -lt 10
check "and counts what it dropped" sh -c "ovs-ofctl -O OpenFlow13 meter-stats br0 meter=1 | grep -q 'packet_in_count:10'"

rules "in_port=va,actions=check_pkt_larger(500)->NXM_NX_REG0[0],resubmit(,1)" "table=1,reg0=0,actions=vb" "table=1,reg0=1,actions=drop" \
    "priority=0,actions=normal"
check "what is shorter than 500 bytes passes" pings 192.0.2.2
check "what is longer does not" sh -c "! ip netns exec $n-a ping -q -c 2 -i 0.2 -W 1 -s 800 192.0.2.2"

# The group hashes the packet and looks it up again, with the priority that it was given before.
ovs-ofctl -O OpenFlow15 add-group br0 'group_id=1,type=select,selection_method=dp_hash,bucket=bucket_id=1,weight=1,actions=set_queue:2,output:vb'
rules "in_port=va,ip,actions=set_queue:1,group:1" "priority=0,actions=normal"
check "a packet that is looked up again with a priority passes" pings 192.0.2.2
check "and its flow is hit" sh -c "ovs-appctl dpctl/dump-flows wye@ovs-wye | grep '),skb_priority(0x1),in_port' | grep -q 'packets:[1-9]'"
rules "priority=0,actions=normal"
ovs-ofctl -O OpenFlow15 del-groups br0

rules "in_port=va,actions=drop" "priority=0,actions=normal"
check "what is to be dropped does not arrive" sh -c "! ip netns exec $n-a ping -q -c 2 -i 0.2 -W 1 192.0.2.2"
rules "priority=0,actions=normal"
check "traffic flows again" pings 192.0.2.2
check "OpenFlow rules count it" sh -c "ovs-ofctl dump-flows br0 | grep -q 'n_packets=[1-9]'"
check "ports count it" sh -c "ovs-ofctl dump-ports br0 vb | grep -q 'tx pkts=[1-9]'"
check "a packet of the controller's goes out" ovs-ofctl packet-out br0 "in_port=controller packet=ffffffffffff0200000000770800 actions=output:vb"

check "a rule that needs connection tracking is refused" sh -c "! ovs-ofctl -O OpenFlow13 add-flow br0 'ip,actions=ct(table=1)'"
check "the lookups are counted" sh -c "ovs-appctl dpctl/show wye@ovs-wye | grep -q 'lookups: hit:[1-9]'"
check "nothing was logged as an error until here" sh -c "! grep -E '\\|(ERR|EMER)\\|' $rundir/switch.log"

# Tunnels: a stays on br0, b is reached through a second bridge, whose own interface has the address that the tunnels begin at.
ovs-vsctl --timeout=20 del-port br0 vb -- add-br br1 -- set bridge br1 datapath_type=wye -- add-port br1 vb
sw ip addr add 198.51.100.1/24 dev br1
sw ip link set br1 up
ip -n $n-a link set e0 mtu 1400
ip -n $n-b addr flush dev e0
sw ip addr add 2001:db8:1::1/64 dev br1 nodad
ip -n $n-b addr add 198.51.100.2/24 dev e0
ip -n $n-b addr add 2001:db8:1::2/64 dev e0 nodad

# tunnel TYPE [FAR [OPTION]]: an interface of this type on br0 with identifier 5. Its far end has another address than what was there before.
tunnel() {
    a ip neigh flush dev e0
    ovs-vsctl --timeout=20 --if-exists del-port t0 -- add-port br0 t0 -- set interface t0 type="$1" options:remote_ip="\"${2:-198.51.100.2}\"" options:key=5 ${3:-}
}
# through NAME: what is asked of a tunnel whose other end has the address 192.0.2.2.
through() {
    check "$1: a packet passes both ways" pings 192.0.2.2 5
    check "$1: a large packet passes" a ping -q -c 2 -i 0.2 -W 2 -s 1300 192.0.2.2
    check "$1: headers are pushed and popped by flows" sh -c "ovs-appctl dpctl/dump-flows wye@ovs-wye | grep -q 'actions:.*tnl_push' && ovs-appctl dpctl/dump-flows wye@ovs-wye | grep -q 'actions:tnl_pop'"
    check "$1: flows match what the outer header said" sh -c "ovs-appctl dpctl/dump-flows wye@ovs-wye | grep -E 'tunnel\(tun_id=0x5,(ipv6_)?src=(198.51.100.2|2001:db8:1::2),' | grep -q 'packets:[1-9]'"
    check "$1: the tunnel counts both ways" sh -c "ovs-ofctl dump-ports br0 t0 | grep -q 'rx pkts=[1-9]' && ovs-ofctl dump-ports br0 t0 | grep -q 'tx pkts=[1-9]'"
    command -v iperf3 >/dev/null || return 0
    ip netns exec $n-b iperf3 -s -1 >/dev/null 2>&1 &
    server=$!
    sleep 0.5
    check "$1: TCP passes for 2 s" a timeout 20 iperf3 -c 192.0.2.2 -t 2
    kill $server 2>/dev/null
}
# One end is the kernel's.
if ip -n $n-b link add vx0 type vxlan id 5 dstport 4789 local 198.51.100.1 remote 198.51.100.2 dev e0 2>/dev/null; then
    ip -n $n-b link del vx0
    ip -n $n-b link add vx0 mtu 1400 type vxlan id 5 dstport 4789 local 198.51.100.2 remote 198.51.100.1 dev e0
    ip -n $n-b link set vx0 up
    ip -n $n-b addr add 192.0.2.2/24 dev vx0
    tunnel vxlan
    through "VXLAN to the kernel"
    tunnel vxlan 198.51.100.2 options:csum=true
    through "VXLAN with UDP checksums to the kernel"
    ip -n $n-b link del vx0
    ip -n $n-b link add vx0 mtu 1400 type vxlan id 5 dstport 4789 local 2001:db8:1::2 remote 2001:db8:1::1 dev e0
    ip -n $n-b link set vx0 up
    ip -n $n-b addr add 192.0.2.2/24 dev vx0
    tunnel vxlan 2001:db8:1::2
    through "VXLAN over IPv6 to the kernel"
    ip -n $n-b link del vx0
else
    skipped=$((skipped + 1))
    echo "skipped: no VXLAN in this kernel"
fi

# One end is Open vSwitch's own userspace datapath, in a second switch.
other() { OVS_RUNDIR=$rundir/b OVS_DBDIR=$rundir/b "$@"; }
mkdir "$rundir/b"
ovsdb-tool create "$rundir/b/conf.db" "$source/vswitchd/vswitch.ovsschema"
other ovsdb-server --remote=punix:"$rundir/b/db.sock" "$rundir/b/conf.db" --log-file="$rundir/b/db.log" >/dev/null 2>&1 &
pids+=($!)
for _ in $(seq 50); do [ -S "$rundir/b/db.sock" ] && break; sleep 0.1; done
other ovs-vsctl --no-wait init
b env PATH="$PATH" OVS_RUNDIR="$rundir/b" OVS_DBDIR="$rundir/b" ovs-vswitchd --pidfile --disable-system --log-file="$rundir/b/switch.log" \
    unix:"$rundir/b/db.sock" >/dev/null 2>&1 &
pids=($! "${pids[@]}")
ip -n $n-b addr flush dev e0
other timeout 20 ovs-vsctl add-br out -- set bridge out datapath_type=netdev -- add-port out e0 -- add-br in -- set bridge in datapath_type=netdev
ip -n $n-b addr add 198.51.100.2/24 dev out
ip -n $n-b link set out up
ip -n $n-b link set in mtu 1400 up
ip -n $n-b addr add 192.0.2.2/24 dev in
for type in geneve vxlan gre; do
    tunnel $type
    other ovs-vsctl --timeout=20 --if-exists del-port t0 -- add-port in t0 -- set interface t0 type=$type options:remote_ip=198.51.100.1 options:key=5
    through "$type to Open vSwitch's own datapath"
done

check "nothing was logged as an error with tunnels" sh -c "! grep -E '\\|(ERR|EMER)\\|' $rundir/switch.log"
timeout 20 ovs-appctl exit --cleanup || kill $switch
wait $switch
check "the switch ends by itself" test $? = 0
check "and takes its interfaces along" sh -c "! ip -n $n-sw link show br0"
echo "test result: $passed passed; $failed failed; $skipped ignored; ovs ping"
[ $failed = 0 ]
