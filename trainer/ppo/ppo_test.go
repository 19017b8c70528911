package ppo

import (
	"context"
	"math"
	"testing"

	"onceupon/bindings/student"
)

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.IsNaN(got) || math.Abs(got-want) > tolerance {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

// The vectors are TRL 0.9.4's own (ppo.md section 11 of the project's notes).
func TestKLController(t *testing.T) {
	kl := 0.2
	for _, step := range []struct{ kl, want float64 }{{0, .19856}, {3, .197130368}, {5.4, .1964206987}, {6.6, .1971278132}, {60, .1985471334}} {
		kl = NextKL(kl, step.kl, 6, 10000, 360)
		near(t, "coefficient", kl, step.want, 1e-9)
	}
}

func model(t *testing.T, train bool, maxTokens int) *student.Model {
	t.Helper()
	m, err := student.New(student.Config{Layers: 1, Heads: 1, Width: 8, Context: 16, Vocab: 11, LayerNormEpsilon: 1e-5},
		student.Options{Backend: "ref", Threads: 1, MaxTokens: maxTokens, PPOTokens: 64, MaxStories: 8, Train: train, ValueHead: train})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func TestAdvantagesVectors(t *testing.T) {
	// Two stories of six tokens: five columns each, and the last without a target.
	b := student.Batch{Tokens: make([]int32, 12), Offsets: []int32{0, 6, 12}}
	mask := []float32{0, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0}
	logp := []float32{-1, -2, -.5, -1.5, -3, 0, -.7, -1.2, -2.2, -.9, -4, 0}
	ref := []float32{-1.1, -1.5, -.9, -1.4, -2, 0, -.6, -1, -2.5, -1.9, -3, 0}
	values := []float32{.3, .1, -.2, .4, 9, 0, .5, .2, .6, -.1, 9, 0}
	scores := []float32{.8, .25}
	o := student.RewardOptions{KLCoefficient: .2, Gamma: 1, Lambda: .95}
	a, err := model(t, true, 64).Advantages(b, mask, scores, logp, ref, values, o)
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, got []float32, want map[int]float64) {
		for i, w := range want {
			near(t, name, float64(got[i]), w, 2e-6)
		}
	}
	check("rewards", a.Rewards, map[int]float64{1: .10, 2: -.08, 3: .82, 7: .04, 8: .19})
	check("raw", a.Raw, map[int]float64{1: .67305, 2: .919, 3: .42, 7: .0505, 8: -.41})
	check("returns", a.Returns, map[int]float64{1: .77305, 2: .719, 3: .82, 7: .2505, 8: .19})
	check("whitened", a.Whitened, map[int]float64{1: .6536669, 2: 1.1230117, 3: .1707732, 7: -.5343411, 8: -1.4131104})

	for penalty, want := range map[student.KLPenalty]map[int]float64{
		student.Abs: {1: -.1, 2: -.08, 3: .78, 7: -.04, 8: .19},
		student.MSE: {1: -.025, 2: -.016, 3: .799, 7: -.004, 8: .241},
	} {
		o := o
		o.Penalty = penalty
		a, err := model(t, true, 64).Advantages(b, mask, scores, logp, ref, values, o)
		if err != nil {
			t.Fatal(err)
		}
		check("rewards with another penalty", a.Rewards, want)
	}
}

func TestMaskCoversReplies(t *testing.T) {
	b := Batch{Stories: student.Pack([][]int32{{1, 2, 3, 4, 5, 6, 7}, {1, 2, 3, 4, 5}}), Prompts: []int{4, 4}}
	want := []float32{0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 0}
	for i, m := range b.Mask() {
		if m != want[i] {
			t.Fatalf("mask %v, want %v", b.Mask(), want)
		}
	}
}

// The step is the same whether the model takes a batch at once or in parts.
func TestPartsDoNotChangeTheStep(t *testing.T) {
	weights := func(maxTokens int) []float32 {
		policy, reference := model(t, true, maxTokens), model(t, false, maxTokens)
		for i, p := range policy.Parameters() {
			x := make([]float32, p.Count())
			for j := range x {
				x[j] = float32(math.Sin(float64(i*31+j))) * .3
			}
			if err := policy.Write(student.Weights, i, x); err != nil {
				t.Fatal(err)
			}
		}
		if err := reference.CopyWeights(policy); err != nil {
			t.Fatal(err)
		}
		tr := New(Settings{LR: 1e-3, Epochs: 2, Accumulation: 1, Gamma: 1, Lambda: .95, Clip: .2, ValueClip: .2, ValueCoef: .1,
			InitKL: .2, TargetKL: 6, Horizon: 1000, Adaptive: true, RatioThreshold: 10}, policy, reference)
		b := Batch{Stories: student.Pack([][]int32{{1, 2, 3, 4, 5}, {1, 2, 6, 7, 8, 9}, {1, 2, 9}, {1, 2, 3, 3, 3, 3, 3}}), Prompts: []int{2, 2, 2, 2}, Scores: []float32{1, 0, .5, .2}}
		if _, err := tr.Step(context.Background(), b, nil, nil); err != nil {
			t.Fatal(err)
		}
		var all []float32
		for i, p := range policy.Parameters() {
			x := make([]float32, p.Count())
			policy.Read(student.Weights, i, x)
			all = append(all, x...)
		}
		return all
	}
	a, b := weights(64), weights(12)
	for i := range a {
		if math.Abs(float64(a[i]-b[i])) > 2e-5 {
			t.Fatalf("weight %d: %v and %v", i, a[i], b[i])
		}
	}
}
