#!/usr/bin/env bash
# Sees that the commit before this one is here, which the test of a roll from the previous version and back builds
# (internal/e2e). A shallow clone does not have it, so it is fetched. Ends with 0: it is here, 4: it can't be had, so that
# test skips itself.
set -euo pipefail
cd "${1:-$(dirname "${BASH_SOURCE[0]}")/..}"

here() { git cat-file -e HEAD~1 2>/dev/null; }
if here; then
	exit 0
fi
if [[ $(git rev-parse --is-shallow-repository 2>/dev/null) == true ]]; then
	GIT_TERMINAL_PROMPT=0 timeout 120 git fetch --quiet --deepen=1 || true
fi
if here; then
	exit 0
fi
cat >&2 <<-TEXT
	history: NOT CHECKED: the commit before this one is not in this clone and can't be fetched
	history: so nobody rolls from that version to this one and back. Run it in a clone that has it: git fetch --unshallow
TEXT
exit 4
