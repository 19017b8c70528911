package run

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"onceupon/bindings/student"
	"onceupon/ggml"
	"onceupon/trainer/checkpoint"
	"onceupon/trainer/config"
	"onceupon/trainer/fault"
	"onceupon/trainer/judge"
	"onceupon/trainer/metrics"
	"onceupon/trainer/pretrain"
	"onceupon/trainer/rollout"
	"onceupon/trainer/runfolder"
	"onceupon/trainer/tokenizer"
)

// Options of a run besides its configuration.
type Options struct {
	Folder   string
	Reporter *metrics.Reporter
	Log      *slog.Logger // warnings of libllama
	// Student is the GGUF of a pretrained student to begin with; "" pretrains.
	Student string
}

// session is one process's work on a run folder.
type session struct {
	c         config.Config
	o         Options
	folder    *runfolder.Folder
	board     *metrics.TensorBoard
	state     State
	tokenizer *tokenizer.Tokenizer
	corpus    *pretrain.Corpus
	policy    *student.Model
	reference *student.Model
	teacher   *judge.Judge
	prompt    []int32
	clock     time.Time // end of the last accounted interval
}

// names of checkpoints
const (
	latest     = "latest"     // what a resume goes on from
	pretrained = "pretrained" // the reference of the interaction
	best       = "best"       // what the run hands over
)

// checkpointEvery is how often pretraining writes a checkpoint. When it falls
// does not matter to the weights, only to how much a crash repeats.
const checkpointEvery = 30 * time.Second

// shape is the student's; its vocabulary is the tokenizer's, which has fewer
// tokens than student.vocab when the corpus has no more to merge.
func shape(s config.Student, vocab int) student.Config {
	return student.Config{Layers: s.Layers, Heads: s.Heads, Width: s.Width, Context: s.Context, Vocab: vocab,
		LayerNormEpsilon: float32(s.LayerNormEpsilon)}
}

// Threads is how many a configuration asks for.
func Threads(c config.Config) int {
	if c.Run.Threads > 0 {
		return c.Run.Threads
	}
	return runtime.NumCPU()
}

// DecodeLength is the room for stories of so many tokens in the cache of a
// student that tells: whole blocks of 128, which the cpu backend's kernel scores
// at a time.
func DecodeLength(tokens, context int) int { return min((tokens+127)/128*128, context) }

// PolicyOptions sizes the student that is trained; prompt is in tokens, of which
// a byte is never more than one.
func PolicyOptions(c config.Config, prompt int) student.Options {
	stories := max(c.Rollout.Stories, c.Pretrain.BatchTokens/c.Student.Context+1)
	return student.Options{
		Backend: c.Run.Backend, ISA: c.Run.ISA, Kernels: c.Run.Kernels, Precision: c.Run.Precision, Threads: Threads(c), MaxTokens: c.Run.MaxTokens, MaxStories: stories,
		PPOTokens: c.Rollout.Stories * c.Student.Context, DecodeStories: min(c.Rollout.Stories, c.Run.MaxTokens), DecodeLength: DecodeLength(prompt+c.Rollout.MaxNewTokens, c.Student.Context),
		Train: true, ValueHead: true, Recompute: c.Run.Recompute,
	}
}

// ReferenceOptions sizes the frozen student.
func ReferenceOptions(c config.Config) student.Options {
	o := PolicyOptions(c, 0)
	o.Train, o.ValueHead, o.DecodeStories, o.DecodeLength, o.PPOTokens = false, false, 0, 0, 0
	return o
}

// open checks the configuration and locks the folder.
func open(c config.Config, o Options) (*session, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if err := available(c.Run); err != nil { // what the machine lacks is said before anything is written
		return nil, err
	}
	folder, err := runfolder.Open(o.Folder, c)
	if err != nil {
		return nil, err
	}
	return &session{c: c, o: o, folder: folder, clock: time.Now()}, nil
}

func available(r config.Run) error {
	if r.Backend == "cuda" {
		_, err := student.CUDADevice()
		return err
	}
	return student.Available(student.Options{Backend: r.Backend, ISA: r.ISA, Kernels: r.Kernels, Precision: r.Precision})
}

// prepare finds where a run stands and gets tokenizer, corpus and student.
func (s *session) prepare(ctx context.Context) (err error) {
	c := s.c
	if s.board, err = metrics.NewTensorBoard(filepath.Join(s.folder.Path, "tensorboard")); err != nil {
		return fmt.Errorf("run folder: %w: choose another --run", s.folder.Full(err, "tensorboard"))
	}
	if err := s.read(ctx); err != nil {
		return err
	}
	s.prompt = s.tokenizer.Encode(c.Rollout.Prompt)
	if n := len(s.prompt) + c.Rollout.MaxNewTokens; n > c.Student.Context {
		return fault.New(fault.Usage, "config: rollout.max_new_tokens = %d with a prompt of %d tokens exceeds student.context = %d", c.Rollout.MaxNewTokens, len(s.prompt), c.Student.Context)
	}
	o := PolicyOptions(c, len(s.prompt))
	if o.Kernels, err = s.kernels(); err != nil {
		return err
	}
	if s.policy, err = student.New(shape(c.Student, s.tokenizer.VocabSize()), o); err != nil {
		return fmt.Errorf("%w: `onceupon doctor` says what the configuration takes and what fits", err)
	}
	return s.resume()
}

// kernels are the configuration's. What is measured when a run begins is kept in
// its folder, and a run that goes on multiplies by that.
func (s *session) kernels() (string, error) {
	if s.c.Run.Kernels != student.Measure {
		return s.c.Run.Kernels, nil
	}
	path := filepath.Join(s.folder.Path, "matmul.txt")
	if _, missing := os.Stat(path); missing != nil {
		name, _, err := checkpoint.Latest(s.folder.Checkpoints())
		if err == nil && name != "" {
			err = fault.New(fault.Damaged, "%w, and this run multiplied by the choice in it: restore it or begin another --run", missing)
		}
		if err != nil {
			return "", err
		}
	}
	return student.Measure + ":" + path, nil
}

// resume goes on from the latest checkpoint, or draws a new student.
func (s *session) resume() error {
	name, _, err := checkpoint.Latest(s.folder.Checkpoints())
	if err != nil {
		return err
	}
	if name == "" {
		s.state = State{Phase: phasePretrain, Corpus: s.reads()}
		if err := s.folder.CutBack(runfolder.Offsets{}); err != nil {
			return err
		}
		if s.o.Student != "" {
			words, known, err := wordsRead(s.o.Student)
			if err != nil {
				return err
			}
			s.state.Pretrain.Words, s.state.WordsUnknown = words, !known
			return checkpoint.LoadWeights(s.o.Student, s.policy)
		}
		return pretrain.Initialize(s.policy, s.c.Run.Seed)
	}
	if _, err := checkpoint.Load(s.folder.Checkpoints(), name, s.policy, &s.state); err != nil {
		return err
	}
	if began := s.state.Corpus; s.state.Phase == phasePretrain && began != "" && began != s.reads() {
		return fault.New(fault.Usage, "run folder %s: the text of %s is not the one that it began to read: bring that back or choose another --run", s.folder.Path, cmp.Or(s.c.Corpus.Path, "the storybook"))
	}
	s.state.Resumed = true
	s.o.Reporter.Say("going on from %s: %s, %d words read, %d batches done", filepath.Join(s.folder.Path, "checkpoints", name),
		s.state.Phase, s.state.Pretrain.Words, s.state.Batch)
	return s.folder.CutBack(s.state.Offsets)
}

// reads identifies the text that is read; "" with a student that is given.
func (s *session) reads() string {
	if s.corpus == nil {
		return ""
	}
	return s.corpus.SHA256()
}

func (s *session) close() {
	if s.teacher != nil {
		s.teacher.Close()
	}
	for _, m := range []*student.Model{s.policy, s.reference} {
		if m != nil {
			m.Close()
		}
	}
	if s.board != nil {
		s.board.Close()
	}
	if s.folder != nil {
		s.folder.Close()
	}
}

func (s *session) vocabulary() ggml.Vocabulary {
	return ggml.Vocabulary{Tokens: s.tokenizer.Tokens(), Merges: s.tokenizer.Merges(), Specials: s.tokenizer.Specials(), End: s.tokenizer.EOS()}
}

// save writes the checkpoint that a resume goes on from.
func (s *session) save() error {
	var err error
	s.state.Counter++
	s.state.Seconds.Other += s.lap()
	if s.state.Offsets, err = s.folder.Offsets(); err != nil {
		return err
	}
	_, err = checkpoint.Save(s.folder.Checkpoints(), latest, checkpoint.Contents{Model: s.policy, Vocabulary: s.vocabulary(),
		Counter: s.state.Counter, State: s.state})
	return s.folder.Full(err, "a checkpoint")
}

// keep writes a student to be read, without its optimizer.
func (s *session) keep(name string) error {
	_, err := checkpoint.Save(s.folder.Checkpoints(), name, checkpoint.Contents{Model: s.policy, Vocabulary: s.vocabulary(),
		Counter: s.state.Counter, State: s.state, WeightsOnly: true})
	return s.folder.Full(err, "a checkpoint")
}

// load puts the weights of a kept student into m.
func (s *session) load(name string, m *student.Model) error {
	return checkpoint.LoadWeights(filepath.Join(s.folder.Checkpoints(), name, "student.gguf"), m)
}

// lap returns the seconds since the last accounted instant.
func (s *session) lap() float64 {
	now := time.Now()
	d := now.Sub(s.clock).Seconds()
	s.clock = now
	return d
}

// record writes an event to the log, TensorBoard and standard output.
func (s *session) record(name string, step int64, event any) error {
	if err := s.folder.Log(event); err != nil {
		return err
	}
	if err := s.board.Scalars(name, step, event); err != nil {
		return s.folder.Full(err, "tensorboard")
	}
	return s.o.Reporter.Emit(event)
}

func (s *session) teller() rollout.Teller {
	r := s.c.Rollout
	return rollout.Teller{Model: s.policy, Tokenizer: s.tokenizer, Generation: student.Generation{
		MaxNewTokens: r.MaxNewTokens, Temperature: float32(r.Temperature), TopK: r.TopK, TopP: float32(r.TopP),
		EndToken: s.tokenizer.EOS(), Seed: s.c.Run.Seed,
	}}
}

// TeacherRoom is how many teacher tokens a story may have. A token of the
// student's may be a single byte of several that the teacher needs one token
// for, but not longer than the longest: four teacher tokens a student token and
// the prompt's words cover what a sampled story can hold.
func TeacherRoom(c config.Config) int {
	return 4*c.Rollout.MaxNewTokens + 2*len(c.Rollout.Prompt) + 256
}

// StudentShape reads the shape of a student from its GGUF.
func StudentShape(path string) (config.Student, error) {
	f, err := ggml.Open(path)
	if err != nil {
		return config.Student{}, err
	}
	defer f.Close()
	h, _, err := ggml.ReadModel(f)
	if err != nil {
		return config.Student{}, err
	}
	// 1e-5 as a configuration writes it: the same number of single precision, and
	// no difference between a run's configuration and its student's.
	epsilon, err := strconv.ParseFloat(strconv.FormatFloat(float64(h.LayerNormEpsilon), 'g', -1, 32), 64)
	return config.Student{Layers: h.Layers, Heads: h.Heads, Width: h.Width, Context: h.Context, Vocab: h.Vocab, LayerNormEpsilon: epsilon}, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func storyError(err error) error { return fmt.Errorf("rating stories: %w", err) }
