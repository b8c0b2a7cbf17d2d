#!/usr/bin/env bash
# jkd under SLURM: one run over many processes, or the students of a run as an array of jobs. Checked for syntax only.
#
#   sbatch --nodes=4 launch/slurm.sh CONFIG WORKDIR [jkd flags]                       one run, one process a node
#   sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 launch/slurm.sh CONFIG ... one process a GPU
#   sbatch --array=0-9 --nodes=1 launch/slurm.sh CONFIG WORKDIR [jkd flags]           one NAME/SEED a job
#
# The array needs as many jobs as there are students times seeds: `bash launch/slurm.sh --list CONFIG [jkd flags]` prints
# them, numbered. WORKDIR is shared by all nodes. When the array is done, write the report:
#
#   sbatch --dependency=afterok:JOB --wrap="bash launch/slurm.sh --report WORKDIR"
#
# On GPUs, `JKD_JAX=cuda13 sbatch ...` (or cuda12, after the driver) has jax installed for them; sbatch hands it on.
# Install once before the first job starts, with `JKD_JAX=cuda13 bash launch/slurm.sh --list CONFIG`.
# A job that is stopped or requeued saves first and goes on from there. Not `--gpus-per-task`: each process has to see all
# GPUs of its node, of which jax gives it one.
#SBATCH --job-name=jkd
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --output=%x-%A.%a.out
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
source launch/setup.sh

# The students of a config with their seeds, NAME/SEED a line.
students() {
  jkd config --config="$1" "${@:2}" | awk '
    $1 == "*" { sub(/^\* */, "") }
    $1 == "seeds" { sub(/^[^=]*= */, ""); gsub(/[^0-9 ]/, ""); count = split($0, seeds, " ") }
    $1 ~ /^students\./ { split($1, path, "."); if (!(path[2] in seen)) { seen[path[2]] = 1; names[++n] = path[2] } }
    END { for (i = 1; i <= n; i++) for (j = 1; j <= count; j++) print names[i] "/" seeds[j] }'
}

usage="usage: sbatch launch/slurm.sh CONFIG WORKDIR [jkd flags]"
case "${1:?$usage}" in
  --list)
    students "${@:2}" | awk '{ print NR - 1, $0 }'
    exit
    ;;
  --report)
    exec jkd report --workdir="$2"
    ;;
esac
config="$1"
workdir="${2:?$usage}"
flags=("${@:3}")

# The thread pool has a part in the bits on CPU: the same in every job, as jkd sets it for elastic reduction.
export NPROC="${NPROC:-8}"

if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
  mapfile -t every < <(students "$config" "${flags[@]}")
  only="${every[$SLURM_ARRAY_TASK_ID]:-}"
  [ -n "$only" ] || { echo "job $SLURM_ARRAY_TASK_ID: there are only ${#every[@]} students" >&2; exit 2; }
  exec srun --ntasks=1 jkd distill --config="$config" --workdir="$workdir" --only="$only" --quiet "${flags[@]}"
fi

# jax takes a process under SLURM to have one GPU; a lone process on its node is to have all of them.
if [ "${SLURM_NTASKS_PER_NODE:-1}" = 1 ] && [ -n "${SLURM_GPUS_ON_NODE:-}" ]; then
  JAX_LOCAL_DEVICE_IDS="$(seq -s, 0 $((SLURM_GPUS_ON_NODE - 1)))"
  export JAX_LOCAL_DEVICE_IDS
fi
exec srun jkd distill --distributed --config="$config" --workdir="$workdir" --quiet "${flags[@]}"
