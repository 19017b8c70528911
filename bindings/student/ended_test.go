package student

import (
	"cmp"
	"errors"
	"slices"
	"testing"
)

// Stories are handed over as they end, the shorter first and equally long ones
// by their index, with the bits that the whole call returns; an error stops the
// telling, and the student tells the same afterwards.
func TestStoriesAreHandedOverAsTheyEnd(t *testing.T) {
	const n = 12
	var prompts [][]int32
	var ids []uint64
	for i := range n {
		prompts, ids = append(prompts, []int32{4, 5, 6}), append(ids, uint64(10+i))
	}
	g := Generation{MaxNewTokens: 30, Temperature: 1, TopP: 1, EndToken: 7, Seed: 99}
	m := newModel(t, tiny, "cpu", "auto", 2)
	want, err := m.Generate(Pack(prompts), ids, g)
	if err != nil {
		t.Fatal(err)
	}
	expected := make([]int, n)
	for i := range expected {
		expected[i] = i
	}
	slices.SortStableFunc(expected, func(a, b int) int { return cmp.Compare(len(want[a].Tokens), len(want[b].Tokens)) })
	if len(want[expected[0]].Tokens) == len(want[expected[n-1]].Tokens) {
		t.Fatal("all stories are equally long; choose another seed")
	}

	var order []int
	stop := errors.New("enough")
	ended := func(most int) func(int, Reply) error {
		order = nil
		return func(i int, r Reply) error {
			if order = append(order, i); !slices.Equal(r.Tokens, want[i].Tokens) || !slices.Equal(r.Logprob, want[i].Logprob) {
				t.Errorf("story %d: %v was handed over, %v returned", i, r, want[i])
			}
			if len(order) == most {
				return stop
			}
			return nil
		}
	}
	if _, err := m.GenerateEach(Pack(prompts), ids, g, ended(3)); !errors.Is(err, stop) || !slices.Equal(order, expected[:3]) {
		t.Errorf("stopped after 3: %v, order %v, want %v", err, order, expected[:3])
	}
	if _, err := m.GenerateEach(Pack(prompts), ids, g, ended(0)); err != nil || !slices.Equal(order, expected) {
		t.Errorf("%v, order %v, want %v", err, order, expected)
	}
}
