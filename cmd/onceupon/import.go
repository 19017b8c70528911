package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"onceupon/trainer/checkpoint"
	"onceupon/trainer/exchange"
	"onceupon/trainer/fault"
)

func importCommand() *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "make a run of a GPT-2 from elsewhere: a folder of Hugging Face's or a GGUF",
		ArgsUsage: "PATH",
		Flags:     append(commonFlags(), &cli.StringFlag{Name: "out", Usage: "run `FOLDER` to make", Required: true}),
		Action:    importStudent,
	}
}

func importStudent(c *cli.Context) error {
	if c.NArg() != 1 {
		return fault.New(fault.Usage, "import: give one folder or file, not %d arguments", c.NArg())
	}
	s, err := exchange.Import(c.Args().First())
	if err != nil {
		return err
	}
	defer s.Model.Close()
	folder := c.String("out")
	h, err := makeRun(c.Context, folder, s, filepath.Base(c.Args().First()))
	if err != nil {
		return err
	}
	k := s.Model.Config()
	r := reporter(c)
	r.Say("%s: %d layers, %d heads, width %d, context %d, %d tokens; `onceupon interact --student %s` teaches it", folder, k.Layers, k.Heads, k.Width, k.Context, k.Vocab, folder)
	return r.Emit(map[string]any{"event": "result", "command": "import", "run": folder, "layers": k.Layers, "heads": k.Heads, "width": k.Width,
		"context": k.Context, "vocab": k.Vocab, "weights_sha256": h.WeightsSHA256})
}

// makeRun fills a folder with an imported student: in a part of it first, so that
// nothing is there unless all is. What another import left of its part goes.
func makeRun(ctx context.Context, folder string, s exchange.Imported, from string) (h checkpoint.Header, err error) {
	part := filepath.Join(folder, ".import.part")
	entries, missing := os.ReadDir(folder)
	for _, e := range entries {
		if e.Name() != filepath.Base(part) {
			return h, fault.New(fault.Usage, "import: %s is not empty: choose another --out", folder)
		}
	}
	defer func() {
		if left := os.RemoveAll(part); err == nil {
			err = left
		}
		if err != nil && missing != nil {
			os.Remove(folder) // which was made here
		}
	}()
	if err := os.RemoveAll(part); err != nil {
		return h, err
	}
	for _, name := range []string{"pretrained", "best"} {
		h, err = checkpoint.Save(filepath.Join(part, "checkpoints"), name, checkpoint.Contents{Model: s.Model, Vocabulary: s.Vocabulary(),
			State: map[string]string{"imported": from}, WeightsOnly: true})
		if err != nil {
			return h, fmt.Errorf("import: --out %s: %w: free some space or choose another --out", folder, err)
		}
	}
	if err := s.Tokenizer.Save(filepath.Join(part, "tokenizer.json")); err != nil {
		return h, fmt.Errorf("import: --out %s: %w: free some space or choose another --out", folder, err)
	}
	if err := ctx.Err(); err != nil {
		return h, fmt.Errorf("import: %w, %s is as it was", err, folder)
	}
	for _, name := range []string{"tokenizer.json", "checkpoints"} {
		if err := os.Rename(filepath.Join(part, name), filepath.Join(folder, name)); err != nil {
			return h, err
		}
	}
	return h, nil
}
