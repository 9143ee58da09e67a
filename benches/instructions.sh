#!/usr/bin/env bash
# How many instructions does a packet take through the whole worker? Counted by callgrind, so the figure is the same whatever else
# the machine does: it tells whether a change added work, not how long the work takes.
#
#   benches/instructions.sh [CASE…]      the cases of `wye bench --list`; a choice of them by default
#   benches/instructions.sh --check      the cases of benches/record/instruction-bounds.txt; fails if one needs more than its bound
#   benches/instructions.sh --why-not    why --check means nothing here, if so: then it prints the reason and fails
#
# Prints a line per case: its name, instructions per packet, and the ratio to the newest record in benches/record/ if that has the case.
# The SIMD level is avx2, because valgrind knows no AVX-512; WYE_SIMD=portable counts the portable twin.
set -euo pipefail
cd "$(dirname "$0")/.."

packets=32000
bounds=benches/record/instruction-bounds.txt
if [ "${1:-}" = --why-not ]; then
    # The bounds are those of one compiler's code, for one instruction set.
    of=$(sed -n 's/^# rustc //p' "$bounds")
    have=$(rustc -V | cut -d' ' -f2)
    command -v valgrind >/dev/null || { echo "no valgrind: apt-get install valgrind"; exit 1; }
    [ "$(uname -m)" = x86_64 ] && grep -qw avx2 /proc/cpuinfo || { echo "the bounds are for a CPU with AVX2"; exit 1; }
    [ "$of" = "$have" ] || { echo "the bounds are for rustc $of, this is $have"; exit 1; }
    exit 0
fi
check=
cases=("$@")
if [ "${1:-}" = --check ]; then
    check=$bounds WYE_SIMD=avx2
    mapfile -t cases < <(sed 's/#.*//' "$bounds" | awk 'NF { print $1 }')
fi
[ $# -gt 0 ] || cases=(l4-1k mega1024-1k masks64-100k nocache-masks16-100k rewrite-1k push-vlan-1k output2-1k)
export WYE_SIMD=${WYE_SIMD:-avx2}
record=$(ls benches/record/*-instructions.txt 2>/dev/null | sort | tail -1 || true)

cargo build -q --release --features cli --bin wye
wye=${CARGO_TARGET_DIR:-target}/release/wye
known=$("$wye" bench --list)
over=0
log=$(mktemp) out=$(mktemp)
trap 'rm -f "$log" "$out"' EXIT
printf '%-22s %14s  %s\n' case instructions "${record:+of $(basename "$record")}"
for case in "${cases[@]}"; do
    if ! grep -qE "^$case +" <<<"$known"; then
        echo "no case '$case'; wye bench --list names them" >&2
        exit 1
    fi
    valgrind --tool=callgrind --callgrind-out-file="$out" --toggle-collect='*bench::measure::counted*' \
        "$wye" bench --case "=$case" --packets $packets >"$log" 2>&1 || { tail -5 "$log"; exit 1; }
    if [ -n "$check" ]; then
        awk -v case="$case" -v packets=$packets -v bounds="$check" '
            BEGIN { while ((getline line < bounds) > 0) { split(line, f, " "); if (f[1] == case) bound = f[2] } }
            /Collected/ { n = $NF / packets; found = 1; ok = n <= bound
                printf "%-22s %14.1f  %s the bound of %s\n", case, n, ok ? "within" : "MORE THAN", bound }
            END { exit !(found && ok) }' "$log" || over=1
        continue
    fi
    awk -v case="$case" -v packets=$packets -v record="${record:-/dev/null}" '
        BEGIN { while ((getline line < record) > 0) { split(line, f, " "); if (f[1] == case) old = f[2] } }
        /Collected/ { n = $NF / packets; printf "%-22s %14.1f  %s\n", case, n, old ? sprintf("%.3f", n / old) : "" }' "$log"
done
[ $over = 0 ] || echo "A packet needs more instructions than $bounds allows. If the work is worth it, say so where the bound is raised." >&2
exit $over
