package trace

import (
	"regexp"
	"strings"

	"onceupon/bindings/student"
	"onceupon/trainer/fault"
)

// hfNames pairs the student's parameter names (GGUF's) with Hugging Face's for
// GPT-2; conv marks Conv1D matrices, stored [in][out] there and [out][in] here.
var hfNames = []struct {
	ours, hf string
	conv     bool
}{
	{"token_embd.", "transformer.wte.", false},
	{"position_embd.", "transformer.wpe.", false},
	{"output_norm.", "transformer.ln_f.", false},
	{"value_head.", "v_head.summary.", false},
	{"attn_norm.", "ln_1.", false},
	{"attn_qkv.", "attn.c_attn.", true},
	{"attn_output.", "attn.c_proj.", true},
	{"ffn_norm.", "ln_2.", false},
	{"ffn_up.", "mlp.c_fc.", true},
	{"ffn_down.", "mlp.c_proj.", true},
}

var block = regexp.MustCompile(`^blk\.([0-9]+)\.`)

// hfName is the Hugging Face name of a parameter, and whether its matrix lies
// the other way round.
func hfName(p student.Parameter) (name string, transposed bool) {
	rest, prefix := p.Name, ""
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

// fetch returns parameter p of a file in the student's layout.
func fetch(a Arrays, prefix string, p student.Parameter) ([]float32, error) {
	name, transposed := hfName(p)
	switch {
	case transposed:
		x, err := a.Get(prefix+name, p.Cols, p.Rows)
		if err != nil {
			return nil, err
		}
		return transpose(x.Floats32(), p.Cols, p.Rows), nil
	case p.Matrix && strings.HasPrefix(p.Name, "value_head."), p.Matrix:
		x, err := a.Get(prefix+name, p.Rows, p.Cols)
		return x.Floats32(), err
	}
	x, err := a.Get(prefix+name, p.Count())
	if strings.HasPrefix(p.Name, "value_head.weight") {
		x, err = a.Get(prefix+name, 1, p.Count())
	}
	return x.Floats32(), err
}

func transpose(x []float32, rows, cols int) []float32 {
	out := make([]float32, len(x))
	for r := range rows {
		for c := range cols {
			out[c*rows+r] = x[r*cols+c]
		}
	}
	return out
}

// load fills a student from a file.
func load(a Arrays, m *student.Model) error {
	for i, p := range m.Parameters() {
		x, err := fetch(a, "", p)
		if err != nil {
			return err
		}
		if err := m.Write(student.Weights, i, x); err != nil {
			return err
		}
	}
	return nil
}

// shape finds a student's shape in its weights; heads are not written there.
func shape(a Arrays, heads int, epsilon float64) (student.Config, error) {
	wte, err := a.Get("transformer.wte.weight", -1, -1)
	if err != nil {
		return student.Config{}, err
	}
	wpe, err := a.Get("transformer.wpe.weight", -1, wte.Shape[1])
	if err != nil {
		return student.Config{}, err
	}
	layers := 0
	for a.Has("transformer.h." + itoa(layers) + ".ln_1.weight") {
		layers++
	}
	c := student.Config{Layers: layers, Heads: heads, Width: wte.Shape[1], Context: wpe.Shape[0], Vocab: wte.Shape[0], LayerNormEpsilon: float32(epsilon)}
	if layers == 0 || heads < 1 || c.Width%heads != 0 {
		return c, fault.New(fault.Damaged, "%s: %d layers of width %d do not make a GPT-2 of %d heads", a.Path, layers, c.Width, heads)
	}
	return c, nil
}
