#!/usr/bin/env bash
# Makes the libraries that are installed out of the archive that cargo makes.
#
#   link.sh ARCHIVE OUT VERSION ABI
#
# writes OUT/libwye.a and OUT/libwye.so.VERSION with the soname libwye.so.ABI. Both consist of the code that the exported functions reach,
# and show no symbol but theirs: the archive's other symbols (of Rust's standard library and of compiler-builtins) are made local, so that a
# program can link libwye.a beside another static library that is written in Rust.
#
# Why not cargo's own shared library: rustc gives the linker a version script of its own, without version nodes, and a second one is
# an error. STRIP= (empty) keeps the line tables for debuggers.
set -euo pipefail

[ $# = 4 ] || { echo "usage: link.sh ARCHIVE OUT VERSION ABI" >&2; exit 2; }
archive=$1 out=$2 version=$3 abi=$4
here=$(cd "$(dirname "$0")" && pwd)
: "${CC:=cc}" "${LD:=ld}" "${AR:=ar}" "${NM:=nm}" "${OBJCOPY:=objcopy}" "${LDFLAGS:=}" "${STRIP=yes}"
# What Rust's standard library needs beside what the compiler adds by itself (libgcc's unwinder). wye.pc.in says the same.
libs="-lpthread -lm -ldl -lc"

mkdir -p "$out"
exported() { "$NM" -g --defined-only "$@" 2>/dev/null | awk '$2 == "T" && $3 ~ /^wye_/ { print $3 }' | sort -u; }

names=$(exported "$archive")
[ -n "$names" ] || { echo "$archive has no function wye_*" >&2; exit 1; }

strip=()
[ -z "$STRIP" ] || strip=(--strip-debug)
# shellcheck disable=SC2086 # one word per name is what is wanted
"$LD" -r --gc-sections $(printf ' -u %s' $names) -o "$out/wye.o" "$archive"
# Rust's standard library carries bitcode along, which other versions of LLVM's linker plugin choke on.
"$OBJCOPY" "${strip[@]}" --remove-section=.llvmbc --remove-section=.llvmcmd --wildcard --keep-global-symbol='wye_*' "$out/wye.o"
rm -f "$out/libwye.a"
"$AR" rcsD "$out/libwye.a" "$out/wye.o"

shared=$out/libwye.so.$version
# shellcheck disable=SC2086
"$CC" -shared -o "$shared" "$out/wye.o" -Wl,-soname,"libwye.so.$abi" -Wl,--version-script="$here/libwye.map" \
    -Wl,--gc-sections -Wl,-z,defs -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack $LDFLAGS -Wl,--as-needed $libs
rm -f "$out/wye.o"

# Neither library may show anything else, and both must show the same.
others=$("$NM" -g --defined-only "$out/libwye.a" | awk 'NF == 3 && $3 !~ /^wye_/')
[ -z "$others" ] || { echo "libwye.a exports what it should not:" >&2; echo "$others" >&2; exit 1; }
others=$("$NM" -D --defined-only "$shared" | awk '$2 != "A" && $3 !~ /^wye_[a-z0-9_]+@@WYE_[0-9.]+$/')
[ -z "$others" ] || { echo "$shared exports what it should not:" >&2; echo "$others" >&2; exit 1; }
[ "$(exported "$out/libwye.a")" = "$names" ] || { echo "libwye.a does not export what the archive does" >&2; exit 1; }
[ "$("$NM" -D --defined-only "$shared" | sed -n 's/.* T \(wye_[a-z0-9_]*\)@@.*/\1/p' | sort -u)" = "$names" ] ||
    { echo "$shared does not export what the archive does" >&2; exit 1; }
