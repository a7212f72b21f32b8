#!/usr/bin/env bash
# Runs a Python test with CARAVAN_PYTHON (default python3). A test exits with 77 when a package it needs is absent.
exec "${CARAVAN_PYTHON:-python3}" "$@"
