package exchange

import (
	"context"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"

	"onceupon/bindings/llama"
	"onceupon/ggml"
	"onceupon/trainer/fault"
	"onceupon/trainer/tokenizer"
)

// Quality is how well a student of one type reads a text through libllama.
type Quality struct {
	Type       string     `json:"type"`
	Bytes      int64      `json:"bytes"`
	Perplexity float64    `json:"perplexity"`          // exp of the mean of -log p, tokens
	Tokens     int        `json:"tokens"`              // that were scored
	Fallen     []Fallback `json:"fallbacks,omitempty"` // matrices of another type
}

// Table writes a student's file in every type, has libllama read the documents
// with each, and removes the files. The text is cut as in pretraining:
// documents joined by the end token, rows of one context, of which every token
// but the first is scored; at most rows of them.
func Table(ctx context.Context, f *ggml.File, l *llama.Library, documents iter.Seq[string], rows, threads int) ([]Quality, error) {
	h, v, err := ggml.ReadModel(f)
	if err != nil {
		return nil, err
	}
	tokens, err := tokenizer.FromParts(v.Tokens, v.Merges, v.Specials)
	if err != nil {
		return nil, fault.New(fault.Damaged, "%s: %w", f.Path, err)
	}
	var ids []int32
	for d := range documents {
		if ids = append(tokens.EncodeAppend(ids, d), v.End); len(ids) >= rows*h.Context {
			break
		}
	}
	if len(ids) < h.Context {
		return nil, fault.New(fault.Usage, "perplexity: the text has %d tokens; one context of %d is needed", len(ids), h.Context)
	}
	dir, err := os.MkdirTemp("", "onceupon")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	quantize := func(t ggml.Type, rows, cols int, x []float32) ([]byte, error) {
		return l.Quantize(uint32(t), rows, cols, t.Bytes(rows*cols), x)
	}
	var all []Quality
	for _, name := range []string{"f32", "bf16", "f16", "q8_0", "q4_k", "q4_0"} {
		path := filepath.Join(dir, name+".gguf")
		to, err := os.Create(path)
		if err != nil {
			return nil, err
		}
		q := Quality{Type: name}
		q.Fallen, err = WriteGGUF(f, to, Types[name], quantize)
		if closeErr := to.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return nil, err
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		q.Bytes = info.Size()
		if q.Perplexity, q.Tokens, err = perplexity(ctx, l, path, ids, h.Context, rows, threads); err != nil {
			return nil, err
		}
		all = append(all, q)
	}
	return all, nil
}

func perplexity(ctx context.Context, l *llama.Library, path string, ids []int32, length, rows, threads int) (float64, int, error) {
	m, err := l.LoadModel(path, "")
	if err != nil {
		return 0, 0, err
	}
	defer m.Close()
	c, err := m.NewContext(llama.ContextOptions{Tokens: length, Batch: length, Sequences: 1, Outputs: length, Threads: threads, Exact: true})
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	sum, n, done := 0.0, 0, 0
	for row := range slices.Chunk(ids, length) {
		if len(row) < length || done == rows {
			break
		}
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		batch := make([]llama.Token, length)
		for p, id := range row {
			batch[p] = llama.Token{ID: id, Position: int32(p), Logits: true}
		}
		if err := c.Forget(0, 0); err != nil {
			return 0, 0, err
		}
		if err := c.Decode(batch); err != nil {
			return 0, 0, err
		}
		for p := range length - 1 {
			z, err := c.Logits(p)
			if err != nil {
				return 0, 0, err
			}
			sum -= logSoftmax(z, int(row[p+1]))
			n++
		}
		done++
	}
	return math.Exp(sum / float64(n)), n, nil
}

func logSoftmax(z []float32, k int) float64 {
	top := float64(slices.Max(z))
	sum := 0.0
	for _, x := range z {
		sum += math.Exp(float64(x) - top)
	}
	return float64(z[k]) - top - math.Log(sum)
}
