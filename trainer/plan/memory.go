// Package plan says before anything is loaded whether a configuration fits
// into a card's memory, what would, and how long its run takes.
package plan

import (
	"fmt"
	"slices"
	"strings"

	"onceupon/bindings/llama"
	"onceupon/bindings/student"
	"onceupon/ggml"
	"onceupon/trainer/config"
	"onceupon/trainer/fault"
	"onceupon/trainer/judge"
	"onceupon/trainer/run"
	"onceupon/trainer/synthetic"
)

// Teacher is what the plan knows of a teacher.
type Teacher struct {
	Source     string // "its header" or "its name"
	Type       string // of most weights
	Weights    uint64 // bytes on the card: all but the token embedding
	Parameters uint64
	Cache      uint64 // bytes of a token
	Vocabulary int
	Width      int
	Hidden     int // width of the feed-forward
	Prefix     int // tokens of the rubric, at most
}

// quantisations of Llama 3.1 8B by the words in names of files, greatest first.
var quantisations = []struct {
	word string
	kind ggml.Type
}{{"f16", ggml.F16}, {"bf16", ggml.F16}, {"q8_0", ggml.Q8_0}, {"q4_k", ggml.Q4_K}}

// FindTeacher describes a configuration's teacher: from its file's header when
// it is there, else from its name, when that is of Llama 3.1 8B (without a
// quantisation in it: the paper's 16 bits).
func FindTeacher(c config.Config) (Teacher, error) {
	rubric, err := rubricTokens(c)
	if err != nil {
		return Teacher{}, err
	}
	path, _, missing := judge.FindModel(c.Teacher.Model)
	if missing == nil {
		h, err := llama.ReadHeader(path)
		if err == nil {
			return Teacher{"its header", h.Type.String(), h.OnCard, h.Parameters, h.CacheBytes(), h.Vocabulary, h.Width, h.FeedForward, rubric}, nil
		}
		if fault.Code(err) != int(fault.Capability) {
			return Teacher{}, err
		}
	}
	name := strings.ToLower(c.Teacher.Model)
	if !strings.Contains(name, "llama-3.1-8b") {
		return Teacher{}, fault.New(fault.Capability, "teacher %s is not there and its name is not of Llama 3.1 8B: its memory cannot be planned; pull it first", c.Teacher.Model)
	}
	kind := ggml.F16
	for _, q := range quantisations {
		if strings.Contains(name, q.word) {
			kind = q.kind
		}
	}
	t := llama31(kind)
	t.Prefix = rubric
	return t, nil
}

func llama31(kind ggml.Type) Teacher {
	s := synthetic.Shapes["llama-3.1-8b"]
	t := Teacher{Source: "its name", Type: kind.String(), Vocabulary: s.Vocabulary, Width: s.Width, Hidden: s.FeedForward,
		Cache: 2 * 2 * uint64(s.Layers*s.KVHeads*(s.Width/s.Heads))}
	for _, x := range s.Tensors(kind) {
		n := uint64(1)
		for _, d := range x.Dims {
			n *= d
		}
		t.Parameters += n
		if x.Name != "token_embd.weight" {
			t.Weights += x.Bytes()
		}
	}
	return t
}

// rubricTokens is an upper bound: three bytes a token, where English has four.
func rubricTokens(c config.Config) (int, error) {
	name := c.Teacher.Rubric
	if name == "" {
		name = "chat"
		if known, ok := judge.Named(c.Teacher.Model); ok && known.Rubric != "" {
			name = known.Rubric
		}
	}
	r, err := judge.LoadRubric(name)
	if err != nil {
		return 0, err
	}
	bytes := len(r.Intro) + len(c.Rollout.Prompt)
	for _, e := range r.Examples {
		bytes += len(e.Text) + 20
	}
	return bytes/3 + 64, nil
}

// Part is one thing that takes memory.
type Part struct {
	Name  string `json:"name"`
	Card  int    `json:"card"`
	Bytes uint64 `json:"bytes"`
	How   string `json:"how"` // where the figure is from
}

// Memory is what a configuration takes on the cards.
type Memory struct {
	Parts  []Part   `json:"parts"`
	Totals []uint64 `json:"totals"` // by card
	Limits []uint64 `json:"limits"`
	Fits   bool     `json:"fits"`
	// Remedy is what would fit, "" when this does.
	Remedy string `json:"remedy,omitempty"`
}

// Card-side memory that no plan names: a CUDA context, the workspace of cublas,
// code. Assumed, not measured.
const contextBytes = 600 << 20

// spare is left free, in percent: allocators round and fragment.
const spare = 5

// Settle stands in for the measurement of a run: a wave that is left to it is
// the largest of its candidates that fits, since larger ones are faster on a
// card, or the least; the micro-batch is libllama's own.
func Settle(c config.Config, t Teacher, limits []uint64) (config.Config, error) {
	if c.Teacher.MicroBatch < 0 {
		c.Teacher.MicroBatch = config.Pick(judge.Fixed.MicroBatch)
	}
	if c.Teacher.Wave > 0 {
		return c, nil
	}
	for _, wave := range slices.Backward(judge.Waves) {
		c.Teacher.Wave = config.Pick(min(wave, c.Rollout.Stories))
		if m, err := lay(c, t, limits); err != nil || m.Fits {
			return c, err
		}
	}
	return c, nil
}

// workspace estimates libllama's compute buffer: for a micro-batch the two
// widest results of a layer, four of its width, and 32-bit logits of the rows
// that are asked for.
func (t Teacher) workspace(c config.Config) uint64 {
	return uint64(c.Teacher.MicroBatch)*4*uint64(2*t.Hidden+4*t.Width) + uint64(c.Teacher.Wave)*4*uint64(t.Vocabulary)
}

// cells are those of the judge's cache (trainer/judge).
func (t Teacher) cells(c config.Config) uint64 {
	return uint64(t.Prefix + int(c.Teacher.Wave)*(run.TeacherRoom(c)+24) + 64)
}

// Fit plans a settled configuration on cards of so many bytes: one for both, or
// the teacher's and the student's.
func Fit(c config.Config, t Teacher, limits []uint64) (Memory, error) {
	m, err := lay(c, t, limits)
	if err != nil || m.Fits {
		return m, err
	}
	m.Remedy, err = remedy(c, t, limits)
	return m, err
}

func lay(c config.Config, t Teacher, limits []uint64) (Memory, error) {
	if len(limits) < 1 || len(limits) > 2 {
		return Memory{}, fault.New(fault.Usage, "--devices: one card for both or two, teacher and student, not %d", len(limits))
	}
	ours := len(limits) - 1
	m := Memory{Limits: limits, Totals: make([]uint64, len(limits)), Fits: true}
	m.Parts = []Part{
		{"teacher, weights", 0, t.Weights, t.Type + ", by " + t.Source},
		{"teacher, cache", 0, t.Cache * t.cells(c), fmt.Sprintf("%d cells for waves of %d", t.cells(c), c.Teacher.Wave)},
		{"teacher, workspace", 0, t.workspace(c), "estimated from the shape"},
		{"teacher, context", 0, contextBytes, "assumed"},
	}
	for _, part := range []struct {
		name    string
		options student.Options
	}{{"student", run.PolicyOptions(c, len(c.Rollout.Prompt))}, {"reference", run.ReferenceOptions(c)}} {
		o, how := part.options, "student_plan"
		s, err := student.Plan(shape(c), o)
		if err != nil && o.Backend == "cuda" {
			// The library for the card is not on this machine: the same arrays in
			// the processor's layout, in fp32, which is the larger.
			o.Backend, o.Precision, o.ISA, how = "cpu", "fp32", "auto", "student_plan of the cpu backend, fp32"
			s, err = student.Plan(shape(c), o)
		}
		if err != nil {
			return m, err
		}
		for _, x := range []struct {
			name  string
			bytes uint64
		}{{"weights", s.Weights}, {"gradients", s.Gradients}, {"moments", s.Moments}, {"activations", s.Activations}, {"workspace", s.Workspace}, {"cache", s.Cache}} {
			if x.bytes > 0 {
				p := Part{part.name + ", " + x.name, ours, x.bytes, how}
				if x.name == "cache" { // the tokenizer is not there yet
					p.How += fmt.Sprintf(", a prompt of at most %d tokens", len(c.Rollout.Prompt))
				}
				m.Parts = append(m.Parts, p)
			}
		}
	}
	m.Parts = append(m.Parts, Part{"student, context", ours, contextBytes, "assumed"})
	for _, p := range m.Parts {
		m.Totals[p.Card] += p.Bytes
	}
	for i, n := range m.Totals {
		m.Fits = m.Fits && n <= limits[i]/100*(100-spare)
	}
	return m, nil
}

func shape(c config.Config) student.Config {
	s := c.Student
	return student.Config{Layers: s.Layers, Heads: s.Heads, Width: s.Width, Context: s.Context, Vocab: s.Vocab, LayerNormEpsilon: float32(s.LayerNormEpsilon)}
}

// Levels are those of recomputation from the configuration's on: each takes less
// memory and more time than the one before.
func Levels(c config.Config) []string {
	return student.Recomputes[slices.Index(student.Recomputes, c.Run.Recompute):]
}

// remedy says what would fit: the first smaller configuration and, on one card,
// the same one on two. A larger card where neither does.
func remedy(c config.Config, t Teacher, limits []uint64) (string, error) {
	ways, err := smaller(c, t, limits)
	if err != nil {
		return "", err
	}
	if len(limits) == 1 {
		m, err := lay(c, t, []uint64{limits[0], limits[0]})
		if err != nil {
			return "", err
		}
		if m.Fits {
			ways = append(ways, "the same on two such cards, --devices 0,1")
		}
	}
	if len(ways) == 0 {
		return "no quantisation, wave, recomputation or run.max_tokens makes it fit: a larger card is needed", nil
	}
	return strings.Join(ways, "; or "), nil
}

// smaller looks for the first configuration that fits: smaller calls of the
// student, then more recomputation, then smaller waves, then a smaller quantisation.
func smaller(c config.Config, t Teacher, limits []uint64) ([]string, error) {
	teachers := []Teacher{t}
	s := synthetic.Shapes["llama-3.1-8b"]
	if t.Width == s.Width && t.Hidden == s.FeedForward && t.Vocabulary == s.Vocabulary {
		for _, kind := range []ggml.Type{ggml.Q8_0, ggml.Q4_K} {
			if smaller := llama31(kind); smaller.Weights < t.Weights {
				smaller.Prefix = t.Prefix
				teachers = append(teachers, smaller)
			}
		}
	}
	for _, teacher := range teachers {
		for wave := c.Teacher.Wave; wave >= 1; wave /= 2 {
			for _, level := range Levels(c) {
				for tokens := c.Run.MaxTokens; tokens >= c.Student.Context; tokens /= 2 {
					k := c
					k.Teacher.Wave, k.Run.MaxTokens, k.Run.Recompute = wave, tokens, level
					m, err := lay(k, teacher, limits)
					if err != nil {
						return nil, err
					}
					if !m.Fits {
						continue
					}
					var changes []string
					if teacher.Type != t.Type {
						changes = append(changes, "a teacher of "+teacher.Type)
					}
					if wave != c.Teacher.Wave {
						changes = append(changes, fmt.Sprintf("teacher.wave = %d", wave))
					}
					if level != c.Run.Recompute {
						changes = append(changes, fmt.Sprintf("run.recompute = %q", level))
					}
					if tokens != c.Run.MaxTokens {
						changes = append(changes, fmt.Sprintf("run.max_tokens = %d", tokens))
					}
					return []string{fmt.Sprintf("%s would fit (%.1f GiB)", strings.Join(changes, ", "), gib(slices.Max(m.Totals)))}, nil
				}
			}
		}
	}
	return nil, nil
}

func gib(n uint64) float64 { return float64(n) / (1 << 30) }
