// Package llama is the Go face of libllama, opened at run time without cgo of
// its own (purego): the teacher's model, its vocabulary and its decoding.
//
// The struct layouts are those of llama.cpp v0.5.0. Open refuses a library
// whose hash, symbols, struct sizes or default values are not as pinned, since
// a drifted layout would corrupt memory silently.
package llama

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"

	"onceupon/trainer/fault"
)

// Options of Open.
type Options struct {
	// AnyHash accepts libraries that are not the pinned files (a build of the
	// user's own); the layout checks still apply.
	AnyHash bool
	// Device is where the models are to be: "" or "cpu", "cuda", "cuda:N". A card
	// that is not there is fault.Capability.
	Device string
	// Log receives libllama's messages; nil drops those below a warning.
	Log *slog.Logger
}

// Library is libllama, opened and checked.
type Library struct {
	functions
	dir string
}

// libllama keeps global state, so a process opens it once; a second Open of
// the same folder returns the first one's handle.
var opened struct {
	sync.Mutex
	library *Library
}

// Open opens libllama from a folder. A missing library, function or another
// layout is fault.Capability.
func Open(dir string, o Options) (*Library, error) {
	opened.Lock()
	defer opened.Unlock()
	if o.Device == "" {
		o.Device = "cpu"
	}
	card, _, err := ParseDevice(o.Device)
	if err != nil {
		return nil, err
	}
	if l := opened.library; l != nil {
		if l.dir == dir {
			return l, l.requireCard(o.Device)
		}
		return nil, fault.New(fault.Capability, "libllama is already open from %s: one folder a process", l.dir)
	}
	l := &Library{dir: dir}
	if card {
		if err := openCUDA(dir); err != nil {
			return nil, err
		}
		if err := checkPin(filepath.Join(dir, "libggml-cuda.so"), o.AnyHash); err != nil {
			return nil, err
		}
	}
	handles, err := openLibraries(dir, o.AnyHash)
	if err != nil {
		return nil, err
	}
	inLlama, inGGML := l.names()
	for handle, table := range map[uintptr]map[string]any{handles[2]: inLlama, handles[1]: inGGML} {
		for name, target := range table {
			if _, err := purego.Dlsym(handle, name); err != nil {
				return nil, fault.New(fault.Capability, "%s: function %s is missing: this is not llama.cpp v0.5.0, run `make fetch` or give another --llama-dir", dir, name)
			}
			purego.RegisterLibFunc(target, handle, name)
		}
	}
	if err := l.checkABI(handles[2]); err != nil {
		return nil, err
	}
	l.logSet(purego.NewCallback(logger(o.Log)), 0)
	l.loadBackends(dir)
	if l.deviceCount() == 0 {
		return nil, fault.New(fault.Capability, "%s: no ggml backend for this processor: the libggml-cpu files are missing, run `make fetch`", dir)
	}
	l.backendInit()
	// libllama cannot be opened a second time, so it is kept also when the card
	// is missing.
	opened.library = l
	return l, l.requireCard(o.Device)
}

func openLibraries(dir string, anyHash bool) (handles [3]uintptr, err error) {
	for i, names := range libraries {
		path := filepath.Join(dir, names[0])
		for _, name := range names {
			if _, statErr := os.Stat(filepath.Join(dir, name)); statErr == nil {
				path = filepath.Join(dir, name)
				break
			}
		}
		if err := checkPin(path, anyHash); err != nil {
			return handles, err
		}
		if handles[i], err = purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL); err != nil {
			return handles, fault.New(fault.Capability, "%s: cannot be opened: %w", path, err)
		}
	}
	return handles, nil
}

// checkPin compares a library with the files that were checked.
func checkPin(path string, anyHash bool) error {
	sum, err := hash(path)
	if errors.Is(err, os.ErrNotExist) {
		command := "make fetch"
		if strings.Contains(filepath.Base(path), "cuda") {
			command = "make teacher-cuda"
		}
		return fault.New(fault.Capability, "%s: no such library: run `%s` or give --llama-dir", path, command)
	}
	if err != nil {
		return fault.New(fault.Capability, "%s: %w: run `make fetch` or give --llama-dir", path, err)
	}
	if pinned := pins[filepath.Base(path)]; !anyHash && !slices.Contains(pinned, sum) && sum != vouched(path) {
		return fault.New(fault.Capability, "%s: sha256 %.12s is none of those pinned: run `make fetch`, or give --llama-dir for a build of your own", path, sum)
	}
	return nil
}

func hash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Version is what libllama calls itself.
func (l *Library) Version() string { return l.version() }

// SystemInfo lists the processor features that ggml uses.
func (l *Library) SystemInfo() string { return strings.TrimSpace(l.systemInfo()) }

// address is that of the first element.
func address(list []uintptr) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(list))) }

// logger turns ggml's log levels (2 info, 3 warning, 4 error, 5 continued) into
// slog records.
func logger(log *slog.Logger) func(level int32, text *byte, data uintptr) {
	last := int32(0)
	return func(level int32, text *byte, _ uintptr) {
		if level != 5 {
			last = level
		}
		line := strings.TrimSpace(goString(text))
		if log == nil || line == "" || last < 3 {
			return
		}
		severity := slog.LevelWarn
		if last == 4 {
			severity = slog.LevelError
		}
		log.Log(context.Background(), severity, line, "from", "libllama")
	}
}

func goString(p *byte) string {
	if p == nil {
		return ""
	}
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(p), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(p, n))
}
