package main

import (
	"fmt"
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
			&cli.StringFlag{Name: "points", Usage: "CSV `FILE` of pretrain_words,score: pretraining alone", Required: true},
			&cli.StringFlag{Name: "result", Usage: "CSV `FILE` of pretrain_words,budget_words,score: the interaction", Required: true},
			&cli.StringFlag{Name: "method", Value: string(equivalence.Milestone), Usage: "between two points: milestone = none, the last one reached, as the paper does; linear in words; log-linear"}),
		Action: worth,
	}
}

func worth(c *cli.Context) error {
	method := equivalence.Method(c.String("method"))
	if !slices.Contains(equivalence.Methods, method) {
		return fault.New(fault.Usage, "equivalence: --method %q must be one of %q", method, equivalence.Methods)
	}
	points, err := equivalence.ReadPoints(c.String("points"))
	if err != nil {
		return err
	}
	result, err := equivalence.ReadResult(c.String("result"))
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
