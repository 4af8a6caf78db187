# The session of a sandbox: `bash -c <this> session LEASE_S`, run by Docker Exec and kept open for one task.
#
# Two shells: this one reads request lines and must never wait for a command; `worker` runs the commands, so that a
# command costs one fork. Without a line for a lease this shell kills everything and ends, and process 1 ends with it.
# Replies are marks on descriptors 7 and 8 (the streams of the session): NUL, nonce, words, newline.
lease=$1 nonce='' current=0
exec 7>&1 8>&2 2>/dev/null
for ((i = 0; i < 500; i++)); do
    [ -p /tmp/.chorus-session ] && break
    sleep 0.01
done
[ -p /tmp/.chorus-session ] || exit 1
exec 9>/tmp/.chorus-session
rm -f /tmp/.chorus-session

cgroup=/sys/fs/cgroup
if [ -e $cgroup/cgroup.controllers ]; then
    # v2: usually the mount is this container's own group; a daemon that shares its namespace shows the whole tree.
    IFS=: read -r _ _ own </proc/self/cgroup
    [ -e "$cgroup$own/memory.events" ] && cgroup=$cgroup$own
    oom_file=$cgroup/memory.events pids_file=$cgroup/pids.events
    peak_file=$cgroup/memory.peak cpu_file=$cgroup/cpu.stat
else
    oom_file=$cgroup/memory/memory.oom_control pids_file=$cgroup/pids/pids.events
    peak_file=$cgroup/memory/memory.max_usage_in_bytes cpu_file=$cgroup/cpuacct/cpuacct.usage
fi

# Builtins only: this must work when not one more process may be started.
limits_hit() {
    local key value
    oom=0 full=0
    while read -r key value; do [ "$key" = oom_kill ] && oom=$value; done <$oom_file
    while read -r key value; do [ "$key" = max ] && full=$value; done <$pids_file
}

mark() {
    printf '\0%s %s\n' "$nonce" "$*" >&7
}

ended() {
    limits_hit
    printf '\0%s end %s %s %s %s\n' "$nonce" "$1" "$2" "$oom" "$full" >&7
    printf '\0%s end %s\n' "$nonce" "$1" >&8
}

# run NUMBER WORKDIR STDIN COMMAND. The streams are opened anew for each command, so that one which makes them
# non-blocking does not break the next; in its own process group, so that its `kill 0` reaches itself alone.
run() {
    (
        eval "$environment"
        printf 1000 >/proc/self/oom_score_adj
        cd -- "$2" >/dev/null 2>&1 || { printf 'no such directory: %s\n' "$2" >&8; exit 126; }
        exec /bin/sh -c "$4" <"$3" >/proc/self/fd/7 2>/proc/self/fd/8 5<&- 7>&- 8>&-
    )
    ended "$1" $?
}

worker() {
    exec 5<&0 0</dev/null 9>&-
    set -m
    environment=''
    while IFS= read -r -u 5 line; do
        case $line in
        export\ *) environment+="$line;" ;; # kept apart: a task's variable may have the name of one used here
        *) eval "$line" ;;
        esac
    done
}

# stop: nothing of the task lives on after it. kill(-1) spares the caller and process 1, and no fork slips through.
stop() {
    kill -9 -1
    wait
    [ "$current" = 0 ] || ended "$current" 137
    current=0
}

# put BYTES DIRECTORY: a tar archive of so many bytes follows.
put() {
    head -c "$1" | { tar -x -f - -C "$2" --no-same-owner >&8 2>&8; code=$?; cat >/dev/null; exit $code; }
    mark put $?
}

list() {
    mark list
    find "$1" -mindepth 1 -printf '%y\0%s\0%P\0%l\0' >&7
    mark listed $?
}

# get BYTES DIRECTORY: the names, each ended by NUL, follow.
get() {
    mark get
    head -c "$1" | tar -c -f - -C "$2" --no-recursion --null --verbatim-files-from -T - >&7
    mark got $?
}

space() {
    mark space $(stat -f -c '%a %S %b' /workspace /tmp)
}

usage() {
    local key value peak=0 cpu=0
    limits_hit
    read -r peak _ <$peak_file
    while read -r key value; do
        case $key in usage_usec) cpu=$((value * 1000)) ;; [0-9]*) cpu=$key ;; esac
    done <$cpu_file
    mark usage "$oom" "$full" "${peak:-0}" "${cpu:-0}"
}

hello() {
    nonce=$1
    kill -9 -1 # whoever is here does not belong to a task
    exec 6> >(worker)
    mark ready
}

while IFS= read -r -t "$lease" line; do
    case $line in
    k) ;;
    export\ *) printf '%s\n' "$line" >&6 ;;
    run\ *)
        current=${line#run }
        current=${current%% *}
        printf '%s\n' "$line" >&6
        ;;
    *) eval "$line" ;;
    esac
done
kill -9 -1
