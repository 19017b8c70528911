package main

import (
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
	if entries, err := os.ReadDir(folder); err == nil && len(entries) > 0 {
		return fault.New(fault.Usage, "import: %s is not empty: choose another --out", folder)
	}
	var h checkpoint.Header
	for _, name := range []string{"pretrained", "best"} {
		h, err = checkpoint.Save(filepath.Join(folder, "checkpoints"), name, checkpoint.Contents{Model: s.Model, Vocabulary: s.Vocabulary(),
			State: map[string]string{"imported": filepath.Base(c.Args().First())}, WeightsOnly: true})
		if err != nil {
			return err
		}
	}
	if err := s.Tokenizer.Save(filepath.Join(folder, "tokenizer.json")); err != nil {
		return err
	}
	k := s.Model.Config()
	r := reporter(c)
	r.Say("%s: %d layers, %d heads, width %d, context %d, %d tokens; `onceupon interact --student %s` teaches it", folder, k.Layers, k.Heads, k.Width, k.Context, k.Vocab, folder)
	return r.Emit(map[string]any{"event": "result", "command": "import", "run": folder, "layers": k.Layers, "heads": k.Heads, "width": k.Width,
		"context": k.Context, "vocab": k.Vocab, "weights_sha256": h.WeightsSHA256})
}
