#!/usr/bin/env bash
# Injects every fault of the README's table, in full counts, and prints the table: row, fault, passed, tried.
# Twenty minutes on 2 shared cores. Root, mount and a C compiler are needed for full disks and failing writes; without
# them those tests are skipped, and the table says so. Arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
record="$(mktemp)"
trap 'rm -f "$record"' EXIT
status=0
JKD_FAULTS=full JKD_FAULTS_RECORD="$record" python -m pytest -q -m fault -p no:cacheprovider "$@" || status=$?
python tests/faults/table.py "$record" || status=1
exit "$status"
