#!/usr/bin/env bash
# Makes the peers' virtual environments beside compare.py, from pinned requirements.
set -euo pipefail
cd "$(dirname "$0")/.."
for name in torch jax tfp; do
  "${PYTHON:-python3}" -m venv ".venv-$name"
  # Pinned whole: what the requirements themselves require must not drift either.
  PIP_CONSTRAINT="$PWD/peers/requirements-$name.txt" ".venv-$name/bin/pip" install \
    --quiet --disable-pip-version-check -r "peers/requirements-$name.txt"
  ".venv-$name/bin/pip" check
done
# This library on the engines of its peers.
for name in torch jax; do
  ".venv-$name/bin/pip" install --quiet --disable-pip-version-check --no-deps -e ..
done
