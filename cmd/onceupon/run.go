package main

import (
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"onceupon/trainer/fault"
	"onceupon/trainer/metrics"
	"onceupon/trainer/report"
	"onceupon/trainer/run"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name:        "run",
		Usage:       "pretrain, interact, report: the whole experiment in one folder",
		Description: "The same command goes on with a run that was interrupted, and ends in the same weights.",
		Flags:       append(append(append(configFlags(), runFlag()), corpusFlags()...), interactFlags()...),
		Action:      func(c *cli.Context) error { return experiment(c, run.Options{}) },
	}
}

func pretrainCommand() *cli.Command {
	return &cli.Command{
		Name:   "pretrain",
		Usage:  "read the corpus, keep a student at every milestone",
		Flags:  append(append(configFlags(), runFlag()), corpusFlags()...),
		Action: func(c *cli.Context) error { return experiment(c, run.Options{Only: "pretrain"}) },
	}
}

func interactCommand() *cli.Command {
	return &cli.Command{
		Name:  "interact",
		Usage: "improve a pretrained student with a teacher",
		Flags: append(append(append(configFlags(), runFlag()), interactFlags()...),
			&cli.StringFlag{Name: "student", Usage: "GGUF `FILE` of the pretrained student", Required: true}),
		Action: func(c *cli.Context) error {
			return experiment(c, run.Options{Only: "interact", Student: c.String("student")})
		},
	}
}

func experiment(c *cli.Context, o run.Options) error {
	k, err := resolve(c)
	if err != nil {
		return err
	}
	if o.Student != "" {
		if err := run.CheckStudent(o.Student, k); err != nil {
			return err
		}
	}
	o.Folder, o.Reporter, o.Log = c.String("run"), reporter(c), warnings(c)
	result, err := run.Run(c.Context, k, o)
	if err != nil {
		return err
	}
	result.Command = c.Command.Name
	page := filepath.Join(o.Folder, "report.html")
	if o.Only != "pretrain" {
		if err := report.Write(o.Folder, page); err != nil {
			return fmt.Errorf("report: %w", err)
		}
		tell(o.Reporter, k.Interact.MinDistinct2, result, page)
	}
	if err := o.Reporter.Emit(result); err != nil {
		return fault.Wrap(fault.Failed, err)
	}
	return nil
}

// tell says in a few lines what came out.
func tell(r *metrics.Reporter, minDistinct2 float64, e metrics.ResultEvent, page string) {
	r.Say("score on %s: %.2f before, %.2f after; rise %+.2f (95 %% interval %+.2f..%+.2f)", "held-out seeds", e.ScoreBefore, e.ScoreAfter, e.Rise, e.RiseCI[0], e.RiseCI[1])
	if s := e.SecondJudge; s != nil {
		r.Say("second judge, which never taught: %.2f before, %.2f after; rise %+.2f (%+.2f..%+.2f)", s.Before, s.After, s.Rise, s.RiseCI[0], s.RiseCI[1])
	}
	r.Say("distinct-2 %.3f before, %.3f after; KL %.2f; batch %d of %d chosen", e.Distinct2Before, e.Distinct2After, e.KL, e.ChosenBatch, e.Batches)
	if e.Distinct2After < minDistinct2*e.Distinct2Before {
		r.Say("the stories repeat themselves more than before: the rise is not to be trusted")
	}
	r.Say("report: %s", page)
}
