package plan

import (
	"math"
	"strings"
	"testing"

	"onceupon/trainer/config"
	"onceupon/trainer/fault"
)

func load(t *testing.T, name string) config.Config {
	t.Helper()
	c, err := config.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return c.Resolve()
}

// The paper's 1 M words are 920 batches (recipe).
func TestBatches(t *testing.T) {
	if n := Batches(load(t, "paper")); n != 920 {
		t.Errorf("paper: %d batches", n)
	}
	if n := Batches(load(t, "default")); n != 12 {
		t.Errorf("default: %d batches", n)
	}
}

func TestTeachers(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	c := load(t, "llama31-8b")
	for name, want := range map[string]struct {
		kind string
		gib  float64 // 7.5 G parameters without the embedding
	}{"llama-3.1-8b-q8_0": {"Q8_0", 7.43}, "llama-3.1-8b-q4_k_m": {"Q4_K", 4.30}, "Meta-Llama-3.1-8B-Instruct.gguf": {"F16", 13.98}} {
		c.Teacher.Model = name
		teacher, err := FindTeacher(c)
		if err != nil || teacher.Type != want.kind || math.Abs(gib(teacher.Weights)-want.gib) > 0.02 || teacher.Cache != 128<<10 || teacher.Source != "its name" {
			t.Errorf("%s: %+v, %.2f GiB, %v", name, teacher, gib(teacher.Weights), err)
		}
	}
	c.Teacher.Model = "unknown.gguf"
	if _, err := FindTeacher(c); fault.Code(err) != int(fault.Capability) {
		t.Errorf("an unknown teacher: %v", err)
	}
}

// Each configuration fits the card it is for; what does not fit gets a remedy
// that does.
func TestFit(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	for _, x := range []struct {
		name   string
		limits []uint64
		fits   bool
		says   string
	}{
		{"llama31-8b", []uint64{24 << 30}, true, ""},
		{"h200", []uint64{139 << 30}, true, ""},
		{"h200", []uint64{79 << 30}, true, ""},
		{"paper", []uint64{79 << 30}, true, ""},
		{"h200", []uint64{24 << 30}, false, "run.max_tokens = "},
		{"paper", []uint64{24 << 30}, false, "a teacher of Q"},
		{"paper", []uint64{44 << 30}, false, " GiB); or the same on two such cards, --devices 0,1"},
		{"paper", []uint64{44 << 30, 44 << 30}, true, ""},
		{"h200", []uint64{8 << 30}, false, "a larger card"},
		{"llama31-8b", []uint64{12 << 30, 24 << 30}, true, ""},
	} {
		c := load(t, x.name)
		teacher, err := FindTeacher(c)
		if err != nil {
			t.Fatal(err)
		}
		if c, err = Settle(c, teacher, x.limits); err != nil {
			t.Fatal(err)
		}
		m, err := Fit(c, teacher, x.limits)
		if err != nil || m.Fits != x.fits || !strings.Contains(m.Remedy, x.says) || (m.Remedy == "") != x.fits {
			t.Errorf("%s on %d GiB: fits %v, %q, %v", x.name, x.limits[0]>>30, m.Fits, m.Remedy, err)
		}
		sum := make([]uint64, len(x.limits))
		for _, p := range m.Parts {
			sum[p.Card] += p.Bytes
		}
		for i := range sum {
			if sum[i] != m.Totals[i] || sum[i] == 0 {
				t.Errorf("%s: parts of card %d are %d, the total %d", x.name, i, sum[i], m.Totals[i])
			}
		}
	}
	// A wave left to the run's measurement is the largest that fits.
	c := load(t, "h200")
	teacher, _ := FindTeacher(c)
	for limit, wave := range map[uint64]config.Pick{139 << 30: 255, 79 << 30: 255, 60 << 30: 128, 2 << 30: 1} {
		if settled, err := Settle(c, teacher, []uint64{limit}); err != nil || settled.Teacher.Wave != wave || settled.Teacher.MicroBatch != 512 {
			t.Errorf("%d GiB: waves of %v, micro-batches of %v, %v", limit>>30, settled.Teacher.Wave, settled.Teacher.MicroBatch, err)
		}
	}
	if _, err := Fit(c, teacher, make([]uint64, 3)); fault.Code(err) != int(fault.Usage) {
		t.Errorf("three cards: %v", err)
	}
}

func TestTime(t *testing.T) {
	c := load(t, "paper")
	// The paper's own limit: 125 s a batch, 32 hours.
	x := Measured(c, 360/125.0, 0, 400)
	if math.Abs(x.Hours-920*125/3600.0) > 1e-9 || math.Abs(x.KWh-x.Hours*0.4) > 1e-9 || x.PretrainHours != 0 {
		t.Errorf("%+v", x)
	}
	// 900 M words at 1.3 tokens a word and a million tokens a second.
	if x := Measured(c, 1, 1e6, 0); math.Abs(x.PretrainHours-900e6*1.3/1e6/3600) > 1e-9 {
		t.Errorf("%+v", x)
	}
	// A slower card takes longer, by no more than the ratio of the slowest part.
	slow, _ := NamedCard("rtx-3090")
	fast, _ := NamedCard("h200")
	k := load(t, "llama31-8b")
	teacher, err := FindTeacher(k)
	if err != nil {
		t.Fatal(err)
	}
	k.Teacher.Wave = 16
	a, b := Project(k, teacher, slow), Project(k, teacher, fast)
	if r := a.Hours / b.Hours; r < 2 || r > fast.TFLOPs/slow.TFLOPs+1 {
		t.Errorf("hours %g and %g", a.Hours, b.Hours)
	}
	// Twice the model of the judge's work: 2 x 8.03 G x tokens / peak.
	want := 2 * 8.03e9 * 360 * (15*1.3 + 90 + 10) / (989e12 * 0.35)
	if got := b.Stages[1].Seconds; math.Abs(got-want)/want > 0.02 {
		t.Errorf("judge: %g s, by hand %g", got, want)
	}
	// With overlap a batch takes the longer of telling and rating, not both.
	k.Interact.Overlap = "off"
	apart := Project(k, teacher, fast)
	s := apart.Stages
	rollout, judge := s[0].Seconds, s[1].Seconds+s[2].Seconds
	if d := apart.BatchSeconds - b.BatchSeconds - min(rollout, judge); math.Abs(d) > 1e-9 || math.Abs(apart.BatchSeconds-rollout-judge-s[3].Seconds-s[4].Seconds) > 1e-9 {
		t.Errorf("a batch of %g s, overlapped %g s, telling %g s, rating %g s", apart.BatchSeconds, b.BatchSeconds, rollout, judge)
	}
	if _, err := NamedCard("voodoo2"); fault.Code(err) != int(fault.Usage) {
		t.Error(err)
	}
}

// 360 stories of 110 tokens, 96 M weights, four epochs, by hand; and the
// teacher's two a weight and token.
func TestBatchFLOPs(t *testing.T) {
	c := load(t, "paper")
	p, length := parameters(c.Student), 16*tokensAWord+90
	want := 360*p*(2*90+(2+2+6*4-2)*length) + 2*8e9*40_000
	if got := BatchFLOPs(c, Teacher{Parameters: 8e9}, 90, 40_000); math.Abs(got/want-1) > 1e-12 {
		t.Errorf("%g, by hand %g", got, want)
	}
}

// Every card is found by what the driver calls it, and by nothing like it.
func TestDataSheets(t *testing.T) {
	for name, c := range Cards {
		if found, ok := DataSheet(c.Name); !ok || found != c {
			t.Errorf("%s: %+v, %v", name, found, ok)
		}
		if c.FP32 >= c.TFLOPs || c.GBs < 200 || c.Watts < 50 || c.Bytes < 20<<30 {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if c, ok := DataSheet("NVIDIA GeForce RTX 4090 Laptop GPU"); ok {
		t.Errorf("another card: %+v", c)
	}
}

// Both phases side by side, in units that suit a small run too.
func TestTimeSaysBothPhases(t *testing.T) {
	for want, x := range map[string]Time{
		"measured: interaction 31.9 h (920 batches of 125 s, 2.88 stories/s)":                                                              Measured(load(t, "paper"), 2.88, 0, 0),
		"measured: interaction 31.9 h (920 batches of 125 s, 2.88 stories/s), pretraining before it 3.25 h; at 400 W 12.8 kWh and 1.3 kWh": Measured(load(t, "paper"), 2.88, 1e5, 400),
		"measured: interaction 1.6 min (12 batches of 8 s, 6 stories/s), pretraining before it 39 s; at 60 W 1.6 Wh and 0.65 Wh":           Measured(load(t, "default"), 6, 2e4, 60),
	} {
		if x.String() != want {
			t.Errorf("%s\n%s", x, want)
		}
	}
}
