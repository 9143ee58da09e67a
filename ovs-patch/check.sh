#!/usr/bin/env bash
# Open vSwitch's own unit tests on the datapath "wye", beside the same tests on stock Open vSwitch.
#   ovs-patch/check.sh [-jN] all           every test of the files below that needs no connection tracking
#   ovs-patch/check.sh [-jN] sample        about 40 of them, a few of each kind
#   ovs-patch/check.sh [-jN] FILE.at…      those of some files
#   ovs-patch/check.sh [-jN] NUMBER…       single ones
# After ovs-patch/build.sh; the stock column needs ovs-patch/build.sh stock, and is "-" without. STOCK=0 leaves it out. The tests run unchanged: with OVS_DPIF_TAKEOVER=1
# the provider serves the datapath types that they use. They run in a network namespace of their own if that can be made.
# Failures that expected-failures.txt lists are counted apart. Ends with an error if another test fails, or one of those passes.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${OVS_CACHE:-$(dirname "$here")/target/ovs}
files="tunnel tunnel-push-pop tunnel-push-pop-ipv6 ovs-router ofproto-dpif dpif-netdev dpctl packet-type-aware mpls-xlate drop-stats learn bundle multipath mcast-snooping lacp stp rstp bfd cfm nsh bridge learning-switch netdev-type"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
ulimit -n 65536 2>/dev/null
ulimit -c 0

jobs=-j2
[[ ${1:-} == -j* ]] && { jobs=$1; shift; }
[ $# -gt 0 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }
[ -x "$cache/wye/vswitchd/ovs-vswitchd" ] || { echo "no $cache/wye: run ovs-patch/build.sh"; exit 77; }

list="$cache/tests.txt"
make -s -C "$cache/wye" check TESTSUITEFLAGS=--list >"$list" 2>"$cache/tests.err" || { tail -3 "$cache/tests.err"; exit 1; }

# Numbers of a file's tests, without those of connection tracking; the list says "1137: ofproto-dpif.at:12   title".
of_file() {
    awk -v file="${1%.at}.at:" 'index($2, file) == 1 && !/conntrack|dpif - nat|ct_state/ { sub(":", "", $1); print $1 }' "$list"
}
numbers=()
for word in "$@"; do
    case $word in
    all) for file in $files; do numbers+=($(of_file "$file")); done ;;
    sample) numbers+=($(sed 's/#.*//' "$here/sample.txt")) ;;
    *[!0-9]*) numbers+=($(of_file "$word")) ;;
    *) numbers+=("$word") ;;
    esac
done
[ ${#numbers[@]} -gt 0 ] || { echo "no tests of that name"; exit 2; }

# attempt NAME DIR FLAGS: writes "NUMBER ok|FAILED|skipped" lines to $cache/NAME.results.
attempt() {
    local isolated=(unshare --net --)
    export dir=$2 flags=$3
    "${isolated[@]}" true 2>/dev/null || isolated=()
    "${isolated[@]}" bash -c 'ip link set lo up 2>/dev/null; exec nice make -C "$dir" check TESTSUITEFLAGS="$flags" RECHECK=no' >"$cache/$1.log" 2>&1
    sed 's/\x1b\[[0-9;]*m//g' "$cache/$1.log" | awk '$1 ~ /^[0-9]+:$/ {
        sub(":", "", $1)
        if (/ ok *$/) print $1, "ok"; else if (/FAILED/) print $1, "FAILED"; else if (/skipped/) print $1, "skipped" }' | sort -n >"$cache/$1.results"
}

# run NAME DIR: the same, with a second, lonely attempt for up to ten tests that failed unexpectedly: some of Open vSwitch's tests depend on how fast they are.
run() {
    local again
    attempt "$1" "$2" "$jobs ${numbers[*]}"
    again=$(awk 'FNR == NR { if (/^[0-9]/) expected[$1] = 1; next } $2 == "FAILED" && !($1 in expected) { print $1 }' \
        "$here/expected-failures.txt" "$cache/$1.results")
    [ -n "$again" ] && [ "$(wc -w <<<"$again")" -le 10 ] || return 0
    echo "a second time on $1:" $again
    cp "$cache/$1.results" "$cache/$1.first"
    attempt "$1" "$2" "-j1 $(echo $again)"
    awk 'FNR == NR { second[$1] = $2; next } { print $1, $1 in second ? second[$1] : $2 }' "$cache/$1.results" "$cache/$1.first" >"$cache/$1.merged"
    mv "$cache/$1.merged" "$cache/$1.results"
}

: >"$cache/stock.results"
if [ "${STOCK:-1}" = 1 ] && [ -x "$cache/stock/vswitchd/ovs-vswitchd" ]; then run stock "$cache/stock"; fi
OVS_DPIF_TAKEOVER=1 run wye "$cache/wye"

awk -v stock="$cache/stock.results" -v wye="$cache/wye.results" -v expected="$here/expected-failures.txt" -v numbers="${numbers[*]}" '
    BEGIN {
        while ((getline line < stock) > 0) { split(line, f, " "); s[f[1]] = f[2]; has_stock = 1 }
        while ((getline line < wye) > 0) { split(line, f, " "); w[f[1]] = f[2] }
        while ((getline line < expected) > 0) if (line ~ /^[0-9]/) { split(line, f, " "); x[f[1]] = 1 }
        n = split(numbers, f, " "); for (i = 1; i <= n; i++) wanted[f[i]] = 1
    }
    { number = $1; sub(":", "", number); if (!(number in wanted)) next
      file = $2; sub(/:.*/, "", file); if (!(file in tests)) order[++files] = file
      title = $0; sub(/^ *[0-9]+: *[^ ]+ */, "", title)
      tests[file]++; result = w[number] == "" ? "FAILED" : w[number]
      if (s[number] == "ok") stock_ok[file]++
      if (result == "ok") { ok[file]++; if (number in x) surprises[++m] = number " passes, though expected to fail: " title }
      else if (result == "skipped") skipped[file]++
      else if (number in x) known[file]++
      else { bad[file]++; surprises[++m] = number " fails: " title } }
    END {
        format = "%-24s %6s %9s %7s %8s %9s %11s\n"
        printf format, "file", "tests", "stock ok", "wye ok", "skipped", "expected", "unexpected"
        for (i = 1; i <= files; i++) { k = order[i]
            printf format, k, tests[k], has_stock ? stock_ok[k] + 0 : "-", ok[k] + 0, skipped[k] + 0, known[k] + 0, bad[k] + 0
            t += tests[k]; a += stock_ok[k]; b += ok[k]; c += skipped[k]; d += known[k]; e += bad[k] }
        printf format, "all", t, has_stock ? a : "-", b, c + 0, d + 0, e + 0
        for (i = 1; i <= m; i++) print surprises[i]
        printf "test result: %d passed; %d failed; %d ignored; ovs unit tests\n", b, e, c + d
        exit m > 0
    }' "$list"
