package student

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

var tiny = Config{Layers: 2, Heads: 2, Width: 24, Context: 40, Vocab: 61, LayerNormEpsilon: 1e-5}

// newModel makes a student with random weights, the same for the same seed.
func newModel(t testing.TB, c Config, backend, isa string, threads int) *Model {
	t.Helper()
	return newModelOf(t, c, Options{Backend: backend, ISA: isa, Threads: threads, MaxTokens: 256, MaxStories: 16, DecodeStories: 16, Train: true, ValueHead: true})
}

func newModelOf(t testing.TB, c Config, o Options) *Model {
	t.Helper()
	m, err := New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	r := rand.New(rand.NewPCG(7, 7))
	for i, p := range m.Parameters() {
		x := make([]float32, p.Count())
		for j := range x {
			x[j] = float32(r.NormFloat64() * 0.2)
			if !p.Matrix && p.Name[len(p.Name)-4:] == "ight" {
				x[j]++
			}
		}
		if err := m.Write(Weights, i, x); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func isas() []string {
	best := slices.Index(ISAs, BestISA())
	if m, err := New(tiny, Options{Backend: "cpu", ISA: ISAs[0], Threads: 1, MaxTokens: 1, MaxStories: 1}); err == nil {
		m.Close()
		best = 0
	}
	return ISAs[best:]
}

func randomBatch(lengths ...int) Batch {
	r := rand.New(rand.NewPCG(1, 2))
	var stories [][]int32
	for _, n := range lengths {
		s := make([]int32, n)
		for i := range s {
			s[i] = int32(r.IntN(tiny.Vocab))
		}
		stories = append(stories, s)
	}
	return Pack(stories)
}

func gradients(t testing.TB, m *Model) []float32 {
	t.Helper()
	var all []float32
	for i, p := range m.Parameters() {
		x := make([]float32, p.Count())
		if err := m.Read(Gradients, i, x); err != nil {
			t.Fatal(err)
		}
		all = append(all, x...)
	}
	return all
}

func maxDiff(a, b []float32) float64 {
	worst := 0.0
	for i := range a {
		worst = math.Max(worst, math.Abs(float64(a[i])-float64(b[i])))
	}
	return worst
}

func TestGradientsAgreeWithRef(t *testing.T) {
	b := randomBatch(17, 1, 40, 3, 29)
	for _, d := range []Dropout{{}, {Probability: 0.3, Seed: 5, Step: 9}} {
		ref := newModel(t, tiny, "ref", "", 1)
		want, n, err := ref.CrossEntropy(b, nil, 0.02, d)
		if err != nil {
			t.Fatal(err)
		}
		if n != 85 {
			t.Fatalf("%d targets, want 85", n)
		}
		for _, isa := range isas() {
			m := newModel(t, tiny, "cpu", isa, 2)
			got, _, err := m.CrossEntropy(b, nil, 0.02, d)
			if err != nil {
				t.Fatal(err)
			}
			loss, gradient := 1e-3, 2e-5
			if isa == "avx512bf16" { // 8 bits a factor
				loss, gradient = .2, 1e-2
			}
			if math.Abs(got-want) > loss {
				t.Errorf("%s: loss %v, ref %v", isa, got, want)
			}
			if diff := maxDiff(gradients(t, m), gradients(t, ref)); diff > gradient {
				t.Errorf("%s dropout %v: gradients differ from ref by %g", isa, d.Probability, diff)
			}
		}
	}
}

func TestGradientIsFiniteDifference(t *testing.T) {
	b := randomBatch(9, 14)
	for _, d := range []Dropout{{}, {Probability: 0.25, Seed: 3, Step: 1}} {
		m := newModel(t, tiny, "ref", "", 1)
		if _, _, err := m.CrossEntropy(b, nil, 1, d); err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(3, 4))
		for i, p := range m.Parameters() {
			if p.Name == "value_head.weight" || p.Name == "value_head.bias" {
				continue
			}
			w, g := make([]float32, p.Count()), make([]float32, p.Count())
			if err := m.Read(Gradients, i, g); err != nil {
				t.Fatal(err)
			}
			m.Read(Weights, i, w)
			// Along a random direction all weights of a parameter are tested at once.
			direction, slope := make([]float32, len(w)), 0.0
			for j := range direction {
				direction[j] = float32(r.NormFloat64())
				slope += float64(direction[j]) * float64(g[j])
			}
			const h = 2e-3
			var loss [2]float64
			for side, sign := range []float32{1, -1} {
				moved := make([]float32, len(w))
				for j := range w {
					moved[j] = w[j] + sign*h*direction[j]
				}
				m.Write(Weights, i, moved)
				loss[side], _, _ = m.CrossEntropy(b, nil, 0, d)
			}
			m.Write(Weights, i, w)
			numeric := (loss[0] - loss[1]) / (2 * h)
			if math.Abs(numeric-slope) > 0.02*math.Abs(slope)+0.02 {
				t.Errorf("%s dropout %v: gradient along a direction %v, finite difference %v", p.Name, d.Probability, slope, numeric)
			}
		}
	}
}

func TestSameBitsForAnyThreads(t *testing.T) {
	once, _ := shared(prefixed(7, 10, 1, 33, 3, 22, 24, 12), 7)
	for _, isa := range isas() {
		for _, c := range []struct {
			batch   Batch
			dropout float32
		}{{randomBatch(17, 1, 40, 3, 29, 31, 12), .1}, {once, 0}} {
			var want []float32
			for _, threads := range []int{1, 2, 3} {
				m := newModel(t, tiny, "cpu", isa, threads)
				if _, _, err := m.CrossEntropy(c.batch, nil, 0.01, Dropout{Probability: c.dropout, Seed: 1}); err != nil {
					t.Fatal(err)
				}
				got := gradients(t, m)
				if want == nil {
					want = got
				} else if d := maxDiff(got, want); d != 0 {
					t.Errorf("%s: %d threads change gradients by %g, prefix of %d", isa, threads, d, c.batch.Offsets[0])
				}
			}
		}
	}
}

// A story has the same bits alone and in any batch, and its recorded
// log-probabilities are those of a training forward: also after the weights,
// which decoding may keep in a form of its own, have changed.
func TestDecodeEqualsForward(t *testing.T) {
	models := []*Model{newModel(t, tiny, "ref", "", 1)}
	for _, isa := range isas() {
		models = append(models, newModel(t, tiny, "cpu", isa, 2))
	}
	for _, m := range models {
		decodeEqualsForward(t, m)
		w := make([]float32, tiny.Vocab*tiny.Width)
		if err := m.Read(Weights, 0, w); err != nil {
			t.Fatal(err)
		}
		for i := range w {
			w[i] *= 1.25
		}
		if err := m.Write(Weights, 0, w); err != nil {
			t.Fatal(err)
		}
		decodeEqualsForward(t, m)
	}
}

func decodeEqualsForward(t *testing.T, m *Model) {
	prompts := Pack([][]int32{{4, 5, 6}, {4, 5, 6}, {4, 5, 9, 11, 2}, {4}, {4, 5, 6}})
	ids := []uint64{10, 11, 12, 13, 14}
	g := Generation{MaxNewTokens: 30, Temperature: 1, TopP: 1, EndToken: 7, Seed: 99}
	replies, err := m.Generate(prompts, ids, g)
	if err != nil {
		t.Fatal(err)
	}
	ended := false
	var stories [][]int32
	for i, r := range replies {
		prompt := prompts.Tokens[prompts.Offsets[i]:prompts.Offsets[i+1]]
		stories = append(stories, append(append([]int32{}, prompt...), r.Tokens...))
		ended = ended || r.Tokens[len(r.Tokens)-1] == 7

		alone, err := m.Generate(Pack([][]int32{prompt}), ids[i:i+1], g)
		if err != nil {
			t.Fatal(err)
		}
		if len(alone[0].Tokens) != len(r.Tokens) || maxDiff(alone[0].Logprob, r.Logprob) != 0 {
			t.Errorf("%s: story %d differs when it is told alone", m.ISA(), i)
		}
	}
	if !ended {
		t.Errorf("%s: no story ended early; choose another seed", m.ISA())
	}
	packed := Pack(stories)
	s := NewScores(len(packed.Tokens), true)
	if err := m.Forward(packed, nil, s); err != nil {
		t.Fatal(err)
	}
	for i, r := range replies {
		first := int(packed.Offsets[i]) + len(stories[i]) - len(r.Tokens) - 1
		if d := maxDiff(r.Logprob, s.Logprob[first:first+len(r.Tokens)]); d != 0 {
			t.Errorf("%s: story %d: sampling and forward differ by %g", m.ISA(), i, d)
		}
	}
}

// A cache of no more positions than a story takes changes no bit; the plan is
// smaller by what it leaves out; a longer story is refused.
func TestDecodeLength(t *testing.T) {
	prompts, ids := Pack([][]int32{{4, 5, 6}, {4, 5, 6}, {4, 5, 9, 11, 2}}), []uint64{10, 11, 12}
	g := Generation{MaxNewTokens: 14, Temperature: 1, TopP: 1, EndToken: -1, Seed: 99}
	const positions = 19 // not a multiple of any vector; odd ones are filled up
	for _, x := range append([]string{"ref"}, isas()...) {
		o := Options{Backend: "cpu", ISA: x, Threads: 2, MaxTokens: 16, MaxStories: 3, DecodeStories: 3}
		if x == "ref" {
			o.Backend, o.ISA = "ref", ""
		}
		whole := newModelOf(t, tiny, o)
		want, err := whole.Generate(prompts, ids, g)
		if err != nil {
			t.Fatal(err)
		}
		before, err := Plan(tiny, o)
		if err != nil {
			t.Fatal(err)
		}
		o.DecodeLength = positions
		after, err := Plan(tiny, o)
		element := 4
		if x == "avx512bf16" {
			element = 2
		}
		if saved := uint64(tiny.Layers * o.DecodeStories * (tiny.Context - positions - 1) * 2 * tiny.Width * element); err != nil || before.Cache-after.Cache != saved || before.Total()-after.Total() != saved {
			t.Errorf("%s: the plan falls by %d bytes, %d of the cache; %d are left out; %v", x, before.Total()-after.Total(), before.Cache-after.Cache, saved, err)
		}
		few := newModelOf(t, tiny, o)
		got, err := few.Generate(prompts, ids, g)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if !slices.Equal(got[i].Tokens, want[i].Tokens) || maxDiff(got[i].Logprob, want[i].Logprob) != 0 {
				t.Errorf("%s: story %d differs with a cache of %d positions", x, i, positions)
			}
		}
		g.MaxNewTokens++
		if _, err := few.Generate(prompts, ids, g); err == nil || !strings.Contains(err.Error(), "19 positions") {
			t.Errorf("%s: a story of 20: %v", x, err)
		}
		g.MaxNewTokens--
	}
	if _, err := Plan(tiny, Options{Backend: "cpu", ISA: "auto", Threads: 1, MaxTokens: 4, MaxStories: 1, DecodeLength: tiny.Context + 1}); err == nil || !strings.Contains(err.Error(), "decode_length") {
		t.Errorf("more positions than the context: %v", err)
	}
}

// Under dropout the thinned network speaks: other stories, the same again for
// the same call, the same for any threads; and its log-probabilities are not
// those of the whole network.
func TestRolloutDropout(t *testing.T) {
	prompts := Pack([][]int32{{4, 5, 6}, {4, 5, 6}, {4, 5, 9}})
	ids := []uint64{10, 11, 12}
	g := Generation{MaxNewTokens: 20, Temperature: 1, TopP: 1, EndToken: -1, Seed: 99}
	tell := func(m *Model, dropout float32) ([]int32, []float32) {
		g.Dropout = dropout
		replies, err := m.Generate(prompts, ids, g)
		if err != nil {
			t.Fatal(err)
		}
		var tokens []int32
		var logprob []float32
		for _, r := range replies {
			tokens, logprob = append(tokens, r.Tokens...), append(logprob, r.Logprob...)
		}
		return tokens, logprob
	}
	for _, isa := range isas() {
		one, two := newModel(t, tiny, "cpu", isa, 1), newModel(t, tiny, "cpu", isa, 2)
		_, whole := tell(one, 0)
		tokens, thinned := tell(one, .1)
		if maxDiff(whole, thinned) == 0 {
			t.Errorf("%s: dropout changes nothing", isa)
		}
		again, thinnedAgain := tell(two, .1)
		if !slices.Equal(tokens, again) || maxDiff(thinned, thinnedAgain) != 0 {
			t.Errorf("%s: the same call with two threads tells other stories", isa)
		}
	}
	g.Dropout = 1
	if _, err := newModel(t, tiny, "ref", "", 1).Generate(prompts, ids, g); err == nil || !strings.Contains(err.Error(), "0 <= dropout < 1") {
		t.Errorf("dropout 1: %v", err)
	}
}

func TestArgumentsAreChecked(t *testing.T) {
	if _, err := New(Config{Layers: 1, Heads: 3, Width: 32, Context: 8, Vocab: 8}, Options{Backend: "cpu", Threads: 1, MaxTokens: 8, MaxStories: 1}); err == nil {
		t.Error("width 32 with 3 heads was accepted")
	}
	if _, err := New(tiny, Options{Backend: "abacus", Threads: 1, MaxTokens: 8, MaxStories: 1}); err == nil {
		t.Error("an unknown backend was accepted")
	}
	m := newModel(t, tiny, "cpu", "auto", 1)
	for name, b := range map[string]Batch{
		"token outside the vocabulary": Pack([][]int32{{1, 61}}),
		"story longer than context":    Pack([][]int32{make([]int32, 41)}),
		"empty story":                  Pack([][]int32{{1}, {}}),
	} {
		if err := m.Forward(b, nil, Scores{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func BenchmarkCrossEntropy(b *testing.B) {
	c := Config{Layers: 4, Heads: 4, Width: 256, Context: 256, Vocab: 4096, LayerNormEpsilon: 1e-5}
	m, err := New(c, Options{Backend: "cpu", ISA: "auto", Threads: 2, MaxTokens: 2048, MaxStories: 8, Train: true})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	var stories [][]int32
	for range 8 {
		stories = append(stories, make([]int32, 256))
	}
	batch := Pack(stories)
	for b.Loop() {
		if _, _, err := m.CrossEntropy(batch, nil, 1, Dropout{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*2048/b.Elapsed().Seconds(), "tokens/s")
}
