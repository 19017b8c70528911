package pretrain

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"onceupon/bindings/student"
)

// Initialize draws GPT-2's start: N(0, 0.02) for matrices, the projections
// into the residual stream divided by sqrt(2 * layers), norms 1, biases 0
// (Radford et al. 2019, section 2.3; transformers GPT2PreTrainedModel).
func Initialize(m *student.Model, seed uint64) error {
	for i, p := range m.Parameters() {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		std, constant := 0.02, float32(0)
		switch {
		case p.Name == "value_head.weight" || p.Name == "value_head.bias":
			continue // drawn when the interaction begins
		case hasSuffix(p.Name, "attn_output.weight"), hasSuffix(p.Name, "ffn_down.weight"):
			std /= math.Sqrt(2 * float64(m.Config().Layers))
		case hasSuffix(p.Name, "norm.weight"):
			constant = 1
		}
		next := func() float32 { return constant }
		if p.Matrix {
			next = func() float32 { return float32(r.NormFloat64() * std) }
		}
		if err := m.Fill(student.Weights, i, next); err != nil {
			return err
		}
	}
	return nil
}

func hasSuffix(s, suffix string) bool {
	return len(s) >= len(suffix) && s[len(s)-len(suffix):] == suffix
}

// Progress is reported after every update.
type Progress struct {
	State
	Steps      int64 // planned
	TotalWords int64
	Loss       float64 // mean over the update's targets, nats
	LR         float64
	GradNorm   float64
	Seconds    float64 // of this update
}

// Hooks are called between updates; nil ones are left out.
type Hooks struct {
	Progress func(Progress) error
	// Milestone is called when the words read pass one of Settings.Milestones.
	Milestone func(words int64, s State) error
	// Pause is asked after every update whether a checkpoint is due.
	Pause func(s State) error
}

// Run reads the corpus from state on and returns the state it ends in. After
// an error the returned state is that of the last complete update.
func Run(ctx context.Context, m *student.Model, c *Corpus, s Settings, state State, h Hooks) (State, error) {
	p, err := newPlan(c, s)
	if err != nil {
		return state, err
	}
	for state.Step < p.steps {
		if err := ctx.Err(); err != nil {
			return state, err
		}
		started := time.Now()
		var rows [][]int32
		words, tokens := int64(0), int64(0)
		for k := range p.batch {
			i := p.row(state.Step*p.batch + k)
			rows = append(rows, c.Rows[i])
			words += int64(c.Words[i])
			tokens += int64(len(c.Rows[i]))
		}
		lr := s.rate(state.Step, p.steps)
		loss, norm, err := update(m, rows, s, lr, state.Step)
		if err != nil {
			return state, fmt.Errorf("pretrain: update %d: %w", state.Step+1, err)
		}
		before := state.Words
		state.Step++
		state.Words += words
		state.Tokens += tokens
		if h.Progress != nil {
			if err := h.Progress(Progress{state, p.steps, s.Words, loss, lr, norm, time.Since(started).Seconds()}); err != nil {
				return state, err
			}
		}
		for _, milestone := range s.Milestones {
			if h.Milestone != nil && before < milestone && milestone <= state.Words {
				if err := h.Milestone(milestone, state); err != nil {
					return state, err
				}
			}
		}
		if h.Pause != nil {
			if err := h.Pause(state); err != nil {
				return state, err
			}
		}
	}
	return state, nil
}

// update makes one optimizer step on rows, in as many parts as fit.
func update(m *student.Model, rows [][]int32, s Settings, lr float64, step int64) (loss, norm float64, err error) {
	if err := m.ZeroGradients(); err != nil {
		return 0, 0, err
	}
	targets := 0
	for _, r := range rows {
		targets += len(r) - 1
	}
	parts := split(rows, m.Options())
	var sum float64
	for part, r := range parts {
		drop := student.Dropout{Probability: s.Dropout, Seed: s.Seed, Step: uint64(step)*uint64(len(parts)) + uint64(part)}
		l, _, err := m.CrossEntropy(student.Pack(r), nil, 1/float32(targets), drop)
		if err != nil {
			return 0, 0, err
		}
		sum += l
	}
	norm, err = m.Update(student.AdamW{
		LR: lr, Beta1: s.Beta1, Beta2: s.Beta2, Epsilon: s.Epsilon, WeightDecay: s.WeightDecay, MaxGradNorm: s.GradClip, Step: step + 1,
	})
	return sum / float64(targets), norm, err
}

func split(rows [][]int32, o student.Options) [][][]int32 {
	var parts [][][]int32
	tokens, first := 0, 0
	for i, r := range rows {
		if i > first && (tokens+len(r) > o.MaxTokens || i-first == o.MaxStories) {
			parts = append(parts, rows[first:i])
			tokens, first = 0, i
		}
		tokens += len(r)
	}
	return append(parts, rows[first:])
}

// Loss is the mean of -log p over all targets of rows, in nats.
func Loss(ctx context.Context, m *student.Model, rows [][]int32) (float64, error) {
	var sum float64
	targets := 0
	for _, part := range split(rows, m.Options()) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		b := student.Pack(part)
		s := student.Scores{Logprob: make([]float32, len(b.Tokens))}
		if err := m.Forward(b, nil, s); err != nil {
			return 0, err
		}
		for _, l := range s.Logprob {
			sum -= float64(l)
		}
		targets += len(b.Tokens) - len(part)
	}
	return sum / float64(targets), nil
}
