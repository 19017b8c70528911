package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"onceupon/trainer/fault"
	"onceupon/trainer/report"
	"onceupon/trainer/runfolder"
)

func reportCommand() *cli.Command {
	return &cli.Command{
		Name:        "report",
		Usage:       "write a run's report.html again, from its logs",
		Description: "A run that has not ended has a report that says so. While a process works in the folder, its page is written to --output only.",
		ArgsUsage:   "RUN",
		Flags:       append(commonFlags(), &cli.StringFlag{Name: "output", Usage: "`FILE` to write, .html", DefaultText: "RUN/report.html"}),
		Action:      reportAgain,
	}
}

func reportAgain(c *cli.Context) error {
	if c.NArg() != 1 {
		return fault.New(fault.Usage, "report: give one run folder, not %d arguments", c.NArg())
	}
	folder := c.Args().First()
	if folder == "" { // what a shell makes of an unset variable
		return fault.New(fault.Usage, "report: the path of the run folder is empty: give one")
	}
	page := filepath.Join(folder, "report.html")
	if c.IsSet("output") {
		page = c.String("output")
	}
	if filepath.Ext(page) != ".html" { // so that no file of a run is ever written over
		return fault.New(fault.Usage, "report: --output %q must end in .html", page)
	}
	if info, err := os.Stat(folder); err != nil {
		return fault.New(fault.Capability, "report: %w: give the folder of a run", err)
	} else if !info.IsDir() {
		return fault.New(fault.Usage, "report: %s is a file: give the folder of a run", folder)
	}
	// A run writes its own page when it ends: an older one must not replace it.
	if err := runfolder.Idle(folder); err != nil && !c.IsSet("output") {
		return fmt.Errorf("%w, whose end writes the report: --output FILE writes what there is so far", err)
	}
	if err := writable(page); err != nil {
		return fault.New(fault.Usage, "report: %s: %w: choose another --output", page, err)
	}
	finished, err := report.Write(folder, page)
	if err != nil {
		return err
	}
	files, err := written(page)
	if err != nil {
		return err
	}
	r := reporter(c)
	if !finished {
		r.Say("%s is unfinished, and its report says so", folder)
	}
	w := files[0]
	r.Say("%s  %d bytes  sha256 %.16s", w.Path, w.Bytes, w.SHA256)
	return r.Emit(struct {
		Event    string `json:"event"`
		Command  string `json:"command"`
		Run      string `json:"run"`
		Finished bool   `json:"finished"`
		writtenFile
	}{"result", "report", folder, finished, w})
}
