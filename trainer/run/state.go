// Package run owns a whole experiment in one run folder: pretraining, the
// interaction with the teacher, the choice of the best student and the report
// of its rise, resumable at any point.
package run

import (
	"onceupon/trainer/budget"
	"onceupon/trainer/judge"
	"onceupon/trainer/metrics"
	"onceupon/trainer/ppo"
	"onceupon/trainer/pretrain"
	"onceupon/trainer/runfolder"
)

// Phases of a run, in order.
const (
	phasePretrain = "pretrain"
	phaseInteract = "interact"
)

// State is everything a checkpoint keeps besides weights and moments. The
// position in the data, the seeds of stories and the order of rows follow from
// its counters.
type State struct {
	Phase    string         `json:"phase"`
	Counter  int64          `json:"counter"` // checkpoints written
	Pretrain pretrain.State `json:"pretrain"`
	// WordsUnknown says that a student was given of which Pretrain.Words is not
	// known.
	WordsUnknown bool               `json:"words_unknown,omitempty"`
	Corpus       string             `json:"corpus_sha256,omitempty"` // of what is read, tokenized and packed
	Read         Read               `json:"read"`                    // what the last update of pretraining measured
	Batch        int                `json:"batch"`                   // batches done
	Weighed      int                `json:"weighed"`                 // the last batch after which the best student was chosen
	PPO          ppo.State          `json:"ppo"`
	Budget       budget.Meter       `json:"budget"`
	Stories      int                `json:"stories"`
	Unreadable   int                `json:"unreadable"`
	KL           float64            `json:"kl"` // of the last batch
	MaxDiff      float64            `json:"max_logprob_diff"`
	Before       Readings           `json:"before"` // of the pretrained student
	Best         Best               `json:"best"`
	Seconds      metrics.Seconds    `json:"seconds"`
	Offsets      runfolder.Offsets  `json:"offsets"`
	Resumed      bool               `json:"resumed"`
	Probe        *judge.ProbeResult `json:"probe,omitempty"`
}

// Readings are a student's ratings on the held-out sets.
type Readings struct {
	Choose          float64   `json:"choose"` // mean score of the set on which the best is chosen
	ChooseDistinct2 float64   `json:"choose_distinct2"`
	Report          Evaluated `json:"report"`
}

// Evaluated is one set read by one judge.
type Evaluated struct {
	Scores   []float64  `json:"scores,omitempty"`
	Marks    [3]float64 `json:"marks"`
	Distinct [3]float64 `json:"distinct"`
	Texts    []string   `json:"texts,omitempty"`
}

// Read is how well the student reads, in nats a token.
type Read struct {
	Loss      float64 `json:"loss"`
	ValLoss   float64 `json:"val_loss"`
	TokPerSec float64 `json:"tok_per_s"`
	// Last is the event of the last update until its held-out loss, which takes a
	// while and may be interrupted, is there too.
	Last *metrics.PretrainEvent `json:"last,omitempty"`
}

// Best is the student that the run hands over.
type Best struct {
	Batch  int     `json:"batch"`  // 0: the pretrained student
	Choose float64 `json:"choose"` // its score on the set for choosing, weighed
	KL     float64 `json:"kl"`
}
