package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"onceupon/bindings/student"
	"onceupon/trainer/config"
	"onceupon/trainer/fault"
	"onceupon/trainer/metrics"
)

// Flags that every command has.
func commonFlags() []cli.Flag {
	return []cli.Flag{
		yesFlag("json", "JSON lines on standard output; the last one is the result"),
		yesFlag("quiet", "no progress on standard error"),
	}
}

// yesFlag is off when it is not given.
func yesFlag(name, usage string) cli.Flag {
	return &cli.BoolFlag{Name: name, Usage: usage, DisableDefaultText: true}
}

// configured is shown in the help of numbers that are the configuration's
// where no flag is given, in place of Go's 0.
const configured = "the configuration's"

// Flags that set a key of the configuration.
func configFlags() []cli.Flag {
	return append(commonFlags(),
		&cli.StringFlag{Name: "config", Value: "default", Usage: "default, smoke, paper, llama31-8b, h200 or a TOML `FILE`; flags count more than it"},
		&cli.Uint64Flag{Name: "seed", Usage: "of everything that is drawn", DefaultText: configured},
		&cli.IntFlag{Name: "threads", Usage: "of student and teacher; 0 = one per core", DefaultText: configured})
}

// studentFlags are how a student computes.
func studentFlags() []cli.Flag {
	return append(configFlags(),
		&cli.StringFlag{Name: "backend", Usage: "of the student: cpu, cuda, ref"},
		&cli.StringFlag{Name: "precision", Usage: "of the student's multiplications: auto (bf16 on cuda), fp32, bf16"},
		&cli.StringFlag{Name: "recompute", Usage: "instead of keeping it, in training: none, ffn, layer, pair; less memory, the same results (onceupon doctor)"},
		&cli.StringSliceFlag{Name: "kernel", Usage: "variant of a kernel, such as matmul=openblas, or isa=avx2"},
	)
}

func corpusFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "corpus", Usage: "text to read: a .txt, .zst or .gz `FILE` or a folder; default the built-in storybook"},
		&cli.Int64Flag{Name: "words", Usage: "of pretraining, repetitions counted", DefaultText: configured},
	}
}

func teacherFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "teacher", Usage: "a name (teacher list) or a GGUF `PATH`"},
		&cli.StringFlag{Name: "teacher-device", Usage: "cpu, cuda or cuda:N"},
		&cli.StringFlag{Name: "llama-dir", Usage: "`FOLDER` of libllama (llama.cpp v0.5.0); default where make fetch put it"},
		&cli.StringFlag{Name: "rubric", Usage: "plain, chat or a TOML `FILE`"},
		&cli.StringFlag{Name: "reading", Usage: "of the marks: expected, sampled"},
	}
}

// teachingFlags are of a teacher that teaches.
func teachingFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "second-judge", Usage: "rates before and after but never teaches; none = without"},
		maxUnreadableFlag(),
		&cli.Float64SliceFlag{Name: "weights", Usage: "of readability, coherence and creativity in the reward, e.g. 1,1,1"},
		yesFlag("no-probe", "teach even with a teacher that prefers noise to stories"),
	}
}

func maxUnreadableFlag() cli.Flag {
	return &cli.Float64Flag{Name: "max-unreadable", Usage: "fraction of the ratings above which the exit code is 5", DefaultText: configured}
}

func interactFlags() []cli.Flag {
	return append(slices.Concat(teacherFlags(), teachingFlags(), paceFlags()),
		&cli.IntFlag{Name: "batches", Usage: "of the interaction", DefaultText: configured},
		&cli.IntFlag{Name: "budget", Usage: "of the interaction, in words; 0 = no limit", DefaultText: configured},
		&cli.Float64Flag{Name: "length-bonus", Usage: "what a long reply adds to the reward; 0 = nothing", DefaultText: configured},
		&cli.Float64Flag{Name: "length-divisor", Usage: "words of a reply from which on the bonus is whole", DefaultText: configured},
		overlapFlag(),
		&cli.StringFlag{Name: "parity", Usage: "trl-0.9.4: every quirk of that version"},
	)
}

func paceFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "wave", Usage: "stories of one decode of the teacher's: a number, auto (measured on a card), measure"},
		microBatchFlag(),
	}
}

func microBatchFlag() cli.Flag {
	return &cli.StringFlag{Name: "micro-batch", Usage: "tokens of one pass of such a decode: a number, auto, measure"}
}

func overlapFlag() cli.Flag {
	return &cli.StringFlag{Name: "overlap", Usage: "rate stories while others are told, with the same result: on, off, auto = when a card is used"}
}

func runFlag() cli.Flag {
	return &cli.StringFlag{Name: "run", Value: "runs/default", Usage: "run `FOLDER`, made or gone on with"}
}

// resolve is the configuration of a command: defaults, the file, the flags.
func resolve(c *cli.Context) (config.Config, error) {
	k, err := config.Load(cmp.Or(c.String("config"), "default"))
	if err != nil {
		return k, err
	}
	// What a shell makes of an unset variable must not mean the storybook, or the
	// folder that one stands in.
	for _, name := range []string{"corpus", "run"} {
		if c.IsSet(name) && c.String(name) == "" {
			return k, fault.New(fault.Usage, "--%s is empty: give a path, or leave it out", name)
		}
	}
	set := func(name string, apply func()) {
		if c.IsSet(name) {
			apply()
		}
	}
	set("seed", func() { k.Run.Seed = c.Uint64("seed") })
	set("threads", func() { k.Run.Threads = c.Int("threads") })
	set("precision", func() { k.Run.Precision = c.String("precision") })
	set("recompute", func() { k.Run.Recompute = c.String("recompute") })
	set("backend", func() { k.Run.Backend = c.String("backend") })
	set("corpus", func() { k.Corpus.Path = c.String("corpus") })
	set("words", func() { k.Pretrain.Words = c.Int64("words") })
	set("teacher", func() { k.Teacher.Model = c.String("teacher") })
	set("teacher-device", func() { k.Teacher.Device = c.String("teacher-device") })
	set("second-judge", func() {
		k.Teacher.SecondJudge = c.String("second-judge")
		if k.Teacher.SecondJudge == "none" {
			k.Teacher.SecondJudge = ""
		}
	})
	set("llama-dir", func() { k.Teacher.LlamaDir = c.String("llama-dir") })
	set("rubric", func() { k.Teacher.Rubric = c.String("rubric") })
	set("reading", func() { k.Teacher.Reading = c.String("reading") })
	set("max-unreadable", func() { k.Teacher.MaxUnreadable = c.Float64("max-unreadable") })
	set("no-probe", func() { k.Teacher.Probe = !c.Bool("no-probe") })
	set("batches", func() { k.Interact.Batches = c.Int("batches") })
	set("budget", func() { k.Interact.BudgetWords = c.Int("budget") })
	set("length-bonus", func() { k.Reward.LengthBonus = c.Float64("length-bonus") })
	set("length-divisor", func() { k.Reward.LengthDivisor = c.Float64("length-divisor") })
	set("overlap", func() { k.Interact.Overlap = c.String("overlap") })
	set("parity", func() { k.PPO.Parity = c.String("parity") })
	for _, f := range []struct {
		name string
		pick *config.Pick
	}{{"wave", &k.Teacher.Wave}, {"micro-batch", &k.Teacher.MicroBatch}} {
		if !c.IsSet(f.name) || c.IntSlice(f.name) != nil { // bench teacher takes several waves
			continue
		}
		if *f.pick, err = config.ParsePick(c.String(f.name)); err != nil {
			return k, fmt.Errorf("--%s: %w", f.name, err)
		}
	}
	if c.IsSet("weights") {
		w := c.Float64Slice("weights")
		if len(w) != 3 {
			return k, fault.New(fault.Usage, "--weights: %d numbers; readability, coherence and creativity are three", len(w))
		}
		k.Teacher.Weights = [3]float64(w)
	}
	for _, kernel := range c.StringSlice("kernel") {
		isa, isISA := strings.CutPrefix(kernel, "isa=")
		switch {
		case isISA && isa != "":
			k.Run.ISA = isa
		case slices.Contains(student.Kernels(k.Run.Backend), kernel):
			k.Run.Kernels = strings.Trim(k.Run.Kernels+","+kernel, ",")
		default:
			return k, fault.New(fault.Usage, "--kernel %s: the variants are isa=auto, isa=%s, %s", kernel, strings.Join(student.ISAs, ", isa="), strings.Join(student.Kernels(k.Run.Backend), ", "))
		}
	}
	k = k.Resolve()
	return k, k.Check()
}

// reporter writes progress and events as the flags say.
func reporter(c *cli.Context) *metrics.Reporter {
	r := &metrics.Reporter{}
	if !c.Bool("quiet") {
		r.Text = c.App.ErrWriter
		if f, ok := c.App.ErrWriter.(*os.File); ok {
			r.Terminal = term.IsTerminal(int(f.Fd()))
		}
	}
	if c.Bool("json") {
		r.JSON = c.App.Writer
	}
	return r
}

// warnings are libllama's.
func warnings(c *cli.Context) *slog.Logger {
	return slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: slog.LevelError}))
}
