#!/usr/bin/env bash
# Runs on all hosts of a TPU VM or of a slice:
#
#     launch/tpu_vm.sh NAME ZONE --config=configs/paper.py --workdir=/mnt/bucket/runs/paper
#
# Copies the repository to every host, installs it with the `tpu` extra, and starts the same command
# on each; JAX finds the other hosts by itself. Workdir and data are folders that all hosts see, as a
# bucket mounted with gcsfuse. When a host is preempted or lost, all end with exit code 75 or 76: run
# the same command again.
set -eu
if [ $# -lt 3 ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
name=$1 zone=$2
shift 2
here=$(cd "$(dirname "$0")/.." && pwd)
everywhere=(gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" --worker=all --command)

archive=$(mktemp "${TMPDIR:-/tmp}/alexnet_jax.XXXXXX.tar.gz")
trap 'rm -f "$archive"' EXIT
git -C "$here" archive --format=tar.gz --output="$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$name:alexnet_jax.tar.gz" "--zone=$zone" --worker=all
"${everywhere[@]}" 'mkdir -p alexnet_jax && tar xzf alexnet_jax.tar.gz -C alexnet_jax &&
    cd alexnet_jax && pip install --quiet --constraint constraints.txt --editable ".[tpu]"'
"${everywhere[@]}" "cd alexnet_jax && python -m alexnet_jax.main$(printf ' %q' "$@")"
