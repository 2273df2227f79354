#!/bin/sh
# Pins every dependency with hashes: requirements-dev.lock for all, requirements.lock for what runs.
# A house test checks that the second is part of the first.
set -eu
cd "$(dirname "$0")/.."

lock() {
  out=$1; shift
  uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-emit-find-links --no-header "$@" pyproject.toml -o "$out"
}

lock requirements-dev.lock --all-extras
lock requirements.lock --extra build
