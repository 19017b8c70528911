package ppo

import (
	"context"
	"fmt"

	"onceupon/bindings/student"
)

// update is the optimisation part of one step.
type update struct {
	t         *Trainer
	l         layout
	r         *Result
	mask      []float32
	minibatch int
	fresh     bool // the policy's activations are those of the whole batch
	observe   Observer
}

// run is interrupted before the first optimizer step or not at all: half an
// update is no student to go on from.
func (u *update) run(ctx context.Context, order func(epoch int) []int) error {
	n := u.l.Stories()
	for epoch := range u.t.Epochs {
		rows := identity(n)
		if order != nil {
			rows = order(epoch)
		}
		for first := 0; first < n; first += u.minibatch * u.t.Accumulation {
			if err := ctx.Err(); err != nil && len(u.r.Minibatches) == 0 {
				return err
			}
			if err := u.optimizerStep(rows[first : first+u.minibatch*u.t.Accumulation]); err != nil {
				return fmt.Errorf("epoch %d: %w", epoch, err)
			}
		}
		last := u.r.Minibatches[len(u.r.Minibatches)-1]
		if u.t.EarlyStop > 0 && last.PolicyKL > 1.5*u.t.EarlyStop {
			return nil
		}
	}
	return nil
}

// optimizerStep accumulates the gradients of its minibatches and makes one
// Adam step.
func (u *update) optimizerStep(rows []int) error {
	t := u.t
	if err := t.Policy.ZeroGradients(); err != nil {
		return err
	}
	skipped := 0
	for first := 0; first < len(rows); first += u.minibatch {
		stats, err := u.backward(rows[first : first+u.minibatch])
		if err != nil {
			return err
		}
		if stats.Skipped {
			skipped++
		}
		u.r.Minibatches = append(u.r.Minibatches, stats)
	}
	u.fresh = false
	if skipped == t.Accumulation && !t.Parity.StepOnSkip {
		return nil
	}
	adam := student.AdamW{LR: t.LR, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, MaxGradNorm: t.MaxGradNorm, Step: t.State.Step + 1}
	if t.Parity.ClipOnce && t.State.Step > 0 {
		adam.MaxGradNorm = 0
	}
	norm, err := t.Policy.Update(adam)
	if err != nil {
		return err
	}
	t.State.Step++
	u.r.Stats.GradNorm = norm
	return nil
}

// backward adds one minibatch's gradients, in as many parts as the model's
// room asks for.
func (u *update) backward(rows []int) (MinibatchStats, error) {
	t, parts := u.t, u.l.split(rows, u.t.Policy.Options())
	options := student.PPOOptions{
		Clip: t.Clip, ValueClip: t.ValueClip, ValueCoefficient: t.ValueCoef, Scale: 1 / float32(t.Accumulation),
	}
	for _, m := range pickRows(u.l, u.mask, rows) { // 0 in the prefix
		options.TokenCount += float64(m)
	}
	// The ratio decides over the whole minibatch, so it must be known before
	// any gradient is added: the statistics come first, without gradients.
	var sums student.PPOSums
	for _, part := range parts {
		probe := options
		probe.Scale = 0
		s, err := u.part(part, probe, true)
		if err != nil {
			return MinibatchStats{}, err
		}
		sums.Add(s)
	}
	stats := minibatchStats(sums, float64(t.ValueCoef))
	if t.RatioThreshold > 0 && stats.Ratio > t.RatioThreshold {
		stats.Skipped = true
		stats.PolicyLoss, stats.ValueLoss, stats.TotalLoss = 0, 0, 0
		return stats, nil
	}
	for _, part := range parts {
		// A minibatch of one part still has its activations.
		if _, err := u.part(part, options, len(parts) > 1); err != nil {
			return MinibatchStats{}, err
		}
	}
	return stats, nil
}

func (u *update) part(stories []int, o student.PPOOptions, forward bool) (student.PPOSums, error) {
	if forward {
		scores := u.r.Old // of the whole batch, where it is fresh
		if !u.fresh {
			var err error
			if scores, err = u.l.forward(u.t.Policy, stories, true); err != nil {
				return student.PPOSums{}, err
			}
		}
		if u.observe != nil {
			u.observe(len(u.r.Minibatches), stories, scores)
		}
	}
	pick := func(x []float32) []float32 { return pickRows(u.l, x, stories) }
	a := u.r.Advantages
	return u.t.Policy.PPOBackward(pick(u.mask), pick(a.OldLogprob), pick(a.OldValue), pick(a.Whitened), pick(a.Returns), o)
}
