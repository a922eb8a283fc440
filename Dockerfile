# syntax=docker/dockerfile:1

# Bases are pinned by digest, so that the same commit has the same bases. docs/security.md says how they move.
# Build on the machine's own platform and cross-compile: Go needs no emulator.
FROM --platform=$BUILDPLATFORM golang:1.26.8-trixie@sha256:bdca99a00bc16590cb1a0bb4e698f5fc5d6a64e4d5eef13d9f18a0ee08e5fa65 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY cmd cmd
COPY internal internal
ARG TARGETOS TARGETARCH
ARG VERSION=unknown COMMIT=unknown DATE=unknown
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION -X main.commit=$COMMIT -X main.date=$DATE" \
    -o /out/processor ./cmd/processor

# As deploy/image has it, which packs the image of a release. No shell and no package manager: CA certificates, time zones, and a user that is not root.
FROM gcr.io/distroless/static-debian13:nonroot@sha256:e2e927ec666bae08560abb3c55d0659eceabb657f56b6782ab500a9fc7f555e3
ARG VERSION=unknown COMMIT=unknown DATE=unknown
LABEL org.opencontainers.image.title="Pawl processor" \
      org.opencontainers.image.description="Reads Kafka topics, transforms them and writes them back in one transaction" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT" \
      org.opencontainers.image.created="$DATE"
COPY --from=build /out/processor /usr/local/bin/processor
USER 65532:65532
EXPOSE 9090
ENV PROCESSOR_CONFIG=/etc/pawl/processor.yaml
# A drain finishes the transaction in hand; give it txn.drain_timeout and a little more before SIGKILL.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["processor", "healthcheck"]
ENTRYPOINT ["processor"]
CMD ["run"]
