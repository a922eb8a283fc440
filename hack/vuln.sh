#!/usr/bin/env bash
# Which known vulnerabilities the binary reaches (govulncheck). Ends with 0: none, 3: these, 4: nobody looked, since there
# is no database to look in; 1: it did not work.
#
#     hack/vuln.sh                               # asks https://vuln.go.dev
#     VULNDB=file:///srv/vulndb hack/vuln.sh     # a copy, where the network does not go there
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

database=${VULNDB:-https://vuln.go.dev}
if ! problem=$(curl --silent --show-error --fail --location --max-time 30 --output /dev/null "$database/index/db.json" 2>&1); then
	cat >&2 <<-TEXT
		vuln: NOT CHECKED: the database of known vulnerabilities can't be read: $database: $problem
		vuln: this says nothing about the binary. Run it where $database can be reached, or name a copy: make vuln VULNDB=file:///FOLDER
	TEXT
	exit 4
fi
code=0
go tool -modfile="$PWD/internal/tools/go.mod" govulncheck -db "$database" ./... || code=$?
if ((code != 0 && code != 3)); then
	exit 1
fi
exit "$code"
