package bench

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"onceupon/bindings/student"
	"onceupon/trainer/fault"
)

// Options of a measurement.
type Options struct {
	Filter  *regexp.Regexp // of names; nil takes all
	Threads int
	Time    time.Duration // of a sample, at least
	Count   int           // samples of a case
	Say     func(format string, args ...any)
}

func (o Options) takes(name string) bool { return o.Filter == nil || o.Filter.MatchString(name) }

// Shapes are the batches in which ops are timed: the embedded default's
// training batch and rollout, GPT-2 small with the paper's vocabulary, and a
// tiny one for tests.
var Shapes = map[string]student.BenchShape{
	"default": {Stories: 8, Length: 256, Width: 256, Heads: 4, Vocab: 4096},
	"rollout": {Stories: 48, Length: 110, Width: 256, Heads: 4, Vocab: 4096},
	"small":   {Stories: 4, Length: 512, Width: 768, Heads: 12, Vocab: 16000},
	"tiny":    {Stories: 2, Length: 8, Width: 16, Heads: 2, Vocab: 40},
}

// ParseShape takes a name of Shapes or "stories,length,width,heads,vocab".
func ParseShape(text string) (student.BenchShape, error) {
	if s, ok := Shapes[text]; ok {
		return s, nil
	}
	var s student.BenchShape
	var rest string
	if n, _ := fmt.Sscanf(text+" .", "%d,%d,%d,%d,%d %s", &s.Stories, &s.Length, &s.Width, &s.Heads, &s.Vocab, &rest); n != 6 || rest != "." {
		return s, fault.New(fault.Usage, "--shape %q: one of default, rollout, small, tiny, or stories,length,width,heads,vocab", text)
	}
	return s, nil
}

// Ops times every op of a backend in a shape, for each variant (ISA) asked
// for.
func Ops(ctx context.Context, m Machine, o Options, shapeName, backend string, variants []string, blas *OpenBLAS) ([]Result, error) {
	shape, err := ParseShape(shapeName)
	if err != nil {
		return nil, err
	}
	names := student.BenchOps()
	if !slices.ContainsFunc(names, o.takes) {
		return nil, fault.New(fault.Usage, "bench ops: --filter %s matches none of %s", o.Filter, strings.Join(names, ", "))
	}
	var results []Result
	for i, name := range names {
		if !o.takes(name) {
			continue
		}
		for _, variant := range variants {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			r := Result{Name: name, Shape: shapeName, Backend: backend, Variant: variant}
			cost, err := r.op(i, shape, o)
			if err != nil {
				return nil, err
			}
			r.cost(cost.FLOPs, cost.Bytes, m)
			if cost.Rows > 0 && blas != nil {
				if err := blas.against(&r, cost, o); err != nil {
					return nil, err
				}
			}
			results = append(results, r)
			o.Say("%-30s %-8s %12.0f ns  %7.1f GB/s %7.1f GFLOP/s  %3.0f %% of the roofline", name, variant, r.NsPerOp, r.GBPerS, r.GFLOPPerS, 100*r.RooflineShare)
		}
	}
	return results, nil
}

// splitVariant reads a variant: an ISA, or variants of ops on the best one.
func splitVariant(variant string) (isa, kernels string) {
	if strings.Contains(variant, "=") {
		return "auto", variant
	}
	return variant, ""
}

func (r *Result) op(index int, shape student.BenchShape, o Options) (student.BenchCost, error) {
	isa, kernels := splitVariant(r.Variant)
	op, err := student.NewBenchOp(index, shape, r.Backend, isa, kernels, o.Threads)
	if err != nil {
		return student.BenchCost{}, err
	}
	defer op.Close()
	return op.Cost, r.Sample(o.Count, o.Time, func(times int64) error { op.Run(times); return nil })
}
