package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"onceupon/bindings/student"
	"onceupon/ggml"
	"onceupon/trainer/config"
	"onceupon/trainer/exchange"
	"onceupon/trainer/fault"
	"onceupon/trainer/judge"
	"onceupon/trainer/metrics"
	"onceupon/trainer/plan"
	"onceupon/trainer/run"
)

// LoopOptions say which loop is timed.
type LoopOptions struct {
	Config  config.Config
	Name    string // of the configuration
	Student string // GGUF to begin with; "" = pretrained on the configuration's words
	Batches int    // timed; one more runs before them
	Stages  bool   // a result for every stage of a batch
	Peers   []Command
	Report  *metrics.Reporter
	Log     *slog.Logger
	// Peak of the card that both models are on, FLOP/s; 0 where it is not known.
	Peak float64
	// Pretraining is told its tokens/s, when there was any.
	Pretraining func(tokensPerS float64)
}

// stages of a batch; overlap is rollout and judge at once, other the rest of
// its wall time: checkpoint and logs.
var stages = []string{"rollout", "judge", "overlap", "logprob", "update", "other"}

// Loop runs real batches (told, judged, learnt from) in a run folder of its own
// that is removed afterwards, and says how long a batch takes and where its
// time goes. Nothing is evaluated in between.
func Loop(ctx context.Context, o Options, l LoopOptions) ([]Result, error) {
	folder, err := os.MkdirTemp("", "onceupon-bench-loop-")
	if err != nil {
		return nil, fault.Wrap(fault.Failed, err)
	}
	defer os.RemoveAll(folder)
	c := l.Config
	c.Run.Threads = o.Threads
	c.Interact.Batches, c.Interact.BudgetWords, c.Interact.Select, c.Interact.StopKL = l.Batches+1, 0, "last", 0
	c.Evaluate.ChooseOn, c.Evaluate.ReportOn, c.Evaluate.SecondStories = 2, 2, 0
	c.Teacher.SecondJudge, c.Teacher.Probe = "", false
	c.Pretrain.Milestones = nil
	clock := &batchClock{onCard: c.Run.Backend == "cuda"}
	reporter := &metrics.Reporter{Text: l.Report.Text, Terminal: l.Report.Terminal, JSON: clock}
	if _, err := run.Run(ctx, c, run.Options{Folder: filepath.Join(folder, "run"), Reporter: reporter, Log: l.Log, Student: l.Student}); err != nil {
		return nil, err
	}
	if clock.err != nil {
		return nil, clock.err
	}
	if l.Pretraining != nil {
		l.Pretraining(clock.tokensPerS())
	}
	results := clock.results(l, variant(c))
	if clock.onCard {
		results[0].PeakBytes = clock.card
		o.Say("%.2f GiB of the card in use at most, by all programs", float64(clock.card)/(1<<30))
	}
	if l.Peak > 0 {
		teacher, err := plan.FindTeacher(c)
		if err != nil {
			return nil, err
		}
		results[0].GFLOPPerS = clock.flops(c, teacher) / results[0].NsPerOp
		results[0].RooflineShare = 1e9 * results[0].GFLOPPerS / l.Peak
		o.Say("%.1f %% of its dense bf16 peak", 100*results[0].RooflineShare)
	}
	for i := range results {
		r := &results[i]
		o.Say("%-14s %10s  %.4g %s", r.Name, time.Duration(r.NsPerOp).Round(time.Millisecond), r.Rate, strings.Replace(r.RateUnit, "%", "% of a ", 1))
	}
	if len(l.Peers) == 0 {
		return results, nil
	}
	task, err := describeLoop(ctx, c, filepath.Join(folder, "run"), l.Log)
	if err != nil {
		return nil, err
	}
	for _, p := range l.Peers {
		peer, err := p.Run(ctx, "loop", task, o.Threads)
		if err != nil {
			return nil, err
		}
		results[0].peer(peer, o)
	}
	return results, nil
}

// variant is that of a configuration's student.
func variant(c config.Config) string {
	switch {
	case c.Run.Backend == "cuda" && (c.Run.Precision == "auto" || c.Run.Precision == "bf16"):
		return "bf16"
	case c.Run.Backend == "cuda":
		return "fp32"
	case c.Run.Backend != "cpu":
		return "plain"
	case c.Run.Precision == "bf16":
		return "avx512bf16"
	case c.Run.ISA == "auto":
		return student.BestISA()
	}
	return c.Run.ISA
}

// batchClock reads a run's events as they are written and notes when each
// batch ended.
type batchClock struct {
	last   time.Time
	walls  []float64
	events []metrics.BatchEvent
	err    error

	first, read metrics.PretrainEvent // the first and the last

	onCard bool
	card   int64 // bytes of the card in use, at most, when a batch ended
}

// flops of a batch, on average: what both models must compute for the tokens
// that were told and read.
func (b *batchClock) flops(c config.Config, t plan.Teacher) float64 {
	sum := 0.0
	for _, e := range b.events {
		sum += plan.BatchFLOPs(c, t, e.ReplyTokens, e.TeacherTokPerS*(e.Seconds.Judge+e.Seconds.Overlap))
	}
	return sum / float64(len(b.events))
}

// tokensPerS is the rate of pretraining, without its first update, which warms
// caches and a card, where there is another; 0 without any.
func (b *batchClock) tokensPerS() float64 {
	if b.read.Tokens == b.first.Tokens {
		return b.read.TokPerSec
	}
	seconds := func(e metrics.PretrainEvent) float64 { return float64(e.Tokens) / e.TokPerSec }
	return float64(b.read.Tokens-b.first.Tokens) / (seconds(b.read) - seconds(b.first))
}

func (b *batchClock) Write(line []byte) (int, error) {
	if bytes.HasPrefix(line, []byte(`{"event":"pretrain"`)) {
		b.read = metrics.PretrainEvent{}
		b.err = json.Unmarshal(line, &b.read)
		if b.first.Step == 0 {
			b.first = b.read
		}
		return len(line), nil
	}
	if !bytes.HasPrefix(line, []byte(`{"event":"batch"`)) {
		return len(line), nil
	}
	var e metrics.BatchEvent
	if err := json.Unmarshal(line, &e); err != nil {
		b.err = fault.Wrap(fault.Failed, err)
	}
	if b.onCard {
		if d, err := student.CUDADevice(); err == nil {
			b.card = max(b.card, int64(d.MemoryBytes-d.FreeBytes))
		}
	}
	now := time.Now()
	if !b.last.IsZero() { // the first batch is not timed
		b.walls = append(b.walls, now.Sub(b.last).Seconds())
		b.events = append(b.events, e)
	}
	b.last = now
	return len(line), nil
}

// results are those of the batch, then those of its stages. Batches differ in
// their stories, so the samples of a loop scatter more than a kernel's.
func (b *batchClock) results(l LoopOptions, variant string) []Result {
	whole := Result{Name: "loop", Shape: l.Name, Backend: l.Config.Run.Backend, Variant: variant, Calls: 1, RateUnit: "stories/s"}
	parts := make([]Result, len(stages))
	sum := 0.0
	for i, e := range b.events {
		whole.Samples = append(whole.Samples, b.walls[i]*1e9)
		sum += b.walls[i]
		s, other := e.Seconds, b.walls[i]
		known := []float64{s.Rollout, s.Judge, s.Overlap, s.Logprob, s.Update}
		for _, s := range known {
			other -= s
		}
		for k, s := range append(known, other) {
			parts[k].Samples = append(parts[k].Samples, max(s*1e9, 1))
		}
	}
	whole.finish(float64(l.Config.Rollout.Stories))
	all := []Result{whole}
	for k, r := range parts {
		if !l.Stages {
			break
		}
		total := 0.0
		for _, s := range r.Samples {
			total += s / 1e9
		}
		if slices.Max(r.Samples) <= 1 { // no batch had it: nothing was told and rated at once
			continue
		}
		r.Name, r.Shape, r.Backend, r.Variant, r.Calls, r.RateUnit = "loop_"+stages[k], whole.Shape, whole.Backend, whole.Variant, 1, "%batch"
		r.NsPerOp, r.Rate = slices.Min(r.Samples), 100*total/sum
		all = append(all, r)
	}
	return all
}

// describeLoop writes what another program needs to run the same loop: the
// student in Hugging Face's form and loop.json, in the folder it returns.
func describeLoop(ctx context.Context, c config.Config, folder string, log *slog.Logger) (string, error) {
	f, err := ggml.Open(filepath.Join(folder, "checkpoints", "pretrained", "student.gguf"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	task := filepath.Join(folder, "peer")
	if err := exchange.WriteHF(f, task, "A student for a measurement.\n"); err != nil {
		return "", err
	}
	j, err := run.OpenTeacher(ctx, c, log)
	if err != nil {
		return "", err
	}
	defer j.Close()
	llama, err := judge.FindLlama(c.Teacher.LlamaDir, c.Teacher.Device)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]any{
		"stories": c.Rollout.Stories, "max_new_tokens": c.Rollout.MaxNewTokens, "prompt": c.Rollout.Prompt, "epochs": c.PPO.Epochs, "lr": c.PPO.LR,
		"teacher": j.Info().Path, "llama": llama, "question": j.Question(), "prompt_words": len(strings.Fields(c.Rollout.Prompt)),
	})
	if err != nil {
		return "", err
	}
	return task, os.WriteFile(filepath.Join(task, "loop.json"), text, 0o644)
}
