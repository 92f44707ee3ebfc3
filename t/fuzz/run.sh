#!/bin/sh
#
# Builds and runs every fuzz target of this folder on its seeds for a while:
# one line per target, exit status 1 when one crashed.  What crashed is kept
# in the folder that is then named (FUZZ_DIR, or a temporary one).
#
# usage: run.sh [seconds per target, 10] [target ...]

set -u

here=$(cd "$(dirname "$0")" && pwd)
seconds=${1:-10}
[ $# -eq 0 ] || shift

case $seconds in
'' | *[!0-9]*)
    echo "usage: run.sh [seconds per target] [target ...]" >&2
    exit 2
    ;;
esac

if [ -n "${FUZZ_DIR:-}" ]; then
    dir=$FUZZ_DIR
    mkdir -p "$dir"
else
    dir=$(mktemp -d) || exit 1
fi

if ! sh "$here/../unit/build.sh" "$dir" fuzz >"$dir/build.log" 2>&1; then
    cat "$dir/build.log"
    echo "fuzz: does not compile (clang and libclang-rt-14-dev installed?)"
    exit 1
fi

targets=$*
[ -n "$targets" ] || targets=$(cd "$here" && ls fuzz_*.c \
                               | sed 's/^fuzz_\(.*\)\.c$/\1/')

failed=0

for target in $targets; do

    mkdir -p "$dir/$target.corpus"
    log=$dir/$target.log

    # new finds go into the first folder; the seeds stay as they are
    if "$dir/fuzz_$target" -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=1024 -max_len=4096 -print_final_stats=1 \
        -artifact_prefix="$dir/$target-" \
        "$dir/$target.corpus" "$here/corpus/$target" >"$log" 2>&1
    then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        echo "fuzz $target: ok, ${runs:-?} runs in $seconds s"
    else
        failed=1
        echo "fuzz $target: CRASHED, see $log"
        grep -m1 -e 'ERROR:' -e 'runtime error:' "$log"
    fi
done

if [ $failed -eq 0 ] && [ -z "${FUZZ_DIR:-}" ]; then
    rm -rf "$dir"
fi

exit $failed
