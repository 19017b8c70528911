package config

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"onceupon/bindings/student"
	"onceupon/trainer/fault"
)

// Check returns a fault.Usage that names the first field out of range.
func (c Config) Check() error {
	for _, r := range c.rules() {
		if !r.ok {
			return fault.New(fault.Usage, "config: %s = %v must be %s", r.key, r.value, r.must)
		}
	}
	return nil
}

var device = regexp.MustCompile(`^(cpu|cuda(:[0-9]{1,2})?)$`)

type rule struct {
	key   string
	value any
	ok    bool
	must  string
}

func within(key string, x, low, high float64) rule {
	return rule{key, x, x >= low && x <= high, fmt.Sprintf("in %g..%g", low, high)}
}

func picked(key string, p Pick, low, high Pick) rule {
	return rule{key, p, p == Auto || p == Measure || p >= low && p <= high, fmt.Sprintf("auto, measure or in %d..%d", low, high)}
}

func atLeast(key string, x, low float64) rule {
	return rule{key, x, x >= low && !math.IsInf(x, 0) && !math.IsNaN(x), fmt.Sprintf("at least %g", low)}
}

func oneOf(key, x string, allowed ...string) rule {
	return rule{key, fmt.Sprintf("%q", x), slices.Contains(allowed, x), fmt.Sprintf("one of %q", allowed)}
}

func kernels(r Run) bool {
	if r.Kernels == "" {
		return true
	}
	for name := range strings.SplitSeq(r.Kernels, ",") {
		if !slices.Contains(student.Kernels(r.Backend), name) {
			return false
		}
	}
	return true
}

func (c Config) rules() []rule {
	s, p, o := c.Student, c.Pretrain, c.PPO
	minibatch := o.Minibatch
	if minibatch == 0 {
		minibatch = c.Rollout.Stories
	}
	return []rule{
		within("student.layers", float64(s.Layers), 1, 512),
		within("student.heads", float64(s.Heads), 1, 512),
		within("student.width", float64(s.Width), 8, 65536),
		{"student.width", s.Width, s.Heads > 0 && s.Width%s.Heads == 0, fmt.Sprintf("a multiple of student.heads = %d", s.Heads)},
		within("student.context", float64(s.Context), 16, 65536),
		within("student.vocab", float64(s.Vocab), 262, 1<<24),
		within("student.layernorm_epsilon", s.LayerNormEpsilon, 1e-12, 1e-2),
		atLeast("corpus.words", float64(c.Corpus.Words), 1000),
		within("corpus.held_out", c.Corpus.HeldOut, 0.0001, 0.5),
		atLeast("corpus.min_frequency", float64(c.Corpus.MinFrequency), 1),
		atLeast("pretrain.words", float64(p.Words), 0),
		{"pretrain.batch_tokens", p.BatchTokens, p.BatchTokens >= s.Context, fmt.Sprintf("at least student.context = %d", s.Context)},
		within("pretrain.lr", p.LR, 1e-9, 1),
		within("pretrain.beta1", p.Beta1, 0, 0.99999),
		within("pretrain.beta2", p.Beta2, 0, 0.9999999),
		within("pretrain.epsilon", p.Epsilon, 1e-16, 1e-2),
		within("pretrain.weight_decay", p.WeightDecay, 0, 10),
		atLeast("pretrain.grad_clip", p.GradClip, 0),
		within("pretrain.warmup", p.Warmup, 0, 1),
		oneOf("pretrain.schedule", p.Schedule, "linear", "cosine", "constant"),
		{"pretrain.milestones", p.Milestones, len(p.Milestones) == 0 || slices.Min(p.Milestones) > 0, "numbers of words, each above 0"},
		within("pretrain.dropout", p.Dropout, 0, 0.9),
		{"rollout.prompt", fmt.Sprintf("%q", c.Rollout.Prompt), c.Rollout.Prompt != "", "a text"},
		within("rollout.stories", float64(c.Rollout.Stories), 2, 1<<16),
		within("rollout.max_new_tokens", float64(c.Rollout.MaxNewTokens), 1, float64(s.Context-1)),
		within("rollout.temperature", c.Rollout.Temperature, 0.01, 10),
		atLeast("rollout.top_k", float64(c.Rollout.TopK), 0),
		within("rollout.top_p", c.Rollout.TopP, 0.001, 1),
		{"teacher.model", c.Teacher.Model, c.Teacher.Model != "", "a name or a path"},
		{"teacher.device", fmt.Sprintf("%q", c.Teacher.Device), device.MatchString(c.Teacher.Device), "cpu, cuda or cuda:N"},
		oneOf("teacher.reading", c.Teacher.Reading, "expected", "sampled"),
		within("teacher.temperature", c.Teacher.Temperature, 0, 10),
		picked("teacher.wave", c.Teacher.Wave, 1, 255),
		picked("teacher.micro_batch", c.Teacher.MicroBatch, 32, 16384),
		within("teacher.max_unreadable", c.Teacher.MaxUnreadable, 0, 1),
		oneOf("teacher.missing_marks", c.Teacher.MissingMarks, "refuse", "paper"),
		within("teacher.probe_stories", float64(c.Teacher.ProbeStories), 2, 1000),
		{"teacher.weights", c.Teacher.Weights, slices.Min(c.Teacher.Weights[:]) >= 0 && slices.Max(c.Teacher.Weights[:]) > 0, "none negative, one above 0"},
		within("reward.length_bonus", c.Reward.LengthBonus, 0, 100),
		atLeast("reward.length_divisor", c.Reward.LengthDivisor, 1),
		within("ppo.lr", o.LR, 1e-9, 1),
		within("ppo.epochs", float64(o.Epochs), 1, 1000),
		{"ppo.minibatch", o.Minibatch, o.Accumulation > 0 && minibatch > 0 && minibatch <= c.Rollout.Stories/o.Accumulation && c.Rollout.Stories%(minibatch*o.Accumulation) == 0, fmt.Sprintf("such that minibatch * accumulation divides rollout.stories = %d", c.Rollout.Stories)},
		within("ppo.gamma", o.Gamma, 0, 1),
		within("ppo.lambda", o.Lambda, 0, 1),
		within("ppo.clip", o.Clip, 1e-6, 10),
		within("ppo.value_clip", o.ValueClip, 1e-6, 1e6),
		within("ppo.value_coef", o.ValueCoef, 0, 1e3),
		oneOf("ppo.value_init", o.ValueInit, "zero", "linear"),
		within("ppo.init_kl", o.InitKL, 0, 1e3),
		within("ppo.target_kl", o.TargetKL, 1e-6, 1e6),
		within("ppo.horizon", o.Horizon, 1, 1e12),
		oneOf("ppo.kl_penalty", o.KLPenalty, "kl", "abs", "mse"),
		within("ppo.ratio_threshold", o.RatioThreshold, 0, 1e9),
		atLeast("ppo.max_grad_norm", o.MaxGradNorm, 0),
		atLeast("ppo.early_stop", o.EarlyStop, 0),
		atLeast("ppo.score_clip", o.ScoreClip, 0),
		oneOf("ppo.parity", o.Parity, "", "trl-0.9.4"),
		atLeast("interact.budget_words", float64(c.Interact.BudgetWords), 0),
		atLeast("interact.batches", float64(c.Interact.Batches), 0),
		{"interact.batches", c.Interact.Batches, c.Interact.Batches > 0 || c.Interact.BudgetWords > 0, "above 0 when interact.budget_words is 0"},
		within("interact.checkpoint_every", float64(c.Interact.CheckpointEvery), 1, 1e9),
		within("interact.max_kl", c.Interact.MaxKL, 0, 1e9),
		within("interact.min_distinct2", c.Interact.MinDistinct2, 0, 1),
		atLeast("interact.stop_kl", c.Interact.StopKL, 0),
		oneOf("interact.select", c.Interact.Select, "best", "last"),
		oneOf("interact.overlap", c.Interact.Overlap, "auto", "on", "off"),
		within("evaluate.every", float64(c.Evaluate.Every), 1, 1e9),
		within("evaluate.choose_on", float64(c.Evaluate.ChooseOn), 2, 1e6),
		within("evaluate.report_on", float64(c.Evaluate.ReportOn), 2, 1e6),
		within("evaluate.second_stories", float64(c.Evaluate.SecondStories), 0, float64(c.Evaluate.ReportOn)),
		{"run.seed", c.Run.Seed, c.Run.Seed < 1<<63, "below 2^63"},
		within("run.threads", float64(c.Run.Threads), 0, 1024),
		oneOf("run.backend", c.Run.Backend, "cpu", "cuda", "ref"),
		oneOf("run.isa", c.Run.ISA, append([]string{"auto"}, student.ISAs...)...),
		{"run.kernels", fmt.Sprintf("%q", c.Run.Kernels), kernels(c.Run), fmt.Sprintf("op=name of %q, with commas between", student.Kernels(c.Run.Backend))},
		{"run.isa", c.Run.ISA, c.Run.Backend != "cuda" || c.Run.ISA == "auto", "auto with run.backend = \"cuda\", whose variants are those of run.precision"},
		oneOf("run.precision", c.Run.Precision, "auto", "fp32", "bf16"),
		{"run.precision", fmt.Sprintf("%q", c.Run.Precision), c.Run.Precision != "bf16" || c.Run.Backend == "cuda" || c.Run.Backend == "cpu" && c.Run.ISA == "auto",
			"auto or fp32 with run.backend = \"ref\" or a run.isa"},
		oneOf("run.recompute", c.Run.Recompute, student.Recomputes...),
		{"run.max_tokens", c.Run.MaxTokens, c.Run.MaxTokens >= s.Context && c.Run.MaxTokens <= 1<<24, fmt.Sprintf("at least student.context = %d and at most %d", s.Context, 1<<24)},
	}
}
