#!/bin/sh
# Prints a line for each of 200,000 records, and ends with the number of bad ones.
awk 'BEGIN {
  bad = 0
  for (n = 1; n <= 200000; n++) {
    state = n % 40000 == 0 ? "bad" : "good"
    if (state = "bad") bad++
    printf "record %06d %s\n", n, state
  }
  printf "bad: %d\n", bad
}'
