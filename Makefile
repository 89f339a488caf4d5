# What each target does is in README.md; `make build` leaves everything under target/ and include/lanline.h.
.DELETE_ON_ERROR:
.SUFFIXES:
# Cargo's own outputs: an interrupted run must not delete them.
.PRECIOUS: target/release/liblanline.so target/release/liblanline.dylib target/program/release/lanline

CARGO   ?= cargo
CC      ?= cc
CXX     ?= c++
# The build of a dependency watches CC: a value that only some of the commands below see would have it built again each time.
export CC CXX
PREFIX  ?= /usr/local
DESTDIR ?=

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# The number in the shared library's name is the ABI's, LANLINE_ABI_VERSION: programs built against another one do not load it.
ABI     := 1
SYSTEM  := $(shell uname -s)

RELEASE  := target/release
EXAMPLES := target/examples-c
HEADER   := include/lanline.h
# What a static library made by rustc needs beside itself (`rustc --print native-static-libs`).
STATIC_LIBRARIES := -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc

ifeq ($(SYSTEM),Linux)
LIBRARY  := $(RELEASE)/liblanline.so
SONAME   := liblanline.so.$(ABI)
LINK_ARGUMENTS := -- -C link-arg=-Wl,-soname,$(SONAME)
else ifeq ($(SYSTEM),Darwin)
LIBRARY  := $(RELEASE)/liblanline.dylib
SONAME   := liblanline.$(ABI).dylib
LINK_ARGUMENTS := -- -C link-arg=-Wl,-install_name,@rpath/$(SONAME)
else
$(error this Makefile knows Linux and macOS; elsewhere use cargo and a C compiler by hand)
endif

WARNINGS    := -Wall -Wextra -Wpedantic -Werror
C_FLAGS     := -std=c99 -O2 -g $(WARNINGS) -Iinclude
CXX_FLAGS   := -std=c++17 -O2 $(WARNINGS) -Iinclude
SANITIZERS  := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
LINK_FLAGS  := -L$(RELEASE) -llanline -Wl,-rpath,'$$ORIGIN/../release'

HARNESS_SOURCES := $(addprefix examples-c/,harness.c harness_commands.c harness_session.c harness_nat.c harness_relay.c harness_events.c json.c)
HARNESS_HEADERS := $(addprefix examples-c/,harness.h harness_call.h json.h)
EXAMPLE_PROGRAMS := $(addprefix $(EXAMPLES)/,lanline-harness host join)
SANITIZED := $(addprefix $(EXAMPLES)/sanitized/,lanline-harness host join)

.PHONY: build library program examples sanitized demo test test-core test-engines bench grid soak install clean FORCE

build: library program examples

# ---- the library and the program: cargo decides what is out of date ----

library: $(LIBRARY) $(RELEASE)/$(SONAME)

# Never built together with the program: the features of the server must not get into the library that games ship.
$(LIBRARY): FORCE
	$(CARGO) rustc --release --lib $(LINK_ARGUMENTS)

$(HEADER): $(LIBRARY) ;

$(RELEASE)/$(SONAME): $(LIBRARY)
	ln -sf $(notdir $(LIBRARY)) $@

program: $(RELEASE)/lanline

# Without link-time optimization: it would be done for the library's three forms as well, which this folder only holds by the way,
# and doubles the time of a first build.
target/program/release/lanline: FORCE
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=4 $(CARGO) build --release --features program --bin lanline --target-dir target/program

$(RELEASE)/lanline: target/program/release/lanline $(LIBRARY)
	@mkdir -p $(@D)
	cp -f $< $@.new && mv -f $@.new $@

# ---- the C examples ----

examples: $(EXAMPLE_PROGRAMS)

$(EXAMPLES)/lanline-harness: $(HARNESS_SOURCES) $(HARNESS_HEADERS) $(HEADER) $(LIBRARY) $(RELEASE)/$(SONAME)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $(HARNESS_SOURCES) -o $@ $(LINK_FLAGS)

$(EXAMPLES)/host $(EXAMPLES)/join: $(EXAMPLES)/%: examples-c/%.c $(HEADER) $(LIBRARY) $(RELEASE)/$(SONAME)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $< -o $@ $(LINK_FLAGS)

sanitized: $(SANITIZED)

$(EXAMPLES)/sanitized/lanline-harness: $(HARNESS_SOURCES) $(HARNESS_HEADERS) $(HEADER) $(LIBRARY) $(RELEASE)/$(SONAME)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $(SANITIZERS) $(HARNESS_SOURCES) -o $@ -L$(RELEASE) -llanline -Wl,-rpath,'$$ORIGIN/../../release'

$(EXAMPLES)/sanitized/host $(EXAMPLES)/sanitized/join: $(EXAMPLES)/sanitized/%: examples-c/%.c $(HEADER) $(LIBRARY) $(RELEASE)/$(SONAME)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $(SANITIZERS) $< -o $@ -L$(RELEASE) -llanline -Wl,-rpath,'$$ORIGIN/../../release'

# ---- running ----

demo: build
	$(RELEASE)/lanline demo

test: test-core test-engines

test-core: build
	CARGO="$(CARGO)" CC="$(CC)" CXX="$(CXX)" scripts/test-core

test-engines: build
	scripts/test-engines

bench: build
	CARGO="$(CARGO)" CC="$(CC)" benches/run

# Seeds of each cell of the grid, without loss and with it.
SEEDS ?= 200

# In the profile of the tests: nothing else is built, and debug assertions hold.
grid:
	$(CARGO) bench --profile dev --features lab --bench grid -- $(SEEDS) --write $(CURDIR)/docs/NAT-GRID.md

soak: build
	CARGO="$(CARGO)" scripts/soak

# ---- installing ----

empty :=
space := $(empty) $(empty)
# Variables that the templates in packaging/ name.
FILL = sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@VERSION@|$(VERSION)|g' -e 's|@SONAME@|$(SONAME)|g' -e 's|@STATIC_LIBRARIES@|$(STATIC_LIBRARIES)|g' -e 's|@STATIC_LIBRARY_LIST@|$(subst $(space),;,$(STATIC_LIBRARIES))|g'
ROOT = $(DESTDIR)$(PREFIX)

install: build
	mkdir -p $(ROOT)/include $(ROOT)/lib/pkgconfig $(ROOT)/lib/cmake/lanline $(ROOT)/bin
	install -m 644 $(HEADER) $(ROOT)/include/lanline.h
	install -m 755 $(LIBRARY) $(ROOT)/lib/$(SONAME)
	ln -sf $(SONAME) $(ROOT)/lib/$(notdir $(LIBRARY))
	install -m 644 $(RELEASE)/liblanline.a $(ROOT)/lib/liblanline.a
	install -m 755 $(RELEASE)/lanline $(ROOT)/bin/lanline
	$(FILL) packaging/lanline.pc.in > $(ROOT)/lib/pkgconfig/lanline.pc
	$(FILL) packaging/lanline-config.cmake.in > $(ROOT)/lib/cmake/lanline/lanline-config.cmake
	$(FILL) packaging/lanline-config-version.cmake.in > $(ROOT)/lib/cmake/lanline/lanline-config-version.cmake

clean:
	$(CARGO) clean
