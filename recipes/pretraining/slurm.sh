#!/bin/bash
# A run on SLURM that outlives its jobs, one process per GPU:
#
#   sbatch recipes/pretraining/slurm.sh recipes/pretraining/wav2vec2/train.py \
#       recipes/pretraining/wav2vec2/hparams/base.yaml --data_folder D --output_folder R
#
# Two minutes before the job's time is up, or when SLURM takes the machine back, the run saves a checkpoint
# after its present update and ends with code 75. The job then goes back to the queue and goes on from there.
# An update, or a validation batch, and a save must fit into these 120 seconds.
#SBATCH --job-name=pretraining
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=20:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -u
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT

# srun and not torchrun: it hands signals on to the processes, and their exit code comes back.
# --wait: processes whose neighbour has failed are ended after so many seconds
# shellcheck disable=SC2016  # these variables are those of each process
srun --kill-on-bad-exit=0 --wait=300 bash -c '
    export RANK="$SLURM_PROCID" LOCAL_RANK="$SLURM_LOCALID" WORLD_SIZE="$SLURM_NTASKS"
    exec python "$@"' bash "$@" &
step=$!
trap 'kill -USR1 "$step"' USR1 TERM

wait "$step" # a trapped signal ends this wait, not the step
while kill -0 "$step" 2> /dev/null; do
    wait "$step"
done
wait "$step"
code=$?
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
