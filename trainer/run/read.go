package run

import (
	"context"
	"iter"
	"path/filepath"

	"onceupon/ggml"
	"onceupon/trainer/checkpoint"
	"onceupon/trainer/config"
	"onceupon/trainer/corpus"
	"onceupon/trainer/fault"
	"onceupon/trainer/metrics"
	"onceupon/trainer/pretrain"
	"onceupon/trainer/storybook"
	"onceupon/trainer/tokenizer"
)

// read opens the corpus and the tokenizer, which is trained on the first start
// and kept in the folder, or comes with the student that is given.
func (s *session) read(ctx context.Context) error {
	if s.o.Student != "" {
		return s.openTokenizer(ctx, nil)
	}
	name, reading, held, err := texts(ctx, s.c)
	if err != nil {
		return err
	}
	// Text that will never be read need not be packed.
	reading = firstWords(reading, s.c.Pretrain.Words)
	if err := s.openTokenizer(ctx, reading); err != nil {
		return err
	}
	s.corpus, err = pretrain.NewCorpus(name, reading, held, s.tokenizer.Encode, s.tokenizer.EOS(), s.c.Student.Context)
	return err
}

// texts are the documents that a configuration reads, and those held out.
func texts(ctx context.Context, c config.Config) (name string, reading, held iter.Seq[string], err error) {
	if c.Corpus.Path == "" {
		book := storybook.New(c.Run.Seed)
		words := max(2*c.Student.Context, min(20_000, int(float64(c.Corpus.Words)*c.Corpus.HeldOut)))
		return "storybook", book.Documents(c.Corpus.Words), book.HeldOut(words), nil
	}
	all, err := corpus.Open(ctx, c.Corpus.Path)
	if err != nil {
		return c.Corpus.Path, nil, nil, err
	}
	reading, held = all.Split(c.Run.Seed, c.Corpus.HeldOut)
	return c.Corpus.Path, reading, held, nil
}

// HeldOut is the text that a run keeps from its student's pretraining.
func HeldOut(ctx context.Context, folder string) (iter.Seq[string], error) {
	path := filepath.Join(folder, "config.toml")
	if !exists(path) {
		return nil, fault.New(fault.Usage, "%s: no such file: without a run's configuration its held-out text is not known, give a text FILE", path)
	}
	c, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	_, _, held, err := texts(ctx, c.Resolve())
	return held, err
}

// firstWords stops after the document in which the words are reached; a
// corpus that has fewer is given whole.
func firstWords(documents iter.Seq[string], words int64) iter.Seq[string] {
	return func(yield func(string) bool) {
		n := int64(0)
		for d := range documents {
			if !yield(d) {
				return
			}
			if n += int64(corpus.CountWords(d)); n >= words && words > 0 {
				return
			}
		}
	}
}

func (s *session) openTokenizer(ctx context.Context, documents iter.Seq[string]) error {
	path := filepath.Join(s.folder.Path, "tokenizer.json")
	var err error
	switch {
	case exists(path):
		s.tokenizer, err = tokenizer.Load(path)
	case s.o.Student != "":
		if s.tokenizer, err = StudentTokenizer(s.o.Student); err == nil {
			err = s.folder.Full(s.tokenizer.Save(path), "tokenizer.json")
		}
	default:
		s.tokenizer, err = tokenizer.Train(ctx, documents, tokenizer.TrainOptions{
			VocabSize: s.c.Student.Vocab, MinFrequency: s.c.Corpus.MinFrequency,
			Progress: func(done, total int) { s.o.Reporter.Progress("tokenizer", int64(done), int64(total), "tokens", "") },
		})
		if err == nil {
			err = s.folder.Full(s.tokenizer.Save(path), "tokenizer.json")
		}
	}
	if err != nil {
		return err
	}
	if n := s.tokenizer.VocabSize(); n > s.c.Student.Vocab {
		return fault.New(fault.Usage, "config: student.vocab = %d, but the tokenizer has %d tokens", s.c.Student.Vocab, n)
	}
	return nil
}

// StudentTokenizer is the tokenizer inside a student's GGUF.
func StudentTokenizer(path string) (*tokenizer.Tokenizer, error) {
	f, err := ggml.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_, v, err := ggml.ReadModel(f)
	if err != nil {
		return nil, err
	}
	return tokenizer.FromParts(v.Tokens, v.Merges, v.Specials)
}

// wordsRead is how many words a student that is given had read, which the
// checkpoint that its file is part of knows. It is not known of an import or an
// export, nor of a student that has been taught, which its words do not describe.
func wordsRead(path string) (words int64, known bool, err error) {
	folder := filepath.Dir(path)
	if filepath.Base(path) != "student.gguf" || !exists(filepath.Join(folder, "state.json")) {
		return 0, false, nil
	}
	var state State
	if err := checkpoint.ReadState(folder, &state); err != nil {
		return 0, false, err
	}
	known = state.Phase == phasePretrain && !state.WordsUnknown
	return state.Pretrain.Words, known, nil
}

// pretrain reads the corpus to its end.
func (s *session) pretrain(ctx context.Context) error {
	p := s.c.Pretrain
	if p.Words == 0 || s.state.Phase != phasePretrain {
		return nil
	}
	settings := pretrain.Settings{
		Words: p.Words, BatchTokens: p.BatchTokens, LR: p.LR, Beta1: p.Beta1, Beta2: p.Beta2, Epsilon: p.Epsilon,
		WeightDecay: p.WeightDecay, GradClip: float32(p.GradClip), Warmup: p.Warmup, Schedule: p.Schedule,
		Dropout: float32(p.Dropout), Seed: s.c.Run.Seed, Milestones: p.Milestones,
	}
	last := s.clock
	state, err := pretrain.Run(ctx, s.policy, s.corpus, settings, s.state.Pretrain, pretrain.Hooks{
		Progress: func(u pretrain.Progress) error {
			s.state.Pretrain = u.State
			s.state.Seconds.Pretrain += s.lap()
			s.state.Read.Loss = u.Loss
			s.state.Read.TokPerSec = float64(u.Tokens) / s.state.Seconds.Pretrain
			s.o.Reporter.Progress("pretrain", min(u.Words, p.Words), p.Words, "words", "")
			// The first, every tenth and the last update are logged.
			if u.Step != 1 && u.Step%10 != 0 && u.Step != u.Steps {
				return nil
			}
			e := metrics.PretrainEvent{Event: "pretrain", Step: u.Step, Steps: u.Steps, Words: u.Words, Tokens: u.Tokens, Loss: u.Loss,
				LR: u.LR, GradNorm: u.GradNorm, TokPerSec: s.state.Read.TokPerSec}
			if u.Step == u.Steps {
				s.state.Read.Last = &e
				return nil
			}
			return s.record("pretrain", u.Step, e)
		},
		Milestone: func(words int64, _ pretrain.State) error { return s.keep(milestoneName(words)) },
		Pause: func(pretrain.State) error {
			if s.clock.Sub(last) < checkpointEvery {
				return nil
			}
			last = s.clock
			return s.save()
		},
	})
	s.state.Pretrain = state
	if err == nil {
		err = s.held(ctx)
	}
	if err != nil {
		return s.saveAfter(err)
	}
	return s.save()
}

// held measures the held-out loss after the last update and records both.
func (s *session) held(ctx context.Context) (err error) {
	e := s.state.Read.Last
	if e == nil { // recorded before
		return nil
	}
	if e.ValLoss, err = pretrain.Loss(ctx, s.policy, s.corpus.HeldOut); err != nil {
		return err
	}
	s.state.Read.ValLoss, s.state.Read.Last = e.ValLoss, nil
	s.o.Reporter.Say("pretrained on %d words: loss %.3f, held-out %.3f nats a token, %.0f tokens/s", e.Words, e.Loss, e.ValLoss, e.TokPerSec)
	return s.record("pretrain", e.Step, *e)
}

// saveAfter writes a checkpoint when the work was interrupted, so that nothing
// that was computed is lost; other errors leave the last checkpoint.
func (s *session) saveAfter(err error) error {
	if fault.Code(err) != int(fault.Interrupted) {
		return err
	}
	if saveErr := s.save(); saveErr != nil {
		return saveErr
	}
	return err
}
