# Installation: header, libraries, wye.pc, command-line tool, licences. `make install PREFIX=$HOME/wye` needs no root; packagers set
# DESTDIR, and LIBDIR where theirs is a multiarch one (LIBDIR=/usr/lib/x86_64-linux-gnu).

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DOCDIR ?= $(PREFIX)/share/doc/wye
DESTDIR ?=
# CLI=no leaves the command-line tool out.
CLI ?= yes

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
# The number in the soname: raised when a program that was linked before would not run any more, whatever the version does.
ABI := 0

BUILT := $(or $(CARGO_TARGET_DIR),target)/release
LINKED := $(BUILT)/capi

.PHONY: build install uninstall

# Builds as much as `install` needs, so that `sudo make install` afterwards needs no cargo on root's path. The archive is
# made alone: beside the crate's other types it would hold bitcode instead of code that is optimised as a whole.
build:
	$(CARGO) rustc --release -p wye-capi --lib --crate-type staticlib
ifneq ($(CLI),no)
	$(CARGO) build --release -p libwye --features cli --bin wye
endif
	ffi/capi/link.sh $(BUILT)/libwye_capi.a $(LINKED) $(VERSION) $(ABI)
	$(CARGO) tree -q -p wye-capi -e normal,no-proc-macro --prefix none --no-dedupe -f '{p} {l}' \
		| sed 's/ (\/[^)]*)//; s/ ([*])//' | sort -u >$(LINKED)/DEPENDENCIES

install:
	@if command -v $(CARGO) >/dev/null; then $(MAKE) build; else test -f $(LINKED)/DEPENDENCIES || \
		{ echo "cargo is not on the path, and nothing is built yet: make build"; exit 1; }; fi
	install -d '$(DESTDIR)$(LIBDIR)/pkgconfig' '$(DESTDIR)$(INCLUDEDIR)' '$(DESTDIR)$(DOCDIR)'
	install -m 644 include/wye.h '$(DESTDIR)$(INCLUDEDIR)/wye.h'
	install -m 644 $(LINKED)/libwye.a '$(DESTDIR)$(LIBDIR)/libwye.a'
	install -m 755 $(LINKED)/libwye.so.$(VERSION) '$(DESTDIR)$(LIBDIR)/libwye.so.$(VERSION)'
	ln -sf libwye.so.$(VERSION) '$(DESTDIR)$(LIBDIR)/libwye.so.$(ABI)'
	ln -sf libwye.so.$(ABI) '$(DESTDIR)$(LIBDIR)/libwye.so'
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' -e 's|@VERSION@|$(VERSION)|' \
		ffi/capi/wye.pc.in >'$(DESTDIR)$(LIBDIR)/pkgconfig/wye.pc'
	chmod 644 '$(DESTDIR)$(LIBDIR)/pkgconfig/wye.pc'
	install -m 644 README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT $(LINKED)/DEPENDENCIES '$(DESTDIR)$(DOCDIR)'
ifneq ($(CLI),no)
	install -d '$(DESTDIR)$(BINDIR)'
	install -m 755 $(BUILT)/wye '$(DESTDIR)$(BINDIR)/wye'
endif

uninstall:
	rm -f '$(DESTDIR)$(INCLUDEDIR)/wye.h' '$(DESTDIR)$(LIBDIR)/libwye.a' '$(DESTDIR)$(LIBDIR)/pkgconfig/wye.pc' '$(DESTDIR)$(BINDIR)/wye'
	rm -f '$(DESTDIR)$(LIBDIR)/libwye.so' '$(DESTDIR)$(LIBDIR)/libwye.so.$(ABI)' '$(DESTDIR)$(LIBDIR)/libwye.so.$(VERSION)'
	rm -rf '$(DESTDIR)$(DOCDIR)'
