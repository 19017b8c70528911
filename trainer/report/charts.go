package report

import (
	"bytes"
	"html/template"
	"image/color"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"onceupon/trainer/fault"
	"onceupon/trainer/metrics"
)

// Colours that stay apart for colour-blind readers (Okabe & Ito).
var palette = []color.Color{
	color.RGBA{0, 114, 178, 255}, color.RGBA{230, 159, 0, 255}, color.RGBA{0, 158, 115, 255},
	color.RGBA{204, 121, 167, 255}, color.RGBA{213, 94, 0, 255}, color.RGBA{86, 180, 233, 255},
}

// curve is one line with optional half widths of its interval.
type curve struct {
	name   string
	points plotter.XYs
	half   []float64
}

func batchCurve(name string, batches []metrics.BatchEvent, y func(metrics.BatchEvent) float64, half func(metrics.BatchEvent) float64) curve {
	c := curve{name: name}
	for _, b := range batches {
		c.points = append(c.points, plotter.XY{X: float64(b.Batch), Y: y(b)})
		if half != nil {
			c.half = append(c.half, half(b))
		}
	}
	return c
}

func charts(c contents) ([]chart, error) {
	loss := curve{name: "loss"}
	for _, p := range c.Pretrain {
		loss.points = append(loss.points, plotter.XY{X: float64(p.Words), Y: p.Loss})
	}
	var marks []curve
	for k, name := range []string{"readability", "coherence", "creativity"} {
		marks = append(marks, batchCurve(name, c.Batches, func(b metrics.BatchEvent) float64 { return b.Marks[k] },
			func(b metrics.BatchEvent) float64 { return b.MarksCI[k] }))
	}
	var distinct []curve
	for k, name := range []string{"distinct-1", "distinct-2", "distinct-3"} {
		distinct = append(distinct, batchCurve(name, c.Batches, func(b metrics.BatchEvent) float64 { return b.Distinct[k] }, nil))
	}
	stage := func(name string, y func(metrics.Seconds) float64) curve {
		return batchCurve(name, c.Batches, func(b metrics.BatchEvent) float64 { return y(b.Seconds) }, nil)
	}
	stages := []curve{
		stage("rollout", func(s metrics.Seconds) float64 { return s.Rollout }), stage("judge", func(s metrics.Seconds) float64 { return s.Judge }),
		stage("log-probabilities", func(s metrics.Seconds) float64 { return s.Logprob }), stage("update", func(s metrics.Seconds) float64 { return s.Update }),
		stage("other", func(s metrics.Seconds) float64 { return s.Other }),
	}
	if slices.ContainsFunc(c.Batches, func(b metrics.BatchEvent) bool { return b.Seconds.Overlap > 0 }) {
		stages = append(stages, stage("rollout and judge at once", func(s metrics.Seconds) float64 { return s.Overlap }))
	}
	var all []chart
	for _, d := range []struct {
		title, x, y string
		curves      []curve
	}{
		{"Pretraining loss", "words", "nats a token", []curve{loss}},
		{"Ratings of the batches, with 95 % intervals", "batch", "mark, 0..3", marks},
		{"KL to the pretrained student", "batch", "nats a story", []curve{batchCurve("KL", c.Batches, func(b metrics.BatchEvent) float64 { return b.PPO.KL }, nil)}},
		{"Length of the replies", "batch", "tokens", []curve{batchCurve("tokens", c.Batches, func(b metrics.BatchEvent) float64 { return b.ReplyTokens }, nil)}},
		{"Variety of the replies", "batch", "distinct n-grams / n-grams", distinct},
		{"Time of a batch by stage", "batch", "seconds", stages},
	} {
		if len(d.curves[0].points) == 0 {
			continue
		}
		svg, err := draws(d.x, d.y, d.curves)
		if err != nil {
			return nil, err
		}
		all = append(all, chart{d.title, svg})
	}
	return all, nil
}

// drawable is far beyond what float32 students yield.
const drawable = 1e100

func draws(x, y string, curves []curve) (template.HTML, error) {
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text = x, y
	p.BackgroundColor = color.Transparent
	p.Add(plotter.NewGrid())
	p.Legend.Top = true
	for i, c := range curves {
		for k, point := range c.points {
			// gonum looks for ticks forever when the range of an axis overflows.
			if math.Abs(point.Y) > drawable || c.half != nil && math.Abs(c.half[k]) > drawable {
				return "", fault.New(fault.Damaged, "log.jsonl: %s of %g at %s %g: no run measures that", c.name, point.Y, x, point.X)
			}
		}
		line, err := plotter.NewLine(c.points)
		if err != nil {
			return "", err
		}
		line.Color, line.Width = palette[i%len(palette)], vg.Points(1.6)
		p.Add(line)
		if len(curves) > 1 {
			p.Legend.Add(c.name, line)
		}
		if c.half != nil {
			bars := &yErrors{c.points, c.half}
			e, err := plotter.NewYErrorBars(bars)
			if err != nil {
				return "", err
			}
			e.Color = palette[i%len(palette)]
			p.Add(e)
		}
	}
	canvas := vgsvg.New(16*vg.Centimeter, 7*vg.Centimeter)
	p.Draw(draw.New(canvas))
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return "", err
	}
	// The page holds the drawing itself, not a document.
	text := out.String()
	return template.HTML(text[strings.Index(text, "<svg"):]), nil
}

// yErrors gives a line its intervals.
type yErrors struct {
	plotter.XYs
	half []float64
}

func (e *yErrors) YError(i int) (low, high float64) { return e.half[i], e.half[i] }
