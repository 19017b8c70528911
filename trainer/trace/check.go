package trace

import (
	"math"
	"strconv"
	"strings"

	"onceupon/bindings/student"
	"onceupon/ggml"
	"onceupon/trainer/exchange"
	"onceupon/trainer/fault"
)

// Check is one array compared.
type Check struct {
	Case      string  `json:"case"`
	Array     string  `json:"array"`
	MaxDiff   float64 `json:"max_diff"`
	Tolerance float64 `json:"tolerance"`
	Pass      bool    `json:"pass"`
}

// Options of a replay.
type Options struct {
	Backend, ISA string
	Threads      int
	Heads        int    // of the student where the trace does not say; 0 = found out
	Case         string // of ppo; "" = all
}

// checks collects the comparisons of a case.
type checks struct {
	name string
	all  []Check
}

func (c *checks) add(array string, diff, tolerance float64) {
	if math.IsNaN(diff) {
		diff = math.MaxFloat64 // JSON has no NaN, and none may pass
	}
	c.all = append(c.all, Check{c.name, array, diff, tolerance, diff <= tolerance})
}

// maxDiff is the largest |got - want|, NaN as soon as one is NaN.
func maxDiff(got []float32, want []float64) float64 {
	worst := 0.0
	for i := range got {
		d := math.Abs(float64(got[i]) - want[i])
		if math.IsNaN(d) {
			return d
		}
		worst = math.Max(worst, d)
	}
	return worst
}

// slack widens a tolerance to what fp32 was measured to allow on a trace, as
// the largest difference of a float32 run from a float64 one: ours and the
// recorded one may both be as far off, in opposite directions, and a different
// order of sums doubles that again.
const slack = 4

func widened(tolerance, noise float64) float64 { return math.Max(tolerance, slack*noise) }

// parameters compares one array of every parameter with a file. The key part
// of the attention bias is left out after an update: its true gradient is 0,
// since a constant added to every key cancels in the softmax, and Adam scales
// its rounding noise up to the size of a step.
func (c *checks) parameters(what string, m *student.Model, array student.Array, a *ggml.Safetensors, prefix string, tolerance func(hf string) float64) error {
	for i, p := range m.Parameters() {
		want, err := exchange.FromHF(a, prefix, p)
		if err != nil {
			return err
		}
		got := make([]float32, p.Count())
		if err := m.Read(array, i, got); err != nil {
			return err
		}
		name, _ := exchange.HFName(p)
		label := what + name
		if array == student.Weights && strings.HasSuffix(name, "attn.c_attn.bias") {
			width := p.Count() / 3
			got, want = append(got[:width:width], got[2*width:]...), append(want[:width:width], want[2*width:]...)
			label += " (query, value)"
		}
		wide := make([]float64, len(want))
		for k, v := range want {
			wide[k] = float64(v)
		}
		c.add(label, maxDiff(got, wide), tolerance(name))
	}
	return nil
}

// open opens weights of a trace; that they are not there is a damage of the
// folder.
func open(path string) (*ggml.Safetensors, error) {
	f, err := ggml.OpenSafetensors(path)
	return f, fault.Wrap(fault.Damaged, err)
}

func itoa(n int) string { return strconv.Itoa(n) }
