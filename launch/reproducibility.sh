#!/usr/bin/env bash
# Shows what the README promises of reproducibility, tier by tier: about three hours on two cores. A line a step says
# what came of it, the rest goes to runs/reproducibility; the exit code is 1 where anything differs.
# CIFAR10 names the folder with the batches of CIFAR-10; without it that step is left out.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
mkdir -p runs/reproducibility
status=0
shown() {
  local name="$1" log="runs/reproducibility/$1.log" started="$SECONDS"
  shift
  if "$@" >"$log" 2>&1; then result="passed"; else result="FAILED"; status=1; fi
  echo "$name: $result after $((SECONDS - started)) s: $(tail -n 1 "$log")"
}
cifar10="${CIFAR10:-../shared/data/cifar10}"

shown R2-topology python launch/repeat.py topology
shown R2-digits python launch/repeat.py devices --config=configs/digits.py
shown R1-kill python launch/repeat.py kill
shown R1-kill-text python launch/repeat.py kill --config=configs/repeat.py:text --times=5
shown R0-digits python launch/repeat.py again --config=configs/digits.py --config.replicates=1 \
  --config.teacher.train.steps=50 --config.student.train.steps=50
if [[ -d "$cifar10" ]]; then
  shown R0-cifar10 python launch/repeat.py again --times=5 --config=configs/cifar10.py:smoke \
    --config.data.path="$cifar10"
else
  echo "R0-cifar10: left out: there is no folder $cifar10"
fi
shown replay-of-faults python -m pytest -q -m slow tests/train/test_rerun.py
shown faults bash launch/faults.sh
shown cost-of-elastic python launch/bench_step.py --config=configs/cifar10.py
exit "$status"
