#!/usr/bin/env bash
# Several processes on this machine, as so many hosts would be:
#
#     launch/local.sh 2 --config=configs/quickstart.py --workdir=runs/two
#
# The first word is the number of processes; the rest goes to `python -m alexnet_jax.main`. Each
# process has its own share of the devices: on a CPU, one each (--config.parallel.cpu_devices=N for
# more). Process 0 talks on the terminal; what the others say is kept if the run fails, and the script
# tells where. Ctrl-C, or SIGTERM to this script, reaches all: they save at one step and exit 75; the
# same command goes on. The exit code is the first that is not 0.
set -u
if [ $# -lt 2 ] || ! [ "$1" -gt 0 ] 2>/dev/null; then
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
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
    [ "$code" -eq 0 ] && code=$ended
done
if [ "$code" -eq 0 ] || [ "$code" -eq 75 ]; then
    rm -r "$logs"
else
    echo "exit code $code; what the other processes said is in $logs" >&2
fi
exit "$code"
