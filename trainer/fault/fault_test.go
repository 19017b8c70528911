package fault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// What a decoder says of a value of another type names the field and JSON's
// words, no type of Go's.
func TestBriefOfAnotherType(t *testing.T) {
	var into struct {
		Text  string
		Score float64
		Deep  struct{ Marks []int }
	}
	for text, want := range map[string]string{
		`{"Text": 5}`:            "field Text must be text, found number",
		`{"Score": 1e999}`:       "field Score must be a number in range, found number 1e999",
		`{"Deep": {"Marks": 1}}`: "field Deep.Marks must be a list, found number",
		`[]`:                     "must be an object, found array",
	} {
		if err := Brief(json.Unmarshal([]byte(text), &into)); err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	if err := Brief(json.Unmarshal([]byte(`{"Score": 1`+strings.Repeat("0", 999)+`}`), &into)); len(err.Error()) > 250 {
		t.Errorf("%d bytes", len(err.Error()))
	}
}

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
