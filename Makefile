# make          bin/os-rescue; needs gcc, pkg-config and libvirt-dev
# make test     every test, unit and lab; as root, installs what is missing
# make demo     the incident and the rescue, to watch; as root, installs what is missing
# make e2e      the cases on a real OpenStack on ground of its own, which it starts if needed; as root
# make openstack-up, openstack-down    start and stop that OpenStack, to work with it
# make bench    every figure of docs/performance.md beside its peers; as root, installs what is missing
# make fuzz     each fuzz target for FUZZTIME
# make oracle   random sequences of what befalls instances: SEQUENCES (300) of STEPS (8) from SEED (1) on; as root
# make flood    25,000 planted files: what a guard holds and how soon it answers, on a machine that does nothing else; as root
# make chaos    random faults in rescues: TRIALS (300) from SEED (1) on; TABLE=docs/reliability.md writes the table there; as root
# make sweeps   rescues killed, interrupted and ended at every point of their journal, where make test draws a third; as root
# make lint     go vet, gofmt, golangci-lint
# make sbom     bin/os-rescue.cdx.json: what the binary is made of, with licences, as CycloneDX
# make vulns    govulncheck on the binary's code; needs VULNDB, or a mirror of it
# make install  binary, configuration, units, manual pages, completions, alerts and dashboard; PREFIX, DESTDIR

GO         ?= go
PREFIX     ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR    ?= $(PREFIX)/lib/systemd/system
FUZZTIME   ?= 10s
SEED       ?= 1
STEPS      ?= 8
SEQUENCES  ?= 300
TRIALS     ?= 300
BENCHFLAGS ?=

VULNDB     ?= https://vuln.go.dev
BINARY     ?= bin/os-rescue

GOLANGCI_LINT = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
CYCLONEDX     = github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
GOVULNCHECK   = golang.org/x/vuln/cmd/govulncheck@v1.9.0

# Go stamps version and commit from git, and fails where git refuses: in another
# user's checkout.
ifneq ($(shell git rev-parse HEAD > /dev/null 2>&1 && echo ok),ok)
export GOFLAGS += -buildvcs=false
else
STAMP := -buildvcs=true
endif

.PHONY: build
build:
	$(GO) build $(STAMP) -trimpath -o $(BINARY) ./cmd/os-rescue

.PHONY: packages
packages:
	@sh test/install.sh lab

# How long all tests of a package may take: the limit of a quiet machine times LAB_PATIENCE.
TEST_LIMIT = $(shell awk "BEGIN { print 55 * $${LAB_PATIENCE:-1} }")m

.PHONY: test
test: packages format vet
	$(GO) test -race -p 2 -timeout $(TEST_LIMIT) ./...

# Every kind of step, where make test draws a share of them.
.PHONY: oracle
oracle: packages
	ORACLE_SEED=$(SEED) ORACLE_STEPS=$(STEPS) ORACLE_SEQUENCES=$(SEQUENCES) \
		$(GO) test -count=1 -timeout 4h -v ./test/oracle

.PHONY: flood
flood:
	FLOOD=$${FLOOD:-25000} $(GO) test -count=1 -v -run 'Planted|OfThousands|StormOfNames' ./recover/guard

.PHONY: chaos
chaos: packages
	CHAOS_SEED=$(SEED) CHAOS_TRIALS=$(TRIALS) CHAOS_TABLE=$(abspath $(TABLE)) \
		$(GO) test -count=1 -timeout 4h -v -run TestNoFault ./test/chaos

.PHONY: sweeps
sweeps: packages
	LAB_SHARE=1 $(GO) test -count=1 -timeout 4h -v -run 'AtAnyPoint|RightAfterARunWasKilled|AnInterruptedRun' ./test/e2e/lab

.PHONY: openstack-packages
openstack-packages: packages
	@sh test/install.sh openstack

# Built, because go run would not pass signals on to it.
.PHONY: bin/bed
bin/bed:
	@$(GO) build -o $@ ./test/openstack/cmd/bed

.PHONY: openstack-up
openstack-up: openstack-packages bin/bed
	bin/bed up

.PHONY: openstack-down
openstack-down: bin/bed
	bin/bed down --purge

# How long the cases may take in all: the limit of a quiet machine times LAB_PATIENCE.
E2E_LIMIT = $(shell awk "BEGIN { print 31 * $${LAB_PATIENCE:-1} }")m

# A bed that was up stays up. Vet gets the modules: there is no network in the bed.
.PHONY: e2e
e2e: openstack-packages bin/bed
	$(GO) vet -tags 'failpoint openstack' ./cmd/... ./test/openstack/... ./test/e2e/openstack
	bin/bed run --purge -- $(GO) test -tags openstack -count=1 -timeout $(E2E_LIMIT) ./test/e2e/openstack

.PHONY: format
format:
	@files=$$(gofmt -l .); [ -z "$$files" ] || { echo "not formatted, run gofmt -w:" $$files; exit 1; }

.PHONY: vet
vet:
	$(GO) vet ./...
	$(GO) vet -tags failpoint ./cmd/...

.PHONY: lint
lint: format vet
	$(GO) run $(GOLANGCI_LINT) run

# The same commit gives the same document.
.PHONY: sbom
sbom:
	@mkdir -p bin
	$(GO) run $(CYCLONEDX) app -json -licenses -std -noserial -notimestamp -main cmd/os-rescue -output bin/os-rescue.cdx.json .

# Installed, because go run has one exit code for all errors. govulncheck ends with 3 where it finds something.
.PHONY: vulns
vulns:
	GOBIN=$(abspath bin) $(GO) install $(GOVULNCHECK)
	@code=0; bin/govulncheck -db $(VULNDB) ./cmd/os-rescue || code=$$?; \
	if [ $$code -ne 0 ] && [ $$code -ne 3 ]; then \
		echo "make vulns: NOT checked: govulncheck could not do its work, see above. Where $(VULNDB) can't be reached," \
			"give a mirror: make vulns VULNDB=URL" >&2; \
	fi; exit $$code

.PHONY: fuzz
fuzz:
	@set -e; for file in $$(grep -rl --include='*_test.go' '^func Fuzz' .); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\).*/\1/p' $$file); do \
			echo "$$target in $$(dirname $$file)"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s $$(dirname $$file); \
		done; \
	done

.PHONY: demo
demo: packages
	@$(GO) run ./test/demo

.PHONY: bench
bench: openstack-packages
	$(GO) run ./test/bench $(BENCHFLAGS)

# Nothing of what is installed depends on the umask of who installs it.
UNITS = os-rescue-guard.service os-rescue-check.service os-rescue-check.timer

.PHONY: install-units
install-units:
	install -d $(DESTDIR)$(UNITDIR)
	@set -e; for unit in $(UNITS); do \
		echo "etc/systemd/$$unit -> $(DESTDIR)$(UNITDIR)/$$unit"; \
		sed -e 's|/usr/local/sbin/|$(PREFIX)/sbin/|' -e 's|/etc/os-rescue/|$(SYSCONFDIR)/os-rescue/|' etc/systemd/$$unit \
			> $(DESTDIR)$(UNITDIR)/$$unit; \
		chmod 0644 $(DESTDIR)$(UNITDIR)/$$unit; \
	done

.PHONY: install
install: build install-units
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)$(SYSCONFDIR)/os-rescue \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d $(DESTDIR)$(PREFIX)/share/os-rescue/prometheus \
		$(DESTDIR)$(PREFIX)/share/os-rescue/grafana
	install -m 0755 $(BINARY) $(DESTDIR)$(PREFIX)/sbin/os-rescue
	[ -e $(DESTDIR)$(SYSCONFDIR)/os-rescue/os-rescue.yaml ] || \
		install -m 0644 etc/os-rescue.yaml $(DESTDIR)$(SYSCONFDIR)/os-rescue/os-rescue.yaml
	install -m 0644 etc/prometheus/os-rescue.rules.yaml $(DESTDIR)$(PREFIX)/share/os-rescue/prometheus/os-rescue.rules.yaml
	install -m 0644 etc/grafana/os-rescue.json $(DESTDIR)$(PREFIX)/share/os-rescue/grafana/os-rescue.json
	$(BINARY) man $(DESTDIR)$(PREFIX)/share/man/man8
	$(BINARY) completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/os-rescue
	$(BINARY) completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_os-rescue
	$(BINARY) completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/os-rescue.fish
	chmod 0644 $(DESTDIR)$(PREFIX)/share/man/man8/os-rescue*.8 $(DESTDIR)$(PREFIX)/share/bash-completion/completions/os-rescue \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_os-rescue $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/os-rescue.fish

.PHONY: clean
clean:
	rm -rf bin test/.cache
