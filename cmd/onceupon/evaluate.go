package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/urfave/cli/v2"

	"onceupon/bindings/student"
	"onceupon/trainer/config"
	"onceupon/trainer/evaluate"
	"onceupon/trainer/fault"
	"onceupon/trainer/run"
)

func evaluateCommand() *cli.Command {
	return &cli.Command{
		Name:  "evaluate",
		Usage: "measure a student on a benchmark (docs/evaluation.md)",
		Flags: append(studentFlags(),
			&cli.StringFlag{Name: "student", Usage: "GGUF `FILE` of a student"},
			&cli.StringFlag{Name: "run", Usage: "run `FOLDER`, whose best student is taken"},
			&cli.StringFlag{Name: "task", Usage: "minimal-pairs, reading, adjectives", Required: true},
			&cli.StringFlag{Name: "data", Usage: "`FILE` of the task, .zst and .gz too, or a folder of JSON Lines", Required: true},
			&cli.StringFlag{Name: "vocabulary", Usage: "minimal-pairs: `FILE` with one word a line; pairs with other words are left out"},
			&cli.IntFlag{Name: "sample", Usage: "minimal-pairs: so many of each paradigm, drawn by --seed; 0 = all"},
		),
		Action: evaluateStudent,
	}
}

// benchmark is a task with its data read: the texts that one item has at most,
// and what to do with a student.
type benchmark struct {
	texts   int
	measure func(c *cli.Context, s evaluate.Student) (result map[string]any, err error)
}

// tasks read their data, before the student is loaded.
var tasks = map[string]func(c *cli.Context, k config.Config) (benchmark, error){
	"minimal-pairs": minimalPairs, "reading": reading, "adjectives": adjectives,
}

// evaluateTokens are those of one call: rows enough for the kernels.
const evaluateTokens = 2048

func evaluateStudent(c *cli.Context) error {
	k, err := resolve(c)
	if err != nil {
		return err
	}
	task := c.String("task")
	open, known := tasks[task]
	switch {
	case (c.String("student") == "") == (c.String("run") == ""):
		return fault.New(fault.Usage, "evaluate: give either --student FILE or --run FOLDER")
	case !known:
		return fault.New(fault.Usage, "evaluate: --task %q must be one of %v", task, slices.Sorted(maps.Keys(tasks)))
	case task != "minimal-pairs" && (c.IsSet("vocabulary") || c.IsSet("sample")):
		return fault.New(fault.Usage, "evaluate: --vocabulary and --sample are of --task minimal-pairs, not of %s", task)
	case c.Int("sample") < 0:
		return fault.New(fault.Usage, "evaluate: --sample %d must be at least 1, or 0 for all", c.Int("sample"))
	}
	path, err := studentFile(cmp.Or(c.String("student"), c.String("run")), "")
	if err != nil {
		return err
	}
	h, err := run.StudentShape(path)
	if err != nil {
		return err
	}
	tokens, err := run.StudentTokenizer(path)
	if err != nil {
		return err
	}
	b, err := open(c, k)
	if err != nil {
		return err
	}
	if k.Run.Precision == "auto" { // of candidates that differ in one word, bf16 would make ties
		k.Run.Precision = "fp32"
	}
	room := max(evaluateTokens, b.texts*h.Context)
	m, err := loadStudent(k, path, h, student.Options{MaxTokens: room, MaxStories: room})
	if err != nil {
		return err
	}
	defer m.Close()
	r := reporter(c)
	result, err := b.measure(c, evaluate.Student{Model: m, Tokenizer: tokens, Progress: func(done, total int) {
		r.Progress("evaluate", int64(done), int64(total), "items", task)
	}})
	if err != nil {
		return err
	}
	maps.Copy(result, map[string]any{"event": "result", "command": "evaluate", "task": task, "student": path})
	return r.Emit(result)
}

func minimalPairs(c *cli.Context, k config.Config) (benchmark, error) {
	pairs, err := evaluate.ReadPairs(c.String("data"))
	if err != nil {
		return benchmark{}, err
	}
	read := len(pairs)
	if path := c.String("vocabulary"); path != "" {
		words, err := evaluate.ReadVocabulary(path)
		if err != nil {
			return benchmark{}, err
		}
		if pairs = words.Keep(pairs); len(pairs) == 0 {
			return benchmark{}, fault.New(fault.Usage, "evaluate: --vocabulary %s has the words of none of the %d pairs: give a list with one word a line, punctuation too", path, read)
		}
	}
	if n := c.Int("sample"); n > 0 {
		pairs = evaluate.Sample(pairs, n, k.Run.Seed)
	}
	return benchmark{2, func(c *cli.Context, s evaluate.Student) (map[string]any, error) {
		p, err := s.Prefer(c.Context, pairs)
		if err != nil {
			return nil, err
		}
		scores := map[string]float64{}
		for _, uid := range slices.Sorted(maps.Keys(p.UIDs)) {
			a := p.UIDs[uid]
			scores[uid] = a.Score
			if !c.Bool("json") {
				fmt.Fprintf(c.App.Writer, "%-60s %6.2f %% of %d pairs, %d ties\n", uid, a.Score, a.Items, a.Ties)
			}
		}
		if !c.Bool("json") {
			fmt.Fprintf(c.App.Writer, "mean of %d paradigms %.2f %% (%s), with a tie as wrong %.2f %%; %d of %d pairs, %d ties\n", len(scores), p.Score, interval(p.Interval), p.Strict, p.Items, read, p.Ties)
		}
		return map[string]any{"score": p.Score, "ci95": p.Interval, "items": p.Items, "pairs_read": read, "ties": p.Ties, "strict_score": p.Strict, "per_uid": scores}, nil
	}}, nil
}

func interval(of *[2]float64) string {
	if of == nil {
		return "too few items for an interval"
	}
	return fmt.Sprintf("95 %% interval %.2f .. %.2f", of[0], of[1])
}

func reading(c *cli.Context, _ config.Config) (benchmark, error) {
	words, err := evaluate.ReadWords(c.String("data"))
	return benchmark{1, func(c *cli.Context, s evaluate.Student) (map[string]any, error) {
		surprisals, err := s.Surprisals(c.Context, words)
		if err != nil {
			return nil, err
		}
		gains, err := evaluate.Gains(words, surprisals)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.String("data"), err)
		}
		eye, selfPaced, surprisal := 0.0, gains[len(gains)-1].Score, 0.0
		for _, g := range gains[:len(evaluate.EyeTracking)] {
			eye += g.Score / float64(len(evaluate.EyeTracking))
		}
		for _, x := range surprisals {
			surprisal += x / float64(len(words))
		}
		if !c.Bool("json") {
			for _, g := range gains {
				fmt.Fprintf(c.App.Writer, "%-24s R2 %.5f -> %.5f  gain %6.3f %%  of %d words\n", g.Measure, g.R2Base, g.R2Model, g.Score, g.Rows)
			}
			fmt.Fprintf(c.App.Writer, "eye tracking %.3f %%, self-paced %.3f %%, mean %.3f %%; mean surprisal %.3f nats a word\n", eye, selfPaced, (eye+selfPaced)/2, surprisal)
		}
		return map[string]any{"score": (eye + selfPaced) / 2, "eye_tracking": eye, "self_paced": selfPaced, "measures": gains, "items": len(words), "surprisal": surprisal}, nil
	}}, err
}

func adjectives(c *cli.Context, _ config.Config) (benchmark, error) {
	all, err := evaluate.ReadNominalizations(c.String("data"))
	return benchmark{2, func(c *cli.Context, s evaluate.Student) (map[string]any, error) {
		a, err := s.Agree(c.Context, all)
		if err != nil {
			return nil, err
		}
		if !c.Bool("json") {
			fmt.Fprintf(c.App.Writer, "Spearman's rho x 100 with people %.2f (%s) of %d adjectives\n", a.Score, interval(a.Interval), a.Items)
		}
		return map[string]any{"score": a.Score, "ci95": a.Interval, "items": a.Items}, nil
	}}, err
}
