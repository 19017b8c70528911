package report

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"onceupon/trainer/config"
)

// Card is the part of a student's model card that tells how it was made: the
// figures of its run. weights is the hash of the student that the card is for;
// the scores are only told of the student that has them.
func Card(folder, weights string) (string, error) {
	if _, err := os.Stat(filepath.Join(folder, "log.jsonl")); err != nil {
		return "\nNo log of a run stands beside this student, so nothing is known of its making.\n", nil
	}
	run, err := read(folder)
	if err != nil {
		return "", err
	}
	c, err := config.Parse(filepath.Join(folder, "config.toml"), []byte(run.Config))
	if err != nil {
		return "", err
	}
	var text strings.Builder
	text.WriteString("\n## How it was made\n| | |\n|---|---|\n")
	row := func(what, format string, args ...any) {
		fmt.Fprintf(&text, "| %s | %s |\n", what, fmt.Sprintf(format, args...))
	}
	// Names without folders: a card travels.
	row("corpus", "%s", filepath.Base(cmp.Or(c.Corpus.Path, "storybook")))
	row("seed", "%d", c.Run.Seed)
	if n := len(run.Pretrain); n > 0 {
		p := run.Pretrain[n-1]
		row("words of pretraining, repetitions counted", "%d", p.Words)
		row("loss after it, nats a token", "%.3f", p.Loss)
		if p.ValLoss > 0 {
			row("on held-out text", "%.3f", p.ValLoss)
		}
	}
	r := run.Result
	if r == nil || weights == "" || r.WeightsSHA256 != weights {
		text.WriteString("\nThis is not the student that the run handed over at its end: no score of its stories was taken.\n")
		return text.String(), nil
	}
	row("teacher", "%s", filepath.Base(c.Teacher.Model))
	row("words of interaction", "%d", r.BudgetWords)
	row("stories, unreadable ratings", "%d, %d", r.Stories, r.Unreadable)
	row("chosen", "after batch %d of %d", r.ChosenBatch, r.Batches)
	row("score of unseen stories before, after (teacher, 0..9)", "%.2f, %.2f", r.ScoreBefore, r.ScoreAfter)
	row("rise, 95 % interval", "%+.2f, %+.2f .. %+.2f", r.Rise, r.RiseCI[0], r.RiseCI[1])
	row("readability, coherence, creativity after (0..3)", "%.2f, %.2f, %.2f", r.MarksAfter[0], r.MarksAfter[1], r.MarksAfter[2])
	if s := r.SecondJudge; s != nil {
		row("second judge ("+filepath.Base(c.Teacher.SecondJudge)+"): before, after", "%.2f, %.2f", s.Before, s.After)
		row("its rise, 95 % interval", "%+.2f, %+.2f .. %+.2f", s.Rise, s.RiseCI[0], s.RiseCI[1])
	}
	row("distinct-2 before, after", "%.3f, %.3f", r.Distinct2Before, r.Distinct2After)
	row("KL from the pretrained student", "%.2f", r.KL)
	row("sha256 of the weights", "`%s`", r.WeightsSHA256)
	if r.RiseCI[0] <= 0 {
		text.WriteString("\nThe interval of the rise does not exclude 0.\n")
	}
	return text.String(), nil
}
