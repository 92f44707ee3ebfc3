# What the scripts of t/ need from Debian: packages of this machine's own
# release, Test::Nginx from sid and nginx's full sources of three releases.
# To be sourced.  The machine's own source lists are left as they are: other
# suites are read through a private list in a folder of ours.
#
# shellcheck shell=bash
# shellcheck disable=SC2016  # $(SITE) is apt's own

# shellcheck disable=SC2034  # for those who source this
apt_packages="build-essential nginx nginx-dev libssl-dev libpq-dev libyajl-dev
    postgresql perl curl nghttp2-client openssl ca-certificates util-linux"


as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo > /dev/null; then
        sudo "$@"
    else
        echo "this needs root, and there is no sudo" >&2
        return 1
    fi
}


apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq \
        -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" < /dev/null
}


apt_missing() {
    local package

    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null \
            | grep -qx installed || echo "$package"
    done
}


# apt_install <package>...: only what is not there yet.  Debian starts a
# freshly installed nginx and postgres; where it does so here they are in
# nobody's way: the tests use ports and clusters of their own.

apt_install() {
    local missing log

    missing=$(apt_missing "$@" | tr '\n' ' ' | sed 's/ $//')
    [ -n "$missing" ] || return 0

    command -v apt-get > /dev/null || {
        echo "this machine is no Debian; install by hand: $missing" >&2
        return 1
    }

    echo "installing $missing" >&2
    log=$(mktemp /tmp/agent-apt.XXXXXX)

    # an update fails for one stale source of many: what counts is whether
    # the packages can be had
    # shellcheck disable=SC2086  # a list of words
    { apt_get update || true
      apt_get install --no-install-recommends $missing; } > "$log" 2>&1 \
        || { apt_failed "$log" "$missing"; return 1; }

    rm -f "$log"
}


# Node and npm, from wherever they are: one test has an agent container that
# is built with an SDK of npm's.

apt_node() {
    command -v node > /dev/null && command -v npm > /dev/null && return 0
    apt_install nodejs npm
}


# apt_failed <log> <packages>: says what went wrong first, of the hundred
# lines that follow from it.

apt_failed() {
    { grep -m 1 -E '^[EW]: Failed to fetch' "$1" \
        || grep -m 1 -E '^(E|sudo):' "$1" || tail -n 1 "$1"; } >&2
    echo "could not install $2; all of it is in $1" >&2
}


# The base address of the machine's own Debian entry.

apt_site() {
    apt-get indextargets --format '$(SITE) $(RELEASE)' 'Identifier: Packages' \
            2> /dev/null \
        | awk -v release="$(. /etc/os-release; echo "$VERSION_CODENAME")" \
              '$2 == release { print $1; found = 1; exit }
               END { if (!found) exit 1 }' \
        || echo "apt has no entry for Debian here; run apt-get update" >&2
}


# apt_suite <folder> <deb|deb-src> <suite> <apt-get arguments>...: apt-get
# that sees that one suite and nothing else.

apt_suite() {
    local folder=$1 kind=$2 suite=$3
    local options

    shift 3
    mkdir -p "$folder/lists/partial"
    echo "$kind [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
         "$(apt_site) $suite main" > "$folder/list"

    options=(-qq -o Dir::Etc::sourcelist="$folder/list"
             -o Dir::Etc::sourceparts=- -o Dir::State::lists="$folder/lists"
             -o Acquire::Languages=none -o APT::Sandbox::User=
             -o Acquire::Retries=3 -o Debug::NoLocking=1)

    (cd "$folder" && apt-get "${options[@]}" update \
        && apt-get "${options[@]}" "$@") < /dev/null
}


# Test::Nginx is not in Debian 12; sid's package is for every machine and all
# that it needs is in Debian 12.

apt_test_nginx() {
    local folder log

    perl -MTest::Nginx::Socket -e 1 2> /dev/null && return 0

    echo "installing libtest-nginx-perl (from sid)" >&2
    folder=$(mktemp -d /tmp/agent-apt.XXXXXX)
    log=$(mktemp /tmp/agent-apt.XXXXXX)
    chmod 755 "$folder"

    { apt_suite "$folder" deb sid download libtest-nginx-perl \
        && apt_get install --no-install-recommends \
                   "$folder"/libtest-nginx-perl_*.deb; } > "$log" 2>&1 \
        || { rm -rf "$folder"
             apt_failed "$log" libtest-nginx-perl; return 1; }

    rm -rf "$folder" "$log"
}


# nginx_source <folder> <suite>: the source of that suite's nginx, unpacked
# to <folder>; does nothing when it is there.

nginx_source() {
    local folder=$1 suite=$2 work

    [ -e "$folder/src/core/nginx.c" ] && return 0

    apt_install dpkg-dev || return 1
    echo "fetching nginx's source of Debian's $suite" >&2
    work=$folder.fetch
    rm -rf "$folder" "$work"
    mkdir -p "$work"

    { apt_suite "$work" deb-src "$suite" source --download-only nginx \
        && dpkg-source --no-check --no-copy -x "$work"/nginx_*.dsc "$folder"; } \
        > "$folder.log" 2>&1 \
        || nginx_orig "$folder" "$work" >> "$folder.log" 2>&1 \
        || { tail -n 5 "$folder.log" >&2
             echo "could not get nginx's source of $suite" >&2; return 1; }

    rm -rf "$work"
}


# nginx_orig <folder> <folder of the fetch>: for when a mirror has dropped what
# Debian adds to a version, and not the version itself: nginx without Debian's
# patches.

nginx_orig() {
    local folder=$1 work=$2

    [ -e "$(echo "$work"/nginx_*.orig.tar.gz)" ] || return 1

    mkdir -p "$folder.new"
    tar -xz -C "$folder.new" --strip-components=1 \
        -f "$work"/nginx_*.orig.tar.gz \
        && [ -e "$folder.new/src/core/nginx.c" ] \
        && rm -rf "$folder" && mv "$folder.new" "$folder"
}


# nginx_headers <folder> <suite>: for when a source is not to be had, as
# mirrors drop sid's sometimes: the headers of that suite's nginx-dev, enough
# to build a module but no server.

nginx_headers() {
    local folder=$1 suite=$2 work=$1.fetch

    rm -rf "$work"
    mkdir -p "$work"

    { apt_suite "$work" deb "$suite" download nginx-dev \
        && dpkg-deb -x "$work"/nginx-dev_*.deb "$work/x" \
        && rm -rf "$folder" && mv "$work/x/usr/share/nginx/src" "$folder"; } \
        > "$folder.log" 2>&1 \
        || { tail -n 5 "$folder.log" >&2
             echo "could not get nginx-dev of $suite" >&2; return 1; }

    rm -rf "$work"
}
