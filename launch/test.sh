#!/usr/bin/env bash
# The test suite, in the same environment as quickstart.sh. Arguments go to pytest: launch/test.sh -m slow
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec python -m pytest -q --durations=10 "$@"
