# Everything that one does in a checkout. "make" alone lists it.
SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help tools build dev check test race race-half race-other-half race-rest e2e torture sim sim-known sim-new mutants fuzz bench microbench fmt gen clean

TOOLS   := bin/buf bin/golangci-lint bin/grpcurl bin/protoc-gen-go bin/protoc-gen-go-grpc
MAINS   := ./server/cmd/schedd ./agent/cmd/schedagent
E2E     := ./server/systest/e2e ./server/systest/natlab
LONG    := ./server/systest ./server/schedule ./raftstore
# What takes as long as all the others together, and has one processor with -race, see
# .ci/run-test: it is run in two halves beside each other, by the names of its tests.
LONGEST := ./server/systest
HALF    := ^Test[A-K]
COUNTS  := bin/.counts
STORIES := bin/stories
# To set: how long each fuzz target runs, how many worlds are simulated for how
# many of their hours, for how long a cluster is tortured (empty: five minutes) and worlds
# of the simulation begin (empty: until all have lived), how often the leader of what is
# tortured has to be killed meanwhile, what schedd bench measures, and the revision whose
# .proto files the present ones must stay compatible with (empty: none).
FUZZTIME ?= 20s
FOR      ?=
KILLS    ?= 10
SEEDS    ?= 20
HOURS    ?= 6
SCENARIOS ?=
AGAINST  ?= main

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

tools: $(TOOLS) ## the pinned tools, into ./bin

build: ## the programs, into ./bin
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -o bin/ $(MAINS)

dev: build ## a whole schedd on this machine, with a few jobs to look at
	bin/schedd dev --demo

# The race detector takes ten times as long, so it is given the short form of the
# tests that have one; those, and no others, are told whole without it. The simulation is
# told after them, at length. The torture mostly waits, so the mutants are tried meanwhile.
check: tools build ## all that CI runs: format, lint, generated code, tests with -race, fuzzing, stories, simulation, mutants, end to end
	@echo "== format"
	bin/golangci-lint fmt --diff
	bin/buf format --diff --exit-code
	go mod tidy -diff
	@echo "== lint"
	go vet -tags e2e ./...
	bin/golangci-lint run
	bin/buf lint
	@echo "== compatible with $(or $(AGAINST),nothing in particular)"
	@$(compatible)
	@echo "== generated code"
	@$(generated)
	@echo "== tests"
	@rm -f $(COUNTS)
	@$(MAKE) --no-print-directory race
	@echo "== fuzz"
	@.ci/fuzz 500x $(COUNTS)
	@echo "== stories"
	@tests=$$(.ci/long-tests $(LONG)); go test -v -vet=off -timeout 40m -run "$$tests" $(LONG) 2>&1 | $(summary)
	@echo "== simulation"
	@$(MAKE) --no-print-directory sim
	@echo "== mutants, and torture beside them"
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target torture mutants
	@echo "== end to end"
	@$(MAKE) --no-print-directory e2e
	@echo "== deploy"
	@COUNTS="$(CURDIR)/$(COUNTS)" deploy/check
	@echo "== all of it is fine"
	@cat $(COUNTS)

test: ## the tests, as fast as they go
	go test ./...

# Whoever is done with a half goes on with the rest. All of it was vetted before. What the
# halves have in common is built once before them.
race:
	@$(race); go test -vet=off $$race -c -o /dev/null $(LONGEST); \
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target RACE="$$race" race-half race-other-half race-rest

race-half:
	@$(call raced,-run '$(HALF)' $(LONGEST))

race-other-half:
	@$(call raced,-skip '$(HALF)' $(LONGEST))

race-rest:
	@$(call raced,$$(go list ./... | grep -v '/server/systest$$'))

# natlab needs more than the others: Linux, root, and the commands ip, iptables,
# haproxy and nginx. Where they are missing its tests are skipped, by name and
# with the reason; with CI=true that is a failure. One package after the other,
# since each keeps a machine busy and natlab tells how fast things are.
e2e: build ## the tests with real processes and networks; all of them as root, with ip, iptables, haproxy, nginx
	@for dir in $(E2E); do ls $$dir/*_test.go >/dev/null 2>&1 || { echo "e2e: there are no tests in $$dir" >&2; exit 1; }; done
	@E2E_BIN="$(CURDIR)/bin" go test -v -tags e2e -count=1 -p 1 -timeout 40m $(E2E) 2>&1 | $(summary)

# What runs may take long to end on a machine that does other things as well: --settle tells
# only what hangs. Root has it in a network of its own, where links can be cut without a rule
# among those of the host.
torture: build ## real processes for FOR: the leader is killed again and again, as root links are cut, and no promise may be broken
	@torture="bin/schedd torture --local --primaries 3 --workers 4 --for $(or $(FOR),5m) --settle 30m --leader-kills $(KILLS)"; \
	if why=$$($(own-network) iptables -w -S 2>&1); \
	then $(own-network) $$torture --cut-links && links="links were cut"; \
	else $$torture && links="no link was cut: $$why"; fi && \
	echo "torture: held for $(or $(FOR),5m), $$links" >>$(COUNTS)

own-network = unshare -n sh -c 'ip link set lo up && exec "$$0" "$$@"'

# A world is one process's work and mostly one thread's, so the known worlds and the new ones
# live beside each other.
sim: ## the simulation: SEEDS worlds known and as many new ones, for HOURS of their time each; with FOR, as many as begin in that time
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target sim-known sim-new

sim-known:
	@$(call worlds,-more $(SEEDS) -fresh 0)

sim-new:
	@$(call worlds,-more 0 -fresh $(SEEDS))

mutants: ## break each promise once, and see that a test notices
	@.ci/mutants

fuzz: ## each fuzz target for FUZZTIME, one after the other
	@for pkg in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' "$$pkg" | grep '^Fuzz' || true); do \
			echo "== $$pkg $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$pkg"; \
		done; \
	done

# Figures are worth what the machine is: one that does nothing else meanwhile. They are
# kept, so that later ones can be compared with them.
bench: build ## schedd bench: how fast it is here, by SCENARIOS (none named: all), beside what the machine does
	bin/schedd bench --scenario "$(SCENARIOS)" --json bin/bench.json

microbench: ## the benchmarks beside the code; those of raftstore compare with Raft alone
	go test -run '^$$' -bench . -benchmem ./...

fmt: tools ## put Go and .proto files in their form
	bin/golangci-lint fmt
	bin/buf format --write

gen: tools ## Go code from the .proto files
	bin/buf generate

clean: ## remove what was built, the tools as well
	rm -rf bin

# One tool is built when it is missing or older than the list of versions.
$(TOOLS): bin/%: tools/go.mod tools/go.sum
	@mkdir -p bin
	cd tools && go build -o ../$@ "$$(go list tool | grep '/$*$$')"
	@touch $@

# race sets $race. The race detector needs a C compiler, and CI needs the race
# detector.
define race
race=-race; \
if ! command -v "$$(go env CC | cut -d ' ' -f 1)" >/dev/null; then \
	race=; \
	printf '%s\n' '!!' '!! No C compiler: the tests run WITHOUT the race detector. Install gcc.' '!!' >&2; \
	[ "$${CI:-}" != true ] || exit 1; \
	echo 'check: WITHOUT the race detector, for want of a C compiler' >>$(COUNTS); \
fi
endef

# raced runs the short form of some tests as race has it.
raced = go test -v -short -vet=off $(RACE) -exec "'$(CURDIR)/.ci/run-test'" -timeout 45m $(1) 2>&1 | $(summary)

# summary shows what failed and what was skipped, and counts.
summary = awk -v counts=$(COUNTS) -v name=$@ -f .ci/summary.awk

# worlds lets worlds of the simulation live, as many as its argument says. The log of one
# that fails is kept.
worlds = mkdir -p $(STORIES); GOMAXPROCS=1 go test -v -count=1 -timeout 0 -artifacts -outputdir $(CURDIR)/$(STORIES) -run '^TestSimulation$$' ./server/systest \
	-args $(1) -long $(HOURS)h $(FOR:%=-for %) 2>&1 | $(summary)

# compatible holds the .proto files to those of another revision. A first commit
# has nothing to compare with.
define compatible
for ref in $(AGAINST) $(AGAINST:%=origin/%); do \
	git cat-file -e "$$ref:buf.yaml" 2>/dev/null && git cat-file -e "$$ref:proto/schedd" 2>/dev/null || continue; \
	old=$$(mktemp -d); trap 'rm -rf "$$old"' EXIT; \
	git archive "$$ref" buf.yaml proto | tar -x -C "$$old"; \
	echo "bin/buf breaking --against $$ref"; \
	bin/buf breaking --against "$$old"; \
	exit; \
done; \
echo "no revision to compare with"
endef

# generated makes the code again elsewhere and compares, so that it changes
# nothing here, and finds a file whose .proto is gone.
define generated
new=$$(mktemp -d); trap 'rm -rf "$$new"' EXIT; mkdir "$$new/here"; \
bin/buf generate --output "$$new/again"; \
find proto -name '*.pb.go' -print0 | tar -c --null -T - | tar -x -C "$$new/here"; \
diff -r "$$new/here" "$$new/again" || { echo 'generated code does not match the .proto files: run "make gen", remove what has none' >&2; exit 1; }
endef
