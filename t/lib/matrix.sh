#!/usr/bin/env bash
#
# Builds the module for each nginx that Debian has sources of (1.22, 1.26,
# 1.30) and runs the suite on each, with a server built from that source.
#
#   make matrix                all of t/*.t but what is about Debian's nginx
#   MATRIX_SMOKE=1             one short test only
#   MATRIX="trixie sid"        some of them

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. t/lib/apt.sh

out=${BUILD:-build}
[[ $out = /* ]] || out=$PWD/$out
failed=()

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

    nginx_source "$source" "$suite"
    version=$(sed -n 's/.*NGINX_VERSION .*"\(.*\)"/\1/p' \
              "$source/src/core/nginx.h")
    echo "== nginx $version ($suite)"

    nginx=$build/server/objs/nginx
    log=$build.log
    mkdir -p "$build"

    if ! { make -j2 server BUILD="$build" NGX_SRC="$source" \
           && make -j2 module BUILD="$build" NGX_SRC="$source" \
                   NGINX_BIN="$nginx"; } > "$log" 2>&1
    then
        tail -n 20 "$log" >&2
        failed+=("$version (build)")
        continue
    fi

    tail -n 1 "$log"
    NGINX_BIN=$nginx MODULE=$build/ngx_http_agent_module.so \
        t/run.sh --no-build "${files[@]}" || failed+=("$version")
done

if [ "${#failed[@]}" -gt 0 ]; then
    echo "matrix: failed on nginx ${failed[*]}" >&2
    exit 1
fi
