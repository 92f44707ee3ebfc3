#!/bin/sh
#
# Checks what the compiler does not: nginx's style, the rooms, leftovers, SQL
# outside store/, and cppcheck.  One line per finding, file:line: text; exits
# 1 when there is any.  Takes seconds.
#
# usage: lint.sh [file ...]       without files: all of them

set -u
LC_ALL=C
export LC_ALL

cd "$(dirname "$0")/.." || exit 1

code=ngx_http_agent_module
found=$(mktemp) || exit 1
list=$(mktemp) || exit 1
trap 'rm -f "$found" "$list" "$list.tags"' EXIT
trap 'exit 1' INT TERM

if [ $# -gt 0 ]; then
    for file; do
        file=${file#"$PWD"/}
        printf '%s\n' "${file#./}"
    done >"$list"
else
    find "$code" t sql .ci config Makefile -type f 2>/dev/null \
        | grep -v -e /node_modules/ -e /fuzz/corpus/ -e /servroot/ \
        | sort >"$list"
fi

c_files=$(grep "^$code/.*\.[ch]\$" "$list")
t_files=$(grep '^t/.*\.[ch]$' "$list")
scripts=$(grep -e '\.sh$' -e '\.pl$' -e '\.pm$' -e '\.t$' -e '\.sql$' \
               -e '^config$' -e '^Makefile$' -e '^\.ci/' "$list")

say() {
    sed "s/\$/: $*/" >>"$found"
}


# style, of all C there is

for file in $c_files $t_files; do
    awk -v file="$file" '
        function say(text) { printf "%s:%d: %s\n", file, FNR, text }

        length($0) > 80       { say("more than 80 columns") }
        /\t/                  { say("a tab") }
        /[ \t]$/              { say("white space at the end of the line") }
        /\r/                  { say("a carriage return") }

        # what stands in strings and comments says nothing about style
        {
            code = $0
            gsub(/\\\\/, "", code)
            gsub(/\\"/, "", code)
            gsub(/"[^"]*"/, "\"\"", code)
            gsub(/\/\*.*\*\//, "", code)
            if (comment) {
                if (!sub(/.*\*\//, "", code)) { code = "" } else comment = 0
            }
            if (sub(/\/\*.*/, "", code)) comment = 1
        }

        code ~ /\/\//         { say("a // comment") }
        code ~ /^[ ]*(if|for|while|switch)\(/ { say("no space behind " \
                                                    "a keyword") }
        code ~ /^[ ]*else[ {]/ { say("else on a line of its own") }
        code ~ /^[ ]*}[ ]*else/ && code !~ /^[ ]*} else (if \(.*|\{)$/ {
                                say("else stands as in \"} else {\"") }
        code ~ /^(static )?(const )?(struct )?[a-z_0-9]+[ *]+[a-z_0-9]+\(.*[^;,]$/ \
            && code !~ /__attribute__/ && code !~ /^(return|else|typedef) / {
                                pending = FNR }
        code ~ /^\{/ && pending && pending >= FNR - 4 && pending < FNR {
                                printf "%s:%d: %s\n", file, pending,
                                "the return type has no line of its own" }
        code ~ /^[{}]/        { pending = 0 }
    ' "$file" >>"$found"
done


# each file says what it is, and is no novel

for file in $c_files; do
    awk 'NF { exit !/^\/\*/ }' "$file" \
        || echo "$file:1: does not begin with a comment" >>"$found"

    lines=$(wc -l <"$file")
    [ "$lines" -lt 800 ] \
        || echo "$file:$lines: 800 lines and more" >>"$found"
done


# functions of over 100 lines

if command -v ctags >/dev/null && ctags --version 2>/dev/null \
    | grep -q Universal
then
    [ -z "$c_files" ] || ctags -f "$list.tags" --languages=C --c-kinds=f \
        --fields=+ne --excmd=number $c_files 2>/dev/null
    awk -F '\t' '!/^!/ {
        end = 0; line = 0
        for (i = 4; i <= NF; i++) {
            if ($i ~ /^line:/) line = substr($i, 6) + 0
            if ($i ~ /^end:/) end = substr($i, 5) + 0
        }
        if (end - line + 1 > 100)
            printf "%s:%d: %s() has %d lines, over 100\n", $2, line, $1,
                   end - line + 1
    }' "$list.tags" 2>/dev/null >>"$found"
fi


# leftovers, everywhere but in this file

for file in $c_files $t_files $scripts; do
    [ "$file" != t/lint.sh ] || continue
    grep -HnE '\<(TODO|FIXME|XXX)\>|^--- ONLY|^#if 0' "$file" \
        | cut -d: -f1,2 | say "a leftover"
done


# rooms: an #include of a later one.  Of no room: the top, which may all.

rooms="base io store blob core run web"

rank() {
    n=1
    for room in $rooms; do
        case $1 in
        */"$room"/*) echo $n; return ;;
        esac
        n=$((n + 1))
    done
    echo 0
}

for file in $c_files; do
    mine=$(rank "$file")

    # what all rooms may include, and the types that web and run share
    grep -nE '^#include "' "$file" | while IFS=: read -r line text; do
        name=$(printf '%s\n' "$text" | sed 's/^[^"]*"\([^"]*\)".*/\1/')
        header=$(find "$code" -name "$name" | head -1)

        if [ -z "$header" ]; then
            echo "$file:$line: there is no \"$name\""
        elif [ "$mine" -gt 0 ] && [ "$(rank "$header")" -gt "$mine" ]; then
            echo "$file:$line: includes $header, a later room"
        fi
    done >>"$found"

    # the prefix tells who may see a request

    base=$(basename "$file")
    case $base in
    ngx_http_agent_*) ;;
    ngx_agent_* | ngx_agent.h)
        grep -nE '^#include [<"]ngx_http|\<ngx_http_request_t\>' "$file" \
            | cut -d: -f1 | sed "s|^|$file:|" | say "sees a request, which" \
            "a file named ngx_agent_* must not"
        ;;
    *)
        echo "$file:1: is named neither ngx_agent_* nor ngx_http_agent_*" \
            >>"$found"
    esac
done

for base in $(find "$code" -type f -name '*.[ch]' -exec basename {} \; \
              | sort | uniq -d)
do
    echo "$(find "$code" -name "$base" | tail -1):1: its name is not unique" \
        >>"$found"
done


# SQL is spoken in store/ only; comments may mention it

for file in $c_files; do
    case $file in
    "$code"/store/*) continue ;;
    esac

    grep -nE '"[^"]*\<(SELECT .*\<FROM|INSERT INTO|UPDATE [a-z.]+ SET|DELETE FROM|WITH [a-z]+ AS|BEGIN;|COMMIT;|LISTEN [a-z]|NOTIFY [a-z])' \
        "$file" | cut -d: -f1 | sed "s|^|$file:|" | say "SQL outside store\\/"
done


# what an alert is, nginx decides, not we

for file in $c_files; do
    grep -nE '\<NGX_LOG_(ALERT|CRIT)\>' "$file" | cut -d: -f1 \
        | sed "s|^|$file:|" | say "a log level that is nginx's own"
    grep -nE '\<(assert|abort|exit|system|popen|strcpy|strcat|sprintf|gets|sleep|usleep)[ ]?\(' \
        "$file" | cut -d: -f1 | sed "s|^|$file:|" \
        | say "a call that has no place in a worker"
done


# cppcheck

if ! command -v cppcheck >/dev/null; then
    echo "lint.sh:1: cppcheck is missing: install the package cppcheck" \
        >>"$found"

else
    sources=$(printf '%s\n' $c_files | grep '\.c$')
    [ -z "$sources" ] || cppcheck --quiet --std=c99 --language=c -j2 \
        --enable=warning,performance,portability --inline-suppr \
        --suppressions-list=t/lint.suppressions \
        --template='{file}:{line}: {message} ({id})' \
        -I "$code" $(for room in $rooms; do printf -- '-I %s ' \
        "$code/$room"; done) -DNGX_THREADS=1 -DNGX_DEBUG=0 \
        $sources 2>>"$found" >/dev/null
fi


sort -u "$found" | sort -t: -k1,1 -k2,2n

if [ -s "$found" ]; then
    echo "lint: $(sort -u "$found" | wc -l) findings" >&2
    exit 1
fi
