package trace

import (
	"cmp"
	"context"
	"encoding/json"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"onceupon/bindings/student"
	"onceupon/ggml"
	"onceupon/trainer/exchange"
	"onceupon/trainer/fault"
	"onceupon/trainer/ppo"
)

// PPO replays a folder recorded from TRL 0.9.4: policy.safetensors, reference
// models, and per case CASE.json (settings, statistics), CASE.npz (arrays) and
// CASE.after.safetensors. All quirks of that version are on.
func PPO(ctx context.Context, dir string, o Options) ([]Check, error) {
	if err := isFolder(dir); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.npz"))
	if err != nil {
		return nil, err
	}
	var all []Check
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".npz")
		if o.Case != "" && o.Case != name {
			continue
		}
		checks, err := ppoReplay(ctx, dir, name, o)
		if err != nil {
			return nil, err
		}
		all = append(all, checks...)
	}
	if len(all) == 0 {
		return nil, fault.New(fault.Damaged, "%s: no %s.npz with %[2]s.json in this folder", dir, cmp.Or(o.Case, "CASE"))
	}
	return all, nil
}

// ppoCase is CASE.json.
type ppoCase struct {
	Config struct {
		LR            float64 `json:"learning_rate"`
		Adaptive      bool    `json:"adap_kl_ctrl"`
		InitKL        float64 `json:"init_kl_coef"`
		Penalty       string  `json:"kl_penalty"`
		Target        float64 `json:"target"`
		Horizon       float64 `json:"horizon"`
		Gamma         float64 `json:"gamma"`
		Lambda        float64 `json:"lam"`
		Clip          float64 `json:"cliprange"`
		ValueClip     float64 `json:"cliprange_value"`
		ValueCoef     float64 `json:"vf_coef"`
		Batch         int     `json:"batch_size"`
		Minibatch     int     `json:"mini_batch_size"`
		Accumulation  int     `json:"gradient_accumulation_steps"`
		Epochs        int     `json:"ppo_epochs"`
		Ratio         float64 `json:"ratio_threshold"`
		WhitenRewards bool    `json:"whiten_rewards"`
	} `json:"config"`
	Reference string `json:"reference"`
	PadSide   string `json:"pad_side"`
	Steps     []struct {
		KLAfter     float64              `json:"kl_coef_after"`
		Stats       map[string]float64   `json:"stats"`
		Minibatches []map[string]float64 `json:"minibatch_stats"`
		Noise       map[string]float64   `json:"noise_f32_vs_f64"`
		Weights     map[string]float64   `json:"weights_f32_vs_f64_maxdiff"`
	} `json:"steps"`
}

// Tolerances of fp32 against float64 (README of the recorded folder); a step
// after the first starts from weights that differ already. They are widened to
// the noise recorded with the case where that is larger.
func (r *ppoRun) tolerance(array string, step int) float64 {
	first := map[string]float64{"values": 2e-6, "values_masked": 2e-6, "advantages": 5e-6}
	base := first[array]
	if base == 0 {
		base = 1e-5
	}
	if step > 0 {
		base *= 5
	}
	return widened(base, r.recorded.Steps[step].Noise[array])
}

// toleranceScalar is of a statistic, relative above 1.
const toleranceScalar = 2e-5

// toleranceWeights is of the weights after a step, in units of the learning
// rate: Adam divides the gradient's rounding by its size.
func toleranceWeights(lr float64) float64 { return math.Max(5e-6, 0.02*lr) }

type ppoRun struct {
	checks
	recorded ppoCase
	data     Arrays
	policy   *student.Model
	trainer  *ppo.Trainer
}

func ppoReplay(ctx context.Context, dir, name string, o Options) ([]Check, error) {
	r := ppoRun{checks: checks{name: name}}
	if err := readJSON(filepath.Join(dir, name+".json"), &r.recorded); err != nil {
		return nil, err
	}
	var err error
	if r.data, err = ReadNPZ(filepath.Join(dir, name+".npz")); err != nil {
		return nil, err
	}
	after, err := open(filepath.Join(dir, name+".after.safetensors"))
	if err != nil {
		return nil, err
	}
	defer after.Close()
	reference, err := r.open(dir, o)
	if err != nil {
		return nil, err
	}
	defer r.policy.Close()
	defer reference.Close()
	if r.trainer, err = r.newTrainer(reference); err != nil {
		return nil, err
	}
	for step := range r.recorded.Steps {
		if err := r.step(ctx, step); err != nil {
			return nil, err
		}
		prefix := "s" + itoa(step) + "."
		err := r.parameters(prefix, r.policy, student.Weights, after, prefix, func(hf string, p student.Parameter) (func(int) float64, error) {
			t := toleranceWeights(r.recorded.Config.LR)
			if !strings.HasSuffix(hf, "attn.c_attn.bias") {
				return constant(widened(t, r.recorded.Steps[step].Weights[hf])), nil
			}
			return func(i int) float64 {
				if isKeyBias(hf, p, i) {
					return 1 // nothing can be said of it, and the noise measured is its
				}
				return t
			}, nil
		})
		if err != nil {
			return nil, err
		}
	}
	return r.all, nil
}

// open loads policy and reference. The number of heads is not written in such
// a folder: unless it is given, it is the one whose log-probabilities come
// nearest to the recorded ones.
func (r *ppoRun) open(dir string, o Options) (reference *student.Model, err error) {
	weights, err := open(filepath.Join(dir, "policy.safetensors"))
	if err != nil {
		return nil, err
	}
	defer weights.Close()
	frozen, err := open(filepath.Join(dir, filepath.Base(r.recorded.Reference)))
	if err != nil {
		return nil, err
	}
	defer frozen.Close()
	c, err := exchange.Shape(weights, 1, 1e-5) // GPT-2's epsilon
	if err != nil {
		return nil, err
	}
	if c.Heads, err = r.heads(weights, c, o); err != nil {
		return nil, err
	}
	options, err := r.options(c, o)
	if err != nil {
		return nil, err
	}
	if r.policy, err = student.New(c, options); err != nil {
		return nil, err
	}
	if err = exchange.LoadHF(weights, r.policy); err == nil {
		options.Train, options.ValueHead, options.PPOTokens = false, false, 0
		if reference, err = student.New(c, options); err == nil {
			if err = exchange.LoadHF(frozen, reference); err == nil {
				return reference, nil
			}
			reference.Close()
		}
	}
	r.policy.Close()
	return nil, err
}

func (r *ppoRun) options(c student.Config, o Options) (student.Options, error) {
	tokens, stories := 0, 0
	for step := range r.recorded.Steps {
		b, err := r.batch(step, c)
		if err != nil {
			return student.Options{}, err
		}
		tokens, stories = max(tokens, len(b.Stories.Tokens)), max(stories, b.Stories.Stories())
	}
	return student.Options{Backend: o.Backend, ISA: o.ISA, Kernels: o.Kernels, Threads: o.Threads, MaxTokens: max(tokens, 1), MaxStories: max(stories, 1),
		PPOTokens: max(tokens, 1), Train: true, ValueHead: true}, nil
}

func (r *ppoRun) heads(weights *ggml.Safetensors, c student.Config, o Options) (int, error) {
	if o.Heads > 0 {
		if c.Width%o.Heads != 0 {
			return 0, fault.New(fault.Usage, "--heads %d does not divide the width %d", o.Heads, c.Width)
		}
		return o.Heads, nil
	}
	best, nearest := 0, math.Inf(1)
	for heads := 1; heads <= c.Width; heads++ {
		if c.Width%heads != 0 {
			continue
		}
		c.Heads = heads
		options, err := r.options(c, o)
		if err != nil {
			return 0, err
		}
		m, err := student.New(c, options)
		if err != nil {
			return 0, err
		}
		d, err := r.distance(weights, m)
		m.Close()
		if err != nil {
			return 0, err
		}
		if d < nearest {
			best, nearest = heads, d
		}
	}
	return best, nil
}

// distance is the largest difference of the first log-probabilities.
func (r *ppoRun) distance(weights *ggml.Safetensors, m *student.Model) (float64, error) {
	if err := exchange.LoadHF(weights, m); err != nil {
		return 0, err
	}
	b, err := r.batch(0, m.Config())
	if err != nil {
		return 0, err
	}
	s := student.NewScores(len(b.Stories.Tokens), false)
	if err := m.Forward(b.Stories, nil, s); err != nil {
		return 0, err
	}
	got, want, err := r.compare(b, 0, "s0.logprobs", s.Logprob, nil)
	return maxDiff(got, want), err
}

func (r *ppoRun) newTrainer(reference *student.Model) (*ppo.Trainer, error) {
	c := r.recorded.Config
	penalty, ok := map[string]student.KLPenalty{"kl": student.KL, "abs": student.Abs, "mse": student.MSE}[c.Penalty]
	if !ok {
		return nil, fault.New(fault.Damaged, "%s.json: config.kl_penalty %q is none of kl, abs, mse", r.name, c.Penalty)
	}
	if c.Minibatch < 1 || c.Accumulation < 1 || c.Epochs < 1 || c.Batch < 1 {
		return nil, fault.New(fault.Damaged, "%s.json: config: batch_size, mini_batch_size, gradient_accumulation_steps and ppo_epochs must be at least 1", r.name)
	}
	return ppo.New(ppo.Settings{
		LR: c.LR, Epochs: c.Epochs, Minibatch: c.Minibatch, Accumulation: c.Accumulation, Gamma: float32(c.Gamma), Lambda: float32(c.Lambda),
		Clip: float32(c.Clip), ValueClip: float32(c.ValueClip), ValueCoef: float32(c.ValueCoef), InitKL: c.InitKL, TargetKL: c.Target,
		Horizon: c.Horizon, Adaptive: c.Adaptive, Penalty: penalty, WhitenRewards: c.WhitenRewards, RatioThreshold: c.Ratio, Parity: ppo.TRL094,
	}, r.policy, reference), nil
}

// batch packs the stories of a step. With padding on the left a story sits at
// shifted positions, as in TRL, which gives GPT-2 none.
func (r *ppoRun) batch(step int, c student.Config) (ppo.Batch, error) {
	prefix, n, vocab := "s"+itoa(step)+".", r.recorded.Config.Batch, c.Vocab-1
	var b ppo.Batch
	queries, err := r.data.Integers(prefix+"query_len", 1, c.Context, n)
	if err != nil {
		return b, err
	}
	replies, err := r.data.Integers(prefix+"response_len", 1, c.Context, n)
	if err != nil {
		return b, err
	}
	query, err := r.data.Integers(prefix+"queries", 0, vocab, sum(queries))
	if err != nil {
		return b, err
	}
	reply, err := r.data.Integers(prefix+"responses", 0, vocab, sum(replies))
	if err != nil {
		return b, err
	}
	scores, err := r.data.Get(prefix+"scores", n)
	if err != nil {
		return b, err
	}
	b.Scores = scores.Floats32()
	var rows [][]int32
	longest := 0
	for i := range n {
		var row []int32
		for _, t := range append(slices.Clone(query[:queries[i]]), reply[:replies[i]]...) {
			row = append(row, int32(t))
		}
		query, reply = query[queries[i]:], reply[replies[i]:]
		rows, longest = append(rows, row), max(longest, len(row))
	}
	if longest > c.Context {
		return b, fault.New(fault.Damaged, "%s: a story of %d tokens exceeds the student's %d positions", r.data.Path, longest, c.Context)
	}
	b.Stories, b.Prompts = student.Pack(rows), queries
	if r.recorded.PadSide == "left" {
		for _, row := range rows {
			b.Stories.First = append(b.Stories.First, int32(longest-len(row)))
		}
	}
	return b, nil
}

func sum(x []int) int {
	n := 0
	for _, v := range x {
		n += v
	}
	return n
}

// compare picks, for the given stories (nil: all, in order), the masked entries
// of a packed array and of the padded recorded one, whose row k is story k of
// the list.
func (r *ppoRun) compare(b ppo.Batch, step int, array string, got []float32, stories []int) (a []float32, want []float64, err error) {
	if stories == nil {
		for i := range b.Prompts {
			stories = append(stories, i)
		}
	}
	longest := 0
	for i := range b.Prompts {
		longest = max(longest, int(b.Stories.Offsets[i+1]-b.Stories.Offsets[i]))
	}
	recorded, err := r.data.Get(array, len(stories), longest-1)
	if err != nil {
		return nil, nil, err
	}
	at := 0
	for k, i := range stories {
		length, first := int(b.Stories.Offsets[i+1]-b.Stories.Offsets[i]), 0
		if b.Stories.First != nil {
			first = int(b.Stories.First[i])
		}
		for t := b.Prompts[i] - 1; t < length-1; t++ {
			a, want = append(a, got[at+t]), append(want, recorded.X[k*(longest-1)+first+t])
		}
		at += length
	}
	return a, want, nil
}

func (r *ppoRun) step(ctx context.Context, step int) error {
	prefix, recorded := "s"+itoa(step)+".", r.recorded.Steps[step]
	b, err := r.batch(step, r.policy.Config())
	if err != nil {
		return err
	}
	n := r.recorded.Config.Batch
	orders, err := r.data.Integers(prefix+"permutations", 0, n-1, r.recorded.Config.Epochs, n)
	if err != nil {
		return err
	}
	array := func(name, as string, got []float32, stories []int) error {
		a, want, err := r.compare(b, step, prefix+name, got, stories)
		if err != nil {
			return err
		}
		r.add(prefix+name, maxDiff(a, want), r.tolerance(as, step))
		return nil
	}
	var failed error
	result, err := r.trainer.Step(ctx, b, func(epoch int) []int { return orders[epoch*n : (epoch+1)*n] },
		func(minibatch int, stories []int, s student.Scores) {
			// A minibatch was moved by the updates before it: the bounds of a second step.
			name := "mb" + itoa(minibatch) + "."
			for _, x := range []struct {
				what, as string
				got      []float32
			}{{"logprobs", "logprobs", s.Logprob}, {"vpreds", "values", s.Value}} {
				a, want, err := r.compare(b, step, prefix+name+x.what, x.got, stories)
				if err != nil {
					failed = err
					return
				}
				r.add(prefix+name+x.what, maxDiff(a, want), 5*r.tolerance(x.as, step))
			}
		})
	if err != nil || failed != nil {
		if failed != nil {
			err = failed
		}
		return err
	}
	a := result.Advantages
	kls := make([]float32, len(a.OldLogprob))
	for i := range kls {
		kls[i] = float32(student.Estimate(r.trainer.Penalty, a.OldLogprob[i]-a.Reference[i]))
	}
	for _, x := range []struct {
		name string
		got  []float32
	}{
		{"logprobs", a.OldLogprob}, {"ref_logprobs", a.Reference}, {"values", a.OldValue}, {"kls", kls}, {"rewards", a.Rewards},
		{"values_masked", a.OldValue}, {"advantages", a.Whitened}, {"returns", a.Returns},
	} {
		if err := array(x.name, x.name, x.got, nil); err != nil {
			return err
		}
	}
	if err := r.scalars(prefix, recorded.Stats, result.Stats); err != nil {
		return err
	}
	if len(recorded.Minibatches) != len(result.Minibatches) {
		return fault.New(fault.Damaged, "%s.json: %d minibatches recorded, %d replayed", r.name, len(recorded.Minibatches), len(result.Minibatches))
	}
	for i, m := range recorded.Minibatches {
		if err := r.scalars(prefix+"mb"+itoa(i)+".", m, result.Minibatches[i]); err != nil {
			return err
		}
	}
	r.add(prefix+"kl_coef_after", abs(r.trainer.State.KL-recorded.KLAfter), 1e-7)
	return nil
}

// scalars compares every recorded statistic with ours of the same name.
func (r *ppoRun) scalars(prefix string, recorded map[string]float64, ours any) error {
	text, err := json.Marshal(ours)
	if err != nil {
		return err
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		return err
	}
	names := make([]string, 0, len(recorded))
	for name := range recorded {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		x, ok := got[name].(float64)
		if !ok {
			return fault.New(fault.Damaged, "%s.json: statistic %q is not known", r.name, name)
		}
		r.add(prefix+name, abs(x-recorded[name]), toleranceScalar*math.Max(1, abs(recorded[name])))
	}
	return nil
}
