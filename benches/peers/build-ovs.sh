#!/usr/bin/env bash
# Builds Debian's Open vSwitch for this very processor, with DPDK, and installs it in target/peers/ovs: what compare.sh should be
# given with --ovs-prefix. Debian's own binary is for any x86-64; it lacks even the instructions that count bits and hash.
#
#   benches/peers/build-ovs.sh [PREFIX]
#
# About ten minutes on one core. What is missing is named, and the exit code is then 77.
set -euo pipefail
cd "$(dirname "$0")/../.."

prefix=$(realpath -m "${1:-target/peers/ovs}") work=$(realpath -m target/peers/build)
packages=()
for need in gcc make autoconf automake libtoolize:libtool pkg-config python3 dpkg-deb:dpkg; do
    command -v "${need%%:*}" >/dev/null || packages+=("${need##*:}")
done
pkg-config --exists libdpdk 2>/dev/null || packages+=(libdpdk-dev)
for header in cap-ng:libcap-ng-dev numa:libnuma-dev; do
    [ -e "/usr/include/${header%%:*}.h" ] || packages+=("${header##*:}")
done
if [ ${#packages[@]} -gt 0 ]; then
    printf 'build-ovs.sh: not installed: %s\n    apt-get install --no-install-recommends %s\n' "${packages[*]}" "${packages[*]}" >&2
    exit 77
fi

mkdir -p "$work"
cd "$work"
# Debian's python3 before any other: the build scripts need no more than that.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
if [ ! -d source ]; then
    apt-get download -qq openvswitch-source >apt.log 2>&1 || {
        echo "build-ovs.sh: apt-get cannot download openvswitch-source: $(tail -1 apt.log)" >&2
        exit 77
    }
    rm -rf unpacked
    dpkg-deb -x openvswitch-source_*.deb unpacked
    # Debian 12 packs the source once more, Debian 13 does not.
    archive=unpacked/usr/src/openvswitch/openvswitch.tar.gz
    [ ! -e "$archive" ] || tar -C unpacked/usr/src -xzf "$archive"
    mv unpacked/usr/src/openvswitch source
fi
run() {
    "$@" >>"$work/build.log" 2>&1 || { tail -5 "$work/build.log" >&2; echo "build-ovs.sh: $* failed, see $work/build.log" >&2; exit 1; }
}
if [ ! -e source/Makefile ]; then
    cd source
    run ./boot.sh
    run ./configure --with-dpdk=shared --disable-afxdp --prefix="$prefix" CFLAGS="-O3 -march=native -g"
    cd ..
fi
run make -C source -j"${JOBS:-$(nproc)}"
run make -C source install
echo "build-ovs.sh: ready, benches/peers/compare.sh --ovs-prefix $prefix"
