# The session of a sandbox: `bash -c <this> session LEASE_S`, run by Docker Exec and kept open for one task.
#
# Two shells: this one reads request lines and must never wait for a command; `worker` runs the commands, so that a
# command costs one fork. Without a line for a lease this shell kills everything and ends, and process 1 ends with it.
# Replies are marks on descriptors 7 and 8 (the streams of the session): NUL, nonce, token, words, newline.
#
# The task has the session's user and its output streams, so it may read a mark from them before the agent does, change
# it, and write it again. What it must not learn is a token that has not been used: every request names the token of its
# own reply, and `run` names two, of which only the one that is true is ever written. Both shells are a bash whose file
# its user may not read: the kernel then gives their memory, environment and descriptors to nobody (proc(5), PR_SET_DUMPABLE).
# Programs that these shells start are not so protected: none of them is given a descriptor of the session beside its output.
lease=$1 nonce='' current=0 failure='' worker_id='' follower='' short_bytes=2048
bash=/usr/lib/chorus/session-bash
# Once only: a file that may be read after all would lead here again.
if [ "$2" != again ] && [ -x $bash ]; then
    exec $bash --norc --noprofile -c "$BASH_EXECUTION_STRING" session "$lease" again
fi
# The files of a process that keeps its memory to itself belong to root.
protection=protected
[ -O /proc/self/environ ] && protection=unprotected
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

# mark TOKEN WORDS
mark() {
    printf '\0%s %s\n' "$nonce" "$*" >&7
}

# ended SUCCESS FAILURE NUMBER CODE
ended() {
    local token=$2
    [ "$4" = 0 ] && token=$1
    limits_hit
    mark "$token" end "$3" "$4" "$oom" "$full"
    printf '\0%s %s end %s\n' "$nonce" "$token" "$3" >&8
}

# run NUMBER SUCCESS FAILURE WORKDIR STDIN COMMAND. The streams are opened anew for each command, so that one which
# makes them non-blocking does not break the next; in its own process group, so that its `kill 0` reaches itself alone.
# The requests are closed before the input is opened: its path may be a link that the task has made, to /proc/self/fd/5.
# The environment travels under names that no task gives; `first` has the line by which the command's own shell gives its
# variables their real names. This shell could not: UID, RANDOM, SHELLOPTS and others are its own.
run() {
    (
        cd -- "$4" >/dev/null 2>&1 || { printf 'no such directory: %s\n' "$4" >&8; exit 126; }
        exec 5<&-
        # Memory is taken from the task first. Only a program that may be read may say so of itself, so the task's shell
        # does, in the command's first line: another shell around it would cost as much as a small command.
        exec /bin/sh -c "{ echo 1000 >/proc/self/oom_score_adj; } 2>/dev/null; $first$6" \
            <"$5" >/proc/self/fd/7 2>/proc/self/fd/8 7>&- 8>&-
    )
    ended "$2" "$3" "$1" $?
}

# short COUNT: `text` has the first bytes, COUNT at most, of the regular file on descriptor 4, `length` says how many.
# Builtins only: a program costs more than a short output does. A variable holds no NUL; with one among them it fails.
short() {
    local LC_ALL=C
    IFS= read -r -d '' -n "$1" -u 4 text && [ ${#text} -lt "$1" ] && return 1
    length=${#text}
}

# group NUMBER SUCCESS FAILURE BEGUN WORKDIR STDIN FILE COMMAND: a command of a goal. Its process group ends with it; what
# it left in other groups lives on. Its output goes into a file: what is written later reaches nobody, and ends nobody.
# Descriptor 4 is that file whatever the task puts in the place of its name.
group() {
    local code=125 size=0 token=$3 text length
    [ -d /tmp/.chorus ] || mkdir -p /tmp/.chorus 5<&- 7>&- 8>&-
    {
        (
            cd -- "$5" >/dev/null 2>&1 || { printf 'no such directory: %s\n' "$5"; exit 126; }
            exec 5<&-
            exec /bin/sh -c "{ echo 1000 >/proc/self/oom_score_adj; } 2>/dev/null; $first$8" <"$6" 3>&- 4<&- 7>&- 8>&-
        ) >&3 2>&3 &
        mark "$4" begun $!
        wait $!
        code=$?
        kill -9 -- -$!
        if short $short_bytes && [ $length -lt $short_bytes ]; then
            size=$length
        else
            size=$(stat -c %s - <&4 4<&- 5<&- 7>&- 8>&-)
        fi
    } 3>>"$7" 4</proc/self/fd/3
    [ $code = 0 ] && token=$2
    limits_hit
    mark "$token" end "$1" $code "$oom" "$full" "${size:-0}"
}

worker() {
    exec 5<&0 0</dev/null 9>&-
    set -m
    first=''
    while IFS= read -r -u 5 line; do eval "$line"; done
}

# alive TOKEN. A worker that the task has killed or stopped would never say how the command ended.
alive() {
    local state=''
    if [ "$worker_id" ]; then
        read -r _ _ state _ <"/proc/$worker_id/stat"
        case $state in R | S | D) ;; *) kill -9 -1; exit 1 ;; esac
    fi
    mark "$1" alive
}

# stop: nothing of the task lives on after it. kill(-1) spares the caller and process 1, and no fork slips through.
stop() {
    worker_id=''
    kill -9 -1
    wait
    [ "$current" = 0 ] || ended '' "$failure" "$current" 137
    current=0
}

# endgroup ID: kills the group of a command of a goal, and its shell, which may have left the group.
endgroup() {
    kill -9 -- "-$1" "$1"
}

# follow FILE: its bytes, as they are written, until `unfollow TOKEN`.
follow() {
    tail -c +1 -f -- "$1" >&7 </dev/null 6>&- 7>&- 8>&- 9>&- &
    follower=$!
}

unfollow() {
    kill -9 $follower
    wait $follower
    mark "$1" unfollowed
}

# rest TOKEN OFFSET BYTES FILE. The task may have put anything in the file's place: a FIFO must not hold this shell up.
rest() {
    local text length
    mark "$1" rest
    if [ "$2" = 0 ] && [ "$3" -le $short_bytes ] && { [ -f /proc/self/fd/4 ] && short "$3"; } 4<>"$4"; then
        printf %s "$text" >&7
        mark "$1" rested 0
        return
    fi
    dd if="$4" iflag=skip_bytes,count_bytes,nonblock skip="$2" count="$3" bs=65536 status=none \
        >&7 </dev/null 6>&- 7>&- 8>&- 9>&-
    mark "$1" rested $?
}

# forget FILE...
forget() {
    rm -rf -- "$@" </dev/null 6>&- 7>&- 8>&- 9>&-
}

# put TOKEN BYTES DIRECTORY: a tar archive of so many bytes follows. It was cleaned: no name in it leads out, also
# not through a link. With -P links are made in their turn; made at the end, as tar does it with absolute ones, they
# would come too late for folders that may not be written to.
put() {
    head -c "$2" 6>&- 7>&- 8>&- 9>&- | {
        TAR_OPTIONS='' tar -x -p -P -f - -C "$3" --no-same-owner >&8 2>&8 6>&- 7>&- 8>&- 9>&-
        code=$?
        cat >/dev/null 6>&- 7>&- 8>&- 9>&-
        exit $code
    }
    mark "$1" put $?
}

# list TOKEN DIRECTORY
list() {
    mark "$1" list
    # `!` before the kind of what cannot be read.
    find "$2" -mindepth 1 \
        \( -type f ! -readable -printf ! -o -type d ! \( -readable -executable \) -printf ! -o -true \) \
        -printf '%y\0%s\0%P\0%l\0' >&7 </dev/null 6>&- 7>&- 8>&- 9>&-
    mark "$1" listed $?
}

# get TOKEN BYTES DIRECTORY: the names, each ended by NUL, follow. What cannot be read is not in the archive, and a
# file with several names is in it several times, so that none needs another.
get() {
    mark "$1" get
    head -c "$2" 6>&- 7>&- 8>&- 9>&- |
        TAR_OPTIONS='' tar -c -f - -C "$3" --hard-dereference --no-recursion --null --verbatim-files-from -T - >&7 6>&- 7>&- 8>&- 9>&-
    mark "$1" got $?
}

# space TOKEN
space() {
    mark "$1" space $(stat -f -c '%a %S %b' /workspace /tmp /dev/shm </dev/null 6>&- 7>&- 8>&- 9>&-)
}

# usage TOKEN
usage() {
    local key value peak=0 cpu=0
    limits_hit
    read -r peak _ <$peak_file
    while read -r key value; do
        case $key in usage_usec) cpu=$((value * 1000)) ;; [0-9]*) cpu=$key ;; esac
    done <$cpu_file
    mark "$1" usage "$oom" "$full" "${peak:-0}" "${cpu:-0}"
}

# hello NONCE TOKEN
hello() {
    nonce=$1
    kill -9 -1 # whoever is here does not belong to a task
    exec 6> >(worker)
    worker_id=$!
    mark "$2" ready "$protection"
}

while IFS= read -r -t "$lease" line; do
    case $line in
    export\ * | first=*) printf '%s\n' "$line" >&6 ;;
    run\ * | group\ *)
        words=${line#* }
        current=${words%% *} words=${words#* * }
        failure=${words%% *}
        printf '%s\n' "$line" >&6
        ;;
    *) eval "$line" ;;
    esac
done
# Nobody is at the other end any more, or nobody said anything for a lease. This code says so: a session that its task
# has killed has another.
kill -9 -1
exit 75
