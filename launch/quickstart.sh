#!/usr/bin/env bash
# Installs jkd into a virtual environment and runs the main job on the embedded digits: teacher, knowledge graph, five
# students, 16 replicates, report. Ends by saying where the report is. Running it again goes on where it was.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
jkd distill --config=configs/digits.py --workdir="${1:-runs/digits}" "${@:2}"
