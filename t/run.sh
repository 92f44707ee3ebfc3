#!/usr/bin/env bash
#
# The test suite.  On a fresh Debian 12 it installs what is missing, builds
# the module and runs every t/*.t against it, a private Postgres cluster and a
# fake LLM.  It touches no other server of the machine.
#
#   t/run.sh                     all tests
#   t/run.sh --asan              the same under ASan and UBSan
#   t/run.sh t/protocol.t ...    some of them
#   t/run.sh --no-build ...      with NGINX_BIN= and MODULE= as they are
#   t/run.sh --torture           not the suite but t/torture.pl, for
#                                TORTURE_SECONDS=, with a Postgres of its own
#
# Root is needed for the packages only: another user needs sudo when some are
# missing, and runs Postgres and nginx as himself.  The last line is prove's
# own.

set -euo pipefail

export PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C
export no_proxy=127.0.0.1
use_hup=${TEST_NGINX_USE_HUP:-}
unset "${!PG@}" "${!TEST_NGINX_@}"

cd "$(dirname "${BASH_SOURCE[0]}")/.."

. t/lib/apt.sh

asan=
build=1
torture=
files=()

for arg in "$@"; do
    case $arg in
        --asan) asan=1 ;;
        --no-build) build= ;;
        --torture) torture=1 ;;
        -*) echo "usage: t/run.sh [--asan] [--no-build] [--torture|file...]" >&2
            exit 2 ;;
        *) files+=("$arg") ;;
    esac
done

# all of them; those that take long begin first

if [ "${#files[@]}" -eq 0 ]; then
    files=(t/leases.t t/store_faults.t t/queue.t t/reload.t t/failover.t
           t/run_faults.t)
    for file in t/*.t; do
        [[ " ${files[*]} " = *" $file "* ]] || files+=("$file")
    done
fi

# shellcheck disable=SC2086  # a list of words
apt_install $apt_packages
apt_test_nginx
[[ " ${files[*]} " != *agent_protocol_files.t* ]] || apt_node

BUILD=${BUILD:-build}
[[ $BUILD = /* ]] || BUILD=$PWD/$BUILD
work=$(mktemp -d /tmp/agent-suite.XXXXXX)
chmod 755 "$work"
postgres=

# shellcheck disable=SC2317  # called by trap
cleanup() {
    local status=$?

    trap - EXIT
    if [ -n "$postgres" ]; then
        kill -INT "$postgres" 2> /dev/null || true
        wait "$postgres" 2> /dev/null || true
    fi
    rm -rf "$work"
    exit "$status"
}

trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP


# Build ----------------------------------------------------------------------

run_make() {
    make -j"$(nproc)" "$@" > "$work/make.log" 2>&1 || {
        tail -n 30 "$work/make.log" >&2
        echo "t/run.sh: the build failed" >&2
        exit 1
    }
    tail -n 1 "$work/make.log"
}

if [ -n "$asan" ]; then
    [ "$BUILD" != "$PWD/build" ] || BUILD=$BUILD/asan
    [ -z "$build" ] || run_make asan BUILD="$BUILD"
    NGINX_BIN=${NGINX_BIN:-$BUILD/server/objs/nginx}
    export ASAN_OPTIONS=detect_leaks=0:detect_odr_violation=0
    export ASAN_OPTIONS=$ASAN_OPTIONS:abort_on_error=0
    export UBSAN_OPTIONS=suppressions=$PWD/t/lib/ubsan.supp
    export UBSAN_OPTIONS=$UBSAN_OPTIONS:print_stacktrace=1
    export AGENT_TEST_ASAN=1
elif [ -n "$build" ]; then
    run_make module BUILD="$BUILD"
fi

export TEST_NGINX_BINARY="${NGINX_BIN:-$(command -v nginx)}"
export TEST_NGINX_LOAD_MODULES="${MODULE:-$BUILD/ngx_http_agent_module.so}"
export TEST_NGINX_SERVROOT="$work/servroot"
export TEST_NGINX_RANDOMIZE="${TEST_NGINX_RANDOMIZE:-1}"
[ -z "$use_hup" ] || export TEST_NGINX_USE_HUP="$use_hup"
mkdir -p "$TEST_NGINX_SERVROOT"
chmod 755 "$TEST_NGINX_SERVROOT"


# One Postgres for the suite ---------------------------------------------------

start_postgres() {
    local bin as=() port data="$work/pg/data"

    bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
    mkdir "$work/pg"

    if [ "$(id -u)" -eq 0 ]; then
        chown postgres:postgres "$work/pg"
        as=(setpriv --reuid postgres --regid postgres --clear-groups)
    fi

    port=$(perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(
           Listen => 1, LocalAddr => "127.0.0.1")->sockport')

    # the folder of the caller may be closed to the user postgres
    (cd / && "${as[@]}" "$bin/initdb" -D "$data" -U postgres -A trust -E UTF8 \
        --locale=C.UTF-8 --no-sync) > "$work/initdb.log" 2>&1 \
        || { tail -n 5 "$work/initdb.log" >&2; return 1; }

    (cd / && exec "${as[@]}" "$bin/postgres" -D "$data" -p "$port" \
        -k "$work/pg" -c listen_addresses=127.0.0.1 -c fsync=off \
        -c max_connections=200) > "$work/postgres.log" 2>&1 &
    postgres=$!

    for _ in $(seq 100); do
        "$bin/pg_isready" -q -h "$work/pg" -p "$port" && break
        sleep 0.1
    done

    "$bin/psql" -q -h "$work/pg" -p "$port" -U postgres -d postgres \
        -c 'create role agent login' \
        || { tail -n 5 "$work/postgres.log" >&2; return 1; }

    export AGENT_TEST_PG="$work/pg:$port"
}

[ -n "$torture" ] || start_postgres \
    || { echo "t/run.sh: Postgres does not start" >&2; exit 1; }


# Run ------------------------------------------------------------------------

# what was meant for this script or for make is no business of the tests';
# NGINX in its environment makes nginx think it was started by an upgrade
unset BUILD NGINX NGINX_BIN MODULE CC_OPT LD_OPT NGINX_SRC \
      MAKE MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES

status=0
if [ -n "$torture" ]; then
    perl -It/lib t/torture.pl < /dev/null || status=$?
else
    # most of the time tests wait, so several run at once; not beside the
    # torture test, which wants the machine for itself
    prove -It/lib -j "${TEST_JOBS:-3}" --rules 'seq=t/torture.t' \
        --rules 'par=**' "${files[@]}" < /dev/null || status=$?
fi

exit "$status"
