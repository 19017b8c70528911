package ppo

import (
	"math"

	"onceupon/bindings/student"
)

// MinibatchStats are TRL's train_stats of one minibatch.
type MinibatchStats struct {
	PolicyLoss     float64 `json:"loss/policy"`
	ValueLoss      float64 `json:"loss/value"`
	TotalLoss      float64 `json:"loss/total"`
	Entropy        float64 `json:"policy/entropy"`
	ApproxKL       float64 `json:"policy/approxkl"`
	PolicyKL       float64 `json:"policy/policykl"`
	ClipFrac       float64 `json:"policy/clipfrac"`
	AdvantagesMean float64 `json:"policy/advantages_mean"`
	ReturnsMean    float64 `json:"returns/mean"`
	ReturnsVar     float64 `json:"returns/var"`
	ValuePred      float64 `json:"val/vpred"`
	ValueError     float64 `json:"val/error"`
	ValueClipFrac  float64 `json:"val/clipfrac"`
	ValueMean      float64 `json:"val/mean"`
	ValueVar       float64 `json:"val/var"`
	// Ratio is the masked mean ratio; Skipped says that it passed the threshold.
	Ratio   float64 `json:"ratio"`
	Skipped bool    `json:"skipped"`
}

func minibatchStats(s student.PPOSums, valueCoef float64) MinibatchStats {
	n := s.Tokens
	unbiased := func(sum, squares float64) float64 { return (squares - sum*sum/n) / (n - 1) }
	m := MinibatchStats{
		PolicyLoss: s.PolicyLoss / n, ValueLoss: s.ValueLoss / n, Entropy: s.Entropy / n, ApproxKL: s.ApproxKL / n,
		PolicyKL: s.PolicyKL / n, ClipFrac: s.PolicyClipped / n, AdvantagesMean: s.Advantage / n, ReturnsMean: s.Return / n,
		ReturnsVar: unbiased(s.Return, s.ReturnSquared), ValuePred: s.Value / n, ValueError: s.ValueError / n,
		ValueClipFrac: s.ValueClipped / n, ValueMean: s.OldValue / n, ValueVar: unbiased(s.OldValue, s.OldValueSquared),
		Ratio: s.Ratio / n,
	}
	m.TotalLoss = m.PolicyLoss + valueCoef*m.ValueLoss
	return m
}

// Stats are TRL's statistics of one step under their own names (record_step_stats).
type Stats struct {
	KL                 float64 `json:"objective/kl"` // nats a story
	KLCoefficient      float64 `json:"objective/kl_coef"`
	Entropy            float64 `json:"objective/entropy"` // nats a story
	MeanNonScoreReward float64 `json:"ppo/mean_non_score_reward"`
	MeanScores         float64 `json:"ppo/mean_scores"`
	StdScores          float64 `json:"ppo/std_scores"`
	QueriesLenMean     float64 `json:"tokens/queries_len_mean"`
	QueriesLenStd      float64 `json:"tokens/queries_len_std"`
	ResponsesLenMean   float64 `json:"tokens/responses_len_mean"`
	ResponsesLenStd    float64 `json:"tokens/responses_len_std"`
	PolicyLoss         float64 `json:"ppo/loss/policy"`
	ValueLoss          float64 `json:"ppo/loss/value"`
	TotalLoss          float64 `json:"ppo/loss/total"`
	PolicyEntropy      float64 `json:"ppo/policy/entropy"`
	ApproxKL           float64 `json:"ppo/policy/approxkl"`
	PolicyKL           float64 `json:"ppo/policy/policykl"`
	ClipFrac           float64 `json:"ppo/policy/clipfrac"`
	AdvantagesMean     float64 `json:"ppo/policy/advantages_mean"`
	ReturnsMean        float64 `json:"ppo/returns/mean"`
	ReturnsVar         float64 `json:"ppo/returns/var"`
	ValuePred          float64 `json:"ppo/val/vpred"`
	ValueError         float64 `json:"ppo/val/error"`
	ValueClipFrac      float64 `json:"ppo/val/clipfrac"`
	ValueMean          float64 `json:"ppo/val/mean"`
	ValueVar           float64 `json:"ppo/val/var"`
	VarExplained       float64 `json:"ppo/val/var_explained"`
	LearningRate       float64 `json:"ppo/learning_rate"`
	// Of our own:
	GradNorm float64 `json:"grad_norm"` // of the last optimizer step, before clipping
	Skipped  int     `json:"skipped"`   // minibatches over the ratio threshold
}

// meanStd returns mean and unbiased deviation; 0 for fewer than two numbers.
func meanStd(x []float64) (mean, std float64) {
	for _, v := range x {
		mean += v / float64(len(x))
	}
	if len(x) < 2 {
		return mean, 0
	}
	for _, v := range x {
		std += (v - mean) * (v - mean) / float64(len(x)-1)
	}
	return mean, math.Sqrt(std)
}

// average fills the statistics that are plain means over minibatches.
func (s *Stats) average(all []MinibatchStats) {
	n := float64(len(all))
	for _, m := range all {
		s.PolicyLoss += m.PolicyLoss / n
		s.ValueLoss += m.ValueLoss / n
		s.TotalLoss += m.TotalLoss / n
		s.PolicyEntropy += m.Entropy / n
		s.ApproxKL += m.ApproxKL / n
		s.PolicyKL += m.PolicyKL / n
		s.ClipFrac += m.ClipFrac / n
		s.AdvantagesMean += m.AdvantagesMean / n
		s.ReturnsMean += m.ReturnsMean / n
		s.ReturnsVar += m.ReturnsVar / n
		s.ValuePred += m.ValuePred / n
		s.ValueError += m.ValueError / n
		s.ValueClipFrac += m.ValueClipFrac / n
		s.ValueMean += m.ValueMean / n
		s.ValueVar += m.ValueVar / n
		if m.Skipped {
			s.Skipped++
		}
	}
	s.VarExplained = 1 - s.ValueError/s.ReturnsVar
}
