package storybook

import (
	"embed"
	"strings"
	"sync"
)

//go:embed data/*.txt
var files embed.FS

type line struct {
	optional bool
	choices  []string
}

type plot struct {
	name  string
	lines []line
	facts []Fact
}

type data struct {
	words    map[string][]string
	openings []string
	plots    []plot
}

// book parses the embedded data once; a mistake in it is a programming error
// that TestData finds.
var book = sync.OnceValue(func() *data {
	d := &data{words: map[string][]string{}}
	section := ""
	for _, l := range lines("words.txt") {
		if name, ok := heading(l); ok {
			section = name
			continue
		}
		for word := range strings.SplitSeq(l, ", ") {
			d.words[section] = append(d.words[section], strings.TrimSpace(word))
		}
	}
	d.openings = lines("openings.txt")
	for _, l := range lines("plots.txt") {
		if name, ok := heading(l); ok {
			d.plots = append(d.plots, plot{name: name})
			continue
		}
		p := &d.plots[len(d.plots)-1]
		if fact, ok := strings.CutPrefix(l, "fact: "); ok {
			question, answer, _ := strings.Cut(fact, " = ")
			p.facts = append(p.facts, Fact{question, answer})
			continue
		}
		text, optional := strings.CutPrefix(l, "? ")
		p.lines = append(p.lines, line{optional, strings.Split(text, " | ")})
	}
	return d
})

func heading(l string) (string, bool) {
	if strings.HasPrefix(l, "[") && strings.HasSuffix(l, "]") {
		return l[1 : len(l)-1], true
	}
	return "", false
}

// lines returns what is neither blank nor a comment.
func lines(name string) []string {
	text, err := files.ReadFile("data/" + name)
	if err != nil {
		panic(err) // embedded by the compiler
	}
	var all []string
	for l := range strings.Lines(string(text)) {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "#") {
			all = append(all, l)
		}
	}
	return all
}
