// Command onceupon pretrains a small GPT-2 student, lets it tell stories, has a
// teacher rate each one inside the same process, and improves the student with
// PPO. See the README, and `onceupon help COMMAND`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"onceupon/bindings/student"
	"onceupon/trainer/bench"
	"onceupon/trainer/fault"
)

const exitCodes = `
EXIT CODES:
   0    done
   1    failed
   2    usage: a wrong flag, argument or configuration value
   3    something this machine lacks: a file, a library, a processor feature
   4    numbers went wrong: NaN, or a guard on the KL tripped
   5    the teacher: unreadable above the limit, or its probe failed
   6    a damaged file
   130  interrupted; a checkpoint was written
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		// After the first signal the default takes over: a second one ends the
		// program at once.
		<-ctx.Done()
		stop()
	}()
	os.Exit(program(ctx, os.Args, os.Stdout, os.Stderr))
}

// program runs the commands with its streams; it returns the exit code.
func program(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	out := &output{to: stdout}
	err := newApp(out, stderr).RunContext(ctx, pathLast(args))
	if err == nil && out.err != nil {
		err = fmt.Errorf("standard output: %w", out.err)
	}
	var urfaves cli.ExitCoder // it returns one for help of an unknown command alone
	if errors.As(err, &urfaves) {
		err = fault.Wrap(fault.Usage, err)
	}
	if err != nil {
		fmt.Fprintf(stderr, "onceupon: %s\n", strings.ReplaceAll(err.Error(), context.Canceled.Error(), "interrupted"))
	}
	return fault.Code(err)
}

// output remembers what went wrong with it, so that no command has to look
// after every line whether the disk was full.
type output struct {
	to  io.Writer
	err error
}

func (o *output) Write(b []byte) (int, error) {
	n, err := o.to.Write(b)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

func newApp(stdout, stderr io.Writer) *cli.App {
	cli.VersionFlag = &cli.BoolFlag{Name: "version", Usage: "the revision that this was built from", DisableDefaultText: true}
	app := &cli.App{
		Name:                  "onceupon",
		Usage:                 "a storyteller that learns by being told how it did",
		Writer:                stdout,
		ErrWriter:             stderr,
		Version:               bench.Version() + ", libstudent " + student.LibrarySHA256()[:12],
		EnableBashCompletion:  true,
		CustomAppHelpTemplate: cli.AppHelpTemplate + exitCodes,
		ExitErrHandler:        func(*cli.Context, error) {}, // exit codes are program's
		Commands: []*cli.Command{
			runCommand(), pretrainCommand(), interactCommand(), generateCommand(), judgeCommand(), tokenizerCommand(), verifyCommand(), doctorCommand(),
			evaluateCommand(), equivalenceCommand(), reportCommand(),
			inspectCommand(), exportCommand(), importCommand(), teacherCommand(), benchCommand(),
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return fault.New(fault.Usage, "no command %q; `onceupon help` lists them", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
	}
	app.OnUsageError = usageError
	for _, command := range app.Commands {
		strict(command)
	}
	return app
}

// pathLast moves the path of a command that takes one behind its flags, since
// urfave/cli ends the flags at the first argument: `import DIR --out R` and
// `import --out R DIR` are the same.
func pathLast(args []string) []string {
	place := map[string]int{"verify": 3, "teacher": 3, "import": 2, "inspect": 2, "report": 2}
	if len(args) < 2 {
		return args
	}
	at := place[args[1]]
	if at == 0 || len(args) < at+2 || strings.HasPrefix(args[at], "-") {
		return args
	}
	return append(append(slices.Clone(args[:at]), args[at+1:]...), args[at])
}

func usageError(c *cli.Context, err error, _ bool) error {
	if c.Command.HelpName == c.App.HelpName {
		return fault.New(fault.Usage, "%w; see `onceupon help`", err)
	}
	return fault.New(fault.Usage, "%s: %w; see `%s --help`", c.Command.Name, err, c.Command.HelpName)
}

// strict makes stray arguments and missing flags errors of one line.
// urfave/cli takes a flag after an argument for an argument, so it would be
// ignored silently; of a missing flag it complains with the whole help on
// standard output, where --json promises JSON.
func strict(command *cli.Command) {
	command.OnUsageError = usageError
	for _, sub := range command.Subcommands {
		strict(sub)
	}
	action := command.Action
	if action == nil {
		return
	}
	required, group := requiredFlags(command), len(command.Subcommands) > 0 // urfave/cli adds help to all later
	command.Action = func(c *cli.Context) error {
		if c.Args().Present() && command.ArgsUsage == "" && !group {
			return fault.New(fault.Usage, "%s: stray argument %q: everything is given by flags, before any argument", command.Name, c.Args().First())
		}
		for _, a := range c.Args().Slice() {
			if strings.HasPrefix(a, "-") && !group {
				return fault.New(fault.Usage, "%s: %s comes behind an argument: flags go first", command.Name, a)
			}
		}
		for _, name := range required {
			if c.String(name) == "" {
				return usageError(c, fmt.Errorf("--%s is needed", name), true)
			}
		}
		return action(c)
	}
}

// requiredFlags takes the care for a command's required flags from urfave/cli.
func requiredFlags(command *cli.Command) (names []string) {
	for _, f := range command.Flags {
		if s, ok := f.(*cli.StringFlag); ok && s.Required {
			s.Required = false
			names = append(names, s.Name)
		}
	}
	return names
}
