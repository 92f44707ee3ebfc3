# shellcheck shell=bash
#
# What the parts of the bench share: a private Postgres with its stock
# settings, which both sides reach by TCP on the loopback, the nginx of either
# side, one sample, the table of results.
# Sourced by run.sh, which says what is measured and sets the variables that
# are not set here.
# shellcheck disable=SC2154,SC2034

export LC_ALL=C
export PATH="$PATH:/usr/sbin:/sbin"
unset "${!PG@}"

pids=()
rows=()
postgres=
work=

say() {
    printf '%s\n' "$*" >&2
}

fail() {
    printf 'bench: %s\n' "$*" >&2
    exit 1
}

need() {
    local tool

    for tool in wrk perl curl nginx setpriv; do
        command -v "$tool" > /dev/null || fail "$tool is not installed"
    done

    pg_bin=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin \
             | sort -V | tail -n 1)
    [ -x "$pg_bin/pgbench" ] || fail "postgresql is not installed"
    [ -r "$module" ] || fail "$module is not there; run make"
}

# Stops what this run started, by pid, in the reverse order.

clean_up() {
    local i

    [ -z "$postgres" ] || kill -QUIT "$postgres" 2> /dev/null || true

    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill -TERM "${pids[i]}" 2> /dev/null || true
    done

    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        wait_gone "${pids[i]}" || kill -KILL "${pids[i]}" 2> /dev/null || true
    done

    if [ -n "${BENCH_KEEP:-}" ]; then
        say "kept: $work"
    elif [ -n "$work" ]; then
        rm -rf "$work"
    fi
}

wait_gone() {
    local i

    for ((i = 0; i < 150; i++)); do
        [ -e "/proc/$1" ] || return 0
        ! grep -q '^State:.Z' "/proc/$1/status" 2> /dev/null || return 0
        sleep 0.1
    done

    return 1
}

wait_for() {
    local i

    for ((i = 0; i < 300; i++)); do
        ! "$@" > /dev/null 2>&1 || return 0
        sleep 0.1
    done

    return 1
}

# The words that run a command as the user of both sides, who is not root, so
# that files and the socket can stay private to it.

owner=(env -C / HOME=/)
[ "$(id -u)" -ne 0 ] || owner=(setpriv --reuid postgres --regid postgres
                               --clear-groups "${owner[@]}")

free_port() {
    perl -MIO::Socket::INET -e '
        $s = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1")
            or die; print $s->sockport'
}

# Postgres ------------------------------------------------------------------

sql() {
    "${owner[@]}" "$pg_bin/psql" -X -q -A -t -h "$work" -p "$pg_port" -U postgres -d bench \
             -v ON_ERROR_STOP=1 "$@"
}

ready() {
    sql -d postgres -c 'select 1'
}

start_postgres() {
    local file

    "${owner[@]}" "$pg_bin/initdb" -D "$work/pg" -U postgres -A trust -E UTF8 \
             --locale=C.UTF-8 > "$work/initdb.log" 2>&1 \
        || fail "initdb failed: $(tail -n 1 "$work/initdb.log")"

    pg_port=$(free_port)
    "${owner[@]}" "$pg_bin/postgres" -D "$work/pg" -k "$work" -p "$pg_port" \
             -c listen_addresses=127.0.0.1 \
             > "$work/postgres.log" 2>&1 < /dev/null &
    postgres=$!
    pids+=("$postgres")

    wait_for ready || fail "Postgres does not start: $work/postgres.log"

    # no superuser, or row-level security would not be measured
    sql -d postgres -c 'create role agent login' \
        -c 'create database bench owner agent'
    for file in "$top"/sql/[0-9]*.sql; do
        sql -U agent -f - < "$file" > /dev/null
    done
}

# Every table of the schema but the one with its version.  Where nginx runs,
# one of its statements may hold a table and want the next: once more, then.

empty_database() {
    truncate_all 2> /dev/null || truncate_all
}

truncate_all() {
    sql -c "select 'truncate ' || string_agg(format('%I.%I', schemaname,
                   tablename), ', ') || ' cascade'
              from pg_tables
             where schemaname = 'agent' and tablename <> 'schema_version'" \
        | sql -f -
}

# nginx ---------------------------------------------------------------------

# start_nginx NAME: with the configuration on stdin; its master's pid is then
# in $started.

start_nginx() {
    local dir="$work/$1"

    mkdir -p "$dir"
    cat > "$dir/nginx.conf"
    [ "$(id -u)" -ne 0 ] || chown postgres "$dir"

    nginx -p "$dir/" -c "$dir/nginx.conf" -e "$dir/error.log" \
          -g 'daemon off;' > "$dir/stdout" 2>&1 < /dev/null &
    started=$!
    pids+=("$started")
}

stop_last() {
    local pid=${pids[-1]}

    kill -QUIT "$pid"
    wait_gone "$pid" || fail "nginx (pid $pid) does not stop"
    unset 'pids[-1]'
}

conf_user() {
    [ "$(id -u)" -ne 0 ] || printf 'user postgres;\n'
}

# The lines that both kinds of nginx begin with.

conf_head() {
    cat << END
$(conf_user)
load_module "$module";
pid nginx.pid;
error_log error.log warn;
worker_processes $1;
worker_rlimit_nofile $nofile;
events { worker_connections $connections; }
END
}

conf_http() {
    cat << END
    access_log off;
    keepalive_requests 100000000;
    client_body_temp_path temp_body;
    proxy_temp_path temp_proxy;
    fastcgi_temp_path temp_fastcgi;
    uwsgi_temp_path temp_uwsgi;
    scgi_temp_path temp_scgi;
END
}

# The stand-in for an LLM that answers at once.

start_upstream() {
    local event='data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",'

    event+='\"created\":1,\"model\":\"bench\",\"choices\":[{\"index\":0,'

    { conf_head 1; cat << END; } > "$work/upstream.conf"
http {
$(conf_http)
    default_type text/event-stream;
    server {
        listen 127.0.0.1:$llm_port;
        location / {
            return 200 "${event}\"delta\":{\"role\":\"assistant\",\
\"content\":\"It is done.\"},\"finish_reason\":null}]}\n\n${event}\
\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,\
\"completion_tokens\":4,\"total_tokens\":13}}\n\ndata: [DONE]\n\n";
        }
    }
}
END
    start_nginx upstream < "$work/upstream.conf"
}

# The module, and beside it plain proxying to the same upstream.
# start_agent NAME WORKERS LLM_PORT [more lines for http [and for server]]

start_agent() {
    { conf_head "$2"; cat << END; } > "$work/$1.conf"
http {
$(conf_http)
${4:-}
    agent_database "host=127.0.0.1 port=$pg_port dbname=bench
                    user=agent";
    agent_artifacts artifacts;

    upstream llm {
        server 127.0.0.1:$3;
        keepalive 256;
        keepalive_requests 100000000;
    }

    server {
        listen 127.0.0.1:$port backlog=8192;

        agent bench {
            pass /llm/chat/completions;
            dialect openai;
            model bench;
            timeout 300s;
            attempts 1;
        }

        location /ap/v1/agent/ { agent_pass bench; }
        location = /stub { stub_status; }
${5:-}

        location /plain/ {
            proxy_pass http://127.0.0.1:$3/v1/;
        }

        location /kept/ {
            proxy_pass http://llm/v1/;
            proxy_buffering off;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }

        location /llm/ {
            internal;
            proxy_pass http://llm/v1/;
            proxy_buffering off;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_read_timeout 310s;
        }
    }
}
END
    start_nginx "$1" < "$work/$1.conf"
    wait_for answers || fail "nginx does not answer:" \
        "$(tail -n 1 "$work/$1/error.log" "$work/$1/stdout")"
}

answers() {
    curl -q -sf -m 5 "$url/tasks?page_size=1"
}

# The one worker of a nginx.

worker_of() {
    tr -d ' ' < "/proc/$1/task/$1/children"
}

rss() {
    awk '/^VmRSS/ { print $2 }' "/proc/$1/status"
}

# Samples -------------------------------------------------------------------

# run_wrk SECONDS CONNECTIONS SCRIPT [args]: prints requests per second;
# a sample with an error in it is no sample.

run_wrk() {
    local seconds=$1 connections=$2 script=$3 threads=2 out="$work/wrk.out"

    shift 3
    [ "$connections" -gt 1 ] || threads=1

    wrk -t"$threads" -c"$connections" -d"${seconds}s" --timeout 30s --latency \
        ${key:+-H "Authorization: Bearer $key"} \
        -s "$here/$script" "$url" -- "$@" > "$out" 2>&1 \
        || fail "wrk: $(tail -n 1 "$out")"

    # every.lua asks for some 4xx, and looks at what it gets itself
    [ "${1:-}" != any ] || sed -i '/Non-2xx/d' "$out"

    ! grep -E 'Non-2xx|Socket errors|unexpected' "$out" >&2 \
        || fail "$script: not every answer was good"

    awk '/^Requests\/sec/ { printf "%d\n", $2 }' "$out"
}

# The median latency of the last wrk, in microseconds.

wrk_median() {
    awk '$1 == "50%" {
             t = $2 + 0
             if ($2 ~ /us$/) print int(t)
             else if ($2 ~ /ms$/) print int(t * 1000)
             else print int(t * 1000000)
         }' "$work/wrk.out"
}

run_pgbench() {
    local seconds=$1 script=$2 out="$work/pgbench.out"

    shift 2
    "${owner[@]}" "$pg_bin/pgbench" -h 127.0.0.1 -p "$pg_port" -U postgres -n \
             -M prepared \
             -c 64 -T "$seconds" "$@" -f /dev/stdin bench \
             < "$here/$script" > "$out" 2>&1 \
        || fail "pgbench: $(grep -m 1 -i error "$out")"

    awk '/^tps/ { printf "%d\n", $3 }' "$out"
}

median() {
    sort -n | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'
}

# compare OURS THEIRS: both by turns, $rounds times; medians in $a and $b.

compare() {
    local i list_a=() list_b=()

    for ((i = 1; i <= rounds; i++)); do
        sql -c checkpoint
        a=$("$1")
        sql -c checkpoint
        b=$("$2")
        list_a+=("$a")
        list_b+=("$b")
        say "  round $i: ours $a, theirs $b per second"
    done

    a=$(printf '%s\n' "${list_a[@]}" | median)
    b=$(printf '%s\n' "${list_b[@]}" | median)
}

# row WHAT OURS THEIRS RATIO [at-least|at-most GOAL]

row() {
    local met sign='>='

    if [ $# -eq 4 ]; then
        rows+=("| $1 | $2 | $3 | $4 | - | - |")
        say "  ratio $4"
        return
    fi

    [ "$5" = at-least ] || sign='<='
    met=$(awk -v r="$4" -v g="$6" -v s="$sign" \
          'BEGIN { print (s == ">=" ? r >= g : r <= g) ? "yes" : "no" }')
    rows+=("| $1 | $2 | $3 | $4 | $sign $6 | $met |")
    say "  ratio $4, goal $sign $6: $met"
}

ratio() {
    awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f\n", (b > 0 ? a / b : 0) }'
}

print_table() {
    printf '| what | ours | theirs | ratio | goal | met |\n'
    printf '|---|--:|--:|--:|--:|---|\n'
    printf '%s\n' "${rows[@]}"
}
