#!/bin/sh
# Runs the proxy at a Unix socket in /run/docker-proxy, for agents on the same machine that are given that folder.
#
# nginx takes the name of its socket away when it ends, and in a Swarm the next proxy may have started by then.
# So each has a socket of a name of its own, and docker.sock leads to the newest. What earlier ones left goes.
set -eu
cd /run/docker-proxy
rm -f -- *.sock
name=$(mktemp -u XXXXXXXX.sock)
ln -s "$name" docker.sock
sed "s/NAME.sock/$name/" /etc/docker-proxy/socket.conf >/tmp/socket.conf
exec /usr/sbin/nginx -c /tmp/socket.conf
