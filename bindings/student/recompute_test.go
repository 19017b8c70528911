package student

import (
	"os"
	"strings"
	"testing"
)

// trained is what a student is after two updates, one of cross entropy and one
// of PPO, with everything that was computed on the way, and what it tells.
func trained(t *testing.T, c Config, o Options, b Batch, dropout float32) []float32 {
	t.Helper()
	n := len(b.Tokens)
	o.Threads, o.MaxTokens, o.MaxStories, o.DecodeStories, o.Train, o.ValueHead = 2, n, b.Stories(), 4, true, true
	m := newModelOf(t, c, o)
	var all []float32
	keep := func(x []float32, err error) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, x...)
	}
	update := func(step int64) {
		all = append(all, gradients(t, m)...)
		norm, err := m.Update(AdamW{LR: 1e-3, Beta1: .9, Beta2: .999, Epsilon: 1e-8, WeightDecay: .01, MaxGradNorm: 1, Step: step})
		keep([]float32{float32(norm)}, err)
		if err := m.ZeroGradients(); err != nil {
			t.Fatal(err)
		}
	}
	loss, _, err := m.CrossEntropy(b, nil, 1/float32(n), Dropout{Probability: dropout, Seed: 5, Step: 9})
	keep([]float32{float32(loss)}, err)
	update(1)
	s := NewScores(n, true)
	keep(nil, m.Forward(b, nil, s))
	hidden, err := m.Hidden(c.Layers, n)
	keep(hidden, err)
	mask, advantage := make([]float32, n), make([]float32, n)
	for i := range mask {
		mask[i], advantage[i] = float32(i%3&1), float32(i%5)-2
	}
	options := PPOOptions{Clip: .2, ValueClip: .2, ValueCoefficient: .1, TokenCount: float64(n), Scale: 1}
	_, err = m.PPOBackward(mask, s.Logprob, s.Value, advantage, make([]float32, n), options)
	keep(append(append(s.Logprob, s.Entropy...), s.Value...), err)
	if _, err := m.PPOBackward(mask, s.Logprob, s.Value, advantage, make([]float32, n), options); err == nil {
		t.Error("a second backward of one forward was accepted")
	}
	update(2)
	replies, err := m.Generate(Pack([][]int32{{4, 5, 6}, {4, 5, 7}}), []uint64{1, 2}, Generation{MaxNewTokens: 8, Temperature: 1, TopP: 1, EndToken: -1, Seed: 3})
	keep(nil, err)
	for _, r := range replies {
		all = append(all, r.Logprob...)
	}
	for i, p := range m.Parameters() {
		x := make([]float32, p.Count())
		keep(x, m.Read(Weights, i, x))
	}
	return all
}

func sameBits(t *testing.T, o Options, layers int, b Batch) {
	t.Helper()
	c := tiny
	c.Layers = layers
	for _, dropout := range []float32{0, .3} {
		if dropout > 0 && b.Offsets[0] > 0 {
			continue // refused
		}
		var want []float32
		for _, level := range Recomputes {
			o.Recompute = level
			got := trained(t, c, o, b, dropout)
			if want == nil {
				want = got
			}
			if d := maxDiff(got, want); d != 0 {
				t.Errorf("%s %s, %d layers, dropout %v: recompute %s changes numbers by %g", o.Backend, o.ISA, layers, dropout, level, d)
			}
		}
	}
}

// Whatever is computed again, every bit stays: with odd stories, more tokens than
// parts of the feed-forward have, odd and even numbers of layers, a prefix.
func TestRecomputeKeepsTheBits(t *testing.T) {
	var lengths []int
	for i := range 45 {
		lengths = append(lengths, 5+i*7%36)
	}
	for _, layers := range []int{1, 2, 3, 5, 6, 4} {
		some := lengths[:15] // 342 tokens: a part of 256 and another
		if layers == 4 {
			some = lengths // 999: the forward's parts are larger
		}
		sameBits(t, Options{Backend: "ref"}, layers, randomBatch(17, 1, 40, 3, 29))
		for _, isa := range isas() {
			sameBits(t, Options{Backend: "cpu", ISA: isa}, layers, randomBatch(some...))
		}
	}
	once, _ := shared(prefixed(7, 10, 1, 33, 3, 22), 7)
	for _, isa := range isas() {
		sameBits(t, Options{Backend: "cpu", ISA: isa, PPOTokens: 99}, 4, once)
	}
}

func TestRecomputeKeepsTheBitsEmulated(t *testing.T) {
	library := os.Getenv("ONCEUPON_CUDA_EMULATED")
	if library == "" {
		t.Skip("ONCEUPON_CUDA_EMULATED is not set: make test-emulation sets it")
	}
	t.Setenv("ONCEUPON_CUDA_LIBRARY", library)
	for _, precision := range Precisions {
		sameBits(t, Options{Backend: "cuda", ISA: precision}, 4, randomBatch(17, 1, 9))
	}
}

// What a student with pairs does not keep or has no room for is refused in one line.
func TestPairRefuses(t *testing.T) {
	c, b := tiny, randomBatch(5, 9)
	c.Layers = 6
	m := newModelOf(t, c, Options{Backend: "cpu", Threads: 1, MaxTokens: 64, MaxStories: 4, Train: true, Recompute: "pair"})
	once, _ := shared(prefixed(3, 2, 4), 3)
	err := m.Forward(once, nil, Scores{})
	if want := "a prefix needs room for the gradient of its keys: with recompute pair a student with ppo_tokens"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
	if err := m.Forward(b, nil, NewScores(14, false)); err != nil {
		t.Fatal(err)
	}
	for layer, kept := range []bool{false, false, false, true, false, true, true} {
		if _, err := m.Hidden(layer, 14); (err == nil) != kept {
			t.Errorf("hidden %d: %v", layer, err)
		}
	}
}

// Each level takes less than the one before.
func TestRecomputeTakesLess(t *testing.T) {
	c := Config{Layers: 12, Heads: 12, Width: 768, Context: 512, Vocab: 16000, LayerNormEpsilon: 1e-5}
	least := ^uint64(0)
	for _, level := range Recomputes {
		m, err := Plan(c, Options{Backend: "cpu", ISA: "auto", Threads: 2, MaxTokens: 2048, MaxStories: 4, Train: true, Recompute: level})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%-6s %+v, together %d MB", level, m, m.Total()/1e6)
		if m.Total() >= least {
			t.Errorf("recompute %s takes %d bytes, the level before %d", level, m.Total(), least)
		}
		least = m.Total()
	}
}
