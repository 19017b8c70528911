package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"onceupon/bindings/llama"
	"onceupon/bindings/nvidia"
)

// teacherRuntime prints one line: the route, and why. scripts/fetch-teacher-cuda
// reads its first word.
func teacherRuntime(c *cli.Context) error {
	d, err := nvidia.Open(c.String("driver"))
	if err != nil {
		return err
	}
	route, err := llama.ChooseRoute(d, d.Cards[0])
	if err != nil {
		return err
	}
	if !c.Bool("json") {
		fmt.Fprintf(c.App.Writer, "%s: %s\n", route.Name, route.Why)
	}
	return reporter(c).Emit(map[string]any{"event": "result", "command": "teacher runtime", "route": route.Name, "why": route.Why,
		"cuda": d.CUDA, "cards": d.Cards})
}
