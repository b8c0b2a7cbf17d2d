#!/usr/bin/env bash
# The test suite, in the same environment as quickstart.sh, by two processes (JKD_TEST_JOBS=0: by one, which shows more
# of a failure). Arguments go to pytest, such as -m "not slow" for what CI runs, or -m slow for the rest.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec python -m pytest -q --durations=10 --numprocesses="${JKD_TEST_JOBS:-2}" --dist=loadfile "$@"
