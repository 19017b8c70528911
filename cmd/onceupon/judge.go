package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"onceupon/trainer/config"
	"onceupon/trainer/corpus"
	"onceupon/trainer/fault"
	"onceupon/trainer/judge"
	"onceupon/trainer/metrics"
	"onceupon/trainer/run"
)

func judgeCommand() *cli.Command {
	return &cli.Command{
		Name:  "judge",
		Usage: "rate stories, or test whether a teacher can (--probe)",
		Flags: append(slices.Concat(configFlags(), teacherFlags(), paceFlags()), maxUnreadableFlag(),
			&cli.StringFlag{Name: "stories", Usage: "`FILE` with one story a line, or JSON lines with a field text; .zst and .gz too"},
			yesFlag("probe", "rate damaged stories and print the table"),
			&cli.IntFlag{Name: "n", Usage: "stories of each kind of damage", DefaultText: configured},
		),
		Action: func(c *cli.Context) error {
			k, err := resolve(c)
			if err != nil {
				return err
			}
			if c.Bool("probe") == (c.String("stories") != "") {
				return fault.New(fault.Usage, "judge: give either --stories FILE or --probe")
			}
			if c.IsSet("n") {
				k.Teacher.ProbeStories = c.Int("n")
				if err := k.Check(); err != nil {
					return err
				}
			}
			var stories []string // read before the teacher is, which takes seconds
			if path := c.String("stories"); path != "" {
				if stories, err = readStories(path); err != nil {
					return err
				}
			}
			o := run.JudgeOptions(k, warnings(c))
			o.MaxTokens = 2048 // a story of a file may be longer than the student's
			if o.Pace, err = run.FixedPace(k); err != nil {
				return err
			}
			j, err := judge.Open(c.Context, o)
			if err != nil {
				return err
			}
			defer j.Close()
			if c.Bool("probe") {
				return probe(c, k, j)
			}
			return rate(c, k, j, stories)
		},
	}
}

func probe(c *cli.Context, k config.Config, j *judge.Judge) error {
	n, r := k.Teacher.ProbeStories, reporter(c)
	p, err := judge.Probe(c.Context, j, run.WellMade(k, n), n, k.Teacher.Seed, func(done, total int) {
		r.Progress("probe", int64(done), int64(total), "kinds", "")
	})
	if err != nil {
		return err
	}
	if !c.Bool("json") {
		w := c.App.Writer
		fmt.Fprintf(w, "%s, rubric %s of %d tokens\n%-34s %s\n", j.Info().Model, j.Info().Rubric, j.Info().PrefixTokens, "kind", "score ± sd")
		for _, kind := range p.Kinds {
			fmt.Fprintf(w, "%-34s %5.2f ± %.2f\n", kind.Kind, kind.Mean, kind.SD)
		}
		s := j.Stats()
		fmt.Fprintf(w, "rank correlation to a person's order %.2f; %.3f s a story\n", p.RankCorrelation, s.Seconds/float64(s.Stories))
	}
	err = r.Emit(map[string]any{"event": "result", "command": "judge", "teacher": j.Info(), "kinds": p.Kinds,
		"rank_correlation": p.RankCorrelation, "passed": p.Passed, "calibration": j.Calibration()})
	if err == nil && !p.Passed {
		err = fault.New(fault.Teacher, "the teacher failed its probe: it does not tell stories from noise")
	}
	return err
}

type ratedStory struct {
	Readability  float64       `json:"readability"`
	Coherence    float64       `json:"coherence"`
	Creativity   float64       `json:"creativity"`
	Score        float64       `json:"score"`
	Distribution [3][4]float64 `json:"distribution"`
	Text         string        `json:"text"`
	Answer       string        `json:"answer,omitempty"`
	Unreadable   bool          `json:"unreadable,omitempty"`
}

func rate(c *cli.Context, k config.Config, j *judge.Judge, stories []string) error {
	r := reporter(c)
	var rated []ratedStory
	var scores []float64
	for i, text := range stories {
		ratings, err := j.Rate(c.Context, []string{text})
		if err != nil {
			return fmt.Errorf("%s, story %d: %w", c.String("stories"), i+1, err)
		}
		g := ratings[0]
		rated = append(rated, ratedStory{g.Calibrated[0], g.Calibrated[1], g.Calibrated[2], g.Score(), g.Distribution, text, g.Text, g.Unreadable})
		if !g.Unreadable {
			scores = append(scores, g.Score())
		}
		switch {
		case c.Bool("json"):
		case g.Unreadable:
			fmt.Fprintf(c.App.Writer, "unreadable: %q  %.60s\n", g.Text, text)
		default:
			fmt.Fprintf(c.App.Writer, "%.2f  (%.2f %.2f %.2f)  %.60s\n", g.Score(), g.Calibrated[0], g.Calibrated[1], g.Calibrated[2], text)
		}
		r.Progress("judge", int64(i+1), int64(len(stories)), "stories", "")
	}
	mean, half := metrics.MeanCI(scores)
	s := j.Stats()
	unreadable := len(stories) - len(scores)
	r.Say("mean %.2f ± %.2f (95 %%) over %d stories, %d unreadable, %.2f stories/s", mean, half, len(scores), unreadable, float64(s.Stories)/s.Seconds)
	err := r.Emit(map[string]any{"event": "result", "command": "judge", "teacher": j.Info(), "stories": rated, "mean": mean, "ci95": half, "unreadable": unreadable,
		"stories_per_s": float64(s.Stories) / s.Seconds, "teacher_tok_per_s": float64(s.Tokens) / s.Seconds})
	if limit := k.Teacher.MaxUnreadable; err == nil && float64(unreadable) > limit*float64(len(stories)) {
		err = fault.New(fault.Teacher, "%d of %d ratings are unreadable, more than --max-unreadable %g: take another teacher, or --reading expected", unreadable, len(stories), limit)
	}
	return err
}

// readStories reads one story a line, or the field text of JSON lines. The file
// is never without one: corpus.Read refuses blank text.
func readStories(path string) ([]string, error) {
	text, err := corpus.Read(path)
	if err != nil {
		return nil, fmt.Errorf("--stories: %w", err)
	}
	var stories []string
	for n, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if strings.HasPrefix(line, "{") {
			var record struct {
				Text *string `json:"text"`
			}
			if err := json.Unmarshal([]byte(line), &record); err != nil || record.Text == nil {
				return nil, fault.New(fault.Damaged, "--stories %s: line %d is not JSON with a field text", path, n+1)
			}
			line = *record.Text
		}
		stories = append(stories, line)
	}
	return stories, nil
}
