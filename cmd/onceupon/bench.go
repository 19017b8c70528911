package main

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"onceupon/bindings/student"
	"onceupon/trainer/bench"
	"onceupon/trainer/corpus"
	"onceupon/trainer/fault"
	"onceupon/trainer/storybook"
)

func benchCommand() *cli.Command {
	threads := &cli.IntFlag{Name: "threads", Usage: "0 = one per core"}
	flags := func(more ...cli.Flag) []cli.Flag { return benchFlags(append(commonFlags(), threads), more...) }
	shape := &cli.StringFlag{Name: "shape", Value: "default", Usage: "default, small, tiny; student also small64 (rows of 64 tokens) and paper (360 stories, for a card), ops also rollout or stories,length,width,heads,vocab"}
	backend := &cli.StringFlag{Name: "backend", Value: "cpu", Usage: "cpu, cuda, ref"}
	variant := &cli.StringSliceFlag{Name: "variant", Usage: "of the cpu backend: an ISA (auto, avx512bf16, avx512, avx2, portable) or a kernel such as matmul=openblas; of cuda a precision (auto, bf16, fp32) or a kernel such as matmul=wgmma; several are timed side by side"}
	recompute := &cli.StringSliceFlag{Name: "recompute", Value: cli.NewStringSlice("none"), Usage: "instead of keeping it, in training: none, ffn, layer, pair; several are timed one after the other"}
	peer := &cli.StringSliceFlag{Name: "peer", Usage: "`NAME=PROGRAM ARGS` that does the same work (scripts/peers); student also libllama"}
	return &cli.Command{
		Name:  "bench",
		Usage: "time ops, student, teacher, loop and tokenizer against the machine's roofline and peers",
		Description: "Writes Go's benchmark format, which benchstat reads; --json one document; --markdown a table. Times are the least of the\n" +
			"samples. The roofline (multiply-add peak, memory read) is measured in the same run.",
		Subcommands: []*cli.Command{
			{Name: "ops", Usage: "every op of a backend", Action: benchOps,
				Flags: flags(shape, backend, variant, &cli.StringFlag{Name: "openblas", Usage: "shared library `FILE`; \"\" looks where the system has it"})},
			{Name: "student", Usage: "training step, telling, PPO batch", Action: benchStudent, Flags: flags(shape, backend, variant, recompute, peer,
				yesFlag("stages", "a result for every op of it: its time and its share"))},
			{Name: "tokenizer", Usage: "learning and encoding", Action: benchTokenizer, Flags: flags(peer,
				&cli.StringFlag{Name: "corpus", Usage: "text `FILE` or folder; \"\" = the storybook"},
				&cli.IntFlag{Name: "vocab", Value: 16000, Usage: "tokens"},
				&cli.Float64Flag{Name: "megabytes", Value: 20, Usage: "of the text, at most"})},
			{Name: "teacher", Usage: "reading the rubric and stories, with and without sharing the rubric", Action: benchTeacher,
				Flags: benchFlags(configFlags(), append(teacherFlags(), &cli.IntFlag{Name: "stories", Value: 6, Usage: "read in one sample"},
					&cli.IntSliceFlag{Name: "wave", Usage: "stories of one decode; several are timed one after the other"},
					microBatchFlag(),
					&cli.StringFlag{Name: "synthetic", Usage: "a teacher of a `SHAPE` with random weights: llama-3.1-8b"},
					&cli.StringFlag{Name: "type", Value: "q8_0", Usage: "of its matrices: f16, q8_0, q4_k"},
					&cli.IntFlag{Name: "layers", Usage: "of it; 0 = all"},
					&cli.StringFlag{Name: "keep", Usage: "`FOLDER` where its file stays and is found the next time"},
					&cli.StringFlag{Name: "vocabulary", Value: "smollm2-135m", Usage: "whose tokens it gets: a name or a GGUF `PATH` with byte-level BPE"})...)},
			{Name: "loop", Usage: "real batches: told, judged, learnt from", Action: benchLoop,
				Flags: append(slices.Concat(studentFlags(), teacherFlags(), teachingFlags(), paceFlags()), markdownFlag(), peer, overlapFlag(),
					&cli.IntFlag{Name: "batches", Value: 3, Usage: "timed; one more runs before them"},
					&cli.IntFlag{Name: "stories", Usage: "of a batch; 0 = the configuration's"},
					&cli.Int64Flag{Name: "words", Usage: "of pretraining before, when no student is given; 0 = 20,000, and on a card enough for two updates"},
					&cli.StringFlag{Name: "student", Usage: "GGUF `FILE` of a pretrained student, or a run FOLDER"},
					&cli.Float64Flag{Name: "watts", Usage: "of the machine under load, for the energy of the projection; a known card's limit by default"},
					yesFlag("stages", "a result for every stage of a batch"))},
			{Name: "compare", Usage: "two files that --json wrote, with their noise", ArgsUsage: "OLD NEW", Flags: commonFlags(), Action: benchCompare},
		},
		Action: func(*cli.Context) error {
			return fault.New(fault.Usage, "bench: give ops, student, teacher, loop, tokenizer or compare")
		},
	}
}

// benchFlags are the flags of all benches, after those of the program.
func benchFlags(common []cli.Flag, more ...cli.Flag) []cli.Flag {
	return append(append(common, markdownFlag(),
		&cli.StringFlag{Name: "filter", Usage: "cases whose name matches `REGEXP`"},
		&cli.DurationFlag{Name: "time", Value: 200e6, Usage: "of a sample, at least"},
		&cli.IntFlag{Name: "count", Value: 5, Usage: "samples of a case; the least counts, all are printed"}), more...)
}

func markdownFlag() cli.Flag {
	return yesFlag("markdown", "a table instead of Go's benchmark format")
}

// measurement reads the flags that all benches share.
func measurement(c *cli.Context) (bench.Options, bench.Machine, []string, error) {
	o := bench.Options{Threads: cmp.Or(c.Int("threads"), runtime.NumCPU()), Time: c.Duration("time"), Count: c.Int("count"), Say: reporter(c).Say}
	if o.Count < 1 || o.Time <= 0 || o.Threads < 1 || o.Threads > 1024 {
		return o, bench.Machine{}, nil, fault.New(fault.Usage, "bench: --count, --time and --threads (at most 1024) must be above 0")
	}
	if f := c.String("filter"); f != "" {
		var err error
		if o.Filter, err = regexp.Compile(f); err != nil {
			return o, bench.Machine{}, nil, fault.New(fault.Usage, "--filter: %w", err)
		}
	}
	variants := c.StringSlice("variant")
	if len(variants) == 0 && c.String("backend") == "cuda" {
		variants = slices.Clone(student.Precisions)
	} else if len(variants) == 0 {
		variants = []string{"auto"}
	}
	known, best := slices.Concat(student.ISAs, student.Kernels("cpu")), student.BestISA()
	switch b := c.String("backend"); b {
	case "", "cpu": // benches without the flag are of the processor
	case "cuda":
		known, best = slices.Concat(student.Precisions, student.Kernels("cuda")), student.Precisions[0]
	case "ref":
		known, best = []string{"plain"}, "plain"
	default:
		return o, bench.Machine{}, nil, fault.New(fault.Usage, "--backend %s: the backends are cpu, cuda and ref", b)
	}
	for i, v := range variants {
		if v == "auto" {
			variants[i] = best
		} else if !slices.Contains(known, v) {
			return o, bench.Machine{}, nil, fault.New(fault.Usage, "--variant %s: the variants are auto, %s", v, strings.Join(known, ", "))
		}
	}
	if c.String("backend") == "cuda" { // before a second of measuring
		if _, err := student.CUDADevice(); err != nil {
			return o, bench.Machine{}, nil, err
		}
	}
	m, err := bench.ThisMachine(student.BestISA(), o.Threads)
	if err == nil && c.String("backend") == "cuda" {
		m, err = m.WithDevice()
	}
	return o, m, variants, err
}

// present prints a report in the form asked for; more is for JSON alone.
func present(c *cli.Context, m bench.Machine, results []bench.Result, more map[string]any) error {
	r := bench.Report{Format: bench.ReportFormat, Machine: m, Results: results}
	switch {
	case c.Bool("json"):
		result := map[string]any{"event": "result", "command": "bench", "format": bench.ReportFormat, "results": r.Results, "machine": r.Machine}
		maps.Copy(result, more)
		return reporter(c).Emit(result)
	case c.Bool("markdown"):
		return r.Markdown(c.App.Writer)
	}
	return r.Text(c.App.Writer)
}

func peers(c *cli.Context, builtIn ...string) ([]bench.Command, error) {
	var all []bench.Command
	for _, text := range c.StringSlice("peer") {
		p, err := bench.ParseCommand(text, builtIn)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

func benchOps(c *cli.Context) error {
	blas, err := bench.OpenOpenBLAS(c.String("openblas"))
	if err != nil {
		return err
	}
	o, m, variants, err := measurement(c)
	if err != nil {
		return err
	}
	if c.String("backend") == "cuda" {
		blas = nil // a peer of the processor's
	}
	results, err := bench.Ops(c.Context, m, o, c.String("shape"), c.String("backend"), variants, blas)
	if err != nil {
		return err
	}
	return present(c, m, results, nil)
}

func benchStudent(c *cli.Context) error {
	p, err := peers(c, bench.BuiltIn...)
	if err != nil {
		return err
	}
	o, m, variants, err := measurement(c)
	if err != nil {
		return err
	}
	var results []bench.Result
	for _, v := range variants {
		for _, level := range c.StringSlice("recompute") {
			r, err := bench.Student(c.Context, m, o, c.String("shape"), c.String("backend"), v, level, c.Bool("stages"), p)
			if err != nil {
				return err
			}
			results = append(results, r...)
		}
	}
	if !slices.ContainsFunc(results, func(r bench.Result) bool { return strings.HasPrefix(r.Name, "train") }) {
		return present(c, m, results, nil)
	}
	o.Say("%s", bench.MFU)
	return present(c, m, results, map[string]any{"notes": []string{bench.MFU}})
}

func benchTokenizer(c *cli.Context) error {
	p, err := peers(c)
	if err != nil {
		return err
	}
	megabytes := c.Float64("megabytes")
	if !(megabytes >= 0.001 && megabytes <= 1e5) {
		return fault.New(fault.Usage, "--megabytes %g: must be in 0.001..100000", megabytes)
	}
	limit := int(megabytes * 1e6)
	docs := storybook.New(1).Documents(limit)
	if path := c.String("corpus"); path != "" {
		text, err := corpus.Open(c.Context, path)
		if err != nil {
			return err
		}
		docs = text.Documents()
	}
	var all []string
	size := 0
	for d := range docs {
		if size += len(d); size > limit {
			break
		}
		all = append(all, d)
	}
	o, m, _, err := measurement(c)
	if err != nil {
		return err
	}
	results, err := bench.Tokenizer(c.Context, o, all, c.Int("vocab"), p)
	if err != nil {
		return err
	}
	return present(c, m, results, nil)
}

func benchCompare(c *cli.Context) error {
	if c.NArg() != 2 {
		return fault.New(fault.Usage, "bench compare: give two files that `bench --json` wrote")
	}
	old, err := bench.Read(c.Args().Get(0))
	if err != nil {
		return err
	}
	now, err := bench.Read(c.Args().Get(1))
	if err != nil {
		return err
	}
	all, alone, err := bench.Compare(old, now)
	if err != nil {
		return err
	}
	r := reporter(c)
	if a, b := old.Machine, now.Machine; a.Version != b.Version || a.Library != b.Library {
		r.Say("old is onceupon %s with libstudent %s, new %s with %s", a.Version, a.Library, b.Version, b.Library)
	}
	for _, name := range alone {
		r.Say("only in one file: %s", name)
	}
	if c.Bool("json") {
		return r.Emit(map[string]any{"event": "result", "command": "bench", "comparisons": all, "alone": alone})
	}
	var b strings.Builder
	for _, x := range all {
		fmt.Fprintf(&b, "%-60s %12.0f %12.0f ns/op  x %.3f  noise %4.1f %%  %s\n", x.Name, x.Old, x.New, x.Ratio, 100*x.Noise, x.Change)
	}
	_, err = fmt.Fprint(c.App.Writer, b.String())
	return err
}
