package judge

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"onceupon/bindings/llama"
	"onceupon/trainer/fault"
)

// Options of Open.
type Options struct {
	LlamaDir    string // "" = where it was fetched to; else any build in that folder
	Device      string // "" or cpu, cuda, cuda:N
	Model       string // a name of Catalogue or a path
	Rubric      string // "" = by model; plain, chat or a path
	Prompt      string // the fixed opening of the stories
	Reading     string // "expected" or "sampled"
	MaxTokens   int    // teacher tokens that a story may have
	Threads     int
	Pace        Pace
	Temperature float64 // of the sampled reading
	Seed        uint64
	Calibrate   bool
	// MissingMarks says what the sampled reading makes of fewer than three
	// integers: "refuse" asks again and then gives the story up, "paper" counts
	// 0 for each, and half of the points when there is none.
	MissingMarks string
	Log          *slog.Logger
}

// Info describes an open judge.
type Info struct {
	Model        string `json:"model"`
	Path         string `json:"path"`
	Bytes        uint64 `json:"bytes"`
	Rubric       string `json:"rubric"`
	PrefixTokens int    `json:"prefix_tokens"`
	Reading      string `json:"reading"`
	Pace
}

// Stats count a judge's work since it was opened.
type Stats struct {
	Stories, Tokens int
	Seconds         float64
	PrefillSeconds  float64 // of these, reading the stories; the rest is the marks
}

// Judge is a teacher through libllama. One goroutine at a time.
type Judge struct {
	options     Options
	rubric      Rubric
	model       *llama.Model
	context     *llama.Context
	pace        Pace
	prefix      int // tokens
	prefixIDs   []int32
	tail        []int32
	digits      [4]int32
	space       int32 // token between digits; -1 when digits follow each other
	calibration Calibration
	info        Info
	stats       Stats
}

var _ Teacher = (*Judge)(nil)

// Open loads a teacher and reads the rubric once; with Calibrate it also rates
// the rubric's examples. Close it.
func Open(ctx context.Context, o Options) (*Judge, error) {
	j, err := load(o)
	if err != nil {
		return nil, err
	}
	if err := j.begin(ctx, o.Pace); err != nil {
		j.Close()
		return nil, fmt.Errorf("teacher %s: %w", j.model.Path, err)
	}
	return j, nil
}

// load loads a teacher, which has no context yet.
func load(o Options) (*Judge, error) {
	if o.Reading != "expected" && o.Reading != "sampled" {
		return nil, fault.New(fault.Usage, "teacher reading %q must be expected or sampled", o.Reading)
	}
	candidate, err := Check(o)
	if err != nil {
		return nil, err
	}
	path := candidate.Header.Path
	j := &Judge{options: o, rubric: candidate.rubric}
	if j.model, err = candidate.library.LoadModel(path, o.Device); err != nil {
		return nil, err
	}
	if err := j.prepare(candidate.frame); err != nil {
		j.Close()
		return nil, fmt.Errorf("teacher %s: %w", path, err)
	}
	return j, nil
}

// begin makes the context, reads the rubric and calibrates.
func (j *Judge) begin(ctx context.Context, p Pace) error {
	if err := j.resize(ctx, p); err != nil {
		return err
	}
	j.info = Info{j.model.Description(), j.model.Path, j.model.Bytes(), j.rubric.Name, j.prefix, j.options.Reading, p}
	err := j.calibrate(ctx)
	j.stats = Stats{}
	return err
}

// prepare finds the tokens of rubric and digits.
func (j *Judge) prepare(f frame) error {
	prefix, tail, err := f.tokens(j.model)
	if err != nil {
		return err
	}
	j.tail, j.prefix, j.prefixIDs = tail, len(prefix), prefix
	return j.findDigits(j.rubric.Form == "plain")
}

// resize makes a context for a pace, in the place of another one's, and reads
// the rubric.
func (j *Judge) resize(ctx context.Context, p Pace) (err error) {
	if j.context != nil {
		j.context.Close()
	}
	o := j.options
	perStory := o.MaxTokens + len(j.tail) + answerRoom
	j.pace = p
	j.context, err = j.model.NewContext(llama.ContextOptions{
		Tokens: j.prefix + p.Wave*perStory + 64, Batch: max(j.prefix, p.Wave*perStory), MicroBatch: p.MicroBatch, Sequences: p.Wave + 1,
		Outputs: p.Wave, Threads: o.Threads,
	})
	if err != nil {
		return err
	}
	return j.readPrefix(ctx)
}

// readPrefix decodes what one pass takes at a time, as libllama would, to see
// between two of them whether it is to go on.
func (j *Judge) readPrefix(ctx context.Context) error {
	tokens := make([]llama.Token, len(j.prefixIDs))
	for i, id := range j.prefixIDs {
		tokens[i] = llama.Token{ID: id, Position: int32(i)}
	}
	for part := range slices.Chunk(tokens, max(j.pace.MicroBatch, 1)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := j.context.Decode(part); err != nil {
			return fmt.Errorf("rubric: %w", err)
		}
	}
	return nil
}

// Reread forgets the prefix and reads it again, which every story would cost
// if they did not share it.
func (j *Judge) Reread(ctx context.Context) error {
	if err := j.context.Forget(0, 0); err != nil {
		return err
	}
	return j.readPrefix(ctx)
}

// Question is what a story is put into, for a program that asks the same.
type Question struct {
	Prefix []int32  `json:"prefix"` // before the story
	Tail   []int32  `json:"tail"`   // after it
	Digits [4]int32 `json:"digits"` // tokens of the marks 0..3
	Space  int32    `json:"space"`  // between marks
	Plain  bool     `json:"plain"`  // the story is the reply alone, after a blank
}

// Question returns the judge's own.
func (j *Judge) Question() Question {
	return Question{j.prefixIDs, j.tail, j.digits, j.space, j.rubric.Form == "plain"}
}

// findDigits finds the tokens of the digits and of what separates them. In
// plain form a blank stands before the first digit too and is forced.
func (j *Judge) findDigits(blankFirst bool) error {
	for i := range j.digits {
		t, err := j.model.Tokenize(string(rune('0'+i)), false)
		if err != nil {
			return err
		}
		if len(t) == 0 {
			return fault.New(fault.Teacher, "digit %d has no token", i)
		}
		j.digits[i] = t[len(t)-1]
	}
	t, err := j.model.Tokenize("1 2", false)
	if err != nil {
		return err
	}
	n := len(t)
	if n < 3 || t[n-1] != j.digits[2] || t[n-3] != j.digits[1] {
		return fault.New(fault.Teacher, "\"1 2\" is not digit, blank, digit in this vocabulary: the expected reading needs that, take reading = sampled")
	}
	j.space = t[n-2]
	if blankFirst {
		j.tail = append(j.tail, j.space)
	}
	return nil
}

func (j *Judge) calibrate(ctx context.Context) error {
	for k := range j.calibration.Lines {
		j.calibration.Lines[k] = Line{Slope: 1}
	}
	if !j.options.Calibrate || len(j.rubric.Examples) == 0 {
		return nil
	}
	var texts []string
	for _, e := range j.rubric.Examples {
		texts = append(texts, e.Text)
	}
	ratings, err := j.Rate(ctx, texts)
	if err != nil {
		return fmt.Errorf("calibration: %w", err)
	}
	j.calibration = fit(j.rubric.Examples, ratings)
	return nil
}

// Close frees the model.
func (j *Judge) Close() {
	if j.context != nil {
		j.context.Close()
	}
	j.model.Close()
}

// Info describes the judge.
func (j *Judge) Info() Info { return j.info }

// Pace is the judge's.
func (j *Judge) Pace() Pace { return j.pace }

// Device names what the judge computes on.
func (j *Judge) Device() string { return j.model.Device() }

// Calibration is the one in use.
func (j *Judge) Calibration() Calibration { return j.calibration }

// Stats are the counts since Open.
func (j *Judge) Stats() Stats { return j.stats }

// story tokenizes what the teacher reads: the whole story in chat form, the
// reply alone in plain form, whose examples are replies.
func (j *Judge) story(text string) ([]int32, error) {
	text = strings.TrimSpace(text)
	if j.rubric.Form == "plain" {
		text = " " + strings.TrimSpace(strings.TrimPrefix(text, strings.TrimSpace(j.options.Prompt)))
	}
	// A line break would end the story in the plain form.
	text = strings.Join(strings.Split(text, "\n"), " ")
	tokens, err := j.model.Tokenize(text, false)
	if err != nil {
		return nil, err
	}
	if len(tokens) > j.options.MaxTokens {
		return nil, fault.New(fault.Usage, "story of %d teacher tokens exceeds the %d that were planned: %.40q", len(tokens), j.options.MaxTokens, text)
	}
	return append(tokens, j.tail...), nil
}

// Rate rates stories in waves.
func (j *Judge) Rate(ctx context.Context, stories []string) ([]Rating, error) {
	started := time.Now()
	defer func() { j.stats.Seconds += time.Since(started).Seconds() }()
	ratings := make([]Rating, 0, len(stories))
	for first := 0; first < len(stories); first += j.pace.Wave {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		wave := stories[first:min(first+j.pace.Wave, len(stories))]
		tokens := make([][]int32, len(wave))
		for i, s := range wave {
			t, err := j.story(s)
			if err != nil {
				return nil, err
			}
			tokens[i] = t
			j.stats.Tokens += len(t)
		}
		read := j.expected
		if j.options.Reading == "sampled" {
			read = j.sampled
		}
		r, err := read(wave, tokens)
		if err != nil {
			return nil, err
		}
		for i := range r {
			r[i].Calibrated = r[i].Marks
			if j.options.Calibrate {
				r[i].Calibrated = j.calibration.apply(r[i].Marks)
			}
		}
		ratings = append(ratings, r...)
		j.stats.Stories += len(wave)
	}
	return ratings, nil
}
