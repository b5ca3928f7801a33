#!/usr/bin/env bash
# One run of attr-jax on a Cloud TPU slice without Kubernetes. From the repository's root, with the settings below exported:
#
#   launch/tpu_vm/tpu.sh create                 ask for the slice and wait until it is there
#   launch/tpu_vm/tpu.sh install                mount the share and install the committed state of this repository on all workers
#   launch/tpu_vm/tpu.sh run train --config=configs/dahar.py --workdir=/mnt/share/runs/dahar
#   launch/tpu_vm/tpu.sh status                 the last lines of worker 0, and how each worker ended
#   launch/tpu_vm/tpu.sh resume train ...       as run, on a new slice where the old one was taken away; nothing where it still trains
#   launch/tpu_vm/tpu.sh fetch /mnt/share/runs/dahar .
#   launch/tpu_vm/tpu.sh delete
set -euo pipefail

fail() {
  echo "tpu.sh: $1" >&2
  exit 2
}

setting() {
  [[ -n ${!1:-} ]] || fail "$1 is not set; $2"
}

setting TPU_NAME "a name for the slice, such as attr-jax"
setting TPU_ZONE "such as us-west4-a"
slice() { gcloud compute tpus tpu-vm "$1" "${@:2}" --zone="$TPU_ZONE"; }
queue() { gcloud compute tpus queued-resources "$1" "$TPU_NAME" "${@:2}" --zone="$TPU_ZONE"; }
on() { slice ssh "$TPU_NAME" --worker="$1" --command="$2"; }

state() {
  # A request that does not exist is an error of gcloud's; NONE is our word for it.
  queue describe --format='value(state.state)' 2>/dev/null || echo NONE
}

create() {
  setting TPU_TYPE "the accelerator type, such as v5litepod-16"
  setting TPU_VERSION "the runtime version that goes with the type, such as v2-alpha-tpuv5-lite"
  local spot=()
  [[ ${TPU_SPOT:-} != 1 ]] || spot=(--spot)
  queue create --node-id="$TPU_NAME" --accelerator-type="$TPU_TYPE" --runtime-version="$TPU_VERSION" "${spot[@]}"
  local now
  while now=$(state); [[ $now != ACTIVE ]]; do
    case $now in
      FAILED | SUSPENDING | SUSPENDED | DELETING | NONE) fail "the request for $TPU_NAME ended as $now; delete it and create it again" ;;
    esac
    echo "waiting for $TPU_NAME: $now"
    sleep "${TPU_POLL_SECONDS:-60}"
  done
}

install() {
  setting TPU_SHARE "the NFS share that all workers mount, such as 10.0.0.2:/share"
  local archive
  archive=$(mktemp -d)/attr_jax.tar.gz
  git archive --output="$archive" HEAD
  slice scp "$archive" "$TPU_NAME:attr_jax.tar.gz" --worker=all
  rm -r "$(dirname "$archive")"
  # The images have Python 3.10; uv brings its own 3.12.
  on all "set -e
    sudo apt-get update -q && sudo apt-get install -qy nfs-common
    sudo mkdir -p /mnt/share && (mountpoint -q /mnt/share || sudo mount -t nfs $TPU_SHARE /mnt/share)
    rm -rf attr_jax && mkdir attr_jax && tar -xzf attr_jax.tar.gz -C attr_jax && cd attr_jax
    python3 -m pip install -q --user uv
    python3 -m uv venv -q --python=3.12 .venv
    python3 -m uv pip install -q --python=.venv -e '.[tpu]'"
}

progress() {  # of worker 0, in a word or two
  on 0 'if [ ! -e pid ]; then echo none; elif [ -e status ]; then echo "ended with status $(cat status)"
    elif kill -0 "$(cat pid)" 2>/dev/null; then echo running; else echo lost; fi'
}

start() {
  (($#)) || fail "run and resume take an attr-jax command, such as: run train --config=... --workdir=/mnt/share/runs/x"
  local command
  printf -v command ' %q' "$@"
  # The processes outlive the connection; the exit status of each is in the file `status` then. One of an earlier run that
  # hangs on its worker would hold the chips.
  on all "[ ! -e pid ] || kill -KILL -- -\"\$(cat pid)\" 2>/dev/null
    rm -f status && cd attr_jax
    nohup setsid bash -c '.venv/bin/attr-jax \"\$@\"; echo \$? > ../status' attr-jax$command > ../attr-jax.log 2>&1 < /dev/null &
    echo \$! > ../pid"
}

run() {
  [[ $(progress) != running ]] || fail "a run is under way on $TPU_NAME; see status"
  start "$@"
}

status() {
  on 0 "tail -n 20 attr-jax.log"
  on all 'echo "$(hostname): $(if [ -e status ]; then echo "ended with status $(cat status)"; else echo running; fi)"'
}

resume() {
  if [[ $(state) != ACTIVE ]]; then
    delete
    create
    install
    start "$@"
    return
  fi
  local now
  now=$(progress)
  case $now in
    running | "ended with status 0") echo "$TPU_NAME: $now, nothing to do" ;;
    "ended with status 2") fail "the run on $TPU_NAME $now: a wrong call or wrong data, see status" ;;
    *) start "$@" ;;
  esac
}

fetch() {
  [[ $# == 2 ]] || fail "fetch takes two folders: that on the slice and that here"
  slice scp "$TPU_NAME:$1" "$2" --recurse --worker=0
}

delete() {
  [[ $(state) == NONE ]] || queue delete --force --quiet
}

case ${1:-} in
  create | install | run | status | resume | fetch | delete) "$@" ;;
  *) fail "takes one of create, install, run, status, resume, fetch, delete" ;;
esac
