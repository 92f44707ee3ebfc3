#!/usr/bin/env bash
#
# Builds the module for each nginx that Debian has sources of (1.22, 1.26,
# 1.30) and runs the suite on each, with a server built from that source.
#
#   make matrix                all of t/*.t but what is about Debian's nginx
#   MATRIX_SMOKE=1             one short test only
#   MATRIX="trixie sid"        some of them
#   MATRIX_STRICT=1            a version that can only be built is a failure

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. t/lib/apt.sh

out=${BUILD:-build}
[[ $out = /* ]] || out=$PWD/$out
failed=()
unrun=()

if [ -n "${MATRIX_SMOKE:-}" ]; then
    files=(t/smoke.t)
else
    files=()
    for file in t/*.t; do
        case $file in
            t/quickstart.t|t/unit.t|t/docs.t) ;;
            *) files+=("$file") ;;
        esac
    done
fi

# shellcheck disable=SC2086  # a list of words
apt_install $apt_packages
mkdir -p "$out/src"

for suite in ${MATRIX:-bookworm trixie sid}; do
    source=$out/src/$suite
    build=$out/matrix/$suite

    goals="server module"
    nginx_source "$source" "$suite" \
        || { goals=module; nginx_headers "$source" "$suite"; }
    version=$(sed -n 's/.*NGINX_VERSION .*"\(.*\)"/\1/p' \
              "$source/src/core/nginx.h")
    echo "== nginx $version ($suite)"

    nginx=$build/server/objs/nginx
    log=$build.log
    mkdir -p "$build"

    # one after the other: the module is tried out in the server
    if ! for goal in $goals; do
             make -j"$(nproc)" "$goal" BUILD="$build" NGINX_SRC="$source" \
                  NGINX_BIN="$nginx" || exit 1
         done > "$log" 2>&1
    then
        tail -n 20 "$log" >&2
        failed+=("$version (build)")
        continue
    fi

    tail -n 1 "$log"

    if [ "$goals" = module ]; then
        unrun+=("$version")
        continue
    fi

    NGINX_BIN=$nginx MODULE=$build/ngx_http_agent_module.so \
        t/run.sh --no-build "${files[@]}" || failed+=("$version")
done

if [ "${#unrun[@]}" -gt 0 ]; then
    echo "matrix: built for nginx ${unrun[*]} but not run: no source of it" \
         "is to be had, only headers" >&2
    [ -z "${MATRIX_STRICT:-}" ] || exit 1
fi

if [ "${#failed[@]}" -gt 0 ]; then
    echo "matrix: failed on nginx ${failed[*]}" >&2
    exit 1
fi
