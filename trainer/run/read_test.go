package run

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"onceupon/trainer/config"
	"onceupon/trainer/fault"
	"onceupon/trainer/metrics"
)

// canceller is a terminal at which somebody presses Ctrl-C when it shows a text.
type canceller struct {
	at     string
	cancel func()
}

func (c canceller) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(c.at)) {
		c.cancel()
	}
	return len(b), nil
}

// TestInterruptedInHeldOutLoss stops a pretraining when its last update is done
// and its held-out loss is not: the run that goes on has both, once, and the
// milestone of that update.
func TestInterruptedInHeldOutLoss(t *testing.T) {
	c := config.Default()
	c.Student = config.Student{Layers: 1, Heads: 1, Width: 16, Context: 32, Vocab: 300, LayerNormEpsilon: 1e-5}
	c.Corpus.Words = 3000
	c.Pretrain.Words, c.Pretrain.BatchTokens, c.Pretrain.Milestones = 2000, 64, []int64{2000}
	c.Rollout.Prompt, c.Rollout.MaxNewTokens = "Once", 8
	whole, err := Pretrain(t.Context(), c, Options{Folder: filepath.Join(t.TempDir(), "whole"), Reporter: &metrics.Reporter{}})
	if err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "broken")
	ctx, cancel := context.WithCancel(t.Context())
	_, err = Pretrain(ctx, c, Options{Folder: broken, Reporter: &metrics.Reporter{Text: canceller{"2000/2000 words", cancel}}})
	if fault.Code(err) != int(fault.Interrupted) {
		t.Fatalf("%v, not an interruption", err)
	}
	resumed, err := Pretrain(t.Context(), c, Options{Folder: broken, Reporter: &metrics.Reporter{}})
	if err != nil || resumed.ValLoss == 0 || resumed.ValLoss != whole.ValLoss || resumed.WeightsSHA256 != whole.WeightsSHA256 {
		t.Errorf("%+v, %v; undisturbed %+v", resumed, err, whole)
	}
	log, err := os.ReadFile(filepath.Join(broken, "log.jsonl"))
	if n := bytes.Count(log, []byte(`"val_loss"`)); err != nil || n != 1 {
		t.Errorf("log.jsonl has val_loss %d times, %v", n, err)
	}
	if !exists(filepath.Join(broken, "checkpoints", milestoneName(2000), "student.gguf")) {
		t.Error("the milestone of the last update is missing")
	}
}
