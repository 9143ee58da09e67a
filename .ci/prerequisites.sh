#!/usr/bin/env bash
# Finds what a purpose needs, installs it with apt-get when that is possible, and names what is missing.
#   prerequisites.sh build   a compiler and linker: enough for `make demo`
#   prerequisites.sh test    what the test steps call as well
# Ends with an error only when the build itself is impossible; a step that lacks its tool skips itself visibly.
set -uo pipefail
cd "$(dirname "$0")/.."

purpose=${1:-build}
# command:Debian package
needs=(cc:gcc)
if [ "$purpose" = test ]; then
    needs+=(c++:g++ pkg-config:pkg-config ip:iproute2 ping:iputils-ping iperf3:iperf3 ethtool:ethtool
        tcpdump:tcpdump valgrind:valgrind abidw:abigail-tools
        tshark:tshark qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio)
    # scapy may have come from elsewhere than Debian's package.
    python3 -c 'import scapy' 2>/dev/null || needs+=(scapy:python3-scapy)
fi

missing=()
for need in "${needs[@]}"; do
    # /sbin is not on every user's path.
    PATH="$PATH:/usr/sbin:/sbin" command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing: ${missing[*]}"
        export DEBIAN_FRONTEND=noninteractive
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } </dev/null \
            >/tmp/wye-apt.$$ 2>&1 || { tail -5 /tmp/wye-apt.$$; echo "apt-get could not install: ${missing[*]}"; }
        rm -f /tmp/wye-apt.$$
    else
        echo "missing, the steps that need them are skipped or fail: apt-get install ${missing[*]}"
    fi
fi

command -v cc >/dev/null || { echo "a C compiler and linker are missing: apt-get install gcc"; exit 1; }

wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if ! command -v cargo >/dev/null; then
    echo "cargo is missing. Wye needs Rust $wanted or newer; Debian 12's own package is older: install it with rustup."
    exit 1
fi
have=$(rustc --version | cut -d' ' -f2)
if [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -1)" != "$wanted" ]; then
    echo "Rust $have is too old, Wye needs $wanted or newer: rustup update stable"
    exit 1
fi
