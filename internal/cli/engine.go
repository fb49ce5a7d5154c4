package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/life"
	"github.com/beatfabric/hivebeat/internal/probe"
	"github.com/beatfabric/hivebeat/internal/runner"
	"github.com/beatfabric/hivebeat/internal/sidecar"
)

// minStall is the least stall time of a probed engine: a long prefill shows none.
const minStall = 5 * time.Minute

// EngineFlags say which program a worker beats for: one that it runs, or one that runs already.
type EngineFlags struct {
	Command []string `arg:"" optional:"" passthrough:"partial" help:"Program to run as the worker, and its arguments, after --."`

	PID     uint64 `name:"pid" placeholder:"N" help:"Beat for this process, until it ends." group:"Process"`
	PIDFile string `name:"pid-file" placeholder:"FILE" help:"Beat for the process whose id is in FILE, and then for the next one." group:"Process"`
	Port    uint16 `placeholder:"N" env:"HIVEBEAT_WORKER_PORT" help:"Beat for the process that listens on this TCP port, and then for the next one." group:"Process"`
	Unit    string `placeholder:"NAME" help:"Beat for the main process of this systemd unit, and then for the next one." group:"Process"`

	Restart     string        `enum:"no,on-failure,always" default:"no" help:"When to start the program again: ${enum}." group:"Process"`
	RestartMax  int           `default:"10" placeholder:"N" help:"Give up after this many restarts within 10 minutes." group:"Process"`
	StopTimeout time.Duration `default:"30s" help:"How long the program may take to stop before it is killed." group:"Process"`

	Probe          string            `placeholder:"KIND" help:"Read state and load from the engine's own endpoints: auto, vllm, sglang, llamacpp, ollama, trtllm, tgi, openai, http, prometheus or tcp (default auto with --probe-url)." group:"Probe"`
	ProbeURL       string            `name:"probe-url" placeholder:"URL" help:"Base address of the engine (default http://127.0.0.1:PORT with --port). On this machine, and without another flag that says so, the process that listens there is the worker's." group:"Probe"`
	ProbeEvery     time.Duration     `default:"5s" help:"How often to read." group:"Probe"`
	ProbeTimeout   time.Duration     `placeholder:"D" help:"How long a reading may take (default 4s, or four fifths of --probe-every)." group:"Probe"`
	ProbeTokenFile string            `placeholder:"FILE" help:"File with the bearer token of the engine." group:"Probe"`
	ProbeCA        string            `name:"probe-ca" placeholder:"FILE" help:"Certificate authorities to trust for the engine." group:"Probe"`
	ProbeMap       map[string]string `placeholder:"FACT=PATH" mapsep:"none" help:"Where a fact is, for --probe http and prometheus: state, model, version, slots, busy, queue, done, tokens, kv, kv_cap or ctx, such as queue=data.waiting. May be repeated." group:"Probe"`
	StallAfter     time.Duration     `env:"HIVEBEAT_WORKER_STALL_AFTER" placeholder:"D" help:"Show the worker as stalled when it is busy and finishes nothing for this time; with a probe at least 5m (default: as the hive is set)." group:"Probe"`
}

// engine reports whether the worker beats for another process than this one.
func (f *EngineFlags) engine() bool { return f.attaches() > 0 || f.Probe != "" || f.ProbeURL != "" }

// attaches returns how many flags say which process it is.
func (f *EngineFlags) attaches() (n int) {
	for _, set := range []bool{len(f.Command) > 0, f.PID != 0, f.PIDFile != "", f.Port != 0, f.Unit != ""} {
		if set {
			n++
		}
	}
	return n
}

// Validate checks the flags.
func (f *EngineFlags) Validate() error {
	if len(f.Command) > 0 && f.Command[0] == "--" {
		if f.Command = f.Command[1:]; len(f.Command) == 0 {
			return misused(errors.New("there is no program after --"), "write hivebeat worker [flags] -- PROGRAM ARG…")
		}
	}
	if f.attaches() > 1 {
		return misused(errors.New("a program, --pid, --pid-file, --port and --unit exclude each other"), "keep one: a worker has one process")
	}
	switch {
	case len(f.Command) == 0 && f.Restart != "no":
		return misused(errors.New("--restart: there is no program to start again"), "add it: hivebeat worker [flags] -- PROGRAM ARG…")
	case f.RestartMax < 1:
		return misused(fmt.Errorf("--restart-max: %d is not a number of restarts", f.RestartMax), "use 1 or more; --restart no never restarts")
	case f.StopTimeout <= 0:
		return misused(fmt.Errorf("--stop-timeout: %s is not a valid timeout", f.StopTimeout), "use something like --stop-timeout 30s")
	case f.StallAfter < 0, f.StallAfter > 0 && f.StallAfter < time.Second:
		return misused(fmt.Errorf("--stall-after: %s is too short", f.StallAfter), "use something like --stall-after 10m")
	}
	return f.checkProbe()
}

func (f *EngineFlags) checkProbe() error {
	cfg, err := f.probe()
	if err != nil {
		return err
	}
	if cfg == nil {
		if f.ProbeTokenFile != "" || f.ProbeCA != "" || len(f.ProbeMap) > 0 {
			return misused(errors.New("flags of a probe, and no probe"), "add --probe-url URL")
		}
		return nil
	}
	if f.StallAfter > 0 && f.StallAfter < minStall {
		return misused(fmt.Errorf("--stall-after: %s is too short for a probe", f.StallAfter), "use %s or more: a long prefill shows no progress", minStall)
	}
	p, err := probe.New(*cfg)
	if err != nil {
		return misused(flagged(err), "hivebeat worker --help lists the flags")
	}
	p.Close()
	return nil
}

// flagged names the flag in place of the field that is wrong.
func flagged(err error) error {
	text := strings.TrimPrefix(err.Error(), "probe: ")
	for field, flag := range map[string]string{ //nolint:gosec // G101: the name of a flag, not a password
		"Kind": "--probe", "URL": "--probe-url", "Every": "--probe-every", "Timeout": "--probe-timeout",
		"CAFile": "--probe-ca", "TokenFile": "--probe-token-file", "Mapping": "--probe-map",
	} {
		if rest, ok := strings.CutPrefix(text, "Config."+field); ok {
			return &reworded{flag + rest, err}
		}
	}
	return &reworded{text, err}
}

// probe returns how to read the engine, or nil.
func (f *EngineFlags) probe() (*probe.Config, error) {
	if f.Probe == "" && f.ProbeURL == "" {
		return nil, nil
	}
	cfg := &probe.Config{
		Kind: probe.Kind(cmp.Or(f.Probe, string(probe.Auto))), URL: f.ProbeURL, Every: f.ProbeEvery, Timeout: f.ProbeTimeout,
		TokenFile: f.ProbeTokenFile, CAFile: f.ProbeCA,
	}
	if !slices.Contains(probe.Kinds(), cfg.Kind) {
		return nil, misused(fmt.Errorf("--probe: %.40q is not a kind of engine", f.Probe), "use one of %s", joined(probe.Kinds()))
	}
	if cfg.URL == "" {
		if f.Port == 0 {
			return nil, misused(errors.New("--probe: where the engine is read is not known"), "add --probe-url URL or --port N")
		}
		if cfg.URL = net.JoinHostPort("127.0.0.1", strconv.Itoa(int(f.Port))); cfg.Kind != probe.TCP {
			cfg.URL = "http://" + cfg.URL
		}
	}
	m := &cfg.Mapping
	at := map[string]*string{
		"state": &m.State, "model": &m.Model, "version": &m.Version, "slots": &m.Slots, "busy": &m.Busy, "queue": &m.Queue,
		"done": &m.Done, "tokens": &m.Tokens, "kv": &m.KV, "kv_cap": &m.KVCap, "ctx": &m.Context,
	}
	for fact, where := range f.ProbeMap {
		if at[fact] == nil {
			return nil, misused(fmt.Errorf("--probe-map: %.40q is not a fact", fact), "use state, model, version, slots, busy, queue, done, tokens, kv, kv_cap or ctx")
		}
		*at[fact] = where
	}
	return cfg, nil
}

// source returns the source of processes, or nil if the worker has only a probe. A program is a
// source itself.
func (f *EngineFlags) source(log *slog.Logger) (life.Source, error) {
	cfg := life.Config{Logger: log}
	var s life.Source
	var err error
	flag := ""
	switch {
	case f.PID != 0:
		flag = "--pid"
		s, err = life.PID(f.PID, cfg)
	case f.PIDFile != "":
		flag = "--pid-file"
		s, err = life.PIDFile(f.PIDFile, cfg)
	case f.Unit != "":
		flag = "--unit"
		s, err = life.Unit(f.Unit, cfg)
	case f.Port != 0:
		flag = "--port"
		s, err = life.Port(f.Port, cfg)
	default:
		port := localPort(f.ProbeURL)
		if port == 0 || runtime.GOOS != "linux" {
			return nil, nil
		}
		flag = "--probe-url"
		s, err = life.Port(port, cfg)
	}
	if err != nil {
		return nil, misused(fmt.Errorf("%s: %w", flag, err), "hivebeat worker --help lists the ways to name a process")
	}
	return s, nil
}

// localPort returns the port of a URL, or host:port, on this machine's loopback, or 0.
func localPort(at string) uint16 {
	host, port := "", ""
	if u, err := url.Parse(at); err == nil && u.Host != "" {
		if host, port = u.Hostname(), u.Port(); port == "" {
			port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
		}
	} else if host, port, err = net.SplitHostPort(at); err != nil {
		return 0
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return 0
	}
	n, _ := strconv.ParseUint(port, 10, 16)
	return uint16(n)
}

// runEngine beats for a process that runs already, until a signal comes or the process has ended
// for good.
func (cmd *workerCmd) runEngine(ctx context.Context, log *slog.Logger) error {
	source, err := cmd.source(log)
	if err != nil {
		return err
	}
	run, e, err := cmd.beginEngine(ctx, source, log)
	if err != nil {
		return err
	}
	if err := finish(run, ctx.Done(), leaveIn, log); err != nil {
		return err
	}
	if end := e.Last(); end.Final && !end.Orderly { // so that a supervisor of this command notices
		return failed(fmt.Errorf("process %d has ended", cmd.PID), "--port, --unit and --pid-file wait for the next process")
	}
	return nil
}

// runProgram runs a program as the worker. Its exit code is that of the command.
func (cmd *workerCmd) runProgram(ctx context.Context, c *console) error {
	defer outliveReader()()
	log := c.logger(cmd.LogFlags)
	r, err := runner.New(runner.Config{
		Args: cmd.Command, Restart: runner.Policy(cmd.Restart), RestartMax: cmd.RestartMax, StopTimeout: cmd.StopTimeout,
		Stdin: fileOf(c.in), Stdout: fileOf(c.out), Stderr: fileOf(c.err), Adopt: true, Logger: log,
	})
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return &failure{err, "name a program in the PATH, or its path", 127}
	case errors.Is(err, fs.ErrPermission):
		return &failure{err, "it must be executable", 126}
	case err != nil:
		return misused(err, "hivebeat worker --help lists the flags")
	}
	defer r.Close()
	stop, end := relay(r)
	defer end()
	run, _, err := cmd.beginEngine(ctx, r, log)
	if err != nil {
		return err
	}
	err = finish(run, stop, cmd.StopTimeout+leaveIn, log)
	r.Close()
	if code := r.Code(); code != 0 {
		if err != nil { // the code of the program comes first
			log.Warn("the worker did not end in order", slog.Any("err", err))
		}
		return endedWith(code)
	}
	return err
}

// fileOf returns the file behind a stream, or nil.
func fileOf(s any) *os.File {
	f, _ := s.(*os.File)
	return f
}

// relay passes signals on to the program. stop is closed when one asks it to end.
func relay(r *runner.Runner) (stop <-chan struct{}, end func()) {
	signals, stopped, done := make(chan os.Signal, 16), make(chan struct{}), make(chan struct{})
	signal.Notify(signals, runner.Signals()...)
	go func() {
		for once := false; ; {
			select {
			case s := <-signals:
				r.Signal(s)
				if runner.Stops(s) && !once {
					once = true
					close(stopped)
				}
			case <-done:
				return
			}
		}
	}()
	return stopped, func() {
		signal.Stop(signals)
		close(done)
	}
}

// beginEngine connects, and starts to beat for the processes of source.
func (cmd *workerCmd) beginEngine(ctx context.Context, source life.Source, log *slog.Logger) (*running, *sidecar.Engine, error) {
	probed, err := cmd.probe()
	if err != nil {
		return nil, nil, err
	}
	name := "worker " + cmd.Hive + "/" + cmd.ID
	nc, err := cmd.join(ctx, name, cmd.Every, log)
	if err != nil {
		return nil, nil, err
	}
	e, err := sidecar.New(nc, sidecar.Config{Worker: cmd.config(log), Source: source, Guessed: cmd.attaches() == 0, Probe: probed, Logger: log})
	if err != nil {
		nc.Close()
		return nil, nil, misused(err, "hivebeat worker --help lists the flags")
	}
	return begin(ctx, name, e, nc), e, nil
}

// finish waits until a role has ended by itself, which is no failure, or until stop, and then lets
// it leave.
func finish(run *running, stop <-chan struct{}, within time.Duration, log *slog.Logger) error {
	n := notify(log)
	defer n.close()
	n.say(ready)
	select {
	case <-run.ended:
		n.say(stopping)
		if run.err != nil {
			run.nc.Close()
			return run.why()
		}
		return drained(run.nc)
	case <-stop:
	}
	n.say(stopping)
	log.Info("shutting down", slog.String("role", run.name))
	return run.leaveWithin(within)
}

// drained closes a connection when everything that was sent has gone out.
func drained(nc *nats.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), leaveIn)
	defer cancel()
	if err := bus.Drain(ctx, nc); err != nil {
		return fmt.Errorf("the last messages may be lost: %w", err)
	}
	return nil
}
