package student

/*
#include "bench.h"
#include <stdlib.h>
*/
import "C"

import (
	"math"
	"unsafe"

	"onceupon/trainer/fault"
)

// BenchShape is the shape of a batch in which single ops are timed.
type BenchShape struct{ Stories, Length, Width, Heads, Vocab int }

// BenchCost is what one call of an op must do: the multiplications and
// additions of its formula, and its arrays read or written once.
type BenchCost struct {
	FLOPs, Bytes      float64
	Rows, Cols, Depth int // of a multiplication, else 0
}

// BenchOps are the names of the ops that can be timed.
func BenchOps() []string {
	var names []string
	for i := range int(C.student_bench_ops()) {
		names = append(names, C.GoString(C.student_bench_op(C.int32_t(i))))
	}
	return names
}

// BenchOp is one op with its arrays in a backend's memory.
type BenchOp struct {
	Cost   BenchCost
	handle *C.student_bench
}

// NewBenchOp makes the op of that index in BenchOps; Close it.
func NewBenchOp(op int, s BenchShape, backend, isa, kernels string, threads int) (*BenchOp, error) {
	for _, n := range []int{s.Stories, s.Length, s.Width, s.Heads, s.Vocab, threads} {
		if n < 1 || n > math.MaxInt32 {
			return nil, fault.New(fault.Usage, "bench: shape %+v with %d threads: every number must be in 1..2^31-1", s, threads)
		}
	}
	shape := C.student_bench_shape{size: C.sizeof_student_bench_shape, stories: C.int32_t(s.Stories), length: C.int32_t(s.Length),
		width: C.int32_t(s.Width), heads: C.int32_t(s.Heads), vocabulary: C.int32_t(s.Vocab)}
	cost := C.student_bench_cost{size: C.sizeof_student_bench_cost}
	b, i, k := C.CString(backend), C.CString(isa), C.CString(kernels)
	defer C.free(unsafe.Pointer(b))
	defer C.free(unsafe.Pointer(i))
	defer C.free(unsafe.Pointer(k))
	var message [messageBytes]C.char
	o := &BenchOp{}
	status := C.student_bench_create(C.int32_t(op), &shape, b, i, k, C.int32_t(threads), &o.handle, &cost, &message[0], messageBytes)
	if err := check("bench", status, &message); err != nil {
		return nil, err
	}
	o.Cost = BenchCost{float64(cost.flops), float64(cost.bytes), int(cost.rows), int(cost.cols), int(cost.depth)}
	return o, nil
}

// Run calls the op so many times.
func (o *BenchOp) Run(times int64) { C.student_bench_run(o.handle, C.int64_t(times)) }

// Close releases the arrays.
func (o *BenchOp) Close() { C.student_bench_destroy(o.handle) }

// Roofline measures, in about so many seconds, the multiply-add peak of an ISA
// in FLOP/s, in fp32 and with bf16 factors (0 where it has none), and the rate
// at which memory is read in B/s.
func Roofline(isa string, threads int, seconds float64) (flops, bf16, bytes float64, err error) {
	name := C.CString(isa)
	defer C.free(unsafe.Pointer(name))
	var message [messageBytes]C.char
	var f, h, b C.double
	status := C.student_bench_roofline(name, C.int32_t(threads), C.double(seconds), &f, &h, &b, &message[0], messageBytes)
	return float64(f), float64(h), float64(b), check("roofline", status, &message)
}

// ProfiledOp is what an op took of a student's calls. The name of a
// multiplication has its columns in and out: matmul_forward_256x1024.
type ProfiledOp struct {
	Name           string
	Calls          int64
	Seconds, FLOPs float64 // of all calls
}

// Profile times the ops of a Model until it is closed, before the Model.
type Profile struct{ handle *C.student_profile }

// Profile begins to time the ops of m; backends ref and cpu.
func (m *Model) Profile() (*Profile, error) {
	var message [messageBytes]C.char
	p := &Profile{}
	return p, check("profile", C.student_profile_start(m.handle, &p.handle, &message[0], messageBytes), &message)
}

// Ops are the ops so far, in the order of their first calls.
func (p *Profile) Ops() []ProfiledOp {
	var ops []ProfiledOp
	op := C.student_profiled_op{size: C.sizeof_student_profiled_op}
	for i := C.int32_t(0); C.student_profile_read(p.handle, i, &op) != 0; i++ {
		ops = append(ops, ProfiledOp{C.GoString(&op.name[0]), int64(op.calls), float64(op.seconds), float64(op.flops)})
	}
	return ops
}

// Close ends the profile.
func (p *Profile) Close() { C.student_profile_stop(p.handle) }
