# Everything a person or the build machine runs starts here; `make help` lists it.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory
.DEFAULT_GOAL := help

# What `processor version` says. The date is the commit's, so that two builds of one commit are
# the same bytes.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
DATE    ?= $(shell git show -s --format=%cI HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.date=$(DATE)

# The modules beside the product's own. Each keeps its heavier dependencies out of the binary's
# go.mod. The tools' module has no code.
MODULES := $(filter-out internal/tools,$(patsubst %/go.mod,%,$(wildcard */go.mod */*/go.mod)))

# go test; in CI with a second try, see there.
TEST := $(CURDIR)/hack/test.sh
TOOL := go tool -modfile=$(CURDIR)/internal/tools/go.mod

# One broker is a JVM and a package of integration tests starts one, so those layers run package
# after package; unit tests start none and share the cores.
UNIT_FLAGS        := -race -p 2 -timeout 5m
INTEGRATION_FLAGS := -tags integration -p 1 -timeout 15m
CHAOS_FLAGS       := -tags chaos -p 1 -timeout 30m

##@ First steps

help: ## This list
	@test -t 1 && bold=$$'\033[1m' plain=$$'\033[0m' || bold= plain=; \
	awk -v bold="$$bold" -v plain="$$plain" 'BEGIN {FS = ":.*## "} \
		/^##@ / {printf "\n%s%s%s\n", bold, substr($$0, 5), plain} \
		/^[a-z-]+:.*## / {printf "  %s%-12s%s %s\n", bold, $$1, plain, $$2}' $(MAKEFILE_LIST)

setup: ## Install or fetch what is missing (JRE, Maven, Kafka, Postgres, pgbouncer, Prometheus, Chromium, C compiler); safe to repeat
	hack/setup.sh

demo: setup build ## Kafka, an order stream, two processors, one killed in mid-transaction; prints the proof
	bin/processor dev --demo $(DEMO_FLAGS)

##@ Build

build: ## bin/processor, static, version stamped
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/processor ./cmd/processor

image: ## Container image pawl/processor for development (needs a Docker engine); make release makes that of a release
	docker build --build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT) --build-arg DATE=$(DATE) \
		-t pawl/processor:$(subst +,-,$(VERSION)) .

release: ## dist: static binaries for linux amd64 and arm64, bills of materials, chart, image, checksums; the same commit gives the same bytes
	VERSION=$(VERSION) COMMIT=$(COMMIT) DATE=$(DATE) hack/release.sh dist

clean: ## Remove what the other targets made here; downloads stay in the cache
	rm -rf bin dist coverage bench/results

##@ Tests

test: setup ## All layers at their per-change size
	@for layer in unit 'sim LEAST=100' integration chaos; do \
		echo "--- $$layer"; from=$$SECONDS; \
		$(MAKE) $$layer; \
		echo "--- $$layer: ok, $$((SECONDS - from)) s"; \
	done

unit: ## Seconds: no broker, no database, under the race detector
	@for module in . $(MODULES); do echo "module $$module"; (cd $$module && $(TEST) ./... $(UNIT_FLAGS)); done

sim: ## Histories of the whole service under fault, in virtual time: make sim [N=2000] [SEED=1] [FOR=4m] [LEAST=1] [KINDS=crash,cut] [RESULT=FILE]
	go test -tags synctests -count 1 -timeout 24h ./internal/sim -v -run Histories -sim.n $(or $(N),2000) -sim.seed $(or $(SEED),1) -sim.for $(or $(FOR),4m) \
		-sim.least $(or $(LEAST),1) $(if $(KINDS),-sim.kinds $(KINDS)) $(if $(RESULT),-sim.result $(abspath $(RESULT))) | grep -v '^=== '

integration: build ## A real Kafka and a real Postgres, found or fetched
	go vet -tags integration ./... # compiles on every core; go test -p 1 would compile on one
	@for module in . $(MODULES); do echo "module $$module"; (cd $$module && $(TEST) ./... $(INTEGRATION_FLAGS)); done

chaos: build ## The real binary under fault: kill, stop, cut, restart, and two minutes of random faults of all kinds
	go vet -tags chaos ./...
	$(TEST) ./internal/e2e $(CHAOS_FLAGS) -skip Tempest
	$(TEST) ./internal/e2e $(CHAOS_FLAGS) -v -run Tempest -args -seed 23 -tempest.duration 110s -tempest.rate 500 -tempest.orders 40

mutants: ## Break one rule of ours at a time, see its tests fail: make mutants [ONLY=name] [PART=2/5] [RESULT=FILE]
ifdef ONLY
	go run ./internal/mutants -only $(ONLY)
else
	go run ./internal/mutants $(if $(PART),-part $(PART)) $(if $(RESULT),-result $(RESULT))
	go run ./internal/mutants -tags integration
endif

alerts: build ## Every alert, fired and ended by a fault on a running system: make alerts [RESULT=FILE] (minutes; chaos has the most important)
	go test $(CHAOS_FLAGS) -count 1 -run Alert -v ./internal/e2e -long $(if $(RESULT),-alerts.result $(abspath $(RESULT)))

chart: ## What follows from the Helm chart anew: plain manifests, golden files, table of values
	cd deploy/helm && go test -tags integration -count 1 -run Generated . -update

page: ## The status page in a headless browser; pictures of it in bin/page
	@mkdir -p bin/page
	go test -tags integration -count 1 -artifacts -outputdir $(CURDIR)/bin/page -run '^TestPage' ./internal/app
	@find bin/page -name '*.png'

dashboards: ## The Grafana dashboards anew from their program
	cd deploy/grafana && go run .

tempest: build ## Random faults on real brokers: make tempest SEED=7 DURATION=170s [RATE=1000] [ORDERS=60] [RESULT=FILE]
	@mkdir -p bin/tempest
	go test -tags chaos -count 1 -v -timeout 100h -artifacts -outputdir $(CURDIR)/bin/tempest -run Tempest ./internal/e2e -seed $(or $(SEED),0) \
		-tempest.duration $(or $(DURATION),170s) -tempest.rate $(or $(RATE),1000) -tempest.orders $(or $(ORDERS),60) \
		$(if $(RESULT),-tempest.result $(abspath $(RESULT)))

stress: ## A new test a hundred times under race: make stress PKG=./internal/txn RUN=TestName [COUNT=100] [TAGS=integration]
	@test -n "$(PKG)" -a -n "$(RUN)" || { echo "stress: say what to repeat: make stress PKG=./internal/txn RUN=TestName" >&2; exit 2; }
	go test -race -tags '$(TAGS)' -run '$(RUN)' -count $(or $(COUNT),100) -failfast -timeout 60m $(PKG)

fuzz: ## Every fuzz target for a while: make fuzz [FUZZTIME=30s]
	@for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "fuzz $$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(or $(FUZZTIME),30s) $$package; \
		done; \
	done

cover: ## Coverage of the unit layer, as a total and as coverage/unit.html
	@mkdir -p coverage
	go test -coverprofile coverage/unit.out -coverpkg ./... ./...
	go tool cover -html coverage/unit.out -o coverage/unit.html
	@go tool cover -func coverage/unit.out | tail -n 1

report: ## docs/verification.md, made of the results in docs/verification
	go test ./internal/evidence -run Report -update

bench: setup build ## The yardstick: this project beside an at-least-once loop on one real broker (minutes)
	cd bench && go build -trimpath -o ../bin/bench .
	bin/bench -processor bin/processor -out bench/results $(BENCH_FLAGS)

performance: ## docs/performance.md and its charts, made of the results of make bench in docs/performance
	cd bench && go run . -report ../docs

##@ Code

fmt: ## Format every Go file
	$(TOOL) gofumpt -w $$(git ls-files --cached --others --exclude-standard '*.go')

lint: ## Linters, formatting, module files; every module, every build tag
	@for module in . $(MODULES); do \
		echo "module $$module"; \
		(cd $$module && go mod tidy -diff && $(TOOL) golangci-lint run --allow-serial-runners --config $(CURDIR)/.golangci.yml); \
	done
	$(TOOL) golangci-lint run --allow-serial-runners --build-tags failpoint ./internal/failpoint/...

vuln: ## Known vulnerabilities that the binary reaches: make vuln [VULNDB=file:///FOLDER]
	VULNDB=$(VULNDB) hack/vuln.sh

tidy: ## Tidy the module files of every module
	go mod tidy
	@for module in $(MODULES) internal/tools; do (cd $$module && go mod tidy); done

.PHONY: help setup demo build image release clean test unit integration chaos mutants alerts chart dashboards sim tempest report page performance stress fuzz cover bench fmt lint vuln tidy
