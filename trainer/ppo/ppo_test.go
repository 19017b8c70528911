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
	return modelOn(t, "ref", 1, train, maxTokens)
}

func modelOn(t *testing.T, backend string, threads int, train bool, maxTokens int) *student.Model {
	t.Helper()
	m, err := student.New(student.Config{Layers: 1, Heads: 1, Width: 8, Context: 16, Vocab: 11, LayerNormEpsilon: 1e-5},
		student.Options{Backend: backend, ISA: "auto", Threads: threads, MaxTokens: maxTokens, PPOTokens: 64, MaxStories: 8, Train: train, ValueHead: train})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// begin gives policy and reference the same weights.
func begin(t *testing.T, policy, reference *student.Model) {
	t.Helper()
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

// TestLossVectors: TRL's loss depends on the differences of new and old
// log-probabilities and values alone, so a real model takes the vectors' place
// when old ones are set at the vectors' distance from its own.
func TestLossVectors(t *testing.T) {
	m := model(t, true, 64)
	begin(t, m, model(t, false, 64))
	b := student.Pack([][]int32{{1, 2, 3, 4, 5, 6}, {1, 6, 5, 4, 3, 2}})
	mask := []float32{0, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0}
	moved := []float32{0, .3, -.05, .1, 0, 0, 0, -.4, .02, 0, 0, 0}
	newValue := []float32{0, .45, -.1, .1, 0, 0, 0, .1, .2, 0, 0, 0}
	oldValue := []float32{.3, .1, -.2, .4, 9, 0, .5, .2, .6, -.1, 9, 0}
	returns := []float32{0, .77305, .719, .82, 0, 0, 0, .2505, .19, 0, 0, 0}
	white := []float32{0, .6536669, 1.1230117, .1707732, 0, 0, 0, -.5343411, -1.4131104, 0, 0, 0}
	now := student.NewScores(len(b.Tokens), true)
	if err := m.Forward(b, nil, now); err != nil {
		t.Fatal(err)
	}
	var oldLogprob []float32
	for i := range b.Tokens {
		oldLogprob = append(oldLogprob, now.Logprob[i]-moved[i])
		oldValue[i] += now.Value[i] - newValue[i]
		returns[i] += now.Value[i] - newValue[i]
	}
	s, err := m.PPOBackward(mask, oldLogprob, oldValue, white, returns, student.PPOOptions{Clip: .2, ValueClip: .2, ValueCoefficient: .1, TokenCount: 5, Scale: 1})
	if err != nil {
		t.Fatal(err)
	}
	near(t, "policy loss", s.PolicyLoss/s.Tokens, -.0344492, 2e-6)
	near(t, "value loss", s.ValueLoss/s.Tokens, .1479687, 2e-6)
	near(t, "total loss", s.PolicyLoss/s.Tokens+.1*s.ValueLoss/s.Tokens, -.0196523, 2e-6)
	near(t, "approximate KL", s.ApproxKL/s.Tokens, .02629, 2e-6)
	near(t, "policy KL", s.PolicyKL/s.Tokens, .006, 2e-6)
	near(t, "clipped ratios", s.PolicyClipped/s.Tokens, .4, 1e-12)
	near(t, "clipped values", s.ValueClipped/s.Tokens, .4, 1e-12)
	near(t, "mean ratio", s.Ratio/s.Tokens, 1.0193561, 2e-6)
	near(t, "value error", s.ValueError/s.Tokens, .2632545, 2e-6)
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
		begin(t, policy, reference)
		tr := New(Settings{LR: 1e-3, Epochs: 2, Accumulation: 1, Gamma: 1, Lambda: .95, Clip: .2, ValueClip: .2, ValueCoef: .1,
			InitKL: .2, TargetKL: 6, Horizon: 1000, Adaptive: true, RatioThreshold: 10}, policy, reference)
		b := Batch{Stories: student.Pack([][]int32{{1, 2, 3, 4, 5}, {1, 2, 6, 7, 8, 9}, {1, 2, 9}, {1, 2, 3, 3, 3, 3, 3}}), Prompts: []int{2, 2, 2, 2}, Scores: []float32{1, 0, .5, .2}}
		if _, err := tr.Step(context.Background(), b, nil, nil); err != nil {
			t.Fatal(err)
		}
		return allWeights(t, policy)
	}
	a, b := weights(64), weights(12)
	for i := range a {
		if math.Abs(float64(a[i]-b[i])) > 2e-5 {
			t.Fatalf("weight %d: %v and %v", i, a[i], b[i])
		}
	}
}

// step runs steps on a small batch, each under settings that change makes, and
// returns the last result and the weights.
func step(t *testing.T, change func(s *Settings, step int), steps int) (Result, []float32) {
	t.Helper()
	return stepOn(t, "ref", 1, change, steps)
}

func stepOn(t *testing.T, backend string, threads int, change func(s *Settings, step int), steps int) (Result, []float32) {
	t.Helper()
	policy, reference := modelOn(t, backend, threads, true, 64), modelOn(t, backend, threads, false, 64)
	begin(t, policy, reference)
	s := Settings{LR: 1e-2, Epochs: 3, Accumulation: 1, Gamma: 1, Lambda: .95, Clip: .2, ValueClip: .2, ValueCoef: .1,
		InitKL: .2, TargetKL: 6, Horizon: 1000, Adaptive: true, RatioThreshold: 10}
	tr := New(s, policy, reference)
	b := Batch{Stories: student.Pack([][]int32{{1, 2, 3, 4, 5}, {1, 2, 6, 7, 8, 9}, {1, 2, 9}, {1, 2, 3, 3, 3, 3, 3}}), Prompts: []int{2, 2, 2, 2}, Scores: []float32{1, 0, .5, .2}}
	var r Result
	for k := range steps {
		change(&tr.Settings, k)
		var err error
		if r, err = tr.Step(context.Background(), b, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	return r, allWeights(t, policy)
}

func allWeights(t *testing.T, m *student.Model) (all []float32) {
	t.Helper()
	for i, p := range m.Parameters() {
		x := make([]float32, p.Count())
		if err := m.Read(student.Weights, i, x); err != nil {
			t.Fatal(err)
		}
		all = append(all, x...)
	}
	return all
}

func equal(a, b []float32) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// TestQuirks turns each quirk of TRL on by itself: it must change the weights
// exactly where it applies, and nowhere else.
func TestQuirks(t *testing.T) {
	weights := func(change func(*Settings, int), steps int) []float32 {
		_, w := step(t, change, steps)
		return w
	}
	clip := func(norm float32, once bool) func(*Settings, int) {
		return func(s *Settings, _ int) { s.Epochs, s.MaxGradNorm, s.Parity.ClipOnce = 1, norm, once }
	}
	// Adam forgives a constant factor, but not one that changes between steps.
	if !equal(weights(clip(.01, false), 1), weights(clip(.01, true), 1)) {
		t.Error("ClipOnce changes the first step, which it must clip")
	}
	if equal(weights(clip(.01, false), 2), weights(clip(.01, true), 2)) {
		t.Error("ClipOnce still clips the second step")
	}
	if !equal(weights(clip(1e9, false), 2), weights(clip(1e9, true), 2)) {
		t.Error("ClipOnce changes steps that need no clipping")
	}

	// A threshold below 1 skips every minibatch: the ratio begins at 1.
	skip := func(move bool) func(*Settings, int) {
		return func(s *Settings, step int) {
			s.Parity.StepOnSkip = move
			if step == 1 {
				s.RatioThreshold = .9
			}
		}
	}
	r, still := step(t, skip(false), 2)
	if r.Stats.Skipped != 3 {
		t.Fatalf("%d of 3 minibatches skipped with a threshold below 1", r.Stats.Skipped)
	}
	if !equal(still, weights(skip(false), 1)) {
		t.Error("skipped minibatches move the weights")
	}
	if equal(still, weights(skip(true), 2)) {
		t.Error("StepOnSkip leaves the weights where they were")
	}
	if !equal(weights(skip(false), 1), weights(skip(true), 1)) {
		t.Error("StepOnSkip changes steps that are not skipped")
	}

	leak := func(whiten, leak bool) func(*Settings, int) {
		return func(s *Settings, _ int) { s.WhitenRewards, s.Parity.WhitenLeak = whiten, leak }
	}
	if equal(weights(leak(true, true), 1), weights(leak(true, false), 1)) {
		t.Error("WhitenLeak has no effect on stories that are padded")
	}
	if !equal(weights(leak(false, true), 1), weights(leak(false, false), 1)) {
		t.Error("WhitenLeak has an effect without whitened rewards")
	}
}

// The statistics of a step, against TRL's means from the same sums.
func TestMinibatchStatistics(t *testing.T) {
	var s student.PPOSums
	oldReturns := []float64{.77305, .719, .82, .2505, .19}
	for _, r := range oldReturns {
		s.Add(student.PPOSums{Tokens: 1, Return: r, ReturnSquared: r * r})
	}
	m := minibatchStats(s, .1)
	near(t, "returns/mean", m.ReturnsMean, .55051, 1e-6)
	near(t, "returns/var", m.ReturnsVar, .0926278, 1e-6)
}

// Running moments as TRL's RunningMoments: after all batches, those of all
// numbers together.
func TestRunningMoments(t *testing.T) {
	m := NewMoments()
	x := []float32{.1, .5, .9, .3, .2, .8, .4}
	m.Update(x[:3])
	m.Update(x[3:])
	var all []float64
	for _, v := range x {
		all = append(all, float64(v))
	}
	mean, std := meanStd(all)
	near(t, "mean", m.Mean, mean, 1e-9)
	near(t, "std", m.Std, std, 1e-9)
}

// The same bits on repeated runs and for any number of threads.
func TestSameBits(t *testing.T) {
	plain := func(*Settings, int) {}
	for _, backend := range []string{"ref", "cpu"} {
		_, want := stepOn(t, backend, 1, plain, 2)
		for _, threads := range []int{1, 2, 3} {
			if _, got := stepOn(t, backend, threads, plain, 2); !equal(got, want) {
				t.Errorf("%s: %d threads give other weights", backend, threads)
			}
		}
	}
}
