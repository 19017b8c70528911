// Package report owns report.html: one self-contained page built from the logs
// of a run folder.
package report

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"html/template"
	"os"
	"path/filepath"

	"onceupon/trainer/fault"
	"onceupon/trainer/metrics"
)

// Repetitive is the part of the distinct-2 of before below which a rise is
// not to be trusted: the stories have become alike.
const Repetitive = 0.8

//go:embed page.html
var page string

// contents are what the page shows.
type contents struct {
	Result      *metrics.ResultEvent
	Pretrain    []metrics.PretrainEvent
	Batches     []metrics.BatchEvent
	Evaluations []metrics.EvaluationEvent
	Pairs       []pair
	Config      string
	Charts      []chart
	Repeats     bool // distinct-2 fell by more than a fifth
	Risen       bool // the interval of the rise excludes 0
}

type pair struct {
	Kind   string `json:"kind"`
	Before string `json:"before"`
	After  string `json:"after"`
}

type chart struct {
	Title string
	SVG   template.HTML
}

// Write builds the page of a run folder, beside and renamed, and says whether
// the run has ended. Nothing else in the folder is touched.
func Write(folder, path string) (finished bool, err error) {
	c, err := read(folder)
	if err != nil {
		return false, err
	}
	if c.Charts, err = charts(c); err != nil {
		return false, err
	}
	if r := c.Result; r != nil {
		c.Repeats = r.Distinct2After < Repetitive*r.Distinct2Before
		c.Risen = r.RiseCI[0] > 0
	}
	t, err := template.New("page").Parse(page)
	if err != nil {
		return false, err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, c); err != nil {
		return false, err
	}
	defer os.Remove(path + ".part")
	if err := os.WriteFile(path+".part", out.Bytes(), 0o644); err != nil {
		return false, err
	}
	return c.Result != nil, os.Rename(path+".part", path)
}

// WordsRead are those of the pretraining so far.
func (c contents) WordsRead() int64 {
	if len(c.Pretrain) == 0 {
		return 0
	}
	return c.Pretrain[len(c.Pretrain)-1].Words
}

// wholeLines splits like bufio.ScanLines, but drops what a crash, or a run that
// is writing just now, left of a last line; a resume cuts it off, too.
func wholeLines(data []byte, atEOF bool) (advance int, line []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if !atEOF {
		return 0, nil, nil
	}
	if json.Valid(data) {
		line = data
	}
	return len(data), line, nil
}

// read collects the events of log.jsonl; a resumed run's log has each once.
func read(folder string) (contents, error) {
	var c contents
	name := filepath.Join(folder, "log.jsonl")
	f, err := os.Open(name)
	if err != nil {
		return c, fault.New(fault.Capability, "%w: give the folder of a run", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<24)
	lines.Split(wholeLines)
	for n := 1; lines.Scan(); n++ {
		var kind struct {
			Event string `json:"event"`
		}
		err := json.Unmarshal(lines.Bytes(), &kind)
		switch kind.Event {
		case "pretrain":
			c.Pretrain = append(c.Pretrain, metrics.PretrainEvent{})
			err = json.Unmarshal(lines.Bytes(), &c.Pretrain[len(c.Pretrain)-1])
		case "batch":
			c.Batches = append(c.Batches, metrics.BatchEvent{})
			err = json.Unmarshal(lines.Bytes(), &c.Batches[len(c.Batches)-1])
		case "evaluation":
			c.Evaluations = append(c.Evaluations, metrics.EvaluationEvent{})
			err = json.Unmarshal(lines.Bytes(), &c.Evaluations[len(c.Evaluations)-1])
		case "result":
			c.Result = &metrics.ResultEvent{}
			err = json.Unmarshal(lines.Bytes(), c.Result)
		case "pairs":
			var p struct {
				Pairs []pair `json:"pairs"`
			}
			err = json.Unmarshal(lines.Bytes(), &p)
			c.Pairs = p.Pairs
		}
		if err != nil {
			return c, fault.New(fault.Damaged, "%s: line %d: %w", name, n, fault.Brief(err))
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return c, fault.New(fault.Damaged, "%s: a line of more than %d bytes: not the log of a run", name, 1<<24)
	} else if err != nil {
		return c, err
	}
	text, err := os.ReadFile(filepath.Join(folder, "config.toml"))
	if err != nil {
		return c, fault.New(fault.Capability, "%w: give the folder of a run", err)
	}
	c.Config = string(text)
	return c, nil
}
