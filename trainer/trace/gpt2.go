package trace

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"onceupon/bindings/student"
	"onceupon/ggml"
	"onceupon/trainer/exchange"
	"onceupon/trainer/fault"
)

// GPT2 replays a folder recorded from PyTorch: weights.safetensors, data.npz
// with the cases right and left (padding), their gradients, and the weights
// after three AdamW steps. The README of the folder describes the arrays.
func GPT2(dir string, o Options) ([]Check, error) {
	if err := isFolder(dir); err != nil {
		return nil, err
	}
	var meta gpt2Meta
	if err := readJSON(filepath.Join(dir, "meta.json"), &meta); err != nil {
		return nil, err
	}
	weights, err := open(filepath.Join(dir, "weights.safetensors"))
	if err != nil {
		return nil, err
	}
	defer weights.Close()
	data, err := ReadNPZ(filepath.Join(dir, "data.npz"))
	if err != nil {
		return nil, err
	}
	c, err := exchange.Shape(weights, meta.Config.Heads, meta.Config.Epsilon)
	if err != nil {
		return nil, err
	}
	var all []Check
	cases := map[string]gpt2Case{"right": meta.Right, "left": meta.Left}
	for _, name := range []string{"right", "left"} {
		g := gpt2{checks: checks{name: name}, dir: dir, data: data, config: c}
		if err := g.open(weights, o); err != nil {
			return nil, err
		}
		err := g.forwardBackward(cases[name])
		g.model.Close()
		if err != nil {
			return nil, err
		}
		all = append(all, g.all...)
	}
	updates := map[string]gpt2AdamW{"adamw_all": meta.All, "adamw_matrices": meta.Matrices}
	for _, name := range []string{"adamw_all", "adamw_matrices"} {
		g := gpt2{checks: checks{name: name}, dir: dir, data: data, config: c}
		if err := g.open(weights, o); err != nil {
			return nil, err
		}
		err := g.adamw(updates[name], meta.Right, name)
		g.model.Close()
		if err != nil {
			return nil, err
		}
		all = append(all, g.all...)
	}
	return all, nil
}

// gpt2Meta is meta.json.
type gpt2Meta struct {
	Config struct {
		Heads   int     `json:"n_head"`
		Epsilon float64 `json:"layer_norm_epsilon"`
	} `json:"config"`
	Right    gpt2Case  `json:"right"`
	Left     gpt2Case  `json:"left"`
	All      gpt2AdamW `json:"adamw_all"`
	Matrices gpt2AdamW `json:"adamw_matrices"`
}

type gpt2Case struct {
	Loss  float64 `json:"loss"`
	Noise float64 `json:"logits_f32_vs_f64_maxdiff"`
	Grads map[string]struct {
		Noise float64 `json:"f32_vs_f64_maxdiff"`
	} `json:"grads"`
}

type gpt2AdamW struct {
	LR          float64            `json:"lr"`
	Betas       [2]float64         `json:"betas"`
	Epsilon     float64            `json:"eps"`
	WeightDecay float64            `json:"weight_decay"`
	Losses      []float64          `json:"losses"`
	Losses64    []float64          `json:"losses_f64"`
	Noise       map[string]float64 `json:"weights_f32_vs_f64_maxdiff"`
}

// Tolerances of an fp32 run of this size (README of the recorded folder),
// widened to the noise measured on the trace where that is larger.
const (
	toleranceLogits   = 2e-5
	toleranceLoss     = 2e-6
	toleranceGradient = 2e-6
	toleranceAdamW    = 2e-6
	leastNoise        = 1e-7 // of a gradient, where the trace has none
)

type gpt2 struct {
	checks
	dir    string
	data   Arrays
	config student.Config
	model  *student.Model
}

func (g *gpt2) open(weights *ggml.Safetensors, o Options) error {
	rows, err := g.rows("right")
	if err != nil {
		return err
	}
	g.model, err = student.New(g.config, student.Options{Backend: o.Backend, ISA: o.ISA, Kernels: o.Kernels, Threads: o.Threads, MaxTokens: len(rows.batch.Tokens),
		MaxStories: rows.batch.Stories(), Train: true})
	if err != nil {
		return err
	}
	return exchange.LoadHF(weights, g.model)
}

// packed are the rows of a case without their padding.
type packed struct {
	batch   student.Batch
	targets []int32
	at      []int // place of each packed token in the padded arrays
	scored  int
}

// rows packs a case. Without an attention mask every token counts; with one,
// padding is dropped and the positions are kept.
func (g *gpt2) rows(name string) (packed, error) {
	var p packed
	ids, err := g.data.Integers(name+".input_ids", 0, g.config.Vocab-1, -1, -1)
	if err != nil {
		return p, err
	}
	shape := g.data.ByName[name+".input_ids"].Shape
	labels, err := g.data.Integers(name+".labels", -100, g.config.Vocab-1, shape...)
	if err != nil {
		return p, err
	}
	mask := make([]int, len(ids))
	for i := range mask {
		mask[i] = 1
	}
	if g.data.Has(name + ".attention_mask") {
		if mask, err = g.data.Integers(name+".attention_mask", 0, 1, shape...); err != nil {
			return p, err
		}
	}
	if shape[1] > g.config.Context {
		return p, fault.New(fault.Damaged, "%s: %s.input_ids has %d columns; the student has %d positions", g.data.Path, name, shape[1], g.config.Context)
	}
	p.batch.Offsets = []int32{0}
	for r := range shape[0] {
		first, end := 0, shape[1]
		for first < end && mask[r*shape[1]+first] == 0 {
			first++
		}
		for end > first && mask[r*shape[1]+end-1] == 0 {
			end--
		}
		if first == end {
			return p, fault.New(fault.Damaged, "%s: %s.attention_mask hides the whole of row %d", g.data.Path, name, r)
		}
		// A label at column t is the target of column t-1, which must be real.
		for t := range shape[1] {
			if t > 0 && (t <= first || t >= end) && labels[r*shape[1]+t] >= 0 {
				return p, fault.New(fault.Damaged, "%s: %s.labels: row %d scores column %d, which the attention mask hides or nothing precedes; -100 is needed there", g.data.Path, name, r, t)
			}
		}
		for t := first; t < end; t++ {
			i, target := r*shape[1]+t, -1
			if t+1 < end && labels[i+1] >= 0 {
				target = labels[i+1]
				p.scored++
			}
			p.batch.Tokens = append(p.batch.Tokens, int32(ids[i]))
			p.targets = append(p.targets, int32(target))
			p.at = append(p.at, i)
		}
		p.batch.First = append(p.batch.First, int32(first))
		p.batch.Offsets = append(p.batch.Offsets, int32(len(p.batch.Tokens)))
	}
	if p.scored == 0 {
		return p, fault.New(fault.Damaged, "%s: %s.labels scores nothing", g.data.Path, name)
	}
	return p, nil
}

// pickRows takes the packed tokens' rows of a padded array.
func (p packed) pickRows(x Array) []float64 {
	width := x.Shape[len(x.Shape)-1]
	var out []float64
	for _, i := range p.at {
		out = append(out, x.X[i*width:(i+1)*width]...)
	}
	return out
}

func (g *gpt2) forwardBackward(recorded gpt2Case) error {
	p, err := g.rows(g.name)
	if err != nil {
		return err
	}
	n := len(p.batch.Tokens)
	scores := student.NewScores(n, false)
	if err := g.model.Forward(p.batch, nil, scores); err != nil {
		return err
	}
	padded := g.data.ByName[g.name+".input_ids"].Shape
	want, err := g.data.Get(g.name+".logits", padded[0], padded[1], g.config.Vocab)
	if err != nil {
		return err
	}
	logits, err := g.model.Logits(0, n)
	if err != nil {
		return err
	}
	tolerance := widened(toleranceLogits, recorded.Noise)
	g.add("logits", maxDiff(logits, p.pickRows(want)), tolerance)
	for layer := 0; layer <= g.config.Layers; layer++ {
		array := g.name + ".hidden" + itoa(layer)
		want, err := g.data.Get(array, padded[0], padded[1], g.config.Width)
		if err != nil {
			return err
		}
		hidden, err := g.model.Hidden(layer, n)
		if err != nil {
			return err
		}
		g.add("hidden"+itoa(layer), maxDiff(hidden, p.pickRows(want)), tolerance)
	}
	if array := g.name + ".logprob_of_next"; g.data.Has(array) {
		want, err := g.data.Get(array, padded[0], padded[1]-1)
		if err != nil {
			return err
		}
		var got []float32
		var expected []float64
		for t, i := range p.at {
			if r, c := i/padded[1], i%padded[1]; c < padded[1]-1 {
				got, expected = append(got, scores.Logprob[t]), append(expected, want.X[r*(padded[1]-1)+c])
			}
		}
		g.add("logprob_of_next", maxDiff(got, expected), tolerance)
	}
	loss, scored, err := g.model.CrossEntropy(p.batch, p.targets, 1/float32(p.scored), student.Dropout{})
	if err != nil {
		return err
	}
	g.add("loss", abs(loss/float64(scored)-recorded.Loss), toleranceLoss)
	gradients, err := open(filepath.Join(g.dir, "grads_"+g.name+".safetensors"))
	if err != nil {
		return err
	}
	defer gradients.Close()
	return g.parameters("gradient ", g.model, student.Gradients, gradients, "", func(hf string, _ student.Parameter) (func(int) float64, error) {
		return constant(widened(toleranceGradient, recorded.Grads[hf].Noise)), nil
	})
}

func (g *gpt2) adamw(recorded gpt2AdamW, right gpt2Case, name string) error {
	p, err := g.rows("right")
	if err != nil {
		return err
	}
	for step, want := range recorded.Losses {
		if err := g.model.ZeroGradients(); err != nil {
			return err
		}
		loss, scored, err := g.model.CrossEntropy(p.batch, p.targets, 1/float32(p.scored), student.Dropout{})
		if err != nil {
			return err
		}
		// The losses of later steps carry the noise of the weights before them.
		noise := 0.0
		if step < len(recorded.Losses64) {
			noise = abs(want - recorded.Losses64[step])
		}
		g.add("loss "+itoa(step), abs(loss/float64(scored)-want), widened(toleranceLoss*float64(1+4*step), noise))
		_, err = g.model.Update(student.AdamW{LR: recorded.LR, Beta1: recorded.Betas[0], Beta2: recorded.Betas[1], Epsilon: recorded.Epsilon,
			WeightDecay: recorded.WeightDecay, DecayVectors: name == "adamw_all", Step: int64(step + 1)})
		if err != nil {
			return err
		}
	}
	file := map[string]string{"adamw_all": "adamw3_all", "adamw_matrices": "adamw3_matrices"}[name]
	after, err := open(filepath.Join(g.dir, file+".safetensors"))
	if err != nil {
		return err
	}
	defer after.Close()
	gradients, err := open(filepath.Join(g.dir, "grads_right.safetensors"))
	if err != nil {
		return err
	}
	defer gradients.Close()
	// Adam divides by the size of the gradient: what fp32 leaves open of a
	// gradient g it leaves open of a step, as a share noise / |g| of its length
	// lr, and nothing is certain of a gradient below the noise.
	return g.parameters("", g.model, student.Weights, after, "", func(hf string, p student.Parameter) (func(int) float64, error) {
		first, err := exchange.FromHF(gradients, "", p)
		if err != nil {
			return nil, err
		}
		measured := recorded.Noise[hf]
		if block, ok := strings.CutSuffix(hf, "c_attn.bias"); ok {
			measured = recorded.Noise[block+"c_attn.weight"] // its own is that of the key part
		}
		base, noise, longest := widened(toleranceAdamW, measured), slack*max(right.Grads[hf].Noise, leastNoise), 2*recorded.LR
		return func(i int) float64 {
			open := longest
			if size := abs(float64(first[i])); size > 0 {
				open = min(longest, recorded.LR*noise/size)
			}
			return base + float64(len(recorded.Losses))*open
		}, nil
	})
}

func readJSON(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fault.New(fault.Damaged, "trace: %w", err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fault.New(fault.Damaged, "%s: %w", path, err)
	}
	return nil
}

func abs(x float64) float64 { return max(x, -x) }
