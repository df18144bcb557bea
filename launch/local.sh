#!/usr/bin/env bash
# Starts several processes on this machine, as on so many hosts:
#
#     launch/local.sh 2 --config=configs/quickstart.py --workdir=runs/two
#
# The first argument is the number of processes; the others go to `python -m alexnet_jax.main`. Each
# process has its own share of the devices: on a CPU one each (--config.parallel.cpu_devices=N for
# more). Process 0 prints on the terminal; the output of the others is kept if the run fails, and the
# script prints where. Ctrl-C, or SIGTERM to this script, reaches all: they save at one step and exit
# with 75; the same command resumes. The exit code is the first that is not 0; if a process was killed
# and the others noticed, it is theirs, 76.
set -u
if [ $# -lt 2 ] || ! [ "$1" -gt 0 ] 2>/dev/null; then
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
count=$1
shift
logs=$(mktemp -d "${TMPDIR:-/tmp}/alexnet_jax.XXXXXX")
port=$(python - <<'PY'
import socket

with socket.socket() as free:
    free.bind(("localhost", 0))
    print(free.getsockname()[1])
PY
)
export JAX_COORDINATOR_ADDRESS=localhost:$port JAX_NUM_PROCESSES=$count JAX_NUM_CPU_DEVICES=1

pids=()
for ((index = 0; index < count; index++)); do
    if [ "$index" -eq 0 ]; then
        JAX_PROCESS_ID=$index python -m alexnet_jax.main "$@" &
    else
        JAX_PROCESS_ID=$index python -m alexnet_jax.main "$@" >"$logs/process-$index.log" 2>&1 &
    fi
    pids+=($!)
done
trap 'kill -TERM "${pids[@]}" 2>/dev/null' TERM INT

code=0
for pid in "${pids[@]}"; do
    while kill -0 "$pid" 2>/dev/null; do wait "$pid"; done
    wait "$pid"
    ended=$?
    # 128 and above: killed by a signal, of which 76 of another process says what it means
    if [ "$code" -eq 0 ] || { [ "$code" -ge 128 ] && [ "$ended" -eq 76 ]; }; then
        code=$ended
    fi
done
if [ "$code" -eq 0 ] || [ "$code" -eq 75 ]; then
    rm -r "$logs"
else
    echo "exit code $code; the output of the other processes is in $logs" >&2
fi
exit "$code"
