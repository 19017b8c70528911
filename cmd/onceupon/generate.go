package main

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"onceupon/bindings/student"
	"onceupon/trainer/checkpoint"
	"onceupon/trainer/config"
	"onceupon/trainer/fault"
	"onceupon/trainer/rollout"
	"onceupon/trainer/run"
)

func generateCommand() *cli.Command {
	return &cli.Command{
		Name:  "generate",
		Usage: "tell stories",
		Flags: append(studentFlags(),
			&cli.StringFlag{Name: "student", Usage: "GGUF `FILE` of a student"},
			&cli.StringFlag{Name: "run", Usage: "run `FOLDER`, whose best student is taken, and whose [rollout] unless --config is given"},
			&cli.StringFlag{Name: "prompt", Usage: "opening of the stories"},
			&cli.IntFlag{Name: "stories", Value: 3, Usage: "how many"},
			&cli.IntFlag{Name: "max-new-tokens", Usage: "of a reply", DefaultText: configured},
			&cli.Float64Flag{Name: "temperature", Usage: "0 = the most probable token", DefaultText: configured},
			&cli.IntFlag{Name: "top-k", Usage: "0 = off", DefaultText: configured},
			&cli.Float64Flag{Name: "top-p", Usage: "1 = off", DefaultText: configured},
		),
		Action: generate,
	}
}

type toldStory struct {
	Seed    uint64  `json:"seed"`
	Story   uint64  `json:"story"`
	Prompt  string  `json:"prompt"`
	Reply   string  `json:"reply"`
	Tokens  int     `json:"tokens"`
	Logprob float64 `json:"logprob"`
}

// mostStories of a command, which holds all of them.
const mostStories = 1_000_000

func generate(c *cli.Context) error {
	k, err := resolve(c)
	if err != nil {
		return err
	}
	if (c.String("student") == "") == (c.String("run") == "") {
		return fault.New(fault.Usage, "generate: give either --student FILE or --run FOLDER")
	}
	path, err := studentFile(cmp.Or(c.String("student"), c.String("run")), "")
	if err != nil {
		return err
	}
	if k.Rollout, err = telling(c, k.Rollout); err != nil {
		return err
	}
	h, err := run.StudentShape(path)
	if err != nil {
		return err
	}
	tokens, err := run.StudentTokenizer(path)
	if err != nil {
		return err
	}
	prompt, room, n := k.Rollout.Prompt, k.Rollout.MaxNewTokens, c.Int("stories")
	if !c.IsSet("max-new-tokens") {
		room = min(room, h.Context/2)
	}
	ids := tokens.Encode(prompt)
	switch r := k.Rollout; {
	case n < 1 || n > mostStories:
		return fault.New(fault.Usage, "generate: --stories %d must be in 1..%d", n, mostStories)
	case len(ids) == 0:
		return fault.New(fault.Usage, "generate: --prompt is empty: give a text")
	case room < 1:
		return fault.New(fault.Usage, "generate: --max-new-tokens %d must be at least 1", room)
	case !(r.Temperature >= 0 && r.Temperature <= math.MaxFloat32):
		return fault.New(fault.Usage, "generate: --temperature %g must be a number, at least 0", r.Temperature)
	case r.TopK < 0 || r.TopK > math.MaxInt32:
		return fault.New(fault.Usage, "generate: --top-k %d must be in 0..%d", r.TopK, math.MaxInt32)
	case !(r.TopP > 0 && r.TopP <= 1):
		return fault.New(fault.Usage, "generate: --top-p %g must be above 0 and at most 1", r.TopP)
	}
	wave := min(n, 64)
	m, err := loadStudent(k, path, h, student.Options{MaxTokens: max(wave, 1), MaxStories: wave, DecodeStories: wave, DecodeLength: min(len(ids)+max(room, 1), h.Context)})
	if err != nil {
		return err
	}
	defer m.Close()
	teller := rollout.Teller{Model: m, Tokenizer: tokens, Generation: student.Generation{MaxNewTokens: room,
		Temperature: float32(k.Rollout.Temperature), TopK: k.Rollout.TopK, TopP: float32(k.Rollout.TopP), EndToken: tokens.EOS(), Seed: k.Run.Seed}}
	numbers := make([]uint64, n)
	for i := range numbers {
		numbers[i] = uint64(i)
	}
	stories, err := teller.Tell(c.Context, ids, numbers, nil)
	if err != nil {
		return err
	}
	var told []toldStory
	for _, s := range stories {
		told = append(told, toldStory{k.Run.Seed, s.ID, prompt, s.Words, len(s.Reply), s.LogprobSum()})
		if !c.Bool("json") {
			fmt.Fprintf(c.App.Writer, "%s\n\n", s.Text)
		}
	}
	return reporter(c).Emit(map[string]any{"event": "result", "command": "generate", "student": path, "stories": told})
}

// loadStudent loads a student of shape h with the room that is asked for, on
// what the configuration says.
func loadStudent(k config.Config, path string, h config.Student, room student.Options) (*student.Model, error) {
	if k.Run.Kernels == student.Measure {
		return nil, fault.New(fault.Usage, "run.kernels = %s: only a run folder keeps what is measured: name a variant, such as matmul=mma", k.Run.Kernels)
	}
	room.Backend, room.ISA, room.Kernels, room.Precision, room.Threads = k.Run.Backend, k.Run.ISA, k.Run.Kernels, k.Run.Precision, run.Threads(k)
	m, err := student.New(student.Config{Layers: h.Layers, Heads: h.Heads, Width: h.Width, Context: h.Context, Vocab: h.Vocab, LayerNormEpsilon: float32(h.LayerNormEpsilon)}, room)
	if err != nil {
		return nil, err
	}
	if err := checkpoint.LoadWeights(path, m); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// telling is how stories are told: as flags say, else as in the run, else as
// configured.
func telling(c *cli.Context, r config.Rollout) (config.Rollout, error) {
	if path := filepath.Join(c.String("run"), "config.toml"); c.String("run") != "" && !c.IsSet("config") {
		stored, err := config.Load(path)
		if err == nil {
			r = stored.Rollout
		} else if _, absent := os.Stat(path); absent == nil { // an imported student has none
			return r, err
		}
	}
	for name, apply := range map[string]func(){
		"prompt":         func() { r.Prompt = c.String("prompt") },
		"max-new-tokens": func() { r.MaxNewTokens = c.Int("max-new-tokens") },
		"temperature":    func() { r.Temperature = c.Float64("temperature") },
		"top-k":          func() { r.TopK = c.Int("top-k") },
		"top-p":          func() { r.TopP = c.Float64("top-p") },
	} {
		if c.IsSet(name) {
			apply()
		}
	}
	return r, nil
}
