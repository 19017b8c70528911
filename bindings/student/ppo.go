package student

/*
#include "student.h"
*/
import "C"

import "runtime"

// KLPenalty is the estimate of the KL penalty per token (TRL kl_penalty).
type KLPenalty int

// The penalties that need no full distribution.
const (
	KL  KLPenalty = iota // log p - log p_ref
	Abs                  // its absolute value
	MSE                  // half its square
)

// RewardOptions are the settings of rewards and advantages.
type RewardOptions struct {
	KLCoefficient float32
	Penalty       KLPenalty
	Gamma, Lambda float32
	WhitenRewards bool
	// WhitenLeak keeps TRL 0.9.4's quirk: after whitening, the columns that pad
	// a story to the longest one have a reward, which leaks into its last token.
	WhitenLeak bool
}

// Advantages are the per-token results of Model.Advantages, packed; 0 where
// the mask is 0.
type Advantages struct {
	Rewards    []float32 // KL penalty, plus the score at the last reply token
	Raw        []float32 // GAE before whitening
	Whitened   []float32
	Returns    []float32 // Raw + values
	Reference  []float32 // as given
	OldLogprob []float32 // as given
	OldValue   []float32 // as given
	Mask       []float32 // as given
}

// Advantages computes rewards, GAE and whitening over a whole batch, as TRL's
// compute_rewards and compute_advantages. mask is 1 at the columns of the
// reply; scores has one entry per story.
func (m *Model) Advantages(b Batch, mask, scores, logprob, reference, values []float32, o RewardOptions) (Advantages, error) {
	n := len(b.Tokens)
	for _, x := range []struct {
		what string
		x    []float32
		n    int
	}{{"mask", mask, n}, {"scores", scores, b.Stories()}, {"logprob", logprob, n}, {"reference", reference, n}, {"values", values, n}} {
		if err := m.length(x.what, len(x.x), x.n); err != nil {
			return Advantages{}, err
		}
	}
	a := Advantages{
		Rewards: make([]float32, n), Raw: make([]float32, n), Whitened: make([]float32, n), Returns: make([]float32, n),
		Reference: reference, OldLogprob: logprob, OldValue: values, Mask: mask,
	}
	options := C.student_reward_options{
		size: C.sizeof_student_reward_options, kl_coefficient: C.float(o.KLCoefficient), kl_penalty: C.int32_t(o.Penalty),
		gamma: C.float(o.Gamma), lambda: C.float(o.Lambda), whiten_rewards: flag(o.WhitenRewards), whiten_rewards_leak: flag(o.WhitenLeak),
	}
	var p runtime.Pinner
	defer p.Unpin()
	batch := b.native(&p)
	var message [messageBytes]C.char
	status := C.student_advantages(m.handle, &batch, floats(mask), floats(scores), floats(logprob), floats(reference), floats(values),
		&options, floats(a.Rewards), floats(a.Raw), floats(a.Whitened), floats(a.Returns), &message[0], messageBytes)
	return a, check("advantages", status, &message)
}

// PPOOptions are the settings of the loss of one minibatch.
type PPOOptions struct {
	Clip, ValueClip, ValueCoefficient float32
	TokenCount                        float64 // masked tokens of the minibatch
	Scale                             float32 // 1 / accumulation steps; 0: statistics only
}

// PPOSums are sums over masked tokens; divided by Tokens they are TRL's masked
// means.
type PPOSums struct {
	Tokens                             float64
	PolicyLoss, ValueLoss              float64 // ValueLoss holds TRL's factor 0.5
	PolicyClipped, ValueClipped        float64
	Ratio, Entropy, ApproxKL, PolicyKL float64
	Advantage, Return, ReturnSquared   float64
	Value, ValueError                  float64 // of the new values
	OldValue, OldValueSquared          float64
}

// Add adds the sums of another part of the same minibatch.
func (s *PPOSums) Add(o PPOSums) {
	s.Tokens += o.Tokens
	s.PolicyLoss += o.PolicyLoss
	s.ValueLoss += o.ValueLoss
	s.PolicyClipped += o.PolicyClipped
	s.ValueClipped += o.ValueClipped
	s.Ratio += o.Ratio
	s.Entropy += o.Entropy
	s.ApproxKL += o.ApproxKL
	s.PolicyKL += o.PolicyKL
	s.Advantage += o.Advantage
	s.Return += o.Return
	s.ReturnSquared += o.ReturnSquared
	s.Value += o.Value
	s.OldValue += o.OldValue
	s.OldValueSquared += o.OldValueSquared
	s.ValueError += o.ValueError
}

// PPOBackward computes loss and gradients (TRL PPOTrainer.loss) for the batch
// of the last Forward, whose packed arrays are given, and adds them to the
// gradients.
func (m *Model) PPOBackward(mask, oldLogprob, oldValue, advantages, returns []float32, o PPOOptions) (PPOSums, error) {
	n := len(mask)
	for what, x := range map[string][]float32{"old logprob": oldLogprob, "old value": oldValue, "advantages": advantages, "returns": returns} {
		if err := m.length(what, len(x), n); err != nil {
			return PPOSums{}, err
		}
	}
	options := C.student_ppo_options{
		size: C.sizeof_student_ppo_options, clip: C.float(o.Clip), value_clip: C.float(o.ValueClip),
		value_coefficient: C.float(o.ValueCoefficient), token_count: C.double(o.TokenCount), scale: C.float(o.Scale),
	}
	s := C.student_ppo_sums{size: C.sizeof_student_ppo_sums}
	var message [messageBytes]C.char
	status := C.student_ppo_backward(m.handle, floats(mask), floats(oldLogprob), floats(oldValue), floats(advantages), floats(returns),
		&options, &s, &message[0], messageBytes)
	return PPOSums{
		Tokens: float64(s.tokens), PolicyLoss: float64(s.policy_loss), ValueLoss: float64(s.value_loss),
		PolicyClipped: float64(s.policy_clipped), ValueClipped: float64(s.value_clipped), Ratio: float64(s.ratio),
		Entropy: float64(s.entropy), ApproxKL: float64(s.approx_kl), PolicyKL: float64(s.policy_kl),
		Advantage: float64(s.advantage), Return: float64(s.return_), ReturnSquared: float64(s.return_squared),
		Value: float64(s.value), OldValue: float64(s.old_value), OldValueSquared: float64(s.old_value_squared), ValueError: float64(s.value_error),
	}, check("ppo backward", status, &message)
}

// Estimate is the KL of one token from d = log p - log p_ref (TRL
// _kl_penalty), for statistics.
func Estimate(p KLPenalty, d float32) float64 {
	switch x := float64(d); p {
	case Abs:
		return max(x, -x)
	case MSE:
		return x * x / 2
	default:
		return x
	}
}
