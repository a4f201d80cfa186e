# make          bin/os-rescue; needs gcc, pkg-config and libvirt-dev
# make test     every test, unit and lab; as root, installs what is missing
# make demo     the incident and the rescue, to watch; as root, installs what is missing
# make e2e      the cases on a real OpenStack on ground of its own, which it starts if needed; as root
# make openstack-up, openstack-down    start and stop that OpenStack, to work with it
# make bench    every figure of docs/performance.md beside its peers; as root, installs what is missing
# make fuzz     each fuzz target for FUZZTIME
# make oracle   random sequences of what befalls instances: SEQUENCES (300) of STEPS (8) from SEED (1) on; as root
# make lint     go vet, gofmt, golangci-lint
# make install  binary, configuration, units, manual pages, completions, alerts and dashboard; PREFIX, DESTDIR

GO         ?= go
PREFIX     ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR    ?= $(PREFIX)/lib/systemd/system
FUZZTIME   ?= 10s
SEED       ?= 1
STEPS      ?= 8
SEQUENCES  ?= 300
BENCHFLAGS ?=

GOLANGCI_LINT = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

# Go stamps version and commit from git, and fails where git refuses: in another
# user's checkout.
ifneq ($(shell git rev-parse HEAD > /dev/null 2>&1 && echo ok),ok)
export GOFLAGS += -buildvcs=false
else
STAMP := -buildvcs=true
endif

.PHONY: build
build:
	$(GO) build $(STAMP) -trimpath -o bin/os-rescue ./cmd/os-rescue

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
	ORACLE_KINDS=all ORACLE_SEED=$(SEED) ORACLE_STEPS=$(STEPS) ORACLE_SEQUENCES=$(SEQUENCES) \
		$(GO) test -count=1 -timeout 4h -v ./test/oracle

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

.PHONY: fuzz
fuzz:
	@set -e; for file in $$(grep -rl --include='*_test.go' '^func Fuzz' .); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\).*/\1/p' $$file); do \
			echo "$$target in $$(dirname $$file)"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$(dirname $$file); \
		done; \
	done

.PHONY: demo
demo: packages
	@$(GO) run ./test/demo

.PHONY: bench
bench: openstack-packages
	$(GO) run ./test/bench $(BENCHFLAGS)

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
	install -m 0755 bin/os-rescue $(DESTDIR)$(PREFIX)/sbin/os-rescue
	[ -e $(DESTDIR)$(SYSCONFDIR)/os-rescue/os-rescue.yaml ] || \
		install -m 0644 etc/os-rescue.yaml $(DESTDIR)$(SYSCONFDIR)/os-rescue/os-rescue.yaml
	install -m 0644 etc/prometheus/os-rescue.rules.yaml $(DESTDIR)$(PREFIX)/share/os-rescue/prometheus/os-rescue.rules.yaml
	install -m 0644 etc/grafana/os-rescue.json $(DESTDIR)$(PREFIX)/share/os-rescue/grafana/os-rescue.json
	bin/os-rescue man $(DESTDIR)$(PREFIX)/share/man/man8
	bin/os-rescue completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/os-rescue
	bin/os-rescue completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_os-rescue
	bin/os-rescue completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/os-rescue.fish

.PHONY: clean
clean:
	rm -rf bin test/.cache
