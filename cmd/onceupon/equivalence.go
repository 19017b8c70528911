package main

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"onceupon/trainer/equivalence"
	"onceupon/trainer/fault"
)

func equivalenceCommand() *cli.Command {
	return &cli.Command{
		Name:  "equivalence",
		Usage: "how many words of pretraining an interaction is worth",
		Flags: append(commonFlags(),
			&cli.StringSliceFlag{Name: "points", Usage: "CSV `FILE` of pretrain_words,score: pretraining alone; or run FOLDERs, a flag for each, whose scores before their interaction are taken"},
			&cli.StringFlag{Name: "result", Usage: "CSV `FILE` of pretrain_words,budget_words,score: the interaction; or a run FOLDER", Required: true},
			&cli.StringFlag{Name: "method", Value: string(equivalence.Milestone), Usage: "between two points: milestone = none, the last one reached, as the paper does; linear in words; log-linear"}),
		Action: worth,
	}
}

func worth(c *cli.Context) error {
	method := equivalence.Method(c.String("method"))
	if !slices.Contains(equivalence.Methods, method) {
		return fault.New(fault.Usage, "equivalence: --method %q must be one of %q", method, equivalence.Methods)
	}
	if len(c.StringSlice("points")) == 0 {
		return usageError(c, errors.New("--points is needed"), true)
	}
	points, result, err := read(c.StringSlice("points"), c.String("result"))
	if err != nil {
		return err
	}
	w, err := equivalence.Of(points, result, method)
	if err != nil {
		return err
	}
	r := reporter(c)
	for _, note := range w.Notes {
		r.Say("%s", note)
	}
	if !c.Bool("json") {
		bound := map[string]string{equivalence.AtLeast: "at least ", equivalence.AtMost: "at most "}[w.Bound]
		fmt.Fprintf(c.App.Writer, "worth %s%d words of pretraining%s\n%g after %d words and %d of interaction: pretraining alone needs %s%d words (%s)\n",
			bound, w.Words, spread(w.CI), result.Score.Mean, result.PretrainWords, result.BudgetWords, bound, w.Equivalent, w.Method)
	}
	return r.Emit(struct {
		Event         string  `json:"event"`
		Command       string  `json:"command"`
		PretrainWords int64   `json:"pretrain_words"`
		BudgetWords   int64   `json:"budget_words"`
		Score         float64 `json:"score"`
		equivalence.Worth
	}{"result", "equivalence", result.PretrainWords, result.BudgetWords, result.Score.Mean, w})
}

// read reads both sides, each from a table or from runs.
func read(from []string, to string) (points []equivalence.Point, result equivalence.Result, err error) {
	var runs []equivalence.Run
	for _, path := range from {
		if !isDir(path) && len(from) == 1 {
			break
		}
		r, err := equivalence.ReadRun(path)
		if err != nil {
			return nil, result, err
		}
		runs = append(runs, r)
	}
	if runs != nil {
		points, err = equivalence.PointsOf(runs)
	} else {
		points, err = equivalence.ReadPoints(from[0])
	}
	if err != nil {
		return nil, result, err
	}
	if !isDir(to) {
		result, err = equivalence.ReadResult(to)
		return points, result, err
	}
	r, err := equivalence.ReadRun(to)
	if err != nil {
		return nil, result, err
	}
	return points, r.After, equivalence.Comparable(append(runs, r))
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// spread is an interval for people.
func spread(ci *equivalence.Interval) string {
	if ci == nil {
		return ""
	}
	end := func(words *int64) string {
		if words == nil {
			return "open"
		}
		return fmt.Sprint(*words)
	}
	return fmt.Sprintf(" (95 %% interval %s .. %s)", end(ci[0]), end(ci[1]))
}
