#!/usr/bin/env bash
# `make test`: every check in one run. Each step prints its name and its time; a step whose tool is missing is skipped
# visibly; a step that fails is named again at the end. The last line counts tests, and steps that are no test runners.
#
#   STEPS='tests loom'   runs only these steps
#   PROPTEST_CASES       random cases per property (default below)
#   FUZZ_SECONDS         time for each fuzz target (default below)
set -uo pipefail
cd "$(dirname "$0")/.."

export CARGO_TERM_COLOR=never
# Nothing here is built twice after an edit, so incremental state would only cost time and disk.
[ -n "${CI:-}" ] && export CARGO_INCREMENTAL=0
export PROPTEST_CASES=${PROPTEST_CASES:-256}
: "${FUZZ_SECONDS:=4}" "${LOOM_MAX_PREEMPTIONS:=3}"
host=$(rustc -vV 2>/dev/null | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-$PWD/target}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

passed=0 failed=0 skipped=0
failures=() skips=() times=()

# Adds up what the test runners in the log said; fails if there was no runner.
count_tests() {
    local counts
    counts=$(awk '
        # nextest:  Summary [ 1.2s] 10 tests run: 9 passed (1 slow), 1 failed, 2 skipped
        /^ *Summary \[/ { runner = 1; for (i = 2; i <= NF; i++) {
            if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^(failed|timed)/) f += $(i-1); if ($i ~ /^skipped/) s += $(i-1) } }
        # libtest:  test result: ok. 9 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out
        /^test result:/ { runner = 1; for (i = 3; i <= NF; i++) {
            if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^failed/) f += $(i-1); if ($i ~ /^ignored/) s += $(i-1) } }
        # A test that could not run here says so, and counts as passed above.
        /^ *SKIP: / { p--; s++ }
        END { if (runner) print p + 0, f + 0, s + 0 }' "$log")
    [ -n "$counts" ] || return 1
    set -- $counts
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
    [ "$1" -gt 0 ] || [ "$2" -gt 0 ]
}

wanted() { [ -z "${STEPS:-}" ] || [[ " $STEPS " == *" $1 "* ]]; }

# step NAME COMMAND…: runs a step in a subshell of its own.
step() {
    local name=$1 began=$SECONDS status before=$failed
    shift
    wanted "$name" || return 0
    echo "=== $name"
    ( "$@" ) </dev/null 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    if ! count_tests && [ "$status" = 0 ]; then
        passed=$((passed + 1))
    fi
    if [ "$status" != 0 ]; then
        [ "$failed" -gt "$before" ] || failed=$((failed + 1))
        failures+=("$name")
        echo "=== $name FAILED after $((SECONDS - began)) s"
    else
        echo "=== $name ok, $((SECONDS - began)) s"
    fi
    times+=("$name $((SECONDS - began))s")
}

# skip NAME REASON
skip() {
    wanted "$1" || return 0
    echo "=== $1 SKIPPED: $2"
    skips+=("$1 ($2)")
    skipped=$((skipped + 1))
}

have_nightly() { rustup toolchain list 2>/dev/null | grep -q '^nightly'; }

unit_tests() {
    local out status
    if ! cargo nextest --version >/dev/null 2>&1; then
        cargo test --workspace --features cli --no-fail-fast -q -- --show-output | grep -vE '^(---- .* stdout ----|)$'
        return "${PIPESTATUS[0]}"
    fi
    # All output is asked for, so that tests that skip themselves are seen; of those that pass only that is shown.
    out=$(mktemp)
    cargo nextest run --workspace --features cli --no-fail-fast --status-level fail --final-status-level fail \
        --success-output immediate --failure-output final >"$out" 2>&1
    status=$?
    if [ $status = 0 ]; then
        grep -E '^ *(SKIP|Summary|warning|Starting)' "$out"
    else
        cat "$out"
    fi
    rm -f "$out"
    cargo test --workspace --features cli --doc -q || status=$?
    return $status
}

documentation() {
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --features cli --no-deps
}

sanitized() {
    # The whole library, with few random cases: the sanitizer looks for bad accesses, the step `tests` for wrong answers.
    RUSTFLAGS="-Zsanitizer=address" PROPTEST_CASES=16 \
        cargo +nightly test -q --lib --target "$host" --target-dir "$target/asan"
}

miri() {
    MIRIFLAGS="-Zmiri-disable-isolation" PROPTEST_CASES=2 \
        cargo +nightly miri test --lib --target-dir "$target/miri" -- sync:: packet:: flow::
}

model_checked() {
    RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=$LOOM_MAX_PREEMPTIONS \
        cargo test --lib --target-dir "$target/loom" races::
}

fuzzed() {
    local name scratch leaks
    cargo +nightly fuzz build --target-dir "$target/fuzz" || return 1
    for name in $(cargo +nightly fuzz list); do
        echo "--- $name, $FUZZ_SECONDS s"
        scratch=$(mktemp -d)
        # The engine of `switch` outlives the inputs, and its flows lie in mappings that the leak checker does not look into.
        [ "$name" = switch ] && leaks=0 || leaks=1
        mkdir -p "fuzz/corpus/$name" "fuzz/regress/$name"
        # New inputs go to the scratch folder, which comes first; the committed ones are only read.
        cargo +nightly fuzz run --target-dir "$target/fuzz" "$name" "$scratch" "fuzz/corpus/$name" "fuzz/regress/$name" \
            -- -max_total_time="$FUZZ_SECONDS" -rss_limit_mb=2048 -timeout=10 -verbosity=0 -print_final_stats=1 \
            -detect_leaks=$leaks 2>&1 |
            grep -vE 'Compiling|Finished|Running|ecommended dictionary|# Uses:|NEW_FUNC|INFO:|stat::(new_units|slowest|peak)' || true
        [ "${PIPESTATUS[0]}" = 0 ] || { rm -rf "$scratch"; echo "fuzz target $name failed"; return 1; }
        rm -rf "$scratch"
    done
}

openvswitch() {
    ovs-patch/build.sh && { ovs-patch/ping.sh || [ $? = 77 ]; } && STOCK=0 ovs-patch/check.sh -j2 sample
}

.ci/prerequisites.sh test || exit 1

step format cargo fmt --all --check
if cargo deny --version >/dev/null 2>&1; then
    step dependencies cargo deny check licenses bans sources
else
    skip dependencies "no cargo-deny"
fi
step lints cargo clippy --workspace --all-targets --features cli -q -- -D warnings
step documentation documentation
# A guest for tests that need another kernel than this one; they skip themselves where it is not there.
if wanted tests && ! reason=$(tests/guest/build.sh 2>&1); then
    skip guest "${reason##*$'\n'}"
fi
step tests unit_tests

step header .ci/header.sh
step c-examples c-examples/run.sh
if command -v abidw >/dev/null && command -v abidiff >/dev/null; then
    step abi ffi/capi/abi/check.sh
else
    skip abi "no abidw and abidiff: apt-get install abigail-tools"
fi

if reason=$(benches/instructions.sh --why-not); then
    step instructions benches/instructions.sh --check
else
    skip instructions "$reason"
fi

# Building Open vSwitch takes minutes: where it was not built before, only continuous integration does it.
if ! wanted ovs; then
    :
elif [ -z "${CI:-}" ] && [ ! -x "${OVS_CACHE:-target/ovs}/wye/vswitchd/ovs-vswitchd" ]; then
    skip ovs "Open vSwitch is not built: ovs-patch/build.sh"
elif ! reason=$(ovs-patch/build.sh fetch 2>&1); then
    skip ovs "${reason##*$'\n'}"
elif [ "$(id -u)" != 0 ]; then
    skip ovs "not root"
else
    step ovs openvswitch
fi

if [ -d src/sync ]; then step loom model_checked; fi

if have_nightly; then
    step address-sanitizer sanitized
else
    skip address-sanitizer "no nightly toolchain"
fi
if have_nightly && cargo +nightly miri --version >/dev/null 2>&1; then
    step miri miri
else
    skip miri "this nightly toolchain has no Miri"
fi

if [ ! -d fuzz ]; then
    skip fuzz "no targets yet"
elif ! have_nightly; then
    skip fuzz "no nightly toolchain; the step tests replayed the corpora"
else
    if ! cargo fuzz --version >/dev/null 2>&1 && [ -n "${CI:-}" ] && wanted fuzz; then
        step install-cargo-fuzz cargo install --locked -q cargo-fuzz
    fi
    if cargo fuzz --version >/dev/null 2>&1; then
        step fuzz fuzzed
    else
        skip fuzz "cargo install --locked cargo-fuzz; the step tests replayed the corpora"
    fi
fi

echo
printf 'time per step:'; printf ' %s,' "${times[@]}"; echo " ${SECONDS}s in all"
for s in "${skips[@]}"; do echo "skipped: $s"; done
for f in "${failures[@]}"; do echo "FAILED: $f"; done
echo "$passed passed, $failed failed, $skipped skipped"
[ ${#failures[@]} = 0 ]
