# Targets of onceupon. Everything the build needs beyond Go, a C compiler,
# cmake, python3 with pip and npm is fetched by its own package client from
# pins (third_party/). `make run` and `make test` need no preparation.

SHELL := /bin/bash
BUILD := build/cpu
# A bare --parallel starts every compiler at once.
JOBS := $(shell nproc)
# What the benches print. Go's own stamp is off where GOFLAGS or a user's
# settings have -buildvcs=false.
REVISION := $(shell git describe --always --abbrev=12 --dirty=+dirty 2>/dev/null)
STAMP := bindings/student/libstudent_stamp.h
VENV := build/venv
# PyTorch and transformers are gigabytes: outside the tree, where scripts/peers looks too.
PEERS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/onceupon/peers/torch

.PHONY: teacher-cuda build run test native fetch lint clean cuda bench cuda-resources gpu-binaries test-emulation check-tools check-test-tools test-native test-go recorded test-peers test-peers-if-cached fuzz instructions peers

build: native fetch
	go build $(if $(REVISION),-ldflags '-X onceupon/trainer/bench.revision=$(REVISION)') -o bin/onceupon ./cmd/onceupon

run: build
	bin/onceupon run

# One line for each system tool that is missing.
check-tools:
	@for tool in go cc cmake python3 npm sha256sum; do \
	  command -v $$tool >/dev/null || { echo "make: $$tool is missing (README, first lines: what is needed)" >&2; exit 3; }; done

check-test-tools: check-tools
	@command -v valgrind >/dev/null || { echo "make: valgrind is missing (make instructions counts with it)" >&2; exit 3; }
	@python3 -c 'import venv, ensurepip' 2>/dev/null || { echo "make: python3-venv is missing" >&2; exit 3; }

native: check-tools $(STAMP)

$(BUILD)/CMakeCache.txt: CMakeLists.txt
	cmake -S . -B $(BUILD) -DCMAKE_BUILD_TYPE=Release -DONCEUPON_CUDA=OFF

# The stamp holds the library's hash as a constant of the Go package: the go
# command does not look into static libraries, and links again only when the
# code of a package has changed.
$(STAMP): $(BUILD)/CMakeCache.txt $(shell find native -name '*.[ch]')
	cmake --build $(BUILD) --parallel $(JOBS)
	@echo "#define LIBSTUDENT_SHA256 \"$$(sha256sum < $(BUILD)/libstudent.a | cut -c1-64)\"" > $@

fetch: check-tools
	scripts/fetch-teacher

# libllama for a teacher on an NVIDIA card: ROUTE=cuda13, cuda12 (packages) or
# source (CMake, nvcc); without one the driver is asked which suits.
ROUTE := auto
teacher-cuda: build
	scripts/fetch-teacher-cuda $(ROUTE)

# The cuda backend, beside the program. nvcc is the system's when it is 13.0 or
# later, else that of pinned wheels. CUDA_ARCHITECTURES=90a-real builds for one
# card only (without the a: no wgmma).
cuda: check-tools
	cmake -S . -B build/cuda -DCMAKE_BUILD_TYPE=Release -DONCEUPON_CUDA=ON -DCMAKE_CUDA_COMPILER=$$(scripts/fetch-cuda)/bin/nvcc \
	  $(if $(CUDA_ARCHITECTURES),-DCMAKE_CUDA_ARCHITECTURES="$(CUDA_ARCHITECTURES)")
	cmake --build build/cuda --parallel $(JOBS) --target student_cuda
	mkdir -p bin && cp build/cuda/libstudent_cuda.so bin/

# What scripts/gpu-check runs, in bin/, to be carried to a box with a card.
gpu-binaries: build cuda
	cp $(BUILD)/test_ops $(BUILD)/test_ppo $(BUILD)/test_matmul $(BUILD)/test_run bin/

# Registers, shared memory and spills of every kernel.
cuda-resources: cuda
	scripts/cuda-resources build/cuda/libstudent_cuda.so > build/cuda/resources.md
	@cat build/cuda/resources.md

# Python tools of the tests: Hugging Face's tokenizers as the judge of ours, and
# clang-format. Pinned with hashes.
$(VENV)/stamp: third_party/python-test.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	touch $@

lint: native $(VENV)/stamp
	@unformatted=$$(gofmt -l bindings cmd ggml trainer); [ -z "$$unformatted" ] || { echo "gofmt: $$unformatted"; exit 1; }
	$(VENV)/bin/clang-format --dry-run --Werror $$(find native -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp')
	go vet ./...
	go tool staticcheck ./...

ASAN := -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSTUDENT_SANITIZE=ON -DONCEUPON_CUDA=OFF -DONCEUPON_EMULATION=ON
TSAN := -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSTUDENT_TSAN=ON -DONCEUPON_CUDA=OFF -DONCEUPON_EMULATION=ON
NATIVE_TESTS := test_ops test_ppo test_gradients test_run
EMULATED := ^emulation$$$$|^cuda_

# The native tests under AddressSanitizer and UndefinedBehaviorSanitizer, and
# the thread pool under ThreadSanitizer, which cannot see into OpenBLAS.
OPENBLAS = $(abspath $(wildcard $(VENV)/lib/python*/site-packages/scipy_openblas32/lib/libscipy_openblas.so))
test-native: check-tools $(VENV)/stamp
	cmake -S . -B build/asan $(ASAN)
	cmake --build build/asan --parallel $(JOBS) --target $(NATIVE_TESTS)
	ONCEUPON_OPENBLAS=$(OPENBLAS) ctest --test-dir build/asan --output-on-failure --exclude-regex '$(EMULATED)'
	cmake -S . -B build/tsan $(TSAN)
	cmake --build build/tsan --parallel $(JOBS) --target $(NATIVE_TESTS)
	ONCEUPON_OPENBLAS=none ctest --test-dir build/tsan --output-on-failure --exclude-regex '$(EMULATED)'

# The kernels of the cuda backend on the CPU: the test of the emulator, the op
# matrix and TRL's vectors in every order of threads, plain and under the
# sanitizers; the benches of scripts/gpu-check; recorded traces and a small run
# through the program, likewise, a part of them under ThreadSanitizer. The program is built without: it takes the
# runtime of the sanitizer from LD_PRELOAD, which the library with the kernels asks for.
# ThreadSanitizer hands a signal on when a call ends, off the stack that Go wants
# it on: so Go must not preempt by signals there.
runtime = $(shell cc -print-file-name=lib$(1).so)
EMULATED_GO = ONCEUPON_CUDA_EMULATED=$(CURDIR)/build/$(1)/native/emulation/libstudent_cuda_emulated.so \
  go test -count 1 -p 1 $(2) ./trainer/trace ./cmd/onceupon
test-emulation: build recorded
	cmake -S . -B build/emulation -DCMAKE_BUILD_TYPE=Release -DONCEUPON_CUDA=OFF -DONCEUPON_EMULATION=ON
	for kind in emulation asan tsan; do \
	  case $$kind in asan) cmake -S . -B build/asan $(ASAN);; tsan) cmake -S . -B build/tsan $(TSAN);; esac && \
	  cmake --build build/$$kind --parallel $(JOBS) --target $(NATIVE_TESTS) test_emulation test_matmul student_cuda_emulated && \
	  ctest --test-dir build/$$kind --parallel 2 --output-on-failure --tests-regex '$(EMULATED)' || exit 1; done
	ONCEUPON_CUDA_EMULATED=build/emulation/native/emulation/libstudent_cuda_emulated.so scripts/gpu-check --minutes 60 --out build/emulation \
	  --only bench-decode,bench-ops,bench-ops-cublaslt,bench-ops-wgmma,bench-ppo
	$(call EMULATED_GO,emulation,-run 'Emulated|TestScripts/cuda')
	ONCEUPON_CUDA_EMULATED=$(CURDIR)/build/emulation/native/emulation/libstudent_cuda_emulated.so go test -count 1 -run SecondCardEmulated ./bindings/student
	$(call EMULATED_GO,asan,-exec 'env ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD=$(call runtime,asan):$(call runtime,ubsan)' \
	  -run 'Emulated|TestScripts/cuda')
	$(call EMULATED_GO,tsan,-exec 'env GODEBUG=asyncpreemptoff=1 TSAN_OPTIONS=ignore_noninstrumented_modules=1 LD_PRELOAD=$(call runtime,tsan)' \
	  -run 'TRLsEmulated/^equal$$')

# Go skips what it has no data for, and does not say so.
recorded:
	@[ -d ../shared/data ] || echo "make: ../shared/data is absent: the tests against recorded traces, real text and the paper's ratings are skipped" >&2

# One package and one script at a time: libllama's threads spin while they
# wait, so two teachers at once take ten times as long as one after the other.
test-go: build $(VENV)/stamp recorded
	ONCEUPON_PYTHON=$(CURDIR)/$(VENV)/bin/python go test -p 1 -parallel 1 ./...
	go test -race ./bindings/student ./trainer/ppo ./trainer/pretrain ./trainer/tokenizer ./trainer/metrics ./trainer/corpus ./trainer/trace ./trainer/run ./ggml

# Instruction counts of the kernels against those recorded (bench/results).
instructions: native
	scripts/instructions

# Ops, training step, telling and PPO of this machine beside its roofline;
# `onceupon bench --help` has the rest.
bench: build
	bin/onceupon bench ops --markdown
	bin/onceupon bench student --markdown

# The peers of `onceupon bench`, into the user's cache.
peers:
	scripts/peers/setup

test: check-test-tools lint test-native test-emulation cuda-resources instructions test-go

# Against PyTorch and transformers: the ids of 1 MB of text, the logits of
# folders that go out and come in, traces of other sizes.
test-peers: build $(PEERS)/stamp
	ONCEUPON_PEERS_PYTHON=$(PEERS)/bin/python go test -count 1 -p 1 -v -run 'Transformers|PyTorch' ./trainer/exchange ./trainer/trace

test-peers-if-cached: check-test-tools
	@if [ -e $(PEERS)/stamp ]; then $(MAKE) test-peers; else \
	  echo "make: test-peers did not run: PyTorch and transformers are not in $(PEERS); make test-peers fetches them" >&2; fi

$(PEERS)/stamp: third_party/python-peers.txt
	ONCEUPON_PEERS=$(dir $(PEERS)) scripts/peers/setup torch

# Every fuzz target, one after the other; what they find goes to testdata/fuzz
# and is part of `go test` from then on. Inputs that are only new are hardly made
# smaller: with Go's default that takes all the time of the targets whose seeds
# are long.
FUZZTIME ?= 60s
fuzz: native
	@set -e; for package in $$(grep -rl "^func Fuzz" --include="*_test.go" . | xargs -n 1 dirname | sort -u); do \
	  for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz'); do \
	    echo "fuzz: $$package $$target, $(FUZZTIME)"; \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$package; done; done

clean:
	rm -rf build bin $(STAMP)
