package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"onceupon/trainer/config"
	"onceupon/trainer/fault"
	"onceupon/trainer/metrics"
)

// The page has every stage of the clock, warns of what is no success, and
// shows stories as text.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "report.html")
	batch := func(n int) metrics.BatchEvent {
		return metrics.BatchEvent{Event: "batch", Batch: n, Marks: [3]float64{1, 2, 3}, Seconds: metrics.Seconds{Rollout: 1, Overlap: 2}}
	}
	result := metrics.ResultEvent{Event: "result", ScoreBefore: 4.25, ScoreAfter: 5.5, Rise: 1.25, RiseCI: [2]float64{.5, 2}, Distinct2Before: .5, Distinct2After: .45,
		Seconds: metrics.Seconds{Pretrain: 101.1, Rollout: 102.2, Judge: 103.3, Overlap: 104.4, Logprob: 105.5, Update: 106.6, Other: 107.7}}
	write := func(r metrics.ResultEvent) string {
		t.Helper()
		writeRun(t, dir, config.Default(), metrics.PretrainEvent{Event: "pretrain", Words: 100, Loss: 5}, metrics.PretrainEvent{Event: "pretrain", Words: 200, Loss: 4},
			batch(1), batch(2), metrics.EvaluationEvent{Event: "evaluation", Set: "before", Judge: "teacher", N: 96, Score: 4.25},
			map[string]any{"event": "pairs", "pairs": []pair{{"held-out", "<script>a fox</script>", "a hen"}}}, r)
		if finished, err := Write(dir, page); err != nil || !finished {
			t.Fatal(finished, err)
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	text := write(result)
	for _, want := range []string{"101.1", "102.2", "103.3", "104.4", "105.5", "106.6", "107.7", "<b>4.25</b> to <b>5.50</b>", "&lt;script&gt;a fox", "before, teacher", "Time of a batch by stage"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if !strings.Contains(text, "had read an unknown number of words told") || strings.Contains(text, "What the rise is worth") {
		t.Error("what is not known of the student is not told")
	}
	words := int64(0) // none, which is known
	result.PretrainWords, result.Run = &words, "runs/a"
	for _, want := range []string{"had read 0 words told", "What the rise is worth", "equivalence --points runs/a --points point-WORDS --points ... --result runs/a</pre>"} {
		if !strings.Contains(write(result), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, not := range []string{"class=\"warn\"", "second judge", "<script>"} {
		if strings.Contains(text, not) {
			t.Errorf("the page has %q", not)
		}
	}
	result.RiseCI[0], result.Distinct2After = -.1, .39
	text = write(result)
	for _, want := range []string{"does not show a rise", "Distinct-2 fell by more than a fifth"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not warn: %q", want)
		}
	}
	if again := write(result); again != text {
		t.Error("the same log gives another page")
	}
}

// A run that was killed while it wrote a line is unfinished, not damaged; a
// line that is damaged is told with its number.
func TestUnfinished(t *testing.T) {
	dir := t.TempDir()
	page, log := filepath.Join(dir, "report.html"), filepath.Join(dir, "log.jsonl")
	writeRun(t, dir, config.Default(), metrics.PretrainEvent{Event: "pretrain", Words: 1234, Loss: 5}, metrics.BatchEvent{Event: "batch", Batch: 1})
	whole, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) (string, error) {
		t.Helper()
		if err := os.WriteFile(log, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		finished, err := Write(dir, page)
		if finished {
			t.Errorf("%.40q: finished", text)
		}
		html, readErr := os.ReadFile(page)
		if readErr != nil {
			t.Fatal(readErr)
		}
		return string(html), err
	}
	for _, torn := range []string{"", "{", `{"event":"batch","ba`} {
		html, err := write(string(whole) + torn)
		if err != nil || !strings.Contains(html, "unfinished: 1234 words of pretraining read, 1 batches of interaction done") {
			t.Errorf("torn at %q: %v", torn, err)
		}
	}
	before, _ := write(string(whole))
	for text, want := range map[string]string{
		string(whole) + "{\"event\":\"batch\",\n":         "log.jsonl: line 3: unexpected end",
		"{\"event\":\"batch\",\"batch\":\"x\"}\n":         "log.jsonl: line 1: field batch must be a number in range, found string",
		`{"event":"batch","batch":1,"marks":[1e308,0,0]}`: "log.jsonl: readability of 1e+308 at batch 1",
		strings.Repeat("x", 1<<24+1):                      "log.jsonl: a line of more than 16777216 bytes",
	} {
		html, err := write(text)
		if fault.Code(err) != int(fault.Damaged) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v", text, err)
		}
		if html != before {
			t.Error("a damaged log changed the page")
		}
	}
	for _, name := range []string{"config.toml", "log.jsonl"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if name == "config.toml" {
			_, err = write(string(whole))
		} else {
			_, err = Write(dir, page)
		}
		if fault.Code(err) != int(fault.Capability) || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.part")); left != nil {
		t.Errorf("left %q", left)
	}
}
