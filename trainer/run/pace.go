package run

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"onceupon/bindings/llama"
	"onceupon/trainer/config"
	"onceupon/trainer/fault"
	"onceupon/trainer/judge"
)

// paceFile keeps what was measured when the run began.
const paceFile = "teacher.json"

// keptPace is its content: the pace that was taken, where, and what else was
// tried.
type keptPace struct {
	judge.Pace
	Device string        `json:"device"`
	Trials []judge.Trial `json:"trials"`
}

// measures says whether a setting is to be measured. On a processor that takes
// "measure": a wave above 1 gives marks that depend on the company of a story,
// which must not come about unasked.
func measures(c config.Config, p config.Pick) bool {
	return p == config.Measure || p == config.Auto && c.Teacher.Device != "cpu"
}

// FixedPace is the teacher's pace where no run folder keeps a measured one:
// what the configuration says, else judge.Fixed.
func FixedPace(c config.Config) (judge.Pace, error) {
	for _, x := range []struct {
		key  string
		pick config.Pick
	}{{"teacher.wave", c.Teacher.Wave}, {"teacher.micro_batch", c.Teacher.MicroBatch}} {
		if x.pick == config.Measure {
			return judge.Pace{}, fault.New(fault.Usage, "%s = measure: only a run folder keeps what is measured: give a number, or bench teacher --wave 1,8,32 to compare", x.key)
		}
	}
	p := judge.Fixed
	if c.Teacher.Wave > 0 {
		p.Wave = int(c.Teacher.Wave)
	}
	if c.Teacher.MicroBatch > 0 {
		p.MicroBatch = int(c.Teacher.MicroBatch)
	}
	return p, nil
}

// candidates are the paces that may be tried: those that the configuration
// leaves open, and no wave larger than what is rated at once.
func candidates(c config.Config) (waves, microBatches []int) {
	waves, microBatches = []int{cmp.Or(max(0, int(c.Teacher.Wave)), judge.Fixed.Wave)}, []int{cmp.Or(max(0, int(c.Teacher.MicroBatch)), judge.Fixed.MicroBatch)}
	if measures(c, c.Teacher.Wave) {
		waves = nil
		for _, w := range judge.Waves {
			waves = append(waves, min(w, c.Rollout.Stories))
		}
		waves = slices.Compact(waves)
	}
	if measures(c, c.Teacher.MicroBatch) {
		microBatches = judge.MicroBatches
	}
	return waves, microBatches
}

// openMeasured opens the teacher at the pace of the run: as configured, as kept
// in the folder, or, before the first rating, the fastest.
func (s *session) openMeasured(ctx context.Context) (*judge.Judge, error) {
	o := JudgeOptions(s.c, s.o.Log)
	waves, microBatches := candidates(s.c)
	if len(waves)*len(microBatches) == 1 {
		o.Pace = judge.Pace{Wave: waves[0], MicroBatch: microBatches[0]}
		return judge.Open(ctx, o)
	}
	path := filepath.Join(s.folder.Path, paceFile)
	kept, err := readPace(path)
	if err != nil {
		return nil, err
	}
	var j *judge.Judge
	switch {
	case kept != nil:
		o.Pace = kept.Pace
		if j, err = judge.Open(ctx, o); errors.Is(err, llama.ErrMemory) {
			err = fmt.Errorf("%s: waves of %d stories, micro-batches of %d, measured on %s, fit no more, and marks depend on them: free memory or begin another --run: %w", path, kept.Wave, kept.MicroBatch, kept.Device, err)
		}
	case s.state.Phase != phasePretrain:
		err = fault.New(fault.Damaged, "%s: no such file, and the ratings of this run were made at the pace in it: restore it or begin another --run", path)
	default:
		j, kept, err = s.measurePace(ctx, o, waves, microBatches)
	}
	if err != nil {
		return nil, err
	}
	if s.state.Phase != phasePretrain {
		return j, nil
	}
	return j, s.folder.Log(map[string]any{"event": "pace", "pace": kept})
}

func (s *session) measurePace(ctx context.Context, o judge.Options, waves, microBatches []int) (*judge.Judge, *keptPace, error) {
	var stories []string
	for _, reply := range wellMade(s.c.Rollout.Prompt, max(slices.Max(waves), judge.Fewest)) {
		stories = append(stories, s.c.Rollout.Prompt+" "+reply)
	}
	j, trials, err := judge.OpenFastest(ctx, o, waves, microBatches, stories)
	for _, t := range trials {
		said := fmt.Sprintf("%.4g stories/s", t.StoriesPerS)
		s.o.Reporter.Say("teacher, waves of %d, micro-batches of %d: %s", t.Wave, t.MicroBatch, cmp.Or(t.Why, said))
	}
	if err != nil {
		return nil, nil, err
	}
	kept := &keptPace{j.Pace(), j.Device(), trials}
	text, err := json.MarshalIndent(kept, "", " ")
	if err == nil {
		err = s.folder.WriteFile(paceFile, append(text, '\n'))
	}
	if err != nil {
		j.Close()
	}
	return j, kept, err
}

// readPace reads a kept pace; nil when there is none.
func readPace(path string) (*keptPace, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	k := &keptPace{}
	if err := json.Unmarshal(text, k); err != nil {
		return nil, fault.New(fault.Damaged, "%s: %w", path, fault.Brief(err))
	}
	if k.Wave < 1 || k.Wave > judge.MaxWave || k.MicroBatch < 1 || k.MicroBatch > judge.MaxMicroBatch {
		return nil, fault.New(fault.Damaged, "%s: wave = %d must be in 1..%d, micro_batch = %d in 1..%d", path, k.Wave, judge.MaxWave, k.MicroBatch, judge.MaxMicroBatch)
	}
	return k, nil
}

// JudgeOptions are those of a configuration's teacher, but for the pace.
func JudgeOptions(c config.Config, log *slog.Logger) judge.Options {
	t := c.Teacher
	return judge.Options{
		LlamaDir: t.LlamaDir, Device: t.Device, Model: t.Model, Rubric: t.Rubric,
		Prompt: c.Rollout.Prompt, Reading: t.Reading, MaxTokens: TeacherRoom(c), Threads: Threads(c), Temperature: t.Temperature,
		Seed: t.Seed, Calibrate: t.Calibrate, MissingMarks: t.MissingMarks, Log: log,
	}
}

// OpenTeacher opens the teacher of a configuration, outside a run.
func OpenTeacher(ctx context.Context, c config.Config, log *slog.Logger) (j *judge.Judge, err error) {
	o := JudgeOptions(c, log)
	if o.Pace, err = FixedPace(c); err != nil {
		return nil, err
	}
	return judge.Open(ctx, o)
}
