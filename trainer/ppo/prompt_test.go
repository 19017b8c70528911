package ppo

import (
	"context"
	"slices"
	"strings"
	"testing"

	"onceupon/bindings/student"
)

func TestSharedPrompt(t *testing.T) {
	for _, c := range []struct {
		stories [][]int32
		prompts []int
		want    int
	}{
		{[][]int32{{1, 2, 3, 9}, {1, 2, 3, 8}}, []int{3, 3}, 2}, // all but the last token of the prompt
		{[][]int32{{1, 2, 3, 9}, {1, 2, 3, 9}}, []int{3, 2}, 1}, // of the shortest prompt
		{[][]int32{{1, 2, 3, 9}, {1, 4, 3, 9}}, []int{3, 3}, 1}, // prompts that part early
		{[][]int32{{1, 2, 3, 9}, {2, 2, 3, 9}}, []int{3, 3}, 0}, // nothing in common
		{[][]int32{{1, 9}, {1, 9}}, []int{1, 1}, 0},             // its only token is the last
		{[][]int32{{1, 2, 3, 4, 5, 6}}, []int{5}, 4},            // one story
		{[][]int32{{1, 2, 3, 9}, {1, 2, 3, 9}, {1, 5}}, []int{3, 3, 2}, 1},
	} {
		b := Batch{Stories: student.Pack(c.stories), Prompts: c.prompts}
		if got := sharedPrompt(b); got != c.want {
			t.Errorf("%v with prompts of %v: %d tokens shared, want %d", c.stories, c.prompts, got, c.want)
		}
		b.Stories.First = make([]int32, len(c.stories))
		if got := sharedPrompt(b); got != 0 {
			t.Errorf("%d tokens shared by stories with positions of their own", got)
		}
	}
}

// TestSharedPromptChangesOnlyRounding: stories with positions given do not share
// their prompt, so the same step can be made both ways. Scores of replies have the
// same bits; weights differ in the order of sums.
func TestSharedPromptChangesOnlyRounding(t *testing.T) {
	orders := func(epoch int) []int { return [][]int{{0, 1, 2, 3}, {2, 1, 0, 3}, {3, 2, 1, 0}}[epoch] }
	for _, c := range []struct {
		backend   string
		room      int // tokens of a call
		minibatch int
		order     func(epoch int) []int
	}{
		{"ref", 64, 0, nil}, // the policy's pass serves the first epoch
		{"cpu", 64, 0, nil}, {"cpu", 14, 0, nil}, {"cpu", 64, 2, orders}, {"cpu", 10, 2, orders},
	} {
		b := Batch{Stories: student.Pack([][]int32{{1, 2, 3, 4, 5, 6}, {1, 2, 3, 7, 8, 9, 2}, {1, 2, 3, 9}, {1, 2, 3, 3, 3, 3, 3, 4}}),
			Prompts: []int{3, 3, 3, 3}, Scores: []float32{1, 0, .5, .2}}
		mask := b.Mask()
		step := func() (Result, []float32) {
			policy, reference := modelOn(t, c.backend, 2, true, c.room), modelOn(t, c.backend, 2, false, c.room)
			begin(t, policy, reference)
			tr := New(Settings{LR: 1e-4, Epochs: 3, Minibatch: c.minibatch, Accumulation: 1, Gamma: 1, Lambda: .95, Clip: .2, ValueClip: .2,
				ValueCoef: .1, InitKL: .2, TargetKL: 6, Horizon: 1000, Adaptive: true, RatioThreshold: 10}, policy, reference)
			r, err := tr.Step(context.Background(), b, c.order, func(_ int, stories []int, s student.Scores) {
				if n := len(pickRows(layout{b.Stories, 0}, mask, stories)); len(s.Logprob) != n || len(s.Value) != n {
					t.Errorf("%+v: the observer of stories %v sees %d scores and %d values, want %d", c, stories, len(s.Logprob), len(s.Value), n)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			return r, withoutKeyBiases(t, policy)
		}
		once, weights := step()
		b.Stories.First = make([]int32, 4)
		each, want := step()
		if once.SharedPrompt != 2 || each.SharedPrompt != 0 {
			t.Fatalf("%d and %d tokens shared, want 2 and 0", once.SharedPrompt, each.SharedPrompt)
		}
		for i, m := range mask {
			if m != 0 && (once.Old.Logprob[i] != each.Old.Logprob[i] || once.Old.Value[i] != each.Old.Value[i]) {
				t.Errorf("%s: column %d has other scores", c.backend, i)
			}
		}
		for i := range weights {
			near(t, c.backend+": weight with a shared prompt", float64(weights[i]), float64(want[i]), 2e-6)
		}
	}
}

// withoutKeyBiases are all weights but those whose true gradient is 0: a
// constant added to every key cancels in the softmax, so Adam moves them by
// rounding noise.
func withoutKeyBiases(t *testing.T, m *student.Model) []float32 {
	t.Helper()
	all, at := allWeights(t, m), 0
	for _, p := range m.Parameters() {
		next := at + p.Count()
		if strings.HasSuffix(p.Name, "attn_qkv.bias") {
			all = slices.Delete(all, at+p.Count()/3, at+2*p.Count()/3)
			next -= p.Count() / 3
		}
		at = next
	}
	return all
}
