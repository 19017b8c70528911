package pretrain

import (
	"context"
	"errors"
	"math"
	"testing"

	"onceupon/bindings/student"
)

func newModel(t *testing.T) *student.Model {
	t.Helper()
	m, err := student.New(student.Config{Layers: 2, Heads: 2, Width: 32, Context: 16, Vocab: 20, LayerNormEpsilon: 1e-5},
		student.Options{Backend: "cpu", ISA: "auto", Threads: 1, MaxTokens: 48, MaxStories: 8, Train: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	if err := Initialize(m, 1); err != nil {
		t.Fatal(err)
	}
	return m
}

func countingCorpus() *Corpus {
	c := &Corpus{}
	for i := range 30 {
		row := make([]int32, 16)
		for j := range row {
			row[j] = int32((i + j) % 20)
		}
		c.Rows = append(c.Rows, row)
		c.Words = append(c.Words, 10)
	}
	return c
}

var settings = Settings{Words: 6000, BatchTokens: 64, LR: 3e-3, Beta1: .9, Beta2: .999, Epsilon: 1e-8, GradClip: 1, Warmup: .1,
	Schedule: "cosine", Dropout: .1, Seed: 3, Milestones: []int64{1000, 6000}}

func weights(t *testing.T, m *student.Model) []float32 {
	var all []float32
	for i, p := range m.Parameters() {
		x := make([]float32, p.Count())
		if err := m.Read(student.Weights, i, x); err != nil {
			t.Fatal(err)
		}
		all = append(all, x...)
	}
	return all
}

func TestStudentLearnsToCount(t *testing.T) {
	m, c := newModel(t), countingCorpus()
	first, err := Loss(context.Background(), m, c.Rows)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(first-math.Log(20)) > 0.1 {
		t.Errorf("loss before training %v, want about log 20 = %v", first, math.Log(20))
	}
	var milestones []int64
	state, err := Run(context.Background(), m, c, settings, State{}, Hooks{Milestone: func(w int64, _ State) error {
		milestones = append(milestones, w)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if state.Words < 6000 || len(milestones) != 2 {
		t.Errorf("state %+v, milestones %v", state, milestones)
	}
	last, _ := Loss(context.Background(), m, c.Rows)
	if last > 0.5 {
		t.Errorf("loss after training %v", last)
	}
}

// Stopping between updates and going on gives the same bits.
func TestRunCanBeCut(t *testing.T) {
	whole := newModel(t)
	if _, err := Run(context.Background(), whole, countingCorpus(), settings, State{}, Hooks{}); err != nil {
		t.Fatal(err)
	}
	cut := newModel(t)
	stop := errors.New("stop")
	state, err := Run(context.Background(), cut, countingCorpus(), settings, State{}, Hooks{Pause: func(s State) error {
		if s.Step == 57 {
			return stop
		}
		return nil
	}})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if _, err := Run(context.Background(), cut, countingCorpus(), settings, state, Hooks{}); err != nil {
		t.Fatal(err)
	}
	a, b := weights(t, whole), weights(t, cut)
	for i := range a {
		if a[i] != b[i] {
			t.Fatalf("weight %d differs: %v, %v", i, a[i], b[i])
		}
	}
}
