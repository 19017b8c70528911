package plan

import (
	"fmt"
	"math"
	"strings"

	"onceupon/trainer/budget"
	"onceupon/trainer/config"
)

// Shares of the peak that the projection takes as reached, until bench loop on
// such a card has measured them.
const (
	teacherShare  = 0.35 // of bf16: prefill of a quantised 8B in micro-batches of 512
	studentShare  = 0.35 // of bf16: training and log-probabilities of a 100 M student
	readShare     = 0.6  // of the memory's: weights read for a handful of tokens
	launchSeconds = 4e-6 // of one kernel in a decoding step
	stepKernels   = 12   // of a layer in a decoding step
	tokensAWord   = 1.3  // English, byte-level BPE of 16,000
)

// Stage is a part of a batch.
type Stage struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	How     string  `json:"how"`
}

// Time is how long a run takes.
type Time struct {
	Source        string  `json:"source"` // "projected" or "measured"
	Stages        []Stage `json:"stages,omitempty"`
	BatchSeconds  float64 `json:"batch_s"`
	StoriesPerS   float64 `json:"stories_per_s"`
	Batches       int     `json:"batches"`
	Hours         float64 `json:"hours"`
	PretrainHours float64 `json:"pretrain_hours"`
	Watts         float64 `json:"watts,omitempty"`
	KWh           float64 `json:"kwh,omitempty"`
	PretrainKWh   float64 `json:"pretrain_kwh,omitempty"`
}

// Batches is how many a configuration's interaction takes: its own number, or
// what the budget allows (trainer/budget: the prompt once, or once for each
// story of the first batch, then three words of the teacher's a story; a batch
// that would overflow is not told).
func Batches(c config.Config) int {
	if c.Interact.BudgetWords == 0 {
		return c.Interact.Batches
	}
	prompt := len(strings.Fields(c.Rollout.Prompt))
	if c.Interact.PromptPerStory {
		prompt *= c.Rollout.Stories
	}
	n := (c.Interact.BudgetWords - prompt) / (budget.WordsOfRating * c.Rollout.Stories)
	if c.Interact.Batches > 0 {
		n = min(n, c.Interact.Batches)
	}
	return max(n, 0)
}

// parameters of a GPT-2 with a tied head.
func parameters(s config.Student) float64 {
	layer := 12*s.Width*s.Width + 13*s.Width
	return float64(s.Layers*layer + (s.Vocab+s.Context)*s.Width + 2*s.Width)
}

// BatchFLOPs are those of a batch whose stories have so many tokens of reply on
// average and were so many tokens to the teacher: both models' matrices, a
// multiply-add counted as two; reference and policy forward once each, and for
// every epoch forward and backward, the first forward being the policy's.
func BatchFLOPs(c config.Config, t Teacher, reply, teacherTokens float64) float64 {
	stories, p := float64(c.Rollout.Stories), parameters(c.Student)
	length := float64(len(strings.Fields(c.Rollout.Prompt)))*tokensAWord + reply
	return 2*float64(t.Parameters)*teacherTokens + p*stories*(2*reply+float64(4+6*c.PPO.Epochs-2)*length)
}

// Project says what a run takes on a card by its data sheet and the shares
// above. A story is taken at its full length, so it errs on the long side. With
// overlap, which a card has by default, the shorter of telling and rating hides
// behind the longer: on one card the least there can be, since they share it.
func Project(c config.Config, t Teacher, card Card) Time {
	stories := float64(c.Rollout.Stories)
	prompt := float64(len(strings.Fields(c.Rollout.Prompt))) * tokensAWord
	length := prompt + float64(c.Rollout.MaxNewTokens)
	p := parameters(c.Student)
	student := card.TFLOPs * 1e12 * studentShare
	teacher := card.TFLOPs * 1e12 * teacherShare
	waves := math.Ceil(stories / float64(c.Teacher.Wave))
	// Telling: a step computes a token of every story, and cannot be shorter
	// than its kernels' launches.
	step := math.Max(float64(c.Student.Layers*stepKernels)*launchSeconds, 2*p*stories/student)
	rollout := float64(c.Rollout.MaxNewTokens) * step
	read := float64(t.Weights) / (card.GBs * 1e9 * readShare)
	answers := 2.0 // decodes after the first, expected
	if c.Teacher.Reading == "sampled" {
		answers = 5 // at most 6 tokens
	}
	prefill := math.Max(2*float64(t.Parameters)*stories*(length+10)/teacher, waves*read)
	digits := waves * answers * read
	tokens := stories * length
	logprob := 2 * 2 * p * tokens / student                    // reference and policy, forward
	update := float64(6*c.PPO.Epochs-2) * p * tokens / student // the first epoch's forward is the policy's
	x := Time{Source: "projected", Stages: []Stage{
		{"rollout", rollout, fmt.Sprintf("%d steps of %.2f ms", c.Rollout.MaxNewTokens, step*1e3)},
		{"judge, stories", prefill, fmt.Sprintf("2 x %.2f G parameters x %.0f tokens at %.0f %% of peak", float64(t.Parameters)/1e9, length+10, 100*teacherShare)},
		{"judge, marks", digits, fmt.Sprintf("%.0f passes over %.1f GiB at %.0f %% of %.0f GB/s", waves*answers, gib(t.Weights), 100*readShare, card.GBs)},
		{"log-probabilities", logprob, fmt.Sprintf("two passes at %.0f %% of peak", 100*studentShare)},
		{"update", update, fmt.Sprintf("%d epochs of 6 x %.0f M parameters x %.0f tokens", c.PPO.Epochs, p/1e6, tokens)},
	}}
	if c.Interact.Overlap != "off" {
		x.Stages = append(x.Stages, Stage{"told and rated at once", -min(rollout, prefill+digits), "interact.overlap: hidden behind the longer, at best"})
	}
	for _, s := range x.Stages {
		x.BatchSeconds += s.Seconds
	}
	x.StoriesPerS = stories / x.BatchSeconds
	return x.total(c, 6*p/student, card.Watts)
}

// Measured is a run's time at measured rates; 0 tokens/s leaves the pretraining
// out, 0 watts the energy.
func Measured(c config.Config, storiesPerS, tokensPerS, watts float64) Time {
	x := Time{Source: "measured", StoriesPerS: storiesPerS, BatchSeconds: float64(c.Rollout.Stories) / storiesPerS}
	perToken := 0.0
	if tokensPerS > 0 {
		perToken = 1 / tokensPerS
	}
	return x.total(c, perToken, watts)
}

func (x Time) total(c config.Config, secondsPerToken, watts float64) Time {
	x.Batches = Batches(c)
	x.Hours = float64(x.Batches) * x.BatchSeconds / 3600
	x.PretrainHours = float64(c.Pretrain.Words) * tokensAWord * secondsPerToken / 3600
	x.Watts, x.KWh, x.PretrainKWh = watts, x.Hours*watts/1000, x.PretrainHours*watts/1000
	return x
}

// String is for people: both phases side by side, which is the paper's open
// question.
func (x Time) String() string {
	text := fmt.Sprintf("%s: interaction %s (%d batches of %.3g s, %.3g stories/s)", x.Source, span(x.Hours), x.Batches, x.BatchSeconds, x.StoriesPerS)
	if x.PretrainHours > 0 {
		text += ", pretraining before it " + span(x.PretrainHours)
	}
	if x.Watts > 0 {
		text += fmt.Sprintf("; at %.0f W %s", x.Watts, energy(x.KWh))
		if x.PretrainHours > 0 {
			text += " and " + energy(x.PretrainKWh)
		}
	}
	return text
}

// span has the unit that fits, so that small runs are readable too.
func span(hours float64) string {
	switch {
	case hours >= 0.1:
		return fmt.Sprintf("%.3g h", hours)
	case hours >= 1.0/60:
		return fmt.Sprintf("%.2g min", 60*hours)
	}
	return fmt.Sprintf("%.2g s", 3600*hours)
}

func energy(kWh float64) string {
	if kWh >= 0.1 {
		return fmt.Sprintf("%.3g kWh", kWh)
	}
	return fmt.Sprintf("%.2g Wh", 1000*kWh)
}
