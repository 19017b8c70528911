package ppo

import (
	"context"
	"fmt"
	"time"

	"onceupon/bindings/student"
	"onceupon/trainer/fault"
)

// Trainer improves Policy, which needs training and a value head; Reference
// is the frozen student that the KL penalty is measured against.
type Trainer struct {
	Settings
	State     State
	Policy    *student.Model
	Reference *student.Model
}

// New returns a Trainer at its first batch.
func New(s Settings, policy, reference *student.Model) *Trainer {
	return &Trainer{Settings: s, State: State{KL: s.InitKL, Score: NewMoments()}, Policy: policy, Reference: reference}
}

// Result is what one step leaves for the log and for verify.
type Result struct {
	Stats       Stats
	Minibatches []MinibatchStats
	// SharedPrompt is how many tokens of the prompts were computed once for all
	// stories of a call.
	SharedPrompt int
	// Scores of the policy before the update and the advantages built from them.
	Old        student.Scores
	Advantages student.Advantages
	// Seconds of the two passes before the update, and of the update.
	LogprobSeconds, UpdateSeconds float64
}

// Observer sees each minibatch's stories and the scores of the forward that
// precedes its update; nil for none.
type Observer func(minibatch int, stories []int, scores student.Scores)

// Step makes one PPO step. order gives the permutation of the stories of an
// epoch; nil keeps their order, which is what a minibatch of the whole batch
// needs: a permutation would only change the rounding of sums.
func (t *Trainer) Step(ctx context.Context, b Batch, order func(epoch int) []int, observe Observer) (Result, error) {
	n := b.Stories.Stories()
	minibatch := t.Minibatch
	if minibatch == 0 {
		minibatch = n
	}
	if n%(minibatch*t.Accumulation) != 0 {
		return Result{}, fault.New(fault.Usage, "ppo: batch of %d stories does not divide into minibatches of %d with accumulation %d", n, minibatch, t.Accumulation)
	}
	started := time.Now()
	l := layout{b.Stories, sharedPrompt(b)}
	r := Result{SharedPrompt: l.shared}
	reference, err := l.score(t.Reference, false)
	if err != nil {
		return r, fmt.Errorf("reference pass: %w", err)
	}
	// Last, so that its activations serve the first epoch: it is the old-policy
	// pass and the first update's forward at once.
	if r.Old, err = l.score(t.Policy, true); err != nil {
		return r, fmt.Errorf("policy pass: %w", err)
	}
	mask, scores := b.Mask(), t.scaled(b.Scores)
	for i, m := range mask {
		if m == 0 {
			r.Old.Value[i] = 0 // TRL: V := V * mask
		}
	}
	r.Advantages, err = t.Policy.Advantages(b.Stories, mask, scores, r.Old.Logprob, reference.Logprob, r.Old.Value, student.RewardOptions{
		KLCoefficient: float32(t.State.KL), Penalty: t.Penalty, Gamma: t.Gamma, Lambda: t.Lambda,
		WhitenRewards: t.WhitenRewards, WhitenLeak: t.Parity.WhitenLeak,
	})
	if err != nil {
		return r, err
	}
	r.LogprobSeconds = time.Since(started).Seconds()
	started = time.Now()
	u := update{t: t, l: l, r: &r, mask: mask, minibatch: minibatch, observe: observe}
	u.fresh = minibatch == n && order == nil && len(l.split(identity(n), t.Policy.Options())) == 1
	if err := u.run(ctx, order); err != nil {
		return r, err
	}
	r.Stats.average(r.Minibatches)
	t.objective(&r, b, reference, mask)
	if t.Adaptive {
		t.State.KL = NextKL(t.State.KL, r.Stats.KL, t.TargetKL, t.Horizon, n)
	}
	r.UpdateSeconds = time.Since(started).Seconds()
	return r, nil
}

func identity(n int) []int {
	x := make([]int, n)
	for i := range x {
		x[i] = i
	}
	return x
}

// objective fills the statistics of the whole batch.
func (t *Trainer) objective(r *Result, b Batch, reference student.Scores, mask []float32) {
	s, n := &r.Stats, float64(b.Stories.Stories())
	var queries, responses, scores []float64
	var tokens, penalty float64
	for i, prompt := range b.Prompts {
		first, end := int(b.Stories.Offsets[i]), int(b.Stories.Offsets[i+1])
		for c := first; c < end; c++ {
			if mask[c] == 0 {
				continue
			}
			kl := student.Estimate(t.Penalty, r.Old.Logprob[c]-reference.Logprob[c])
			tokens++
			penalty -= t.State.KL * kl
			s.KL += kl / n
			s.Entropy -= float64(r.Old.Logprob[c]) / n
		}
		queries = append(queries, float64(prompt))
		responses = append(responses, float64(end-first-prompt))
		scores = append(scores, float64(b.Scores[i]))
	}
	s.MeanNonScoreReward = penalty / tokens
	s.KLCoefficient = t.State.KL
	s.LearningRate = t.LR
	s.QueriesLenMean, s.QueriesLenStd = meanStd(queries)
	s.ResponsesLenMean, s.ResponsesLenStd = meanStd(responses)
	s.MeanScores, s.StdScores = meanStd(scores)
}
