package fault

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestCode(t *testing.T) {
	damaged := New(Damaged, "file %q: short", "x.gguf")
	for _, c := range []struct {
		name string
		err  error
		want int
	}{
		{"nil", nil, 0},
		{"plain", errors.New("no"), 1},
		{"kind", damaged, 6},
		{"wrapped kind", fmt.Errorf("load: %w", damaged), 6},
		{"outermost kind wins", Wrap(Teacher, damaged), 5},
		{"cancelled", fmt.Errorf("rollout: %w", context.Canceled), 130},
	} {
		if got := Code(c.err); got != c.want {
			t.Errorf("%s: code %d, want %d", c.name, got, c.want)
		}
	}
	if Wrap(Usage, nil) != nil {
		t.Error("Wrap of nil is not nil")
	}
}
