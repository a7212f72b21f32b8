#!/usr/bin/env bash
# Runs a Python test with CARAVAN_PYTHON (default python3). A test exits with 77, "skipped", when a package it needs is
# absent; so does this script without an interpreter.
python=${CARAVAN_PYTHON:-python3}
command -v "$python" >/dev/null || { echo "SKIPPED: there is no $python"; exit 77; }
exec "$python" "$@"
