package evaluate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"onceupon/bindings/student"
	"onceupon/trainer/fault"
	"onceupon/trainer/pretrain"
	"onceupon/trainer/xtest"
)

// letters are tokens of one byte each: ids are what a reader expects.
type letters struct{}

func (letters) Encode(text string) (ids []int32) {
	for _, b := range []byte(text) {
		ids = append(ids, int32(b))
	}
	return ids
}

func newStudent(t *testing.T, maxTokens int) Student {
	t.Helper()
	m, err := student.New(student.Config{Layers: 2, Heads: 2, Width: 32, Context: 48, Vocab: 256, LayerNormEpsilon: 1e-5},
		student.Options{Backend: "cpu", ISA: "auto", Threads: 2, MaxTokens: maxTokens, MaxStories: 64})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	if err := pretrain.Initialize(m, 1); err != nil {
		t.Fatal(err)
	}
	return Student{Model: m, Tokenizer: letters{}}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// data is a file of the shared evaluation data.
func data(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join("../../../shared/data/eval", name)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		t.Skipf("%s is not on this machine", path)
	}
	return path
}

// A score is the sum of log-softmax at the positions before its tokens, here
// from the logits of the text alone, and whole calls of other company change
// no bit of it.
func TestScoresAreSumsOfLogSoftmax(t *testing.T) {
	s := newStudent(t, 256)
	var items [][]Text
	for i, x := range []struct{ context, text string }{{"", "the cat sleeps."}, {"once", " upon a time"}, {"", "ab"}, {"a", " b"}} {
		at := Place{"here", i + 1}
		text, err := s.Text(at, "text", x.context, x.text)
		if err != nil {
			t.Fatal(err)
		}
		other, err := s.Text(at, "text", "", strings.Repeat("x", 20+9*i)) // calls of several sizes
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, []Text{text, other})
	}
	together, err := s.Score(context.Background(), slices.Repeat(items, 5))
	if err != nil {
		t.Fatal(err)
	}
	for i, item := range items {
		for k, text := range item {
			want := 0.0
			if err := s.Model.Forward(student.Pack([][]int32{text.Tokens}), nil, student.Scores{}); err != nil {
				t.Fatal(err)
			}
			z, err := s.Model.Logits(0, len(text.Tokens))
			if err != nil {
				t.Fatal(err)
			}
			for p := max(text.From, 1); p < len(text.Tokens); p++ {
				sum := 0.0
				for _, x := range z[(p-1)*256 : p*256] {
					sum += math.Exp(float64(x))
				}
				want += float64(z[(p-1)*256+int(text.Tokens[p])]) - math.Log(sum)
			}
			alone, err := s.Score(context.Background(), [][]Text{{text}})
			if err != nil {
				t.Fatal(err)
			}
			if got := alone[0][0]; math.Abs(got-want) > 1e-4 {
				t.Errorf("text %d of item %d: %v, from its logits %v", k, i, got, want)
			}
			for round := range 5 {
				if got := together[round*len(items)+i][k]; got != alone[0][0] {
					t.Errorf("text %d of item %d: %v in company, %v alone", k, i, got, alone[0][0])
				}
			}
		}
	}
}

func TestTextsThatCannotBeScored(t *testing.T) {
	s := newStudent(t, 64)
	for _, x := range []struct{ text, want string }{
		{"x", "f.jsonl: line 3: field bad has no token after the first, which is never scored: leave the line out"},
		{strings.Repeat("x", 49), "f.jsonl: line 3: field bad makes 49 tokens, the student's context is 48: leave the line out, or take a student with a longer context"},
	} {
		_, err := s.Text(Place{"f.jsonl", 3}, "bad", "", x.text)
		if err == nil || err.Error() != x.want || fault.Code(err) != int(fault.Usage) {
			t.Errorf("%v", err)
		}
	}
	if _, err := s.Text(Place{}, "bad", "", strings.Repeat("x", 48)); err != nil {
		t.Error(err)
	}
}

func TestWeightsThatAreNotNumbers(t *testing.T) {
	s := newStudent(t, 64)
	broken := make([]float32, s.Model.Parameters()[0].Count())
	broken[5] = float32(math.NaN())
	if err := s.Model.Write(student.Weights, 0, broken); err != nil {
		t.Fatal(err)
	}
	text, err := s.Text(Place{}, "good", "", "\x00\x00")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Score(context.Background(), [][]Text{{text}}); fault.Code(err) != int(fault.Numbers) {
		t.Error(err)
	}
}

// Paradigm a: right, wrong, tie, right = 75 %, strictly 50 %. Paradigm b: 1 of
// 2. The mean counts paradigms, not pairs. Half widths by Student's t: of a
// 3.182 * 50 / sqrt 4 = 79.55, of b 12.706 * 70.71 / sqrt 2 = 635.3.
func TestPreferenceIsAMeanOverParadigms(t *testing.T) {
	var pairs []Pair
	for _, uid := range []string{"a", "b", "a", "a", "b", "a"} {
		pairs = append(pairs, Pair{UID: uid})
	}
	scores := [][]float64{{-1, -2}, {-2, -1}, {-2, -1}, {-3, -3}, {-1, -2}, {-4, -5}}
	p := prefer(pairs, scores)
	if want := (Accuracy{62.5, 50, 6, 1}); p.Accuracy != want {
		t.Errorf("%+v, want %+v", p.Accuracy, want)
	}
	if want := map[string]Accuracy{"a": {75, 50, 4, 1}, "b": {50, 50, 2, 0}}; !reflect.DeepEqual(p.UIDs, want) {
		t.Errorf("%+v", p.UIDs)
	}
	if *p.Interval != [2]float64{0, 100} { // the half width is more than the scale
		t.Errorf("interval %v", *p.Interval)
	}
	// Fifty times as many: of a 1.972 * 43.41 / sqrt 200 = 6.053, of b
	// 1.984 * 50.25 / sqrt 100 = 9.971; together 11.664 / 2.
	if p := prefer(slices.Repeat(pairs, 50), slices.Repeat(scores, 50)); math.Abs(p.Interval[1]-62.5-5.832) > 0.01 || math.Abs(p.Interval[0]+p.Interval[1]-125) > 1e-9 {
		t.Errorf("interval %v", *p.Interval)
	}
	if p := prefer(pairs[:1], scores[:1]); p.Interval != nil {
		t.Errorf("of one pair: %v", *p.Interval)
	}
	if p := prefer(slices.Repeat(pairs[:1], 9), slices.Repeat(scores[:1], 9)); p.Interval != nil || p.Score != 100 {
		t.Errorf("nothing but right: %+v", p)
	}
	if p := prefer(append(pairs, Pair{UID: "c"}), append(scores, []float64{0, 0})); p.Interval != nil || p.Score != 75 {
		t.Errorf("one pair of c: %+v", p)
	}
}

func TestPairsAreRead(t *testing.T) {
	path := write(t, "own.jsonl", `{"good": "A b.", "bad": "B a.", "UID": "u", "more": 1}`+"\n"+`{"sentence_good": "C d.", "sentence_bad": "D c."}`+"\n\n")
	pairs, err := ReadPairs(path)
	want := []Pair{{"u", "A b.", "B a.", Place{path, 1}}, {"own", "C d.", "D c.", Place{path, 2}}}
	if err != nil || !slices.Equal(pairs, want) {
		t.Errorf("%v, %v", pairs, err)
	}
}

func TestSampleIsFixed(t *testing.T) {
	var a, all []Pair
	for i := range 50 {
		p := Pair{UID: "a", Good: fmt.Sprint(i)}
		a, all = append(a, p), append(all, p, Pair{UID: "b", Good: fmt.Sprint(i)})
	}
	all = append(all, Pair{UID: "c"})
	drawn := Sample(all, 10, 7)
	if len(drawn) != 21 || !slices.Equal(drawn, Sample(all, 10, 7)) || slices.Equal(drawn, Sample(all, 10, 8)) {
		t.Errorf("%d pairs", len(drawn))
	}
	if !slices.Equal(drawn[:10], Sample(a, 10, 7)) {
		t.Error("the sample of a paradigm depends on the others")
	}
	if first := Sample(a, 5, 7); !slices.Equal(first, drawn[:5]) {
		t.Error("a smaller sample is not part of the larger")
	}
}

func TestWordsOfTheTreebank(t *testing.T) {
	for sentence, want := range map[string]string{
		"Who hasn't Kim's dog, bitten?":             "who has n't kim 's dog , bitten ?",
		"I cannot; the girls' $2,000 don't.":        "i can not ; the girls ' $ 2,000 do n't .",
		`Mr. Poe said "they'd" (well-known) re-ran`: `mr. poe said " they 'd " ( well-known ) re-ran`,
	} {
		if got := strings.Join(words(sentence), " "); got != want {
			t.Errorf("%s\n got %s\nwant %s", sentence, got, want)
		}
	}
}

// The filter keeps exactly the pairs that the shared file marks, which were
// found with NLTK's tokenizer.
func TestVocabularyKeepsBabyLMsPairs(t *testing.T) {
	path := data(t, "blimp/blimp_full.jsonl.zst")
	pairs, err := ReadPairs(path)
	if err != nil {
		t.Fatal(err)
	}
	v, err := ReadVocabulary(data(t, "filter/babylm_vocab.txt.zst"))
	if err != nil {
		t.Fatal(err)
	}
	var marked []Pair
	for i, line := range strings.Split(strings.TrimSpace(string(xtest.ReadZstd(t, path))), "\n") {
		var mark struct {
			In bool `json:"in_vocab"`
		}
		if err := json.Unmarshal([]byte(line), &mark); err != nil {
			t.Fatal(err)
		}
		if mark.In {
			marked = append(marked, pairs[i])
		}
	}
	kept := v.Keep(pairs)
	if len(pairs) != 67_000 || len(kept) != 59_875 || !slices.Equal(kept, marked) {
		t.Errorf("%d of %d pairs are kept, %d are marked", len(kept), len(pairs), len(marked))
	}
}
