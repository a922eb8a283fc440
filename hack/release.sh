#!/usr/bin/env bash
# Makes what a release consists of, in the folder that is given: static binaries for Linux with the bill of materials of
# each, the Helm chart, the container image of all binaries, which takes no engine, with its digest, and checksums of all. The
# same commit and the same Go give the same bytes, wherever and whenever.
#
#     VERSION=v1.2.3 COMMIT=... DATE=... hack/release.sh FOLDER      # make release sets them
#     ARCHS=amd64 hack/release.sh FOLDER                             # fewer binaries
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=${1:?"say where to put it: hack/release.sh FOLDER"}
: "${VERSION:?}" "${COMMIT:?}" "${DATE:?}"
# What the build machine has set must not be in the bytes.
unset GOAMD64 GOARM64 GOEXPERIMENT GOFLAGS

say() { printf 'release: %s\n' "$*" >&2; }

rm -rf "$out"
mkdir -p "$out"
out=$(cd "$out" && pwd)

binaries=()
for arch in ${ARCHS:-amd64 arm64}; do
	name=processor_${VERSION}_linux_${arch}
	binaries+=("$out/$name")
	say "$name"
	# Version, commit and date are ours: git's stamp would differ between a clone and an archive.
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -v -trimpath -buildvcs=false \
		-ldflags "-s -w -X main.version=$VERSION -X main.commit=$COMMIT -X main.date=$DATE" -o "$out/$name" ./cmd/processor
	# Of the binary and not of go.mod: what is linked in, and nothing else. The tool has a module file of its own: its
	# dependencies and those of the linters need not agree.
	go tool -modfile="$PWD/internal/tools/sbom.mod" cyclonedx-gomod bin -json -std -noserial -notimestamp -version "$VERSION" \
		-output "$out/$name.cdx.json" "$out/$name"
done

say "chart"
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
cp -rL deploy/helm/pawl "$stage/pawl"
tag=${VERSION//+/-} # as the image has it
sed -i "s/^appVersion:.*/appVersion: \"$tag\"/" "$stage/pawl/Chart.yaml"
chart=$(sed -n 's/^version: *//p' "$stage/pawl/Chart.yaml")
chmod -R u=rwX,go=rX "$stage/pawl"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="$DATE" --format=ustar -C "$stage" -cf - pawl | gzip -n -9 >"$out/pawl-$chart.tgz"

say "image pawl/processor:$tag"
# What stands in the chart's image.digest, by whichever name the image is pushed.
go -C deploy/image run -trimpath . -tag "$tag" -version "$VERSION" -commit "$COMMIT" -date "$DATE" \
	-out "$out/processor_${VERSION}_oci.tar" "${binaries[@]}" >"$out/image.txt"

(cd "$out" && sha256sum -- * >"$stage/SHA256SUMS" && mv "$stage/SHA256SUMS" .)
say "$(wc -l <"$out/SHA256SUMS") files in $out"
