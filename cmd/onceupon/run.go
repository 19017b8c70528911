package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"onceupon/trainer/config"
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
		Flags:       slices.Concat(studentFlags(), []cli.Flag{runFlag()}, corpusFlags(), interactFlags()),
		Action: func(c *cli.Context) error {
			k, err := resolve(c)
			if err != nil {
				return err
			}
			return experiment(c, k, "")
		},
	}
}

func pretrainCommand() *cli.Command {
	return &cli.Command{
		Name:   "pretrain",
		Usage:  "read the corpus, keep a student at every milestone",
		Flags:  append(append(studentFlags(), runFlag()), corpusFlags()...),
		Action: pretrain,
	}
}

func interactCommand() *cli.Command {
	return &cli.Command{
		Name:  "interact",
		Usage: "improve a pretrained student with a teacher",
		Flags: append(append(append(studentFlags(), runFlag()), interactFlags()...),
			&cli.StringFlag{Name: "student", Usage: "GGUF `FILE` of the pretrained student or a run FOLDER (its best one), whose shape counts more than the configuration's", Required: true}),
		Action: func(c *cli.Context) error {
			k, err := resolve(c)
			if err != nil {
				return err
			}
			path, err := studentFile(c.String("student"), "")
			if err != nil {
				return err
			}
			if k.Student, err = run.StudentShape(path); err != nil {
				return err
			}
			return experiment(c, k, path)
		},
	}
}

// studentFile is the file of a student that is given as such or as a run
// folder, whose checkpoint of that name is taken, "" being the best, or as the
// folder of a checkpoint. A run that has others only is told so.
func studentFile(path, checkpoint string) (string, error) {
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return path, nil // opening it says what is wrong
	}
	if own := filepath.Join(path, "student.gguf"); checkpoint == "" {
		if _, err := os.Stat(own); err == nil {
			return own, nil
		}
	}
	remedy := "--checkpoint NAME"
	if checkpoint == "" {
		checkpoint, remedy = "best", "--student "+filepath.Join(path, "checkpoints", "NAME", "student.gguf")
	}
	file := filepath.Join(path, "checkpoints", checkpoint, "student.gguf")
	others, err := filepath.Glob(filepath.Join(path, "checkpoints", "*", "student.gguf"))
	if _, absent := os.Stat(file); absent == nil || err != nil || len(others) == 0 {
		return file, nil
	}
	for i, other := range others {
		others[i] = filepath.Base(filepath.Dir(other))
	}
	return "", fault.New(fault.Capability, "%s: no such file: the run has %s: give %s", file, strings.Join(others, ", "), remedy)
}

func options(c *cli.Context) run.Options {
	return run.Options{Folder: c.String("run"), Reporter: reporter(c), Log: warnings(c)}
}

func pretrain(c *cli.Context) error {
	k, err := resolve(c)
	if err != nil {
		return err
	}
	o := options(c)
	result, err := run.Pretrain(c.Context, k, o)
	if err != nil {
		return err
	}
	o.Reporter.Say("student: %s", filepath.Join(o.Folder, "checkpoints", "pretrained", "student.gguf"))
	return o.Reporter.Emit(result)
}

func experiment(c *cli.Context, k config.Config, student string) error {
	o := options(c)
	o.Student = student
	result, err := run.Run(c.Context, k, o)
	if err != nil {
		return err
	}
	result.Command = c.Command.Name
	page := filepath.Join(o.Folder, "report.html")
	if _, err := report.Write(o.Folder, page); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	tell(o.Reporter, result, page)
	return o.Reporter.Emit(result)
}

// tell says in a few lines what came out.
func tell(r *metrics.Reporter, e metrics.ResultEvent, page string) {
	r.Say("score on held-out seeds: %.2f before, %.2f after; rise %+.2f (95 %% interval %+.2f..%+.2f)", e.ScoreBefore, e.ScoreAfter, e.Rise, e.RiseCI[0], e.RiseCI[1])
	if s := e.SecondJudge; s != nil {
		r.Say("second judge, which never taught: %.2f before, %.2f after; rise %+.2f (%+.2f..%+.2f)", s.Before, s.After, s.Rise, s.RiseCI[0], s.RiseCI[1])
	}
	r.Say("distinct-2 %.3f before, %.3f after; KL %.2f; batch %d of %d chosen", e.Distinct2Before, e.Distinct2After, e.KL, e.ChosenBatch, e.Batches)
	if e.Distinct2After < report.Repetitive*e.Distinct2Before {
		r.Say("the stories repeat themselves more than before: the rise is not to be trusted")
	}
	if e.PretrainWords != nil && e.RiseCI[0] > 0 {
		r.Say("what the rise is worth in words of pretraining takes students that have read more than %d: the report has the commands", *e.PretrainWords)
	}
	r.Say("report: %s", page)
}
