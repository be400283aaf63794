#!/usr/bin/env bash
# A run on a TPU slice that was rented with gcloud.
#
#   export TPU_NAME=ssl ZONE=us-west4-a ACCELERATOR_TYPE=v5litepod-64 RUNTIME_VERSION=v2-alpha-tpuv5-lite
#   export REPOSITORY=https://github.com/me/ssl_jax
#   launch/tpu_pod.sh create      # ask for the slice (SPOT=1: cheaper, may be taken away)
#   launch/tpu_pod.sh setup       # install on every host
#   launch/tpu_pod.sh start --config=configs/mae.py:imagenet,vit_large \
#     --config.data.source=tar:gs://my-images/imagenet --workdir=gs://my-runs/mae
#   launch/tpu_pod.sh log         # what host 0 says
#   launch/tpu_pod.sh stop        # save and stop; start with the same options goes on
#   launch/tpu_pod.sh delete
#   launch/tpu_pod.sh keep --config=... --workdir=...   # create, setup, start, and all of it again whenever the slice is taken away
set -euo pipefail

GCLOUD=${GCLOUD:-gcloud}
POLL=${POLL:-60}

needed() {
  for name in "$@"; do
    [ -n "${!name:-}" ] || { echo "tpu_pod.sh: set $name" >&2; exit 2; }
  done
}

on_hosts() { # workers, command
  "$GCLOUD" compute tpus tpu-vm ssh "$TPU_NAME" --zone="$ZONE" --worker="$1" --command="$2"
}

state() {
  "$GCLOUD" compute tpus queued-resources describe "$TPU_NAME" --zone="$ZONE" --format="value(state.state)" 2>/dev/null || true
}

create() {
  needed ACCELERATOR_TYPE RUNTIME_VERSION
  local spot=()
  [ -z "${SPOT:-}" ] || spot=(--spot)
  "$GCLOUD" compute tpus queued-resources create "$TPU_NAME" --node-id="$TPU_NAME" --zone="$ZONE" \
    --accelerator-type="$ACCELERATOR_TYPE" --runtime-version="$RUNTIME_VERSION" ${spot[@]+"${spot[@]}"}
}

setup() {
  needed REPOSITORY
  on_hosts all "set -e
    [ -d ssl_jax ] || git clone --depth 1 '$REPOSITORY' ssl_jax
    cd ssl_jax
    [ -d .venv ] || python3 -m venv .venv
    .venv/bin/pip install -q -e '.[tpu,gs]'"
}

start() {
  local options
  options=$(printf ' %q' "$@")
  on_hosts all "cd ssl_jax
    nohup .venv/bin/python -m experiments.pretrain --distributed$options >> run.log 2>&1 < /dev/null &
    echo \$! > run.pid"
}

running() {
  [ "$(on_hosts 0 'kill -0 $(cat ssl_jax/run.pid) 2>/dev/null && echo yes || echo no')" = yes ]
}

finished() {
  on_hosts 0 'tail -n 3 ssl_jax/run.log' | grep -q '^done:'
}

stop() {
  on_hosts all 'kill -TERM $(cat ssl_jax/run.pid) 2>/dev/null || true'
}

delete() {
  "$GCLOUD" compute tpus queued-resources delete "$TPU_NAME" --zone="$ZONE" --quiet --force
}

keep() {
  while true; do
    case "$(state)" in
      "") create ;;
      ACTIVE)
        if running; then
          true
        elif finished; then
          return
        else
          setup && start "$@" || true
        fi
        ;;
      SUSPENDING | SUSPENDED | FAILED) delete || true ;;
    esac
    sleep "$POLL"
  done
}

usage() {
  sed -n '2,13p' "$0" >&2
  exit 2
}

[ $# -gt 0 ] || usage
verb=$1
shift
needed TPU_NAME ZONE
case "$verb" in
  create | setup | stop | delete) "$verb" ;;
  start | keep) "$verb" "$@" ;;
  log) on_hosts 0 'tail -n 50 -F ssl_jax/run.log' ;;
  *) usage ;;
esac
