package llama

import (
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"

	"onceupon/trainer/fault"
)

// Bytes that the default_params functions of v0.5.0 write: the struct sizes,
// less the model struct's tail padding.
const (
	modelParamsWritten   = 78
	contextParamsWritten = 160
)

// checkABI compares the library's structs with this package's: their sizes on
// amd64, measured by letting the library fill a canary buffer, and some default
// values, which catch fields that changed places.
func (l *Library) checkABI(handle uintptr) error {
	if runtime.GOARCH == "amd64" {
		for name, want := range map[string]int{
			"llama_model_default_params": modelParamsWritten, "llama_context_default_params": contextParamsWritten,
		} {
			var fill func(out unsafe.Pointer) uintptr
			purego.RegisterLibFunc(&fill, handle, name)
			if got := written(fill); got != want {
				return fault.New(fault.Capability, "libllama: %s fills %d bytes, not %d: its structs are not those of llama.cpp v0.5.0", name, got, want)
			}
		}
	}
	c, m := l.contextDefaults(), l.modelDefaults()
	for _, field := range []struct {
		name      string
		got, want int64
	}{
		{"context n_batch", int64(c.batch), 2048}, {"context n_ubatch", int64(c.microBatch), 512},
		{"context n_ctx", int64(c.context), 512}, {"context type_k", int64(c.typeK), 1}, {"context type_v", int64(c.typeV), 1},
		{"context n_seq_max", int64(c.sequences), 1}, {"model main_gpu", int64(m.mainGPU), 0},
	} {
		if field.got != field.want {
			return fault.New(fault.Capability, "libllama: default of %s is %d, not %d: its structs are not those of llama.cpp v0.5.0", field.name, field.got, field.want)
		}
	}
	return nil
}

// written counts the bytes that fill sets through the hidden result pointer,
// which the amd64 calling convention passes as a first argument. Two patterns,
// since a byte may happen to equal one of them.
func written(fill func(unsafe.Pointer) uintptr) int {
	end := 0
	for _, pattern := range []byte{0xA5, 0x5A} {
		buffer := make([]byte, 512)
		for i := range buffer {
			buffer[i] = pattern
		}
		fill(unsafe.Pointer(&buffer[0]))
		for i, b := range buffer {
			if b != pattern {
				end = max(end, i+1)
			}
		}
	}
	return end
}
