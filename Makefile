# hivebeat. `make help` lists what there is; CI (.ci/run) calls the same targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -s -w -X github.com/beatfabric/hivebeat/internal/cli.version=$(VERSION)

# Tools, each by its version. They are built once per version into TOOLS.
GOLANGCI_VERSION := v2.15.0
BENCHTIME ?= 1s
FUZZTIME  ?= 10s
FUZZ_IN   ?= .
SIM_FIRST ?= 1
SIM_SEEDS ?= 2500
SIM_LATE  ?= 0s
TOOLS     ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/hivebeat/tools
GOLANGCI  := $(TOOLS)/golangci-lint-$(GOLANGCI_VERSION)
LINT_PKG  := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
LINT_MOD  := $(GOLANGCI).mod/go.mod

PLATFORMS := linux/arm64 darwin/arm64 windows/amd64
# docker compose v2 where it is there, docker-compose 1.29 else; make up and make e2e-compose go by it.
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {sub(/\$$\(PLATFORMS\)/, "$(PLATFORMS)", $$2); printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##

.PHONY: build
build: ## bin/hivebeat for this machine, static
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/hivebeat

# Many packages wait for deadlines rather than compute: four at once, however few processors there are.
TEST_P ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n > 4 ? n : 4)))
.PHONY: test
test: ## Every test but the end-to-end ones, with the race detector, in random order
	CGO_ENABLED=1 $(GO) test -race -shuffle=on -p $(TEST_P) ./...

.PHONY: python
python: ## The Python package: its tests in Python, and in Go against a real NATS and hive (PYTHON=python3.9)
	$(GO) test -count=1 ./clients/python ./examples/python

.PHONY: e2e
e2e: e2e-fabric e2e-gpus e2e-engines e2e-natscli e2e-top e2e-page e2e-compose ## End to end: real processes, terminal, browser, the nats CLI, containers

.PHONY: e2e-fabric
e2e-fabric: ## End to end with real processes: kills, restarts, full disks, old servers
	$(GO) test -tags e2e -count=1 -timeout 15m -v ./internal/e2e/fabric

# RUN=TestScenes/scenes/recovery plays the scenes whose file begins so.
.PHONY: e2e-gpus
e2e-gpus: ## GPUs that fail, split, share memory and disappear: a table of scenes, with a stand-in for nvidia-smi (RUN=TestScenes/scenes/hangs)
	$(GO) test -tags e2e -count=1 -timeout 10m -v -run '$(RUN)' ./internal/e2e/gpus

.PHONY: e2e-engines
e2e-engines: ## Inference engines that know nothing of hivebeat, found by a hive or watched by a sidecar: a table of scenes
	$(GO) test -tags e2e -count=1 -timeout 5m -v -run '$(RUN)' ./internal/e2e/engines

.PHONY: e2e-natscli
e2e-natscli: ## The README's lines for the nats CLI, run by the real one; the same questions by it, by HTTP, by hivebeat and in Go
	$(GO) test -tags e2e -count=1 -timeout 10m -v -p 1 ./internal/e2e/natscli ./internal/e2e/same

.PHONY: e2e-top
e2e-top: ## hivebeat top in a real terminal (tmux): keys in, screens out (HIVEBEAT_SCREENS=dir keeps them)
	$(GO) test -tags e2e -count=1 -timeout 10m -v ./internal/e2e/top

.PHONY: e2e-page
e2e-page: ## The page in a real browser (chromium), over a made-up fleet and a real one
	$(GO) test -tags e2e -count=1 -timeout 15m -v ./internal/e2e/page

.PHONY: e2e-compose
e2e-compose: ## docker-compose.yml on the local engine: containers scaled, killed, restarted (COMPOSE=docker-compose: with 1.29)
	$(GO) test -tags e2e -count=1 -timeout 15m -v ./internal/e2e/compose

# RUN=TestNemesis/leaf plays one scene; NEMESIS='-hive-every 15s -worker-every 30s' the defaults, with stops of 60 s.
RUN     ?= .
NEMESIS ?=
.PHONY: nemesis
nemesis: ## Real processes killed, stopped, starved and cut off: a table of what happened, and figures
	$(GO) test -tags e2e -count=1 -timeout 40m -v -run '$(if $(filter .,$(RUN)),TestNemesis|TestFigures,$(RUN))' ./internal/e2e/nemesis $(NEMESIS)

.PHONY: nemesis-cluster
nemesis-cluster: ## Three real servers with three replicas, restarted, killed, stopped, cut off, wiped, full: a table (RUN=TestCluster/minority)
	$(GO) test -tags e2e -count=1 -timeout 40m -v -run '$(if $(filter .,$(RUN)),TestCluster,$(RUN))' ./internal/e2e/nemesis $(NEMESIS)

.PHONY: bench
bench: ## Benchmarks with allocations, and a snapshot's way to a reader across processes (BENCHTIME=1s)
	$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./...
	$(GO) test -tags e2e -run '^$$' -bench . -benchtime $(BENCHTIME) ./internal/e2e/fabric

FOOTPRINT ?= 60s
.PHONY: bench-footprint
bench-footprint: ## Memory and CPU of a hive with 16 workers and 8 GPUs, and of the nvidia-smi that it runs (FOOTPRINT=60s)
	CGO_ENABLED=0 $(GO) test -tags e2e -run '^$$' -bench Footprint -benchtime 1x ./internal/e2e/gpus -footprint $(FOOTPRINT)

.PHONY: bench-sidecar
bench-sidecar: ## Memory and CPU of a sidecar with 40 engines of 64 KiB of metrics, read every 10 s (FOOTPRINT=60s)
	$(GO) test -tags e2e -run '^$$' -bench Sidecar -benchtime 1x ./internal/e2e/engines -footprint $(FOOTPRINT)

.PHONY: deploy-check
deploy-check: ## Alerts and dashboard in deploy/, held against a live fabric by Prometheus' own parser and engine
	cd deploy && $(GO) test -count=1 ./...

.PHONY: sim
sim: ## Faults under a virtual clock, SIM_SEEDS=2500 seeds from SIM_FIRST=1 on (SIM_LATE=60s: messages up to a minute late)
	$(GO) test -count=1 -timeout 2h -v ./internal/sim -run 'TestSeeds|TestKept' -sim.first $(SIM_FIRST) -sim.seeds $(SIM_SEEDS) -sim.late $(SIM_LATE)

# MUTANTS='-sim.search 5000 -sim.keep DIR' looks in more seeds, and puts their shortened plans into DIR.
MUTANTS ?=
.PHONY: mutants
mutants: ## Break the judgement on purpose, one place at a time: the seeds, plans and tests that are named have to fail (RUN=TestMutants/x)
	$(GO) test -count=1 -timeout 3h -v ./internal/sim -run '$(if $(filter .,$(RUN)),TestMutants$$,$(RUN))' -sim.mutants $(MUTANTS)

.PHONY: fuzz
fuzz: ## Every fuzz target, FUZZTIME=10s each (FUZZ_IN=internal/wire for those below it)
	@grep -rHo --include='*_test.go' -E '^func Fuzz[A-Za-z0-9_]+' ./$(FUZZ_IN) | sed 's#/[^/]*_test\.go:func # #' | sort -u | \
	while read -r dir name; do \
		echo "== $$dir $$name"; \
		$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$dir" </dev/null; \
	done

.PHONY: cover
cover: ## Coverage of the tests, by package and in all; dist/cover.html to look at
	mkdir -p dist
	$(GO) test -coverprofile dist/cover.out -coverpkg ./... ./... | awk '/coverage:/ && !/no test files/'
	$(GO) tool cover -html dist/cover.out -o dist/cover.html
	@$(GO) tool cover -func dist/cover.out | tail -1

##

.PHONY: lint
lint: prose $(GOLANGCI) ## golangci-lint (go vet is one of its linters), the format and the English, as CI wants them
	$(GOLANGCI) run ./...

.PHONY: prose
prose: ## Marks of translated English in comments and pages: at most 3 per 1,000 words, and where most of them are
	$(GO) test -count=1 -run TestProse ./internal/prose

.PHONY: fmt
fmt: $(GOLANGCI) ## Format every file (gofumpt)
	$(GOLANGCI) fmt

.PHONY: modules
modules: $(LINT_MOD) ## Download all that is compiled, of the tests in deploy/ and of the linter too
	$(GO) mod download
	$(GO) -C deploy list -test -deps ./... >/dev/null

.PHONY: vectors
vectors: ## Write testdata/wire/v1 anew, and record the wire's shape beside it
	$(GO) test -count=1 ./internal/wire -run Vectors -update
	$(GO) test -count=1 ./internal/wirelock -update

.PHONY: api
api: ## Record the exported Go API in api/; a change of it needs a line in CHANGELOG.md
	$(GO) test -count=1 ./internal/apilock -v -update

# In a module of its own: "go install …@version" asks the network each time.
$(LINT_MOD):
	mkdir -p $(@D)
	cd $(@D) && { $(GO) mod init lint && $(GO) get $(LINT_PKG)@$(GOLANGCI_VERSION); } >log 2>&1 || { tail -n 3 log; rm -f $@; exit 1; }

$(GOLANGCI): | $(LINT_MOD)
	cd $(dir $(LINT_MOD)) && $(GO) build -o $@ $(LINT_PKG)

##

.PHONY: cross
cross: $(PLATFORMS:%=cross-%) ## dist/: static binaries for $(PLATFORMS)

.PHONY: $(PLATFORMS:%=cross-%)
$(PLATFORMS:%=cross-%): cross-%:
	CGO_ENABLED=0 GOOS=$(word 1,$(subst /, ,$*)) GOARCH=$(word 2,$(subst /, ,$*)) $(GO) build -trimpath -ldflags '$(LDFLAGS)' \
		-o dist/hivebeat-$(subst /,-,$*)$(if $(findstring windows,$*),.exe) ./cmd/hivebeat

.PHONY: docker
docker: ## The image hivebeat:local
	docker build --target static --build-arg VERSION=$(VERSION) -t hivebeat:local .

.PHONY: docker-gpu
docker-gpu: ## The image hivebeat:gpu, for hives of machines with GPUs
	docker build --target gpu --build-arg VERSION=$(VERSION) -t hivebeat:gpu .

.PHONY: up
up: ## docker compose up, with what Compose there is
	$(COMPOSE) up --build

.PHONY: clean
clean: ## Away with bin/ and dist/
	rm -rf bin dist
