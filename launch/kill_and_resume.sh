#!/usr/bin/env bash
# A run killed with SIGKILL at 35, 60 and 85 % of its time and started again must end with the digests of an unbroken one.
# Usage: launch/kill_and_resume.sh [CONFIG] [jkd flags]; default: the digits smoke run, longer, with many checkpoints.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
config="${1:-configs/digits.py:smoke}"
flags=("${@:2}")
[ $# -gt 0 ] || flags=(--config.student.train.steps=3000 --config.student.train.checkpoint_every=500
  --config.teacher.train.steps=3000 --config.teacher.train.checkpoint_every=500)
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
digests() {
  python - "$1" <<'PY'
import json, pathlib, sys
root = pathlib.Path(sys.argv[1]) / "replicates"
for path in sorted(root.rglob("result.json")):
    result = json.loads(path.read_text())
    print(path.relative_to(root), result.get("params"), result.get("chain"), json.dumps(result.get("metrics"), sort_keys=True))
for path in sorted(root.rglob("graph.json")):
    print(path.relative_to(root), json.loads(path.read_text())["sha256"])
PY
}
start=$(date +%s%N)
jkd distill --config="$config" --workdir="$work/whole" --quiet "${flags[@]}" > "$work/whole.txt"
took=$(( ($(date +%s%N) - start) / 1000000 ))
digests "$work/whole" > "$work/whole.digests"
for share in 35 60 85; do
  jkd distill --config="$config" --workdir="$work/cut$share" --quiet "${flags[@]}" > /dev/null 2>&1 &
  pid=$!
  sleep "$(awk "BEGIN { print $took * $share / 100000 }")"
  kill -KILL "$pid" 2> /dev/null || true
  wait "$pid" 2> /dev/null || true
  made=$(find "$work/cut$share" -name result.json | wc -l)
  jkd distill --config="$config" --workdir="$work/cut$share" --quiet "${flags[@]}" > /dev/null
  digests "$work/cut$share" > "$work/cut$share.digests"
  cmp "$work/whole.digests" "$work/cut$share.digests"
  echo "killed at $share % of $took ms with $made parts finished, run again: same digests"
done
