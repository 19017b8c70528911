package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"onceupon/bindings/llama"
	"onceupon/ggml"
	"onceupon/trainer/checkpoint"
	"onceupon/trainer/corpus"
	"onceupon/trainer/exchange"
	"onceupon/trainer/fault"
	"onceupon/trainer/judge"
	"onceupon/trainer/report"
	"onceupon/trainer/run"
)

func exportCommand() *cli.Command {
	return &cli.Command{
		Name:  "export",
		Usage: "write a student for other programs: GGUF for llama.cpp, a folder for transformers",
		Flags: append(commonFlags(),
			&cli.StringFlag{Name: "run", Usage: "run `FOLDER` or GGUF file of a student", Required: true},
			&cli.StringFlag{Name: "checkpoint", Value: "best", Usage: "`NAME` of the run's checkpoint"},
			&cli.StringFlag{Name: "format", Value: "gguf", Usage: "gguf, hf"},
			&cli.StringFlag{Name: "type", Value: "f32", Usage: "of a GGUF's matrices: f32, f16, bf16, q8_0, q4_0, q4_k"},
			&cli.StringFlag{Name: "llama-dir", Usage: "`FOLDER` of libllama, whose libggml quantises"},
			&cli.StringFlag{Name: "perplexity", Usage: "instead of writing, how well libllama reads with every type: a text `FILE`, or held-out, the run's own held-out text"},
			&cli.StringFlag{Name: "out", Usage: "`PATH` to write"}),
		Action: export,
	}
}

func export(c *cli.Context) error {
	out := c.String("out")
	path, err := studentFile(c.String("run"), c.String("checkpoint"))
	if err != nil {
		return err
	}
	f, err := ggml.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if (out == "") == (c.String("perplexity") == "") {
		return fault.New(fault.Usage, "export: give either --out PATH or --perplexity FILE")
	}
	if out == "" {
		return perplexityTable(c, f)
	}
	var fallen []exchange.Fallback
	switch c.String("format") {
	case "hf":
		if c.IsSet("type") && c.String("type") != "f32" {
			return fault.New(fault.Usage, "export: --type %s is of GGUF files; a folder for transformers is f32", c.String("type"))
		}
		card, err := modelCard(c.String("run"), path, f)
		if err != nil {
			return err
		}
		if err := exchange.WriteHF(f, out, card); err != nil {
			return noRoom(err)
		}
	case "gguf":
		if fallen, err = exportGGUF(c, f, out); err != nil {
			return err
		}
	default:
		return fault.New(fault.Usage, "export: --format %q must be gguf or hf", c.String("format"))
	}
	files, err := written(out)
	if err != nil {
		return err
	}
	r := reporter(c)
	if len(fallen) > 0 {
		r.Say("%s", fellBack(c.String("type"), fallen))
	}
	for _, w := range files {
		r.Say("%s  %d bytes  sha256 %.16s", w.Path, w.Bytes, w.SHA256)
	}
	return r.Emit(map[string]any{"event": "result", "command": "export", "files": files, "fallbacks": fallen})
}

// fellBack names the matrices that could not have a type.
func fellBack(t string, fallen []exchange.Fallback) string {
	block := exchange.Types[t].Block()
	var names []string
	for _, x := range fallen {
		names = append(names, fmt.Sprintf("%s (%d wide, now %s)", x.Tensor, x.Cols, x.Type))
	}
	return fmt.Sprintf("%s needs widths that are multiples of %d; %d matrices fall back: %s", t, block, len(fallen), strings.Join(names, ", "))
}

func exportGGUF(c *cli.Context, f *ggml.File, out string) ([]exchange.Fallback, error) {
	t, ok := exchange.Types[c.String("type")]
	if !ok {
		return nil, fault.New(fault.Usage, "export: --type %q must be f32, f16, bf16, q8_0, q4_0 or q4_k", c.String("type"))
	}
	var quantize exchange.Quantizer
	if t != ggml.F32 && t != ggml.F16 && t != ggml.BF16 {
		library, err := openLibrary(c)
		if err != nil {
			return nil, err
		}
		quantize = func(t ggml.Type, rows, cols int, x []float32) ([]byte, error) {
			return library.Quantize(uint32(t), rows, cols, t.Bytes(rows*cols), x)
		}
	}
	if err := replaceable(out); err != nil {
		return nil, fault.New(fault.Usage, "export: --out %s %w: give the name of a file", out, err)
	}
	to, err := os.Create(out + ".part")
	if err != nil {
		return nil, fault.New(fault.Usage, "export: %w: choose another --out", err)
	}
	defer os.Remove(out + ".part")
	fallen, err := exchange.WriteGGUF(f, to, t, quantize)
	if err != nil {
		to.Close()
		return nil, noRoom(err)
	}
	if err := to.Close(); err != nil {
		return nil, noRoom(err)
	}
	return fallen, os.Rename(out+".part", out)
}

// noRoom adds the remedy to the error of a full disk.
func noRoom(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("export: %w: free some space or choose another --out", err)
	}
	return err
}

func openLibrary(c *cli.Context) (*llama.Library, error) {
	return judge.OpenLlama(c.String("llama-dir"), "cpu", warnings(c))
}

// perplexityRows bounds the text that is read, in contexts.
const perplexityRows = 100

// heldOut stands for the run's own held-out text.
const heldOut = "held-out"

func perplexityTable(c *cli.Context, f *ggml.File) error {
	var documents iter.Seq[string]
	if name := c.String("perplexity"); name == heldOut {
		var err error
		if documents, err = run.HeldOut(c.Context, c.String("run")); err != nil {
			return err
		}
	} else {
		text, err := corpus.Open(c.Context, name)
		if err != nil {
			return err
		}
		documents = text.Documents()
	}
	library, err := openLibrary(c)
	if err != nil {
		return err
	}
	table, err := exchange.Table(c.Context, f, library, documents, perplexityRows, runtime.NumCPU())
	if err != nil {
		return err
	}
	r := reporter(c)
	if !c.Bool("json") {
		fmt.Fprintf(c.App.Writer, "| type | bytes | perplexity (%d tokens) | of f32's |\n|---|---|---|---|\n", table[0].Tokens)
		for _, q := range table {
			fmt.Fprintf(c.App.Writer, "| %s | %d | %.4f | %+.2f %% |\n", q.Type, q.Bytes, q.Perplexity, 100*(q.Perplexity/table[0].Perplexity-1))
		}
	}
	for _, q := range table {
		if len(q.Fallen) > 0 {
			r.Say("%s", fellBack(q.Type, q.Fallen))
		}
	}
	return r.Emit(map[string]any{"event": "result", "command": "export", "types": table})
}

// modelCard tells what a student is and where it comes from, with its run's own
// figures.
func modelCard(folder, path string, f *ggml.File) (string, error) {
	h, _, err := ggml.ReadModel(f)
	if err != nil {
		return "", err
	}
	card := fmt.Sprintf(`---
library_name: transformers
pipeline_tag: text-generation
---
# A student of onceupon
GPT-2 of %d layers, %d heads, width %d, context %d, %d tokens, written by `+"`onceupon export --format hf`"+`. To use it:

    from transformers import pipeline
    print(pipeline("text-generation", "this folder")("Once upon a time")[0]["generated_text"])
`, h.Layers, h.Heads, h.Width, h.Context, h.Vocab)
	weights, state := "", filepath.Dir(path)
	if _, err := os.Stat(filepath.Join(state, "state.json")); err == nil {
		described, err := checkpoint.Describe(state)
		if err != nil {
			return "", err
		}
		weights = described.WeightsSHA256
		card += fmt.Sprintf("\nCheckpoint `%s` of its run.\n", filepath.Base(state))
	}
	made, err := report.Card(folder, weights)
	return card + made, err
}

type writtenFile struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// written lists a file, or the files of a folder.
func written(path string) ([]writtenFile, error) {
	var all []writtenFile
	err := filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		n, err := io.Copy(h, f)
		all = append(all, writtenFile{p, n, hex.EncodeToString(h.Sum(nil))})
		return err
	})
	return all, err
}
