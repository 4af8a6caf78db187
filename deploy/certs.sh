#!/bin/sh
# Makes an authority and certificates for the proxy's TLS: FOLDER/server (for the proxy) and FOLDER/client (for agents).
#
#   deploy/certs.sh FOLDER NAME-OR-ADDRESS…      all names and addresses by which agents reach the proxy
#
# The authority's key is thrown away: for another certificate make all of them anew, or use your own authority.
set -eu
umask 077

DAYS=825 # what strict clients take at most

[ $# -ge 2 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
folder=$1
shift
names=''
for name in "$@"; do
    case $name in
    *:* | [0-9]*.[0-9]*.[0-9]*.[0-9]*) names="$names${names:+,}IP:$name" ;;
    *) names="$names${names:+,}DNS:$name" ;;
    esac
done

mkdir -p "$folder/server" "$folder/client"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days $DAYS -subj "/CN=CHORUS Docker proxy" \
    -addext "keyUsage=critical,keyCertSign,cRLSign" -keyout "$work/ca-key.pem" -out "$work/ca.pem" 2>/dev/null

# sign WHO EXTENSIONS: $work/WHO.pem and $work/WHO-key.pem
sign() {
    printf '%b' "$2" >"$work/$1.ext"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "/CN=$1" \
        -keyout "$work/$1-key.pem" -out "$work/$1.csr" 2>/dev/null
    openssl x509 -req -in "$work/$1.csr" -CA "$work/ca.pem" -CAkey "$work/ca-key.pem" -CAcreateserial -days $DAYS \
        -extfile "$work/$1.ext" -out "$work/$1.pem" 2>/dev/null
}
sign server "extendedKeyUsage=serverAuth\nsubjectAltName=$names\n"
sign client "extendedKeyUsage=clientAuth\n"

cp "$work/ca.pem" "$work/server.pem" "$work/server-key.pem" "$folder/server/"
cp "$work/ca.pem" "$folder/client/"
cp "$work/client.pem" "$folder/client/cert.pem"
cp "$work/client-key.pem" "$folder/client/key.pem"
# Containers read them as other users; the folder around them keeps this machine's users out.
chmod 0755 "$folder/server" "$folder/client"
chmod 0444 "$folder/server"/* "$folder/client"/*
