package config

import (
	"bytes"
	"errors"
	"os"
	"strings"

	"github.com/BurntSushi/toml"

	"onceupon/configs"
	"onceupon/trainer/fault"
)

// Presets are the configurations built in, by name.
var Presets = []string{"default", "h200", "llama31-8b", "paper", "smoke"}

// Default returns the embedded run's configuration.
func Default() Config {
	var c Config
	if err := decode("default", presetText("default"), &c); err != nil {
		panic(err) // embedded, and tested
	}
	return c
}

func presetText(name string) string {
	text, err := configs.Files.ReadFile(name + ".toml")
	if err != nil {
		panic(err) // embedded by the compiler
	}
	return string(text)
}

// Load returns a preset by name, or the default with the keys of a file on
// top.
func Load(name string) (Config, error) {
	c := Default()
	for _, preset := range Presets {
		if name == preset {
			return c, decode(name, presetText(name), &c)
		}
	}
	text, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return c, fault.New(fault.Capability, "config %s: no such file; %s are built in", name, strings.Join(Presets, ", "))
	}
	if err != nil {
		return c, fault.New(fault.Usage, "config: %w", err)
	}
	return c, decode(name, string(text), &c)
}

// Resolve sets the switches that ppo.parity stands for (docs/ppo.md).
func (c Config) Resolve() Config {
	if c.PPO.Parity == "trl-0.9.4" {
		c.PPO.ClipOnce, c.PPO.StepOnSkip, c.PPO.WhitenLeak, c.PPO.RolloutDropout = true, true, true, true
		c.Teacher.MissingMarks = "paper"
	}
	return c
}

// decode reads TOML over c; unknown keys are errors that name the nearest
// known one.
func decode(name, text string, c *Config) error {
	meta, err := toml.Decode(text, c)
	if err != nil {
		return fault.New(fault.Usage, "config %s: %s", name, strings.ReplaceAll(err.Error(), "\n", " "))
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return fault.New(fault.Usage, "config %s: unknown key %s; the nearest known one is %s", name, unknown[0], nearest(unknown[0].String()))
	}
	return nil
}

// Text is the resolved configuration as TOML, the same for equal Configs.
func (c Config) Text() []byte {
	var b bytes.Buffer
	e := toml.NewEncoder(&b)
	e.Indent = ""
	if err := e.Encode(c); err != nil {
		panic(err) // plain fields only
	}
	return b.Bytes()
}

// Parse reads a resolved configuration back, as stored in a run folder.
func Parse(name string, text []byte) (Config, error) {
	var c Config
	return c, decode(name, string(text), &c)
}

// Keys lists all keys as section.key, in the order of the struct.
func Keys() []string {
	var keys []string
	section := ""
	for line := range strings.Lines(string(Default().Text())) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]")
		} else if key, _, ok := strings.Cut(line, " ="); ok {
			keys = append(keys, section+"."+key)
		}
	}
	return keys
}

func nearest(unknown string) string {
	best, distance := "", 1<<30
	for _, k := range Keys() {
		if d := edits(unknown, k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		previous := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := previous
			if a[i] != b[j] {
				cost++
			}
			previous = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// Difference names the first key in which two configurations differ, with both
// values.
func Difference(a, b Config) string {
	linesA, linesB := strings.Split(string(a.Text()), "\n"), strings.Split(string(b.Text()), "\n")
	section := ""
	for i := range linesA {
		if strings.HasPrefix(linesA[i], "[") {
			section = linesA[i]
		}
		if i >= len(linesB) || linesA[i] != linesB[i] {
			other := ""
			if i < len(linesB) {
				_, other, _ = strings.Cut(linesB[i], " = ")
			}
			return section + " " + linesA[i] + " against " + other
		}
	}
	return ""
}
