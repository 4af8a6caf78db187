# Process 1 of a sandbox: lives exactly as long as the session that holds the other end of the FIFO.
mkfifo -m 600 /tmp/.chorus-session
# For a session that never comes: the guard opens and closes that end. (`hello` kills the guard.)
(sleep 60; : >/tmp/.chorus-session) &
# Ignored, the kernel reaps the orphans that a task leaves behind; unreaped they would use up the process limit.
# A shell that waits reaps late or not at all, and its `read` is interrupted by every orphan; `cat` has neither fault.
trap '' CHLD
# A program that its user may not read keeps its descriptors to itself, so no task holds the FIFO open in its place.
cat=/usr/lib/chorus/session-cat
[ -x $cat ] || cat=cat
exec $cat /tmp/.chorus-session >/dev/null
