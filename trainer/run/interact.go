package run

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"onceupon/bindings/student"
	"onceupon/trainer/budget"
	"onceupon/trainer/config"
	"onceupon/trainer/fault"
	"onceupon/trainer/judge"
	"onceupon/trainer/metrics"
	"onceupon/trainer/ppo"
	"onceupon/trainer/reward"
	"onceupon/trainer/rollout"
	"onceupon/trainer/storybook"
)

// PPOSettings translates a configuration.
func PPOSettings(c config.PPO) ppo.Settings {
	s := ppo.Settings{
		LR: c.LR, Epochs: c.Epochs, Minibatch: c.Minibatch, Accumulation: c.Accumulation, Gamma: float32(c.Gamma),
		Lambda: float32(c.Lambda), Clip: float32(c.Clip), ValueClip: float32(c.ValueClip), ValueCoef: float32(c.ValueCoef),
		InitKL: c.InitKL, TargetKL: c.TargetKL, Horizon: c.Horizon, Adaptive: c.AdaptiveKL,
		Penalty:       map[string]student.KLPenalty{"kl": student.KL, "abs": student.Abs, "mse": student.MSE}[c.KLPenalty],
		WhitenRewards: c.WhitenRewards, RatioThreshold: c.RatioThreshold, MaxGradNorm: float32(c.MaxGradNorm), EarlyStop: c.EarlyStop,
		ScoreScaling: c.ScoreScaling, ScoreNorm: c.ScoreNorm, ScoreClip: c.ScoreClip,
	}
	s.Parity = ppo.Quirks{ClipOnce: c.ClipOnce, StepOnSkip: c.StepOnSkip, WhitenLeak: c.WhitenLeak}
	return s
}

// initHead begins the value head: "zero", so that the first values add no
// noise to the advantages, or "linear", drawn as PyTorch draws a Linear,
// uniform in +-1/sqrt(width) (TRL leaves it so).
func initHead(m *student.Model, kind string, seed uint64) error {
	bound := 1 / math.Sqrt(float64(m.Config().Width))
	if kind == "zero" {
		bound = 0
	}
	for i, p := range m.Parameters() {
		if !strings.HasPrefix(p.Name, "value_head.") {
			continue
		}
		r := rand.New(rand.NewPCG(seed, uint64(i)|1<<32))
		x := make([]float32, p.Count())
		for j := range x {
			x[j] = float32((2*r.Float64() - 1) * bound)
		}
		if err := m.Write(student.Weights, i, x); err != nil {
			return err
		}
	}
	return nil
}

// clearMoments begins a new optimizer.
func clearMoments(m *student.Model) error {
	for i, p := range m.Parameters() {
		zero := make([]float32, p.Count())
		for _, a := range []student.Array{student.Moment1, student.Moment2} {
			if err := m.Write(a, i, zero); err != nil {
				return err
			}
		}
	}
	return nil
}

// wellMade are replies of stories that nobody reads, for the probe.
func wellMade(prompt string, n int) []string {
	book := storybook.New(0)
	var all []string
	for i := uint64(0); len(all) < n; i++ {
		if reply, ok := strings.CutPrefix(book.HeldOutStory(i).Text, prompt); ok {
			all = append(all, strings.TrimSpace(reply))
		}
		if i == 1000 { // another prompt than the storybook's
			prompt = "Once upon a time,"
		}
	}
	return all
}

// WellMade are replies for a probe outside a run.
func WellMade(c config.Config, n int) []string { return wellMade(c.Rollout.Prompt, n) }

// openTeacher opens the teacher and, on the first start, tests it.
func (s *session) openTeacher(ctx context.Context) error {
	var err error
	if s.teacher, err = s.openMeasured(ctx); err != nil {
		return err
	}
	info := s.teacher.Info()
	s.o.Reporter.Say("teacher: %s, rubric %s of %d tokens, %s reading, waves of %d", info.Model, info.Rubric, info.PrefixTokens, info.Reading, info.Wave)
	if !s.c.Teacher.Probe || s.state.Phase != phasePretrain {
		return nil
	}
	p, err := judge.Probe(ctx, s.teacher, wellMade(s.c.Rollout.Prompt, s.c.Teacher.ProbeStories), s.c.Teacher.ProbeStories, s.c.Teacher.Seed,
		func(done, total int) { s.o.Reporter.Progress("probe", int64(done), int64(total), "kinds", "") })
	if err != nil {
		return err
	}
	s.state.Probe = &p
	if err := s.folder.Log(map[string]any{"event": "probe", "probe": p, "calibration": s.teacher.Calibration(), "teacher": info}); err != nil {
		return err
	}
	if !p.Passed {
		return fault.New(fault.Teacher, "teacher %s prefers noise to stories (rank correlation %.2f): take another one, or --no-probe to insist; `onceupon judge --probe` prints the table", info.Path, p.RankCorrelation)
	}
	s.o.Reporter.Say("the teacher passed its probe: rank correlation %.2f", p.RankCorrelation)
	return nil
}

// interact runs batches until the budget or their number is reached.
func (s *session) interact(ctx context.Context) error {
	var err error
	// Before the teacher, whose pace is measured in the memory that is left.
	o := ReferenceOptions(s.c)
	if o.Kernels, err = s.kernels(); err != nil {
		return err
	}
	if s.reference, err = student.New(s.policy.Config(), o); err != nil {
		return err
	}
	if err := s.openTeacher(ctx); err != nil {
		return err
	}
	trainer := ppo.New(PPOSettings(s.c.PPO), s.policy, s.reference)
	if s.state.Phase == phasePretrain {
		if err := s.keep(pretrained); err != nil {
			return err
		}
		if err := initHead(s.policy, s.c.PPO.ValueInit, s.c.Run.Seed); err != nil {
			return err
		}
		if err := clearMoments(s.policy); err != nil {
			return err
		}
		s.state.PPO = trainer.State
		s.state.Phase = phaseInteract
		if err := s.begin(ctx); err != nil {
			return err // nothing is done: the checkpoint is that of the pretraining
		}
	}
	if err := s.load(pretrained, s.reference); err != nil {
		return err
	}
	trainer.State = s.state.PPO
	promptWords := len(strings.Fields(s.c.Rollout.Prompt))
	n, i := s.c.Rollout.Stories, s.c.Interact
	for saved := s.state.Batch; ; {
		done := (i.Batches > 0 && s.state.Batch >= i.Batches) || !s.state.Budget.Allows(i.BudgetWords, n, promptWords, i.PromptPerStory)
		if i.Select == "best" && s.state.Batch%s.c.Evaluate.Every == 0 && s.state.Weighed < s.state.Batch {
			if err := s.choose(ctx); err != nil {
				return s.saveAfter(err)
			}
			s.state.Weighed = s.state.Batch
		}
		if s.state.Batch > saved && (done || s.state.Batch%i.CheckpointEvery == 0) {
			if err := s.save(); err != nil {
				return err
			}
			saved = s.state.Batch
		}
		if i.StopKL > 0 && s.state.KL > i.StopKL {
			return fault.New(fault.Numbers, "batch %d: KL %.2f nats a story exceeds interact.stop_kl = %g: lower ppo.lr or raise ppo.init_kl; the last checkpoint is kept", s.state.Batch, s.state.KL, i.StopKL)
		}
		if done {
			return nil
		}
		// A batch is all or nothing: what is interrupted is told again.
		if err := s.batch(ctx, trainer, promptWords); err != nil {
			return fmt.Errorf("batch %d: %w", s.state.Batch+1, err)
		}
	}
}

func storyWords(story rollout.Story) []string { return strings.Fields(story.Words) }

// reward is what PPO gets for a rated story.
func (s *session) reward(story rollout.Story, r judge.Rating) float64 {
	settings := reward.Settings{Bonus: s.c.Reward.LengthBonus, Divisor: s.c.Reward.LengthDivisor}
	return settings.Of(r.Weighted(s.c.Teacher.Weights), len(storyWords(story)))
}

// batch tells, rates and learns from one batch of stories.
func (s *session) batch(ctx context.Context, trainer *ppo.Trainer, promptWords int) error {
	n := s.c.Rollout.Stories
	event := metrics.BatchEvent{Event: "batch", Batch: s.state.Batch + 1, Stories: n}
	event.Seconds.Other = s.lap()

	teller := s.teller()
	if s.c.PPO.RolloutDropout && s.state.Batch > 0 {
		teller.Generation.Dropout = float32(s.c.Pretrain.Dropout)
	}
	before := s.teacher.Stats()
	stories, ratings, seconds, err := handover{
		stories: n, wave: s.teacher.Pace().Wave, overlap: Overlaps(s.c), unreadable: s.c.Teacher.MaxUnreadable, teacher: s.teacher,
		tell: func(ctx context.Context, ended func(int, rollout.Story) error) ([]rollout.Story, error) {
			return teller.Tell(ctx, s.prompt, ids(uint64(s.state.Batch)*uint64(n), n), ended)
		},
	}.run(ctx)
	if err != nil {
		return s.saveAfter(err) // nothing of the batch is done: the student is that of the last one
	}
	event.Seconds.Add(seconds)
	event.Seconds.Other += s.lap() - seconds.Rollout - seconds.Judge - seconds.Overlap
	rewards := s.rewards(stories, ratings, &event)
	if after := s.teacher.Stats(); after.Seconds > before.Seconds {
		event.TeacherTokPerS = float64(after.Tokens-before.Tokens) / (after.Seconds - before.Seconds)
		event.StoriesPerSec = float64(after.Stories-before.Stories) / (after.Seconds - before.Seconds)
	}

	packed, prompts := rollout.Pack(stories)
	scores := make([]float32, n)
	for i := range stories {
		scores[i] = float32(rewards[i])
		if ratings[i].Unreadable {
			// No column of the story is masked in: it stays in the batch and teaches
			// nothing.
			prompts[i] = len(stories[i].Prompt) + len(stories[i].Reply)
		}
	}
	var order func(epoch int) []int
	if s.c.PPO.Minibatch != 0 && s.c.PPO.Minibatch != n {
		order = func(epoch int) []int {
			return rand.New(rand.NewPCG(s.c.Run.Seed, uint64(s.state.Batch)<<16|uint64(epoch))).Perm(n)
		}
	}
	started := time.Now()
	result, err := trainer.Step(ctx, ppo.Batch{Stories: packed, Prompts: prompts, Scores: scores}, order, nil)
	if err != nil {
		return s.saveAfter(err) // interrupted, no weight has moved
	}
	event.Seconds.Logprob, event.Seconds.Update = result.LogprobSeconds, result.UpdateSeconds
	event.Seconds.Other += time.Since(started).Seconds() - result.LogprobSeconds - result.UpdateSeconds
	s.lap()
	event.SharedPrompt = result.SharedPrompt
	event.PPO = result.Stats
	event.MaxLogprobDiff = rollout.MaxLogprobDifference(stories, packed, result.Old.Logprob)
	spent := s.state.Budget.Spent
	s.state.Budget.Charge(n, promptWords, s.c.Interact.PromptPerStory)
	if words := budget.Milestone(spent, s.state.Budget.Spent); words > 0 {
		if err := s.keep(fmt.Sprintf("budget-%d", words)); err != nil {
			return err
		}
	}
	event.BudgetWords = s.state.Budget.Spent
	event.RolloutTokPerS = event.ReplyTokens * float64(n) / (event.Seconds.Rollout + event.Seconds.Overlap)
	event.UpdateTokPerS = float64(len(packed.Tokens)*s.c.PPO.Epochs) / event.Seconds.Update

	s.state.Batch++
	s.state.Stories += n
	s.state.Unreadable += event.Unreadable
	s.state.PPO = trainer.State
	s.state.KL = result.Stats.KL
	s.state.MaxDiff = math.Max(s.state.MaxDiff, event.MaxLogprobDiff)
	s.state.Seconds.Add(event.Seconds)
	if err := s.folder.Stories(records(s.state.Batch, stories, ratings, rewards)); err != nil {
		return err
	}
	total := int64(s.c.Interact.Batches)
	if total == 0 {
		total = int64(s.c.Interact.BudgetWords / (n * budget.WordsOfRating))
	}
	s.o.Reporter.Progress("interact", int64(s.state.Batch), total, "batches",
		fmt.Sprintf("score %.2f  KL %.2f  distinct-2 %.3f", event.Score, s.state.KL, event.Distinct[1]))
	return s.record("batch", int64(s.state.Batch), event)
}

// rewards computes what PPO gets, and what the event says of stories and
// ratings.
func (s *session) rewards(stories []rollout.Story, ratings []judge.Rating, event *metrics.BatchEvent) []float64 {
	rewards, replies := make([]float64, len(stories)), make([]string, len(stories))
	var marks [3][]float64
	var scores []float64
	for i, r := range ratings {
		replies[i] = stories[i].Words
		event.MissingMarks += r.Missing
		if r.Unreadable {
			event.Unreadable++
			continue
		}
		rewards[i] = s.reward(stories[i], r)
		event.Reward += rewards[i]
		event.RatingEntropy += r.Entropy
		scores = append(scores, r.Score())
		for k := range marks {
			marks[k] = append(marks[k], r.Calibrated[k])
		}
	}
	readable := float64(len(scores))
	event.Reward /= readable
	event.RatingEntropy /= readable
	event.Score, event.ScoreCI = metrics.MeanCI(scores)
	for k := range marks {
		event.Marks[k], event.MarksCI[k] = metrics.MeanCI(marks[k])
	}
	for _, story := range stories {
		event.ReplyTokens += float64(len(story.Reply)) / float64(len(stories))
		event.ReplyWords += float64(len(storyWords(story))) / float64(len(stories))
	}
	event.Distinct = metrics.Distinct(replies)
	return rewards
}

// records are the lines of stories.jsonl.zst.
func records(batch int, stories []rollout.Story, ratings []judge.Rating, rewards []float64) []any {
	var all []any
	for i, story := range stories {
		all = append(all, map[string]any{
			"batch": batch, "id": story.ID, "text": story.Text, "reply": story.Words, "tokens": len(story.Reply),
			"logprob": story.LogprobSum(), "marks": ratings[i].Marks, "calibrated": ratings[i].Calibrated,
			"distribution": ratings[i].Distribution, "teacher": ratings[i].Text, "unreadable": ratings[i].Unreadable, "reward": rewards[i],
		})
	}
	return all
}
