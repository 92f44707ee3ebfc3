#!/bin/sh
#
# Compiles the byte-only rooms (base/, blob/ and byte-only parsers of run/)
# with a small stand-in for nginx (stub.c), and links them with
#   unit:  each t/unit/test_*.c, by $CC (cc) with ASan and UBSan
#   fuzz:  each t/fuzz/fuzz_*.c, by $FUZZ_CC (clang) with libFuzzer besides
# Only nginx's headers are needed: NGINX_SRC is its source tree, or the one of
# the package nginx-dev.
#
# usage: build.sh <folder for the results> unit|fuzz

set -eu

top=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:?usage: build.sh folder unit|fuzz}
kind=${2:?usage: build.sh folder unit|fuzz}
nginx=${NGINX_SRC:-/usr/share/nginx/src}

fail() {
    echo "build.sh: $*" >&2
    exit 1
}

case $kind in
unit)
    cc=${CC:-cc}
    sanitize="-fsanitize=address,undefined"
    sources=$(ls "$top"/t/unit/test_*.c)
    ;;
fuzz)
    cc=${FUZZ_CC:-clang}
    sanitize="-fsanitize=fuzzer-no-link,address,undefined"
    sources=$(ls "$top"/t/fuzz/fuzz_*.c)
    ;;
*)
    fail "unknown kind \"$kind\""
    ;;
esac

command -v "$cc" >/dev/null || fail "no $cc: install gcc, or clang for fuzz"
test -f /usr/include/yajl/yajl_parse.h \
    || fail "no yajl: install libyajl-dev, or set CPATH and LIBRARY_PATH"
test -f "$nginx/src/core/ngx_core.h" \
    || fail "no nginx headers in $nginx: install nginx-dev, or set NGINX_SRC"

mkdir -p "$out/nginx" "$out/obj"

# nginx's configure writes into its tree, so it works on a copy

if [ ! -f "$out/nginx/objs/ngx_auto_config.h" ]; then
    cp -r "$nginx/auto" "$nginx/src" "$out/nginx/"
    test ! -f "$nginx/configure" || cp "$nginx/configure" "$out/nginx/"
    configure=./configure
    test -f "$out/nginx/configure" || configure=./auto/configure
    (cd "$out/nginx" && sh $configure --with-threads --without-http \
        >configure.log 2>&1) || fail "configure of nginx: see $out/nginx"
fi

module=$top/ngx_http_agent_module
flags="-std=gnu99 -g -O1 -fno-omit-frame-pointer $sanitize
       -fno-sanitize-recover=all -Wall -Wextra -Wno-unused-parameter -Werror
       -D_GNU_SOURCE -I$top/t/unit"

for dir in "" /base /io /store /blob /core /run; do
    flags="$flags -I$module$dir"
done
for dir in objs src/core src/event src/event/modules src/os/unix; do
    flags="$flags -isystem $out/nginx/$dir"
done

objects=
for source in "$module"/base/*.c "$module"/blob/*.c \
              "$module"/run/ngx_agent_*.c "$top"/t/unit/stub.c
do
    test -f "$source" || continue

    # of run/ only what sees no live step and no event can be linked here
    if grep -q 'include "ngx_http\|include "ngx_agent_core' "$source"; then
        continue
    fi

    object=$out/obj/$(basename "$source" .c).o
    $cc $flags -c -o "$object" "$source"
    objects="$objects $object"
done

# an archive, so that a test pays only for what it calls
rm -f "$out/room.a"
ar rcs "$out/room.a" $objects

link=$sanitize
test "$kind" = unit || link="-fsanitize=fuzzer,address,undefined"

for source in $sources; do
    $cc $flags $link -o "$out/$(basename "$source" .c)" "$source" \
        "$out/room.a" -lyajl -lcrypto
done
