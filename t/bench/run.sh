#!/usr/bin/env bash
#
# `make bench`: what the module does against what it is made of, on this
# machine, in one run.  Both sides use one durable Postgres with its stock
# settings; they are measured by turns and the medians compared, so that the
# ratios mean something even where the figures do not.  Prints a table in
# markdown; asserts nothing about speed, but a wrong answer ends it.
#
#   t/bench/run.sh [post] [get] [step] [keys] [queue] [slump] [list] [memory]
#                  [flat]
#
#   BENCH_SECONDS=10    of one sample
#   BENCH_ROUNDS=3      samples of each side
#   BENCH_TASKS=1000000 in the big table of slump and list
#   BENCH_KEYS=100000   in the table of keys
#   BENCH_STEPS=5000    held at once by one worker
#   BENCH_REQUESTS=100000  of every kind, while memory should stay flat
#   BENCH_KEEP=1        keep the folder with logs and database

# shellcheck disable=SC2154,SC2034  # lib.sh shares these variables

set -eu

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
top=$(cd "$here/../.." && pwd -P)
module="${BENCH_MODULE:-$top/build/ngx_http_agent_module.so}"

seconds=${BENCH_SECONDS:-10}
rounds=${BENCH_ROUNDS:-3}
tasks=${BENCH_TASKS:-1000000}
steps=${BENCH_STEPS:-5000}
keys=${BENCH_KEYS:-100000}
key=
requests=${BENCH_REQUESTS:-100000}
nofile=$(ulimit -Hn)
connections=4096
readable=100000

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"

# Each part begins with new workers on an empty database.

restart_agent() {
    stop_last
    empty_database
    connections=4096
    start_agent agent 2 "$llm_port"
}

# POST task -----------------------------------------------------------------

post_ours() {
    local before after rate

    before=$(sql -c 'select count(*) from agent.task')
    rate=$(run_wrk "$seconds" 64 task.lua)
    after=$(sql -c 'select count(*) from agent.task')

    # what was answered with 200 is committed
    awk -v got="$((after - before))" \
        '/requests in/ { exit got < $1 }' "$work/wrk.out" \
        || fail "$((after - before)) tasks stored, fewer than answered"

    printf '%s\n' "$rate"
}

# As it is called without more ado, pgbench has one thread; with two it is
# the harder comparison, and has a row of its own.

post_theirs() {
    run_pgbench "$seconds" insert.sql -D n=0 -D base="$((RANDOM + 1))" "$@"
}

post_two_threads() {
    post_theirs -j 2
}

part_post() {
    say "POST task, 64 connections, against one insert a transaction"
    run_wrk 2 64 task.lua > /dev/null
    compare post_ours post_theirs
    row "POST task (pgbench insert)" "$a/s" "$b/s" "$(ratio "$a" "$b")" \
        at-least 2.3

    compare post_ours post_two_threads
    row "POST task (the same, pgbench -j 2)" "$a/s" "$b/s" \
        "$(ratio "$a" "$b")"
}

# GET task ------------------------------------------------------------------

get_ours() {
    run_wrk "$seconds" 64 get.lua "$readable"
}

get_theirs() {
    run_pgbench "$seconds" select.sql -D tasks="$readable" "$@"
}

get_two_threads() {
    get_theirs -j 2
}

part_get() {
    say "GET task, 64 connections, against the same prepared select"
    sql -v tasks="$readable" -f - < "$here/fill.sql"
    run_wrk 2 64 get.lua "$readable" > /dev/null
    compare get_ours get_theirs
    row "GET task (pgbench select)" "$a/s" "$b/s" "$(ratio "$a" "$b")" \
        at-least 2.5

    compare get_ours get_two_threads
    row "GET task (the same, pgbench -j 2)" "$a/s" "$b/s" \
        "$(ratio "$a" "$b")"
}

# POST step -----------------------------------------------------------------

step_ours() {
    run_wrk "$seconds" 64 step.lua "$work/ids"
}

# nginx's own proxy_pass, plain, with nothing else set; and, the harder
# comparison, with the settings of the module's own location: connections to
# the upstream kept, no buffering.

step_theirs() {
    run_wrk "$seconds" 64 plain.lua plain
}

step_kept() {
    run_wrk "$seconds" 64 plain.lua kept
}

# Tasks with no step yet; each step is the first and last of its own.

fresh_tasks() {
    while [ "$(sql -c 'select count(*) from agent.task')" -lt "$1" ]; do
        run_wrk 5 64 task.lua > /dev/null
    done
}

fresh_ids() {
    sql -c 'select t.task_id from agent.task t
             where not exists (select from agent.step s
                                where s.task_id = t.task_id)' > "$work/ids"
    printf '0\n' > "$work/ids.next"
}

part_step() {
    say "POST step, 64 connections, against nginx proxying to the same LLM"
    fresh_tasks "$((seconds * rounds * 2 * 20000 + 20000))"
    fresh_ids
    run_wrk 2 64 plain.lua kept > /dev/null
    compare step_ours step_theirs
    row "POST step (plain proxy_pass)" "$a/s" "$b/s" \
        "$(ratio "$a" "$b")" at-least 0.3

    compare step_ours step_kept
    row "POST step (proxy_pass, connections kept)" "$a/s" "$b/s" \
        "$(ratio "$a" "$b")" at-least 0.3
}

# Queue ---------------------------------------------------------------------

# One nginx takes steps in and runs none; another one then runs them all, and
# no client waits.  The rate is that from its first step to its last.

start_accepting() {
    stop_last
    start_agent accepting 1 "$llm_port" 'agent_run off; agent_queue 10000000;'
}

queue_ours() {
    fresh_tasks "$((seconds * 30000))"
    fresh_ids
    start_accepting
    run_wrk "$seconds" 64 step.lua "$work/ids" async > /dev/null
    stop_last

    start_agent agent 2 "$llm_port"
    a=$(sql -f - << 'END' | tail -n 1
create or replace procedure drained() language plpgsql as $$
begin
    while exists (select from agent.queue)
          or exists (select from agent.step where status = 1)
    loop
        commit;
        perform pg_sleep(0.02);
    end loop;
end $$;
call drained();
select round(count(*) / extract(epoch from max(ended_at) - min(ended_at)))
  from agent.step where ended_at > (select max(created_at) from agent.step);
END
)
    empty_database
}

queue_theirs() {
    fresh_tasks "$((seconds * 20000))"
    fresh_ids
    b=$(step_ours)
    empty_database
}

# As compare does it, but in this shell: the nginx change.

part_queue() {
    local each i list_a=() list_b=()

    say "Queue: steps of another nginx, against POST step with 64 clients"

    for ((i = 1; i <= rounds; i++)); do
        queue_ours
        queue_theirs
        list_a+=("$a")
        list_b+=("$b")
        say "  round $i: ours $a, theirs $b per second"
    done

    a=$(printf '%s\n' "${list_a[@]}" | median)
    b=$(printf '%s\n' "${list_b[@]}" | median)
    row "queued steps (POST step, 64 connections)" "$a/s" "$b/s" \
        "$(ratio "$a" "$b")" at-least 0.8

    say "From POST, by the queue and another nginx, to the LLM, idle"
    restart_agent
    part_enqueue
}

part_enqueue() {
    local accept_port llm=$llm_port first=$port

    # the one that runs steps is up; the one that accepts gets its own port
    accept_port=$(free_port)
    stop_last
    llm_port=$(free_port)
    start_agent running 1 "$llm_port"
    port=$accept_port
    url="http://127.0.0.1:$port/ap/v1/agent"
    start_agent accepting 1 "$llm_port" 'agent_run off;'

    "${owner[@]}" perl - "$port" "$llm_port" 200 < "$here/enqueue.pl" \
        > "$work/enqueue.out" || fail "$(cat "$work/enqueue.out")"
    each=$(cat "$work/enqueue.out")

    stop_last
    port=$first
    url="http://127.0.0.1:$port/ap/v1/agent"
    llm_port=$llm
    row "ms from POST to the LLM's first byte, idle" "$each" "-" "$each" \
        at-most 5
}

# Keys ----------------------------------------------------------------------

# The same requests of the same tenant with a key, by auth_request, and
# without; then with many more keys in the table.

start_with_keys() {
    stop_last
    start_agent keys 2 "$llm_port" 'agent_auth_zone keys:32m;' '
        location = /_auth { internal; agent_auth; }
        location /with/ { agent_pass bench; auth_request /_auth; }'
    plain_url=$url
    key=$(sql -c "select agent.create_key('')")
}

with_key() {
    url="http://127.0.0.1:$port/with"
    "$@"
    url=$plain_url
}

keys_row() {
    local what=$1

    shift
    keys_ours=("$@")
    compare keys_with keys_without
    row "$what with a key (without)" "$a/s" "$b/s" "$(ratio "$a" "$b")" \
        at-least 0.9
}

keys_with() {
    with_key "${keys_ours[@]}"
}

keys_without() {
    "${keys_ours[@]}"
}

part_keys() {
    say "Keys: the same requests through auth_request and agent_auth"
    start_with_keys
    sql -v tasks="$readable" -f - < "$here/fill.sql"
    fresh_tasks "$((seconds * rounds * 4 * 15000 + 20000))"
    fresh_ids

    keys_row "GET task" run_wrk "$seconds" 64 get.lua "$readable"
    keys_row "POST task" run_wrk "$seconds" 64 task.lua
    keys_row "POST step" run_wrk "$seconds" 64 step.lua "$work/ids"

    sql -c "insert into agent.api_key (hash, tenant, hint)
            select sha256(convert_to(g::text, 'UTF8')), 't' || g, ''
              from generate_series(1, $keys) g" -c 'analyze agent.api_key'
    keys_row "GET task, $keys keys in the table," \
        run_wrk "$seconds" 64 get.lua "$readable"
    key=
    empty_database
}

# Slumps --------------------------------------------------------------------

counted() {
    curl -q -sf -m 5 "http://127.0.0.1:$port/stub" | awk 'NR == 3 { print $3 }'
}

# Requests in each second while tasks are made and their steps run.

per_second() {
    local i last now wrk_pid

    run_wrk "$(($1 + 1))" 64 mix.lua > /dev/null &
    wrk_pid=$!
    last=$(counted)

    for ((i = 0; i < $1; i++)); do
        sleep 1
        now=$(counted)
        printf '%s\n' "$((now - last))"
        last=$now
    done

    wait "$wrk_pid"
}

# slump WHAT STEADY: the slowest of the next ten seconds.

slump() {
    local worst

    per_second 10 > "$work/seconds"
    say "  $1: $(tr '\n' ' ' < "$work/seconds")"
    worst=$(sort -n "$work/seconds" | head -n 1)
    row "slowest second, $1 (steady)" "$worst/s" "$2/s" \
        "$(ratio "$worst" "$2")" at-least 0.6
}

many_tasks() {
    local now

    while now=$(sql -c 'select count(*) from agent.task') \
          && [ "$now" -lt "$tasks" ]
    do
        run_wrk 5 64 task.lua > /dev/null
        say "  $now tasks"
    done

    sql -c 'analyze'
}

# Marks, which far pages start from, follow new tasks some seconds behind, and
# are made when a list had to count for long.

settle() {
    local i

    for ((i = 0; i < 60; i++)); do
        [ "$(sql -c 'select (select count(*) from agent.task) / 1000
                            > (select count(*) from agent.task_mark)')" = t ] \
            || return 0
        curl -q -sf -o /dev/null -m 10 "$url/tasks?current_page=$i" || true
        sleep 1
    done

    fail "page marks are not made"
}

part_slump() {
    local steady

    say "Slumps: tasks and steps by turns, 64 connections, each second"
    per_second 10 > "$work/first"
    per_second 15 | tail -n +6 > "$work/steady"
    steady=$(median < "$work/steady")

    mv "$work/first" "$work/seconds"
    say "  empty database: $(tr '\n' ' ' < "$work/seconds")"
    row "slowest second, empty database (steady)" \
        "$(sort -n "$work/seconds" | head -n 1)/s" "$steady/s" \
        "$(ratio "$(sort -n "$work/seconds" | head -n 1)" "$steady")" \
        at-least 0.6

    empty_database
    slump "after a TRUNCATE" "$steady"
    many_tasks
    slump "at $tasks tasks" "$steady"
}

# Lists ---------------------------------------------------------------------

page() {
    run_wrk 3 1 page.lua "$1" > /dev/null
    wrk_median
}

list_row() {
    local median

    median=$(page "$2")
    row "GET list, $1 (1,000 tasks, page 1)" "$median us" "$small us" \
        "$(ratio "$median" "$small")" at-most 3
}

part_list() {
    local small pages

    say "GET list of tasks, medians, 1 connection"
    curl -q -sf -o /dev/null -H 'Content-Type: application/json' \
         -d '{"input": "one of a thousand"}' "$url/tasks#[1-1000]"
    sql -c analyze
    page 1 > /dev/null
    small=$(page 1)

    many_tasks
    settle
    pages=$(($(sql -c 'select count(*) from agent.task') / 10))

    list_row "page 1 of $pages" 1
    list_row "page $((pages / 2)) of $pages" "$((pages / 2))"
    list_row "page $pages of $pages" "$pages"
}

# Memory --------------------------------------------------------------------

# One worker, with the settings that README.md gives for many held steps.

start_small() {
    stop_last
    empty_database

    # a held step has a client, a request of its own and an upstream; the
    # middle one has no file descriptor
    connections=$((steps * 3 + 1000))
    [ "$nofile" -ge "$((steps * 2 + 1000))" ] \
        || fail "$steps held steps need ulimit -n $((steps * 2 + 1000))"

    start_agent "$1" 1 "$2" 'request_pool_size 5k;
    client_header_buffer_size 512; agent_concurrency 10000;'
}

part_memory() {
    local hold_port worker each

    say "Memory of $steps steps held at once by one worker"
    hold_port=$(free_port)
    start_small held "$hold_port"
    worker=$(worker_of "$started")

    "${owner[@]}" perl - "$port" "$hold_port" "$worker" "$steps" \
        < "$here/hold.pl" > "$work/hold.out" \
        || fail "not every held step ended well"

    say "  $(cat "$work/hold.out")"
    each=$(awk '{ printf "%.1f\n", $1 }' "$work/hold.out")
    row "KB a held step, $steps at once" "$each" "-" "$each" at-most 18

    [ "$(sql -c 'select count(*) from agent.step where is_last')" -ge \
      "$steps" ] || fail "not every held step is stored as ended"
}

part_flat() {
    local worker start first last

    say "Memory of one worker over $requests requests of every kind"
    start_small flat "$llm_port"
    worker=$(worker_of "$started")
    start=$(counted)
    first=

    while [ "$(($(counted) - start))" -lt "$requests" ]; do
        run_wrk 2 32 every.lua any > /dev/null
        [ -n "$first" ] || first=$(rss "$worker")
    done

    last=$(rss "$worker")
    row "worker's RSS in KB, end (after 2 s)" "$last" "$first" \
        "$(ratio "$last" "$first")" at-most 1.1
}

# Run -----------------------------------------------------------------------

set_up() {
    trap clean_up EXIT
    trap 'exit 1' INT TERM

    need
    work=$(mktemp -d /tmp/agent-bench.XXXXXX)
    [ "$(id -u)" -ne 0 ] || chown postgres "$work"
    ulimit -n "$nofile"

    port=$(free_port)
    llm_port=$(free_port)
    url="http://127.0.0.1:$port/ap/v1/agent"

    start_postgres
    start_upstream
    start_agent agent 2 "$llm_port"
}

parts=("$@")
[ "$#" -gt 0 ] || parts=(post get step keys queue slump list memory flat)

for part in "${parts[@]}"; do
    declare -F "part_$part" > /dev/null \
        || fail "there is no part \"$part\"; see the head of $0"
done

set_up

for part in "${parts[@]}"; do
    restart_agent
    "part_$part"
done

say ""
print_table
