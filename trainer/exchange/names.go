// Package exchange owns the student's way to and from other programs: Hugging
// Face's GPT-2 folders and GGUF files.
package exchange

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"onceupon/bindings/student"
	"onceupon/ggml"
	"onceupon/trainer/fault"
)

// hfNames pairs the student's parameter names (GGUF's) with Hugging Face's for
// GPT-2; conv marks Conv1D matrices, stored [in][out] there and [out][in] here.
var hfNames = []struct {
	ours, hf string
	conv     bool
}{
	{"token_embd.", "wte.", false},
	{"position_embd.", "wpe.", false},
	{"output_norm.", "ln_f.", false},
	{"attn_norm.", "ln_1.", false},
	{"attn_qkv.", "attn.c_attn.", true},
	{"attn_output.", "attn.c_proj.", true},
	{"ffn_norm.", "ln_2.", false},
	{"ffn_up.", "mlp.c_fc.", true},
	{"ffn_down.", "mlp.c_proj.", true},
}

var block = regexp.MustCompile(`^blk\.([0-9]+)\.`)

// valueHead is TRL's name of the value head (AutoModelForCausalLMWithValueHead).
const valueHead = "v_head.summary."

// HFName is a parameter's name in Hugging Face's GPT2LMHeadModel, and whether
// its matrix lies the other way round there.
func HFName(p student.Parameter) (name string, transposed bool) {
	if tail, ok := strings.CutPrefix(p.Name, "value_head."); ok {
		return valueHead + tail, false
	}
	rest, prefix := p.Name, "transformer."
	if m := block.FindStringSubmatch(p.Name); m != nil {
		rest, prefix = p.Name[len(m[0]):], "transformer.h."+m[1]+"."
	}
	for _, n := range hfNames {
		if tail, ok := strings.CutPrefix(rest, n.ours); ok {
			return prefix + n.hf + tail, n.conv && p.Matrix
		}
	}
	return prefix + rest, false
}

// FromHF reads parameter p from a file in the student's layout; prefix stands
// before Hugging Face's name. A file of the bare GPT2Model has no
// "transformer." in its names.
func FromHF(f *ggml.Safetensors, prefix string, p student.Parameter) ([]float32, error) {
	name, transposed := HFName(p)
	name = prefix + name
	if bare := strings.TrimPrefix(name, "transformer."); !f.Has(name) && f.Has(bare) {
		name = bare
	}
	t, err := f.Tensor(name)
	if err != nil {
		return nil, err
	}
	want := []int{p.Count()}
	switch {
	case transposed:
		want = []int{p.Cols, p.Rows}
	case p.Matrix:
		want = []int{p.Rows, p.Cols}
	case p.Name == "value_head.weight":
		want = []int{1, p.Count()}
	}
	if !slices.Equal(t.Shape, want) {
		return nil, fault.New(fault.Damaged, "%s: tensor %s has shape %v; the student needs %v", f.Path, name, t.Shape, want)
	}
	x, err := t.Float32()
	if err != nil {
		return nil, fault.New(fault.Damaged, "%s: %w", f.Path, err)
	}
	for i, v := range x {
		if v-v != 0 { // NaN or infinite
			return nil, fault.New(fault.Damaged, "%s: tensor %s: entry %d is %v", f.Path, name, i, v)
		}
	}
	if transposed {
		x = transpose(x, p.Cols, p.Rows)
	}
	return x, nil
}

// transpose turns a matrix [rows][cols] into [cols][rows].
func transpose(x []float32, rows, cols int) []float32 {
	out := make([]float32, len(x))
	for r := range rows {
		for c := range cols {
			out[c*rows+r] = x[r*cols+c]
		}
	}
	return out
}

// LoadHF fills a student from a file of Hugging Face's.
func LoadHF(f *ggml.Safetensors, m *student.Model) error {
	for i, p := range m.Parameters() {
		x, err := FromHF(f, "", p)
		if err != nil {
			return err
		}
		if err := m.Write(student.Weights, i, x); err != nil {
			return err
		}
	}
	return nil
}

// Shape finds a student's shape in its weights, and that every layer has it, so
// that whoever makes room for the student takes no more than the file has.
// Heads are not written there.
func Shape(f *ggml.Safetensors, heads int, epsilon float64) (student.Config, error) {
	find := func(name string) (ggml.SafeTensor, error) {
		if f.Has(name) {
			return f.Tensor(name)
		}
		return f.Tensor("transformer." + name)
	}
	wte, err := find("wte.weight")
	if err != nil {
		return student.Config{}, err
	}
	wpe, err := find("wpe.weight")
	if err != nil {
		return student.Config{}, err
	}
	c := student.Config{Heads: heads, LayerNormEpsilon: float32(epsilon)}
	for {
		if _, err := find("h." + strconv.Itoa(c.Layers) + ".ln_1.weight"); err != nil {
			break
		}
		c.Layers++
	}
	if len(wte.Shape) != 2 || len(wpe.Shape) != 2 || wte.Shape[1] != wpe.Shape[1] || c.Layers == 0 || heads < 1 || wte.Shape[1]%heads != 0 {
		return c, fault.New(fault.Damaged, "%s: wte %v, wpe %v and %d layers do not make a GPT-2 of %d heads", f.Path, wte.Shape, wpe.Shape, c.Layers, heads)
	}
	c.Vocab, c.Width, c.Context = wte.Shape[0], wte.Shape[1], wpe.Shape[0]
	for layer := range c.Layers {
		for name, shape := range map[string][2]int{"attn.c_attn": {c.Width, 3 * c.Width}, "attn.c_proj": {c.Width, c.Width},
			"mlp.c_fc": {c.Width, 4 * c.Width}, "mlp.c_proj": {4 * c.Width, c.Width}} {
			t, err := find("h." + strconv.Itoa(layer) + "." + name + ".weight")
			if err != nil {
				return c, err
			}
			if !slices.Equal(t.Shape, shape[:]) {
				return c, fault.New(fault.Damaged, "%s: tensor %s has shape %v; a width of %d needs %v", f.Path, t.Name, t.Shape, c.Width, shape)
			}
		}
	}
	return c, nil
}
