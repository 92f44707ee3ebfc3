#!/usr/bin/env bash
#
# One command from a fresh Debian 12 to a running agent server: installs what
# is missing, builds the module, makes a private Postgres cluster, starts
# nginx and runs one real task through it.  Everything it makes is in
# .quickstart/ and build/ (for root in a folder that servers may not enter,
# the data is in /var/lib/agent-quickstart-*); it touches no other server.
#
#   ./quickstart.sh            set up, start, run a task, leave it running
#   ./quickstart.sh status     what is running
#   ./quickstart.sh stop       stop all of it (data stays in .quickstart/)
#
#   PORT=8081                  the port of the server (8080 if it is free)
#   LLM_URL, LLM_API_KEY, LLM_MODEL
#                              an OpenAI-compatible endpoint, for example
#                              LLM_URL=http://127.0.0.1:9000/v1; without it a
#                              small scripted demo stands in for the LLM

set -eu

umask 022
export PATH="$PATH:/usr/sbin:/sbin"
export LC_ALL=C
export no_proxy=127.0.0.1

# the caller's PGHOST, PGUSER and so on are about another database
unset "${!PG@}"

top=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
state="$top/.quickstart"
conf="$state/nginx.conf"
module="$top/build/ngx_http_agent_module.so"

packages="build-essential nginx nginx-dev libpq-dev libyajl-dev libssl-dev
          postgresql perl curl jq ca-certificates util-linux"

say() {
    printf '%s\n' "$*"
}

fail() {
    printf 'quickstart: %s\n' "$*" >&2
    exit 1
}

is_root() {
    [ "$(id -u)" -eq 0 ]
}

# The pid in a file, if that very process is alive and has the given text in
# its command line: a stale file may name a process of someone else.

live_pid() {
    local file=$1 text=$2 pid

    [ -r "$file" ] || return 1
    read -r pid _ < "$file" || [ -n "${pid:-}" ] || return 1
    [[ $pid =~ ^[0-9]+$ ]] || return 1
    tr '\0' ' ' 2>/dev/null < "/proc/$pid/cmdline" \
        | grep -qF -- "$text" || return 1

    say "$pid"
}

nginx_pid() {
    live_pid "$state/nginx.pid" "$conf"
}

postgres_pid() {
    [ -n "$data" ] && live_pid "$data/postmaster.pid" "$data"
}

llm_pid() {
    live_pid "$state/llm.pid" "$state/llm.port"
}

# Waits until a command succeeds, at most so many seconds.

wait_for() {
    local seconds=$1 end

    shift
    end=$((SECONDS + seconds))

    while ! "$@" > /dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}

# stop_process NAME PID SIGNAL; with no pid there is nothing to stop.

stop_process() {
    [ -n "$2" ] || return 0

    kill "-$3" "$2"

    if ! wait_for 15 is_gone "$2"; then
        kill -TERM "$2"
        wait_for 15 is_gone "$2" || fail "$1 (pid $2) does not stop"
    fi

    say "stopped $1 (pid $2)"
}

is_gone() {
    [ ! -e "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"
}

port_taken() {
    (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null
}

# Set-up -------------------------------------------------------------------

open_state() {
    mkdir -p "$state" 2> /dev/null \
        || fail "cannot write to $top; run it in a folder of your own"

    { [ -w "$state" ] && [ -O "$state" ]; } \
        || fail "$state belongs to $(stat -c %U "$state"); run this as that" \
                "user, or remove the folder first"

    exec 9> "$state/lock"
    flock -w 5 9 \
        || fail "another quickstart.sh is at work in $top; wait for it to end"
}

missing_packages() {
    local package

    for package in $packages; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null \
            | grep -qx installed || printf '%s ' "$package"
    done | sed 's/ $//'
}

apt() {
    local run=(env DEBIAN_FRONTEND=noninteractive apt-get
               -o DPkg::Lock::Timeout=120 -qq)

    is_root || run=(sudo "${run[@]}")

    "${run[@]}" "$@" >> "$state/apt.log" 2>&1 < /dev/null
}

# What went wrong first, in apt-get's own words: the later ones follow from
# it, and the very last is general advice.

apt_words() {
    { grep -m 1 -E '^[EW]: Failed to fetch' "$state/apt.log" \
        || grep -m 1 -E '^(E|sudo):' "$state/apt.log" \
        || tail -n 1 "$state/apt.log"
    } | sed 's/^[EW]: //'
}

install_packages() {
    local missing

    command -v dpkg-query > /dev/null \
        || fail "this script knows Debian's packages only; see README.md for" \
                "a build by hand"

    missing=$(missing_packages)
    [ -n "$missing" ] || return 0

    if ! is_root; then
        command -v sudo > /dev/null \
            || fail "packages are missing and there is no sudo; as root run:" \
                    "apt-get install $missing"

        # "sudo -v" would want a password of some who need none
        sudo true \
            || fail "packages are missing and sudo is refused; as root run:" \
                    "apt-get install $missing"
    fi

    say "Installing Debian packages: $missing"
    : > "$state/apt.log"

    # it fails for one stale source of many, and not for want of a network:
    # what counts is whether the packages can be had
    apt update || true

    # shellcheck disable=SC2086  # a list of words
    apt install --no-install-recommends $missing \
        || fail "apt-get could not install the packages (all of it is in" \
                "$state/apt.log): $(apt_words)"
}

# What went wrong first, as the compiler or the Makefile has it.

build_words() {
    grep -m 1 -E 'error:|^make: [^*]' "$state/build.log" \
        || tail -n 1 "$state/build.log"
}

# nginx's build cannot stand a path with spaces; then a copy is built.

build_module() {
    local source=$top log="$state/build.log"

    if [[ ! $top =~ ^[A-Za-z0-9._/+@-]+$ ]]; then
        source=$home/source
        [[ $source =~ ^[A-Za-z0-9._/+@-]+$ ]] || source=$(private_home)/source
        mkdir -p "$source"
        cp -a "$top/Makefile" "$top/config" "$top/ngx_http_agent_module" \
              "$source/"
    fi

    [ -e "$module" ] || say "Building the module"

    env -u LLM_API_KEY make -s -C "$source" > "$log" 2>&1 < /dev/null 9>&- \
        || fail "the build failed (all of it is in $log): $(build_words)"

    if [ "$source" != "$top" ]; then
        mkdir -p "$top/build"
        cmp -s "$source/build/${module##*/}" "$module" || {
            cp "$source/build/${module##*/}" "$module.new"
            mv "$module.new" "$module"
        }
    fi
}

# A folder of our own outside the project, the same for every run.

private_home() {
    local sum base=/var/tmp dir

    sum=$(printf '%s' "$top" | cksum)
    is_root && base=/var/lib
    dir="$base/agent-quickstart-$(id -u)-${sum%% *}"

    mkdir -p "$dir"
    { [ -O "$dir" ] && [ ! -L "$dir" ]; } \
        || fail "$dir belongs to someone else; remove it"
    say "$dir"
}

reachable_by() {
    setpriv --reuid "$1" --regid "$1" --clear-groups test -x "$2"
}

# Where the servers keep their files.  As root they run as postgres and as
# www-data, who cannot enter a project under /root: then their part is
# elsewhere, with links to it from .quickstart/.

choose_home() {
    home=$state

    if is_root && ! { reachable_by postgres "$state" \
                      && reachable_by www-data "$state"; }
    then
        home=$(private_home)

    elif [[ $state =~ [^A-Za-z0-9._/+@,=\ -] ]]; then
        home=$(private_home)
    fi

    if [ "$home" != "$state" ]; then
        { ln -sfnT "$home/postgres" "$state/postgres" \
          && ln -sfnT "$home/artifacts" "$state/artifacts"; } 2> /dev/null \
            || fail "$state/postgres is in the way; stop it and remove $state"
        say "The servers may not enter $state; their data is in $home"
    fi

    data=$(realpath -m "$home/postgres")
}

# Postgres -----------------------------------------------------------------

# The words that run a command as the owner of the cluster, from a folder
# that it can enter.

set_owner() {
    owner=(env -C / HOME=/)
    ! is_root || owner=(setpriv --reuid postgres --regid postgres
                        --clear-groups "${owner[@]}")
}

find_postgres() {
    local version

    if [ -r "$data/PG_VERSION" ]; then
        version=$(< "$data/PG_VERSION")
    else
        version=$(find /usr/lib/postgresql -mindepth 1 -maxdepth 1 \
                       -printf '%f\n' | sort -n | tail -n 1)
    fi

    pg_bin="/usr/lib/postgresql/$version/bin"

    [ -x "$pg_bin/initdb" ] \
        || fail "Postgres $version is not installed; run: apt-get install" \
                "postgresql-$version"
}

# Peer authentication: the database asks the kernel who is calling, so there
# is no password to keep.  nginx's workers may log in as "agent" only.

write_auth() {
    local name=$1 worker=$2

    printf 'local all all peer map=quickstart\n' > "$3/pg_hba.conf"

    {
        printf 'quickstart "%s" postgres\n' "$name"
        printf 'quickstart "%s" agent\n' "$name"
        [ "$worker" = "$name" ] || printf 'quickstart "%s" agent\n' "$worker"
    } > "$3/pg_ident.conf"
}

make_cluster() {
    local new="$data.new" name worker

    [ -r "$data/PG_VERSION" ] && return 0

    say "Making a Postgres cluster in $data"

    name=$(id -un) || fail "user id $(id -u) has no name in /etc/passwd"
    worker=$name

    # under another name until it is whole: a run may be interrupted
    rm -rf "$new"
    mkdir -m 700 "$new"

    if is_root; then
        name=postgres
        worker=www-data
        chown postgres:postgres "$new"
    fi

    "${owner[@]}" "$pg_bin/initdb" -D "$new" -U postgres -A peer -E UTF8 \
             --locale=C.UTF-8 > "$state/initdb.log" 2>&1 < /dev/null 9>&- \
        || fail "initdb failed: $(tail -n 1 "$state/initdb.log")"

    write_auth "$name" "$worker" "$new"
    mv -T "$new" "$data"
}

# Unix socket paths are short and the conninfo has to quote them, so a long
# or odd one is replaced by a folder in /tmp.

make_socket_dir() {
    socket="$home/socket"

    if [ -r "$state/socket.path" ]; then
        socket=$(< "$state/socket.path")

    elif [ "${#socket}" -gt 80 ] || [[ $socket =~ [^A-Za-z0-9._/+@-] ]]; then
        socket=$(mktemp -d /tmp/agent-quickstart.XXXXXX)
    fi

    mkdir -p "$socket"
    chmod 755 "$socket"
    ! is_root || chown postgres:postgres "$socket"

    say "$socket" > "$state/socket.path"
}

as_sql() {
    "${owner[@]}" "$pg_bin/psql" -X -q -A -t -h "$socket" \
        -v ON_ERROR_STOP=1 "$@"
}

postgres_ready() {
    as_sql -U postgres -d postgres -c 'select 1' > /dev/null 2>&1
}

ready_or_gone() {
    is_gone "$1" || postgres_ready
}

# Postgres takes a lock file that names a process of its own user for a
# running server.  After a reboot that may be any program, and in a container
# whose init collects no children a killed server is there for ever.

drop_stale_locks() {
    local file pid

    for file in "$data/postmaster.pid" "$socket"/.s.PGSQL.*.lock; do
        { [ -r "$file" ] && read -r pid < "$file"; } || continue

        { ! is_gone "$pid" \
          && [ "$(cat "/proc/$pid/comm" 2> /dev/null)" = postgres ]; } \
            || rm -f "$file"
    done
}

start_postgres() {
    local log="$state/postgres.log" try

    if postgres_pid > /dev/null && [ -r "$state/socket.path" ]; then
        socket=$(< "$state/socket.path")
        wait_for 10 postgres_ready && return 0
    fi

    stop_process Postgres "$(postgres_pid)" INT
    rm -f "$state/socket.path"
    make_socket_dir
    say "Starting Postgres"

    # again, since children of a killed server need a moment to leave

    for try in 1 2 3; do
        drop_stale_locks
        "${owner[@]}" setsid "$pg_bin/postgres" -D "$data" -k "$socket" \
            -c listen_addresses= >> "$log" 2>&1 < /dev/null 9>&- &

        wait_for 60 ready_or_gone "$!" || true
        postgres_ready && return 0
        sleep "$try"
    done

    fail "Postgres does not start; $log ends: $(tail -n 1 "$log")"
}

load_schema() {
    local file number loaded=

    as_sql -U postgres -d postgres \
           -c "select 1 from pg_roles where rolname = 'agent'" | grep -q 1 \
        || as_sql -U postgres -d postgres -c 'create role agent login'

    as_sql -U postgres -d postgres \
           -c "select 1 from pg_database where datname = 'agent'" | grep -q 1 \
        || as_sql -U postgres -d postgres -c 'create database agent owner agent'

    if [ -n "$(as_sql -U agent -d agent \
               -c "select to_regclass('agent.schema_version')")" ]
    then
        loaded=$(as_sql -U agent -d agent \
                 -c 'select version from agent.schema_version')
    fi

    for file in "$top"/sql/[0-9]*.sql; do
        number=${file##*/}
        number=$((10#${number%%[!0-9]*}))

        grep -qx "$number" <<< "$loaded" && continue

        say "Loading sql/${file##*/}"
        as_sql -U agent -d agent -f - < "$file" 2> "$state/sql.log" \
            || fail "sql/${file##*/} does not load:" \
                    "$(head -n 1 "$state/sql.log")"
    done
}

# The LLM ------------------------------------------------------------------

check_llm() {
    local url='^(https?)://(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+)(:[0-9]+)?'

    url="$url(/[A-Za-z0-9._~/%-]*)?\$"

    [[ $LLM_URL =~ $url ]] \
        || fail "LLM_URL is not a base like http://127.0.0.1:9000/v1"

    llm_scheme=${BASH_REMATCH[1]}
    llm_name=${BASH_REMATCH[2]}
    llm_host=$llm_name${BASH_REMATCH[3]}
    llm_path=${BASH_REMATCH[4]%/}/
    llm_server=$llm_host
    llm_model=${LLM_MODEL:-}

    if [ -z "${BASH_REMATCH[3]}" ]; then
        llm_server=$llm_name:80
        [ "$llm_scheme" = http ] || llm_server=$llm_name:443
    fi

    [ -n "$llm_model" ] \
        || fail "set LLM_MODEL to the name of a model that LLM_URL serves"

    [[ $llm_model =~ ^[A-Za-z0-9._:/@+-]+$ ]] \
        || fail "LLM_MODEL has characters that no model name has"

    [[ ${LLM_API_KEY:-} =~ ^[A-Za-z0-9._~+/=:-]*$ ]] \
        || fail "LLM_API_KEY has characters that no key has"
}

start_demo_llm() {
    local log="$state/llm.log"

    if ! llm_pid > /dev/null; then
        rm -f "$state/llm.port"

        # it needs no module but perl's own and the one beside it
        env -u LLM_API_KEY -u PERL5LIB -u PERL5OPT \
            setsid perl "$top/t/lib/fake-llm.pl" --demo \
            --port 0 --port-file "$state/llm.port" \
            >> "$log" 2>&1 < /dev/null 9>&- &
        echo $! > "$state/llm.pid"

        wait_for 10 test -s "$state/llm.port" \
            || fail "the demo LLM does not start; $log ends:" \
                    "$(tail -n 1 "$log")"
    fi

    llm_scheme=http
    llm_name=127.0.0.1
    llm_host=$llm_name:$(< "$state/llm.port")
    llm_server=$llm_host
    llm_path=/v1/
    llm_model=demo
}

choose_llm() {
    if [ -n "${LLM_URL:-}" ]; then
        check_llm
        return
    fi

    [ -z "${LLM_API_KEY:-}${LLM_MODEL:-}" ] \
        || fail "LLM_API_KEY or LLM_MODEL is set, but LLM_URL is not"

    start_demo_llm
}

# nginx --------------------------------------------------------------------

# Sets port; the one in use when nginx runs already.

choose_port() {
    local running=

    if nginx_pid > /dev/null && [ -r "$state/port" ]; then
        running=$(< "$state/port")
    fi

    if [ -n "${PORT:-}" ]; then
        { [[ $PORT =~ ^[1-9][0-9]{0,4}$ ]] && [ "$PORT" -le 65535 ]; } \
            || fail "PORT=$PORT is not a port number"

        port=$PORT
        [ "$port" = "$running" ] || ! port_taken "$port" \
            || fail "port $port is taken by another program; choose one with" \
                    "PORT="
        return
    fi

    port=$running
    [ -z "$port" ] || return 0

    for port in $(seq 8080 8179); do
        port_taken "$port" || return 0
    done

    fail "no port from 8080 to 8179 is free; choose one with PORT="
}

# The lines that differ from one endpoint to the other.

conf_llm_lines() {
    [ -z "${LLM_URL:-}" ] || [ -z "${LLM_API_KEY:-}" ] \
        || say "proxy_set_header Authorization \"Bearer $LLM_API_KEY\";"

    if [ "$llm_scheme" = https ]; then
        say "proxy_ssl_server_name on;"
        say "proxy_ssl_name $llm_name;"
        say "proxy_ssl_verify on;"
        say "proxy_ssl_verify_depth 5;"
        say "proxy_ssl_trusted_certificate /etc/ssl/certs/ca-certificates.crt;"
    fi
}

conf_agent_lines() {
    if [ -z "${LLM_URL:-}" ]; then
        say "instructions \"This is a demo.\";"
        return
    fi

    say "instructions \"You are an agent that carries out tasks with the\
 tools you are given. Write results to files with write_artifact, then call\
 finish.\";"
}

print_conf() {
    local user=
    ! is_root || user='user www-data;'

    cat << END
# written by quickstart.sh on every run; your changes here will be lost
$user
load_module "$module";
worker_processes auto;
worker_shutdown_timeout 30s;
pid "$state/nginx.pid";
error_log "$state/error.log" notice;

events {
    worker_connections 1024;
}

http {
    access_log "$state/access.log";
    client_body_temp_path "$home/temp/body";
    proxy_temp_path "$home/temp/proxy";
    fastcgi_temp_path "$home/temp/fastcgi";
    uwsgi_temp_path "$home/temp/uwsgi";
    scgi_temp_path "$home/temp/scgi";

    agent_database "host=$socket dbname=agent user=agent";
    agent_artifacts "$home/artifacts";

    upstream llm {
        server $llm_server;
        keepalive 16;
    }

    server {
        listen 127.0.0.1:$port;

        agent writer {
            pass /llm/chat/completions;
            dialect openai;
            model "$llm_model";
            $(conf_agent_lines)
            timeout 120s;
            attempts 3;
            max_steps 25;
        }

        location /ap/v1/agent/ {
            agent_pass writer;
            client_max_body_size 16m;
        }

        location /agent/ {
            agent_pass writer;
            client_max_body_size 16m;
        }

        location /llm/ {
            internal;
            proxy_pass $llm_scheme://llm$llm_path;
            proxy_buffering off;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host "$llm_host";
$(conf_llm_lines | sed 's/^/            /')
            proxy_read_timeout 130s;
            client_max_body_size 0;
        }
    }
}
END
}

# Writes nginx.conf, for its owner's eyes only: the key may be in it.
# Succeeds if it differs from the one before.

write_conf() {
    mkdir -p "$home/temp"

    (umask 077 && rm -f "$conf.new" && print_conf > "$conf.new") \
        || fail "cannot write $conf"

    if cmp -s "$conf.new" "$conf"; then
        rm -f "$conf.new"
        return 1
    fi

    mv "$conf.new" "$conf"
}

nginx() {
    env -u LLM_API_KEY nginx -c "$conf" -e "$state/error.log" "$@" 9>&-
}

# One line of what nginx -t complains of, without the prefix.

check_conf() {
    local words

    words=$(nginx -t -q 2>&1) && return 0
    words=$(grep -m 1 -F '[emerg]' <<< "$words" || tail -n 1 <<< "$words")
    rm -f "$conf"

    case $words in
        *'host not found'*)
            fail "the host of LLM_URL is not found: $llm_name" ;;
        *":$port failed"*'ermission denied'*)
            fail "only root may listen on port $port; choose one with PORT=" ;;
        *)
            fail "nginx refuses its configuration: ${words#*\] }" ;;
    esac
}

answers() {
    [ "$(curl -q -s -o /dev/null -m 5 -w '%{http_code}' \
              "$url/ap/v1/agent/tasks?page_size=1")" = 200 ]
}

# Old workers take connections until they have heard of a reload, and work
# with the old configuration.  Those that shut down take none.

workers_of() {
    local stat pid parent

    for stat in /proc/[0-9]*/stat; do
        # "pid (name) state parent ...": the name of a worker has no spaces
        read -r pid _ _ parent _ 2> /dev/null < "$stat" || continue
        [ "$parent" != "$1" ] || say "$pid"
    done
}

retired() {
    local pid

    for pid in "$@"; do
        is_gone "$pid" \
            || grep -qF 'shutting down' "/proc/$pid/cmdline" || return 1
    done
}

reload_nginx() {
    local workers

    say "Reloading nginx"
    workers=$(workers_of "$1")
    kill -HUP "$1"

    # shellcheck disable=SC2086  # a list of pids
    wait_for 15 retired $workers || {
        rm -f "$conf"
        fail "nginx does not take its new configuration; $state/error.log" \
             "ends: $(tail -n 1 "$state/error.log")"
    }
}

start_nginx() {
    local pid changed=

    ! write_conf || changed=1
    check_conf

    # A running nginx keeps the module it has loaded, so that a new one needs
    # a restart; anything else is a reload.

    if pid=$(nginx_pid) && [ "$module" -nt "$state/nginx.pid" ]; then
        stop_process nginx "$pid" QUIT
    fi

    if ! pid=$(nginx_pid); then
        rm -f "$state/nginx.pid"
        say "Starting nginx on port $port"
        nginx > "$state/nginx.log" 2>&1 < /dev/null \
            || fail "nginx does not start: $(head -n 1 "$state/nginx.log")"

    elif [ -n "$changed" ]; then
        reload_nginx "$pid"
    fi

    say "$port" > "$state/port"

    wait_for 15 answers \
        || fail "the server does not answer on port $port; $state/error.log" \
                "ends: $(tail -n 1 "$state/error.log")"
}

# The task -----------------------------------------------------------------

# Prints a curl as one can type it, runs it, prints its answer and leaves
# that in $answer.  A failure is told in the server's own words.

call() {
    local word line='curl -sS' status

    for word in "$@"; do
        if [[ $word =~ ^[A-Za-z0-9._:/=-]+$ ]]; then
            line+=" $word"
        else
            line+=" '${word//\'/\'\\\'\'}'"
        fi
    done

    say ""
    say "\$ $line"

    answer=$(curl -q -sS -w '\n%{http_code}' "$@" 2>&1) \
        || fail "the server gave no answer: $answer"

    status=${answer##*$'\n'}
    answer=${answer%$'\n'*}
    say "$answer"

    [ "$status" = 200 ] \
        || fail "the server answered $status:" \
                "$(jq -r .message <<< "$answer" 2> /dev/null)" \
                "(it is left running; the log is $state/error.log)"
}

value() {
    jq -r "$1" <<< "$answer"
}

run_steps() {
    local task=$1 json='Content-Type: application/json'

    for _ in $(seq 25); do
        call -X POST "$url/ap/v1/agent/tasks/$task/steps" -H "$json" -d '{}'

        [ "$(value .is_last)" != true ] || return 0

        [ "$(value .status)" != waiting_for_input ] \
            || fail "the agent asks: $(value .output) (answer it with the" \
                    "same call and -d '{\"input\": \"...\"}')"
    done

    fail "the agent was not done after 25 steps"
}

run_task() {
    local task artifact input

    input='{"input": "Write the word Washington to the file output.txt"}'

    call -X POST "$url/ap/v1/agent/tasks" \
         -H 'Content-Type: application/json' -d "$input"
    task=$(value .task_id)

    run_steps "$task"

    call "$url/ap/v1/agent/tasks/$task/artifacts"
    artifact=$(value '.artifacts[-1].artifact_id // empty')

    if [ -z "$artifact" ]; then
        say ""
        say "The model wrote no file this time; the calls all worked."
        return
    fi

    call "$url/ap/v1/agent/tasks/$task/artifacts/$artifact"

    [ -n "${LLM_URL:-}" ] || [ "$answer" = Washington ] \
        || fail "the demo's output.txt should say Washington"
}

# Commands -----------------------------------------------------------------

start() {
    open_state
    install_packages
    choose_home
    set_owner
    choose_port
    url="http://127.0.0.1:$port"

    build_module
    find_postgres
    make_cluster
    start_postgres
    load_schema
    choose_llm
    start_nginx

    if [ -n "${LLM_URL:-}" ]; then
        # not before: until then nginx may have called it
        stop_process "the demo LLM" "$(llm_pid)" TERM
        say "The LLM is $llm_model at $LLM_URL"
    else
        say "The LLM is a scripted demo (t/lib/fake-llm.pl --demo): it says"
        say "the same for every task.  Set LLM_URL, LLM_API_KEY and LLM_MODEL"
        say "for a real one."
    fi

    run_task

    say ""
    say "The server is left running.  Stop it:   ./quickstart.sh stop"
    say "Its state and its logs are in .quickstart/"
    say "ready: $url"
}

# Where a run before this one put its data, for stop and status.

find_state() {
    data=
    [ ! -d "$state/postgres" ] || data=$(realpath "$state/postgres")
}

stop() {
    [ -d "$state" ] || { say "nothing was started here"; return; }

    open_state
    find_state
    stop_process nginx "$(nginx_pid)" QUIT
    stop_process "the demo LLM" "$(llm_pid)" TERM
    stop_process Postgres "$(postgres_pid)" INT

    if [[ $(cat "$state/socket.path" 2> /dev/null) == /tmp/* ]]; then
        rm -rf "$(< "$state/socket.path")"
    fi
    rm -f "$state/socket.path"

    [ -z "$data" ] || data=${data%/postgres}
    say "all is stopped; the data stays in ${data:-$state}"
}

status() {
    local name pid

    find_state

    for name in nginx postgres llm; do
        if pid=$("${name}_pid"); then
            say "$name: running (pid $pid)"
        else
            say "$name: not running"
        fi
    done

    # the demo LLM need not run: there may be an LLM_URL
    nginx_pid > /dev/null && postgres_pid > /dev/null \
        && say "ready: http://127.0.0.1:$(< "$state/port")"
}

usage() {
    sed -n '3,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

case ${1:-start} in
    start) start ;;
    stop) stop ;;
    status) status ;;
    help | -h | --help) usage ;;
    *) usage >&2; exit 2 ;;
esac
