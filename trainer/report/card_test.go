package report

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"onceupon/trainer/config"
	"onceupon/trainer/metrics"
)

// writeRun writes the files of a run folder that a report is made of.
func writeRun(t *testing.T, dir string, c config.Config, events ...any) {
	t.Helper()
	var log []byte
	for _, event := range events {
		line, err := json.Marshal(event)
		if err != nil {
			t.Fatal(err)
		}
		log = append(append(log, line...), '\n')
	}
	for name, text := range map[string][]byte{"log.jsonl": log, "config.toml": c.Text()} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// A card has the figures of the log, and scores only for the student that has
// them.
func TestCard(t *testing.T) {
	dir := t.TempDir()
	if text, err := Card(dir, "ab"); err != nil || !strings.Contains(text, "No log of a run") {
		t.Errorf("without a log: %q, %v", text, err)
	}
	c := config.Default()
	c.Run.Seed = 17
	c.Corpus.Path = "/somewhere/private/tales.txt"
	writeRun(t, dir, c,
		metrics.PretrainEvent{Event: "pretrain", Words: 100, Loss: 5}, metrics.PretrainEvent{Event: "pretrain", Words: 1234, Loss: 3.25, ValLoss: 3.5},
		metrics.ResultEvent{Event: "result", BudgetWords: 77, ScoreBefore: 4.4, ScoreAfter: 5.42, Rise: 1.02, RiseCI: [2]float64{.59, 1.44}, WeightsSHA256: "ab",
			SecondJudge: &metrics.SecondJudge{Before: 3, After: 2.99, Rise: -.01, RiseCI: [2]float64{-.21, .19}}, ChosenBatch: 6, Batches: 12})
	text, err := Card(dir, "ab")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{"| corpus | tales.txt |", "| seed | 17 |", "repetitions counted | 1234 |", "nats a token | 3.250 |", "held-out text | 3.500 |",
		"| words of interaction | 77 |", "| after batch 6 of 12 |", "| 4.40, 5.42 |", "| +1.02, +0.59 .. +1.44 |", "| -0.01, -0.21 .. +0.19 |", "| `ab` |"} {
		if !strings.Contains(text, row) {
			t.Errorf("the card lacks %q:\n%s", row, text)
		}
	}
	if strings.Contains(text, "private") || strings.Contains(text, "does not exclude") {
		t.Errorf("the card says too much:\n%s", text)
	}
	for _, other := range []string{"", "cd"} {
		text, err := Card(dir, other)
		if err != nil || strings.Contains(text, "5.42") || !strings.Contains(text, "no score of its stories was taken") || !strings.Contains(text, "1234") {
			t.Errorf("weights %q: %v\n%s", other, err, text)
		}
	}
}
