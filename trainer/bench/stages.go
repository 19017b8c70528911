package bench

import (
	"context"
	"slices"
	"time"

	"onceupon/bindings/student"
)

// stages does a task `times` times more and says where its time goes: a result
// for every op of both models, the longest first, and one for what lies between
// the ops. Its time is that of all calls in one task, its rate the share of the
// whole.
func (b *studentBench) stages(ctx context.Context, whole Result, times int, m Machine) ([]Result, error) {
	var profiles []*student.Profile
	for _, model := range []*student.Model{b.policy, b.reference} {
		p, err := model.Profile()
		if err != nil {
			return nil, err
		}
		defer p.Close()
		profiles = append(profiles, p)
	}
	start := time.Now()
	for range times {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if _, err := b.run(ctx, whole.Name); err != nil {
			return nil, err
		}
	}
	seconds := time.Since(start).Seconds()
	between := student.ProfiledOp{Name: "between_ops", Calls: int64(times), Seconds: seconds}
	var ops []student.ProfiledOp
	for _, p := range profiles {
		for _, op := range p.Ops() {
			between.Seconds -= op.Seconds
			if i := slices.IndexFunc(ops, func(o student.ProfiledOp) bool { return o.Name == op.Name }); i < 0 {
				ops = append(ops, op)
			} else {
				ops[i].Calls, ops[i].Seconds, ops[i].FLOPs = ops[i].Calls+op.Calls, ops[i].Seconds+op.Seconds, ops[i].FLOPs+op.FLOPs
			}
		}
	}
	ops = append(ops, between)
	slices.SortStableFunc(ops, func(a, b student.ProfiledOp) int { return int(1e9 * (b.Seconds - a.Seconds)) })
	var results []Result
	for _, op := range ops {
		ns := op.Seconds * 1e9 / float64(times)
		r := Result{Name: whole.Name + "_" + op.Name, Shape: whole.Shape, Backend: whole.Backend, Variant: whole.Variant, Samples: []float64{ns}, NsPerOp: ns,
			Calls: op.Calls / int64(times), Rate: 100 * op.Seconds / seconds, RateUnit: "%" + whole.Name}
		if op.FLOPs > 0 {
			r.cost(op.FLOPs/float64(times), 0, m)
		}
		results = append(results, r)
	}
	return results, nil
}
