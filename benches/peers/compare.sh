#!/usr/bin/env bash
# Measures Wye and Open vSwitch's userspace datapath on the same cases, in one run, in turns on one core. As root, on Debian 12 or 13:
#
#   benches/peers/compare.sh [CASE...] [--rounds N] [--record] ...    --help has the rest, README.md the method and its limits
#
# Builds Wye's tool and the plug-in that plays traces. What is missing is named, and the exit code is then 77.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$here")")

missing() {
    echo "compare.sh: $1" >&2
    exit 77
}

export PYTHONDONTWRITEBYTECODE=1
case " $* " in *" --help "* | *" -h "* | *" --list "*) exec python3 "$here/compare.py" "$@" ;; esac

# command:Debian package
needs=(gcc:gcc pkg-config:pkg-config python3:python3 ip:iproute2 dpdk-testpmd:dpdk-dev)
case " $* " in
*" --ovs-prefix"*) ;;
*) needs+=(/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk:openvswitch-switch-dpdk) ;;
esac
packages=()
for need in "${needs[@]}"; do
    command -v "${need%%:*}" >/dev/null || packages+=("${need##*:}")
done
pkg-config --exists libdpdk 2>/dev/null || packages+=(libdpdk-dev)
[ ${#packages[@]} = 0 ] || missing "not installed: ${packages[*]}
    apt-get install --no-install-recommends ${packages[*]}"
command -v cargo >/dev/null || missing "cargo is missing: see the README for the Rust that Wye needs"
[ "$(id -u)" = 0 ] || missing "only root may have huge pages, a network namespace and the first place on a core"
[ -c /dev/net/tun ] || missing "/dev/net/tun is missing, and Open vSwitch makes a tap for each bridge"

cargo build -q --release --manifest-path "$root/Cargo.toml" --features cli --bin wye
plugin=$(mktemp --suffix=.so)
trap 'rm -f "$plugin"' EXIT
# shellcheck disable=SC2046
gcc -O3 -march=native -Wall -Wextra -fPIC -shared -o "$plugin" "$here/player.c" $(pkg-config --cflags libdpdk) \
    -lrte_ethdev -lrte_telemetry -lrte_mbuf -lrte_eal
python3 "$here/compare.py" --wye "${CARGO_TARGET_DIR:-$root/target}/release/wye" --player "$plugin" \
    --command-line "benches/peers/compare.sh $*" "$@"
