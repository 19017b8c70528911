// Package student is the Go face of libstudent: a GPT-2 student with ref and
// cpu backends, for pretraining, telling stories and PPO.
//
// Stories of a call are packed end to end without padding; per-token slices
// have one entry per packed token, and entry t speaks about the token that
// follows t in its story. A Model is used by one goroutine at a time.
//
// The library is static and comes from CMake: run `make native` before `go
// build`. Its stamp, libstudent_stamp.h, is written beside this file: its hash is
// a constant here, so that the go command links again when the library is new.
package student

/*
#cgo CFLAGS: -I${SRCDIR}/../../native/include
#cgo LDFLAGS: ${SRCDIR}/../../build/cpu/libstudent.a -lm -lpthread
#if !__has_include("libstudent_stamp.h")
#error "libstudent is not built: run `make native` first"
#endif
#include "libstudent_stamp.h"
#include <stdlib.h>
#include "student.h"
*/
import "C"

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"onceupon/trainer/fault"
)

// Config is the shape of a student.
type Config struct {
	Layers, Heads, Width, Context, Vocab int
	LayerNormEpsilon                     float32 // 1e-5 for GPT-2
}

// Options say what a Model is for and where it lives.
type Options struct {
	Backend       string // "ref", "cpu" or "cuda"
	ISA           string // cpu: "auto" or one of ISAs; cuda: "auto" (what Precision says), "fp32" or "bf16"
	Kernels       string // variants of ops, "op=name,..." of Kernels; "" = the defaults
	Precision     string // "" or "fp32"; "bf16": factors of multiplications are rounded to bf16, sums are fp32; "auto": bf16 on cuda
	Threads       int
	MaxTokens     int  // packed tokens of one call
	MaxStories    int  // stories of one call
	PPOTokens     int  // packed tokens of a whole PPO batch, 0 = MaxTokens
	DecodeStories int  // stories told at once; 0 cannot generate
	DecodeLength  int  // tokens of a story that is told, prompt and reply; 0 = the context
	Train         bool // gradients, Adam moments, activations
	ValueHead     bool
	Recompute     string // one of Recomputes, "" = none
}

// Recomputes are what a training step computes again in its backward instead of
// keeping it, from the fastest to the smallest: nothing that costs much; the up
// projection; all of a layer but its input; the same, with the input of every
// second layer. Results have the same bits.
var Recomputes = []string{"none", "ffn", "layer", "pair"}

// ISAs are the variants of the cpu backend, fastest first. "avx512bf16" is
// avx512 with bf16 multiplications.
var ISAs = []string{"avx512bf16", "avx512", "avx2", "portable"}

// Measure is the kernel that stands for the fastest multiplication of each
// weight; ":FILE" behind it keeps what was measured there, or takes it from there.
const Measure = "matmul=measure"

// Kernels are the variants of a backend's ops that Options.Kernels may name,
// "op=name". Those of cuda are in a library that is opened later.
func Kernels(backend string) []string {
	if backend == "cuda" {
		return []string{Measure, "matmul=mma", "matmul=wgmma", "matmul=cublaslt", "matmul=simt"}
	}
	if backend != "cpu" {
		return nil
	}
	var all []string
	for i := C.int32_t(0); C.student_kernel(i, 0) != nil; i++ {
		all = append(all, C.GoString(C.student_kernel(i, 0))+"="+C.GoString(C.student_kernel(i, 1)))
	}
	return all
}

// Precisions are the variants of the cuda backend, fastest first.
var Precisions = []string{"bf16", "fp32"}

// isa is the variant that ISA and Precision ask for together.
func (o Options) isa() (string, error) {
	if !slices.Contains([]string{"", "auto", "fp32", "bf16"}, o.Precision) {
		return "", fault.New(fault.Usage, "student: precision %q is none of auto, fp32, bf16", o.Precision)
	}
	if o.Backend == "cuda" {
		if o.ISA == "fp32" || o.ISA == "bf16" {
			return o.ISA, nil
		}
		if o.ISA != "" && o.ISA != "auto" {
			return "", fault.New(fault.Usage, "student: isa %s is of backend cpu, not of cuda", o.ISA)
		}
		return map[string]string{"": "fp32", "fp32": "fp32", "bf16": "bf16", "auto": "bf16"}[o.Precision], nil
	}
	if o.Precision == "bf16" {
		if o.Backend != "cpu" || (o.ISA != "auto" && o.ISA != "avx512bf16") {
			return "", fault.New(fault.Usage, "student: precision bf16 needs backend cpu and isa auto, not %s and %s", o.Backend, o.ISA)
		}
		return "avx512bf16", nil
	}
	return o.ISA, nil
}

// Memory is what a Model takes, in bytes.
type Memory struct {
	Weights, Gradients, Moments, Activations, Workspace, Cache uint64
}

// Total is the sum of all parts, in bytes.
func (m Memory) Total() uint64 {
	return m.Weights + m.Gradients + m.Moments + m.Activations + m.Workspace + m.Cache
}

// Array names one of the four numbers that a parameter has per weight.
type Array int

// The arrays of a parameter; all but Weights need Options.Train.
const (
	Weights Array = iota
	Gradients
	Moment1
	Moment2
)

// Parameter describes one parameter: its GGUF tensor name and its shape,
// matrices stored [Rows][Cols] = [out][in].
type Parameter struct {
	Name       string
	Rows, Cols int
	Matrix     bool
}

// Count is the number of weights.
func (p Parameter) Count() int { return p.Rows * p.Cols }

// Model is a student in memory.
type Model struct {
	config     Config
	options    Options
	handle     *C.student
	parameters []Parameter
}

const messageBytes = 512

// check turns a status of the library into an error with an exit code.
func check(what string, status C.int, message *[messageBytes]C.char) error {
	if status == C.STUDENT_OK {
		return nil
	}
	kind := map[C.int]fault.Kind{
		C.STUDENT_E_ARGUMENT:   fault.Usage,
		C.STUDENT_E_MEMORY:     fault.Capability,
		C.STUDENT_E_CAPABILITY: fault.Capability,
		C.STUDENT_E_NUMBERS:    fault.Numbers,
	}[status]
	if kind == 0 {
		kind = fault.Failed
	}
	return fault.New(kind, "student: %s: %s", what, C.GoString(&message[0]))
}

// CheckABI compares the library's version and struct sizes with those this
// package was compiled against.
func CheckABI() error {
	if got := int(C.student_abi_version()); got != C.STUDENT_ABI_VERSION {
		return fault.New(fault.Capability, "libstudent has interface version %d, this program %d: run `make native`", got, int(C.STUDENT_ABI_VERSION))
	}
	want := []uintptr{
		unsafe.Sizeof(C.student_options{}), unsafe.Sizeof(C.student_memory{}), unsafe.Sizeof(C.student_parameter{}),
		unsafe.Sizeof(C.student_batch{}), unsafe.Sizeof(C.student_dropout{}), unsafe.Sizeof(C.student_adamw_options{}),
		unsafe.Sizeof(C.student_generate_options{}), unsafe.Sizeof(C.student_reward_options{}),
		unsafe.Sizeof(C.student_ppo_options{}), unsafe.Sizeof(C.student_ppo_sums{}), unsafe.Sizeof(C.student_device{}),
	}
	sizes := make([]C.size_t, len(want))
	if n := int(C.student_struct_sizes(&sizes[0], C.int32_t(len(sizes)))); n != len(want) {
		return fault.New(fault.Capability, "libstudent describes %d structs, this program %d: run `make native`", n, len(want))
	}
	for i, size := range sizes {
		if uintptr(size) != want[i] {
			return fault.New(fault.Capability, "libstudent struct %d has %d bytes, this program expects %d: run `make native`", i, size, want[i])
		}
	}
	return nil
}

// LibrarySHA256 is the hash of the libstudent.a that this program was linked
// with.
func LibrarySHA256() string { return C.LIBSTUDENT_SHA256 }

// BestISA is the fastest instruction set of the cpu backend on this machine.
func BestISA() string { return C.GoString(C.student_best_isa()) }

func flag(b bool) C.int32_t {
	if b {
		return 1
	}
	return 0
}

// native returns the options for C; free releases its strings.
func native(c Config, o Options) (options *C.student_options, free func(), err error) {
	isa, err := o.isa()
	if err != nil {
		return nil, nil, err
	}
	recompute := slices.Index(Recomputes, cmp.Or(o.Recompute, "none"))
	if recompute < 0 {
		return nil, nil, fault.New(fault.Usage, "student: recompute %q is none of %s", o.Recompute, strings.Join(Recomputes, ", "))
	}
	options = (*C.student_options)(C.calloc(1, C.sizeof_student_options))
	*options = C.student_options{
		size: C.sizeof_student_options, layers: C.int32_t(c.Layers), heads: C.int32_t(c.Heads),
		width: C.int32_t(c.Width), context: C.int32_t(c.Context), vocabulary: C.int32_t(c.Vocab),
		layernorm_epsilon: C.float(c.LayerNormEpsilon), max_tokens: C.int32_t(o.MaxTokens),
		max_stories: C.int32_t(o.MaxStories), ppo_tokens: C.int32_t(o.PPOTokens), decode_stories: C.int32_t(o.DecodeStories), decode_length: C.int32_t(o.DecodeLength),
		train: flag(o.Train), value_head: flag(o.ValueHead), recompute: C.int32_t(recompute), threads: C.int32_t(o.Threads),
		backend: C.CString(o.Backend), isa: C.CString(isa), kernels: C.CString(o.Kernels),
	}
	return options, func() {
		C.free(unsafe.Pointer(options.backend))
		C.free(unsafe.Pointer(options.isa))
		C.free(unsafe.Pointer(options.kernels))
		C.free(unsafe.Pointer(options))
	}, nil
}

// Plan says how much memory New would take, without taking it.
func Plan(c Config, o Options) (Memory, error) {
	options, free, err := native(c, o)
	if err != nil {
		return Memory{}, err
	}
	defer free()
	var message [messageBytes]C.char
	plan := C.student_memory{size: C.sizeof_student_memory}
	if err := check("plan", C.student_plan(options, &plan, &message[0], messageBytes), &message); err != nil {
		return Memory{}, err
	}
	return Memory{
		Weights: uint64(plan.weights), Gradients: uint64(plan.gradients), Moments: uint64(plan.moments),
		Activations: uint64(plan.activations), Workspace: uint64(plan.workspace), Cache: uint64(plan.cache),
	}, nil
}

// New creates a student with all weights zero. Close it.
func New(c Config, o Options) (*Model, error) {
	if err := CheckABI(); err != nil {
		return nil, err
	}
	options, free, err := native(c, o)
	if err != nil {
		return nil, err
	}
	defer free()
	var message [messageBytes]C.char
	m := &Model{config: c, options: o}
	if err := check("create", C.student_create(options, &m.handle, &message[0], messageBytes), &message); err != nil {
		return nil, err
	}
	for i := range int(C.student_parameter_count(m.handle)) {
		info := C.student_parameter{size: C.sizeof_student_parameter}
		if err := check("parameter", C.student_parameter_info(m.handle, C.int32_t(i), &info, &message[0], messageBytes), &message); err != nil {
			m.Close()
			return nil, err
		}
		m.parameters = append(m.parameters, Parameter{C.GoString(&info.name[0]), int(info.rows), int(info.cols), info.matrix == 1})
	}
	return m, nil
}

// Available says what this machine lacks for o's backend, isa, precision or
// kernels, in a moment: it makes the smallest student.
func Available(o Options) error {
	m, err := New(Config{Layers: 1, Heads: 1, Width: 1, Context: 2, Vocab: 2}, Options{Backend: o.Backend, ISA: o.ISA, Kernels: o.Kernels, Precision: o.Precision,
		Threads: 1, MaxTokens: 1, MaxStories: 1})
	if err == nil {
		m.Close()
	}
	return err
}

// Close releases the student's memory and threads; twice is harmless.
func (m *Model) Close() {
	C.student_destroy(m.handle)
	m.handle = nil
}

// Config returns the student's shape.
func (m *Model) Config() Config { return m.config }

// Options returns what the student was created with.
func (m *Model) Options() Options { return m.options }

// ISA is the instruction set in use.
func (m *Model) ISA() string { return C.GoString(C.student_isa(m.handle)) }

// Parameters lists the parameters in the library's order.
func (m *Model) Parameters() []Parameter { return m.parameters }

var errLength = errors.New("slice has the wrong length")

func (m *Model) length(what string, got, want int) error {
	if got != want {
		return fmt.Errorf("student: %s: %w: %d, not %d", what, errLength, got, want)
	}
	return nil
}

// Read copies one array of parameter i into dst.
func (m *Model) Read(a Array, i int, dst []float32) error {
	var message [messageBytes]C.char
	status := C.student_read(m.handle, C.int32_t(a), C.int32_t(i), floats(dst), C.size_t(len(dst)), &message[0], messageBytes)
	return check("read", status, &message)
}

// Write copies src into one array of parameter i.
func (m *Model) Write(a Array, i int, src []float32) error {
	var message [messageBytes]C.char
	status := C.student_write(m.handle, C.int32_t(a), C.int32_t(i), floats(src), C.size_t(len(src)), &message[0], messageBytes)
	return check("write", status, &message)
}

// Fill writes numbers drawn from next into one array of parameter i, without
// ever holding all of them.
func (m *Model) Fill(a Array, i int, next func() float32) error {
	var message [messageBytes]C.char
	part := make([]float32, 1<<10)
	for first, count := 0, m.parameters[i].Count(); first < count; first += len(part) {
		part = part[:min(len(part), count-first)]
		for j := range part {
			part[j] = next()
		}
		status := C.student_write_part(m.handle, C.int32_t(a), C.int32_t(i), C.size_t(first), floats(part), C.size_t(len(part)), &message[0], messageBytes)
		if err := check("write", status, &message); err != nil {
			return err
		}
	}
	return nil
}

// CopyWeights copies the weights that both students have from another one of
// the same shape and backend.
func (m *Model) CopyWeights(from *Model) error {
	var message [messageBytes]C.char
	return check("copy weights", C.student_copy_weights(m.handle, from.handle, &message[0], messageBytes), &message)
}

// ZeroGradients clears the gradients before an update.
func (m *Model) ZeroGradients() error {
	var message [messageBytes]C.char
	return check("zero gradients", C.student_zero_gradients(m.handle, &message[0], messageBytes), &message)
}

func floats(x []float32) *C.float {
	return (*C.float)(unsafe.Pointer(unsafe.SliceData(x)))
}

func integers(x []int32) *C.int32_t {
	return (*C.int32_t)(unsafe.Pointer(unsafe.SliceData(x)))
}

// pin keeps the slices of a struct that is handed to C in place.
func pin[T any](p *runtime.Pinner, x []T) {
	if len(x) > 0 {
		p.Pin(unsafe.SliceData(x))
	}
}
