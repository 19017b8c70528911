package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"onceupon/bindings/llama"
	"onceupon/ggml"
	"onceupon/trainer/checkpoint"
	"onceupon/trainer/corpus"
	"onceupon/trainer/exchange"
	"onceupon/trainer/fault"
	"onceupon/trainer/judge"
	"onceupon/trainer/metrics"
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
			&cli.StringFlag{Name: "perplexity", Usage: "text `FILE`: instead of writing, the perplexity of every type on it through libllama"},
			&cli.StringFlag{Name: "out", Usage: "`PATH` to write"}),
		Action: export,
	}
}

func export(c *cli.Context) error {
	path, out := studentFile(c.String("run"), c.String("checkpoint")), c.String("out")
	f, err := ggml.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if (out == "") == (c.String("perplexity") == "") {
		return fault.New(fault.Usage, "export: give either --out PATH or --perplexity FILE")
	}
	if c.IsSet("perplexity") {
		return perplexityTable(c, f)
	}
	switch c.String("format") {
	case "hf":
		if c.IsSet("type") && c.String("type") != "f32" {
			return fault.New(fault.Usage, "export: --type %s is of GGUF files; a folder for transformers is f32", c.String("type"))
		}
		card, err := modelCard(c.String("run"), f)
		if err != nil {
			return err
		}
		if err := exchange.WriteHF(f, out, card); err != nil {
			return err
		}
	case "gguf":
		if err := exportGGUF(c, f, out); err != nil {
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
	for _, w := range files {
		r.Say("%s  %d bytes  sha256 %.16s", w.Path, w.Bytes, w.SHA256)
	}
	return r.Emit(map[string]any{"event": "result", "command": "export", "files": files})
}

func exportGGUF(c *cli.Context, f *ggml.File, out string) error {
	t, ok := exchange.Types[c.String("type")]
	if !ok {
		return fault.New(fault.Usage, "export: --type %q must be f32, f16, bf16, q8_0, q4_0 or q4_k", c.String("type"))
	}
	var quantize exchange.Quantizer
	if t != ggml.F32 && t != ggml.F16 && t != ggml.BF16 {
		library, err := openLibrary(c)
		if err != nil {
			return err
		}
		quantize = func(t ggml.Type, rows, cols int, x []float32) ([]byte, error) {
			return library.Quantize(uint32(t), rows, cols, t.Bytes(rows*cols), x)
		}
	}
	to, err := os.Create(out + ".part")
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	defer os.Remove(out + ".part")
	if err := exchange.WriteGGUF(f, to, t, quantize); err != nil {
		to.Close()
		return err
	}
	if err := to.Close(); err != nil {
		return err
	}
	return os.Rename(out+".part", out)
}

func openLibrary(c *cli.Context) (*llama.Library, error) {
	dir, err := judge.FindLlama(c.String("llama-dir"))
	if err != nil {
		return nil, err
	}
	return llama.Open(dir, llama.Options{AnyHash: c.IsSet("llama-dir"), Log: warnings(c)})
}

// perplexityRows bounds the text that is read, in contexts.
const perplexityRows = 100

func perplexityTable(c *cli.Context, f *ggml.File) error {
	text, err := corpus.Open(c.Context, c.String("perplexity"))
	if err != nil {
		return err
	}
	library, err := openLibrary(c)
	if err != nil {
		return err
	}
	joined := strings.Join(slices.Collect(text.Documents()), "\n")
	table, err := exchange.Table(c.Context, f, library, joined, perplexityRows, runtime.NumCPU())
	if err != nil {
		return err
	}
	if !c.Bool("json") {
		fmt.Fprintf(c.App.Writer, "| type | bytes | perplexity (%d tokens) |\n|---|---|---|\n", table[0].Tokens)
		for _, q := range table {
			fmt.Fprintf(c.App.Writer, "| %s | %d | %.4f |\n", q.Type, q.Bytes, q.Perplexity)
		}
	}
	return reporter(c).Emit(map[string]any{"event": "result", "command": "export", "types": table})
}

// modelCard tells where a student comes from, with its run's own figures.
func modelCard(folder string, f *ggml.File) (string, error) {
	h, _, err := ggml.ReadModel(f)
	if err != nil {
		return "", err
	}
	card := fmt.Sprintf("---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n# A student of onceupon\nGPT-2, %d layers, %d heads, width %d, context %d, %d tokens. Written by `onceupon export --format hf`.\n",
		h.Layers, h.Heads, h.Width, h.Context, h.Vocab)
	text, err := os.ReadFile(filepath.Join(folder, "result.json"))
	if errors.Is(err, os.ErrNotExist) {
		return card + "\nNo result of a finished run stands beside this student.\n", nil
	}
	if err != nil {
		return "", err
	}
	var r metrics.ResultEvent
	if err := json.Unmarshal(text, &r); err != nil {
		return "", fault.New(fault.Damaged, "%s: %w", filepath.Join(folder, "result.json"), err)
	}
	return card + fmt.Sprintf("\n| | |\n|---|---|\n| words of pretraining | %d |\n| words of interaction | %d |\n| score of its stories before, after (teacher, 0..9) | %.2f, %.2f |\n| rise, 95 %% interval | %+.2f, %+.2f..%+.2f |\n| seed | %d |\n",
		r.PretrainWords, r.BudgetWords, r.ScoreBefore, r.ScoreAfter, r.Rise, r.RiseCI[0], r.RiseCI[1], r.Seed), nil
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

func importCommand() *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "make a run of a GPT-2 from elsewhere: a folder of Hugging Face's or a GGUF, `PATH`",
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

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "metadata and tensors of a GGUF or safetensors `FILE`",
		ArgsUsage: "FILE",
		Flags:     commonFlags(),
		Action:    inspect,
	}
}

type inspected struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Shape []int  `json:"shape"` // row-major
	Bytes uint64 `json:"bytes"`
}

func inspect(c *cli.Context) error {
	if c.NArg() != 1 {
		return fault.New(fault.Usage, "inspect: give one file, not %d arguments", c.NArg())
	}
	path := c.Args().First()
	var tensors []inspected
	metadata := map[string]any{}
	if strings.HasSuffix(path, ".safetensors") {
		f, err := ggml.OpenSafetensors(path)
		if err != nil {
			return err
		}
		defer f.Close()
		for k, v := range f.Metadata {
			metadata[k] = v
		}
		for _, t := range f.Tensors {
			tensors = append(tensors, inspected{t.Name, t.Type, t.Shape, uint64(t.Bytes())})
		}
	} else {
		f, err := ggml.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		metadata = f.Metadata()
		for _, t := range f.Tensors {
			shape := make([]int, 0, len(t.Dims))
			for _, d := range slices.Backward(t.Dims) {
				shape = append(shape, int(d))
			}
			tensors = append(tensors, inspected{t.Name, t.Type.String(), shape, t.Size})
		}
	}
	if !c.Bool("json") {
		keys := make([]string, 0, len(metadata))
		for k := range metadata {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			fmt.Fprintf(c.App.Writer, "%-44s %s\n", k, short(metadata[k]))
		}
		for _, t := range tensors {
			fmt.Fprintf(c.App.Writer, "%-44s %-5s %-16s %d bytes\n", t.Name, t.Type, fmt.Sprint(t.Shape), t.Bytes)
		}
	}
	return reporter(c).Emit(map[string]any{"event": "result", "command": "inspect", "file": path, "metadata": metadata, "tensors": tensors})
}

// short is a value on one line; of long arrays the length.
func short(v any) string {
	switch x := v.(type) {
	case []string:
		return fmt.Sprintf("%d strings", len(x))
	case []any:
		return fmt.Sprintf("%d numbers", len(x))
	case string:
		return fmt.Sprintf("%.80q", x)
	}
	return fmt.Sprint(v)
}
