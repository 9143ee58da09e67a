#!/usr/bin/env bash
# Installs the library into a scratch folder, builds each example against it as a stranger would (pkg-config, shared and static, C11 with
# every warning an error), runs it, and compares what it prints with expected/. Then the same under AddressSanitizer with
# UndefinedBehaviorSanitizer, and under valgrind. The header is compiled as C++17 as well.
#
#   c-examples/run.sh           everything
#   UPDATE=1 c-examples/run.sh  writes expected/ anew
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
prefix=$scratch/prefix
build=$scratch/build

echo "--- install"
${MAKE:-make} -s install PREFIX="$prefix" CLI=no >"$scratch/install.log" 2>&1 || { cat "$scratch/install.log"; exit 1; }
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig LD_LIBRARY_PATH=$prefix/lib
[ "$(pkg-config --modversion wye)" = "$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)" ]
readelf -d "$prefix/lib/libwye.so" | grep -q 'SONAME.*\[libwye\.so\.[0-9]*\]'

mkdir "$build"
cp c-examples/*.c c-examples/Makefile "$build"
examples=$(sed -n 's/^EXAMPLES := //p' c-examples/Makefile)
failed=0 checked=0

# The ports of l2_switch: three stations' frames from traces, so that no root is needed.
arguments() {
    [ "$1" = l2_switch ] || return 0
    for station in a b c; do echo "pcap:read=$PWD/c-examples/traces/$station.pcap,write=$build/$station.pcap"; done
}

# compare NAME HOW COMMAND…: runs the command, whose output must be the expected one, and stderr empty.
compare() {
    local name=$1 how=$2 status=0 expected=c-examples/expected/$1.txt
    shift 2
    # shellcheck disable=SC2046 # one word per port
    set -- "$@" $(arguments "$name")
    (cd "$build" && "$@") >"$scratch/out" 2>"$scratch/err" </dev/null || status=$?
    checked=$((checked + 1))
    if [ -n "${UPDATE:-}" ] && [ "$how" = shared ] && [ $status = 0 ]; then cp "$scratch/out" "$expected"; fi
    if [ $status = 0 ] && [ ! -s "$scratch/err" ] && diff -u "$expected" "$scratch/out"; then
        echo "$name, $how: ok"
    else
        echo "$name, $how: FAILED (exit $status)"
        cat "$scratch/err"
        failed=$((failed + 1))
    fi
}

${MAKE:-make} -s -C "$build" all static
for name in $examples; do
    [ -n "$(ldd "$build/$name" | grep "$prefix/lib/libwye.so")" ] || { echo "$name does not use the installed library"; exit 1; }
    compare "$name" shared "./$name"
    compare "$name" static "./$name.static"
done

# Sanitizers see the C side, and what the library does with the C side's memory through intercepted calls.
${MAKE:-make} -s -C "$build" clean
${MAKE:-make} -s -C "$build" all CFLAGS="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"
for name in $examples; do compare "$name" sanitizers "./$name"; done

# Valgrind lacks AVX-512: the library is told to do without.
if command -v valgrind >/dev/null; then
    ${MAKE:-make} -s -C "$build" clean
    ${MAKE:-make} -s -C "$build" all CFLAGS="-O1 -g"
    for name in $examples; do
        compare "$name" valgrind env WYE_SIMD=portable valgrind -q --leak-check=full --show-leak-kinds=all --errors-for-leak-kinds=all \
            --suppressions="$PWD/c-examples/valgrind.supp" --error-exitcode=9 "./$name"
    done
else
    echo "SKIP: no valgrind"
fi

# Another language with the same header.
printf '#include <wye.h>\nint main() { wye_datapath_config c = WYE_DATAPATH_CONFIG_INIT; return c.size == 0 || wye_version_check(WYE_API_VERSION, nullptr) != WYE_OK; }\n' >"$build/plus.cc"
# shellcheck disable=SC2046
c++ -std=c++17 -Wall -Wextra -pedantic -Werror "$build/plus.cc" $(pkg-config --cflags --libs wye) -o "$build/plus"
"$build/plus"

# What was installed can be removed.
${MAKE:-make} -s uninstall PREFIX="$prefix"
left=$(find "$prefix" ! -type d)
[ -z "$left" ] || { echo "uninstall leaves: $left"; exit 1; }

echo "$checked runs of C examples compared, $failed failed"
[ $failed = 0 ]
