package config

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"onceupon/trainer/fault"
)

func TestPresetsAreValid(t *testing.T) {
	for _, name := range Presets {
		c, err := Load(name)
		if err == nil {
			err = c.Check()
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPaper holds paper.toml to the recipe of arXiv 2509.15714, value by value.
func TestPaper(t *testing.T) {
	c, err := Load("paper")
	if err != nil {
		t.Fatal(err)
	}
	want := c // what the recipe does not mention
	want.Student = Student{Layers: 12, Heads: 12, Width: 768, Context: 512, Vocab: 16000, LayerNormEpsilon: 1e-5}
	want.Corpus.HeldOut, want.Corpus.MinFrequency = 0.1, 2
	var milestones []int64
	for _, step := range []int64{1_000_000, 10_000_000, 100_000_000} {
		for k := int64(1); k <= 9; k++ {
			milestones = append(milestones, k*step)
		}
	}
	want.Pretrain = Pretrain{Words: 900_000_000, BatchTokens: 4 * 32 * 4 * 512, LR: 5e-5, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8,
		WeightDecay: 0, GradClip: 1, Warmup: 0.01, Schedule: "linear", Dropout: 0.1, Milestones: append(milestones, 1_000_000_000)}
	want.Rollout = Rollout{Prompt: "Let me tell you a long, magical tale. Once upon a time, in a faraway land,", Stories: 360, MaxNewTokens: 90,
		Temperature: 1, TopK: 0, TopP: 1}
	want.Teacher.Reading, want.Teacher.Calibrate, want.Teacher.Weights = "sampled", false, [3]float64{1, 1, 1}
	want.Teacher.Temperature, want.Teacher.Seed = 0.2, 42
	want.Reward = Reward{LengthBonus: 0.4, LengthDivisor: 90}
	want.PPO = PPO{LR: 1e-6, Epochs: 4, Minibatch: 360, Accumulation: 1, Gamma: 1, Lambda: 0.95, Clip: 0.2, ValueClip: 0.2, ValueCoef: 0.1,
		ValueInit: "linear", InitKL: 0.2, TargetKL: 6, Horizon: 10000, AdaptiveKL: true, KLPenalty: "kl", RatioThreshold: 10, Parity: "trl-0.9.4"}
	want.Interact.BudgetWords, want.Interact.Batches, want.Interact.PromptPerStory = 1_000_000, 0, true
	if !reflect.DeepEqual(c, want) {
		t.Errorf("paper.toml differs from the recipe: %s", Difference(c, want))
	}
}

func TestFilesAreRefused(t *testing.T) {
	for _, c := range []struct{ text, says string }{
		{"[ppo]\nlearning_rate = 1e-5\n", "unknown key ppo.learning_rate; the nearest known one is ppo."},
		{"[pretrain]\nlrr = 1\n", "the nearest known one is pretrain.lr"},
		{"[ppo]\nlr = \"fast\"\n", "ppo"},
		{"[ppo\n", "config"},
		{"[ppo]\nlr = 0.0\n", "config: ppo.lr = 0 must be in 1e-09..1"},
		{"[ppo]\nclip = nan\n", "ppo.clip"},
		{"[ppo]\nminibatch = 7\n", "ppo.minibatch = 7 must be such that minibatch * accumulation divides rollout.stories = 48"},
		{"[ppo]\nminibatch = 4294967296\naccumulation = 4294967296\n", "ppo.minibatch = 4294967296 must be such that"},
		{"[rollout]\nstories = 0\n", "rollout.stories = 0 must be in 2.."},
		{"[student]\nheads = 3\n", "student.width = 256 must be a multiple of student.heads = 3"},
		{"[run]\nbackend = \"tpu\"\n", "run.backend"},
		{"[run]\nmax_tokens = 999999999\n", "run.max_tokens = 999999999 must be at least student.context = 256 and at most 16777216"},
		{"[run]\nprecision = \"bf16\"\nisa = \"avx2\"\n", "run.precision = \"bf16\" must be auto or fp32"},
		{"[teacher]\nwave = 256\n", "config: teacher.wave = 256 must be auto, measure or in 1..255"},
		{"[teacher]\nwave = 1.5\n", "\"1.5\" must be auto, measure or a number"},
		{"[teacher]\nmicro_batch = \"fast\"\n", "\"fast\" must be auto, measure or a number"},
		{"[interact]\nbatches = 0\n", "interact.batches = 0 must be above 0 when interact.budget_words is 0"},
	} {
		path := filepath.Join(t.TempDir(), "c.toml")
		if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		k, err := Load(path)
		if err == nil {
			err = k.Check()
		}
		if fault.Code(err) != int(fault.Usage) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v; want one line with %q", c.text, err, c.says)
		}
	}
	if _, err := Load("none.toml"); fault.Code(err) != int(fault.Capability) {
		t.Errorf("missing file: %v", err)
	}
}

// TestEveryNumberIsChecked sets each number to NaN, an infinity, or below
// anything sensible: no key may take all of them.
func TestEveryNumberIsChecked(t *testing.T) {
	free := map[string]bool{"Seed": true, "Milestones": true}
	whole := reflect.TypeFor[Config]()
	for i := range whole.NumField() {
		for k := range whole.Field(i).Type.NumField() {
			name := whole.Field(i).Type.Field(k).Name
			c := Default()
			field := reflect.ValueOf(&c).Elem().Field(i).Field(k)
			switch field.Kind() {
			case reflect.Int, reflect.Int64:
				field.SetInt(-3) // -1 and -2 are Auto and Measure
			case reflect.Float64:
				field.SetFloat(math.NaN())
			default:
				continue
			}
			if free[name] {
				continue
			}
			if c.Check() == nil {
				t.Errorf("%s.%s = %v is accepted", whole.Field(i).Name, name, field)
			}
		}
	}
}

func TestTextRoundTrip(t *testing.T) {
	c := Default()
	c.Run.Seed = 1<<63 - 1
	c.Teacher.Wave, c.Teacher.MicroBatch = Measure, 64
	c.Rollout.Prompt = "a \"quoted\"\nprompt"
	again, err := Parse("text", c.Text())
	if err != nil || !reflect.DeepEqual(again, c) {
		t.Errorf("%v: %s", err, Difference(again, c))
	}
	if !strings.Contains(Difference(Default(), c), "prompt") {
		t.Errorf("difference: %s", Difference(Default(), c))
	}
}
