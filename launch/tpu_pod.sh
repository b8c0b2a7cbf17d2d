#!/usr/bin/env bash
# jkd on all hosts of a Cloud TPU slice: copies this checkout there and starts one process a host. Checked for syntax only.
#
#   launch/tpu_pod.sh TPU ZONE CONFIG WORKDIR [jkd flags]
#   launch/tpu_pod.sh my-v4-32 us-central2-b configs/cifar10.py gs://bucket/runs/cifar10 --config.data.path=gs://bucket/cifar10
#
# Hosts whose python3 is older than 3.11: set JKD_PYTHON to one there that is not, as in JKD_PYTHON=python3.11.
# WORKDIR is a folder that all hosts see, as in a bucket. The hosts find each other through the TPU's metadata. When a
# slice was taken away, make it anew and run the same command: it goes on from the newest sound checkpoint.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
usage="usage: launch/tpu_pod.sh TPU ZONE CONFIG WORKDIR [jkd flags]"
tpu="${1:?$usage}"
zone="${2:?$usage}"
config="${3:?$usage}"
workdir="${4:?$usage}"
case "$workdir" in
  gs://* | /*) ;;
  *)
    echo "WORKDIR: expected gs://BUCKET/FOLDER or an absolute path that all hosts share, got $workdir" >&2
    exit 2
    ;;
esac

on_all_hosts() {
  gcloud compute tpus tpu-vm ssh "$tpu" --zone="$zone" --worker=all --command="$1"
}

setup="export JKD_JAX=tpu JKD_PYTHON=$(printf %q "${JKD_PYTHON:-python3}") && source launch/setup.sh"
on_all_hosts "mkdir -p jkd-checkout"
gcloud compute tpus tpu-vm scp --recurse --zone="$zone" --worker=all \
  jkd configs launch pyproject.toml README.md LICENSE "$tpu:jkd-checkout/"
on_all_hosts "cd jkd-checkout && $setup && python -m pip install --quiet --constraint launch/constraints.txt 'etils[epath-gcs]'"
command="jkd distill --distributed --config=$(printf %q "$config") --workdir=$(printf %q "$workdir") --quiet"
for flag in "${@:5}"; do
  command+=" $(printf %q "$flag")"
done
on_all_hosts "cd jkd-checkout && $setup && $command"
