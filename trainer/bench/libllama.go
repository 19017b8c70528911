package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"onceupon/bindings/llama"
	"onceupon/bindings/student"
	"onceupon/ggml"
	"onceupon/trainer/fault"
	"onceupon/trainer/judge"
)

// BuiltIn are the peers that need no program: libllama tells stories from the
// student's own GGUF, in this process.
var BuiltIn = []string{"libllama"}

// libllama times the telling of the same stories by libllama: the prompt read
// once and shared, then one token of every story of a wave in a decode. All
// stories at once and half of them are tried, and the best counts. Tokens are chosen greedily,
// which costs less than the drawing that the student does.
func (b *studentBench) libllama(ctx context.Context, task string, o Options) (Peer, error) {
	peer := Peer{Name: "libllama"}
	if task != "generate" {
		peer.Missing = "this peer has no task " + task
		return peer, nil
	}
	library, err := judge.OpenLlama("", "cpu", nil)
	if err != nil {
		peer.Missing = err.Error()
		return peer, nil
	}
	folder, err := os.MkdirTemp("", "onceupon-bench-")
	if err != nil {
		return peer, fault.Wrap(fault.Failed, err)
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "student.gguf")
	if err := b.export(path); err != nil {
		return peer, err
	}
	model, err := library.LoadModel(path, "")
	if err != nil {
		return peer, err
	}
	defer model.Close()
	n, best := b.work.Tellers, 0
	tell := func(wave int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		start := time.Now()
		t := telling{model: model, work: b.work, prompt: b.prompt(), wave: wave, threads: o.Threads}
		if err := t.run(); err != nil {
			return err
		}
		if took := float64(time.Since(start).Nanoseconds()); peer.NsPerOp == 0 || took < peer.NsPerOp {
			peer.NsPerOp, best = took, wave
		}
		return nil
	}
	for range o.Count + 1 { // one warms up
		if err := tell(n); err != nil {
			return peer, err
		}
	}
	if err := tell(max(1, n/2)); err != nil {
		return peer, err
	}
	o.Say("  libllama is fastest with %d stories a decode", best)
	return peer, nil
}

// export writes the policy as a GGUF. In bf16 its matrices are bf16 too. The
// vocabulary has the right size and no meaning: nothing is tokenized.
func (b *studentBench) export(path string) error {
	c := b.work.Config
	v := ggml.Vocabulary{Tokens: make([]string, c.Vocab), Merges: []string{"t 0"}, Specials: []string{"t1"}, End: 1}
	for i := range v.Tokens {
		v.Tokens[i] = fmt.Sprintf("t%d", i)
	}
	kind := ggml.F32
	if b.policy.ISA() == "avx512bf16" {
		kind = ggml.BF16
	}
	var tensors []ggml.Tensor
	for i, p := range b.policy.Parameters() {
		if p.Name == "value_head.weight" || p.Name == "value_head.bias" {
			continue
		}
		t := ggml.Tensor{Name: p.Name, Cols: p.Cols, Read: func() ([]float32, error) {
			x := make([]float32, p.Count())
			return x, b.policy.Read(student.Weights, i, x)
		}}
		if p.Matrix {
			t.Rows = p.Rows
			if kind == ggml.BF16 && p.Name != "position_embd.weight" {
				t.Type, t.Encode = kind, ggml.EncodeBF16
			}
		}
		tensors = append(tensors, t)
	}
	f, err := os.Create(path)
	if err != nil {
		return fault.Wrap(fault.Failed, err)
	}
	defer f.Close()
	h := ggml.Hyper{Layers: c.Layers, Heads: c.Heads, Width: c.Width, Context: c.Context, Vocab: c.Vocab, LayerNormEpsilon: c.LayerNormEpsilon}
	if err := ggml.WriteModel(f, "a student for a measurement", h, v, kind, tensors); err != nil {
		return err
	}
	return f.Close()
}

// telling is one way to tell all stories of a work with libllama.
type telling struct {
	model         *llama.Model
	work          Work
	prompt        []int32
	wave, threads int
}

func (t telling) run() error {
	w := t.work
	c, err := t.model.NewContext(llama.ContextOptions{Tokens: w.Prompt + t.wave*w.Tokens + 32, Batch: max(w.Prompt, t.wave), Sequences: t.wave + 1,
		Outputs: t.wave, Threads: t.threads})
	if err != nil {
		return err
	}
	defer c.Close()
	read := make([]llama.Token, w.Prompt)
	for i, id := range t.prompt {
		read[i] = llama.Token{ID: id, Position: int32(i), Logits: i == w.Prompt-1}
	}
	for told := 0; told < w.Tellers; told += t.wave {
		for s := range t.wave + 1 {
			if err := c.Forget(int32(s), 0); err != nil {
				return err
			}
		}
		if err := c.Decode(read); err != nil {
			return err
		}
		logits, err := c.Logits(w.Prompt - 1)
		if err != nil {
			return err
		}
		next := make([]llama.Token, t.wave)
		for s := range next {
			c.Share(0, int32(s+1))
			// Stories begin with different tokens, so that they differ.
			next[s] = llama.Token{ID: (greedy(logits) + int32(s)) % int32(w.Config.Vocab), Position: int32(w.Prompt), Sequence: int32(s + 1), Logits: true}
		}
		for range w.Tokens - 1 {
			if err := c.Decode(next); err != nil {
				return err
			}
			for s := range next {
				logits, err := c.Logits(s)
				if err != nil {
					return err
				}
				next[s].ID = greedy(logits)
				next[s].Position++
			}
		}
	}
	return nil
}

func greedy(logits []float32) int32 {
	best := 0
	for i, l := range logits {
		if l > logits[best] {
			best = i
		}
	}
	return int32(best)
}
