# Sourced by the other scripts: a virtual environment at .venv with the exact versions of constraints.txt.
# JKD_VENV names another place for it; JKD_PYTHON another interpreter (3.11 to 3.13); JKD_JAX what jax is to run on
# besides the CPU: cuda12, cuda13 or tpu, whose own packages come in the versions that jax asks for.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv="${JKD_VENV:-.venv}"
python="${JKD_PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || {
  echo "jkd needs Python 3.11, 3.12 or 3.13; $("$python" --version) is at $(command -v "$python"). Set JKD_PYTHON." >&2
  exit 2
}
stamp="$venv/.jkd-${JKD_JAX:-cpu}-$(cat pyproject.toml launch/constraints.txt | sha256sum | cut -c1-16)"
if [ ! -f "$stamp" ]; then
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || exit 1
  echo "installing into $venv (about a minute)" >&2
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint launch/constraints.txt --editable '.[dev]' \
    ${JKD_JAX:+"jax[$JKD_JAX]"} || { echo "jkd could not be installed into $venv; see above." >&2; exit 1; }
  touch "$stamp"
fi
export PATH="$PWD/$venv/bin:$PATH"
[ "${venv#/}" = "$venv" ] || export PATH="$venv/bin:$PATH"
