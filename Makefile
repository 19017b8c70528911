# Targets of onceupon. Everything the build needs beyond Go, a C compiler,
# cmake, python3 with pip and npm is fetched by its own package client from
# pins (third_party/). `make run` and `make test` need no preparation.

SHELL := /bin/bash
BUILD := build/cpu
STAMP := bindings/student/libstudent_stamp.h
VENV := build/venv

.PHONY: build run test native fetch lint clean check-tools check-test-tools test-native test-go fuzz

build: native fetch
	go build -o bin/onceupon ./cmd/onceupon

run: build
	bin/onceupon run

# One line for each system tool that is missing.
check-tools:
	@for tool in go cc cmake python3 npm sha256sum; do \
	  command -v $$tool >/dev/null || { echo "make: $$tool is missing (README, first lines: what is needed)" >&2; exit 3; }; done

check-test-tools: check-tools
	@python3 -c 'import venv, ensurepip' 2>/dev/null || { echo "make: python3-venv is missing" >&2; exit 3; }

native: check-tools $(STAMP)

$(BUILD)/CMakeCache.txt: CMakeLists.txt
	cmake -S . -B $(BUILD) -DCMAKE_BUILD_TYPE=Release

# The stamp holds the library's hash: the go command does not look into static
# libraries, but it does rebuild when a header of the package changes.
$(STAMP): $(BUILD)/CMakeCache.txt $(shell find native -name '*.[ch]')
	cmake --build $(BUILD) --parallel
	@echo "/* sha256 $$(sha256sum < $(BUILD)/libstudent.a | cut -c1-64) */" > $@

fetch: check-tools
	scripts/fetch-teacher

# Python tools of the tests: Hugging Face's tokenizers as the judge of ours, and
# clang-format. Pinned with hashes.
$(VENV)/stamp: third_party/python-test.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	touch $@

lint: native $(VENV)/stamp
	@unformatted=$$(gofmt -l bindings cmd ggml trainer); [ -z "$$unformatted" ] || { echo "gofmt: $$unformatted"; exit 1; }
	$(VENV)/bin/clang-format --dry-run --Werror $$(find native -name '*.[ch]')
	go vet ./...
	go tool staticcheck ./...

# The native tests under AddressSanitizer and UndefinedBehaviorSanitizer, and
# the thread pool under ThreadSanitizer.
test-native: check-tools
	cmake -S . -B build/asan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSTUDENT_SANITIZE=ON
	cmake --build build/asan --parallel
	ctest --test-dir build/asan --output-on-failure
	cmake -S . -B build/tsan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSTUDENT_TSAN=ON
	cmake --build build/tsan --parallel
	ctest --test-dir build/tsan --output-on-failure

# One package and one script at a time: libllama's threads spin while they
# wait, so two teachers at once take ten times as long as one after the other.
test-go: build $(VENV)/stamp
	@[ -d ../shared/data ] || echo "make: ../shared/data is absent: the tests against recorded traces, real text and the paper's ratings are skipped" >&2
	ONCEUPON_PYTHON=$(CURDIR)/$(VENV)/bin/python go test -p 1 -parallel 1 ./...
	go test -race ./bindings/student ./trainer/ppo ./trainer/pretrain ./trainer/tokenizer ./trainer/metrics ./trainer/corpus ./trainer/trace ./ggml

test: check-test-tools lint test-native test-go

fuzz: native
	go test -fuzz FuzzOpen -fuzztime 60s ./ggml

clean:
	rm -rf build bin $(STAMP)
