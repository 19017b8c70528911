package ppo

import "math"

// NextKL is the adaptive KL controller of Ziegler et al. 2019, section 2.2
// (TRL AdaptiveKLController.update): the coefficient after a batch of n
// stories whose mean KL, summed over a story's tokens, was kl.
func NextKL(coefficient, kl, target, horizon float64, n int) float64 {
	err := math.Max(-0.2, math.Min(0.2, kl/target-1))
	return coefficient * (1 + err*float64(n)/horizon)
}

// Moments are running mean and variance of scores (TRL RunningMoments,
// Chan et al.'s parallel update).
type Moments struct {
	Mean  float64 `json:"mean"`
	Std   float64 `json:"std"` // unbiased
	Var   float64 `json:"var"`
	Count float64 `json:"count"`
}

// NewMoments starts as TRL does: mean 0, variance 1, count 1e-24.
func NewMoments() Moments { return Moments{Std: 1, Var: 1, Count: 1e-24} }

// Update adds a batch of scores and returns its own mean and deviation.
func (m *Moments) Update(scores []float32) (mean, std float64) {
	n := float64(len(scores))
	var sum, squares float64
	for _, s := range scores {
		sum += float64(s)
	}
	mean = sum / n
	for _, s := range scores {
		squares += (float64(s) - mean) * (float64(s) - mean)
	}
	variance := squares / n
	delta, total := mean-m.Mean, m.Count+n
	combined := variance*n + m.Var*m.Count + delta*delta*m.Count*n/total
	m.Mean += delta * n / total
	m.Var = combined / total
	m.Std = math.Sqrt(m.Var * total / (total - 1))
	m.Count = total
	return mean, math.Sqrt(variance * n / (n - 1))
}

// scaled returns the scores as PPO gets them (TRL step, before the forward).
func (t *Trainer) scaled(scores []float32) []float32 {
	out := append([]float32(nil), scores...)
	if t.ScoreScaling {
		_, _ = t.State.Score.Update(scores)
		divisor := t.State.Score.Std + 1.1920928955078125e-07 // float32 epsilon, as torch.finfo
		for i := range out {
			x := float64(out[i])
			if t.ScoreNorm {
				x -= t.State.Score.Mean
			}
			out[i] = float32(x / divisor)
		}
	}
	if t.ScoreClip > 0 {
		for i := range out {
			out[i] = float32(math.Max(-t.ScoreClip, math.Min(t.ScoreClip, float64(out[i]))))
		}
	}
	return out
}
