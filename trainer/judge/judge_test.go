package judge

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"onceupon/trainer/fault"
)

// wellMade are stories that stand in no rubric.
var wellMade = []string{
	`there lived a small bear named Lily who loved a golden cup. One day the cup fell into the well. Lily asked the frog for help. The frog dived to the bottom and brought the cup up again. Lily poured honey into it, and they shared the honey under the old tree.`,
	`a boy named Tom found a blue egg in the garden. He kept it warm in his hat. After three days a little dragon came out and sneezed. "Are you my mother?" asked the dragon. Tom laughed and gave it some milk, and the dragon slept in his hat every night.`,
	`an old king had lost his crown. He looked in the castle and in the stable. At last he met a sheep who was wearing it. "I thought it was a flower ring," said the sheep. The king smiled and let her keep it until Sunday.`,
	`a mouse wanted to see the moon. She climbed the tallest tree in the forest, but the moon was still far away. An owl offered to carry her. They flew over the clouds, and the mouse touched the light with her paw. When she came home, her whiskers shone like silver.`,
	`two sisters had only one pair of red boots. When it rained, they argued at the door. Then Anna took the left boot and Mia took the right one, and they hopped to school together. The teacher laughed so much that she bought them a second pair.`,
	`a fisherman heard a song from the sea. He rowed toward it and found a whale with a bell around its neck. The bell was too tight. He cut the rope with his knife, and the whale gave a happy jump. After that day his net was always full.`,
}

// brief is the plain rubric with its first three examples, for what is not about
// the marks themselves: all eighteen are 1,463 tokens, seconds at every opening.
func brief(t testing.TB) string {
	t.Helper()
	text, err := embedded.ReadFile("rubrics/plain.toml")
	if err != nil {
		t.Fatal(err)
	}
	few := strings.Join(strings.Split(string(text), "[[example]]")[:4], "[[example]]")
	path := filepath.Join(t.TempDir(), "brief.toml")
	if err := os.WriteFile(path, []byte(few), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func openJudge(t testing.TB, model, rubric, reading string) *Judge {
	t.Helper()
	j, err := Open(context.Background(), Options{Model: model, Rubric: rubric, Prompt: "Once upon a time,", Reading: reading, MaxTokens: 256, Threads: 2, Pace: Fixed,
		Temperature: 0.2, Seed: 42, Calibrate: rubric == ""})
	if fault.Code(err) == int(fault.Capability) {
		t.Skipf("no teacher on this machine: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	return j
}

// The default teacher may teach, by stories that stand in no rubric.
func TestProbe(t *testing.T) {
	j := openJudge(t, "gemma-270m", "", "expected")
	p, err := Probe(context.Background(), j, wellMade, len(wellMade), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v, calibration %+v", j.Info(), j.Calibration().Lines)
	for _, k := range p.Kinds {
		t.Logf("  %-32s %5.2f ± %.2f", k.Kind, k.Mean, k.SD)
	}
	s := j.Stats()
	t.Logf("  rank correlation %.2f, %.3f s a story, %.0f tokens/s", p.RankCorrelation, s.Seconds/float64(s.Stories), float64(s.Tokens)/s.Seconds)
	if !p.Passed {
		t.Error("the default teacher failed its probe")
	}
}

// scripted rates stories as it says.
type scripted func(story string) Rating

func (s scripted) Rate(_ context.Context, stories []string) ([]Rating, error) {
	var all []Rating
	for _, story := range stories {
		all = append(all, s(story))
	}
	return all, nil
}

// An answer without marks is no mark of 0: it is left out.
func TestProbeLeavesOutUnreadable(t *testing.T) {
	good := Rating{Calibrated: [3]float64{1, 2, 3}}
	some := scripted(func(story string) Rating {
		if len(story)%3 == 0 {
			return Rating{Unreadable: true}
		}
		return good
	})
	p, err := Probe(context.Background(), some, wellMade, len(wellMade), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	fewer := false
	for _, k := range p.Kinds {
		fewer = fewer || k.N < len(wellMade)
		if k.Mean != good.Score() || k.SD != 0 {
			t.Errorf("%+v: want the mean %g of what can be read", k, good.Score())
		}
	}
	if !fewer {
		t.Error("no rating was unreadable")
	}
	none := scripted(func(string) Rating { return Rating{Unreadable: true} })
	if _, err := Probe(context.Background(), none, wellMade, len(wellMade), 1, nil); fault.Code(err) != int(fault.Teacher) {
		t.Errorf("nothing readable: %v", err)
	}
}

func TestRatingDoesNotDependOnCompany(t *testing.T) {
	j := openJudge(t, "smollm2-135m", "chat", "expected")
	together, err := j.Rate(context.Background(), wellMade[:3])
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range wellMade[:3] {
		alone, err := j.Rate(context.Background(), []string{s})
		if err != nil {
			t.Fatal(err)
		}
		if alone[0].Distribution != together[i].Distribution {
			t.Errorf("story %d: %v alone, %v with others", i, alone[0].Distribution, together[i].Distribution)
		}
	}
}

func TestSampledReading(t *testing.T) {
	j := openJudge(t, "gemma-270m", brief(t), "sampled")
	a, err := j.Rate(context.Background(), wellMade[:2])
	if err != nil {
		t.Fatal(err)
	}
	b, err := j.Rate(context.Background(), wellMade[:2])
	if err != nil {
		t.Fatal(err)
	}
	for i := range a {
		if a[i].Text != b[i].Text || a[i].Text == "" {
			t.Errorf("story %d: answers %q and %q", i, a[i].Text, b[i].Text)
		}
	}
}

func TestMissingTeacher(t *testing.T) {
	dir, err := FindLlama("", "")
	if err != nil {
		t.Skip(err)
	}
	_, err = Open(context.Background(), Options{LlamaDir: dir, Model: t.TempDir() + "/none.gguf", Reading: "expected", MaxTokens: 10, Threads: 1, Pace: Fixed})
	if fault.Code(err) != int(fault.Capability) {
		t.Errorf("missing teacher gave %v", err)
	}
}

func TestParseMarks(t *testing.T) {
	for _, c := range []struct {
		answer string
		marks  [3]float64
		found  int
		paper  float64
	}{
		{"3 2 1", [3]float64{3, 2, 1}, 3, 6.0 / 9},
		{"Marks: 2, 2, 9.", [3]float64{2, 2, 3}, 3, 7.0 / 9},
		{"321", [3]float64{3}, 1, 3.0 / 9},
		{"1 2", [3]float64{1, 2}, 2, 3.0 / 9},
		{"good story", [3]float64{}, 0, 0.5},
		{"", [3]float64{}, 0, 0.5},
		{"a1 2b 3", [3]float64{3}, 1, 3.0 / 9},
		{"99999999999999999999 0 0", [3]float64{3, 0, 0}, 3, 3.0 / 9},
		{"-1 2 3", [3]float64{1, 2, 3}, 3, 6.0 / 9},
		{"1 2 3 3 3", [3]float64{1, 2, 3}, 3, 6.0 / 9},
	} {
		marks, found := ParseMarks(c.answer)
		if marks != c.marks || found != c.found {
			t.Errorf("%q: %v %d, want %v %d", c.answer, marks, found, c.marks, c.found)
		}
		made, _ := paperMarks(c.answer)
		if got := (made[0] + made[1] + made[2]) / 9; math.Abs(got-c.paper) > 1e-12 {
			t.Errorf("%q: paper score %v, want %v", c.answer, got, c.paper)
		}
	}
}

// Answers sampled in one wave are those of each story, whatever its place: at
// temperature 0 the words agree but for the last digits of the logits.
func TestSampledWave(t *testing.T) {
	rubric := brief(t)
	rate := func(wave int, stories ...string) map[string]Rating {
		j, err := Open(context.Background(), Options{Model: "gemma-270m", Rubric: rubric, Prompt: "Once upon a time,", Reading: "sampled", MaxTokens: 256, Threads: 2, Pace: Pace{wave, 512}, Seed: 42})
		if fault.Code(err) == int(fault.Capability) {
			t.Skipf("no teacher on this machine: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		ratings, err := j.Rate(context.Background(), stories)
		if err != nil {
			t.Fatal(err)
		}
		of := map[string]Rating{}
		for i, s := range stories {
			of[s] = ratings[i]
		}
		return of
	}
	noise := "zq zq zq zq zq."
	one, three := rate(1, wellMade[0], noise, wellMade[1]), rate(3, wellMade[1], wellMade[0], noise)
	same := 0
	for s, a := range one {
		b := three[s]
		if a.Text == b.Text {
			same++
		}
		for mark := range a.Distribution[0] {
			if d := math.Abs(a.Distribution[0][mark] - b.Distribution[0][mark]); d > 0.1 {
				t.Errorf("%.20q: mark %d has probability %v alone, %v in a wave", s, mark, a.Distribution[0][mark], b.Distribution[0][mark])
			}
		}
	}
	if same < 2 {
		t.Errorf("answers alone %+v, in a wave %+v", one, three)
	}
}

// TestMissingMarks lets a base model answer, which seldom says three integers:
// refused ones are left out, the paper's rule makes marks of all.
func TestMissingMarks(t *testing.T) {
	missing := 0
	for _, rule := range []string{"refuse", "paper"} {
		j := openJudge(t, "smollm2-135m", "chat", "sampled")
		j.options.MissingMarks, j.options.Temperature = rule, 3 // hot enough for nonsense
		ratings, err := j.Rate(context.Background(), wellMade[:2])
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range ratings {
			marks, found := ParseMarks(r.Text)
			switch {
			case rule == "refuse" && (r.Unreadable != (found < 3) || r.Missing != 0):
				t.Errorf("refuse %q: unreadable %v, missing %d", r.Text, r.Unreadable, r.Missing)
			case rule == "paper" && (r.Unreadable || r.Missing != 3-found || r.Asked != 1):
				t.Errorf("paper %q: unreadable %v, missing %d, asked %d times", r.Text, r.Unreadable, r.Missing, r.Asked)
			case rule == "paper" && found > 0 && r.Marks != marks, rule == "paper" && found == 0 && r.Score() != 4.5:
				t.Errorf("paper %q: marks %v", r.Text, r.Marks)
			}
			missing += r.Missing
		}
	}
	if missing == 0 {
		t.Error("every answer held three marks: nothing was tested")
	}
}

func TestCalibrationOrdersAndClips(t *testing.T) {
	examples := []Example{{"a", [3]int{0, 0, 0}}, {"b", [3]int{3, 3, 0}}, {"c", [3]int{1, 2, 3}}}
	ratings := []Rating{{Marks: [3]float64{1.4, 2, 2}}, {Marks: [3]float64{1.6, 2, 2.2}}, {Marks: [3]float64{1.5, 2, 1}}}
	c := fit(examples, ratings)
	if !c.Lines[0].Fitted || c.Lines[1].Fitted || c.Lines[2].Fitted {
		t.Errorf("lines %+v: the first should be fitted, the flat and the falling one not", c.Lines)
	}
	if got := c.apply([3]float64{9, 2, 1}); got != [3]float64{3, 2, 1} {
		t.Errorf("apply gave %v", got)
	}
}

type fixed struct{ score float64 }

func (f fixed) Rate(_ context.Context, stories []string) ([]Rating, error) {
	all := make([]Rating, len(stories))
	for i := range all {
		all[i].Calibrated = [3]float64{f.score, f.score, f.score}
	}
	return all, nil
}

func TestTeacherWithoutOpinionFails(t *testing.T) {
	p, err := Probe(context.Background(), fixed{2}, wellMade, 3, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.Passed || p.RankCorrelation != 0 {
		t.Errorf("a teacher that says the same of everything: %+v", p)
	}
	if _, err := Probe(context.Background(), fixed{2}, nil, 3, 1, nil); fault.Code(err) != int(fault.Usage) {
		t.Errorf("a probe without stories gave %v", err)
	}
}

func TestRubricsAreChecked(t *testing.T) {
	for _, name := range []string{"plain", "chat"} {
		r, err := LoadRubric(name)
		if err != nil || r.Form != name {
			t.Errorf("%s: %+v, %v", name, r.Form, err)
		}
	}
	if _, err := LoadRubric("none.toml"); fault.Code(err) != int(fault.Capability) {
		t.Errorf("missing rubric gave %v", err)
	}
	r, _ := LoadRubric("chat")
	if _, err := r.render("Once", ""); fault.Code(err) != int(fault.Usage) {
		t.Errorf("chat form without a template gave %v", err)
	}
}
