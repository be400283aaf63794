#!/usr/bin/env bash
# Run a command; if the machine is about to be taken away, let it save, and end as a failure, so that whoever started it starts it again.
#
#   unfinished.sh python -m experiments.pretrain --config=configs/simclr.py --workdir=/runs/first
#
# A run that was told to stop saves and ends with exit code 0, which Kubernetes would take for done. SIGTERM is handed on to the
# command; when that has ended, the exit code is 143 instead of 0. Else it is the command's.
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: unfinished.sh COMMAND ..." >&2; exit 2; }

told=
trap 'told=yes; [ -z "${!:-}" ] || kill -TERM "$!" 2>/dev/null || true' TERM INT
"$@" &
child=$!
# A signal that came before there was a command to hand it on to.
[ -z "$told" ] || kill -TERM "$child" 2>/dev/null || true
code=0
wait "$child" || code=$?
# A signal interrupts the waiting, not the command.
while kill -0 "$child" 2>/dev/null; do
  code=0
  wait "$child" || code=$?
done
if [ -n "$told" ]; then
  code=0
  wait "$child" || code=$?
  [ "$code" -ne 0 ] || code=143
fi
exit "$code"
