package judge

import (
	"embed"
	"errors"
	"os"
	"strings"

	"github.com/BurntSushi/toml"

	"onceupon/trainer/fault"
)

// Rubric is what the teacher is shown before a story.
type Rubric struct {
	Name     string    `toml:"-"`
	Form     string    `toml:"form"` // "plain" or "chat"
	Intro    string    `toml:"intro"`
	Examples []Example `toml:"example"`
}

// Example is a worked example: a reply and the marks it deserves.
type Example struct {
	Text  string `toml:"text"`
	Marks [3]int `toml:"marks"` // readability, coherence, creativity
}

//go:embed rubrics/*.toml
var embedded embed.FS

// LoadRubric returns the embedded rubric "plain" or "chat", or reads a file.
func LoadRubric(name string) (Rubric, error) {
	text, err := embedded.ReadFile("rubrics/" + name + ".toml")
	if err != nil {
		if text, err = os.ReadFile(name); err != nil {
			if errors.Is(err, os.ErrNotExist) {
				return Rubric{}, fault.New(fault.Capability, "rubric %s: no such file; plain and chat are built in", name)
			}
			return Rubric{}, fault.New(fault.Usage, "rubric %s: %w: give a TOML file", name, err)
		}
	}
	r := Rubric{Name: name}
	meta, err := toml.Decode(string(text), &r)
	if err != nil {
		return r, fault.New(fault.Usage, "rubric %s: %w", name, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return r, fault.New(fault.Usage, "rubric %s: unknown key %s", name, unknown[0])
	}
	if r.Form != "plain" && r.Form != "chat" {
		return r, fault.New(fault.Usage, "rubric %s: form = %q must be plain or chat", name, r.Form)
	}
	if strings.TrimSpace(r.Intro) == "" {
		return r, fault.New(fault.Usage, "rubric %s: intro is empty", name)
	}
	for i, e := range r.Examples {
		for _, m := range e.Marks {
			if m < 0 || m > 3 || strings.TrimSpace(e.Text) == "" {
				return r, fault.New(fault.Usage, "rubric %s: example %d needs a text and marks of 0..3", name, i+1)
			}
		}
	}
	return r, nil
}

// frame is a rubric rendered for one model: what stands before a story, what
// between story and marks. special says that names of special tokens count in
// prefix and tail; in a story they never do.
type frame struct {
	prefix, tail string
	special      bool
}

// The dated system block of Llama 3.1's template is written out with a fixed
// date, so that runs repeat.
const llama3System = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"

// render joins pieces at line breaks or special tokens, so that prefix, story
// and tail can be tokenized apart.
func (r Rubric) render(prompt, template string) (frame, error) {
	intro := strings.TrimSpace(strings.ReplaceAll(r.Intro, "{{prompt}}", prompt))
	if r.Form == "plain" {
		var b strings.Builder
		b.WriteString(intro + "\n")
		for _, e := range r.Examples {
			b.WriteString("\nStory: " + strings.TrimSpace(e.Text) + "\nMarks:" + marksText(e.Marks) + "\n")
		}
		b.WriteString("\nStory:")
		return frame{prefix: b.String(), tail: "\nMarks:"}, nil
	}
	switch {
	case strings.Contains(template, "<|start_header_id|>"):
		return frame{
			"<|start_header_id|>system<|end_header_id|>\n\n" + llama3System + "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n" + intro + "\n",
			"<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", true}, nil
	case strings.Contains(template, "<|im_start|>"):
		return frame{"<|im_start|>user\n" + intro + "\n", "<|im_end|>\n<|im_start|>assistant\n", true}, nil
	case strings.Contains(template, "<start_of_turn>"):
		return frame{"<start_of_turn>user\n" + intro + "\n", "<end_of_turn>\n<start_of_turn>model\n", true}, nil
	case template == "":
		return frame{}, fault.New(fault.Usage, "the teacher's GGUF has no chat template: take the rubric plain")
	}
	return frame{}, fault.New(fault.Usage, "the teacher's chat template is none of Llama 3, ChatML and Gemma: take the rubric plain")
}

func marksText(m [3]int) string {
	var b strings.Builder
	for _, x := range m {
		b.WriteString(" " + string(rune('0'+x)))
	}
	return b.String()
}
