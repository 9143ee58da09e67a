#!/usr/bin/env bash
# Writes what this machine measures to benches/record/: DATE-worker.txt, DATE-stages.txt and DATE-instructions.txt. Old records stay as they are.
#
#   benches/record.sh [ROUNDS]     5 rounds by default; of each case the best round counts, because neighbours only ever slow a machine down
#
# CORE=1 chooses the core, NAME=2026-11-27-b another name than the date, KINDS=worker fewer kinds of records; as root the measured process goes before all others.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${1:-5} core=${CORE:-$(($(nproc) - 1))} record=benches/record/${NAME:-$(date +%F)}
first=(taskset -c "$core")
[ "$(id -u)" != 0 ] || first=(nice -n -20 "${first[@]}")
kinds=${KINDS:-worker stages instructions}
for kind in $kinds; do
    [ ! -e "$record-$kind.txt" ] || { echo "$record-$kind.txt exists: a record is not written over" >&2; exit 1; }
done

cargo build -q --release --features cli --bin wye
wye=${CARGO_TARGET_DIR:-target}/release/wye
head() {
    echo "# $1"
    echo "# $(git rev-parse --short HEAD), $(rustc --version), $(sed -n 's/^model name.*: //p' /proc/cpuinfo | sort -u), Linux $(uname -r)"
}
results=$(mktemp)
trap 'rm -f "$results"' EXIT
wants() { [[ " $kinds " == *" $1 "* ]]; }
for round in $(wants worker && seq "$rounds"); do
    "${first[@]}" "$wye" bench --json >>"$results"
    echo "round $round of $rounds"
done
! wants worker || {
    head "benches/record.sh $rounds: wye bench --json, the best of $rounds rounds"
    printf '%-22s %10s %8s %8s %9s %10s %7s\n' case cycles/pkt ns/pkt Mpps core_GHz spread_pct budget
    "$wye" bench --list --json | while read -r listed; do
        name=$(sed 's/.*"case":"\([^"]*\)".*/\1/' <<<"$listed")
        budget=$(sed -n 's/.*"budget_tsc_cycles":\([0-9.]*\).*/\1/p' <<<"$listed")
        grep "\"case\":\"$name\"" "$results" |
            sed 's/.*per_packet":\([0-9.]*\),"ns_per_packet":\([0-9.]*\),"mpps":\([0-9.]*\),"core_ghz":\([0-9.]*\),"spread_pct":\([0-9.]*\).*/\1 \2 \3 \4 \5/' |
            sort -n | sed -n 1p | xargs -r printf '%-22s %10s %8s %8s %9s %10s %7s\n' "$name" | sed "s/ *$/ ${budget:-}/"
    done
} >"$record-worker.txt"
! wants stages || {
    head "cargo bench --features testing, criterion's estimate for a burst of 32 packets [low, middle, high]"
    "${first[@]}" cargo bench -q --features testing -- --warm-up-time 0.5 --measurement-time 1 2>/dev/null |
        awk '/time:/ { if (NF < 8) print name, $0; else print } !/time:/ { name = $1 }' | sed 's/ \+/ /g'
} >"$record-stages.txt"
! wants instructions || { head "benches/instructions.sh"; benches/instructions.sh; } >"$record-instructions.txt"
ls "$record"-*.txt
