#!/usr/bin/env bash
# Compares the C ABI with the one that is committed beside this script. What was promised must stay: a symbol, a constant's value, the
# layout of a struct, the type of a parameter.
#
#   check.sh           compares; an addition fails too, until the baseline has it
#   UPDATE=1 check.sh  writes the baseline anew: after additions, or together with a new number in the soname
#
# Three views, because no one tool sees all. `symbols` is what libwye.so exports, with version nodes. `constants` are the header's macros.
# `libwye.abi` is libabigail's description of a library with the header's functions and empty bodies: the types as C sees them (the debug
# information of the real library describes Rust's), so what a caller was compiled with. That header and library agree on the types is
# cbindgen's doing: one is generated from the other.
set -euo pipefail
cd "$(dirname "$0")/../../.."

baseline=ffi/capi/abi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

${MAKE:-make} -s build CLI=no >"$scratch/build.log" 2>&1 || { cat "$scratch/build.log"; exit 1; }
libraries=("${CARGO_TARGET_DIR:-target}"/release/capi/libwye.so.*)
nm -D --defined-only "${libraries[0]}" | awk '$2 != "A" { print $3 }' | LC_ALL=C sort >"$scratch/symbols"

cc -dM -E include/wye.h | sed -n 's/^#define \(WYE_[A-Z0-9_]* .*\)/\1/p' | grep -v '^WYE_\(API_VERSION\|H\)\b' | LC_ALL=C sort >"$scratch/constants"
# Enumerators are constants as well.
sed -n 's/^ *\(WYE_[A-Z0-9_]*\) = \([0-9]*\),$/\1 \2/p' include/wye.h >>"$scratch/constants"

# The header's functions with empty bodies, and a variable of each struct and enum that no function mentions.
{
    echo '#include <wye.h>'
    cc -E -P -Iinclude include/wye.h | tr '\n' ' ' | sed 's/;/;\n/g' |
        grep -E '^ *(const char \*|int|int32_t|uint32_t|size_t|void|wye_status) *\*?wye_[a-z0-9_]+\(' | sed 's/;$/ { __builtin_trap(); }/'
    echo 'enum wye_fate wye_shape_fate; enum wye_drop wye_shape_drop;'
} >"$scratch/shape.c"
cc -g -O0 -w -shared -fPIC -Iinclude "$scratch/shape.c" -o "$scratch/libwye.so"

# Header and library have the same functions.
nm -D --defined-only "$scratch/libwye.so" | awk '$2 == "T" { print $3 }' | LC_ALL=C sort >"$scratch/declared"
sed 's/@.*//' "$scratch/symbols" | diff -u "$scratch/declared" - || { echo "header (-) and library (+) differ"; exit 1; }

if [ -n "${UPDATE:-}" ]; then
    cp "$scratch/symbols" "$scratch/constants" "$baseline/"
    abidw --no-corpus-path --no-comp-dir-path --no-show-locs "$scratch/libwye.so" >"$baseline/libwye.abi"
fi

failed=0
for view in symbols constants; do
    gone=$(LC_ALL=C comm -23 <(LC_ALL=C sort "$baseline/$view") <(LC_ALL=C sort "$scratch/$view"))
    new=$(LC_ALL=C comm -13 <(LC_ALL=C sort "$baseline/$view") <(LC_ALL=C sort "$scratch/$view"))
    [ -z "$new" ] || { echo "new $view, for the baseline (UPDATE=1 $baseline/check.sh):"; echo "$new"; failed=1; }
    [ -z "$gone" ] || { echo "$view that were promised are gone or have changed:"; echo "$gone"; failed=1; }
done

# Exit codes: 4 is a change, 8 in addition an incompatible one. Any change of a type is refused here, since a caller keeps the old one: what may
# grow are structs that begin with `size`, at their end, and then the baseline is written anew.
status=0
abidiff --no-added-syms "$baseline/libwye.abi" "$scratch/libwye.so" || status=$?
[ $status = 0 ] || { echo "types differ from $baseline/libwye.abi (abidiff: $status)"; failed=1; }

[ $failed = 0 ] && echo "C ABI: $(wc -l <"$scratch/symbols") symbols, $(wc -l <"$scratch/constants") constants, types: as committed"
exit $failed
