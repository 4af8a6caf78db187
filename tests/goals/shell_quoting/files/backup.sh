#!/bin/sh
# backup.sh FROM TO: copies each text file of a folder into another one, as NAME.bak.
for file in $(ls $1/*.txt); do
  cp $file $2/$(basename $file).bak
done
