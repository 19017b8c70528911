package main

import (
	"cmp"
	"os"

	"github.com/urfave/cli/v2"

	"onceupon/trainer/bench"
	"onceupon/trainer/config"
	"onceupon/trainer/fault"
	"onceupon/trainer/plan"
	"onceupon/trainer/run"
)

func benchTeacher(c *cli.Context) error {
	k, err := resolve(c)
	if err != nil {
		return err
	}
	n := c.Int("stories")
	if n < 1 || n > 1000 {
		return fault.New(fault.Usage, "bench teacher: --stories %d must be in 1..1000", n)
	}
	o, m, _, err := measurement(c)
	if err != nil {
		return err
	}
	if err := bench.TakesTeacher(o); err != nil {
		return err
	}
	k.Run.Threads = o.Threads
	if c.IsSet("synthetic") {
		folder := c.String("keep")
		if folder == "" {
			if folder, err = os.MkdirTemp("", "onceupon-bench-teacher-"); err != nil {
				return fault.Wrap(fault.Failed, err)
			}
			defer os.RemoveAll(folder)
		}
		if k.Teacher.Model, err = bench.Synthetic(c.Context, folder, c.String("synthetic"), c.String("type"), c.Int("layers"), c.String("vocabulary"), o.Say); err != nil {
			return err
		}
		k.Teacher.Rubric, k.Teacher.Calibrate = "chat", false
	}
	var stories []string
	for _, reply := range run.WellMade(k, n) {
		stories = append(stories, k.Rollout.Prompt+" "+reply)
	}
	waves := c.IntSlice("wave")
	if len(waves) == 0 {
		pace, err := run.FixedPace(k)
		if err != nil {
			return err
		}
		waves = []int{pace.Wave}
	}
	var results []bench.Result
	for _, wave := range waves {
		r, err := timeTeacher(c, k, o, wave, stories)
		if err != nil {
			return err
		}
		if c.IsSet("wave") {
			r = bench.AtWave(r, wave)
		}
		results = append(results, r...)
	}
	return present(c, m, results, nil)
}

// timeTeacher times a teacher that reads so many stories in one decode.
func timeTeacher(c *cli.Context, k config.Config, o bench.Options, wave int, stories []string) ([]bench.Result, error) {
	k.Teacher.Wave = config.Pick(wave)
	if err := k.Check(); err != nil {
		return nil, err
	}
	j, err := run.OpenTeacher(c.Context, k, warnings(c))
	if err != nil {
		return nil, err
	}
	defer j.Close()
	return bench.Teacher(c.Context, o, j, stories)
}

func benchLoop(c *cli.Context) error {
	if n := c.Int("batches"); n < 1 {
		return fault.New(fault.Usage, "bench loop: --batches %d must be above 0", n)
	}
	if err := positive(c, "watts"); err != nil {
		return err
	}
	k, err := resolve(c)
	if err != nil {
		return err
	}
	p, err := peers(c)
	if err != nil {
		return err
	}
	if n := c.Int("stories"); n != 0 {
		k.Rollout.Stories = n
	}
	// --words and --batches are of the measurement; the run that is projected
	// keeps its own.
	asked, err := config.Load(cmp.Or(c.String("config"), "default"))
	if err != nil {
		return err
	}
	whole, tokensPerS := k, 0.0
	whole.Pretrain.Words, whole.Interact.Batches = asked.Pretrain.Words, asked.Interact.Batches
	if k.Pretrain.Words = c.Int64("words"); k.Pretrain.Words == 0 {
		k.Pretrain.Words = 20_000
		if k.Run.Backend == "cuda" { // one update and its warm-up would be no rate
			k.Pretrain.Words = max(k.Pretrain.Words, 2*int64(k.Pretrain.BatchTokens))
		}
	}
	l := bench.LoopOptions{Name: cmp.Or(c.String("config"), "default"), Batches: c.Int("batches"), Stages: c.Bool("stages"), Peers: p,
		Report: reporter(c), Log: warnings(c), Pretraining: func(rate float64) { tokensPerS = rate }}
	if path := c.String("student"); path != "" {
		if l.Student, err = studentFile(path, ""); err != nil {
			return err
		}
		if k.Student, err = run.StudentShape(l.Student); err != nil {
			return err
		}
	}
	if err := k.Check(); err != nil {
		return err
	}
	l.Config = k
	o := bench.Options{Threads: run.Threads(k), Say: reporter(c).Say}
	m, err := bench.ThisMachine("auto", o.Threads)
	if err == nil && k.Run.Backend == "cuda" {
		if m, err = m.WithDevice(); err == nil {
			l.Peak = 1e9 * m.Device.BF16GFLOPPerS
		}
	}
	if err != nil {
		return err
	}
	results, err := bench.Loop(c.Context, o, l)
	if err != nil {
		return err
	}
	watts := c.Float64("watts")
	if m.Device != nil && watts == 0 {
		card, _ := plan.DataSheet(m.Device.Name)
		watts = card.Watts
	}
	t := plan.Measured(whole, results[0].Rate, tokensPerS, watts)
	o.Say("the whole of %s at these rates, %s", l.Name, t)
	return present(c, m, results, map[string]any{"projection": t})
}
