# Thin over cargo: the two commands of the README, and what packagers ask for.

CARGO ?= cargo

.PHONY: demo test fmt loom header

# Two sites in one process, no root, no interfaces; ends by itself with a summary.
demo:
	@.ci/prerequisites.sh build
	$(CARGO) run --release --features cli --bin wye -- demo $(ARGS)

# Everything that continuous integration runs. STEPS='tests loom' picks steps by name.
test:
	@.ci/test.sh

# The C header, after a change in ffi/capi. `make test` compares it.
HEADER ?= include/wye.h
header:
	$(CARGO) run -q -p wye-capi --example header > $(HEADER).new && mv $(HEADER).new $(HEADER)

# make build, make install PREFIX= DESTDIR=, make uninstall
include ffi/capi/install.mk

fmt:
	$(CARGO) fmt --all

# The model checker alone: the longest way to find out whether sync/ is right.
loom:
	STEPS=loom .ci/test.sh
