// Package cli is the command hivebeat: its flags, its output and its exit codes.
// A command is a struct with Validate and Run; everything it reads and writes
// comes in through Streams.
package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/beatfabric/hivebeat/queen/httpapi"
)

// Exit codes.
const (
	ExitDone   = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// Streams is what a command reads from and writes to.
type Streams struct {
	In   io.Reader
	Out  io.Writer
	Err  io.Writer
	Exit func(code int) // ends the process at once, on the second signal
}

// Standard returns the streams of this process.
func Standard() Streams {
	return Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Exit: os.Exit}
}

// commands is the grammar of the command line, in the order of the help.
type commands struct {
	Help        helpFlag    `short:"h" help:"Show help."`
	ShowVersion versionFlag `name:"version" env:"-" help:"Show the version."`

	Up      upCmd      `cmd:"" help:"Run server, queen and hive in one process."`
	Worker  workerCmd  `cmd:"" help:"Beat for one worker."`
	Sidecar sidecarCmd `cmd:"" help:"Beat for inference engines, any number in one process."`
	Hive    hiveCmd    `cmd:"" help:"Run the hive of this machine."`
	Queen   queenCmd   `cmd:"" help:"Run a queen."`
	Ls      lsCmd      `cmd:"" set:"outputs=text,wide,name,json" help:"List hives and workers."`
	Get     getCmd     `cmd:"" help:"Show everything about one hive or worker."`
	Events  eventsCmd  `cmd:"" help:"Show past events."`
	Pick    pickCmd    `cmd:"" help:"Pick workers or GPUs for work, and hold them."`
	Wait    waitCmd    `cmd:"" help:"Wait until enough workers can serve, for scripts."`
	Forget  forgetCmd  `cmd:"" help:"Remove a hive or GPU that is gone."`
	Drain   drainCmd   `cmd:"" help:"Give no new work to a hive, worker or GPU."`
	Undrain undrainCmd `cmd:"" help:"End a drain."`

	Silence   silenceCmd   `cmd:"" help:"Let deaths of a hive or worker wake nobody for a while."`
	Unsilence unsilenceCmd `cmd:"" help:"End a silence."`

	Watch   watchCmd   `cmd:"" help:"Watch the fleet and its events."`
	Top     topCmd     `cmd:"" help:"Browse the fleet, full screen."`
	Decode  decodeCmd  `cmd:"" help:"Turn msgpack on stdin into JSON."`
	Doctor  doctorCmd  `cmd:"" help:"Check what a role needs from NATS."`
	Sim     simCmd     `cmd:"" help:"Simulate faults, or estimate the effect of settings."`
	Version versionCmd `cmd:"" help:"Show the version."`
}

const description = `hivebeat is a heartbeat fabric on NATS: which workers are alive, what do they serve, ` +
	`how much VRAM is free, and how sure is that?

Start with "hivebeat up --demo" here and "hivebeat watch" in another terminal.

Every flag can be set by an environment variable, which --help names: --nats by HIVEBEAT_NATS.`

// errHelp ends the parsing after the help or the version has been printed.
var errHelp = errors.New("help")

type helpFlag bool

func (helpFlag) IgnoreDefault() {}

// BeforeReset prints the help of the selected command.
func (helpFlag) BeforeReset(ctx *kong.Context) error {
	return errors.Join(ctx.PrintUsage(false), errHelp)
}

// versionFlag is --version, for people who try it before they look for the command.
type versionFlag bool

func (versionFlag) IgnoreDefault() {}

// BeforeReset prints the same as the command version.
func (versionFlag) BeforeReset(c *console) error {
	if err := new(versionCmd).Run(c); err != nil {
		return err
	}
	return errHelp
}

// unsetEmpty removes empty variables, which compose files and service units leave behind:
// kong would take the empty text for a value.
func unsetEmpty() {
	for _, v := range os.Environ() {
		if name, value, _ := strings.Cut(v, "="); value == "" && strings.HasPrefix(name, "HIVEBEAT_") {
			_ = os.Unsetenv(name)
		}
	}
}

// parser returns the parser of the command line. It stores the value it stopped at in bad.
func (c *console) parser(ctx context.Context, bad **badValue) (*kong.Kong, error) {
	return kong.New(&commands{},
		kong.Name("hivebeat"),
		kong.Description(description),
		kong.Writers(c.out, c.err),
		kong.NoDefaultHelp(),
		kong.DefaultEnvars("HIVEBEAT"),
		kong.Vars{"http_addr": httpapi.DefaultAddr, "outputs": "text,json"},
		kong.ConfigureHelp(kong.HelpOptions{NoExpandSubcommands: true, WrapUpperBound: 110}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(c),
		readValues(bad),
	)
}

// Main runs the command in args and returns its exit code. An error goes to s.Err: one line
// "hivebeat: …", and a line "hint: …" about what to do next.
func Main(ctx context.Context, args []string, s Streams) int {
	c := newConsole(s)
	unsetEmpty()
	var bad *badValue
	parser, err := c.parser(ctx, &bad)
	if err != nil {
		return c.fail(err)
	}
	if len(args) == 0 {
		parser.Stdout = s.Err
		if _, err = parser.Parse([]string{"--help"}); !errors.Is(err, errHelp) {
			return c.fail(err)
		}
		return ExitUsage
	}
	switch args[0] { // as many tools have them
	case "help":
		args = append(slices.Clone(args[1:]), "--help")
	case "-v": // sim has a flag -v of its own
		args = []string{"--version"}
	}
	parsed, err := parser.Parse(args)
	switch {
	case errors.Is(err, errHelp):
		return ExitDone
	case err != nil:
		return c.fail(usageError(err, args, bad))
	}
	return c.fail(parsed.Run())
}
