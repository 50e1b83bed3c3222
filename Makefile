# What one does here. Everything installs what it lacks on Debian (as root); elsewhere it says what is missing.

GO       ?= go
FUZZTIME ?= 1m
TOOL      = $(GO) tool -modfile=tools/go.mod

.PHONY: help build demo test race soak lint vuln bench bench-memory bench-bucket bench-scale e2e fuzz image release clean

help: ## say what there is
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 16

build: ## both programs, static, to bin/
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/attic-action ./cmd/action
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/attic-server ./cmd/server

demo: ## a flake with three hosts, from its build to a pulled closure, in two minutes
	@scripts/demo

test: ## all tests
	@scripts/setup go=golang-go nix=nix-bin zstd git curl jq node=nodejs ps=procps
	$(GO) vet ./...
	$(TOOL) -n versitygw >/dev/null # the tests' S3 server: built once, before several packages want it
	$(GO) test ./...
	node --test action/locate.test.js

race: ## all tests, with the race detector
	$(GO) test -race ./...

soak: ## a million steps against a model, every byte of a bucket flipped, a server killed 200 times with a bucket, a bucket that is down for a minute: two hours
	ATTIC_SOAK_STEPS=1000000 $(GO) test ./internal/soak -count=1 -timeout 6h
	ATTIC_TEST_EVERY_BYTE=1 $(GO) test ./internal/verify -count=1 -timeout 3h -run 'TestEvery'
	ATTIC_TEST_KILLS=200 ATTIC_TEST_OUTAGE=60s $(GO) test ./internal/e2e -v -count=1 -timeout 2h \
		-run 'TestKilledServerWithABucketLosesNothing|TestPushAndPullOutliveABucketThatIsDown'

bench-scale: build ## a cache of a million paths: the plan of a collection, stats, narinfo; a table
	@scripts/bench-scale

lint: ## what the tools say: formatting, vet, staticcheck, shellcheck, actionlint, zizmor
	@scripts/setup go=golang-go git shellcheck
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo 'lint: gofmt -w these files' >&2; exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	shellcheck .ci/run scripts/demo scripts/fuzz scripts/image scripts/release scripts/rootfs scripts/setup scripts/zizmor $(wildcard scripts/bench scripts/bench-* scripts/e2e)
	shellcheck --shell=bash --exclude=SC2154,SC2034 testdata/e2e/stories/*.bash # what scripts/e2e sets and reads
	for file in action/*.js; do node --check $$file || exit 1; done
	$(if $(wildcard .github/workflows/*.yml),$(TOOL) actionlint)
	scripts/zizmor --quiet

bench: build ## how fast, beside Nix itself; a table
	@scripts/bench

bench-memory: build ## sixteen uploads, pushes and pulls at once, in 256 MB of memory
	@scripts/bench-memory

bench-bucket: build ## how fast with a bucket that is 50 ms away; a table
	@scripts/bench-bucket

e2e: build ## workflows, run by act on this machine
	@scripts/e2e

vuln: ## known vulnerabilities in what is linked
	$(TOOL) govulncheck ./...

fuzz: ## every fuzz target for FUZZTIME
	@scripts/fuzz $(FUZZTIME)

image: ## the server's image, built with buildah and run; nothing is pushed
	@scripts/image

release: ## programs and digests of TAG=v1.2.3, to dist/ and action/SHA256SUMS
	@scripts/release $(TAG)

clean: ## remove what make has built
	rm -rf bin dist
