package bench

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"onceupon/bindings/student"
	"onceupon/trainer/fault"
	"onceupon/trainer/ppo"
	"onceupon/trainer/run"
)

// Work is a student's shape with the batches that its work is timed in.
type Work struct {
	Config         student.Config
	Stories        int // of a training batch
	Length         int // tokens of each
	Tellers        int // stories told at once
	Prompt, Tokens int // of a story that is told
	PPOStories     int // of a PPO batch
}

// Works are the students that can be timed, by name.
var Works = map[string]Work{
	"default": {student.Config{Layers: 4, Heads: 4, Width: 256, Context: 256, Vocab: 4096, LayerNormEpsilon: 1e-5}, 8, 256, 64, 20, 90, 32},
	"small":   {gpt2Small, 4, 512, 32, 20, 90, 32},
	"small64": {gpt2Small, 4, 64, 32, 20, 90, 32},
	"paper":   {gpt2Small, 32, 512, 360, 20, 90, 360}, // a card's
	"tiny":    {student.Config{Layers: 1, Heads: 2, Width: 16, Context: 32, Vocab: 64, LayerNormEpsilon: 1e-5}, 2, 32, 4, 4, 8, 4},
}

var gpt2Small = student.Config{Layers: 12, Heads: 12, Width: 768, Context: 512, Vocab: 16000, LayerNormEpsilon: 1e-5}

// MFU says what the share of the peak of a training step counts.
const MFU = "MFU = FLOP of the model / time / peak (dense). FLOP of a step: 6 x (12 L C^2 + V C) x tokens for the matrices with the tied head, " +
	"6 L C (T + 1) x tokens for causal attention; nothing that is computed again, no elementwise work"

// trainFLOPs are those of a training step by the formula of MFU: a
// multiply-add counts two, the backward twice the forward; a token attends to
// (T + 1) / 2 others on average.
func (w Work) trainFLOPs() float64 {
	l, c, t := float64(w.Config.Layers), float64(w.Config.Width), float64(w.Length)
	return float64(w.Stories) * t * (6*(12*l*c*c+float64(w.Config.Vocab)*c) + 6*l*c*(t+1))
}

// tasks of a student, each with the unit of its rate.
var tasks = []struct{ name, unit string }{{"train", "tokens/s"}, {"train_dropout", "tokens/s"}, {"generate", "tokens/s"}, {"ppo", "stories/s"}}

// Student times a student's work: a training step (forward, backward, AdamW)
// without and with dropout 0.1, the telling of stories, and a PPO batch (told,
// scored, four epochs; no teacher), with a level of student.Recomputes. With
// stages a result for every op follows.
func Student(ctx context.Context, m Machine, o Options, name, backend, variant, recompute string, stages bool, peers []Command) ([]Result, error) {
	w, ok := Works[name]
	if !ok {
		return nil, fault.New(fault.Usage, "--shape %q: the students are default, small, small64, paper and tiny", name)
	}
	b, err := newStudentBench(w, backend, variant, recompute, o.Threads)
	if err != nil {
		return nil, err
	}
	defer b.close()
	var results []Result
	for _, task := range tasks {
		if !o.takes(task.name) {
			continue
		}
		r := Result{Name: task.name, Shape: name, Backend: backend, Variant: b.variant(), RateUnit: task.unit}
		units := 0.0
		if err := r.Sample(o.Count, o.Time, func(times int64) error {
			for range times {
				if err := ctx.Err(); err != nil {
					return err
				}
				var err error
				if units, err = b.run(ctx, task.name); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return nil, err
		}
		r.finish(units)
		if strings.HasPrefix(task.name, "train") {
			r.cost(w.trainFLOPs(), 0, m) // of the peak: the model's FLOP utilization
		}
		if strings.HasPrefix(task.name, "train") && backend != "cuda" { // a card's memory is not the process's
			if r.PeakBytes, err = b.peak(); err != nil {
				return nil, err
			}
		}
		o.Say("%-14s %-8s %s: %.4g %s", task.name, name, r.Variant, r.Rate, task.unit)
		for _, p := range peers {
			run := func() (Peer, error) { return p.Run(ctx, task.name, name, o.Threads) }
			if p.Args == nil {
				run = func() (Peer, error) { return b.libllama(ctx, task.name, o) }
			}
			peer, err := run()
			if err != nil {
				return nil, err
			}
			r.peer(peer, o)
		}
		results = append(results, r)
		if stages {
			ops, err := b.stages(ctx, r, o.Count, m)
			if err != nil {
				return nil, err
			}
			results = append(results, ops...)
		}
	}
	if len(results) == 0 {
		var names []string
		for _, t := range tasks {
			names = append(names, t.name)
		}
		return nil, fault.New(fault.Usage, "bench student: --filter %s matches none of %s", o.Filter, strings.Join(names, ", "))
	}
	return results, nil
}

type studentBench struct {
	work              Work
	policy, reference *student.Model
	trainer           *ppo.Trainer
	batch             student.Batch
	step              int64
}

func newStudentBench(w Work, backend, variant, recompute string, threads int) (*studentBench, error) {
	b := &studentBench{work: w}
	isa, kernels := splitVariant(variant)
	o := student.Options{Backend: backend, ISA: isa, Kernels: kernels, Threads: threads, MaxTokens: max(w.Stories*w.Length, w.PPOStories*(w.Prompt+w.Tokens)),
		MaxStories: max(w.Stories, w.PPOStories), PPOTokens: w.PPOStories * (w.Prompt + w.Tokens), DecodeStories: max(w.Tellers, w.PPOStories),
		DecodeLength: run.DecodeLength(w.Prompt+w.Tokens, w.Config.Context),
		Train:        true, ValueHead: true, Recompute: recompute}
	var err error
	if b.policy, err = student.New(w.Config, o); err != nil {
		return nil, err
	}
	o.Train, o.ValueHead, o.DecodeStories, o.DecodeLength, o.PPOTokens = false, false, 0, 0, 0
	if b.reference, err = student.New(w.Config, o); err != nil {
		b.close()
		return nil, err
	}
	if err := initialize(b.policy); err != nil {
		b.close()
		return nil, err
	}
	if err := b.reference.CopyWeights(b.policy); err != nil {
		b.close()
		return nil, err
	}
	b.trainer = ppo.New(ppo.Settings{LR: 1e-6, Epochs: 4, Accumulation: 1, Gamma: 1, Lambda: .95, Clip: .2, ValueClip: .2, ValueCoef: .1,
		InitKL: .2, TargetKL: 6, Horizon: 10000, Adaptive: true, RatioThreshold: 10}, b.policy, b.reference)
	r := rand.New(rand.NewPCG(1, 2))
	rows := make([][]int32, w.Stories)
	for i := range rows {
		for range w.Length {
			rows[i] = append(rows[i], int32(r.IntN(w.Config.Vocab)))
		}
	}
	b.batch = student.Pack(rows)
	return b, nil
}

// variant is the ISA in use, or the variants of ops, and the level of
// recomputation where there is one.
func (b *studentBench) variant() string {
	o := b.policy.Options()
	v := cmp.Or(o.Kernels, b.policy.ISA())
	if o.Recompute != student.Recomputes[0] {
		v += ",recompute=" + o.Recompute
	}
	return v
}

// initialize draws weights as GPT-2's are drawn.
func initialize(m *student.Model) error {
	r := rand.New(rand.NewPCG(3, 4))
	for i, p := range m.Parameters() {
		next := func() float32 { return float32(r.NormFloat64() * .02) }
		if strings.HasSuffix(p.Name, "norm.weight") {
			next = func() float32 { return 1 }
		}
		if err := m.Fill(student.Weights, i, next); err != nil {
			return err
		}
	}
	return nil
}

func (b *studentBench) close() {
	for _, m := range []*student.Model{b.policy, b.reference} {
		if m != nil {
			m.Close()
		}
	}
}

// run does a task once and returns how many units of its rate that was.
func (b *studentBench) run(ctx context.Context, task string) (float64, error) {
	switch task {
	case "train":
		return b.train(0)
	case "train_dropout":
		return b.train(.1)
	case "generate":
		replies, err := b.tell(b.work.Tellers)
		return float64(len(replies) * b.work.Tokens), err
	}
	replies, err := b.tell(b.work.PPOStories)
	if err != nil {
		return 0, err
	}
	batch := ppo.Batch{}
	var rows [][]int32
	for i, r := range replies {
		rows = append(rows, append(b.prompt(), r.Tokens...))
		batch.Prompts = append(batch.Prompts, b.work.Prompt)
		batch.Scores = append(batch.Scores, float32(i%7)/7)
	}
	batch.Stories = student.Pack(rows)
	_, err = b.trainer.Step(ctx, batch, nil, nil)
	return float64(len(replies)), err
}

func (b *studentBench) train(dropout float32) (float64, error) {
	n := len(b.batch.Tokens)
	b.step++
	if err := b.policy.ZeroGradients(); err != nil {
		return 0, err
	}
	if _, _, err := b.policy.CrossEntropy(b.batch, nil, 1/float32(n), student.Dropout{Probability: dropout, Seed: 1, Step: uint64(b.step)}); err != nil {
		return 0, err
	}
	_, err := b.policy.Update(student.AdamW{LR: 1e-5, Beta1: .9, Beta2: .999, Epsilon: 1e-8, WeightDecay: .01, MaxGradNorm: 1, Step: b.step})
	return float64(n), err
}

func (b *studentBench) prompt() []int32 {
	p := make([]int32, b.work.Prompt)
	for i := range p {
		p[i] = int32(i * 7 % b.work.Config.Vocab)
	}
	return p
}

// tell tells n stories of full length: no token ends them.
func (b *studentBench) tell(n int) ([]student.Reply, error) {
	rows, ids := make([][]int32, n), make([]uint64, n)
	for i := range rows {
		rows[i], ids[i] = b.prompt(), uint64(i)
	}
	replies, err := b.policy.Generate(student.Pack(rows), ids, student.Generation{MaxNewTokens: b.work.Tokens, Temperature: 1, TopP: 1, EndToken: -1, Seed: 1})
	if err != nil {
		return nil, fmt.Errorf("generate: %w", err)
	}
	return replies, nil
}
