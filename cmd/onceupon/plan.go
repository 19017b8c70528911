package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"onceupon/bindings/nvidia"
	"onceupon/trainer/config"
	"onceupon/trainer/fault"
	"onceupon/trainer/plan"
)

// Flags of a plan for cards that need not be in this machine.
func planFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "card", Usage: "plan memory and time for a card: " + strings.Join(slices.Sorted(maps.Keys(plan.Cards)), ", ")},
		&cli.StringFlag{Name: "card-memory", Usage: "plan for a card of so much memory, e.g. 24GiB; default that of --card, else of this machine's"},
		&cli.StringFlag{Name: "devices", Value: "0", Usage: "cards to plan for: 0, or 0,1 with the teacher on the first and the student on the second"},
		&cli.Float64Flag{Name: "stories-per-s", Usage: "measured rate of the loop (bench loop), in place of the projection"},
		&cli.Float64Flag{Name: "tok-per-s", Usage: "measured rate of pretraining"},
		&cli.Float64Flag{Name: "watts", Usage: "of the machine under load, for the energy"},
	}
}

// cardPlan is what doctor says in JSON.
type cardPlan struct {
	Card   string       `json:"card"`
	Memory *plan.Memory `json:"memory,omitempty"`
	Time   *plan.Time   `json:"time,omitempty"`
}

// planCards plans when a card is asked for, by a flag or by the configuration.
func planCards(c *cli.Context, k config.Config, add func(name string, ok bool, format string, args ...any)) (*cardPlan, error) {
	if err := positive(c, "stories-per-s", "tok-per-s", "watts"); err != nil {
		return nil, err
	}
	if c.IsSet("tok-per-s") && !c.IsSet("stories-per-s") {
		return nil, fault.New(fault.Usage, "--tok-per-s goes with --stories-per-s: both rates are `bench loop`'s")
	}
	onCard := k.Run.Backend == "cuda" || strings.HasPrefix(k.Teacher.Device, "cuda")
	var out cardPlan
	if rate := c.Float64("stories-per-s"); rate > 0 {
		t := plan.Measured(k, rate, c.Float64("tok-per-s"), c.Float64("watts"))
		add("time plan", true, "%s", t)
		out.Time = &t
	}
	numbers, err := deviceNumbers(c.String("devices"))
	if err != nil {
		return nil, err
	}
	var limits []uint64
	var card plan.Card
	if cardAsked(c) || onCard {
		if limits, card, err = cardLimits(c, numbers); err != nil {
			return nil, err
		}
		if limits == nil {
			add("card", false, "no card in this machine; plan for another with --card or --card-memory")
		}
	}
	if limits == nil {
		if out.Time == nil {
			return nil, nil
		}
		return &out, nil
	}
	teacher, err := plan.FindTeacher(k)
	if err != nil {
		return nil, err
	}
	left := k.Teacher.Wave < 0
	if k, err = plan.Settle(k, teacher, limits); err != nil {
		return nil, err
	}
	m, err := plan.Fit(k, teacher, limits)
	if err != nil {
		return nil, err
	}
	if left && m.Fits {
		add("teacher, wave", true, "at most %d stories a decode fit; the run measures which are fastest", k.Teacher.Wave)
	}
	out.Card, out.Memory = card.Name, &m
	for _, p := range m.Parts {
		add(p.Name, true, "%.2f GiB on card %d (%s)", gib(p.Bytes), numbers[p.Card], p.How)
	}
	for i, n := range m.Totals {
		text := fmt.Sprintf("card %d: %.2f GiB of %.2f GiB, of which 5 %% stay free", numbers[i], gib(n), gib(m.Limits[i]))
		fits := float64(n) <= 0.95*float64(m.Limits[i])
		if !fits {
			text += "; " + m.Remedy
		}
		add("card plan", fits, "%s", text)
	}
	if len(numbers) == 2 && m.Fits {
		add("two cards", true, "run with --teacher-device cuda:%d and ONCEUPON_CUDA_DEVICE=%d", numbers[0], numbers[1])
	}
	if card.TFLOPs > 0 && out.Time == nil {
		t := plan.Project(k, teacher, card)
		if w := c.Float64("watts"); w > 0 {
			t.KWh, t.PretrainKWh, t.Watts = t.Hours*w/1000, t.PretrainHours*w/1000, w
		}
		for _, s := range t.Stages {
			add(s.Name, true, "%.3g s a batch (%s)", s.Seconds, s.How)
		}
		add("time plan", true, "%s, from the data sheet of %s and assumed shares of its peak: not measured", t, card.Name)
		out.Time = &t
	}
	return &out, nil
}

// positive refuses flags that are no rates.
func positive(c *cli.Context, names ...string) error {
	for _, name := range names {
		if v := c.Float64(name); c.IsSet(name) && !(v > 0 && v < 1e9) {
			return fault.New(fault.Usage, "--%s %g: must be above 0", name, v)
		}
	}
	return nil
}

// cardAsked says whether flags ask for a plan, whatever the configuration's
// backend.
func cardAsked(c *cli.Context) bool {
	return c.String("card") != "" || c.String("card-memory") != "" || c.IsSet("devices")
}

// deviceNumbers are those of one card for both models, or of the teacher's and
// the student's.
func deviceNumbers(text string) (numbers []int, err error) {
	for n := range strings.SplitSeq(text, ",") {
		i, err := strconv.Atoi(strings.TrimSpace(n))
		if err != nil || i < 0 {
			return nil, fault.New(fault.Usage, "--devices %q: give numbers of cards, 0 or 0,1", text)
		}
		numbers = append(numbers, i)
	}
	if len(numbers) > 2 || len(numbers) == 2 && numbers[0] == numbers[1] {
		return nil, fault.New(fault.Usage, "--devices %q: one card for both, or two", text)
	}
	return numbers, nil
}

// cardLimits is the memory of each card: as flags say, else as the driver does.
func cardLimits(c *cli.Context, numbers []int) (limits []uint64, card plan.Card, err error) {
	if name := c.String("card"); name != "" {
		if card, err = plan.NamedCard(name); err != nil {
			return nil, card, err
		}
	}
	bytes := card.Bytes
	if text := c.String("card-memory"); text != "" {
		if bytes, err = parseBytes(text); err != nil {
			return nil, card, err
		}
	}
	for _, n := range numbers {
		if bytes > 0 {
			limits = append(limits, bytes)
			continue
		}
		d, err := nvidia.Open("")
		if err != nil {
			return nil, card, nil // said by the caller
		}
		if n >= len(d.Cards) {
			return nil, card, fault.New(fault.Capability, "--devices %s: this machine has %d cards", c.String("devices"), len(d.Cards))
		}
		limits = append(limits, d.Cards[n].Bytes)
		card.Name = d.Cards[n].Name
		if known, ok := plan.DataSheet(card.Name); ok {
			card = known
		}
	}
	return limits, card, nil
}

var amountOfBytes = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?(GiB|GB|MiB)$`)

func parseBytes(text string) (uint64, error) {
	m := amountOfBytes.FindStringSubmatch(text)
	if m == nil {
		return 0, fault.New(fault.Usage, "--card-memory %q: give a number with its unit, e.g. 24GiB", text)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil || n <= 0 || n > 1e6 {
		return 0, fault.New(fault.Usage, "--card-memory %q: out of range", text)
	}
	return uint64(n * map[string]float64{"GiB": 1 << 30, "GB": 1e9, "MiB": 1 << 20}[m[2]]), nil
}
