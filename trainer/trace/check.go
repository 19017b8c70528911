package trace

import (
	"errors"
	"io/fs"
	"math"
	"os"
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
	Backend, ISA, Kernels string
	Threads               int
	Heads                 int    // of the student where the trace does not say; 0 = found out
	Case                  string // of ppo; "" = all
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

// isKeyBias says whether element i of parameter p belongs to the key part of an
// attention bias. Its true gradient is 0, since a constant added to every key
// cancels in the softmax: after an update it holds rounding noise that Adam
// scaled up to the size of a step.
func isKeyBias(hf string, p student.Parameter, i int) bool {
	return strings.HasSuffix(hf, "attn.c_attn.bias") && i >= p.Count()/3 && i < 2*p.Count()/3
}

// parameters compares one array of every parameter with a file. tolerance is
// that of an element; the element that comes nearest to its own, or lies
// farthest beyond it, is the one that is reported.
func (c *checks) parameters(what string, m *student.Model, array student.Array, a *ggml.Safetensors, prefix string, tolerance func(hf string, p student.Parameter) (func(i int) float64, error)) error {
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
		of, err := tolerance(name, p)
		if err != nil {
			return err
		}
		worst, at := -1.0, of(0)
		for k := range want {
			d, t := math.Abs(float64(got[k])-float64(want[k])), of(k)
			if math.IsNaN(d) {
				worst, at = d, t
				break
			}
			if d*at > worst*t {
				worst, at = d, t
			}
		}
		c.add(what+name, worst, at)
	}
	return nil
}

// constant is the same tolerance for every element.
func constant(tolerance float64) func(int) float64 {
	return func(int) float64 { return tolerance }
}

// isFolder says what is wrong with a path that is no folder; what a folder lacks
// is a damage of it.
func isFolder(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Capability, "trace %s: no such folder: give one that scripts/record-gpt2 or TRL wrote (docs/formats.md)", dir)
	}
	if err == nil && !info.IsDir() {
		return fault.New(fault.Usage, "trace %s: is a file: give the folder that it is in", dir)
	}
	return err
}

// open opens weights of a trace; that they are not there is a damage of the
// folder.
func open(path string) (*ggml.Safetensors, error) {
	f, err := ggml.OpenSafetensors(path)
	return f, fault.Wrap(fault.Damaged, err)
}

func itoa(n int) string { return strconv.Itoa(n) }
