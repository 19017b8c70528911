// Package metrics owns what a run says about itself: events for the log, for
// standard output and for TensorBoard, progress lines, and the statistics of
// ratings and texts.
package metrics

import "onceupon/trainer/ppo"

// PretrainEvent is one update of pretraining, or several that are logged
// together.
type PretrainEvent struct {
	Event     string  `json:"event"` // "pretrain"
	Step      int64   `json:"step"`
	Steps     int64   `json:"steps"`
	Words     int64   `json:"words"`
	Tokens    int64   `json:"tokens"`
	Loss      float64 `json:"loss"`               // nats a token
	ValLoss   float64 `json:"val_loss,omitempty"` // of held-out documents
	LR        float64 `json:"lr"`
	GradNorm  float64 `json:"grad_norm"`
	TokPerSec float64 `json:"tok_per_s"`
}

// Seconds are the times of the stages of a batch or a run. They exclude each
// other, so that their sum is the time on the clock: rollout and judge are what
// each spent without the other, overlap what they spent at once.
type Seconds struct {
	Pretrain float64 `json:"pretrain,omitempty"`
	Rollout  float64 `json:"rollout"`
	Judge    float64 `json:"judge"`
	Overlap  float64 `json:"overlap"`
	Logprob  float64 `json:"logprob"`
	Update   float64 `json:"update"`
	Other    float64 `json:"other"` // checkpoints, evaluation, logs, idle
}

// Add adds the stages of another interval.
func (s *Seconds) Add(o Seconds) {
	s.Pretrain += o.Pretrain
	s.Rollout += o.Rollout
	s.Judge += o.Judge
	s.Overlap += o.Overlap
	s.Logprob += o.Logprob
	s.Update += o.Update
	s.Other += o.Other
}

// BatchEvent is one batch of the interaction.
type BatchEvent struct {
	Event          string     `json:"event"` // "batch"
	Batch          int        `json:"batch"`
	Stories        int        `json:"stories"`
	Unreadable     int        `json:"unreadable"`
	MissingMarks   int        `json:"missing_marks"` // made up under teacher.missing_marks = "paper"
	BudgetWords    int        `json:"budget_words"`
	Marks          [3]float64 `json:"marks"`      // mean per criterion, 0..3
	MarksCI        [3]float64 `json:"marks_ci95"` // half widths
	Score          float64    `json:"score"`      // mean of the sums, 0..9
	ScoreCI        float64    `json:"score_ci95"` // half width
	RatingEntropy  float64    `json:"rating_entropy"`
	Reward         float64    `json:"reward"`
	ReplyTokens    float64    `json:"reply_tokens"`
	ReplyWords     float64    `json:"reply_words"`
	Distinct       [3]float64 `json:"distinct"` // distinct-1, -2, -3 of the replies
	MaxLogprobDiff float64    `json:"max_logprob_diff"`
	SharedPrompt   int        `json:"shared_prompt_tokens"` // of every prompt: computed once for all stories of a call
	PPO            ppo.Stats  `json:"ppo"`
	Seconds        Seconds    `json:"seconds"`
	RolloutTokPerS float64    `json:"rollout_tok_per_s"`
	UpdateTokPerS  float64    `json:"update_tok_per_s"`
	TeacherTokPerS float64    `json:"teacher_tok_per_s"`
	StoriesPerSec  float64    `json:"stories_per_s"`
}

// EvaluationEvent is one reading of a fixed set of held-out seeds.
type EvaluationEvent struct {
	Event    string     `json:"event"` // "evaluation"
	Batch    int        `json:"batch"`
	Set      string     `json:"set"`   // choose, before, after
	Judge    string     `json:"judge"` // teacher, second
	N        int        `json:"n"`
	Marks    [3]float64 `json:"marks"`
	Score    float64    `json:"score"`
	ScoreCI  float64    `json:"score_ci95"`
	Distinct [3]float64 `json:"distinct"`
	Words    float64    `json:"reply_words"`
}

// SecondJudge is the rise under the judge that never taught.
type SecondJudge struct {
	Before float64    `json:"before"`
	After  float64    `json:"after"`
	Rise   float64    `json:"rise"`
	RiseCI [2]float64 `json:"rise_ci95"`
}

// PretrainResult is the last line of pretrain.
type PretrainResult struct {
	Event         string  `json:"event"` // "result"
	Command       string  `json:"command"`
	Run           string  `json:"run"`
	Seed          uint64  `json:"seed"`
	Words         int64   `json:"words"`
	Tokens        int64   `json:"tokens"`
	Loss          float64 `json:"loss"`     // of the last update, nats a token
	ValLoss       float64 `json:"val_loss"` // of the held-out documents
	TokPerSec     float64 `json:"tok_per_s"`
	WeightsSHA256 string  `json:"weights_sha256"`
	Resumed       bool    `json:"resumed"`
}

// ResultEvent is the last line of run and interact.
type ResultEvent struct {
	Event           string       `json:"event"` // "result"
	Command         string       `json:"command"`
	Run             string       `json:"run"`
	Seed            uint64       `json:"seed"`
	PretrainWords   *int64       `json:"pretrain_words"` // null where it is not known of the student that was given
	BudgetWords     int          `json:"budget_words"`
	Batches         int          `json:"batches"`
	ChosenBatch     int          `json:"chosen_batch"`
	Stories         int          `json:"stories"`
	Unreadable      int          `json:"unreadable"`
	ScoreBefore     float64      `json:"score_before"`
	ScoreAfter      float64      `json:"score_after"`
	Rise            float64      `json:"rise"`
	RiseCI          [2]float64   `json:"rise_ci95"`
	HeldOut         int          `json:"held_out_stories"`  // of the scores before and after
	ScoreBeforeCI   float64      `json:"score_before_ci95"` // half width
	ScoreAfterCI    float64      `json:"score_after_ci95"`
	MarksBefore     [3]float64   `json:"marks_before"`
	MarksAfter      [3]float64   `json:"marks_after"`
	SecondJudge     *SecondJudge `json:"second_judge,omitempty"`
	Distinct2Before float64      `json:"distinct2_before"`
	Distinct2After  float64      `json:"distinct2_after"`
	KL              float64      `json:"kl"`
	MaxLogprobDiff  float64      `json:"max_logprob_diff"`
	WeightsSHA256   string       `json:"weights_sha256"`
	Seconds         Seconds      `json:"seconds"`
	Resumed         bool         `json:"resumed"`
}
