package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"onceupon/trainer/fault"
	"onceupon/trainer/run"
	"onceupon/trainer/trace"
)

func verifyCommand() *cli.Command {
	flags := append(commonFlags(),
		&cli.StringFlag{Name: "backend", Value: "cpu", Usage: "of the student: cpu, cuda, ref"},
		&cli.StringSliceFlag{Name: "kernel", Usage: "variant of a kernel, such as matmul=openblas, or isa=avx2"},
		&cli.IntFlag{Name: "threads", Usage: "0 = one per core"},
	)
	return &cli.Command{
		Name:  "verify",
		Usage: "replay recorded traces of PyTorch and TRL: trust a kernel, a compiler, a machine",
		Subcommands: []*cli.Command{
			{Name: "gpt2", Usage: "logits, loss, gradients, AdamW of a folder", ArgsUsage: "DIR", Flags: flags, Action: verifyGPT2},
			{Name: "ppo", Usage: "TRL 0.9.4's PPO steps of a folder", ArgsUsage: "DIR", Action: verifyPPO, Flags: append(flags,
				&cli.StringFlag{Name: "case", Usage: "only this one"},
				&cli.IntFlag{Name: "heads", Usage: "of the student; default: found out from the log-probabilities"})},
		},
		Action: func(*cli.Context) error { return fault.New(fault.Usage, "verify: give gpt2 or ppo and a folder") },
	}
}

func traceOptions(c *cli.Context) (dir string, o trace.Options, err error) {
	if c.NArg() != 1 {
		return "", o, fault.New(fault.Usage, "verify %s: give one folder, not %d arguments", c.Command.Name, c.NArg())
	}
	k, err := resolve(c)
	return c.Args().First(), trace.Options{Backend: k.Run.Backend, ISA: k.Run.ISA, Kernels: k.Run.Kernels, Threads: run.Threads(k)}, err
}

func verifyGPT2(c *cli.Context) error {
	dir, o, err := traceOptions(c)
	if err != nil {
		return err
	}
	checks, err := trace.GPT2(dir, o)
	if err != nil {
		return err
	}
	return verdict(c, dir, checks)
}

func verifyPPO(c *cli.Context) error {
	dir, o, err := traceOptions(c)
	if err != nil {
		return err
	}
	o.Case, o.Heads = c.String("case"), c.Int("heads")
	if c.IsSet("heads") && o.Heads < 1 {
		return fault.New(fault.Usage, "--heads %d: must be at least 1", o.Heads)
	}
	checks, err := trace.PPO(c.Context, dir, o)
	if err != nil {
		return err
	}
	return verdict(c, dir, checks)
}

func verdict(c *cli.Context, dir string, checks []trace.Check) error {
	failed := 0
	for _, k := range checks {
		word := "pass"
		if !k.Pass {
			word = "FAIL"
			failed++
		}
		if !c.Bool("json") {
			fmt.Fprintf(c.App.Writer, "%-4s %-14s %-58s %9.2e  tolerance %8.1e\n", word, k.Case, k.Array, k.MaxDiff, k.Tolerance)
		}
	}
	r := reporter(c)
	r.Say("%s: %d of %d arrays pass", dir, len(checks)-failed, len(checks))
	err := r.Emit(map[string]any{"event": "result", "command": "verify", "checks": checks, "passed": failed == 0})
	if err == nil && failed > 0 {
		err = fault.New(fault.Failed, "verify %s: %d of %d arrays exceed their tolerance", dir, failed, len(checks))
	}
	return err
}
