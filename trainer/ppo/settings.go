// Package ppo owns the PPO step: rewards, advantages, epochs of minibatches,
// the KL controller and their statistics, as TRL 0.9.4's PPOTrainer.step
// computes them. The arithmetic per token is libstudent's; docs/ppo.md lists
// the formulas and every deviation.
package ppo

import "onceupon/bindings/student"

// Settings of the PPO step. The names in brackets are TRL's PPOConfig.
type Settings struct {
	LR            float64 // Adam, betas 0.9 and 0.999, epsilon 1e-8 [learning_rate]
	Epochs        int     // [ppo_epochs]
	Minibatch     int     // stories of a minibatch, 0 = the whole batch [mini_batch_size]
	Accumulation  int     // minibatches of an optimizer step [gradient_accumulation_steps]
	Gamma, Lambda float32 // [gamma, lam]
	Clip          float32 // [cliprange]
	ValueClip     float32 // [cliprange_value]
	ValueCoef     float32 // [vf_coef]

	InitKL   float64           // first KL coefficient [init_kl_coef]
	TargetKL float64           // nats a story [target]
	Horizon  float64           // stories [horizon]
	Adaptive bool              // [adap_kl_ctrl]
	Penalty  student.KLPenalty // [kl_penalty]

	WhitenRewards  bool    // [whiten_rewards]
	RatioThreshold float64 // a minibatch with a greater mean ratio is skipped [ratio_threshold]
	MaxGradNorm    float32 // 0 = off [max_grad_norm]
	EarlyStop      float64 // stop the epochs when policy KL exceeds 1.5 times this; 0 = off [early_stopping, target_kl]

	ScoreScaling bool    // divide scores by their running deviation [use_score_scaling]
	ScoreNorm    bool    // and subtract their running mean first [use_score_norm]
	ScoreClip    float64 // then clip to +-c; 0 = off [score_clip]

	Parity Quirks
}

// Quirks of TRL 0.9.4 that are off unless its exact numbers are wanted.
type Quirks struct {
	// ClipOnce clips the gradients of the first optimizer step of a run only.
	ClipOnce bool
	// StepOnSkip lets Adam's momentum move the weights when a minibatch is
	// skipped for its ratio.
	StepOnSkip bool
	// WhitenLeak gives padding columns a reward after whitening.
	WhitenLeak bool
}

// TRL094 are the quirks all together: --parity trl-0.9.4.
var TRL094 = Quirks{ClipOnce: true, StepOnSkip: true, WhitenLeak: true}

// State is what a checkpoint keeps of a Trainer.
type State struct {
	Step  int64   `json:"step"` // optimizer steps made
	KL    float64 `json:"kl_coefficient"`
	Score Moments `json:"score_moments"`
}
