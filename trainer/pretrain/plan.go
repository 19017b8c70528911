// Package pretrain owns the reading of the corpus before the interaction:
// next-token prediction on rows of packed text, with milestones in words.
package pretrain

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/rand/v2"

	"onceupon/trainer/fault"
)

// Settings of pretraining. The recipe's values are in configs/paper.toml.
type Settings struct {
	Words        int64   // to read in all, repetitions counted
	BatchTokens  int     // tokens of one update
	LR           float64 // highest learning rate
	Beta1, Beta2 float64
	Epsilon      float64
	WeightDecay  float64
	GradClip     float32 // 0 = off
	Warmup       float64 // fraction of the updates over which the rate rises
	Schedule     string  // "linear" or "cosine" to 0, "constant"
	Dropout      float32
	Seed         uint64
	Milestones   []int64 // words after which Checkpoint is called with a name
}

// Corpus is what is read: rows of at most `context` tokens and the words each
// one adds, and rows that are only measured.
type Corpus struct {
	Rows    [][]int32
	Words   []int
	HeldOut [][]int32
}

// SHA256 is that of all rows and their words: what decides, with the settings,
// in which weights a reading ends.
func (c *Corpus) SHA256() string {
	h := sha256.New()
	var bytes []byte
	add := func(numbers ...int32) {
		bytes = binary.LittleEndian.AppendUint32(bytes[:0], uint32(len(numbers)))
		for _, n := range numbers {
			bytes = binary.LittleEndian.AppendUint32(bytes, uint32(n))
		}
		h.Write(bytes)
	}
	for i, row := range c.Rows {
		add(row...)
		add(int32(c.Words[i]))
	}
	for _, row := range c.HeldOut {
		add(row...)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// State is what a checkpoint keeps of pretraining; the position in the data
// follows from it.
type State struct {
	Step   int64 `json:"step"` // updates made
	Words  int64 `json:"words"`
	Tokens int64 `json:"tokens"`
}

// plan is the order of the rows: epochs are shuffled by (seed, epoch), and
// update k reads rows [k*batch, (k+1)*batch) of the endless sequence.
type plan struct {
	corpus *Corpus
	seed   uint64
	batch  int64 // rows of an update
	steps  int64
	epoch  int64 // of the cached order
	order  []int
}

func newPlan(c *Corpus, s Settings) (*plan, error) {
	if len(c.Rows) == 0 {
		return nil, fault.New(fault.Usage, "pretrain: the corpus has no row of text")
	}
	var words, longest int64
	for i, w := range c.Words {
		words += int64(w)
		longest = max(longest, int64(len(c.Rows[i])))
	}
	if words == 0 {
		return nil, fault.New(fault.Usage, "pretrain: the corpus has no words")
	}
	p := &plan{corpus: c, seed: s.Seed, batch: max(1, int64(s.BatchTokens)/longest), epoch: -1}
	rows := int64(math.Ceil(float64(s.Words) / float64(words) * float64(len(c.Rows))))
	p.steps = (rows + p.batch - 1) / p.batch
	return p, nil
}

// row returns row number n of the endless sequence.
func (p *plan) row(n int64) int {
	count := int64(len(p.corpus.Rows))
	if epoch := n / count; epoch != p.epoch {
		p.epoch = epoch
		p.order = rand.New(rand.NewPCG(p.seed, uint64(epoch))).Perm(len(p.corpus.Rows))
	}
	return p.order[n%count]
}

// rate is the learning rate of update step (0 for the first).
func (s Settings) rate(step, steps int64) float64 {
	warm := int64(math.Ceil(s.Warmup * float64(steps)))
	if step < warm {
		return s.LR * float64(step+1) / float64(warm)
	}
	left := float64(steps-step) / float64(max(1, steps-warm))
	switch s.Schedule {
	case "cosine":
		return s.LR * 0.5 * (1 - math.Cos(math.Pi*left))
	case "linear":
		return s.LR * left
	default:
		return s.LR
	}
}
