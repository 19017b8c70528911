# Targets of onceupon. Everything the build needs beyond Go, a C compiler,
# cmake, python3 with pip and npm is fetched by its own package client from
# pins (third_party/). `make run` and `make test` need no preparation.

SHELL := /bin/bash
BUILD := build/cpu
STAMP := bindings/student/libstudent_stamp.h

.PHONY: build run test native clean

build: native
	go build -o bin/onceupon ./cmd/onceupon

native: $(STAMP)

$(BUILD)/CMakeCache.txt: CMakeLists.txt
	cmake -S . -B $(BUILD) -DCMAKE_BUILD_TYPE=Release

# The stamp holds the library's hash: the go command does not look into static
# libraries, but it does rebuild when a header of the package changes.
$(STAMP): $(BUILD)/CMakeCache.txt $(shell find native -name '*.[ch]')
	cmake --build $(BUILD)
	@echo "/* sha256 $$(sha256sum < $(BUILD)/libstudent.a | cut -c1-64) */" > $@
