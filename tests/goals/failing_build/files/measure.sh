#!/bin/sh
printf '%s\n' 9 100 25 7
