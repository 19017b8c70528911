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
		if err := Write(dir, page); err != nil {
			t.Fatal(err)
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
	if err := os.WriteFile(filepath.Join(dir, "log.jsonl"), []byte("{\"event\":\"batch\",\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, page); fault.Code(err) != int(fault.Damaged) {
		t.Errorf("a damaged log: %v", err)
	}
}
