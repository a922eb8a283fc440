#!/usr/bin/env bash
# go test with the given arguments; the packages come first, in one word: hack/test.sh ./... -race -p 2
#
# In CI (CI=true) a test that fails is run once more, by itself. If it passes then, the run goes on, names
# the test as FLAKY and shows both outputs: that is a bug with somebody's name on it, not a reason to keep
# everybody else's change out. There is no second try for more than three tests, a race, a crash of the
# test's process, or a failure whose words tell of records: what was lost or doubled once is lost. The logs
# of processes that a test shows (their lines begin with a bar) are not its words, nor is a table of what is wanted.
set -euo pipefail
packages=$1
shift
if [[ ${CI:-} != true ]]; then
	exec go test "$packages" "$@"
fi

tools="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/internal/tools/go.mod"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go tool -modfile="$tools" gotestsum --format pkgname --format-icons text --hide-summary skipped \
	--rerun-fails=1 --rerun-fails-max-failures=3 --rerun-fails-run-root-test --rerun-fails-abort-on-data-race \
	--rerun-fails-report "$work/flaky" --packages "$packages" -- "$@" 2>&1 | tee "$work/log"
if [[ ! -s "$work/flaky" ]]; then
	exit 0
fi
sed 's/^/FLAKY: /' "$work/flaky"
told='lost|missing|twice|doubl|duplicate|once|out of order|phantom|torn|skipped|aborted'
if grep -E '^    |^\s+\S+\.go:[0-9]+:' "$work/log" | grep -vE '^\s+\| |(at least|at most) [0-9.]+ +(met|missed|not measured)$' | grep -iE "$told" >&2; then
	echo "the words above tell of records: no second try" >&2
	exit 1
fi
