#!/usr/bin/env bash
#
# The module under valgrind: one nginx in a single process, a small load over
# every route, an LLM and a database with faults, a quit.  Fails on a leak
# (definite or indirect) and on every invalid access that t/lib/valgrind.supp
# does not excuse.  It takes a minute or two.
#
#   t/valgrind.sh                with the nginx that is installed
#   t/valgrind.sh --no-build     with NGINX_BIN= and MODULE= as they are

set -euo pipefail

export PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C
export no_proxy=127.0.0.1
unset "${!PG@}" "${!TEST_NGINX_@}" AGENT_TEST_PG

cd "$(dirname "${BASH_SOURCE[0]}")/.."

. t/lib/apt.sh

build=1

for arg in "$@"; do
    case $arg in
        --no-build) build= ;;
        *) echo "usage: t/valgrind.sh [--no-build]" >&2; exit 2 ;;
    esac
done

# shellcheck disable=SC2086  # a list of words
apt_install $apt_packages valgrind libc6-dbg

BUILD=${BUILD:-build}
[[ $BUILD = /* ]] || BUILD=$PWD/$BUILD

[ -z "$build" ] || make -j"$(nproc)" module BUILD="$BUILD" | tail -n 1

export TEST_NGINX_BINARY="${NGINX_BIN:-$(command -v nginx)}"
export TEST_NGINX_LOAD_MODULES="${MODULE:-$BUILD/ngx_http_agent_module.so}"

# what was meant for make is no business of nginx's: NGINX in its environment
# makes it think that it was started by an upgrade
unset BUILD NGINX NGINX_BIN MODULE CC_OPT LD_OPT NGINX_SRC \
      MAKE MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES

exec perl -It/lib t/lib/valgrind.pl
