package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"onceupon/trainer/fault"
	"onceupon/trainer/judge"
)

// teacherTasks are what can be timed of a teacher; each has tokens or stories
// as its unit.
var teacherTasks = []string{"teacher_prefix", "teacher_prefill", "teacher_digits", "teacher_story", "teacher_story_alone"}

// TakesTeacher says whether a filter leaves any of the teacher's tasks: before
// one is loaded.
func TakesTeacher(o Options) error {
	if !slices.ContainsFunc(teacherTasks, o.takes) {
		return fault.New(fault.Usage, "bench teacher: --filter %s matches none of %s", o.Filter, strings.Join(teacherTasks, ", "))
	}
	return nil
}

// Teacher times a judge on stories: reading the rubric (prefix), reading a
// story behind it (prefill), its three marks (digits), both together (story),
// and what a story would cost if it did not share the rubric with the others
// (story_alone). Figures are per story; those of the prefix per reading.
func Teacher(ctx context.Context, o Options, j *judge.Judge, stories []string) ([]Result, error) {
	info := j.Info()
	b := teacherBench{o: o, shape: fmt.Sprintf("%d_stories_prefix_%d", len(stories), info.PrefixTokens),
		model: strings.TrimSuffix(filepath.Base(info.Path), ".gguf")}
	if err := b.add(ctx, "teacher_prefix", float64(info.PrefixTokens), "tokens/s", func() error { return j.Reread(ctx) }); err != nil {
		return nil, err
	}
	// One pass over all stories is one sample; the three figures come from the
	// same passes, so that they add up.
	read := Result{Name: "teacher_story", RateUnit: "stories/s"}
	prefill := Result{Name: "teacher_prefill", RateUnit: "tokens/s"}
	digits := Result{Name: "teacher_digits", RateUnit: "stories/s"}
	n, tokens := float64(len(stories)), 0.0
	for i := range o.Count + 1 {
		before := j.Stats()
		if _, err := j.Rate(ctx, stories); err != nil {
			return nil, err
		}
		after := j.Stats()
		tokens = float64(after.Tokens-before.Tokens) / n
		if i == 0 {
			continue // caches and clocks
		}
		whole, first := (after.Seconds-before.Seconds)/n*1e9, (after.PrefillSeconds-before.PrefillSeconds)/n*1e9
		read.Samples = append(read.Samples, whole)
		prefill.Samples = append(prefill.Samples, first)
		digits.Samples = append(digits.Samples, whole-first)
	}
	b.sampled(prefill, tokens)
	b.sampled(digits, 1)
	b.sampled(read, 1)
	err := b.add(ctx, "teacher_story_alone", 1, "stories/s", func() error {
		if err := j.Reread(ctx); err != nil {
			return err
		}
		_, err := j.Rate(ctx, stories[:1])
		return err
	})
	return b.results, err
}

type teacherBench struct {
	o            Options
	shape, model string
	results      []Result
}

// sampled adds a result whose samples are known.
func (b *teacherBench) sampled(r Result, units float64) {
	r.Shape, r.Backend, r.Variant, r.Calls = b.shape, "llama", b.model, 1
	r.finish(units)
	if b.o.takes(r.Name) {
		b.o.Say("%-20s %s: %.4g %s", r.Name, r.Shape, r.Rate, r.RateUnit)
		b.results = append(b.results, r)
	}
}

func (b *teacherBench) add(ctx context.Context, name string, units float64, unit string, run func() error) error {
	if !b.o.takes(name) {
		return nil
	}
	r := Result{Name: name, RateUnit: unit}
	if err := r.Sample(b.o.Count, 1, func(times int64) error {
		for range times {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := run(); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	b.sampled(r, units)
	return nil
}
