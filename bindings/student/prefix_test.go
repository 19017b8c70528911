package student

import (
	"fmt"
	"strings"
	"testing"
)

// shared is b, whose stories begin with the same prefix, with that held once;
// each per-token array of the two is brought into b's form by whole.
func shared(b Batch, prefix int) (once Batch, whole func(x []float32) []float32) {
	once = Batch{Tokens: append([]int32(nil), b.Tokens[:prefix]...), Offsets: []int32{int32(prefix)}}
	for i := range b.Stories() {
		once.Tokens = append(once.Tokens, b.Tokens[int(b.Offsets[i])+prefix:b.Offsets[i+1]]...)
		once.Offsets = append(once.Offsets, int32(len(once.Tokens)))
	}
	return once, func(x []float32) (all []float32) {
		for i := range once.Stories() {
			all = append(append(all, x[:prefix]...), x[once.Offsets[i]:once.Offsets[i+1]]...)
		}
		return all
	}
}

// prefixed is a batch of stories that begin with the same tokens.
func prefixed(prefix int, own ...int) Batch {
	lengths := make([]int, len(own))
	for i, n := range own {
		lengths[i] = prefix + n
	}
	b := randomBatch(lengths...)
	for _, at := range b.Offsets[:len(own)] {
		copy(b.Tokens[at:], b.Tokens[:prefix])
	}
	return b
}

// TestPrefix: forward has the same bits with the prefix once and in every story;
// gradients are sums in another order.
func TestPrefix(t *testing.T) {
	for _, isa := range append([]string{"ref"}, isas()...) {
		backend := map[bool]string{true: "ref", false: "cpu"}[isa == "ref"]
		for _, c := range []struct {
			prefix int
			own    []int
		}{{1, []int{1}}, {7, []int{3, 1, 20, 9}}, {25, []int{2, 15, 1}}} {
			name := fmt.Sprintf("%s, prefix of %d", isa, c.prefix)
			b := prefixed(c.prefix, c.own...)
			once, whole := shared(b, c.prefix)
			targets := make([]int32, len(b.Tokens)) // the last of the prefix scores nothing
			for i := range targets {
				targets[i] = int32(i*7%tiny.Vocab) - 1
			}
			for i := range c.own {
				copy(targets[b.Offsets[i]:], targets[:c.prefix])
			}
			var onceTargets []int32
			onceTargets = append(onceTargets, targets[:c.prefix]...)
			for i := range c.own {
				onceTargets = append(onceTargets, targets[int(b.Offsets[i])+c.prefix:b.Offsets[i+1]]...)
			}
			m := newModel(t, tiny, backend, isa, 2)
			want, got := NewScores(len(b.Tokens), true), NewScores(len(once.Tokens), true)
			if err := m.Forward(b, targets, want); err != nil {
				t.Fatal(err)
			}
			if err := m.Forward(once, onceTargets, got); err != nil {
				t.Fatal(err)
			}
			for what, x := range map[string][2][]float32{"logprob": {got.Logprob, want.Logprob}, "entropy": {got.Entropy, want.Entropy}, "value": {got.Value, want.Value}} {
				if maxDiff(whole(x[0]), x[1]) != 0 {
					t.Errorf("%s: %s differs", name, what)
				}
			}
			// Scored in one story alone, the prefix has the same slope in both.
			for i := range c.own[1:] {
				for k := range c.prefix {
					targets[int(b.Offsets[i+1])+k] = -1
				}
			}
			_, n, err := m.CrossEntropy(b, targets, 0.02, Dropout{})
			if err != nil {
				t.Fatal(err)
			}
			each := gradients(t, m)
			if err := m.ZeroGradients(); err != nil {
				t.Fatal(err)
			}
			_, nOnce, err := m.CrossEntropy(once, onceTargets, 0.02, Dropout{})
			if err != nil {
				t.Fatal(err)
			}
			tolerance := 2e-6
			if isa == "avx512bf16" {
				tolerance = 2e-3 // 8 bits a factor
			}
			if diff := maxDiff(gradients(t, m), each); n != nOnce || diff > tolerance {
				t.Errorf("%s: %d and %d targets; gradients differ by %g", name, n, nOnce, diff)
			}
		}
	}
}

// A prefix where it is not taken is refused in one line.
func TestPrefixRefused(t *testing.T) {
	m := newModel(t, tiny, "ref", "", 1)
	once, _ := shared(prefixed(3, 2, 4), 3)
	positions := once
	positions.First = []int32{3, 3}
	column := make([]float32, len(once.Tokens))
	_, advantages := m.Advantages(once, column, []float32{1, 1}, column, column, column, RewardOptions{})
	_, _, dropped := m.CrossEntropy(once, nil, 1, Dropout{Probability: .1})
	_, told := m.Generate(once, []uint64{0, 1}, Generation{MaxNewTokens: 1, TopP: 1})
	for want, err := range map[string]error{
		"prefix of 40 tokens; 0..39 are possible":                              m.Forward(Batch{Tokens: make([]int32, 41), Offsets: []int32{40, 41}}, nil, Scores{}),
		"prefix of -1 tokens":                                                  m.Forward(Batch{Tokens: make([]int32, 1), Offsets: []int32{-1, 1}}, nil, Scores{}),
		"prefix of 3 tokens; 0..0 are possible with positions of first tokens": m.Forward(positions, nil, Scores{}),
		"story 0 has 39 tokens":                                                m.Forward(Batch{Tokens: make([]int32, 42), Offsets: []int32{3, 42}}, nil, Scores{}),
		"dropout with a prefix":                                                dropped,
		"advantages need every column of every story: no prefix":               advantages,
		"prompts are given whole: no prefix":                                   told,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
