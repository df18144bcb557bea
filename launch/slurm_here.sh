#!/usr/bin/env bash
# A Slurm cluster of one node on this machine, and slurm.sbatch on it (`make slurm`):
#
#     apt-get install slurm-wlm && launch/slurm_here.sh [FOLDER]
#
# It trains the quickstart with two tasks, once undisturbed and once preempted by a job of a higher
# partition: saved, requeued, resumed. Both must end with the same parameters. Needs no root; all its
# files are in FOLDER (default: a temporary one): logs, workdirs, Slurm's state.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$(mktemp -d "${TMPDIR:-/tmp}/alexnet_jax_slurm.XXXXXX")}
for program in slurmctld slurmd; do
    if ! PATH=$PATH:/usr/sbin command -v $program >/dev/null; then
        echo "$program is not installed: apt-get install slurm-wlm" >&2
        exit 2
    fi
done
export PATH=$PATH:/usr/sbin SLURM_CONF=$folder/slurm.conf
mkdir -p "$folder/state" "$folder/spool"

# No encryption and no accounting: everything stays on this machine. Cores are not bound: a machine
# of one core takes two tasks too.
cat >"$SLURM_CONF" <<CONF
ClusterName=here
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/none
CredType=cred/none
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/linear
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=60
# a requeued job may start again at once
JobRequeue=1
SchedulerParameters=requeue_delay=1,sched_interval=5,bf_interval=5
NodeName=$(hostname) NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=work Nodes=ALL Default=YES PriorityTier=1 GraceTime=120 MaxTime=INFINITE
PartitionName=urgent Nodes=ALL PriorityTier=9 PreemptMode=OFF MaxTime=INFINITE
CONF

stop() {
    scancel --quiet --user="$(id -un)" 2>/dev/null || true
    sleep 2
    for daemon in slurmd slurmctld; do
        [ -f "$folder/$daemon.pid" ] && kill "$(cat "$folder/$daemon.pid")" 2>/dev/null || true
    done
}
trap stop EXIT
slurmctld
slurmd
for _ in $(seq 60); do
    sinfo --noheader --format=%T 2>/dev/null | grep -q idle && break
    sleep 1
done
sinfo

submit() { # WORKDIR
    sbatch --parsable --chdir="$here" --output="$folder/%x-%j.log" --job-name="$(basename "$1")" \
        "$here/launch/slurm.sbatch" --config="$here/configs/quickstart.py" --workdir="$1" \
        --config.train.duration="400 steps" --config.checkpoint.every="50 steps" \
        --config.parallel.cpu_devices=1
}

state() { scontrol --oneliner show job "$1" | sed 's/.*JobState=\([A-Z_]*\).*/\1/'; }

wait_for() { # JOB STATE SECONDS
    for _ in $(seq "$3"); do
        [ "$(state "$1")" = "$2" ] && return
        sleep 1
    done
    echo "job $1 is $(state "$1"), not $2; logs are in $folder" >&2
    exit 1
}

step() { python -c 'import json, sys; print(json.load(open(sys.argv[1]))["step"])' "$1/status.json"; }

alone=$(submit "$folder/alone")
echo "job $alone trains undisturbed"
wait_for "$alone" COMPLETED 900

preempted=$(submit "$folder/preempted")
echo "job $preempted trains, to be preempted"
wait_for "$preempted" RUNNING 60
until [ -d "$folder/preempted/checkpoints/100" ]; do sleep 0.2; done
urgent=$(sbatch --parsable --partition=urgent --output=/dev/null --wrap="sleep 5")
wait_for "$urgent" RUNNING 180
cat "$folder/preempted/status.json"
echo "job $urgent took its place"
wait_for "$preempted" COMPLETED 900
restarts=$(scontrol --oneliner show job "$preempted" | sed 's/.*Restarts=\([0-9]*\).*/\1/')
echo "job $preempted was requeued $restarts times and ended at step $(step "$folder/preempted")"

cd "$here" && python - "$folder/alone" "$folder/preempted" <<'PY'
import sys

import jax
import numpy as np

import alexnet_jax

ours, theirs = (jax.tree.leaves(alexnet_jax.load(path).variables) for path in sys.argv[1:])
different = sum(not np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
print(f"{len(ours) - different} of {len(ours)} arrays of parameters have the same bits")
sys.exit(1 if different else 0)
PY
[ "$restarts" -ge 1 ]
