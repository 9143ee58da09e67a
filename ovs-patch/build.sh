#!/usr/bin/env bash
# Builds Open vSwitch 3.5.0 with the datapath type "wye".
#   ovs-patch/build.sh          fetches, patches and builds into target/ovs/wye
#   ovs-patch/build.sh stock    the same without the patch into target/ovs/stock, to compare test results with
#   ovs-patch/build.sh fetch    only fetches the source
# Set OVS_SOURCE to the directory of an unpacked openvswitch-source 3.5.0 to build without the network, OVS_CACHE for another place than target/ovs, JOBS for
# another number of compilers at a time than there are processors.
#
# The source comes with apt from Debian 13, whichever Debian this is; the lists of packages that this needs stay in the cache directory.
# Ends with 77 if the source cannot be had or a build tool is missing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
cache=${OVS_CACHE:-$root/target/ovs}
what=${1:-wye}
version=3.5.0
package_version=3.5.0-1
jobs=${JOBS:-$(nproc)}
# Debian's python3 before any other: the build scripts need its modules.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
mkdir -p "$cache"
pristine=${OVS_SOURCE:-$cache/openvswitch-$version}

unavailable() { echo "ovs: $*" >&2; exit 77; }

require() {
    local missing=() need
    for need in autoconf automake libtoolize:libtool make gcc pkg-config python3; do
        command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
    done
    [ ${#missing[@]} = 0 ] && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$cache/apt.log" 2>&1 && return
    fi
    unavailable "missing: apt-get install ${missing[*]}"
}

fetch() {
    [ -f "$pristine/configure.ac" ] && return
    [ -z "${OVS_SOURCE:-}" ] || unavailable "OVS_SOURCE is not a source directory of Open vSwitch"
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || unavailable "no apt-get: set OVS_SOURCE to an unpacked source"
    local apt="$cache/apt" keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -f $keyring ] || unavailable "no $keyring: apt-get install debian-archive-keyring, or set OVS_SOURCE"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    # The mirror that this machine uses for its own Debian has the next one too.
    local mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -E '/debian/?$' | sed -n 1p || true)}
    [ -n "$mirror" ] || unavailable "apt names no mirror of Debian: set DEBIAN_MIRROR"
    echo "deb [signed-by=$keyring] $mirror trixie main" >"$apt/sources.list"
    local options=(-o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$apt/lists"
        -o Dir::Cache="$apt/cache" -o APT::Sandbox::User= -o Acquire::http::Timeout=20 -o Acquire::Retries=2)
    (cd "$apt" && apt-get "${options[@]}" update -qq && apt-get "${options[@]}" download -qq openvswitch-source=$package_version) \
        >"$cache/apt.log" 2>&1 || { tail -3 "$cache/apt.log" >&2; unavailable "openvswitch-source $package_version could not be fetched"; }
    rm -rf "$apt/unpacked" "$apt/lists"
    dpkg-deb -x "$apt"/openvswitch-source_${package_version}_all.deb "$apt/unpacked"
    mv "$apt/unpacked/usr/src/openvswitch" "$pristine"
    rm -rf "$apt/unpacked"
}

# configured DIR SOURCE LIBS…: configures SOURCE in DIR, once.
configured() {
    local dir=$1 source=$2
    shift 2
    [ -f "$dir/Makefile" ] && return
    mkdir -p "$dir"
    # The package's scripts are of a newer automake than Debian 12 has.
    (cd "$source" && ./boot.sh) >"$cache/boot.log" 2>&1 || { tail -5 "$cache/boot.log"; return 1; }
    (cd "$dir" && "$source/configure" --without-dpdk --disable-afxdp CFLAGS="${OVS_CFLAGS:--O1 -g}" "$@") >"$dir/configure.log" 2>&1 ||
        { tail -5 "$dir/configure.log"; return 1; }
}

built() {
    make -C "$1" -j"$jobs" >"$1/make.log" 2>&1 || { grep -E 'error|Error' "$1/make.log" | head -20; return 1; }
}

require
fetch
case $what in
fetch) ;;
stock)
    [ -f "$cache/stock/Makefile" ] || cp -a "$pristine" "$cache/stock-source"
    configured "$cache/stock" "$cache/stock-source"
    built "$cache/stock"
    ;;
wye)
    (cd "$root" && cargo build --release -q -p wye-capi)
    library=${CARGO_TARGET_DIR:-$root/target}/release/libwye_capi.a
    source="$cache/wye-source"
    # A patch that changed asks for a tree from the beginning; sources that changed only for their compilation.
    if ! cmp -s "$here/openvswitch-$version.patch" "$source/wye.patch"; then
        rm -rf "$source" "$cache/wye"
        cp -a "$pristine" "$source"
        patch -s -d "$source" -p1 <"$here/openvswitch-$version.patch"
        cp "$here/openvswitch-$version.patch" "$source/wye.patch"
    fi
    for file in "$here"/lib/*; do
        cmp -s "$file" "$source/lib/$(basename "$file")" || cp "$file" "$source/lib/"
    done
    configured "$cache/wye" "$source" CPPFLAGS="-I$root/include" LIBS="$library -lpthread -ldl -lm"
    # Programs are linked anew when OVS's own library changes, which has no way to know of this one.
    if [ "$library" -nt "$cache/wye/lib/libopenvswitch.la" ] && [ -f "$cache/wye/lib/libopenvswitch.la" ]; then
        touch "$cache/wye/lib/libopenvswitch.la"
    fi
    built "$cache/wye"
    ;;
*)
    echo "usage: build.sh [stock|fetch]" >&2
    exit 2
    ;;
esac
echo "ovs: $what is ready in $cache"
